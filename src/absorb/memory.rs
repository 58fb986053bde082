//! Who may hold how much of `--memory` while a source is absorbed.

use crate::config::Job;
use crate::raw::DecodeMemory;

/// Objects up to this size are downloaded whole ahead of their worker, if the memory allows.
const WHOLE: u64 = 4 << 20;
/// Bytes of a stored file that are read at once, if the memory allows.
const AHEAD: u64 = 1 << 20;

/// How `--memory` is shared while a source is absorbed. Those that are held at one time add up to less
/// than the whole: what is left is for the blocks of the merge and for the runtime.
pub struct Shares {
    /// Bytes of one worker's collector. Sorting takes a second share of this size for a moment.
    pub collector: usize,
    /// Bytes of one sorter of narrow rows.
    pub sorter: usize,
    pub dropped: usize,
    /// Bytes of one unfinished row group.
    pub row_group: usize,
    /// Bytes of the words of columns of few strings, as all workers know them.
    pub words: usize,
    /// Bytes of the filters of all rules.
    pub filters: usize,
    /// Bytes of data files that are staged at once, beside the writing of others.
    pub in_flight: u64,
    /// Bytes up to which an object is downloaded whole; some three a worker wait at once.
    pub whole: u64,
    pub ahead: u64,
    pub decoding: DecodeMemory,
}

impl Shares {
    /// `rules` is how many rules the source has; `stored` says whether it has events already.
    pub fn new(job: &Job, rules: usize, stored: bool) -> Self {
        let memory = usize::try_from(job.memory).unwrap_or(usize::MAX);
        let threads = job.threads.max(1);
        // Beside stored events, rows of three kinds are sorted at once.
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
