//! Reprocessing: what `plan` says of a rebuild, and what a rebuild of one day from raw reads and writes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::project::{Lake, Project, clicks};
use crate::small;

/// One raw object for each day of April 2019. Each holds a reject, an event that was delivered twice, and an event
/// of the end of the day before.
fn project(more: &str) -> Project {
    let source = clicks("raw/", "at", more, "within = \"1s\"");
    let toml = format!("lake = \"lake\"\n{source}\n[marts]\npath = \"sql\"\n");
    let mart = "-- partition: dt\nSELECT dt, who, count(*) AS n FROM app GROUP BY dt, who\n";
    let project = Project::with(toml, &[("daily", mart)]);
    for day in 2..=7 {
        project.write(&key(day), object(day, "ann"));
    }
    project
}

fn key(day: u32) -> String {
    format!("raw/2019/04/{day:02}/22/o.json")
}

fn object(day: u32, who: &str) -> String {
    let event = |id: &str, day: u32, time: &str| {
        format!("{{\"id\":\"{id}{day}\",\"at\":\"2019-04-{day:02}T{time}Z\",\"who\":\"{who}\"}}\n")
    };
    [
        event("late", day - 1, "23:59:50"),
        event("a", day, "10:00:00"),
        event("a", day, "10:00:30"),
        event("b", day, "11:00:00"),
        "no JSON\n".to_owned(),
    ]
    .concat()
}

/// The keys of the data files whose bytes differ.
fn changed(before: &Lake, after: &Lake) -> BTreeSet<String> {
    let differs =
        |(key, bytes): &(&str, &[u8])| before.0.get(*key).map(Vec::as_slice) != Some(*bytes);
    let changed = after.data_files().filter(differs);
    changed.map(|(key, _)| key.to_owned()).collect()
}

fn keys(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

const ONE_DAY: [&str; 6] = [
    "rebuild",
    "--raw",
    "--from",
    "2019-04-04",
    "--to",
    "2019-04-04",
];

#[test]
fn a_rebuild_of_one_day_from_raw_writes_that_day_alone() {
    let project = project("max_rejects = \"100%\"");
    project.rawmart(&["run"]).expect(0, &[]);
    let before = project.lake();
    let planned = project.rawmart(&[&["plan", "--rebuild"], &ONE_DAY[1..]].concat());
    planned.expect(0, &["app: rebuild of 2019-04-04 from raw"]);
    planned.expect(0, &["dt=2019-04-04: read again from raw"]);
    assert!(!planned.out.contains("dt=2019-04-03"), "{planned:?}");
    assert!(project.lake().0 == before.0, "a plan writes nothing");

    let ran = project.rawmart(&[&ONE_DAY[..], &["--output", "json"]].concat());
    ran.expect(0, &[]);
    let after = project.lake();
    let written = keys(&[
        "app/dt=2019-04-04/part-00000.parquet",
        "app_duplicates/dt=2019-04-04/part-00000.parquet",
        "app_rejects/dt=2019-04-04/part-00000.parquet",
        "daily/dt=2019-04-04/part-00000.parquet",
    ]);
    assert_eq!(changed(&before, &after), written);
    assert!(before.content() == after.content());
    let rebuild =
        json!({ "dates": { "from": "2019-04-04", "to": "2019-04-04" }, "from_raw": true });
    let app = &ran.json()["sources"]["app"];
    assert_eq!(app["rebuild"], rebuild);
    assert_eq!(app["slices"], json!({ "read_again": 1 }));
    // The raw objects of the 4th, and of the 5th for its late event.
    assert_eq!(app["added"]["objects"], 2);
    assert_eq!(app["added"]["events"], 0);
    let history = project.rawmart(&["history", "--output", "json"]).json();
    let commits = history["commits"].as_array().unwrap();
    let of_source = commits
        .iter()
        .find(|commit| commit["sources"]["app"]["objects"] == 2);
    assert_eq!(of_source.unwrap()["sources"]["app"]["rebuilt"], rebuild);
    let told = ["app: rebuild of 2019-04-04 from raw", "read again for app"];
    project.rawmart(&["history"]).expect(0, &told);
    project.rawmart(&["verify"]).expect(0, &[]);

    let told = ["app: rebuild of 2019-04-04 from raw; 6 raw objects, 2 read again"];
    project.rawmart(&ONE_DAY).expect(0, &told);
    project.rawmart(&["run"]).expect(0, &["Nothing new"]);
    let all = project.rawmart(&["rebuild", "--raw"]);
    let told = ["app: rebuild of all dates from raw; 6 raw objects, 6 read again"];
    all.expect(0, &told);
    all.expect(
        0,
        &[" 7           slices       written anew, read again from raw"],
    );
}

/// The content has other values under the same record numbers and times.
#[test]
fn a_corrected_object_is_written_on_all_its_days() {
    let corrected = project("max_rejects = \"100%\"\non_changed_object = \"replace\"");
    corrected.rawmart(&["run"]).expect(0, &[]);
    let before = corrected.lake();
    corrected.write(&key(5), object(5, "bob"));
    corrected.rawmart(&ONE_DAY).expect(0, &[]);
    let after = corrected.lake();
    let changed = changed(&before, &after);
    assert!(
        changed.contains("app/dt=2019-04-05/part-00000.parquet"),
        "{changed:?}"
    );
    let fresh = project("max_rejects = \"100%\"");
    fresh.write(&key(5), object(5, "bob"));
    fresh.rawmart(&["run"]).expect(0, &[]);
    assert!(small::content(&after) == small::content(&fresh.lake()));
    corrected.rawmart(&["verify"]).expect(0, &[]);
}

/// A record that was a reject may become an event of any date, so every raw object with a reject is read.
#[test]
fn a_rebuild_for_other_columns_reads_every_raw_object_with_a_reject() {
    let project = project("max_rejects = \"100%\"");
    project.write(
        &key(7),
        "{\"id\":\"x\",\"at\":\"2019-04-04T00:30:00\",\"who\":\"eve\"}\n",
    );
    project.rawmart(&["run"]).expect(0, &[]);
    let toml = std::fs::read_to_string(project.path("rawmart.toml")).unwrap();
    let zone = toml.replace(
        "[sources.app]\n",
        "[sources.app]\nnaive_timezone = \"UTC\"\n",
    );
    project.write("rawmart.toml", zone);
    let ran = project.rawmart(&[&ONE_DAY[..], &["--output", "json"]].concat());
    ran.expect(0, &[]);
    let app = &ran.json()["sources"]["app"];
    assert_eq!(app["added"]["objects"], 6);
    assert_eq!(app["added"]["events"], 1);
    project.rawmart(&["verify"]).expect(0, &[]);
}

#[test]
fn the_exit_code_of_a_plan_says_what_is_planned() {
    let project = project("max_rejects = \"100%\"");
    let plan = |args: &[&str]| project.rawmart(&[&["plan", "--exit-code"], args].concat());
    let outcome = |args: &[&str]| -> Value {
        let ran = project.rawmart(&[&["plan", "--output", "json"], args].concat());
        ran.expect(0, &[]);
        ran.json()["outcome"].clone()
    };
    plan(&[]).expect(10, &["absorb, first run"]);
    // A rebuild makes nothing of what is not published.
    plan(&["--rebuild"]).expect(10, &["app: nothing to do", "mart daily: build, first time"]);
    plan(&["--rebuild", "--no-marts"]).expect(0, &["Nothing to do."]);
    project.rawmart(&["run"]).expect(0, &[]);
    plan(&[]).expect(0, &["Nothing to do."]);
    assert_eq!(outcome(&[]), "nothing_new");
    plan(&["--rebuild"]).expect(10, &["app: rebuild of all dates from the stored tables"]);
    assert_eq!(outcome(&["--rebuild"]), "work");

    project.write(&key(3), object(3, "bob"));
    for args in [&[][..], &["--rebuild", "--raw"]] {
        let refused = plan(args);
        refused.expect(4, &["app: refused", "the run will refuse", "1 raw objects"]);
        assert!(
            !refused.out.to_lowercase().contains("nothing to do"),
            "{refused:?}"
        );
        assert_eq!(outcome(args), "refused");
        let json = project.rawmart(&[&["plan", "--exit-code", "--output", "json"], args].concat());
        json.expect(4, &["changed_objects"]);
    }
    let gone = ["--rebuild", "--raw", "--forget-missing", "--source", "app"];
    plan(&gone).expect(10, &["app: rebuild of all dates from raw"]);
    plan(&["--from", "2019-04-04", "--to", "2019-04-04"]).expect(2, &["give --rebuild too"]);
}
