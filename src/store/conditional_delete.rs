//! DELETE with If-Match, which the client does not have: a request of our own, signed by the client.
//!
//! ```text
//! DELETE, If-Match: <etag> ─┬─ 2xx, 404 ─────────────▶ nothing lies there
//!                           ├─ 412, 409 ─────────────▶ something else lies there, or the answer to an earlier try was lost
//!                           ├─ 400, 405, 501 ────────▶ the server does not know the condition
//!                           └─ 5xx, 429, no answer ──▶ unclear, may be tried again
//! ```

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3;
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::path::Path as ClientPath;
use object_store::signer::Signer;

use super::{StoreError, StoreErrorKind};

/// How long a signed request may be on its way.
const VALID_FOR: Duration = Duration::from_secs(900);

/// Deletes objects of one bucket under a condition.
#[derive(Debug, Clone)]
pub(super) struct ConditionalDelete {
    /// Signs the requests.
    pub(super) signer: Arc<AmazonS3>,
    /// Sends the requests, within the limits of all others.
    pub(super) http: HttpClient,
}

/// What a server answered.
#[derive(Debug)]
pub(super) enum Answered {
    /// Nothing lies under the key.
    Deleted,
    /// The condition does not hold.
    Refused,
    /// The server does not know the condition. It has done nothing.
    Unknown,
    /// It is not known whether the object was deleted.
    Unclear(StoreError),
}

impl ConditionalDelete {
    /// Asks once to delete the object at `path` if it has the ETag `expected`. `url` is for messages.
    ///
    /// # Errors
    /// No credentials, no permission, no bucket.
    pub(super) async fn ask(
        &self,
        path: &ClientPath,
        expected: &str,
        url: &str,
    ) -> Result<Answered, StoreError> {
        let failed = |kind, detail: String| StoreError::new(kind, "deleting", url, detail);
        let odd = |detail: String| failed(StoreErrorKind::Other, detail);
        let method = "DELETE".parse().map_err(|_| odd("no method".to_owned()))?;
        let signed = self.signer.signed_url(method, path, VALID_FOR).await;
        let signed = signed.map_err(|error| StoreError::client("deleting", url, &error))?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = "DELETE".parse().map_err(|_| odd("no method".to_owned()))?;
        let uri = signed.as_str().parse();
        *request.uri_mut() = uri.map_err(|_| odd("the key is no part of a URL".to_owned()))?;
        let etag = expected.parse();
        let etag = etag.map_err(|_| odd(format!("{expected:?} is no ETag")))?;
        request.headers_mut().insert("if-match", etag);
        let answer = match self.http.execute(request).await {
            Ok(answer) => answer.status().as_u16(),
            // Without the words of the error: they hold the signed URL.
            Err(error) => {
                let detail = format!("no usable answer ({:?})", error.kind());
                let unclear = failed(StoreErrorKind::Unreachable, detail);
                return Ok(Answered::Unclear(unclear));
            }
        };
        match answer {
            200..=299 | 404 => Ok(Answered::Deleted),
            409 | 412 => Ok(Answered::Refused),
            400 | 405 | 501 => Ok(Answered::Unknown),
            401 | 403 => {
                let detail = format!("access denied ({answer})");
                Err(failed(StoreErrorKind::Denied, detail))
            }
            429 | 500.. => {
                let detail = format!("no usable answer ({answer})");
                Ok(Answered::Unclear(failed(
                    StoreErrorKind::Unreachable,
                    detail,
                )))
            }
            _ => Err(odd(format!("request failed ({answer})"))),
        }
    }
}
