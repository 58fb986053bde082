//! Divides the memory among the operators of all plans.
//!
//! ```text
//!  limit ─┬─ fixed: build sides of joins, top rows, merges of sorted partitions: first come, first served
//!         └─ the rest, in equal shares for all that spill:
//!              an aggregate, a join   the whole share
//!              a sort                 1/8 for rows that wait, 7/8 for the merge of sorted runs
//!              rows between threads   1/8 of a share, and to disk when that is full
//! ```
//!
//! The fair pool of DataFusion counts the rows of a sort, but not the merge behind it. A sort that had filled
//! its share found no memory to merge its rows, and the last merge of one sort took the memory that the sort
//! above it needed. In this pool the buffer of a sort is so small that its merge always fits. A row in the
//! format that merges compare is at most eight times as wide as in columns (for flags, where one bit becomes
//! two bytes).

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use datafusion::common::DataFusionError;
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, human_readable_size,
};

/// A memory pool that leaves each sort room for its merges.
#[derive(Debug)]
pub(super) struct Shares {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The bytes of all consumers.
    used: usize,
    /// The bytes of consumers that do not spill and do not belong to a sort.
    fixed: usize,
    /// The number of consumers with a share of their own.
    shares: usize,
    channels: usize,
}

/// The use that a consumer makes of its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    SortBuffer,
    SortMerge,
    /// A channel between threads. Rows that do not fit go through the disk.
    Channel,
    Spills,
    Fixed,
}

impl Role {
    /// DataFusion tells consumers apart by name only.
    fn of(consumer: &MemoryConsumer) -> Self {
        let name = consumer.name();
        if name.starts_with("ExternalSorterMerge") {
            Self::SortMerge
        } else if name.starts_with("ExternalSorter") {
            Self::SortBuffer
        } else if name.starts_with("RepartitionExec") && consumer.can_spill() {
            Self::Channel
        } else if consumer.can_spill() {
            Self::Spills
        } else {
            Self::Fixed
        }
    }

    fn has_share(self) -> bool {
        // A sort has a merge until its last row is taken. It has a buffer only until all rows have come.
        matches!(self, Self::SortMerge | Self::Spills)
    }
}

impl Shares {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most bytes that a reservation of this role may hold. `first` says whether it holds nothing so far.
    fn most(&self, state: &State, role: Role, first: bool) -> usize {
        let share = self.limit.saturating_sub(state.fixed) / state.shares.max(1);
        match role {
            Role::Fixed => usize::MAX,
            Role::Spills => share,
            // One batch must always find room, or nothing could be sorted.
            Role::SortBuffer if first => share / 3,
            Role::SortBuffer => share / 8,
            Role::SortMerge => share / 8 * 7,
            Role::Channel => share / 8 / state.channels.max(1),
        }
    }
}

impl MemoryPool for Shares {
    fn name(&self) -> &str {
        "shares"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        let role = Role::of(consumer);
        let mut state = self.state();
        state.shares += usize::from(role.has_share());
        state.channels += usize::from(role == Role::Channel);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        let role = Role::of(consumer);
        let mut state = self.state();
        state.shares = state.shares.saturating_sub(usize::from(role.has_share()));
        state.channels = state
            .channels
            .saturating_sub(usize::from(role == Role::Channel));
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        let mut state = self.state();
        state.used += additional;
        if Role::of(reservation.consumer()) == Role::Fixed {
            state.fixed += additional;
        }
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        let mut state = self.state();
        state.used = state.used.saturating_sub(shrink);
        if Role::of(reservation.consumer()) == Role::Fixed {
            state.fixed = state.fixed.saturating_sub(shrink);
        }
    }

    fn try_grow(
        &self,
        reservation: &MemoryReservation,
        additional: usize,
    ) -> Result<(), DataFusionError> {
        let role = Role::of(reservation.consumer());
        let held = reservation.size();
        let mut state = self.state();
        let free = self.limit.saturating_sub(state.used);
        let most = self.most(&state, role, held == 0).saturating_sub(held);
        if additional > free.min(most) {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{} holds {} and needs {} more; {} of {} are left for it",
                reservation.consumer().name(),
                human_readable_size(held),
                human_readable_size(additional),
                human_readable_size(free.min(most)),
                human_readable_size(self.limit),
            )));
        }
        state.used += additional;
        if role == Role::Fixed {
            state.fixed += additional;
        }
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.state().used
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shares of {}", human_readable_size(self.limit))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_sort_keeps_room_for_its_merge_and_for_the_sort_above_it() {
        let pool: Arc<dyn MemoryPool> = Arc::new(Shares::new(1600));
        let sorter = |n: usize| {
            let buffer = MemoryConsumer::new(format!("ExternalSorter[{n}]")).with_can_spill(true);
            let merge = MemoryConsumer::new(format!("ExternalSorterMerge[{n}]"));
            (buffer.register(&pool), merge.register(&pool))
        };
        let (below, merge_below) = sorter(0);
        let (above, merge_above) = sorter(1);
        below.try_grow(100).unwrap();
        assert!(below.try_grow(1).is_err());
        merge_below.try_grow(700).unwrap();
        assert!(merge_below.try_grow(1).is_err());
        above.try_grow(100).unwrap();
        merge_above.try_grow(700).unwrap();
        assert_eq!(pool.reserved(), 1600);
        // Fixed memory is subtracted from the shares, and nothing exceeds the limit.
        drop((above, merge_above, below));
        let build = MemoryConsumer::new("HashJoinInput").register(&pool);
        assert!(build.try_grow(901).is_err());
        build.try_grow(900).unwrap();
        drop((build, merge_below));
        assert_eq!(pool.reserved(), 0);
    }
}
