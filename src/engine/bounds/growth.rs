//! Measures from the arguments of a function how large its result may be, before it is evaluated.

use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait};
use arrow::datatypes::{DataType, Int64Type, IntervalUnit, TimeUnit};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::ColumnarValue;

use super::VALUE;

/// The way in which the size of a result follows from the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Growth {
    /// The sum of all arguments.
    Sum,
    /// The sum of all arguments but the first, with the first between them.
    Joined,
    /// The first argument, repeated as often as the second says.
    Times,
    /// The first argument, and as many characters as the second says.
    Padded,
    /// The first argument, with the third in the place of each occurrence of the second.
    Replaced,
    /// The first argument, with the third in the place of each match of the pattern.
    RegexReplaced,
    /// The numbers or times of a range.
    Listed,
    /// As many items as the second argument says.
    Resized,
    /// The items of the first argument, with the second between them.
    Text,
    /// The second argument, in which each letter may become a word.
    Format,
    /// The items of the first argument, with the third in the place of some of them.
    Items,
}

/// The functions whose result is not bounded by a small multiple of one argument.
pub(super) const GROWING: [(&str, Growth); 26] = [
    ("concat", Growth::Sum),
    ("concat_ws", Growth::Joined),
    ("overlay", Growth::Sum),
    ("repeat", Growth::Times),
    ("lpad", Growth::Padded),
    ("rpad", Growth::Padded),
    ("replace", Growth::Replaced),
    ("regexp_replace", Growth::RegexReplaced),
    ("to_char", Growth::Format),
    ("date_format", Growth::Format),
    ("format_datetime", Growth::Format),
    ("range", Growth::Listed),
    ("generate_series", Growth::Listed),
    ("array_repeat", Growth::Times),
    ("array_resize", Growth::Resized),
    ("array_to_string", Growth::Text),
    ("array_append", Growth::Sum),
    ("array_prepend", Growth::Sum),
    ("array_concat", Growth::Sum),
    ("array_union", Growth::Sum),
    ("arrays_zip", Growth::Sum),
    ("array_replace", Growth::Items),
    ("array_replace_n", Growth::Items),
    ("array_replace_all", Growth::Items),
    ("make_array", Growth::Sum),
    ("map", Growth::Sum),
];

/// One argument, read row by row.
pub(super) struct Given<'a> {
    bytes: Vec<u64>,
    value: &'a ColumnarValue,
}

impl<'a> Given<'a> {
    pub(super) fn of(value: &'a ColumnarValue, rows: usize) -> Result<Self, DataFusionError> {
        let bytes = match value {
            ColumnarValue::Array(array) => bytes_of(array),
            ColumnarValue::Scalar(value) => {
                let one = bytes_of(&value.to_array()?);
                vec![one.first().copied().unwrap_or(0); rows]
            }
        };
        Ok(Self { bytes, value })
    }

    fn bytes(&self, row: usize) -> u64 {
        self.bytes.get(row).copied().unwrap_or(0)
    }

    fn scalar(&self, row: usize) -> Option<ScalarValue> {
        match self.value {
            ColumnarValue::Array(array) => ScalarValue::try_from_array(array, row).ok(),
            ColumnarValue::Scalar(value) => Some(value.clone()),
        }
    }

    /// The number in this row; 0 where it is NULL or negative.
    fn number(&self, row: usize) -> u64 {
        let number = match self.value {
            ColumnarValue::Array(array) => match array.as_primitive_opt::<Int64Type>() {
                Some(array) if array.is_valid(row) => Some(array.value(row)),
                Some(_) => None,
                None => self.scalar(row).as_ref().and_then(integer),
            },
            ColumnarValue::Scalar(value) => integer(value),
        };
        number.map_or(0, |number| u64::try_from(number).unwrap_or(0))
    }

    /// The text in this row; empty where it is NULL.
    fn text(&self, row: usize) -> String {
        let value = self.scalar(row);
        let text = value.as_ref().and_then(ScalarValue::try_as_str);
        text.flatten().unwrap_or_default().to_owned()
    }

    /// The items of the list in this row.
    fn items(&self, row: usize) -> u64 {
        match self.scalar(row) {
            Some(ScalarValue::List(list)) => list.values().len() as u64,
            // An item of any other list takes at least one bit.
            _ => self.bytes(row).saturating_mul(8),
        }
    }
}

/// The whole number that a constant is, or stands for.
pub(super) fn integer(value: &ScalarValue) -> Option<i64> {
    match value.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(number)) => number,
        _ => None,
    }
}

/// The bytes of each row of an array.
pub(super) fn bytes_of(array: &ArrayRef) -> Vec<u64> {
    fn between<O: OffsetSizeTrait>(offsets: &[O]) -> Vec<u64> {
        let ends = offsets.iter().skip(1);
        let lengths = offsets.iter().zip(ends).map(|(start, end)| *end - *start);
        lengths.map(|length| length.as_usize() as u64).collect()
    }
    let rows = array.len();
    let all = |bytes: u64| vec![bytes; rows];
    match array.data_type() {
        DataType::Null => all(0),
        DataType::Boolean => all(1),
        DataType::LargeUtf8 => between(array.as_string::<i64>().value_offsets()),
        DataType::Utf8 => between(array.as_string::<i32>().value_offsets()),
        DataType::Binary => between(array.as_binary::<i32>().value_offsets()),
        DataType::Utf8View => {
            let lengths = array.as_string_view().lengths();
            lengths.map(u64::from).collect()
        }
        kind => match kind.primitive_width() {
            Some(width) => all(width as u64),
            None => (0..rows)
                .map(|row| {
                    let one = array.slice(row, 1).to_data();
                    one.get_slice_memory_size()
                        .map_or(u64::MAX, |bytes| bytes as u64)
                })
                .collect(),
        },
    }
}

impl Growth {
    /// Whether a result may be much smaller than [`Self::most`].
    pub(super) fn is_estimate(self) -> bool {
        matches!(
            self,
            Self::Replaced | Self::RegexReplaced | Self::Text | Self::Format | Self::Items
        )
    }

    /// The most bytes that the result in this row can have.
    pub(super) fn most(self, given: &[Given<'_>], row: usize) -> u64 {
        let bytes = |n: usize| given.get(n).map_or(0, |given| given.bytes(row));
        let number = |n: usize| given.get(n).map_or(0, |given| given.number(row));
        match self {
            Self::Sum => (0..given.len()).fold(0, |all, n| all.saturating_add(bytes(n))),
            Self::Joined => {
                let texts = (1..given.len()).fold(0_u64, |all, n| all.saturating_add(bytes(n)));
                texts.saturating_add(bytes(0).saturating_mul(given.len() as u64))
            }
            // An item of a list also takes space for its position.
            Self::Times if is_list(given) => bytes(0).max(8).saturating_mul(number(1)),
            Self::Times => bytes(0).saturating_mul(number(1)),
            Self::Padded => {
                let widest = if given.len() > 2 { bytes(2).min(4) } else { 1 };
                bytes(0).saturating_add(number(1).saturating_mul(widest))
            }
            Self::Replaced => {
                let (from, to) = (bytes(1), bytes(2));
                let found = bytes(0).checked_div(from).unwrap_or(bytes(0) + 1);
                let most = |found: u64| {
                    let more = found.saturating_mul(to.saturating_sub(from));
                    bytes(0).saturating_add(more)
                };
                match given {
                    [text, from, ..] if most(found) > VALUE => {
                        let (text, from) = (text.text(row), from.text(row));
                        most(text.matches(from.as_str()).count() as u64)
                    }
                    _ => most(found),
                }
            }
            Self::RegexReplaced => {
                let replacement = given.get(2).map_or(String::new(), |given| given.text(row));
                let flags = given.get(3).map_or(String::new(), |given| given.text(row));
                let found = match flags.contains('g') {
                    true => bytes(0).saturating_add(1),
                    false => 1,
                };
                // The matches of groups at different positions do not overlap.
                let groups = replacement.matches(['\\', '$']).count() as u64;
                let text = bytes(0).saturating_mul(groups.saturating_add(1));
                text.saturating_add(found.saturating_mul(bytes(2)))
            }
            Self::Listed => listed(given, row).saturating_mul(8),
            Self::Resized => {
                let items = number(1).saturating_mul(bytes(2).max(8));
                bytes(0).saturating_add(items)
            }
            Self::Text => {
                let items = given.first().map_or(0, |given| given.items(row));
                // A number of eight bytes is written with at most 24 bytes, and a flag with five.
                let item = bytes(1).saturating_add(bytes(2)).saturating_add(24);
                bytes(0).saturating_add(items.saturating_mul(item))
            }
            Self::Format => bytes(1).saturating_mul(20).saturating_add(64),
            Self::Items => {
                let items = given.first().map_or(0, |given| given.items(row));
                bytes(0).saturating_add(items.saturating_mul(bytes(2)))
            }
        }
    }
}

/// Whether the first argument is repeated as an item. A number has no text.
fn is_list(given: &[Given<'_>]) -> bool {
    let first = given.first().map(|given| given.value.data_type());
    first.is_some_and(|kind| !kind.is_string())
}

/// The number of items of a range in this row: `range(stop)`, or from `start` to `stop` by a `step`.
fn listed(given: &[Given<'_>], row: usize) -> u64 {
    let value = |n: usize| given.get(n).and_then(|given: &Given<'_>| given.scalar(row));
    let place = |value: Option<ScalarValue>| {
        let value = value?;
        let time = match value.data_type() {
            DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => {
                let kind = DataType::Timestamp(TimeUnit::Microsecond, None);
                value.cast_to(&kind).ok()?
            }
            _ => value,
        };
        integer(&time)
    };
    let (start, stop) = match given.len() {
        1 => (Some(0), place(value(0))),
        _ => (place(value(0)), place(value(1))),
    };
    let (Some(start), Some(stop)) = (start, stop) else {
        return 0;
    };
    let step = match value(2) {
        None => 1,
        Some(step) => match step.data_type() {
            DataType::Interval(_) => microseconds(&step),
            _ => integer(&step).unwrap_or(1),
        },
    };
    let span = i128::from(stop) - i128::from(start);
    let step = i128::from(step);
    // A range against the direction of its step is empty. Without a step, the function itself gives an error.
    match step {
        0 => 0,
        step if span.signum() == -step.signum() => 0,
        step => u64::try_from((span / step).abs() + 1).unwrap_or(u64::MAX),
    }
}

/// The least length of a span of time. A month counts 28 days.
fn microseconds(step: &ScalarValue) -> i64 {
    const DAY: i64 = 86_400_000_000;
    let parts = step.cast_to(&DataType::Interval(IntervalUnit::MonthDayNano));
    match parts {
        Ok(ScalarValue::IntervalMonthDayNano(Some(parts))) => {
            let days = i64::from(parts.months) * 28 + i64::from(parts.days);
            match days
                .saturating_mul(DAY)
                .saturating_add(parts.nanoseconds / 1000)
            {
                0 if parts.nanoseconds != 0 => 1,
                span => span,
            }
        }
        _ => 1,
    }
}
