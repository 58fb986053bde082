//! Raw objects that are not whole: they lost bytes, ended before their end, or have no event at all.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::event::Reason;
use crate::raw::ObjectCounts;

/// The most raw objects that are named one by one.
const NAMED: usize = 20;

/// Raw objects that lost bytes, ended before their end, or have no event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Incomplete {
    pub count: u64,
    /// The stored bytes of all these objects that became neither events nor rejects.
    pub lost_bytes: u64,
    /// The first objects, at most 20.
    pub objects: Vec<IncompleteObject>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IncompleteObject {
    pub object: String,
    pub records: u64,
    pub events: u64,
    pub stored_bytes: u64,
    pub lost_bytes: u64,
    /// The reason, in words.
    pub why: String,
}

impl IncompleteObject {
    /// `None` for a raw object that is whole.
    pub(super) fn of(object: &str, counts: &ObjectCounts) -> Option<Self> {
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

    /// Adds the raw objects of a later commit.
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
