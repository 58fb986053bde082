//! The disk of the lake or of the spill folder is full, or the spill folder is missing. The message says which,
//! and what to do, and nothing is left behind. Spill folders belong to their owner alone, and the folders of
//! dead runs are removed.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rawmart::report::Exit;
use rawmart::store::{Access, Gate, Operation, StoreSettings};

use crate::project::{Project, Ran};
use crate::small::{self, FIRST, SECOND};

/// Makes a disk seem full: operations of one kind below a folder of the lake fail after the first `room`.
#[derive(Debug)]
struct FullDisk {
    operation: Operation,
    below: &'static str,
    room: AtomicUsize,
}

#[async_trait::async_trait]
impl Gate for FullDisk {
    async fn before(&self, access: Access<'_>) -> io::Result<()> {
        let concerned = access.operation == self.operation && access.key.starts_with(self.below);
        let take = |room: usize| room.checked_sub(1);
        let (success, failure) = (Ordering::SeqCst, Ordering::SeqCst);
        match concerned && self.room.fetch_update(success, failure, take).is_err() {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

    async fn after(&self, _: Access<'_>) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_of_the_lake_leaves_nothing_staged() {
    let expected = small::expected(&[FIRST, SECOND]);
    for (operation, below, least) in [
        (Operation::Upload, "_rawmart/staging/", 6),
        (Operation::Create, "_rawmart/log/", 4),
    ] {
        for room in 0.. {
            let project = small::on_disk(&[FIRST]);
            small::run(&small::job(&project), "before", StoreSettings::default()).unwrap();
            small::add(&project, SECOND);
            let gate = FullDisk {
                operation,
                below,
                room: room.into(),
            };
            let settings = StoreSettings {
                gate: Some(Arc::new(gate)),
                ..StoreSettings::default()
            };
            let before = project.lake();
            let ran = small::run(&small::job(&project), "full", settings);
            let when = format!("{operation:?} number {room}");
            let (exit, told) = small::exit(ran);
            if exit == Exit::Done {
                assert!(room >= least, "{when}");
                break;
            }
            assert_eq!(exit, Exit::Internal, "{told}, {when}");
            for said in [
                "the disk is full",
                "/lake/_rawmart/",
                "free space on that disk",
            ] {
                assert!(told.contains(said), "{told}, {when}");
            }
            let full = project.lake();
            // A staged file of a commit that was made has the same bytes as the published file.
            let last = full.commits().last().copied().unwrap_or_default();
            let staged = full.0.keys();
            let staged = staged.filter_map(|key| key.strip_prefix("_rawmart/staging/"));
            let staged: Vec<_> = staged.filter(|name| name[..20] > *last).collect();
            assert!(staged.is_empty(), "{staged:?}, {when}");
            if full.commits() == before.commits() {
                assert!(full.0 == before.0, "something else is left, {when}");
            }
            small::recovers(&project, &expected, &when);
        }
    }
}

/// Runs the binary with files of at most so many KiB. A larger file is an error and not a signal.
fn with_small_files(project: &Project, kib: u32, args: &str) -> Ran {
    let binary = env!("CARGO_BIN_EXE_rawmart");
    let shell = format!("trap '' XFSZ; ulimit -f {kib}; exec {binary} {args}");
    let mut command = Command::new("bash");
    command
        .args(["-c", &shell])
        .current_dir(project.path(""))
        .env_clear()
        .env("HOME", "/nonexistent")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ran::of(command.output().unwrap())
}

#[test]
fn a_full_spill_folder_is_named() {
    let project = small::on_disk(&[FIRST]);
    std::fs::create_dir(project.path("spill")).unwrap();
    let lines = |i: u32| format!("{{\"id\":\"{i:0>90}\",\"time\":\"2024-03-01T14:50:00Z\"}}\n");
    project.write(
        "raw/2024/03/01/14/many",
        (0..500).map(lines).collect::<String>(),
    );
    let ran = with_small_files(&project, 1, "run --spill-dir spill");
    ran.expect(1, &["spill folder", "/spill/", "set spill_dir"]);
    let left: Vec<String> = project.lake().0.into_keys().collect();
    assert_eq!(left, ["_rawmart/lock", "_rawmart/probe"]);
    assert_eq!(std::fs::read_dir(project.path("spill")).unwrap().count(), 0);
    project
        .rawmart(&["run", "--spill-dir", "spill"])
        .expect(0, &["Published"]);
    // Only the spill folder hides its content. Data files may be read by everybody who may read the lake.
    project.write("own", "");
    let mode = |name: &str| std::fs::metadata(project.path(name)).unwrap().mode();
    for key in project
        .lake()
        .0
        .keys()
        .filter(|key| key.ends_with(".parquet"))
    {
        assert_eq!(mode(&format!("lake/{key}")), mode("own"), "{key}");
    }
}

#[test]
fn a_spill_folder_that_fills_up_inside_a_mart_stops_the_run() {
    let line = |i: u32| format!("{{\"id\":\"{i:0>90}\",\"time\":\"2024-03-01T14:50:00Z\"}}\n");
    let lines: String = (0..4_000).map(line).collect();
    let pairs =
        "(SELECT a.id AS x, b.id AS y FROM app a JOIN app b ON right(a.id, 1) = right(b.id, 1))";
    let sorted = format!("SELECT x, row_number() OVER (ORDER BY y DESC, x) AS place FROM {pairs}");
    let grouped = format!("SELECT count(*) AS n FROM (SELECT DISTINCT x || y AS xy FROM {pairs})");
    for sql in [sorted, grouped] {
        let project = small::on_disk(&[FIRST]);
        std::fs::create_dir(project.path("spill")).unwrap();
        project.write("raw/2024/03/01/14/many", &lines);
        project.write("sql/full.sql", sql);
        project.write("sql/well.sql", "SELECT count(*) AS n FROM app");
        let args = "--memory 256MiB --threads 2 run --spill-dir spill";
        let ran = with_small_files(&project, 1024, args);
        ran.expect(1, &["spill folder", "/spill/", "set spill_dir"]);
        assert_eq!(std::fs::read_dir(project.path("spill")).unwrap().count(), 0);
        // The events are published, and the next run goes on.
        project.rawmart(&["verify"]).expect(0, &[]);
        assert!(project.lake().cells("app", &["id"]).len() > 4_000);
        project.write("sql/full.sql", "SELECT 1 AS n FROM app LIMIT 1");
        project.rawmart(&["run"]).expect(0, &[]);
        assert_eq!(project.lake().cells("well", &["n"]), [["4005"]]);
    }
}

#[test]
fn a_spill_folder_that_is_not_there() {
    let project = small::on_disk(&[FIRST]);
    project.write("file", "");
    for (folder, args) in [
        ("gone", &["run", "--spill-dir", "gone"][..]),
        ("file", &["run", "--spill-dir", "file"]),
        ("gone", &["plan", "--spill-dir", "gone"]),
    ] {
        let ran = project.rawmart(args);
        ran.expect(2, &[folder, "set spill_dir"]);
        assert!(project.lake().0.is_empty(), "{args:?}");
    }
}

#[test]
fn what_a_dead_run_has_spilled_is_removed() {
    let project = small::on_disk(&[FIRST]);
    for name in [
        "rawmart-dead/lock",
        "rawmart-dead/engine/rows",
        "other/lock",
    ] {
        project.write(&format!("spill/{name}"), "rows");
    }
    project.write("spill/rawmart-living/lock", "");
    let living = std::fs::File::open(project.path("spill/rawmart-living/lock")).unwrap();
    living.lock().unwrap();
    project
        .rawmart(&["run", "--spill-dir", "spill"])
        .expect(0, &["Published"]);
    let entries = std::fs::read_dir(project.path("spill")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    assert_eq!(names, ["other", "rawmart-living"]);
}
