//! JSON values as values of column types: whether they fit, and how they read.
//!
//! ```text
//! text of a value ──▶ scalar() ──▶ Scalar ──▶ Builder::scalar
//!                └──▶ fits()   (arrays, maps, structs)  ──▶ Builder::json
//! ```
//!
//! A value is read as a whole before it is appended, so no builder ever holds half a value. The rows
//! take back the values of a record that they refuse.

use std::borrow::Cow;
use std::collections::HashMap;

use super::json::{Items, ObjectMembers, Skipper, quoted, resolved};
use super::shape::{Shape, ValueReader};
use crate::event::{Column, ColumnType};
use crate::time::{Decimal, TimeUnit, Zone, Zones, read_date};

/// A value of a type without values inside.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar<'a> {
    /// NULL.
    Null,
    /// A boolean.
    Boolean(bool),
    /// An integer, the days of a date since 1970, or the units of a timestamp since 1970 UTC.
    Integer(i64),
    /// A double.
    Double(f64),
    /// The unscaled value of a decimal.
    Decimal(i128),
    /// A text, or the text of a JSON value.
    Text(Cow<'a, str>),
}

/// The value of a JSON number without a point and an exponent.
#[inline]
fn integer(value: &str) -> Option<i64> {
    // The grammar of JSON has been checked, so there is no `+`, which `parse` would accept.
    value.parse().ok()
}

/// The value of a JSON number as a finite double.
fn double(value: &str) -> Option<f64> {
    if !value.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return None;
    }
    value.parse().ok().filter(|value: &f64| value.is_finite())
}

/// Reads the text of one valid JSON value as `kind`. `None` where it does not fit.
#[inline]
pub(super) fn scalar<'a>(
    kind: &ColumnType,
    value: &'a str,
    reader: &ValueReader,
) -> Option<Scalar<'a>> {
    if value == "null" {
        return Some(Scalar::Null);
    }
    Some(match kind {
        ColumnType::String => Scalar::Text(resolved(quoted(value)?)?),
        ColumnType::Json => Scalar::Text(Cow::Borrowed(value)),
        ColumnType::Boolean => match value {
            "true" => Scalar::Boolean(true),
            "false" => Scalar::Boolean(false),
            _ => return None,
        },
        ColumnType::Int => Scalar::Integer(i32::try_from(integer(value)?).ok()?.into()),
        ColumnType::BigInt => Scalar::Integer(integer(value)?),
        ColumnType::Double => Scalar::Double(double(value)?),
        ColumnType::Decimal(precision, scale) => {
            let text = match quoted(value) {
                Some(text) => resolved(text)?,
                None => Cow::Borrowed(value),
            };
            Scalar::Decimal(Decimal::parse(text.as_bytes())?.exact(*precision, *scale)?)
        }
        ColumnType::Date => Scalar::Integer(reader.date(value)?.into()),
        ColumnType::Timestamp => {
            let time = reader.time(value);
            Scalar::Integer(time.filter(|time| reader.unit.holds(*time))?)
        }
        ColumnType::Array(_) | ColumnType::Map(_) | ColumnType::Struct(_) => return None,
    })
}

/// Converts the text of one valid JSON value, which does not fit `kind`, to `kind`. `None` where it spells no value of
/// this type.
///
/// | type | from |
/// |---|---|
/// | `string` | a number or a boolean: its text as it is written |
/// | `boolean` | 0, 1, and the texts `true`, `false`, `0` and `1` in any capitals |
/// | `int`, `bigint` | a whole number such as 7.0 or 1e3, or the text of one |
/// | `double` | the text of a number |
/// | `decimal` | a number with more digits behind the point, or the text of one, rounded: halves away from zero |
#[cold]
pub(super) fn coerced<'a>(kind: &ColumnType, value: &'a str) -> Option<Scalar<'a>> {
    let is_text = quoted(value).is_some();
    let text = match quoted(value) {
        Some(text) => resolved(text)?,
        None => Cow::Borrowed(value),
    };
    Some(match kind {
        ColumnType::String if !is_text && !value.starts_with(['{', '[']) => {
            Scalar::Text(Cow::Borrowed(value))
        }
        ColumnType::Boolean if text == "1" || is_text && text.eq_ignore_ascii_case("true") => {
            Scalar::Boolean(true)
        }
        ColumnType::Boolean if text == "0" || is_text && text.eq_ignore_ascii_case("false") => {
            Scalar::Boolean(false)
        }
        ColumnType::Int => {
            let number = Decimal::parse(text.as_bytes())?.exact(10, 0)?;
            Scalar::Integer(i32::try_from(number).ok()?.into())
        }
        ColumnType::BigInt => {
            let number = Decimal::parse(text.as_bytes())?.exact(19, 0)?;
            Scalar::Integer(i64::try_from(number).ok()?)
        }
        ColumnType::Double => {
            Decimal::parse(text.as_bytes())?;
            Scalar::Double(double(&text)?)
        }
        ColumnType::Decimal(precision, scale) => {
            Scalar::Decimal(Decimal::parse(text.as_bytes())?.rounded(*precision, *scale)?)
        }
        _ => return None,
    })
}

/// Whether a value is an empty list, which PHP writes for an empty map.
pub(super) fn is_empty_list(value: &str) -> bool {
    let inside = value
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    inside.is_some_and(|inside| inside.trim_ascii().is_empty())
}

/// What was noticed while values were read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// The number of values that were converted from another type.
    pub coerced: u64,
    /// The number of paths that met a value without members.
    pub unreached: u64,
}

/// How a value fits a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// The value fits.
    Whole,
    /// The value fits, but an object inside an array or map has members that the type does not name.
    Partly,
    /// The value does not fit.
    No,
}

/// How the text of one valid JSON value fits `shape`. `inside` says that the value is inside an array or map, where
/// members that the type does not name have no path of their own.
pub(super) fn fits(
    shape: &Shape,
    value: &str,
    reader: &ValueReader,
    inside: bool,
    tally: &mut Tally,
) -> Fit {
    if value == "null" {
        return Fit::Whole;
    }
    let mut skipper = Skipper::new(u32::MAX);
    let mut all = Fit::Whole;
    let mut also = |fit: Fit| {
        if fit != Fit::Whole && all != Fit::No {
            all = fit;
        }
        all != Fit::No
    };
    match shape {
        Shape::Array(item) if value.starts_with('[') => {
            for value in Items::of(value, &mut skipper) {
                if !also(fits(item, value, reader, true, tally)) {
                    break;
                }
            }
        }
        Shape::Map(item) if value.starts_with('{') => {
            let Some(pairs) = pairs(value, &mut skipper) else {
                return Fit::No;
            };
            for (_, value) in pairs {
                if !also(fits(item, value, reader, true, tally)) {
                    break;
                }
            }
        }
        Shape::Struct(fields) if value.starts_with('{') => {
            let found = fields.values(value);
            tally.unreached += found.unreached;
            if inside && found.unnamed {
                also(Fit::Partly);
            }
            for (shape, value) in fields.shapes.iter().zip(found.values) {
                if let Some(value) = value
                    && !also(fits(shape, value, reader, inside, tally))
                {
                    break;
                }
            }
        }
        Shape::Map(_) | Shape::Struct(_) if reader.coerce && is_empty_list(value) => {
            tally.coerced += 1;
        }
        Shape::Scalar(kind) if scalar(kind, value, reader).is_some() => {}
        Shape::Scalar(kind) if reader.coerce && coerced(kind, value).is_some() => {
            tally.coerced += 1;
        }
        _ => return Fit::No,
    }
    all
}

/// The members of an object. Where a name occurs several times, only the last member is there. `None` where a name has
/// half of a surrogate pair.
pub(super) fn pairs<'a>(
    value: &'a str,
    skipper: &'a mut Skipper,
) -> Option<Vec<(Cow<'a, str>, &'a str)>> {
    let mut all: Vec<(Cow<'a, str>, &'a str)> = ObjectMembers::of(value, skipper)
        .map(|member| Some((resolved(member.name)?, member.value)))
        .collect::<Option<_>>()?;
    let mut last: HashMap<Cow<'a, str>, usize> = HashMap::with_capacity(all.len());
    for (i, (name, _)) in all.iter().enumerate() {
        last.insert(name.clone(), i);
    }
    if last.len() < all.len() {
        let mut i = 0;
        all.retain(|(name, _)| {
            i += 1;
            last.get(name) == Some(&(i - 1))
        });
    }
    Some(all)
}

/// Why a JSON value is no value of `kind`, where there is more to say.
#[cold]
pub(super) fn misfit(kind: &ColumnType, value: &str, reader: &ValueReader) -> Option<&'static str> {
    const YEARS: &str = "outside the years 1 to 9999";
    const HALF: &str = "half of a surrogate pair stands alone in it, which no text can hold";
    match (kind, quoted(value)) {
        (ColumnType::Date, Some(text)) => {
            let year = text.strip_prefix("0000-")?;
            read_date(&format!("2000-{year}")).map(|_| YEARS)
        }
        (ColumnType::Timestamp, _) => reader.time(value).map(|_| YEARS),
        (ColumnType::String, Some(_)) => Some(HALF),
        _ => None,
    }
}

/// Checks that a column's default fits its type.
///
/// # Errors
/// A message that says why it does not fit.
pub fn check_default(column: &Column, unit: TimeUnit, naive: Option<Zone>) -> Result<(), String> {
    let Some(default) = &column.default else {
        return Ok(());
    };
    let text = default.to_string();
    let shape = Shape::of(column, false);
    let reader = ValueReader::strict(unit, Zones { naive, epoch: None });
    match fits(&shape, &text, &reader, true, &mut Tally::default()) {
        Fit::Whole => Ok(()),
        Fit::Partly => Err(format!(
            "the default {text} has members that {} does not name",
            column.kind
        )),
        Fit::No => Err(format!("the default {text} is no {}", column.kind)),
    }
}
