//! An S3 server inside the test process: real HTTP and signatures, objects in memory, atomic
//! conditional writes, faults on demand, a log of requests.
//!
//! ```text
//! client (this process or a spawned rawmart) ─ HTTP ─▶ s3s: parse, check signature ─▶ Backend
//!                                                                  log · faults · buckets
//! ```

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

/// Its header in an answer makes the connection break instead.
const CLOSE: &str = "x-test-close";

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    SlowDown503,
    Internal500,
    /// The connection breaks without an answer; nothing is done.
    CloseConnection,
    AccessDenied403,
    /// The request is carried out, then answered with 500.
    AppliedThen500,
    /// The request is carried out, then the connection breaks.
    AppliedThenClose,
}

#[derive(Debug)]
struct Fault {
    op: String,
    key_part: String,
    left: usize,
    kind: FaultKind,
}

#[derive(Debug, Clone)]
struct Stored {
    bytes: Vec<u8>,
    etag: String,
    time: SystemTime,
}

#[derive(Debug, Default)]
struct State {
    buckets: BTreeMap<String, BTreeMap<String, Stored>>,
    uploads: HashMap<String, BTreeMap<i32, Vec<u8>>>,
    faults: Vec<Fault>,
    log: Vec<(String, String)>,
    /// Seconds since 2024-01-01; one more with every write.
    clock: u64,
    next_upload: usize,
}

impl State {
    fn bucket(&mut self, name: &str) -> S3Result<&mut BTreeMap<String, Stored>> {
        self.buckets
            .get_mut(name)
            .ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))
    }

    fn store(&mut self, bucket: &str, key: &str, bytes: Vec<u8>, etag: String) -> S3Result<()> {
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
    /// A store that accepts conditions and ignores them.
    unconditional: Arc<AtomicBool>,
}

/// What is to happen after a request was carried out.
#[must_use]
struct After(Option<FaultKind>);

impl After {
    fn answer<T>(self, output: T) -> S3Result<S3Response<T>> {
        match self.0 {
            None => Ok(S3Response::new(output)),
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

fn md5_hex(bytes: &[u8]) -> String {
    hex::encode(Md5::digest(bytes))
}

async fn collect(body: Option<StreamingBlob>) -> S3Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut body) = body {
        while let Some(piece) = futures::StreamExt::next(&mut body).await {
            let piece = piece.map_err(|_| s3_error!(IncompleteBody, "body cut off"))?;
            bytes.extend_from_slice(&piece);
        }
    }
    Ok(bytes)
}

impl Backend {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Logs a request and lets the first fault that fits have it.
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
        fault.left = fault.left.saturating_sub(1);
        match fault.kind {
            FaultKind::SlowDown503 => Err(s3_error!(SlowDown, "Please reduce your request rate.")),
            FaultKind::Internal500 => Err(s3_error!(InternalError, "injected")),
            FaultKind::AccessDenied403 => Err(s3_error!(AccessDenied, "Access Denied")),
            FaultKind::CloseConnection => Err(close()),
            kind @ (FaultKind::AppliedThen500 | FaultKind::AppliedThenClose) => {
                Ok(After(Some(kind)))
            }
        }
    }

    fn order(&self, key: &str) -> Vec<u8> {
        let mut bytes = key.as_bytes().to_vec();
        if self.scrambled.load(Ordering::Relaxed) {
            bytes.reverse();
        }
        bytes
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
        // Keys and common prefixes are items of one sequence; a page is a stretch of it.
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
        let mut state = self.state();
        let stored = state
            .bucket(&input.bucket)?
            .get(&input.key)
            .cloned()
            .ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))?;
        drop(state);
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
                let bytes = stored.bytes[range.start as usize..range.end as usize].to_vec();
                (bytes, Some(shown))
            }
        };
        after.answer(GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(bytes.len() as i64),
            content_range,
            e_tag: Some(ETag::Strong(stored.etag)),
            last_modified: Some(stored.time.into()),
            body: Some(StreamingBlob::from(Body::from(bytes::Bytes::from(bytes)))),
            ..GetObjectOutput::default()
        })
    }

    async fn head_object(
        &self,
        req: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        let after = self.enter("HeadObject", &input.key)?;
        let mut state = self.state();
        let stored = state
            .bucket(&input.bucket)?
            .get(&input.key)
            .cloned()
            .ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))?;
        drop(state);
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
        let bytes = collect(input.body).await?;
        let after = self.enter("PutObject", &input.key)?;
        let etag = md5_hex(&bytes);
        let mut state = self.state();
        if !self.unconditional.load(Ordering::Relaxed) {
            state.check(
                &input.bucket,
                &input.key,
                input.if_match.as_ref(),
                input.if_none_match.as_ref(),
            )?;
        }
        state.store(&input.bucket, &input.key, bytes, etag.clone())?;
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
        let after = self.enter("DeleteObject", &req.input.key)?;
        self.state()
            .bucket(&req.input.bucket)?
            .remove(&req.input.key);
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
        let bytes = collect(input.body).await?;
        let after = self.enter("UploadPart", &input.key)?;
        let etag = md5_hex(&bytes);
        self.state()
            .uploads
            .get_mut(&input.upload_id)
            .ok_or_else(|| s3_error!(NoSuchUpload, "no such upload"))?
            .insert(input.part_number, bytes);
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
        if !self.unconditional.load(Ordering::Relaxed) {
            state.check(
                &input.bucket,
                &input.key,
                input.if_match.as_ref(),
                input.if_none_match.as_ref(),
            )?;
        }
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
            let part = part
                .part_number
                .and_then(|number| parts.get(&number))
                .ok_or_else(|| s3_error!(InvalidPart, "no such part"))?;
            sums.extend_from_slice(&Md5::digest(part));
            bytes.extend_from_slice(part);
        }
        let etag = format!("{}-{}", md5_hex(&sums), named.len());
        state.store(&input.bucket, &input.key, bytes, etag.clone())?;
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

/// A running server; stops when dropped.
pub struct S3Server {
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
            unconditional: Arc::default(),
        };
        let mut builder = S3ServiceBuilder::new(backend.clone());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = tokio::sync::oneshot::channel();
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
                        tokio::spawn(serve(socket, service.clone()));
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
            endpoint,
            backend,
            stop: Some(stop),
            thread: Some(thread),
        }
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

    /// The same with other keys.
    pub fn aws_with(&self, access_key: &str, secret_key: &str) -> aws_config::SdkConfig {
        let keys = aws_credential_types::Credentials::new(access_key, secret_key, None, None, "t");
        aws_config::SdkConfig::builder()
            .endpoint_url(&self.endpoint)
            .credentials_provider(
                aws_credential_types::provider::SharedCredentialsProvider::new(keys),
            )
            .build()
    }

    /// Most keys of one listing page (1000 at first).
    pub fn page(&self, keys: usize) {
        self.backend.page.store(keys, Ordering::Relaxed);
    }

    /// Lists in an order that is not that of the bytes.
    pub fn scramble_listings(&self) {
        self.backend.scrambled.store(true, Ordering::Relaxed);
    }

    /// Accepts If-Match and If-None-Match on writes and ignores them.
    pub fn ignore_conditions(&self) {
        self.backend.unconditional.store(true, Ordering::Relaxed);
    }

    /// The next `count` requests `op` (`PutObject`, …, `*` for all) whose key contains `key_part`
    /// fail in this way.
    pub fn fail_next(&self, op: &str, key_part: &str, count: usize, kind: FaultKind) {
        self.backend.state().faults.push(Fault {
            op: op.to_owned(),
            key_part: key_part.to_owned(),
            left: count,
            kind,
        });
    }

    /// Takes all faults back.
    pub fn heal(&self) {
        self.backend.state().faults.clear();
    }

    /// Requests so far, as (operation, key); listings with their prefix, batch deletes with their
    /// keys joined by commas.
    pub fn log(&self) -> Vec<(String, String)> {
        self.backend.state().log.clone()
    }

    pub fn clear_log(&self) {
        self.backend.state().log.clear();
    }

    /// Everything in a bucket.
    pub fn objects(&self, bucket: &str) -> BTreeMap<String, Vec<u8>> {
        self.backend
            .state()
            .buckets
            .get(bucket)
            .into_iter()
            .flatten()
            .map(|(key, stored)| (key.clone(), stored.bytes.clone()))
            .collect()
    }

    /// The keys in a bucket.
    pub fn keys(&self, bucket: &str) -> BTreeSet<String> {
        self.objects(bucket).into_keys().collect()
    }

    /// Puts an object without a request.
    pub fn put(&self, bucket: &str, key: &str, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        let etag = md5_hex(&bytes);
        let mut state = self.backend.state();
        state.store(bucket, key, bytes, etag).unwrap();
    }

    /// Removes an object without a request.
    pub fn remove(&self, bucket: &str, key: &str) {
        let mut state = self.backend.state();
        state.bucket(bucket).unwrap().remove(key);
    }

    /// Uploads in parts that are neither completed nor aborted.
    pub fn open_uploads(&self) -> usize {
        self.backend.state().uploads.len()
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

async fn serve(socket: tokio::net::TcpStream, service: s3s::service::S3Service) {
    let service = hyper::service::service_fn(move |request| {
        let answer = hyper::service::Service::call(&service, request);
        async move {
            let answer = answer.await.map_err(|_| Closed)?;
            if answer.headers().contains_key(CLOSE) {
                return Err(Closed);
            }
            Ok(answer)
        }
    });
    let connection =
        hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
    // A client that goes away is no failure of the test.
    let _ = connection
        .serve_connection(hyper_util::rt::TokioIo::new(socket), service)
        .await;
}
