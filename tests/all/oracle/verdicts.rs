//! The oracle: it decides which events are duplicates, and which events displace them.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate};
use chrono_tz::Tz;

/// An event as it was invented, and its text in the raw object.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) time: i64,
    pub(super) id: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) user: Option<String>,
    pub(super) page: Option<String>,
    pub(super) n: Option<i64>,
    pub(super) text: String,
}

/// A record of a raw object.
#[derive(Debug, Clone)]
pub(super) enum Record {
    Event(Event),
    /// A record that is no event: its text, and the reason of its reject.
    Reject(String, &'static str),
}

pub(super) struct Object {
    pub(super) key: String,
    /// The records, in the order of their numbers.
    pub(super) records: Vec<Record>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mode {
    Throttle,
    Gap,
    GapLast,
    Tumbling,
}

pub(super) type Key = Vec<String>;

/// A rule as the configuration writes it, and as the oracle understands it.
pub(super) struct Rule {
    pub(super) toml: String,
    pub(super) key: fn(&Event) -> Option<Key>,
    pub(super) when: fn(&Event) -> bool,
    pub(super) mode: Mode,
    pub(super) within: i64,
    /// The first and the last event date of the rule, both inclusive.
    pub(super) since: NaiveDate,
    pub(super) until: NaiveDate,
}

/// The verdict on each of these events, which are in their total order: the rule that took the event out, and
/// the event that displaced it. The code is as slow and plain as possible.
pub(super) fn verdicts(events: &[Event], rules: &[Rule], zone: Tz) -> Vec<Option<(usize, usize)>> {
    let mut verdicts = vec![None; events.len()];
    for (number, rule) in rules.iter().enumerate() {
        let mut chains: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
        for (i, event) in events.iter().enumerate() {
            if verdicts[i].is_none()
                && (rule.since..=rule.until).contains(&date_of(event.time, zone))
                && (rule.when)(event)
                && let Some(key) = (rule.key)(event)
            {
                chains.entry(key).or_default().push(i);
            }
        }
        for chain in chains.values() {
            let time = |i: usize| events[chain[i]].time;
            let near = |a: usize, b: usize| time(b) - time(a) <= rule.within;
            let mut kept: Vec<usize> = Vec::new();
            for i in 0..chain.len() {
                let displaced_by = match rule.mode {
                    Mode::Throttle => kept.iter().copied().find(|k| near(*k, i)),
                    Mode::Gap => (i > 0 && near(i - 1, i)).then(|| *kept.last().unwrap()),
                    Mode::GapLast => (i + 1 < chain.len() && near(i, i + 1)).then_some(i + 1),
                    Mode::Tumbling => (0..i).find(|first| {
                        time(*first).div_euclid(rule.within) == time(i).div_euclid(rule.within)
                    }),
                };
                match displaced_by {
                    Some(by) => verdicts[chain[i]] = Some((number, chain[by])),
                    None => kept.push(i),
                }
            }
        }
    }
    verdicts
}

pub(super) fn date_of(time: i64, zone: Tz) -> NaiveDate {
    let utc = DateTime::from_timestamp_millis(time).unwrap();
    utc.with_timezone(&zone).date_naive()
}
