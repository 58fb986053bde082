//! Whether the rows of a date can come from rows of this date alone, as the plan of a SELECT shows.
//!
//! ```text
//! scan of events           dt is the date of the row
//! GROUP BY dt, os          dt is the date of all the rows of the group
//! a JOIN b ON a.dt = b.dt  both columns are the date of both rows
//! GROUP BY os, LIMIT 3     rows of any date
//! ```
//!
//! A mart whose plan shows this needs no sample. A step that is not known here counts as rows of any date; then
//! sample dates are evaluated (`sample`).

use std::collections::BTreeSet;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError};
use datafusion::logical_expr::expr::{Alias, Cast, TryCast, WindowFunction};
use datafusion::logical_expr::{Distinct, Expr, Join, JoinType, LogicalPlan, Union, Unnest};

use crate::layout::DATE;

/// The dates that the rows of a plan come from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rows {
    /// The rows are the same whatever dates are read.
    Fixed,
    /// A row with a date in one of these columns comes from rows of this date alone. The set is not empty.
    Dated(BTreeSet<usize>),
    /// The dates are not known.
    Any,
}

impl Rows {
    /// Rows with their dates in these columns.
    fn dated(columns: impl IntoIterator<Item = usize>) -> Self {
        let columns: BTreeSet<usize> = columns.into_iter().collect();
        match columns.is_empty() {
            true => Self::Any,
            false => Self::Dated(columns),
        }
    }

    /// The rows behind a step that mixes rows of several dates unless `together` is true for the columns with dates.
    fn kept_if(self, together: impl FnOnce(&BTreeSet<usize>) -> bool) -> Self {
        match self {
            Self::Dated(columns) if !together(&columns) => Self::Any,
            other => other,
        }
    }
}

/// Whether every row of `plan` with a date in the column `dt` comes from rows of the tables `of` with this date alone.
/// Rows of other tables do not count.
///
/// # Errors
/// A plan that does not fit its own schema.
pub(super) fn is_of_one_date(
    plan: &LogicalPlan,
    of: &BTreeSet<String>,
) -> Result<bool, DataFusionError> {
    let Some(date) = plan.schema().index_of_column_by_name(None, DATE) else {
        return Ok(false);
    };
    Ok(match rows(plan, of)? {
        Rows::Fixed => true,
        Rows::Dated(columns) => columns.contains(&date),
        Rows::Any => false,
    })
}

/// The dates that the rows of a plan come from, where only the tables `of` count.
fn rows(plan: &LogicalPlan, of: &BTreeSet<String>) -> Result<Rows, DataFusionError> {
    if reads_in_expressions(plan, of)? {
        return Ok(Rows::Any);
    }
    Ok(match plan {
        LogicalPlan::TableScan(scan) => {
            if !of.contains(scan.table_name.table()) {
                Rows::Fixed
            } else if scan.fetch.is_some() {
                Rows::Any
            } else {
                Rows::dated(plan.schema().index_of_column_by_name(None, DATE))
            }
        }
        LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => Rows::Fixed,
        LogicalPlan::Filter(filter) => rows(&filter.input, of)?,
        LogicalPlan::SubqueryAlias(alias) => rows(&alias.input, of)?,
        LogicalPlan::Repartition(repartition) => rows(&repartition.input, of)?,
        LogicalPlan::Sort(sort) => rows(&sort.input, of)?.kept_if(|_| sort.fetch.is_none()),
        LogicalPlan::Limit(limit) => rows(&limit.input, of)?.kept_if(|_| false),
        LogicalPlan::Distinct(Distinct::All(input)) => rows(input, of)?,
        LogicalPlan::Projection(projection) => through(
            &rows(&projection.input, of)?,
            &projection.expr,
            projection.input.schema(),
        ),
        LogicalPlan::Aggregate(aggregate) => through(
            &rows(&aggregate.input, of)?,
            &aggregate.group_expr,
            aggregate.input.schema(),
        ),
        LogicalPlan::Window(window) => {
            let schema = window.input.schema();
            let by_date = |columns: &BTreeSet<usize>| {
                window.window_expr.iter().all(|made| match unaliased(made) {
                    Expr::WindowFunction(call) => is_by(call, columns, schema),
                    _ => false,
                })
            };
            rows(&window.input, of)?.kept_if(by_date)
        }
        LogicalPlan::Union(union) => of_union(union, of)?,
        LogicalPlan::Unnest(unnest) => of_unnest(unnest, of)?,
        LogicalPlan::Join(join) => of_join(join, of)?,
        other => {
            let mut all = Rows::Fixed;
            for input in other.inputs() {
                if rows(input, of)? != Rows::Fixed {
                    all = Rows::Any;
                }
            }
            all
        }
    })
}

/// The dates that the rows of a UNION come from.
fn of_union(union: &Union, of: &BTreeSet<String>) -> Result<Rows, DataFusionError> {
    let mut all = Rows::Fixed;
    for input in &union.inputs {
        all = match (all, rows(input, of)?) {
            (Rows::Any, _) | (_, Rows::Any) => Rows::Any,
            (Rows::Fixed, other) | (other, Rows::Fixed) => other,
            (Rows::Dated(a), Rows::Dated(b)) => Rows::dated(a.intersection(&b).copied()),
        };
    }
    Ok(all)
}

/// The dates that the rows of an UNNEST come from.
fn of_unnest(unnest: &Unnest, of: &BTreeSet<String>) -> Result<Rows, DataFusionError> {
    Ok(match rows(&unnest.input, of)? {
        Rows::Dated(columns) => {
            let lists = unnest.list_type_columns.iter().map(|(column, _)| *column);
            let taken: BTreeSet<usize> = lists
                .chain(unnest.struct_type_columns.iter().copied())
                .collect();
            let sources = unnest.dependency_indices.iter().enumerate();
            let kept = sources.filter(|(_, from)| columns.contains(from) && !taken.contains(from));
            Rows::dated(kept.map(|(column, _)| column))
        }
        other => other,
    })
}

/// The dates that the rows of a join come from.
fn of_join(join: &Join, of: &BTreeSet<String>) -> Result<Rows, DataFusionError> {
    let (left, right) = (rows(&join.left, of)?, rows(&join.right, of)?);
    if join.null_aware && right != Rows::Fixed {
        return Ok(Rows::Any);
    }
    let width = join.left.schema().fields().len();
    let on_date = |a: &BTreeSet<usize>, b: &BTreeSet<usize>| {
        join.on.iter().any(|(left, right)| {
            is_column_of(left, a, join.left.schema()) && is_column_of(right, b, join.right.schema())
        })
    };
    let (left, right) = match (left, right) {
        (Rows::Any, _) | (_, Rows::Any) => return Ok(Rows::Any),
        (Rows::Fixed, Rows::Fixed) => return Ok(Rows::Fixed),
        (Rows::Dated(a), Rows::Dated(b)) if !on_date(&a, &b) => return Ok(Rows::Any),
        (Rows::Dated(a), Rows::Dated(b)) => (a, b),
        (Rows::Dated(a), Rows::Fixed) => (a, BTreeSet::new()),
        (Rows::Fixed, Rows::Dated(b)) => (BTreeSet::new(), b),
    };
    Ok(match join.join_type {
        JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => Rows::dated(
            left.into_iter()
                .chain(right.into_iter().map(|column| width + column)),
        ),
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => Rows::dated(left),
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => Rows::dated(right),
    })
}

/// The rows behind a step that makes `expressions` the first columns: which of them still are dates.
fn through(from: &Rows, expressions: &[Expr], schema: &DFSchema) -> Rows {
    match from {
        Rows::Dated(columns) => {
            let made = expressions.iter().enumerate();
            let kept = made.filter(|(_, made)| is_column_of(made, columns, schema));
            Rows::dated(kept.map(|(column, _)| column))
        }
        other => other.clone(),
    }
}

/// Whether a window has the rows of each date in partitions of their own.
fn is_by(call: &WindowFunction, columns: &BTreeSet<usize>, schema: &DFSchema) -> bool {
    let mut by = call.params.partition_by.iter();
    by.any(|by| is_column_of(by, columns, schema))
}

fn unaliased(expression: &Expr) -> &Expr {
    match expression {
        Expr::Alias(Alias { expr, .. }) => unaliased(expr),
        other => other,
    }
}

/// Whether the value of an expression is the date of one of these columns, or NULL. It may be cast, may be the first
/// of several that is not NULL, and may stand under a condition.
fn is_column_of(expression: &Expr, columns: &BTreeSet<usize>, schema: &DFSchema) -> bool {
    let is_of = |expression: &Expr| is_column_of(expression, columns, schema);
    match expression {
        Expr::Column(column) => schema
            .maybe_index_of_column(column)
            .is_some_and(|index| columns.contains(&index)),
        Expr::Alias(alias) => is_of(&alias.expr),
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) => {
            let kind = field.data_type();
            (kind.is_string() || *kind == DataType::Date32) && is_of(expr)
        }
        Expr::Case(case) => {
            case.expr.is_none()
                && case.when_then_expr.iter().all(|(_, then)| is_of(then))
                && case.else_expr.as_deref().is_none_or(is_of)
        }
        Expr::ScalarFunction(call) => call.func.name() == "coalesce" && call.args.iter().all(is_of),
        _ => false,
    }
}

/// Whether a sub-query among the expressions of a plan reads one of these tables.
fn reads_in_expressions(
    plan: &LogicalPlan,
    of: &BTreeSet<String>,
) -> Result<bool, DataFusionError> {
    let mut reads = false;
    plan.apply_expressions(|expression| {
        expression.apply(|part| {
            let query = match part {
                Expr::ScalarSubquery(query) => query,
                Expr::InSubquery(query) => &query.subquery,
                Expr::Exists(query) => &query.subquery,
                Expr::SetComparison(query) => &query.subquery,
                _ => return Ok(TreeNodeRecursion::Continue),
            };
            query.subquery.apply_with_subqueries(|node| {
                if let LogicalPlan::TableScan(scan) = node
                    && of.contains(scan.table_name.table())
                {
                    reads = true;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(reads)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Field, Schema};
    use datafusion::datasource::empty::EmptyTable;
    use datafusion::prelude::SessionContext;

    use super::*;

    /// Over `events` and `users`, which have dates, `said`, of which the header says how far it is read, and
    /// `plain`, which has none.
    async fn of_one_date(sql: &str) -> bool {
        let session = SessionContext::new();
        let table = |columns: &[&str]| {
            let fields = columns.iter().map(|name| match *name {
                "n" => Field::new(*name, DataType::Int64, true),
                name => Field::new(name, DataType::Utf8, true),
            });
            Arc::new(EmptyTable::new(Arc::new(Schema::new(
                fields.collect::<Vec<_>>(),
            ))))
        };
        for (name, columns) in [
            ("events", &["who", "os", "n", "dt"][..]),
            ("users", &["who", "name", "dt"]),
            ("said", &["who", "dt"]),
            ("plain", &["who", "name"]),
        ] {
            session.register_table(name, table(columns)).unwrap();
        }
        let plan = session.state().create_logical_plan(sql).await.unwrap();
        let plan = session.state().optimize(&plan).unwrap();
        let of = ["events".to_owned(), "users".to_owned()].into();
        is_of_one_date(&plan, &of).unwrap()
    }

    #[tokio::test]
    async fn what_keeps_dates_apart_is_known() {
        for sql in [
            "SELECT dt, os, count(*) AS c FROM events GROUP BY dt, os",
            "SELECT DISTINCT dt, who FROM events",
            "SELECT CAST(CAST(dt AS date) AS varchar) AS dt, sum(n) AS s FROM events GROUP BY 1",
            "SELECT dt, who, row_number() OVER (PARTITION BY dt, os ORDER BY n) AS r FROM events",
            "SELECT dt, who FROM (SELECT *, row_number() OVER (PARTITION BY dt ORDER BY n) AS r FROM events) AS x WHERE r < 3",
            "SELECT e.dt, u.name FROM events AS e JOIN users AS u ON u.dt = e.dt AND u.who = e.who",
            "SELECT e.dt, u.name FROM events AS e, users AS u WHERE u.dt = e.dt AND u.who = e.who",
            "SELECT e.dt, u.name FROM events AS e LEFT JOIN users AS u ON u.dt = e.dt AND u.who = e.who",
            "SELECT coalesce(e.dt, u.dt) AS dt, u.name FROM events AS e FULL JOIN users AS u ON u.dt = e.dt",
            "SELECT e.dt, p.name FROM events AS e LEFT JOIN plain AS p ON p.who = e.who",
            "SELECT e.dt, count(*) AS c FROM events AS e JOIN said AS s ON s.who = e.who GROUP BY e.dt",
            "SELECT dt, n FROM events UNION ALL SELECT dt, 1 AS n FROM users",
            "WITH d AS (SELECT dt, count(*) AS c FROM events GROUP BY dt) \
             SELECT e.dt, e.n * 1.0 / d.c AS share FROM events AS e JOIN d ON d.dt = e.dt",
            "SELECT dt, who FROM events WHERE who IN (SELECT who FROM plain)",
            "SELECT dt, who FROM events AS e WHERE EXISTS (SELECT 1 FROM users AS u WHERE u.dt = e.dt AND u.who = e.who)",
            "SELECT dt, who FROM events WHERE n > (SELECT count(*) FROM plain) ORDER BY n",
            "SELECT dt, unnest(make_array(n, 1)) AS x FROM events",
        ] {
            assert!(of_one_date(sql).await, "{sql}");
        }
    }

    #[tokio::test]
    async fn what_may_mix_dates_is_not() {
        for sql in [
            "SELECT max(dt) AS dt, count(*) AS c FROM events",
            "SELECT os AS dt, count(*) AS c FROM events GROUP BY os",
            "SELECT min(dt) AS dt, who FROM events GROUP BY who",
            "SELECT dt, who FROM events ORDER BY n LIMIT 3",
            "SELECT dt, who, row_number() OVER (PARTITION BY who ORDER BY dt) AS r FROM events",
            "SELECT dt, lag(n) OVER (ORDER BY dt) AS before FROM events",
            "SELECT dt, sum(n) OVER () AS s, sum(n) OVER (PARTITION BY dt) AS d FROM events",
            "SELECT e.dt, u.name FROM events AS e JOIN users AS u ON u.who = e.who",
            "SELECT e.dt, u.name FROM events AS e CROSS JOIN users AS u",
            "SELECT a.dt, count(*) AS c FROM events AS a JOIN events AS b ON b.who = a.who AND b.dt >= a.dt GROUP BY a.dt",
            "SELECT a.dt, b.n FROM events AS a LEFT JOIN events AS b \
             ON CAST(b.dt AS date) = CAST(a.dt AS date) - INTERVAL '1 day'",
            "SELECT dt, who FROM events WHERE who IN (SELECT who FROM users)",
            "SELECT dt, who FROM events WHERE who NOT IN (SELECT who FROM users)",
            "SELECT dt, who FROM events WHERE dt NOT IN (SELECT dt FROM users)",
            "SELECT dt, who FROM events WHERE n = (SELECT max(n) FROM events)",
            "SELECT who AS dt, n FROM events UNION ALL SELECT dt, 1 AS n FROM users",
            "SELECT who AS dt, n FROM events",
            "SELECT dt, count(*) AS c FROM events GROUP BY ROLLUP (dt)",
            "SELECT DISTINCT ON (who) who, dt FROM events ORDER BY who, n",
            "SELECT s.dt, count(e.who) AS c FROM said AS s LEFT JOIN events AS e ON e.who = s.who GROUP BY s.dt",
            "SELECT '2024-03-01' AS dt, count(*) AS c FROM events",
            "SELECT coalesce(dt, '2024-03-01') AS dt, count(*) AS c FROM events GROUP BY 1",
        ] {
            assert!(!of_one_date(sql).await, "{sql}");
        }
    }
}
