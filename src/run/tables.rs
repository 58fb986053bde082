//! Describes the tables of a lake. Writes nothing.
//!
//! ```text
//! log ──▶ State ─┐
//! SQL of marts  ─┴─▶ [TableDescription] ──▶ Tables, or the DDL of one dialect
//! ```

use serde::Serialize;

use super::{Doing, RunError};
use crate::catalog::{TableDescription, ddl, describe};
use crate::config::{ConfigError, Job};
use crate::lake::Lake;
use crate::mart;

const DAY_MS: u64 = 86_400_000;

/// The tables of a lake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tables {
    /// The root of the lake.
    pub lake: String,
    /// The last commit of the lake; 0 before the first.
    pub last_commit: u64,
    /// The tables, sorted by name.
    pub tables: Vec<TableDescription>,
}

/// The arguments of `rawmart ddl`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DdlAsked {
    /// The reader that runs the statements.
    pub dialect: ddl::Dialect,
    /// The database or schema of the tables.
    pub database: String,
    /// The names of tables; empty means all tables.
    pub tables: Vec<String>,
    /// Athena: names every partition, in the place of partition projection.
    pub partitions: bool,
    /// Only the statements for partitions that were written since.
    pub since: Option<ddl::Since>,
    /// Hive before version 4: timestamps are declared as `bigint`.
    pub hive_3: bool,
}

/// Describes every table of a lake.
///
/// # Errors
/// A store that does not answer, a log that cannot be read.
pub fn describe_tables(job: &Job) -> Doing<'_, Tables> {
    Box::pin(async move {
        let lake = Lake::open(&job.lake, &super::stores(job), super::tables(job)).await?;
        Ok(Tables {
            lake: lake.root().to_owned(),
            last_commit: lake.state().last,
            tables: described(job, &lake)?,
        })
    })
}

/// The tables of an open lake, in the order of names.
///
/// # Errors
/// The log holds a column type that this version does not know.
pub fn described<P>(job: &Job, lake: &Lake<P>) -> Result<Vec<TableDescription>, RunError> {
    let comments = job.marts.as_deref().map(mart::comments);
    let comments = comments.unwrap_or_default();
    let tables = describe(job, lake.state(), &comments, |key| lake.store().url_of(key));
    tables.map_err(|error| RunError::Defect(error.to_string()))
}

/// The statements that make the tables of a lake known to a reader.
///
/// # Errors
/// See [`describe_tables()`]; an unknown table.
pub fn ddl<'a>(job: &'a Job, asked: &'a DdlAsked) -> Doing<'a, ddl::Script> {
    Box::pin(async move {
        let Tables { mut tables, .. } = describe_tables(job).await?;
        let unknown = asked
            .tables
            .iter()
            .find(|name| !tables.iter().any(|table| table.name == **name));
        if let Some(name) = unknown {
            let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
            return Err(ConfigError::Given {
                name: "--table".to_owned(),
                message: match names.as_slice() {
                    [] => format!("the lake has no table `{name}`; it has no commit yet"),
                    names => format!(
                        "the lake has no table `{name}`; its tables are {}",
                        names.join(", ")
                    ),
                },
            }
            .into());
        }
        if !asked.tables.is_empty() {
            tables.retain(|table| asked.tables.contains(&table.name));
        }
        let options = ddl::Options {
            dialect: asked.dialect,
            database: asked.database.clone(),
            partitions: asked.partitions,
            since: asked.since,
            hive_3: asked.hive_3,
            days_ahead: days_ahead(job),
        };
        Ok(ddl::script(&tables, &options))
    })
}

/// The number of days after today, in UTC, that an event may be dated: the number that a source accepts and one
/// more, because the day may begin earlier in the zone of the lake.
fn days_ahead(job: &Job) -> u32 {
    let ahead = job
        .sources
        .iter()
        .map(|source| source.decode.accept.ahead_ms);
    let ahead = ahead.max().unwrap_or(0).max(0).unsigned_abs();
    u32::try_from(ahead.div_ceil(DAY_MS) + 1).unwrap_or(u32::MAX)
}
