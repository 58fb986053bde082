//! What is stored in the log. Format 1; a sample of every format is kept in the tests for ever.
//!
//! ```text
//! log/<n>            Commit     JSON: objects absorbed, files, marts, the balance of this commit
//! log/<n>.published  Published  JSON: the ETag of every file that was put
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::Reason;
use crate::layout::Partition;

/// The newest format this build writes, and the only one it reads.
pub const FORMAT: u32 = 1;

/// One numbered, create-only record: the moment of truth of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    pub format: u32,
    pub number: u64,
    /// The invocation that made it.
    pub run: String,
    /// When, RFC 3339 in UTC. For people; nothing is decided by it.
    pub at: String,
    pub sources: BTreeMap<String, SourceDelta>,
    pub files: Vec<FileEntry>,
    /// Columns of every table whose files are in this commit, in their order.
    pub columns: BTreeMap<String, Vec<(String, String)>>,
    pub marts: Vec<MartEntry>,
}

/// What a commit adds to one source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceDelta {
    /// Fingerprint of the settings that decide the content of the source's tables.
    pub settings: String,
    pub objects: Vec<ObjectEntry>,
    /// The change of the source's counts.
    pub balance: Balance,
}

/// A raw object that was absorbed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectEntry {
    /// Its identity within the source.
    pub key: String,
    pub etag: Option<String>,
    pub size: u64,
    /// Of the stored bytes, in hex.
    pub sha256: String,
    /// Milliseconds since 1970 UTC.
    pub arrival_ms: i64,
    pub records: u64,
    pub events: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rejects: BTreeMap<Reason, u64>,
}

/// The counts of P2; of a commit their changes, so signed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    pub records: i64,
    pub events: i64,
    pub kept: i64,
    /// By rule, in the order of their names.
    pub duplicates: BTreeMap<String, i64>,
    pub rejects: BTreeMap<Reason, i64>,
}

/// One data file that this commit brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    pub table: String,
    /// Columns and values of the partition; NULL is `null`.
    pub partition: Partition,
    pub name: String,
    pub rows: u64,
    pub bytes: u64,
    /// First and last event time in the table's unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<(i64, i64)>,
    /// Key of the staged file below the lake.
    pub staged: String,
}

/// A mart as it was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MartEntry {
    pub name: String,
    /// SHA-256 of the SQL file's header and SELECT, in hex.
    pub sql: String,
    /// For each table read, the commit that last changed it; of a reference the hash of its bytes.
    pub inputs: BTreeMap<String, String>,
    pub rows: u64,
}

/// The marker that a commit is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub format: u32,
    pub number: u64,
    pub files: Vec<PublishedFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedFile {
    /// Below the lake.
    pub key: String,
    pub etag: String,
}

impl Balance {
    /// Adds the changes of another balance.
    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.events += other.events;
        self.kept += other.kept;
        for (rule, count) in &other.duplicates {
            *self.duplicates.entry(rule.clone()).or_default() += count;
        }
        for (reason, count) in &other.rejects {
            *self.rejects.entry(*reason).or_default() += count;
        }
        self.forget_zeros();
    }

    fn forget_zeros(&mut self) {
        self.duplicates.retain(|_, count| *count != 0);
        self.rejects.retain(|_, count| *count != 0);
    }

    /// The change from `earlier` to this.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut change = self.clone();
        change.records -= earlier.records;
        change.events -= earlier.events;
        change.kept -= earlier.kept;
        for (rule, count) in &earlier.duplicates {
            *change.duplicates.entry(rule.clone()).or_default() -= count;
        }
        for (reason, count) in &earlier.rejects {
            *change.rejects.entry(*reason).or_default() -= count;
        }
        change.forget_zeros();
        change
    }

    /// The first equation of P2 that does not hold, in words.
    pub fn imbalance(&self) -> Option<String> {
        let rejects: i64 = self.rejects.values().sum();
        let duplicates: i64 = self.duplicates.values().sum();
        if self.records != self.events + rejects {
            Some(format!(
                "{} records are not {} events + {rejects} rejects",
                self.records, self.events
            ))
        } else if self.events != self.kept + duplicates {
            Some(format!(
                "{} events are not {} kept + {duplicates} duplicates",
                self.events, self.kept
            ))
        } else {
            None
        }
    }
}
