//! Whole runs of SQL for which the engine's own answer differs from Trino's. Each mart asks a question that
//! people ask, and each value is the answer of Athena.

use crate::project::{Project, Ran, cell};

const TOML: &str = r#"
lake = "lake"
REST
[sources.app]
raw = "raw"
event_time = "at"
[sources.app.columns]
id = "string"
at = "timestamp"
kind = "string"
price = "decimal(12,2)"
n = "bigint"
share = "double"
[marts]
path = "sql"
"#;

/// One event on each line. The first event is at 00:30 on 6 May 2024 in Seoul.
const EVENTS: &str = r#"
{"id": "a", "at": "2024-05-05T15:30:00Z", "kind": "buy", "price": 12.50, "n": 9223372036854775807, "share": 2.5}
{"id": "b", "at": "2024-05-05T15:40:00Z", "kind": "view", "price": 3.25, "n": 2, "share": -2.5}
{"id": "c", "at": "2024-05-05T15:50:00Z", "kind": "buy", "price": 0.10, "n": -7, "share": 0.4}
{"id": "d", "at": "2024-05-05T15:55:00Z", "kind": "view", "price": null, "n": null, "share": null}
"#;

fn project(rest: &str, marts: &[(&str, &str)]) -> Project {
    let project = Project::with(TOML.replace("REST", rest), marts);
    project.write("raw/2024/05/05/15/a.json", EVENTS);
    project
}

fn outcomes(ran: &Ran) -> Vec<(String, String)> {
    let json = ran.json();
    let marts = json["marts"].as_array().unwrap().iter();
    marts
        .map(|mart| (mart["name"].to_string(), mart["outcome"].to_string()))
        .collect()
}

#[test]
fn marts_hold_what_athena_answers() {
    let marts = [
        (
            "revenue",
            "SELECT sum(CASE WHEN kind = 'buy' THEN price ELSE 0 END) AS x FROM app",
            "12.6",
        ),
        (
            "ratio",
            "SELECT CASE WHEN count(*) = 0 THEN 0 ELSE sum(price) * 1.0 / count(*) END AS x FROM app",
            "3.963",
        ),
        (
            "shares",
            "SELECT CASE WHEN count(*) = 0 THEN 0 ELSE sum(n) * 1.0 / count(*) END AS x FROM app WHERE id <> 'a'",
            "-1.6666666666666667",
        ),
        (
            "null_first",
            "SELECT max(x) AS x FROM (SELECT NULL AS x UNION ALL SELECT share FROM app) q",
            "2.5",
        ),
        (
            "unsigned_first",
            "SELECT min(x) AS x FROM (SELECT CASE WHEN n = 2 THEN row_number() OVER (ORDER BY id) ELSE share END AS x FROM app) q",
            "0.4",
        ),
        (
            "whole_and_double",
            "SELECT sum(x) AS x FROM (SELECT n AS x FROM app WHERE n < 9 UNION ALL SELECT share FROM app) q",
            "-4.6",
        ),
        (
            "top",
            "SELECT id AS x FROM app ORDER BY price DESC LIMIT 1",
            "a",
        ),
        (
            "last_page",
            "SELECT first_value(id) OVER (ORDER BY n DESC) AS x FROM app LIMIT 1",
            "a",
        ),
        (
            "rate",
            "SELECT count(*) FILTER (WHERE kind = 'buy') / count(*) AS x FROM app",
            "0",
        ),
        (
            "rounded",
            "SELECT CAST(share AS bigint) AS x FROM app WHERE id = 'b'",
            "-3",
        ),
        (
            "seoul",
            "SELECT CAST(at AT TIME ZONE 'Asia/Seoul' AS timestamp) AS x FROM app WHERE id = 'a'",
            "1714955400000",
        ),
        // The wall clock is written as a wall clock.
        (
            "seoul_hour",
            "SELECT date_trunc('hour', at AT TIME ZONE 'Asia/Seoul') AS x FROM app WHERE id = 'a'",
            "1714953600000",
        ),
        (
            "utc_hour",
            "SELECT date_part('hour', at) AS x FROM app WHERE id = 'a'",
            "15",
        ),
        ("mean", "SELECT avg(price) AS x FROM app", "5.28"),
    ];
    let files: Vec<_> = marts.iter().map(|(name, sql, _)| (*name, *sql)).collect();
    let project = project("timezone = \"Asia/Seoul\"", &files);
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(0, &[]);
    let lake = project.lake();
    for (name, sql, expected) in marts {
        let rows = lake.rows(name);
        assert_eq!(rows.len(), 1, "{sql}");
        let found = cell(&rows[0], "x");
        // A decimal may have zeros behind its last digit.
        let found = match found.contains('.') {
            true => found.trim_end_matches('0').trim_end_matches('.'),
            false => found.as_str(),
        };
        assert_eq!(found, expected, "{sql}");
    }
    // No mart is built a second time.
    let ran = project.rawmart(&["run", "--output", "json"]);
    assert!(
        outcomes(&ran)
            .iter()
            .all(|(_, outcome)| outcome.contains("fresh")),
        "{ran:?}"
    );
}

#[test]
fn what_does_not_fit_is_an_error_of_its_mart() {
    for (sql, part) in [
        (
            "SELECT sum(n) AS x FROM app WHERE n > 0",
            "does not fit bigint",
        ),
        (
            "SELECT sum(n) OVER (ORDER BY id) AS x FROM app",
            "does not fit bigint",
        ),
        ("SELECT n + 1 AS x FROM app", "9223372036854775807 + 1"),
        ("SELECT n * 2 AS x FROM app", "9223372036854775807 * 2"),
        ("SELECT -n - 2 AS x FROM app", "-9223372036854775807 - 2"),
        (
            "SELECT id AS x FROM app WHERE n + 1 > 0",
            "9223372036854775807 + 1",
        ),
        ("SELECT CAST(n AS int) AS x FROM app", "9223372036854775807"),
        ("SELECT n / 0 AS x FROM app", "ivide by zero"),
    ] {
        let project = project(
            "",
            &[("wrong", sql), ("right", "SELECT count(*) AS x FROM app")],
        );
        let ran = project.rawmart(&["run"]);
        // The planner may find the error before anything runs.
        assert!(matches!(ran.code, Some(2 | 3)), "{sql}: {ran:?}");
        ran.expect(ran.code.unwrap(), &["wrong.sql", part]);
        if ran.code == Some(3) {
            assert_eq!(project.lake().cells("right", &["x"]), [["4"]], "{sql}");
        }
        assert_eq!(project.lake().rows("wrong").len(), 0, "{sql}");
    }
}

#[test]
fn a_recursive_query_is_not_cut_to_its_first_row() {
    let recursive = |first: &str, next: &str| {
        format!(
            "WITH RECURSIVE w AS (\n  SELECT {first} AS x\n  UNION ALL\n  SELECT {next} FROM w WHERE x < 5\n)\n\
             SELECT max(x) AS x FROM w"
        )
    };
    let refused = recursive("1", "x * 1.5");
    let project = project("", &[("spine", &refused)]);
    project
        .rawmart(&["run"])
        .expect(2, &["spine.sql:4", "column 1", "CAST"]);
    for (first, next, expected) in [
        ("CAST(1 AS double)", "x * 1.5", "5.0625"),
        ("1", "CAST(x * 1.5 AS bigint)", "5"),
        ("1", "x + 2", "5"),
    ] {
        let sql = recursive(first, next);
        project.write("sql/spine.sql", &sql);
        project.rawmart(&["run"]).expect(0, &[]);
        assert_eq!(project.lake().cells("spine", &["x"]), [[expected]], "{sql}");
    }
}

#[test]
fn rules_obey_the_law_of_the_sql() {
    let rule = |key: &str, when: &str| {
        format!(
            "[[sources.app.dedup]]\nname = \"same\"\nkey = [\"{key}\"]\nwhen = \"{when}\"\nwithin = \"1h\"\n"
        )
    };
    let with = |rule: &str| {
        let project = project("", &[]);
        let toml = TOML
            .replace("REST", "")
            .replace("[marts]\npath = \"sql\"\n", rule);
        project.write("rawmart.toml", toml);
        project
    };
    // 2.5 and -2.5 become 3 and -3, which differ from 2.
    for (key, when, kept) in [
        ("abs(CAST(share AS int))", "true", 3),
        ("kind", "CAST(share AS int) = 3", 4),
        ("kind", "CAST(share AS int) IN (3, 0)", 3),
        (
            "CAST(at AT TIME ZONE 'Asia/Seoul' AS timestamp) > TIMESTAMP '2024-05-06 00:00:00'",
            "true",
            1,
        ),
        ("price / 3 = 1.08", "true", 3),
    ] {
        let project = with(&rule(key, when));
        project.rawmart(&["run"]).expect(0, &[]);
        assert_eq!(project.lake().rows("app").len(), kept, "{key} {when}");
    }
    for (key, when) in [
        ("n + 1", "true"),
        ("id", "n * 2 > 0"),
        ("-n - 2", "id = 'a'"),
    ] {
        let project = with(&rule(key, when));
        let ran = project.rawmart(&["run"]);
        ran.expect(ran.code.unwrap(), &["same", "overflow"]);
        assert_ne!(ran.code, Some(0));
        assert_eq!(project.lake().rows("app").len(), 0, "{key} {when}");
    }
}

#[test]
fn marts_of_another_law_are_built_again() {
    let project = project(
        "",
        &[("top", "SELECT id AS x FROM app ORDER BY price DESC LIMIT 1")],
    );
    project.rawmart(&["run"]).expect(0, &[]);
    let log = project.path("lake/_rawmart/log/00000000000000000002");
    let text = std::fs::read_to_string(&log).unwrap();
    // An earlier version wrote neither a law nor a seal.
    let (before, _) = text.split_once(",\"seal\":").unwrap();
    assert!(before.contains(",\"law\":2"), "{text}");
    let before = format!("{before}}}").replace(",\"law\":2", "");
    std::fs::write(&log, before).unwrap();
    let planned = project.rawmart(&["plan", "--output", "json"]);
    planned.expect(0, &["law_changed"]);
    project.rawmart(&["plan"]).expect(
        0,
        &["mart top: build, this version evaluates SQL in another way"],
    );
    let ran = project.rawmart(&["run", "--output", "json"]);
    assert!(outcomes(&ran)[0].1.contains("built"), "{ran:?}");
    let ran = project.rawmart(&["run", "--output", "json"]);
    assert!(outcomes(&ran)[0].1.contains("fresh"), "{ran:?}");
}

/// A project whose events have JSON, lists and structs.
fn nested(marts: &[(&str, &str)]) -> Project {
    let toml = TOML.replace("REST", "").replace(
        "share = \"double\"\n",
        "props = \"json\"\ntags = \"array<string>\"\n\
         params = \"array<struct<key:string,value:struct<text:string,number:bigint>>>\"\n",
    );
    let project = Project::with(toml, marts);
    project.write(
        "raw/2024/05/05/15/a.json",
        r#"
{"id": "a", "at": "2024-05-05T15:30:00Z", "kind": "buy", "n": 3, "props": {"plan": "pro", "price": 1.50}, "tags": ["x", "y"], "params": [{"key": "page", "value": {"text": "/a"}}, {"key": "ms", "value": {"number": 12}}], "more": {"deep": [7]}}
{"id": "b", "at": "2024-05-06T16:00:00Z", "kind": "view", "n": 2, "props": "no JSON", "tags": [], "params": null}
"#,
    );
    project
}

#[test]
fn a_mart_with_unnest_json_date_diff_and_case_has_athenas_rows() {
    let everyday = "-- partition: dt\n\
         SELECT e.id, u.tag,\n\
         json_extract_scalar(e.props, '$.plan') AS plan,\n\
         e.props ->> 'price' AS price,\n\
         json_extract_scalar(e.extra, '$.more.deep[0]') AS deep,\n\
         date_diff('day', DATE '2024-05-01', CAST(e.dt AS date)) AS day,\n\
         if(e.kind = 'buy', e.n, 0.5) AS amount,\n\
         e.dt\n\
         FROM app AS e LEFT JOIN UNNEST(e.tags) AS u (tag) ON TRUE";
    let keys = "SELECT e.id, key, value.number AS number, place FROM app AS e \
                CROSS JOIN UNNEST(e.params) WITH ORDINALITY AS p (key, value, place)";
    let structs =
        "SELECT e.id, p.key AS k, p.value.text AS v FROM app AS e, UNNEST(e.params) AS u (p)";
    let last = "SELECT max_by(id, at) AS id, count_if(kind = 'buy') AS buys, \
                approx_percentile(n, 0.5) AS middle, arbitrary(kind) AS kind FROM app";
    let project = nested(&[
        ("everyday", everyday),
        ("keys", keys),
        ("structs", structs),
        ("latest", last),
    ]);
    project.rawmart(&["run"]).expect(0, &[]);
    let lake = project.lake();
    assert_eq!(
        lake.cells(
            "everyday",
            &["id", "tag", "plan", "price", "deep", "day", "amount"]
        ),
        [
            ["a", "x", "pro", "1.50", "7", "4", "3.0"],
            ["a", "y", "pro", "1.50", "7", "4", "3.0"],
            ["b", "", "", "", "", "5", "0.5"],
        ]
    );
    assert_eq!(
        lake.cells("keys", &["id", "key", "number", "place"]),
        [["a", "ms", "12", "2"], ["a", "page", "", "1"]]
    );
    assert_eq!(
        lake.cells("structs", &["id", "k", "v"]),
        [["a", "ms", ""], ["a", "page", "/a"]]
    );
    assert_eq!(
        lake.cells("latest", &["id", "buys", "middle", "kind"]),
        [["b", "1", "2", "buy"]]
    );
}

#[test]
fn what_duckdb_answers_differently_is_noted_once_with_its_line() {
    let rate = "SELECT kind,\ncount(*) FILTER (WHERE n > 0) / count(*) AS rate,\n\
                greatest(max(n), 1) AS top FROM app GROUP BY kind";
    let hours = "SELECT hour(at) AS hour,\ncount(*) AS events FROM app GROUP BY 1";
    let local = "SELECT hour(at AT TIME ZONE 'Asia/Seoul') AS hour FROM app";
    let marts = [("rate", rate), ("hours", hours), ("local", local)];
    let project = project("timezone = \"Asia/Seoul\"", &marts);
    let division = "line 2: `integer / integer`: an integer: 7 / 2 is 3; in DuckDB a double: 3.5. Both read `CAST(a AS \
                    double) / b`";
    let greatest = "line 3: `greatest(a, b)`: NULL if one value is NULL";
    let utc = "line 1: `hour` takes a time in UTC";
    let plan = project.rawmart(&["plan"]);
    plan.expect(0, &[division, greatest, utc]);
    assert_eq!(
        plan.out.matches("takes a time in UTC").count(),
        1,
        "{plan:?}"
    );
    let json = project.rawmart(&["plan", "--output", "json"]).json();
    let notes = |name: &str| {
        let marts = json["marts"].as_array().unwrap();
        let mart = marts.iter().find(|mart| mart["mart"] == name).unwrap();
        mart["notes"].as_array().map_or(0, Vec::len)
    };
    assert_eq!([notes("rate"), notes("hours"), notes("local")], [2, 1, 0]);
    project
        .rawmart(&["run"])
        .expect(0, &[division, greatest, utc]);
    // A run tells it when the SQL is new, and not every hour.
    project.write(
        "raw/2024/05/05/15/b.json",
        "{\"id\": \"e\", \"at\": \"2024-05-05T15:31:00Z\", \"kind\": \"view\", \"n\": 1}\n",
    );
    let again = project.rawmart(&["run"]);
    again.expect(0, &["rate"]);
    assert!(!again.out.contains("in DuckDB"), "{again:?}");
}
