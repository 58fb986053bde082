//! Where records begin and end in the decompressed bytes.
//!
//! ```text
//! ws BOM RS [ ] , \n   {"a":1}   ws   {"a":tru      {"b":2}
//! └── between ──────┘  └record┘       └ stretch ──┘ └record┘
//!                                     p      e      first `{` ≥ e from which an object parses
//! ```
//!
//! A record is one strict JSON object. Anything else is a bad stretch from p that fails at e; it
//! ends before the first line feed after p, or before the first `{` from e on from which a whole
//! object parses, or with the bytes.
//!
//! An object of another kind (`kind`) is one bad stretch as a whole, in the place of thousands.
//!
//! The buffer holds no more than an unfinished record, which doubles before it is read again, so
//! that a record is validated about twice however its bytes arrive; or an object that was inflated at
//! once. A record that grows long waits until there is memory for it. A stretch is let go as it is read, but
//! for its first 64 KiB.

use super::PieceError;
use super::buffer::Buffer;
use super::codec::{Flow, Inflow};
use super::explain::{Ending, Failure, Fault, explain};
use super::json::{Skipper, Stop};
use super::kind;
use super::members::Members;
use super::memory::{DecodeMemory, Window};
use crate::event::{Limits, Reason};

/// Bytes that are kept of a bad stretch or a rejected record.
pub(super) const HEAD: usize = 64 << 10;
/// The least that is asked for at once.
const FILL: usize = 256 << 10;
/// Positions within a record and offsets within a batch are 32 bits.
const LONGEST_RECORD: usize = 1 << 30;

/// One record, in the order of its number.
#[derive(Debug)]
pub(super) enum Unit<'a> {
    /// A whole JSON object; its members are those that were read last.
    Object { offset: u64, text: &'a str },
    /// No JSON object.
    Bad {
        offset: u64,
        bytes: u64,
        /// The first [`HEAD`] bytes.
        head: &'a [u8],
        reason: Reason,
        detail: String,
    },
}

pub(super) type Take<'a> = dyn FnMut(Unit<'_>, &mut Members) -> Result<(), PieceError> + 'a;

/// Why the bytes end.
#[derive(Debug)]
enum Ended {
    NotYet,
    Whole,
    /// They are fewer than the object has.
    Torn(Reason, String),
}

/// Whether an object starts at a position.
enum Verdict<'a> {
    Object(&'a str),
    Failed(Failure),
    /// It depends on bytes that are not here yet.
    Short,
}

/// Buffers that are used again for every raw object.
#[derive(Debug)]
pub(super) struct Framer {
    limits: Limits,
    longest: usize,
    skipper: Skipper,
    buffer: Buffer,
    memory: DecodeMemory,
    /// The memory of a long record.
    long: Option<Window>,
    /// Room that the buffer keeps for the next object.
    keep: usize,
    /// Offset of the buffer's first byte in the object.
    base: u64,
    ended: Ended,
    head: Vec<u8>,
}

impl Framer {
    pub fn new(limits: Limits, memory: &DecodeMemory) -> Self {
        Self {
            limits,
            longest: usize::try_from(limits.max_record_bytes)
                .unwrap_or(usize::MAX)
                .clamp(1, LONGEST_RECORD),
            skipper: Skipper::new(limits.max_depth),
            buffer: Buffer::default(),
            keep: memory.at_once.max(FILL),
            memory: memory.clone(),
            long: None,
            base: 0,
            ended: Ended::NotYet,
            head: Vec::new(),
        }
    }

    /// Decompressed bytes of an object that are read at most.
    pub fn most(&self) -> u64 {
        self.limits.max_object_bytes
    }

    /// Decompressed bytes of the object that was read last, as far as it was read.
    pub fn bytes(&self) -> u64 {
        self.base + self.buffer.len() as u64
    }

    /// Finds all records of one raw object. In words why it ended before its end, where it did.
    pub fn run(
        &mut self,
        inflow: &mut Inflow<'_>,
        members: &mut Members,
        take: &mut Take<'_>,
    ) -> Result<Option<String>, PieceError> {
        let read = self.object(inflow, members, take);
        // Its length stays known.
        self.base = self.bytes();
        self.buffer.clear(self.keep);
        self.long = None;
        read
    }

    fn object(
        &mut self,
        inflow: &mut Inflow<'_>,
        members: &mut Members,
        take: &mut Take<'_>,
    ) -> Result<Option<String>, PieceError> {
        self.base = 0;
        self.ended = Ended::NotYet;
        self.refill(0, inflow)?;
        match kind::of(self.buffer.get(..HEAD).unwrap_or(&self.buffer)) {
            Some(kind) => self.other_kind(kind, inflow, members, take)?,
            None => self.records(inflow, members, take)?,
        }
        Ok(match &self.ended {
            Ended::Torn(_, detail) => Some(detail.clone()),
            Ended::NotYet | Ended::Whole => None,
        })
    }

    /// One reject for an object that is no text.
    fn other_kind(
        &mut self,
        kind: &str,
        inflow: &mut Inflow<'_>,
        members: &mut Members,
        take: &mut Take<'_>,
    ) -> Result<(), PieceError> {
        self.head.clear();
        self.keep(0, self.buffer.len());
        while matches!(self.ended, Ended::NotYet) {
            self.refill(self.buffer.len(), inflow)?;
        }
        let inside = inflow.codec();
        let inside = inside.map_or(String::new(), |codec| format!(" inside {codec}"));
        let stored = inflow.lose_all()?;
        let detail = format!(
            "the object is {kind}{inside}, which is not read: all of its {stored} stored bytes are lost"
        );
        self.ended = Ended::Torn(Reason::Codec, detail.clone());
        let unit = Unit::Bad {
            offset: 0,
            bytes: self.bytes(),
            head: &self.head,
            reason: Reason::Codec,
            detail,
        };
        take(unit, members)
    }

    fn records(
        &mut self,
        inflow: &mut Inflow<'_>,
        members: &mut Members,
        take: &mut Take<'_>,
    ) -> Result<(), PieceError> {
        let mut at = 0;
        loop {
            at = between(&self.buffer, at);
            let rest = self.buffer.get(at..).unwrap_or_default();
            let whole = matches!(self.ended, Ended::Whole);
            let verdict = match rest {
                [] if whole => return Ok(()),
                [] | [b'\\'] | [0xEF] | [0xEF, 0xBB] if !whole => Verdict::Short,
                [b'{', ..] => judge(rest, self.longest, self.limits, whole, |text| {
                    members.read(text)
                }),
                _ => Verdict::Failed(Failure {
                    at: 0,
                    fault: Fault::NoObject,
                    found: rest.first().copied(),
                    next_line: false,
                }),
            };
            match verdict {
                Verdict::Object(text) => {
                    let offset = self.base + at as u64;
                    at += text.len();
                    take(Unit::Object { offset, text }, members)?;
                }
                Verdict::Failed(failure) => {
                    match self.stretch(at, failure, inflow, members, take)? {
                        Some(end) => at = end,
                        None => return Ok(()),
                    }
                }
                Verdict::Short => {
                    if let Ended::Torn(reason, detail) = &self.ended {
                        let unit = Unit::Bad {
                            offset: self.base + at as u64,
                            bytes: rest.len() as u64,
                            head: rest.get(..HEAD).unwrap_or(rest),
                            reason: *reason,
                            detail: detail.clone(),
                        };
                        return take(unit, members);
                    }
                    self.refill(at, inflow)?;
                    at = 0;
                }
            }
        }
    }

    /// Reads the bad stretch that starts at `start` and gives its end; `None` when the object broke
    /// off within it, which ends the object.
    fn stretch(
        &mut self,
        start: usize,
        failure: Failure,
        inflow: &mut Inflow<'_>,
        members: &mut Members,
        take: &mut Take<'_>,
    ) -> Result<Option<usize>, PieceError> {
        let offset = self.base + start as u64;
        let fails = offset + failure.at as u64;
        self.head.clear();
        // Up to here all bytes are known to be in the stretch; up to `kept` they are in `head`.
        let mut at = start + 1;
        let mut kept = start;
        let mut ending = Ending::Bytes;
        let torn = loop {
            let rest = self.buffer.get(at..).unwrap_or_default();
            let whole = matches!(self.ended, Ended::Whole);
            let short = match memchr::memchr2(b'\n', b'{', rest) {
                Some(found) => {
                    at += found;
                    let rest = rest.get(found..).unwrap_or_default();
                    if rest.first() == Some(&b'\n') {
                        ending = Ending::Line;
                        break false;
                    }
                    if self.base + (at as u64) < fails {
                        at += 1;
                        continue;
                    }
                    let skipper = &mut self.skipper;
                    match judge(rest, self.longest, self.limits, whole, |text| {
                        skipper.value(text, 0, 0)
                    }) {
                        Verdict::Object(_) => {
                            ending = Ending::Object;
                            break false;
                        }
                        Verdict::Failed(_) => {
                            at += 1;
                            continue;
                        }
                        Verdict::Short => true,
                    }
                }
                None => {
                    at = self.buffer.len();
                    !whole
                }
            };
            if !short {
                break false;
            }
            if matches!(self.ended, Ended::Torn(..)) {
                at = self.buffer.len();
                break true;
            }
            self.keep(kept, at);
            self.refill(at, inflow)?;
            (at, kept) = (0, 0);
        };
        self.keep(kept, at);
        let bytes = self.base + at as u64 - offset;
        let (reason, detail) = match &self.ended {
            Ended::Torn(reason, detail) if torn => (*reason, detail.clone()),
            _ => explain(&self.head, bytes, failure, ending),
        };
        let unit = Unit::Bad {
            offset,
            bytes,
            head: &self.head,
            reason,
            detail,
        };
        take(unit, members)?;
        Ok((!torn).then_some(at))
    }

    /// Moves bytes of the stretch into its head, as far as that goes.
    fn keep(&mut self, from: usize, to: usize) {
        let room = HEAD - self.head.len();
        let to = to.min(from.saturating_add(room));
        self.head
            .extend_from_slice(self.buffer.get(from..to).unwrap_or_default());
    }

    /// Lets go what is before `at` and reads until what is left has doubled.
    fn refill(&mut self, at: usize, inflow: &mut Inflow<'_>) -> Result<(), PieceError> {
        self.buffer.let_go(at);
        self.base += at as u64;
        let enough = FILL.max((self.buffer.len() * 2).min(self.longest));
        let is_long = enough > self.memory.record && matches!(self.ended, Ended::NotYet);
        match (is_long, &self.long) {
            (true, None) => {
                let most = self.longest as u64;
                self.long = Some(self.memory.long_records.take(most));
                inflow.may_wait(false);
            }
            (false, Some(_)) => {
                self.buffer.shrink(self.keep);
                self.long = None;
                inflow.may_wait(true);
            }
            _ => {}
        }
        while self.buffer.len() < enough && matches!(self.ended, Ended::NotYet) {
            match inflow.fill(&mut self.buffer)? {
                Flow::More => {}
                Flow::End => self.ended = Ended::Whole,
                Flow::Broken(detail) => self.ended = Ended::Torn(Reason::Codec, detail),
            }
            let limit = self.limits.max_object_bytes;
            if self.bytes() > limit {
                let lost = inflow.stop(self.bytes() - limit)?;
                self.buffer
                    .truncate(usize::try_from(limit - self.base).unwrap_or(usize::MAX));
                let detail = format!("more than {limit} decompressed bytes{lost}");
                self.ended = Ended::Torn(Reason::ObjectTooLarge, detail);
            }
        }
        Ok(())
    }
}

/// The first position from `at` on that is not between records.
fn between(bytes: &[u8], mut at: usize) -> usize {
    loop {
        match bytes.get(at) {
            Some(b' ' | b'\t' | b'\r' | b'\n' | 0x1E | b'[' | b']' | b',') => at += 1,
            Some(b'\\') if bytes.get(at + 1) == Some(&b'n') => at += 2,
            Some(0xEF) if bytes.get(at + 1..at + 3) == Some(&[0xBB, 0xBF]) => at += 3,
            _ => return at,
        }
    }
}

/// Whether an object starts `rest`; `whole` when nothing follows it.
#[inline]
fn judge(
    rest: &[u8],
    longest: usize,
    limits: Limits,
    whole: bool,
    read: impl FnOnce(&[u8]) -> Result<usize, Stop>,
) -> Verdict<'_> {
    let text = rest.get(..longest).unwrap_or(rest);
    let (at, fault) = match read(text) {
        Ok(length) => {
            let object = text.get(..length).unwrap_or_default();
            if let Ok(object) = simdutf8::basic::from_utf8(object) {
                return Verdict::Object(object);
            }
            (length, Fault::Utf8)
        }
        Err(Stop::Short) if text.len() == longest => (longest, Fault::TooLarge(longest)),
        Err(Stop::Short) if whole => (text.len(), Fault::CutOff),
        Err(Stop::Short) => return Verdict::Short,
        Err(Stop::Bad { at, wanted }) => (at, Fault::Wanted(wanted)),
        Err(Stop::Deep { at }) => (at, Fault::TooDeep(limits.max_depth)),
    };
    // The grammar does not look at UTF-8, so that may have failed earlier.
    let before = text.get(..at).unwrap_or_default();
    let (at, fault) = match std::str::from_utf8(before) {
        Err(error) if error.error_len().is_some() => (error.valid_up_to(), Fault::Utf8),
        _ => (at, fault),
    };
    Verdict::Failed(Failure {
        at,
        fault,
        found: text.get(at).copied(),
        next_line: memchr::memchr(b'\n', before).is_some_and(|line| {
            let behind = before.get(line..).unwrap_or_default();
            behind.iter().all(u8::is_ascii_whitespace)
        }),
    })
}

/// The bytes as text of at most [`HEAD`] bytes; `cut` when more bytes followed them.
pub(super) fn readable(head: &[u8], cut: bool) -> String {
    let head = match std::str::from_utf8(head) {
        // Half a character at the cut is not the record's fault.
        Err(_) if cut => {
            let last = head.iter().rev().take(4).position(|byte| *byte >= 0xC0);
            let end = last.map_or(head.len(), |back| head.len() - back - 1);
            let tail = head.get(end..).unwrap_or_default();
            match std::str::from_utf8(tail) {
                Err(error) if error.error_len().is_none() => head.get(..end).unwrap_or_default(),
                _ => head,
            }
        }
        _ => head,
    };
    let mut text = String::from_utf8_lossy(head).into_owned();
    if text.len() > HEAD {
        text.truncate(text.floor_char_boundary(HEAD));
    }
    text
}
