//! Compares whole texts of the binary with the files in `snapshots/`. After a change that is meant, write them
//! again with `INSTA_UPDATE=always cargo quick-test --test all snapshots::`, and read the difference before you
//! commit it.

use crate::docs::{demo, redacted};
use crate::project::{Project, Ran};

/// The exit code and both streams, without the parts that differ from run to run and from machine to machine.
fn told(project: &Project, ran: &Ran) -> String {
    let folder = project.path("");
    let folder = folder.to_str().unwrap().trim_end_matches('/').to_owned();
    let mut text = format!("exit {}\n", ran.code.unwrap());
    for (name, stream) in [("stdout", &ran.out), ("stderr", &ran.err)] {
        if !stream.is_empty() {
            let stream = redacted(stream).replace(&folder, "[folder]");
            text.push_str(&format!("--- {name}\n{stream}\n"));
        }
    }
    text
}

#[test]
fn a_lake_from_its_plan_to_its_repair() {
    let demo = demo();
    let snapshot = |name: &str, args: &[&str]| {
        insta::assert_snapshot!(name, told(&demo, &demo.rawmart(args)));
    };
    snapshot("plan_of_a_first_run", &["plan"]);
    snapshot("first_run", &["run"]);
    snapshot("plan_with_nothing_new", &["plan"]);
    snapshot("second_run", &["run"]);
    snapshot("history", &["history"]);
    snapshot("history_of_an_unknown_run", &["history", "7"]);
    snapshot("verify", &["verify"]);

    std::fs::remove_file(demo.path("lake/complex_views/part-00000.parquet")).unwrap();
    demo.write("lake/events/dt=2019-04-02/copy.parquet", "a stray");
    snapshot("verify_of_a_damaged_lake", &["verify"]);
    snapshot("repair", &["verify", "--repair"]);
}

const TOML: &str = r#"lake = "lake"
[sources.app]
raw = "raw"
event_time = "at"
[sources.app.columns]
id = "string"
at = "timestamp"
n = "int"
[[sources.app.dedup]]
name = "again"
key = ["id"]
within = "1s"
[marts]
path = "sql"
"#;

const MART: &str = "SELECT count(*) AS n FROM app";

/// A small project with one change of the configuration or of the mart.
fn changed(from: &str, to: &str) -> Project {
    let project = Project::new();
    assert!(
        from.is_empty() || TOML.contains(from) || MART.contains(from),
        "{from}"
    );
    let toml = TOML.replacen(from, to, usize::from(!from.is_empty()));
    let mart = MART.replacen(from, to, usize::from(!from.is_empty()));
    project.write("rawmart.toml", toml);
    project.write("sql/total.sql", mart);
    project.write(
        "raw/2019/04/01/00/a",
        "{\"id\": \"x\", \"at\": 1554076800, \"n\": 1}\n",
    );
    project
}

#[test]
fn errors_of_the_configuration() {
    let mut all = String::new();
    for (from, to) in [
        ("lake = \"lake\"\n", ""),
        ("lake = \"lake\"", "lake = \"raw/lake\""),
        ("lake = \"lake\"", "lake = \"s3:/bucket/x\""),
        ("lake = \"lake\"", "lake = lake"),
        ("lake = \"lake\"", "lake = \"lake\"\nmemory = \"1MiB\""),
        ("lake = \"lake\"", "lake = \"lake\"\ntimezone = \"Seoul\""),
        (
            "lake = \"lake\"",
            "lake = \"lake\"\naws_secret_access_key = \"x\"",
        ),
        ("event_time = \"at\"", "event_tme = \"at\""),
        ("event_time = \"at\"", "event_time = \"id\""),
        ("event_time = \"at\"", "event_time = \"at\"\nslice = \"7h\""),
        (
            "event_time = \"at\"",
            "event_time = \"at\"\nlayout = \"%Y/%q/\"",
        ),
        ("n = \"int\"", "n = \"integer\""),
        ("n = \"int\"", "userId = \"int\""),
        ("n = \"int\"", "dt = \"int\""),
        ("key = [\"id\"]", "key = [\"ID2\"]"),
        ("within = \"1s\"", "within = \"1 second\""),
        ("within = \"1s\"", "within = \"1s\"\nmode = \"first\""),
    ] {
        let project = changed(from, to);
        let told = told(&project, &project.rawmart(&["run"]));
        all.push_str(&format!("== {from:?} → {to:?}\n{told}\n"));
    }
    insta::assert_snapshot!("errors_of_the_configuration", all);
}

#[test]
fn errors_of_marts() {
    let mut all = String::new();
    for mart in [
        "SELECT count(*) AS n FROM ap",
        "SELECT count(*) AS n, FROM app",
        "SELECT missing FROM app",
        "SELECT count(*) FROM app; SELECT 1",
        "DROP TABLE app",
        "-- partitioned by: dt\nSELECT dt, count(*) AS n FROM app GROUP BY dt",
        "-- partition: day\nSELECT dt, count(*) AS n FROM app GROUP BY dt",
        "-- unique: day\nSELECT dt, count(*) AS n FROM app GROUP BY dt",
        "-- check: n > 1\nSELECT dt, count(*) AS n FROM app GROUP BY dt",
        "-- tags: daily\nSELECT dt, count(*) AS n FROM app GROUP BY dt",
        "SELECT count(*) AS n FROM total",
        "SELECT lenght(id) AS n FROM app",
        "SELECT n / 0 AS n FROM app",
    ] {
        let project = changed(MART, mart);
        let told = told(&project, &project.rawmart(&["run"]));
        all.push_str(&format!("== {mart}\n{told}\n"));
    }
    insta::assert_snapshot!("errors_of_marts", all);
}

#[test]
fn errors_of_usage() {
    let project = changed("", "");
    let mut all = String::new();
    for args in [
        &["rnu"][..],
        &["run", "--sauce", "x"],
        &["run", "--source", "ap"],
        &["run", "--max-rejects", "much"],
        &["run", "--threads", "0"],
        &["rebuild", "--from", "2019-04-02", "--to", "2019-04-01"],
        &["rebuild", "--from", "2019-04-02"],
        &["verify", "--quick", "--deep"],
        &["--config", "other.toml", "run"],
        &["history"],
        &["verify"],
    ] {
        let told = told(&project, &project.rawmart(args));
        all.push_str(&format!("== rawmart {}\n{told}\n", args.join(" ")));
    }
    insta::assert_snapshot!("errors_of_usage", all);
}

#[test]
fn helps() {
    let project = Project::new();
    let mut all = String::new();
    for args in [
        &["-h"][..],
        &["run", "-h"],
        &["plan", "-h"],
        &["rebuild", "-h"],
        &["history", "-h"],
        &["verify", "-h"],
        &["config", "-h"],
    ] {
        let told = told(&project, &project.rawmart(args));
        all.push_str(&format!("== rawmart {}\n{told}\n", args.join(" ")));
    }
    insta::assert_snapshot!("helps", all);
}
