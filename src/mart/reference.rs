//! Reference tables: files that marts join, such as exports of a database.
//!
//! ```text
//! file ──▶ text in its encoding ──▶ first pass: what types do the columns have?
//!                              └──▶ second pass: cells by column ──▶ their types ──▶ batch after batch
//! (Parquet: its own batches, cast)
//! ```
//!
//! A file may be of any size, because no more than a batch of it is held. A value that does not fit is an error with
//! its line, never a NULL.

mod advice;
mod cells;
mod csv_file;
mod infer;
mod ndjson_file;
mod parquet_file;
mod text;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use crate::config::{Reference, ReferenceFormat};
use crate::event::ColumnType;
use crate::names::nearest;
pub use advice::of_inferred_types;
use text::{Text, Unreadable};

/// The most rows of a batch.
const BATCH_ROWS: usize = 8192;
/// The most bytes of a batch, as they are in the file.
const BATCH_BYTES: usize = 2 << 20;
/// The most columns that the file may have.
const MOST_COLUMNS: usize = 100_000;
/// The most columns that are read where none are declared. Each column is held, cast and spilled on its own.
const MOST_READ: usize = 2_000;

/// Why a reference cannot be read, with the file and, where it is known, the line.
#[derive(Debug, thiserror::Error)]
#[error("reference `{name}`: {url}{}: {message}", line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct ReferenceError {
    /// The name of the reference.
    pub name: String,
    /// The URL of its file.
    pub url: String,
    /// The line in the file, from 1.
    pub line: Option<u64>,
    /// What is wrong.
    pub message: String,
}

/// A function that takes the rows of a reference, a batch at a time.
pub type Take<'a, E> = dyn FnMut(&SchemaRef, RecordBatch) -> Result<(), E> + 'a;

/// Reads the file of a reference, which lies at `file` on this disk, and hands its rows to `take`. The result is the
/// schema of the rows. Names of columns are in lower case.
///
/// Inferred types are `bigint`, `double`, `boolean` and, in CSV, `date` for days such as 2019-04-02; else `string`. Digits
/// that begin with a zero are an id and stay a string.
///
/// # Errors
/// A wrong encoding, row or value (with its line), a row of more than 16 MiB, a declared column that the file lacks,
/// two columns of one name, or an error of `take`.
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

/// One reading of a file.
struct Reader<'a> {
    reference: &'a Reference,
    file: &'a Path,
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

    /// The names of the columns in lower case. Each may occur once.
    fn names<'b>(
        &self,
        names: impl Iterator<Item = &'b str>,
    ) -> Result<Vec<String>, ReferenceError> {
        let names: Vec<String> = names.map(|name| name.trim().to_lowercase()).collect();
        let mut seen = HashSet::new();
        for (i, name) in names.iter().enumerate() {
            if name.is_empty() {
                return Err(self.fail(Some(1), format!("column {} has no name", i + 1)));
            }
            if !seen.insert(name) {
                return Err(self.fail(
                    Some(1),
                    format!(
                        "there are two columns `{name}`; names must differ in more than capitals"
                    ),
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

    /// The error of a file with too many columns.
    fn many_columns(&self) -> ReferenceError {
        let most = self.most_columns();
        let remedy = match self.reference.columns {
            Some(_) => "",
            None => ": declare the columns that marts read, in `columns` of the reference",
        };
        self.fail(None, format!("it has more than {most} columns{remedy}"))
    }

    /// For each declared column, its place among the columns of the file.
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

    /// The error of a declared column that the file lacks.
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

    /// The text of the file, from its beginning.
    fn text(&self) -> Result<Text, ReferenceError> {
        Text::open(self.file, self.reference.encoding).map_err(|error| self.unreadable(&error))
    }

    /// The error of a file or text that cannot be read.
    fn unreadable(&self, error: &io::Error) -> ReferenceError {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        let line = match inner {
            Some(Unreadable::Bytes { line, .. }) => Some(*line),
            _ => None,
        };
        self.fail(line, error.to_string())
    }
}
