//! Batches in any order become runs in order, in bounded memory.
//!
//! ```text
//! spilled run:  schema │ keys of a block │ its rows │ keys │ rows │ … │ no keys
//!                        read ahead        read when the first of them is next
//! ```
//!
//! Rows may be of any width. A row that is wider than a block is a block of its own, and a block is read
//! when its first row is the next of all runs. So a merge holds few wide rows, however many runs it reads.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use super::WriteError;
use super::runs::Runs;
use super::words::{Common, Packer, Words};
use crate::dedup::EventId;

/// Bytes of one block of a spilled run: what the merge holds of each run. A wider row is a block of its own.
pub(super) const BLOCK: usize = 512 << 10;
/// Rows of one block.
const BLOCK_ROWS: usize = 8192;
/// Bytes of a block whose codes are spelled out.
const SPELLED: usize = 4 * BLOCK;
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
    Spilled(Spilled),
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
        let mut run = RunWriter::create(&self.folder, first.batch.schema())?;
        for block in sorted_blocks(&held, self.packer.words()) {
            run.write(&block?)?;
        }
        let run = run.finish()?;
        self.runs.push(run);
        // Runs may be merged now, which has no need of them.
        drop(held);
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
        let mut merged: Option<RunWriter> = None;
        let (mut rows, mut keys, mut bytes) = (Vec::new(), Vec::new(), 0);
        loop {
            let next = runs.next_width();
            let is_full = |bytes: usize| next.is_none_or(|width| bytes + width > BLOCK);
            if !rows.is_empty() && (is_full(bytes) || rows.len() >= BLOCK_ROWS || runs.is_crowded())
            {
                let block = Keyed::new(runs.gather(&rows)?, std::mem::take(&mut keys));
                let mut run = match merged.take() {
                    Some(run) => run,
                    None => RunWriter::create(&self.folder, block.batch.schema())?,
                };
                run.write(&block)?;
                merged = Some(run);
                rows.clear();
                bytes = 0;
                runs.release();
            }
            let Some(stretch) = runs.stretch()? else {
                break;
            };
            for row in stretch.from..stretch.to {
                rows.push((stretch.source, row));
                keys.extend(runs.key(stretch, row));
            }
            bytes += (stretch.to - stretch.from) * runs.row_bytes(stretch.source);
            runs.advance(stretch)?;
        }
        if let Some(merged) = merged {
            self.runs.push(merged.finish()?);
        }
        Ok(())
    }

    /// # Errors
    /// Rows that cannot be sorted, which is a defect.
    pub fn finish(mut self) -> Result<Collected, WriteError> {
        let held = self.alike()?;
        let blocks = sorted_blocks(&held, self.packer.words()).collect::<Result<_, _>>()?;
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
            Self::Spilled(run) => Blocks::Spilled(run),
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
    fn create(folder: &Path, schema: SchemaRef) -> Result<Self, WriteError> {
        let at = |source| WriteError::Spill {
            folder: folder.display().to_string(),
            source,
        };
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
        let head = BlockHead {
            rows: block.keys.len() as u64,
            bytes: bytes_of(&block.batch) as u64,
        };
        let written = head.write(self.writer.get_mut()).and_then(|()| {
            let keys = block.keys.iter().flatten();
            let keys: Vec<u8> = keys.flat_map(|part| part.to_le_bytes()).collect();
            self.writer.get_mut().write_all(&keys)
        });
        written.map_err(|error| self.at(error))?;
        self.writer
            .write(&block.batch)
            .map_err(|error| self.at(io::Error::other(error)))
    }

    fn finish(mut self) -> Result<Run, WriteError> {
        let ended = BlockHead { rows: 0, bytes: 0 }.write(self.writer.get_mut());
        ended.map_err(|error| self.at(error))?;
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
        Ok(Run::Spilled(Spilled {
            file: Some(file),
            reader: None,
            schema: self.schema,
        }))
    }
}

/// What stands before the keys of a block.
struct BlockHead {
    /// None behind the last block.
    rows: u64,
    /// Bytes of the values of its rows.
    bytes: u64,
}

impl BlockHead {
    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&self.rows.to_le_bytes())?;
        to.write_all(&self.bytes.to_le_bytes())
    }

    fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut number = || {
            let mut bytes = [0; 8];
            from.read_exact(&mut bytes)
                .map(|()| u64::from_le_bytes(bytes))
        };
        Ok(Self {
            rows: number()?,
            bytes: number()?,
        })
    }
}

/// A run in a file.
pub(super) struct Spilled {
    /// Until it is read.
    file: Option<File>,
    reader: Option<Box<StreamReader<BufReader<File>>>>,
    schema: SchemaRef,
}

impl Spilled {
    fn next(&mut self) -> Result<Option<Block>, ArrowError> {
        if let Some(file) = self.file.take() {
            let file = BufReader::with_capacity(64 << 10, file);
            self.reader = Some(Box::new(StreamReader::try_new(file, None)?));
        }
        let Some(reader) = &mut self.reader else {
            return Ok(None);
        };
        let head = BlockHead::read(reader.get_mut())?;
        if head.rows == 0 {
            self.reader = None;
            return Ok(None);
        }
        let rows = usize::try_from(head.rows).unwrap_or(usize::MAX);
        let mut bytes = vec![0; rows.saturating_mul(size_of::<Key>())];
        reader.get_mut().read_exact(&mut bytes)?;
        let parts = bytes.as_chunks::<8>().0;
        let parts = parts.as_chunks::<3>().0.iter();
        Ok(Some(Block {
            keys: parts.map(|key| key.map(u64::from_le_bytes)).collect(),
            displaced: None,
            bytes: usize::try_from(head.bytes).unwrap_or(usize::MAX),
            batch: None,
        }))
    }

    /// The rows of the block whose keys were read last.
    fn rows(&mut self) -> Result<RecordBatch, ArrowError> {
        let read = self.reader.as_mut().and_then(|reader| reader.next());
        read.unwrap_or_else(|| Err(ArrowError::IpcError("a block has no rows".to_owned())))
    }
}

/// The blocks of one run.
pub(super) enum Blocks {
    Memory(std::vec::IntoIter<Keyed>),
    Spilled(Spilled),
    Stored(StoredRows),
}

/// The keys of a block, and its rows unless they are still in the file.
pub(super) struct Block {
    pub keys: Vec<Key>,
    pub displaced: Option<Vec<Displaced>>,
    /// Bytes of the values of its rows.
    pub bytes: usize,
    pub batch: Option<RecordBatch>,
}

impl From<Keyed> for Block {
    fn from(rows: Keyed) -> Self {
        Self {
            bytes: bytes_of(&rows.batch),
            batch: Some(rows.batch),
            keys: rows.keys,
            displaced: rows.displaced,
        }
    }
}

impl Blocks {
    /// The columns as they are held; `None` of stored rows, which have no codes.
    pub(super) fn schema(&self) -> Option<SchemaRef> {
        match self {
            Self::Memory(blocks) => Some(blocks.as_slice().first()?.batch.schema()),
            Self::Spilled(run) => Some(Arc::clone(&run.schema)),
            Self::Stored(_) => None,
        }
    }

    /// There is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Memory(blocks) if blocks.as_slice().is_empty())
    }

    /// The next block. Before another one is asked for, [`Self::rows`] must be, where the block has none.
    pub(super) fn next(&mut self) -> Result<Option<Block>, WriteError> {
        match self {
            Self::Memory(blocks) => Ok(blocks.next().map(Block::from)),
            Self::Stored(rows) => Ok(rows.next().transpose()?.map(Block::from)),
            Self::Spilled(run) => Ok(run.next()?),
        }
    }

    /// The rows of the block that was given last without rows.
    pub(super) fn rows(&mut self) -> Result<RecordBatch, WriteError> {
        match self {
            Self::Spilled(run) => Ok(run.rows()?),
            Self::Memory(_) | Self::Stored(_) => Err(WriteError::Arrow(ArrowError::ComputeError(
                "the rows of a block are asked for twice".to_owned(),
            ))),
        }
    }
}

/// All rows in order, a block at a time, so that a second copy of all is never held.
fn sorted_blocks(held: &[Keyed], words: &Words) -> impl Iterator<Item = Result<Keyed, WriteError>> {
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
    let widths: Vec<Vec<u32>> = batches.iter().map(|batch| widths(batch)).collect();
    // All batches have the same columns.
    let longest = words.longest();
    let codes = batches.first().map_or(0, |batch| {
        let columns = batch.columns().iter().zip(longest);
        let codes = columns.filter(|(column, _)| super::words::is_code(column.data_type()));
        codes.map(|(_, longest)| longest).sum()
    });
    let mut picks = Vec::new();
    let mut from = 0;
    std::iter::from_fn(move || {
        let (mut bytes, mut spelled) = (0, 0);
        picks.clear();
        let mut keys = Vec::new();
        for (key, batch, row) in order.iter().skip(from).take(BLOCK_ROWS) {
            let (batch, row) = (*batch as usize, *row as usize);
            let width = widths.get(batch).and_then(|widths| widths.get(row));
            let width = width.map_or(0, |width| *width as usize);
            bytes += width;
            spelled += width + codes;
            if !keys.is_empty() && (bytes > BLOCK || spelled > SPELLED) {
                break;
            }
            picks.push((batch, row));
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

/// Bytes of each row of a batch.
fn widths(batch: &RecordBatch) -> Vec<u32> {
    let mut widths = vec![0; batch.num_rows()];
    for column in batch.columns() {
        add_widths(column, &mut widths);
    }
    widths
}

/// Adds the bytes of each value of a column.
fn add_widths(column: &ArrayRef, widths: &mut [u32]) {
    let add = |widths: &mut [u32], offsets: &[i32], of: &dyn Fn(usize, usize) -> u32| {
        for (width, [from, to]) in widths.iter_mut().zip(offsets.array_windows::<2>()) {
            let (from, to) = (from.unsigned_abs() as usize, to.unsigned_abs() as usize);
            *width = width.saturating_add(of(from, to)).saturating_add(4);
        }
    };
    let many = |offsets: &[i32], values: &ArrayRef, widths: &mut [u32]| {
        let mut of_values = vec![0; values.len()];
        add_widths(values, &mut of_values);
        let mut sum = 0u64;
        let sums = of_values.iter().map(|width| {
            sum += u64::from(*width);
            sum
        });
        let sums: Vec<u64> = std::iter::once(0).chain(sums).collect();
        add(widths, offsets, &|from, to| {
            let to = sums.get(to).copied().unwrap_or(sum);
            let from = sums.get(from).copied().unwrap_or(to);
            u32::try_from(to.saturating_sub(from)).unwrap_or(u32::MAX)
        });
    };
    match column.data_type() {
        DataType::Utf8 => {
            let offsets = column.as_string::<i32>().value_offsets();
            for (width, [from, to]) in widths.iter_mut().zip(offsets.array_windows::<2>()) {
                *width = width.saturating_add(to.abs_diff(*from)).saturating_add(4);
            }
        }
        DataType::List(_) => {
            let list = column.as_list::<i32>();
            many(list.value_offsets(), list.values(), widths);
        }
        DataType::Map(..) => {
            let map = column.as_map();
            let entries: ArrayRef = Arc::new(map.entries().clone());
            many(map.value_offsets(), &entries, widths);
        }
        DataType::Struct(_) => {
            for column in column.as_struct().columns() {
                add_widths(column, widths);
            }
        }
        kind => {
            let fixed = u32::try_from(kind.primitive_width().unwrap_or(1)).unwrap_or(u32::MAX);
            for width in widths {
                *width = width.saturating_add(fixed);
            }
        }
    }
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
