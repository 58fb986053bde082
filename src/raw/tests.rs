use std::collections::BTreeMap;
use std::io::Write;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, TimestampMillisecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::de::{Deserialize, IgnoredAny};

mod values;

use super::*;
use crate::event::{Accept, Column, Limits, OnTypeError};
use crate::time::TimeUnit;

mod conformance;
mod packed;
mod page;

/// Pieces that are cut from one slice.
struct Cut<'a> {
    bytes: &'a [u8],
    /// Gives the length of the next piece.
    next: Box<dyn FnMut() -> usize + 'a>,
}

impl Pieces for Cut<'_> {
    fn next(&mut self) -> Result<Option<Bytes>, PieceError> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let (piece, rest) = self.bytes.split_at((self.next)().min(self.bytes.len()));
        self.bytes = rest;
        Ok(Some(Bytes::copy_from_slice(piece)))
    }
}

pub(super) fn column(name: &str, kind: &str) -> Column {
    Column {
        name: name.replace('.', "_"),
        kind: kind.parse().unwrap(),
        path: name.split('.').map(str::to_owned).collect(),
        default: None,
        required: false,
        paths: BTreeMap::new(),
        coerce: false,
        time_formats: Vec::new(),
    }
}

/// A source with an event time `t` and more columns, as `path type`.
pub(super) fn spec(columns: &[&str]) -> DecodeSpec {
    let mut all = vec![column("t", "timestamp")];
    all.extend(columns.iter().map(|text| {
        let (name, kind) = text.split_once(' ').unwrap();
        column(name, kind)
    }));
    DecodeSpec {
        columns: all,
        event_time: "t".to_owned(),
        unit: TimeUnit::Ms,
        naive_timezone: None,
        epoch_timezone: None,
        accept: Accept {
            from_ms: 0,
            ahead_ms: 86_400_000,
        },
        on_type_error: OnTypeError::Reject,
        record_sha256: false,
        limits: Limits::default(),
        unwrap: Vec::new(),
    }
}

const ARRIVAL: i64 = 1_554_195_900_000;

#[derive(Debug, PartialEq, Default)]
pub(super) struct Found {
    /// Record number and the columns after `t`, then extra, as text; null is `-`.
    pub events: Vec<(i64, Vec<String>)>,
    pub rejects: Vec<Reject>,
    pub counts: ObjectCounts,
}

fn decoder(spec: &DecodeSpec) -> Decoder {
    Decoder::new(spec, &DecodeMemory::new(1 << 30, 1))
}

pub(super) fn decode_cut(spec: &DecodeSpec, bytes: &[u8], next: impl FnMut() -> usize) -> Found {
    let mut decoder = decoder(spec);
    decode_with(&mut decoder, bytes, next)
}

fn decode_with(decoder: &mut Decoder, bytes: &[u8], next: impl FnMut() -> usize) -> Found {
    let mut found = Found::default();
    let schema = decoder.schema();
    let counts = decoder
        .read(
            ARRIVAL,
            &mut Cut {
                bytes,
                next: Box::new(next),
            },
            &mut |decoded| {
                match decoded {
                    Decoded::Events(batch) => {
                        assert_eq!(batch.schema(), schema);
                        let options = FormatOptions::default().with_null("-");
                        let show: Vec<ArrayFormatter<'_>> = batch
                            .columns()
                            .iter()
                            .map(|column| ArrayFormatter::try_new(column, &options).unwrap())
                            .collect();
                        let numbers = batch
                            .column_by_name("raw_record")
                            .unwrap()
                            .as_primitive::<Int64Type>();
                        for row in 0..batch.num_rows() {
                            let values = (1..batch.num_columns())
                                .filter(|column| *column != batch.num_columns() - 2)
                                .map(|column| show[column].value(row).to_string())
                                .collect();
                            found.events.push((numbers.value(row), values));
                        }
                    }
                    Decoded::Rejects(rejects) => found.rejects.extend(rejects),
                }
                Ok(())
            },
        )
        .unwrap();
    assert_eq!(
        counts.records,
        counts.events + counts.rejects.values().sum::<u64>()
    );
    assert_eq!(counts.events, found.events.len() as u64);
    assert_eq!(
        counts.rejects.values().sum::<u64>(),
        found.rejects.len() as u64
    );
    let mut numbers: Vec<u64> = found
        .rejects
        .iter()
        .map(|reject| reject.raw_record)
        .collect();
    numbers.extend(found.events.iter().map(|(number, _)| *number as u64));
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=counts.records).collect::<Vec<_>>());
    assert_eq!(counts.bytes, bytes.len() as u64);
    found.counts = counts;
    found
}

pub(super) fn decode(spec: &DecodeSpec, bytes: &[u8]) -> Found {
    decode_cut(spec, bytes, || usize::MAX)
}

/// The columns of one record with `"t":1` put first.
fn row(spec: &DecodeSpec, members: &str) -> Vec<String> {
    let found = decode(spec, format!("{{\"t\":1,{members}}}").as_bytes());
    assert_eq!(found.rejects, [], "{members}");
    found.events[0].1.clone()
}

/// The reason and detail of one record that is rejected.
fn refused(spec: &DecodeSpec, record: &str) -> (Reason, String) {
    let found = decode(spec, record.as_bytes());
    assert_eq!(found.rejects.len(), 1, "{record}");
    (found.rejects[0].reason, found.rejects[0].detail.clone())
}

/// Offset, bytes and `None` for an object or the reason, of every record.
type Frames = Vec<(u64, u64, Option<Reason>)>;

/// Framing alone: every object is rejected, because it has no event time.
fn frames(bytes: &[u8], limits: Limits, next: impl FnMut() -> usize) -> Frames {
    let mut spec = spec(&["a.b string", "c json"]);
    spec.event_time = "\u{1}".to_owned();
    spec.limits = limits;
    let found = decode_cut(&spec, bytes, next);
    assert_eq!(found.counts.events, 0);
    found
        .rejects
        .iter()
        .map(|reject| {
            let reason = (reject.reason != Reason::EventTime).then_some(reject.reason);
            (reject.raw_offset, reject.raw_bytes, reason)
        })
        .collect()
}

mod framing {
    use super::*;

    #[test]
    fn every_layout_of_records_is_one_grammar() {
        const BAD: Option<Reason> = Some(Reason::NotJson);
        const OTHER: Option<Reason> = Some(Reason::NotObject);
        for (text, expected) in [
            ("", vec![]),
            (" \t\r\n\n\u{FEFF}\u{1E}[],\\n", vec![]),
            ("{}", vec![(0, 2, None)]),
            (
                "{}{}\r\n{}\\n{},{}",
                vec![
                    (0, 2, None),
                    (2, 2, None),
                    (6, 2, None),
                    (10, 2, None),
                    (13, 2, None),
                ],
            ),
            (
                "[{\"a\":1},\n {\"a\":[{}]}]\n",
                vec![(1, 7, None), (11, 10, None)],
            ),
            ("{\n  \"a\": {\n  }\n}\n", vec![(0, 16, None)]),
            ("\u{FEFF}{}", vec![(3, 2, None)]),
            // A line that is cut off costs no other record.
            ("{\"a\":1\n{\"b\":2}\n", vec![(0, 6, BAD), (7, 7, None)]),
            ("{\"a\":\"x\n{\"b\":2}\n", vec![(0, 7, BAD), (8, 7, None)]),
            // Without separators, the next whole object ends the stretch.
            ("{\"a\":tru{\"b\":2}", vec![(0, 8, BAD), (8, 7, None)]),
            (
                "{\"a\":{\"b\":2}x{\"c\":3}",
                vec![(0, 13, BAD), (13, 7, None)],
            ),
            // The inner object lies before the failing byte.
            ("{\"a\":{},x}", vec![(0, 10, BAD)]),
            ("{\"a\":1", vec![(0, 6, BAD)]),
            ("{\"a\":\n{\"b\":1}\n", vec![(0, 5, BAD), (6, 7, None)]),
            (
                "123\ntrue\n\"x\"\n-1.5e3,null",
                vec![(0, 3, OTHER), (4, 4, OTHER), (9, 3, OTHER), (13, 11, OTHER)],
            ),
            (
                "2019-04-02 INFO {\"a\":1} done\n",
                vec![(0, 16, BAD), (16, 7, None), (24, 4, BAD)],
            ),
            ("\"{}\"", vec![(0, 1, BAD), (1, 2, None), (3, 1, BAD)]),
            ("truex", vec![(0, 5, BAD)]),
            ("}", vec![(0, 1, BAD)]),
            ("\\", vec![(0, 1, BAD)]),
            ("\\x\\n", vec![(0, 4, BAD)]),
            (
                "{\"a\":01}\n{'a':1}\n{\"a\":1,}\n{\"a\":.5}\n{a:1}\n{\"a\":NaN}\n{\"a\":+1}",
                vec![
                    (0, 8, BAD),
                    (9, 7, BAD),
                    (17, 8, BAD),
                    (26, 8, BAD),
                    (35, 5, BAD),
                    (41, 9, BAD),
                    (51, 8, BAD),
                ],
            ),
            (
                "{\"a\":\"\\x\"}\n{\"a\":\"\\u12g4\"}\n{\"a\":\"\\ud800\"}\n{\"a\":\"\t\"}",
                vec![(0, 10, BAD), (11, 14, BAD), (26, 14, None), (41, 9, BAD)],
            ),
        ] {
            assert_eq!(
                frames(text.as_bytes(), Limits::default(), || usize::MAX),
                expected,
                "{text:?}"
            );
        }
        let text = b"{\"a\":\"\xFF\"}\n{\"\xC3\x28\":1}{}\n\xEF\xBB{}";
        assert_eq!(
            frames(text, Limits::default(), || usize::MAX),
            [
                (0, 9, BAD),
                (10, 8, BAD),
                (18, 2, None),
                (21, 2, BAD),
                (23, 2, None)
            ]
        );
    }

    #[test]
    fn limits_make_rejects() {
        let limits = Limits {
            max_record_bytes: 10,
            max_depth: 2,
            ..Limits::default()
        };
        for (text, expected) in [
            ("{\"a\":1234}", vec![(0, 10, None)]),
            (
                "{\"a\":12345}\n{}",
                vec![(0, 11, Some(Reason::TooLarge)), (12, 2, None)],
            ),
            (
                "{\"a\":12345{}}",
                vec![
                    (0, 10, Some(Reason::TooLarge)),
                    (10, 2, None),
                    (12, 1, Some(Reason::NotJson)),
                ],
            ),
            ("{\"a\":{}}", vec![(0, 8, None)]),
            (
                "{\"a\":[{}]}",
                vec![
                    (0, 6, Some(Reason::TooDeep)),
                    (6, 2, None),
                    (9, 1, Some(Reason::NotJson)),
                ],
            ),
            ("{\"a\":[[]]}", vec![(0, 10, Some(Reason::TooDeep))]),
            ("{\"c\":[[]]}", vec![(0, 10, Some(Reason::TooDeep))]),
            ("{\"a\":{\"\":{", vec![(0, 10, Some(Reason::TooDeep))]),
        ] {
            let found = frames(text.as_bytes(), limits, || usize::MAX);
            assert_eq!(found, expected, "{text}");
        }
        let deep = "{\"a\":".repeat(128) + "1" + &"}".repeat(128);
        assert_eq!(
            frames(deep.as_bytes(), Limits::default(), || usize::MAX),
            [(0, 769, None)]
        );
    }

    #[test]
    fn an_object_beyond_its_limit_ends_with_one_reject() {
        for (limit, expected) in [
            (16, vec![(0, 7, None), (8, 7, None)]),
            (
                15,
                vec![
                    (0, 7, None),
                    (8, 7, None),
                    (15, 0, Some(Reason::ObjectTooLarge)),
                ],
            ),
            (14, vec![(0, 7, None), (8, 6, Some(Reason::ObjectTooLarge))]),
            (7, vec![(0, 7, None), (7, 0, Some(Reason::ObjectTooLarge))]),
            (3, vec![(0, 3, Some(Reason::ObjectTooLarge))]),
        ] {
            let limits = Limits {
                max_object_bytes: limit,
                ..Limits::default()
            };
            let found = frames(b"{\"a\":1}\n{\"a\":1}\n", limits, || usize::MAX);
            assert_eq!(found, expected, "{limit}");
        }
    }

    #[test]
    fn a_long_bad_stretch_keeps_its_first_65_535_bytes() {
        let mut text = "é".repeat(1 << 20).into_bytes();
        text.insert(0, b'x');
        text.extend_from_slice(b"{}");
        let found = decode(&spec(&[]), &text);
        let reject = &found.rejects[0];
        assert_eq!((reject.raw_offset, reject.raw_bytes), (0, (2 << 20) + 1));
        assert_eq!(reject.raw_text.len(), 65_535);
        assert!(!reject.raw_text.contains('\u{FFFD}'));
        assert_eq!(found.counts.records, 2);
        let found = decode(&spec(&[]), &vec![0xFF; 100_000]);
        // U+FFFD has three bytes.
        assert_eq!(found.rejects[0].raw_text.len(), 65_535);
        // No character is cut in two, in a bad stretch or in an object that is no event.
        for before in ["", "y"] {
            let text = "é".repeat(1 << 16);
            for text in [
                format!("{before}{text}"),
                format!("{{\"{before}{text}\":1}}"),
            ] {
                let found = decode(&spec(&[]), text.as_bytes());
                let kept = &found.rejects[0].raw_text;
                assert!(text.starts_with(kept.as_str()), "{before}");
                assert!((65_534..=65_535).contains(&kept.len()), "{}", kept.len());
            }
        }
    }

    /// The detail of a reject says what is wrong.
    #[test]
    fn details_say_what_is_wrong() {
        let spec = spec(&[]);
        for (text, reason, detail) in [
            ("{\"a\":1", "not_json", "the object is cut off"),
            (
                "{\"a\":1\n{\"t\":1}",
                "not_json",
                "cut off: the line ends before",
            ),
            (
                "{\"a\":1\n\n {\"t\":1}",
                "not_json",
                "cut off: the line ends before",
            ),
            (
                "{\"a\":\"x\n{\"t\":1}",
                "not_json",
                "cut off: the line ends inside a string",
            ),
            (
                "{\"a\":\"x\r\n{\"t\":1}",
                "not_json",
                "cut off: the line ends inside a string",
            ),
            (
                "{\"a\":tru{\"t\":1}",
                "not_json",
                "cut off: another object begins",
            ),
            (
                "{\"a\":NaN}",
                "not_json",
                "NaN at byte 5: JSON has no such number",
            ),
            (
                "{\"a\":[1,nan]}",
                "not_json",
                "nan at byte 9: JSON has no such number",
            ),
            (
                "{\"a\":-Infinity}",
                "not_json",
                "-Infinity at byte 6: JSON has no",
            ),
            (
                "{\"a\":Infinity}",
                "not_json",
                "Infinity at byte 5: JSON has no",
            ),
            (
                "{\"a\":None}",
                "not_json",
                "None at byte 5, as Python writes it",
            ),
            (
                "{\"a\":True}",
                "not_json",
                "True at byte 5, as Python writes it",
            ),
            (
                "{\"a\":undefined}",
                "not_json",
                "undefined at byte 5, as JavaScript",
            ),
            (
                "{'a':1}",
                "not_json",
                "single quotes, where JSON has double quotes at byte 1",
            ),
            (
                "{\"a\":'x'}",
                "not_json",
                "single quotes, where JSON has double quotes at byte 5",
            ),
            ("{\u{201C}a\u{201D}:1}", "not_json", "typographic quotes"),
            ("{a:1}", "not_json", "the name `a` at byte 1 has no quotes"),
            (
                "{\"b\":1, user_id:1}",
                "not_json",
                "the name `user_id` at byte 8 has no quotes",
            ),
            (
                "{\"a\":1,}",
                "not_json",
                "a comma after the last value at byte 7",
            ),
            (
                "{\"a\":[1, ]}",
                "not_json",
                "a comma after the last value at byte 9",
            ),
            ("{\"a\":1 // one\n}", "not_json", "a comment at byte 7"),
            ("{/* c */\"a\":1}", "not_json", "a comment at byte 1"),
            (
                "{\"a\":\"\u{1}\"}",
                "not_json",
                "U+0001 in a string at byte 6: it is written as \\u0001",
            ),
            (
                "{\"a\":\"\t\"}",
                "not_json",
                "U+0009 (tab) in a string at byte 6: it is written as \\t",
            ),
            (
                "{\"a\":\"\\x41\"}",
                "not_json",
                "is no escape that JSON has",
            ),
            (
                "{\"a\":01}",
                "not_json",
                "a number with a leading zero, at byte 6",
            ),
            (
                "{\"a\":.5}",
                "not_json",
                "a number without a digit before its point",
            ),
            (
                "{\"a\":5.}",
                "not_json",
                "a number without a digit after its point",
            ),
            ("{\"a\":+5}", "not_json", "a number with a plus sign"),
            ("{\"a\":0x1F}", "not_json", "a hexadecimal number"),
            (
                "{\"a\":1 \"b\":2}",
                "not_json",
                "expected `,` or `}` at byte 7, found `\"`",
            ),
            (
                "{\"a\":ISODate(1)}",
                "not_json",
                "expected a value at byte 5, found `ISODate`",
            ),
            (
                "{\"a\":}",
                "not_json",
                "expected a value at byte 5, found `}`",
            ),
            (
                "{\n\"a\": x\n}",
                "not_json",
                "expected a value at byte 7, on a later line, found `x`",
            ),
            ("<!DOCTYPE html><html>", "not_json", "HTML, not JSON"),
            (
                "<?xml version=\"1.0\"?>",
                "not_json",
                "XML or HTML, not JSON",
            ),
            (
                "<Error><Code>NoSuchKey</Code></Error>",
                "not_json",
                "XML or HTML, not JSON",
            ),
            ("id,at,page", "not_json", "it looks like a line of CSV"),
            ("a1\u{9}a\u{9}b", "not_json", "it looks like a line of CSV"),
            (
                "2019-04-02 INFO, started, well",
                "not_json",
                "found `2019-04-02 INFO, started…`",
            ),
            ("\0\0\0\0\0", "not_json", "nothing but zero bytes"),
            (
                "{\"a\":\"b\0\0",
                "not_json",
                "zero bytes, as where a file was",
            ),
            (
                "{\"a\":\0\0",
                "not_json",
                "zero bytes, as where a file was not written to its end",
            ),
            (
                "\"{\\\"t\\\":1}\"",
                "not_object",
                "a JSON string with JSON inside",
            ),
            ("\"text\"", "not_object", "a JSON string that is no object"),
            ("1,a,b", "not_object", "it looks like a line of CSV"),
            ("12", "not_object", "a JSON number that is no object"),
            ("true", "not_object", "a JSON boolean that is no object"),
            ("null", "not_object", "a JSON null that is no object"),
        ] {
            let found = decode(&spec, text.as_bytes());
            let first = &found.rejects[0];
            assert_eq!(first.reason.name(), reason, "{text}");
            assert!(first.detail.contains(detail), "{text}: {}", first.detail);
            assert_eq!(decode_cut(&spec, text.as_bytes(), || 1), found, "{text}");
        }
        for (bytes, detail) in [
            (
                &b"{\"t\":1}\n\xFF\xFE{\0"[..],
                "a byte order mark of UTF-16",
            ),
            (b"{\"a\":\"\xB0\xA1\"}", "invalid UTF-8 at byte 6 (0xB0)"),
            (b"\x80\x81", "bytes that are no text"),
        ] {
            let found = decode(&spec, bytes);
            let first = &found.rejects[0].detail;
            assert!(first.contains(detail), "{first}");
        }
    }

    /// No detail has a control character, panics, or depends on how the bytes arrive.
    #[test]
    fn details_are_one_line_of_text() {
        let mut rng = ChaCha8Rng::seed_from_u64(77);
        let spec = spec(&["a string"]);
        let with =
            b"{}[]\",:\\nu0-1.eE tfN'`/#<>\n\r\x1B\x00\x80\xC3\xA9\xEF\xBB\xBF\xFF\xE2\x80\x9C";
        for case in 0..4_000 {
            let mut bytes = mutated(&mut rng);
            for _ in 0..rng.random_range(0..4) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = with[rng.random_range(0..with.len())];
            }
            let found = decode(&spec, &bytes);
            for reject in &found.rejects {
                assert!(
                    !reject.detail.contains(char::is_control),
                    "{}",
                    reject.detail
                );
                assert!(!reject.detail.is_empty() && reject.detail.len() < 300);
            }
            if case % 20 == 0 {
                assert_eq!(decode_cut(&spec, &bytes, || 1), found);
            }
        }
    }

    /// The grammar on the whole slice, as serde_json knows it.
    pub(super) fn oracle(bytes: &[u8], limits: Limits) -> Frames {
        let mut found = Vec::new();
        let mut p = 0;
        while p < bytes.len() {
            let rest = &bytes[p..];
            let skipped = [
                &b" "[..],
                b"\t",
                b"\r",
                b"\n",
                b"\x1E",
                b"[",
                b"]",
                b",",
                b"\\n",
                b"\xEF\xBB\xBF",
            ]
            .iter()
            .find(|separator| rest.starts_with(separator))
            .map(|separator| separator.len());
            if let Some(length) = skipped {
                p += length;
                continue;
            }
            let (e, reason) = match object(rest, limits) {
                Ok(length) => {
                    found.push((p as u64, length as u64, None));
                    p += length;
                    continue;
                }
                Err((at, reason)) => (p + at, reason),
            };
            let line = (p + 1..bytes.len())
                .find(|at| bytes[*at] == b'\n')
                .unwrap_or(bytes.len());
            let next = (e.max(p + 1)..line)
                .find(|at| bytes[*at] == b'{' && object(&bytes[*at..], limits).is_ok());
            let end = next.unwrap_or(line);
            let reason = if starts_other(&bytes[p..end]) {
                Reason::NotObject
            } else {
                reason
            };
            found.push((p as u64, (end - p) as u64, Some(reason)));
            p = end;
        }
        found
    }

    fn starts_other(text: &[u8]) -> bool {
        let mut values =
            serde_json::Deserializer::from_slice(text).into_iter::<serde_json::Value>();
        // Only scalars: `{` and `[` never get here as values.
        let end = match values.next() {
            Some(Ok(_)) => values.byte_offset(),
            // serde_json wants white space or an end after a number or word. rawmart accepts a few more bytes.
            _ => match (1..text.len()).find(|end| {
                matches!(text[*end], b',' | b'[' | b']' | 0x1E | b'\\')
                    && serde_json::from_slice::<serde_json::Value>(&text[..*end]).is_ok()
            }) {
                Some(end) => end,
                None => return false,
            },
        };
        text[0] != b'{'
            && matches!(
                text.get(end),
                None | Some(b' ' | b'\t' | b'\r' | b'\n' | b',' | b'[' | b']' | 0x1E | b'\\')
            )
    }

    fn parse(text: &[u8]) -> serde_json::Result<IgnoredAny> {
        IgnoredAny::deserialize(&mut serde_json::Deserializer::from_slice(text))
    }

    /// The length of the object that starts `text`, or the first byte that no object has there.
    fn object(text: &[u8], limits: Limits) -> Result<usize, (usize, Reason)> {
        if text.first() != Some(&b'{') {
            return Err((0, Reason::NotJson));
        }
        let (mut depth, mut inside, mut escape, mut digits) = (0, false, false, 0);
        for (at, byte) in text.iter().enumerate() {
            if at as u64 == limits.max_record_bytes {
                return Err((at, Reason::TooLarge));
            }
            // serde_json reads the four digits of an escape at once, and so finds a wrong one too late.
            if digits > 0 && !byte.is_ascii_hexdigit() {
                return Err((at, Reason::NotJson));
            }
            digits = match (inside && escape, byte) {
                (true, b'u') => 4,
                _ => i32::max(digits - 1, 0),
            };
            let before = depth;
            match (inside, escape, byte) {
                (true, true, _) => escape = false,
                (true, false, b'\\') => escape = true,
                (_, false, b'"') => inside = !inside,
                (false, _, b'{' | b'[') => depth += 1,
                (false, _, b'}' | b']') => depth -= 1,
                _ => {}
            }
            let prefix = &text[..=at];
            // serde_json calls a number that is cut off an invalid number. One more digit shows the difference.
            let parsed = parse(prefix).map_err(|error| match parse(&[prefix, b"0"].concat()) {
                Err(more) if more.is_eof() => more,
                _ => error,
            });
            if let Err(error) = std::str::from_utf8(prefix)
                && error.error_len().is_some()
            {
                return Err((at, Reason::NotJson));
            }
            match parsed {
                Ok(_) => return Ok(at + 1),
                Err(error) if !error.is_eof() => return Err((at, Reason::NotJson)),
                Err(_) if depth > before && depth as u32 > limits.max_depth => {
                    return Err((at, Reason::TooDeep));
                }
                Err(_) => {}
            }
        }
        let reason = if text.len() as u64 == limits.max_record_bytes {
            Reason::TooLarge
        } else {
            Reason::NotJson
        };
        Err((text.len(), reason))
    }

    const SEEDS: [&str; 6] = [
        "{\"a\":{\"b\":\"x\"},\"c\":[1,{\"d\":null}]}\n{\"t\":1}{\"é\":\"\\u00e9\\n\"}",
        "[{\"a\":-1.5e+3,\"c\":\"한국\"},\r\n{},{\"a\":[true,false]}]",
        "{\"a\":\"{\\\"b\\\":1}\",\"c\":{\"x\":{}}}\\n{\"a\":0}",
        "\u{FEFF}{ \"a\" : [ ] , \"b\" : { } }\n\n12 \"x\"\ntrue,{}",
        "{\"a\":{\"a\":{\"a\":{\"a\":[[{}]]}}}}{\"a\":1}{\"a\"",
        "log {\"a\":1} more {\"b\":\"{\",\"c\":\"}\"}\nnull",
    ];

    pub(super) fn mutated(rng: &mut ChaCha8Rng) -> Vec<u8> {
        const BYTES: &[u8] = b"{}[]\",:\\nu0-1.eE tf\n\r\x1E\x00\x80\xC3\xA9\xEF\xBB\xBF\xFF";
        let mut bytes: Vec<u8> = Vec::new();
        for _ in 0..rng.random_range(1..4) {
            bytes.extend_from_slice(SEEDS[rng.random_range(0..SEEDS.len())].as_bytes());
        }
        for _ in 0..rng.random_range(0..5) {
            let at = rng.random_range(0..bytes.len());
            let byte = BYTES[rng.random_range(0..BYTES.len())];
            match rng.random_range(0..4) {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => {
                    let end = rng.random_range(at..bytes.len().min(at + 12));
                    let copied = bytes[at..end].to_vec();
                    let to = rng.random_range(0..bytes.len());
                    bytes.splice(to..to, copied);
                }
            }
        }
        if rng.random_ratio(1, 8) {
            bytes = (0..40)
                .map(|_| BYTES[rng.random_range(0..BYTES.len())])
                .collect();
        }
        bytes
    }

    #[test]
    fn agrees_with_the_grammar_however_the_bytes_are_cut() {
        let mut rng = ChaCha8Rng::seed_from_u64(20190402);
        for case in 0..4_000 {
            let bytes = mutated(&mut rng);
            let limits = Limits {
                max_record_bytes: if case % 3 == 0 {
                    rng.random_range(1..60)
                } else {
                    1 << 20
                },
                max_depth: if case % 2 == 0 {
                    rng.random_range(1..6)
                } else {
                    128
                },
                ..Limits::default()
            };
            let expected = oracle(&bytes, limits);
            let shown = String::from_utf8_lossy(&bytes);
            assert_eq!(
                frames(&bytes, limits, || usize::MAX),
                expected,
                "{case}: {shown:?}"
            );
            assert_eq!(
                frames(&bytes, limits, || 1),
                expected,
                "{case}, bytes: {shown:?}"
            );
            let mut covered = 0;
            for (offset, length, _) in expected {
                assert!(offset >= covered && length > 0);
                covered = offset + length;
            }
            assert!(covered <= bytes.len() as u64);
        }
    }

    #[test]
    fn large_inputs_are_the_same_however_they_are_cut() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for case in 0..6 {
            let mut bytes = Vec::new();
            while bytes.len() < 900_000 {
                bytes.extend_from_slice(&mutated(&mut rng));
                if rng.random_ratio(1, 200) {
                    let long = "y".repeat(rng.random_range(1..300_000));
                    bytes.extend_from_slice(
                        format!("{{\"a\":\"{long}\"}}{{\"b\":\"{long}\nz{long}").as_bytes(),
                    );
                }
            }
            let limits = Limits {
                max_record_bytes: 100_000,
                ..Limits::default()
            };
            let spec = DecodeSpec {
                limits,
                ..spec(&["a json", "c string"])
            };
            let whole = decode(&spec, &bytes);
            let cut = decode_cut(&spec, &bytes, || rng.random_range(0..70_000));
            assert!(whole == cut, "{case}");
            let small = decode_cut(&spec, &bytes, || rng.random_range(1..9));
            assert!(whole == small, "{case}");
        }
    }

    #[test]
    fn hostile_input_costs_no_more_than_the_depth_allows() {
        // The strings of one object may be the structure of the next.
        let nasty = "{\"a\":[\"{\",\":\",\",\",".to_owned() + &"\":\",\",\",".repeat(100_000);
        let braces = "{".repeat(1 << 20);
        let nested = "{\"a\":".repeat(1 << 18);
        for text in [nasty, braces, nested] {
            let found = decode(&spec(&[]), text.as_bytes());
            assert_eq!(found.counts.events, 0);
        }
    }
}

mod codecs {
    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(bytes, 3).unwrap()
    }

    /// A zstd frame that readers pass over.
    fn skipped(bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap().to_le_bytes();
        [&[0x5A, 0x2A, 0x4D, 0x18], &length[..], bytes].concat()
    }

    fn lines(count: u64) -> Vec<u8> {
        (1..=count)
            .flat_map(|i| format!("{{\"t\":{i},\"n\":{}}}\n", i * 7919 % 1000).into_bytes())
            .collect()
    }

    #[test]
    fn content_decides_and_members_follow_each_other() {
        let spec = spec(&["n int"]);
        let plain = decode(&spec, &lines(300));
        let text = lines(300);
        let (head, tail) = text.split_at(1234);
        for (name, stored) in [
            ("gzip", gzip(&lines(300))),
            ("members", [gzip(head), gzip(b""), gzip(tail)].concat()),
            (
                "padding",
                [gzip(head), gzip(tail), vec![0; 70_000]].concat(),
            ),
            ("zstd", zstd(&lines(300))),
            ("frames", [zstd(head), skipped(b"9"), zstd(tail)].concat()),
            // pzstd writes the length of each frame before it.
            (
                "frames behind what is skipped",
                [
                    skipped(&[9, 0, 0, 0]),
                    zstd(head),
                    skipped(&[8, 0, 0, 0]),
                    zstd(tail),
                    skipped(b""),
                ]
                .concat(),
            ),
            (
                "a line feed behind every member",
                [
                    &gzip(head)[..],
                    b"\n",
                    &gzip(b""),
                    b"\r\n",
                    &gzip(tail),
                    b"\n",
                ]
                .concat(),
            ),
            (
                "blank space and zeros around members",
                [
                    &b"\n\0"[..],
                    &gzip(head),
                    &[b' '; 70_000],
                    &gzip(tail),
                    b"\t\0\n",
                ]
                .concat(),
            ),
            (
                "a line feed behind every frame",
                [
                    &zstd(head)[..],
                    b"\n",
                    &zstd(b""),
                    b"\r\n",
                    &zstd(tail),
                    b"\n",
                ]
                .concat(),
            ),
            (
                "blank space and zeros around frames",
                [
                    &b"\n\0"[..],
                    &zstd(head),
                    &[0; 70_000],
                    &skipped(b"x"),
                    b" ",
                    &zstd(tail),
                    &[b'\n'; 70_000],
                ]
                .concat(),
            ),
        ] {
            let found = decode(&spec, &stored);
            assert_eq!(found.events, plain.events, "{name}");
            assert_eq!(found.rejects, [], "{name}");
            assert_eq!(
                (found.counts.lost, &found.counts.torn),
                (0, &None),
                "{name}"
            );
            assert_eq!(
                found.counts.sha256,
                <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(&stored))
            );
            assert_eq!(decode_cut(&spec, &stored, || 1), found, "{name}");
        }
        for empty in [
            vec![],
            gzip(b""),
            zstd(b""),
            gzip(b" \n\n"),
            b"[]\n".to_vec(),
        ] {
            assert_eq!(decode(&spec, &empty).counts.records, 0);
        }
    }

    #[test]
    fn garbage_after_a_member_is_one_more_reject() {
        for garbage in [&b"x"[..], b"\0\0x", b"{}"] {
            let found = decode(
                &spec(&["n int"]),
                &[gzip(&lines(3)), garbage.to_vec()].concat(),
            );
            assert_eq!(found.counts.events, 3);
            assert_eq!(
                (found.rejects.len(), found.rejects[0].reason),
                (1, Reason::Codec)
            );
            assert_eq!(
                (found.rejects[0].raw_record, found.rejects[0].raw_bytes),
                (4, 0)
            );
        }
        let found = decode(
            &spec(&["n int"]),
            &[zstd(&lines(3)), b"garbage".to_vec()].concat(),
        );
        assert_eq!(
            (found.counts.events, found.rejects[0].reason),
            (3, Reason::Codec)
        );
    }

    /// Random members, with any bytes that may stand between them, give the plain text.
    #[test]
    fn members_and_frames_in_any_company() {
        let spec = spec(&["n int"]);
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let text = lines(2_000);
        let plain = decode(&spec, &text);
        for case in 0..60 {
            let gzips: bool = rng.random();
            let mut stored = Vec::new();
            let mut rest = &text[..];
            while !rest.is_empty() {
                if !gzips && rng.random::<bool>() {
                    let bytes = vec![7; rng.random_range(0..100_000)];
                    stored.extend(skipped(&bytes));
                }
                let blanks = b"\0 \t\r\n";
                for _ in 0..rng.random_range(0..4) * rng.random_range(0..100) {
                    stored.push(blanks[rng.random_range(0..blanks.len())]);
                }
                let (part, behind) = rest.split_at(rng.random_range(0..=rest.len()));
                stored.extend(if gzips { gzip(part) } else { zstd(part) });
                rest = behind;
            }
            let found = decode_cut(&spec, &stored, || rng.random_range(1..9_999));
            assert_eq!(found.events, plain.events, "{case}");
            assert_eq!(found.rejects, [], "{case}");
            assert_eq!(found.counts.lost, 0, "{case}");
        }
    }

    /// How many stored bytes were lost, and the words that say so.
    #[test]
    fn bytes_that_are_lost_are_counted() {
        let spec = spec(&["n int"]);
        let (text, one) = (lines(3_000), gzip(&lines(30)));
        let whole = gzip(&text);
        let all = whole.len() as u64;
        // A wrong block type in the middle, a wrong checksum, a wrong length.
        let with = |at: usize, byte: u8| {
            let mut stored = whole.clone();
            stored[at] ^= byte;
            stored
        };
        let zstd_whole = {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
            encoder.include_checksum(true).unwrap();
            encoder.write_all(&text).unwrap();
            encoder.finish().unwrap()
        };
        let mut zstd_wrong = zstd_whole.clone();
        *zstd_wrong.last_mut().unwrap() ^= 1;
        for (name, stored, lost, detail) in [
            (
                "plain text behind a member",
                [&one[..], b"{\"t\":1,\"n\":1}\n"].concat(),
                14,
                "plain text after gzip member 1, not a gzip member; 14 of",
            ),
            (
                "another codec behind a member",
                [&one[..], &zstd_whole].concat(),
                zstd_whole.len() as u64,
                "data that is zstd-compressed after gzip member 1",
            ),
            (
                "plain text behind a frame",
                [&zstd_whole[..], b"\n{\"t\":1}\n"].concat(),
                8,
                "plain text after zstd frame 1, not a zstd frame; 8 of",
            ),
            (
                "a member that never begins",
                [&one[..], &[0x1F, 0x8B, 9, 9, 9, 9, 9, 9, 9, 9, 9]].concat(),
                11,
                "gzip member 2",
            ),
            (
                "a wrong checksum",
                with(whole.len() - 7, 1),
                all,
                "data check",
            ),
            (
                "a wrong length",
                with(whole.len() - 1, 1),
                all,
                "length check",
            ),
            (
                "a wrong checksum behind a member",
                [&one[..], &with(whole.len() - 7, 1)].concat(),
                all,
                "gzip member 2",
            ),
            (
                "a wrong checksum of a frame",
                zstd_wrong,
                zstd_whole.len() as u64,
                "checksum",
            ),
        ] {
            let found = decode(&spec, &stored);
            assert_eq!(found.counts.lost, lost, "{name}: {:?}", found.counts.torn);
            let torn = found.counts.torn.as_deref().unwrap();
            assert!(torn.contains(detail), "{name}: {torn}");
            assert!(torn.contains("stored bytes are lost"), "{name}: {torn}");
            let last = found.rejects.last().unwrap();
            assert_eq!((last.reason, &*last.detail), (Reason::Codec, torn));
            assert_eq!(decode_cut(&spec, &stored, || 7), found, "{name}");
        }
        // Bytes that were cut off were never stored, so they are not counted.
        let found = decode(&spec, &whole[..whole.len() / 2]);
        assert!(found.counts.events > 100);
        assert_eq!(found.counts.lost, 0);
        assert_eq!(
            found.counts.torn.as_deref(),
            Some("gzip member 1 is cut off")
        );
        // With zeros in the middle of the deflated bytes, exactly the bytes behind them are lost.
        let mut broken = whole.clone();
        broken[whole.len() / 2..].fill(0xFF);
        let found = decode(&spec, &broken);
        assert!(found.counts.events > 100);
        assert!(
            (all / 3..=all / 2).contains(&found.counts.lost),
            "{:?}",
            found.counts
        );
    }

    #[test]
    fn what_lies_beyond_a_limit_is_lost() {
        let text = lines(100_000);
        let limited = |max_object_bytes| DecodeSpec {
            limits: Limits {
                max_object_bytes,
                ..Limits::default()
            },
            ..spec(&["n int"])
        };
        let stored = text.len() as u64;
        for limit in [0, 1, 65_536, 1_000_000] {
            let found = decode(&limited(limit), &text);
            let lost = if found.counts.events == 0 {
                stored
            } else {
                stored - limit
            };
            assert_eq!(found.counts.lost, lost, "{limit}");
            assert_eq!(found, decode_cut(&limited(limit), &text, || 999));
        }
        assert_eq!(decode(&limited(stored), &text).counts.lost, 0);
        // The share of the compressed bytes is lost, whether the object is inflated at once or not.
        let packed = gzip(&text);
        let found = decode(&limited(stored / 4), &packed);
        let share = found.counts.lost as f64 / packed.len() as f64;
        assert!((0.6..0.8).contains(&share), "{share}");
        let small = DecodeMemory::new(1_000, 2);
        let mut decoder = Decoder::new(&limited(stored / 4), &small);
        assert!(decode_with(&mut decoder, &packed, || 4_000) == found);
        // The reject of a bad stretch keeps 65,535 bytes of it.
        let long = [&b"{\"t\":1}\n"[..], &vec![b'x'; 1 << 20], b"\n{\"t\":2}"].concat();
        let found = decode(&spec(&[]), &long);
        assert_eq!(found.counts.events, 2);
        assert_eq!(found.counts.lost, (1 << 20) - 65_535);
        let found = decode(&spec(&[]), &gzip(&long));
        let share = found.counts.lost as f64 / found.counts.bytes as f64;
        assert!((0.9..1.0).contains(&share), "{share}");
        // An event that is refused keeps no more of its text.
        let long = format!("{{\"t\":1}}{{\"x\":\"{}\"}}", "x".repeat(1 << 20));
        let found = decode(&spec(&[]), long.as_bytes());
        assert_eq!((found.counts.events, found.counts.records), (1, 2));
        assert_eq!(found.counts.lost, (1 << 20) + 8 - 65_535);
    }

    /// An object of another kind is one reject that names it.
    #[test]
    fn another_kind_is_one_reject() {
        let spec = spec(&["n int"]);
        let text = lines(5_000);
        let utf16: Vec<u8> = String::from_utf8(text.clone())
            .unwrap()
            .encode_utf16()
            .flat_map(u16::to_be_bytes)
            .collect();
        let parquet = [&b"PAR1\x15\x04"[..], &text].concat();
        let lzo = [&b"\x89LZO\0\r\n\x1A\n"[..], &text].concat();
        let wide = "the object is UTF-16 text without a byte order mark";
        for (stored, bytes, detail) in [
            (utf16.clone(), utf16.len(), format!("{wide}, which")),
            (
                parquet.clone(),
                parquet.len(),
                "the object is a Parquet file, which".to_owned(),
            ),
            (
                lzo.clone(),
                lzo.len(),
                "the object is lzo-compressed, which".to_owned(),
            ),
            (
                gzip(&parquet),
                parquet.len(),
                "the object is a Parquet file inside gzip, which".to_owned(),
            ),
            (
                zstd(&gzip(&parquet)),
                parquet.len(),
                "the object is a Parquet file inside gzip inside zstd, which".to_owned(),
            ),
            (
                gzip(&utf16),
                utf16.len(),
                format!("{wide} inside gzip, which"),
            ),
        ] {
            let found = decode(&spec, &stored);
            assert_eq!(
                (found.counts.records, found.rejects.len()),
                (1, 1),
                "{detail}"
            );
            let reject = &found.rejects[0];
            assert_eq!((reject.reason, reject.raw_offset), (Reason::Codec, 0));
            assert_eq!(reject.raw_bytes, bytes as u64, "{detail}");
            assert!(reject.detail.contains(&detail), "{}", reject.detail);
            let all = format!("all of its {} stored bytes are lost", stored.len());
            assert!(reject.detail.contains(&all), "{}", reject.detail);
            assert_eq!(found.counts.lost, stored.len() as u64, "{detail}");
            assert_eq!(found.counts.torn.as_ref(), Some(&reject.detail));
            assert!(decode_cut(&spec, &stored, || 999) == found, "{detail}");
        }
        // A text without any object is lost as a whole.
        let csv = b"id,at\na,1\nb,2\n";
        let found = decode(&spec, csv);
        assert_eq!(found.counts.records, 3);
        assert_eq!(
            (found.counts.lost, &found.counts.torn),
            (csv.len() as u64, &None)
        );
        // An object that was read and refused is not lost.
        assert_eq!(decode(&spec, b"{\"n\":1}\nx\n").counts.lost, 0);
        assert_eq!(decode(&spec, b"\n\n").counts.lost, 0);
    }

    #[test]
    fn a_stream_cut_anywhere_keeps_what_came_before() {
        let spec = spec(&["n int"]);
        let text = lines(40);
        let whole = decode(&spec, &text);
        let (head, tail) = text.split_at(300);
        for (name, stored, fresh) in [
            ("gzip", [gzip(head), gzip(tail)].concat(), gzip(head).len()),
            ("zstd", [zstd(head), zstd(tail)].concat(), zstd(head).len()),
        ] {
            for end in 1..stored.len() {
                let found = decode(&spec, &stored[..end]);
                assert_eq!(
                    found,
                    decode_cut(&spec, &stored[..end], || 3),
                    "{name} {end}"
                );
                assert!(whole.events.starts_with(&found.events), "{name} {end}");
                assert_eq!(found.rejects.len(), 1, "{name} {end}");
                let reject = &found.rejects[0];
                let torn = reject.raw_offset..reject.raw_offset + reject.raw_bytes;
                if end == fresh {
                    // A whole first member is a whole object; only its last line is torn.
                    assert_eq!(reject.reason, Reason::NotJson, "{name} {end}");
                    assert_eq!(torn.end, 300, "{name} {end}");
                } else if !(name == "zstd" && end == 1) {
                    assert_eq!(reject.reason, Reason::Codec, "{name} {end}");
                }
                if end > 3 {
                    assert_eq!(
                        reject.raw_text.as_bytes(),
                        &text[torn.start as usize..torn.end as usize]
                    );
                }
            }
        }
    }

    #[test]
    fn flipped_bits_end_in_one_reject_however_the_bytes_are_cut() {
        let spec = spec(&["n int"]);
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let text = lines(30_000);
        // zstd frames have no checksum by default, so only gzip certainly finds the damage.
        for (stored, certain) in [(gzip(&text), true), (zstd(&text), false)] {
            for _ in 0..12 {
                let mut broken = stored.clone();
                let at = rng.random_range(20..broken.len());
                broken[at] ^= 1 << rng.random_range(0..8);
                let found = decode(&spec, &broken);
                let codec = found.counts.rejects.get(&Reason::Codec);
                assert!(codec == Some(&1) || !certain && codec.is_none());
                assert_eq!(
                    found,
                    decode_cut(&spec, &broken, || rng.random_range(1..5_000))
                );
            }
        }
    }
}

mod columns {
    use super::*;

    #[test]
    fn types_take_what_is_theirs_and_nothing_else() {
        for (kind, takes, refuses) in [
            (
                "string",
                vec![
                    ("\"a\\n\\u00e9\"", "a\né"),
                    ("\"\\ud83d\\ude00\\uFFFD\"", "😀\u{FFFD}"),
                    ("\"\"", ""),
                    ("null", "-"),
                ],
                vec![
                    "1",
                    "true",
                    "{}",
                    "[]",
                    // Half of a surrogate pair, which no UTF-8 text can hold.
                    "\"\\ud800\"",
                    "\"a\\uDC00b\"",
                    "\"\\ud83d\\ud83d\\ude00\"",
                    "\"\\ude00\\ud83d\"",
                    "\"\\ud83d\\n\"",
                ],
            ),
            (
                "boolean",
                vec![("true", "true"), ("false", "false")],
                vec!["\"true\"", "0", "1"],
            ),
            (
                "int",
                vec![
                    ("2147483647", "2147483647"),
                    ("-2147483648", "-2147483648"),
                    ("-0", "0"),
                ],
                vec!["2147483648", "1.0", "1e2", "\"1\"", "true"],
            ),
            (
                "bigint",
                vec![
                    ("9223372036854775807", "9223372036854775807"),
                    ("-9223372036854775808", "-9223372036854775808"),
                ],
                vec!["9223372036854775808", "1.0", "\"1\"", "[]"],
            ),
            (
                "double",
                vec![("1", "1.0"), ("-1.5e3", "-1500.0"), ("1e-400", "0.0")],
                vec!["1e400", "\"1\"", "true", "{}"],
            ),
            (
                "decimal(5,2)",
                vec![
                    ("1.5", "1.50"),
                    ("\"-123.45\"", "-123.45"),
                    ("7", "7.00"),
                    ("1.2300", "1.23"),
                ],
                vec!["1.234", "1234", "\"x\"", "true", "\"1,5\""],
            ),
            (
                "date",
                vec![("\"2019-04-02\"", "2019-04-02")],
                vec![
                    "\"2019-04-02T00:00:00Z\"",
                    "20190402",
                    "\"2019-02-30\"",
                    "\"0000-04-02\"",
                ],
            ),
            (
                "timestamp",
                vec![
                    ("\"1969-12-31T23:59:59.9999Z\"", "1969-12-31T23:59:59.999Z"),
                    ("1554195900.5", "2019-04-02T09:05:00.500Z"),
                    ("\"1554195900\"", "2019-04-02T09:05:00Z"),
                ],
                vec![
                    "\"2019-04-02\"",
                    "true",
                    "\"2019-04-02 09:05:00\"",
                    "{}",
                    "\"0000-12-31T23:59:59Z\"",
                    "\"9999-12-31T23:59:59-01:00\"",
                    "253402300800000000000",
                    "\"\\ud800\"",
                ],
            ),
            (
                "array<bigint>",
                vec![("[1, null,3]", "[1, -, 3]"), ("[]", "[]"), ("null", "-")],
                vec!["{}", "[1.5]", "1"],
            ),
            (
                "map<string,int>",
                vec![
                    ("{\"a\":1,\"b\":null,\"a\":2}", "{b: -, a: 2}"),
                    ("{}", "{}"),
                ],
                vec!["[]", "{\"a\":\"1\"}", "{\"\\ud800\":1,\"\\ud801\":2}"],
            ),
            (
                "struct<a:int,b:array<string>>",
                vec![
                    ("{\"b\":[\"x\"],\"a\":1,\"a\":2}", "{a: 2, b: [x]}"),
                    ("{}", "{a: -, b: -}"),
                ],
                vec![
                    "[]",
                    "{\"a\":\"1\"}",
                    "{\"b\":[1]}",
                    "{\"b\":[\"\\udfff\"]}",
                ],
            ),
            (
                "json",
                vec![
                    ("{ \"a\": [1, 2.50] }", "{ \"a\": [1, 2.50] }"),
                    ("\"x\\n\"", "\"x\\n\""),
                    ("\"\\ud800\"", "\"\\ud800\""),
                    ("1e5", "1e5"),
                    ("null", "-"),
                ],
                vec![],
            ),
        ] {
            let column = format!("v {kind}");
            let reject = spec(&[&column]);
            let null = DecodeSpec {
                on_type_error: OnTypeError::Null,
                ..reject.clone()
            };
            for (value, expected) in takes {
                assert_eq!(
                    row(&reject, &format!("\"v\":{value}")),
                    [expected, "-"],
                    "{kind} {value}"
                );
                assert_eq!(
                    row(&null, &format!("\"v\" : {value} ")),
                    [expected, "-"],
                    "{kind} {value}"
                );
            }
            for value in refuses {
                let (reason, detail) = refused(&reject, &format!("{{\"t\":1,\"v\":{value}}}"));
                assert_eq!(reason, Reason::Type, "{kind} {value}");
                assert!(
                    // The detail says that the time has no offset.
                    detail.contains("`v`")
                        && (detail.contains(kind) || detail.contains("has no offset"))
                        && detail.contains(value),
                    "{detail}"
                );
                let kept = format!("{{\"v\":{value}}}");
                assert_eq!(
                    row(&null, &format!("\"v\":{value}")),
                    ["-", &kept],
                    "{kind} {value}"
                );
                let found = decode(&null, format!("{{\"t\":1,\"v\":{value}}}").as_bytes());
                assert_eq!(found.counts.nulled["v"], 1);
            }
        }
    }

    #[test]
    fn extra_is_all_that_no_column_names() {
        let columns = [
            "id string",
            "device.os string",
            "device.geo.city string",
            "s struct<a:int,b:struct<c:int>>",
            "l array<struct<a:int>>",
            "j json",
            "j.k string",
        ];
        let spec = spec(&columns);
        for (members, expected) in [
            ("\"id\":\"x\"", "-"),
            ("\"n\":1", "{\"n\":1}"),
            (
                "\"n\" : [1, 2] , \"id\":\"x\",\"m\":null",
                "{\"n\":[1, 2],\"m\":null}",
            ),
            ("\"device\":{\"os\":\"x\"}", "-"),
            ("\"device\":{}", "-"),
            (
                "\"device\":{\"ram\":4,\"os\":\"x\",\"geo\":{\"lat\":1.50}},\"z\":1",
                "{\"device\":{\"ram\":4,\"geo\":{\"lat\":1.50}},\"z\":1}",
            ),
            // The value on the path is no object.
            ("\"device\":\"phone\"", "{\"device\":\"phone\"}"),
            ("\"device\":null", "{\"device\":null}"),
            ("\"device\":{\"geo\":[1]}", "{\"device\":{\"geo\":[1]}}"),
            // If several members have one name, the last one counts as a whole.
            ("\"n\":1,\"m\":2,\"n\":3", "{\"m\":2,\"n\":3}"),
            ("\"n\":1,\"\\u006e\":3", "{\"\\u006e\":3}"),
            (
                "\"device\":{\"ram\":4,\"os\":\"x\"},\"device\":{\"cpu\":1}",
                "{\"device\":{\"cpu\":1}}",
            ),
            ("\"device\":{\"ram\":4},\"device\":1", "{\"device\":1}"),
            ("\"device\":1,\"device\":{\"os\":\"x\"}", "-"),
            ("\"device\":{\"n\":1,\"n\":2}", "{\"device\":{\"n\":2}}"),
            // Structs name their fields. In an array, a member that no field names keeps the whole value in `extra`.
            (
                "\"s\":{\"a\":1,\"x\":2,\"b\":{\"c\":1,\"d\":2}}",
                "{\"s\":{\"x\":2,\"b\":{\"d\":2}}}",
            ),
            ("\"l\":[{\"a\":1},{\"a\":2}]", "-"),
            (
                "\"y\":0,\"l\":[{\"a\":1},{\"b\":2}],\"z\":1",
                "{\"y\":0,\"l\":[{\"a\":1},{\"b\":2}],\"z\":1}",
            ),
            // A column at an inner node names all members beneath.
            ("\"j\":{\"k\":\"x\",\"m\":1}", "-"),
            ("\"j\":5", "-"),
        ] {
            assert_eq!(row(&spec, members).last().unwrap(), expected, "{members}");
        }
        // There are many names, and each occurs twice.
        let many: Vec<String> = (0..2_000)
            .map(|i| format!("\"n{}\":{i}", i % 1_000))
            .collect();
        let extra = row(&spec, &many.join(",")).pop().unwrap();
        assert_eq!(extra, format!("{{{}}}", many[1_000..].join(",")));
    }

    /// A name with half of a surrogate pair is no text. It names no column and is not U+FFFD, but two such names are
    /// compared with each other.
    #[test]
    fn names_that_are_no_text_are_told_apart() {
        let spec = spec(&["\u{FFFD} string", "s struct<a:int>"]);
        for (members, expected) in [
            (
                "\"\\ud800\":1,\"\\udc00\":2",
                "{\"\\ud800\":1,\"\\udc00\":2}",
            ),
            (
                "\"\\ud800\":1,\"\\uD800\":2,\"\\ud800x\":3",
                "{\"\\uD800\":2,\"\\ud800x\":3}",
            ),
            (
                "\"\\ud800\\u0041\":1,\"\\ud800A\":2,\"\\ud800\\n\":3",
                "{\"\\ud800A\":2,\"\\ud800\\n\":3}",
            ),
            ("\"s\":{\"\\ud800\":1}", "{\"s\":{\"\\ud800\":1}}"),
        ] {
            let row = row(&spec, members);
            assert_eq!(row.last().unwrap(), expected, "{members}");
            assert_eq!(row[0], "-", "{members}");
        }
        assert_eq!(row(&spec, "\"\\ufffd\":\"x\"")[0], "x");
    }

    #[test]
    fn of_duplicate_names_the_last_wins() {
        let spec = spec(&[
            "id string",
            "device.os string",
            "device.v int",
            "s struct<a:int>",
        ]);
        for (members, expected) in [
            ("\"id\":\"x\",\"id\":\"y\"", ["y", "-", "-", "-"]),
            ("\"id\":\"x\",\"\\u0069d\":\"y\"", ["y", "-", "-", "-"]),
            ("\"id\":\"x\",\"id\":null", ["-", "-", "-", "-"]),
            (
                "\"device\":{\"os\":\"a\",\"v\":1},\"device\":{\"v\":2}",
                ["-", "-", "2", "-"],
            ),
            (
                "\"device\":{\"os\":\"a\"},\"device\":1",
                ["-", "-", "-", "-"],
            ),
            ("\"device\":{\"os\":1,\"os\":\"b\"}", ["-", "b", "-", "-"]),
            ("\"s\":{\"a\":1},\"s\":{}", ["-", "-", "-", "{a: -}"]),
        ] {
            assert_eq!(row(&spec, members)[..4], expected, "{members}");
        }
    }

    #[test]
    fn misfits_under_a_path_keep_their_path() {
        let mut spec = spec(&[
            "device.os string",
            "s struct<a:int,b:struct<c:int>>",
            "d.e int",
        ]);
        spec.on_type_error = OnTypeError::Null;
        for (members, expected) in [
            (
                "\"device\":{\"ram\":4,\"os\":1,\"z\":2}",
                ["-", "-", "-", "{\"device\":{\"ram\":4,\"os\":1,\"z\":2}}"],
            ),
            (
                "\"device\":{\"os\":1}",
                ["-", "-", "-", "{\"device\":{\"os\":1}}"],
            ),
            (
                "\"s\":{\"a\":\"x\",\"n\":1}",
                ["-", "-", "-", "{\"s\":{\"a\":\"x\",\"n\":1}}"],
            ),
            ("\"s\":5,\"d\":{\"e\":7}", ["-", "-", "7", "{\"s\":5}"]),
            ("\"s\":{\"b\":3}", ["-", "-", "-", "{\"s\":{\"b\":3}}"]),
        ] {
            assert_eq!(row(&spec, members), expected, "{members}");
        }
    }

    #[test]
    fn a_reject_leaves_nothing_in_the_columns() {
        let spec = spec(&[
            "s string",
            "b boolean",
            "i int",
            "l bigint",
            "f double",
            "d decimal(5,2)",
            "a array<struct<x:int,y:array<string>>>",
            "m map<string,boolean>",
            "c struct<x:date,y:map<string,string>>",
            "j json",
            "last int",
        ]);
        let full = |i: u32, last: &str| {
            format!(
                "{{\"t\":{i},\"s\":\"s{i}\",\"b\":true,\"i\":{i},\"l\":{i},\"f\":{i}.5,\"d\":{i},\
                 \"a\":[{{\"x\":{i}}},{{\"y\":[\"{i}\"]}}],\"m\":{{\"k{i}\":false}},\
                 \"c\":{{\"x\":\"2019-04-02\",\"y\":{{\"k\":\"v{i}\"}}}},\"j\":[{i}],\"last\":{last}}}\n"
            )
        };
        let bare = |i: u32, last: &str| format!("{{\"t\":{i},\"last\":{last}}}\n");
        let (mut good, mut all) = (String::new(), String::new());
        for i in 1..200 {
            let (record, refused) = if i % 3 == 0 {
                (bare(i, "1"), full(i, "\"x\""))
            } else {
                (full(i, "1"), bare(i, "\"x\""))
            };
            good += &record;
            all += &(refused + &record);
        }
        let rows = |text: &str| -> Vec<Vec<String>> {
            let found = decode(&spec, text.as_bytes());
            found.events.into_iter().map(|(_, row)| row).collect()
        };
        assert_eq!(rows(&all).len(), 199);
        assert_eq!(rows(&all), rows(&good));
        // Nulls that only rejects have are no nulls of the column.
        let mut nulls = Vec::new();
        let text = bare(1, "\"x\"") + &full(1, "1");
        decoder(&spec)
            .read(
                ARRIVAL,
                &mut Cut {
                    bytes: text.as_bytes(),
                    next: Box::new(|| usize::MAX),
                },
                &mut |decoded| {
                    if let Decoded::Events(batch) = decoded {
                        nulls.extend(batch.columns()[..11].iter().map(|c| c.nulls().is_some()));
                    }
                    Ok(())
                },
            )
            .unwrap();
        assert_eq!(nulls, [false; 11]);
    }

    #[test]
    fn names_and_strings_of_any_length_however_they_are_written() {
        let name = |i: usize| format!("{}{}", "n".repeat(i % 31), i);
        let mut columns: Vec<String> = (0..45).map(|i| format!("{} string", name(i))).collect();
        columns.push("o.n1 string".to_owned());
        columns.push("q\"\\ string".to_owned());
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let spec = spec(&columns);
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let (mut text, mut expected) = (String::new(), Vec::new());
        let mut order: Vec<usize> = (0..45).collect();
        for record in 0..400 {
            if record % 4 == 3 {
                let (a, b) = (rng.random_range(0..45), rng.random_range(0..45));
                order.swap(a, b);
            }
            let mut row: Vec<String> = vec!["-".to_owned(); 48];
            let mut members = vec!["\"t\":1".to_owned()];
            for i in &order {
                if rng.random_range(0..20) == 0 {
                    continue;
                }
                let value = "v".repeat(rng.random_range(0..40));
                let name = name(*i);
                members.push(match rng.random_range(0..20) {
                    0 => format!("\"{name}\" :\"{value}\""),
                    1 => format!("\"{name}\": \"{value}\" "),
                    2 => format!(
                        "\"\\u{:04x}{}\":\"{value}\"",
                        name.as_bytes()[0],
                        &name[1..]
                    ),
                    3 => format!("\"{name}\":\"old\",\"{name}\":\"{value}\""),
                    _ => format!("\"{name}\":\"{value}\""),
                });
                row[*i] = value;
            }
            members.push("\"o\":{\"n1\":\"in\"}".to_owned());
            members.push("\"q\\\"\\\\\":\"quoted\"".to_owned());
            row[45] = "in".to_owned();
            row[46] = "quoted".to_owned();
            text += &format!("{{{}}}", members.join(","));
            expected.push(row);
        }
        for _ in 0..3 {
            let found = decode_cut(&spec, text.as_bytes(), || rng.random_range(1..9_999));
            assert_eq!(found.rejects, []);
            assert_eq!(found.events.len(), expected.len());
            for ((_, row), expected) in found.events.iter().zip(&expected) {
                assert_eq!(row, expected);
            }
        }
    }

    #[test]
    fn defaults_and_required_columns() {
        let mut spec = spec(&["n int", "s string", "l array<int>", "r bigint"]);
        spec.columns[1].default = Some(7.into());
        spec.columns[2].default = Some("a\"b".into());
        spec.columns[3].default = Some(serde_json::json!([1, 2]));
        spec.columns[4].required = true;
        for column in &spec.columns {
            assert_eq!(check_default(column, spec.unit, None), Ok(()));
        }
        assert_eq!(
            row(&spec, "\"r\":1,\"n\":null"),
            ["7", "a\"b", "[1, 2]", "1", "-"]
        );
        assert_eq!(
            row(&spec, "\"r\":1,\"n\":8,\"s\":\"\",\"l\":[]"),
            ["8", "", "[]", "1", "-"]
        );
        assert_eq!(refused(&spec, "{\"t\":1}").0, Reason::Missing);
        assert_eq!(refused(&spec, "{\"t\":1,\"r\":null}").0, Reason::Missing);
        spec.on_type_error = OnTypeError::Null;
        assert_eq!(refused(&spec, "{\"t\":1,\"r\":\"x\"}").0, Reason::Type);
        for (kind, default) in [
            ("int", "\"1\""),
            ("decimal(3,1)", "1.25"),
            ("timestamp", "\"2019-04-02\""),
            ("array<struct<a:int>>", "[{\"b\":1}]"),
        ] {
            let mut wrong = column("v", kind);
            wrong.default = Some(serde_json::from_str(default).unwrap());
            let error = check_default(&wrong, TimeUnit::Ms, None).unwrap_err();
            assert!(error.contains(kind), "{error}");
        }
    }

    #[test]
    fn reasons_are_found_in_a_fixed_order() {
        let mut spec = spec(&["a int", "b int"]);
        spec.columns[2].required = true;
        for (record, reason) in [
            ("{\"a\":\"x\"}", Reason::EventTime),
            ("{\"t\":null,\"b\":1}", Reason::EventTime),
            ("{\"t\":true,\"b\":1}", Reason::EventTime),
            ("{\"t\":\"2019-04-02\",\"b\":1}", Reason::EventTime),
            ("{\"t\":\"2019-04-02T00:00:00\",\"b\":1}", Reason::EventTime),
            ("{\"t\":-1,\"a\":\"x\"}", Reason::OutOfRange),
            ("{\"t\":1554282300.001,\"a\":\"x\"}", Reason::OutOfRange),
            ("{\"t\":1554282300,\"a\":\"x\"}", Reason::Type),
            // The year 0 is in no accepted span.
            ("{\"t\":\"0000-01-01T00:00:00Z\"}", Reason::OutOfRange),
            ("{\"t\":1}", Reason::Missing),
            ("{\"t\":1,\"b\":1", Reason::NotJson),
        ] {
            assert_eq!(refused(&spec, record).0, reason, "{record}");
        }
    }

    #[test]
    fn system_columns_and_times_have_their_types() {
        let mut spec = spec(&[]);
        spec.record_sha256 = true;
        let mut decoder = decoder(&spec);
        let names: Vec<String> = decoder
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect();
        assert_eq!(names, ["t", "record_sha256", "raw_record", "extra"]);
        let mut batches = Vec::new();
        let bytes = b"{\"t\":1.9999}\n  {\"t\":1}x";
        decoder
            .read(
                ARRIVAL,
                &mut Cut {
                    bytes,
                    next: Box::new(|| 4),
                },
                &mut |decoded| {
                    batches.push(decoded);
                    Ok(())
                },
            )
            .unwrap();
        let Decoded::Events(batch) = &batches[0] else {
            panic!("events come first")
        };
        assert_eq!(
            batch
                .column(0)
                .as_primitive::<TimestampMillisecondType>()
                .values(),
            &[1_999, 1_000]
        );
        assert_eq!(
            batch.column(1).as_string::<i32>().value(1),
            hex::encode(<sha2::Sha256 as sha2::Digest>::digest(b"{\"t\":1}"))
        );
        assert_eq!(batch.column(2).null_count(), 0);
    }

    #[test]
    fn batches_are_bounded_and_a_decoder_is_used_again() {
        let spec = spec(&["s string"]);
        let mut decoder = decoder(&spec);
        let text: String = (0..20_000)
            .map(|i| format!("{{\"t\":1,\"s\":\"{i}\"}}x\n"))
            .collect();
        let first = decode_with(&mut decoder, text.as_bytes(), || usize::MAX);
        assert_eq!(
            (first.counts.events, first.counts.records),
            (20_000, 40_000)
        );
        let mut sizes = Vec::new();
        let failed = decoder.read(
            ARRIVAL,
            &mut Cut {
                bytes: text.as_bytes(),
                next: Box::new(|| 999),
            },
            &mut |decoded| {
                if let Decoded::Events(batch) = decoded {
                    sizes.push(batch.num_rows());
                }
                if sizes.len() == 2 {
                    Err("stop".into())
                } else {
                    Ok(())
                }
            },
        );
        assert_eq!(failed.unwrap_err().to_string(), "stop");
        assert_eq!(sizes, [8192, 8192]);
        assert!(decode_with(&mut decoder, text.as_bytes(), || usize::MAX) == first);
    }
}

/// Decoders that wait for the memory of long records, and for the windows of zstd frames in the middle of them.
#[test]
fn long_records_come_one_after_the_other_and_all_come() {
    let mut spec = spec(&["id string"]);
    spec.limits.max_record_bytes = 2 << 20;
    let record = |size: usize| format!("{{\"id\":\"{}\",\"t\":1554076800}}\n", "x".repeat(size));
    let text: String = [10, 700 << 10, 20, 1_900 << 10, 900 << 10, 3 << 20, 30]
        .map(record)
        .concat();
    let mut frames = Vec::new();
    for part in text.as_bytes().chunks(600 << 10) {
        frames.extend(zstd::stream::encode_all(part, 1).unwrap());
    }
    let expected = decode(&spec, text.as_bytes());
    assert_eq!((expected.counts.records, expected.counts.events), (7, 6));
    for bytes in [0, 4 << 20, 64 << 20] {
        let memory = DecodeMemory::new(bytes, 6);
        std::thread::scope(|scope| {
            for thread in 0..6 {
                let (memory, spec, frames, text) = (&memory, &spec, &frames, &text);
                let expected = &expected;
                scope.spawn(move || {
                    let mut decoder = Decoder::new(spec, memory);
                    for round in 0..4 {
                        let stored = match (thread + round) % 2 {
                            0 => text.as_bytes(),
                            _ => frames.as_slice(),
                        };
                        let found = decode_with(&mut decoder, stored, || 100_000);
                        assert!(found.events == expected.events);
                        assert!(found.rejects == expected.rejects);
                    }
                });
            }
        });
    }
}
