//! Infers a configuration from a sample of raw records. Pure: it reads no store, no clock and no file, and the same
//! sample gives the same text.
//!
//! ```text
//! records ──▶ shape ──▶ columns ─┐
//!     │         └─────▶ times ───┼──▶ Draft ──text()──▶ rawmart.toml, a first mart
//!     └──(id, time, clicks)─▶ rules ┘
//! keys    ─────────────▶ layouts ┘
//! ```

mod columns;
mod draft;
mod envelopes;
mod layouts;
mod rules;
mod shape;
mod spelling;
mod times;

pub use columns::DraftColumn;
pub use draft::{Draft, DraftRule};
pub use envelopes::{envelopes, is_known_envelope};
pub use layouts::{LayoutFound, layout};
pub use shape::Node;
pub use spelling::table_name;

use columns::Names;

/// The records of one raw object of a sample.
#[derive(Debug, Clone, Default)]
pub struct SampledObject {
    /// The end of the span of time that its key names, in milliseconds since 1970, as if the key were in UTC. `None`
    /// where keys name no time.
    pub key_ms: Option<i64>,
    /// The records as JSON text.
    pub records: Vec<String>,
}

/// The facts about the raw prefix.
#[derive(Debug, Clone)]
pub struct Prefix {
    /// The prefix as it is written in the configuration.
    pub raw: String,
    /// The name of the source.
    pub source: String,
    /// The lake as it is written in the configuration.
    pub lake: String,
    /// The number of raw objects that a run would read.
    pub objects: u64,
    /// The layout of the keys.
    pub layout: LayoutFound,
    /// The envelope, as the configuration spells it.
    pub unwrap: Option<String>,
    /// Whether a source reads the prefixes that are excluded by default.
    pub reads_all: bool,
}

/// Why no configuration can be inferred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InferError {
    /// There is no time in the records.
    #[error(
        "no member of the records looks like the time of an event; the members are {}. An event needs a time: write \
         rawmart.toml by hand if it is spelt in another way", members.join(", ")
    )]
    NoTime {
        /// The names of members.
        members: Vec<String>,
    },
}

/// The shape of all records. Records that are no JSON object are left out.
pub fn shape(objects: &[SampledObject]) -> Node {
    let mut node = Node::default();
    for record in objects.iter().flat_map(|object| &object.records) {
        node.add(record);
    }
    node
}

/// Whether the records have a member that looks like the time of an event.
pub fn has_time(node: &Node) -> bool {
    times::event_time(node).is_some()
}

/// Infers a configuration.
///
/// # Errors
/// No member of the records looks like a time.
pub fn infer(prefix: Prefix, objects: &[SampledObject]) -> Result<Draft, InferError> {
    let node = shape(objects);
    let mut unsure = Vec::new();
    let Some(time) = times::event_time(&node) else {
        let names = node.members.iter().take(20).map(|(name, _)| name.clone());
        return Err(InferError::NoTime {
            members: names.collect(),
        });
    };
    let mut names = Names::default();
    let event_time = names.of(time.path.last().map_or("event_time", String::as_str));
    let mut columns = columns::columns(&node, &mut names, &mut unsure, &time.path);
    columns::put_time(&mut columns, &event_time, &time, node.objects);
    let times = times::Times::new(&time.path, objects);
    let zones = times.zones(&time, &mut unsure);
    if time.others.first().is_some_and(|other| other.is_near) {
        let others: Vec<&str> = time.others.iter().map(|o| o.name.as_str()).collect();
        unsure.push(format!(
            "event_time is {}; {} could be it, too",
            time.path.join("."),
            others.join(", ")
        ));
    }
    let rules = rules::rules(&columns, &times, objects, &mut unsure);
    if let LayoutFound::Unfit { example, pattern } = &prefix.layout {
        unsure.push(format!(
            "layout: `{pattern}` fits most keys, but not {example}, so LastModified is taken as the arrival"
        ));
    }
    unsure.push("timezone: nothing in the data says in which zone your days begin".to_owned());
    Ok(Draft {
        kind: rules::kind_column(&columns),
        user: rules::user_column(&columns),
        records: node.objects,
        sampled: objects.len() as u64,
        event_time,
        event_time_note: time.note,
        zones,
        columns,
        rules,
        unsure,
        max_rejects: None,
        prefix,
    })
}
