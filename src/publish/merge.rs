//! Merges sorted runs with the dropped rows, which are in the same order, into data files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use arrow::array::{ArrayRef, DictionaryArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::cast;
use arrow::datatypes::{Field, Schema, SchemaRef, UInt32Type};

use super::WriteError;
use super::blocks::{Displaced, Key};
use super::collect::Collected;
use super::parquet::{FileSettings, ParquetFile};
use super::runs::{Runs, Stretch};
use crate::catalog::TableDefinition;
use crate::dedup::{EventId, Sorted, from_sortable};
use crate::event::{KEPT_OBJECT, KEPT_RECORD, Place, RAW_OBJECT, RAW_RECORD, RULE};
use crate::layout::{self, Partition};
use crate::ledger::FileEntry;

/// The most rows that are handed to a writer at once.
const BATCH_ROWS: usize = 8192;
/// The most bytes that are handed to a writer at once, for wide rows.
const BATCH_BYTES: usize = 4 << 20;
/// The number of batches that may wait for a writer.
const WAITING: usize = 2;
/// The most bytes of all batches that wait for the writers or are being encoded. A larger batch goes alone.
const IN_FLIGHT: usize = 6 * BATCH_BYTES;

/// The tables that the rows of one merge are written to.
#[derive(Debug, Clone)]
pub struct Tables {
    /// The table of the rows that are not dropped.
    pub kept: (String, SchemaRef),
    /// The table of the dropped rows.
    pub duplicates: Option<(String, SchemaRef)>,
    /// The names of the raw objects by rank.
    pub objects: Arc<StringArray>,
    /// The names of the rules by index.
    pub rules: Arc<StringArray>,
    /// Places that get no file: their rows and verdicts are passed over.
    pub left: Arc<BTreeSet<u64>>,
    /// The settings of the data files.
    pub settings: FileSettings,
}

/// A finished data file on local disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The path on local disk.
    pub path: PathBuf,
    /// The table that it belongs to.
    pub table: String,
    /// The columns and values of the partition.
    pub partition: Partition,
    /// The name in its partition.
    pub name: String,
    /// The number of rows.
    pub rows: u64,
    /// The size in bytes.
    pub bytes: u64,
    /// The first and the last event time in the unit of the table.
    pub times: Option<(i64, i64)>,
}

/// Writes a zero-row file that replaces a file with rows.
pub fn empty_file(
    table: &TableDefinition,
    old: &FileEntry,
    number: usize,
    settings: &FileSettings,
    folder: &Path,
) -> Result<Finished, WriteError> {
    let path = folder.join(format!("{}-emptied-{number}.parquet", table.name));
    let schema = Arc::clone(&table.schema);
    let (path, rows, bytes) = ParquetFile::create(path, schema, settings)?.finish()?;
    Ok(Finished {
        path,
        table: table.name.clone(),
        partition: old.partition.clone(),
        name: old.name.clone(),
        rows,
        bytes,
        times: None,
    })
}

/// Takes a file that is whole, and says whether the merge goes on. If the merge fails, the last file of each
/// table may end early; [`write`] reports the failure.
pub type Done<'a> = dyn Fn(&Finished) -> bool + Sync + 'a;

/// The rule of a verdict that keeps an event which was stored as a duplicate.
pub const KEPT: u64 = u64::MAX;

/// Merges runs and writes one file for each table and place. `verdicts` holds the events that are dropped now
/// or no longer dropped, as [`crate::dedup::DroppedRow`] in their order. For all other events a stored verdict
/// stays, and new events are kept. Each file is handed to `done` when it is whole, and `done` says whether the
/// merge goes on.
///
/// # Errors
/// A full disk; a stored file that cannot be read; a verdict without its event, which is a defect.
pub fn write(
    collected: Collected,
    verdicts: Option<Sorted<5>>,
    tables: &Tables,
    folder: &Path,
    done: &Done<'_>,
) -> Result<Vec<Finished>, WriteError> {
    let room = Arc::<Room>::default();
    std::thread::scope(|scope| {
        let kept = Writer::start(scope, &tables.kept.0, tables, folder, done);
        let duplicates = tables
            .duplicates
            .as_ref()
            .map(|(table, _)| Writer::start(scope, table, tables, folder, done));
        let result = collected.into_runs().and_then(|runs| {
            let merge = Merge {
                tables,
                folder,
                room,
                runs,
                verdicts,
                kept: (&kept, Picks::default()),
                duplicates: duplicates.as_ref().map(|writer| (writer, Picks::default())),
            };
            merge.run()
        });
        let mut finished = Vec::new();
        let mut failure = None;
        for writer in std::iter::once(kept).chain(duplicates) {
            drop(writer.sender);
            match writer.thread.join() {
                Ok(Ok(files)) => finished.extend(files),
                Ok(Err(error)) => failure = Some(error),
                Err(_) => failure = Some(defect("a writer died")),
            }
        }
        // If a writer has failed, the merge has failed because of it. The writer's error says more.
        match failure {
            Some(error) => Err(error),
            None => result.map(|()| finished),
        }
    })
}

fn defect(what: &str) -> WriteError {
    WriteError::Defect(what.to_owned())
}

/// The room for batches that were handed to the writers and are not encoded yet, in bytes.
#[derive(Default)]
struct Room {
    taken: Mutex<usize>,
    let_go: Condvar,
}

/// A part of the room that is taken until this value is dropped.
struct Taken {
    room: Arc<Room>,
    bytes: usize,
}

impl Room {
    /// Waits until so many bytes are free, or until nothing else is in the room.
    fn take(self: &Arc<Self>, bytes: usize) -> Taken {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |taken: &mut usize| *taken > 0 && *taken + bytes > IN_FLIGHT;
        let mut taken = self
            .let_go
            .wait_while(taken, is_full)
            .unwrap_or_else(PoisonError::into_inner);
        *taken += bytes;
        Taken {
            room: Arc::clone(self),
            bytes,
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let taken = self.room.taken.lock();
        *taken.unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.room.let_go.notify_all();
    }
}

/// A thread that encodes the batches of one table.
struct Writer<'scope> {
    sender: SyncSender<Part>,
    thread: std::thread::ScopedJoinHandle<'scope, Result<Vec<Finished>, WriteError>>,
}

/// Rows of one place.
struct Part {
    place: u64,
    times: (i64, i64),
    batch: RecordBatch,
    /// Freed when the rows are encoded.
    room: Taken,
}

impl<'scope> Writer<'scope> {
    fn start<'env>(
        scope: &'scope std::thread::Scope<'scope, 'env>,
        table: &str,
        tables: &'env Tables,
        folder: &'env Path,
        done: &'env Done<'env>,
    ) -> Self {
        let (sender, receiver) = sync_channel(WAITING);
        let table = table.to_owned();
        let thread = scope.spawn(move || encode(&table, tables, folder, done, &receiver));
        Self { sender, thread }
    }
}

/// Encodes parts, one file for each place.
fn encode(
    table: &str,
    tables: &Tables,
    folder: &Path,
    done: &Done<'_>,
    parts: &Receiver<Part>,
) -> Result<Vec<Finished>, WriteError> {
    let mut finished = Vec::new();
    let mut open: Option<(u64, (i64, i64), ParquetFile)> = None;
    let mut close = |open: (u64, (i64, i64), ParquetFile)| -> Result<(), WriteError> {
        let (bits, times, file) = open;
        let place = Place::from_sortable(bits).ok_or_else(|| defect("rows have no place"))?;
        let (path, rows, bytes) = file.finish()?;
        let file = Finished {
            path,
            table: table.to_owned(),
            partition: place.partition(),
            name: layout::file_name(place.slice),
            rows,
            bytes,
            times: tables.settings.event_time.is_some().then_some(times),
        };
        if !done(&file) {
            return Err(WriteError::NotStaged);
        }
        finished.push(file);
        Ok(())
    };
    for Part {
        place,
        times,
        batch,
        room: _room,
    } in parts
    {
        let file = match open.take() {
            Some((known, span, file)) if known == place => {
                (place, (span.0.min(times.0), span.1.max(times.1)), file)
            }
            other => {
                if let Some(other) = other {
                    close(other)?;
                }
                let path = folder.join(format!("{table}-{place:x}.parquet"));
                (
                    place,
                    times,
                    ParquetFile::create(path, batch.schema(), &tables.settings)?,
                )
            }
        };
        let file = open.insert(file);
        file.2.write(&batch)?;
    }
    if let Some(open) = open {
        close(open)?;
    }
    Ok(finished)
}

/// The rows that were picked for one table and not handed to its writer yet.
#[derive(Default)]
struct Picks {
    rows: Vec<(usize, usize)>,
    keys: Vec<Key>,
    /// An estimate of the bytes of these rows.
    bytes: usize,
    /// The index of the rule, and the event that displaced the row. Only duplicates have one.
    displaced: Vec<Displaced>,
}

struct Merge<'a> {
    tables: &'a Tables,
    /// The spill folder.
    folder: &'a Path,
    room: Arc<Room>,
    runs: Runs,
    verdicts: Option<Sorted<5>>,
    kept: (&'a Writer<'a>, Picks),
    duplicates: Option<(&'a Writer<'a>, Picks)>,
}

impl Merge<'_> {
    fn run(mut self) -> Result<(), WriteError> {
        let mut place = None;
        while let Some(stretch) = self.runs.stretch()? {
            let at = self.runs.key(stretch, stretch.from).map(|key| key[0]);
            if place != at {
                self.flush()?;
                place = at;
            }
            match at.filter(|place| self.tables.left.contains(place)) {
                Some(place) => self.pass_verdicts(place)?,
                None => (stretch.from..stretch.to).try_for_each(|row| self.deal(stretch, row))?,
            }
            self.runs.advance(stretch)?;
            if self.runs.is_crowded() {
                self.flush()?;
                self.runs.release();
            }
        }
        self.flush()?;
        match self.verdicts.as_ref().and_then(Sorted::peek) {
            Some(_) => Err(defect("a verdict has no event")),
            None => Ok(()),
        }
    }

    /// Passes over the verdicts on rows of a place.
    fn pass_verdicts(&mut self, place: u64) -> Result<(), WriteError> {
        let Some(rows) = &mut self.verdicts else {
            return Ok(());
        };
        while rows.peek().is_some_and(|row| row[0] == place) {
            rows.pop()
                .map_err(|source| spilled_verdicts(self.folder, source))?;
        }
        Ok(())
    }

    /// Deals one row to its table.
    fn deal(&mut self, stretch: Stretch, row: usize) -> Result<(), WriteError> {
        let Some(key) = self.runs.key(stretch, row) else {
            return Err(defect("a row has no key"));
        };
        let width = self.runs.row_bytes(stretch.source);
        if width > BATCH_BYTES {
            // A wide row that is handed over alone is not copied.
            self.flush()?;
        }
        let displaced = match self.verdict(key)? {
            Some((KEPT, _)) => None,
            Some(displaced) => Some(displaced),
            None => self.runs.displaced(stretch, row),
        };
        let picks = match (displaced, &mut self.duplicates) {
            (Some(displaced), Some((_, picks))) => {
                picks.displaced.push(displaced);
                picks
            }
            (Some(_), None) => return Err(defect("a row is dropped and has no table")),
            (None, _) => &mut self.kept.1,
        };
        picks.rows.push((stretch.source, row));
        picks.keys.push(key);
        picks.bytes += width;
        if picks.rows.len() >= BATCH_ROWS || picks.bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// The new verdict on the row of this key.
    fn verdict(&mut self, key: Key) -> Result<Option<Displaced>, WriteError> {
        let Some(rows) = &mut self.verdicts else {
            return Ok(None);
        };
        match rows.peek() {
            Some([place, time, id, kept, rule]) if [*place, *time, *id] == key => {
                let displaced = (*rule, EventId(*kept));
                rows.pop()
                    .map_err(|source| spilled_verdicts(self.folder, source))?;
                Ok(Some(displaced))
            }
            _ => Ok(None),
        }
    }

    /// Hands all picked rows to the writers.
    fn flush(&mut self) -> Result<(), WriteError> {
        let (writer, picks) = &mut self.kept;
        let (runs, tables, room) = (&self.runs, self.tables, &self.room);
        send(writer, &tables.kept.1, picks, runs, tables, room)?;
        if let (Some((writer, picks)), Some((_, schema))) =
            (&mut self.duplicates, &tables.duplicates)
        {
            send(writer, schema, picks, runs, tables, room)?;
        }
        Ok(())
    }
}

fn spilled_verdicts(folder: &Path, source: std::io::Error) -> WriteError {
    WriteError::Spill {
        folder: folder.display().to_string(),
        source,
    }
}

/// Makes a batch of the picked rows and hands it to the writer.
fn send(
    writer: &Writer<'_>,
    schema: &SchemaRef,
    picks: &mut Picks,
    runs: &Runs,
    tables: &Tables,
    room: &Arc<Room>,
) -> Result<(), WriteError> {
    let (Some(first), Some(last)) = (picks.keys.first(), picks.keys.last()) else {
        return Ok(());
    };
    let room = room.take(picks.bytes);
    let place = first[0];
    let times = (from_sortable(first[1]), from_sortable(last[1]));
    let rows = runs.gather(&picks.rows)?;
    let mut fields = Vec::with_capacity(schema.fields().len());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let column: ArrayRef = match field.name().as_str() {
            RAW_OBJECT => named(
                picks.keys.iter().map(|key| EventId(key[2]).object()),
                &tables.objects,
            )?,
            RULE => {
                // No rule has the largest index, and `named` refuses it.
                let ranks = picks
                    .displaced
                    .iter()
                    .map(|(rule, _)| u32::try_from(*rule).unwrap_or(u32::MAX));
                named(ranks, &tables.rules)?
            }
            KEPT_OBJECT => named(
                picks.displaced.iter().map(|(_, kept)| kept.object()),
                &tables.objects,
            )?,
            KEPT_RECORD => Arc::new(Int64Array::from_iter_values(
                picks
                    .displaced
                    .iter()
                    .map(|(_, kept)| i64::from(kept.record())),
            )),
            RAW_RECORD => Arc::new(Int64Array::from_iter_values(
                picks
                    .keys
                    .iter()
                    .map(|key| i64::from(EventId(key[2]).record())),
            )),
            name if tables.settings.event_time.as_deref() == Some(name) => {
                let times = picks.keys.iter().map(|key| from_sortable(key[1]));
                cast(&Int64Array::from_iter_values(times), field.data_type())?
            }
            name => match rows.schema_ref().column_with_name(name) {
                Some((index, _)) => runs.common().dictionary(index, rows.column(index))?,
                None => return Err(defect(&format!("column {name} was not decoded"))),
            },
        };
        fields.push(Field::new(
            field.name(),
            column.data_type().clone(),
            field.is_nullable(),
        ));
        columns.push(column);
    }
    picks.rows.clear();
    picks.keys.clear();
    picks.displaced.clear();
    picks.bytes = 0;
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    // The writer has ended because it failed, and its own error says why.
    writer
        .sender
        .send(Part {
            place,
            times,
            batch,
            room,
        })
        .map_err(|_| defect("a writer stopped"))
}

/// Strings by their ranks, as a dictionary, so that a name is not copied for every row. A rank without a string
/// is an error.
fn named(
    ranks: impl Iterator<Item = u32>,
    names: &Arc<StringArray>,
) -> Result<ArrayRef, WriteError> {
    let ranks = UInt32Array::from_iter_values(ranks);
    let names = Arc::clone(names);
    Ok(Arc::new(DictionaryArray::<UInt32Type>::try_new(
        ranks, names,
    )?))
}
