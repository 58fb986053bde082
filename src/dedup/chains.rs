//! Finds the stored events that a change can concern: chain by chain, for one rule.
//!
//! ```text
//! key K   stored ●──●        ●──●──●           ●       within w
//! change              ◆ new          ▲
//! links   ●──●───────◆──────●──●──●  ·         ●       pauses ≤ w join a chain
//!         └──── one chain with a changed event ┘
//!               all of it is decided again             the last ● is another chain: left alone
//! ```
//!
//! A chain is *open* if it ends so near to times that were not looked at that an event there might belong to
//! it. Its key is tried again when these times have been looked at.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Fingerprint, Sorted, Sorter, from_sortable};

/// The number of links of one key that are held in memory. A key with more events, such as the key of a robot,
/// is spilled.
const HELD: usize = 1 << 16;

/// The role of an event in a change, as one integer. New and leaving events sort before stored ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing(u64);

impl Standing {
    /// The event comes with this commit.
    pub const NEW: Self = Self(0);
    /// The event is taken out by this commit.
    pub const LEAVING: Self = Self(1);
    /// The event is stored, and known to be concerned.
    pub const CONCERNED: Self = Self(2);
    /// The event is stored as a kept event.
    pub const KEPT: Self = Self(3);

    /// The event is stored as a duplicate under the rule with this index.
    pub const fn dropped(rule: u32) -> Self {
        Self(4 + rule as u64)
    }

    /// The rule that had dropped a stored event.
    pub fn rule(self) -> Option<u32> {
        self.0.checked_sub(4).and_then(|rule| rule.try_into().ok())
    }

    /// Whether the event makes its chain concerned. Stored events that are not known to be concerned do not.
    const fn changed(self) -> bool {
        self.0 <= Self::CONCERNED.0
    }

    /// The standing as one integer.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The standing that gave [`Self::bits`].
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// An event under one rule: `[key, key, sortable time, id, standing, id of the event that displaced it]`.
pub type Link = [u64; 6];

/// The keys of changed events. The answer may be yes for other keys, but it is never no for one of these keys.
///
/// ```text
/// fingerprint ─▶ high half: two bits of a word ── few others pass ──▶ low half: four bits of a word
///                every key, in the nearest caches                     hardly any other passes
/// ```
#[derive(Debug)]
pub struct KeyFilter {
    first: Vec<AtomicU64>,
    /// The second table. It has eight times the bits of the first.
    second: Vec<AtomicU64>,
}

impl KeyFilter {
    /// The filter takes little more than `memory` bytes, and at least 16 KiB.
    pub fn new(memory: usize) -> Self {
        let words = (memory / size_of::<u64>()).max(1 << 11);
        // The largest power of two that fits.
        let words = 1 << words.ilog2();
        let part = |words| (0..words).map(|_| AtomicU64::new(0)).collect();
        Self {
            first: part(words / 8),
            second: part(words),
        }
    }

    /// The word for each half of a key, and the bits in it.
    fn bits(&self, [high, low]: Fingerprint) -> impl Iterator<Item = (&AtomicU64, u64)> {
        // A fingerprint is a hash already, so any of its bits can be used.
        let word = |words: &'_ [AtomicU64], half: u64| {
            usize::try_from(half >> 24).unwrap_or(usize::MAX) & (words.len() - 1)
        };
        let bit = |half: u64, number: u32| 1 << (half >> (6 * number) & 63);
        let first = (
            self.first.get(word(&self.first, high)),
            bit(high, 0) | bit(high, 1),
        );
        let few = bit(low, 0) | bit(low, 1) | bit(low, 2) | bit(low, 3);
        let second = (self.second.get(word(&self.second, low)), few);
        [first, second]
            .into_iter()
            .filter_map(|(word, mask)| Some((word?, mask)))
    }

    /// Notes a key.
    pub fn insert(&self, key: Fingerprint) {
        for (word, mask) in self.bits(key) {
            word.fetch_or(mask, Ordering::Relaxed);
        }
    }

    /// Whether the key may have been noted. A key that was noted always passes; a few others pass too.
    pub fn contains(&self, key: Fingerprint) -> bool {
        self.bits(key)
            .all(|(word, mask)| word.load(Ordering::Relaxed) & mask == mask)
    }
}

/// Spans of event time in which all stored events have been looked at.
#[derive(Debug, Clone, Default)]
pub struct Covered {
    /// The spans of time with stored events that were not looked at: the first and the last time of each, in
    /// order and not overlapping.
    gaps: Vec<(i64, i64)>,
}

impl Covered {
    /// All times outside of these gaps. The gaps may be in any order and may overlap.
    pub fn outside(mut gaps: Vec<(i64, i64)>) -> Self {
        gaps.sort_unstable();
        gaps.dedup_by(|next, before| {
            let meet = next.0 <= before.1;
            if meet {
                before.1 = next.1.max(before.1);
            }
            meet
        });
        Self { gaps }
    }

    /// Whether all stored events of `first..=last` have been looked at.
    pub fn holds(&self, first: i64, last: i64) -> bool {
        let behind = self.gaps.partition_point(|(_, to)| *to < first);
        self.gaps.get(behind).is_none_or(|(from, _)| *from > last)
    }
}

/// The result of one pass over the links of a rule.
#[derive(Debug)]
pub struct Grown {
    /// Rows `[key, key, sortable time, id]` of the concerned chains, without events that leave.
    pub rows: Sorter<4>,
    /// Stored events that have become concerned: `[sortable time, id, standing, displaced by]`.
    pub joined: Sorter<4>,
    /// All links of the keys that have an open chain.
    pub open: Sorter<6>,
    /// The first and the last time of each open chain.
    pub beyond: Vec<(i64, i64)>,
}

/// Walks over the links of a rule. `new` are the rows of events that come with this commit. `stored` are the
/// links of all other events that were looked at. `covered` are the times whose stored events have all been
/// looked at; the times around changed events are among them.
///
/// # Errors
/// The spill folder is full or cannot be read.
pub fn grow(
    mut new: Sorted<4>,
    mut stored: Sorted<6>,
    within: i64,
    covered: &Covered,
    spill: &Path,
    memory: usize,
) -> io::Result<Grown> {
    let mut grown = Grown {
        rows: Sorter::new(spill, memory),
        joined: Sorter::new(spill, memory / 4),
        open: Sorter::new(spill, memory),
        beyond: Vec::new(),
    };
    loop {
        let key = match (new.peek(), stored.peek()) {
            (None, None) => return Ok(grown),
            (Some([a, b, ..]), None) | (None, Some([a, b, ..])) => [*a, *b],
            (Some([a, b, ..]), Some([c, d, ..])) => [*a, *b].min([*c, *d]),
        };
        if stored.peek().is_none_or(|[a, b, ..]| [*a, *b] != key) {
            // No stored event has this key.
            while let Some(row) = new.peek().copied().filter(|[a, b, ..]| [*a, *b] == key) {
                grown.rows.push(row)?;
                new.pop()?;
            }
            continue;
        }
        let mut walk = Walk::new(within, spill);
        while let Some(link) = next_of(key, &mut new, &mut stored)? {
            walk.push(link, covered)?;
        }
        walk.finish(covered, &mut grown)?;
    }
}

/// The next link of a key, from the new rows or from the stored ones.
fn next_of(key: [u64; 2], new: &mut Sorted<4>, stored: &mut Sorted<6>) -> io::Result<Option<Link>> {
    let ours = |a: u64, b: u64| [a, b] == key;
    let new_row = new.peek().copied().filter(|[a, b, ..]| ours(*a, *b));
    let old_row = stored.peek().copied().filter(|[a, b, ..]| ours(*a, *b));
    let from_new = match (new_row, old_row) {
        (Some([.., time, id]), Some([_, _, other, other_id, ..])) => {
            (time, id) <= (other, other_id)
        }
        (new_row, _) => new_row.is_some(),
    };
    if from_new {
        let row = new.pop()?;
        return Ok(row.map(|[a, b, time, id]| [a, b, time, id, Standing::NEW.bits(), 0]));
    }
    match old_row {
        Some(_) => stored.pop(),
        None => Ok(None),
    }
}

/// The links of one key.
struct Walk<'a> {
    within: i64,
    spill: &'a Path,
    held: Vec<Link>,
    /// The links that `held` has no room for.
    over: Option<Sorter<6>>,
    count: u64,
    chain: Option<Chain>,
    /// The numbers of the links of concerned chains.
    concerned: Vec<std::ops::Range<u64>>,
    beyond: Vec<(i64, i64)>,
    last: Option<Link>,
}

/// A chain that may still grow.
struct Chain {
    from: u64,
    first: (i64, Standing),
    last: (i64, Standing),
    changed: bool,
}

impl<'a> Walk<'a> {
    fn new(within: i64, spill: &'a Path) -> Self {
        Self {
            within,
            spill,
            held: Vec::new(),
            over: None,
            count: 0,
            chain: None,
            concerned: Vec::new(),
            beyond: Vec::new(),
            last: None,
        }
    }

    fn push(&mut self, link: Link, covered: &Covered) -> io::Result<()> {
        let [_, _, bits, id, standing, _] = link;
        let standing = Standing::from_bits(standing);
        if let Some([_, _, last_bits, last_id, last_standing, _]) = self.last
            && !standing.changed()
            && [last_bits, last_id] == [bits, id]
            && Standing::from_bits(last_standing) == Standing::CONCERNED
        {
            // The same event was looked at twice.
            return Ok(());
        }
        self.last = Some(link);
        let time = from_sortable(bits);
        match &mut self.chain {
            Some(chain) if time.saturating_sub(chain.last.0) <= self.within => {
                chain.last = (time, standing);
                chain.changed |= standing.changed();
            }
            _ => {
                self.close(covered);
                self.chain = Some(Chain {
                    from: self.count,
                    first: (time, standing),
                    last: (time, standing),
                    changed: standing.changed(),
                });
            }
        }
        self.count += 1;
        match &mut self.over {
            Some(over) => over.push(link),
            None if self.held.len() >= HELD => {
                let mut over = Sorter::new(self.spill, HELD * size_of::<Link>());
                over.push(link)?;
                self.over = Some(over);
                Ok(())
            }
            None => {
                self.held.push(link);
                Ok(())
            }
        }
    }

    fn close(&mut self, covered: &Covered) {
        let Some(chain) = self.chain.take().filter(|chain| chain.changed) else {
            return;
        };
        self.concerned.push(chain.from..self.count);
        let (first, last) = (chain.first, chain.last);
        let open = !first.1.changed()
            && !covered.holds(first.0.saturating_sub(self.within), first.0)
            || !last.1.changed() && !covered.holds(last.0, last.0.saturating_add(self.within));
        if open {
            self.beyond.push((first.0, last.0));
        }
    }

    fn finish(mut self, covered: &Covered, grown: &mut Grown) -> io::Result<()> {
        self.close(covered);
        let open = !self.beyond.is_empty();
        grown.beyond.append(&mut self.beyond);
        let mut over = match self.over.take() {
            Some(over) => Some(Sorted::merge(vec![over])?),
            None => None,
        };
        let mut held = std::mem::take(&mut self.held).into_iter();
        let mut concerned = self.concerned.into_iter().peekable();
        let mut number = 0;
        loop {
            let link = match (held.next(), &mut over) {
                (Some(link), _) => Some(link),
                (None, Some(over)) => over.pop()?,
                (None, None) => None,
            };
            let Some(link) = link else { return Ok(()) };
            if open {
                grown.open.push(link)?;
                continue;
            }
            while concerned.next_if(|range| range.end <= number).is_some() {}
            let inside = concerned
                .peek()
                .is_some_and(|range| range.contains(&number));
            number += 1;
            if !inside {
                continue;
            }
            let [a, b, time, id, standing, kept] = link;
            let status = Standing::from_bits(standing);
            if status != Standing::LEAVING {
                grown.rows.push([a, b, time, id])?;
            }
            if !status.changed() {
                grown.joined.push([time, id, standing, kept])?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covered_is_all_of_time_but_the_gaps() {
        let covered = Covered::outside(vec![(50, 60), (10, 20), (15, 30), (30, 31)]);
        for (first, last, holds) in [
            (0, 9, true),
            (0, 10, false),
            (12, 13, false),
            (31, 40, false),
            (32, 49, true),
            (40, 55, false),
            (60, 60, false),
            (61, i64::MAX, true),
            (i64::MIN, i64::MAX, false),
        ] {
            assert_eq!(covered.holds(first, last), holds, "{first}..={last}");
        }
        assert!(Covered::default().holds(i64::MIN, i64::MAX));
    }
}
