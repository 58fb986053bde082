//! `rawmart why`: what became of an event or a record, along the whole chain; nothing is written.

use serde_json::{Value, json};

use crate::project::{Project, Ran, clicks, rawmart};
use crate::s3::S3Server;

/// Ids within 10 m, then clicks of one user within 30 s.
fn config(raw: &str, lake: &str, mode: &str) -> String {
    let source = clicks(
        raw,
        "at",
        "exclude = [\"**/errors/**\"]\nmax_rejects = \"100%\"",
        &format!("within = \"30s\"\nmode = \"{mode}\""),
    );
    format!("lake = \"{lake}\"\n{source}")
}

fn project(mode: &str) -> Project {
    let project = Project::with(config("raw", "lake", mode), &[]);
    // 1554076800 is 2019-04-01T00:00:00Z.
    project.write(
        "raw/2019/04/01/00/a.json",
        "{\"id\": \"one\", \"at\": 1554076800, \"who\": \"kim\"}\n\
         {\"id\": \"two\", \"at\": 1554076820.5, \"who\": \"kim\"}\n\
         {\"id\": \"three\", \"at\": 1554076845, \"who\": \"kim\"}\n\
         {\"id\": \"broken-id\", \"at\": \"never\"}\n",
    );
    project.rawmart(&["run"]).expect(0, &["Published"]);
    project
}

fn document(project: &Project, args: &[&str]) -> Value {
    let ran = project.rawmart(&[&["why", "--output", "json"], args].concat());
    ran.expect(0, &[]);
    ran.json()
}

/// The verdict, the record and the rule of each event of a chain.
fn chain(found: &Value) -> Vec<(String, i64, String)> {
    let chain = found["chain"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    chain
        .map(|fate| {
            (
                text(&fate["verdict"]),
                fate["raw_record"].as_i64().unwrap(),
                text(&fate["displaced"]["rule"]),
            )
        })
        .collect()
}

fn link(verdict: &str, record: i64, rule: &str) -> (String, i64, String) {
    (verdict.to_owned(), record, rule.to_owned())
}

#[test]
fn an_event_has_its_verdict_rule_key_distance_place_and_commit() {
    let project = project("throttle");
    let before = project.lake().0;
    let document = document(&project, &["id=two"]);
    assert_eq!(document["found"], 1);
    let fate = &document["matches"][0]["chain"][0];
    let run = fate["written"]["run"].clone();
    let commit = json!({"commit": 1, "run": run, "at": fate["written"]["at"]});
    assert_eq!(
        *fate,
        json!({
            "verdict": "duplicate", "source": "app", "table": "app_duplicates",
            "raw_object": "2019/04/01/00/a.json", "raw_record": 2, "event_time": "2019-04-01T00:00:20.500Z",
            "partition": "dt=2019-04-01", "file": "app_duplicates/dt=2019-04-01/part-00000.parquet",
            "written": commit, "absorbed": commit,
            "displaced": {
                "rule": "double_click", "mode": "throttle", "within_ms": 30_000,
                "key": [{"expression": "who", "value": "kim"}],
                "kept_object": "2019/04/01/00/a.json", "kept_record": 1, "distance_ms": 20_500.0
            }
        })
    );
    let links = [link("duplicate", 2, "double_click"), link("kept", 1, "")];
    assert_eq!(chain(&document["matches"][0]), links);
    let text = project.rawmart(&["why", "id=two"]);
    text.expect(
        0,
        &[
            "duplicate: event of 2019-04-01T00:00:20.500Z, record 2 of 2019/04/01/00/a.json",
            "rule      double_click: same who = kim",
            "distance  20.5 s after the event that displaced it (the rule says within 30s)",
            "displaced by\nkept: event of 2019-04-01T00:00:00.000Z, record 1 of",
            "file      lake/app/dt=2019-04-01/part-00000.parquet",
            "decided   by commit 1 of run ",
        ],
    );
    assert!(project.lake().0 == before, "why wrote");
}

/// The second run changes the data file of an event that it does not read.
#[test]
fn the_commit_that_absorbed_and_the_commit_that_wrote_differ() {
    let project = project("throttle");
    project.write(
        "raw/2019/04/02/00/b.json",
        "{\"id\": \"one\", \"at\": 1554076800, \"who\": \"kim\"}\n",
    );
    project.rawmart(&["run"]).expect(0, &["Published"]);
    let document = document(&project, &["id=one"]);
    let matches = document["matches"].as_array().unwrap();
    let links = [link("duplicate", 1, "redelivery"), link("kept", 1, "")];
    assert_eq!(chain(&matches[1]), links);
    let commits = |fate: &Value| {
        let of = |what: &str| fate[what]["commit"].as_u64().unwrap();
        (of("absorbed"), of("written"))
    };
    assert_eq!(commits(&matches[0]["chain"][0]), (1, 1));
    assert_eq!(commits(&matches[1]["chain"][0]), (2, 2));
    assert_eq!(matches[1]["chain"][0]["displaced"]["distance_ms"], 0.0);
    // The duplicate that was there before lies in a file that commit 2 has written again.
    let two = self::document(&project, &["id=two"]);
    assert_eq!(commits(&two["matches"][0]["chain"][0]), (1, 2));
}

#[test]
fn a_chain_is_told_to_its_end_in_every_mode() {
    for (mode, id, links) in [
        ("throttle", "three", vec![link("kept", 3, "")]),
        (
            "gap",
            "three",
            vec![link("duplicate", 3, "double_click"), link("kept", 1, "")],
        ),
        (
            "gap-last",
            "one",
            vec![
                link("duplicate", 1, "double_click"),
                link("duplicate", 2, "double_click"),
                link("kept", 3, ""),
            ],
        ),
        (
            "tumbling",
            "two",
            vec![link("duplicate", 2, "double_click"), link("kept", 1, "")],
        ),
    ] {
        let project = project(mode);
        let document = document(&project, &[&format!("id={id}")]);
        assert_eq!(chain(&document["matches"][0]), links, "{mode}");
        assert_eq!(document["matches"][0]["complete"], true, "{mode}");
    }
}

#[test]
fn a_record_is_named_by_its_object_and_number_or_its_url() {
    let project = project("throttle");
    let url = format!(
        "file://{}",
        project.path("raw/2019/04/01/00/a.json").display()
    );
    for object in ["2019/04/01/00/a.json", &url] {
        let kept = document(&project, &[object, "1"]);
        assert_eq!(chain(&kept["matches"][0]), [link("kept", 1, "")]);
        let reject = document(&project, &[object, "4"]);
        let fate = &reject["matches"][0]["chain"][0];
        assert_eq!(fate["verdict"], "reject");
        assert_eq!(fate["rejected"]["reason"], "event_time");
        assert_eq!(fate["table"], "app_rejects");
        assert_eq!(fate["file"], "app_rejects/dt=2019-04-01/part-00000.parquet");
        assert_eq!(fate["written"]["commit"], 1);
    }
    // The id of a reject is in no column, but in the text of the record.
    let ran = project.rawmart(&["why", "id=broken-id"]);
    ran.expect(
        0,
        &[
            "id = broken-id: no row",
            "rejects that have the value in their text: 1",
            "reject: record 4 of 2019/04/01/00/a.json",
            "reason    event_time: ",
        ],
    );
}

#[test]
fn what_is_not_there_is_explained() {
    let project = project("throttle");
    project.write("raw/2019/04/01/00/late.json", "{}");
    project.write("raw/2019/04/01/00/errors/x.json", "{}");
    for (args, because, text) in [
        (
            ["2019/04/01/00/a.json", "9"],
            json!({"because": "few_records", "source": "app", "object": "2019/04/01/00/a.json", "records": 4}),
            "app has absorbed 2019/04/01/00/a.json, which has only 4 records",
        ),
        (
            ["2019/04/01/00/late.json", "1"],
            json!({"because": "not_absorbed", "source": "app"}),
            "late.json yet: `rawmart run` does",
        ),
        (
            ["2019/04/01/00/errors/x.json", "1"],
            json!({"because": "excluded", "source": "app"}),
            "app excludes ",
        ),
        (
            ["2019/04/01/00/b.json", "1"],
            json!({"because": "never_seen", "source": "app"}),
            "holds 3 objects, 1 of them absorbed and 1 excluded; is it 2019/04/01/00/a.json?",
        ),
    ] {
        let document = document(&project, &args);
        assert_eq!(document["found"], 0);
        let record = &document["absent"]["records"][0];
        for (name, value) in because.as_object().unwrap() {
            assert_eq!(record[name], *value, "{args:?}");
        }
        project
            .rawmart(&["why", args[0], args[1]])
            .expect(0, &[text]);
    }
    let drop = [
        "rebuild",
        "--source",
        "app",
        "--drop-object",
        "2019/04/01/00/a.json",
    ];
    project.rawmart(&drop).expect(0, &[]);
    let dropped = document(&project, &["2019/04/01/00/a.json", "1"]);
    assert_eq!(dropped["absent"]["records"][0]["because"], "dropped");
    assert_eq!(dropped["absent"]["records"][0]["commit"], 2);
}

#[test]
fn a_wrong_question_names_what_was_meant() {
    let project = project("throttle");
    let refused = |args: &[&str], parts: &[&str]| -> Ran {
        let ran = project.rawmart(&[&["why"], args].concat());
        ran.expect(2, parts);
        ran
    };
    refused(&["idd=x"], &["there is no column `idd`; is it `id`?"]);
    refused(
        &["zzzzzz=x"],
        &["the columns are at, detail, dt, extra, id, "],
    );
    refused(
        &["at=soon"],
        &["`soon` is no time; write it as 2019-04-02T09:00:00Z"],
    );
    refused(&["raw_record=x"], &["`x` is no value of its type"]);
    refused(
        &["rule=x", "reason=y"],
        &["no table has all of the columns rule, reason"],
    );
    refused(&["x"], &["write COLUMN=VALUE, such as `why event_id=e1`"]);
    for args in [["at=2019-04-01T00:00:45Z"], ["at=1554076845"]] {
        assert_eq!(document(&project, &args)["found"], 1);
    }
    assert_eq!(
        document(&project, &["who=kim", "dt=2019-04-01"])["found"],
        3
    );
    assert_eq!(document(&project, &["rule=double_click"])["found"], 1);
    assert_eq!(document(&project, &["reason=event_time"])["found"], 1);
}

#[test]
fn of_many_matches_the_first_ten_are_told() {
    let project = Project::with(config("raw", "lake", "throttle"), &[]);
    let events: String = (0..500)
        .map(|n| {
            let at = 1_554_076_800 + 60 * (499 - n);
            format!("{{\"id\": \"e{n}\", \"at\": {at}, \"who\": \"kim\"}}\n")
        })
        .collect();
    project.write("raw/2019/04/01/23/a.json", events);
    project.rawmart(&["run"]).expect(0, &[]);
    let document = document(&project, &["who=kim"]);
    assert_eq!(document["found"], 500);
    let matches = document["matches"].as_array().unwrap();
    let records = matches
        .iter()
        .map(|found| found["chain"][0]["raw_record"].as_u64().unwrap());
    // The last records have the first event times.
    assert_eq!(
        records.collect::<Vec<_>>(),
        (491..=500).rev().collect::<Vec<_>>()
    );
    project
        .rawmart(&["why", "who=kim"])
        .expect(0, &["who = kim: 500 rows, of which the first 10 are told"]);
}

/// A commit that its run did not publish is a part of the state: its files lie in the staging folder.
#[test]
fn an_unpublished_commit_is_read_from_its_staged_files() {
    let project = project("throttle");
    project.write(
        "raw/2019/04/01/01/b.json",
        "{\"id\": \"four\", \"at\": 1554080400, \"who\": \"lee\"}\n",
    );
    let staged = run_until_committed(&project);
    assert!(staged, "the second commit was published");
    let document = document(&project, &["id=four"]);
    assert_eq!(document["last_commit"], 2);
    assert_eq!(chain(&document["matches"][0]), [link("kept", 1, "")]);
    let ran = project.rawmart(&[
        "query",
        "--format",
        "csv",
        "SELECT id FROM app WHERE who = 'lee'",
    ]);
    assert_eq!(ran.out, "id\nfour\n");
}

/// Runs, then undoes the publication: the published files of before are put back and the marker is deleted.
fn run_until_committed(project: &Project) -> bool {
    let before = project.lake().0;
    let ran = project.rawmart(&["run"]);
    ran.expect(0, &[]);
    let after = project.lake().0;
    let marker = "_rawmart/log/00000000000000000002.published";
    let commit: Value = {
        let text = &after["_rawmart/log/00000000000000000002"];
        let text = String::from_utf8_lossy(text);
        let line = text.lines().next().unwrap();
        serde_json::from_str(line).unwrap()
    };
    for file in commit["files"].as_array().unwrap() {
        let staged = file["staged"].as_str().unwrap();
        let table = file["table"].as_str().unwrap();
        let key = format!("{table}/dt=2019-04-01/{}", file["name"].as_str().unwrap());
        project.write(&format!("lake/{staged}"), &after[&key]);
        match before.get(&key) {
            Some(bytes) => project.write(&format!("lake/{key}"), bytes),
            None => std::fs::remove_file(project.path(&format!("lake/{key}"))).unwrap(),
        }
    }
    std::fs::remove_file(project.path(&format!("lake/{marker}"))).is_ok()
}

/// A day with many events in one file of several row groups: a record is found by the event times of its object, and
/// an id by the bloom filter, without reading the columns of the whole day.
#[test]
fn one_event_of_a_large_day_costs_few_bytes_and_requests() {
    let server = S3Server::start(&["raw", "lake"]);
    let project = Project::new();
    let config = config("s3://raw/app", "s3://lake/app", "throttle");
    let config = config.replace("event_time =", "bloom_filters = [\"id\"]\nevent_time =");
    project.write("rawmart.toml", config);
    const EVENTS: u64 = 300_000;
    for hour in 0..24 {
        let events: String = (0..EVENTS / 24)
            .map(|n| {
                let n = hour * (EVENTS / 24) + n;
                let at = 1_554_076_800_000 + n * 86_400_000 / EVENTS;
                let id = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                format!(
                    "{{\"id\": \"{id:016x}\", \"at\": {at}, \"who\": \"u{}\"}}\n",
                    n % 90_001
                )
            })
            .collect();
        server.put("raw", &format!("app/2019/04/01/{hour:02}/a"), events);
    }
    let run = |args: &[&str]| {
        let ran = rawmart(&project.path(""), args, &server.env());
        ran.expect(0, &[]);
        ran
    };
    run(&["run"]);
    let before = server.objects("lake");
    let table = "app/app/dt=2019-04-01/part-00000.parquet";
    let size = before[table].len() as u64;
    let n = 7 * (EVENTS / 24) + 42;
    let id = format!("id={:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    for (args, share) in [
        ([&id[..], "dt=2019-04-01"], 2),
        (["2019/04/01/07/a", "43"], 5),
    ] {
        server.clear_log();
        let document = run(&[&["why", "--output", "json"], &args[..]].concat()).json();
        assert_eq!(document["found"], 1, "{args:?}");
        let fate = &document["matches"][0]["chain"][0];
        assert_eq!(fate["raw_object"], "2019/04/01/07/a");
        assert_eq!(fate["raw_record"], 43);
        let read = document["bytes_read"].as_u64().unwrap();
        assert!(
            0 < read && read < size / share,
            "{args:?}: {read} of {size}"
        );
        let log = server.log();
        let writes = log
            .iter()
            .filter(|(op, _)| op != "GetObject" && op != "HeadObject");
        let writes: Vec<_> = writes.filter(|(op, _)| op != "ListObjectsV2").collect();
        assert_eq!(writes, Vec::<&(String, String)>::new());
        let of_data = log.iter().filter(|(_, key)| key.ends_with(".parquet"));
        assert!(of_data.count() <= 12, "{args:?}: {log:?}");
    }
    assert!(server.objects("lake") == before, "why wrote");
}
