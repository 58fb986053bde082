//! Answers a query over the tables of a lake and over references. Reads, never writes.
//!
//! ```text
//! log ──▶ tables ─┐
//! references ─────┴─▶ Query ──▶ columns, then rows, batch by batch
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;

use super::marts::failed_below;
use super::{Doing, RunError, stores, tables};
use crate::absorb::SpillFolder;
use crate::catalog::{TableDescription, describe};
use crate::config::Job;
use crate::engine::Engine;
use crate::lake::Lake;
use crate::mart::{self, Mart, MartError, Query, ReferenceTable, guarded, read_references};
use crate::publish::{Local, WriteError};

/// The SQL of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sql {
    /// The SELECT itself.
    Text(String),
    /// The path of a file with the SELECT.
    File(PathBuf),
}

/// A part of an answer.
pub enum Part<'a> {
    /// The columns, before any row.
    Columns {
        /// A folder for files of this command.
        folder: &'a Path,
        /// The names and types.
        schema: &'a SchemaRef,
    },
    /// The next rows.
    Rows(&'a RecordBatch),
    /// There are no more rows.
    End,
}

/// Takes the parts of an answer. An error is one of writing to the folder.
pub type Take<'a> = dyn FnMut(Part<'_>) -> io::Result<()> + 'a;

/// Answers a query from one state of the lake, and gives each part of the answer to `take`.
///
/// # Errors
/// A store that does not answer, a log that cannot be read, SQL that cannot be evaluated, a full spill folder.
pub fn query<'a>(job: &'a Job, sql: &'a Sql, take: &'a mut Take<'a>) -> Doing<'a, ()> {
    Box::pin(async move {
        let settings = stores(job);
        let spill = SpillFolder::new(job)?;
        let lake = Lake::open(&job.lake, &settings, tables(job)).await?;
        let described = describe(job, lake.state(), &BTreeMap::new(), str::to_owned);
        let described = described.map_err(|error| RunError::Defect(error.to_string()))?;
        let query = parse(job, sql, &described)?;
        let used: Vec<&str> = query.inputs().iter().map(String::as_str).collect();
        let references = read_references(job, &used, spill.path(), &settings).await?;
        let engine = Engine::new(
            job.memory / 4 * 3,
            job.threads,
            &spill.path().join("engine"),
        )?;
        let definitions = described.iter().map(TableDescription::definition);
        let snapshot = lake.snapshot(&engine, definitions, &Local::default())?;
        let mut inputs = Vec::new();
        for name in query.inputs() {
            let table = match references.get(name) {
                Some(reference) => reference.table(name),
                None => snapshot.table(snapshot.definition(name)?, &|_| true),
            };
            let table = table.map_err(|error| MartError::running(query.mart(), &error))?;
            inputs.push((name.clone(), table));
        }
        let folder = spill.path();
        let unwritten = |source| WriteError::Spill {
            folder: folder.display().to_string(),
            source,
        };
        let advised = |error: RunError| advised(job, &references, query.mart(), error);
        let answer = mart::answer(&engine, &query, &inputs).await;
        let (schema, mut rows) = answer.map_err(|error| advised(error.into()))?;
        let schema = &schema;
        take(Part::Columns { folder, schema }).map_err(unwritten)?;
        guarded(query.mart(), async {
            loop {
                let next = rows.try_next().await.map_err(|error| {
                    failed_below(lake.store(), folder, &error)
                        .unwrap_or_else(|| MartError::running(query.mart(), &error).into())
                })?;
                match next {
                    Some(batch) => take(Part::Rows(&batch)).map_err(unwritten)?,
                    None => return Ok(take(Part::End).map_err(unwritten)?),
                }
            }
        })
        .await
        .map_err(advised)
    })
}

/// The error of a query with the advice on inferred types of references, if it may come from them.
fn advised(
    job: &Job,
    references: &BTreeMap<String, ReferenceTable>,
    query: &Mart,
    error: RunError,
) -> RunError {
    let RunError::Mart(mut error) = error else {
        return error;
    };
    let read = job.references.iter().filter_map(|reference| {
        let table = references.get(&reference.name)?;
        Some((reference, table.schema.as_ref()))
    });
    let advice = mart::of_inferred_types(read, &query.sql, &error.to_string());
    error.hint = match error.hint {
        Some(hint) => Some(hint + &advice),
        None => advice.strip_prefix("; ").map(str::to_owned),
    };
    RunError::Mart(error)
}

/// The query, checked against the names of the tables and references.
fn parse(job: &Job, sql: &Sql, tables: &[TableDescription]) -> Result<Query, MartError> {
    let references = job.references.iter();
    let references = references.map(|reference| reference.name.as_str());
    let known = tables.iter().map(|table| table.name.as_str());
    let known: BTreeSet<&str> = known.chain(references).collect();
    match sql {
        Sql::Text(text) => Query::new(PathBuf::from("query"), text.clone(), &known),
        Sql::File(file) => Query::of_file(file, &known),
    }
}
