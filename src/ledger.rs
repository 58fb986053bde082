//! The log of a lake: the raw objects that were absorbed, the files that are the content of the lake, and the
//! run that may write.
//!
//! ```text
//!  checkpoint/…1   log/…2  log/…2.published  log/…3  log/…3.published  log/…4   log/…5: none
//!  └────────────────────── fold ─────────────────────────────────────┴──▶ State: objects, files, …
//!                                                                       4 committed, not published: roll forward first
//! ```
//!
//! # Contract
//!
//! *Committed* means that `log/<n>` exists. Nothing takes a commit back, and the next run that opens the lake
//! publishes it. Only the run that has created `log/<n>` has committed n. A run that finds it taken has changed
//! nothing. Commit n + 1 may be created only after `log/<n>.published` exists.
//!
//! A checkpoint decides nothing. Without a checkpoint, the log is folded from its beginning to the same state.
//! The log is read key by key and never listed, so opening a lake costs as much as the commits since the
//! checkpoint.

mod checkpoint;
mod format;
mod log;
mod objects;
mod open;
mod probe;
mod seal;
mod settings;
mod state;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

pub use checkpoint::{checkpoint, damaged_checkpoints, requests_to_open};
pub use format::{
    Balance, Commit, FORMAT, FileEntry, FoundFile, MartEntry, OLDEST, ObjectEntry, Published,
    PublishedFile, Rebuilt, RemovedFile, Sha256, SourceDelta,
};
pub use log::{DamagedEntry, commit, damaged, mark_again, mark_published, newest_first, set_aside};
pub use objects::Objects;
pub use probe::{damaged_probe, probe};
pub use settings::{
    AcceptSettings, ColumnSettings, Dates, DecodeSettings, LimitSettings, RuleMode, RuleSettings,
    Settings, TypeErrorSetting,
};
pub use state::{File, MartState, Retired, SourceState, State};

use crate::store::StoreError;

/// The log cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "the text of each error says what its fields are"
)]
pub enum LedgerError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{url} is damaged: {message}; restore the object from a backup of the bucket")]
    Damaged { url: String, message: String },
    #[error(
        "{url} has format {found}, and this rawmart reads formats {OLDEST} to {FORMAT}: use the version that wrote it"
    )]
    Format { url: String, found: u32 },
    #[error(
        "the log of {lake} has {found} without {missing}; restore it from a backup of the bucket"
    )]
    Gap {
        lake: String,
        found: u64,
        missing: String,
    },
    #[error(
        "{url} is gone although there are later commits; `rawmart verify --repair` makes it again"
    )]
    Unmarked { url: String },
    #[error("{url} is damaged: {message}; `rawmart verify --repair` makes it again")]
    DamagedMarker { url: String, message: String },
    #[error(
        "{url} is damaged: {message}; `rawmart verify --repair` removes it, and the lake does not need it"
    )]
    DamagedSpare { url: String, message: String },
    #[error(
        "{lake} has no log, although {url} exists: the folder _rawmart of this lake is gone. Restore it from a \
         backup. If this is to be a new lake, set `lake` to an empty place"
    )]
    NoLog { lake: String, url: String },
    #[error(
        "the store of {lake} accepts {ignored} and ignores it, so two runs at once could overwrite each other; \
         only {probe} was written. Use a store that keeps conditional writes, and delete this object. If never \
         more than one run writes at a time, set `single_writer = true` in rawmart.toml instead"
    )]
    Unconditional {
        lake: String,
        ignored: &'static str,
        probe: String,
    },
    #[error("{url} cannot be written: {message}; this is a defect of rawmart")]
    Unwritable { url: String, message: String },
    #[error(
        "commit {n} of {lake} was made by another run meanwhile; nothing was changed, run again"
    )]
    Lost { lake: String, n: u64 },
}
