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

mod history;
mod look;
mod marts;
mod proof;
mod repair;
mod verify;

pub use history::{Change, History, PastCommit, PastRun, history, past_run};
pub use marts::Sample;
pub use repair::repair;
pub use verify::{Damage, Depth, Note, Repaired, Verified, verify};

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use futures::future::LocalBoxFuture;
use serde::Serialize;

use crate::absorb::{
    self, AbsorbError, Incomplete, Noticed, NullColumn, SpillFolder, WhySlice, Work,
};
use crate::catalog::SourceTables;
use crate::config::{Compression, ConfigError, Job, Source};
use crate::dedup::Hashing;
use crate::engine::EngineError;
use crate::event::Reason;
use crate::layout;
use crate::ledger::{self, Balance, Commit, LedgerError, SourceDelta, State};
use crate::mart::{MartError, ReferenceError};
use crate::plan::{self, CommitLimits, Rebuild, Refusal, RunPlan, SourcePlan, Why};
use crate::progress::{Happened, Progress};
use crate::publish::{self, FileSettings, Local, PublishError, Staged, StoredError, WriteError};
use crate::raw::DiscoverError;
use crate::store::{Store, StoreError, StoreErrorKind, StoreSettings};
use look::{Checked, ListedSource, Looked};
use marts::Folders;
pub(crate) use proof::Proof;

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

/// Why a run stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    #[error(transparent)]
    Absorb(#[from] AbsorbError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error(transparent)]
    Mart(#[from] MartError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("another run holds the lake {lake}: wait for it to end, then run again")]
    Locked { lake: String },
    #[error("{url} does not exist: references.{name}.path names the file of the reference")]
    NoReference { name: String, url: String },
    #[error(
        "{name}: {count} objects below its raw roots have keys that cannot be asked for: {}; nothing was \
         published. A key may not hold an empty name between two `/`, begin or end with `/`, have `.` or \
         `..` as a name, or hold a control character or a file name that is not UTF-8. Copy these objects \
         to other keys, or leave them out with sources.{name}.exclude",
        named(first, *count)
    )]
    Unreadable {
        name: String,
        count: usize,
        first: Vec<String>,
    },
    #[error(
        "{name}: {count} raw objects that were absorbed have other content now, first {first}; \
         nothing was published. If they were corrected on purpose, `rawmart run --replace-changed` \
         takes their earlier events out and the new ones in; else restore them, or set \
         sources.{name}.on_changed_object"
    )]
    Changed {
        name: String,
        count: usize,
        first: String,
    },
    #[error(
        "{name}: {count} raw objects that were absorbed are gone, first {first}; restore them, or \
         correct sources.{name}.raw, or give their events up with `rawmart rebuild --forget-missing`"
    )]
    Vanished {
        name: String,
        count: usize,
        first: String,
    },
    #[error(
        "{name}: {reasons}. {partitions} published dates are as the earlier settings made them: \
         `rawmart rebuild {rebuild}` makes them anew and reads {}{}",
        indicatif::HumanBytes(*bytes),
        match from_raw {
            true => " of raw objects",
            false => " of data files, no raw object; or give the rule a `since` after them",
        }
    )]
    NeedsRebuild {
        name: String,
        reasons: String,
        rebuild: String,
        partitions: usize,
        bytes: u64,
        from_raw: bool,
    },
    #[error(
        "{name}: {reasons}; that changes every file of its tables, so a rebuild of some dates will \
         not do: leave --from and --to out"
    )]
    OnlyWhole { name: String, reasons: String },
    #[error(
        "{lake} has no run or commit `{which}`, its last commit is {last}: `rawmart history` names \
         them"
    )]
    NoSuchRun {
        lake: String,
        which: String,
        last: u64,
    },
    #[error("{0}; this is a defect of rawmart")]
    Defect(String),
}

impl From<StoredError> for RunError {
    fn from(error: StoredError) -> Self {
        Self::Write(WriteError::Stored(error))
    }
}

/// The first of `count` names, each in quotes and on one line.
fn named(first: &[String], count: usize) -> String {
    let mut names: Vec<String> = first.iter().map(|name| format!("{name:?}")).collect();
    if count > names.len() {
        names.push(format!("and {} more", count - names.len()));
    }
    names.join(", ")
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunSummary {
    pub outcome: RunOutcome,
    /// The last commit of the lake; 0 before the first.
    pub commit: u64,
    /// A commit of an earlier run that this one published.
    pub rolled_forward: Option<u64>,
    pub lake: String,
    pub sources: BTreeMap<String, SourceSummary>,
    pub marts: Vec<MartSummary>,
    /// Data files published.
    pub files: u64,
    /// Bytes of raw objects read, and of data files written.
    pub bytes_read: u64,
    pub bytes_written: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    Done,
    NothingNew,
}

/// A source after the run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SourceSummary {
    /// A rebuild was asked for, and had something to do.
    pub rebuilt: bool,
    /// What this run added to the counts; less than nothing where raw objects were replaced or given up.
    pub added: Added,
    pub objects: u64,
    pub new_objects: u64,
    /// Counts of all raw objects absorbed, by this run and earlier ones: records, events, kept and so on.
    pub records: u64,
    pub events: u64,
    pub kept: u64,
    pub duplicates: BTreeMap<String, i64>,
    pub rejects: BTreeMap<Reason, i64>,
    pub skipped: BTreeMap<&'static str, u64>,
    /// Values made null by this run, by column.
    pub nulled: BTreeMap<String, u64>,
    /// Columns that are null in every event that this run read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub null_columns: Vec<NullColumn>,
    /// Rules that found no key in any event that this run read, because columns are null.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keyless_rules: Vec<String>,
    /// Columns that came after published dates, with the number of dates on which they are null.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unfilled: BTreeMap<String, u64>,
    /// Raw objects read by this run that lost bytes, ended before their end, or have no event.
    #[serde(skip_serializing_if = "Incomplete::is_empty")]
    pub incomplete: Incomplete,
    /// Slices that this run has changed, by why.
    pub slices: BTreeMap<WhySlice, u64>,
    /// Partitions of kept events.
    pub partitions: Vec<String>,
}

/// What a run added to a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Added {
    /// Raw objects read.
    pub objects: u64,
    #[serde(flatten)]
    pub counts: Balance,
}

/// A mart after the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MartSummary {
    pub name: String,
    pub rows: u64,
    /// Dates that were built, of a mart by date.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dates: Option<u64>,
    /// Dates of rows that its SELECT gave and that are in no partition: nothing that it reads has them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub left_out: BTreeSet<NaiveDate>,
    /// What came of sample dates that were evaluated among other dates too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<Sample>,
    #[serde(flatten)]
    pub outcome: MartOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum MartOutcome {
    Built,
    Fresh,
    Failed { error: String },
    Skipped { because: String },
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
        let lake = Store::open(&job.lake, &settings).await?;
        let state = open(job, &lake).await?;
        let mut looked = Looked::look(job, checked, &state, spill.path(), &settings).await?;
        let reads = marts::reads(job, &looked, &lake, &state).await?;
        for (mart, reads) in looked.plan.marts.iter_mut().zip(reads) {
            mart.reads = reads;
        }
        Ok(looked.plan)
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
        let lake = Store::open(&job.lake, &context.store).await?;
        let Some(_lock) = lake.lock(layout::LOCK).await? else {
            return Err(RunError::Locked {
                lake: lake.root().to_owned(),
            });
        };
        let mut state = open(job, &lake).await?;
        ledger::probe(&lake, &state, &context.run, job.single_writer).await?;
        let rolled_forward = state.unpublished.clone();
        if let Some(commit) = &rolled_forward {
            publish::prove(&lake, commit).await?;
            finish(job, &lake, commit, &Staged::default(), &mut state, context).await?;
            context.progress.tell(Happened::RolledForward {
                commit: commit.number,
            });
        }
        publish::sweep_dead(&lake, &state).await?;
        let proof = Proof::new(&lake, state.last);
        let mut looked = Looked::look(job, checked, &state, spill.path(), &context.store).await?;
        looked.plan.roll_forward = rolled_forward.map(|commit| commit.number);
        refuse(&looked.plan)?;
        let mut totals = Totals::default();
        let mut local = Local::default();
        let rounds = looked.plan.sources.iter().map(|source| source.steps.len());
        for round in 0..rounds.max().unwrap_or(0) {
            // Of all rounds together there may be more than the local disk takes.
            drop(std::mem::take(&mut local));
            local = Round {
                job,
                limits: options.limits(job),
                looked: &looked,
                lake: &lake,
                context,
                spill: spill.path(),
                proof: &proof,
            }
            .commit(round, &mut state, &mut totals)
            .await?;
        }
        looked.plan_marts(&state);
        let folders = Folders {
            lake: &lake,
            local: &local,
            spill: spill.path(),
            proof: &proof,
        };
        let marts = marts::build(job, &looked, folders, &mut state, context, &mut totals).await?;
        publish::sweep(&lake, &state).await?;
        ledger::checkpoint(&lake, &state).await?;
        Ok(summary(&lake, &looked, &state, marts, totals))
    })
}

/// Opens the log of a job's lake.
async fn open(job: &Job, lake: &Store) -> Result<State, LedgerError> {
    State::open_with(lake, job.sources.iter().flat_map(Source::tables)).await
}

fn summary(
    lake: &Store,
    looked: &Looked<'_>,
    state: &State,
    marts: Vec<MartSummary>,
    totals: Totals,
) -> RunSummary {
    let plan = &looked.plan;
    let built = marts.iter().any(|mart| mart.outcome != MartOutcome::Fresh);
    let rebuilt = plan.sources.iter().any(|source| source.why.is_some());
    let nothing = !built && !rebuilt && plan.roll_forward.is_none();
    RunSummary {
        outcome: if nothing {
            RunOutcome::NothingNew
        } else {
            RunOutcome::Done
        },
        commit: state.last,
        rolled_forward: plan.roll_forward,
        lake: lake.root().to_owned(),
        sources: plan
            .sources
            .iter()
            .zip(&looked.sources)
            .map(|(source, listed)| {
                (
                    source.source.clone(),
                    source_summary(source, listed, state, &totals),
                )
            })
            .collect(),
        marts,
        files: totals.files,
        bytes_read: totals.bytes_read,
        bytes_written: totals.bytes_written,
    }
}

fn source_summary(
    plan: &SourcePlan,
    listed: &ListedSource<'_>,
    state: &State,
    totals: &Totals,
) -> SourceSummary {
    let source = listed.source;
    let known = state.sources.get(&plan.source).cloned().unwrap_or_default();
    let partitions: BTreeSet<String> = state
        .table(&plan.source)
        .filter(|file| file.entry.rows > 0)
        .map(|file| layout::partition_folder(&file.entry.partition))
        .collect();
    let settings = known.settings.as_ref();
    let unfilled = settings.and_then(|settings| settings.unfilled.as_ref());
    let moved = totals
        .sources
        .get(&plan.source)
        .cloned()
        .unwrap_or_default();
    SourceSummary {
        rebuilt: plan.why == Some(Why::Rebuild) && moved.committed,
        added: moved.added,
        null_columns: moved.noticed.null_columns(source),
        keyless_rules: moved.noticed.keyless_rules(source, &listed.reads),
        unfilled: plan::null_dates(unfilled, &plan::published(source, state)),
        objects: known.objects.len() as u64,
        new_objects: plan.new_objects,
        records: known.balance.records.unsigned_abs(),
        events: known.balance.events.unsigned_abs(),
        kept: known.balance.kept.unsigned_abs(),
        duplicates: known.balance.duplicates,
        rejects: known.balance.rejects,
        skipped: plan
            .skipped
            .iter()
            .map(|(why, keys)| (*why, keys.len() as u64))
            .collect(),
        nulled: moved.nulled,
        incomplete: moved.incomplete,
        slices: moved.slices,
        partitions: partitions.into_iter().collect(),
    }
}

/// What a run has moved.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    files: u64,
    bytes_read: u64,
    bytes_written: u64,
    sources: BTreeMap<String, Moved>,
}

/// What a run has moved of one source.
#[derive(Debug, Clone, Default)]
struct Moved {
    committed: bool,
    added: Added,
    nulled: BTreeMap<String, u64>,
    incomplete: Incomplete,
    slices: BTreeMap<WhySlice, u64>,
    noticed: Noticed,
}

fn refuse(plan: &RunPlan) -> Result<(), RunError> {
    for source in &plan.sources {
        if let Some(refusal) = source.refused.clone() {
            return Err(RunError::refused(source.source.clone(), refusal));
        }
    }
    Ok(())
}

impl RunError {
    /// Why a source cannot be changed.
    pub fn refused(name: String, refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unreadable { count, first } => Self::Unreadable { name, count, first },
            Refusal::Changed { count, first } => Self::Changed { name, count, first },
            Refusal::Vanished { count, first } => Self::Vanished { name, count, first },
            Refusal::OnlyWhole { reasons } => Self::OnlyWhole { name, reasons },
            Refusal::Settings {
                reasons,
                rebuild,
                partitions,
                bytes,
                from_raw,
            } => Self::NeedsRebuild {
                name,
                reasons,
                rebuild,
                partitions,
                bytes,
                from_raw,
            },
        }
    }
}

/// One commit: the steps of this round of all sources that have one.
struct Round<'a> {
    job: &'a Job,
    limits: CommitLimits,
    looked: &'a Looked<'a>,
    lake: &'a Store,
    context: &'a Context,
    spill: &'a Path,
    proof: &'a Proof,
}

impl Round<'_> {
    async fn commit(
        &self,
        round: usize,
        state: &mut State,
        totals: &mut Totals,
    ) -> Result<Local, RunError> {
        let mut commit = new_commit(state, self.context);
        let mut staged = Staged::default();
        for (planned, listed) in self.looked.plan.sources.iter().zip(&self.looked.sources) {
            let Some(step) = planned.steps.get(round) else {
                continue;
            };
            let source = listed.source;
            let tables = SourceTables::new(source, &state.columns);
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
                false => self.without_lost(source, state),
            };
            let work = Work {
                source,
                roots: &listed.roots,
                tables: &tables,
                read: read.collect::<Result<_, _>>()?,
                leaving: step.leaving.clone(),
                again: step.again,
                fill: step.fill.clone(),
                anew: step.anew,
                lost,
                proof: self.proof.clone(),
                hashing: self.context.hashing,
            };
            let absorbed = absorb::absorb(
                self.job,
                self.lake,
                work,
                readable.as_ref().unwrap_or(state),
                &commit.run,
                self.spill,
                &self.context.progress,
            )
            .await;
            let (absorbed, files) = match absorbed {
                Ok(absorbed) => absorbed,
                Err(error) => return Err(self.withdraw(&commit, error.into()).await),
            };
            totals.bytes_read += absorbed.stored_bytes;
            totals.bytes_read += absorbed
                .objects
                .iter()
                .map(|object| object.size)
                .sum::<u64>();
            let moved = totals.sources.entry(source.name.clone()).or_default();
            moved.added.objects += absorbed.objects.len() as u64;
            moved.added.counts.add(&absorbed.balance);
            for (column, count) in absorbed.nulled {
                *moved.nulled.entry(column).or_default() += count;
            }
            moved.incomplete.append(absorbed.incomplete);
            for (why, count) in absorbed.slices {
                *moved.slices.entry(why).or_default() += count;
            }
            moved.noticed.add(absorbed.noticed);
            staged.append(files);
            for table in tables.all() {
                commit.found.extend(self.looked.found(&table.name));
                let columns = crate::catalog::columns(&table.schema);
                commit.columns.insert(table.name.clone(), columns);
            }
            let read: BTreeSet<String> = absorbed.objects.iter().map(|o| o.key.clone()).collect();
            let forgotten = step.leaving.iter().filter(|key| !read.contains(*key));
            let first = !state.sources.contains_key(&source.name);
            let last = round + 1 == planned.steps.len();
            let mut entries = absorbed.objects;
            if planned.why != Some(Why::Rebuild)
                && let Some(renewed) = listed.renewed.chunks(self.limits.objects).nth(round)
            {
                entries.extend_from_slice(renewed);
            }
            commit.sources.insert(
                source.name.clone(),
                SourceDelta {
                    settings: match first || last {
                        true => planned.settings.clone(),
                        false => planned.meanwhile.clone(),
                    },
                    anew: step.anew,
                    forgotten: forgotten.cloned().collect(),
                    objects: entries,
                    balance: absorbed.balance,
                },
            );
        }
        let nothing = commit.sources.values().all(SourceDelta::is_nothing);
        if nothing && staged.entries.is_empty() && commit.found.is_empty() {
            return Ok(Local::default());
        }
        for name in commit.sources.keys() {
            totals.sources.entry(name.clone()).or_default().committed = true;
        }
        commit_files(
            self.job,
            self.lake,
            commit,
            staged,
            state,
            self.context,
            totals,
        )
        .await
    }

    /// Leaves nothing of a commit that will not be made, and says why it will not.
    async fn withdraw(&self, commit: &Commit, error: RunError) -> RunError {
        unstage(self.lake, commit, &error).await;
        match error {
            // Another run may have replaced what was being read: that is no damage.
            RunError::Absorb(
                AbsorbError::Write(WriteError::Stored(_)) | AbsorbError::Unbalanced(_),
            ) => {
                let overtaken = overtaken(self.lake, commit.number).await;
                overtaken.err().unwrap_or(error)
            }
            error => error,
        }
    }

    /// The lost files of a source, and the state without them where there are any.
    fn without_lost(&self, source: &Source, state: &State) -> (Vec<ledger::File>, Option<State>) {
        let tables = source.tables();
        let found = tables.iter().flat_map(|table| self.looked.found(table));
        let keys: Vec<String> = found.map(|found| found.key).collect();
        if keys.is_empty() {
            return (Vec::new(), None);
        }
        let mut readable = state.clone();
        let lost = keys.iter().filter_map(|key| readable.files.remove(key));
        (lost.collect(), Some(readable))
    }
}

/// Takes back what was staged for a commit that will not be made because of an error.
async fn unstage(lake: &Store, commit: &Commit, because: &RunError) {
    let store = match because {
        RunError::Publish(PublishError::Store(error))
        | RunError::Write(WriteError::Stored(StoredError::Store(error)))
        | RunError::Absorb(
            AbsorbError::Publish(PublishError::Store(error))
            | AbsorbError::Write(WriteError::Stored(StoredError::Store(error))),
        ) => Some(error),
        _ => None,
    };
    // Of a lake that does not answer, it is swept when a commit of this number was made. A full disk answers,
    // and needs the room.
    if store.is_some_and(|error| error.kind() != StoreErrorKind::Full) {
        return;
    }
    if let Err(error) = publish::unstage(lake, commit.number, &commit.run).await {
        tracing::debug!(%error, "what was staged could not be taken back");
    }
}

/// Whether another run has made commit `n` meanwhile, and replaced what this one reads.
///
/// # Errors
/// [`LedgerError::Lost`] if so.
async fn overtaken(lake: &Store, n: u64) -> Result<(), RunError> {
    match lake.head(&layout::commit_key(n)).await? {
        Some(_) => Err(LedgerError::Lost {
            lake: lake.root().to_owned(),
            n,
        }
        .into()),
        None => Ok(()),
    }
}

fn new_commit(state: &State, context: &Context) -> Commit {
    Commit {
        format: ledger::FORMAT,
        number: state.last + 1,
        run: context.run.clone(),
        at: context.now.to_rfc3339_opts(SecondsFormat::Secs, true),
        sources: BTreeMap::new(),
        found: Vec::new(),
        files: Vec::new(),
        columns: BTreeMap::new(),
        marts: Vec::new(),
    }
}

/// Commit → publish → mark: what of it still lies on local disk.
async fn commit_files(
    job: &Job,
    lake: &Store,
    mut commit: Commit,
    staged: Staged,
    state: &mut State,
    context: &Context,
    totals: &mut Totals,
) -> Result<Local, RunError> {
    commit.files.extend(staged.entries.iter().cloned());
    totals.files += commit.files.len() as u64;
    totals.bytes_written += commit.files.iter().map(|file| file.bytes).sum::<u64>();
    state.find(&commit.found);
    if let Err(error) = publish::check(lake, &commit, state).await {
        let error = error.into();
        unstage(lake, &commit, &error).await;
        return Err(error);
    }
    if let Err(error) = ledger::commit(lake, &commit).await {
        // What is full on this disk was not made; what a store has made of a request that failed is not known.
        let full =
            matches!(&error, LedgerError::Store(error) if error.kind() == StoreErrorKind::Full);
        if full && overtaken(lake, commit.number).await.is_ok() {
            let _ = publish::unstage(lake, commit.number, &commit.run).await;
        }
        return Err(error.into());
    }
    context.progress.tell(Happened::Committed {
        commit: commit.number,
    });
    state.apply(&commit);
    finish(job, lake, &commit, &staged, state, context).await?;
    Ok(staged.published())
}

/// Publishes a commit and marks it. `state` has the commit applied.
async fn finish(
    job: &Job,
    lake: &Store,
    commit: &Commit,
    staged: &Staged,
    state: &mut State,
    context: &Context,
) -> Result<(), RunError> {
    let marker = match publish::publish(lake, commit, staged, state, in_flight(job)).await {
        Err(error @ (PublishError::Foreign { .. } | PublishError::StagedGone { .. })) => {
            // Whoever found this commit unpublished may have finished it, and gone on from there.
            let now = State::open(lake).await?;
            let done = now.last > commit.number || now.unpublished.is_none();
            return Err(match (done, error) {
                (true, PublishError::Foreign { url } | PublishError::StagedGone { url }) => {
                    PublishError::Overtaken { url }
                }
                (_, error) => error,
            }
            .into());
        }
        marker => marker?,
    };
    ledger::mark_published(lake, &marker).await?;
    state.mark(&marker);
    let files = marker.files.len();
    context.progress.tell(Happened::Published {
        commit: commit.number,
        files,
    });
    Ok(())
}

/// Bytes of data files that may be on their way at once.
pub(crate) fn in_flight(job: &Job) -> u64 {
    job.memory / 2
}

/// How the data files of marts are written.
pub(crate) fn mart_files(commit: u64, memory: usize) -> FileSettings {
    FileSettings {
        compression: Compression::default(),
        event_time: None,
        bloom_filters: Vec::new(),
        commit,
        memory,
        threads: 1,
    }
}
