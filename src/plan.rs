//! Plans: pure values that `plan` prints and `run` executes. Nobody changes a plan after it was made. If
//! something is known only later, such as the marts that absorbed events change, another plan is made for it.
//!
//! ```text
//! Job ─────────┐
//! Discovered ──┤
//! State ───────┼──▶ RunPlan ──▶ printed │ executed
//! mart graph ──┘
//! ```

mod estimate;
mod leftovers;
mod marts;
mod partitions;
mod refusal;
mod repair;
mod settings;
mod source;
mod steps;

pub use leftovers::leftovers;
pub use marts::{AskedDates, Marts, Moved, plan_asked_marts, plan_marts, version};
pub use refusal::{Bytes, Refusal};
pub use repair::{Lost, Unrepairable, plan_repair};
pub use settings::settings;

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use serde::Serialize;

use crate::config::{Job, OnChangedObject, Publish, Source};
use crate::ledger::{Dates, File, Rebuilt, Settings, SourceState, State};
use crate::mart::Mart;
use crate::raw::{Discovered, RawObject};
use source::plan_source;

/// The limits of one commit. A long catch-up is published in several commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitLimits {
    /// The most raw objects. The limit keeps the record in the log small enough to be read at once.
    pub objects: usize,
    /// The most stored bytes of raw objects or data files that are read. The limit keeps the spilled data small
    /// enough for a disk of moderate size.
    pub bytes: u64,
}

impl CommitLimits {
    /// The limits for a job with so many bytes of memory.
    pub const fn new(memory: u64) -> Self {
        Self {
            objects: 10_000,
            bytes: memory.saturating_mul(8),
        }
    }
}

/// The plan of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RunPlan {
    /// The commit of an earlier run that was not published.
    pub roll_forward: Option<u64>,
    /// The plans of the sources, in the order of the configuration.
    pub sources: Vec<SourcePlan>,
    /// The plans of the marts, in the order in which they are built.
    pub marts: Vec<MartPlan>,
    /// What the catalog has not been told; `None` without a catalog.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalog: Option<CatalogPlan>,
    /// Data files without rows that an earlier rebuild left at places of another partitioning. They are removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub leftovers: Vec<String>,
    /// Marts that the log has, and whose SQL files are gone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gone_marts: Vec<String>,
    /// What the whole run will cost; `None` where it would refuse.
    pub estimate: Option<WholeEstimate>,
}

/// What the catalog has not been told of what is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CatalogPlan {
    /// The database of the tables.
    pub database: String,
    /// Tables that a run will tell the catalog of, whatever else it does.
    pub behind: Vec<CatalogTable>,
    /// Why the catalog cannot be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A table that the catalog is behind with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CatalogTable {
    /// The name of the table.
    pub table: String,
    /// The catalog has a table of this name that this lake has not made: a run will refuse to change it.
    pub foreign: bool,
    /// The commit that the catalog was told of last; `None` where it has no such table of this lake.
    pub told: Option<u64>,
    /// The commit that its content is of; `None` where the lake has no such table any more.
    pub commit: Option<u64>,
}

/// The plan of one source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourcePlan {
    /// The name of the source.
    pub source: String,
    /// The reason why its tables change; `None` if they do not.
    pub why: Option<Why>,
    /// The number of listed raw objects.
    pub objects: u64,
    /// The stored bytes of these objects.
    pub bytes: u64,
    /// The number of raw objects among them that are not absorbed yet.
    pub new_objects: u64,
    /// The stored bytes of these objects.
    pub new_bytes: u64,
    /// The keys that hold no events, by reason.
    pub skipped: BTreeMap<&'static str, Vec<String>>,
    /// Absorbed raw objects that have other content now.
    pub changed: Vec<String>,
    /// Absorbed raw objects that are no longer listed.
    pub vanished: Vec<String>,
    /// The columns that were added after published dates, with the number of dates on which they are null.
    /// `extra` keeps their values until a rebuild.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unfilled: BTreeMap<String, u64>,
    /// The reason why the source cannot be changed.
    pub refused: Option<Refusal>,
    /// The steps in order. Each is one commit.
    pub steps: Vec<Step>,
    /// The partitions that will change, as far as this is known before raw objects are read. Late events and
    /// the reach of rules are known only from the times in the objects.
    pub partitions: Vec<PartitionPlan>,
    /// The estimated cost of the steps; `None` if there are none.
    pub estimate: Option<Estimate>,
    /// What a rebuild covers; `None` of a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebuilt: Option<Rebuilt>,
    /// The settings that the log holds after the last step, if they change.
    #[serde(skip)]
    pub settings: Option<Settings>,
    /// The settings that the log holds before the last step. A rebuild counts as done only when all of it is
    /// done.
    #[serde(skip)]
    pub meanwhile: Option<Settings>,
}

/// The reason why the tables of a source change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Nothing of the source was absorbed so far.
    First,
    /// Raw objects are listed that are not absorbed yet.
    NewObjects,
    /// Absorbed raw objects have other content now, and it replaces the earlier content.
    ChangedObjects,
    /// Absorbed raw objects were written again with the same content.
    NewEtags,
    /// A rebuild was asked for, or is needed for a repair.
    Rebuild,
    /// Raw objects are dropped for good.
    Drop,
}

/// The part of a source that goes into one commit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The number of raw objects to read.
    pub objects: u64,
    /// The stored bytes of these objects.
    pub bytes: u64,
    /// The indexes of these objects in the listing.
    #[serde(skip)]
    pub read: Vec<usize>,
    /// The absorbed raw objects whose events are taken out.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub leaving: BTreeSet<String>,
    /// The event dates whose events are decided again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub again: Option<Dates>,
    /// Event dates whose files are written anew in any case. A file of another date stays as it is if all
    /// events that it loses come again. `None` where no file stays.
    #[serde(skip)]
    pub only: Option<Dates>,
    /// The columns that are taken out of the `extra` of the events of these dates, because they were added
    /// later.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub fill: BTreeSet<String>,
    /// The tables are made of these objects alone, whatever is stored.
    pub anew: bool,
}

/// The estimated cost of steps, from what the log knows about earlier commits. Late events, and chains that
/// reach other partitions, add to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// The number of rows of the data files that are made again.
    pub rows_read: u64,
    /// The bytes of these data files and of raw objects.
    pub bytes_read: u64,
    /// The number of rows to write; `None` before anything was absorbed.
    pub rows_written: Option<u64>,
    /// The bytes of the data files to write; `None` before anything was absorbed.
    pub bytes_written: Option<u64>,
    /// The number of data files to write.
    pub files_written: u64,
    /// The requests.
    pub requests: Requests,
}

/// What a run will cost in all, with its marts, and with what it asks of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WholeEstimate {
    /// Data files.
    pub files_written: u64,
    /// Requests to the stores.
    pub requests: Requests,
}

/// The number of requests to a bucket, or of operations on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// The number of listings.
    pub list: u64,
    /// The number of reads.
    pub get: u64,
    /// The number of writes.
    pub put: u64,
}

/// A partition of a source that will change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionPlan {
    /// The folder of the partition, with its date.
    pub partition: String,
    /// The date of the partition.
    #[serde(skip)]
    pub date: NaiveDate,
    /// The reason of the change.
    pub why: WhyPartition,
    /// The number of raw objects that arrived in its time.
    pub objects: u64,
    /// The stored bytes of these objects.
    pub bytes: u64,
    /// The number of its data files, which are read and written again.
    pub stored_files: u64,
    /// The number of rows of these files.
    pub stored_rows: u64,
    /// The bytes of these files.
    pub stored_bytes: u64,
}

/// The reason why a partition changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyPartition {
    /// The partition does not exist yet.
    NewEvents,
    /// The partition is published, and raw objects arrived in its time.
    MoreEvents,
    /// The partition holds events of raw objects that are taken out or replaced.
    ReplacedObjects,
    /// It holds events of raw objects that are dropped for good.
    Dropped,
    /// Its events are decided again.
    Rebuild,
    /// Its raw objects are read again.
    ReadAgain,
}

/// The request for a rebuild.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rebuild {
    /// The event dates; `None` for all of them.
    pub dates: Option<Dates>,
    /// Reads the events from raw, even if only rules changed.
    pub raw: bool,
    /// Gives up the events whose raw objects are gone.
    pub forget_missing: bool,
    /// Identities of raw objects whose events and rejects are taken out for good. Nothing else is rebuilt then.
    pub drop: BTreeSet<String>,
}

impl Rebuild {
    /// Whether everything is rebuilt: all dates, and nothing is dropped.
    pub fn is_whole(&self) -> bool {
        self.dates.is_none() && self.drop.is_empty()
    }
}

/// The plan of one mart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MartPlan {
    /// The name of the mart.
    pub mart: String,
    /// The reason why it is built; `None` if it is fresh.
    pub why: Option<WhyMart>,
    /// The dates to build, for a mart by date that is not fresh. These are all dates that are known before its
    /// inputs are built. Some of them may turn out to have no rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dates: Option<BTreeSet<NaiveDate>>,
    /// Every date that the mart has is built, known or not.
    #[serde(skip)]
    pub every_date: bool,
    /// Sample dates are to be compared, unless the engine's plan shows that no date reads another date.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sample_due: bool,
    /// The data that the mart would read from the tables as they are now. It is known only where it was asked
    /// for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<Reads>,
    /// What is worth knowing about its SQL, such as constructs that DuckDB answers in another way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The facts that the engine's plan shows about a mart before it is built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foreseen {
    /// The data that the mart would read from the tables as they are now.
    pub reads: Vec<Reads>,
    /// Sample dates are to be compared, because a date may have rows of other dates.
    pub sample_due: bool,
}

/// The data that a mart reads from one table, each time that its SELECT names the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reads {
    /// The name of the table.
    pub table: String,
    /// The columns to read.
    pub columns: Vec<String>,
    /// The number of data files to read.
    pub files: u64,
    /// The number of all data files of the table with rows.
    pub of_files: u64,
    /// The bytes of the files to read, whole.
    pub bytes: u64,
}

/// The reason why a mart is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyMart {
    /// The mart was never built.
    First,
    /// The SQL of the mart has changed.
    SqlChanged,
    /// The mart was built by a version with another law of the SQL.
    LawChanged,
    /// An input has other columns, or has got dates or lost them, and the mart changes by it.
    FormChanged,
    /// The inputs that have changed or will change.
    InputsChanged(Vec<String>),
    /// Files of the mart are to be made again.
    Lost,
    /// Somebody asked for it.
    Asked,
}

/// What comes of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanOutcome {
    /// There is nothing to do.
    Nothing,
    /// There is work to do.
    Work,
    /// The run would refuse.
    Refused,
}

impl RunPlan {
    /// The first source that cannot be changed, and the reason.
    pub fn refusal(&self) -> Option<(&str, &Refusal)> {
        let mut sources = self.sources.iter();
        sources.find_map(|source| Some((source.source.as_str(), source.refused.as_ref()?)))
    }

    /// What comes of the plan.
    pub fn outcome(&self) -> PlanOutcome {
        let refused = self.refusal().is_some();
        let works = self.roll_forward.is_some()
            || self.sources.iter().any(|source| source.why.is_some())
            || self.marts.iter().any(|mart| mart.why.is_some())
            || !self.leftovers.is_empty()
            || !self.catalog.iter().all(CatalogPlan::is_empty);
        match (refused, works) {
            (true, _) => PlanOutcome::Refused,
            (false, true) => PlanOutcome::Work,
            (false, false) => PlanOutcome::Nothing,
        }
    }

    /// The same plan, with what the catalog has not been told.
    pub fn with_catalog(self, catalog: Option<CatalogPlan>) -> Self {
        Self { catalog, ..self }
    }

    /// The same plan with the foreseen reads of each mart, in the order of the marts.
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

impl CatalogPlan {
    /// The catalog has been told of all that is published.
    pub fn is_empty(&self) -> bool {
        self.behind.is_empty() && self.problem.is_none()
    }
}

impl MartPlan {
    /// The plan to leave a mart as it is.
    pub fn nothing(mart: &str) -> Self {
        Self {
            mart: mart.to_owned(),
            why: None,
            dates: None,
            every_date: false,
            sample_due: false,
            reads: Vec::new(),
            notes: Vec::new(),
        }
    }
}

impl SourcePlan {
    /// The plan that changes nothing of a source. `new` are the indexes of objects that are not absorbed.
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
                .map(|(why, keys)| (why, keys.clone()))
                .chain([("dropped", dropped(listed, known))])
                .filter(|(_, keys)| !keys.is_empty())
                .collect(),
            changed: listed.changed.clone(),
            vanished: vanished(listed, known),
            unfilled: BTreeMap::new(),
            rebuilt: None,
            refused: None,
            steps: Vec::new(),
            partitions: Vec::new(),
            estimate: None,
            settings: None,
            meanwhile: None,
        }
    }

    /// Whether the tables must be made anew: by this plan, or before anything else can be done.
    pub fn makes_tables_anew(&self) -> bool {
        self.refused.is_some() || self.steps.iter().any(|step| step.anew)
    }

    /// The part of the source's tables that will have changed, as far as it is known.
    fn moved(&self) -> Option<Moved> {
        self.why?;
        let dates = self.partitions.iter().map(|partition| partition.date);
        Some(Moved {
            all: self.steps.iter().any(|step| step.anew),
            dates: dates.collect(),
        })
    }
}

/// A source with its listed raw objects.
pub struct Listed<'a> {
    /// The configuration of the source.
    pub source: &'a Source,
    /// The columns that each of its rules reads.
    pub reads: &'a [BTreeSet<String>],
    /// The result of the listing.
    pub found: &'a Discovered,
    /// The absorbed objects that have other content now.
    pub changed: Vec<String>,
    /// The treatment of absorbed objects whose content has changed.
    pub on_changed: OnChangedObject,
    /// The number of absorbed objects that have a new ETag and the same content.
    pub renewed: usize,
    /// Only a part of the prefixes was listed, so an object that is not listed may still exist.
    pub partial: bool,
}

/// The absorbed raw objects that are no longer listed.
fn vanished(listed: &Listed<'_>, known: Option<&SourceState>) -> Vec<String> {
    let (Some(known), false) = (known, listed.partial) else {
        return Vec::new();
    };
    // Both lists are sorted by bytes.
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

/// Raw objects that are listed and were dropped for good.
fn dropped(listed: &Listed<'_>, known: Option<&SourceState>) -> Vec<String> {
    let is_dropped = |key: &&str| known.is_some_and(|known| known.dropped.contains_key(*key));
    let listed = listed.found.objects.iter().map(|found| &*found.identity);
    listed.filter(is_dropped).map(str::to_owned).collect()
}

/// Indexes of the listed objects that are not absorbed and were not dropped.
fn new_objects(listed: &Listed<'_>, known: Option<&SourceState>) -> Vec<usize> {
    let objects = listed.found.objects.iter().enumerate();
    let is_known = |found: &RawObject| {
        let key = &*found.identity;
        known
            .is_some_and(|known| known.objects.contains_key(key) || known.dropped.contains_key(key))
    };
    objects
        .filter(|(_, found)| !is_known(found))
        .map(|(i, _)| i)
        .collect()
}

/// The refusal to add to a lake that was published under another `publish`. A rebuild of everything moves its files.
pub fn published_otherwise(job: &Job, state: &State) -> Option<Refusal> {
    let versions = job.publish == Publish::Catalog;
    let others = state.files.values();
    let others = others.filter(|file| file.entry.version.is_some() != versions);
    let (files, bytes) = others.fold((0, 0), |(files, bytes), file| {
        (files + 1, bytes + file.entry.bytes)
    });
    (files > 0).then_some(Refusal::Published {
        publish: job.publish,
        files,
        bytes,
    })
}

/// Plans a run or a rebuild.
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
            let mut plan = plan_source(job, limits, listed, state, rebuild);
            if plan.refused.is_none() && !rebuild.is_some_and(Rebuild::is_whole) {
                plan.refused = published_otherwise(job, state);
            }
            if let Some(of_source) = plan.moved() {
                let tables = listed.source.tables().into_iter();
                moved.extend(tables.map(|table| (table, of_source.clone())));
            }
            plan
        })
        .collect();
    let plan = RunPlan {
        roll_forward: state.unpublished.as_ref().map(|commit| commit.number),
        leftovers: leftovers(job, marts, state)
            .into_iter()
            .map(|removed| removed.key)
            .collect(),
        gone_marts: Vec::new(),
        sources,
        marts: plan_marts(marts, state, moved),
        catalog: None,
        estimate: None,
    };
    let refused = plan.outcome() == PlanOutcome::Refused;
    RunPlan {
        estimate: (!refused).then(|| estimate::whole(&plan, state, marts.marts)),
        ..plan
    }
}

/// The marts of the log that none of `marts` is.
pub fn gone_marts(marts: &[Mart], state: &State) -> Vec<String> {
    let built = state.marts.keys();
    let gone = built.filter(|name| marts.iter().all(|mart| mart.name != **name));
    gone.cloned().collect()
}

/// The files that hold the events of a source: kept events and duplicates.
fn event_files<'s>(source: &Source, state: &'s State) -> impl Iterator<Item = &'s File> {
    let [kept, duplicates, _] = source.tables();
    let files = state.files.values();
    files.filter(move |file| [&kept, &duplicates].contains(&&file.entry.table))
}

/// The event dates with events of a source, in order.
pub fn published(source: &Source, state: &State) -> Vec<NaiveDate> {
    let dates: BTreeSet<NaiveDate> = event_files(source, state)
        .filter(|file| file.entry.rows > 0)
        .filter_map(|file| file.entry.date())
        .collect();
    dates.into_iter().collect()
}

/// For each column, the number of published dates on which it is null.
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
