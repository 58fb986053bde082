//! Decimals: the types of results are Trino's, rounding is half away from zero, and a result has at most 38
//! digits.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::compute::cast;
use arrow::compute::kernels::arity::try_binary;
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Decimal256Type, Int64Type, i256,
};
use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, Result, exec_err, plan_err};
use datafusion::logical_expr::Operator;

/// The type of `left op right` for two decimals of at most 38 digits.
pub(super) fn result(
    op: Operator,
    (left_precision, left_scale): (u8, i8),
    (right_precision, right_scale): (u8, i8),
) -> Result<DataType> {
    let wide = |digits: i16| {
        u8::try_from(digits)
            .unwrap_or(u8::MAX)
            .min(DECIMAL128_MAX_PRECISION)
    };
    let (p1, s1) = (i16::from(left_precision), i16::from(left_scale));
    let (p2, s2) = (i16::from(right_precision), i16::from(right_scale));
    let scale = match op {
        Operator::Multiply => s1 + s2,
        _ => s1.max(s2),
    };
    let precision = match op {
        Operator::Multiply => p1 + p2,
        Operator::Divide => p1 + s2 + (s2 - s1).max(0),
        _ => (p1 - s1).max(p2 - s2) + scale + 1,
    };
    let precision = precision.max(scale).max(1);
    match i8::try_from(scale) {
        Ok(scale) if scale <= 38 => Ok(DataType::Decimal128(wide(precision), scale)),
        _ => plan_err!(
            "decimal({p1}, {s1}) {op} decimal({p2}, {s2}) has {scale} digits behind the point, and \
             readers know 38: cast one of them to fewer"
        ),
    }
}

/// Checks that each of `values` has at most as many digits as its type says.
pub(super) fn fits(values: Decimal128Array, what: &str) -> Result<ArrayRef> {
    let precision = values.precision();
    match values.validate_decimal_precision(precision) {
        Ok(()) => Ok(Arc::new(values)),
        Err(_) => exec_err!(
            "a {what} does not fit decimal({precision}, {}): cast to fewer digits behind the point, \
             or to double",
            values.scale()
        ),
    }
}

/// `left / right` in units of 10^-`scale` of the result, rounded half away from zero.
pub(super) fn divide(left: &ArrayRef, right: &ArrayRef, result: &DataType) -> Result<ArrayRef> {
    let DataType::Decimal128(precision, scale) = result else {
        return exec_err!("a quotient of decimals is not {result}");
    };
    let left = left.as_primitive::<Decimal128Type>();
    let right = right.as_primitive::<Decimal128Type>();
    let up = i16::from(*scale) - i16::from(left.scale()) + i16::from(right.scale());
    let Ok(up) = u32::try_from(up) else {
        return exec_err!("a quotient of decimals has fewer digits than its operands");
    };
    let factor = i256::from_i128(10).checked_pow(up);
    let Some(factor) = factor else {
        return exec_err!("a quotient of decimals has too many digits");
    };
    let quotients: Decimal128Array = try_binary(left, right, |left, right| {
        let quotient = i256::from_i128(left)
            .checked_mul(factor)
            .ok_or_else(|| overflow(left, right))?;
        rounded(quotient, i256::from_i128(right))?
            .to_i128()
            .ok_or_else(|| overflow(left, right))
    })?;
    fits(
        quotients.with_precision_and_scale(*precision, *scale)?,
        "quotient",
    )
}

fn overflow(left: i128, right: i128) -> ArrowError {
    ArrowError::ArithmeticOverflow(format!("{left} / {right} has more than 38 digits"))
}

fn rounded(dividend: i256, divisor: i256) -> Result<i256, ArrowError> {
    if divisor == i256::ZERO {
        return Err(ArrowError::DivideByZero);
    }
    let quotient = dividend.wrapping_div(divisor);
    let rest = dividend.wrapping_rem(divisor);
    // |rest| < |divisor|, and the divisor has 128 bits, so the rest can be doubled.
    let double = rest.wrapping_abs().wrapping_add(rest.wrapping_abs());
    if double < divisor.wrapping_abs() {
        return Ok(quotient);
    }
    let away = match (dividend < i256::ZERO) == (divisor < i256::ZERO) {
        true => i256::ONE,
        false => i256::MINUS_ONE,
    };
    Ok(quotient.wrapping_add(away))
}

/// Divides totals by counts, in the type of the values that were added. The result is NULL if there was no
/// value.
pub(super) fn divide_rounded(
    totals: &ArrayRef,
    counts: &ArrayRef,
    result: &DataType,
) -> Result<ArrayRef> {
    let DataType::Decimal128(precision, scale) = result else {
        return exec_err!("an average of decimals is not {result}");
    };
    let totals = match totals.data_type() {
        DataType::Decimal256(..) => Arc::clone(totals),
        _ => cast(totals, &DataType::Decimal256(76, *scale))?,
    };
    let totals = totals.as_primitive::<Decimal256Type>();
    let counts = counts.as_primitive::<Int64Type>();
    let averages: Decimal128Array = try_binary(totals, counts, |total, count| {
        rounded(total, i256::from(count))?
            .to_i128()
            .ok_or(ArrowError::DivideByZero)
    })
    .map_err(DataFusionError::from)?;
    fits(
        averages.with_precision_and_scale(*precision, *scale)?,
        "average",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_rounded_away_from_zero() {
        let rounded = |a: i128, b: i128| rounded(i256::from_i128(a), i256::from_i128(b)).unwrap();
        for (a, b, expected) in [
            (5, 2, 3),
            (-5, 2, -3),
            (5, -2, -3),
            (-5, -2, 3),
            (7, 3, 2),
            (8, 3, 3),
            (-8, 3, -3),
            (1, 3, 0),
            (-1, 2, -1),
            (i128::MAX, 1, i128::MAX),
            (i128::MIN, 1, i128::MIN),
        ] {
            assert_eq!(rounded(a, b), i256::from_i128(expected), "{a} / {b}");
        }
    }
}
