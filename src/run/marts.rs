//! Builds the marts of one commit: published tables → staged files. If a mart is built by date, each date is
//! evaluated over the files in its reach.
//!
//! ```text
//! marts in their order ──▶ wave: up to the first that reads one of them
//!                            │ two at a time, their small dates beside each other
//!                            ▼
//!                          files on this disk ──▶ staged ──▶ checked ──▶ the next wave reads them
//! ```

mod build;
mod checks;
mod failure;
mod inputs;
mod reaching;
mod sample;
mod slots;

pub use failure::failed_below;
pub use reaching::{OtherRows, ReachedMart, Reaching};

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;

use futures::{StreamExt, TryStreamExt, stream};

use super::look::Looked;
use super::{CheckSummary, Context, MartOutcome, MartSummary, RunError, Totals};
use crate::config::{Compression, Job};
use crate::lake::{Lake, Proof, Writing};
use crate::ledger::Commit;
use crate::mart::{self, Mart, PanicsCaught};
use crate::plan::{Foreseen, Lost, MartPlan, RunPlan, WhyMart};
use crate::progress::Happened;
use crate::publish::{FileSettings, Local, Staged};
use build::{Build, Built};
use inputs::Inputs;
use slots::Slots;

/// The number of dates that are evaluated at once. Each has an open file, outside of DataFusion's memory.
const DATES_AT_ONCE: usize = 4;
/// The number of marts whose files may lie on the local disk at one time.
const MARTS_AT_ONCE: usize = 2;

/// The number of data files that one mart has proven at once.
const PROVEN_AT_ONCE: usize = 4;

/// The marts of a run and their plans, and the places where their rows come from and go to.
pub struct Marts<'a> {
    pub job: &'a Job,
    pub looked: &'a Looked<'a>,
    /// The plans of the marts, in the order of the graph.
    pub plans: &'a [MartPlan],
    /// The files that are made again.
    pub lost: &'a Lost,
    /// Published files that also lie on local disk.
    pub local: &'a Local,
    pub context: &'a Context,
    pub spill: &'a Path,
    pub proof: &'a Proof,
}

/// A mart that was built, or the reason why it was not built.
type Attempt = (MartSummary, Option<Built>);

impl Marts<'_> {
    /// Builds the planned marts in their order and commits them. If a mart fails, the marts that read it are
    /// skipped, and the other marts are built.
    ///
    /// # Errors
    /// A failure of the lake's store or of the local disk.
    pub async fn build(
        &self,
        lake: &mut Lake<Writing>,
        totals: &mut Totals,
    ) -> Result<Vec<MartSummary>, RunError> {
        let mut commit = lake.new_commit();
        let summaries = match self.stage(lake, &mut commit).await {
            Ok(summaries) => summaries,
            Err(error) => {
                lake.unstage(&commit, error.failure_of_store()).await;
                return Err(error);
            }
        };
        let built = commit.marts.iter().map(|mart| mart.name.as_str());
        let found = built.flat_map(|mart| self.lost.of_table(mart));
        commit.found = found.collect();
        if !commit.marts.is_empty() {
            totals.note_commit(lake.commit(commit, Staged::default()).await?);
        } else if summaries.iter().any(|mart| mart.checks.is_some()) {
            // The files of a mart whose claims do not hold are staged, and no commit sweeps them.
            lake.unstage(&commit, None).await;
        }
        Ok(summaries)
    }

    /// Evaluates and stages the marts, wave by wave, and notes them in the commit.
    async fn stage(
        &self,
        lake: &Lake<Writing>,
        commit: &mut Commit,
    ) -> Result<Vec<MartSummary>, RunError> {
        let Some(graph) = &self.looked.graph else {
            return Ok(Vec::new());
        };
        let job = self.job;
        let mut build = Build {
            lake,
            proof: self.proof,
            inputs: Inputs::new(self.looked, lake, self.local)?,
            number: commit.number,
            row_group: usize::try_from(job.memory / 8).unwrap_or(usize::MAX),
            slots: Slots::new(job.memory, job.threads),
            in_flight: job.memory / 8 / MARTS_AT_ONCE as u64,
            spill: self.spill,
            most_partitions: self.looked.options.partitions.most,
        };
        // Tasks of a failed mart may end a little later.
        let _caught = PanicsCaught::begin();
        let mut summaries = Vec::new();
        let mut failed: BTreeSet<String> = BTreeSet::new();
        let mut planned: VecDeque<_> = graph.marts().iter().zip(self.plans).collect();
        while !planned.is_empty() {
            let wave = wave(&mut planned);
            let only = wave.iter().filter(|(_, planned)| planned.why.is_some());
            let only = only.count() == 1;
            let attempts = stream::iter(wave)
                .map(|(mart, planned)| self.attempt(&build, mart, planned, &failed, only))
                .buffered(MARTS_AT_ONCE)
                .try_collect::<Vec<Attempt>>();
            for (mut summary, built) in attempts.await? {
                if let Some(built) = built {
                    summary.rows = built.entry.rows;
                    summary.dates = built.dates;
                    let many = self.looked.options.partitions.many;
                    summary.many_partitions = Some(built.partitions).filter(|n| *n > many);
                    summary.left_out = built.left_out;
                    summary.sample = built.sample;
                    summary.checks = built.checks;
                    commit.files.extend(built.staged.iter().cloned());
                    commit.columns.insert(summary.name.clone(), built.columns);
                    commit.marts.push(built.entry);
                    build.inputs.snapshot.stage(&summary.name, built.staged);
                }
                if let MartOutcome::Failed { .. } | MartOutcome::Skipped { .. } = summary.outcome {
                    failed.insert(summary.name.clone());
                }
                summaries.push(summary);
            }
        }
        Ok(summaries)
    }

    /// Builds a mart if its plan asks for it, unless a mart that it reads has `failed`. `only` says that no
    /// other mart is built at the same time.
    async fn attempt(
        &self,
        build: &Build<'_>,
        mart: &Mart,
        planned: &MartPlan,
        failed: &BTreeSet<String>,
        only: bool,
    ) -> Result<Attempt, RunError> {
        let mut summary = MartSummary {
            name: mart.name.clone(),
            rows: 0,
            dates: None,
            many_partitions: None,
            left_out: BTreeSet::new(),
            sample: None,
            checks: None,
            notes: match planned.why {
                Some(WhyMart::First | WhyMart::SqlChanged | WhyMart::LawChanged) => {
                    planned.notes.clone()
                }
                _ => Vec::new(),
            },
            owner: mart.owner.clone(),
            dashboard: mart.dashboard.clone(),
            outcome: MartOutcome::Built,
        };
        if let Some(because) = mart.inputs.iter().find(|input| failed.contains(*input)) {
            let because = because.clone();
            summary.outcome = MartOutcome::Skipped { because };
            return Ok((summary, None));
        }
        if planned.why.is_none() {
            let built = build.lake.state().marts.get(&mart.name);
            summary.rows = built.map_or(0, |built| built.entry.rows);
            summary.outcome = MartOutcome::Fresh;
            return Ok((summary, None));
        }
        self.context.progress.tell(Happened::Mart {
            name: mart.name.clone(),
        });
        match mart::guarded(mart, build.one(mart, planned, only)).await {
            Ok(built) => match built.checks.as_ref().and_then(CheckSummary::error) {
                None => Ok((summary, Some(built))),
                Some(error) => {
                    summary.sample = built.sample;
                    summary.checks = built.checks;
                    summary.outcome = MartOutcome::Failed { error };
                    Ok((summary, None))
                }
            },
            Err(RunError::Mart(error)) => {
                // A mart also fails if another run, or somebody else, has replaced its input.
                build.lake.overtaken(build.number).await?;
                build.look_at_inputs(mart).await?;
                let mut error = error.to_string();
                error += &self.looked.of_inferred_types(mart, &error);
                summary.outcome = MartOutcome::Failed { error };
                Ok((summary, None))
            }
            Err(other) => Err(other),
        }
    }
}

/// Takes the next marts up to the first one that reads one of them.
fn wave<'a>(planned: &mut VecDeque<(&'a Mart, &'a MartPlan)>) -> Vec<(&'a Mart, &'a MartPlan)> {
    let mut wave: Vec<(&Mart, &MartPlan)> = Vec::new();
    while let Some(next) = planned.pop_front_if(|(mart, _)| {
        let read = |(earlier, _): &(&Mart, &MartPlan)| mart.inputs.contains(&earlier.name);
        !wave.iter().any(read)
    }) {
        wave.push(next);
    }
    wave
}

/// The reads that can be foreseen for each planned mart over the tables as they are now, in the order of the plans.
///
/// # Errors
/// SQL that the engine cannot plan.
pub async fn foresee<P>(
    looked: &Looked<'_>,
    plan: &RunPlan,
    lake: &Lake<P>,
) -> Result<Vec<Foreseen>, RunError> {
    let Some(graph) = &looked.graph else {
        return Ok(Vec::new());
    };
    let inputs = Inputs::new(looked, lake, &Local::default())?;
    let mut all = Vec::new();
    // The files of such a source may lie at other places than its tables will have.
    let unlike = plan.sources.iter().zip(&looked.sources);
    let unlike = unlike.filter(|(source, _)| source.makes_tables_anew());
    let mut unlike: BTreeSet<String> = unlike.flat_map(|(_, s)| s.source.tables()).collect();
    for (mart, planned) in graph.marts().iter().zip(&plan.marts) {
        let can_be_read = mart.inputs.iter().all(|input| !unlike.contains(input));
        all.push(match planned.why {
            Some(_) if can_be_read => inputs.foresee(mart, planned).await?,
            _ => Foreseen {
                sample_due: planned.sample_due,
                ..Foreseen::default()
            },
        });
        if !can_be_read {
            unlike.insert(mart.name.clone());
        }
    }
    Ok(all)
}

/// The settings of the data files of marts.
pub fn mart_files(commit: u64, memory: usize) -> FileSettings {
    FileSettings {
        compression: Compression::default(),
        event_time: None,
        sorted_by: Vec::new(),
        bloom_filters: Vec::new(),
        commit,
        memory,
        threads: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_ends_before_what_reads_one_of_it() {
        let folder = tempfile::tempdir().unwrap();
        for (name, reads) in [("a", "t"), ("b", "a"), ("c", "t"), ("d", "c"), ("e", "d")] {
            let sql = format!("SELECT count(*) AS n FROM {reads}");
            std::fs::write(folder.path().join(format!("{name}.sql")), sql).unwrap();
        }
        let graph = mart::load(folder.path(), &["t".to_owned()], &[]).unwrap();
        let plan = MartPlan {
            mart: String::new(),
            why: None,
            dates: None,
            every_date: false,
            sample_due: false,
            reads: Vec::new(),
            notes: Vec::new(),
        };
        let mut planned = graph.marts().iter().map(|mart| (mart, &plan)).collect();
        let waves = std::iter::from_fn(|| {
            let wave = wave(&mut planned).into_iter();
            let names: String = wave.map(|(mart, _)| mart.name.as_str()).collect();
            (!names.is_empty()).then_some(names)
        });
        assert_eq!(waves.collect::<Vec<_>>(), ["a", "bc", "d", "e"]);
    }
}
