//! Tables and values of the file that know where they stand, so that every error can say where.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::ConfigError;
use crate::names::nearest;

/// A table of the file, and its dotted key.
pub(super) struct Table<'a> {
    file: &'a Path,
    at: String,
    entries: &'a DeTable<'a>,
}

/// One value of the file, and its dotted key.
pub(super) struct Entry<'a> {
    file: &'a Path,
    at: String,
    value: &'a DeValue<'a>,
}

impl<'a> Table<'a> {
    /// The whole file.
    pub(super) fn top(file: &'a Path, entries: &'a DeTable<'a>) -> Self {
        Self {
            file,
            at: String::new(),
            entries,
        }
    }

    /// Refuses keys that are not among `known`.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), ConfigError> {
        for (key, entry) in self.in_order() {
            if known.contains(&key) {
                continue;
            }
            return Err(entry.error(if looks_secret(key) {
                "credentials never come from this file: S3 uses the standard AWS chain \
                 (environment, profile, SSO, web identity, container, instance); take it out"
                    .to_owned()
            } else {
                match nearest(key, known.iter().copied()) {
                    Some(near) => format!("unknown key, is it `{near}`?"),
                    None => format!("unknown key; known here: {}", known.join(", ")),
                }
            }));
        }
        Ok(())
    }

    /// The entries in the order written.
    pub(super) fn in_order(&self) -> Vec<(&'a str, Entry<'a>)> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries
            .into_iter()
            .map(|(key, value)| {
                let key = key.get_ref().as_ref();
                (key, self.entry(key, value.get_ref()))
            })
            .collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of a key.
    pub(super) fn get(&self, key: &str) -> Option<Entry<'a>> {
        self.entries
            .get(key)
            .map(|value| self.entry(key, value.get_ref()))
    }

    /// The entry of a key, or an error that says what to write.
    pub(super) fn need(&self, key: &str, remedy: &str) -> Result<Entry<'a>, ConfigError> {
        self.get(key)
            .ok_or_else(|| self.error_at(key, format!("is missing: {remedy}")))
    }

    /// The error of a key of this table, which may be missing.
    pub(super) fn error_at(&self, key: &str, message: String) -> ConfigError {
        ConfigError::Key {
            file: self.file.to_owned(),
            key: dotted(&self.at, key),
            message,
        }
    }

    /// The value that `read` makes of the entry's text, or `default` without an entry.
    pub(super) fn text_or<T>(
        &self,
        key: &str,
        default: T,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        match self.get(key) {
            Some(entry) => entry.read(read),
            None => Ok(default),
        }
    }

    fn entry(&self, key: &str, value: &'a DeValue<'a>) -> Entry<'a> {
        Entry {
            file: self.file,
            at: dotted(&self.at, key),
            value,
        }
    }
}

impl<'a> Entry<'a> {
    /// The error of this entry.
    pub(super) fn error(&self, message: String) -> ConfigError {
        ConfigError::Key {
            file: self.file.to_owned(),
            key: self.at.clone(),
            message,
        }
    }

    /// The value as TOML.
    pub(super) fn value(&self) -> &'a DeValue<'a> {
        self.value
    }

    /// An element of the array that stands here, from 1.
    pub(super) fn element(&self, number: usize, value: &'a DeValue<'a>) -> Self {
        Self {
            file: self.file,
            at: format!("{}[{number}]", self.at),
            value,
        }
    }

    /// The value as text.
    pub(super) fn text(&self) -> Result<&'a str, ConfigError> {
        match self.value {
            DeValue::String(text) => Ok(text),
            other => Err(self.wanted("text in quotes", other)),
        }
    }

    /// The value that `read` makes of the text. An error of `read` becomes an error of this entry.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        read(self.text()?).map_err(|message| self.error(message))
    }

    /// A date as text, whether it is written in quotes or not.
    pub(super) fn date_text(&self) -> Result<String, ConfigError> {
        match self.value {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Datetime(time) => Ok(time.to_string()),
            other => Err(self.wanted("a date such as \"2019-04-02\"", other)),
        }
    }

    /// The value as true or false.
    pub(super) fn flag(&self) -> Result<bool, ConfigError> {
        match self.value {
            DeValue::Boolean(flag) => Ok(*flag),
            other => Err(self.wanted("`true` or `false`", other)),
        }
    }

    /// The value as an integer.
    pub(super) fn integer(&self) -> Result<i64, ConfigError> {
        match integer(self.value) {
            Some(number) => Ok(number),
            None => Err(self.wanted("a whole number", self.value)),
        }
    }

    /// The value as a table.
    pub(super) fn table(&self) -> Result<Table<'a>, ConfigError> {
        match self.value {
            DeValue::Table(entries) => Ok(Table {
                file: self.file,
                at: self.at.clone(),
                entries,
            }),
            other => Err(self.wanted("a table", other)),
        }
    }

    /// The elements of an array of `of`. Errors number them from 1.
    pub(super) fn elements(&self, of: &str) -> Result<Vec<Entry<'a>>, ConfigError> {
        match self.value {
            DeValue::Array(values) => Ok(values
                .iter()
                .enumerate()
                .map(|(i, value)| self.element(i + 1, value.get_ref()))
                .collect()),
            other => Err(self.wanted(&format!("a list of {of} in brackets"), other)),
        }
    }

    /// The texts of an array.
    pub(super) fn texts(&self) -> Result<Vec<String>, ConfigError> {
        self.elements("texts")?
            .iter()
            .map(|entry| entry.text().map(str::to_owned))
            .collect()
    }

    /// One text, or several in brackets.
    pub(super) fn one_or_more(&self) -> Result<Vec<String>, ConfigError> {
        match self.value {
            DeValue::String(text) => Ok(vec![text.to_string()]),
            _ => self.texts(),
        }
    }

    /// The value as JSON. A date or time of TOML becomes its text.
    pub(super) fn json(&self) -> Result<serde_json::Value, ConfigError> {
        json(self.value).ok_or_else(|| {
            self.error("is no JSON value: numbers are finite and fit 64 bits".to_owned())
        })
    }

    /// The error of a value of another kind than the `wanted` one.
    pub(super) fn wanted(&self, wanted: &str, found: &DeValue<'_>) -> ConfigError {
        let found = match found {
            DeValue::String(_) => "text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.error(format!("must be {wanted}, not {found}"))
    }
}

/// The value that a text names, one of `choices`.
pub(super) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
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

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// The value as JSON; `None` for a number that JSON does not have.
fn json(value: &DeValue<'_>) -> Option<serde_json::Value> {
    Some(match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(_) => integer(value)?.into(),
        DeValue::Float(number) => {
            let number: f64 = number.as_str().parse().ok()?;
            serde_json::Number::from_f64(number)?.into()
        }
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Datetime(time) => time.to_string().into(),
        DeValue::Array(values) => values
            .iter()
            .map(|value| json(value.get_ref()))
            .collect::<Option<Vec<_>>>()?
            .into(),
        DeValue::Table(entries) => {
            let mut members = serde_json::Map::new();
            for (key, value) in entries {
                members.insert(key.get_ref().to_string(), json(value.get_ref())?);
            }
            members.into()
        }
    })
}

/// The dotted key of `key` in the table `at`.
fn dotted(at: &str, key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let key = if !key.is_empty() && key.chars().all(bare) {
        key.to_owned()
    } else {
        format!("{key:?}")
    };
    if at.is_empty() {
        key
    } else {
        format!("{at}.{key}")
    }
}

/// Whether a key looks like the name of a secret.
fn looks_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    [
        "secret",
        "access_key",
        "password",
        "credential",
        "session_token",
    ]
    .iter()
    .any(|part| key.contains(part))
}
