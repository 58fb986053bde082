//! Whether the rows of a mart depend on the order in which its input rows are read.
//!
//! A sum of doubles depends on the order of its terms. Which of several equal rows a LIMIT takes depends on the row
//! that comes first. Such a mart is evaluated by one thread, so that its content does not depend on the number of
//! cores. Other marts are evaluated by all threads.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, DataFusionError};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};

/// Whether no step of a plan depends on the order of rows. A step that is not known here does.
pub(super) fn is_of_no_account(plan: &LogicalPlan) -> Result<bool, DataFusionError> {
    let mut free = true;
    plan.apply_with_subqueries(|node| {
        free = match node {
            LogicalPlan::Aggregate(aggregate) => {
                let schema = aggregate.input.schema();
                let groups = aggregate.group_expr.iter();
                // -0.0 and 0.0 are one group, which has the value that comes first.
                let named = groups.map(|group| Ok(!is_inexact(&group.get_type(schema)?)));
                let made = aggregate.aggr_expr.iter();
                let made = made.map(|made| of_no_account(made, schema));
                named
                    .chain(made)
                    .collect::<Result<Vec<_>, _>>()?
                    .into_iter()
                    .all(|free| free)
            }
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::TableScan(_)
            | LogicalPlan::EmptyRelation(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::Values(_)
            | LogicalPlan::Distinct(_) => true,
            _ => false,
        };
        Ok(match free {
            true => TreeNodeRecursion::Continue,
            false => TreeNodeRecursion::Stop,
        })
    })?;
    Ok(free)
}

/// Whether an aggregate has the same value in any order of its rows.
fn of_no_account(made: &Expr, schema: &DFSchema) -> Result<bool, DataFusionError> {
    let call = match made {
        Expr::Alias(alias) => return of_no_account(&alias.expr, schema),
        Expr::AggregateFunction(call) => call,
        _ => return Ok(false),
    };
    let AggregateFunction { func, params } = call;
    let inexact = params
        .args
        .iter()
        .map(|argument| Ok(is_inexact(&argument.get_type(schema)?)))
        .collect::<Result<Vec<_>, DataFusionError>>()?
        .contains(&true);
    Ok(match func.name() {
        "count" => true,
        "sum" | "min" | "max" | "bool_and" | "bool_or" | "bit_and" | "bit_or" | "bit_xor" => {
            !inexact
        }
        _ => false,
    })
}

/// Whether values of a type are rounded, or can be equal without being the same.
fn is_inexact(kind: &DataType) -> bool {
    kind.is_floating() || kind.is_nested()
}
