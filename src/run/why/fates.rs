//! The fate of an event or of a record: its verdict, where it lies, who decided it, and the chain of events that
//! displaced it.

use std::collections::BTreeMap;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{DateTime, SecondsFormat};
use futures::TryStreamExt;
use serde::Serialize;

use super::super::RunError;
use super::Match;
use super::find::{Finder, Kind, Row, rules};
use crate::config::Source;
use crate::engine::RuleExpressions;
use crate::event::{KEPT_OBJECT, KEPT_RECORD, RULE};
use crate::lake::{Lake, Reading};
use crate::layout;
use crate::ledger::{self, Commit, RuleMode, RuleSettings};

/// The most events of one chain that are told. `gap-last` makes chains as long as a burst.
const LONGEST_CHAIN: usize = 100;

/// The most commits that are read back in search of the one that absorbed a raw object.
const COMMITS_BACK: usize = 64;

/// What became of one record.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fate {
    /// The verdict.
    pub verdict: Verdict,
    /// The source.
    pub source: String,
    /// The table that holds the row.
    pub table: String,
    /// The raw object.
    pub raw_object: String,
    /// The number of the record in the raw object.
    pub raw_record: i64,
    /// The event time, RFC 3339 in UTC. A reject has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_time: Option<String>,
    /// The folder of the partition.
    pub partition: String,
    /// The key of the data file below the lake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The commit that last wrote the data file. The verdict was decided by then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<CommitOf>,
    /// The commit that absorbed the raw object, or read it again. Absent where it lies far back in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absorbed: Option<CommitOf>,
    /// What displaced a duplicate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub displaced: Option<Displacement>,
    /// Why a reject is no event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejection>,
}

/// What a record became.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A kept event.
    Kept,
    /// An event that another one displaced.
    Duplicate,
    /// No event.
    Reject,
}

/// A commit and the run that made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommitOf {
    /// The number of the commit.
    pub commit: u64,
    /// The name of the run.
    pub run: String,
    /// The time of the run, RFC 3339 in UTC.
    pub at: String,
}

/// How a duplicate was displaced.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Displacement {
    /// The name of the rule.
    pub rule: String,
    /// The mode of the rule; absent where the log does not know the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<RuleMode>,
    /// The window of the rule in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within_ms: Option<i64>,
    /// The parts of the key with their values.
    pub key: Vec<KeyPart>,
    /// The raw object of the event that displaced this one.
    pub kept_object: String,
    /// The record number of that event.
    pub kept_record: i64,
    /// The event time minus that of the other event, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distance_ms: Option<f64>,
}

/// A part of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyPart {
    /// The column or the expression.
    pub expression: String,
    /// The value as text; null where there is none.
    pub value: Option<String>,
}

/// Why a record is no event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// The reason.
    pub reason: String,
    /// The reason in detail.
    pub detail: Option<String>,
    /// The byte at which the record begins.
    pub raw_offset: Option<i64>,
    /// The number of its bytes.
    pub raw_bytes: Option<i64>,
    /// The beginning of its text.
    pub raw_text: Option<String>,
}

/// Tells the fates of rows.
pub struct Teller<'a> {
    lake: &'a Lake<Reading>,
    finder: &'a Finder<'a>,
}

impl<'a> Teller<'a> {
    /// A teller of the rows of `finder`.
    pub const fn new(lake: &'a Lake<Reading>, finder: &'a Finder<'a>) -> Self {
        Self { lake, finder }
    }

    /// The fate of a row, and of each event of the chain that displaced it.
    ///
    /// # Errors
    /// A data file that cannot be read.
    pub async fn chain(&self, row: Row<'a>) -> Result<Match, RunError> {
        let mut chain = Vec::new();
        let mut row = row;
        loop {
            let mut fate = self.fate(&row);
            let displacement = fate.displaced.as_ref();
            let Some(displacement) = displacement.filter(|_| chain.len() + 1 < LONGEST_CHAIN)
            else {
                let complete = fate.displaced.is_none();
                chain.push(fate);
                return Ok(Match { chain, complete });
            };
            let other = (displacement.kept_object.as_str(), displacement.kept_record);
            let near = self.near(&row, displacement);
            let next = self.finder.event(row.source, other, near).await?;
            let distance = next.as_ref().and_then(|next| distance_ms(&row, next));
            if let Some(displaced) = &mut fate.displaced {
                displaced.distance_ms = distance;
            }
            chain.push(fate);
            match next {
                Some(next) => row = next,
                None => {
                    let complete = false;
                    return Ok(Match { chain, complete });
                }
            }
        }
    }

    /// The span of event times in which the event lies that displaced this one. In a chain of `gap` the first event may
    /// lie further away.
    fn near(&self, row: &Row<'_>, displacement: &Displacement) -> Option<(i64, i64)> {
        let (time, within) = (row.time?, displacement.within_ms?);
        let scale = row.source.decode.unit.per_second() / 1_000;
        let within = within.saturating_mul(scale);
        Some((time.saturating_sub(within), time.saturating_add(within)))
    }

    /// The fate of a row, without the chain and the commits.
    pub fn fate(&self, row: &Row<'_>) -> Fate {
        let file = self.finder.file_of(row);
        let values = row.table.partition_columns.iter();
        let partition: layout::Partition = values
            .map(|column| (column.clone(), row.text(column)))
            .collect();
        Fate {
            verdict: match row.kind {
                Kind::Kept => Verdict::Kept,
                Kind::Duplicate => Verdict::Duplicate,
                Kind::Reject => Verdict::Reject,
            },
            source: row.source.name.clone(),
            table: row.table.name.clone(),
            raw_object: row.object.clone(),
            raw_record: row.record,
            event_time: row.time.and_then(|time| rfc3339(time, row.source)),
            partition: layout::partition_folder(&partition),
            file,
            written: None,
            absorbed: None,
            displaced: (row.kind == Kind::Duplicate).then(|| self.displacement(row)),
            rejected: (row.kind == Kind::Reject).then(|| Rejection {
                reason: row.text("reason").unwrap_or_default(),
                detail: row.text("detail"),
                raw_offset: row.integer("raw_offset"),
                raw_bytes: row.integer("raw_bytes"),
                raw_text: row.text("raw_text"),
            }),
        }
    }

    fn displacement(&self, row: &Row<'_>) -> Displacement {
        let name = row.text(RULE).unwrap_or_default();
        let rules = rules(self.lake, row.source);
        let rule = rules.into_iter().find(|rule| rule.name == name);
        Displacement {
            mode: rule.as_ref().map(|rule| rule.mode),
            within_ms: rule.as_ref().map(|rule| rule.within_ms),
            key: rule.map(|rule| key(row, &rule)).unwrap_or_default(),
            kept_object: row.text(KEPT_OBJECT).unwrap_or_default(),
            kept_record: row.integer(KEPT_RECORD).unwrap_or(0),
            distance_ms: None,
            rule: name,
        }
    }

    /// Notes the commits that wrote the data files, and those that absorbed the raw objects.
    ///
    /// # Errors
    /// A commit that cannot be read.
    pub async fn note_commits(&self, matches: &mut [Match]) -> Result<(), RunError> {
        let fates = || matches.iter().flat_map(|found| &found.chain);
        let commit_of = |file: &Option<String>| {
            let file = self.lake.state().files.get(file.as_ref()?)?;
            Some(file.written())
        };
        let mut wanted: BTreeMap<u64, Option<CommitOf>> = BTreeMap::new();
        wanted.extend(fates().filter_map(|fate| Some((commit_of(&fate.file)?, None))));
        let Some(newest) = wanted.keys().next_back().copied() else {
            return Ok(());
        };
        let mut sought: BTreeMap<(String, String), Option<CommitOf>> = fates()
            .map(|fate| ((fate.source.clone(), fate.raw_object.clone()), None))
            .collect();
        let mut log = std::pin::pin!(ledger::newest_first(self.lake.store(), newest));
        let mut back = 0;
        // A data file is never older than the raw objects of its rows.
        while (sought.values().any(Option::is_none) || wanted.values().any(Option::is_none))
            && back < COMMITS_BACK
            && let Some(commit) = log.try_next().await?
        {
            back += 1;
            for ((source, object), found) in &mut sought {
                if found.is_none() && absorbs(&commit, source, object) {
                    *found = Some(of(&commit));
                }
            }
            if let Some(found) = wanted.get_mut(&commit.number) {
                *found = Some(of(&commit));
            }
        }
        for (number, found) in wanted.iter_mut().filter(|(_, found)| found.is_none()) {
            let mut log = std::pin::pin!(ledger::newest_first(self.lake.store(), *number));
            *found = log.try_next().await?.as_ref().map(of);
        }
        for fate in matches.iter_mut().flat_map(|found| &mut found.chain) {
            let commit = commit_of(&fate.file);
            fate.written = commit.and_then(|commit| wanted.get(&commit).cloned().flatten());
            let object = (fate.source.clone(), fate.raw_object.clone());
            fate.absorbed = sought.get(&object).cloned().flatten();
        }
        Ok(())
    }
}

fn absorbs(commit: &Commit, source: &str, object: &str) -> bool {
    let delta = commit.sources.get(source);
    delta.is_some_and(|delta| delta.objects.iter().any(|entry| entry.key == object))
}

fn of(commit: &Commit) -> CommitOf {
    CommitOf {
        commit: commit.number,
        run: commit.run.clone(),
        at: commit.at.clone(),
    }
}

/// The event time of `row` minus that of `other`, in milliseconds.
fn distance_ms(row: &Row<'_>, other: &Row<'_>) -> Option<f64> {
    let units = row.time?.checked_sub(other.time?)?;
    let scale = row.source.decode.unit.per_second() / 1_000;
    Some(units as f64 / scale as f64)
}

fn rfc3339(time: i64, source: &Source) -> Option<String> {
    let (scale, form) = match source.decode.unit.per_second() {
        1_000 => (1_000, SecondsFormat::Millis),
        _ => (1, SecondsFormat::Micros),
    };
    let time = DateTime::from_timestamp_micros(time.checked_mul(scale)?)?;
    Some(time.to_rfc3339_opts(form, true))
}

/// The parts of the key of a rule with the values that they have for a row. A part has no value where the columns have
/// changed since, so that the expression cannot be evaluated.
fn key(row: &Row<'_>, rule: &RuleSettings) -> Vec<KeyPart> {
    let parts = rule.key.iter().map(|expression| {
        let one = std::slice::from_ref(expression);
        let schema = row.batch.schema();
        let compiled = RuleExpressions::compile(&rule.name, one, None, &schema).ok();
        let values = compiled.and_then(|compiled| compiled.keys(&row.batch, None).ok());
        let options = FormatOptions::default();
        let value = values.and_then(|values| {
            let column = values.into_iter().next()?;
            let cells = ArrayFormatter::try_new(&column, &options).ok()?;
            cells.value(0).try_to_string().ok()
        });
        KeyPart {
            expression: expression.clone(),
            value,
        }
    });
    parts.collect()
}
