//! Whole runs with marts that fail, and with marts that say too little about the dates that they read. A fault
//! of one mart makes only this mart fail, with the name of its file, and none of its rows is published.

use serde_json::{Value, json};

use crate::project::{Project, Ran};

const CONFIG: &str = r#"
lake = "lake"
[sources.app]
raw = "raw"
event_time = "at"

[sources.app.columns]
id = "string"
at = "timestamp"
who = "string"
n = "bigint"
tags = "array<string>"

[marts]
path = "sql"
"#;

/// Events of some users at noon of a day of April 2019. `repeated` is the number of events of each user.
fn day(project: &Project, day: u32, users: &[&str]) {
    let lines: String = users
        .iter()
        .enumerate()
        .map(|(n, who)| {
            format!(
                "{{\"id\":\"{day}-{n}\",\"at\":\"2019-04-{day:02}T12:00:00Z\",\"who\":\"{who}\",\"n\":{n},\
                 \"tags\":[\"a\",\"b\"]}}\n"
            )
        })
        .collect();
    project.write(&format!("raw/2019/04/{day:02}/12/a.json"), lines);
}

/// Eight days on which some users come back.
fn project(marts: &[(&str, &str)]) -> Project {
    let project = Project::with(CONFIG, marts);
    for number in 1..=8 {
        let own = format!("u{number}");
        let before = format!("u{}", number.max(2) - 1);
        let users = [
            "ann",
            &own,
            &before,
            if number % 3 == 0 { "bob" } else { "cid" },
        ];
        day(&project, number, &users);
    }
    project.write("sql/count.sql", "SELECT count(*) AS n FROM app\n");
    project
}

fn mart(ran: &Ran, name: &str) -> Value {
    let json = ran.json();
    let marts = json["marts"].as_array().unwrap();
    let found = marts.iter().find(|mart| mart["name"] == name);
    found.unwrap_or_else(|| panic!("{json}")).clone()
}

/// The users of a day who come back so many days later.
const RETENTION: &str = "SELECT first.dt, date_part('day', again.at) - date_part('day', first.at) AS later,\n\
    count(DISTINCT again.who) AS users\n\
    FROM app AS first JOIN app AS again ON again.who = first.who AND again.at >= first.at\n\
    GROUP BY first.dt, later\n";

#[test]
fn a_mart_that_reads_other_dates_than_it_says_is_not_published() {
    let short = format!("-- partition: dt\n{RETENTION}");
    let project = project(&[
        ("retention", &short),
        ("reader", "SELECT sum(users) AS n FROM retention"),
    ]);
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(3, &[]);
    let failed = mart(&ran, "retention");
    assert_eq!(failed["outcome"], "failed");
    let error = failed["error"].as_str().unwrap();
    for part in [
        "sql/retention.sql: the partition dt=2019-04-",
        "needs other dates too",
        "1 row from this date alone, ",
        "at least `-- reads: app ahead 7d`",
        "`-- reads: app back 0d`",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(mart(&ran, "count")["outcome"], "built");
    assert_eq!(mart(&ran, "reader")["outcome"], "skipped");
    assert_eq!(project.lake().tables(), ["app", "count"]);
    project
        .rawmart(&["run"])
        .expect(3, &["FAILED retention", "app ahead 7d"]);

    // With the `reads` that the message names, every row is there.
    let right = format!("-- partition: dt\n-- reads: app ahead 7d\n{RETENTION}");
    project.write("sql/retention.sql", right);
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(0, &[]);
    assert_eq!(mart(&ran, "retention")["sample"], Value::Null);
    let whole = mart(&ran, "retention")["rows"].clone();
    // An author who says that each date is meant alone is believed.
    let alone = format!("-- partition: dt\n-- reads: app back 0d\n{RETENTION}");
    project.write("sql/retention.sql", alone);
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(0, &[]);
    assert_eq!(mart(&ran, "retention")["rows"], 8);
    assert!(whole.as_u64().unwrap() > 8, "{whole}");

    // If the changed SELECT says too little, the earlier content stays.
    project.write("sql/retention.sql", short);
    project.rawmart(&["run"]).expect(3, &["FAILED retention"]);
    let days = project.lake().cells("retention", &["later"]);
    assert_eq!(days.len(), 8);
    project.rawmart(&["verify"]).expect(0, &[]);
}

#[test]
fn the_reads_that_a_mart_needs_are_found_for_each_table() {
    let totals = "-- partition: dt\nSELECT days.dt, sum(app.n) AS n, count(*) AS rows\n\
        FROM (SELECT DISTINCT dt FROM app) AS days JOIN app ON app.dt <= days.dt\n\
        AND CAST(app.dt AS date) >= CAST(days.dt AS date) - INTERVAL '2 days' GROUP BY days.dt\n";
    let per_day = "-- partition: dt\nSELECT dt, count(*) AS n FROM app GROUP BY dt\n";
    let of_two = "-- partition: dt\nSELECT a.dt, sum(a.n) AS n, sum(b.n) AS before FROM per_day AS a\n\
        JOIN app ON app.dt = a.dt\n\
        LEFT JOIN per_day AS b ON CAST(b.dt AS date) = CAST(a.dt AS date) - INTERVAL '1 day'\n\
        GROUP BY a.dt\n";
    let project = project(&[("totals", totals), ("per_day", per_day), ("of_two", of_two)]);
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(3, &[]);
    let error = |name: &str| mart(&ran, name)["error"].as_str().unwrap().to_owned();
    let text = error("totals");
    assert!(text.contains("at least `-- reads: app back 2d`"), "{text}");
    let text = error("of_two");
    assert!(
        text.contains("at least `-- reads: per_day back 1d`"),
        "{text}"
    );
    assert!(
        text.contains("`-- reads: app back 0d, per_day back 0d`"),
        "{text}"
    );
    assert_eq!(mart(&ran, "per_day")["sample"], Value::Null);
}

#[test]
fn a_mart_that_reads_what_it_says_is_built_and_the_comparison_is_told() {
    let honest = "-- partition: dt\n\
        SELECT CAST(CAST(at AS date) AS string) AS dt, who, sum(n / 3.0) AS thirds FROM app GROUP BY 1, who\n";
    let project = project(&[("honest", &honest.replace("AS string", "AS varchar"))]);
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(0, &[]);
    assert_eq!(
        mart(&ran, "honest")["sample"],
        json!({
            "same": {"2019-04-01": 35, "2019-04-05": 35, "2019-04-08": 35},
            "not_compared": {},
            "too_few": false
        })
    );
    // The comparison is done once.
    day(&project, 9, &["ann"]);
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(0, &[]);
    assert_eq!(mart(&ran, "honest")["outcome"], "built");
    assert_eq!(mart(&ran, "honest")["sample"], Value::Null);
    project.write(
        "sql/honest.sql",
        format!("-- Again.\n{}", honest.replace("AS string", "AS varchar")),
    );
    project.rawmart(&["run"]).expect(
        0,
        &["3 dates of honest compared with an evaluation over 35 days around: the same rows"],
    );
}

#[test]
fn a_lake_that_begins_with_one_date_is_compared_when_it_has_more() {
    let short = format!("-- partition: dt\n{RETENTION}");
    let project = Project::with(CONFIG, &[("retention", &short)]);
    day(&project, 1, &["ann", "bob"]);
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(0, &[]);
    assert_eq!(mart(&ran, "retention")["sample"]["too_few"], true);
    day(&project, 2, &["cid"]);
    project.rawmart(&["run"]).expect(
        0,
        &[
            "2 dates of retention compared",
            "retention has fewer than 3 dates near each other so far",
        ],
    );
    day(&project, 3, &["ann"]);
    project
        .rawmart(&["run"])
        .expect(3, &["FAILED retention", "app ahead 2d"]);
}

#[test]
fn rows_that_depend_on_the_order_of_reading_are_not_compared() {
    // All events of a day have the same time, so the first event of a user depends on the order of rows.
    let ties = "-- partition: dt\nSELECT id, dt FROM (\n\
        SELECT id, dt, row_number() OVER (PARTITION BY date_part('year', at) ORDER BY date_part('year', at)) AS place\n\
        FROM app) AS ranked WHERE place <= 2\n";
    let project = project(&[("ties", ties)]);
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(0, &[]);
    let sample = mart(&ran, "ties")["sample"].to_string();
    assert!(
        sample.contains("depend on the order in which rows are read"),
        "{sample}"
    );
}

#[test]
fn what_cannot_be_carried_out_is_refused_before_anything_is_published() {
    for (sql, parts) in [
        (
            "SELECT app.id,\nu.tag FROM app\nLEFT JOIN UNNEST(app.tags) AS u(tag) ON app.id = u.tag\n",
            &[
                "sql/bad.sql:3: ",
                "UNNEST behind LEFT JOIN takes ON TRUE only",
            ][..],
        ),
        (
            "SELECT id, date_diff('day', DATE '2019-04-01', dt) AS d FROM app\n",
            &["sql/bad.sql:1:", "`dt` is text: write `CAST(dt AS date)`"],
        ),
        (
            "SELECT id,\nlast_day_of_month(dt) AS d FROM app\n",
            &["sql/bad.sql:2:", "`dt` is text: write `CAST(dt AS date)`"],
        ),
        (
            "SELECT a.id, b.n FROM app AS a,\nLATERAL (SELECT count(*) AS n FROM app AS b\n\
             WHERE b.who = a.who AND b.at > a.at) AS b\n",
            &[
                "sql/bad.sql:2: LATERAL reads columns",
                "JOIN with a sub-query",
            ],
        ),
        (
            "SELECT id, dt - 1 AS d FROM app\n",
            &["sql/bad.sql:1: `dt - 1`", "CAST(dt AS date)"],
        ),
        (
            "SELECT id,\napp.dt - DATE '2019-04-01' AS d FROM app\n",
            &["sql/bad.sql:2:", "`dt` is text: write `CAST(dt AS date)`"],
        ),
        (
            "SELECT id, dt + INTERVAL '1 month' AS d FROM app\n",
            &["`dt` is text: write `CAST(dt AS date)`"],
        ),
        (
            "WITH f AS (SELECT who, min(dt) AS first FROM app GROUP BY who)\n\
             SELECT app.id, f.first + 1 AS next FROM app JOIN f ON f.who = app.who\n",
            &["CAST(… AS date)", "`dt` is text"],
        ),
        (
            "SELECT no_such(id) AS d FROM app\n",
            &["sql/bad.sql:1: there is no function `no_such`"],
        ),
        (
            "-- partitions = dt\nSELECT dt, id FROM app\n",
            &["sql/bad.sql:1:", "`-- partition: dt`"],
        ),
        (
            "-- partition: dt\n-- reads app back 6d\nSELECT dt, id FROM app\n",
            &["sql/bad.sql:2:", "`-- reads: app back 6d`"],
        ),
    ] {
        let project = project(&[("bad", sql)]);
        let ran = project.rawmart(&["run"]);
        ran.expect(2, parts);
        assert_eq!(ran.err.trim().lines().count(), 1, "{}", ran.err);
        assert!(!ran.err.contains("OuterReference"), "{}", ran.err);
        assert_eq!(project.lake().commits(), Vec::<&str>::new(), "{sql}");
    }
    let works = "SELECT id, tag FROM (SELECT *, unnest(tags) AS tag FROM app) AS e\n";
    let project = project(&[("works", works)]);
    project.rawmart(&["run"]).expect(0, &[]);
    assert_eq!(project.lake().cells("works", &["tag"]).len(), 64);
}

#[test]
fn whatever_fails_in_one_mart_is_its_own_failure() {
    let project = project(&[
        ("divides", "SELECT id, 1 / (n - n) AS boom FROM app\n"),
        (
            "casts",
            "-- partition: dt\nSELECT id, CAST(who AS bigint) AS boom, dt FROM app\n",
        ),
        // The query engine panics here, because it makes a text of a negative length.
        (
            "breaks",
            "SELECT id, lpad(who, CAST(n AS int) - 5000) AS boom FROM app\n",
        ),
        (
            "no_date",
            "-- partition: dt\nSELECT id, who AS dt FROM app\n",
        ),
        (
            "long_folder",
            "-- partition: k\nSELECT id, repeat(who, 200) AS k FROM app\n",
        ),
        (
            "by_day",
            "-- partition: dt\nSELECT count(*) AS n, dt FROM app GROUP BY dt\n",
        ),
        ("after", "SELECT count(*) AS n FROM casts\n"),
        ("zz", "SELECT count(*) AS n FROM app\n"),
    ]);
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(3, &[]);
    for name in ["divides", "casts", "breaks", "no_date", "long_folder"] {
        assert!(ran.err.contains(&format!("sql/{name}.sql")), "{}", ran.err);
        let failed = mart(&ran, name);
        assert_eq!(failed["outcome"], "failed", "{failed}");
        let error = failed["error"].as_str().unwrap();
        assert!(error.contains(&format!("sql/{name}.sql")), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
    assert_eq!(mart(&ran, "after")["outcome"], "skipped");
    for name in ["by_day", "count", "zz"] {
        assert_eq!(mart(&ran, name)["outcome"], "built");
    }
    assert_eq!(project.lake().tables(), ["app", "by_day", "count", "zz"]);
}
