//! Past commits, read from the log. Writes nothing.
//!
//! ```text
//! log, newest first ──▶ the first few, each in short ──▶ History
//!                  └──▶ all of one run, whole        ──▶ PastRun
//! ```

use std::collections::BTreeMap;

use futures::TryStreamExt;
use serde::Serialize;

use super::{Doing, RunError, tables};
use crate::config::Job;
use crate::event::Reason;
use crate::lake::Lake;
use crate::ledger::{self, Commit, FileEntry, ObjectEntry, Rebuilt, SourceDelta, State};

/// The last commits of a lake, newest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct History {
    /// The root of the lake.
    pub lake: String,
    /// The last commit of the lake, whether it is listed or not.
    pub last_commit: u64,
    /// The commits, newest first.
    pub commits: Vec<PastCommit>,
}

/// All commits of one run, in the order they were made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PastRun {
    /// The root of the lake.
    pub lake: String,
    /// The name of the run.
    pub run: String,
    /// The commits, oldest first.
    pub commits: Vec<WholeCommit>,
}

/// A commit in short.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PastCommit {
    /// The number of the commit.
    pub commit: u64,
    /// The name of the run that made it.
    pub run: String,
    /// The time of the run, RFC 3339 in UTC.
    pub at: String,
    /// Whether the commit is published.
    pub published: bool,
    /// The changes of each source, by its name.
    pub sources: BTreeMap<String, Change>,
    /// The marts that were built.
    pub marts: Vec<PastMart>,
    /// The number of data files.
    pub files: u64,
    /// The bytes of these files.
    pub bytes: u64,
    /// Data files without rows that were removed.
    #[serde(skip_serializing_if = "is_zero")]
    pub removed: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The changes of one source by a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The rebuild that made the commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebuilt: Option<Rebuilt>,
    /// The number of raw objects that were absorbed or read again.
    pub objects: u64,
    /// The number of raw objects that were taken out.
    pub forgotten: u64,
    /// Raw objects that were dropped for good.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<ObjectEntry>,
    /// The change of the number of records.
    pub records: i64,
    /// The change of the number of events.
    pub events: i64,
    /// The change of the number of kept events.
    pub kept: i64,
    /// The change of the number of duplicates, by rule.
    pub duplicates: BTreeMap<String, i64>,
    /// The change of the number of rejects, by reason.
    pub rejects: BTreeMap<Reason, i64>,
}

/// A mart that a commit has built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PastMart {
    /// The name of the mart.
    pub name: String,
    /// The number of its rows.
    pub rows: u64,
}

/// A commit with all its changes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WholeCommit {
    #[serde(flatten)]
    pub commit: PastCommit,
    /// The raw objects by source.
    pub raw_objects: BTreeMap<String, Vec<ObjectEntry>>,
    /// The keys of raw objects that were taken out, by source.
    pub forgotten: BTreeMap<String, Vec<String>>,
    pub data_files: Vec<PastFile>,
    /// Keys of data files that were removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed_files: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PastFile {
    /// The key below the lake.
    pub key: String,
    pub rows: u64,
    pub bytes: u64,
}

/// The last `limit` commits.
///
/// # Errors
/// A store that does not answer, a log that cannot be read.
pub fn history(job: &Job, limit: usize) -> Doing<'_, History> {
    Box::pin(async move {
        let lake = Lake::open(&job.lake, &super::stores(job), tables(job)).await?;
        let state = lake.state();
        let mut commits = Vec::new();
        let mut log = std::pin::pin!(ledger::newest_first(lake.store(), state.last));
        while commits.len() < limit
            && let Some(commit) = log.try_next().await?
        {
            commits.push(short(&commit, state));
        }
        Ok(History {
            lake: lake.root().to_owned(),
            last_commit: state.last,
            commits,
        })
    })
}

/// All commits of one run. `which` is the name of the run or the number of one of its commits.
///
/// # Errors
/// There is no such run; a store that does not answer; a log that cannot be read.
pub fn past_run<'a>(job: &'a Job, which: &'a str) -> Doing<'a, PastRun> {
    Box::pin(async move {
        let lake = Lake::open(&job.lake, &super::stores(job), tables(job)).await?;
        let state = lake.state();
        let number: Option<u64> = which.parse().ok();
        let sought = |commit: &Commit| commit.run == which || Some(commit.number) == number;
        // The commits of a run follow each other.
        let mut neighbours: Vec<Commit> = Vec::new();
        let mut log = std::pin::pin!(ledger::newest_first(lake.store(), state.last));
        while let Some(commit) = log.try_next().await? {
            if neighbours
                .first()
                .is_some_and(|later| later.run != commit.run)
            {
                if neighbours.iter().any(sought) {
                    break;
                }
                neighbours.clear();
            }
            neighbours.push(commit);
        }
        let run = match neighbours.first() {
            Some(commit) if neighbours.iter().any(sought) => commit.run.clone(),
            _ => {
                return Err(RunError::NoSuchRun {
                    lake: lake.root().to_owned(),
                    which: which.to_owned(),
                    last: state.last,
                });
            }
        };
        let commits = neighbours.into_iter().rev();
        Ok(PastRun {
            lake: lake.root().to_owned(),
            run,
            commits: commits.map(|commit| whole(commit, state)).collect(),
        })
    })
}

fn short(commit: &Commit, state: &State) -> PastCommit {
    let unpublished = state.unpublished.as_ref().map(|commit| commit.number);
    PastCommit {
        commit: commit.number,
        run: commit.run.clone(),
        at: commit.at.clone(),
        published: unpublished != Some(commit.number),
        sources: commit
            .sources
            .iter()
            .map(|(name, delta)| (name.clone(), change(delta)))
            .collect(),
        marts: commit
            .marts
            .iter()
            .map(|mart| PastMart {
                name: mart.name.clone(),
                rows: mart.rows,
            })
            .collect(),
        files: commit.files.len() as u64,
        bytes: commit.files.iter().map(|file| file.bytes).sum(),
        removed: commit.removed.len() as u64,
    }
}

fn change(delta: &SourceDelta) -> Change {
    let balance = &delta.balance;
    Change {
        rebuilt: delta.rebuilt,
        objects: delta.objects.len() as u64,
        forgotten: delta.forgotten.len() as u64,
        dropped: delta.dropped.clone(),
        records: balance.records,
        events: balance.events,
        kept: balance.kept,
        duplicates: balance.duplicates.clone(),
        rejects: balance.rejects.clone(),
    }
}

fn whole(commit: Commit, state: &State) -> WholeCommit {
    let file = |file: &FileEntry| PastFile {
        key: file.key(),
        rows: file.rows,
        bytes: file.bytes,
    };
    let mut whole = WholeCommit {
        commit: short(&commit, state),
        raw_objects: BTreeMap::new(),
        forgotten: BTreeMap::new(),
        data_files: commit.files.iter().map(file).collect(),
        removed_files: commit.removed.iter().map(|file| file.key.clone()).collect(),
    };
    for (name, delta) in commit.sources {
        whole.raw_objects.insert(name.clone(), delta.objects);
        whole.forgotten.insert(name, delta.forgotten);
    }
    whole
}
