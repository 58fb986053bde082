//! The text of a mart: its header, and the one SELECT that it must be.

use std::path::Path;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::{Select, SelectItem, SetExpr, Spanned, Statement as Sql};
use datafusion::sql::sqlparser::dialect::GenericDialect;

use super::reach::{self, Reach};
use super::{MartError, gate};
use crate::engine;

/// Header keys of the design that this version cannot keep; to ignore them would break a promise.
const LATER: [&str; 3] = ["unique", "not_null", "check"];

/// The lines of a mart's header.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// Partition columns, in the order of the folders.
    pub partition: Vec<String>,
    /// What is read of tables, and the line that says it.
    pub reads: Vec<(String, Reach, usize)>,
}

/// One SELECT, parsed.
pub(super) struct Parsed {
    pub statement: Statement,
    /// Tables named in the text, lower-case unless quoted, without CTEs; with the line of the
    /// first mention.
    pub tables: Vec<(String, Option<usize>)>,
    /// Line of each output column up to the first wildcard.
    columns: Vec<usize>,
    /// Function calls with a clause that only aggregates and windows have.
    calls: Vec<gate::Call>,
}

impl Parsed {
    /// The line where output column `index` is written, from 1.
    pub fn column_line(&self, index: usize) -> Option<usize> {
        self.columns.get(index).copied().filter(|line| *line > 0)
    }

    /// Refuses clauses of aggregates and windows behind functions of one row, where the planner
    /// passes over them; `of_one_row` knows those functions by name.
    pub fn refuse_idle(
        &self,
        file: &Path,
        of_one_row: impl Fn(&str) -> bool,
    ) -> Result<(), MartError> {
        match self.calls.iter().find(|call| of_one_row(&call.function)) {
            None => Ok(()),
            Some(call) => Err(MartError::new(
                file,
                call.line,
                format!(
                    "{} is not possible with `{}()`, which is no aggregate",
                    call.clause, call.function
                ),
            )
            .hint("take it out")),
        }
    }
}

/// Reads the header.
pub(super) fn header(file: &Path, text: &str) -> Result<Header, MartError> {
    let mut partition: Option<Vec<String>> = None;
    let mut reads: Vec<(String, Reach, usize)> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let Some(comment) = line.strip_prefix("--") else {
            break;
        };
        let Some((key, value)) = comment.trim_start_matches('-').split_once(':') else {
            continue;
        };
        let key = key.trim();
        let is_word = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphabetic() || c == '_');
        if !is_word {
            continue;
        }
        let fail = |message: String| MartError::new(file, Some(i + 1), message);
        let lower = key.to_ascii_lowercase();
        if lower == "partition" {
            if partition.is_some() {
                return Err(fail("`partition` is given twice".into())
                    .hint("name all partition columns on one line, separated by commas"));
            }
            partition = Some(partition_columns(value, fail)?);
        } else if lower == "reads" {
            for text in value.split(',') {
                let (table, reach) = reach::parse(text).map_err(|message| {
                    fail(message).hint(
                        "write `<table> back 6d`, `ahead 1d`, `back all` or `all`; tables are \
                         separated by commas",
                    )
                })?;
                if reads.iter().any(|(other, ..)| *other == table) {
                    return Err(fail(format!("`reads` names `{table}` twice")));
                }
                reads.push((table, reach, i + 1));
            }
        } else if LATER.contains(&lower.as_str()) {
            return Err(fail(format!(
                "the header `{lower}` is not supported by this version"
            ))
            .hint("take the line out"));
        } else if let Some(near) = near_key(&lower) {
            return Err(fail(format!("the header `{key}` is not known"))
                .hint(format!("is it `{near}`? if it is prose, reword the line")));
        }
    }
    Ok(Header {
        partition: partition.unwrap_or_default(),
        reads,
    })
}

fn partition_columns(
    list: &str,
    fail: impl Fn(String) -> MartError,
) -> Result<Vec<String>, MartError> {
    let names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
    for (n, name) in names.iter().enumerate() {
        if !is_name(name) {
            return Err(fail(format!("`{name}` cannot be a partition column"))
                .hint("a name is a lower-case letter, then letters, digits or `_`"));
        }
        if names.iter().take(n).any(|other| other == name) {
            return Err(fail(format!("partition column `{name}` is given twice")));
        }
    }
    Ok(names)
}

/// Prose may start with any word; only a slip of the fingers is refused.
fn near_key(key: &str) -> Option<&'static str> {
    [
        "partition",
        "partition_by",
        "partitioned_by",
        "partitions",
        "reads",
    ]
    .into_iter()
    .chain(LATER)
    .find(|known| {
        let slips = if known.len() > 6 { 2 } else { 1 };
        strsim::damerau_levenshtein(key, known) <= slips
    })
    .map(|known| {
        if known.starts_with("partition") {
            "partition"
        } else {
            known
        }
    })
}

/// A table or column name that every reader accepts.
pub(super) fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Parses `text`, the whole file, so that lines are those of the file.
pub(super) fn parse(file: &Path, text: &str) -> Result<Parsed, MartError> {
    engine::on_large_stack(text, || parse_here(file, text))
        .unwrap_or_else(|error| Err(MartError::new(file, None, error.to_string())))
}

fn parse_here(file: &Path, text: &str) -> Result<Parsed, MartError> {
    let statements = DFParserBuilder::new(text)
        .with_dialect(&GenericDialect {})
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|error| MartError::syntax(file, text, &error))?;
    let mut statements = statements.into_iter();
    let statement = match (statements.next(), statements.next()) {
        (Some(statement), None) => statement,
        (None, _) => return Err(MartError::new(file, None, "there is no SELECT in the file")),
        (Some(_), Some(second)) => {
            let line = match &second {
                Statement::Statement(sql) => line_of(sql.as_ref()),
                _ => None,
            };
            return Err(MartError::new(file, line, "there is a second statement")
                .hint("one file is one mart: give the other a file of its own"));
        }
    };
    let mut statement = statement;
    if let Statement::Statement(sql) = &mut statement {
        engine::level(sql.as_mut())
            .map_err(|error| MartError::new(file, None, error.to_string()))?;
    }
    let Statement::Statement(sql) = &statement else {
        return Err(only_select(file, first_line(text), &statement.to_string()));
    };
    let Sql::Query(query) = sql.as_ref() else {
        return Err(only_select(
            file,
            line_of(sql.as_ref()).or_else(|| first_line(text)),
            &sql.to_string(),
        ));
    };
    let seen = gate::pass(file, text, query)?;
    let Some(select) = leftmost(&query.body) else {
        return Err(only_select(
            file,
            line_of(query.as_ref()),
            &query.body.to_string(),
        ));
    };
    let columns = select
        .projection
        .iter()
        .take_while(|item| {
            matches!(
                item,
                SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }
            )
        })
        .map(|item| usize::try_from(item.span().start.line).unwrap_or(0))
        .collect();
    let (references, _) = resolve_table_references(&statement, true)
        .map_err(|error| MartError::planning(file, &error))?;
    let tables = references
        .iter()
        .map(|reference| {
            let name = reference.table().to_owned();
            let line = seen
                .relations
                .iter()
                .find(|(relation, _)| *relation == name)
                .and_then(|(_, line)| *line);
            (name, line)
        })
        .collect();
    Ok(Parsed {
        statement,
        tables,
        columns,
        calls: seen.calls,
    })
}

pub(super) fn only_select(file: &Path, line: Option<usize>, text: &str) -> MartError {
    let verb = text
        .split_whitespace()
        .next()
        .unwrap_or("this")
        .to_uppercase();
    MartError::new(file, line, format!("{verb} is not possible in a mart"))
        .hint("a mart is one plain SELECT")
}

/// The first line that is neither blank nor a comment.
fn first_line(text: &str) -> Option<usize> {
    text.lines()
        .position(|line| !line.trim().is_empty() && !line.trim().starts_with("--"))
        .map(|i| i + 1)
}

pub(super) fn line_of(node: &dyn Spanned) -> Option<usize> {
    usize::try_from(node.span().start.line)
        .ok()
        .filter(|line| *line > 0)
}

/// The SELECT that names the output columns.
fn leftmost(body: &SetExpr) -> Option<&Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::Query(query) => leftmost(&query.body),
        SetExpr::SetOperation { left, .. } => leftmost(left),
        _ => None,
    }
}

/// Refuses functions of the clock and of chance: a table depends on its inputs alone.
pub(super) fn refuse_unstable(file: &Path, plan: &LogicalPlan) -> Result<(), MartError> {
    let mut found = None;
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                if matches!(part, Expr::Placeholder(_) | Expr::ScalarVariable(..)) {
                    found = Some(format!("`{part}` has no value here"));
                    return Ok(TreeNodeRecursion::Stop);
                }
                if let Expr::ScalarFunction(call) = part
                    && call.func.signature().volatility != Volatility::Immutable
                {
                    found = Some(format!(
                        "`{}()` gives another value in every run",
                        call.func.name()
                    ));
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    match (found, walked) {
        (Some(message), _) => Err(MartError::new(file, None, message)
            .hint("a mart must be the same whenever it is built: use the times of the events")),
        (None, Err(error)) => Err(MartError::planning(file, &error)),
        (None, Ok(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let none: &[&str] = &[];
        for (text, expected) in [
            ("SELECT 1", Ok(none)),
            (
                "-- Daily users: all of them.\n\n-- partition: dt , os\nSELECT 1",
                Ok(&["dt", "os"][..]),
            ),
            ("--partition:dt\r\nSELECT 1", Ok(&["dt"])),
            ("-- see http://x/y\n-- note: by day\nSELECT 1", Ok(none)),
            ("SELECT 1\n-- partition: dt", Ok(none)),
            (
                "-- partition:",
                Err("m.sql:1: `` cannot be a partition column"),
            ),
            ("-- partition: Dt", Err("`Dt` cannot be")),
            ("-- partition: dt, dt", Err("given twice")),
            (
                "-- partition: dt\n-- partition: os",
                Err("m.sql:2: `partition` is given twice"),
            ),
            (
                "-- hi\n-- unique: dt",
                Err("m.sql:2: the header `unique` is not supported"),
            ),
            ("-- check: a > 1", Err("not supported by this version")),
            ("-- partiton: dt", Err("is it `partition`?")),
            ("-- partition_by: dt", Err("is it `partition`?")),
            ("-- read: events all", Err("is it `reads`?")),
            (
                "-- a\n-- reads: events since 1d",
                Err("m.sql:2: `since` says"),
            ),
            ("-- reads: events, events all", Err("names `events` twice")),
        ] {
            let found = header(Path::new("m.sql"), text).map(|header| header.partition);
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
        let text = "-- reads: events back 6d, users\n--\n-- reads: rejects all\nSELECT 1";
        let header = header(Path::new("m.sql"), text).unwrap();
        let back = Reach {
            back: Some(6),
            ..Reach::SAME
        };
        let named = |table: &str, reach, line| (table.to_owned(), reach, line);
        assert_eq!(
            header.reads,
            [
                named("events", back, 1),
                named("users", Reach::SAME, 1),
                named("rejects", Reach::ALL, 3)
            ]
        );
    }

    #[test]
    fn anything_but_one_select_is_refused_with_its_line() {
        for (text, line, part) in [
            (
                "-- a\n\nCREATE TABLE t (a int)",
                3,
                "CREATE is not possible",
            ),
            ("DROP TABLE t", 1, "DROP is not possible"),
            ("\nINSERT INTO t SELECT 1", 2, "INSERT is not possible"),
            ("DELETE FROM t", 1, "DELETE"),
            ("\nCOPY t TO 'x.parquet'", 2, "COPY is not possible"),
            ("EXPLAIN SELECT 1", 1, "EXPLAIN"),
            ("SET a = 1", 1, "SET"),
            ("SHOW TABLES", 1, "SHOW"),
            ("VALUES (1)", 1, "VALUES is not possible"),
            ("SELECT 1 AS a;\nSELECT 2 AS b", 2, "second statement"),
            ("SELECT a\nINTO b\nFROM t", 2, "SELECT INTO"),
            ("SELECT *\nFROM 'x.parquet'", 2, "is a file, not a table"),
            ("SELECT *\nFROM\n  read_parquet('x')", 3, "table function"),
            (
                "SELECT * FROM t,\nLATERAL generate_series(1, 2) AS g",
                2,
                "table function",
            ),
            (
                "SELECT * FROM t WHERE a IN (\nSELECT a FROM public.u)",
                2,
                "`public.u` is not the name",
            ),
            (
                "SELECT * FROM t\nJOIN information_schema.tables ON true",
                2,
                "not the name of a table",
            ),
            ("SELECT a\nFROM t\nWHERE (a = 1", 3, "does not parse"),
            ("SELECT a FRM t\nWHERE", 1, "does not parse"),
        ] {
            let error = parse(Path::new("m.sql"), text).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains(part), "{text}: {error}");
            assert_eq!(error.line, Some(line), "{text}: {error}");
        }
        for text in ["", "-- only a comment\n"] {
            let error = parse(Path::new("m.sql"), text).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains("no SELECT"), "{error}");
        }
    }

    #[test]
    fn tables_are_those_of_the_text_without_aliases_and_ctes() {
        for (text, expected) in [
            ("SELECT 1 AS a", vec![]),
            (
                "SELECT * FROM Events e JOIN \"users\" AS events2 USING (id);",
                vec!["events", "users"],
            ),
            (
                "WITH t AS (SELECT * FROM a), u AS (SELECT * FROM t) SELECT * FROM u",
                vec!["a"],
            ),
            (
                "SELECT * FROM a UNION ALL (SELECT * FROM b)",
                vec!["a", "b"],
            ),
            (
                "SELECT (SELECT max(x) FROM c) AS m FROM (SELECT * FROM d) AS s",
                vec!["c", "d"],
            ),
            ("SELECT x FROM a CROSS JOIN UNNEST(a.xs) AS u(x)", vec!["a"]),
        ] {
            let parsed = parse(Path::new("m.sql"), text).unwrap();
            let names: Vec<_> = parsed
                .tables
                .iter()
                .map(|(name, _)| name.as_str())
                .collect();
            assert_eq!(names, expected, "{text}");
        }
    }
}
