//! Keeps physical plans within the memory.
//!
//! ```text
//!  SortExec                          rows peeked at ──▶ batches as small as their width asks for ──▶ SortExec
//!  SortPreservingMergeExec           sorted partitions ──▶ batches as small as their width asks for
//!  WindowAggExec                     whole partitions of the window, some thousand rows at a time ──▶ WindowAggExec
//!  BoundedWindowAggExec              counted: what came in and has not come out
//!  the whole plan                    few rows at a time, where it reads or makes wide values
//!  right side of a cross join        few rows at a time, where its plan reads or makes wide values
//!  build side of every join          counted once and a half: it is copied into one batch
//!  build side of a nested loop join  read once, whatever the join does
//!  AggregateExec                     few rows at a time, where its calls collect their input: string_agg, array_agg
//!  what unnests lists                few rows at a time, where the lists are long
//!  what has a large constant         few rows at a time
//! ```
//!
//! [`WithinMemory`] is the last rule of the physical optimizer. It changes no row and no order of rows.

mod batches;
mod joins;
mod sorts;
#[cfg(test)]
mod tests;
mod widths;
mod windows;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, JoinType};
use datafusion::config::ConfigOptions;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{
    ChildrenPropertiesMode, ExecutionPlanProperties, ReplaceChildrenOptions,
};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::limit::LocalLimitExec;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
};
use futures::{Stream, TryStreamExt, stream};

use joins::Replay;

/// The most rows of an ORDER BY with a LIMIT that are held in memory. More rows are sorted.
const TOP_ROWS: usize = 1 << 16;

/// The rows that an aggregate gives at once, or writes to disk at once, if each of its values may be large.
const COLLECTED: usize = 256;

/// The most bytes of a constant that is copied into each row of a batch.
const CONSTANT: usize = 8 << 10;

/// The most bytes of all copies of a constant in one batch.
const CONSTANTS: usize = 32 << 20;

/// The last rule of the physical optimizer.
#[derive(Debug)]
pub(super) struct WithinMemory;

impl PhysicalOptimizerRule for WithinMemory {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let plan = plan.transform_up(within).data()?;
        // Filters, joins and exchanges between threads gather rows until a batch is full.
        Ok(match widths::rows(&plan)? {
            Some(rows) => {
                let plan = plan.transform_up(|node| with_few_rows(node, rows)).data()?;
                Within::around(&plan, How::Few(rows))
            }
            None => plan,
        })
    }

    fn name(&self) -> &'static str {
        "within_memory"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The rows of a plan in this order, however many they are.
pub(crate) fn in_order(
    plan: Arc<dyn ExecutionPlan>,
    order: LexOrdering,
) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let sort = SortExec::new(order.clone(), plan).with_preserve_partitioning(true);
    let merge = SortPreservingMergeExec::new(order, sorted(sort));
    within(Arc::new(merge)).data()
}

/// A sort of rows of any size.
fn sorted(sort: SortExec) -> Arc<dyn ExecutionPlan> {
    match sort.fetch() {
        None => {
            let sort: Arc<dyn ExecutionPlan> = Arc::new(sort);
            Within::around(&sort, How::Sorted)
        }
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
        return Ok(Transformed::yes(Within::around(&node, how)));
    }
    if node.is::<BoundedWindowAggExec>() {
        return Ok(Transformed::yes(Within::around(&node, How::Running)));
    }
    let parts =
        |node: &SortPreservingMergeExec| node.input().output_partitioning().partition_count();
    if let Some(merge) = node.downcast_ref::<SortPreservingMergeExec>()
        && parts(merge) > 1
    {
        return Ok(Transformed::yes(Within::around(&node, How::Merged)));
    }
    if node.is::<HashJoinExec>() || node.is::<CrossJoinExec>() {
        return with_build_side(node, How::Counted, false);
    }
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        // If the left side does not fit into memory, each partition of the right side would decide from its own
        // rows alone which left rows have no partner.
        let judges_left = matches!(
            join.join_type(),
            JoinType::Left
                | JoinType::LeftSemi
                | JoinType::LeftAnti
                | JoinType::LeftMark
                | JoinType::Full
        );
        let parts = join.right().output_partitioning().partition_count();
        let how = How::Replayed(Arc::default());
        return with_build_side(node, how, judges_left && parts > 1);
    }
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>()
        && widths::collects(aggregate)
    {
        return Ok(Transformed::yes(Within::around(&node, How::Few(COLLECTED))));
    }
    if let Some(unnest) = node.downcast_ref::<UnnestExec>() {
        let lists = unnest.list_column_indices().iter();
        let lists = lists.map(|list| (list.index_in_input_schema, list.depth));
        let how = How::Unnested(lists.collect());
        return with_inputs(node, &how);
    }
    if !node.children().is_empty()
        && !node
            .children()
            .iter()
            .all(|input| input.is::<PlaceholderRowExec>())
    {
        let largest = largest_constant(&node)?;
        if largest > CONSTANT {
            return with_inputs(node, &How::Cut((CONSTANTS / largest).max(1)));
        }
    }
    Ok(Transformed::no(node))
}

/// The operator, which gathers at most so many rows, if it is one that takes this number when it is planned.
fn with_few_rows(
    node: Arc<dyn ExecutionPlan>,
    rows: usize,
) -> Result<Transformed<Arc<dyn ExecutionPlan>>, DataFusionError> {
    if let Some(filter) = node.downcast_ref::<FilterExec>() {
        let few = filter.with_batch_size(rows)?;
        return Ok(Transformed::yes(Arc::new(few)));
    }
    Ok(Transformed::no(node))
}

/// The join, with its left side read in the way `how`, and its right side as `one` partition.
fn with_build_side(
    join: Arc<dyn ExecutionPlan>,
    how: How,
    one: bool,
) -> Result<Transformed<Arc<dyn ExecutionPlan>>, DataFusionError> {
    let children = join.children();
    let [left, right] = children.as_slice() else {
        return Ok(Transformed::no(join));
    };
    let left = Within::around(left, how);
    let right: Arc<dyn ExecutionPlan> = match one {
        true => Arc::new(CoalescePartitionsExec::new(Arc::clone(right))),
        false => Arc::clone(right),
    };
    // A cross join copies its left rows beside whole batches of its right side, and a scan sizes batches by itself.
    let right = match widths::rows(&join)? {
        Some(rows) if join.is::<CrossJoinExec>() => Within::around(&right, How::Cut(rows)),
        _ => right,
    };
    let properties = match one {
        true => ChildrenPropertiesMode::Recompute,
        false => ChildrenPropertiesMode::Keep,
    };
    let options = ReplaceChildrenOptions::new(properties);
    join.replace_children(vec![left, right], options)
        .map(Transformed::yes)
}

/// The operator, with all its inputs read in the way `how`.
fn with_inputs(
    node: Arc<dyn ExecutionPlan>,
    how: &How,
) -> Result<Transformed<Arc<dyn ExecutionPlan>>, DataFusionError> {
    let children = node.children().into_iter();
    let children = children.map(|input| Within::around(input, how.clone()));
    let children = children.collect();
    node.replace_children(
        children,
        ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep),
    )
    .map(Transformed::yes)
}

/// The bytes of the largest constant in the expressions of an operator.
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

/// An operator that is evaluated or read in a way that keeps the plan within memory. The operator is its only
/// child.
#[derive(Debug)]
struct Within {
    node: Arc<dyn ExecutionPlan>,
    how: How,
}

#[derive(Debug, Clone)]
enum How {
    /// A sort, whose batches are small if its rows are wide.
    Sorted,
    /// A merge of sorted partitions, whose batches are small if its rows are wide.
    Merged,
    /// A window function over whole partitions. Rows with equal values of these keys follow each other.
    Windowed(Vec<Arc<dyn PhysicalExpr>>),
    /// A window function whose frames move.
    Running,
    /// The side of a join that is held in memory.
    Counted,
    /// The side of a join that is held in memory, where the join may ask for its rows twice.
    Replayed(Arc<Mutex<Replay>>),
    /// Batches of at most so many rows, because the operator above adds something large to each row.
    Cut(usize),
    /// Batches of at most so many rows, in this operator and in all operators below it.
    Few(usize),
    /// Batches whose lists have few items in these columns and depths, because each item becomes a row.
    Unnested(Vec<(usize, usize)>),
}

impl Within {
    fn around(node: &Arc<dyn ExecutionPlan>, how: How) -> Arc<dyn ExecutionPlan> {
        let node = Arc::clone(node);
        Arc::new(Self { node, how })
    }

    /// The rows of the input of the operator.
    fn input(
        &self,
        partition: usize,
        context: &Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        match self.node.children().first() {
            Some(input) => input.execute(partition, Arc::clone(context)),
            None => Err(no_input(&self.node)),
        }
    }

    /// The rows of the operator, evaluated in parts.
    fn in_parts<P>(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
        parts: impl Fn(RecordBatch) -> P + Send + 'static,
    ) -> Result<SendableRecordBatchStream, DataFusionError>
    where
        P: Iterator<Item = Result<RecordBatch, DataFusionError>> + Send + 'static,
    {
        let rows = self.node.execute(partition, context)?;
        let rows = rows.map_ok(move |batch| stream::iter(parts(batch)));
        Ok(stream_of(self.schema(), rows.try_flatten()))
    }
}

fn no_input(node: &Arc<dyn ExecutionPlan>) -> DataFusionError {
    DataFusionError::Internal(format!("{} has no input", node.name()))
}

impl DisplayAs for Within {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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
        vec![&self.node]
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
        let how = match &self.how {
            // A further evaluation has rows of its own.
            How::Replayed(_) => How::Replayed(Arc::default()),
            other => other.clone(),
        };
        match children.pop() {
            Some(node) => Ok(Arc::new(Self { node, how })),
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
        match &self.how {
            How::Sorted => {
                let rows = self.input(partition, &context)?;
                // It is registered from the beginning, so that sorts below leave it its share.
                let share = MemoryConsumer::new("ExternalSorterMerge[waiting]");
                let share = share.register(context.memory_pool());
                let sorted = sorts::sort(Arc::clone(&self.node), rows, context, share);
                Ok(stream_of(self.schema(), stream::once(sorted).try_flatten()))
            }
            How::Merged => {
                let partitions = self.node.children().into_iter().flat_map(|input| {
                    let count = input.output_partitioning().partition_count();
                    (0..count).map(|partition| input.execute(partition, Arc::clone(&context)))
                });
                let partitions = partitions.collect::<Result<Vec<_>, _>>()?;
                let merged = sorts::merge(Arc::clone(&self.node), partitions, context.clone());
                Ok(stream_of(self.schema(), stream::once(merged).try_flatten()))
            }
            How::Windowed(keys) => {
                let rows = self.input(partition, &context)?;
                let node = Arc::clone(&self.node);
                Ok(windows::whole(node, keys.clone(), rows, context))
            }
            How::Running => {
                let rows = self.input(partition, &context)?;
                windows::running(&self.node, rows, context)
            }
            How::Counted => {
                let rows = self.node.execute(partition, Arc::clone(&context))?;
                Ok(joins::counted(rows, &context))
            }
            How::Replayed(replay) => joins::replayed(&self.node, replay, context),
            How::Few(most) => {
                let rows = context.session_config().batch_size().min(*most);
                let few = sorts::with_batches_of(rows, &context);
                self.node.execute(partition, few)
            }
            How::Cut(most) => {
                let most = *most;
                self.in_parts(partition, context, move |batch| {
                    let rows = batch.num_rows();
                    let starts = (0..rows).step_by(most);
                    starts.map(move |start| Ok(batch.slice(start, most.min(rows - start))))
                })
            }
            How::Unnested(lists) => {
                let lists = lists.clone();
                self.in_parts(partition, context, move |batch| {
                    batches::with_few_items(&batch, &lists).into_iter()
                })
            }
        }
    }
}

/// The operator over the rows of these partitions instead of its input.
fn over(
    node: &Arc<dyn ExecutionPlan>,
    partitions: Vec<SendableRecordBatchStream>,
    context: Arc<TaskContext>,
) -> Result<SendableRecordBatchStream, DataFusionError> {
    let input = node.children().first().map(|input| input.properties());
    let properties = input.map(|properties| {
        let properties = PlanProperties::clone(properties);
        Arc::new(properties.with_partitioning(Partitioning::UnknownPartitioning(partitions.len())))
    });
    let properties = properties.ok_or_else(|| no_input(node))?;
    let feed: Arc<dyn ExecutionPlan> = Arc::new(Feed {
        partitions: Mutex::new(partitions.into_iter().map(Some).collect()),
        properties,
    });
    Arc::clone(node)
        .replace_children(
            vec![feed],
            ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
        )?
        .execute(0, context)
}

/// A plan with rows that another operator has made. It gives the rows only once.
struct Feed {
    partitions: Mutex<Vec<Option<SendableRecordBatchStream>>>,
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
        partition: usize,
        _context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        lock(&self.partitions)
            .get_mut(partition)
            .and_then(Option::take)
            .ok_or_else(|| DataFusionError::Internal("rows were asked for twice".to_owned()))
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
