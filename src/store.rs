//! The door to disk and S3: a root URL, the keys below it, and the few operations that the lake relies on.
//!
//! ```text
//! Store::open("s3://bucket/prefix/")
//!   │  list · head · get · read          what is there
//!   │  create · upload                   new content, staged or committed
//!   │  publish · remove · delete · lock  staged object ─▶ its final name, and the end of objects
//!   │  try_conditions                    whether all this can be relied on
//!   ├── disk    std::fs: hard link and rename, fsync of file and folder
//!   └── bucket  AmazonS3: If-None-Match, If-Match ── wire: permits, limits ──▶ HTTP
//! ```
//!
//! # Contract
//!
//! * If `create`, `upload` or `publish` succeeds, the object is whole and durable, and every later `list`,
//!   `head` and read sees it. If the operation fails, nothing half-written is left under its key.
//! * `create` has one winner among writers of different bytes, whatever answers are lost on the way. Creating
//!   the same bytes twice counts as one creation. Writers that compete must therefore write their own names
//!   into the bytes.
//! * A conflict is a result ([`Publish::Conflict`], `None`) and not an error. After an error the state is
//!   unknown, and the same call may be repeated.
//! * Keys are relative to the root, separated by `/`, and not escaped in any way. Listings are sorted by the
//!   bytes of the key.

mod bucket;
mod conditional_delete;
mod credentials;
mod disk;
mod error;
mod fetch;
mod gate;
mod reads;
mod retries;
mod service;
mod wire;

pub use error::{StoreError, StoreErrorKind, is_full};
pub use fetch::{FetchError, fetch};
pub use gate::{Access, Gate, Operation};
pub use service::{Service, ServiceAt, ServiceError, is_passing};

use crate::config::Encryption;
use bucket::Bucket;
use bytes::Bytes;
use disk::Disk;
use futures::stream::BoxStream;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path as ClientPath;
use reads::Reads;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// The scheme of a bucket in memory.
const MEMORY: &str = "memory";

/// The most bytes of an object that is read whole when nothing else is known about its size. A commit has a few
/// megabytes.
const SMALL: u64 = 256 << 20;

/// Who asks a bucket, as far as the client knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The id of the access key, which is no secret.
    pub key: String,
    /// The region for which requests are signed.
    pub region: String,
    /// The endpoint, where it is not that of AWS.
    pub endpoint: Option<String>,
}

/// Limits of a [`Store`].
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// The number of requests that may be in flight at once. A request whose answer has begun to be read does
    /// not count.
    pub concurrency: usize,
    /// The time for which a failing request is tried again.
    pub retry_for: Duration,
    /// The time for which a server may be silent before a request counts as failed.
    pub silence: Duration,
    /// The size of the parts of an upload. Larger files are uploaded in parts.
    pub part_bytes: u64,
    /// The most bytes of memory that the objects of one listing may take.
    pub listing_bytes: u64,
    /// How many pages of a listing may come one after the other without an object; then the listing has failed.
    pub empty_pages: u64,
    /// How S3 encrypts what is written. `None` leaves it to the bucket.
    pub encryption: Option<Encryption>,
    /// Whether every request to S3 says that its sender pays.
    pub requester_pays: bool,
    /// AWS settings that replace those of the standard chain (environment, profile, SSO, web identity,
    /// container, instance).
    pub aws: Option<aws_config::SdkConfig>,
    /// The bucket that `memory://` URLs name. Only tests have one.
    pub memory: Option<Arc<InMemory>>,
    /// The gate that sees every operation. Only tests have one.
    pub gate: Option<Arc<dyn Gate>>,
}

impl Default for StoreSettings {
    fn default() -> Self {
        StoreSettings {
            concurrency: 32,
            retry_for: Duration::from_secs(60),
            silence: Duration::from_secs(30),
            part_bytes: 16 * 1024 * 1024,
            listing_bytes: 1 << 30,
            // A bucket with ten million deleted objects in a row, a thousand to a page.
            empty_pages: 10_000,
            encryption: None,
            requester_pays: false,
            aws: None,
            memory: None,
            gate: None,
        }
    }
}

/// An object as a listing or a HEAD shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The key, relative to the root.
    pub key: String,
    /// The size in bytes.
    pub size: u64,
    /// The ETag, which changes whenever the content is replaced. Some servers give none in listings.
    pub etag: Option<String>,
    /// Milliseconds since 1970 UTC.
    pub last_modified_ms: i64,
}

/// The result of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The objects, sorted by the bytes of the key.
    pub objects: Vec<Object>,
    /// Keys that exist but cannot be addressed (`a//b`, `.`, `..`, a trailing `/`, control
    /// characters, names that are not UTF-8), sorted.
    pub unrepresentable: Vec<String>,
    /// Empty objects whose keys end in `/`, sorted. A console makes such objects for folders.
    pub markers: Vec<String>,
    /// Names on disk that are no files, sorted: links that lead nowhere, pipes, sockets.
    pub no_files: Vec<String>,
    /// Symbolic links that are not followed, sorted: links that lead out of the root, or in a circle.
    pub links: Vec<String>,
}

impl Listing {
    /// Leaves out every key that is not wanted, and sorts the others.
    fn keep(&mut self, wanted: impl Fn(&str) -> bool) {
        self.objects.retain(|object| wanted(&object.key));
        self.objects.sort_by(|a, b| a.key.cmp(&b.key));
        for keys in [
            &mut self.unrepresentable,
            &mut self.markers,
            &mut self.no_files,
            &mut self.links,
        ] {
            keys.retain(|key| wanted(key));
            keys.sort();
        }
    }

    /// Whether the listing has no entry of any kind.
    pub const fn is_empty(&self) -> bool {
        self.objects.is_empty()
            && self.unrepresentable.is_empty()
            && self.markers.is_empty()
            && self.no_files.is_empty()
            && self.links.is_empty()
    }
}

/// A write that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The ETag of the content that is now under the key.
    pub etag: String,
}

/// Whether the conditions of writes hold: see [`Store::try_conditions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    /// A taken key is not created again.
    pub create: bool,
    /// An object with another ETag than the expected one is not replaced.
    pub replace: bool,
}

/// The result of [`Store::publish`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publish {
    /// The target holds the staged content. It may have held it before.
    Done(Put),
    /// The target differs from what was expected. Nothing was changed.
    Conflict,
    /// There is no staged object, because somebody else has published and swept it.
    StagedGone,
}

/// What came of [`Store::remove`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remove {
    /// Nothing lies under the key, now or already before.
    Done,
    /// Something else than what was expected lies there. Nothing was changed.
    Conflict,
}

/// The kind of entry that lies under a key. Links are not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lies {
    /// There is nothing.
    Nothing,
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A pipe, a socket or a device.
    Other,
}

/// The content of an object as it comes in.
pub type ByteStream = BoxStream<'static, Result<Bytes, StoreError>>;

/// A root on disk or in a bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    root: Arc<str>,
    inner: Inner,
    gate: Option<Arc<dyn Gate>>,
}

#[derive(Debug, Clone)]
enum Inner {
    Disk(Disk),
    Bucket(Bucket),
}

impl Store {
    /// The failure of this store that caused an error of another room: no usable answer, no permission, no
    /// bucket. A single object that is missing or not whole is no failure of the store.
    pub fn failure(&self, error: &(dyn std::error::Error + 'static)) -> Option<StoreError> {
        use StoreErrorKind as Kind;
        let made = StoreError::found("reading", &self.root, error)?;
        let of_one_object = match made.kind() {
            Kind::NotFound | Kind::NotAFile | Kind::Replaced | Kind::Other => true,
            Kind::Unreachable
            | Kind::Expired
            | Kind::Denied
            | Kind::NoCredentials
            | Kind::NoRegion
            | Kind::WrongRegion
            | Kind::MissingBucket
            | Kind::NotAFolder
            | Kind::BadUrl
            | Kind::Unfit
            | Kind::Full => false,
        };
        (!of_one_object).then_some(made)
    }

    /// Opens a root: `file:///abs/dir/` (which need not exist yet) or `s3://bucket/prefix/`.
    ///
    /// It reads AWS settings and credentials, and sends no request to the bucket.
    ///
    /// # Errors
    /// A URL that is neither of these, a root that is a file, no AWS credentials or no region.
    pub async fn open(root_url: &str, settings: &StoreSettings) -> Result<Store, StoreError> {
        let other =
            |detail: String| StoreError::new(StoreErrorKind::BadUrl, "opening", root_url, detail);
        let url = Url::parse(root_url).map_err(|error| other(format!("not a URL: {error}")))?;
        if url.password().is_some() || !url.username().is_empty() {
            // The URL is not shown, because it holds the secret.
            return Err(StoreError::new(
                StoreErrorKind::BadUrl,
                "opening",
                format!("{}://…", url.scheme()),
                "a URL must not hold credentials",
            )
            .with_hint("use the environment or an AWS profile"));
        }
        let inner = match url.scheme() {
            "file" => {
                let folder = url
                    .to_file_path()
                    .map_err(|()| other("not an absolute path of this machine".to_owned()))?;
                Inner::Disk(Disk::open(folder, settings)?)
            }
            "s3" | "s3a" => Inner::Bucket(Bucket::open(root_url, settings).await?),
            MEMORY if settings.memory.is_some() => {
                Inner::Bucket(Bucket::open(root_url, settings).await?)
            }
            scheme => {
                return Err(other(format!(
                    "`{scheme}` is not supported: use s3:// or file://"
                )));
            }
        };
        let root = match &inner {
            Inner::Disk(disk) => disk.root_url().to_owned(),
            Inner::Bucket(bucket) => bucket.root_url().to_owned(),
        };
        Ok(Store {
            root: root.into(),
            inner,
            gate: settings.gate.clone(),
        })
    }

    /// Passes an operation through the gate, if there is one.
    async fn pass<T>(
        &self,
        operation: Operation,
        key: &str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let Some(gate) = &self.gate else {
            return work.await;
        };
        let access = Access {
            operation,
            root: &self.root,
            key,
        };
        let refused = |error| StoreError::io("passing the gate to", self.url_of(key), error);
        gate.before(access).await.map_err(refused)?;
        let done = work.await;
        gate.after(access).await.map_err(refused)?;
        done
    }

    /// The root URL, ending in `/`.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The URL of a key, for messages and for readers: `file` percent-encoded, `s3` as it is.
    pub fn url_of(&self, key: &str) -> String {
        match &self.inner {
            Inner::Disk(disk) => disk.url_of(key),
            Inner::Bucket(bucket) => bucket.url_of(key),
        }
    }

    /// Who asks the bucket; `None` for a root on disk.
    pub fn caller(&self) -> Option<&Caller> {
        match &self.inner {
            Inner::Disk(_) => None,
            Inner::Bucket(bucket) => bucket.caller(),
        }
    }

    /// Whether the root is on disk.
    pub fn is_local(&self) -> bool {
        matches!(self.inner, Inner::Disk(_))
    }

    /// The path of a key on disk, or of the root for `""`; `None` in a bucket, and for keys that are no file
    /// name.
    pub fn local_path(&self, key: &str) -> Option<PathBuf> {
        match &self.inner {
            Inner::Disk(disk) if key.is_empty() => Some(disk.folder().to_owned()),
            Inner::Disk(disk) => disk.path("naming", key).ok(),
            Inner::Bucket(_) => None,
        }
    }

    /// All objects whose keys start with `prefix` (`""` for all), over as many pages as needed.
    ///
    /// # Errors
    /// Unreachable, denied, or a missing bucket. A prefix or a local root without objects is an
    /// empty listing.
    pub async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        // A store lists folders only, so the rest of the prefix is compared here.
        let folder = prefix.rfind('/').map_or("", |at| &prefix[..at]);
        let found = self.pass(Operation::List, prefix, async {
            match &self.inner {
                Inner::Disk(disk) => disk.list(folder).await,
                Inner::Bucket(bucket) => bucket.list(folder).await,
            }
        });
        let mut listing = found.await?;
        listing.keep(|key| key.starts_with(prefix));
        Ok(listing)
    }

    /// All objects whose keys sort after `from`, or all objects if `from` is empty.
    ///
    /// # Errors
    /// See [`Self::list`].
    pub async fn list_after(&self, from: &str) -> Result<Listing, StoreError> {
        let mut listing = match &self.inner {
            Inner::Bucket(bucket) if !from.is_empty() => {
                let found = bucket.list_after(from);
                self.pass(Operation::List, from, found).await?
            }
            _ => self.list("").await?,
        };
        listing.keep(|key| key > from);
        Ok(listing)
    }

    /// The size and the ETag of one object; `None` if there is none.
    ///
    /// # Errors
    /// Unreachable or denied.
    pub async fn head(&self, key: &str) -> Result<Option<Object>, StoreError> {
        self.pass(Operation::Head, key, async {
            match &self.inner {
                Inner::Disk(disk) => disk.head(key).await,
                Inner::Bucket(bucket) => bucket.head(key).await,
            }
        })
        .await
    }

    /// Opens one object for reading. The description belongs to the object whose bytes follow.
    ///
    /// # Errors
    /// Not found, unreachable or denied, also in the middle of the stream.
    pub async fn get(&self, key: &str) -> Result<(Object, ByteStream), StoreError> {
        self.pass(Operation::Get, key, async {
            match &self.inner {
                Inner::Disk(disk) => disk.get(key).await,
                Inner::Bucket(bucket) => bucket.get(key).await,
            }
        })
        .await
    }

    /// The whole content of one small object, such as a commit; `None` if there is none.
    ///
    /// # Errors
    /// Unreachable or denied; an object of more than 256 MiB.
    pub async fn read(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        self.read_whole(key, SMALL).await
    }

    /// The whole content of one object of `most` bytes or fewer; `None` if there is none.
    ///
    /// # Errors
    /// Unreachable or denied; an object that is longer.
    pub async fn read_whole(&self, key: &str, most: u64) -> Result<Option<Bytes>, StoreError> {
        self.pass(Operation::Read, key, async {
            match &self.inner {
                Inner::Disk(disk) => disk.read(key, most).await,
                Inner::Bucket(bucket) => Ok(bucket.read(key, most).await?.map(|(_, bytes)| bytes)),
            }
        })
        .await
    }

    /// Some bytes of one object; fewer at its end. In a bucket, an object with another ETag than `expected` is
    /// not read. On disk an ETag does not tell whether the bytes are the same, see [`Self::sha256`].
    ///
    /// # Errors
    /// Not found, replaced, unreachable or denied.
    pub async fn range(
        &self,
        key: &str,
        expected: Option<&str>,
        range: Range<u64>,
    ) -> Result<Bytes, StoreError> {
        self.pass(Operation::Read, key, async {
            match &self.inner {
                Inner::Disk(disk) => disk.range(key, range).await,
                Inner::Bucket(bucket) => bucket.range(key, expected, range).await,
            }
        })
        .await
    }

    /// One object and the SHA-256 of its bytes, in bounded memory; `None` if there is none.
    ///
    /// # Errors
    /// Unreachable or denied; a folder in the place of a file.
    pub async fn sha256(&self, key: &str) -> Result<Option<(Object, [u8; 32])>, StoreError> {
        let hashed = self.pass(Operation::Get, key, async {
            match &self.inner {
                Inner::Disk(disk) => disk.sha256(key).await,
                Inner::Bucket(bucket) => bucket.sha256(key).await,
            }
        });
        match hashed.await {
            Ok(hashed) => Ok(Some(hashed)),
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The kind of entry that lies under a key on disk. A link is not followed. A bucket has only files, so the
    /// answer is [`Lies::File`] there, whether the object exists or not.
    ///
    /// # Errors
    /// Unreachable or denied.
    pub async fn lies(&self, key: &str) -> Result<Lies, StoreError> {
        match &self.inner {
            Inner::Disk(disk) => disk.lies(key).await,
            Inner::Bucket(_) => Ok(Lies::File),
        }
    }

    /// Moves the entry under a key away, so that the key is free. On disk it is moved to a free name that
    /// begins with `to` and is never read. In a bucket the object is deleted. It is no error if there is no
    /// entry.
    ///
    /// # Errors
    /// Unreachable or denied.
    pub async fn set_aside(&self, key: &str, to: &str) -> Result<(), StoreError> {
        match &self.inner {
            Inner::Disk(disk) => {
                let moved = disk.set_aside(key, to);
                self.pass(Operation::Delete, key, moved).await
            }
            Inner::Bucket(_) => self.delete(vec![key.to_owned()]).await,
        }
    }

    /// Writes a new object; `None` if the key already holds other content.
    ///
    /// If the same content is already there, it counts as written: see the contract.
    ///
    /// # Errors
    /// Unreachable, denied or full.
    pub async fn create(&self, key: &str, bytes: Bytes) -> Result<Option<Put>, StoreError> {
        self.pass(Operation::Create, key, async {
            match &self.inner {
                Inner::Disk(disk) => disk.create(key, bytes).await,
                Inner::Bucket(bucket) => bucket.create(key, bytes).await,
            }
        })
        .await
    }

    /// Writes or replaces an object with the content of a local file, in bounded memory. The file belongs to
    /// the store from then on, also after an error. On disk the file becomes the object if both lie on one file
    /// system.
    ///
    /// # Errors
    /// Unreachable, denied or full; an unreadable local file.
    pub async fn upload(&self, key: &str, local_file: &Path) -> Result<Put, StoreError> {
        self.pass(Operation::Upload, key, async {
            match &self.inner {
                Inner::Disk(disk) => disk.upload(key, local_file).await,
                Inner::Bucket(bucket) => bucket.upload(key, local_file).await,
            }
        })
        .await
    }

    /// Puts the staged object under its final name. `expected` is the ETag that the target must still have;
    /// `None` says that the target must not exist. The staged object stays.
    ///
    /// If the target already holds the staged content, the result is [`Publish::Done`], so a commit can be
    /// rolled forward any number of times. On disk the check and the rename are two steps, so writers hold
    /// [`Store::lock`].
    ///
    /// # Errors
    /// Unreachable, denied or full.
    pub async fn publish(
        &self,
        staged: &str,
        target: &str,
        expected: Option<&str>,
    ) -> Result<Publish, StoreError> {
        self.publish_from(None, staged, target, expected).await
    }

    /// Does the same if a `local` file may hold the staged content. A bucket then need not be read.
    ///
    /// # Errors
    /// See [`Self::publish`].
    pub async fn publish_from(
        &self,
        local: Option<&Path>,
        staged: &str,
        target: &str,
        expected: Option<&str>,
    ) -> Result<Publish, StoreError> {
        self.pass(Operation::Publish, target, async {
            match &self.inner {
                Inner::Disk(disk) => disk.publish(staged, target, expected).await,
                Inner::Bucket(bucket) => bucket.publish(local, staged, target, expected).await,
            }
        })
        .await
    }

    /// Deletes objects. Missing objects are no error. On disk, folders that become empty are deleted too.
    ///
    /// # Errors
    /// Unreachable or denied; some of the objects may be gone.
    pub async fn delete(&self, keys: Vec<String>) -> Result<(), StoreError> {
        match &self.inner {
            Inner::Disk(disk) => {
                for key in keys {
                    self.pass(Operation::Delete, &key, disk.delete(&key))
                        .await?;
                }
                Ok(())
            }
            // One request deletes a thousand keys.
            Inner::Bucket(bucket) => {
                let all = self.gate.as_ref().map(|_| keys.join(","));
                let key = all.unwrap_or_default();
                self.pass(Operation::Delete, &key, bucket.delete(keys))
                    .await
            }
        }
    }

    /// Deletes one object that still has the ETag `expected`. A key under which nothing lies is [`Remove::Done`], so
    /// that the same call may be repeated. On disk the comparison and the deletion are two steps: writers hold
    /// [`Store::lock`]. A server that ignores If-Match of DELETE deletes whatever lies there a moment after it was
    /// compared.
    ///
    /// # Errors
    /// Unreachable or denied.
    pub async fn remove(&self, key: &str, expected: Option<&str>) -> Result<Remove, StoreError> {
        self.pass(Operation::Delete, key, async {
            match &self.inner {
                Inner::Disk(disk) => disk.remove(key, expected).await,
                Inner::Bucket(bucket) => bucket.remove(key, expected).await,
            }
        })
        .await
    }

    /// Finds out whether the store refuses writes whose condition does not hold. `key` must belong to nobody
    /// else, and nothing stays there. On disk, replacing compares under [`Store::lock`], so it need not be
    /// tried.
    ///
    /// # Errors
    /// Unreachable, denied or full.
    pub async fn try_conditions(&self, key: &str) -> Result<Conditions, StoreError> {
        let found = match &self.inner {
            Inner::Disk(disk) => disk.try_conditions(key).await,
            Inner::Bucket(bucket) => bucket.try_conditions(key).await,
        }?;
        self.delete(vec![key.to_owned()]).await?;
        Ok(found)
    }

    /// Takes the writers' lock `key` of a root on disk; `None` if another process holds it. The operating
    /// system releases the lock with the process. In a bucket there is nothing to lock, because conditional
    /// writes guard it, and the guard is empty.
    ///
    /// # Errors
    /// A lock file that cannot be made, or a file system without locks.
    pub async fn lock(&self, key: &str) -> Result<Option<LockGuard>, StoreError> {
        self.pass(Operation::Lock, key, async {
            match &self.inner {
                Inner::Disk(disk) => {
                    Ok(disk.lock(key)?.map(|file| LockGuard { _file: Some(file) }))
                }
                Inner::Bucket(_) => Ok(Some(LockGuard { _file: None })),
            }
        })
        .await
    }

    /// For the session of an engine: the base URL to register, the client, and the path of the root below the
    /// URL. Keys with `local` files are read from these files, which have the same content. Keys with `etags`
    /// are read in that version only.
    pub fn object_store(
        &self,
        local: &BTreeMap<String, PathBuf>,
        etags: &BTreeMap<String, String>,
    ) -> (Url, Arc<dyn ObjectStore>, ClientPath) {
        let ((url, client, root), local, etags) = match &self.inner {
            // All objects are local.
            Inner::Disk(disk) => (disk.object_store(), Vec::new(), Vec::new()),
            Inner::Bucket(bucket) => {
                let path = |key: &String| bucket.path("reading", key).ok();
                let local = local.iter();
                let local = local.filter_map(|(key, file)| Some((path(key)?, file.clone())));
                let etags = etags.iter();
                let etags = etags.filter_map(|(key, etag)| Some((path(key)?, etag.clone())));
                (bucket.object_store(), local.collect(), etags.collect())
            }
        };
        (url, Arc::new(Reads::new(client, local, etags)), root)
    }
}

/// Holds the writers' lock until it is dropped.
#[derive(Debug)]
pub struct LockGuard {
    _file: Option<std::fs::File>,
}
