//! `rawmart init`: a project from a sample of raw objects that a run accepts unchanged; no file is ever replaced.

use serde_json::{Value, json};

use crate::github_archive::{at, event, gzip, of};
use crate::project::{Project, rawmart};
use crate::s3::S3Server;

/// Runs `init`, then `config`, `plan` and `run`, and gives the documents of `init` and `run`.
fn begun(project: &Project, raw: &str) -> (Value, Value) {
    let made = project.rawmart(&["init", raw, "--output", "json"]);
    made.expect(0, &[]);
    project.rawmart(&["config"]).expect(0, &[]);
    project.rawmart(&["plan"]).expect(0, &[]);
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(0, &[]);
    (made.json(), ran.json())
}

/// The types by the names of columns.
fn types(made: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let columns = made["columns"].as_array().unwrap().iter();
    columns
        .map(|column| (text(&column["name"]), text(&column["type"])))
        .collect()
}

#[test]
fn the_demo_has_no_reject_but_the_planted_ones() {
    let project = crate::docs::demo();
    std::fs::remove_file(project.path("rawmart.toml")).unwrap();
    std::fs::remove_dir_all(project.path("sql")).unwrap();
    let (made, ran) = begun(&project, "fixtures/raw/app-events");
    assert_eq!(made["objects"], 36);
    assert_eq!(made["layout"], "%Y/%m/%d/%H/");
    assert_eq!(made["event_time"], "event_time");
    assert_eq!(
        made["files"],
        json!(["rawmart.toml", "sql/marts/app_events_per_day.sql"])
    );
    let of_types = types(&made);
    let types: Vec<(&str, &str)> = of_types
        .iter()
        .map(|(name, kind)| (name.as_str(), kind.as_str()))
        .collect();
    assert_eq!(
        types[..8],
        [
            ("event_time", "timestamp"),
            ("event_id", "string"),
            ("event_type", "string"),
            ("user_id", "string"),
            ("session_id", "string"),
            ("page", "string"),
            ("target", "string"),
            ("device", "struct<os:string,app_version:string>"),
        ]
    );
    let rules = made["rules"].as_array().unwrap();
    assert_eq!(rules[0]["key"], json!(["event_id"]));
    assert_eq!(rules[0]["within_ms"], 600_000);
    assert_eq!(
        rules[0]["note"].as_str().unwrap(),
        "event_id within 10m: 1.3 % duplicates; 1 repeats lie further apart"
    );
    assert_eq!(rules[1]["key"], json!(["user_id", "target", "page"]));
    assert_eq!(rules[1]["when"], "event_type = 'click'");
    // The demo's own rules find as many.
    let source = &ran["sources"]["app_events"];
    assert_eq!(
        source["duplicates"],
        json!({"redelivery": 93, "double_click": 126})
    );
    assert_eq!(
        source["rejects"],
        json!({"not_json": 3, "type": 1, "event_time": 3, "out_of_range": 3})
    );
    let foreseen: u64 = made["rejects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["count"].as_u64().unwrap())
        .sum();
    assert_eq!(foreseen, 10);
    assert_eq!(ran["marts"][0]["name"], "app_events_per_day");
    let text = std::fs::read_to_string(project.path("rawmart.toml")).unwrap();
    let target = text
        .lines()
        .find(|line| line.starts_with("target = \"string\" "));
    assert!(target.unwrap().ends_with(" # seen in 37.1 %"), "{text}");
}

#[test]
fn github_archive_is_read_as_it_is() {
    let project = Project::new();
    for hour in 0..30 {
        let events = (0..40).map(|n| {
            let id = format!("{}", 1_000 + 40 * hour + n);
            let who = (n, if n % 2 == 0 { "ada" } else { "bo" });
            let repo = (10 + n % 3, "acme/river");
            let made = match n % 3 {
                0 => event(
                    &id,
                    "PushEvent",
                    who,
                    repo,
                    json!({"push_id": n, "size": 2, "commits": [{"sha": "f", "distinct": true}]}),
                ),
                1 => event(&id, "WatchEvent", who, repo, json!({"action": "started"})),
                _ => event(
                    &id,
                    "CreateEvent",
                    who,
                    repo,
                    json!({"ref": null, "ref_type": "branch"}),
                ),
            };
            let day = 1 + hour / 24;
            let made = at(
                made,
                &format!("2015-01-{day:02}T{:02}:{n:02}:00Z", hour % 24),
            );
            if n % 4 == 0 { of(made, "acme") } else { made }
        });
        let mut events: Vec<Value> = events.collect();
        // The crawler overlapped.
        events.push(events[39].clone());
        let name = format!("archive/2015-01-{:02}-{}.json.gz", 1 + hour / 24, hour % 24);
        project.write(&name, gzip(&events));
    }
    let (made, ran) = begun(&project, "archive/");
    assert_eq!(made["layout"], "%Y-%m-%d-%-H");
    assert_eq!(made["event_time"], "created_at");
    assert_eq!(made["rules"][0]["key"], json!(["id"]));
    let of_types = types(&made);
    let kind = |name: &str| of_types.iter().find(|(n, _)| n == name).unwrap().1.as_str();
    assert_eq!(kind("repo"), "struct<id:bigint,name:string>");
    assert_eq!(kind("org"), "struct<id:bigint,login:string>");
    assert_eq!(kind("payload"), "json");
    assert_eq!(kind("public"), "boolean");
    let source = &ran["sources"]["archive"];
    assert_eq!(source["rejects"], json!({}));
    assert_eq!(source["duplicates"], json!({"redelivery": 30}));
}

#[test]
fn odd_names_and_values_have_columns_that_a_run_reads() {
    let project = Project::new();
    let records: String = (0..200)
        .map(|n| {
            let at = 1_554_080_400 + n;
            let mixed = match n % 3 {
                0 => json!(n),
                1 => json!(format!("u{n}")),
                _ => json!(true),
            };
            let record = json!({
                "ID": n, "eventTime": at, "dt": "x", "raw_size": 1, "user": mixed, "a.b": {"c d": 1},
                "\u{1b}[31m": "red", "": 1, "order": 2, "items": [{"sellerId": n, "dt": 1.5}],
                "tags": {format!("k{n}"): 1}, "php": if n % 2 == 0 { json!([]) } else { json!({"x": 1}) },
                "never": null, "day": "2019-04-01",
            });
            format!("{record}\n")
        })
        .collect();
    project.write("raw/dt=2019-04-01/hour=01/a.json", records);
    let (made, ran) = begun(&project, "raw");
    assert_eq!(made["layout"], "dt=%F/hour=%H/");
    assert_eq!(made["source"], "events");
    let source = &ran["sources"]["events"];
    assert_eq!(source["rejects"], json!({}));
    assert_eq!(source["events"], 200);
    let of_types = types(&made);
    for (name, kind) in [
        ("event_time", "timestamp"),
        ("id", "bigint"),
        ("field_dt", "string"),
        ("field_raw_size", "bigint"),
        ("user", "string"),
        ("a_b", "struct<c_d:bigint>"),
        ("field_31m", "string"),
        ("items", "array<struct<field_dt:double,seller_id:bigint>>"),
        ("tags", "map<string,bigint>"),
        ("php", "struct<x:bigint>"),
        ("day", "date"),
    ] {
        let expected = (name.to_owned(), kind.to_owned());
        assert!(of_types.contains(&expected), "{name} {kind}: {of_types:?}");
    }
    let text = std::fs::read_to_string(project.path("rawmart.toml")).unwrap();
    assert!(!text.contains('\u{1b}'), "a control character was written");
    let lake = project.lake();
    let row = &lake.rows("events")[1];
    assert_eq!(row["field_31m"].as_deref(), Some("red"));
    assert!(
        row["items"].as_deref().unwrap().contains("seller_id: 1"),
        "{row:?}"
    );
    let texts = |name: &str| lake.cells("events", &[name]);
    assert!(texts("user").contains(&vec!["true".to_owned()]));
}

#[test]
fn the_same_sample_gives_the_same_files_also_on_s3() {
    let server = S3Server::start(&["raw"]);
    let record = |n: i64| {
        format!(
            "{{\"id\":\"e{n}\",\"at\":\"2019-04-01 1{}:00:0{}\",\"n\":{n}}}\n",
            n % 9,
            n % 10
        )
    };
    for n in 0..90 {
        // The hours of the keys are UTC, and the times are those of Seoul.
        let key = format!("app/events/2019/04/01/{:02}/{n}", (n % 9) + 1);
        server.put("raw", &key, record(n));
    }
    let files: Vec<(String, String)> = (0..2)
        .map(|_| {
            let project = Project::new();
            let init = ["init", "s3://raw/app/events"];
            let made = rawmart(&project.path(""), &init, &server.env());
            made.expect(0, &["naive_timezone", "Next:"]);
            let read = |name: &str| std::fs::read_to_string(project.path(name)).unwrap();
            let ran = rawmart(&project.path(""), &["run"], &server.env());
            ran.expect(0, &["90 events"]);
            (read("rawmart.toml"), read("sql/marts/events_per_day.sql"))
        })
        .collect();
    assert_eq!(files[0], files[1]);
    let config = &files[0].0;
    assert!(
        config.contains("raw = \"s3://raw/app/events/\""),
        "{config}"
    );
    assert!(
        config.contains("naive_timezone = \"Etc/GMT-9\""),
        "{config}"
    );
}

#[test]
fn nothing_is_replaced_and_nothing_is_written_when_it_fails() {
    let good = "{\"id\":\"a\",\"ts\":1554076800}\n";
    for (files, args, parts) in [
        (
            &[("rawmart.toml", "mine")][..],
            &["init", "raw"][..],
            &["rawmart.toml exists, and nothing is ever replaced"][..],
        ),
        (
            &[("sql/marts/x.sql", "mine")],
            &["init", "raw"],
            &["x.sql exists, and nothing is ever replaced"],
        ),
        (&[], &["init", "none"], &["none/ does not exist"]),
        (
            &[("empty/a", ""), ("empty/_SUCCESS", "x")],
            &["init", "empty"],
            &["holds no raw object with content (1 empty, 1 hidden"],
        ),
        (
            &[("bad/a", "no JSON\nat all\n")],
            &["init", "bad"],
            &[
                "no JSON object was found in 1 raw objects",
                "record 1: not_json",
            ],
        ),
        (
            &[("bad/a", "PAR1\u{15}")],
            &["init", "bad"],
            &["no JSON object was found", "Parquet"],
        ),
        (
            &[("timeless/a", "{\"x\":1,\"\\u001b[2J\":2}")],
            &["init", "timeless"],
            &[
                "no member of the records looks like the time",
                "members are x, \\u001b[2J",
            ],
        ),
        (&[], &["init", "."], &["lake"]),
        (&[], &["init", "gs://b/x"], &["gs"]),
    ] {
        let project = Project::new();
        project.write("raw/a.json", good);
        for (name, content) in files {
            project.write(name, content);
        }
        let before = crate::project::Lake::on_disk(&project.path("")).0;
        let ran = project.rawmart(args);
        ran.expect(2, parts);
        assert!(!ran.err.contains('\u{1b}'));
        let after = crate::project::Lake::on_disk(&project.path("")).0;
        assert!(before == after, "{args:?} wrote: {:?}", after.keys());
    }
}

/// The last record of the part that is read of a large object is no reject.
#[test]
fn a_large_object_is_read_in_part() {
    let project = Project::new();
    let record = |n: usize| {
        let at = 1_554_080_400 + n / 100;
        format!(
            "{{\"id\":\"e{n}\",\"ts\":{at},\"pad\":\"{}\"}}\n",
            "x".repeat(2_000)
        )
    };
    project.write(
        "raw/2019/04/01/01/big",
        (0..8_000).map(record).collect::<String>(),
    );
    project.write("raw/2019/04/01/01/small", record(9_000));
    let made = project.rawmart(&["init", "raw", "--output", "json"]);
    made.expect(0, &[]);
    let made = made.json();
    assert_eq!(made["rejects"], json!([]));
    let records = made["records"].as_u64().unwrap();
    assert!((1_000..8_000).contains(&records), "{records}");
}

#[test]
fn more_rejects_than_usual_are_told_and_accepted() {
    let project = Project::new();
    let mut records: String = (0..2_000)
        .map(|n| format!("{{\"id\":\"e{n}\",\"ts\":{}}}\n", 1_554_080_400 + n))
        .collect();
    records.push_str(&"broken {\n".repeat(100));
    project.write("raw/2019/04/01/02/a", records);
    let (made, ran) = begun(&project, "raw");
    assert_eq!(made["rejects"][0]["reason"], "not_json");
    assert_eq!(made["rejects"][0]["count"], 100);
    assert_eq!(
        ran["sources"]["events"]["rejects"],
        json!({"not_json": 100})
    );
    let text = std::fs::read_to_string(project.path("rawmart.toml")).unwrap();
    assert!(text.contains("max_rejects = \"10%\""), "{text}");

    // An object of another kind is one reject, and many bytes.
    let project = Project::new();
    project.write(
        "raw/2019/04/01/02/a",
        "{\"id\":\"e\",\"ts\":1554080400}\n".repeat(50),
    );
    project.write(
        "raw/2019/04/01/02/b",
        format!("PAR1\u{15}{}PAR1", "x".repeat(2_000)),
    );
    let (made, ran) = begun(&project, "raw");
    assert_eq!(made["rejects"][0]["reason"], "codec");
    assert_eq!(ran["sources"]["events"]["rejects"], json!({"codec": 1}));
}

#[test]
fn records_inside_of_envelopes_are_found() {
    let time = |n: i64| format!("2019-04-01T01:{:02}:{:02}Z", n / 60, n % 60);
    let trail = |n: i64| {
        json!({"eventVersion": "1.08", "eventTime": time(n), "eventID": format!("e{n}"),
               "eventName": "GetObject", "userIdentity": {"type": "IAMUser", "userName": "kim"},
               "requestParameters": {"bucketName": "b"}})
    };
    let trails: Vec<Value> = (0..100).map(trail).collect();
    let firehose = |n: i64| {
        let event = json!({"event_id": format!("e{n}"), "event_time": time(n), "n": n}).to_string();
        let text = base64(event.as_bytes());
        format!(
            "{}\n",
            json!({"attemptsMade": 4, "arrivalTimestamp": 1554080400000_i64, "errorCode": "x", "errorMessage": "y", "attemptEndingTimestamp": 1554080460000_i64, "rawData": text})
        )
    };
    let connect = |n: i64| {
        format!(
            "{}\n",
            json!({"schema": {"type": "struct"}, "payload": {"id": format!("e{n}"), "ts": time(n)}})
        )
    };
    for (key, content, unwrap, id, time) in [
        (
            "AWSLogs/1/CloudTrail/eu-west-1/2019/04/01/a.json",
            json!({ "Records": trails }).to_string(),
            "{ array = \"Records\" }",
            "event_id",
            "event_time",
        ),
        (
            "processing-failed/2019/04/01/01/a",
            (0..100).map(firehose).collect(),
            "\"firehose-error\"",
            "event_id",
            "event_time",
        ),
        (
            "topics/t/2019/04/01/01/a",
            (0..100).map(connect).collect(),
            "\"kafka-connect\"",
            "id",
            "ts",
        ),
    ] {
        let project = Project::new();
        project.write(&format!("raw/{key}"), content);
        let (made, ran) = begun(&project, "raw");
        assert_eq!(made["unwrap"], unwrap);
        assert_eq!(made["records"], 100, "{unwrap}");
        assert_eq!(made["event_time"], time, "{unwrap}");
        assert_eq!(made["rules"][0]["key"], json!([id]), "{unwrap}");
        let source = &ran["sources"]["events"];
        assert_eq!(source["events"], 100, "{unwrap}");
        assert_eq!(source["rejects"], json!({}), "{unwrap}");
    }
}

/// Base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for digit in 0..4 {
            match digit <= group.len() {
                true => text.push(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63] as char),
                false => text.push('='),
            }
        }
    }
    text
}
