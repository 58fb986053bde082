//! References in CSV: a header, and rows of as many fields.

use std::io::{self, BufReader, Read};

use arrow::datatypes::SchemaRef;

use super::cells::{At, Rows};
use super::infer::OfCells;
use super::text::{CHUNK, Text};
use super::{Reader, ReferenceError, Take};
use crate::event::ColumnType;

impl Reader<'_> {
    /// Hands over the rows of a CSV file.
    pub(super) fn csv<E: From<ReferenceError>>(
        &self,
        take: &mut Take<'_, E>,
    ) -> Result<SchemaRef, E> {
        let mut rows = self.csv_rows()?;
        let header = rows.headers().map_err(|error| self.wrong_row(&error))?;
        let names = self.names(header.clone().iter())?;
        if names.is_empty() {
            let message = "the file is empty; its first line is the names of the columns";
            return Err(self.fail(None, message).into());
        }
        self.refuse_other_delimiter(&names)?;
        let mut row = csv::StringRecord::new();
        let mut picked: Vec<usize> = (0..names.len()).collect();
        let columns: Vec<(String, ColumnType)> = match &self.reference.columns {
            Some(declared) => {
                picked = self.declared(declared, &names)?;
                declared.clone()
            }
            None => {
                let mut kinds = vec![OfCells::default(); names.len()];
                while self.next_row(&mut rows, &mut row)? {
                    for (kind, value) in kinds.iter_mut().zip(&row) {
                        if !self.is_null(value) {
                            kind.note(value);
                        }
                    }
                }
                rows = self.csv_rows()?;
                let kinds = kinds.iter().map(OfCells::kind);
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

    /// Refuses a header of one name that holds another delimiter: the file would be one column of whole lines.
    fn refuse_other_delimiter(&self, names: &[String]) -> Result<(), ReferenceError> {
        let [only] = names else {
            return Ok(());
        };
        let others = [';', '\t', '|']
            .into_iter()
            .filter(|_| self.reference.delimiter == b',');
        match others.into_iter().find(|c| only.contains(*c)) {
            Some(other) => Err(self.fail(
                Some(1),
                format!(
                    "the header is one name, `{}`: the fields seem to be separated by another delimiter; declare \
                     `delimiter = {:?}`",
                    only.replace('\t', " "),
                    other.to_string()
                ),
            )),
            None => Ok(()),
        }
    }

    /// The rows of the file from its beginning.
    fn csv_rows(&self) -> Result<csv::Reader<Text>, ReferenceError> {
        let text = self.text()?;
        let mut rows = csv::ReaderBuilder::new();
        let rows = rows.buffer_capacity(CHUNK);
        Ok(rows.delimiter(self.reference.delimiter).from_reader(text))
    }

    /// Reads the next row; `false` at the end.
    fn next_row(
        &self,
        rows: &mut csv::Reader<Text>,
        row: &mut csv::StringRecord,
    ) -> Result<bool, ReferenceError> {
        rows.get_mut().begin_row();
        let read = rows.read_record(row);
        read.map_err(|error| self.wrong_row(&error))
    }

    /// The error of a row that cannot be read.
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

    /// The line of a row of CSV. The position that the reader gives is before the blank lines that it skips, so the
    /// file is read once more up to there.
    pub(super) fn line_at(&self, position: &csv::Position) -> u64 {
        let after = || -> io::Result<u64> {
            let mut text = self.text().map_err(io::Error::other)?;
            text.without_rows();
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

    /// Whether a cell is a spelling of NULL.
    fn is_null(&self, value: &str) -> bool {
        self.reference.null.iter().any(|spelling| spelling == value)
    }
}
