//! An S3 server inside the test process: real HTTP and signatures, objects in memory, atomic
//! conditional writes, faults on demand, a log of requests.
//!
//! ```text
//! client (this process or a spawned rawmart) ─ HTTP ─▶ Control ─▶ s3s: parse, check signature ─▶ Backend
//!                                                  holds, refuses                log · faults · buckets
//! ```

use bytes::Bytes;
use md5::{Digest, Md5};
use s3s::auth::SimpleAuth;
use s3s::dto::*;
use s3s::service::S3ServiceBuilder;
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

pub const ACCESS_KEY: &str = "test";
pub const SECRET_KEY: &str = "testtest";
/// Further access keys with the same secret. They tell writers apart.
pub const WRITERS: [&str; 2] = ["writer-a", "writer-b"];

/// If an answer has this header, the connection breaks instead.
const CLOSE: &str = "x-test-close";

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    SlowDown503,
    Internal500,
    /// The connection breaks without an answer, and nothing is done.
    CloseConnection,
    AccessDenied403,
    /// The request is carried out, then answered with 500.
    AppliedThen500,
    /// The request is carried out, then the connection breaks.
    AppliedThenClose,
    /// The connection breaks after some bytes of the object that is read.
    BreakBody,
    /// The request is refused with this code of S3 and the status that belongs to it.
    Refused(&'static str),
}

/// A request as its client sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub access_key: String,
    pub method: String,
    /// Bucket and key with the query, percent-encoded.
    pub path: String,
    /// The headers that begin with `x-amz-`, in lower case.
    pub amz: BTreeMap<String, String>,
}

/// Decides about every request of a server. A refused request is answered with 403, which no client tries
/// again.
#[async_trait::async_trait]
pub trait Control: Send + Sync {
    /// Holds a request until it may be carried out. `false` refuses it.
    async fn before(&self, asked: &Asked) -> bool;

    /// Called after a request was carried out. `false` answers as if it had been refused.
    async fn after(&self, asked: &Asked) -> bool;
}

#[derive(Debug)]
struct Fault {
    op: String,
    key_part: String,
    /// The number of requests that pass before the fault.
    skip: usize,
    left: usize,
    kind: FaultKind,
}

#[derive(Debug, Clone)]
struct Stored {
    bytes: Bytes,
    etag: String,
    time: SystemTime,
}

#[derive(Debug, Default)]
struct State {
    buckets: BTreeMap<String, BTreeMap<String, Stored>>,
    uploads: HashMap<String, BTreeMap<i32, (Vec<u8>, String)>>,
    faults: Vec<Fault>,
    log: Vec<(String, String)>,
    /// Seconds since 2024-01-01. Every write adds one.
    clock: u64,
    next_upload: usize,
}

impl State {
    fn bucket(&mut self, name: &str) -> S3Result<&mut BTreeMap<String, Stored>> {
        self.buckets
            .get_mut(name)
            .ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))
    }

    fn store(&mut self, bucket: &str, key: &str, bytes: Bytes, etag: String) -> S3Result<()> {
        self.clock += 1;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_704_067_200 + self.clock);
        let stored = Stored { bytes, etag, time };
        self.bucket(bucket)?.insert(key.to_owned(), stored);
        Ok(())
    }

    fn check(
        &mut self,
        bucket: &str,
        key: &str,
        if_match: Option<&ETagCondition>,
        if_none_match: Option<&ETagCondition>,
    ) -> S3Result<()> {
        let present = self.bucket(bucket)?.get(key);
        if if_none_match.is_some_and(ETagCondition::is_any) && present.is_some() {
            return Err(s3_error!(PreconditionFailed, "If-None-Match"));
        }
        if let Some(ETagCondition::ETag(wanted)) = if_match {
            let present = present.ok_or_else(|| s3_error!(NoSuchKey, "no such key"))?;
            if present.etag != wanted.value() {
                return Err(s3_error!(PreconditionFailed, "If-Match"));
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
struct Backend {
    state: Arc<Mutex<State>>,
    page: Arc<AtomicUsize>,
    scrambled: Arc<AtomicBool>,
    /// Whether the store accepts conditions and ignores them.
    ignores_if_none_match: Arc<AtomicBool>,
    ignores_if_match: Arc<AtomicBool>,
}

/// The fault of a request that was carried out.
#[must_use]
struct After(Option<FaultKind>);

impl After {
    fn answer<T>(self, output: T) -> S3Result<S3Response<T>> {
        match self.0 {
            None | Some(FaultKind::BreakBody) => Ok(S3Response::new(output)),
            Some(FaultKind::AppliedThenClose) => Err(close()),
            Some(_) => Err(s3_error!(InternalError, "injected after the fact")),
        }
    }
}

fn close() -> s3s::S3Error {
    let mut error = s3_error!(InternalError, "closing");
    let mut headers = hyper::HeaderMap::new();
    headers.insert(CLOSE, hyper::header::HeaderValue::from_static("1"));
    error.set_headers(headers);
    error
}

/// Half of the bytes, which are sent before the connection breaks.
fn broken_off(mut bytes: Bytes) -> StreamingBlob {
    bytes.truncate(bytes.len() / 2);
    let half = futures::stream::iter([Ok(bytes)]);
    let end = futures::stream::once(async {
        tokio::task::yield_now().await;
        Err(std::io::Error::other("broken on purpose"))
    });
    StreamingBlob::wrap(futures::StreamExt::chain(half, end))
}

fn md5_hex(bytes: &[u8]) -> String {
    hex::encode(Md5::digest(bytes))
}

/// A body and its MD5, which is computed as the body comes.
async fn collect(body: Option<StreamingBlob>) -> S3Result<(Vec<u8>, String)> {
    let (mut bytes, mut md5) = (Vec::new(), Md5::new());
    if let Some(mut body) = body {
        while let Some(piece) = futures::StreamExt::next(&mut body).await {
            let piece = piece.map_err(|_| s3_error!(IncompleteBody, "body cut off"))?;
            md5.update(&piece);
            bytes.extend_from_slice(&piece);
        }
    }
    Ok((bytes, hex::encode(md5.finalize())))
}

impl Backend {
    /// The object under a key.
    fn stored(&self, bucket: &str, key: &str) -> S3Result<Stored> {
        let mut state = self.state();
        let stored = state.bucket(bucket)?.get(key).cloned();
        stored.ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Logs a request, and gives it the first fault that fits.
    fn enter(&self, op: &str, key: &str) -> S3Result<After> {
        let mut state = self.state();
        state.log.push((op.to_owned(), key.to_owned()));
        let fault = state.faults.iter_mut().find(|fault| {
            fault.left > 0
                && (fault.op == "*" || fault.op == op)
                && key.contains(fault.key_part.as_str())
        });
        let Some(fault) = fault else {
            return Ok(After(None));
        };
        if fault.skip > 0 {
            fault.skip -= 1;
            return Ok(After(None));
        }
        fault.left = fault.left.saturating_sub(1);
        match fault.kind {
            FaultKind::SlowDown503 => Err(s3_error!(SlowDown, "Please reduce your request rate.")),
            FaultKind::Internal500 => Err(s3_error!(InternalError, "injected")),
            FaultKind::AccessDenied403 => Err(s3_error!(AccessDenied, "Access Denied")),
            FaultKind::CloseConnection => Err(close()),
            FaultKind::Refused(code) => {
                let code = s3s::S3ErrorCode::from_bytes(code.as_bytes());
                Err(s3s::S3Error::new(code.unwrap()))
            }
            kind @ (FaultKind::AppliedThen500
            | FaultKind::AppliedThenClose
            | FaultKind::BreakBody) => Ok(After(Some(kind))),
        }
    }

    /// The conditions that this store respects.
    fn conditions<'a>(
        &self,
        if_match: Option<&'a ETagCondition>,
        if_none_match: Option<&'a ETagCondition>,
    ) -> (Option<&'a ETagCondition>, Option<&'a ETagCondition>) {
        let ignores = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        (
            if_match.filter(|_| !ignores(&self.ignores_if_match)),
            if_none_match.filter(|_| !ignores(&self.ignores_if_none_match)),
        )
    }

    fn order(&self, key: &str) -> Vec<u8> {
        if self.scrambled.load(Ordering::Relaxed) {
            Md5::digest(key).to_vec()
        } else {
            key.as_bytes().to_vec()
        }
    }
}

#[async_trait::async_trait]
impl S3 for Backend {
    async fn head_bucket(
        &self,
        req: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        let after = self.enter("HeadBucket", "")?;
        self.state().bucket(&req.input.bucket)?;
        after.answer(HeadBucketOutput::default())
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = self.enter("ListObjectsV2", &prefix)?;
        let mut state = self.state();
        let bucket = state.bucket(&input.bucket)?;
        // Keys and common prefixes are one sequence, and a page is a part of it.
        let mut items: BTreeMap<Vec<u8>, (String, bool)> = BTreeMap::new();
        let start_after = input.start_after.as_deref().unwrap_or_default();
        for key in bucket.keys() {
            let Some(rest) = key.strip_prefix(prefix.as_str()) else {
                continue;
            };
            if key.as_str() <= start_after && !start_after.is_empty() {
                continue;
            }
            let cut = input.delimiter.as_deref().and_then(|delimiter| {
                let at = rest.find(delimiter)? + delimiter.len();
                Some(format!("{prefix}{}", &rest[..at]))
            });
            let folded = cut.is_some();
            let item = cut.unwrap_or_else(|| key.clone());
            items.insert(self.order(&item), (item, folded));
        }
        let token = match &input.continuation_token {
            Some(token) => Some(
                hex::decode(token).map_err(|_| s3_error!(InvalidArgument, "continuation token"))?,
            ),
            None => None,
        };
        let page = self.page.load(Ordering::Relaxed);
        let page = input
            .max_keys
            .map_or(page, |max| page.min(usize::try_from(max).unwrap_or(0)));
        let mut left = items
            .into_iter()
            .filter(|(order, _)| token.as_ref().is_none_or(|token| order > token))
            .collect::<Vec<_>>();
        let truncated = left.len() > page;
        left.truncate(page);
        let next = left.last().map(|(order, _)| hex::encode(order));
        let mut contents = Vec::new();
        let mut prefixes = Vec::new();
        for (_, (item, folded)) in left {
            if folded {
                prefixes.push(CommonPrefix { prefix: Some(item) });
            } else if let Some(stored) = bucket.get(&item) {
                contents.push(Object {
                    e_tag: Some(ETag::Strong(stored.etag.clone())),
                    last_modified: Some(stored.time.into()),
                    size: Some(stored.bytes.len() as i64),
                    key: Some(item),
                    ..Object::default()
                });
            }
        }
        let output = ListObjectsV2Output {
            name: Some(input.bucket.clone()),
            prefix: Some(prefix),
            delimiter: input.delimiter,
            key_count: i32::try_from(contents.len() + prefixes.len()).ok(),
            max_keys: i32::try_from(page).ok(),
            is_truncated: Some(truncated),
            next_continuation_token: next.filter(|_| truncated),
            contents: Some(contents),
            common_prefixes: Some(prefixes),
            ..ListObjectsV2Output::default()
        };
        drop(state);
        after.answer(output)
    }

    async fn get_object(
        &self,
        req: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        let after = self.enter("GetObject", &input.key)?;
        let stored = self.stored(&input.bucket, &input.key)?;
        if let Some(ETagCondition::ETag(wanted)) = &input.if_match
            && wanted.value() != stored.etag
        {
            return Err(s3_error!(PreconditionFailed, "If-Match"));
        }
        let total = stored.bytes.len() as u64;
        let (bytes, content_range) = match &input.range {
            None => (stored.bytes, None),
            Some(range) => {
                let range = range
                    .check(total)
                    .map_err(|_| s3_error!(InvalidRange, "range"))?;
                let shown = format!("bytes {}-{}/{total}", range.start, range.end - 1);
                let bytes = stored.bytes.slice(range.start as usize..range.end as usize);
                (bytes, Some(shown))
            }
        };
        let length = bytes.len() as i64;
        let body = match after.0 {
            Some(FaultKind::BreakBody) => broken_off(bytes),
            _ => StreamingBlob::from(Body::from(bytes)),
        };
        after.answer(GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(length),
            content_range,
            e_tag: Some(ETag::Strong(stored.etag)),
            last_modified: Some(stored.time.into()),
            body: Some(body),
            ..GetObjectOutput::default()
        })
    }

    async fn head_object(
        &self,
        req: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        let after = self.enter("HeadObject", &input.key)?;
        let stored = self.stored(&input.bucket, &input.key)?;
        after.answer(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(stored.bytes.len() as i64),
            e_tag: Some(ETag::Strong(stored.etag)),
            last_modified: Some(stored.time.into()),
            ..HeadObjectOutput::default()
        })
    }

    async fn put_object(
        &self,
        req: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        let (bytes, etag) = collect(input.body).await?;
        let after = self.enter("PutObject", &input.key)?;
        let mut state = self.state();
        let (if_match, if_none_match) =
            self.conditions(input.if_match.as_ref(), input.if_none_match.as_ref());
        state.check(&input.bucket, &input.key, if_match, if_none_match)?;
        state.store(&input.bucket, &input.key, bytes.into(), etag.clone())?;
        drop(state);
        after.answer(PutObjectOutput {
            e_tag: Some(ETag::Strong(etag)),
            ..PutObjectOutput::default()
        })
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = req.input;
        let after = self.enter("DeleteObject", &input.key)?;
        let mut state = self.state();
        let (if_match, _) = self.conditions(input.if_match.as_ref(), None);
        state.check(&input.bucket, &input.key, if_match, None)?;
        state.bucket(&input.bucket)?.remove(&input.key);
        drop(state);
        after.answer(DeleteObjectOutput::default())
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let keys: Vec<String> = req
            .input
            .delete
            .objects
            .into_iter()
            .map(|object| object.key)
            .collect();
        let after = self.enter("DeleteObjects", &keys.join(","))?;
        let mut state = self.state();
        let bucket = state.bucket(&req.input.bucket)?;
        let deleted = keys
            .into_iter()
            .map(|key| {
                bucket.remove(&key);
                DeletedObject {
                    key: Some(key),
                    ..DeletedObject::default()
                }
            })
            .collect();
        drop(state);
        after.answer(DeleteObjectsOutput {
            deleted: Some(deleted),
            ..DeleteObjectsOutput::default()
        })
    }

    async fn copy_object(
        &self,
        req: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = req.input;
        let after = self.enter("CopyObject", &input.key)?;
        let CopySource::Bucket { bucket, key, .. } = &input.copy_source else {
            return Err(s3_error!(NotImplemented, "copy source"));
        };
        let mut state = self.state();
        let stored = state
            .bucket(bucket)?
            .get(&**key)
            .cloned()
            .ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))?;
        let etag = md5_hex(&stored.bytes);
        state.store(&input.bucket, &input.key, stored.bytes, etag.clone())?;
        drop(state);
        after.answer(CopyObjectOutput {
            copy_object_result: Some(CopyObjectResult {
                e_tag: Some(ETag::Strong(etag)),
                last_modified: Some(stored.time.into()),
                ..CopyObjectResult::default()
            }),
            ..CopyObjectOutput::default()
        })
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = req.input;
        let after = self.enter("CreateMultipartUpload", &input.key)?;
        let mut state = self.state();
        state.bucket(&input.bucket)?;
        state.next_upload += 1;
        let id = format!("upload-{}", state.next_upload);
        state.uploads.insert(id.clone(), BTreeMap::new());
        drop(state);
        after.answer(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            ..CreateMultipartUploadOutput::default()
        })
    }

    async fn upload_part(
        &self,
        req: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let input = req.input;
        let (bytes, etag) = collect(input.body).await?;
        let after = self.enter("UploadPart", &input.key)?;
        self.state()
            .uploads
            .get_mut(&input.upload_id)
            .ok_or_else(|| s3_error!(NoSuchUpload, "no such upload"))?
            .insert(input.part_number, (bytes, etag.clone()));
        after.answer(UploadPartOutput {
            e_tag: Some(ETag::Strong(etag)),
            ..UploadPartOutput::default()
        })
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = req.input;
        let after = self.enter("CompleteMultipartUpload", &input.key)?;
        let mut state = self.state();
        let (if_match, if_none_match) =
            self.conditions(input.if_match.as_ref(), input.if_none_match.as_ref());
        state.check(&input.bucket, &input.key, if_match, if_none_match)?;
        let parts = state
            .uploads
            .remove(&input.upload_id)
            .ok_or_else(|| s3_error!(NoSuchUpload, "no such upload"))?;
        let (mut bytes, mut sums) = (Vec::new(), Vec::new());
        let named = input
            .multipart_upload
            .and_then(|upload| upload.parts)
            .unwrap_or_default();
        for part in &named {
            let (part, etag) = part
                .part_number
                .and_then(|number| parts.get(&number))
                .ok_or_else(|| s3_error!(InvalidPart, "no such part"))?;
            sums.extend(hex::decode(etag).unwrap());
            bytes.extend_from_slice(part);
        }
        let etag = format!("{}-{}", md5_hex(&sums), named.len());
        state.store(&input.bucket, &input.key, bytes.into(), etag.clone())?;
        drop(state);
        after.answer(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(etag)),
            ..CompleteMultipartUploadOutput::default()
        })
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let after = self.enter("AbortMultipartUpload", &req.input.key)?;
        self.state().uploads.remove(&req.input.upload_id);
        after.answer(AbortMultipartUploadOutput::default())
    }
}

/// A running server. It stops when it is dropped.
pub struct S3Server {
    control: Arc<Mutex<Option<Arc<dyn Control>>>>,
    /// `http://127.0.0.1:port`
    pub endpoint: String,
    backend: Backend,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl S3Server {
    /// Starts a server with these buckets on a runtime and a port of its own.
    pub fn start(buckets: &[&str]) -> S3Server {
        let backend = Backend {
            state: Arc::new(Mutex::new(State {
                buckets: buckets
                    .iter()
                    .map(|name| ((*name).to_owned(), BTreeMap::new()))
                    .collect(),
                ..State::default()
            })),
            page: Arc::new(AtomicUsize::new(1000)),
            scrambled: Arc::default(),
            ignores_if_none_match: Arc::default(),
            ignores_if_match: Arc::default(),
        };
        let mut builder = S3ServiceBuilder::new(backend.clone());
        let mut auth = SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY);
        for writer in WRITERS {
            auth.register(writer.to_owned(), SECRET_KEY.into());
        }
        builder.set_auth(auth);
        let service = builder.build();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let control: Arc<Mutex<Option<Arc<dyn Control>>>> = Arc::default();
        let controlled = Arc::clone(&control);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let accept = async {
                    loop {
                        let Ok((socket, _)) = listener.accept().await else {
                            continue;
                        };
                        tokio::spawn(serve(socket, service.clone(), Arc::clone(&controlled)));
                    }
                };
                tokio::select! {
                    () = accept => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        S3Server {
            control,
            endpoint,
            backend,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Puts all further requests under a control, or under none.
    pub fn control(&self, control: Option<Arc<dyn Control>>) {
        *self.control.lock().unwrap() = control;
    }

    /// The environment with which a process reaches this server.
    pub fn env(&self) -> Vec<(String, String)> {
        [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("AWS_ENDPOINT_URL", self.endpoint.as_str()),
            ("AWS_REGION", "us-east-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// AWS settings with which a store in this process reaches this server.
    pub fn aws(&self) -> aws_config::SdkConfig {
        self.aws_with(ACCESS_KEY, SECRET_KEY)
    }

    /// AWS settings with another access key.
    pub fn aws_with(&self, access_key: &str, secret_key: &str) -> aws_config::SdkConfig {
        let keys = aws_credential_types::Credentials::new(access_key, secret_key, None, None, "t");
        aws_config::SdkConfig::builder()
            .endpoint_url(&self.endpoint)
            .credentials_provider(
                aws_credential_types::provider::SharedCredentialsProvider::new(keys),
            )
            .build()
    }

    /// Sets the most keys of one page of a listing (1000 at first).
    pub fn page(&self, keys: usize) {
        self.backend.page.store(keys, Ordering::Relaxed);
    }

    /// Makes listings come in an order that differs from the order of the bytes.
    pub fn scramble_listings(&self) {
        self.backend.scrambled.store(true, Ordering::Relaxed);
    }

    /// Makes the server accept If-None-Match on writes and ignore it.
    pub fn ignore_if_none_match(&self) {
        let flag = &self.backend.ignores_if_none_match;
        flag.store(true, Ordering::Relaxed);
    }

    /// Makes the server accept If-Match on writes and ignore it.
    pub fn ignore_if_match(&self) {
        self.backend.ignores_if_match.store(true, Ordering::Relaxed);
    }

    /// Makes the next `count` requests `op` (`PutObject`, …, `*` for all) whose key contains `key_part` fail in
    /// this way.
    pub fn fail_next(&self, op: &str, key_part: &str, count: usize, kind: FaultKind) {
        self.backend.state().faults.push(Fault {
            op: op.to_owned(),
            key_part: key_part.to_owned(),
            skip: 0,
            left: count,
            kind,
        });
    }

    /// Like [`Self::fail_next`], but only the one request after the first `skip` fails.
    pub fn fail_after(&self, op: &str, key_part: &str, skip: usize, kind: FaultKind) {
        self.backend.state().faults.push(Fault {
            op: op.to_owned(),
            key_part: key_part.to_owned(),
            skip,
            left: 1,
            kind,
        });
    }

    /// Removes all faults.
    pub fn heal(&self) {
        self.backend.state().faults.clear();
    }

    /// The requests so far, as (operation, key). A listing has its prefix as the key, and a batch delete has
    /// its keys joined by commas.
    pub fn log(&self) -> Vec<(String, String)> {
        self.backend.state().log.clone()
    }

    pub fn clear_log(&self) {
        self.backend.state().log.clear();
    }

    /// All objects of a bucket.
    pub fn objects(&self, bucket: &str) -> BTreeMap<String, Vec<u8>> {
        self.peek().objects(bucket)
    }

    /// A view of the objects for use within a control.
    pub fn peek(&self) -> Peek {
        Peek(self.backend.clone())
    }

    /// The keys in a bucket.
    pub fn keys(&self, bucket: &str) -> BTreeSet<String> {
        self.objects(bucket).into_keys().collect()
    }

    /// Changes the bytes of an object but not its ETag.
    pub fn rot(&self, bucket: &str, key: &str, bytes: impl Into<Vec<u8>>) {
        let mut state = self.backend.state();
        let stored = state.bucket(bucket).unwrap().get_mut(key).unwrap();
        stored.bytes = bytes.into().into();
    }

    /// Puts an object without a request.
    pub fn put(&self, bucket: &str, key: &str, bytes: impl Into<Vec<u8>>) {
        self.peek().put(bucket, key, bytes);
    }

    /// Removes an object without a request.
    pub fn remove(&self, bucket: &str, key: &str) {
        self.peek().remove(bucket, key);
    }

    /// The number of uploads in parts that are neither completed nor aborted.
    pub fn open_uploads(&self) -> usize {
        self.backend.state().uploads.len()
    }
}

/// A view of the objects of a server.
pub struct Peek(Backend);

impl Peek {
    /// All objects of a bucket.
    pub fn objects(&self, bucket: &str) -> BTreeMap<String, Vec<u8>> {
        self.0
            .state()
            .buckets
            .get(bucket)
            .into_iter()
            .flatten()
            .map(|(key, stored)| (key.clone(), stored.bytes.to_vec()))
            .collect()
    }

    /// Removes an object without a request.
    pub fn remove(&self, bucket: &str, key: &str) {
        let mut state = self.0.state();
        state.bucket(bucket).unwrap().remove(key);
    }

    /// Puts an object without a request.
    pub fn put(&self, bucket: &str, key: &str, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        let etag = md5_hex(&bytes);
        let mut state = self.0.state();
        state.store(bucket, key, bytes.into(), etag).unwrap();
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed on purpose")
    }
}

impl std::error::Error for Closed {}

async fn serve(
    socket: tokio::net::TcpStream,
    service: s3s::service::S3Service,
    control: Arc<Mutex<Option<Arc<dyn Control>>>>,
) {
    let service = hyper::service::service_fn(move |request| {
        let control = control
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        let service = service.clone();
        async move {
            // A server carries out a request even if the client is gone.
            let answer = tokio::spawn(answer(request, service, control)).await;
            answer.unwrap_or(Err(Closed))
        }
    });
    let connection =
        hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
    // A client that goes away is no failure of the test.
    let _ = connection
        .serve_connection(hyper_util::rt::TokioIo::new(socket), service)
        .await;
}

async fn answer(
    request: hyper::Request<hyper::body::Incoming>,
    service: s3s::service::S3Service,
    control: Option<Arc<dyn Control>>,
) -> Result<s3s::HttpResponse, Closed> {
    let asked = control.as_ref().map(|_| asked(&request));
    if let (Some(control), Some(asked)) = (&control, &asked)
        && !control.before(asked).await
    {
        return Ok(refusal(request).await);
    }
    let answer = hyper::service::Service::call(&service, request).await;
    if let (Some(control), Some(asked)) = (&control, &asked)
        && !control.after(asked).await
    {
        return Ok(forbidden());
    }
    let answer = answer.map_err(|_| Closed)?;
    if answer.headers().contains_key(CLOSE) {
        return Err(Closed);
    }
    Ok(answer)
}

fn asked(request: &hyper::Request<hyper::body::Incoming>) -> Asked {
    let signed = request.headers().get("authorization");
    let signed = signed.and_then(|value| value.to_str().ok());
    // A URL that was signed has the credential in its query.
    let signed = signed.or_else(|| request.uri().query()).unwrap_or("");
    let key = signed
        .split_once("Credential=")
        .map_or("", |(_, rest)| rest);
    Asked {
        access_key: key.split(['/', '%']).next().unwrap_or("").to_owned(),
        method: request.method().to_string(),
        path: request.uri().to_string(),
        amz: request
            .headers()
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("x-amz-"))
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("").to_owned()))
            .collect(),
    }
}

/// Reads the whole request first, because an earlier answer may break the connection.
async fn refusal(request: hyper::Request<hyper::body::Incoming>) -> s3s::HttpResponse {
    let mut body = request.into_body();
    loop {
        let frame = std::future::poll_fn(|context| {
            hyper::body::Body::poll_frame(std::pin::Pin::new(&mut body), context)
        });
        if !matches!(frame.await, Some(Ok(_))) {
            return forbidden();
        }
    }
}

fn forbidden() -> s3s::HttpResponse {
    let mut answer = s3s::HttpResponse::new(Body::empty());
    *answer.status_mut() = hyper::StatusCode::FORBIDDEN;
    answer
}
