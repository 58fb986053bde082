//! Evaluates `sum` and `avg` exactly, or with an error.
//!
//! The engine adds integers and decimals modulo 2^64 or 2^128. Here they are added in a wider type, and the
//! total is checked once, when it is read. Whether a total overflows therefore does not depend on the order of
//! the rows.
//!
//! ```text
//! bigint             ──▶ decimal(38, 0) ─┐
//! decimal(≤28, s)    ──▶ decimal(38, s)  ├─▶ total and count ──▶ total, checked ──▶ bigint | decimal(38, s)
//! decimal(29…38, s)  ──▶ 256 bits       ─┘                   └─▶ total / count  ──▶ decimal(p, s)
//! ```

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, AsArray, BooleanArray, Int64Array, PrimitiveArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType,
    Decimal128Type, Decimal256Type, DecimalType, Field, FieldRef, Int64Type, UInt64Type, i256,
};
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err, not_impl_err};
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
};

use super::decimals::{divide_rounded, fits};

/// 10^10 decimals of so many digits can be added in 128 bits.
const SHORT: u8 = 28;

/// The type in which values of `kind` are added; `None` if the engine's own sum is exact, or if its values are
/// rounded anyway.
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

/// Totals in the type of the result. A total that does not fit is an error.
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

/// A type in which values are added.
trait Wide: DecimalType<Native: Default + Hash + Eq> + Debug {
    fn of_bigint(value: i64) -> Self::Native;
    fn of_unsigned(value: u64) -> Self::Native;
    fn of_decimal(value: i128) -> Self::Native;
}

impl Wide for Decimal128Type {
    fn of_bigint(value: i64) -> i128 {
        i128::from(value)
    }

    fn of_unsigned(value: u64) -> i128 {
        i128::from(value)
    }

    fn of_decimal(value: i128) -> i128 {
        value
    }
}

impl Wide for Decimal256Type {
    fn of_bigint(value: i64) -> i256 {
        i256::from(value)
    }

    fn of_unsigned(value: u64) -> i256 {
        i256::from_i128(i128::from(value))
    }

    fn of_decimal(value: i128) -> i256 {
        i256::from_i128(value)
    }
}

/// Gives `add` the row and the value of each row that has a value and is not filtered out.
fn each<W: Wide>(
    values: &ArrayRef,
    filter: Option<&BooleanArray>,
    add: impl FnMut(usize, W::Native),
) -> Result<()> {
    match values.data_type() {
        DataType::Int64 => each_of(
            values.as_primitive::<Int64Type>(),
            filter,
            W::of_bigint,
            add,
        ),
        DataType::UInt64 => each_of(
            values.as_primitive::<UInt64Type>(),
            filter,
            W::of_unsigned,
            add,
        ),
        DataType::Decimal128(..) => {
            each_of(
                values.as_primitive::<Decimal128Type>(),
                filter,
                W::of_decimal,
                add,
            );
        }
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) => {
            let values = cast(
                values,
                &DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale),
            )?;
            each_of(
                values.as_primitive::<Decimal128Type>(),
                filter,
                W::of_decimal,
                add,
            );
        }
        other => return exec_err!("values of {other} are not added here"),
    }
    Ok(())
}

fn each_of<T: ArrowPrimitiveType, N>(
    values: &PrimitiveArray<T>,
    filter: Option<&BooleanArray>,
    wide: impl Fn(T::Native) -> N,
    mut add: impl FnMut(usize, N),
) {
    if values.null_count() == 0 && filter.is_none() {
        for (row, value) in values.values().iter().enumerate() {
            add(row, wide(*value));
        }
        return;
    }
    let passes = |row: usize| filter.is_none_or(|mask| mask.is_valid(row) && mask.value(row));
    for (row, value) in values.values().iter().enumerate() {
        if values.is_valid(row) && passes(row) {
            add(row, wide(*value));
        }
    }
}

/// The total of some values, and their number.
#[derive(Debug, Clone, Copy, Default)]
struct Sum<N> {
    total: N,
    count: i64,
}

impl<N: ArrowNativeTypeOp> Sum<N> {
    fn add(&mut self, total: N, count: i64) {
        self.total = self.total.add_wrapping(total);
        self.count += count;
    }

    fn take_away(&mut self, value: N) {
        self.total = self.total.sub_wrapping(value);
        self.count -= 1;
    }
}

/// The function that is made from sums.
#[derive(Debug, Clone)]
struct Made {
    is_average: bool,
    /// The type in which values are added.
    wide: DataType,
    result: DataType,
}

impl Made {
    /// The totals, with NULL where there is no value, and the counts.
    fn state<W: Wide>(&self, sums: &[Sum<W::Native>]) -> Vec<ArrayRef> {
        let totals = sums.iter().map(|sum| (sum.count > 0).then_some(sum.total));
        let totals: PrimitiveArray<W> = totals.collect();
        let counts = Int64Array::from_iter_values(sums.iter().map(|sum| sum.count));
        vec![
            Arc::new(totals.with_data_type(self.wide.clone())),
            Arc::new(counts),
        ]
    }

    /// The results, with NULL where there is no value.
    fn results<W: Wide>(&self, sums: &[Sum<W::Native>]) -> Result<ArrayRef> {
        match (self.is_average, self.state::<W>(sums).as_slice()) {
            (true, [totals, counts]) => divide_rounded(totals, counts, &self.result),
            (_, [totals, ..]) => narrowed(totals, &self.result),
            (_, []) => exec_err!("a sum has no state"),
        }
    }

    fn result<W: Wide>(&self, sum: Sum<W::Native>) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.results::<W>(&[sum])?, 0)
    }
}

/// The only argument of an aggregate.
fn only(values: &[ArrayRef]) -> Result<&ArrayRef> {
    match values {
        [values] => Ok(values),
        other => exec_err!("an aggregate of one argument was given {}", other.len()),
    }
}

/// Gives `add` the row, the total and the count of each state with a value.
fn each_state<W: Wide>(
    states: &[ArrayRef],
    mut add: impl FnMut(usize, W::Native, i64),
) -> Result<()> {
    let [totals, counts] = states else {
        return exec_err!("a sum has two states, not {}", states.len());
    };
    let counts = counts.as_primitive::<Int64Type>();
    let totals = totals.as_primitive::<W>();
    each_of(
        totals,
        None,
        |total| total,
        |row, total| add(row, total, counts.value(row)),
    );
    Ok(())
}

/// The sum or average of one group.
#[derive(Debug)]
struct One<W: Wide> {
    sum: Sum<W::Native>,
    made: Made,
}

impl<W: Wide> Accumulator for One<W> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        each::<W>(only(values)?, None, |_, value| self.sum.add(value, 1))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.made.result::<W>(self.sum)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let state = self.made.state::<W>(&[self.sum]);
        let values = state
            .iter()
            .map(|values| ScalarValue::try_from_array(values, 0));
        values.collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        each_state::<W>(states, |_, total, count| self.sum.add(total, count))
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        each::<W>(only(values)?, None, |_, value| self.sum.take_away(value))
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }
}

/// The sum or average of the distinct values of one group. The state is the list of these values.
#[derive(Debug)]
struct Different<W: Wide> {
    values: HashSet<W::Native>,
    made: Made,
}

impl<W: Wide> Accumulator for Different<W> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        each::<W>(only(values)?, None, |_, value| {
            _ = self.values.insert(value)
        })
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut sum = Sum::default();
        for value in &self.values {
            sum.add(*value, 1);
        }
        self.made.result::<W>(sum)
    }

    fn size(&self) -> usize {
        // A hash table has one byte of control for each slot.
        size_of_val(self) + self.values.capacity() * (size_of::<W::Native>() + 1)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = PrimitiveArray::<W>::from_iter_values(self.values.iter().copied());
        let values = values.with_data_type(self.made.wide.clone());
        let list = SingleRowListArrayBuilder::new(Arc::new(values));
        Ok(vec![list.build_list_scalar()])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for list in only(states)?.as_list::<i32>().iter().flatten() {
            self.values
                .extend(list.as_primitive::<W>().iter().flatten());
        }
        Ok(())
    }
}

/// The sums or averages of many groups.
struct Many<W: Wide> {
    sums: Vec<Sum<W::Native>>,
    made: Made,
}

impl<W: Wide> Many<W> {
    fn grow(&mut self, groups: usize) {
        self.sums.resize(groups, Sum::default());
    }
}

impl<W: Wide> GroupsAccumulator for Many<W> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.grow(total);
        let sums = &mut self.sums;
        each::<W>(only(values)?, filter, |row, value| {
            if let Some(sum) = groups.get(row).and_then(|group| sums.get_mut(*group)) {
                sum.add(value, 1);
            }
        })
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        self.made.results::<W>(&emit_to.take_needed(&mut self.sums))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(self.made.state::<W>(&emit_to.take_needed(&mut self.sums)))
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.grow(total);
        let sums = &mut self.sums;
        each_state::<W>(states, |row, total, count| {
            if let Some(sum) = groups.get(row).and_then(|group| sums.get_mut(*group)) {
                sum.add(total, count);
            }
        })
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let values = only(values)?;
        let mut sums = vec![Sum::default(); values.len()];
        each::<W>(values, filter, |row, value| {
            if let Some(sum) = sums.get_mut(row) {
                sum.add(value, 1);
            }
        })?;
        Ok(self.made.state::<W>(&sums))
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<Sum<W::Native>>()
    }
}

/// `sum` or `avg` that replaces the engine's: exact, with an error if a sum does not fit its type. The average
/// of decimals has the type of the decimals, rounded half away from zero. Sums of other numbers are left to the
/// engine.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Exact {
    inner: Arc<AggregateUDF>,
    is_average: bool,
}

impl Exact {
    pub(super) fn sum() -> Self {
        Self {
            inner: sum_udaf(),
            is_average: false,
        }
    }

    pub(super) fn average() -> Self {
        Self {
            inner: avg_udaf(),
            is_average: true,
        }
    }

    /// The type in which values of `field` are added; `None` if the engine's own function is used.
    fn wide(&self, field: Option<&FieldRef>) -> Option<DataType> {
        let kind = field?.data_type();
        match self.is_average && !kind.is_decimal() {
            true => None,
            false => wide(kind),
        }
    }

    fn made(&self, args: &AccumulatorArgs<'_>) -> Option<Made> {
        Some(Made {
            is_average: self.is_average,
            wide: self.wide(args.expr_fields.first())?,
            result: args.return_type().clone(),
        })
    }
}

/// Whether 128 bits are too few for the sums.
fn is_long(wide: &DataType) -> bool {
    matches!(wide, DataType::Decimal256(..))
}

fn one<W: Wide>(made: Made, is_distinct: bool) -> Box<dyn Accumulator> {
    match is_distinct {
        true => Box::new(Different::<W> {
            values: HashSet::new(),
            made,
        }),
        false => Box::new(One::<W> {
            sum: Sum::default(),
            made,
        }),
    }
}

fn many<W: Wide>(made: Made) -> Box<dyn GroupsAccumulator> {
    Box::new(Many::<W> {
        sums: Vec::new(),
        made,
    })
}

impl AggregateUDFImpl for Exact {
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
        match (self.is_average, kinds) {
            (false, [DataType::Int64 | DataType::UInt64]) => Ok(DataType::Int64),
            (
                is_average,
                [
                    DataType::Decimal32(precision, scale)
                    | DataType::Decimal64(precision, scale)
                    | DataType::Decimal128(precision, scale),
                ],
            ) => {
                let precision = match is_average {
                    true => *precision,
                    false => DECIMAL128_MAX_PRECISION,
                };
                Ok(DataType::Decimal128(precision, *scale))
            }
            (_, other) => self.inner.return_type(other),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match self.made(&args) {
            None => self.inner.accumulator(args),
            Some(made) if is_long(&made.wide) => Ok(one::<Decimal256Type>(made, args.is_distinct)),
            Some(made) => Ok(one::<Decimal128Type>(made, args.is_distinct)),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let Some(wide) = self.wide(args.input_fields.first()) else {
            return self.inner.state_fields(args);
        };
        let name = |part| format_state_name(args.name, part);
        Ok(match args.is_distinct {
            true => {
                let values = Field::new_list_field(wide, true);
                vec![Arc::new(Field::new_list(name("values"), values, true))]
            }
            false => vec![
                Arc::new(Field::new(name("total"), wide, true)),
                Arc::new(Field::new(name("count"), DataType::Int64, true)),
            ],
        })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        match self.made(&args) {
            None => self.inner.groups_accumulator_supported(args),
            Some(_) => !args.is_distinct,
        }
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        match self.made(&args) {
            None => self.inner.create_groups_accumulator(args),
            Some(made) if is_long(&made.wide) => Ok(many::<Decimal256Type>(made)),
            Some(made) => Ok(many::<Decimal128Type>(made)),
        }
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        match self.made(&args) {
            None => self.inner.create_sliding_accumulator(args),
            Some(_) if args.is_distinct => {
                not_impl_err!("{}(DISTINCT …) over a frame that moves", self.name())
            }
            Some(_) => self.accumulator(args),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}
