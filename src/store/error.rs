//! The errors of stores, in words that name the URL and the remedy.

use object_store::client::HttpErrorKind;
use std::error::Error as StdError;
use std::fmt;
use std::io;

/// The kind of failure of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// No usable answer within the time given to retries.
    Unreachable,
    /// The credentials have expired, or could not be fetched.
    Expired,
    /// Wrong credentials, or no permission.
    Denied,
    /// No credentials are configured, or their configuration is wrong.
    NoCredentials,
    /// No region is configured.
    NoRegion,
    /// The bucket lies in another region.
    WrongRegion,
    /// The bucket does not exist.
    MissingBucket,
    /// A file, or a part of the path that is a file, lies where a folder is needed.
    NotAFolder,
    /// The URL names no place that can be used.
    BadUrl,
    /// The store lacks a feature that is needed, or has more objects than the memory holds.
    Unfit,
    /// The object or file does not exist.
    NotFound,
    /// The disk or the quota is full.
    Full,
    /// A folder, or something else that is no file, lies where a file is needed.
    NotAFile,
    /// The object has another ETag than the one that was asked for: it was replaced.
    Replaced,
    /// Any other failure. The message says which.
    Other,
}

/// A failed action on a store: `listing s3://bucket/prefix/: access denied (403 AccessDenied)`.
///
/// The message never holds a key, a token or a signature. Only the status, the error code and the error's own
/// sentence are kept from the answer of a server.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    action: &'static str,
    url: String,
    detail: String,
    hint: Option<Box<str>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl StoreError {
    pub(super) fn new(
        kind: StoreErrorKind,
        action: &'static str,
        url: impl Into<String>,
        detail: impl Into<String>,
    ) -> StoreError {
        StoreError {
            kind,
            action,
            url: url.into(),
            detail: detail.into(),
            hint: None,
            source: None,
        }
    }

    pub(super) fn with_hint(mut self, hint: impl Into<Box<str>>) -> StoreError {
        self.hint = Some(hint.into());
        self
    }

    /// An I/O error of the local disk.
    pub(super) fn io(action: &'static str, url: impl Into<String>, error: io::Error) -> StoreError {
        use io::ErrorKind as K;
        let (kind, detail) = match error.kind() {
            K::NotFound => (StoreErrorKind::NotFound, "no such file or folder"),
            K::PermissionDenied => (StoreErrorKind::Denied, "permission denied"),
            K::ReadOnlyFilesystem => (StoreErrorKind::Denied, "the file system is read-only"),
            _ if is_full(&error) => (StoreErrorKind::Full, "the disk is full"),
            K::NotADirectory => (
                StoreErrorKind::NotAFolder,
                "a part of the path is a file where a folder is needed",
            ),
            K::IsADirectory => (StoreErrorKind::NotAFile, "a folder where a file is needed"),
            K::TimedOut | K::StaleNetworkFileHandle | K::HostUnreachable => (
                StoreErrorKind::Unreachable,
                "the file system did not answer",
            ),
            _ => (StoreErrorKind::Other, ""),
        };
        let detail = match detail {
            "" => error.to_string(),
            words if kind == StoreErrorKind::Full => {
                format!("{words} ({error}); free space on that disk, then run again")
            }
            words => format!("{words} ({error})"),
        };
        let mut made = StoreError::new(kind, action, url, detail);
        made.source = Some(Box::new(error));
        made
    }

    /// The error of an object that is not read because it is longer than any valid object at this place.
    pub(super) fn too_long(url: impl Into<String>, bytes: u64, most: u64) -> StoreError {
        let detail = format!("it has {bytes} bytes, and a valid object there has at most {most}");
        StoreError::new(StoreErrorKind::Other, "reading", url, detail)
    }

    /// An error of the object store client.
    pub(super) fn client(
        action: &'static str,
        url: impl Into<String>,
        error: &object_store::Error,
    ) -> StoreError {
        let url = url.into();
        if let Some(found) = find::<CredentialsFailure>(error) {
            return found.to_store_error(action, url);
        }
        let answer = Answer::read(error);
        let kind = match (answer.kind(), error) {
            // Some servers do not say that an object is missing.
            (StoreErrorKind::Other, object_store::Error::NotFound { .. }) => {
                StoreErrorKind::NotFound
            }
            (StoreErrorKind::Other, object_store::Error::Precondition { .. }) => {
                StoreErrorKind::Replaced
            }
            (
                StoreErrorKind::Other,
                object_store::Error::PermissionDenied { .. }
                | object_store::Error::Unauthenticated { .. },
            ) => StoreErrorKind::Denied,
            (kind, _) => kind,
        };
        let words = match kind {
            StoreErrorKind::Unreachable => "no usable answer",
            StoreErrorKind::Expired => "the credentials have expired",
            StoreErrorKind::Denied | StoreErrorKind::NoCredentials => "access denied",
            StoreErrorKind::NoRegion | StoreErrorKind::WrongRegion => {
                "the bucket lies in another region"
            }
            StoreErrorKind::MissingBucket => "the bucket does not exist",
            StoreErrorKind::NotFound => "no such object",
            StoreErrorKind::Full => "the store is full",
            StoreErrorKind::Replaced => "the object was replaced",
            StoreErrorKind::NotAFile
            | StoreErrorKind::NotAFolder
            | StoreErrorKind::BadUrl
            | StoreErrorKind::Unfit
            | StoreErrorKind::Other => "request failed",
        };
        let mut made = StoreError::new(kind, action, url, format!("{words} ({answer})"));
        made.hint = answer.hint();
        made
    }

    /// The error of the object store client, or of the local disk below it, among the causes of `error`.
    pub(super) fn found(
        action: &'static str,
        url: &str,
        error: &(dyn StdError + 'static),
    ) -> Option<StoreError> {
        let client = find::<object_store::Error>(error)?;
        Some(match find::<io::Error>(client) {
            Some(disk) if disk.raw_os_error().is_some() && url.starts_with("file:") => {
                StoreError::io(action, url, io::Error::new(disk.kind(), disk.to_string()))
            }
            _ => StoreError::client(action, url, client),
        })
    }

    /// The kind of the failure. It decides the exit code.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// The URL of the object, the prefix or the root.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The action that failed: `listing`, `reading`, …
    pub fn action(&self) -> &'static str {
        self.action
    }

    /// The remedy, as a part of a sentence. `None` where the message has it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref().or(match self.kind {
            StoreErrorKind::Unreachable => Some(
                "check the network and the endpoint, then run again: readers see nothing half-written",
            ),
            StoreErrorKind::Expired => Some("renew the login, then run again"),
            StoreErrorKind::Denied => {
                Some("check the credentials in use and their permissions on this URL")
            }
            StoreErrorKind::NoCredentials => Some(
                "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a \
                 role is attached",
            ),
            StoreErrorKind::NoRegion => Some("set AWS_REGION, or `region` in the AWS profile"),
            StoreErrorKind::WrongRegion => Some("set AWS_REGION to the region of the bucket"),
            StoreErrorKind::MissingBucket => {
                Some("create the bucket, or correct its name in the configuration")
            }
            StoreErrorKind::NotAFolder => Some("name a folder in the configuration"),
            StoreErrorKind::BadUrl => Some("correct the URL in the configuration"),
            StoreErrorKind::Unfit => Some("use a store that has it"),
            StoreErrorKind::Full
            | StoreErrorKind::NotFound
            | StoreErrorKind::NotAFile
            | StoreErrorKind::Replaced
            | StoreErrorKind::Other => None,
        })
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.action, self.url, self.detail)
    }
}

impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

/// Whether an I/O error says that the disk, a quota or the largest size of a file is used up.
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::StorageFull | K::QuotaExceeded | K::FileTooLarge
    )
}

/// The credential chain gave nothing. The object store client carries this error.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub(super) struct CredentialsFailure {
    pub(super) detail: String,
    /// `NoCredentials`, `Expired` or `Denied`.
    pub(super) kind: StoreErrorKind,
}

impl CredentialsFailure {
    pub(super) fn to_store_error(&self, action: &'static str, url: String) -> StoreError {
        let made = StoreError::new(self.kind, action, url, &self.detail);
        match self.kind {
            StoreErrorKind::NoCredentials => made,
            _ => made.with_hint(
                "renew the login or correct the profile (`aws sts get-caller-identity` shows the \
                 same)",
            ),
        }
    }
}

fn find<'e, E: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e E> {
    let mut at = Some(error);
    while let Some(current) = at {
        if let Some(found) = current.downcast_ref::<E>() {
            return Some(found);
        }
        at = current.source();
    }
    None
}

/// Whether the answer did not come in time. The client does not repeat a conditional write after that.
pub(super) fn timed_out(error: &object_store::Error) -> bool {
    find::<object_store::client::HttpError>(error).is_some_and(|error| {
        matches!(
            error.kind(),
            HttpErrorKind::Timeout | HttpErrorKind::Interrupted
        )
    })
}

/// The useful parts of a failed request. The client does not export the type of its request errors, so status
/// and code are read from its text.
#[derive(Debug, Default)]
pub(super) struct Answer {
    status: Option<u16>,
    code: Option<String>,
    message: Option<String>,
    /// The region that the server expects.
    region: Option<String>,
    /// The failure of a request that never got a whole answer.
    transport: Option<String>,
    redirect: bool,
    other: String,
}

impl Answer {
    pub(super) fn read(error: &object_store::Error) -> Answer {
        let mut answer = Answer::default();
        let text = error.to_string();
        if let Some((_, rest)) = text.split_once("status code: ") {
            answer.status = rest.get(..3).and_then(|digits| digits.parse().ok());
        }
        if let Some(found) = find::<object_store::client::HttpError>(error) {
            // Only the innermost cause is kept, because outer causes repeat the URL.
            let mut innermost: &dyn StdError = found;
            while let Some(next) = innermost.source() {
                innermost = next;
            }
            answer.transport = Some(innermost.to_string());
        }
        answer.redirect = text.contains("redirect without LOCATION");
        let body = text.find("<Error>").and_then(|at| text.get(at..));
        answer.code = body.and_then(|body| element(body, "Code"));
        answer.message = body.and_then(|body| element(body, "Message"));
        answer.region = body.and_then(|body| element(body, "Region"));
        if answer.code.is_none() {
            // The failure of one key of a bulk delete.
            answer.code = text
                .rsplit_once("(code: ")
                .and_then(|(_, rest)| rest.split_once(')'))
                .map(|(code, _)| code.to_owned());
        }
        answer.other = match error {
            object_store::Error::InvalidPath { source } => source.to_string(),
            object_store::Error::NotImplemented { operation, .. } => {
                format!("{operation} is not supported by this store")
            }
            _ if text.contains('<') => "unexpected answer".to_owned(),
            _ => {
                let mut innermost: &dyn StdError = error;
                while let Some(next) = innermost.source() {
                    innermost = next;
                }
                innermost.to_string()
            }
        };
        answer
    }

    pub(super) fn kind(&self) -> StoreErrorKind {
        if self.redirect {
            return StoreErrorKind::WrongRegion;
        }
        let of_code = self.code.as_deref().and_then(kind_of_code);
        of_code.unwrap_or(match self.status {
            Some(301 | 307) => StoreErrorKind::WrongRegion,
            Some(401 | 403) => StoreErrorKind::Denied,
            Some(404) => StoreErrorKind::NotFound,
            Some(507) => StoreErrorKind::Full,
            Some(408 | 429 | 500..=599) => StoreErrorKind::Unreachable,
            Some(_) => StoreErrorKind::Other,
            None if self.transport.is_some() => StoreErrorKind::Unreachable,
            None => StoreErrorKind::Other,
        })
    }

    /// The remedy, if it follows from the code of the answer alone.
    fn hint(&self) -> Option<Box<str>> {
        if let (StoreErrorKind::WrongRegion, Some(region)) = (self.kind(), &self.region) {
            return Some(format!("set AWS_REGION={region}").into());
        }
        Some(match self.code.as_deref()? {
            "RequestTimeTooSkewed" => "set the clock of this machine".into(),
            "InvalidObjectState" => "the object is archived: restore it, or leave it out with `exclude`".into(),
            "InvalidAccessKeyId" => {
                "the server does not know the access key: correct AWS_ACCESS_KEY_ID or the profile".into()
            }
            "SignatureDoesNotMatch" => {
                "the secret key does not belong to the access key: correct AWS_SECRET_ACCESS_KEY or \
                 the profile"
                    .into()
            }
            "InvalidToken" => "correct AWS_SESSION_TOKEN, or unset it for keys that have no token".into(),
            code if code.starts_with("KMS.") => {
                "check the KMS key of the bucket and the permissions on it".into()
            }
            _ => return None,
        })
    }
}

/// The kind of failure that an error code of S3 means. `None` where the status of the answer decides.
fn kind_of_code(code: &str) -> Option<StoreErrorKind> {
    Some(match code {
        "NoSuchBucket" | "InvalidBucketName" => StoreErrorKind::MissingBucket,
        "ExpiredToken" | "TokenRefreshRequired" | "ExpiredTokenException" => {
            StoreErrorKind::Expired
        }
        "AccessDenied"
        | "InvalidToken"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "RequestTimeTooSkewed"
        | "InvalidObjectState"
        | "NotSignedUp"
        | "AllAccessDisabled"
        | "AccountProblem" => StoreErrorKind::Denied,
        code if code.starts_with("KMS.") => StoreErrorKind::Denied,
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => StoreErrorKind::WrongRegion,
        "SlowDown" | "InternalError" | "ServiceUnavailable" | "RequestTimeout" => {
            StoreErrorKind::Unreachable
        }
        "XMinioStorageFull" | "QuotaExceeded" => StoreErrorKind::Full,
        _ => return None,
    })
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status, &self.code, &self.transport) {
            (Some(status), Some(code), _) => write!(f, "{status} {code}")?,
            (Some(status), None, _) => write!(f, "{status}")?,
            (None, Some(code), _) => f.write_str(code)?,
            (None, None, Some(transport)) => return f.write_str(transport),
            (None, None, None) => return f.write_str(&self.other),
        }
        match &self.message {
            // The sentence of this error may quote the access key.
            Some(message) if self.code.as_deref() != Some("InvalidAccessKeyId") => {
                write!(f, ": {message}")
            }
            _ => Ok(()),
        }
    }
}

fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (value, _) = rest.split_once(&format!("</{name}>"))?;
    Some(value.trim().to_owned()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use StoreErrorKind as Kind;

    /// The error of a client that has had this answer.
    fn answered(status: u16, body: &str) -> StoreError {
        let error = object_store::Error::Generic {
            store: "S3",
            source: format!("Server returned non-2xx status code: {status} Some Words: {body}")
                .into(),
        };
        StoreError::client("reading", "s3://b/k", &error)
    }

    fn coded(status: u16, code: &str) -> StoreError {
        answered(
            status,
            &format!("<Error><Code>{code}</Code><Message>m</Message></Error>"),
        )
    }

    #[test]
    fn each_error_code_of_s3_is_of_one_kind() {
        for (status, code, kind) in [
            (404, "NoSuchBucket", Kind::MissingBucket),
            (400, "InvalidBucketName", Kind::MissingBucket),
            (404, "NoSuchKey", Kind::NotFound),
            (403, "AccessDenied", Kind::Denied),
            (403, "InvalidAccessKeyId", Kind::Denied),
            (403, "SignatureDoesNotMatch", Kind::Denied),
            (403, "RequestTimeTooSkewed", Kind::Denied),
            (403, "InvalidObjectState", Kind::Denied),
            (403, "AllAccessDisabled", Kind::Denied),
            (400, "InvalidToken", Kind::Denied),
            (400, "KMS.DisabledException", Kind::Denied),
            (400, "ExpiredToken", Kind::Expired),
            (400, "TokenRefreshRequired", Kind::Expired),
            (301, "PermanentRedirect", Kind::WrongRegion),
            (307, "TemporaryRedirect", Kind::WrongRegion),
            (400, "AuthorizationHeaderMalformed", Kind::WrongRegion),
            (503, "SlowDown", Kind::Unreachable),
            (503, "ServiceUnavailable", Kind::Unreachable),
            (500, "InternalError", Kind::Unreachable),
            (400, "RequestTimeout", Kind::Unreachable),
            // A bucket that answers 200 and then fails.
            (200, "InternalError", Kind::Unreachable),
            (429, "TooManyRequests", Kind::Unreachable),
            (507, "XMinioStorageFull", Kind::Full),
            (403, "QuotaExceeded", Kind::Full),
            (400, "EntityTooLarge", Kind::Other),
        ] {
            assert_eq!(coded(status, code).kind(), kind, "{status} {code}");
        }
        for (status, kind) in [
            (301, Kind::WrongRegion),
            (401, Kind::Denied),
            (403, Kind::Denied),
            (404, Kind::NotFound),
            (408, Kind::Unreachable),
            (429, Kind::Unreachable),
            (500, Kind::Unreachable),
            (502, Kind::Unreachable),
            (503, Kind::Unreachable),
            (507, Kind::Full),
            (400, Kind::Other),
        ] {
            assert_eq!(answered(status, "").kind(), kind, "{status}");
        }
    }

    #[test]
    fn a_remedy_is_as_exact_as_the_answer() {
        let body = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>m</Message>\
                    <Region>eu-west-1</Region></Error>";
        assert_eq!(answered(400, body).hint(), Some("set AWS_REGION=eu-west-1"));
        for (code, part) in [
            ("PermanentRedirect", "set AWS_REGION to"),
            ("NoSuchBucket", "create the bucket"),
            ("AccessDenied", "permissions on this URL"),
            ("InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
            ("SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
            ("InvalidToken", "AWS_SESSION_TOKEN"),
            ("ExpiredToken", "renew the login"),
            ("RequestTimeTooSkewed", "clock"),
            ("InvalidObjectState", "archived"),
            ("KMS.DisabledException", "KMS key"),
            ("SlowDown", "run again"),
        ] {
            let error = coded(400, code);
            assert!(error.hint().unwrap().contains(part), "{code}: {error:?}");
        }
    }
}
