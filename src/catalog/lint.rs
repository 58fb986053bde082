//! What some reader could not read, or reads slowly.
//!
//! ```text
//! columns and their types ──▶ types ─┐
//! names ─────────────────────────────┼──▶ [Finding]: reader, table, column, reason, remedy
//! partitions, files, bytes ──────────┘
//! ```
//!
//! Only the log is looked at, and no data file. A value that is too long for a reader is therefore not found.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, Schema, TimeUnit};
use serde::Serialize;

use super::TableDescription;
use crate::config::Reader;
use crate::layout::{DATE, HOUR};

/// Partitions beyond which readers are slow.
const MANY_PARTITIONS: u64 = 10_000;
/// Spectrum may time out on larger files.
const LARGE_FILE: u64 = 1 << 30;
/// Opening a smaller file costs more than reading it.
const SMALL_FILE: u64 = 1 << 20;
/// A table of fewer files is read at once, however small they are.
const FEW_FILES: u64 = 100;
/// A day of fewer bytes needs no partitions by hour.
const SMALL_DAY: u64 = 512 << 20;

/// One thing that a reader cannot read, or reads slowly.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// `None` where it concerns every reader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reader: Option<Reader>,
    /// The name of the table.
    pub table: String,
    /// The name of the column; `None` where it concerns the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// Whether the reader cannot read the column or the table. Otherwise it reads it, at a cost.
    pub unreadable: bool,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

/// What of the types of a table's columns some of the readers cannot read.
pub fn types(table: &str, schema: &Schema, readers: &[Reader]) -> Vec<Finding> {
    let mut found = Vec::new();
    for field in schema.fields() {
        for reader in readers {
            let told = of_type(*reader, field.data_type());
            found.extend(told.map(|(reason, remedy)| Finding {
                reader: Some(*reader),
                table: table.to_owned(),
                column: Some(field.name().clone()),
                unreadable: true,
                reason: reason.to_owned(),
                remedy: remedy.to_owned(),
            }));
        }
    }
    found
}

/// Why a reader cannot read a type, and what to do.
fn of_type(reader: Reader, kind: &DataType) -> Option<(&'static str, &'static str)> {
    let any = |test: &dyn Fn(&DataType) -> bool| contains(kind, test);
    let is_nested = |kind: &DataType| matches!(kind, DataType::List(_) | DataType::Map(..));
    match reader {
        Reader::Athena if any(&|kind| is_timestamp(kind, TimeUnit::Microsecond)) => Some((
            "its timestamps have milliseconds; it rounds microseconds, or the query fails",
            "set `timestamp_unit = \"ms\"` for the source, or leave athena out of `readers`",
        )),
        Reader::Spectrum
            if any(&|kind| {
                inner(kind)
                    .into_iter()
                    .any(|kind| contains(kind, &is_nested))
            }) =>
        {
            Some((
                "it reads no array or map inside an array or a map",
                "declare the column as `json`, or take the inner values apart in a mart",
            ))
        }
        Reader::Hive3 if any(&|kind| matches!(kind, DataType::Timestamp(..))) => Some((
            "its timestamps are INT96 of Parquet, which rawmart does not write",
            "declare the column as bigint, as `rawmart ddl --dialect hive --hive 3` does",
        )),
        Reader::Hive3
            if any(
                &|kind| matches!(kind, DataType::Decimal128(precision, _) if *precision <= 18),
            ) =>
        {
            Some((
                "it reads no decimals of 18 digits or fewer that are stored as integers",
                "declare 19 digits or more",
            ))
        }
        _ => None,
    }
}

fn is_timestamp(kind: &DataType, of: TimeUnit) -> bool {
    matches!(kind, DataType::Timestamp(unit, _) if *unit == of)
}

/// The types of the values inside an array or a map.
fn inner(kind: &DataType) -> Vec<&DataType> {
    match kind {
        DataType::List(item) => vec![item.data_type()],
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => fields.iter().map(|field| field.data_type()).collect(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// Whether a type, or a type inside it, passes a test.
fn contains(kind: &DataType, test: &dyn Fn(&DataType) -> bool) -> bool {
    test(kind)
        || match kind {
            DataType::Struct(fields) => {
                let mut fields = fields.iter();
                fields.any(|field| contains(field.data_type(), test))
            }
            other => inner(other).into_iter().any(|kind| contains(kind, test)),
        }
}

/// Words that a query must quote, beside those that no SQL reads as a name.
const RESERVED: [(&[Reader], &str); 3] = [
    (
        &[Reader::Athena, Reader::Trino],
        "alter constraint cube current_catalog current_path current_role current_schema deallocate describe escape \
         execute extract grouping json_array json_exists json_object json_query json_table json_value listagg \
         localtime localtimestamp normalize prepare recursive rollup skip trim uescape unnest",
    ),
    (
        &[Reader::Spectrum, Reader::Redshift],
        "analyse analyze any array asc authorization binary both check collate column constraint default deferrable \
         desc do explicit foreign freeze grant identity ignore ilike initially isnull language leading limit \
         localtime localtimestamp minus new notnull nulls off offset offline old only open overlaps parallel \
         partition percent permissions placing primary raw references respect restore session_user similar some \
         sysdate system tag to top trailing unique user verbose wallet without",
    ),
    (
        &[Reader::Hive, Reader::Hive3],
        "alter array authorization bigint binary boolean both char column conf cube current cursor database date \
         decimal describe double exchange extended external fetch float following function grant grouping if import \
         int interval lateral less local macro map more none of out over partialscan partition percent preceding \
         preserve procedure range reads reduce revoke rollup row rows set smallint tablesample timestamp to \
         transform trigger truncate unbounded uniquejoin update user varchar window",
    ),
];

/// Words that every reader of SQL reserves.
const RESERVED_BY_ALL: &str = "all and as between by case cast create cross current_date current_time \
    current_timestamp current_user delete distinct drop else end except exists false for from full group having in \
    inner insert intersect into is join left like natural not null on or order outer right select table then true \
    union using values when where with";

/// The names of a table and its columns that a reader reserves.
pub fn names(table: &TableDescription, readers: &[Reader]) -> Vec<Finding> {
    let columns = table.columns.iter().chain(&table.partition_columns);
    let columns = columns.map(|column| (Some(column.name.clone()), column.name.as_str()));
    let mut found = Vec::new();
    for (column, name) in columns.chain([(None, table.name.as_str())]) {
        for reader in readers {
            let own = RESERVED.iter().filter(|(of, _)| of.contains(reader));
            let mut words = own.map(|(_, words)| *words).chain([RESERVED_BY_ALL]);
            if words.any(|words| words.split_whitespace().any(|word| word == name)) {
                let quote = match reader {
                    Reader::Hive | Reader::Hive3 | Reader::Spark => format!("`{name}`"),
                    _ => format!("\"{name}\""),
                };
                found.push(Finding {
                    reader: Some(*reader),
                    table: table.name.clone(),
                    column: column.clone(),
                    unreadable: false,
                    reason: "the name is a reserved word".to_owned(),
                    remedy: format!("quote it in queries, {quote}, or give another name"),
                });
            }
        }
    }
    found
}

/// What the numbers of partitions and the sizes of files of a table say.
pub fn sizes(table: &TableDescription, readers: &[Reader]) -> Vec<Finding> {
    let advice = |reason: String, remedy: &str| Finding {
        reader: None,
        table: table.name.clone(),
        column: None,
        unreadable: false,
        reason,
        remedy: remedy.to_owned(),
    };
    let mut found = Vec::new();
    let partitions = table.partitions.len() as u64;
    let coarser = match &table.source {
        Some(_) => "set `partition_by = \"day\"`",
        None => "partition by a coarser column, such as a month, or leave `-- partition:` out",
    };
    if partitions > MANY_PARTITIONS {
        let reason = format!("it has {partitions} partitions, and readers list all of them");
        found.push(advice(reason, coarser));
    }
    let with_rows = table.partitions.iter().filter(|part| part.rows > 0);
    let (files, bytes) = with_rows.fold((0, 0), |(files, bytes), part| {
        (files + part.files, bytes + part.bytes)
    });
    let names: Vec<&str> = table
        .partition_columns
        .iter()
        .map(|c| c.name.as_str())
        .collect();
    if names == [DATE, HOUR] {
        let days = table.partitions.iter().filter(|part| part.rows > 0);
        let days: BTreeSet<_> = days.filter_map(|part| part.values.first()).collect();
        let day = bytes / (days.len() as u64).max(1);
        if files > 0 && day < SMALL_DAY {
            let reason = format!(
                "its partitions are hours, and a day has {} MB in {} files",
                day >> 20,
                files / (days.len() as u64).max(1)
            );
            found.push(advice(reason, coarser));
        }
    } else if files > FEW_FILES && bytes / files < SMALL_FILE {
        let reason = format!(
            "it has {files} files of {} KB, and opening a file costs more than reading it",
            (bytes / files) >> 10
        );
        let remedy = match &table.source {
            Some(_) => "set a larger `slice`; a table of few events a day needs no remedy",
            None => coarser,
        };
        found.push(advice(reason, remedy));
    }
    let large = |part: &&super::PartitionDescription| part.bytes / part.files.max(1) > LARGE_FILE;
    if let (true, Some(part)) = (
        readers.contains(&Reader::Spectrum),
        table.partitions.iter().find(large),
    ) {
        found.push(Finding {
            reader: Some(Reader::Spectrum),
            ..advice(
                format!(
                    "files of {} are larger than 1 GB, and queries may time out",
                    part.folder
                ),
                "set a smaller `slice`, or partition the mart by more columns",
            )
        });
    }
    found
}
