//! The log of a lake: what was absorbed, which files are its content, and who may write.
//!
//! ```text
//!  log/…1  log/…1.published  log/…2  log/…2.published  log/…3
//!  └──────────── fold ──────────────┴─────────────────┴──▶ State: objects, files, balances, marts
//!                                                        3 committed, not published: roll forward first
//! ```
//!
//! # Contract
//!
//! *Committed* means that `log/<n>` exists: nothing takes it back, and whoever opens the lake next
//! brings it to readers. Only the creator of `log/<n>` has committed n; a run that finds it taken has
//! changed nothing. Commit n + 1 may be created only after `log/<n>.published` exists.

mod format;

pub use format::{
    Balance, Commit, FORMAT, FileEntry, MartEntry, ObjectEntry, Published, PublishedFile,
    SourceDelta,
};

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::layout::{self, LogEntry};
use crate::store::{Store, StoreError};

/// Log entries read at once.
const READ_AHEAD: usize = 16;

/// The log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{url} is damaged: {message}; restore the object from a backup of the bucket")]
    Damaged { url: String, message: String },
    #[error(
        "{url} has format {found}, and this rawmart reads format {FORMAT}: use the version that wrote it"
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
    /// Fingerprint of the settings of the last commit.
    pub settings: String,
    /// Raw objects absorbed, by identity.
    pub objects: BTreeMap<String, ObjectEntry>,
    pub balance: Balance,
}

/// A mart as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Reads the log of a lake from its beginning.
    ///
    /// # Errors
    /// A store that does not answer; a log that is damaged or of another format.
    pub async fn open(store: &Store) -> Result<Self, LedgerError> {
        let listing = store.list(layout::LOG).await?;
        let mut commits = Vec::new();
        let mut markers = std::collections::BTreeSet::new();
        for object in &listing.objects {
            match layout::log_entry(&object.key) {
                Some(LogEntry::Commit(n)) => commits.push(n),
                Some(LogEntry::Published(n)) => {
                    markers.insert(n);
                }
                None => {}
            }
        }
        commits.sort_unstable();
        let mut state = Self::default();
        let gap = |found, missing| LedgerError::Gap {
            lake: store.root().to_owned(),
            found,
            missing,
        };
        for (expected, n) in (1..).zip(&commits) {
            if expected != *n {
                return Err(gap(*n, layout::commit_key(expected)));
            }
            if !markers.contains(n) && commits.last() != Some(n) {
                return Err(gap(*n, layout::published_key(*n)));
            }
        }
        let mut entries = stream::iter(commits)
            .map(|n| {
                let published = markers.contains(&n);
                async move {
                    let commit: Commit = read(store, &layout::commit_key(n)).await?;
                    let marker: Option<Published> = match published {
                        true => Some(read(store, &layout::published_key(n)).await?),
                        false => None,
                    };
                    Ok::<_, LedgerError>((commit, marker))
                }
            })
            .buffered(READ_AHEAD);
        while let Some((commit, marker)) = entries.try_next().await? {
            state.apply(&commit);
            match marker {
                Some(marker) => state.mark(&marker),
                None => state.unpublished = Some(commit),
            }
        }
        Ok(state)
    }

    /// Takes a commit in.
    pub fn apply(&mut self, commit: &Commit) {
        self.last = commit.number;
        for (name, delta) in &commit.sources {
            let source = self.sources.entry(name.clone()).or_default();
            source.settings.clone_from(&delta.settings);
            source.balance.add(&delta.balance);
            for object in &delta.objects {
                source.objects.insert(object.key.clone(), object.clone());
            }
        }
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

    /// The commit that the content of a table is of: of a mart the one that built it, which may
    /// have given it no rows; of other tables the last that wrote a file.
    pub fn version(&self, table: &str) -> u64 {
        match self.marts.get(table) {
            Some(mart) => mart.commit,
            None => self.table(table).map(|file| file.commit).max().unwrap_or(0),
        }
    }
}

impl FileEntry {
    /// The final key below the lake.
    pub fn key(&self) -> String {
        layout::file_key(
            &self.table,
            &layout::partition_folder(&self.partition),
            &self.name,
        )
    }
}

/// Creates the commit; from here on it counts.
///
/// # Errors
/// [`LedgerError::Lost`] when another run has made a commit of this number.
pub async fn commit(store: &Store, commit: &Commit) -> Result<(), LedgerError> {
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
pub async fn mark_published(store: &Store, marker: &Published) -> Result<(), LedgerError> {
    let key = layout::published_key(marker.number);
    store.create(&key, to_bytes(marker, store, &key)?).await?;
    Ok(())
}

fn to_bytes<T: serde::Serialize>(
    value: &T,
    store: &Store,
    key: &str,
) -> Result<Bytes, LedgerError> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|e| LedgerError::Damaged {
            url: store.url_of(key),
            message: e.to_string(),
        })
}

async fn read<T: serde::de::DeserializeOwned>(store: &Store, key: &str) -> Result<T, LedgerError> {
    #[derive(serde::Deserialize)]
    struct Head {
        format: u32,
    }
    let damaged = |message: String| LedgerError::Damaged {
        url: store.url_of(key),
        message,
    };
    let bytes = store
        .read(key)
        .await?
        .ok_or_else(|| damaged("it is gone".to_owned()))?;
    let head: Head = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    if head.format != FORMAT {
        return Err(LedgerError::Format {
            url: store.url_of(key),
            found: head.format,
        });
    }
    serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))
}
