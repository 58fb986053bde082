//! How the records of a source lie inside envelopes.
//!
//! ```text
//! {"owner":"1","Records":[{"body":"{\"id\":1}"}]}     unwrap = [{ array = "Records" }, { text = "body" }]
//!                        └ envelope 2 └ record        a column reads the owner by the path @envelope.owner
//! └ envelope 1
//! ```

use serde::{Deserialize, Serialize};

/// The first name of a path that begins in the envelope of a record.
pub const ENVELOPE: &str = "@envelope";

/// One step from an envelope to the records inside. A path is a list of member names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnwrapStep {
    /// A record that Firehose could not deliver: `rawData` in base64, beside `attemptsMade`.
    FirehoseError,
    /// A batch of CloudWatch Logs. Each object of `logEvents` is a record.
    CloudwatchLogs,
    /// The JSON of Kafka Connect with a schema: `payload` is the record. A null is a tombstone.
    KafkaConnect,
    /// A line of the Kinesis Agent with metadata: the text `message` holds the record.
    KinesisAgent,
    /// An item of DynamoDB, whose typed values become plain values.
    DynamodbJson,
    /// Each object of the array at this path is a record.
    Array(Vec<String>),
    /// The object at this path is the record.
    Member(Vec<String>),
    /// The text at this path holds records.
    Text(Vec<String>),
}
