//! One commit's worth of one source: what changes → staged data files.
//!
//! ```text
//! raw objects to read, ranked by name ──▶ feed: a few downloads ahead
//!                                     │ one object at a time to each worker
//!                     worker: decode ─┼─▶ wide batches ──▶ Collector ───────────────────┐
//!                                     ├─▶ narrow rows ──▶ affected: the stored events   │
//!                                     │        of D ──▶ verdicts ──▶ what changed       │
//!                                     │                    stored rows of the changed   │
//!                                     │                    slices, whole ───────────────┤
//!                                     └─▶ rejects ───────▶ Collector                    ▼
//!                                                              publish::write ──▶ files of
//!                                                              the slices that changed
//!                                                                     │ each when it is whole
//!                                                              publish::stage
//! ```
//!
//! Decoded events are spilled once, sorted by time, and read back once for writing: cheaper than
//! decoding twice, and no raw object is downloaded twice.

mod affected;
mod error;
mod memory;
mod noticed;
mod rejects;
mod spill;
mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{
    Int64Type, Schema, SchemaRef, TimestampMicrosecondType, TimestampMillisecondType,
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::catalog::{SourceTables, TableDefinition};
use crate::config::{Job, Source};
use crate::dedup::{
    Dropped, EventId, Fingerprint, Hashing, Keys, Places, Sorted, Sorter, Standing, decide,
    part_of, sortable,
};
use crate::event::{EXTRA, PartitionBy, RAW_OBJECT, RAW_RECORD, Slicing};
use crate::lake::Proof;
use crate::ledger::{Balance, Dates, File, ObjectEntry, Sha256, SourceState, State};
use crate::progress::{Happened, Progress};
use crate::publish::{
    Collected, Collector, FileSettings, Finished, KEPT, Keyed, Staged, Tables, Words, WriteError,
};
use crate::raw::{
    Decoded, Decoder, Found, ObjectCounts, PieceError, Pieces, Refill, RefillError, Reject, Roots,
};
use crate::store::{Store, StoreError, StoreErrorKind};
use crate::time::TimeUnit;
use affected::{Finder, LEAVES, Search};
pub use error::AbsorbError;
use memory::Shares;
pub use noticed::{Noticed, NullColumn, RejectSample, RejectsOf};
pub use rejects::{Incomplete, IncompleteObject};
pub use spill::SpillFolder;
use stored::{Fill, Reach, Slices, Span, Stored, place};

/// One commit's worth of one source.
pub struct Work<'a> {
    pub source: &'a Source,
    pub roots: &'a Roots,
    pub tables: &'a SourceTables,
    /// Raw objects to read, in order of their identities.
    pub read: Vec<Found>,
    /// Absorbed raw objects whose events are taken out.
    pub leaving: BTreeSet<String>,
    /// Event dates that are decided again.
    pub again: Option<Dates>,
    /// Columns that are taken out of the `extra` of events of these dates.
    pub fill: BTreeSet<String>,
    /// The tables are made of `read` alone, whatever is stored.
    pub anew: bool,
    /// Data files that cannot be read and that the state does not name. All of their rows are of raw
    /// objects that leave and are read.
    pub lost: Vec<File>,
    /// Proves the data files that are read.
    pub proof: Proof,
    /// Hashes the keys of this run.
    pub hashing: Hashing,
}

/// What absorbing gave.
pub struct Absorbed {
    pub objects: Vec<ObjectEntry>,
    /// The change of the counts.
    pub balance: Balance,
    /// Values that became null under `on_type_error = "null"`, by column.
    pub nulled: BTreeMap<String, u64>,
    pub incomplete: Incomplete,
    /// Bytes of data files that were read.
    pub stored_bytes: u64,
    /// Slices that changed, by why.
    pub slices: BTreeMap<WhySlice, u64>,
    pub noticed: Noticed,
}

/// Why a slice changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhySlice {
    /// Events came, and none were there.
    NewEvents,
    /// Events came to those that are there.
    MoreEvents,
    /// Events of raw objects that are taken out or replaced left, and none came.
    EventsLeft,
    /// Events left, and others came.
    EventsReplaced,
    /// A chain of duplicates reaches into it, or its events were decided again.
    Verdicts,
    /// Columns that came later were taken out of `extra`.
    ColumnsFilled,
}

/// Reads the raw objects, decides, writes the files of the slices that change into `folder`, and stages
/// them for the next commit of `state` by `run`.
///
/// # Errors
/// An object that cannot be read, too many rejects, a rule that fails on a value, a full disk, counts
/// that do not balance, a lake that does not answer. Some files may be staged by then.
pub async fn absorb(
    job: &Job,
    lake: &Store,
    work: Work<'_>,
    state: &State,
    run: &str,
    folder: &Path,
    progress: &Progress,
) -> Result<(Absorbed, Staged), AbsorbError> {
    let Work { source, roots, .. } = work;
    let threads = job.threads.max(1);
    let known = state.sources.get(&source.name).cloned().unwrap_or_default();
    let slices = match work.anew {
        true => Slices::default(),
        false => Slices::new(source, state)?,
    };
    let shares = Shares::new(job, source.rules.len(), !slices.is_empty());
    if let Some(name) = work
        .leaving
        .iter()
        .find(|name| known.objects.get(name).is_none())
    {
        return Err(AbsorbError::Defect(format!(
            "raw object {name} is to be taken out and was never absorbed"
        )));
    }
    let objects = names(&work, &known);
    let rules: Vec<String> = {
        let configured = source.rules.iter().map(|rule| rule.name.clone());
        let earlier = known.balance.duplicates.keys();
        let earlier = earlier.filter(|name| source.rules.iter().all(|rule| rule.name != **name));
        configured.chain(earlier.cloned()).collect()
    };
    let mut stored = Stored {
        lake: lake.clone(),
        proof: work.proof,
        runtime: tokio::runtime::Handle::current(),
        ahead: shares.ahead,
        event_time: Some(source.decode.event_time.clone()),
        unit: source.decode.unit,
        objects: Arc::new(objects),
        rules: Arc::new(rules),
        leaving: Arc::default(),
        read: Arc::default(),
    };
    let ranked = |name: &str| {
        let rank = stored.rank(name);
        rank.ok_or_else(|| AbsorbError::Defect(format!("raw object {name} has no rank")))
    };
    let leaving = work.leaving.iter().map(|name| ranked(name));
    let leaving = leaving.collect::<Result<_, _>>()?;
    let ranks = work.read.iter().map(|found| ranked(&found.identity));
    let ranks = ranks.collect::<Result<_, _>>()?;
    stored.leaving = Arc::new(leaving);
    let (sender, receiver) = mpsc::channel::<Fed>(1);
    let (finished, mut to_stage) = mpsc::unbounded_channel::<Finished>();
    let (commit, in_flight) = (state.last + 1, shares.in_flight);
    // Of events that leave or are decided again the log does not know the bytes.
    let new = match work.again.is_none() && work.leaving.is_empty() {
        true => work.read.iter().map(|found| found.size).sum(),
        false => u64::MAX,
    };
    let new = usize::try_from(new).unwrap_or(usize::MAX);
    let scan = Scan {
        job: job.clone(),
        source: source.clone(),
        schema: Decoder::new(&source.decode, &shares.decoding).schema(),
        ranks,
        objects: work.read.clone(),
        slicing: job.slicing(source),
        hashing: work.hashing,
        folder: folder.to_owned(),
        tables: [
            work.tables.events.clone(),
            work.tables.duplicates.clone(),
            work.tables.rejects.clone(),
        ],
        commit,
        progress: progress.clone(),
        finished,
        fed: Mutex::new(receiver),
        narrow: source
            .rules
            .iter()
            .map(|_| {
                let sorter = || Mutex::new(Sorter::new(folder, shares.sorter));
                (0..threads).map(|_| sorter()).collect()
            })
            .collect(),
        search: Search::new(source, slices, shares.filters, new),
        stored,
        old: match work.anew {
            true => BTreeMap::new(),
            false => old_files(work.tables, state)?,
        },
        replaced: match work.anew {
            true => old_files(work.tables, state)?,
            false => BTreeMap::new(),
        },
        leaving: work.leaving,
        again: work.again,
        fill: work.fill,
        lost: work.lost,
        known,
        anew: work.anew,
        shares,
        failed: AtomicBool::new(false),
    };
    let feeding = feed(roots, &work.read, threads, scan.shares.whole, sender);
    let stopped = Arc::new(AtomicBool::new(false));
    let has_stopped = Arc::clone(&stopped);
    let computing = tokio::task::spawn_blocking(move || {
        let absorbed = scan.run();
        stopped.store(absorbed.is_err(), Ordering::Relaxed);
        absorbed
    });
    // Gone when staging has failed: then writing need not go on. Nor need what waits be staged when that has
    // failed.
    let to_stage = stream::poll_fn(move |context| match has_stopped.load(Ordering::Relaxed) {
        true => Poll::Ready(None),
        false => to_stage.poll_recv(context),
    });
    let staging = crate::publish::stage(lake, commit, run, to_stage, in_flight);
    let ((), absorbed, staged) = tokio::join!(feeding, computing, staging);
    let absorbed = absorbed.map_err(|_| AbsorbError::Defect("a worker died".to_owned()))?;
    match (absorbed, staged) {
        // Where staging fails, writing does because of it.
        (Ok(_) | Err(AbsorbError::Write(WriteError::NotStaged)), Err(error)) => Err(error.into()),
        (absorbed, staged) => Ok((absorbed?, staged?)),
    }
}

/// The names of all raw objects whose events may meet, sorted as bytes: their index is their rank.
fn names(work: &Work<'_>, known: &SourceState) -> StringArray {
    let read = work.read.iter().map(|found| &*found.identity);
    if work.anew {
        return StringArray::from_iter_values(read);
    }
    // Both are in the order of their bytes.
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

/// The data files that have rows, by table and place.
fn old_files(
    tables: &SourceTables,
    state: &State,
) -> Result<BTreeMap<(String, u64), File>, AbsorbError> {
    let tables = tables.all();
    let files = tables.iter().flat_map(|table| state.table(&table.name));
    files
        .filter(|file| file.entry.rows > 0)
        .map(|file| Ok(((file.entry.table.clone(), place(file)?), file.clone())))
        .collect()
}

/// An object handed to a worker.
struct Fed {
    index: u32,
    pieces: Download,
    /// Of the content that is read: another than the listing said if the object was replaced since.
    etag: Option<String>,
}

/// The stored bytes of an object.
enum Download {
    Whole(std::vec::IntoIter<Bytes>),
    Streamed(mpsc::Receiver<Result<Bytes, StoreError>>),
    Failed(Option<PieceError>),
}

impl Pieces for Download {
    fn next(&mut self) -> Result<Option<Bytes>, PieceError> {
        match self {
            Self::Whole(pieces) => Ok(pieces.next()),
            Self::Streamed(pieces) => Ok(pieces.blocking_recv().transpose()?),
            Self::Failed(error) => match error.take() {
                Some(error) => Err(error),
                None => Ok(None),
            },
        }
    }
}

/// Downloads objects in order, a few ahead of the workers.
async fn feed(roots: &Roots, objects: &[Found], threads: usize, whole: u64, to: mpsc::Sender<Fed>) {
    let mut downloads = futures::stream::iter((0u32..).zip(objects))
        .map(|(index, found)| async move {
            let (pieces, etag) = download(roots, found, whole).await;
            Fed {
                index,
                pieces,
                etag,
            }
        })
        .buffered(2 * threads);
    while let Some(fed) = downloads.next().await {
        if to.send(fed).await.is_err() {
            // The workers have stopped, because one of them failed.
            return;
        }
    }
}

async fn download(roots: &Roots, found: &Found, whole: u64) -> (Download, Option<String>) {
    let failed = |error: PieceError| (Download::Failed(Some(error)), None);
    // A found object was listed under one of the roots.
    let Some(store) = roots.stores.get(found.root as usize) else {
        return failed("its root is not known".into());
    };
    let (object, mut stream) = match store.get(found.key()).await {
        Ok(opened) => opened,
        Err(error) => return failed(error.into()),
    };
    let etag = object.etag;
    // It may have grown since it was listed.
    if object.size.max(found.size) <= whole {
        let mut pieces = Vec::new();
        while let Some(piece) = stream.next().await {
            match piece {
                Ok(piece) => pieces.push(piece),
                Err(error) => return failed(error.into()),
            }
        }
        return (Download::Whole(pieces.into_iter()), etag);
    }
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Some(piece) = stream.next().await {
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    (Download::Streamed(receiver), etag)
}

/// The blocking half of absorbing: everything that computes.
struct Scan {
    job: Job,
    source: Source,
    /// Of decoded events.
    schema: SchemaRef,
    objects: Vec<Found>,
    /// Of `objects` among all names.
    ranks: Vec<u32>,
    slicing: Slicing,
    hashing: Hashing,
    folder: std::path::PathBuf,
    tables: [TableDefinition; 3],
    commit: u64,
    progress: Progress,
    /// Files that are whole go there to be staged.
    finished: mpsc::UnboundedSender<Finished>,
    fed: Mutex<mpsc::Receiver<Fed>>,
    shares: Shares,
    /// Narrow rows by rule and part, of all workers.
    narrow: Vec<Vec<Mutex<Sorter<4>>>>,
    search: Search,
    stored: Stored,
    /// Stored files with rows that may change, by table and place.
    old: BTreeMap<(String, u64), File>,
    /// Stored files that all give way.
    replaced: BTreeMap<(String, u64), File>,
    leaving: BTreeSet<String>,
    again: Option<Dates>,
    fill: BTreeSet<String>,
    lost: Vec<File>,
    known: SourceState,
    anew: bool,
    /// A worker failed: the others need not go on.
    failed: AtomicBool,
}

/// What was found in one raw object.
struct Read {
    /// Among the objects to read.
    index: u32,
    counts: ObjectCounts,
    etag: Option<String>,
    /// First and last event time.
    times: Option<(i64, i64)>,
}

/// What one worker has gathered.
#[derive(Default)]
struct Gathered {
    counts: Vec<Read>,
    events: Collected,
    rejects: Collected,
    /// Events and rejects of each place.
    places: BTreeMap<u64, i64>,
    reject_places: BTreeMap<u64, i64>,
    noticed: Noticed,
}

impl Scan {
    fn run(self) -> Result<Absorbed, AbsorbError> {
        let threads = self.job.threads.max(1);
        let words = Words::new(self.shares.words, threads);
        let of_rejects = Words::new(self.shares.words / 16, threads);
        let gathered: Vec<Result<Gathered, AbsorbError>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| {
                        let gathered = self.work(threads, &words, &of_rejects);
                        if gathered.is_err() {
                            self.failed.store(true, Ordering::Relaxed);
                        }
                        gathered
                    })
                })
                .collect();
            workers
                .into_iter()
                .map(|worker| {
                    worker
                        .join()
                        .unwrap_or_else(|_| Err(AbsorbError::Defect("a decoder died".to_owned())))
                })
                .collect()
        });
        let mut all = Gathered::default();
        for one in gathered {
            let one = one?;
            all.counts.extend(one.counts);
            all.events.append(one.events);
            all.rejects.append(one.rejects);
            all.noticed.add(one.noticed);
            for (place, count) in one.places {
                *all.places.entry(place).or_default() += count;
            }
            for (place, count) in one.reject_places {
                *all.reject_places.entry(place).or_default() += count;
            }
        }
        all.counts.sort_by_key(|read| read.index);
        self.conclude(all)
    }

    /// Decodes objects until there are none left.
    fn work(
        &self,
        threads: usize,
        words: &Words,
        of_rejects: &Words,
    ) -> Result<Gathered, AbsorbError> {
        let mut decoder = Decoder::new(&self.source.decode, &self.shares.decoding);
        let schema = decoder.schema();
        let mut keys = Keys::compile(
            &self.source.rules,
            &schema,
            self.slicing,
            self.source.decode.unit,
            &self.hashing,
        )
        .map_err(|error| AbsorbError::Key {
            name: self.source.name.clone(),
            error: Box::new(error),
        })?;
        let mut worker = Worker {
            scan: self,
            events: Collector::new(&self.folder, self.shares.collector, words),
            rejects: Collector::new(&self.folder, self.shares.collector / 4, of_rejects),
            buffers: self
                .source
                .rules
                .iter()
                .map(|_| vec![Vec::new(); threads])
                .collect(),
            noted: vec![Vec::new(); self.source.rules.len()],
            reaches: vec![Reach::new(&self.search.slices); self.source.rules.len()],
            places: Places::new(self.slicing, self.source.decode.unit),
            arrival_places: Places::new(arrival_slicing(self.slicing), TimeUnit::Ms),
            seen: BTreeMap::new(),
            seen_rejects: BTreeMap::new(),
            times: None,
            noticed: Noticed::default(),
            time_column: index_of(&schema, &self.source.decode.event_time)?,
            record_column: index_of(&schema, RAW_RECORD)?,
            collected: self.collected(),
        };
        let mut counts = Vec::new();
        while !self.failed.load(Ordering::Relaxed) {
            let fed = self
                .fed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .blocking_recv();
            let Some(mut fed) = fed else { break };
            let index = fed.index as usize;
            let (Some(found), Some(rank)) = (self.objects.get(index), self.ranks.get(index)) else {
                break;
            };
            let read = decoder.read(found.arrival_ms, &mut fed.pieces, &mut |decoded| {
                worker
                    .take(*rank, found, &mut keys, decoded)
                    .map_err(Into::into)
            });
            let read = read.map_err(|error| match error.downcast::<AbsorbError>() {
                Ok(error) => *error,
                Err(error) => match error.downcast::<StoreError>() {
                    Ok(error) if error.kind() == StoreErrorKind::NotFound => AbsorbError::Gone {
                        name: self.source.name.clone(),
                        object: found.identity.to_string(),
                    },
                    Ok(error) => AbsorbError::Store(*error),
                    Err(error) => AbsorbError::Defect(error.to_string()),
                },
            })?;
            self.progress.tell(Happened::ObjectRead {
                bytes: read.bytes,
                records: read.records,
            });
            counts.push(Read {
                index: fed.index,
                counts: read,
                etag: fed.etag,
                times: worker.times.take(),
            });
        }
        worker.noticed.keys(keys.counts());
        let mut all = self.search.reaches.lock();
        for (all, one) in all
            .iter_mut()
            .flat_map(|all| all.iter_mut())
            .zip(&worker.reaches)
        {
            all.add(one);
        }
        drop(all);
        Ok(Gathered {
            counts,
            events: worker.events.finish()?,
            rejects: worker.rejects.finish()?,
            places: worker.seen,
            reject_places: worker.seen_rejects,
            noticed: worker.noticed,
        })
    }

    /// Decides, writes what changed, and proves that the counts balance.
    fn conclude(mut self, read: Gathered) -> Result<Absorbed, AbsorbError> {
        let identities = self.objects.iter().map(|found| &*found.identity);
        let counts = read.counts.iter().map(|read| &read.counts);
        rejects::check(&self.source, identities.zip(counts), &read.noticed)?;
        self.progress.tell(Happened::Deciding {
            source: self.source.name.clone(),
        });
        let threads = self.job.threads.max(1);
        let narrow: Vec<Vec<Vec<Sorter<4>>>> = std::mem::take(&mut self.narrow)
            .into_iter()
            .map(|parts| {
                let sorters = parts.into_iter().map(Mutex::into_inner);
                sorters
                    .map(|sorter| vec![sorter.unwrap_or_else(PoisonError::into_inner)])
                    .collect()
            })
            .collect();
        let (origins, again) = self.origins();
        let affected = Finder {
            source: &self.source,
            schema: Arc::clone(&self.schema),
            slicing: self.slicing,
            hashing: self.hashing,
            stored: &self.stored,
            search: &self.search,
            origins,
            again,
            folder: self.folder.clone(),
            threads,
            memory: self.shares.sorter,
        }
        .find(narrow)?;
        let of_stored = affected.objects.iter().map(|rank| {
            let name = self.stored.objects.value(*rank as usize);
            let entry = self.known.objects.get(name);
            let unknown = || format!("raw object {name} has stored events and is not in the log");
            let entry = entry.ok_or_else(|| AbsorbError::Defect(unknown()))?;
            Ok((*rank, entry.records))
        });
        let mut records = of_stored.collect::<Result<BTreeMap<u32, u64>, AbsorbError>>()?;
        for (rank, read) in self.ranks.iter().zip(&read.counts) {
            records.insert(*rank, read.counts.records);
        }
        let ranks = (0u32..).take(self.stored.objects.len());
        let earlier = Dropped::new(ranks.map(|rank| records.get(&rank).copied()));
        let dropped = decide(
            &self.source.rules,
            affected.rows,
            &earlier,
            self.slicing,
            self.source.decode.unit,
            &self.folder,
            self.shares.dropped,
        )
        .map_err(|source| self.spilling(source))?;
        if earlier.met_unknown() {
            let what = "a rule met an event of a raw object that is not in the log";
            return Err(AbsorbError::Defect(what.to_owned()));
        }
        drop(earlier);
        let mut changes = Changes::new(
            &read.places,
            &self.stored.rules,
            Sorter::new(&self.folder, self.shares.dropped),
        );
        changes
            .compare(affected.before, dropped)
            .map_err(|source| self.spilling(source))?;
        self.progress.tell(Happened::Writing {
            source: self.source.name.clone(),
        });
        self.finish(read, changes)
    }

    fn spilling(&self, source: std::io::Error) -> AbsorbError {
        AbsorbError::spilling(&self.folder, source)
    }

    /// Where events lie that leave or are decided again: spans of slices, and the times of the latter.
    fn origins(&self) -> (Vec<Span>, Option<(i64, i64)>) {
        let mut reach = Reach::new(&self.search.slices);
        for name in &self.leaving {
            let Some(entry) = self
                .known
                .objects
                .get(name)
                .filter(|entry| entry.events > 0)
            else {
                continue;
            };
            // Format 1 of the log did not say when.
            let (first, last) = entry.times.unwrap_or((i64::MIN, i64::MAX));
            reach.want(&self.search.slices, first, last);
        }
        let again = self.again.map(|dates| {
            let unit = self.source.decode.unit;
            let (first, last) = self.slicing.times(dates.from, dates.to, unit);
            // Where a rule begins or ends to concern events, chains over that border fall apart or
            // come together: the part that lies beyond begins within a window of it.
            let earlier = self.known.settings.iter().flat_map(|known| &known.rules);
            let earlier = earlier.map(|rule| rule.within_ms);
            let rules = self.source.rules.iter().map(|rule| rule.within_ms);
            let widest_ms = rules.chain(earlier).max().unwrap_or(0);
            let widest = widest_ms.saturating_mul(unit.per_second() / 1_000);
            (first.saturating_sub(widest), last.saturating_add(widest))
        });
        if let Some((first, last)) = again {
            reach.want(&self.search.slices, first, last);
        }
        (reach.take(), again)
    }

    /// Writes the files of the slices that change.
    fn finish(self, read: Gathered, changes: Changes) -> Result<Absorbed, AbsorbError> {
        let [kept, duplicates, rejected] = &self.tables;
        let table = |table: &TableDefinition| (table.name.clone(), Arc::clone(&table.schema));
        let rules = self.stored.rules.iter().map(|name| Some(name.as_str()));
        let mut tables = Tables {
            kept: table(kept),
            duplicates: Some(table(duplicates)),
            objects: Arc::clone(&self.stored.objects),
            rules: Arc::new(rules.collect::<StringArray>()),
            settings: FileSettings {
                compression: self.source.compression,
                event_time: Some(self.source.decode.event_time.clone()),
                bloom_filters: self.source.bloom_filters.clone(),
                commit: self.commit,
                memory: self.shares.row_group,
                threads: self.job.threads,
            },
        };
        // Rows that each table must have in each place that changes.
        let mut expected: BTreeMap<(&str, u64), i64> = BTreeMap::new();
        let old_rows = |name: &str, place: u64| {
            let file = self.old.get(&(name.to_owned(), place));
            file.map_or(0, |file| file.entry.rows.cast_signed())
        };
        let mut slices: BTreeMap<WhySlice, u64> = BTreeMap::new();
        let mut written_anew = BTreeSet::new();
        for (place, change) in &changes.places {
            let (mut was_there, mut changed) = (false, false);
            for (name, (changes, by)) in [
                (&kept.name, change.kept()),
                (&duplicates.name, change.duplicates()),
            ] {
                let old = old_rows(name, *place);
                if changes {
                    expected.insert((name, *place), old + by);
                }
                was_there |= old > 0;
                changed |= changes;
            }
            let left = change.gone_kept + change.gone_dropped > 0;
            let why = match (read.places.contains_key(place), was_there, left) {
                (true, false, _) => WhySlice::NewEvents,
                (true, true, false) => WhySlice::MoreEvents,
                (true, true, true) => WhySlice::EventsReplaced,
                (false, _, true) => WhySlice::EventsLeft,
                (false, _, false) => WhySlice::Verdicts,
            };
            if changed {
                *slices.entry(why).or_default() += 1;
                written_anew.insert(*place);
            }
        }
        let collected = self.schema.project(&self.collected());
        let collected = Arc::new(collected.map_err(WriteError::from)?);
        let mut filled = BTreeSet::new();
        for name in [&kept.name, &duplicates.name] {
            for place in self.to_fill(name, &collected)? {
                expected
                    .entry((name.as_str(), place))
                    .or_insert_with(|| old_rows(name, place));
                filled.insert(place);
            }
        }
        let filled = filled.difference(&written_anew).count() as u64;
        if filled > 0 {
            slices.insert(WhySlice::ColumnsFilled, filled);
        }
        let mut reject_places = read.reject_places.clone();
        let mut arrivals = Places::new(arrival_slicing(self.slicing), TimeUnit::Ms);
        for name in self.leaving.iter().filter(|_| !self.anew) {
            let Some(entry) = self.known.objects.get(name) else {
                continue;
            };
            let rejects: u64 = entry.rejects.values().sum();
            if rejects > 0 {
                *reject_places
                    .entry(arrivals.of(entry.arrival_ms))
                    .or_default() -= rejects.cast_signed();
            }
        }
        for file in self.lost_of(&rejected.name) {
            let rows = file.entry.rows.cast_signed();
            *reject_places.entry(place(file)?).or_default() += rows;
        }
        for (place, by) in &reject_places {
            expected.insert(
                (&rejected.name, *place),
                old_rows(&rejected.name, *place) + by,
            );
        }
        let old_of = |name: &str| -> Vec<(u64, File)> {
            let places = expected.keys().filter(|(table, _)| *table == name);
            let files = places.filter_map(|(_, place)| {
                let file = self.old.get(&(name.to_owned(), *place))?;
                Some((*place, file.clone()))
            });
            files.collect()
        };
        let mut events = read.events;
        for name in [&kept.name, &duplicates.name] {
            let files = old_of(name);
            if !files.is_empty() {
                let stream = self.stored.stream(files, &collected, true, self.filling());
                events.append_stored(stream);
            }
        }
        let mut rejects = read.rejects;
        let files = old_of(&rejected.name);
        if !files.is_empty() {
            let stored = Stored {
                event_time: None,
                ..self.stored.clone()
            };
            rejects.append_stored(stored.stream(files, &reject_schema(), false, None));
        }
        let verdicts = Sorted::merge(vec![changes.verdicts]).map_err(|e| self.spilling(e))?;
        let stage = |file: &Finished| self.finished.send(file.clone()).is_ok();
        let mut files =
            crate::publish::write(events, Some(verdicts), &tables, &self.folder, &stage)?;
        tables.kept = table(rejected);
        tables.duplicates = None;
        tables.settings.event_time = None;
        tables.settings.bloom_filters.clear();
        files.extend(crate::publish::write(
            rejects,
            None,
            &tables,
            &self.folder,
            &stage,
        )?);
        check_rows(&files, &expected)?;
        self.check_lost(&files)?;
        let names = expected
            .keys()
            .map(|(table, place)| ((*table).to_owned(), *place));
        let names: BTreeSet<(String, u64)> = names.chain(self.replaced.keys().cloned()).collect();
        let emptied = self.emptied(&names, &files, &tables.settings)?;
        if !emptied.iter().all(stage) {
            return Err(WriteError::NotStaged.into());
        }
        self.progress.tell(Happened::Staging {
            source: self.source.name.clone(),
        });
        let mut absorbed = self.balance(
            read.counts,
            changes.kept,
            changes.by_rule,
            changes.gone,
            slices,
        )?;
        absorbed.noticed = read.noticed;
        Ok(absorbed)
    }

    /// The decoded columns that are collected: the keys have the others.
    fn collected(&self) -> Vec<usize> {
        let in_key = [RAW_RECORD, &self.source.decode.event_time];
        let fields = self.schema.fields().iter().enumerate();
        let others = fields.filter(|(_, field)| !in_key.contains(&field.name().as_str()));
        others.map(|(i, _)| i).collect()
    }

    /// What takes columns that came later out of `extra`.
    fn filling(&self) -> Option<Fill> {
        let dates = self.again.filter(|_| !self.fill.is_empty())?;
        Some(Fill {
            refill: Refill::new(&self.source.decode, &self.fill),
            dates,
        })
    }

    /// The places of the files of a table in which some row changes when columns are filled. Every value
    /// is looked at before anything is written.
    fn to_fill(&self, table: &str, schema: &SchemaRef) -> Result<Vec<u64>, AbsorbError> {
        let Some(mut fill) = self.filling() else {
            return Ok(Vec::new());
        };
        let fields = schema.fields().iter();
        let fields =
            fields.filter(|field| field.name() == EXTRA || self.fill.contains(field.name()));
        let narrow = Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()));
        let mut places = Vec::new();
        let files = self.old.iter().filter(|((of, _), _)| of.as_str() == table);
        for ((_, place), file) in files {
            if !fill.concerns(file) {
                continue;
            }
            let mut changes = false;
            for block in self.stored.rows(file, &narrow, None, None, true)? {
                let (batch, rows) = block?;
                match fill.refill.fill(&batch) {
                    Ok(filled) => changes |= filled.is_some(),
                    Err(RefillError::Misfit {
                        row,
                        column,
                        kind,
                        value,
                    }) => {
                        let id = rows.get(row).map_or(EventId(0), |row| row.id);
                        let object = self.stored.objects.value(id.object() as usize);
                        return Err(AbsorbError::OnlyRaw {
                            name: self.source.name.clone(),
                            found_in: format!("raw object {object}, record {}", id.record()),
                            why: format!("`{column}` is no {kind}: {value}"),
                        });
                    }
                    Err(error) => return Err(self.stored.unfit(file, &error).into()),
                }
            }
            if changes {
                places.push(*place);
            }
        }
        Ok(places)
    }

    fn lost_of(&self, table: &str) -> impl Iterator<Item = &File> {
        let lost = self.lost.iter();
        lost.filter(move |file| file.entry.table == table)
    }

    /// Every lost file has the rows again that it had.
    fn check_lost(&self, files: &[Finished]) -> Result<(), AbsorbError> {
        for lost in self.lost.iter().map(|file| &file.entry) {
            let same = |file: &&Finished| {
                (&file.table, &file.partition, &file.name)
                    == (&lost.table, &lost.partition, &lost.name)
            };
            let rows = files.iter().find(same).map_or(0, |file| file.rows);
            if rows != lost.rows {
                return Err(AbsorbError::Irreparable {
                    url: self.stored.lake.url_of(&lost.key()),
                    why: format!("it had {} rows, and raw gives {rows}", lost.rows),
                });
            }
        }
        Ok(())
    }

    /// Zero-row files for the slices that had rows and have none now: publishing never deletes.
    fn emptied(
        &self,
        changed: &BTreeSet<(String, u64)>,
        written: &[Finished],
        settings: &FileSettings,
    ) -> Result<Vec<Finished>, AbsorbError> {
        let written: BTreeSet<(&str, &crate::layout::Partition, &str)> = written
            .iter()
            .map(|file| (file.table.as_str(), &file.partition, file.name.as_str()))
            .collect();
        let mut files = Vec::new();
        for slice in changed {
            let Some(old) = self.old.get(slice).or_else(|| self.replaced.get(slice)) else {
                continue;
            };
            let entry = &old.entry;
            let table = self.tables.iter().find(|table| table.name == entry.table);
            let name = (entry.table.as_str(), &entry.partition, entry.name.as_str());
            let (Some(table), false) = (table, written.contains(&name)) else {
                continue;
            };
            files.push(crate::publish::empty_file(
                table,
                entry,
                files.len(),
                settings,
                &self.folder,
            )?);
        }
        Ok(files)
    }

    /// P2 of what was read against what was written, before anything is committed.
    fn balance(
        self,
        counts: Vec<Read>,
        kept: i64,
        by_rule: Vec<i64>,
        gone: i64,
        slices: BTreeMap<WhySlice, u64>,
    ) -> Result<Absorbed, AbsorbError> {
        let mut balance = Balance {
            kept,
            ..Balance::default()
        };
        let mut nulled: BTreeMap<String, u64> = BTreeMap::new();
        let mut incomplete = Incomplete::default();
        let mut objects = Vec::with_capacity(counts.len());
        for (read, found) in counts.into_iter().zip(&self.objects) {
            let Read {
                counts,
                etag,
                times,
                ..
            } = read;
            incomplete.note(&found.identity, &counts);
            for (column, count) in counts.nulled {
                *nulled.entry(column).or_default() += count;
            }
            objects.push(ObjectEntry {
                key: found.identity.to_string(),
                etag,
                size: counts.bytes,
                sha256: Sha256(counts.sha256),
                arrival_ms: found.arrival_ms,
                records: counts.records,
                events: counts.events,
                rejects: counts.rejects,
                times,
            });
        }
        if objects.len() != self.objects.len() {
            return Err(AbsorbError::Unbalanced(format!(
                "{} of {} raw objects were read",
                objects.len(),
                self.objects.len()
            )));
        }
        for object in &objects {
            balance.count(object, 1);
        }
        let mut left = 0;
        for object in self
            .leaving
            .iter()
            .filter_map(|name| self.known.objects.get(name))
        {
            balance.count(&object, -1);
            left += object.events.cast_signed();
        }
        for (rule, count) in self.stored.rules.iter().zip(by_rule) {
            if count != 0 {
                balance.duplicates.insert(rule.clone(), count);
            }
        }
        let [kept_table, duplicates_table, _] = &self.tables;
        let lost = |table: &TableDefinition| -> i64 {
            let files = self.lost_of(&table.name);
            files.map(|file| file.entry.rows.cast_signed()).sum()
        };
        let (lost_kept, lost_duplicates) = (lost(kept_table), lost(duplicates_table));
        if !self.lost.is_empty() {
            // The same events under the same rules: what came is what was lost, rule by rule.
            let came: i64 = balance.duplicates.values().sum();
            if came != lost_duplicates {
                return Err(AbsorbError::Unbalanced(format!(
                    "{came} duplicates came in the place of {lost_duplicates}"
                )));
            }
            balance.duplicates.clear();
            balance.kept -= lost_kept;
        }
        if gone + lost_kept + lost_duplicates != left && !self.anew {
            return Err(AbsorbError::Unbalanced(format!(
                "{gone} stored events were taken out, and the log counted {left} of their raw objects"
            )));
        }
        if self.anew {
            balance.subtract(&self.known.balance);
        }
        if let Some(imbalance) = balance.imbalance() {
            return Err(AbsorbError::Unbalanced(imbalance));
        }
        Ok(Absorbed {
            objects,
            balance,
            nulled,
            incomplete,
            stored_bytes: self.stored.read.load(Ordering::Relaxed),
            slices,
            noticed: Noticed::default(),
        })
    }
}

/// Every file has the rows that it must have.
fn check_rows(
    files: &[Finished],
    expected: &BTreeMap<(&str, u64), i64>,
) -> Result<(), AbsorbError> {
    let mut written: BTreeMap<(&str, u64), i64> = BTreeMap::new();
    for file in files {
        let place = crate::event::Place::of(&file.partition, &file.name);
        let place = place.ok_or_else(|| {
            AbsorbError::Defect(format!("{} of {} has no place", file.name, file.table))
        })?;
        let place = place.sortable();
        *written.entry((&file.table, place)).or_default() += file.rows.cast_signed();
    }
    let slices: BTreeSet<_> = written.keys().chain(expected.keys()).collect();
    for slice in slices {
        let (wrote, counted) = (written.get(slice), expected.get(slice));
        if wrote.unwrap_or(&0) != counted.unwrap_or(&0) {
            let place = crate::event::Place::from_sortable(slice.1).map(|place| {
                let folder = crate::layout::partition_folder(&place.partition());
                format!("{folder}/{}", crate::layout::file_name(place.slice))
            });
            return Err(AbsorbError::Unbalanced(format!(
                "{} rows were written to {}/{}, and {} were counted",
                wrote.unwrap_or(&0),
                slice.0,
                place.as_deref().unwrap_or("no place"),
                counted.unwrap_or(&0)
            )));
        }
    }
    Ok(())
}

/// How the rejects of a lake are dealt to files: by the day of arrival.
const fn arrival_slicing(of_events: Slicing) -> Slicing {
    Slicing {
        by: PartitionBy::Day,
        slice_ms: i64::MAX,
        ..of_events
    }
}

/// What the new verdicts change.
struct Changes {
    places: BTreeMap<u64, Change>,
    /// Verdicts that are not the stored ones.
    verdicts: Sorter<5>,
    kept: i64,
    by_rule: Vec<i64>,
    /// Stored events that leave.
    gone: i64,
}

/// Events of one place.
#[derive(Debug, Default)]
struct Change {
    new_kept: i64,
    new_dropped: i64,
    gone_kept: i64,
    gone_dropped: i64,
    /// Kept events that are duplicates now, and the other way round.
    to_dropped: i64,
    to_kept: i64,
    /// Duplicates of another event or rule than before.
    repointed: i64,
}

impl Change {
    /// Whether the kept events change, and by how many rows.
    fn kept(&self) -> (bool, i64) {
        let changes = [self.new_kept, self.gone_kept, self.to_dropped, self.to_kept];
        let by = self.new_kept - self.gone_kept - self.to_dropped + self.to_kept;
        (changes.iter().any(|count| *count != 0), by)
    }

    fn duplicates(&self) -> (bool, i64) {
        let changes = [
            self.new_dropped,
            self.gone_dropped,
            self.to_dropped,
            self.to_kept,
            self.repointed,
        ];
        let by = self.new_dropped - self.gone_dropped + self.to_dropped - self.to_kept;
        (changes.iter().any(|count| *count != 0), by)
    }
}

impl Changes {
    fn new(places: &BTreeMap<u64, i64>, rules: &[String], verdicts: Sorter<5>) -> Self {
        let new_kept = |count: &i64| Change {
            new_kept: *count,
            ..Change::default()
        };
        Self {
            places: places.iter().map(|(p, n)| (*p, new_kept(n))).collect(),
            verdicts,
            kept: places.values().sum(),
            by_rule: vec![0; rules.len()],
            gone: 0,
        }
    }

    /// Compares what the stored events of D were with the verdicts on D.
    fn compare(&mut self, mut before: Sorted<5>, mut dropped: Sorted<5>) -> std::io::Result<()> {
        loop {
            let was = before.peek().copied();
            let is = dropped.peek().copied();
            let (was, is) = match (was, is) {
                (None, None) => return Ok(()),
                (Some(was), Some(is)) => match was[..3].cmp(&is[..3]) {
                    std::cmp::Ordering::Less => (Some(was), None),
                    std::cmp::Ordering::Greater => (None, Some(is)),
                    // The verdict is on an event that came in the place of this one.
                    std::cmp::Ordering::Equal if was[4] & LEAVES != 0 => (Some(was), None),
                    std::cmp::Ordering::Equal => (Some(was), Some(is)),
                },
                one => one,
            };
            if was.is_some() {
                before.pop()?;
            }
            if is.is_some() {
                dropped.pop()?;
            }
            self.note(was, is)?;
        }
    }

    fn note(&mut self, was: Option<[u64; 5]>, is: Option<[u64; 5]>) -> std::io::Result<()> {
        let Some([place, time, id, ..]) = was.or(is) else {
            return Ok(());
        };
        // A rule that is not counted leaves counts that do not balance.
        let mut count = |rule: u64, by: i64| {
            if let Some(of_rule) = self.by_rule.get_mut(rule as usize) {
                *of_rule += by;
            }
        };
        let old_rule = was.and_then(|[.., standing]| {
            Standing::from_bits(standing & !LEAVES)
                .rule()
                .map(u64::from)
        });
        let leaves = was.is_some_and(|[.., standing]| standing & LEAVES != 0);
        match (was, old_rule, is) {
            (Some(_), None, None) if !leaves => return Ok(()),
            (Some([_, _, _, by, _]), Some(rule), Some([_, _, _, now_by, now_rule]))
                if (by, rule) == (now_by, now_rule) =>
            {
                return Ok(());
            }
            _ => {}
        }
        let change = self.places.entry(place).or_default();
        if leaves {
            self.gone += 1;
            match old_rule {
                Some(rule) => {
                    change.gone_dropped += 1;
                    count(rule, -1);
                }
                None => {
                    change.gone_kept += 1;
                    self.kept -= 1;
                }
            }
            return Ok(());
        }
        if let Some(rule) = old_rule {
            count(rule, -1);
        }
        if let Some([.., rule]) = is {
            count(rule, 1);
        }
        match (was, old_rule, is) {
            (None, _, _) => {
                change.new_dropped += 1;
                change.new_kept -= 1;
                self.kept -= 1;
            }
            (Some(_), None, _) => {
                change.to_dropped += 1;
                self.kept -= 1;
            }
            (Some(_), Some(_), None) => {
                change.to_kept += 1;
                self.kept += 1;
            }
            (Some(_), Some(_), Some(_)) => change.repointed += 1,
        }
        self.verdicts.push(is.unwrap_or([place, time, id, 0, KEPT]))
    }
}

/// What one worker does with what it decodes.
struct Worker<'a> {
    scan: &'a Scan,
    events: Collector,
    rejects: Collector,
    buffers: Vec<Vec<Vec<[u64; 4]>>>,
    places: Places,
    arrival_places: Places,
    seen: BTreeMap<u64, i64>,
    seen_rejects: BTreeMap<u64, i64>,
    /// Keys and times of one batch, by rule.
    noted: Vec<Vec<(Fingerprint, u64)>>,
    reaches: Vec<Reach>,
    /// First and last event time of the object being read.
    times: Option<(i64, i64)>,
    noticed: Noticed,
    time_column: usize,
    record_column: usize,
    collected: Vec<usize>,
}

impl Worker<'_> {
    fn take(
        &mut self,
        rank: u32,
        found: &Found,
        keys: &mut Keys,
        decoded: Decoded,
    ) -> Result<(), AbsorbError> {
        match decoded {
            Decoded::Events(batch) => self.take_events(rank, found, keys, batch),
            Decoded::Rejects(rejects) => self.take_rejects(rank, found, &rejects),
        }
    }

    fn take_events(
        &mut self,
        rank: u32,
        found: &Found,
        keys: &mut Keys,
        batch: RecordBatch,
    ) -> Result<(), AbsorbError> {
        let times: Vec<u64> = match self.scan.source.decode.unit {
            TimeUnit::Ms => batch
                .column(self.time_column)
                .as_primitive::<TimestampMillisecondType>()
                .values(),
            TimeUnit::Us => batch
                .column(self.time_column)
                .as_primitive::<TimestampMicrosecondType>()
                .values(),
        }
        .iter()
        .map(|time| sortable(*time))
        .collect();
        for time in times.iter().copied().map(crate::dedup::from_sortable) {
            let (first, last) = self.times.get_or_insert((time, time));
            *first = time.min(*first);
            *last = time.max(*last);
        }
        let records = batch
            .column(self.record_column)
            .as_primitive::<Int64Type>()
            .values();
        if let Some(beyond) = records
            .iter()
            .find(|record| u32::try_from(**record).is_err())
        {
            return Err(too_many_records(found, *beyond));
        }
        self.noticed.events(&found.identity, records, &batch);
        let ids: Vec<u64> = records
            .iter()
            .map(|record| EventId::new(rank, (*record & 0xffff_ffff) as u32).0)
            .collect();
        let parts = self.scan.job.threads.max(1);
        let searching = !self.scan.search.slices.is_empty();
        let (buffers, noted) = (&mut self.buffers, &mut self.noted);
        // A row that no rule sees would be kept without a word.
        let mut unseen = false;
        keys.each(&batch, Some(&times), |rule, row, key| {
            let buffer = buffers.get_mut(rule);
            let buffer = buffer.and_then(|parts_of| parts_of.get_mut(part_of(key, parts)));
            let (Some(time), Some(id), Some(buffer), Some(noted)) =
                (times.get(row), ids.get(row), buffer, noted.get_mut(rule))
            else {
                unseen = true;
                return;
            };
            buffer.push([key[0], key[1], *time, *id]);
            if searching {
                noted.push((key, *time));
            }
        })
        .map_err(|error| AbsorbError::Rule {
            name: self.scan.source.name.clone(),
            found_in: format!("raw object {}", found.identity),
            error: Box::new(error),
        })?;
        if unseen {
            let what = format!(
                "a rule has not seen an event of raw object {}",
                found.identity
            );
            return Err(AbsorbError::Defect(what));
        }
        for (rule, (noted, reach)) in self.noted.iter_mut().zip(&mut self.reaches).enumerate() {
            self.scan.search.note(rule, reach, noted)?;
            noted.clear();
        }
        for (sorters, buffers) in self.scan.narrow.iter().zip(&mut self.buffers) {
            for (sorter, buffer) in sorters.iter().zip(buffers) {
                sorter
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(buffer)
                    .map_err(|source| self.scan.spilling(source))?;
                buffer.clear();
            }
        }
        let keys = times
            .iter()
            .zip(&ids)
            .map(|(time, id)| {
                [
                    self.places.of(crate::dedup::from_sortable(*time)),
                    *time,
                    *id,
                ]
            })
            .collect::<Vec<_>>();
        let mut last: Option<(u64, i64)> = None;
        for [place, ..] in &keys {
            match &mut last {
                Some((known, count)) if known == place => *count += 1,
                _ => {
                    if let Some((known, count)) = last.replace((*place, 1)) {
                        *self.seen.entry(known).or_default() += count;
                    }
                }
            }
        }
        if let Some((known, count)) = last {
            *self.seen.entry(known).or_default() += count;
        }
        let batch = batch.project(&self.collected).map_err(WriteError::from)?;
        self.events.push(Keyed::new(batch, keys))?;
        Ok(())
    }

    fn take_rejects(
        &mut self,
        rank: u32,
        found: &Found,
        rejects: &[Reject],
    ) -> Result<(), AbsorbError> {
        self.noticed.rejects(&found.identity, rejects);
        let place = self.arrival_places.of(found.arrival_ms);
        *self.seen_rejects.entry(place).or_default() += (rejects.len() as u64).cast_signed();
        let keys = rejects.iter().map(|reject| {
            let record = u32::try_from(reject.raw_record);
            let record =
                record.map_err(|_| too_many_records(found, reject.raw_record.cast_signed()))?;
            Ok([place, 0, EventId::new(rank, record).0])
        });
        let keys = keys.collect::<Result<_, AbsorbError>>()?;
        let number = |value: fn(&Reject) -> u64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(
                rejects.iter().map(|reject| value(reject).cast_signed()),
            ))
        };
        let text = |value: fn(&Reject) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(rejects.iter().map(value)))
        };
        let columns: Vec<ArrayRef> = vec![
            number(|reject| reject.raw_offset),
            number(|reject| reject.raw_bytes),
            text(|reject| reject.reason.name()),
            text(|reject| &reject.detail),
            text(|reject| &reject.raw_text),
        ];
        let batch = RecordBatch::try_new(reject_schema(), columns)
            .map_err(|error| AbsorbError::Defect(error.to_string()))?;
        self.rejects.push(Keyed::new(batch, keys))?;
        Ok(())
    }
}

/// Where a column is that every batch of decoded events has.
fn index_of(schema: &Schema, column: &str) -> Result<usize, AbsorbError> {
    let found = schema.index_of(column);
    found.map_err(|_| AbsorbError::Defect(format!("decoded events have no column {column}")))
}

/// An event's id has 32 bits for its record.
fn too_many_records(found: &Found, record: i64) -> AbsorbError {
    AbsorbError::Defect(format!(
        "raw object {} has a record {record}, and rawmart numbers {} records of one at most",
        found.identity,
        u32::MAX
    ))
}

/// The columns of rejects but for those that their keys have.
fn reject_schema() -> SchemaRef {
    let own = crate::catalog::reject_fields().into_iter();
    let own: Vec<_> = own
        .filter(|field| ![RAW_OBJECT, RAW_RECORD].contains(&field.name().as_str()))
        .collect();
    Arc::new(Schema::new(own))
}
