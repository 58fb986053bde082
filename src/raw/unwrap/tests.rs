use serde_json::json;

use super::super::tests::{Found, column, decode, decode_cut, spec};
use super::*;
use crate::event::OnTypeError;

/// A source with an event time `t`, a column `id` and these steps.
fn source(unwrap: &[UnwrapStep]) -> DecodeSpec {
    DecodeSpec {
        unwrap: unwrap.to_vec(),
        ..spec(&["id string"])
    }
}

fn path(text: &str) -> Vec<String> {
    text.split('.').map(str::to_owned).collect()
}

fn array(text: &str) -> UnwrapStep {
    UnwrapStep::Array(path(text))
}

fn member(text: &str) -> UnwrapStep {
    UnwrapStep::Member(path(text))
}

fn text(text: &str) -> UnwrapStep {
    UnwrapStep::Text(path(text))
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The numbers and ids of events, and the numbers, reasons and details of rejects.
type Seen = (Vec<(i64, String)>, Vec<(u64, Reason, String)>);

fn seen(found: &Found) -> Seen {
    let events = found.events.iter();
    let rejects = found.rejects.iter();
    (
        events.map(|(n, values)| (*n, values[0].clone())).collect(),
        rejects
            .map(|reject| (reject.raw_record, reject.reason, reject.detail.clone()))
            .collect(),
    )
}

fn ids(found: &Found) -> Vec<&str> {
    assert_eq!(found.rejects, []);
    found.events.iter().map(|(_, v)| v[0].as_str()).collect()
}

#[test]
fn each_envelope_gives_its_records() {
    let record = |id: &str| json!({"t": 1, "id": id});
    let failed = |raw: &[u8]| {
        json!({
            "attemptsMade": 4, "arrivalTimestamp": 1_554_195_900_000_i64, "errorCode": "Lambda.FunctionError",
            "errorMessage": "…", "attemptEndingTimestamp": 0, "rawData": base64(raw), "lambdaArn": "arn:aws"
        })
    };
    let log = |events: &[serde_json::Value]| {
        json!({
            "messageType": "DATA_MESSAGE", "owner": "1", "logGroup": "g", "logStream": "s",
            "subscriptionFilters": ["f"], "logEvents": events
        })
    };
    for (name, steps, object, expected) in [
        (
            "the error prefix of Firehose, with records that are glued, in lines and compressed",
            vec![UnwrapStep::FirehoseError],
            format!(
                "{}\n{}\n{}\n",
                failed(format!("{}{}", record("a"), record("b")).as_bytes()),
                failed(format!("{}\n\n{}\n", record("c"), record("d")).as_bytes()),
                failed(&gzip(record("e").to_string().as_bytes())),
            ),
            vec!["a", "b", "c", "d", "e"],
        ),
        (
            "a Lambda's failed record of CloudWatch Logs: three steps",
            vec![
                UnwrapStep::FirehoseError,
                UnwrapStep::CloudwatchLogs,
                text("message"),
            ],
            failed(&gzip(
                log(&[
                    json!({"id": "1", "timestamp": 1, "message": record("a").to_string()}),
                    json!({"id": "2", "timestamp": 1, "message": record("b").to_string()}),
                ])
                .to_string()
                .as_bytes(),
            ))
            .to_string(),
            vec!["a", "b"],
        ),
        (
            "CloudWatch Logs: a log event is a record",
            vec![UnwrapStep::CloudwatchLogs],
            log(&[record("a"), record("b")]).to_string(),
            vec!["a", "b"],
        ),
        (
            "Kafka Connect with a schema",
            vec![UnwrapStep::KafkaConnect],
            json!({"schema": {"type": "struct"}, "payload": record("a")}).to_string(),
            vec!["a"],
        ),
        (
            "the Kinesis Agent with metadata",
            vec![UnwrapStep::KinesisAgent],
            json!({"metadata": {"key": "v", "timestamp": 1}, "message": record("a").to_string() + "\n"})
                .to_string(),
            vec!["a"],
        ),
        (
            "CloudTrail and notifications of S3",
            vec![array("Records")],
            json!({"Records": [record("a"), record("b")]}).to_string(),
            vec!["a", "b"],
        ),
        (
            "SQS in Lambda's form",
            vec![array("Records"), text("body")],
            json!({"Records": [{"body": record("a").to_string()}, {"body": record("b").to_string()}]})
                .to_string(),
            vec!["a", "b"],
        ),
        (
            "EventBridge, with a path of two names",
            vec![member("detail.event")],
            json!({"detail": {"event": record("a"), "x": 1}}).to_string(),
            vec!["a"],
        ),
        (
            "a text of escapes, of several records",
            vec![text("Message")],
            "{\"Message\":\"{\\\"t\\\":1,\\\"id\\\":\\\"\\u0061\\uD83D\\uDE00\\\"}\\n{\\\"t\\\":1}\"}".to_owned(),
            vec!["a😀", "-"],
        ),
        (
            "the last of two members of one name, written with an escape",
            vec![array("Records")],
            "{\"Records\":0,\"Re\\u0063ords\":[{\"t\":1,\"id\":\"a\"}]}".to_owned(),
            vec!["a"],
        ),
    ] {
        let found = decode(&source(&steps), object.as_bytes());
        assert_eq!(ids(&found), expected, "{name}");
        let numbers: Vec<_> = found.events.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (1..=expected.len() as i64).collect::<Vec<_>>(), "{name}");
        assert_eq!(found.counts.lost, 0, "{name}");
        for piece in [1, 7, 100] {
            let cut = decode_cut(&source(&steps), object.as_bytes(), || piece);
            assert_eq!(cut, found, "{name}");
        }
    }
}

#[test]
fn values_of_dynamodb_become_plain_and_exact() {
    let mut spec = source(&[UnwrapStep::DynamodbJson]);
    spec.columns.extend([
        column("big", "bigint"),
        column("price", "decimal(38,10)"),
        column("rest", "json"),
    ]);
    let item = r#"{"t":{"N":"1"},"id":{"S":"a\"b"},"big":{"N":"9223372036854775807"},
        "price":{"N":"12345678901234567890.1234567890"},
        "rest":{"M":{"n":{"NULL":true},"b":{"BOOL":false},"l":{"L":[{"N":"1.50"},{"S":"x"}]},
        "ss":{"SS":["p","q"]},"ns":{"NS":["1","2.0"]},"bin":{"B":"AAE="},"e":{"M":{}}}}}"#;
    for object in [
        format!("{{\"Item\":{item}}}"),
        format!("{{\"eventName\":\"INSERT\",\"dynamodb\":{{\"Keys\":{{}},\"NewImage\":{item}}}}}"),
        format!("{{\"Metadata\":{{}},\"Keys\":{{\"id\":{{\"S\":\"a\"}}}},\"NewImage\":{item}}}"),
        item.to_owned(),
    ] {
        let found = decode(&spec, object.as_bytes());
        assert_eq!(found.rejects, [], "{object}");
        let rest = r#"{"n":null,"b":false,"l":[1.50,"x"],"ss":["p","q"],"ns":[1,2.0],"bin":"AAE=","e":{}}"#;
        let expected = [
            "a\"b",
            "9223372036854775807",
            "12345678901234567890.1234567890",
            rest,
            "-",
        ];
        assert_eq!(found.events, [(1, expected.map(str::to_owned).to_vec())]);
    }
    let removed = r#"{"eventName":"REMOVE","dynamodb":{"Keys":{"id":{"S":"a"}},"OldImage":{"id":{"S":"a"}}}}"#;
    let found = decode(&spec, removed.as_bytes());
    assert_eq!((found.counts.records, found.counts.empty[REMOVALS]), (0, 1));
    for (object, detail) in [
        (r#"{"Item":{"id":"a"}}"#, "`id` has no typed value"),
        (
            r#"{"Item":{"n":{"N":"0x1"}}}"#,
            "`n` has the type N, and its value is no number",
        ),
        (r#"{"Item":{"n":{"N":1}}}"#, "`n` has no typed value"),
        (r#"{"Item":[]}"#, "found an array"),
        (r#"{"id":{"S":"a","N":"1"}}"#, "`id` has no typed value"),
        (r#"{"id":{"L":["a"]}}"#, "`id` has no typed value"),
    ] {
        let found = decode(&spec, object.as_bytes());
        let [reject] = found.rejects.as_slice() else {
            panic!("{object}: {found:?}");
        };
        assert_eq!(reject.reason, Reason::Envelope, "{object}");
        assert!(
            reject.detail.ends_with(detail),
            "{object}: {}",
            reject.detail
        );
    }
}

#[test]
fn another_object_is_one_reject_that_says_what_was_expected() {
    for (step, object, detail) in [
        (
            array("Records"),
            r#"{"t":1}"#,
            "expected the array `Records`, found no such member",
        ),
        (
            array("Records"),
            r#"{"Records":{}}"#,
            "expected the array `Records`, found an object",
        ),
        (
            member("a.b"),
            r#"{"a":{"b":"x"}}"#,
            "expected the object `a.b`, found text",
        ),
        (
            member("a.b"),
            r#"{"a":[]}"#,
            "expected the object `a.b`, found no such member",
        ),
        (
            text("message"),
            r#"{"message":null}"#,
            "expected the text `message`, found null",
        ),
        (
            text("message"),
            r#"{"message":{"t":1}}"#,
            "expected the text `message`, found an object",
        ),
        (
            text("message"),
            r#"{"message":"\ud83d"}"#,
            "expected the text `message`, found text with half of a surrogate pair",
        ),
        (
            UnwrapStep::FirehoseError,
            r#"{"rawData":"e30="}"#,
            "expected `attemptsMade` of a record that Firehose could not deliver, found no such member",
        ),
        (
            UnwrapStep::FirehoseError,
            r#"{"attemptsMade":1}"#,
            "expected the text `rawData` beside `attemptsMade`, found no such member",
        ),
        (
            UnwrapStep::FirehoseError,
            r#"{"attemptsMade":"1","rawData":"%"}"#,
            "expected base64 in `rawData`: Invalid symbol 37, offset 0.",
        ),
        (
            UnwrapStep::CloudwatchLogs,
            r#"{"messageType":"DATA_MESSAGE"}"#,
            "expected the array `logEvents`, found no such member",
        ),
        (
            UnwrapStep::KafkaConnect,
            r#"{"schema":null,"payload":1.5}"#,
            "expected the object `payload` of Kafka Connect, found a number",
        ),
        (
            UnwrapStep::KinesisAgent,
            r#"{"message":"{}"}"#,
            "expected the object `metadata` of the Kinesis Agent, found no such member",
        ),
        (
            UnwrapStep::KinesisAgent,
            r#"{"metadata":{},"message":true}"#,
            "expected the text `message` beside `metadata`, found a boolean",
        ),
    ] {
        let found = decode(&source(&[step]), object.as_bytes());
        let expected = vec![(1, Reason::Envelope, detail.to_owned())];
        assert_eq!(seen(&found), (vec![], expected), "{object}");
        let reject = &found.rejects[0];
        assert_eq!(
            (reject.raw_offset, reject.raw_bytes),
            (0, object.len() as u64)
        );
        assert_eq!(reject.raw_text, object);
        // Nobody read the records inside, so their bytes are lost.
        assert_eq!(found.counts.lost, found.counts.bytes);
    }
}

#[test]
fn an_envelope_without_a_record_is_counted_and_is_no_record() {
    for (steps, object, kind, count) in [
        (
            vec![array("Records")],
            r#"{"Records":[ ]}{"Records":[]}"#,
            EMPTY,
            2,
        ),
        (vec![text("m")], r#"{"m":""}{"m":" \n "}"#, EMPTY, 2),
        (
            vec![UnwrapStep::FirehoseError],
            r#"{"attemptsMade":1,"rawData":""}"#,
            EMPTY,
            1,
        ),
        (
            vec![UnwrapStep::CloudwatchLogs],
            r#"{"messageType":"CONTROL_MESSAGE","logEvents":[{"id":"","timestamp":1,"message":"CWL CONTROL MESSAGE"}]}"#,
            CONTROL,
            1,
        ),
        (
            vec![UnwrapStep::KafkaConnect],
            "{\"schema\":null,\"payload\":null}\nnull\r\nnull\n",
            TOMBSTONES,
            3,
        ),
        (
            vec![text("m"), UnwrapStep::KafkaConnect],
            "{\"m\":\"null\"}",
            TOMBSTONES,
            1,
        ),
    ] {
        let found = decode(&source(&steps), object.as_bytes());
        assert_eq!(seen(&found), (vec![], vec![]), "{object}");
        assert_eq!(
            (found.counts.records, found.counts.lost),
            (0, 0),
            "{object}"
        );
        assert_eq!(found.counts.empty.get(kind), Some(&count), "{object}");
    }
    // Without such a step, a null is a reject as everywhere.
    let found = decode(&source(&[array("Records")]), b"null");
    assert_eq!(found.rejects[0].reason, Reason::NotObject);
}

#[test]
fn rejects_inside_are_numbered_with_their_neighbours() {
    let steps = [array("R")];
    let object = r#"x {"R":[{"t":1,"id":"a"},3,{"t":1,"id":7},null,{"t":1,"id":"b"}]}{"t":1}"#;
    let found = decode(&source(&steps), object.as_bytes());
    let (events, rejects) = seen(&found);
    assert_eq!(events, [(2, "a".to_owned()), (6, "b".to_owned())]);
    let reasons: Vec<_> = rejects.iter().map(|(n, reason, _)| (*n, *reason)).collect();
    assert_eq!(
        reasons,
        [
            (1, Reason::NotJson),
            (3, Reason::NotObject),
            (4, Reason::Type),
            (5, Reason::NotObject),
            (7, Reason::Envelope),
        ]
    );
    assert_eq!(
        rejects[1].2,
        "expected an object in the envelope, found a number"
    );
    for reject in &found.rejects {
        let (from, bytes) = (reject.raw_offset as usize, reject.raw_bytes as usize);
        assert_eq!(&object[from..from + bytes], reject.raw_text, "{reject:?}");
    }
    // Inside a text there are bad stretches, as outside. They have the place of the text.
    let object = r#"{"m":"{\"t\":1,\"id\":\"a\"}\nplain text\n{\"t\":1,\"id\":7}{\"t\":"}"#;
    let found = decode(&source(&[text("m")]), object.as_bytes());
    assert_eq!(seen(&found).0, [(1, "a".to_owned())]);
    let texts: Vec<_> = found
        .rejects
        .iter()
        .map(|r| (r.raw_record, r.reason, r.raw_text.as_str()))
        .collect();
    assert_eq!(
        texts,
        [
            (2, Reason::NotJson, "plain text"),
            (3, Reason::Type, r#"{"t":1,"id":7}"#),
            (4, Reason::NotJson, r#"{"t":"#),
        ]
    );
    for reject in &found.rejects {
        let (from, bytes) = (reject.raw_offset as usize, reject.raw_bytes as usize);
        assert_eq!(object[from..from + bytes], object[5..object.len() - 1]);
    }
}

#[test]
fn members_of_the_envelope_reach_columns() {
    let mut spec = source(&[array("Records"), text("body")]);
    spec.columns.extend(
        [
            ("owner", "string"),
            ("sent", "bigint"),
            ("both", "string"),
            ("at", "timestamp"),
            ("tags", "json"),
            ("deep", "string"),
        ]
        .map(|(name, kind)| crate::event::Column {
            path: vec!["@envelope".to_owned(), name.to_owned()],
            ..column(name, kind)
        }),
    );
    spec.columns.last_mut().unwrap().path = path("@envelope.a.b");
    let object = r#"{"owner":"o\n1","both":"outer","a":{"b":"x"},"Records":[
        {"sent":7,"both":"inner","body":"{\"t\":1,\"id\":\"a\",\"owner\":\"own\"}{\"t\":1}"},
        {"at":"2019-04-02T00:00:00Z","tags":[1, 2],"body":"{\"t\":1,\"id\":\"b\"}"}],"a":{"b":"y"}}"#;
    let found = decode(&spec, object.as_bytes());
    assert_eq!(found.rejects, []);
    let own = r#"{"owner":"own"}"#;
    let expected = [
        ["a", "o\n1", "7", "inner", "-", "-", "y", own],
        ["-", "o\n1", "7", "inner", "-", "-", "y", "-"],
        [
            "b",
            "o\n1",
            "-",
            "outer",
            "2019-04-02T00:00:00Z",
            "[1, 2]",
            "y",
            "-",
        ],
    ];
    let rows: Vec<_> = found
        .events
        .iter()
        .map(|(_, values)| values.clone())
        .collect();
    assert_eq!(rows, expected.map(|row| row.map(str::to_owned).to_vec()));
    // A path of the envelope may go through a string, as any path.
    let through = r#"{"a":"{\"b\":\"z\"}","Records":[{"body":"{\"t\":1}"}]}"#;
    assert_eq!(decode(&spec, through.as_bytes()).events[0].1[6], "z");
    // The event time may be a member of the envelope too.
    spec.event_time = "at".to_owned();
    let found = decode(&spec, object.as_bytes());
    assert_eq!(found.events.len(), 1);
    assert_eq!(found.rejects[0].detail, "`at` is missing");
    // A value that does not fit stays in `extra`, under its path.
    spec.event_time = "t".to_owned();
    spec.on_type_error = OnTypeError::Null;
    let object = r#"{"Records":[{"sent":"7","body":"{\"t\":1,\"x\":0}"}]}"#;
    let found = decode(&spec, object.as_bytes());
    let extra = &found.events[0].1.last().unwrap();
    assert_eq!(extra.as_str(), r#"{"x":0,"@envelope.sent":"7"}"#);
    assert_eq!(found.counts.nulled["sent"], 1);
}

#[test]
fn the_hash_is_of_the_record_alone() {
    let mut spec = source(&[text("m")]);
    spec.record_sha256 = true;
    spec.columns.push(crate::event::Column {
        path: path("@envelope.n"),
        ..column("n", "bigint")
    });
    let object = r#"{"n":1,"m":"{\"t\":1,\"id\":\"\u0061\"}"}{"n":2,"m":"{\"t\":1,\"id\":\"a\"}"}"#;
    let found = decode(&spec, object.as_bytes());
    use sha2::Digest;
    let expected = hex::encode(sha2::Sha256::digest(br#"{"t":1,"id":"a"}"#));
    for (row, n) in [(0, "1"), (1, "2")] {
        assert_eq!(found.events[row].1[1], n);
        assert_eq!(found.events[row].1[2], expected);
    }
}

#[test]
fn bounds_hold_before_and_after_decoding() {
    let failed = |raw: &[u8]| format!("{{\"attemptsMade\":1,\"rawData\":\"{}\"}}", base64(raw));
    let mut spec = source(&[UnwrapStep::FirehoseError]);
    spec.limits.max_record_bytes = 20_000;
    // Text that inflates beyond the bound.
    let lines = |count: usize| "{\"t\":1,\"id\":\"a\"}\n".repeat(count);
    let bomb = failed(&gzip(lines(100_000).as_bytes()));
    assert!(bomb.len() < 20_000);
    let object = format!(
        "{}\n{bomb}\n{}\n",
        failed(b"{\"t\":1}"),
        failed(b"{\"t\":1}")
    );
    let found = decode(&spec, object.as_bytes());
    assert_eq!(found.counts.events, 2 + 20_000 / 17);
    let [reject] = found.rejects.as_slice() else {
        panic!("{:?}", found.rejects);
    };
    assert_eq!(reject.reason, Reason::TooLarge);
    assert!(
        reject
            .detail
            .starts_with("more than 20000 decompressed bytes")
    );
    assert!(found.counts.lost > 0);
    // An envelope that is too long itself.
    let object = failed(lines(2_000).as_bytes());
    let found = decode(&spec, object.as_bytes());
    assert_eq!(seen(&found).1[0].1, Reason::TooLarge);
    // All texts of an object together are bounded too.
    spec.limits.max_object_bytes = 30_000;
    let object = failed(&gzip(lines(1_000).as_bytes())).repeat(3);
    let found = decode(&spec, object.as_bytes());
    let rejects: Vec<_> = found.rejects.iter().map(|reject| reject.reason).collect();
    assert_eq!(rejects, [Reason::ObjectTooLarge; 2]);
    assert_eq!(found.counts.events, 30_000 / 17);
    // Levels are counted in the envelope, and again in a text inside.
    let mut spec = source(&[text("m")]);
    spec.limits.max_depth = 3;
    let found = decode(
        &spec,
        br#"{"m":"{\"t\":1,\"a\":[[]]}{\"t\":1,\"a\":[[[]]]}"}{"m":"","a":[[[]]]}"#,
    );
    let rejects: Vec<_> = found
        .rejects
        .iter()
        .map(|r| (r.raw_record, r.reason))
        .collect();
    assert_eq!(
        (found.events.len(), rejects),
        (1, vec![(2, Reason::TooDeep), (3, Reason::TooDeep)])
    );
}

#[test]
fn a_damaged_text_is_counted_by_its_bytes() {
    let whole = gzip("{\"t\":1}\n".repeat(1_000).as_bytes());
    let cut = &whole[..whole.len() - 8];
    let object = format!("{{\"attemptsMade\":1,\"rawData\":\"{}\"}}", base64(cut));
    let found = decode(&source(&[UnwrapStep::FirehoseError]), object.as_bytes());
    assert_eq!(found.counts.rejects[&Reason::Codec], 1);
    assert_eq!(found.counts.events, 1_000);
    let parquet = format!(
        "{{\"attemptsMade\":1,\"rawData\":\"{}\"}}",
        base64(b"PAR1\x15\x04")
    );
    let found = decode(&source(&[UnwrapStep::FirehoseError]), parquet.as_bytes());
    let detail = &found.rejects[0].detail;
    assert!(
        detail.starts_with("the object is a Parquet file"),
        "{detail}"
    );
    assert_eq!(found.counts.lost, found.counts.bytes);
}
