//! Downloads raw objects, a few ahead of the workers that decode them.
//!
//! ```text
//! objects, in order ──feed──▶ 2 × threads downloads at once ──▶ Arrivals ──▶ one object at a time to each worker
//!                             small ones whole, others piece by piece
//! ```

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;

use crate::raw::{PieceError, Pieces, RawObject, Roots};
use crate::store::StoreError;

/// A raw object whose content can be read.
pub struct Arrived {
    /// Its index among the objects to read.
    pub index: u32,
    pub pieces: Download,
    /// The ETag of the content that is read. It differs from the listing if the object was replaced since.
    pub etag: Option<String>,
}

/// The stored bytes of a raw object.
pub enum Download {
    Whole(std::vec::IntoIter<Bytes>),
    Streamed(mpsc::Receiver<Result<Bytes, StoreError>>),
    Failed(Option<PieceError>),
}

impl Pieces for Download {
    fn next(&mut self) -> Result<Option<Bytes>, PieceError> {
        match self {
            Self::Whole(pieces) => Ok(pieces.next()),
            Self::Streamed(pieces) => Ok(pieces.blocking_recv().transpose()?),
            Self::Failed(error) => match error.take() {
                Some(error) => Err(error),
                None => Ok(None),
            },
        }
    }
}

/// The raw objects, in the order in which they are to be read.
pub struct Arrivals(Mutex<mpsc::Receiver<Arrived>>);

/// Hands raw objects to the workers that ask for them.
pub struct Feed(mpsc::Sender<Arrived>);

/// A pair of ends: raw objects are put into the feed, and workers ask the arrivals for them.
pub fn arrivals() -> (Feed, Arrivals) {
    let (sender, receiver) = mpsc::channel(1);
    (Feed(sender), Arrivals(Mutex::new(receiver)))
}

impl Arrivals {
    /// Waits for the next object; `None` when there are no more. Any number of threads may ask.
    pub fn next(&self) -> Option<Arrived> {
        let mut arrived = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.blocking_recv()
    }
}

impl Feed {
    /// Downloads objects in order. Objects of at most `whole` bytes are held whole until a worker asks for them.
    pub async fn run(self, roots: &Roots, objects: &[RawObject], threads: usize, whole: u64) {
        let mut downloads = futures::stream::iter((0u32..).zip(objects))
            .map(|(index, found)| async move {
                let (pieces, etag) = download(roots, found, whole).await;
                Arrived {
                    index,
                    pieces,
                    etag,
                }
            })
            .buffered(2 * threads);
        while let Some(arrived) = downloads.next().await {
            if self.0.send(arrived).await.is_err() {
                // The workers have stopped because one of them failed.
                return;
            }
        }
    }
}

async fn download(roots: &Roots, found: &RawObject, whole: u64) -> (Download, Option<String>) {
    let failed = |error: PieceError| (Download::Failed(Some(error)), None);
    // A raw object that was found was listed under one of the roots.
    let Some(store) = roots.stores.get(found.root as usize) else {
        return failed("its root is not known".into());
    };
    let (object, mut stream) = match store.get(found.key()).await {
        Ok(opened) => opened,
        Err(error) => return failed(error.into()),
    };
    let etag = object.etag;
    // The object may have grown since it was listed.
    if object.size.max(found.size) <= whole {
        let mut pieces = Vec::new();
        while let Some(piece) = stream.next().await {
            match piece {
                Ok(piece) => pieces.push(piece),
                Err(error) => return failed(error.into()),
            }
        }
        return (Download::Whole(pieces.into_iter()), etag);
    }
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Some(piece) = stream.next().await {
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    (Download::Streamed(receiver), etag)
}
