//! Sorts rows of any size.

use std::sync::Arc;

use datafusion::common::DataFusionError;
use datafusion::execution::memory_pool::{MemoryLimit, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use futures::{StreamExt, TryStreamExt, stream};

use super::batches::{cut, own_bytes};
use super::{over, stream_of};

/// A batch of a sort takes at most this part of all memory, because a merge of two runs holds eight batches.
const BATCHES: usize = 128;

/// Sorts the rows, in batches that are small where the first rows are wide. `share` is the memory that the sort
/// has from the beginning.
pub(super) async fn sort(
    node: Arc<dyn ExecutionPlan>,
    mut rows: SendableRecordBatchStream,
    context: Arc<TaskContext>,
    share: MemoryReservation,
) -> Result<SendableRecordBatchStream, DataFusionError> {
    let mut first = Vec::new();
    let (mut seen, mut bytes) = (0, 0);
    while seen < context.session_config().batch_size()
        && let Some(batch) = rows.next().await.transpose()?
    {
        seen += batch.num_rows();
        bytes += own_bytes(&batch);
        first.push(batch);
    }
    let width = (bytes / seen.max(1)).max(1);
    let most = (limit(&context) / BATCHES / width).max(1);
    let most = most.min(context.session_config().batch_size());
    let schema = rows.schema();
    let rows = stream::iter(first.into_iter().map(Ok)).chain(rows);
    let rows = rows
        .map_ok(move |batch| stream::iter(cut(batch, most)))
        .try_flatten();
    let config = context.session_config().clone().with_batch_size(most);
    let own = TaskContext::new(
        context.task_id(),
        context.session_id(),
        config,
        context.scalar_functions().clone(),
        context.higher_order_functions().clone(),
        context.aggregate_functions().clone(),
        context.window_functions().clone(),
        context.runtime_env(),
    );
    let sorted = over(&node, stream_of(schema, rows), Arc::new(own))?;
    drop(share);
    // The texts of a merge are views into the batches of all its runs, and keep these batches.
    let schema = sorted.schema();
    let sorted = sorted
        .map_ok(|batch| stream::iter(cut(batch, usize::MAX)))
        .try_flatten();
    Ok(stream_of(schema, sorted))
}

fn limit(context: &TaskContext) -> usize {
    match context.memory_pool().memory_limit() {
        MemoryLimit::Finite(bytes) => bytes,
        _ => usize::MAX,
    }
}
