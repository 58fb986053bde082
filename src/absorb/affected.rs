//! Which stored events a change of a source concerns: the set D, rule by rule.
//!
//! ```text
//! new, leaving and re-decided events = D
//!   for each rule in order:
//!     keys and times of D ──▶ KeyFilter, Reach ──▶ narrow columns of the slices in reach
//!                                                       │ links of D's keys
//!        ┌───────────── further, while a chain is open ◀┤
//!        ▼                                              ▼
//!     chains that hold a member of D join it ──▶ rows to be decided
//!                    └── their rows under later rules: D of the next rule
//! ```
//!
//! An event that an earlier rule has taken out, and that is not of D, takes no part in this rule
//! before nor after: it is passed over.
//!
//! Everything is sorted rows that spill; what grows with the lake are the list of slices and the
//! names of raw objects.

use super::AbsorbError;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};

use super::stored::{Reach, Row, Slices, Span, Stored};
use crate::config::Source;
use crate::dedup::{
    Fingerprint, Hashing, KeyFilter, Keys, Places, Sorted, Sorter, Standing, Window, from_sortable,
    grow, part_of,
};
use crate::event::Slicing;
use crate::ledger::File;
use crate::publish::Wanted;

/// What an event of D was before: `[place, sortable time, id, displaced by, standing]`; the standing
/// of an event that leaves has [`LEAVES`] set.
pub type Before = [u64; 5];
/// Marks the standing of an event that leaves.
pub const LEAVES: u64 = 1 << 63;

/// The shared half of the search: what new events want to know, gathered while they are decoded.
pub struct Search {
    pub slices: Slices,
    /// By rule.
    pub filters: Vec<Arc<KeyFilter>>,
    pub windows: Vec<Window>,
    /// By rule; the workers add theirs.
    pub reaches: Mutex<Vec<Reach>>,
}

impl Search {
    /// `new` is about the bytes of the raw objects that the keys are of.
    pub fn new(source: &Source, slices: Slices, memory: usize, new: usize) -> Self {
        let rules = source.rules.len();
        // The filters say no more than "perhaps": a small one costs rows that are sorted in vain, and one
        // that no cache holds costs a wait a row.
        let share = if slices.is_empty() {
            0
        } else {
            (memory / rules.max(1)).min(new / 4)
        };
        let windows = source.rules.iter();
        Self {
            filters: (0..rules)
                .map(|_| Arc::new(KeyFilter::new(share)))
                .collect(),
            windows: windows
                .map(|rule| Window::new(rule, source.decode.unit))
                .collect(),
            reaches: Mutex::new(vec![Reach::new(&slices); rules]),
            slices,
        }
    }

    /// Notes the keys of changed events of one rule. `times` are sortable.
    ///
    /// # Errors
    /// None but a defect: there is no such rule.
    pub fn note(
        &self,
        rule: usize,
        reach: &mut Reach,
        rows: &[(Fingerprint, u64)],
    ) -> Result<(), AbsorbError> {
        let (Some(filter), Some(window)) = (self.filters.get(rule), self.windows.get(rule)) else {
            return Err(unknown_rule(rule));
        };
        let mut span: Option<(i64, i64)> = None;
        for (key, time) in rows {
            filter.insert(*key);
            let time = from_sortable(*time);
            let (from, to) = (
                time.saturating_sub(window.within),
                time.saturating_add(window.within),
            );
            span = match span {
                // Neighbours in time ask for one span.
                Some((first, last)) if from <= last && first <= to => {
                    Some((first.min(from), last.max(to)))
                }
                Some((first, last)) => {
                    reach.want(&self.slices, first, last);
                    Some((from, to))
                }
                None => Some((from, to)),
            };
        }
        if let Some((first, last)) = span {
            reach.want(&self.slices, first, last);
        }
        Ok(())
    }
}

/// A search that passed over a rule would give verdicts that look right.
fn unknown_rule(rule: usize) -> AbsorbError {
    AbsorbError::Defect(format!("the search for duplicates has no rule {rule}"))
}

/// The stored part of D, and what is to be decided.
pub struct Affected {
    /// By rule and part: rows of all events of D, as the verdicts take them.
    pub rows: Vec<Vec<Vec<Sorter<4>>>>,
    /// What the stored events of D were, in the order of events.
    pub before: Sorted<5>,
    /// Ranks of the raw objects of these events.
    pub objects: BTreeSet<u32>,
}

/// What finding D needs.
pub struct Finder<'a> {
    pub source: &'a Source,
    pub schema: SchemaRef,
    pub slicing: Slicing,
    pub hashing: Hashing,
    pub stored: &'a Stored,
    pub search: &'a Search,
    /// Slices that hold events that leave, or that are to be decided again, and the span of times.
    pub origins: Vec<Span>,
    /// Events of these times are decided again.
    pub again: Option<(i64, i64)>,
    pub folder: PathBuf,
    pub threads: usize,
    /// Bytes of one sorter.
    pub memory: usize,
}

/// A link of one rule: the rule, key, sortable time, id and standing.
type RuleLink = (usize, Fingerprint, u64, u64, u64);

/// Sorters by part, filled by several threads.
type Parts<const N: usize> = Vec<Mutex<Sorter<N>>>;

struct Gathering {
    /// Links of stored events by rule and part.
    links: Vec<Parts<6>>,
    before: Mutex<Sorter<5>>,
    objects: Mutex<BTreeSet<u32>>,
}

impl Finder<'_> {
    /// Grows D from the new rows (by rule and part) and the origins.
    ///
    /// # Errors
    /// A data file that cannot be read, a rule that fails on a value, a full disk.
    pub fn find(self, new: Vec<Vec<Vec<Sorter<4>>>>) -> Result<Affected, AbsorbError> {
        let rules = self.source.rules.len();
        let gathering = Gathering {
            links: (0..rules).map(|_| self.parts()).collect(),
            before: Mutex::new(self.sorter()),
            objects: Mutex::default(),
        };
        self.look_at_origins(&gathering)?;
        let mut rows = Vec::with_capacity(rules);
        for (rule, new) in new.into_iter().enumerate() {
            rows.push(self.grow_rule(rule, new, &gathering)?);
        }
        let before = into_inner(gathering.before);
        Ok(Affected {
            rows,
            before: Sorted::merge(vec![before]).map_err(|e| self.spilling(e))?,
            objects: into_inner(gathering.objects),
        })
    }

    fn sorter<const N: usize>(&self) -> Sorter<N> {
        Sorter::new(&self.folder, self.memory)
    }

    fn parts<const N: usize>(&self) -> Parts<N> {
        (0..self.threads)
            .map(|_| Mutex::new(self.sorter()))
            .collect()
    }

    fn spilling(&self, source: io::Error) -> AbsorbError {
        AbsorbError::spilling(&self.folder, source)
    }

    fn keys(&self, from: usize, to: usize, schema: &SchemaRef) -> Result<Keys, AbsorbError> {
        let rules = self.source.rules.get(from..to).unwrap_or_default();
        let unit = self.source.decode.unit;
        Keys::compile(rules, schema, self.slicing, unit, &self.hashing).map_err(|error| {
            AbsorbError::Key {
                name: self.source.name.clone(),
                error: Box::new(error),
            }
        })
    }

    /// The columns that these rules read.
    fn columns(&self, from: usize, to: usize) -> Result<SchemaRef, AbsorbError> {
        let names = self.keys(from, to, &self.schema)?.columns();
        let fields = self.schema.fields().iter();
        let fields: Vec<_> = fields
            .filter(|field| names.contains(field.name()))
            .cloned()
            .collect();
        Ok(Arc::new(Schema::new(fields)))
    }

    fn failing(&self, file: &File, error: crate::dedup::KeyError) -> AbsorbError {
        AbsorbError::Rule {
            name: self.source.name.clone(),
            found_in: format!(
                "the stored events of {}",
                self.stored.lake.url_of(&file.entry.key())
            ),
            error: Box::new(error),
        }
    }

    /// Reads spans of slices on all threads. `start` gives a thread's state and which rows it wants, `look`
    /// takes those of one batch.
    fn each_batch<S>(
        &self,
        spans: &[Span],
        schema: &SchemaRef,
        leaving: bool,
        start: impl Fn() -> Result<(S, Option<Wanted>), AbsorbError> + Sync,
        look: impl Fn(&mut S, &File, RecordBatch, &[Row]) -> Result<(), AbsorbError> + Sync,
        finish: impl Fn(S) + Sync,
    ) -> Result<(), AbsorbError> {
        let mut files: Vec<(&File, i64, i64)> = Vec::new();
        for (slice, first, last) in spans {
            let known = self.search.slices.get(*slice);
            let slice =
                known.ok_or_else(|| AbsorbError::Defect(format!("there is no slice {slice}")))?;
            let sides = slice.kept.iter().chain(&slice.duplicates);
            files.extend(sides.map(|file| (file, *first, *last)));
        }
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads.min(files.len()))
                .map(|_| {
                    scope.spawn(|| -> Result<(), AbsorbError> {
                        let (mut state, wanted) = start()?;
                        while let Some((file, first, last)) =
                            files.get(next.fetch_add(1, Ordering::Relaxed))
                        {
                            let span = Some((*first, *last));
                            let wanted = wanted.clone();
                            let blocks = self.stored.rows(file, schema, span, wanted, leaving)?;
                            for block in blocks {
                                let (batch, rows) = block?;
                                look(&mut state, file, batch, &rows)?;
                            }
                        }
                        finish(state);
                        Ok(())
                    })
                })
                .collect();
            workers
                .into_iter()
                .map(|worker| {
                    worker
                        .join()
                        .unwrap_or_else(|_| Err(AbsorbError::Defect("a reader died".to_owned())))
                })
                // All of them, so that none is left behind.
                .fold(Ok(()), Result::and)
        })
    }

    /// Puts events that leave or are decided again into D.
    fn look_at_origins(&self, gathering: &Gathering) -> Result<(), AbsorbError> {
        if self.origins.is_empty() {
            return Ok(());
        }
        let schema = self.columns(0, self.source.rules.len())?;
        let start = || {
            let keys = self.keys(0, self.source.rules.len(), &schema)?;
            let reaches = self.new_reaches();
            Ok(((keys, reaches), None))
        };
        self.each_batch(
            &self.origins,
            &schema,
            true,
            start,
            |(keys, reaches), file, batch, rows| {
                let again = |row: &Row| {
                    let time = from_sortable(row.time);
                    self.again
                        .is_some_and(|(first, last)| (first..=last).contains(&time))
                };
                let mask: Vec<bool> = rows.iter().map(|row| row.leaves || again(row)).collect();
                if !mask.iter().any(|is| *is) {
                    return Ok(());
                }
                self.note_before(gathering, rows, &mask)?;
                let links = self.links_of(keys, file, &batch, rows, &mask, 0)?;
                self.join(gathering, reaches, links)
            },
            |(_, reaches)| self.add_reaches(&reaches),
        )
    }

    fn new_reaches(&self) -> Vec<Reach> {
        vec![Reach::new(&self.search.slices); self.source.rules.len()]
    }

    fn add_reaches(&self, reaches: &[Reach]) {
        let mut all = lock(&self.search.reaches);
        for (all, one) in all.iter_mut().zip(reaches) {
            all.add(one);
        }
    }

    /// Notes what rows of D were.
    fn note_before(
        &self,
        gathering: &Gathering,
        rows: &[Row],
        mask: &[bool],
    ) -> Result<(), AbsorbError> {
        let mut places = Places::new(self.slicing, self.source.decode.unit);
        let mut noted: Vec<Before> = Vec::new();
        let mut objects = BTreeSet::new();
        for (row, _) in rows.iter().zip(mask).filter(|(_, is)| **is) {
            let place = places.of(from_sortable(row.time));
            let leaves = if row.leaves { LEAVES } else { 0 };
            let standing = row.before.bits() | leaves;
            noted.push([place, row.time, row.id.0, row.kept.0, standing]);
            if !row.leaves {
                objects.insert(row.id.object());
            }
        }
        lock(&gathering.objects).append(&mut objects);
        lock(&gathering.before)
            .extend(&noted)
            .map_err(|e| self.spilling(e))
    }

    /// The links of the rows of a mask under rules from `first` on.
    fn links_of(
        &self,
        keys: &mut Keys,
        file: &File,
        batch: &RecordBatch,
        rows: &[Row],
        mask: &[bool],
        first: usize,
    ) -> Result<Vec<RuleLink>, AbsorbError> {
        let filter: BooleanArray = mask.iter().copied().map(Some).collect();
        let picked: Vec<&Row> = rows
            .iter()
            .zip(mask)
            .filter_map(|(row, is)| is.then_some(row))
            .collect();
        let batch = filter_record_batch(batch, &filter)
            .map_err(|error| AbsorbError::Defect(error.to_string()))?;
        let times: Vec<u64> = picked.iter().map(|row| row.time).collect();
        let mut links = Vec::new();
        keys.each(&batch, Some(&times), |rule, row, key| {
            if let Some(row) = picked.get(row) {
                let standing = match row.leaves {
                    true => Standing::LEAVING,
                    false => Standing::CONCERNED,
                };
                links.push((first + rule, key, row.time, row.id.0, standing.bits()));
            }
        })
        .map_err(|error| self.failing(file, error))?;
        Ok(links)
    }

    /// Makes links members of D under their rules.
    fn join(
        &self,
        gathering: &Gathering,
        reaches: &mut [Reach],
        links: Vec<RuleLink>,
    ) -> Result<(), AbsorbError> {
        for (rule, key, time, id, standing) in links {
            let parts = gathering.links.get(rule);
            let part = parts.and_then(|parts| parts.get(part_of(key, self.threads)));
            let (Some(reach), Some(part)) = (reaches.get_mut(rule), part) else {
                return Err(unknown_rule(rule));
            };
            self.search.note(rule, reach, &[(key, time)])?;
            lock(part)
                .push([key[0], key[1], time, id, standing, 0])
                .map_err(|e| self.spilling(e))?;
        }
        Ok(())
    }

    /// Adds the chains of one rule to D: its rows by part.
    fn grow_rule(
        &self,
        rule: usize,
        new: Vec<Vec<Sorter<4>>>,
        gathering: &Gathering,
    ) -> Result<Vec<Vec<Sorter<4>>>, AbsorbError> {
        let spilling = |error| self.spilling(error);
        let window = self.search.windows.get(rule);
        let within = window.ok_or_else(|| unknown_rule(rule))?.within;
        let take_reach = || {
            let mut reaches = lock(&self.search.reaches);
            let taken = reaches.get_mut(rule).map(Reach::take);
            taken.ok_or_else(|| unknown_rule(rule))
        };
        let later = rule + 1..self.source.rules.len();
        // Rows of the looked-at events under later rules: `[time, id, key, key]`.
        let aside: Vec<Mutex<Sorter<4>>> =
            later.clone().map(|_| Mutex::new(self.sorter())).collect();
        let mut links: Vec<Sorter<6>> = match gathering.links.get(rule) {
            Some(parts) => parts
                .iter()
                .map(|part| std::mem::replace(&mut *lock(part), self.sorter()))
                .collect(),
            None => return Err(unknown_rule(rule)),
        };
        let mut new = new;
        let mut rows: Vec<Vec<Sorter<4>>> = new.iter().map(|_| Vec::new()).collect();
        let mut joined: Vec<Sorter<4>> = Vec::new();
        let mut step = within;
        loop {
            let spans = take_reach()?;
            let looked = self.parts();
            self.look(rule, &spans, &looked, &aside)?;
            if spans.is_empty() && links.iter().all(Sorter::is_empty) {
                // Nothing stored is concerned.
                for (rows, new) in rows.iter_mut().zip(new) {
                    rows.extend(new);
                }
                break;
            }
            let covered_by = lock(&self.search.reaches).get(rule).cloned();
            let covered_by = covered_by.ok_or_else(|| unknown_rule(rule))?;
            let covered = |first, last| covered_by.covers(&self.search.slices, first, last);
            let grown = std::thread::scope(|scope| {
                let workers: Vec<_> = std::mem::take(&mut new)
                    .into_iter()
                    .zip(std::mem::take(&mut links))
                    .zip(looked)
                    .map(|((new, links), looked)| {
                        let covered = &covered;
                        scope.spawn(move || {
                            grow(
                                Sorted::merge(new)?,
                                Sorted::merge(vec![links, into_inner(looked)])?,
                                within,
                                covered,
                                &self.folder,
                                self.memory,
                            )
                        })
                    })
                    .collect();
                workers
                    .into_iter()
                    .map(|worker| {
                        worker
                            .join()
                            .unwrap_or_else(|_| Err(io::Error::other("a chain thread died")))
                    })
                    .collect::<Vec<_>>()
            });
            let mut beyond = Vec::new();
            for (grown, rows) in grown.into_iter().zip(&mut rows) {
                let grown = grown.map_err(spilling)?;
                rows.push(grown.rows);
                joined.push(grown.joined);
                links.push(grown.open);
                beyond.extend(grown.beyond);
                new.push(Vec::new());
            }
            if beyond.is_empty() {
                break;
            }
            // Twice as far each time: a chain of days takes a handful of passes.
            step = step.saturating_mul(2);
            let mut reaches = lock(&self.search.reaches);
            let reach = reaches.get_mut(rule).ok_or_else(|| unknown_rule(rule))?;
            for (first, last) in beyond {
                let (from, to) = (first.saturating_sub(step), last.saturating_add(step));
                reach.want(&self.search.slices, from, to);
            }
        }
        self.joined(joined, aside, later, gathering)?;
        Ok(rows)
    }

    /// Reads the links of one rule in `spans` whose keys D has.
    fn look(
        &self,
        rule: usize,
        spans: &[Span],
        links: &[Mutex<Sorter<6>>],
        aside: &[Mutex<Sorter<4>>],
    ) -> Result<(), AbsorbError> {
        if spans.is_empty() {
            return Ok(());
        }
        let filter = self.search.filters.get(rule);
        let filter = filter.ok_or_else(|| unknown_rule(rule))?;
        let rules = self.source.rules.len();
        let schema = self.columns(rule, rules)?;
        let own_schema = self.columns(rule, rule + 1)?;
        let start = || {
            let own = self.keys(rule, rule + 1, &schema)?;
            let others = self.keys(rule + 1, rules, &schema)?;
            // Few stored events have a key of D: of the others, the key is all that is decoded.
            let keys = Mutex::new(self.keys(rule, rule + 1, &own_schema)?);
            let filter = Arc::clone(filter);
            let test = move |batch: &RecordBatch| {
                let mut mask = vec![false; batch.num_rows()];
                let tested = lock(&keys).each(batch, None, |_, row, key| {
                    if let Some(is) = mask.get_mut(row) {
                        *is = filter.contains(key);
                    }
                });
                // An expression that fails does so again where the file can be named.
                if tested.is_err() {
                    mask.fill(true);
                }
                BooleanArray::from(mask)
            };
            let wanted = Wanted {
                schema: Arc::clone(&own_schema),
                test: Arc::new(test),
            };
            Ok(((own, others), Some(wanted)))
        };
        let push = |error| self.spilling(error);
        self.each_batch(
            spans,
            &schema,
            false,
            start,
            |(own, others), file, batch, rows| {
                let times: Vec<u64> = rows.iter().map(|row| row.time).collect();
                let mut mask = vec![false; rows.len()];
                let mut found = vec![Vec::new(); self.threads];
                own.each(&batch, Some(&times), |_, i, key| {
                    let Some(row) = rows.get(i) else { return };
                    let earlier = row.before.rule().is_some_and(|by| (by as usize) < rule);
                    if earlier || !filter.contains(key) {
                        return;
                    }
                    if let Some(is) = mask.get_mut(i) {
                        *is = true;
                    }
                    if let Some(found) = found.get_mut(part_of(key, self.threads)) {
                        let standing = row.before.bits();
                        found.push([key[0], key[1], row.time, row.id.0, standing, row.kept.0]);
                    }
                })
                .map_err(|error| self.failing(file, error))?;
                for (sorter, found) in links.iter().zip(found) {
                    lock(sorter).extend(&found).map_err(push)?;
                }
                if aside.is_empty() || !mask.contains(&true) {
                    return Ok(());
                }
                for (rule, key, time, id, _) in
                    self.links_of(others, file, &batch, rows, &mask, 0)?
                {
                    let sorter = aside.get(rule).ok_or_else(|| unknown_rule(rule))?;
                    lock(sorter)
                        .push([time, id, key[0], key[1]])
                        .map_err(push)?;
                }
                Ok(())
            },
            |_| (),
        )
    }

    /// Makes stored events that have joined D members of it under the later rules.
    fn joined(
        &self,
        joined: Vec<Sorter<4>>,
        aside: Vec<Mutex<Sorter<4>>>,
        later: std::ops::Range<usize>,
        gathering: &Gathering,
    ) -> Result<(), AbsorbError> {
        let spilling = |error| self.spilling(error);
        let mut joined = Sorted::merge(joined).map_err(spilling)?;
        let mut aside = aside
            .into_iter()
            .map(|sorter| Sorted::merge(vec![into_inner(sorter)]))
            .collect::<io::Result<Vec<_>>>()
            .map_err(spilling)?;
        let mut reaches = self.new_reaches();
        let mut places = Places::new(self.slicing, self.source.decode.unit);
        let mut before = lock(&gathering.before);
        let mut objects = lock(&gathering.objects);
        while let Some([time, id, standing, kept]) = joined.pop().map_err(spilling)? {
            let place = places.of(from_sortable(time));
            before
                .push([place, time, id, kept, standing])
                .map_err(spilling)?;
            objects.insert(crate::dedup::EventId(id).object());
            for (rule, rows) in later.clone().zip(&mut aside) {
                while let Some([other, other_id, a, b]) = rows
                    .peek()
                    .copied()
                    .filter(|row| row[..2] <= [time, id][..])
                {
                    rows.pop().map_err(spilling)?;
                    if [other, other_id] == [time, id] {
                        let link = (rule, [a, b], time, id, Standing::CONCERNED.bits());
                        self.join(gathering, &mut reaches, vec![link])?;
                    }
                }
            }
        }
        self.add_reaches(&reaches);
        Ok(())
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn into_inner<T>(of: Mutex<T>) -> T {
    of.into_inner().unwrap_or_else(PoisonError::into_inner)
}
