//! How wide the rows of a join may be, as far as its plan shows it.
//!
//! A join copies the values of both sides into each pair of rows, and gathers as many pairs as a batch has rows. One
//! value of a megabyte beside 8,000 rows would take 8 GB.

use std::sync::Arc;

use datafusion::common::DataFusionError;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;

use super::{CONSTANT, CONSTANTS, largest_constant};
use crate::engine::bounds;

/// Bytes of a batch of a data file: where its rows are wide, it has few of them.
const SCANNED: usize = 2 << 20;

/// Bytes of the widest records, unless the configuration allows larger ones.
const RECORD: usize = 16 << 20;

/// Bytes of a value that a function or an aggregate makes out of many: larger ones are rare.
const MADE: usize = 2 << 20;

/// The most rows of a batch of this join; `None` where its rows are narrow.
pub(super) fn rows(join: &Arc<dyn ExecutionPlan>) -> Result<Option<usize>, DataFusionError> {
    let mut widest = 0;
    join.apply(|node| {
        widest = widest.max(width(node)?);
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok((widest > CONSTANT).then(|| (CONSTANTS / widest).max(1)))
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
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        let calls = aggregate.aggr_expr().iter();
        if calls
            .map(|call| call.fun().name())
            .any(bounds::aggregates::collects)
        {
            widest = widest.max(MADE);
        }
    }
    node.apply_expressions(&mut |expression| {
        expression.apply(|part| {
            if let Some(call) = part.downcast_ref::<ScalarFunctionExpr>()
                && bounds::multiplies(call.fun())
            {
                widest = widest.max(MADE);
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(widest)
}
