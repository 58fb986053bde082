//! `sum` and `avg` that are exact, or an error.
//!
//! The engine adds integers and decimals modulo 2^64 or 2^128. Here they are added in a wider type, and
//! the total is checked once, when it is read: it does not depend on the order of the rows whether
//! something overflows on the way.
//!
//! ```text
//! bigint             ──▶ decimal(38, 0) ─┐
//! decimal(≤28, s)    ──▶ decimal(38, s)  ├─▶ the engine's sum ──▶ checked ──▶ bigint | decimal(38, s)
//! decimal(29…38, s)  ──▶ 256 bits       ─┘
//! ```

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Decimal256Array};
use arrow::compute::cast;
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal128Type, Decimal256Type,
    Field, FieldRef, Int64Type, UInt64Type, i256,
};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err, not_impl_err};
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
};

use super::decimals::{divide_rounded, fits};

/// Digits of a decimal of which 10^10 can be added in 128 bits.
const SHORT: u8 = 28;

/// The type in which values of `kind` are added; `None` where the engine's own sum is exact or is one
/// of rounded numbers.
fn wide(kind: &DataType) -> Option<DataType> {
    match kind {
        DataType::Int64 | DataType::UInt64 => {
            Some(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0))
        }
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) => {
            Some(DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale))
        }
        DataType::Decimal128(precision, scale) if *precision <= SHORT => {
            Some(DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale))
        }
        DataType::Decimal128(_, scale) => {
            Some(DataType::Decimal256(DECIMAL256_MAX_PRECISION, *scale))
        }
        _ => None,
    }
}

/// Values as they are added.
fn widened(values: &[ArrayRef], wide: &DataType) -> Result<ArrayRef> {
    let [values] = values else {
        return exec_err!("an aggregate of one argument was given {}", values.len());
    };
    Ok(match (values.data_type(), wide) {
        (DataType::Int64, DataType::Decimal128(precision, scale)) => {
            let values = values.as_primitive::<Int64Type>();
            let wide: Decimal128Array = values.unary(i128::from);
            Arc::new(wide.with_precision_and_scale(*precision, *scale)?)
        }
        (DataType::UInt64, DataType::Decimal128(precision, scale)) => {
            let values = values.as_primitive::<UInt64Type>();
            let wide: Decimal128Array = values.unary(i128::from);
            Arc::new(wide.with_precision_and_scale(*precision, *scale)?)
        }
        (DataType::Decimal128(..), DataType::Decimal128(precision, scale)) => {
            let values = values.as_primitive::<Decimal128Type>().clone();
            Arc::new(values.with_precision_and_scale(*precision, *scale)?)
        }
        (DataType::Decimal128(..), DataType::Decimal256(precision, scale)) => {
            let values = values.as_primitive::<Decimal128Type>();
            let wide: Decimal256Array = values.unary(i256::from_i128);
            Arc::new(wide.with_precision_and_scale(*precision, *scale)?)
        }
        (_, wide) => cast(values, wide)?,
    })
}

/// Totals as they are read.
fn narrowed(totals: &ArrayRef, result: &DataType) -> Result<ArrayRef> {
    match (totals.data_type(), result) {
        (DataType::Decimal128(..), DataType::Int64) => {
            let totals = totals.as_primitive::<Decimal128Type>();
            let totals = totals.try_unary::<_, Int64Type, DataFusionError>(|total| {
                i64::try_from(total).or_else(|_| {
                    exec_err!(
                        "the sum {total} does not fit bigint: write sum(CAST(… AS decimal(38, 0)))"
                    )
                })
            })?;
            Ok(Arc::new(totals))
        }
        (DataType::Decimal128(..), DataType::Decimal128(precision, scale)) => {
            let totals = totals.as_primitive::<Decimal128Type>().clone();
            fits(totals.with_precision_and_scale(*precision, *scale)?, "sum")
        }
        (DataType::Decimal256(..), DataType::Decimal128(precision, scale)) => {
            let totals = totals.as_primitive::<Decimal256Type>();
            let totals =
                totals.try_unary::<_, Decimal128Type, DataFusionError>(|total| {
                    match total.to_i128() {
                        Some(total) => Ok(total),
                        None => exec_err!("the sum does not fit decimal({precision}, {scale})"),
                    }
                })?;
            fits(totals.with_precision_and_scale(*precision, *scale)?, "sum")
        }
        (from, to) => exec_err!("a sum of {from} is not {to}"),
    }
}

/// The same arguments with another type of value and of result.
struct Retyped<'a> {
    args: AccumulatorArgs<'a>,
    fields: Vec<FieldRef>,
    result: FieldRef,
}

impl<'a> Retyped<'a> {
    fn new(args: AccumulatorArgs<'a>, values: &DataType, result: &DataType) -> Self {
        Self {
            fields: vec![Arc::new(Field::new("value", values.clone(), true))],
            result: Arc::new(Field::new(args.name, result.clone(), true)),
            args,
        }
    }

    fn args(&self) -> AccumulatorArgs<'_> {
        AccumulatorArgs {
            return_field: Arc::clone(&self.result),
            schema: self.args.schema,
            ignore_nulls: self.args.ignore_nulls,
            order_bys: self.args.order_bys,
            is_reversed: self.args.is_reversed,
            name: self.args.name,
            is_distinct: self.args.is_distinct,
            exprs: self.args.exprs,
            expr_fields: &self.fields,
        }
    }
}

fn kind<'a>(args: &AccumulatorArgs<'a>) -> Result<&'a DataType> {
    match args.expr_fields.first() {
        Some(field) => Ok(field.data_type()),
        None => exec_err!("`{}` has no argument", args.name),
    }
}

fn state_fields(
    function: &AggregateUDF,
    args: &StateFieldsArgs<'_>,
    values: &DataType,
    result: &DataType,
) -> Result<Vec<FieldRef>> {
    function.state_fields(StateFieldsArgs {
        name: args.name,
        input_fields: &[Arc::new(Field::new("value", values.clone(), true))],
        return_field: Arc::new(Field::new(args.name, result.clone(), true)),
        ordering_fields: args.ordering_fields,
        is_distinct: args.is_distinct,
    })
}

/// `sum` in place of the engine's: exact, and an error where the total does not fit its type.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ExactSum {
    inner: Arc<AggregateUDF>,
}

impl ExactSum {
    pub(super) fn new() -> Self {
        Self { inner: sum_udaf() }
    }
}

impl AggregateUDFImpl for ExactSum {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        match kinds {
            [DataType::Int64 | DataType::UInt64] => Ok(DataType::Int64),
            [
                DataType::Decimal32(_, scale)
                | DataType::Decimal64(_, scale)
                | DataType::Decimal128(_, scale),
            ] => Ok(DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale)),
            other => self.inner.return_type(other),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let Some(wide) = wide(kind(&args)?) else {
            return self.inner.accumulator(args);
        };
        let result = args.return_type().clone();
        let inner = self
            .inner
            .accumulator(Retyped::new(args, &wide, &wide).args())?;
        Ok(Box::new(Sum {
            inner,
            wide,
            result,
        }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        match args
            .input_fields
            .first()
            .and_then(|field| wide(field.data_type()))
        {
            Some(wide) => state_fields(&self.inner, &args, &wide, &wide),
            None => self.inner.state_fields(args),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let Some(wide) = wide(kind(&args)?) else {
            return self.inner.create_groups_accumulator(args);
        };
        let result = args.return_type().clone();
        let args = Retyped::new(args, &wide, &wide);
        let inner = self.inner.create_groups_accumulator(args.args())?;
        Ok(Box::new(Sums {
            inner,
            wide,
            result,
        }))
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        let Some(wide) = wide(kind(&args)?) else {
            return self.inner.create_sliding_accumulator(args);
        };
        if args.is_distinct {
            return not_impl_err!("sum(DISTINCT …) over a frame that moves");
        }
        let result = args.return_type().clone();
        let args = Retyped::new(args, &wide, &wide);
        let inner = self.inner.create_sliding_accumulator(args.args())?;
        Ok(Box::new(Sum {
            inner,
            wide,
            result,
        }))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// The sum of one group.
#[derive(Debug)]
struct Sum {
    inner: Box<dyn Accumulator>,
    wide: DataType,
    result: DataType,
}

impl Accumulator for Sum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(&[widened(values, &self.wide)?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let total = self.inner.evaluate()?.to_array()?;
        ScalarValue::try_from_array(&narrowed(&total, &self.result)?, 0)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(&[widened(values, &self.wide)?])
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
}

/// The sums of many groups.
struct Sums {
    inner: Box<dyn GroupsAccumulator>,
    wide: DataType,
    result: DataType,
}

impl GroupsAccumulator for Sums {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        let values = widened(values, &self.wide)?;
        self.inner.update_batch(&[values], groups, filter, total)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        narrowed(&self.inner.evaluate(emit_to)?, &self.result)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit_to)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.inner.merge_batch(states, groups, total)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let values = widened(values, &self.wide)?;
        self.inner.convert_to_state(&[values], filter)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}

/// `avg` in place of the engine's. Of decimals it has their own type, rounded half away from zero; of
/// other numbers it is the engine's.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ExactAverage {
    inner: Arc<AggregateUDF>,
    sum: Arc<AggregateUDF>,
    count: Arc<AggregateUDF>,
}

impl ExactAverage {
    pub(super) fn new() -> Self {
        Self {
            inner: avg_udaf(),
            sum: sum_udaf(),
            count: count_udaf(),
        }
    }
}

fn wide_decimal(kind: &DataType) -> Option<DataType> {
    match kind.is_decimal() {
        true => wide(kind),
        false => None,
    }
}

impl AggregateUDFImpl for ExactAverage {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        match kinds {
            [
                DataType::Decimal32(precision, scale)
                | DataType::Decimal64(precision, scale)
                | DataType::Decimal128(precision, scale),
            ] => Ok(DataType::Decimal128(*precision, *scale)),
            other => self.inner.return_type(other),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let Some(wide) = wide_decimal(kind(&args)?) else {
            return self.inner.accumulator(args);
        };
        let result = args.return_type().clone();
        let args = Retyped::new(args, &wide, &wide);
        let sum = self.sum.accumulator(args.args())?;
        let args = Retyped::new(args.args, &wide, &DataType::Int64);
        let count = self.count.accumulator(args.args())?;
        Ok(Box::new(Average {
            sum,
            count,
            wide,
            result,
        }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let kind = args.input_fields.first();
        let Some(wide) = kind.and_then(|field| wide_decimal(field.data_type())) else {
            return self.inner.state_fields(args);
        };
        let mut fields = state_fields(&self.sum, &args, &wide, &wide)?;
        fields.extend(state_fields(&self.count, &args, &wide, &DataType::Int64)?);
        Ok(fields)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        match kind(&args).map(wide_decimal) {
            Ok(Some(_)) => !args.is_distinct,
            _ => self.inner.groups_accumulator_supported(args),
        }
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let Some(wide) = wide_decimal(kind(&args)?) else {
            return self.inner.create_groups_accumulator(args);
        };
        let result = args.return_type().clone();
        let args = Retyped::new(args, &wide, &wide);
        let sums = self.sum.create_groups_accumulator(args.args())?;
        let args = Retyped::new(args.args, &wide, &DataType::Int64);
        let counts = self.count.create_groups_accumulator(args.args())?;
        Ok(Box::new(Averages {
            sums,
            counts,
            wide,
            result,
        }))
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        let Some(wide) = wide_decimal(kind(&args)?) else {
            return self.inner.create_sliding_accumulator(args);
        };
        if args.is_distinct {
            return not_impl_err!("avg(DISTINCT …) over a frame that moves");
        }
        let result = args.return_type().clone();
        let args = Retyped::new(args, &wide, &wide);
        let sum = self.sum.create_sliding_accumulator(args.args())?;
        let args = Retyped::new(args.args, &wide, &DataType::Int64);
        let count = self.count.create_sliding_accumulator(args.args())?;
        Ok(Box::new(Average {
            sum,
            count,
            wide,
            result,
        }))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// The average of one group: the state of its sum, then that of its count.
#[derive(Debug)]
struct Average {
    sum: Box<dyn Accumulator>,
    count: Box<dyn Accumulator>,
    wide: DataType,
    result: DataType,
}

impl Accumulator for Average {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = [widened(values, &self.wide)?];
        self.sum.update_batch(&values)?;
        self.count.update_batch(&values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = self.sum.evaluate()?.to_array()?;
        let count = self.count.evaluate()?.to_array()?;
        ScalarValue::try_from_array(&divide_rounded(&sum, &count, &self.result)?, 0)
    }

    fn size(&self) -> usize {
        self.sum.size() + self.count.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut state = self.sum.state()?;
        state.extend(self.count.state()?);
        Ok(state)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [sum, count] = states else {
            return exec_err!("an average of {} states", states.len());
        };
        self.sum.merge_batch(std::slice::from_ref(sum))?;
        self.count.merge_batch(std::slice::from_ref(count))
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = [widened(values, &self.wide)?];
        self.sum.retract_batch(&values)?;
        self.count.retract_batch(&values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.sum.supports_retract_batch() && self.count.supports_retract_batch()
    }
}

/// The averages of many groups.
struct Averages {
    sums: Box<dyn GroupsAccumulator>,
    counts: Box<dyn GroupsAccumulator>,
    wide: DataType,
    result: DataType,
}

impl GroupsAccumulator for Averages {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        let values = [widened(values, &self.wide)?];
        self.sums.update_batch(&values, groups, filter, total)?;
        self.counts.update_batch(&values, groups, filter, total)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let sums = self.sums.evaluate(emit_to)?;
        let counts = self.counts.evaluate(emit_to)?;
        divide_rounded(&sums, &counts, &self.result)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let mut state = self.sums.state(emit_to)?;
        state.extend(self.counts.state(emit_to)?);
        Ok(state)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        let [sums, counts] = states else {
            return exec_err!("averages of {} states", states.len());
        };
        self.sums
            .merge_batch(std::slice::from_ref(sums), groups, total)?;
        self.counts
            .merge_batch(std::slice::from_ref(counts), groups, total)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let values = [widened(values, &self.wide)?];
        let mut state = self.sums.convert_to_state(&values, filter)?;
        state.extend(self.counts.convert_to_state(&values, filter)?);
        Ok(state)
    }

    fn size(&self) -> usize {
        self.sums.size() + self.counts.size()
    }
}
