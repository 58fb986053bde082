//! Batches in any order become runs in order, in bounded memory.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use super::WriteError;
use super::runs::Runs;
use super::words::{Common, Packer, Words};
use crate::dedup::EventId;

/// Bytes of one block of a spilled run: what the merge holds of each run.
pub(super) const BLOCK: usize = 512 << 10;
/// Rows of one block.
const BLOCK_ROWS: usize = 8192;
/// Fewest and most runs of one collector; more are merged into one, so that neither open files nor the
/// blocks held by the merge grow with the input. Within these bounds as many as half the memory has
/// blocks: merging runs writes everything once more.
const RUNS: (usize, usize) = (16, 128);

/// Three integers by which rows are ordered: place, sortable time, id.
pub type Key = [u64; 3];

/// A batch with the key of each row.
#[derive(Debug, Clone)]
pub struct Keyed {
    /// The columns of the rows, but for those that the key has: event time, raw object and record.
    pub batch: RecordBatch,
    pub keys: Vec<Key>,
    /// Of stored duplicates: what took each row out.
    pub displaced: Option<Vec<Displaced>>,
}

/// Index of the rule that dropped an event, and the event that displaced it.
pub type Displaced = (u64, EventId);

/// Rows of data files, in order.
pub type StoredRows = Box<dyn Iterator<Item = Result<Keyed, WriteError>> + Send>;

/// Gathers the batches of one worker and sorts and spills them run by run.
pub struct Collector {
    folder: PathBuf,
    limit: usize,
    packer: Packer,
    held: Vec<Keyed>,
    bytes: usize,
    runs: Vec<Run>,
}

/// One sorted run.
enum Run {
    Memory(Vec<Keyed>),
    Spilled(File, SchemaRef),
    Stored(StoredRows),
}

/// Everything collected, as runs in order.
#[derive(Default)]
pub struct Collected {
    runs: Vec<Run>,
    words: Words,
}

impl Keyed {
    /// Rows of events that come with this commit.
    pub const fn new(batch: RecordBatch, keys: Vec<Key>) -> Self {
        Self {
            batch,
            keys,
            displaced: None,
        }
    }
}

impl Collector {
    /// `memory` in bytes bounds what is held before it is sorted; sorting takes as much again for
    /// one block. What collectors of the same `words` have gathered can be appended.
    pub fn new(folder: &Path, memory: usize, words: &Words) -> Self {
        Self {
            folder: folder.to_owned(),
            limit: memory,
            packer: Packer::new(words),
            held: Vec::new(),
            bytes: 0,
            runs: Vec::new(),
        }
    }

    /// # Errors
    /// The spill folder is full or cannot be written.
    pub fn push(&mut self, mut rows: Keyed) -> Result<(), WriteError> {
        rows.batch = self.packer.pack(&rows.batch)?;
        self.bytes += rows.batch.get_array_memory_size() + rows.keys.len() * size_of::<Key>();
        self.held.push(rows);
        if self.bytes >= self.limit {
            self.spill()?;
        }
        Ok(())
    }

    fn spill(&mut self) -> Result<(), WriteError> {
        let held = self.alike()?;
        let Some(first) = held.first() else {
            return Ok(());
        };
        let mut run = RunWriter::create(&self.folder, &first.batch.schema())?;
        for block in sorted_blocks(&held) {
            run.write(&block?)?;
        }
        let run = run.finish()?;
        self.runs.push(run);
        if self.runs.len() >= (self.limit / BLOCK / 2).clamp(RUNS.0, RUNS.1) {
            self.compact()
        } else {
            Ok(())
        }
    }

    /// What is held, all of the same columns.
    fn alike(&mut self) -> Result<Vec<Keyed>, WriteError> {
        self.bytes = 0;
        let mut held = std::mem::take(&mut self.held);
        let schemas = held.iter().map(|keyed| Some(keyed.batch.schema()));
        let common = Common::new(self.packer.words(), schemas);
        for keyed in &mut held {
            keyed.batch = common.spell(keyed.batch.clone())?;
        }
        Ok(held)
    }

    /// Merges the runs into one.
    fn compact(&mut self) -> Result<(), WriteError> {
        let runs = std::mem::take(&mut self.runs).into_iter();
        let mut runs = Runs::new(runs.map(Run::blocks).collect(), self.packer.words())?;
        let Some(schema) = runs.schema() else {
            return Ok(());
        };
        let mut merged = RunWriter::create(&self.folder, &schema)?;
        let (mut rows, mut keys, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some(stretch) = runs.stretch() {
            for row in stretch.from..stretch.to {
                rows.push((stretch.source, row));
                keys.extend(runs.key(stretch, row));
            }
            bytes += (stretch.to - stretch.from) * runs.row_bytes(stretch.source);
            runs.advance(stretch)?;
            if rows.len() >= BLOCK_ROWS || bytes >= BLOCK || runs.is_crowded() {
                let keys = std::mem::take(&mut keys);
                merged.write(&Keyed::new(runs.gather(&rows)?, keys))?;
                rows.clear();
                bytes = 0;
                runs.release();
            }
        }
        if !rows.is_empty() {
            merged.write(&Keyed::new(runs.gather(&rows)?, keys))?;
        }
        self.runs.push(merged.finish()?);
        Ok(())
    }

    /// # Errors
    /// Rows that cannot be sorted, which is a defect.
    pub fn finish(mut self) -> Result<Collected, WriteError> {
        let held = self.alike()?;
        let blocks = sorted_blocks(&held).collect::<Result<_, _>>()?;
        self.runs.push(Run::Memory(blocks));
        Ok(Collected {
            runs: self.runs,
            words: self.packer.words().clone(),
        })
    }
}

impl Collected {
    /// Adds what another collector of the same words has gathered.
    pub fn append(&mut self, other: Self) {
        self.runs.extend(other.runs);
        self.words = other.words;
    }

    /// Adds what data files hold already.
    pub fn append_stored(&mut self, rows: StoredRows) {
        self.runs.push(Run::Stored(rows));
    }

    /// The runs as one sequence.
    pub(super) fn into_runs(self) -> Result<Runs, WriteError> {
        Runs::new(
            self.runs.into_iter().map(Run::blocks).collect(),
            &self.words,
        )
    }
}

impl Run {
    fn blocks(self) -> Blocks {
        match self {
            Self::Memory(blocks) => Blocks::Memory(blocks.into_iter()),
            Self::Spilled(file, schema) => Blocks::Spilled(Some(file), None, schema),
            Self::Stored(rows) => Blocks::Stored(rows),
        }
    }
}

/// A run being spilled into an unnamed file.
struct RunWriter {
    folder: PathBuf,
    schema: SchemaRef,
    writer: StreamWriter<BufWriter<File>>,
}

impl RunWriter {
    fn create(folder: &Path, schema: &Schema) -> Result<Self, WriteError> {
        let at = |source| WriteError::Spill {
            folder: folder.display().to_string(),
            source,
        };
        let schema = keyed_schema(schema);
        let file = BufWriter::with_capacity(BLOCK, tempfile::tempfile_in(folder).map_err(at)?);
        let writer =
            StreamWriter::try_new(file, &schema).map_err(|error| at(io::Error::other(error)))?;
        Ok(Self {
            folder: folder.to_owned(),
            schema,
            writer,
        })
    }

    fn at(&self, source: io::Error) -> WriteError {
        WriteError::Spill {
            folder: self.folder.display().to_string(),
            source,
        }
    }

    fn write(&mut self, block: &Keyed) -> Result<(), WriteError> {
        let block = with_keys(block, &self.schema)?;
        self.writer
            .write(&block)
            .map_err(|error| self.at(io::Error::other(error)))
    }

    fn finish(self) -> Result<Run, WriteError> {
        let folder = self.folder.display().to_string();
        let at = |source| WriteError::Spill {
            folder: folder.clone(),
            source,
        };
        let file = self
            .writer
            .into_inner()
            .map_err(|error| at(io::Error::other(error)))?;
        let mut file = file.into_inner().map_err(|error| at(error.into_error()))?;
        file.rewind().map_err(at)?;
        Ok(Run::Spilled(file, self.schema))
    }
}

/// The blocks of one run.
pub(super) enum Blocks {
    Memory(std::vec::IntoIter<Keyed>),
    /// The reader is made when it is first asked, from the file.
    Spilled(
        Option<File>,
        Option<Box<StreamReader<BufReader<File>>>>,
        SchemaRef,
    ),
    Stored(StoredRows),
}

impl Blocks {
    /// The columns as they are held; `None` of stored rows, which have no codes.
    pub(super) fn schema(&self) -> Option<SchemaRef> {
        match self {
            Self::Memory(blocks) => Some(blocks.as_slice().first()?.batch.schema()),
            Self::Spilled(_, _, schema) => Some(Arc::clone(schema)),
            Self::Stored(_) => None,
        }
    }

    /// There is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Memory(blocks) if blocks.as_slice().is_empty())
    }

    pub(super) fn next(&mut self) -> Result<Option<Keyed>, WriteError> {
        match self {
            Self::Memory(blocks) => Ok(blocks.next()),
            Self::Stored(rows) => rows.next().transpose(),
            Self::Spilled(file, reader, _) => {
                if let Some(file) = file.take() {
                    let file = BufReader::with_capacity(64 << 10, file);
                    *reader = Some(Box::new(StreamReader::try_new(file, None)?));
                }
                let Some(reader) = reader else {
                    return Ok(None);
                };
                match reader.next() {
                    None => Ok(None),
                    Some(batch) => Ok(Some(without_keys(&batch?)?)),
                }
            }
        }
    }
}

/// All rows in order, a block at a time, so that a second copy of all is never held.
fn sorted_blocks(held: &[Keyed]) -> impl Iterator<Item = Result<Keyed, WriteError>> {
    let rows: usize = held.iter().map(|keyed| keyed.keys.len()).sum();
    let mut order: Vec<(Key, u32, u32)> = Vec::with_capacity(rows);
    for (batch, keyed) in (0u32..).zip(held) {
        order.extend(
            (0u32..)
                .zip(&keyed.keys)
                .map(|(row, key)| (*key, batch, row)),
        );
    }
    order.sort_unstable();
    let batches: Vec<&RecordBatch> = held.iter().map(|keyed| &keyed.batch).collect();
    // Wide rows lie together in the batches they were decoded into, so the mean of a batch tells.
    let widths: Vec<usize> = batches
        .iter()
        .map(|batch| bytes_of(batch) / batch.num_rows().max(1))
        .collect();
    let mut picks = Vec::new();
    let mut from = 0;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let block = order
            .iter()
            .skip(from)
            .take(BLOCK_ROWS)
            .take_while(|(_, batch, _)| {
                let room = bytes < BLOCK;
                bytes += widths.get(*batch as usize).copied().unwrap_or(0);
                room
            });
        picks.clear();
        let mut keys = Vec::new();
        for (key, batch, row) in block {
            picks.push((*batch as usize, *row as usize));
            keys.push(*key);
        }
        if keys.is_empty() {
            return None;
        }
        from += keys.len();
        let batch = interleave_record_batch(&batches, &picks);
        Some(
            batch
                .map(|batch| Keyed::new(batch, keys))
                .map_err(WriteError::from),
        )
    })
}

/// Bytes of the values of a batch. The columns of a block that was read back share one allocation,
/// which [`RecordBatch::get_array_memory_size`] would count for each of them.
pub(super) fn bytes_of(batch: &RecordBatch) -> usize {
    batch
        .columns()
        .iter()
        .map(|column| {
            let data = column.to_data();
            data.get_slice_memory_size()
                .unwrap_or_else(|_| data.get_array_memory_size())
        })
        .sum()
}

/// The schema of a spilled block: the batch's own columns, then the three parts of the key.
fn keyed_schema(schema: &Schema) -> SchemaRef {
    let key = ["\u{0}place", "\u{0}time", "\u{0}id"]
        .map(|name| Field::new(name, DataType::UInt64, false));
    let fields = schema.fields().iter().cloned().chain(key.map(Arc::new));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn with_keys(keyed: &Keyed, schema: &SchemaRef) -> Result<RecordBatch, WriteError> {
    let mut columns = keyed.batch.columns().to_vec();
    for part in 0..3 {
        let values = keyed.keys.iter().filter_map(|key| key.get(part).copied());
        columns.push(Arc::new(UInt64Array::from_iter_values(values)));
    }
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

fn without_keys(block: &RecordBatch) -> Result<Keyed, WriteError> {
    let own = block.num_columns().saturating_sub(3);
    let part = |i: usize| block.column(own + i).as_primitive::<UInt64Type>().values();
    let (place, time, id) = (part(0), part(1), part(2));
    let keys = place
        .iter()
        .zip(time)
        .zip(id)
        .map(|((p, t), i)| [*p, *t, *i])
        .collect();
    let own: Vec<usize> = (0..own).collect();
    Ok(Keyed::new(block.project(&own)?, keys))
}
