//! Sorts batches that come in any order into runs, in bounded memory.
//!
//! ```text
//! batches ──▶ held, few strings as codes ──full──▶ sorted ──▶ a spilled run ──many──▶ merged into one
//!                                        └─finish─▶ sorted ──▶ a run in memory
//! ```

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::DataType;

use super::WriteError;
use super::blocks::{BLOCK, BLOCK_ROWS, Key, Keyed, RunWriter, SortedRun, StoredRows};
use super::runs::Runs;
use super::words::{Common, Packer, Words};

/// The most bytes of a block whose codes are spelled out.
const SPELLED: usize = 4 * BLOCK;
/// The bounds of the number of runs of one collector. If there are more, they are merged into one, so that
/// neither open files nor the blocks held by the merge grow with the input. Within these bounds, half the
/// memory must have room for a block of each run. Fewer merges are better, because each writes all rows once
/// more.
const RUNS: (usize, usize) = (16, 128);

/// Gathers the batches of one worker, sorts them and spills them run by run.
pub struct Collector {
    folder: PathBuf,
    limit: usize,
    packer: Packer,
    held: Vec<Keyed>,
    bytes: usize,
    runs: Vec<SortedRun>,
}

/// All collected rows, as sorted runs.
#[derive(Default)]
pub struct Collected {
    runs: Vec<SortedRun>,
}

impl Collector {
    /// `memory` is the number of bytes that are held before they are sorted. Sorting takes as much again for
    /// one block. Codes of other `words` are spelled out when runs are merged.
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
        let mut run = RunWriter::create(&self.folder, first.batch.schema(), self.packer.words())?;
        for block in sorted_blocks(&held, self.packer.words()) {
            run.write(&block?)?;
        }
        let run = run.finish()?;
        self.runs.push(run);
        // The held batches are freed before runs are merged.
        drop(held);
        if self.runs.len() >= (self.limit / BLOCK / 2).clamp(RUNS.0, RUNS.1) {
            self.compact()
        } else {
            Ok(())
        }
    }

    /// The held batches, all with the same columns.
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
        let mut runs = Runs::new(std::mem::take(&mut self.runs))?;
        let mut merged: Option<RunWriter> = None;
        while let Some(block) = runs.next_block()? {
            let mut run = match merged.take() {
                Some(run) => run,
                None => {
                    let schema = block.batch.schema();
                    RunWriter::create(&self.folder, schema, self.packer.words())?
                }
            };
            run.write(&block)?;
            merged = Some(run);
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
        let words = self.packer.words();
        let blocks = sorted_blocks(&held, words).collect::<Result<_, _>>()?;
        self.runs.push(SortedRun::memory(blocks, words));
        Ok(Collected { runs: self.runs })
    }
}

impl Collected {
    /// Adds the rows that another collector has gathered.
    pub fn append(&mut self, other: Self) {
        self.runs.extend(other.runs);
    }

    /// Adds rows of data files.
    pub fn append_stored(&mut self, rows: StoredRows) {
        self.runs.push(SortedRun::stored(rows));
    }

    /// Takes out the rows of some places, for a merge of these places. The rows of data files for the same
    /// places are added afterwards.
    ///
    /// # Errors
    /// Rows of data files were added before. This is a defect.
    pub fn take(&mut self, places: &RangeInclusive<u64>) -> Result<Self, WriteError> {
        let runs = self.runs.iter_mut().map(|run| run.take(places));
        let runs = runs.collect::<Result<_, _>>()?;
        Ok(Self { runs })
    }

    /// The runs as one sequence.
    pub(super) fn into_runs(self) -> Result<Runs, WriteError> {
        Runs::new(self.runs)
    }
}

/// All rows in order, one block at a time, so that there is never a second copy of all rows.
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

/// The bytes of each row of a batch.
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
