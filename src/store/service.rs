//! A service of AWS that speaks JSON over HTTP: signed requests, retries, and errors in words.
//!
//! ```text
//! call ─▶ sign ─▶ wire ─▶ POST / ─┬─ 200 ─────────────────────────────────▶ the answer
//!          ▲                      ├─ throttled, 5xx, silence ─▶ wait ─┐
//!          └──────────────────────│───────────────────────────────────┘  as long as `retry_for`
//!                                 └─ any other error ──────────────────────▶ Answered, or access denied
//! ```
//!
//! # Contract
//!
//! A request may reach the service more than once, because an answer can be lost. The caller sends only requests
//! that it may repeat.

use super::credentials::{self, ChainCredentials};
use super::wire::WireConnector;
use super::{StoreError, StoreErrorKind, StoreSettings};
use bytes::Bytes;
use object_store::ClientOptions;
use object_store::aws::AwsAuthorizer;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

/// What is done with a service, for messages.
const ASKING: &str = "asking";
/// The wait before the first retry. Each further wait is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Where a service is, and how it is addressed.
#[derive(Debug, Clone, Copy)]
pub struct ServiceAt<'a> {
    /// The name of the service in signatures and host names, such as `glue`.
    pub name: &'static str,
    /// The prefix of the header `X-Amz-Target`, such as `AWSGlue`.
    pub target: &'static str,
    /// The region; the standard chain's where there is none.
    pub region: Option<&'a str>,
    /// The URL; the standard chain's, or that of AWS, where there is none.
    pub endpoint: Option<&'a str>,
}

/// Why a service did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// There is no usable answer, or no permission.
    #[error(transparent)]
    Failed(#[from] StoreError),
    /// The service refused the request.
    #[error("{operation} was answered with {code}: {message}")]
    Answered {
        /// The operation, such as `GetTables`.
        operation: &'static str,
        /// The error code, such as `EntityNotFoundException`.
        code: String,
        /// The sentence of the service; may be empty.
        message: String,
    },
}

/// A client of one service in one region.
#[derive(Debug)]
pub struct Service {
    client: HttpClient,
    keys: ChainCredentials,
    name: &'static str,
    target: &'static str,
    region: String,
    endpoint: String,
    retry_for: Duration,
}

/// What came of one try.
enum Tried {
    Done(Bytes),
    /// Another try may help.
    Again(StoreError),
    Failed(ServiceError),
}

impl Service {
    /// Reads AWS settings and credentials. Sends no request to the service.
    ///
    /// # Errors
    /// No credentials or region; an endpoint that is no URL.
    pub async fn open(at: &ServiceAt<'_>, settings: &StoreSettings) -> Result<Self, StoreError> {
        let chain;
        let aws = match &settings.aws {
            Some(given) => given,
            None => {
                chain = credentials::standard_chain().await;
                &chain
            }
        };
        let given = at.endpoint.map(str::to_owned);
        let given = given.or_else(|| credentials::endpoint(aws, at.name));
        let shown = given.as_deref().unwrap_or(at.name).to_owned();
        let region = match at.region {
            Some(region) => region.to_owned(),
            None => credentials::region(aws, given.as_deref(), &shown)?,
        };
        let endpoint = given.unwrap_or_else(|| default_endpoint(at.name, &region));
        let url = Url::parse(&endpoint).ok();
        let url = url.filter(|url| url.has_host() && ["http", "https"].contains(&url.scheme()));
        let Some(url) = url else {
            let detail = "the endpoint is no URL that begins with https:// or http://";
            return Err(StoreError::new(
                StoreErrorKind::BadUrl,
                ASKING,
                endpoint,
                detail,
            ));
        };
        let keys = ChainCredentials::new(aws);
        let found = keys.get().await;
        found.map_err(|failure| failure.to_store_error(ASKING, endpoint.clone()))?;
        let options = ClientOptions::new()
            // Limits are per silence: see `wire`.
            .with_timeout_disabled()
            .with_connect_timeout(Duration::from_secs(5).min(settings.silence))
            .with_allow_http(url.scheme() == "http");
        let connector = WireConnector {
            permits: Arc::new(Semaphore::new(settings.concurrency.max(1))),
            silence: settings.silence,
            empty_pages: settings.empty_pages,
            retry_for: settings.retry_for,
        };
        let client = connector.connect(&options);
        Ok(Self {
            client: client.map_err(|error| StoreError::client(ASKING, &endpoint, &error))?,
            keys,
            name: at.name,
            target: at.target,
            region,
            endpoint,
            retry_for: settings.retry_for,
        })
    }

    /// Sends one request and reads its answer.
    ///
    /// # Errors
    /// No usable answer within the time for retries, no permission, or an error that the service answers.
    pub async fn call<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        input: &impl Serialize,
    ) -> Result<T, ServiceError> {
        let unusable = |error: serde_json::Error| {
            let detail = format!("the answer cannot be used ({error})");
            self.failed(StoreErrorKind::Other, operation, detail)
        };
        let body = Bytes::from(serde_json::to_vec(input).map_err(unusable)?);
        let begun = Instant::now();
        let mut wait = FIRST_WAIT;
        let answer = loop {
            match self.attempt(operation, &body).await {
                Tried::Done(answer) => break answer,
                Tried::Failed(error) => return Err(error),
                Tried::Again(error) => {
                    if begun.elapsed() + wait > self.retry_for {
                        return Err(error.into());
                    }
                    tracing::debug!(%error, "another try");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        };
        let answer = if answer.is_empty() {
            &b"{}"[..]
        } else {
            &answer[..]
        };
        Ok(serde_json::from_slice(answer).map_err(unusable)?)
    }

    async fn attempt(&self, operation: &'static str, body: &Bytes) -> Tried {
        let request = match self.request(operation, body).await {
            Ok(request) => request,
            Err(error) => return Tried::Failed(error.into()),
        };
        let response = match self.client.execute(request).await {
            Ok(response) => response,
            Err(error) => return self.broken(operation, &error),
        };
        let (parts, answer) = response.into_parts();
        let answer = match answer.bytes().await {
            Ok(answer) => answer,
            Err(error) => return self.broken(operation, &error),
        };
        if parts.status.is_success() {
            return Tried::Done(answer);
        }
        let header = parts.headers.get("x-amzn-errortype");
        let header = header.and_then(|value| value.to_str().ok());
        self.refused(
            operation,
            parts.status.as_u16(),
            Refusal::read(header, &answer),
        )
    }

    /// The signed request.
    async fn request(
        &self,
        operation: &'static str,
        body: &Bytes,
    ) -> Result<HttpRequest, StoreError> {
        let key = self.keys.get().await;
        let key = key.map_err(|failure| failure.to_store_error(ASKING, self.endpoint.clone()))?;
        let odd = || {
            let detail = "the request cannot be written as HTTP".to_owned();
            self.failed(StoreErrorKind::Other, operation, detail)
        };
        let mut request = HttpRequest::new(HttpRequestBody::from(body.clone()));
        *request.method_mut() = "POST".parse().map_err(|_| odd())?;
        *request.uri_mut() = self.endpoint.parse().map_err(|_| odd())?;
        let target = format!("{}.{operation}", self.target);
        for (name, value) in [
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", target.as_str()),
        ] {
            let value = value.parse().map_err(|_| odd())?;
            request.headers_mut().insert(name, value);
        }
        AwsAuthorizer::new(&key, self.name, &self.region).authorize(&mut request, None);
        Ok(request)
    }

    /// There was no whole answer.
    fn broken(&self, operation: &'static str, error: &HttpError) -> Tried {
        let mut innermost: &dyn std::error::Error = error;
        while let Some(next) = innermost.source() {
            innermost = next;
        }
        let detail = format!("no usable answer ({innermost})");
        let failed = self.failed(StoreErrorKind::Unreachable, operation, detail);
        match error.kind() {
            // The same answer would come again.
            HttpErrorKind::Decode => Tried::Failed(failed.into()),
            _ => Tried::Again(failed),
        }
    }

    fn refused(&self, operation: &'static str, status: u16, refusal: Refusal) -> Tried {
        let Refusal { code, message } = refusal;
        let answered = match message.as_str() {
            "" => format!("{status} {code}"),
            _ => format!("{status} {code}: {message}"),
        };
        if matches!(status, 408 | 429 | 500..=599) || is_passing(&code) {
            let detail = format!("no usable answer ({answered})");
            return Tried::Again(self.failed(StoreErrorKind::Unreachable, operation, detail));
        }
        if matches!(code.as_str(), "ExpiredTokenException" | "ExpiredToken") {
            let detail = format!("the credentials have expired ({answered})");
            let failed = self.failed(StoreErrorKind::Expired, operation, detail);
            return Tried::Failed(failed.into());
        }
        if is_denied(status, &code) {
            let detail = format!("access denied ({answered})");
            return Tried::Failed(
                self.failed(StoreErrorKind::Denied, operation, detail)
                    .into(),
            );
        }
        Tried::Failed(ServiceError::Answered {
            operation,
            code,
            message,
        })
    }

    fn failed(&self, kind: StoreErrorKind, operation: &'static str, detail: String) -> StoreError {
        let url = format!("{} for {operation}", self.endpoint);
        StoreError::new(kind, ASKING, url, detail)
    }
}

/// What an error answer says.
struct Refusal {
    code: String,
    message: String,
}

impl Refusal {
    fn read(header: Option<&str>, body: &[u8]) -> Self {
        #[derive(serde::Deserialize, Default)]
        struct Body {
            #[serde(default, rename = "__type")]
            kind: Option<String>,
            #[serde(default, alias = "Message")]
            message: Option<String>,
        }
        let body: Body = serde_json::from_slice(body).unwrap_or_default();
        let code = body.kind.or(header.map(str::to_owned)).unwrap_or_default();
        // Some services put the shape's namespace before the name, and a URL after it.
        let code = code.rsplit('#').next().unwrap_or_default();
        let code = code.split(':').next().unwrap_or_default();
        Self {
            code: code.to_owned(),
            message: body.message.unwrap_or_default(),
        }
    }
}

/// Whether the same request may succeed later, by the error code of the answer or of an entry in it.
pub fn is_passing(code: &str) -> bool {
    matches!(
        code,
        "ThrottlingException"
            | "Throttling"
            | "ThrottledException"
            | "TooManyRequestsException"
            | "RequestLimitExceeded"
            | "ProvisionedThroughputExceededException"
            | "OperationTimeoutException"
            | "InternalServiceException"
            | "InternalFailure"
            | "ServiceUnavailable"
            | "RequestTimeout"
    )
}

fn is_denied(status: u16, code: &str) -> bool {
    matches!(status, 401 | 403)
        || matches!(
            code,
            "AccessDeniedException"
                | "AccessDenied"
                | "UnrecognizedClientException"
                | "InvalidClientTokenId"
                | "InvalidSignatureException"
                | "SignatureDoesNotMatch"
                | "IncompleteSignature"
                | "MissingAuthenticationToken"
                | "MissingAuthenticationTokenException"
                | "OptInRequired"
        )
}

/// The endpoint of AWS.
fn default_endpoint(service: &str, region: &str) -> String {
    let domain = match region.starts_with("cn-") {
        true => "amazonaws.com.cn",
        false => "amazonaws.com",
    };
    format!("https://{service}.{region}.{domain}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_read_in_each_of_their_spellings() {
        for (header, body, code, message) in [
            (
                None,
                r#"{"__type":"EntityNotFoundException","Message":"no db"}"#,
                "EntityNotFoundException",
                "no db",
            ),
            (
                None,
                r#"{"__type":"com.amazonaws.glue#ThrottlingException","message":"slow"}"#,
                "ThrottlingException",
                "slow",
            ),
            (
                Some("AccessDeniedException:http://internal/"),
                "",
                "AccessDeniedException",
                "",
            ),
            (None, "<html>", "", ""),
        ] {
            let refusal = Refusal::read(header, body.as_bytes());
            assert_eq!(
                (refusal.code.as_str(), refusal.message.as_str()),
                (code, message)
            );
        }
    }

    #[test]
    fn the_endpoint_of_aws_has_the_region_and_its_domain() {
        let endpoint = |region| default_endpoint("glue", region);
        assert_eq!(
            endpoint("ap-northeast-2"),
            "https://glue.ap-northeast-2.amazonaws.com"
        );
        assert_eq!(
            endpoint("cn-north-1"),
            "https://glue.cn-north-1.amazonaws.com.cn"
        );
    }
}
