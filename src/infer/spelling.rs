//! Names and texts as the configuration and SQL spell them.

use std::fmt::Write;

use crate::event::reserved;
use crate::layout::LONGEST_NAME;

/// Words that SQL reads as something else than the name of a column.
const KEYWORDS: [&str; 42] = [
    "all",
    "and",
    "as",
    "between",
    "by",
    "case",
    "cast",
    "cross",
    "current_date",
    "current_time",
    "date",
    "desc",
    "distinct",
    "end",
    "exists",
    "false",
    "from",
    "full",
    "group",
    "having",
    "in",
    "inner",
    "interval",
    "is",
    "join",
    "left",
    "like",
    "limit",
    "not",
    "null",
    "on",
    "or",
    "order",
    "right",
    "select",
    "table",
    "time",
    "timestamp",
    "true",
    "union",
    "user",
    "where",
];

/// A name of lower-case letters, digits and `_` for a member: `user_id` for `userId`, `event_id` for `eventID`.
pub fn column_name(member: &str) -> String {
    let letters: Vec<char> = member.chars().collect();
    let mut name = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| letters.get(at));
        let after = letters.get(at + 1);
        let begins_word = letter.is_ascii_uppercase()
            && before.is_some_and(|before| {
                before.is_ascii_lowercase()
                    || before.is_ascii_digit()
                    || (before.is_ascii_uppercase() && after.is_some_and(char::is_ascii_lowercase))
            });
        if begins_word && !name.ends_with('_') {
            name.push('_');
        }
        match letter.to_ascii_lowercase() {
            letter if letter.is_ascii_lowercase() || letter.is_ascii_digit() => name.push(letter),
            _ if !name.ends_with('_') => name.push('_'),
            _ => {}
        }
    }
    let name = name.trim_matches('_');
    let name = match name.chars().next() {
        Some(first) if first.is_ascii_lowercase() && !reserved(name) => name.to_owned(),
        Some(_) => format!("field_{name}"),
        None => "field".to_owned(),
    };
    name.chars().take(LONGEST_NAME - 8).collect()
}

/// The name of a table for the last part of a prefix.
pub fn table_name(prefix: &str) -> String {
    let mut parts = prefix.trim_end_matches('/').rsplit('/');
    let part = parts.find(|part| part.bytes().any(|b| b.is_ascii_alphabetic()));
    match part.map(column_name) {
        Some(name) if !KEYWORDS.contains(&name.as_str()) && name != "raw" => {
            name.chars().take(40).collect()
        }
        _ => "events".to_owned(),
    }
}

/// Whether a name can be declared as it is.
pub fn is_name(member: &str) -> bool {
    column_name(member) == member
}

/// A basic string of TOML.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() || is_invisible(c) => {
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Text for a comment: one line, without characters that a terminal or an editor obeys.
pub fn comment(text: &str) -> String {
    text.chars()
        .map(|c| match c.is_control() || is_invisible(c) {
            true => '?',
            false => c,
        })
        .collect()
}

/// Whether a character changes the direction of text or ends a line.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The name of a column in SQL.
pub fn sql_name(column: &str) -> String {
    match KEYWORDS.contains(&column) {
        true => format!("\"{column}\""),
        false => column.to_owned(),
    }
}

/// A share as people read it: `99.2 %`.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 || part >= whole {
        return "100 %".to_owned();
    }
    let share = part as f64 * 100.0 / whole as f64;
    match share {
        share if share > 99.9 => "99.9 %".to_owned(),
        share if part > 0 && share < 0.01 => "less than 0.01 %".to_owned(),
        share if share < 1.0 => format!("{share:.2} %"),
        share => format!("{share:.1} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_has_a_name_that_every_reader_can_say() {
        for (member, name) in [
            ("user_id", "user_id"),
            ("userId", "user_id"),
            ("eventID", "event_id"),
            ("userIPAddress", "user_ip_address"),
            ("AWSRegion", "aws_region"),
            ("a.b-c d", "a_b_c_d"),
            ("dt", "field_dt"),
            ("raw_x", "field_raw_x"),
            ("1st", "field_1st"),
            ("단지", "field"),
            ("\u{1b}[2J", "field_2_j"),
        ] {
            assert_eq!(column_name(member), name, "{member:?}");
        }
        assert_eq!(column_name(&"x".repeat(500)).len(), LONGEST_NAME - 8);
        for (prefix, name) in [
            ("s3://b/app-events/", "app_events"),
            ("fixtures/raw", "events"),
            ("s3://b/2024/", "b"),
            ("/", "events"),
        ] {
            assert_eq!(table_name(prefix), name, "{prefix}");
        }
    }

    #[test]
    fn a_text_of_toml_reads_back() {
        for text in ["a\"b\\c", "\u{1b}[31m\n\u{202e}", "단지", ""] {
            let line = format!("x = {}", quoted(text));
            assert!(!line.contains(['\n', '\u{1b}', '\u{202e}']));
            let read: toml::Table = line.parse().unwrap();
            assert_eq!(read["x"].as_str(), Some(text));
        }
        assert_eq!(percent(3, 3), "100 %");
        assert_eq!(percent(992, 1_000), "99.2 %");
        assert_eq!(percent(1, 100_000), "less than 0.01 %");
        assert_eq!(percent(99_999, 100_000), "99.9 %");
    }
}
