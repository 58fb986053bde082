//! Why a stretch of bytes is no record, in words that help to repair its producer.
//!
//! ```text
//! Stop (a position, what JSON wants there) + the stretch's first bytes + how it ended ──▶ detail
//! ```
//!
//! This code runs once for each reject, and never for a valid record. The answer
//! depends on the stretch alone, never on how its bytes arrived.

use super::json::{CONTROL, ESCAPE, NAME, VALUE, starts_other_value, string, unescape};
use crate::event::Reason;

/// Why no object starts at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// There is no opening brace.
    NoObject,
    /// The grammar wants this in the place of the byte.
    Wanted(&'static str),
    /// The bytes end before the object.
    CutOff,
    /// The bytes are no UTF-8.
    Utf8,
    /// The object has more bytes than this.
    TooLarge(usize),
    /// The object has more levels than this.
    TooDeep(u32),
}

/// Why no object starts at a position, and the byte that shows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failure {
    /// The place of the byte, counted from the position.
    pub at: usize,
    /// What is wrong.
    pub fault: Fault,
    /// The byte.
    pub found: Option<u8>,
    /// Whether there is a line feed before the byte, with nothing but white space between the two.
    pub next_line: bool,
}

/// How a bad stretch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Before a line feed.
    Line,
    /// Before an object.
    Object,
    /// The stretch ended at the end of the bytes.
    Bytes,
}

impl Fault {
    /// The reason of the reject.
    pub fn reason(self) -> Reason {
        match self {
            Self::NoObject | Self::Wanted(_) | Self::CutOff | Self::Utf8 => Reason::NotJson,
            Self::TooLarge(_) => Reason::TooLarge,
            Self::TooDeep(_) => Reason::TooDeep,
        }
    }
}

/// The most characters of a record that a detail quotes.
const QUOTED: usize = 24;

/// The reason and detail of a stretch that is `bytes` long and begins with `head`.
pub(super) fn explain(
    head: &[u8],
    bytes: u64,
    failure: Failure,
    ending: Ending,
) -> (Reason, String) {
    let Failure { at, fault, .. } = failure;
    if at == 0 && starts_other_value(head) {
        return (Reason::NotObject, other_value(head));
    }
    let detail = match fault {
        Fault::TooLarge(most) => format!("larger than {most} bytes"),
        Fault::TooDeep(most) => format!("deeper than {most} levels at byte {at}"),
        Fault::Utf8 => not_utf8(head, at),
        Fault::CutOff => "the object is cut off".to_owned(),
        Fault::NoObject => no_object(head, bytes),
        Fault::Wanted(wanted) => wrong(head, bytes, failure, wanted, ending),
    };
    (fault.reason(), detail)
}

/// The detail of a value that stands by itself and is no object.
fn other_value(head: &[u8]) -> String {
    let kind = match head.first() {
        Some(b'"') if json_inside(head) => {
            return "a JSON string with JSON inside: it was serialised twice, the record is the text \
                    in the string"
                .to_owned();
        }
        Some(b'"') => "string",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        _ => "number",
    };
    let line = match text_of(head) {
        Some(text) if csv(text) => ": it looks like a line of CSV",
        _ => "",
    };
    format!("a JSON {kind} that is no object{line}")
}

/// Whether the string that begins here holds an object or array.
fn json_inside(head: &[u8]) -> bool {
    let text = string(head, 1).ok().and_then(|(end, _)| head.get(1..end));
    let text = text.and_then(|text| std::str::from_utf8(text).ok());
    let inside = text.and_then(unescape);
    inside.is_some_and(|inside| inside.trim_start().starts_with(['{', '[']))
}

/// The detail of bytes that are no UTF-8.
fn not_utf8(head: &[u8], at: usize) -> String {
    let byte = head
        .get(at)
        .map_or(String::new(), |byte| format!(" (0x{byte:02X})"));
    match head {
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => {
            "a byte order mark of UTF-16: the text is not in UTF-8".to_owned()
        }
        _ => {
            format!("invalid UTF-8 at byte {at}{byte}: the text is in another encoding, or damaged")
        }
    }
}

/// The detail of bytes that stand where an object should begin.
fn no_object(head: &[u8], bytes: u64) -> String {
    if let [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] = head {
        return not_utf8(head, 0);
    }
    if head.first() == Some(&0) {
        let zeros = head.iter().all(|byte| *byte == 0) && bytes == head.len() as u64;
        let only = if zeros { "nothing but " } else { "" };
        return format!("{only}zero bytes, as where a file was not written to its end");
    }
    let Some(text) = text_of(head) else {
        return "bytes that are no text".to_owned();
    };
    if let Some(markup) = markup(text) {
        return format!("{markup}, not JSON");
    }
    let found = quote(text);
    if csv(text) {
        format!("expected an object, found {found}: it looks like a line of CSV")
    } else {
        format!("expected an object, found {found}")
    }
}

/// The part of the head that is text: all of it, or all except half a character at its end.
fn text_of(head: &[u8]) -> Option<&str> {
    match std::str::from_utf8(head) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(head.get(..error.valid_up_to())?).ok()
        }
        Err(_) => None,
    }
}

/// The markup language that a text is written in.
fn markup(text: &str) -> Option<&'static str> {
    let begin = text
        .get(..text.floor_char_boundary(256))?
        .to_ascii_lowercase();
    let rest = begin.strip_prefix('<')?;
    match rest.bytes().next()? {
        _ if begin.contains("<!doctype html") || begin.contains("<html") => Some("HTML"),
        b'?' | b'!' | b'/' | b'a'..=b'z' => Some("XML or HTML"),
        _ => None,
    }
}

/// Whether the line has values between separators. A space behind a separator means that the line is a sentence.
fn csv(text: &str) -> bool {
    [',', ';', '\t', '|'].into_iter().any(|separator| {
        let mut fields = text.split(separator);
        fields.next();
        let (mut more, mut prose) = (0, false);
        for field in fields {
            more += 1;
            prose |= field.starts_with(' ');
        }
        more >= 2 && !prose && !text.contains(['{', '}'])
    })
}

/// The detail of a record that ends before the byte at which the grammar fails.
fn behind(failure: Failure, wanted: &str, ending: Ending) -> String {
    match ending {
        Ending::Line if failure.next_line => {
            "cut off: the line ends before the object does".to_owned()
        }
        Ending::Line => {
            let at = failure.at;
            let found = failure
                .found
                .map_or(String::new(), |byte| format!(", found {}", shown(&[byte])));
            format!("expected {wanted} at byte {at}, on a later line{found}")
        }
        Ending::Object => "cut off: another object begins before this one ends".to_owned(),
        Ending::Bytes => "the object is cut off".to_owned(),
    }
}

/// The detail of bytes that stand where the grammar wants `wanted`.
fn wrong(
    head: &[u8],
    bytes: u64,
    failure: Failure,
    wanted: &'static str,
    ending: Ending,
) -> String {
    let at = failure.at;
    let line_ends = ending == Ending::Line
        && (at as u64 == bytes || at as u64 + 1 == bytes && head.get(at) == Some(&b'\r'));
    if line_ends && wanted == CONTROL {
        return "cut off: the line ends inside a string, or a line break is not escaped".to_owned();
    }
    // The byte lies behind the stretch: the record ends before the grammar fails.
    if at as u64 >= bytes {
        return behind(failure, wanted, ending);
    }
    let Some(found) = head.get(at).copied() else {
        // The byte is behind the part of the stretch that is kept.
        return format!("expected {wanted} at byte {at}");
    };
    let rest = head.get(at..).unwrap_or_default();
    if wanted == CONTROL && !rest.starts_with(&[0, 0]) {
        return control(found, at);
    }
    let before = head.get(..at).unwrap_or_default();
    let last = before.iter().rev().find(|byte| !byte.is_ascii_whitespace());
    let known = match (wanted, found) {
        (ESCAPE, _) => {
            let escape = shown(rest);
            return format!("a backslash before {escape} at byte {at} is no escape that JSON has");
        }
        (_, b'}' | b']') if last == Some(&b',') => Some("a comma after the last value"),
        (_, b'/') if matches!(rest.get(1), Some(b'/' | b'*')) => Some("a comment"),
        (_, b'#') => Some("a comment"),
        (_, b'\'') => Some("single quotes, where JSON has double quotes"),
        (_, b'`') => Some("backquotes, where JSON has double quotes"),
        _ if rest.starts_with("\u{201C}".as_bytes()) || rest.starts_with("\u{201D}".as_bytes()) => {
            Some("typographic quotes, where JSON has plain double quotes")
        }
        (_, 0) => Some("zero bytes, as where a file was not written to its end"),
        _ => None,
    };
    if let Some(known) = known {
        return format!("{known} at byte {at}");
    }
    let token = token(head, at);
    if wanted == NAME && found != b'"' && !token.is_empty() {
        return format!("the name `{token}` at byte {at} has no quotes");
    }
    if let Some(why) = number(head, at, token) {
        return format!("{why}, at byte {at}");
    }
    if wanted != NAME && !token.is_empty() {
        return match token {
            "NaN" | "nan" | "NAN" | "Infinity" | "-Infinity" | "+Infinity" | "inf" | "-inf"
            | "Inf" | "-Inf" | "INF" | "-INF" => {
                format!("{token} at byte {at}: JSON has no such number, write null")
            }
            "None" | "True" | "False" => {
                format!("{token} at byte {at}, as Python writes it: JSON has null, true and false")
            }
            "undefined" => format!("undefined at byte {at}, as JavaScript has it: JSON has null"),
            _ if wanted == VALUE => format!("expected a value at byte {at}, found `{token}`"),
            _ => format!("expected {wanted} at byte {at}, found {}", shown(rest)),
        };
    }
    format!("expected {wanted} at byte {at}, found {}", shown(rest))
}

fn control(code: u8, at: usize) -> String {
    let (name, written) = match code {
        b'\n' => ("line feed", "\\n"),
        b'\r' => ("carriage return", "\\r"),
        b'\t' => ("tab", "\\t"),
        8 => ("backspace", "\\b"),
        12 => ("form feed", "\\f"),
        0 => ("zero byte", "\\u0000"),
        27 => ("escape", "\\u001b"),
        _ => {
            return format!(
                "the control character U+{code:04X} in a string at byte {at}: it is written as \\u{code:04x}"
            );
        }
    };
    format!(
        "the control character U+{code:04X} ({name}) in a string at byte {at}: it is written as {written}"
    )
}

/// The fault of the number that the byte `at` is in or behind.
fn number(head: &[u8], at: usize, token: &str) -> Option<&'static str> {
    let first = token.as_bytes().first()?;
    let found = head.get(at)?;
    match (first, found) {
        (b'+', _) if token.len() > 1 && token.as_bytes().get(1)?.is_ascii_digit() => {
            Some("a number with a plus sign")
        }
        (b'.', b'.') => Some("a number without a digit before its point"),
        (b'0', b'x' | b'X') => Some("a hexadecimal number"),
        (b'0' | b'-', b'0'..=b'9') => Some("a number with a leading zero"),
        (b'0'..=b'9' | b'-', _) if head.get(at.checked_sub(1)?) == Some(&b'.') => {
            Some("a number without a digit after its point")
        }
        _ => None,
    }
}

/// The letters, digits and signs around `at`; empty where other characters are.
fn token(head: &[u8], at: usize) -> &str {
    let part = |byte: &u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'.' | b'+' | b'-')
    };
    let before = head.get(..at).unwrap_or_default();
    let behind = head.get(at..).unwrap_or_default();
    if !behind.first().is_some_and(part) {
        // A number may have ended too early.
        let back = before
            .iter()
            .rev()
            .take(QUOTED)
            .take_while(|byte| part(byte))
            .count();
        let number = before.get(at - back..).unwrap_or_default();
        return match number.last() {
            Some(b'.') => std::str::from_utf8(number).unwrap_or_default(),
            _ => "",
        };
    }
    let back = before
        .iter()
        .rev()
        .take(QUOTED)
        .take_while(|byte| part(byte))
        .count();
    let on = behind
        .iter()
        .take(QUOTED)
        .take_while(|byte| part(byte))
        .count();
    let token = head.get(at - back..at + on).unwrap_or_default();
    std::str::from_utf8(token).unwrap_or_default()
}

/// The first character of `rest`, or its code.
fn shown(rest: &[u8]) -> String {
    let some = rest.get(..rest.len().min(4)).unwrap_or_default();
    let first = some
        .utf8_chunks()
        .next()
        .and_then(|chunk| chunk.valid().chars().next());
    match (first, rest.first()) {
        (Some('`'), _) => "a backquote".to_owned(),
        (Some(first), _) if first.is_control() => format!("U+{:04X}", u32::from(first)),
        (Some(first), _) => format!("`{first}`"),
        (None, Some(byte)) => format!("the byte 0x{byte:02X}"),
        (None, None) => "nothing".to_owned(),
    }
}

/// The beginning of a text, short enough for a line, without control characters.
fn quote(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let some: String = text.chars().take(QUOTED).map(plain).collect();
    let more = if text.chars().nth(QUOTED).is_some() {
        "…"
    } else {
        ""
    };
    format!("`{}{more}`", some.trim_end())
}
