//! The settings of a source as the log stores them.
//!
//! They are types of the log's own, so that a new setting of the configuration does not change the stored form.
//! A field that is added here needs a serde default that says how the tables were made before the setting
//! existed. The words of the vocabulary are stored in their spelling: types of columns, units, zones,
//! partitions, steps of `unwrap`.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::event::{
    Accept, Column, ColumnType, DecodeSpec, Limits, OnTypeError, Slicing, UnwrapStep,
};
use crate::time::{TimeUnit, Zone};

/// Everything that decides the content of the tables of a source, apart from the raw objects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The settings that decide how records become events.
    pub decode: DecodeSettings,
    /// The duplicate rules, in the order in which they apply.
    pub rules: Vec<RuleSettings>,
    /// The rule that gives an event its partition and slice.
    pub slicing: Slicing,
    /// The pattern of the arrival time in keys; `None` where LastModified is the arrival.
    pub layout: Option<String>,
    /// The zone of the times in keys.
    pub layout_timezone: Zone,
    /// Event dates whose events were decided by other rules. `rebuild` decides them again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stale_rules: Vec<Dates>,
    /// Event dates whose events were decoded with other columns. `rebuild` reads them from raw.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stale_columns: Vec<Dates>,
    /// Nullable columns that were added after events of these dates had been published. On these dates the
    /// columns are null, and `extra` keeps their values until `rebuild` takes them out of it. `None` where the
    /// log does not say which columns came later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfilled: Option<BTreeMap<String, Vec<Dates>>>,
}

/// The settings that decide how records become events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecodeSettings {
    /// The declared columns, in order.
    pub columns: Vec<ColumnSettings>,
    /// The name of the column with the event time.
    pub event_time: String,
    /// The unit of all timestamps.
    pub unit: TimeUnit,
    /// The zone of times that are written without an offset.
    pub naive_timezone: Option<Zone>,
    /// The zone whose local time numbers count; `None` where they count from 1970-01-01 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch_timezone: Option<Zone>,
    /// The span of event times that is accepted.
    pub accept: AcceptSettings,
    /// The treatment of a value of a wrong type.
    pub on_type_error: TypeErrorSetting,
    /// Whether events carry the SHA-256 of their record.
    pub record_sha256: bool,
    /// The bounds of records and raw objects.
    pub limits: LimitSettings,
    /// The steps from an object to the records inside. Before there were steps, every object was a record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unwrap: Vec<UnwrapStep>,
}

/// One declared column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnSettings {
    /// The name in the tables.
    pub name: String,
    /// The type of its values.
    #[serde(rename = "type")]
    pub kind: ColumnType,
    /// The member names, from the top of the record.
    pub path: Vec<String>,
    /// The value where the member is missing or null.
    pub default: Option<serde_json::Value>,
    /// Whether a record without the member is a reject.
    pub required: bool,
    /// The member names of fields of structs, by the dotted place of the field.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub paths: BTreeMap<String, Vec<String>>,
    /// Whether values of other types are converted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub coerce: bool,
    /// The formats of times and dates, in the order in which they are tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub time_formats: Vec<String>,
}

/// The span of event times that is accepted, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptSettings {
    /// The first accepted event time, since 1970 UTC.
    pub from_ms: i64,
    /// The distance that an event time may lie after the arrival of its raw object.
    pub ahead_ms: i64,
}

/// The treatment of a value that does not fit the type of its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TypeErrorSetting {
    /// The record becomes a reject.
    Reject,
    /// The column is null, and the value stays in `extra`.
    Null,
}

/// The bounds of records and raw objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitSettings {
    /// The most bytes of one record.
    pub max_record_bytes: u64,
    /// The most bytes of a raw object after decompression.
    pub max_object_bytes: u64,
    /// The most levels of `{` and `[`.
    pub max_depth: u32,
}

/// One duplicate rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSettings {
    /// The name of the rule.
    pub name: String,
    /// The SQL expressions of the key.
    pub key: Vec<String>,
    /// The SQL predicate for the events that the rule concerns; `None` for all events.
    pub when: Option<String>,
    /// The window in milliseconds, inclusive.
    pub within_ms: i64,
    /// Decides which event of a key stays.
    pub mode: RuleMode,
    /// The first and the last event date of the rule, inclusive.
    pub since: Option<NaiveDate>,
    /// The last event date of the rule, inclusive; `None` without a bound.
    pub until: Option<NaiveDate>,
}

/// Decides which event of a key stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleMode {
    /// An event stays if no kept event of its key lies within the window before it.
    Throttle,
    /// An event stays if no event of its key lies within the window before it.
    Gap,
    /// An event stays if no event of its key lies within the window after it.
    GapLast,
    /// The first event of its key in each window stays.
    Tumbling,
}

impl From<&DecodeSpec> for DecodeSettings {
    fn from(spec: &DecodeSpec) -> Self {
        Self {
            columns: spec.columns.iter().map(ColumnSettings::from).collect(),
            event_time: spec.event_time.clone(),
            unit: spec.unit,
            naive_timezone: spec.naive_timezone,
            epoch_timezone: spec.epoch_timezone,
            accept: AcceptSettings::from(spec.accept),
            on_type_error: match spec.on_type_error {
                OnTypeError::Reject => TypeErrorSetting::Reject,
                OnTypeError::Null => TypeErrorSetting::Null,
            },
            record_sha256: spec.record_sha256,
            limits: LimitSettings::from(spec.limits),
            unwrap: spec.unwrap.clone(),
        }
    }
}

impl From<&Column> for ColumnSettings {
    fn from(column: &Column) -> Self {
        Self {
            name: column.name.clone(),
            kind: column.kind.clone(),
            path: column.path.clone(),
            default: column.default.clone(),
            required: column.required,
            paths: column.paths.clone(),
            coerce: column.coerce,
            time_formats: column.time_formats.clone(),
        }
    }
}

impl From<Accept> for AcceptSettings {
    fn from(Accept { from_ms, ahead_ms }: Accept) -> Self {
        Self { from_ms, ahead_ms }
    }
}

impl From<Limits> for LimitSettings {
    fn from(limits: Limits) -> Self {
        Self {
            max_record_bytes: limits.max_record_bytes,
            max_object_bytes: limits.max_object_bytes,
            max_depth: limits.max_depth,
        }
    }
}

/// A span of event dates, both ends inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Dates {
    /// The first date.
    pub from: NaiveDate,
    /// The last date.
    pub to: NaiveDate,
}

impl Dates {
    /// Whether a date lies in the span.
    pub fn holds(self, date: NaiveDate) -> bool {
        (self.from..=self.to).contains(&date)
    }
}

impl std::fmt::Display for Dates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.from == self.to {
            true => self.from.fmt(f),
            false => write!(f, "{} … {}", self.from, self.to),
        }
    }
}
