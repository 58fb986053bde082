//! How much of what a commit reads does not become events, and whether that is too much.
//!
//! ```text
//! counts of each raw object ──▶ check()       may it be committed?
//!                          └──▶ Incomplete    which raw objects lost bytes, or have no event at all
//! ```
//!
//! `max_rejects` is compared with the larger of two shares. The share of records says nothing where there
//! are few, so below [`FEW_RECORDS`] it counts only if not a single record became an event. The share of
//! lost bytes counts however few records there are: a torn object of a million events is one reject, and
//! so is a Parquet file among raw objects.

use super::AbsorbError;
use std::collections::BTreeMap;

use serde::Serialize;

use super::noticed::Noticed;
use crate::config::Source;
use crate::event::Reason;
use crate::raw::ObjectCounts;

/// Below this many new records a share of rejects says nothing.
const FEW_RECORDS: u64 = 1_000;

/// Raw objects that are named one by one.
const NAMED: usize = 20;

/// Raw objects that lost bytes, ended before their end, or have no event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Incomplete {
    pub count: u64,
    /// Stored bytes of which nothing is kept, of all of them.
    pub lost_bytes: u64,
    /// The first of them, 20 at most.
    pub objects: Vec<IncompleteObject>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IncompleteObject {
    pub object: String,
    pub records: u64,
    pub events: u64,
    pub stored_bytes: u64,
    pub lost_bytes: u64,
    /// In words.
    pub why: String,
}

impl IncompleteObject {
    /// `None` of a raw object that is whole.
    fn of(object: &str, counts: &ObjectCounts) -> Option<Self> {
        let barren = counts.records > 0 && counts.events == 0;
        if !barren && counts.lost == 0 && counts.torn.is_none() {
            return None;
        }
        let why = match &counts.torn {
            Some(why) => why.clone(),
            None => most_frequent(&counts.rejects),
        };
        Some(Self {
            object: object.to_owned(),
            records: counts.records,
            events: counts.events,
            stored_bytes: counts.bytes,
            lost_bytes: counts.lost,
            why,
        })
    }
}

impl Incomplete {
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Notes a raw object unless it is whole.
    pub fn note(&mut self, object: &str, counts: &ObjectCounts) {
        if let Some(found) = IncompleteObject::of(object, counts) {
            self.count += 1;
            self.lost_bytes += found.lost_bytes;
            if self.objects.len() < NAMED {
                self.objects.push(found);
            }
        }
    }

    /// Adds those of a later commit.
    pub fn append(&mut self, later: Self) {
        self.count += later.count;
        self.lost_bytes += later.lost_bytes;
        let room = NAMED.saturating_sub(self.objects.len());
        self.objects.extend(later.objects.into_iter().take(room));
    }
}

/// The most frequent reasons with their counts.
fn most_frequent(counts: &BTreeMap<Reason, u64>) -> String {
    let mut reasons: Vec<_> = counts.iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let reasons: Vec<_> = reasons
        .iter()
        .take(3)
        .map(|(reason, count)| format!("{} {count}", reason.name()))
        .collect();
    reasons.join(", ")
}

/// Whether raw objects with these counts, by their identities, may be committed.
///
/// # Errors
/// More records are rejects, or more stored bytes are lost, than `max_rejects` of the source allows.
pub fn check<'a>(
    source: &Source,
    objects: impl Iterator<Item = (&'a str, &'a ObjectCounts)>,
    noticed: &Noticed,
) -> Result<(), AbsorbError> {
    let mut all = ObjectCounts::default();
    let mut worst: Option<IncompleteObject> = None;
    for (object, counts) in objects {
        all.records += counts.records;
        all.events += counts.events;
        all.bytes += counts.bytes;
        all.lost += counts.lost;
        for (reason, count) in &counts.rejects {
            *all.rejects.entry(*reason).or_default() += count;
        }
        if counts.lost > worst.as_ref().map_or(0, |worst| worst.lost_bytes) {
            worst = IncompleteObject::of(object, counts);
        }
    }
    let rejects: u64 = all.rejects.values().sum();
    let few = all.records < FEW_RECORDS && all.events > 0;
    let by_records = if few {
        0.0
    } else {
        share(rejects, all.records)
    };
    let by_bytes = share(all.lost, all.bytes);
    let allowed = source.max_rejects * 100.0;
    match worst {
        _ if by_records.max(by_bytes) <= source.max_rejects => Ok(()),
        Some(worst) if by_bytes > by_records => Err(AbsorbError::TooMuchLost {
            name: source.name.clone(),
            lost: all.lost,
            bytes: all.bytes,
            allowed,
            worst: Box::new(worst),
            found: noticed.rejects_of(source, &all.rejects),
        }),
        _ => Err(AbsorbError::TooManyRejects {
            name: source.name.clone(),
            rejects,
            records: all.records,
            allowed,
            found: noticed.rejects_of(source, &all.rejects),
        }),
    }
}

// Shares of counts: far from where a double loses a unit that matters.
#[expect(clippy::cast_precision_loss, reason = "a share of counts")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
