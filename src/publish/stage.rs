//! Staged → committed → published → swept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::ready;
use futures::{Stream, StreamExt, TryFutureExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::merge::Finished;
use crate::layout;
use crate::ledger::{self, Commit, FileEntry, Published, PublishedFile, State};
use crate::store::{Publish, Remove, Store, StoreError};

/// The number of files that are staged or published at once.
const AT_ONCE: usize = 8;
/// The number of files whose ETags are asked for at once.
const LOOKED_AT_ONCE: usize = 32;
/// The most bytes of one PUT of S3. A conditional put takes the whole file.
const LARGEST_PUT: u64 = 5 << 30;

/// The reason why a commit cannot be published.
#[derive(Debug, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "the text of each error says what its fields are"
)]
pub enum PublishError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "{url} is not what the log says was published there, so it was not replaced: something \
         else writes into the lake, or the lake is a copy. `rawmart verify` names all such files, \
         `rawmart verify --repair` brings back what was published"
    )]
    Foreign { url: String },
    #[error(
        "{key} has {bytes} bytes, and one PUT takes 5 GiB: set a smaller `slice` for its source, or \
         partition the mart"
    )]
    TooLarge { key: String, bytes: u64 },
    #[error("reading {file}: {source}")]
    Local {
        file: String,
        source: std::io::Error,
    },
    #[error("{url} was changed by another run meanwhile; nothing is lost, run again")]
    Overtaken { url: String },
    #[error(
        "{url} is gone. It was staged for a commit that is not published or whose marker is lost: `rawmart \
         verify --repair` makes the missing files again"
    )]
    StagedGone { url: String },
    #[error(
        "{url} was staged by an earlier run, and its bytes have changed since: `rawmart verify --repair` makes \
         the file again"
    )]
    DamagedStage { url: String },
}

/// The staged files of a commit.
#[derive(Debug, Default)]
pub struct Staged {
    /// The entries of the files, in the order in which they were staged.
    pub entries: Vec<FileEntry>,
    /// For files that are staged in a bucket: the local file with the same content, by staged key.
    local: BTreeMap<String, PathBuf>,
}

/// Published files whose content still lies on local disk. The local files are deleted when this value is
/// dropped.
#[derive(Debug, Default)]
pub struct Local {
    /// The local files by key.
    pub files: BTreeMap<String, PathBuf>,
}

impl Drop for Local {
    fn drop(&mut self) {
        self.files.values().for_each(|file| forget(file));
    }
}

impl Staged {
    /// The staged files. Their local copies are deleted.
    pub fn only_staged(self) -> Vec<FileEntry> {
        self.local.values().for_each(|file| forget(file));
        self.entries
    }

    /// The local copies, once the files with these entries are published.
    pub fn published(self, entries: &[FileEntry]) -> Local {
        let Self { mut local, .. } = self;
        let files = entries
            .iter()
            .filter_map(|entry| Some((entry.key(), local.remove(&entry.staged)?)));
        Local {
            files: files.collect(),
        }
    }

    /// Adds the files that another call has staged.
    pub fn append(&mut self, other: Self) {
        self.entries.extend(other.entries);
        self.local.extend(other.local);
    }
}

/// Puts local files under the staging folder of commit `n` as they come. `memory` is the most bytes that are on
/// their way at once.
///
/// # Errors
/// A store that does not answer or is full; a file too large to be published later.
pub async fn stage(
    store: &Store,
    n: u64,
    run: &str,
    files: impl Stream<Item = Finished>,
    memory: u64,
) -> Result<Staged, PublishError> {
    let folder = layout::staging_folder(n, run);
    let room = Room::new(memory);
    // After a failure no further file is begun, and the files on their way are waited for. On disk they would
    // otherwise come back after the staged files were deleted.
    let failed = AtomicBool::new(false);
    let files = files.take_while(|_| ready(!failed.load(Ordering::Relaxed)));
    let uploads = files.map(|file| {
        let partition = layout::partition_folder(&file.partition);
        let place = layout::data_folder(&file.table, &partition, None);
        let key = format!("{place}{}", file.name);
        let staged = format!("{folder}{key}");
        let room = &room;
        let upload = async move {
            if !store.is_local() && file.bytes > LARGEST_PUT {
                return Err(PublishError::TooLarge {
                    key,
                    bytes: file.bytes,
                });
            }
            let _room = room.take(file.bytes).await;
            let sha256 = hash(&file.path).await?;
            store.upload(&staged, &file.path).await?;
            let local = match store.is_local() {
                true => {
                    forget(&file.path);
                    None
                }
                false => Some((staged.clone(), file.path)),
            };
            let entry = FileEntry {
                table: file.table,
                partition: file.partition,
                name: file.name,
                rows: file.rows,
                bytes: file.bytes,
                times: file.times,
                staged,
                sha256: Some(sha256),
                version: None,
                written: None,
            };
            Ok((entry, local))
        };
        upload.inspect_err(|_| failed.store(true, Ordering::Relaxed))
    });
    let uploaded: Vec<Result<_, PublishError>> = uploads.buffer_unordered(AT_ONCE).collect().await;
    let uploaded = uploaded.into_iter().collect::<Result<Vec<_>, _>>()?;
    let (mut entries, local): (Vec<FileEntry>, Vec<_>) = uploaded.into_iter().unzip();
    entries.sort_by_key(FileEntry::key);
    Ok(Staged {
        entries,
        local: local.into_iter().flatten().collect(),
    })
}

/// Deletes the files that were staged for a commit that will not be made.
///
/// # Errors
/// A store that does not answer.
pub async fn unstage(store: &Store, n: u64, run: &str) -> Result<(), StoreError> {
    let staged = store.list(&layout::staging_folder(n, run)).await?;
    let keys = staged.objects.into_iter().map(|object| object.key);
    store.delete(keys.collect()).await
}

/// The SHA-256 of a local file.
async fn hash(path: &Path) -> Result<ledger::Sha256, PublishError> {
    let file = path.to_owned();
    let hashed = tokio::task::spawn_blocking(move || {
        let mut hash = Sha256::new();
        std::io::copy(&mut std::fs::File::open(file)?, &mut hash)?;
        Ok(ledger::Sha256(hash.finalize().into()))
    });
    let hashed = hashed
        .await
        .unwrap_or_else(|join| Err(std::io::Error::other(join)));
    hashed.map_err(|source| PublishError::Local {
        file: path.display().to_string(),
        source,
    })
}

/// The memory for files on their way. A file larger than all of it goes alone.
struct Room {
    mebibytes: Semaphore,
    all: u32,
}

impl Room {
    fn new(memory: u64) -> Self {
        let all = u32::try_from((memory >> 20).max(1)).unwrap_or(u32::MAX >> 4);
        Self {
            mebibytes: Semaphore::new(all as usize),
            all,
        }
    }

    async fn take(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        let wanted = u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        self.mebibytes.acquire_many(wanted.min(self.all)).await.ok()
    }
}

/// Whether the staged copy of a file has the bytes that the log describes; `None` if there is no copy.
///
/// # Errors
/// A store that does not answer.
pub async fn is_staged_whole(store: &Store, entry: &FileEntry) -> Result<Option<bool>, StoreError> {
    let found = store.sha256(&entry.staged).await?;
    Ok(found.map(|(_, found)| {
        let expected = entry.sha256;
        expected.is_none_or(|expected| expected == ledger::Sha256(found))
    }))
}

/// Proves that the files that an earlier run has staged for a commit are still the same.
///
/// # Errors
/// The first staged file that is damaged; a store that does not answer.
pub async fn prove(store: &Store, commit: &Commit) -> Result<(), PublishError> {
    let looks = commit.files.iter().map(|entry| async move {
        match is_staged_whole(store, entry).await? {
            Some(false) => Err(PublishError::DamagedStage {
                url: store.url_of(&entry.staged),
            }),
            Some(true) | None => Ok(()),
        }
    });
    stream::iter(looks)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// Checks that every file that a commit replaces or takes away is still the published one, and that every new name is
/// free. A file that cannot be put after the commit would block the lake. A file that is to be taken away may be gone
/// already.
///
/// # Errors
/// The first file that another run or somebody else has changed, removed or put there.
pub async fn check(store: &Store, commit: &Commit, state: &State) -> Result<(), PublishError> {
    let replaced = commit.files.iter().map(|entry| {
        let key = entry.key();
        let expected = state.etag(&key);
        (key, expected, false)
    });
    let removed = commit.removed.iter();
    let removed = removed.map(|file| (file.key.clone(), file.etag.clone(), true));
    let looks = replaced
        .chain(removed)
        .map(|(key, expected, may_be_gone)| async move {
            let found = store.head(&key).await?;
            let untouched = match (&expected, found) {
                (None, found) => found.is_none(),
                (Some(_), None) => may_be_gone,
                (Some(expected), Some(found)) => found.etag.is_none_or(|etag| etag == *expected),
            };
            match untouched {
                true => Ok(()),
                false => Err(changed(store, commit, &key).await?),
            }
        });
    // The files are asked for one by one. A listing would cost as much as the whole table has files.
    stream::iter(looks)
        .buffer_unordered(LOOKED_AT_ONCE)
        .try_collect()
        .await
}

/// Whether each of some published files is there, with the ETag that is expected of it.
///
/// # Errors
/// A store that does not answer.
pub async fn are_there(
    store: &Store,
    files: Vec<(&str, Option<&str>)>,
) -> Result<Vec<bool>, StoreError> {
    let looks = files.into_iter().map(|(key, expected)| async move {
        let found = store.head(key).await?;
        Ok(found.is_some_and(|found| match (&found.etag, expected) {
            (Some(found), Some(expected)) => found == expected,
            _ => true,
        }))
    });
    stream::iter(looks)
        .buffered(LOOKED_AT_ONCE)
        .try_collect()
        .await
}

/// Finds out who has changed a file that a commit replaces, copies or takes away.
///
/// # Errors
/// A store that does not answer.
pub async fn changed(
    store: &Store,
    commit: &Commit,
    key: &str,
) -> Result<PublishError, StoreError> {
    let url = store.url_of(key);
    let next = store.head(&layout::commit_key(commit.number)).await?;
    Ok(match next {
        Some(_) => PublishError::Overtaken { url },
        None => PublishError::Foreign { url },
    })
}

/// The whole spill folder is deleted when the run ends, so a file that cannot be deleted now is deleted then.
fn forget(path: &Path) {
    let _ = std::fs::remove_file(path);
}

/// Puts every file of a commit under its final name, then deletes the files that it takes away. This may be repeated
/// after any interruption. `state` is the state with this commit applied. `memory` is the most bytes that are on their
/// way at once. Files that this run has `staged` are read from its own disk.
///
/// # Errors
/// A file of the lake that somebody else has changed.
pub async fn publish(
    store: &Store,
    commit: &Commit,
    staged: &Staged,
    state: &State,
    memory: u64,
) -> Result<Published, PublishError> {
    let room = Room::new(memory);
    let puts = commit.files.iter().map(|entry| {
        let key = entry.key();
        let expected = state.files.get(&key).and_then(|file| file.etag.clone());
        let room = &room;
        async move {
            let _room = room.take(entry.bytes).await;
            let (from, expected) = (&entry.staged, expected.as_deref());
            let local = staged.local.get(from).map(PathBuf::as_path);
            let put = store.publish_from(local, from, &key, expected);
            match put.await? {
                Publish::Done(put) => Ok(PublishedFile {
                    key,
                    etag: put.etag,
                }),
                Publish::Conflict => Err(PublishError::Foreign {
                    url: store.url_of(&key),
                }),
                Publish::StagedGone => Err(PublishError::StagedGone {
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
    // Last: a reader finds the rows at their new places before the old places are gone.
    let removals = commit.removed.iter().map(|removed| async move {
        match store.remove(&removed.key, removed.etag.as_deref()).await? {
            Remove::Done => Ok(()),
            Remove::Conflict => Err(PublishError::Foreign {
                url: store.url_of(&removed.key),
            }),
        }
    });
    stream::iter(removals)
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    Ok(Published {
        format: crate::ledger::FORMAT,
        number: commit.number,
        files,
    })
}

/// Deletes the staged files of published commits.
///
/// # Errors
/// A store that does not answer.
pub async fn sweep(store: &Store, state: &State) -> Result<(), StoreError> {
    let published = match &state.unpublished {
        Some(commit) => commit.number - 1,
        None => state.last,
    };
    sweep_those(store, |n| n <= published).await
}

/// Deletes the staged files of dead runs whose commits were never made. This happens only on disk: the lock is
/// held, so these runs are known to be dead, and their files may fill the disk.
///
/// # Errors
/// A store that does not answer.
pub async fn sweep_dead(store: &Store, state: &State) -> Result<(), StoreError> {
    match store.is_local() && state.unpublished.is_none() {
        true => sweep_those(store, |n| n > state.last).await,
        false => Ok(()),
    }
}

/// Deletes the staged files of some commits.
async fn sweep_those(store: &Store, those: impl Fn(u64) -> bool) -> Result<(), StoreError> {
    let staged = store.list(layout::STAGING).await?;
    let old = staged
        .objects
        .into_iter()
        .map(|object| object.key)
        .filter(|key| layout::staged_for(key).is_some_and(&those))
        .collect();
    store.delete(old).await
}
