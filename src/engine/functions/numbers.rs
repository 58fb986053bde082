//! Functions of numbers, and the largest and the least of several values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, nullif};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, plan_err};
use datafusion::functions::core::{greatest, least};

use super::{Coercion, Definition, Given, Kind, as_engine, wrong_arguments};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition {
        name: "sign",
        takes: Coercion::Kinds(1, &[Kind::Number]),
        gives: gives_sign,
        make: signs,
    },
    Definition {
        name: "greatest",
        takes: Coercion::By(one_type),
        gives: gives_first,
        make: extremes,
    },
    Definition {
        name: "least",
        takes: Coercion::By(one_type),
        gives: gives_first,
        make: extremes,
    },
];

fn one_type(name: &str, given: &[DataType]) -> Result<Vec<DataType>> {
    as_engine(&greatest(), given).or_else(|_| wrong_arguments(name, given))
}

fn gives_sign(kinds: &[DataType]) -> Result<DataType> {
    Ok(match kinds {
        [kind] if kind.is_floating() => DataType::Float64,
        _ => DataType::Int64,
    })
}

fn gives_first(kinds: &[DataType]) -> Result<DataType> {
    match kinds.first() {
        Some(kind) => Ok(kind.clone()),
        None => plan_err!("`greatest()` and `least()` need values"),
    }
}

fn signs(given: &Given<'_>) -> Result<ArrayRef> {
    let numbers = cast(given.array(0)?, &DataType::Float64)?;
    let numbers = numbers.as_primitive::<Float64Type>();
    if *given.kind == DataType::Float64 {
        let sign = |number: f64| match number {
            _ if number > 0.0 => 1.0,
            _ if number < 0.0 => -1.0,
            // Zero, and what is no number.
            _ => number,
        };
        return Ok(Arc::new(numbers.unary::<_, Float64Type>(sign)));
    }
    let made = numbers.iter().map(|number| {
        let number = number?;
        Some(i64::from(number > 0.0) - i64::from(number < 0.0))
    });
    Ok(Arc::new(made.collect::<Int64Array>()))
}

/// The engine leaves NULLs out; in Athena the result is NULL if one of the values is.
fn extremes(given: &Given<'_>) -> Result<ArrayRef> {
    let function = match given.name {
        "greatest" => greatest(),
        _ => least(),
    };
    let made = given.engine(&function, given.arrays.clone())?;
    let valid = given.arrays.iter().fold(None, |valid, array| {
        NullBuffer::union(valid.as_ref(), array.logical_nulls().as_ref())
    });
    match valid {
        None => Ok(made),
        Some(valid) => {
            let is_null = arrow::array::BooleanArray::new(!valid.inner(), None);
            Ok(nullif(&made, &is_null)?)
        }
    }
}
