//! The request of a user: file, environment and command line become one validated, immutable [`Job`].
//!
//! ```text
//! defaults ◀── rawmart.toml ◀── RAWMART_* ◀── flags          later wins
//!                      └──────────┬──────────┘
//!                             load() ──▶ Job                 paths resolved, durations in units
//! ```

mod catalog;
mod columns;
mod file;
mod place;
mod reference;
mod rules;
mod show;
mod source;
mod table;
mod units;
mod unwrap;

#[cfg(test)]
mod tests;

pub use catalog::{Catalog, CatalogKind};
pub use file::{file_to_write, load, of_text};
pub use place::folder_url;
pub use units::{duration, show_duration};

use std::ffi::OsString;
use std::path::PathBuf;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::event::{DecodeSpec, PartitionBy, Slicing};
use crate::names::nearest;
use crate::time::Zone;

/// The value of a variable of the process's environment. No other function reads the environment.
pub fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// The bytes of memory that are free on this machine, or for this container; `None` where the system does not say.
pub fn memory_there_is() -> Option<u64> {
    let number = |text: String| text.trim().parse::<u64>().ok();
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let meminfo = read("/proc/meminfo")?;
    let line = meminfo
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    let machine = kib.saturating_mul(1 << 10);
    let limit = read("/sys/fs/cgroup/memory.max").and_then(number);
    let used = read("/sys/fs/cgroup/memory.current").and_then(number);
    let container = limit.map(|limit| limit.saturating_sub(used.unwrap_or(0)));
    Some(container.map_or(machine, |container| container.min(machine)))
}

/// The settings of the command line. They are stronger than the environment and the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The file that is to be read.
    pub config: Option<PathBuf>,
    /// The root of the lake, as typed.
    pub lake: Option<String>,
    /// The memory as typed: `1GiB`, `512m`.
    pub memory: Option<String>,
    /// The number of threads.
    pub threads: Option<usize>,
    /// The folder for work that the memory does not hold, as typed.
    pub spill_dir: Option<PathBuf>,
    /// The share as typed: `1%`.
    pub max_rejects: Option<String>,
}

/// One validated configuration. Rooms below `cli` see it in the place of flags.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Job {
    /// The file that was read.
    pub file: PathBuf,
    /// The root of the lake: an absolute `file://` or `s3://` URL that ends with `/`.
    pub lake: String,
    /// The zone of event dates and hours.
    pub timezone: Zone,
    /// The memory of a run, in bytes.
    pub memory: u64,
    /// The number of threads of a run.
    pub threads: usize,
    /// The folder for work that the memory does not hold. `None` is the temporary folder of the system.
    pub spill_dir: Option<PathBuf>,
    /// Whether the user promises that no two runs write at once, so that the store need not respect conditional
    /// writes.
    pub single_writer: bool,
    /// How S3 encrypts what is written to the lake. `None` leaves it to the bucket.
    pub encryption: Option<Encryption>,
    /// Whether the account that runs rawmart pays for the requests to the buckets of others.
    pub requester_pays: bool,
    /// The readers whose rules the tables must fulfil. `None` asks for no refusal.
    pub readers: Option<Vec<Reader>>,
    /// The sources, in the order of their names.
    pub sources: Vec<Source>,
    /// The references, in the order of their names.
    pub references: Vec<Reference>,
    /// The folder of mart SQL files.
    pub marts: Option<PathBuf>,
    /// The catalog that is told of each commit.
    pub catalog: Option<Catalog>,
    /// Where the data files of a partition are published.
    pub publish: Publish,
    /// How long a retired version of a partition stays after the catalog was told of its successor, in milliseconds.
    pub retain_ms: i64,
}

/// Where the data files of a partition are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Publish {
    /// Below the root of the table, in the place of the earlier files.
    #[default]
    Directory,
    /// Each version of a partition in a folder of its own. The catalog names the current one.
    Catalog,
}

/// A program that reads the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reader {
    /// Amazon Athena, version 3.
    Athena,
    /// Redshift Spectrum.
    Spectrum,
    /// Redshift, by COPY.
    Redshift,
    /// Hive 4 and later.
    Hive,
    /// Hive before 4.
    Hive3,
    /// Apache Spark.
    Spark,
    /// Trino.
    Trino,
    /// DuckDB.
    DuckDb,
}

impl Reader {
    /// All readers by the names that the configuration gives them.
    pub const ALL: [(&str, Self); 8] = [
        ("athena", Self::Athena),
        ("spectrum", Self::Spectrum),
        ("redshift", Self::Redshift),
        ("hive", Self::Hive),
        ("hive3", Self::Hive3),
        ("spark", Self::Spark),
        ("trino", Self::Trino),
        ("duckdb", Self::DuckDb),
    ];

    /// The readers that `lint` looks at where the configuration names none: all but Hive before 4, which reads no
    /// timestamp that the others read.
    pub fn usual() -> Vec<Self> {
        let all = Self::ALL.iter().map(|(_, reader)| *reader);
        all.filter(|reader| *reader != Self::Hive3).collect()
    }

    /// The name that the configuration gives it.
    pub fn name(self) -> &'static str {
        let mut all = Self::ALL.iter();
        all.find(|(_, reader)| *reader == self)
            .map_or("", |(name, _)| name)
    }
}

/// Server-side encryption of S3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Encryption {
    /// `AES256`, `aws:kms` or `aws:kms:dsse`.
    pub algorithm: &'static str,
    /// The key of KMS: its id, its ARN or an alias. `None` is the key of the bucket, or the key that AWS manages.
    pub key: Option<String>,
    /// Whether S3 asks KMS once for many objects. `None` leaves it to the bucket.
    pub bucket_key: Option<bool>,
}

impl Job {
    /// The sources of these names, or all sources where `names` is empty.
    ///
    /// # Errors
    /// A name that no source has; the message names the nearest one.
    pub fn select(&self, names: &[String]) -> Result<Vec<&Source>, ConfigError> {
        if names.is_empty() {
            return Ok(self.sources.iter().collect());
        }
        let known = || self.sources.iter().map(|source| source.name.as_str());
        if let Some(name) = names.iter().find(|name| !known().any(|k| k == *name)) {
            return Err(ConfigError::Given {
                name: "--source".to_owned(),
                message: match nearest(name, known()) {
                    Some(near) => format!("`{name}` is no source, is it `{near}`?"),
                    None => {
                        let known: Vec<_> = known().collect();
                        format!("`{name}` is no source; there are: {}", known.join(", "))
                    }
                },
            });
        }
        Ok(self
            .sources
            .iter()
            .filter(|source| names.contains(&source.name))
            .collect())
    }
}

impl Job {
    /// The rule that gives each event of a source its partition and slice.
    pub const fn slicing(&self, source: &Source) -> Slicing {
        Slicing {
            timezone: self.timezone,
            by: source.partition_by,
            slice_ms: source.slice_ms,
        }
    }
}

/// One kind of events. Its raw objects become the tables `<name>`, `<name>_duplicates` and `<name>_rejects`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Source {
    /// The name of the table of kept events.
    pub name: String,
    /// The roots under which the raw objects lie.
    pub raw: Vec<RawRoot>,
    /// The strftime pattern of the arrival time in the key below the root. `None` where LastModified is the
    /// arrival.
    pub layout: Option<String>,
    /// The zone of the times in keys.
    pub layout_timezone: Zone,
    /// The globs of keys below the root that are not read.
    pub exclude: Vec<String>,
    /// The settings that decide how records become events.
    pub decode: DecodeSpec,
    /// The duplicate rules, in the order in which they apply.
    pub rules: Vec<Rule>,
    /// Whether a partition is a day or an hour.
    pub partition_by: PartitionBy,
    /// The span of event time of one data file, in milliseconds.
    pub slice_ms: i64,
    /// The largest share of rejects among a commit's new records, 0 to 1.
    pub max_rejects: f64,
    /// The treatment of an absorbed raw object whose content has changed.
    pub on_changed_object: OnChangedObject,
    /// How much older than the newest prefix a prefix is, in milliseconds, when runs no longer list it. `None` lists
    /// all prefixes.
    pub settled_ms: Option<i64>,
    /// How long no raw object may arrive before a run fails, in milliseconds. `None` allows every silence.
    pub fresh_within_ms: Option<i64>,
    /// The codec of the data files.
    pub compression: Compression,
    /// The columns that have a bloom filter.
    pub bloom_filters: Vec<String>,
}

impl Source {
    /// The tables that a source makes: kept events, duplicates, rejects.
    pub fn tables(&self) -> [String; 3] {
        let name = &self.name;
        [
            name.clone(),
            format!("{name}_duplicates"),
            format!("{name}_rejects"),
        ]
    }
}

/// The treatment of an absorbed raw object whose content has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnChangedObject {
    /// The run fails and publishes nothing.
    #[default]
    Fail,
    /// The events of the old content are taken out, and the events of the new content are added.
    Replace,
    /// The events of the old content stay.
    Ignore,
}

/// One root under which raw objects lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RawRoot {
    /// The name, which is the first part of the identity of the root's raw objects. `None` where a source has one
    /// root without a name.
    pub name: Option<String>,
    /// Absolute `file://` or `s3://` URL that ends with `/`.
    pub url: String,
}

/// One named duplicate rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The name, as the column `rule` shows it.
    pub name: String,
    /// The parts of the key: columns, SQL expressions over them, or `record_sha256`. A null in any part exempts the
    /// event.
    pub key: Vec<String>,
    /// An SQL predicate over the event's columns. The rule concerns events for which it is true; NULL counts as
    /// false.
    pub when: Option<String>,
    /// The window in milliseconds. Two events that lie exactly this far apart are within it.
    pub within_ms: i64,
    /// Decides which of the events of one key stays.
    pub mode: Mode,
    /// The first event date that the rule concerns.
    pub since: Option<NaiveDate>,
    /// The last event date that the rule concerns.
    pub until: Option<NaiveDate>,
}

/// Decides which of the events of one key stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// An event stays if and only if no kept event of its key lies within the window before it.
    #[default]
    Throttle,
    /// An event stays if and only if no event of its key, kept or not, lies within the window before it.
    Gap,
    /// An event stays if and only if no event of its key lies within the window after it.
    GapLast,
    /// The first event of its key in each `floor(t / within)` stays.
    Tumbling,
}

/// The codec of the pages of a data file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Snappy.
    #[default]
    Snappy,
    /// Zstandard.
    Zstd,
}

/// A small table that marts join.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reference {
    /// The name of the table.
    pub name: String,
    /// The absolute `file://` or `s3://` URL of the file.
    pub url: String,
    /// The format of the file.
    pub format: ReferenceFormat,
    /// The declared columns in order. `None` where they are inferred.
    pub columns: Option<Vec<(String, crate::event::ColumnType)>>,
    /// The spellings of NULL. Only CSV has any.
    pub null: Vec<String>,
    /// The byte between two fields. Only CSV has one.
    pub delimiter: u8,
    /// The encoding of the text. `cp949` is `EUC-KR` here, which holds all characters of that code page.
    #[serde(serialize_with = "encoding_name")]
    pub encoding: &'static encoding_rs::Encoding,
}

/// The encoding's name as the configuration spells it, such as `utf-8` or `euc-kr`.
fn encoding_name<S: serde::Serializer>(
    encoding: &&'static encoding_rs::Encoding,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&encoding.name().to_ascii_lowercase())
}

/// The format of the file of a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReferenceFormat {
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object on each line.
    Ndjson,
    /// Parquet.
    Parquet,
}

/// Why a configuration cannot be used: where, what is wrong, and what to do. Exit 2.
#[derive(Debug, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "the text of each error says what its fields are"
)]
pub enum ConfigError {
    /// There is no such file.
    #[error(
        "there is no configuration {}: write one, or name it with --config or RAWMART_CONFIG",
        file.display()
    )]
    Missing { file: PathBuf },
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", file.display())]
    Unreadable {
        file: PathBuf,
        source: std::io::Error,
    },
    /// The file is no TOML. `line` is from 1.
    #[error("{}:{line}: {message}", file.display())]
    Syntax {
        file: PathBuf,
        line: usize,
        message: String,
    },
    /// A value cannot be used. `key` is the dotted path, such as `sources.events.columns.os.type`.
    #[error("{}: {key}: {message}", file.display())]
    Key {
        file: PathBuf,
        key: String,
        message: String,
    },
    /// A flag or a variable cannot be used; `name` is its name.
    #[error("{name}: {message}")]
    Given { name: String, message: String },
}
