//! The claims about the rows of a mart. They must hold before the rows are published.
//!
//! ```text
//! -- unique: dt, os   ─┐
//! -- check: a >= b     ├─▶ Claim: a SELECT that finds the rows that break it
//! sql/checks/m__c.sql ─┘
//! ```
//!
//! A claim is SQL under the law of the marts. As with CHECK of SQL, a claim whose value is NULL holds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use datafusion::sql::sqlparser::ast::{Expr, Value};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::ALL_KEYWORDS;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use serde::Serialize;

use super::error::shown;
use crate::layout::DATE;

/// What follows from a claim that does not hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The mart is not published.
    #[default]
    Error,
    /// The mart is published, and the result tells of the claim.
    Warn,
}

/// A claim as a line of the header says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// No two rows have the same values in these columns. A row with a NULL among them is like no other.
    Unique(Vec<String>),
    /// None of these columns is NULL.
    NotNull(Vec<String>),
    /// A condition that is true or NULL for each row.
    Check(String),
    /// A column with the list of its values. NULL is accepted.
    Accepted(String),
}

/// A text of a header that is no claim: what is wrong with it, and what to write.
type Wrong = (String, String);

impl Said {
    /// A condition.
    pub(super) fn check(text: &str) -> Result<Self, Wrong> {
        match expression(text) {
            Some(_) => Ok(Self::Check(text.to_owned())),
            None => Err((
                format!("`{text}` is no condition"),
                "write one SQL expression that is true for every good row, such as `new_users <= active_users`"
                    .to_owned(),
            )),
        }
    }

    /// A column with the list of its values, such as `os in ('ios', 'android')`.
    pub(super) fn accepted(text: &str) -> Result<Self, Wrong> {
        let is_list = match expression(text) {
            Some(Expr::InList {
                expr,
                list,
                negated: false,
            }) => matches!(*expr, Expr::Identifier(_)) && list.iter().all(is_literal),
            _ => false,
        };
        match is_list {
            true => Ok(Self::Accepted(text.to_owned())),
            false => {
                let column = text.split_whitespace().next().unwrap_or("os");
                Err((
                    format!("`{text}` is no list of accepted values"),
                    format!("write `{column} in ('a', 'b')`"),
                ))
            }
        }
    }

    /// The claims that the line of a file makes about its mart.
    fn claims(self, mart: &str, file: &Path, severity: Severity, line: usize) -> Vec<Claim> {
        let table = quoted(mart);
        let claim = |name: String, sql: String, reads_whole: bool| Claim {
            name,
            file: file.to_path_buf(),
            line: Some(line),
            severity,
            sql,
            inputs: BTreeSet::from([mart.to_owned()]),
            key: Vec::new(),
            reads_whole,
        };
        match self {
            Self::Unique(columns) => {
                let list = columns.iter().map(|column| quoted(column));
                let list = list.collect::<Vec<_>>().join(", ");
                let there = columns
                    .iter()
                    .map(|column| format!("{} IS NOT NULL", quoted(column)));
                let there = there.collect::<Vec<_>>().join(" AND ");
                let copies = match columns.iter().any(|column| column == "copies") {
                    true => "number_of_copies",
                    false => "copies",
                };
                let sql = format!(
                    "SELECT {list}, count(*) AS {copies} FROM {table} WHERE {there} GROUP BY {list} HAVING count(*) > 1"
                );
                // Rows with the same `dt` are built together. Other rows may be alike on two dates.
                let whole = !columns.iter().any(|column| column == DATE);
                let claim = claim(format!("unique: {}", columns.join(", ")), sql, whole);
                vec![Claim {
                    key: columns,
                    ..claim
                }]
            }
            Self::NotNull(columns) => {
                let one = |column: String| {
                    let sql = format!("SELECT * FROM {table} WHERE {} IS NULL", quoted(&column));
                    claim(format!("not_null: {column}"), sql, false)
                };
                columns.into_iter().map(one).collect()
            }
            Self::Check(text) => vec![claim(
                format!("check: {text}"),
                broken_by(&table, &text),
                false,
            )],
            Self::Accepted(text) => vec![claim(
                format!("accepted: {text}"),
                broken_by(&table, &text),
                false,
            )],
        }
    }
}

/// The SELECT of the rows for which a condition is false.
fn broken_by(table: &str, condition: &str) -> String {
    // A comment of the condition ends with its line.
    let end = if condition.contains("--") { "\n" } else { "" };
    format!("SELECT * FROM {table} WHERE NOT ({condition}{end})")
}

/// The text as one SQL expression; `None` where it is none, or more than one.
fn expression(text: &str) -> Option<Expr> {
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect).try_with_sql(text).ok()?;
    let expression = parser.parse_expr().ok()?;
    (parser.peek_token().token == Token::EOF).then_some(expression)
}

fn is_literal(value: &Expr) -> bool {
    match value {
        Expr::Value(value) => !matches!(value.value, Value::Null | Value::Placeholder(_)),
        Expr::UnaryOp { expr, .. } | Expr::Cast { expr, .. } => is_literal(expr),
        Expr::TypedString(_) => true,
        _ => false,
    }
}

/// A name as SQL reads it: words of SQL are quoted.
fn quoted(name: &str) -> String {
    let word = name.to_ascii_uppercase();
    match ALL_KEYWORDS.contains(&word.as_str()) {
        true => format!("\"{name}\""),
        false => name.to_owned(),
    }
}

/// A claim about the rows of a mart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The claim as it is told, such as `unique: dt, os`.
    pub name: String,
    /// The file that makes the claim.
    pub file: PathBuf,
    /// The line of the header that makes the claim, from 1; `None` where the whole file makes it.
    pub line: Option<usize>,
    /// What follows if it does not hold.
    pub severity: Severity,
    /// The SELECT that finds the rows that break the claim.
    pub sql: String,
    /// The tables that the SELECT reads.
    pub inputs: BTreeSet<String>,
    /// The columns that tell rows apart, of a claim that they are unique. Empty for other claims.
    pub key: Vec<String>,
    /// Whether the SELECT reads the whole mart, and not only the partitions that were just built.
    pub reads_whole: bool,
}

impl Claim {
    /// The path of the file, as messages show it.
    pub fn file(&self) -> String {
        shown(&self.file)
    }
}

/// The claims that the header of a file makes about its mart.
pub(super) fn of_header(
    mart: &str,
    file: &Path,
    said: Vec<(Said, usize)>,
    severity: Severity,
) -> Vec<Claim> {
    let said = said.into_iter();
    said.flat_map(|(said, line)| said.claims(mart, file, severity, line))
        .collect()
}
