//! The claims about the rows of a mart. They must hold before the rows are published.
//!
//! ```text
//! -- unique: dt, os   ─┐
//! -- check: a >= b     ├─▶ Claim: a SELECT that finds the rows that break it ──▶ no row: the claim holds
//! sql/checks/m__c.sql ─┘                                                      └▶ rows: Broken, with the first ten
//! ```
//!
//! A claim is SQL under the law of the marts. As with CHECK of SQL, a claim whose value is NULL holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::sql::sqlparser::ast::{Expr, Value};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::ALL_KEYWORDS;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use futures::TryStreamExt;
use serde::Serialize;

use super::error::shown;
use super::graph::{collect, read_text};
use super::{Input, Mart, MartError, Query, answer, header, select};
use crate::engine::Engine;
use crate::layout::DATE;
use crate::names::nearest;

/// The most rows that are told of a claim that does not hold.
const TOLD: usize = 10;
/// The most characters of a cell that are told.
const SHOWN: usize = 200;

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

    /// The claims that the line makes about a mart.
    fn claims(self, mart: &Mart, severity: Severity, line: usize) -> Vec<Claim> {
        let table = quoted(&mart.name);
        let claim = |name: String, sql: String, reads_whole: bool| Claim {
            name,
            file: mart.file.clone(),
            line: Some(line),
            severity,
            sql,
            inputs: BTreeSet::from([mart.name.clone()]),
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
                vec![claim(format!("unique: {}", columns.join(", ")), sql, whole)]
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
    /// Whether the SELECT reads the whole mart, and not only the partitions that were just built.
    pub reads_whole: bool,
}

impl Claim {
    /// Makes an error one of this claim, with the place of it.
    fn blamed(&self, mut error: MartError) -> MartError {
        error.message = format!("the claim `{}`: {}", self.name, error.message);
        error.line = self.line.or(error.line);
        error
    }

    /// The error of a claim whose SELECT cannot be evaluated.
    pub fn failing(&self, error: &DataFusionError) -> MartError {
        match self.query() {
            Ok(query) => self.blamed(MartError::running(query.mart(), error)),
            Err(error) => error,
        }
    }

    fn query(&self) -> Result<Query, MartError> {
        let known = self.inputs.iter().map(String::as_str).collect();
        // The SELECT stands on the line of the claim, so that an error has the right line.
        let lines = "\n".repeat(self.line.map_or(0, |line| line - 1));
        let query = Query::new(self.file.clone(), lines + &self.sql, &known);
        query.map_err(|error| self.blamed(error))
    }

    /// The rows that break the claim, over `inputs`, which holds all of [`Claim::inputs`].
    ///
    /// # Errors
    /// The SELECT cannot be planned. A failure while rows flow is an error of the stream; [`Claim::failing`] makes it
    /// an error of the claim.
    pub async fn breaking(
        &self,
        engine: &Engine,
        inputs: &[Input],
    ) -> Result<(SchemaRef, SendableRecordBatchStream), MartError> {
        let query = self.query()?;
        let rows = answer(engine, &query, inputs).await;
        rows.map_err(|error| self.blamed(error))
    }
}

/// The rows that break a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The number of rows.
    pub rows: u64,
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The first ten rows in the order of their text. `None` is NULL.
    pub sample: Vec<Vec<Option<String>>>,
}

impl Broken {
    /// Counts the rows of a stream and keeps the first ten. `None` where there is no row.
    ///
    /// # Errors
    /// The stream fails.
    pub async fn of(
        schema: &SchemaRef,
        mut rows: SendableRecordBatchStream,
    ) -> Result<Option<Self>, DataFusionError> {
        let mut count = 0;
        let mut first: BTreeMap<Vec<Option<String>>, usize> = BTreeMap::new();
        let options = FormatOptions::default();
        while let Some(batch) = rows.try_next().await? {
            count += batch.num_rows() as u64;
            let columns = batch.columns().iter();
            let columns = columns.map(|column| ArrayFormatter::try_new(column, &options));
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            for row in 0..batch.num_rows() {
                let mut cells = Vec::with_capacity(columns.len());
                for (formatter, column) in columns.iter().zip(batch.columns()) {
                    let text = formatter.value(row).try_to_string()?;
                    cells.push((!column.is_null(row)).then(|| cut(text)));
                }
                *first.entry(cells).or_default() += 1;
                if first.len() > TOLD {
                    first.pop_last();
                }
            }
        }
        let names = schema.fields().iter().map(|field| field.name().clone());
        let sample = first
            .into_iter()
            .flat_map(|(row, copies)| std::iter::repeat_n(row, copies.min(TOLD)));
        Ok((count > 0).then(|| Self {
            rows: count,
            columns: names.collect(),
            sample: sample.take(TOLD).collect(),
        }))
    }

    /// A row of the sample on one line, such as `(dt=2019-04-01, n=NULL)`.
    pub fn row(columns: &[String], cells: &[Option<String>]) -> String {
        let cells = columns.iter().zip(cells).map(|(name, cell)| {
            let cell = cell.as_deref().unwrap_or("NULL");
            let mut text = format!("{name}=");
            for character in cell.chars() {
                match character.is_control() {
                    true => text.extend(character.escape_debug()),
                    false => text.push(character),
                }
            }
            text
        });
        format!("({})", cells.collect::<Vec<_>>().join(", "))
    }
}

fn cut(text: String) -> String {
    match text.char_indices().nth(SHOWN) {
        None => text,
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

/// The claims of a mart's header.
pub(super) fn of_header(mart: &Mart, said: Vec<(Said, usize)>, severity: Severity) -> Vec<Claim> {
    let said = said.into_iter();
    said.flat_map(|(said, line)| said.claims(mart, severity, line))
        .collect()
}

/// Reads the files of a folder of checks, and gives each claim with the name of its mart. `marts` are the names of the
/// marts with the marts that each of them reads, directly or not; `tables` are the tables and references. There are no
/// claims where the folder does not exist.
///
/// # Errors
/// A file that cannot be read or is named after no mart; SQL that is not one plain SELECT, or that reads another table.
pub(super) fn of_folder(
    folder: &Path,
    marts: &BTreeMap<String, BTreeSet<String>>,
    tables: &BTreeSet<&str>,
) -> Result<Vec<(String, Claim, String)>, MartError> {
    let mut files = Vec::new();
    if folder.is_dir() {
        collect(folder, &mut files)?;
    }
    files.sort();
    let mut claims = Vec::new();
    for file in files {
        let stem = file.file_stem().map(|stem| stem.to_string_lossy());
        let stem = stem.unwrap_or_default().into_owned();
        let (mart, name) = mart_of(&file, &stem, marts)?;
        let text = read_text(&file)?;
        let severity = header::severity(&file, &text)?;
        let parsed = select::parse(&file, &text)?;
        let above = marts.get(&mart).into_iter().flatten().map(String::as_str);
        let known: BTreeSet<&str> = above.chain([mart.as_str()]).collect();
        let of_others = parsed
            .tables
            .iter()
            .find(|(table, _)| marts.contains_key(table) && !known.contains(table.as_str()));
        if let Some((table, line)) = of_others {
            let message =
                format!("the check reads the mart `{table}`, which `{mart}` does not read");
            return Err(MartError::new(&file, *line, message).hint(
                "a check is made before the marts that come later: name the file after a mart that reads both",
            ));
        }
        let known = tables.iter().copied().chain(known).collect();
        super::graph::refuse_unknown(&file, &parsed.tables, &known)?;
        let inputs = parsed.tables.into_iter().map(|(table, _)| table);
        let claim = Claim {
            name,
            file,
            line: None,
            severity,
            sql: text.clone(),
            inputs: inputs.collect(),
            reads_whole: true,
        };
        claims.push((mart, claim, text));
    }
    Ok(claims)
}

/// The mart and the claim that the name of a file of a check, without `.sql`, names.
fn mart_of(
    file: &Path,
    stem: &str,
    marts: &BTreeMap<String, BTreeSet<String>>,
) -> Result<(String, String), MartError> {
    // The name of a mart may have `__` in it too, so the longest name counts.
    let named = marts.keys().filter(|mart| {
        let rest = stem.strip_prefix(mart.as_str());
        rest.and_then(|rest| rest.strip_prefix("__"))
            .is_some_and(|claim| !claim.is_empty())
    });
    if let Some(mart) = named.max_by_key(|mart| mart.len()) {
        return Ok((mart.clone(), stem.to_owned()));
    }
    let Some((written, _)) = stem.split_once("__") else {
        let message = format!("`{stem}` is not the name of a check");
        return Err(MartError::new(file, None, message)
            .hint("name it `<mart>__<claim>.sql`, such as `daily__no_gaps.sql`"));
    };
    let error = MartError::new(file, None, format!("there is no mart `{written}`"));
    Err(match nearest(written, marts.keys().map(String::as_str)) {
        Some(near) => error.hint(format!("is it `{near}`?")),
        None => error.hint(format!(
            "the file is named after a mart; the marts are {}",
            marts.keys().cloned().collect::<Vec<_>>().join(", ")
        )),
    })
}

impl MartError {
    /// The error of a claim that rows break.
    pub fn broken(claim: &Claim, broken: &Broken) -> Self {
        let rows = match broken.rows {
            1 => "1 row breaks".to_owned(),
            rows => format!("{rows} rows break"),
        };
        let such = broken.sample.first().map_or_else(String::new, |row| {
            format!(", such as {}", Broken::row(&broken.columns, row))
        });
        let message = format!("{rows} `{}`{such}", claim.name);
        Self::new(&claim.file, claim.line, message)
            .hint("correct the SELECT, or the claim if it claims too much")
    }
}

impl Claim {
    /// The path of the file, as messages show it.
    pub fn file(&self) -> String {
        shown(&self.file)
    }
}
