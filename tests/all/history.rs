//! Tests `rawmart history`: the changes of past runs, for people and for programs, and a log that is long
//! enough for checkpoints.

use serde_json::{Value, json};

use crate::project::{Project, Ran};

const TOML: &str = r#"
lake = "lake"
[sources.app]
raw = "raw"
event_time = "at"
max_rejects = "100%"
[sources.app.columns]
id = "string"
at = "timestamp"
[[sources.app.dedup]]
name = "redelivery"
key = ["id"]
within = "10m"
[marts]
path = "sql"
"#;

fn project() -> Project {
    let mart = "-- partition: dt\nSELECT dt, count(*) AS n FROM app GROUP BY dt\n";
    Project::with(TOML, &[("daily", mart)])
}

fn event(id: &str, at: u32) -> String {
    format!("{{\"id\": \"{id}\", \"at\": {}}}\n", 1_554_076_800 + at)
}

/// One object for each hour.
fn put(project: &Project, hour: u32, lines: &[String]) {
    project.write(&format!("raw/2019/04/01/{hour:02}/a.json"), lines.concat());
}

fn run(project: &Project, args: &[&str]) -> String {
    let ran = project.rawmart(&[&["run", "--output", "json"], args].concat());
    ran.expect(0, &[]);
    ran.json()["commit"].to_string()
}

fn history(project: &Project, args: &[&str]) -> Value {
    let ran = project.rawmart(&[&["history", "--output", "json"], args].concat());
    ran.expect(0, &[]);
    ran.json()
}

/// Two runs: commits 1 (three events, one a duplicate, and a reject) and 2 (the mart), then 3 alone.
fn two_runs() -> Project {
    let project = project();
    let lines = [event("a", 0), event("a", 1), event("b", 2), "x\n".into()];
    put(&project, 0, &lines);
    assert_eq!(run(&project, &[]), "2");
    put(&project, 1, &[event("c", 3_600), event("b", 3)]);
    assert_eq!(run(&project, &["--no-marts"]), "3");
    project
}

#[test]
fn commits_newest_first() {
    let project = two_runs();
    let found = history(&project, &[]);
    assert_eq!(found["last_commit"], 3);
    let commits = found["commits"].as_array().unwrap();
    let numbers: Vec<_> = commits.iter().map(|commit| &commit["commit"]).collect();
    assert_eq!(numbers, [&json!(3), &json!(2), &json!(1)]);
    assert_eq!(commits[1]["run"], commits[2]["run"]);
    assert_ne!(commits[0]["run"], commits[1]["run"]);
    let change = |commit: usize| commits[commit]["sources"]["app"].clone();
    assert_eq!(
        change(2),
        json!({"objects": 1, "forgotten": 0, "records": 4, "events": 3, "kept": 2,
               "duplicates": {"redelivery": 1}, "rejects": {"not_json": 1}})
    );
    assert_eq!(
        change(0),
        json!({"objects": 1, "forgotten": 0, "records": 2, "events": 2, "kept": 1,
               "duplicates": {"redelivery": 1}, "rejects": {}})
    );
    assert_eq!(commits[1]["sources"], json!({}));
    assert_eq!(commits[1]["marts"], json!([{"name": "daily", "rows": 1}]));
    assert_eq!(commits[1]["files"], 1);
    assert_eq!(commits[2]["files"], 3);
    for commit in commits {
        assert_eq!(commit["published"], true);
        assert!(commit["bytes"].as_u64().unwrap() > 100, "{commit}");
        assert!(commit["at"].as_str().unwrap().ends_with('Z'), "{commit}");
    }

    let last = history(&project, &["--limit", "1"]);
    assert_eq!(last["commits"], json!([commits[0]]));
    let words = |ran: Ran, parts: &[&str]| ran.expect(0, parts);
    words(
        project.rawmart(&["history", "--limit", "2"]),
        &[
            "commit 3, ",
            "1 raw objects  read for app",
            "+2 records      = +2 events, +0 rejects",
            "+2 events       = +1 kept, +1 duplicates",
            "lake: the last 2 of 3 commits (--limit).",
        ],
    );
    words(project.rawmart(&["history"]), &["lake: 3 commits.\n"]);
}

#[test]
fn one_run_whole() {
    let project = two_runs();
    let commits = history(&project, &[])["commits"].clone();
    let name = commits[2]["run"].as_str().unwrap();
    // How long a command took differs from one to the next.
    let of = |run: &str| {
        let mut found = history(&project, &[run]);
        found.as_object_mut().unwrap().remove("seconds");
        found
    };
    let found = of(name);
    assert_eq!(found["run"], name);
    for number in ["1", "2"] {
        assert_eq!(of(number), found, "{number}");
    }
    let whole = found["commits"].as_array().unwrap();
    let numbers: Vec<_> = whole.iter().map(|commit| &commit["commit"]).collect();
    assert_eq!(numbers, [&json!(1), &json!(2)]);
    let object = &whole[0]["raw_objects"]["app"][0];
    assert_eq!(object["key"], "2019/04/01/00/a.json");
    assert_eq!(
        (&object["records"], &object["events"]),
        (&json!(4), &json!(3))
    );
    let keys: Vec<_> = whole
        .iter()
        .flat_map(|commit| commit["data_files"].as_array().unwrap())
        .map(|file| file["key"].as_str().unwrap())
        .collect();
    assert_eq!(
        keys,
        [
            "app/dt=2019-04-01/part-00000.parquet",
            "app_duplicates/dt=2019-04-01/part-00000.parquet",
            "app_rejects/dt=2019-04-01/part-00000.parquet",
            "daily/dt=2019-04-01/part-00000.parquet",
        ]
    );
    project.rawmart(&["history", name]).expect(
        0,
        &[
            "4 records      = 3 events + 1 rejects  app: 2019/04/01/00/a.json",
            "1 rows         daily/dt=2019-04-01/part-00000.parquet",
            &format!("2 commits of run {name}."),
        ],
    );
    let last = history(&project, &["3"]);
    assert_eq!(last["commits"].as_array().unwrap().len(), 1);
}

#[test]
fn what_there_is_not() {
    let project = project();
    project
        .rawmart(&["history"])
        .expect(0, &["no run has committed yet"]);
    let project = two_runs();
    for which in ["0", "4", "20190401T000000Z-00000000"] {
        let parts = [
            &format!("no run or commit `{which}`")[..],
            "its last commit is 3",
        ];
        project.rawmart(&["history", which]).expect(2, &parts);
    }
    project
        .rawmart(&["history", "1", "--limit", "3"])
        .expect(2, &["--limit"]);
}

#[test]
fn a_commit_that_is_not_published() {
    let project = two_runs();
    let marker = "lake/_rawmart/log/00000000000000000003.published";
    std::fs::remove_file(project.path(marker)).unwrap();
    let commits = history(&project, &[])["commits"].clone();
    assert_eq!(commits[0]["published"], false);
    assert_eq!(commits[1]["published"], true);
    project
        .rawmart(&["history"])
        .expect(0, &["NOT PUBLISHED: the next run finishes it"]);
}

/// After many runs the lake opens from a checkpoint. The commits before it may even be gone.
#[test]
fn a_log_with_a_checkpoint() {
    let project = project();
    for n in 0..66 {
        let name = format!("raw/2019/04/01/{:02}/{n}.json", n % 24);
        project.write(&name, event(&format!("i{n}"), n * 60));
        assert_eq!(run(&project, &["--no-marts"]), (n + 1).to_string());
    }
    let checkpoint = "_rawmart/checkpoint/00000000000000000064";
    let lake = project.lake();
    let checkpoints: Vec<_> = lake
        .0
        .keys()
        .filter(|key| key.starts_with("_rawmart/checkpoint/"))
        .collect();
    assert_eq!(checkpoints, [checkpoint]);
    project.rawmart(&["verify"]).expect(0, &["66 commits"]);
    assert_eq!(
        history(&project, &["--limit", "100"])["commits"]
            .as_array()
            .unwrap()
            .len(),
        66
    );
    std::fs::remove_file(project.path("lake/_rawmart/log/00000000000000000005")).unwrap();
    let ran = project.rawmart(&["run", "--no-marts"]);
    ran.expect(0, &["Nothing new"]);
    project
        .rawmart(&["history", "--limit", "100"])
        .expect(7, &["log/00000000000000000005"]);

    // A damaged checkpoint is named, and the log decides.
    project.write(&format!("lake/{checkpoint}"), "PAR1 and no more");
    let ran = project.rawmart(&["plan"]);
    ran.expect(7, &[checkpoint, "Delete it", "log/00000000000000000005"]);
    std::fs::write(
        project.path("lake/_rawmart/log/00000000000000000005"),
        &lake.0["_rawmart/log/00000000000000000005"],
    )
    .unwrap();
    let ran = project.rawmart(&["run", "--no-marts"]);
    ran.expect(0, &[checkpoint, "Delete it", "Nothing new"]);
    std::fs::remove_file(project.path(&format!("lake/{checkpoint}"))).unwrap();
    let ran = project.rawmart(&["run", "--no-marts"]);
    ran.expect(0, &["Nothing new"]);
    assert_eq!(ran.err, "");
    let key = "_rawmart/checkpoint/00000000000000000066";
    assert!(project.lake().0.contains_key(key));
    project.rawmart(&["verify"]).expect(0, &["66 commits"]);
}
