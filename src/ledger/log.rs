//! The objects of the log. They are read key by key and created once, and damaged ones are named.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::stream::{self, FuturesOrdered};
use futures::{Stream, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::format::{Commit, FORMAT, FileEntry, OLDEST, Published, PublishedFile};
use super::{LedgerError, State, seal};
use crate::layout;
use crate::store::{LockGuard, Store, StoreErrorKind};

/// The number of commits that are read at once, each with its marker. A gap is looked for as far beyond the
/// end.
pub(super) const READ_AHEAD: usize = 16;

/// Applies every commit after the last one to a state.
pub(super) async fn fold(state: &mut State, store: &Store) -> Result<(), LedgerError> {
    loop {
        let mut next = state.last + 1;
        let mut ahead = FuturesOrdered::new();
        let end = loop {
            while ahead.len() < READ_AHEAD {
                ahead.push_back(entry(store, next));
                next += 1;
            }
            match ahead.try_next().await? {
                Some((Some(commit), Some(marker))) => state.take(&commit, &marker),
                Some((commit, marker)) => break (commit, marker),
                None => break (None, None),
            }
        };
        let n = state.last + 1;
        let beyond: Vec<_> = ahead.try_collect().await?;
        let there = |(commit, marker): &Entry| commit.is_some() || marker.is_some();
        let later = (n + 1..).zip(&beyond).find(|(_, found)| there(found));
        let later = match &end {
            (None, Some(_)) => Some(n),
            _ => later.map(|(later, _)| later),
        };
        let Some(later) = later else {
            if let (Some(commit), _) = end {
                state.apply(&commit);
                state.unpublished = Some(commit);
            }
            return Ok(());
        };
        // A later object was written after this one. So this one is there by now, or it is lost.
        match entry(store, n).await? {
            (Some(commit), Some(marker)) => state.take(&commit, &marker),
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

/// Creates a commit. From here on the commit counts. The caller holds the writers' lock of the lake.
///
/// # Errors
/// [`LedgerError::Lost`] if another run has made a commit with this number.
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

/// Creates the marker of a published commit. Another run that rolled the same commit forward may have been
/// faster. Its marker names the same files.
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

/// Makes markers again that are damaged, or that are gone although there are later commits. Nobody knows which
/// objects were put, so the ETags are empty. The damaged marker of the last commit is only removed, and the
/// commit is published again.
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
    /// The key below the lake.
    pub key: String,
    /// The reason why it cannot be used.
    pub why: LedgerError,
}

/// Reads all commits and markers, and names damaged ones and missing commits.
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

/// Moves a damaged object away from the folders of the log.
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

pub(super) fn to_bytes<T: Serialize>(
    value: &T,
    store: &Store,
    key: &str,
) -> Result<Bytes, LedgerError> {
    serde_json::to_vec(value)
        .map(|json| Bytes::from(seal::sealed(json)))
        .map_err(|e| LedgerError::Unwritable {
            url: store.url_of(key),
            message: e.to_string(),
        })
}

/// A commit and its marker, if they exist.
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
    /// The error of a damaged object of this kind.
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

/// The object of commit `n` under a key; `None` if there is none.
async fn entry_of<T: Numbered + serde::de::DeserializeOwned>(
    store: &Store,
    n: u64,
    key: &str,
) -> Result<Option<T>, LedgerError> {
    let damaged = |message| T::damaged(store.url_of(key), message);
    match read::<T>(store, key).await {
        Ok(Some(found)) if found.number() != n => {
            Err(damaged(format!("it belongs to commit {}", found.number())))
        }
        Err(LedgerError::Damaged { message, .. }) => Err(damaged(message)),
        read => read,
    }
}

pub(super) async fn read<T: serde::de::DeserializeOwned>(
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
