//! The set D → verdicts → the changes that they make, place by place.
//!
//! ```text
//! rows of D, by rule ──decide──▶ the events that are duplicates now ──┐
//! what the stored events of D were ───────────────────────────────────┴─compare──▶ Changed
//! ```

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io;

use arrow::array::Array;

use super::affected::{Affected, LEAVES};
use super::decode::Events;
use super::stored::StoredTables;
use super::{AbsorbError, DecodedObjects, Input, Settings};
use crate::dedup::{Dropped, DroppedRow, Sorted, Sorter, Standing, decide};
use crate::publish::KEPT;

/// The changes that the new verdicts make.
pub struct Changed {
    pub places: BTreeMap<u64, PlaceChange>,
    /// The verdicts that differ from the stored ones, as rows of [`crate::publish::write`].
    pub verdicts: Sorter<5>,
    /// The change of the number of kept events, …
    pub kept: i64,
    /// … and the change of the number of duplicates of each rule.
    pub by_rule: Vec<i64>,
    /// The number of stored events that leave.
    pub gone: i64,
}

/// The changes of the events of one place.
#[derive(Debug, Default)]
pub struct PlaceChange {
    came: Events,
    gone: Events,
    /// Events that leave and come again as duplicates of the same event by the same rule.
    same_duplicates: i64,
    new_kept: i64,
    new_dropped: i64,
    gone_kept: i64,
    gone_dropped: i64,
    /// The number of kept events that become duplicates, and of duplicates that become kept events.
    to_dropped: i64,
    to_kept: i64,
    /// The number of duplicates that get another rule or are displaced by another event.
    repointed: i64,
}

impl PlaceChange {
    /// Whether the table of kept events changes in this place, and by how many rows.
    pub fn kept(&self) -> (bool, i64) {
        let changes = [self.new_kept, self.gone_kept, self.to_dropped, self.to_kept];
        let by = self.new_kept - self.gone_kept - self.to_dropped + self.to_kept;
        (changes.iter().any(|count| *count != 0), by)
    }

    /// Whether the table of duplicates changes in this place, and by how many rows.
    pub fn duplicates(&self) -> (bool, i64) {
        let changes = [
            self.new_dropped,
            self.gone_dropped,
            self.to_dropped,
            self.to_kept,
            self.repointed,
        ];
        let by = self.new_dropped - self.gone_dropped + self.to_dropped - self.to_kept;
        (changes.iter().any(|count| *count != 0), by)
    }

    /// Whether stored events leave this place.
    pub const fn loses_events(&self) -> bool {
        self.gone.count > 0
    }

    /// Whether the events that come are the events that leave.
    pub fn comes_again(&self) -> bool {
        self.loses_events() && self.came == self.gone
    }

    /// Whether the place would hold the same events with the same verdicts.
    pub fn is_as_before(&self) -> bool {
        self.comes_again()
            && self.to_dropped + self.to_kept + self.repointed == 0
            && [self.gone_dropped, self.new_dropped] == [self.same_duplicates; 2]
    }
}

/// Decides the events of D, and compares the verdicts with those that are stored.
///
/// # Errors
/// A full disk; an event of a raw object that is not in the log, which is a defect.
pub fn verdicts(
    settings: &Settings,
    input: &Input,
    stored: &StoredTables,
    decoded: &DecodedObjects,
    affected: Affected,
) -> Result<Changed, AbsorbError> {
    let spilling = |source| settings.spilling(source);
    let earlier = no_verdicts(input, stored, decoded, &affected)?;
    let dropped = decide(
        &settings.source.rules,
        affected.rows,
        &earlier,
        &settings.places(),
        &settings.folder,
        settings.shares.dropped,
    )
    .map_err(spilling)?;
    if earlier.met_unknown() {
        let what = "a rule met an event of a raw object that is not in the log";
        return Err(AbsorbError::Defect(what.to_owned()));
    }
    drop(earlier);
    let changed = Sorter::new(&settings.folder, settings.shares.dropped);
    let mut changed = Changed::new(&decoded.places, stored.rules.len(), changed);
    changed
        .compare(affected.before, dropped)
        .map_err(spilling)?;
    Ok(changed)
}

/// One bit for each record of the raw objects that D has events of. None is set.
fn no_verdicts(
    input: &Input,
    stored: &StoredTables,
    decoded: &DecodedObjects,
    affected: &Affected,
) -> Result<Dropped, AbsorbError> {
    let of_stored = affected.objects.iter().map(|rank| {
        let name = stored.objects.value(*rank as usize);
        let entry = input.known.objects.get(name);
        let unknown = || format!("raw object {name} has stored events and is not in the log");
        let entry = entry.ok_or_else(|| AbsorbError::Defect(unknown()))?;
        Ok((*rank, entry.records))
    });
    let mut records = of_stored.collect::<Result<BTreeMap<u32, u64>, AbsorbError>>()?;
    for (object, read) in input.objects.iter().zip(&decoded.objects) {
        records.insert(object.rank, read.counts.records);
    }
    let ranks = (0u32..).take(stored.objects.len());
    Ok(Dropped::new(ranks.map(|rank| records.get(&rank).copied())))
}

/// A stored event of D before this commit.
#[derive(Clone, Copy)]
struct Earlier {
    place: u64,
    time: u64,
    id: u64,
    displaced_by: u64,
    /// The rule that had dropped the event.
    rule: Option<u64>,
    /// Whether its raw object is taken out.
    leaves: bool,
}

impl Earlier {
    fn of(row: &[u64; 5]) -> Self {
        let [place, time, id, displaced_by, standing] = *row;
        let rule = Standing::from_bits(standing & !LEAVES).rule();
        Self {
            place,
            time,
            id,
            displaced_by,
            rule: rule.map(u64::from),
            leaves: standing & LEAVES != 0,
        }
    }
}

/// The new verdict that an event is a duplicate.
#[derive(Clone, Copy)]
struct Duplicate {
    place: u64,
    displaced_by: u64,
    rule: u64,
    row: DroppedRow,
}

impl Duplicate {
    const fn of(row: DroppedRow) -> Self {
        let [place, _, _, displaced_by, rule] = row;
        Self {
            place,
            displaced_by,
            rule,
            row,
        }
    }
}

impl Changed {
    /// Starts from the state in which all new events are kept. `places` has their numbers.
    fn new(places: &BTreeMap<u64, Events>, rules: usize, verdicts: Sorter<5>) -> Self {
        let new_kept = |came: &Events| PlaceChange {
            came: *came,
            new_kept: came.count,
            ..PlaceChange::default()
        };
        Self {
            places: places.iter().map(|(p, n)| (*p, new_kept(n))).collect(),
            verdicts,
            kept: places.values().map(|came| came.count).sum(),
            by_rule: vec![0; rules],
            gone: 0,
        }
    }

    /// Compares what the stored events of D were with the verdicts on D.
    fn compare(&mut self, mut before: Sorted<5>, mut dropped: Sorted<5>) -> io::Result<()> {
        loop {
            let (was, is) = match (before.peek(), dropped.peek()) {
                (None, None) => return Ok(()),
                (Some(was), Some(is)) => match was[..3].cmp(&is[..3]) {
                    Ordering::Less => (Some(was), None),
                    Ordering::Greater => (None, Some(is)),
                    // The verdict concerns the event that came in the place of this one.
                    Ordering::Equal if Earlier::of(was).leaves => {
                        self.compare_again(Earlier::of(was), Duplicate::of(*is));
                        (Some(was), None)
                    }
                    Ordering::Equal => (Some(was), Some(is)),
                },
                one => one,
            };
            let was = was.map(Earlier::of);
            let is = is.copied().map(Duplicate::of);
            if was.is_some() {
                before.pop()?;
            }
            if is.is_some() {
                dropped.pop()?;
            }
            match (was, is) {
                (Some(was), _) if was.leaves => self.leave(was),
                (Some(was), None) if was.rule.is_some() => self.keep(was)?,
                // The event was kept and is kept.
                (_, None) => {}
                (was, Some(is)) => self.drop(was, is)?,
            }
        }
    }

    /// Counts the duplicates of a rule. If the rule is unknown, nothing is counted, and the counts do not
    /// balance.
    fn count(&mut self, rule: Option<u64>, by: i64) {
        let of_rule = rule.and_then(|rule| self.by_rule.get_mut(rule as usize));
        if let Some(of_rule) = of_rule {
            *of_rule += by;
        }
    }

    /// An event leaves, and comes again as a duplicate.
    fn compare_again(&mut self, was: Earlier, is: Duplicate) {
        if (was.rule, was.displaced_by) == (Some(is.rule), is.displaced_by) {
            self.places.entry(was.place).or_default().same_duplicates += 1;
        }
    }

    /// Notes that a stored event leaves.
    fn leave(&mut self, was: Earlier) {
        self.gone += 1;
        self.count(was.rule, -1);
        let change = self.places.entry(was.place).or_default();
        change.gone.note(was.time, was.id);
        match was.rule {
            Some(_) => change.gone_dropped += 1,
            None => {
                change.gone_kept += 1;
                self.kept -= 1;
            }
        }
    }

    /// Notes that a stored duplicate is kept now.
    fn keep(&mut self, was: Earlier) -> io::Result<()> {
        self.count(was.rule, -1);
        self.kept += 1;
        self.places.entry(was.place).or_default().to_kept += 1;
        self.verdicts.push([was.place, was.time, was.id, 0, KEPT])
    }

    /// Notes that an event is a duplicate now.
    fn drop(&mut self, was: Option<Earlier>, is: Duplicate) -> io::Result<()> {
        let before = was.and_then(|was| Some((was.displaced_by, was.rule?)));
        if before == Some((is.displaced_by, is.rule)) {
            return Ok(());
        }
        self.count(before.map(|(_, rule)| rule), -1);
        self.count(Some(is.rule), 1);
        let change = self.places.entry(is.place).or_default();
        match (was, before) {
            (None, _) => {
                change.new_dropped += 1;
                change.new_kept -= 1;
                self.kept -= 1;
            }
            (Some(_), None) => {
                change.to_dropped += 1;
                self.kept -= 1;
            }
            (Some(_), Some(_)) => change.repointed += 1,
        }
        self.verdicts.push(is.row)
    }
}
