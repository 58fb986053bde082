//! What happens during a run, told as it happens. `run` and the rooms below it tell; `report` listens.
//! No room here knows who listens, and nothing that happens depends on it.

use std::sync::Arc;

/// One thing that has happened, or that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// This run has published a commit that an earlier run had made.
    RolledForward { commit: u64 },
    /// Raw objects of a source are about to be read; `bytes` are those stored.
    Reading {
        source: String,
        objects: u64,
        bytes: u64,
    },
    /// A raw object was read; `bytes` are those stored.
    ObjectRead { bytes: u64, records: u64 },
    /// The duplicates of a source are about to be decided.
    Deciding { source: String },
    /// The data files of a source are about to be written.
    Writing { source: String },
    /// The last data files of a source are about to be staged.
    Staging { source: String },
    /// A commit was made; it is about to be published.
    Committed { commit: u64 },
    /// A commit was published, with so many data files.
    Published { commit: u64, files: usize },
    /// A mart is about to be built.
    Mart { name: String },
}

/// Takes everything that happens to the one who listens. A clone has the same listener.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(Happened) + Send + Sync>);

impl Progress {
    /// Calls `listener` with everything that happens, on the thread on which it happens.
    pub fn new(listener: impl Fn(Happened) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    /// Nobody listens.
    pub fn unheard() -> Self {
        Self::new(drop)
    }

    /// Tells the listener.
    pub fn tell(&self, happened: Happened) {
        (self.0)(happened);
    }
}
