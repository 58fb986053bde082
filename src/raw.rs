//! Raw objects in, events and rejects out: decompress, frame, decode, reject.
//!
//! ```text
//! Pieces ──▶ codec ──▶ frame ──▶ members ──▶ rows ──▶ Decoded::Events
//! stored     plain     where     where the   values
//! bytes      bytes     records   columns'    of types
//!              │       are       values are    │
//!              │         │                     │
//!            kind     explain                  │
//!              └─────────┴──────────┬──────────┘
//!                                   └───────────────▶ Decoded::Rejects
//! ```
//!
//! One pass over a record validates it and finds the values of its columns; `json` does the
//! validating, `values` the reading. Nothing here reads a clock, knows windows or partitions, or
//! touches a store: bytes come in as [`Pieces`], and the same bytes always give the same records,
//! however they are cut.

mod buffer;
mod codec;
mod explain;
mod frame;
mod json;
mod kind;
mod members;
mod memory;
mod refill;
mod rows;
mod values;

pub use values::check_default;

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;

use crate::event::{DecodeSpec, Reason};

mod discover;

use codec::Inflow;
pub use discover::{DiscoverError, Discovered, Found, Roots};
use frame::{Framer, Unit, readable};
use members::Members;
pub use memory::DecodeMemory;
pub use refill::{Refill, RefillError};
pub use rows::NO_OFFSET;
use rows::Rows;

/// A batch is given out when it has so many rows, or rejects, …
const BATCH_ROWS: usize = 8192;
/// … or was read from so many bytes.
const BATCH_BYTES: usize = 2 << 20;

/// A raw object could not be read, or what was decoded could not be taken: passed on untouched.
pub type PieceError = Box<dyn std::error::Error + Send + Sync>;

/// The stored bytes of one raw object, in order, as they arrive.
pub trait Pieces {
    /// The next piece; `None` at the end. Pieces may be of any length, also empty.
    fn next(&mut self) -> Result<Option<Bytes>, PieceError>;
}

/// What was found in a raw object, a batch at a time.
#[derive(Debug)]
pub enum Decoded {
    /// Rows of [`Decoder::schema`] in order of their record numbers.
    Events(RecordBatch),
    Rejects(Vec<Reject>),
}

/// A record that is no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// Number within the raw object, from 1, in one sequence with the events.
    pub raw_record: u64,
    /// First byte, counted in decompressed bytes from 0.
    pub raw_offset: u64,
    /// Decompressed bytes.
    pub raw_bytes: u64,
    pub reason: Reason,
    /// For people: what was expected and what was found.
    pub detail: String,
    /// At most 64 KiB of the record; what is not UTF-8 is U+FFFD.
    pub raw_text: String,
}

/// What one raw object held: `records` is `events` and all `rejects` together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectCounts {
    pub records: u64,
    pub events: u64,
    pub rejects: BTreeMap<Reason, u64>,
    /// Values that did not fit their column and became null, by column.
    pub nulled: BTreeMap<String, u64>,
    /// Of the stored bytes.
    pub sha256: [u8; 32],
    /// Stored bytes.
    pub bytes: u64,
    /// Stored bytes of which nothing is kept, neither as an event nor as the text of a reject: behind
    /// the place where decompression broke off or a limit was reached, in a member whose checksum is
    /// wrong, and behind the first 64 KiB of a reject. All of them where no JSON object was read.
    pub lost: u64,
    /// Why the object ended before its end, if it did.
    pub torn: Option<String>,
}

/// Reads raw objects of one source, one after another.
#[derive(Debug)]
pub struct Decoder {
    memory: DecodeMemory,
    framer: Framer,
    members: Members,
    rows: Rows,
}

impl Decoder {
    /// `spec` is a checked one: the event time is a column of type `timestamp`, and defaults fit.
    pub fn new(spec: &DecodeSpec, memory: &DecodeMemory) -> Self {
        let (members, places) = Members::new(&spec.columns, spec.limits.max_depth);
        Self {
            memory: memory.clone(),
            framer: Framer::new(spec.limits, memory),
            members,
            rows: Rows::new(spec, places),
        }
    }

    /// The declared columns in order, `record_sha256` (Utf8, hex) if a rule names it, `raw_record`
    /// (Int64, never null), `extra` (Utf8).
    pub fn schema(&self) -> SchemaRef {
        SchemaRef::clone(self.rows.schema())
    }

    /// Reads one raw object to its end. `arrival_ms` is milliseconds since 1970 UTC.
    ///
    /// # Errors
    /// Only those of `pieces` and `out`; whatever the bytes are, they are records. After an error
    /// the decoder is as new.
    pub fn read(
        &mut self,
        arrival_ms: i64,
        pieces: &mut dyn Pieces,
        out: &mut dyn FnMut(Decoded) -> Result<(), PieceError>,
    ) -> Result<ObjectCounts, PieceError> {
        if self.rows.len() > 0 {
            // Rows that an error left behind.
            self.rows.finish()?;
        }
        let mut counts = ObjectCounts::default();
        let mut rejects = Vec::new();
        let (mut row_bytes, mut reject_bytes) = (0, 0);
        // Decompressed bytes of rejects that are not in their text.
        let mut unkept = 0;
        let rows = &mut self.rows;
        let most = self.framer.most();
        let mut inflow = Inflow::new(pieces, &self.memory, most);
        let torn = self
            .framer
            .run(&mut inflow, &mut self.members, &mut |unit, members| {
                counts.records += 1;
                let reject = match unit {
                    Unit::Object { offset, text } => {
                        match rows.push(text, members, counts.records, arrival_ms) {
                            Ok(()) => {
                                counts.events += 1;
                                for column in rows.nulled() {
                                    *counts.nulled.entry(column.to_owned()).or_default() += 1;
                                }
                                row_bytes += text.len();
                                if rows.len() >= BATCH_ROWS || row_bytes >= BATCH_BYTES {
                                    row_bytes = 0;
                                    out(Decoded::Events(rows.finish()?))?;
                                }
                                return Ok(());
                            }
                            Err((reason, detail)) => Reject {
                                raw_record: counts.records,
                                raw_offset: offset,
                                raw_bytes: text.len() as u64,
                                reason,
                                detail,
                                raw_text: text
                                    .get(..text.floor_char_boundary(frame::HEAD))
                                    .unwrap_or_default()
                                    .to_owned(),
                            },
                        }
                    }
                    Unit::Bad {
                        offset,
                        bytes,
                        head,
                        reason,
                        detail,
                    } => Reject {
                        raw_record: counts.records,
                        raw_offset: offset,
                        raw_bytes: bytes,
                        reason,
                        detail,
                        raw_text: readable(head, bytes > head.len() as u64),
                    },
                };
                unkept += reject.raw_bytes.saturating_sub(frame::HEAD as u64);
                *counts.rejects.entry(reject.reason).or_default() += 1;
                reject_bytes += reject.raw_text.len();
                rejects.push(reject);
                if rejects.len() >= BATCH_ROWS || reject_bytes >= BATCH_BYTES {
                    reject_bytes = 0;
                    out(Decoded::Rejects(std::mem::take(&mut rejects)))?;
                }
                Ok(())
            })?;
        counts.torn = torn;
        (counts.sha256, counts.bytes, counts.lost) = inflow.finish()?;
        let read = u128::from(counts.bytes - counts.lost) * u128::from(unkept);
        let unkept = read.checked_div(u128::from(self.framer.bytes()));
        counts.lost += unkept.and_then(|n| n.try_into().ok()).unwrap_or(0_u64);
        if counts.events == 0 && counts.rejects.keys().all(|reason| reason.unread()) {
            counts.lost = if counts.records > 0 { counts.bytes } else { 0 };
        }
        if self.rows.len() > 0 {
            out(Decoded::Events(self.rows.finish()?))?;
        }
        if !rejects.is_empty() {
            out(Decoded::Rejects(rejects))?;
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests;
