//! Compares the files that were written with the records that were read and counted. This is P2. It is checked
//! before anything is committed.
//!
//! ```text
//! files ──check_rows──▶ each has the rows that were counted for its place
//!       ──check_lost──▶ each lost file has its rows again
//! counts of raw objects, verdicts ──balance──▶ records = events + rejects, events = kept + duplicates
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use super::decode::DecodedObject;
use super::merge::Expected;
use super::stored::StoredTables;
use super::{AbsorbError, Absorbed, Incomplete, Input, Noticed, Settings, ValueCounts, WhySlice};
use crate::catalog::TableDefinition;
use crate::event::Place;
use crate::ledger::{Balance, ObjectEntry, Sha256};
use crate::publish::Finished;

/// The changes of the counts by a merge.
pub struct Counts {
    /// The change of the number of kept events, …
    pub kept: i64,
    /// … and the change of the number of duplicates of each rule.
    pub by_rule: Vec<i64>,
    /// The number of stored events that were taken out.
    pub gone: i64,
    /// The number of slices that changed, by the reason of the change.
    pub slices: BTreeMap<WhySlice, u64>,
}

/// Checks that every file has the number of rows that it must have.
///
/// # Errors
/// [`AbsorbError::Unbalanced`] if not.
pub fn check_rows(files: &[Finished], expected: &Expected) -> Result<(), AbsorbError> {
    let mut written: BTreeMap<(String, u64), i64> = BTreeMap::new();
    for file in files {
        let place = Place::of(&file.partition, &file.name);
        let place = place.ok_or_else(|| {
            AbsorbError::Defect(format!("{} of {} has no place", file.name, file.table))
        })?;
        let slice = (file.table.clone(), place.sortable());
        *written.entry(slice).or_default() += file.rows.cast_signed();
    }
    let slices: BTreeSet<_> = written.keys().chain(expected.rows.keys()).collect();
    for slice in slices {
        let wrote = written.get(slice).unwrap_or(&0);
        let counted = expected.rows.get(slice).unwrap_or(&0);
        if wrote != counted {
            let (table, place) = slice;
            let place = Place::from_sortable(*place).map(|place| {
                let folder = crate::layout::partition_folder(&place.partition());
                format!("{folder}/{}", crate::layout::file_name(place.slice))
            });
            return Err(AbsorbError::Unbalanced(format!(
                "{wrote} rows were written to {table}/{}, and {counted} were counted",
                place.as_deref().unwrap_or("no place")
            )));
        }
    }
    Ok(())
}

/// Checks that every lost file has its number of rows again.
///
/// # Errors
/// [`AbsorbError::Irreparable`] if not.
pub fn check_lost(
    files: &[Finished],
    input: &Input,
    stored: &StoredTables,
) -> Result<(), AbsorbError> {
    for lost in input.lost.iter().map(|file| &file.entry) {
        let same = |file: &&Finished| {
            (&file.table, &file.partition, &file.name) == (&lost.table, &lost.partition, &lost.name)
        };
        let rows = files.iter().find(same).map_or(0, |file| file.rows);
        if rows != lost.rows {
            return Err(AbsorbError::Irreparable {
                url: stored.lake.url_of(&lost.key()),
                why: format!("it had {} rows, and raw gives {rows}", lost.rows),
            });
        }
    }
    Ok(())
}

/// Checks P2: the counts of the records that were read against the counts of the rows that were written.
///
/// # Errors
/// [`AbsorbError::Unbalanced`] where they differ.
pub fn balance(
    settings: &Settings,
    input: &Input,
    stored: &StoredTables,
    read: Vec<DecodedObject>,
    counts: Counts,
) -> Result<Absorbed, AbsorbError> {
    let mut absorbed = read_objects(input, read)?;
    absorbed.stored_bytes = stored.read.load(Ordering::Relaxed);
    absorbed.slices = counts.slices;
    let balance = &mut absorbed.balance;
    balance.kept = counts.kept;
    for object in &absorbed.objects {
        balance.count(object, 1);
    }
    let mut left = 0;
    let leaving = input.leaving.iter();
    for object in leaving.filter_map(|name| input.known.objects.get(name)) {
        balance.count(&object, -1);
        left += object.events.cast_signed();
    }
    for (rule, count) in stored.rules.iter().zip(counts.by_rule) {
        if count != 0 {
            balance.duplicates.insert(rule.clone(), count);
        }
    }
    let [kept_table, duplicates_table, _] = &settings.tables;
    let lost = |table: &TableDefinition| -> i64 {
        let files = input.lost_of(&table.name);
        files.map(|file| file.entry.rows.cast_signed()).sum()
    };
    let (lost_kept, lost_duplicates) = (lost(kept_table), lost(duplicates_table));
    if !input.lost.is_empty() {
        // Lost events come back under the same rules, so the numbers must agree rule by rule.
        let came: i64 = balance.duplicates.values().sum();
        if came != lost_duplicates {
            return Err(AbsorbError::Unbalanced(format!(
                "{came} duplicates came in the place of {lost_duplicates}"
            )));
        }
        balance.duplicates.clear();
        balance.kept -= lost_kept;
    }
    let gone = counts.gone;
    if gone + lost_kept + lost_duplicates != left && !input.anew {
        return Err(AbsorbError::Unbalanced(format!(
            "{gone} stored events were taken out, and the log counted {left} of their raw objects"
        )));
    }
    if input.anew {
        balance.subtract(&input.known.balance);
    }
    match balance.imbalance() {
        Some(imbalance) => Err(AbsorbError::Unbalanced(imbalance)),
        None => Ok(absorbed),
    }
}

/// The log entries of the objects that were read, and the objects that are not whole.
fn read_objects(input: &Input, read: Vec<DecodedObject>) -> Result<Absorbed, AbsorbError> {
    let mut values = ValueCounts::default();
    let mut empty: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut incomplete = Incomplete::default();
    let mut objects = Vec::with_capacity(read.len());
    for (read, object) in read.into_iter().zip(&input.objects) {
        let (found, counts) = (&object.found, read.counts);
        incomplete.note(&found.identity, &counts);
        values.add(ValueCounts {
            nulled: counts.nulled,
            coerced: counts.coerced,
            unreached: counts.unreached,
        });
        for (kind, count) in counts.empty {
            *empty.entry(kind).or_default() += count;
        }
        objects.push(ObjectEntry {
            key: found.identity.to_string(),
            etag: read.etag,
            size: counts.bytes,
            sha256: Sha256(counts.sha256),
            arrival_ms: found.arrival_ms,
            records: counts.records,
            events: counts.events,
            rejects: counts.rejects,
            times: read.times,
        });
    }
    if objects.len() != input.objects.len() {
        return Err(AbsorbError::Unbalanced(format!(
            "{} of {} raw objects were read",
            objects.len(),
            input.objects.len()
        )));
    }
    Ok(Absorbed {
        objects,
        balance: Balance::default(),
        values,
        empty,
        incomplete,
        stored_bytes: 0,
        slices: BTreeMap::new(),
        noticed: Noticed::default(),
    })
}
