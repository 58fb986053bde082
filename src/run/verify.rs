//! Proves that a lake has the content that its log describes.
//!
//! ```text
//! log, checkpoints, probe ──▶ read whole                          ┐
//! log ──▶ P2: per object, date and source                         ┼──▶ Verified: damage, strays, notes
//! log ──▶ files, ETags ──▶ listing of tables ──▶ SHA-256 of files │
//! log ──▶ raw objects ──▶ listing of raw                          ┘
//! ```
//!
//! On disk, the bytes of a file can change while its size and times stay, so every file is read. In a bucket,
//! an object with the published ETag is the published object. It is read only if that is asked for.
//!
//! Raw objects may be deleted once they are absorbed, so a missing or changed raw object is a note and no
//! damage.

mod counts;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::{Doing, Options, RunError, look as looking, tables};
use crate::config::{Job, Source};
use crate::lake::{Lake, Reading};
use crate::layout;
use crate::ledger::{self, Commit, DamagedEntry, Sha256, State};
use crate::mart;
use crate::publish;
use crate::store::{Lies, Object, Store, StoreSettings};

/// The result of `verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The root of the lake.
    pub lake: String,
    /// The number of commits.
    pub commits: u64,
    /// The number of absorbed raw objects.
    pub objects: u64,
    /// The number of data files.
    pub files: u64,
    /// The steps that `--repair` did before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repaired: Vec<Repaired>,
    /// The number of data files that were read and have the SHA-256 of the log.
    pub files_read: u64,
    /// The differences from the log.
    pub damage: Vec<Damage>,
    /// The keys below the root of a table that the log does not name and that readers of the table count.
    pub strays: Vec<String>,
    /// Facts that are no damage.
    pub notes: Vec<Note>,
}

/// The depth to which data files are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Depth {
    /// Names, sizes, times and ETags are compared.
    Quick,
    /// The bytes of files on disk are compared too.
    #[default]
    Usual,
    /// All bytes are compared, also in a bucket.
    Deep,
}

impl Depth {
    fn reads(self, lake: &Store) -> bool {
        match self {
            Self::Quick => false,
            Self::Usual => lake.is_local(),
            Self::Deep => true,
        }
    }
}

/// One step of a repair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "what")]
#[expect(
    missing_docs,
    reason = "the words of each value say what its fields are"
)]
pub enum Repaired {
    /// The marker of a commit was made again.
    Marked { commit: u64 },
    /// A commit that was not published was published.
    RolledForward { commit: u64 },
    /// A file with another ETag holds the published content, and the ETag was noted.
    Noted { key: String },
    /// The staged copy of a file was published once more.
    PutBack { key: String },
    /// A file was made again.
    MadeAgain { key: String },
    /// An object that cannot be used, or that lay in the place of a file, was moved away.
    SetAside { key: String },
}

/// A fact that is worth knowing and is no damage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "what")]
#[expect(
    missing_docs,
    reason = "the words of each value say what its fields are"
)]
pub enum Note {
    /// Absorbed raw objects that are gone.
    Gone { source: String, keys: Vec<String> },
    /// Absorbed raw objects that have other content now.
    Changed { source: String, keys: Vec<String> },
    /// Raw objects that were dropped for good: their events are in no table.
    Dropped { source: String, keys: Vec<String> },
    /// A mart that a repair could not build.
    NotBuilt { mart: String, why: String },
    /// A mart whose SQL file is gone: nothing builds it any more, and nothing makes these files of it again.
    GoneMart { mart: String, damaged: Vec<String> },
    /// The raw objects could not be listed.
    Unlisted { source: String, why: String },
    /// The number of data files that were not compared because the log has no SHA-256 of them. An earlier build
    /// wrote them. The next commit that writes such a file notes its SHA-256.
    NoSha256 { files: u64 },
    /// The keys below the root of a table that the log does not name and that readers ignore.
    Hidden { keys: Vec<String> },
}

/// One difference between the lake and its log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "what")]
#[expect(
    missing_docs,
    reason = "the words of each value say what its fields are"
)]
pub enum Damage {
    /// The commit is not published yet.
    Unpublished { commit: u64 },
    /// The file is not published, and its staged copy is gone.
    StagedGone { commit: u64 },
    /// The file is missing.
    Missing { key: String },
    /// The file has another size than the published file.
    Size {
        key: String,
        expected: u64,
        found: u64,
    },
    /// The ETag of the file is not the published one.
    Content {
        key: String,
        expected: String,
        found: String,
    },
    /// The file has the published size and ETag, and other bytes.
    Bytes {
        key: String,
        expected: String,
        found: String,
    },
    /// A folder, a link or something else lies in the place of a file.
    NotAFile { key: String, found: &'static str },
    /// An object of the log, a checkpoint or the probe cannot be used.
    Log { key: String, message: String },
    /// A repair has made the marker again, so nobody knows which object was published.
    Unknown { key: String },
    /// The counts of a raw object do not balance.
    Object {
        source: String,
        key: String,
        records: u64,
        events: u64,
        rejects: u64,
    },
    /// The counts of a source do not balance.
    Balance { source: String, message: String },
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
                "commit {commit} is not published, and its staged files are gone"
            ),
            Self::Missing { key } => write!(f, "{key} is missing"),
            Self::Size {
                key,
                expected,
                found,
            } => {
                write!(
                    f,
                    "{key} has {found} bytes, and {expected} bytes were published"
                )
            }
            Self::Content {
                key,
                expected,
                found,
            } => {
                write!(
                    f,
                    "{key} was replaced: its ETag is {found}, and the published ETag is {expected}"
                )
            }
            Self::Bytes {
                key,
                expected,
                found,
            } => write!(
                f,
                "{key} has other bytes than were published: its SHA-256 is {found}, and the published \
                 SHA-256 is {expected}"
            ),
            Self::NotAFile { key, found } => {
                write!(f, "{key} is {found}, and a file was published")
            }
            Self::Log { message, .. } => f.write_str(message),
            Self::Unknown { key } => {
                write!(f, "{key} may be another file, because its marker was lost")
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

/// A published file that differs from the log.
pub struct DamagedFile {
    pub key: String,
    pub what: Damage,
    pub found: Option<Object>,
}

/// The comparison of the files that the log names with the files that are there.
#[derive(Default)]
pub struct ComparedFiles {
    pub damaged: Vec<DamagedFile>,
    pub strays: Vec<String>,
    hidden: Vec<String>,
    /// Files that nothing makes again, by mart: its SQL file is gone. Marts without such a file are there, too.
    gone: BTreeMap<String, Vec<String>>,
    /// The number of files that were read, and the number that could not be compared because the log has no
    /// SHA-256.
    read: u64,
    without_sha256: u64,
}

/// The number of comparisons. If others write to the lake, a file that looks damaged may just have been
/// replaced.
const TRIES: u32 = 3;

/// Compares the lake with its log, and the log with the raw objects. Writes nothing.
///
/// # Errors
/// A store that does not answer, a log that cannot be read.
pub fn verify<'a>(job: &'a Job, depth: Depth, settings: &'a StoreSettings) -> Doing<'a, Verified> {
    Box::pin(async move {
        let mut lake = Lake::open(&job.lake, settings, tables(job)).await?;
        let mut tries = 1;
        loop {
            let verified = compare(job, &lake, depth, settings).await?;
            let whole = verified.damage.is_empty() && verified.strays.is_empty();
            if whole || tries == TRIES || lake.overtaken(verified.commits + 1).await.is_ok() {
                return Ok(verified);
            }
            tries += 1;
            lake.reopen(tables(job)).await?;
        }
    })
}

async fn compare(
    job: &Job,
    lake: &Lake<Reading>,
    depth: Depth,
    settings: &StoreSettings,
) -> Result<Verified, RunError> {
    let state = lake.state();
    let mut damage = counts::check(state);
    if let Some(commit) = &state.unpublished {
        damage.push(unpublished(lake.store(), commit).await?);
    }
    damage.extend(
        control(lake.store())
            .await?
            .into_iter()
            .map(|entry| Damage::Log {
                message: entry.why.to_string(),
                key: entry.key,
            }),
    );
    let ComparedFiles {
        damaged,
        strays,
        hidden,
        gone,
        read,
        without_sha256,
    } = files(lake, job, depth).await?;
    damage.extend(damaged.into_iter().map(|file| file.what));
    let gone = gone.into_iter();
    let gone = gone.map(|(mart, damaged)| Note::GoneMart { mart, damaged });
    let mut notes: Vec<Note> = gone.collect();
    if without_sha256 > 0 {
        notes.push(Note::NoSha256 {
            files: without_sha256,
        });
    }
    if !hidden.is_empty() {
        notes.push(Note::Hidden { keys: hidden });
    }
    for source in &job.sources {
        notes.extend(raw(source, state, settings).await);
    }
    let objects = state.sources.values().map(|source| source.objects.len());
    Ok(Verified {
        lake: lake.root().to_owned(),
        commits: state.last,
        objects: objects.sum::<usize>() as u64,
        files: state.files.len() as u64,
        repaired: Vec::new(),
        files_read: read,
        damage,
        strays,
        notes,
    })
}

/// The damaged objects of the log, checkpoints and probe.
///
/// # Errors
/// A store that does not answer.
pub async fn control(lake: &Store) -> Result<Vec<DamagedEntry>, RunError> {
    let mut damaged = ledger::damaged(lake).await?;
    damaged.extend(ledger::damaged_checkpoints(lake).await?);
    damaged.extend(ledger::damaged_probe(lake).await?);
    Ok(damaged)
}

async fn unpublished(lake: &Store, commit: &Commit) -> Result<Damage, RunError> {
    let listing = lake.list(layout::STAGING).await?;
    let staged: BTreeSet<String> = listing.objects.into_iter().map(|o| o.key).collect();
    let copies = commit.files.iter().map(|file| file.staged.as_str());
    let copies = copies.filter(|key| layout::staged_for(key).is_none());
    let copies = publish::are_there(lake, copies.map(|key| (key, None)).collect()).await?;
    let mut files = commit.files.iter();
    let finishable = copies.into_iter().all(|there| there)
        && files.all(|file| {
            layout::staged_for(&file.staged).is_none() || staged.contains(&file.staged)
        });
    let commit = commit.number;
    Ok(match finishable {
        true => Damage::Unpublished { commit },
        false => Damage::StagedGone { commit },
    })
}

/// Compares every published file with the object that is there, and names all other objects.
pub async fn files<P>(lake: &Lake<P>, job: &Job, depth: Depth) -> Result<ComparedFiles, RunError> {
    let mut compared = ComparedFiles::default();
    let mut there = listed(lake, job, &mut compared).await?;
    let whole = look(lake, &mut there, &mut compared).await?;
    if depth.reads(lake.store()) {
        read(lake.store(), whole, job.threads, &mut compared).await?;
    }
    compared.damaged.sort_by(|a, b| a.key.cmp(&b.key));
    set_gone_apart(lake.state(), job, &mut compared);
    let others = there.into_keys();
    compared
        .strays
        .extend(others.filter(|key| !key.starts_with(layout::CONTROL)));
    // If a folder lies in the place of a file, the objects in the folder are not counted again.
    let within = |key: &String| {
        let damaged = compared.damaged.iter();
        let mut folders = damaged.filter(|file| matches!(file.what, Damage::NotAFile { .. }));
        folders.any(|file| {
            key.strip_prefix(&file.key)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    let strays = std::mem::take(&mut compared.strays);
    let (hidden, mut strays): (Vec<_>, Vec<_>) = strays
        .into_iter()
        .filter(|key| !within(key))
        .partition(|key| layout::is_hidden(key));
    strays.sort();
    compared.hidden = hidden;
    compared.strays = strays;
    Ok(compared)
}

/// Takes the files of marts whose SQL files are gone out of the damaged files. No damage can come back there, whatever
/// is done.
fn set_gone_apart(state: &State, job: &Job, compared: &mut ComparedFiles) {
    let there = job.marts.as_deref().map(mart::names).transpose();
    // A folder that cannot be read tells nothing of its marts.
    let Ok(there) = there.map(Option::unwrap_or_default) else {
        return;
    };
    let gone = state.marts.keys().filter(|mart| !there.contains(*mart));
    compared.gone = gone.map(|mart| (mart.clone(), Vec::new())).collect();
    let damaged = std::mem::take(&mut compared.damaged);
    for file in damaged {
        let known = state.files.get(&file.key);
        let of_gone = known.and_then(|known| compared.gone.get_mut(&known.entry.table));
        match of_gone {
            Some(keys) => keys.push(file.key),
            None => compared.damaged.push(file),
        }
    }
}

/// Objects by key.
type Objects = BTreeMap<String, Object>;

/// Lists the tables of the job and of the log, and the versions of their partitions.
async fn listed<P>(
    lake: &Lake<P>,
    job: &Job,
    compared: &mut ComparedFiles,
) -> Result<Objects, RunError> {
    let known = lake.state().files.values();
    let known = known.map(|file| file.entry.table.clone());
    let tables: BTreeSet<String> = tables(job).chain(known).collect();
    let roots = tables.into_iter().map(|table| format!("{table}/"));
    let roots = roots.chain([layout::VERSIONS.to_owned()]);
    let listings = roots.map(|root| async move { lake.store().list(&root).await });
    let mut there = Objects::new();
    for listing in try_join_all(listings).await? {
        let objects = listing.objects.into_iter();
        there.extend(objects.map(|object| (object.key.clone(), object)));
        compared.strays.extend(listing.unrepresentable);
    }
    Ok(there)
}

/// A published file that looks whole. Its bytes may still differ.
struct LooksWhole {
    key: String,
    sha256: Option<Sha256>,
    found: Option<Object>,
}

/// Compares names, sizes and ETags of published files, and takes these files out of `there`.
async fn look<P>(
    lake: &Lake<P>,
    there: &mut Objects,
    compared: &mut ComparedFiles,
) -> Result<Vec<LooksWhole>, RunError> {
    let (state, store) = (lake.state(), lake.store());
    let unpublished = state.unpublished.as_ref();
    for removed in unpublished.iter().flat_map(|commit| &commit.removed) {
        // The run that publishes the commit removes it.
        there.remove(&removed.key);
    }
    for key in state.retired.keys() {
        // Queries in flight may read it, and a later run deletes it.
        there.remove(key);
    }
    let unpublished = unpublished.map_or(u64::MAX, |commit| commit.number);
    let mut whole = Vec::new();
    for (key, file) in &state.files {
        let mut found = there.remove(key);
        if file.commit >= unpublished {
            continue;
        }
        if found.as_ref().is_some_and(|object| object.etag.is_none()) {
            // Some servers give an ETag only for the object itself, not in a listing.
            found = store.head(key).await?;
        }
        let lies = store.lies(key).await?;
        let key = key.clone();
        match difference(&key, file, found.as_ref(), lies) {
            Some(what) => compared.damaged.push(DamagedFile { key, what, found }),
            None => whole.push(LooksWhole {
                key,
                sha256: file.entry.sha256,
                found,
            }),
        }
    }
    Ok(whole)
}

/// The difference of a file from the log, apart from its bytes.
fn difference(
    key: &str,
    file: &ledger::File,
    found: Option<&Object>,
    lies: Lies,
) -> Option<Damage> {
    let not_a_file = |found| Damage::NotAFile {
        key: key.to_owned(),
        found,
    };
    let etag = found.and_then(|object| object.etag.as_ref());
    let key = key.to_owned();
    Some(match (found, etag, &file.etag) {
        _ if lies == Lies::Folder => not_a_file("a folder"),
        _ if lies == Lies::Link => not_a_file("a symbolic link"),
        _ if lies == Lies::Other => not_a_file("no file"),
        (None, ..) => Damage::Missing { key },
        (Some(found), ..) if found.size != file.entry.bytes => Damage::Size {
            key,
            expected: file.entry.bytes,
            found: found.size,
        },
        (_, _, None) => Damage::Unknown { key },
        (_, _, Some(expected)) if expected.is_empty() => Damage::Unknown { key },
        (_, Some(found), Some(expected)) if found != expected => Damage::Content {
            key,
            expected: expected.clone(),
            found: found.clone(),
        },
        _ => return None,
    })
}

/// Reads files that look whole, and compares their bytes with the log.
async fn read(
    store: &Store,
    whole: Vec<LooksWhole>,
    threads: usize,
    compared: &mut ComparedFiles,
) -> Result<(), RunError> {
    let known = whole.into_iter().filter_map(|file| match file.sha256 {
        Some(sha256) => Some((file.key, sha256, file.found)),
        None => {
            compared.without_sha256 += 1;
            None
        }
    });
    let known: Vec<_> = known.collect();
    let read = stream::iter(known).map(|(key, expected, found)| async move {
        let what = other_bytes(store, &key, expected).await?;
        Ok::<_, RunError>(what.map(|what| DamagedFile { key, what, found }))
    });
    let mut read = read.buffered(threads.max(READ_AT_ONCE));
    while let Some(damaged) = read.try_next().await? {
        match damaged {
            Some(damaged) => compared.damaged.push(damaged),
            None => compared.read += 1,
        }
    }
    Ok(())
}

/// The least number of data files that are read at once. In a bucket most of the time is waiting.
const READ_AT_ONCE: usize = 8;

/// Whether the bytes of a file differ from the log.
async fn other_bytes(
    lake: &Store,
    key: &str,
    expected: Sha256,
) -> Result<Option<Damage>, RunError> {
    let key = key.to_owned();
    Ok(match lake.sha256(&key).await? {
        None => Some(Damage::Missing { key }),
        Some((_, found)) if Sha256(found) == expected => None,
        Some((_, found)) => Some(Damage::Bytes {
            key,
            expected: expected.to_string(),
            found: Sha256(found).to_string(),
        }),
    })
}

/// Compares the absorbed raw objects with the raw objects that are there now.
async fn raw(source: &Source, state: &State, settings: &StoreSettings) -> Vec<Note> {
    let Some(known) = state.sources.get(&source.name) else {
        return Vec::new();
    };
    let source_name = || source.name.clone();
    let mut notes = Vec::new();
    if !known.dropped.is_empty() {
        notes.push(Note::Dropped {
            source: source_name(),
            keys: known.dropped.keys().cloned().collect(),
        });
    }
    let all = Options {
        relist: true,
        ..Options::default()
    };
    let listed = match looking::list(source, Vec::new(), state, &all, settings).await {
        Ok(listed) => listed,
        Err(error) => {
            notes.push(Note::Unlisted {
                source: source_name(),
                why: error.to_string(),
            });
            return notes;
        }
    };
    let there: BTreeSet<&str> = listed.found.objects.iter().map(|o| &*o.identity).collect();
    let gone = known.objects.keys().filter(|key| !there.contains(key));
    let gone: Vec<String> = gone.map(str::to_owned).collect();
    if !gone.is_empty() {
        notes.push(Note::Gone {
            source: source_name(),
            keys: gone,
        });
    }
    if !listed.changed.is_empty() {
        notes.push(Note::Changed {
            source: source_name(),
            keys: listed.changed,
        });
    }
    notes
}
