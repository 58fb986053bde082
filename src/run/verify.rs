//! Proof that the lake is what its log says.
//!
//! ```text
//! log ──▶ P2: per object, date and source   ┐
//! log ──▶ files, ETags ──▶ listing of tables ┼──▶ Verified: damage, strays, notes
//! log ──▶ raw objects ──▶ listing of raw     ┘
//! ```
//!
//! Raw objects may go once they are absorbed, so what became of them is a note.

mod counts;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use futures::future::try_join_all;
use serde::Serialize;

use super::{Doing, Options, RunError, look};
use crate::config::{Job, Source};
use crate::layout;
use crate::ledger::{Commit, State};
use crate::store::{Object, Store, StoreSettings};

/// What `verify` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    pub lake: String,
    pub commits: u64,
    pub objects: u64,
    pub files: u64,
    /// What `--repair` did before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repaired: Vec<Repaired>,
    pub damage: Vec<Damage>,
    /// Keys below a table's root that the log does not name.
    pub strays: Vec<String>,
    pub notes: Vec<Note>,
}

/// One thing that a repair did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Repaired {
    /// A commit without its marker has one again.
    Marked { commit: u64 },
    /// A commit that was not published is.
    RolledForward { commit: u64 },
    /// A file of another ETag holds what was published.
    Noted { key: String },
    /// The staged copy of a file was published once more.
    PutBack { key: String },
    /// A file was made again.
    MadeAgain { key: String },
}

/// What is worth knowing and no damage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Note {
    /// Absorbed raw objects that are gone.
    Gone { source: String, keys: Vec<String> },
    /// Absorbed raw objects whose content is another now.
    Changed { source: String, keys: Vec<String> },
    /// A mart that a repair could not build.
    NotBuilt { mart: String, why: String },
    /// Raw cannot be looked at.
    Unlisted { source: String, why: String },
}

/// One thing that is not as the log says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Damage {
    Unpublished {
        commit: u64,
    },
    /// Not published, and its staged files are gone.
    StagedGone {
        commit: u64,
    },
    Missing {
        key: String,
    },
    Size {
        key: String,
        expected: u64,
        found: u64,
    },
    Content {
        key: String,
        expected: String,
        found: String,
    },
    /// A repair made the marker anew that said what was put there.
    Unknown {
        key: String,
    },
    Object {
        source: String,
        key: String,
        records: u64,
        events: u64,
        rejects: u64,
    },
    Balance {
        source: String,
        message: String,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unpublished { commit } => {
                write!(
                    f,
                    "commit {commit} is not published: the next run finishes it"
                )
            }
            Self::StagedGone { commit } => write!(
                f,
                "commit {commit} is not published, and what was staged for it is gone"
            ),
            Self::Missing { key } => write!(f, "{key} is missing"),
            Self::Size {
                key,
                expected,
                found,
            } => {
                write!(f, "{key} has {found} bytes, published were {expected}")
            }
            Self::Content {
                key,
                expected,
                found,
            } => {
                write!(
                    f,
                    "{key} was replaced: its ETag is {found}, published was {expected}"
                )
            }
            Self::Unknown { key } => {
                write!(f, "{key} may be another: its marker was lost")
            }
            Self::Object {
                source,
                key,
                records,
                events,
                rejects,
            } => write!(
                f,
                "{source}: raw object {key} has {records} records, not {events} events + {rejects} rejects"
            ),
            Self::Balance { source, message } => write!(f, "{source}: {message}"),
        }
    }
}

/// A published file that is not as the log says.
pub struct DamagedFile {
    pub key: String,
    pub what: Damage,
    pub found: Option<Object>,
}

/// Compares the lake with its log, and the log with raw. Writes nothing.
///
/// # Errors
/// A store that does not answer, a log that cannot be read.
pub fn verify<'a>(job: &'a Job, settings: &'a StoreSettings) -> Doing<'a, Verified> {
    Box::pin(compare(job, settings))
}

async fn compare(job: &Job, settings: &StoreSettings) -> Result<Verified, RunError> {
    let lake = Store::open(&job.lake, settings).await?;
    let state = State::open(&lake).await?;
    let mut damage = counts::check(&state);
    if let Some(commit) = &state.unpublished {
        damage.push(unpublished(&lake, commit).await?);
    }
    let (damaged, strays) = files(&lake, job, &state).await?;
    damage.extend(damaged.into_iter().map(|file| file.what));
    let mut notes = Vec::new();
    for source in &job.sources {
        notes.extend(raw(source, &state, settings).await);
    }
    let objects = state.sources.values().map(|source| source.objects.len());
    Ok(Verified {
        lake: lake.root().to_owned(),
        commits: state.last,
        objects: objects.sum::<usize>() as u64,
        files: state.files.len() as u64,
        repaired: Vec::new(),
        damage,
        strays,
        notes,
    })
}

async fn unpublished(lake: &Store, commit: &Commit) -> Result<Damage, RunError> {
    let listing = lake.list(layout::STAGING).await?;
    let staged: BTreeSet<String> = listing.objects.into_iter().map(|o| o.key).collect();
    let finishable = commit
        .files
        .iter()
        .all(|file| staged.contains(&file.staged));
    let commit = commit.number;
    Ok(match finishable {
        true => Damage::Unpublished { commit },
        false => Damage::StagedGone { commit },
    })
}

/// Compares every published file with what is there, and names what else is there.
pub async fn files(
    lake: &Store,
    job: &Job,
    state: &State,
) -> Result<(Vec<DamagedFile>, Vec<String>), RunError> {
    let configured = job.sources.iter().flat_map(Source::tables);
    let known = state.files.values().map(|file| file.entry.table.clone());
    let tables: BTreeSet<String> = configured.chain(known).collect();
    let listings = tables.iter().map(|table| {
        let root = format!("{table}/");
        async move { lake.list(&root).await }
    });
    let mut there: BTreeMap<String, Object> = BTreeMap::new();
    for listing in try_join_all(listings).await? {
        let objects = listing.objects.into_iter();
        there.extend(objects.map(|object| (object.key.clone(), object)));
    }
    let unpublished = state
        .unpublished
        .as_ref()
        .map_or(u64::MAX, |commit| commit.number);
    let mut damaged = Vec::new();
    for (key, file) in &state.files {
        let mut found = there.remove(key);
        if file.commit >= unpublished {
            continue;
        }
        if found.as_ref().is_some_and(|object| object.etag.is_none()) {
            // Some servers tell it only of the object itself.
            found = lake.head(key).await?;
        }
        let etag = found.as_ref().and_then(|object| object.etag.clone());
        let key = key.clone();
        let what = match (&found, etag, &file.etag) {
            (None, ..) => Damage::Missing { key: key.clone() },
            (Some(found), ..) if found.size != file.entry.bytes => Damage::Size {
                key: key.clone(),
                expected: file.entry.bytes,
                found: found.size,
            },
            (_, _, None) => Damage::Unknown { key: key.clone() },
            (_, _, Some(expected)) if expected.is_empty() => Damage::Unknown { key: key.clone() },
            (_, Some(found), Some(expected)) if found != *expected => Damage::Content {
                key: key.clone(),
                expected: expected.clone(),
                found,
            },
            _ => continue,
        };
        damaged.push(DamagedFile { key, what, found });
    }
    let strays = there.into_keys();
    let strays = strays.filter(|key| !key.starts_with(layout::CONTROL));
    Ok((damaged, strays.collect()))
}

/// What became of the raw objects that were absorbed.
async fn raw(source: &Source, state: &State, settings: &StoreSettings) -> Vec<Note> {
    let Some(known) = state.sources.get(&source.name) else {
        return Vec::new();
    };
    let all = Options {
        relist: true,
        ..Options::default()
    };
    let listed = match look::list(source, Vec::new(), state, &all, settings).await {
        Ok(listed) => listed,
        Err(error) => {
            return vec![Note::Unlisted {
                source: source.name.clone(),
                why: error.to_string(),
            }];
        }
    };
    let there: BTreeSet<&str> = listed
        .found
        .objects
        .iter()
        .map(|o| o.identity.as_str())
        .collect();
    let gone = known.objects.keys().filter(|key| !there.contains(key));
    let gone: Vec<String> = gone.map(str::to_owned).collect();
    let source = || source.name.clone();
    let mut notes = Vec::new();
    if !gone.is_empty() {
        notes.push(Note::Gone {
            source: source(),
            keys: gone,
        });
    }
    if !listed.changed.is_empty() {
        notes.push(Note::Changed {
            source: source(),
            keys: listed.changed,
        });
    }
    notes
}
