//! Declared columns: their names, which every reader must be able to say, their types, paths and defaults.

use std::collections::BTreeMap;

use chrono::DateTime;
use serde_json::Value;
use toml::de::DeValue;

use super::ConfigError;
use super::table::{Entry, Table};
use crate::event::{self, Column, ColumnType, ENVELOPE, UnwrapStep};
use crate::layout::LONGEST_NAME;
use crate::names::nearest;
use crate::time::{TimeFormat, read_date};

/// The keys of a column.
pub(super) const COLUMN_KEYS: [&str; 7] = [
    "type",
    "path",
    "paths",
    "default",
    "required",
    "coerce",
    "time_formats",
];

/// The settings of a source that hold for each of its columns without a setting of its own.
#[derive(Default)]
pub(super) struct Defaults {
    coerce: bool,
    /// The formats, and whether each has a time of day.
    time_formats: Vec<(String, bool)>,
}

impl Defaults {
    /// The settings in the table of a source.
    pub(super) fn of(source: &Table<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            coerce: source
                .get("coerce")
                .map_or(Ok(false), |entry| entry.flag())?,
            time_formats: match source.get("time_formats") {
                Some(entry) => time_formats(&entry)?,
                None => Vec::new(),
            },
        })
    }

    /// Gives a column the settings that concern values of its type.
    fn apply(&self, column: &mut Column) {
        column.coerce = self.coerce && column.kind.is_coercible();
        let days_only = !column.kind.holds(|kind| *kind == ColumnType::Timestamp);
        if column.kind.has_times() {
            let formats = self.time_formats.iter();
            let formats = formats.filter(|(_, has_clock)| !(days_only && *has_clock));
            column.time_formats = formats.map(|(format, _)| format.clone()).collect();
        }
    }
}

/// The formats of an entry, and whether each has a time of day.
fn time_formats(entry: &Entry<'_>) -> Result<Vec<(String, bool)>, ConfigError> {
    let formats = entry.elements("formats such as \"%d/%m/%Y %H:%M:%S\"")?;
    let formats = formats.iter().map(|entry| {
        entry.read(|text| {
            let format = TimeFormat::new(text)?;
            Ok((text.to_owned(), format.has_clock()))
        })
    });
    formats.collect()
}

/// Refuses a name that some reader would change or refuse, and says how to write it.
pub(super) fn name(text: &str) -> Result<(), String> {
    checked(text).map_err(|message| format!("{message}{}", suggestion(text)))
}

/// Refuses a name that some reader would change or refuse.
fn checked(text: &str) -> Result<(), String> {
    let good = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !good {
        return Err(format!(
            "`{text}` is no name: names are lower-case letters, digits and `_`, beginning with a \
             letter, because Athena and Hive lower-case all names"
        ));
    }
    if text.len() > LONGEST_NAME {
        return Err(format!(
            "the name has {} bytes, more than the {LONGEST_NAME} that Redshift reads: shorten it",
            text.len()
        ));
    }
    Ok(())
}

/// The name in lower case, with `_` between words: `user_id` for `userId` and `user-id`.
fn snake_case(text: &str) -> String {
    let mut snake = String::new();
    for c in text.chars() {
        if c.is_ascii_uppercase() && snake.ends_with(|c: char| c.is_ascii_lowercase()) {
            snake.push('_');
        }
        snake.push(if c == '-' {
            '_'
        } else {
            c.to_ascii_lowercase()
        });
    }
    snake
}

/// The spelling to use instead: `user_id` for `userId`. Empty where the result would be no name either.
fn suggestion(text: &str) -> String {
    let snake = snake_case(text);
    if snake != text && checked(&snake).is_ok() {
        format!("; write `{snake}` (a column reads another member with `path = {text:?}`)")
    } else {
        String::new()
    }
}

/// The columns of a source, in the order written.
pub(super) fn declared(
    table: &Table<'_>,
    defaults: &Defaults,
    unwrap: &[UnwrapStep],
) -> Result<Vec<Column>, ConfigError> {
    let mut columns = Vec::new();
    for (name, entry) in table.in_order() {
        let column = column(name, &entry, defaults)?;
        if column.is_of_envelope() {
            of_envelope(&column, unwrap).map_err(|message| entry.error(message))?;
        }
        columns.push(column);
    }
    if columns.is_empty() {
        return Err(table.error_at(
            "event_time",
            "is missing: declare columns, such as `event_time = \"timestamp\"`".to_owned(),
        ));
    }
    Ok(columns)
}

/// Checks the path of a column that is a member of the envelope.
fn of_envelope(column: &Column, unwrap: &[UnwrapStep]) -> Result<(), String> {
    if unwrap.is_empty() {
        return Err(format!(
            "the path begins with `{ENVELOPE}`, but the records of this source lie in no envelope: say \
             with `unwrap` how they do"
        ));
    }
    if column.path.len() < 2 {
        return Err(format!(
            "the path `{ENVELOPE}` names no member: write such as `path = \"{ENVELOPE}.owner\"`"
        ));
    }
    Ok(())
}

/// The columns of a reference: names and types, in the order written.
pub(super) fn plain(table: &Table<'_>) -> Result<Vec<(String, ColumnType)>, ConfigError> {
    table
        .in_order()
        .into_iter()
        .map(|(column, entry)| {
            name(column).map_err(|message| entry.error(message))?;
            let kind = entry.read(|text| kind(text, |_| "declare the whole as json".to_owned()))?;
            Ok((column.to_owned(), kind))
        })
        .collect()
}

/// One declared column.
fn column(column: &str, entry: &Entry<'_>, defaults: &Defaults) -> Result<Column, ConfigError> {
    name(column).map_err(|message| entry.error(message))?;
    if event::reserved(column) {
        return Err(entry.error(format!(
            "`{column}` is rawmart's own: take another name and `path = {column:?}` (reserved: dt, \
             hour, extra, rule, record_sha256, raw_*, kept_*)"
        )));
    }
    let mut declared = Column {
        name: column.to_owned(),
        kind: ColumnType::String,
        path: vec![column.to_owned()],
        default: None,
        required: false,
        paths: BTreeMap::new(),
        coerce: false,
        time_formats: Vec::new(),
    };
    let table = match entry.value() {
        DeValue::String(_) => {
            declared.kind = entry.read(|text| kind(text, by_paths))?;
            defaults.apply(&mut declared);
            return Ok(declared);
        }
        DeValue::Table(_) => entry.table()?,
        other => {
            return Err(entry.wanted(
                "a type such as \"string\", or { type = \"string\", path = \"device.os\" }",
                other,
            ));
        }
    };
    table.only(&COLUMN_KEYS)?;
    declared.kind = table
        .need("type", "write such as `type = \"string\"`")?
        .read(|text| kind(text, by_paths))?;
    if let Some(entry) = table.get("path") {
        declared.path = member_path(&entry)?;
    }
    if let Some(entry) = table.get("paths") {
        add_field_paths(&mut declared, &entry.table()?, "")?;
    }
    if let Some(entry) = table.get("default") {
        let value = entry.json()?;
        if !fits(&value, &declared.kind) {
            return Err(entry.error(format!(
                "{value} is no value of type {}: write one, or take the default out",
                declared.kind
            )));
        }
        declared.default = Some(value);
    }
    if let Some(entry) = table.get("required") {
        declared.required = entry.flag()?;
    }
    defaults.apply(&mut declared);
    own_conversions(&mut declared, &table)?;
    Ok(declared)
}

/// The settings of a column that convert its values. They take the place of the settings of the source.
fn own_conversions(column: &mut Column, table: &Table<'_>) -> Result<(), ConfigError> {
    if let Some(entry) = table.get("coerce") {
        column.coerce = entry.flag()?;
        if column.coerce && !column.kind.is_coercible() {
            return Err(entry.error(format!(
                "nothing is converted to {}: take it out",
                column.kind
            )));
        }
    }
    if let Some(entry) = table.get("time_formats") {
        if !column.kind.has_times() {
            return Err(entry.error(format!(
                "a value of type {} is no time: take it out, or declare the column as timestamp or date",
                column.kind
            )));
        }
        let formats = time_formats(&entry)?;
        if !column.kind.holds(|kind| *kind == ColumnType::Timestamp)
            && let Some((format, _)) = formats.iter().find(|(_, has_clock)| *has_clock)
        {
            return Err(entry.error(format!(
                "`{format}` has a time of day, and the column is of type {}: declare it as timestamp, or give a \
                 format of days alone",
                column.kind
            )));
        }
        column.time_formats = formats.into_iter().map(|(format, _)| format).collect();
    }
    Ok(())
}

/// The member names of a path: text with dots, or a list where a name has a dot.
pub(super) fn member_path(entry: &Entry<'_>) -> Result<Vec<String>, ConfigError> {
    let path = match entry.value() {
        DeValue::String(text) => text.split('.').map(str::to_owned).collect(),
        _ => entry.texts()?,
    };
    if path.is_empty() || path.iter().any(String::is_empty) {
        return Err(entry.error(
            "has an empty member name: write \"device.os\", or [\"a.b\", \"c\"] where a name \
             holds a dot"
                .to_owned(),
        ));
    }
    Ok(path)
}

/// Adds the paths of fields below the dotted place `above`, which is empty for the fields of the outermost struct.
fn add_field_paths(column: &mut Column, table: &Table<'_>, above: &str) -> Result<(), ConfigError> {
    let places = column.kind.places();
    for (key, entry) in table.in_order() {
        let place = match above {
            "" => key.to_owned(),
            above => format!("{above}.{key}"),
        };
        if !places.contains(&place) {
            let known = match (
                places.as_slice(),
                nearest(&place, places.iter().map(String::as_str)),
            ) {
                ([], _) => format!("{} has no structs inside", column.kind),
                (_, Some(near)) => format!("is it `{near}`?"),
                (places, None) => format!("the fields are {}", places.join(", ")),
            };
            return Err(entry.error(format!(
                "`{place}` is no field of a struct in the type of `{}`: {known}",
                column.name
            )));
        }
        match entry.value() {
            DeValue::Table(_) => add_field_paths(column, &entry.table()?, &place)?,
            _ => {
                let path = member_path(&entry)?;
                let own = place.rsplit('.').next().unwrap_or_default();
                if path != [own] {
                    column.paths.insert(place, path);
                }
            }
        }
    }
    Ok(())
}

/// How a column reads the member `text` of an object inside it.
fn by_paths(text: &str) -> String {
    let field = snake_case(text);
    match field != text && checked(&field).is_ok() {
        true => format!(
            "the field reads that member with `paths = {{ {field} = {text:?} }}` beside the type of the column"
        ),
        false => "give the field another name, and its member name in `paths` beside the type of the column".to_owned(),
    }
}

/// The type that a text spells. `remedy` says how a field with a name that is not possible can be read.
fn kind(text: &str, remedy: fn(&str) -> String) -> Result<ColumnType, String> {
    let kind: ColumnType = text.parse().map_err(|error| format!("{error}"))?;
    // The parser folds case, but a member is found by the name as written.
    let ends = text.match_indices(':').map(|(at, _)| at);
    for end in ends {
        let before = text.get(..end).unwrap_or_default();
        let field = before.rsplit(['<', ',']).next().unwrap_or_default().trim();
        checked(field).map_err(|message| {
            let better = snake_case(field);
            let write = match better != field && checked(&better).is_ok() {
                true => format!("; write `{better}`"),
                false => String::new(),
            };
            format!("{message}{write}; {}", remedy(field))
        })?;
    }
    Ok(kind)
}

/// Whether a default can be a value of the type. The decoder decides about spellings when a run begins.
fn fits(value: &Value, kind: &ColumnType) -> bool {
    match (kind, value) {
        (ColumnType::Json, _) | (ColumnType::String, Value::String(_)) => true,
        (ColumnType::Boolean, Value::Bool(_)) => true,
        (ColumnType::Int, Value::Number(n)) => n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
        (ColumnType::BigInt, Value::Number(n)) => n.is_i64(),
        (ColumnType::Double | ColumnType::Decimal(..), Value::Number(_)) => true,
        (ColumnType::Decimal(..), Value::String(text)) => text.parse::<f64>().is_ok(),
        (ColumnType::Date, Value::String(text)) => read_date(text).is_some(),
        (ColumnType::Timestamp, Value::Number(_)) => true,
        (ColumnType::Timestamp, Value::String(text)) => DateTime::parse_from_rfc3339(text).is_ok(),
        (ColumnType::Array(item), Value::Array(values)) => values.iter().all(|v| fits(v, item)),
        (ColumnType::Map(item), Value::Object(members)) => members.values().all(|v| fits(v, item)),
        (ColumnType::Struct(fields), Value::Object(members)) => members.iter().all(|(name, v)| {
            fields
                .iter()
                .any(|(field, kind)| field == name && fits(v, kind))
        }),
        _ => false,
    }
}

/// The message about a name that is no column. `system` are the columns that may be named besides declared ones.
pub(super) fn unknown(name: &str, columns: &[Column], system: &[&str]) -> String {
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
