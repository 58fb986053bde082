//! Evaluates window functions over whole partitions and over frames that move.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use arrow::array::ArrayRef;
use arrow::compute::{concat_batches, partition};
use arrow::record_batch::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation, human_readable_size};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use futures::{StreamExt, TryStreamExt, stream};

use super::batches::{cut, weight};
use super::{lock, over, stream_of};

/// Evaluates a window function that looks at all rows of its partition. It is evaluated for some thousand rows
/// of whole partitions at a time. Rows with equal values of `keys` follow each other.
pub(super) fn whole(
    node: Arc<dyn ExecutionPlan>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    rows: SendableRecordBatchStream,
    context: Arc<TaskContext>,
) -> SendableRecordBatchStream {
    let schema = node.schema();
    let windows = Windows {
        node,
        keys,
        rows,
        held: MemoryConsumer::new("window").register(context.memory_pool()),
        waiting: Vec::new(),
        whole: 0,
        context,
    };
    let made = stream::try_unfold(windows, |mut windows| async move {
        let made = windows.next().await?;
        Ok::<_, DataFusionError>(made.map(|made| (made, windows)))
    });
    stream_of(schema, made.try_flatten())
}

/// The rows that wait for the end of their partition.
struct Windows {
    node: Arc<dyn ExecutionPlan>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    rows: SendableRecordBatchStream,
    held: MemoryReservation,
    waiting: Vec<RecordBatch>,
    /// The number of waiting rows whose partition is complete.
    whole: usize,
    context: Arc<TaskContext>,
}

impl Windows {
    async fn next(&mut self) -> Result<Option<SendableRecordBatchStream>, DataFusionError> {
        let enough = self.context.session_config().batch_size();
        while let Some(batch) = self.rows.next().await.transpose()? {
            if batch.num_rows() == 0 {
                continue;
            }
            // The memory for the rows, for their copy in one batch, and for the results.
            self.held
                .try_grow(3 * weight(&batch))
                .map_err(|error| self.too_large(&error))?;
            let waiting: usize = self.waiting.iter().map(RecordBatch::num_rows).sum();
            if let Some(start) = self.last_start(&batch)? {
                self.whole = waiting + start;
            }
            self.waiting.push(batch);
            if self.whole >= enough {
                return self.evaluate(self.whole).map(Some);
            }
        }
        match self.waiting.is_empty() {
            true => Ok(None),
            false => self.evaluate(usize::MAX).map(Some),
        }
    }

    /// The row of `batch` with which its last partition begins, if it begins in this batch.
    fn last_start(&self, batch: &RecordBatch) -> Result<Option<usize>, DataFusionError> {
        if self.keys.is_empty() {
            return Ok(None);
        }
        let last = self.waiting.last();
        let last = last.map(|last| last.slice(last.num_rows() - 1, 1));
        let before = usize::from(last.is_some());
        let joined = concat_batches(&batch.schema(), last.iter().chain([batch]))?;
        let keys = self.keys.iter().map(|key| {
            let values = key.evaluate(&joined)?;
            values.into_array(joined.num_rows())
        });
        let keys = keys.collect::<Result<Vec<ArrayRef>, _>>()?;
        let ranges = partition(&keys)?.ranges();
        let start = ranges.last().map_or(0, |range| range.start);
        Ok((start > 0).then(|| start - before))
    }

    /// Evaluates the window over the first `rows` waiting rows.
    fn evaluate(&mut self, rows: usize) -> Result<SendableRecordBatchStream, DataFusionError> {
        let mut now = Vec::new();
        let mut later = Vec::new();
        let mut taken = 0;
        for batch in std::mem::take(&mut self.waiting) {
            let of_now = rows.saturating_sub(taken).min(batch.num_rows());
            taken += of_now;
            if of_now == batch.num_rows() {
                now.push(batch);
            } else if of_now == 0 {
                later.push(batch);
            } else {
                now.push(batch.slice(0, of_now));
                let rest = cut(batch.slice(of_now, batch.num_rows() - of_now), usize::MAX);
                later.extend(rest.collect::<Result<Vec<_>, _>>()?);
            }
        }
        let left: usize = later.iter().map(|batch| 3 * weight(batch)).sum();
        let all = self.held.size();
        let of_now = self.held.split(all.saturating_sub(left));
        self.waiting = later;
        self.whole = 0;
        let schema = self.rows.schema();
        let now = stream_of(schema, stream::iter(now.into_iter().map(Ok)));
        let made = over(&self.node, vec![now], Arc::clone(&self.context))?;
        let schema = made.schema();
        let rows = self.context.session_config().batch_size();
        let made = made
            .map_ok(move |batch| stream::iter(cut(batch, rows)))
            .try_flatten();
        // The memory stays reserved until the last of the results is taken.
        let made = made.inspect(move |_| {
            let _held = &of_now;
        });
        Ok(stream_of(schema, made))
    }

    fn too_large(&self, error: &DataFusionError) -> DataFusionError {
        let rows: usize = self.waiting.iter().map(RecordBatch::num_rows).sum();
        let bytes: usize = self.waiting.iter().map(weight).sum();
        let part = match self.keys.is_empty() {
            true => "a window function without PARTITION BY that looks at all rows at once",
            false => "a window function that looks at all rows of its partition at once",
        };
        DataFusionError::ResourcesExhausted(format!(
            "{part} does not fit into the memory: {rows} rows of {} wait for the end of it; divide them by \
             PARTITION BY, or aggregate first ({})",
            human_readable_size(bytes),
            error.strip_backtrace()
        ))
    }
}

/// Evaluates a window function whose frames move. The memory of the rows that have come in and not come out is
/// counted.
pub(super) fn running(
    node: &Arc<dyn ExecutionPlan>,
    rows: SendableRecordBatchStream,
    context: Arc<TaskContext>,
) -> Result<SendableRecordBatchStream, DataFusionError> {
    /// The rows and bytes of each batch that is inside the operator.
    #[derive(Default)]
    struct Inside(VecDeque<(usize, usize)>);
    let held = MemoryConsumer::new("window").register(context.memory_pool());
    let held = Arc::new(Mutex::new((held, Inside::default())));
    let counted = Arc::clone(&held);
    let schema = rows.schema();
    let rows = rows.map(move |batch| {
        let batch = batch?;
        let mut held = lock(&counted);
        // The memory for the rows, and for their copy in one batch.
        let bytes = 2 * weight(&batch);
        held.0.try_grow(bytes).map_err(|error| {
            DataFusionError::ResourcesExhausted(format!(
                "a window function does not fit into the memory: too many rows are equal by its ORDER BY, or its frame \
                 is too wide ({})",
                error.strip_backtrace()
            ))
        })?;
        held.1.0.push_back((batch.num_rows(), bytes));
        Ok(batch)
    });
    let made = over(node, vec![stream_of(schema, rows)], context)?;
    let schema = made.schema();
    let made = made.inspect_ok(move |batch| {
        let mut held = lock(&held);
        let mut out = batch.num_rows();
        while let Some((rows, bytes)) = held.1.0.pop_front() {
            if rows > out {
                held.1.0.push_front((rows - out, bytes));
                break;
            }
            out -= rows;
            held.0.shrink(bytes);
        }
    });
    Ok(stream_of(schema, made))
}
