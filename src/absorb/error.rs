//! Why one commit of one source could not be absorbed.

use super::incomplete::IncompleteObject;
use super::noticed::RejectsOf;
use crate::dedup::KeyError;
use crate::publish::{PublishError, StoredError, WriteError};
use crate::store::StoreError;

/// Why absorbing stopped. Nothing is committed then; some data files may be staged.
#[derive(Debug, thiserror::Error)]
pub enum AbsorbError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("sources.{name}.dedup: {error}")]
    Key { name: String, error: Box<KeyError> },
    #[error(
        "sources.{name}.dedup: {error}, in {found_in}; write the rule so that every event has a value, \
         for example with `when` or `nullif`"
    )]
    Rule {
        name: String,
        found_in: String,
        error: Box<KeyError>,
    },
    #[error(
        "{name}: {rejects} of {records} new records are rejects, more than max_rejects = {allowed}%; nothing \
         more was published. Most frequent: {}. Correct the configuration, or accept them once: repeat \
         the command with `--max-rejects 100%`",
        most_frequent(found)
    )]
    TooManyRejects {
        name: String,
        rejects: u64,
        records: u64,
        allowed: f64,
        /// The rejects by reason, most frequent reason first.
        found: Vec<RejectsOf>,
    },
    #[error(
        "{name}: {lost} of {bytes} stored bytes of new raw objects are lost, more than max_rejects = \
         {allowed}%; nothing more was published. Most of them are of {}, with {} events in {} records: {}. \
         Restore the object, leave it out with sources.{name}.exclude, or accept the loss once: repeat the \
         command with `--max-rejects 100%`",
        worst.object,
        worst.events,
        worst.records,
        worst.why
    )]
    TooMuchLost {
        name: String,
        lost: u64,
        bytes: u64,
        allowed: f64,
        worst: Box<IncompleteObject>,
        /// The rejects by reason, most frequent reason first.
        found: Vec<RejectsOf>,
    },
    #[error(
        "{name}: raw object {object} was listed and is gone by now; nothing more was published, run \
         again"
    )]
    Gone { name: String, object: String },
    #[error(
        "{name}: {found_in}: {why}. Read from raw, the record would be a reject, so the stored tables do not \
         give the same events: run `rawmart rebuild --source {name} --raw`"
    )]
    OnlyRaw {
        name: String,
        found_in: String,
        why: String,
    },
    #[error("{url} is damaged and cannot be made again: {why}; nothing was changed")]
    Irreparable { url: String, why: String },
    #[error(
        "the spill folder cannot be made in {folder}: {source}; set {setting} to a folder that is there and can \
         be written"
    )]
    NoSpillFolder {
        folder: String,
        setting: &'static str,
        source: std::io::Error,
    },
    #[error(
        "the counts do not balance: {0}; nothing was published, and this is a defect of rawmart"
    )]
    Unbalanced(String),
    #[error("{0}; this is a defect of rawmart")]
    Defect(String),
}

impl From<StoredError> for AbsorbError {
    fn from(error: StoredError) -> Self {
        Self::Write(WriteError::Stored(error))
    }
}

impl AbsorbError {
    /// The spill folder cannot be written or read.
    pub(super) fn spilling(folder: &std::path::Path, source: std::io::Error) -> Self {
        Self::Write(WriteError::Spill {
            folder: folder.display().to_string(),
            source,
        })
    }
}

fn most_frequent(found: &[RejectsOf]) -> String {
    let first = found.iter().take(3);
    let first = first.map(|rejects| format!("{} {}", rejects.reason.name(), rejects.count));
    first.collect::<Vec<_>>().join(", ")
}
