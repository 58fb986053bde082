//! The event time: which member it is, and in which zones the times and the keys are.

use serde_json::Value;

use super::SampledObject;
use super::shape::{Node, UTC};
use super::spelling::percent;
use crate::time::{TimeUnit, read_epoch, read_time};

/// The least share of records that have the event time.
const LEAST: f64 = 0.95;
const HOUR_MS: i64 = 3_600_000;
/// The most that an event arrives after the span of its key, so that the keys still say in which zone they are.
const LATE_MS: i64 = 15 * 60_000;

/// The names of members that are usually the time of the event, the most usual first.
const NAMES: [&str; 24] = [
    "eventtime",
    "eventtimestamp",
    "eventts",
    "eventat",
    "occurredat",
    "clienttime",
    "timestamp",
    "time",
    "ts",
    "createdat",
    "at",
    "datetime",
    "date",
    "loggedat",
    "senttime",
    "sentat",
    "clienttimestamp",
    "originaltimestamp",
    "requesttime",
    "starttime",
    "created",
    "receivedat",
    "approximatearrivaltimestamp",
    "servertime",
];

/// The member that is the event time.
#[derive(Debug, Clone)]
pub struct TimeMember {
    /// The names of members that lead to it.
    pub path: Vec<String>,
    /// How the times are spelt, in words.
    pub note: String,
    /// The number of records that have it.
    pub seen: u64,
    /// Whether some times have no offset.
    pub is_naive: bool,
    /// Other members that could be it.
    pub others: Vec<Other>,
}

/// Another member that could be the event time.
#[derive(Debug, Clone)]
pub struct Other {
    /// Its path with dots.
    pub name: String,
    /// Whether its name is a usual one as well.
    pub is_near: bool,
}

/// The member that is most likely the event time.
pub fn event_time(records: &Node) -> Option<TimeMember> {
    let mut found: Vec<(usize, usize, Vec<String>, &Node)> = Vec::new();
    collect(records, records.objects, &mut Vec::new(), &mut found);
    found.sort_by_key(|(rank, order, ..)| (*rank, *order));
    let mut found = found.into_iter();
    let (_, _, path, node) = found.next()?;
    let others = found.map(|(rank, _, path, _)| Other {
        name: path.join("."),
        is_near: rank < 2 * NAMES.len(),
    });
    let numbers = node.integers + node.floats;
    let spelt = match (numbers, node.texts.times) {
        (_, 0) => "as epoch numbers".to_owned(),
        (0, _) if node.texts.naive > 0 => "without an offset".to_owned(),
        (0, _) => "with an offset".to_owned(),
        (numbers, _) => format!("as epoch numbers in {}", percent(numbers, node.values())),
    };
    Some(TimeMember {
        note: format!("times are written {spelt}"),
        seen: node.values(),
        is_naive: node.texts.naive > 0,
        others: others.collect(),
        path,
    })
}

/// Collects the members that can be the event time, with the rank of their names and their order.
fn collect<'a>(
    node: &'a Node,
    records: u64,
    path: &mut Vec<String>,
    found: &mut Vec<(usize, usize, Vec<String>, &'a Node)>,
) {
    for (name, member) in &node.members {
        if name.is_empty() {
            continue;
        }
        path.push(name.clone());
        let times = member.texts.times + member.epochs;
        let enough = |count: u64| count as f64 >= LEAST * records as f64 && count > 0;
        if enough(times) {
            let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
            let plain = plain.to_ascii_lowercase();
            let rank = NAMES.iter().position(|known| *known == plain);
            let rank = rank.unwrap_or(match plain.contains("time") || plain.contains("date") {
                true => NAMES.len(),
                false => NAMES.len() * 2,
            });
            // A number counts as a time by its name, or if there is nothing else.
            let rank = match member.texts.times {
                0 if rank >= NAMES.len() => rank + NAMES.len() * 4,
                _ => rank,
            };
            let depth = path.len() - 1;
            found.push((
                rank + depth * NAMES.len(),
                found.len(),
                path.clone(),
                member,
            ));
        }
        if path.len() < 3 && enough(member.objects) {
            collect(member, records, path, found);
        }
        path.pop();
    }
}

/// The zones that were inferred, with what was seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Zones {
    /// The zone of the times in keys, where it is not UTC.
    pub layout: Option<(String, String)>,
    /// The zone of times without an offset.
    pub naive: Option<(String, String)>,
}

/// The event times of a sample.
pub struct Times {
    /// For each object, the end of the span of its key and the event times, in milliseconds. A time that cannot be read
    /// is `None`.
    pub objects: Vec<(Option<i64>, Vec<Option<i64>>)>,
}

impl Times {
    /// Reads the event times of all records. Times without an offset are read as UTC.
    pub fn new(path: &[String], objects: &[SampledObject]) -> Self {
        let of_object = |object: &SampledObject| {
            let times = object.records.iter().map(|record| {
                let record: Value = serde_json::from_str(record).ok()?;
                read(follow(&record, path)?)
            });
            (object.key_ms, times.collect())
        };
        Self {
            objects: objects.iter().map(of_object).collect(),
        }
    }

    /// The zones of keys and of times without an offset.
    pub fn zones(&self, member: &TimeMember, unsure: &mut Vec<String>) -> Zones {
        let behind = self.hours_behind();
        let mut zones = Zones::default();
        match (member.is_naive, behind) {
            (true, Some(hours)) => {
                let seen = match hours {
                    0 => "the times agree with keys in UTC".to_owned(),
                    hours => format!("the times are {hours} h from keys in UTC"),
                };
                zones.naive = Some((offset_zone(-hours), seen));
                unsure.push(
                    "naive_timezone: the times have no offset; their zone follows from the keys, if these are in UTC"
                        .to_owned(),
                );
            }
            (true, None) => {
                zones.naive = Some(("UTC".to_owned(), "a guess".to_owned()));
                unsure.push(
                    "naive_timezone: the times have no offset, and nothing says in which zone they are"
                        .to_owned(),
                );
            }
            (false, Some(hours)) if hours.abs() > 1 && self.objects.len() > 2 => {
                // Events that arrive an hour late are more usual than a zone of one hour.
                let zone = offset_zone(hours);
                unsure.push(format!(
                    "layout_timezone: the hours in the keys are {hours} h from the event times; name your zone in \
                     the place of {zone} if its clock changes"
                ));
                zones.layout = Some((zone, format!("keys are {hours} h from the event times")));
            }
            (false, _) => {}
        }
        zones
    }

    /// How many hours the keys, read as UTC, are ahead of the event times. `None` where that is not the same for nearly
    /// all events.
    fn hours_behind(&self) -> Option<i64> {
        let objects = self.objects.iter();
        let apart = objects.filter_map(|(key, times)| {
            let key = (*key)?;
            Some(times.iter().flatten().map(move |time| key - time))
        });
        let mut apart: Vec<i64> = apart.flatten().collect();
        apart.sort_unstable();
        let median = *apart.get(apart.len().checked_sub(1)? / 2)?;
        let hours = median.div_euclid(HOUR_MS);
        let steady = apart.iter().filter(|apart| {
            let rest = **apart - hours * HOUR_MS;
            (-LATE_MS..HOUR_MS + LATE_MS).contains(&rest)
        });
        let steady = steady.count() * 10 >= apart.len() * 8;
        (steady && (-12..=14).contains(&hours)).then_some(hours)
    }
}

/// The zone that is so many hours ahead of UTC all year.
fn offset_zone(hours: i64) -> String {
    match hours {
        0 => "UTC".to_owned(),
        // These names have the sign of POSIX.
        hours => format!("Etc/GMT{:+}", -hours),
    }
}

/// The value that a path leads to.
pub fn follow<'v>(record: &'v Value, path: &[String]) -> Option<&'v Value> {
    let mut value = record;
    for name in path {
        value = value.get(name)?;
    }
    Some(value)
}

fn read(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => read_epoch(&number.to_string(), TimeUnit::Ms, None),
        Value::String(text) => read_time(text, TimeUnit::Ms, UTC),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(records: &[&str]) -> Option<(String, bool)> {
        let mut node = Node::default();
        records.iter().for_each(|record| assert!(node.add(record)));
        event_time(&node).map(|time| (time.path.join("."), time.is_naive))
    }

    #[test]
    fn the_event_time_is_found_by_value_and_name() {
        for (record, expected) in [
            (
                r#"{"received_at":"2019-04-01T00:00:00Z","ts":1554076800}"#,
                Some(("ts", false)),
            ),
            (
                r#"{"id":1554076800,"at":"2019-04-01 00:00:00"}"#,
                Some(("at", true)),
            ),
            (
                r#"{"user_id":1554076800,"when":"2019-04-01T00:00:00Z"}"#,
                Some(("when", false)),
            ),
            (
                r#"{"meta":{"time":1554076800123},"n":5}"#,
                Some(("meta.time", false)),
            ),
            (r#"{"born":"1970-01-01","n":5}"#, None),
            (r#"{"x":1554076800}"#, Some(("x", false))),
        ] {
            let expected = expected.map(|(path, naive)| (path.to_owned(), naive));
            assert_eq!(found(&[record]), expected, "{record}");
        }
        assert_eq!(found(&[r#"{"ts":1554076800}"#, r#"{"a":1}"#]), None);
    }

    #[test]
    fn the_zone_of_keys_follows_from_the_event_times() {
        let hour = |n: i64| n * HOUR_MS;
        let times = |ahead: i64| Times {
            objects: (0..20)
                .map(|n| {
                    let newest = hour(n) + 59 * 60_000;
                    (
                        Some(hour(n + 1) + ahead),
                        vec![Some(hour(n)), None, Some(newest)],
                    )
                })
                .collect(),
        };
        for (ahead, hours) in [(0, 0), (hour(9), 9), (hour(-5), -5), (600_000, 0)] {
            assert_eq!(times(ahead).hours_behind(), Some(hours), "{ahead}");
        }
        assert_eq!(times(hour(100)).hours_behind(), None);
        for (hours, zone) in [(9, "Etc/GMT-9"), (-5, "Etc/GMT+5"), (0, "UTC")] {
            assert_eq!(offset_zone(hours), zone);
            assert!(zone.parse::<crate::time::Zone>().is_ok());
        }
    }
}
