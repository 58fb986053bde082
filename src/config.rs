//! What was asked: file, environment and command line become one validated, immutable [`Job`].
//!
//! ```text
//! defaults ◀── rawmart.toml ◀── RAWMART_* ◀── flags          later wins
//!                      └──────────┬──────────┘
//!                             load() ──▶ Job                 paths resolved, durations in units
//! ```

mod columns;
mod file;
mod place;
mod show;
mod table;
mod units;

#[cfg(test)]
mod tests;

pub use file::load;

use std::ffi::OsString;
use std::path::PathBuf;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::event::{DecodeSpec, PartitionBy, Slicing};
use crate::names::nearest;
use crate::time::Zone;

/// A variable of the process's environment. Nothing else reads them.
pub fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// What the command line gave that is stronger than environment and file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    pub config: Option<PathBuf>,
    pub lake: Option<String>,
    /// As typed: `1GiB`, `512m`.
    pub memory: Option<String>,
    pub threads: Option<usize>,
    pub spill_dir: Option<PathBuf>,
    /// As typed: `1%`.
    pub max_rejects: Option<String>,
}

/// One validated configuration; below `cli` nobody sees a flag.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Job {
    /// The file that was read.
    pub file: PathBuf,
    /// Root of the lake: an absolute `file://` or `s3://` URL that ends with `/`.
    pub lake: String,
    pub timezone: Zone,
    /// Bytes.
    pub memory: u64,
    pub threads: usize,
    /// Where work that the memory does not hold is put; the system's temporary folder without.
    pub spill_dir: Option<PathBuf>,
    /// Never more than one run at a time writes: the store's conditions may fail.
    pub single_writer: bool,
    /// In order of their names.
    pub sources: Vec<Source>,
    pub references: Vec<Reference>,
    /// The folder of mart SQL files.
    pub marts: Option<PathBuf>,
}

impl Job {
    /// The sources of these names, or all where none is named; an unknown name is an error that
    /// names the nearest source.
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
    /// How the events of a source are dealt to files.
    pub const fn slicing(&self, source: &Source) -> Slicing {
        Slicing {
            timezone: self.timezone,
            by: source.partition_by,
            slice_ms: source.slice_ms,
        }
    }
}

/// One kind of events: raw prefixes in, `<name>`, `<name>_duplicates` and `<name>_rejects` out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Source {
    pub name: String,
    pub raw: Vec<RawRoot>,
    /// strftime pattern of the key below the root that holds the arrival time; `None` when
    /// LastModified is the arrival.
    pub layout: Option<String>,
    pub layout_timezone: Zone,
    /// Globs over the key below the root.
    pub exclude: Vec<String>,
    pub decode: DecodeSpec,
    pub rules: Vec<Rule>,
    pub partition_by: PartitionBy,
    /// Span of event time of one data file, milliseconds.
    pub slice_ms: i64,
    /// Largest share of rejects among a commit's new records, 0 to 1.
    pub max_rejects: f64,
    pub on_changed_object: OnChangedObject,
    /// Prefixes that are so much older than the newest one, milliseconds, are not listed by every run.
    pub settled_ms: Option<i64>,
    pub compression: Compression,
    /// Columns with a bloom filter.
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

/// What is to be done with an absorbed raw object whose content is another now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnChangedObject {
    /// Nothing is published.
    #[default]
    Fail,
    /// Its events are taken out, and those of the new content added.
    Replace,
    /// Its events stay as they are.
    Ignore,
}

/// One root under which raw objects lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RawRoot {
    /// Only of named roots: the first part of a raw object's identity.
    pub name: Option<String>,
    /// Absolute `file://` or `s3://` URL that ends with `/`.
    pub url: String,
}

/// One named duplicate rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub name: String,
    /// Columns, SQL expressions over them, or `record_sha256`. A null in any part exempts the event.
    pub key: Vec<String>,
    /// SQL predicate over the event's columns; NULL counts as false.
    pub when: Option<String>,
    /// Milliseconds, inclusive.
    pub within_ms: i64,
    pub mode: Mode,
    /// Event dates, inclusive.
    pub since: Option<NaiveDate>,
    pub until: Option<NaiveDate>,
}

/// Which of the events of one key stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Kept iff no kept event of its key lies within the window before it.
    #[default]
    Throttle,
    /// Kept iff no event of its key, kept or not, lies within the window before it.
    Gap,
    /// Kept iff no event of its key lies within the window after it.
    GapLast,
    /// The first of its key in `floor(t / within)`.
    Tumbling,
}

/// Codec of the pages of a data file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    #[default]
    Snappy,
    Zstd,
}

/// A small table that marts join.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reference {
    pub name: String,
    /// Absolute `file://` or `s3://` URL of one file.
    pub url: String,
    pub format: ReferenceFormat,
    /// Declared columns in order; `None` when they are inferred.
    pub columns: Option<Vec<(String, crate::event::ColumnType)>>,
    /// Spellings that mean NULL; CSV only.
    pub null: Vec<String>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReferenceFormat {
    Csv,
    Ndjson,
    Parquet,
}

/// A configuration that cannot be used: where, what, and what to do. Exit 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "there is no configuration {}: write one, or name it with --config or RAWMART_CONFIG",
        file.display()
    )]
    Missing { file: PathBuf },
    #[error("cannot read the configuration {}: {source}", file.display())]
    Unreadable {
        file: PathBuf,
        source: std::io::Error,
    },
    /// `line` is from 1.
    #[error("{}:{line}: {message}", file.display())]
    Syntax {
        file: PathBuf,
        line: usize,
        message: String,
    },
    /// `key` is the dotted path, such as `sources.events.columns.os.type`.
    #[error("{}: {key}: {message}", file.display())]
    Key {
        file: PathBuf,
        key: String,
        message: String,
    },
    /// `name` is the flag or variable that was given.
    #[error("{name}: {message}")]
    Given { name: String, message: String },
}
