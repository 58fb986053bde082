//! The commands, and the order of their effects. No other file contains this order.
//!
//! ```text
//! lock ─▶ open the log ─▶ roll forward what is committed ─▶ check, list raw ─▶ plan
//!   ─▶ absorb every source: files, each staged when it is whole ─▶ P2 ─▶ check ─▶ COMMIT n ─▶ publish ─▶ mark
//!   ─▶ marts from the published tables      ─▶ stage ─▶ check ─▶ COMMIT n+1 ─▶ publish ─▶ mark
//!   ─▶ emptied files at places of an earlier partitioning ─▶ check ─▶ COMMIT n+2 ─▶ remove ─▶ mark ─▶ sweep
//!   after each mark, and once before: tell the catalog
//!   at the end: retired versions of partitions, `retain` after the catalog was told ─▶ COMMIT ─▶ remove ─▶ mark
//! ```
//!
//! A run that dies before a COMMIT leaves no trace in the tables. A run that dies after a COMMIT is finished by
//! the next run.

mod chosen;
mod doctor;
mod drop;
mod error;
mod fresh;
mod history;
mod init;
mod lint;
mod look;
mod marts;
mod query;
mod repair;
mod retire;
mod round;
mod summary;
mod tables;
mod tell;
mod test;
mod verify;
mod why;

pub use chosen::{MartsAsked, build_marts, draw_marts};
pub use doctor::{Check, Diagnosis, doctor};
pub use drop::{Dropped, drop_mart};
pub use error::RunError;
pub use fresh::Silence;
pub use history::{Change, History, PastCommit, PastRun, history, past_run};
pub use init::{InitAsked, Initiated, SampledRejects, init};
pub use lint::{Linted, lint};
pub use marts::{OtherRows, ReachedMart};
pub use query::{Part, Sql, Take, query};
pub use repair::repair;
pub use summary::{
    Added, CheckSummary, FailedCheck, MartOutcome, MartSummary, RunOutcome, RunSummary, Sample,
    SourceSummary,
};
pub use tables::{DdlAsked, Tables, ddl, describe_tables};
pub use tell::{CatalogProblem, CatalogSummary};
pub use test::{Reached, TestAsked, Tested, Tried, TryOutcome, test_marts, test_reach};
pub use verify::{Damage, Depth, Note, Repaired, Verified, verify};
pub use why::{
    Absent, AbsentRecord, CommitOf, Displacement, Fate, Match, Verdict, Why, WhyAsked, why,
};

use std::time::Instant;

use chrono::{DateTime, SecondsFormat, Utc};
use futures::future::LocalBoxFuture;

use crate::absorb::{AbsorbError, SpillFolder};
use crate::config::{Job, Publish, Source};
use crate::dedup::Hashing;
use crate::lake::{self, Lake, Writer, Writing};
use crate::ledger::Commit;
use crate::plan::{CommitLimits, Lost, Rebuild, RunPlan};
use crate::progress::Progress;
use crate::publish::{Local, Staged};
use crate::store::StoreSettings;
use look::{Checked, Looked};
use marts::Marts;
use round::Rounds;
use summary::{Totals, summary};
use tell::Telling;

/// The values that only `main` knows.
#[derive(Clone)]
pub struct Context {
    /// The time of the run. The clock is read once.
    pub now: DateTime<Utc>,
    /// The moment at which the clock was read, for the time that passes during the run.
    pub begun: Instant,
    /// The name of this run, different for every run.
    pub run: String,
    /// The progress that is told.
    pub progress: Progress,
    /// The limits of the stores that are opened.
    pub store: StoreSettings,
    /// The hash function for the keys of duplicate rules. The published content does not depend on it.
    pub hashing: Hashing,
}

impl Context {
    fn writer(&self, job: &Job) -> Writer {
        Writer {
            run: self.run.clone(),
            at: self.now.to_rfc3339_opts(SecondsFormat::Secs, true),
            progress: self.progress.clone(),
            in_flight: job.memory / 2,
            versions: job.publish == Publish::Catalog,
        }
    }
}

/// The future of a command. It is boxed so that its code is compiled with this crate, and not again with each
/// caller that polls it.
pub type Doing<'a, T> = LocalBoxFuture<'a, Result<T, RunError>>;

/// The parts of a job that a run does.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The names of sources; empty means all sources.
    pub sources: Vec<String>,
    /// Whether marts are built.
    pub marts: bool,
    /// Takes the new content of changed raw objects, whatever the configuration says.
    pub replace_changed: bool,
    /// Lists settled prefixes too.
    pub relist: bool,
    /// Rebuilds published tables instead of absorbing new objects.
    pub rebuild: Option<Rebuild>,
    /// The limits of each commit; `None` for the limits that follow from the memory.
    pub limits: Option<CommitLimits>,
    /// How many partitions a mart may have.
    pub partitions: PartitionLimits,
}

/// How many partitions with rows a mart may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionLimits {
    /// The run says so where there are more.
    pub many: u64,
    /// The mart fails where there are more.
    pub most: u64,
}

impl Default for PartitionLimits {
    fn default() -> Self {
        Self {
            many: 10_000,
            most: 100_000,
        }
    }
}

impl Options {
    fn limits(&self, job: &Job) -> CommitLimits {
        let usual = CommitLimits::new(job.memory);
        self.limits.unwrap_or(usual)
    }
}

/// Plans a run. Writes nothing.
///
/// # Errors
/// Every error that keeps a run from starting.
pub fn plan<'a>(job: &'a Job, options: &'a Options) -> Doing<'a, RunPlan> {
    Box::pin(async move {
        let checked = Checked::check(job, options)?;
        let settings = stores(job);
        let spill = SpillFolder::new(job)?;
        let lake = Lake::open(&job.lake, &settings, tables(job)).await?;
        let looked = Looked::look(job, checked, lake.state(), spill.path(), &settings).await?;
        let plan = looked.plan(lake.state());
        let foreseen = marts::foresee(&looked, &plan, &lake).await?;
        let catalog = tell::foresee(job, &lake, &settings).await;
        Ok(plan.with_foreseen(foreseen).with_catalog(catalog))
    })
}

/// Absorbs new raw objects and builds the marts that they change.
///
/// # Errors
/// Every reason why nothing was published, or nothing more.
pub fn run<'a>(job: &'a Job, options: &'a Options, context: &'a Context) -> Doing<'a, RunSummary> {
    Box::pin(async move {
        let (name, found_in, why) = match (once(job, options, context).await, &options.rebuild) {
            (
                Err(RunError::Absorb(AbsorbError::OnlyRaw {
                    name,
                    found_in,
                    why,
                })),
                Some(rebuild),
            ) if !rebuild.raw => (name, found_in, why),
            (result, _) => return result,
        };
        tracing::warn!(
            "{name}: {found_in}: {why}. Read from raw, the record is a reject, so the stored tables do not give the \
             same events: this run now reads the raw objects"
        );
        let rebuild = Rebuild {
            raw: true,
            ..options.rebuild.clone().unwrap_or_default()
        };
        let options = Options {
            rebuild: Some(rebuild),
            ..options.clone()
        };
        once(job, &options, context).await
    })
}

/// Tries a run once.
fn once<'a>(job: &'a Job, options: &'a Options, context: &'a Context) -> Doing<'a, RunSummary> {
    Box::pin(async move {
        let checked = Checked::check(job, options)?;
        let spill = SpillFolder::new(job)?;
        let locked = lake::lock(&job.lake, &context.store).await?;
        let mut lake = locked.open(tables(job), context.writer(job)).await?;
        lake.probe(job.single_writer).await?;
        let rolled_forward = lake.roll_forward().await?;
        lake.sweep_dead().await?;
        let mut telling = Telling::new(job, context);
        // What an earlier run has not told.
        telling.follow(&lake).await;
        let looked = Looked::look(job, checked, lake.state(), spill.path(), &context.store).await?;
        let plan = looked.plan(lake.state());
        refuse(&plan)?;
        let mut totals = Totals::default();
        if let Some(converted) = lake.convert().await? {
            totals.note_commit(converted);
        }
        let proof = lake.proof();
        // After a conversion the state is another.
        let plan = looked.plan(lake.state());
        let lost = Lost::default();
        let rounds = Rounds {
            job,
            looked: &looked,
            plans: &plan.sources,
            lost: &lost,
            context,
            spill: spill.path(),
            proof: &proof,
        };
        let mut local = Local::default();
        for round in 0..rounds.count() {
            // The local disk may be too small for the files of all rounds together.
            drop(std::mem::take(&mut local));
            local = rounds.commit(round, &mut lake, &mut totals).await?;
            telling.follow(&lake).await;
        }
        let marts = Marts {
            job,
            looked: &looked,
            plans: &looked.plan_marts(lake.state(), &lost),
            lost: &lost,
            local: &local,
            context,
            spill: spill.path(),
            proof: &proof,
        };
        let marts = marts.build(&mut lake, &mut totals).await?;
        remove_leftovers(&looked, &mut lake, &mut totals).await?;
        telling.finish(&lake).await;
        retire::retire(&mut telling, &mut lake, context, job.retain_ms).await?;
        let catalog = telling.summary();
        lake.sweep().await?;
        lake.checkpoint().await?;
        // A rebuild is no time at which something must have arrived.
        let silences = match options.rebuild {
            Some(_) => Vec::new(),
            None => {
                let names = marts.iter().map(|mart| mart.name.clone());
                looked.silences(lake.state(), &names.collect(), context.now)
            }
        };
        let summary = summary(&lake, &looked, &plan, rolled_forward, marts, totals);
        Ok(RunSummary {
            catalog,
            silences,
            ..summary
        })
    })
}

/// The settings of the stores of a job: the usual limits, and what the configuration says of buckets.
pub fn stores(job: &Job) -> StoreSettings {
    StoreSettings {
        encryption: job.encryption.clone(),
        requester_pays: job.requester_pays,
        ..StoreSettings::default()
    }
}

/// Removes the files that a rebuild of this run, or of an earlier one, has emptied at places of an earlier
/// partitioning.
async fn remove_leftovers(
    looked: &Looked<'_>,
    lake: &mut Lake<Writing>,
    totals: &mut Totals,
) -> Result<(), RunError> {
    let removed = looked.leftovers(lake.state());
    if removed.is_empty() {
        return Ok(());
    }
    totals.note_removed(removed.len());
    let commit = Commit {
        removed,
        ..lake.new_commit()
    };
    totals.note_commit(lake.commit(commit, Staged::default()).await?);
    Ok(())
}

/// The tables that the sources of a job have in its lake.
fn tables(job: &Job) -> impl Iterator<Item = String> {
    job.sources.iter().flat_map(Source::tables)
}

fn refuse(plan: &RunPlan) -> Result<(), RunError> {
    let refused = plan.sources.iter().find_map(|source| {
        let refusal = source.refused.clone()?;
        Some((source.source.clone(), refusal))
    });
    match refused {
        Some((name, refusal)) => Err(RunError::Refused { name, refusal }),
        None => Ok(()),
    }
}
