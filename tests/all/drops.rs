//! Raw objects that are dropped for good, and the events of one user that are erased.

use rawmart::plan::Rebuild;
use rawmart::run::Options;
use serde_json::json;

use crate::project::{Project, Ran, Row, cell};
use crate::small::{self, Batch, FIRST, SECOND, THIRD};

/// The key of a raw object that holds an event which displaces others, and a reject.
const DROPPED: &str = SECOND[0].0;

/// What is left of the second batch without that object.
const REST: Batch = &[SECOND[1], SECOND[2]];

fn drop_object(project: &Project, key: &str, more: &[&str]) -> Ran {
    let args = ["rebuild", "--source", "app", "--drop-object", key];
    project.rawmart(&[&args, more].concat())
}

fn published(batches: &[Batch]) -> Project {
    let project = small::on_disk(batches);
    project.rawmart(&["run"]).expect(0, &[]);
    project
}

#[test]
fn a_dropped_raw_object_leaves_and_the_events_that_it_displaced_come_back() {
    let project = published(&[FIRST, SECOND]);
    let plan = [
        "plan",
        "--exit-code",
        "--rebuild",
        "--source",
        "app",
        "--drop-object",
        DROPPED,
    ];
    let planned = ["app: drop raw objects for good", "1 to drop", DROPPED];
    project.rawmart(&plan).expect(10, &planned);
    let ran = drop_object(&project, DROPPED, &["--output", "json"]);
    ran.expect(0, &[]);
    let app = &ran.json()["sources"]["app"];
    assert_eq!(app["dropped"], json!([DROPPED]));
    assert_eq!(app["added"]["records"], -3);
    assert_eq!(app["added"]["events"], -2);
    assert_eq!(app["added"]["rejects"], json!({ "not_json": -1 }));
    let expected = small::expected(&[FIRST, REST]);
    small::assert_whole(&project.lake(), &expected, "dropped");

    let noted = [
        &format!("1 raw objects were dropped for good: {DROPPED}"),
        "every count balances",
    ];
    project
        .rawmart(&["verify"])
        .expect(0, &noted.map(|part| part as &str));
    let told = format!("app: dropped for good: {DROPPED}, with 2 events and 1 rejects");
    project.rawmart(&["history"]).expect(0, &[&told]);
    let history = project.rawmart(&["history", "--output", "json"]).json();
    let dropped = |commit: &serde_json::Value| commit["sources"]["app"]["dropped"].clone();
    let commits = history["commits"].as_array().unwrap();
    let dropped: Vec<_> = commits
        .iter()
        .map(dropped)
        .filter(|dropped| !dropped.is_null())
        .collect();
    assert_eq!(dropped.len(), 1);
    assert_eq!(dropped[0][0]["key"], DROPPED);

    // It stays out, whatever comes, and whatever it holds.
    let plan = project.rawmart(&["plan"]);
    plan.expect(0, &["Nothing to do.", &format!("dropped: {DROPPED}")]);
    project
        .rawmart(&["run"])
        .expect(0, &["Nothing new", "dropped"]);
    project.write(&format!("raw/{DROPPED}"), THIRD[0].1);
    project.rawmart(&["run"]).expect(0, &["Nothing new"]);
    project
        .rawmart(&["run", "--replace-changed"])
        .expect(0, &["Nothing new"]);
    small::add(&project, THIRD);
    project.rawmart(&["run"]).expect(0, &["1 new"]);
    let expected = small::expected(&[FIRST, REST, THIRD]);
    small::assert_whole(&project.lake(), &expected, "after a run");
    for rebuild in [
        &["rebuild"][..],
        &["rebuild", "--raw"],
        &["rebuild", "--raw", "--forget-missing"],
    ] {
        project.rawmart(rebuild).expect(0, &[]);
        small::assert_whole(&project.lake(), &expected, "after a rebuild");
    }
    // Also where all tables are made anew, and where a file is made again.
    let toml = std::fs::read_to_string(project.path("rawmart.toml")).unwrap();
    let hours = toml.replace(
        "[sources.app]\n",
        "[sources.app]\npartition_by = \"hour\"\n",
    );
    project.write("rawmart.toml", hours);
    project.rawmart(&["rebuild"]).expect(0, &[]);
    project.write("rawmart.toml", toml);
    project.rawmart(&["rebuild"]).expect(0, &[]);
    small::assert_whole(&project.lake(), &expected, "after changed partitions");
    let file = project.path("lake/app/dt=2024-03-01/part-00000.parquet");
    std::fs::remove_file(file).unwrap();
    project.rawmart(&["verify", "--repair"]).expect(0, &[]);
    small::assert_whole(&project.lake(), &expected, "after a repair");
    // Asked for once more, there is nothing to do.
    drop_object(&project, DROPPED, &[]).expect(0, &["Nothing new"]);
}

#[test]
fn several_raw_objects_are_dropped_at_once() {
    let project = published(&[FIRST, SECOND]);
    drop_object(&project, DROPPED, &["--drop-object", FIRST[0].0]).expect(0, &["Published commit"]);
    let expected = small::expected(&[&FIRST[1..], REST]);
    small::assert_whole(&project.lake(), &expected, "dropped");
    project
        .rawmart(&["verify"])
        .expect(0, &["2 raw objects were dropped for good"]);
    // The last ones, too.
    let rest = [FIRST[1].0, FIRST[2].0, REST[0].0, REST[1].0];
    let flags: Vec<&str> = rest.iter().flat_map(|key| ["--drop-object", key]).collect();
    let args = [&["rebuild", "--source", "app"], &flags[..]].concat();
    project.rawmart(&args).expect(0, &["Published commit"]);
    project
        .rawmart(&["verify"])
        .expect(0, &["6 raw objects were dropped for good"]);
    project.rawmart(&["run"]).expect(0, &["Nothing new"]);
}

#[test]
fn a_drop_that_would_be_wrong_is_refused() {
    let project = small::on_disk(&[FIRST]);
    let key = FIRST[1].0;
    drop_object(&project, key, &[]).expect(4, &["was absorbed", key]);
    project.rawmart(&["run"]).expect(0, &[]);
    drop_object(&project, "2024/03/01/14/z", &[])
        .expect(4, &["2024/03/01/14/z", "sources.app.exclude"]);
    // Other rules than those that made the tables would decide some of the events.
    let toml = std::fs::read_to_string(project.path("rawmart.toml")).unwrap();
    project.write("rawmart.toml", toml.replace("\"10s\"", "\"2s\""));
    drop_object(&project, key, &[]).expect(4, &["changed rules: double_click"]);
    project.rawmart(&["rebuild"]).expect(0, &[]);
    drop_object(&project, key, &[]).expect(0, &["Published commit"]);
}

/// Options of a rebuild that drops a raw object.
pub fn dropping() -> Options {
    Options {
        marts: true,
        rebuild: Some(Rebuild {
            drop: [DROPPED.to_owned()].into(),
            ..Rebuild::default()
        }),
        ..Options::default()
    }
}

/// The batches without the raw object that [`dropping`] drops.
pub const WITHOUT_DROPPED: [Batch; 2] = [FIRST, REST];

/// As docs/operations.md says: the records leave the raw objects, then the tables follow.
#[test]
fn the_events_of_one_user_are_erased() {
    for command in [
        &["rebuild", "--source", "app", "--raw", "--forget-missing"][..],
        &["run", "--replace-changed"],
    ] {
        let project = published(&[FIRST, SECOND, THIRD]);
        let mentions = |table: &str| -> Vec<Row> {
            let mut rows = project.lake().rows(table);
            rows.retain(|row| row.contains_key("who") && cell(row, "who") == "ann");
            rows
        };
        let mut objects: Vec<String> = ["app", "app_duplicates"]
            .iter()
            .flat_map(|table| mentions(table))
            .map(|row| cell(&row, "raw_object"))
            .collect();
        objects.sort();
        objects.dedup();
        assert!(objects.len() > 1, "{objects:?}");
        for object in &objects {
            let path = project.path("raw").join(object);
            let text = std::fs::read_to_string(&path).unwrap();
            let left: Vec<&str> = text
                .lines()
                .filter(|line| !line.contains("\"ann\""))
                .collect();
            match left.is_empty() && command[0] == "rebuild" {
                true => std::fs::remove_file(path).unwrap(),
                false => std::fs::write(path, left.join("\n")).unwrap(),
            }
        }
        project.rawmart(command).expect(0, &["Published commit"]);
        project
            .rawmart(&["verify"])
            .expect(0, &["every count balances"]);
        let lake = project.lake();
        for table in ["app", "app_duplicates", "daily"] {
            assert!(mentions(table).is_empty(), "{table}");
        }
        // Not even in a file that nothing names.
        for (key, bytes) in &lake.0 {
            let found = bytes.windows(3).any(|three| three == b"ann");
            assert!(!found, "{key} mentions the user");
        }
        let fresh = small::project("raw/", "lake");
        copy(&project, &fresh);
        fresh.rawmart(&["run"]).expect(0, &[]);
        let same = small::content(&lake) == small::content(&fresh.lake());
        assert!(same, "{command:?}");
        project.rawmart(&["run"]).expect(0, &["Nothing new"]);
    }
}

/// Copies the raw objects that a project has by now.
fn copy(from: &Project, to: &Project) {
    for batch in [FIRST, SECOND, THIRD] {
        for (key, _) in batch {
            let name = format!("raw/{key}");
            if let Ok(content) = std::fs::read(from.path(&name)) {
                to.write(&name, content);
            }
        }
    }
}
