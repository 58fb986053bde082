//! The partitions that steps will change.

use std::collections::BTreeMap;

use chrono::NaiveDate;

use super::source::Planned;
use super::{PartitionPlan, SourcePlan, Why, WhyPartition, event_files};
use crate::layout;
use crate::ledger::{Rebuilt, SourceState};
use crate::time::TimeUnit;

/// The published files of a partition.
struct StoredPartition {
    files: u64,
    rows: u64,
    bytes: u64,
    date: NaiveDate,
    /// The first and the last event time.
    span: (i64, i64),
}

impl Planned<'_> {
    /// The partitions that the steps will change, as far as the log and the names of objects show.
    pub(super) fn partitions(
        &self,
        known: Option<&SourceState>,
        plan: &SourcePlan,
    ) -> Vec<PartitionPlan> {
        let steps = &plan.steps;
        let (why_left, why_again) = match plan.rebuilt {
            Some(Rebuilt { from_raw: true, .. }) => {
                (WhyPartition::ReadAgain, WhyPartition::ReadAgain)
            }
            _ if plan.why == Some(Why::Drop) => (WhyPartition::Dropped, WhyPartition::Rebuild),
            _ => (WhyPartition::ReplacedObjects, WhyPartition::Rebuild),
        };
        let mut stored: BTreeMap<String, StoredPartition> = BTreeMap::new();
        for file in event_files(self.listed.source, self.state) {
            let (Some(times), Some(date)) = (file.entry.times, file.entry.date()) else {
                continue;
            };
            let partition = layout::partition_folder(&file.entry.partition);
            let stored = stored.entry(partition).or_insert(StoredPartition {
                files: 0,
                rows: 0,
                bytes: 0,
                date,
                span: times,
            });
            stored.files += 1;
            stored.rows += file.entry.rows;
            stored.bytes += file.entry.bytes;
            stored.span = (stored.span.0.min(times.0), stored.span.1.max(times.1));
        }
        let mut plans: BTreeMap<String, PartitionPlan> = BTreeMap::new();
        let mut plan = |partition: &str, date, why: WhyPartition, raw_bytes: Option<u64>| {
            let of_stored = |of: fn(&StoredPartition) -> u64| stored.get(partition).map_or(0, of);
            let plan = plans.entry(partition.to_owned()).or_insert(PartitionPlan {
                partition: partition.to_owned(),
                date,
                why,
                objects: 0,
                bytes: 0,
                stored_files: of_stored(|stored| stored.files),
                stored_rows: of_stored(|stored| stored.rows),
                stored_bytes: of_stored(|stored| stored.bytes),
            });
            plan.objects += u64::from(raw_bytes.is_some());
            plan.bytes += raw_bytes.unwrap_or(0);
        };
        for step in steps {
            let leaving = step
                .leaving
                .iter()
                .filter_map(|key| known?.objects.get(key));
            for (first, last) in leaving.filter_map(|object| object.times) {
                for (partition, StoredPartition { span, date, .. }) in &stored {
                    let stays = step.only.is_some_and(|only| !only.holds(*date));
                    if span.0 <= last && first <= span.1 && !stays {
                        plan(partition, *date, why_left, None);
                    }
                }
            }
            for (partition, StoredPartition { date, .. }) in &stored {
                if step.anew || step.again.is_some_and(|dates| dates.holds(*date)) {
                    plan(partition, *date, why_again, None);
                }
            }
            let read = step
                .read
                .iter()
                .filter_map(|i| self.listed.found.objects.get(*i));
            for found in read.filter(|found| !step.leaving.contains(&*found.identity)) {
                // The arrival is the end of the span that a key names.
                let (place, ..) = self.now.slicing.place(found.arrival_ms - 1, TimeUnit::Ms);
                let partition = layout::partition_folder(&place.partition());
                let why = match stored.contains_key(&partition) {
                    true => WhyPartition::MoreEvents,
                    false => WhyPartition::NewEvents,
                };
                plan(&partition, place.date, why, Some(found.size));
            }
        }
        plans.into_values().collect()
    }
}
