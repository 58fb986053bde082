//! Servers whose answers are longer than asked for, or never end. An answer is bounded by its size and by its
//! speed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use rawmart::store::{Store, StoreError, StoreErrorKind, StoreSettings};

/// Answers a request with this head, in lower case. The connection is closed afterwards.
type Answer = dyn Fn(&str, &mut TcpStream) -> std::io::Result<()> + Send + Sync;

/// A server that answers every request in one way.
struct Server {
    endpoint: String,
}

impl Server {
    fn start(
        answer: impl Fn(&str, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let answer: Arc<Answer> = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(mut stream), answer) = (stream, Arc::clone(&answer)) else {
                    return;
                };
                std::thread::spawn(move || {
                    let mut request = BufReader::new(stream.try_clone().unwrap());
                    let mut head = String::new();
                    while request.read_line(&mut head).is_ok_and(|read| read > 2) {}
                    // The client closes its end when it has read enough.
                    let _ = answer(&head.to_lowercase(), &mut stream);
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                });
            }
        });
        Self { endpoint }
    }

    async fn store(&self) -> Store {
        let keys = aws_credential_types::Credentials::new("k", "s", None, None, "t");
        let keys = aws_credential_types::provider::SharedCredentialsProvider::new(keys);
        let settings = StoreSettings {
            retry_for: Duration::from_secs(1),
            silence: Duration::from_secs(1),
            listing_bytes: 4 << 20,
            empty_pages: 20,
            aws: Some(
                aws_config::SdkConfig::builder()
                    .endpoint_url(&self.endpoint)
                    .credentials_provider(keys)
                    .build(),
            ),
            ..StoreSettings::default()
        };
        Store::open("s3://bucket/raw/", &settings).await.unwrap()
    }
}

const TIMES: &str = "ETag: \"e\"\r\nLast-Modified: Mon, 01 Apr 2019 00:00:00 GMT\r\n";

/// Sends bytes in chunks without an end, and counts the bytes that were taken.
fn for_ever(head: &str, taken: &AtomicU64, out: &mut TcpStream) -> std::io::Result<()> {
    write!(
        out,
        "HTTP/1.1 {head}\r\n{TIMES}Transfer-Encoding: chunked\r\n\r\n"
    )?;
    let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
    loop {
        out.write_all(&chunk)?;
        taken.fetch_add(0x10000, Ordering::Relaxed);
    }
}

/// Asserts that the work fails within some seconds, with these words.
async fn fails<T>(work: impl Future<Output = Result<T, StoreError>>, words: &str) {
    let begun = Instant::now();
    let error = match tokio::time::timeout(Duration::from_secs(30), work).await {
        Ok(Err(error)) => error,
        Ok(Ok(_)) => panic!("it is well"),
        Err(_) => panic!("it does not end"),
    };
    assert!(error.to_string().contains(words), "{error}");
    assert_eq!(error.kind(), StoreErrorKind::Unreachable, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{begun:?}");
}

/// Reads a whole object.
async fn download(store: &Store) -> Result<u64, StoreError> {
    let (_, pieces) = store.get("a").await?;
    let sizes = pieces.map_ok(|piece| piece.len() as u64);
    sizes
        .try_fold(0, |all, size| async move { Ok(all + size) })
        .await
}

#[tokio::test]
async fn an_answer_without_end_is_not_taken() {
    for head in ["200 OK", "403 Forbidden", "404 Not Found", "503 Slow Down"] {
        let taken = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&taken);
        let server = Server::start(move |_, out| for_ever(head, &counted, out));
        let store = server.store().await;
        let errors = [
            store.list("").await.err(),
            store.read("a").await.err(),
            store.head("b").await.err(),
            store.delete(vec!["c".into()]).await.err(),
            download(&store).await.err(),
        ];
        // A server that answers 404 says that there is no object.
        let none = errors.iter().filter(|error| error.is_none()).count();
        assert!(none == 0 || head == "404 Not Found", "{head}: {errors:?}");
        let _ = store.create("d", "x".into()).await;
        // Sockets buffer some megabytes each.
        let taken = taken.load(Ordering::Relaxed) >> 20;
        assert!(taken < 300, "{head}: {taken} MiB");
    }
}

#[tokio::test]
async fn a_range_is_no_longer_than_it_was_asked_for() {
    let server = Server::start(|_, out| {
        let head = "206 Partial Content\r\nContent-Range: bytes 0-9/10";
        for_ever(head, &AtomicU64::new(0), out)
    });
    let store = server.store().await;
    assert!(store.range("a", None, 0..10).await.is_err());
}

#[tokio::test]
async fn a_byte_now_and_then_is_no_answer() {
    // Without a limit each of these would take hours.
    let trickle = |head: &'static str| {
        move |request: &str, out: &mut TcpStream| {
            let range = request.split("range: bytes=").nth(1);
            let from = range.and_then(|range| range.split('-').next());
            let from: usize = from.and_then(|from| from.parse().ok()).unwrap_or(0);
            let head = match from {
                0 => head.to_owned(),
                _ => format!("206 Partial Content\r\nContent-Range: bytes {from}-99999/100000"),
            };
            let length = 100_000 - from;
            write!(
                out,
                "HTTP/1.1 {head}\r\n{TIMES}Content-Length: {length}\r\n\r\n"
            )?;
            loop {
                out.write_all(b"x")?;
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    };
    let server = Server::start(trickle("200 OK"));
    let store = server.store().await;
    fails(store.list(""), "less than 1024 bytes a second").await;
    fails(download(&store), "less than 1024 bytes a second").await;
    let server = Server::start(trickle("500 Internal Server Error"));
    fails(
        server.store().await.list(""),
        "less than 1024 bytes a second",
    )
    .await;
}

#[tokio::test]
async fn a_listing_that_leads_back_to_itself_ends() {
    let server = Server::start(|_, out| {
        let page = "<ListBucketResult><Name>bucket</Name><IsTruncated>true</IsTruncated>\
                    <NextContinuationToken>again</NextContinuationToken><Contents><Key>raw/a</Key>\
                    <LastModified>2019-04-01T00:00:00.000Z</LastModified><Size>1</Size></Contents>\
                    </ListBucketResult>";
        let length = page.len();
        write!(
            out,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{page}"
        )
    });
    fails(server.store().await.list(""), "does not go on").await;
}

#[tokio::test]
async fn a_listing_of_ever_new_pages_ends_within_its_memory() {
    let pages = Arc::new(AtomicU64::new(0));
    let given = Arc::clone(&pages);
    let server = Server::start(move |_, out| {
        let page = given.fetch_add(1, Ordering::Relaxed);
        let key = |n: u64| {
            format!(
                "<Contents><Key>raw/{page:09}/{n:090}</Key><LastModified>2019-04-01T00:00:00.000Z</LastModified>\
                 <Size>1</Size></Contents>"
            )
        };
        let keys: String = (0..1_000).map(key).collect();
        let page = format!(
            "<ListBucketResult><Name>bucket</Name><IsTruncated>true</IsTruncated>\
             <NextContinuationToken>{page}</NextContinuationToken>{keys}</ListBucketResult>"
        );
        let length = page.len();
        write!(
            out,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{page}"
        )
    });
    let store = server.store().await;
    for listing in [store.list("").await, store.list_after("0").await] {
        let error = listing.unwrap_err();
        let said = error.to_string();
        assert!(
            said.starts_with("listing s3://bucket/raw/: the first "),
            "{said}"
        );
        assert!(said.contains("objects take more than 4 MiB"), "{said}");
        assert!(error.hint().unwrap().contains("`--memory`"), "{error:?}");
    }
    // A key of 104 bytes takes 160 to 200 bytes in memory, and some pages are requested ahead.
    let pages = pages.load(Ordering::Relaxed);
    assert!((30..80).contains(&pages), "{pages}");
}

/// Gives a page of a listing that `keys` are on, and that `next` follows.
fn page(keys: &str, next: Option<u64>, out: &mut TcpStream) -> std::io::Result<()> {
    let more = next.map_or("<IsTruncated>false</IsTruncated>".to_owned(), |next| {
        format!(
            "<IsTruncated>true</IsTruncated><NextContinuationToken>{next}</NextContinuationToken>"
        )
    });
    let page = format!("<ListBucketResult><Name>bucket</Name>{more}{keys}</ListBucketResult>");
    let length = page.len();
    write!(
        out,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{page}"
    )
}

#[tokio::test]
async fn a_listing_of_ever_new_pages_without_an_object_ends() {
    let pages = Arc::new(AtomicU64::new(0));
    let given = Arc::clone(&pages);
    let server = Server::start(move |_, out| {
        let next = given.fetch_add(1, Ordering::Relaxed) + 1;
        page("", Some(next), out)
    });
    let store = server.store().await;
    let words = "20 pages one after the other have no object";
    fails(store.list(""), words).await;
    fails(store.list_after("0"), words).await;
    fails(store.list("folder/"), words).await;
    let pages = pages.load(Ordering::Relaxed);
    assert!((60..70).contains(&pages), "{pages}");
}

#[tokio::test]
async fn a_listing_with_some_pages_without_an_object_is_whole() {
    // Nineteen empty pages, a page with an object, and so on.
    let server = Server::start(|request, out| {
        let token = request.split("continuation-token=").nth(1);
        let token = token.and_then(|token| token.split(['&', ' ']).next());
        let number: u64 = token.and_then(|token| token.parse().ok()).unwrap_or(0);
        let key = format!(
            "<Contents><Key>raw/{number:03}</Key><LastModified>2019-04-01T00:00:00.000Z</LastModified><Size>1</Size>\
             </Contents>"
        );
        let keys = if number % 20 == 19 { &key } else { "" };
        page(keys, Some(number + 1).filter(|next| *next < 100), out)
    });
    let listing = server.store().await.list("").await.unwrap();
    let keys: Vec<&str> = listing.objects.iter().map(|o| o.key.as_str()).collect();
    assert_eq!(keys, ["019", "039", "059", "079", "099"]);
}

#[tokio::test]
async fn an_object_that_cannot_belong_there_is_not_read() {
    let server = Server::start(|request, out| {
        write!(
            out,
            "HTTP/1.1 200 OK\r\n{TIMES}Content-Length: 99999999999999\r\n\r\n"
        )?;
        if request.starts_with("get") {
            std::io::copy(&mut std::io::repeat(b'x').take(1 << 30), out)?;
        }
        Ok(())
    });
    let error = server.store().await.read("a").await.unwrap_err();
    let words =
        "reading s3://bucket/raw/a: it has 99999999999999 bytes, and a valid object there has";
    assert!(error.to_string().starts_with(words), "{error}");
}
