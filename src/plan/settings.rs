//! What a change of settings asks of the tables that are there.
//!
//! ```text
//! settings of the log ─┐          nothing: only what comes is made in the new way
//! settings of the job ─┼─▶ Needs  event dates whose duplicates are to be decided again
//! published dates ─────┘          event dates that are to be read from raw again
//!                                 everything from raw: rows would lie in other files, or types differ
//! ```

use chrono::NaiveDate;

use crate::config::Rule;
use crate::event::Column;
use crate::ledger::{Dates, Settings};

/// What has to be rebuilt before new events may be added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Why all of the source is to be read from raw.
    pub whole: Vec<String>,
    /// Event dates that other columns decoded, and why.
    pub columns: (Vec<Dates>, Vec<String>),
    /// Event dates that other rules decided, and why.
    pub rules: (Vec<Dates>, Vec<String>),
}

impl Needs {
    /// Compares the settings of the log with those of the job; `published` are the event dates
    /// with rows, in order.
    pub fn new(known: &Settings, now: &Settings, published: &[NaiveDate]) -> Self {
        let mut needs = Self::default();
        needs.look_at_places(known, now);
        needs.look_at_columns(known, now);
        let decode = decode_changes(known, now);
        let is_stale = |dates: &[Dates], date: NaiveDate| dates.iter().any(|d| d.holds(date));
        let columns = published
            .iter()
            .filter(|date| !decode.is_empty() || is_stale(&known.stale_columns, **date));
        needs.columns.0 = ranges(columns.copied(), published);
        needs.columns.1.extend(decode);
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

    /// Everything that changed, in words.
    pub fn reasons(&self) -> String {
        let all = self
            .whole
            .iter()
            .chain(&self.columns.1)
            .chain(&self.rules.1);
        all.map(String::as_str).collect::<Vec<_>>().join("; ")
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

fn find<'a>(columns: &'a [Column], name: &str) -> Option<&'a Column> {
    columns.iter().find(|column| column.name == name)
}

/// Changes by which the same record would become another event, or none.
fn decode_changes(known: &Settings, now: &Settings) -> Vec<String> {
    let (was, is) = (&known.decode, &now.decode);
    let mut changes = Vec::new();
    for column in &is.columns {
        match find(&was.columns, &column.name) {
            // Older files keep its values in `extra`, unless something asks for them there.
            None if column.required || column.default.is_some() => changes.push(format!(
                "column {} is new, and not simply null where it is missing",
                column.name
            )),
            None if now.rules.iter().any(|rule| reads(rule, &column.name)) => {
                changes.push(format!(
                    "column {} is new, and a rule reads it",
                    column.name
                ));
            }
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
        ("accept", was.accept != is.accept),
        ("on_type_error", was.on_type_error != is.on_type_error),
        ("a limit of records or objects", was.limits != is.limits),
    ];
    let others = others.into_iter().filter(|(_, changed)| *changed);
    changes.extend(others.map(|(what, _)| format!("{what} changed")));
    changes
}

/// Whether a rule may read a column: its name stands in the rule's text.
fn reads(rule: &Rule, column: &str) -> bool {
    let texts = rule.key.iter().chain(&rule.when);
    texts.into_iter().any(|text| text.contains(column))
}

/// The rules that concern events of a date, without their bounds.
fn effective(rules: &[Rule], date: NaiveDate) -> Vec<Rule> {
    rules
        .iter()
        .filter(|rule| {
            rule.since.is_none_or(|since| since <= date)
                && rule.until.is_none_or(|until| date <= until)
        })
        .map(|rule| Rule {
            since: None,
            until: None,
            ..rule.clone()
        })
        .collect()
}

fn rule_changes(was: &[Rule], is: &[Rule]) -> String {
    let named = |rules: &[Rule], name: &str| rules.iter().any(|rule| rule.name == name);
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

/// Dates as ranges, each as long as no published date in between is missing.
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
    use crate::config::Mode;
    use crate::event::{Accept, DecodeSpec, OnTypeError, PartitionBy, Slicing, TimeUnit};

    fn date(day: u32) -> NaiveDate {
        NaiveDate::from_ymd_opt(2019, 4, day).unwrap()
    }

    fn settings() -> Settings {
        let column = |name: &str, kind: &str| Column {
            name: name.to_owned(),
            kind: kind.parse().unwrap(),
            path: vec![name.to_owned()],
            default: None,
            required: false,
        };
        Settings {
            decode: DecodeSpec {
                columns: vec![column("id", "string"), column("at", "timestamp")],
                event_time: "at".to_owned(),
                unit: TimeUnit::Ms,
                naive_timezone: None,
                accept: Accept {
                    from_ms: 0,
                    ahead_ms: 0,
                },
                on_type_error: OnTypeError::Reject,
                record_sha256: false,
                limits: crate::event::Limits::default(),
            },
            rules: vec![Rule {
                name: "redelivery".to_owned(),
                key: vec!["id".to_owned()],
                when: None,
                within_ms: 600_000,
                mode: Mode::Throttle,
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
        }
    }

    fn needs(change: impl FnOnce(&mut Settings)) -> Needs {
        let mut now = settings();
        change(&mut now);
        Needs::new(&settings(), &now, &[date(1), date(2), date(5)])
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
        // Bounds that leave every published date as it was.
        assert!(needs(|now| now.rules[0].since = Some(date(1))).is_empty());
        let since = needs(|now| now.rules[0].since = Some(date(2)));
        assert_eq!(since.rules.0, [span(1, 1)]);
        let added = needs(|now| {
            now.rules.push(Rule {
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
        let published = [date(1), date(2), date(5)];
        let needs = Needs::new(&known, &settings(), &published);
        assert_eq!(needs.rules.0, [span(2, 2)]);
        assert!(needs.columns.0.is_empty() && needs.whole.is_empty());
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
        assert!(added(false, None, false).is_empty());
        assert_eq!(added(true, None, false).columns.0, [span(1, 5)]);
        assert_eq!(added(false, Some("?"), false).columns.0, [span(1, 5)]);
        let both = added(false, None, true);
        assert_eq!(
            (&both.columns.0, &both.rules.0),
            (&vec![span(1, 5)], &vec![span(1, 5)])
        );
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
