//! Times of a coarser unit. A cast cuts a time towards 1970: a time before 1970 would become a later one.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, TimestampMicrosecondType, TimestampNanosecondType};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::operators::{each, only};
use crate::time::TimeUnit;

/// A time without what is finer than `unit`s, in its own type.
pub fn floored(time: Expr, unit: TimeUnit) -> Expr {
    ScalarUDF::new_from_impl(Floored::new(unit)).call(vec![time])
}

/// Whether times of this type may have parts that are finer than `unit`s.
pub fn is_finer(kind: &DataType, unit: TimeUnit) -> bool {
    finer(kind, unit).is_some()
}

/// The times of an array without what is finer than `unit`s, in their own type. Any other array as it is.
pub fn floored_array(times: &ArrayRef, unit: TimeUnit) -> ArrayRef {
    let kind = times.data_type();
    let (DataType::Timestamp(own, zone), Some(finer)) = (kind, finer(kind, unit)) else {
        return Arc::clone(times);
    };
    let whole = |time: i64| time.saturating_sub(time.rem_euclid(finer));
    match own {
        arrow::datatypes::TimeUnit::Nanosecond => Arc::new(
            times
                .as_primitive::<TimestampNanosecondType>()
                .unary::<_, TimestampNanosecondType>(whole)
                .with_timezone_opt(zone.clone()),
        ),
        _ => Arc::new(
            times
                .as_primitive::<TimestampMicrosecondType>()
                .unary::<_, TimestampMicrosecondType>(whole)
                .with_timezone_opt(zone.clone()),
        ),
    }
}

/// How many units of a type one `unit` is; `None` where the type is no finer.
fn finer(kind: &DataType, unit: TimeUnit) -> Option<i64> {
    use arrow::datatypes::TimeUnit::{Microsecond, Nanosecond};
    match (kind, unit) {
        (DataType::Timestamp(Nanosecond, _), TimeUnit::Ms) => Some(1_000_000),
        (DataType::Timestamp(Nanosecond, _), TimeUnit::Us)
        | (DataType::Timestamp(Microsecond, _), TimeUnit::Ms) => Some(1_000),
        _ => None,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Floored {
    unit: TimeUnit,
    signature: Signature,
}

impl Floored {
    fn new(unit: TimeUnit) -> Self {
        Self {
            unit,
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Floored {
    fn name(&self) -> &str {
        "floored"
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(only(self.name(), args)?.schema_name().to_string())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        match kinds {
            [kind] => Ok(kind.clone()),
            other => datafusion::common::plan_err!("`floored` of {} operands", other.len()),
        }
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        each(self.name(), args, |times| {
            Ok(floored_array(times, self.unit))
        })
    }
}
