//! The rows that break a claim: found with the SELECT of the claim, counted, and the first ten kept.

use std::collections::BTreeMap;

use arrow::array::Array;
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;

use super::claims::Claim;
use super::query::{Query, answer};
use super::{Input, MartError};
use crate::engine::Engine;

/// The most rows that are told of a claim that does not hold.
const TOLD: usize = 10;
/// The most characters of a cell that are told.
const SHOWN: usize = 200;

impl Claim {
    /// Makes an error one of this claim, with the place of it.
    fn blamed(&self, mut error: MartError) -> MartError {
        error.message = format!("the claim `{}`: {}", self.name, error.message);
        error.line = self.line.or(error.line);
        error
    }

    /// The error of a claim whose SELECT cannot be evaluated.
    pub fn failing(&self, error: &DataFusionError) -> MartError {
        match self.query() {
            Ok(query) => self.blamed(MartError::running(query.mart(), error)),
            Err(error) => error,
        }
    }

    fn query(&self) -> Result<Query, MartError> {
        let known = self.inputs.iter().map(String::as_str).collect();
        // The SELECT stands on the line of the claim, so that an error has the right line.
        let lines = "\n".repeat(self.line.map_or(0, |line| line - 1));
        let query = Query::new(self.file.clone(), lines + &self.sql, &known);
        query.map_err(|error| self.blamed(error))
    }

    /// The rows that break the claim, over `inputs`, which holds all of [`Claim::inputs`].
    ///
    /// # Errors
    /// The SELECT cannot be planned. A failure while rows flow is an error of the stream; [`Claim::failing`] makes it
    /// an error of the claim.
    pub async fn breaking(
        &self,
        engine: &Engine,
        inputs: &[Input],
    ) -> Result<(SchemaRef, SendableRecordBatchStream), MartError> {
        let query = self.query()?;
        let rows = answer(engine, &query, inputs).await;
        rows.map_err(|error| self.blamed(error))
    }
}

/// The rows that break a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The number of rows.
    pub rows: u64,
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The first ten rows in the order of their text. `None` is NULL.
    pub sample: Vec<Vec<Option<String>>>,
}

impl Broken {
    /// Counts the rows of a stream and keeps the first ten. `None` where there is no row.
    ///
    /// # Errors
    /// The stream fails.
    pub async fn of(
        schema: &SchemaRef,
        mut rows: SendableRecordBatchStream,
    ) -> Result<Option<Self>, DataFusionError> {
        let mut count = 0;
        let mut first: BTreeMap<Vec<Option<String>>, usize> = BTreeMap::new();
        let options = FormatOptions::default();
        while let Some(batch) = rows.try_next().await? {
            count += batch.num_rows() as u64;
            let columns = batch.columns().iter();
            let columns = columns.map(|column| ArrayFormatter::try_new(column, &options));
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            for row in 0..batch.num_rows() {
                let mut cells = Vec::with_capacity(columns.len());
                for (formatter, column) in columns.iter().zip(batch.columns()) {
                    let text = formatter.value(row).try_to_string()?;
                    cells.push((!column.is_null(row)).then(|| cut(text)));
                }
                *first.entry(cells).or_default() += 1;
                if first.len() > TOLD {
                    first.pop_last();
                }
            }
        }
        let names = schema.fields().iter().map(|field| field.name().clone());
        let sample = first
            .into_iter()
            .flat_map(|(row, copies)| std::iter::repeat_n(row, copies.min(TOLD)));
        Ok((count > 0).then(|| Self {
            rows: count,
            columns: names.collect(),
            sample: sample.take(TOLD).collect(),
        }))
    }

    /// A row of the sample on one line, such as `(dt=2019-04-01, n=NULL)`.
    pub fn row(columns: &[String], cells: &[Option<String>]) -> String {
        let cells = columns.iter().zip(cells).map(|(name, cell)| {
            let cell = cell.as_deref().unwrap_or("NULL");
            let mut text = format!("{name}=");
            for character in cell.chars() {
                match character.is_control() {
                    true => text.extend(character.escape_debug()),
                    false => text.push(character),
                }
            }
            text
        });
        format!("({})", cells.collect::<Vec<_>>().join(", "))
    }
}

fn cut(text: String) -> String {
    match text.char_indices().nth(SHOWN) {
        None => text,
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

impl MartError {
    /// The error of a claim that rows break.
    pub fn broken(claim: &Claim, broken: &Broken) -> Self {
        let rows = match broken.rows {
            1 => "1 row breaks".to_owned(),
            rows => format!("{rows} rows break"),
        };
        let such = broken.sample.first().map_or_else(String::new, |row| {
            format!(", such as {}", Broken::row(&broken.columns, row))
        });
        let message = format!("{rows} `{}`{such}", claim.name);
        Self::new(&claim.file, claim.line, message)
            .hint("correct the SELECT, or the claim if it claims too much")
    }
}
