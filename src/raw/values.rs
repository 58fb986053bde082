//! JSON values as values of column types, and the builders that hold them.
//!
//! ```text
//! text of a value ──▶ scalar() ──▶ Scalar ──▶ Builder::scalar
//!                └──▶ fits()   (arrays, maps, structs)  ──▶ Builder::json
//! ```
//!
//! A value is first read and only then appended, so no builder ever holds half a value; the rows
//! take back the values of a record that they refuse.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array, Float64Array,
    Int32Array, Int64Array, ListArray, MapArray, NullBufferBuilder, StringArray, StructArray,
    TimestampMicrosecondArray, TimestampMillisecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, FieldRef, Fields};
use arrow::error::ArrowError;

use super::json::{Items, Members, Skipper, unescape};
use crate::event::{Column, ColumnType};
use crate::time::{Decimal, TimeUnit, Zone, read_date, read_epoch, read_time};

/// Bytes that are copied at once.
const COPY: usize = 32;

/// How times are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub unit: TimeUnit,
    pub naive: Option<Zone>,
}

impl Times {
    /// The time in the text of a JSON value: a string or a number.
    #[inline]
    pub fn read(self, value: &str) -> Option<i64> {
        match quoted(value) {
            Some(text) => read_time(&resolved(text)?, self.unit, self.naive),
            None => read_epoch(value, self.unit),
        }
    }
}

impl Times {
    /// Whether the value would be a time if the zone of such times were given.
    #[cold]
    pub fn lacks_offset(self, value: &str) -> bool {
        let naive = Some(Zone(chrono_tz::UTC));
        self.naive.is_none() && Self { naive, ..self }.read(value).is_some()
    }
}

/// A value of a column that is no array, map or struct.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar<'a> {
    Null,
    Boolean(bool),
    /// Also days of a date and units of a timestamp.
    Integer(i64),
    Double(f64),
    /// Unscaled.
    Decimal(i128),
    Text(Cow<'a, str>),
}

/// Between the quotes of a JSON string, as written.
#[inline]
fn quoted(value: &str) -> Option<&str> {
    value.strip_prefix('"')?.strip_suffix('"')
}

/// `None` where half of a surrogate pair stands alone.
#[inline]
fn resolved(text: &str) -> Option<Cow<'_, str>> {
    if memchr::memchr(b'\\', text.as_bytes()).is_some() {
        unescape(text)
    } else {
        Some(Cow::Borrowed(text))
    }
}

/// An integer literal: no point, no exponent.
#[inline]
fn integer(value: &str) -> Option<i64> {
    // JSON's grammar has been checked; `parse` would take a `+`, which JSON does not have.
    value.parse().ok()
}

fn double(value: &str) -> Option<f64> {
    if !value.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return None;
    }
    value.parse().ok().filter(|value: &f64| value.is_finite())
}

/// Reads the text of one valid JSON value as `kind`; `None` when it does not fit.
#[inline]
pub(super) fn scalar<'a>(kind: &ColumnType, value: &'a str, times: Times) -> Option<Scalar<'a>> {
    if value == "null" {
        return Some(Scalar::Null);
    }
    Some(match kind {
        ColumnType::String => Scalar::Text(resolved(quoted(value)?)?),
        ColumnType::Json => Scalar::Text(Cow::Borrowed(value)),
        ColumnType::Boolean => match value {
            "true" => Scalar::Boolean(true),
            "false" => Scalar::Boolean(false),
            _ => return None,
        },
        ColumnType::Int => Scalar::Integer(i32::try_from(integer(value)?).ok()?.into()),
        ColumnType::BigInt => Scalar::Integer(integer(value)?),
        ColumnType::Double => Scalar::Double(double(value)?),
        ColumnType::Decimal(precision, scale) => {
            let text = match quoted(value) {
                Some(text) => resolved(text)?,
                None => Cow::Borrowed(value),
            };
            Scalar::Decimal(Decimal::parse(text.as_bytes())?.exact(*precision, *scale)?)
        }
        ColumnType::Date => Scalar::Integer(read_date(&resolved(quoted(value)?)?)?.into()),
        ColumnType::Timestamp => {
            Scalar::Integer(times.read(value).filter(|time| times.unit.holds(*time))?)
        }
        ColumnType::Array(_) | ColumnType::Map(_) | ColumnType::Struct(_) => return None,
    })
}

/// Whether the type has values within values.
pub(super) fn nested(kind: &ColumnType) -> bool {
    matches!(
        kind,
        ColumnType::Array(_) | ColumnType::Map(_) | ColumnType::Struct(_)
    )
}

/// How a value fits a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Whole,
    /// It fits, but an object inside an array or map has members that the type does not name.
    Partly,
    No,
}

/// How the text of one valid JSON value fits `kind`. `inside` an array or map, unnamed members have
/// no path of their own.
pub(super) fn fits(kind: &ColumnType, value: &str, times: Times, inside: bool) -> Fit {
    if value == "null" {
        return Fit::Whole;
    }
    let mut skipper = Skipper::new(u32::MAX);
    let mut all = Fit::Whole;
    let mut also = |fit: Fit| {
        if fit != Fit::Whole && all != Fit::No {
            all = fit;
        }
        all != Fit::No
    };
    match kind {
        ColumnType::Array(item) if value.starts_with('[') => {
            for value in Items::of(value, &mut skipper) {
                if !also(fits(item, value, times, true)) {
                    break;
                }
            }
        }
        ColumnType::Map(item) if value.starts_with('{') => {
            let Some(pairs) = pairs(value, &mut skipper) else {
                return Fit::No;
            };
            for (_, value) in pairs {
                if !also(fits(item, value, times, true)) {
                    break;
                }
            }
        }
        ColumnType::Struct(fields) if value.starts_with('{') => {
            let (values, unnamed) = struct_fields(fields, value, &mut skipper);
            if inside && unnamed {
                also(Fit::Partly);
            }
            for ((_, kind), value) in fields.iter().zip(values) {
                if let Some(value) = value
                    && !also(fits(kind, value, times, inside))
                {
                    break;
                }
            }
        }
        kind if !nested(kind) && scalar(kind, value, times).is_some() => {}
        _ => return Fit::No,
    }
    all
}

/// The value of each field, and whether there are members that are no field. Of duplicate names the
/// last wins.
fn struct_fields<'a>(
    fields: &[(String, ColumnType)],
    value: &'a str,
    skipper: &'a mut Skipper,
) -> (Vec<Option<&'a str>>, bool) {
    let mut values = vec![None; fields.len()];
    let mut unnamed = false;
    for member in Members::of(value, skipper) {
        // A name that is no text is the name of no field.
        let field = resolved(member.name)
            .and_then(|name| fields.iter().position(|(field, _)| *field == *name));
        match field.and_then(|field| values.get_mut(field)) {
            Some(slot) => *slot = Some(member.value),
            None => unnamed = true,
        }
    }
    (values, unnamed)
}

/// The members of an object; of duplicate names only the last. `None` where a name is no text.
fn pairs<'a>(value: &'a str, skipper: &'a mut Skipper) -> Option<Vec<(Cow<'a, str>, &'a str)>> {
    let mut all: Vec<(Cow<'a, str>, &'a str)> = Members::of(value, skipper)
        .map(|member| Some((resolved(member.name)?, member.value)))
        .collect::<Option<_>>()?;
    let mut last: HashMap<Cow<'a, str>, usize> = HashMap::with_capacity(all.len());
    for (i, (name, _)) in all.iter().enumerate() {
        last.insert(name.clone(), i);
    }
    if last.len() < all.len() {
        let mut i = 0;
        all.retain(|(name, _)| {
            i += 1;
            last.get(name) == Some(&(i - 1))
        });
    }
    Some(all)
}

/// Why a JSON value is not of `kind`, where more can be said than that.
#[cold]
pub(super) fn misfit(kind: &ColumnType, value: &str, times: Times) -> Option<&'static str> {
    const YEARS: &str = "outside the years 1 to 9999";
    const HALF: &str = "half of a surrogate pair stands alone in it, which no text can hold";
    match (kind, quoted(value)) {
        (ColumnType::Date, Some(text)) => {
            let year = text.strip_prefix("0000-")?;
            read_date(&format!("2000-{year}")).map(|_| YEARS)
        }
        (ColumnType::Timestamp, _) => times.read(value).map(|_| YEARS),
        (ColumnType::String, Some(_)) => Some(HALF),
        _ => None,
    }
}

/// Whether a column's default fits its type; the error says what was expected.
pub fn check_default(column: &Column, unit: TimeUnit, naive: Option<Zone>) -> Result<(), String> {
    let Some(default) = &column.default else {
        return Ok(());
    };
    let text = default.to_string();
    match fits(&column.kind, &text, Times { unit, naive }, true) {
        Fit::Whole => Ok(()),
        Fit::Partly => Err(format!(
            "the default {text} has members that {} does not name",
            column.kind
        )),
        Fit::No => Err(format!("the default {text} is no {}", column.kind)),
    }
}

/// The growing values of one column, or of one type within a column.
#[derive(Debug)]
pub(super) struct Builder {
    data_type: DataType,
    nulls: NullBufferBuilder,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Text {
        bytes: Vec<u8>,
        offsets: Vec<i32>,
    },
    Boolean(BooleanBufferBuilder),
    Int(Vec<i32>),
    /// bigint and timestamp.
    Long(Vec<i64>),
    Double(Vec<f64>),
    Decimal(Vec<i128>),
    List {
        field: FieldRef,
        offsets: Vec<i32>,
        item: Box<Builder>,
    },
    Map {
        field: FieldRef,
        fields: Fields,
        offsets: Vec<i32>,
        keys: Box<Builder>,
        values: Box<Builder>,
    },
    Struct {
        fields: Fields,
        columns: Vec<Builder>,
    },
}

impl Builder {
    pub fn new(data_type: &DataType) -> Self {
        let values = match data_type {
            DataType::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            DataType::Int32 | DataType::Date32 => Values::Int(Vec::new()),
            DataType::Int64 | DataType::Timestamp(..) => Values::Long(Vec::new()),
            DataType::Float64 => Values::Double(Vec::new()),
            DataType::Decimal128(..) => Values::Decimal(Vec::new()),
            DataType::List(field) => Values::List {
                field: Arc::clone(field),
                offsets: vec![0],
                item: Box::new(Self::new(field.data_type())),
            },
            DataType::Map(field, _) => match field.data_type() {
                DataType::Struct(fields) => Values::Map {
                    field: Arc::clone(field),
                    fields: fields.clone(),
                    offsets: vec![0],
                    keys: Box::new(Self::new(&DataType::Utf8)),
                    values: Box::new(Self::new(
                        fields
                            .get(1)
                            .map_or(&DataType::Utf8, |field| field.data_type()),
                    )),
                },
                _ => Values::Text {
                    bytes: Vec::new(),
                    offsets: vec![0],
                },
            },
            DataType::Struct(fields) => Values::Struct {
                fields: fields.clone(),
                columns: fields
                    .iter()
                    .map(|field| Self::new(field.data_type()))
                    .collect(),
            },
            _ => Values::Text {
                bytes: Vec::new(),
                offsets: vec![0],
            },
        };
        Self {
            data_type: data_type.clone(),
            nulls: NullBufferBuilder::new(0),
            values,
        }
    }

    pub fn null(&mut self) {
        self.nulls.append_null();
        match &mut self.values {
            Values::Text { bytes, offsets } => offsets.push(bytes.len() as i32),
            Values::Boolean(values) => values.append(false),
            Values::Int(values) => values.push(0),
            Values::Long(values) => values.push(0),
            Values::Double(values) => values.push(0.0),
            Values::Decimal(values) => values.push(0),
            Values::List { offsets, item, .. } => offsets.push(item.nulls.len() as i32),
            Values::Map { offsets, keys, .. } => offsets.push(keys.nulls.len() as i32),
            Values::Struct { columns, .. } => columns.iter_mut().for_each(Self::null),
        }
    }

    #[inline]
    pub fn text(&mut self, text: &str) {
        if let Values::Text { bytes, offsets } = &mut self.values {
            bytes.extend_from_slice(text.as_bytes());
            offsets.push(bytes.len() as i32);
            self.nulls.append_non_null();
        } else {
            self.null();
        }
    }

    /// The part of the record from `start` to `end`.
    #[inline(always)]
    pub fn part(&mut self, record: &str, start: usize, end: usize) {
        let Values::Text { bytes, offsets } = &mut self.values else {
            return self.null();
        };
        let rest = record.as_bytes().get(start..).unwrap_or_default();
        let length = end.saturating_sub(start);
        match rest.first_chunk::<COPY>() {
            // Copying so many and taking some back is faster than copying a few.
            Some(chunk) if length <= COPY => {
                let until = bytes.len() + length;
                bytes.extend_from_slice(chunk);
                bytes.truncate(until);
            }
            _ => bytes.extend_from_slice(rest.get(..length).unwrap_or_default()),
        }
        offsets.push(bytes.len() as i32);
        self.nulls.append_non_null();
    }

    /// Takes back what was appended after the first `len` values.
    pub fn truncate(&mut self, len: usize) {
        if self.nulls.len() <= len {
            return;
        }
        /// How many bytes or items the first `len` values have.
        fn cut(offsets: &mut Vec<i32>, len: usize) -> usize {
            offsets.truncate(len + 1);
            offsets.last().map_or(0, |last| *last as usize)
        }
        self.nulls.truncate(len);
        match &mut self.values {
            Values::Text { bytes, offsets } => bytes.truncate(cut(offsets, len)),
            Values::Boolean(values) => values.truncate(len),
            Values::Int(values) => values.truncate(len),
            Values::Long(values) => values.truncate(len),
            Values::Double(values) => values.truncate(len),
            Values::Decimal(values) => values.truncate(len),
            Values::List { offsets, item, .. } => item.truncate(cut(offsets, len)),
            Values::Map {
                offsets,
                keys,
                values,
                ..
            } => {
                let len = cut(offsets, len);
                keys.truncate(len);
                values.truncate(len);
            }
            Values::Struct { columns, .. } => {
                for column in columns {
                    column.truncate(len);
                }
            }
        }
    }

    #[inline]
    pub fn long(&mut self, value: i64) {
        match &mut self.values {
            Values::Long(values) => values.push(value),
            Values::Int(values) => values.push(value as i32),
            _ => return self.null(),
        }
        self.nulls.append_non_null();
    }

    pub fn scalar(&mut self, scalar: &Scalar<'_>) {
        match (scalar, &mut self.values) {
            (Scalar::Text(text), _) => return self.text(text),
            (Scalar::Integer(value), _) => return self.long(*value),
            (Scalar::Boolean(value), Values::Boolean(values)) => values.append(*value),
            (Scalar::Double(value), Values::Double(values)) => values.push(*value),
            (Scalar::Decimal(value), Values::Decimal(values)) => values.push(*value),
            _ => return self.null(),
        }
        self.nulls.append_non_null();
    }

    /// Appends the text of one valid JSON value that [`fits`] `kind`, the type this was made for.
    pub fn json(&mut self, kind: &ColumnType, value: &str, times: Times) {
        if value == "null" {
            return self.null();
        }
        let mut skipper = Skipper::new(u32::MAX);
        match (kind, &mut self.values) {
            (ColumnType::Array(kind), Values::List { offsets, item, .. }) => {
                for value in Items::of(value, &mut skipper) {
                    item.json(kind, value, times);
                }
                offsets.push(item.nulls.len() as i32);
            }
            (
                ColumnType::Map(kind),
                Values::Map {
                    offsets,
                    keys,
                    values,
                    ..
                },
            ) => {
                for (key, value) in pairs(value, &mut skipper).unwrap_or_default() {
                    keys.text(&key);
                    values.json(kind, value, times);
                }
                offsets.push(keys.nulls.len() as i32);
            }
            (ColumnType::Struct(kinds), Values::Struct { columns, .. }) => {
                let (values, _) = struct_fields(kinds, value, &mut skipper);
                for ((column, (_, kind)), value) in columns.iter_mut().zip(kinds).zip(values) {
                    match value {
                        Some(value) => column.json(kind, value, times),
                        None => column.null(),
                    }
                }
            }
            _ => {
                return match scalar(kind, value, times) {
                    Some(scalar) => self.scalar(&scalar),
                    None => self.null(),
                };
            }
        }
        self.nulls.append_non_null();
    }

    /// What was appended since the last time.
    pub fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        /// Room for a little more than the last time.
        fn likely(len: usize) -> usize {
            len + len / 8
        }
        fn offsets_of(offsets: &mut Vec<i32>) -> OffsetBuffer<i32> {
            let next = Vec::with_capacity(likely(offsets.len()));
            let done = std::mem::replace(offsets, next);
            offsets.push(0);
            OffsetBuffer::new(ScalarBuffer::from(done))
        }
        /// Takes the values; as many are likely to come again.
        fn taken<T>(values: &mut Vec<T>) -> Vec<T> {
            let next = Vec::with_capacity(likely(values.len()));
            std::mem::replace(values, next)
        }
        let rows = self.nulls.len();
        // Nulls that were taken back leave a bitmap of none.
        let nulls = self.nulls.finish().filter(|nulls| nulls.null_count() > 0);
        Ok(match &mut self.values {
            Values::Text { bytes, offsets } => {
                let offsets = offsets_of(offsets);
                Arc::new(StringArray::try_new(
                    offsets,
                    Buffer::from_vec(taken(bytes)),
                    nulls,
                )?)
            }
            Values::Boolean(values) => {
                let values: BooleanBuffer = values.finish();
                Arc::new(BooleanArray::new(values, nulls))
            }
            Values::Int(values) => {
                let values = ScalarBuffer::from(taken(values));
                match self.data_type {
                    DataType::Date32 => Arc::new(Date32Array::try_new(values, nulls)?),
                    _ => Arc::new(Int32Array::try_new(values, nulls)?),
                }
            }
            Values::Long(values) => {
                let values = ScalarBuffer::from(taken(values));
                match &self.data_type {
                    DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, zone) => Arc::new(
                        TimestampMillisecondArray::try_new(values, nulls)?
                            .with_timezone_opt(zone.clone()),
                    ),
                    DataType::Timestamp(_, zone) => Arc::new(
                        TimestampMicrosecondArray::try_new(values, nulls)?
                            .with_timezone_opt(zone.clone()),
                    ),
                    _ => Arc::new(Int64Array::try_new(values, nulls)?),
                }
            }
            Values::Double(values) => Arc::new(Float64Array::try_new(
                ScalarBuffer::from(taken(values)),
                nulls,
            )?),
            Values::Decimal(values) => {
                let array = Decimal128Array::try_new(ScalarBuffer::from(taken(values)), nulls)?;
                match self.data_type {
                    DataType::Decimal128(precision, scale) => {
                        Arc::new(array.with_precision_and_scale(precision, scale)?)
                    }
                    _ => Arc::new(array),
                }
            }
            Values::List {
                field,
                offsets,
                item,
            } => Arc::new(ListArray::try_new(
                Arc::clone(field),
                offsets_of(offsets),
                item.finish()?,
                nulls,
            )?),
            Values::Map {
                field,
                fields,
                offsets,
                keys,
                values,
            } => {
                let entries = StructArray::try_new(
                    fields.clone(),
                    vec![keys.finish()?, values.finish()?],
                    None,
                )?;
                Arc::new(MapArray::try_new(
                    Arc::clone(field),
                    offsets_of(offsets),
                    entries,
                    nulls,
                    false,
                )?)
            }
            Values::Struct { fields, columns } => {
                let columns: Vec<ArrayRef> = columns
                    .iter_mut()
                    .map(Self::finish)
                    .collect::<Result<_, _>>()?;
                Arc::new(StructArray::try_new_with_length(
                    fields.clone(),
                    columns,
                    nulls,
                    rows,
                )?)
            }
        })
    }
}
