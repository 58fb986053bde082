//! Takes the records of one raw object: counts them, and collects their rows and rejects in batches.

use super::frame::{self, Unit, readable};
use super::members::Members;
use super::rows::Rows;
use super::{Decoded, ObjectCounts, PieceError, Reject};
use crate::event::Reason;

/// The most rows, or rejects, of one batch.
const BATCH_ROWS: usize = 8192;
/// The most bytes that one batch is read from.
const BATCH_BYTES: usize = 2 << 20;

/// A function that takes batches.
type Out<'a> = dyn FnMut(Decoded) -> Result<(), PieceError> + 'a;

/// The place of a record in its raw object, in decompressed bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub offset: u64,
    pub bytes: u64,
}

/// Takes the records of one raw object, in their order.
pub(super) struct Sink<'a> {
    rows: &'a mut Rows,
    arrival_ms: i64,
    out: &'a mut Out<'a>,
    counts: ObjectCounts,
    rejects: Vec<Reject>,
    /// The bytes that the rows, and the rejects, of the next batch were read from.
    row_bytes: usize,
    reject_bytes: usize,
    /// How many decompressed bytes no event and no text of a reject has.
    unkept: u64,
}

impl<'a> Sink<'a> {
    /// A sink that has taken no record. `rows` is empty.
    pub fn new(rows: &'a mut Rows, arrival_ms: i64, out: &'a mut Out<'a>) -> Self {
        Self {
            rows,
            arrival_ms,
            out,
            counts: ObjectCounts::default(),
            rejects: Vec::new(),
            row_bytes: 0,
            reject_bytes: 0,
            unkept: 0,
        }
    }

    /// How many records were taken.
    pub fn records(&self) -> u64 {
        self.counts.records
    }

    /// Takes one record that the framer has found.
    #[inline]
    pub fn take(&mut self, unit: Unit<'_>, members: &mut Members) -> Result<(), PieceError> {
        match unit {
            Unit::Object { offset, text, .. } => {
                let bytes = text.len();
                let span = Span {
                    offset,
                    bytes: bytes as u64,
                };
                self.object(text, bytes, members, span)
            }
            Unit::Bad {
                offset,
                bytes,
                head,
                reason,
                detail,
            } => {
                let text = readable(head, bytes > head.len() as u64);
                self.unkept += bytes.saturating_sub(frame::HEAD as u64);
                self.reject(Span { offset, bytes }, text, (reason, detail))
            }
        }
    }

    /// Takes one JSON object, which is the first `length` bytes of `record`. Values of its envelope may lie behind it.
    #[inline]
    pub fn object(
        &mut self,
        record: &str,
        length: usize,
        members: &mut Members,
        span: Span,
    ) -> Result<(), PieceError> {
        let number = self.counts.records + 1;
        let pushed = self
            .rows
            .push(record, length, members, number, self.arrival_ms);
        if let Err(why) = pushed {
            let own = record.get(..length).unwrap_or_default();
            return self.reject_text(span, own, why);
        }
        self.counts.records = number;
        self.counts.events += 1;
        self.rows.count(&mut self.counts);
        self.row_bytes += record.len();
        if self.rows.len() >= BATCH_ROWS || self.row_bytes >= BATCH_BYTES {
            self.row_bytes = 0;
            (self.out)(Decoded::Events(self.rows.finish()?))?;
        }
        Ok(())
    }

    /// Takes one record that is a reject for this reason and detail, with its whole text.
    pub fn reject_text(
        &mut self,
        span: Span,
        text: &str,
        why: (Reason, String),
    ) -> Result<(), PieceError> {
        let shown = text.get(..text.floor_char_boundary(frame::HEAD));
        self.unkept += (text.len() as u64)
            .saturating_sub(frame::HEAD as u64)
            .min(span.bytes);
        self.reject(span, shown.unwrap_or_default().to_owned(), why)
    }

    /// Takes one bad stretch of a text inside an envelope. `span` is the place of that text.
    pub fn bad_inside(
        &mut self,
        span: Span,
        (head, bytes): (&[u8], u64),
        why: (Reason, String),
    ) -> Result<(), PieceError> {
        self.unkept += bytes.saturating_sub(frame::HEAD as u64).min(span.bytes);
        self.reject(span, readable(head, bytes > head.len() as u64), why)
    }

    /// Counts an envelope of a kind that holds no record.
    pub fn empty(&mut self, kind: &'static str) {
        *self.counts.empty.entry(kind).or_default() += 1;
    }

    /// Counts bytes of the raw object that no event and no reject has.
    pub fn lose(&mut self, bytes: u64) {
        self.unkept += bytes;
    }

    fn reject(
        &mut self,
        span: Span,
        raw_text: String,
        (reason, detail): (Reason, String),
    ) -> Result<(), PieceError> {
        self.counts.records += 1;
        *self.counts.rejects.entry(reason).or_default() += 1;
        self.reject_bytes += raw_text.len();
        self.rejects.push(Reject {
            raw_record: self.counts.records,
            raw_offset: span.offset,
            raw_bytes: span.bytes,
            reason,
            detail,
            raw_text,
        });
        if self.rejects.len() >= BATCH_ROWS || self.reject_bytes >= BATCH_BYTES {
            self.reject_bytes = 0;
            (self.out)(Decoded::Rejects(std::mem::take(&mut self.rejects)))?;
        }
        Ok(())
    }

    /// Gives the last batches away. The result is the counts of records, and how many decompressed bytes no event and no
    /// text of a reject has.
    pub fn finish(self) -> Result<(ObjectCounts, u64), PieceError> {
        if self.rows.len() > 0 {
            (self.out)(Decoded::Events(self.rows.finish()?))?;
        }
        if !self.rejects.is_empty() {
            (self.out)(Decoded::Rejects(self.rejects))?;
        }
        Ok((self.counts, self.unkept))
    }
}
