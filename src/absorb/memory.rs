//! How `--memory` is divided while a source is absorbed.

use crate::config::Job;
use crate::raw::DecodeMemory;

/// Objects up to this size are downloaded whole ahead of their worker, if the memory allows.
const WHOLE: u64 = 4 << 20;
/// Bytes of a stored file that are read at once, if the memory allows.
const AHEAD: u64 = 1 << 20;

/// The parts of `--memory` while a source is absorbed. The parts that are in use at one time add up to less
/// than the whole. The rest is for the blocks of the merge and for the runtime.
pub struct Shares {
    /// Bytes of the collector of one worker. Sorting takes as much again for a moment.
    pub collector: usize,
    /// Bytes of one sorter of narrow rows.
    pub sorter: usize,
    pub dropped: usize,
    /// Bytes of one unfinished row group. This is the share of each writer of the merge.
    pub row_group: usize,
    /// Bytes of the words of columns with few different strings, for all workers together.
    pub words: usize,
    /// Bytes of the filters of all rules.
    pub filters: usize,
    /// Bytes of data files that are on their way to be staged while other files are written.
    pub in_flight: u64,
    /// Objects of at most so many bytes are downloaded whole. About three for each worker wait at one time.
    pub whole: u64,
    pub ahead: u64,
    pub decoding: DecodeMemory,
}

impl Shares {
    /// `rules` is how many rules the source has; `stored` says whether it has events already.
    pub fn new(job: &Job, rules: usize, stored: bool) -> Self {
        let memory = usize::try_from(job.memory).unwrap_or(usize::MAX);
        let threads = job.threads.max(1);
        // Where there are stored events, rows of three kinds are sorted at the same time.
        let narrow = if stored { memory / 15 } else { memory / 5 };
        Self {
            collector: memory / 6 / threads,
            sorter: narrow / (rules.max(1) * threads),
            dropped: memory / 16,
            row_group: memory / 8,
            words: memory / 16,
            filters: memory / 32,
            in_flight: job.memory / 8,
            whole: WHOLE.min(job.memory / 16 / (3 * threads as u64)),
            ahead: AHEAD.min(job.memory / 64 / threads as u64),
            decoding: DecodeMemory::new(memory / 4, threads),
        }
    }
}
