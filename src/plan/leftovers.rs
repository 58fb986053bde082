//! Data files that a rebuild emptied at places where the table has no files any more.
//!
//! ```text
//! another partition_by or slice of a source, another `partition:` of a mart
//!   ─▶ the rebuild writes rows at new places, and files without rows at the old ones ─▶ COMMIT n
//!   ─▶ the files at the old places are removed                                      ─▶ COMMIT n+1
//! ```
//!
//! A reader that finds `m/part-00000.parquet` beside `m/dt=2019-04-02/part-00000.parquet` takes neither for a table.
//! The files to remove follow from the log and the configuration alone, so a run that dies between the two commits
//! leaves them to the next run.

use std::collections::BTreeMap;

use super::Marts;
use crate::config::Job;
use crate::event::Place;
use crate::ledger::{File, RemovedFile, State};

/// The files to remove. A table that is still as other settings made it keeps all its files, and so does a table that
/// would have no file left.
pub fn leftovers(job: &Job, marts: Marts<'_>, state: &State) -> Vec<RemovedFile> {
    let mut removed = Vec::new();
    for source in &job.sources {
        let slicing = job.slicing(source);
        let known = state.sources.get(&source.name);
        let settings = known.and_then(|known| known.settings.as_ref());
        if settings.is_none_or(|settings| settings.slicing != slicing) {
            continue;
        }
        let belongs = |file: &File| {
            let place = Place::of(&file.entry.partition, &file.entry.name);
            place.is_some_and(|place| slicing.makes(place))
        };
        // A reject lies in the one file of the date of its arrival, whatever the slicing is.
        let [kept, duplicates, _] = source.tables();
        for table in [kept, duplicates] {
            removed.extend(of_table(state, &table, belongs));
        }
    }
    for (mart, table) in marts.marts.iter().zip(marts.tables) {
        let built = state.marts.get(&mart.name);
        if built.is_none_or(|built| built.entry.sql != mart.fingerprint) {
            continue;
        }
        let belongs = |file: &File| {
            let columns = file.entry.partition.iter().map(|(column, _)| column);
            columns.eq(&table.partition_columns)
        };
        removed.extend(of_table(state, &mart.name, belongs));
    }
    removed
}

/// The files of one table that have no rows and do not belong to it any more.
fn of_table(state: &State, table: &str, belongs: impl Fn(&File) -> bool) -> Vec<RemovedFile> {
    let files = state.files.iter();
    let files: BTreeMap<&String, &File> = files
        .filter(|(_, file)| file.entry.table == table)
        .collect();
    if !files.values().any(|file| belongs(file)) {
        return Vec::new();
    }
    let left = files
        .into_iter()
        .filter(|(_, file)| file.entry.rows == 0 && !belongs(file));
    let left = left.map(|(key, file)| RemovedFile {
        key: key.clone(),
        etag: file.etag.clone(),
    });
    left.collect()
}
