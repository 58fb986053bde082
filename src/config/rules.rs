//! The duplicate rules of a source.

use chrono::NaiveDate;
use toml::de::DeValue;

use super::table::{Table, choice};
use super::{ConfigError, Mode, Rule, columns, units};
use crate::event::{Column, EXTRA, RAW_RECORD, RECORD_SHA256};

/// The keys of a duplicate rule.
pub(super) const RULE_KEYS: [&str; 7] = ["name", "key", "within", "mode", "when", "since", "until"];

/// The rules of a source, in the order written.
pub(super) fn rules(table: &Table<'_>, columns: &[Column]) -> Result<Vec<Rule>, ConfigError> {
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
    let key = key(table, columns)?;
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
        let day = units::date(&entry.date_text()?).map_err(|message| entry.error(message))?;
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

/// The parts of a rule's key: columns or SQL expressions.
fn key(table: &Table<'_>, declared: &[Column]) -> Result<Vec<String>, ConfigError> {
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
        let known = declared.iter().any(|column| column.name == folded)
            || KEY_SYSTEM.contains(&folded.as_str());
        if is_identifier(&folded) && !known {
            return Err(entry.error(columns::unknown(part.trim(), declared, &KEY_SYSTEM)));
        }
    }
    Ok(key)
}

/// The columns that a key may name besides declared ones.
const KEY_SYSTEM: [&str; 3] = [RECORD_SHA256, RAW_RECORD, EXTRA];

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// Whether an SQL expression names a column outside of quoted text.
pub(super) fn names(expression: &str, column: &str) -> bool {
    let outside: String = expression
        .split('\'')
        .step_by(2)
        .collect::<Vec<_>>()
        .join(" ");
    outside
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .any(|word| word.eq_ignore_ascii_case(column))
}
