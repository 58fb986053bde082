//! Absorbs one commit of one source: changed raw objects → staged data files.
//!
//! ```text
//!            raw objects to read, ranked by name
//! fetch         │ a few downloads ahead
//! decode        ▼
//!            DecodedObjects: runs of wide rows, narrow rows, rejects, counts
//! affected      │ with what is stored: look, grow, join, rule by rule
//!               ▼
//!            Affected: the set D
//! verdicts      │ decide, compare
//!               ▼
//!            Changed: the places that change, and the verdicts that are new
//! merge         │ with the runs, and the stored rows of these places
//!               ▼
//!            files, each staged when it is whole
//! balance       │ P2
//!               ▼
//!            Absorbed: entries of the log, and counts
//! ```
//!
//! A stage is a function of values. [`Settings`] holds how a source is absorbed, and does not change. [`Input`]
//! holds what is absorbed and what the log knows. No stage knows the log, the order of commits, or who is told.

mod affected;
mod balance;
mod decode;
mod error;
mod fetch;
mod incomplete;
mod memory;
mod merge;
mod noticed;
mod rejects;
mod search;
mod slices;
mod spill;
mod stored;
mod verdicts;

pub use error::AbsorbError;
pub use incomplete::Incomplete;
pub use noticed::{Noticed, NullColumn, RejectsOf};
pub use spill::SpillFolder;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use arrow::array::{StringArray, StringBuilder};
use arrow::datatypes::SchemaRef;
use futures::stream;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::catalog::{SourceTables, TableDefinition};
use crate::config::{Job, Source};
use crate::dedup::{Hashing, Keys, Places};
use crate::event::{PartitionBy, RAW_RECORD, Slicing};
use crate::lake::Proof;
use crate::ledger::{Balance, Dates, File, ObjectEntry, SourceState, State};
use crate::progress::{Happened, Progress};
use crate::publish::{Finished, Staged, WriteError};
use crate::raw::{Decoder, RawObject, Roots};
use crate::store::Store;
use crate::time::TimeUnit;
use affected::{Finder, Origins};
use balance::Counts;
use decode::{DecodedObjects, RankedObject};
use fetch::Arrivals;
use memory::Shares;
use merge::{Done, Merging};
use search::Search;
use slices::{Slices, Spans, place};
use stored::StoredTables;

/// The place where a source is absorbed, and the run that absorbs it.
pub struct Workspace<'a> {
    pub job: &'a Job,
    pub lake: &'a Store,
    /// The name of the run. It is part of the keys of staged files.
    pub run: &'a str,
    /// The path of the spill folder.
    pub folder: &'a Path,
    /// The hash function for the keys of this run.
    pub hashing: Hashing,
    pub progress: &'a Progress,
}

/// The part of one source that goes into one commit.
pub struct Work<'a> {
    pub source: &'a Source,
    pub roots: &'a Roots,
    pub tables: &'a SourceTables,
    /// The raw objects to read, in the order of their identities.
    pub read: Vec<RawObject>,
    /// The absorbed raw objects whose events are taken out.
    pub leaving: BTreeSet<String>,
    /// The event dates whose events are decided again.
    pub again: Option<Dates>,
    /// Event dates whose files are written anew in any case. A file of another date stays as it is if all
    /// events that it loses come again. `None` where no file stays.
    pub only: Option<Dates>,
    /// The columns that are taken out of the `extra` of the events of these dates.
    pub fill: BTreeSet<String>,
    /// Whether the tables are made of `read` alone, whatever is stored.
    pub anew: bool,
    /// Data files that cannot be read. The state does not name them. All their rows come from raw objects that
    /// leave and are read again.
    pub lost: Vec<File>,
    /// Proves the data files that are read.
    pub proof: Proof,
}

/// The result of absorbing one step of a source.
pub struct Absorbed {
    pub objects: Vec<ObjectEntry>,
    /// The change of the counts by this commit.
    pub balance: Balance,
    pub values: ValueCounts,
    /// Envelopes without a record, by kind.
    pub empty: BTreeMap<&'static str, u64>,
    pub incomplete: Incomplete,
    /// The bytes of data files that were read.
    pub stored_bytes: u64,
    /// The number of slices that changed, by the reason of the change.
    pub slices: BTreeMap<WhySlice, u64>,
    pub noticed: Noticed,
}

/// The numbers of values of the records that were read, by column, that are not as they were written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ValueCounts {
    /// Values that became null under `on_type_error = "null"`.
    pub nulled: BTreeMap<String, u64>,
    /// Values that were converted from another type under `coerce = true`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub coerced: BTreeMap<String, u64>,
    /// Paths that met a value without members, such as a text that is no JSON.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unreached: BTreeMap<String, u64>,
}

impl ValueCounts {
    /// Adds other counts.
    pub fn add(&mut self, other: Self) {
        let add = |to: &mut BTreeMap<String, u64>, from: BTreeMap<String, u64>| {
            for (column, count) in from {
                *to.entry(column).or_default() += count;
            }
        };
        add(&mut self.nulled, other.nulled);
        add(&mut self.coerced, other.coerced);
        add(&mut self.unreached, other.unreached);
    }
}

/// The reason why a slice changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhySlice {
    /// New events came to a slice without events.
    NewEvents,
    /// New events came to a slice with events.
    MoreEvents,
    /// Events left because their raw object was taken out or replaced, and no events came.
    EventsLeft,
    /// Some events left, and others came.
    EventsReplaced,
    /// Its raw objects were read again and gave the events that were there.
    ReadAgain,
    /// No events came or left. A chain of duplicates reaches into the slice, or its events were decided again.
    Verdicts,
    /// Its file lacked columns that came later, or they were taken out of `extra`.
    ColumnsFilled,
}

/// The settings with which a source is absorbed. Every stage reads them, and no stage changes them.
struct Settings {
    source: Source,
    /// The columns of decoded events.
    schema: SchemaRef,
    slicing: Slicing,
    hashing: Hashing,
    /// The number of threads, at least 1.
    threads: usize,
    folder: PathBuf,
    /// The tables of kept events, of duplicates and of rejects.
    tables: [TableDefinition; 3],
    /// The number of the commit that the files are written for.
    commit: u64,
    /// Events that come are compared with events that leave.
    compare: bool,
    shares: Shares,
}

/// Data files by table and place.
type Files = BTreeMap<(String, u64), File>;

/// The objects and dates that are absorbed, and what the log knows about the source.
struct Input {
    objects: Vec<RankedObject>,
    leaving: BTreeSet<String>,
    again: Option<Dates>,
    only: Option<Dates>,
    fill: BTreeSet<String>,
    lost: Vec<File>,
    known: SourceState,
    anew: bool,
    slices: Slices,
    /// The stored files with rows that may change.
    old: Files,
    /// The stored files that are replaced whatever their rows are.
    replaced: Files,
}

/// Reads the raw objects, decides, writes the files of the slices that change, and stages them for the next
/// commit of `state`.
///
/// # Errors
/// An object that cannot be read, too many rejects, a rule that fails on a value, a full disk, counts
/// that do not balance, a lake that does not answer. Some files may be staged by then.
pub async fn absorb(
    space: &Workspace<'_>,
    work: Work<'_>,
    state: &State,
) -> Result<(Absorbed, Staged), AbsorbError> {
    let roots = work.roots;
    let read = work.read.clone();
    let (settings, input, stored) = prepare(space, work, state)?;
    let (threads, whole) = (settings.threads, settings.shares.whole);
    let (commit, in_flight) = (settings.commit, settings.shares.in_flight);
    let (feed, arrivals) = fetch::arrivals();
    let (finished, mut to_stage) = mpsc::unbounded_channel::<Finished>();
    let stopped = Arc::new(AtomicBool::new(false));
    let has_stopped = Arc::clone(&stopped);
    let progress = space.progress.clone();
    let computing = tokio::task::spawn_blocking(move || {
        let done = |file: &Finished| finished.send(file.clone()).is_ok();
        let absorbed = compute(&settings, &input, &stored, &arrivals, &done, &progress);
        stopped.store(absorbed.is_err(), Ordering::Relaxed);
        absorbed
    });
    // The receiver is gone when staging has failed, and then writing stops. In the same way, files that wait
    // are not staged when writing has failed.
    let to_stage = stream::poll_fn(move |context| match has_stopped.load(Ordering::Relaxed) {
        true => Poll::Ready(None),
        false => to_stage.poll_recv(context),
    });
    let staging = crate::publish::stage(space.lake, commit, space.run, to_stage, in_flight);
    let feeding = feed.run(roots, &read, threads, whole);
    let ((), absorbed, staged) = tokio::join!(feeding, computing, staging);
    let absorbed = absorbed.map_err(|_| AbsorbError::Defect("a worker died".to_owned()))?;
    match (absorbed, staged) {
        // Where staging fails, writing fails because of it.
        (Ok(_) | Err(AbsorbError::Write(WriteError::NotStaged)), Err(error)) => Err(error.into()),
        (absorbed, staged) => Ok((absorbed?, staged?)),
    }
}

/// Calls the stages one after another. Everything that is computed is computed in here.
fn compute(
    settings: &Settings,
    input: &Input,
    stored: &StoredTables,
    arrivals: &Arrivals,
    done: &Done<'_>,
    progress: &Progress,
) -> Result<Absorbed, AbsorbError> {
    let name = || settings.source.name.clone();
    let (objects, slices) = (&input.objects, &input.slices);
    let search = Search::new(settings, slices, input.changed_bytes());
    let mut decoded = decode::decode(settings, objects, slices, &search, arrivals, progress)?;
    let identities = objects.iter().map(|object| &*object.found.identity);
    let counts = decoded.objects.iter().map(|object| &object.counts);
    rejects::check(&settings.source, identities.zip(counts), &decoded.noticed)?;

    progress.tell(Happened::Deciding { source: name() });
    let finder = Finder {
        settings,
        stored,
        slices,
        search: &search,
    };
    let narrow = std::mem::take(&mut decoded.narrow);
    let wanted = std::mem::take(&mut decoded.wanted);
    let affected = finder.find(narrow, &input.origins(settings), wanted)?;
    let changed = verdicts::verdicts(settings, input, stored, &decoded, affected)?;
    drop(search);

    progress.tell(Happened::Writing { source: name() });
    let merging = Merging {
        settings,
        input,
        stored,
    };
    let expected = merging.expect(&decoded, &changed)?;
    let counts = Counts {
        kept: changed.kept,
        by_rule: changed.by_rule.clone(),
        gone: changed.gone,
        slices: expected.slices.clone(),
    };
    let runs = (decoded.events, decoded.rejects);
    let files = merging.write(runs, changed, &expected, done)?;
    balance::check_rows(&files, &expected)?;
    balance::check_lost(&files, input, stored)?;
    if !merging.emptied(&expected, &files)?.iter().all(done) {
        return Err(WriteError::NotStaged.into());
    }

    progress.tell(Happened::Staging { source: name() });
    let mut absorbed = balance::balance(settings, input, stored, decoded.objects, counts)?;
    absorbed.noticed = decoded.noticed;
    Ok(absorbed)
}

/// Prepares everything that is known before the first raw object is read.
fn prepare(
    space: &Workspace<'_>,
    work: Work<'_>,
    state: &State,
) -> Result<(Settings, Input, StoredTables), AbsorbError> {
    let Workspace { job, lake, .. } = space;
    let source = work.source;
    let known = state.sources.get(&source.name).cloned().unwrap_or_default();
    let is_known = |name: &&String| known.objects.get(name).is_some();
    if let Some(name) = work.leaving.iter().find(|name| !is_known(name)) {
        return Err(AbsorbError::Defect(format!(
            "raw object {name} is to be taken out and was never absorbed"
        )));
    }
    let slices = match work.anew {
        true => Slices::default(),
        false => Slices::new(source, state)?,
    };
    let shares = Shares::new(job, source.rules.len(), !slices.is_empty());
    let mut stored = StoredTables {
        lake: (*lake).clone(),
        proof: work.proof,
        runtime: tokio::runtime::Handle::current(),
        ahead: shares.ahead,
        event_time: Some(source.decode.event_time.clone()),
        unit: source.decode.unit,
        objects: Arc::new(names(&work.read, &known, work.anew)),
        rules: Arc::new(all_rules(source, &known)),
        leaving: Arc::default(),
        read: Arc::default(),
    };
    let ranked = |name: &str| {
        let rank = stored.rank(name);
        rank.ok_or_else(|| AbsorbError::Defect(format!("raw object {name} has no rank")))
    };
    let leaving = work.leaving.iter().map(|name| ranked(name));
    let leaving = leaving.collect::<Result<_, _>>()?;
    let objects = work.read.into_iter().map(|found| {
        let rank = ranked(&found.identity)?;
        Ok(RankedObject { found, rank })
    });
    let objects = objects.collect::<Result<_, AbsorbError>>()?;
    stored.leaving = Arc::new(leaving);
    let files = stored_files(work.tables, state)?;
    let (old, replaced) = match work.anew {
        true => (Files::new(), files),
        false => (files, Files::new()),
    };
    let settings = Settings {
        source: source.clone(),
        schema: Decoder::new(&source.decode, &shares.decoding).schema(),
        slicing: job.slicing(source),
        hashing: space.hashing,
        threads: job.threads.max(1),
        folder: space.folder.to_owned(),
        tables: [
            work.tables.events.clone(),
            work.tables.duplicates.clone(),
            work.tables.rejects.clone(),
        ],
        commit: state.last + 1,
        compare: !work.leaving.is_empty(),
        shares,
    };
    let input = Input {
        objects,
        leaving: work.leaving,
        again: work.again,
        only: work.only,
        fill: work.fill,
        lost: work.lost,
        known,
        anew: work.anew,
        slices,
        old,
        replaced,
    };
    Ok((settings, input, stored))
}

/// The names of all raw objects whose events may meet, sorted as bytes. The index of a name is the rank of its
/// object.
fn names(read: &[RawObject], known: &SourceState, anew: bool) -> StringArray {
    let read = read.iter().map(|found| &*found.identity);
    if anew {
        return StringArray::from_iter_values(read);
    }
    // Both lists are sorted by bytes.
    let mut read = read.peekable();
    let mut names = StringBuilder::new();
    for name in known.objects.keys() {
        while let Some(new) = read.next_if(|new| *new < name) {
            names.append_value(new);
        }
        read.next_if_eq(&name);
        names.append_value(name);
    }
    read.for_each(|new| names.append_value(new));
    names.finish()
}

/// The names of the rules of a source, followed by the names of earlier rules that still have duplicates.
fn all_rules(source: &Source, known: &SourceState) -> Vec<String> {
    let configured = source.rules.iter().map(|rule| rule.name.clone());
    let earlier = known.balance.duplicates.keys();
    let earlier = earlier.filter(|name| source.rules.iter().all(|rule| rule.name != **name));
    configured.chain(earlier.cloned()).collect()
}

/// The data files that have rows.
fn stored_files(tables: &SourceTables, state: &State) -> Result<Files, AbsorbError> {
    let tables = tables.all();
    let files = tables.iter().flat_map(|table| state.table(&table.name));
    files
        .filter(|file| file.entry.rows > 0)
        .map(|file| Ok(((file.entry.table.clone(), place(file)?), file.clone())))
        .collect()
}

impl Settings {
    /// The unit of the event times.
    const fn unit(&self) -> TimeUnit {
        self.source.decode.unit
    }

    /// Gives the place of an event by its time.
    const fn places(&self) -> Places {
        Places::new(self.slicing, self.unit())
    }

    /// Gives the place of a reject by the arrival time of its raw object. There is one file a day.
    const fn arrival_places(&self) -> Places {
        let by_day = Slicing {
            by: PartitionBy::Day,
            slice_ms: i64::MAX,
            ..self.slicing
        };
        Places::new(by_day, TimeUnit::Ms)
    }

    /// The compiled keys of some rules. `schema` has the columns that they read.
    fn keys(&self, rules: Range<usize>, schema: &SchemaRef) -> Result<Keys, AbsorbError> {
        // A rule that is passed over would give verdicts that look right.
        let no_rules = || AbsorbError::Defect(format!("there are no rules {rules:?}"));
        let rules = self.source.rules.get(rules.clone()).ok_or_else(no_rules)?;
        let keys = Keys::compile(rules, schema, self.slicing, self.unit(), &self.hashing);
        keys.map_err(|error| AbsorbError::Key {
            name: self.source.name.clone(),
            error: Box::new(error),
        })
    }

    /// The indices of the columns of a wide row: the columns of decoded events without the columns that are in
    /// the key.
    fn row_columns(&self) -> Vec<usize> {
        let in_key = [RAW_RECORD, &self.source.decode.event_time];
        let fields = self.schema.fields().iter().enumerate();
        let others = fields.filter(|(_, field)| !in_key.contains(&field.name().as_str()));
        others.map(|(i, _)| i).collect()
    }

    /// The schema of wide rows.
    fn row_schema(&self) -> Result<SchemaRef, AbsorbError> {
        let schema = self.schema.project(&self.row_columns());
        Ok(Arc::new(schema.map_err(WriteError::from)?))
    }

    fn spilling(&self, source: std::io::Error) -> AbsorbError {
        AbsorbError::spilling(&self.folder, source)
    }
}

impl Input {
    /// An estimate of the bytes of raw objects whose events come, leave or are decided again.
    fn changed_bytes(&self) -> usize {
        // The log does not know the bytes of the events that leave or are decided again.
        let bytes = match self.again.is_none() && self.leaving.is_empty() {
            true => self.objects.iter().map(|object| object.found.size).sum(),
            false => u64::MAX,
        };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// The places of the stored events that leave or are decided again.
    fn origins(&self, settings: &Settings) -> Origins {
        let mut wanted = Spans::none(&self.slices);
        let leaving = self.leaving.iter();
        for entry in leaving.filter_map(|name| self.known.objects.get(name)) {
            if entry.events > 0 {
                // Format 1 of the log has no times of raw objects.
                let (first, last) = entry.times.unwrap_or((i64::MIN, i64::MAX));
                wanted.want(&self.slices, first, last);
            }
        }
        let again = self.again.map(|dates| {
            let unit = settings.unit();
            let (first, last) = settings.slicing.times(dates.from, dates.to, unit);
            // At the time at which a rule begins or ends to concern events, a chain falls apart, or two chains
            // become one. The part of such a chain beyond this time begins within one window of it.
            let earlier = self.known.settings.iter().flat_map(|known| &known.rules);
            let earlier = earlier.map(|rule| rule.within_ms);
            let rules = settings.source.rules.iter().map(|rule| rule.within_ms);
            let widest_ms = rules.chain(earlier).max().unwrap_or(0);
            let widest = widest_ms.saturating_mul(unit.per_second() / 1_000);
            (first.saturating_sub(widest), last.saturating_add(widest))
        });
        if let Some((first, last)) = again {
            wanted.want(&self.slices, first, last);
        }
        Origins {
            spans: wanted.beyond(&Spans::none(&self.slices)),
            again,
        }
    }

    fn lost_of(&self, table: &str) -> impl Iterator<Item = &File> {
        let lost = self.lost.iter();
        lost.filter(move |file| file.entry.table == table)
    }
}
