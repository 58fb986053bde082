//! `rawmart test`: marts over small inputs in files, and marts of a lake over more dates than they say that they read.
//! No lake is written.
//!
//! ```text
//! fixtures/marts/<mart>/<case>/ ──▶ rows of the mart ──▶ as expected? its claims hold? ──▶ Tested
//! lake ──▶ each date over its reach, and over everything ──▶ the same rows? ─────────────▶ Reached
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use serde::Serialize;

use super::chosen::{graph, marts_alone};
use super::look::{Checked, Looked};
use super::marts::{ReachedMart, Reaching};
use super::{CheckSummary, Doing, RunError, stores, tables};
use crate::absorb::SpillFolder;
use crate::catalog::TableDefinition;
use crate::config::Job;
use crate::lake::Lake;
use crate::ledger::State;
use crate::mart::{self, Case, Graph, Mart, Unlike};

/// The folder of the cases of all marts, beside the configuration.
const CASES: &str = "fixtures/marts";

/// Which marts are tested, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestAsked {
    /// Names and folders of marts, as [`Graph::choose`] reads them; all marts where there are none.
    pub names: Vec<String>,
    /// Whether the rows that are made become the expected rows.
    pub bless: bool,
}

/// The results of all cases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tested {
    /// The folder of the cases.
    pub folder: String,
    /// The cases, by mart and name.
    pub cases: Vec<Tried>,
    /// The chosen marts that have no case.
    pub untested: Vec<String>,
}

/// The result of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// The name of the mart.
    pub mart: String,
    /// The name of the case.
    pub case: String,
    /// What became of it.
    pub outcome: TryOutcome,
    /// The number of rows that the mart makes.
    pub rows: u64,
    /// Why the case failed, where it is not for its rows or claims alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The differences from the expected rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differences: Option<Unlike>,
    /// What became of the claims of the mart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checks: Option<CheckSummary>,
}

/// What became of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TryOutcome {
    /// The rows are as expected, and the claims hold.
    Passed,
    /// They are not.
    Failed,
    /// The rows were written as the expected ones, and the claims hold.
    Blessed,
}

impl Tested {
    /// The number of cases that failed.
    pub fn failed(&self) -> usize {
        let failed = self.cases.iter();
        failed
            .filter(|tried| tried.outcome == TryOutcome::Failed)
            .count()
    }
}

/// The comparison of every date over its reach with the same date over everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reached {
    /// The root of the lake.
    pub lake: String,
    /// The chosen marts that are built by date.
    pub reached: Vec<ReachedMart>,
}

impl Reached {
    /// The number of dates with other rows.
    pub fn differ(&self) -> usize {
        self.reached.iter().map(|mart| mart.differ.len()).sum()
    }
}

/// Tests the chosen marts on their cases.
///
/// # Errors
/// An unknown name; SQL or a file of a case that cannot be read; a reference that is not there.
pub fn test_marts<'a>(job: &'a Job, asked: &'a TestAsked) -> Doing<'a, Tested> {
    Box::pin(async move {
        let options = marts_alone();
        let checked = Checked::check(job, &options)?.without_sources();
        let chosen = graph(&checked, job)?.choose(&asked.names)?;
        let spill = SpillFolder::new(job)?;
        let state = State::default();
        let looked = Looked::look(job, checked, &state, spill.path(), &stores(job)).await?;
        let folder = job.file.parent().unwrap_or(Path::new("")).join(CASES);
        let mut tested = Tested {
            folder: folder.display().to_string(),
            cases: Vec::new(),
            untested: Vec::new(),
        };
        let Some(graph) = &looked.graph else {
            return Ok(tested);
        };
        mart::refuse_unknown_cases(&folder, graph)?;
        let testing = Testing::new(&looked, asked.bless);
        for (mart, definition) in graph.marts().iter().zip(&looked.mart_tables) {
            if !chosen.contains(&mart.name) {
                continue;
            }
            let cases = mart::cases(&folder, mart)?;
            if cases.is_empty() {
                tested.untested.push(mart.name.clone());
            }
            for case in cases {
                tested
                    .cases
                    .push(testing.one(mart, definition, case).await?);
            }
        }
        Ok(tested)
    })
}

/// Everything that all cases are tested with.
struct Testing<'a> {
    looked: &'a Looked<'a>,
    /// The columns of every table that a mart may read.
    schemas: BTreeMap<String, SchemaRef>,
    bless: bool,
}

impl<'a> Testing<'a> {
    fn new(looked: &'a Looked<'a>, bless: bool) -> Self {
        let definitions = looked.tables(&State::default()).into_iter();
        let mut schemas: BTreeMap<String, SchemaRef> = definitions
            .map(|table| (table.name.clone(), table.full_schema()))
            .collect();
        for (name, table) in &looked.references {
            schemas.insert(name.clone(), Arc::clone(&table.schema));
        }
        Self {
            looked,
            schemas,
            bless,
        }
    }

    /// Tests one case. A mart that fails is a case that fails.
    async fn one(
        &self,
        mart: &Mart,
        definition: &TableDefinition,
        mut case: Case,
    ) -> Result<Tried, RunError> {
        let mut tried = Tried {
            mart: mart.name.clone(),
            case: case.name.clone(),
            outcome: TryOutcome::Passed,
            rows: 0,
            error: None,
            differences: None,
            checks: None,
        };
        let tables = case.tables(mart, &self.schemas_of(mart))?;
        let engine = &self.looked.engine;
        let made = match mart::made(engine, mart, definition, &tables).await {
            Ok(made) => made,
            Err(error) => {
                tried.outcome = TryOutcome::Failed;
                tried.error = Some(error.to_string());
                return Ok(tried);
            }
        };
        tried.rows = made.count();
        if !mart.claims.is_empty() {
            let mut checks = CheckSummary::default();
            for claim in &mart.claims {
                match mart::broken(engine, mart, claim, &made, &tables).await {
                    Ok(broken) => checks.note(claim, broken),
                    Err(error) => tried.error = Some(error.to_string()),
                }
            }
            tried.checks = Some(checks);
        }
        if self.bless {
            case.bless(&made)?;
            tried.outcome = TryOutcome::Blessed;
        }
        let schema = definition.full_schema();
        match case.expected(&schema)? {
            None => {
                tried.error = Some(format!(
                    "{} has no expected.csv: `rawmart test --bless` writes what the mart makes now",
                    case.folder.display()
                ));
            }
            Some((expected, columns)) => {
                let keys = mart.claims.iter().map(|claim| &claim.key);
                let mut keys = keys.filter(|key| !key.is_empty());
                let key = keys.next().map_or(&[][..], Vec::as_slice);
                let unlike = Unlike::of(&made, &expected, &columns, key);
                tried.differences = unlike.map_err(|error| RunError::Defect(error.to_string()))?;
            }
        }
        let broken = tried.checks.as_ref().and_then(CheckSummary::error);
        if tried.error.is_some() || tried.differences.is_some() || broken.is_some() {
            tried.outcome = TryOutcome::Failed;
        }
        Ok(tried)
    }

    /// The columns of the tables that a mart and its claims read.
    fn schemas_of(&self, mart: &Mart) -> BTreeMap<String, SchemaRef> {
        let of_claims = mart.claims.iter().flat_map(|claim| &claim.inputs);
        let read: BTreeSet<&String> = mart.inputs.iter().chain(of_claims).collect();
        let schemas = self.schemas.iter();
        let schemas = schemas.filter(|(name, _)| read.contains(name) && **name != mart.name);
        schemas
            .map(|(name, schema)| (name.clone(), Arc::clone(schema)))
            .collect()
    }
}

/// Compares each date of the chosen marts over its reach with the same date over everything.
///
/// # Errors
/// An unknown name; a store that does not answer; a log or a file that cannot be read.
pub fn test_reach<'a>(job: &'a Job, names: &'a [String]) -> Doing<'a, Reached> {
    Box::pin(async move {
        let options = marts_alone();
        let checked = Checked::check(job, &options)?.without_sources();
        let chosen = graph(&checked, job)?.choose(names)?;
        let settings = stores(job);
        let spill = SpillFolder::new(job)?;
        let lake = Lake::open(&job.lake, &settings, tables(job)).await?;
        let looked = Looked::look(job, checked, lake.state(), spill.path(), &settings).await?;
        let reaching = Reaching::new(&looked, &lake, spill.path())?;
        let mut reached = Vec::new();
        for mart in looked.graph.iter().flat_map(Graph::marts) {
            if chosen.contains(&mart.name) && !mart.reach.is_empty() {
                reached.push(reaching.compare(mart).await?);
            }
        }
        Ok(Reached {
            lake: lake.root().to_owned(),
            reached,
        })
    })
}
