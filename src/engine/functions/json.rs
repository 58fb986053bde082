//! Functions of JSON, which is text here. A text that is no JSON gives NULL. Numbers stay as they are written.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, ListBuilder, StringBuilder};
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, exec_err};
use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Coercion, Definition, Given, Kind, Last, gives_bigint, gives_boolean, gives_text};

const AT_PATH: Coercion = Coercion::Kinds(2, &[Kind::Text, Kind::Text]);
const ONE: Coercion = Coercion::Kinds(1, &[Kind::Text]);

const fn text(name: &'static str, takes: Coercion, make: Make) -> Definition {
    Definition {
        name,
        takes,
        gives: gives_text,
        make,
    }
}

type Make = fn(&Given<'_>) -> Result<ArrayRef>;

/// `json_member` and `json_member_text` are `->` and `->>`; `json_items` is a CAST of JSON to an array.
pub(super) const FUNCTIONS: &[Definition] = &[
    text("json_extract", AT_PATH, texts),
    text("json_extract_scalar", AT_PATH, texts),
    text("json_member", Coercion::By(member), texts),
    text("json_member_text", Coercion::By(member), texts),
    text(
        "json_array_get",
        Coercion::Kinds(2, &[Kind::Text, Kind::Integer]),
        texts,
    ),
    text("json_format", ONE, texts),
    text("json_parse", ONE, texts),
    text("json_scalar", ONE, texts),
    Definition {
        name: "json_items",
        takes: ONE,
        gives: gives_texts,
        make: items,
    },
    Definition {
        name: "json_array_length",
        takes: ONE,
        gives: gives_bigint,
        make: sizes,
    },
    Definition {
        name: "json_size",
        takes: AT_PATH,
        gives: gives_bigint,
        make: sizes,
    },
    Definition {
        name: "is_json_scalar",
        takes: ONE,
        gives: gives_boolean,
        make: scalars,
    },
];

fn gives_texts(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::List(Arc::new(Field::new_list_field(
        DataType::Utf8,
        true,
    ))))
}

/// The types of `->` and `->>`: a text, and the name or the number of the member.
fn member(name: &str, given: &[DataType]) -> Result<Vec<DataType>> {
    let operator = if name == "json_member" { "->" } else { "->>" };
    match given {
        [text, key] => match (
            Kind::Text.of(text),
            Kind::Text.of(key),
            Kind::Integer.of(key),
        ) {
            (Some(text), Some(key), _) | (Some(text), None, Some(key)) => Ok(vec![text, key]),
            _ => datafusion::common::plan_err!(
                "`{operator}` takes JSON as text and a name or a number, not {text} and {key}"
            ),
        },
        _ => datafusion::common::plan_err!("`{operator}` takes two operands"),
    }
}

/// A step from a value to a value in it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Member(String),
    /// The item with this number, from 0.
    Item(usize),
}

/// Checks a path that is written in the SQL.
///
/// # Errors
/// The path has a form that is not possible.
pub(in crate::engine) fn check_path(path: &str) -> Result<(), String> {
    match steps(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.message().into_owned()),
    }
}

/// The steps of a path such as `$.a["b c"][0]`.
fn steps(path: &str) -> Result<Vec<Step>> {
    let wrong = || {
        exec_err!(
            "'{path}' is no path of JSON: write `$.name`, `$[\"any name\"]`, `$[0]` or several of these"
        )
    };
    let Some(mut rest) = path.strip_prefix('$') else {
        return wrong();
    };
    let mut steps = Vec::new();
    while let Some(first) = rest.chars().next() {
        let behind = rest.get(1..).unwrap_or_default();
        let (step, after) = match first {
            '.' => {
                let end = behind.find(['.', '[']).unwrap_or(behind.len());
                let (name, after) = behind.split_at(end);
                if name.is_empty() || name.contains(['*', ']', '"', '\'', ' ']) {
                    return wrong();
                }
                (Step::Member(name.to_owned()), after)
            }
            '[' => match in_brackets(behind) {
                Some(found) => found,
                None => return wrong(),
            },
            _ => return wrong(),
        };
        steps.push(step);
        rest = after;
    }
    Ok(steps)
}

/// The step in brackets, and the text behind them; `text` begins behind the opening bracket.
fn in_brackets(text: &str) -> Option<(Step, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''));
    let Some(quote) = quote else {
        let (number, after) = text.split_once(']')?;
        return Some((Step::Item(number.parse().ok()?), after));
    };
    let mut name = String::new();
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => name.push(letters.next()?.1),
            letter if letter == quote => {
                let after = text.get(at + 1..)?.strip_prefix(']')?;
                return Some((Step::Member(name), after));
            }
            letter => name.push(letter),
        }
    }
    None
}

/// A text as one JSON value; `None` where it is none.
fn value(text: &str) -> Option<&RawValue> {
    serde_json::from_str(text).ok()
}

/// The value at the end of a path.
fn at_path<'a>(value: &'a RawValue, steps: &[Step]) -> Option<&'a RawValue> {
    steps.iter().try_fold(value, |value, step| {
        let mut reader = serde_json::Deserializer::from_str(value.get());
        match (step, value.get().bytes().next()) {
            (Step::Member(name), Some(b'{')) => reader.deserialize_map(OfMember(name)).ok()?,
            (Step::Item(number), Some(b'[')) => reader.deserialize_seq(OfItem(*number)).ok()?,
            _ => None,
        }
    })
}

/// Finds a member of an object. If a name is there twice, the last counts.
struct OfMember<'n>(&'n str);

impl<'de> Visitor<'de> for OfMember<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_member) = map.next_key_seed(IsName(self.0))? {
            match is_member {
                true => found = Some(map.next_value()?),
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// Compares a name.
struct IsName<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for IsName<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<bool, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for IsName<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

/// Finds an item of an array.
struct OfItem(usize);

impl<'de> Visitor<'de> for OfItem {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let mut at = 0;
        while let Some(item) = items.next_element::<&RawValue>()? {
            if at == self.0 {
                found = Some(item);
            }
            at += 1;
        }
        Ok(found)
    }
}

/// The text of a value that is a text, a number or a flag.
fn scalar(value: &RawValue) -> Option<Cow<'_, str>> {
    match value.get().bytes().next()? {
        b'{' | b'[' | b'n' => None,
        b'"' => serde_json::from_str(value.get()).ok().map(Cow::Owned),
        _ => Some(Cow::Borrowed(value.get())),
    }
}

/// A value without white space between its parts.
fn compact(value: &RawValue) -> String {
    let mut in_text = false;
    let mut escaped = false;
    let kept = value.get().chars().filter(|letter| {
        if in_text {
            in_text = escaped || *letter != '"';
            escaped = !escaped && *letter == '\\';
            return true;
        }
        in_text = *letter == '"';
        !letter.is_ascii_whitespace()
    });
    kept.collect()
}

fn texts(given: &Given<'_>) -> Result<ArrayRef> {
    let texts = given.text(0)?;
    let mut last = Last::new();
    let mut made = StringBuilder::new();
    for row in 0..given.rows {
        let is_null = (given.arrays.iter()).any(|array| array.is_null(row));
        if is_null {
            made.append_null();
            continue;
        }
        let found = value(texts.value(row));
        let found = match (found, given.len()) {
            (None, _) => None,
            (Some(found), 1) => Some(found),
            (Some(found), _) => match given.name {
                "json_array_get" => {
                    at_path(found, &[numbered(found, given.integers(1)?.value(row))])
                }
                "json_member" | "json_member_text" => match given.array(1)?.data_type() {
                    DataType::Int64 => {
                        at_path(found, &[numbered(found, given.integers(1)?.value(row))])
                    }
                    _ => at_path(found, last.of(given.text(1)?.value(row), key)?),
                },
                _ => at_path(found, last.of(given.text(1)?.value(row), steps)?),
            },
        };
        let written = found.and_then(|found| match given.name {
            "json_extract_scalar" | "json_scalar" => scalar(found),
            "json_format" => Some(Cow::Owned(compact(found))),
            // An object or an array has its own text.
            "json_member_text" if found.get() == "null" => None,
            "json_member_text" => scalar(found).or(Some(Cow::Borrowed(found.get()))),
            _ => Some(Cow::Borrowed(found.get())),
        });
        made.append_option(written);
    }
    Ok(Arc::new(made.finish()))
}

/// The right side of `->`: a path if it begins with `$`, else a name.
fn key(text: &str) -> Result<Vec<Step>> {
    match text.starts_with('$') {
        true => steps(text),
        false => Ok(vec![Step::Member(text.to_owned())]),
    }
}

/// The step to an item by its number, from 0. Negative numbers count from the end.
fn numbered(value: &RawValue, number: i64) -> Step {
    let number = match number {
        0.. => Some(number),
        _ => length(value).and_then(|length| length.checked_add(number)),
    };
    let number = number.and_then(|number| usize::try_from(number).ok());
    Step::Item(number.unwrap_or(usize::MAX))
}

/// The number of items of an array.
fn length(value: &RawValue) -> Option<i64> {
    if !value.get().starts_with('[') {
        return None;
    }
    let items: Vec<IgnoredAny> = serde_json::from_str(value.get()).ok()?;
    i64::try_from(items.len()).ok()
}

fn sizes(given: &Given<'_>) -> Result<ArrayRef> {
    let texts = given.text(0)?;
    let mut last = Last::new();
    let made =
        (0..given.rows).map(|row| {
            if given.arrays.iter().any(|array| array.is_null(row)) {
                return Ok(None);
            }
            let Some(found) = value(texts.value(row)) else {
                return Ok(None);
            };
            if given.name == "json_array_length" {
                return Ok(length(found));
            }
            let found = at_path(found, last.of(given.text(1)?.value(row), steps)?);
            Ok(found.map(|found| match found.get().starts_with('{') {
                // The names of an object that has a name twice are counted once.
                true => {
                    let members = serde_json::from_str::<
                        std::collections::BTreeMap<String, IgnoredAny>,
                    >(found.get());
                    members.map_or(0, |members| {
                        i64::try_from(members.len()).unwrap_or(i64::MAX)
                    })
                }
                false => length(found).unwrap_or(0),
            }))
        });
    Ok(Arc::new(made.collect::<Result<Int64Array>>()?))
}

fn scalars(given: &Given<'_>) -> Result<ArrayRef> {
    let made = given.text(0)?.iter().map(|text| {
        let found = value(text?)?;
        Some(!found.get().starts_with(['{', '[']))
    });
    Ok(Arc::new(made.collect::<BooleanArray>()))
}

/// The items of an array: the text of a text, a number or a flag, and the JSON of any other.
fn items(given: &Given<'_>) -> Result<ArrayRef> {
    let mut lists = ListBuilder::new(StringBuilder::new());
    for text in given.text(0)?.iter() {
        let items = text.and_then(|text| serde_json::from_str::<Vec<&RawValue>>(text).ok());
        let Some(items) = items else {
            lists.append_null();
            continue;
        };
        for item in items {
            let written = match item.get() {
                "null" => None,
                json => scalar(item).or(Some(Cow::Borrowed(json))),
            };
            lists.values().append_option(written);
        }
        lists.append(true);
    }
    let made: arrow::array::ListArray = lists.finish();
    Ok(Arc::new(made))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_names_and_numbers() {
        let member = |name: &str| Step::Member(name.to_owned());
        for (path, expected) in [
            ("$", vec![]),
            ("$.a", vec![member("a")]),
            ("$.a.b[0]", vec![member("a"), member("b"), Step::Item(0)]),
            ("$[\"a b\"]['c']", vec![member("a b"), member("c")]),
            ("$[\"a\\\"b\"]", vec![member("a\"b")]),
            ("$.단지", vec![member("단지")]),
        ] {
            assert_eq!(steps(path).unwrap(), expected, "{path}");
        }
        for path in [
            "a", "", "$..a", "$.", "$[*]", "$[-1]", "$.a[", "$[\"a]", "$a",
        ] {
            assert!(steps(path).is_err(), "{path}");
        }
    }
}
