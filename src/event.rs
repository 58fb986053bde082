//! The vocabulary of events: columns and their types, the accepted event times, the reasons of rejects, and
//! the partition and slice of an event. This room does no I/O and reads no clock.
//!
//! ```text
//! declared columns · [record_sha256] · raw_record · extra      what decoding yields
//!        │ event time
//!        ├──▶ Partition  dt=2019-04-02[/hour=09]               the date (and hour) in the lake's zone
//!        └──▶ slice      part-00000                            which fixed span of that partition
//! order: (event time, raw object as bytes, raw record)         total, and a function of content alone
//! ```

mod columns;
mod partition;
mod unwrap;

pub use columns::{
    Column, ColumnType, EXTRA, KEPT_OBJECT, KEPT_RECORD, RAW_OBJECT, RAW_RECORD, RECORD_SHA256,
    RULE, TypeError, reserved,
};
pub use partition::{PartitionBy, Place, Slicing};
pub use unwrap::{ENVELOPE, UnwrapStep};

use serde::{Deserialize, Serialize};

use crate::time::{TimeUnit, Zone};

/// The treatment of a value that does not fit the type of its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnTypeError {
    /// The record becomes a reject.
    #[default]
    Reject,
    /// The column is null, the value stays in `extra`, and the column's count goes up.
    Null,
}

/// All settings that turn the records of one source into events. They are plain values, so that they can be sent
/// to another machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecodeSpec {
    /// The columns, in the order of the configuration.
    pub columns: Vec<Column>,
    /// The name of the column that is the event time. Its type is `timestamp`.
    pub event_time: String,
    /// The unit of every timestamp of the source's tables.
    pub unit: TimeUnit,
    /// The zone of times that are written without an offset. `None` makes such a time unreadable.
    pub naive_timezone: Option<Zone>,
    /// The zone whose local time numbers count. `None` where they count from 1970-01-01 UTC.
    #[serde(default)]
    pub epoch_timezone: Option<Zone>,
    /// The span of event times that is believed.
    pub accept: Accept,
    /// The treatment of a record with a value of a wrong type.
    pub on_type_error: OnTypeError,
    /// Whether events carry the column `record_sha256`, because a rule names it.
    pub record_sha256: bool,
    /// The largest records and objects that are read.
    pub limits: Limits,
    /// The steps from an object of the raw object to the records inside. Without a step the object is the record.
    #[serde(default)]
    pub unwrap: Vec<UnwrapStep>,
}

/// The span of event times that is believed. A record with a time outside of it is a reject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// The first accepted instant, in milliseconds since 1970 UTC.
    pub from_ms: i64,
    /// How many milliseconds an event may lie after the arrival of its raw object.
    pub ahead_ms: i64,
}

impl Accept {
    /// Whether the event time `time`, in `unit`s, is believed. The raw object arrived at `arrival_ms`, milliseconds
    /// since 1970 UTC.
    pub fn holds(self, time: i64, unit: TimeUnit, arrival_ms: i64) -> bool {
        let scale = unit.per_second() / 1_000;
        let from = self.from_ms.saturating_mul(scale);
        let until = arrival_ms
            .saturating_add(self.ahead_ms)
            .saturating_mul(scale);
        from <= time && time <= until
    }
}

/// The bounds beyond which a record or the rest of an object is a reject, so that no input can fill the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The most bytes that one record may have.
    pub max_record_bytes: u64,
    /// The most bytes that one raw object may have once decompressed. At most 4 GiB, so that a record number fits
    /// 32 bits.
    pub max_object_bytes: u64,
    /// The most levels of `{` and `[`.
    pub max_depth: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_record_bytes: 16 << 20,
            max_object_bytes: 4 << 30,
            max_depth: 128,
        }
    }
}

/// Why a record is not an event. The list is closed, because dashboards group by its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The bytes are no JSON.
    NotJson,
    /// The bytes are JSON, but no object.
    NotObject,
    /// The record is larger than [`Limits::max_record_bytes`].
    TooLarge,
    /// The record nests deeper than [`Limits::max_depth`].
    TooDeep,
    /// The compressed stream is damaged or cut off, or the object is of a kind that is not read.
    Codec,
    /// The object is larger than [`Limits::max_object_bytes`].
    ObjectTooLarge,
    /// A required column is missing or null.
    Missing,
    /// A value does not fit its column's type.
    Type,
    /// The event time is missing, null or unreadable.
    EventTime,
    /// The event time is outside of [`Accept`].
    OutOfRange,
    /// The object is not such an envelope as `unwrap` names.
    Envelope,
}

impl Reason {
    /// The name in the column `reason` and in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::NotObject => "not_object",
            Self::TooLarge => "too_large",
            Self::TooDeep => "too_deep",
            Self::Codec => "codec",
            Self::ObjectTooLarge => "object_too_large",
            Self::Missing => "missing",
            Self::Type => "type",
            Self::EventTime => "event_time",
            Self::OutOfRange => "out_of_range",
            Self::Envelope => "envelope",
        }
    }

    /// Whether the record could not be read as a JSON object at all, or is an envelope whose records were not read.
    pub const fn unread(self) -> bool {
        match self {
            Self::NotJson
            | Self::NotObject
            | Self::TooLarge
            | Self::TooDeep
            | Self::Codec
            | Self::ObjectTooLarge
            | Self::Envelope => true,
            Self::Missing | Self::Type | Self::EventTime | Self::OutOfRange => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn accept_is_inclusive_and_counts_from_arrival() {
        let accept = Accept {
            from_ms: 1_000,
            ahead_ms: 500,
        };
        for (time, held) in [(999, false), (1_000, true), (2_500, true), (2_501, false)] {
            assert_eq!(accept.holds(time, TimeUnit::Ms, 2_000), held, "{time}");
        }
        assert!(accept.holds(2_500_000, TimeUnit::Us, 2_000));
        assert!(!accept.holds(2_500_001, TimeUnit::Us, 2_000));
    }
}
