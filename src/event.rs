//! What an event is: its columns and their types, its time, its place in the total order, and the
//! partition and slice it belongs to. Pure vocabulary: no I/O, no clock.
//!
//! ```text
//! declared columns · [record_sha256] · raw_record · extra      what decoding yields
//!        │ event time
//!        ├──▶ Partition  dt=2019-04-02[/hour=09]               the date (and hour) in the lake's zone
//!        └──▶ slice      part-00000                            which fixed span of that partition
//! order: (event time, raw object as bytes, raw record)         total, and of content only
//! ```

mod columns;
mod partition;

pub use columns::{
    Column, ColumnType, EXTRA, KEPT_OBJECT, KEPT_RECORD, RAW_OBJECT, RAW_RECORD, RECORD_SHA256,
    RULE, TypeError, reserved,
};
pub use partition::{PartitionBy, Place, Slicing};

use serde::{Deserialize, Serialize};

use crate::time::{TimeUnit, Zone};

/// What to do with a value that does not fit its column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnTypeError {
    /// The record becomes a reject.
    #[default]
    Reject,
    /// The column is null, the value stays in `extra`, and the column's count goes up.
    Null,
}

/// Everything that turns the records of one source into events: plain values that can be sent to
/// another machine as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecodeSpec {
    pub columns: Vec<Column>,
    /// The column that is the event time; of type `timestamp`.
    pub event_time: String,
    pub unit: TimeUnit,
    /// The zone of times that are written without an offset; without it such a time is unreadable.
    pub naive_timezone: Option<Zone>,
    pub accept: Accept,
    pub on_type_error: OnTypeError,
    /// A rule names `record_sha256`, so events carry that column.
    pub record_sha256: bool,
    pub limits: Limits,
}

/// The span of event times that is believed; outside it a record is a reject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// First accepted instant, milliseconds since 1970 UTC.
    pub from_ms: i64,
    /// Milliseconds an event may lie after its raw object's arrival.
    pub ahead_ms: i64,
}

impl Accept {
    /// Whether `time`, in `unit`, is believed of a raw object that arrived at `arrival_ms`.
    pub fn holds(self, time: i64, unit: TimeUnit, arrival_ms: i64) -> bool {
        let scale = unit.per_second() / 1_000;
        let from = self.from_ms.saturating_mul(scale);
        let until = arrival_ms
            .saturating_add(self.ahead_ms)
            .saturating_mul(scale);
        from <= time && time <= until
    }
}

/// The bounds that turn bombs into rejects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of one record.
    pub max_record_bytes: u64,
    /// Decompressed bytes of one raw object; at most 4 GiB, so that a record number fits 32 bits.
    pub max_object_bytes: u64,
    /// Levels of `{` and `[`.
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

/// Why a record is not an event. A closed list: dashboards group by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    NotJson,
    NotObject,
    TooLarge,
    TooDeep,
    Codec,
    ObjectTooLarge,
    Missing,
    Type,
    EventTime,
    OutOfRange,
}

impl Reason {
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
        }
    }

    /// Whether no JSON object was read.
    pub const fn unread(self) -> bool {
        match self {
            Self::NotJson
            | Self::NotObject
            | Self::TooLarge
            | Self::TooDeep
            | Self::Codec
            | Self::ObjectTooLarge => true,
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
