//! Declared columns: their names, which every reader must be able to say, their types, paths and defaults.

use chrono::DateTime;
use serde_json::Value;
use toml::de::DeValue;

use super::ConfigError;
use super::table::{Entry, Table};
use crate::event::{self, Column, ColumnType};
use crate::layout::LONGEST_NAME;
use crate::names::nearest;
use crate::time::read_date;

/// The keys of a column.
pub(super) const COLUMN_KEYS: [&str; 4] = ["type", "path", "default", "required"];

/// Refuses a name that some reader would change or refuse.
pub(super) fn name(text: &str) -> Result<(), String> {
    let good = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !good {
        return Err(format!(
            "`{text}` is no name: names are lower-case letters, digits and `_`, beginning with a \
             letter, because Athena and Hive lower-case all names{}",
            suggestion(text)
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

/// The spelling to use instead: `user_id` for `userId`. Empty where the result would be no name either.
fn suggestion(text: &str) -> String {
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
    if snake != text && name(&snake).is_ok() {
        format!("; write `{snake}` (a column reads another member with `path = {text:?}`)")
    } else {
        String::new()
    }
}

/// The columns of a source, in the order written.
pub(super) fn declared(table: &Table<'_>) -> Result<Vec<Column>, ConfigError> {
    let mut columns = Vec::new();
    for (name, entry) in table.in_order() {
        columns.push(column(name, &entry)?);
    }
    if columns.is_empty() {
        return Err(table.error_at(
            "event_time",
            "is missing: declare columns, such as `event_time = \"timestamp\"`".to_owned(),
        ));
    }
    Ok(columns)
}

/// The columns of a reference: names and types, in the order written.
pub(super) fn plain(table: &Table<'_>) -> Result<Vec<(String, ColumnType)>, ConfigError> {
    table
        .in_order()
        .into_iter()
        .map(|(column, entry)| {
            name(column).map_err(|message| entry.error(message))?;
            Ok((column.to_owned(), entry.read(kind)?))
        })
        .collect()
}

/// One declared column.
fn column(column: &str, entry: &Entry<'_>) -> Result<Column, ConfigError> {
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
    };
    let table = match entry.value() {
        DeValue::String(_) => {
            declared.kind = entry.read(kind)?;
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
        .read(kind)?;
    if let Some(entry) = table.get("path") {
        declared.path = match entry.value() {
            DeValue::String(text) => text.split('.').map(str::to_owned).collect(),
            _ => entry.texts()?,
        };
        if declared.path.is_empty() || declared.path.iter().any(String::is_empty) {
            return Err(entry.error(
                "has an empty member name: write \"device.os\", or [\"a.b\", \"c\"] where a name \
                 holds a dot"
                    .to_owned(),
            ));
        }
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
    Ok(declared)
}

/// The type that a text spells.
fn kind(text: &str) -> Result<ColumnType, String> {
    let kind: ColumnType = text.parse().map_err(|error| format!("{error}"))?;
    // The parser folds case, but a member is found by the name as written.
    let ends = text.match_indices(':').map(|(at, _)| at);
    for end in ends {
        let before = text.get(..end).unwrap_or_default();
        let field = before.rsplit(['<', ',']).next().unwrap_or_default().trim();
        name(field).map_err(|message| {
            format!("{message}; or declare the member as a column of its own, or the whole as json")
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
