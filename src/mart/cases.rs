//! Test cases of marts: small inputs in files, and the rows that a mart makes of them.
//!
//! ```text
//! fixtures/marts/<mart>/<case>/<table>.csv ──▶ typed rows, the rest NULL ──▶ the mart, date by date ──▶ rows ─┐
//! fixtures/marts/<mart>/<case>/expected.csv ──▶ typed rows ──────────────────────────── compared as multisets ─┴─▶ Unlike
//! ```
//!
//! A case is evaluated by the code that evaluates a mart of a lake. It needs no lake.

mod differences;
mod fixture;

pub use differences::{ChangedCell, ChangedRow, Unlike};
pub use fixture::{Case, cases, refuse_unknown_cases};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use chrono::NaiveDate;
use datafusion::common::DataFusionError;
use futures::TryStreamExt;

use super::{Broken, Claim, Input, Mart, MartDate, MartError, Reach, evaluate, guarded};
use crate::catalog::{TableDefinition, memory_table};
use crate::engine::Engine;
use crate::layout::{self, DATE};

/// The rows of one table of a case.
#[derive(Debug, Clone)]
pub struct Rows {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl Rows {
    /// The number of rows.
    pub fn count(&self) -> u64 {
        let rows = self.batches.iter().map(RecordBatch::num_rows);
        rows.sum::<usize>() as u64
    }

    fn table(&self, name: &str) -> Result<Input, DataFusionError> {
        let table = memory_table(Arc::clone(&self.schema), self.batches.clone())?;
        Ok((name.to_owned(), table))
    }

    /// The date of each row of a batch. `None` is NULL, or no date.
    fn dates(batch: &RecordBatch) -> Vec<Option<NaiveDate>> {
        let Some(column) = batch.column_by_name(DATE) else {
            return vec![None; batch.num_rows()];
        };
        let Some(column) = column.as_string_opt::<i32>() else {
            return vec![None; batch.num_rows()];
        };
        column
            .iter()
            .map(|value| {
                let value = value?.to_owned();
                layout::date_of(&[(DATE.to_owned(), Some(value))])
            })
            .collect()
    }

    /// The rows whose date is `wanted`.
    fn of_dates(
        &self,
        wanted: impl Fn(Option<NaiveDate>) -> bool,
    ) -> Result<Self, DataFusionError> {
        let batches = self.batches.iter().map(|batch| {
            let mask = Self::dates(batch)
                .into_iter()
                .map(|date| Some(wanted(date)));
            Ok(filter_record_batch(batch, &mask.collect::<BooleanArray>())?)
        });
        Ok(Self {
            schema: Arc::clone(&self.schema),
            batches: batches.collect::<Result<_, DataFusionError>>()?,
        })
    }
}

/// The tables of a case, by name.
pub type Tables = BTreeMap<String, Rows>;

/// The rows that a mart makes of the tables of a case, in the order of its files.
///
/// # Errors
/// The error with which the mart would fail over a lake with these tables.
pub async fn made(
    engine: &Engine,
    mart: &Mart,
    definition: &TableDefinition,
    tables: &Tables,
) -> Result<Rows, MartError> {
    let mut made = Rows {
        schema: definition.full_schema(),
        batches: Vec::new(),
    };
    if mart.reach.is_empty() {
        made.batches = rows(engine, mart, tables, None).await?;
        return Ok(made);
    }
    let of_dates = mart.reach.keys().filter_map(|input| tables.get(input));
    let all: BTreeSet<NaiveDate> = of_dates
        .flat_map(|rows| rows.batches.iter().flat_map(Rows::dates))
        .flatten()
        .collect();
    for date in &all {
        let dates = &all;
        let partition = Some(MartDate { date: *date, dates });
        for batch in rows(engine, mart, tables, partition).await? {
            made.batches.push(of_date(mart, *date, &batch)?);
        }
    }
    Ok(made)
}

/// Evaluates a mart, or one date of it, over the rows in its reach.
async fn rows(
    engine: &Engine,
    mart: &Mart,
    tables: &Tables,
    partition: Option<MartDate<'_>>,
) -> Result<Vec<RecordBatch>, MartError> {
    let failing = |error: DataFusionError| MartError::running(mart, &error);
    let mut inputs = Vec::new();
    for input in &mart.inputs {
        let Some(rows) = tables.get(input) else {
            continue;
        };
        let reach = mart.reach.get(input).zip(partition);
        let rows = match reach {
            None => rows.clone(),
            Some((reach, MartDate { date, .. })) => {
                let wanted = rows.of_dates(|dt| reach.holds(date, dt));
                wanted.map_err(failing)?
            }
        };
        inputs.push(rows.table(input).map_err(failing)?);
    }
    guarded(mart, async {
        let (_, stream) = evaluate(engine, mart, &inputs, partition, false).await?;
        stream.try_collect().await.map_err(failing)
    })
    .await
}

/// The rows of a date among the rows that were made for it.
fn of_date(mart: &Mart, date: NaiveDate, batch: &RecordBatch) -> Result<RecordBatch, MartError> {
    let dates = Rows::dates(batch);
    for (row, found) in dates.iter().enumerate() {
        let dt = batch.column_by_name(DATE);
        let dt = dt.and_then(|column| column.as_string_opt::<i32>());
        let dt = dt
            .filter(|column| column.is_valid(row))
            .map(|column| column.value(row));
        mart.belongs(date, *found, dt)?;
    }
    let mask: BooleanArray = dates
        .iter()
        .map(|found| Some(*found == Some(date)))
        .collect();
    filter_record_batch(batch, &mask).map_err(|error| MartError::running(mart, &error.into()))
}

impl Mart {
    /// Whether a row that was made for `date` belongs to it. `found` is the date of the row, which has the value `dt`.
    /// A row of another date is left out where the mart reads other dates.
    ///
    /// # Errors
    /// A row of another date, where the mart reads this date alone; a row without a date.
    pub fn belongs(
        &self,
        date: NaiveDate,
        found: Option<NaiveDate>,
        dt: Option<&str>,
    ) -> Result<bool, MartError> {
        let same_only = self.reach.values().all(|reach| *reach == Reach::SAME);
        match found {
            Some(of) if of == date => Ok(true),
            Some(other) if same_only => Err(MartError::of_another_date(self, date, other)),
            Some(_) => Ok(false),
            None => Err(MartError::of_no_date(self, date, dt)),
        }
    }
}

/// The rows that break a claim of a mart, where the mart has these rows.
///
/// # Errors
/// The claim cannot be evaluated.
pub async fn broken(
    engine: &Engine,
    mart: &Mart,
    claim: &Claim,
    made: &Rows,
    tables: &Tables,
) -> Result<Option<Broken>, MartError> {
    let mut inputs = Vec::new();
    for input in &claim.inputs {
        let rows = match *input == mart.name {
            true => Some(made),
            false => tables.get(input),
        };
        if let Some(rows) = rows {
            inputs.push(rows.table(input).map_err(|error| claim.failing(&error))?);
        }
    }
    guarded(mart, async {
        let (schema, rows) = claim.breaking(engine, &inputs).await?;
        let broken = Broken::of(&schema, rows).await;
        broken.map_err(|error| claim.failing(&error))
    })
    .await
}
