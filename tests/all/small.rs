//! A small project in which a commit does all kinds of work: several partitions, duplicates, rejects,
//! a mart by day and two marts that read it. A second batch of raw objects replaces files, fills
//! new partitions and empties a slice.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use rawmart::config::{self, Job, Overrides, Publish};
use rawmart::dedup::Hashing;
use rawmart::progress::Progress;
use rawmart::report::{Exit, Failure, Outcome};
use rawmart::run::{self, Context, Options, RunError, RunOutcome, RunSummary};
use rawmart::store::StoreSettings;

use crate::project::{Lake, Project, Row, clicks, rawmart, settle};
use crate::s3::{S3Server, SECRET_KEY, WRITERS};

pub const DAILY: &str =
    "-- partition: dt\nSELECT who, count(*) AS events, dt FROM app GROUP BY dt, who\n";
pub const TOTAL: &str =
    "SELECT count(*) AS lines, CAST(sum(events) AS bigint) AS events FROM daily\n";
/// The events of a day and the day before it, from the rows of another mart.
const LATELY: &str = "-- partition: dt\n-- reads: daily back 1d\n\
    SELECT CAST(sum(lately.events) AS bigint) AS events, day.dt\n\
    FROM (SELECT DISTINCT dt FROM daily) AS day JOIN daily AS lately ON lately.dt <= day.dt\n\
    GROUP BY day.dt\n";

/// Raw objects of one batch, by key. In Seoul the day begins at 15:00 UTC.
pub type Batch = &'static [(&'static str, &'static str)];

pub const FIRST: Batch = &[
    (
        "2024/03/01/14/a",
        r#"{"id":"a1","time":"2024-03-01T14:50:00Z","who":"ann"}
{"id":"a2","time":"2024-03-01T14:50:03Z","who":"ann"}
{"id":"a1","time":"2024-03-01T14:50:00Z","who":"ann"}
not json
{"id":"a3","time":"2024-03-01T14:55:00Z","who":"bob"}"#,
    ),
    (
        "2024/03/01/15/b",
        r#"{"id":"b1","time":"2024-03-01T15:00:05Z","who":"cid"}
{"id":"b2","who":"cid"}"#,
    ),
    (
        "2024/03/02/15/c",
        r#"{"id":"c1","time":"2024-03-02T15:10:00Z","who":"dan"}
{"id":"c2","time":"2024-03-02T15:10:08Z","who":"dan"}
{"id":"c3","time":"2024-03-02T15:20:00Z","who":"eve"}"#,
    ),
];

/// The only event of 2 March becomes a duplicate of an event at the end of the 1st. c1 becomes a redelivery, so
/// c2 is kept.
pub const SECOND: Batch = &[
    (
        "2024/03/01/15/late",
        r#"{"id":"d1","time":"2024-03-01T14:59:58Z","who":"cid"}
{"id":"d2","time":"2024-03-01T14:55:04Z","who":"bob"}
neither"#,
    ),
    (
        "2024/03/02/15/late",
        r#"{"id":"c1","time":"2024-03-02T15:09:00Z","who":"fay"}"#,
    ),
    (
        "2024/03/03/16/e",
        r#"{"id":"e1","time":"2024-03-03T16:00:00Z","who":"ann"}"#,
    ),
];

pub const THIRD: Batch = &[(
    "2024/03/03/17/f",
    r#"{"id":"f1","time":"2024-03-03T15:59:58Z","who":"ann"}
{"id":"f2","time":"2024-03-01T14:49:59Z","who":"ann"}
{"id":"f3","time":"2024-03-04T16:00:00Z","who":"gus"}"#,
)];

/// A project without raw objects, with this raw prefix and this lake.
pub fn project(raw: &str, lake: &str) -> Project {
    let source = clicks(raw, "time", "max_rejects = \"100%\"", "within = \"10s\"");
    let config = format!(
        "lake = \"{lake}\"\ntimezone = \"Asia/Seoul\"\n{source}\n[marts]\npath = \"sql\"\n"
    );
    Project::with(
        config,
        &[("daily", DAILY), ("lately", LATELY), ("total", TOTAL)],
    )
}

/// A project on disk with these batches.
pub fn on_disk(batches: &[Batch]) -> Project {
    let project = project("raw/", "lake");
    std::fs::create_dir_all(project.path("raw")).unwrap();
    for batch in batches {
        add(&project, batch);
    }
    project
}

pub fn add(project: &Project, batch: Batch) {
    for (key, content) in batch {
        project.write(&format!("raw/{key}"), content);
    }
}

pub fn job(project: &Project) -> Job {
    let overrides = Overrides {
        config: Some(project.path("rawmart.toml")),
        memory: Some("256MiB".to_owned()),
        threads: Some(1),
        ..Overrides::default()
    };
    let job = config::load(&overrides, &|_| None, &project.path("")).unwrap();
    let toml = std::fs::read_to_string(project.path("rawmart.toml")).unwrap();
    match toml.contains(VERSIONS) {
        true => Job {
            publish: Publish::Catalog,
            ..job
        },
        false => job,
    }
}

/// The line of a configuration that [`job`] takes for `publish = "catalog"`, also without a catalog and on disk.
const VERSIONS: &str = "# publish = catalog";

/// Each version of a partition gets a folder of its own, and a partition has several data files.
pub fn with_versions(project: &Project) {
    let toml = std::fs::read_to_string(project.path("rawmart.toml")).unwrap();
    let sliced = toml.replace("max_rejects", "slice = \"1h\"\nmax_rejects");
    assert_ne!(sliced, toml);
    project.write("rawmart.toml", format!("{VERSIONS}\n{sliced}"));
}

/// Runs once in this process. Each run of a test needs its own name.
pub fn run(job: &Job, name: &str, store: StoreSettings) -> Result<RunSummary, RunError> {
    let options = Options {
        marts: true,
        ..Options::default()
    };
    run_with(job, &options, name, store)
}

/// Runs once with other options.
pub fn run_with(
    job: &Job,
    options: &Options,
    name: &str,
    store: StoreSettings,
) -> Result<RunSummary, RunError> {
    run_at(job, options, &context(name, 1_710_000_000, store))
}

/// Runs once in this context.
pub fn run_at(job: &Job, options: &Options, context: &Context) -> Result<RunSummary, RunError> {
    settle(&job.lake);
    runtime().block_on(run::run(job, options, context))
}

/// The context of a run with this name. `now` is its clock, in seconds since 1970 UTC.
pub fn context(name: &str, now: i64, store: StoreSettings) -> Context {
    Context {
        now: DateTime::from_timestamp(now, 0).unwrap(),
        begun: std::time::Instant::now(),
        run: name.to_owned(),
        progress: Progress::unheard(),
        store,
        hashing: Hashing::new([1, 2]),
    }
}

/// Runs `verify --repair` in this process.
pub fn repair(job: &Job, name: &str, store: StoreSettings) -> Result<run::Verified, RunError> {
    let context = context(name, 1_710_000_000, store);
    settle(&job.lake);
    runtime().block_on(run::repair(job, run::Depth::Usual, &context))
}

/// `marts --drop`, in this process.
pub fn drop_mart(job: &Job, mart: &str, store: StoreSettings) -> Result<run::Dropped, RunError> {
    let context = context("drop", 1_710_000_000, store);
    settle(&job.lake);
    runtime().block_on(run::drop_mart(job, mart, &context))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// The exit code that the binary would give.
pub fn exit(ran: Result<RunSummary, RunError>) -> (Exit, String) {
    match ran {
        Ok(summary) => {
            let told = format!("{summary:?}");
            (Outcome::Run(summary).exit(), told)
        }
        Err(error) => {
            let failure = Failure::from(error);
            (failure.exit(), failure.to_string())
        }
    }
}

/// The content of every table that has rows.
pub fn content(lake: &Lake) -> BTreeMap<String, Vec<Row>> {
    let mut content = lake.current().content();
    content.retain(|_, rows| !rows.is_empty());
    content
}

/// The content after one run over these batches.
pub fn expected(batches: &[Batch]) -> BTreeMap<String, Vec<Row>> {
    let project = on_disk(batches);
    run(&job(&project), "expected", StoreSettings::default()).unwrap();
    content(&project.lake())
}

/// Asserts that the lake is whole: it has this content, nothing is staged, and every commit is published.
pub fn assert_whole(lake: &Lake, expected: &BTreeMap<String, Vec<Row>>, when: &str) {
    let found = content(lake);
    for table in found.keys().chain(expected.keys()) {
        assert_eq!(found.get(table), expected.get(table), "{table}, {when}");
    }
    let staged: Vec<_> = lake
        .0
        .keys()
        .filter(|key| key.contains("/staging/"))
        .collect();
    assert!(staged.is_empty(), "{staged:?}, {when}");
    assert_one_depth(lake, when);
    for number in lake.commits() {
        let marker = format!("_rawmart/log/{number}.published");
        assert!(lake.0.contains_key(&marker), "{marker}, {when}");
    }
}

/// The folders of a table have the same columns everywhere. No reader takes a table with others.
pub fn assert_one_depth(lake: &Lake, when: &str) {
    let lake = lake.current();
    let mut columns: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (key, _) in lake.data_files() {
        let table = key.split('/').next().unwrap();
        let folders = key.split('/').filter_map(|part| part.split_once('='));
        let found: Vec<&str> = folders.map(|(column, _)| column).collect();
        let first = columns.entry(table).or_insert_with(|| found.clone());
        assert_eq!(*first, found, "{key}, {when}");
    }
}

/// Asserts that a run without faults brings the lake on disk to this content, and that the next run has nothing
/// to do.
pub fn recovers(project: &Project, expected: &BTreeMap<String, Vec<Row>>, when: &str) {
    let options = Options {
        marts: true,
        ..Options::default()
    };
    recovers_with(project, &options, expected, when);
}

/// Does the same with these options.
pub fn recovers_with(
    project: &Project,
    options: &Options,
    expected: &BTreeMap<String, Vec<Row>>,
    when: &str,
) {
    let lake = || project.lake();
    recovers_through(
        &job(project),
        options,
        StoreSettings::default(),
        &lake,
        expected,
        when,
    );
}

fn recovers_through(
    job: &Job,
    options: &Options,
    store: StoreSettings,
    lake: &dyn Fn() -> Lake,
    expected: &BTreeMap<String, Vec<Row>>,
    when: &str,
) {
    let ran = run_with(job, options, "recovery", store.clone());
    assert!(ran.is_ok(), "{ran:?}, {when}");
    let whole = lake();
    assert_whole(&whole, expected, when);
    let verified = runtime()
        .block_on(run::verify(job, run::Depth::Usual, &store))
        .unwrap();
    assert!(verified.damage.is_empty(), "{verified:?}, {when}");
    assert!(verified.strays.is_empty(), "{verified:?}, {when}");
    let again = run(job, "again", store).unwrap();
    assert_eq!(again.outcome, RunOutcome::NothingNew, "{when}");
    assert!(lake().0 == whole.0, "wrote without need, {when}");
}

/// A lake in memory, with raw objects on disk.
pub struct Memory {
    pub project: Project,
    lake: Arc<InMemory>,
}

impl Memory {
    /// The lake of a project, which was `run` before. The raw objects of `batch` are new.
    pub fn new(project: Project, run: bool, batch: Batch) -> Self {
        let made = Self {
            project,
            lake: Arc::default(),
        };
        if run {
            made.run("before", made.store()).unwrap();
        }
        add(&made.project, batch);
        made
    }

    /// The same raw objects, and another lake with the same content.
    pub fn copy(&self) -> Self {
        Self {
            project: linked(&self.project),
            lake: Arc::new(self.lake.fork()),
        }
    }

    pub fn store(&self) -> StoreSettings {
        StoreSettings {
            memory: Some(Arc::clone(&self.lake)),
            ..StoreSettings::default()
        }
    }

    fn job(&self) -> Job {
        Job {
            lake: "memory://lake/".to_owned(),
            ..job(&self.project)
        }
    }

    pub fn run(&self, name: &str, store: StoreSettings) -> Result<RunSummary, RunError> {
        run(&self.job(), name, store)
    }

    pub fn lake(&self) -> Lake {
        let all = async {
            let mut files = BTreeMap::new();
            let listed: Vec<_> = self.lake.list(None).try_collect().await.unwrap();
            for object in listed {
                let content = self.lake.get(&object.location).await.unwrap();
                let key = object.location.to_string();
                files.insert(key, content.bytes().await.unwrap().to_vec());
            }
            files
        };
        Lake(runtime().block_on(all))
    }

    /// See [`recovers`].
    pub fn recovers(&self, expected: &BTreeMap<String, Vec<Row>>, when: &str) {
        let options = Options {
            marts: true,
            ..Options::default()
        };
        let lake = || self.lake();
        recovers_through(&self.job(), &options, self.store(), &lake, expected, when);
    }
}

/// Another project with the same files under other names. On disk a file is the same as long as its inode is.
pub fn linked(from: &Project) -> Project {
    let to = Project::new();
    link(&from.path(""), &to.path(""));
    to
}

fn link(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            link(&entry.path(), &target);
        } else {
            std::fs::hard_link(entry.path(), target).unwrap();
        }
    }
}

/// The part of the bucket `lake` that is a lake.
pub fn lake_of(objects: BTreeMap<String, Vec<u8>>) -> Lake {
    Lake::in_bucket(objects, "small/")
}

/// A project with raw objects and lake in buckets of a server.
pub struct Bucket {
    pub server: S3Server,
    pub project: Project,
}

impl Bucket {
    pub fn new() -> Self {
        Self {
            server: S3Server::start(&["raw", "lake"]),
            project: project("s3://raw/app", "s3://lake/small"),
        }
    }

    /// Another server with the same objects.
    pub fn copy(&self) -> Self {
        let copy = Self::new();
        for bucket in ["raw", "lake"] {
            for (key, bytes) in self.server.objects(bucket) {
                copy.server.put(bucket, &key, bytes);
            }
        }
        copy
    }

    pub fn add(&self, batch: Batch) {
        for (key, content) in batch {
            self.server.put("raw", &format!("app/{key}"), *content);
        }
    }

    pub fn lake(&self) -> Lake {
        lake_of(self.server.objects("lake"))
    }

    /// A store that sends one request at a time, so that a run does the same in the same order every time, or
    /// up to `at_once`. No request is tried again, and a held request is waited for.
    pub fn store(&self, access_key: &str, at_once: usize) -> StoreSettings {
        StoreSettings {
            concurrency: at_once.max(1),
            retry_for: Duration::ZERO,
            silence: Duration::from_secs(600),
            aws: Some(self.server.aws_with(access_key, SECRET_KEY)),
            ..StoreSettings::default()
        }
    }

    pub fn run(&self, name: &str, at_once: usize) -> Result<RunSummary, RunError> {
        run(&job(&self.project), name, self.store(WRITERS[0], at_once))
    }

    /// See [`recovers`].
    pub fn recovers(&self, expected: &BTreeMap<String, Vec<Row>>, when: &str) {
        let ran = self.run("recovery", 4);
        assert!(ran.is_ok(), "{ran:?}, {when}");
        let lake = self.lake();
        assert_whole(&lake, expected, when);
        let verified = rawmart(&self.project.path(""), &["verify"], &self.server.env());
        assert_eq!(verified.code, Some(0), "{verified:?}, {when}");
        assert!(verified.out.contains("balance"), "{verified:?}, {when}");
        let again = self.run("again", 4).unwrap();
        assert_eq!(again.outcome, RunOutcome::NothingNew, "{when}");
        assert!(self.lake().0 == lake.0, "wrote without need, {when}");
    }
}
