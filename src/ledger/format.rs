//! The stored types of the log. The newest format is 4. The tests keep a sample of every format for ever.
//!
//! ```text
//! log/<n>            Commit     JSON: objects absorbed, files, marts, the balance of this commit
//! log/<n>.published  Published  JSON: the ETag of every file that was put
//! ```
//!
//! Format 1 had only a fingerprint of the settings, and no event times of raw objects. Its settings are read as
//! unknown: the next run asks for a `rebuild`. Format 2 could not take a data file away. A version that reads only
//! format 2 would look for the files that `removed` names, so it refuses format 3. Format 3
//! had no versions of partitions. A version that reads only format 3 would look for all files below the root of their
//! table, so it refuses format 4.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::settings::{Dates, Settings};
use crate::event::Reason;
use crate::layout::Partition;
use crate::time::TimeUnit;

/// The newest format. This build writes it.
pub const FORMAT: u32 = 4;
/// The oldest format that this build reads.
pub const OLDEST: u32 = 1;

/// One numbered, create-only record. With it a run takes effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// The format of this record.
    pub format: u32,
    /// The number of the commit, from 1.
    pub number: u64,
    /// The name of the run that made it.
    pub run: String,
    /// The time of the run, RFC 3339 in UTC. It is for people, and nothing is decided by it.
    pub at: String,
    /// The changes of each source, by its name.
    pub sources: BTreeMap<String, SourceDelta>,
    /// The objects that lay under published names when a repair made this commit. They replace what the markers
    /// say. If `files` has the name, the object is the one to be replaced. If not, the object was proven to
    /// have the published content.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<FoundFile>,
    /// The data files that it writes.
    pub files: Vec<FileEntry>,
    /// Data files that this commit takes away: files without rows, the files of `dropped` marts, and files that an
    /// earlier commit `retired`. They are deleted after `files` are published and before the marker is created.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<RemovedFile>,
    /// The keys of data files that the lake has no more, while their objects stay: a query in flight may read them. A
    /// later commit names them in `removed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<String>,
    /// The columns of every table that has files in this commit, in order.
    pub columns: BTreeMap<String, Vec<(String, String)>>,
    /// The marts that it builds.
    pub marts: Vec<MartEntry>,
    /// Marts that are forgotten: their tables are no more. `removed` names all their files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
}

/// The changes of one source by a commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceDelta {
    /// The settings of the source, if this commit changes them.
    #[serde(
        default,
        deserialize_with = "known_settings",
        skip_serializing_if = "Option::is_none"
    )]
    pub settings: Option<Settings>,
    /// The tables were made of `objects` alone, and all earlier objects are forgotten.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anew: bool,
    /// The rebuild that made this commit. For people; nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuilt: Option<Rebuilt>,
    /// The raw objects that were absorbed or read again. An entry replaces the older entry with the same key.
    pub objects: Vec<ObjectEntry>,
    /// The keys of raw objects whose events were taken out of the tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forgotten: Vec<String>,
    /// Raw objects that were dropped for good, as they had been absorbed: no run absorbs an object of this key
    /// again. `forgotten` has their keys too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<ObjectEntry>,
    /// The change of the counts of the source.
    pub balance: Balance,
}

impl SourceDelta {
    /// Whether applying the delta would change nothing.
    pub fn is_nothing(&self) -> bool {
        self.settings.is_none()
            && !self.anew
            && self.objects.is_empty()
            && self.forgotten.is_empty()
            && self.dropped.is_empty()
            && self.balance == Balance::default()
    }
}

/// What a rebuild covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuilt {
    /// Event dates; all dates where they are absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dates: Option<Dates>,
    /// Raw objects were read again. Otherwise the events came from the stored tables.
    pub from_raw: bool,
}

/// Format 1 has a fingerprint in the place of the settings.
fn known_settings<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Settings>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Known(Box<Settings>),
        #[expect(dead_code, reason = "its content has no meaning any more")]
        Fingerprint(String),
    }
    Ok(match Option::<Either>::deserialize(from)? {
        Some(Either::Known(settings)) => Some(*settings),
        Some(Either::Fingerprint(_)) | None => None,
    })
}

/// A raw object that was absorbed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectEntry {
    /// Its identity within the source.
    pub key: String,
    /// The ETag when it was absorbed, if the store gives one.
    pub etag: Option<String>,
    /// The stored size in bytes.
    pub size: u64,
    /// The SHA-256 of the stored bytes.
    pub sha256: Sha256,
    /// Milliseconds since 1970 UTC.
    pub arrival_ms: i64,
    /// The number of its records.
    pub records: u64,
    /// The number of its events.
    pub events: u64,
    /// The number of its rejects by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rejects: BTreeMap<Reason, u64>,
    /// The first and the last event time in the unit of the table; `None` if there are no events, or if format
    /// 1 did not store them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<(i64, i64)>,
}

/// A SHA-256. Its text has 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sha256(pub [u8; 32]);

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(&text, &mut bytes).map_err(|error| {
            serde::de::Error::custom(format!("`{text}` is no SHA-256: {error}"))
        })?;
        Ok(Self(bytes))
    }
}

/// The counts of P2. A commit holds their changes, so they are signed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// The number of records.
    pub records: i64,
    /// The number of events.
    pub events: i64,
    /// The number of kept events.
    pub kept: i64,
    /// The number of duplicates of each rule, in the order of the names of the rules.
    pub duplicates: BTreeMap<String, i64>,
    /// The number of rejects by reason.
    pub rejects: BTreeMap<Reason, i64>,
}

/// One data file of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// The table that the file belongs to.
    pub table: String,
    /// The columns and values of the partition. NULL is `null`.
    pub partition: Partition,
    /// The name of the file in its partition.
    pub name: String,
    /// The number of rows.
    pub rows: u64,
    /// The size in bytes.
    pub bytes: u64,
    /// The first and the last event time in the unit of the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<(i64, i64)>,
    /// The key of the staged file, below the lake. For a file that did not change while its partition got a new
    /// version: the key of the published file that it is a copy of.
    pub staged: String,
    /// The SHA-256 of its bytes; `None` in commits of format 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// The commit that published the version of the partition that the file belongs to; `None` for a file below the
    /// root of its table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The commit that wrote the content, as the footer of the file names it, where this is a copy of a published file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<u64>,
}

/// The object that a repair has found under a published name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundFile {
    /// The key below the lake.
    pub key: String,
    /// The ETag of the object; `None` if there was no object.
    pub etag: Option<String>,
}

/// A published data file that a commit takes away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedFile {
    /// Below the lake.
    pub key: String,
    /// The ETag that the file was published with. The file is deleted only while it has this ETag.
    pub etag: Option<String>,
}

/// A mart, as it was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MartEntry {
    /// The name of the mart.
    pub name: String,
    /// The SHA-256 of the text of the SQL file, in hex.
    pub sql: String,
    /// For each table that the mart reads, the commit that last changed it; for a reference, the hash of its
    /// bytes. Every partition follows from these versions: a later commit changes only the partitions that
    /// reach its files.
    pub inputs: BTreeMap<String, String>,
    /// The reach of each table with dates that the mart reads, if it was built date by date.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reach: BTreeMap<String, String>,
    /// The number of rows of all partitions.
    pub rows: u64,
    /// Whether the mart was compared, and no date was found that reads more than the mart says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compared: bool,
    /// The law of the SQL under which it was built; 0 for marts from before there was a law.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub law: u32,
    /// The unit of its timestamps. Without a word it is milliseconds.
    #[serde(default, skip_serializing_if = "is_milliseconds")]
    pub unit: TimeUnit,
}

fn is_milliseconds(unit: &TimeUnit) -> bool {
    *unit == TimeUnit::Ms
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The marker that a commit is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The format of this record.
    pub format: u32,
    /// The number of the commit.
    pub number: u64,
    /// The files as they were put.
    pub files: Vec<PublishedFile>,
}

/// A file as it was put under its final name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedFile {
    /// The key below the lake.
    pub key: String,
    /// The ETag of the object; empty where a repair has made a lost marker again and nobody knows which object
    /// was put.
    pub etag: String,
}

impl Balance {
    /// Adds the counts of another balance.
    pub fn add(&mut self, other: &Self) {
        self.add_times(other, 1);
    }

    /// Subtracts the counts of another balance.
    pub fn subtract(&mut self, other: &Self) {
        self.add_times(other, -1);
    }

    fn add_times(&mut self, other: &Self, times: i64) {
        self.records += times * other.records;
        self.events += times * other.events;
        self.kept += times * other.kept;
        for (rule, count) in &other.duplicates {
            *self.duplicates.entry(rule.clone()).or_default() += times * count;
        }
        for (reason, count) in &other.rejects {
            *self.rejects.entry(*reason).or_default() += times * count;
        }
        self.forget_zeros();
    }

    /// Adds the counts of a raw object. `times` is 1, or -1 to take them away.
    pub fn count(&mut self, object: &ObjectEntry, times: i64) {
        self.records += times * object.records.cast_signed();
        self.events += times * object.events.cast_signed();
        for (reason, count) in &object.rejects {
            *self.rejects.entry(*reason).or_default() += times * count.cast_signed();
        }
        self.forget_zeros();
    }

    fn forget_zeros(&mut self) {
        self.duplicates.retain(|_, count| *count != 0);
        self.rejects.retain(|_, count| *count != 0);
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
