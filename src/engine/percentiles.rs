//! Evaluates `percentile_cont` as exactly as its numbers are.
//!
//! DataFusion weighs the two values around a percentile in steps of a millionth. Between 0 and 1e12 the result
//! is wrong by up to a million.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Float64Type, Schema};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::functions_aggregate::percentile_cont::PercentileCont;
use datafusion::logical_expr::function::{
    AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs,
};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Documentation, Signature,
};

/// The function `percentile_cont`. It replaces the one of DataFusion.
pub(super) fn function() -> AggregateUDF {
    AggregateUDF::from(Percentile {
        inner: PercentileCont::new(),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Percentile {
    inner: PercentileCont,
}

impl AggregateUDFImpl for Percentile {
    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let share = share(&args)?;
        let kind = args.return_type().clone();
        let values = self.inner.accumulator(args)?;
        Ok(Box::new(Exact {
            values,
            share,
            kind,
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

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        self.inner.simplify()
    }

    fn supports_within_group_clause(&self) -> bool {
        self.inner.supports_within_group_clause()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

/// The share of the values that lie before the percentile, counted from the smallest value.
fn share(args: &AccumulatorArgs) -> Result<f64> {
    let none = RecordBatch::try_new_with_options(
        Schema::empty().into(),
        Vec::new(),
        &RecordBatchOptions::new().with_row_count(Some(1)),
    )?;
    let Some(share) = args.exprs.get(1) else {
        return exec_err!("percentile_cont needs a percentile");
    };
    let share = match share.evaluate(&none)? {
        ColumnarValue::Scalar(scalar) => scalar.cast_to(&DataType::Float64)?,
        ColumnarValue::Array(array) => {
            ScalarValue::try_from_array(&array, 0)?.cast_to(&DataType::Float64)?
        }
    };
    let ScalarValue::Float64(Some(share)) = share else {
        return exec_err!("the percentile of percentile_cont is NULL");
    };
    let descending = args
        .order_bys
        .first()
        .is_some_and(|by| by.options.descending);
    Ok(if descending { 1.0 - share } else { share })
}

/// Accumulates the values in the accumulator of DataFusion, whose state is one list of all values.
#[derive(Debug)]
struct Exact {
    values: Box<dyn Accumulator>,
    share: f64,
    kind: DataType,
}

impl Accumulator for Exact {
    fn evaluate(&mut self) -> Result<ScalarValue> {
        let state = self.values.state()?;
        let lists = state.iter().map(ScalarValue::to_array);
        let lists = lists.collect::<Result<Vec<_>>>()?;
        // Asking for the state takes it away, but a window goes on with it.
        self.values.merge_batch(&lists)?;
        let found = match lists.first().and_then(|list| list.as_list_opt::<i32>()) {
            Some(list) if list.is_valid(0) => {
                let values = cast(&list.value(0), &DataType::Float64)?;
                let values = values.as_primitive::<Float64Type>().iter().flatten();
                between(values.collect(), self.share)
            }
            _ => None,
        };
        ScalarValue::Float64(found).cast_to(&self.kind)
    }

    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.update_batch(values)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.values.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.values.supports_retract_batch()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.values.state()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.size()
    }
}

/// The value with `share` of the other values before it. It lies in proportion between the two values around
/// that position.
fn between(mut values: Vec<f64>, share: f64) -> Option<f64> {
    let place = share * values.len().checked_sub(1)? as f64;
    let below = place.floor();
    let (_, lower, rest) = values.select_nth_unstable_by(below as usize, f64::total_cmp);
    let lower = *lower;
    let weight = place - below;
    if weight == 0.0 {
        return Some(lower);
    }
    let upper = rest.iter().copied().min_by(f64::total_cmp)?;
    Some(lower + (upper - lower) * weight)
}

#[cfg(test)]
mod tests {
    use super::between;

    #[test]
    fn a_percentile_lies_in_proportion_between_two_values() {
        for (values, share, expected) in [
            (vec![], 0.5, None),
            (vec![7.0], 0.9, Some(7.0)),
            (vec![3.0, 1.0, 2.0], 0.5, Some(2.0)),
            (vec![1e12, 0.0, 0.0, 0.0], 0.9, Some(0.7e12)),
            (vec![1.0, 0.0], 1.0 / 3.0, Some(1.0 / 3.0)),
            (vec![5.0, 1.0], 0.0, Some(1.0)),
            (vec![5.0, 1.0], 1.0, Some(5.0)),
        ] {
            let found = between(values.clone(), share);
            let near = match (found, expected) {
                (Some(found), Some(expected)) => (found - expected).abs() <= 1e-15 * expected,
                (found, expected) => found == expected,
            };
            assert!(near, "{values:?} at {share}: {found:?}, not {expected:?}");
        }
    }
}
