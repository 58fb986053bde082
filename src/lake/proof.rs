//! Proves that a data file is the one that was published, before its rows are written again or counted.
//!
//! ```text
//! a file of the log ─┬─ on disk: its SHA-256, once a run ─┬─ that of the log ─▶ read
//!                    │                                    └─ another ─────────▶ exit 7, nothing committed
//!                    └─ in a bucket: nothing; each range is asked for with the ETag that was published
//! ```
//!
//! On disk, a byte can change while size, times and inode stay. A store gives a changed object another ETag,
//! and keeps checksums of its own. The files of this run were hashed when they were staged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::ledger::{File, Sha256};
use crate::publish::StoredError;
use crate::store::{Lies, Store, StoreErrorKind};

/// The files of a lake that one run has proven. All clones share them.
#[derive(Clone)]
pub struct Proof {
    lake: Store,
    /// The last commit before this run.
    last: u64,
    /// The proofs by the key of the file.
    proven: Arc<Mutex<HashMap<String, Arc<OnceCell<()>>>>>,
}

impl Proof {
    /// Files of commits after `last` were written by this run.
    pub fn new(lake: &Store, last: u64) -> Self {
        Self {
            lake: lake.clone(),
            last,
            proven: Arc::default(),
        }
    }

    /// Proves that a file is the one that the log names, as far as the log describes it.
    ///
    /// # Errors
    /// A file that is damaged, gone or a different one; a store that does not answer.
    pub async fn prove(&self, file: &File) -> Result<(), StoredError> {
        let expected = file.entry.sha256;
        let Some(expected) = expected.filter(|_| self.lake.is_local() && file.commit <= self.last)
        else {
            return Ok(());
        };
        let key = file.entry.key();
        let proven = {
            let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(proven.entry(key.clone()).or_default())
        };
        let compare = async || self.compare(&key, expected).await;
        proven.get_or_try_init(compare).await?;
        Ok(())
    }

    async fn compare(&self, key: &str, expected: Sha256) -> Result<(), StoredError> {
        let url = self.lake.url_of(key);
        let foreign = |what: &str| StoredError::Foreign {
            url: url.clone(),
            what: what.to_owned(),
        };
        match self.lake.lies(key).await? {
            Lies::File => {}
            Lies::Nothing => return Err(foreign("it is gone")),
            Lies::Link => return Err(foreign("it is a symbolic link")),
            Lies::Folder | Lies::Other => return Err(foreign("it is no file")),
        }
        match self.lake.sha256(key).await {
            Ok(Some((_, found))) if Sha256(found) == expected => Ok(()),
            Ok(Some(_)) => Err(StoredError::Damaged { url }),
            Ok(None) => Err(foreign("it is gone")),
            Err(error) if error.kind() == StoreErrorKind::NotAFile => Err(foreign("it is no file")),
            Err(error) => Err(error.into()),
        }
    }
}
