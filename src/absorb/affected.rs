//! Finds the stored events that a change of a source concerns: the set D, rule by rule.
//!
//! ```text
//! new, leaving and re-decided events = D
//!   for each rule in order:
//!     keys and times of D ──▶ KeyFilter, Spans ──look──▶ links of D's keys, from narrow columns of the slices
//!                                 ▲                       │
//!                  further, while a chain is open ◀──grow─┤
//!                                                         ▼
//!     chains that hold a member of D ──join──▶ rows to be decided
//!                    └── their rows under later rules: D of the next rule
//! ```
//!
//! An event that an earlier rule has taken out, and that is not of D, takes no part in this rule
//! before nor after: it is passed over.
//!
//! Everything is sorted rows that spill; what grows with the lake are the list of slices and the
//! names of raw objects.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};

use super::decode::NarrowRows;
use super::search::{Search, unknown_rule};
use super::slices::{Slices, Span, Spans};
use super::stored::{StoredRow, StoredTables};
use super::{AbsorbError, Settings};
use crate::dedup::{
    EventId, Fingerprint, Grown, KeyError, KeyFilter, Keys, Sorted, Sorter, Standing,
    from_sortable, grow, part_of,
};
use crate::ledger::File;
use crate::publish::Wanted;

/// A stored event of D as it was: `[place, sortable time, id, displaced by, standing]`. The standing of an
/// event that leaves has [`LEAVES`] set.
pub type Before = [u64; 5];
/// Marks the standing of an event that leaves.
pub const LEAVES: u64 = 1 << 63;

/// The stored events that belong to D from the beginning.
pub struct Origins {
    /// The spans of the slices that hold these events.
    pub spans: Vec<Span>,
    /// All events of these times are decided again.
    pub again: Option<(i64, i64)>,
}

/// The stored events of D, and the rows that are to be decided.
pub struct Affected {
    /// The narrow rows of all events of D.
    pub rows: NarrowRows,
    /// The stored events of D as they were, in the order of events.
    pub before: Sorted<5>,
    /// The ranks of the raw objects of these events.
    pub objects: BTreeSet<u32>,
}

/// Looks for D. While D grows, only the keys in the filters change.
pub struct Finder<'a> {
    pub settings: &'a Settings,
    pub stored: &'a StoredTables,
    pub slices: &'a Slices,
    pub search: &'a Search,
}

/// A link of one rule: the rule, the key, the sortable time, the id and the standing.
type RuleLink = (usize, Fingerprint, u64, u64, u64);

/// The stored members of D that are known so far.
struct Members {
    /// The links of the members, by rule and by part.
    links: Vec<Vec<Sorter<6>>>,
    before: Sorter<5>,
    objects: BTreeSet<u32>,
    /// For each rule, the spans of stored events around members.
    wanted: Vec<Spans>,
}

/// The result of one look at stored events.
struct Looked {
    /// By part, the links of the rule whose keys D has.
    links: Vec<Sorter<6>>,
    /// Rows of the same events under each later rule: `[time, id, key, key]`.
    aside: Vec<Sorter<4>>,
}

/// The stored events that are read in one look.
struct Reading<'a> {
    spans: &'a [Span],
    schema: &'a SchemaRef,
    /// Whether events that leave are read too.
    leaving: bool,
}

impl Finder<'_> {
    /// Grows D from the new rows and from the origins. `wanted` are the spans around the new events, by rule.
    ///
    /// # Errors
    /// A data file that cannot be read, a rule that fails on a value, a full disk.
    pub fn find(
        &self,
        new: NarrowRows,
        origins: &Origins,
        wanted: Vec<Spans>,
    ) -> Result<Affected, AbsorbError> {
        let rules = self.settings.source.rules.len();
        let mut members = Members {
            links: (0..rules).map(|_| self.parts()).collect(),
            before: self.sorter(),
            objects: BTreeSet::new(),
            wanted,
        };
        members = self.look_at_origins(origins, members)?;
        let mut rows = Vec::with_capacity(rules);
        for (rule, new) in new.into_iter().enumerate() {
            rows.push(self.grow_rule(rule, new, &mut members)?);
        }
        Ok(Affected {
            rows,
            before: Sorted::merge(vec![members.before]).map_err(|e| self.settings.spilling(e))?,
            objects: members.objects,
        })
    }

    fn sorter<const N: usize>(&self) -> Sorter<N> {
        Sorter::new(&self.settings.folder, self.settings.shares.sorter)
    }

    /// A sorter for each part.
    fn parts<const N: usize>(&self) -> Vec<Sorter<N>> {
        (0..self.settings.threads).map(|_| self.sorter()).collect()
    }

    /// The columns that these rules read.
    fn columns(&self, rules: Range<usize>) -> Result<SchemaRef, AbsorbError> {
        let schema = &self.settings.schema;
        let names = self.settings.keys(rules, schema)?.columns();
        let fields = schema.fields().iter();
        let fields: Vec<_> = fields
            .filter(|field| names.contains(field.name()))
            .cloned()
            .collect();
        Ok(Arc::new(Schema::new(fields)))
    }

    fn failing(&self, file: &File, error: KeyError) -> AbsorbError {
        AbsorbError::Rule {
            name: self.settings.source.name.clone(),
            found_in: format!(
                "the stored events of {}",
                self.stored.lake.url_of(&file.entry.key())
            ),
            error: Box::new(error),
        }
    }

    /// Reads spans of slices on all threads. `start` makes the state of one thread and says which rows the
    /// thread wants. `look` takes the rows of one batch.
    fn each_batch<S>(
        &self,
        Reading {
            spans,
            schema,
            leaving,
        }: Reading<'_>,
        start: impl Fn() -> Result<(S, Option<Wanted>), AbsorbError> + Sync,
        look: impl Fn(&mut S, &File, RecordBatch, &[StoredRow]) -> Result<(), AbsorbError> + Sync,
    ) -> Result<(), AbsorbError> {
        let mut files: Vec<(&File, i64, i64)> = Vec::new();
        for (slice, first, last) in spans {
            let known = self.slices.get(*slice);
            let slice =
                known.ok_or_else(|| AbsorbError::Defect(format!("there is no slice {slice}")))?;
            let sides = slice.kept.iter().chain(&slice.duplicates);
            files.extend(sides.map(|file| (file, *first, *last)));
        }
        let next = AtomicUsize::new(0);
        let work = || -> Result<(), AbsorbError> {
            let (mut state, wanted) = start()?;
            while let Some((file, first, last)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                let span = Some((*first, *last));
                let blocks = self
                    .stored
                    .rows(file, schema, span, wanted.clone(), leaving)?;
                for block in blocks {
                    let (batch, rows) = block?;
                    look(&mut state, file, batch, &rows)?;
                }
            }
            Ok(())
        };
        let readers = self.settings.threads.min(files.len());
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..readers).map(|_| scope.spawn(work)).collect();
            let died = |_| Err(AbsorbError::Defect("a reader died".to_owned()));
            let workers = workers.into_iter();
            workers
                .map(|worker| worker.join().unwrap_or_else(died))
                // Every thread is joined, also after an error.
                .fold(Ok(()), Result::and)
        })
    }

    /// Adds the events that leave or are decided again to D.
    fn look_at_origins(&self, origins: &Origins, members: Members) -> Result<Members, AbsorbError> {
        if origins.spans.is_empty() {
            return Ok(members);
        }
        let rules = self.settings.source.rules.len();
        let schema = self.columns(0..rules)?;
        let members = Mutex::new(members);
        let again = |row: &StoredRow| {
            let time = from_sortable(row.time);
            let times = origins.again;
            times.is_some_and(|(first, last)| (first..=last).contains(&time))
        };
        self.each_batch(
            Reading {
                spans: &origins.spans,
                schema: &schema,
                leaving: true,
            },
            || Ok((self.settings.keys(0..rules, &schema)?, None)),
            |keys, file, batch, rows| {
                let mask: Vec<bool> = rows.iter().map(|row| row.leaves || again(row)).collect();
                if !mask.iter().any(|is| *is) {
                    return Ok(());
                }
                let links = self.links_of(keys, file, &batch, rows, &mask)?;
                let mut members = lock(&members);
                self.note_before(&mut members, rows, &mask)?;
                self.join_links(&mut members, links)
            },
        )?;
        Ok(into_inner(members))
    }

    /// Notes the rows of D as they were.
    fn note_before(
        &self,
        members: &mut Members,
        rows: &[StoredRow],
        mask: &[bool],
    ) -> Result<(), AbsorbError> {
        let mut places = self.settings.places();
        let mut noted: Vec<Before> = Vec::new();
        for (row, _) in rows.iter().zip(mask).filter(|(_, is)| **is) {
            let place = places.of(from_sortable(row.time));
            let leaves = if row.leaves { LEAVES } else { 0 };
            let standing = row.before.bits() | leaves;
            noted.push([place, row.time, row.id.0, row.kept.0, standing]);
            if !row.leaves {
                members.objects.insert(row.id.object());
            }
        }
        let noted = members.before.extend(&noted);
        noted.map_err(|e| self.settings.spilling(e))
    }

    /// The links of the rows of a mask under the rules of `keys`. The first of these rules is rule 0.
    fn links_of(
        &self,
        keys: &mut Keys,
        file: &File,
        batch: &RecordBatch,
        rows: &[StoredRow],
        mask: &[bool],
    ) -> Result<Vec<RuleLink>, AbsorbError> {
        let filter: BooleanArray = mask.iter().copied().map(Some).collect();
        let picked: Vec<&StoredRow> = rows
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
                links.push((rule, key, row.time, row.id.0, standing.bits()));
            }
        })
        .map_err(|error| self.failing(file, error))?;
        Ok(links)
    }

    /// Makes links members of D under their rules.
    fn join_links(
        &self,
        members: &mut Members,
        links: impl IntoIterator<Item = RuleLink>,
    ) -> Result<(), AbsorbError> {
        for (rule, key, time, id, standing) in links {
            let part = part_of(key, self.settings.threads);
            let parts = members.links.get_mut(rule);
            let part = parts.and_then(|parts| parts.get_mut(part));
            let (Some(wanted), Some(part)) = (members.wanted.get_mut(rule), part) else {
                return Err(unknown_rule(rule));
            };
            self.search
                .note(rule, self.slices, wanted, &[(key, time)])?;
            let link = [key[0], key[1], time, id, standing, 0];
            part.push(link).map_err(|e| self.settings.spilling(e))?;
        }
        Ok(())
    }

    /// Adds the chains of one rule to D, and gives the rows of this rule by part.
    fn grow_rule(
        &self,
        rule: usize,
        mut new: Vec<Vec<Sorter<4>>>,
        members: &mut Members,
    ) -> Result<Vec<Vec<Sorter<4>>>, AbsorbError> {
        let within = self.search.window(rule)?.within;
        let (Some(links), Some(wanted)) = (members.links.get_mut(rule), members.wanted.get(rule))
        else {
            return Err(unknown_rule(rule));
        };
        let mut links = std::mem::take(links);
        let mut wanted = wanted.clone();
        let mut looked = Spans::none(self.slices);
        let later = rule + 1..self.settings.source.rules.len();
        let mut aside: Vec<Sorter<4>> = later.clone().map(|_| self.sorter()).collect();
        let mut rows: Vec<Vec<Sorter<4>>> = new.iter().map(|_| Vec::new()).collect();
        let mut joined: Vec<Sorter<4>> = Vec::new();
        let mut step = within;
        loop {
            let spans = wanted.beyond(&looked);
            looked = wanted.clone();
            if spans.is_empty() && links.iter().all(Sorter::is_empty) {
                // No stored event is concerned.
                for (rows, new) in rows.iter_mut().zip(new) {
                    rows.extend(new);
                }
                break;
            }
            let found = self.look(rule, &spans, aside)?;
            aside = found.aside;
            let stored = links.into_iter().zip(found.links).map(|(a, b)| vec![a, b]);
            let parts = new.into_iter().zip(stored).collect();
            let mut beyond = Vec::new();
            (new, links) = (Vec::new(), Vec::new());
            for (grown, rows) in self
                .grow(parts, within, &looked)?
                .into_iter()
                .zip(&mut rows)
            {
                rows.push(grown.rows);
                joined.push(grown.joined);
                links.push(grown.open);
                beyond.extend(grown.beyond);
                new.push(Vec::new());
            }
            if beyond.is_empty() {
                break;
            }
            // The step doubles each time, so a chain of days takes a handful of passes.
            step = step.saturating_mul(2);
            for (first, last) in beyond {
                let (from, to) = (first.saturating_sub(step), last.saturating_add(step));
                wanted.want(self.slices, from, to);
            }
        }
        self.join(joined, aside, later, members)?;
        Ok(rows)
    }

    /// Reads the links of one rule in `spans` whose keys D has. The rows of the same events under later rules
    /// are added to `aside`.
    fn look(
        &self,
        rule: usize,
        spans: &[Span],
        aside: Vec<Sorter<4>>,
    ) -> Result<Looked, AbsorbError> {
        let links = self.parts();
        if spans.is_empty() {
            return Ok(Looked { links, aside });
        }
        let filter = self.search.filter(rule)?;
        let rules = self.settings.source.rules.len();
        let schema = self.columns(rule..rules)?;
        let links: Vec<_> = links.into_iter().map(Mutex::new).collect();
        let aside: Vec<_> = aside.into_iter().map(Mutex::new).collect();
        let push = |error| self.settings.spilling(error);
        self.each_batch(
            Reading {
                spans,
                schema: &schema,
                leaving: false,
            },
            || {
                let own = self.settings.keys(rule..rule + 1, &schema)?;
                let others = self.settings.keys(rule + 1..rules, &schema)?;
                Ok(((own, others), Some(self.wanted(rule, filter)?)))
            },
            |(own, others), file, batch, rows| {
                let times: Vec<u64> = rows.iter().map(|row| row.time).collect();
                let mut mask = vec![false; rows.len()];
                let mut found = vec![Vec::new(); links.len()];
                own.each(&batch, Some(&times), |_, i, key| {
                    let Some(row) = rows.get(i) else { return };
                    let earlier = row.before.rule().is_some_and(|by| (by as usize) < rule);
                    if earlier || !filter.contains(key) {
                        return;
                    }
                    if let Some(is) = mask.get_mut(i) {
                        *is = true;
                    }
                    if let Some(found) = found.get_mut(part_of(key, links.len())) {
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
                for (rule, key, time, id, _) in self.links_of(others, file, &batch, rows, &mask)? {
                    let sorter = aside.get(rule).ok_or_else(|| unknown_rule(rule))?;
                    let row = [time, id, key[0], key[1]];
                    lock(sorter).push(row).map_err(push)?;
                }
                Ok(())
            },
        )?;
        Ok(Looked {
            links: links.into_iter().map(into_inner).collect(),
            aside: aside.into_iter().map(into_inner).collect(),
        })
    }

    /// Few stored events have a key of D. Only the key is decoded of the other events.
    fn wanted(&self, rule: usize, filter: &Arc<KeyFilter>) -> Result<Wanted, AbsorbError> {
        let schema = self.columns(rule..rule + 1)?;
        let keys = Mutex::new(self.settings.keys(rule..rule + 1, &schema)?);
        let filter = Arc::clone(filter);
        let test = move |batch: &RecordBatch| {
            let mut mask = vec![false; batch.num_rows()];
            let tested = lock(&keys).each(batch, None, |_, row, key| {
                if let Some(is) = mask.get_mut(row) {
                    *is = filter.contains(key);
                }
            });
            // An expression that fails here fails again where the file can be named.
            if tested.is_err() {
                mask.fill(true);
            }
            BooleanArray::from(mask)
        };
        Ok(Wanted {
            schema,
            test: Arc::new(test),
        })
    }

    /// Finds the chains of each part that hold a member of D. A part has its new rows and its links. The stored
    /// events within `looked` have been read.
    fn grow(
        &self,
        parts: Vec<(Vec<Sorter<4>>, Vec<Sorter<6>>)>,
        within: i64,
        looked: &Spans,
    ) -> Result<Vec<Grown>, AbsorbError> {
        let covered = looked.covered(self.slices);
        let (folder, memory) = (&self.settings.folder, self.settings.shares.sorter);
        let grown: Vec<io::Result<Grown>> = std::thread::scope(|scope| {
            let covered = &covered;
            let workers: Vec<_> = parts
                .into_iter()
                .map(|(new, links)| {
                    scope.spawn(move || {
                        let (new, links) = (Sorted::merge(new)?, Sorted::merge(links)?);
                        grow(new, links, within, covered, folder, memory)
                    })
                })
                .collect();
            let died = |_| Err(io::Error::other("a chain thread died"));
            let workers = workers.into_iter();
            workers
                .map(|worker| worker.join().unwrap_or_else(died))
                .collect()
        });
        let grown: io::Result<Vec<Grown>> = grown.into_iter().collect();
        grown.map_err(|error| self.settings.spilling(error))
    }

    /// Makes stored events that have joined D members of D under the later rules.
    fn join(
        &self,
        joined: Vec<Sorter<4>>,
        aside: Vec<Sorter<4>>,
        later: Range<usize>,
        members: &mut Members,
    ) -> Result<(), AbsorbError> {
        let spilling = |error| self.settings.spilling(error);
        let mut joined = Sorted::merge(joined).map_err(spilling)?;
        let aside = aside.into_iter().map(|sorter| Sorted::merge(vec![sorter]));
        let mut aside = aside.collect::<io::Result<Vec<_>>>().map_err(spilling)?;
        let mut places = self.settings.places();
        while let Some([time, id, standing, kept]) = joined.pop().map_err(spilling)? {
            let place = places.of(from_sortable(time));
            let before = members.before.push([place, time, id, kept, standing]);
            before.map_err(spilling)?;
            members.objects.insert(EventId(id).object());
            for (rule, rows) in later.clone().zip(&mut aside) {
                while let Some([other, other_id, a, b]) = rows
                    .peek()
                    .copied()
                    .filter(|row| row[..2] <= [time, id][..])
                {
                    rows.pop().map_err(spilling)?;
                    if [other, other_id] == [time, id] {
                        let link = (rule, [a, b], time, id, Standing::CONCERNED.bits());
                        self.join_links(members, [link])?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn into_inner<T>(of: Mutex<T>) -> T {
    of.into_inner().unwrap_or_else(PoisonError::into_inner)
}
