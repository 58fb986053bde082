//! In which order things happen: the one place where the order of effects is written.
//!
//! ```text
//! lock ─▶ open the log ─▶ roll forward what is committed ─▶ check, list raw ─▶ plan
//!   ─▶ absorb every source: files, each staged when it is whole ─▶ P2 ─▶ check ─▶ COMMIT n ─▶ publish ─▶ mark
//!   ─▶ marts from the published tables      ─▶ stage ─▶ check ─▶ COMMIT n+1 ─▶ publish ─▶ mark ─▶ sweep
//! ```
//!
//! Everything before a COMMIT can be lost without a trace; everything after it is finished by this
//! run or the next.

mod error;
mod history;
mod look;
mod marts;
mod repair;
mod round;
mod summary;
mod tables;
mod verify;

pub use error::RunError;
pub use history::{Change, History, PastCommit, PastRun, history, past_run};
pub use marts::Sample;
pub use repair::repair;
pub use summary::{Added, MartOutcome, MartSummary, RunOutcome, RunSummary, SourceSummary};
pub use tables::{DdlAsked, Tables, ddl, describe_tables};
pub use verify::{Damage, Depth, Note, Repaired, Verified, verify};

use chrono::{DateTime, SecondsFormat, Utc};
use futures::future::LocalBoxFuture;

use crate::absorb::{AbsorbError, SpillFolder};
use crate::config::{Job, Source};
use crate::dedup::Hashing;
use crate::lake::{self, Lake, Writer};
use crate::plan::{CommitLimits, Lost, Rebuild, RunPlan};
use crate::progress::Progress;
use crate::publish::Local;
use crate::store::StoreSettings;
use look::{Checked, Looked};
use marts::Marts;
use round::Rounds;
use summary::{Totals, summary};

/// What `main` alone knows.
#[derive(Clone)]
pub struct Context {
    pub now: DateTime<Utc>,
    /// Names this invocation among all.
    pub run: String,
    pub progress: Progress,
    /// Limits of the stores that are opened.
    pub store: StoreSettings,
    /// Hashes the keys of duplicate rules. What is published does not depend on it.
    pub hashing: Hashing,
}

impl Context {
    fn writer(&self, job: &Job) -> Writer {
        Writer {
            run: self.run.clone(),
            at: self.now.to_rfc3339_opts(SecondsFormat::Secs, true),
            progress: self.progress.clone(),
            in_flight: job.memory / 2,
        }
    }
}

/// What a verb does. Boxed, so that all of it is compiled with this crate, and not once more with
/// each that polls it.
pub type Doing<'a, T> = LocalBoxFuture<'a, Result<T, RunError>>;

/// What of a job is asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Names of sources; empty means all.
    pub sources: Vec<String>,
    pub marts: bool,
    /// Takes the new content of changed raw objects, whatever the configuration says.
    pub replace_changed: bool,
    /// Lists prefixes that are settled, too.
    pub relist: bool,
    /// Makes published tables anew in the place of absorbing what is new.
    pub rebuild: Option<Rebuild>,
    /// Of each commit; what the memory allows where nothing is said.
    pub limits: Option<CommitLimits>,
}

impl Options {
    fn limits(&self, job: &Job) -> CommitLimits {
        let usual = CommitLimits::new(job.memory);
        self.limits.unwrap_or(usual)
    }
}

/// What a run would do. Writes nothing.
///
/// # Errors
/// What keeps a run from starting.
pub fn plan<'a>(job: &'a Job, options: &'a Options) -> Doing<'a, RunPlan> {
    Box::pin(async move {
        let checked = Checked::check(job, options)?;
        let settings = StoreSettings::default();
        let spill = SpillFolder::new(job)?;
        let lake = Lake::open(&job.lake, &settings, tables(job)).await?;
        let looked = Looked::look(job, checked, lake.state(), spill.path(), &settings).await?;
        let plan = looked.plan(lake.state());
        let foreseen = marts::foresee(&looked, &plan.marts, &lake).await?;
        Ok(plan.with_foreseen(foreseen))
    })
}

/// Absorbs what is new and builds the marts that it changes.
///
/// # Errors
/// Every reason why nothing, or nothing more, was published.
pub fn run<'a>(job: &'a Job, options: &'a Options, context: &'a Context) -> Doing<'a, RunSummary> {
    Box::pin(async move {
        let error = match (once(job, options, context).await, &options.rebuild) {
            (Err(error @ RunError::Absorb(AbsorbError::OnlyRaw { .. })), Some(rebuild))
                if !rebuild.raw =>
            {
                error
            }
            (result, _) => return result,
        };
        tracing::warn!("{error}; this run is reading raw");
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

/// One try of a run.
fn once<'a>(job: &'a Job, options: &'a Options, context: &'a Context) -> Doing<'a, RunSummary> {
    Box::pin(async move {
        let checked = Checked::check(job, options)?;
        let spill = SpillFolder::new(job)?;
        let locked = lake::lock(&job.lake, &context.store).await?;
        let mut lake = locked.open(tables(job), context.writer(job)).await?;
        lake.probe(job.single_writer).await?;
        let rolled_forward = lake.roll_forward().await?;
        lake.sweep_dead().await?;
        let proof = lake.proof();
        let looked = Looked::look(job, checked, lake.state(), spill.path(), &context.store).await?;
        let plan = looked.plan(lake.state());
        refuse(&plan)?;
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
        let mut totals = Totals::default();
        let mut local = Local::default();
        for round in 0..rounds.count() {
            // The local disk may be too small for the files of all rounds together.
            drop(std::mem::take(&mut local));
            local = rounds.commit(round, &mut lake, &mut totals).await?;
        }
        let marts = Marts {
            job,
            looked: &looked,
            plans: &looked.plan_marts(lake.state(), &lost),
            lost: &lost,
            local: &local,
            spill: spill.path(),
            proof: &proof,
        };
        let marts = marts.build(&mut lake, context, &mut totals).await?;
        lake.sweep().await?;
        lake.checkpoint().await?;
        Ok(summary(
            &lake,
            &looked,
            &plan,
            rolled_forward,
            marts,
            totals,
        ))
    })
}

/// The tables that a job's sources have in its lake.
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
