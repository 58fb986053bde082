//! Silence: sources of which no raw object has arrived for longer than they, or the marts above them, allow.
//!
//! ```text
//! newest arrival of a source, as the log has it ──▶ older than `fresh_within` before now? ──▶ Silence
//! ```
//!
//! The arrival of a raw object is the end of the span that its key names, so an hour that is not over yet is no silence.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::config::{Job, Source, show_duration};
use crate::ledger::State;
use crate::mart::{Graph, Mart};

/// A source that is silent for longer than it may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Silence {
    /// The source.
    pub source: String,
    /// The mart that reads the source and has the limit; `None` where the limit is that of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mart: Option<String>,
    /// The person or team that answers for the mart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The longest silence that is allowed, such as `2h`.
    pub fresh_within: String,
    /// When its newest raw object arrived; `None` where none has arrived.
    pub last_arrival: Option<String>,
}

/// The silences of the sources and marts of a job at the time `now`. Only the `sources` and the marts of `names` count.
pub fn silences(
    job: &Job,
    sources: &[&Source],
    marts: Option<(&Graph, &BTreeSet<String>)>,
    state: &State,
    now: DateTime<Utc>,
) -> Vec<Silence> {
    let arrivals: BTreeMap<&str, Option<i64>> = (job.sources.iter())
        .map(|source| (source.name.as_str(), newest(state, &source.name)))
        .collect();
    let is_silent = |source: &Source, allowed: i64| {
        let last = arrivals.get(source.name.as_str()).copied().flatten();
        let silent = last.is_none_or(|last| now.timestamp_millis().saturating_sub(last) > allowed);
        silent.then(|| Silence {
            source: source.name.clone(),
            mart: None,
            owner: None,
            fresh_within: show_duration(allowed),
            last_arrival: last.and_then(shown),
        })
    };
    let mut found: Vec<Silence> = (sources.iter())
        .filter_map(|source| is_silent(source, source.fresh_within_ms?))
        .collect();
    let Some((graph, names)) = marts else {
        return found;
    };
    let below = graph.below();
    for mart in graph
        .marts()
        .iter()
        .filter(|mart| names.contains(&mart.name))
    {
        let Some(allowed) = mart.fresh_within else {
            continue;
        };
        let read = read_by(mart, graph, below.get(&mart.name));
        let read = job.sources.iter().filter(|source| {
            let mut tables = source.tables().into_iter();
            tables.any(|table| read.contains(table.as_str()))
        });
        found.extend(
            read.filter_map(|source| is_silent(source, allowed))
                .map(|silence| Silence {
                    mart: Some(mart.name.clone()),
                    owner: mart.owner.clone(),
                    ..silence
                }),
        );
    }
    found
}

/// The tables that a mart reads, also through the marts `below` it.
fn read_by<'a>(
    mart: &'a Mart,
    graph: &'a Graph,
    below: Option<&BTreeSet<String>>,
) -> BTreeSet<&'a str> {
    let is_below = |other: &&Mart| below.is_some_and(|below| below.contains(&other.name));
    let marts = graph.marts().iter().filter(is_below).chain([mart]);
    marts
        .flat_map(|mart| &mart.inputs)
        .map(String::as_str)
        .collect()
}

/// The newest arrival of a source in milliseconds since 1970.
fn newest(state: &State, source: &str) -> Option<i64> {
    let objects = &state.sources.get(source)?.objects;
    objects.values().map(|object| object.arrival_ms).max()
}

fn shown(ms: i64) -> Option<String> {
    let time = DateTime::from_timestamp_millis(ms)?;
    Some(time.to_rfc3339_opts(SecondsFormat::Secs, true))
}
