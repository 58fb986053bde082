//! Plans the steps that make lost data files again.
//!
//! ```text
//! a lost file of a source ─▶ the raw objects that may have rows in it, read as if replaced by themselves
//!                            all of them where the tables would not be made in the same way
//! a lost file of a mart ──▶ its dates, built from SQL
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::{Listed, Moved, SourcePlan, Step, Why, new_objects, settings};
use crate::config::{Job, OnChangedObject, Source};
use crate::event::{Place, Slicing};
use crate::layout;
use crate::ledger::{File, FoundFile, ObjectEntry, Settings, SourceState, State};
use crate::time::TimeUnit;

/// The published files that are to be made again: the key of each, with the ETag of the object in its place.
#[derive(Debug, Clone, Default)]
pub struct Lost(pub BTreeMap<String, Option<String>>);

impl Lost {
    /// Whether no file is lost.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The objects in the places of the lost files of a table.
    pub fn of_table<'l>(&'l self, table: &'l str) -> impl Iterator<Item = FoundFile> + 'l {
        let of_table = self.0.iter();
        let of_table = of_table.filter(move |(key, _)| layout::table_of(key) == table);
        of_table.map(|(key, etag)| FoundFile {
            key: key.clone(),
            etag: etag.clone(),
        })
    }

    /// The dates of each table that are to be made again.
    pub fn moved(&self, state: &State) -> BTreeMap<String, Moved> {
        let mut moved: BTreeMap<String, Moved> = BTreeMap::new();
        for file in self.0.keys().filter_map(|key| state.files.get(key)) {
            let lost = moved.entry(file.entry.table.clone()).or_default();
            match file.entry.date() {
                Some(date) => _ = lost.dates.insert(date),
                None => lost.all = true,
            }
        }
        moved
    }
}

/// The reason why lost files cannot be made again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the words of each value say what its fields are"
)]
pub enum Unrepairable {
    /// This file cannot be made again.
    File { key: String, why: String },
    /// Raw objects of a source that are needed have other content now.
    Changed {
        source: String,
        count: usize,
        first: String,
    },
}

/// Plans the steps that make the lost files of sources again. `marts` are the tables of the job's marts.
///
/// # Errors
/// The first file that cannot be made again, or whose raw objects are gone or changed.
pub fn plan_repair(
    job: &Job,
    listed: &[Listed<'_>],
    marts: &[&str],
    state: &State,
    lost: &Lost,
) -> Result<Vec<SourcePlan>, Unrepairable> {
    let mut by_source: BTreeMap<&str, Vec<&File>> = BTreeMap::new();
    for (key, file) in lost
        .0
        .keys()
        .filter_map(|key| state.files.get_key_value(key))
    {
        let table = &file.entry.table;
        let makes = |listed: &&Listed<'_>| listed.source.tables().contains(table);
        match listed.iter().find(makes) {
            Some(listed) => by_source.entry(&listed.source.name).or_default().push(file),
            None if marts.contains(&table.as_str()) => {}
            None => {
                return Err(Unrepairable::File {
                    key: key.clone(),
                    why: format!("the configuration has no source and no mart that makes {table}"),
                });
            }
        }
    }
    let plans = listed.iter().map(|listed| {
        let name = listed.source.name.as_str();
        let known = state.sources.get(name);
        let nothing = SourcePlan::nothing(listed, known, &new_objects(listed, known));
        let mut lost = by_source.remove(name).unwrap_or_default();
        lost.retain(|file| file.entry.rows > 0);
        match (lost.first(), known) {
            (Some(first), Some(known)) => plan_source(job, listed, known, (first, &lost), nothing),
            _ => Ok(nothing),
        }
    });
    plans.collect()
}

/// Plans to read every raw object again that may have rows in the lost files of a source. `first` is one of
/// these files. If the tables would not be made in the same way, all raw objects are read.
fn plan_source(
    job: &Job,
    listed: &Listed<'_>,
    known: &SourceState,
    (first, lost): (&File, &[&File]),
    nothing: SourcePlan,
) -> Result<SourcePlan, Unrepairable> {
    let source = listed.source;
    let now = settings(job, source);
    // A column that is null on some dates may be filled there by the repair.
    let same = |known: &Settings| {
        Settings {
            unfilled: now.unfilled.clone(),
            ..known.clone()
        } == now
    };
    let other = !known.settings.as_ref().is_some_and(same);
    let replace = source.on_changed_object == OnChangedObject::Replace;
    let anew = other || replace && !listed.changed.is_empty();
    let held = known.objects.values().filter(|object| {
        let holds = |file: &&File| may_hold(object, file, source, now.slicing);
        anew || lost.iter().any(holds)
    });
    let held: BTreeSet<String> = held.map(|object| object.key.clone()).collect();
    let gone = nothing.vanished.iter().filter(|key| held.contains(*key));
    if let Some(name) = gone.clone().next() {
        return Err(Unrepairable::File {
            key: first.entry.key(),
            why: format!(
                "{} raw objects of {} that it takes are gone, first {name}; restore them, then repair again",
                gone.count(),
                source.name
            ),
        });
    }
    let changed = listed.changed.iter().filter(|key| held.contains(*key));
    if let (Some(first), false) = (changed.clone().next(), replace) {
        return Err(Unrepairable::Changed {
            source: source.name.clone(),
            count: changed.count(),
            first: first.clone(),
        });
    }
    let objects = listed.found.objects.iter().enumerate();
    let read: Vec<(usize, u64)> = objects
        .filter(|(_, found)| held.contains(&*found.identity))
        .map(|(i, found)| (i, found.size))
        .collect();
    let step = Step {
        objects: read.len() as u64,
        bytes: read.iter().map(|(_, size)| size).sum(),
        leaving: if anew { BTreeSet::new() } else { held },
        again: None,
        only: None,
        fill: BTreeSet::new(),
        anew,
        read: read.into_iter().map(|(i, _)| i).collect(),
    };
    Ok(SourcePlan {
        why: Some(Why::Rebuild),
        settings: other.then_some(now),
        steps: vec![step],
        ..nothing
    })
}

/// Whether some rows of a data file may come from a raw object.
fn may_hold(object: &ObjectEntry, file: &File, source: &Source, slicing: Slicing) -> bool {
    let [_, _, rejects] = source.tables();
    if file.entry.table == rejects {
        let place = Place::of(&file.entry.partition, &file.entry.name);
        let (arrival, ..) = slicing.place(object.arrival_ms, TimeUnit::Ms);
        return !object.rejects.is_empty() && place.is_none_or(|place| place.date == arrival.date);
    }
    // Format 1 of the log has no times of raw objects.
    let (first, last) = object.times.unwrap_or((i64::MIN, i64::MAX));
    let meets = |(from, to)| from <= last && first <= to;
    object.events > 0 && file.entry.times.is_none_or(meets)
}
