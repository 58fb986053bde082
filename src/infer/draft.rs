//! A draft: what was inferred, and its text as a configuration and a first mart.

use std::fmt::Write;

use serde::Serialize;

use super::Prefix;
use super::columns::DraftColumn;
use super::spelling::{comment, is_name, quoted, sql_name};
use super::times::Zones;
use crate::config::show_duration;
use crate::event::ColumnType;

/// The column at which comments begin.
const COMMENTS: usize = 52;

/// What was inferred from a sample.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The raw prefix.
    pub prefix: Prefix,
    /// The number of records in the sample.
    pub records: u64,
    /// The number of raw objects in the sample.
    pub sampled: u64,
    /// The column of the event time.
    pub event_time: String,
    /// How the event times are spelt.
    pub event_time_note: String,
    /// The zones of keys and times.
    pub zones: Zones,
    /// The columns, the event time first.
    pub columns: Vec<DraftColumn>,
    /// The duplicate rules.
    pub rules: Vec<DraftRule>,
    /// The column that says what kind an event is.
    pub kind: Option<String>,
    /// The column that says who did it.
    pub user: Option<String>,
    /// What the sample does not prove.
    pub unsure: Vec<String>,
    /// A larger share of rejects than the default, and why.
    pub max_rejects: Option<(String, String)>,
}

/// A duplicate rule of a draft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DraftRule {
    /// The name.
    pub name: String,
    /// The columns of the key.
    pub key: Vec<String>,
    /// The condition for the events that it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The window in milliseconds.
    pub within_ms: i64,
    /// Its effect on the sample, in words.
    pub note: String,
    /// The number of events of the sample that it takes out.
    pub duplicates: u64,
    /// The number of events that it concerns.
    pub of: u64,
}

/// The texts of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts {
    /// The configuration.
    pub config: String,
    /// The name of the mart.
    pub mart: String,
    /// The SQL of the mart.
    pub sql: String,
}

/// Lines of TOML with comments behind them.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn line(&mut self, line: &str, note: &str) {
        let line = match note {
            "" => line.to_owned(),
            note => format!("{line:COMMENTS$} # {}", comment(note)),
        };
        let _ = writeln!(self.0, "{line}");
    }

    fn bare(&mut self, line: &str) {
        self.line(line, "");
    }
}

impl Draft {
    /// The texts of the files.
    pub fn texts(&self) -> Texts {
        let mart = format!("{}_per_day", self.prefix.source);
        Texts {
            config: self.config(),
            sql: self.sql(),
            mart,
        }
    }

    fn config(&self) -> String {
        let mut out = Lines::default();
        let prefix = &self.prefix;
        out.bare(&format!(
            "# Inferred by `rawmart init` from {} records in {} of {} raw objects. A comment says what was seen.",
            self.records, self.sampled, prefix.objects
        ));
        out.bare("# Correct what is wrong, then: rawmart plan, rawmart run.");
        out.bare("");
        out.line(
            &format!("lake = {}", quoted(&prefix.lake)),
            "a folder, or such as s3://bucket/prefix/",
        );
        out.line(
            "timezone = \"UTC\"",
            "event dates are in this zone; not inferred",
        );
        out.bare("");
        out.bare(&format!("[sources.{}]", prefix.source));
        out.line(
            &format!("raw = {}", quoted(&prefix.raw)),
            &format!("{} raw objects", prefix.objects),
        );
        match prefix.layout.pattern() {
            Some(pattern) => out.line(
                &format!("layout = {}", quoted(pattern)),
                &format!("fits the keys of all {} objects", prefix.objects),
            ),
            None => out.line(
                "layout = false",
                "no pattern of times fits all keys: LastModified is the arrival",
            ),
        }
        if let Some((zone, note)) = &self.zones.layout {
            out.line(&format!("layout_timezone = {}", quoted(zone)), note);
        }
        if prefix.reads_all {
            out.line(
                "exclude = []",
                "the default excludes the prefixes of records that were not delivered",
            );
        }
        if let Some(unwrap) = &prefix.unwrap {
            out.line(
                &format!("unwrap = {unwrap}"),
                "the records are inside of these envelopes",
            );
        }
        out.line(
            &format!("event_time = {}", quoted(&self.event_time)),
            &self.event_time_note,
        );
        if let Some((zone, note)) = &self.zones.naive {
            out.line(&format!("naive_timezone = {}", quoted(zone)), note);
        }
        if let Some((share, note)) = &self.max_rejects {
            out.line(&format!("max_rejects = {}", quoted(share)), note);
        }
        if let Some(id) = self.id() {
            out.line(
                &format!("bloom_filters = [{}]", quoted(id)),
                "`rawmart why` finds an event faster",
            );
        }
        out.bare("");
        out.bare(&format!("[sources.{}.columns]", prefix.source));
        for column in &self.columns {
            out.line(&column_line(column), &column.note);
        }
        for rule in &self.rules {
            self.rule(&mut out, rule);
        }
        out.bare("");
        out.bare("[marts]");
        out.line("path = \"sql/marts\"", "one SQL file makes one table");
        out.0
    }

    fn rule(&self, out: &mut Lines, rule: &DraftRule) {
        out.bare("");
        out.bare(&format!("[[sources.{}.dedup]]", self.prefix.source));
        out.line(&format!("name = {}", quoted(&rule.name)), &rule.note);
        if let Some(when) = &rule.when {
            out.line(&format!("when = {}", quoted(when)), "");
        }
        let key: Vec<String> = rule.key.iter().map(|part| quoted(part)).collect();
        out.bare(&format!("key = [{}]", key.join(", ")));
        out.bare(&format!(
            "within = {}",
            quoted(&show_duration(rule.within_ms))
        ));
    }

    /// The column of the id that the first rule compares.
    fn id(&self) -> Option<&str> {
        let key = self.rules.first().and_then(|rule| rule.key.first())?;
        let mut columns = self.columns.iter();
        let column = columns.find(|column| column.name == *key)?;
        let is_scalar = matches!(column.kind, ColumnType::String | ColumnType::BigInt);
        is_scalar.then_some(&column.name)
    }

    fn sql(&self) -> String {
        let source = &self.prefix.source;
        let kind = self.kind.as_deref().map(sql_name);
        let mut columns = Vec::new();
        columns.extend(kind.clone());
        columns.push("count(*) AS events".to_owned());
        if let Some(user) = &self.user {
            columns.push(format!("count(DISTINCT {}) AS users", sql_name(user)));
        }
        columns.push("dt".to_owned());
        let groups: Vec<String> = kind.into_iter().chain(["dt".to_owned()]).collect();
        format!(
            "-- Events of {source} per day: a first mart by `rawmart init`.\n-- partition: dt\nSELECT\n    {}\nFROM \
             {source}\nGROUP BY {}\n",
            columns.join(",\n    "),
            groups.join(", ")
        )
    }
}

fn column_line(column: &DraftColumn) -> String {
    let (name, kind) = (&column.name, quoted(&column.kind.to_string()));
    let is_plain = column.path.len() == 1 && column.path.first() == Some(name);
    if is_plain && !column.coerce && column.paths.is_empty() {
        return format!("{name} = {kind}");
    }
    let mut settings = vec![format!("type = {kind}")];
    if !is_plain {
        let dots = column
            .path
            .iter()
            .all(|part| is_name(part) || is_word(part));
        settings.push(match dots {
            true => format!("path = {}", quoted(&column.path.join("."))),
            false => {
                let parts: Vec<String> = column.path.iter().map(|part| quoted(part)).collect();
                format!("path = [{}]", parts.join(", "))
            }
        });
    }
    if !column.paths.is_empty() {
        let paths = column.paths.iter().map(|(place, member)| {
            let place = match place.contains('.') {
                true => quoted(place),
                false => place.clone(),
            };
            format!("{place} = [{}]", quoted(member))
        });
        let paths: Vec<String> = paths.collect();
        settings.push(format!("paths = {{ {} }}", paths.join(", ")));
    }
    if column.coerce {
        settings.push("coerce = true".to_owned());
    }
    format!("{name} = {{ {} }}", settings.join(", "))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
