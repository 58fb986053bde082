//! How the operators of plans share the memory that they may hold.
//!
//! ```text
//! half ÷ spilling consumers ──▶ each one's own, whatever the others hold
//! the rest                  ──▶ whoever asks first
//! ```
//!
//! DataFusion's greedy pool lets an aggregation leave nothing to the sort behind it. Its fair one gives each
//! of a dozen consumers, most of which hold next to nothing, no more than a twelfth: an aggregation spills
//! while nearly all of the memory is free.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::sync::{Mutex, MutexGuard, PoisonError};

use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};

/// A pool with a share for each consumer that can spill; what nobody needs as its share, anyone may take.
#[derive(Debug)]
pub struct SharedPool {
    /// Bytes.
    size: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// By id of the consumers that can spill, bytes.
    spilling: HashMap<usize, usize>,
    /// Bytes of all other consumers.
    others: usize,
}

impl Held {
    fn all(&self) -> usize {
        self.others + self.spilling.values().sum::<usize>()
    }

    fn add(&mut self, consumer: &MemoryConsumer, additional: usize) {
        match self.spilling.get_mut(&consumer.id()) {
            Some(size) => *size += additional,
            None => self.others += additional,
        }
    }

    /// What one consumer may hold for certain.
    fn own(&self, size: usize) -> usize {
        let free = size.saturating_sub(self.others) / 2;
        free / self.spilling.len().max(1)
    }
}

impl SharedPool {
    pub fn new(size: usize) -> Self {
        Self {
            size,
            held: Mutex::default(),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What more a consumer may take now.
    fn left(&self, held: &Held, consumer: &MemoryConsumer) -> usize {
        if !consumer.can_spill() {
            return self.size.saturating_sub(held.all());
        }
        let own = held.own(self.size);
        let mine = held.spilling.get(&consumer.id()).copied();
        let mine = mine.unwrap_or_default();
        let others = held.spilling.iter().filter(|(id, _)| **id != consumer.id());
        let kept_for_others: usize = others.map(|(_, size)| own.max(*size)).sum();
        let free = self.size.saturating_sub(held.others + kept_for_others);
        free.max(own).saturating_sub(mine)
    }
}

impl MemoryPool for SharedPool {
    fn name(&self) -> &str {
        "shared"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        if consumer.can_spill() {
            self.held().spilling.insert(consumer.id(), 0);
        }
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.held().spilling.remove(&consumer.id());
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.held().add(reservation.consumer(), additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        let mut held = self.held();
        let consumer = reservation.consumer();
        match held.spilling.get_mut(&consumer.id()) {
            Some(size) => *size = size.saturating_sub(shrink),
            None => held.others = held.others.saturating_sub(shrink),
        }
    }

    fn try_grow(
        &self,
        reservation: &MemoryReservation,
        additional: usize,
    ) -> Result<(), DataFusionError> {
        let consumer = reservation.consumer();
        let mut held = self.held();
        let left = self.left(&held, consumer);
        if additional > left {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{} holds {} bytes and needs {additional} more, of which {left} are left of {self}",
                consumer.name(),
                reservation.size(),
            )));
        }
        held.add(consumer, additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.held().all()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.size)
    }
}

impl Display for SharedPool {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.size)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn pool(size: usize) -> Arc<dyn MemoryPool> {
        Arc::new(SharedPool::new(size))
    }

    fn consumer(pool: &Arc<dyn MemoryPool>, spills: bool) -> MemoryReservation {
        let consumer = MemoryConsumer::new("c").with_can_spill(spills);
        consumer.register(pool)
    }

    #[test]
    fn one_of_many_may_take_all_but_the_others_shares() {
        let pool = pool(1200);
        let all: Vec<_> = (0..6).map(|_| consumer(&pool, true)).collect();
        // Each one's own is 100.
        all[0].try_grow(700).unwrap();
        assert!(all[0].try_grow(1).is_err());
        for other in &all[1..] {
            other.try_grow(100).unwrap();
            assert!(other.try_grow(1).is_err());
        }
        assert_eq!(pool.reserved(), 1200);
        all[0].free();
        all[1].try_grow(600).unwrap();
        assert_eq!(pool.reserved(), 1100);
        assert!(all[0].try_grow(101).is_err());
        all[0].try_grow(100).unwrap();
    }

    #[test]
    fn what_cannot_spill_lessens_the_shares_and_is_refused_when_all_is_taken() {
        let pool = pool(1000);
        let (fixed, one, other) = (
            consumer(&pool, false),
            consumer(&pool, true),
            consumer(&pool, true),
        );
        fixed.try_grow(200).unwrap();
        // Each one's own is 200.
        one.try_grow(600).unwrap();
        assert!(one.try_grow(1).is_err());
        other.try_grow(200).unwrap();
        let error = fixed.try_grow(1).unwrap_err().to_string();
        assert!(error.contains("0 are left of 1000 bytes"), "{error}");
        drop(one);
        fixed.try_grow(600).unwrap();
        assert!(other.try_grow(1).is_err());
    }

    #[test]
    fn a_share_holds_where_others_came_later() {
        let pool = pool(1000);
        let first = consumer(&pool, true);
        first.try_grow(1000).unwrap();
        let second = consumer(&pool, true);
        second.try_grow(250).unwrap();
        assert!(second.try_grow(1).is_err());
        drop((first, second));
        assert_eq!(pool.reserved(), 0);
    }
}
