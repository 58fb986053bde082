//! The log of a lake: what was absorbed, which files are its content, and who may write.
//!
//! ```text
//!  checkpoint/…1   log/…2  log/…2.published  log/…3  log/…3.published  log/…4   log/…5: none
//!  └────────────────────── fold ─────────────────────────────────────┴──▶ State: objects, files, …
//!                                                                       4 committed, not published: roll forward first
//! ```
//!
//! # Contract
//!
//! *Committed* means that `log/<n>` exists: nothing takes it back, and whoever opens the lake next
//! brings it to readers. Only the creator of `log/<n>` has committed n; a run that finds it taken has
//! changed nothing. Commit n + 1 may be created only after `log/<n>.published` exists.
//!
//! A checkpoint decides nothing: without any, the log is folded from its beginning to the same state.
//! The log is read key by key, never listed: opening costs what was committed since the checkpoint.

mod checkpoint;
mod format;
mod objects;
mod probe;
mod seal;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

pub use checkpoint::{checkpoint, damaged_checkpoints};
pub use format::{
    Balance, Commit, Dates, FORMAT, FileEntry, FoundFile, MartEntry, OLDEST, ObjectEntry,
    Published, PublishedFile, Settings, Sha256, SourceDelta,
};
pub use objects::Objects;
pub use probe::{damaged_probe, probe};

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use chrono::NaiveDate;
use futures::stream::{self, FuturesOrdered};
use futures::{Stream, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use crate::layout;
use crate::store::{LockGuard, Store, StoreError, StoreErrorKind};

/// Commits read at once, each with its marker; and how far beyond the end a gap is looked for.
const READ_AHEAD: usize = 16;

/// The log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{url} is damaged: {message}; restore the object from a backup of the bucket")]
    Damaged { url: String, message: String },
    #[error(
        "{url} has format {found}, and this rawmart reads formats {OLDEST} to {FORMAT}: use the version that wrote it"
    )]
    Format { url: String, found: u32 },
    #[error(
        "the log of {lake} has {found} without {missing}; restore it from a backup of the bucket"
    )]
    Gap {
        lake: String,
        found: u64,
        missing: String,
    },
    #[error("{url} is gone, and later commits are there: `rawmart verify --repair` makes it anew")]
    Unmarked { url: String },
    #[error("{url} is damaged: {message}; `rawmart verify --repair` makes it anew")]
    DamagedMarker { url: String, message: String },
    #[error(
        "{url} is damaged: {message}; `rawmart verify --repair` takes it away, it can be done without"
    )]
    DamagedSpare { url: String, message: String },
    #[error(
        "{lake} has no log, and {url} is there: the folder _rawmart of this lake is gone. Restore it from a \
         backup; or, if this is to be a new lake, name an empty place as `lake`"
    )]
    NoLog { lake: String, url: String },
    #[error(
        "the store of {lake} accepts {ignored} and ignores it, so two runs at once could overwrite \
         each other; nothing was written but {probe}. Use a store that keeps conditional writes and \
         delete that object, or, where never more than one run at a time writes, set `single_writer \
         = true` in rawmart.toml"
    )]
    Unconditional {
        lake: String,
        ignored: &'static str,
        probe: String,
    },
    #[error("{url} cannot be written: {message}; this is a defect of rawmart")]
    Unwritable { url: String, message: String },
    #[error(
        "commit {n} of {lake} was made by another run meanwhile; nothing was changed, run again"
    )]
    Lost { lake: String, n: u64 },
}

/// A data file as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The commit that last wrote it.
    pub commit: u64,
    pub entry: FileEntry,
    /// `None` until its commit is published.
    pub etag: Option<String>,
}

/// What the log says of one source.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SourceState {
    /// What its tables follow from; `None` where only commits of format 1 are known.
    pub settings: Option<Settings>,
    /// Raw objects absorbed, by identity.
    pub objects: Objects,
    pub balance: Balance,
}

/// A mart as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MartState {
    /// The commit that last built it.
    pub commit: u64,
    pub entry: MartEntry,
}

/// The lake as its log tells it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// The last commit; 0 before the first.
    pub last: u64,
    /// The run that made it.
    pub run: String,
    /// The last commit if it is not published.
    pub unpublished: Option<Commit>,
    pub sources: BTreeMap<String, SourceState>,
    /// Data files by key below the lake.
    pub files: BTreeMap<String, File>,
    /// Columns by table.
    pub columns: BTreeMap<String, Vec<(String, String)>>,
    pub marts: BTreeMap<String, MartState>,
}

impl State {
    /// Reads the log of a lake, from its newest checkpoint on.
    ///
    /// # Errors
    /// A store that does not answer; a log that is damaged or of another format.
    pub async fn open(store: &Store) -> Result<Self, LedgerError> {
        let mut state = checkpoint::newest(store).await?;
        state.fold(store).await?;
        Ok(state)
    }

    /// The same for a lake whose tables are known by name. A lake without a commit has no data files there:
    /// one that has some has lost its log.
    ///
    /// # Errors
    /// See [`Self::open`]; [`LedgerError::NoLog`].
    pub async fn open_with(
        store: &Store,
        tables: impl IntoIterator<Item = String>,
    ) -> Result<Self, LedgerError> {
        let state = Self::open(store).await?;
        if state.last > 0 {
            return Ok(state);
        }
        for table in tables {
            let listing = store.list(&format!("{table}/")).await?;
            let mut keys = listing.objects.into_iter().map(|object| object.key);
            if let Some(key) = keys.find(|key| !layout::is_hidden(key)) {
                // Another run may have made the first commit since.
                let now = Self::open(store).await?;
                return match now.last > 0 {
                    true => Ok(now),
                    false => Err(LedgerError::NoLog {
                        lake: store.root().to_owned(),
                        url: store.url_of(&key),
                    }),
                };
            }
        }
        Ok(state)
    }

    /// Takes every commit after the last in.
    async fn fold(&mut self, store: &Store) -> Result<(), LedgerError> {
        loop {
            let mut next = self.last + 1;
            let mut ahead = FuturesOrdered::new();
            let end = loop {
                while ahead.len() < READ_AHEAD {
                    ahead.push_back(entry(store, next));
                    next += 1;
                }
                match ahead.try_next().await? {
                    Some((Some(commit), Some(marker))) => self.take(&commit, &marker),
                    Some((commit, marker)) => break (commit, marker),
                    None => break (None, None),
                }
            };
            let n = self.last + 1;
            let beyond: Vec<_> = ahead.try_collect().await?;
            let there = |(commit, marker): &Entry| commit.is_some() || marker.is_some();
            let later = (n + 1..).zip(&beyond).find(|(_, found)| there(found));
            let later = match &end {
                (None, Some(_)) => Some(n),
                _ => later.map(|(later, _)| later),
            };
            let Some(later) = later else {
                if let (Some(commit), _) = end {
                    self.apply(&commit);
                    self.unpublished = Some(commit);
                }
                return Ok(());
            };
            // What is later was written after this one: either it is there by now, or it is lost.
            match entry(store, n).await? {
                (Some(commit), Some(marker)) => self.take(&commit, &marker),
                (Some(_), None) => {
                    return Err(LedgerError::Unmarked {
                        url: store.url_of(&layout::published_key(n)),
                    });
                }
                (None, _) => {
                    return Err(LedgerError::Gap {
                        lake: store.root().to_owned(),
                        found: later,
                        missing: layout::commit_key(n),
                    });
                }
            }
        }
    }

    fn take(&mut self, commit: &Commit, marker: &Published) {
        self.apply(commit);
        self.mark(marker);
    }

    /// Takes a commit in.
    pub fn apply(&mut self, commit: &Commit) {
        self.last = commit.number;
        self.run.clone_from(&commit.run);
        for (name, delta) in &commit.sources {
            let source = self.sources.entry(name.clone()).or_default();
            if let Some(settings) = &delta.settings {
                source.settings = Some(settings.clone());
            }
            source.balance.add(&delta.balance);
            if delta.anew {
                source.objects = Objects::default();
            }
            for key in &delta.forgotten {
                source.objects.remove(key);
            }
            for object in &delta.objects {
                source.objects.insert(object.clone());
            }
        }
        self.find(&commit.found);
        for entry in &commit.files {
            let etag = self
                .files
                .get(&entry.key())
                .and_then(|file| file.etag.clone());
            let file = File {
                commit: commit.number,
                entry: entry.clone(),
                etag,
            };
            self.files.insert(entry.key(), file);
        }
        for (table, columns) in &commit.columns {
            self.columns.insert(table.clone(), columns.clone());
        }
        for mart in &commit.marts {
            let state = MartState {
                commit: commit.number,
                entry: mart.clone(),
            };
            self.marts.insert(mart.name.clone(), state);
        }
    }

    /// Goes on from what a repair found under published names.
    pub fn find(&mut self, found: &[FoundFile]) {
        for found in found {
            if let Some(file) = self.files.get_mut(&found.key) {
                file.etag.clone_from(&found.etag);
            }
        }
    }

    /// Takes the marker of the last commit in.
    pub fn mark(&mut self, marker: &Published) {
        for put in &marker.files {
            if let Some(file) = self.files.get_mut(&put.key) {
                file.etag = Some(put.etag.clone());
            }
        }
        self.unpublished = None;
    }

    /// The files of a table.
    pub fn table(&self, table: &str) -> impl Iterator<Item = &File> {
        self.files
            .values()
            .filter(move |file| file.entry.table == table)
    }

    /// The commit that the content of a table is of: the last that wrote a file, or built a mart,
    /// which may have given it no rows.
    pub fn version(&self, table: &str) -> u64 {
        let built = self.marts.get(table).map(|mart| mart.commit);
        let wrote = self.table(table).map(|file| file.commit);
        wrote.chain(built).max().unwrap_or(0)
    }
}

impl FileEntry {
    /// The date of its partition; `None` where it has none, or `dt` is something else.
    pub fn date(&self) -> Option<NaiveDate> {
        layout::date_of(&self.partition)
    }

    /// The final key below the lake.
    pub fn key(&self) -> String {
        layout::file_key(
            &self.table,
            &layout::partition_folder(&self.partition),
            &self.name,
        )
    }
}

/// Creates the commit; from here on it counts. The caller holds the writers' lock of the lake.
///
/// # Errors
/// [`LedgerError::Lost`] when another run has made a commit of this number.
pub async fn commit(store: &Store, _: &LockGuard, commit: &Commit) -> Result<(), LedgerError> {
    let key = layout::commit_key(commit.number);
    match store.create(&key, to_bytes(commit, store, &key)?).await? {
        Some(_) => Ok(()),
        None => Err(LedgerError::Lost {
            lake: store.root().to_owned(),
            n: commit.number,
        }),
    }
}

/// Creates the marker of a published commit. Another run that rolled the same commit forward may
/// have been faster; its marker names the same files.
///
/// # Errors
/// A store that does not answer.
pub async fn mark_published(
    store: &Store,
    _: &LockGuard,
    marker: &Published,
) -> Result<(), LedgerError> {
    let key = layout::published_key(marker.number);
    store.create(&key, to_bytes(marker, store, &key)?).await?;
    Ok(())
}

/// Markers in the place of those that are damaged, or gone although later commits are there. What was put is
/// not known any more: their ETags are empty. The last commit only loses its damaged marker, and is one that
/// is to be published.
///
/// # Errors
/// A store that does not answer, a commit that cannot be read.
pub async fn mark_again(store: &Store, lock: &LockGuard) -> Result<Vec<u64>, LedgerError> {
    for damaged in damaged(store).await? {
        if let LedgerError::DamagedMarker { .. } = damaged.why {
            set_aside(store, &damaged.key).await?;
        }
    }
    let listing = store.list(layout::LOG).await?;
    let keys: BTreeSet<&str> = listing
        .objects
        .iter()
        .map(|object| object.key.as_str())
        .collect();
    let there = |key: String| keys.contains(key.as_str());
    let unmarked: Vec<u64> = (1..)
        .take_while(|n| there(layout::commit_key(n + 1)))
        .filter(|n| !there(layout::published_key(*n)))
        .collect();
    for n in &unmarked {
        let Some(commit) = read::<Commit>(store, &layout::commit_key(*n)).await? else {
            continue;
        };
        let unknown = |entry: &FileEntry| PublishedFile {
            key: entry.key(),
            etag: String::new(),
        };
        let marker = Published {
            format: FORMAT,
            number: *n,
            files: commit.files.iter().map(unknown).collect(),
        };
        mark_published(store, lock, &marker).await?;
    }
    Ok(unmarked)
}

/// An object of the log, a checkpoint or the probe that cannot be used.
#[derive(Debug)]
pub struct DamagedEntry {
    /// Below the lake.
    pub key: String,
    pub why: LedgerError,
}

/// Reads all commits and markers, and names those that are damaged; and commits that are missing.
///
/// # Errors
/// A store that does not answer.
pub async fn damaged(store: &Store) -> Result<Vec<DamagedEntry>, LedgerError> {
    let listing = store.list(layout::LOG).await?;
    let names = listing.objects.into_iter().map(|object| object.key);
    // A folder in the place of an object has names below it.
    let names = names.filter_map(|key| layout::logged(&key));
    let last = names.max().unwrap_or(0);
    let mut reads = stream::iter(1..=last)
        .map(|n| async move {
            let (commit_key, published_key) = (layout::commit_key(n), layout::published_key(n));
            let (commit, marker) = futures::join!(
                entry_of::<Commit>(store, n, &commit_key),
                entry_of::<Published>(store, n, &published_key),
            );
            let gap = || LedgerError::Gap {
                lake: store.root().to_owned(),
                found: last,
                missing: commit_key.clone(),
            };
            let commit = commit.and_then(|commit| commit.map(drop).ok_or_else(gap));
            [
                (commit_key.clone(), commit),
                (published_key, marker.map(drop)),
            ]
        })
        .buffered(READ_AHEAD);
    let mut damaged = Vec::new();
    while let Some(entries) = reads.next().await {
        for (key, read) in entries {
            match read {
                Ok(()) => {}
                Err(error @ LedgerError::Store(_)) => return Err(error),
                Err(why) => damaged.push(DamagedEntry { key, why }),
            }
        }
    }
    Ok(damaged)
}

/// Takes a damaged object of the log's folders away.
///
/// # Errors
/// A store that does not answer.
pub async fn set_aside(store: &Store, key: &str) -> Result<(), LedgerError> {
    let name = key.strip_prefix(layout::CONTROL).unwrap_or(key);
    Ok(store
        .set_aside(key, &format!("{}{name}", layout::ASIDE))
        .await?)
}

/// The commits from `last` back to the first.
pub fn newest_first(
    store: &Store,
    last: u64,
) -> impl Stream<Item = Result<Commit, LedgerError>> + '_ {
    stream::iter((1..=last).rev())
        .map(move |n| async move {
            let key = layout::commit_key(n);
            let commit = read(store, &key).await?;
            commit.ok_or_else(|| LedgerError::Gap {
                lake: store.root().to_owned(),
                found: last,
                missing: key,
            })
        })
        .buffered(READ_AHEAD)
}

fn to_bytes<T: Serialize>(value: &T, store: &Store, key: &str) -> Result<Bytes, LedgerError> {
    serde_json::to_vec(value)
        .map(|json| Bytes::from(seal::sealed(json)))
        .map_err(|e| LedgerError::Unwritable {
            url: store.url_of(key),
            message: e.to_string(),
        })
}

/// A commit and its marker, where they are there.
type Entry = (Option<Commit>, Option<Published>);

async fn entry(store: &Store, n: u64) -> Result<Entry, LedgerError> {
    let (commit_key, published_key) = (layout::commit_key(n), layout::published_key(n));
    futures::try_join!(
        entry_of::<Commit>(store, n, &commit_key),
        entry_of::<Published>(store, n, &published_key),
    )
}

/// A commit or a marker.
trait Numbered {
    fn number(&self) -> u64;
    /// How a damaged one is told.
    fn damaged(url: String, message: String) -> LedgerError;
}

impl Numbered for Commit {
    fn number(&self) -> u64 {
        self.number
    }

    fn damaged(url: String, message: String) -> LedgerError {
        LedgerError::Damaged { url, message }
    }
}

impl Numbered for Published {
    fn number(&self) -> u64 {
        self.number
    }

    fn damaged(url: String, message: String) -> LedgerError {
        LedgerError::DamagedMarker { url, message }
    }
}

/// What lies under a key, where it is of commit `n`; `None` where nothing does.
async fn entry_of<T: Numbered + serde::de::DeserializeOwned>(
    store: &Store,
    n: u64,
    key: &str,
) -> Result<Option<T>, LedgerError> {
    let damaged = |message| T::damaged(store.url_of(key), message);
    match read::<T>(store, key).await {
        Ok(Some(found)) if found.number() != n => {
            Err(damaged(format!("it is of commit {}", found.number())))
        }
        Err(LedgerError::Damaged { message, .. }) => Err(damaged(message)),
        read => read,
    }
}

async fn read<T: serde::de::DeserializeOwned>(
    store: &Store,
    key: &str,
) -> Result<Option<T>, LedgerError> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let lacking = |message: String| LedgerError::Damaged {
        url: store.url_of(key),
        message,
    };
    let damaged = |e: serde_json::Error| lacking(e.to_string());
    let bytes = match store.read(key).await {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        Err(error) if error.kind() == StoreErrorKind::NotAFile => {
            return Err(lacking("it is no file".to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    seal::check(&bytes).map_err(lacking)?;
    let head: Head = serde_json::from_slice(&bytes).map_err(damaged)?;
    if !(OLDEST..=FORMAT).contains(&head.format) {
        return Err(LedgerError::Format {
            url: store.url_of(key),
            found: head.format,
        });
    }
    serde_json::from_slice(&bytes).map_err(damaged)
}
