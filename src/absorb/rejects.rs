//! Checks that not too many of the new records are rejects, and that not too many of the new bytes are lost.
//!
//! `max_rejects` is compared with the larger of two shares. The share of rejected records means little where
//! there are few records. Below [`FEW_RECORDS`] it counts only if no record became an event. The share of lost
//! bytes counts for any number of records: a torn object of a million events is one reject, and a Parquet file
//! among the raw objects is one reject too.

use super::AbsorbError;
use super::incomplete::IncompleteObject;
use super::noticed::Noticed;
use crate::config::Source;
use crate::raw::ObjectCounts;

/// Below this number of new records the share of rejects means little.
const FEW_RECORDS: u64 = 1_000;

/// Checks the counts of raw objects, given with their identities.
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

// The counts are far below the numbers that a double cannot represent exactly.
#[expect(clippy::cast_precision_loss, reason = "a share of counts")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
