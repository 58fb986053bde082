//! Times of a coarser unit. A cast cuts a time towards 1970: a time before 1970 would become a later one.

use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::operators::{each, only};
use crate::engine::instants::floored_array;
use crate::time::TimeUnit;

/// A time without what is finer than `unit`s, in its own type.
pub fn floored(time: Expr, unit: TimeUnit) -> Expr {
    ScalarUDF::new_from_impl(Floored::new(unit)).call(vec![time])
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
