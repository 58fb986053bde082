//! An open lake: its store, and the state that its log gives. The type says what the holder may do. A holder of
//! `Lake<Reading>` cannot commit. A holder of `Lake<Writing>` can, and holds the writers' lock as long as the
//! value lives.
//!
//! ```text
//! Lake::open ──────────────────▶ Lake<Reading>   state, files, tables
//! lake::lock ──▶ Locked ──open─▶ Lake<Writing>   the same, and: roll forward, commit, sweep, checkpoint
//!                │
//!                └─ a repair mends the log here, before it can be opened
//! ```
//!
//! # Contract
//!
//! A lake on disk has one writer at a time, and the operating system releases the lock with the process. In a
//! bucket there is nothing to lock, and the lock is empty: two writers may be open. The conditional creation of
//! `log/<n>` decides which of them has committed. A writer that finds its number taken has changed nothing, and
//! is told to run again.

mod commit;
mod proof;
mod snapshot;
mod versions;

pub use commit::Committed;
pub use proof::Proof;
pub use snapshot::Snapshot;
pub use versions::expired;

use crate::layout;
use crate::ledger::{self, DamagedEntry, LedgerError, State};
use crate::progress::Progress;
use crate::publish::{self, PublishError};
use crate::store::{LockGuard, Store, StoreError, StoreSettings};

/// Why a lake cannot be opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The store does not answer, or is full.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A commit cannot be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Another run has the writers' lock.
    #[error("another run holds the lake {lake}: wait for it to end, then run again")]
    Locked {
        /// The URL of its root.
        lake: String,
    },
    /// A state that rawmart should never reach.
    #[error("{0}; this is a defect of rawmart")]
    Defect(String),
}

impl LakeError {
    /// The error of the store, if the store is the reason why a commit was not made.
    fn failure_of_store(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) | Self::Publish(PublishError::Store(error)) => Some(error),
            _ => None,
        }
    }
}

/// The permission to read a lake, but not to commit.
pub struct Reading(());

/// The permission to commit.
pub struct Writing {
    lock: LockGuard,
    writer: Writer,
}

/// The run that writes.
pub struct Writer {
    /// The name of the run, different for every run.
    pub run: String,
    /// The time of the run, RFC 3339 in UTC. It is for people, and nothing is decided by it.
    pub at: String,
    /// Tells the listeners what happens.
    pub progress: Progress,
    /// The most bytes of data files that are staged or published at once.
    pub in_flight: u64,
    /// Whether each version of a partition gets a folder of its own, for a catalog that names the current one.
    /// Otherwise files are published below the roots of their tables.
    pub versions: bool,
}

/// An open lake, with the state from its log when it was opened and from the commits that its holder has made
/// since.
pub struct Lake<Permission> {
    store: Store,
    state: State,
    permission: Permission,
}

impl<Permission> Lake<Permission> {
    /// The store that holds the lake.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The state that the log gives.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The URL of its root.
    pub fn root(&self) -> &str {
        self.store.root()
    }

    /// Proves data files that were there when the lake was opened. Files of later commits need no proof.
    pub fn proof(&self) -> Proof {
        Proof::new(&self.store, self.state.last)
    }

    /// Checks that no other run has made commit `n` meanwhile and replaced files that this run reads.
    ///
    /// # Errors
    /// [`LedgerError::Lost`] if another run has; a store that does not answer.
    pub async fn overtaken(&self, n: u64) -> Result<(), LakeError> {
        match self.store.head(&layout::commit_key(n)).await? {
            Some(_) => Err(LakeError::Ledger(LedgerError::Lost {
                lake: self.root().to_owned(),
                n,
            })),
            None => Ok(()),
        }
    }
}

impl Lake<Reading> {
    /// Opens the lake at `url` and reads its log. `tables` are the tables that the configuration names.
    ///
    /// # Errors
    /// A store that does not answer; a log that cannot be read, or is gone while tables have files.
    pub async fn open(
        url: &str,
        settings: &StoreSettings,
        tables: impl IntoIterator<Item = String>,
    ) -> Result<Self, LakeError> {
        let store = Store::open(url, settings).await?;
        let state = State::open_with(&store, tables).await?;
        Ok(Self {
            store,
            state,
            permission: Reading(()),
        })
    }

    /// Reads the log again.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub async fn reopen(
        &mut self,
        tables: impl IntoIterator<Item = String>,
    ) -> Result<(), LakeError> {
        self.state = State::open_with(&self.store, tables).await?;
        Ok(())
    }
}

/// A lake whose lock is held and whose log has not been read yet.
pub struct Locked {
    store: Store,
    lock: LockGuard,
}

/// Takes the writers' lock of the lake at `url`.
///
/// # Errors
/// [`LakeError::Locked`] where another run has it; a store that does not answer.
pub async fn lock(url: &str, settings: &StoreSettings) -> Result<Locked, LakeError> {
    let store = Store::open(url, settings).await?;
    match store.lock(layout::LOCK).await? {
        Some(lock) => Ok(Locked { store, lock }),
        None => Err(LakeError::Locked {
            lake: store.root().to_owned(),
        }),
    }
}

impl Locked {
    /// Reads the log. `tables` are the tables that the configuration names.
    ///
    /// # Errors
    /// See [`Lake::open`].
    pub async fn open(
        self,
        tables: impl IntoIterator<Item = String>,
        writer: Writer,
    ) -> Result<Lake<Writing>, LakeError> {
        let state = State::open_with(&self.store, tables).await?;
        Ok(Lake {
            store: self.store,
            state,
            permission: Writing {
                lock: self.lock,
                writer,
            },
        })
    }

    /// Does the same as [`Lake::probe`], before the log is read.
    ///
    /// # Errors
    /// See [`ledger::probe`].
    pub async fn probe(&self, run: &str, single_writer: bool) -> Result<(), LakeError> {
        Ok(ledger::probe(&self.store, &State::default(), run, single_writer).await?)
    }

    /// Moves the probe away if it cannot be read.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn set_probe_aside(&self) -> Result<Option<String>, LakeError> {
        match ledger::damaged_probe(&self.store).await? {
            Some(probe) => Ok(Some(self.set_aside(probe).await?)),
            None => Ok(None),
        }
    }

    /// Moves checkpoints away that cannot be read, and gives their keys.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn set_checkpoints_aside(&self) -> Result<Vec<String>, LakeError> {
        let mut keys = Vec::new();
        for checkpoint in ledger::damaged_checkpoints(&self.store).await? {
            keys.push(self.set_aside(checkpoint).await?);
        }
        Ok(keys)
    }

    /// Makes lost and damaged markers again, and gives the numbers of their commits.
    ///
    /// # Errors
    /// A store that does not answer, a commit that cannot be read.
    pub async fn mark_again(&self) -> Result<Vec<u64>, LakeError> {
        Ok(ledger::mark_again(&self.store, &self.lock).await?)
    }

    async fn set_aside(&self, entry: DamagedEntry) -> Result<String, LakeError> {
        ledger::set_aside(&self.store, &entry.key).await?;
        Ok(entry.key)
    }
}

impl Lake<Writing> {
    /// The name of the invocation that writes.
    pub fn run(&self) -> &str {
        &self.permission.writer.run
    }

    /// Checks that the store keeps two writers apart, or that `single_writer` promises that there is only one.
    ///
    /// # Errors
    /// See [`ledger::probe`].
    pub async fn probe(&self, single_writer: bool) -> Result<(), LakeError> {
        Ok(ledger::probe(&self.store, &self.state, self.run(), single_writer).await?)
    }

    /// Moves an object away that lies in the place of a data file and cannot be replaced: a folder or a link.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn set_aside(&self, key: &str) -> Result<(), LakeError> {
        Ok(ledger::set_aside(&self.store, key).await?)
    }

    /// Deletes the staged files of dead runs whose commits were never made.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn sweep_dead(&self) -> Result<(), LakeError> {
        Ok(publish::sweep_dead(&self.store, &self.state).await?)
    }

    /// Deletes the staged files of published commits.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn sweep(&self) -> Result<(), LakeError> {
        Ok(publish::sweep(&self.store, &self.state).await?)
    }

    /// Writes a checkpoint if one is due.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn checkpoint(&self) -> Result<(), LakeError> {
        Ok(ledger::checkpoint(&self.store, &self.state).await?)
    }
}
