//! The notes on a mart: the constructs that DuckDB answers differently, and fields of times in UTC where the days of the
//! lake are those of another zone.

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::sql::parser::Statement;

use super::blame;
use super::clauses::Differing;
use super::differs::{CONTAINS, DIFFERENCES, DIVISION, MEAN, ROUNDED};

/// The notes on a mart: each construct once, with its line. `plan` is the plan before its types are adapted. In a lake
/// whose days are not those of UTC, fields of times in UTC are noted too.
pub(super) fn notes(
    statement: &Statement,
    seen: &[Differing],
    plan: &LogicalPlan,
    is_utc: bool,
) -> Vec<String> {
    let mut constructs: Vec<(&str, Option<usize>)> = Vec::new();
    let mut add = |what: &'static str, line: Option<usize>| {
        if constructs.iter().all(|(other, _)| *other != what) {
            constructs.push((what, line));
        }
    };
    for differing in seen {
        add(differing.what, differing.line);
    }
    let mut of_utc = None;
    let walked = plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                if let Some((what, calls)) = of_types(part, &schema) {
                    add(what, blame::of_calls(statement, calls));
                }
                if !is_utc && of_utc.is_none() {
                    of_utc = fields_of_utc(part, &schema);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    // A plan that cannot be walked has an error, which is told elsewhere.
    drop(walked);
    let place =
        |line: Option<usize>| line.map_or_else(String::new, |line| format!("line {line}: "));
    let mut notes = Vec::new();
    for (what, line) in constructs {
        if let Some(found) = DIFFERENCES.iter().find(|construct| construct.what == what) {
            notes.push(format!(
                "{}`{what}`: {}; in DuckDB {}. Both read `{}`",
                place(line),
                found.athena,
                found.duckdb,
                found.portable
            ));
        }
    }
    if let Some(name) = of_utc {
        notes.push(format!(
            "{}`{name}` takes a time in UTC, and the days of this lake are those of another zone: write `time AT TIME \
             ZONE '…'`",
            place(blame::of_calls(statement, &[&name]))
        ));
    }
    notes
}

/// The construct that an expression is because of the types of its parts, and the functions or operators that it is
/// written with.
fn of_types(
    expression: &Expr,
    schema: &DFSchema,
) -> Option<(&'static str, &'static [&'static str])> {
    let kind = |part: &Expr| part.get_type(schema).ok();
    match expression {
        Expr::BinaryExpr(binary) if binary.op == Operator::Divide => {
            let both = [kind(&binary.left)?, kind(&binary.right)?];
            both.iter()
                .all(DataType::is_integer)
                .then_some((DIVISION, &["/"]))
        }
        Expr::Cast(Cast { expr, field }) if field.data_type().is_integer() => {
            let from = kind(expr)?;
            // A number without digits behind the point is not rounded.
            let is_whole = matches!(&**expr, Expr::ScalarFunction(call)
                if ["round", "floor", "ceil", "trunc"].contains(&call.func.name()));
            (from.is_floating() && !is_whole).then_some((ROUNDED, &["cast"]))
        }
        Expr::AggregateFunction(call) if call.func.name() == "avg" => {
            let value = kind(call.params.args.first()?)?;
            value.is_decimal().then_some((MEAN, &["avg"]))
        }
        Expr::ScalarFunction(call) if call.func.name() == "contains" => {
            let list = kind(call.args.first()?)?;
            list.is_nested().then_some((CONTAINS, &["contains"]))
        }
        _ => None,
    }
}

/// Functions that take the fields of a time.
const FIELDS: &[&str] = &[
    "year",
    "quarter",
    "month",
    "week",
    "week_of_year",
    "year_of_week",
    "yow",
    "day",
    "day_of_month",
    "day_of_week",
    "dow",
    "day_of_year",
    "doy",
    "hour",
    "date_trunc",
    "date_part",
    "date_format",
    "format_datetime",
    "last_day_of_month",
];

/// The function or operator of an expression that takes fields of a time in UTC, or compares it with one that is
/// written out.
fn fields_of_utc(expression: &Expr, schema: &DFSchema) -> Option<String> {
    let is_stored = |part: &Expr| {
        let kind = part.get_type(schema);
        matches!(kind, Ok(DataType::Timestamp(_, Some(zone))) if &*zone == "UTC")
    };
    match expression {
        Expr::ScalarFunction(call) if FIELDS.contains(&call.func.name()) => {
            let found = call.args.iter().any(is_stored);
            found.then(|| call.func.name().to_owned())
        }
        Expr::Cast(Cast { expr, field }) => {
            let to = field.data_type();
            let takes = matches!(to, DataType::Date32) || to.is_string();
            (takes && is_stored(expr)).then(|| "cast".to_owned())
        }
        Expr::BinaryExpr(binary) if binary.op.supports_propagation() => {
            let found = is_stored(&binary.left) && is_written(&binary.right)
                || is_stored(&binary.right) && is_written(&binary.left);
            found.then(|| binary.op.to_string())
        }
        _ => None,
    }
}

/// Whether an expression is a literal, or a literal with a type.
fn is_written(expression: &Expr) -> bool {
    match expression {
        Expr::Literal(value, _) => !value.is_null(),
        Expr::Cast(Cast { expr, .. }) => is_written(expr),
        _ => false,
    }
}
