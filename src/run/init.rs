//! Makes a new project from a sample of raw objects: `rawmart.toml` and a first mart.
//!
//! ```text
//! list ─▶ choose ─▶ read the first bytes of each ─▶ records ─▶ infer ─▶ decode the sample again ─▶ write
//!                          └─ again, inside of an envelope, where the records are in one
//! ```
//!
//! Nothing is written before the configuration was accepted, and no file is ever replaced.

mod sample;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Doing, RunError};
use crate::config::{self, ConfigError, Job, Overrides};
use crate::infer::{self, Draft, DraftColumn, DraftRule, LayoutFound, Prefix};
use crate::store::{Store, StoreSettings};
use sample::{Chosen, Decoded, Probe};

/// The share of rejects that a source accepts by default.
const MAX_REJECTS: f64 = 0.01;

/// What is asked of `init`.
pub struct InitAsked<'a> {
    /// The raw prefix as typed.
    pub raw: &'a str,
    /// The settings of the command line.
    pub overrides: &'a Overrides,
    /// The folder that the command runs in.
    pub here: &'a Path,
}

/// A project that was made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Initiated {
    /// The files that were written, as paths from the folder of the command.
    pub files: Vec<PathBuf>,
    /// The name of the source.
    pub source: String,
    /// The URL of the raw prefix.
    pub raw: String,
    /// The number of raw objects that a run would read.
    pub objects: u64,
    /// The number of raw objects in the sample.
    pub sampled: u64,
    /// The number of records in the sample.
    pub records: u64,
    /// The pattern of the arrival time in keys; null where there is none.
    pub layout: Option<String>,
    /// The envelope of the records, as the configuration spells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unwrap: Option<String>,
    /// The column of the event time.
    pub event_time: String,
    /// The columns.
    pub columns: Vec<DraftColumn>,
    /// The duplicate rules.
    pub rules: Vec<DraftRule>,
    /// The records of the sample that would be rejects.
    pub rejects: Vec<SampledRejects>,
    /// What the sample does not prove.
    pub unsure: Vec<String>,
    /// The commands to give next.
    pub next: Vec<String>,
}

/// Records of a sample that would be rejects for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SampledRejects {
    /// The reason.
    pub reason: String,
    /// The number of records.
    pub count: u64,
    /// The raw object and the detail of the first of them.
    pub example: String,
}

/// Makes a new project.
///
/// # Errors
/// A file that is there already; no raw objects, or none with a record; records without a time; a store that does not
/// answer.
pub fn init<'a>(asked: &'a InitAsked<'a>, settings: &'a StoreSettings) -> Doing<'a, Initiated> {
    Box::pin(async move {
        let place = Place::new(asked)?;
        let url = config::folder_url(asked.raw, asked.here).map_err(|message| given(&message))?;
        let store = Store::open(&url, settings).await?;
        let mut probe = Probe::new(&url, asked.here)?;
        let listed = probe.list(&store).await?;
        let keys = || listed.iter().map(|object| object.key());
        let layout = infer::layout(keys());
        let chosen = sample::choose(&listed);
        let read = sample::read(&store, &chosen).await?;
        let records = unwrapped(&mut probe, &read, &layout)?;
        let prefix = Prefix {
            raw: place.raw(asked, &url),
            source: infer::table_name(&url),
            lake: asked
                .overrides
                .lake
                .clone()
                .unwrap_or_else(|| "lake".to_owned()),
            objects: listed.len() as u64,
            layout,
            unwrap: probe.unwrap.clone(),
            reads_all: probe.reads_all && probe.unwrap.as_deref() != Some("\"firehose-error\""),
        };
        let mut draft =
            infer::infer(prefix, &records).map_err(|error| given(&error.to_string()))?;
        let job = place.accepted(asked, &draft)?;
        let decoded = sample::decode(&job, &read)?;
        if accept_rejects(&mut draft, &decoded) {
            place.accepted(asked, &draft)?;
        }
        let files = place.write(&draft)?;
        Ok(initiated(draft, url, files, decoded, asked))
    })
}

/// The records of the sample, taken out of their envelopes.
fn unwrapped(
    probe: &mut Probe<'_>,
    read: &[Chosen],
    layout: &LayoutFound,
) -> Result<Vec<infer::SampledObject>, RunError> {
    let plain = probe.records(read, layout)?;
    let node = infer::shape(&plain);
    if infer::has_time(&node) && !infer::is_known_envelope(&node) {
        return Ok(plain);
    }
    for envelope in infer::envelopes(&node) {
        // A probe that is not accepted has an envelope that this version does not know.
        let Ok(mut other) = probe.inside(&envelope) else {
            continue;
        };
        let Ok(inside) = other.records(read, layout) else {
            continue;
        };
        if infer::has_time(&infer::shape(&inside)) {
            *probe = other;
            return Ok(inside);
        }
    }
    Ok(plain)
}

/// Sets a larger share of rejects where the sample has more than the default. The result is whether it did.
fn accept_rejects(draft: &mut Draft, decoded: &Decoded) -> bool {
    let share = decoded.share();
    if share <= MAX_REJECTS {
        return false;
    }
    let percent = (share * 100.0).ceil().min(50.0) as u64 * 2;
    let note = format!(
        "{:.1} % of the sample are rejects or lost bytes; the default is 1%",
        share * 100.0
    );
    draft.unsure.push(format!("max_rejects: {note}"));
    draft.max_rejects = Some((format!("{percent}%"), note));
    true
}

fn initiated(
    draft: Draft,
    url: String,
    files: Vec<PathBuf>,
    decoded: Decoded,
    asked: &InitAsked<'_>,
) -> Initiated {
    let config = asked.overrides.config.as_ref();
    let flag = config.map_or_else(String::new, |file| format!("--config {} ", file.display()));
    let source = draft.prefix.source.clone();
    let next = ["plan", "run"].map(|verb| format!("rawmart {flag}{verb}"));
    let query = format!("rawmart {flag}query \"SELECT * FROM {source}_per_day ORDER BY dt\"");
    let shown = |file: PathBuf| match file.strip_prefix(asked.here) {
        Ok(near) => near.to_owned(),
        Err(_) => file,
    };
    Initiated {
        files: files.into_iter().map(shown).collect(),
        source,
        raw: url,
        objects: draft.prefix.objects,
        sampled: draft.sampled,
        records: draft.records,
        layout: draft.prefix.layout.pattern().map(str::to_owned),
        unwrap: draft.prefix.unwrap,
        event_time: draft.event_time,
        columns: draft.columns,
        rules: draft.rules,
        rejects: decoded.rejects(),
        unsure: draft.unsure,
        next: next.into_iter().chain([query]).collect(),
    }
}

/// The places of the files.
struct Place {
    config: PathBuf,
    marts: PathBuf,
}

impl Place {
    /// The places, where no file is yet.
    fn new(asked: &InitAsked<'_>) -> Result<Self, ConfigError> {
        let config = config::file_to_write(asked.overrides, asked.here);
        let folder = config.parent().unwrap_or(asked.here).to_owned();
        let marts = folder.join("sql/marts");
        let taken = |path: &Path| {
            given(&format!(
                "{} exists, and nothing is ever replaced: run init in another folder, or give --config FILE in one",
                path.display()
            ))
        };
        if fs::symlink_metadata(&config).is_ok() {
            return Err(taken(&config));
        }
        // Other SQL files would be marts of the new configuration.
        if let Ok(mut entries) = fs::read_dir(&marts)
            && let Some(Ok(entry)) = entries.next()
        {
            return Err(taken(&entry.path()));
        }
        Ok(Self { config, marts })
    }

    /// The raw prefix as the configuration names it.
    fn raw(&self, asked: &InitAsked<'_>, url: &str) -> String {
        let is_beside = self.config.parent() == Some(asked.here);
        match asked.raw.contains("://") || !is_beside {
            true => url.to_owned(),
            false => asked.raw.to_owned(),
        }
    }

    /// The draft as a run would read it.
    fn accepted(&self, asked: &InitAsked<'_>, draft: &Draft) -> Result<Job, RunError> {
        let text = draft.texts().config;
        let job = config::of_text(&text, &self.config, asked.here)?;
        super::look::check_sources(&job)?;
        Ok(job)
    }

    /// Writes the files, and gives their paths.
    fn write(&self, draft: &Draft) -> Result<Vec<PathBuf>, ConfigError> {
        let texts = draft.texts();
        let mart = self.marts.join(format!("{}.sql", texts.mart));
        create(&mart, &texts.sql)?;
        if let Err(error) = create(&self.config, &texts.config) {
            // Without its configuration the mart is of no use.
            let _ = fs::remove_file(&mart);
            return Err(error);
        }
        Ok(vec![self.config.clone(), mart])
    }
}

/// Creates a file, and the folders above it.
fn create(path: &Path, text: &str) -> Result<(), ConfigError> {
    let failed =
        |source: std::io::Error| given(&format!("cannot write {}: {source}", path.display()));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

fn given(message: &str) -> ConfigError {
    ConfigError::Given {
        name: "init".to_owned(),
        message: message.to_owned(),
    }
}
