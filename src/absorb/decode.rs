//! Raw objects → decoded events, the narrow rows of each rule, rejects, and counts.
//!
//! ```text
//! Arrivals ──▶ worker: decode ─┬─▶ wide rows ────▶ Collector, one a worker ──▶ runs in the order of events
//!              one a thread    ├─▶ narrow rows ──▶ Sorter, one a rule and part, shared by all workers
//!                              ├─▶ keys, times ──▶ KeyFilter and Spans: which stored events are concerned
//!                              └─▶ rejects ──────▶ Collector
//! ```
//!
//! Decoded events are spilled once, in order, and read back once when files are written. This is cheaper than
//! decoding twice, and no raw object is downloaded twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{
    Int64Type, Schema, SchemaRef, TimestampMicrosecondType, TimestampMillisecondType,
};

use super::fetch::{Arrivals, Arrived};
use super::search::Search;
use super::slices::{Slices, Spans};
use super::{AbsorbError, Noticed, Settings};
use crate::dedup::{EventId, Fingerprint, Keys, Places, Sorter, from_sortable, part_of, sortable};
use crate::event::{RAW_OBJECT, RAW_RECORD};
use crate::progress::{Happened, Progress};
use crate::publish::{Collected, Collector, Keyed, Words, WriteError};
use crate::raw::{Decoded, Decoder, ObjectCounts, PieceError, RawObject, Reject};
use crate::store::{StoreError, StoreErrorKind};
use crate::time::TimeUnit;

/// Rows `[key, key, sortable time, id]` by rule and by part. The rows of one part may lie in several sorters.
pub type NarrowRows = Vec<Vec<Vec<Sorter<4>>>>;

/// A raw object to be read.
pub struct RankedObject {
    pub found: RawObject,
    /// Its rank among the names of all raw objects.
    pub rank: u32,
}

/// The counts of one raw object that was decoded.
pub struct DecodedObject {
    /// The index of the object among the objects to read.
    index: u32,
    pub counts: ObjectCounts,
    /// The ETag of the content that was read.
    pub etag: Option<String>,
    /// The first and the last event time; `None` if the object has no event.
    pub times: Option<(i64, i64)>,
}

/// Everything that was decoded from the raw objects of one commit.
pub struct DecodedObjects {
    /// The raw objects, in the order in which they were to be read.
    pub objects: Vec<DecodedObject>,
    /// Runs of wide rows.
    pub events: Collected,
    pub rejects: Collected,
    pub narrow: NarrowRows,
    /// For each rule, the spans of stored events around the new events.
    pub wanted: Vec<Spans>,
    /// The number of new events of each place.
    pub places: BTreeMap<u64, Events>,
    /// The number of new rejects of each place.
    pub reject_places: BTreeMap<u64, i64>,
    pub noticed: Noticed,
}

/// A number of events, and which ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Events {
    pub count: i64,
    /// The wrapping sum of a hash of the time and the id of each event. Zero where nothing is compared.
    pub sum: u64,
}

impl Events {
    /// Adds other events.
    pub fn add(&mut self, other: Self) {
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// Adds the event with this sortable time and this id.
    pub fn note(&mut self, time: u64, id: u64) {
        self.add(Self {
            count: 1,
            sum: hash_of(time, id),
        });
    }
}

/// The finalizer of splitmix64 over both numbers: sums of plain numbers would often be equal.
const fn hash_of(time: u64, id: u64) -> u64 {
    const fn mix(mut bits: u64) -> u64 {
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
    mix(mix(time.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ id)
}

/// The values that all workers of one source share.
struct Shared<'a> {
    settings: &'a Settings,
    objects: &'a [RankedObject],
    slices: &'a Slices,
    search: &'a Search,
    progress: &'a Progress,
    /// The words of events, and the words of rejects.
    words: [Words; 2],
    /// The sorters of narrow rows, by rule and by part.
    narrow: Vec<Vec<Mutex<Sorter<4>>>>,
    /// Whether a worker has failed. The other workers stop then.
    failed: AtomicBool,
}

/// Everything that one worker has gathered.
struct Gathered {
    objects: Vec<DecodedObject>,
    events: Collected,
    rejects: Collected,
    wanted: Vec<Spans>,
    places: BTreeMap<u64, Events>,
    reject_places: BTreeMap<u64, i64>,
    noticed: Noticed,
}

/// Decodes raw objects as they arrive, on all threads. Notes the keys of events in `search`.
///
/// # Errors
/// A raw object that cannot be read, a rule that fails on a value, a full disk.
pub fn decode(
    settings: &Settings,
    objects: &[RankedObject],
    slices: &Slices,
    search: &Search,
    arrivals: &Arrivals,
    progress: &Progress,
) -> Result<DecodedObjects, AbsorbError> {
    let threads = settings.threads;
    let sorter = || Mutex::new(Sorter::new(&settings.folder, settings.shares.sorter));
    let parts = || (0..threads).map(|_| sorter()).collect();
    let shared = Shared {
        settings,
        objects,
        slices,
        search,
        progress,
        words: [settings.shares.words, settings.shares.words / 16]
            .map(|memory| Words::new(memory, threads)),
        narrow: settings.source.rules.iter().map(|_| parts()).collect(),
        failed: AtomicBool::new(false),
    };
    let gathered: Vec<Result<Gathered, AbsorbError>> = std::thread::scope(|scope| {
        let work = || {
            let gathered = Worker::new(&shared).and_then(|worker| worker.work(arrivals));
            if gathered.is_err() {
                shared.failed.store(true, Ordering::Relaxed);
            }
            gathered
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let died = |_| Err(AbsorbError::Defect("a decoder died".to_owned()));
        let workers = workers.into_iter();
        workers
            .map(|worker| worker.join().unwrap_or_else(died))
            .collect()
    });
    let mut all = DecodedObjects {
        objects: Vec::new(),
        events: Collected::default(),
        rejects: Collected::default(),
        narrow: Vec::new(),
        wanted: vec![Spans::none(slices); settings.source.rules.len()],
        places: BTreeMap::new(),
        reject_places: BTreeMap::new(),
        noticed: Noticed::default(),
    };
    for one in gathered {
        all.add(one?);
    }
    all.objects.sort_by_key(|object| object.index);
    let into_inner = |sorter: Mutex<_>| sorter.into_inner().unwrap_or_else(PoisonError::into_inner);
    let rules = shared.narrow.into_iter();
    let parts = rules.map(|parts| parts.into_iter().map(|part| vec![into_inner(part)]));
    all.narrow = parts.map(Iterator::collect).collect();
    Ok(all)
}

impl DecodedObjects {
    fn add(&mut self, one: Gathered) {
        self.objects.extend(one.objects);
        self.events.append(one.events);
        self.rejects.append(one.rejects);
        self.noticed.add(one.noticed);
        for (all, one) in self.wanted.iter_mut().zip(&one.wanted) {
            all.add(one);
        }
        for (place, events) in one.places {
            self.places.entry(place).or_default().add(events);
        }
        for (place, count) in one.reject_places {
            *self.reject_places.entry(place).or_default() += count;
        }
    }
}

/// One thread that decodes.
struct Worker<'a> {
    shared: &'a Shared<'a>,
    decoder: Decoder,
    keys: Keys,
    rows: WorkerRows<'a>,
}

/// The part of a worker that takes the decoded rows.
struct WorkerRows<'a> {
    shared: &'a Shared<'a>,
    events: Collector,
    rejects: Collector,
    /// Narrow rows of one batch, by rule and part.
    buffers: Vec<Vec<Vec<[u64; 4]>>>,
    /// Keys and times of one batch, by rule.
    noted: Vec<Vec<(Fingerprint, u64)>>,
    wanted: Vec<Spans>,
    places: Places,
    arrival_places: Places,
    seen: BTreeMap<u64, Events>,
    seen_rejects: BTreeMap<u64, i64>,
    /// The first and the last event time of the object that is being read.
    times: Option<(i64, i64)>,
    noticed: Noticed,
    time_column: usize,
    record_column: usize,
    /// The indices of the columns of a wide row.
    row_columns: Vec<usize>,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared<'a>) -> Result<Self, AbsorbError> {
        let settings = shared.settings;
        let (source, memory) = (&settings.source, settings.shares.collector);
        let decoder = Decoder::new(&source.decode, &settings.shares.decoding);
        let schema = decoder.schema();
        let rules = source.rules.len();
        let collector = |memory, words| Collector::new(&settings.folder, memory, words);
        let [of_events, of_rejects] = &shared.words;
        let rows = WorkerRows {
            shared,
            events: collector(memory, of_events),
            rejects: collector(memory / 4, of_rejects),
            buffers: vec![vec![Vec::new(); settings.threads]; rules],
            noted: vec![Vec::new(); rules],
            wanted: vec![Spans::none(shared.slices); rules],
            places: settings.places(),
            arrival_places: settings.arrival_places(),
            seen: BTreeMap::new(),
            seen_rejects: BTreeMap::new(),
            times: None,
            noticed: Noticed::default(),
            time_column: index_of(&schema, &source.decode.event_time)?,
            record_column: index_of(&schema, RAW_RECORD)?,
            row_columns: settings.row_columns(),
        };
        Ok(Self {
            shared,
            decoder,
            keys: settings.keys(0..rules, &schema)?,
            rows,
        })
    }

    /// Decodes objects until there are none left.
    fn work(mut self, arrivals: &Arrivals) -> Result<Gathered, AbsorbError> {
        let mut objects = Vec::new();
        while !self.shared.failed.load(Ordering::Relaxed) {
            let Some(arrived) = arrivals.next() else {
                break;
            };
            let Some(object) = self.shared.objects.get(arrived.index as usize) else {
                break;
            };
            objects.push(self.read(object, arrived)?);
        }
        let mut rows = self.rows;
        rows.noticed.keys(self.keys.counts());
        Ok(Gathered {
            objects,
            events: rows.events.finish()?,
            rejects: rows.rejects.finish()?,
            wanted: rows.wanted,
            places: rows.seen,
            reject_places: rows.seen_rejects,
            noticed: rows.noticed,
        })
    }

    fn read(
        &mut self,
        object: &RankedObject,
        mut arrived: Arrived,
    ) -> Result<DecodedObject, AbsorbError> {
        let found = &object.found;
        let (rows, keys) = (&mut self.rows, &mut self.keys);
        let mut take = |decoded| -> Result<(), PieceError> {
            let taken = match decoded {
                Decoded::Events(batch) => rows.take_events(object, keys, &batch),
                Decoded::Rejects(rejects) => rows.take_rejects(object, &rejects),
            };
            Ok(taken?)
        };
        let pieces = &mut arrived.pieces;
        let read = self.decoder.read(found.arrival_ms, pieces, &mut take);
        let counts = read.map_err(|error| self.failing(found, error))?;
        self.shared.progress.tell(Happened::ObjectRead {
            bytes: counts.bytes,
            records: counts.records,
        });
        Ok(DecodedObject {
            index: arrived.index,
            counts,
            etag: arrived.etag,
            times: self.rows.times.take(),
        })
    }

    /// The error of an object that could not be read.
    fn failing(&self, found: &RawObject, error: PieceError) -> AbsorbError {
        let error = match error.downcast::<AbsorbError>() {
            Ok(error) => return *error,
            Err(error) => error,
        };
        match error.downcast::<StoreError>() {
            Ok(error) if error.kind() == StoreErrorKind::NotFound => AbsorbError::Gone {
                name: self.shared.settings.source.name.clone(),
                object: found.identity.to_string(),
            },
            Ok(error) => AbsorbError::Store(*error),
            Err(error) => AbsorbError::Defect(error.to_string()),
        }
    }
}

impl WorkerRows<'_> {
    fn take_events(
        &mut self,
        object: &RankedObject,
        keys: &mut Keys,
        batch: &RecordBatch,
    ) -> Result<(), AbsorbError> {
        let found = &object.found;
        let times = self.times_of(batch);
        let records = batch
            .column(self.record_column)
            .as_primitive::<Int64Type>()
            .values();
        let mut numbers = records.iter();
        if let Some(beyond) = numbers.find(|record| u32::try_from(**record).is_err()) {
            return Err(too_many_records(found, *beyond));
        }
        self.noticed.events(&found.identity, records, batch);
        let id = |record: &i64| EventId::new(object.rank, (*record & 0xffff_ffff) as u32).0;
        let ids: Vec<u64> = records.iter().map(id).collect();
        self.take_keys(found, keys, batch, &times, &ids)?;
        let place = |time: &u64| self.places.of(from_sortable(*time));
        let places = times.iter().map(place);
        let keys = places.zip(&times).zip(&ids);
        let keys: Vec<_> = keys
            .map(|((place, time), id)| [place, *time, *id])
            .collect();
        for events in keys.chunk_by(|a, b| a[0] == b[0]) {
            let Some([place, ..]) = events.first() else {
                continue;
            };
            let seen = self.seen.entry(*place).or_default();
            match self.shared.settings.compare {
                true => events
                    .iter()
                    .for_each(|[_, time, id]| seen.note(*time, *id)),
                false => seen.count += (events.len() as u64).cast_signed(),
            }
        }
        let batch = batch.project(&self.row_columns).map_err(WriteError::from)?;
        self.events.push(Keyed::new(batch, keys))?;
        Ok(())
    }

    /// The event times of a batch in their sortable form. They also widen the span of times of the object.
    fn times_of(&mut self, batch: &RecordBatch) -> Vec<u64> {
        let column = batch.column(self.time_column);
        let times = match self.shared.settings.unit() {
            TimeUnit::Ms => column.as_primitive::<TimestampMillisecondType>().values(),
            TimeUnit::Us => column.as_primitive::<TimestampMicrosecondType>().values(),
        };
        for time in times {
            let (first, last) = self.times.get_or_insert((*time, *time));
            *first = *time.min(first);
            *last = *time.max(last);
        }
        times.iter().map(|time| sortable(*time)).collect()
    }

    /// Makes the narrow rows of a batch, and notes the keys where there are stored events.
    fn take_keys(
        &mut self,
        found: &RawObject,
        keys: &mut Keys,
        batch: &RecordBatch,
        times: &[u64],
        ids: &[u64],
    ) -> Result<(), AbsorbError> {
        let Shared {
            settings,
            slices,
            search,
            narrow,
            ..
        } = self.shared;
        let parts = settings.threads;
        let searching = !slices.is_empty();
        let (buffers, noted) = (&mut self.buffers, &mut self.noted);
        // Without this check, an event that no rule has seen would be kept silently.
        let mut unseen = false;
        keys.each(batch, Some(times), |rule, row, key| {
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
            name: settings.source.name.clone(),
            found_in: format!("raw object {}", found.identity),
            error: Box::new(error),
        })?;
        if unseen {
            let object = &found.identity;
            let what = format!("a rule has not seen an event of raw object {object}");
            return Err(AbsorbError::Defect(what));
        }
        for (rule, (noted, wanted)) in noted.iter_mut().zip(&mut self.wanted).enumerate() {
            search.note(rule, slices, wanted, noted)?;
            noted.clear();
        }
        for (sorters, buffers) in narrow.iter().zip(buffers) {
            for (sorter, buffer) in sorters.iter().zip(buffers) {
                let mut sorter = sorter.lock().unwrap_or_else(PoisonError::into_inner);
                let taken = sorter.extend(buffer);
                taken.map_err(|source| settings.spilling(source))?;
                buffer.clear();
            }
        }
        Ok(())
    }

    fn take_rejects(
        &mut self,
        object: &RankedObject,
        rejects: &[Reject],
    ) -> Result<(), AbsorbError> {
        let found = &object.found;
        self.noticed.rejects(&found.identity, rejects);
        let place = self.arrival_places.of(found.arrival_ms);
        *self.seen_rejects.entry(place).or_default() += (rejects.len() as u64).cast_signed();
        let keys = rejects.iter().map(|reject| {
            let record = u32::try_from(reject.raw_record);
            let record =
                record.map_err(|_| too_many_records(found, reject.raw_record.cast_signed()))?;
            Ok([place, 0, EventId::new(object.rank, record).0])
        });
        let keys = keys.collect::<Result<_, AbsorbError>>()?;
        self.rejects.push(Keyed::new(reject_rows(rejects)?, keys))?;
        Ok(())
    }
}

/// The columns of rejects, without the columns that are in their keys.
fn reject_rows(rejects: &[Reject]) -> Result<RecordBatch, AbsorbError> {
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
    RecordBatch::try_new(reject_schema(), columns)
        .map_err(|error| AbsorbError::Defect(error.to_string()))
}

/// The schema of rejects, without the columns that are in their keys.
pub fn reject_schema() -> SchemaRef {
    let own = crate::catalog::reject_fields().into_iter();
    let own: Vec<_> = own
        .filter(|field| ![RAW_OBJECT, RAW_RECORD].contains(&field.name().as_str()))
        .collect();
    Arc::new(Schema::new(own))
}

/// The index of a column that every batch of decoded events has.
fn index_of(schema: &Schema, column: &str) -> Result<usize, AbsorbError> {
    let found = schema.index_of(column);
    found.map_err(|_| AbsorbError::Defect(format!("decoded events have no column {column}")))
}

/// The error of a record whose number does not fit the 32 bits that the id of an event has for it.
fn too_many_records(found: &RawObject, record: i64) -> AbsorbError {
    AbsorbError::Defect(format!(
        "raw object {} has a record {record}, and rawmart numbers {} records of one at most",
        found.identity,
        u32::MAX
    ))
}
