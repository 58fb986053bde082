//! The engine's errors in our words: what is wrong, on the line that the engine names, and how to write the SELECT so
//! that it can be carried out. `failure` adds the places that only the SELECT itself shows.

use std::path::Path;

use datafusion::common::{DataFusionError, SchemaError};
use datafusion::sql::sqlparser::parser::ParserError;

use super::error::{MartError, line_of, one_line, root, short};
use super::phrases;
use crate::names::{nearest, slips};

/// Functions that are calculated over a window only.
const WINDOWS: &[&str] = &[
    "row_number",
    "rank",
    "dense_rank",
    "percent_rank",
    "cume_dist",
    "ntile",
    "lag",
    "lead",
];

impl MartError {
    /// An error of planning, with the line that DataFusion points at.
    pub(super) fn planning(file: &Path, error: &DataFusionError) -> Self {
        let line = line_of(error);
        let first = root(error);
        if let DataFusionError::SchemaError(inner, _) = first
            && let SchemaError::FieldNotFound {
                field,
                valid_fields,
            } = inner.as_ref()
        {
            let made = Self::new(
                file,
                line,
                format!("there is no column `{}`", field.flat_name()),
            );
            let names = || valid_fields.iter().map(|column| column.name.as_str());
            return match nearest(&field.name, names()) {
                Some(near) => made.hint(format!("is it `{near}`?")),
                None => match distinct(names()).as_slice() {
                    [] => made,
                    names => made.hint(format!("the columns here are {}", names.join(", "))),
                },
            };
        }
        planning(file, line, &one_line(&first.strip_backtrace()))
    }

    /// An error of the SQL parser. Its line is in its text; an error without a line is at the end of `sql`.
    pub(super) fn syntax(file: &Path, sql: &str, error: &DataFusionError) -> Self {
        let text = match error.find_root() {
            DataFusionError::SQL(inner, _)
                if matches!(inner.as_ref(), ParserError::RecursionLimitExceeded) =>
            {
                return Self::new(file, None, "the SQL nests too many levels deep")
                    .hint("move parts of it into WITH queries");
            }
            DataFusionError::SQL(inner, _) => inner.to_string(),
            other => other.strip_backtrace(),
        };
        let text = text.strip_prefix("sql parser error: ").unwrap_or(&text);
        match text.rsplit_once(" at Line: ") {
            Some((message, place)) => {
                let line = place
                    .split(',')
                    .next()
                    .and_then(|line| line.trim().parse().ok());
                // The parser knows frames without EXCLUDE.
                if message.contains("Expected: ), found: EXCLUDE") {
                    return Self::new(file, line, "EXCLUDE in a frame is not possible in a mart")
                        .hint("subtract the rows that are left out, such as `sum(x) OVER (…) - coalesce(x, 0)`");
                }
                Self::new(
                    file,
                    line,
                    format!("the SQL does not parse: {}", unparsed(message)),
                )
            }
            None => Self::new(
                file,
                Some(sql.trim_end().lines().count()),
                format!("the SQL does not parse: {}", unparsed(text)),
            ),
        }
    }
}

/// The names, each once.
fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

/// A message of the parser in plain words.
fn unparsed(message: &str) -> String {
    let message = one_line(message);
    if let Some(word) = between(
        &message,
        "No infix parser for token Word(Word { value: \"",
        "\"",
    ) {
        return format!("`{word}` is not expected here");
    }
    message.replace("found: EOF", "found: the end of the SQL")
}

/// The line of the SQL that an error of planning is about, where the engine names none: the only line with the name that
/// the message has in backticks, or with the keyword that it begins with.
pub(super) fn line_of_named(sql: &str, message: &str) -> Option<usize> {
    let name = between(message, "`", "`").map(|name| name.rsplit('.').next().unwrap_or(name));
    let keyword = message
        .split([' ', ':', '('])
        .next()
        .filter(|word| word.len() >= 5 && word.chars().all(|letter| letter.is_ascii_uppercase()));
    let word = name.or(keyword)?.to_ascii_lowercase();
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    let has = |line: &str| {
        let code = line.split("--").next().unwrap_or_default();
        let code = code.to_ascii_lowercase();
        code.split(|letter| !is_part(letter))
            .any(|part| part == word)
    };
    let mut lines = sql.lines().enumerate().filter(|(_, line)| has(line));
    match (lines.next(), lines.next()) {
        (Some((line, _)), None) => Some(line + 1),
        _ => None,
    }
}

/// An error of planning whose text is `text`.
pub(super) fn planning(file: &Path, line: Option<usize>, text: &str) -> MartError {
    if let Some(name) = between(text, "Invalid function '", "'") {
        let made = MartError::new(file, line, format!("there is no function `{name}`"));
        let suggested = between(text, "Did you mean '", "'");
        return match function_hint(name, suggested) {
            Some(hint) => made.hint(hint),
            None => made,
        };
    }
    if let Some((message, hint)) = own(text) {
        let made = MartError::new(file, line, short(&message));
        return match hint {
            Some(hint) => made.hint(hint),
            None => made,
        };
    }
    let said = phrases::of_planning(text).map(|said| (said.message, Some(said.hint)));
    let (message, hint) = said.or_else(|| types(text)).unwrap_or_else(|| {
        let found = running(text);
        (found.message, found.hint)
    });
    let made = MartError::new(file, line, short(&message));
    match hint {
        Some(hint) => made.hint(hint),
        None => made,
    }
}

/// An error of the engine room's own functions, which is in our words: the message, and what to write.
fn own(text: &str) -> Option<(String, Option<String>)> {
    let coercion = text.split_once("user-defined coercion failed with: Error during planning: ");
    let own = match coercion {
        Some((_, rest)) => rest.split(" No function matches").next()?,
        None => plain(text),
    };
    if coercion.is_none() && !own.starts_with("UNNEST ") {
        return None;
    }
    let own = phrases::in_words(own.trim_end_matches('.').trim());
    Some(match own.split_once(": write ") {
        Some((message, hint)) => (message.to_owned(), Some(format!("write {hint}"))),
        None => {
            let is_of_types = own.contains("does not take these types");
            (
                own,
                is_of_types.then(|| "give each argument its type with CAST".to_owned()),
            )
        }
    })
}

/// The text of an error without the names of the engine's kinds of errors.
pub(super) fn plain(text: &str) -> &str {
    const KINDS: [&str; 14] = [
        "Error during planning: ",
        "Execution error: ",
        "Internal error: ",
        "External error: ",
        "Optimizer rule 'simplify_expressions' failed caused by ",
        "This feature is not implemented: ",
        "Arrow error: ",
        "Parser error: ",
        "Cast error: ",
        "Compute error: ",
        "Invalid argument error: ",
        "Arithmetic overflow: ",
        "Parquet error: ",
        "SQL error: ",
    ];
    let mut text = text;
    while let Some(rest) = KINDS.iter().find_map(|kind| text.strip_prefix(kind)) {
        text = rest;
    }
    text
}

/// An error about types that do not go together, and what to write.
fn types(text: &str) -> Option<(String, Option<&'static str>)> {
    const CAST: &str = "give both one type with CAST";
    const COMPARE: &str = "write a comparison, such as `x > 0` or `x IS NOT NULL`";
    let words = phrases::in_words(text);
    let part = |from: &str, to: &str| between(&words, from, to).map(str::to_owned);
    let rest = |from: &str| words.split_once(from).map(|(_, rest)| rest.to_owned());
    if let Some(operands) = part("Cannot coerce arithmetic expression ", " to valid types")
        .or_else(|| part("Cannot get result type for temporal operation ", ": "))
    {
        return Some((format!("cannot calculate {operands}"), None));
    }
    if let Some(branches) = part("Failed to coerce then ", " to common types in CASE") {
        let message = format!("the branches of CASE have no common type: then {branches}");
        let hint = "write the same type in each branch: `THEN 1 ELSE 0`, `THEN true ELSE false`, or a CAST";
        return Some((message, Some(hint)));
    }
    if let Some(values) = part("Failed to coerce case ", " to common types in CASE") {
        let message =
            format!("the value after CASE cannot be compared with all after WHEN: {values}");
        return Some((message, Some(CAST)));
    }
    if let Some(sides) = rest("Cannot infer common argument type for logical boolean operation ") {
        return Some((
            format!("AND and OR need boolean on both sides, not {sides}"),
            Some(COMPARE),
        ));
    }
    let compared = [
        rest("Cannot infer common argument type for comparison operation "),
        rest("Can not find compatible types to compare "),
        part(
            "There isn't a common type to coerce ",
            " in LIKE expression",
        ),
        part("Failed to coerce types ", " in BETWEEN expression"),
        rest("Cannot infer common argument type for regex operation "),
        rest("Cannot infer common type for bitwise operation "),
    ];
    if let Some(sides) = compared.into_iter().flatten().next() {
        return Some((format!("cannot compare or combine {sides}"), Some(CAST)));
    }
    if let Some(kinds) = rest("Incompatible inputs for Union: Previous inputs were of type ") {
        let kinds = kinds.replacen(", but got incompatible type", " and", 1);
        let kinds = kinds
            .replacen(" on column ", ": column ", 1)
            .replace('\'', "`");
        let message = format!("the SELECTs of UNION give different types, {kinds}");
        return Some((
            message,
            Some("give the column one type with CAST in each SELECT"),
        ));
    }
    if let Some(kind) = rest("Join condition must be boolean type, but got ") {
        return Some((
            format!("the condition after ON is {kind}, not boolean"),
            Some(COMPARE),
        ));
    }
    if words.contains("Cannot create filter with non-boolean predicate ") {
        let kind = rest(" returning ").unwrap_or_default();
        return Some((
            format!("the condition is {kind}, not boolean"),
            Some(COMPARE),
        ));
    }
    if let Some(kinds) =
        rest("Unsupported CAST from ").or_else(|| rest("Unsupported TRY_CAST from "))
    {
        return Some((format!("there is no CAST from {kinds}"), None));
    }
    arguments(&words)
}

/// An error about the arguments of a function.
fn arguments(words: &str) -> Option<(String, Option<&'static str>)> {
    const CAST: &str = "give each argument its type with CAST";
    if let Some(call) = between(words, "the given name and argument types '", "'.") {
        let message = match call.split_once('(') {
            Some((name, ")")) => return Some((format!("`{name}` needs arguments"), None)),
            Some((name, given)) => {
                format!("`{name}` does not take these types: ({given}")
            }
            None => format!("`{call}` does not take these types"),
        };
        return Some((message, Some(CAST)));
    }
    let name = between(words, "Function '", "'")?;
    let given = between(words, "(DataType: ", ").");
    given.map(|given| (format!("`{name}` does not take {given}"), Some(CAST)))
}

/// An error of a value, while rows are evaluated.
pub(super) struct Running {
    pub message: String,
    pub hint: Option<&'static str>,
    /// Functions and operators that can fail in this way.
    pub calls: &'static [&'static str],
}

/// The least and the last time of a function that counts nanoseconds.
const NANOSECONDS: &str = "the function takes times from 1677-09-21 to 2262-04-11, because it counts nanoseconds; leave \
     out others, such as `CASE WHEN t < TIMESTAMP '2262-01-01' THEN … END`, or take parts of the time with \
     `date_part` or `CAST(t AS date)`";

/// The functions and operators that take a regular expression.
const WITH_PATTERN: &[&str] = &[
    "regexp_match",
    "regexp_like",
    "regexp_replace",
    "regexp_count",
    "regexp_instr",
    "~",
    "!~",
    "~*",
];

/// Errors of values by words in them: the message in place of the engine's where it says too little, what to do,
/// and the functions and operators that can fail in this way.
type Known = (
    &'static str,
    Option<&'static str>,
    Option<&'static str>,
    &'static [&'static str],
);

const RUNNING: &[Known] = &[
    (
        "Divide by zero",
        Some("cannot divide by zero"),
        Some("write `x / nullif(y, 0)`, which gives NULL there"),
        &["/", "%", "mod"],
    ),
    (
        "to Timestamp(ns): converted value exceeds",
        None,
        Some(NANOSECONDS),
        &[
            "date_bin",
            "date_trunc",
            "to_char",
            "to_timestamp",
            "to_date",
            "cast",
        ],
    ),
    (
        "Timestamp out of range",
        Some("a time is beyond what a timestamp holds, years -262143 to 262142"),
        None,
        &["+", "-"],
    ),
    ("Timestamp ", None, Some(NANOSECONDS), &["date_trunc"]),
    (
        "Date arithmetic overflow",
        Some("a date is beyond what a date holds, years -262143 to 262142"),
        None,
        &["+", "-"],
    ),
    (
        "Error parsing timestamp from ",
        None,
        Some("a time is written `2024-03-01T12:00:00Z`; TRY_CAST gives NULL where text is no time"),
        &["cast", "to_timestamp", "to_date", "date_trunc"],
    ),
    (
        "Cannot cast string ",
        None,
        Some("TRY_CAST gives NULL there"),
        &["cast", "||"],
    ),
    (
        "Can't cast value ",
        None,
        Some("CAST to a type with more digits, or TRY_CAST, which gives NULL there"),
        &["cast"],
    ),
    (
        "Overflow happened on: ",
        None,
        Some("a bigint ends at 9223372036854775807: CAST one operand to decimal(38, 0) or double"),
        &["+", "-", "*", "abs"],
    ),
    (
        "FACTORIAL",
        None,
        Some("the factorial of 20 is the largest that a bigint holds"),
        &["factorial"],
    ),
    (" does not fit bigint", None, None, &["sum"]),
    ("square root of a negative", None, None, &["sqrt"]),
    ("Unicode scalar value", None, None, &["chr"]),
    ("negative count", None, None, &["substr", "substring"]),
    ("field position must not", None, None, &["split_part"]),
    (" value '", None, None, &["make_date", "make_time"]),
    ("Date part ", None, None, &["date_part", "datepart"]),
    ("date_trunc granularity", None, None, &["date_trunc"]),
    ("Failed to decode", None, None, &["decode"]),
    ("nvalid timezone", None, None, &["at time zone"]),
    (
        "Percentile value must",
        None,
        None,
        &["percentile_cont", "approx_percentile_cont"],
    ),
    (
        "input schema only has",
        None,
        None,
        &["percentile_cont", "approx_percentile_cont", "string_agg"],
    ),
    ("string_agg delimiter", None, None, &["string_agg"]),
    ("COUNT DISTINCT with multiple", None, None, &["count"]),
    ("Unable to cast to date", None, None, &["to_date"]),
    ("built-in encoding", None, None, &["encode", "decode"]),
    ("built-in digest", None, None, &["digest"]),
    ("map key must be unique", None, None, &["map", "make_map"]),
    ("map requires key", None, None, &["map", "make_map"]),
    (
        "GCD(",
        None,
        Some("the result does not fit bigint"),
        &["gcd"],
    ),
    (
        "LCM(",
        None,
        Some("the result does not fit bigint"),
        &["lcm"],
    ),
    ("array_element", None, None, &["array_element"]),
    (
        "Scalar subquery returned more than one row",
        Some("a sub-query in the place of a value gives more than one row"),
        Some("aggregate it, such as `(SELECT max(x) FROM …)`, or write a JOIN"),
        &["sub-query"],
    ),
    ("egular expression", None, None, WITH_PATTERN),
    ("regex parse error", None, None, WITH_PATTERN),
];

/// An error of the engine while rows are evaluated, in our words.
pub(super) fn running(text: &str) -> Running {
    let known = RUNNING.iter().find(|(words, ..)| text.contains(words));
    if let Some(said) = phrases::of_value(text) {
        return Running {
            message: said.message,
            hint: Some(said.hint),
            calls: known.map_or(&[], |(.., calls)| *calls),
        };
    }
    let words = phrases::in_words(plain(text));
    match known {
        Some((_, message, hint, calls)) => Running {
            message: message.map_or(words, str::to_owned),
            hint: *hint,
            calls,
        },
        None => Running {
            message: words,
            hint: None,
            calls: &[],
        },
    }
}

/// What to write in the place of a function that does not exist. The engine suggests the function that is spelt most
/// alike, which misleads where names are short, such as `if` and `sin`.
fn function_hint(name: &str, suggested: Option<&str>) -> Option<String> {
    if WINDOWS.contains(&name) {
        return Some(format!(
            "it needs a window: `{name}(…) OVER (PARTITION BY … ORDER BY …)`"
        ));
    }
    let slip = |near: &&str| name.len() >= 5 && slips(name, near) == 1;
    suggested
        .filter(slip)
        .map(|near| format!("is it `{near}`?"))
}

/// The part of a text between two others.
fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(from)?;
    Some(rest.split_once(to)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_that_is_not_there_has_a_hint_that_does_not_mislead() {
        for (name, suggested, expected) in [
            ("iff", "sin", None),
            ("lenght", "length", Some("is it `length`?")),
            ("cuont", "count", Some("is it `count`?")),
            ("qqqq", "sqrt", None),
            ("tsum", "sum", None),
        ] {
            let text = format!("Invalid function '{name}'. Did you mean '{suggested}'?");
            let error = planning(Path::new("m.sql"), Some(3), &text);
            assert_eq!(error.message, format!("there is no function `{name}`"));
            match expected {
                Some(part) => assert!(error.hint.unwrap().contains(part), "{name}"),
                None => assert_eq!(error.hint, None, "{name}"),
            }
        }
    }
}
