//! Why a mart fails, with the place in its SELECT and the remedy.
//!
//! `explain` puts the engine's error into words. This file knows the SELECT as well, and adds the line and the
//! expression where the engine names none.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use datafusion::common::{DataFusionError, SchemaError};

use super::blame::{self, Blamed};
use super::error::{MartError, lacks_memory, line_of, one_line, root, short};
use super::explain;
use super::graph::Mart;
use super::phrases;
use super::reach::Reach;
use super::select::{self, Parsed};
use crate::engine::TooLarge;

impl MartError {
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
            // An error of one of our own functions begins with its name.
            let own = made
                .message
                .strip_prefix('`')
                .and_then(|rest| rest.split_once("()`"));
            made.line = match own {
                Some((name, _)) => blame::of_calls(&select.statement, &[name]),
                None => blame::of_calls(&select.statement, told.calls),
            };
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
        if let Some(said) = phrases::of_value(text) {
            return Self::new(&mart.file, None, said.message).hint(said.hint);
        }
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

    /// The error of a mart with more than `most` partitions.
    pub fn of_many_partitions(mart: &Mart, most: u64) -> Self {
        let columns = mart.partition.join(", ");
        let message = format!(
            "it has more than {most} partitions by {columns}, a file each, and readers would list and open every one"
        );
        Self::new(&mart.file, None, message).hint(
            "partition by fewer columns, or by a coarser one such as a month, or leave `-- partition:` out",
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

/// The hint where `dt` is taken for a date.
const DATE_IS_TEXT: &str = "`dt` is text: write `CAST(dt AS date)`";

impl Parsed {
    /// Adds the place in the SELECT to an error of planning that comes from `dt` being text.
    pub(super) fn explain(&self, mut error: MartError) -> MartError {
        let missing = error.message.strip_prefix("there is no column `");
        let missing = missing.and_then(|rest| rest.strip_suffix('`'));
        if let Some(name) = missing
            && self.aliases.iter().any(|alias| alias == name)
        {
            error.hint = Some(format!(
                "a name after AS is not known in the same SELECT: write the expression of `{name}` again, or put it \
                 into a sub-query"
            ));
            return error;
        }
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
    let misplaced = [
        ("WindowFunction", "a window function"),
        ("AggregateFunction", "an aggregate"),
    ];
    let unsupported = text.split_once("does not support logical expression ");
    let misplaced = misplaced
        .iter()
        .find(|(kind, _)| unsupported.is_some_and(|(_, expression)| expression.contains(kind)));
    if let Some((_, what)) = misplaced {
        let message = format!("{what} is not possible in WHERE and ON");
        return MartError::new(&mart.file, None, message)
            .hint("put it into a sub-query, or write QUALIFY or HAVING");
    }
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
