//! Where records begin and end in the decompressed bytes.
//!
//! ```text
//! ws BOM RS [ ] , \n   {"a":1}   ws   {"a":tru      {"b":2}
//! └── between ──────┘  └record┘       └ stretch ──┘ └record┘
//!                                     p      e      first `{` ≥ e from which an object parses
//! ```
//!
//! A record is one strict JSON object. Other bytes are a bad stretch, which starts at p and fails at e. It
//! ends before the first line feed after p, or before the first `{` from e on from which a whole
//! object parses, or at the end of the bytes.
//!
//! A raw object of another kind (`kind`) is one bad stretch as a whole. Otherwise it would be thousands of stretches.
//!
//! The buffer holds an object that was inflated at once, or no more than an unfinished record. The bytes of such a
//! record double before it is read again, so that a record is validated about twice, however its bytes arrive. A
//! decoder waits for memory where a record grows long. A stretch is dropped while it is read, except for its first
//! 65,535 bytes.

use super::PieceError;
use super::buffer::Buffer;
use super::codec::{Flow, Inflow};
use super::explain::{Ending, Failure, Fault, explain};
use super::json::{Skipper, Stop};
use super::kind;
use super::members::Members;
use super::memory::{DecodeMemory, HeldMemory};
use crate::event::{Limits, Reason};

/// The most bytes that are kept of a bad stretch or a rejected record.
pub(super) const HEAD: usize = 65_535;
/// The least number of bytes that are asked for at once.
const FILL: usize = 256 << 10;
/// The most bytes of a record: positions in a record and offsets in a batch have 32 bits.
const LONGEST_RECORD: usize = 1 << 30;

/// One record, in the order of its number.
#[derive(Debug)]
pub(super) enum Unit<'a> {
    /// A whole JSON object. Its members are the members that were read last. `held` says that memory for a long record
    /// is held.
    Object {
        offset: u64,
        text: &'a str,
        held: bool,
    },
    /// A stretch of bytes that is no JSON object.
    Bad {
        offset: u64,
        bytes: u64,
        /// The first [`HEAD`] bytes.
        head: &'a [u8],
        reason: Reason,
        detail: String,
    },
}

/// A function that takes the records of an object.
pub(super) type Take<'a> = dyn FnMut(Unit<'_>, &mut Members) -> Result<(), PieceError> + 'a;

/// Whether the bytes have ended, and how.
#[derive(Debug)]
enum Ended {
    /// More bytes may come.
    NotYet,
    /// The object has ended.
    Whole,
    /// The bytes have ended before the object.
    Torn(Reason, String),
}

/// Whether a JSON object starts at a position.
enum Verdict<'a> {
    /// It does; this is its text.
    Object(&'a str),
    /// It does not.
    Failed(Failure),
    /// This depends on bytes that have not been read yet.
    Short,
}

/// Finds the records of raw objects. Its buffers are used again for each object.
#[derive(Debug)]
pub(super) struct Framer {
    limits: Limits,
    longest: usize,
    skipper: Skipper,
    buffer: Buffer,
    memory: DecodeMemory,
    /// The memory for a long record.
    long: Option<HeldMemory>,
    /// Whether the memory for a long record is held by the caller.
    covered: bool,
    /// The reason of the reject for the bytes beyond the most that are read.
    beyond: Reason,
    /// How many bytes of room the buffer keeps for the next object.
    keep: usize,
    /// The place of the buffer's first byte, counted in decompressed bytes of the object.
    base: u64,
    ended: Ended,
    head: Vec<u8>,
}

impl Framer {
    /// A framer with these limits.
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
            covered: false,
            beyond: Reason::ObjectTooLarge,
            base: 0,
            ended: Ended::NotYet,
            head: Vec::new(),
        }
    }

    /// Prepares for a text inside an envelope. At most `most` decompressed bytes are read; more of them are a reject for
    /// the reason `beyond`. `covered` says that memory for a long record is held already.
    pub fn inside(&mut self, most: u64, beyond: Reason, covered: bool) {
        self.limits.max_object_bytes = most;
        self.beyond = beyond;
        self.covered = covered;
    }

    /// The most decompressed bytes of an object that are read.
    pub fn most(&self) -> u64 {
        self.limits.max_object_bytes
    }

    /// How many decompressed bytes of the last object were read.
    pub fn bytes(&self) -> u64 {
        self.base + self.buffer.len() as u64
    }

    /// Finds all records of one raw object. The result says in words why reading stopped before the end of the object;
    /// `None` where it did not.
    ///
    /// # Errors
    /// `inflow` or `take` fails.
    pub fn run(
        &mut self,
        inflow: &mut Inflow<'_>,
        members: &mut Members,
        take: &mut Take<'_>,
    ) -> Result<Option<String>, PieceError> {
        let read = self.object(inflow, members, take);
        // `bytes` still needs the length of the object.
        self.base = self.bytes();
        self.buffer.clear(self.keep);
        self.long = None;
        read
    }

    /// Finds all records, with the buffers as they are.
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

    /// Makes one reject of an object that is no text.
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

    /// Finds the records of an object that may be text.
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
                    let held = self.covered || self.long.is_some();
                    take(Unit::Object { offset, text, held }, members)?;
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

    /// Reads the bad stretch that starts at `start`, and returns its end. `None` where the object breaks off inside the
    /// stretch, which ends the object.
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
        // All bytes before `at` are known to be in the stretch. The bytes before `kept` are in `head`.
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

    /// Copies bytes of the stretch into its head, as far as there is room.
    fn keep(&mut self, from: usize, to: usize) {
        let room = HEAD - self.head.len();
        let to = to.min(from.saturating_add(room));
        self.head
            .extend_from_slice(self.buffer.get(from..to).unwrap_or_default());
    }

    /// Drops the bytes before `at`, and reads until the rest has doubled.
    fn refill(&mut self, at: usize, inflow: &mut Inflow<'_>) -> Result<(), PieceError> {
        self.buffer.let_go(at);
        self.base += at as u64;
        let enough = FILL.max((self.buffer.len() * 2).min(self.longest));
        let is_long =
            enough > self.memory.record && !self.covered && matches!(self.ended, Ended::NotYet);
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
                self.ended = Ended::Torn(self.beyond, detail);
            }
        }
        Ok(())
    }
}

/// The first position from `at` on whose byte may not stand between records.
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

/// Whether a JSON object starts at the beginning of `rest`. `whole` says that no more bytes follow.
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
    // The grammar does not check UTF-8, so invalid UTF-8 may come earlier.
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

/// The bytes as text of at most [`HEAD`] bytes. `cut` says that more bytes followed them.
pub(super) fn readable(head: &[u8], cut: bool) -> String {
    let head = match std::str::from_utf8(head) {
        // Half a character at the cut does not make the record invalid.
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
