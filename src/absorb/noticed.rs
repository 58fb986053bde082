//! Notes facts about new records while they are decoded. A mistake in the configuration is told in this
//! way, and does not show only in the numbers.
//!
//! ```text
//! batches of events ──▶ values by column, some texts of `extra` ──┐
//! rejects ────────────▶ the first of each reason ─────────────────┼──▶ Noticed ──▶ columns and rules that
//! keys of rules ──────▶ keys by rule ─────────────────────────────┘               found nothing · samples
//! ```
//!
//! It uses the counts that batches have already. It looks into the texts only for columns that found nothing.
//! The result does not depend on which worker saw a record.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray, RecordBatch};
use serde::Serialize;
use serde_json::Value;

use crate::config::Source;
use crate::dedup::KeyCounts;
use crate::event::{EXTRA, Reason};
use crate::raw::{INSIDE, NO_OFFSET, Reject};

/// The most rejects of each reason that are shown, and the most characters of each of them.
const REJECTS: usize = 3;
const TEXT: usize = 160;
/// The most texts of `extra` that are kept of one batch and in all, and the most bytes of one such text.
const EXTRAS_OF_BATCH: usize = 16;
const EXTRAS: usize = 64;
const LONGEST_EXTRA: usize = 1 << 10;
/// The most member paths that are looked at, and how deep they go.
const PATHS: usize = 2_000;
const DEPTH: usize = 8;

/// The facts that one worker, one commit or one run has noted about one source.
#[derive(Debug, Clone, Default)]
pub struct Noticed {
    events: u64,
    /// The number of values that are not null, by column.
    values: BTreeMap<String, u64>,
    /// Texts of `extra`, by raw object and record.
    extras: BTreeMap<(String, u64), String>,
    rejects: BTreeMap<Reason, Vec<RejectSample>>,
    /// Counts for each rule, in the order of the rules.
    keys: Vec<KeyCounts>,
}

/// A record that is no event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RejectSample {
    pub object: String,
    pub record: u64,
    pub detail: String,
    /// The beginning of the record.
    pub text: String,
}

/// The rejects of one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RejectsOf {
    pub reason: Reason,
    pub count: u64,
    pub remedy: String,
    /// The first rejects of this reason.
    pub samples: Vec<RejectSample>,
}

/// A column without a value in any new event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NullColumn {
    pub column: String,
    /// The path in the record at which the column is looked for.
    pub path: String,
    /// The most similar member that the events have and that no column names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
}

impl Noticed {
    /// Notes a batch of events of one raw object.
    pub fn events(&mut self, object: &str, records: &[i64], batch: &RecordBatch) {
        self.events += batch.num_rows() as u64;
        for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            let values = (column.len() - column.null_count()) as u64;
            match self.values.get_mut(field.name()) {
                Some(count) => *count += values,
                None => drop(self.values.insert(field.name().clone(), values)),
            }
        }
        let Some(extra) = batch
            .column_by_name(EXTRA)
            .and_then(|c| c.as_string_opt::<i32>())
        else {
            return;
        };
        // A later batch changes nothing once there are enough texts from earlier records.
        let first = records.first().map_or(0, |first| first.unsigned_abs());
        let last = self
            .extras
            .last_key_value()
            .map(|((last, record), _)| (last.as_str(), *record));
        let late = self.extras.len() >= EXTRAS && last.is_some_and(|last| last < (object, first));
        if late || extra.null_count() == extra.len() {
            return;
        }
        let texts = records.iter().zip(extra).take(4 * EXTRAS_OF_BATCH);
        let texts = texts.filter_map(|(record, text)| Some((record.unsigned_abs(), text?)));
        for (record, text) in texts
            .filter(|(_, text)| text.len() <= LONGEST_EXTRA)
            .take(EXTRAS_OF_BATCH)
        {
            self.extras
                .insert((object.to_owned(), record), text.to_owned());
        }
        self.trim();
    }

    /// Notes rejects of one raw object.
    pub fn rejects(&mut self, object: &str, rejects: &[Reject]) {
        for reject in rejects {
            let first = self.rejects.entry(reject.reason).or_default();
            let last = first.last().map(|last| (last.object.as_str(), last.record));
            if first.len() >= REJECTS && last.is_some_and(|last| last < (object, reject.raw_record))
            {
                continue;
            }
            first.push(RejectSample {
                object: object.to_owned(),
                record: reject.raw_record,
                detail: reject.detail.clone(),
                text: start_of(&reject.raw_text),
            });
            first.sort();
            first.truncate(REJECTS);
        }
    }

    /// Adds the number of events that had a key, by rule.
    pub fn keys(&mut self, keys: Vec<KeyCounts>) {
        self.keys
            .resize(keys.len().max(self.keys.len()), KeyCounts::default());
        for (all, one) in self.keys.iter_mut().zip(keys) {
            all.keyed += one.keyed;
            all.null += one.null;
        }
    }

    /// Adds what another worker or commit has noticed.
    pub fn add(&mut self, other: Self) {
        self.events += other.events;
        for (column, values) in other.values {
            *self.values.entry(column).or_default() += values;
        }
        self.extras.extend(other.extras);
        self.trim();
        for (reason, rejects) in other.rejects {
            let first = self.rejects.entry(reason).or_default();
            first.extend(rejects);
            first.sort();
            first.truncate(REJECTS);
        }
        self.keys(other.keys);
    }

    fn trim(&mut self) {
        while self.extras.len() > EXTRAS {
            self.extras.pop_last();
        }
    }

    /// The rejects of each reason, most frequent reason first, with the first rejects and with what can be
    /// done.
    pub fn rejects_of(&self, source: &Source, counts: &BTreeMap<Reason, u64>) -> Vec<RejectsOf> {
        let of = |(reason, count): (&Reason, &u64)| {
            let samples = self.rejects.get(reason).cloned().unwrap_or_default();
            RejectsOf {
                reason: *reason,
                count: *count,
                remedy: remedy(source, *reason, &samples),
                samples,
            }
        };
        let mut all: Vec<RejectsOf> = counts.iter().map(of).collect();
        all.sort_by_key(|rejects| std::cmp::Reverse(rejects.count));
        all
    }

    /// The columns that are null in every event, each with the most similar member of `extra`.
    pub fn null_columns(&self, source: &Source) -> Vec<NullColumn> {
        let is_null = |name: &str| self.events > 0 && self.values.get(name) == Some(&0);
        let columns = source.decode.columns.iter();
        let null: Vec<_> = columns.filter(|column| is_null(&column.name)).collect();
        let paths = match null.is_empty() {
            true => BTreeSet::new(),
            false => paths(self.extras.values()),
        };
        let null = null.into_iter().map(|column| NullColumn {
            column: column.name.clone(),
            path: shown_path(&column.path),
            nearest: nearest(&column.path, &paths).map(|path| shown_path(path)),
        });
        null.collect()
    }

    /// The rules that found no key in any event: the key is null in every event that the rule concerns, or a
    /// column that the rule reads is null. `reads` are the columns that each rule reads.
    pub fn keyless_rules(&self, source: &Source, reads: &[BTreeSet<String>]) -> Vec<String> {
        let is_null = |name: &String| self.values.get(name) == Some(&0);
        let rules = source.rules.iter().zip(reads).zip(&self.keys);
        let keyless = rules.filter(|((_, reads), keys)| {
            let because = keys.null > 0 || reads.iter().any(is_null);
            self.events > 0 && keys.keyed == 0 && because
        });
        keyless.map(|((rule, _), _)| rule.name.clone()).collect()
    }
}

/// The beginning of the text of a record.
fn start_of(text: &str) -> String {
    match text.char_indices().nth(TEXT) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// A path in the spelling of the configuration.
fn shown_path(path: &[String]) -> String {
    match path.iter().any(|name| name.contains('.')) {
        true => format!("{path:?}"),
        false => path.join("."),
    }
}

/// Every path to a member in these objects.
fn paths<'a>(texts: impl Iterator<Item = &'a String>) -> BTreeSet<Vec<String>> {
    fn add(value: &Value, above: &mut Vec<String>, paths: &mut BTreeSet<Vec<String>>) {
        let Value::Object(members) = value else {
            return;
        };
        for (name, value) in members {
            if paths.len() >= PATHS || above.len() >= DEPTH {
                return;
            }
            above.push(name.clone());
            paths.insert(above.clone());
            add(value, above, paths);
            above.pop();
        }
    }
    let mut paths = BTreeSet::new();
    for text in texts {
        if let Ok(value) = serde_json::from_str(text) {
            add(&value, &mut Vec::new(), &mut paths);
        }
    }
    paths
}

/// The path that was most likely meant: a path whose last name is the same, or a path with a similar spelling.
fn nearest<'a>(path: &[String], paths: &'a BTreeSet<Vec<String>>) -> Option<&'a Vec<String>> {
    let plain = |text: &str| -> String {
        let letters = text.chars().filter(|c| c.is_alphanumeric());
        letters.flat_map(char::to_lowercase).collect()
    };
    let last = |path: &[String]| path.last().map(|name| plain(name)).unwrap_or_default();
    let (wanted, wanted_last) = (plain(&path.join("")), last(path));
    let near = paths.iter().filter_map(|candidate| {
        let whole = plain(&candidate.join(""));
        let apart = strsim::osa_distance(&wanted, &whole);
        let candidate_last = last(candidate);
        let same_last = candidate_last == wanted_last;
        let most = wanted.chars().count().max(whole.chars().count()) / 3;
        let last_apart = strsim::osa_distance(&wanted_last, &candidate_last);
        let alike = apart <= most.max(1) || last_apart <= wanted_last.chars().count() / 4;
        (same_last || alike).then_some((!same_last, apart, candidate))
    });
    near.min().map(|(.., candidate)| candidate)
}

/// The remedy for the rejects of one reason.
fn remedy(source: &Source, reason: Reason, samples: &[RejectSample]) -> String {
    let name = &source.name;
    let time = &source.decode.event_time;
    let detail = |part: &str| samples.iter().any(|sample| sample.detail.contains(part));
    match reason {
        Reason::EventTime | Reason::Type if detail(NO_OFFSET) => format!(
            "sources.{name}.naive_timezone = \"Area/City\" names the zone of times that are written without \
             an offset"
        ),
        Reason::EventTime if detail(INSIDE) => format!(
            "sources.{name}.unwrap = {{ array = \"Records\" }}, with the name of the array, reads each object of \
             an array as a record"
        ),
        Reason::EventTime if detail("is missing") => {
            let column = source
                .decode
                .columns
                .iter()
                .find(|column| column.name == *time);
            let path = column
                .map(|column| shown_path(&column.path))
                .unwrap_or_default();
            format!("correct the `path` of sources.{name}.columns.{time}, which is `{path}`")
        }
        Reason::EventTime => format!(
            "sources.{name}.event_time names the column `{time}`: correct its `path`, name the format of its \
             times in sources.{name}.time_formats, or name another column"
        ),
        Reason::OutOfRange => format!(
            "sources.{name}.accept = {{ from = \"2010-01-01\", ahead = \"1d\" }} says which event times are \
             accepted; `ahead` counts from the arrival of the object"
        ),
        Reason::Type => format!(
            "correct the type of the column, convert such values with sources.{name}.coerce = true, or keep them \
             in `extra` with sources.{name}.on_type_error = \"null\""
        ),
        Reason::Missing => format!(
            "correct the `path` of the column, give it a `default`, or take `required` out of \
             sources.{name}.columns"
        ),
        Reason::TooLarge => format!("raise sources.{name}.max_record_bytes"),
        Reason::ObjectTooLarge => format!("raise sources.{name}.max_object_bytes"),
        Reason::TooDeep => "records nest at most 128 levels of { and [".to_owned(),
        Reason::NotObject => format!(
            "every record is to be one JSON object: leave objects of another kind out with \
             sources.{name}.exclude"
        ),
        Reason::NotJson => format!(
            "records are JSON of RFC 8259 in UTF-8: leave objects of another kind out with \
             sources.{name}.exclude"
        ),
        Reason::Envelope => format!(
            "correct sources.{name}.unwrap: these objects are other envelopes than it names, or none; leave \
             other raw objects out with sources.{name}.exclude"
        ),
        Reason::Codec => format!(
            "these objects are damaged or of a compression that is not read: upload them again, or leave \
             them out with sources.{name}.exclude"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('.').map(str::to_owned).collect()
    }

    /// The page on input has this table of the reasons and their remedies.
    #[test]
    fn the_page_on_input_has_every_reason_with_its_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let text = "lake = '/lake'\n[sources.events]\nraw = '/raw'\nevent_time = 'at'\n\
                    [sources.events.columns]\nat = 'timestamp'\n";
        std::fs::write(folder.path().join("rawmart.toml"), text).unwrap();
        let overrides = crate::config::Overrides::default();
        let job = crate::config::load(&overrides, &|_| None, folder.path()).unwrap();
        let mut table = "\n| reason | meaning | remedy |\n|---|---|---|\n".to_owned();
        for (reason, meaning) in [
            (
                Reason::NotJson,
                "The bytes are no JSON, or the object is cut off.",
            ),
            (Reason::NotObject, "A JSON value that is no object."),
            (Reason::TooLarge, "Longer than `max_record_bytes`."),
            (Reason::TooDeep, "Nested more than 128 levels."),
            (
                Reason::Codec,
                "The compressed bytes are damaged or cut off, or the object is of another kind.",
            ),
            (
                Reason::ObjectTooLarge,
                "The bytes beyond `max_object_bytes`.",
            ),
            (Reason::Missing, "A required column has no value."),
            (Reason::Type, "A value does not fit its column."),
            (
                Reason::EventTime,
                "The event time is missing or unreadable.",
            ),
            (Reason::OutOfRange, "The event time is outside `accept`."),
            (
                Reason::Envelope,
                "The object is not the envelope that `unwrap` names.",
            ),
        ] {
            let mut remedy = remedy(&job.sources[0], reason, &[]);
            let first = remedy.remove(0).to_ascii_uppercase();
            let first = if remedy.starts_with("ources.") {
                's'
            } else {
                first
            };
            table.push_str(&format!(
                "| `{}` | {meaning} | {first}{remedy}. |\n",
                reason.name()
            ));
        }
        table.push('\n');
        let page = include_str!("../../docs/input.md");
        let (_, rest) = page.split_once("<!-- table: reasons -->\n").unwrap();
        let found = rest.split_once("<!-- end of table -->").unwrap().0;
        assert!(found == table, "docs/input.md is to hold:\n{table}");
    }

    #[test]
    fn the_path_that_was_meant() {
        let texts = [
            r#"{"device":{"os":"ios","osVersion":"12"},"userId":1,"ab":[{"x":1}]}"#.to_owned(),
            r#"{"page":{"url":"/","referrer":""},"eventId":"a"}"#.to_owned(),
            "no JSON".to_owned(),
        ];
        let paths = paths(texts.iter());
        for (wanted, expected) in [
            ("device.oss", Some("device.os")),
            ("os", Some("device.os")),
            ("user_id", Some("userId")),
            ("event_id", Some("eventId")),
            ("devise.os_version", Some("device.osVersion")),
            ("page.refferer", Some("page.referrer")),
            ("event_name", None),
            ("x", None),
        ] {
            let found = nearest(&path(wanted), &paths).map(|path| shown_path(path));
            assert_eq!(found.as_deref(), expected, "{wanted}");
        }
        assert_eq!(
            shown_path(&["a.b".to_owned(), "c".to_owned()]),
            r#"["a.b", "c"]"#
        );
    }

    #[test]
    fn samples_do_not_depend_on_the_worker() {
        let reject = |record: u64| Reject {
            raw_record: record,
            raw_offset: 0,
            raw_bytes: 1,
            reason: Reason::NotJson,
            detail: String::new(),
            raw_text: "x".repeat(1_000),
        };
        let (mut one, mut two) = (Noticed::default(), Noticed::default());
        one.rejects("a", &(1..10).map(reject).collect::<Vec<_>>());
        one.rejects("c", &[reject(1)]);
        two.rejects("b", &(1..10).map(reject).collect::<Vec<_>>());
        two.rejects("a0", &[reject(7)]);
        let (mut forth, mut back) = (one.clone(), two.clone());
        forth.add(two);
        back.add(one);
        assert_eq!(forth.rejects, back.rejects);
        let shown: Vec<_> = forth.rejects[&Reason::NotJson]
            .iter()
            .map(|s| (s.object.as_str(), s.record))
            .collect();
        assert_eq!(shown, [("a", 1), ("a", 2), ("a", 3)]);
        assert_eq!(
            forth.rejects[&Reason::NotJson][0].text.chars().count(),
            TEXT + 1
        );
    }
}
