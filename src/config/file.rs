//! Reads the file and merges what is stronger than it.
//!
//! ```text
//! --config │ RAWMART_CONFIG │ ./rawmart.toml      which file
//!        └──────┬───────┘
//!            text ──▶ tables with places ──▶ sources, references, marts ──▶ Job
//!                                         ▲ lake, memory, threads, max_rejects: flag, then RAWMART_*
//! ```
//!
//! Paths in the file resolve from its folder; a lake given as a flag or variable resolves from the
//! folder that the command runs in, where its writer stands.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDate, NaiveTime};
use toml::de::{DeTable, DeValue};

use super::table::{Entry, Table};
use super::{
    Compression, ConfigError, Job, Mode, OnChangedObject, Overrides, RawRoot, Reference,
    ReferenceFormat, Rule, Source, columns, place, units,
};
use crate::event::{
    Accept, Column, ColumnType, DecodeSpec, EXTRA, Limits, OnTypeError, PartitionBy, RAW_RECORD,
    RECORD_SHA256,
};
use crate::layout::Layout;
use crate::names::nearest;
use crate::time::{TimeUnit, Zone};

/// Looked for in the folder that the command runs in.
const FILE: &str = "rawmart.toml";
/// Where Firehose writes by default: hours of UTC.
const LAYOUT: &str = "%Y/%m/%d/%H/";
/// The prefixes under which Firehose puts what it could not deliver, at any depth.
const EXCLUDE: [&str; 7] = [
    "**/processing-failed/**",
    "**/format-conversion-failed/**",
    "**/http-endpoint-failed/**",
    "**/splunk-failed/**",
    "**/elasticsearch-failed/**",
    "**/opensearch-failed/**",
    "**/errors/**",
];
/// Before this, a time is a clock that was never set (1970) rather than an event of an app.
const ACCEPT_FROM: &str = "2010-01-01";
/// Phones whose clock is a day ahead exist; a week ahead is an error.
const ACCEPT_AHEAD: &str = "1d";
const MAX_REJECTS: f64 = 0.01;
const MEMORY: u64 = 1 << 30;
/// Below this not even one row group of a wide table fits beside its sort.
const LEAST_MEMORY: u64 = 256 << 20;
/// File names have five digits for the slice; a slice of a minute needs 1,500 on the longest day.
const LEAST_SLICE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;

/// Keys of the file itself.
pub(super) const TOP_KEYS: [&str; 9] = [
    "lake",
    "timezone",
    "memory",
    "spill_dir",
    "threads",
    "single_writer",
    "sources",
    "references",
    "marts",
];
/// Keys of a source.
pub(super) const SOURCE_KEYS: [&str; 20] = [
    "raw",
    "layout",
    "layout_timezone",
    "exclude",
    "event_time",
    "partition_by",
    "slice",
    "timestamp_unit",
    "naive_timezone",
    "accept",
    "on_type_error",
    "max_rejects",
    "max_record_bytes",
    "max_object_bytes",
    "on_changed_object",
    "settled",
    "compression",
    "bloom_filters",
    "columns",
    "dedup",
];
/// Keys of the accepted times of a source.
pub(super) const ACCEPT_KEYS: [&str; 2] = ["from", "ahead"];
/// Keys of a duplicate rule.
pub(super) const RULE_KEYS: [&str; 7] = ["name", "key", "within", "mode", "when", "since", "until"];
/// Keys of a reference.
pub(super) const REFERENCE_KEYS: [&str; 5] = ["path", "columns", "null", "encoding", "format"];
/// Keys of the marts.
pub(super) const MARTS_KEYS: [&str; 1] = ["path"];

/// Finds, reads and validates the configuration.
///
/// `environment` answers for `RAWMART_*`; `folder` is the folder that the command runs in, absolute.
pub fn load(
    overrides: &Overrides,
    environment: &dyn Fn(&str) -> Option<OsString>,
    folder: &Path,
) -> Result<Job, ConfigError> {
    // An empty variable is how shells and schedulers spell an absent one.
    let environment = |name: &str| environment(name).filter(|value| !value.is_empty());
    let shown = overrides
        .config
        .clone()
        .or_else(|| environment("RAWMART_CONFIG").map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from(FILE));
    let file = folder.join(&shown);
    let text = read(&file, &shown)?;
    let document = DeTable::parse(&text).map_err(|error| ConfigError::Syntax {
        file: shown.clone(),
        line: error.span().map_or(1, |span| line_of(&text, span.start)),
        message: error.message().to_owned(),
    })?;
    let top = Table::top(&shown, document.get_ref());
    top.only(&TOP_KEYS)?;

    let base = file.parent().unwrap_or(folder);
    let given = |name: &str, message: String| ConfigError::Given {
        name: name.to_owned(),
        message,
    };
    let unicode = |name: &str, value: &OsStr| match value.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(given(
            name,
            format!("{value:?} is not UTF-8: give a value in that encoding"),
        )),
    };
    let variable = |name: &str| {
        let value = environment(name);
        value.map(|value| unicode(name, &value)).transpose()
    };
    let stronger = |flag: &str, typed: Option<&String>, name: &str| match typed {
        Some(value) => Ok(Some((flag.to_owned(), value.clone()))),
        None => Ok(variable(name)?.map(|value| (name.to_owned(), value))),
    };

    let typed_spill = overrides.spill_dir.as_ref();
    let typed_spill = typed_spill.map(|path| unicode("--spill-dir", path.as_os_str()));
    let typed_spill = typed_spill.transpose()?;
    let lake = match stronger("--lake", overrides.lake.as_ref(), "RAWMART_LAKE")? {
        Some((name, text)) => {
            place::folder_url(&text, folder).map_err(|message| given(&name, message))?
        }
        None => top
            .need(
                "lake",
                "write `lake = \"s3://bucket/prefix\"` or a local path, or give --lake",
            )?
            .read(|text| place::folder_url(text, base))?,
    };
    let memory = match stronger("--memory", overrides.memory.as_ref(), "RAWMART_MEMORY")? {
        Some((name, text)) => memory(&text).map_err(|message| given(&name, message))?,
        None => top.text_or("memory", MEMORY, memory)?,
    };
    let threads = match overrides.threads {
        Some(threads) => some_threads(threads).map_err(|message| given("--threads", message))?,
        None => match variable("RAWMART_THREADS")? {
            Some(text) => text
                .trim()
                .parse()
                .map_err(|_| format!("`{text}` is no number of threads: give 1 or more"))
                .and_then(some_threads)
                .map_err(|message| given("RAWMART_THREADS", message))?,
            None => match top.get("threads") {
                Some(entry) => some_threads(usize::try_from(entry.integer()?).unwrap_or(0))
                    .map_err(|message| entry.error(message))?,
                None => std::thread::available_parallelism().map_or(1, usize::from),
            },
        },
    };
    let threads = affordable(threads, memory);
    let spill_dir = match stronger("--spill-dir", typed_spill.as_ref(), "RAWMART_SPILL_DIR")? {
        Some((name, text)) => {
            Some(place::local_path(&text, folder).map_err(|message| given(&name, message))?)
        }
        None => match top.get("spill_dir") {
            Some(entry) => Some(entry.read(|text| place::local_path(text, base))?),
            None => None,
        },
    };
    let single_writer = match top.get("single_writer") {
        Some(entry) => entry.flag()?,
        None => false,
    };
    let max_rejects = match &overrides.max_rejects {
        Some(text) => Some(units::share(text).map_err(|message| given("--max-rejects", message))?),
        None => None,
    };
    let utc = Zone(chrono_tz::UTC);
    let timezone = top.text_or("timezone", utc, str::parse)?;

    let mut sources = Vec::new();
    for (name, entry) in named(&top, "sources")? {
        let table = entry.table()?;
        let mut source = source(name, &table, base, timezone)?;
        records_fit(&table, &source, memory)?;
        if let Some(share) = max_rejects {
            source.max_rejects = share;
        }
        sources.push(source);
    }
    if sources.is_empty() {
        return Err(top.error_at(
            "sources",
            "there is no source: write a table `[sources.events]` with raw, event_time and columns"
                .to_owned(),
        ));
    }
    let mut references = Vec::new();
    for (name, entry) in named(&top, "references")? {
        references.push(reference(name, &entry.table()?, base)?);
    }
    let marts = match top.get("marts") {
        Some(entry) => {
            let table = entry.table()?;
            table.only(&MARTS_KEYS)?;
            Some(
                table
                    .need("path", "write `path = \"sql/marts\"`")?
                    .read(|text| place::local_path(text, base))?,
            )
        }
        None => None,
    };

    sources.sort_by(|a, b| a.name.cmp(&b.name));
    references.sort_by(|a, b| a.name.cmp(&b.name));
    distinct_tables(&top, &sources, &references)?;
    lake_apart(&top, &lake, &sources)?;
    Ok(Job {
        file,
        lake,
        timezone,
        memory,
        threads,
        spill_dir,
        single_writer,
        sources,
        references,
        marts,
    })
}

fn read(file: &Path, shown: &Path) -> Result<String, ConfigError> {
    let bytes = std::fs::read(file).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => ConfigError::Missing {
            file: shown.to_owned(),
        },
        _ => ConfigError::Unreadable {
            file: shown.to_owned(),
            source,
        },
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(good).filter(|b| **b == b'\n');
        ConfigError::Syntax {
            file: shown.to_owned(),
            line: 1 + line.count(),
            message: "is not UTF-8: save the file in that encoding".to_owned(),
        }
    })
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|b| *b == b'\n').count()
}

fn memory(text: &str) -> Result<u64, String> {
    match units::size(text)? {
        bytes if bytes < LEAST_MEMORY => {
            Err(format!("`{text}` is too little: give 256MiB or more"))
        }
        bytes => Ok(bytes),
    }
}

/// Each thread has a share of the memory; beyond this the shares are too small to work in.
const MOST_THREADS: usize = 1_024;

fn some_threads(threads: usize) -> Result<usize, String> {
    match threads {
        0 => Err("there is no work without a thread: give 1 or more".to_owned()),
        threads if threads > MOST_THREADS => Err(format!(
            "{threads} threads are more than any machine has cores: give {MOST_THREADS} or less"
        )),
        threads => Ok(threads),
    }
}

/// Memory that a thread needs beside what it shares with others: buffers, batches, the blocks of its spilled runs.
const THREAD_BYTES: u64 = 32 << 20;

/// As many threads as the memory is enough for.
fn affordable(threads: usize, memory: u64) -> usize {
    let most = usize::try_from(memory / THREAD_BYTES).unwrap_or(usize::MAX);
    if threads <= most {
        return threads;
    }
    tracing::warn!(
        "{most} threads work in place of {threads}: each needs {} of memory; give --memory {} for all",
        units::show_size(THREAD_BYTES),
        units::show_size(threads as u64 * THREAD_BYTES),
    );
    most
}

/// So many times its bytes is a record held while it is decoded, sorted and written.
const RECORD_COPIES: u64 = 16;

/// Records as long as the configuration of a source lets them be must fit into the memory.
fn records_fit(table: &Table<'_>, source: &Source, memory: u64) -> Result<(), ConfigError> {
    let longest = source.decode.limits.max_record_bytes;
    if longest <= memory / RECORD_COPIES {
        return Ok(());
    }
    Err(table.error_at(
        "max_record_bytes",
        format!(
            "{} needs {} of memory, and there are {}: give --memory more, or {}MiB or less here",
            units::show_size(longest),
            units::show_size(longest.saturating_mul(RECORD_COPIES)),
            units::show_size(memory),
            (memory / RECORD_COPIES) >> 20,
        ),
    ))
}

/// The tables under `key` with their checked names.
fn named<'a>(top: &Table<'a>, key: &str) -> Result<Vec<(&'a str, Entry<'a>)>, ConfigError> {
    let Some(entry) = top.get(key) else {
        return Ok(Vec::new());
    };
    let entries = entry.table()?.in_order();
    for (name, entry) in &entries {
        columns::name(name).map_err(|message| entry.error(message))?;
    }
    Ok(entries)
}

fn source(
    name: &str,
    table: &Table<'_>,
    base: &Path,
    lake_zone: Zone,
) -> Result<Source, ConfigError> {
    table.only(&SOURCE_KEYS)?;
    let columns = columns::declared(
        &table
            .need("columns", "declare them, such as `event_id = \"string\"`")?
            .table()?,
    )?;
    let rules = rules(table, &columns)?;
    let partition_by = table.text_or("partition_by", PartitionBy::Day, |text| {
        choice(
            text,
            &[("day", PartitionBy::Day), ("hour", PartitionBy::Hour)],
        )
    })?;
    let decode = DecodeSpec {
        event_time: event_time(table, &columns)?,
        unit: table.text_or("timestamp_unit", TimeUnit::Ms, |text| {
            choice(text, &[("ms", TimeUnit::Ms), ("us", TimeUnit::Us)])
        })?,
        naive_timezone: table.text_or("naive_timezone", None, |text| text.parse().map(Some))?,
        accept: accept(table, lake_zone)?,
        on_type_error: table.text_or("on_type_error", OnTypeError::Reject, |text| {
            choice(
                text,
                &[("reject", OnTypeError::Reject), ("null", OnTypeError::Null)],
            )
        })?,
        record_sha256: rules
            .iter()
            .flat_map(|rule| &rule.key)
            .any(|part| names(part, RECORD_SHA256)),
        limits: limits(table)?,
        columns,
    };
    Ok(Source {
        name: name.to_owned(),
        raw: raw(table, base)?,
        layout: layout(table)?,
        layout_timezone: table.text_or("layout_timezone", Zone(chrono_tz::UTC), str::parse)?,
        exclude: exclude(table)?,
        slice_ms: slice(table, partition_by)?,
        partition_by,
        max_rejects: max_rejects(table)?,
        on_changed_object: table.text_or("on_changed_object", OnChangedObject::Fail, |text| {
            choice(
                text,
                &[
                    ("fail", OnChangedObject::Fail),
                    ("replace", OnChangedObject::Replace),
                    ("ignore", OnChangedObject::Ignore),
                ],
            )
        })?,
        settled_ms: settled(table)?,
        compression: table.text_or("compression", Compression::Snappy, |text| {
            choice(
                text,
                &[("snappy", Compression::Snappy), ("zstd", Compression::Zstd)],
            )
        })?,
        bloom_filters: bloom_filters(table, &decode.columns)?,
        rules,
        decode,
    })
}

fn settled(table: &Table<'_>) -> Result<Option<i64>, ConfigError> {
    let Some(entry) = table.get("settled") else {
        return Ok(None);
    };
    let ms = entry.read(units::duration)?;
    match layout(table)? {
        Some(_) => Ok(Some(ms)),
        None => Err(entry.error(
            "needs a `layout`: without one the keys do not say how old they are".to_owned(),
        )),
    }
}

fn raw(table: &Table<'_>, base: &Path) -> Result<Vec<RawRoot>, ConfigError> {
    let entry = table.need("raw", "write `raw = \"s3://bucket/prefix/\"`")?;
    let folder = |text: &str| place::folder_url(text, base);
    if matches!(entry.value(), DeValue::String(_)) {
        let url = entry.read(folder)?;
        return Ok(vec![RawRoot { name: None, url }]);
    }
    let roots = match entry.value() {
        DeValue::Table(_) => entry.table()?,
        other => {
            let wanted = "a URL, or named roots such as { eu = \"s3://…\", us = \"s3://…\" }";
            return Err(entry.wanted(wanted, other));
        }
    };
    if roots.is_empty() {
        return Err(entry.error("has no roots: write { eu = \"s3://…\" }".to_owned()));
    }
    let mut named: Vec<RawRoot> = Vec::new();
    for (name, root) in roots.in_order() {
        columns::name(name).map_err(|message| root.error(message))?;
        let url = root.read(folder)?;
        let overlaps = |other: &&RawRoot| {
            place::overlap(&other.url, &url)
                || place::overlap(&place::resolved(&other.url), &place::resolved(&url))
        };
        if let Some(other) = named.iter().find(overlaps) {
            return Err(root.error(format!(
                "{url} overlaps the root `{}` ({}), so objects would be read twice: give roots \
                 that lie apart",
                other.name.as_deref().unwrap_or_default(),
                other.url
            )));
        }
        named.push(RawRoot {
            name: Some(name.to_owned()),
            url,
        });
    }
    named.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(named)
}

fn layout(table: &Table<'_>) -> Result<Option<String>, ConfigError> {
    let Some(entry) = table.get("layout") else {
        return Ok(Some(LAYOUT.to_owned()));
    };
    match entry.value() {
        DeValue::Boolean(false) => return Ok(None),
        DeValue::String(_) => {}
        other => {
            return Err(entry.wanted(
                "a strftime pattern such as \"%Y/%m/%d/%H/\", or `false` where keys hold no time \
                 and LastModified is the arrival",
                other,
            ));
        }
    }
    entry.read(|text| {
        if text.starts_with('/') {
            return Err(format!(
                "`{text}` begins with `/`: it is matched below the root, take it out"
            ));
        }
        // The zone does not matter for the pattern.
        Layout::new(text, Zone(chrono_tz::UTC)).map_err(|error| error.to_string())?;
        Ok(Some(text.to_owned()))
    })
}

fn exclude(table: &Table<'_>) -> Result<Vec<String>, ConfigError> {
    let Some(entry) = table.get("exclude") else {
        return Ok(EXCLUDE.map(str::to_owned).to_vec());
    };
    let globs = entry.one_or_more()?;
    for glob in &globs {
        globset::Glob::new(glob).map_err(|error| {
            entry.error(format!(
                "`{glob}` is no glob: {} (write such as `**/errors/**`)",
                error.kind()
            ))
        })?;
    }
    Ok(globs)
}

fn event_time(table: &Table<'_>, columns: &[Column]) -> Result<String, ConfigError> {
    table
        .need(
            "event_time",
            "name the column of type timestamp that is the event's time",
        )?
        .read(|name| {
            let Some(column) = columns.iter().find(|column| column.name == name) else {
                return Err(unknown_column(name, columns, &[]));
            };
            if column.kind != ColumnType::Timestamp {
                return Err(format!(
                    "the column `{name}` is of type {}: declare it as timestamp",
                    column.kind
                ));
            }
            if column.default.is_some() {
                return Err(format!(
                    "the column `{name}` has a default, but an event without its time is always a \
                     reject: take the default out"
                ));
            }
            Ok(name.to_owned())
        })
}

fn accept(table: &Table<'_>, zone: Zone) -> Result<Accept, ConfigError> {
    let default = || {
        Ok(Accept {
            from_ms: instant(ACCEPT_FROM, zone)?,
            ahead_ms: units::duration(ACCEPT_AHEAD)?,
        })
    };
    let mut accept = default().map_err(|message| table.error_at("accept", message))?;
    if let Some(entry) = table.get("accept") {
        let table = entry.table()?;
        table.only(&ACCEPT_KEYS)?;
        if let Some(from) = table.get("from") {
            let text = date_text(&from)?;
            accept.from_ms = instant(&text, zone).map_err(|message| from.error(message))?;
        }
        accept.ahead_ms = table.text_or("ahead", accept.ahead_ms, units::duration)?;
    }
    Ok(accept)
}

/// Milliseconds of an RFC 3339 instant, or of the first instant of a date in `zone`.
fn instant(text: &str, zone: Zone) -> Result<i64, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.timestamp_millis());
    }
    Ok(zone.first_instant(date(text)?.and_time(NaiveTime::MIN)))
}

/// A date as text, whether it was written with quotes or without.
fn date_text(entry: &Entry<'_>) -> Result<String, ConfigError> {
    match entry.value() {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Datetime(time) => Ok(time.to_string()),
        other => Err(entry.wanted("a date such as \"2019-04-02\"", other)),
    }
}

fn date(text: &str) -> Result<NaiveDate, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is no date: write such as `2019-04-02`"))
}

fn limits(table: &Table<'_>) -> Result<Limits, ConfigError> {
    let default = Limits::default();
    let size = |key: &str, default: u64| -> Result<u64, ConfigError> {
        let Some(entry) = table.get(key) else {
            return Ok(default);
        };
        let bytes = match entry.value() {
            DeValue::Integer(_) => u64::try_from(entry.integer()?).unwrap_or(0),
            _ => entry.read(units::size)?,
        };
        if bytes == 0 {
            return Err(entry.error("is nothing: give a size such as `16MiB`".to_owned()));
        }
        if bytes > 4 << 30 {
            return Err(entry.error(
                "is more than 4GiB, the most that one raw object may hold: give 4GiB or less"
                    .to_owned(),
            ));
        }
        Ok(bytes)
    };
    let max_object_bytes = size("max_object_bytes", default.max_object_bytes)?;
    let limits = Limits {
        max_record_bytes: size(
            "max_record_bytes",
            default.max_record_bytes.min(max_object_bytes),
        )?,
        max_object_bytes,
        max_depth: default.max_depth,
    };
    if limits.max_record_bytes > limits.max_object_bytes {
        return Err(table.error_at(
            "max_record_bytes",
            "is more than max_object_bytes: a record lies within its object".to_owned(),
        ));
    }
    Ok(limits)
}

fn slice(table: &Table<'_>, by: PartitionBy) -> Result<i64, ConfigError> {
    let (span, name) = match by {
        PartitionBy::Day => (DAY_MS, "1d"),
        PartitionBy::Hour => (HOUR_MS, "1h"),
    };
    table.text_or("slice", span, |text| {
        let ms = units::duration(text)?;
        if ms > span {
            return Err(format!(
                "`{text}` is longer than a partition: give {name} or less"
            ));
        }
        if ms < LEAST_SLICE_MS || span % ms != 0 {
            return Err(format!(
                "`{text}` does not divide a partition of {name} into equal slices of a minute or \
                 more: give such as 1h, 30m or 10m"
            ));
        }
        Ok(ms)
    })
}

fn max_rejects(table: &Table<'_>) -> Result<f64, ConfigError> {
    let Some(entry) = table.get("max_rejects") else {
        return Ok(MAX_REJECTS);
    };
    match entry.value() {
        DeValue::String(_) => entry.read(units::share),
        DeValue::Integer(number) => units::share(number.as_str()).map_err(|m| entry.error(m)),
        DeValue::Float(number) => units::share(number.as_str()).map_err(|m| entry.error(m)),
        other => Err(entry.wanted("a share such as \"1%\"", other)),
    }
}

fn bloom_filters(table: &Table<'_>, columns: &[Column]) -> Result<Vec<String>, ConfigError> {
    let Some(entry) = table.get("bloom_filters") else {
        return Ok(Vec::new());
    };
    let names = entry.texts()?;
    for (i, name) in names.iter().enumerate() {
        let Some(column) = columns.iter().find(|column| column.name == *name) else {
            return Err(entry.error(unknown_column(name, columns, &[])));
        };
        if matches!(
            column.kind,
            ColumnType::Array(_) | ColumnType::Map(_) | ColumnType::Struct(_) | ColumnType::Json
        ) {
            return Err(entry.error(format!(
                "`{name}` is of type {}: bloom filters are for columns of single values, take it \
                 out",
                column.kind
            )));
        }
        if names.iter().take(i).any(|other| other == name) {
            return Err(entry.error(format!("names `{name}` twice: take one out")));
        }
    }
    Ok(names)
}

fn rules(table: &Table<'_>, columns: &[Column]) -> Result<Vec<Rule>, ConfigError> {
    let Some(entry) = table.get("dedup") else {
        return Ok(Vec::new());
    };
    if matches!(entry.value(), DeValue::Table(_)) {
        return Err(entry.error(
            "is one table, but rules are a list in order: write it in double brackets, [[…dedup]]"
                .to_owned(),
        ));
    }
    let mut rules: Vec<Rule> = Vec::new();
    for entry in entry.elements("rules")? {
        let table = entry.table()?;
        let rule = rule(&table, columns)?;
        if rules.iter().any(|other| other.name == rule.name) {
            return Err(table.error_at(
                "name",
                format!(
                    "`{}` is the name of an earlier rule: give another",
                    rule.name
                ),
            ));
        }
        rules.push(rule);
    }
    Ok(rules)
}

fn rule(table: &Table<'_>, columns: &[Column]) -> Result<Rule, ConfigError> {
    table.only(&RULE_KEYS)?;
    let name = table
        .need("name", "name the rule, such as `redelivery`")?
        .read(|text| {
            columns::name(text)?;
            Ok(text.to_owned())
        })?;
    let entry = table.need(
        "key",
        "list columns or SQL expressions, such as [\"event_id\"]",
    )?;
    let key = entry.one_or_more()?;
    if key.is_empty() {
        return Err(entry.error(
            "is empty, so all events would be duplicates: list columns or SQL expressions"
                .to_owned(),
        ));
    }
    for part in &key {
        if part.trim().is_empty() {
            return Err(entry.error("has an empty part: name a column".to_owned()));
        }
        let folded = part.trim().to_ascii_lowercase();
        let known = columns.iter().any(|column| column.name == folded)
            || KEY_SYSTEM.contains(&folded.as_str());
        if is_identifier(&folded) && !known {
            return Err(entry.error(unknown_column(part.trim(), columns, &KEY_SYSTEM)));
        }
    }
    let mode = table.text_or("mode", Mode::default(), |text| {
        choice(
            text,
            &[
                ("throttle", Mode::Throttle),
                ("gap", Mode::Gap),
                ("gap-last", Mode::GapLast),
                ("tumbling", Mode::Tumbling),
            ],
        )
    })?;
    let within_ms = table
        .need("within", "give the window, such as `within = \"10m\"`")?
        .read(|text| match units::duration(text)? {
            0 if mode == Mode::Tumbling => Err(format!(
                "`{text}` is no window for `tumbling`: give more than 0, such as `30s`"
            )),
            ms => Ok(ms),
        })?;
    let when = table.text_or("when", None, |text| match text.trim() {
        "" => Err("is empty: write an SQL condition, or take it out".to_owned()),
        condition => Ok(Some(condition.to_owned())),
    })?;
    let day = |key: &str| -> Result<Option<NaiveDate>, ConfigError> {
        let Some(entry) = table.get(key) else {
            return Ok(None);
        };
        let day = date(&date_text(&entry)?).map_err(|message| entry.error(message))?;
        Ok(Some(day))
    };
    let (since, until) = (day("since")?, day("until")?);
    if let (Some(since), Some(until)) = (since, until)
        && until < since
    {
        return Err(table.error_at(
            "until",
            format!("{until} is before since, {since}: no event date is between them"),
        ));
    }
    Ok(Rule {
        name,
        key,
        when,
        within_ms,
        mode,
        since,
        until,
    })
}

/// What a key may name besides declared columns.
const KEY_SYSTEM: [&str; 3] = [RECORD_SHA256, RAW_RECORD, EXTRA];

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// True if the SQL expression names the column, outside of quoted text.
fn names(expression: &str, column: &str) -> bool {
    let outside: String = expression
        .split('\'')
        .step_by(2)
        .collect::<Vec<_>>()
        .join(" ");
    outside
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .any(|word| word.eq_ignore_ascii_case(column))
}

fn unknown_column(name: &str, columns: &[Column], system: &[&str]) -> String {
    let known: Vec<&str> = columns
        .iter()
        .map(|column| column.name.as_str())
        .chain(system.iter().copied())
        .collect();
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("`{name}` is no declared column, is it `{near}`?"),
        None => format!(
            "`{name}` is no declared column; declared: {}",
            known.join(", ")
        ),
    }
}

fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    match choices.iter().find(|(name, _)| *name == text) {
        Some((_, value)) => Ok(*value),
        None => {
            let names: Vec<String> = choices
                .iter()
                .map(|(name, _)| format!("`{name}`"))
                .collect();
            Err(format!(
                "`{text}` is not known: write {}",
                names.join(" or ")
            ))
        }
    }
}

fn reference(name: &str, table: &Table<'_>, base: &Path) -> Result<Reference, ConfigError> {
    table.only(&REFERENCE_KEYS)?;
    let path = table.need(
        "path",
        "name the file, such as `path = \"reference/stores.csv\"`",
    )?;
    let url = path.read(|text| place::file_url(text, base))?;
    let format = match table.get("format") {
        Some(entry) => entry.read(|text| {
            choice(
                text,
                &[
                    ("csv", ReferenceFormat::Csv),
                    ("ndjson", ReferenceFormat::Ndjson),
                    ("parquet", ReferenceFormat::Parquet),
                ],
            )
        })?,
        None => match url
            .rsplit_once('.')
            .map(|(_, end)| end.to_ascii_lowercase())
            .as_deref()
        {
            Some("csv") => ReferenceFormat::Csv,
            Some("ndjson" | "jsonl" | "json") => ReferenceFormat::Ndjson,
            Some("parquet") => ReferenceFormat::Parquet,
            _ => {
                return Err(path.error(format!(
                    "the ending of {url} does not tell its format: add `format = \"csv\"`, \
                     `\"ndjson\"` or `\"parquet\"`"
                )));
            }
        },
    };
    let columns = match table.get("columns") {
        Some(entry) if format == ReferenceFormat::Parquet => {
            return Err(entry.error("a Parquet file has its own: take them out".to_owned()));
        }
        Some(entry) => Some(columns::plain(&entry.table()?)?),
        None => None,
    };
    let null = match table.get("null") {
        Some(entry) if format != ReferenceFormat::Csv => {
            return Err(entry
                .error("is for CSV, other formats spell null themselves: take it out".to_owned()));
        }
        Some(entry) => entry.one_or_more()?,
        None if format == ReferenceFormat::Csv => vec![String::new()],
        None => Vec::new(),
    };
    let encoding = match table.get("encoding") {
        Some(entry) if format == ReferenceFormat::Parquet => {
            return Err(entry.error("a Parquet file is not text: take it out".to_owned()));
        }
        Some(entry) => entry.read(encoding)?,
        None => encoding_rs::UTF_8,
    };
    Ok(Reference {
        name: name.to_owned(),
        url,
        format,
        columns,
        null,
        encoding,
    })
}

/// The encoding of a name, in any capitals.
fn encoding(text: &str) -> Result<&'static encoding_rs::Encoding, String> {
    let lower = text.trim().to_ascii_lowercase();
    // Exports of databases name the code pages of Windows in ways that the WHATWG's list of encodings lacks. Its
    // `euc-kr`, `gbk` and `big5` are these code pages, with all their characters.
    let label = match lower.as_str() {
        "cp949" | "ms949" | "uhc" => "euc-kr",
        "cp932" => "shift_jis",
        "cp936" => "gbk",
        "cp950" => "big5",
        other => other,
    };
    encoding_rs::Encoding::for_label(label.as_bytes()).ok_or_else(|| {
        format!(
            "`{text}` is no known encoding: write such as `utf-8`, `cp949`, `shift_jis` or \
             `windows-1252`"
        )
    })
}

/// Every source makes three tables, and a reference is a table too: all names differ.
fn distinct_tables(
    top: &Table<'_>,
    sources: &[Source],
    references: &[Reference],
) -> Result<(), ConfigError> {
    let mut tables: Vec<(String, String)> = Vec::new();
    for source in sources {
        for table in source.tables() {
            tables.push((table, format!("sources.{}", source.name)));
        }
    }
    for reference in references {
        tables.push((
            reference.name.clone(),
            format!("references.{}", reference.name),
        ));
    }
    for (i, (table, owner)) in tables.iter().enumerate() {
        if let Some((_, first)) = tables.iter().take(i).find(|(other, _)| other == table) {
            let (section, name) = owner.split_once('.').unwrap_or(("sources", owner));
            let message = format!("the table `{table}` is made by {first} already: rename one");
            return Err(match top.get(section) {
                Some(entry) => entry.table()?.error_at(name, message),
                None => top.error_at(owner, message),
            });
        }
    }
    Ok(())
}

fn lake_apart(top: &Table<'_>, lake: &str, sources: &[Source]) -> Result<(), ConfigError> {
    for source in sources {
        for root in &source.raw {
            let (real_lake, real_root) = (place::resolved(lake), place::resolved(&root.url));
            let links = match place::overlap(lake, &root.url) {
                true => String::new(),
                false if place::overlap(&real_lake, &real_root) => {
                    format!(" (through symbolic links: they are {real_lake} and {real_root})")
                }
                false => continue,
            };
            return Err(top.error_at(
                "lake",
                format!(
                    "the lake {lake} and the raw root {} of the source `{}` overlap{links}, so the \
                     lake's files would be read as raw objects or written among them: move the lake",
                    root.url, source.name
                ),
            ));
        }
    }
    Ok(())
}
