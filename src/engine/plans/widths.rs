//! How wide the rows of a plan may be, as far as the plan shows it.
//!
//! Many operators gather rows until a batch is full: a filter, an exchange between threads, and a join, which copies the
//! values of both sides into each pair of rows. One value of a megabyte beside 8,000 rows would take 8 GB.

use std::sync::Arc;

use datafusion::common::DataFusionError;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;

use super::{CONSTANT, CONSTANTS, largest_constant};
use crate::engine::bounds;

/// Bytes of a batch of a data file: where its rows are wide, it has few of them.
const SCANNED: usize = 16 << 20;

/// Bytes of the widest records, unless the configuration allows larger ones.
const RECORD: usize = 16 << 20;

/// Bytes of a value that a function or an aggregate makes out of many: larger ones are rare.
const MADE: usize = 2 << 20;

/// The most rows of a batch of this plan; `None` where its rows are narrow.
pub(super) fn rows(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<usize>, DataFusionError> {
    let mut widest = 0;
    plan.apply(|node| {
        widest = widest.max(width(node)?);
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok((widest > CONSTANT).then(|| (CONSTANTS / widest).max(1)))
}

/// Whether an aggregate makes values out of all their input.
pub(super) fn collects(aggregate: &AggregateExec) -> bool {
    let calls = aggregate.aggr_expr().iter();
    calls
        .map(|call| call.fun().name())
        .any(bounds::aggregates::collects)
}

/// The bytes of a wide value that an operator reads or makes.
fn width(node: &Arc<dyn ExecutionPlan>) -> Result<usize, DataFusionError> {
    let mut widest = largest_constant(node)?;
    if let Some(scan) = node.downcast_ref::<DataSourceExec>()
        && let Some(scan) = scan.data_source().downcast_ref::<FileScanConfig>()
        && let Some(rows) = scan.batch_size
    {
        // A batch of one row may be far wider.
        let widest_row = if rows > 1 { SCANNED / rows } else { RECORD };
        widest = widest.max(widest_row);
    }
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>()
        && collects(aggregate)
    {
        widest = widest.max(MADE);
    }
    // The values that several calls make stand side by side.
    let mut made = 0_usize;
    node.apply_expressions(&mut |expression| {
        expression.apply(|part| {
            if let Some(call) = part.downcast_ref::<ScalarFunctionExpr>() {
                let number = call.args().get(1);
                let number = number.and_then(|number| number.downcast_ref::<Literal>());
                let number = number.map(Literal::value);
                let bytes = bounds::multiplied(call.fun(), number, MADE).unwrap_or(0);
                made = made.saturating_add(bytes);
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(widest.max(made))
}
