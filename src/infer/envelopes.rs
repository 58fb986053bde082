//! Envelopes: objects that hold the records inside.

use super::shape::Node;
use super::spelling::quoted;

/// Members by which an envelope of a known producer is recognised, and its name.
const KNOWN: [(&[&str], &str); 5] = [
    (&["rawData", "attemptsMade"], "firehose-error"),
    (&["logEvents", "messageType"], "cloudwatch-logs"),
    (&["schema", "payload"], "kafka-connect"),
    (&["metadata", "message"], "kinesis-agent"),
    (&["dynamodb", "eventName"], "dynamodb-json"),
];

/// Whether nearly all records have a member.
fn has(records: &Node, name: &str) -> bool {
    let member = records.member(name);
    member.is_some_and(|member| member.seen * 10 >= records.objects * 9)
}

/// Whether the records are the envelopes of a known producer. Some of them have a time of their own.
pub fn is_known_envelope(records: &Node) -> bool {
    let is = |members: &&[&str]| members.iter().all(|member| has(records, member));
    KNOWN.iter().any(|(members, _)| is(members))
}

/// The envelopes that the records may be, as the configuration spells them, the most likely first. Each must be tried:
/// it is the right one if the records inside have a time.
pub fn envelopes(records: &Node) -> Vec<String> {
    let mut found = Vec::new();
    for (members, name) in KNOWN {
        if members.iter().all(|member| has(records, member)) {
            found.push(quoted(name));
        }
    }
    for (name, member) in &records.members {
        let most = |count: u64| count * 10 >= records.objects * 9;
        let items = member.items.as_deref();
        let step = match items {
            _ if name.is_empty() => continue,
            Some(items) if most(member.arrays) && items.objects * 10 >= items.seen * 9 => "array",
            _ if most(member.objects) => "member",
            _ if most(member.texts.json) => "text",
            _ => continue,
        };
        found.push(format!("{{ {step} = {} }}", quoted(name)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_known_by_its_members() {
        for (record, expected) in [
            (
                r#"{"Records":[{"eventTime":"x"}]}"#,
                &["{ array = \"Records\" }"][..],
            ),
            (
                r#"{"rawData":"e30=","attemptsMade":1,"errorCode":"x"}"#,
                &["\"firehose-error\""],
            ),
            (
                r#"{"schema":{"t":1},"payload":{"a":1}}"#,
                &[
                    "\"kafka-connect\"",
                    "{ member = \"schema\" }",
                    "{ member = \"payload\" }",
                ],
            ),
            (r#"{"m":"{\"a\":1}"}"#, &["{ text = \"m\" }"]),
            (r#"{"a":1}"#, &[]),
        ] {
            let mut node = Node::default();
            assert!(node.add(record));
            assert_eq!(envelopes(&node), expected, "{record}");
        }
    }
}
