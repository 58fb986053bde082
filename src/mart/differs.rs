//! The closed list of constructs that Athena and DuckDB answer differently. A mart gives Athena's answer, and `plan` and
//! `run` note the construct, so that nobody is surprised who has tried the SQL in DuckDB.

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::sql::parser::Statement;

use super::blame;
use super::clauses::Differing;

/// A construct that Athena and DuckDB answer differently.
pub(super) struct Differs {
    /// The construct.
    pub what: &'static str,
    /// Athena's answer, which is the answer here.
    pub athena: &'static str,
    /// DuckDB's answer.
    pub duckdb: &'static str,
    /// The spelling that both answer alike.
    pub portable: &'static str,
}

const fn differs(
    what: &'static str,
    athena: &'static str,
    duckdb: &'static str,
    portable: &'static str,
) -> Differs {
    Differs {
        what,
        athena,
        duckdb,
        portable,
    }
}

const DIVISION: &str = "integer / integer";
const ROUNDED: &str = "CAST(double AS bigint)";
const MEAN: &str = "avg(decimal)";
const CONTAINS: &str = "contains(list, x)";

/// The closed list.
pub(super) const DIFFERENCES: &[Differs] = &[
    differs(
        DIVISION,
        "an integer: 7 / 2 is 3",
        "a double: 3.5",
        "CAST(a AS double) / b",
    ),
    differs(
        ROUNDED,
        "a half goes away from zero: 2.5 gives 3",
        "a half goes to the even number: 2.5 gives 2",
        "CAST(round(x) AS bigint)",
    ),
    differs(
        MEAN,
        "a decimal with the digits of its values",
        "a double",
        "avg(CAST(x AS double))",
    ),
    differs(
        CONTAINS,
        "NULL where x is not found and the list has a NULL",
        "false",
        "coalesce(contains(list, x), false)",
    ),
    differs(
        "greatest(a, b)",
        "NULL if one value is NULL",
        "the greatest of the other values",
        "greatest(coalesce(a, b), coalesce(b, a))",
    ),
    differs(
        "least(a, b)",
        "NULL if one value is NULL",
        "the least of the other values",
        "least(coalesce(a, b), coalesce(b, a))",
    ),
    differs(
        "concat(a, b)",
        "NULL if one text is NULL",
        "the other texts",
        "a || b",
    ),
    differs(
        "date_diff(unit, a, b)",
        "the whole units between the times",
        "the borders of units between the times",
        "date_diff('day', CAST(a AS date), CAST(b AS date))",
    ),
    differs(
        "extract(dow FROM t)",
        "7 for a Sunday",
        "0 for a Sunday",
        "extract(dow FROM t) % 7",
    ),
    differs(
        "millisecond(t)",
        "the milliseconds within the second",
        "the milliseconds within the minute",
        "millisecond(t) % 1000",
    ),
    differs(
        "regexp_replace(x, pattern, to)",
        "every match is replaced",
        "the first match is replaced",
        "replace(x, from, to), for a plain text",
    ),
    differs(
        "regexp_extract(x, pattern)",
        "NULL where nothing is found",
        "an empty text where nothing is found",
        "nullif(regexp_extract(x, pattern), '')",
    ),
    differs(
        "split_part(x, sep, n)",
        "NULL where there is no such part",
        "an empty text where there is no such part",
        "nullif(split_part(x, sep, n), '')",
    ),
    differs(
        "array_max(xs)",
        "NULL if one item is NULL",
        "the greatest of the other items",
        "max(x) over the items of UNNEST",
    ),
    differs(
        "array_min(xs)",
        "NULL if one item is NULL",
        "the least of the other items",
        "min(x) over the items of UNNEST",
    ),
    differs(
        "repeat(x, n)",
        "a list in Athena; here a text, as in DuckDB",
        "a text",
        "rpad('', n * length(x), x)",
    ),
];

/// The construct that a call of this function is, by its name in the SQL.
pub(super) fn of_call(name: &str, arguments: usize) -> Option<&'static str> {
    if name == "regexp_replace" && arguments != 3 || name == "regexp_extract" && arguments > 3 {
        return None;
    }
    let named = |construct: &&Differs| {
        let (before, _) = construct
            .what
            .split_once('(')
            .unwrap_or((construct.what, ""));
        before == name
    };
    // These depend on the types of their arguments, or are no functions.
    if ["avg", "contains", "CAST", "extract"].contains(&name) {
        return None;
    }
    DIFFERENCES
        .iter()
        .find(named)
        .map(|construct| construct.what)
}

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
