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
use crate::store::{Publish, Store, StoreError};

/// Files staged or published at once.
const AT_ONCE: usize = 8;
/// Files whose ETags are asked for at once.
const LOOKED_AT_ONCE: usize = 32;
/// What one PUT of S3 takes; a conditional put takes the whole file.
const LARGEST_PUT: u64 = 5 << 30;

/// What keeps a commit from being published.
#[derive(Debug, thiserror::Error)]
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
        "{url} is gone, and was staged for a commit that is not published, or whose marker is lost: \
         `rawmart verify --repair` makes what is missing anew"
    )]
    StagedGone { url: String },
    #[error(
        "{url} was staged by an earlier run, and its bytes are not those any more: `rawmart verify --repair` \
         makes what it holds anew"
    )]
    DamagedStage { url: String },
}

/// Files of a commit that are staged.
#[derive(Debug, Default)]
pub struct Staged {
    pub entries: Vec<FileEntry>,
    /// By staged key, where their content still lies on local disk, if they are staged in a bucket.
    local: BTreeMap<String, PathBuf>,
}

/// Published files whose content still lies on local disk; there no more when this is dropped.
#[derive(Debug, Default)]
pub struct Local {
    /// By key.
    pub files: BTreeMap<String, PathBuf>,
}

impl Drop for Local {
    fn drop(&mut self) {
        self.files.values().for_each(|file| forget(file));
    }
}

impl Staged {
    /// The files, without what still lies on local disk.
    pub fn only_staged(self) -> Vec<FileEntry> {
        self.local.values().for_each(|file| forget(file));
        self.entries
    }

    /// What lies on local disk, once it is published.
    pub fn published(self) -> Local {
        let Self { entries, mut local } = self;
        let files = entries
            .iter()
            .filter_map(|entry| Some((entry.key(), local.remove(&entry.staged)?)));
        Local {
            files: files.collect(),
        }
    }

    /// Adds what was staged by another call.
    pub fn append(&mut self, other: Self) {
        self.entries.extend(other.entries);
        self.local.extend(other.local);
    }
}

/// Brings local files under the staging folder of commit `n` as they come. `memory` in bytes bounds what is
/// in flight.
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
    // After a failure no other file is begun, and those on their way are waited for: on disk they would come
    // after what was staged is taken back.
    let failed = AtomicBool::new(false);
    let files = files.take_while(|_| ready(!failed.load(Ordering::Relaxed)));
    let uploads = files.map(|file| {
        let partition = layout::partition_folder(&file.partition);
        let key = layout::file_key(&file.table, &partition, &file.name);
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

/// Takes back what was staged for a commit that will not be made.
///
/// # Errors
/// A store that does not answer.
pub async fn unstage(store: &Store, n: u64, run: &str) -> Result<(), StoreError> {
    let staged = store.list(&layout::staging_folder(n, run)).await?;
    let keys = staged.objects.into_iter().map(|object| object.key);
    store.delete(keys.collect()).await
}

/// SHA-256 of a local file, in hex.
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

/// Memory shared by files in flight; a file larger than all of it goes alone.
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

/// Whether the staged copy of a file has the bytes that the log says, as far as it says them; `None` where
/// there is none.
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

/// Proves that what an earlier run has staged for a commit is what it was.
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

/// Checks that every file that a commit replaces is still what was published, and that every new
/// name is free. Once committed, a file that cannot be put would keep the lake from going on.
///
/// # Errors
/// The first file that another run, or somebody else, has changed, removed or put.
pub async fn check(store: &Store, commit: &Commit, state: &State) -> Result<(), PublishError> {
    let looks = commit.files.iter().map(|entry| async move {
        let key = entry.key();
        let expected = state.files.get(&key).and_then(|file| file.etag.as_ref());
        let found = store.head(&key).await?;
        let untouched = match (expected, found) {
            (None, found) => found.is_none(),
            (Some(_), None) => false,
            (Some(expected), Some(found)) => found.etag.is_none_or(|etag| etag == *expected),
        };
        match untouched {
            true => Ok(()),
            false => Err(changed(store, commit, &key).await?),
        }
    });
    // Asked for one by one, and not listed: that would cost what the whole table has.
    stream::iter(looks)
        .buffer_unordered(LOOKED_AT_ONCE)
        .try_collect()
        .await
}

/// Who may have changed a file that a commit replaces.
async fn changed(store: &Store, commit: &Commit, key: &str) -> Result<PublishError, StoreError> {
    let url = store.url_of(key);
    let next = store.head(&layout::commit_key(commit.number)).await?;
    Ok(match next {
        Some(_) => PublishError::Overtaken { url },
        None => PublishError::Foreign { url },
    })
}

/// The whole spill folder goes when the run ends; a file that cannot go now goes then.
fn forget(path: &Path) {
    let _ = std::fs::remove_file(path);
}

/// Brings every file of a commit to its final name. May be repeated after any interruption.
/// `state` is the lake with this commit applied; `memory` in bytes bounds what is in flight. What this
/// run has `staged` need not be read back.
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
    sweep_those(store, |n| n <= published).await
}

/// Deletes what dead runs have staged for commits that they have not made. Only on disk, whose lock is held,
/// is it known that they are dead: on a full one it is in the way.
///
/// # Errors
/// A store that does not answer.
pub async fn sweep_dead(store: &Store, state: &State) -> Result<(), StoreError> {
    match store.is_local() && state.unpublished.is_none() {
        true => sweep_those(store, |n| n > state.last).await,
        false => Ok(()),
    }
}

/// Deletes what is staged for some commits.
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
