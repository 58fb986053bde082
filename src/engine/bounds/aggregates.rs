//! Aggregates whose result is as large as their input, `string_agg` and `array_agg`: a value of theirs has a limit too.
//!
//! ```text
//! rows ──▶ bytes of each group, added up ── more than the limit ──▶ TooLarge
//!     └──▶ accumulator of the engine ──▶ result
//! ```

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::AggregateFunctionParams;
use datafusion::logical_expr::function::{
    AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs,
};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator,
    ReversedUDAF, Signature,
};
use datafusion::physical_expr::expressions::Literal;

use super::growth::bytes_of;
use super::{VALUE, too_large};

/// `string_agg` and `array_agg`, in the place of the engine's.
///
/// `together` is the most bytes of the values that a window gives to the rows of one batch.
pub(in crate::engine) fn functions(together: u64) -> [AggregateUDF; 2] {
    use datafusion::functions_aggregate::array_agg::array_agg_udaf;
    use datafusion::functions_aggregate::string_agg::string_agg_udaf;
    [string_agg_udaf(), array_agg_udaf()]
        .map(|inner| AggregateUDF::from(Collecting { inner, together }))
}

/// Values that a window gives at once.
const BATCH: u64 = 8192;

/// Whether an aggregate of this name makes one value out of all its input.
pub(in crate::engine) fn collects(name: &str) -> bool {
    ["string_agg", "array_agg"].contains(&name)
}

/// An aggregate that is given up when one of its values would be too large.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Collecting {
    inner: Arc<AggregateUDF>,
    together: u64,
}

impl Collecting {
    fn one(&self, distinct: bool, beside: u64, inner: Box<dyn Accumulator>) -> Box<One> {
        Box::new(One {
            name: self.name().to_owned(),
            distinct,
            beside,
            together: self.together,
            bytes: 0,
            given: (0, 0),
            inner,
        })
    }
}

impl AggregateUDFImpl for Collecting {
    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let (distinct, beside) = (args.is_distinct, beside(&args));
        let inner = self.inner.accumulator(args)?;
        Ok(self.one(distinct, beside, inner))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let (distinct, beside) = (args.is_distinct, beside(&args));
        let inner = self.inner.create_sliding_accumulator(args)?;
        Ok(self.one(distinct, beside, inner))
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups {
            name: self.name().to_owned(),
            beside: beside(&args),
            bytes: Vec::new(),
            inner: self.inner.create_groups_accumulator(args)?,
        }))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        match self.inner.reverse_udf() {
            // Both are the same function over the reversed order.
            ReversedUDAF::Reversed(inner) => {
                let together = self.together;
                ReversedUDAF::Reversed(Arc::new(AggregateUDF::from(Self { inner, together })))
            }
            other => other,
        }
    }

    fn with_beneficial_ordering(
        self: Arc<Self>,
        beneficial_ordering: bool,
    ) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        let inner =
            AggregateUDF::clone(&self.inner).with_beneficial_ordering(beneficial_ordering)?;
        Ok(inner.map(|inner| {
            let inner = Arc::new(inner);
            let together = self.together;
            Arc::new(Self { inner, together }) as Arc<dyn AggregateUDFImpl>
        }))
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.inner.schema_name(params)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        self.inner.return_type(kinds)
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        self.inner.return_field(fields)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        self.inner.simplify()
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.inner.supports_null_handling_clause()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

/// The bytes that each value takes beside its own: those of the separator, one of a list.
fn beside(args: &AccumulatorArgs) -> u64 {
    let separator = args.exprs.get(1);
    let separator = separator.and_then(|separator| separator.downcast_ref::<Literal>());
    let text = separator.and_then(|separator| separator.value().try_as_str());
    text.flatten().map_or(1, |text| text.len() as u64)
}

/// The bytes of each value of the first argument, with those beside it.
fn bytes_of_rows(values: &[ArrayRef], beside: u64) -> impl Iterator<Item = u64> {
    let bytes = values.first().map_or(Vec::new(), bytes_of);
    bytes
        .into_iter()
        .map(move |bytes| bytes.saturating_add(beside))
}

/// One value.
#[derive(Debug)]
struct One {
    name: String,
    /// Whether equal values are one: then the sum of the bytes is no more than a bound.
    distinct: bool,
    beside: u64,
    /// The bytes of all values that came and are not taken back.
    bytes: u64,
    together: u64,
    /// Values that were given, and their bytes, since the last [`BATCH`] of them.
    given: (u64, u64),
    inner: Box<dyn Accumulator>,
}

impl One {
    fn check(&mut self, more: u64) -> Result<()> {
        self.bytes = self.bytes.saturating_add(more);
        if self.bytes <= VALUE {
            return Ok(());
        }
        let bytes = match self.distinct {
            true => self.inner.size() as u64,
            false => self.bytes,
        };
        match bytes > VALUE {
            true => Err(too_large(&self.name, "a value", bytes, VALUE)),
            false => Ok(()),
        }
    }
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.check(bytes_of_rows(values, self.beside).sum())?;
        self.inner.update_batch(values)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.check(bytes_of_rows(states, self.beside).sum())?;
        self.inner.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let less = bytes_of_rows(values, self.beside).sum();
        self.bytes = self.bytes.saturating_sub(less);
        self.inner.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }

    /// A window asks for a value for each of its rows, and an aggregate for one.
    fn evaluate(&mut self) -> Result<ScalarValue> {
        let value = self.inner.evaluate()?;
        let (count, bytes) = self.given;
        let (count, bytes) = (count + 1, bytes.saturating_add(value.size() as u64));
        if count > 1 && bytes > self.together {
            let what = format!("{count} values");
            return Err(too_large(&self.name, &what, bytes, self.together));
        }
        self.given = if count < BATCH {
            (count, bytes)
        } else {
            (0, 0)
        };
        Ok(value)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.name.capacity() + self.inner.size()
    }
}

/// The values of many groups.
struct Groups {
    name: String,
    beside: u64,
    /// The bytes of the values of each group.
    bytes: Vec<u64>,
    inner: Box<dyn GroupsAccumulator>,
}

impl Groups {
    fn check(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        all: usize,
    ) -> Result<()> {
        self.bytes.resize(all, 0);
        let rows = bytes_of_rows(values, self.beside).zip(groups);
        for (row, (more, group)) in rows.enumerate() {
            let passes = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            let Some(bytes) = self.bytes.get_mut(*group).filter(|_| passes) else {
                continue;
            };
            *bytes = bytes.saturating_add(more);
            if *bytes > VALUE {
                return Err(too_large(&self.name, "a value", *bytes, VALUE));
            }
        }
        Ok(())
    }

    /// Forgets groups that are given out.
    fn emitted(&mut self, emit_to: EmitTo) {
        drop(emit_to.take_needed(&mut self.bytes));
    }
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        all: usize,
    ) -> Result<()> {
        self.check(values, groups, filter, all)?;
        self.inner.update_batch(values, groups, filter, all)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], all: usize) -> Result<()> {
        self.check(values, groups, None, all)?;
        self.inner.merge_batch(values, groups, all)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        self.emitted(emit_to);
        self.inner.evaluate(emit_to)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.emitted(emit_to);
        self.inner.state(emit_to)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(values, filter)
    }

    /// The values count three times: here, in the batch that is given out, and where that batch is sorted or encoded.
    fn size(&self) -> usize {
        self.bytes.capacity() * size_of::<u64>() + 3 * self.inner.size()
    }
}
