//! The HTTP layer below the S3 client. It bounds the requests in flight, the time of every request and every
//! silence, and the size of every answer. It also makes listings work for keys that the client cannot
//! represent.
//!
//! ```text
//! AmazonS3 (signing, retries) ── request ──▶ Wire ── permit, time limit ──▶ reqwest
//!          ◀── listing, odd keys spelt so that they parse ── Wire ◀── answer, no longer or slower than it may be ──
//! ```
//!
//! The client reads every answer into memory whatever its length, except the download of an object. A server
//! that is broken, or that is no S3 server, must not be believed. An answer may have as many bytes as were
//! asked for, or the most that an answer of its kind can have, and it must arrive at a speed that a network can
//! have.
//!
//! The client parses every key of a page of a listing. It fails the whole listing at the first key that it
//! cannot represent (`a//b`, `./x`), and silently shortens a key that ends in `/`. The page is therefore
//! changed before the client sees it: such keys are spelt as `U+E000` and hexadecimal digits, and [`unspell`]
//! turns them back.

use super::retries::{Retries, why_not_sent};
use bytes::Bytes;
use http_body::{Body, Frame};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService, ReqwestConnector,
};
use object_store::path::Path;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};

/// Marks a spelt key. It is a private-use character, so no reasonable key begins with it.
const SPELT: char = '\u{e000}';

/// The slowest upload that still counts as progress, in bytes a second.
const SLOWEST_UPLOAD: u64 = 256 * 1024;

/// The slowest answer that still counts as progress, in bytes a second.
pub(super) const SLOWEST_DOWNLOAD: u64 = 1024;

/// The most bytes of an error and of the answer to a write. Servers give a few hundred.
const MOST_OF_ERROR: u64 = 1 << 20;

/// The most bytes of a page of a listing, and of the answer to a bulk delete: a thousand keys of a thousand
/// bytes, each byte spelt with six. Pages of a catalog are asked for so that they are shorter, too.
const MOST_OF_PAGE: u64 = 16 << 20;

/// Makes [`Wire`] clients.
#[derive(Debug)]
pub(super) struct WireConnector {
    pub(super) permits: Arc<Semaphore>,
    /// The longest time for the head of an answer, and for each further piece.
    pub(super) silence: Duration,
    /// How many pages of a listing may come one after the other without an object.
    pub(super) empty_pages: u64,
    /// How long the client tries one request.
    pub(super) retry_for: Duration,
}

impl HttpConnector for WireConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Wire {
            inner: ReqwestConnector::default().connect(options)?,
            permits: Arc::clone(&self.permits),
            silence: self.silence,
            empty_pages: self.empty_pages,
            emptied: Mutex::default(),
            retries: Retries::new(self.retry_for),
        }))
    }
}

#[derive(Debug)]
struct Wire {
    inner: HttpClient,
    permits: Arc<Semaphore>,
    silence: Duration,
    empty_pages: u64,
    /// For each page that an empty page names as its next: how many empty pages came before it.
    emptied: Mutex<HashMap<String, u64>>,
    retries: Retries,
}

#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("the server was silent for {0:?}")]
    Silent(Duration),
    #[error("the server gave less than {SLOWEST_DOWNLOAD} bytes a second for {0:?}")]
    Slow(Duration),
    #[error("the server's answer has more than the {0} bytes that such an answer can have")]
    Long(u64),
    #[error("the server's listing does not go on: its next page is the page that was just read")]
    Circular,
    #[error("the server's listing does not go on: {0} pages one after the other have no object")]
    Empty(u64),
}

impl Unusable {
    fn error(self) -> HttpError {
        let kind = match self {
            Self::Silent(_) | Self::Slow(_) => HttpErrorKind::Timeout,
            Self::Long(_) | Self::Circular | Self::Empty(_) => HttpErrorKind::Decode,
        };
        HttpError::new(kind, self)
    }
}

#[async_trait::async_trait]
impl HttpService for Wire {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let asked = Asked::of(&request);
        let payload = request.body().content_length() as u64;
        let limit = self.silence + Duration::from_secs(payload / SLOWEST_UPLOAD);
        let response = {
            // The permit is held only until the head of the answer has come. A reader that pauses in the middle
            // of a body must not keep other requests from starting, because it may wait for them.
            let _permit = self.permits.acquire().await;
            self.execute(request, limit).await?
        };
        let success = response.status().is_success();
        let (parts, body) = response.into_parts();
        let most = match success {
            true => {
                let told = parts.headers.get("content-length");
                asked.most(told.and_then(|told| told.to_str().ok()?.parse().ok()))
            }
            false => MOST_OF_ERROR,
        };
        let body = HttpResponseBody::new(Limited {
            body,
            silence: self.silence,
            most,
            given: 0,
            waited: Duration::ZERO,
            waiting: None,
        });
        let Asked::Page { token } = asked else {
            return Ok(HttpResponse::from_parts(parts, body));
        };
        if !success {
            return Ok(HttpResponse::from_parts(parts, body));
        }
        let page = body.bytes().await?;
        let page = match std::str::from_utf8(&page) {
            Ok(text) => {
                self.goes_on(text, token.as_deref())
                    .map_err(Unusable::error)?;
                Bytes::from(spell_keys(text))
            }
            Err(_) => page,
        };
        Ok(HttpResponse::from_parts(parts, page.into()))
    }
}

impl Wire {
    /// Checks that a listing ends: its next page is another page, and objects come now and then. A server may give
    /// some empty pages where many objects were deleted. `token` names the page.
    fn goes_on(&self, page: &str, token: Option<&str>) -> Result<(), Unusable> {
        let next = element(page, "NextContinuationToken");
        if next.is_some() && next.as_deref() == token {
            return Err(Unusable::Circular);
        }
        let mut emptied = self.emptied.lock().unwrap_or_else(PoisonError::into_inner);
        let before = token.and_then(|token| emptied.remove(token));
        let Some(next) = next.filter(|_| !page.contains("<Key>")) else {
            return Ok(());
        };
        let empty = before.unwrap_or(0) + 1;
        if empty >= self.empty_pages {
            return Err(Unusable::Empty(empty));
        }
        emptied.insert(next, empty);
        Ok(())
    }

    /// Sends a request and waits for the head of its answer. A failure after which the client sends the request again
    /// is told.
    async fn execute(
        &self,
        request: HttpRequest,
        limit: Duration,
    ) -> Result<HttpResponse, HttpError> {
        let begun = Instant::now();
        let name = format!("{} {}", request.method(), request.uri());
        let host = request.uri().authority().map(ToString::to_string);
        let answer = match tokio::time::timeout(limit, self.inner.execute(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Unusable::Silent(limit).error()),
        };
        let why = match &answer {
            Ok(response) => {
                let status = response.status();
                let again = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
                again.then(|| status.to_string())
            }
            Err(error) => why_not_sent(error),
        };
        match why {
            Some(why) => {
                let host = host.unwrap_or_default();
                self.retries.failed(&name, &host, begun, &why);
            }
            None => self.retries.answered(&name),
        }
        answer
    }
}

/// The kind of answer that a request asks for, as far as the size of the answer follows from it.
enum Asked {
    /// An object, or so many bytes of it.
    Object { bytes: Option<u64> },
    /// A page of a listing.
    Page { token: Option<String> },
    /// An answer about many keys.
    Keys,
    /// The answer of a service that speaks JSON.
    Call,
    /// An answer to a write.
    Write,
}

impl Asked {
    fn of(request: &HttpRequest) -> Self {
        let query = request.uri().query().unwrap_or_default();
        let pairs = || url::form_urlencoded::parse(query.as_bytes());
        match request.method().as_str() {
            "GET" if pairs().any(|(name, value)| name == "list-type" && value == "2") => {
                let mut tokens = pairs().filter(|(name, _)| name == "continuation-token");
                Self::Page {
                    token: tokens.next().map(|(_, token)| token.into_owned()),
                }
            }
            "GET" => {
                let range = request.headers().get("range");
                let range = range.and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
                let bytes = range.and_then(|range| {
                    let (from, to) = range.split_once('-')?;
                    let (from, to): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
                    to.checked_sub(from)?.checked_add(1)
                });
                Self::Object { bytes }
            }
            "POST" if pairs().any(|(name, _)| name == "delete") => Self::Keys,
            "POST" if request.headers().contains_key("x-amz-target") => Self::Call,
            _ => Self::Write,
        }
    }

    /// The most bytes of the answer. `told` is the length in its head.
    fn most(&self, told: Option<u64>) -> u64 {
        match self {
            Self::Object { bytes } => match (*bytes, told) {
                (Some(asked), Some(told)) => asked.min(told),
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => MOST_OF_ERROR,
            },
            Self::Page { .. } | Self::Keys | Self::Call => MOST_OF_PAGE,
            Self::Write => MOST_OF_ERROR,
        }
    }
}

/// The text of the first element with a name.
fn element(page: &str, name: &str) -> Option<String> {
    let (_, rest) = page.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(unescape(text))
}

/// A body that fails if it is too long, or if its next piece or all pieces together come too slowly.
struct Limited {
    body: HttpResponseBody,
    silence: Duration,
    most: u64,
    given: u64,
    /// The time that was spent waiting for pieces.
    waited: Duration,
    /// The beginning and the timer of the current wait. The timer runs only while a piece is awaited, so a slow
    /// reader cannot exhaust it.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Limited {
    /// The time that the answer may have taken until now.
    fn patience(&self) -> Duration {
        self.silence + Duration::from_secs(self.given / SLOWEST_DOWNLOAD)
    }
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
            if let Some((since, _)) = this.waiting.take() {
                this.waited += since.elapsed().min(this.silence);
            }
            let Some(Ok(frame)) = frame else {
                return Poll::Ready(frame);
            };
            this.given += frame.data_ref().map_or(0, |data| data.len() as u64);
            return Poll::Ready(Some(if this.given > this.most {
                Err(Unusable::Long(this.most).error())
            } else if this.waited > this.patience() {
                Err(Unusable::Slow(this.waited).error())
            } else {
                Ok(frame)
            }));
        }
        let silence = this.silence;
        let (_, timer) = this.waiting.get_or_insert_with(|| {
            let timer = Box::pin(tokio::time::sleep(silence));
            (Instant::now(), timer)
        });
        let silent = || Some(Err(Unusable::Silent(silence).error()));
        timer.as_mut().poll(cx).map(|()| silent())
    }
}

/// Whether the client keeps `key` as it is.
pub(super) fn representable(key: &str) -> bool {
    !key.starts_with(SPELT) && Path::parse(key).is_ok_and(|path| path.as_ref() == key)
}

/// The key that was spelt in this way; `None` if the text is no spelt key.
pub(super) fn unspell(key: &str) -> Option<String> {
    let bytes = hex::decode(key.strip_prefix(SPELT)?).ok()?;
    String::from_utf8(bytes).ok()
}

/// Replaces the keys that the client cannot represent in a page of ListObjectsV2.
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

/// Resolves the five XML entities and character references. All other text stays as it is.
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
