//! The slices of a source that have stored events, and spans of event time in them.
//!
//! ```text
//! files of the log ──▶ Slices, by time
//! changed events ───▶ Spans: the part of each slice that is to be looked at
//!                        ├─ beyond(looked) ──▶ the parts that are to be read now
//!                        └─ covered() ───────▶ where all stored events have been looked at
//! ```

use std::collections::BTreeMap;

use super::AbsorbError;
use crate::config::Source;
use crate::dedup::Covered;
use crate::event::Place;
use crate::ledger::{File, State};

/// One slice with stored events.
#[derive(Debug, Clone)]
pub struct Slice {
    /// The first and the last event time.
    first: i64,
    last: i64,
    pub kept: Option<File>,
    pub duplicates: Option<File>,
}

/// A part of a slice: the index of the slice, the first and the last time.
pub type Span = (usize, i64, i64);

/// The slices of a source, by their first event time.
#[derive(Debug, Clone, Default)]
pub struct Slices {
    all: Vec<Slice>,
    /// For each slice, the last event time of this slice and of the slices before it.
    most: Vec<i64>,
}

impl Slices {
    /// # Errors
    /// A file with rows that the log gives no event times or no place.
    pub fn new(source: &Source, state: &State) -> Result<Self, AbsorbError> {
        let [kept, duplicates, _] = source.tables();
        let mut slices: BTreeMap<u64, Slice> = BTreeMap::new();
        for (table, is_kept) in [(kept, true), (duplicates, false)] {
            for file in state.table(&table) {
                if file.entry.rows == 0 {
                    continue;
                }
                let place = place(file)?;
                // The search for duplicates would pass over a file without times.
                let (first, last) = file.entry.times.ok_or_else(|| {
                    let key = file.entry.key();
                    AbsorbError::Defect(format!("the log says no event times of {key}"))
                })?;
                let slice = slices.entry(place).or_insert_with(|| Slice {
                    first,
                    last,
                    kept: None,
                    duplicates: None,
                });
                slice.first = slice.first.min(first);
                slice.last = slice.last.max(last);
                let side = match is_kept {
                    true => &mut slice.kept,
                    false => &mut slice.duplicates,
                };
                *side = Some(file.clone());
            }
        }
        let mut all: Vec<Slice> = slices.into_values().collect();
        all.sort_by_key(|slice| slice.first);
        let most = all.iter().scan(i64::MIN, |most, slice| {
            *most = slice.last.max(*most);
            Some(*most)
        });
        let most = most.collect();
        Ok(Self { all, most })
    }

    pub const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn get(&self, index: usize) -> Option<&Slice> {
        self.all.get(index)
    }

    /// The slices that may hold events of `first..=last`, each with the part of this span that lies in it.
    fn overlapping(
        &self,
        first: i64,
        last: i64,
    ) -> impl Iterator<Item = (usize, (i64, i64))> + use<'_> {
        let end = self.all.partition_point(|slice| slice.first <= last);
        let candidates = self.all.iter().zip(&self.most).enumerate().take(end).rev();
        candidates
            .take_while(move |(_, (_, most))| **most >= first)
            .filter(move |(_, (slice, _))| slice.last >= first)
            .map(move |(i, (slice, _))| (i, (slice.first.max(first), slice.last.min(last))))
    }
}

/// The place of a data file of a source.
///
/// # Errors
/// A name that is not ours, which is a defect: the log names it.
pub fn place(file: &File) -> Result<u64, AbsorbError> {
    let place = Place::of(&file.entry.partition, &file.entry.name).map(Place::sortable);
    place.ok_or_else(|| {
        let key = file.entry.key();
        AbsorbError::Defect(format!(
            "the log names {key}, which is the place of no slice"
        ))
    })
}

/// A span of event times for each slice; `None` where nothing of the slice is asked for.
#[derive(Debug, Clone)]
pub struct Spans {
    of_slice: Vec<Option<(i64, i64)>>,
    /// A span that all these slices are known to hold. Most events follow each other closely, so this test
    /// saves the search.
    sure: Option<(i64, i64)>,
}

impl Spans {
    pub fn none(slices: &Slices) -> Self {
        Self {
            of_slice: vec![None; slices.all.len()],
            sure: None,
        }
    }

    /// Adds the stored events of `first..=last`.
    pub fn want(&mut self, slices: &Slices, first: i64, last: i64) {
        if self.sure.is_some_and(|(a, b)| a <= first && last <= b) {
            return;
        }
        self.sure = Some((first, last));
        for (i, (from, to)) in slices.overlapping(first, last) {
            if let Some(wanted) = self.of_slice.get_mut(i) {
                let (first, last) = wanted.get_or_insert((from, to));
                *first = from.min(*first);
                *last = to.max(*last);
            }
        }
    }

    /// Adds the spans of another value.
    pub fn add(&mut self, other: &Self) {
        for (ours, theirs) in self.of_slice.iter_mut().zip(&other.of_slice) {
            let Some((from, to)) = *theirs else { continue };
            let (first, last) = ours.get_or_insert((from, to));
            *first = from.min(*first);
            *last = to.max(*last);
        }
    }

    /// The parts of these spans that have not been looked at yet.
    pub fn beyond(&self, looked: &Self) -> Vec<Span> {
        let mut parts = Vec::new();
        for (i, (wanted, looked)) in self.of_slice.iter().zip(&looked.of_slice).enumerate() {
            let Some((first, last)) = *wanted else {
                continue;
            };
            let Some((from, to)) = *looked else {
                parts.push((i, first, last));
                continue;
            };
            if first < from {
                parts.push((i, first, from - 1));
            }
            if to < last {
                parts.push((i, to + 1, last));
            }
        }
        parts
    }

    /// The times whose stored events all lie within these spans.
    pub fn covered(&self, slices: &Slices) -> Covered {
        let mut gaps = Vec::new();
        for (slice, looked) in slices.all.iter().zip(&self.of_slice) {
            let Some((first, last)) = *looked else {
                gaps.push((slice.first, slice.last));
                continue;
            };
            if slice.first < first {
                gaps.push((slice.first, first - 1));
            }
            if last < slice.last {
                gaps.push((last + 1, slice.last));
            }
        }
        Covered::outside(gaps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::FileEntry;

    fn file(partition: &[(&str, &str)], name: &str) -> File {
        let own =
            |(column, value): &(&str, &str)| ((*column).to_owned(), Some((*value).to_owned()));
        File {
            commit: 1,
            entry: FileEntry {
                table: "app".to_owned(),
                partition: partition.iter().map(own).collect(),
                name: name.to_owned(),
                rows: 1,
                bytes: 1,
                times: None,
                staged: String::new(),
                sha256: None,
                version: None,
                written: None,
            },
            etag: None,
        }
    }

    /// Place 0 would be the place of another slice, or of no slice.
    #[test]
    fn a_file_without_a_place_is_a_defect() {
        assert!(place(&file(&[("dt", "2019-04-02")], "part-00001.parquet")).is_ok());
        for (partition, name) in [
            (&[("dt", "2019-04-02")][..], "other.parquet"),
            (&[("dt", "yesterday")], "part-00001.parquet"),
            (&[], "part-00001.parquet"),
        ] {
            let error = place(&file(partition, name)).unwrap_err();
            assert!(matches!(error, AbsorbError::Defect(_)), "{error}");
        }
    }
}
