//! The folder of one run for data that does not fit into memory, and the removal of folders that dead runs have
//! left.
//!
//! ```text
//! <spill_dir>/rawmart.new-k3x9q2/   made, its lock taken, …
//! <spill_dir>/rawmart-k3x9q2/lock   … then named so that others look at it: locked means that its run lives
//!                           …       sorted runs, files of DataFusion, data files on their way
//! ```
//!
//! Events of users lie there, so the folder is for its owner alone: nobody else passes it, whatever the mode
//! of a file below it. Data files have the mode that they have in the lake, where they may be moved to.

use super::AbsorbError;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::config::Job;
use crate::publish::WriteError;

/// The beginning of the names of folders whose lock is taken.
const NAME: &str = "rawmart-";
const NEW: &str = "rawmart.new-";
const LOCK: &str = "lock";

/// A folder for spilled data. It is deleted when this value is dropped.
pub struct SpillFolder {
    path: PathBuf,
    /// The operating system releases the lock when the process ends, in whatever way it ends.
    _lock: File,
}

impl SpillFolder {
    /// Makes the folder of this run, and removes the folders of dead runs.
    ///
    /// # Errors
    /// There is no `spill_dir`, or nothing can be made in it; a full disk.
    pub fn new(job: &Job) -> Result<Self, AbsorbError> {
        let named = job.spill_dir.clone();
        let above = named.clone().unwrap_or_else(tempfile::env::temp_dir);
        let made = Self::make(&above).map_err(|source| match source.kind() {
            ErrorKind::NotFound
            | ErrorKind::NotADirectory
            | ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem => AbsorbError::NoSpillFolder {
                folder: above.display().to_string(),
                setting: match named {
                    Some(_) => "spill_dir",
                    None => "TMPDIR, or spill_dir,",
                },
                source,
            },
            _ => AbsorbError::Write(WriteError::Spill {
                folder: above.display().to_string(),
                source,
            }),
        })?;
        made.sweep(&above);
        Ok(made)
    }

    fn make(above: &Path) -> io::Result<Self> {
        let mut folder = tempfile::Builder::new();
        folder
            .prefix(NEW)
            .permissions(Permissions::from_mode(0o700));
        let new = folder.tempdir_in(above)?;
        let lock = File::create_new(new.path().join(LOCK))?;
        lock.set_permissions(Permissions::from_mode(0o600))?;
        lock.try_lock().map_err(io::Error::from)?;
        let name = new.path().file_name().and_then(|name| name.to_str());
        let random = name.and_then(|name| name.strip_prefix(NEW));
        let path = above.join(format!("{NAME}{}", random.ok_or(ErrorKind::InvalidInput)?));
        fs::rename(new.path(), &path)?;
        // The folder has another name by now.
        let _ = new.keep();
        Ok(Self { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes that are free on its disk, for this user; `None` where the system does not say.
    pub fn free_bytes(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.path).ok()?;
        disk.f_bavail.checked_mul(disk.f_frsize)
    }

    /// Removes the folders of dead runs of the same user. A folder that cannot be removed stays.
    fn sweep(&self, above: &Path) {
        let owner = fs::metadata(&self.path).map(|found| found.uid()).ok();
        for entry in fs::read_dir(above).into_iter().flatten().flatten() {
            let path = entry.path();
            let ours = entry.metadata().is_ok_and(|found| {
                // `metadata` of an entry does not follow a link, so links are passed over.
                found.is_dir() && Some(found.uid()) == owner
            });
            let named = entry.file_name().to_string_lossy().starts_with(NAME);
            if !ours || !named || path == self.path {
                continue;
            }
            // A folder without a lock is no spill folder.
            let Ok(lock) = File::open(path.join(LOCK)) else {
                continue;
            };
            if lock.try_lock().is_ok() {
                match fs::remove_dir_all(&path) {
                    Ok(()) => tracing::info!("removed {}, left by a dead run", path.display()),
                    Err(error) => tracing::debug!(%error, "a dead run's folder stays"),
                }
            }
        }
    }
}

impl Drop for SpillFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            // The next run removes it.
            tracing::debug!(%error, "the spill folder stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_is_for_its_owner_alone_and_gone_in_the_end() {
        let above = tempfile::tempdir().unwrap();
        let folder = SpillFolder::make(above.path()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(folder.path()), 0o700);
        assert_eq!(mode(&folder.path().join(LOCK)), 0o600);
        drop(folder);
        assert!(names(above.path()).is_empty());
    }

    #[test]
    fn folders_of_dead_runs_are_swept_and_no_others() {
        let above = tempfile::tempdir().unwrap();
        let living = SpillFolder::make(above.path()).unwrap();
        // The remains of a killed run: its files, and a lock that nobody holds.
        let dead = above.path().join("rawmart-dead");
        fs::create_dir_all(dead.join("engine")).unwrap();
        fs::write(dead.join("engine/rows"), "rows").unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        // Folders of somebody else.
        fs::create_dir(above.path().join("rawmart-notes")).unwrap();
        fs::create_dir(above.path().join("other")).unwrap();
        fs::write(above.path().join("other").join(LOCK), "").unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join(LOCK), "").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), above.path().join("rawmart-link")).unwrap();

        let next = SpillFolder::make(above.path()).unwrap();
        next.sweep(above.path());
        assert!(!dead.exists(), "a dead run's folder stays");
        for stays in [living.path(), next.path(), elsewhere.path()] {
            assert!(stays.join(LOCK).exists(), "{} is gone", stays.display());
        }
        let own = [living, next].map(|folder| {
            let name = folder.path().file_name().unwrap();
            name.to_str().unwrap().to_owned()
        });
        let mut expected = vec!["other", "rawmart-link", "rawmart-notes"];
        expected.extend(own.iter().map(String::as_str));
        expected.sort_unstable();
        let mut there = names(above.path());
        // The folders are dropped by now.
        there.extend(own.iter().cloned());
        there.sort();
        there.dedup();
        assert_eq!(there, expected);
    }
}
