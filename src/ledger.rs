//! The log of a lake: what was absorbed, which files are its content, and who may write.
//!
//! ```text
//!  checkpoint/…1   log/…2  log/…2.published  log/…3  log/…3.published  log/…4   log/…5: none
//!  └────────────────────── fold ─────────────────────────────────────┴──▶ State: objects, files, …
//!                                                                       4 committed, not published: roll forward first
//! ```
//!
//! # Contract
//!
//! *Committed* means that `log/<n>` exists: nothing takes it back, and whoever opens the lake next
//! brings it to readers. Only the creator of `log/<n>` has committed n; a run that finds it taken has
//! changed nothing. Commit n + 1 may be created only after `log/<n>.published` exists.
//!
//! A checkpoint decides nothing: without any, the log is folded from its beginning to the same state.
//! The log is read key by key, never listed: opening costs what was committed since the checkpoint.

mod checkpoint;
mod format;
mod log;
mod objects;
mod probe;
mod seal;
mod settings;
mod state;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

pub use checkpoint::{checkpoint, damaged_checkpoints};
pub use format::{
    Balance, Commit, FORMAT, FileEntry, FoundFile, MartEntry, OLDEST, ObjectEntry, Published,
    PublishedFile, Sha256, SourceDelta,
};
pub use log::{DamagedEntry, commit, damaged, mark_again, mark_published, newest_first, set_aside};
pub use objects::Objects;
pub use probe::{damaged_probe, probe};
pub use settings::{
    AcceptSettings, ColumnSettings, Dates, DecodeSettings, LimitSettings, RuleMode, RuleSettings,
    Settings, TypeErrorSetting,
};
pub use state::{File, MartState, SourceState, State};

use crate::store::StoreError;

/// The log cannot be used.
#[derive(Debug, thiserror::Error)]
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
    #[error("{url} is gone, and later commits are there: `rawmart verify --repair` makes it anew")]
    Unmarked { url: String },
    #[error("{url} is damaged: {message}; `rawmart verify --repair` makes it anew")]
    DamagedMarker { url: String, message: String },
    #[error(
        "{url} is damaged: {message}; `rawmart verify --repair` takes it away, it can be done without"
    )]
    DamagedSpare { url: String, message: String },
    #[error(
        "{lake} has no log, and {url} is there: the folder _rawmart of this lake is gone. Restore it from a \
         backup; or, if this is to be a new lake, name an empty place as `lake`"
    )]
    NoLog { lake: String, url: String },
    #[error(
        "the store of {lake} accepts {ignored} and ignores it, so two runs at once could overwrite \
         each other; nothing was written but {probe}. Use a store that keeps conditional writes and \
         delete that object, or, where never more than one run at a time writes, set `single_writer \
         = true` in rawmart.toml"
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
