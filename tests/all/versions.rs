//! `publish = "catalog"`: each version of a partition has a folder of its own, and a reader in flight keeps the version
//! that it began with.

use std::collections::{BTreeMap, BTreeSet};

use rawmart::config::{Job, Publish};
use rawmart::plan::{Rebuild, Refusal};
use rawmart::run::{self, Options, RunError};
use rawmart::store::StoreSettings;

use crate::crash::{dies_everywhere, dies_everywhere_there};
use crate::project::Project;
use crate::small::{self, Batch, FIRST, Memory, SECOND, THIRD};

/// A project on disk with versions, run over `before`. The raw objects of `batch` are new.
fn prepared(before: &[Batch], batch: Batch) -> Project {
    let project = small::on_disk(before);
    small::with_versions(&project);
    if !before.is_empty() {
        small::run(&small::job(&project), "before", StoreSettings::default()).unwrap();
    }
    small::add(&project, batch);
    project
}

fn usual() -> Options {
    Options {
        marts: true,
        ..Options::default()
    }
}

#[test]
fn a_first_run_with_versions_may_die_at_some_operations_on_disk() {
    let expected = small::expected(&[FIRST]);
    dies_everywhere(&prepared(&[], FIRST), &usual(), &expected, 7);
}

#[test]
fn a_later_run_with_versions_may_die_at_some_operations_on_disk() {
    let expected = small::expected(&[FIRST, SECOND, THIRD]);
    dies_everywhere(&prepared(&[FIRST, SECOND], THIRD), &usual(), &expected, 5);
}

#[test]
fn a_later_run_with_versions_may_die_at_some_operations_in_memory() {
    let project = small::on_disk(&[FIRST, SECOND]);
    small::with_versions(&project);
    let start = Memory::new(project, true, THIRD);
    dies_everywhere_there(&start, &small::expected(&[FIRST, SECOND, THIRD]), 4);
}

/// The files of each partition: the folder of its current version, and the names in it.
type Current = BTreeMap<(String, String), (String, BTreeSet<String>)>;

fn current(job: &Job) -> Current {
    let tables = block_on(run::describe_tables(job)).unwrap().tables;
    let mut current = Current::new();
    for table in tables {
        for partition in table.partitions {
            let folder = partition.location.trim_start_matches("file://").to_owned();
            let names = std::fs::read_dir(&folder).unwrap();
            let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let names: BTreeSet<String> = names.collect();
            assert_eq!(names.len() as u64, partition.files, "{folder}");
            current.insert((table.name.clone(), partition.folder), (folder, names));
        }
    }
    current
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// The bytes of all files in the folders of versions.
fn bytes_of(current: &Current) -> BTreeMap<String, Vec<u8>> {
    let files = current.values().flat_map(|(folder, names)| {
        let paths = names.iter().map(move |name| format!("{folder}{name}"));
        paths.map(|path| (path.clone(), std::fs::read(path).unwrap()))
    });
    files.collect()
}

#[test]
fn a_partition_lies_whole_in_the_folder_of_its_version_and_earlier_versions_stay() {
    let project = prepared(&[FIRST], &[]);
    let job = small::job(&project);
    let first = current(&job);
    let read = bytes_of(&first);
    assert!(
        first
            .values()
            .all(|(folder, _)| folder.contains("/rawmart-versions/"))
    );
    let of_day = &first[&("app".to_owned(), "dt=2024-03-01".to_owned())];
    assert_eq!(of_day.1.len(), 1, "{of_day:?}");

    small::add(&project, SECOND);
    small::run(&job, "second", StoreSettings::default()).unwrap();
    small::add(&project, THIRD);
    small::run(&job, "third", StoreSettings::default()).unwrap();
    let second = current(&job);
    let of_day = &second[&("app".to_owned(), "dt=2024-03-04".to_owned())];
    assert_eq!(of_day.1.len(), 2, "one of them is a copy: {of_day:?}");
    let mut moved = 0;
    for (partition, (folder, names)) in &first {
        let (now, names_now) = &second[partition];
        assert!(
            names_now.is_superset(names),
            "{partition:?}: {names:?}, {names_now:?}"
        );
        moved += usize::from(folder != now);
    }
    assert!(moved > 3, "{moved} partitions have a new version");
    for (path, bytes) in read {
        assert!(
            std::fs::read(&path).unwrap() == bytes,
            "{path} was read in flight"
        );
    }
    let lake = project.lake();
    let below_roots = lake
        .data_files()
        .filter(|(key, _)| !key.starts_with("rawmart-versions/"));
    assert_eq!(
        below_roots.count(),
        0,
        "no client that lists a table finds a part of it"
    );
    small::recovers(
        &project,
        &small::expected(&[FIRST, SECOND, THIRD]),
        "after all",
    );
}

/// All rows of a table, as `rawmart query` reads them.
fn rows(job: &Job, table: &str) -> Vec<String> {
    let sql = run::Sql::Text(format!("SELECT * FROM {table}"));
    let mut rows = Vec::new();
    let mut take = |part: run::Part<'_>| {
        if let run::Part::Rows(batch) = part {
            let text = arrow::util::pretty::pretty_format_batches(std::slice::from_ref(batch));
            rows.extend(text.unwrap().to_string().lines().map(str::to_owned));
        }
        Ok(())
    };
    block_on(run::query(job, &sql, &mut take)).unwrap();
    rows.sort();
    rows
}

#[test]
fn another_publish_is_refused_and_a_rebuild_moves_the_files() {
    let project = prepared(&[FIRST], SECOND);
    let versions = small::job(&project);
    let directory = Job {
        publish: Publish::Directory,
        ..versions.clone()
    };
    let rebuild = Options {
        rebuild: Some(Rebuild::default()),
        ..usual()
    };
    let store = StoreSettings::default;
    for (before, after, name) in [
        (&versions, &directory, "to directories"),
        (&directory, &versions, "to versions"),
        (&versions, &directory, "and back"),
    ] {
        small::run(before, &format!("before {name}"), store()).unwrap();
        let expected: Vec<_> = ["app", "app_duplicates", "daily", "total"]
            .map(|table| rows(before, table))
            .to_vec();
        let refused = small::run(after, "refused", store()).unwrap_err();
        let is_refusal = |error: &RunError| {
            matches!(
                error,
                RunError::Refused {
                    refusal: Refusal::Published { .. },
                    ..
                }
            )
        };
        assert!(is_refusal(&refused), "{refused}, {name}");
        assert!(
            refused.to_string().contains("`rawmart rebuild` copies"),
            "{refused}"
        );
        let planned = block_on(run::plan(after, &usual())).unwrap();
        assert!(planned.sources[0].refused.is_some(), "{name}");

        small::run_with(after, &rebuild, &format!("rebuild {name}"), store()).unwrap();
        let wanted = after.publish == Publish::Catalog;
        for (partition, (folder, _)) in current(after) {
            let is_version = folder.contains("/rawmart-versions/");
            assert_eq!(is_version, wanted, "{partition:?}, {name}");
        }
        let found: Vec<_> = ["app", "app_duplicates", "daily", "total"]
            .map(|table| rows(after, table))
            .to_vec();
        assert_eq!(found, expected, "{name}");
        let verified = block_on(run::verify(after, run::Depth::Usual, &store())).unwrap();
        assert!(
            verified.damage.is_empty() && verified.strays.is_empty(),
            "{verified:?}, {name}"
        );
    }
}

/// A rebuild that converts the lake may die.
#[test]
fn a_conversion_may_die_at_some_operations_on_disk() {
    let project = small::on_disk(&[FIRST]);
    small::run(&small::job(&project), "before", StoreSettings::default()).unwrap();
    small::with_versions(&project);
    let toml = std::fs::read_to_string(project.path("rawmart.toml")).unwrap();
    // Another slice would be another refusal.
    project.write("rawmart.toml", toml.replace("slice = \"1h\"\n", ""));
    let rebuild = Options {
        rebuild: Some(Rebuild::default()),
        ..usual()
    };
    dies_everywhere(&project, &rebuild, &small::expected(&[FIRST]), 9);
}

/// A repair makes the files of a partition again, one after the other, and the partition is whole in the end.
#[test]
fn lost_files_of_a_version_are_made_again_and_the_partition_is_whole() {
    let start = prepared(&[FIRST], SECOND);
    small::run(&small::job(&start), "second", StoreSettings::default()).unwrap();
    small::add(&start, THIRD);
    small::run(&small::job(&start), "third", StoreSettings::default()).unwrap();
    let expected = small::expected(&[FIRST, SECOND, THIRD]);
    let all = current(&small::job(&start));
    let several = all.values().find(|(_, names)| names.len() > 1).unwrap();
    for names in [&several.1, &several.1.iter().take(1).cloned().collect()] {
        let project = small::linked(&start);
        let job = small::job(&project);
        let folder = &current(&job)[all.iter().find(|(_, v)| *v == several).unwrap().0].0;
        for name in names {
            std::fs::remove_file(format!("{folder}{name}")).unwrap();
        }
        let repaired = small::repair(&job, "repair", StoreSettings::default()).unwrap();
        assert!(
            repaired.damage.is_empty(),
            "{repaired:?}, without {names:?}"
        );
        assert_eq!(repaired.strays, Vec::<String>::new());
        assert!(!repaired.repaired.is_empty());
        current(&job);
        small::recovers(&project, &expected, "after a repair");
    }
    // An empty file and another one of the same partition.
    let project = small::linked(&start);
    let job = small::job(&project);
    let emptied = &current(&job)[&("app".to_owned(), "dt=2024-03-02".to_owned())];
    for name in &emptied.1 {
        std::fs::remove_file(format!("{}{name}", emptied.0)).unwrap();
    }
    let repaired = small::repair(&job, "repair", StoreSettings::default()).unwrap();
    assert!(repaired.damage.is_empty(), "{repaired:?}");
    small::recovers(&project, &expected, "after a repair of an emptied file");
}
