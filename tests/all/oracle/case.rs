//! One random case, and the content that its lake must have.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, TimeDelta};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rawmart::run::RunSummary;

use super::invent::{KeyChoice, Layout, MOMENTS, events, objects, rule};
use super::verdicts::{Event, Object, Record, Rule, date_of, verdicts};
use crate::project::{Lake, Project, Row, cell};

/// One random case: the settings, the rules and the raw objects, without the runs.
pub(super) struct Case {
    pub(super) seed: u64,
    pub(super) layout: Layout,
    /// A date with events.
    pub(super) middle: NaiveDate,
    pub(super) rules: Vec<Rule>,
    pub(super) objects: Vec<Object>,
}

/// Marts of every reach, and marts that read them.
pub(super) const MARTS: [(&str, &str); 11] = [
    (
        "daily",
        "-- partition: dt\n\
         SELECT count(*) AS n, count(DISTINCT page) AS pages, dt FROM app GROUP BY dt",
    ),
    (
        "so_far",
        "-- partition: dt\n-- reads: app back all\n\
         SELECT count(*) AS n, day.dt FROM (SELECT DISTINCT dt FROM app) AS day\n\
         JOIN app ON app.dt <= day.dt GROUP BY day.dt",
    ),
    // The SELECT names no distance, so the mart sees exactly the dates in its reach.
    (
        "around",
        "-- partition: dt\n-- reads: daily back 2d ahead 1d\n\
         SELECT CAST(sum(near.n) AS bigint) AS n, daily.dt FROM daily CROSS JOIN daily AS near\n\
         GROUP BY daily.dt",
    ),
    ("total", "SELECT count(*) AS n FROM app"),
    (
        "share",
        "-- partition: dt\n-- reads: app_duplicates all\n\
         SELECT daily.n, total.n AS whole, day.duplicates, daily.dt FROM daily CROSS JOIN total\n\
         CROSS JOIN (SELECT count(*) AS duplicates FROM app_duplicates) AS day",
    ),
    // For many dates it has no rows. A mart that reads it alone has no partition for such a date.
    (
        "some",
        "-- partition: dt\n\
         SELECT count(*) AS n, dt FROM app WHERE n = 4 AND kind = 'view' GROUP BY dt",
    ),
    (
        "last_of_some",
        "-- partition: dt\n-- reads: some back 0d\nSELECT max(n) AS n, max(dt) AS dt FROM some",
    ),
    // The mart carries rows to the next date, which may have no partition.
    (
        "some_carried",
        "-- partition: dt\n-- reads: some back 1d\n\
         SELECT CAST(sum(n) AS bigint) AS n, dt FROM (SELECT n, dt FROM some UNION ALL\n\
         SELECT n, CAST(CAST(dt AS date) + INTERVAL '1 day' AS date) FROM some) AS both GROUP BY dt",
    ),
    // The mart has dates, and is built whole.
    (
        "days",
        "-- partition: dt\n-- reads: app all\nSELECT count(*) AS n, dt FROM app GROUP BY dt",
    ),
    ("rare", RARE[0]),
    (
        "beside_rare",
        "-- partition: dt\n\
         SELECT days.n, rare.n AS rare, days.dt FROM days LEFT JOIN rare ON rare.dt = days.dt",
    ),
];

/// The SQL of the mart `rare` at the end, and at other times.
pub(super) const RARE: [&str; 4] = [
    "-- partition: dt\n\
     SELECT count(*) AS n, dt FROM app WHERE n = 3 AND kind = 'click' GROUP BY dt",
    "SELECT count(*) AS n, dt FROM app WHERE n = 3 AND kind = 'click' GROUP BY dt",
    "-- partition: dt\n\
     SELECT CAST(count(*) AS varchar) AS n, dt FROM app WHERE n = 3 AND kind = 'click' GROUP BY dt",
    "-- partition: dt\n\
     SELECT count(*) AS n, dt FROM app WHERE n = 5 AND kind = 'view' GROUP BY dt",
];

/// A row: object, record, time, and the columns of the event.
pub(super) type Known = (String, i64, i64, [String; 5]);

impl Case {
    pub(super) fn new(seed: u64, count: usize, keys: &[KeyChoice]) -> (Self, ChaCha8Rng) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let layout = Layout::random(&mut random);
        let moment = MOMENTS.choose(&mut random).unwrap();
        let middle = DateTime::parse_from_rfc3339(moment).unwrap();
        let middle = middle.timestamp_millis();
        let first = seed as usize;
        let date = date_of(middle, layout.zone);
        let rules = (0..random.random_range(1..=3))
            .map(|i| rule(&mut random, i, first + i, keys, date))
            .collect();
        let spread = *[20_000, 3_600_000, 40_000_000, 300_000_000]
            .choose(&mut random)
            .unwrap();
        let events = events(&mut random, count, spread, middle);
        let pieces = random.random_range(1..=12);
        let objects = objects(&mut random, &events, pieces);
        let case = Self {
            seed,
            layout,
            middle: date,
            rules,
            objects,
        };
        (case, random)
    }

    /// A project under these rules.
    pub(super) fn project(&self, rules: &[Rule]) -> Project {
        let project = Project::with(self.toml_with(rules), &MARTS);
        project.write("raw/.nothing-yet", "");
        project
    }

    pub(super) fn toml(&self) -> String {
        self.toml_with(&self.rules)
    }

    pub(super) fn toml_with(&self, rules: &[Rule]) -> String {
        let rules: String = rules.iter().map(|rule| rule.toml.as_str()).collect();
        format!(
            "lake = \"lake\"\ntimezone = \"{}\"\n\
             [sources.app]\nraw = \"raw\"\nevent_time = \"at\"\nmax_rejects = \"100%\"\n\
             partition_by = \"{}\"\nslice = \"{}\"\n\
             [sources.app.columns]\nid = \"string\"\nkind = \"string\"\nat = \"timestamp\"\n\
             user = \"string\"\nn = \"bigint\"\n\
             page = {{ type = \"string\", path = \"ctx.page\" }}\n{rules}\
             [marts]\npath = \"sql\"\n",
            self.layout.zone.name(),
            if self.layout.hours { "hour" } else { "day" },
            self.layout.slice,
        )
    }

    /// The raw objects' events in their total order: time, object as bytes, record.
    pub(super) fn ordered(&self) -> Vec<(&str, i64, &Event)> {
        let mut events = Vec::new();
        for object in &self.objects {
            for (number, record) in (1..).zip(&object.records) {
                if let Record::Event(event) = record {
                    events.push((object.key.as_str(), number, event));
                }
            }
        }
        events.sort_by_key(|(object, number, event)| (event.time, *object, *number));
        events
    }

    /// Asserts that this lake has the kept events, duplicates and rejects that the oracle expects, each in its file.
    pub(super) fn check(&self, lake: &Lake, summary: &RunSummary) {
        self.check_under(&self.rules, lake, summary);
    }

    pub(super) fn check_under(&self, rules: &[Rule], lake: &Lake, summary: &RunSummary) {
        let seed = self.seed;
        let ordered = self.ordered();
        let events: Vec<Event> = ordered.iter().map(|(.., event)| (*event).clone()).collect();
        let verdicts = verdicts(&events, rules, self.layout.zone);
        let known = |i: usize| -> Known {
            let (object, number, event) = ordered[i];
            (object.to_owned(), number, event.time, columns_of(event))
        };
        let mut kept = Vec::new();
        let mut duplicates = Vec::new();
        for (i, verdict) in verdicts.iter().enumerate() {
            match verdict {
                None => kept.push(known(i)),
                Some((rule, by)) => {
                    let (object, number, _) = ordered[*by];
                    let displaced = (format!("rule_{rule}"), object.to_owned(), number);
                    duplicates.push((known(i), displaced));
                }
            }
        }
        let mut found = self.placed(lake, "app", row_known);
        found.sort();
        kept.sort();
        self.check_marts(lake, &kept, duplicates.len());
        assert!(found == kept, "seed {seed}: {}", apart(&found, &kept));
        let mut found = self.placed(lake, "app_duplicates", |row| {
            let number = cell(row, "kept_record").parse().unwrap();
            let displaced = (cell(row, "rule"), cell(row, "kept_object"), number);
            (row_known(row), displaced)
        });
        found.sort();
        duplicates.sort();
        assert!(
            found == duplicates,
            "seed {seed}: {}",
            apart(&found, &duplicates)
        );
        pointers_end_among_the_kept(lake, seed);

        let rejects = self.check_rejects(lake);
        let source = &summary.sources["app"];
        assert_eq!(source.kept, kept.len() as u64, "seed {seed}");
        assert_eq!(source.events, events.len() as u64, "seed {seed}");
        assert_eq!(
            source.records,
            (events.len() + rejects) as u64,
            "seed {seed}"
        );
    }

    /// Asserts that this lake has the rejects that it must have. The result is their number.
    fn check_rejects(&self, lake: &Lake) -> usize {
        let mut rejects = Vec::new();
        for object in &self.objects {
            for (number, record) in (1..).zip(&object.records) {
                if let Record::Reject(_, reason) = record {
                    let number: i64 = number;
                    rejects.push(vec![
                        object.key.clone(),
                        number.to_string(),
                        (*reason).to_owned(),
                    ]);
                }
            }
        }
        rejects.sort();
        let found = lake.cells("app_rejects", &["raw_object", "raw_record", "reason"]);
        assert!(
            found == rejects,
            "seed {}: {}",
            self.seed,
            apart(&found, &rejects)
        );
        rejects.len()
    }

    /// Asserts that the marts have the rows that follow from the kept events.
    pub(super) fn check_marts(&self, lake: &Lake, kept: &[Known], duplicates: usize) {
        let mut days: BTreeMap<NaiveDate, Vec<&Known>> = BTreeMap::new();
        for event in kept {
            let date = date_of(event.2, self.layout.zone);
            days.entry(date).or_default().push(event);
        }
        let count = |from: NaiveDate, to: NaiveDate| -> usize {
            days.range(from..=to).map(|(_, events)| events.len()).sum()
        };
        let expect = |mart: &str, columns: &[&str], of: &dyn Fn(NaiveDate) -> Vec<usize>| {
            let mut expected: Vec<Vec<String>> = days
                .keys()
                .map(|date| (date, of(*date)))
                .filter(|(_, cells)| !cells.is_empty())
                .map(|(date, cells)| {
                    let cells = cells.into_iter().map(|n| n.to_string());
                    std::iter::once(date.to_string()).chain(cells).collect()
                })
                .collect();
            expected.sort();
            let columns: Vec<&str> = ["dt"].iter().chain(columns).copied().collect();
            let found = lake.cells(mart, &columns);
            let apart = apart(&found, &expected);
            assert!(found == expected, "seed {}: {mart}: {apart}", self.seed);
        };
        let day = |date: NaiveDate| count(date, date);
        expect("daily", &["n", "pages"], &|date| {
            let pages = days[&date].iter().map(|(.., [_, _, _, page, _])| page);
            let pages: BTreeSet<&String> = pages.filter(|page| !page.is_empty()).collect();
            vec![day(date), pages.len()]
        });
        expect("so_far", &["n"], &|date| vec![count(NaiveDate::MIN, date)]);
        let days_later = |date: NaiveDate, days| date + TimeDelta::days(days);
        expect("around", &["n"], &|date| {
            vec![count(days_later(date, -2), days_later(date, 1))]
        });
        let total = kept.len();
        assert_eq!(lake.cells("total", &["n"]), [[total.to_string()]]);
        expect("share", &["n", "whole", "duplicates"], &|date| {
            vec![day(date), total, duplicates]
        });
        let of = |date: NaiveDate, n: &str, kind: &str| -> usize {
            let events = days.get(&date).into_iter().flatten();
            let meets = |event: &&&Known| event.3[1] == kind && event.3[4] == n;
            events.filter(meets).count()
        };
        let some = |date| of(date, "4", "view");
        let where_some = |date, cells: usize| if some(date) > 0 { vec![cells] } else { vec![] };
        expect("some", &["n"], &|date| where_some(date, some(date)));
        expect("last_of_some", &["n"], &|date| where_some(date, some(date)));
        expect("some_carried", &["n"], &|date| {
            where_some(date, some(date) + some(days_later(date, -1)))
        });
        expect("days", &["n"], &|date| vec![day(date)]);
        let rare = |date| of(date, "3", "click");
        expect("rare", &["n"], &|date| match rare(date) {
            0 => vec![],
            n => vec![n],
        });
        let beside = lake.cells("beside_rare", &["dt", "n", "rare"]);
        let mut expected: Vec<Vec<String>> = days
            .keys()
            .map(|&date| {
                let rare = match rare(date) {
                    0 => String::new(),
                    n => n.to_string(),
                };
                vec![date.to_string(), day(date).to_string(), rare]
            })
            .collect();
        expected.sort();
        assert!(
            beside == expected,
            "seed {}: {}",
            self.seed,
            apart(&beside, &expected)
        );
    }

    /// The rows of a table; asserts that each lies in its own file, and files are sorted.
    pub(super) fn placed<T>(&self, lake: &Lake, table: &str, of: impl Fn(&Row) -> T) -> Vec<T> {
        let mut all = Vec::new();
        for (key, rows) in lake.files(table) {
            let mut last = i64::MIN;
            for row in &rows {
                let time: i64 = cell(row, "at").parse().unwrap();
                let file = format!("{table}/{}", self.layout.file(time));
                assert_eq!(key, file, "seed {}: {row:?}", self.seed);
                assert!(last <= time, "seed {}: {key} is not sorted", self.seed);
                last = time;
                all.push(of(row));
            }
        }
        all
    }
}

pub(super) fn columns_of(event: &Event) -> [String; 5] {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    [
        text(&event.id),
        text(&event.kind),
        text(&event.user),
        text(&event.page),
        event.n.map(|n| n.to_string()).unwrap_or_default(),
    ]
}

pub(super) fn row_known(row: &Row) -> Known {
    let number = |name| cell(row, name).parse().unwrap();
    (
        cell(row, "raw_object"),
        number("raw_record"),
        number("at"),
        ["id", "kind", "user", "page", "n"].map(|name| cell(row, name)),
    )
}

pub(super) fn pointers_end_among_the_kept(lake: &Lake, seed: u64) {
    let id = |row: &Row, object, record| (cell(row, object), cell(row, record));
    let kept: BTreeSet<_> = lake
        .rows("app")
        .iter()
        .map(|row| id(row, "raw_object", "raw_record"))
        .collect();
    let next: BTreeMap<_, _> = lake
        .rows("app_duplicates")
        .iter()
        .map(|row| {
            (
                id(row, "raw_object", "raw_record"),
                id(row, "kept_object", "kept_record"),
            )
        })
        .collect();
    for start in next.keys() {
        let mut at = start;
        let mut steps = 0;
        while let Some(by) = next.get(at) {
            at = by;
            steps += 1;
            assert!(
                steps <= next.len(),
                "seed {seed}: {start:?} leads in a circle"
            );
        }
        assert!(kept.contains(at), "seed {seed}: {start:?} ends at {at:?}");
    }
}

/// The differences of two sorted lists.
pub(super) fn apart<T: Ord + std::fmt::Debug>(found: &[T], expected: &[T]) -> String {
    let (f, e): (BTreeSet<_>, BTreeSet<_>) = (found.iter().collect(), expected.iter().collect());
    format!(
        "{} rows, expected {}\n surplus {:?}\n lacking {:?}",
        found.len(),
        expected.len(),
        f.difference(&e).take(3).collect::<Vec<_>>(),
        e.difference(&f).take(3).collect::<Vec<_>>(),
    )
}
