//! What some reader of the tables could not read, or reads slowly. Reads the log, never writes.
//!
//! ```text
//! configuration, SQL ──▶ columns of the tables to come ──▶ refused before anything is read
//! log ──▶ described tables, state ──────────────────────▶ Linted
//! ```

use arrow::datatypes::{Field, Schema};
use serde::Serialize;

use super::tables::described;
use super::{Doing, RunError, stores, tables};
use crate::catalog::lint::{self, Finding};
use crate::catalog::{TableDefinition, TableDescription};
use crate::config::{Job, Reader};
use crate::lake::Lake;
use crate::ledger::State;
use crate::plan;

/// What was found of the tables of a lake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Linted {
    /// The URL of the lake.
    pub lake: String,
    /// The last commit of the lake; 0 before the first.
    pub last_commit: u64,
    /// The readers whose rules were looked at.
    pub readers: Vec<Reader>,
    /// In the order of tables.
    pub findings: Vec<Finding>,
}

/// Looks at every table of the log with the eyes of each reader.
///
/// # Errors
/// A store that does not answer, a log that cannot be read.
pub fn lint(job: &Job) -> Doing<'_, Linted> {
    Box::pin(async move {
        let readers = job.readers.clone().unwrap_or_else(Reader::usual);
        let lake = Lake::open(&job.lake, &stores(job), tables(job)).await?;
        let mut findings = Vec::new();
        for table in &described(job, &lake)? {
            let fields = table.columns.iter();
            let fields = fields.map(|column| {
                Field::new(&column.name, column.kind.arrow(table.timestamp_unit), true)
            });
            let schema = Schema::new(fields.collect::<Vec<_>>());
            findings.extend(lint::types(&table.name, &schema, &readers));
            findings.extend(lint::names(table, &readers));
            findings.extend(lint::sizes(table, &readers));
            findings.extend(elsewhere(table, lake.state()));
        }
        findings.extend(lacking(job, lake.state()));
        findings.sort_by(|a, b| (&a.table, !a.unreadable).cmp(&(&b.table, !b.unreadable)));
        Ok(Linted {
            lake: lake.root().to_owned(),
            last_commit: lake.state().last,
            readers,
            findings,
        })
    })
}

/// Refuses tables that a reader cannot read that the configuration names.
///
/// # Errors
/// The first column that such a reader cannot read.
pub fn refuse<'t>(
    job: &Job,
    tables: impl IntoIterator<Item = &'t TableDefinition>,
) -> Result<(), RunError> {
    let readers = job.readers.as_deref().unwrap_or_default();
    let mut found = tables
        .into_iter()
        .flat_map(|table| lint::types(&table.name, &table.schema, readers));
    match found.next() {
        Some(finding) => Err(RunError::Unreadable(Box::new(finding))),
        None => Ok(()),
    }
}

/// Files in folders of other columns than those of the table.
fn elsewhere(table: &TableDescription, state: &State) -> Option<Finding> {
    let own = table.partition_columns.iter().map(|column| &column.name);
    let own: Vec<&String> = own.collect();
    let files = state.table(&table.name).filter(|file| {
        let columns = file.entry.partition.iter().map(|(column, _)| column);
        !columns.eq(own.iter().copied())
    });
    let files = files.count();
    (files > 0).then(|| Finding {
        reader: None,
        table: table.name.clone(),
        column: None,
        unreadable: true,
        reason: format!("{files} of its files lie in folders of other columns than the rest"),
        remedy: "finish the rebuild: it moves the rows, and the run removes the files".to_owned(),
    })
}

/// Columns that came after some files of a source.
fn lacking(job: &Job, state: &State) -> Vec<Finding> {
    let sources = job.sources.iter();
    let found = sources.flat_map(|source| {
        let known = state.sources.get(&source.name);
        let settings = known.and_then(|known| known.settings.as_ref());
        let unfilled = settings.and_then(|settings| settings.unfilled.as_ref());
        let dates = plan::null_dates(unfilled, &plan::published(source, state));
        dates.into_iter().map(|(column, dates)| Finding {
            reader: None,
            table: source.name.clone(),
            column: Some(column),
            unreadable: false,
            reason: format!(
                "it came after the files of {dates} dates, and readers that take the columns from the files do not \
                 see it there"
            ),
            remedy: format!(
                "`rawmart rebuild --source {}` writes it into all files; docs/readers.md has a line for each reader",
                source.name
            ),
        })
    });
    found.collect()
}
