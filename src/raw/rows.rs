//! The members of a record as one row of the source's columns, or the reason why the record is no event.
//!
//! ```text
//! Members ──▶ push()   event time, then every column in order  ──▶ builders | (reason, detail)
//! ```
//!
//! Values are appended as they are read. Where a value makes the record a reject, the values before it are taken back.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use sha2::{Digest, Sha256};

use super::ObjectCounts;
use super::builder::Builder;
use super::json::{ObjectMembers, Skipper};
use super::members::Members;
use super::shape::{Shape, ValueReader};
use super::values::{Fit, Tally, coerced, fits, misfit, scalar};
use crate::event::{
    Accept, Column, ColumnType, DecodeSpec, EXTRA, OnTypeError, RAW_RECORD, RECORD_SHA256, Reason,
};

/// The words in the detail of a reject whose time has no offset, where no zone is given for such times.
pub const NO_OFFSET: &str = "has no offset from UTC";

/// The words in the detail of a reject that may be an envelope around records.
pub const INSIDE: &str = "are not read as records";

/// The most characters of a value that the detail of a reject shows.
const EXCERPT: usize = 64;

/// The most bytes of room that are kept from one record to the next.
const LARGE: usize = 1 << 20;

/// One column, and the place of its value.
#[derive(Debug)]
struct Reading {
    column: Column,
    /// The type of its values.
    shape: Shape,
    reader: ValueReader,
    /// Whether a JSON string without escapes is the value as it stands.
    string: bool,
    /// The node of its value among the members.
    node: usize,
    /// The JSON text of the default, and its type: the fields of a default have the names of the type.
    default: Option<(String, Shape)>,
}

impl Reading {
    /// Why a record is no event whose value does not fit this column.
    #[cold]
    fn misfit(&self, value: &str) -> (Reason, String) {
        let Column { name, kind, .. } = &self.column;
        let fault = match kind {
            ColumnType::Timestamp if self.reader.lacks_offset(value) => NO_OFFSET.to_owned(),
            kind => format!("is no {kind}"),
        };
        let why = misfit(kind, value, &self.reader);
        let why = why.map_or(String::new(), |why| format!(" ({why})"));
        let detail = format!("`{name}` {fault}{why}: {}", excerpt(value));
        (Reason::Type, detail)
    }
}

/// The rows of a batch while it grows.
#[derive(Debug)]
pub(super) struct Rows {
    readings: Vec<Reading>,
    /// The index of the column that is the event time.
    event_time: usize,
    accept: Accept,
    on_type_error: OnTypeError,
    schema: SchemaRef,
    builders: Vec<Builder>,
    sha256: Option<Builder>,
    raw_record: Builder,
    extra: Builder,
    /// The columns of the last row that are null because their values did not fit.
    misfits: Vec<usize>,
    /// What was noticed in columns of the last row.
    tallies: Vec<(usize, Tally)>,
    extra_text: String,
    /// The record with the objects in its strings behind it.
    whole: String,
    len: usize,
}

impl Rows {
    /// No rows yet. `places` are the nodes of the columns.
    pub fn new(spec: &DecodeSpec, places: Vec<usize>) -> Self {
        let mut fields: Vec<Field> = spec
            .columns
            .iter()
            .map(|column| Field::new(&column.name, column.kind.arrow(spec.unit), true))
            .collect();
        let builders = fields
            .iter()
            .map(|field| Builder::new(field.data_type()))
            .collect();
        if spec.record_sha256 {
            fields.push(Field::new(RECORD_SHA256, DataType::Utf8, true));
        }
        fields.push(Field::new(RAW_RECORD, DataType::Int64, false));
        fields.push(Field::new(EXTRA, DataType::Utf8, true));
        let readings = spec
            .columns
            .iter()
            .zip(places)
            .map(|(column, node)| Reading {
                shape: Shape::of(column, true),
                reader: ValueReader::of(column, spec),
                string: column.kind == ColumnType::String,
                node,
                default: column
                    .default
                    .as_ref()
                    .filter(|default| !default.is_null())
                    .map(|default| (default.to_string(), Shape::of(column, false))),
                column: column.clone(),
            })
            .collect();
        Self {
            readings,
            event_time: spec
                .columns
                .iter()
                .position(|column| column.name == spec.event_time)
                .unwrap_or(usize::MAX),
            accept: spec.accept,
            on_type_error: spec.on_type_error,
            schema: Arc::new(Schema::new(fields)),
            builders,
            sha256: spec.record_sha256.then(|| Builder::new(&DataType::Utf8)),
            raw_record: Builder::new(&DataType::Int64),
            extra: Builder::new(&DataType::Utf8),
            misfits: Vec::new(),
            tallies: Vec::new(),
            extra_text: String::new(),
            whole: String::new(),
            len: 0,
        }
    }

    /// The columns of the rows.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds the values of the last row that became null, were converted or were not reached.
    #[inline]
    pub fn count(&self, counts: &mut ObjectCounts) {
        if !self.misfits.is_empty() || !self.tallies.is_empty() {
            self.count_noticed(counts);
        }
    }

    #[cold]
    fn count_noticed(&self, counts: &mut ObjectCounts) {
        let add = |to: &mut std::collections::BTreeMap<String, u64>, column: usize, count: u64| {
            if let Some(reading) = self.readings.get(column).filter(|_| count > 0) {
                *to.entry(reading.column.name.clone()).or_default() += count;
            }
        };
        for column in &self.misfits {
            add(&mut counts.nulled, *column, 1);
        }
        for (column, tally) in &self.tallies {
            add(&mut counts.coerced, *column, tally.coerced);
            add(&mut counts.unreached, *column, tally.unreached);
        }
    }

    /// Appends a record whose members are given, or says why it is no event. Only the first `length` bytes of `record` are
    /// the record; values of its envelope may lie behind it.
    pub fn push(
        &mut self,
        record: &str,
        length: usize,
        members: &mut Members,
        number: u64,
        arrival_ms: i64,
    ) -> Result<(), (Reason, String)> {
        self.misfits.clear();
        self.tallies.clear();
        let mut whole = std::mem::take(&mut self.whole);
        let own = record.get(..length).unwrap_or(record);
        let text = match members.open(record, &mut whole) {
            true => whole.as_str(),
            false => record,
        };
        let pushed = self.push_members(own, text, members, arrival_ms);
        whole.shrink_to(LARGE);
        self.whole = whole;
        pushed?;
        self.raw_record
            .long(i64::try_from(number).unwrap_or(i64::MAX));
        self.len += 1;
        Ok(())
    }

    /// Appends all columns but the number of the record. The members lie in `whole`, which begins with the record.
    #[inline]
    fn push_members(
        &mut self,
        record: &str,
        whole: &str,
        members: &mut Members,
        arrival_ms: i64,
    ) -> Result<(), (Reason, String)> {
        let time = self.event_time(whole, members, arrival_ms)?;
        if let Err(refusal) = self.append(whole, members, time) {
            for builder in &mut self.builders {
                builder.truncate(self.len);
            }
            return Err(refusal);
        }
        for column in members.unreached() {
            let tally = Tally {
                unreached: 1,
                ..Tally::default()
            };
            self.tallies.push((*column, tally));
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.text(&hex::encode(Sha256::digest(record.as_bytes())));
        }
        self.extra_text.clear();
        self.extra_text.shrink_to(LARGE);
        if members.extra(whole, &mut self.extra_text) {
            self.extra.text(&self.extra_text);
        } else {
            self.extra.null();
        }
        Ok(())
    }

    /// The event time in the unit of the table. It has no default: a record without a time is no event.
    fn event_time(
        &self,
        record: &str,
        members: &Members,
        arrival_ms: i64,
    ) -> Result<i64, (Reason, String)> {
        let Some(reading) = self.readings.get(self.event_time) else {
            return Err((Reason::EventTime, "no column is the event time".to_owned()));
        };
        let name = &reading.column.name;
        let Some(value) = members
            .slot(reading.node)
            .text(record)
            .filter(|value| !is_null(value))
        else {
            let inside = objects_inside(record).map_or(String::new(), |inside| {
                format!("; the objects inside `{inside}` {INSIDE}")
            });
            let inside = format!("{}{inside}", unreached(members, self.event_time));
            return Err((Reason::EventTime, format!("`{name}` is missing{inside}")));
        };
        let reader = &reading.reader;
        let Some(time) = reader.time(value) else {
            let fault = match reader.lacks_offset(value) {
                true => NO_OFFSET,
                false => "is no time",
            };
            return Err((
                Reason::EventTime,
                format!("`{name}` {fault}: {}", excerpt(value)),
            ));
        };
        let unit = reader.unit;
        if !unit.holds(time) || !self.accept.holds(time, unit, arrival_ms) {
            let detail = format!("`{name}` is outside the accepted times: {}", excerpt(value));
            return Err((Reason::OutOfRange, detail));
        }
        Ok(time)
    }

    /// Appends the columns. After an error, some columns have one value too many.
    #[inline]
    fn append(
        &mut self,
        record: &str,
        members: &mut Members,
        time: i64,
    ) -> Result<(), (Reason, String)> {
        for (index, (reading, builder)) in self.readings.iter().zip(&mut self.builders).enumerate()
        {
            let slot = members.slot(reading.node);
            if slot.plain && reading.string {
                // Most values are plain strings, which are copied from their place.
                builder.part(record, slot.start as usize + 1, slot.end as usize - 1);
                continue;
            }
            if index == self.event_time {
                builder.long(time);
                continue;
            }
            let given = slot.text(record).filter(|value| !is_null(value));
            let (value, shape) = match (given, &reading.default) {
                (Some(value), _) => (value, &reading.shape),
                (None, Some((default, shape))) => (default.as_str(), shape),
                (None, None) if reading.column.required => {
                    let why = unreached(members, index);
                    let detail = format!("`{}` is required and missing{why}", reading.column.name);
                    return Err((Reason::Missing, detail));
                }
                (None, None) => {
                    builder.null();
                    continue;
                }
            };
            let (kind, reader) = (&reading.column.kind, &reading.reader);
            let mut tally = Tally::default();
            if shape.is_nested() {
                let fit = fits(shape, value, reader, false, &mut tally);
                if fit == Fit::Partly {
                    members.force(reading.node);
                }
                if fit != Fit::No {
                    builder.json(shape, value, reader);
                    if tally != Tally::default() {
                        self.tallies.push((index, tally));
                    }
                    continue;
                }
            } else if let Some(scalar) = scalar(kind, value, reader) {
                builder.scalar(&scalar);
                continue;
            } else if reader.coerce
                && let Some(scalar) = coerced(kind, value)
            {
                builder.scalar(&scalar);
                tally.coerced = 1;
                self.tallies.push((index, tally));
                continue;
            }
            if self.on_type_error == OnTypeError::Reject || reading.column.required {
                return Err(reading.misfit(value));
            }
            members.force(reading.node);
            self.misfits.push(index);
            builder.null();
        }
        Ok(())
    }

    /// The rows that were appended since the last call.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let columns: Vec<ArrayRef> = self
            .builders
            .iter_mut()
            .chain(&mut self.sha256)
            .chain([&mut self.raw_record, &mut self.extra])
            .map(Builder::finish)
            .collect::<Result<_, _>>()?;
        self.len = 0;
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

/// Why the value of a column is missing, where its path met a value without members. Empty where it did not.
#[cold]
fn unreached(members: &Members, column: usize) -> &'static str {
    match members.unreached().contains(&column) {
        true => ": its path meets a value that has no members, or a text that is no JSON object",
        false => "",
    }
}

/// Whether a valid JSON value is `null`: no other value starts with an `n`.
#[inline]
pub(super) fn is_null(value: &str) -> bool {
    value.as_bytes().first() == Some(&b'n')
}

/// The name of the member that is an array of objects, where a record has exactly one: the record may be an envelope
/// around records.
#[cold]
fn objects_inside(record: &str) -> Option<String> {
    let mut skipper = Skipper::new(u32::MAX);
    let mut arrays = ObjectMembers::of(record, &mut skipper).filter(|member| {
        let items = member.value.strip_prefix('[');
        items.is_some_and(|items| items.trim_start().starts_with('{'))
    });
    let only = arrays.next()?;
    arrays.next().is_none().then(|| excerpt(only.name))
}

/// The beginning of a value, short and without line breaks.
pub(super) fn excerpt(value: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut start: String = value.chars().take(EXCERPT).map(plain).collect();
    if value.chars().nth(EXCERPT).is_some() {
        start.push('…');
    }
    start
}
