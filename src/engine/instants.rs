//! Times in columns: which zones are UTC, and times without what is finer than a unit.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, TimestampMicrosecondType, TimestampNanosecondType};

use crate::time::TimeUnit;

/// Whether the fields of a time in this zone are the fields of UTC.
pub(super) fn is_utc(zone: &str) -> bool {
    matches!(zone, "UTC" | "Z" | "+00:00" | "Etc/UTC")
}

/// Whether times of this type may have parts that are finer than `unit`s.
pub fn is_finer(kind: &DataType, unit: TimeUnit) -> bool {
    finer(kind, unit).is_some()
}

/// The times of an array without what is finer than `unit`s, in their own type. Any other array as it is.
pub fn floored_array(times: &ArrayRef, unit: TimeUnit) -> ArrayRef {
    let kind = times.data_type();
    let (DataType::Timestamp(own, zone), Some(finer)) = (kind, finer(kind, unit)) else {
        return Arc::clone(times);
    };
    let whole = |time: i64| time.saturating_sub(time.rem_euclid(finer));
    match own {
        arrow::datatypes::TimeUnit::Nanosecond => Arc::new(
            times
                .as_primitive::<TimestampNanosecondType>()
                .unary::<_, TimestampNanosecondType>(whole)
                .with_timezone_opt(zone.clone()),
        ),
        _ => Arc::new(
            times
                .as_primitive::<TimestampMicrosecondType>()
                .unary::<_, TimestampMicrosecondType>(whole)
                .with_timezone_opt(zone.clone()),
        ),
    }
}

/// How many units of a type one `unit` is; `None` where the type is no finer.
fn finer(kind: &DataType, unit: TimeUnit) -> Option<i64> {
    use arrow::datatypes::TimeUnit::{Microsecond, Nanosecond};
    match (kind, unit) {
        (DataType::Timestamp(Nanosecond, _), TimeUnit::Ms) => Some(1_000_000),
        (DataType::Timestamp(Nanosecond, _), TimeUnit::Us)
        | (DataType::Timestamp(Microsecond, _), TimeUnit::Ms) => Some(1_000),
        _ => None,
    }
}
