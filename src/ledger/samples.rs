//! Samples of every format. They must be readable for ever, with the meaning that every field had.
//!
//! `samples/1.commit.json` and `1.published.json` are of format 1, `2.*` of format 2, `2.sealed.*` with seals;
//! `2.checkpoint.parquet` is the checkpoint after the commit of format 2. `2.written.commit.json` has the
//! bytes that were written last in format 2, `3.written.*` those of format 3. `4.written.*` have the bytes that are
//! written today.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::event::{ColumnType, PartitionBy, Reason, Slicing};
use crate::layout;
use crate::store::{Store, StoreSettings};
use crate::time::{TimeUnit, Zone};

const RUN: &str = "20261124T040833Z-f20851d5";
const SEOUL: Zone = Zone(chrono_tz::Asia::Seoul);

async fn open(files: &[(String, &'static [u8])]) -> State {
    let folder = tempfile::tempdir().unwrap();
    let url = url::Url::from_directory_path(folder.path()).unwrap();
    let store = Store::open(url.as_str(), &StoreSettings::default())
        .await
        .unwrap();
    for (key, bytes) in files {
        let put = store.create(key, Bytes::from_static(bytes)).await;
        assert!(put.unwrap().is_some());
    }
    State::open(&store).await.unwrap()
}

fn column(name: &str, kind: ColumnType, path: &[&str]) -> ColumnSettings {
    ColumnSettings {
        name: name.to_owned(),
        kind,
        path: path.iter().map(|part| (*part).to_owned()).collect(),
        default: None,
        required: false,
        paths: BTreeMap::new(),
        coerce: false,
        time_formats: Vec::new(),
    }
}

fn rule(name: &str, key: &[&str], within_ms: i64) -> RuleSettings {
    RuleSettings {
        name: name.to_owned(),
        key: key.iter().map(|part| (*part).to_owned()).collect(),
        when: None,
        within_ms,
        mode: RuleMode::Throttle,
        since: None,
        until: None,
    }
}

fn date(text: &str) -> chrono::NaiveDate {
    text.parse().unwrap()
}

fn settings() -> Settings {
    Settings {
        decode: DecodeSettings {
            columns: vec![
                ColumnSettings {
                    required: true,
                    ..column("event_id", ColumnType::String, &["event_id"])
                },
                column("event_time", ColumnType::Timestamp, &["event_time"]),
                ColumnSettings {
                    default: Some("unknown".into()),
                    ..column("os", ColumnType::String, &["device", "os"])
                },
            ],
            event_time: "event_time".to_owned(),
            unit: TimeUnit::Ms,
            naive_timezone: Some(SEOUL),
            epoch_timezone: None,
            accept: AcceptSettings {
                from_ms: 1_262_271_600_000,
                ahead_ms: 86_400_000,
            },
            on_type_error: TypeErrorSetting::Reject,
            record_sha256: false,
            limits: LimitSettings {
                max_record_bytes: 16_777_216,
                max_object_bytes: 4_294_967_296,
                max_depth: 128,
            },
            unwrap: Vec::new(),
        },
        rules: vec![
            RuleSettings {
                since: Some(date("2019-04-01")),
                until: Some(date("2019-12-31")),
                ..rule("redelivery", &["event_id"], 600_000)
            },
            RuleSettings {
                when: Some("event_type = 'click'".to_owned()),
                ..rule("double_click", &["user_id", "target", "page"], 1_000)
            },
        ],
        slicing: Slicing {
            timezone: SEOUL,
            by: PartitionBy::Day,
            slice_ms: 86_400_000,
        },
        layout: Some("%Y/%m/%d/%H/".to_owned()),
        layout_timezone: Zone(chrono_tz::UTC),
        stale_rules: vec![Dates {
            from: date("2019-04-01"),
            to: date("2019-04-02"),
        }],
        stale_columns: vec![Dates {
            from: date("2019-03-01"),
            to: date("2019-03-31"),
        }],
        unfilled: None,
    }
}

fn sha256(text: &str) -> Sha256 {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).unwrap();
    Sha256(bytes)
}

/// The content that both formats can express. Format 1 has no `settings`, no `forgotten` and no `times` of
/// objects.
fn sample() -> Commit {
    let staged = |key: &str| format!("_rawmart/staging/{:020}-{RUN}/{key}", 1);
    let objects = vec![
        ObjectEntry {
            key: "2019/04/01/11/app-events-1-2019-04-01-11-05-00-124d4beb-1ba0-2f3b-8318-\
                  73fcbb919fc4.gz"
                .to_owned(),
            etag: Some("51c17b-18eade8af789af88-1ac6".to_owned()),
            size: 6_854,
            sha256: sha256("984ebf822004988e6f77849d9b332d57c41824ccfa4700ce967daedd76f08b14"),
            arrival_ms: 1_554_120_000_000,
            records: 259,
            events: 258,
            rejects: BTreeMap::from([(Reason::NotJson, 1)]),
            times: Some((1_554_116_384_052, 1_554_119_969_487)),
        },
        ObjectEntry {
            key: "2019/03/31/23/app-events-1-2019-03-31-23-05-00-d152716d-7932-c10a-cb2e-\
                  31e4c22d3380.gz"
                .to_owned(),
            etag: None,
            size: 7_004,
            sha256: sha256("b2b5847088f8191cbe3bf757fbbf75eb40da5fbb4e68ca0169889b855f1da069"),
            arrival_ms: 1_554_076_800_000,
            records: 262,
            events: 262,
            rejects: BTreeMap::new(),
            times: Some((1_554_073_354_239, 1_554_076_742_672)),
        },
    ];
    let source = SourceDelta {
        rebuilt: None,
        settings: Some(settings()),
        anew: false,
        objects,
        forgotten: vec!["2019/04/01/09/gone.gz".to_owned()],
        dropped: Vec::new(),
        balance: Balance {
            records: 7_364,
            events: 7_354,
            kept: 7_135,
            duplicates: BTreeMap::from([
                ("double_click".to_owned(), 126),
                ("redelivery".to_owned(), 93),
            ]),
            rejects: BTreeMap::from([
                (Reason::NotJson, 3),
                (Reason::Type, 1),
                (Reason::EventTime, 3),
                (Reason::OutOfRange, 3),
            ]),
        },
    };
    let files = vec![
        FileEntry {
            table: "events".to_owned(),
            partition: vec![("dt".to_owned(), Some("2019-04-01".to_owned()))],
            name: "part-00000.parquet".to_owned(),
            rows: 2_430,
            bytes: 87_393,
            times: Some((1_554_073_354_239, 1_554_130_799_600)),
            staged: staged("events/dt=2019-04-01/part-00000.parquet"),
            sha256: Some(
                serde_json::from_str(
                    "\"5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03\"",
                )
                .unwrap(),
            ),
            version: None,
            written: None,
        },
        FileEntry {
            table: "events_rejects".to_owned(),
            partition: vec![("dt".to_owned(), None)],
            name: "part-00000.parquet".to_owned(),
            rows: 1,
            bytes: 2_397,
            times: None,
            staged: staged("events_rejects/dt=__HIVE_DEFAULT_PARTITION__/part-00000.parquet"),
            sha256: None,
            version: None,
            written: None,
        },
    ];
    let columns = [
        ("event_id", "string"),
        ("event_time", "timestamp"),
        ("os", "string"),
    ];
    let mart = MartEntry {
        name: "complex_views".to_owned(),
        sql: "ebd682d912f5803ad036b9a7daa8831339bdd9b975574c720e0e4002197785c1".to_owned(),
        inputs: BTreeMap::from([
            (
                "danji_master".to_owned(),
                "sha256:597a726d16ab9e6eb848aefd41666be67549fb8d12c342a785e7bfdb1d5b125e"
                    .to_owned(),
            ),
            ("events".to_owned(), "1".to_owned()),
        ]),
        reach: BTreeMap::new(),
        compared: false,
        rows: 41,
        law: 0,
        unit: TimeUnit::Ms,
    };
    Commit {
        format: 2,
        number: 1,
        run: RUN.to_owned(),
        at: "2026-11-24T04:08:33Z".to_owned(),
        sources: BTreeMap::from([("events".to_owned(), source)]),
        files,
        columns: BTreeMap::from([(
            "events".to_owned(),
            columns
                .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
                .to_vec(),
        )]),
        marts: vec![mart],
        dropped: Vec::new(),
        removed: Vec::new(),
        retired: Vec::new(),
        found: vec![
            FoundFile {
                key: "events/dt=2019-04-01/part-00000.parquet".to_owned(),
                etag: Some("98c061-18eadfa7f9fdda92-15561".to_owned()),
            },
            FoundFile {
                key: "events_rejects/dt=__HIVE_DEFAULT_PARTITION__/part-00000.parquet".to_owned(),
                etag: None,
            },
        ],
    }
}

fn marker(format: u32) -> Published {
    let file = |key: &str, etag: &str| PublishedFile {
        key: key.to_owned(),
        etag: etag.to_owned(),
    };
    Published {
        format,
        number: 1,
        files: vec![
            file(
                "events/dt=2019-04-01/part-00000.parquet",
                "98c061-18eadfa7f9fdda92-15561",
            ),
            file(
                "events_rejects/dt=__HIVE_DEFAULT_PARTITION__/part-00000.parquet",
                "9a2158-18ea82fa41fb0b4e-15561",
            ),
        ],
    }
}

fn state(commit: &Commit, marker: &Published) -> State {
    let mut state = State::default();
    state.apply(commit);
    state.mark(marker);
    state
}

#[tokio::test]
async fn format_1() {
    let mut expected = sample();
    expected.format = 1;
    expected.found.clear();
    for file in &mut expected.files {
        file.sha256 = None;
    }
    for source in expected.sources.values_mut() {
        source.settings = None;
        source.forgotten.clear();
        for object in &mut source.objects {
            object.times = None;
        }
    }
    let (commit, published): (&[u8], &[u8]) = (
        include_bytes!("samples/1.commit.json"),
        include_bytes!("samples/1.published.json"),
    );
    assert_eq!(serde_json::from_slice::<Commit>(commit).unwrap(), expected);
    assert_eq!(
        serde_json::from_slice::<Published>(published).unwrap(),
        marker(1)
    );
    let files = [
        (layout::commit_key(1), commit),
        (layout::published_key(1), published),
    ];
    assert_eq!(open(&files).await, state(&expected, &marker(1)));
}

#[tokio::test]
async fn format_2() {
    let expected = sample();
    let (commit, published): (&[u8], &[u8]) = (
        include_bytes!("samples/2.commit.json"),
        include_bytes!("samples/2.published.json"),
    );
    assert_eq!(serde_json::from_slice::<Commit>(commit).unwrap(), expected);
    assert_eq!(
        serde_json::from_slice::<Published>(published).unwrap(),
        marker(2)
    );
    // No field of the JSON is passed over.
    let json: serde_json::Value = serde_json::from_slice(commit).unwrap();
    assert_eq!(serde_json::to_value(&expected).unwrap(), json);
    let files = [
        (layout::commit_key(1), commit),
        (layout::published_key(1), published),
    ];
    assert_eq!(open(&files).await, state(&expected, &marker(2)));
}

/// What rebuilds add to a commit: what was rebuilt, and a raw object that is dropped for good.
fn dropping() -> Commit {
    let mut commit = sample();
    commit.number = 2;
    commit.files.clear();
    commit.columns.clear();
    commit.marts.clear();
    commit.found.clear();
    for source in commit.sources.values_mut() {
        let dropped: Vec<ObjectEntry> = source.objects.drain(..1).collect();
        source.settings = None;
        source.objects.clear();
        source.forgotten = vec![dropped[0].key.clone()];
        source.rebuilt = Some(Rebuilt {
            dates: Some(Dates {
                from: date("2019-04-01"),
                to: date("2019-04-02"),
            }),
            from_raw: true,
        });
        source.balance = Balance::default();
        source.balance.count(&dropped[0], -1);
        source.balance.kept = source.balance.events;
        source.dropped = dropped;
    }
    commit
}

#[tokio::test]
async fn a_commit_of_format_2_by_a_rebuild_that_drops_a_raw_object() {
    let text = include_str!("samples/2.dropped.commit.json");
    let written = seal::sealed(serde_json::to_vec(&dropping()).unwrap());
    assert_eq!(String::from_utf8(written).unwrap(), text);
    let bytes = text.as_bytes();
    assert_eq!(serde_json::from_slice::<Commit>(bytes).unwrap(), dropping());
    let mut marker = marker(2);
    marker.files.clear();
    let (first, second) = (
        include_bytes!("samples/2.sealed.commit.json"),
        seal::sealed(
            serde_json::to_vec(&Published {
                number: 2,
                ..marker
            })
            .unwrap(),
        ),
    );
    let files = [
        (layout::commit_key(1), &first[..]),
        (
            layout::published_key(1),
            include_bytes!("samples/2.sealed.published.json"),
        ),
        (layout::commit_key(2), bytes),
        (layout::published_key(2), second.leak()),
    ];
    let state = open(&files).await;
    let source = &state.sources["events"];
    let key = &dropping().sources["events"].dropped[0].key;
    assert!(!source.objects.contains_key(key) && source.objects.len() == 1);
    assert_eq!(source.dropped, BTreeMap::from([(key.clone(), 2)]));
    // A checkpoint keeps it.
    let bytes = checkpoint::encode(&state).unwrap();
    assert_eq!(checkpoint::decode(bytes.into()).unwrap(), state);
}

/// Like the other samples of format 2, with the seals that commits have had since then.
#[tokio::test]
async fn sealed_format_2() {
    let (commit, published): (&[u8], &[u8]) = (
        include_bytes!("samples/2.sealed.commit.json"),
        include_bytes!("samples/2.sealed.published.json"),
    );
    for sealed in [commit, published] {
        assert!(seal::check(sealed).is_ok());
        let mut other = sealed.to_vec();
        other[10] ^= 1;
        assert!(seal::check(&other).is_err());
    }
    let files = [
        (layout::commit_key(1), commit),
        (layout::published_key(1), published),
    ];
    assert_eq!(open(&files).await, state(&sample(), &marker(2)));
}

/// What format 3 says more: files that are taken away.
fn sample_3() -> Commit {
    let removed = |key: &str, etag: Option<&str>| RemovedFile {
        key: key.to_owned(),
        etag: etag.map(str::to_owned),
    };
    Commit {
        format: 3,
        removed: vec![
            removed(
                "complex_views/part-00000.parquet",
                Some("98c061-18eadfa7f9fdda92-2397"),
            ),
            removed("events/dt=2019-04-01/part-00001.parquet", None),
        ],
        dropped: vec!["an_old_mart".to_owned()],
        ..sample()
    }
}

#[tokio::test]
async fn format_3() {
    let (commit, published): (&[u8], &[u8]) = (
        include_bytes!("samples/3.written.commit.json"),
        include_bytes!("samples/3.written.published.json"),
    );
    assert!(seal::check(commit).is_ok() && seal::check(published).is_ok());
    let read: Commit = serde_json::from_slice(commit).unwrap();
    assert_eq!(read, sample_3());
    let read: Published = serde_json::from_slice(published).unwrap();
    assert_eq!(read, marker(3));
    let files = [
        (layout::commit_key(1), commit),
        (layout::published_key(1), published),
    ];
    assert_eq!(open(&files).await, state(&sample_3(), &marker(3)));
}

/// A commit without versions has the same words as before.
#[test]
fn format_3_as_it_was_written() {
    let written =
        |json: serde_json::Result<Vec<u8>>| String::from_utf8(seal::sealed(json.unwrap())).unwrap();
    assert_eq!(
        written(serde_json::to_vec(&sample_3())),
        include_str!("samples/3.written.commit.json")
    );
    assert_eq!(
        written(serde_json::to_vec(&marker(3))),
        include_str!("samples/3.written.published.json")
    );
}

/// What format 4 says more: versions of partitions, and files that are retired.
fn sample_4() -> Commit {
    let retired = "rawmart-versions/events/dt=2019-04-01/00000000000000000003/part-00000.parquet";
    let mut commit = Commit {
        format: 4,
        retired: vec![
            retired.to_owned(),
            "complex_views/part-00000.parquet".to_owned(),
        ],
        removed: Vec::new(),
        ..sample_3()
    };
    for file in &mut commit.files {
        file.version = Some(1);
    }
    if let Some(file) = commit.files.last_mut() {
        file.staged = retired.replace(
            "events/dt=2019-04-01",
            "events_rejects/dt=__HIVE_DEFAULT_PARTITION__",
        );
        file.written = Some(3);
    }
    commit
}

fn marker_4() -> Published {
    let mut marker = marker(4);
    for (put, entry) in marker.files.iter_mut().zip(sample_4().files) {
        put.key = entry.key();
    }
    marker
}

#[tokio::test]
async fn format_4() {
    let (commit, published): (&[u8], &[u8]) = (
        include_bytes!("samples/4.written.commit.json"),
        include_bytes!("samples/4.written.published.json"),
    );
    assert!(seal::check(commit).is_ok() && seal::check(published).is_ok());
    let read: Commit = serde_json::from_slice(commit).unwrap();
    assert_eq!(read, sample_4());
    let read: Published = serde_json::from_slice(published).unwrap();
    assert_eq!(read, marker_4());
    let files = [
        (layout::commit_key(1), commit),
        (layout::published_key(1), published),
    ];
    let state = open(&files).await;
    assert_eq!(state, self::state(&sample_4(), &marker_4()));
    assert!(state.files.values().all(|file| file.etag.is_some()));
    let keys: Vec<&String> = state.files.keys().collect();
    assert_eq!(
        keys,
        [
            "rawmart-versions/events/dt=2019-04-01/00000000000000000001/part-00000.parquet",
            "rawmart-versions/events_rejects/dt=__HIVE_DEFAULT_PARTITION__/00000000000000000001/part-00000.parquet",
        ]
    );
}

/// A commit and a marker are written with these bytes, with their seals. A new setting of the configuration or
/// another order of the fields would show here.
#[test]
fn format_4_as_it_is_written() {
    let written =
        |json: serde_json::Result<Vec<u8>>| String::from_utf8(seal::sealed(json.unwrap())).unwrap();
    assert_eq!(
        written(serde_json::to_vec(&sample_4())),
        include_str!("samples/4.written.commit.json")
    );
    assert_eq!(
        written(serde_json::to_vec(&marker_4())),
        include_str!("samples/4.written.published.json")
    );
}

/// A commit that takes no file away has the same words as before.
#[test]
fn format_2_as_it_was_written() {
    let written =
        |json: serde_json::Result<Vec<u8>>| String::from_utf8(seal::sealed(json.unwrap())).unwrap();
    assert_eq!(
        written(serde_json::to_vec(&sample())),
        include_str!("samples/2.written.commit.json")
    );
    assert_eq!(
        written(serde_json::to_vec(&marker(2))),
        include_str!("samples/2.sealed.published.json")
    );
}

#[tokio::test]
async fn a_checkpoint_of_format_2() {
    let bytes: &[u8] = include_bytes!("samples/2.checkpoint.parquet");
    let expected = state(&sample(), &marker(2));
    assert_eq!(checkpoint::decode(bytes.into()).unwrap(), expected);
    // The checkpoint was used. Without its marker, commit 1 would be unpublished.
    let commit: &[u8] = include_bytes!("samples/2.commit.json");
    let files = [
        (layout::commit_key(1), commit),
        (layout::checkpoint_key(1), bytes),
    ];
    assert_eq!(open(&files).await, expected);
}
