//! Raw objects of one source → data files on local disk.
//!
//! ```text
//! found objects, ranked by name ──▶ feed: a few downloads ahead
//!                                     │ one object at a time to each worker
//!                     worker: decode ─┼─▶ wide batches ──▶ Collector ──┐
//!                                     ├─▶ narrow rows ───▶ Sorters ──▶ Verdicts
//!                                     └─▶ rejects ───────▶ Collector   │
//!                                                              publish::write ──▶ files
//! ```
//!
//! Decoded events are spilled once, sorted by time, and read back once for writing: cheaper than
//! decoding twice, and no raw object is downloaded twice.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{
    Int64Type, Schema, SchemaRef, TimestampMicrosecondType, TimestampMillisecondType,
};
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;

use super::RunError;
use super::look::ListedSource;
use crate::catalog::{SourceTables, TableDefinition};
use crate::config::{Job, Source};
use crate::dedup::{Dropped, EventId, Keys, Places, Sorter, Verdicts, sortable};
use crate::event::{RAW_RECORD, Slicing, TimeUnit};
use crate::layout::Partition;
use crate::ledger::{Balance, ObjectEntry};
use crate::publish::{Collected, Collector, FileSettings, Finished, Keyed, Tables};
use crate::raw::{Decoded, Decoder, Found, ObjectCounts, PieceError, Pieces, Reject, Roots};
use crate::report::{Event, Report};
use crate::store::StoreError;

/// Objects up to this size are downloaded whole ahead of their worker, if the memory allows.
const WHOLE: u64 = 4 << 20;

/// What absorbing a source gave.
pub struct Absorbed {
    pub objects: Vec<ObjectEntry>,
    pub files: Vec<Finished>,
    pub balance: Balance,
    /// Values that became null under `on_type_error = "null"`, by column.
    pub nulled: BTreeMap<String, u64>,
}

/// How `--memory` is shared while a source is absorbed. The shares add up to less than the whole:
/// what is left is for decoding, for the blocks of the merge and for the runtime.
struct Shares {
    /// Of one worker's collector; sorting takes a second such share for a moment.
    collector: usize,
    /// Of one sorter of narrow rows.
    sorter: usize,
    dropped: usize,
    /// Of one unfinished row group.
    row_group: usize,
    /// Bytes up to which an object is downloaded whole; some three a worker wait at once.
    whole: u64,
}

impl Shares {
    fn new(job: &Job, rules: usize) -> Self {
        let memory = usize::try_from(job.memory).unwrap_or(usize::MAX);
        let threads = job.threads.max(1);
        Self {
            collector: memory / 6 / threads,
            sorter: memory / 5 / (rules.max(1) * threads),
            dropped: memory / 16,
            row_group: memory / 8,
            whole: WHOLE.min(job.memory / 16 / (3 * threads as u64)),
        }
    }
}

/// Reads all objects, decides, and writes the source's files into `folder`.
///
/// # Errors
/// An object that cannot be read, a rule that fails on a value, a full disk, counts that do not
/// balance. Nothing is staged by then.
pub async fn absorb(
    job: &Job,
    listed: &ListedSource<'_>,
    tables: &SourceTables,
    commit: u64,
    folder: &Path,
    report: &Report,
) -> Result<Absorbed, RunError> {
    let (source, roots, objects) = (listed.source, &listed.roots, &listed.found.objects);
    let slicing = Slicing {
        timezone: job.timezone,
        by: source.partition_by,
        slice_ms: source.slice_ms,
    };
    let threads = job.threads.max(1);
    let shares = Shares::new(job, source.rules.len());
    let (sender, receiver) = mpsc::channel::<Fed>(1);
    let feeding = feed(roots, objects, threads, shares.whole, sender);
    let scan = Scan {
        job: job.clone(),
        source: source.clone(),
        objects: objects.clone(),
        slicing,
        folder: folder.to_owned(),
        tables: [
            tables.events.clone(),
            tables.duplicates.clone(),
            tables.rejects.clone(),
        ],
        commit,
        report: report.clone(),
        fed: Mutex::new(receiver),
        narrow: source
            .rules
            .iter()
            .map(|_| {
                let sorter = || Mutex::new(Sorter::new(folder, shares.sorter));
                (0..threads).map(|_| sorter()).collect()
            })
            .collect(),
        shares,
        failed: AtomicBool::new(false),
    };
    let work = tokio::task::spawn_blocking(move || scan.run());
    let ((), result) = tokio::join!(feeding, work);
    result.map_err(|_| RunError::Defect("a worker died".to_owned()))?
}

/// An object handed to a worker.
struct Fed {
    rank: u32,
    pieces: Download,
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
        .map(|(rank, found)| async move {
            Fed {
                rank,
                pieces: download(roots, found, whole).await,
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

async fn download(roots: &Roots, found: &Found, whole: u64) -> Download {
    // A found object was listed under one of the roots.
    let Some(store) = roots.stores.get(found.root) else {
        return Download::Failed(Some("its root is not known".into()));
    };
    let (_, mut stream) = match store.get(&found.key).await {
        Ok(opened) => opened,
        Err(error) => return Download::Failed(Some(error.into())),
    };
    if found.size <= whole {
        let mut pieces = Vec::new();
        while let Some(piece) = stream.next().await {
            match piece {
                Ok(piece) => pieces.push(piece),
                Err(error) => return Download::Failed(Some(error.into())),
            }
        }
        return Download::Whole(pieces.into_iter());
    }
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Some(piece) = stream.next().await {
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    Download::Streamed(receiver)
}

/// The blocking half of absorbing: everything that computes.
struct Scan {
    job: Job,
    source: Source,
    objects: Vec<Found>,
    slicing: Slicing,
    folder: std::path::PathBuf,
    tables: [TableDefinition; 3],
    commit: u64,
    report: Report,
    fed: Mutex<mpsc::Receiver<Fed>>,
    shares: Shares,
    /// Narrow rows by rule and part, of all workers.
    narrow: Vec<Vec<Mutex<Sorter<4>>>>,
    /// A worker failed: the others need not go on.
    failed: AtomicBool,
}

/// What one worker has gathered.
struct Gathered {
    counts: Vec<(u32, ObjectCounts)>,
    events: Collected,
    rejects: Collected,
    /// Events of each place.
    places: BTreeMap<u64, u64>,
}

impl Scan {
    fn run(mut self) -> Result<Absorbed, RunError> {
        let threads = self.job.threads.max(1);
        let gathered: Vec<Result<Gathered, RunError>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| {
                        let gathered = self.work(threads);
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
                        .unwrap_or_else(|_| Err(RunError::Defect("a decoder died".to_owned())))
                })
                .collect()
        });
        let mut counts = Vec::new();
        let (mut events, mut rejects) = (Collected::default(), Collected::default());
        let mut places: BTreeMap<u64, u64> = BTreeMap::new();
        for one in gathered {
            let one = one?;
            counts.extend(one.counts);
            events.append(one.events);
            rejects.append(one.rejects);
            for (place, count) in one.places {
                *places.entry(place).or_default() += count;
            }
        }
        counts.sort_by_key(|(rank, _)| *rank);
        let narrow = std::mem::take(&mut self.narrow);
        let files_and_rules = self.write(events, rejects, narrow, &counts)?;
        self.balance(counts, files_and_rules, &places)
    }

    /// Decodes objects until there are none left.
    fn work(&self, threads: usize) -> Result<Gathered, RunError> {
        let mut decoder = Decoder::new(&self.source.decode);
        let schema = decoder.schema();
        let mut keys = Keys::compile(
            &self.source.rules,
            &schema,
            self.slicing,
            self.source.decode.unit,
            threads,
        )
        .map_err(|error| RunError::Key {
            name: self.source.name.clone(),
            error: Box::new(error),
        })?;
        let mut worker = Worker {
            scan: self,
            events: Collector::new(&self.folder, self.shares.collector),
            rejects: Collector::new(&self.folder, self.shares.collector / 4),
            buffers: self
                .source
                .rules
                .iter()
                .map(|_| vec![Vec::new(); threads])
                .collect(),
            places: Places::new(self.slicing, self.source.decode.unit),
            arrival_places: Places::new(
                Slicing {
                    by: crate::event::PartitionBy::Day,
                    slice_ms: i64::MAX,
                    ..self.slicing
                },
                TimeUnit::Ms,
            ),
            seen: BTreeMap::new(),
            time_column: schema.index_of(&self.source.decode.event_time).unwrap_or(0),
            record_column: schema.index_of(RAW_RECORD).unwrap_or(0),
        };
        let mut counts = Vec::new();
        while !self.failed.load(Ordering::Relaxed) {
            let fed = self
                .fed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .blocking_recv();
            let Some(mut fed) = fed else { break };
            let Some(found) = self.objects.get(fed.rank as usize) else {
                break;
            };
            let read = decoder.read(found.arrival_ms, &mut fed.pieces, &mut |decoded| {
                worker
                    .take(fed.rank, found, &mut keys, decoded)
                    .map_err(Into::into)
            });
            let read = read.map_err(|error| match error.downcast::<RunError>() {
                Ok(error) => *error,
                Err(error) => match error.downcast::<StoreError>() {
                    Ok(error) => RunError::Store(*error),
                    Err(error) => RunError::Defect(error.to_string()),
                },
            })?;
            self.report.event(Event::ObjectRead {
                bytes: read.bytes,
                records: read.records,
            });
            counts.push((fed.rank, read));
        }
        Ok(Gathered {
            counts,
            events: worker.events.finish()?,
            rejects: worker.rejects.finish()?,
            places: worker.seen,
        })
    }

    /// Decides, then writes the three tables' files.
    fn write(
        &self,
        events: Collected,
        rejects: Collected,
        narrow: Vec<Vec<Mutex<Sorter<4>>>>,
        counts: &[(u32, ObjectCounts)],
    ) -> Result<(Vec<Finished>, Vec<u64>), RunError> {
        self.report.event(Event::Deciding {
            source: self.source.name.clone(),
        });
        let records: Vec<u64> = counts.iter().map(|(_, counts)| counts.records).collect();
        let earlier = Dropped::new(&records);
        let unit = self.source.decode.unit;
        let narrow = narrow
            .into_iter()
            .map(|parts| {
                let sorters = parts.into_iter().map(Mutex::into_inner);
                sorters
                    .map(|sorter| vec![sorter.unwrap_or_else(PoisonError::into_inner)])
                    .collect()
            })
            .collect();
        let verdicts = Verdicts::decide(
            &self.source.rules,
            narrow,
            &earlier,
            self.slicing,
            unit,
            &self.folder,
            self.shares.dropped,
        )
        .map_err(|source| self.spill_error(source))?;
        drop(earlier);
        self.report.event(Event::Writing {
            source: self.source.name.clone(),
        });
        let objects: StringArray = self
            .objects
            .iter()
            .map(|found| Some(found.identity.as_str()))
            .collect();
        let rules: StringArray = self
            .source
            .rules
            .iter()
            .map(|rule| Some(rule.name.as_str()))
            .collect();
        let [kept, duplicates, rejected] = &self.tables;
        let table = |table: &TableDefinition| (table.name.clone(), Arc::clone(&table.schema));
        let settings = FileSettings {
            compression: self.source.compression,
            bloom_filters: self.source.bloom_filters.clone(),
            commit: self.commit,
            memory: self.shares.row_group,
        };
        let mut tables = Tables {
            kept: table(kept),
            duplicates: Some(table(duplicates)),
            objects: Arc::new(objects),
            rules: Arc::new(rules),
            timed: true,
            settings,
        };
        let mut files =
            crate::publish::write(events, Some(verdicts.dropped), &tables, &self.folder)?;
        tables.kept = table(rejected);
        tables.duplicates = None;
        tables.timed = false;
        tables.settings.bloom_filters.clear();
        files.extend(crate::publish::write(rejects, None, &tables, &self.folder)?);
        Ok((files, verdicts.by_rule))
    }

    fn spill_error(&self, source: std::io::Error) -> RunError {
        RunError::Write(crate::publish::WriteError::Spill {
            folder: self.folder.display().to_string(),
            source,
        })
    }

    /// P2 of what was read against what was written, before anything leaves this machine.
    fn balance(
        &self,
        counts: Vec<(u32, ObjectCounts)>,
        (files, by_rule): (Vec<Finished>, Vec<u64>),
        places: &BTreeMap<u64, u64>,
    ) -> Result<Absorbed, RunError> {
        let mut balance = Balance::default();
        let mut nulled: BTreeMap<String, u64> = BTreeMap::new();
        let mut objects = Vec::with_capacity(counts.len());
        for ((_, counts), found) in counts.into_iter().zip(&self.objects) {
            balance.records += counts.records.cast_signed();
            balance.events += counts.events.cast_signed();
            for (reason, count) in &counts.rejects {
                *balance.rejects.entry(*reason).or_default() += count.cast_signed();
            }
            for (column, count) in counts.nulled {
                *nulled.entry(column).or_default() += count;
            }
            objects.push(ObjectEntry {
                key: found.identity.clone(),
                etag: found.etag.clone(),
                size: counts.bytes,
                sha256: hex::encode(counts.sha256),
                arrival_ms: found.arrival_ms,
                records: counts.records,
                events: counts.events,
                rejects: counts.rejects,
            });
        }
        if objects.len() != self.objects.len() {
            return Err(RunError::Unbalanced(format!(
                "{} of {} raw objects were read",
                objects.len(),
                self.objects.len()
            )));
        }
        for (rule, count) in self.source.rules.iter().zip(by_rule) {
            if count > 0 {
                balance
                    .duplicates
                    .insert(rule.name.clone(), count.cast_signed());
            }
        }
        let [kept, duplicates, rejected] = &self.tables;
        let rows = |table: &str| -> u64 {
            files
                .iter()
                .filter(|file| file.table == table)
                .map(|file| file.rows)
                .sum()
        };
        balance.kept = rows(&kept.name).cast_signed();
        if let Some(imbalance) = balance.imbalance() {
            return Err(RunError::Unbalanced(imbalance));
        }
        let dropped: i64 = balance.duplicates.values().sum();
        let rejects: i64 = balance.rejects.values().sum();
        for (table, expected) in [(&duplicates.name, dropped), (&rejected.name, rejects)] {
            let written = rows(table);
            if written.cast_signed() != expected {
                return Err(RunError::Unbalanced(format!(
                    "{written} rows were written to {table}, and {expected} were counted"
                )));
            }
        }
        let mut written: BTreeMap<(Partition, String), u64> = BTreeMap::new();
        for file in files.iter().filter(|file| file.table != rejected.name) {
            *written
                .entry((file.partition.clone(), file.name.clone()))
                .or_default() += file.rows;
        }
        for (bits, count) in places {
            let place = crate::event::Place::from_sortable(*bits);
            let slice = (place.partition(), crate::layout::file_name(place.slice));
            if written.get(&slice) != Some(count) {
                return Err(RunError::Unbalanced(format!(
                    "{count} events of {}/{} became {} rows",
                    crate::layout::partition_folder(&slice.0),
                    slice.1,
                    written.get(&slice).copied().unwrap_or(0)
                )));
            }
        }
        Ok(Absorbed {
            objects,
            files,
            balance,
            nulled,
        })
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
    seen: BTreeMap<u64, u64>,
    time_column: usize,
    record_column: usize,
}

impl Worker<'_> {
    fn take(
        &mut self,
        rank: u32,
        found: &Found,
        keys: &mut Keys,
        decoded: Decoded,
    ) -> Result<(), RunError> {
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
    ) -> Result<(), RunError> {
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
        let records = batch
            .column(self.record_column)
            .as_primitive::<Int64Type>()
            .values();
        let ids: Vec<u64> = records
            .iter()
            .map(|record| EventId::new(rank, u32::try_from(*record).unwrap_or(u32::MAX)).0)
            .collect();
        keys.rows(&batch, &times, &ids, &mut self.buffers)
            .map_err(|error| RunError::Rule {
                name: self.scan.source.name.clone(),
                object: found.identity.clone(),
                error: Box::new(error),
            })?;
        for (sorters, buffers) in self.scan.narrow.iter().zip(&mut self.buffers) {
            for (sorter, buffer) in sorters.iter().zip(buffers) {
                sorter
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(buffer)
                    .map_err(|source| self.scan.spill_error(source))?;
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
        let mut last: Option<(u64, u64)> = None;
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
        self.events.push(Keyed { batch, keys })?;
        Ok(())
    }

    fn take_rejects(
        &mut self,
        rank: u32,
        found: &Found,
        rejects: &[Reject],
    ) -> Result<(), RunError> {
        let place = self.arrival_places.of(found.arrival_ms);
        let keys = rejects
            .iter()
            .map(|reject| {
                [
                    place,
                    0,
                    EventId::new(rank, u32::try_from(reject.raw_record).unwrap_or(u32::MAX)).0,
                ]
            })
            .collect();
        let number = |value: fn(&Reject) -> u64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(
                rejects.iter().map(|reject| value(reject).cast_signed()),
            ))
        };
        let text = |value: fn(&Reject) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(rejects.iter().map(value)))
        };
        let columns: Vec<ArrayRef> = vec![
            number(|reject| reject.raw_record),
            number(|reject| reject.raw_offset),
            number(|reject| reject.raw_bytes),
            text(|reject| reject.reason.name()),
            text(|reject| &reject.detail),
            text(|reject| &reject.raw_text),
        ];
        let own: Vec<_> = crate::catalog::reject_fields()
            .into_iter()
            .filter(|f| f.name() != crate::event::RAW_OBJECT)
            .collect();
        let schema: SchemaRef = Arc::new(Schema::new(own));
        let batch = RecordBatch::try_new(schema, columns)
            .map_err(|error| RunError::Defect(error.to_string()))?;
        self.rejects.push(Keyed { batch, keys })?;
        Ok(())
    }
}
