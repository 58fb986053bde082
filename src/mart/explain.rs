//! Errors of the engine in our words: which part of the SELECT is wrong, on which line, and how to write it so that it
//! can be carried out.

use std::path::Path;

use datafusion::common::{DataFusionError, SchemaError};
use datafusion::sql::sqlparser::parser::ParserError;

use super::error::{line_of, one_line, root, short};
use super::select::Parsed;
use super::{Mart, MartError};
use crate::names::{nearest, slips};

/// Functions of other databases, and how this engine writes them.
const FUNCTIONS: &[(&[&str], &str)] = &[
    (&["if", "iif"], "write `CASE WHEN … THEN … ELSE … END`"),
    (
        &["len"],
        "`length(text)` counts characters, `array_length(list)` the items of a list",
    ),
    (&["size"], "write `array_length(list)`"),
    (&["sign"], "write `signum(x)`"),
    (
        &["max_by", "arg_max", "argmax"],
        "write `last_value(x ORDER BY y)`",
    ),
    (
        &["min_by", "arg_min", "argmin"],
        "write `first_value(x ORDER BY y)`",
    ),
    (&["any_value", "arbitrary"], "write `min(x)`"),
    (
        &["count_if", "countif"],
        "write `count(*) FILTER (WHERE …)`",
    ),
    (&["sum_if", "sumif"], "write `sum(x) FILTER (WHERE …)`"),
    (&["approx_count_distinct"], "write `approx_distinct(x)`"),
    (
        &["approx_percentile", "approx_quantile", "percentile"],
        "write `approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY x)`",
    ),
    (&["group_concat", "listagg"], "write `string_agg(x, ',')`"),
    (
        &["strftime", "date_format", "format_datetime"],
        "write `to_char(time, '%Y-%m-%d')`",
    ),
    (
        &["time_bucket"],
        "write `date_bin(INTERVAL '15 minutes', time)`",
    ),
    (
        &["date_diff", "datediff"],
        "the days between two dates are `date2 - date1`",
    ),
    (
        &["date_add", "dateadd", "date_sub", "datesub"],
        "write `time + INTERVAL '1 day'`",
    ),
    (
        &["last_day", "last_day_of_month"],
        "write `date_trunc('month', day) + INTERVAL '1 month' - INTERVAL '1 day'`",
    ),
    (
        &["year", "month", "day", "hour", "minute", "second", "week"],
        "write `date_part('year', time)`, and so for the other fields",
    ),
    (&["instr", "charindex"], "write `strpos(text, part)`"),
    (&["ucase"], "write `upper(text)`"),
    (&["lcase"], "write `lower(text)`"),
    (&["safe_cast"], "write `TRY_CAST(x AS type)`"),
    (&["isnull"], "write `x IS NULL`"),
    (
        &["regexp_extract", "regexp_substr"],
        "write `regexp_match(text, pattern)[1]`",
    ),
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
                None => made.hint(format!(
                    "the columns here are {}",
                    names().collect::<Vec<_>>().join(", ")
                )),
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
                    .hint("take parts of it apart with WITH");
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
                        .hint("take away what is to be left out, such as `sum(x) OVER (…) - coalesce(x, 0)`");
                }
                Self::new(
                    file,
                    line,
                    format!("the SQL does not parse: {}", one_line(message)),
                )
            }
            None => Self::new(
                file,
                Some(sql.trim_end().lines().count()),
                format!("the SQL does not parse: {}", one_line(text)),
            ),
        }
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
    let operands = between(
        text,
        "Cannot coerce arithmetic expression ",
        " to valid types",
    );
    if let Some(operands) = operands {
        let words: Vec<&str> = operands.split(' ').map(type_word).collect();
        let message = format!("cannot calculate {}", words.join(" "));
        return MartError::new(file, line, message);
    }
    MartError::new(file, line, short(text))
}

/// What to write in the place of a function that does not exist. The engine suggests the function that is spelt most
/// alike, which misleads where names are short, such as `if` and `sin`.
fn function_hint(name: &str, suggested: Option<&str>) -> Option<String> {
    let known = FUNCTIONS.iter().find(|(names, _)| names.contains(&name));
    if let Some((_, hint)) = known {
        return Some((*hint).to_owned());
    }
    let slip = |near: &&str| name.len() >= 5 && slips(name, near) == 1;
    suggested
        .filter(slip)
        .map(|near| format!("is it `{near}`?"))
}

/// A type as people write it in SQL. Other words stay as they are.
fn type_word(word: &str) -> &str {
    match word {
        "Utf8" | "Utf8View" | "LargeUtf8" => "text",
        "Int64" | "UInt64" => "bigint",
        "Int32" | "Int16" | "Int8" | "UInt32" | "UInt16" | "UInt8" => "int",
        "Float64" => "double",
        "Float32" => "float",
        "Boolean" => "boolean",
        "Date32" | "Date64" => "date",
        other if other.starts_with("Timestamp(") => "timestamp",
        other if other.starts_with("Interval(") => "interval",
        other if other.starts_with("Decimal") => "decimal",
        other => other,
    }
}

/// The part of a text between two others.
fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(from)?;
    Some(rest.split_once(to)?.0)
}

/// The hint where `dt` is taken for a date.
const DATE_IS_TEXT: &str = "`dt` is text: write `CAST(dt AS date)`";

impl Parsed {
    /// Adds the place in the SELECT to an error of planning that comes from `dt` being text.
    pub(super) fn explain(&self, mut error: MartError) -> MartError {
        let arithmetic = error.message.starts_with("cannot calculate ");
        let found = match arithmetic {
            true => self.dates.iter().find(|used| used.function.is_none()),
            false => self.dates.iter().find(|used| {
                let function = used.function.as_deref();
                function.is_some_and(|name| is_call(&error.message, name))
            }),
        };
        if let Some(used) = found {
            error.line = error.line.or(used.line);
            error.message = format!("`{}`: {}", used.text, error.message);
            error.hint = Some(DATE_IS_TEXT.to_owned());
        } else if arithmetic && error.message.contains("text") && error.hint.is_none() {
            error.hint = Some(
                "text becomes a date with `CAST(… AS date)`, a number with `CAST(… AS bigint)`; `dt` \
                 is text"
                    .to_owned(),
            );
        }
        error
    }
}

/// Whether a message is about the arguments of a function.
fn is_call(message: &str, function: &str) -> bool {
    let about = ["coerce", "No function matches", "argument", "signature"];
    about.iter().any(|words| message.contains(words))
        && (message.contains(&format!("'{function}'"))
            || message.contains(&format!("'{function}("))
            || message.contains(&format!(" {function} "))
            || message.contains(&format!("{function}(")))
}

/// An error of the physical plan of a SELECT whose logical plan was made.
pub(super) fn physical(mart: &Mart, select: &Parsed, error: &DataFusionError) -> MartError {
    let root = root(error);
    let text = one_line(&root.strip_backtrace());
    let lost = matches!(
        root,
        DataFusionError::SchemaError(inner, _) if matches!(**inner, SchemaError::FieldNotFound { .. })
    );
    let unplanned = text.contains("Physical plan does not support logical expression")
        || text.contains("OuterReferenceColumn")
        || text.contains("correlated");
    match select.beside.first() {
        Some(beside) if lost || unplanned => {
            let message = format!(
                "{} reads columns of a table beside it, which is not possible in this form",
                beside.text
            );
            MartError::new(&mart.file, beside.line, message).hint(beside.instead.as_str())
        }
        _ if lost || unplanned => MartError::new(
            &mart.file,
            None,
            "a sub-query reads columns of the query around it in a form that is not possible",
        )
        .hint("write it as a JOIN with a sub-query that has a GROUP BY"),
        _ => select.explain(MartError::planning(&mart.file, error)),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;

    #[test]
    fn a_function_that_is_proposed_is_there() {
        let state = SessionContext::new().state();
        for (_, hint) in FUNCTIONS {
            for (end, _) in hint.match_indices('(') {
                let before = &hint[..end];
                let start = before
                    .rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .map_or(0, |i| i + 1);
                let name = &before[start..];
                if name.is_empty() || name == "TRY_CAST" {
                    continue;
                }
                let is_there = state.scalar_functions().contains_key(name)
                    || state.aggregate_functions().contains_key(name);
                assert!(is_there, "{name}");
            }
        }
    }

    #[test]
    fn a_function_that_is_not_there_has_a_hint_that_does_not_mislead() {
        for (name, suggested, expected) in [
            ("if", "sin", Some("CASE WHEN")),
            ("len", "ln", Some("length(text)")),
            ("sign", "sin", Some("signum")),
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
