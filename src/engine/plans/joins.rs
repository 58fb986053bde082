//! The sides of joins that are held in memory.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use arrow::record_batch::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use futures::{StreamExt, stream};

use super::batches::weight;
use super::{lock, stream_of};

/// The rows of the side of a join that is held in memory. The join reserves memory for its rows and then copies
/// them into one batch. Until the last row is read, half of the reserved memory is reserved once more. Together
/// with the quarter of the memory that the engine leaves free, this is enough for the copy.
pub(super) fn counted(
    rows: SendableRecordBatchStream,
    context: &TaskContext,
) -> SendableRecordBatchStream {
    let held = MemoryConsumer::new("join").register(context.memory_pool());
    let schema = rows.schema();
    let rows = rows.map(move |batch| {
        let batch = batch?;
        held.try_grow(weight(&batch) / 2)?;
        Ok(batch)
    });
    stream_of(schema, rows)
}

/// The rows that a nested loop join has read of its left side.
///
/// If the join finds that the side does not fit, it asks for the side again to write it to disk. But an
/// operator gives its rows only once: asked again, a nested loop join gives none, and an exchange between
/// threads panics. Rows are therefore kept until the last one was read, and the second reader gets these rows
/// and then the rest. The join holds the same rows, so keeping them costs nothing.
#[derive(Default)]
pub(super) struct Replay {
    rows: Option<SendableRecordBatchStream>,
    kept: VecDeque<RecordBatch>,
    readers: usize,
    is_ended: bool,
    failed: Option<Arc<DataFusionError>>,
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").finish_non_exhaustive()
    }
}

impl Replay {
    /// The next row batch for the reader with this number.
    fn poll(
        &mut self,
        reader: usize,
        held: &MemoryReservation,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<RecordBatch, DataFusionError>>> {
        let again = reader > 1;
        if again && let Some(batch) = self.kept.pop_front() {
            held.shrink(weight(&batch).min(held.size()));
            return Poll::Ready(Some(Ok(batch)));
        }
        if let Some(error) = &self.failed {
            return Poll::Ready(Some(Err(DataFusionError::Shared(Arc::clone(error)))));
        }
        let Some(rows) = &mut self.rows else {
            return Poll::Ready(None);
        };
        if reader != self.readers {
            return Poll::Ready(None);
        }
        let next = std::task::ready!(rows.poll_next_unpin(context));
        Poll::Ready(match next {
            Some(Ok(batch)) if again => Some(Ok(batch)),
            Some(Ok(batch)) => {
                let fits = held.try_grow(weight(&batch) / 2);
                self.kept.push_back(batch.clone());
                Some(fits.map(|()| batch))
            }
            Some(Err(error)) => {
                let error = Arc::new(error);
                self.failed = Some(Arc::clone(&error));
                Some(Err(DataFusionError::Shared(error)))
            }
            None => {
                self.kept.clear();
                self.rows = None;
                self.is_ended = true;
                None
            }
        })
    }
}

/// The rows of the left side of a nested loop join, which may ask for them twice.
pub(super) fn replayed(
    input: &Arc<dyn ExecutionPlan>,
    replay: &Arc<Mutex<Replay>>,
    context: Arc<TaskContext>,
) -> Result<SendableRecordBatchStream, DataFusionError> {
    let held = MemoryConsumer::new("join").register(context.memory_pool());
    let reader = {
        let mut replay = lock(replay);
        replay.readers += 1;
        match replay.readers {
            1 => replay.rows = Some(input.execute(0, context)?),
            _ if replay.is_ended => {
                return Err(DataFusionError::ResourcesExhausted(
                    "the left side of a join without an equality does not fit into the memory"
                        .to_owned(),
                ));
            }
            _ => held.grow(replay.kept.iter().map(weight).sum()),
        }
        replay.readers
    };
    let replay = Arc::clone(replay);
    let rows = stream::poll_fn(move |context| lock(&replay).poll(reader, &held, context));
    Ok(stream_of(input.schema(), rows))
}
