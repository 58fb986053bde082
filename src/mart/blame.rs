//! The line of a SELECT that an error of the engine comes from. The engine itself names a line for few of its
//! errors.
//!
//! ```text
//! error of planning    the SELECT is planned again with one expression after the other replaced by NULL:
//!                      the smallest expression that holds the whole error is blamed
//! error of a value     the message says which functions or operators can fail in this way; where all of them
//!                      stand on one line, that line is blamed
//! ```

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, UnaryOperator, Value, Visit, VisitMut, Visitor, VisitorMut,
};

use super::clauses::{line_of, shown};

/// A SELECT with more expressions is not taken apart: it is planned once for each of them at most.
const MOST: usize = 400;

/// The expression that an error comes from.
#[derive(Debug, PartialEq)]
pub(super) struct Blamed {
    pub line: Option<usize>,
    /// On one line, cut where it is long.
    pub text: String,
}

/// An expression of a statement, numbered as they are visited: each before its parts.
struct Place {
    parent: Option<usize>,
    /// The number after the last of its parts.
    end: usize,
    blamed: Blamed,
}

/// The smallest expression of `statement` that holds the whole error of planning it; `None` where planning does
/// not fail, or no single expression is to blame. `plan` gives the text of its error.
pub(super) async fn of_planning(
    statement: &Statement,
    plan: impl AsyncFn(Statement) -> Result<(), String>,
) -> Option<Blamed> {
    let Statement::Statement(sql) = statement else {
        return None;
    };
    let mut seen = Seen::default();
    let _ = Visit::visit(sql.as_ref(), &mut seen);
    let places = seen.places;
    if places.len() > MOST {
        return None;
    }
    let error = plan(statement.clone()).await.err()?;
    let without = async |numbers: &[usize]| {
        let mut sql = sql.clone();
        let mut replace = Replace {
            numbers,
            places: &places,
            next: 0,
        };
        let _ = VisitMut::visit(sql.as_mut(), &mut replace);
        plan(Statement::Statement(sql)).await.err()
    };
    let parts_of = |parent: Option<usize>| {
        let all = places.iter().enumerate();
        let parts = all.filter(move |(_, place)| place.parent == parent);
        parts.map(|(number, _)| number).collect::<Vec<_>>()
    };
    // With a second error elsewhere the first one goes, and the SELECT still cannot be planned.
    let roots = parts_of(None);
    let (mut mended, mut changed) = (None, None);
    for root in roots {
        match without(&[root]).await {
            None => {
                mended = Some(root);
                break;
            }
            Some(other) if other != error => changed = changed.or(Some(root)),
            Some(_) => {}
        }
    }
    let mut found = mended.or(changed)?;
    'smaller: loop {
        let parts = parts_of(Some(found));
        for part in &parts {
            let others: Vec<usize> = parts
                .iter()
                .copied()
                .filter(|other| other != part)
                .collect();
            let alone = match others.is_empty() {
                // The whole of it may fail, and not the part.
                true => without(&[*part]).await.as_ref() != Some(&error),
                false => without(&others).await.as_ref() == Some(&error),
            };
            if alone && !is_leaf(&places, *part) {
                found = *part;
                continue 'smaller;
            }
        }
        break;
    }
    places.into_iter().nth(found).map(|place| place.blamed)
}

/// Whether an expression has no parts: a column or a constant says too little about an error of types.
fn is_leaf(places: &[Place], number: usize) -> bool {
    places
        .get(number)
        .is_none_or(|place| place.end == number + 1)
}

/// The line on which all calls of these functions and uses of these operators stand.
pub(super) fn of_calls(statement: &Statement, names: &[&str]) -> Option<usize> {
    let Statement::Statement(sql) = statement else {
        return None;
    };
    let mut calls = Calls {
        names,
        lines: BTreeSet::new(),
    };
    let _ = Visit::visit(sql.as_ref(), &mut calls);
    match calls.lines.len() {
        1 => calls.lines.pop_first().flatten(),
        _ => None,
    }
}

/// Collects the expressions of a statement.
#[derive(Default)]
struct Seen {
    places: Vec<Place>,
    open: Vec<usize>,
}

impl Visitor for Seen {
    type Break = ();

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
        let number = self.places.len();
        self.places.push(Place {
            parent: self.open.last().copied(),
            end: number + 1,
            blamed: Blamed {
                line: line_of(expression),
                text: shown(expression),
            },
        });
        self.open.push(number);
        match number > MOST {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
        let end = self.places.len();
        if let Some(place) = self.open.pop().and_then(|open| self.places.get_mut(open)) {
            place.end = end;
        }
        ControlFlow::Continue(())
    }
}

/// Writes NULL in the place of some expressions.
struct Replace<'a> {
    numbers: &'a [usize],
    places: &'a [Place],
    next: usize,
}

impl VisitorMut for Replace<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
        let number = self.next;
        self.next = match self.places.get(number) {
            Some(place) if self.numbers.contains(&number) => {
                *expression = Expr::Value(Value::Null.into());
                place.end
            }
            _ => number + 1,
        };
        ControlFlow::Continue(())
    }
}

/// Collects the lines of some functions and operators.
struct Calls<'a> {
    names: &'a [&'a str],
    lines: BTreeSet<Option<usize>>,
}

impl Visitor for Calls<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
        let name = match expression {
            Expr::Function(call) => call.name.to_string().to_ascii_lowercase(),
            Expr::BinaryOp { op, .. } => op.to_string(),
            Expr::UnaryOp {
                op: UnaryOperator::Minus,
                ..
            } => "-".to_owned(),
            Expr::Cast { .. } | Expr::TypedString(_) => "cast".to_owned(),
            Expr::AtTimeZone { .. } => "at time zone".to_owned(),
            Expr::Extract { .. } => "date_part".to_owned(),
            Expr::Substring { .. } => "substr".to_owned(),
            Expr::Subquery(_) => "sub-query".to_owned(),
            Expr::Case { .. } => "case".to_owned(),
            Expr::CompoundFieldAccess { access_chain, .. }
                if access_chain
                    .iter()
                    .any(|part| matches!(part, AccessExpr::Subscript(_))) =>
            {
                "array_element".to_owned()
            }
            _ => return ControlFlow::Continue(()),
        };
        if self.names.contains(&name.as_str()) {
            self.lines.insert(line_of(expression));
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Array, ArrayRef, BooleanArray, Date32Array, Int64Array, ListArray, RecordBatch,
        StringArray, TimestampMillisecondArray,
    };
    use arrow::datatypes::Int32Type;
    use futures::TryStreamExt;

    use super::super::{MartError, evaluate, load};
    use crate::catalog::memory_table;
    use crate::engine::Engine;

    fn rows() -> RecordBatch {
        let at = TimestampMillisecondArray::from(vec![1_554_076_800_000, 11_021_097_600_000]);
        let tags = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)]), None]);
        let columns: [(&str, ArrayRef); 6] = [
            ("n", Arc::new(Int64Array::from(vec![3, 30]))),
            ("id", Arc::new(StringArray::from(vec!["i0", "i1"]))),
            ("ok", Arc::new(BooleanArray::from(vec![true, false]))),
            ("at", Arc::new(at.with_timezone("UTC"))),
            ("d", Arc::new(Date32Array::from(vec![17_987, 17_988]))),
            ("tags", Arc::new(tags) as Arc<dyn Array>),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    /// The error of planning or of evaluating a mart over the table `t`, without its folder.
    async fn error(sql: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("m.sql"), sql).unwrap();
        let made = async {
            let graph = load(folder.path(), &["t".to_owned()], &[])?;
            let engine = Engine::new(64 << 20, 1, &folder.path().join("spill")).unwrap();
            let schema = rows().schema();
            graph
                .check(&engine, &[("t".to_owned(), Arc::clone(&schema))])
                .await?;
            let table = memory_table(schema, vec![rows()]).unwrap();
            let mart = &graph.marts()[0];
            let inputs = [("t".to_owned(), table)];
            let (_, rows) = evaluate(&engine, mart, &inputs, None, false).await?;
            let rows: Result<Vec<RecordBatch>, _> = rows.try_collect().await;
            rows.map_err(|error| MartError::running(mart, &error))
        };
        let error = made.await.map(drop).expect_err(sql).to_string();
        let (_, error) = error.split_once("m.sql").unwrap();
        for word in [
            "Error during",
            "Execution error",
            "Internal",
            "Arrow",
            "Int64",
            "Utf8",
            "Boolean",
        ] {
            assert!(!error.contains(word), "{sql}: {error}");
        }
        error.to_owned()
    }

    #[tokio::test]
    async fn an_error_of_types_names_line_expression_and_types() {
        for (expression, expected) in [
            (
                "CASE WHEN n > 5 THEN true ELSE 0 END",
                "`CASE WHEN n > 5 THEN true ELSE 0 END`: the branches of CASE have no common type: then (boolean) and \
                 else (bigint); write the same type in each branch: `THEN 1 ELSE 0`",
            ),
            (
                "CAST(CASE WHEN ok THEN tags ELSE 1 END AS text) || id",
                "`CASE WHEN ok THEN tags ELSE 1 END`: the branches of CASE",
            ),
            (
                "CASE n WHEN 'x' THEN 1 WHEN true THEN 2 END",
                "after CASE cannot be compared",
            ),
            (
                "coalesce(ok, n)",
                "`coalesce` does not take these types: (boolean, bigint)",
            ),
            (
                "nullif(ok, d)",
                "`nullif` does not take these types: (boolean, date)",
            ),
            (
                "greatest(at, n)",
                "`greatest` does not take these types: (timestamp, bigint)",
            ),
            ("ok + 1", "cannot calculate boolean + bigint"),
            ("at + 1", "cannot calculate timestamp + bigint"),
            ("at + at", "cannot calculate timestamp + timestamp"),
            (
                "n AND ok",
                "AND and OR need boolean on both sides, not bigint AND boolean",
            ),
            ("ok = d", "cannot compare or combine boolean = date"),
            (
                "n IN ('a', true)",
                "cannot compare or combine bigint with [text, boolean]",
            ),
            (
                "ok BETWEEN 1 AND 2",
                "cannot compare or combine boolean and bigint",
            ),
            ("n LIKE 'a%'", "cannot compare or combine bigint and text"),
            (
                "CAST(tags AS bigint)",
                "there is no CAST from array to bigint",
            ),
            (
                "upper(n, 2)",
                "`upper` does not take these types: (bigint, bigint)",
            ),
            ("abs(id)", "`abs` does not take these types: (text)"),
            (
                "array_length(id)",
                "`array_length` does not take these types: (text)",
            ),
        ] {
            let error = error(&format!("SELECT\n  id,\n  {expression} AS a\nFROM t")).await;
            assert!(error.starts_with(":3: "), "{expression}: {error}");
            assert!(error.contains(expected), "{expression}: {error}");
        }
        for (sql, line, expected) in [
            (
                "SELECT 1 AS a,\n  sum(id) AS s\nFROM t",
                2,
                "`sum` does not take",
            ),
            (
                "SELECT id\nFROM t\nWHERE n",
                3,
                "the condition is bigint, not boolean; write a comparison",
            ),
            (
                "SELECT a.id\nFROM t a JOIN t b\n  ON a.n",
                3,
                "the condition after ON is bigint, not boolean",
            ),
            (
                "SELECT a.id\nFROM t a JOIN t b\n  ON a.tags = b.n",
                3,
                "cannot compare or combine array = bigint",
            ),
            (
                "SELECT n FROM t\nUNION ALL\nSELECT ok FROM t",
                1,
                "the SELECTs of UNION give different types",
            ),
            // The first of two errors.
            (
                "SELECT n,\n  abs(id) AS a,\n  abs(ok) AS b\nFROM t",
                2,
                "`abs` does not take these types: (text)",
            ),
            (
                "WITH w AS (\n  SELECT abs(id) AS a\n  FROM t)\nSELECT a FROM w",
                2,
                "`abs` does not take",
            ),
        ] {
            let error = error(sql).await;
            assert!(error.starts_with(&format!(":{line}: ")), "{sql}: {error}");
            assert!(error.contains(expected), "{sql}: {error}");
        }
    }

    #[tokio::test]
    async fn an_error_of_a_value_names_line_and_remedy() {
        for (expression, expected) in [
            ("split_part(id, 'x', n - n)", "counts from 1"),
            ("at + INTERVAL '300000 years'", "years -262143 to 262142"),
            (
                "1 / (n - 3)",
                "cannot divide by zero; write `x / nullif(y, 0)`",
            ),
            (
                "CAST(id AS bigint)",
                "Cannot cast string 'i0' to value of bigint type; TRY_CAST gives NULL there",
            ),
            ("CAST(id AS timestamp)", "TRY_CAST gives NULL"),
            (
                "CAST(n * 1000000000 AS int)",
                "Can't cast value 3000000000 to type int",
            ),
            (
                "n + 9223372036854775807",
                "CAST one operand to decimal(38, 0)",
            ),
            ("sqrt(-n)", "square root"),
            ("split_part(id, 'x', 0)", "counts from 1"),
            ("factorial(n)", "the factorial of 20"),
            ("(SELECT n FROM t)", "gives more than one row"),
        ] {
            let error = error(&format!("SELECT\n  id,\n  {expression} AS a\nFROM t")).await;
            assert!(error.starts_with(":3: "), "{expression}: {error}");
            assert!(error.contains(expected), "{expression}: {error}");
        }
        // Which of two casts has failed is not known.
        let error =
            error("SELECT\n  CAST(id AS bigint) AS a,\n  CAST(n AS text) AS b\nFROM t").await;
        assert!(error.starts_with(": Cannot cast string"), "{error}");
    }

    #[tokio::test]
    async fn every_error_of_planning_is_in_plain_words() {
        let grouped = "is neither in GROUP BY nor in an aggregate; add it to GROUP BY";
        let one_column = "gives more than one column; select one column";
        for (sql, line, expected) in [
            (
                "SELECT n,\n  upper() AS a FROM t",
                2,
                "`upper` needs arguments",
            ),
            (
                "SELECT rank() AS a FROM t",
                1,
                "there is no function `rank`; it needs a window",
            ),
            ("SELECT count(*) AS a,\n  id FROM t", 2, grouped),
            (
                "SELECT id, sum(n) AS a FROM t GROUP BY id\nORDER BY n",
                2,
                grouped,
            ),
            (
                "SELECT id, sum(n) AS a FROM t GROUP BY id\nHAVING n > 1",
                2,
                grouped,
            ),
            (
                "SELECT id FROM t\nHAVING n > 3",
                2,
                "HAVING reads a column that is neither",
            ),
            (
                "SELECT sum(n) AS a FROM t\nGROUP BY sum(n)",
                2,
                "an aggregate is not possible in GROUP BY",
            ),
            (
                "SELECT id FROM t\nWHERE sum(n) > 1",
                2,
                "an aggregate is not possible in WHERE; write the condition after HAVING",
            ),
            (
                "SELECT id FROM t\nWHERE rank() OVER (ORDER BY n) = 1",
                2,
                "a window function is not possible in WHERE and ON",
            ),
            (
                "SELECT a.id FROM t a\nJOIN t b ON a.n = b.n AND sum(a.n) > 1",
                2,
                "an aggregate is not possible in WHERE and ON",
            ),
            (
                "SELECT\n  sum(sum(n)) AS a FROM t GROUP BY id",
                2,
                "an aggregate within an aggregate",
            ),
            (
                "SELECT max(rank() OVER (ORDER BY n)) AS a FROM t",
                1,
                "a window function within an aggregate",
            ),
            (
                "SELECT rank() OVER (ORDER BY rank() OVER (ORDER BY n)) AS a FROM t",
                1,
                "a window function within a window function",
            ),
            (
                "SELECT sum(n) OVER w AS a FROM t",
                1,
                "there is no window `w`; name it after WINDOW",
            ),
            (
                "SELECT id FROM t\nQUALIFY n > 1",
                2,
                "QUALIFY without a window function",
            ),
            (
                "SELECT grouping(n) AS a FROM t GROUP BY ROLLUP (id)",
                1,
                "`t.n` is none",
            ),
            (
                "SELECT id FROM t a\nJOIN t b ON a.n = b.n",
                1,
                "`id` is a column of more than one table here",
            ),
            ("SELECT (SELECT n, id FROM t) AS a FROM t", 1, one_column),
            (
                "SELECT id FROM t\nWHERE n IN (SELECT n, id FROM t)",
                2,
                one_column,
            ),
            (
                "SELECT id, (SELECT b.n FROM t b WHERE b.id = t.id) AS a FROM t",
                1,
                "may give more than one row; aggregate it",
            ),
            (
                "SELECT id FROM t\nWHERE n > (SELECT count(*) FROM t b WHERE b.n > t.n)",
                2,
                "a sub-query reads columns of the query around it",
            ),
            (
                "SELECT t.id, x.m FROM t,\nLATERAL (SELECT b.n AS m FROM t b WHERE b.id = t.id LIMIT 1) x",
                2,
                "LATERAL reads columns of a table beside it",
            ),
            (
                "WITH RECURSIVE w AS (SELECT a\nFROM w) SELECT a FROM w",
                2,
                "the query `w` reads itself, and is no UNION",
            ),
            (
                "SELECT n AS a, id AS a FROM t",
                1,
                "two columns have the name of `t.n AS a`",
            ),
            (
                "SELECT nope.* FROM t",
                1,
                "there is no table `nope` in this SELECT",
            ),
            (
                "SELECT * EXCLUDE (id, id) FROM t",
                1,
                "EXCLUDE names a column twice",
            ),
            (
                "SELECT * EXCLUDE (nope) FROM t",
                1,
                "there is no column `nope`; the columns here are n, id, ok, at, d, tags",
            ),
            (
                "SELECT a.id FROM t a\nJOIN t b USING (nope)",
                2,
                "there is no column `nope`; the columns here are n, id, ok, at, d, tags",
            ),
            (
                "SELECT id FROM t\nGROUP BY nope",
                2,
                "there is no column `nope`; the columns here are id, n, ok, at, d, tags",
            ),
            (
                "SELECT n AS a,\n  a + 1 AS b FROM t",
                2,
                "there is no column `a`; a name after AS is not known in the same SELECT",
            ),
            (
                "SELECT id FROM t\nORDER BY 7",
                2,
                "ORDER BY 7: the SELECT has fewer columns",
            ),
            (
                "SELECT id FROM t\nORDER BY 0",
                2,
                "ORDER BY 0: the first column is 1",
            ),
            (
                "SELECT id FROM t\nGROUP BY 7",
                2,
                "GROUP BY 7: the SELECT has no such column",
            ),
            (
                "SELECT id, n FROM t\nUNION ALL SELECT id FROM t",
                1,
                "the SELECTs of UNION have different numbers of columns",
            ),
            (
                "SELECT DISTINCT ON (id) id, n FROM t ORDER BY n",
                1,
                "does not begin with the same columns",
            ),
            (
                "SELECT DISTINCT id FROM t\nORDER BY n",
                2,
                "ORDER BY behind DISTINCT names `t.n`",
            ),
            ("SELECT unnest(id) AS a FROM t", 1, "unnest() takes a list"),
            (
                "SELECT id FROM t\nWHERE unnest(tags) = 1",
                2,
                "unnest() is possible among the columns of a SELECT only",
            ),
            (
                "SELECT CAST(n AS decimal(10, 12)) AS a FROM t",
                1,
                "there is no such decimal",
            ),
            (
                "SELECT CAST(n AS decimal(50, 2)) AS a FROM t",
                1,
                "the column `a` is decimal(50, 2); readers know 38 digits",
            ),
            (
                "SELECT CAST('x' AS date) AS a FROM t",
                1,
                "Cannot cast string 'x' to value of date type; TRY_CAST",
            ),
            (
                "SELECT id FROM t\nWHERE n IN (1, 'x')",
                2,
                "Cannot cast string 'x' to value of bigint type",
            ),
            (
                "SELECT at + INTERVAL '1 fortnight' AS a FROM t",
                1,
                "'1 fortnight' is no span of time",
            ),
            (
                "SELECT at + INTERVAL n DAY AS a FROM t",
                1,
                "the number of an INTERVAL is not written out",
            ),
            (
                "SELECT at AT TIME ZONE 'Nope' AS a FROM t",
                1,
                "there is no time zone 'Nope'; time zones are names",
            ),
            (
                "SELECT date_trunc('fortnight', at) AS a FROM t",
                1,
                "`date_trunc()` has no unit 'fortnight'; units are",
            ),
            (
                "SELECT date_part('fortnight', at) AS a FROM t",
                1,
                "a time has no part 'fortnight'; parts are",
            ),
            (
                "SELECT regexp_like(id, '(') AS a FROM t",
                1,
                "the regular expression is wrong: unclosed group",
            ),
            (
                "SELECT regexp_like(id, 'a', 'q') AS a FROM t",
                1,
                "the regular expression is wrong: unrecognized flag; put",
            ),
            (
                "SELECT id LIKE 'a' ESCAPE 'xy' AS a FROM t",
                1,
                "ESCAPE takes one character",
            ),
            (
                "SELECT tags['x'] AS a FROM t",
                1,
                "only a struct or a map has members, and this is array",
            ),
            (
                "SELECT -id AS a FROM t",
                1,
                "`-` needs a number or a span of time behind it",
            ),
            (
                "SELECT NOT n AS a FROM t",
                1,
                "NOT needs boolean behind it, not bigint; write a comparison",
            ),
            (
                "SELECT sum(*) AS a FROM t",
                1,
                "the aggregate does not take `*` or NULL",
            ),
            (
                "SELECT string_agg(id, n) AS a FROM t",
                1,
                "the separator of string_agg() is not a text",
            ),
            (
                "SELECT count(DISTINCT id) AS a,\n  percentile_cont(2) WITHIN GROUP (ORDER BY n) AS p FROM t",
                2,
                "a percentile is between 0 and 1, not 2",
            ),
            (
                "SELECT named_struct(id, 1) AS a FROM t",
                1,
                "a name in named_struct() is not written out",
            ),
            (
                "SELECT 1 AS one,\n  random() AS a FROM t",
                2,
                "`random()` gives another value in every run",
            ),
            (
                "SELECT n,\n  CAST(n AS timestamp) AS a FROM t",
                2,
                "there is no CAST from bigint to timestamp; say what the number counts",
            ),
            (
                "SELECT TRY_CAST(n AS date) AS a FROM t",
                1,
                "there is no CAST from bigint to date",
            ),
            (
                "SELECT CAST(at AS bigint) AS a FROM t",
                1,
                "there is no CAST from timestamp to bigint; write `to_unixtime(time)`",
            ),
            (
                "SELECT n,\n  sum(n) OVER (ORDER BY id RANGE 1 PRECEDING) AS a FROM t",
                2,
                "RANGE has the distance 1, and the window is ordered by text; write ROWS",
            ),
            (
                "SELECT sum(n) OVER (ORDER BY tags RANGE 1 PRECEDING) AS a FROM t",
                1,
                "the window is ordered by array",
            ),
            (
                "SELECT sum(n) OVER (ORDER BY at RANGE BETWEEN CURRENT ROW AND 1 FOLLOWING) AS a FROM t",
                1,
                "ordered by timestamp; write a span of time",
            ),
            ("SELECT id FROM t\nWHERE", 2, "found: the end of the SQL"),
            (
                "SELECT n DIV 2 AS a FROM t",
                1,
                "`DIV` is not expected here",
            ),
        ] {
            let error = error(sql).await;
            assert!(error.starts_with(&format!(":{line}: ")), "{sql}: {error}");
            assert!(error.contains(expected), "{sql}: {error}");
            for word in [
                "Schema error",
                "Float64",
                "Date32",
                "Decimal",
                "List(",
                "Struct(",
                "bug",
                "DataFusion",
                "datafusion",
                "sqltorel",
                "Span(",
                "Word(",
                "LogicalPlan",
                "PhysicalExpr",
            ] {
                assert!(!error.contains(word), "{sql}: {error}");
            }
            assert!(!error.contains(char::is_control), "{sql}: {error}");
        }
    }
}
