//! The partitions that steps will change, and the estimated cost.

use std::collections::BTreeMap;

use chrono::NaiveDate;

use super::source::Planned;
use super::{Estimate, PartitionPlan, Requests, SourcePlan, Step, WhyPartition, event_files};
use crate::layout;
use crate::ledger::SourceState;
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
        steps: &[Step],
    ) -> Vec<PartitionPlan> {
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
                    if span.0 <= last && first <= span.1 {
                        plan(partition, *date, WhyPartition::ReplacedObjects, None);
                    }
                }
            }
            for (partition, StoredPartition { date, .. }) in &stored {
                if step.anew || step.again.is_some_and(|dates| dates.holds(*date)) {
                    plan(partition, *date, WhyPartition::Rebuild, None);
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

    pub(super) fn estimate(&self, known: Option<&SourceState>, plan: &SourcePlan) -> Estimate {
        /// The number of keys on one page of a listing.
        const PAGE: u64 = 1_000;
        /// The number of reads of a data file: its footer, its narrow columns, then the whole file.
        const READS_OF_STORED: u64 = 3;
        let all = |of: fn(&PartitionPlan) -> u64| plan.partitions.iter().map(of).sum::<u64>();
        let raw_objects: u64 = plan.steps.iter().map(|step| step.objects).sum();
        let raw_bytes: u64 = plan.steps.iter().map(|step| step.bytes).sum();
        let (stored_rows, stored_bytes) = (all(|p| p.stored_rows), all(|p| p.stored_bytes));
        let files = event_files(self.listed.source, self.state);
        let (rows, bytes) = files.fold((0, 0), |(rows, bytes), file| {
            (rows + file.entry.rows, bytes + file.entry.bytes)
        });
        let share = |of: u64, part: u64, whole: u64| {
            let part = u128::from(of) * u128::from(part);
            u64::try_from(part.checked_div(u128::from(whole))?).ok()
        };
        let absorbed = plan.bytes - plan.new_bytes;
        let events = known.map_or(0, |known| known.balance.events.unsigned_abs());
        let rows_new = share(raw_bytes, events, absorbed);
        let bytes_new = rows_new.and_then(|new| share(new, bytes, rows));
        // A new partition has one file.
        let files = all(|p| p.stored_files.max(1));
        let steps = plan.steps.len() as u64;
        Estimate {
            rows_read: stored_rows,
            bytes_read: raw_bytes + stored_bytes,
            rows_written: rows_new.map(|new| stored_rows + new),
            bytes_written: bytes_new.map(|new| stored_bytes + new),
            requests: Requests {
                list: plan.objects.div_ceil(PAGE).max(1),
                // A staged file is read once more when it is published.
                get: raw_objects + READS_OF_STORED * all(|p| p.stored_files) + files,
                put: 2 * files + 2 * steps,
            },
        }
    }
}
