//! The tables of `docs/input.md` on what becomes of each form of input. The page holds exactly the tables that these
//! tests make.

use super::packed::{PACKERS, Written, archive};
use super::*;
use crate::event::UnwrapStep;

const PAGE: &str = include_str!("../../../docs/input.md");

/// The part of the page between the marks of a table.
fn section(name: &str) -> &str {
    let (_, rest) = PAGE
        .split_once(&format!("<!-- table: {name} -->\n"))
        .unwrap();
    rest.split_once("<!-- end of table -->").unwrap().0
}

/// What becomes of an object, in words.
fn becomes(found: &Found) -> String {
    let many = |n: usize, what: &str| match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    };
    let mut parts = Vec::new();
    if !found.events.is_empty() || found.rejects.is_empty() {
        parts.push(many(found.events.len(), "event"));
    }
    for reject in &found.rejects {
        let (reason, detail) = (reject.reason.name(), reject.detail.replace('|', "\\|"));
        let detail = detail.split(": all of its").next().unwrap_or_default();
        // The number of lost bytes depends on the libraries that compress.
        let detail = match detail.rsplit_once("; ") {
            Some((detail, lost)) if lost.ends_with("stored bytes are lost") => detail,
            _ => detail,
        };
        parts.push(format!("reject `{reason}`: {detail}"));
    }
    for (kind, n) in &found.counts.empty {
        parts.push(format!("{kind}: {n}"));
    }
    parts.join("; ")
}

/// Compares a table of the page with the table of these rows.
fn compare(name: &str, head: &str, rows: &[(String, Found)]) {
    let mut table = format!("\n| {head} | what becomes of it |\n|---|---|\n");
    for (form, found) in rows {
        table.push_str(&format!("| {form} | {} |\n", becomes(found)));
    }
    table.push('\n');
    assert!(
        section(name) == table,
        "docs/input.md is to hold, as the table {name}:\n{table}"
    );
}

const TWO: &str = "{\"t\":1,\"n\":1}\n{\"t\":2,\"n\":2}\n";

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn the_page_has_every_codec() {
    let spec = spec(&["n int"]);
    let text = TWO.as_bytes();
    let (one, two) = TWO.split_once('\n').unwrap();
    let mut rows = vec![("no codec".to_owned(), text.to_vec())];
    rows.extend(PACKERS.map(|(name, pack)| (name.to_owned(), pack(text))));
    let pack = |name: &str| PACKERS.iter().find(|(known, _)| *known == name).unwrap().1;
    let (gzip, zstd) = (pack("gzip"), pack("zstd"));
    for (form, bytes) in [
        (
            "one gzip member for each record",
            [gzip(one.as_bytes()), gzip(two.as_bytes())].concat(),
        ),
        (
            "one zlib stream for each record, a line feed behind each",
            [pack("zlib")(one.as_bytes()), pack("zlib")(two.as_bytes())]
                .map(|stream| [&stream[..], b"\n"].concat())
                .concat(),
        ),
        ("gzip inside gzip", gzip(&gzip(text))),
        ("zstd inside gzip", gzip(&zstd(text))),
        (
            "a zip archive of a folder and two files",
            archive(&[
                (
                    "day/",
                    b"",
                    Written {
                        stored: true,
                        ..Written::default()
                    },
                ),
                ("day/a.json", one.as_bytes(), Written::default()),
                ("day/b.json", two.as_bytes(), Written::default()),
            ]),
        ),
        (
            "a zip archive with an encrypted file",
            archive(&[
                ("a.json", one.as_bytes(), Written::default()),
                (
                    "b.json",
                    two.as_bytes(),
                    Written {
                        encrypted: true,
                        ..Written::default()
                    },
                ),
            ]),
        ),
        (
            "UTF-16 with a byte order mark",
            utf16(&format!("\u{FEFF}{TWO}")),
        ),
        ("a gzip member that is cut off", gzip(text)[..20].to_vec()),
        (
            "plain text behind a gzip member",
            [&gzip(one.as_bytes())[..], two.as_bytes()].concat(),
        ),
        ("UTF-16 without a byte order mark", utf16(TWO)),
        (
            "UTF-32",
            TWO.chars()
                .flat_map(|c| u32::from(c).to_le_bytes())
                .collect(),
        ),
        ("a Parquet file", [&b"PAR1\x15\x04"[..], &[7; 300]].concat()),
        ("an Avro file", b"Obj\x01\x04\x14avro.codec".to_vec()),
        ("an ORC file", [&b"ORC\x1D\0\0\x0A"[..], &[7; 300]].concat()),
        ("a 7z archive", b"7z\xBC\xAF\x27\x1C\0\x04".to_vec()),
        ("a tar archive", {
            let mut tar = vec![0; 512];
            tar[..6].copy_from_slice(b"a.json");
            tar[257..263].copy_from_slice(b"ustar\0");
            tar
        }),
        ("lzo", b"\x89LZO\0\r\n\x1A\n\x10".to_vec()),
        ("lzip", b"LZIP\x01\x0C\x00".to_vec()),
        (
            "lz4 in the legacy frame",
            b"\x02\x21\x4C\x18\x10\0\0\0".to_vec(),
        ),
        (
            "snappy in the framing of snappy-java",
            b"\x82SNAPPY\0\0\0\0\x01".to_vec(),
        ),
    ] {
        rows.push((form.to_owned(), bytes));
    }
    let rows: Vec<_> = rows
        .into_iter()
        .map(|(form, bytes)| (form, decode(&spec, &bytes)))
        .collect();
    compare("codecs", "an object of two records, stored as", &rows);
}

#[test]
fn the_page_has_every_framing() {
    let spec = spec(&["n int"]);
    let rows = [
        ("one object a line", TWO.to_owned()),
        (
            "CRLF and blank lines",
            "{\"t\":1}\r\n\r\n{\"t\":2}\r\n".to_owned(),
        ),
        (
            "nothing between objects (Firehose by default)",
            "{\"t\":1}{\"t\":2}".to_owned(),
        ),
        (
            "objects over many lines",
            "{\n  \"t\": 1\n}\n{\n  \"t\": 2\n}\n".to_owned(),
        ),
        ("one array", "[{\"t\":1},\n {\"t\":2}]\n".to_owned()),
        (
            "commas behind objects",
            "{\"t\":1},\n{\"t\":2},\n".to_owned(),
        ),
        (
            "the two characters `\\n` (a template of API Gateway)",
            "{\"t\":1}\\n{\"t\":2}\\n".to_owned(),
        ),
        (
            "RFC 7464, with 0x1E before each object",
            "\u{1E}{\"t\":1}\n\u{1E}{\"t\":2}\n".to_owned(),
        ),
        (
            "a byte order mark",
            "\u{FEFF}{\"t\":1}\n\u{FEFF}{\"t\":2}\n".to_owned(),
        ),
        ("nothing but white space", " \n\n".to_owned()),
        (
            "a line that is cut off",
            "{\"t\":1,\"n\"\n{\"t\":2}\n".to_owned(),
        ),
        (
            "an object that is cut off, and nothing between objects",
            "{\"t\":1,\"n\":{\"t\":2}".to_owned(),
        ),
        (
            "a line of another text",
            "# rotated\n{\"t\":2}\n".to_owned(),
        ),
        ("a line of CSV", "id,at,who\n{\"t\":2}\n".to_owned()),
        (
            "JSON inside a JSON string",
            "\"{\\\"t\\\":1}\"\n".to_owned(),
        ),
        ("a number", "7\n".to_owned()),
        (
            "NaN, as some libraries write it",
            "{\"t\":1,\"n\":NaN}\n".to_owned(),
        ),
        ("single quotes", "{'t':1}\n".to_owned()),
        ("zero bytes", "{\"t\":1}\n\0\0\0".to_owned()),
        (
            "an envelope without `unwrap`",
            "{\"Records\":[{\"t\":1}]}\n".to_owned(),
        ),
    ];
    let rows: Vec<_> = rows
        .into_iter()
        .map(|(form, text)| (form.to_owned(), decode(&spec, text.as_bytes())))
        .collect();
    compare("framings", "form", &rows);
}

#[test]
fn the_page_has_every_envelope() {
    let path = |text: &str| vec![text.to_owned()];
    let rows = [
        (
            "`\"firehose-error\"`",
            vec![UnwrapStep::FirehoseError],
            r#"{"attemptsMade":4,"errorCode":"x","rawData":"eyJ0IjoxfXsidCI6Mn0="}"#,
        ),
        (
            "`\"cloudwatch-logs\"`",
            vec![UnwrapStep::CloudwatchLogs],
            r#"{"messageType":"DATA_MESSAGE","owner":"1","logEvents":[{"t":1},{"t":2}]}"#,
        ),
        (
            "`\"cloudwatch-logs\"`",
            vec![UnwrapStep::CloudwatchLogs],
            r#"{"messageType":"CONTROL_MESSAGE","logEvents":[{"message":"…"}]}"#,
        ),
        (
            "`\"kafka-connect\"`",
            vec![UnwrapStep::KafkaConnect],
            r#"{"schema":{},"payload":{"t":1}}"#,
        ),
        (
            "`\"kafka-connect\"`",
            vec![UnwrapStep::KafkaConnect],
            r#"{"schema":null,"payload":null}"#,
        ),
        (
            "`\"kinesis-agent\"`",
            vec![UnwrapStep::KinesisAgent],
            r#"{"metadata":{"k":"v"},"message":"{\"t\":1}\n"}"#,
        ),
        (
            "`\"dynamodb-json\"`",
            vec![UnwrapStep::DynamodbJson],
            r#"{"Item":{"t":{"N":"1"},"n":{"N":"7"}}}"#,
        ),
        (
            "`\"dynamodb-json\"`",
            vec![UnwrapStep::DynamodbJson],
            r#"{"eventName":"REMOVE","dynamodb":{"Keys":{"t":{"N":"1"}}}}"#,
        ),
        (
            "`{ array = \"Records\" }`",
            vec![UnwrapStep::Array(path("Records"))],
            r#"{"Records":[{"t":1},7,{"t":2}]}"#,
        ),
        (
            "`{ array = \"Records\" }`",
            vec![UnwrapStep::Array(path("Records"))],
            r#"{"Records":[]}"#,
        ),
        (
            "`{ array = \"Records\" }`",
            vec![UnwrapStep::Array(path("Records"))],
            r#"{"t":1}"#,
        ),
        (
            "`{ member = \"detail\" }`",
            vec![UnwrapStep::Member(path("detail"))],
            r#"{"detail":{"t":1}}"#,
        ),
        (
            "`{ text = \"message\" }`",
            vec![UnwrapStep::Text(path("message"))],
            r#"{"message":"{\"t\":1}\nplain text"}"#,
        ),
        (
            "`{ text = \"message\" }`",
            vec![UnwrapStep::Text(path("message"))],
            r#"{"message":null}"#,
        ),
    ];
    let rows: Vec<_> = rows
        .into_iter()
        .map(|(step, unwrap, text)| {
            let spec = DecodeSpec {
                unwrap,
                ..spec(&["n int"])
            };
            let form = format!("{step} | `{text}`");
            (form, decode(&spec, text.as_bytes()))
        })
        .collect();
    let mut table = "\n| `unwrap` | an object | what becomes of it |\n|---|---|---|\n".to_owned();
    for (form, found) in &rows {
        table.push_str(&format!("| {form} | {} |\n", becomes(found)));
    }
    table.push('\n');
    assert!(
        section("envelopes") == table,
        "docs/input.md is to hold, as the table envelopes:\n{table}"
    );
}
