//! How the records of a source lie inside envelopes: `unwrap`, one step or a list of steps.

use toml::de::DeValue;

use super::ConfigError;
use super::columns;
use super::table::{Entry, Table};
use crate::event::UnwrapStep;
use crate::names::nearest;

/// The envelopes that are known by name.
const NAMED: [(&str, UnwrapStep); 5] = [
    ("firehose-error", UnwrapStep::FirehoseError),
    ("cloudwatch-logs", UnwrapStep::CloudwatchLogs),
    ("kafka-connect", UnwrapStep::KafkaConnect),
    ("kinesis-agent", UnwrapStep::KinesisAgent),
    ("dynamodb-json", UnwrapStep::DynamodbJson),
];

/// The keys of a step that is no name.
const KEYS: [&str; 3] = ["array", "member", "text"];

/// The most steps of a source. Each step that opens a text has buffers of its own.
const MOST: usize = 8;

/// The steps of a source; none where its objects are its records.
pub(super) fn unwrap(table: &Table<'_>) -> Result<Vec<UnwrapStep>, ConfigError> {
    let Some(entry) = table.get("unwrap") else {
        return Ok(Vec::new());
    };
    let steps = match entry.value() {
        DeValue::Array(_) => {
            let steps = entry.elements("steps")?;
            steps.iter().map(step).collect::<Result<Vec<_>, _>>()?
        }
        _ => vec![step(&entry)?],
    };
    match steps.len() {
        0 => Err(entry.error(
            "has no step: name an envelope such as \"cloudwatch-logs\", or take `unwrap` out"
                .to_owned(),
        )),
        1..=MOST => Ok(steps),
        n => Err(entry.error(format!("has {n} steps: give {MOST} or less"))),
    }
}

/// One step.
fn step(entry: &Entry<'_>) -> Result<UnwrapStep, ConfigError> {
    match entry.value() {
        DeValue::String(_) => entry.read(|text| {
            let known = NAMED.iter().find(|(name, _)| *name == text);
            known
                .map(|(_, step)| step.clone())
                .ok_or_else(|| unknown(text))
        }),
        DeValue::Table(_) => {
            let table = entry.table()?;
            table.only(&KEYS)?;
            let given: Vec<_> = table.in_order();
            let [(key, path)] = given.as_slice() else {
                return Err(entry.error(
                    "is one step with one of the keys `array`, `member` and `text`: write such as \
                     { array = \"Records\" }, and several steps as a list"
                        .to_owned(),
                ));
            };
            let path = columns::member_path(path)?;
            Ok(match *key {
                "array" => UnwrapStep::Array(path),
                "member" => UnwrapStep::Member(path),
                _ => UnwrapStep::Text(path),
            })
        }
        other => Err(entry.wanted(
            "an envelope such as \"cloudwatch-logs\", or a step such as { array = \"Records\" }",
            other,
        )),
    }
}

/// The message about a name that is no known envelope.
fn unknown(text: &str) -> String {
    let names = NAMED.iter().map(|(name, _)| *name);
    match nearest(text, names.clone()) {
        Some(near) => format!("`{text}` is no known envelope, is it `{near}`?"),
        None => format!(
            "`{text}` is no known envelope: write one of {}, or a step such as {{ array = \"Records\" }}",
            names.collect::<Vec<_>>().join(", ")
        ),
    }
}
