//! The advice where a SELECT fails over a column of a reference whose type was inferred from its values.

use arrow::datatypes::Schema;

use crate::catalog::columns;
use crate::config::{Reference, ReferenceFormat};

/// Words of messages about values and types that do not go together.
const ABOUT_TYPES: [&str; 5] = [
    "cast",
    "compare",
    "coerce",
    "calculate",
    "no function matches",
];

/// The advice for `error`, if it may come from inferred types: all codes of a reference may be digits, and then a code of
/// the events, or of a later export, has a letter. `sql` is the SELECT, and `read` are the references that it reads,
/// with their columns as they were read. Empty where no inferred type is concerned.
pub fn of_inferred_types<'a>(
    read: impl Iterator<Item = (&'a Reference, &'a Schema)>,
    sql: &str,
    error: &str,
) -> String {
    let error = error.to_lowercase();
    if !ABOUT_TYPES.iter().any(|words| error.contains(words)) {
        return String::new();
    }
    let sql = sql.to_lowercase();
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let words: Vec<&str> = sql.split(|c| !is_part(c)).collect();
    let inferred = read.filter(|(reference, _)| {
        reference.columns.is_none() && reference.format != ReferenceFormat::Parquet
    });
    let advice = inferred.filter_map(|(reference, schema)| {
        let columns = columns(schema);
        let is_concerned = |(name, kind): &&(String, String)| {
            kind != "string" && words.contains(&name.as_str())
        };
        let concerned: Vec<&(String, String)> = columns.iter().filter(is_concerned).collect();
        // The message may say which type a text was cast to.
        let of_type = |(_, kind): &&&(String, String)| error.contains(&format!("{kind} type"));
        let told: Vec<&&(String, String)> = match concerned.iter().any(|column| of_type(&column)) {
            true => concerned.iter().filter(of_type).collect(),
            false => concerned.iter().collect(),
        };
        if told.is_empty() {
            return None;
        }
        let said = told.iter().map(|(name, kind)| format!("`{name}` as {kind}"));
        let said: Vec<String> = said.collect();
        let text = |name: &String| told.iter().any(|(other, _)| other == name);
        let all = columns.iter().map(|(name, kind)| match text(name) {
            true => format!("{name} = \"string\""),
            false => format!("{name} = \"{kind}\""),
        });
        let all: Vec<String> = all.take(MOST_SHOWN).collect();
        let more = if columns.len() > MOST_SHOWN { ", …" } else { "" };
        let name = &reference.name;
        Some(format!(
            "; the reference {name} was read with {}, inferred from its values: if such a column is text, write \
             `columns = {{ {}{more} }}` in [references.{name}]",
            said.join(" and "),
            all.join(", ")
        ))
    });
    advice.collect()
}

/// How many columns the advice spells out.
const MOST_SHOWN: usize = 12;
