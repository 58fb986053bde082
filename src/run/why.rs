//! Says what became of events and records. Reads, never writes, and takes no lock.
//!
//! ```text
//! column=value … ─┐                    ┌─▶ rows of <source>, _duplicates, _rejects ─▶ first ten, and their number
//! OBJECT RECORD ──┴─▶ one state of ────┤      └─ each duplicate ─▶ the event that displaced it ─▶ … ─▶ a kept one
//!                     the log          └─▶ no row: what the log and the raw prefix say of it
//! ```

mod absent;
mod fates;
mod find;

pub use absent::{Absent, AbsentRecord};
pub use fates::{CommitOf, Displacement, Fate, Verdict};

use serde::Serialize;

use super::{Doing, stores, tables};
use crate::absorb::SpillFolder;
use crate::catalog::SourceTables;
use crate::config::{ConfigError, Job};
use crate::event::RAW_OBJECT;
use crate::lake::Lake;
use crate::names::nearest;
use crate::publish::Local;
use fates::Teller;
use find::{Condition, Finder};

/// The most events or records whose fate is told.
const TOLD: usize = 10;

/// What is asked of `why`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhyAsked {
    /// Every row whose columns have these values.
    Columns(Vec<(String, String)>),
    /// One record of a raw object, which is named by its identity or its URL.
    Record {
        /// The raw object.
        object: String,
        /// The number of the record, from 1.
        record: i64,
    },
}

/// What became of the events and records that were asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Why {
    /// The root of the lake.
    pub lake: String,
    /// The last commit of the lake; 0 before the first.
    pub last_commit: u64,
    /// What was asked, in words.
    pub asked: String,
    /// The bytes of data files that were read, without their footers.
    pub bytes_read: u64,
    /// The number of rows that match.
    pub found: u64,
    /// The first of them: events in their order, then rejects.
    pub matches: Vec<Match>,
    /// Why no row matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absent: Option<Absent>,
}

/// One row that matches, and what displaced it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Match {
    /// The row itself, then the event that displaced it, and so on.
    pub chain: Vec<Fate>,
    /// Whether the chain is told to its end, which is a kept event or a reject.
    pub complete: bool,
}

/// Says what became of the events and records that are asked for.
///
/// # Errors
/// A column that no table has, a value that is none of its column's type; a store that does not answer; a log or a
/// data file that cannot be read.
pub fn why<'a>(job: &'a Job, asked: &'a WhyAsked) -> Doing<'a, Why> {
    Box::pin(async move {
        let settings = stores(job);
        let spill = SpillFolder::new(job)?;
        let lake = Lake::open(&job.lake, &settings, tables(job)).await?;
        let known = SourceTables::of(job, &lake.state().columns);
        let asked = match asked {
            WhyAsked::Record { object, record } => WhyAsked::Record {
                object: absent::identity(job, object),
                record: *record,
            },
            WhyAsked::Columns(columns) => {
                refuse_unknown(columns, &known)?;
                WhyAsked::Columns(columns.clone())
            }
        };
        let finder = Finder::new(job, &lake, &known, spill.path(), &Local::default())?;
        let found = finder.find(&conditions(&asked), TOLD).await?;
        let teller = Teller::new(&lake, &finder);
        let mut matches = Vec::with_capacity(found.first.len());
        for row in found.first {
            matches.push(teller.chain(row).await?);
        }
        teller.note_commits(&mut matches).await?;
        let absent = match found.count {
            0 => Some(absent::explain(job, &lake, &finder, &teller, &asked).await?),
            _ => None,
        };
        Ok(Why {
            lake: lake.root().to_owned(),
            last_commit: lake.state().last,
            asked: in_words(&asked),
            bytes_read: finder.bytes_read(),
            found: found.count,
            matches,
            absent,
        })
    })
}

fn conditions(asked: &WhyAsked) -> Vec<Condition> {
    match asked {
        WhyAsked::Columns(columns) => {
            let columns = columns.iter();
            columns
                .map(|(column, value)| Condition::new(column, value))
                .collect()
        }
        WhyAsked::Record { object, record } => Condition::record(object, *record),
    }
}

fn in_words(asked: &WhyAsked) -> String {
    match asked {
        WhyAsked::Columns(columns) => {
            let columns = columns.iter();
            let equations: Vec<String> = columns
                .map(|(column, value)| format!("{column} = {value}"))
                .collect();
            equations.join(" and ")
        }
        WhyAsked::Record { object, record } => format!("record {record} of {object}"),
    }
}

/// Refuses columns that no table of a source has, or that no table has together.
fn refuse_unknown(columns: &[(String, String)], known: &[SourceTables]) -> Result<(), ConfigError> {
    let tables = || known.iter().flat_map(SourceTables::all);
    let has = |fields: &[String], name: &str| fields.iter().any(|field| field == name);
    let of_tables: Vec<Vec<String>> = tables()
        .map(|table| {
            let schema = table.full_schema();
            schema.fields().iter().map(|f| f.name().clone()).collect()
        })
        .collect();
    let given = |message: String| ConfigError::Given {
        name: "why".to_owned(),
        message,
    };
    let unknown = columns
        .iter()
        .find(|(name, _)| !of_tables.iter().any(|fields| has(fields, name)));
    if let Some((name, _)) = unknown {
        let mut names: Vec<&str> = of_tables.iter().flatten().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        return Err(given(match nearest(name, names.iter().copied()) {
            Some(near) => format!("there is no column `{name}`; is it `{near}`?"),
            None => format!(
                "there is no column `{name}`; the columns are {}",
                names.join(", ")
            ),
        }));
    }
    let together = |fields: &Vec<String>| columns.iter().all(|(name, _)| has(fields, name));
    if !of_tables.iter().any(together) {
        let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        return Err(given(format!(
            "no table has all of the columns {}; `rawmart tables` lists the columns of each table",
            names.join(", ")
        )));
    }
    Ok(())
}

/// The raw object that is asked for by its column.
fn object_of(asked: &WhyAsked) -> Option<&str> {
    match asked {
        WhyAsked::Record { object, .. } => Some(object),
        WhyAsked::Columns(columns) => {
            let mut columns = columns.iter();
            let column = columns.find(|(name, _)| name == RAW_OBJECT);
            column.map(|(_, value)| value.as_str())
        }
    }
}
