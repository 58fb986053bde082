//! Several sorted runs as one sequence.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;

use super::WriteError;
use super::collect::{BLOCK, Blocks, Key, bytes_of};

/// The next rows of one run that come before those of every other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    run: usize,
    /// The block they lie in, and the rows `from..to` of it.
    pub source: usize,
    pub from: usize,
    pub to: usize,
}

struct Cursor {
    blocks: Blocks,
    keys: Vec<Key>,
    at: usize,
    /// Index of the block among `sources`.
    source: usize,
}

/// A block that is being read, or that rows picked from it still refer to.
struct Source {
    batch: RecordBatch,
    /// Mean bytes of a row.
    row_bytes: usize,
}

/// Runs being merged: one block of each, and used-up blocks until they are released.
pub(super) struct Runs {
    cursors: Vec<Cursor>,
    heads: BinaryHeap<Reverse<(Key, usize)>>,
    sources: Vec<Source>,
    /// Bytes of all blocks held.
    held: usize,
}

impl Runs {
    pub fn new(runs: Vec<Blocks>) -> Result<Self, WriteError> {
        let mut merge = Self {
            cursors: Vec::with_capacity(runs.len()),
            heads: BinaryHeap::with_capacity(runs.len()),
            sources: Vec::new(),
            held: 0,
        };
        for blocks in runs {
            let run = merge.cursors.len();
            merge.cursors.push(Cursor {
                blocks,
                keys: Vec::new(),
                at: 0,
                source: 0,
            });
            merge.load(run)?;
        }
        Ok(merge)
    }

    /// The next stretch; all of one place. It must be handed to [`Self::advance`] before the next.
    pub fn stretch(&mut self) -> Option<Stretch> {
        let Reverse((first, run)) = self.heads.pop()?;
        let bound = match self.heads.peek() {
            Some(Reverse((other, _))) => *other,
            None => [u64::MAX; 3],
        };
        let cursor = self.cursors.get_mut(run)?;
        let from = cursor.at;
        let rest = cursor.keys.get(from..).unwrap_or_default();
        let rows = rest
            .iter()
            .take_while(|key| **key <= bound && key[0] == first[0])
            .count();
        cursor.at = from + rows;
        Some(Stretch {
            run,
            source: cursor.source,
            from,
            to: cursor.at,
        })
    }

    /// The key of one row of a stretch that is not advanced yet.
    pub fn key(&self, stretch: Stretch, row: usize) -> Option<Key> {
        self.cursors.get(stretch.run)?.keys.get(row).copied()
    }

    /// Goes on behind a stretch.
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

    /// Takes the next block of a run that has rows.
    fn load(&mut self, run: usize) -> Result<(), WriteError> {
        let Some(cursor) = self.cursors.get_mut(run) else {
            return Ok(());
        };
        cursor.keys = Vec::new();
        cursor.at = 0;
        while let Some(block) = cursor.blocks.next()? {
            let Some(first) = block.keys.first() else {
                continue;
            };
            self.heads.push(Reverse((*first, run)));
            let bytes = bytes_of(&block.batch);
            self.held += bytes;
            cursor.source = self.sources.len();
            self.sources.push(Source {
                row_bytes: bytes / block.keys.len() + 1,
                batch: block.batch,
            });
            cursor.keys = block.keys;
            break;
        }
        Ok(())
    }

    /// Mean bytes of a row of a block.
    pub fn row_bytes(&self, source: usize) -> usize {
        self.sources
            .get(source)
            .map_or(0, |source| source.row_bytes)
    }

    /// So much is held in used-up blocks that the picks from them should be handed over.
    pub fn is_crowded(&self) -> bool {
        self.held > (2 * self.cursors.len() + 16) * BLOCK
            || self.sources.len() > 4 * self.cursors.len() + 64
    }

    /// Lets go of used-up blocks. Rows picked before are no longer valid.
    pub fn release(&mut self) {
        let mut old: Vec<Option<Source>> = std::mem::take(&mut self.sources)
            .into_iter()
            .map(Some)
            .collect();
        self.held = 0;
        for cursor in &mut self.cursors {
            if cursor.keys.is_empty() {
                continue;
            }
            if let Some(source) = old.get_mut(cursor.source).and_then(Option::take) {
                self.held += bytes_of(&source.batch);
                cursor.source = self.sources.len();
                self.sources.push(source);
            }
        }
    }

    /// The rows `(block, row)` in order; a stretch of one block is not copied.
    pub fn gather(&self, rows: &[(usize, usize)]) -> Result<RecordBatch, WriteError> {
        if let (Some((source, from)), Some((last, to))) = (rows.first(), rows.last()) {
            let stretch = source == last
                && to.checked_sub(*from) == Some(rows.len() - 1)
                && rows.iter().all(|(other, _)| other == source);
            if stretch && let Some(block) = self.sources.get(*source) {
                return Ok(block.batch.slice(*from, rows.len()));
            }
        }
        let blocks: Vec<&RecordBatch> = self.sources.iter().map(|source| &source.batch).collect();
        Ok(interleave_record_batch(&blocks, rows)?)
    }
}
