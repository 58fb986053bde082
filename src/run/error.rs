//! The reasons why a run stops. Each error says what failed, where, and what to do.

use crate::absorb::AbsorbError;
use crate::catalog::lint::Finding;
use crate::config::ConfigError;
use crate::engine::EngineError;
use crate::lake::LakeError;
use crate::ledger::LedgerError;
use crate::mart::{MartError, ReferenceTableError};
use crate::plan::Refusal;
use crate::publish::{PublishError, StoredError, WriteError};
use crate::raw::DiscoverError;
use crate::store::StoreError;

/// The reason why a run stopped.
#[derive(Debug, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "the text of each error says what its fields are"
)]
pub enum RunError {
    #[error(transparent)]
    Lake(#[from] LakeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    #[error(transparent)]
    Absorb(#[from] AbsorbError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Reference(ReferenceTableError),
    #[error(transparent)]
    Mart(#[from] MartError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("{}", refusal.of(name))]
    Refused { name: String, refusal: Refusal },
    #[error(
        "{lake} has no run or commit `{which}`, its last commit is {last}: `rawmart history` names \
         them"
    )]
    NoSuchRun {
        lake: String,
        which: String,
        last: u64,
    },
    #[error(
        "{lake} has no mart `{mart}`; its marts are: {}", marts.join(", ")
    )]
    NoSuchMart {
        lake: String,
        mart: String,
        marts: Vec<String>,
    },
    #[error(
        "the mart `{mart}` has an SQL file, and the next run would build it again: delete the file first"
    )]
    StillMade { mart: String },
    #[error(
        "{} cannot read {}.{}: {}; {}",
        .0.reader.map_or("a reader", |reader| reader.name()),
        .0.table,
        .0.column.as_deref().unwrap_or_default(),
        .0.reason,
        .0.remedy
    )]
    Unreadable(Box<Finding>),
    #[error("{file} names no folder of marts: set `path` in [marts]")]
    NoMarts { file: String },
    #[error("{0}; this is a defect of rawmart")]
    Defect(String),
}

impl From<StoredError> for RunError {
    fn from(error: StoredError) -> Self {
        Self::Write(WriteError::Stored(error))
    }
}

impl From<ReferenceTableError> for RunError {
    fn from(error: ReferenceTableError) -> Self {
        match error {
            ReferenceTableError::Store(error) => Self::Store(error),
            ReferenceTableError::Write(error) => Self::Write(error),
            error => Self::Reference(error),
        }
    }
}

impl From<LedgerError> for RunError {
    fn from(error: LedgerError) -> Self {
        Self::Lake(LakeError::Ledger(error))
    }
}

impl From<PublishError> for RunError {
    fn from(error: PublishError) -> Self {
        Self::Lake(LakeError::Publish(error))
    }
}

impl RunError {
    /// The failure of a store that is the reason.
    pub(super) fn store(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error)
            | Self::Lake(LakeError::Store(error) | LakeError::Ledger(LedgerError::Store(error))) => {
                Some(error)
            }
            _ => None,
        }
    }

    /// The error of the lake's store, if it is the reason why no commit will be made.
    pub(super) fn failure_of_store(&self) -> Option<&StoreError> {
        match self {
            Self::Lake(LakeError::Publish(PublishError::Store(error)))
            | Self::Write(WriteError::Stored(StoredError::Store(error)))
            | Self::Absorb(
                AbsorbError::Publish(PublishError::Store(error))
                | AbsorbError::Write(WriteError::Stored(StoredError::Store(error))),
            ) => Some(error),
            _ => None,
        }
    }
}
