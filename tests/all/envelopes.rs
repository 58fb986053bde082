//! Sources whose records lie in envelopes: what a run absorbs, what it says, and what a change of `unwrap` asks for.

use crate::project::{Lake, Project};

const HOUR: &str = "raw/2019/04/02/03";

/// A source `app` with these settings and this column.
fn toml(settings: &str, column: &str) -> String {
    format!(
        "lake = \"lake\"\n[sources.app]\nraw = \"raw/\"\nevent_time = \"at\"\n{settings}\n\
         [sources.app.columns]\nid = \"string\"\nat = \"timestamp\"\n{column}\n\
         [[sources.app.dedup]]\nname = \"again\"\nkey = [\"id\"]\nwithin = \"1d\"\n"
    )
}

const OWNER: &str = "owner = { type = \"string\", path = \"@envelope.owner\" }";

/// A batch of log events with these ids.
fn batch(owner: &str, ids: &[&str]) -> String {
    let events: Vec<String> = ids
        .iter()
        .map(|id| format!("{{\"id\":\"{id}\",\"at\":\"2019-04-02T03:00:00Z\"}}"))
        .collect();
    format!(
        "{{\"messageType\":\"DATA_MESSAGE\",\"owner\":\"{owner}\",\"logEvents\":[{}]}}\n",
        events.join(",")
    )
}

#[test]
fn a_source_of_envelopes_balances_and_says_what_held_no_record() {
    let project = Project::with(
        toml(
            "unwrap = \"cloudwatch-logs\"\nmax_rejects = \"100%\"",
            OWNER,
        ),
        &[],
    );
    let control = "{\"messageType\":\"CONTROL_MESSAGE\",\"logEvents\":[]}\n";
    project.write(
        &format!("{HOUR}/a.json"),
        batch("1", &["a", "b"])
            + control
            + &batch("2", &[])
            + "{\"x\":1}\n"
            + &batch("2", &["a", "c"]),
    );
    let ran = project.rawmart(&["run"]);
    ran.expect(0, &["no record", "control messages", "empty envelopes"]);
    let found = project
        .lake()
        .cells("app", &["id", "owner", "raw_record", "extra"]);
    assert_eq!(
        found,
        [
            ["a", "1", "1", ""],
            ["b", "1", "2", ""],
            ["c", "2", "5", ""]
        ]
    );
    let twice = project
        .lake()
        .cells("app_duplicates", &["id", "owner", "kept_record"]);
    assert_eq!(twice, [["a", "2", "1"]]);
    let columns = ["reason", "detail", "raw_record", "raw_text"];
    let rejects = project.lake().cells("app_rejects", &columns);
    let detail = "expected the array `logEvents`, found no such member";
    assert_eq!(rejects, [["envelope", detail, "3", "{\"x\":1}"]]);
    project.rawmart(&["verify"]).expect(0, &[]);
    let json = project.rawmart(&["run", "--output", "json"]).json();
    assert_eq!(json["sources"]["app"]["rejects"]["envelope"], 1);
    // A source that is told of nothing else refuses such objects, and says what to correct.
    project.write("rawmart.toml", toml("unwrap = { array = \"Records\" }", ""));
    let refused = project.rawmart(&["--lake", "other", "run"]);
    refused.expect(4, &["5 envelope", "correct sources.app.unwrap"]);
}

/// A changed `unwrap` asks for a rebuild, and the rebuilt lake is the lake of a first run.
#[test]
fn a_changed_unwrap_is_rebuilt_from_raw() {
    let project = Project::with(toml("max_rejects = \"100%\"", ""), &[]);
    let own =
        "{\"id\":\"own\",\"at\":\"2019-04-01T03:00:00Z\",\"messageType\":\"\",\"logEvents\":[]}\n";
    project.write(&format!("{HOUR}/a.json"), batch("1", &["a", "b"]) + own);
    project.write(&format!("{HOUR}/b.json"), batch("2", &["c"]));
    let ran = project.rawmart(&["run"]);
    ran.expect(0, &[]);
    assert_eq!(project.lake().cells("app", &["id"]), [["own"]]);
    let details = project.lake().cells("app_rejects", &["detail"]);
    assert!(details[0][0].contains("the objects inside `logEvents` are not read as records"));

    let unwrapping = toml(
        "unwrap = \"cloudwatch-logs\"\nmax_rejects = \"100%\"",
        OWNER,
    );
    project.write("rawmart.toml", &unwrapping);
    project
        .rawmart(&["run"])
        .expect(4, &["unwrap changed", "rebuild"]);
    project.rawmart(&["rebuild"]).expect(0, &[]);
    project.rawmart(&["verify"]).expect(0, &[]);
    project.rawmart(&["--lake", "other", "run"]).expect(0, &[]);
    let other = Lake::on_disk(&project.path("other"));
    let owners = project.lake().cells("app", &["id", "owner"]);
    assert_eq!(owners, [["a", "1"], ["b", "1"], ["c", "2"]]);
    assert_eq!(
        project.lake().cells("app", &["id", "owner"]),
        other.cells("app", &["id", "owner"])
    );
    assert!(other.rows("app_rejects").is_empty() && project.lake().rows("app_rejects").is_empty());
    // A rebuild of one day from raw reads the same records.
    let day = [
        "rebuild",
        "--raw",
        "--from",
        "2019-04-02",
        "--to",
        "2019-04-02",
    ];
    project.rawmart(&day).expect(0, &[]);
    assert_eq!(project.lake().cells("app", &["id", "owner"]), owners);
}

/// A new column of the envelope is NULL on older dates, where `extra` does not have it, until a rebuild reads raw.
#[test]
fn a_new_column_of_the_envelope_is_filled_from_raw() {
    let unwrap = "unwrap = \"cloudwatch-logs\"";
    let project = Project::with(toml(unwrap, ""), &[]);
    project.write(&format!("{HOUR}/a.json"), batch("1", &["a"]));
    project.rawmart(&["run"]).expect(0, &[]);
    project.write("rawmart.toml", toml(unwrap, OWNER));
    project.write(&format!("{HOUR}/b.json"), batch("2", &["b"]));
    project
        .rawmart(&["run"])
        .expect(0, &["column owner is newer than"]);
    project.rawmart(&["rebuild"]).expect(0, &[]);
    let owners = project.lake().cells("app", &["id", "owner"]);
    assert_eq!(owners, [["a", "1"], ["b", "2"]]);
}

/// The prefixes that other sources leave out are read by a source of records that Firehose could not deliver.
#[test]
fn undelivered_records_are_read_from_the_error_prefixes() {
    use base64::Engine;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let record = |id: &str| format!("{{\"id\":\"{id}\",\"at\":\"2019-04-02T03:00:00Z\"}}");
    let failed = |raw: &str| {
        format!(
            "{{\"attemptsMade\":4,\"errorCode\":\"x\",\"rawData\":\"{}\"}}\n",
            encode(raw)
        )
    };
    let project = Project::with(
        toml(
            "unwrap = \"firehose-error\"",
            "code = { type = \"string\", path = \"@envelope.errorCode\" }",
        ),
        &[],
    );
    let key = "raw/processing-failed/2019/04/02/03/a.json";
    project.write(
        key,
        failed(&(record("a") + &record("b"))) + &failed(&record("c")),
    );
    project.rawmart(&["run"]).expect(0, &["1 new"]);
    let found = project.lake().cells("app", &["id", "code", "raw_record"]);
    assert_eq!(found, [["a", "x", "1"], ["b", "x", "2"], ["c", "x", "3"]]);
}
