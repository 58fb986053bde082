//! The state of a lake: the commits of its log, folded.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use super::format::{Balance, Commit, FileEntry, FoundFile, MartEntry, Published};
use super::{Objects, Settings};
use crate::layout;

/// A data file, as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The commit that last put it where it is.
    pub commit: u64,
    /// The entry of the commit.
    pub entry: FileEntry,
    /// `None` until its commit is published.
    pub etag: Option<String>,
}

impl File {
    /// The commit that wrote the content of the file.
    pub fn written(&self) -> u64 {
        self.entry.written.unwrap_or(self.commit)
    }
}

/// An object of a data file that the lake has no more. Queries in flight may read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// The commit that retired it.
    pub commit: u64,
    /// The ETag that it was published with.
    pub etag: Option<String>,
}

/// The state of one source.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SourceState {
    /// The settings that decide the content of its tables; `None` if only commits of format 1 are known.
    pub settings: Option<Settings>,
    /// The raw objects that were absorbed, by identity.
    pub objects: Objects,
    /// Raw objects that were dropped for good, by identity, with the commit that dropped each.
    pub dropped: BTreeMap<String, u64>,
    /// The counts of all its raw objects.
    pub balance: Balance,
}

/// A mart, as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MartState {
    /// The commit that last built it.
    pub commit: u64,
    /// The entry of the commit.
    pub entry: MartEntry,
}

/// The state of a lake.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// The last commit; 0 before the first.
    pub last: u64,
    /// The name of the run that made the last commit.
    pub run: String,
    /// The last commit, if it is not published yet.
    pub unpublished: Option<Commit>,
    /// The sources by name.
    pub sources: BTreeMap<String, SourceState>,
    /// The data files by their key below the lake.
    pub files: BTreeMap<String, File>,
    /// Files of earlier versions whose objects stay for a while, by their key below the lake.
    pub retired: BTreeMap<String, Retired>,
    /// The columns of each table.
    pub columns: BTreeMap<String, Vec<(String, String)>>,
    /// The marts by name.
    pub marts: BTreeMap<String, MartState>,
}

impl State {
    /// Applies a published commit.
    pub(super) fn take(&mut self, commit: &Commit, marker: &Published) {
        self.apply(commit);
        self.mark(marker);
    }

    /// Applies a commit.
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
            for object in &delta.dropped {
                source.objects.remove(&object.key);
                source.dropped.insert(object.key.clone(), commit.number);
            }
            for object in &delta.objects {
                source.objects.insert(object.clone());
            }
        }
        self.find(&commit.found);
        for removed in &commit.removed {
            self.files.remove(&removed.key);
            self.retired.remove(&removed.key);
        }
        for key in &commit.retired {
            if let Some(file) = self.files.remove(key) {
                let retired = Retired {
                    commit: commit.number,
                    etag: file.etag,
                };
                self.retired.insert(key.clone(), retired);
            }
        }
        for entry in &commit.files {
            let key = entry.key();
            let etag = self.etag(&key);
            self.retired.remove(&key);
            let file = File {
                commit: commit.number,
                entry: entry.clone(),
                etag,
            };
            self.files.insert(key, file);
        }
        for (table, columns) in &commit.columns {
            self.columns.insert(table.clone(), columns.clone());
        }
        for mart in &commit.dropped {
            self.columns.remove(mart);
            self.marts.remove(mart);
        }
        for mart in &commit.marts {
            let state = MartState {
                commit: commit.number,
                entry: mart.clone(),
            };
            self.marts.insert(mart.name.clone(), state);
        }
    }

    /// The ETag of the object that lies under the key of a data file, as far as the log knows: the file is published,
    /// or retired.
    pub fn etag(&self, key: &str) -> Option<String> {
        match self.files.get(key) {
            Some(file) => file.etag.clone(),
            None => self.retired.get(key)?.etag.clone(),
        }
    }

    /// Replaces the ETags of published files by those that a repair has found.
    pub fn find(&mut self, found: &[FoundFile]) {
        for found in found {
            if let Some(file) = self.files.get_mut(&found.key) {
                file.etag.clone_from(&found.etag);
            }
        }
    }

    /// Applies the marker of the last commit.
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

    /// The version of a table: the last commit that wrote one of its files, or that built the mart. A build may
    /// have given the mart no rows.
    pub fn version(&self, table: &str) -> u64 {
        let built = self.marts.get(table).map(|mart| mart.commit);
        let wrote = self.table(table).map(|file| file.commit);
        wrote.chain(built).max().unwrap_or(0)
    }
}

impl FileEntry {
    /// The date of its partition; `None` if it has no `dt`, or if its `dt` is no date.
    pub fn date(&self) -> Option<NaiveDate> {
        layout::date_of(&self.partition)
    }

    /// The final key of the file, below the lake.
    pub fn key(&self) -> String {
        self.key_in(self.version)
    }

    /// The place of the file: its table, partition and name. All versions of a file have one place.
    pub fn place(&self) -> String {
        self.key_in(None)
    }

    fn key_in(&self, version: Option<u64>) -> String {
        let partition = layout::partition_folder(&self.partition);
        let folder = layout::data_folder(&self.table, &partition, version);
        format!("{folder}{}", self.name)
    }
}
