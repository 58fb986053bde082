//! Decides which of the events of one key stays: rules → verdicts. The room knows no store, no paths and no
//! clock.
//!
//! ```text
//! events ──▶ key expressions, `when` ──▶ narrow rows, one set a rule
//!                                        [key fingerprint ×2 │ time │ id]        32 bytes
//!                                                 │ sort by (key, order), spilling
//!   rule 1 ──────────────────────────────▶ decide ──▶ dropped rows ─┐ mark
//!   rule 2: rows not marked ─────────────▶ decide ──▶ dropped rows ─┤ …
//!                                                                   ▼ sort by (place, order)
//!                            [place │ time │ id │ kept id │ rule]  read beside the sorted events
//! ```
//!
//! A window of 30 s, and the events of one key on the time line:
//!
//! ```text
//!            0        20        45        70           101
//! throttle   ●────────╳·········●─────────╳·············●      from the kept event
//! gap        ●────────╳─────────╳─────────╳·············●      from any event: first of the chain
//! gap-last   ╳────────╳─────────╳─────────●·············●      the last of the chain
//! tumbling   ●········╳···│·····●·····│···●········│····●      first of each [0,30) [30,60) …
//! ```
//!
//! If a lake has events already, `chains` finds the stored events that new events concern. All other events
//! keep their stored verdict.
//!
//! Wide rows never come into this room. Sorting wide rows by key makes the usual window plans several times
//! slower than this whole job.

mod chains;
mod decide;
mod keys;
mod sort;
#[cfg(test)]
mod tests;

pub use chains::{Covered, Grown, KeyFilter, Link, Standing, grow};
pub use decide::{Dropped, DroppedRow, Places, Window, decide};
pub use keys::{Fingerprint, Hashing, KeyCounts, KeyError, Keys, part_of};
pub use sort::{Rows, Sorted, Sorter};

/// The position of an event in the total order after its time: the rank of its raw object among the names of
/// all raw objects, sorted as bytes, and the number of the record. It is one integer, so that comparing ids is
/// comparing integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub u64);

impl EventId {
    /// The id of a record: the rank of its raw object, and its number from 1.
    pub const fn new(object: u32, record: u32) -> Self {
        Self(((object as u64) << 32) | record as u64)
    }

    /// The rank of the raw object.
    pub const fn object(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The number of the record, from 1.
    pub const fn record(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }
}

/// A time as an unsigned integer that sorts in the same order.
pub const fn sortable(time: i64) -> u64 {
    (time as u64) ^ (1 << 63)
}

/// The time that was given to [`sortable`].
pub const fn from_sortable(bits: u64) -> i64 {
    (bits ^ (1 << 63)) as i64
}
