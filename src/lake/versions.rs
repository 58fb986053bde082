//! Versions of partitions: what a commit says where each partition has a place of its own for each of its versions.
//!
//! ```text
//! a commit changes one file of dt=2019-04-02, whose version is 7
//!   ─▶ rawmart-versions/events/dt=2019-04-02/<12>/   the changed file, and copies of the other files of version 7
//!   ─▶ the files of version 7 are retired: not in the lake any more, but still there
//! the catalog was told of commit 12, and `retain` has passed ─▶ a commit removes them
//! ```
//!
//! # Contract
//!
//! All data files of a partition have one version. The folder of a version holds the files of this version and no
//! others, and no file in it is ever replaced. A lake whose partitions are published below the roots of their tables has
//! files without a version. [`Lake::commit`] makes the partitions that it changes what its writer wants, so a lake may
//! hold partitions of both kinds. [`Lake::convert`] leaves partitions of one kind alone.

use std::collections::{BTreeMap, BTreeSet};

use super::{Committed, Lake, LakeError, Writing};
use crate::ledger::{Commit, File, FileEntry, RemovedFile, State};
use crate::publish::{self, Staged};

/// The file of a partition that a commit leaves as it is.
struct Stays<'s> {
    key: &'s str,
    file: &'s File,
}

impl Lake<Writing> {
    /// Publishes every partition in the way of this writer, as copies. `None` where all partitions are published so.
    ///
    /// # Errors
    /// See [`Lake::commit`].
    pub async fn convert(&mut self) -> Result<Option<Committed>, LakeError> {
        let wanted = self.permission.writer.versions;
        let mut files = self.state.files.values();
        if files.all(|file| file.entry.version.is_some() == wanted) {
            return Ok(None);
        }
        let mut commit = self.new_commit();
        let others = self.state.files.iter();
        let others = others.filter(|(_, file)| file.entry.version.is_some() != wanted);
        let others = others.map(|(key, file)| Stays { key, file });
        self.copy(&mut commit, others.collect()).await?;
        Ok(Some(self.make(commit, Staged::default()).await?))
    }

    /// Gives the files of a commit their version, and adds the other files of the same partitions, so that each
    /// partition is whole in one folder.
    pub(super) async fn version(&self, commit: &mut Commit) -> Result<(), LakeError> {
        let version = self.version_of(commit);
        for entry in &mut commit.files {
            entry.version = version;
        }
        let files = commit.files.iter();
        let keys: BTreeMap<String, String> =
            files.map(|entry| (entry.place(), entry.key())).collect();
        let files = commit.files.iter();
        let partitions: BTreeSet<_> = files
            .map(|entry| (&entry.table, &entry.partition))
            .collect();
        let removed: BTreeSet<&String> = commit.removed.iter().map(|file| &file.key).collect();
        let mut retired = Vec::new();
        let mut stay = Vec::new();
        for (key, file) in &self.state.files {
            let of_partition = (&file.entry.table, &file.entry.partition);
            if !partitions.contains(&of_partition) || removed.contains(key) {
                continue;
            }
            match keys.get(&file.entry.place()) {
                Some(same) if same == key => {}
                Some(_) => retired.push(key.clone()),
                None if file.entry.version == version => {}
                None => stay.push(Stays { key, file }),
            }
        }
        commit.retired.extend(retired);
        self.copy(commit, stay).await?;
        if version.is_some() {
            // Whoever reads the location that the catalog still has finds the file.
            let (retired, removed): (Vec<_>, Vec<_>) = std::mem::take(&mut commit.removed)
                .into_iter()
                .partition(|file| self.state.files.contains_key(&file.key));
            commit.removed = removed;
            commit
                .retired
                .extend(retired.into_iter().map(|file| file.key));
        }
        Ok(())
    }

    /// The version of the files that a commit of this writer publishes.
    fn version_of(&self, commit: &Commit) -> Option<u64> {
        self.permission.writer.versions.then_some(commit.number)
    }

    /// Adds copies of published files to a commit, and retires the files that are copied. A repair leaves a file that
    /// is not there as it is: another of its commits makes the file again.
    async fn copy(&self, commit: &mut Commit, files: Vec<Stays<'_>>) -> Result<(), LakeError> {
        let looked = files.iter().map(|stays| {
            let etag = stays.file.etag.as_deref();
            (stays.key, etag.filter(|etag| !etag.is_empty()))
        });
        let there = publish::are_there(&self.store, looked.collect()).await?;
        let version = self.version_of(commit);
        let repairs = !commit.found.is_empty();
        for (Stays { key, file }, there) in files.into_iter().zip(there) {
            if !there && repairs {
                continue;
            }
            if !there {
                let error = publish::changed(&self.store, commit, key).await?;
                return Err(error.into());
            }
            commit.files.push(FileEntry {
                staged: key.to_owned(),
                version,
                written: Some(file.written()),
                ..file.entry.clone()
            });
            commit.retired.push(key.to_owned());
        }
        Ok(())
    }
}

/// The retired files that may be deleted. `told` are commits, each with the time at which the catalog knew it, and
/// `until` is the last time at which it may have been told of their retirement; in milliseconds since 1970.
pub fn expired(state: &State, told: &[(u64, i64)], until: i64) -> Vec<RemovedFile> {
    let told = told.iter().filter(|(_, at)| *at <= until);
    let newest = told.map(|(n, _)| *n).max().unwrap_or(0);
    let retired = state.retired.iter();
    let expired = retired.filter(|(_, retired)| retired.commit <= newest);
    let expired = expired.map(|(key, retired)| RemovedFile {
        key: key.clone(),
        etag: retired.etag.clone(),
    });
    expired.collect()
}
