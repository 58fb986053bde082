//! The events of a run. `run` and the rooms below it tell what happens, and `report` listens. No room knows who
//! listens, and a run does not depend on it.

use std::sync::Arc;

/// Something that has happened, or that is about to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the text of each event says what its fields are"
)]
pub enum Happened {
    /// This run has published a commit that an earlier run had made.
    RolledForward { commit: u64 },
    /// Raw objects of a source are about to be read. `bytes` is their stored size.
    Reading {
        source: String,
        objects: u64,
        bytes: u64,
    },
    /// A raw object was read. `bytes` is its stored size.
    ObjectRead { bytes: u64, records: u64 },
    /// The duplicates of a source are about to be decided.
    Deciding { source: String },
    /// The data files of a source are about to be written.
    Writing { source: String },
    /// The last data files of a source are about to be staged.
    Staging { source: String },
    /// A commit was made and is about to be published.
    Committed { commit: u64 },
    /// A commit was published, with so many data files.
    Published { commit: u64, files: usize },
    /// A mart is about to be built.
    Mart { name: String },
    /// The tables of a database of the catalog are about to be told of the lake.
    Telling {
        /// The database.
        database: String,
    },
}

/// Takes events to a listener. All clones have the same listener.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(Happened) + Send + Sync>);

impl Progress {
    /// Calls `listener` with every event, on the thread on which it happens.
    pub fn new(listener: impl Fn(Happened) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    /// A progress without a listener.
    pub fn unheard() -> Self {
        Self::new(drop)
    }

    /// Tells the listener.
    pub fn tell(&self, happened: Happened) {
        (self.0)(happened);
    }
}
