//! Changed places, with all their rows → data files.
//!
//! ```text
//! Changed, columns to fill, rejects ──expect──▶ the places that change, and the rows that each must have
//! runs of new rows ─┐
//! stored rows of ───┴──publish::write──▶ files, each handed on when it is whole
//! these places                           and a file of zero rows where all rows are gone
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::StringArray;
use arrow::datatypes::{Schema, SchemaRef};

use super::decode::{DecodedObject, RankedObject, reject_schema};
use super::slices::place;
use super::stored::{Fill, StoredTables};
use super::verdicts::{Changed, PlaceChange};
use super::{AbsorbError, DecodedObjects, Input, Settings, WhySlice};
use crate::catalog::TableDefinition;
use crate::dedup::{EventId, Sorted};
use crate::event::{EXTRA, Place, RAW_OBJECT, RAW_RECORD};
use crate::ledger::{Dates, File};
use crate::publish::{Collected, FileSettings, Finished, Tables};
use crate::raw::{Refill, RefillError};

/// All places.
pub const EVERYWHERE: RangeInclusive<u64> = 0..=u64::MAX;

/// Takes a file that is whole, and says whether the merge goes on.
pub type Done<'a> = dyn Fn(&Finished) -> bool + Sync + 'a;

/// The settings and the stored rows that a merge needs.
pub struct Merging<'a> {
    pub settings: &'a Settings,
    pub input: &'a Input,
    pub stored: &'a StoredTables,
}

/// The places that change.
#[derive(Default)]
pub struct Expected {
    /// The number of rows that each table must have in each place that changes, by table and place.
    pub rows: BTreeMap<(String, u64), i64>,
    /// The number of slices that change, by the reason of the change.
    pub slices: BTreeMap<WhySlice, u64>,
    /// Places whose events come again as they were, and whose files stay.
    pub left: Arc<BTreeSet<u64>>,
    /// The same of rejects.
    pub left_rejects: Arc<BTreeSet<u64>>,
}

impl Merging<'_> {
    /// The places that change, and the rows that their files must have.
    ///
    /// # Errors
    /// A stored file that cannot be read; a value that does not fit a column that is filled.
    pub fn expect(
        &self,
        decoded: &DecodedObjects,
        changed: &Changed,
    ) -> Result<Expected, AbsorbError> {
        let mut expected = Expected::default();
        let only = self.only(decoded);
        self.expect_events(decoded, changed, only, &mut expected);
        self.expect_filled(&mut expected)?;
        self.expect_rejects(decoded, only, &mut expected)?;
        Ok(expected)
    }

    fn expect_events(
        &self,
        decoded: &DecodedObjects,
        changed: &Changed,
        only: Option<Dates>,
        expected: &mut Expected,
    ) {
        let [kept, duplicates, _] = &self.settings.tables;
        let mut left = BTreeSet::new();
        for (place, change) in &changed.places {
            if may_stay(*place, only) && change.is_as_before() {
                left.insert(*place);
                continue;
            }
            let (mut was_there, mut changed) = (false, false);
            for (name, (changes, by)) in [
                (&kept.name, change.kept()),
                (&duplicates.name, change.duplicates()),
            ] {
                let old = self.old_rows(name, *place);
                if changes {
                    expected.rows.insert((name.clone(), *place), old + by);
                }
                was_there |= old > 0;
                changed |= changes;
            }
            let comes = decoded.places.contains_key(place);
            let why = match (comes, was_there, change.loses_events()) {
                _ if self.comes_again(*place, change) => WhySlice::ReadAgain,
                (true, false, _) => WhySlice::NewEvents,
                (true, true, false) => WhySlice::MoreEvents,
                (true, true, true) => WhySlice::EventsReplaced,
                (false, _, true) => WhySlice::EventsLeft,
                (false, _, false) => WhySlice::Verdicts,
            };
            if changed {
                *expected.slices.entry(why).or_default() += 1;
            }
        }
        expected.left = Arc::new(left);
    }

    /// Whether raw objects were read again, and a place had events of them before.
    fn comes_again(&self, place: u64, change: &PlaceChange) -> bool {
        let [kept, duplicates, _] = &self.settings.tables;
        let replaces = |table: &TableDefinition| {
            let replaced = &self.input.replaced;
            replaced.contains_key(&(table.name.clone(), place))
        };
        match self.input.anew {
            true => replaces(kept) || replaces(duplicates),
            false => change.comes_again(),
        }
    }

    fn expect_filled(&self, expected: &mut Expected) -> Result<(), AbsorbError> {
        let [kept, duplicates, _] = &self.settings.tables;
        let written_anew: BTreeSet<u64> = expected.rows.keys().map(|(_, place)| *place).collect();
        let mut filled = BTreeSet::new();
        for name in [&kept.name, &duplicates.name] {
            for place in self.to_fill(name)? {
                let rows = self.old_rows(name, place);
                let slice = expected.rows.entry((name.clone(), place));
                slice.or_insert(rows);
                filled.insert(place);
            }
        }
        let filled = filled.difference(&written_anew).count() as u64;
        if filled > 0 {
            expected.slices.insert(WhySlice::ColumnsFilled, filled);
        }
        Ok(())
    }

    fn expect_rejects(
        &self,
        decoded: &DecodedObjects,
        only: Option<Dates>,
        expected: &mut Expected,
    ) -> Result<(), AbsorbError> {
        let [_, _, rejected] = &self.settings.tables;
        let same = self.same_rejects(decoded);
        let mut left = BTreeSet::new();
        for (place, by) in self.rejects_by_place(decoded)? {
            if may_stay(place, only) && same.contains(&place) {
                left.insert(place);
                continue;
            }
            let rows = self.old_rows(&rejected.name, place) + by;
            expected.rows.insert((rejected.name.clone(), place), rows);
        }
        expected.left_rejects = Arc::new(left);
        Ok(())
    }

    /// The dates outside of which files may stay. All raw objects that were read again must be as they were.
    fn only(&self, decoded: &DecodedObjects) -> Option<Dates> {
        let unchanged = |(read, object): (&DecodedObject, &RankedObject)| {
            let was = self.input.known.objects.get(&object.found.identity);
            was.is_none_or(|was| was.sha256.0 == read.counts.sha256)
        };
        let mut objects = decoded.objects.iter().zip(&self.input.objects);
        self.input.only.filter(|_| objects.all(unchanged))
    }

    /// The places of rejects for which every raw object gave as many rejects of each reason as before.
    fn same_rejects(&self, decoded: &DecodedObjects) -> BTreeSet<u64> {
        let mut arrivals = self.settings.arrival_places();
        let (mut same, mut other) = (BTreeSet::new(), BTreeSet::new());
        let mut read = BTreeSet::new();
        for (is, object) in decoded.objects.iter().zip(&self.input.objects) {
            let found = &object.found;
            read.insert(&*found.identity);
            let was = self.input.known.objects.get(&found.identity);
            let was = was.filter(|was| was.arrival_ms == found.arrival_ms);
            let is_same = was.is_some_and(|was| was.rejects == is.counts.rejects);
            let places = if is_same { &mut same } else { &mut other };
            places.insert(arrivals.of(found.arrival_ms));
        }
        let leaving = self.input.leaving.iter();
        for name in leaving.filter(|name| !read.contains(name.as_str())) {
            let was = self.input.known.objects.get(name);
            other.extend(was.map(|was| arrivals.of(was.arrival_ms)));
        }
        &same - &other
    }

    /// The number of rows that a table has in a place, if they may change.
    fn old_rows(&self, table: &str, place: u64) -> i64 {
        let file = self.input.old.get(&(table.to_owned(), place));
        file.map_or(0, |file| file.entry.rows.cast_signed())
    }

    /// The change of the number of rejects in each place.
    fn rejects_by_place(
        &self,
        decoded: &DecodedObjects,
    ) -> Result<BTreeMap<u64, i64>, AbsorbError> {
        let mut places = decoded.reject_places.clone();
        let mut arrivals = self.settings.arrival_places();
        for name in self.input.leaving.iter().filter(|_| !self.input.anew) {
            let Some(entry) = self.input.known.objects.get(name) else {
                continue;
            };
            let rejects: u64 = entry.rejects.values().sum();
            if rejects > 0 {
                let place = arrivals.of(entry.arrival_ms);
                *places.entry(place).or_default() -= rejects.cast_signed();
            }
        }
        let [_, _, rejected] = &self.settings.tables;
        for file in self.input.lost_of(&rejected.name) {
            let rows = file.entry.rows.cast_signed();
            *places.entry(place(file)?).or_default() += rows;
        }
        Ok(places)
    }

    /// Merges new and stored rows, and writes the files of the places that are expected to change. Each file is
    /// handed to `done` when it is whole.
    ///
    /// # Errors
    /// A full disk; a stored file that cannot be read; files that could not be staged.
    pub fn write(
        &self,
        decoded: (Collected, Collected),
        changed: Changed,
        expected: &Expected,
        done: &Done<'_>,
    ) -> Result<Vec<Finished>, AbsorbError> {
        let (mut events, mut rejects) = decoded;
        let verdicts = Sorted::merge(vec![changed.verdicts]);
        let verdicts = verdicts.map_err(|e| self.settings.spilling(e))?;
        // One thread merges all places. Other sets of places could be merged at the same time.
        let places = EVERYWHERE;
        let runs = events.take(&places)?;
        drop(events);
        let mut files = self.write_events(&places, runs, verdicts, expected, done)?;
        let runs = rejects.take(&places)?;
        drop(rejects);
        files.extend(self.write_rejects(&places, runs, expected, done)?);
        Ok(files)
    }

    /// Writes the events of some places.
    fn write_events(
        &self,
        places: &RangeInclusive<u64>,
        mut runs: Collected,
        verdicts: Sorted<5>,
        expected: &Expected,
        done: &Done<'_>,
    ) -> Result<Vec<Finished>, AbsorbError> {
        let [kept, duplicates, _] = &self.settings.tables;
        let schema = self.settings.row_schema()?;
        for name in [&kept.name, &duplicates.name] {
            let files = self.old_files(name, places, expected);
            if !files.is_empty() {
                let fill = self.filling();
                runs.append_stored(self.stored.stream(files, &schema, fill));
            }
        }
        let tables = self.tables(kept, Some(duplicates), &expected.left);
        let folder = &self.settings.folder;
        Ok(crate::publish::write(
            runs,
            Some(verdicts),
            &tables,
            folder,
            done,
        )?)
    }

    /// Writes the rejects of some places.
    fn write_rejects(
        &self,
        places: &RangeInclusive<u64>,
        mut runs: Collected,
        expected: &Expected,
        done: &Done<'_>,
    ) -> Result<Vec<Finished>, AbsorbError> {
        let [_, _, rejected] = &self.settings.tables;
        let files = self.old_files(&rejected.name, places, expected);
        if !files.is_empty() {
            let stored = StoredTables {
                event_time: None,
                ..self.stored.clone()
            };
            runs.append_stored(stored.stream(files, &reject_schema(), None));
        }
        let tables = self.tables(rejected, None, &expected.left_rejects);
        let folder = &self.settings.folder;
        Ok(crate::publish::write(runs, None, &tables, folder, done)?)
    }

    /// The stored files of a table that are written anew in some places.
    fn old_files(
        &self,
        table: &str,
        places: &RangeInclusive<u64>,
        expected: &Expected,
    ) -> Vec<(u64, File)> {
        let changing = expected.rows.keys();
        let changing = changing.filter(|(name, place)| name == table && places.contains(place));
        let files = changing.filter_map(|slice| {
            let file = self.input.old.get(slice)?;
            Some((slice.1, file.clone()))
        });
        files.collect()
    }

    /// The tables that a merge writes to. Rejects have no duplicates and no event time.
    fn tables(
        &self,
        kept: &TableDefinition,
        duplicates: Option<&TableDefinition>,
        left: &Arc<BTreeSet<u64>>,
    ) -> Tables {
        let table = |table: &TableDefinition| (table.name.clone(), Arc::clone(&table.schema));
        let rules = self.stored.rules.iter().map(|name| Some(name.as_str()));
        Tables {
            kept: table(kept),
            duplicates: duplicates.map(table),
            objects: Arc::clone(&self.stored.objects),
            rules: Arc::new(rules.collect::<StringArray>()),
            left: Arc::clone(left),
            settings: match duplicates {
                Some(_) => self.settings.event_files(),
                None => self.settings.reject_files(),
            },
        }
    }

    /// The values that take columns which came later out of `extra`; `None` if no column is filled.
    fn filling(&self) -> Option<Fill> {
        let dates = self.input.again.filter(|_| !self.input.fill.is_empty())?;
        Some(Fill {
            refill: Refill::new(&self.settings.source.decode, &self.input.fill),
            dates,
        })
    }

    /// The places of the files of a table that change when columns are filled. Every value is looked at before
    /// anything is written.
    fn to_fill(&self, table: &str) -> Result<Vec<u64>, AbsorbError> {
        let Some(mut fill) = self.filling() else {
            return Ok(Vec::new());
        };
        let schema = self.settings.row_schema()?;
        let read = |name: &String| name == EXTRA || self.input.fill.contains(name);
        let fields = schema.fields().iter();
        let fields = fields.filter(|field| read(field.name())).cloned();
        let narrow = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let mut places = Vec::new();
        let files = self.input.old.iter();
        for ((_, place), file) in files.filter(|((of, _), _)| of.as_str() == table) {
            if fill.concerns(file) && self.fills(file, &narrow, &mut fill)? {
                places.push(*place);
            }
        }
        Ok(places)
    }

    /// Whether a file changes when columns are filled: a value of a row changes, or the file lacks one of the columns.
    /// Some readers take the columns of a table from any one of its files.
    fn fills(&self, file: &File, schema: &SchemaRef, fill: &mut Fill) -> Result<bool, AbsorbError> {
        let mut changes = self.stored.lacks(file, &self.input.fill)?;
        for block in self.stored.rows(file, schema, None, None, true)? {
            let (batch, rows) = block?;
            match fill.refill.fill(&batch) {
                Ok(filled) => changes |= filled.is_some(),
                Err(RefillError::Misfit {
                    row,
                    column,
                    kind,
                    value,
                }) => {
                    let id = rows.get(row).map_or(EventId(0), |row| row.id);
                    let object = self.stored.objects.value(id.object() as usize);
                    return Err(AbsorbError::OnlyRaw {
                        name: self.settings.source.name.clone(),
                        found_in: format!("raw object {object}, record {}", id.record()),
                        why: format!("`{column}` is no {kind}: {value}"),
                    });
                }
                Err(error) => return Err(self.stored.unfit(file, &error).into()),
            }
        }
        Ok(changes)
    }

    /// Zero-row files for the slices that had rows and have none now. They are written because publishing never
    /// deletes.
    ///
    /// # Errors
    /// A full disk.
    pub fn emptied(
        &self,
        expected: &Expected,
        written: &[Finished],
    ) -> Result<Vec<Finished>, AbsorbError> {
        let written: BTreeSet<_> = written
            .iter()
            .map(|file| (&file.table, &file.partition, &file.name))
            .collect();
        let changed = expected.rows.keys().chain(self.input.replaced.keys());
        let changed: BTreeSet<&(String, u64)> = changed.collect();
        let settings = self.settings.reject_files();
        let mut files = Vec::new();
        for slice in changed {
            let old = self.input.old.get(slice);
            let Some(old) = old.or_else(|| self.input.replaced.get(slice)) else {
                continue;
            };
            let entry = &old.entry;
            let mut tables = self.settings.tables.iter();
            let table = tables.find(|table| table.name == entry.table);
            let name = (&entry.table, &entry.partition, &entry.name);
            let (Some(table), false) = (table, written.contains(&name)) else {
                continue;
            };
            let (number, folder) = (files.len(), &self.settings.folder);
            let file = crate::publish::empty_file(table, entry, number, &settings, folder)?;
            files.push(file);
        }
        Ok(files)
    }
}

/// Whether the files of a place may stay where only the files of some dates are written in any case.
fn may_stay(place: u64, only: Option<Dates>) -> bool {
    let place = Place::from_sortable(place);
    only.zip(place)
        .is_some_and(|(only, place)| !only.holds(place.date))
}

impl Settings {
    /// The settings of data files with events.
    fn event_files(&self) -> FileSettings {
        FileSettings {
            event_time: Some(self.source.decode.event_time.clone()),
            sorted_by: vec![
                self.source.decode.event_time.clone(),
                RAW_OBJECT.to_owned(),
                RAW_RECORD.to_owned(),
            ],
            bloom_filters: self.source.bloom_filters.clone(),
            ..self.reject_files()
        }
    }

    /// The settings of data files without event times.
    fn reject_files(&self) -> FileSettings {
        FileSettings {
            compression: self.source.compression,
            event_time: None,
            sorted_by: vec![RAW_OBJECT.to_owned(), RAW_RECORD.to_owned()],
            bloom_filters: Vec::new(),
            commit: self.commit,
            memory: self.shares.row_group,
            threads: self.threads,
        }
    }
}
