//! The answer to a query: rows are written to a file as they come, and the file is printed when all of them are there.
//! So an answer takes little memory, and a query that fails prints no part of one.
//!
//! ```text
//! columns, rows ──Answering──▶ file in the spill folder ──Answer──▶ stdout
//! ```

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::json::writer::{JsonArray, LineDelimited, WriterBuilder};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::Serialize;

use super::text::shown;
use crate::catalog::columns;
use crate::cli::Format;
use crate::run::Part;

/// Rows that a table holds before it is written: they decide how wide the columns are.
const HELD_ROWS: usize = 1_000;
/// The bytes of the rows that are held, from which on their widths decide.
const HELD_BYTES: usize = 1 << 20;
/// The most characters of a column. A wider cell is written whole, and its row is not aligned.
const WIDEST: usize = 200;

/// Takes the parts of an answer.
pub struct Answering {
    format: Format,
    begun: Option<Begun>,
    answer: Option<Answer>,
}

/// An answer whose columns are known.
struct Begun {
    columns: Vec<AnswerColumn>,
    rows: u64,
    /// The file that `form` writes.
    file: File,
    form: Form,
}

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AnswerColumn {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

enum Form {
    Table(Table),
    Csv(csv::Writer<BufWriter<File>>),
    Array(arrow::json::Writer<BufWriter<File>, JsonArray>),
    Lines(arrow::json::Writer<BufWriter<File>, LineDelimited>),
}

/// The answer to a query.
#[derive(Debug)]
pub struct Answer {
    /// The columns, in the order of the SELECT.
    pub columns: Vec<AnswerColumn>,
    /// The number of rows.
    pub rows: u64,
    /// The rows in their format.
    content: File,
}

impl Answering {
    /// An answer in this format, of which no part has come.
    pub const fn new(format: Format) -> Self {
        Self {
            format,
            begun: None,
            answer: None,
        }
    }

    /// Takes the next part of the answer.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn take(&mut self, part: Part<'_>) -> io::Result<()> {
        match (part, &mut self.begun) {
            (Part::Columns { folder, schema }, begun) => {
                *begun = Some(Begun::new(self.format, folder, schema)?);
            }
            (Part::Rows(batch), Some(begun)) => begun.rows(batch)?,
            (Part::End, begun) => self.answer = begun.take().map(Begun::finish).transpose()?,
            (Part::Rows(_), None) => {}
        }
        Ok(())
    }

    /// The whole answer. `None` where its end has not come.
    pub fn answer(self) -> Option<Answer> {
        self.answer
    }
}

impl Begun {
    fn new(format: Format, folder: &Path, schema: &SchemaRef) -> io::Result<Self> {
        let file = tempfile::tempfile_in(folder)?;
        let out = BufWriter::new(file.try_clone()?);
        let nulls = || WriterBuilder::new().with_explicit_nulls(true);
        let names = || schema.fields().iter().map(|field| field.name());
        let form = match format {
            Format::Table => Form::Table(Table::new(out, schema)),
            Format::Csv => {
                let mut csv = csv::Writer::from_writer(out);
                csv.write_record(names())?;
                Form::Csv(csv)
            }
            Format::Json => Form::Array(nulls().build(out)),
            Format::Ndjson => Form::Lines(nulls().build(out)),
        };
        let columns = columns(schema).into_iter();
        Ok(Self {
            columns: columns
                .map(|(name, kind)| AnswerColumn { name, kind })
                .collect(),
            rows: 0,
            file,
            form,
        })
    }

    fn rows(&mut self, batch: &RecordBatch) -> io::Result<()> {
        self.rows += batch.num_rows() as u64;
        match &mut self.form {
            Form::Array(json) => json.write(batch).map_err(io::Error::other),
            Form::Lines(json) => json.write(batch).map_err(io::Error::other),
            Form::Csv(csv) => {
                let cells = Cells::new(batch, "")?;
                for row in 0..batch.num_rows() {
                    csv.write_record(cells.row(row)?)?;
                }
                Ok(())
            }
            Form::Table(table) => {
                let cells = Cells::new(batch, "NULL")?;
                (0..batch.num_rows()).try_for_each(|row| table.row(cells.row(row)?))
            }
        }
    }

    fn finish(self) -> io::Result<Answer> {
        let Self {
            columns,
            rows,
            mut file,
            form,
        } = self;
        match form {
            Form::Table(table) => table.finish(rows)?,
            Form::Csv(mut csv) => csv.flush()?,
            Form::Array(mut json) => {
                json.finish().map_err(io::Error::other)?;
                json.into_inner().flush()?;
            }
            Form::Lines(mut json) => {
                json.finish().map_err(io::Error::other)?;
                json.into_inner().flush()?;
            }
        }
        file.rewind()?;
        Ok(Answer {
            columns,
            rows,
            content: file,
        })
    }
}

impl Answer {
    /// Copies the rows, in their format.
    ///
    /// # Errors
    /// The file cannot be read, or `out` cannot be written.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut content = &self.content;
        content.rewind()?;
        io::copy(&mut content, out).map(drop)
    }
}

/// The cells of a batch as text.
struct Cells<'a> {
    columns: Vec<ArrayFormatter<'a>>,
}

impl<'a> Cells<'a> {
    /// NULL is spelt `null`.
    fn new(batch: &'a RecordBatch, null: &'a str) -> io::Result<Self> {
        let options = FormatOptions::default().with_null(null);
        let columns = batch.columns().iter();
        let columns = columns.map(|column| ArrayFormatter::try_new(column, &options));
        let columns = columns
            .collect::<Result<_, _>>()
            .map_err(io::Error::other)?;
        Ok(Self { columns })
    }

    fn row(&self, row: usize) -> io::Result<Vec<String>> {
        let cells = self
            .columns
            .iter()
            .map(|column| column.value(row).try_to_string());
        cells.collect::<Result<_, _>>().map_err(io::Error::other)
    }
}

/// A table for people, with columns as wide as the first rows need.
struct Table {
    out: BufWriter<File>,
    names: Vec<String>,
    /// Whether the column has numbers, which end at the same place.
    numbers: Vec<bool>,
    held: Vec<Vec<String>>,
    /// The bytes of the rows that are held.
    held_bytes: usize,
    /// The width of each column, once it is decided.
    widths: Option<Vec<usize>>,
}

impl Table {
    fn new(out: BufWriter<File>, schema: &SchemaRef) -> Self {
        let fields = schema.fields().iter();
        let is_number = |kind: &DataType| kind.is_numeric();
        Self {
            out,
            names: fields.clone().map(|field| shown(field.name())).collect(),
            numbers: fields.map(|field| is_number(field.data_type())).collect(),
            held: Vec::new(),
            held_bytes: 0,
            widths: None,
        }
    }

    fn row(&mut self, cells: Vec<String>) -> io::Result<()> {
        let cells: Vec<String> = cells.iter().map(|cell| shown(cell)).collect();
        if self.widths.is_some() {
            return self.line(&cells);
        }
        self.held_bytes += cells.iter().map(String::len).sum::<usize>();
        self.held.push(cells);
        match self.held.len() >= HELD_ROWS || self.held_bytes >= HELD_BYTES {
            true => self.begin(),
            false => Ok(()),
        }
    }

    /// Decides the widths and writes the head and the rows held so far.
    fn begin(&mut self) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        let all = || std::iter::once(&self.names).chain(&held);
        let width = |column| {
            let cells = all().filter_map(|row| row.get(column));
            cells
                .map(|cell: &String| cell.chars().count())
                .max()
                .unwrap_or(0)
                .min(WIDEST)
        };
        let widths: Vec<usize> = (0..self.names.len()).map(width).collect();
        let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        self.widths = Some(widths);
        let names = self.names.clone();
        self.line(&names)?;
        self.line(&rule)?;
        held.iter().try_for_each(|row| self.line(row))
    }

    fn line(&mut self, cells: &[String]) -> io::Result<()> {
        let widths = self.widths.iter().flatten();
        let columns = cells.iter().zip(widths).zip(&self.numbers);
        let line: Vec<String> = columns
            .map(|((cell, width), is_number)| match is_number {
                true => format!("{cell:>width$}"),
                false => format!("{cell:width$}"),
            })
            .collect();
        writeln!(self.out, "{}", line.join("  ").trim_end())
    }

    fn finish(mut self, rows: u64) -> io::Result<()> {
        if self.widths.is_none() {
            self.begin()?;
        }
        let rows = match rows {
            1 => "1 row".to_owned(),
            rows => format!("{} rows", super::text::count(rows)),
        };
        writeln!(self.out, "({rows})")?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn batch(rows: std::ops::Range<i64>) -> RecordBatch {
        let names = rows.clone().map(|row| match row % 3 {
            0 => None,
            1 => Some("a \"b\",\nc".to_owned()),
            _ => Some("단지".to_owned()),
        });
        let names: StringArray = names.collect();
        let numbers = Int64Array::from_iter_values(rows);
        RecordBatch::try_from_iter_with_nullable([
            ("n", Arc::new(numbers) as ArrayRef, true),
            ("name", Arc::new(names) as ArrayRef, true),
        ])
        .unwrap()
    }

    fn answered(format: Format, batches: &[RecordBatch]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let mut answering = Answering::new(format);
        let (folder, schema) = (folder.path(), &batch(0..0).schema());
        answering.take(Part::Columns { folder, schema }).unwrap();
        for batch in batches {
            answering.take(Part::Rows(batch)).unwrap();
        }
        answering.take(Part::End).unwrap();
        let answer = answering.answer().unwrap();
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(answer.rows, rows as u64);
        let mut out = Vec::new();
        answer.write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_answer_has_four_formats() {
        let batches = [batch(0..2), batch(2..3)];
        for (format, text) in [
            (
                Format::Table,
                "n  name\n-  ---------\n0  NULL\n1  a \"b\",\\nc\n2  단지\n(3 rows)\n",
            ),
            (Format::Csv, "n,name\n0,\n1,\"a \"\"b\"\",\nc\"\n2,단지\n"),
            (
                Format::Json,
                r#"[{"n":0,"name":null},{"n":1,"name":"a \"b\",\nc"},{"n":2,"name":"단지"}]"#,
            ),
            (
                Format::Ndjson,
                "{\"n\":0,\"name\":null}\n{\"n\":1,\"name\":\"a \\\"b\\\",\\nc\"}\n{\"n\":2,\"name\":\"단지\"}\n",
            ),
        ] {
            assert_eq!(answered(format, &batches), text);
        }
        assert_eq!(answered(Format::Json, &[]), "[]");
        assert_eq!(answered(Format::Table, &[]), "n  name\n-  ----\n(0 rows)\n");
    }

    #[test]
    fn a_long_table_is_written_whole() {
        let text = answered(Format::Table, &[batch(0..999), batch(999..2_345)]);
        assert_eq!(text.lines().count(), 2_345 + 3);
        assert!(text.contains("\n2344"), "{text}");
        assert!(text.ends_with("(2,345 rows)\n"));
    }

    #[test]
    fn a_cell_of_a_megabyte_is_written_whole() {
        let texts: StringArray = [Some("x".repeat(1 << 20)), Some("y".to_owned())]
            .into_iter()
            .collect();
        let numbers = Int64Array::from_iter_values(0..2);
        let columns = [
            ("n", Arc::new(numbers) as ArrayRef, true),
            ("name", Arc::new(texts), true),
        ];
        let text = answered(
            Format::Table,
            &[RecordBatch::try_from_iter_with_nullable(columns).unwrap()],
        );
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1].len(), 3 + WIDEST);
        assert_eq!(lines[2].len(), 3 + (1 << 20));
        assert_eq!(lines[3], "1  y");
    }
}
