//! What is accepted as JSON: the classes of the public JSON parsing test suite (JSONTestSuite), as cases of our own; and
//! random texts in every codec and envelope, against serde_json.

use serde_json::Value;
use serde_json::value::RawValue;

use super::framing::{mutated, oracle};
use super::packed::PACKERS;
use super::*;
use crate::event::UnwrapStep;

/// A record whose member `v` is this text.
fn record(value: &[u8]) -> Vec<u8> {
    [&b"{\"t\":1,\"v\":"[..], value, b"}"].concat()
}

/// The text of the value in the column, where the record is one event and nothing else.
fn accepted(value: &[u8]) -> Option<String> {
    let found = decode(&spec(&["v json"]), &record(value));
    match (found.events.as_slice(), found.rejects.as_slice()) {
        ([(1, values)], []) => Some(values[0].clone()),
        _ => None,
    }
}

fn known(value: &[u8]) -> bool {
    serde_json::from_slice::<Value>(&record(value)).is_ok()
}

/// Texts that every parser must accept.
const ACCEPT: &[&str] = &[
    // Arrays.
    "[[]   ]",
    "[\"\"]",
    "[]",
    "[\"a\"]",
    "[false]",
    "[null, 1, \"1\", {}]",
    "[null]",
    "[1\n]",
    " [1]",
    "[1,null,null,null,2]",
    "[2] ",
    "[1,2,[3,[4]]]",
    // Numbers.
    "123e65",
    "0e+1",
    "0e1",
    " 4",
    "-0.000000000000000000000000000000000000000000000000000000000000000000000000000001",
    "20e1",
    "-0",
    "-123",
    "-1",
    "1E22",
    "1E-2",
    "1E+2",
    "123e45",
    "123.456e78",
    "1e-2",
    "1e+2",
    "123",
    "123.456789",
    "0",
    "-0.0",
    "0.1e-7",
    "9223372036854775808",
    "-9223372036854775809",
    "3.141592653589793238462643383279",
    // Objects.
    "{\"asd\":\"sdf\", \"dfg\":\"fgh\"}",
    "{\"asd\":\"sdf\"}",
    "{\"a\":\"b\",\"a\":\"c\"}",
    "{\"a\":\"b\",\"a\":\"b\"}",
    "{}",
    "{\"\":0}",
    "{\"foo\\u0000bar\": 42}",
    "{ \"min\": -1.0e+28, \"max\": 1.0e+28 }",
    "{\"x\":[{\"id\": \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}], \"id\": \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}",
    "{\"a\":[]}",
    "{\"title\":\"\\u041f\\u043e\\u043b\\u0442\\u043e\\u0440\\u0430\" }",
    "{\n\"a\": \"b\"\n}",
    // Strings.
    "\"\\u0060\\u012a\\u12AB\"",
    "\"\\uD801\\udc37\"",
    "\"\\ud83d\\ude39\\ud83d\\udc8d\"",
    "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
    "\"\\\\u0000\"",
    "\"\\\"\"",
    "\"a/*b*/c/*d//e\"",
    "\"\\\\a\"",
    "\"\\\\n\"",
    "\"\\u0012\"",
    "\"\\uFFFF\"",
    "\"asd\"",
    "\"\u{10FFFF}\"",
    "\"\u{FFFF}\"",
    "\"\\u0000\"",
    "\"\\u002c\"",
    "\"π\"",
    "\"\u{1BFFF}\"",
    "\"asd \"",
    "\" \"",
    "\"\\uDBFF\\uDFFE\"",
    "\"new\\u00A0line\"",
    "\"\u{2028}\u{2029}\"",
    "\"\\u0022\\uA66D\"",
    "\"€𝄞\"",
    "\"aa\u{7F}a\"",
    // Structure.
    "false",
    " true ",
];

/// Texts that every parser must reject.
const REJECT: &[&str] = &[
    "[1 true]",
    "[a\u{E9}]",
    "[\"\": 1]",
    "[\"\"],",
    "[,1]",
    "[1,,2]",
    "[\"x\",,]",
    "[\"x\"]]",
    "[\"\",]",
    "[\"x\"",
    "[x",
    "[3[4]]",
    "[,]",
    "[-]",
    "[   , \"\"]",
    "[\"a\",\n4\n,1,",
    "[1,]",
    "[1,,]",
    "[\"\u{B}a\"\\f]",
    "[*]",
    "[\"\"",
    "[1,",
    "[1,\n1\n,1",
    "[{}",
    "[fals]",
    "[nul]",
    "[tru]",
    "[++1234]",
    "[+1]",
    "[+Inf]",
    "[-01]",
    "[-1.0.]",
    "[-2.]",
    "[-NaN]",
    "[.-1]",
    "[.2e-3]",
    "[0.1.2]",
    "[0.3e+]",
    "[0.3e]",
    "[0.e1]",
    "[0E+]",
    "[0E]",
    "[0e+]",
    "[0e]",
    "[1.0e+]",
    "[1.0e-]",
    "[1.0e]",
    "[1 000.0]",
    "[1eE2]",
    "[2.e+3]",
    "[2.e-3]",
    "[2.e3]",
    "[9.e+]",
    "[Inf]",
    "[NaN]",
    "[１]",
    "[1+2]",
    "[0x1]",
    "[0x42]",
    "[Infinity]",
    "[0e+-1]",
    "[-123.123foo]",
    "[-Infinity]",
    "[-foo]",
    "[- 1]",
    "[-012]",
    "[-.123]",
    "[-1x]",
    "[1ea]",
    "[1.]",
    "[.123]",
    "[1.2a-3]",
    "[1.8011670033376514H-308]",
    "[012]",
    "[\"x\", truth]",
    "{[: \"x\"}\n",
    "{\"x\", null}",
    "{\"x\"::\"b\"}",
    "{🇨🇭}",
    "{\"a\":\"a\" 123}",
    "{key: 'value'}",
    "{\"a\" b}",
    "{:\"b\"}",
    "{\"a\" \"b\"}",
    "{\"a\":",
    "{\"a\"",
    "{1:1}",
    "{9999E9999:1}",
    "{null:null,null:null}",
    "{\"id\":0,,,,,}",
    "{'a':0}",
    "{\"id\":0,}",
    "{\"a\":\"b\"}/**/",
    "{\"a\":\"b\"}/**//",
    "{\"a\":\"b\"}//",
    "{\"a\":\"b\"}/",
    "{\"a\":\"b\",,\"c\":\"d\"}",
    "{a: \"b\"}",
    "{\"a\":\"a",
    "{ \"foo\" : \"bar\", \"a\" }",
    "{\"a\":\"b\"}#",
    " ",
    "[\"\\uD800\\\"]",
    "[\"\\uD800\\u\"]",
    "[\"\\uD800\\u1\"]",
    "[\"\\uD800\\u1x\"]",
    "[é]",
    "[\"\\x00\"]",
    "[\"\\\\\\\"]",
    "[\"\\\t\"]",
    "[\"\\🌀\"]",
    "[\"\\\"]",
    "[\"\\u00A\"]",
    "[\"\\uD834\\uDd\"]",
    "[\"\\uD800\\uD800\\x\"]",
    "[\"\\a\"]",
    "[\"\\uqqqq\"]",
    "[\\u0020\"asd\"]",
    "[\\n]",
    "\"",
    "['single quote']",
    "abc",
    "[\"\\",
    "[\"new\nline\"]",
    "[\"\t\"]",
    "\"\\UA66D\"",
    "\"\"x",
    "<.>",
    "[<null>]",
    "[1]x",
    "[1]]",
    "[\"asd]",
    "aå",
    "[True]",
    "1]",
    "{\"x\": true,",
    "[][]",
    "]",
    "{}}",
    "",
    "[",
    "[{",
    "{\"a\":\"b\"",
    "[\u{2060}]",
    "\u{FEFF}",
    "[1}",
    "{\"a\":1]",
];

/// Texts that a parser may accept or reject, and what becomes of each.
const EITHER: [(&[u8], bool); 24] = [
    // Numbers of any size are kept as they are written.
    (b"123.456e-789", true),
    (b"0.4e00669999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999969999999006", true),
    (b"-1e+9999", true),
    (b"1.5e+9999", true),
    (b"-123123e100000", true),
    (b"123123e100000", true),
    (b"123123e-10000000", true),
    (b"-123123123123123123123123123123", true),
    (b"100000000000000000000", true),
    (b"-237462374673276894279832749832423479823246327846", true),
    // Halves of surrogate pairs are kept as they are written. A `string` column does not take them.
    (b"\"\\uDADA\"", true),
    (b"\"\\uD888\\u1234\"", true),
    (b"\"\\uD800\\n\"", true),
    (b"\"\\uDd1ea\"", true),
    (b"\"\\ud800abc\"", true),
    (b"\"\\uDFAA\"", true),
    // Bytes that are no UTF-8 are rejects.
    (b"\"\xE6\x97\xA5\xD1\x88\xFA\"", false),
    (b"\"\xF4\xBF\xBF\xBF\"", false),
    (b"\"\xED\xA0\x80\"", false),
    (b"\"\xFF\"", false),
    (b"\"\x81\"", false),
    (b"\"\xE0\xFF\"", false),
    (b"\"\xC0\xAF\"", false),
    (b"\"\xFC\x80\x80\x80\x80\x80\"", false),
];

#[test]
fn the_classes_of_the_json_test_suite() {
    for text in ACCEPT {
        assert_eq!(
            accepted(text.as_bytes()).as_deref(),
            Some(text.trim_ascii()),
            "{text}"
        );
        assert!(known(text.as_bytes()), "{text}");
    }
    for text in REJECT {
        assert_eq!(accepted(text.as_bytes()), None, "{text}");
        assert!(!known(text.as_bytes()), "{text}");
    }
    for (text, is_accepted) in EITHER {
        let shown = String::from_utf8_lossy(text);
        let found = accepted(text);
        assert_eq!(found.is_some(), is_accepted, "{shown}");
        if let Some(found) = found {
            assert_eq!(found.as_bytes(), text, "{shown}");
        }
    }
    // Levels are bounded, whatever they are made of.
    for (open, close) in [("[", "]"), ("{\"\":", "}")] {
        let nested = |levels: usize| open.repeat(levels) + "0" + &close.repeat(levels);
        assert!(accepted(nested(127).as_bytes()).is_some());
        let found = decode(&spec(&["v json"]), &record(nested(100_000).as_bytes()));
        assert_eq!(found.rejects[0].reason, Reason::TooDeep);
    }
    // A byte order mark stands before a record, and between records.
    let found = decode(
        &spec(&["v json"]),
        b"\xEF\xBB\xBF{\"t\":1}\xEF\xBB\xBF{\"t\":1}",
    );
    assert_eq!((found.counts.events, found.counts.records), (2, 2));
    // A value that stands by itself is no record.
    for (text, reason) in [
        ("1", Reason::NotObject),
        ("\"{}\"x", Reason::NotJson),
        ("nul", Reason::NotJson),
    ] {
        assert_eq!(
            decode(&spec(&[]), text.as_bytes()).rejects[0].reason,
            reason,
            "{text}"
        );
    }
}

/// A text inside these steps. The steps that hold bytes hold all of it; the steps that hold text hold it only if it is
/// text.
fn wrapped(rng: &mut ChaCha8Rng, text: Vec<u8>) -> (Vec<UnwrapStep>, Vec<u8>) {
    use base64::Engine;
    let quoted = std::str::from_utf8(&text)
        .ok()
        .map(|text| Value::from(text).to_string());
    match (rng.random_range(0..5), quoted) {
        (0, Some(quoted)) => (
            vec![UnwrapStep::Text(vec!["m".to_owned()])],
            format!("{{\"x\":[{{}}],\"m\":{quoted}}}").into_bytes(),
        ),
        (1, Some(quoted)) => (
            vec![UnwrapStep::KinesisAgent],
            format!("{{\"message\":{quoted},\"metadata\":{{}}}}\n").into_bytes(),
        ),
        (2, Some(quoted)) => (
            vec![
                UnwrapStep::Array(vec!["R".to_owned()]),
                UnwrapStep::Text(vec!["b".to_owned(), "c".to_owned()]),
            ],
            format!("{{\"R\":[{{\"b\":{{\"c\":\"\"}}}},{{\"b\":{{\"c\":{quoted}}}}}]}}")
                .into_bytes(),
        ),
        (3, _) => {
            let text = base64::engine::general_purpose::STANDARD.encode(packed(rng, text));
            (
                vec![UnwrapStep::FirehoseError],
                format!("{{\"attemptsMade\":\"1\",\"rawData\":\"{text}\"}}").into_bytes(),
            )
        }
        _ => (Vec::new(), text),
    }
}

/// The bytes in some codecs.
fn packed(rng: &mut ChaCha8Rng, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..rng.random_range(0..3) {
        let (name, pack) = PACKERS[rng.random_range(0..PACKERS.len())];
        // What a deflate stream holds must begin as JSON, because nothing else marks it.
        if name != "deflate" {
            bytes = pack(&bytes);
        }
    }
    bytes
}

/// The text of the member `c`, of which the last counts. `None` where it is missing or null.
fn value_of(record: &[u8]) -> Option<String> {
    let members: std::collections::HashMap<String, Box<RawValue>> =
        serde_json::from_slice(record).ok()?;
    let value = members.get("c")?.get();
    (value != "null").then(|| value.to_owned())
}

/// Compares so many random texts with serde_json.
fn compare(seed: u64, texts: u64) -> u64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut compared = 0;
    for case in 0..texts {
        let text = mutated(&mut rng);
        // Text that begins like another kind of file is tested elsewhere.
        if kind::of(&text).is_some()
            || text.starts_with(b"\xFF\xFE")
            || text.starts_with(b"\xFE\xFF")
        {
            continue;
        }
        let expected = oracle(&text, Limits::default());
        let shown = String::from_utf8_lossy(&text).into_owned();
        let (unwrap, wrapped) = wrapped(&mut rng, text.clone());
        let stored = packed(&mut rng, wrapped);
        let mut source = spec(&["c json"]);
        // No object has this member, so every object is a reject with its text.
        source.columns[0].path = vec!["\u{1}".to_owned()];
        source.unwrap = unwrap;
        let piece = rng.random_range(1..200);
        let found = decode_cut(&source, &stored, || piece);
        let mut records: Vec<(u64, Option<Reason>, Option<String>)> = found
            .rejects
            .iter()
            .map(|reject| {
                let is_object = reject.reason == Reason::EventTime;
                let reason = (!is_object).then_some(reject.reason);
                (
                    reject.raw_record,
                    reason,
                    is_object.then(|| reject.raw_text.clone()),
                )
            })
            .collect();
        records.sort_by_key(|(number, ..)| *number);
        let numbers: Vec<u64> = records.iter().map(|(number, ..)| *number).collect();
        assert_eq!(
            numbers,
            (1..=expected.len() as u64).collect::<Vec<_>>(),
            "{case}: {shown:?}"
        );
        for ((number, reason, record), (offset, length, is)) in records.iter().zip(&expected) {
            assert_eq!(reason, is, "{case}, record {number}: {shown:?}");
            let from = *offset as usize;
            let own = &text[from..from + *length as usize];
            if let Some(record) = record {
                assert_eq!(record.as_bytes(), own, "{case}, record {number}: {shown:?}");
            }
        }
        compared += values(&text, &expected, &stored, source);
    }
    compared
}

/// Compares the values of the records that have a time, and returns the number of these records.
fn values(text: &[u8], expected: &Frames, stored: &[u8], mut source: DecodeSpec) -> u64 {
    source.columns[0].path = vec!["t".to_owned()];
    let found = decode(&source, stored);
    let mut compared = 0;
    for (number, values) in &found.events {
        let (offset, length, reason) = expected[*number as usize - 1];
        assert_eq!(reason, None);
        let own = &text[offset as usize..(offset + length) as usize];
        let given = (values[0] != "-").then(|| values[0].clone());
        let shown = String::from_utf8_lossy(own);
        assert_eq!(given, value_of(own), "{shown}");
        compared += 1;
    }
    compared
}

#[test]
fn agrees_with_serde_json_in_every_codec_and_envelope() {
    assert!(compare(5, 700) > 100);
}

/// Sixty thousand texts.
#[test]
#[ignore = "it takes a minute: a step of .ci/run"]
fn agrees_with_serde_json_for_a_long_time() {
    for seed in 100..130 {
        compare(seed, 2_000);
    }
}
