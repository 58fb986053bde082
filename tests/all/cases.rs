//! `rawmart test`: marts over small inputs in files, and marts of a lake over more dates than they say that they read.

use serde_json::{Value, json};

use crate::project::{Project, Ran};

const CONFIG: &str = r#"
lake = "s3://no-such-bucket/lake"
[sources.app]
raw = "raw"
event_time = "at"

[sources.app.columns]
id = "string"
at = "timestamp"
who = "string"
os = "string"
n = "bigint"
tags = "array<string>"

[references.codes]
path = "codes.csv"

[marts]
path = "sql/marts"
"#;

const BY_OS: &str = "-- Users by system.\n-- partition: dt\n-- unique: dt, os\n-- check: users > 0\n\
    SELECT os, count(DISTINCT who) AS users, sum(n) / 3.0 AS third, dt FROM app GROUP BY os, dt\n";

const WEEK: &str = "-- partition: dt\n-- reads: by_os back 1d\n\
    SELECT CAST(sum(b.users) AS bigint) AS users, max(codes.name) AS name, d.dt\n\
    FROM (SELECT DISTINCT dt FROM by_os) AS d JOIN by_os AS b ON b.dt <= d.dt\n\
    LEFT JOIN codes ON codes.os = b.os GROUP BY d.dt\n";

fn project() -> Project {
    let project = Project::new();
    project.write("rawmart.toml", CONFIG);
    project.write("codes.csv", "os,name\nios,Apple\n");
    project.write("sql/marts/by_os.sql", BY_OS);
    project.write("sql/marts/week.sql", WEEK);
    project
}

/// Writes the files of a case.
fn case(project: &Project, case: &str, files: &[(&str, &str)]) {
    for (name, text) in files {
        project.write(&format!("fixtures/marts/{case}/{name}"), text);
    }
}

fn test(project: &Project, args: &[&str], code: i32) -> Ran {
    let ran = project.rawmart(&[&["test", "--output", "json"], args].concat());
    ran.expect(code, &[]);
    ran
}

fn tried(ran: &Ran, name: &str) -> Value {
    let json = ran.json();
    let cases = json["cases"].as_array().unwrap();
    let found = cases.iter().find(|tried| tried["case"] == name);
    found.unwrap_or_else(|| panic!("{json}")).clone()
}

#[test]
fn cases_are_compared_whatever_the_order_of_rows_and_need_no_lake() {
    let project = project();
    case(
        &project,
        "by_os/two_days",
        &[
            (
                "app.csv",
                "who,os,n,dt\nann,ios,1,2019-04-01\nann,ios,1,2019-04-01\nbob,,5,2019-04-01\nann,ios,,2019-04-02\n",
            ),
            // Columns that are left out are not compared, and doubles are compared to nine digits.
            (
                "expected.csv",
                "dt,users,os,third\n2019-04-02,1,ios,\n2019-04-01,1,,1.6666666667\n2019-04-01,1,ios,0.66666666666\n",
            ),
            ("README.md", "Why."),
        ],
    );
    case(
        &project,
        "by_os/lines",
        &[
            (
                "app.ndjson",
                "{\"who\":\"ann\",\"tags\":[\"a\"],\"dt\":\"2019-04-01\"}\n\n{\"dt\":\"2019-04-01\",\"who\":\"bob\"}\n",
            ),
            ("expected.ndjson", "{\"users\":2,\"dt\":\"2019-04-01\"}\n"),
        ],
    );
    // The mart reads another mart, of which only the dates in reach count, and a reference.
    case(
        &project,
        "week/back_one_day",
        &[
            (
                "by_os.csv",
                "os,users,dt\nios,1,2019-04-01\nios,10,2019-04-02\nweb,100,2019-04-03\n",
            ),
            ("codes.csv", "os,name\nweb,Browser\n"),
            (
                "expected.csv",
                "users,name,dt\n1,,2019-04-01\n11,,2019-04-02\n110,Browser,2019-04-03\n",
            ),
        ],
    );
    let ran = test(&project, &[], 0);
    let checks = json!({"ran": 2, "failed": []});
    assert_eq!(tried(&ran, "two_days")["checks"], checks);
    assert_eq!(tried(&ran, "two_days")["rows"], 3);
    assert_eq!(tried(&ran, "lines")["outcome"], "passed");
    assert_eq!(tried(&ran, "back_one_day")["outcome"], "passed");
    assert_eq!(
        test(&project, &["week"], 0).json()["cases"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    project
        .rawmart(&["test"])
        .expect(0, &["ok by_os/two_days (3 rows)", "3 of 3 cases passed"]);
}

#[test]
fn a_difference_is_told_by_rows_and_cells_and_blessed() {
    let project = project();
    let input = "who,os,n,dt\nann,ios,1,2019-04-01\nbob,web,3,2019-04-01\n";
    case(
        &project,
        "by_os/wrong",
        &[
            ("app.csv", input),
            (
                "expected.csv",
                "os,users,dt\nios,4,2019-04-01\nwindows,1,2019-04-01\n",
            ),
        ],
    );
    case(&project, "by_os/none", &[("app.csv", input)]);
    let ran = test(&project, &["--junit", "out.xml"], 7);
    assert_eq!(ran.json()["error"]["code"], "test_failed");
    assert_eq!(ran.json()["untested"], json!(["week"]));
    assert_eq!(
        tried(&ran, "wrong")["differences"],
        json!({
            "columns": ["os", "users", "dt"],
            "counts": {"missing": 1, "unexpected": 1, "changed": 1},
            "missing": [["windows", "1", "2019-04-01"]],
            "unexpected": [["web", "1", "2019-04-01"]],
            "changed": [{
                "expected": ["ios", "4", "2019-04-01"],
                "cells": [{"column": "users", "expected": "4", "found": "1"}]
            }]
        })
    );
    let error = tried(&ran, "none")["error"].as_str().unwrap().to_owned();
    assert!(
        error.contains("has no expected.csv: `rawmart test --bless`"),
        "{error}"
    );
    let xml = std::fs::read_to_string(project.path("out.xml")).unwrap();
    for part in [
        "<testsuites name=\"rawmart\" tests=\"2\" failures=\"2\">",
        "<testcase classname=\"by_os\" name=\"wrong\"><failure message=\"changed",
        "missing    (os=windows, users=1, dt=2019-04-01)",
    ] {
        assert!(xml.contains(part), "{xml}");
    }
    project.rawmart(&["test"]).expect(
        7,
        &[
            " FAILED by_os/wrong (2 rows)",
            "changed    (os=ios, users=4, dt=2019-04-01): users is 1",
            "missing    (os=windows, users=1, dt=2019-04-01)",
            "unexpected (os=web, users=1, dt=2019-04-01)",
            "0 of 2 cases passed",
            "error: 2 of 2 cases failed: by_os/none, by_os/wrong",
        ],
    );

    // The file that was there keeps its columns.
    project
        .rawmart(&["test", "--bless"])
        .expect(0, &["blessed by_os/wrong"]);
    let blessed = |case: &str| {
        let file = format!("fixtures/marts/by_os/{case}/expected.csv");
        std::fs::read_to_string(project.path(&file)).unwrap()
    };
    assert_eq!(
        blessed("wrong"),
        "os,users,dt\nios,1,2019-04-01\nweb,1,2019-04-01\n"
    );
    assert_eq!(
        blessed("none"),
        "os,users,third,dt\nios,1,0.3333333333333333,2019-04-01\nweb,1,1.0,2019-04-01\n"
    );
    test(&project, &[], 0);
}

#[test]
fn what_csv_cannot_tell_is_blessed_as_ndjson() {
    let project = project();
    project.write(
        "sql/marts/odd.sql",
        "SELECT coalesce(os, '') AS os, who, tags, at FROM app\n",
    );
    let lines = "{\"who\":\"a\",\"tags\":[\"x\",\"y\"],\"at\":\"2019-04-01T01:02:03.004Z\"}\n{\"os\":\"b\"}\n";
    case(&project, "odd/nested", &[("app.ndjson", lines)]);
    test(&project, &["odd", "--bless"], 0);
    let file = project.path("fixtures/marts/odd/nested/expected.ndjson");
    let text = std::fs::read_to_string(file).unwrap();
    assert!(
        text.contains("\"os\":\"\"") && text.contains("[\"x\",\"y\"]"),
        "{text}"
    );
    test(&project, &["odd"], 0);
}

#[test]
fn claims_and_failures_of_the_mart_fail_the_case() {
    let project = project();
    project.write(
        "sql/marts/by_os.sql",
        BY_OS.replace("users > 0", "users > 1"),
    );
    project.write(
        "sql/checks/by_os__known.sql",
        "SELECT os FROM by_os WHERE os NOT IN (SELECT os FROM codes)",
    );
    project.write("sql/marts/divides.sql", "SELECT 1 / n AS x FROM app\n");
    let input = "who,os,n,dt\nann,web,0,2019-04-01\n";
    case(
        &project,
        "by_os/one",
        &[
            ("app.csv", input),
            ("codes.csv", "os\nios\n"),
            ("expected.csv", "users\n1\n"),
        ],
    );
    case(
        &project,
        "divides/zero",
        &[("app.csv", input), ("expected.csv", "x\n")],
    );
    let ran = test(&project, &[], 7);
    let one = tried(&ran, "one");
    assert_eq!(one["differences"], Value::Null);
    let broken = one["checks"]["failed"].as_array().unwrap().iter();
    let broken: Vec<&Value> = broken.map(|check| &check["check"]).collect();
    assert_eq!(broken, ["check: users > 1", "by_os__known"]);
    let error = tried(&ran, "divides".replace("divides", "zero").as_str())["error"].clone();
    assert!(
        error
            .as_str()
            .unwrap()
            .contains("divides.sql:1: cannot divide by zero"),
        "{error}"
    );
}

#[test]
fn a_wrong_fixture_is_refused_with_the_nearest_name() {
    for (file, text, parts) in [
        (
            "by_os/a/ap.csv",
            "who\nann\n",
            &["by_os/a/ap.csv: the mart `by_os` does not read `ap`; is it `app`?"][..],
        ),
        (
            "by_os/a/app.csv",
            "whoo,dt\nann,2019-04-01\n",
            &["by_os/a/app.csv:1: the table has no column `whoo`; is it `who`?"],
        ),
        (
            "by_os/a/app.csv",
            "who\nann\n",
            &["reads `app` by date, and the file has no `dt`"],
        ),
        (
            "by_os/a/app.csv",
            "n,dt\nx,2019-04-01\n",
            &["by_os/a/app.csv:2: ", "`x`"],
        ),
        (
            "by_os/a/app.ndjson",
            "{\"dt\":\"2019-04-01\"}\n[]\n",
            &["by_os/a/app.ndjson:2: not one JSON object"],
        ),
        (
            "by_os/a/app.txt",
            "x",
            &["by_os/a/app.txt: the file is neither CSV nor NDJSON"],
        ),
        (
            "by_so/a/app.csv",
            "x",
            &["there is no mart `by_so`; is it `by_os`?"],
        ),
        (
            "by_os/a/expected.csv",
            "usrs\n1\n",
            &["by_os/a/expected.csv:1: the table has no column `usrs`; is it `users`?"],
        ),
    ] {
        let project = project();
        project.write(&format!("fixtures/marts/{file}"), text);
        let ran = project.rawmart(&["test"]);
        ran.expect(2, parts);
        assert_eq!(ran.err.trim().lines().count(), 1, "{}", ran.err);
    }
    project()
        .rawmart(&["test", "by_oss"])
        .expect(2, &["is it `by_os`?"]);
}

#[test]
fn every_date_is_compared_over_its_reach_and_over_everything() {
    let project = project();
    project.write(
        "rawmart.toml",
        CONFIG.replace("s3://no-such-bucket/lake", "lake"),
    );
    // A user is new on a date if no event of the day before is theirs; one comes back after two days.
    project.write(
        "sql/marts/fresh.sql",
        "-- partition: dt\n-- reads: app back 1d\n\
         SELECT count(*) AS fresh, dt FROM (SELECT who, min(dt) AS dt FROM app GROUP BY who) AS f GROUP BY dt\n",
    );
    for (day, who) in [(1, "ann"), (2, "bob"), (4, "ann"), (5, "cid")] {
        let event = json!({"id": format!("{day}"), "at": format!("2019-04-0{day}T12:00:00Z"), "who": who, "os": "ios"});
        project.write(&format!("raw/2019/04/0{day}/12/a.json"), event.to_string());
    }
    project.rawmart(&["run"]).expect(0, &[]);
    let before = project.lake().0;
    let ran = test(&project, &["--reach"], 7);
    let reached = ran.json()["reached"].clone();
    let of = |name: &str| {
        let marts = reached.as_array().unwrap();
        marts
            .iter()
            .find(|mart| mart["mart"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(
        (&of("by_os")["same"], &of("by_os")["differ"]),
        (&json!(4), &json!([]))
    );
    let differ = of("fresh")["differ"].clone();
    assert_eq!(differ.as_array().unwrap().len(), 1, "{differ}");
    assert_eq!(differ[0]["date"], "2019-04-04");
    let text = project.rawmart(&["test", "--reach", "fresh"]);
    text.expect(
        7,
        &[
            "2019-04-04 DIFFERS: 1 rows over its reach, 0 over everything",
            "fresh 2019-04-04",
        ],
    );
    assert!(project.lake().0 == before);
    project
        .rawmart(&["test", "--reach", "by_os"])
        .expect(0, &["4 dates have the same rows"]);
}
