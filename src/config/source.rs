//! One source of the configuration: where its raw objects lie, how they are decoded, and how its tables are written.

use std::path::Path;

use chrono::{DateTime, NaiveTime};
use toml::de::DeValue;

use super::table::{Table, choice};
use super::{
    Compression, ConfigError, OnChangedObject, RawRoot, Rule, Source, columns, place, rules, units,
    unwrap,
};
use crate::event::{
    Accept, Column, ColumnType, DecodeSpec, Limits, OnTypeError, PartitionBy, RECORD_SHA256,
    UnwrapStep,
};
use crate::layout::Layout;
use crate::time::{TimeUnit, Zone};

/// The layout of keys that Firehose writes by default, in hours of UTC.
const LAYOUT: &str = "%Y/%m/%d/%H/";

/// The globs of the prefixes under which Firehose puts records that it could not deliver, at any depth.
const EXCLUDE: [&str; 7] = [
    "**/processing-failed/**",
    "**/format-conversion-failed/**",
    "**/http-endpoint-failed/**",
    "**/splunk-failed/**",
    "**/elasticsearch-failed/**",
    "**/opensearch-failed/**",
    "**/errors/**",
];

/// The first date that is accepted. An earlier time comes from a clock that was never set, which shows 1970.
const ACCEPT_FROM: &str = "2010-01-01";

/// How far an event may lie after its object's arrival. There are phones whose clock is a day ahead; a week ahead is
/// an error.
const ACCEPT_AHEAD: &str = "1d";

/// The largest share of rejects in a commit.
const MAX_REJECTS: f64 = 0.01;

/// The shortest slice. Names of files have five digits for the slice, and a slice of a minute needs 1,500 numbers on the
/// longest day.
const LEAST_SLICE_MS: i64 = 60_000;

const DAY_MS: i64 = 86_400_000;

const HOUR_MS: i64 = 3_600_000;

/// The keys of a source.
pub(super) const SOURCE_KEYS: [&str; 25] = [
    "raw",
    "layout",
    "layout_timezone",
    "exclude",
    "unwrap",
    "event_time",
    "partition_by",
    "slice",
    "timestamp_unit",
    "naive_timezone",
    "epoch_timezone",
    "time_formats",
    "coerce",
    "accept",
    "on_type_error",
    "max_rejects",
    "max_record_bytes",
    "max_object_bytes",
    "on_changed_object",
    "settled",
    "fresh_within",
    "compression",
    "bloom_filters",
    "columns",
    "dedup",
];
/// The keys of the accepted times of a source.
pub(super) const ACCEPT_KEYS: [&str; 2] = ["from", "ahead"];

/// One source of the configuration. Relative paths resolve from `base`; dates of `accept` are in `lake_zone`.
pub(super) fn source(
    name: &str,
    table: &Table<'_>,
    base: &Path,
    lake_zone: Zone,
) -> Result<Source, ConfigError> {
    table.only(&SOURCE_KEYS)?;
    let unwrap = unwrap::unwrap(table)?;
    let columns = columns::declared(
        &table
            .need("columns", "declare them, such as `event_id = \"string\"`")?
            .table()?,
        &columns::Defaults::of(table)?,
        &unwrap,
    )?;
    let rules = rules::rules(table, &columns)?;
    let partition_by = table.text_or("partition_by", PartitionBy::Day, |text| {
        choice(
            text,
            &[("day", PartitionBy::Day), ("hour", PartitionBy::Hour)],
        )
    })?;
    let mut decode = decode(table, columns, &rules, lake_zone)?;
    decode.unwrap = unwrap;
    Ok(Source {
        name: name.to_owned(),
        raw: raw(table, base)?,
        layout: layout(table)?,
        layout_timezone: table.text_or("layout_timezone", Zone(chrono_tz::UTC), str::parse)?,
        exclude: exclude(table, &decode.unwrap)?,
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
        fresh_within_ms: table
            .text_or("fresh_within", None, |text| units::duration(text).map(Some))?,
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

/// How records of the source become events.
fn decode(
    table: &Table<'_>,
    columns: Vec<Column>,
    rules: &[Rule],
    lake_zone: Zone,
) -> Result<DecodeSpec, ConfigError> {
    Ok(DecodeSpec {
        event_time: event_time(table, &columns)?,
        unit: table.text_or("timestamp_unit", TimeUnit::Ms, |text| {
            choice(text, &[("ms", TimeUnit::Ms), ("us", TimeUnit::Us)])
        })?,
        naive_timezone: table.text_or("naive_timezone", None, |text| text.parse().map(Some))?,
        epoch_timezone: table.text_or("epoch_timezone", None, |text| text.parse().map(Some))?,
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
            .any(|part| rules::names(part, RECORD_SHA256)),
        limits: limits(table)?,
        unwrap: Vec::new(),
        columns,
    })
}

/// The age beyond which prefixes are not listed any more, in milliseconds.
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

/// The roots under which the raw objects lie.
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

/// The pattern of the arrival time in keys; `None` where LastModified is the arrival.
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

/// The globs of keys that are not read. A source of records that Firehose could not deliver reads the prefixes that
/// other sources leave out.
fn exclude(table: &Table<'_>, unwrap: &[UnwrapStep]) -> Result<Vec<String>, ConfigError> {
    let Some(entry) = table.get("exclude") else {
        return Ok(match unwrap.first() {
            Some(UnwrapStep::FirehoseError) => Vec::new(),
            _ => EXCLUDE.map(str::to_owned).to_vec(),
        });
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

/// The name of the column that is the event time.
fn event_time(table: &Table<'_>, columns: &[Column]) -> Result<String, ConfigError> {
    table
        .need(
            "event_time",
            "name the column of type timestamp that is the event's time",
        )?
        .read(|name| {
            let Some(column) = columns.iter().find(|column| column.name == name) else {
                return Err(columns::unknown(name, columns, &[]));
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

/// The span of event times that is believed.
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
            let text = from.date_text()?;
            accept.from_ms = instant(&text, zone).map_err(|message| from.error(message))?;
        }
        accept.ahead_ms = table.text_or("ahead", accept.ahead_ms, units::duration)?;
    }
    Ok(accept)
}

/// Reads an RFC 3339 instant, or a date, which stands for its first instant in `zone`: milliseconds since 1970 UTC.
fn instant(text: &str, zone: Zone) -> Result<i64, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.timestamp_millis());
    }
    Ok(zone.first_instant(units::date(text)?.and_time(NaiveTime::MIN)))
}

/// The largest records and objects that are read.
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
            return Err(entry.error("is 0: give a size such as `16MiB`".to_owned()));
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

/// The span of event time of one data file, in milliseconds. It divides a partition.
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

/// The largest share of rejects in a commit, 0 to 1.
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

/// The columns that have a bloom filter.
fn bloom_filters(table: &Table<'_>, columns: &[Column]) -> Result<Vec<String>, ConfigError> {
    let Some(entry) = table.get("bloom_filters") else {
        return Ok(Vec::new());
    };
    let names = entry.texts()?;
    for (i, name) in names.iter().enumerate() {
        let Some(column) = columns.iter().find(|column| column.name == *name) else {
            return Err(entry.error(columns::unknown(name, columns, &[])));
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
