//! Builders of Arrow arrays, one for each column: values of JSON are appended, and taken back where a record turns out
//! to be a reject.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array, Float64Array,
    Int32Array, Int64Array, ListArray, MapArray, NullBufferBuilder, StringArray, StructArray,
    TimestampMicrosecondArray, TimestampMillisecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, FieldRef, Fields};
use arrow::error::ArrowError;

use super::json::{Items, Skipper};
use super::shape::{Shape, ValueReader};
use super::values::{Scalar, coerced, pairs, scalar};

/// How many bytes are copied at once.
const COPY: usize = 32;

/// The growing values of one column, or of one type inside a column.
#[derive(Debug)]
pub(super) struct Builder {
    data_type: DataType,
    nulls: NullBufferBuilder,
    values: Values,
}

/// The values by their physical type. A null has a value as well, which means nothing.
#[derive(Debug)]
enum Values {
    Text {
        bytes: Vec<u8>,
        offsets: Vec<i32>,
    },
    Boolean(BooleanBufferBuilder),
    /// Values of int and date.
    Int(Vec<i32>),
    /// Values of bigint and timestamp.
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
    /// No values of this type yet.
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

    /// Appends NULL.
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

    /// Appends a text.
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

    /// Appends the part of the record from byte `start` to byte `end` as text.
    #[inline(always)]
    pub fn part(&mut self, record: &str, start: usize, end: usize) {
        let Values::Text { bytes, offsets } = &mut self.values else {
            return self.null();
        };
        let rest = record.as_bytes().get(start..).unwrap_or_default();
        let length = end.saturating_sub(start);
        match rest.first_chunk::<COPY>() {
            // Copying a whole chunk and taking some bytes back is faster than copying a few bytes.
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

    /// Takes back all values behind the first `len`.
    pub fn truncate(&mut self, len: usize) {
        if self.nulls.len() <= len {
            return;
        }
        /// Cuts the offsets, and gives the number of bytes or items of the first `len` values.
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

    /// Appends an integer, a date or a timestamp.
    #[inline]
    pub fn long(&mut self, value: i64) {
        match &mut self.values {
            Values::Long(values) => values.push(value),
            Values::Int(values) => values.push(value as i32),
            _ => return self.null(),
        }
        self.nulls.append_non_null();
    }

    /// Appends a value of a type without values inside.
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

    /// Appends one valid JSON value that [`fits`](super::values::fits) the `shape`, which this builder was made for.
    pub fn json(&mut self, shape: &Shape, value: &str, reader: &ValueReader) {
        if value == "null" {
            return self.null();
        }
        let mut skipper = Skipper::new(u32::MAX);
        match (shape, &mut self.values) {
            (Shape::Array(shape), Values::List { offsets, item, .. }) => {
                for value in Items::of(value, &mut skipper) {
                    item.json(shape, value, reader);
                }
                offsets.push(item.nulls.len() as i32);
            }
            (
                Shape::Map(shape),
                Values::Map {
                    offsets,
                    keys,
                    values,
                    ..
                },
            ) => {
                // An empty list stands for an empty map. It has no members.
                for (key, value) in pairs(value, &mut skipper).unwrap_or_default() {
                    keys.text(&key);
                    values.json(shape, value, reader);
                }
                offsets.push(keys.nulls.len() as i32);
            }
            (Shape::Struct(fields), Values::Struct { columns, .. }) => {
                let found = fields.values(value).values;
                for ((column, shape), value) in columns.iter_mut().zip(&fields.shapes).zip(found) {
                    match value {
                        Some(value) => column.json(shape, value, reader),
                        None => column.null(),
                    }
                }
            }
            (Shape::Scalar(kind), _) => {
                let strict = scalar(kind, value, reader);
                return match strict.or_else(|| coerced(kind, value)) {
                    Some(scalar) => self.scalar(&scalar),
                    None => self.null(),
                };
            }
            _ => return self.null(),
        }
        self.nulls.append_non_null();
    }

    /// The values that were appended since the last call.
    ///
    /// # Errors
    /// The values do not make an array, which no input can cause.
    pub fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let rows = self.nulls.len();
        // Nulls that were taken back leave a bitmap without nulls.
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
            map @ Values::Map { .. } => map.finish_map(nulls)?,
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

impl Values {
    /// The maps that were appended since the last call.
    fn finish_map(&mut self, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
        let Self::Map {
            field,
            fields,
            offsets,
            keys,
            values,
        } = self
        else {
            return Err(ArrowError::CastError("these values are no maps".to_owned()));
        };
        let entries = vec![keys.finish()?, values.finish()?];
        let entries = StructArray::try_new(fields.clone(), entries, None)?;
        Ok(Arc::new(MapArray::try_new(
            Arc::clone(field),
            offsets_of(offsets),
            entries,
            nulls,
            false,
        )?))
    }
}

/// The capacity for the next batch, which is likely to be about as long as the last.
fn likely(len: usize) -> usize {
    len + len / 8
}

/// Takes the offsets.
fn offsets_of(offsets: &mut Vec<i32>) -> OffsetBuffer<i32> {
    let next = Vec::with_capacity(likely(offsets.len()));
    let done = std::mem::replace(offsets, next);
    offsets.push(0);
    OffsetBuffer::new(ScalarBuffer::from(done))
}

/// Takes the values.
fn taken<T>(values: &mut Vec<T>) -> Vec<T> {
    let next = Vec::with_capacity(likely(values.len()));
    std::mem::replace(values, next)
}
