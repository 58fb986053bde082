//! Clocks, units and spellings of time. Pure: no I/O, and nothing here asks what time it is.
//!
//! ```text
//! "2019-04-02 09:05:00" ──spelling──▶ local time ──zone──▶ instant    an integer of `TimeUnit`s since 1970 UTC
//! "1554195900.25"       ──spelling──▶ decimal digits ────▶ instant
//! "02/Apr/2019:09:05:00 +0900" ──everyday──▶ local time and offset, if no common spelling fits
//! "2. 4. 2019 9:05"     ──format────▶ local time           where the configuration names the format
//! ```

mod clock;
mod decimal;
mod everyday;
mod format;
mod spelling;
mod zone;

pub use decimal::Decimal;
pub use format::TimeFormat;
pub use spelling::{read_date, read_epoch, read_mongo, read_time};
pub use zone::Zone;

use serde::{Deserialize, Serialize};

/// The zones of times that do not say how far they are from UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Zones {
    /// The zone of times that are written without an offset. `None` makes such a time unreadable.
    pub naive: Option<Zone>,
    /// The zone whose local time numbers count. `None` where they count from 1970-01-01 UTC.
    pub epoch: Option<Zone>,
}

/// The unit of every timestamp in a table: milliseconds, unless the source says `timestamp_unit = "us"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    /// Milliseconds.
    #[default]
    Ms,
    /// Microseconds.
    Us,
}

impl TimeUnit {
    /// The unit in the terms of Arrow.
    pub const fn arrow(self) -> arrow::datatypes::TimeUnit {
        match self {
            Self::Ms => arrow::datatypes::TimeUnit::Millisecond,
            Self::Us => arrow::datatypes::TimeUnit::Microsecond,
        }
    }

    /// Whether a time, in these units since 1970 UTC, is in the years 1 to 9999: not every reader knows other
    /// years.
    pub const fn holds(self, time: i64) -> bool {
        const FIRST: i64 = -62_135_596_800;
        const END: i64 = 253_402_300_800;
        FIRST * self.per_second() <= time && time < END * self.per_second()
    }

    /// How many units a second has.
    pub const fn per_second(self) -> i64 {
        match self {
            Self::Ms => 1_000,
            Self::Us => 1_000_000,
        }
    }
}
