//! Verdicts against an oracle of a few lines, on random narrow rows.

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::config::{Mode, Rule};
use crate::event::{PartitionBy, Slicing};
use crate::time::TimeUnit;

const MODES: [Mode; 4] = [Mode::Throttle, Mode::Gap, Mode::GapLast, Mode::Tumbling];

fn rule(mode: Mode, within_ms: i64) -> Rule {
    Rule {
        name: format!("{mode:?}"),
        key: vec!["id".to_owned()],
        when: None,
        within_ms,
        mode,
        since: None,
        until: None,
    }
}

fn slicing() -> Slicing {
    Slicing {
        timezone: "Asia/Seoul".parse().unwrap(),
        by: PartitionBy::Day,
        slice_ms: 3_600_000,
    }
}

/// An event: its time, its id, and its key under every rule that concerns it.
#[derive(Debug, Clone)]
struct Narrow {
    time: i64,
    id: EventId,
    keys: Vec<Option<u64>>,
}

/// Each dropped event with the event that displaced it and the index of the rule, in the words of the
/// specification.
fn oracle(
    events: &[Narrow],
    rules: &[Rule],
    per_ms: i64,
) -> BTreeMap<(i64, EventId), (EventId, u64)> {
    let mut dropped = BTreeMap::new();
    for (index, rule) in rules.iter().enumerate() {
        let mut keys: BTreeMap<u64, BTreeSet<(i64, EventId)>> = BTreeMap::new();
        for event in events {
            let order = (event.time, event.id);
            if let (Some(key), false) = (event.keys[index], dropped.contains_key(&order)) {
                keys.entry(key).or_default().insert(order);
            }
        }
        let within = rule.within_ms * per_ms;
        for all in keys.into_values() {
            let all: Vec<_> = all.into_iter().collect();
            let mut kept: Vec<(i64, EventId)> = Vec::new();
            for (i, &(time, id)) in all.iter().enumerate() {
                let displaced_by = match rule.mode {
                    Mode::Throttle => kept.iter().find(|k| time - k.0 <= within),
                    Mode::Gap if i > 0 && time - all[i - 1].0 <= within => kept.last(),
                    Mode::Gap => None,
                    Mode::GapLast => all.get(i + 1).filter(|next| next.0 - time <= within),
                    Mode::Tumbling => all[..i]
                        .iter()
                        .find(|first| first.0.div_euclid(within) == time.div_euclid(within)),
                };
                match displaced_by {
                    Some(&(_, by)) => {
                        dropped.insert((time, id), (by, index as u64));
                    }
                    None => kept.push((time, id)),
                }
            }
        }
    }
    dropped
}

/// The verdicts on events that are dealt to `parts` parts and several sorters each.
fn decide(
    events: &[Narrow],
    rules: &[Rule],
    unit: TimeUnit,
    parts: u64,
    memory: usize,
) -> Vec<DroppedRow> {
    let folder = tempfile::tempdir().unwrap();
    let mut rows: Vec<Vec<Vec<Sorter<4>>>> = Vec::new();
    for index in 0..rules.len() {
        let sorter = || Sorter::new(folder.path(), memory);
        let mut dealt: Vec<Vec<Sorter<4>>> = (0..parts).map(|_| vec![sorter(), sorter()]).collect();
        for (i, event) in events.iter().enumerate() {
            if let Some(key) = event.keys[index] {
                let row = [key, key ^ 77, sortable(event.time), event.id.0];
                dealt[(key % parts) as usize][i % 2].push(row).unwrap();
            }
        }
        rows.push(dealt);
    }
    let mut records: Vec<u64> = Vec::new();
    for event in events {
        let object = event.id.object() as usize;
        records.resize(records.len().max(object + 1), 0);
        records[object] = records[object].max(event.id.record().into());
    }
    let earlier = Dropped::new(records.into_iter().map(Some));
    let mut sorted = super::decide(
        rules,
        rows,
        &earlier,
        &Places::new(slicing(), unit),
        folder.path(),
        memory,
    )
    .unwrap();
    let mut dropped = Vec::new();
    while let Some(row) = sorted.pop().unwrap() {
        dropped.push(row);
    }
    dropped
}

fn events(random: &mut ChaCha8Rng, count: usize, rules: usize, per_ms: i64) -> Vec<Narrow> {
    let span = *[2_000, 100_000, 200_000_000]
        .get(random.random_range(0..3))
        .unwrap();
    let keys = random.random_range(1..=1 + count as u64 / 10);
    let mut records = [0; 5];
    let mut events: Vec<Narrow> = (0..count)
        .map(|_| {
            let object = random.random_range(0..5);
            records[object] += 1;
            Narrow {
                // Times before and after 1970, and times between milliseconds where the unit is finer.
                time: random.random_range(-span..span) * per_ms + random.random_range(0..per_ms),
                id: EventId::new(object as u32, records[object]),
                keys: (0..rules)
                    .map(|_| {
                        let key = random.random_range(0..keys);
                        (!random.random_bool(0.1)).then_some(key)
                    })
                    .collect(),
            }
        })
        .collect();
    // Equal times and the edges of windows.
    for i in 1..count {
        if random.random_bool(0.3) {
            let step = [0, 1_000, 30_000][random.random_range(0..3)] * per_ms;
            events[i].time = events[i - 1].time + step + random.random_range(-1..=1);
            events[i].keys = events[i - 1].keys.clone();
        }
    }
    events.shuffle(random);
    events
}

#[test]
fn verdicts_are_what_the_oracle_says() {
    for seed in 0..60 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (unit, per_ms) = match random.random_bool(0.5) {
            true => (TimeUnit::Ms, 1),
            false => (TimeUnit::Us, 1_000),
        };
        let rules: Vec<Rule> = (0..random.random_range(1..=4))
            .map(|_| {
                let mode = MODES[random.random_range(0..4)];
                let least = usize::from(mode == Mode::Tumbling);
                let within = [0, 1, 1_000, 30_000, 90_000_000][random.random_range(least..5)];
                rule(mode, within)
            })
            .collect();
        // A sorter holds at least 1,024 rows, so only the larger cases spill.
        let count = if seed % 6 == 0 {
            8_000
        } else {
            random.random_range(0..900)
        };
        let events = events(&mut random, count, rules.len(), per_ms);
        let expected = oracle(&events, &rules, per_ms);

        for (parts, memory) in [(1, usize::MAX), (3, 0)] {
            let dropped = decide(&events, &rules, unit, parts, memory);
            assert!(
                dropped.is_sorted(),
                "seed {seed}: not in the order of events"
            );
            let mut places = Places::new(slicing(), unit);
            let found: BTreeMap<_, _> = dropped
                .iter()
                .map(|[place, bits, id, kept, rule]| {
                    let time = from_sortable(*bits);
                    assert_eq!(*place, places.of(time), "seed {seed}");
                    ((time, EventId(*id)), (EventId(*kept), *rule))
                })
                .collect();
            assert_eq!(found.len(), dropped.len(), "seed {seed}: dropped twice");
            assert_eq!(found, expected, "seed {seed}, {parts} parts");
        }
    }
}

/// The time line of the drawing in the documentation of the room, in seconds.
#[test]
fn the_worked_example() {
    for (mode, kept) in [
        (Mode::Throttle, &[0, 45, 101][..]),
        (Mode::Gap, &[0, 101]),
        (Mode::GapLast, &[70, 101]),
        (Mode::Tumbling, &[0, 45, 70, 101]),
    ] {
        let times = [0, 20, 45, 70, 101];
        let events: Vec<Narrow> = (1..)
            .zip(times)
            .map(|(record, time)| Narrow {
                time: time * 1_000,
                id: EventId::new(0, record),
                keys: vec![Some(1)],
            })
            .collect();
        let dropped = decide(&events, &[rule(mode, 30_000)], TimeUnit::Ms, 1, 0);
        let dropped: Vec<i64> = dropped
            .iter()
            .map(|row| from_sortable(row[1]) / 1_000)
            .collect();
        let left: Vec<i64> = times.into_iter().filter(|t| !dropped.contains(t)).collect();
        assert_eq!(left, kept, "{mode:?}");
    }
}

/// A difference that equals the window is within it, in every mode that has a distance.
#[test]
fn windows_are_inclusive() {
    for mode in [Mode::Throttle, Mode::Gap, Mode::GapLast] {
        for (apart, duplicates) in [(0, 1), (30_000, 1), (30_001, 0)] {
            let events = [1, 2].map(|record| Narrow {
                time: i64::from(record - 1) * apart,
                id: EventId::new(0, record),
                keys: vec![Some(1)],
            });
            let dropped = decide(&events, &[rule(mode, 30_000)], TimeUnit::Ms, 1, 0);
            assert_eq!(dropped.len(), duplicates, "{mode:?} {apart}");
        }
    }
}

/// Without a bit the event would count as kept, and a later rule could drop it a second time.
#[test]
fn an_event_of_an_unknown_object_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    for (object, unknown) in [(0, false), (1, true), (2, true)] {
        let mut rows = Sorter::new(folder.path(), 1 << 16);
        for (time, id) in [(0, EventId::new(0, 1)), (1, EventId::new(object, 2))] {
            rows.push([1, 2, sortable(time), id.0]).unwrap();
        }
        let earlier = Dropped::new([Some(2), None].into_iter());
        let rules = [rule(Mode::Throttle, 1_000)];
        let rows = vec![vec![vec![rows]]];
        let unit = TimeUnit::Ms;
        super::decide(
            &rules,
            rows,
            &earlier,
            &Places::new(slicing(), unit),
            folder.path(),
            1 << 16,
        )
        .unwrap();
        assert_eq!(earlier.met_unknown(), unknown, "object {object}");
    }
}

#[test]
fn times_of_another_batch_are_refused() {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, RecordBatch, StringArray};

    let ids: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let batch = RecordBatch::try_from_iter([("id", ids)]).unwrap();
    let rules = [rule(Mode::Throttle, 1_000)];
    let hashing = Hashing::new([1, 2]);
    let mut keys =
        Keys::compile(&rules, &batch.schema(), slicing(), TimeUnit::Ms, &hashing).unwrap();
    let mut seen = 0;
    keys.each(&batch, Some(&[1, 2]), |_, _, _| seen += 1)
        .unwrap();
    assert_eq!(seen, 2);
    let error = keys.each(&batch, Some(&[1]), |_, _, _| ()).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("2 events have 1 times; this is a defect of rawmart"),
        "{error}"
    );
}
