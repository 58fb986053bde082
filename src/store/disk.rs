//! A root on the local disk.
//!
//! ```text
//! bytes ─────── write ─────┐
//! local file ── hard link ─┴▶ <root>/.rawmart-tmp/* ─ fsync ─▶ hard link (new name) | rename (replace) ─▶ fsync folder
//! ```
//!
//! When a writer takes the lock, it deletes what a killed process has left in `.rawmart-tmp`.
//!
//! All work is done with `std::fs` in the blocking pool. The client's `LocalFileSystem` syncs nothing, has no
//! conditional replace, and fails a listing at the first odd file name. It serves only engines, through
//! [`Disk::object_store`].

use super::wire::representable;
use super::{
    ByteStream, Conditions, Lies, Listing, Object, Publish, Put, Remove, StoreError,
    StoreErrorKind, StoreSettings,
};
use bytes::Bytes;
use futures::StreamExt;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ClientPath;
use sha2::{Digest, Sha256};
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Semaphore;
use url::Url;

/// The folder of files that are being written. It lies outside of every table, and no listing shows it.
const TEMPORARY: &str = ".rawmart-tmp";

/// A file is read in chunks of so many bytes, …
const CHUNK: u64 = 1 << 20;
/// … or at once if it is not larger than this. Most raw objects are read at once, and need not be joined from
/// chunks.
const WHOLE: u64 = 4 << 20;

/// The number of bytes that are hashed at once.
const HASHED: usize = 256 << 10;

static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Clone)]
pub(super) struct Disk {
    folder: Arc<Path>,
    root: Arc<str>,
    base: Url,
    client: Arc<LocalFileSystem>,
    permits: Arc<Semaphore>,
}

impl Disk {
    pub(super) fn open(folder: PathBuf, settings: &StoreSettings) -> Result<Disk, StoreError> {
        let relative = || {
            StoreError::new(
                StoreErrorKind::Other,
                "opening",
                folder.display().to_string(),
                "the path is not absolute",
            )
        };
        let root = Url::from_directory_path(&folder).map_err(|()| relative())?;
        let base = root.join("/").map_err(|_| relative())?;
        let root = root.to_string();
        match fs::metadata(&folder) {
            Ok(found) if !found.is_dir() => {
                return Err(StoreError::new(
                    StoreErrorKind::NotAFolder,
                    "opening",
                    root,
                    "it is a file where a folder is needed",
                ));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("opening", root, error)),
        }
        Ok(Disk {
            folder: folder.into(),
            root: root.into(),
            base,
            client: Arc::new(LocalFileSystem::new()),
            permits: Arc::new(Semaphore::new(settings.concurrency.max(1))),
        })
    }

    pub(super) fn root_url(&self) -> &str {
        &self.root
    }

    pub(super) fn url_of(&self, key: &str) -> String {
        Url::from_file_path(self.folder.join(key)).map_or_else(
            |()| format!("{}{key}", self.root),
            |url| {
                let slash = if key.ends_with('/') { "/" } else { "" };
                format!("{}{slash}", url.as_str().trim_end_matches('/'))
            },
        )
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn path(&self, action: &'static str, key: &str) -> Result<PathBuf, StoreError> {
        if key.is_empty() || !representable(key) {
            return Err(StoreError::new(
                StoreErrorKind::Other,
                action,
                self.url_of(key),
                "the key is not a path below the root",
            ));
        }
        Ok(self.folder.join(key))
    }

    pub(super) fn object_store(&self) -> (Url, Arc<dyn ObjectStore>, ClientPath) {
        let prefix = self
            .folder
            .to_str()
            .and_then(|folder| ClientPath::parse(folder.trim_matches('/')).ok())
            .unwrap_or_default();
        (
            self.base.clone(),
            Arc::clone(&self.client) as Arc<dyn ObjectStore>,
            prefix,
        )
    }

    /// Runs blocking work under a permit and gives its errors an action and a URL.
    async fn run<T: Send + 'static>(
        &self,
        action: &'static str,
        key: &str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _permit = self.permits.acquire().await;
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|join| Err(io::Error::other(join)))
            .map_err(|error| StoreError::io(action, self.url_of(key), error))
    }

    pub(super) async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let folder = match prefix {
            "" => self.folder.to_path_buf(),
            prefix => self.path("listing", prefix)?,
        };
        let at = if prefix.is_empty() {
            String::new()
        } else {
            format!("{prefix}/")
        };
        let start = at.clone();
        let root = Arc::clone(&self.folder);
        self.run("listing", &at, move || walk(&root, folder, start))
            .await
    }

    pub(super) async fn head(&self, key: &str) -> Result<Option<Object>, StoreError> {
        let path = self.path("looking at", key)?;
        let name = key.to_owned();
        self.run("looking at", key, move || match fs::metadata(&path) {
            Ok(found) if found.is_file() => Ok(Some(object(name, &found))),
            Ok(_) => Ok(None),
            Err(error) => absent(error),
        })
        .await
    }

    pub(super) async fn get(&self, key: &str) -> Result<(Object, ByteStream), StoreError> {
        let path = self.path("reading", key)?;
        let name = key.to_owned();
        let (found, file) = self
            .run("reading", key, move || {
                let file = open_file(&path)?;
                let found = file.metadata()?;
                Ok((object(name, &found), file))
            })
            .await?;
        let disk = self.clone();
        let key = key.to_owned();
        let chunk = match found.size {
            size if size <= WHOLE => size.max(1),
            _ => CHUNK,
        };
        let chunks = futures::stream::try_unfold(file, move |mut file| {
            let disk = disk.clone();
            let key = key.clone();
            async move {
                disk.run("reading", &key, move || {
                    let mut bytes = Vec::with_capacity(usize::try_from(chunk).unwrap_or(0));
                    Read::by_ref(&mut file)
                        .take(chunk)
                        .read_to_end(&mut bytes)?;
                    Ok((!bytes.is_empty()).then(|| (Bytes::from(bytes), file)))
                })
                .await
            }
        });
        Ok((found, chunks.boxed()))
    }

    /// The whole content of a file of `most` bytes or fewer.
    pub(super) async fn read(&self, key: &str, most: u64) -> Result<Option<Bytes>, StoreError> {
        let path = self.path("reading", key)?;
        let read = self.run("reading", key, move || {
            let Some(mut file) = absent_or(open_file(&path))? else {
                return Ok(None);
            };
            let size = file.metadata()?.len();
            let mut bytes = Vec::new();
            if size <= most {
                file.read_to_end(&mut bytes)?;
            }
            Ok(Some((size, Bytes::from(bytes))))
        });
        match read.await? {
            Some((size, _)) if size > most => {
                Err(StoreError::too_long(self.url_of(key), size, most))
            }
            read => Ok(read.map(|(_, bytes)| bytes)),
        }
    }

    pub(super) async fn range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let path = self.path("reading", key)?;
        self.run("reading", key, move || {
            let mut file = open_file(&path)?;
            file.seek(SeekFrom::Start(range.start))?;
            let mut bytes = Vec::new();
            file.take(range.end.saturating_sub(range.start))
                .read_to_end(&mut bytes)?;
            Ok(Bytes::from(bytes))
        })
        .await
    }

    pub(super) async fn sha256(&self, key: &str) -> Result<(Object, [u8; 32]), StoreError> {
        let path = self.path("reading", key)?;
        let name = key.to_owned();
        self.run("reading", key, move || {
            let mut file = open_file(&path)?;
            let found = file.metadata()?;
            let mut hash = Sha256::new();
            let mut bytes = vec![0; HASHED];
            loop {
                let read = file.read(&mut bytes)?;
                match bytes.get(..read) {
                    Some([]) | None => break,
                    Some(read) => hash.update(read),
                }
            }
            Ok((object(name, &found), hash.finalize().into()))
        })
        .await
    }

    pub(super) async fn lies(&self, key: &str) -> Result<Lies, StoreError> {
        let path = self.path("looking at", key)?;
        self.run("looking at", key, move || {
            match fs::symlink_metadata(&path) {
                Ok(found) if found.is_symlink() => Ok(Lies::Link),
                Ok(found) if found.is_dir() => Ok(Lies::Folder),
                Ok(found) if found.is_file() => Ok(Lies::File),
                Ok(_) => Ok(Lies::Other),
                Err(error) => Ok(absent(error)?.unwrap_or(Lies::Nothing)),
            }
        })
        .await
    }

    pub(super) async fn set_aside(&self, key: &str, to: &str) -> Result<(), StoreError> {
        let from = self.path("moving", key)?;
        let to = self.path("moving", to)?;
        self.run("moving", key, move || {
            if absent_or(fs::symlink_metadata(&from))?.is_none() {
                return Ok(());
            }
            let name = |number: u32| {
                let mut name = to.clone().into_os_string();
                if number > 0 {
                    name.push(format!("~{number}"));
                }
                PathBuf::from(name)
            };
            // Nobody else writes there, because writers hold the lock.
            for free in (0..).map(name) {
                if absent_or(fs::symlink_metadata(&free))?.is_none() {
                    give_name(&free, || fs::rename(&from, &free))?;
                    return sync(from.parent().unwrap_or(&from));
                }
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn create(&self, key: &str, bytes: Bytes) -> Result<Option<Put>, StoreError> {
        let path = self.path("creating", key)?;
        let root = Arc::clone(&self.folder);
        self.run("creating", key, move || {
            let staged = Temporary::write(&root, |file| file.write_all(&bytes))?;
            match give_name(&path, || fs::hard_link(&staged.path, &path)) {
                Ok(()) => Ok(Some(put(&fs::metadata(&path)?))),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    let found = fs::metadata(&path)?;
                    let same = found.len() == bytes.len() as u64 && fs::read(&path)? == *bytes;
                    Ok(same.then(|| put(&found)))
                }
                Err(error) => Err(error),
            }
        })
        .await
    }

    pub(super) async fn upload(&self, key: &str, local_file: &Path) -> Result<Put, StoreError> {
        let path = self.path("writing", key)?;
        let mut source = open_source(local_file)?;
        let local_file = local_file.to_owned();
        let root = Arc::clone(&self.folder);
        self.run("writing", key, move || {
            let linked = match same_group(&root, &source.metadata()?)? {
                true => Temporary::link(&root, &local_file).ok(),
                false => None,
            };
            let staged = match linked {
                Some(linked) => {
                    source.sync_all()?;
                    // Once this name is gone, somebody who writes to its path cannot write to the object.
                    fs::remove_file(&local_file)?;
                    linked
                }
                // The file lies on another file system, or would not have the group of the lake.
                None => Temporary::write(&root, |file| io::copy(&mut source, file).map(drop))?,
            };
            let found = fs::metadata(&staged.path)?;
            staged.rename(&path)?;
            Ok(put(&found))
        })
        .await
    }

    pub(super) async fn publish(
        &self,
        staged: &str,
        target: &str,
        expected: Option<&str>,
    ) -> Result<Publish, StoreError> {
        let from = self.path("publishing", staged)?;
        let to = self.path("publishing", target)?;
        let expected = expected.map(str::to_owned);
        let root = Arc::clone(&self.folder);
        self.run("publishing", target, move || {
            publish(&root, &from, &to, expected.as_deref())
        })
        .await
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let path = self.path("deleting", key)?;
        let root = Arc::clone(&self.folder);
        self.run("deleting", key, move || delete(&root, &path).map(|_| ()))
            .await
    }

    /// Deletes a file that has the ETag `expected`, durably.
    pub(super) async fn remove(
        &self,
        key: &str,
        expected: Option<&str>,
    ) -> Result<Remove, StoreError> {
        let path = self.path("deleting", key)?;
        let root = Arc::clone(&self.folder);
        let expected = expected.map(str::to_owned);
        self.run("deleting", key, move || {
            let found = match fs::metadata(&path) {
                Ok(found) => Some(found),
                Err(error) => absent(error)?,
            };
            if found.is_some_and(|found| Some(etag(&found)) != expected) {
                return Ok(Remove::Conflict);
            }
            // Where nothing is found, its deletion may not be durable yet.
            let folder = delete(&root, &path)?;
            absent_or(sync(&folder))?;
            Ok(Remove::Done)
        })
        .await
    }

    pub(super) async fn try_conditions(&self, key: &str) -> Result<Conditions, StoreError> {
        self.create(key, Bytes::from_static(b"first")).await?;
        let second = self.create(key, Bytes::from_static(b"second")).await?;
        Ok(Conditions {
            create: second.is_none(),
            replace: true,
        })
    }

    pub(super) fn lock(&self, key: &str) -> Result<Option<File>, StoreError> {
        let path = self.path("locking", key)?;
        let failed = |error| StoreError::io("locking", self.url_of(key), error);
        let folder = path.parent().unwrap_or(&self.folder);
        create_folder(folder).map_err(failed)?;
        let open = || {
            let mut options = OpenOptions::new();
            options.create(true).truncate(false).write(true).open(&path)
        };
        let file = match open() {
            // An empty folder is no lock of anybody.
            Err(error) if error.kind() == ErrorKind::IsADirectory => {
                fs::remove_dir(&path).and_then(|()| open())
            }
            opened => opened,
        };
        let file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {
                // There is no other living writer, so nothing there is still being written.
                match fs::remove_dir_all(self.folder.join(TEMPORARY)) {
                    Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(error)),
                    _ => Ok(Some(file)),
                }
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

pub(super) fn open_source(local_file: &Path) -> Result<File, StoreError> {
    File::open(local_file)
        .map_err(|error| StoreError::io("reading", local_file.display().to_string(), error))
}

/// Whether a file has the group that it would have if it were made in the folder of temporary files. A folder
/// with the set-group-ID bit gives its own group.
fn same_group(root: &Path, file: &Metadata) -> io::Result<bool> {
    let folder = root.join(TEMPORARY);
    create_folder(&folder)?;
    let folder = fs::metadata(folder)?;
    Ok(folder.mode() & 0o2000 == 0 || folder.gid() == file.gid())
}

/// Deletes a file, if it is there, and the folders that this leaves empty. Gives the folder that stays.
fn delete(root: &Path, path: &Path) -> io::Result<PathBuf> {
    absent_or(fs::remove_file(path))?;
    let mut folder = path.parent().unwrap_or(root);
    while folder != root
        && let Some(above) = folder.parent()
        && absent_or(fs::remove_dir(folder)).is_ok()
    {
        folder = above;
    }
    Ok(folder.to_owned())
}

fn publish(root: &Path, from: &Path, to: &Path, expected: Option<&str>) -> io::Result<Publish> {
    let staged = match fs::metadata(from) {
        Ok(found) => found,
        Err(error) => return absent::<()>(error).map(|_| Publish::StagedGone),
    };
    let present = match fs::metadata(to) {
        Ok(found) => Some(found),
        Err(error) => absent(error)?,
    };
    if let Some(present) = &present {
        let linked = etag(present) == etag(&staged);
        if linked || (expected != Some(etag(present).as_str()) && same_content(from, to)?) {
            // The process that made it may have died before it was durable.
            sync(to.parent().unwrap_or(root))?;
            return Ok(Publish::Done(put(present)));
        }
    }
    if present.as_ref().map(etag).as_deref() != expected {
        return Ok(Publish::Conflict);
    }
    if expected.is_some() {
        Temporary::link(root, from)?.rename(to)?;
    } else {
        match give_name(to, || fs::hard_link(from, to)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Ok(Publish::Conflict);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Publish::Done(put(&staged)))
}

/// Opens a file for reading. Opening a pipe would wait for its writer, and a device may have no end.
fn open_file(path: &Path) -> io::Result<File> {
    let found = fs::metadata(path)?;
    if found.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    if !found.is_file() {
        return Err(io::Error::other(
            "a pipe, a socket or a device, and no file: copy what it gives into a file",
        ));
    }
    File::open(path)
}

fn same_content(a: &Path, b: &Path) -> io::Result<bool> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    if a.metadata()?.len() != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        Read::by_ref(&mut a).take(CHUNK).read_to_end(&mut left)?;
        Read::by_ref(&mut b).take(CHUNK).read_to_end(&mut right)?;
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}

/// A file in the folder of temporary files. It is deleted when this value is dropped, unless it was renamed.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    /// Writes and syncs a file.
    fn write(
        root: &Path,
        content: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<Temporary> {
        let (mut file, temporary) = Temporary::make(root, |path| {
            OpenOptions::new().write(true).create_new(true).open(path)
        })?;
        content(&mut file)?;
        file.sync_all()?;
        Ok(temporary)
    }

    /// A second name of the file `from`.
    fn link(root: &Path, from: &Path) -> io::Result<Temporary> {
        let ((), temporary) = Temporary::make(root, |path| fs::hard_link(from, path))?;
        Ok(temporary)
    }

    fn make<T>(
        root: &Path,
        mut make: impl FnMut(&Path) -> io::Result<T>,
    ) -> io::Result<(T, Temporary)> {
        let folder = root.join(TEMPORARY);
        create_folder(&folder)?;
        loop {
            let number = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{}-{number}", std::process::id()));
            match make(&path) {
                Ok(made) => return Ok((made, Temporary { path })),
                // A killed process with the same number has left it.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn rename(self, target: &Path) -> io::Result<()> {
        give_name(target, || fs::rename(&self.path, target))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename the file is gone. A file that is left does no harm.
        let _ = fs::remove_file(&self.path);
    }
}

/// Gives content its final name, durably. The folder is made if it is missing.
fn give_name(target: &Path, mut give: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let folder = target.parent().ok_or(ErrorKind::InvalidInput)?;
    // Another process may remove the folder as long as it is empty.
    let mut tries = 0;
    loop {
        tries += 1;
        create_folder(folder)?;
        match give() {
            Err(error) if tries < 100 && error.kind() == ErrorKind::NotFound => {}
            given => {
                given?;
                return sync(folder);
            }
        }
    }
}

/// Makes a folder and the folders above it, each of them durably.
fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        create_folder(above)?;
    }
    match fs::create_dir(folder) {
        Ok(()) => folder.parent().map_or(Ok(()), sync),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            if folder.is_dir() {
                Ok(())
            } else {
                Err(ErrorKind::NotADirectory.into())
            }
        }
        Err(error) => Err(error),
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn absent_or<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) => absent(error),
    }
}

/// A missing file is an answer and not an error.
fn absent<T>(error: io::Error) -> io::Result<Option<T>> {
    match error.kind() {
        ErrorKind::NotFound => Ok(None),
        _ => Err(error),
    }
}

/// The files below a folder. A link within the root is followed. A link that leads out of the root, in a circle
/// or nowhere is named.
fn walk(root: &Path, folder: PathBuf, prefix: String) -> io::Result<Listing> {
    let mut listing = Listing::default();
    let root = match fs::canonicalize(root) {
        Ok(root) => root,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(listing),
        Err(error) => return Err(error),
    };
    // Each folder with the identities of the folders above it, because a link may lead back up.
    let mut open = vec![(folder, prefix, Vec::new())];
    while let Some((folder, prefix, mut above)) = open.pop() {
        let found = fs::metadata(&folder);
        let (identity, entries) = match found.and_then(|found| {
            let identity = (found.dev(), found.ino());
            Ok((identity, fs::read_dir(&folder)?))
        }) {
            Ok(found) => found,
            // It was removed after its name was read, or it never existed.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        above.push(identity);
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                let name = name.to_string_lossy();
                listing.unrepresentable.push(format!("{prefix}{name}"));
                continue;
            };
            if name.starts_with(TEMPORARY) {
                continue;
            }
            let key = format!("{prefix}{name}");
            let path = entry.path();
            if entry.file_type()?.is_symlink() {
                let target = fs::canonicalize(&path);
                let found = fs::metadata(&path);
                let circle = found.is_ok_and(|found| above.contains(&(found.dev(), found.ino())));
                match target {
                    Ok(target) if target.starts_with(&root) && !circle => {}
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        listing.no_files.push(key);
                        continue;
                    }
                    _ => {
                        listing.links.push(key);
                        continue;
                    }
                }
            }
            match fs::metadata(&path) {
                Ok(found) if found.is_dir() => {
                    open.push((path, format!("{key}/"), above.clone()));
                }
                Ok(found) if representable(&key) && found.is_file() => {
                    listing.objects.push(object(key, &found));
                }
                Ok(found) if found.is_file() => listing.unrepresentable.push(key),
                Ok(_) => listing.no_files.push(key),
                // It was deleted meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(listing)
}

fn object(key: String, found: &Metadata) -> Object {
    Object {
        key,
        size: found.len(),
        etag: Some(etag(found)),
        // The file may be from before 1970.
        last_modified_ms: found
            .mtime()
            .saturating_mul(1_000)
            .saturating_add(found.mtime_nsec() / 1_000_000),
    }
}

fn put(found: &Metadata) -> Put {
    Put { etag: etag(found) }
}

/// Content is never changed in place, so new content has a new inode.
fn etag(found: &Metadata) -> String {
    let nanoseconds = i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec());
    format!("{:x}-{nanoseconds:x}-{:x}", found.ino(), found.len())
}
