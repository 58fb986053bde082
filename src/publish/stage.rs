//! Staged → committed → published → swept.

use std::path::PathBuf;

use futures::{StreamExt, TryStreamExt, stream};

use super::merge::Finished;
use crate::layout;
use crate::ledger::{Commit, FileEntry, Published, PublishedFile, State};
use crate::store::{Publish, Store, StoreError};

/// Files staged or published at once.
const AT_ONCE: usize = 8;

/// What keeps a commit from being published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "{url} is not what the log says was published there: something else writes into the lake; \
             `rawmart verify` names the files"
    )]
    Foreign { url: String },
    #[error("{url} is gone: another run has published this commit meanwhile; run again")]
    Overtaken { url: String },
}

/// Brings local files under the staging folder of commit `n`, and removes them from local disk.
///
/// # Errors
/// A store that does not answer or is full.
pub async fn stage(
    store: &Store,
    n: u64,
    run: &str,
    files: Vec<Finished>,
) -> Result<Vec<FileEntry>, StoreError> {
    let folder = layout::staging_folder(n, run);
    let uploads = files.into_iter().map(|file| {
        let partition = layout::partition_folder(&file.partition);
        let staged = format!(
            "{folder}{}",
            layout::file_key(&file.table, &partition, &file.name)
        );
        async move {
            store.upload(&staged, &file.path).await?;
            forget(file.path);
            Ok(FileEntry {
                table: file.table,
                partition: file.partition,
                name: file.name,
                rows: file.rows,
                bytes: file.bytes,
                times: file.times,
                staged,
            })
        }
    });
    let mut entries: Vec<FileEntry> = stream::iter(uploads)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    entries.sort_by_key(FileEntry::key);
    Ok(entries)
}

/// The whole spill folder goes when the run ends; a file that cannot go now goes then.
fn forget(path: PathBuf) {
    let _ = std::fs::remove_file(path);
}

/// Brings every file of a commit to its final name. May be repeated after any interruption.
/// `state` is the lake with this commit applied.
///
/// # Errors
/// A file of the lake that somebody else has changed.
pub async fn publish(
    store: &Store,
    commit: &Commit,
    state: &State,
) -> Result<Published, PublishError> {
    let puts = commit.files.iter().map(|entry| {
        let key = entry.key();
        let expected = state.files.get(&key).and_then(|file| file.etag.clone());
        async move {
            match store
                .publish(&entry.staged, &key, expected.as_deref())
                .await?
            {
                Publish::Done(put) => Ok(PublishedFile {
                    key,
                    etag: put.etag,
                }),
                Publish::Conflict => Err(PublishError::Foreign {
                    url: store.url_of(&key),
                }),
                Publish::StagedGone => Err(PublishError::Overtaken {
                    url: store.url_of(&entry.staged),
                }),
            }
        }
    });
    let mut files: Vec<PublishedFile> = stream::iter(puts)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    files.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(Published {
        format: crate::ledger::FORMAT,
        number: commit.number,
        files,
    })
}

/// Deletes what is staged for commits that are published.
///
/// # Errors
/// A store that does not answer.
pub async fn sweep(store: &Store, state: &State) -> Result<(), StoreError> {
    let published = match &state.unpublished {
        Some(commit) => commit.number - 1,
        None => state.last,
    };
    let staged = store.list(layout::STAGING).await?;
    let old = staged
        .objects
        .into_iter()
        .map(|object| object.key)
        .filter(|key| layout::staged_for(key).is_some_and(|n| n <= published))
        .collect();
    store.delete(old).await
}
