//! Sorts rows of any size, and merges sorted partitions.

use std::sync::Arc;

use datafusion::common::DataFusionError;
use datafusion::execution::memory_pool::{MemoryLimit, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::common::spawn_buffered;
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
    let enough = limit(&context) / BATCHES;
    while seen < context.session_config().batch_size()
        && bytes < enough
        && let Some(batch) = rows.next().await.transpose()?
    {
        seen += batch.num_rows();
        bytes += own_bytes(&batch);
        first.push(batch);
    }
    let own = with_batches_for(bytes / seen.max(1), &context);
    let most = own.session_config().batch_size();
    let schema = rows.schema();
    let rows = stream::iter(first.into_iter().map(Ok)).chain(rows);
    let rows = rows
        .map_ok(move |batch| stream::iter(cut(batch, most)))
        .try_flatten();
    let sorted = over(&node, vec![stream_of(schema, rows)], own)?;
    drop(share);
    // The texts of a merge are views into the batches of all its runs, and keep these batches.
    let schema = sorted.schema();
    let sorted = sorted
        .map_ok(|batch| stream::iter(cut(batch, usize::MAX)))
        .try_flatten();
    Ok(stream_of(schema, sorted))
}

/// Merges sorted partitions, in batches that are small where the first rows are wide: the merge holds all rows of the
/// batch that it makes.
pub(super) async fn merge(
    node: Arc<dyn ExecutionPlan>,
    partitions: Vec<SendableRecordBatchStream>,
    context: Arc<TaskContext>,
) -> Result<SendableRecordBatchStream, DataFusionError> {
    // Each partition sorts on a thread of its own, while the first rows of another are awaited.
    let partitions = partitions.into_iter().map(|rows| spawn_buffered(rows, 1));
    let mut peeked = Vec::new();
    let mut width = 0;
    for mut rows in partitions.collect::<Vec<_>>() {
        let first = rows.next().await.transpose()?;
        if let Some(first) = &first {
            width = width.max(own_bytes(first) / first.num_rows().max(1));
        }
        let schema = rows.schema();
        let rows = stream::iter(first.map(Ok)).chain(rows);
        peeked.push(stream_of(schema, rows));
    }
    over(&node, peeked, with_batches_for(width, &context))
}

/// The context with batches that are small where rows are of so many bytes.
fn with_batches_for(width: usize, context: &TaskContext) -> Arc<TaskContext> {
    let most = (limit(context) / BATCHES / width.max(1)).max(1);
    with_batches_of(most.min(context.session_config().batch_size()), context)
}

/// The context with batches of so many rows.
pub(super) fn with_batches_of(rows: usize, context: &TaskContext) -> Arc<TaskContext> {
    let config = context.session_config().clone();
    Arc::new(TaskContext::new(
        context.task_id(),
        context.session_id(),
        config.with_batch_size(rows),
        context.scalar_functions().clone(),
        context.higher_order_functions().clone(),
        context.aggregate_functions().clone(),
        context.window_functions().clone(),
        context.runtime_env(),
    ))
}

fn limit(context: &TaskContext) -> usize {
    match context.memory_pool().memory_limit() {
        MemoryLimit::Finite(bytes) => bytes,
        _ => usize::MAX,
    }
}
