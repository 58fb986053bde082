//! Makes operators of SQL functions: an overflow is an error, and numbers are rounded before they are cast to
//! integers.
//!
//! A column without a name of its own is named after its expression, so each function has the spelling of the
//! operator that it replaces.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::compute::kernels::numeric::{add, mul, neg, sub};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Float32Type, Float64Type,
};
use datafusion::common::utils::take_function_args;
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr_common::datum::apply;

use super::decimals;

/// `+`, `-` and `*` of integers, and `+`, `-`, `*` and `/` of decimals.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Arithmetic {
    op: Operator,
    signature: Signature,
}

impl Arithmetic {
    /// Whether this function replaces the operator for operands of these types.
    pub(super) fn applies(op: Operator, left: &DataType, right: &DataType) -> bool {
        match (left, right) {
            (DataType::Decimal128(..), DataType::Decimal128(..)) => matches!(
                op,
                Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide
            ),
            (left, right) => {
                (left.is_integer() || left.is_decimal())
                    && (right.is_integer() || right.is_decimal())
                    && matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply)
            }
        }
    }

    pub(super) fn new(op: Operator) -> Self {
        Self {
            op,
            signature: Signature::any(2, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Arithmetic {
    fn name(&self) -> &str {
        match self.op {
            Operator::Plus => "+",
            Operator::Minus => "-",
            Operator::Multiply => "*",
            _ => "/",
        }
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let [left, right] = args else {
            return plan_err!("`{}` of {} operands", self.op, args.len());
        };
        Ok(format!(
            "{} {} {}",
            left.schema_name(),
            self.op,
            right.schema_name()
        ))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        match kinds {
            [DataType::Decimal128(p1, s1), DataType::Decimal128(p2, s2)] => {
                decimals::result(self.op, (*p1, *s1), (*p2, *s2))
            }
            [left, right] => BinaryTypeCoercer::new(left, &self.op, right).get_result_type(),
            other => plan_err!("`{}` of {} operands", self.op, other.len()),
        }
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let kind = args.return_type().clone();
        let rows = args.number_rows;
        let [left, right] = take_function_args(self.name(), args.args)?;
        let made = match self.op {
            Operator::Plus => apply(&left, &right, add)?,
            Operator::Minus => apply(&left, &right, sub)?,
            Operator::Multiply => apply(&left, &right, mul)?,
            _ => {
                let one = matches!(
                    (&left, &right),
                    (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_))
                );
                let rows = if one { 1 } else { rows };
                let quotients =
                    decimals::divide(&left.into_array(rows)?, &right.into_array(rows)?, &kind)?;
                return one_or_many(quotients, one);
            }
        };
        let DataType::Decimal128(precision, scale) = kind else {
            return Ok(made);
        };
        let one = matches!(made, ColumnarValue::Scalar(_));
        let made = made.into_array(if one { 1 } else { rows })?;
        let made = made.as_primitive::<Decimal128Type>().clone();
        let made = made.with_precision_and_scale(precision, scale)?;
        // With fewer digits, any two operands fit.
        let made = match precision == DECIMAL128_MAX_PRECISION {
            true => decimals::fits(made, "decimal")?,
            false => Arc::new(made),
        };
        one_or_many(made, one)
    }
}

fn one_or_many(values: ArrayRef, one: bool) -> Result<ColumnarValue> {
    Ok(match one {
        true => ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&values, 0)?),
        false => ColumnarValue::Array(values),
    })
}

/// A function of one value that replaces an expression.
pub(super) fn each(
    name: &str,
    args: ScalarFunctionArgs,
    make: impl Fn(&ArrayRef) -> Result<ArrayRef>,
) -> Result<ColumnarValue> {
    let [value] = take_function_args(name, args.args)?;
    match value {
        ColumnarValue::Array(values) => Ok(ColumnarValue::Array(make(&values)?)),
        ColumnarValue::Scalar(value) => one_or_many(make(&value.to_array()?)?, true),
    }
}

pub(super) fn only<'a>(name: &str, args: &'a [Expr]) -> Result<&'a Expr> {
    match args {
        [value] => Ok(value),
        other => plan_err!("`{name}` of {} operands", other.len()),
    }
}

/// The sign `-` before an integer.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Negative {
    signature: Signature,
}

impl Negative {
    pub(super) fn new() -> Self {
        Self {
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Negative {
    fn name(&self) -> &str {
        "negative"
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(format!("(- {})", only(self.name(), args)?.schema_name()))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        match kinds {
            [kind] => Ok(kind.clone()),
            other => plan_err!("`-` before {} operands", other.len()),
        }
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        each(self.name(), args, |values| Ok(neg(values)?))
    }
}

/// Rounds a number to an integer, half away from zero. It is put below a cast to an integer.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Whole {
    signature: Signature,
}

impl Whole {
    /// Whether a cast to an integer cuts off values of this type.
    pub(super) fn applies(kind: &DataType) -> bool {
        match kind {
            DataType::Float16 | DataType::Float32 | DataType::Float64 => true,
            DataType::Decimal32(_, scale)
            | DataType::Decimal64(_, scale)
            | DataType::Decimal128(_, scale)
            | DataType::Decimal256(_, scale) => *scale > 0,
            _ => false,
        }
    }

    pub(super) fn new() -> Self {
        Self {
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Whole {
    fn name(&self) -> &str {
        "whole"
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(only(self.name(), args)?.schema_name().to_string())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        // Rounding up may give one digit more.
        let digits = |precision: u8, scale: i8| {
            let digits = i16::from(precision) - i16::from(scale) + 1;
            u8::try_from(digits).unwrap_or(1).max(1)
        };
        Ok(match kinds {
            [DataType::Float16 | DataType::Float32] => DataType::Float32,
            [DataType::Float64] => DataType::Float64,
            [DataType::Decimal32(p, s)] => DataType::Decimal32(digits(*p, *s).min(9), 0),
            [DataType::Decimal64(p, s)] => DataType::Decimal64(digits(*p, *s).min(18), 0),
            [DataType::Decimal128(p, s)] => DataType::Decimal128(digits(*p, *s).min(38), 0),
            [DataType::Decimal256(p, s)] => DataType::Decimal256(digits(*p, *s).min(76), 0),
            other => return plan_err!("{other:?} has no whole part"),
        })
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let kind = args.return_type().clone();
        each(self.name(), args, |values| {
            Ok(match values.data_type() {
                DataType::Float64 => {
                    let values = values.as_primitive::<Float64Type>();
                    Arc::new(values.unary::<_, Float64Type>(f64::round))
                }
                DataType::Float32 => {
                    let values = values.as_primitive::<Float32Type>();
                    Arc::new(values.unary::<_, Float32Type>(f32::round))
                }
                DataType::Float16 => {
                    let values = cast(values, &DataType::Float32)?;
                    let values = values.as_primitive::<Float32Type>();
                    Arc::new(values.unary::<_, Float32Type>(f32::round))
                }
                other if other.is_decimal() => cast(values, &kind)?,
                other => return exec_err!("{other} has no whole part"),
            })
        })
    }
}
