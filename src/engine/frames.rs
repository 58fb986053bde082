//! Evaluates aggregates over frames that move.
//!
//! ```text
//! sum(x) OVER (… ROWS BETWEEN 2 PRECEDING AND CURRENT ROW)
//!
//!          oldest row                            newest row
//!      front: a state for each row           back: one state
//!      of all rows from it to the border     of all rows behind the border
//!      ├──────────────────────────────────┼───────────────┤
//!   a row leaves: pop                        a row enters: merge
//!                    value of the frame = top of front + back
//! ```
//!
//! DataFusion subtracts the value of a row that leaves a frame from a running total. For doubles this leaves a
//! trace: after 1e18 has come and gone, `sum` gives 0 where the sum is 0.25. Many aggregates cannot subtract at
//! all. Here nothing is subtracted. A frame is a queue made of two stacks, and its value is merged from the
//! states of the two.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::expr::{WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::function::{
    AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs,
};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, Expr, GroupsAccumulator,
    LogicalPlan, Operator, ReversedUDAF, SetMonotonicity, Signature, StatisticsArgs,
    WindowFunctionDefinition,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};

/// The aggregates from whose value a row can be subtracted without a trace.
const EXACT: [&str; 6] = [
    "count",
    "min",
    "max",
    "array_agg",
    "median",
    "percentile_cont",
];

/// Wraps aggregates in [`Moving`] if the start of their frame moves.
#[derive(Debug)]
pub(super) struct MovingFrames;

impl AnalyzerRule for MovingFrames {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| {
            node.map_expressions(|expression| expression.transform_up(moving))
        })?;
        Ok(plan.data)
    }

    fn name(&self) -> &'static str {
        "moving_frames"
    }
}

fn moving(expression: Expr) -> Result<Transformed<Expr>> {
    let Expr::WindowFunction(call) = expression else {
        return Ok(Transformed::no(expression));
    };
    let WindowFunction { fun, params } = *call;
    Ok(match fun {
        WindowFunctionDefinition::AggregateUDF(inner)
            if !params.window_frame.start_bound.is_unbounded()
                && !EXACT.contains(&inner.name())
                && !is_moving(&inner) =>
        {
            let fun = AggregateUDF::from(Moving { inner });
            let fun = WindowFunctionDefinition::AggregateUDF(Arc::new(fun));
            Transformed::yes(Expr::from(WindowFunction { fun, params }))
        }
        fun => Transformed::no(Expr::from(WindowFunction { fun, params })),
    })
}

fn is_moving(function: &AggregateUDF) -> bool {
    let function: &dyn std::any::Any = function.inner().as_ref();
    function.is::<Moving>()
}

/// An aggregate whose frames are queues. Everything else is forwarded to `inner`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Moving {
    inner: Arc<AggregateUDF>,
}

impl AggregateUDFImpl for Moving {
    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Frame {
            made: Made {
                function: Arc::clone(&self.inner),
                return_field: Arc::clone(&args.return_field),
                schema: args.schema.clone(),
                ignore_nulls: args.ignore_nulls,
                order_bys: args.order_bys.to_vec(),
                is_reversed: args.is_reversed,
                name: args.name.to_owned(),
                is_distinct: args.is_distinct,
                exprs: args.exprs.to_vec(),
                expr_fields: args.expr_fields.to_vec(),
            },
            front: Vec::new(),
            back: None,
            rows: Vec::new(),
        }))
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn schema_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.inner.inner().schema_name(params)
    }

    fn human_display(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.inner.inner().human_display(params)
    }

    fn display_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.inner.inner().display_name(params)
    }

    fn window_function_schema_name(&self, params: &WindowFunctionParams) -> Result<String> {
        self.inner.inner().window_function_schema_name(params)
    }

    fn window_function_display_name(&self, params: &WindowFunctionParams) -> Result<String> {
        self.inner.inner().window_function_display_name(params)
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.inner().return_type(arguments)
    }

    fn return_field(&self, arguments: &[FieldRef]) -> Result<FieldRef> {
        self.inner.inner().return_field(arguments)
    }

    fn is_nullable(&self) -> bool {
        self.inner.inner().is_nullable()
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.inner().accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.inner.inner().state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.inner.inner().groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        self.inner.inner().create_groups_accumulator(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.inner().order_sensitivity()
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        self.inner.inner().simplify()
    }

    fn simplify_expr_op_literal(
        &self,
        call: &AggregateFunction,
        argument: &Expr,
        operator: Operator,
        literal: &Expr,
        argument_is_left: bool,
    ) -> Result<Option<Expr>> {
        let inner = self.inner.inner();
        inner.simplify_expr_op_literal(call, argument, operator, literal, argument_is_left)
    }

    /// Rows are merged in their order, whatever the aggregate is.
    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::NotSupported
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(arguments)
    }

    fn is_descending(&self) -> Option<bool> {
        self.inner.inner().is_descending()
    }

    fn value_from_stats(&self, args: &StatisticsArgs) -> Option<ScalarValue> {
        self.inner.inner().value_from_stats(args)
    }

    fn default_value(&self, kind: &DataType) -> Result<ScalarValue> {
        self.inner.inner().default_value(kind)
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.inner.inner().supports_null_handling_clause()
    }

    fn supports_within_group_clause(&self) -> bool {
        self.inner.inner().supports_within_group_clause()
    }

    fn set_monotonicity(&self, kind: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(kind)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.inner().documentation()
    }
}

/// Makes the accumulators of one call.
#[derive(Debug)]
struct Made {
    function: Arc<AggregateUDF>,
    return_field: FieldRef,
    schema: Schema,
    ignore_nulls: bool,
    order_bys: Vec<PhysicalSortExpr>,
    is_reversed: bool,
    name: String,
    is_distinct: bool,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    expr_fields: Vec<FieldRef>,
}

/// The state of an accumulator for some rows.
type State = Vec<ScalarValue>;

impl Made {
    /// An accumulator of the rows of `parts`, in this order.
    fn accumulator<'a>(
        &self,
        parts: impl IntoIterator<Item = &'a State>,
    ) -> Result<Box<dyn Accumulator>> {
        let mut accumulator = self.function.accumulator(AccumulatorArgs {
            return_field: Arc::clone(&self.return_field),
            schema: &self.schema,
            ignore_nulls: self.ignore_nulls,
            order_bys: &self.order_bys,
            is_reversed: self.is_reversed,
            name: &self.name,
            is_distinct: self.is_distinct,
            exprs: &self.exprs,
            expr_fields: &self.expr_fields,
        })?;
        for part in parts {
            let state = part.iter().map(ScalarValue::to_array);
            accumulator.merge_batch(&state.collect::<Result<Vec<_>>>()?)?;
        }
        Ok(accumulator)
    }
}

/// The rows of a frame as a queue of two stacks.
#[derive(Debug)]
struct Frame {
    made: Made,
    /// For each row before the border, newest first, the state of all rows from this row to the border.
    front: Vec<State>,
    /// The state of the rows behind the border.
    back: Option<State>,
    /// The rows behind the border, in the order in which they came.
    rows: Vec<Vec<ArrayRef>>,
}

impl Frame {
    /// Moves the border behind the newest row. The oldest `gone` rows behind the border are dropped.
    fn turn(&mut self, mut gone: usize) -> Result<()> {
        self.back = None;
        let rows = std::mem::take(&mut self.rows);
        let rows: Vec<Vec<ArrayRef>> = rows
            .into_iter()
            .filter_map(|batch| {
                let length = batch.first().map_or(0, |column| column.len());
                let out = gone.min(length);
                gone -= out;
                let cut = |column: ArrayRef| column.slice(out, length - out);
                (out < length).then(|| batch.into_iter().map(cut).collect())
            })
            .collect();
        for batch in rows.iter().rev() {
            let length = batch.first().map_or(0, |column| column.len());
            for i in (0..length).rev() {
                let row: Vec<ArrayRef> = batch.iter().map(|column| column.slice(i, 1)).collect();
                // The row comes first, because the state that is merged into it belongs to later rows.
                let mut accumulator = self.made.accumulator([])?;
                accumulator.update_batch(&row)?;
                let row = accumulator.state()?;
                let mut all = self
                    .made
                    .accumulator([&row].into_iter().chain(self.front.last()))?;
                self.front.push(all.state()?);
            }
        }
        Ok(())
    }
}

impl Accumulator for Frame {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if values.first().is_none_or(|column| column.is_empty()) {
            return Ok(());
        }
        let mut accumulator = self.made.accumulator(&self.back)?;
        accumulator.update_batch(values)?;
        self.back = Some(accumulator.state()?);
        self.rows.push(values.to_vec());
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let gone = values.first().map_or(0, |column| column.len());
        let kept = self.front.len().saturating_sub(gone);
        let left = gone - (self.front.len() - kept);
        self.front.truncate(kept);
        match left {
            0 => Ok(()),
            left => self.turn(left),
        }
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.made
            .accumulator(self.front.last().into_iter().chain(&self.back))?
            .evaluate()
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.made
            .accumulator(self.front.last().into_iter().chain(&self.back))?
            .state()
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        datafusion::common::not_impl_err!("frames that move are not merged")
    }

    fn size(&self) -> usize {
        let states = self.front.iter().chain(&self.back);
        let states: usize = states.map(ScalarValue::size_of_vec).sum();
        size_of_val(self) + states + self.rows.capacity() * size_of::<Vec<ArrayRef>>()
    }
}
