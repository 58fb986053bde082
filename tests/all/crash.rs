//! P4 and P5: a run dies at each of its operations, on disk and in memory at a gate, and on S3 at the server.
//! The next run ends in the state that the dead run would have reached. After every operation the tests also
//! check the view of a reader.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rawmart::plan::{CommitLimits, Rebuild};
use rawmart::run::{MartOutcome, MartSummary, Options, RunSummary};
use rawmart::store::{Access, Gate, Operation, StoreSettings};
use tokio::sync::Semaphore;

use crate::drops;
use crate::project::{Lake, Project, Ran, Row};
use crate::s3::{Asked, Control};
use crate::small::{self, Batch, Bucket, FIRST, Memory, SECOND};

/// The operation at which a process dies, counted from the beginning, and whether it dies before or after the
/// operation takes effect.
#[derive(Debug, Clone, Copy)]
pub struct Death {
    pub at: usize,
    pub after: bool,
    /// Whether only this operation fails and the process goes on.
    pub once: bool,
}

impl Death {
    /// Every way to die at one operation.
    fn all(at: usize) -> [Self; 3] {
        [(false, false), (true, false), (false, true)].map(|(after, once)| Self { at, after, once })
    }
}

/// Counts operations one after another, and lets none pass once the process is dead.
#[derive(Debug)]
struct Mortal {
    death: Option<Death>,
    begun: Mutex<usize>,
}

impl Mortal {
    fn new(death: Option<Death>) -> Self {
        Self {
            death,
            begun: Mutex::new(0),
        }
    }

    fn begun(&self) -> usize {
        *self.begun.lock().unwrap()
    }

    /// Whether the next operation takes effect.
    fn begins(&self) -> bool {
        let mut begun = self.begun.lock().unwrap();
        let number = *begun;
        *begun += 1;
        self.death.is_none_or(|death| match number.cmp(&death.at) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => death.after,
            std::cmp::Ordering::Greater => death.once,
        })
    }

    /// Whether the current operation is answered.
    fn answers(&self) -> bool {
        self.death
            .is_none_or(|death| death.once || self.begun() <= death.at)
    }
}

/// An operation that took effect, as the gate saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    operation: Operation,
    root: String,
    key: String,
}

/// A function that is called after every operation.
pub type Watch = Box<dyn Fn(&Done) + Send + Sync>;

/// Lets one operation through at a time, so that a run does the same operations in the same order every time.
pub struct Turnstile {
    mortal: Mortal,
    turn: Semaphore,
    watch: Option<Watch>,
    trace: Mutex<Vec<Done>>,
}

impl std::fmt::Debug for Turnstile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.mortal.fmt(f)
    }
}

impl Turnstile {
    pub fn new(death: Option<Death>, watch: Option<Watch>) -> Arc<Self> {
        Arc::new(Self {
            mortal: Mortal::new(death),
            turn: Semaphore::new(1),
            watch,
            trace: Mutex::default(),
        })
    }

    pub fn settings(self: &Arc<Self>) -> StoreSettings {
        StoreSettings {
            gate: Some(Arc::clone(self) as Arc<dyn Gate>),
            ..StoreSettings::default()
        }
    }
}

fn dead() -> io::Error {
    io::Error::other("the process is dead")
}

#[async_trait::async_trait]
impl Gate for Turnstile {
    async fn before(&self, _: Access<'_>) -> io::Result<()> {
        self.turn
            .acquire()
            .await
            .map_err(io::Error::other)?
            .forget();
        if self.mortal.begins() {
            return Ok(());
        }
        self.turn.add_permits(1);
        Err(dead())
    }

    async fn after(&self, access: Access<'_>) -> io::Result<()> {
        let done = Done {
            operation: access.operation,
            root: access.root.to_owned(),
            key: access.key.to_owned(),
        };
        if let Some(watch) = &self.watch {
            watch(&done);
        }
        self.trace.lock().unwrap().push(done);
        let answers = self.mortal.answers();
        self.turn.add_permits(1);
        answers.then_some(()).ok_or_else(dead)
    }
}

/// A project on disk whose lake holds `before`. The raw objects of `batch` are new.
fn prepared(before: &[Batch], batch: Batch) -> Project {
    let project = small::on_disk(before);
    if !before.is_empty() {
        small::run(&small::job(&project), "before", StoreSettings::default()).unwrap();
    }
    small::add(&project, batch);
    project
}

/// The run over `batch` dies at every operation in turn.
fn dies_everywhere_on_disk(before: &[Batch], batch: Batch) {
    let all: Vec<Batch> = before.iter().copied().chain([batch]).collect();
    let options = Options {
        marts: true,
        ..Options::default()
    };
    let expected = small::expected(&all);
    dies_everywhere(&prepared(before, batch), &options, &expected, 1);
}

/// A run over the project dies at every operation whose number `step` divides.
pub fn dies_everywhere(
    start: &Project,
    options: &Options,
    expected: &BTreeMap<String, Vec<Row>>,
    step: usize,
) {
    let whole = small::linked(start);
    let gate = Turnstile::new(None, None);
    small::run_with(&small::job(&whole), options, "dying", gate.settings()).unwrap();
    small::assert_whole(&whole.lake(), expected, "without faults");
    let operations = gate.mortal.begun();
    assert!(operations > 40, "{operations} operations are no commit");
    for at in (0..operations).step_by(step) {
        for death in Death::all(at) {
            let project = small::linked(start);
            let gate = Turnstile::new(Some(death), None);
            let job = small::job(&project);
            let ran = small::run_with(&job, options, "dying", gate.settings());
            assert!(ran.is_err(), "{death:?}: {ran:?}");
            let last = gate.trace.lock().unwrap().last().cloned();
            let when = format!("{death:?} behind {last:?}");
            small::recovers_with(&project, options, expected, &when);
        }
    }
}

#[test]
fn a_first_run_may_die_at_any_operation_on_disk() {
    dies_everywhere_on_disk(&[], FIRST);
}

#[test]
fn a_later_run_may_die_at_any_operation_on_disk() {
    dies_everywhere_on_disk(&[FIRST], SECOND);
}

/// The same in memory, where a lake is guarded as in a bucket and no disk is involved.
fn dies_everywhere_in_memory(before: &[Batch], batch: Batch) {
    let all: Vec<Batch> = before.iter().copied().chain([batch]).collect();
    let start = Memory::new(small::on_disk(before), !before.is_empty(), batch);
    dies_everywhere_there(&start, &small::expected(&all), 1);
}

/// A run over a lake in memory dies at every operation whose number `step` divides.
pub fn dies_everywhere_there(start: &Memory, expected: &BTreeMap<String, Vec<Row>>, step: usize) {
    let through = |gate: &Arc<Turnstile>, memory: &Memory| StoreSettings {
        memory: memory.store().memory,
        ..gate.settings()
    };
    let (gate, whole) = (Turnstile::new(None, None), start.copy());
    whole.run("dying", through(&gate, &whole)).unwrap();
    small::assert_whole(&whole.lake(), expected, "without faults");
    let operations = gate.mortal.begun();
    assert!(operations > 40, "{operations} operations are no commit");
    for at in (0..operations).step_by(step) {
        for death in Death::all(at) {
            let memory = start.copy();
            let gate = Turnstile::new(Some(death), None);
            let ran = memory.run("dying", through(&gate, &memory));
            assert!(ran.is_err(), "{death:?}: {ran:?}");
            memory.recovers(expected, &format!("{death:?}"));
        }
    }
}

#[test]
fn a_first_run_may_die_at_any_operation_in_memory() {
    dies_everywhere_in_memory(&[], FIRST);
}

#[test]
fn a_later_run_may_die_at_any_operation_in_memory() {
    dies_everywhere_in_memory(&[FIRST], SECOND);
}

/// One raw object in each commit.
const BIT_BY_BIT: CommitLimits = CommitLimits {
    objects: 1,
    bytes: 1,
};

#[test]
fn a_run_of_many_commits_may_die_at_any_operation_on_disk() {
    let options = Options {
        marts: true,
        limits: Some(BIT_BY_BIT),
        ..Options::default()
    };
    let expected = small::expected(&[FIRST, SECOND]);
    dies_everywhere(&prepared(&[FIRST], SECOND), &options, &expected, 3);
}

/// The content of one object replaces the content of another, so that duplicates of both move.
const CORRECTED: Batch = &[(FIRST[0].0, SECOND[0].1), (SECOND[0].0, FIRST[0].1)];

#[test]
fn a_run_that_replaces_may_die_at_any_operation_on_disk() {
    let project = prepared(&[FIRST, SECOND], &[]);
    small::add(&project, CORRECTED);
    let fresh = small::on_disk(&[FIRST, SECOND, CORRECTED]);
    small::run(&small::job(&fresh), "fresh", StoreSettings::default()).unwrap();
    let options = Options {
        marts: true,
        replace_changed: true,
        ..Options::default()
    };
    dies_everywhere(&project, &options, &small::content(&fresh.lake()), 3);
}

#[test]
fn a_rebuild_that_drops_a_raw_object_may_die_at_any_operation_on_disk() {
    let project = prepared(&[FIRST, SECOND], &[]);
    let expected = small::expected(&drops::WITHOUT_DROPPED);
    dies_everywhere(&project, &drops::dropping(), &expected, 2);
}

/// Rules change, or columns change so that all objects are read from raw, or both in many commits.
#[test]
fn a_rebuild_may_die_at_any_operation_on_disk() {
    for (raw, limits) in [
        (false, None),
        (false, Some(BIT_BY_BIT)),
        (true, Some(BIT_BY_BIT)),
    ] {
        let project = prepared(&[FIRST, SECOND], &[]);
        let fresh = small::on_disk(&[FIRST, SECOND]);
        for project in [&project, &fresh] {
            let toml = std::fs::read_to_string(project.path("rawmart.toml")).unwrap();
            let mut toml = toml.replace("within = \"10s\"", "within = \"2s\"\nmode = \"gap-last\"");
            if raw {
                toml = toml.replace(
                    "who = \"string\"",
                    "who = { type = \"string\", path = \"id\" }",
                );
            }
            project.write("rawmart.toml", toml);
        }
        small::run(&small::job(&fresh), "fresh", StoreSettings::default()).unwrap();
        let options = Options {
            marts: true,
            rebuild: Some(Rebuild::default()),
            limits,
            ..Options::default()
        };
        dies_everywhere(&project, &options, &small::content(&fresh.lake()), 5);
    }
}

/// Other partitions of the source and of two marts: all rows move, and what is left at the old places is removed.
pub fn repartition(project: &Project, by: &str) {
    let toml = std::fs::read_to_string(project.path("rawmart.toml")).unwrap();
    let toml = toml.replace("partition_by = \"hour\"\n", "");
    let toml = match by {
        "hour" => toml.replace("max_rejects", "partition_by = \"hour\"\nmax_rejects"),
        _ => toml,
    };
    project.write("rawmart.toml", toml);
    let (daily, total) = match by {
        "hour" => (
            "-- partition: dt, who\nSELECT count(*) AS events, dt, who FROM app GROUP BY dt, who\n",
            "-- partition: dt\nSELECT count(*) AS lines, dt FROM daily GROUP BY dt\n",
        ),
        _ => (small::DAILY, small::TOTAL),
    };
    project.write("sql/daily.sql", daily);
    project.write("sql/total.sql", total);
}

/// A rebuild of everything from raw.
pub fn rebuild_all() -> Options {
    Options {
        marts: true,
        rebuild: Some(Rebuild {
            raw: true,
            ..Rebuild::default()
        }),
        ..Options::default()
    }
}

#[test]
fn a_rebuild_that_moves_rows_may_die_at_any_operation_on_disk() {
    let project = prepared(&[FIRST, SECOND], &[]);
    let fresh = small::on_disk(&[FIRST, SECOND]);
    for project in [&project, &fresh] {
        repartition(project, "hour");
    }
    small::run(&small::job(&fresh), "fresh", StoreSettings::default()).unwrap();
    let expected = small::content(&fresh.lake());
    dies_everywhere(&project, &rebuild_all(), &expected, 11);
    // And back to names that were removed.
    small::run_with(
        &small::job(&project),
        &rebuild_all(),
        "there",
        StoreSettings::default(),
    )
    .unwrap();
    repartition(&project, "day");
    let expected = small::expected(&[FIRST, SECOND]);
    dies_everywhere(&project, &rebuild_all(), &expected, 23);
}

#[test]
fn a_drop_of_a_mart_may_die_at_any_operation_on_disk() {
    let start = prepared(&[FIRST, SECOND], &[]);
    let mut expected = small::content(&start.lake());
    assert!(expected.remove("lately").is_some());
    std::fs::remove_file(start.path("sql/lately.sql")).unwrap();
    let whole = small::linked(&start);
    let gate = Turnstile::new(None, None);
    small::drop_mart(&small::job(&whole), "lately", gate.settings()).unwrap();
    small::recovers(&whole, &expected, "without faults");
    for at in (0..gate.mortal.begun()).step_by(2) {
        for death in Death::all(at) {
            let project = small::linked(&start);
            let gate = Turnstile::new(Some(death), None);
            let job = small::job(&project);
            let dropped = small::drop_mart(&job, "lately", gate.settings());
            assert!(dropped.is_err(), "{death:?}: {dropped:?}");
            small::run(&job, "between", StoreSettings::default()).unwrap();
            // The commit was made, or nothing has happened.
            if project.path("lake/lately").exists() {
                small::drop_mart(&job, "lately", StoreSettings::default()).unwrap();
            }
            small::recovers(&project, &expected, &format!("{death:?}"));
        }
    }
}

/// The same at the requests of a server.
#[test]
fn a_rebuild_that_moves_rows_may_die_at_some_requests_on_s3() {
    let start = Bucket::new();
    for batch in [FIRST, SECOND] {
        start.add(batch);
    }
    start.run("before", 0).unwrap();
    let fresh = small::on_disk(&[FIRST, SECOND]);
    repartition(&fresh, "hour");
    small::run(&small::job(&fresh), "fresh", StoreSettings::default()).unwrap();
    let expected = small::content(&fresh.lake());
    let moved = |death| {
        let bucket = start.copy();
        repartition(&bucket.project, "hour");
        let control = Arc::new(Requests {
            mortal: Mortal::new(death),
            watch: None,
        });
        bucket
            .server
            .control(Some(Arc::clone(&control) as Arc<dyn Control>));
        let job = small::job(&bucket.project);
        let store = bucket.store(crate::s3::WRITERS[0], 0);
        let ran = small::run_with(&job, &rebuild_all(), "dying", store);
        bucket.server.control(None);
        (bucket, ran, control.mortal.begun())
    };
    let (whole, ran, all) = moved(None);
    assert!(ran.unwrap().removed > 6);
    small::assert_whole(&whole.lake(), &expected, "without faults");
    // The last requests remove files; some before them publish.
    let removing = (all.saturating_sub(60)..all).step_by(5);
    for at in (0..all.saturating_sub(60)).step_by(53).chain(removing) {
        for death in Death::all(at) {
            let (bucket, ran, _) = moved(Some(death));
            let when = format!("{death:?}, {:?}", ran.err());
            let job = small::job(&bucket.project);
            let store = bucket.store(crate::s3::WRITERS[0], 4);
            let again = small::run_with(&job, &rebuild_all(), "again", store);
            assert!(again.is_ok(), "{again:?}, {when}");
            bucket.recovers(&expected, &when);
        }
    }
}

/// The run that finishes the work of a dead run may die too, and more raw objects may have arrived.
#[test]
fn a_run_that_rolls_forward_may_die_at_any_operation_on_disk() {
    let start = prepared(&[], FIRST);
    let gate = Turnstile::new(None, None);
    let whole = small::linked(&start);
    small::run(&small::job(&whole), "dying", gate.settings()).unwrap();
    let trace = gate.trace.lock().unwrap().clone();
    let committed =
        |done: &Done| done.operation == Operation::Create && done.key.starts_with("_rawmart/log/");
    let at = trace.iter().position(committed).unwrap();
    // The commit is made, and one file is published.
    let death = Death {
        at: at + 1,
        after: true,
        once: false,
    };
    let gate = Turnstile::new(Some(death), None);
    assert!(small::run(&small::job(&start), "dying", gate.settings()).is_err());
    let left = start.lake();
    assert_eq!((left.commits().len(), left.data_files().count()), (1, 1));
    small::add(&start, SECOND);

    let expected = small::expected(&[FIRST, SECOND]);
    let gate = Turnstile::new(None, None);
    let whole = small::linked(&start);
    small::run(&small::job(&whole), "second", gate.settings()).unwrap();
    for at in (0..gate.mortal.begun()).step_by(3) {
        for death in Death::all(at) {
            let project = small::linked(&start);
            let gate = Turnstile::new(Some(death), None);
            let ran = small::run(&small::job(&project), "second", gate.settings());
            assert!(ran.is_err(), "{death:?}: {ran:?}");
            small::recovers(&project, &expected, &format!("{death:?}"));
        }
    }
}

/// P6 on disk: the lock is held from the first operation to the last.
#[test]
fn a_second_run_on_disk_waits_for_the_first() {
    let project = Arc::new(prepared(&[FIRST], SECOND));
    let (other, met) = (Arc::clone(&project), Arc::new(Mutex::new(0)));
    let seen = Arc::clone(&met);
    let gate = Turnstile::new(
        None,
        Some(Box::new(move |_| {
            let mut met = seen.lock().unwrap();
            if *met % 9 == 0 {
                let before = other.lake();
                other
                    .rawmart(&["run"])
                    .expect(5, &["another run holds the lake"]);
                assert!(
                    other.lake().0 == before.0,
                    "changed the lake of another run"
                );
            }
            *met += 1;
        })),
    );
    small::run(&small::job(&project), "first", gate.settings()).unwrap();
    assert!(*met.lock().unwrap() > 40);
    small::recovers(&project, &small::expected(&[FIRST, SECOND]), "after both");
}

/// The number of times that each row is there. A row of a source counts by its event, because its rule or
/// pointer may change.
fn counted(table: &str, rows: &[Row]) -> BTreeMap<Row, usize> {
    let mut counted = BTreeMap::new();
    for row in rows {
        let mut row = row.clone();
        if table.starts_with("app") {
            row.retain(|column, _| column.starts_with("raw_object") || column == "raw_record");
        }
        *counted.entry(row).or_insert(0) += 1;
    }
    counted
}

/// The rows that readers of each table may see while one content turns into another.
struct Readers {
    old: BTreeMap<String, Vec<Row>>,
    new: BTreeMap<String, Vec<Row>>,
}

impl Readers {
    /// Asserts that no row is there twice, that no row of both versions is missing, and that no row is in
    /// neither version.
    fn look(&self, lake: &Lake, when: &str) {
        let none = Vec::new();
        for (table, new) in &self.new {
            let seen = counted(table, &lake.rows(table));
            let old = counted(table, self.old.get(table).unwrap_or(&none));
            let new = counted(table, new);
            for row in seen.keys().chain(old.keys()).chain(new.keys()) {
                let of = |rows: &BTreeMap<Row, usize>| rows.get(row).copied().unwrap_or(0);
                let (least, most) = (of(&old).min(of(&new)), of(&old).max(of(&new)));
                let found = of(&seen);
                assert!(
                    (least..=most).contains(&found),
                    "{table}: {found} times, not {least} to {most}, {when}: {row:?}"
                );
            }
        }
    }

    /// A reader lists files at one moment and reads each of them at another. It sees every row of both versions
    /// once because the row is in a file with the same name in both.
    fn assert_rows_stay_in_their_files(old: &Lake, new: &Lake) {
        let places = |lake: &Lake| {
            let mut places: BTreeMap<(String, Row), String> = BTreeMap::new();
            for table in lake.tables() {
                for (key, rows) in lake.files(&table) {
                    for row in counted(&table, &rows).into_keys() {
                        places.insert((table.clone(), row), key.clone());
                    }
                }
            }
            places
        };
        let old = places(old);
        for (row, key) in places(new) {
            assert_eq!(old.get(&row).unwrap_or(&key), &key, "{row:?} has moved");
        }
    }
}

/// Whether a key is the probe or an object with which the first run tests the store. It is no part of a commit.
fn is_trial(key: &str) -> bool {
    key == "_rawmart/probe" || key.starts_with("_rawmart/staging/") && key.ends_with("/probe")
}

/// The order in which any run may do things.
#[derive(Default)]
struct Order {
    committed: u64,
    published: u64,
    /// The commits that were made and the files that were published during the watch.
    commits: usize,
    files: usize,
    swept: usize,
}

impl Order {
    fn of(lake: &Lake) -> Self {
        let committed = lake.commits().len() as u64;
        Self {
            committed,
            published: committed,
            ..Self::default()
        }
    }

    fn created(&mut self, key: &str) {
        if is_trial(key) {
            return;
        }
        let name = key
            .strip_prefix("_rawmart/log/")
            .unwrap_or_else(|| panic!("{key} is no log"));
        match name.strip_suffix(".published") {
            Some(number) => {
                let number: u64 = number.parse().unwrap();
                assert_eq!(number, self.committed, "{key} ahead of its commit");
                self.published = number;
            }
            None => {
                let number: u64 = name.parse().unwrap();
                assert_eq!(number, self.committed + 1, "{key} is not the next");
                assert_eq!(self.published, self.committed, "{key} ahead of a marker");
                self.committed = number;
                self.commits += 1;
            }
        }
    }

    fn put_for_readers(&mut self, key: &str) {
        assert!(!key.starts_with("_rawmart/"), "{key} is no data file");
        assert_eq!(self.committed, self.published + 1, "{key} without a commit");
        self.files += 1;
    }

    fn deleted(&mut self, key: &str) {
        if is_trial(key) {
            return;
        }
        let staged = key.strip_prefix("_rawmart/staging/");
        let number = staged
            .and_then(|name| name.get(..20))
            .and_then(|n| n.parse().ok());
        let Some(number) = number else {
            panic!("{key} was deleted and is not staged");
        };
        assert!(
            (..=self.published).contains(&number),
            "{key} is still needed"
        );
        self.swept += 1;
    }

    fn staged(key: &str) {
        assert!(
            key.starts_with("_rawmart/staging/") || is_trial(key),
            "{key} was written unstaged"
        );
    }

    /// The change that a request has made.
    fn became(&mut self, before: &Lake, now: &Lake) {
        for (key, bytes) in &now.0 {
            match before.0.get(key) {
                Some(old) if old == bytes => {}
                old if key.starts_with("_rawmart/log/") => {
                    assert!(old.is_none(), "{key} was replaced");
                    self.created(key);
                }
                _ if key.starts_with("_rawmart/") => Self::staged(key),
                _ => self.put_for_readers(key),
            }
        }
        for key in before.0.keys().filter(|key| !now.0.contains_key(*key)) {
            self.deleted(key);
        }
    }

    fn assert_whole(&self) {
        assert_eq!((self.commits, self.published), (2, self.committed));
        assert!(self.files > 6 && self.swept == self.files, "{}", self.swept);
    }
}

/// Watches a run over the batch, and checks everything that must hold after every operation.
fn watched_on_disk(before: &[Batch], batch: Batch) {
    let all: Vec<Batch> = before.iter().copied().chain([batch]).collect();
    let project = prepared(before, batch);
    let old = project.lake();
    let readers = Readers {
        old: old.content(),
        new: small::expected(&all),
    };
    let root: PathBuf = project.path("lake");
    let gate = Turnstile::new(
        None,
        Some(Box::new(move |done| {
            readers.look(&Lake::on_disk(&root), &format!("after {done:?}"));
        })),
    );
    small::run(&small::job(&project), "watched", gate.settings()).unwrap();
    let mut order = Order::of(&old);
    let trace = gate.trace.lock().unwrap().clone();
    for done in trace {
        if !done.root.ends_with("/lake/") {
            let reads = [Operation::List, Operation::Get];
            assert!(reads.contains(&done.operation), "raw was touched: {done:?}");
            continue;
        }
        match done.operation {
            Operation::Create => order.created(&done.key),
            Operation::Upload => Order::staged(&done.key),
            Operation::Publish => order.put_for_readers(&done.key),
            Operation::Delete => order.deleted(&done.key),
            Operation::Lock => assert_eq!(done.key, "_rawmart/lock"),
            Operation::List | Operation::Head | Operation::Get | Operation::Read => {}
        }
    }
    order.assert_whole();
    Readers::assert_rows_stay_in_their_files(&old, &project.lake());
}

#[test]
fn readers_see_no_torn_rows_on_disk() {
    watched_on_disk(&[], FIRST);
    watched_on_disk(&[FIRST], SECOND);
}

/// The same deaths, at the requests of a server.
struct Requests {
    mortal: Mortal,
    watch: Option<WatchRequest>,
}

type WatchRequest = Box<dyn Fn(&Asked) + Send + Sync>;

#[async_trait::async_trait]
impl Control for Requests {
    async fn before(&self, _: &Asked) -> bool {
        self.mortal.begins()
    }

    async fn after(&self, asked: &Asked) -> bool {
        if let Some(watch) = &self.watch {
            watch(asked);
        }
        self.mortal.answers()
    }
}

/// A run over a bucket with `before` dies at every request, and the next run ends in the right state.
fn dies_on_s3(before: &[Batch], batch: Batch, from: usize, step: usize) {
    let start = Bucket::new();
    for batch in before {
        start.add(batch);
        start.run("before", 0).unwrap();
    }
    start.add(batch);
    let all: Vec<Batch> = before.iter().copied().chain([batch]).collect();
    let expected = small::expected(&all);
    let requests = |death, start: &Bucket| {
        let bucket = start.copy();
        let control = Arc::new(Requests {
            mortal: Mortal::new(death),
            watch: None,
        });
        bucket
            .server
            .control(Some(Arc::clone(&control) as Arc<dyn Control>));
        let ran = bucket.run("dying", 0);
        bucket.server.control(None);
        (bucket, ran, control.mortal.begun())
    };
    let (whole, ran, all) = requests(None, &start);
    ran.unwrap();
    small::assert_whole(&whole.lake(), &expected, "without faults");
    assert!(all > 60, "{all} requests are no commit");
    for at in (from..all).step_by(step) {
        for death in Death::all(at) {
            let (bucket, ran, _) = requests(Some(death), &start);
            // A mart whose data cannot be read fails alone.
            let failed = |mart: &MartSummary| matches!(mart.outcome, MartOutcome::Failed { .. });
            let alone = |ran: &RunSummary| death.once && ran.marts.iter().any(failed);
            assert!(ran.as_ref().map_or(true, alone), "{death:?}: {ran:?}");
            bucket.recovers(&expected, &format!("{death:?}, {:?}", ran.err()));
        }
    }
}

#[test]
fn a_run_may_die_at_some_requests_on_s3() {
    dies_on_s3(&[], FIRST, 0, 7);
    dies_on_s3(&[FIRST], SECOND, 3, 7);
}

#[test]
#[ignore = "minutes: every request, a step of .ci/run"]
fn a_run_may_die_at_any_request_on_s3() {
    dies_on_s3(&[], FIRST, 0, 1);
    dies_on_s3(&[FIRST], SECOND, 0, 1);
}

fn watched_on_s3(before: &[Batch], batch: Batch) {
    let bucket = Bucket::new();
    for batch in before {
        bucket.add(batch);
        bucket.run("before", 0).unwrap();
    }
    bucket.add(batch);
    let all: Vec<Batch> = before.iter().copied().chain([batch]).collect();
    let old = bucket.lake();
    let readers = Readers {
        old: old.content(),
        new: small::expected(&all),
    };
    let order = Arc::new(Mutex::new((Order::of(&old), old)));
    let (seen, server) = (Arc::clone(&order), bucket.server.peek());
    bucket.server.control(Some(Arc::new(Requests {
        mortal: Mortal::new(None),
        watch: Some(Box::new(move |asked| {
            // The lock comes first: requests that are in flight together are looked at one after another.
            let (order, before) = &mut *seen.lock().unwrap();
            let now = small::lake_of(server.objects("lake"));
            readers.look(&now, &format!("after {asked:?}"));
            order.became(before, &now);
            *before = now;
        })),
    })));
    bucket.run("watched", 4).unwrap();
    bucket.server.control(None);
    let (order, now) = &*order.lock().unwrap();
    order.assert_whole();
    assert!(bucket.lake().0 == now.0, "something happened unseen");
}

#[test]
fn readers_see_no_torn_rows_on_s3() {
    watched_on_s3(&[], FIRST);
    watched_on_s3(&[FIRST], SECOND);
}

/// Holds the first request of a kind for ever, and tells when it has come.
struct Held {
    method: &'static str,
    part: &'static str,
    come: Mutex<Option<std::sync::mpsc::Sender<()>>>,
}

#[async_trait::async_trait]
impl Control for Held {
    async fn before(&self, asked: &Asked) -> bool {
        if asked.method == self.method && asked.path.contains(self.part) {
            if let Some(come) = self.come.lock().unwrap().take() {
                come.send(()).unwrap();
            }
            std::future::pending::<()>().await;
        }
        true
    }

    async fn after(&self, _: &Asked) -> bool {
        true
    }
}

#[test]
fn a_signal_ends_a_run_and_the_next_goes_on() {
    let start = Bucket::new();
    start.add(FIRST);
    let expected = small::expected(&[FIRST]);
    for (method, part, signal, exit) in [
        ("GET", "/raw/app/2024", "INT", 130),
        ("PUT", "/staging/", "TERM", 143),
        ("PUT", "/log/", "TERM", 143),
        ("PUT", "/small/app/", "TERM", 143),
        ("PUT", ".published", "INT", 130),
        ("PUT", "/small/total/", "TERM", 143),
    ] {
        let bucket = start.copy();
        let (come, held) = std::sync::mpsc::channel();
        let come = Mutex::new(Some(come));
        bucket
            .server
            .control(Some(Arc::new(Held { method, part, come })));
        let args = ["run", "--output", "json"];
        let child = bucket.project.spawn(&args, &bucket.server.env());
        held.recv().unwrap();
        let kill = ["-s", signal, &child.id().to_string()].map(str::to_owned);
        assert!(
            std::process::Command::new("kill")
                .args(kill)
                .status()
                .unwrap()
                .success()
        );
        let ran = Ran::of(child.wait_with_output().unwrap());
        ran.expect(exit, &[&format!("interrupted by SIG{signal}")]);
        let word = match signal {
            "INT" => "interrupted",
            _ => "terminated",
        };
        assert_eq!(ran.json()["error"]["code"], word);
        bucket.server.control(None);
        bucket.recovers(&expected, &format!("{signal} at {method} {part}"));
    }
}

/// The second batch does what its description says.
#[test]
fn the_small_project_has_everything() {
    let project = small::on_disk(&[FIRST]);
    let job = small::job(&project);
    small::run(&job, "first", StoreSettings::default()).unwrap();
    let rows = |table: &str, day: &str| {
        let files = project.lake().files(table);
        let day = files.iter().find(|(key, _)| key.contains(day));
        day.map(|(_, rows)| rows.len())
    };
    let of = |day: &str| ["app", "app_duplicates", "app_rejects", "daily"].map(|t| rows(t, day));
    assert_eq!(of("2024-03-01"), [Some(2), Some(2), None, Some(2)]);
    assert_eq!(of("2024-03-02"), [Some(1), None, Some(2), Some(1)]);
    assert_eq!(of("2024-03-03"), [Some(2), Some(1), None, Some(2)]);
    small::add(&project, SECOND);
    small::run(&job, "second", StoreSettings::default()).unwrap();
    assert_eq!(of("2024-03-01"), [Some(3), Some(3), None, Some(3)]);
    assert_eq!(of("2024-03-02"), [Some(0), Some(1), Some(3), Some(0)]);
    assert_eq!(of("2024-03-03"), [Some(3), Some(1), None, Some(3)]);
    assert_eq!(of("2024-03-04"), [Some(1), None, None, Some(1)]);
    assert_eq!(project.lake().rows("total").len(), 1);
}
