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

use super::json::{Items, ObjectMembers, Skipper, unescape};
use crate::event::{Column, ColumnType};
use crate::time::{Decimal, TimeUnit, Zone, read_date, read_epoch, read_time};

/// How times are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeReader {
    /// The unit of the result.
    pub unit: TimeUnit,
    /// The zone of times that are written without an offset.
    pub naive: Option<Zone>,
}

impl TimeReader {
    /// Reads the text of a JSON value, a string or a number, as units since 1970 UTC. `None` where it is no time.
    #[inline]
    pub fn read(self, value: &str) -> Option<i64> {
        match quoted(value) {
            Some(text) => read_time(&resolved(text)?, self.unit, self.naive),
            None => read_epoch(value, self.unit),
        }
    }
}

impl TimeReader {
    /// Whether the value is a time without an offset, which cannot be read because no zone is given.
    #[cold]
    pub fn lacks_offset(self, value: &str) -> bool {
        let naive = Some(Zone(chrono_tz::UTC));
        self.naive.is_none() && Self { naive, ..self }.read(value).is_some()
    }
}

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

/// The text between the quotes of a JSON string, as it is written. `None` for another JSON value.
#[inline]
fn quoted(value: &str) -> Option<&str> {
    value.strip_prefix('"')?.strip_suffix('"')
}

/// The text with its escapes resolved. `None` where half of a surrogate pair stands alone.
#[inline]
fn resolved(text: &str) -> Option<Cow<'_, str>> {
    if memchr::memchr(b'\\', text.as_bytes()).is_some() {
        unescape(text)
    } else {
        Some(Cow::Borrowed(text))
    }
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
    times: TimeReader,
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
        ColumnType::Date => Scalar::Integer(read_date(&resolved(quoted(value)?)?)?.into()),
        ColumnType::Timestamp => {
            Scalar::Integer(times.read(value).filter(|time| times.unit.holds(*time))?)
        }
        ColumnType::Array(_) | ColumnType::Map(_) | ColumnType::Struct(_) => return None,
    })
}

/// Whether values of a type have values inside.
pub(super) fn nested(kind: &ColumnType) -> bool {
    matches!(
        kind,
        ColumnType::Array(_) | ColumnType::Map(_) | ColumnType::Struct(_)
    )
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

/// How the text of one valid JSON value fits `kind`. `inside` says that the value is inside an array or map, where
/// members that the type does not name have no path of their own.
pub(super) fn fits(kind: &ColumnType, value: &str, times: TimeReader, inside: bool) -> Fit {
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
    match kind {
        ColumnType::Array(item) if value.starts_with('[') => {
            for value in Items::of(value, &mut skipper) {
                if !also(fits(item, value, times, true)) {
                    break;
                }
            }
        }
        ColumnType::Map(item) if value.starts_with('{') => {
            let Some(pairs) = pairs(value, &mut skipper) else {
                return Fit::No;
            };
            for (_, value) in pairs {
                if !also(fits(item, value, times, true)) {
                    break;
                }
            }
        }
        ColumnType::Struct(fields) if value.starts_with('{') => {
            let (values, unnamed) = struct_fields(fields, value, &mut skipper);
            if inside && unnamed {
                also(Fit::Partly);
            }
            for ((_, kind), value) in fields.iter().zip(values) {
                if let Some(value) = value
                    && !also(fits(kind, value, times, inside))
                {
                    break;
                }
            }
        }
        kind if !nested(kind) && scalar(kind, value, times).is_some() => {}
        _ => return Fit::No,
    }
    all
}

/// The value of each field, and whether the object has members that are no field. Where a name occurs several times,
/// the last member counts.
pub(super) fn struct_fields<'a>(
    fields: &[(String, ColumnType)],
    value: &'a str,
    skipper: &'a mut Skipper,
) -> (Vec<Option<&'a str>>, bool) {
    let mut values = vec![None; fields.len()];
    let mut unnamed = false;
    for member in ObjectMembers::of(value, skipper) {
        // A name with half of a surrogate pair is the name of no field.
        let field = resolved(member.name)
            .and_then(|name| fields.iter().position(|(field, _)| *field == *name));
        match field.and_then(|field| values.get_mut(field)) {
            Some(slot) => *slot = Some(member.value),
            None => unnamed = true,
        }
    }
    (values, unnamed)
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
pub(super) fn misfit(kind: &ColumnType, value: &str, times: TimeReader) -> Option<&'static str> {
    const YEARS: &str = "outside the years 1 to 9999";
    const HALF: &str = "half of a surrogate pair stands alone in it, which no text can hold";
    match (kind, quoted(value)) {
        (ColumnType::Date, Some(text)) => {
            let year = text.strip_prefix("0000-")?;
            read_date(&format!("2000-{year}")).map(|_| YEARS)
        }
        (ColumnType::Timestamp, _) => times.read(value).map(|_| YEARS),
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
    match fits(&column.kind, &text, TimeReader { unit, naive }, true) {
        Fit::Whole => Ok(()),
        Fit::Partly => Err(format!(
            "the default {text} has members that {} does not name",
            column.kind
        )),
        Fit::No => Err(format!("the default {text} is no {}", column.kind)),
    }
}
