//! The HTTP layer under the S3 client: bounds requests in flight, gives every request and every
//! silence a limit, and makes listings survive keys that the client cannot represent.
//!
//! ```text
//! AmazonS3 (signing, retries) ── request ──▶ Wire ── permit, time limit ──▶ reqwest
//!          ◀── listing, odd keys spelt so that they parse ── Wire ◀── answer ──
//! ```
//!
//! The client parses every key of a listing page and fails the whole listing on the first one that
//! it cannot represent (`a//b`, `./x`); a key ending in `/` it shortens without a word. So the page
//! is looked through before the client sees it, and such keys are spelt `U+E000` + hexadecimal,
//! which [`unspell`] turns back.

use bytes::Bytes;
use http_body::{Body, Frame};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService, ReqwestConnector,
};
use object_store::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Sleep;

/// Marks a spelt key; a private-use character, so that no sane key starts with it.
const SPELT: char = '\u{e000}';

/// Slowest upload that is still taken for progress, in bytes a second.
const SLOWEST_UPLOAD: u64 = 256 * 1024;

/// Makes [`Wire`] clients.
#[derive(Debug)]
pub(super) struct WireConnector {
    pub(super) permits: Arc<Semaphore>,
    /// How long an answer, or the next piece of one, may take.
    pub(super) silence: Duration,
}

impl HttpConnector for WireConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Wire {
            inner: ReqwestConnector::default().connect(options)?,
            permits: Arc::clone(&self.permits),
            silence: self.silence,
        }))
    }
}

#[derive(Debug)]
struct Wire {
    inner: HttpClient,
    permits: Arc<Semaphore>,
    silence: Duration,
}

#[derive(Debug, thiserror::Error)]
#[error("the server was silent for {0:?}")]
struct Silent(Duration);

#[async_trait::async_trait]
impl HttpService for Wire {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let listing = is_listing(&request);
        let payload = request.body().content_length() as u64;
        let limit = self.silence + Duration::from_secs(payload / SLOWEST_UPLOAD);
        let response = {
            // Held until the head of the answer only: a reader that pauses in the middle of a body
            // must not starve the requests that it is waiting for.
            let _permit = self.permits.acquire().await;
            tokio::time::timeout(limit, self.inner.execute(request))
                .await
                .map_err(|_| HttpError::new(HttpErrorKind::Timeout, Silent(limit)))??
        };
        let success = response.status().is_success();
        let (parts, body) = response.into_parts();
        let body = HttpResponseBody::new(Limited {
            body,
            silence: self.silence,
            timer: None,
        });
        if !(listing && success) {
            return Ok(HttpResponse::from_parts(parts, body));
        }
        let page = body.bytes().await?;
        let page = match std::str::from_utf8(&page) {
            Ok(text) => Bytes::from(spell_keys(text)),
            Err(_) => page,
        };
        Ok(HttpResponse::from_parts(parts, page.into()))
    }
}

fn is_listing(request: &HttpRequest) -> bool {
    request.method().as_str() == "GET"
        && request
            .uri()
            .query()
            .is_some_and(|query| query.split('&').any(|pair| pair == "list-type=2"))
}

/// A body that fails when its next piece keeps us waiting.
struct Limited {
    body: HttpResponseBody,
    silence: Duration,
    /// Runs while a piece is awaited; a reader that does not ask cannot run it out.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Body for Limited {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.timer = None;
            return Poll::Ready(frame);
        }
        let silence = this.silence;
        let timer = this
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(silence)));
        timer
            .as_mut()
            .poll(cx)
            .map(|()| Some(Err(HttpError::new(HttpErrorKind::Timeout, Silent(silence)))))
    }
}

/// Whether the client keeps `key` as it is.
pub(super) fn representable(key: &str) -> bool {
    !key.starts_with(SPELT) && Path::parse(key).is_ok_and(|path| path.as_ref() == key)
}

/// The key that the client's spelling stands for, if it is one of ours.
pub(super) fn unspell(key: &str) -> Option<String> {
    let bytes = hex::decode(key.strip_prefix(SPELT)?).ok()?;
    String::from_utf8(bytes).ok()
}

/// Replaces the keys of a ListObjectsV2 page that the client cannot represent.
fn spell_keys(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    let mut rest = page;
    while let Some((before, after)) = rest.split_once("<Key>") {
        let Some((key, tail)) = after.split_once("</Key>") else {
            break;
        };
        out.push_str(before);
        out.push_str("<Key>");
        let plain = unescape(key);
        if representable(&plain) {
            out.push_str(key);
        } else {
            out.push(SPELT);
            out.push_str(&hex::encode(plain));
        }
        out.push_str("</Key>");
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// Resolves the five XML entities and character references; anything else stays as it is.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let resolved = after.split_once(';').and_then(|(name, tail)| {
            let character = match name {
                "amp" => '&',
                "lt" => '<',
                "gt" => '>',
                "quot" => '"',
                "apos" => '\'',
                _ => {
                    let number = name.strip_prefix('#')?;
                    let code = match number.strip_prefix(['x', 'X']) {
                        Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                        None => number.parse().ok()?,
                    };
                    char::from_u32(code)?
                }
            };
            Some((character, tail))
        });
        match resolved {
            Some((character, tail)) => {
                out.push(character);
                rest = tail;
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_keys_survive_a_listing_page() {
        let page = "<R><Key>a//b</Key><Key>dt=a%2Fb%3D c/&amp;x</Key><Key>p/&#46;./q</Key><Key>dir/</Key></R>";
        let spelt = spell_keys(page);
        let keys: Vec<String> = spelt
            .split("<Key>")
            .skip(1)
            .filter_map(|part| part.split_once("</Key>"))
            .map(|(key, _)| unspell(key).unwrap_or_else(|| unescape(key)))
            .collect();
        assert_eq!(keys, ["a//b", "dt=a%2Fb%3D c/&x", "p/../q", "dir/"]);
        assert!(spelt.contains("<Key>dt=a%2Fb%3D c/&amp;x</Key>"));
        assert!(spelt.ends_with("</R>"));
        assert!(!spelt.contains("a//b"));
    }

    #[test]
    fn a_key_that_looks_spelt_is_spelt_again() {
        let key = format!("{SPELT}6162");
        assert!(!representable(&key));
        let spelt = spell_keys(&format!("<Key>{key}</Key>"));
        let inner = &spelt["<Key>".len()..spelt.len() - "</Key>".len()];
        assert_eq!(unspell(inner).as_deref(), Some(key.as_str()));
    }

    #[test]
    fn broken_references_stay_as_they_are() {
        assert_eq!(unescape("a&b;c&#xZZ;&#x41;"), "a&b;c&#xZZ;A");
    }
}
