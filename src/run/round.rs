//! Absorbs one step of each source, and makes one commit of all of them.

use std::collections::BTreeSet;
use std::path::Path;

use super::look::{ListedSource, Looked};
use super::summary::Totals;
use super::{Context, RunError};
use crate::absorb::{self, AbsorbError, Absorbed, Work, Workspace};
use crate::catalog::SourceTables;
use crate::config::{Job, Source};
use crate::lake::{Lake, Proof, Writing};
use crate::ledger::{self, Balance, Commit, ObjectEntry, SourceDelta, SourceState, State};
use crate::plan::{Lost, SourcePlan, Step, Why};
use crate::progress::Happened;
use crate::publish::{Local, Staged, WriteError};

/// The steps of the plans of all sources, round by round.
pub struct Rounds<'a> {
    pub job: &'a Job,
    pub looked: &'a Looked<'a>,
    /// The plans, in the order of the sources that were looked at.
    pub plans: &'a [SourcePlan],
    pub lost: &'a Lost,
    pub context: &'a Context,
    pub spill: &'a Path,
    pub proof: &'a Proof,
}

impl Rounds<'_> {
    /// The number of commits that the plans need.
    pub fn count(&self) -> usize {
        let steps = self.plans.iter().map(|source| source.steps.len());
        steps.max().unwrap_or(0)
    }

    /// Absorbs one step of every source that has one, and commits.
    ///
    /// # Errors
    /// Any error that keeps a source from being absorbed. Nothing of this round is committed then.
    pub async fn commit(
        &self,
        round: usize,
        lake: &mut Lake<Writing>,
        totals: &mut Totals,
    ) -> Result<Local, RunError> {
        let mut commit = lake.new_commit();
        let mut staged = Staged::default();
        for (planned, listed) in self.plans.iter().zip(&self.looked.sources) {
            let Some(step) = planned.steps.get(round) else {
                continue;
            };
            let name = &listed.source.name;
            let tables = SourceTables::new(listed.source, &lake.state().columns);
            let (absorbed, files) = match self.absorb(step, listed, &tables, lake).await {
                Ok(absorbed) => absorbed,
                Err(error) => return Err(withdraw(lake, &commit, error).await),
            };
            staged.append(files);
            for table in tables.all() {
                commit.found.extend(self.lost.of_table(&table.name));
                let columns = crate::catalog::columns(&table.schema);
                commit.columns.insert(table.name.clone(), columns);
            }
            let (objects, balance) = totals.note(name, absorbed);
            let known = lake.state().sources.get(name);
            let delta = self.delta((round, known), planned, listed, objects, balance);
            commit.sources.insert(name.clone(), delta);
        }
        let nothing = commit.sources.values().all(SourceDelta::is_nothing);
        if nothing && staged.entries.is_empty() && commit.found.is_empty() {
            return Ok(Local::default());
        }
        totals.note_committed(commit.sources.keys());
        let committed = lake.commit(commit, staged).await?;
        Ok(totals.note_commit(committed))
    }

    async fn absorb(
        &self,
        step: &Step,
        listed: &ListedSource<'_>,
        tables: &SourceTables,
        lake: &Lake<Writing>,
    ) -> Result<(Absorbed, Staged), RunError> {
        let source = listed.source;
        self.context.progress.tell(Happened::Reading {
            source: source.name.clone(),
            objects: step.objects,
            bytes: step.bytes,
        });
        let objects = &listed.found.objects;
        let read = step.read.iter().map(|i| {
            let object = objects.get(*i).cloned();
            object.ok_or_else(|| RunError::Defect(format!("there is no raw object {i}")))
        });
        let (lost, readable) = match step.anew {
            true => (Vec::new(), None),
            false => self.without_lost(source, lake.state()),
        };
        let work = Work {
            source,
            roots: &listed.roots,
            tables,
            read: read.collect::<Result<_, _>>()?,
            leaving: step.leaving.clone(),
            again: step.again,
            only: step.only,
            fill: step.fill.clone(),
            anew: step.anew,
            lost,
            proof: self.proof.clone(),
        };
        let space = Workspace {
            job: self.job,
            lake: lake.store(),
            run: lake.run(),
            folder: self.spill,
            hashing: self.context.hashing,
            progress: &self.context.progress,
        };
        let state = readable.as_ref().unwrap_or(lake.state());
        Ok(absorb::absorb(&space, work, state).await?)
    }

    /// What a commit says of a source. `round` counts from 0; `known` is what the log says of the source.
    fn delta(
        &self,
        (round, known): (usize, Option<&SourceState>),
        planned: &SourcePlan,
        listed: &ListedSource<'_>,
        mut objects: Vec<ObjectEntry>,
        balance: Balance,
    ) -> SourceDelta {
        let step = planned.steps.get(round);
        let read: BTreeSet<&str> = objects.iter().map(|object| object.key.as_str()).collect();
        let leaving = step.iter().flat_map(|step| &step.leaving);
        let forgotten = leaving.filter(|key| !read.contains(key.as_str()));
        let forgotten: Vec<String> = forgotten.cloned().collect();
        let dropped = forgotten.iter().filter_map(|key| known?.objects.get(key));
        let dropped = match planned.why {
            Some(Why::Drop) => dropped.collect(),
            _ => Vec::new(),
        };
        let last = round + 1 == planned.steps.len();
        let at_once = self.looked.options.limits(self.job).objects;
        if !matches!(planned.why, Some(Why::Rebuild | Why::Drop))
            && let Some(renewed) = listed.renewed.chunks(at_once).nth(round)
        {
            objects.extend_from_slice(renewed);
        }
        SourceDelta {
            settings: match known.is_none() || last {
                true => planned.settings.clone(),
                false => planned.meanwhile.clone(),
            },
            anew: step.is_some_and(|step| step.anew),
            rebuilt: planned.rebuilt,
            forgotten,
            dropped,
            objects,
            balance,
        }
    }

    /// The lost files of a source, and the state without these files if there are any.
    fn without_lost(&self, source: &Source, state: &State) -> (Vec<ledger::File>, Option<State>) {
        let tables = source.tables();
        let found = tables.iter().flat_map(|table| self.lost.of_table(table));
        let keys: Vec<String> = found.map(|found| found.key).collect();
        if keys.is_empty() {
            return (Vec::new(), None);
        }
        let mut readable = state.clone();
        let lost = keys.iter().filter_map(|key| readable.files.remove(key));
        (lost.collect(), Some(readable))
    }
}

/// Deletes the staged files of a commit that will not be made, and gives the reason why it will not be made.
async fn withdraw(lake: &Lake<Writing>, commit: &Commit, error: RunError) -> RunError {
    lake.unstage(commit, error.failure_of_store()).await;
    match error {
        // Another run may have replaced the files that were being read. This is no damage.
        RunError::Absorb(
            AbsorbError::Write(WriteError::Stored(_)) | AbsorbError::Unbalanced(_),
        ) => {
            let overtaken = lake.overtaken(commit.number).await;
            overtaken.err().map_or(error, RunError::from)
        }
        error => error,
    }
}
