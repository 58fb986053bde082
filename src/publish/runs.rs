//! Reads several sorted runs as one sequence.
//!
//! ```text
//! the keys of one block of each run ──heap──▶ stretches: rows of one run that come before all others
//! rows of a block: read when its first row is next, let go when all are used up and handed over
//! ```

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use arrow::array::{ArrayData, ArrayRef, MutableArrayData, RecordBatch, make_array};
use arrow::compute::interleave_record_batch;
use arrow::error::ArrowError;

use super::WriteError;
use super::blocks::{
    BLOCK, BLOCK_ROWS, Block, Displaced, Key, Keyed, SortedRun, StoredRows, bytes_of,
};
use super::words::Common;

/// The next rows of one run that come before the rows of all other runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    run: usize,
    /// The block that holds the rows. The rows are `from..to`.
    pub source: usize,
    pub from: usize,
    pub to: usize,
}

struct Cursor {
    blocks: SortedRun,
    keys: Vec<Key>,
    displaced: Option<Vec<Displaced>>,
    at: usize,
    rows: Rows,
}

/// The rows of the current block of a cursor.
#[derive(Clone, Copy)]
enum Rows {
    /// The rows are still in the file. The number is the mean bytes of a row.
    Waiting(usize),
    /// The rows are held in this block of `sources`.
    Held(usize),
}

/// A block that is being read, or that picked rows still refer to.
struct HeldBlock {
    batch: RecordBatch,
    bytes: usize,
    /// The mean bytes of a row.
    row_bytes: usize,
}

impl HeldBlock {
    fn new(batch: RecordBatch) -> Self {
        let bytes = bytes_of(&batch);
        Self {
            row_bytes: bytes / batch.num_rows().max(1) + 1,
            bytes,
            batch,
        }
    }
}

/// Runs that are being merged. It holds the keys of one block of each run, the rows of the blocks that are
/// begun, and used-up blocks until they are released.
pub(super) struct Runs {
    common: Common,
    cursors: Vec<Cursor>,
    heads: BinaryHeap<Reverse<(Key, usize)>>,
    sources: Vec<HeldBlock>,
    /// The bytes of the used-up blocks.
    used_up: usize,
}

impl Runs {
    /// # Errors
    /// A run that cannot be read.
    pub fn new(runs: Vec<SortedRun>) -> Result<Self, WriteError> {
        let with_rows = runs.iter().filter(|blocks| !blocks.is_empty());
        let with_rows = with_rows.map(|run| (run.words(), run.schema()));
        let mut merge = Self {
            common: Common::over(with_rows),
            cursors: Vec::with_capacity(runs.len()),
            heads: BinaryHeap::with_capacity(runs.len()),
            sources: Vec::new(),
            used_up: 0,
        };
        for blocks in runs {
            let run = merge.cursors.len();
            merge.cursors.push(Cursor {
                blocks,
                keys: Vec::new(),
                displaced: None,
                at: 0,
                rows: Rows::Waiting(0),
            });
            merge.load(run)?;
        }
        Ok(merge)
    }

    /// The columns that are codes in all runs.
    pub fn common(&self) -> &Common {
        &self.common
    }

    /// The mean bytes of the rows of the block that has the next row; `None` at the end.
    pub fn next_width(&self) -> Option<usize> {
        let Reverse((_, run)) = self.heads.peek()?;
        Some(match self.cursors.get(*run)?.rows {
            Rows::Waiting(width) => width,
            Rows::Held(source) => self.row_bytes(source),
        })
    }

    /// The next stretch. All its rows lie in one place. It must be given to [`Self::advance`] before the next
    /// call.
    pub fn stretch(&mut self) -> Result<Option<Stretch>, WriteError> {
        let Some(Reverse((first, run))) = self.heads.pop() else {
            return Ok(None);
        };
        let bound = match self.heads.peek() {
            Some(Reverse((other, _))) => *other,
            None => [u64::MAX; 3],
        };
        let Some(cursor) = self.cursors.get_mut(run) else {
            return Ok(None);
        };
        let source = match cursor.rows {
            Rows::Held(source) => source,
            Rows::Waiting(_) => {
                let batch = cursor.blocks.rows()?;
                let batch = self.common.spell_from(cursor.blocks.words(), batch)?;
                cursor.rows = Rows::Held(self.sources.len());
                self.sources.push(HeldBlock::new(batch));
                self.sources.len() - 1
            }
        };
        let from = cursor.at;
        let rest = cursor.keys.get(from..).unwrap_or_default();
        let rows = rest
            .iter()
            .take_while(|key| **key <= bound && key[0] == first[0])
            .count();
        cursor.at = from + rows;
        Ok(Some(Stretch {
            run,
            source,
            from,
            to: cursor.at,
        }))
    }

    /// The key of one row of a stretch that was not given to `advance` yet.
    pub fn key(&self, stretch: Stretch, row: usize) -> Option<Key> {
        self.cursors.get(stretch.run)?.keys.get(row).copied()
    }

    /// The event that had displaced one row of such a stretch; `None` if it was not stored as a duplicate.
    pub fn displaced(&self, stretch: Stretch, row: usize) -> Option<Displaced> {
        let stored = self.cursors.get(stretch.run)?.displaced.as_ref()?;
        stored.get(row).copied()
    }

    /// Goes to the row behind a stretch.
    pub fn advance(&mut self, stretch: Stretch) -> Result<(), WriteError> {
        let next = self
            .cursors
            .get(stretch.run)
            .and_then(|cursor| cursor.keys.get(cursor.at));
        match next {
            Some(key) => {
                self.heads.push(Reverse((*key, stretch.run)));
                Ok(())
            }
            None => self.load(stretch.run),
        }
    }

    /// Loads the next block of a run that has rows.
    fn load(&mut self, run: usize) -> Result<(), WriteError> {
        let Some(cursor) = self.cursors.get_mut(run) else {
            return Ok(());
        };
        if let Rows::Held(source) = cursor.rows {
            let used_up = self.sources.get(source);
            self.used_up += used_up.map_or(0, |source| source.bytes);
        }
        cursor.keys = Vec::new();
        cursor.at = 0;
        cursor.rows = Rows::Waiting(0);
        while let Some(block) = cursor.blocks.next()? {
            let Block {
                keys,
                displaced,
                bytes,
                batch,
            } = block;
            let Some(first) = keys.first() else {
                continue;
            };
            self.heads.push(Reverse((*first, run)));
            cursor.rows = match batch {
                None => Rows::Waiting(bytes / keys.len()),
                Some(batch) => {
                    let words = cursor.blocks.words();
                    let batch = self.common.spell_from(words, batch)?;
                    self.sources.push(HeldBlock::new(batch));
                    Rows::Held(self.sources.len() - 1)
                }
            };
            cursor.keys = keys;
            cursor.displaced = displaced;
            break;
        }
        Ok(())
    }

    /// The next rows in order, as one block; `None` at the end.
    ///
    /// # Errors
    /// A run that cannot be read.
    pub fn next_block(&mut self) -> Result<Option<Keyed>, WriteError> {
        // The last block has copies of its rows, so used-up blocks can be freed.
        self.release();
        let (mut rows, mut keys, mut displaced) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = 0;
        loop {
            let next = self.next_width();
            let is_full = next.is_none_or(|width| bytes + width > BLOCK);
            let is_full = is_full || rows.len() >= BLOCK_ROWS || self.is_crowded();
            if is_full && !rows.is_empty() {
                break;
            }
            let Some(stretch) = self.stretch()? else {
                break;
            };
            for row in stretch.from..stretch.to {
                rows.push((stretch.source, row));
                keys.extend(self.key(stretch, row));
                displaced.extend(self.displaced(stretch, row));
            }
            bytes += (stretch.to - stretch.from) * self.row_bytes(stretch.source);
            self.advance(stretch)?;
        }
        if rows.is_empty() {
            return Ok(None);
        }
        Ok(Some(Keyed {
            batch: self.gather(&rows)?,
            displaced: (displaced.len() == keys.len()).then_some(displaced),
            keys,
        }))
    }

    /// Mean bytes of a row of a block.
    pub fn row_bytes(&self, source: usize) -> usize {
        self.sources
            .get(source)
            .map_or(0, |source| source.row_bytes)
    }

    /// Whether used-up blocks hold so much memory that the rows picked from them should be handed over.
    pub fn is_crowded(&self) -> bool {
        self.used_up > USED_UP * BLOCK || self.sources.len() > 4 * self.cursors.len() + 64
    }

    /// Frees used-up blocks. Rows that were picked before are no longer valid.
    pub fn release(&mut self) {
        let mut old: Vec<Option<HeldBlock>> = std::mem::take(&mut self.sources)
            .into_iter()
            .map(Some)
            .collect();
        self.used_up = 0;
        for cursor in &mut self.cursors {
            let Rows::Held(held) = cursor.rows else {
                continue;
            };
            if let Some(source) = old.get_mut(held).and_then(Option::take) {
                cursor.rows = Rows::Held(self.sources.len());
                self.sources.push(source);
            }
        }
    }

    /// The rows `(block, row)` in order. A stretch of one block is not copied.
    pub fn gather(&self, rows: &[(usize, usize)]) -> Result<RecordBatch, WriteError> {
        let stretches = stretches(rows);
        if let [(source, from, to)] = stretches.as_slice()
            && let Some(block) = self.sources.get(*source)
        {
            return Ok(block.batch.slice(*from, to - from));
        }
        if stretches.len() * LONG <= rows.len() {
            return self.copy(rows.len(), &stretches);
        }
        let blocks: Vec<&RecordBatch> = self.sources.iter().map(|source| &source.batch).collect();
        Ok(interleave_record_batch(&blocks, rows)?)
    }

    /// The rows of several stretches. Each stretch is copied at once.
    fn copy(
        &self,
        rows: usize,
        stretches: &[(usize, usize, usize)],
    ) -> Result<RecordBatch, WriteError> {
        // Most blocks that are held have no part in the copy.
        let mut used: Vec<usize> = stretches.iter().map(|(source, ..)| *source).collect();
        used.sort_unstable();
        used.dedup();
        let no_block = || WriteError::Defect("rows of no block".to_owned());
        let blocks = used
            .iter()
            .map(|source| Some(&self.sources.get(*source)?.batch));
        let blocks: Vec<&RecordBatch> = blocks.collect::<Option<_>>().ok_or_else(no_block)?;
        let first = blocks.first().ok_or_else(no_block)?;
        // The index of the block of each stretch among the used blocks.
        let places = stretches.iter().map(|(source, from, to)| {
            let block = used.binary_search(source).ok()?;
            Some((block, *from, *to))
        });
        let places: Vec<_> = places.collect::<Option<_>>().ok_or_else(no_block)?;
        let column = |column: usize| -> Result<ArrayRef, ArrowError> {
            let parts: Vec<ArrayData> = blocks
                .iter()
                .map(|block| block.column(column).to_data())
                .collect();
            let mut copied = MutableArrayData::new(parts.iter().collect(), false, rows);
            for (block, from, to) in &places {
                copied.try_extend(*block, *from, *to)?;
            }
            Ok(make_array(copied.freeze()))
        };
        let columns = (0..first.num_columns()).map(column);
        let columns = columns.collect::<Result<_, _>>()?;
        Ok(RecordBatch::try_new(first.schema(), columns)?)
    }
}

/// Sorted rows of data files as one sequence.
pub fn in_order(mut runs: Vec<StoredRows>) -> StoredRows {
    if runs.len() <= 1 {
        return runs.pop().unwrap_or_else(|| Box::new(std::iter::empty()));
    }
    let mut merged = Some(runs);
    let mut open = None;
    let mut next = move || {
        if let Some(runs) = merged.take() {
            open = Some(Runs::new(
                runs.into_iter().map(SortedRun::stored).collect(),
            )?);
        }
        open.as_mut().map_or(Ok(None), Runs::next_block)
    };
    Box::new(std::iter::from_fn(move || next().transpose()))
}

/// The number of used-up blocks that may be held. It is small beside hundreds of runs, and far more than fill a
/// batch.
const USED_UP: usize = 16;
/// The number of rows from which on a stretch is copied at once, because this is faster than row by row.
const LONG: usize = 4;

/// Stretches of rows that follow each other in one block: the block, the first row and the row behind the last.
fn stretches(rows: &[(usize, usize)]) -> Vec<(usize, usize, usize)> {
    let mut stretches: Vec<(usize, usize, usize)> = Vec::new();
    for (source, row) in rows {
        match stretches.last_mut() {
            Some((known, _, to)) if known == source && to == row => *to += 1,
            _ => stretches.push((*source, *row, row + 1)),
        }
    }
    stretches
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, StringArray};

    use super::super::{Collector, Words};
    use super::*;

    /// Blocks whose codes are spelled out are larger than others. Their size alone must not hand rows over.
    #[test]
    fn only_used_up_blocks_crowd() {
        let block = |run: u64, time: u64| {
            let text = "x".repeat(BLOCK * 2);
            let column: ArrayRef = Arc::new(StringArray::from(vec![text]));
            let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
            Keyed::new(batch, vec![[0, time, run]])
        };
        let runs = (0..40).map(|run| vec![block(run, 0), block(run, 1)]);
        let words = Words::new(1 << 20, 1);
        let runs = runs.map(|blocks| SortedRun::memory(blocks, &words));
        let mut runs = Runs::new(runs.collect()).unwrap();
        let mut taken = 0;
        let mut crowded = Vec::new();
        while let Some(stretch) = runs.stretch().unwrap() {
            assert!(!runs.is_crowded(), "{taken}");
            runs.advance(stretch).unwrap();
            taken += 1;
            if runs.is_crowded() {
                runs.release();
                crowded.push(taken);
            }
        }
        // Eight such blocks have as many bytes as sixteen others.
        assert_eq!(crowded, [8, 16, 24, 32, 40, 48, 56, 64, 72, 80]);
    }

    /// However many runs have a wide row next, only the rows of one run are held, and the picked rows.
    #[test]
    fn few_wide_rows_are_held() {
        const WIDE: usize = 3 << 20;
        let folder = tempfile::tempdir().unwrap();
        let words = Words::new(1 << 20, 1);
        let text = |n: u64| match n / 60 == n % 60 % 40 {
            true => format!("{n}").repeat(WIDE / format!("{n}").len()),
            false => format!("row {n}"),
        };
        let mut collector = Collector::new(folder.path(), WIDE + WIDE / 2, &words);
        // One wide row in each batch. Neighbours are far apart, so every run has rows of nearly every time.
        for from in 0..60 {
            let ids: Vec<u64> = (0..40).map(|i| i * 60 + from).collect();
            let texts: StringArray = ids.iter().map(|id| Some(text(*id))).collect();
            let column: ArrayRef = Arc::new(texts);
            let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
            let keys = ids.iter().map(|id| [0, *id, *id]).collect();
            collector.push(Keyed::new(batch, keys)).unwrap();
        }
        let mut runs = collector.finish().unwrap().into_runs().unwrap();
        let (mut next, mut most) = (0, 0);
        while let Some(stretch) = runs.stretch().unwrap() {
            let rows: Vec<(usize, usize)> = (stretch.from..stretch.to)
                .map(|row| (stretch.source, row))
                .collect();
            for (text_of, row) in runs
                .gather(&rows)
                .unwrap()
                .column(0)
                .as_string::<i32>()
                .iter()
                .zip(stretch.from..)
            {
                assert_eq!(runs.key(stretch, row), Some([0, next, next]));
                assert!(text_of == Some(&text(next)), "{next}");
                next += 1;
            }
            most = most.max(runs.sources.iter().map(|source| source.bytes).sum());
            runs.advance(stretch).unwrap();
            runs.release();
        }
        assert_eq!(next, 2400);
        assert!(most < 2 * WIDE, "{most}");
    }
}
