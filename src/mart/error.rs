use std::fmt;
use std::path::{Path, PathBuf};

use chrono::NaiveDate;
use datafusion::common::{DataFusionError, SchemaError};
use datafusion::sql::sqlparser::parser::ParserError;

use super::{Mart, shown};
use crate::engine::{TooLarge, nearest};

/// What is wrong with a mart: file, line where known, message and remedy.
#[derive(Debug, thiserror::Error)]
pub struct MartError {
    pub file: PathBuf,
    /// From 1.
    pub line: Option<usize>,
    pub message: String,
    pub hint: Option<String>,
}

impl fmt::Display for MartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.file))?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl MartError {
    pub(super) fn new(file: &Path, line: Option<usize>, message: impl Into<String>) -> Self {
        Self {
            file: file.to_path_buf(),
            line,
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// An error of the rows of a mart, as its stream yields it.
    pub fn running(mart: &Mart, error: &DataFusionError) -> Self {
        let error = error.find_root();
        let mut made = Self::new(&mart.file, None, one_line(&error.strip_backtrace()));
        if let DataFusionError::External(error) = error
            && let Some(error) = error.downcast_ref::<TooLarge>()
        {
            made.message = error.to_string();
            made.line = line_of_call(&mart.sql, &error.function);
        }
        match error {
            DataFusionError::ResourcesExhausted(_) => made.hint("give more with `--memory`"),
            _ => made,
        }
    }

    /// A row in the partition of one date, made of this date alone, that says it is of another.
    pub fn of_another_date(mart: &Mart, date: NaiveDate, found: NaiveDate) -> Self {
        let message = format!(
            "for the partition dt={date}, made of this date alone, the SELECT gives rows of dt = {found}"
        );
        Self::new(&mart.file, None, message).hint(
            "if they are made of other dates too, say how far it reads: `-- reads: <table> back 6d` or \
             `all`; otherwise take `dt` from the table that it reads, not from a calendar",
        )
    }

    /// A row in the partition of one date whose `dt` is no date; `None` is NULL.
    pub fn of_no_date(mart: &Mart, date: NaiveDate, found: Option<&str>) -> Self {
        let message = format!(
            "for the partition dt={date} the SELECT gives rows of dt = {}, which is no date",
            found.unwrap_or("NULL")
        );
        Self::new(&mart.file, None, message)
            .hint("make `dt` a date, or text such as 2024-03-01, and leave out rows that have none")
    }

    /// An error of planning, with the line that DataFusion points at.
    pub(super) fn planning(file: &Path, error: &DataFusionError) -> Self {
        let line = error
            .diagnostic()
            .and_then(|diagnostic| diagnostic.span)
            .and_then(|span| usize::try_from(span.start.line).ok())
            .filter(|line| *line > 0);
        // Several errors may be collected; the first is told.
        let first = error.iter().next().unwrap_or(error).find_root();
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
        Self::new(file, line, one_line(&first.strip_backtrace()))
    }

    /// An error of the SQL parser, whose line is in its text; without one it is the end of `sql`.
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
                // The parser knows frames without it.
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

/// The line of the SQL that holds every call of `function`, such as `repeat()`, or the operator `||`.
fn line_of_call(sql: &str, function: &str) -> Option<usize> {
    let call = function.trim_end_matches(')');
    let lines = sql.lines().enumerate();
    let mut found = lines.filter(|(_, line)| {
        let code = line.split("--").next().unwrap_or_default();
        let code: String = code.split_whitespace().collect();
        code.to_ascii_lowercase().contains(call)
    });
    match (found.next(), found.next()) {
        (Some((line, _)), None) => Some(line + 1),
        _ => None,
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
