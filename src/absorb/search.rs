//! The keys by which stored events are looked for, and the spans of time in which they are looked for.

use std::sync::Arc;

use super::slices::{Slices, Spans};
use super::{AbsorbError, Settings};
use crate::dedup::{Fingerprint, KeyFilter, Window, from_sortable};

/// The search for stored events: for each rule, the keys of changed events and the distance to which the rule
/// looks.
pub struct Search {
    filters: Vec<Arc<KeyFilter>>,
    windows: Vec<Window>,
}

impl Search {
    /// `bytes` is an estimate of the bytes of the raw objects that the keys come from.
    pub fn new(settings: &Settings, slices: &Slices, bytes: usize) -> Self {
        let rules = &settings.source.rules;
        // A filter answers "perhaps" or "no". If it is small, more rows are sorted in vain. If it does not fit
        // into the cache of the processor, each row waits for the memory.
        let share = if slices.is_empty() {
            0
        } else {
            (settings.shares.filters / rules.len().max(1)).min(bytes / 4)
        };
        let filter = |_| Arc::new(KeyFilter::new(share));
        let window = |rule| Window::new(rule, settings.unit());
        Self {
            filters: rules.iter().map(filter).collect(),
            windows: rules.iter().map(window).collect(),
        }
    }

    /// The keys of the changed events of one rule.
    ///
    /// # Errors
    /// None but a defect: there is no such rule.
    pub fn filter(&self, rule: usize) -> Result<&Arc<KeyFilter>, AbsorbError> {
        self.filters.get(rule).ok_or_else(|| unknown_rule(rule))
    }

    /// The window of one rule.
    ///
    /// # Errors
    /// None but a defect: there is no such rule.
    pub fn window(&self, rule: usize) -> Result<&Window, AbsorbError> {
        self.windows.get(rule).ok_or_else(|| unknown_rule(rule))
    }

    /// Notes the keys of changed events of one rule, and adds the spans around them to `wanted`. The times of
    /// `rows` are sortable.
    ///
    /// # Errors
    /// None but a defect: there is no such rule.
    pub fn note(
        &self,
        rule: usize,
        slices: &Slices,
        wanted: &mut Spans,
        rows: &[(Fingerprint, u64)],
    ) -> Result<(), AbsorbError> {
        let (filter, window) = (self.filter(rule)?, self.window(rule)?);
        let mut span: Option<(i64, i64)> = None;
        for (key, time) in rows {
            filter.insert(*key);
            let time = from_sortable(*time);
            let (from, to) = (
                time.saturating_sub(window.within),
                time.saturating_add(window.within),
            );
            span = match span {
                // Neighbours in time share one span.
                Some((first, last)) if from <= last && first <= to => {
                    Some((first.min(from), last.max(to)))
                }
                Some((first, last)) => {
                    wanted.want(slices, first, last);
                    Some((from, to))
                }
                None => Some((from, to)),
            };
        }
        if let Some((first, last)) = span {
            wanted.want(slices, first, last);
        }
        Ok(())
    }
}

/// If the search passed over a rule, it would give wrong verdicts that look right.
pub(super) fn unknown_rule(rule: usize) -> AbsorbError {
    AbsorbError::Defect(format!("the search for duplicates has no rule {rule}"))
}
