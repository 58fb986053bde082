//! Items of DynamoDB: typed values become plain values.
//!
//! ```text
//! {"Item":{"id":{"S":"a"},"n":{"N":"1.50"},"tags":{"SS":["x"]}}}  ──▶  {"id":"a","n":1.50,"tags":["x"]}
//! ```

use super::super::json::{Items, ObjectMembers, Skipper, number, unescape};
use super::find::{find, found};

/// What a JSON object is, where an item of DynamoDB is expected.
pub(super) enum Item {
    /// An item; this is the JSON object with plain values.
    Plain(String),
    /// The note that an item was removed.
    Removed,
    /// No item, for this reason.
    Other(String),
}

/// The members that hold an item: of a table export, of a stream, of an incremental export.
const HOLDERS: [&[&str]; 3] = [&["Item"], &["dynamodb", "NewImage"], &["NewImage"]];

/// The members that hold the key of an item that may be removed.
const KEYS: [&[&str]; 2] = [&["dynamodb", "Keys"], &["Keys"]];

/// Reads a valid JSON object as an item: a member that holds an item, or an item itself.
pub(super) fn plain(object: &str) -> Item {
    let held = HOLDERS.iter().filter_map(|path| find(object, path));
    for text in held.chain([object]) {
        let mut out = String::with_capacity(text.len());
        if text.starts_with('{') && attributes(text, &mut out).is_ok() {
            return Item::Plain(out);
        }
    }
    let mut keys = KEYS.iter().filter_map(|path| find(object, path));
    let held = HOLDERS.iter().find_map(|path| find(object, path));
    if held.is_none() && keys.any(|keys| attributes(keys, &mut String::new()).is_ok()) {
        return Item::Removed;
    }
    let why = match held {
        Some(text) if !text.starts_with('{') => format!("found {}", found(text)),
        text => match attributes(text.unwrap_or(object), &mut String::new()) {
            Err(why) => why,
            Ok(()) => "found another object".to_owned(),
        },
    };
    Item::Other(format!(
        "expected an item of DynamoDB with typed values such as {{\"S\":\"a\"}}: {why}"
    ))
}

/// Writes the object of the attributes of an item.
fn attributes(text: &str, out: &mut String) -> Result<(), String> {
    let mut skipper = Skipper::new(u32::MAX);
    out.push('{');
    for (i, member) in ObjectMembers::of(text, &mut skipper).enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push('"');
        out.push_str(member.name);
        out.push_str("\":");
        attribute(member.name, member.value, out)?;
    }
    out.push('}');
    Ok(())
}

/// Writes one typed value. `name` is the name of the attribute that it belongs to.
fn attribute(name: &str, typed: &str, out: &mut String) -> Result<(), String> {
    let wrong = || format!("`{name}` has no typed value");
    if !typed.starts_with('{') {
        return Err(wrong());
    }
    let mut skipper = Skipper::new(u32::MAX);
    let mut members = ObjectMembers::of(typed, &mut skipper);
    let (Some(only), None) = (members.next(), members.next()) else {
        return Err(wrong());
    };
    let value = only.value;
    match (only.name, value.as_bytes().first()) {
        ("S" | "B", Some(b'"')) | ("BOOL", Some(b't' | b'f')) => out.push_str(value),
        ("NULL", Some(b't')) => out.push_str("null"),
        ("N", Some(b'"')) => exact(name, value, out)?,
        ("M", Some(b'{')) => attributes(value, out)?,
        ("L" | "SS" | "BS" | "NS", Some(b'[')) => {
            out.push('[');
            let mut skipper = Skipper::new(u32::MAX);
            for (i, item) in Items::of(value, &mut skipper).enumerate() {
                if i > 0 {
                    out.push(',');
                }
                match (only.name, item.as_bytes().first()) {
                    ("L", _) => attribute(name, item, out)?,
                    ("NS", Some(b'"')) => exact(name, item, out)?,
                    ("SS" | "BS", Some(b'"')) => out.push_str(item),
                    _ => return Err(wrong()),
                }
            }
            out.push(']');
        }
        _ => return Err(wrong()),
    }
    Ok(())
}

/// Writes the number in a JSON string with all its digits.
fn exact(name: &str, quoted: &str, out: &mut String) -> Result<(), String> {
    let text = quoted.strip_prefix('"').and_then(|q| q.strip_suffix('"'));
    let text = text.and_then(unescape).unwrap_or_default();
    if text.is_empty() || number(text.as_bytes(), 0) != Ok(text.len()) {
        return Err(format!(
            "`{name}` has the type N, and its value is no number"
        ));
    }
    out.push_str(&text);
    Ok(())
}
