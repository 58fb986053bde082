//! Reference tables: small files that marts join, exports of somebody's database.
//!
//! ```text
//! bytes ──▶ text in its encoding ──▶ cells by column ──▶ declared or inferred type ──▶ one batch
//!           (Parquet: its own batches, cast)
//! ```
//!
//! What does not fit is an error with the line, never a NULL.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Decimal128Array, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use bytes::Bytes;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::value::RawValue;

use super::shape::written;
use crate::config::{Reference, ReferenceFormat};
use crate::engine::nearest;
use crate::event::{ColumnType, Decimal, TimeUnit};

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
    /// One per row; `None` is NULL.
    values: Vec<Option<String>>,
}

/// Reads the whole of `bytes`, the content of the reference's file. Column names are lower-case.
///
/// Inferred types are `bigint`, `double`, `boolean`, else `string`; digits that start with a zero
/// are an id and stay a string.
///
/// # Errors
/// A wrong encoding, row or value (with its line), a declared column that the file does not have,
/// two columns of one name.
pub fn read(
    reference: &Reference,
    bytes: &Bytes,
) -> Result<(SchemaRef, Vec<RecordBatch>), ReferenceError> {
    let reader = Reader { reference };
    match reference.format {
        ReferenceFormat::Csv => reader.csv(bytes),
        ReferenceFormat::Ndjson => reader.ndjson(bytes),
        ReferenceFormat::Parquet => reader.parquet(bytes),
    }
}

struct Reader<'a> {
    reference: &'a Reference,
}

type Table = (SchemaRef, Vec<RecordBatch>);

impl Reader<'_> {
    fn fail(&self, line: Option<u64>, message: impl Into<String>) -> ReferenceError {
        ReferenceError {
            name: self.reference.name.clone(),
            url: self.reference.url.clone(),
            line,
            message: message.into(),
        }
    }

    fn csv(&self, bytes: &[u8]) -> Result<Table, ReferenceError> {
        let text = self.decoded(bytes)?;
        let mut rows = csv::ReaderBuilder::new().from_reader(text.as_bytes());
        let header = rows
            .headers()
            .map_err(|error| self.wrong_row(&text, &error))?
            .clone();
        let names = self.names(header.iter())?;
        if names.is_empty() {
            return Err(self.fail(
                None,
                "the file is empty; its first line is the names of the columns",
            ));
        }
        let mut cells: Vec<Cells> = names
            .into_iter()
            .map(|name| Cells {
                name,
                values: Vec::new(),
            })
            .collect();
        let mut lines = Vec::new();
        for row in rows.records() {
            let row = row.map_err(|error| self.wrong_row(&text, &error))?;
            lines.push(row.position().map_or(0, |at| line_at(&text, at)));
            for (cells, value) in cells.iter_mut().zip(&row) {
                let null = self.reference.null.iter().any(|spelling| spelling == value);
                cells.values.push((!null).then(|| value.to_owned()));
            }
        }
        self.typed(cells, &lines)
    }

    fn wrong_row(&self, text: &str, error: &csv::Error) -> ReferenceError {
        match error.kind() {
            csv::ErrorKind::UnequalLengths {
                pos,
                expected_len,
                len,
            } => self.fail(
                pos.as_ref().map(|at| line_at(text, at)),
                format!("the row has {len} fields, the header {expected_len}"),
            ),
            _ => self.fail(
                error.position().map(|at| line_at(text, at)),
                error.to_string(),
            ),
        }
    }

    /// The text in the declared encoding, without a byte order mark.
    fn decoded<'b>(&self, bytes: &'b [u8]) -> Result<std::borrow::Cow<'b, str>, ReferenceError> {
        let label = self.reference.encoding.trim();
        // The name that Korean exports use; WHATWG calls it windows-949, a spelling of euc-kr.
        let label = match label.to_ascii_lowercase().as_str() {
            "cp949" | "ms949" | "uhc" => "windows-949",
            _ => label,
        };
        let Some(encoding) = encoding_rs::Encoding::for_label(label.as_bytes()) else {
            return Err(self.fail(None, format!("the encoding `{label}` is not known")));
        };
        let (text, used, wrong) = encoding.decode(bytes);
        if wrong {
            let line = text
                .chars()
                .take_while(|c| *c != '\u{fffd}')
                .filter(|c| *c == '\n')
                .count()
                + 1;
            return Err(self.fail(
                u64::try_from(line).ok(),
                format!(
                    "there are bytes that are not {}; declare `encoding`",
                    used.name()
                ),
            ));
        }
        Ok(text)
    }

    /// Lower-case names, each once.
    fn names<'b>(
        &self,
        names: impl Iterator<Item = &'b str>,
    ) -> Result<Vec<String>, ReferenceError> {
        let mut seen: Vec<String> = Vec::new();
        for (i, name) in names.enumerate() {
            let name = name.trim().to_lowercase();
            if name.is_empty() {
                return Err(self.fail(Some(1), format!("column {} has no name", i + 1)));
            }
            if seen.contains(&name) {
                return Err(self.fail(
                    Some(1),
                    format!("there are two columns `{name}`; names differ in more than case"),
                ));
            }
            seen.push(name);
        }
        Ok(seen)
    }

    /// Gives every column its declared or inferred type.
    fn typed(&self, cells: Vec<Cells>, lines: &[u64]) -> Result<Table, ReferenceError> {
        let mut fields = Vec::new();
        let mut arrays = Vec::new();
        match &self.reference.columns {
            Some(declared) => {
                for (name, kind) in declared {
                    let Some(cells) = cells.iter().find(|cells| cells.name == *name) else {
                        return Err(
                            self.missing(name, cells.iter().map(|cells| cells.name.as_str()))
                        );
                    };
                    arrays.push(self.cast(cells, kind, lines)?);
                    fields.push(Field::new(name, kind.arrow(TimeUnit::Ms), true));
                }
            }
            None => {
                for cells in &cells {
                    let kind = inferred(&cells.values);
                    arrays.push(self.cast(cells, &kind, lines)?);
                    fields.push(Field::new(&cells.name, kind.arrow(TimeUnit::Ms), true));
                }
            }
        }
        self.table(fields, arrays, lines.len())
    }

    fn table(
        &self,
        fields: Vec<Field>,
        arrays: Vec<ArrayRef>,
        rows: usize,
    ) -> Result<Table, ReferenceError> {
        let schema = Arc::new(Schema::new(fields));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), arrays, &options)
            .map_err(|error| self.fail(None, error.to_string()))?;
        Ok((schema, vec![batch]))
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

    fn cast(
        &self,
        cells: &Cells,
        kind: &ColumnType,
        lines: &[u64],
    ) -> Result<ArrayRef, ReferenceError> {
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
                for (value, line) in cells.values.iter().zip(lines) {
                    if let Some(value) = value
                        && serde_json::from_str::<serde::de::IgnoredAny>(value).is_err()
                    {
                        return Err(self.misfit(cells, value, kind, *line));
                    }
                }
                return Ok(Arc::new(text(false)));
            }
            ColumnType::Array(_) | ColumnType::Map(_) | ColumnType::Struct(_) => {
                return self.nested(cells, kind, lines);
            }
            _ => {}
        }
        if let ColumnType::Decimal(precision, scale) = kind {
            return self.decimals(cells, kind, (*precision, *scale), lines);
        }
        let text = text(true);
        // Safe: what does not fit becomes NULL, which tells the row.
        let options = CastOptions {
            safe: true,
            ..CastOptions::default()
        };
        let array = cast_with_options(&text, &kind.arrow(TimeUnit::Ms), &options)
            .map_err(|error| self.fail(None, format!("column `{}`: {error}", cells.name)))?;
        for (i, (value, line)) in cells.values.iter().zip(lines).enumerate() {
            if let Some(value) = value
                && array.is_null(i)
            {
                return Err(self.misfit(cells, value, kind, *line));
            }
        }
        Ok(array)
    }

    /// A cast would round what has more digits than the column.
    fn decimals(
        &self,
        cells: &Cells,
        kind: &ColumnType,
        (precision, scale): (u8, u8),
        lines: &[u64],
    ) -> Result<ArrayRef, ReferenceError> {
        let mut values = Vec::with_capacity(cells.values.len());
        for (value, line) in cells.values.iter().zip(lines) {
            let exact = |text: &String| {
                Decimal::parse(plain(text.trim()).as_bytes())
                    .and_then(|number| number.exact(precision, scale))
                    .ok_or_else(|| self.misfit(cells, text, kind, *line))
            };
            values.push(value.as_ref().map(exact).transpose()?);
        }
        // It has been checked with the configuration that there is a decimal of so many digits.
        let array = Decimal128Array::from(values)
            .with_precision_and_scale(precision, i8::try_from(scale).unwrap_or(0))
            .map_err(|error| self.fail(None, format!("column `{}`: {error}", cells.name)))?;
        Ok(Arc::new(array))
    }

    fn misfit(&self, cells: &Cells, value: &str, kind: &ColumnType, line: u64) -> ReferenceError {
        let value: String = value.chars().take(80).collect();
        self.fail(
            Some(line),
            format!(
                "`{value}` in column `{}` is no {kind}; if it means NULL, add it to `null`",
                cells.name
            ),
        )
    }

    /// Arrays, maps and structs, from the JSON text of their cells.
    fn nested(
        &self,
        cells: &Cells,
        kind: &ColumnType,
        lines: &[u64],
    ) -> Result<ArrayRef, ReferenceError> {
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
        for (value, line) in cells.values.iter().zip(lines) {
            let text = value.as_deref().unwrap_or("null");
            serde_json::from_str::<serde::de::IgnoredAny>(text)
                .map_err(|_| self.misfit(cells, text, kind, *line))?;
            // As it is written: a number of serde_json has lost digits already.
            decoder.decode(text.as_bytes()).map_err(wrong)?;
        }
        let empty = || arrow::array::new_empty_array(&kind.arrow(TimeUnit::Ms));
        let batch = decoder.flush().map_err(wrong)?;
        Ok(batch
            .and_then(|batch| batch.columns().first().cloned())
            .unwrap_or_else(empty))
    }

    fn ndjson(&self, bytes: &[u8]) -> Result<Table, ReferenceError> {
        let text = self.decoded(bytes)?;
        let mut cells: Vec<Cells> = Vec::new();
        let mut kinds: Vec<Seen> = Vec::new();
        let mut lines: Vec<u64> = Vec::new();
        for (line, row) in (1_u64..).zip(text.lines()) {
            if row.trim().is_empty() {
                continue;
            }
            // As they are written: a number of serde_json has lost digits already.
            let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(row)
                .map_err(|error| self.fail(Some(line), format!("not one JSON object: {error}")))?;
            let done = lines.len();
            lines.push(line);
            for (name, value) in members {
                let name = name.trim().to_lowercase();
                let at = match cells.iter().position(|cells| cells.name == name) {
                    Some(at) => at,
                    None => {
                        cells.push(Cells {
                            name: name.clone(),
                            values: vec![None; done],
                        });
                        kinds.push(Seen::default());
                        cells.len() - 1
                    }
                };
                let (Some(cells), Some(seen)) = (cells.get_mut(at), kinds.get_mut(at)) else {
                    continue;
                };
                if cells.values.len() > done {
                    return Err(self.fail(
                        Some(line),
                        format!("there are two members `{name}`; names differ in more than case"),
                    ));
                }
                let text = value.get();
                seen.note(text);
                cells.values.push(match text.as_bytes() {
                    [b'n', ..] => None,
                    [b'"', ..] => Some(serde_json::from_str(text).map_err(|error| {
                        self.fail(Some(line), format!("the member `{name}`: {error}"))
                    })?),
                    _ => Some(text.to_owned()),
                });
            }
            for cells in &mut cells {
                cells.values.resize(lines.len(), None);
            }
        }
        if self.reference.columns.is_some() {
            return self.typed(self.declared_present(cells, lines.len()), &lines);
        }
        let mut fields = Vec::new();
        let mut arrays = Vec::new();
        for (cells, seen) in cells.iter().zip(&kinds) {
            let kind = seen.kind();
            arrays.push(self.cast(cells, &kind, &lines)?);
            fields.push(Field::new(&cells.name, kind.arrow(TimeUnit::Ms), true));
        }
        self.table(fields, arrays, lines.len())
    }

    /// A member that no line has is NULL everywhere: JSON leaves out what it does not know.
    fn declared_present(&self, mut cells: Vec<Cells>, rows: usize) -> Vec<Cells> {
        for (name, _) in self.reference.columns.iter().flatten() {
            if !cells.iter().any(|cells| cells.name == *name) {
                cells.push(Cells {
                    name: name.clone(),
                    values: vec![None; rows],
                });
            }
        }
        cells
    }

    fn parquet(&self, bytes: &Bytes) -> Result<Table, ReferenceError> {
        let wrong = |error: &dyn std::fmt::Display| {
            self.fail(
                None,
                format!("not a Parquet file that can be read: {error}"),
            )
        };
        let builder =
            ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).map_err(|e| wrong(&e))?;
        let source = Arc::clone(builder.schema());
        let names = self.names(source.fields().iter().map(|field| field.name().as_str()))?;
        let mut picked: Vec<(usize, Field)> = Vec::new();
        match &self.reference.columns {
            Some(declared) => {
                for (name, kind) in declared {
                    let Some(at) = names.iter().position(|other| other == name) else {
                        return Err(self.missing(name, names.iter().map(String::as_str)));
                    };
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
        let schema = Arc::new(Schema::new(
            picked
                .iter()
                .map(|(_, field)| field.clone())
                .collect::<Vec<_>>(),
        ));
        let options = CastOptions {
            safe: false,
            ..CastOptions::default()
        };
        let mut batches = Vec::new();
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
            batches.push(
                RecordBatch::try_new_with_options(Arc::clone(&schema), arrays, &rows)
                    .map_err(|error| wrong(&error))?,
            );
        }
        Ok((schema, batches))
    }
}

/// The line of a row: the reader's position is before the blank lines that it skips.
fn line_at(text: &str, position: &csv::Position) -> u64 {
    let start = usize::try_from(position.byte()).unwrap_or(usize::MAX);
    let rest = text.as_bytes().get(start..).unwrap_or_default();
    let blank = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    blank
        .filter(|byte| **byte == b'\n')
        .fold(position.line(), |line, _| line + 1)
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

/// The type that all cells of a CSV column have.
fn inferred(values: &[Option<String>]) -> ColumnType {
    let all = |test: fn(&str) -> bool| {
        let mut present = values.iter().flatten().peekable();
        present.peek().is_some() && present.all(|value| test(value))
    };
    if all(|value| is_integer(value) && value.parse::<i64>().is_ok()) {
        ColumnType::BigInt
    } else if all(is_number) {
        ColumnType::Double
    } else if all(|value| value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false"))
    {
        ColumnType::Boolean
    } else {
        ColumnType::String
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

    fn reference(format: ReferenceFormat) -> Reference {
        Reference {
            name: "danji".into(),
            url: "file:///r/danji.csv".into(),
            format,
            columns: None,
            null: vec![String::new(), "NULL".into()],
            encoding: "utf-8".into(),
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
        for label in ["cp949", "CP949", "euc-kr"] {
            let reference = Reference {
                encoding: label.into(),
                ..reference(ReferenceFormat::Csv)
            };
            let (schema, batches) = read(&reference, &Bytes::from(bytes.to_vec())).unwrap();
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
        }
        let error = read(
            &reference(ReferenceFormat::Csv),
            &Bytes::from(bytes.to_vec()),
        )
        .unwrap_err();
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
            let values: Vec<_> = cells
                .iter()
                .map(|cell| Some((*cell).to_owned()))
                .chain([None])
                .collect();
            assert_eq!(inferred(&values).to_string(), kind, "{cells:?}");
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
            read(&reference, &Bytes::from(text.to_owned()))
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
        let (_, batches) = read(&reference, &Bytes::from(text)).unwrap();
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
                read(&reference(ReferenceFormat::Ndjson), &Bytes::from(text)).unwrap();
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
        let (_, batches) = read(&reference, &Bytes::from(text)).unwrap();
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

    #[test]
    fn ndjson_members_come_and_go() {
        let reference = reference(ReferenceFormat::Ndjson);
        let text = "{\"Id\":1,\"x\":\"a\",\"m\":1}\n\n{\"id\":2,\"y\":{\"k\":[1]},\"m\":\"q\"}\n";
        let (schema, batches) = read(&reference, &Bytes::from(text)).unwrap();
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
            let error = read(&reference, &Bytes::from(text)).unwrap_err();
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
        let (schema, batches) = read(&reference, &Bytes::from(bytes)).unwrap();
        assert_eq!(types(&schema), ["id Int64", "at Timestamp(ms, \"UTC\")"]);
        assert_eq!(batches[0].num_rows(), 1);
        let error = read(&reference, &Bytes::from("PAR1"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("not a Parquet file"), "{error}");
    }
}
