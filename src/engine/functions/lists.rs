//! Functions of lists and maps.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, Int64Builder, ListArray, ListBuilder,
};
use arrow::compute::nullif;
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::functions::string::contains as contains_text;
use datafusion::functions::unicode::reverse as reverse_text;
use datafusion::functions_nested::array_has::array_has_udf;
use datafusion::functions_nested::extract::array_element_udf;
use datafusion::functions_nested::map_extract::map_extract_udf;
use datafusion::functions_nested::min_max::{array_max_udf, array_min_udf};
use datafusion::functions_nested::position::array_position_udf;
use datafusion::functions_nested::reverse::array_reverse_udf;
use datafusion::logical_expr::binary::comparison_coercion;

use super::{Coercion, Definition, Given, Kind, gives_bigint, gives_boolean, wrong_arguments};

const ONE_LIST: Coercion = Coercion::Kinds(1, &[Kind::List]);

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition {
        name: "contains",
        takes: Coercion::By(list_and_item),
        gives: gives_boolean,
        make: contained,
    },
    Definition {
        name: "element_at",
        takes: Coercion::By(collection_and_key),
        gives: gives_item,
        make: elements,
    },
    Definition {
        name: "cardinality",
        takes: Coercion::Kinds(1, &[Kind::Collection]),
        gives: gives_bigint,
        make: lengths,
    },
    Definition {
        name: "array_position",
        takes: Coercion::By(list_and_item),
        gives: gives_bigint,
        make: positions,
    },
    Definition {
        name: "array_max",
        takes: ONE_LIST,
        gives: gives_item,
        make: extremes,
    },
    Definition {
        name: "array_min",
        takes: ONE_LIST,
        gives: gives_item,
        make: extremes,
    },
    Definition {
        name: "reverse",
        takes: Coercion::By(text_or_list),
        gives: gives_same,
        make: reversed,
    },
];

/// The numbers of the items of the longest of several lists and maps, from 1.
pub(super) static NUMBERS: Definition = Definition {
    name: "numbers_of_items",
    takes: Coercion::By(collections),
    gives: gives_numbers,
    make: numbers,
};

fn collections(name: &str, given: &[DataType]) -> Result<Vec<DataType>> {
    let kinds = given.iter().map(|kind| Kind::Collection.of(kind));
    match kinds.collect() {
        Some(kinds) => Ok(kinds),
        None => wrong_arguments(name, given),
    }
}

fn gives_numbers(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::List(Arc::new(Field::new_list_field(
        DataType::Int64,
        true,
    ))))
}

fn numbers(given: &Given<'_>) -> Result<ArrayRef> {
    let lengths = given.arrays.iter().map(lengths_of);
    let lengths = lengths.collect::<Result<Vec<_>>>()?;
    let mut lists = ListBuilder::new(Int64Builder::new());
    for row in 0..given.rows {
        let longest = lengths
            .iter()
            .filter(|lengths| lengths.is_valid(row))
            .map(|lengths| lengths.value(row));
        for number in 1..=longest.max().unwrap_or(0) {
            lists.values().append_value(number);
        }
        lists.append(true);
    }
    Ok(Arc::new(lists.finish()))
}

fn is_text(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    )
}

/// A list and an item of one type, or two texts.
fn list_and_item(name: &str, given: &[DataType]) -> Result<Vec<DataType>> {
    let [list, item] = given else {
        return plan_err!("`{name}()` takes 2 arguments, not {}", given.len());
    };
    if name == "contains" && is_text(list) && (is_text(item) || item.is_null()) {
        return Ok(vec![DataType::Utf8, DataType::Utf8]);
    }
    let Some(DataType::List(field)) = Kind::List.of(list) else {
        return wrong_arguments(name, given);
    };
    let of_list = field.data_type();
    if is_text(of_list) != is_text(item) && !item.is_null() && !of_list.is_null() {
        return wrong_arguments(name, given);
    }
    match comparison_coercion(of_list, item) {
        Some(kind) => {
            let list = DataType::List(Arc::new(Field::new_list_field(kind.clone(), true)));
            Ok(vec![list, kind])
        }
        None => wrong_arguments(name, given),
    }
}

/// A list and a number, or a map and a key.
fn collection_and_key(name: &str, given: &[DataType]) -> Result<Vec<DataType>> {
    let [collection, key] = given else {
        return plan_err!("`{name}()` takes 2 arguments, not {}", given.len());
    };
    match Kind::Collection.of(collection) {
        Some(map @ DataType::Map(..)) => {
            let DataType::Map(entries, _) = &map else {
                return wrong_arguments(name, given);
            };
            let DataType::Struct(fields) = entries.data_type() else {
                return wrong_arguments(name, given);
            };
            match fields.first() {
                Some(of_map) if is_text(of_map.data_type()) == is_text(key) || key.is_null() => {
                    let kind = of_map.data_type().clone();
                    Ok(vec![map, kind])
                }
                _ => wrong_arguments(name, given),
            }
        }
        Some(list) if key.is_integer() || key.is_null() => Ok(vec![list, DataType::Int64]),
        _ => wrong_arguments(name, given),
    }
}

fn text_or_list(name: &str, given: &[DataType]) -> Result<Vec<DataType>> {
    match given {
        [kind] if is_text(kind) || kind.is_null() => Ok(vec![DataType::Utf8]),
        [kind] => match Kind::List.of(kind) {
            Some(kind) => Ok(vec![kind]),
            None => wrong_arguments(name, given),
        },
        _ => plan_err!("`{name}()` takes 1 argument, not {}", given.len()),
    }
}

fn gives_same(kinds: &[DataType]) -> Result<DataType> {
    match kinds {
        [kind, ..] => Ok(kind.clone()),
        [] => plan_err!("an argument is missing"),
    }
}

fn gives_item(kinds: &[DataType]) -> Result<DataType> {
    match kinds.first() {
        Some(DataType::List(field)) => Ok(field.data_type().clone()),
        Some(DataType::Map(entries, _)) => match entries.data_type() {
            DataType::Struct(fields) => match fields.get(1) {
                Some(value) => Ok(value.data_type().clone()),
                None => plan_err!("a map has no values"),
            },
            other => plan_err!("a map has entries of the type {other}"),
        },
        _ => plan_err!("an argument is missing"),
    }
}

/// Whether a list is there and has a NULL among its items.
fn has_null(list: &ListArray, row: usize) -> bool {
    list.is_valid(row) && list.value(row).logical_null_count() > 0
}

/// Whether a list has an item. It is not known, and NULL, if the list has a NULL in place of it.
fn contained(given: &Given<'_>) -> Result<ArrayRef> {
    let (first, item) = (given.array(0)?, given.array(1)?);
    let Some(list) = first.as_list_opt::<i32>() else {
        return given.engine(&contains_text(), given.arrays.clone());
    };
    let found = given.engine(&array_has_udf(), given.arrays.clone())?;
    let found = found.as_boolean();
    let made = (0..given.rows).map(|row| {
        if list.is_null(row) || item.is_null(row) {
            return None;
        }
        match found.is_valid(row) && found.value(row) {
            true => Some(true),
            false => (!has_null(list, row)).then_some(false),
        }
    });
    Ok(Arc::new(made.collect::<BooleanArray>()))
}

fn elements(given: &Given<'_>) -> Result<ArrayRef> {
    let (collection, keys) = (given.array(0)?, given.array(1)?);
    if collection.as_map_opt().is_some() {
        let found = given.engine(&map_extract_udf(), given.arrays.clone())?;
        let first: ArrayRef = Arc::new(Int64Array::from(vec![1; given.rows]));
        return given.engine(&array_element_udf(), vec![found, first]);
    }
    let numbers = keys.as_primitive::<Int64Type>();
    if numbers.iter().flatten().any(|number| number == 0) {
        return exec_err!("`element_at()` counts from 1: there is no item 0");
    }
    given.engine(&array_element_udf(), given.arrays.clone())
}

fn lengths(given: &Given<'_>) -> Result<ArrayRef> {
    Ok(Arc::new(lengths_of(given.array(0)?)?))
}

/// The number of items of each list or map.
fn lengths_of(collection: &ArrayRef) -> Result<Int64Array> {
    let lengths: Vec<usize> = match (collection.as_list_opt::<i32>(), collection.as_map_opt()) {
        (Some(list), _) => list.offsets().lengths().collect(),
        (None, Some(map)) => map.offsets().lengths().collect(),
        (None, None) => return exec_err!("{} is no list and no map", collection.data_type()),
    };
    let lengths = lengths.into_iter().enumerate().map(|(row, length)| {
        let valid = collection.is_valid(row);
        valid.then(|| i64::try_from(length).unwrap_or(i64::MAX))
    });
    Ok(lengths.collect())
}

fn positions(given: &Given<'_>) -> Result<ArrayRef> {
    let found = given.engine(&array_position_udf(), given.arrays.clone())?;
    let found = arrow::compute::cast(&found, &DataType::Int64)?;
    let found = found.as_primitive::<Int64Type>();
    let (list, item) = (given.array(0)?, given.array(1)?);
    let made = (0..given.rows).map(|row| {
        let there = list.is_valid(row) && item.is_valid(row);
        there.then(|| {
            if found.is_valid(row) {
                found.value(row)
            } else {
                0
            }
        })
    });
    Ok(Arc::new(made.collect::<Int64Array>()))
}

/// The engine leaves NULLs out; in Athena the result is NULL if one of the items is.
fn extremes(given: &Given<'_>) -> Result<ArrayRef> {
    let function = match given.name {
        "array_max" => array_max_udf(),
        _ => array_min_udf(),
    };
    let made = given.engine(&function, given.arrays.clone())?;
    let list = given.array(0)?.as_list::<i32>();
    let unknown = (0..given.rows).map(|row| Some(has_null(list, row)));
    Ok(nullif(&made, &unknown.collect::<BooleanArray>())?)
}

fn reversed(given: &Given<'_>) -> Result<ArrayRef> {
    let function = match given.kind {
        DataType::Utf8 => reverse_text(),
        _ => array_reverse_udf(),
    };
    given.engine(&function, given.arrays.clone())
}
