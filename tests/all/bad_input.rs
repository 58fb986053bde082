//! Wrong input of every kind, one case each. The tests check the exit code, that the message says the problem,
//! the place and the remedy, and that nothing half-published is left.

use std::io::Write;

use crate::project::{Lake, Project, Ran};

const COLUMNS: &str = r#"
[sources.app.columns]
id = "string"
at = "timestamp"
n = "bigint"
"#;

const RULE: &str = r#"
[[sources.app.dedup]]
name = "redelivery"
key = ["id"]
within = "10m"
"#;

const HOUR: &str = "raw/2019/04/01/00";

fn line(id: usize) -> String {
    let at = 1_554_076_800 + id;
    format!("{{\"id\": \"i{id}\", \"at\": {at}, \"n\": {}}}\n", id % 7)
}

fn lines(ids: std::ops::Range<usize>) -> String {
    ids.map(line).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

/// A configuration with these settings of the source, and with `rest` behind its columns.
fn toml(source: &str, rest: &str) -> String {
    format!(
        "lake = \"lake\"\n[sources.app]\nraw = \"raw\"\nevent_time = \"at\"\n{source}\n\
         {COLUMNS}\n{rest}\n"
    )
}

/// A correct project with one object of 20 events.
fn project() -> Project {
    let project = Project::new();
    project.write("rawmart.toml", toml("", RULE));
    project.write(&format!("{HOUR}/a.json"), lines(0..20));
    project
}

/// A correct project with another configuration.
fn configured(source: &str, rest: &str) -> Project {
    let project = project();
    project.write("rawmart.toml", toml(source, rest));
    project
}

/// A correct project with one mart.
fn with_mart(sql: &str) -> Project {
    let project = configured("", "[marts]\npath = \"sql\"\n");
    project.write("sql/bad.sql", sql);
    project
}

/// Asserts that the run is refused with these words and leaves neither data nor a commit.
fn refused(project: &Project, code: i32, parts: &[&str]) {
    project.rawmart(&["run"]).expect(code, parts);
    assert_empty(&project.lake());
}

fn assert_empty(lake: &Lake) {
    assert_eq!(lake.data_files().count(), 0, "half-published");
    assert_eq!(lake.commits(), Vec::<&str>::new());
}

fn counts(ran: &Ran) -> (u64, u64, serde_json::Value) {
    let source = &ran.json()["sources"]["app"];
    let number = |name: &str| source[name].as_u64().unwrap();
    (
        number("records"),
        number("events"),
        source["rejects"].clone(),
    )
}

#[test]
fn what_is_right_runs() {
    let project = project();
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(0, &[]);
    assert_eq!(counts(&ran), (20, 20, serde_json::json!({})));
}

#[test]
fn no_configuration() {
    let project = Project::new();
    project
        .rawmart(&["run"])
        .expect(2, &["rawmart.toml", "--config"]);
    project
        .rawmart(&["--config", "jobs/x.toml", "plan"])
        .expect(2, &["jobs/x.toml"]);
}

#[test]
fn a_missing_raw_folder() {
    let project = project();
    std::fs::remove_dir_all(project.path("raw")).unwrap();
    refused(&project, 2, &["/raw/ does not exist", "sources.app.raw"]);
}

#[test]
fn an_empty_raw_folder() {
    let project = project();
    std::fs::remove_dir_all(project.path("raw")).unwrap();
    std::fs::create_dir(project.path("raw")).unwrap();
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(0, &[]);
    assert_eq!(counts(&ran), (0, 0, serde_json::json!({})));
    assert_eq!(project.lake().data_files().count(), 0);
    // The first event makes the tables.
    project.write(&format!("{HOUR}/a.json"), lines(0..20));
    project.rawmart(&["run"]).expect(0, &["20"]);
    assert_eq!(project.lake().rows("app").len(), 20);
}

#[test]
fn a_truncated_gzip() {
    let project = project();
    let whole = gzip(&lines(20..400));
    project.write(&format!("{HOUR}/b.gz"), &whole[..whole.len() * 2 / 3]);
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(0, &[]);
    let (records, events, rejects) = counts(&ran);
    assert_eq!(rejects, serde_json::json!({ "codec": 1 }));
    assert_eq!(records, events + 1);
    assert!((20..400).contains(&events), "{events}");
    let found = project
        .lake()
        .cells("app_rejects", &["raw_object", "raw_record", "reason"]);
    let last = (events - 20 + 1).to_string();
    assert_eq!(found, [["2019/04/01/00/b.gz", &last, "codec"]]);
    project.rawmart(&["verify"]).expect(0, &["balances"]);
}

#[test]
fn a_name_that_says_another_codec() {
    // The content decides about the codec, and not the name.
    let project = project();
    project.write(&format!("{HOUR}/b.gz"), lines(20..30));
    project.write(&format!("{HOUR}/c.json"), gzip(&lines(30..40)));
    project.write(
        &format!("{HOUR}/d.gz"),
        zstd::encode_all(lines(40..50).as_bytes(), 1).unwrap(),
    );
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(0, &[]);
    assert_eq!(counts(&ran), (50, 50, serde_json::json!({})));
}

/// A share of few records says little. Lost bytes and lost objects count even so.
#[test]
fn bytes_that_are_no_events() {
    let project = project();
    let noise: Vec<u8> = (0..5_000u32).map(|i| (i * i % 251) as u8).collect();
    project.write(&format!("{HOUR}/b.bin"), noise);
    refused(
        &project,
        4,
        &[
            "5000 of",
            "bytes of new raw objects are lost",
            "b.bin",
            "exclude",
        ],
    );
    let ran = project.rawmart(&["run", "--max-rejects", "100%", "--output", "json"]);
    ran.expect(0, &[]);
    let (records, events, rejects) = counts(&ran);
    let rejects: u64 = rejects
        .as_object()
        .unwrap()
        .values()
        .map(|n| n.as_u64().unwrap())
        .sum();
    assert_eq!(events, 20);
    assert!(rejects > 0);
    assert_eq!(records, events + rejects);
    assert_eq!(project.lake().rows("app_rejects").len() as u64, rejects);
}

/// The raw objects that a run names as not whole: name, records, events, stored bytes, lost bytes, and whether
/// these words are in the reason.
fn incomplete(ran: &Ran, words: &[&str]) -> Vec<(String, u64, u64, u64, u64)> {
    let found = &ran.json()["sources"]["app"]["incomplete"];
    let objects = found["objects"].as_array().unwrap();
    assert_eq!(objects.len(), words.len(), "{found}");
    let objects = objects.iter().zip(words).map(|(object, words)| {
        assert!(object["why"].as_str().unwrap().contains(words), "{found}");
        let number = |name: &str| object[name].as_u64().unwrap();
        let key = object["object"].as_str().unwrap();
        let name = key.rsplit('/').next().unwrap().to_owned();
        let (stored, lost) = (number("stored_bytes"), number("lost_bytes"));
        (name, number("records"), number("events"), stored, lost)
    });
    objects.collect()
}

/// A torn object of many events is one reject. The loss shows in its bytes.
#[test]
fn objects_are_lost_by_their_bytes() {
    let project = configured("max_rejects = \"50%\"", RULE);
    // These bytes repeat little, so half of the bytes hold half of the events.
    let long = |ids: std::ops::Range<usize>| -> String {
        let hashes = ids.map(|id| {
            let noise: u64 = (id as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            format!(
                "{{\"id\":\"{noise:x}{:x}\",\"at\":{}}}\n",
                noise.rotate_left(29),
                1_554_076_800 + id
            )
        });
        hashes.collect()
    };
    let mut torn = gzip(&long(100..40_100));
    let size = torn.len() as u64;
    let middle = torn.len() / 5;
    torn[middle..].fill(0xFF);
    project.write(&format!("{HOUR}/b.gz"), &torn);
    project.write(&format!("{HOUR}/c.json"), lines(20..100));
    refused(
        &project,
        4,
        &[
            "stored bytes of new raw objects are lost",
            "max_rejects = 50%",
            "b.gz",
            "gzip member 1",
        ],
    );
    let args = ["run", "--max-rejects", "100%", "--output", "json"];
    let ran = project.rawmart(&args);
    ran.expect(0, &[]);
    let (records, events, rejects) = counts(&ran);
    assert!(records - events < 50, "{rejects}");
    assert!((5_000..20_000).contains(&events), "{events}");
    let found = incomplete(&ran, &["gzip member 1"]);
    let (name, of, made, stored, lost) = &found[0];
    assert_eq!(
        (name.as_str(), *of, *made),
        ("b.gz", records - 100, events - 100)
    );
    assert_eq!(*stored, size);
    assert!((size / 2..size).contains(lost), "{lost} of {size}");
    // An object that is not read again is not named again.
    let again = project.rawmart(&["run", "--output", "json"]);
    assert_eq!(
        again.json()["sources"]["app"]["incomplete"],
        serde_json::Value::Null
    );
    project.rawmart(&["verify"]).expect(0, &["balances"]);
}

/// Each object of another kind is one reject and is named.
#[test]
fn objects_of_other_kinds() {
    let project = configured("max_rejects = \"99%\"", RULE);
    let utf16: Vec<u8> = lines(0..40)
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let mut outer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    outer.write_all(b"PAR1\x15\x04\x15").unwrap();
    let lzo = [&b"\x89LZO\0\r\n\x1A\n"[..], lines(0..500).as_bytes()].concat();
    for (name, bytes) in [
        ("b.json", utf16),
        ("c.gz", outer.finish().unwrap()),
        ("d.lzo", lzo),
        (
            "e.gz",
            [&gzip(&lines(20..30))[..], lines(30..32).as_bytes()].concat(),
        ),
        (
            "f.gz",
            [
                &gzip(&lines(32..40))[..],
                b"\n",
                &gzip(&lines(40..50)),
                b"\n",
            ]
            .concat(),
        ),
    ] {
        project.write(&format!("{HOUR}/{name}"), bytes);
    }
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(0, &[]);
    assert_eq!(counts(&ran), (52, 48, serde_json::json!({ "codec": 4 })));
    let words = [
        "UTF-16 text",
        "a Parquet file inside gzip",
        "lzo-compressed",
        "plain text after gzip member 1",
    ];
    let found = incomplete(&ran, &words);
    let events: Vec<_> = found.iter().map(|(name, _, n, ..)| (&**name, *n)).collect();
    assert_eq!(
        events,
        [("b.json", 0), ("c.gz", 0), ("d.lzo", 0), ("e.gz", 10)]
    );
    assert!(
        found
            .iter()
            .take(3)
            .all(|(.., stored, lost)| stored == lost)
    );
    // The text says the same as the JSON.
    let lake = ["--lake", "other", "run"];
    project.rawmart(&lake).expect(
        0,
        &[
            "raw objects  incomplete",
            "d.lzo: 0 events in 1 records",
            "lzo-compressed",
        ],
    );
}

/// A commit without a single event is always wrong, however few records it has.
#[test]
fn a_commit_of_rejects_alone() {
    let project = project();
    let twice: String = (0..5)
        .map(|id| serde_json::to_string(line(id).trim_end()).unwrap() + "\n")
        .collect();
    project.write(&format!("{HOUR}/a.json"), twice);
    refused(
        &project,
        4,
        &[
            "5 of 5 new records are rejects",
            "not_object 5",
            "--max-rejects 100%",
        ],
    );
    project
        .rawmart(&["run", "--max-rejects", "100%"])
        .expect(0, &["raw objects  incomplete", "not_object 5"]);
    let details = project.lake().cells("app_rejects", &["detail"]);
    assert!(
        details
            .iter()
            .all(|row| row[0].contains("serialised twice")),
        "{details:?}"
    );
    // One event among few records is enough.
    project.write(
        &format!("{HOUR}/b.json"),
        lines(0..1) + "{\"id\": 7}\n{\"id\": 8}\n",
    );
    project.rawmart(&["run"]).expect(0, &["1 new"]);
    // If the records are wrapped in an envelope, the detail says so.
    project.write(
        &format!("{HOUR}/c.json"),
        format!("{{\"Records\": [{}]}}", lines(0..1).trim()),
    );
    project
        .rawmart(&["run"])
        .expect(4, &["1 of 1", "event_time 1"]);
    project
        .rawmart(&["run", "--max-rejects", "100%"])
        .expect(0, &[]);
    let details = project.lake().cells("app_rejects", &["detail"]);
    let said = "`at` is missing; the objects inside `Records` are not read as records";
    assert!(details.iter().any(|row| row[0] == said), "{details:?}");
}

/// Two ids that end in different halves of a surrogate pair are different ids.
#[test]
fn ids_that_are_no_text() {
    let project = configured("on_type_error = \"null\"", RULE);
    let ids = ["\\ud800", "\\udbff", "\\ufffd", "\\ud83d\\ude00"];
    let text: String = ids
        .iter()
        .map(|id| format!("{{\"id\": \"{id}\", \"at\": 1554076800}}\n"))
        .collect();
    project.write(&format!("{HOUR}/a.json"), &text);
    project.rawmart(&["run"]).expect(0, &["made null"]);
    let found = project.lake().cells("app", &["id", "extra"]);
    let expected = [
        ["", "{\"id\":\"\\ud800\"}"],
        ["", "{\"id\":\"\\udbff\"}"],
        ["\u{FFFD}", ""],
        ["😀", ""],
    ];
    assert_eq!(found, expected);
    // By default such an event is a reject that says why.
    project.write("rawmart.toml", toml("", RULE));
    project.rawmart(&["--lake", "other", "run"]).expect(0, &[]);
    let lake = Lake::on_disk(&project.path("other"));
    let details = lake.cells("app_rejects", &["reason", "detail"]);
    assert_eq!(details.len(), 2);
    for row in details {
        assert_eq!(row[0], "type");
        assert!(row[1].contains("half of a surrogate pair"), "{row:?}");
    }
}

#[test]
fn wrong_settings() {
    for (source, rest, parts) in [
        (
            "",
            "[sources.app.columns.x]\ntype = \"varchar\"\n",
            &["sources.app.columns.x", "varchar", "is it `string`?"][..],
        ),
        (
            "",
            "[[sources.app.dedup]]\nname = \"r\"\nkey = [\"idd\"]\nwithin = \"1s\"\n",
            &["sources.app.dedup", "`idd`", "is it `id`?"],
        ),
        (
            "",
            "[[sources.app.dedup]]\nname = \"r\"\nkey = [\"coalesce(id,\"]\nwithin = \"1s\"\n",
            &["rule `r`", "coalesce(id,"],
        ),
        (
            "",
            "[[sources.app.dedup]]\nname = \"r\"\nkey = [\"id\"]\nwhen = \"kind = 'x'\"\nwithin = \"1s\"\n",
            &["rule `r`", "kind"],
        ),
        (
            "",
            "[[sources.app.dedup]]\nname = \"r\"\nkey = [\"id\"]\nwhen = \"random() < 0.5\"\nwithin = \"1s\"\n",
            &["rule `r`", "random"],
        ),
        (
            "",
            "[[sources.app.dedup]]\nname = \"r\"\nkey = [\"id\"]\nwithin = \"soon\"\n",
            &["sources.app.dedup", "within", "soon", "10m"],
        ),
        (
            "max_reject = \"1%\"",
            "",
            &["sources.app.max_reject", "is it `max_rejects`?"],
        ),
        ("slice = \"7h\"", "", &["sources.app.slice", "7h", "1h"]),
        (
            "",
            "[[sources.app.dedup]]\nname = \"r\"\nkey = [\"id\"]\nwithin = \"1s\"\nmode = \"first\"\n",
            &["mode", "first", "`throttle`"],
        ),
        (
            "secret_key = \"hunter2\"",
            "",
            &["sources.app.secret_key", "credentials never"],
        ),
        ("layout = \"%Q\"", "", &["sources.app.layout", "%Q"]),
        ("raw_objects = 1", "lake = 3", &["rawmart.toml"]),
    ] {
        let project = configured(source, rest);
        let ran = project.rawmart(&["run"]);
        ran.expect(2, parts);
        assert!(!ran.err.contains("hunter2"), "{ran:?}");
        assert_empty(&project.lake());
    }
}

#[test]
fn toml_that_does_not_parse() {
    let project = project();
    project.write("rawmart.toml", "lake = \"lake\"\n[sources.app\n");
    refused(&project, 2, &["rawmart.toml:2"]);
}

#[test]
fn a_key_outside_the_layout() {
    let project = project();
    project.write("raw/backfill/part-1.json", lines(0..3));
    refused(
        &project,
        2,
        &["raw/backfill/part-1.json", "%Y/%m/%d/%H/", "exclude"],
    );
}

#[test]
fn a_reference_with_a_missing_file() {
    let project = configured(
        "",
        "[marts]\npath = \"sql\"\n[references.shops]\npath = \"shops.csv\"\n",
    );
    project.write("sql/m.sql", "SELECT count(*) AS shops FROM shops\n");
    refused(
        &project,
        2,
        &["shops.csv does not exist", "references.shops.path"],
    );
}

#[test]
fn marts_that_cannot_be_planned() {
    for (sql, parts) in [
        (
            "SELECT id\nFROM app\nWHERE id = = 3\n",
            &["bad.sql:3", "parse"][..],
        ),
        (
            "SELECT id FROM app;\nSELECT n FROM app\n",
            &["bad.sql", "one"],
        ),
        ("DELETE FROM app\n", &["bad.sql", "SELECT"]),
        ("COPY app TO 'x.csv'\n", &["bad.sql", "SELECT"]),
        ("SELECT id\nFROM apq\n", &["bad.sql:2", "apq", "`app`"]),
        ("SELECT\n    idd\nFROM app\n", &["bad.sql:2", "idd", "`id`"]),
        ("SELECT * FROM '/etc/passwd'\n", &["bad.sql", "/etc/passwd"]),
        (
            "-- partition: day\nSELECT id, dt FROM app\n",
            &["bad.sql", "day"],
        ),
        ("SELECT count(*) FROM bad\n", &["bad.sql", "itself"]),
        ("", &["bad.sql", "SELECT"]),
    ] {
        let project = with_mart(sql);
        refused(&project, 2, parts);
    }
}

#[test]
fn a_partition_takes_rows_of_its_own_date() {
    let near = "-- partition: dt\n-- reads: app back 1d\n";
    for (sql, parts) in [
        (
            "-- partition: dt\nSELECT 1 AS n, '2031-01-01' AS dt FROM app".to_owned(),
            ["dt = 2031-01-01", "made of this date alone"],
        ),
        (
            "-- partition: dt\nSELECT count(*) AS n, max(id) AS dt FROM app".to_owned(),
            ["which is no date", "such as 2024-03-01"],
        ),
        (
            format!("{near}SELECT 1 AS n, CAST(replace(dt, '-', '') AS int) AS dt FROM app"),
            ["is no date", "make `dt` a date"],
        ),
        (
            format!("{near}SELECT 1 AS n, nullif(dt, dt) AS dt FROM app"),
            ["rows of dt = NULL", "leave out rows that have none"],
        ),
    ] {
        with_mart(&sql).rawmart(&["run"]).expect(3, &parts);
    }

    // A mart that reads further may give rows of dates that no input has. The run says so.
    let project = with_mart(&format!(
        "{near}SELECT 1 AS n, CAST(CAST(dt AS date) + INTERVAL '1 day' AS date) AS dt FROM app"
    ));
    let ran = project.rawmart(&["run"]);
    ran.expect(
        0,
        &["left out of bad", "nothing that it reads has the date"],
    );
}

#[test]
fn a_mart_that_fails_takes_only_its_readers_along() {
    let project = configured("", "[marts]\npath = \"sql\"\n");
    let good = "SELECT count(*) AS events FROM app\n";
    project.write("sql/good.sql", good);
    project.write("sql/last.sql", good);
    project.write("sql/fails.sql", "SELECT id, 1 / (n - n) AS boom FROM app\n");
    project.write("sql/reads.sql", "SELECT count(*) AS rows FROM fails\n");
    project.write("sql/reads_again.sql", "SELECT rows FROM reads\n");
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(3, &[]);
    let json = ran.json();
    let marts: Vec<(String, String)> = json["marts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mart| {
            let text = |name: &str| mart[name].as_str().unwrap().to_owned();
            (text("name"), text("outcome"))
        })
        .collect();
    let expected = [
        ("fails", "failed"),
        ("good", "built"),
        ("last", "built"),
        ("reads", "skipped"),
        ("reads_again", "skipped"),
    ];
    let found: Vec<(&str, &str)> = marts.iter().map(|(n, o)| (&**n, &**o)).collect();
    assert_eq!(found, expected);
    assert!(json.to_string().contains("fails.sql"), "{json}");
    let tables = ["app", "good", "last"];
    assert_eq!(project.lake().tables(), tables);
    assert_eq!(project.lake().cells("good", &["events"]), [["20"]]);
    project.rawmart(&["verify"]).expect(0, &[]);

    // The text says the same, and correcting the SQL is enough.
    project.rawmart(&["run"]).expect(
        3,
        &[
            "FAILED fails",
            "fails.sql",
            "skipped reads",
            "which was not built",
        ],
    );
    project.write("sql/fails.sql", "SELECT id, n AS boom FROM app\n");
    project.rawmart(&["run"]).expect(0, &["good (fresh)"]);
    assert_eq!(project.lake().cells("reads_again", &["rows"]), [["20"]]);
}

#[test]
fn a_value_that_fails_a_rule() {
    let project = configured(
        "",
        "[[sources.app.dedup]]\nname = \"r\"\nkey = [\"10 / n\"]\nwithin = \"1s\"\n",
    );
    let ran = project.rawmart(&["run"]);
    ran.expect(4, &["sources.app.dedup: rule `r`", "10 / n", "raw object"]);
    assert_empty(&project.lake());
}

#[test]
fn a_lake_that_is_a_file() {
    let project = project();
    project.write("lake", "I am a file");
    let ran = project.rawmart(&["run"]);
    ran.expect(2, &["/lake"]);
    assert_eq!(
        std::fs::read_to_string(project.path("lake")).unwrap(),
        "I am a file"
    );
}

#[test]
fn a_lake_within_the_raw_folder() {
    let project = project();
    project
        .rawmart(&["--lake", "raw/lake", "run"])
        .expect(2, &["raw/lake", "overlap"]);
}

#[cfg(unix)]
#[test]
fn a_lake_that_may_not_be_written() {
    use std::os::unix::fs::PermissionsExt;
    let project = project();
    std::fs::create_dir(project.path("lake")).unwrap();
    let mode = |mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(project.path("lake"), permissions).unwrap();
    };
    mode(0o555);
    if std::fs::write(project.path("lake/probe"), "").is_ok() {
        // Root may write everywhere, so the test has nothing to check there.
        mode(0o755);
        return;
    }
    let ran = project.rawmart(&["run"]);
    mode(0o755);
    ran.expect(2, &["/lake"]);
    assert_empty(&project.lake());
}

#[test]
fn a_raw_object_that_changed() {
    let project = project();
    project.rawmart(&["run"]).expect(0, &[]);
    let before = project.lake();
    let key = format!("{HOUR}/a.json");
    project.write(&key, lines(5..30));
    for verb in ["plan", "run"] {
        let ran = project.rawmart(&[verb]);
        let code = if verb == "plan" { 0 } else { 4 };
        ran.expect(code, &["2019/04/01/00/a.json"]);
    }
    assert!(project.lake().0 == before.0);
    // Other content of the same length is found too.
    project.write(&key, lines(0..20).replace("\"i7\"", "\"j7\""));
    project
        .rawmart(&["run"])
        .expect(4, &["other content", "restore", "2019/04/01/00/a.json"]);
    assert!(project.lake().0 == before.0);
    // The same bytes with a new time of change are no change.
    std::fs::remove_file(project.path(&key)).unwrap();
    project.write(&key, lines(0..20));
    let before = project.lake().content();
    project
        .rawmart(&["plan"])
        .expect(0, &["new ETags of raw objects with the same content"]);
    project
        .rawmart(&["run"])
        .expect(0, &["Nothing was published"]);
    assert_eq!(project.lake().content(), before);
    project.rawmart(&["run"]).expect(0, &["Nothing new"]);
}

#[test]
fn a_raw_object_that_is_gone() {
    let project = project();
    project.write(&format!("{HOUR}/b.json"), lines(20..40));
    project.rawmart(&["run"]).expect(0, &[]);
    let before = project.lake();
    std::fs::remove_file(project.path(&format!("{HOUR}/a.json"))).unwrap();
    project.rawmart(&["run"]).expect(0, &["Nothing new"]);
    assert!(project.lake().0 == before.0);
    // The events of this object are in the tables already.
    project.write(&format!("{HOUR}/c.json"), lines(40..50));
    project.rawmart(&["run"]).expect(0, &["1 new"]);
    assert_eq!(project.lake().rows("app").len(), 50);
    // A command that needs the object says so, and gives its events up when it is told to.
    let before = project.lake();
    project.rawmart(&["rebuild", "--raw"]).expect(
        4,
        &[
            "gone",
            "restore",
            "2019/04/01/00/a.json",
            "--forget-missing",
        ],
    );
    assert!(project.lake().0 == before.0);
    let forget = ["rebuild", "--raw", "--forget-missing"];
    project.rawmart(&forget).expect(0, &[]);
    assert_eq!(project.lake().rows("app").len(), 30);
    project.rawmart(&["verify"]).expect(0, &[]);
    project.write(&format!("{HOUR}/a.json"), lines(0..20));
    project.rawmart(&["run"]).expect(0, &["1 new"]);
    assert_eq!(project.lake().rows("app").len(), 50);
    // A prefix that lists nothing is more likely a wrong prefix.
    std::fs::remove_dir_all(project.path("raw")).unwrap();
    std::fs::create_dir(project.path("raw")).unwrap();
    project.rawmart(&["run"]).expect(4, &["gone"]);
}

#[test]
fn too_many_rejects() {
    let project = project();
    let bad: String = (0..100).map(|i| format!("no event {i}\n")).collect();
    let text = lines(20..1_000) + &bad;
    project.write(&format!("{HOUR}/b.json"), text);
    refused(
        &project,
        4,
        &[
            "app",
            "100 of 1100",
            "max_rejects = 1%",
            "not_json 100",
            "--max-rejects 100%",
        ],
    );
    let ran = project.rawmart(&["run", "--max-rejects", "100%", "--output", "json"]);
    ran.expect(0, &[]);
    let rejects = serde_json::json!({ "not_json": 100 });
    assert_eq!(counts(&ran), (1_100, 1_000, rejects));
    // Rejects that were accepted once are not judged again.
    project.rawmart(&["run"]).expect(0, &["Nothing new"]);
    // A share of few records says little.
    project.write(&format!("{HOUR}/c.json"), lines(0..5) + "bad\n");
    project.rawmart(&["run"]).expect(0, &["1 new"]);
}

/// If one source is refused, the staged files of the other are deleted.
#[test]
fn too_many_rejects_behind_a_source_that_is_right() {
    let zed = "[sources.zed]\nraw = \"zed\"\nevent_time = \"at\"\n[sources.zed.columns]\n\
               id = \"string\"\nat = \"timestamp\"";
    let project = configured("", zed);
    let bad: String = (0..100).map(|i| format!("no event {i}\n")).collect();
    project.write("zed/2019/04/01/00/z.json", lines(0..1_000) + &bad);
    refused(&project, 4, &["zed", "100 of 1100"]);
    let left = project.lake();
    let staged = left.0.keys().filter(|key| key.contains("staging"));
    assert_eq!(staged.count(), 0, "still staged");
    project
        .rawmart(&["run", "--max-rejects", "100%"])
        .expect(0, &[]);
    assert_eq!(project.lake().rows("app").len(), 20);
}

#[test]
fn wrong_usage() {
    let project = project();
    for args in [
        &["run", "--source", "apq"][..],
        &["run", "--memory", "1MiB"],
        &["run", "--threads", "0"],
        &["run", "--max-rejects", "lots"],
        &["run", "--lake", "gs://bucket/lake"],
        &["rnu"],
    ] {
        let ran = project.rawmart(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
        assert!(ran.err.contains("error:"), "{args:?}: {ran:?}");
        assert_eq!(ran.out, "");
        assert_empty(&project.lake());
    }
}

/// Runs with these arguments. Gives the result and the peak memory of the process in MiB.
#[cfg(target_os = "linux")]
fn peak(project: &Project, args: &[&str]) -> u64 {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_rawmart"))
        .args(args)
        .current_dir(project.path(""))
        .env_clear()
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let high = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let high = high.and_then(|high| high.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = peak.max(high.unwrap_or(0) >> 10);
        if let Some(ended) = child.try_wait().unwrap() {
            assert!(ended.success(), "{ended}");
            return peak;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// Windows of 128 MiB, and members that would be inflated at once, on more threads than the memory has room
/// for.
#[test]
#[cfg(target_os = "linux")]
fn large_windows_and_members_stay_within_the_memory() {
    let project = project();
    let mut blank: Vec<u8> = (0..1u32 << 20)
        .map(|i| b" \t\n"[(i.wrapping_mul(2_654_435_761) >> 30).min(2) as usize])
        .collect();
    let mut zstd = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    zstd.window_log(27).unwrap();
    for id in 20..160 {
        zstd.write_all(line(id).as_bytes()).unwrap();
        zstd.write_all(&blank).unwrap();
        blank.rotate_left(id);
    }
    let zstd = zstd.finish().unwrap();
    let gzip = gzip(&(lines(200..300) + &" ".repeat(60 << 20)));
    for i in 0..6 {
        project.write(&format!("{HOUR}/{i}.zst"), &zstd);
        project.write(&format!("{HOUR}/{i}.gz"), &gzip);
    }
    let args = ["--memory", "256MiB", "--threads", "6", "run"];
    let peak = peak(&project, &args);
    assert!((20..512).contains(&peak), "{peak} MiB");
    assert_eq!(project.lake().rows("app").len(), 20 + 140 + 100);
}
