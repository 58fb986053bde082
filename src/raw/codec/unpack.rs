//! A decoder of one stream, and what it is lent and says.

use super::super::buffer::Buffer;
use super::super::memory::{HeldMemory, SharedMemory};

/// Lends the memory that decoders share.
pub(super) struct Lender<'a> {
    pub windows: &'a SharedMemory,
    /// Whether the caller may wait for memory.
    pub wait: bool,
}

impl Lender<'_> {
    /// Takes so many bytes. The caller must hold none of this memory.
    pub fn take(&self, bytes: u64) -> HeldMemory {
        match self.wait {
            true => self.windows.take(bytes),
            false => self.windows.take_now(bytes),
        }
    }
}

/// How far a decoder has come.
#[derive(Debug, Default)]
pub(super) struct Ran {
    /// How many bytes it has read.
    pub read: usize,
    /// Whether the stream has ended.
    pub ended: bool,
}

/// Why a stream cannot be decompressed.
#[derive(Debug)]
pub(super) struct Damage {
    pub why: String,
    /// How many bytes of the stream are right. `None` stands for all bytes that were read before.
    pub right: Option<u64>,
}

impl From<String> for Damage {
    fn from(why: String) -> Self {
        Self { why, right: None }
    }
}

impl From<std::io::Error> for Damage {
    fn from(error: std::io::Error) -> Self {
        error.to_string().into()
    }
}

/// Moves bytes from the front of `rest` to the end of `held`, until `held` has `wanted` bytes. False where `rest` has too
/// few.
pub(super) fn gather(held: &mut Vec<u8>, rest: &mut &[u8], wanted: usize) -> bool {
    let missing = wanted.saturating_sub(held.len());
    let (taken, behind) = rest.split_at(missing.min(rest.len()));
    held.extend_from_slice(taken);
    *rest = behind;
    held.len() >= wanted
}

/// A decoder of one stream.
pub(super) trait Unpack {
    /// Decompresses a part of `input`, and appends at most [`WINDOW`](super::WINDOW) bytes to `out`. Without input it gives the bytes
    /// that it holds.
    fn run(&mut self, input: &[u8], out: &mut Buffer, memory: &Lender<'_>) -> Result<Ran, Damage>;

    /// Whether the stream may end here, because it has no end mark.
    fn may_end(&self) -> bool {
        false
    }
}
