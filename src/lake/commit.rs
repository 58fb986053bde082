//! The steps of a commit, as its writer takes them.
//!
//! ```text
//! staged files ─▶ check ─▶ COMMIT n ─▶ publish ─▶ mark
//!                   │         │
//!                   │         └─ n is taken: another run has committed, nothing was changed
//!                   └─ a file is another than the log says: the staged files are taken back
//!
//! a commit of an earlier run, not marked ─▶ prove what is staged ─▶ publish ─▶ mark
//! ```

use std::collections::BTreeMap;

use super::{Lake, LakeError, Writing};
use crate::layout;
use crate::ledger::{self, Commit, LedgerError, Published, PublishedFile, State};
use crate::progress::Happened;
use crate::publish::{self, Finished, Local, PublishError, Staged};
use crate::store::{Lies, Publish, Remove, StoreError, StoreErrorKind};

/// A commit that was made, published and marked.
pub struct Committed {
    /// The number of its data files.
    pub files: u64,
    /// The bytes of these files.
    pub bytes: u64,
    /// The data files that still lie on local disk.
    pub local: Local,
}

impl Lake<Writing> {
    /// The next commit, empty.
    pub fn new_commit(&self) -> Commit {
        let writer = &self.permission.writer;
        Commit {
            format: ledger::FORMAT,
            number: self.state.last + 1,
            run: writer.run.clone(),
            at: writer.at.clone(),
            sources: BTreeMap::new(),
            found: Vec::new(),
            files: Vec::new(),
            removed: Vec::new(),
            retired: Vec::new(),
            columns: BTreeMap::new(),
            marts: Vec::new(),
            dropped: Vec::new(),
        }
    }

    /// Checks, commits, publishes and marks. `staged` are the files of the commit that it does not name yet.
    ///
    /// # Errors
    /// A published file that differs from the log, or a number that another run has taken: then nothing was
    /// changed. If the store fails after the commit was made, the next run publishes it.
    pub async fn commit(
        &mut self,
        mut commit: Commit,
        mut staged: Staged,
    ) -> Result<Committed, LakeError> {
        self.state.find(&commit.found);
        commit.files.append(&mut staged.entries);
        if let Err(error) = self.version(&mut commit).await {
            self.unstage(&commit, error.failure_of_store()).await;
            return Err(error);
        }
        self.make(commit, staged).await
    }

    /// Checks, commits, publishes and marks a commit that names all its files. `staged` has the local copies of files.
    pub(super) async fn make(
        &mut self,
        commit: Commit,
        staged: Staged,
    ) -> Result<Committed, LakeError> {
        if let Err(error) = publish::check(&self.store, &commit, &self.state).await {
            let error = LakeError::from(error);
            self.unstage(&commit, error.failure_of_store()).await;
            return Err(error);
        }
        let writing = &self.permission;
        if let Err(error) = ledger::commit(&self.store, &writing.lock, &commit).await {
            // A full disk has made no commit. A bucket may have made it although the request failed.
            let full =
                matches!(&error, LedgerError::Store(error) if error.kind() == StoreErrorKind::Full);
            if full && self.overtaken(commit.number).await.is_ok() {
                let _ = publish::unstage(&self.store, commit.number, &commit.run).await;
            }
            return Err(error.into());
        }
        writing.writer.progress.tell(Happened::Committed {
            commit: commit.number,
        });
        self.state.apply(&commit);
        self.finish(&commit, &staged).await?;
        Ok(Committed {
            files: commit.files.len() as u64,
            bytes: commit.files.iter().map(|file| file.bytes).sum(),
            local: staged.published(&commit.files),
        })
    }

    /// Stages local files for a commit.
    ///
    /// # Errors
    /// A store that does not answer or is full.
    pub async fn stage(&self, commit: &Commit, files: Vec<Finished>) -> Result<Staged, LakeError> {
        let in_flight = self.permission.writer.in_flight;
        let files = futures::stream::iter(files);
        let staged = publish::stage(&self.store, commit.number, &commit.run, files, in_flight);
        Ok(staged.await?)
    }

    /// Publishes a commit and marks it. The commit has been applied to the state.
    async fn finish(&mut self, commit: &Commit, staged: &Staged) -> Result<(), LakeError> {
        let writing = &self.permission;
        let in_flight = writing.writer.in_flight;
        let published = publish::publish(&self.store, commit, staged, &self.state, in_flight);
        let marker = match published.await {
            Err(error @ (PublishError::Foreign { .. } | PublishError::StagedGone { .. })) => {
                // Another run may have found this commit unpublished, finished it, and made further commits.
                let now = State::open(&self.store).await?;
                let done = now.last > commit.number || now.unpublished.is_none();
                return Err(match (done, error) {
                    (true, PublishError::Foreign { url } | PublishError::StagedGone { url }) => {
                        PublishError::Overtaken { url }
                    }
                    (_, error) => error,
                }
                .into());
            }
            marker => marker?,
        };
        ledger::mark_published(&self.store, &writing.lock, &marker).await?;
        self.state.mark(&marker);
        writing.writer.progress.tell(Happened::Published {
            commit: commit.number,
            files: marker.files.len(),
        });
        Ok(())
    }

    /// Publishes the last commit if an earlier run has not published it, and gives its number.
    ///
    /// # Errors
    /// Staged files that are damaged or gone; published files that somebody else has changed.
    pub async fn roll_forward(&mut self) -> Result<Option<u64>, LakeError> {
        let Some(commit) = self.state.unpublished.clone() else {
            return Ok(None);
        };
        publish::prove(&self.store, &commit).await?;
        self.finish(&commit, &Staged::default()).await?;
        self.rolled_forward(commit.number);
        Ok(Some(commit.number))
    }

    /// Does the same for a lake that may be damaged: publishes the staged files over whatever lies there, and
    /// marks a file as unknown if its staged copy is gone.
    ///
    /// # Errors
    /// A store that does not answer; a file that changes meanwhile.
    pub async fn roll_forward_over(&mut self) -> Result<Option<u64>, LakeError> {
        let Some(commit) = self.state.unpublished.clone() else {
            return Ok(None);
        };
        if let Some(files) = self.put_over(&commit).await? {
            let marker = Published {
                format: ledger::FORMAT,
                number: commit.number,
                files,
            };
            ledger::mark_published(&self.store, &self.permission.lock, &marker).await?;
        }
        self.state = State::open(&self.store).await?;
        self.rolled_forward(commit.number);
        Ok(Some(commit.number))
    }

    fn rolled_forward(&self, commit: u64) {
        let progress = &self.permission.writer.progress;
        progress.tell(Happened::RolledForward { commit });
    }

    /// Publishes the staged files of a commit over whatever lies there; `None` once another run has marked the
    /// commit.
    async fn put_over(&self, commit: &Commit) -> Result<Option<Vec<PublishedFile>>, LakeError> {
        let store = &self.store;
        let mut files = Vec::new();
        for entry in &commit.files {
            let key = entry.key();
            let known = self.state.files.get(&key);
            let known = known.and_then(|file| file.etag.clone());
            let found = store.head(&key).await?;
            // This is asked after the file was looked at. As long as there is no marker, the file that was
            // found belongs to no later commit.
            if self.marked(commit.number).await? {
                return Ok(None);
            }
            // A server that gives no ETag in its answer may still compare one.
            let expected = found.and_then(|found| found.etag.or(known));
            let whole = publish::is_staged_whole(store, entry).await?;
            let odd = matches!(
                store.lies(&key).await?,
                Lies::Folder | Lies::Link | Lies::Other
            );
            let put = match (whole, odd) {
                (Some(true), false) => {
                    let put = store.publish(&entry.staged, &key, expected.as_deref());
                    put.await?
                }
                // Such a file counts as damaged.
                _ => Publish::StagedGone,
            };
            let etag = match put {
                Publish::Done(put) => put.etag,
                Publish::StagedGone => String::new(),
                Publish::Conflict if self.marked(commit.number).await? => return Ok(None),
                Publish::Conflict => {
                    let url = store.url_of(&key);
                    return Err(PublishError::Foreign { url }.into());
                }
            };
            files.push(PublishedFile { key, etag });
        }
        match self.remove_over(commit).await? {
            true => Ok(Some(files)),
            false => Ok(None),
        }
    }

    /// Deletes what lies under the names that a commit takes away, whatever it is. `false` once another run has
    /// marked the commit.
    async fn remove_over(&self, commit: &Commit) -> Result<bool, LakeError> {
        for removed in &commit.removed {
            let found = self.store.head(&removed.key).await?;
            if self.marked(commit.number).await? {
                return Ok(false);
            }
            let Some(found) = found else { continue };
            let etag = found.etag.or_else(|| removed.etag.clone());
            match self.store.remove(&removed.key, etag.as_deref()).await? {
                Remove::Done => {}
                Remove::Conflict if self.marked(commit.number).await? => return Ok(false),
                Remove::Conflict => {
                    let url = self.store.url_of(&removed.key);
                    return Err(PublishError::Foreign { url }.into());
                }
            }
        }
        Ok(true)
    }

    async fn marked(&self, n: u64) -> Result<bool, LakeError> {
        let marker = self.store.head(&layout::published_key(n)).await?;
        Ok(marker.is_some())
    }

    /// Deletes the files that were staged for a commit that will not be made. `failure` is the store's error if
    /// the store is the reason. If the lake does not answer, the files are swept when this number is committed.
    /// A full disk does answer, and needs the room.
    pub async fn unstage(&self, commit: &Commit, failure: Option<&StoreError>) {
        if failure.is_some_and(|error| error.kind() != StoreErrorKind::Full) {
            return;
        }
        if let Err(error) = publish::unstage(&self.store, commit.number, &commit.run).await {
            tracing::debug!(%error, "the staged files could not be deleted");
        }
    }

    /// Publishes the staged copy of a file once more over the object with the ETag `expected`, and gives the
    /// new ETag.
    ///
    /// # Errors
    /// [`PublishError::Overtaken`] where another run was faster; a store that does not answer.
    pub async fn put_back(
        &self,
        staged: &str,
        key: &str,
        expected: Option<&str>,
    ) -> Result<String, LakeError> {
        match self.store.publish(staged, key, expected).await? {
            Publish::Done(put) => Ok(put.etag),
            Publish::Conflict | Publish::StagedGone => {
                let url = self.store.url_of(key);
                Err(PublishError::Overtaken { url }.into())
            }
        }
    }
}
