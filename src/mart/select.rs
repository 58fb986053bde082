//! The text of a mart, which must be one SELECT.

use std::path::Path;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::binary::type_union_coercion;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Volatility};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::{Query, Select, SelectItem, Spanned, Statement as Sql};
use datafusion::sql::sqlparser::dialect::GenericDialect;

use super::clauses::{
    self, Beside, Call, DateUse, Differing, Notes, Recursion, leftmost, line_of, only_select,
};
use super::{MartError, blame};
use crate::engine;
use crate::layout::LONGEST_NAME;

/// A parsed SELECT.
pub(super) struct Parsed {
    /// The syntax tree.
    pub statement: Statement,
    /// The tables that the text names, without CTEs, each with the line that names it first. Names are in lower case
    /// unless they are quoted.
    pub tables: Vec<(String, Option<usize>)>,
    /// For each output column up to the first wildcard, its line and whether AS names it.
    columns: Vec<(usize, bool)>,
    /// Function calls with a clause that only aggregates and windows have.
    calls: Vec<Call>,
    /// Items of FROM that read columns of a table beside them.
    pub(super) beside: Vec<Beside>,
    /// The places where the column `dt` is calculated with or given to a function.
    pub(super) dates: Vec<DateUse>,
    /// Recursive queries, by their SELECT that may read the query itself.
    recursions: Vec<Recursion>,
    /// Constructs that Athena and DuckDB answer differently.
    pub(super) differing: Vec<Differing>,
    /// Names after AS in all SELECTs.
    pub(super) aliases: Vec<String>,
}

impl Parsed {
    /// The line where output column `index` is written, from 1.
    pub fn column_line(&self, index: usize) -> Option<usize> {
        let (line, _) = self.columns.get(index)?;
        Some(*line).filter(|line| *line > 0)
    }

    /// Whether AS gives output column `index` its name.
    pub fn is_named(&self, index: usize) -> bool {
        self.columns.get(index).is_some_and(|(_, named)| *named)
    }

    /// Refuses recursive queries that would lose parts of values: the planner casts the rows of the second SELECT to
    /// the types of the first SELECT.
    pub fn refuse_cut_off(&self, file: &Path, plan: &LogicalPlan) -> Result<(), MartError> {
        let mut refused = None;
        let walked = plan.apply_with_subqueries(|node| {
            if let LogicalPlan::RecursiveQuery(query) = node
                && let LogicalPlan::Projection(made) = query.recursive_term.as_ref()
            {
                let written = self.recursions.iter().find(|seen| seen.name == query.name);
                for (i, column) in made.expr.iter().enumerate() {
                    let by_hand = written.and_then(|seen| seen.casts.get(i)) == Some(&true);
                    let Expr::Cast(cast) = column.clone().unalias_nested().data else {
                        continue;
                    };
                    let from = cast.expr.get_type(made.input.schema())?;
                    let to = cast.field.data_type();
                    if !by_hand && is_cut_off(&from, to) {
                        let name = &query.name;
                        let message = format!(
                            "column {} of the recursive query `{name}` is {to} in its first SELECT, and \
                             {from} in the one that reads `{name}`",
                            i + 1
                        );
                        let line = written.and_then(|seen| seen.line);
                        refused = Some(MartError::new(file, line, message).hint(
                            "write a CAST to the wider type in the first SELECT",
                        ));
                        return Ok(TreeNodeRecursion::Stop);
                    }
                }
            }
            Ok(TreeNodeRecursion::Continue)
        });
        match (refused, walked) {
            (Some(refused), _) => Err(refused),
            (None, Err(error)) => Err(MartError::planning(file, &error)),
            (None, Ok(_)) => Ok(()),
        }
    }

    /// Refuses clauses of aggregates and windows behind functions of one row, where the planner
    /// ignores them. `of_one_row` says whether a function is one of these functions.
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

/// Whether every reader accepts a name of a table or column.
pub(super) fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Why a name of a table or column is too long, if it is.
pub(super) fn too_long(name: &str) -> Option<String> {
    let bytes = name.len();
    (bytes > LONGEST_NAME).then(|| {
        format!(
            "the name `{name}` has {bytes} bytes, more than the {LONGEST_NAME} that Redshift reads"
        )
    })
}

/// Parses `text`, which is the whole file, so that lines are lines of the file.
///
/// # Errors
/// The text is not one plain SELECT.
pub(super) fn parse(file: &Path, text: &str) -> Result<Parsed, MartError> {
    clauses::spelling::check(file, text)?;
    let text = clauses::spelling::with_types_read(text);
    let text = text.as_ref();
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
    let notes = checked(file, text, &mut statement)?;
    let query = query_of(file, text, &statement)?;
    let Some(select) = leftmost(&query.body) else {
        return Err(only_select(file, line_of(query), &query.body.to_string()));
    };
    let columns = columns_of(select);
    let (references, _) = resolve_table_references(&statement, true)
        .map_err(|error| MartError::planning(file, &error))?;
    let tables = references
        .iter()
        .map(|reference| {
            let name = reference.table().to_owned();
            let line = notes
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
        calls: notes.calls,
        beside: notes.beside,
        dates: notes.dates,
        recursions: notes.recursions,
        differing: notes.differing,
        aliases: notes.aliases,
    })
}

/// Checks the clauses of a statement, and spells its functions as the engine does.
fn checked(file: &Path, text: &str, statement: &mut Statement) -> Result<Notes, MartError> {
    let notes = clauses::check(file, text, query_of(file, text, statement)?)?;
    if let Statement::Statement(sql) = statement {
        engine::spelled(sql.as_mut()).map_err(|refused| {
            MartError::new(file, refused.line, refused.message).hint(refused.hint)
        })?;
    }
    Ok(notes)
}

/// The query that a statement is.
fn query_of<'a>(file: &Path, text: &str, statement: &'a Statement) -> Result<&'a Query, MartError> {
    let Statement::Statement(sql) = statement else {
        return Err(only_select(file, first_line(text), &statement.to_string()));
    };
    match sql.as_ref() {
        Sql::Query(query) => Ok(query),
        other => Err(only_select(
            file,
            line_of(other).or_else(|| first_line(text)),
            &other.to_string(),
        )),
    }
}

/// The lines of the columns of a SELECT up to the first wildcard, and whether AS names them.
fn columns_of(select: &Select) -> Vec<(usize, bool)> {
    select
        .projection
        .iter()
        .take_while(|item| {
            matches!(
                item,
                SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }
            )
        })
        .map(|item| {
            let line = usize::try_from(item.span().start.line).unwrap_or(0);
            (line, matches!(item, SelectItem::ExprWithAlias { .. }))
        })
        .collect()
}

/// The number of the first line that is neither blank nor a comment.
fn first_line(text: &str) -> Option<usize> {
    text.lines()
        .position(|line| !line.trim().is_empty() && !line.trim().starts_with("--"))
        .map(|i| i + 1)
}

/// Whether a cast may lose a part of a value without failing.
fn is_cut_off(from: &DataType, to: &DataType) -> bool {
    let loses = match (from, to) {
        (DataType::Timestamp(..), DataType::Date32 | DataType::Date64) => true,
        (from, to) => (from.is_floating() || from.is_decimal()) && to.is_numeric(),
    };
    loses && type_union_coercion(from, to).as_ref() != Some(to)
}

/// Refuses functions of the clock and of chance, because a table may depend on its inputs alone.
pub(super) fn refuse_unstable(
    file: &Path,
    statement: &Statement,
    plan: &LogicalPlan,
) -> Result<(), MartError> {
    let mut found = None;
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                if matches!(part, Expr::Placeholder(_) | Expr::ScalarVariable(..)) {
                    found = Some((None, format!("`{part}` has no value here")));
                    return Ok(TreeNodeRecursion::Stop);
                }
                if let Expr::ScalarFunction(call) = part
                    && call.func.signature().volatility != Volatility::Immutable
                {
                    let name = call.func.name();
                    let names: Vec<&str> = std::iter::once(name)
                        .chain(call.func.aliases().iter().map(String::as_str))
                        .collect();
                    let line = blame::of_calls(statement, &names);
                    let message = format!("`{name}()` gives another value in every run");
                    found = Some((line, message));
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    match (found, walked) {
        (Some((line, message)), _) => Err(MartError::new(file, line, message)
            .hint("a mart must be the same whenever it is built: use the times of the events")),
        (None, Err(error)) => Err(MartError::planning(file, &error)),
        (None, Ok(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
