//! What no reader could read, or would read as something else: times, values of partitions, names, numbers of
//! partitions.

use rawmart::run::{MartOutcome, Options, PartitionLimits};
use rawmart::store::StoreSettings;

use std::sync::{Arc, Mutex};

use rawmart::config::Encryption;
use rawmart::store::Store;

use crate::project::{Project, cell, rawmart};
use crate::s3::{Asked, Control};
use crate::small::{self, Bucket, FIRST};

fn config(more: &str) -> String {
    format!(
        r#"
lake = "lake"
[sources.app]
raw = "raw"
event_time = "at"
accept = {{ from = "1900-01-01", ahead = "1d" }}
{more}

[sources.app.columns]
id = "string"
at = "timestamp"
os = "string"

[marts]
path = "sql"
"#
    )
}

/// A project with one event a line: id, time and operating system.
fn project(more: &str, events: &[(&str, &str, &str)], marts: &[(&str, &str)]) -> Project {
    let project = Project::with(config(more), marts);
    let lines = events
        .iter()
        .map(|(id, at, os)| serde_json::json!({"id": id, "at": at, "os": os}).to_string() + "\n");
    project.write("raw/2019/04/01/12/a.json", lines.collect::<String>());
    project
}

const BEFORE_1970: &str = "1969-12-31T23:59:59.999999Z";

/// The cells of one column, sorted.
fn column(project: &Project, table: &str, name: &str) -> Vec<String> {
    let rows = project.lake().rows(table);
    let mut cells: Vec<String> = rows.iter().map(|row| cell(row, name)).collect();
    cells.sort();
    cells
}

#[test]
fn a_mart_has_microseconds_where_a_table_that_it_reads_has_them() {
    let marts = [
        ("first", "SELECT min(at) AS at FROM app\n"),
        (
            "second",
            "SELECT date_trunc('second', at) AS whole, at FROM first\n",
        ),
        (
            "third",
            "SELECT count(*) AS n FROM app WHERE at = (SELECT max(at) FROM first)\n",
        ),
    ];
    let events = [
        ("a", BEFORE_1970, "ios"),
        ("b", "2019-04-01T00:00:00.000001Z", "ios"),
    ];
    let exact = project("timestamp_unit = \"us\"", &events, &marts);
    exact.rawmart(&["run"]).expect(0, &[]);
    for table in ["first", "second"] {
        assert_eq!(column(&exact, table, "at"), [BEFORE_1970], "{table}");
    }
    assert_eq!(column(&exact, "third", "n"), ["1"]);
    let ran = exact.rawmart(&["ddl", "--dialect", "trino", "--table", "first"]);
    ran.expect(0, &["\"at\" timestamp(6)"]);
    let json = exact.rawmart(&["tables", "--output", "json"]).json();
    let tables = json["tables"].as_array().unwrap();
    let unit = |name: &str| {
        let table = tables.iter().find(|table| table["name"] == name).unwrap();
        table["timestamp_unit"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        (unit("second"), unit("third")),
        ("us".to_owned(), "ms".to_owned())
    );
    // The unit of the source is another one: the marts follow.
    exact.write("rawmart.toml", config(""));
    exact.rawmart(&["rebuild", "--raw"]).expect(0, &[]);
    assert_eq!(column(&exact, "first", "at"), ["-1"]);
    exact.rawmart(&["verify"]).expect(0, &[]);
    exact.rawmart(&["run"]).expect(0, &["Nothing new"]);
}

#[test]
fn a_time_that_is_too_fine_is_floored() {
    let floored = "SELECT CAST('1969-12-31 23:59:59.9995' AS timestamp) AS literal, \
                   CAST('1969-12-31 23:59:59.99999' || CAST(length(id) AS varchar) AS timestamp) AS made, id FROM app\n";
    let events = [("a", BEFORE_1970, "ios")];
    let project = project("", &events, &[("floored", floored)]);
    project.rawmart(&["run"]).expect(0, &[]);
    for name in ["literal", "made"] {
        assert_eq!(column(&project, "floored", name), ["-1"], "{name}");
    }
    assert_eq!(column(&project, "app", "at"), ["-1"]);
}

#[test]
fn the_spelling_of_null_is_null_as_a_partition_value() {
    let by_os = "-- partition: os\nSELECT id, os FROM app\n";
    let events = [
        ("a", "2019-04-01T00:00:00Z", "__HIVE_DEFAULT_PARTITION__"),
        ("b", "2019-04-01T00:00:00Z", ""),
        ("c", "2019-04-01T00:00:00Z", "__hive_default_partition__"),
    ];
    let reader = "SELECT count(*) AS n FROM by_os WHERE os IS NULL\n";
    let project = project("", &events, &[("by_os", by_os), ("nulls", reader)]);
    project.rawmart(&["run"]).expect(0, &[]);
    let lake = project.lake();
    let folders: Vec<&str> = lake
        .data_files()
        .filter_map(|(key, _)| {
            key.strip_prefix("by_os/")?
                .strip_suffix("/part-00000.parquet")
        })
        .collect();
    let other = "os=%5F_hive_default_partition__";
    assert_eq!(folders, [other, "os=__HIVE_DEFAULT_PARTITION__"]);
    assert_eq!(column(&project, "nulls", "n"), ["2"]);
}

#[test]
fn a_name_that_redshift_does_not_read_is_refused() {
    let events = [("a", "2019-04-01T00:00:00Z", "ios")];
    let long = "n".repeat(128);
    let fits = &long[..127];
    let sql = format!("SELECT id AS {fits} FROM app\n");
    let good = project("", &events, &[(fits, &sql)]);
    good.rawmart(&["run"]).expect(0, &[]);
    let told = |project: &Project, name: &str| {
        let part = format!("the name `{name}` has 128 bytes");
        project.rawmart(&["run"]).expect(2, &[&part, "127"]);
        assert_eq!(
            project.lake().data_files().count(),
            0,
            "something was written"
        );
    };
    let sql = format!("SELECT id AS {long} FROM app\n");
    told(&project("", &events, &[("m", &sql)]), &long);
    let sql = format!("-- partition: {long}\nSELECT id, os AS {long} FROM app\n");
    told(&project("", &events, &[("m", &sql)]), &long);
    told(
        &project("", &events, &[(&long, "SELECT id FROM app\n")]),
        &long,
    );
    // A source makes tables with longer names than its own.
    let source = project("", &events, &[]);
    let toml = config("").replace("sources.app", &format!("sources.{}", &long[..120]));
    source.write("rawmart.toml", toml);
    source
        .rawmart(&["run"])
        .expect(2, &["_duplicates` has a name of 131 bytes"]);
}

/// What a run says of the mart `by_id`: how many partitions it has if they are many, and why it failed.
fn told(project: &Project, name: &str, many: u64, most: u64) -> (Option<u64>, Option<String>) {
    let options = Options {
        marts: true,
        partitions: PartitionLimits { many, most },
        ..Options::default()
    };
    let ran = small::run_with(
        &small::job(project),
        &options,
        name,
        StoreSettings::default(),
    );
    let mut marts = ran.unwrap().marts.into_iter();
    let mart = marts.find(|mart| mart.name == "by_id").unwrap();
    let failed = match mart.outcome {
        MartOutcome::Failed { error } => Some(error),
        _ => None,
    };
    (mart.many_partitions, failed)
}

/// A mart as a whole, and one by date whose partitions of each date are few.
#[test]
fn a_mart_of_many_partitions_is_told_and_one_of_too_many_fails() {
    let whole = "-- partition: id\nSELECT id, os FROM app\n";
    let by_date = "-- partition: dt, id\nSELECT id, os, dt FROM app\n";
    for sql in [whole, by_date] {
        let events = [
            ("a", "2019-04-01T00:00:00Z", "ios"),
            ("b", "2019-04-01T01:00:00Z", "ios"),
            ("c", "2019-04-02T00:00:00Z", "ios"),
        ];
        let project = project("", &events, &[("by_id", sql)]);
        project.write("sql/other.sql", "SELECT count(*) AS n FROM app\n");
        let (_, failed) = told(&project, "first", 1, 2);
        let failed = failed.unwrap();
        assert!(
            failed.contains("by_id.sql: it has more than 2 partitions by"),
            "{failed}"
        );
        assert_eq!(project.lake().tables(), ["app", "other"], "{sql}");
        assert_eq!(told(&project, "second", 3, 3), (None, None), "{sql}");
        assert_eq!(project.lake().files("by_id").len(), 3);
        // The partitions that stay count, too.
        let more = r#"{"id":"d","at":"2019-04-03T00:00:00Z","os":"ios"}"#;
        project.write("raw/2019/04/03/12/b.json", more);
        assert!(told(&project, "third", 3, 3).1.is_some(), "{sql}");
        assert_eq!(told(&project, "fourth", 3, 4), (Some(4), None), "{sql}");
        project.rawmart(&["verify"]).expect(0, &[]);
    }
}

#[test]
fn a_mart_whose_file_is_gone_is_named_and_can_be_dropped() {
    let events = [("a", "2019-04-01T00:00:00Z", "ios")];
    let marts = [
        ("old", "-- partition: dt\nSELECT id, dt FROM app\n"),
        ("new", "SELECT count(*) AS n FROM app\n"),
    ];
    let project = project("", &events, &marts);
    project.rawmart(&["run"]).expect(0, &[]);
    project
        .rawmart(&["marts", "--drop", "old"])
        .expect(2, &["delete the file first"]);
    std::fs::remove_file(project.path("sql/old.sql")).unwrap();
    let named = "mart old: its SQL file is gone";
    project.rawmart(&["run"]).expect(0, &["Nothing new", named]);
    project
        .rawmart(&["plan"])
        .expect(0, &["Nothing to do", named]);
    let json = project.rawmart(&["run", "--output", "json"]).json();
    assert_eq!(json["gone_marts"], serde_json::json!(["old"]));
    project
        .rawmart(&["run", "--no-marts"])
        .expect(0, &["Nothing new"]);
    let note = "note old: its SQL file is gone";
    project.rawmart(&["verify"]).expect(0, &[note]);
    // Its folder is gone, too: that is no damage, and no repair waits for it.
    std::fs::remove_dir_all(project.path("lake/old")).unwrap();
    for verify in [&["verify"][..], &["verify", "--repair"]] {
        let ran = project.rawmart(verify);
        ran.expect(0, &[note, "and 1 of its data files are not as published"]);
    }
    project
        .rawmart(&["marts", "--drop", "nwe"])
        .expect(2, &["has no mart `nwe`", "new, old"]);
    let dropped = project.rawmart(&["marts", "--drop", "old"]);
    dropped.expect(0, &["Dropped mart old from", "1 files with 1 rows"]);
    let verified = project.rawmart(&["verify"]);
    verified.expect(0, &[]);
    assert!(!verified.out.contains("note old"), "{verified:?}");
    project.rawmart(&["tables"]).expect(0, &[]);
    // Its name is free again.
    project.write("sql/old.sql", "SELECT 1 AS one\n");
    project.rawmart(&["run"]).expect(0, &[]);
    assert_eq!(project.lake().rows("old").len(), 1);
    // Files that are there are deleted.
    std::fs::remove_file(project.path("sql/old.sql")).unwrap();
    project.rawmart(&["marts", "--drop", "old"]).expect(0, &[]);
    assert_eq!(project.lake().tables(), ["app", "new"]);
    assert!(!project.path("lake/old").exists());
    project.rawmart(&["run"]).expect(0, &["Nothing new"]);
}

#[test]
fn lint_names_what_a_reader_could_not_read() {
    let events = [("a", "2019-04-01T00:00:00Z", "ios")];
    let project = project("", &events, &[("shown", "SELECT id, at, tags FROM app\n")]);
    let toml = config("timestamp_unit = \"us\"\npartition_by = \"hour\"");
    let toml = toml.replace("os = \"string\"", "os = \"string\"\ntop = \"string\"\ntags = \"array<array<string>>\"\ncost = \"decimal(9,2)\"");
    project.write("rawmart.toml", &toml);
    project.rawmart(&["run"]).expect(0, &[]);
    let ran = project.rawmart(&["lint"]);
    ran.expect(
        0,
        &[
            "athena: cannot read app.at: its timestamps have milliseconds",
            "athena: cannot read shown.at: ",
            "spectrum: cannot read app.tags: it reads no array or map inside",
            "redshift: note on app.top: the name is a reserved word; quote it in queries, \"top\"",
            "every reader: note on app: its partitions are hours",
        ],
    );
    assert!(!ran.out.contains("hive3"), "{ran:?}");
    let json = project.rawmart(&["lint", "--output", "json"]).json();
    crate::schema::assert_described(&json);
    let findings = json["findings"].as_array().unwrap();
    let first = &findings[0];
    assert_eq!(
        (&first["reader"], &first["table"]),
        (&"athena".into(), &"app".into())
    );
    assert!(
        findings
            .iter()
            .all(|finding| finding["remedy"].as_str().unwrap().len() > 10)
    );
    // A run refuses what a reader cannot read that the configuration names.
    for (readers, refused) in [
        ("\"athena\"", Some("athena cannot read app.at")),
        (
            "\"trino\", \"spectrum\"",
            Some("spectrum cannot read app.tags"),
        ),
        ("\"hive3\"", Some("hive3 cannot read app.at")),
        ("\"spark\", \"trino\", \"duckdb\"", None),
    ] {
        project.write("rawmart.toml", format!("readers = [{readers}]\n{toml}"));
        let ran = project.rawmart(&["run"]);
        match refused {
            Some(part) => ran.expect(2, &[part]),
            None => ran.expect(0, &["Nothing new"]),
        }
        let ran = project.rawmart(&["lint"]);
        ran.expect(0, &[&readers.replace('"', "")]);
    }
    project.write("rawmart.toml", format!("readers = [\"atena\"]\n{toml}"));
    project
        .rawmart(&["run"])
        .expect(2, &["`atena` is not known"]);
}

/// The requests that a server was asked.
#[derive(Default)]
struct Seen(Mutex<Vec<Asked>>);

#[async_trait::async_trait]
impl Control for Seen {
    async fn before(&self, asked: &Asked) -> bool {
        self.0.lock().unwrap().push(asked.clone());
        true
    }

    async fn after(&self, _: &Asked) -> bool {
        true
    }
}

impl Seen {
    /// Every request says that its sender pays, and those that write an object ask for its encryption. Gives the number
    /// of the latter.
    fn assert_said(&self) -> usize {
        let asked = self.0.lock().unwrap();
        let mut writes = 0;
        for one in asked.iter() {
            let payer = one.amz.get("x-amz-request-payer").map(String::as_str);
            let signed = one.path.contains("x-amz-request-payer=requester");
            assert!(payer == Some("requester") || signed, "{one:?}");
            let is_part = one.path.contains("partNumber=");
            let begins = one.method == "POST" && one.path.contains("?uploads");
            if (one.method == "PUT" && !is_part) || begins {
                writes += 1;
                for (header, value) in [
                    ("x-amz-server-side-encryption", "aws:kms"),
                    ("x-amz-server-side-encryption-aws-kms-key-id", "alias/lake"),
                    ("x-amz-server-side-encryption-bucket-key-enabled", "true"),
                ] {
                    assert_eq!(
                        one.amz.get(header).map(String::as_str),
                        Some(value),
                        "{one:?}"
                    );
                }
            }
        }
        writes
    }
}

#[test]
fn a_run_asks_a_bucket_for_encryption_and_pays() {
    let bucket = Bucket::new();
    bucket.add(FIRST);
    let path = bucket.project.path("rawmart.toml");
    let toml = std::fs::read_to_string(&path).unwrap();
    let keys = "sse = \"aws:kms\"\nsse_key = \"alias/lake\"\nsse_bucket_key = true\nrequester_pays = true\n";
    std::fs::write(&path, format!("{keys}{toml}")).unwrap();
    let seen = Arc::new(Seen::default());
    bucket
        .server
        .control(Some(Arc::clone(&seen) as Arc<dyn Control>));
    for command in [
        &["run"][..],
        &["verify"],
        &["plan"],
        &["tables"],
        &["history"],
    ] {
        rawmart(&bucket.project.path(""), command, &bucket.server.env()).expect(0, &[]);
    }
    bucket.server.control(None);
    assert!(seen.assert_said() > 20);
    for (wrong, part) in [
        ("sse = \"kms\"\n", "`kms` is not known"),
        ("sse_key = \"k\"\n", "sse_key: it is a setting of `sse"),
        (
            "sse = \"AES256\"\nsse_key = \"k\"\n",
            "sse_key: it is a setting of `sse",
        ),
    ] {
        std::fs::write(&path, format!("{wrong}{toml}")).unwrap();
        let ran = rawmart(&bucket.project.path(""), &["plan"], &bucket.server.env());
        ran.expect(2, &[part]);
    }
}

#[test]
fn every_kind_of_write_asks_for_encryption() {
    let bucket = Bucket::new();
    let settings = StoreSettings {
        part_bytes: 5 << 20,
        encryption: Some(Encryption {
            algorithm: "aws:kms",
            key: Some("alias/lake".to_owned()),
            bucket_key: Some(true),
        }),
        requester_pays: true,
        aws: Some(bucket.server.aws()),
        ..StoreSettings::default()
    };
    let large = tempfile::NamedTempFile::new().unwrap();
    large.as_file().set_len(6 << 20).unwrap();
    let seen = Arc::new(Seen::default());
    bucket
        .server
        .control(Some(Arc::clone(&seen) as Arc<dyn Control>));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = Store::open("s3://lake/small/", &settings).await.unwrap();
        store.create("new", "1".into()).await.unwrap().unwrap();
        store.upload("large", large.path()).await.unwrap();
        store.publish("large", "target", None).await.unwrap();
        let put = store.head("target").await.unwrap().unwrap();
        store
            .publish("new", "target", put.etag.as_deref())
            .await
            .unwrap();
        let put = store.head("target").await.unwrap().unwrap();
        store.remove("target", put.etag.as_deref()).await.unwrap();
        store.list("").await.unwrap();
        store.delete(vec!["large".to_owned()]).await.unwrap();
    });
    bucket.server.control(None);
    // One creation, the beginning of an upload in parts, two publications.
    assert_eq!(seen.assert_said(), 4);
}
