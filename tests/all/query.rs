//! `rawmart query`: the answers of the marts' SQL over every table, in four formats; nothing is written.

use crate::project::{Project, Ran, clicks};

fn project() -> Project {
    let config = format!(
        "lake = \"lake\"\n[references.names]\npath = \"names.csv\"\n[marts]\npath = \"sql\"\n{}",
        clicks(
            "raw",
            "at",
            "layout = false\nmax_rejects = \"100%\"",
            "within = \"1s\""
        )
    );
    let mart = "-- partition: dt\nSELECT dt, count(*) AS events FROM app GROUP BY dt";
    let project = Project::with(config, &[("daily", mart)]);
    project.write("names.csv", "who,name\nx,Kim\ny,Lee\n");
    project.write(
        "raw/a.json",
        "{\"id\": \"a\", \"at\": 1554076800, \"who\": \"x\"}\n\
         {\"id\": \"a\", \"at\": 1554076800, \"who\": \"x\"}\n\
         {\"id\": \"b\", \"at\": 1554163200, \"who\": \"y\"}\n\
         no JSON\n",
    );
    project.rawmart(&["run"]).expect(0, &["Published"]);
    project
}

fn answer(project: &Project, format: &str, sql: &str) -> String {
    let ran = project.rawmart(&["query", "--format", format, sql]);
    ran.expect(0, &[]);
    assert_eq!(ran.err, "");
    ran.out
}

#[test]
fn every_table_and_reference_can_be_queried() {
    let project = project();
    let before = project.lake().0;
    for (sql, csv) in [
        (
            "SELECT e.id, n.name, e.at, e.dt FROM app e JOIN names n ON n.who = e.who ORDER BY e.id DESC",
            "id,name,at,dt\nb,Lee,2019-04-02T00:00:00Z,2019-04-02\na,Kim,2019-04-01T00:00:00Z,2019-04-01\n",
        ),
        (
            "SELECT rule, count(*) FROM app_duplicates GROUP BY rule",
            "rule,count(*)\nredelivery,1\n",
        ),
        (
            "SELECT reason, raw_text FROM app_rejects",
            "reason,raw_text\nnot_json,no JSON\n",
        ),
        (
            "SELECT * FROM daily ORDER BY dt",
            "events,dt\n1,2019-04-01\n1,2019-04-02\n",
        ),
        // The law of the marts: integers are divided as integers, and NULL comes last.
        (
            "SELECT 7 / 2 AS q, nullif(id, 'a') AS id FROM app ORDER BY id DESC",
            "q,id\n3,b\n3,\n",
        ),
    ] {
        assert_eq!(answer(&project, "csv", sql), csv, "{sql}");
    }
    // A source without a mart's folder and a lake without the lock: nothing was touched.
    assert!(project.lake().0 == before, "a query wrote");
}

#[test]
fn an_answer_comes_in_four_formats_and_in_a_document() {
    let project = project();
    let sql = "SELECT id, CAST(who = 'x' AS int) AS is_x FROM app ORDER BY id";
    for (format, expected) in [
        (
            "table",
            "id  is_x\n--  ----\na      1\nb      0\n(2 rows)\n",
        ),
        ("csv", "id,is_x\na,1\nb,0\n"),
        (
            "json",
            "[{\"id\":\"a\",\"is_x\":1},{\"id\":\"b\",\"is_x\":0}]",
        ),
        (
            "ndjson",
            "{\"id\":\"a\",\"is_x\":1}\n{\"id\":\"b\",\"is_x\":0}\n",
        ),
    ] {
        assert_eq!(answer(&project, format, sql), expected, "{format}");
    }
    project.write("question.sql", format!("-- owner: nobody\n{sql};\n"));
    let ran = project.rawmart(&["query", "--file", "question.sql", "--output", "json"]);
    let document = ran.json();
    assert_eq!(document["count"], 2);
    assert_eq!(
        document["columns"][1],
        serde_json::json!({"name": "is_x", "type": "int"})
    );
    assert_eq!(
        document["rows"],
        serde_json::json!([{"id": "a", "is_x": 1}, {"id": "b", "is_x": 0}])
    );
}

#[test]
fn a_query_that_is_wrong_prints_no_row_and_names_the_line() {
    let project = project();
    let before = project.lake().0;
    project.write("q.sql", "SELECT id,\n  lenght(id)\nFROM app\n");
    let failed = |args: &[&str], parts: &[&str]| -> Ran {
        let ran = project.rawmart(&[&["query"], args].concat());
        ran.expect(2, parts);
        assert_eq!(ran.out, "", "{args:?}");
        ran
    };
    failed(
        &["SELECT 1 FROM ap"],
        &["error: query:1: there is no table `ap`; is it `app`?"],
    );
    failed(&["--file", "q.sql"], &["error: q.sql:2: ", "lenght"]);
    failed(&["--file", "none.sql"], &["none.sql: cannot read the file"]);
    // The first rows are right.
    failed(
        &["SELECT id,\n CAST(replace(id, 'a', '1') AS int) AS n FROM app ORDER BY id"],
        &["error: query:2: "],
    );
    for sql in [
        "DROP TABLE app",
        "INSERT INTO app SELECT * FROM app",
        "COPY app TO 'x.csv'",
        "CREATE TABLE x AS SELECT 1 AS n",
        "SELECT 1 AS n; SELECT 2 AS n",
        "SELECT * FROM 'names.csv'",
    ] {
        failed(&[sql], &["error: query"]);
    }
    assert!(project.lake().0 == before, "a query wrote");
    failed(&[], &["<SQL>"]);
    failed(&["SELECT 1", "--file", "q.sql"], &["cannot be used with"]);
}

#[test]
fn a_lake_without_tables_says_so() {
    let config = format!(
        "lake = \"lake\"\n{}",
        clicks("raw", "at", "", "within = \"1s\"")
    );
    let project = Project::with(config, &[]);
    let ran = project.rawmart(&["query", "SELECT 1 AS n FROM app"]);
    ran.expect(2, &["there is no table `app`; the lake has no tables yet"]);
    assert!(project.lake().0.is_empty());
}

#[test]
fn the_summary_prints_queries_that_show_duplicates_and_rejects() {
    let project = project();
    project.write(
        "raw/b.json",
        "{\"id\": \"c\", \"at\": 1554163300, \"who\": \"y\"}\n",
    );
    let quiet = project.rawmart(&["run"]);
    quiet.expect(0, &["Published"]);
    assert!(!quiet.out.contains("rawmart query"), "{quiet:?}");
    project.write(
        "raw/c.json",
        "{\"id\": \"c\", \"at\": 1554163300, \"who\": \"y\"}\nno JSON either\n",
    );
    let ran = project.rawmart(&["run"]);
    let lines: Vec<&str> = ran
        .out
        .lines()
        .filter_map(|line| line.strip_prefix("  rawmart query "))
        .collect();
    let shown: Vec<String> = lines
        .iter()
        .map(|line| answer(&project, "csv", line.trim_matches('"')))
        .collect();
    assert_eq!(shown.len(), 2, "{ran:?}");
    assert!(
        shown[0].contains("redelivery,c.json,1,b.json,1"),
        "{shown:?}"
    );
    assert!(
        shown[1].contains("not_json,") && shown[1].contains("no JSON either"),
        "{shown:?}"
    );
}
