//! `rawmart marts`: marts that are built by name, without a listing of raw; and their graph.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::project::{Lake, Project, Ran, clicks, rawmart};
use crate::s3::S3Server;
use crate::small;

const MARTS: [(&str, &str); 4] = [
    (
        "daily",
        "-- partition: dt\nSELECT dt, who, count(*) AS n FROM app GROUP BY dt, who\n",
    ),
    (
        "growth/weekly",
        "-- partition: dt\n-- reads: daily back 6d\n\
         SELECT CAST(sum(w.n) AS bigint) AS n, d.dt FROM (SELECT DISTINCT dt FROM daily) AS d\n\
         JOIN daily AS w ON w.dt <= d.dt GROUP BY d.dt\n",
    ),
    ("growth/total", "SELECT count(*) AS n FROM app\n"),
    (
        "other",
        "-- partition: dt\nSELECT dt, count(DISTINCT who) AS people FROM app GROUP BY dt\n",
    ),
];

struct Chosen {
    server: S3Server,
    project: Project,
}

impl Chosen {
    /// Three days of events, published without marts.
    fn new() -> Self {
        let source = clicks("s3://raw/app", "at", "", "within = \"1s\"");
        let toml = format!("lake = \"s3://lake/app\"\n{source}\n[marts]\npath = \"sql\"\n");
        let chosen = Self {
            server: S3Server::start(&["raw", "lake"]),
            project: Project::with(toml, &MARTS),
        };
        for day in 1..=3 {
            chosen.add(day, 10);
        }
        chosen.rawmart(&["run", "--no-marts"]).expect(0, &[]);
        chosen
    }

    /// The events of one hour.
    fn add(&self, day: u32, hour: u32) {
        let event = |who: &str| {
            format!(
                "{{\"id\":\"{day}-{hour}-{who}\",\"at\":\"2019-04-{day:02}T{hour:02}:00:00Z\",\"who\":\"{who}\"}}\n"
            )
        };
        let key = format!("app/2019/04/{day:02}/{hour:02}/o.json");
        self.server
            .put("raw", &key, [event("ann"), event("bob")].concat());
    }

    fn rawmart(&self, args: &[&str]) -> Ran {
        rawmart(&self.project.path(""), args, &self.server.env())
    }

    fn lake(&self) -> Lake {
        Lake::in_bucket(self.server.objects("lake"), "app/")
    }

    /// Builds marts, and gives those that were built with the number of their dates.
    fn build(&self, args: &[&str]) -> Vec<String> {
        self.server.clear_log();
        let ran = self.rawmart(&[&["marts", "--output", "json"], args].concat());
        ran.expect(0, &[]);
        // Nothing of raw is listed or read: its requests have keys without the folders of the lake.
        let of_raw = |(operation, key): &(String, String)| {
            key.starts_with("app/2019") || operation == "ListObjectsV2" && key == "app/"
        };
        let log = self.server.log();
        assert_eq!(log.iter().find(|request| of_raw(request)), None);
        let summary = ran.json();
        let marts = summary["marts"].as_array().unwrap();
        let built = marts.iter().filter(|mart| mart["outcome"] == "built");
        let shown = |mart: &Value| match mart["dates"].as_u64() {
            Some(dates) => format!("{} {dates}", mart["name"].as_str().unwrap()),
            None => mart["name"].as_str().unwrap().to_owned(),
        };
        let mut built: Vec<String> = built.map(shown).collect();
        built.sort();
        built
    }
}

#[test]
fn marts_are_built_by_name_folder_and_neighbours_without_raw() {
    let chosen = Chosen::new();
    assert_eq!(chosen.build(&["daily"]), ["daily 3"]);
    assert_eq!(chosen.build(&["daily"]), [""; 0]);
    let tables: BTreeSet<String> = chosen.lake().tables().into_iter().collect();
    assert!(
        tables.contains("daily") && !tables.contains("other"),
        "{tables:?}"
    );
    // `daily` is fresh by now.
    assert_eq!(chosen.build(&["+weekly"]), ["weekly 3"]);
    assert_eq!(chosen.build(&["growth"]), ["total"]);
    assert_eq!(chosen.build(&[]), ["other 3"]);
    chosen.rawmart(&["marts"]).expect(0, &["Nothing new"]);
    chosen.rawmart(&["run"]).expect(0, &["Nothing new"]);
    chosen.rawmart(&["verify"]).expect(0, &[]);

    chosen.add(3, 11);
    chosen.rawmart(&["run", "--no-marts"]).expect(0, &[]);
    assert_eq!(chosen.build(&["daily+"]), ["daily 1", "weekly 1"]);
    let by_marts = chosen.lake().content();
    chosen.rawmart(&["run"]).expect(0, &["other", "total"]);
    assert_eq!(
        chosen.build(&["--full", "growth", "daily"]),
        ["daily 3", "total", "weekly 3"]
    );
    assert_eq!(chosen.lake().content()["weekly"], by_marts["weekly"]);
    chosen.rawmart(&["run"]).expect(0, &["Nothing new"]);

    let fresh = Chosen::new();
    fresh.add(3, 11);
    fresh.rawmart(&["run"]).expect(0, &[]);
    assert!(small::content(&chosen.lake()) == small::content(&fresh.lake()));
}

/// What is asked for is built beside what has changed, never in the place of it: a later run would take the rest
/// for fresh.
#[test]
fn dates_that_are_asked_for_are_built_beside_those_that_changed() {
    let chosen = Chosen::new();
    chosen.rawmart(&["run"]).expect(0, &[]);
    let of = |from, to| ["--from", from, "--to", to];
    let two = of("2019-04-01", "2019-04-02");
    assert_eq!(chosen.build(&[&["daily"], &two[..]].concat()), ["daily 2"]);
    // A mart without dates is built whole. Every date of `weekly` reads one of the dates of `daily` that were built.
    assert_eq!(
        chosen.build(&[&["total", "weekly"], &two[..]].concat()),
        ["total", "weekly 3"]
    );
    assert_eq!(
        chosen.build(&[&["daily"], &of("2018-01-01", "2018-12-31")[..]].concat()),
        [""; 0]
    );
    chosen.add(3, 11);
    chosen.rawmart(&["run", "--no-marts"]).expect(0, &[]);
    let first = of("2019-04-01", "2019-04-01");
    assert_eq!(
        chosen.build(&[&["daily"], &first[..]].concat()),
        ["daily 2"]
    );
    chosen.rawmart(&["run"]).expect(0, &[]);
    chosen.rawmart(&["run"]).expect(0, &["Nothing new"]);
    let fresh = Chosen::new();
    fresh.add(3, 11);
    fresh.rawmart(&["run"]).expect(0, &[]);
    assert!(small::content(&chosen.lake()) == small::content(&fresh.lake()));
}

/// A new column has values on all dates, and a column of another type has it on all dates.
#[test]
fn a_changed_select_is_built_on_all_dates() {
    let chosen = Chosen::new();
    chosen.rawmart(&["run"]).expect(0, &[]);
    for (select, type_of_n) in [
        ("dt, who, count(*) AS n, max(id) AS last", "bigint"),
        ("dt, who, CAST(count(*) AS varchar) AS n", "string"),
    ] {
        let sql = format!("-- partition: dt\nSELECT {select} FROM app GROUP BY dt, who\n");
        chosen.project.write("sql/daily.sql", sql);
        if type_of_n == "string" {
            // Its reader has to follow.
            let weekly = MARTS[1].1.replace("sum(w.n)", "sum(CAST(w.n AS bigint))");
            chosen.project.write("sql/growth/weekly.sql", weekly);
        }
        assert_eq!(
            chosen.build(&["daily+"]),
            ["daily 3", "weekly 3"],
            "{select}"
        );
        let tables = chosen.rawmart(&["tables", "--output", "json"]).json();
        let tables = tables["tables"].as_array().unwrap().clone();
        let daily = tables
            .iter()
            .find(|table| table["name"] == "daily")
            .unwrap()
            .to_string();
        assert!(daily.contains(type_of_n), "{daily}");
    }
    chosen.rawmart(&["run"]).expect(0, &["Nothing new"]);
    chosen.rawmart(&["verify"]).expect(0, &[]);
}

#[test]
fn a_mart_that_fails_or_is_unknown_is_told() {
    let chosen = Chosen::new();
    chosen.rawmart(&["marts", "dayly"]).expect(
        2,
        &["no mart and no folder of marts `dayly`", "is it `daily`?"],
    );
    chosen
        .rawmart(&[
            "marts",
            "--full",
            "--from",
            "2019-04-01",
            "--to",
            "2019-04-02",
        ])
        .expect(2, &[]);
    let fails =
        "-- partition: dt\nSELECT dt, 1 / (count(*) - count(*)) AS n FROM app GROUP BY dt\n";
    chosen.project.write("sql/daily.sql", fails);
    let ran = chosen.rawmart(&["marts", "daily+", "total"]);
    ran.expect(3, &["FAILED daily", "skipped weekly", "total"]);
    let without = "lake = \"lake\"\n[sources.app]\nraw = \"raw\"\nevent_time = \"at\"\n\
        [sources.app.columns]\nat = \"timestamp\"\n";
    chosen.project.write("rawmart.toml", without);
    chosen
        .rawmart(&["marts"])
        .expect(2, &["names no folder of marts"]);
}

#[test]
fn the_graph_is_drawn_without_a_lake() {
    let toml = format!(
        "lake = \"nowhere\"\n{}\n[marts]\npath = \"sql\"\n",
        clicks("raw", "at", "", "within = \"1s\"")
    );
    let project = Project::with(toml, &MARTS);
    let drawn = project.rawmart(&["marts", "--graph"]);
    drawn.expect(0, &[]);
    let lines: Vec<&str> = drawn.out.lines().map(str::trim_end).collect();
    assert_eq!(
        lines,
        [
            "daily          reads app (back 0d)",
            "other          reads app (back 0d)",
            "growth/total   reads app",
            "growth/weekly  reads daily (back 6d)",
        ]
    );
    let drawn = project.rawmart(&["marts", "--graph=mermaid", "+weekly"]);
    drawn.expect(0, &[]);
    let mermaid = "graph LR\n    t_app[(\"app\")]\n    t_daily[\"daily\"]\n    t_weekly[\"weekly\"]\n    \
        t_app --> t_daily\n    t_daily --> t_weekly\n";
    assert_eq!(drawn.out, mermaid);
    let json = project
        .rawmart(&["marts", "--graph", "--output", "json", "weekly"])
        .json();
    assert_eq!(json["graph"][0]["name"], "weekly");
    assert_eq!(json["graph"][0]["folder"], "growth");
    assert!(!project.path("nowhere").exists());
}
