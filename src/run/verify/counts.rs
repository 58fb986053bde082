//! Checks P2 from the counts in the log.
//!
//! ```text
//! raw objects ─┬─▶ records = events + rejects           each
//!              ├─▶ sums = the commits' sums              source
//!              ├─▶ rejects by arrival = rows of files    date
//!              └─▶ events, first and last time           date: at least those of objects that lie
//!                       = kept + duplicates                    in it whole, at most those that reach it
//! ```

use std::collections::BTreeMap;

use chrono::NaiveDate;

use super::Damage;
use crate::event::{PartitionBy, Place, Slicing};
use crate::ledger::{Balance, File, Settings, SourceState, State};
use crate::time::TimeUnit;

/// Checks P2 for every object, and for every source and date against the rows of its tables.
pub fn check(state: &State) -> Vec<Damage> {
    let mut damage = Vec::new();
    for (name, source) in &state.sources {
        let mut sum = Balance::default();
        for object in source.objects.values() {
            let rejects: u64 = object.rejects.values().sum();
            if object.records != object.events + rejects {
                damage.push(Damage::Object {
                    source: name.clone(),
                    key: object.key.clone(),
                    records: object.records,
                    events: object.events,
                    rejects,
                });
            }
            sum.records += object.records.cast_signed();
            sum.events += object.events.cast_signed();
            for (reason, count) in &object.rejects {
                *sum.rejects.entry(*reason).or_default() += count.cast_signed();
            }
        }
        let mut say = |message: String| {
            damage.push(Damage::Balance {
                source: name.clone(),
                message,
            })
        };
        let balance = &source.balance;
        if let Some(message) = balance.imbalance() {
            say(message);
        }
        if (sum.records, sum.events, &sum.rejects)
            != (balance.records, balance.events, &balance.rejects)
        {
            say(format!(
                "the raw objects have {} records and {} events, and the commits have {} and {}",
                sum.records, sum.events, balance.records, balance.events
            ));
        }
        let duplicates: i64 = balance.duplicates.values().sum();
        let rejects: i64 = balance.rejects.values().sum();
        for (table, expected) in [
            (name.clone(), balance.kept),
            (format!("{name}_duplicates"), duplicates),
            (format!("{name}_rejects"), rejects),
        ] {
            let rows: u64 = state.table(&table).map(|file| file.entry.rows).sum();
            if rows.cast_signed() != expected {
                say(format!(
                    "{table} has {rows} rows, and the log counts {expected}"
                ));
            }
        }
        if let Some(settings) = &source.settings {
            for message in dates(name, source, settings, state) {
                say(message);
            }
        }
    }
    damage
}

/// Checks P2 for every date.
fn dates(name: &str, source: &SourceState, settings: &Settings, state: &State) -> Vec<String> {
    let mut faults = Vec::new();
    let slicing = settings.slicing;
    let unit = settings.decode.unit;
    let duplicates = format!("{name}_duplicates");
    let rows = rows(state.table(name).chain(state.table(&duplicates)));
    let mut spans: Vec<Span> = rows
        .into_iter()
        .map(|(date, rows)| Span {
            date,
            rows,
            times: slicing.times(date, date, unit),
            least: 0,
            most: 0,
        })
        .collect();
    for object in source.objects.values().filter(|object| object.events > 0) {
        // Format 1 of the log has no times of raw objects.
        let (first, last) = object.times.unwrap_or((i64::MIN, i64::MAX));
        let from = spans.partition_point(|span| span.times.1 < first);
        let to = spans.partition_point(|span| span.times.0 <= last);
        match spans.get_mut(from..to.max(from)) {
            Some([only]) => {
                only.least += object.events;
                only.most += object.events;
            }
            Some([]) | None => faults.push(format!(
                "no date has the {} events of raw object {}",
                object.events, object.key
            )),
            Some(several) => several
                .iter_mut()
                .for_each(|span| span.most += object.events),
        }
    }
    let wrong = spans
        .iter()
        .filter(|span| span.rows < span.least || span.most < span.rows);
    faults.extend(wrong.map(|span| {
        let Span {
            date,
            rows,
            least,
            most,
            ..
        } = span;
        format!("{date} has {rows} kept + duplicates, and its raw objects {least} to {most} events")
    }));
    let mut rejects: BTreeMap<NaiveDate, u64> = BTreeMap::new();
    let by_day = Slicing {
        by: PartitionBy::Day,
        slice_ms: i64::MAX,
        ..slicing
    };
    for object in source
        .objects
        .values()
        .filter(|object| !object.rejects.is_empty())
    {
        let (place, ..) = by_day.place(object.arrival_ms, TimeUnit::Ms);
        *rejects.entry(place.date).or_default() += object.rejects.values().sum::<u64>();
    }
    let stored = self::rows(state.table(&format!("{name}_rejects")));
    for date in stored.keys().filter(|date| !rejects.contains_key(date)) {
        faults.push(format!(
            "{date} has rejects, and no raw object of this date has any"
        ));
    }
    for (date, counted) in &rejects {
        let rows = stored.get(date).unwrap_or(&0);
        if rows != counted {
            faults.push(format!(
                "{date} has {rows} rejects, and the log counts {counted}"
            ));
        }
    }
    faults
}

/// A date with rows.
struct Span {
    date: NaiveDate,
    rows: u64,
    /// The first and the last time that events of this date can have.
    times: (i64, i64),
    /// The number of events of raw objects that lie wholly within the date, and of all raw objects that reach
    /// it.
    least: u64,
    most: u64,
}

/// The number of rows by date, for files with rows.
fn rows<'a>(files: impl Iterator<Item = &'a File>) -> BTreeMap<NaiveDate, u64> {
    let mut rows = BTreeMap::new();
    for file in files.filter(|file| file.entry.rows > 0) {
        if let Some(place) = Place::of(&file.entry.partition, &file.entry.name) {
            *rows.entry(place.date).or_default() += file.entry.rows;
        }
    }
    rows
}
