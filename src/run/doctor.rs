//! Checks everything that a run needs, one thing after the other, and says what to do about each that is wrong.
//!
//! ```text
//! configuration ─▶ rules and SQL ─▶ spill folder, memory ─▶ each raw prefix ─▶ lake: log, conditional writes, clock
//! ```
//!
//! It writes one small object below the staging folder of the lake, to see the clock of the server and whether conditions
//! of writes are kept, and deletes it again.

use bytes::Bytes;
use serde::Serialize;

use super::look::Checked;
use super::{Context, Doing, Options, RunError, tables};
use crate::absorb::SpillFolder;
use crate::config::{ConfigError, Job};
use crate::lake::Lake;
use crate::layout;
use crate::plan::Bytes as Size;
use crate::store::{Store, StoreError, StoreErrorKind, StoreSettings};

/// How far a clock may be off. S3 refuses requests whose time is 15 minutes off.
const SKEW_MS: i64 = 60_000;
/// The memory that a run takes beside the memory to work in.
const BESIDE: u64 = 256 << 20;
/// The free space of the spill folder below which a run may fail.
const LEAST_FREE: u64 = 1 << 30;
/// A folder that nobody has: listing it shows whether listing is allowed.
const NOWHERE: &str = "_rawmart_doctor/";

/// What was checked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diagnosis {
    /// The checks, in their order.
    pub checks: Vec<Check>,
}

/// One thing that a run needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub check: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The kind of failure of a store.
    #[serde(skip)]
    pub kind: Option<StoreErrorKind>,
}

impl Diagnosis {
    /// The diagnosis where there is no configuration that can be used.
    pub fn of_configuration(error: &ConfigError) -> Self {
        let remedy = match error {
            ConfigError::Missing { .. } => "`rawmart init RAW_URL` makes a configuration",
            _ => "correct the setting that the message names",
        };
        let check = Check::wrong("configuration", error.to_string(), remedy);
        Self {
            checks: vec![check],
        }
    }

    fn good(&mut self, check: &str, found: impl Into<String>) {
        self.checks.push(Check {
            check: check.to_owned(),
            ok: true,
            found: found.into(),
            remedy: None,
            kind: None,
        });
    }

    fn wrong(&mut self, check: &str, found: impl Into<String>, remedy: &str) {
        self.checks.push(Check::wrong(check, found, remedy));
    }

    fn failed(&mut self, check: &str, error: &StoreError) {
        self.checks.push(Check {
            kind: Some(error.kind()),
            ..Check::wrong(check, error.to_string(), error.hint().unwrap_or_default())
        });
    }
}

impl Check {
    fn wrong(check: &str, found: impl Into<String>, remedy: &str) -> Self {
        Self {
            check: check.to_owned(),
            ok: false,
            found: found.into(),
            remedy: (!remedy.is_empty()).then(|| remedy.to_owned()),
            kind: None,
        }
    }
}

/// Checks everything that a run of this job needs.
///
/// # Errors
/// None that a check could tell: every failure is a part of the diagnosis.
pub fn doctor<'a>(job: &'a Job, context: &'a Context) -> Doing<'a, Diagnosis> {
    Box::pin(async move {
        let mut found = Diagnosis { checks: Vec::new() };
        found.good("configuration", job.file.display().to_string());
        let all = Options {
            marts: true,
            ..Options::default()
        };
        match Checked::check(job, &all) {
            Ok(checked) => {
                let marts = checked.graph().map_or(0, |graph| graph.marts().len());
                let rules: usize = job.sources.iter().map(|source| source.rules.len()).sum();
                found.good("rules and SQL", format!("{rules} rules, {marts} marts"));
            }
            Err(error) => found.wrong(
                "rules and SQL",
                error.to_string(),
                "correct the rule or the SQL that the message names",
            ),
        }
        spill(job, &mut found);
        memory(job, &mut found);
        let settings = StoreSettings {
            retry_for: context
                .store
                .retry_for
                .min(std::time::Duration::from_secs(5)),
            ..context.store.clone()
        };
        for source in &job.sources {
            for root in &source.raw {
                raw(&source.name, &root.url, &settings, &mut found).await;
            }
        }
        lake(job, context, &settings, &mut found).await;
        Ok(found)
    })
}

fn spill(job: &Job, found: &mut Diagnosis) {
    match SpillFolder::new(job) {
        Ok(folder) => {
            let place = folder.path().parent().unwrap_or(folder.path());
            let place = place.display();
            match folder.free_bytes() {
                Some(free) if free < LEAST_FREE => found.wrong(
                    "spill folder",
                    format!("{place} has {} free", Size(free)),
                    "free space there, or set spill_dir to a folder of a larger disk",
                ),
                Some(free) => found.good("spill folder", format!("{place}, {} free", Size(free))),
                None => found.good("spill folder", place.to_string()),
            }
        }
        Err(error) => found.wrong(
            "spill folder",
            error.to_string(),
            "set spill_dir to a folder that exists and can be written",
        ),
    }
}

fn memory(job: &Job, found: &mut Diagnosis) {
    let wanted = job.memory.saturating_add(BESIDE);
    let text = format!("{} to work in", Size(job.memory));
    match crate::config::memory_there_is() {
        Some(there) if there < wanted => found.wrong(
            "memory",
            format!("{text}, and {} are available", Size(there)),
            "give less with --memory, or run where more is free",
        ),
        Some(there) => found.good("memory", format!("{text}, {} available", Size(there))),
        None => found.good("memory", text),
    }
}

/// Whether a raw prefix can be listed and read.
async fn raw(source: &str, url: &str, settings: &StoreSettings, found: &mut Diagnosis) {
    let check = format!("raw of {source}");
    let store = match Store::open(url, settings).await {
        Ok(store) => store,
        Err(error) => return found.failed(&check, &error),
    };
    if let Some(folder) = store.local_path("") {
        return match folder.is_dir() {
            true => found.good(&check, url),
            false => found.wrong(
                &check,
                format!("{url} is no folder"),
                "correct `raw` of the source, or make the folder",
            ),
        };
    }
    callers(&check, &store, found);
    match store.list(NOWHERE).await {
        Ok(_) => found.good(&check, format!("{url} can be listed")),
        Err(error) => found.failed(&check, &error),
    }
}

/// Who asks a bucket, from where.
fn callers(check: &str, store: &Store, found: &mut Diagnosis) {
    if let Some(caller) = store.caller() {
        let endpoint = caller.endpoint.as_deref();
        let endpoint =
            endpoint.map_or_else(String::new, |endpoint| format!(", endpoint {endpoint}"));
        found.good(
            &format!("credentials for {check}"),
            format!(
                "access key {}, region {}{endpoint}",
                caller.key, caller.region
            ),
        );
    }
}

/// Whether the lake can be read and written, and whether its store keeps two writers apart.
async fn lake(job: &Job, context: &Context, settings: &StoreSettings, found: &mut Diagnosis) {
    let store = match Store::open(&job.lake, settings).await {
        Ok(store) => store,
        Err(error) => return found.failed("lake", &error),
    };
    callers("lake", &store, found);
    let last = match Lake::open(&job.lake, settings, tables(job)).await {
        Ok(lake) => {
            let last = lake.state().last;
            found.good("lake", format!("{}, {last} commits", job.lake));
            last
        }
        Err(error) => {
            let error = RunError::from(error);
            return match error.store() {
                Some(error) => found.failed("lake", error),
                None => found.wrong(
                    "lake",
                    error.to_string(),
                    "`rawmart verify` says what is damaged",
                ),
            };
        }
    };
    let key = format!("{}doctor", layout::staging_folder(last + 1, &context.run));
    match written(&store, &key).await {
        Ok(server) if store.is_local() || server.is_none() => {
            found.good("writing", "an object was written and deleted");
        }
        Ok(server) => {
            found.good("writing", "an object was written and deleted");
            let server = server.unwrap_or_default();
            clock(context.now.timestamp_millis() - server, found);
        }
        Err(error) => return found.failed("writing", &error),
    }
    match store.try_conditions(&key).await {
        Ok(conditions) if conditions.create && conditions.replace => {
            found.good("conditional writes", "the store keeps two writers apart");
        }
        Ok(_) if job.single_writer => found.good(
            "conditional writes",
            "the store ignores them, and single_writer promises that there is one writer",
        ),
        Ok(_) => found.wrong(
            "conditional writes",
            "the store accepts conditions and ignores them: two runs at once could overwrite each other",
            "use a store that keeps them, or set single_writer = true if never two runs write at a time",
        ),
        Err(error) => found.failed("conditional writes", &error),
    }
}

/// Writes an object and deletes it. The result is the time at which the server has noted it.
async fn written(store: &Store, key: &str) -> Result<Option<i64>, StoreError> {
    store
        .create(key, Bytes::from_static(b"rawmart doctor"))
        .await?;
    let head = store.head(key).await;
    store.delete(vec![key.to_owned()]).await?;
    Ok(head?.map(|object| object.last_modified_ms))
}

/// Compares the clock of this machine with that of the server. Servers note whole seconds.
fn clock(ahead_ms: i64, found: &mut Diagnosis) {
    let seconds = ahead_ms / 1_000;
    match ahead_ms.abs() > SKEW_MS {
        false => found.good("clock", "within a minute of the server's"),
        true => found.wrong(
            "clock",
            format!(
                "{} s {} the server's",
                seconds.abs(),
                if seconds > 0 { "ahead of" } else { "behind" }
            ),
            "set the clock of this machine: S3 refuses requests whose time is 15 minutes off",
        ),
    }
}
