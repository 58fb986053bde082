//! Sorted runs of rows. They are held in memory, spilled into a file, or read from data files.
//!
//! ```text
//! spilled run:  schema │ keys of a block │ its rows │ keys │ rows │ … │ no keys
//!                        read ahead        read when the first of them is next
//! index:        place ──▶ the block that has its first row
//! ```
//!
//! Rows may have any width. A row that is wider than a block is a block of its own. A block is read when its
//! first row is the next of all runs. A merge therefore holds few wide rows, however many runs it reads.
//!
//! A run carries the words of its columns, and knows where the rows of each place begin. Any set of places can
//! therefore be merged by itself.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use super::WriteError;
use super::words::Words;
use crate::dedup::EventId;

/// The bytes of one block of a spilled run. The merge holds one block of each run. A wider row is a block of
/// its own.
pub(super) const BLOCK: usize = 512 << 10;
/// The most rows of one block.
pub(super) const BLOCK_ROWS: usize = 8192;

/// The three integers by which rows are ordered: place, sortable time, id.
pub type Key = [u64; 3];

/// A batch with the key of each row.
#[derive(Debug, Clone)]
pub struct Keyed {
    /// The columns of the rows, without the columns that are in the key: event time, raw object and record.
    pub batch: RecordBatch,
    /// The key of each row.
    pub keys: Vec<Key>,
    /// For stored duplicates, the event that displaced each row.
    pub displaced: Option<Vec<Displaced>>,
}

/// The index of the rule that dropped an event, and the event that displaced it.
pub type Displaced = (u64, EventId);

/// Rows of data files, in order.
pub type StoredRows = Box<dyn Iterator<Item = Result<Keyed, WriteError>> + Send>;

/// One sorted run.
pub(super) struct SortedRun {
    /// The words of the columns that are codes; `None` for stored rows, which have no codes.
    words: Option<Words>,
    blocks: Blocks,
}

impl Keyed {
    /// Rows of events that this commit brings.
    pub const fn new(batch: RecordBatch, keys: Vec<Key>) -> Self {
        Self {
            batch,
            keys,
            displaced: None,
        }
    }

    /// Some of the rows.
    fn slice(&self, rows: Range<usize>) -> Self {
        let displaced = self.displaced.as_ref();
        Self {
            batch: self.batch.slice(rows.start, rows.len()),
            keys: self.keys.get(rows.clone()).unwrap_or_default().to_vec(),
            displaced: displaced.map(|all| all.get(rows).unwrap_or_default().to_vec()),
        }
    }
}

/// The indices of the rows, with these keys, that lie in some places.
fn rows_of(keys: &[Key], places: &RangeInclusive<u64>) -> Range<usize> {
    let from = keys.partition_point(|key| key[0] < *places.start());
    let to = keys.partition_point(|key| key[0] <= *places.end());
    from..to
}

impl SortedRun {
    pub fn memory(blocks: Vec<Keyed>, words: &Words) -> Self {
        Self {
            words: Some(words.clone()),
            blocks: Blocks::Memory(blocks.into_iter()),
        }
    }

    pub fn stored(rows: StoredRows) -> Self {
        Self {
            words: None,
            blocks: Blocks::Stored(rows),
        }
    }

    /// The words of the columns that are codes; `None` for stored rows, which have no codes.
    pub fn words(&self) -> Option<&Words> {
        self.words.as_ref()
    }

    /// Takes out the rows of some places.
    ///
    /// # Errors
    /// The run holds stored rows. This is a defect, because stored rows are read only for the places that are
    /// asked for.
    pub fn take(&mut self, places: &RangeInclusive<u64>) -> Result<Self, WriteError> {
        let words = self.words.clone();
        let blocks = match &mut self.blocks {
            Blocks::Memory(blocks) => {
                let (mut taken, mut left) = (Vec::new(), Vec::new());
                for block in blocks {
                    let (rows, all) = (rows_of(&block.keys, places), block.keys.len());
                    match (rows.start, rows.end) {
                        (0, to) if to == all => taken.push(block),
                        (from, to) => {
                            let parts = [0..from, to..all].map(|rest| block.slice(rest));
                            left.extend(parts.into_iter().filter(|part| !part.keys.is_empty()));
                            if from < to {
                                taken.push(block.slice(rows));
                            }
                        }
                    }
                }
                self.blocks = Blocks::Memory(left.into_iter());
                Blocks::Memory(taken.into_iter())
            }
            Blocks::Spilled(run) => Blocks::Spilled(run.of(places)),
            Blocks::Stored(_) => {
                let what = "stored rows cannot be cut by their places";
                return Err(WriteError::Defect(what.to_owned()));
            }
        };
        Ok(Self { words, blocks })
    }

    /// The columns as they are held; `None` for stored rows, which have no codes.
    pub fn schema(&self) -> Option<SchemaRef> {
        match &self.blocks {
            Blocks::Memory(blocks) => Some(blocks.as_slice().first()?.batch.schema()),
            Blocks::Spilled(run) => Some(Arc::clone(&run.schema)),
            Blocks::Stored(_) => None,
        }
    }

    /// Whether the run has no rows.
    pub fn is_empty(&self) -> bool {
        matches!(&self.blocks, Blocks::Memory(blocks) if blocks.as_slice().is_empty())
    }

    /// The next block. If it comes without rows, [`Self::rows`] must be called before the next call of this
    /// function.
    pub fn next(&mut self) -> Result<Option<Block>, WriteError> {
        match &mut self.blocks {
            Blocks::Memory(blocks) => Ok(blocks.next().map(Block::from)),
            Blocks::Stored(rows) => Ok(rows.next().transpose()?.map(Block::from)),
            Blocks::Spilled(run) => Ok(run.next()?),
        }
    }

    /// The rows of the last block that came without rows.
    pub fn rows(&mut self) -> Result<RecordBatch, WriteError> {
        match &mut self.blocks {
            Blocks::Spilled(run) => Ok(run.rows()?),
            Blocks::Memory(_) | Blocks::Stored(_) => Err(WriteError::Arrow(
                ArrowError::ComputeError("the rows of a block are asked for twice".to_owned()),
            )),
        }
    }
}

/// The blocks of one run.
enum Blocks {
    Memory(std::vec::IntoIter<Keyed>),
    Spilled(SpilledRun),
    Stored(StoredRows),
}

/// The keys of a block, and its rows unless they are still in the file.
pub(super) struct Block {
    pub keys: Vec<Key>,
    pub displaced: Option<Vec<Displaced>>,
    /// The bytes of the values of its rows.
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

/// A file that counts what is written to it.
struct Counted {
    file: BufWriter<File>,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A run being spilled into an unnamed file.
pub(super) struct RunWriter {
    folder: PathBuf,
    schema: SchemaRef,
    words: Words,
    writer: StreamWriter<Counted>,
    /// For each place, the position of the block with its first row.
    index: Vec<(u64, u64)>,
}

impl RunWriter {
    /// # Errors
    /// The spill folder is full or cannot be written.
    pub fn create(folder: &Path, schema: SchemaRef, words: &Words) -> Result<Self, WriteError> {
        let at = |source| WriteError::Spill {
            folder: folder.display().to_string(),
            source,
        };
        let file = BufWriter::with_capacity(BLOCK, tempfile::tempfile_in(folder).map_err(at)?);
        let file = Counted { file, bytes: 0 };
        let writer =
            StreamWriter::try_new(file, &schema).map_err(|error| at(io::Error::other(error)))?;
        Ok(Self {
            folder: folder.to_owned(),
            schema,
            words: words.clone(),
            writer,
            index: Vec::new(),
        })
    }

    fn at(&self, source: io::Error) -> WriteError {
        WriteError::Spill {
            folder: self.folder.display().to_string(),
            source,
        }
    }

    /// # Errors
    /// See [`Self::create`].
    pub fn write(&mut self, block: &Keyed) -> Result<(), WriteError> {
        let begins = self.writer.get_ref().bytes;
        let mut keys = block.keys.as_slice();
        while let Some([place, ..]) = keys.first().copied() {
            if self.index.last().is_none_or(|(known, _)| *known != place) {
                self.index.push((place, begins));
            }
            let behind = keys.partition_point(|key| key[0] <= place);
            keys = keys.get(behind..).unwrap_or_default();
        }
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

    /// # Errors
    /// See [`Self::create`].
    pub fn finish(mut self) -> Result<SortedRun, WriteError> {
        let ended = BlockHead { rows: 0, bytes: 0 }.write(self.writer.get_mut());
        ended.map_err(|error| self.at(error))?;
        let folder = self.folder.display().to_string();
        let at = |source| WriteError::Spill {
            folder: folder.clone(),
            source,
        };
        let file = self.writer.into_inner();
        let file = file.map_err(|error| at(io::Error::other(error)))?;
        let file = file.file.into_inner();
        Ok(SortedRun {
            words: Some(self.words),
            blocks: Blocks::Spilled(SpilledRun {
                file: Some(Arc::new(file.map_err(|error| at(error.into_error()))?)),
                index: self.index.into(),
                places: 0..=u64::MAX,
                reader: None,
                last: None,
                schema: self.schema,
            }),
        })
    }
}

/// The head of a block in the file, in front of its keys.
struct BlockHead {
    /// The number of rows; 0 behind the last block.
    rows: u64,
    /// The bytes of the values of its rows.
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

/// A position in a file that others read too.
struct ReadAt {
    file: Arc<File>,
    at: u64,
}

impl Read for ReadAt {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(bytes, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for ReadAt {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.file.metadata()?.len().checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// The rows of some places of a run in a file.
struct SpilledRun {
    /// The file, until it is read to its end. Its disk space is free from then on.
    file: Option<Arc<File>>,
    /// For each place, the position of the block with its first row.
    index: Arc<[(u64, u64)]>,
    places: RangeInclusive<u64>,
    reader: Option<Box<StreamReader<BufReader<ReadAt>>>>,
    /// The wanted rows of the block whose keys were read last.
    last: Option<Range<usize>>,
    schema: SchemaRef,
}

impl SpilledRun {
    /// The rows of some places, read from their beginning.
    fn of(&self, places: &RangeInclusive<u64>) -> Self {
        Self {
            file: self.file.clone(),
            index: Arc::clone(&self.index),
            places: places.clone(),
            reader: None,
            last: None,
            schema: Arc::clone(&self.schema),
        }
    }

    /// Goes to the first block with rows of the places; `None` if there is none.
    fn open(&self) -> Result<Option<Box<StreamReader<BufReader<ReadAt>>>>, ArrowError> {
        let first = self
            .index
            .partition_point(|(place, _)| place < self.places.start());
        let (Some(file), Some((_, begins))) = (self.file.clone(), self.index.get(first)) else {
            return Ok(None);
        };
        let file = ReadAt { file, at: 0 };
        let file = BufReader::with_capacity(64 << 10, file);
        // The schema lies in front of the first block.
        let mut reader = StreamReader::try_new(file, None)?;
        if first > 0 {
            reader.get_mut().seek(SeekFrom::Start(*begins))?;
        }
        Ok(Some(Box::new(reader)))
    }

    fn next(&mut self) -> Result<Option<Block>, ArrowError> {
        if self.reader.is_none() {
            self.reader = self.open()?;
        }
        loop {
            let Some(reader) = &mut self.reader else {
                self.file = None;
                return Ok(None);
            };
            let head = BlockHead::read(reader.get_mut())?;
            let rows = usize::try_from(head.rows).unwrap_or(usize::MAX);
            let mut bytes = vec![0; rows.saturating_mul(size_of::<Key>())];
            reader.get_mut().read_exact(&mut bytes)?;
            let parts = bytes.as_chunks::<8>().0;
            let parts = parts.as_chunks::<3>().0.iter();
            let mut keys: Vec<Key> = parts.map(|key| key.map(u64::from_le_bytes)).collect();
            let wanted = rows_of(&keys, &self.places);
            if wanted.end == 0 {
                // The end of the run, or a block behind the places.
                self.reader = None;
                continue;
            }
            if wanted.is_empty() {
                // A block in front of the places.
                self.last = Some(wanted);
                self.rows()?;
                continue;
            }
            let mut bytes = usize::try_from(head.bytes).unwrap_or(usize::MAX);
            if wanted.len() < rows {
                bytes = bytes / rows * wanted.len();
                keys = keys.get(wanted.clone()).unwrap_or_default().to_vec();
            }
            self.last = Some(wanted);
            return Ok(Some(Block {
                keys,
                displaced: None,
                bytes,
                batch: None,
            }));
        }
    }

    /// The rows of the block whose keys were read last.
    fn rows(&mut self) -> Result<RecordBatch, ArrowError> {
        let none = || ArrowError::IpcError("a block has no rows".to_owned());
        let wanted = self.last.take().ok_or_else(none)?;
        let read = self.reader.as_mut().and_then(|reader| reader.next());
        let batch = read.ok_or_else(none)??;
        match wanted.len() == batch.num_rows() {
            true => Ok(batch),
            false => Ok(batch.slice(wanted.start, wanted.len())),
        }
    }
}

/// The bytes of the values of a batch. The columns of a block that was read back share one allocation, and
/// [`RecordBatch::get_array_memory_size`] would count this allocation for each of them.
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
