//! Tests `rawmart tables` and `rawmart ddl` on a lake with difficult partitions, names and texts.

use crate::project::Project;

const TOML: &str = r#"
lake = "lake"
timezone = "Asia/Seoul"

[sources.app]
raw = "raw"
event_time = "at"
accept = { ahead = "36h" }

[sources.app.columns]
at = "timestamp"
os = "string"
tags = "array<string>"
more = "json"

[marts]
path = "sql"
"#;

const BY_OS: &str = "\
-- Events by system. It's the team's table.
-- partition: dt, os
SELECT count(*) AS n, -- all of them
  dt, os FROM app GROUP BY dt, os";

fn lake() -> Project {
    let project = Project::new();
    project.write("rawmart.toml", TOML);
    project.write("sql/by_os.sql", BY_OS);
    let event =
        |at: &str, os: &str| format!("{{\"at\": \"{at}\", \"os\": {os}, \"tags\": [\"a\"]}}\n");
    let events = [
        event("2019-04-01T10:00:00Z", "\"it's/50%\""),
        event("2019-04-01T20:00:00Z", "null"),
    ];
    project.write("raw/2019/04/02/00/a.json", events.concat());
    project.rawmart(&["run"]).expect(0, &["Published"]);
    project
}

#[test]
fn a_table_is_described_as_the_log_has_it() {
    let project = lake();
    let ran = project.rawmart(&["tables", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let tables = json["tables"].as_array().unwrap();
    let names: Vec<_> = tables
        .iter()
        .map(|table| table["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["app", "app_duplicates", "app_rejects", "by_os"]);
    let mart = &tables[3];
    assert_eq!(mart["holds"], "mart");
    assert_eq!(mart["comment"], "Events by system. It's the team's table.");
    assert_eq!(mart["columns"][0]["comment"], "all of them");
    assert_eq!((&mart["rows"], &mart["files"]), (&2.into(), &2.into()));
    let folders: Vec<_> = mart["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["folder"].as_str().unwrap())
        .collect();
    assert_eq!(
        folders,
        [
            "dt=2019-04-01/os=it%27s%2F50%25",
            "dt=2019-04-02/os=__HIVE_DEFAULT_PARTITION__"
        ]
    );
    project.rawmart(&["tables"]).expect(
        0,
        &[
            "app  kept events of app",
            "2 partitions, dt=2019-04-01 to dt=2019-04-02",
            "more        string  JSON text",
            "dt          string  partition  date of at in Asia/Seoul",
            "4 tables after 2 commits",
        ],
    );
}

#[test]
fn the_ddl_of_every_reader_names_what_the_log_names() {
    let project = lake();
    let ddl = |args: &[&str]| project.rawmart(&[&["ddl", "--dialect"], args].concat());
    ddl(&["athena"]).expect(
        0,
        &[
            "COMMENT 'Events by system. It\\'s the team\\'s table.'",
            "`n` bigint COMMENT 'all of them'",
            // 36 hours are two days, and Seoul is ahead of UTC.
            "'projection.dt.range' = '2019-04-01,NOW+3DAYS'",
            "PARTITION (`dt` = '2019-04-01', `os` = 'it\\'s/50%') LOCATION 'file://",
            "/by_os/dt=2019-04-01/os=it%27s%2F50%25/'",
            "`os` = '__HIVE_DEFAULT_PARTITION__'",
        ],
    );
    ddl(&["redshift"]).expect(
        0,
        &[
            "\"tags\" super",
            "WHERE \"dt\" = '2019-04-02' AND \"os\" IS NULL;",
        ],
    );
    let since = ddl(&["spectrum", "--table", "app", "--since", "2019-04-02"]);
    since.expect(0, &["PARTITION (\"dt\" = '2019-04-02')"]);
    assert!(
        !since.out.contains("2019-04-01") && !since.out.contains("CREATE"),
        "{}",
        since.out
    );
    let since = ddl(&["hive", "--since", "2"]);
    assert!(!since.out.contains("PARTITION ("), "{}", since.out);
    ddl(&["hive", "--table", "nothing"]).expect(2, &["no table `nothing`", "by_os"]);
    ddl(&["oracle"]).expect(2, &["athena", "duckdb"]);
    ddl(&["hive", "--since", "yesterday"]).expect(2, &["the number of a commit, or a date"]);
}

#[test]
fn a_lake_without_a_commit_has_no_tables() {
    let project = Project::new();
    project.write("rawmart.toml", TOML);
    project.write("sql/by_os.sql", BY_OS);
    project.write("raw/.keep", "");
    project
        .rawmart(&["tables"])
        .expect(0, &["no run has committed yet"]);
    let ran = project.rawmart(&["ddl", "--dialect", "duckdb"]);
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (Some(0), "CREATE SCHEMA IF NOT EXISTS \"rawmart\";\n")
    );
    let ran = project.rawmart(&["ddl", "--dialect", "duckdb", "--table", "app"]);
    ran.expect(2, &["it has no commit yet"]);
}
