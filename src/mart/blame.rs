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

use super::clauses::line_of;

/// A SELECT with more expressions is not taken apart: it is planned once for each of them at most.
const MOST: usize = 400;

/// Characters of an expression that are told.
const SHOWN: usize = 80;

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

/// An expression as messages show it.
fn shown(expression: &Expr) -> String {
    let text = expression.to_string();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(SHOWN) {
        None => text,
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
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
            ("date_trunc('day', at)", "2262-04-11"),
            ("date_bin(INTERVAL '1 day', at)", "2262-04-11"),
            ("to_char(at, '%Y')", "2262-04-11"),
            (
                "date_trunc('day', CAST('2300-01-01' AS timestamp))",
                "2262-04-11",
            ),
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
            ("split_part(id, 'x', 0)", "field position"),
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
}
