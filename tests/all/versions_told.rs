//! `publish = "catalog"` with a catalog: it names the current version of each partition, and earlier versions are deleted
//! when no query reads them any more.

use std::collections::{BTreeMap, BTreeSet};

use rawmart::report::Exit;
use rawmart::run::{Options, RunOutcome, RunSummary};
use rawmart::store::StoreSettings;

use crate::fake_glue::{Database, Fault};
use crate::glue::{Told, an_older_commit_never_stays, fails_at_each_request};
use crate::small::{self, Batch, Bucket, FIRST, SECOND, THIRD};

const HOUR: i64 = 3600;
/// The clock of the first run.
const BEGIN: i64 = 1_710_000_000;
const PUBLISH: &str = "publish = \"catalog\"\n";

fn with_versions() -> Told {
    let told = Told::of(Bucket::new());
    told.configure(|toml| format!("{PUBLISH}{toml}"));
    told
}

/// A run `hours` after the first one.
fn run_at(told: &Told, hours: i64) -> (Exit, RunSummary) {
    let context = small::context(
        &format!("run{hours}"),
        BEGIN + hours * HOUR,
        StoreSettings {
            retry_for: std::time::Duration::ZERO,
            ..told.store()
        },
    );
    let options = Options {
        marts: true,
        ..Options::default()
    };
    let summary = small::run_at(&small::job(&told.bucket.project), &options, &context).unwrap();
    (small::exit(Ok(summary.clone())).0, summary)
}

fn tells_at(told: &Told, hours: i64) -> RunSummary {
    let (exit, summary) = run_at(told, hours);
    assert_eq!(exit, Exit::Done, "{summary:?}");
    told.assert_told(&format!("after {hours} hours"));
    summary
}

fn after(batches: &[(i64, Batch)]) -> Told {
    let told = with_versions();
    for (hours, batch) in batches {
        told.bucket.add(batch);
        tells_at(&told, *hours);
    }
    told
}

fn expired(summary: &RunSummary) -> u64 {
    summary.catalog.as_ref().unwrap().expired
}

/// The keys of the data files in the folders that a catalog names.
fn named(told: &Told, database: &Database) -> BTreeSet<String> {
    let mut folders = BTreeSet::new();
    for table in database.tables.values() {
        let whole = [&table.input];
        let parts = table.partitions.values();
        let keys = table.input["PartitionKeys"].as_array().unwrap();
        let all: Vec<_> = match keys.is_empty() {
            true => whole.into_iter().collect(),
            false => parts.collect(),
        };
        folders.extend(all.into_iter().map(|found| {
            let location = found["StorageDescriptor"]["Location"].as_str().unwrap();
            location.strip_prefix("s3://lake/").unwrap().to_owned()
        }));
    }
    let keys = told.bucket.server.keys("lake").into_iter();
    let named = |key: &String| {
        let (folder, _) = key.rsplit_once('/').unwrap();
        folders.contains(&format!("{folder}/"))
    };
    keys.filter(named).collect()
}

/// The keys of all data files.
fn data_files(told: &Told) -> BTreeSet<String> {
    let keys = told.bucket.server.keys("lake").into_iter();
    keys.filter(|key| key.ends_with(".parquet") && !key.contains("/_rawmart/"))
        .collect()
}

#[test]
fn earlier_versions_stay_for_retain_after_the_catalog_was_told() {
    let told = after(&[(0, FIRST)]);
    let first = named(&told, &told.glue.database());
    assert_eq!(first, data_files(&told));
    assert!(
        first
            .iter()
            .all(|key| key.starts_with("small/rawmart-versions/"))
    );
    told.bucket.add(SECOND);
    let summary = tells_at(&told, 1);
    let catalog = summary.catalog.as_ref().unwrap();
    assert!(
        catalog.tables >= 5 && catalog.partitions >= 5,
        "{catalog:?}"
    );
    let second = named(&told, &told.glue.database());
    assert!(
        !second.is_superset(&first),
        "some partitions have other folders"
    );
    let both: BTreeSet<String> = first.union(&second).cloned().collect();
    for hours in [2, 24] {
        let nothing = tells_at(&told, hours);
        assert_eq!(nothing.outcome, RunOutcome::NothingNew);
        assert_eq!((expired(&nothing), nothing.commit), (0, summary.commit));
        assert_eq!(data_files(&told), both, "{hours}");
    }
    told.rawmart(&["verify"]).expect(0, &["balance"]);

    let last = tells_at(&told, 26);
    assert_eq!(expired(&last), (both.len() - second.len()) as u64);
    assert_eq!(data_files(&told), second);
    assert_eq!(named(&told, &told.glue.database()), second);
    told.rawmart(&["verify"]).expect(0, &["balance"]);
    let again = tells_at(&told, 27);
    assert_eq!((expired(&again), again.commit), (0, last.commit));
    let notes = told.bucket.server.keys("lake").into_iter();
    let notes: Vec<String> = notes.filter(|key| key.contains("/told/")).collect();
    assert_eq!(notes, Vec::<String>::new());
}

#[test]
fn each_version_has_its_own_time() {
    let told = after(&[(0, FIRST), (1, SECOND), (20, THIRD)]);
    let third = named(&told, &told.glue.database());
    let of_both = data_files(&told).len();
    let some = expired(&tells_at(&told, 26)) as usize;
    assert!(
        some > 0 && of_both - some > third.len(),
        "{some} of {of_both}"
    );
    let rest = expired(&tells_at(&told, 45)) as usize;
    assert_eq!(of_both - some - rest, third.len());
    assert_eq!(data_files(&told), third);
}

#[test]
fn a_version_stays_until_the_catalog_was_told_of_the_next() {
    let told = after(&[(0, FIRST)]);
    let first = named(&told, &told.glue.database());
    told.bucket.add(SECOND);
    told.glue.fail(None, Fault::Close);
    for hours in [1, 100] {
        let (exit, summary) = run_at(&told, hours);
        assert_eq!((exit, expired(&summary)), (Exit::Store, 0));
        assert!(
            data_files(&told).is_superset(&first),
            "readers have no other"
        );
    }
    told.glue.heal();
    // It is told by this run, so the queries of this hour may read the earlier version.
    assert_eq!(expired(&tells_at(&told, 200)), 0);
    assert_eq!(expired(&tells_at(&told, 223)), 0);
    assert!(data_files(&told).is_superset(&first));
    assert!(expired(&tells_at(&told, 225)) > 0);
}

#[test]
fn a_partition_of_the_catalog_that_is_at_an_earlier_version_is_told_again_and_its_time_begins_anew()
{
    let told = after(&[(0, FIRST)]);
    let before = told.glue.database();
    told.bucket.add(SECOND);
    tells_at(&told, 1);
    // A run that died may leave this: it told an older commit, and another run was faster.
    let mut database = told.glue.database();
    let values = vec!["2024-03-01".to_owned()];
    let older = before.tables["app"].partitions[&values].clone();
    let app = database.tables.get_mut("app").unwrap();
    assert_ne!(app.partitions.insert(values, older.clone()), Some(older));
    let total = database.tables.get_mut("total").unwrap();
    let of_total = &before.tables["total"].input["StorageDescriptor"];
    assert_ne!(total.input["StorageDescriptor"], *of_total);
    told.glue.set(Some(database));
    let all = data_files(&told);
    assert_eq!(expired(&tells_at(&told, 30)), 0);
    assert_eq!(data_files(&told), all);
    assert_eq!(expired(&tells_at(&told, 31)), 0);
    assert_eq!(expired(&tells_at(&told, 50)), 0);
    assert!(expired(&tells_at(&told, 56)) > 0);
    assert_eq!(data_files(&told), named(&told, &told.glue.database()));
}

#[test]
fn a_catalog_that_fails_while_versions_change_is_told_by_the_next_run() {
    let told = after(&[(0, FIRST)]);
    let before = told.glue.database();
    told.bucket.add(SECOND);
    told.tells();
    fails_at_each_request(&told, Some(before), 5);
}

#[test]
fn an_older_version_never_stays_in_the_place_of_a_newer_one() {
    an_older_commit_never_stays(&after(&[(0, FIRST)]), PUBLISH, 6);
}

#[test]
fn publish_catalog_needs_a_catalog_and_no_projection() {
    let told = with_versions();
    told.bucket.add(FIRST);
    tells_at(&told, 0);
    let ddl = told.rawmart(&["ddl", "--dialect", "athena", "--table", "app"]);
    ddl.expect(
        0,
        &[
            "ADD IF NOT EXISTS",
            "SET LOCATION 's3://lake/small/rawmart-versions/app/dt=2024-03-01/",
        ],
    );
    assert!(!ddl.out.contains("projection.enabled"), "{ddl:?}");

    let mut database = told.glue.database();
    let app = database.tables.get_mut("app").unwrap();
    app.input["Parameters"]["projection.enabled"] = "TRUE".into();
    told.glue.set(Some(database));
    told.bucket.add(SECOND);
    let ran = told.rawmart(&["run", "--output", "json"]);
    ran.expect(
        4,
        &[
            "app",
            "has partition projection",
            "storage.location.template",
        ],
    );
    assert_eq!(ran.json()["error"]["code"], "catalog_refused");

    told.configure(|toml| toml.split("\n[catalog]").next().unwrap().to_owned() + "\n# [catalog]\n");
    let refused = told.rawmart(&["run"]);
    refused.expect(2, &["rawmart.toml: publish: ", "`[catalog]`"]);
}

/// A mart by its name is seen by readers when it is built, too.
#[test]
fn marts_that_are_built_by_name_are_told() {
    let told = after(&[(0, FIRST)]);
    let sql = "SELECT count(*) AS lines, CAST(min(events) AS bigint) AS events FROM daily\n";
    told.bucket.project.write("sql/total.sql", sql);
    let ran = told.rawmart(&["marts", "total"]);
    ran.expect(0, &["catalog: rawmart was told of 1 tables"]);
    told.assert_told("after a mart");
    let tables: BTreeMap<_, _> = told.glue.database().tables;
    let location = tables["total"].input["StorageDescriptor"]["Location"].clone();
    let lake = told.bucket.lake();
    let key = location
        .as_str()
        .unwrap()
        .strip_prefix("s3://lake/small/")
        .unwrap();
    assert!(
        lake.0.contains_key(&format!("{key}part-00000.parquet")),
        "{key}"
    );
}
