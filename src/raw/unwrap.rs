//! Opens the envelopes of a source: from an object of the raw object to the records inside, step by step.
//!
//! ```text
//! framer ──▶ {"owner":"1","Records":[{"body":"{\"id\":1}{\"id\":2}"}]}
//!            └ level 1: array `Records`
//!                                   └ level 2: text `body` ──▶ framer of level 2 ──▶ {"id":1}  {"id":2}
//! values of @envelope.…: of the nearest level that has the member ──────────────────▶ behind each record
//! ```
//!
//! # What is counted
//!
//! - A record is an object inside, and takes the next number. An envelope is no record.
//! - An envelope without a record inside (an empty array, a control message, a tombstone) is counted by its kind, and
//!   makes no record.
//! - An object that is not such an envelope is one record: a reject `envelope`. An item that is no object is one record:
//!   a reject `not_object`. A bad stretch inside a text is one record, as it is outside of one.
//!
//! # Where a record lies
//!
//! The place of a record is its own place in the decompressed bytes, as long as its bytes stand there as they are. Bytes
//! that were decoded (from base64, from a string with escapes, from typed values) stand nowhere; such a record has the
//! place of the text or the item that holds it. Its text and its hash are the decoded ones.
//!
//! # Bounds
//!
//! The bytes and the levels of an envelope are bounded as those of a record are. The bytes and the levels of each text
//! inside are bounded in the same way, after decoding and inflating; the levels are counted from 1 again. All decoded
//! texts of a raw object together have at most as many bytes as a raw object may have. A text inside that is longer than the memory of a decoder allows takes memory from the
//! share for long records, unless its envelope holds a part of that share already.

mod dynamodb;
mod find;

use std::rc::Rc;

use bytes::Bytes;

use super::codec::Inflow;
use super::frame::{Framer, Unit};
use super::json::{Items, Skipper, Stop, unescape};
use super::members::{Members, Slot};
use super::memory::DecodeMemory;
use super::sink::{Sink, Span};
use super::{PieceError, Pieces};
use crate::event::{Column, ColumnType, DecodeSpec, Limits, Reason, UnwrapStep};
use find::{find, found};

/// The kinds of envelopes without a record.
const EMPTY: &str = "empty envelopes";
const CONTROL: &str = "control messages";
const TOMBSTONES: &str = "tombstones";
const REMOVALS: &str = "removed items";

/// A column whose value is a member of an envelope.
#[derive(Debug)]
struct EnvelopeColumn {
    /// Its node among the members of the record.
    node: usize,
    /// Its path as the name of a member, in quotes.
    name: String,
}

/// One step, and the members of the envelope that it opens.
#[derive(Debug)]
struct Level {
    /// Finds the values of the columns of envelopes.
    members: Members,
    opener: Opener,
}

/// How one envelope is opened.
#[derive(Debug)]
struct Opener {
    step: UnwrapStep,
    /// The nodes of the columns of envelopes, among the members of this envelope.
    places: Vec<usize>,
    /// Finds the records in the texts of this envelope.
    framer: Framer,
}

/// Opens the envelopes of one source.
#[derive(Debug)]
pub(super) struct Unwrapper {
    levels: Vec<Level>,
    columns: Vec<EnvelopeColumn>,
    limits: Limits,
    memory: DecodeMemory,
}

/// One envelope.
#[derive(Clone, Copy)]
struct Envelope<'a> {
    text: &'a str,
    place: Place,
    /// Whether memory for a long record is held.
    held: bool,
}

/// Where a text lies in the raw object.
#[derive(Clone, Copy)]
enum Place {
    /// Its bytes stand as they are, from here on.
    At(u64),
    /// It was decoded from the bytes of this span.
    Inside(Span),
}

/// The opening of the envelopes of one raw object.
struct Opening<'a, 'b> {
    columns: &'a [EnvelopeColumn],
    limits: Limits,
    memory: &'a DecodeMemory,
    sink: &'a mut Sink<'b>,
    /// How many decoded bytes may still come.
    left: u64,
    /// The values of the columns, from the nearest level that has them.
    values: Vec<Option<Rc<str>>>,
    /// A record with the values of its envelope behind it.
    joined: String,
}

impl Unwrapper {
    /// `places` are the nodes of the columns of `spec` among the members of a record.
    pub fn new(spec: &DecodeSpec, places: &[usize], memory: &DecodeMemory) -> Self {
        let memory = memory.inner();
        let of_envelope: Vec<(Column, usize)> = spec
            .columns
            .iter()
            .zip(places)
            .filter(|(column, _)| column.is_of_envelope())
            .map(|(column, node)| (column.clone(), *node))
            .collect();
        let columns = of_envelope.iter().map(|(column, node)| EnvelopeColumn {
            node: *node,
            name: serde_json::Value::from(column.path.join(".")).to_string(),
        });
        // The type of a column matters only for a record.
        let within: Vec<Column> = of_envelope
            .iter()
            .map(|(column, _)| Column {
                path: column.path.iter().skip(1).cloned().collect(),
                kind: ColumnType::Json,
                ..column.clone()
            })
            .collect();
        let levels = spec.unwrap.iter().map(|step| {
            let (members, places) = Members::new(&within, spec.limits.max_depth);
            Level {
                members,
                opener: Opener {
                    step: step.clone(),
                    places,
                    framer: Framer::new(spec.limits, &memory),
                },
            }
        });
        Self {
            levels: levels.collect(),
            columns: columns.collect(),
            limits: spec.limits,
            memory: memory.clone(),
        }
    }

    /// Gives all records of one raw object to `sink`. `record` are the members of a record. The result says in words why
    /// reading stopped before the end of the object; `None` where it did not.
    ///
    /// # Errors
    /// `inflow` or `sink` fails.
    pub fn run(
        &mut self,
        framer: &mut Framer,
        inflow: &mut Inflow<'_>,
        record: &mut Members,
        sink: &mut Sink<'_>,
    ) -> Result<Option<String>, PieceError> {
        let Some((Level { members, opener }, rest)) = self.levels.split_first_mut() else {
            return framer.run(inflow, record, &mut |unit, members| {
                sink.take(unit, members)
            });
        };
        let mut opening = Opening {
            columns: &self.columns,
            limits: self.limits,
            memory: &self.memory,
            left: self.limits.max_object_bytes,
            values: vec![None; self.columns.len()],
            joined: String::new(),
            sink,
        };
        framer.run(inflow, members, &mut |unit, members| match unit {
            Unit::Object { offset, text, held } => {
                let envelope = Envelope {
                    text,
                    place: Place::At(offset),
                    held,
                };
                opening.open(envelope, members, opener, rest, record)
            }
            Unit::Bad { head, .. } if is_tombstone(&opener.step, head) => {
                opening.sink.empty(TOMBSTONES);
                Ok(())
            }
            bad => opening.sink.take(bad, members),
        })
    }
}

impl<'a> Envelope<'a> {
    /// The place of the envelope, or of the bytes that it was decoded from.
    fn span(self) -> Span {
        match self.place {
            Place::Inside(span) => span,
            Place::At(offset) => Span {
                offset,
                bytes: self.text.len() as u64,
            },
        }
    }

    /// A part of this envelope.
    fn part(self, part: &'a str) -> Self {
        let before = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let place = match self.place {
            Place::At(offset) => Place::At(offset + before as u64),
            inside @ Place::Inside(_) => inside,
        };
        Self {
            text: part,
            place,
            ..self
        }
    }
}

impl Opening<'_, '_> {
    /// Opens one envelope. `members` are its members, which were read last.
    fn open(
        &mut self,
        envelope: Envelope<'_>,
        members: &mut Members,
        opener: &mut Opener,
        rest: &mut [Level],
        record: &mut Members,
    ) -> Result<(), PieceError> {
        if self.columns.is_empty() {
            return self.step(envelope, opener, rest, record);
        }
        let outer = self.values.clone();
        // A path may go through a string that holds JSON.
        let mut whole = String::new();
        let text = match members.open(envelope.text, &mut whole) {
            true => whole.as_str(),
            false => envelope.text,
        };
        for (value, place) in self.values.iter_mut().zip(&opener.places) {
            if let Some(text) = members.slot(*place).text(text) {
                *value = Some(text.into());
            }
        }
        let opened = self.step(envelope, opener, rest, record);
        self.values = outer;
        opened
    }

    /// Takes one step into an envelope.
    fn step(
        &mut self,
        envelope: Envelope<'_>,
        opener: &mut Opener,
        rest: &mut [Level],
        record: &mut Members,
    ) -> Result<(), PieceError> {
        let text = envelope.text;
        let Opener { step, framer, .. } = opener;
        match step {
            UnwrapStep::Array(path) => {
                let array = find(text, path);
                self.array(envelope, path, array, rest, record)
            }
            UnwrapStep::CloudwatchLogs => {
                if find(text, &["messageType"]) == Some("\"CONTROL_MESSAGE\"") {
                    self.sink.empty(CONTROL);
                    return Ok(());
                }
                let path = ["logEvents".to_owned()];
                self.array(envelope, &path, find(text, &path), rest, record)
            }
            UnwrapStep::Member(path) => match find(text, path) {
                Some(object) if object.starts_with('{') => {
                    self.item(envelope.part(object), rest, record)
                }
                other => {
                    self.not_such(envelope, &format!("the object `{}`", path.join(".")), other)
                }
            },
            UnwrapStep::KafkaConnect => match find(text, &["payload"]) {
                Some(object) if object.starts_with('{') => {
                    self.item(envelope.part(object), rest, record)
                }
                Some("null") => {
                    self.sink.empty(TOMBSTONES);
                    Ok(())
                }
                other => self.not_such(envelope, "the object `payload` of Kafka Connect", other),
            },
            UnwrapStep::Text(path) => {
                let expected = format!("the text `{}`", path.join("."));
                let value = find(text, path);
                let Some(decoded) = self.text_of(envelope, &expected, value)? else {
                    return Ok(());
                };
                let envelope = envelope.part(value.unwrap_or_default());
                self.texts(envelope, decoded.into_bytes(), framer, rest, record)
            }
            UnwrapStep::KinesisAgent => {
                let metadata = find(text, &["metadata"]);
                if !metadata.is_some_and(|metadata| metadata.starts_with('{')) {
                    let expected = "the object `metadata` of the Kinesis Agent";
                    return self.not_such(envelope, expected, metadata);
                }
                let value = find(text, &["message"]);
                let expected = "the text `message` beside `metadata`";
                let Some(decoded) = self.text_of(envelope, expected, value)? else {
                    return Ok(());
                };
                let envelope = envelope.part(value.unwrap_or_default());
                self.texts(envelope, decoded.into_bytes(), framer, rest, record)
            }
            UnwrapStep::FirehoseError => self.firehose_error(envelope, framer, rest, record),
            UnwrapStep::DynamodbJson => match dynamodb::plain(text) {
                dynamodb::Item::Plain(plain) => {
                    let inside = Envelope {
                        text: &plain,
                        place: Place::Inside(envelope.span()),
                        held: envelope.held,
                    };
                    self.item(inside, rest, record)
                }
                dynamodb::Item::Removed => {
                    self.sink.empty(REMOVALS);
                    Ok(())
                }
                dynamodb::Item::Other(why) => {
                    let why = (Reason::Envelope, why);
                    self.sink.reject_text(envelope.span(), text, why)
                }
            },
        }
    }

    /// Opens the record of Firehose in an error envelope.
    fn firehose_error(
        &mut self,
        envelope: Envelope<'_>,
        framer: &mut Framer,
        rest: &mut [Level],
        record: &mut Members,
    ) -> Result<(), PieceError> {
        if find(envelope.text, &["attemptsMade"]).is_none() {
            let expected = "`attemptsMade` of a record that Firehose could not deliver";
            return self.not_such(envelope, expected, None);
        }
        let value = find(envelope.text, &["rawData"]);
        let expected = "the text `rawData` beside `attemptsMade`";
        let Some(encoded) = self.text_of(envelope, expected, value)? else {
            return Ok(());
        };
        match decode_base64(&encoded) {
            Ok(decoded) => {
                let envelope = envelope.part(value.unwrap_or_default());
                self.texts(envelope, decoded, framer, rest, record)
            }
            Err(error) => {
                let why = format!("expected base64 in `rawData`: {error}");
                self.sink
                    .reject_text(envelope.span(), envelope.text, (Reason::Envelope, why))
            }
        }
    }

    /// Opens each item of an array of an envelope.
    fn array(
        &mut self,
        envelope: Envelope<'_>,
        path: &[String],
        array: Option<&str>,
        rest: &mut [Level],
        record: &mut Members,
    ) -> Result<(), PieceError> {
        let Some(array) = array.filter(|array| array.starts_with('[')) else {
            return self.not_such(envelope, &format!("the array `{}`", path.join(".")), array);
        };
        let mut skipper = Skipper::new(u32::MAX);
        let mut items = Items::of(array, &mut skipper).peekable();
        if items.peek().is_none() {
            self.sink.empty(EMPTY);
        }
        items.try_for_each(|item| self.item(envelope.part(item), rest, record))
    }

    /// Takes one value inside an envelope: an envelope of the next level, or a record.
    fn item(
        &mut self,
        item: Envelope<'_>,
        rest: &mut [Level],
        record: &mut Members,
    ) -> Result<(), PieceError> {
        if !item.text.starts_with('{') {
            let why = format!(
                "expected an object in the envelope, found {}",
                found(item.text)
            );
            let why = (Reason::NotObject, why);
            return self.sink.reject_text(item.span(), item.text, why);
        }
        match rest.split_first_mut() {
            None => match record.read(item.text.as_bytes()) {
                Ok(_) => self.record(item, record),
                Err(stop) => self.unreadable(item, stop),
            },
            Some((Level { members, opener }, rest)) => match members.read(item.text.as_bytes()) {
                Ok(_) => self.open(item, members, opener, rest, record),
                Err(stop) => self.unreadable(item, stop),
            },
        }
    }

    /// Takes an object in an envelope that cannot be read.
    fn unreadable(&mut self, item: Envelope<'_>, stop: Stop) -> Result<(), PieceError> {
        let why = match stop {
            Stop::Deep { at } => {
                let most = self.limits.max_depth;
                let why = format!("deeper than {most} levels at byte {at}");
                (Reason::TooDeep, why)
            }
            _ => (
                Reason::NotJson,
                "the object in the envelope is no JSON".to_owned(),
            ),
        };
        self.sink.reject_text(item.span(), item.text, why)
    }

    /// Gives one record to the sink. `members` are its members, which were read last.
    fn record(&mut self, item: Envelope<'_>, members: &mut Members) -> Result<(), PieceError> {
        let (text, span) = (item.text, item.span());
        if self.columns.is_empty() {
            return self.sink.object(text, text.len(), members, span);
        }
        self.joined.clear();
        self.joined.push_str(text);
        for (column, value) in self.columns.iter().zip(&self.values) {
            let Some(value) = value else {
                continue;
            };
            let name = self.joined.len();
            self.joined.push_str(&column.name);
            let name_end = self.joined.len();
            self.joined.push(':');
            let start = self.joined.len();
            self.joined.push_str(value);
            let slot = Slot {
                name: name as u32,
                name_end: name_end as u32,
                start: start as u32,
                end: self.joined.len() as u32,
                plain: value.starts_with('"') && !value.contains('\\'),
            };
            members.place(column.node, slot);
        }
        self.sink.object(&self.joined, text.len(), members, span)
    }

    /// The text of a JSON string of an envelope. `None` where there is none, which makes a reject.
    fn text_of(
        &mut self,
        envelope: Envelope<'_>,
        expected: &str,
        value: Option<&str>,
    ) -> Result<Option<String>, PieceError> {
        let quoted = value.and_then(|value| value.strip_prefix('"')?.strip_suffix('"'));
        let Some(quoted) = quoted else {
            self.not_such(envelope, expected, value)?;
            return Ok(None);
        };
        if let Some(text) = unescape(quoted) {
            return Ok(Some(text.into_owned()));
        }
        let why = format!("expected {expected}, found text with half of a surrogate pair");
        self.sink
            .reject_text(envelope.span(), envelope.text, (Reason::Envelope, why))?;
        Ok(None)
    }

    /// Takes all records of a text of an envelope. `envelope` is that text as it stands, and `decoded` are its bytes.
    fn texts(
        &mut self,
        envelope: Envelope<'_>,
        decoded: Vec<u8>,
        framer: &mut Framer,
        rest: &mut [Level],
        record: &mut Members,
    ) -> Result<(), PieceError> {
        let (span, encoded) = (envelope.span(), decoded.len() as u64);
        let (most, beyond) = match self.limits.max_record_bytes {
            most if most <= self.left => (most, Reason::TooLarge),
            _ => (self.left, Reason::ObjectTooLarge),
        };
        framer.inside(most, beyond, envelope.held);
        let mut piece = Piece(Some(decoded.into()));
        let mut inflow = Inflow::inside(&mut piece, self.memory, most);
        let before = self.sink.records();
        let place = Place::Inside(span);
        match rest.split_first_mut() {
            None => framer.run(&mut inflow, record, &mut |unit, members| match unit {
                Unit::Object { text, held, .. } => {
                    self.record(Envelope { text, place, held }, members)
                }
                bad => self.bad(span, bad),
            })?,
            Some((Level { members, opener }, rest)) => {
                framer.run(&mut inflow, members, &mut |unit, members| match unit {
                    Unit::Object { text, held, .. } => {
                        let envelope = Envelope { text, place, held };
                        self.open(envelope, members, opener, rest, record)
                    }
                    Unit::Bad { head, .. } if is_tombstone(&opener.step, head) => {
                        self.sink.empty(TOMBSTONES);
                        Ok(())
                    }
                    bad => self.bad(span, bad),
                })?
            }
        };
        let (.., lost) = inflow.finish()?;
        self.left = self.left.saturating_sub(framer.bytes());
        // As many bytes of the envelope as the lost bytes are encoded in.
        let lost = u128::from(span.bytes) * u128::from(lost);
        let lost = lost.checked_div(u128::from(encoded)).unwrap_or(0);
        self.sink.lose(u64::try_from(lost).unwrap_or(u64::MAX));
        if self.sink.records() == before {
            self.sink.empty(EMPTY);
        }
        Ok(())
    }

    /// Takes a bad stretch of a text inside an envelope.
    fn bad(&mut self, span: Span, unit: Unit<'_>) -> Result<(), PieceError> {
        match unit {
            Unit::Object { .. } => Ok(()),
            Unit::Bad {
                bytes,
                head,
                reason,
                detail,
                ..
            } => self.sink.bad_inside(span, (head, bytes), (reason, detail)),
        }
    }

    /// Takes an object that is not the envelope that was expected.
    fn not_such(
        &mut self,
        envelope: Envelope<'_>,
        expected: &str,
        value: Option<&str>,
    ) -> Result<(), PieceError> {
        let found = value.map_or("no such member", found);
        let why = format!("expected {expected}, found {found}");
        self.sink
            .reject_text(envelope.span(), envelope.text, (Reason::Envelope, why))
    }
}

/// One piece.
struct Piece(Option<Bytes>);

impl Pieces for Piece {
    fn next(&mut self) -> Result<Option<Bytes>, PieceError> {
        Ok(self.0.take())
    }
}

/// Whether a stretch of bytes is the null that Kafka Connect writes in the place of a deleted record.
fn is_tombstone(step: &UnwrapStep, head: &[u8]) -> bool {
    *step == UnwrapStep::KafkaConnect && head.trim_ascii() == b"null"
}

/// The bytes of a base64 text, with or without padding.
fn decode_base64(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    use base64::Engine;
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT).decode(text)
}

#[cfg(test)]
mod tests;
