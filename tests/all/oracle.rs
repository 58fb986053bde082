//! Whole runs against an oracle that shares no code with them. Events and rules are random. Framings
//! and codecs are mixed. Events are dealt to raw objects at random, and absorbed by one run or by several.

mod case;
mod invent;
mod lives;
mod verdicts;

use std::collections::BTreeMap;

use chrono::NaiveDate;
use chrono_tz::Tz;
use rand::seq::SliceRandom;
use rawmart::config::{self, Overrides};
use rawmart::run::{self, Options, RunError, RunOutcome, RunSummary};
use rawmart::store::StoreSettings;

use crate::project::{Lake, Project, Row, settle};
use crate::small::context;
use case::{Case, MARTS};
use invent::{CONDITIONS, KEYS, KeyChoice, encode};
use lives::live;
use verdicts::{Event, Mode, Object, Rule, verdicts};

/// Runs rawmart over the objects that are there, in this process.
fn absorb(project: &Project, threads: usize, number: usize) -> RunSummary {
    let settings = StoreSettings::default();
    invoke(project, threads, number, &Options::default(), settings).unwrap()
}

fn invoke(
    project: &Project,
    threads: usize,
    number: usize,
    options: &Options,
    store: StoreSettings,
) -> Result<RunSummary, RunError> {
    let overrides = Overrides {
        config: Some(project.path("rawmart.toml")),
        memory: Some("256MiB".to_owned()),
        threads: Some(threads),
        ..Overrides::default()
    };
    let job = config::load(&overrides, &|_| None, &project.path("")).unwrap();
    let now = 1_700_000_000 + 3_600 * number as i64;
    let options = Options {
        marts: true,
        ..options.clone()
    };
    let context = context(&format!("run-{number}"), now, store);
    settle(&job.lake);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(run::run(&job, &options, &context))
}

/// Absorbs a case in one run on one thread, and in several runs on three threads with other framings of its
/// objects.
fn examine(seed: u64, count: usize, keys: &[KeyChoice]) {
    let (case, mut random) = Case::new(seed, count, keys);
    let once = case.project(&case.rules);
    for object in &case.objects {
        let bytes = encode(&mut random, &object.records);
        once.write(&format!("raw/{}", object.key), bytes);
    }
    let summary = absorb(&once, 1, 0);
    let lake = once.lake();
    case.check(&lake, &summary);
    assert_eq!(absorb(&once, 3, 1).outcome, RunOutcome::NothingNew);
    assert!(once.lake().0 == lake.0, "seed {seed}: run again wrote");

    let parts = case.project(&case.rules);
    let mut order: Vec<&Object> = case.objects.iter().collect();
    order.shuffle(&mut random);
    let runs = order.len().min(3);
    let mut summary = None;
    for (number, part) in order.chunks(order.len().div_ceil(runs)).enumerate() {
        for object in part {
            let bytes = encode(&mut random, &object.records);
            parts.write(&format!("raw/{}", object.key), bytes);
        }
        summary = Some(absorb(&parts, 3, number));
    }
    let in_parts = parts.lake();
    case.check(&in_parts, &summary.unwrap());
    same_rows(&lake, &in_parts, seed);
}

/// P1: asserts that two lakes have the same rows in all tables. The columns that depend on the framing of raw objects
/// are left out, and so are empty files.
fn same_rows(a: &Lake, b: &Lake, seed: u64) {
    let sources = ["app", "app_duplicates", "app_rejects"].into_iter();
    for table in sources.chain(MARTS.map(|(name, _)| name)) {
        let rows = |lake: &Lake| -> BTreeMap<String, Vec<Row>> {
            let mut files: BTreeMap<String, Vec<Row>> = lake
                .files(table)
                .into_iter()
                .filter(|(_, rows)| !rows.is_empty())
                .collect();
            for row in files.values_mut().flatten() {
                row.remove("raw_offset");
                row.remove("raw_bytes");
                row.remove("raw_text");
                row.remove("detail");
            }
            files
        };
        assert!(
            rows(a) == rows(b),
            "seed {seed}: {table} depends on how it was split"
        );
    }
}

#[test]
fn any_life_of_a_lake_ends_as_one_run_does() {
    for seed in 300..340 {
        live(seed, 100 + 13 * (seed as usize - 300));
    }
}

/// The full form. It takes about an hour.
#[test]
#[ignore = "an hour: a thousand lives, where CI takes forty"]
fn a_thousand_lives_of_a_lake() {
    for seed in 1_000..2_000 {
        live(seed, 50 + seed as usize % 700);
    }
}

#[test]
fn small_lakes_are_what_the_oracle_says() {
    for seed in 0..24 {
        examine(seed, 150 + 37 * seed as usize, &KEYS);
    }
}

#[test]
fn lakes_of_ten_thousand_events_are_what_the_oracle_says() {
    for (seed, count) in [(100, 10_000), (101, 12_000), (102, 10_000), (103, 20_000)] {
        examine(seed, count, &KEYS);
    }
}

#[test]
fn byte_identical_records_are_what_the_oracle_says() {
    let keys: Vec<KeyChoice> = KEYS[8..].to_vec();
    for seed in 200..208 {
        examine(seed, 600, &keys);
    }
}

/// The worked example of a window of 30 s, for the oracle itself.
#[test]
fn the_oracle_knows_the_worked_example() {
    let kept = |mode: Mode| -> Vec<i64> {
        let events: Vec<Event> = [0, 20, 45, 70, 101]
            .map(|seconds| Event {
                time: seconds * 1_000,
                id: Some("a".to_owned()),
                kind: None,
                user: None,
                page: None,
                n: None,
                text: String::new(),
            })
            .to_vec();
        let rule = Rule {
            toml: String::new(),
            key: KEYS[0].1,
            when: CONDITIONS[0].1,
            mode,
            within: 30_000,
            since: NaiveDate::MIN,
            until: NaiveDate::MAX,
        };
        let verdicts = verdicts(&events, &[rule], Tz::UTC);
        let kept = events.iter().zip(verdicts).filter(|(_, v)| v.is_none());
        kept.map(|(event, _)| event.time / 1_000).collect()
    };
    assert_eq!(kept(Mode::Throttle), [0, 45, 101]);
    assert_eq!(kept(Mode::Gap), [0, 101]);
    assert_eq!(kept(Mode::GapLast), [70, 101]);
    assert_eq!(kept(Mode::Tumbling), [0, 45, 70, 101]);
}
