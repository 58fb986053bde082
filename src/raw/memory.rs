//! What the decoders of one source may hold together.
//!
//! ```text
//! gzip member ──▶ at once, up to an equal part of one half ── larger ──▶ block by block
//! zstd frame ───▶ its window, out of the other half ── none left ──▶ wait until one is let go
//! record ───────▶ beside others, up to a small part ── longer ──▶ one of a few at a time
//! ```
//!
//! None of it changes what is decoded.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Memory that decoders on several threads share.
#[derive(Debug, Clone)]
pub struct DecodeMemory {
    /// Bytes of one object that a decoder may hold decompressed.
    pub(super) at_once: usize,
    pub(super) windows: Windows,
    /// Bytes of a record that each decoder may hold beside all others. Its values are held several times while
    /// they become rows, so this is a small part.
    pub(super) record: usize,
    /// For longer records.
    pub(super) long_records: Windows,
}

/// Decompressed bytes of a gzip member that it is worth to inflate at once.
const MOST_AT_ONCE: usize = 64 << 20;
/// Bytes of a record that nobody needs to wait for.
const LEAST_RECORD: usize = 512 << 10;

impl DecodeMemory {
    /// `bytes` for `decoders`.
    pub fn new(bytes: usize, decoders: usize) -> Self {
        Self {
            at_once: (bytes / 2 / decoders.max(1)).min(MOST_AT_ONCE),
            windows: Windows::new(bytes / 2),
            record: (bytes / 8 / decoders.max(1)).max(LEAST_RECORD),
            long_records: Windows::new(bytes / 2),
        }
    }
}

/// Memory for the windows of zstd frames, up to 128 MiB each, or for long records.
#[derive(Debug, Clone)]
pub(super) struct Windows(Arc<Share>);

#[derive(Debug)]
struct Share {
    all: usize,
    left: Mutex<usize>,
    let_go: Condvar,
}

/// A part of the share, until dropped.
#[derive(Debug)]
pub(super) struct Window {
    share: Windows,
    bytes: usize,
}

impl Windows {
    fn new(bytes: usize) -> Self {
        Self(Arc::new(Share {
            all: bytes,
            left: Mutex::new(bytes),
            let_go: Condvar::new(),
        }))
    }

    /// Takes what is left of `bytes` without waiting. A caller that holds a part of another share
    /// must use it: two callers that wait for each other's share would wait for ever.
    pub fn take_now(&self, bytes: u64) -> Window {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut left = self.0.left.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = bytes.min(*left);
        *left -= bytes;
        Window {
            share: self.clone(),
            bytes,
        }
    }

    /// Waits until there are `bytes`. What is more than the whole share takes all of it, so that it
    /// is alone. Who waits must hold no window, or all could wait for each other.
    pub fn take(&self, bytes: u64) -> Window {
        let Share { all, left, let_go } = &*self.0;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(*all);
        let left = left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = let_go
            .wait_while(left, |left| *left < bytes)
            .unwrap_or_else(PoisonError::into_inner);
        *left -= bytes;
        Window {
            share: self.clone(),
            bytes,
        }
    }
}

impl Window {
    pub fn holds(&self, bytes: u64) -> bool {
        self.bytes == self.share.0.all || self.bytes as u64 >= bytes
    }
}

impl Drop for Window {
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
