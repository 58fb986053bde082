//! Physical plans that stay within the memory.
//!
//! ```text
//!  SortExec                          rows peeked at ──▶ batches as small as their width asks for ──▶ SortExec
//!  WindowAggExec                     whole partitions of the window, some thousand rows at a time ──▶ WindowAggExec
//!  BoundedWindowAggExec              counted: what came in and has not come out
//!  build side of every join          counted once and a half: it is copied into one batch
//!  build side of a nested loop join  read once, whatever the join does
//!  what unnests lists                few rows at a time, where the lists are long
//!  what has a large constant         few rows at a time
//! ```
//!
//! [`WithinMemory`] is the last rule of the physical optimizer. It changes no row and no order of rows.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::{concat_batches, partition, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, JoinType};
use datafusion::config::ConfigOptions;
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryReservation, human_readable_size,
};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{
    ChildrenPropertiesMode, ExecutionPlanProperties, ReplaceChildrenOptions,
};
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::limit::LocalLimitExec;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, InputDistributionRequirements, Partitioning,
    PlanProperties,
};
use futures::{Stream, StreamExt, TryStreamExt, stream};

/// A batch of a sort is at most this part of all memory: a merge of two runs holds eight of them.
const BATCHES: usize = 128;

/// The first rows of a query by some order are held in memory up to this many; more of them are sorted.
const TOP_ROWS: usize = 1 << 16;

/// Bytes of a constant that stands in each row of a batch.
const CONSTANT: usize = 8 << 10;

/// Bytes of all copies of a constant in one batch.
const CONSTANTS: usize = 32 << 20;

/// Bytes of the rows that the lists of one batch become.
const UNNESTED: usize = 16 << 20;

/// The last rule of the physical optimizer.
#[derive(Debug)]
pub(super) struct WithinMemory;

impl PhysicalOptimizerRule for WithinMemory {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        plan.transform_up(within).data()
    }

    fn name(&self) -> &'static str {
        "within_memory"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A sort of any size.
pub(crate) fn sorted(sort: SortExec) -> Arc<dyn ExecutionPlan> {
    match sort.fetch() {
        None => Arc::new(Within {
            how: How::Sorted,
            node: Arc::new(sort),
        }),
        Some(rows) if rows > TOP_ROWS => {
            let all = sorted(sort.with_fetch(None));
            Arc::new(LocalLimitExec::new(all, rows))
        }
        Some(_) => Arc::new(sort),
    }
}

fn within(
    node: Arc<dyn ExecutionPlan>,
) -> Result<Transformed<Arc<dyn ExecutionPlan>>, DataFusionError> {
    if let Some(sort) = node.downcast_ref::<SortExec>() {
        return Ok(Transformed::yes(sorted(sort.clone())));
    }
    if let Some(window) = node.downcast_ref::<WindowAggExec>() {
        let keys = window.window_expr().first();
        let keys = keys.map_or(Vec::new(), |window| window.partition_by().to_vec());
        let how = How::Windowed(keys);
        return Ok(Transformed::yes(Arc::new(Within { how, node })));
    }
    if node.is::<BoundedWindowAggExec>() {
        let how = How::Running;
        return Ok(Transformed::yes(Arc::new(Within { how, node })));
    }
    if node.is::<HashJoinExec>() || node.is::<CrossJoinExec>() {
        return with_build_side(node, Reading::Counted, false);
    }
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        // Where the left side does not fit, each partition of the right side would judge by its own rows alone which
        // rows of the left one have no partner.
        let judges_left = matches!(
            join.join_type(),
            JoinType::Left
                | JoinType::LeftSemi
                | JoinType::LeftAnti
                | JoinType::LeftMark
                | JoinType::Full
        );
        let parts = join.right().output_partitioning().partition_count();
        let reading = Reading::Replayed(Arc::default());
        return with_build_side(node, reading, judges_left && parts > 1);
    }
    if let Some(unnest) = node.downcast_ref::<UnnestExec>() {
        let lists = unnest.list_column_indices().iter();
        let lists = lists.map(|list| (list.index_in_input_schema, list.depth));
        let reading = Reading::Unnested(lists.collect());
        return with_inputs(node, &reading);
    }
    if !node.children().is_empty()
        && !node
            .children()
            .iter()
            .all(|input| input.is::<PlaceholderRowExec>())
    {
        let largest = largest_constant(&node)?;
        if largest > CONSTANT {
            return with_inputs(node, &Reading::Cut((CONSTANTS / largest).max(1)));
        }
    }
    Ok(Transformed::no(node))
}

/// The join with its left side read like this, and its right side as `one` partition.
fn with_build_side(
    join: Arc<dyn ExecutionPlan>,
    reading: Reading,
    one: bool,
) -> Result<Transformed<Arc<dyn ExecutionPlan>>, DataFusionError> {
    let children = join.children();
    let [left, right] = children.as_slice() else {
        return Ok(Transformed::no(join));
    };
    let left: Arc<dyn ExecutionPlan> = Arc::new(Input {
        input: Arc::clone(left),
        reading,
    });
    let right: Arc<dyn ExecutionPlan> = match one {
        true => Arc::new(CoalescePartitionsExec::new(Arc::clone(right))),
        false => Arc::clone(right),
    };
    let properties = match one {
        true => ChildrenPropertiesMode::Recompute,
        false => ChildrenPropertiesMode::Keep,
    };
    join.replace_children(vec![left, right], ReplaceChildrenOptions::new(properties))
        .map(Transformed::yes)
}

/// The operator with all its inputs read like this.
fn with_inputs(
    node: Arc<dyn ExecutionPlan>,
    reading: &Reading,
) -> Result<Transformed<Arc<dyn ExecutionPlan>>, DataFusionError> {
    let children = node.children().into_iter();
    let children = children.map(|input| {
        let (input, reading) = (Arc::clone(input), reading.clone());
        Arc::new(Input { input, reading }) as Arc<dyn ExecutionPlan>
    });
    let children = children.collect();
    node.replace_children(
        children,
        ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep),
    )
    .map(Transformed::yes)
}

/// Bytes of the largest constant in the expressions of an operator.
fn largest_constant(node: &Arc<dyn ExecutionPlan>) -> Result<usize, DataFusionError> {
    let mut largest = 0;
    node.apply_expressions(&mut |expression| {
        expression.apply(|part| {
            if let Some(literal) = part.downcast_ref::<Literal>() {
                largest = largest.max(literal.value().size());
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(largest)
}

/// Bytes of a batch and of what keeps it together: a million batches without a column have a weight too.
fn weight(batch: &RecordBatch) -> usize {
    own_bytes(batch) + 256 + 128 * batch.num_columns()
}

fn limit(context: &TaskContext) -> usize {
    match context.memory_pool().memory_limit() {
        MemoryLimit::Finite(bytes) => bytes,
        _ => usize::MAX,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stream_of(
    schema: SchemaRef,
    rows: impl Stream<Item = Result<RecordBatch, DataFusionError>> + Send + 'static,
) -> SendableRecordBatchStream {
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

/// Bytes of the rows of a batch alone: it may be a part of buffers that hold many more.
fn own_bytes(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter();
    let bytes = columns.map(|column| {
        let views = match column.data_type() {
            DataType::Utf8View => Some(
                column
                    .as_string_view()
                    .lengths()
                    .map(u64::from)
                    .sum::<u64>(),
            ),
            DataType::BinaryView => Some(
                column
                    .as_binary_view()
                    .lengths()
                    .map(u64::from)
                    .sum::<u64>(),
            ),
            _ => None,
        };
        match views {
            Some(bytes) => 16 * column.len() + usize::try_from(bytes).unwrap_or(usize::MAX),
            None => column
                .to_data()
                .get_slice_memory_size()
                .unwrap_or_else(|_| column.get_array_memory_size()),
        }
    });
    bytes.sum()
}

/// The rows in batches of at most so many, with buffers of their own where those of the batch are large.
fn cut(
    batch: RecordBatch,
    rows: usize,
) -> impl Iterator<Item = Result<RecordBatch, DataFusionError>> {
    const SLACK: usize = 256 << 10;
    let all = batch.num_rows();
    let rows = rows.max(1);
    let is_part = batch.get_array_memory_size() > 2 * own_bytes(&batch) + SLACK;
    let starts = (0..all).step_by(rows);
    starts.map(move |start| {
        if all <= rows && !is_part {
            return Ok(batch.clone());
        }
        let end = all.min(start.saturating_add(rows));
        let of = |row: usize| u32::try_from(row).unwrap_or(u32::MAX);
        let wanted = UInt32Array::from_iter_values(of(start)..of(end));
        let part = take_record_batch(&batch, &wanted)?;
        // A view keeps the whole of what it looks at.
        let columns = part.columns().iter().map(|column| -> ArrayRef {
            match column.data_type() {
                DataType::Utf8View => Arc::new(column.as_string_view().gc()),
                DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
                _ => Arc::clone(column),
            }
        });
        let options = RecordBatchOptions::new().with_row_count(Some(end - start));
        let schema = part.schema();
        Ok(RecordBatch::try_new_with_options(
            schema,
            columns.collect(),
            &options,
        )?)
    })
}

/// An operator that is given its rows in a way that keeps it within memory.
#[derive(Debug)]
struct Within {
    how: How,
    node: Arc<dyn ExecutionPlan>,
}

#[derive(Debug, Clone)]
enum How {
    Sorted,
    /// By these keys, whose equal values come together.
    Windowed(Vec<Arc<dyn PhysicalExpr>>),
    Running,
}

impl Within {
    /// The operator over these rows of its input.
    fn over(
        node: &Arc<dyn ExecutionPlan>,
        rows: SendableRecordBatchStream,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        let input = node.children().first().map(|input| input.properties());
        let properties = input.map(|properties| {
            let properties = PlanProperties::clone(properties);
            Arc::new(properties.with_partitioning(Partitioning::UnknownPartitioning(1)))
        });
        let properties = properties
            .ok_or_else(|| DataFusionError::Internal(format!("{} has no input", node.name())))?;
        let feed: Arc<dyn ExecutionPlan> = Arc::new(Feed {
            rows: Mutex::new(Some(rows)),
            properties,
        });
        Arc::clone(node)
            .replace_children(
                vec![feed],
                ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
            )?
            .execute(0, context)
    }
}

impl DisplayAs for Within {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.node.fmt_as(kind, f)
    }
}

impl ExecutionPlan for Within {
    fn name(&self) -> &'static str {
        "Within"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.node.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.node.children()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        self.node.input_distribution_requirements()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.node.maintains_input_order()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion, DataFusionError>,
    ) -> Result<TreeNodeRecursion, DataFusionError> {
        self.node.apply_expressions(f)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let node = Arc::clone(&self.node).replace_children(children, options)?;
        let how = self.how.clone();
        Ok(Arc::new(Self { how, node }))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        self.replace_children(children, options)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        let children = self.node.children();
        let Some(input) = children.first() else {
            return Err(DataFusionError::Internal(format!(
                "{} has no input",
                self.node.name()
            )));
        };
        let rows = input.execute(partition, Arc::clone(&context))?;
        let (node, schema) = (Arc::clone(&self.node), self.schema());
        match &self.how {
            How::Sorted => {
                // Counted from the beginning, so that sorts below leave it its share.
                let share = MemoryConsumer::new("ExternalSorterMerge[waiting]");
                let share = share.register(context.memory_pool());
                let rows = stream::once(sort(node, rows, context, share)).try_flatten();
                Ok(stream_of(schema, rows))
            }
            How::Windowed(keys) => {
                let held = MemoryConsumer::new("window").register(context.memory_pool());
                let windows = Windows {
                    node,
                    keys: keys.clone(),
                    rows,
                    held,
                    waiting: Vec::new(),
                    whole: 0,
                    context,
                };
                let made = stream::try_unfold(windows, |mut windows| async move {
                    let made = windows.next().await?;
                    Ok::<_, DataFusionError>(made.map(|made| (made, windows)))
                });
                Ok(stream_of(schema, made.try_flatten()))
            }
            How::Running => running(&node, rows, context),
        }
    }
}

/// Sorts these rows, in batches as small as the width of the first rows asks for.
async fn sort(
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
    let sorted = Within::over(&node, stream_of(schema, rows), Arc::new(own))?;
    drop(share);
    // Texts of a merge are views into the batches of all its runs, and would keep them.
    let schema = sorted.schema();
    let sorted = sorted
        .map_ok(|batch| stream::iter(cut(batch, usize::MAX)))
        .try_flatten();
    Ok(stream_of(schema, sorted))
}

/// The rows of a window function that looks at all rows of its partition, partition by partition.
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
            // The rows, a copy of them in one batch, and the results.
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

    /// The row of `batch` with which its last partition begins, where it begins here.
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

    /// Evaluates the window over the first `rows` rows that wait.
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
        let made = Within::over(&self.node, now, Arc::clone(&self.context))?;
        let schema = made.schema();
        let rows = self.context.session_config().batch_size();
        let made = made
            .map_ok(move |batch| stream::iter(cut(batch, rows)))
            .try_flatten();
        // Reserved until the last of them is taken.
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

/// A window function over these rows that forgets rows as it goes. Rows that came in and have not come out are counted.
fn running(
    node: &Arc<dyn ExecutionPlan>,
    rows: SendableRecordBatchStream,
    context: Arc<TaskContext>,
) -> Result<SendableRecordBatchStream, DataFusionError> {
    /// The rows and bytes of each batch that is inside.
    #[derive(Default)]
    struct Inside(VecDeque<(usize, usize)>);
    let held = MemoryConsumer::new("window").register(context.memory_pool());
    let held = Arc::new(Mutex::new((held, Inside::default())));
    let counted = Arc::clone(&held);
    let schema = rows.schema();
    let rows = rows.map(move |batch| {
        let batch = batch?;
        let mut held = lock(&counted);
        // The rows, and a copy of them in one batch.
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
    let made = Within::over(node, stream_of(schema, rows), context)?;
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

/// Rows that were made elsewhere, given once.
struct Feed {
    rows: Mutex<Option<SendableRecordBatchStream>>,
    properties: Arc<PlanProperties>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Feed")
    }
}

impl DisplayAs for Feed {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Feed")
    }
}

impl ExecutionPlan for Feed {
    fn name(&self) -> &'static str {
        "Feed"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion, DataFusionError>,
    ) -> Result<TreeNodeRecursion, DataFusionError> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        Ok(self)
    }

    fn execute(
        &self,
        _partition: usize,
        _context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        lock(&self.rows)
            .take()
            .ok_or_else(|| DataFusionError::Internal("rows were asked for twice".to_owned()))
    }
}

/// The input of an operator, read in a way that keeps the operator within memory.
#[derive(Debug)]
struct Input {
    input: Arc<dyn ExecutionPlan>,
    reading: Reading,
}

#[derive(Debug, Clone)]
enum Reading {
    /// The side of a join that is held in memory. The join reserves what it holds, and then copies it into one
    /// batch: until the last row is read, half of it is reserved once more, which with the quarter that the engine leaves
    /// free is the copy.
    Counted,
    /// The same where the join may ask for its rows twice.
    Replayed(Arc<Mutex<Replay>>),
    /// In batches of at most so many rows: the operator puts something large into each row.
    Cut(usize),
    /// In batches whose lists in these columns, so deep, have few items: each becomes a row.
    Unnested(Vec<(usize, usize)>),
}

/// What a nested loop join has read of its left side.
///
/// Where it finds that the side does not fit, it asks for it again, to write it to disk. But
/// an operator gives its rows once: asked again, a nested loop join gives none, and an exchange between threads
/// panics. So rows are kept until the last was read (the join holds them too, which costs nothing), and the second
/// reader is given these and then the rest.
#[derive(Default)]
struct Replay {
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

impl Input {
    fn replayed(
        &self,
        replay: &Arc<Mutex<Replay>>,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        let held = MemoryConsumer::new("join").register(context.memory_pool());
        let reader = {
            let mut replay = lock(replay);
            replay.readers += 1;
            match replay.readers {
                1 => replay.rows = Some(self.input.execute(0, context)?),
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
        Ok(stream_of(self.schema(), rows))
    }
}

impl DisplayAs for Input {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Input")
    }
}

impl ExecutionPlan for Input {
    fn name(&self) -> &'static str {
        "Input"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion, DataFusionError>,
    ) -> Result<TreeNodeRecursion, DataFusionError> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        match children.pop() {
            Some(input) => {
                let reading = match &self.reading {
                    Reading::Replayed(_) => Reading::Replayed(Arc::default()),
                    other => other.clone(),
                };
                Ok(Arc::new(Self { input, reading }))
            }
            None => Ok(self),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        self.replace_children(children, options)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        let rows = match &self.reading {
            Reading::Replayed(replay) => return self.replayed(replay, context),
            _ => self.input.execute(partition, Arc::clone(&context))?,
        };
        Ok(match &self.reading {
            Reading::Replayed(_) => rows,
            Reading::Counted => {
                let held = MemoryConsumer::new("join").register(context.memory_pool());
                let rows = rows.map(move |batch| {
                    let batch = batch?;
                    held.try_grow(weight(&batch) / 2)?;
                    Ok(batch)
                });
                stream_of(self.schema(), rows)
            }
            Reading::Cut(most) => {
                let most = *most;
                let rows = rows.map_ok(move |batch| {
                    let starts = (0..batch.num_rows()).step_by(most);
                    let parts =
                        starts.map(|start| batch.slice(start, most.min(batch.num_rows() - start)));
                    stream::iter(parts.map(Ok).collect::<Vec<_>>())
                });
                stream_of(self.schema(), rows.try_flatten())
            }
            Reading::Unnested(lists) => {
                let lists = lists.clone();
                let rows = rows
                    .map_ok(move |batch| stream::iter(with_few_items(&batch, &lists)))
                    .try_flatten();
                stream_of(self.schema(), rows)
            }
        })
    }
}

/// The rows in parts whose lists together become few rows, or one row each.
fn with_few_items(
    batch: &RecordBatch,
    lists: &[(usize, usize)],
) -> Vec<Result<RecordBatch, DataFusionError>> {
    let columns = batch.columns().iter().enumerate();
    let repeated = columns.filter(|(n, _)| lists.iter().all(|(list, _)| list != n));
    let repeated: usize = repeated
        .map(|(_, column)| column.get_array_memory_size())
        .sum();
    let width = repeated / batch.num_rows().max(1) + 16;
    let most = (UNNESTED / width).max(1);
    let mut parts = Vec::new();
    let (mut start, mut items) = (0, 0);
    for row in 0..batch.num_rows() {
        let of_row = lists.iter().filter_map(|(column, depth)| {
            let list = batch.columns().get(*column)?;
            Some(items_of(list, row, row + 1, *depth))
        });
        let of_row = of_row.max().unwrap_or(1);
        if row > start && items + of_row > most {
            parts.push(Ok(batch.slice(start, row - start)));
            (start, items) = (row, 0);
        }
        items += of_row;
    }
    if start < batch.num_rows() {
        parts.push(Ok(batch.slice(start, batch.num_rows() - start)));
    }
    parts
}

/// The items of the lists in these rows, and of the lists in them.
fn items_of(list: &ArrayRef, start: usize, end: usize, depth: usize) -> usize {
    let Some(list) = list.as_list_opt::<i32>() else {
        return end - start;
    };
    let offset = |row: usize| {
        let offset = list.value_offsets().get(row).copied().unwrap_or(0);
        usize::try_from(offset).unwrap_or(0)
    };
    match depth {
        ..=1 => offset(end) - offset(start),
        _ => items_of(list.values(), offset(start), offset(end), depth - 1),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Int64Type;
    use datafusion::prelude::SessionContext;

    use crate::engine::Engine;

    use super::*;

    /// Numbers from 1.
    fn numbers(count: usize) -> String {
        format!("(SELECT value AS n FROM generate_series(1, {count}))")
    }

    async fn batches(
        session: &SessionContext,
        sql: &str,
    ) -> Result<Vec<RecordBatch>, DataFusionError> {
        session.sql(sql).await?.collect().await
    }

    /// The numbers of the one row, of an engine with so many MiB and threads.
    async fn row(mib: u64, threads: usize, sql: &str) -> Result<Vec<i64>, String> {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::new(mib << 20, threads, folder.path()).unwrap();
        let session = engine.parallel_session();
        let made = batches(&session, sql).await;
        assert_eq!(engine.runtime.memory_pool.reserved(), 0);
        let made = made.map_err(|error| error.strip_backtrace())?;
        let made = concat_batches(&made[0].schema(), &made).unwrap();
        assert_eq!(made.num_rows(), 1, "{sql}");
        let columns = made.columns().iter();
        Ok(columns
            .map(|column| column.as_primitive::<Int64Type>().value(0))
            .collect())
    }

    #[tokio::test]
    async fn a_nested_loop_join_below_another_gives_its_rows_where_memory_is_short() {
        // Pairs a < b, then those of them below some c: the left side of the upper join does not fit.
        let sql = format!(
            "WITH e AS {} SELECT count(*), sum(q.x), sum(q.y) FROM \
             (SELECT a.n AS x, b.n AS y FROM e a JOIN e b ON a.n < b.n) q \
             JOIN (SELECT n FROM e WHERE n IN (3, 1000, 2000)) c ON q.y < c.n",
            numbers(2_000)
        );
        let mut expected = vec![0, 0, 0];
        for c in [3, 1000, 2000] {
            for y in 1..c {
                expected[0] += y - 1;
                expected[1] += y * (y - 1) / 2;
                expected[2] += y * (y - 1);
            }
        }
        for (mib, threads) in [(16, 1), (24, 2), (1024, 1)] {
            assert_eq!(
                row(mib, threads, &sql).await.unwrap(),
                expected,
                "{mib} {threads}"
            );
        }
    }

    #[tokio::test]
    async fn rows_without_a_partner_are_told_once_where_memory_is_short() {
        // Two threads read the right side; the left one does not fit.
        let text = "repeat('x', 100)";
        let sql = format!(
            "SELECT count(*), count(r.n), sum(l.n) FROM (SELECT n, {text} || CAST(n AS VARCHAR) AS t FROM {}) l \
             LEFT JOIN (SELECT n, CAST(n AS VARCHAR) AS t FROM {} UNION ALL SELECT 0, '') r \
             ON l.n + r.n = 200001 AND l.t > r.t AND r.n * r.n <= 100",
            numbers(200_000),
            numbers(20),
        );
        let expected = vec![200_000, 10, 200_000 * 200_001 / 2];
        for (mib, threads) in [(16, 1), (200, 2), (1024, 2)] {
            let sql = sql.replace(
                text,
                if mib == 200 {
                    "repeat('x', 1000)"
                } else {
                    text
                },
            );
            assert_eq!(
                row(mib, threads, &sql).await.unwrap(),
                expected,
                "{mib} {threads}"
            );
        }
    }

    #[tokio::test]
    async fn sorts_above_sorts_end_in_little_memory() {
        // A sort of several columns of 1.5 million rows, above a window, which sorts too.
        let sql = format!(
            "SELECT count(*), CAST(sum(r) AS BIGINT), sum(CASE WHEN before > h THEN 1 ELSE 0 END) FROM ( \
               SELECT h, r, lag(h) OVER (ORDER BY h, n) AS before FROM ( \
                 SELECT md5(CAST(n AS VARCHAR)) AS h, n, row_number() OVER (PARTITION BY n % 1000 ORDER BY n) AS r \
                 FROM {}))",
            numbers(1_500_000)
        );
        let expected = vec![1_500_000, 1_000 * (1_500 * 1_501 / 2), 0];
        for (mib, threads) in [(48, 1), (96, 2), (192, 8)] {
            assert_eq!(
                row(mib, threads, &sql).await.unwrap(),
                expected,
                "{mib} {threads}"
            );
        }
    }

    #[tokio::test]
    async fn a_sort_by_many_flags_and_one_of_wide_rows_end() {
        // Merges compare rows in a format in which a flag takes sixteen times its place.
        let flags: Vec<String> = (1..=40)
            .map(|bit| format!("n % {} = 0 AS f{bit}", bit + 1))
            .collect();
        let names: Vec<String> = (1..=40).map(|bit| format!("f{bit}")).collect();
        let flags = format!(
            "SELECT {} FROM {} ORDER BY {}",
            flags.join(", "),
            numbers(600_000),
            names.join(", ")
        );
        // 4 KiB a row: a batch of the usual 8,192 rows would have half of the memory.
        let wide = format!(
            "SELECT repeat(md5(CAST(n AS VARCHAR)), 128) AS w, n FROM {} ORDER BY w",
            numbers(60_000)
        );
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::new(64 << 20, 1, folder.path()).unwrap();
        for (sql, expected) in [(flags, 600_000), (wide, 60_000)] {
            let frame = engine.session().sql(&sql).await.unwrap();
            let mut stream = frame.execute_stream().await.unwrap();
            let mut rows = 0;
            while let Some(batch) = stream.next().await {
                rows += batch.unwrap().num_rows();
            }
            assert_eq!(rows, expected);
        }
        assert_eq!(engine.runtime.memory_pool.reserved(), 0);
    }

    #[tokio::test]
    async fn the_merge_of_sorted_partitions_holds_no_more_than_its_rows() {
        let sql = format!(
            "SELECT count(*), sum(CASE WHEN b > w THEN 1 ELSE 0 END) FROM (SELECT w, lag(w) OVER (ORDER BY w) AS b FROM \
             (SELECT repeat(md5(CAST(n AS VARCHAR)), 128) AS w FROM {}))",
            numbers(60_000)
        );
        assert_eq!(row(192, 2, &sql).await.unwrap(), vec![60_000, 0]);
    }

    #[tokio::test]
    async fn a_window_over_whole_partitions_takes_one_after_the_other() {
        // A million rows do not fit twice; their partitions do, and some cross batches.
        let by = |key: &str| {
            format!(
                "SELECT count(*), sum(s), max(c) FROM (SELECT n, sum(n) OVER ({key}) AS s, count(*) OVER ({key}) AS c FROM {})",
                numbers(1_000_000)
            )
        };
        let mut sums = 0;
        for key in 0..80_i64 {
            let of_key: i64 = (1..=1_000_000).filter(|n| n % 80 == key).sum();
            sums += of_key * 12_500;
        }
        let found = row(24, 1, &by("PARTITION BY n % 80")).await;
        assert_eq!(found.unwrap(), vec![1_000_000, sums, 12_500]);
        // Each row a partition; and one batch of many rows with one key at the end.
        let found = row(
            24,
            1,
            &by("PARTITION BY CASE WHEN n < 990000 THEN n ELSE 0 END"),
        )
        .await;
        let small: i64 = (1..990_000).sum();
        let last: i64 = (990_000..=1_000_000).sum::<i64>() * 10_001;
        assert_eq!(found.unwrap(), vec![1_000_000, small + last, 10_001]);
        let error = row(16, 1, &by("")).await.unwrap_err();
        assert!(
            error.contains("a window function without PARTITION BY"),
            "{error}"
        );
        let error = row(16, 1, &by("PARTITION BY n > 5")).await.unwrap_err();
        assert!(error.contains("all rows of its partition"), "{error}");
        let found = row(512, 2, &by("")).await.unwrap();
        let all: i64 = (1..=1_000_000).sum();
        assert_eq!(found, vec![1_000_000, all * 1_000_000, 1_000_000]);
    }

    #[tokio::test]
    async fn what_a_running_window_holds_is_counted() {
        // All rows are equal by the order, so that all of them are of one frame.
        let sql = format!(
            "SELECT count(*), sum(s) FROM (SELECT sum(n) OVER (ORDER BY n / 100000000) AS s FROM {})",
            numbers(1_000_000)
        );
        let error = row(12, 1, &sql).await.unwrap_err();
        assert!(error.contains("a window function does not fit"), "{error}");
        let sum: i64 = (1..=1_000_000).sum();
        assert_eq!(
            row(512, 1, &sql).await.unwrap(),
            vec![1_000_000, sum * 1_000_000]
        );
    }

    #[tokio::test]
    async fn lists_and_constants_do_not_multiply_a_batch() {
        // 8,000 rows of a kilobyte, 2,000 times each; and a megabyte in each of 20,000 rows.
        let lists = format!(
            "SELECT count(*), sum(i), sum(length(t)) FROM (SELECT t, unnest(range(2000)) AS i FROM \
             (SELECT repeat('x', CAST(n * 0 + 1000 AS INT)) AS t FROM {}))",
            numbers(3_000)
        );
        let expected = vec![6_000_000, 3_000 * 1_999_000, 6_000_000_000];
        assert_eq!(row(64, 1, &lists).await.unwrap(), expected);
        let constant = format!(
            "SELECT count(*), sum(CAST(length(t) AS BIGINT)), max(n) FROM (SELECT CASE WHEN n % 2 = 0 THEN h ELSE t END AS t, n \
             FROM (SELECT n, md5(CAST(n AS VARCHAR)) AS h, repeat('x', 1000000) AS t FROM {}))",
            numbers(2_000)
        );
        let expected = vec![2_000, 1_000 * 1_000_032, 2_000];
        assert_eq!(row(64, 1, &constant).await.unwrap(), expected);
    }

    /// Each operator that reads an input twice, or holds one, under pressure: the right answer, or an error.
    #[tokio::test]
    async fn every_operator_is_right_or_fails_where_memory_is_short() {
        let n = numbers(300_000);
        let half = numbers(150_000);
        let text = "md5(CAST(n AS VARCHAR))";
        let cases = [
            // An aggregate, one and two threads.
            (
                format!(
                    "SELECT count(*), sum(c) FROM (SELECT {text} AS h, count(*) AS c FROM {n} GROUP BY 1)"
                ),
                vec![300_000, 300_000],
            ),
            // Hash joins: inner, outer, semi, anti.
            (
                format!(
                    "SELECT count(*), count(b.n) FROM (SELECT n, {text} AS h FROM {n}) a LEFT JOIN \
                     (SELECT n, {text} AS h FROM {half}) b ON a.h = b.h"
                ),
                vec![300_000, 150_000],
            ),
            (
                format!(
                    "SELECT count(*), sum(n) FROM (SELECT n, {text} AS h FROM {n}) WHERE h NOT IN \
                     (SELECT {text} FROM {half})"
                ),
                vec![150_000, (150_001..=300_000).sum()],
            ),
            // A cross join.
            (
                format!(
                    "SELECT count(*), sum(a.n) FROM {half} a CROSS JOIN {} b",
                    numbers(20)
                ),
                vec![3_000_000, 20 * (1..=150_000).sum::<i64>()],
            ),
            // A recursive query with a join without equality in it.
            (
                format!(
                    "WITH RECURSIVE r AS (SELECT 1 AS x UNION ALL SELECT r.x + 1 AS x FROM r JOIN {} ON r.x > n - 1 \
                     WHERE r.x < 50 AND n = 1) SELECT count(*), sum(x) FROM r",
                    numbers(3)
                ),
                vec![50, 1_275],
            ),
            // Distinct and set operations.
            (
                format!("SELECT count(DISTINCT {text}), count(*) FROM {n}"),
                vec![300_000, 300_000],
            ),
            (
                format!(
                    "SELECT count(*), 0 FROM (SELECT {text} AS h FROM {n} EXCEPT SELECT {text} FROM {half})"
                ),
                vec![150_000, 0],
            ),
            // The first rows, few and many.
            (
                format!(
                    "SELECT count(*), sum(n) FROM (SELECT n, {text} AS h FROM {n} ORDER BY n DESC LIMIT 10)"
                ),
                vec![10, (299_991..=300_000).sum()],
            ),
            (
                format!(
                    "SELECT count(*), sum(n) FROM (SELECT n, {text} AS h FROM {n} ORDER BY n DESC LIMIT 100000)"
                ),
                vec![100_000, (200_001..=300_000).sum()],
            ),
            // A union of a join that holds its rows and of one that does not.
            (
                format!(
                    "SELECT count(*), sum(x) FROM (SELECT a.n AS x FROM {} a JOIN {} b ON a.n < b.n UNION ALL SELECT n FROM {n})",
                    numbers(1_000),
                    numbers(1_000)
                ),
                vec![
                    300_000 + 499_500,
                    (1..=300_000).sum::<i64>() + (1..=1_000).map(|x| x * (1_000 - x)).sum::<i64>(),
                ],
            ),
        ];
        let mut right = 0;
        for (sql, expected) in &cases {
            for (mib, threads) in [(2, 1), (8, 1), (130, 2), (512, 2)] {
                match row(mib, threads, sql).await {
                    Ok(found) => {
                        assert_eq!(&found, expected, "{mib} {threads} {sql}");
                        right += 1;
                    }
                    Err(error) => {
                        assert!(mib < 512, "{error} {sql}");
                        assert!(
                            error.contains("Resources exhausted"),
                            "{mib} {threads} {sql}: {error}"
                        );
                    }
                }
            }
        }
        assert!(right > cases.len() * 2, "{right}");
    }
}
