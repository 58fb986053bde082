//! What the log says, folded: the state of a lake.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use super::format::{Balance, Commit, FileEntry, FoundFile, MartEntry, Published};
use super::{LedgerError, Objects, Settings, checkpoint, log};
use crate::layout;
use crate::store::Store;

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
        log::fold(&mut state, store).await?;
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

    /// Takes a published commit in.
    pub(super) fn take(&mut self, commit: &Commit, marker: &Published) {
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
