//! Runs the binary on the demo and compares the lake with the recount in `fixtures/expected`, which was made
//! without rawmart. It also checks the output of `run`, `plan` and `verify` before and after, and the form of a
//! data file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use parquet::basic::{Compression, LogicalType, TimeUnit, Type};
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::project::{Lake, Ran, cell, csv, rawmart};

const MARTS: [&str; 5] = [
    "complex_views",
    "daily_active_users_by_os",
    "new_and_active_users",
    "pipeline_health",
    "search_to_contact_funnel",
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn expected() -> PathBuf {
    repository().join("fixtures/expected")
}

#[test]
fn the_marts_of_the_demo_pass_their_tests() {
    let ran = rawmart(repository(), &["test", "--output", "json"], &[]);
    ran.expect(0, &[]);
    let json = ran.json();
    assert_eq!(json["untested"], serde_json::json!([]));
    let marts = json["cases"].as_array().unwrap().iter();
    let marts: Vec<&str> = marts.map(|tried| tried["mart"].as_str().unwrap()).collect();
    assert_eq!(BTreeSet::from_iter(marts), BTreeSet::from(MARTS));
}

/// The configuration of the demo with a lake of its own.
struct Demo {
    folder: tempfile::TempDir,
}

impl Demo {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("lake")
    }

    fn rawmart(&self, args: &[&str]) -> Ran {
        let root = self.root();
        let lake = ["--lake", root.to_str().unwrap()];
        rawmart(repository(), &[&lake, args].concat(), &[])
    }

    fn done(&self, args: &[&str]) -> Ran {
        let ran = self.rawmart(args);
        assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
        ran
    }

    fn lake(&self) -> Lake {
        Lake::on_disk(&self.root())
    }
}

/// The rows of a recounted table, with the key of the raw object in the place of its number.
pub fn recount(table: &str) -> Vec<Vec<String>> {
    let (_, objects) = csv(&expected().join("objects.csv"));
    let key: BTreeMap<&str, &str> = objects
        .iter()
        .map(|row| (row[0].as_str(), row[1].as_str()))
        .collect();
    let mut rows = Vec::new();
    for entry in std::fs::read_dir(expected().join(table)).unwrap() {
        let path = entry.unwrap().path();
        let dt = path.file_stem().unwrap().to_str().unwrap();
        let dt = dt.strip_prefix("dt=").unwrap();
        let (header, cells) = csv(&path);
        for row in cells {
            let named = |(name, value): (&String, String)| match name.as_str() {
                "object" | "kept_object" => key[value.as_str()].to_owned(),
                _ => value,
            };
            let mut row: Vec<String> = header.iter().zip(row).map(named).collect();
            row.insert(0, dt.to_owned());
            rows.push(row);
        }
    }
    rows.sort();
    assert!(!rows.is_empty());
    rows
}

/// Asserts that every table of the demo's lake equals the recount.
pub fn assert_recounted(lake: &Lake) {
    let own = ["dt", "raw_object", "raw_record"];
    let event = ["event_id", "event_time"];
    let displaced = ["rule", "kept_object", "kept_record"];
    for (table, columns) in [
        ("events", [&own[..], &event].concat()),
        ("events_duplicates", [&own[..], &event, &displaced].concat()),
        ("events_rejects", [&own[..], &["reason"]].concat()),
    ] {
        assert_eq!(lake.cells(table, &columns), recount(table), "{table}");
    }
    for mart in MARTS {
        let (header, mut rows) = csv(&expected().join(format!("marts/{mart}.csv")));
        let columns: Vec<&str> = header.iter().map(String::as_str).collect();
        rows.sort();
        assert_eq!(lake.cells(mart, &columns), rows, "{mart}");
    }
    let mut tables: Vec<&str> = MARTS.to_vec();
    tables.extend(["events", "events_duplicates", "events_rejects"]);
    tables.sort_unstable();
    assert_eq!(lake.tables(), tables);
}

fn counts() -> serde_json::Value {
    let text = std::fs::read_to_string(expected().join("counts.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_demo_is_what_the_recount_says() {
    let demo = Demo::new();

    let plan = demo.done(&["plan", "--output", "json"]).json();
    assert_eq!(plan["sources"][0]["why"], "first");
    assert_eq!(plan["sources"][0]["objects"], counts()["objects"]);
    assert_eq!(plan["marts"].as_array().unwrap().len(), MARTS.len());
    assert!(!demo.root().join("_rawmart/log").exists(), "plan wrote");

    let first = demo.done(&["run", "--output", "json"]).json();
    assert_eq!(first["outcome"], "done");
    let source = &first["sources"]["events"];
    for count in [
        "objects",
        "records",
        "events",
        "kept",
        "duplicates",
        "rejects",
    ] {
        assert_eq!(source[count], counts()[count], "{count}");
    }
    let lake = demo.lake();
    assert_recounted(&lake);
    for mart in first["marts"].as_array().unwrap() {
        assert_eq!(mart["outcome"], "built", "{mart}");
        let rows = lake.rows(mart["name"].as_str().unwrap()).len();
        assert_eq!(mart["rows"], rows, "{mart}");
    }
    assert_eq!(lake.commits().len() as u64, first["commit"]);
    assert!(
        !lake.0.keys().any(|key| key.contains("/staging/")),
        "left-overs"
    );

    // A second run finds nothing new, and changes no byte of the lake.
    let second = demo.done(&["run", "--output", "json"]).json();
    assert_eq!(second["outcome"], "nothing_new");
    assert_eq!(second["commit"], first["commit"]);
    assert_eq!(second["sources"]["events"]["rebuilt"], false);
    assert!(demo.lake().0 == lake.0, "the second run changed the lake");

    let plan = demo.done(&["plan"]);
    assert!(plan.out.contains("Nothing to do."), "{plan:?}");
    let verify = demo.done(&["verify", "--output", "json"]).json();
    assert_eq!(verify["damage"], serde_json::json!([]));
    assert_eq!(verify["strays"], serde_json::json!([]));
    assert_eq!(verify["files"], lake.data_files().count());
}

#[test]
fn what_no_column_names_is_in_extra() {
    let demo = Demo::new();
    demo.done(&["run", "--no-marts"]);
    let mut members: BTreeMap<String, u64> = BTreeMap::new();
    for row in demo.lake().rows("events") {
        if let Some(extra) = &row["extra"] {
            let extra: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(extra).unwrap();
            for (name, _) in extra {
                *members.entry(name).or_default() += 1;
            }
        }
    }
    for (name, count) in counts()["kept_with_unnamed_member"].as_object().unwrap() {
        assert_eq!(members.get(name), count.as_u64().as_ref(), "{name}");
    }
    assert_eq!(demo.lake().tables().len(), 3, "marts were not asked for");
}

#[test]
fn what_the_run_prints() {
    let demo = Demo::new();
    let ran = demo.done(&["run"]);
    for part in [
        "events: 36 raw objects, 36 new",
        "7,364 records      = 7,354 events + 10 rejects",
        "7,354 events       = 7,135 kept + 219 duplicates",
        "duplicates   redelivery",
        "rejects      not_json",
        "dt=2019-04-01 … dt=2019-04-03",
        "new_and_active_users",
        "Next:",
    ] {
        assert!(ran.out.contains(part), "`{part}` is not in {}", ran.out);
    }
    assert_eq!(ran.err, "", "nothing to talk about, and no bar in a pipe");
}

#[test]
fn verify_names_what_is_not_as_published() {
    let demo = Demo::new();
    demo.done(&["run"]);
    let key = "events/dt=2019-04-02/part-00000.parquet";
    let file = demo.root().join(key);
    let whole = std::fs::read(&file).unwrap();

    std::fs::remove_file(&file).unwrap();
    let ran = demo.rawmart(&["verify"]);
    ran.expect(7, &[&format!("{key} is missing")]);
    let json = demo.rawmart(&["verify", "--output", "json"]);
    assert_eq!(json.code, Some(7));
    assert_eq!(json.json()["damage"][0]["what"], "missing");
    assert_eq!(json.json()["damage"][0]["key"], key);

    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    demo.rawmart(&["verify"]).expect(7, &[key, "bytes"]);

    // Other content of the same length.
    let mut other = whole.clone();
    other[100] ^= 1;
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, &other).unwrap();
    demo.rawmart(&["verify"])
        .expect(7, &[&format!("{key} was replaced")]);
}

#[test]
fn verify_names_a_stray() {
    let demo = Demo::new();
    demo.done(&["run"]);
    let stray = "events/dt=2019-04-02/part-00001.parquet";
    let file = demo.root().join("events/dt=2019-04-02/part-00000.parquet");
    std::fs::copy(file, demo.root().join(stray)).unwrap();
    let ran = demo.rawmart(&["verify"]);
    // Readers count the rows of this file.
    ran.expect(7, &[&format!("STRAY {stray}")]);
    let strays = demo.rawmart(&["verify", "--output", "json"]).json();
    assert_eq!(strays["strays"], serde_json::json!([stray]));
}

#[test]
fn a_data_file_is_what_every_reader_wants() {
    let demo = Demo::new();
    demo.done(&["run"]);
    let lake = demo.lake();
    let commits: BTreeSet<String> = (1..=lake.commits().len()).map(|n| n.to_string()).collect();
    let mut files = 0;
    for (key, bytes) in lake.data_files() {
        let reader = SerializedFileReader::new(Bytes::copy_from_slice(bytes)).unwrap();
        let metadata = reader.metadata();
        let schema = metadata.file_metadata().schema_descr();
        for column in schema.columns() {
            let name = column.path().string();
            assert_eq!(name, name.to_lowercase(), "{key}");
            assert!(!["dt", "hour"].contains(&name.as_str()), "{key}: {name}");
            let physical = column.physical_type();
            assert_ne!(physical, Type::INT96, "{key}: {name}");
            if name == "event_time" {
                assert_eq!(physical, Type::INT64, "{key}");
                assert_eq!(
                    column.logical_type_ref(),
                    Some(&LogicalType::timestamp(true, TimeUnit::MILLIS)),
                    "{key}"
                );
            }
        }
        for group in metadata.row_groups() {
            for chunk in group.columns() {
                assert_eq!(chunk.compression(), Compression::SNAPPY, "{key}");
                assert!(chunk.column_index_offset().is_some(), "{key}: page index");
                assert!(chunk.offset_index_offset().is_some(), "{key}: page index");
                assert!(chunk.statistics().is_some(), "{key}: statistics");
            }
        }
        let noted = metadata.file_metadata().key_value_metadata().unwrap();
        let noted: BTreeMap<_, _> = noted
            .iter()
            .map(|entry| (entry.key.as_str(), entry.value.clone().unwrap_or_default()))
            .collect();
        assert_eq!(noted.keys().collect::<Vec<_>>(), [&"rawmart.commit"]);
        assert!(commits.contains(&noted["rawmart.commit"]), "{key}");
        files += 1;
    }
    assert!(files >= 9 + MARTS.len(), "{files}");

    for table in ["events", "events_duplicates"] {
        for (key, rows) in lake.files(table) {
            let order: Vec<(i64, String, i64)> = rows
                .iter()
                .map(|row| {
                    (
                        cell(row, "event_time").parse().unwrap(),
                        cell(row, "raw_object"),
                        cell(row, "raw_record").parse().unwrap(),
                    )
                })
                .collect();
            assert!(order.is_sorted(), "{key} is not in the order of events");
        }
    }
}
