//! Errors of marts.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use chrono::NaiveDate;
use datafusion::common::DataFusionError;

use super::blame::{self, Blamed};
use super::{Mart, Reach, explain, select, shown};
use crate::engine::TooLarge;

/// What is wrong with a mart, and what to do.
#[derive(Debug, thiserror::Error)]
pub struct MartError {
    /// The SQL file.
    pub file: PathBuf,
    /// The line in the file, from 1.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do.
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
    /// An error without a hint.
    pub(super) fn new(file: &Path, line: Option<usize>, message: impl Into<String>) -> Self {
        Self {
            file: file.to_path_buf(),
            line,
            message: message.into(),
            hint: None,
        }
    }

    /// The error with a hint.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// An error that the stream of a mart's rows yields.
    pub fn running(mart: &Mart, error: &DataFusionError) -> Self {
        let text = root(error).strip_backtrace();
        // The runtime says which task panicked. The number of the task differs from run to run, so it is left out.
        if let Some((_, said)) = text.split_once(" panicked with message ") {
            return Self::panicked(mart, &said.trim_matches('"').replace("\\n", " "));
        }
        let told = explain::running(&one_line(&text));
        let mut made = Self::new(&mart.file, line_of(error), short(&told.message));
        made.hint = told.hint.map(str::to_owned);
        if let DataFusionError::External(error) = root(error)
            && let Some(error) = error.downcast_ref::<TooLarge>()
        {
            made.message = error.to_string();
            made.line = line_of_call(&mart.sql, &error.function);
        }
        if made.line.is_none()
            && let Ok(select) = select::parse(&mart.file, &mart.sql)
        {
            made.line = blame::of_calls(&select.statement, told.calls);
        }
        match lacks_memory(error) {
            true => made.hint("give more with `--memory`"),
            false => made,
        }
    }

    /// Adds the expression that the error comes from.
    pub(super) fn blame(mut self, blamed: Option<Blamed>) -> Self {
        if let Some(blamed) = blamed {
            self.line = blamed.line;
            self.message = format!("`{}`: {}", blamed.text, self.message);
        }
        self
    }

    /// The error of a mart whose rows cannot be written.
    pub fn writing(mart: &Mart, error: &dyn std::fmt::Display) -> Self {
        let message = format!("its rows cannot be written: {error}");
        Self::new(&mart.file, None, short(&message))
    }

    /// The error of a mart whose columns have other types over data than over empty tables.
    pub fn of_another_type(mart: &Mart) -> Self {
        let message = "its columns have other types when it is evaluated than when it is planned";
        Self::new(&mart.file, None, message).hint("give every column its type with CAST")
    }

    /// The error of a panic while a mart was planned, evaluated or written.
    pub(super) fn panicked(mart: &Mart, text: &str) -> Self {
        let message = format!("the query engine broke down: {}", short(text));
        Self::new(&mart.file, None, message)
            .hint("write the SELECT in another way, and report this message")
    }

    /// The error of a mart that does not say how far it reads. The date has the numbers of `rows` alone, and among the
    /// dates around it. Only one of the two has the row `row`. `needed` is how far the tables must be read at least.
    pub fn too_short(
        mart: &Mart,
        date: NaiveDate,
        rows: (u64, u64),
        row: &str,
        needed: &BTreeMap<String, Reach>,
    ) -> Self {
        let (alone, among) = rows;
        let said = |rows: u64| match rows {
            1 => "1 row".to_owned(),
            rows => format!("{rows} rows"),
        };
        let counts = match alone == among {
            true => format!("{} either way, with other values", said(alone)),
            false => format!(
                "{} from this date alone, {among} with the dates around it",
                said(alone)
            ),
        };
        let message = format!(
            "the partition dt={date} needs other dates too: the SELECT gives {counts}; for example ({row})"
        );
        let tables = needed.iter();
        let tables: Vec<String> = tables
            .map(|(table, reach)| format!("{table} {}", reach.words()))
            .collect();
        let least = match tables.is_empty() {
            true => "`-- reads: <table> all`".to_owned(),
            false => format!("at least `-- reads: {}`", tables.join(", ")),
        };
        let own: Vec<String> = mart
            .unsaid
            .iter()
            .map(|table| format!("{table} back 0d"))
            .collect();
        Self::new(&mart.file, None, message).hint(format!(
            "say how far it reads, {least}; if each date is meant to be made of itself alone, \
             `-- reads: {}`",
            own.join(", ")
        ))
    }

    /// The error of a mart whose sample date needs more memory than there is.
    pub fn sample_lacks_memory(mart: &Mart) -> Self {
        Self::new(
            &mart.file,
            None,
            "there was too little memory for it and the days around it",
        )
    }

    /// The error of a mart that is made of one date alone, and has a row of another date.
    pub fn of_another_date(mart: &Mart, date: NaiveDate, found: NaiveDate) -> Self {
        let message = format!(
            "for the partition dt={date}, made of this date alone, the SELECT gives rows of dt = {found}"
        );
        Self::new(&mart.file, None, message).hint(
            "if they are made of other dates too, say how far it reads: `-- reads: <table> back 6d` or \
             `all`; otherwise take `dt` from the table that it reads, not from a calendar",
        )
    }

    /// The error of a mart with a row whose `dt` is no date. `None` is NULL.
    pub fn of_no_date(mart: &Mart, date: NaiveDate, found: Option<&str>) -> Self {
        let message = format!(
            "for the partition dt={date} the SELECT gives rows of dt = {}, which is no date",
            found.unwrap_or("NULL")
        );
        Self::new(&mart.file, None, message)
            .hint("make `dt` a date, or text such as 2024-03-01, and leave out rows that have none")
    }
}

/// The line of the SQL with the only call of `function`, such as `repeat()`, or of the operator `||`. `None` where
/// several lines have one.
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

/// The error at the root of a chain of errors. Where several errors were collected, the first one.
pub(super) fn root(error: &DataFusionError) -> &DataFusionError {
    error.iter().next().unwrap_or(error).find_root()
}

/// Whether an error says that the memory of the engine was too small.
pub fn lacks_memory(error: &DataFusionError) -> bool {
    matches!(root(error), DataFusionError::ResourcesExhausted(_))
}

/// The line of the SQL that DataFusion points at, from 1.
pub(super) fn line_of(error: &DataFusionError) -> Option<usize> {
    let span = error.diagnostic()?.span?;
    usize::try_from(span.start.line)
        .ok()
        .filter(|line| *line > 0)
}

/// A text with all white space as single spaces.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The most characters of a message of the engine that are shown.
const SHORT: usize = 400;

/// The beginning of the engine's text, on one line: the debug form of a plan would fill a screen.
pub(super) fn short(text: &str) -> String {
    let text = one_line(text);
    // DataFusion asks its users to report faults. The reader of this message is no user of DataFusion.
    let text = match text.split_once(" This issue was likely caused by a bug in DataFusion") {
        Some((said, _)) => said.to_owned(),
        None => text,
    };
    match text.char_indices().nth(SHORT) {
        None => text,
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}
