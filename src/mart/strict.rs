//! Refuses casts and window frames that the engine carries out in its own way, and that Athena and DuckDB call an error.

use std::path::Path;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, WindowFrameBound, WindowFrameUnits,
};
use datafusion::sql::parser::Statement;

use super::error::MartError;
use super::{blame, phrases};

/// What is wrong with an expression, what to write, and the functions or operators that it is written with.
struct Wrong {
    message: String,
    hint: &'static str,
    calls: Vec<String>,
}

/// Refuses the first such expression of a plan whose types were not yet adapted to each other. `statement` is what the
/// plan was made of.
///
/// # Errors
/// The expression, with its line if the statement has such expressions on one line only.
pub(super) fn check(
    file: &Path,
    statement: &Statement,
    plan: &LogicalPlan,
) -> Result<(), MartError> {
    let mut found = None;
    let walked = plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                found = wrong(part, &schema)?;
                Ok(match found {
                    Some(_) => TreeNodeRecursion::Stop,
                    None => TreeNodeRecursion::Continue,
                })
            })
        })
    });
    match (found, walked) {
        (Some(wrong), _) => {
            let calls: Vec<&str> = wrong.calls.iter().map(String::as_str).collect();
            let line = blame::of_calls(statement, &calls);
            Err(MartError::new(file, line, wrong.message).hint(wrong.hint))
        }
        (None, Err(error)) => Err(MartError::planning(file, &error)),
        (None, Ok(_)) => Ok(()),
    }
}

/// What is wrong with one expression over rows of this schema.
fn wrong(expression: &Expr, schema: &DFSchema) -> Result<Option<Wrong>, DataFusionError> {
    if let Some(wrong) = no_condition(expression, schema) {
        return Ok(Some(wrong));
    }
    let (inner, to) = match expression {
        Expr::Cast(cast) => (&cast.expr, cast.field.data_type()),
        Expr::TryCast(cast) => (&cast.expr, cast.field.data_type()),
        Expr::WindowFunction(function) => {
            let params = &function.params;
            let frame = &params.window_frame;
            if frame.units != WindowFrameUnits::Range {
                return Ok(None);
            }
            let offsets = [&frame.start_bound, &frame.end_bound];
            let Some(offset) = offsets.into_iter().find_map(offset) else {
                return Ok(None);
            };
            // A column of the query around a sub-query is not in the schema.
            let Some(Ok(kind)) = params.order_by.first().map(|by| by.expr.get_type(schema)) else {
                return Ok(None);
            };
            let name = function.fun.name().to_owned();
            return Ok(of_frame(&kind, &offset).map(|(message, hint)| Wrong {
                message,
                hint,
                calls: vec![name],
            }));
        }
        _ => return Ok(None),
    };
    // A column of the query around a sub-query is not in the schema.
    let Ok(from) = inner.get_type(schema) else {
        return Ok(None);
    };
    let hint = match (
        from.is_numeric(),
        is_time(&from),
        to.is_numeric(),
        is_time(to),
    ) {
        (true, _, _, true) => {
            "say what the number counts: `from_unixtime(n)` takes seconds, `from_unixtime(n / 1000e0)` milliseconds; CAST that"
        }
        (_, true, true, _) => "write `to_unixtime(time)`, which gives seconds",
        _ => return Ok(None),
    };
    let words = |kind: &DataType| phrases::in_words(&kind.to_string());
    Ok(Some(Wrong {
        message: format!("there is no CAST from {} to {}", words(&from), words(to)),
        hint,
        calls: vec!["cast".to_owned()],
    }))
}

/// A number or a text in the place of a condition, which the engine would cast to boolean.
fn no_condition(expression: &Expr, schema: &DFSchema) -> Option<Wrong> {
    let (conditions, clause) = match expression {
        Expr::Case(case) if case.expr.is_none() => {
            let conditions = case.when_then_expr.iter().map(|(when, _)| &**when);
            (conditions.collect::<Vec<_>>(), "WHEN")
        }
        Expr::AggregateFunction(call) => (
            call.params.filter.as_deref().into_iter().collect(),
            "FILTER",
        ),
        _ => return None,
    };
    conditions.into_iter().find_map(|condition| {
        let kind = condition.get_type(schema).ok()?;
        let is_condition = matches!(kind, DataType::Boolean | DataType::Null);
        let calls = match expression {
            Expr::AggregateFunction(call) => vec![call.func.name().to_owned()],
            _ => vec!["case".to_owned()],
        };
        (!is_condition).then(|| Wrong {
            message: format!(
                "the condition behind {clause} is {}, not boolean",
                phrases::in_words(&kind.to_string())
            ),
            hint: "write a comparison, such as `x > 0` or `x IS NOT NULL`",
            calls,
        })
    })
}

fn is_time(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..)
    )
}

/// The distance of a bound that is not at an end of the partition and not at the current row.
fn offset(bound: &WindowFrameBound) -> Option<String> {
    match bound {
        WindowFrameBound::Preceding(value) | WindowFrameBound::Following(value) => {
            (!value.is_null()).then(|| value.to_string())
        }
        WindowFrameBound::CurrentRow => None,
    }
}

/// What is wrong with a frame of RANGE over an order of this type.
fn of_frame(kind: &DataType, offset: &str) -> Option<(String, &'static str)> {
    let is_number = offset.parse::<f64>().is_ok();
    if kind.is_numeric() || kind.is_null() || (is_time(kind) && !is_number) {
        return None;
    }
    let words = phrases::in_words(&kind.to_string());
    let hint = match is_time(kind) {
        true => "write a span of time, such as `INTERVAL '1' DAY`",
        false => "write ROWS or GROUPS in place of RANGE",
    };
    Some((
        format!("RANGE has the distance {offset}, and the window is ordered by {words}"),
        hint,
    ))
}
