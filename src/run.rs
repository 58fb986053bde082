//! In which order things happen: the one place where the order of effects is written.
//!
//! ```text
//! lock ─▶ open the log ─▶ roll forward what is committed ─▶ check, list raw ─▶ plan
//!   ─▶ absorb every source into local files ─▶ P2 ─▶ stage ─▶ check ─▶ COMMIT n ─▶ publish ─▶ mark
//!   ─▶ marts from the published tables      ─▶ stage ─▶ check ─▶ COMMIT n+1 ─▶ publish ─▶ mark ─▶ sweep
//! ```
//!
//! Everything before a COMMIT can be lost without a trace; everything after it is finished by this
//! run or the next.

mod absorb;
mod look;
mod marts;
mod verify;

pub use verify::{Damage, Verified, verify};

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::catalog::{SourceTables, TableDefinition};
use crate::config::{Compression, ConfigError, Job, Source};
use crate::dedup::KeyError;
use crate::engine::EngineError;
use crate::event::Reason;
use crate::layout;
use crate::ledger::{self, Commit, LedgerError, SourceDelta, State};
use crate::mart::{MartError, ReferenceError};
use crate::plan::{RunPlan, SourcePlan, Why};
use crate::publish::{self, FileSettings, Finished, ParquetFile, PublishError, WriteError};
use crate::raw::DiscoverError;
use crate::report::{Event, Report};
use crate::store::{Store, StoreError};
use look::{Checked, Looked};

/// Below this many new records a share of rejects says nothing.
const FEW_RECORDS: u64 = 1_000;

/// What `main` alone knows.
#[derive(Clone)]
pub struct Context {
    pub now: DateTime<Utc>,
    /// Names this invocation among all.
    pub run: String,
    pub report: Report,
}

/// What of a job is asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Names of sources; empty means all.
    pub sources: Vec<String>,
    pub marts: bool,
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
    #[error("sources.{name}.dedup: {error}")]
    Key { name: String, error: Box<KeyError> },
    #[error(
        "sources.{name}.dedup: {error}, in raw object {object}; write the rule so that every event \
         has a value, for example with `when` or `nullif`"
    )]
    Rule {
        name: String,
        object: String,
        error: Box<KeyError>,
    },
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
        "{name}: {rejects} of {records} new records are rejects, more than max_rejects = {allowed}%; nothing was \
         published. Most frequent: {reasons}. Correct the columns, or accept them once with \
         `run --max-rejects 100%`"
    )]
    TooManyRejects {
        name: String,
        rejects: u64,
        records: u64,
        allowed: f64,
        reasons: String,
    },
    #[error(
        "{name}: {count} raw objects that were absorbed have other content now, first {first}; raw \
         objects never change: restore the earlier content, or write the new one under a new key"
    )]
    Changed {
        name: String,
        count: usize,
        first: String,
    },
    #[error(
        "{name}: {count} raw objects that were absorbed are gone, first {first}; building the \
         tables anew would lose their events: restore them, or correct sources.{name}.raw"
    )]
    Vanished {
        name: String,
        count: usize,
        first: String,
    },
    #[error(
        "the counts do not balance: {0}; nothing was published, and this is a defect of rawmart"
    )]
    Unbalanced(String),
    #[error("{0}; this is a defect of rawmart")]
    Defect(String),
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
    pub rebuilt: bool,
    pub objects: u64,
    pub new_objects: u64,
    pub records: u64,
    pub events: u64,
    pub kept: u64,
    pub duplicates: BTreeMap<String, i64>,
    pub rejects: BTreeMap<Reason, i64>,
    pub skipped: BTreeMap<&'static str, u64>,
    /// Values made null by this run, by column.
    pub nulled: BTreeMap<String, u64>,
    /// Partitions of kept events.
    pub partitions: Vec<String>,
}

/// A mart after the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MartSummary {
    pub name: String,
    pub rows: u64,
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
pub async fn plan(job: &Job, options: &Options) -> Result<RunPlan, RunError> {
    let checked = Checked::check(job, options)?;
    let lake = look::open_lake(job).await?;
    let state = State::open(&lake).await?;
    let spill = spill_folder()?;
    Ok(Looked::look(job, checked, &state, spill.path()).await?.plan)
}

/// Absorbs what is new and builds the marts that it changes.
///
/// # Errors
/// Every reason why nothing, or nothing more, was published.
pub async fn run(job: &Job, options: &Options, context: &Context) -> Result<RunSummary, RunError> {
    let checked = Checked::check(job, options)?;
    let lake = look::open_lake(job).await?;
    let Some(_lock) = lake.lock(layout::LOCK)? else {
        return Err(RunError::Locked {
            lake: lake.root().to_owned(),
        });
    };
    let mut state = State::open(&lake).await?;
    let rolled_forward = state.unpublished.clone();
    if let Some(commit) = &rolled_forward {
        finish(job, &lake, commit, &mut state, context).await?;
        context.report.event(Event::RolledForward {
            commit: commit.number,
        });
    }
    let spill = spill_folder()?;
    let mut looked = Looked::look(job, checked, &state, spill.path()).await?;
    looked.plan.roll_forward = rolled_forward.map(|commit| commit.number);
    refuse(&looked.plan)?;
    let mut totals = Totals::default();
    let absorbed = absorb_sources(job, &looked, &state, context, spill.path(), &mut totals).await?;
    if let Some((delta, files)) = absorbed {
        let mut commit = new_commit(&state, context);
        commit.sources = delta.sources;
        commit.columns = delta.columns;
        commit_files(job, &lake, commit, files, &mut state, context, &mut totals).await?;
    }
    let marts = marts::build(
        job,
        &looked,
        &lake,
        &mut state,
        context,
        spill.path(),
        &mut totals,
    )
    .await?;
    publish::sweep(&lake, &state).await?;
    Ok(summary(&lake, &looked, &state, marts, totals))
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
            .map(|source| {
                (
                    source.source.clone(),
                    source_summary(source, state, &totals),
                )
            })
            .collect(),
        marts,
        files: totals.files,
        bytes_read: totals.bytes_read,
        bytes_written: totals.bytes_written,
    }
}

fn source_summary(plan: &SourcePlan, state: &State, totals: &Totals) -> SourceSummary {
    let known = state.sources.get(&plan.source).cloned().unwrap_or_default();
    let partitions: BTreeSet<String> = state
        .table(&plan.source)
        .filter(|file| file.entry.rows > 0)
        .map(|file| layout::partition_folder(&file.entry.partition))
        .collect();
    SourceSummary {
        rebuilt: plan.why.is_some(),
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
        nulled: totals.nulled.get(&plan.source).cloned().unwrap_or_default(),
        partitions: partitions.into_iter().collect(),
    }
}

/// What a run has moved.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    files: u64,
    bytes_read: u64,
    bytes_written: u64,
    nulled: BTreeMap<String, BTreeMap<String, u64>>,
}

/// The part of a commit that absorbing fills.
#[derive(Default)]
struct Delta {
    sources: BTreeMap<String, SourceDelta>,
    columns: BTreeMap<String, Vec<(String, String)>>,
}

fn refuse(plan: &RunPlan) -> Result<(), RunError> {
    for source in &plan.sources {
        let (name, first) = (source.source.clone(), |keys: &[String]| {
            keys.first().cloned()
        });
        if let Some(first) = first(&source.changed) {
            return Err(RunError::Changed {
                name,
                count: source.changed.len(),
                first,
            });
        }
        // Objects that are gone do no harm while nothing has to be read again; a prefix that lists
        // nothing any more is more likely a wrong one.
        let refused = source.why.is_some() || source.objects == 0;
        if let (true, Some(first)) = (refused, first(&source.vanished)) {
            return Err(RunError::Vanished {
                name,
                count: source.vanished.len(),
                first,
            });
        }
    }
    Ok(())
}

async fn absorb_sources(
    job: &Job,
    looked: &Looked<'_>,
    state: &State,
    context: &Context,
    spill: &Path,
    totals: &mut Totals,
) -> Result<Option<(Delta, Vec<Finished>)>, RunError> {
    let mut delta = Delta::default();
    let mut files = Vec::new();
    for (planned, listed) in looked.plan.sources.iter().zip(&looked.sources) {
        let Some(why) = &planned.why else { continue };
        let source = listed.source;
        let tables = SourceTables::new(source, &state.columns);
        context.report.event(Event::Reading {
            source: source.name.clone(),
            objects: planned.objects,
            bytes: planned.bytes,
        });
        let absorbed =
            absorb::absorb(job, listed, &tables, state.last + 1, spill, &context.report).await?;
        let known = state.sources.get(&source.name).cloned().unwrap_or_default();
        let new: Vec<_> = absorbed
            .objects
            .iter()
            .filter(|object| known.objects.get(&object.key) != Some(object))
            .cloned()
            .collect();
        let judged: Vec<_> = match why {
            Why::First | Why::SettingsChanged => absorbed.objects.iter().collect(),
            Why::NewObjects => new.iter().collect(),
        };
        check_rejects(source, &judged)?;
        totals.bytes_read += absorbed
            .objects
            .iter()
            .map(|object| object.size)
            .sum::<u64>();
        totals.nulled.insert(source.name.clone(), absorbed.nulled);
        let settings = source_files(source, state.last + 1);
        files.extend(emptied(
            &tables.all(),
            &absorbed.files,
            state,
            &settings,
            spill,
        )?);
        files.extend(absorbed.files);
        for table in tables.all() {
            delta
                .columns
                .insert(table.name.clone(), crate::catalog::columns(&table.schema));
        }
        delta.sources.insert(
            source.name.clone(),
            SourceDelta {
                settings: crate::plan::settings(job, source),
                objects: new,
                balance: absorbed.balance.since(&known.balance),
            },
        );
    }
    Ok((!delta.sources.is_empty()).then_some((delta, files)))
}

fn source_files(source: &Source, commit: u64) -> FileSettings {
    FileSettings {
        compression: source.compression,
        bloom_filters: Vec::new(),
        commit,
        memory: 1 << 20,
    }
}

/// Zero-row files for the slices that had rows and have none now: publishing never deletes.
fn emptied(
    tables: &[&TableDefinition],
    written: &[Finished],
    state: &State,
    settings: &FileSettings,
    folder: &Path,
) -> Result<Vec<Finished>, WriteError> {
    let written: BTreeSet<(&str, &layout::Partition, &str)> = written
        .iter()
        .map(|file| (file.table.as_str(), &file.partition, file.name.as_str()))
        .collect();
    let mut files = Vec::new();
    for table in tables {
        for old in state.table(&table.name) {
            let slice = (
                table.name.as_str(),
                &old.entry.partition,
                old.entry.name.as_str(),
            );
            if old.entry.rows == 0 || written.contains(&slice) {
                continue;
            }
            let path = folder.join(format!("{}-emptied-{}.parquet", table.name, files.len()));
            let (path, rows, bytes) =
                ParquetFile::create(path, std::sync::Arc::clone(&table.schema), settings)?
                    .finish()?;
            files.push(Finished {
                path,
                table: table.name.clone(),
                partition: old.entry.partition.clone(),
                name: old.entry.name.clone(),
                rows,
                bytes,
                times: None,
            });
        }
    }
    Ok(files)
}

fn check_rejects(source: &Source, objects: &[&ledger::ObjectEntry]) -> Result<(), RunError> {
    let records: u64 = objects.iter().map(|object| object.records).sum();
    let mut by_reason: BTreeMap<Reason, u64> = BTreeMap::new();
    for object in objects {
        for (reason, count) in &object.rejects {
            *by_reason.entry(*reason).or_default() += count;
        }
    }
    let rejects: u64 = by_reason.values().sum();
    // Shares of counts: far from where a double loses a unit.
    #[expect(clippy::cast_precision_loss, reason = "a share of counts")]
    let share = rejects as f64 / records.max(1) as f64;
    if records < FEW_RECORDS || share <= source.max_rejects {
        return Ok(());
    }
    let mut reasons: Vec<_> = by_reason.into_iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let reasons: Vec<_> = reasons
        .iter()
        .take(3)
        .map(|(reason, count)| format!("{} {count}", reason.name()))
        .collect();
    Err(RunError::TooManyRejects {
        name: source.name.clone(),
        rejects,
        records,
        allowed: source.max_rejects * 100.0,
        reasons: reasons.join(", "),
    })
}

fn new_commit(state: &State, context: &Context) -> Commit {
    Commit {
        format: ledger::FORMAT,
        number: state.last + 1,
        run: context.run.clone(),
        at: context.now.to_rfc3339_opts(SecondsFormat::Secs, true),
        sources: BTreeMap::new(),
        files: Vec::new(),
        columns: BTreeMap::new(),
        marts: Vec::new(),
    }
}

/// Stage → commit → publish → mark.
async fn commit_files(
    job: &Job,
    lake: &Store,
    mut commit: Commit,
    files: Vec<Finished>,
    state: &mut State,
    context: &Context,
    totals: &mut Totals,
) -> Result<(), RunError> {
    context.report.event(Event::Staging { files: files.len() });
    commit
        .files
        .extend(publish::stage(lake, commit.number, &commit.run, files, in_flight(job)).await?);
    totals.files += commit.files.len() as u64;
    totals.bytes_written += commit.files.iter().map(|file| file.bytes).sum::<u64>();
    publish::check(lake, &commit, state).await?;
    ledger::commit(lake, &commit).await?;
    context.report.event(Event::Committed {
        commit: commit.number,
    });
    state.apply(&commit);
    finish(job, lake, &commit, state, context).await
}

/// Publishes a commit and marks it. `state` has the commit applied.
async fn finish(
    job: &Job,
    lake: &Store,
    commit: &Commit,
    state: &mut State,
    context: &Context,
) -> Result<(), RunError> {
    let marker = match publish::publish(lake, commit, state, in_flight(job)).await {
        Err(PublishError::Foreign { url }) => {
            // Whoever found this commit unpublished may have finished it, and gone on from there.
            let now = State::open(lake).await?;
            let done = now.last > commit.number || now.unpublished.is_none();
            return Err(match done {
                true => PublishError::Overtaken { url },
                false => PublishError::Foreign { url },
            }
            .into());
        }
        marker => marker?,
    };
    ledger::mark_published(lake, &marker).await?;
    state.mark(&marker);
    let files = marker.files.len();
    context.report.event(Event::Published {
        commit: commit.number,
        files,
    });
    Ok(())
}

/// Bytes of data files that may be on their way at once.
pub(crate) fn in_flight(job: &Job) -> u64 {
    job.memory / 2
}

/// A folder for spilled data, gone when the run ends.
fn spill_folder() -> Result<tempfile::TempDir, WriteError> {
    tempfile::Builder::new()
        .prefix("rawmart-")
        .tempdir()
        .map_err(|source| WriteError::Spill {
            folder: "the system's folder for temporary files".to_owned(),
            source,
        })
}

/// How the data files of marts are written.
pub(crate) fn mart_files(commit: u64, memory: usize) -> FileSettings {
    FileSettings {
        compression: Compression::default(),
        bloom_filters: Vec::new(),
        commit,
        memory,
    }
}
