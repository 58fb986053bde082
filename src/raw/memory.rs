//! The memory that all decoders of one source may hold together.
//!
//! ```text
//! gzip member ──▶ at once, up to an equal part of one half ── larger ──▶ block by block
//! zstd, xz, … ──▶ its window, out of the other half ── none left ──▶ wait until one is let go
//! record ───────▶ beside others, up to a small part ── longer ──▶ one of a few at a time
//! ```
//!
//! The amount of memory changes no result of decoding.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Memory that decoders on several threads share.
#[derive(Debug, Clone)]
pub struct DecodeMemory {
    /// How many decompressed bytes of one object a decoder may hold.
    pub(super) at_once: usize,
    /// The memory for windows of zstd frames, and for what decoders of other codecs hold.
    pub(super) windows: SharedMemory,
    /// How many bytes a record may have that a decoder holds without taking memory from a share. The values of a record
    /// are held several times while they become rows, so this is a small part of the memory.
    pub(super) record: usize,
    /// The memory for longer records.
    pub(super) long_records: SharedMemory,
}

/// The most decompressed bytes of a gzip member that is inflated at once. A larger one gains nothing.
const MOST_AT_ONCE: usize = 64 << 20;
/// A record of so many bytes never takes memory from a share.
const LEAST_RECORD: usize = 512 << 10;

impl DecodeMemory {
    /// The same shares for a decoder inside another decoder, which holds no object at once.
    pub(super) fn inner(&self) -> Self {
        Self {
            at_once: 0,
            ..self.clone()
        }
    }

    /// Divides `bytes` of memory among `decoders`.
    pub fn new(bytes: usize, decoders: usize) -> Self {
        Self {
            at_once: (bytes / 2 / decoders.max(1)).min(MOST_AT_ONCE),
            windows: SharedMemory::new(bytes / 2),
            record: (bytes / 8 / decoders.max(1)).max(LEAST_RECORD),
            long_records: SharedMemory::new(bytes / 2),
        }
    }
}

/// An amount of memory that several threads take parts of: for the windows of decoders, up to 128 MiB each, or for long
/// records.
#[derive(Debug, Clone)]
pub(super) struct SharedMemory(Arc<Share>);

#[derive(Debug)]
struct Share {
    /// The bytes of the whole share.
    all: usize,
    /// The bytes that nobody has taken.
    left: Mutex<usize>,
    /// Tells waiting threads that a part was given back.
    let_go: Condvar,
}

/// A part of shared memory. It is given back when this value is dropped.
#[derive(Debug)]
pub(super) struct HeldMemory {
    share: SharedMemory,
    bytes: usize,
}

impl SharedMemory {
    fn new(bytes: usize) -> Self {
        Self(Arc::new(Share {
            all: bytes,
            left: Mutex::new(bytes),
            let_go: Condvar::new(),
        }))
    }

    /// Takes `bytes`, or as many as are left, without waiting. A caller that holds a part of another share
    /// must use this function: two callers that wait for each other's share would wait for ever.
    pub fn take_now(&self, bytes: u64) -> HeldMemory {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut left = self.0.left.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = bytes.min(*left);
        *left -= bytes;
        HeldMemory {
            share: self.clone(),
            bytes,
        }
    }

    /// Takes `bytes`, and waits until as many are left. A request for more than the whole share takes all of it, so
    /// that its holder is alone. A caller must hold no part of any share, or callers could wait for each other for
    /// ever.
    pub fn take(&self, bytes: u64) -> HeldMemory {
        let Share { all, left, let_go } = &*self.0;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(*all);
        let left = left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = let_go
            .wait_while(left, |left| *left < bytes)
            .unwrap_or_else(PoisonError::into_inner);
        *left -= bytes;
        HeldMemory {
            share: self.clone(),
            bytes,
        }
    }
}

impl HeldMemory {
    /// Whether this part is enough for `bytes`, or is the whole share.
    pub fn holds(&self, bytes: u64) -> bool {
        self.bytes == self.share.0.all || self.bytes as u64 >= bytes
    }
}

impl Drop for HeldMemory {
    fn drop(&mut self) {
        let Share { left, let_go, .. } = &*self.share.0;
        *left.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
        let_go.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn windows_never_add_up_to_more_than_the_share() {
        let memory = DecodeMemory::new(2_000, 4);
        let held = AtomicUsize::new(0);
        let alone = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8usize {
                let (memory, held, alone) = (&memory, &held, &alone);
                scope.spawn(move || {
                    for round in 0..200 {
                        let wanted = [0, 1, 300, 999, 1_000, 5_000][(thread + round) % 6];
                        let window = memory.windows.take(wanted as u64);
                        assert!(window.holds(wanted as u64));
                        let counted = wanted.min(1_000);
                        let before = held.fetch_add(counted, Ordering::SeqCst);
                        assert!(before + counted <= 1_000, "{before} and {counted}");
                        if wanted > 1_000 {
                            assert_eq!(before, 0);
                            alone.fetch_add(1, Ordering::SeqCst);
                        }
                        std::thread::yield_now();
                        held.fetch_sub(counted, Ordering::SeqCst);
                        drop(window);
                    }
                });
            }
        });
        assert!(alone.into_inner() > 200);
        assert_eq!(*memory.windows.0.left.lock().unwrap(), 1_000);
    }

    #[test]
    fn what_is_held_at_once_follows_the_memory() {
        assert_eq!(DecodeMemory::new(1 << 40, 2).at_once, 64 << 20);
        assert_eq!(DecodeMemory::new(64 << 20, 8).at_once, 4 << 20);
        assert_eq!(DecodeMemory::new(0, 0).at_once, 0);
    }
}
