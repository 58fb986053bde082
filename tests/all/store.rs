//! The operations that the lake relies on, in memory, on disk and on S3, and the behaviour when S3 fails.

use crate::s3::{FaultKind, S3Server};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use rawmart::ledger::{self, LedgerError, State};
use rawmart::store::{
    ByteStream, Conditions, Object, Publish, Store, StoreErrorKind, StoreSettings,
};
use std::sync::Arc;
use std::time::Duration;

/// A root of some kind, with everything that keeps it alive.
struct Lake {
    store: Store,
    server: Option<S3Server>,
    folder: tempfile::TempDir,
}

fn settings(server: &S3Server) -> StoreSettings {
    StoreSettings {
        retry_for: Duration::from_secs(20),
        part_bytes: 5 * 1024 * 1024,
        aws: Some(server.aws()),
        ..StoreSettings::default()
    }
}

async fn on_disk() -> Lake {
    let folder = tempfile::tempdir().unwrap();
    let url = url::Url::from_directory_path(folder.path().join("a lake")).unwrap();
    let store = Store::open(url.as_str(), &StoreSettings::default()).await;
    Lake {
        store: store.unwrap(),
        server: None,
        folder,
    }
}

async fn in_memory() -> Lake {
    let settings = StoreSettings {
        memory: Some(Arc::default()),
        part_bytes: 5 * 1024 * 1024,
        ..StoreSettings::default()
    };
    let store = Store::open("memory://bucket/some/lake", &settings).await;
    Lake {
        store: store.unwrap(),
        server: None,
        folder: tempfile::tempdir().unwrap(),
    }
}

async fn on_s3() -> Lake {
    let server = S3Server::start(&["bucket"]);
    server.page(7);
    server.scramble_listings();
    let store = Store::open("s3://bucket/some/lake", &settings(&server)).await;
    Lake {
        store: store.unwrap(),
        server: Some(server),
        folder: tempfile::tempdir().unwrap(),
    }
}

async fn keys(store: &Store, prefix: &str) -> Vec<String> {
    let listing = store.list(prefix).await.unwrap();
    listing.objects.into_iter().map(|o| o.key).collect()
}

async fn text(store: &Store, key: &str) -> Option<String> {
    let bytes = store.read(key).await.unwrap()?;
    Some(String::from_utf8(bytes.to_vec()).unwrap())
}

/// One thing that the lake relies on, with its name.
type Part = (&'static str, fn(Lake) -> BoxFuture<'static, ()>);

macro_rules! on_all {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::in_memory().await).await })*
        }
        mod disk {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::on_disk().await).await })*
        }
        mod bucket {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::on_s3().await).await })*
        }
        const SUITE: &[Part] = &[$((stringify!($name), |lake| Box::pin($name(lake)))),*];
    };
}

on_all!(
    creates_with_one_winner,
    creates_the_same_content_again,
    publishes_and_replaces,
    publishes_once_among_many,
    lists_beyond_a_page,
    lists_more_than_a_server_lists_at_once,
    keeps_odd_keys,
    keeps_backslashes,
    refuses_keys_outside_the_root,
    reads_streams_and_ranges,
    uploads_small_and_large,
    deletes_what_is_there,
    lists_nothing_where_nothing_is,
);

async fn creates_with_one_winner(lake: Lake) {
    let tries = (0..16).map(|writer| {
        let store = lake.store.clone();
        tokio::spawn(async move {
            let bytes = Bytes::from(format!("writer {writer}"));
            let won = store.create("log/00000000000000000001", bytes).await;
            won.unwrap().map(|put| (writer, put.etag))
        })
    });
    let winners: Vec<_> = futures::future::join_all(tries)
        .await
        .into_iter()
        .filter_map(Result::unwrap)
        .collect();
    assert_eq!(winners.len(), 1, "{winners:?}");
    let (writer, etag) = &winners[0];
    let found = lake.store.head("log/00000000000000000001").await.unwrap();
    assert_eq!(found.unwrap().etag.as_ref(), Some(etag));
    assert_eq!(
        text(&lake.store, "log/00000000000000000001").await,
        Some(format!("writer {writer}"))
    );
    assert_eq!(
        keys(&lake.store, "").await,
        ["log/00000000000000000001"],
        "no left-overs"
    );
}

async fn creates_the_same_content_again(lake: Lake) {
    let first = lake.store.create("a", "one".into()).await.unwrap();
    assert!(first.is_some());
    assert_eq!(lake.store.create("a", "one".into()).await.unwrap(), first);
    assert_eq!(lake.store.create("a", "two".into()).await.unwrap(), None);
    assert_eq!(text(&lake.store, "a").await.as_deref(), Some("one"));
}

async fn publishes_and_replaces(lake: Lake) {
    let store = &lake.store;
    let target = "events/dt=2019-04-02/part-00000.parquet";
    for (key, content) in [("s/1/x", "version 1"), ("s/2/x", "version 2")] {
        assert!(store.create(key, content.into()).await.unwrap().is_some());
    }
    let Publish::Done(first) = store.publish("s/1/x", target, None).await.unwrap() else {
        panic!("a new name");
    };
    assert_eq!(text(store, target).await.as_deref(), Some("version 1"));
    let head = store.head(target).await.unwrap().unwrap();
    assert_eq!(head.etag.as_ref(), Some(&first.etag));
    // The commit is rolled forward once more.
    let again = store.publish("s/1/x", target, None).await.unwrap();
    assert_eq!(again, Publish::Done(first.clone()));

    let conflict = store.publish("s/2/x", target, None).await.unwrap();
    assert_eq!(conflict, Publish::Conflict);
    let conflict = store.publish("s/2/x", target, Some("\"other\"")).await;
    assert_eq!(conflict.unwrap(), Publish::Conflict);
    assert_eq!(text(store, target).await.as_deref(), Some("version 1"));

    let replaced = store.publish("s/2/x", target, Some(&first.etag)).await;
    let Publish::Done(second) = replaced.unwrap() else {
        panic!("the ETag is still the same");
    };
    assert_ne!(first.etag, second.etag);
    assert_eq!(text(store, target).await.as_deref(), Some("version 2"));
    let again = store.publish("s/2/x", target, Some(&first.etag)).await;
    assert_eq!(again.unwrap(), Publish::Done(second.clone()));

    // The target does not exist, or the staged object does not.
    let missing = store
        .publish("s/1/x", "events/new", Some(&first.etag))
        .await;
    assert_eq!(missing.unwrap(), Publish::Conflict);
    let gone = store.publish("s/3/x", target, Some(&second.etag)).await;
    assert_eq!(gone.unwrap(), Publish::StagedGone);
    assert_eq!(keys(store, "").await, [target, "s/1/x", "s/2/x"]);
    // A published object does not depend on its staged copy.
    store.delete(vec!["s/2/x".into()]).await.unwrap();
    assert_eq!(text(store, target).await.as_deref(), Some("version 2"));
}

async fn publishes_once_among_many(lake: Lake) {
    for writer in 0..8 {
        let key = format!("s/{writer}");
        let bytes = Bytes::from(format!("writer {writer}"));
        lake.store.create(&key, bytes).await.unwrap().unwrap();
    }
    let tries = (0..8).map(|writer| {
        let store = lake.store.clone();
        tokio::spawn(async move { store.publish(&format!("s/{writer}"), "t", None).await })
    });
    let done = futures::future::join_all(tries)
        .await
        .into_iter()
        .filter(|outcome| matches!(outcome, Ok(Ok(Publish::Done(_)))))
        .count();
    assert_eq!(done, 1);
}

async fn lists_beyond_a_page(lake: Lake) {
    let mut expected: Vec<String> = (0..40)
        .map(|n| format!("raw/{:02}/{}", n % 5, 39 - n))
        .collect();
    // These names have another order in a tree than by their bytes.
    expected.extend(["raw/01-x/a", "raw/01/a/b", "raw/01.txt", "raw2/a"].map(str::to_owned));
    for key in &expected {
        lake.store.create(key, key.clone().into()).await.unwrap();
    }
    expected.sort();
    let listing = lake.store.list("").await.unwrap();
    assert!(listing.unrepresentable.is_empty());
    for object in &listing.objects {
        assert_eq!(object.size, object.key.len() as u64);
        let head = lake.store.head(&object.key).await.unwrap();
        assert_eq!(head.as_ref(), Some(object));
    }
    assert_eq!(keys(&lake.store, "").await, expected);
    for prefix in ["raw/", "raw/01", "raw/01/", "raw/0", "ra", "raw/01/a"] {
        let below: Vec<_> = expected
            .iter()
            .filter(|key| key.starts_with(prefix))
            .cloned()
            .collect();
        assert_eq!(keys(&lake.store, prefix).await, below, "{prefix}");
    }
}

/// Servers list at most a thousand keys on each page, and some use an order of their own.
async fn lists_more_than_a_server_lists_at_once(lake: Lake) {
    let mut expected: Vec<String> = (0..1_050)
        .map(|n| format!("log/{:020}{}", n * 11 % 1_050, [".published", ""][n % 2]))
        .collect();
    futures::stream::iter(expected.clone())
        .map(|key| {
            let store = lake.store.clone();
            async move { store.create(&key, key.clone().into()).await.unwrap() }
        })
        .buffer_unordered(16)
        .for_each(|put| async move { assert!(put.is_some()) })
        .await;
    expected.sort();
    assert!(keys(&lake.store, "log/").await == expected);
    lake.store.delete(expected).await.unwrap();
    assert!(keys(&lake.store, "").await.is_empty());
}

const ODD_KEYS: [&str; 7] = [
    "t/dt=a%2Fb%3D c/part-00000.parquet",
    "t/dt=a+b/x",
    "t/dt=a%b/%",
    "t/Größe=ü/日本.json",
    "t/q?x=1&y='\"<>/a#b",
    "t/[a]{b}^`|~*!$(),;:@",
    "t/..a/.b/c..",
];

async fn keeps_odd_keys(lake: Lake) {
    for key in ODD_KEYS {
        let staged = format!("staged/{key}");
        lake.store.create(&staged, key.into()).await.unwrap();
        let put = lake.store.publish(&staged, key, None).await.unwrap();
        assert!(matches!(put, Publish::Done(_)), "{key}");
        assert_eq!(text(&lake.store, key).await.as_deref(), Some(key));
        assert!(lake.store.head(key).await.unwrap().is_some());
        let staged = vec![staged];
        lake.store.delete(staged).await.unwrap();
    }
    let mut expected = ODD_KEYS.map(str::to_owned);
    expected.sort();
    assert_eq!(keys(&lake.store, "").await, expected);
    assert_eq!(
        keys(&lake.store, "t/dt=a%2Fb%3D c/").await,
        ["t/dt=a%2Fb%3D c/part-00000.parquet"]
    );
    match &lake.server {
        Some(server) => {
            let full: Vec<_> = expected
                .iter()
                .map(|key| format!("some/lake/{key}"))
                .collect();
            assert_eq!(server.keys("bucket").into_iter().collect::<Vec<_>>(), full);
        }
        None if !lake.store.is_local() => {}
        None => {
            for key in ODD_KEYS {
                assert!(lake.folder.path().join("a lake").join(key).is_file());
            }
        }
    }
    // An engine finds the objects under the same names.
    let (_, client, prefix) = lake
        .store
        .object_store(&Default::default(), &Default::default());
    let key = "t/dt=a%2Fb%3D c/part-00000.parquet";
    let path = object_store::path::Path::parse(format!("{prefix}/{key}")).unwrap();
    let bytes = client.get(&path).await.unwrap().bytes().await.unwrap();
    assert_eq!(bytes, key);
    lake.store.delete(expected.to_vec()).await.unwrap();
    assert!(keys(&lake.store, "").await.is_empty());
}

/// SeaweedFS turns backslashes into slashes. No key of a lake has a backslash, because Hive escapes it.
async fn keeps_backslashes(lake: Lake) {
    let key = "t/back\\slash";
    lake.store.create(key, "x".into()).await.unwrap();
    assert_eq!(text(&lake.store, key).await.as_deref(), Some("x"));
    assert_eq!(keys(&lake.store, "").await, [key]);
}

async fn refuses_keys_outside_the_root(lake: Lake) {
    for key in ["", "../x", "a/../../x", "a//b", "/etc/passwd", "a/", "."] {
        let error = lake.store.create(key, "x".into()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Other, "{key:?}");
        assert!(lake.store.read(key).await.is_err(), "{key:?}");
        assert!(
            lake.store.delete(vec![key.into()]).await.is_err(),
            "{key:?}"
        );
    }
}

async fn reads_streams_and_ranges(lake: Lake) {
    let bytes: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
    let put = lake
        .store
        .create("big", bytes.clone().into())
        .await
        .unwrap();
    let (object, stream) = lake.store.get("big").await.unwrap();
    assert_eq!(object.etag, put.map(|put| put.etag));
    assert_eq!(object.size, 5_000_000);
    let pieces: Vec<Bytes> = stream.try_collect().await.unwrap();
    // In memory everything is there at once.
    let whole = lake.store.root().starts_with("memory:");
    assert!(whole || pieces.len() > 1, "in pieces");
    assert_eq!(pieces.concat(), bytes);
    let (_, client, prefix) = lake
        .store
        .object_store(&Default::default(), &Default::default());
    let path = object_store::path::Path::parse(format!("{prefix}/big")).unwrap();
    let range = client.get_range(&path, 1_000..1_010).await.unwrap();
    assert_eq!(range, bytes[1_000..1_010]);

    assert_eq!(lake.store.read("none").await.unwrap(), None);
    assert_eq!(lake.store.head("none").await.unwrap(), None);
    let error = lake.store.get("none").await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotFound);
    assert_eq!(error.url(), lake.store.url_of("none"));
}

async fn uploads_small_and_large(lake: Lake) {
    let local = lake.folder.path().join("local");
    for size in [0, 1, 5 * 1024 * 1024, 12 * 1024 * 1024 + 7] {
        let bytes: Vec<u8> = (0..size).map(|n: usize| (n % 253) as u8).collect();
        std::fs::write(&local, &bytes).unwrap();
        let put = lake.store.upload("up/x", &local).await.unwrap();
        // On disk the file was not copied.
        assert_eq!(local.exists(), lake.store.local_path("").is_none());
        let head = lake.store.head("up/x").await.unwrap().unwrap();
        assert_eq!(head.etag, Some(put.etag));
        assert_eq!(lake.store.read("up/x").await.unwrap().unwrap(), bytes);
        // Another file with the same name.
        std::fs::write(&local, "written afterwards").unwrap();
        assert_eq!(lake.store.read("up/x").await.unwrap().unwrap(), bytes);
    }
    let error = lake
        .store
        .upload("up/y", &lake.folder.path().join("no"))
        .await;
    assert_eq!(error.unwrap_err().kind(), StoreErrorKind::NotFound);
    assert_eq!(keys(&lake.store, "").await, ["up/x"]);
    assert_eq!(lake.server.map_or(0, |server| server.open_uploads()), 0);
}

async fn deletes_what_is_there(lake: Lake) {
    for key in ["a/b/c", "a/b/d", "a/e"] {
        lake.store.create(key, key.into()).await.unwrap();
    }
    let gone = ["a/b/c", "a/b/d", "never/was"].map(str::to_owned);
    lake.store.delete(gone.to_vec()).await.unwrap();
    lake.store.delete(gone.to_vec()).await.unwrap();
    lake.store.delete(Vec::new()).await.unwrap();
    assert_eq!(keys(&lake.store, "").await, ["a/e"]);
    if let Some(path) = lake.store.local_path("a/b") {
        assert!(!path.exists(), "no empty folders stay");
    }
}

async fn lists_nothing_where_nothing_is(lake: Lake) {
    assert!(keys(&lake.store, "").await.is_empty());
    assert!(keys(&lake.store, "events/").await.is_empty());
}

#[tokio::test]
async fn odd_objects_in_a_bucket_are_named_not_lost() {
    let server = S3Server::start(&["bucket"]);
    server.page(2);
    let odd = ["a//b", "a/./b", "a/../b", "dir/", "/lead", "tab\tkey"];
    server.put("bucket", "p/folder/", "");
    for key in odd.iter().chain(&["a/b", "dir/x"]) {
        server.put("bucket", &format!("p/{key}"), "x");
    }
    server.put("bucket", "p/", "the root's own marker");
    server.put("bucket", "p2/x", "not below the root");
    let store = Store::open("s3://bucket/p/", &settings(&server))
        .await
        .unwrap();
    let listing = store.list("").await.unwrap();
    let keys: Vec<_> = listing.objects.iter().map(|o| o.key.as_str()).collect();
    assert_eq!(keys, ["a/b", "dir/x"]);
    let mut odd = odd.to_vec();
    odd.sort_unstable();
    assert_eq!(listing.unrepresentable, odd);
    assert_eq!(listing.markers, ["folder/"]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn odd_files_on_disk_are_named_not_lost() {
    use std::os::unix::ffi::OsStrExt;
    let lake = on_disk().await;
    lake.store.create("a/b", "x".into()).await.unwrap();
    let root = lake.store.local_path("a").unwrap();
    std::fs::write(root.join("new\nline"), "x").unwrap();
    std::fs::write(root.join(std::ffi::OsStr::from_bytes(b"\xff")), "x").unwrap();
    std::os::unix::fs::symlink("nowhere", root.join("broken")).unwrap();
    std::os::unix::fs::symlink(&root, root.join("loop")).unwrap();
    std::fs::write(root.join(".rawmart-tmp-1-1"), "being written").unwrap();
    let listing = lake.store.list("").await.unwrap();
    assert_eq!(listing.objects.len(), 1);
    assert_eq!(listing.unrepresentable, ["a/new\nline", "a/\u{fffd}"]);
    // Behind these links there is nothing to read.
    assert_eq!(listing.no_files, ["a/broken"]);
    assert_eq!(listing.links, ["a/loop"]);
}

#[tokio::test]
async fn transient_errors_pass() {
    for kind in [
        FaultKind::SlowDown503,
        FaultKind::Internal500,
        FaultKind::CloseConnection,
    ] {
        let lake = on_s3().await;
        let server = lake.server.as_ref().unwrap();
        server.fail_next("*", "", 2, kind);
        let put = lake.store.create("a", "x".into()).await.unwrap();
        assert!(put.is_some(), "{kind:?}");
        server.fail_next("*", "", 1, kind);
        assert_eq!(keys(&lake.store, "").await, ["a"], "{kind:?}");
        server.fail_next("*", "", 1, kind);
        assert_eq!(text(&lake.store, "a").await.as_deref(), Some("x"));
        server.fail_next("*", "", 1, kind);
        lake.store.delete(vec!["a".into()]).await.unwrap();
    }
}

#[tokio::test]
async fn errors_without_end_are_unreachable() {
    let server = S3Server::start(&["bucket"]);
    let settings = StoreSettings {
        retry_for: Duration::from_millis(300),
        ..settings(&server)
    };
    let store = Store::open("s3://bucket/lake/", &settings).await.unwrap();
    server.fail_next("*", "", usize::MAX, FaultKind::SlowDown503);
    let error = store.list("raw/").await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unreachable);
    assert_eq!(
        error.to_string(),
        "listing s3://bucket/lake/raw/: no usable answer (503 SlowDown: Please reduce your request rate.)"
    );
    assert!(error.hint().is_some());
    let error = store.create("a", "x".into()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unreachable, "{error}");
    assert!(error.to_string().contains("s3://bucket/lake/a"), "{error}");

    server.heal();
    assert!(keys(&store, "").await.is_empty());
    drop(server);
    let error = store.list("").await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unreachable, "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn wrong_keys_are_denied_without_being_told() {
    let server = S3Server::start(&["bucket"]);
    for (access, secret) in [("test", "WRONGSECRET"), ("AKIAUNKNOWN", "WRONGSECRET")] {
        let settings = StoreSettings {
            aws: Some(server.aws_with(access, secret)),
            ..settings(&server)
        };
        let store = Store::open("s3://bucket/", &settings).await.unwrap();
        for error in [
            store.list("").await.unwrap_err(),
            store.create("a", "x".into()).await.unwrap_err(),
            store.read("a").await.unwrap_err(),
            store
                .delete(vec!["a".into(), "b".into()])
                .await
                .unwrap_err(),
        ] {
            assert_eq!(error.kind(), StoreErrorKind::Denied, "{error}");
            let told = format!("{error} {error:?}");
            assert!(!told.contains("WRONGSECRET"), "{told}");
            assert!(!told.contains("AKIAUNKNOWN"), "{told}");
            assert!(!told.to_lowercase().contains("signature="), "{told}");
        }
    }
}

#[tokio::test]
async fn no_credentials_say_what_to_set() {
    let none = aws_config::SdkConfig::builder()
        .region(aws_config::Region::new("us-east-1"))
        .build();
    let settings = StoreSettings {
        aws: Some(none),
        ..StoreSettings::default()
    };
    let error = Store::open("s3://bucket/x/", &settings).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NoCredentials);
    assert_eq!(
        error.to_string(),
        "opening s3://bucket/x/: no AWS credentials found"
    );
    assert!(error.hint().unwrap().contains("AWS_PROFILE"));
}

#[tokio::test]
async fn a_missing_bucket_is_an_error() {
    let server = S3Server::start(&["bucket"]);
    let store = Store::open("s3://no-bucket/x/", &settings(&server)).await;
    let store = store.unwrap();
    for error in [
        store.list("").await.unwrap_err(),
        store.read("a").await.unwrap_err(),
        store.create("a", "x".into()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::MissingBucket, "{error}");
    }
}

#[tokio::test]
async fn a_lost_answer_does_not_lose_the_win() {
    for kind in [FaultKind::AppliedThen500, FaultKind::AppliedThenClose] {
        let lake = on_s3().await;
        let server = lake.server.as_ref().unwrap();
        server.fail_next("PutObject", "log/1", 1, kind);
        let won = lake.store.create("log/1", "mine".into()).await.unwrap();
        let etag = won.expect("our own first try has won").etag;
        let head = lake.store.head("log/1").await.unwrap().unwrap();
        assert_eq!(head.etag, Some(etag));
        let lost = lake.store.create("log/1", "theirs".into()).await.unwrap();
        assert_eq!(lost, None);

        lake.store.create("s/1", "v1".into()).await.unwrap();
        lake.store.create("s/2", "v2".into()).await.unwrap();
        server.fail_next("PutObject", "/t", 1, kind);
        let Publish::Done(first) = lake.store.publish("s/1", "t", None).await.unwrap() else {
            panic!("{kind:?}");
        };
        server.fail_next("PutObject", "/t", 1, kind);
        let second = lake.store.publish("s/2", "t", Some(&first.etag)).await;
        assert!(matches!(second, Ok(Publish::Done(_))), "{kind:?}");
        assert_eq!(text(&lake.store, "t").await.as_deref(), Some("v2"));
    }
}

#[tokio::test]
async fn publishes_from_a_local_file_or_else_from_what_is_staged() {
    let lake = on_s3().await;
    let server = lake.server.as_ref().unwrap();
    let local = lake.folder.path().join("local");
    std::fs::write(&local, "staged").unwrap();
    lake.store.upload("s/1", &local).await.unwrap();
    let reads = || {
        let log = server.log();
        log.iter()
            .filter(|(op, key)| op == "GetObject" && key.ends_with("/s/1"))
            .count()
    };
    let publish = async |target| {
        let put = lake.store.publish_from(Some(&local), "s/1", target, None);
        put.await.unwrap()
    };
    assert!(matches!(publish("a").await, Publish::Done(_)));
    assert_eq!(reads(), 0);
    std::fs::remove_file(&local).unwrap();
    assert!(matches!(publish("b").await, Publish::Done(_)));
    assert_eq!(reads(), 1);
    for key in ["a", "b"] {
        assert_eq!(text(&lake.store, key).await.as_deref(), Some("staged"));
    }
    lake.store.delete(vec!["s/1".into()]).await.unwrap();
    assert_eq!(publish("c").await, Publish::StagedGone);
}

#[tokio::test]
async fn an_upload_in_parts_survives_a_lost_end() {
    let lake = on_s3().await;
    let server = lake.server.as_ref().unwrap();
    let local = lake.folder.path().join("local");
    std::fs::write(&local, vec![7u8; 11 * 1024 * 1024]).unwrap();
    server.fail_next("UploadPart", "", 1, FaultKind::SlowDown503);
    server.fail_next("CompleteMultipartUpload", "", 1, FaultKind::AppliedThen500);
    lake.store.upload("x", &local).await.unwrap();
    assert_eq!(
        server.objects("bucket")["some/lake/x"].len(),
        11 * 1024 * 1024
    );
    assert_eq!(server.open_uploads(), 0);
}

#[tokio::test]
async fn a_denied_upload_leaves_no_parts() {
    let lake = on_s3().await;
    let server = lake.server.as_ref().unwrap();
    let local = lake.folder.path().join("local");
    std::fs::write(&local, vec![7u8; 11 * 1024 * 1024]).unwrap();
    server.fail_next("UploadPart", "", 1, FaultKind::AccessDenied403);
    let error = lake.store.upload("x", &local).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Denied, "{error}");
    assert_eq!(server.open_uploads(), 0);
    assert!(server.objects("bucket").is_empty());
}

/// An object in a bucket that is open for reading. The client has no time left to try again.
async fn held_open(server: &S3Server) -> (Object, ByteStream) {
    let settings = StoreSettings {
        retry_for: Duration::ZERO,
        ..settings(server)
    };
    let store = Store::open("s3://bucket/", &settings).await.unwrap();
    store.get("a").await.unwrap()
}

fn megabytes(count: usize) -> Vec<u8> {
    (0..count << 20)
        .map(|i| (i / 7 + i / 1_031) as u8)
        .collect()
}

#[tokio::test]
async fn a_download_goes_on_where_its_connection_broke() {
    let server = S3Server::start(&["bucket"]);
    server.put("bucket", "a", megabytes(4));
    server.fail_next("GetObject", "a", 5, FaultKind::BreakBody);
    let (object, pieces) = held_open(&server).await;
    let read = pieces.try_collect::<Vec<_>>().await.unwrap().concat();
    assert_eq!(object.size, 4 << 20);
    assert!(read == megabytes(4));
    assert_eq!(server.log().len(), 6, "{:?}", server.log());

    server.fail_next("GetObject", "a", 3, FaultKind::BreakBody);
    let store = Store::open("s3://bucket/", &settings(&server)).await;
    let read = store.unwrap().read("a").await.unwrap().unwrap();
    assert!(read == megabytes(4));
}

#[tokio::test]
async fn a_download_that_brings_nothing_more_ends() {
    let server = S3Server::start(&["bucket"]);
    server.put("bucket", "a", "xy");
    server.fail_next("GetObject", "a", usize::MAX, FaultKind::BreakBody);
    let (_, pieces) = held_open(&server).await;
    let error = pieces.try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unreachable, "{error}");
    assert!(error.to_string().contains("s3://bucket/a"), "{error}");
    assert!(server.log().len() < 5, "{:?}", server.log());
}

#[tokio::test]
async fn an_object_that_changes_while_it_is_read_is_told() {
    let server = S3Server::start(&["bucket"]);
    for change in ["replaced", "removed"] {
        server.put("bucket", "a", megabytes(4));
        server.fail_next("GetObject", "a", 1, FaultKind::BreakBody);
        let (_, mut pieces) = held_open(&server).await;
        assert!(pieces.try_next().await.unwrap().is_some());
        let part = match change {
            "replaced" => {
                server.put("bucket", "a", megabytes(5));
                "s3://bucket/a: the object changed while it was read"
            }
            _ => {
                server.remove("bucket", "a");
                "no such object"
            }
        };
        let error = pieces.try_collect::<Vec<_>>().await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn few_permits_do_not_starve_open_readers() {
    let server = S3Server::start(&["bucket"]);
    let settings = StoreSettings {
        concurrency: 1,
        ..settings(&server)
    };
    let store = Store::open("s3://bucket/", &settings).await.unwrap();
    server.put("bucket", "a", vec![1u8; 8 * 1024 * 1024]);
    let (_, open) = store.get("a").await.unwrap();
    assert!(store.create("b", "x".into()).await.unwrap().is_some());
    assert_eq!(
        open.try_collect::<Vec<_>>().await.unwrap().concat().len(),
        8 << 20
    );
}

#[tokio::test]
async fn one_writer_holds_a_lake_on_disk() {
    let lake = on_disk().await;
    let held = lake.store.lock("_rawmart/lock").await.unwrap();
    assert!(held.is_some());
    assert!(lake.store.lock("_rawmart/lock").await.unwrap().is_none());
    drop(held);
    assert!(lake.store.lock("_rawmart/lock").await.unwrap().is_some());
}

/// The remains of a killed process belong to nobody. The next lock deletes them, and no listing has them.
#[tokio::test]
async fn what_a_killed_process_was_writing_goes() {
    let lake = on_disk().await;
    let store = &lake.store;
    let root = store.local_path("").unwrap();
    let local = lake.folder.path().join("local");
    std::fs::write(&local, "y").unwrap();
    store.create("log/1", "x".into()).await.unwrap();
    store.upload("staged", &local).await.unwrap();
    store.publish("staged", "t/a", None).await.unwrap();
    let left = root.join(".rawmart-tmp/1-1");
    std::fs::write(&left, "half").unwrap();
    assert_eq!(keys(store, "").await, ["log/1", "staged", "t/a"]);
    let held = store.lock("lock").await.unwrap();
    assert!(held.is_some() && !left.exists());
    // A process that does not get the lock does not touch the files that its holder is writing.
    store.create("log/2", "x".into()).await.unwrap();
    std::fs::write(&left, "being written").unwrap();
    assert!(store.lock("lock").await.unwrap().is_none());
    assert!(left.exists());
}

/// A file on another file system cannot become the object itself.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_file_of_another_file_system_is_copied() {
    let lake = on_disk().await;
    let local = std::path::Path::new("/proc/version");
    lake.store.upload("x", local).await.unwrap();
    let read = lake.store.read("x").await.unwrap();
    assert_eq!(read.unwrap(), std::fs::read(local).unwrap());
    assert!(local.exists());
}

/// A file of another group cannot become the object either, if the lake's folder decides the group of its
/// files.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn files_of_a_shared_lake_are_of_its_group() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let lake = on_disk().await;
    let root = lake.store.local_path("").unwrap();
    std::fs::create_dir_all(&root).unwrap();
    let local = lake.folder.path().join("local");
    std::fs::write(&local, "x").unwrap();
    let group = std::fs::metadata(&local).unwrap().gid() + 1;
    if chown(&root, None, Some(group)).is_err() {
        // Only root may give a folder to any group.
        return;
    }
    std::fs::set_permissions(&root, PermissionsExt::from_mode(0o2775)).unwrap();
    lake.store.upload("x", &local).await.unwrap();
    let made = std::fs::metadata(root.join("x")).unwrap();
    assert_eq!(made.gid(), group);
}

#[tokio::test]
async fn files_where_folders_are_needed_are_told() {
    let lake = on_disk().await;
    lake.store.create("a", "x".into()).await.unwrap();
    let error = lake.store.create("a/b", "x".into()).await.unwrap_err();
    assert!(error.to_string().contains("file where a folder"), "{error}");
    let file = url::Url::from_file_path(lake.store.local_path("a").unwrap()).unwrap();
    let error = Store::open(file.as_str(), &StoreSettings::default()).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("file where a folder"), "{error}");
}

#[tokio::test]
async fn urls_that_are_no_roots_are_refused() {
    for url in [
        "gs://b/x",
        "s3://",
        "lake",
        "s3://key:secret@bucket/x",
        "s3://b/a//b",
    ] {
        let error = Store::open(url, &StoreSettings::default())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::BadUrl, "{url}");
        assert!(!format!("{error} {error:?}").contains("secret@"), "{url}");
    }
}

#[tokio::test]
async fn publishing_reads_then_puts_and_deletes_nothing() {
    let lake = on_s3().await;
    let server = lake.server.as_ref().unwrap();
    lake.store.create("s", "x".into()).await.unwrap();
    server.clear_log();
    lake.store.publish("s", "t", None).await.unwrap();
    let expected = [("GetObject", "some/lake/s"), ("PutObject", "some/lake/t")];
    assert_eq!(
        server.log(),
        expected.map(|(op, key)| (op.to_owned(), key.to_owned()))
    );
    server.remove("bucket", "some/lake/s");
    let gone = lake.store.publish("s", "t", None).await.unwrap();
    assert_eq!(gone, Publish::StagedGone);
}

/// The probe gives the right answer whatever happens to its requests.
#[tokio::test]
async fn conditions_are_seen_through() {
    let faults = [
        None,
        Some(FaultKind::SlowDown503),
        Some(FaultKind::Internal500),
        Some(FaultKind::CloseConnection),
        Some(FaultKind::AppliedThen500),
        Some(FaultKind::AppliedThenClose),
    ];
    for (create, replace) in [(true, true), (false, true), (true, false), (false, false)] {
        for fault in faults {
            // The fault comes at each of the three writes in turn.
            for at in 0..3 {
                let lake = on_s3().await;
                let server = lake.server.as_ref().unwrap();
                if !create {
                    server.ignore_if_none_match();
                }
                if !replace {
                    server.ignore_if_match();
                }
                if let Some(kind) = fault {
                    server.fail_after("PutObject", "try", at, kind);
                }
                let found = lake.store.try_conditions("try").await.unwrap();
                let expected = Conditions { create, replace };
                assert_eq!(found, expected, "{fault:?} at {at}");
                assert_eq!(keys(&lake.store, "").await, Vec::<String>::new());
            }
        }
    }
    let found = on_disk().await.store.try_conditions("a/try").await.unwrap();
    assert!(found.create && found.replace);
}

/// Runs that probe at the same time find the same, and leave one object with the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probing_at_once() {
    for good in [true, false] {
        let lake = on_s3().await;
        let server = lake.server.as_ref().unwrap();
        if !good {
            server.ignore_if_none_match();
        }
        let probes = (0..8).map(|n| {
            let store = lake.store.clone();
            tokio::spawn(async move {
                let state = State::open(&store).await.unwrap();
                ledger::probe(&store, &state, &format!("run{n}"), false).await
            })
        });
        for probed in futures::future::join_all(probes).await {
            match probed.unwrap() {
                Ok(()) => assert!(good),
                Err(LedgerError::Unconditional { ignored, .. }) => {
                    assert!(!good);
                    assert_eq!(ignored, "If-None-Match");
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(keys(&lake.store, "").await, ["_rawmart/probe"]);
        let found = text(&lake.store, "_rawmart/probe").await.unwrap();
        let expected = format!(
            "{{\"format\":4,\"refuses_second_create\":{good},\"refuses_wrong_etag\":true,\"seal\":\""
        );
        assert!(found.starts_with(&expected), "{found}");
        // The answer is final, and nothing is tried again.
        server.clear_log();
        let state = State::open(&lake.store).await.unwrap();
        let again = ledger::probe(&lake.store, &state, "later", false).await;
        assert_eq!(again.is_ok(), good);
        assert!(server.log().iter().all(|(op, _)| op != "PutObject"));
        let vouched = ledger::probe(&lake.store, &state, "later", true).await;
        assert!(vouched.is_ok());
    }
}

/// The suite on a server that runs elsewhere. At the end it names every part that does not hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: AWS_ENDPOINT_URL, credentials, and CONFORMANCE_BUCKET, which exists"]
async fn conformance_of_an_external_server() {
    #[expect(
        clippy::disallowed_methods,
        reason = "no configuration names this bucket"
    )]
    let bucket = std::env::var("CONFORMANCE_BUCKET").unwrap();
    let run: u64 = rand::random();
    let mut failed = Vec::new();
    for (name, part) in SUITE {
        let root = format!("s3://{bucket}/conformance-{run:x}/{name}");
        let lake = Lake {
            store: Store::open(&root, &StoreSettings::default()).await.unwrap(),
            server: None,
            folder: tempfile::tempdir().unwrap(),
        };
        if tokio::spawn(part(lake)).await.is_err() {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "does not hold: {}", failed.join(", "));
}
