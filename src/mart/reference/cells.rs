//! The cells of a reference: collected as text, then cast to the types of their columns, a batch at a time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Decimal128Array, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::{BATCH_BYTES, BATCH_ROWS, Reader, ReferenceError, Take};
use crate::event::ColumnType;
use crate::time::{Decimal, TimeUnit};

/// One column of text cells, before it has a type.
pub(super) struct Cells {
    pub(super) name: String,
    pub(super) kind: ColumnType,
    /// One cell for each row. `None` is NULL.
    pub(super) values: Vec<Option<String>>,
}

/// Where a row is in the file.
pub(super) enum At {
    /// On this line, from 1.
    Line(u64),
    /// Before the blank lines that the reader of CSV skips.
    Before(csv::Position),
}

/// The rows of a batch while it is read.
pub(super) struct Rows {
    pub(super) cells: Vec<Cells>,
    pub(super) places: Vec<At>,
    pub(super) bytes: usize,
}

impl Rows {
    /// No rows of these columns yet.
    pub(super) fn new(columns: Vec<(String, ColumnType)>) -> Self {
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

    /// Adds a row that has so many bytes in the file. All its cells are NULL.
    pub(super) fn push(&mut self, at: At, bytes: usize) {
        self.places.push(at);
        self.bytes += bytes + self.cells.len() * size_of::<Option<String>>();
        for cells in &mut self.cells {
            cells.values.push(None);
        }
    }

    /// Sets a value of the last row.
    pub(super) fn set(&mut self, column: usize, value: String) {
        let cells = self.cells.get_mut(column);
        if let Some(last) = cells.and_then(|cells| cells.values.last_mut()) {
            *last = Some(value);
        }
    }

    /// Whether the batch is large enough to be handed over.
    pub(super) fn is_full(&self) -> bool {
        self.places.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    /// Drops the rows.
    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.bytes = 0;
        for cells in &mut self.cells {
            cells.values.clear();
        }
    }

    /// The columns with their types.
    pub(super) fn schema(&self) -> SchemaRef {
        let field = |cells: &Cells| Field::new(&cells.name, cells.kind.arrow(TimeUnit::Ms), true);
        let fields: Vec<Field> = self.cells.iter().map(field).collect();
        Arc::new(Schema::new(fields))
    }
}

impl Reader<'_> {
    /// Hands the batch over where it is full, or where it is the last and has rows.
    pub(super) fn give<E: From<ReferenceError>>(
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

    /// The cells as values of their column's type.
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
        // With `safe`, a value that does not fit becomes NULL, which tells its row.
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

    /// The cells as decimals. A cast would round a value that has more digits than the column.
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
        // `config` has checked that there is a decimal of this precision and scale.
        let array = Decimal128Array::from(values)
            .with_precision_and_scale(precision, i8::try_from(scale).unwrap_or(0))
            .map_err(|error| self.fail(None, format!("column `{}`: {error}", cells.name)))?;
        Ok(Arc::new(array))
    }

    /// The cells as arrays, maps or structs, whose JSON text they are.
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
            // The text is decoded as it is written, because a number of serde_json has lost digits.
            decoder.decode(text.as_bytes()).map_err(wrong)?;
        }
        let empty = || arrow::array::new_empty_array(&kind.arrow(TimeUnit::Ms));
        let batch = decoder.flush().map_err(wrong)?;
        Ok(batch
            .and_then(|batch| batch.columns().first().cloned())
            .unwrap_or_else(empty))
    }

    /// The error of a value that is none of its column's type.
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
}

/// A number as JSON spells it. Databases also export `.50`, `+1` and `007`.
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
