//! Decides how many evaluations of dates run at once, by the memory that each needs.

use tokio::sync::{Semaphore, SemaphorePermit};

use super::super::RunError;
use super::DATES_AT_ONCE;

/// Each evaluation takes slots. A small date takes one slot. A large date takes all slots and runs alone.
pub struct Slots {
    free: Semaphore,
    pub all: u32,
    /// The bytes of data files that an evaluation with all slots may read.
    bytes: u64,
}

impl Slots {
    /// The number of slots is the number of threads, or of 256 MiB in `memory`, whichever is smaller.
    pub fn new(memory: u64, threads: usize) -> Self {
        let all = (memory >> 28).min(DATES_AT_ONCE as u64).min(threads as u64);
        let all = u32::try_from(all).unwrap_or(1).max(1);
        Self {
            free: Semaphore::new(all as usize),
            all,
            bytes: memory / 8,
        }
    }

    /// The number of slots that reading so many bytes takes. Two evaluations that take more than half of the
    /// slots could not run together, so each of them takes all.
    pub fn of(&self, bytes: u64) -> u32 {
        let share = (self.bytes / u64::from(self.all)).max(1);
        let slots = u32::try_from(bytes.div_ceil(share))
            .unwrap_or(u32::MAX)
            .max(1);
        match slots > self.all / 2 {
            true => self.all,
            false => slots,
        }
    }

    /// Waits for so many slots. Slots are given in the order in which they were asked for.
    pub async fn take(&self, slots: u32) -> Result<SemaphorePermit<'_>, RunError> {
        let taken = self.free.acquire_many(slots).await;
        taken.map_err(|error| RunError::Defect(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_takes_as_many_slots_as_it_has_bytes_for() {
        let of = |memory: u64, threads: usize, mib: &[u64]| -> Vec<u32> {
            let slots = Slots::new(memory, threads);
            mib.iter().map(|mib| slots.of(mib << 20)).collect()
        };
        assert_eq!(of(1 << 30, 2, &[0, 64, 65, 128, 1 << 20]), [1, 1, 2, 2, 2]);
        assert_eq!(
            of(1 << 30, 16, &[0, 32, 33, 64, 65, 97]),
            [1, 1, 2, 2, 4, 4]
        );
        assert_eq!(of(1 << 40, 3, &[0, 1 << 15, 1 << 17]), [1, 1, 3]);
        // There is only one slot.
        assert_eq!(of(1 << 28, 8, &[0, 1 << 20]), [1, 1]);
        assert_eq!(of(1 << 40, 1, &[0, 1 << 20]), [1, 1]);
    }
}
