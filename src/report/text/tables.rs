//! The tables of a lake.

use std::io::{Result, Write};
use std::path::Path;

use super::{bytes, count, place};
use crate::catalog::Holds;
use crate::run::Tables;

/// Writes each table: a line of sizes, then its columns, for somebody in the folder `here`.
pub fn tables(out: &mut impl Write, tables: &Tables, here: Option<&Path>) -> Result<()> {
    for table in &tables.tables {
        let holds = match (table.holds, &table.source) {
            (Holds::Kept, Some(source)) => format!("kept events of {source}"),
            (Holds::Duplicates, Some(source)) => format!("duplicates of {source}"),
            (Holds::Rejects, Some(source)) => format!("rejects of {source}"),
            (Holds::Mart, _) => "mart".to_owned(),
            _ => "of no source or mart of this configuration".to_owned(),
        };
        writeln!(out, "{}  {holds}", table.name)?;
        let folders = || table.partitions.iter().map(|partition| &partition.folder);
        let partitions = match (folders().next(), folders().next_back()) {
            (Some(first), Some(last)) if !first.is_empty() => {
                format!(
                    "  {} partitions, {first} to {last}",
                    count(table.partitions.len() as u64)
                )
            }
            _ => String::new(),
        };
        writeln!(
            out,
            "  {} rows  {} in {} files{partitions}  commit {}",
            count(table.rows),
            bytes(table.bytes),
            count(table.files),
            table.last_commit
        )?;
        let all = table.columns.iter().chain(&table.partition_columns);
        let width = all.clone().map(|column| column.name.chars().count()).max();
        let width = width.unwrap_or(0);
        for (i, column) in all.enumerate() {
            let partition = if i < table.columns.len() {
                ""
            } else {
                "  partition"
            };
            let comment = column.comment.as_deref();
            let comment = comment.map_or(String::new(), |comment| format!("  {comment}"));
            writeln!(
                out,
                "    {:width$}  {}{partition}{comment}",
                column.name, column.kind
            )?;
        }
    }
    let lake = place(&tables.lake, here);
    match tables.last_commit {
        0 => writeln!(out, "{lake}: no run has committed yet."),
        last => writeln!(
            out,
            "{lake}: {} tables after {} commits.",
            tables.tables.len(),
            count(last)
        ),
    }
}
