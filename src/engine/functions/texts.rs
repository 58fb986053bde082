//! Functions of text.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, ListBuilder, StringArray, StringBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, exec_err};
use datafusion::functions::crypto::{md5, sha256, sha512};
use regex::Regex;

use super::{Coercion, Definition, Given, Kind, Last, gives_text};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition {
        name: "substr",
        takes: Coercion::Kinds(2, &[Kind::Text, Kind::Integer, Kind::Integer]),
        gives: gives_text,
        make: parts,
    },
    Definition {
        name: "split_part",
        takes: Coercion::Kinds(3, &[Kind::Text, Kind::Text, Kind::Integer]),
        gives: gives_text,
        make: split_parts,
    },
    Definition {
        name: "split",
        takes: Coercion::Kinds(2, &[Kind::Text, Kind::Text, Kind::Integer]),
        gives: gives_texts,
        make: splits,
    },
    Definition {
        name: "regexp_extract",
        takes: Coercion::Kinds(2, &[Kind::Text, Kind::Text, Kind::Integer]),
        gives: gives_text,
        make: matches,
    },
    Definition {
        name: "regexp_extract_all",
        takes: Coercion::Kinds(2, &[Kind::Text, Kind::Text, Kind::Integer]),
        gives: gives_texts,
        make: all_matches,
    },
    hash("md5"),
    hash("sha256"),
    hash("sha512"),
    Definition {
        name: "to_utf8",
        takes: Coercion::Kinds(1, &[Kind::Text]),
        gives: gives_bytes,
        make: bytes_of_text,
    },
    Definition {
        name: "from_utf8",
        takes: Coercion::Kinds(1, &[Kind::Bytes]),
        gives: gives_text,
        make: text_of_bytes,
    },
    Definition {
        name: "to_hex",
        takes: Coercion::Kinds(1, &[Kind::Bytes]),
        gives: gives_text,
        make: hex_of_bytes,
    },
    Definition {
        name: "from_hex",
        takes: Coercion::Kinds(1, &[Kind::Text]),
        gives: gives_bytes,
        make: bytes_of_hex,
    },
];

const fn hash(name: &'static str) -> Definition {
    Definition {
        name,
        takes: Coercion::Kinds(1, &[Kind::TextOrBytes]),
        gives: gives_hash,
        make: hashes,
    }
}

fn gives_bytes(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::Binary)
}

fn gives_texts(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::List(Arc::new(Field::new_list_field(
        DataType::Utf8,
        true,
    ))))
}

/// The hash of bytes is bytes; the hash of a text is its hexadecimal text, as in DuckDB.
fn gives_hash(kinds: &[DataType]) -> Result<DataType> {
    Ok(match kinds {
        [DataType::Binary] => DataType::Binary,
        _ => DataType::Utf8,
    })
}

/// A part of a text from a character on. Negative numbers count from the end of the text.
fn parts(given: &Given<'_>) -> Result<ArrayRef> {
    let (texts, starts) = (given.text(0)?, given.integers(1)?);
    let lengths = match given.len() {
        3 => Some(given.integers(2)?),
        _ => None,
    };
    let made = (0..given.rows).map(|row| {
        let is_null = lengths.is_some_and(|lengths| lengths.is_null(row));
        if texts.is_null(row) || starts.is_null(row) || is_null {
            return None;
        }
        let length = lengths.map_or(i64::MAX, |lengths| lengths.value(row));
        Some(part(texts.value(row), starts.value(row), length))
    });
    Ok(Arc::new(made.collect::<StringArray>()))
}

fn part(text: &str, start: i64, length: i64) -> &str {
    let count = || i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let start = match start {
        0 => return "",
        1.. => start - 1,
        negative => match count().checked_add(negative) {
            Some(start) if start >= 0 => start,
            _ => return "",
        },
    };
    let place = |characters: i64| {
        let characters = usize::try_from(characters).unwrap_or(0);
        let mut places = text.char_indices().skip(characters);
        places.next().map_or(text.len(), |(place, _)| place)
    };
    let from = place(start);
    let to = match length {
        i64::MAX => text.len(),
        length => place(start.saturating_add(length.max(0))),
    };
    text.get(from..to).unwrap_or_default()
}

fn split_parts(given: &Given<'_>) -> Result<ArrayRef> {
    let (texts, between, numbers) = (given.text(0)?, given.text(1)?, given.integers(2)?);
    let made = (0..given.rows).map(|row| {
        if texts.is_null(row) || between.is_null(row) || numbers.is_null(row) {
            return Ok(None);
        }
        let Some(before) = usize::try_from(numbers.value(row))
            .ok()
            .and_then(|number| number.checked_sub(1))
        else {
            return exec_err!(
                "`split_part()` counts from 1: there is no part {}",
                numbers.value(row)
            );
        };
        let (text, between) = (texts.value(row), between.value(row));
        Ok(match between.is_empty() {
            // Every character is a part.
            true => {
                let mut places = text.char_indices().skip(before);
                let found = places.next();
                found.and_then(|(at, letter)| text.get(at..at + letter.len_utf8()))
            }
            false => text.split(between).nth(before),
        })
    });
    Ok(Arc::new(made.collect::<Result<StringArray>>()?))
}

fn splits(given: &Given<'_>) -> Result<ArrayRef> {
    let (texts, between) = (given.text(0)?, given.text(1)?);
    let limits = match given.len() {
        3 => Some(given.integers(2)?),
        _ => None,
    };
    let mut lists = ListBuilder::new(StringBuilder::new());
    for row in 0..given.rows {
        let is_null = limits.is_some_and(|limits| limits.is_null(row));
        if texts.is_null(row) || between.is_null(row) || is_null {
            lists.append_null();
            continue;
        }
        let between = between.value(row);
        let limit = limits.map_or(Ok(usize::MAX), |limits| usize::try_from(limits.value(row)));
        let limit = limit.unwrap_or(0);
        if between.is_empty() || limit == 0 {
            return exec_err!("`split()` needs a text to split at, and a limit above 0");
        }
        for part in texts.value(row).splitn(limit, between) {
            lists.values().append_value(part);
        }
        lists.append(true);
    }
    Ok(Arc::new(lists.finish()))
}

/// A regular expression of the SQL.
///
/// # Errors
/// The expression is wrong.
pub(in crate::engine) fn pattern(text: &str) -> Result<Regex> {
    match Regex::new(text) {
        Ok(pattern) => Ok(pattern),
        Err(error) => exec_err!("Regular expression did not compile: {error}"),
    }
}

/// The group that is asked for, for one row; 0 is the whole match.
fn group(given: &Given<'_>, row: usize, pattern: &Regex) -> Result<Option<usize>> {
    if given.len() < 3 {
        return Ok(Some(0));
    }
    let groups = given.integers(2)?;
    if groups.is_null(row) {
        return Ok(None);
    }
    match usize::try_from(groups.value(row)) {
        Ok(group) if group < pattern.captures_len() => Ok(Some(group)),
        _ => exec_err!(
            "`{}()` asks for group {}, and the regular expression has {}",
            given.name,
            groups.value(row),
            pattern.captures_len() - 1
        ),
    }
}

fn matches(given: &Given<'_>) -> Result<ArrayRef> {
    let (texts, patterns) = (given.text(0)?, given.text(1)?);
    let mut last = Last::new();
    let made = (0..given.rows).map(|row| {
        if texts.is_null(row) || patterns.is_null(row) {
            return Ok(None);
        }
        let pattern = last.of(patterns.value(row), pattern)?;
        let Some(group) = group(given, row, pattern)? else {
            return Ok(None);
        };
        let found = pattern.captures(texts.value(row));
        let found = found.and_then(|found| found.get(group));
        Ok(found.map(|found| found.as_str()))
    });
    Ok(Arc::new(made.collect::<Result<StringArray>>()?))
}

fn all_matches(given: &Given<'_>) -> Result<ArrayRef> {
    let (texts, patterns) = (given.text(0)?, given.text(1)?);
    let mut last = Last::new();
    let mut lists = ListBuilder::new(StringBuilder::new());
    for row in 0..given.rows {
        if texts.is_null(row) || patterns.is_null(row) {
            lists.append_null();
            continue;
        }
        let pattern = last.of(patterns.value(row), pattern)?;
        let Some(group) = group(given, row, pattern)? else {
            lists.append_null();
            continue;
        };
        for found in pattern.captures_iter(texts.value(row)) {
            let found = found.get(group).map(|found| found.as_str());
            lists.values().append_option(found);
        }
        lists.append(true);
    }
    Ok(Arc::new(lists.finish()))
}

fn hashes(given: &Given<'_>) -> Result<ArrayRef> {
    let arrays = given.arrays.clone();
    let is_text = *given.kind == DataType::Utf8;
    // The engine gives the hexadecimal text of an MD5, and the bytes of the others.
    if given.name == "md5" {
        let texts = cast(&given.engine(&md5(), arrays)?, &DataType::Utf8)?;
        if is_text {
            return Ok(texts);
        }
        let bytes = texts.as_string::<i32>().iter();
        let bytes = bytes.map(|text| text.and_then(|text| hex::decode(text).ok()));
        return Ok(Arc::new(bytes.collect::<BinaryArray>()));
    }
    let function = match given.name {
        "sha256" => sha256(),
        _ => sha512(),
    };
    let made = cast(&given.engine(&function, arrays)?, &DataType::Binary)?;
    if !is_text {
        return Ok(made);
    }
    let hashes = made.as_binary::<i32>().iter();
    let texts = hashes.map(|hash| hash.map(hex::encode));
    Ok(Arc::new(texts.collect::<StringArray>()))
}

fn bytes_of_text(given: &Given<'_>) -> Result<ArrayRef> {
    let texts = given.text(0)?.iter();
    let made = texts.map(|text| text.map(str::as_bytes));
    Ok(Arc::new(made.collect::<BinaryArray>()))
}

fn text_of_bytes(given: &Given<'_>) -> Result<ArrayRef> {
    let bytes = given.array(0)?.as_binary::<i32>().iter();
    let made = bytes.map(|bytes| bytes.map(String::from_utf8_lossy));
    Ok(Arc::new(made.collect::<StringArray>()))
}

fn hex_of_bytes(given: &Given<'_>) -> Result<ArrayRef> {
    let bytes = given.array(0)?.as_binary::<i32>().iter();
    let made = bytes.map(|bytes| bytes.map(hex::encode_upper));
    Ok(Arc::new(made.collect::<StringArray>()))
}

fn bytes_of_hex(given: &Given<'_>) -> Result<ArrayRef> {
    let made = given.text(0)?.iter().map(|text| match text {
        None => Ok(None),
        Some(text) => match hex::decode(text) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(_) => exec_err!("`from_hex()` cannot read '{text}'"),
        },
    });
    Ok(Arc::new(made.collect::<Result<BinaryArray>>()?))
}
