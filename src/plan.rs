//! What will be done: a pure value that `plan` prints and `run` executes. Nobody changes a plan after
//! it was made: what is known later, such as the marts that absorbed events change, is a plan of its
//! own.
//!
//! ```text
//! Job ─────────┐
//! Discovered ──┤
//! State ───────┼──▶ RunPlan ──▶ printed │ executed
//! mart graph ──┘
//! ```

mod marts;
mod partitions;
mod refusal;
mod repair;
mod settings;
mod source;
mod steps;

pub use marts::{Marts, Moved, plan_marts, version};
pub use refusal::{Bytes, Refusal};
pub use repair::{Lost, Unrepairable, plan_repair};
pub use settings::settings;

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use serde::Serialize;

use crate::config::{Job, OnChangedObject, Source};
use crate::ledger::{Dates, File, Settings, SourceState, State};
use crate::raw::{Discovered, RawObject};
use source::plan_source;

/// What one commit may hold at most. A long catch-up is published bit by bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitLimits {
    /// Raw objects: the record in the log stays small enough to be read at once.
    pub objects: usize,
    /// Stored bytes read, of raw objects or of data files: what is spilled fits a disk of moderate
    /// size.
    pub bytes: u64,
}

impl CommitLimits {
    /// For a job of so many bytes of memory.
    pub const fn new(memory: u64) -> Self {
        Self {
            objects: 10_000,
            bytes: memory.saturating_mul(8),
        }
    }
}

/// What a run will do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunPlan {
    /// A commit that an earlier run made and did not publish.
    pub roll_forward: Option<u64>,
    pub sources: Vec<SourcePlan>,
    pub marts: Vec<MartPlan>,
}

/// What will be done for one source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourcePlan {
    pub source: String,
    /// Why its tables change; `None` when nothing is to be done.
    pub why: Option<Why>,
    /// Raw objects listed, and their bytes.
    pub objects: u64,
    pub bytes: u64,
    /// Raw objects among them that are not yet absorbed.
    pub new_objects: u64,
    pub new_bytes: u64,
    /// Keys that hold no events, by why.
    pub skipped: BTreeMap<&'static str, Vec<String>>,
    /// Absorbed raw objects whose content is another now.
    pub changed: Vec<String>,
    /// Absorbed raw objects that are not listed any more.
    pub vanished: Vec<String>,
    /// Columns that came after published dates, with the number of dates on which they are null: `extra`
    /// keeps their values until a rebuild.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unfilled: BTreeMap<String, u64>,
    /// Why it cannot be done.
    pub refused: Option<Refusal>,
    /// One a commit, in order.
    pub steps: Vec<Step>,
    /// The partitions that will change, as far as this is known before raw objects are read: where
    /// events are late, or rules reach, only their times tell.
    pub partitions: Vec<PartitionPlan>,
    /// What the steps will cost; `None` when there are none.
    pub estimate: Option<Estimate>,
    /// What the log holds of the source's settings after the last step, where that changes.
    #[serde(skip)]
    pub settings: Option<Settings>,
    /// What it holds until then: a rebuild is done when all of it is.
    #[serde(skip)]
    pub meanwhile: Option<Settings>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    First,
    NewObjects,
    /// Absorbed raw objects have other content now, and it is to take the place of the earlier.
    ChangedObjects,
    /// Absorbed raw objects were written again with the same content.
    NewEtags,
    Rebuild,
}

/// One commit's worth of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Raw objects to read and their bytes.
    pub objects: u64,
    pub bytes: u64,
    /// Their indexes in the listing.
    #[serde(skip)]
    pub read: Vec<usize>,
    /// Absorbed raw objects whose events are taken out.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub leaving: BTreeSet<String>,
    /// Event dates that are decided again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub again: Option<Dates>,
    /// Columns that came after events of these dates, and are taken out of their `extra`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub fill: BTreeSet<String>,
    /// The tables are made of these objects alone, whatever is stored.
    pub anew: bool,
}

/// What steps will cost, by what the log knows of what was absorbed so far. Late events and chains that
/// reach other partitions add to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// Of the data files that are made anew.
    pub rows_read: u64,
    /// Of these, and of raw objects.
    pub bytes_read: u64,
    /// Not known before anything was absorbed.
    pub rows_written: Option<u64>,
    pub bytes_written: Option<u64>,
    pub requests: Requests,
}

/// Requests to a bucket; on disk as many operations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Requests {
    pub list: u64,
    pub get: u64,
    pub put: u64,
}

/// A partition of a source that will change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionPlan {
    /// Its folder, and the date in it.
    pub partition: String,
    #[serde(skip)]
    pub date: NaiveDate,
    pub why: WhyPartition,
    /// Raw objects that arrived in its time, and their bytes.
    pub objects: u64,
    pub bytes: u64,
    /// Its data files, which are read and written anew; their rows and bytes.
    pub stored_files: u64,
    pub stored_rows: u64,
    pub stored_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyPartition {
    /// It is not there yet.
    NewEvents,
    /// It is published, and raw objects arrived in its time.
    MoreEvents,
    /// It holds events of raw objects that are taken out or replaced.
    ReplacedObjects,
    /// Its events are decided again.
    Rebuild,
}

/// What a rebuild is asked to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rebuild {
    /// Event dates; all of them without.
    pub dates: Option<Dates>,
    /// Read them from raw, even where only rules changed.
    pub raw: bool,
    /// Give up events whose raw objects are gone.
    pub forget_missing: bool,
}

/// Whether and why a mart will be built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MartPlan {
    pub mart: String,
    /// `None` when it is fresh.
    pub why: Option<WhyMart>,
    /// The dates to build, of a mart by date that is not fresh: all that are known before what it reads
    /// is there, of which some may come to have no rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dates: Option<BTreeSet<NaiveDate>>,
    /// Every date that it has is to be built, known or not.
    #[serde(skip)]
    pub every_date: bool,
    /// Sample dates are to be evaluated among other dates too, and compared, unless the engine's plan
    /// shows that no date reads another.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sample_due: bool,
    /// What it would read of the tables as they are; known where it was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<Reads>,
}

/// What the engine's plan shows of a mart that is to be built, before it is built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foreseen {
    /// What it would read of the tables as they are.
    pub reads: Vec<Reads>,
    /// Sample dates are to be compared, and its dates may have rows of other dates.
    pub sample_due: bool,
}

/// What a mart reads of one table, each time that its SELECT names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reads {
    pub table: String,
    pub columns: Vec<String>,
    /// Data files, of all that the table has with rows.
    pub files: u64,
    pub of_files: u64,
    /// Of these files, whole.
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyMart {
    First,
    SqlChanged,
    /// It was built by a version with another law of the SQL.
    LawChanged,
    /// What it reads has other columns, or has dates now or no longer, and that shows in it.
    FormChanged,
    /// The tables that changed or will.
    InputsChanged(Vec<String>),
    /// Files of it are to be made again.
    Lost,
}

impl RunPlan {
    /// Nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.roll_forward.is_none()
            && self.sources.iter().all(|source| source.why.is_none())
            && self.marts.iter().all(|mart| mart.why.is_none())
    }

    /// The same plan, with what is foreseen of each mart, in the order of the marts.
    pub fn with_foreseen(self, foreseen: Vec<Foreseen>) -> Self {
        let marts = self.marts.into_iter().zip(foreseen);
        let marts = marts.map(|(mart, foreseen)| MartPlan {
            reads: foreseen.reads,
            sample_due: foreseen.sample_due,
            ..mart
        });
        Self {
            marts: marts.collect(),
            ..self
        }
    }
}

impl SourcePlan {
    /// The plan to do nothing with a source. `new` are the indexes of objects that are not absorbed.
    fn nothing(listed: &Listed<'_>, known: Option<&SourceState>, new: &[usize]) -> Self {
        let found = listed.found;
        let new_objects = new.iter().filter_map(|i| found.objects.get(*i));
        let skipped = [
            ("hidden", &found.hidden),
            ("excluded", &found.excluded),
            ("folder_marker", &found.folder_markers),
            ("no_file", &found.no_files),
            ("link", &found.links),
        ];
        Self {
            source: listed.source.name.clone(),
            why: None,
            objects: found.objects.len() as u64,
            bytes: found.objects.iter().map(|found| found.size).sum(),
            new_objects: new.len() as u64,
            new_bytes: new_objects.map(|found| found.size).sum(),
            skipped: skipped
                .into_iter()
                .filter(|(_, keys)| !keys.is_empty())
                .map(|(why, keys)| (why, keys.clone()))
                .collect(),
            changed: listed.changed.clone(),
            vanished: vanished(listed, known),
            unfilled: BTreeMap::new(),
            refused: None,
            steps: Vec::new(),
            partitions: Vec::new(),
            estimate: None,
            settings: None,
            meanwhile: None,
        }
    }

    /// What of its tables will have changed, as far as it is known.
    fn moved(&self) -> Option<Moved> {
        self.why?;
        let dates = self.partitions.iter().map(|partition| partition.date);
        Some(Moved {
            all: self.steps.iter().any(|step| step.anew),
            dates: dates.collect(),
        })
    }
}

/// What a source is found to hold.
pub struct Listed<'a> {
    pub source: &'a Source,
    /// The columns that each of its rules reads.
    pub reads: &'a [BTreeSet<String>],
    pub found: &'a Discovered,
    /// Absorbed objects whose content is another now.
    pub changed: Vec<String>,
    pub on_changed: OnChangedObject,
    /// Absorbed objects that have a new ETag and the same content.
    pub renewed: usize,
    /// A part of the prefixes was not listed: what is not there may be there.
    pub partial: bool,
}

/// Absorbed raw objects that are not listed any more.
fn vanished(listed: &Listed<'_>, known: Option<&SourceState>) -> Vec<String> {
    let (Some(known), false) = (known, listed.partial) else {
        return Vec::new();
    };
    // Both are in the order of their bytes.
    let mut listed = listed.found.objects.iter().map(|f| &*f.identity).peekable();
    known
        .objects
        .keys()
        .filter(|key| {
            while listed.next_if(|name| name < key).is_some() {}
            listed.peek() != Some(key)
        })
        .map(str::to_owned)
        .collect()
}

/// Indexes of the listed objects that are not absorbed.
fn new_objects(listed: &Listed<'_>, known: Option<&SourceState>) -> Vec<usize> {
    let objects = listed.found.objects.iter().enumerate();
    let is_known =
        |found: &RawObject| known.is_some_and(|known| known.objects.contains_key(&found.identity));
    objects
        .filter(|(_, found)| !is_known(found))
        .map(|(i, _)| i)
        .collect()
}

/// Plans a run, or a rebuild.
pub fn plan(
    job: &Job,
    limits: CommitLimits,
    listed: &[Listed<'_>],
    state: &State,
    marts: Marts<'_>,
    rebuild: Option<&Rebuild>,
) -> RunPlan {
    let mut moved: BTreeMap<String, Moved> = BTreeMap::new();
    let sources: Vec<SourcePlan> = listed
        .iter()
        .map(|listed| {
            let plan = plan_source(job, limits, listed, state, rebuild);
            if let Some(of_source) = plan.moved() {
                let tables = listed.source.tables().into_iter();
                moved.extend(tables.map(|table| (table, of_source.clone())));
            }
            plan
        })
        .collect();
    RunPlan {
        roll_forward: state.unpublished.as_ref().map(|commit| commit.number),
        sources,
        marts: plan_marts(marts, state, moved),
    }
}

/// The files that hold the events of a source, kept events and duplicates alike.
fn event_files<'s>(source: &Source, state: &'s State) -> impl Iterator<Item = &'s File> {
    let [kept, duplicates, _] = source.tables();
    let files = state.files.values();
    files.filter(move |file| [&kept, &duplicates].contains(&&file.entry.table))
}

/// Event dates with events of a source, in order.
pub fn published(source: &Source, state: &State) -> Vec<NaiveDate> {
    let dates: BTreeSet<NaiveDate> = event_files(source, state)
        .filter(|file| file.entry.rows > 0)
        .filter_map(|file| file.entry.date())
        .collect();
    dates.into_iter().collect()
}

/// On how many of the published dates each column is null.
pub fn null_dates(
    unfilled: Option<&BTreeMap<String, Vec<Dates>>>,
    published: &[NaiveDate],
) -> BTreeMap<String, u64> {
    let null = |dates: &[Dates]| {
        let dates = published
            .iter()
            .filter(|date| dates.iter().any(|d| d.holds(**date)));
        dates.count() as u64
    };
    let columns = unfilled.into_iter().flatten();
    let columns = columns.map(|(name, dates)| (name.clone(), null(dates)));
    columns.filter(|(_, null)| *null > 0).collect()
}
