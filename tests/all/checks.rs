//! Claims about marts: a mart is staged, checked, and published only if its claims hold.

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
os = "string"
n = "bigint"

[marts]
path = "sql/marts"
"#;

/// Events of a day of April 2019 at noon: user, system and number.
fn day(project: &Project, day: u32, file: &str, events: &[(&str, &str, i64)]) {
    let lines = events.iter().enumerate().map(|(i, (who, os, n))| {
        let event = json!({
            "id": format!("{day}-{file}-{i}"), "at": format!("2019-04-{day:02}T12:00:00Z"),
            "who": who, "os": os, "n": n
        });
        format!("{event}\n")
    });
    let lines: String = lines.collect();
    project.write(&format!("raw/2019/04/{day:02}/12/{file}.json"), lines);
}

fn project(files: &[(&str, &str)]) -> Project {
    let project = Project::new();
    project.write("rawmart.toml", CONFIG);
    for (file, sql) in files {
        project.write(&format!("sql/{file}.sql"), sql);
    }
    day(&project, 1, "a", &[("ann", "ios", 1), ("bob", "web", 2)]);
    day(&project, 2, "a", &[("ann", "ios", 3)]);
    project
}

fn mart(ran: &Ran, name: &str) -> Value {
    let json = ran.json();
    let marts = json["marts"].as_array().unwrap();
    let found = marts.iter().find(|mart| mart["name"] == name);
    found.unwrap_or_else(|| panic!("{json}")).clone()
}

fn run(project: &Project, code: i32) -> Ran {
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(code, &[]);
    ran
}

const BY_USER: &str = "SELECT who, os, n, dt FROM app\n";

#[test]
fn a_mart_with_a_broken_check_leaves_yesterdays_table_readable_and_says_why() {
    let claims = "-- What users did.\n-- partition: dt\n-- unique: dt, who\n-- not_null: who, os\n-- check: n < 10\n\
                  -- accepted: os in ('ios', 'web')\n-- owner: Growth team\n-- dashboard: Users\n";
    let project = project(&[
        ("marts/by_user", &format!("{claims}{BY_USER}")),
        ("marts/total", "SELECT sum(n) AS n FROM by_user\n"),
        ("marts/other", "SELECT count(*) AS n FROM app\n"),
    ]);
    let ran = run(&project, 0);
    assert_eq!(
        mart(&ran, "by_user")["checks"],
        json!({"ran": 5, "failed": []})
    );
    let before = project.lake().files("by_user");

    // One day that breaks three claims, and a late event of the first day that breaks none.
    day(&project, 1, "b", &[("cid", "web", 9)]);
    day(
        &project,
        3,
        "a",
        &[
            ("ann", "ios", 30),
            ("ann", "windows\u{7}", 31),
            ("dan", "ios", 7),
        ],
    );
    let ran = run(&project, 3);
    let failed = mart(&ran, "by_user");
    assert_eq!(failed["outcome"], "failed");
    assert_eq!(failed["owner"], "Growth team");
    let broken: Vec<&Value> = failed["checks"]["failed"]
        .as_array()
        .unwrap()
        .iter()
        .collect();
    let told = |check: &Value| {
        (
            check["check"].clone(),
            check["line"].clone(),
            check["rows"].clone(),
        )
    };
    assert_eq!(
        broken.iter().map(|check| told(check)).collect::<Vec<_>>(),
        [
            (json!("unique: dt, who"), json!(3), json!(1)),
            (json!("check: n < 10"), json!(5), json!(2)),
            (json!("accepted: os in ('ios', 'web')"), json!(6), json!(1)),
        ]
    );
    assert_eq!(broken[0]["columns"], json!(["dt", "who", "copies"]));
    assert_eq!(broken[0]["sample"], json!([["2019-04-03", "ann", "2"]]));
    assert_eq!(
        broken[1]["query"],
        "SELECT * FROM by_user WHERE NOT (n < 10)"
    );
    let error = failed["error"].as_str().unwrap();
    for part in [
        "sql/marts/by_user.sql:3: 1 row breaks `unique: dt, who`, such as (dt=2019-04-03, who=ann, copies=2)",
        "sql/marts/by_user.sql:5: 2 rows break `check: n < 10`",
        "os=windows\\u{7}",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(mart(&ran, "total")["because"], "by_user");
    assert_eq!(mart(&ran, "other")["outcome"], "built");
    assert!(project.lake().files("by_user") == before);
    project.rawmart(&["verify"]).expect(0, &[]);
    project.rawmart(&["plan"]).expect(0, &["by_user"]);

    // It is no mart that is up to date: the next run builds it again, and tells the rows in text.
    let ran = project.rawmart(&["run"]);
    ran.expect(
        3,
        &[
            "FAILED by_user: ",
            "owner: Growth team",
            "broken: check: n < 10",
            "(who=ann, os=ios, n=30, dt=2019-04-03)",
            "found by: SELECT * FROM by_user WHERE NOT (n < 10)",
            "skipped total: it reads by_user",
        ],
    );
    assert!(!ran.out.contains('\u{7}') && !ran.err.contains('\u{7}'));

    // Corrected, it has all dates that have changed since it was last good.
    let right = claims
        .replace("n < 10", "n < 100")
        .replace("'web'", "'web', 'windows\u{7}'");
    let right = right.replace("unique: dt, who", "unique: dt, who, n");
    project.write("sql/marts/by_user.sql", format!("{right}{BY_USER}"));
    let ran = run(&project, 0);
    assert_eq!(mart(&ran, "by_user")["rows"], 7);
    assert_eq!(mart(&ran, "total")["outcome"], "built");
    project.rawmart(&["run"]).expect(0, &["Nothing new"]);
    let staged = project.lake();
    let staged: Vec<_> = staged
        .0
        .keys()
        .filter(|key| key.contains("/staging/"))
        .collect();
    assert_eq!(staged, [""; 0]);
}

#[test]
fn a_warning_is_told_and_the_mart_is_published() {
    let project = project(&[(
        "marts/by_user",
        &format!("-- partition: dt\n-- severity: warn\n-- check: n > 1\n{BY_USER}"),
    )]);
    let ran = project.rawmart(&["run"]);
    ran.expect(
        0,
        &[
            "WARNING ",
            "sql/marts/by_user.sql:3: 1 row breaks `check: n > 1`",
            "(who=ann, os=ios, n=1, dt=2019-04-01)",
        ],
    );
    assert_eq!(project.lake().rows("by_user").len(), 3);
    project.rawmart(&["run"]).expect(0, &["Nothing new"]);
}

#[test]
fn null_breaks_no_condition_and_a_key_without_the_date_is_unique_in_the_whole_table() {
    let project = project(&[
        (
            "marts/nulls",
            "-- check: m > 0\n-- accepted: k in ('a')\n-- unique: m\n\
             SELECT CAST(NULL AS bigint) AS m, CAST(NULL AS varchar) AS k, who FROM app\n",
        ),
        (
            "marts/first",
            "-- partition: dt\n-- unique: who\nSELECT who, dt FROM app WHERE os = 'web'\n",
        ),
    ]);
    run(&project, 0);
    // Only the new date is built, and its user is in an older partition.
    day(&project, 3, "a", &[("bob", "web", 5)]);
    let ran = run(&project, 3);
    let failed = mart(&ran, "first");
    assert_eq!(
        failed["checks"]["failed"][0]["sample"],
        json!([["bob", "2"]])
    );
    assert_eq!(
        mart(&ran, "nulls")["checks"],
        json!({"ran": 3, "failed": []})
    );
}

#[test]
fn the_file_of_a_check_returns_no_rows() {
    let balance = "-- Every event is counted.\nSELECT e.dt, e.n AS events, d.n\n\
        FROM (SELECT dt, count(*) AS n FROM app GROUP BY dt) AS e\n\
        FULL JOIN (SELECT dt, sum(n) AS n FROM daily GROUP BY dt) AS d ON d.dt = e.dt\n\
        WHERE d.n IS NULL OR e.n IS NULL OR e.n <> d.n\n";
    let daily = "-- partition: dt\nSELECT os, count(*) AS n, dt FROM app GROUP BY os, dt\n";
    let project = project(&[("marts/daily", daily), ("checks/daily__balance", balance)]);
    let ran = run(&project, 0);
    assert_eq!(
        mart(&ran, "daily")["checks"],
        json!({"ran": 1, "failed": []})
    );
    day(&project, 3, "a", &[("ann", "ios", 1)]);
    run(&project, 0);

    // A mart that has another check is built and checked again.
    project.write(
        "sql/checks/daily__few.sql",
        "-- severity: warn\nSELECT * FROM daily WHERE n < 2\n",
    );
    let ran = run(&project, 0);
    let failed = &mart(&ran, "daily")["checks"]["failed"];
    assert_eq!(failed[0]["check"], "daily__few");
    assert_eq!(failed[0]["severity"], "warn");
    project.write(
        "sql/marts/daily.sql",
        daily.replace("FROM app", "FROM app WHERE n < 3"),
    );
    let ran = project.rawmart(&["run"]);
    ran.expect(
        3,
        &[
            "sql/checks/daily__balance.sql: 1 row breaks `daily__balance`",
            "(dt=2019-04-02, events=1, n=NULL)",
            "found by: ",
        ],
    );
}

#[test]
fn a_wrong_claim_is_refused_before_anything_is_published() {
    let good = "SELECT who, os, n, dt FROM app\n";
    for (header, parts) in [
        (
            "-- uniqe: dt",
            &["sql/marts/bad.sql:1: the header `uniqe` is not known; is it `unique`?"][..],
        ),
        (
            "-- Bad.\n-- not_null: whoo",
            &["sql/marts/bad.sql:2: ", "`whoo`", "is it `who`?"],
        ),
        ("-- unique: dt, ons", &["sql/marts/bad.sql:1: ", "`ons`"]),
        (
            "-- check: nn > 1",
            &[
                "sql/marts/bad.sql:1: ",
                "the claim `check: nn > 1`",
                "is it `n`?",
            ],
        ),
        (
            "-- check: n",
            &["sql/marts/bad.sql:1: ", "the claim `check: n`"],
        ),
        (
            "-- check: sum(n) > 1",
            &["sql/marts/bad.sql:1: ", "the claim `check: sum(n) > 1`"],
        ),
        (
            "-- check: n IN (SELECT n FROM app)",
            &["there is no table `app`"],
        ),
        ("-- accepted: oss in ('a')", &["is it `os`?"]),
        (
            "-- tags: daily",
            &["sql/marts/bad.sql:1: the header `tags` is not known; the keys are partition, reads"],
        ),
    ] {
        let project = project(&[("marts/bad", &format!("{header}\n{good}"))]);
        let ran = project.rawmart(&["run"]);
        ran.expect(2, parts);
        assert_eq!(ran.err.trim().lines().count(), 1, "{}", ran.err);
        assert_eq!(project.lake().commits(), Vec::<&str>::new(), "{header}");
    }
    for (file, sql, parts) in [
        (
            "checks/godo__x",
            "SELECT 1 AS a",
            &["there is no mart `godo`; is it `good`?"][..],
        ),
        (
            "checks/x",
            "SELECT 1 AS a",
            &["`x` is not the name of a check", "<mart>__<claim>.sql"],
        ),
        (
            "checks/good__x",
            "SELECT nn FROM good",
            &["sql/checks/good__x.sql:1: ", "is it `n`?"],
        ),
        (
            "checks/good__x",
            "SELECT *\nFROM later",
            &[
                "good__x.sql:2: ",
                "the mart `later`, which `good` does not read",
            ],
        ),
        (
            "checks/good__x",
            "-- partition: dt\nSELECT * FROM good",
            &["good__x.sql:1: the file of a check has no `partition`"],
        ),
        (
            "marts/checks/good__x",
            "SELECT * FROM good",
            &["the file has the name of a check"],
        ),
    ] {
        let project = project(&[
            ("marts/good", good),
            ("marts/later", "SELECT count(*) AS n FROM good\n"),
            (file, sql),
        ]);
        let ran = project.rawmart(&["run"]);
        ran.expect(2, parts);
        assert_eq!(project.lake().commits(), Vec::<&str>::new(), "{file}");
    }
}

#[test]
fn silence_is_told_beside_what_is_published() {
    let fresh = "-- owner: Growth team\n-- fresh_within: 2h\nSELECT count(*) AS n FROM base\n";
    let project = project(&[
        ("marts/base", "SELECT who FROM app_duplicates\n"),
        ("marts/count", fresh),
    ]);
    let source = |within: &str| {
        let toml = CONFIG.replace(
            "event_time =",
            &format!("fresh_within = \"{within}\"\nevent_time ="),
        );
        project.write("rawmart.toml", toml);
    };
    // The newest folder is the hour that ends at 13:00 on the second day.
    source("90m");
    let ran = run(&project, 3);
    let last = "2019-04-02T13:00:00Z";
    let of_mart = json!({"source": "app", "mart": "count", "owner": "Growth team", "fresh_within": "2h",
                         "last_arrival": last});
    assert_eq!(
        ran.json()["silences"],
        json!([{"source": "app", "fresh_within": "1h30m", "last_arrival": last}, of_mart])
    );
    assert_eq!(
        (&ran.json()["error"]["code"], &ran.json()["outcome"]),
        (&json!("silent"), &json!("silent"))
    );
    assert_eq!(project.lake().tables(), ["app", "base", "count"]);
    source("36500d");
    let ran = project.rawmart(&["run"]);
    let told = "SILENT mart count, owner Growth team: the last raw object of app arrived at 2019-04-02T13:00:00Z";
    ran.expect(3, &["Nothing new", told, "must be fresh within 2h"]);
    project
        .rawmart(&["marts", "count"])
        .expect(3, &["must be fresh within 2h"]);
    project.rawmart(&["marts", "base"]).expect(0, &[]);
    project.rawmart(&["run", "--no-marts"]).expect(0, &[]);
    project.write("sql/marts/count.sql", fresh.replace("2h", "36500d"));
    project.rawmart(&["run"]).expect(0, &[]);

    let none = "-- fresh_within: 1d\nSELECT 1 AS n\n";
    project.write("sql/marts/none.sql", none);
    project.rawmart(&["run"]).expect(
        2,
        &["sql/marts/none.sql: `fresh_within`", "reads no source"],
    );
    project.write("sql/marts/none.sql", "SELECT 1 AS n\n");
    source("2 hours");
    project
        .rawmart(&["run"])
        .expect(2, &["sources.app.fresh_within"]);
}

#[test]
fn a_claim_that_cannot_be_evaluated_fails_the_mart_at_its_line() {
    let project = project(&[(
        "marts/divides",
        "-- Divides.\n-- check: 6 / (n - 3) > 0\nSELECT n FROM app\n",
    )]);
    let ran = run(&project, 3);
    let error = mart(&ran, "divides")["error"].as_str().unwrap().to_owned();
    assert!(
        error.contains(
            "sql/marts/divides.sql:2: the claim `check: 6 / (n - 3) > 0`: cannot divide by zero"
        ),
        "{error}"
    );
}
