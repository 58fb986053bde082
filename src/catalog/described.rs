//! The tables of a lake as its log describes them: names, types, comments, partitions and sizes.
//!
//! ```text
//! State (files, columns) ─┐
//! Job (zone, json)        ├─▶ [TableDescription] ──▶ `rawmart tables`, `rawmart ddl`
//! comments of the marts   ┘
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use serde::Serialize;

use super::TableDefinition;
use super::tables::partition_columns;
use crate::config::{Job, Source};
use crate::event::{
    ColumnType, EXTRA, KEPT_OBJECT, KEPT_RECORD, RAW_OBJECT, RAW_RECORD, RECORD_SHA256, RULE,
    TypeError,
};
use crate::layout::{self, DATE, HOUR, Partition};
use crate::ledger::State;
use crate::time::TimeUnit;

/// The kind of rows that a table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Holds {
    /// The kept events of a source.
    Kept,
    /// The duplicates of a source.
    Duplicates,
    /// The rejects of a source.
    Rejects,
    /// The rows of a mart.
    Mart,
    /// A table whose source or mart is no longer in the configuration.
    Unconfigured,
}

/// A table of the lake with the sizes that the log knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableDescription {
    /// The name of the table.
    pub name: String,
    /// The kind of its rows.
    pub holds: Holds,
    /// The source of an event table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The comment of a mart's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The unit of the timestamps in the data files.
    pub timestamp_unit: TimeUnit,
    /// The columns in the data files, in the order of the log.
    pub columns: Vec<ColumnDescription>,
    /// The partition columns in the order of the folders; their type is `string`.
    pub partition_columns: Vec<ColumnDescription>,
    /// The partitions that have a data file, in the order of their folders.
    pub partitions: Vec<PartitionDescription>,
    /// The number of rows.
    pub rows: u64,
    /// The bytes of the data files.
    pub bytes: u64,
    /// Data files, those without rows among them.
    pub files: u64,
    /// The last commit that wrote a data file of the table; 0 where there is none.
    pub last_commit: u64,
    /// Whether each version of a partition has a folder of its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub versions: bool,
    /// The URL of the table's folder, with `/` at its end. Where versions have folders of their own, this is the
    /// folder of the current version of a table without partitions.
    pub location: String,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColumnDescription {
    /// The name of the column.
    pub name: String,
    /// The type of its values.
    #[serde(rename = "type", serialize_with = "as_text")]
    pub kind: ColumnType,
    /// The comment on the column, from the mart's file or for a system column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// A partition of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionDescription {
    /// One value for each partition column; `None` is NULL.
    pub values: Vec<Option<String>>,
    /// The folder that Hive gives it below the table's folder: its columns and values, escaped, without `/` at its end.
    pub folder: String,
    /// The URL of the folder that holds its data files and no others, with `/` at its end.
    pub location: String,
    /// The number of rows.
    pub rows: u64,
    /// The bytes of the data files.
    pub bytes: u64,
    /// The number of data files.
    pub files: u64,
    /// The last commit that wrote a data file of the partition.
    pub last_commit: u64,
}

fn as_text<S: serde::Serializer>(kind: &ColumnType, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(kind)
}

impl TableDescription {
    /// The table with the columns of the log, as a query reads it.
    pub fn definition(&self) -> TableDefinition {
        let fields = self.columns.iter().map(|column| {
            let kind = column.kind.arrow(self.timestamp_unit);
            Field::new(&column.name, kind, true)
        });
        let partition_columns = self.partition_columns.iter();
        TableDefinition {
            name: self.name.clone(),
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            partition_columns: partition_columns
                .map(|column| column.name.clone())
                .collect(),
        }
    }
}

/// The comments of a mart: of the table, and of its columns by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comments {
    /// The comment on the table.
    pub table: Option<String>,
    /// The comments on columns, by name.
    pub columns: BTreeMap<String, String>,
}

/// The log holds a column type that this version does not know.
#[derive(Debug, thiserror::Error)]
#[error(
    "the log gives column {column} of table {table} a type that this version does not know: {error}"
)]
pub struct UnknownType {
    table: String,
    column: String,
    error: TypeError,
}

/// Describes every table of the log, in the order of names. `url_of` gives the URL of a key below the lake.
///
/// # Errors
/// The log holds a column type that this version does not know.
pub fn describe(
    job: &Job,
    state: &State,
    marts: &BTreeMap<String, Comments>,
    url_of: impl Fn(&str) -> String,
) -> Result<Vec<TableDescription>, UnknownType> {
    let mut tables = Vec::new();
    for (name, columns) in &state.columns {
        let made_by = made_by(job, name);
        let mart = marts.get(name);
        let (holds, source) = match made_by {
            Some((source, holds)) => (holds, Some(source)),
            None if mart.is_some() && state.marts.contains_key(name) => (Holds::Mart, None),
            None => (Holds::Unconfigured, None),
        };
        let comment_of = |column: &str| match (source, mart) {
            (Some(source), _) => column_comment(source, holds, column),
            (None, Some(mart)) => mart.columns.get(column).cloned(),
            (None, None) => None,
        };
        let columns = columns.iter().map(|(column, kind)| {
            Ok(ColumnDescription {
                name: column.clone(),
                kind: kind.parse().map_err(|error| UnknownType {
                    table: name.clone(),
                    column: column.clone(),
                    error,
                })?,
                comment: comment_of(column),
            })
        });
        let partition_names = partition_names(state, name, source, holds);
        let partition_columns = partition_names.into_iter().map(|column| ColumnDescription {
            comment: partition_comment(job, source, holds, &column),
            kind: ColumnType::String,
            name: column,
        });
        let partition_columns: Vec<ColumnDescription> = partition_columns.collect();
        let partitions = partitions(state, name, &partition_columns, &url_of);
        let whole = partitions.first().filter(|_| partition_columns.is_empty());
        let location = match whole {
            Some(whole) => whole.location.clone(),
            None => url_of(&layout::data_folder(name, "", None)),
        };
        let versions = state.table(name).any(|file| file.entry.version.is_some());
        tables.push(TableDescription {
            name: name.clone(),
            holds,
            source: source.map(|source| source.name.clone()),
            comment: match source {
                Some(source) => Some(table_comment(source, holds)),
                None => mart.and_then(|mart| mart.table.clone()),
            },
            timestamp_unit: match (source, state.marts.get(name)) {
                (Some(source), _) => source.decode.unit,
                (None, mart) => mart.map_or(TimeUnit::Ms, |mart| mart.entry.unit),
            },
            columns: columns.collect::<Result<_, _>>()?,
            partition_columns,
            rows: partitions.iter().map(|partition| partition.rows).sum(),
            bytes: partitions.iter().map(|partition| partition.bytes).sum(),
            files: partitions.iter().map(|partition| partition.files).sum(),
            last_commit: state.version(name),
            partitions,
            versions,
            location,
        });
    }
    Ok(tables)
}

/// The source that makes a table, and what the table holds.
fn made_by<'j>(job: &'j Job, table: &str) -> Option<(&'j Source, Holds)> {
    job.sources.iter().find_map(|source| {
        let [kept, duplicates, rejects] = source.tables();
        let holds = [
            (kept, Holds::Kept),
            (duplicates, Holds::Duplicates),
            (rejects, Holds::Rejects),
        ];
        let (_, holds) = holds.into_iter().find(|(name, _)| name == table)?;
        Some((source, holds))
    })
}

/// The partition columns as the newest data file has them. A source without files has those of its
/// configuration.
fn partition_names(
    state: &State,
    table: &str,
    source: Option<&Source>,
    holds: Holds,
) -> Vec<String> {
    // A file without rows may be a leftover of an earlier partitioning.
    let newest = state
        .table(table)
        .max_by_key(|file| (file.entry.rows > 0, file.commit));
    if let Some(file) = newest {
        let columns = file.entry.partition.iter();
        return columns.map(|(column, _)| column.clone()).collect();
    }
    match (source, holds) {
        (Some(_), Holds::Rejects) => vec![DATE.to_owned()],
        (Some(source), _) => partition_columns(source.partition_by)
            .iter()
            .map(|&column| column.to_owned())
            .collect(),
        (None, _) => Vec::new(),
    }
}

/// The partitions of a table. Emptied files of an earlier partitioning lie in folders of other columns.
fn partitions(
    state: &State,
    table: &str,
    columns: &[ColumnDescription],
    url_of: &impl Fn(&str) -> String,
) -> Vec<PartitionDescription> {
    let columns: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let mut by_folder: BTreeMap<String, PartitionDescription> = BTreeMap::new();
    for file in state.table(table) {
        let partition: &Partition = &file.entry.partition;
        if !partition.iter().map(|(column, _)| column).eq(&columns) {
            continue;
        }
        let folder = layout::partition_folder(partition);
        let found = by_folder
            .entry(folder)
            .or_insert_with_key(|folder| PartitionDescription {
                values: partition.iter().map(|(_, value)| value.clone()).collect(),
                folder: folder.clone(),
                location: location(table, folder, file.entry.version, url_of),
                rows: 0,
                bytes: 0,
                files: 0,
                last_commit: 0,
            });
        found.rows += file.entry.rows;
        found.bytes += file.entry.bytes;
        found.files += 1;
        found.last_commit = found.last_commit.max(file.commit);
    }
    by_folder.into_values().collect()
}

/// The URL of the folder of a partition. Folders of partitions are not escaped once more.
fn location(
    table: &str,
    folder: &str,
    version: Option<u64>,
    url_of: &impl Fn(&str) -> String,
) -> String {
    let root = layout::data_root(table, version);
    let below = layout::data_folder(table, folder, version);
    let below = below.strip_prefix(&root).unwrap_or_default();
    format!("{}{below}", url_of(&root))
}

fn table_comment(source: &Source, holds: Holds) -> String {
    let name = &source.name;
    match holds {
        Holds::Duplicates => format!(
            "duplicates of source {name}, with the rule and the event that displaced each of them"
        ),
        Holds::Rejects => format!("records of source {name} that could not be read"),
        _ => format!("kept events of source {name}"),
    }
}

fn column_comment(source: &Source, holds: Holds, column: &str) -> Option<String> {
    let comment = match (holds, column) {
        (Holds::Rejects, RAW_OBJECT) => "raw object that holds the record",
        (Holds::Rejects, "raw_offset") => "byte at which the record begins",
        (Holds::Rejects, "raw_bytes") => "bytes of the record",
        (Holds::Rejects, "raw_text") => "text of the record, cut at 65,535 bytes",
        (_, RAW_OBJECT) => "raw object that holds the event",
        (_, RAW_RECORD) => "number of the record in the raw object, from 1",
        (_, RECORD_SHA256) => "SHA-256 of the bytes of the record",
        (_, EXTRA) => "JSON: the members that no column names",
        (_, RULE) => "rule that dropped the event",
        (_, KEPT_OBJECT) => "raw object of the event that displaced this one",
        (_, KEPT_RECORD) => "record number of the event that displaced this one",
        _ => {
            let mut columns = source.decode.columns.iter();
            let declared = columns.find(|declared| declared.name == column)?;
            match declared.kind {
                ColumnType::Json => "JSON text",
                ColumnType::Timestamp if source.decode.unit == TimeUnit::Us => "UTC, microseconds",
                ColumnType::Timestamp => "UTC, milliseconds",
                _ => return None,
            }
        }
    };
    Some(comment.to_owned())
}

fn partition_comment(
    job: &Job,
    source: Option<&Source>,
    holds: Holds,
    column: &str,
) -> Option<String> {
    let source = source?;
    let zone = job.timezone;
    let event_time = &source.decode.event_time;
    match (holds, column) {
        (Holds::Rejects, DATE) => Some(format!("date in {zone} at which the raw object arrived")),
        (_, DATE) => Some(format!("date of {event_time} in {zone}")),
        (_, HOUR) => Some(format!("hour of {event_time} in {zone}, 00 to 23")),
        _ => None,
    }
}
