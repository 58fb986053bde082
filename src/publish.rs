//! Makes data files from events and verdicts, and brings them to readers.
//!
//! ```text
//! batches ──▶ Collector ──▶ runs sorted by (place, time, id), spilled ──┐
//!             one a worker, few strings as codes                        ▼
//!                          Verdicts::dropped (same order) ──▶ merge, row by row
//!                                                        ┌──────┴──────┐
//!                                                      kept        duplicates       one writer each
//!                                                        ▼             ▼            and place
//!                                               dt=…/part-00000.parquet, local
//!                                                        │ stage
//!                                                        ▼
//!                               staged ──▶ committed ──▶ published
//!                               _rawmart/  log/<n>       <table>/dt=…/  then log/<n>.published
//! ```
//!
//! # Contract
//!
//! *Staged* files are invisible to every reader. A commit names each of them with its final name. Once
//! `log/<n>` exists they are *committed*: any run may bring them to their final names, and the next run must.
//! Publishing replaces one whole object at a time, and writes its marker last. It deletes only the files that the
//! commit names in `removed`: files without rows at places of an earlier partitioning, and files of dropped marts.
//!
//! # Ways not taken
//!
//! Hive committers rename a folder on HDFS. S3 has no rename. Copying each object and deleting the old one
//! leaves a moment in which readers of other tools miss rows. A `_SUCCESS` file says that a writer has
//! finished, but not which files are its own, and readers do not look at it.

mod blocks;
mod collect;
mod merge;
mod ordered;
mod parquet;
mod repeats;
mod runs;
mod stage;
mod stored;
#[cfg(test)]
mod tests;
mod words;

pub use blocks::{Displaced, Keyed, StoredRows};
pub use collect::{Collected, Collector};
pub use merge::{Finished, KEPT, Tables, empty_file, write};
pub use ordered::{Ordered, OrderedError};
pub use parquet::{FileSettings, ParquetFile};
pub use runs::in_order;
pub use stage::{
    Local, PublishError, Staged, are_there, changed, check, is_staged_whole, prove, publish, stage,
    sweep, sweep_dead, unstage,
};
pub use stored::{Content, StoredError, StoredFile, Wanted};
pub use words::Words;

/// A data file that cannot be written.
#[derive(Debug, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "the text of each error says what its fields are"
)]
pub enum WriteError {
    #[error(
        "writing to the spill folder {folder}: {source}; it needs room for the decoded events, and for data \
         files of a lake on S3. Free space there, or set spill_dir to a folder of a larger disk"
    )]
    Spill {
        folder: String,
        source: std::io::Error,
    },
    #[error("writing {file}: {source}")]
    Parquet {
        file: String,
        source: ::parquet::errors::ParquetError,
    },
    #[error("merging sorted events: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    #[error(transparent)]
    Stored(#[from] StoredError),
    /// The call that stages the files has failed, and its error says why.
    #[error("the written files could not be staged")]
    NotStaged,
    #[error("{0}; this is a defect of rawmart")]
    Defect(String),
}
