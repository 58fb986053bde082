//! Retired versions of partitions are deleted when no query can read them any more.
//!
//! ```text
//! commit 12 retires a version of a partition
//!   ─▶ the catalog was told of commit 12            ─▶ note: told of 12 at this time
//!   ─▶ a run `retain` after the note, or later      ─▶ no partition of the catalog is there? ─▶ COMMIT: removed
//! ```
//!
//! # Contract
//!
//! A query that began before the catalog was told of the next version reads the earlier version. So the time of a
//! version ends `retain` after a moment at which the catalog certainly knew the next one. This moment is written into the
//! lake, because the catalog keeps only the last one. Two runs may write such a note each. Both are true.
//!
//! Another run may have written an older location into the catalog and died. So the catalog is asked before anything is
//! deleted. A partition that is elsewhere is told again, and the notes are dropped: the time begins anew.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::tell::Telling;
use super::{Context, RunError};
use crate::lake::{self, Lake, Writing};
use crate::layout;
use crate::ledger::{Commit, RemovedFile};
use crate::publish::Staged;

/// Deletes the data files of versions that no query reads any more. `retain_ms` is the time that they stay, in
/// milliseconds.
///
/// # Errors
/// A store that does not answer; another run; a retired file that somebody has changed.
pub async fn retire(
    telling: &mut Telling<'_>,
    lake: &mut Lake<Writing>,
    context: &Context,
    retain_ms: i64,
) -> Result<(), RunError> {
    let state = lake.state();
    let Some(newest) = state.retired.values().map(|file| file.commit).max() else {
        return Ok(());
    };
    if !telling.is_told(state.last) {
        return Ok(());
    }
    let now = context.now + context.begun.elapsed();
    let now = now.timestamp_millis();
    let mut told = notes(lake).await?;
    if told.iter().all(|(n, _)| *n < newest) {
        told.push((state.last, now));
        note(lake, state.last, now).await?;
    }
    let expired = lake::expired(state, &told, now.saturating_sub(retain_ms));
    if expired.is_empty() {
        return Ok(());
    }
    let read = telling.correct(lake, &folders(lake, &expired)).await;
    if read != Some(false) {
        forget(lake, &told, u64::MAX).await?;
        return Ok(());
    }
    telling.note_expired(expired.len());
    let commit = Commit {
        removed: expired,
        ..lake.new_commit()
    };
    lake.commit(commit, Staged::default()).await?;
    let needed = lake.state().retired.values().map(|file| file.commit);
    let needed = needed.min().unwrap_or(u64::MAX);
    forget(lake, &told, needed).await
}

/// The folders of some files by table, as URLs.
fn folders(lake: &Lake<Writing>, files: &[RemovedFile]) -> BTreeMap<String, BTreeSet<String>> {
    let mut folders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let url = lake.store().url_of(&file.key);
        if let Some((folder, _)) = url.rsplit_once('/') {
            let of_table = folders.entry(layout::table_of(&file.key).to_owned());
            of_table.or_default().insert(format!("{folder}/"));
        }
    }
    folders
}

/// The commits that the catalog was told of, each with the time in milliseconds since 1970.
async fn notes(lake: &Lake<Writing>) -> Result<Vec<(u64, i64)>, RunError> {
    let listing = lake.store().list(layout::TOLD).await?;
    let keys = listing.objects.iter();
    Ok(keys
        .filter_map(|found| layout::told_of(&found.key))
        .collect())
}

async fn note(lake: &Lake<Writing>, n: u64, at_ms: i64) -> Result<(), RunError> {
    let run = Bytes::from(lake.run().to_owned());
    lake.store()
        .create(&layout::told_key(n, at_ms), run)
        .await?;
    Ok(())
}

/// Deletes the notes of commits before `needed`.
async fn forget(lake: &Lake<Writing>, told: &[(u64, i64)], needed: u64) -> Result<(), RunError> {
    let old = told.iter().filter(|(n, _)| *n < needed);
    let old = old.map(|(n, at_ms)| layout::told_key(*n, *at_ms));
    Ok(lake.store().delete(old.collect()).await?)
}
