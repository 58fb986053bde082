//! A root in an S3 bucket, or in one that a test holds in memory.
//!
//! ```text
//! create, publish: conditional PUT ─┬─ 200 ──────────────────────────────▶ done
//!                                   ├─ 409, 412, lost answer ─▶ read back ─┬─ our bytes ─▶ done
//!                                   │                                      ├─ others ────▶ conflict
//!                                   │                                      └─ nothing ───▶ again
//!                                   └─ denied, missing bucket … ─────────▶ error
//! ```
//!
//! The client tries a conditional PUT again by itself if the server answers with 5xx. The second try then meets
//! what the first one has written. A 412 alone therefore never tells which writer has won. The bytes do.

use super::conditional_delete::{Answered, ConditionalDelete};
use super::credentials::{self, ChainCredentials};
use super::disk::open_source;
use super::error::{Answer, timed_out};
use super::wire::{SLOWEST_DOWNLOAD, WireConnector, representable, unspell};
use super::{
    ByteStream, Caller, Conditions, Listing, MEMORY, Object, Publish, Put, Remove, StoreError,
    StoreErrorKind, StoreSettings,
};
use crate::config::Encryption;
use bytes::Bytes;
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::client::HttpConnector;
use object_store::path::Path as ClientPath;
use object_store::{
    BackoffConfig, ClientOptions, Error as ClientError, GetOptions, GetRange, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutPayload, RetryConfig,
    UpdateVersion,
};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

/// The number of parts of one upload that are on their way at once. Together with the size of a part it bounds
/// the memory.
const PARTS_IN_FLIGHT: usize = 4;

/// The most parts that S3 accepts for one object.
const MOST_PARTS: u64 = 10_000;

/// The least bytes of a part that S3 accepts, except for the last part.
const LEAST_PART_BYTES: u64 = 5 * 1024 * 1024;

/// The most bytes of an object that S3 accepts in one PUT.
const MOST_OF_PUT: u64 = 5 << 30;

/// The number of tries of a conditional PUT whose outcome is unclear.
const UNCLEAR_TRIES: u32 = 4;

#[derive(Debug, Clone)]
pub(super) struct Bucket {
    client: Arc<dyn ObjectStore>,
    /// `None` for a bucket in memory.
    delete_if: Option<ConditionalDelete>,
    /// Who asks; `None` for a bucket in memory.
    caller: Option<Arc<Caller>>,
    base: Url,
    root: Arc<str>,
    /// The prefix; empty, or with `/` at its end.
    prefix: Arc<str>,
    part_bytes: u64,
    listing_bytes: u64,
    /// The time for which a broken request is tried again.
    retry_for: Duration,
}

enum Conditional {
    Done(Put),
    Conflict,
}

impl Bucket {
    pub(super) async fn open(url: &str, settings: &StoreSettings) -> Result<Bucket, StoreError> {
        let other = |detail: &str| StoreError::new(StoreErrorKind::BadUrl, "opening", url, detail);
        let (scheme, _) = url.split_once("://").unwrap_or_default();
        // The URL is not parsed, because parsing would percent-encode a part that is a plain key here.
        let rest = url.split_once("://").map_or("", |(_, rest)| rest);
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        if name.is_empty() {
            return Err(other("the URL names no bucket"));
        }
        if !prefix.is_empty() && !representable(prefix) {
            return Err(other("the prefix is not a plain path"));
        }
        let prefix = match prefix {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let scheme = if scheme == MEMORY { MEMORY } else { "s3" };
        let root = format!("{scheme}://{name}/{prefix}");
        let base = Url::parse(&format!("{scheme}://{name}"))
            .map_err(|error| other(&format!("not a bucket name: {error}")))?;
        let (client, delete_if, caller): (Arc<dyn ObjectStore>, _, _) =
            match (scheme, &settings.memory) {
                (MEMORY, Some(memory)) => (Arc::clone(memory) as Arc<dyn ObjectStore>, None, None),
                _ => {
                    let (delete_if, caller) = Self::client(name, &root, settings).await?;
                    let client = Arc::clone(&delete_if.signer);
                    (client, Some(delete_if), Some(Arc::new(caller)))
                }
            };
        Ok(Bucket {
            client,
            delete_if,
            caller,
            base,
            root: root.into(),
            prefix: prefix.into(),
            part_bytes: settings.part_bytes.max(LEAST_PART_BYTES),
            listing_bytes: settings.listing_bytes,
            retry_for: settings.retry_for,
        })
    }

    async fn client(
        name: &str,
        root: &str,
        settings: &StoreSettings,
    ) -> Result<(ConditionalDelete, Caller), StoreError> {
        let chain;
        let aws = match &settings.aws {
            Some(given) => given,
            None => {
                chain = credentials::standard_chain().await;
                &chain
            }
        };
        let endpoint = credentials::endpoint(aws, "s3");
        let region = credentials::region(aws, endpoint.as_deref(), root)?;
        let keys = ChainCredentials::new(aws);
        let own = keys.get().await;
        let own = own.map_err(|failure| failure.to_store_error("opening", root.to_owned()))?;
        let caller = Caller {
            key: own.key_id.clone(),
            region: region.clone(),
            endpoint: endpoint.clone(),
        };

        let options = ClientOptions::new()
            // Silence is limited, and not the time of a whole object: see `wire`.
            .with_timeout_disabled()
            .with_connect_timeout(Duration::from_secs(5).min(settings.silence))
            .with_allow_http(
                endpoint
                    .as_deref()
                    .is_some_and(|url| url.starts_with("http://")),
            );
        let connector = WireConnector {
            permits: Arc::new(Semaphore::new(settings.concurrency.max(1))),
            silence: settings.silence,
            empty_pages: settings.empty_pages,
            retry_for: settings.retry_for,
        };
        let failed = |error: ClientError| StoreError::client("opening", root.to_owned(), &error);
        let http = connector.connect(&options).map_err(failed)?;
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(name)
            .with_region(region)
            .with_credentials(Arc::new(keys))
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            // A name with a dot does not fit the certificate of the virtual-hosted style.
            .with_virtual_hosted_style_request(endpoint.is_none() && !name.contains('.'))
            .with_retry(RetryConfig {
                backoff: BackoffConfig {
                    init_backoff: Duration::from_millis(100),
                    max_backoff: Duration::from_secs(10),
                    base: 2.0,
                },
                // The time is the bound.
                max_retries: usize::MAX,
                retry_timeout: settings.retry_for,
            })
            .with_client_options(options)
            .with_http_connector(connector);
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        builder = builder.with_request_payer(settings.requester_pays);
        if let Some(encryption) = &settings.encryption {
            builder = encrypted(builder, encryption).map_err(failed)?;
        }
        let delete_if = ConditionalDelete {
            signer: Arc::new(builder.build().map_err(failed)?),
            http,
        };
        Ok((delete_if, caller))
    }

    pub(super) fn caller(&self) -> Option<&Caller> {
        self.caller.as_deref()
    }

    pub(super) fn root_url(&self) -> &str {
        &self.root
    }

    pub(super) fn url_of(&self, key: &str) -> String {
        format!("{}{key}", self.root)
    }

    pub(super) fn object_store(&self) -> (Url, Arc<dyn ObjectStore>, ClientPath) {
        let prefix = ClientPath::parse(&*self.prefix).unwrap_or_default();
        (self.base.clone(), Arc::clone(&self.client), prefix)
    }

    pub(super) fn path(&self, action: &'static str, key: &str) -> Result<ClientPath, StoreError> {
        let full = format!("{}{key}", self.prefix);
        ClientPath::parse(&full)
            .ok()
            .filter(|path| !key.is_empty() && path.as_ref() == full)
            .ok_or_else(|| {
                StoreError::new(
                    StoreErrorKind::Other,
                    action,
                    self.url_of(key),
                    "the key is not a plain path below the root",
                )
            })
    }

    fn failed(&self, action: &'static str, key: &str, error: &ClientError) -> StoreError {
        StoreError::client(action, self.url_of(key), error)
    }

    fn object(&self, meta: ObjectMeta) -> Object {
        let key = meta.location.as_ref();
        Object {
            key: key.strip_prefix(&*self.prefix).unwrap_or(key).to_owned(),
            size: meta.size,
            etag: meta.e_tag,
            last_modified_ms: meta.last_modified.timestamp_millis(),
        }
    }

    pub(super) async fn list(&self, folder: &str) -> Result<Listing, StoreError> {
        let (url_key, path) = match (folder, &*self.prefix) {
            ("", "") => (String::new(), None),
            ("", root) => {
                let path = ClientPath::parse(root).ok();
                (String::new(), path)
            }
            (folder, _) => (format!("{folder}/"), Some(self.path("listing", folder)?)),
        };
        let found = self.client.list(path.as_ref());
        self.gather(&url_key, found).await
    }

    pub(super) async fn list_after(&self, from: &str) -> Result<Listing, StoreError> {
        let root = ClientPath::parse(&*self.prefix).ok();
        let offset = self.path("listing", from)?;
        let found = self.client.list_with_offset(root.as_ref(), &offset);
        self.gather("", found).await
    }

    async fn gather(
        &self,
        url_key: &str,
        mut found: BoxStream<'static, Result<ObjectMeta, ClientError>>,
    ) -> Result<Listing, StoreError> {
        let mut listing = Listing::default();
        let mut bytes = 0;
        while let Some(meta) = found
            .try_next()
            .await
            .map_err(|error| self.failed("listing", url_key, &error))?
        {
            let texts = meta.location.as_ref().len() + meta.e_tag.as_ref().map_or(0, String::len);
            bytes += (texts + size_of::<Object>()) as u64;
            if bytes > self.listing_bytes {
                return Err(self.too_many(url_key, listing.objects.len()));
            }
            match unspell(meta.location.as_ref()) {
                None => listing.objects.push(self.object(meta)),
                Some(odd) => {
                    let odd = odd.strip_prefix(&*self.prefix).unwrap_or(&odd);
                    match (odd.is_empty(), odd.ends_with('/') && meta.size == 0) {
                        // The marker of the root itself does not lie below it.
                        (true, _) => {}
                        (false, true) => listing.markers.push(odd.to_owned()),
                        (false, false) => listing.unrepresentable.push(odd.to_owned()),
                    }
                }
            }
        }
        Ok(listing)
    }

    /// The error of a listing that does not fit into the memory. A server may also give new pages without an
    /// end.
    fn too_many(&self, url_key: &str, objects: usize) -> StoreError {
        let detail = format!(
            "the first {objects} objects take more than {} MiB of memory",
            self.listing_bytes >> 20
        );
        StoreError::new(StoreErrorKind::Unfit, "listing", self.url_of(url_key), detail).with_hint(
            "give more with `--memory`, or make several sources or roots of this prefix; if there are not so many \
             objects, the server repeats them",
        )
    }

    pub(super) async fn head(&self, key: &str) -> Result<Option<Object>, StoreError> {
        match self.client.head(&self.path("looking at", key)?).await {
            Ok(meta) => Ok(Some(self.object(meta))),
            Err(ClientError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("looking at", key, &error)),
        }
    }

    pub(super) async fn get(&self, key: &str) -> Result<(Object, ByteStream), StoreError> {
        let path = self.path("reading", key)?;
        let found = self
            .client
            .get_opts(&path, GetOptions::default())
            .await
            .map_err(|error| self.failed("reading", key, &error))?;
        let object = self.object(found.meta.clone());
        let download = Download {
            bucket: self.clone(),
            key: key.to_owned(),
            path,
            etag: object.etag.clone(),
            size: object.size,
            given: 0,
            bytes: found.into_stream(),
            broken: None,
        };
        let pieces = futures::stream::try_unfold(download, |mut download| async move {
            let piece = download.next().await?;
            Ok(piece.map(|piece| (piece, download)))
        });
        Ok((object, pieces.boxed()))
    }

    pub(super) async fn range(
        &self,
        key: &str,
        expected: Option<&str>,
        range: Range<u64>,
    ) -> Result<Bytes, StoreError> {
        let path = self.path("reading", key)?;
        let options = GetOptions::new()
            .with_range(Some(GetRange::Bounded(range)))
            .with_if_match(expected.map(str::to_owned));
        let read = async { self.client.get_opts(&path, options).await?.bytes().await };
        read.await
            .map_err(|error| self.failed("reading", key, &error))
    }

    pub(super) async fn sha256(&self, key: &str) -> Result<(Object, [u8; 32]), StoreError> {
        let (object, mut pieces) = self.get(key).await?;
        // Hashing is a task of its own, because many objects are hashed at once.
        let hashed = tokio::spawn(async move {
            let mut hash = Sha256::new();
            while let Some(piece) = pieces.try_next().await? {
                hash.update(&piece);
            }
            Ok(hash.finalize().into())
        });
        let died = |_| {
            let detail = "the task that hashes it has died";
            StoreError::new(StoreErrorKind::Other, "reading", self.url_of(key), detail)
        };
        Ok((object, hashed.await.map_err(died)??))
    }

    /// The whole content of an object of `most` bytes or fewer.
    pub(super) async fn read(
        &self,
        key: &str,
        most: u64,
    ) -> Result<Option<(Object, Bytes)>, StoreError> {
        match self.read_if(key, |object| object.size <= most).await? {
            Some((object, Some(bytes))) => Ok(Some((object, bytes))),
            Some((object, None)) => Err(StoreError::too_long(self.url_of(key), object.size, most)),
            None => Ok(None),
        }
    }

    /// An object, and its content if that is `wanted`.
    async fn read_if(
        &self,
        key: &str,
        wanted: impl Fn(&Object) -> bool,
    ) -> Result<Option<(Object, Option<Bytes>)>, StoreError> {
        let whole = async {
            let (object, mut pieces) = self.get(key).await?;
            if !wanted(&object) {
                return Ok((object, None));
            }
            let mut bytes = Vec::with_capacity(usize::try_from(object.size).unwrap_or(0));
            while let Some(piece) = pieces.try_next().await? {
                bytes.extend_from_slice(&piece);
            }
            Ok::<_, StoreError>((object, Some(Bytes::from(bytes))))
        };
        match whole.await {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn create(&self, key: &str, bytes: Bytes) -> Result<Option<Put>, StoreError> {
        match self.put_if("creating", key, bytes, None).await? {
            Conditional::Done(put) => Ok(Some(put)),
            Conditional::Conflict => Ok(None),
        }
    }

    pub(super) async fn publish(
        &self,
        local: Option<&Path>,
        staged: &str,
        target: &str,
        expected: Option<&str>,
    ) -> Result<Publish, StoreError> {
        let held = match local {
            // Where somebody has tidied up, what is staged is whole.
            Some(local) => tokio::fs::read(local).await.ok(),
            None => None,
        };
        let bytes = match held {
            Some(bytes) => bytes.into(),
            None => match self.read(staged, MOST_OF_PUT).await? {
                Some((_, bytes)) => bytes,
                None => return Ok(Publish::StagedGone),
            },
        };
        match self.put_if("publishing", target, bytes, expected).await? {
            Conditional::Done(put) => Ok(Publish::Done(put)),
            Conditional::Conflict => Ok(Publish::Conflict),
        }
    }

    /// Puts `bytes` if the key is new, or still has the ETag `expected`; see the module's picture.
    async fn put_if(
        &self,
        action: &'static str,
        key: &str,
        bytes: Bytes,
        expected: Option<&str>,
    ) -> Result<Conditional, StoreError> {
        let path = self.path(action, key)?;
        let mode = match expected {
            None => PutMode::Create,
            Some(etag) => PutMode::Update(UpdateVersion {
                e_tag: Some(etag.to_owned()),
                version: None,
            }),
        };
        let mut tries = 0;
        loop {
            tries += 1;
            let payload = PutPayload::from(bytes.clone());
            let error = match self
                .client
                .put_opts(&path, payload, mode.clone().into())
                .await
            {
                Ok(done) => {
                    return self
                        .etag_of_put(action, key, done.e_tag)
                        .await
                        .map(Conditional::Done);
                }
                Err(error) => error,
            };
            let refused = matches!(
                error,
                ClientError::AlreadyExists { .. } | ClientError::Precondition { .. }
            );
            let failure = self.failed(action, key, &error);
            // With If-Match, S3 answers for a missing target as for a missing bucket.
            let missing_bucket = Answer::read(&error).kind() == StoreErrorKind::MissingBucket;
            if missing_bucket || !(refused || failure.kind() == StoreErrorKind::Unreachable) {
                return Err(failure);
            }
            // An object with another length has other content, and need not be read.
            let length = bytes.len() as u64;
            let present = self.read_if(key, |found| found.size == length).await?;
            if let Some((object, Some(present))) = &present
                && *present == bytes
            {
                return self
                    .etag_of_put(action, key, object.etag.clone())
                    .await
                    .map(Conditional::Done);
            }
            // The condition can no longer hold, so no further try can succeed.
            let hopeless = match (&present, expected) {
                (Some(_), None) | (None, Some(_)) => true,
                (Some((object, _)), Some(etag)) => object.etag.as_deref() != Some(etag),
                (None, None) => false,
            };
            if hopeless {
                return Ok(Conditional::Conflict);
            }
            if tries == UNCLEAR_TRIES || !(refused || timed_out(&error)) {
                // The client has used all its time for this request. Or the server has refused again and again
                // although it allows reading.
                return Err(failure);
            }
            tokio::time::sleep(Duration::from_millis(50 << tries)).await;
        }
    }

    pub(super) async fn try_conditions(&self, key: &str) -> Result<Conditions, StoreError> {
        self.create(key, Bytes::from_static(b"first")).await?;
        let other = UpdateVersion {
            e_tag: Some("\"00000000000000000000000000000000\"".to_owned()),
            version: None,
        };
        Ok(Conditions {
            create: self.refuses(key, PutMode::Create).await?,
            replace: self.refuses(key, PutMode::Update(other)).await?,
        })
    }

    /// Whether a PUT is refused if its condition does not hold. Only the answer of the server counts. `put_if`
    /// also compares the bytes, and these are unchanged by a PUT that was lost on its way, too.
    async fn refuses(&self, key: &str, mode: PutMode) -> Result<bool, StoreError> {
        let path = self.path("probing", key)?;
        let mut tries = 0;
        loop {
            tries += 1;
            let payload = PutPayload::from_static(b"second");
            let put = self.client.put_opts(&path, payload, mode.clone().into());
            match put.await {
                Ok(_) => return Ok(false),
                Err(ClientError::AlreadyExists { .. } | ClientError::Precondition { .. }) => {
                    return Ok(true);
                }
                Err(error) if tries < UNCLEAR_TRIES && timed_out(&error) => {
                    tokio::time::sleep(Duration::from_millis(50 << tries)).await;
                }
                Err(error) => return Err(self.failed("probing", key, &error)),
            }
        }
    }

    /// The ETag of the object that was written. It is asked for if the answer had none.
    async fn etag_of_put(
        &self,
        action: &'static str,
        key: &str,
        etag: Option<String>,
    ) -> Result<Put, StoreError> {
        let etag = match etag {
            Some(etag) => Some(etag),
            None => self.head(key).await?.and_then(|object| object.etag),
        };
        etag.map(|etag| Put { etag }).ok_or_else(|| {
            StoreError::new(
                StoreErrorKind::Unfit,
                action,
                self.url_of(key),
                "the server gives no ETag, without which a lake cannot be kept",
            )
        })
    }

    pub(super) async fn upload(&self, key: &str, local_file: &Path) -> Result<Put, StoreError> {
        match self.upload_once(key, local_file).await {
            // The answer at the end of an upload in parts was lost, and the second try finds no upload. A plain
            // put may be repeated.
            Err(error) if error.kind() == StoreErrorKind::NotFound => {
                self.upload_once(key, local_file).await
            }
            result => result,
        }
    }

    async fn upload_once(&self, key: &str, local_file: &Path) -> Result<Put, StoreError> {
        let path = self.path("writing", key)?;
        let unreadable = |error| StoreError::io("reading", local_file.display().to_string(), error);
        let file = open_source(local_file)?;
        let size = file.metadata().map_err(unreadable)?.len();
        let part_bytes = self.part_bytes.max(size.div_ceil(MOST_PARTS));
        let failed = |error: ClientError| self.failed("writing", key, &error);
        if size <= part_bytes {
            let (bytes, _) = read_part(file, size.max(1)).await.map_err(unreadable)?;
            let done = self
                .client
                .put(&path, PutPayload::from(bytes))
                .await
                .map_err(failed)?;
            return self.etag_of_put("writing", key, done.e_tag).await;
        }
        let mut upload = self
            .client
            .put_multipart_opts(&path, PutMultipartOptions::default())
            .await
            .map_err(failed)?;
        let sent = async {
            let mut file = file;
            let mut parts = FuturesUnordered::new();
            loop {
                let (bytes, rest) = read_part(file, part_bytes).await.map_err(unreadable)?;
                file = rest;
                if bytes.is_empty() {
                    break;
                }
                parts.push(upload.put_part(PutPayload::from(bytes)));
                if parts.len() == PARTS_IN_FLIGHT {
                    parts.try_next().await.map_err(failed)?;
                }
            }
            while parts.try_next().await.map_err(failed)?.is_some() {}
            upload.complete().await.map_err(failed)
        }
        .await;
        match sent {
            Ok(done) => self.etag_of_put("writing", key, done.e_tag).await,
            Err(error) => {
                // The parts of an upload that is not aborted cost money and are never seen.
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }

    /// Deletes an object that has the ETag `expected`. What lies there is looked at before and after each try: a
    /// server may ignore the condition, and an answer may be lost.
    pub(super) async fn remove(
        &self,
        key: &str,
        expected: Option<&str>,
    ) -> Result<Remove, StoreError> {
        let path = self.path("deleting", key)?;
        let until = Instant::now() + self.retry_for;
        let mut tries = 0;
        loop {
            let Some(found) = self.head(key).await? else {
                return Ok(Remove::Done);
            };
            let etag = found.etag.as_deref().or(expected);
            if etag != expected {
                return Ok(Remove::Conflict);
            }
            tries += 1;
            let answered = match (&self.delete_if, etag) {
                (Some(delete_if), Some(etag)) => {
                    delete_if.ask(&path, etag, &self.url_of(key)).await?
                }
                _ => Answered::Unknown,
            };
            match answered {
                Answered::Deleted => return Ok(Remove::Done),
                Answered::Unknown => {
                    self.delete(vec![key.to_owned()]).await?;
                    return Ok(Remove::Done);
                }
                Answered::Refused if tries < UNCLEAR_TRIES => {}
                Answered::Refused => return Ok(Remove::Conflict),
                Answered::Unclear(error) if Instant::now() >= until => return Err(error),
                Answered::Unclear(_) => {
                    tokio::time::sleep(Duration::from_millis(50 << tries.min(7))).await;
                }
            }
        }
    }

    pub(super) async fn delete(&self, keys: Vec<String>) -> Result<(), StoreError> {
        let paths = keys
            .iter()
            .map(|key| self.path("deleting", key).map(Ok))
            .collect::<Result<Vec<_>, _>>()?;
        let mut deleted = self
            .client
            .delete_stream(futures::stream::iter(paths).boxed());
        while let Some(result) = deleted.next().await {
            match result {
                Ok(_) => {}
                Err(error) => {
                    let failure = self.failed("deleting", "", &error);
                    if failure.kind() != StoreErrorKind::NotFound {
                        return Err(failure);
                    }
                }
            }
        }
        Ok(())
    }
}

/// The client whose writes ask for encryption.
fn encrypted(
    builder: AmazonS3Builder,
    encryption: &Encryption,
) -> Result<AmazonS3Builder, ClientError> {
    let mut builder =
        builder.with_config("aws_server_side_encryption".parse()?, encryption.algorithm);
    if let Some(key) = &encryption.key {
        builder = builder.with_config("aws_sse_kms_key_id".parse()?, key);
    }
    if let Some(bucket_key) = encryption.bucket_key {
        builder = builder.with_bucket_key(bucket_key);
    }
    Ok(builder)
}

/// The download of an object. It goes on at the same byte if its connection breaks.
///
/// The client can do this too, but it counts the time for its tries from the first request. A caller that holds
/// a download open for longer would lose it with the connection.
struct Download {
    bucket: Bucket,
    key: String,
    path: ClientPath,
    etag: Option<String>,
    size: u64,
    /// The number of bytes that were given out.
    given: u64,
    bytes: BoxStream<'static, Result<Bytes, ClientError>>,
    /// The break in the connection; `None` while bytes arrive fast enough.
    broken: Option<Broken>,
}

/// A break in the connection.
#[derive(Debug, Clone, Copy)]
struct Broken {
    since: Instant,
    /// The number of times that the rest was asked for since the break.
    tries: u32,
    /// The number of bytes that were given out before the break.
    given: u64,
}

impl Download {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            let failure = match self.bytes.try_next().await {
                Ok(Some(piece)) if piece.is_empty() => continue,
                Ok(Some(piece)) => {
                    self.given += piece.len() as u64;
                    // A server that gives a few bytes before it breaks off again has not recovered.
                    let least = |broken: Broken| {
                        let seconds = broken.since.elapsed().as_secs();
                        broken.given + SLOWEST_DOWNLOAD * (seconds + 1)
                    };
                    self.broken = self.broken.filter(|broken| self.given < least(*broken));
                    if self.given > self.size {
                        return Err(self.failed(StoreErrorKind::Other, "more bytes came"));
                    }
                    return Ok(Some(piece));
                }
                _ if self.given == self.size => return Ok(None),
                Ok(None) => self.failed(StoreErrorKind::Unreachable, "fewer bytes came"),
                Err(error) => self.bucket.failed("reading", &self.key, &error),
            };
            self.go_on(failure).await?;
        }
    }

    /// Asks for the missing bytes, unless that is hopeless.
    async fn go_on(&mut self, failure: StoreError) -> Result<(), StoreError> {
        let Some(etag) = &self.etag else {
            // Without an ETag, the rest could belong to other content.
            return Err(failure);
        };
        let given = self.given;
        let broken = self.broken.get_or_insert_with(|| Broken {
            since: Instant::now(),
            tries: 0,
            given,
        });
        let tries = broken.tries;
        if failure.kind() != StoreErrorKind::Unreachable
            || (tries > 0 && broken.since.elapsed() >= self.bucket.retry_for)
        {
            return Err(failure);
        }
        broken.tries += 1;
        tracing::warn!("{failure}; asking for the rest");
        if tries > 0 {
            tokio::time::sleep(Duration::from_millis(50 << tries.min(7))).await;
        }
        let options = GetOptions {
            range: Some(GetRange::Bounded(self.given..self.size)),
            if_match: Some(etag.clone()),
            ..GetOptions::default()
        };
        match self.bucket.client.get_opts(&self.path, options).await {
            Ok(found) => {
                self.bytes = found.into_stream();
                Ok(())
            }
            Err(ClientError::Precondition { .. }) => Err(self
                .failed(
                    StoreErrorKind::Other,
                    "the object changed while it was read",
                )
                .with_hint("run again when nobody writes to it")),
            Err(error) => Err(self.bucket.failed("reading", &self.key, &error)),
        }
    }

    fn failed(&self, kind: StoreErrorKind, what: &str) -> StoreError {
        let (given, size) = (self.given, self.size);
        let url = self.bucket.url_of(&self.key);
        StoreError::new(
            kind,
            "reading",
            url,
            format!("{what} ({given} of {size} bytes)"),
        )
    }
}

/// The next `bytes` of a file; fewer at its end.
async fn read_part(file: File, bytes: u64) -> std::io::Result<(Bytes, File)> {
    tokio::task::spawn_blocking(move || {
        let mut file = file;
        let mut part = Vec::new();
        Read::by_ref(&mut file).take(bytes).read_to_end(&mut part)?;
        Ok((Bytes::from(part), file))
    })
    .await
    .unwrap_or_else(|join| Err(std::io::Error::other(join)))
}
