//! What is stored in the log. Format 2; a sample of every format is kept in the tests for ever.
//!
//! ```text
//! log/<n>            Commit     JSON: objects absorbed, files, marts, the balance of this commit
//! log/<n>.published  Published  JSON: the ETag of every file that was put
//! ```
//!
//! Format 1 knew settings by a fingerprint only, and no event times of raw objects. It is read as
//! settings that are not known: the next run asks for a `rebuild`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::settings::Settings;
use crate::event::Reason;
use crate::layout::Partition;

/// The newest format: what this build writes.
pub const FORMAT: u32 = 2;
/// The oldest format that this build reads.
pub const OLDEST: u32 = 1;

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
    /// What lay under published names when a repair made this commit, in the place of what the
    /// markers say. Of a name that `files` brings it is what gives way; of others the content was
    /// proven to be what was published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<FoundFile>,
    pub files: Vec<FileEntry>,
    /// Columns of every table whose files are in this commit, in their order.
    pub columns: BTreeMap<String, Vec<(String, String)>>,
    pub marts: Vec<MartEntry>,
}

/// What a commit adds to one source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceDelta {
    /// What the source's tables follow from, where this commit changes it.
    #[serde(
        default,
        deserialize_with = "known_settings",
        skip_serializing_if = "Option::is_none"
    )]
    pub settings: Option<Settings>,
    /// The tables were made of `objects` alone: what was known before is forgotten.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anew: bool,
    /// Raw objects that were absorbed or read anew; an entry takes the place of an older one of its
    /// key.
    pub objects: Vec<ObjectEntry>,
    /// Keys of raw objects whose events were taken out of the tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forgotten: Vec<String>,
    /// The change of the source's counts.
    pub balance: Balance,
}

impl SourceDelta {
    /// Applying it would leave everything as it is.
    pub fn is_nothing(&self) -> bool {
        self.settings.is_none()
            && !self.anew
            && self.objects.is_empty()
            && self.forgotten.is_empty()
            && self.balance == Balance::default()
    }
}

/// Format 1 has a fingerprint where settings are now.
fn known_settings<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Settings>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Known(Box<Settings>),
        #[expect(dead_code, reason = "what it holds says nothing any more")]
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
    pub etag: Option<String>,
    pub size: u64,
    /// The SHA-256 of the stored bytes.
    pub sha256: Sha256,
    /// Milliseconds since 1970 UTC.
    pub arrival_ms: i64,
    pub records: u64,
    pub events: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rejects: BTreeMap<Reason, u64>,
    /// First and last event time in the table's unit; `None` where there are no events, or where
    /// format 1 did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<(i64, i64)>,
}

/// A SHA-256; as text 64 hex digits.
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
    /// Of its bytes; format 1 did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
}

/// A published name as a repair found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundFile {
    /// Below the lake.
    pub key: String,
    /// `None` where nothing was found.
    pub etag: Option<String>,
}

/// A mart as it was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MartEntry {
    pub name: String,
    /// SHA-256 of the SQL file's header and SELECT, in hex.
    pub sql: String,
    /// For each table read, the commit that last changed it; of a reference the hash of its bytes.
    /// Every partition follows from these: one that a later commit of them does not reach is as it
    /// would be.
    pub inputs: BTreeMap<String, String>,
    /// How far each partition reads the tables that have dates, where it was built date by date.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reach: BTreeMap<String, String>,
    /// Of all its partitions.
    pub rows: u64,
    /// Whether it is known, as far as it can be, that no date reads more than it says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compared: bool,
    /// The law of the SQL by which it was built; 0 before there was one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub law: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
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
    /// Empty where a repair made a lost marker anew: nobody knows what was put.
    pub etag: String,
}

impl Balance {
    /// Adds the changes of another balance.
    pub fn add(&mut self, other: &Self) {
        self.add_times(other, 1);
    }

    /// Takes another balance away.
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

    /// Adds the counts of a raw object `times` times: 1 or -1.
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
