//! The tables that a source makes: their columns, in the order that the log keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::TableDefinition;
use crate::config::{Job, Source};
use crate::event::{
    ColumnType, EXTRA, KEPT_OBJECT, KEPT_RECORD, PartitionBy, RAW_OBJECT, RAW_RECORD,
    RECORD_SHA256, RULE,
};
use crate::layout::{DATE, HOUR};
use crate::time::TimeUnit;

/// The tables of one source.
#[derive(Debug, Clone)]
pub struct SourceTables {
    /// Kept events.
    pub events: TableDefinition,
    /// Duplicates, with the rule and the event that displaced each.
    pub duplicates: TableDefinition,
    /// Records that are no events.
    pub rejects: TableDefinition,
}

/// The columns of a table as the log keeps them: names and types, in order.
pub type Columns = Vec<(String, String)>;

impl SourceTables {
    /// The tables as configured. `known` holds the columns of each table in the log. These columns come first, in the
    /// order of the log, so that a new column is always the last: COPY of Redshift reads columns by position.
    pub fn new(source: &Source, known: &BTreeMap<String, Columns>) -> Self {
        let unit = source.decode.unit;
        let mut events: Vec<Field> = source
            .decode
            .columns
            .iter()
            .map(|column| Field::new(&column.name, column.kind.arrow(unit), true))
            .collect();
        if source.decode.record_sha256 {
            events.push(Field::new(RECORD_SHA256, DataType::Utf8, true));
        }
        events.push(Field::new(RAW_OBJECT, DataType::Utf8, true));
        events.push(Field::new(RAW_RECORD, DataType::Int64, true));
        events.push(Field::new(EXTRA, DataType::Utf8, true));
        let mut duplicates = events.clone();
        duplicates.push(Field::new(RULE, DataType::Utf8, true));
        duplicates.push(Field::new(KEPT_OBJECT, DataType::Utf8, true));
        duplicates.push(Field::new(KEPT_RECORD, DataType::Int64, true));
        let partition = partition_columns(source.partition_by);
        let table = |name: String, fields: Vec<Field>, partition: &[&str]| TableDefinition {
            schema: in_order(fields, known.get(&name)),
            partition_columns: partition.iter().map(|&column| column.to_owned()).collect(),
            name,
        };
        Self {
            events: table(source.name.clone(), events, partition),
            duplicates: table(format!("{}_duplicates", source.name), duplicates, partition),
            rejects: table(format!("{}_rejects", source.name), reject_fields(), &[DATE]),
        }
    }

    /// The three tables: events, duplicates, rejects.
    pub fn all(&self) -> [&TableDefinition; 3] {
        [&self.events, &self.duplicates, &self.rejects]
    }

    /// The tables of all sources of a job.
    pub fn of(job: &Job, known: &BTreeMap<String, Columns>) -> Vec<Self> {
        job.sources
            .iter()
            .map(|source| Self::new(source, known))
            .collect()
    }
}

/// The partition columns of event tables, in the order of the folders.
pub(super) const fn partition_columns(by: PartitionBy) -> &'static [&'static str] {
    match by {
        PartitionBy::Day => &[DATE],
        PartitionBy::Hour => &[DATE, HOUR],
    }
}

/// The columns of a table of rejects.
pub fn reject_fields() -> Vec<Field> {
    vec![
        Field::new(RAW_OBJECT, DataType::Utf8, true),
        Field::new(RAW_RECORD, DataType::Int64, true),
        Field::new("raw_offset", DataType::Int64, true),
        Field::new("raw_bytes", DataType::Int64, true),
        Field::new("reason", DataType::Utf8, true),
        Field::new("detail", DataType::Utf8, true),
        Field::new("raw_text", DataType::Utf8, true),
    ]
}

/// The columns of a table as the log keeps them.
pub fn columns(schema: &Schema) -> Columns {
    let name = |kind: &DataType| match ColumnType::from_arrow(kind) {
        Some(kind) => kind.to_string(),
        None => kind.to_string(),
    };
    schema
        .fields()
        .iter()
        .map(|field| (field.name().clone(), name(field.data_type())))
        .collect()
}

/// The unit of the timestamps of a table. All of them have the same; a table without timestamps has milliseconds.
pub fn timestamp_unit(schema: &Schema) -> TimeUnit {
    let mut fields = schema.fields().iter();
    match fields.any(|field| has_microseconds(field.data_type())) {
        true => TimeUnit::Us,
        false => TimeUnit::Ms,
    }
}

fn has_microseconds(kind: &DataType) -> bool {
    match kind {
        DataType::Timestamp(unit, _) => *unit == arrow::datatypes::TimeUnit::Microsecond,
        DataType::List(item) | DataType::Map(item, _) => has_microseconds(item.data_type()),
        DataType::Struct(fields) => fields
            .iter()
            .any(|field| has_microseconds(field.data_type())),
        _ => false,
    }
}

/// A schema with the columns that the log knows first, in the order of the log.
fn in_order(fields: Vec<Field>, known: Option<&Columns>) -> SchemaRef {
    let rank = |field: &Field| {
        let known = known.into_iter().flatten();
        known
            .enumerate()
            .find(|(_, (name, _))| name == field.name())
            .map_or(usize::MAX, |(i, _)| i)
    };
    let mut fields = fields;
    fields.sort_by_key(rank);
    Arc::new(Schema::new(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_column_is_the_last() {
        let field = |name: &str| Field::new(name, DataType::Utf8, true);
        let known = vec![
            ("b".to_owned(), "string".to_owned()),
            ("a".to_owned(), "string".to_owned()),
        ];
        let ordered = in_order(vec![field("new"), field("a"), field("b")], Some(&known));
        let names: Vec<_> = ordered.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names, ["b", "a", "new"]);
    }

    #[test]
    fn columns_read_back_from_the_log() {
        let text = "struct<a:int,b:array<map<string,decimal(9,2)>>,c:timestamp>";
        let kind: ColumnType = text.parse().unwrap();
        for unit in [TimeUnit::Ms, TimeUnit::Us] {
            let schema = Schema::new(vec![Field::new("x", kind.arrow(unit), true)]);
            assert_eq!(columns(&schema), [("x".to_owned(), text.to_owned())]);
        }
    }
}
