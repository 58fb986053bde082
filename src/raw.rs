//! Raw objects in, events and rejects out: decompress, frame, decode, reject.
//!
//! ```text
//! Pieces ──▶ codec ──▶ frame ──────────────▶ members ──▶ rows ──▶ Decoded::Events
//! stored     plain     where     │      ▲    where the   values
//! bytes      bytes     records   ▼      │    columns'    of types
//!              │       are      unwrap ─┘    values are    │
//!              │         │      envelopes                  │
//!            kind     explain     │                        │
//!              └─────────┴────────┴───────┬────────────────┘
//!                                         └───────────────▶ Decoded::Rejects
//! ```
//!
//! One pass over a record validates it and finds the values of its columns: `json` validates, `values` reads. `shape` is
//! a column's type prepared for reading: which members its fields are read from, and how times are read.
//! Decoding reads no clock, knows no windows and no partitions, and touches no store. Bytes come in as [`Pieces`], and
//! the same bytes always give the same records, however they are cut into pieces.

mod buffer;
mod builder;
mod codec;
mod discover;
mod explain;
mod frame;
mod json;
mod kind;
mod members;
mod memory;
mod refill;
mod rows;
mod shape;
mod sink;
mod unwrap;
mod values;

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;

use crate::event::{DecodeSpec, Reason};

use codec::Inflow;
pub use discover::{DiscoverError, Discovered, RawObject, Roots};
use frame::Framer;
use members::Members;
pub use memory::DecodeMemory;
pub use refill::{Refill, RefillError};
use rows::Rows;
pub use rows::{INSIDE, NO_OFFSET};
use sink::Sink;
use unwrap::Unwrapper;
pub use values::check_default;

/// Why a raw object could not be read, or why its records could not be taken. It is passed on as it is.
pub type PieceError = Box<dyn std::error::Error + Send + Sync>;

/// The stored bytes of one raw object, in order, as they arrive.
pub trait Pieces {
    /// The next piece; `None` at the end. Pieces may have any length, also none.
    ///
    /// # Errors
    /// The bytes cannot be read.
    fn next(&mut self) -> Result<Option<Bytes>, PieceError>;
}

/// A batch of the records of a raw object.
#[derive(Debug)]
pub enum Decoded {
    /// Events: rows of [`Decoder::schema`] in the order of their record numbers.
    Events(RecordBatch),
    /// Rejects in the order of their record numbers.
    Rejects(Vec<Reject>),
}

/// A record that is no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The number within the raw object, from 1. Events and rejects are numbered in one sequence.
    pub raw_record: u64,
    /// The place of the first byte, counted in decompressed bytes from 0. A record inside a text of an envelope has the
    /// place of that text.
    pub raw_offset: u64,
    /// The length in decompressed bytes: of the record, or of the text of the envelope that holds it.
    pub raw_bytes: u64,
    /// Why the record is no event.
    pub reason: Reason,
    /// The expected value and the found value, in words for people.
    pub detail: String,
    /// The record, or its first 64 KiB. Bytes that are no UTF-8 are U+FFFD.
    pub raw_text: String,
}

/// The counts of one raw object. `records` is the sum of `events` and all `rejects`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectCounts {
    /// The number of records.
    pub records: u64,
    /// The number of events.
    pub events: u64,
    /// The number of rejects by reason.
    pub rejects: BTreeMap<Reason, u64>,
    /// The number of values that did not fit their column and became null, by column.
    pub nulled: BTreeMap<String, u64>,
    /// The number of values that were converted from another type, by column.
    pub coerced: BTreeMap<String, u64>,
    /// The number of paths that met a value without members, by column. The column, or the field of its struct, is
    /// null there.
    pub unreached: BTreeMap<String, u64>,
    /// The number of envelopes that hold no record, by kind. They are no records themselves.
    pub empty: BTreeMap<&'static str, u64>,
    /// The SHA-256 of the stored bytes.
    pub sha256: [u8; 32],
    /// The number of stored bytes.
    pub bytes: u64,
    /// The number of stored bytes that are lost: no event and no text of a reject has them. They are behind
    /// the place where decompression broke off or a limit was reached, in a member whose checksum is
    /// wrong, or behind the first 64 KiB of a reject. Where no JSON object was read, all stored bytes are lost.
    pub lost: u64,
    /// Why reading stopped before the end of the object; `None` where it did not.
    pub torn: Option<String>,
}

/// Reads raw objects of one source, one after another.
#[derive(Debug)]
pub struct Decoder {
    memory: DecodeMemory,
    framer: Framer,
    members: Members,
    rows: Rows,
    /// Opens the envelopes of the source; `None` where its objects are its records.
    unwrapper: Option<Box<Unwrapper>>,
}

impl Decoder {
    /// A decoder for one source. `spec` must have been checked: the event time is a column of type `timestamp`, and
    /// defaults fit their types.
    pub fn new(spec: &DecodeSpec, memory: &DecodeMemory) -> Self {
        let (members, places) = Members::new(&spec.columns, spec.limits.max_depth);
        Self {
            memory: memory.clone(),
            framer: Framer::new(spec.limits, memory),
            members,
            unwrapper: (!spec.unwrap.is_empty())
                .then(|| Box::new(Unwrapper::new(spec, &places, memory))),
            rows: Rows::new(spec, places),
        }
    }

    /// The columns of events: the declared columns in order, `record_sha256` (Utf8, hex) where a rule names it,
    /// `raw_record` (Int64, never null), `extra` (Utf8).
    pub fn schema(&self) -> SchemaRef {
        SchemaRef::clone(self.rows.schema())
    }

    /// Reads one raw object to its end, and gives its events and rejects to `out`. `arrival_ms` is milliseconds since
    /// 1970 UTC.
    ///
    /// # Errors
    /// `pieces` or `out` fails. No bytes of an object are an error, because all bytes become records. After an error
    /// the decoder can read the next object.
    pub fn read(
        &mut self,
        arrival_ms: i64,
        pieces: &mut dyn Pieces,
        out: &mut dyn FnMut(Decoded) -> Result<(), PieceError>,
    ) -> Result<ObjectCounts, PieceError> {
        if self.rows.len() > 0 {
            // These rows are of an object that an error ended.
            self.rows.finish()?;
        }
        let mut inflow = Inflow::new(pieces, &self.memory, self.framer.most());
        let mut sink = Sink::new(&mut self.rows, arrival_ms, out);
        let torn = match &mut self.unwrapper {
            None => self
                .framer
                .run(&mut inflow, &mut self.members, &mut |unit, members| {
                    sink.take(unit, members)
                })?,
            Some(unwrapper) => {
                unwrapper.run(&mut self.framer, &mut inflow, &mut self.members, &mut sink)?
            }
        };
        let (mut counts, unkept) = sink.finish()?;
        counts.torn = torn;
        (counts.sha256, counts.bytes, counts.lost) = inflow.finish()?;
        counts.lose(unkept, self.framer.bytes());
        Ok(counts)
    }
}

impl ObjectCounts {
    /// Counts stored bytes as lost for the `unkept` of `decompressed` bytes, which no event and no text of a reject
    /// has. An object without any JSON object is lost as a whole.
    fn lose(&mut self, unkept: u64, decompressed: u64) {
        let unkept = unkept.min(decompressed);
        let read = u128::from(self.bytes - self.lost) * u128::from(unkept);
        let unkept = read.checked_div(u128::from(decompressed));
        self.lost += unkept.and_then(|n| n.try_into().ok()).unwrap_or(0_u64);
        if self.events == 0 && self.rejects.keys().all(|reason| reason.unread()) {
            self.lost = if self.records > 0 { self.bytes } else { 0 };
        }
    }
}

#[cfg(test)]
mod tests;
