//! Duplicate rules, with the share of the sample that each takes out.
//!
//! ```text
//! key, time of each event ──▶ distances between equal keys ──▶ the shortest usual window that holds nearly all
//! ```

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::SampledObject;
use super::columns::DraftColumn;
use super::draft::DraftRule;
use super::spelling::{percent, sql_name};
use super::times::{Times, follow};
use crate::config::show_duration;
use crate::event::{ColumnType, RECORD_SHA256};

/// Windows for deliveries that were repeated, in milliseconds.
const WINDOWS: [i64; 5] = [
    600_000,
    3_600_000,
    86_400_000,
    7 * 86_400_000,
    35 * 86_400_000,
];
/// The share of repeats that a window must hold.
const HELD: f64 = 0.98;
/// The window of a double click, in milliseconds.
const CLICK_MS: i64 = 1_000;
/// The least share of different values among the values of an id.
const DISTINCT: f64 = 0.7;

/// Names of ids of events, the most usual first, without `_`.
const IDS: [&str; 14] = [
    "eventid",
    "id",
    "eventuuid",
    "uuid",
    "messageid",
    "insertid",
    "recordid",
    "guid",
    "eventkey",
    "requestid",
    "logid",
    "deliveryid",
    "transactionid",
    "sequencenumber",
];
/// Names of columns that say what kind of event it is.
const KINDS: [&str; 9] = [
    "event_type",
    "type",
    "event_name",
    "event",
    "action",
    "name",
    "kind",
    "detail_type",
    "category",
];
/// Names of columns that say who did it.
const USERS: [&str; 12] = [
    "user_id",
    "userid",
    "uid",
    "user",
    "member_id",
    "customer_id",
    "account_id",
    "login",
    "anonymous_id",
    "device_id",
    "client_id",
    "session_id",
];
/// Names of columns that say what was clicked.
const TARGETS: [&str; 10] = [
    "target",
    "target_id",
    "element",
    "element_id",
    "button",
    "button_id",
    "component",
    "page",
    "screen",
    "url",
];

/// The first column of these names.
fn named<'c>(columns: &'c [DraftColumn], names: &[&str]) -> Option<&'c DraftColumn> {
    let scalar =
        |column: &&DraftColumn| matches!(column.kind, ColumnType::String | ColumnType::BigInt);
    names.iter().find_map(|name| {
        let mut columns = columns.iter().filter(scalar);
        columns.find(|column| column.name == *name)
    })
}

/// The column that says what kind of event it is, if it has few values.
pub fn kind_column(columns: &[DraftColumn]) -> Option<String> {
    let texts: Vec<DraftColumn> = columns
        .iter()
        .filter(|column| column.kind == ColumnType::String && !column.values.is_empty())
        .cloned()
        .collect();
    named(&texts, &KINDS).map(|column| column.name.clone())
}

/// The column that says who did it.
pub fn user_column(columns: &[DraftColumn]) -> Option<String> {
    named(columns, &USERS).map(|column| column.name.clone())
}

/// The rules that are proposed.
pub fn rules(
    columns: &[DraftColumn],
    times: &Times,
    objects: &[SampledObject],
    unsure: &mut Vec<String>,
) -> Vec<DraftRule> {
    let events = events(columns, times, objects);
    let mut rules = Vec::new();
    let mut kept = vec![true; events.len()];
    match id(columns, &events) {
        Some(at) => rules.push(redelivery(&columns[at], at, &events, &mut kept)),
        None => {
            unsure.push(
                "no member looks like the id of an event: deliveries that were repeated are found as equal records"
                    .to_owned(),
            );
            rules.push(equal_records(&events, &mut kept));
        }
    }
    if let Some(rule) = double_click(columns, &events, &mut kept) {
        rules.push(rule);
    }
    if let Some(rule) = rules.first().filter(|rule| rule.duplicates == 0) {
        unsure.push(format!(
            "{}: the sample has no repeat, so its window is a guess",
            rule.name
        ));
    }
    rules
}

/// An event of the sample.
struct Event {
    time: i64,
    /// A hash of the value of each column; `None` where it is null.
    values: Vec<Option<u64>>,
    /// A hash of the record.
    record: u64,
    /// The text of the column that says what kind it is.
    is_click: bool,
}

/// The events of the sample that have a time, in order of time.
fn events(columns: &[DraftColumn], times: &Times, objects: &[SampledObject]) -> Vec<Event> {
    let click = clicks(columns);
    let mut events = Vec::new();
    for (object, (_, times)) in objects.iter().zip(&times.objects) {
        for (record, time) in object.records.iter().zip(times) {
            let (Some(time), Ok(value)) = (time, serde_json::from_str::<Value>(record)) else {
                continue;
            };
            let is_click = click.as_ref().is_some_and(|(path, text)| {
                follow(&value, path).and_then(Value::as_str) == Some(text)
            });
            let hash_of = |column: &DraftColumn| {
                let value = follow(&value, &column.path).filter(|value| !value.is_null())?;
                Some(hash(&value.to_string()))
            };
            events.push(Event {
                time: *time,
                values: columns.iter().map(hash_of).collect(),
                record: hash(record),
                is_click,
            });
        }
    }
    events.sort_by_key(|event| event.time);
    events
}

/// A hash that is the same in every process.
fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// The path of the column that says what kind an event is, and the value for clicks.
fn clicks(columns: &[DraftColumn]) -> Option<(Vec<String>, String)> {
    let name = kind_column(columns)?;
    let column = columns.iter().find(|column| column.name == name)?;
    let is_click = |text: &str| {
        let text = text.to_ascii_lowercase();
        ["click", "tap", "press"].iter().any(|word| {
            text == *word
                || text.ends_with(&format!("_{word}"))
                || text.ends_with(&format!(".{word}"))
                || text.ends_with(&format!("-{word}"))
                || text.ends_with(&format!(" {word}"))
        })
    };
    let mut values: Vec<&(String, u64)> = column.values.iter().collect();
    values.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let (text, _) = values.into_iter().find(|(text, _)| is_click(text))?;
    Some((column.path.clone(), text.clone()))
}

/// The column that is most likely the id of an event.
fn id(columns: &[DraftColumn], events: &[Event]) -> Option<usize> {
    let mut best: Option<(usize, usize)> = None;
    for (at, column) in columns.iter().enumerate() {
        if !matches!(column.kind, ColumnType::String | ColumnType::BigInt) {
            continue;
        }
        let plain: String = column.name.chars().filter(|c| *c != '_').collect();
        let Some(rank) = IDS.iter().position(|known| *known == plain) else {
            continue;
        };
        let values = events.iter().filter_map(|event| event.values[at]);
        let count = values.clone().count();
        let distinct = values.collect::<std::collections::HashSet<u64>>().len();
        let is_id = count * 100 >= events.len() * 95
            && distinct as f64 >= DISTINCT * count as f64
            && count > 0;
        if is_id && best.is_none_or(|(other, _)| rank < other) {
            best = Some((rank, at));
        }
    }
    best.map(|(_, at)| at)
}

/// The distances between neighbours of equal keys, sorted. `key` gives the key of an event.
fn distances(events: &[Event], key: impl Fn(&Event) -> Option<u64>) -> Vec<i64> {
    let mut last: HashMap<u64, i64> = HashMap::new();
    let mut apart = Vec::new();
    for event in events {
        if let Some(key) = key(event)
            && let Some(before) = last.insert(key, event.time)
        {
            apart.push(event.time - before);
        }
    }
    apart.sort_unstable();
    apart
}

/// Takes out the events that a kept event of their key displaces, and gives their number.
fn throttle(
    events: &[Event],
    kept: &mut [bool],
    within: i64,
    key: impl Fn(&Event) -> Option<u64>,
) -> u64 {
    let mut last: HashMap<u64, i64> = HashMap::new();
    let mut duplicates = 0;
    for (event, kept) in events.iter().zip(kept) {
        let Some(key) = key(event).filter(|_| *kept) else {
            continue;
        };
        match last.get(&key) {
            Some(before) if event.time - before <= within => {
                *kept = false;
                duplicates += 1;
            }
            _ => {
                last.insert(key, event.time);
            }
        }
    }
    duplicates
}

/// The shortest usual window that holds nearly all distances.
fn window(distances: &[i64]) -> i64 {
    let need = (distances.len() as f64 * HELD).ceil() as usize;
    let holds = |window: &&i64| distances.partition_point(|apart| apart <= *window) >= need;
    WINDOWS
        .iter()
        .find(holds)
        .copied()
        .unwrap_or(WINDOWS[WINDOWS.len() - 1])
}

fn redelivery(column: &DraftColumn, at: usize, events: &[Event], kept: &mut [bool]) -> DraftRule {
    let key = |event: &Event| event.values[at];
    let apart = distances(events, key);
    let within = window(&apart);
    let duplicates = throttle(events, kept, within, key);
    let beyond = apart.len() as u64 - duplicates.min(apart.len() as u64);
    DraftRule {
        name: "redelivery".to_owned(),
        key: vec![sql_name(&column.name)],
        when: None,
        within_ms: within,
        note: format!(
            "{} within {}: {} duplicates{}",
            column.name,
            show_duration(within),
            percent_of(duplicates, events.len() as u64),
            match beyond {
                0 => String::new(),
                beyond => format!("; {beyond} repeats lie further apart"),
            }
        ),
        duplicates,
        of: events.len() as u64,
    }
}

fn equal_records(events: &[Event], kept: &mut [bool]) -> DraftRule {
    let key = |event: &Event| Some(event.record);
    let within = window(&distances(events, key));
    let duplicates = throttle(events, kept, within, key);
    DraftRule {
        name: "equal_record".to_owned(),
        key: vec![RECORD_SHA256.to_owned()],
        when: None,
        within_ms: within,
        note: format!(
            "records with equal bytes: {} duplicates",
            percent_of(duplicates, events.len() as u64)
        ),
        duplicates,
        of: events.len() as u64,
    }
}

/// The rule for a button that is clicked twice, if the records have clicks of users.
fn double_click(columns: &[DraftColumn], events: &[Event], kept: &mut [bool]) -> Option<DraftRule> {
    let (path, text) = clicks(columns)?;
    let kind = columns.iter().find(|column| column.path == path)?;
    let user = named(columns, &USERS)?;
    let targets = TARGETS.iter().filter_map(|name| {
        let mut columns = columns.iter();
        columns.find(|column| column.name == *name && column.kind == ColumnType::String)
    });
    let mut parts = vec![user];
    // The page tells two buttons of one name apart.
    parts.extend(targets.take(2));
    if parts.len() < 2 {
        return None;
    }
    let place = |part: &DraftColumn| columns.iter().position(|column| column.name == part.name);
    let places: Vec<usize> = parts.iter().filter_map(|part| place(part)).collect();
    let key = |event: &Event| {
        let values: Option<Vec<u64>> = places.iter().map(|at| event.values[*at]).collect();
        let mut hasher = DefaultHasher::new();
        values.filter(|_| event.is_click)?.hash(&mut hasher);
        Some(hasher.finish())
    };
    let clicks = events.iter().zip(kept.iter());
    let clicks = clicks
        .filter(|(event, kept)| **kept && event.is_click)
        .count() as u64;
    let duplicates = throttle(events, kept, CLICK_MS, key);
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    Some(DraftRule {
        name: "double_click".to_owned(),
        key: parts.iter().map(|part| sql_name(&part.name)).collect(),
        when: Some(format!(
            "{} = '{}'",
            sql_name(&kind.name),
            text.replace('\'', "''")
        )),
        within_ms: CLICK_MS,
        note: format!(
            "clicks of one {} within {}: {} duplicates",
            names.join(", "),
            show_duration(CLICK_MS),
            percent_of(duplicates, clicks)
        ),
        duplicates,
        of: clicks,
    })
}

fn percent_of(part: u64, whole: u64) -> String {
    match part {
        0 => "no".to_owned(),
        part => percent(part, whole),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LayoutFound, Prefix, infer};
    use super::*;

    fn proposed(records: Vec<String>) -> Vec<DraftRule> {
        let prefix = Prefix {
            raw: "raw".to_owned(),
            source: "app".to_owned(),
            lake: "lake".to_owned(),
            objects: 1,
            layout: LayoutFound::None,
            unwrap: None,
            reads_all: false,
        };
        let objects = [SampledObject {
            key_ms: None,
            records,
        }];
        infer(prefix, &objects).unwrap().rules
    }

    /// 100 events a minute apart. Every tenth is delivered again `again` seconds later, with the same time if `again` is 0.
    fn repeated(again: i64) -> Vec<String> {
        let mut records = Vec::new();
        for n in 0..100 {
            let at = 1_554_076_800 + 60 * n;
            records.push(format!(
                "{{\"event_id\":\"e{n}\",\"user_id\":\"u\",\"ts\":{at}}}"
            ));
            if n % 10 == 0 {
                let at = at + again;
                records.push(format!(
                    "{{\"event_id\":\"e{n}\",\"user_id\":\"u\",\"ts\":{at}}}"
                ));
            }
        }
        records
    }

    #[test]
    fn the_window_of_an_id_holds_the_repeats() {
        for (again, within, note) in [
            (0, 600_000, "event_id within 10m: 9.1 % duplicates"),
            (700, 3_600_000, "event_id within 1h: 9.1 % duplicates"),
            (90_000, 604_800_000, "event_id within 7d: 9.1 % duplicates"),
        ] {
            let rules = proposed(repeated(again));
            assert_eq!(rules.len(), 1);
            assert_eq!(rules[0].key, ["event_id"]);
            assert_eq!((rules[0].within_ms, rules[0].note.as_str()), (within, note));
        }
    }

    #[test]
    fn clicks_of_one_user_and_target_are_measured_without_the_repeated_deliveries() {
        let mut records = Vec::new();
        for n in 0..50 {
            let at = 1_554_076_800_000_i64 + 60_000 * n;
            let click = |id: String, at: i64| {
                format!(
                    "{{\"id\":\"{id}\",\"type\":\"click\",\"user\":\"u\",\"target\":\"buy\",\"ts\":{at}}}"
                )
            };
            records.push(click(format!("a{n}"), at));
            if n < 5 {
                records.push(click(format!("b{n}"), at + 1_000));
                records.push(click(format!("a{n}"), at));
            }
            records.push(click(format!("c{n}"), at + 5_000));
        }
        let rules = proposed(records);
        assert_eq!(rules[0].note, "id within 10m: 4.5 % duplicates");
        assert_eq!(rules[1].when.as_deref(), Some("type = 'click'"));
        assert_eq!(rules[1].key, ["\"user\"", "target"]);
        assert_eq!((rules[1].duplicates, rules[1].of), (5, 105));
        assert_eq!(
            rules[1].note,
            "clicks of one user, target within 1s: 4.8 % duplicates"
        );
    }

    #[test]
    fn records_without_an_id_are_compared_as_a_whole() {
        let records = (0..10).map(|n| format!("{{\"ts\":{},\"n\":1}}", 1_554_076_800 + n / 2));
        let rules = proposed(records.collect());
        assert_eq!(rules[0].key, ["record_sha256"]);
        assert_eq!((rules[0].duplicates, rules[0].of), (5, 10));
    }
}
