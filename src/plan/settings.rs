//! Finds out which parts of the tables a change of settings concerns.
//!
//! ```text
//! settings of the log ─┐          nothing: only what comes is made in the new way
//! settings of the job ─┼─▶ Needs  event dates whose duplicates are to be decided again
//! published dates ─────┘          event dates that are to be read from raw again
//!                                 everything from raw: rows would lie in other files, or types differ
//! ```

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;

use crate::config::{Job, Mode, Rule, Source};
use crate::event::{ENVELOPE, EXTRA};
use crate::ledger::{ColumnSettings, Dates, DecodeSettings, RuleMode, RuleSettings, Settings};

/// The configured settings that the tables of a source follow from.
pub fn settings(job: &Job, source: &Source) -> Settings {
    Settings {
        decode: DecodeSettings::from(&source.decode),
        rules: source.rules.iter().map(rule).collect(),
        slicing: job.slicing(source),
        layout: source.layout.clone(),
        layout_timezone: source.layout_timezone,
        stale_rules: Vec::new(),
        stale_columns: Vec::new(),
        unfilled: Some(BTreeMap::new()),
    }
}

fn rule(rule: &Rule) -> RuleSettings {
    RuleSettings {
        name: rule.name.clone(),
        key: rule.key.clone(),
        when: rule.when.clone(),
        within_ms: rule.within_ms,
        mode: match rule.mode {
            Mode::Throttle => RuleMode::Throttle,
            Mode::Gap => RuleMode::Gap,
            Mode::GapLast => RuleMode::GapLast,
            Mode::Tumbling => RuleMode::Tumbling,
        },
        since: rule.since,
        until: rule.until,
    }
}

/// The parts of a source that must be rebuilt before new events may be added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// The reasons why the whole source must be read from raw.
    pub whole: Vec<String>,
    /// The event dates that were decoded with other columns, and the reasons.
    pub columns: (Vec<Dates>, Vec<String>),
    /// The event dates that were decided by other rules, and the reasons.
    pub rules: (Vec<Dates>, Vec<String>),
    /// The columns that are null on these event dates because they were added later. They need no rebuild,
    /// because `extra` keeps their values. `None` where the log does not say which columns came later.
    pub unfilled: Option<BTreeMap<String, Vec<Dates>>>,
}

impl Needs {
    /// Compares the settings of the log with the settings of the job. `published` are the event dates with
    /// rows, in order. `reads` are the columns that each rule of the job reads.
    pub fn new(
        known: &Settings,
        now: &Settings,
        published: &[NaiveDate],
        reads: &[BTreeSet<String>],
    ) -> Self {
        let mut needs = Self {
            unfilled: unfilled(known, now, published),
            ..Self::default()
        };
        needs.look_at_places(known, now);
        needs.look_at_columns(known, now);
        let mut decode = decode_changes(known, now);
        let is_stale = |dates: &[Dates], date: NaiveDate| dates.iter().any(|d| d.holds(date));
        let mut stale = BTreeSet::new();
        for date in published {
            let asked = needs.asked_for(*date, &now.rules, reads);
            if !decode.is_empty() || is_stale(&known.stale_columns, *date) || !asked.is_empty() {
                stale.insert(*date);
            }
            needs.columns.1.extend(asked);
        }
        needs.columns.1.sort();
        needs.columns.1.dedup();
        needs.columns.0 = ranges(stale.into_iter(), published);
        decode.append(&mut needs.columns.1);
        needs.columns.1 = decode;
        let rules = published.iter().filter(|date| {
            is_stale(&known.stale_rules, **date)
                || effective(&known.rules, **date) != effective(&now.rules, **date)
        });
        needs.rules.0 = ranges(rules.copied(), published);
        if !needs.rules.0.is_empty() {
            needs.rules.1.push(rule_changes(&known.rules, &now.rules));
        }
        if !needs.columns.0.is_empty() && needs.columns.1.is_empty() {
            needs
                .columns
                .1
                .push("the columns changed earlier".to_owned());
        }
        needs
    }

    pub fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.columns.0.is_empty() && self.rules.0.is_empty()
    }

    /// All reasons, in words.
    pub fn reasons(&self) -> String {
        let all = self
            .whole
            .iter()
            .chain(&self.columns.1)
            .chain(&self.rules.1);
        all.map(String::as_str).collect::<Vec<_>>().join("; ")
    }

    /// The reason why the null columns of a date must be filled: a rule that concerns the date reads them, or
    /// reads `extra`, which still holds their members.
    fn asked_for(
        &self,
        date: NaiveDate,
        rules: &[RuleSettings],
        reads: &[BTreeSet<String>],
    ) -> Vec<String> {
        let null = self.unfilled.iter().flatten();
        let null = null.filter(|(_, dates)| dates.iter().any(|dates| dates.holds(date)));
        let mut why = Vec::new();
        for (column, _) in null {
            let concerned = rules
                .iter()
                .zip(reads)
                .filter(|(rule, _)| concerns(rule, date));
            for (rule, reads) in concerned {
                let read = match () {
                    () if reads.contains(column) => "it",
                    () if reads.contains(EXTRA) => "`extra`, where its values are",
                    () => continue,
                };
                why.push(format!(
                    "column {column} is new, and the rule {} reads {read}",
                    rule.name
                ));
            }
        }
        why
    }

    fn look_at_places(&mut self, known: &Settings, now: &Settings) {
        let (was, is) = (known.slicing, now.slicing);
        if was.timezone != is.timezone {
            let (was, is) = (was.timezone, is.timezone);
            self.whole.push(format!("timezone is {is}, and was {was}"));
        }
        if was.by != is.by {
            self.whole.push("partition_by changed".to_owned());
        }
        if was.slice_ms != is.slice_ms {
            self.whole.push("slice changed".to_owned());
        }
        if known.decode.unit != now.decode.unit {
            self.whole.push("timestamp_unit changed".to_owned());
        }
        if known.decode.event_time != now.decode.event_time {
            self.whole
                .push("event_time names another column".to_owned());
        }
        // Other envelopes hold other records, also in raw objects that have no event today.
        if known.decode.unwrap != now.decode.unwrap {
            self.whole.push("unwrap changed".to_owned());
        }
        if (&known.layout, known.layout_timezone) != (&now.layout, now.layout_timezone) {
            self.whole
                .push("layout or layout_timezone changed".to_owned());
        }
    }

    fn look_at_columns(&mut self, known: &Settings, now: &Settings) {
        for was in &known.decode.columns {
            match find(&now.decode.columns, &was.name) {
                None => self.whole.push(format!("column {} is gone", was.name)),
                Some(is) if is.kind != was.kind => self.whole.push(format!(
                    "column {} is {}, and was {}",
                    was.name, is.kind, was.kind
                )),
                Some(_) => {}
            }
        }
        if known.decode.record_sha256 && !now.decode.record_sha256 {
            self.whole
                .push("no rule names record_sha256 any more".to_owned());
        }
    }
}

fn find<'a>(columns: &'a [ColumnSettings], name: &str) -> Option<&'a ColumnSettings> {
    columns.iter().find(|column| column.name == name)
}

/// The changes by which the same record would become another event, or a reject.
fn decode_changes(known: &Settings, now: &Settings) -> Vec<String> {
    let (was, is) = (&known.decode, &now.decode);
    let mut changes = Vec::new();
    for column in &is.columns {
        match find(&was.columns, &column.name) {
            // Older files keep its values in `extra`, so it is filled only if something needs it there.
            None if column.required || column.default.is_some() => changes.push(format!(
                "column {} is new, and not simply null where it is missing",
                column.name
            )),
            Some(before) if before != column && before.kind == column.kind => {
                changes.push(format!("column {} is read in another way", column.name));
            }
            _ => {}
        }
    }
    if is.record_sha256 && !was.record_sha256 {
        changes.push("a rule names record_sha256".to_owned());
    }
    let others = [
        ("naive_timezone", was.naive_timezone != is.naive_timezone),
        ("epoch_timezone", was.epoch_timezone != is.epoch_timezone),
        ("accept", was.accept != is.accept),
        ("on_type_error", was.on_type_error != is.on_type_error),
        ("a limit of records or objects", was.limits != is.limits),
    ];
    let others = others.into_iter().filter(|(_, changed)| *changed);
    changes.extend(others.map(|(what, _)| format!("{what} changed")));
    changes
}

/// The columns that are null on published dates because they were added later: the ones that the log knows, and
/// the new ones.
fn unfilled(
    known: &Settings,
    now: &Settings,
    published: &[NaiveDate],
) -> Option<BTreeMap<String, Vec<Dates>>> {
    let mut unfilled = BTreeMap::new();
    for column in &now.decode.columns {
        let is_new = find(&known.decode.columns, &column.name).is_none();
        let noted = known.unfilled.iter().flatten();
        let noted = noted.filter(|(name, _)| **name == column.name);
        let noted: Vec<Dates> = noted.flat_map(|(_, dates)| dates.clone()).collect();
        let null = published
            .iter()
            .filter(|date| is_new || noted.iter().any(|dates| dates.holds(**date)));
        let dates = ranges(null.copied(), published);
        if !dates.is_empty() && !column.required && column.default.is_none() {
            unfilled.insert(column.name.clone(), dates);
        }
    }
    (known.unfilled.is_some() || !unfilled.is_empty()).then_some(unfilled)
}

/// Whether a column that was added later can be taken out of the `extra` of stored events with the same result
/// as from raw. This is so if no other column holds its member or a part of it, and the member is not of the
/// envelope, which `extra` does not keep.
pub fn is_in_extra(column: &ColumnSettings, decode: &DecodeSettings) -> bool {
    let within = |a: &ColumnSettings, b: &ColumnSettings| a.path.starts_with(&b.path);
    let others = decode
        .columns
        .iter()
        .filter(|other| other.name != column.name);
    let apart = others.fold(true, |apart, other| {
        apart && !within(column, other) && !within(other, column)
    });
    let of_envelope = column.path.first().is_some_and(|name| name == ENVELOPE);
    apart
        && !of_envelope
        && !column.required
        && column.default.is_none()
        && column.name != decode.event_time
}

fn concerns(rule: &RuleSettings, date: NaiveDate) -> bool {
    rule.since.is_none_or(|since| since <= date) && rule.until.is_none_or(|until| date <= until)
}

/// The rules that concern the events of a date, without their bounds.
fn effective(rules: &[RuleSettings], date: NaiveDate) -> Vec<RuleSettings> {
    rules
        .iter()
        .filter(|rule| concerns(rule, date))
        .map(|rule| RuleSettings {
            since: None,
            until: None,
            ..rule.clone()
        })
        .collect()
}

/// The rules that leave events up to a date as the rules `was` decided them, and decide later events by the
/// rules `is`: a rule that is gone or changed ends with the date, and one that came or changed begins after it.
pub fn rules_from(was: &[RuleSettings], is: &[RuleSettings], last: NaiveDate) -> Vec<RuleSettings> {
    let mut rules: Vec<RuleSettings> = Vec::new();
    let mut left = was;
    let ended = |rules: &mut Vec<RuleSettings>, gone: &[RuleSettings]| {
        let began = gone
            .iter()
            .filter(|rule| rule.since.is_none_or(|since| since <= last));
        rules.extend(began.map(|rule| RuleSettings {
            until: Some(rule.until.map_or(last, |until| until.min(last))),
            ..rule.clone()
        }));
    };
    let next = last.succ_opt().unwrap_or(last);
    for rule in is {
        if let Some(at) = left.iter().position(|other| other == rule)
            && let Some((gone, [same, rest @ ..])) = left.split_at_checked(at)
        {
            ended(&mut rules, gone);
            rules.push(same.clone());
            left = rest;
        } else if rule.until.is_none_or(|until| until >= next) {
            rules.push(RuleSettings {
                since: Some(rule.since.map_or(next, |since| since.max(next))),
                ..rule.clone()
            });
        }
    }
    ended(&mut rules, left);
    // Duplicates of the earlier rules have their names, so a later rule gets another name.
    let earlier: BTreeSet<&str> = was.iter().map(|rule| rule.name.as_str()).collect();
    let mut taken: BTreeSet<String> = rules.iter().map(|rule| rule.name.clone()).collect();
    for rule in &mut rules {
        let is_new = rule.since.is_some_and(|since| since > last) && !was.contains(rule);
        if is_new && earlier.contains(rule.name.as_str()) {
            let names = (2..).map(|n| format!("{}_{n}", rule.name));
            if let Some(name) = names.into_iter().find(|name| !taken.contains(name)) {
                taken.insert(name.clone());
                rule.name = name;
            }
        }
    }
    rules
}

/// A rule of the log as the configuration knows rules.
pub fn configured(rule: &RuleSettings) -> Rule {
    Rule {
        name: rule.name.clone(),
        key: rule.key.clone(),
        when: rule.when.clone(),
        within_ms: rule.within_ms,
        mode: match rule.mode {
            RuleMode::Throttle => Mode::Throttle,
            RuleMode::Gap => Mode::Gap,
            RuleMode::GapLast => Mode::GapLast,
            RuleMode::Tumbling => Mode::Tumbling,
        },
        since: rule.since,
        until: rule.until,
    }
}

fn rule_changes(was: &[RuleSettings], is: &[RuleSettings]) -> String {
    let named = |rules: &[RuleSettings], name: &str| rules.iter().any(|rule| rule.name == name);
    let mut names: Vec<&str> = is
        .iter()
        .filter(|rule| !was.contains(rule))
        .chain(was.iter().filter(|rule| !named(is, &rule.name)))
        .map(|rule| rule.name.as_str())
        .collect();
    names.dedup();
    match names.as_slice() {
        [] => "the rules or their order changed".to_owned(),
        names => format!("changed rules: {}", names.join(", ")),
    }
}

/// Dates as ranges. A range ends only where a published date between two dates is missing.
pub fn ranges(dates: impl Iterator<Item = NaiveDate>, published: &[NaiveDate]) -> Vec<Dates> {
    let mut ranges: Vec<(Dates, usize)> = Vec::new();
    for date in dates {
        let Ok(at) = published.binary_search(&date) else {
            continue;
        };
        match ranges.last_mut() {
            Some((range, last)) if *last + 1 == at => {
                range.to = date;
                *last = at;
            }
            _ => ranges.push((
                Dates {
                    from: date,
                    to: date,
                },
                at,
            )),
        }
    }
    ranges.into_iter().map(|(range, _)| range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{PartitionBy, Slicing};
    use crate::ledger::{AcceptSettings, LimitSettings, TypeErrorSetting};
    use crate::time::{TimeUnit, Zone};

    fn date(day: u32) -> NaiveDate {
        NaiveDate::from_ymd_opt(2019, 4, day).unwrap()
    }

    fn settings() -> Settings {
        let column = |name: &str, kind: &str| ColumnSettings {
            name: name.to_owned(),
            kind: kind.parse().unwrap(),
            path: vec![name.to_owned()],
            default: None,
            required: false,
            paths: BTreeMap::new(),
            coerce: false,
            time_formats: Vec::new(),
        };
        Settings {
            decode: DecodeSettings {
                columns: vec![column("id", "string"), column("at", "timestamp")],
                event_time: "at".to_owned(),
                unit: TimeUnit::Ms,
                naive_timezone: None,
                epoch_timezone: None,
                accept: AcceptSettings {
                    from_ms: 0,
                    ahead_ms: 0,
                },
                on_type_error: TypeErrorSetting::Reject,
                record_sha256: false,
                limits: LimitSettings::from(crate::event::Limits::default()),
                unwrap: Vec::new(),
            },
            rules: vec![RuleSettings {
                name: "redelivery".to_owned(),
                key: vec!["id".to_owned()],
                when: None,
                within_ms: 600_000,
                mode: RuleMode::Throttle,
                since: None,
                until: None,
            }],
            slicing: Slicing {
                timezone: "Asia/Seoul".parse().unwrap(),
                by: PartitionBy::Day,
                slice_ms: 86_400_000,
            },
            layout: None,
            layout_timezone: "UTC".parse().unwrap(),
            stale_rules: Vec::new(),
            stale_columns: Vec::new(),
            unfilled: Some(BTreeMap::new()),
        }
    }

    /// The keys of the rules in these tests are columns.
    fn compared(known: &Settings, now: &Settings) -> Needs {
        let reads = |rule: &RuleSettings| rule.key.iter().cloned().collect();
        let reads: Vec<_> = now.rules.iter().map(reads).collect();
        Needs::new(known, now, &[date(1), date(2), date(5)], &reads)
    }

    fn needs(change: impl FnOnce(&mut Settings)) -> Needs {
        let mut now = settings();
        change(&mut now);
        compared(&settings(), &now)
    }

    fn span(from: u32, to: u32) -> Dates {
        Dates {
            from: date(from),
            to: date(to),
        }
    }

    #[test]
    fn a_rule_asks_for_the_dates_that_it_concerns() {
        assert!(needs(|_| ()).is_empty());
        let all = needs(|now| now.rules[0].within_ms = 1);
        assert_eq!(all.rules.0, [span(1, 5)]);
        assert_eq!(all.reasons(), "changed rules: redelivery");
        // Bounds that change no published date.
        assert!(needs(|now| now.rules[0].since = Some(date(1))).is_empty());
        let since = needs(|now| now.rules[0].since = Some(date(2)));
        assert_eq!(since.rules.0, [span(1, 1)]);
        let added = needs(|now| {
            now.rules.push(RuleSettings {
                name: "clicks".to_owned(),
                since: Some(date(6)),
                ..now.rules[0].clone()
            });
        });
        assert!(added.is_empty());
        assert_eq!(needs(|now| now.rules.clear()).rules.0, [span(1, 5)]);
    }

    #[test]
    fn what_was_left_stale_stays_stale() {
        let mut known = settings();
        known.stale_rules = vec![span(2, 3)];
        let needs = compared(&known, &settings());
        assert_eq!(needs.rules.0, [span(2, 2)]);
        assert!(needs.columns.0.is_empty() && needs.whole.is_empty());
    }

    #[test]
    fn another_way_to_read_a_column_asks_for_a_rebuild_from_raw() {
        let changes: [fn(&mut Settings); 4] = [
            |now| now.decode.columns[0].coerce = true,
            |now| now.decode.columns[1].time_formats = vec!["%Y/%m/%d".to_owned()],
            |now| {
                let path = vec!["A".to_owned()];
                now.decode.columns[0].paths.insert("a".to_owned(), path);
            },
            |now| now.decode.epoch_timezone = Some(Zone(chrono_tz::Asia::Seoul)),
        ];
        for (change, why) in changes.into_iter().zip([
            "column id is read in another way",
            "column at is read in another way",
            "column id is read in another way",
            "epoch_timezone changed",
        ]) {
            let asked = needs(change);
            assert_eq!(asked.columns.1, [why]);
            assert!(!asked.columns.0.is_empty() && asked.whole.is_empty());
        }
    }

    #[test]
    fn a_new_nullable_column_asks_for_nothing() {
        let added = |required, default: Option<&str>, rule: bool| {
            needs(|now| {
                let mut column = now.decode.columns[0].clone();
                column.name = "os".to_owned();
                column.required = required;
                column.default = default.map(Into::into);
                now.decode.columns.push(column);
                if rule {
                    now.rules[0].key.push("os".to_owned());
                }
            })
        };
        let plain = added(false, None, false);
        assert!(plain.is_empty());
        let null = BTreeMap::from([("os".to_owned(), vec![span(1, 5)])]);
        assert_eq!(plain.unfilled, Some(null));
        assert_eq!(added(true, None, false).columns.0, [span(1, 5)]);
        assert_eq!(added(false, Some("?"), false).columns.0, [span(1, 5)]);
        let both = added(false, None, true);
        assert_eq!(
            (&both.columns.0, &both.rules.0),
            (&vec![span(1, 5)], &vec![span(1, 5)])
        );
    }

    #[test]
    fn a_rule_reads_the_columns_of_its_key_and_no_other() {
        // The name of the new column is a part of the name that the key reads.
        let part = needs(|now| {
            let mut column = now.decode.columns[0].clone();
            column.name = "i".to_owned();
            now.decode.columns.push(column);
        });
        assert!(part.is_empty(), "{}", part.reasons());
        // A rule that begins after every published date concerns none of them.
        let with_rule = |since: Option<NaiveDate>, key: &str| {
            needs(|now| {
                let mut column = now.decode.columns[0].clone();
                column.name = "os".to_owned();
                now.decode.columns.push(column);
                now.rules.push(RuleSettings {
                    name: "by_os".to_owned(),
                    key: vec![key.to_owned()],
                    since,
                    ..now.rules[0].clone()
                });
            })
        };
        assert!(with_rule(Some(date(6)), "os").is_empty());
        let some = with_rule(Some(date(2)), "os");
        assert_eq!(some.columns.0, [span(2, 5)]);
        assert_eq!(some.rules.0, [span(2, 5)]);
        assert!(
            some.reasons()
                .contains("column os is new, and the rule by_os reads it")
        );
        // A rule that reads `extra` needs the same dates.
        assert_eq!(with_rule(None, EXTRA).columns.0, [span(1, 5)]);
    }

    #[test]
    fn a_rule_over_a_column_that_came_earlier_reads_its_null_dates_from_raw() {
        let mut known = settings();
        let mut os = known.decode.columns[0].clone();
        os.name = "os".to_owned();
        known.decode.columns.push(os);
        known.unfilled = Some(BTreeMap::from([("os".to_owned(), vec![span(1, 2)])]));
        assert!(compared(&known, &known).is_empty());
        let mut now = known.clone();
        now.rules[0].key = vec!["os".to_owned()];
        let needs = compared(&known, &now);
        assert_eq!(needs.columns.0, [span(1, 2)]);
        assert_eq!(needs.rules.0, [span(1, 5)]);
    }

    #[test]
    fn what_of_a_record_is_in_extra() {
        let mut decode = settings().decode;
        let new = |path: &[&str]| ColumnSettings {
            name: "new".to_owned(),
            path: path.iter().map(|part| (*part).to_owned()).collect(),
            ..settings().decode.columns[0].clone()
        };
        decode.columns.push(ColumnSettings {
            name: "device".to_owned(),
            ..new(&["device", "os"])
        });
        for (path, expected) in [
            (&["new"][..], true),
            (&["device", "ram"], true),
            (&["device", "os"], false),
            (&["device", "os", "version"], false),
            (&["device"], false),
            (&["id"], false),
        ] {
            assert_eq!(is_in_extra(&new(path), &decode), expected, "{path:?}");
        }
    }

    #[test]
    fn types_and_places_ask_for_everything() {
        let whole = needs(|now| now.decode.columns[0].kind = "bigint".parse().unwrap());
        assert_eq!(whole.whole, ["column id is bigint, and was string"]);
        assert!(
            !needs(|now| now.slicing.slice_ms = 3_600_000)
                .whole
                .is_empty()
        );
        let gone = needs(|now| drop(now.decode.columns.remove(0)));
        assert_eq!(gone.whole, ["column id is gone"]);
    }
}
