//! One pass over the sorted rows of a rule: narrow rows + earlier verdicts → verdicts.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{EventId, Sorted, Sorter, from_sortable};
use crate::config::{Mode, Rule};
use crate::event::{Place, Slicing};
use crate::time::TimeUnit;

/// An event that a rule took out: `[place, sortable time, id, id of the event that displaced it, index of the
/// rule]`. Rows are in the order of the sorted events.
pub type DroppedRow = [u64; 5];

/// The first bit of an object that has no bits. It lies behind all bits, so that one comparison finds it.
const NO_BITS: u64 = 1 << 62;

/// The events that the rules have taken out so far: one bit for each record.
#[derive(Debug)]
pub struct Dropped {
    /// The first bit of each object.
    starts: Vec<u64>,
    bits: Vec<AtomicU64>,
    /// Whether an event without a bit was asked for.
    unknown: AtomicBool,
}

impl Dropped {
    /// `records` is the number of records of each raw object, in the order of their ranks; `None` for an object
    /// without an event to be decided.
    pub fn new(records: impl Iterator<Item = Option<u64>>) -> Self {
        let mut total = 0;
        let starts = records
            .map(|count| {
                let Some(count) = count else {
                    return NO_BITS;
                };
                let start = total;
                // Records are numbered from 1.
                total += count + 1;
                start
            })
            .collect();
        let words = usize::try_from(total / 64 + 1).unwrap_or(usize::MAX);
        Self {
            starts,
            bits: (0..words).map(|_| AtomicU64::new(0)).collect(),
            unknown: AtomicBool::new(false),
        }
    }

    /// Whether a rule met an event of a raw object whose number of records was not given. The verdicts are
    /// wrong then. This is a defect.
    pub fn met_unknown(&self) -> bool {
        self.unknown.load(Ordering::Relaxed)
    }

    /// The word that holds the bit of an event, and the bit in it.
    fn bit(&self, id: EventId) -> Option<(&AtomicU64, u64)> {
        let start = self.starts.get(id.object() as usize)?;
        let bit = start + u64::from(id.record());
        Some((self.bits.get((bit / 64) as usize)?, 1 << (bit % 64)))
    }

    #[cold]
    fn note_unknown(&self) {
        self.unknown.store(true, Ordering::Relaxed);
    }

    fn contains(&self, id: EventId) -> bool {
        let Some((word, mask)) = self.bit(id) else {
            self.note_unknown();
            return false;
        };
        word.load(Ordering::Relaxed) & mask != 0
    }

    fn insert(&self, id: EventId) {
        match self.bit(id) {
            Some((word, mask)) => drop(word.fetch_or(mask, Ordering::Relaxed)),
            None => self.note_unknown(),
        }
    }
}

/// Applies the rules in order. Each rule sees the survivors of the rules before it. The result is the dropped
/// events, in the order of the sorted events.
///
/// `rows` holds the narrow rows of every rule. They are divided by key into parts that are worked on at once,
/// and each part may have several sorters. `places` gives the places of the table. `memory` is the most bytes
/// of dropped rows that are held.
///
/// # Errors
/// The spill folder is full or cannot be read.
pub fn decide(
    rules: &[Rule],
    rows: Vec<Vec<Vec<Sorter<4>>>>,
    earlier: &Dropped,
    places: &Places,
    spill: &Path,
    memory: usize,
) -> io::Result<Sorted<5>> {
    let parts = rows.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let share = memory / parts;
    let mut sinks: Vec<Sorter<5>> = (0..parts).map(|_| Sorter::new(spill, share)).collect();
    for (index, (rule, parts)) in rules.iter().zip(rows).enumerate() {
        let window = Window::new(rule, places.unit);
        std::thread::scope(|scope| {
            let workers: Vec<_> = parts
                .into_iter()
                .zip(&mut sinks)
                .map(|(part, sink)| {
                    scope.spawn(move || {
                        let mut places = places.clone();
                        window.decide(Sorted::merge(part)?, earlier, |time, id, kept| {
                            let place = places.of(from_sortable(time));
                            sink.push([place, time, id.0, kept.0, index as u64])
                        })
                    })
                })
                .collect();
            workers
                .into_iter()
                .map(|worker| {
                    worker
                        .join()
                        .unwrap_or_else(|_| Err(io::Error::other("a verdict thread died")))
                })
                // Every thread is joined, also after an error.
                .fold(Ok(()), Result::and)
        })?;
    }
    Sorted::merge(sinks)
}

/// Gives the places of many times. It remembers the span of the last place.
#[derive(Debug, Clone)]
pub struct Places {
    slicing: Slicing,
    unit: TimeUnit,
    known: Option<(Place, i64, i64)>,
}

impl Places {
    /// The places of a table with this slicing. Times are in `unit`.
    pub const fn new(slicing: Slicing, unit: TimeUnit) -> Self {
        Self {
            slicing,
            unit,
            known: None,
        }
    }

    /// The partition and slice of an event time.
    pub fn place(&mut self, time: i64) -> Place {
        match self.known {
            Some((place, from, until)) if (from..until).contains(&time) => place,
            _ => {
                let found = self.slicing.place(time, self.unit);
                self.known = Some(found);
                found.0
            }
        }
    }

    /// The place as an integer that sorts in the same order.
    pub fn of(&mut self, time: i64) -> u64 {
        self.place(time).sortable()
    }
}

/// The mode of a rule, and its window in the unit of the table.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    mode: Mode,
    /// The length of the window in the unit of the table. A difference that equals the length is within the
    /// window.
    pub within: i64,
}

impl Window {
    /// The window of a rule. Times are in `unit`.
    pub fn new(rule: &Rule, unit: TimeUnit) -> Self {
        Self {
            mode: rule.mode,
            within: rule.within_ms.saturating_mul(unit.per_second() / 1_000),
        }
    }

    /// Walks over rows `[key, key, sortable time, id]` in order. It reports each row that this rule takes out,
    /// with the event that displaced it.
    fn decide(
        self,
        mut rows: Sorted<4>,
        earlier: &Dropped,
        mut drop: impl FnMut(u64, EventId, EventId) -> io::Result<()>,
    ) -> io::Result<()> {
        // The last row of the current key from which the next row's distance is measured, and the event that
        // displaces a row within the window.
        let mut anchor: Option<([u64; 2], i64, EventId)> = None;
        while let Some([k0, k1, bits, id]) = rows.pop()? {
            let (key, time, id) = ([k0, k1], from_sortable(bits), EventId(id));
            if earlier.contains(id) {
                continue;
            }
            let same_key = anchor.filter(|(known, ..)| *known == key);
            let near = same_key.filter(|(_, last, _)| match self.mode {
                Mode::Tumbling => last.div_euclid(self.within) == time.div_euclid(self.within),
                _ => time.saturating_sub(*last) <= self.within,
            });
            match (self.mode, near) {
                (Mode::Throttle | Mode::Tumbling, Some((_, _, kept))) => {
                    earlier.insert(id);
                    drop(bits, id, kept)?;
                }
                (Mode::Gap, Some((_, _, first))) => {
                    earlier.insert(id);
                    drop(bits, id, first)?;
                    anchor = Some((key, time, first));
                }
                (Mode::GapLast, Some((_, last, waiting))) => {
                    earlier.insert(waiting);
                    drop(super::sortable(last), waiting, id)?;
                    anchor = Some((key, time, id));
                }
                (_, None) => anchor = Some((key, time, id)),
            }
        }
        Ok(())
    }
}
