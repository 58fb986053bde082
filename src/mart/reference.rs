//! Reference tables: files that marts join, exports of somebody's database.
//!
//! ```text
//! file ──▶ text in its encoding ──▶ once: what types do the columns have?
//!                              └──▶ once more: cells by column ──▶ their types ──▶ batch after batch
//! (Parquet: its own batches, cast)
//! ```
//!
//! A file may be of any size: no more than a batch of it is held. What does not fit is an error with the line,
//! never a NULL.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Decimal128Array, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::value::RawValue;

use super::shape::written;
use crate::config::{Reference, ReferenceFormat};
use crate::event::ColumnType;
use crate::names::nearest;
use crate::time::{Decimal, TimeUnit};

/// Rows of a batch, …
const BATCH_ROWS: usize = 8192;
/// … and bytes of it, as they are in the file.
const BATCH_BYTES: usize = 2 << 20;
/// Bytes of one row. A quote that is not closed would make one row of all that follows.
const MOST_OF_ROW: u64 = 16 << 20;
/// Columns of the file of a reference, …
const MOST_COLUMNS: usize = 100_000;
/// … and those that are read where none are declared: each is held, cast and spilled on its own.
const MOST_READ: usize = 2_000;
/// Bytes that are read of a file at once.
const CHUNK: usize = 64 << 10;

/// A reference that cannot be read: the file, the line where known, and why.
#[derive(Debug, thiserror::Error)]
#[error("reference `{name}`: {url}{}: {message}", line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct ReferenceError {
    pub name: String,
    pub url: String,
    /// From 1.
    pub line: Option<u64>,
    pub message: String,
}

/// One column of text cells, before it has a type.
struct Cells {
    name: String,
    kind: ColumnType,
    /// One per row; `None` is NULL.
    values: Vec<Option<String>>,
}

/// Where a row is.
enum At {
    /// On this line, from 1.
    Line(u64),
    /// Before the blank lines that the reader of CSV skips.
    Before(csv::Position),
}

/// The rows of a batch as they are read.
struct Rows {
    cells: Vec<Cells>,
    places: Vec<At>,
    bytes: usize,
}

impl Rows {
    fn new(columns: Vec<(String, ColumnType)>) -> Self {
        let cells = columns.into_iter().map(|(name, kind)| Cells {
            name,
            kind,
            values: Vec::new(),
        });
        Self {
            cells: cells.collect(),
            places: Vec::new(),
            bytes: 0,
        }
    }

    /// Adds a row of so many bytes, all of it NULL.
    fn push(&mut self, at: At, bytes: usize) {
        self.places.push(at);
        self.bytes += bytes + self.cells.len() * size_of::<Option<String>>();
        for cells in &mut self.cells {
            cells.values.push(None);
        }
    }

    /// Sets a value of the last row.
    fn set(&mut self, column: usize, value: String) {
        let cells = self.cells.get_mut(column);
        if let Some(last) = cells.and_then(|cells| cells.values.last_mut()) {
            *last = Some(value);
        }
    }

    fn is_full(&self) -> bool {
        self.places.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    fn clear(&mut self) {
        self.places.clear();
        self.bytes = 0;
        for cells in &mut self.cells {
            cells.values.clear();
        }
    }

    fn schema(&self) -> SchemaRef {
        let field = |cells: &Cells| Field::new(&cells.name, cells.kind.arrow(TimeUnit::Ms), true);
        let fields: Vec<Field> = self.cells.iter().map(field).collect();
        Arc::new(Schema::new(fields))
    }
}

/// Takes the rows of a reference, a batch at a time.
pub type Take<'a, E> = dyn FnMut(&SchemaRef, RecordBatch) -> Result<(), E> + 'a;

/// Reads the reference's file, which lies at `file` on this disk, and hands its rows to `take`. Column names are
/// lower-case.
///
/// Inferred types are `bigint`, `double`, `boolean`, else `string`; digits that start with a zero
/// are an id and stay a string.
///
/// # Errors
/// A wrong encoding, row or value (with its line), a row of more than 16 MiB, a declared column that the file does
/// not have, two columns of one name; those of `take`.
pub fn read<E: From<ReferenceError>>(
    reference: &Reference,
    file: &Path,
    take: &mut Take<'_, E>,
) -> Result<SchemaRef, E> {
    let reader = Reader { reference, file };
    match reference.format {
        ReferenceFormat::Csv => reader.csv(take),
        ReferenceFormat::Ndjson => reader.ndjson(take),
        ReferenceFormat::Parquet => reader.parquet(take),
    }
}

/// The members of a line, by their names in lower case, as they are written.
type Members = BTreeMap<String, Box<RawValue>>;

/// Takes a line, from 1, and its members.
type Each<'a, E> = dyn FnMut(u64, &Members) -> Result<(), E> + 'a;

struct Reader<'a> {
    reference: &'a Reference,
    file: &'a Path,
}

/// The text of a file, decoded from its encoding as it is read, without a byte order mark.
struct Text {
    file: File,
    decoder: encoding_rs::Decoder,
    input: Vec<u8>,
    output: Vec<u8>,
    /// How much of the output was read.
    at: usize,
    /// Line feeds before the output.
    lines: u64,
    /// Bytes that may be read before more are allowed.
    allowed: u64,
    ended: bool,
}

/// Why a text cannot be read on.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("there are bytes that are not {encoding}; declare `encoding`")]
    Bytes { encoding: &'static str, line: u64 },
    #[error("a row has more than 16 MiB; is a quote not closed?")]
    LongRow,
}

impl Text {
    /// Allows a row to be read.
    const fn row(&mut self) {
        self.allowed = MOST_OF_ROW;
    }

    fn refill(&mut self) -> io::Result<()> {
        let feeds = memchr::memchr_iter(b'\n', &self.output).count();
        self.lines += feeds as u64;
        self.output.clear();
        self.at = 0;
        while self.output.is_empty() && !self.ended {
            self.input.clear();
            let mut chunk = Read::by_ref(&mut self.file).take(CHUNK as u64);
            self.ended = chunk.read_to_end(&mut self.input)? < CHUNK;
            let most = self.decoder.max_utf8_buffer_length(self.input.len());
            self.output.resize(most.unwrap_or(4 * CHUNK), 0);
            let (_, _, written, wrong) =
                self.decoder
                    .decode_to_utf8(&self.input, &mut self.output, self.ended);
            self.output.truncate(written);
            if wrong {
                // What cannot be decoded is U+FFFD in the output.
                let text = String::from_utf8_lossy(&self.output);
                let before = text.split('\u{fffd}').next().unwrap_or_default();
                let feeds = memchr::memchr_iter(b'\n', before.as_bytes()).count();
                return Err(io::Error::other(Unreadable::Bytes {
                    encoding: self.decoder.encoding().name(),
                    line: self.lines + feeds as u64 + 1,
                }));
            }
        }
        let written = self.output.len() as u64;
        if written > self.allowed {
            return Err(io::Error::other(Unreadable::LongRow));
        }
        self.allowed -= written;
        Ok(())
    }
}

impl Read for Text {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.output.len() {
            self.refill()?;
        }
        let rest = self.output.get(self.at..).unwrap_or_default();
        let count = rest.len().min(out.len());
        if let (Some(out), Some(rest)) = (out.get_mut(..count), rest.get(..count)) {
            out.copy_from_slice(rest);
        }
        self.at += count;
        Ok(count)
    }
}

impl Reader<'_> {
    fn fail(&self, line: Option<u64>, message: impl Into<String>) -> ReferenceError {
        ReferenceError {
            name: self.reference.name.clone(),
            url: self.reference.url.clone(),
            line,
            message: message.into(),
        }
    }

    fn csv<E: From<ReferenceError>>(&self, take: &mut Take<'_, E>) -> Result<SchemaRef, E> {
        let mut rows = self.csv_rows()?;
        let header = rows.headers().map_err(|error| self.wrong_row(&error))?;
        let names = self.names(header.clone().iter())?;
        if names.is_empty() {
            let message = "the file is empty; its first line is the names of the columns";
            return Err(self.fail(None, message).into());
        }
        let mut row = csv::StringRecord::new();
        let mut picked: Vec<usize> = (0..names.len()).collect();
        let columns: Vec<(String, ColumnType)> = match &self.reference.columns {
            Some(declared) => {
                picked = self.declared(declared, &names)?;
                declared.clone()
            }
            None => {
                let mut kinds = vec![Inferred::default(); names.len()];
                while self.next_row(&mut rows, &mut row)? {
                    for (kind, value) in kinds.iter_mut().zip(&row) {
                        if !self.is_null(value) {
                            kind.note(value);
                        }
                    }
                }
                rows = self.csv_rows()?;
                let kinds = kinds.iter().map(Inferred::kind);
                names.into_iter().zip(kinds).collect()
            }
        };
        let mut batch = Rows::new(columns);
        while self.next_row(&mut rows, &mut row)? {
            let at = row.position().cloned().map_or(At::Line(0), At::Before);
            batch.push(at, row.as_slice().len());
            for (column, picked) in picked.iter().enumerate() {
                let value = row.get(*picked).unwrap_or_default();
                if !self.is_null(value) {
                    batch.set(column, value.to_owned());
                }
            }
            self.give(&mut batch, false, take)?;
        }
        self.give(&mut batch, true, take)
    }

    /// Hands a full batch over, or the last one.
    fn give<E: From<ReferenceError>>(
        &self,
        rows: &mut Rows,
        last: bool,
        take: &mut Take<'_, E>,
    ) -> Result<SchemaRef, E> {
        let schema = rows.schema();
        if !rows.is_full() && (!last || rows.places.is_empty()) {
            return Ok(schema);
        }
        let arrays = rows
            .cells
            .iter()
            .map(|cells| self.cast(cells, &rows.places));
        let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.places.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), arrays, &options)
            .map_err(|error| self.fail(None, error.to_string()))?;
        rows.clear();
        take(&schema, batch)?;
        Ok(schema)
    }

    fn is_null(&self, value: &str) -> bool {
        self.reference.null.iter().any(|spelling| spelling == value)
    }

    fn csv_rows(&self) -> Result<csv::Reader<Text>, ReferenceError> {
        let text = self.text()?;
        let mut rows = csv::ReaderBuilder::new();
        Ok(rows.buffer_capacity(CHUNK).from_reader(text))
    }

    fn next_row(
        &self,
        rows: &mut csv::Reader<Text>,
        row: &mut csv::StringRecord,
    ) -> Result<bool, ReferenceError> {
        rows.get_mut().row();
        let read = rows.read_record(row);
        read.map_err(|error| self.wrong_row(&error))
    }

    fn wrong_row(&self, error: &csv::Error) -> ReferenceError {
        match error.kind() {
            csv::ErrorKind::UnequalLengths {
                pos,
                expected_len,
                len,
            } => self.fail(
                pos.as_ref().map(|at| self.line_at(at)),
                format!("the row has {len} fields, the header {expected_len}"),
            ),
            csv::ErrorKind::Io(error) => self.unreadable(error),
            _ => self.fail(
                error.position().map(|at| self.line_at(at)),
                error.to_string(),
            ),
        }
    }

    fn unreadable(&self, error: &io::Error) -> ReferenceError {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        let line = match inner {
            Some(Unreadable::Bytes { line, .. }) => Some(*line),
            _ => None,
        };
        self.fail(line, error.to_string())
    }

    /// The text in the declared encoding.
    fn text(&self) -> Result<Text, ReferenceError> {
        let file = File::open(self.file).map_err(|error| self.unreadable(&error))?;
        Ok(Text {
            file,
            decoder: self.reference.encoding.new_decoder(),
            input: Vec::new(),
            output: Vec::new(),
            at: 0,
            lines: 0,
            allowed: MOST_OF_ROW,
            ended: false,
        })
    }

    /// Lower-case names, each once.
    fn names<'b>(
        &self,
        names: impl Iterator<Item = &'b str>,
    ) -> Result<Vec<String>, ReferenceError> {
        let names: Vec<String> = names.map(|name| name.trim().to_lowercase()).collect();
        let mut seen = std::collections::HashSet::new();
        for (i, name) in names.iter().enumerate() {
            if name.is_empty() {
                return Err(self.fail(Some(1), format!("column {} has no name", i + 1)));
            }
            if !seen.insert(name) {
                return Err(self.fail(
                    Some(1),
                    format!("there are two columns `{name}`; names differ in more than case"),
                ));
            }
        }
        if names.len() > self.most_columns() {
            return Err(self.many_columns());
        }
        Ok(names)
    }

    /// How many columns the file may have. Where columns are declared, only the declared columns are held.
    const fn most_columns(&self) -> usize {
        match self.reference.columns {
            Some(_) => MOST_COLUMNS,
            None => MOST_READ,
        }
    }

    fn many_columns(&self) -> ReferenceError {
        let most = self.most_columns();
        let remedy = match self.reference.columns {
            Some(_) => "",
            None => ": declare the columns that marts read, in `columns` of the reference",
        };
        self.fail(None, format!("it has more than {most} columns{remedy}"))
    }

    /// Where the declared columns are among those of the file.
    fn declared(
        &self,
        declared: &[(String, ColumnType)],
        names: &[String],
    ) -> Result<Vec<usize>, ReferenceError> {
        let places: HashMap<&str, usize> = (names.iter().map(String::as_str)).zip(0..).collect();
        let place = |(name, _): &(String, ColumnType)| {
            let place = places.get(name.as_str()).copied();
            place.ok_or_else(|| self.missing(name, names.iter().map(String::as_str)))
        };
        declared.iter().map(place).collect()
    }

    fn missing<'b>(
        &self,
        name: &str,
        names: impl Iterator<Item = &'b str> + Clone,
    ) -> ReferenceError {
        let message = match nearest(name, names.clone()) {
            Some(near) => format!("the file has no column `{name}`; is it `{near}`?"),
            None => format!(
                "the file has no column `{name}`; it has {}",
                names.collect::<Vec<_>>().join(", ")
            ),
        };
        self.fail(None, message)
    }

    fn cast(&self, cells: &Cells, places: &[At]) -> Result<ArrayRef, ReferenceError> {
        let kind = &cells.kind;
        let text = |trimmed: bool| -> StringArray {
            cells
                .values
                .iter()
                .map(|value| {
                    value
                        .as_deref()
                        .map(|value| if trimmed { value.trim() } else { value })
                })
                .collect()
        };
        match kind {
            ColumnType::String => return Ok(Arc::new(text(false))),
            ColumnType::Json => {
                for (value, at) in cells.values.iter().zip(places) {
                    if let Some(value) = value
                        && serde_json::from_str::<serde::de::IgnoredAny>(value).is_err()
                    {
                        return Err(self.misfit(cells, value, at));
                    }
                }
                return Ok(Arc::new(text(false)));
            }
            ColumnType::Array(_) | ColumnType::Map(_) | ColumnType::Struct(_) => {
                return self.nested(cells, places);
            }
            _ => {}
        }
        if let ColumnType::Decimal(precision, scale) = kind {
            return self.decimals(cells, (*precision, *scale), places);
        }
        let text = text(true);
        // Safe: what does not fit becomes NULL, which tells the row.
        let options = CastOptions {
            safe: true,
            ..CastOptions::default()
        };
        let array = cast_with_options(&text, &kind.arrow(TimeUnit::Ms), &options)
            .map_err(|error| self.fail(None, format!("column `{}`: {error}", cells.name)))?;
        for (i, (value, at)) in cells.values.iter().zip(places).enumerate() {
            if let Some(value) = value
                && array.is_null(i)
            {
                return Err(self.misfit(cells, value, at));
            }
        }
        Ok(array)
    }

    /// A cast would round what has more digits than the column.
    fn decimals(
        &self,
        cells: &Cells,
        (precision, scale): (u8, u8),
        places: &[At],
    ) -> Result<ArrayRef, ReferenceError> {
        let mut values = Vec::with_capacity(cells.values.len());
        for (value, at) in cells.values.iter().zip(places) {
            let exact = |text: &String| {
                Decimal::parse(plain(text.trim()).as_bytes())
                    .and_then(|number| number.exact(precision, scale))
                    .ok_or_else(|| self.misfit(cells, text, at))
            };
            values.push(value.as_ref().map(exact).transpose()?);
        }
        // It has been checked with the configuration that there is a decimal of so many digits.
        let array = Decimal128Array::from(values)
            .with_precision_and_scale(precision, i8::try_from(scale).unwrap_or(0))
            .map_err(|error| self.fail(None, format!("column `{}`: {error}", cells.name)))?;
        Ok(Arc::new(array))
    }

    fn misfit(&self, cells: &Cells, value: &str, at: &At) -> ReferenceError {
        let value: String = value.chars().take(80).collect();
        let line = match at {
            At::Line(line) => *line,
            At::Before(position) => self.line_at(position),
        };
        self.fail(
            Some(line),
            format!(
                "`{value}` in column `{}` is no {}; if it means NULL, add it to `null`",
                cells.name, cells.kind
            ),
        )
    }

    /// The line of a row: the reader's position is before the blank lines that it skips. The file is read once
    /// more up to there.
    fn line_at(&self, position: &csv::Position) -> u64 {
        let after = || -> io::Result<u64> {
            let mut text = self.text().map_err(io::Error::other)?;
            text.allowed = u64::MAX;
            io::copy(
                &mut Read::by_ref(&mut text).take(position.byte()),
                &mut io::sink(),
            )?;
            let mut lines = position.line();
            for byte in BufReader::new(text).bytes() {
                match byte? {
                    b'\n' => lines += 1,
                    b'\r' => {}
                    _ => break,
                }
            }
            Ok(lines)
        };
        after().unwrap_or_else(|_| position.line())
    }

    /// Arrays, maps and structs, from the JSON text of their cells.
    fn nested(&self, cells: &Cells, places: &[At]) -> Result<ArrayRef, ReferenceError> {
        let kind = &cells.kind;
        let field = Field::new(&cells.name, kind.arrow(TimeUnit::Ms), true);
        let wrong = |error: arrow::error::ArrowError| {
            self.fail(
                None,
                format!("column `{}` is no {kind}: {error}", cells.name),
            )
        };
        let mut decoder = arrow::json::ReaderBuilder::new_with_field(field)
            .with_batch_size(cells.values.len().max(1))
            .build_decoder()
            .map_err(wrong)?;
        for (value, at) in cells.values.iter().zip(places) {
            let text = value.as_deref().unwrap_or("null");
            serde_json::from_str::<serde::de::IgnoredAny>(text)
                .map_err(|_| self.misfit(cells, text, at))?;
            // As it is written: a number of serde_json has lost digits already.
            decoder.decode(text.as_bytes()).map_err(wrong)?;
        }
        let empty = || arrow::array::new_empty_array(&kind.arrow(TimeUnit::Ms));
        let batch = decoder.flush().map_err(wrong)?;
        Ok(batch
            .and_then(|batch| batch.columns().first().cloned())
            .unwrap_or_else(empty))
    }

    fn ndjson<E: From<ReferenceError>>(&self, take: &mut Take<'_, E>) -> Result<SchemaRef, E> {
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut seen: Vec<(String, Seen)> = Vec::new();
        self.lines(&mut |_, members| {
            for (name, value) in members {
                if !places.contains_key(name) {
                    if places.len() == self.most_columns() {
                        return Err(self.many_columns());
                    }
                    places.insert(name.clone(), seen.len());
                    seen.push((name.clone(), Seen::default()));
                }
                let place = places.get(name).and_then(|place| seen.get_mut(*place));
                if let Some((_, seen)) = place {
                    seen.note(value.get());
                }
            }
            Ok(())
        })?;
        let columns: Vec<(String, ColumnType)> = match &self.reference.columns {
            // A member that no line has is NULL everywhere: JSON leaves out what it does not know.
            Some(declared) => declared.clone(),
            None => {
                let kinds = seen.into_iter();
                kinds.map(|(name, seen)| (name, seen.kind())).collect()
            }
        };
        let places: HashMap<String, usize> = columns
            .iter()
            .map(|(name, _)| name.clone())
            .zip(0..)
            .collect();
        let mut batch = Rows::new(columns);
        self.lines(&mut |line, members| {
            let bytes: usize = members.values().map(|value| value.get().len()).sum();
            batch.push(At::Line(line), bytes);
            for (name, value) in members {
                let Some(place) = places.get(name) else {
                    continue;
                };
                let text = value.get();
                match text.as_bytes() {
                    [b'n', ..] => {}
                    [b'"', ..] => {
                        let text = serde_json::from_str(text).map_err(|error| {
                            self.fail(Some(line), format!("the member `{name}`: {error}"))
                        });
                        batch.set(*place, text?);
                    }
                    _ => batch.set(*place, text.to_owned()),
                }
            }
            self.give(&mut batch, false, take).map(|_| ())
        })?;
        self.give(&mut batch, true, take)
    }

    /// The members of each line that is not blank, by their names in lower case.
    fn lines<E: From<ReferenceError>>(&self, each: &mut Each<'_, E>) -> Result<(), E> {
        let mut text = BufReader::with_capacity(CHUNK, self.text()?);
        let mut row = Vec::new();
        for line in 1.. {
            row.clear();
            text.get_mut().row();
            let read = text.read_until(b'\n', &mut row);
            if read.map_err(|error| self.unreadable(&error))? == 0 {
                break;
            }
            if row.trim_ascii().is_empty() {
                continue;
            }
            // As they are written: a number of serde_json has lost digits already.
            let read: Members = serde_json::from_slice(&row)
                .map_err(|error| self.fail(Some(line), format!("not one JSON object: {error}")))?;
            let mut members = Members::new();
            for (name, value) in read {
                let name = name.trim().to_lowercase();
                if members.contains_key(&name) {
                    let message =
                        format!("there are two members `{name}`; names differ in more than case");
                    return Err(self.fail(Some(line), message).into());
                }
                members.insert(name, value);
            }
            each(line, &members)?;
        }
        Ok(())
    }

    fn parquet<E: From<ReferenceError>>(&self, take: &mut Take<'_, E>) -> Result<SchemaRef, E> {
        let wrong = |error: &dyn std::fmt::Display| {
            self.fail(
                None,
                format!("not a Parquet file that can be read: {error}"),
            )
        };
        let file = File::open(self.file).map_err(|error| self.unreadable(&error))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| wrong(&e))?;
        let source = Arc::clone(builder.schema());
        let names = self.names(source.fields().iter().map(|field| field.name().as_str()))?;
        let mut picked: Vec<(usize, Field)> = Vec::new();
        match &self.reference.columns {
            Some(declared) => {
                let places = self.declared(declared, &names)?;
                for ((name, kind), at) in declared.iter().zip(places) {
                    picked.push((at, Field::new(name, kind.arrow(TimeUnit::Ms), true)));
                }
            }
            None => {
                for (at, (name, field)) in names.iter().zip(source.fields()).enumerate() {
                    let kind = written(field.data_type()).map_err(|refused| {
                        self.fail(None, format!("the column `{name}` is {refused}"))
                    })?;
                    picked.push((at, Field::new(name, kind, true)));
                }
            }
        }
        let fields: Vec<Field> = picked.iter().map(|(_, field)| field.clone()).collect();
        let schema = Arc::new(Schema::new(fields));
        let options = CastOptions {
            safe: false,
            ..CastOptions::default()
        };
        let groups = builder.metadata().row_groups().iter();
        let bytes: i64 = groups.map(|group| group.total_byte_size()).sum();
        let rows = builder.metadata().file_metadata().num_rows().max(1);
        let width = usize::try_from(bytes / rows).unwrap_or(0).max(1);
        let builder = builder.with_batch_size((BATCH_BYTES / width).clamp(1, BATCH_ROWS));
        for batch in builder.build().map_err(|e| wrong(&e))? {
            let batch = batch.map_err(|e| wrong(&e))?;
            let mut arrays = Vec::with_capacity(picked.len());
            for (at, field) in &picked {
                let Some(column) = batch.columns().get(*at) else {
                    continue;
                };
                let array =
                    cast_with_options(column, field.data_type(), &options).map_err(|error| {
                        self.fail(None, format!("column `{}`: {error}", field.name()))
                    })?;
                arrays.push(array);
            }
            let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), arrays, &rows);
            take(&schema, batch.map_err(|error| wrong(&error))?)?;
        }
        Ok(schema)
    }
}

/// A number as JSON spells it: databases export `.50`, `+1` and `007` as well.
fn plain(number: &str) -> String {
    let (sign, digits) = match number.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", number.strip_prefix('+').unwrap_or(number)),
    };
    let bare = digits.trim_start_matches('0');
    let had_zero = bare.len() < digits.len() && !bare.starts_with(|c: char| c.is_ascii_digit());
    let zero = if had_zero || bare.starts_with('.') {
        "0"
    } else {
        ""
    };
    format!("{sign}{zero}{bare}")
}

/// What all cells of a CSV column so far are.
#[derive(Debug, Clone)]
struct Inferred {
    /// There is none but NULL.
    none: bool,
    integer: bool,
    number: bool,
    boolean: bool,
}

impl Default for Inferred {
    fn default() -> Self {
        Self {
            none: true,
            integer: true,
            number: true,
            boolean: true,
        }
    }
}

impl Inferred {
    fn note(&mut self, value: &str) {
        self.none = false;
        self.integer = self.integer && is_integer(value) && value.parse::<i64>().is_ok();
        self.number = self.number && is_number(value);
        let is_boolean =
            || value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false");
        self.boolean = self.boolean && is_boolean();
    }

    const fn kind(&self) -> ColumnType {
        match self {
            Self { none: true, .. } => ColumnType::String,
            Self { integer: true, .. } => ColumnType::BigInt,
            Self { number: true, .. } => ColumnType::Double,
            Self { boolean: true, .. } => ColumnType::Boolean,
            _ => ColumnType::String,
        }
    }
}

/// Digits without a leading zero: `007` is an id.
fn is_integer(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    digits == "0"
        || (digits.starts_with(|c: char| ('1'..='9').contains(&c))
            && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// An integer that a double holds exactly, or digits with a point or an exponent that it keeps.
fn is_number(value: &str) -> bool {
    if is_integer(value) {
        return value
            .parse::<i64>()
            .is_ok_and(|n| n.unsigned_abs() <= 1 << 53);
    }
    let whole = value.split(['.', 'e', 'E']).next().unwrap_or_default();
    is_integer(whole)
        && value.ends_with(|c: char| c.is_ascii_digit())
        && value
            .parse::<f64>()
            .is_ok_and(|double| double.is_finite() && keeps_digits(double, value))
}

/// Whether `double`, written with as many digits as `value`, has the same digits.
fn keeps_digits(double: f64, value: &str) -> bool {
    let digits = |number: &str| -> String {
        let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        digits.trim_start_matches('0').to_owned()
    };
    let wanted = digits(value);
    digits(&format!("{double:.*e}", wanted.len().saturating_sub(1))) == wanted
}

/// The kinds of JSON value that a member had.
#[derive(Default)]
struct Seen {
    string: bool,
    integer: bool,
    double: bool,
    boolean: bool,
    nested: bool,
    /// An integer that a double does not hold.
    wide: bool,
}

impl Seen {
    /// `value` is one JSON value as it is written.
    fn note(&mut self, value: &str) {
        match value.as_bytes() {
            [b'n', ..] => {}
            [b't' | b'f', ..] => self.boolean = true,
            [b'"', ..] => self.string = true,
            [b'{' | b'[', ..] => self.nested = true,
            _ if is_integer(value) => match value.parse::<i64>() {
                Ok(_) => {
                    self.integer = true;
                    self.wide |= !is_number(value);
                }
                Err(_) => self.string = true,
            },
            _ if is_number(value) => self.double = true,
            _ => self.string = true,
        }
    }

    /// Mixed and nested values are kept as text.
    fn kind(&self) -> ColumnType {
        match (
            self.string || self.nested,
            self.boolean,
            self.double,
            self.integer,
        ) {
            (false, false, false, true) => ColumnType::BigInt,
            (false, false, true, _) if !self.wide => ColumnType::Double,
            (false, true, false, false) => ColumnType::Boolean,
            _ => ColumnType::String,
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use datafusion::common::assert_batches_eq;
    use datafusion::parquet::arrow::ArrowWriter;

    use super::*;

    /// All rows as one batch.
    fn read(
        reference: &Reference,
        bytes: &[u8],
    ) -> Result<(SchemaRef, Vec<RecordBatch>), ReferenceError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut batches = Vec::new();
        let schema = super::read(reference, file.path(), &mut |schema, batch| {
            assert_eq!(*schema, batch.schema());
            batches.push(batch);
            Ok::<_, ReferenceError>(())
        })?;
        let batch = arrow::compute::concat_batches(&schema, &batches).unwrap();
        Ok((schema, vec![batch]))
    }

    fn reference(format: ReferenceFormat) -> Reference {
        Reference {
            name: "danji".into(),
            url: "file:///r/danji.csv".into(),
            format,
            columns: None,
            null: vec![String::new(), "NULL".into()],
            encoding: encoding_rs::UTF_8,
        }
    }

    fn types(schema: &SchemaRef) -> Vec<String> {
        schema
            .fields()
            .iter()
            .map(|f| format!("{} {}", f.name(), f.data_type()))
            .collect()
    }

    #[test]
    fn csv_in_cp949_with_nulls_and_inferred_types() {
        let text = "ID,Name,\"households\",code,share,open\n\
                    1,\"래미안, 대치\",1278,007,0.5,true\n\
                    2,NULL,,120,1e3,FALSE\n";
        let (bytes, _, wrong) = encoding_rs::EUC_KR.encode(text);
        assert!(!wrong);
        let korean = Reference {
            encoding: encoding_rs::EUC_KR,
            ..reference(ReferenceFormat::Csv)
        };
        let (schema, batches) = read(&korean, &bytes).unwrap();
        assert_eq!(
            types(&schema),
            [
                "id Int64",
                "name Utf8",
                "households Int64",
                "code Utf8",
                "share Float64",
                "open Boolean"
            ]
        );
        assert_batches_eq!(
            [
                "+----+--------------+------------+------+--------+-------+",
                "| id | name         | households | code | share  | open  |",
                "+----+--------------+------------+------+--------+-------+",
                "| 1  | 래미안, 대치 | 1278       | 007  | 0.5    | true  |",
                "| 2  |              |            | 120  | 1000.0 | false |",
                "+----+--------------+------------+------+--------+-------+",
            ],
            &batches
        );
        let error = read(&reference(ReferenceFormat::Csv), &bytes).unwrap_err();
        assert_eq!(error.line, Some(2), "{error}");
        assert!(
            error.to_string().contains("not UTF-8; declare `encoding`"),
            "{error}"
        );
    }

    #[test]
    fn inference_is_never_lossy() {
        for (cells, kind) in [
            (vec!["1", "-20", "0"], "bigint"),
            (vec!["1", "2.50"], "double"),
            (vec!["1", "01"], "string"),
            (vec!["00.5"], "string"),
            (vec!["9223372036854775808"], "string"),
            (vec!["9007199254740993", "0.5"], "string"),
            (vec!["0.30000000000000004", "0.10000000000000001"], "double"),
            (vec!["1e3", "0.0", "-1.250", "4.9e-324"], "double"),
            (vec!["0.1234567890123456789"], "string"),
            (vec!["9007199254740993.5"], "string"),
            (vec!["1e400"], "string"),
            (vec!["1e-400"], "string"),
            (vec!["1."], "string"),
            (vec!["NaN"], "string"),
            (vec![" 1"], "string"),
            (vec!["True", "false"], "boolean"),
            (vec!["2019-04-02"], "string"),
            (vec![], "string"),
        ] {
            let mut inferred = Inferred::default();
            cells.iter().for_each(|cell| inferred.note(cell));
            assert_eq!(inferred.kind().to_string(), kind, "{cells:?}");
        }
    }

    #[test]
    fn declared_columns_are_cast_and_a_misfit_names_its_line() {
        let declared = |text: &str, columns: &[(&str, &str)]| {
            let columns = columns
                .iter()
                .map(|(n, k)| ((*n).to_owned(), k.parse().unwrap()))
                .collect();
            let reference = Reference {
                columns: Some(columns),
                ..reference(ReferenceFormat::Csv)
            };
            read(&reference, text.as_bytes())
        };
        let text = "\u{feff}a,b,c,d,e\n 5 ,2019-04-02,2019-04-02T00:00:00Z,1.25,\"[1,2]\"\n,,,,\n";
        let (schema, batches) = declared(
            text,
            &[
                ("b", "date"),
                ("a", "int"),
                ("c", "timestamp"),
                ("d", "decimal(5,2)"),
                ("e", "array<bigint>"),
            ],
        )
        .unwrap();
        assert_eq!(
            types(&schema)[..3],
            ["b Date32", "a Int32", "c Timestamp(ms, \"UTC\")"]
        );
        assert_batches_eq!(
            [
                "+------------+---+----------------------+------+--------+",
                "| b          | a | c                    | d    | e      |",
                "+------------+---+----------------------+------+--------+",
                "| 2019-04-02 | 5 | 2019-04-02T00:00:00Z | 1.25 | [1, 2] |",
                "|            |   |                      |      |        |",
                "+------------+---+----------------------+------+--------+",
            ],
            &batches
        );
        for (text, kind, line, part) in [
            ("a\n1\n\n\"x\ny\"\n", "bigint", Some(4), "is no bigint"),
            (
                "a\n3000000000\n",
                "int",
                Some(2),
                "`3000000000` in column `a` is no int",
            ),
            ("a\n{\n", "json", Some(2), "is no json"),
            ("a\n1.25\n1.255\n", "decimal(5,2)", Some(3), "`1.255` in"),
            ("a\n1234\n", "decimal(5,2)", Some(2), "is no decimal(5,2)"),
            ("a\n1,5\n", "decimal(5,2)", Some(2), "2 fields"),
            ("a\n+\n", "decimal(5,2)", Some(2), "`+` in"),
            ("a\n-.\n", "decimal(5,2)", Some(2), "`-.` in"),
            (
                "a\n\n\n\"x\"\n1,2\n",
                "string",
                Some(5),
                "2 fields, the header 1",
            ),
            ("b\n1\n", "int", None, "no column `a`"),
            ("a,A\n1,2\n", "int", Some(1), "two columns `a`"),
            (
                "a,b\n1,2\n1,2,3\n",
                "int",
                Some(3),
                "3 fields, the header 2",
            ),
            ("", "int", None, "the file is empty"),
        ] {
            let error = declared(text, &[("a", kind)]).unwrap_err();
            assert_eq!(error.line, line, "{error}");
            assert!(error.to_string().contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn decimals_are_exact_however_they_are_spelt() {
        let text = "a\n.50\n+1\n007.5\n-.25\n1e2\n0\n-000\n 12.30 \n999.99\n";
        let reference = Reference {
            columns: Some(vec![("a".into(), "decimal(5,2)".parse().unwrap())]),
            ..reference(ReferenceFormat::Csv)
        };
        let (_, batches) = read(&reference, text.as_bytes()).unwrap();
        let values = batches[0]
            .column(0)
            .as_primitive::<arrow::datatypes::Decimal128Type>();
        let expected = [50, 100, 750, -25, 10_000, 0, 0, 1_230, 99_999];
        assert_eq!(values.values(), &expected);
    }

    #[test]
    fn numbers_of_ndjson_keep_their_digits() {
        let inferred = |values: &str| {
            let text: String = values
                .split(' ')
                .map(|value| format!("{{\"a\": {value} }}\n"))
                .collect();
            let (schema, batches) =
                read(&reference(ReferenceFormat::Ndjson), text.as_bytes()).unwrap();
            (types(&schema).remove(0), batches[0].column(0).clone())
        };
        for (values, kind) in [
            ("1 -9223372036854775808", "a Int64"),
            ("1 18446744073709551615", "a Utf8"),
            ("123456789012345678901234567890", "a Utf8"),
            ("0.5 9007199254740992", "a Float64"),
            ("0.5 9007199254740993", "a Utf8"),
            ("0.1 1e3 -0.0 null", "a Float64"),
            ("0.1234567890123456789", "a Utf8"),
            ("1e400", "a Utf8"),
            ("true null", "a Boolean"),
            ("1 true", "a Utf8"),
        ] {
            let (found, column) = inferred(values);
            assert_eq!(found, kind, "{values}");
            if kind == "a Utf8" {
                let texts: Vec<_> = column.as_string::<i32>().iter().flatten().collect();
                assert_eq!(texts.join(" "), values);
            }
        }
        let text = "{\"d\":1234567890123456789.0123456789,\"l\":[18446744073709551615]}\n";
        let reference = Reference {
            columns: Some(vec![
                ("d".into(), "decimal(38,10)".parse().unwrap()),
                ("l".into(), "array<decimal(20,0)>".parse().unwrap()),
            ]),
            ..reference(ReferenceFormat::Ndjson)
        };
        let (_, batches) = read(&reference, text.as_bytes()).unwrap();
        assert_batches_eq!(
            [
                "+--------------------------------+------------------------+",
                "| d                              | l                      |",
                "+--------------------------------+------------------------+",
                "| 1234567890123456789.0123456789 | [18446744073709551615] |",
                "+--------------------------------+------------------------+",
            ],
            &batches
        );
    }

    /// Where no columns are declared, each column of the file is held and spilled on its own.
    #[test]
    fn a_file_of_very_many_columns_is_read_where_they_are_declared() {
        let line =
            |cell: &dyn Fn(usize) -> String| (0..20_000).map(cell).collect::<Vec<_>>().join(",");
        let csv = format!(
            "{}\n{}\n",
            line(&|i| format!("c{i}")),
            line(&|i| i.to_string())
        );
        let ndjson = format!("{{{}}}\n", line(&|i| format!("\"c{i}\":{i}")));
        for (format, text) in [
            (ReferenceFormat::Csv, csv),
            (ReferenceFormat::Ndjson, ndjson),
        ] {
            let mut reference = reference(format);
            let error = read(&reference, text.as_bytes()).unwrap_err().to_string();
            let parts = ["more than 2000 columns", "declare the columns"];
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
            reference.columns = Some(vec![("c19999".into(), "bigint".parse().unwrap())]);
            let (schema, batches) = read(&reference, text.as_bytes()).unwrap();
            assert_eq!(types(&schema), ["c19999 Int64"]);
            let numbers = batches[0]
                .column(0)
                .as_primitive::<arrow::datatypes::Int64Type>();
            assert_eq!(numbers.values(), &[19_999]);
        }
    }

    #[test]
    fn ndjson_members_come_and_go() {
        let reference = reference(ReferenceFormat::Ndjson);
        let text = "{\"Id\":1,\"x\":\"a\",\"m\":1}\n\n{\"id\":2,\"y\":{\"k\":[1]},\"m\":\"q\"}\n";
        let (schema, batches) = read(&reference, text.as_bytes()).unwrap();
        assert_eq!(types(&schema), ["id Int64", "m Utf8", "x Utf8", "y Utf8"]);
        assert_eq!(
            batches[0].column(3).as_string::<i32>().value(1),
            "{\"k\":[1]}"
        );
        assert!(batches[0].column(2).is_null(1));
        for (text, line, part) in [
            ("{\"a\":1}\n[1]\n", 2, "not one JSON object"),
            ("{\"a\":1}\n\n{\"a\":\n", 3, "not one JSON object"),
            ("{\"a\":1,\"A\":2}\n", 1, "two members `a`"),
        ] {
            let error = read(&reference, text.as_bytes()).unwrap_err();
            assert_eq!(error.line, Some(line), "{error}");
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn parquet_is_cast_to_the_types_of_the_lake() {
        let batch = RecordBatch::try_from_iter(vec![
            (
                "ID",
                Arc::new(arrow::array::UInt32Array::from(vec![7])) as ArrayRef,
            ),
            (
                "at",
                Arc::new(arrow::array::TimestampNanosecondArray::from(vec![
                    1_500_000_000,
                ])) as ArrayRef,
            ),
        ])
        .unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let reference = reference(ReferenceFormat::Parquet);
        let (schema, batches) = read(&reference, &bytes).unwrap();
        assert_eq!(types(&schema), ["id Int64", "at Timestamp(ms, \"UTC\")"]);
        assert_eq!(batches[0].num_rows(), 1);
        let error = read(&reference, b"PAR1").unwrap_err().to_string();
        assert!(error.contains("not a Parquet file"), "{error}");
    }
}
