//! What `marts --drop` does: a mart whose SQL file is gone is taken out of the lake.
//!
//! ```text
//! lock ─▶ open the log ─▶ probe ─▶ roll forward ─▶ COMMIT: its files are removed, the mart is forgotten ─▶ delete ─▶ mark
//! ```
//!
//! The next run finishes a drop that was interrupted, like any other commit.

use serde::Serialize;

use super::{Context, Doing, RunError, tables};
use crate::config::Job;
use crate::lake;
use crate::ledger::{Commit, RemovedFile};
use crate::mart;
use crate::publish::Staged;

/// A mart that was dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// The URL of the lake.
    pub lake: String,
    /// The name of the mart.
    pub mart: String,
    /// The commit that dropped it.
    pub commit: u64,
    /// The number of its data files.
    pub files: u64,
    /// The number of rows in these files.
    pub rows: u64,
    /// The bytes of these files.
    pub bytes: u64,
}

/// Removes the data files of a mart whose SQL file is gone, and forgets the mart.
///
/// # Errors
/// A mart that the log does not have, or whose SQL file is there; a data file that is not as published; another run;
/// a store that does not answer.
pub fn drop_mart<'a>(job: &'a Job, name: &'a str, context: &'a Context) -> Doing<'a, Dropped> {
    Box::pin(async move {
        let locked = lake::lock(&job.lake, &context.store).await?;
        let mut lake = locked.open(tables(job), context.writer(job)).await?;
        lake.probe(job.single_writer).await?;
        lake.roll_forward().await?;
        let there = job.marts.as_deref().map(mart::names).transpose()?;
        if there.is_some_and(|there| there.contains(name)) {
            return Err(RunError::StillMade {
                mart: name.to_owned(),
            });
        }
        if !lake.state().marts.contains_key(name) {
            return Err(RunError::NoSuchMart {
                lake: lake.root().to_owned(),
                mart: name.to_owned(),
                marts: lake.state().marts.keys().cloned().collect(),
            });
        }
        let files = lake.state().files.iter();
        let files: Vec<_> = files.filter(|(_, file)| file.entry.table == name).collect();
        let commit = lake.new_commit();
        let dropped = Dropped {
            lake: lake.root().to_owned(),
            mart: name.to_owned(),
            commit: commit.number,
            files: files.len() as u64,
            rows: files.iter().map(|(_, file)| file.entry.rows).sum(),
            bytes: files.iter().map(|(_, file)| file.entry.bytes).sum(),
        };
        let removed = files.into_iter().map(|(key, file)| RemovedFile {
            key: key.clone(),
            etag: file.etag.clone(),
        });
        let commit = Commit {
            removed: removed.collect(),
            dropped: vec![name.to_owned()],
            ..commit
        };
        lake.commit(commit, Staged::default()).await?;
        lake.sweep().await?;
        lake.checkpoint().await?;
        Ok(dropped)
    })
}
