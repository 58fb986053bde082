//! The catalog follows the lake: in which order its tables are told of a commit.
//!
//! ```text
//! no database ─▶ create it
//! table: absent ──────────────▶ create it, told of commit 0 ─┐
//!        partitioned anew ────▶ delete it, create it ────────┤
//!        behind ─────────────────────────────────────────────┴▶ partitions: create, update, delete
//!                                                                 ─▶ the table, told of commit n, if it is unchanged
//!        same ─▶ nothing
//!        told of a commit that the lake has not had ─▶ read the log again
//!        of others ─▶ refused
//!        of this lake, and the log does not have it ─▶ delete it
//! ```
//!
//! # Contract
//!
//! The catalog is told of a commit after the commit is published and marked. The number of the commit is written into
//! the table last, so a table that says n has all partitions of commit n. A run that dies before leaves a lower number,
//! and the next run goes on from there. Two runs may tell the catalog at once: the update of the table is refused
//! to whoever has not seen the last one. That run reads the log once more and tells all of what it finds there, so an
//! older commit does not stay in the place of a newer one.
//!
//! A catalog that cannot be told does not stop a run.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::tables::described;
use super::{Context, tables};
use crate::catalog::TableDescription;
use crate::catalog::glue::{
    Glue, GlueError, Locations, PartitionInput, Partitions, Standing, Table, Wanted, is_of, judge,
    partitions_told, told,
};
use crate::config::{self, Job};
use crate::lake::{Lake, LakeError, Writing};
use crate::plan::{CatalogPlan, CatalogTable};
use crate::progress::Happened;
use crate::store::{StoreError, StoreErrorKind, StoreSettings, is_passing};

/// How often a table is told again that other runs have changed meanwhile.
const TRIES: usize = 5;

/// What the catalog was told by a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CatalogSummary {
    /// The database of the tables.
    pub database: String,
    /// Tables that were created or changed.
    pub tables: u64,
    /// Partitions that were created, changed or deleted.
    pub partitions: u64,
    /// Data files of earlier versions of partitions that were deleted, because `retain` has passed.
    #[serde(skip_serializing_if = "is_zero")]
    pub expired: u64,
    /// What the catalog was not told. The next run tries again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<CatalogProblem>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What the catalog was not told, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CatalogProblem {
    /// The table; `None` where it is the catalog as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// What failed, with its cause.
    pub error: String,
    /// What the service said, where it could not be asked.
    #[serde(skip)]
    pub failure: Option<StoreErrorKind>,
}

impl CatalogProblem {
    fn new(table: Option<&str>, error: &GlueError) -> Self {
        let (failure, hint) = match error {
            GlueError::Store(error) => (Some(error.kind()), error.hint()),
            GlueError::Partitions { code, .. } if is_passing(code) => {
                (Some(StoreErrorKind::Unreachable), None)
            }
            _ => (None, None),
        };
        let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        Self {
            table: table.map(str::to_owned),
            error: format!("{error}{hint}"),
            failure,
        }
    }
}

/// The telling of one run.
pub struct Telling<'a> {
    job: &'a Job,
    context: &'a Context,
    /// The last commit that the catalog was told of, whole.
    told: Option<u64>,
    summary: CatalogSummary,
}

impl<'a> Telling<'a> {
    pub fn new(job: &'a Job, context: &'a Context) -> Self {
        let database = job.catalog.as_ref();
        let database = database.map(|catalog| catalog.database.clone());
        Self {
            job,
            context,
            told: None,
            summary: CatalogSummary {
                database: database.unwrap_or_default(),
                ..CatalogSummary::default()
            },
        }
    }

    /// Tells the catalog what the lake is now. A catalog that could not be asked by this run is asked once more at the
    /// end.
    pub async fn follow(&mut self, lake: &Lake<Writing>) {
        let unreachable =
            |problem: &CatalogProblem| problem.table.is_none() && problem.failure.is_some();
        if !self.summary.problems.iter().any(unreachable) {
            self.tell(lake).await;
        }
    }

    /// Tells the catalog for the last time in this run.
    pub async fn finish(&mut self, lake: &Lake<Writing>) {
        self.tell(lake).await;
    }

    /// What the catalog was told. `None` without a catalog.
    pub fn summary(self) -> Option<CatalogSummary> {
        self.job.catalog.as_ref().map(|_| self.summary)
    }

    /// Whether the catalog was told of all tables, as commit `last` left them.
    pub fn is_told(&self, last: u64) -> bool {
        self.told == Some(last)
    }

    /// So many data files of earlier versions are deleted.
    pub fn note_expired(&mut self, files: usize) {
        self.summary.expired = files as u64;
    }

    /// Tells the catalog once more of those of these tables that it has in one of these folders, given as URLs, and
    /// gives whether there is any. `None` where the catalog gives no usable answer.
    pub async fn correct(
        &mut self,
        lake: &Lake<Writing>,
        folders: &BTreeMap<String, BTreeSet<String>>,
    ) -> Option<bool> {
        let catalog = self.job.catalog.as_ref()?;
        let mut corrected = false;
        for (table, folders) in folders {
            match self.correct_table(catalog, lake, (table, folders)).await {
                Ok(found) => corrected |= found,
                Err(error) => {
                    let problem = CatalogProblem::new(Some(table), &error);
                    self.summary.problems.push(problem);
                    return None;
                }
            }
        }
        Some(corrected)
    }

    async fn correct_table(
        &mut self,
        catalog: &config::Catalog,
        lake: &Lake<Writing>,
        (table, folders): (&str, &BTreeSet<String>),
    ) -> Result<bool, GlueError> {
        let glue = Glue::open(catalog, &self.context.store).await?;
        let Some(known) = glue.table(table).await? else {
            return Ok(false);
        };
        let mut located = BTreeSet::new();
        if !known.input.partition_keys.is_empty() {
            located.extend(glue.partitions(table).await?.into_values());
        }
        located.extend(known.input.storage_descriptor.location);
        if located.is_disjoint(folders) {
            return Ok(false);
        }
        let one = One {
            glue: &glue,
            lake: lake.root(),
            database: &catalog.database,
        };
        let partitions = self.again(&one, table).await?;
        self.summary.tables += 1;
        self.summary.partitions += partitions.unwrap_or(0);
        Ok(true)
    }

    async fn tell(&mut self, lake: &Lake<Writing>) {
        let last = lake.state().last;
        let Some(catalog) = &self.job.catalog else {
            return;
        };
        if last == 0 || self.told == Some(last) {
            return;
        }
        let Ok(tables) = described(self.job, lake) else {
            // `rawmart tables` says it.
            return;
        };
        self.summary.problems = match self.all(catalog, lake, &tables).await {
            Ok(problems) => problems,
            Err(error) => vec![CatalogProblem::new(None, &error)],
        };
        if self.summary.problems.is_empty() {
            self.told = Some(last);
        }
    }

    /// Tells of all tables. An error is one of the catalog as a whole.
    async fn all(
        &mut self,
        catalog: &config::Catalog,
        lake: &Lake<Writing>,
        tables: &[TableDescription],
    ) -> Result<Vec<CatalogProblem>, GlueError> {
        self.context.progress.tell(Happened::Telling {
            database: catalog.database.clone(),
        });
        let glue = Glue::open(catalog, &self.context.store).await?;
        let mut known = match glue.tables().await? {
            Some(known) => known,
            None => {
                glue.create_database().await?;
                Default::default()
            }
        };
        let mut problems = Vec::new();
        let one = One {
            glue: &glue,
            lake: lake.root(),
            database: &catalog.database,
        };
        for table in tables {
            let known = known.remove(&table.name);
            let told = one.tell((table, lake.state().last), known, None).await;
            let done = match told {
                Err(GlueError::Overtaken { .. }) => self.again(&one, &table.name).await,
                done => done,
            };
            match done {
                Ok(Some(partitions)) => {
                    self.summary.tables += 1;
                    self.summary.partitions += partitions;
                }
                Ok(None) => {}
                Err(GlueError::Store(error)) => return Err(error.into()),
                Err(error) => problems.push(CatalogProblem::new(Some(&table.name), &error)),
            }
        }
        let rest = known.into_values().map(|table| table.input);
        let ours = rest.filter(|table| is_of(table, lake.root()));
        self.forget(&glue, ours.map(|table| table.name).collect())
            .await?;
        Ok(problems)
    }

    /// Deletes those of these tables of the catalog that the lake does not have any more.
    async fn forget(&mut self, glue: &Glue, tables: Vec<String>) -> Result<(), GlueError> {
        if tables.is_empty() {
            return Ok(());
        }
        // Another run may have made a table meanwhile.
        let Some((now, _)) = self.now().await? else {
            return Ok(());
        };
        for table in tables {
            if !now.iter().any(|found| found.name == table) {
                glue.delete_table(&table).await?;
                self.summary.tables += 1;
            }
        }
        Ok(())
    }

    /// Tells of a table as the log has it now, where another run was faster.
    async fn again(&self, one: &One<'_>, table: &str) -> Result<Option<u64>, GlueError> {
        let overtaken = GlueError::Overtaken {
            table: table.to_owned(),
        };
        for _ in 0..TRIES {
            // First the catalog and then the log: a commit is in the log before the catalog is told of it.
            let known = one.glue.table(table).await?;
            let Some((tables, last)) = self.now().await? else {
                return Ok(None);
            };
            let Some(described) = tables.iter().find(|found| found.name == table) else {
                return Ok(None);
            };
            let all = Some(Partitions::Anew);
            match one.tell((described, last), known, all).await {
                Err(GlueError::Overtaken { .. }) => {}
                done => return done,
            }
        }
        Err(overtaken)
    }

    /// The tables as the log has them now, and its last commit.
    async fn now(&self) -> Result<Option<(Vec<TableDescription>, u64)>, StoreError> {
        let url = &self.job.lake;
        let lake = Lake::open(url, &self.context.store, tables(self.job)).await;
        let lake = match lake {
            Ok(lake) => lake,
            Err(LakeError::Store(error)) => return Err(error),
            // The next run tells what is wrong with the log.
            Err(_) => return Ok(None),
        };
        let tables = described(self.job, &lake).ok();
        Ok(tables.map(|tables| (tables, lake.state().last)))
    }
}

/// What it takes to tell of one table.
struct One<'a> {
    glue: &'a Glue,
    /// The URL of the lake's root.
    lake: &'a str,
    database: &'a str,
}

impl One<'_> {
    /// Tells of a table of a lake with this last commit, and gives the number of partitions that were told. `None`
    /// where there was nothing to tell. `least` are the partitions to tell at least.
    async fn tell(
        &self,
        (described, last): (&TableDescription, u64),
        known: Option<Table>,
        least: Option<Partitions>,
    ) -> Result<Option<u64>, GlueError> {
        let input = known.as_ref().map(|known| &known.input);
        let wanted = Wanted::new(described, (self.lake, last), input);
        let name = &wanted.table.name;
        let standing = judge(&wanted, known.as_ref());
        if described.versions && wanted.is_projected() {
            return Err(GlueError::Projected {
                database: self.database.to_owned(),
                table: name.clone(),
            });
        }
        let partitions = match standing {
            Standing::Foreign => {
                return Err(GlueError::Foreign {
                    database: self.database.to_owned(),
                    table: name.clone(),
                });
            }
            Standing::Ahead => match least {
                None => return Err(self.overtaken(name)),
                // The log was read after the catalog, so the lake was begun anew.
                Some(least) => least,
            },
            Standing::Same => match least {
                None => return Ok(None),
                Some(least) => least,
            },
            Standing::Behind(partitions) => least.unwrap_or(partitions),
            Standing::Absent => Partitions::All,
            Standing::Repartitioned => {
                self.glue.delete_table(name).await?;
                Partitions::All
            }
        };
        let known = match standing {
            Standing::Absent | Standing::Repartitioned => self.create(&wanted).await?,
            // The version is that of the table that was judged: nobody may have told it since.
            _ => known,
        };
        let Some(known) = known else {
            return Err(self.overtaken(name));
        };
        let told = self.partitions(&wanted, &known, partitions).await?;
        let version = known.version.as_deref();
        self.glue.update_table(&wanted.table, version).await?;
        Ok(Some(told))
    }

    /// Creates a table without partitions. `None` where another run was faster to tell of it.
    async fn create(&self, wanted: &Wanted) -> Result<Option<Table>, GlueError> {
        let begun = wanted.begun();
        self.glue.create_table(&begun).await?;
        let made = self.glue.table(&begun.name).await?;
        Ok(made.filter(|made| told(&made.input) == 0))
    }

    /// Tells of the partitions of a table, and gives their number.
    async fn partitions(
        &self,
        wanted: &Wanted,
        known: &Table,
        which: Partitions,
    ) -> Result<u64, GlueError> {
        let name = &wanted.table.name;
        if wanted.table.partition_keys.is_empty() {
            return Ok(0);
        }
        let since = match which {
            Partitions::Since => told(&known.input),
            Partitions::All | Partitions::Anew => 0,
        };
        let written = wanted.partitions.iter();
        let written = written.filter(|(commit, _)| *commit > since);
        let mut written: Vec<&PartitionInput> = written.map(|(_, partition)| partition).collect();
        let mut located = match which {
            Partitions::Since => self.glue.partitions_of(name, &written).await?,
            Partitions::All | Partitions::Anew => self.glue.partitions(name).await?,
        };
        if which == Partitions::Since {
            let (new, _) = split(&written, &located, false);
            let expected = partitions_told(&known.input) + new.len() as u64;
            if expected != wanted.partitions.len() as u64 {
                // Partitions have left the lake.
                located = self.glue.partitions(name).await?;
                written = wanted.partitions.iter().map(|(_, p)| p).collect();
            }
        }
        let (new, moved) = split(&written, &located, which == Partitions::Anew);
        let here: BTreeSet<_> = wanted.partitions.iter().map(|(_, p)| &p.values).collect();
        let gone = located.into_keys().filter(|values| !here.contains(values));
        let gone: Vec<_> = gone.collect();
        self.glue.create_partitions(name, &new).await?;
        self.glue.update_partitions(name, &moved).await?;
        if !gone.is_empty() {
            // What is not known here may be what a later commit has brought.
            let now = self.glue.table(name).await?;
            if now.is_none_or(|now| now.version != known.version) {
                return Err(self.overtaken(name));
            }
            self.glue.delete_partitions(name, &gone).await?;
        }
        Ok((new.len() + moved.len() + gone.len()) as u64)
    }

    fn overtaken(&self, table: &str) -> GlueError {
        GlueError::Overtaken {
            table: table.to_owned(),
        }
    }
}

/// The partitions that the catalog lacks, and those that are elsewhere there; with `anew` all that it has.
fn split<'p>(
    wanted: &[&'p PartitionInput],
    located: &Locations,
    anew: bool,
) -> (Vec<&'p PartitionInput>, Vec<&'p PartitionInput>) {
    let (known, new): (Vec<_>, Vec<_>) = wanted
        .iter()
        .partition(|partition| located.contains_key(&partition.values));
    let moved = |partition: &&PartitionInput| {
        anew || located.get(&partition.values) != partition.storage_descriptor.location.as_ref()
    };
    (new, known.into_iter().filter(moved).collect())
}

/// Which tables the catalog is behind with. Changes nothing. `None` without a catalog.
pub async fn foresee<P>(
    job: &Job,
    lake: &Lake<P>,
    settings: &StoreSettings,
) -> Option<CatalogPlan> {
    let catalog = job.catalog.as_ref()?;
    let mut plan = CatalogPlan {
        database: catalog.database.clone(),
        behind: Vec::new(),
        problem: None,
    };
    if lake.state().last == 0 {
        return Some(plan);
    }
    let known = async { Glue::open(catalog, settings).await?.tables().await };
    let mut known = match known.await {
        Ok(known) => known.unwrap_or_default(),
        Err(error) => {
            plan.problem = Some(CatalogProblem::new(None, &error).error);
            return Some(plan);
        }
    };
    for table in described(job, lake).unwrap_or_default() {
        let found = known.remove(&table.name);
        let input = found.as_ref().map(|found| &found.input);
        let wanted = Wanted::new(&table, (lake.root(), lake.state().last), input);
        let standing = judge(&wanted, found.as_ref());
        if standing == Standing::Same {
            continue;
        }
        plan.behind.push(CatalogTable {
            foreign: standing == Standing::Foreign,
            told: input.map(told).filter(|_| standing != Standing::Foreign),
            commit: Some(wanted.commit),
            table: table.name,
        });
    }
    let rest = known.into_values().map(|table| table.input);
    let ours = rest.filter(|table| is_of(table, lake.root()));
    plan.behind.extend(ours.map(|table| CatalogTable {
        foreign: false,
        told: Some(told(&table)),
        commit: None,
        table: table.name,
    }));
    Some(plan)
}
