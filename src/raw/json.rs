//! RFC 8259, byte by byte: where a value ends, or the first byte at which the bytes can no longer be a value.
//!
//! All functions here work on positions in one slice. A value that the end of the slice cuts off is [`Stop::Short`]; a
//! caller that gets more bytes asks once more. UTF-8 is not checked here: the
//! framer checks the whole record at once, which is an order of magnitude faster.

use std::borrow::Cow;

/// Why no value ends here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The slice ends before the value does.
    Short,
    /// The byte at `at` fits no JSON value.
    Bad { at: usize, wanted: &'static str },
    /// The bracket at `at` is one level too many.
    Deep { at: usize },
}

// The words of the grammar for places where producers often write something else.
pub(super) const CONTROL: &str = "no control character in a string";
pub(super) const ESCAPE: &str = "an escape that JSON knows";
pub(super) const NAME: &str = "a name in quotes";
pub(super) const VALUE: &str = "a value";

/// The error of a byte that fits no JSON value.
fn bad<T>(at: usize, wanted: &'static str) -> Result<T, Stop> {
    Err(Stop::Bad { at, wanted })
}

/// The byte at a position.
#[inline(always)]
pub(super) fn byte(text: &[u8], at: usize) -> Result<u8, Stop> {
    match text.get(at) {
        Some(byte) => Ok(*byte),
        None => Err(Stop::Short),
    }
}

/// The position of the first byte that is not RFC 8259 white space.
#[inline(always)]
pub(super) fn space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = text.get(at) {
        at += 1;
    }
    at
}

/// The number 1 in each byte.
const ONES: u64 = 0x0101_0101_0101_0101;
/// The high bit of each byte.
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// The high bits of those bytes of `word` that end the plain part of a string: quotes, backslashes and
/// control characters. The lowest bit is exact. Bits above it may be carries.
#[inline(always)]
fn specials(word: u64) -> u64 {
    let quote = word ^ (ONES * 0x22);
    let slash = word ^ (ONES * 0x5C);
    (quote.wrapping_sub(ONES) & !quote
        | slash.wrapping_sub(ONES) & !slash
        | word.wrapping_sub(ONES * 0x20) & !word)
        & HIGHS
}

/// The position of the closing quote, and whether there is a backslash. `at` is the byte behind the opening quote.
#[inline(always)]
pub(super) fn string(text: &[u8], mut at: usize) -> Result<(usize, bool), Stop> {
    loop {
        if let Some(chunk) = text.get(at..).and_then(<[u8]>::first_chunk::<8>) {
            let found = specials(u64::from_le_bytes(*chunk));
            if found == 0 {
                at += 8;
                continue;
            }
            at += (found.trailing_zeros() / 8) as usize;
        }
        match byte(text, at)? {
            b'"' => return Ok((at, false)),
            b'\\' => return Ok((escaped(text, at)?, true)),
            0..=0x1F => return bad(at, CONTROL),
            _ => at += 1,
        }
    }
}

/// The position of the closing quote. `at` is the first backslash of the string.
#[cold]
fn escaped(text: &[u8], mut at: usize) -> Result<usize, Stop> {
    loop {
        match byte(text, at)? {
            b'"' => return Ok(at),
            b'\\' => match byte(text, at + 1)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at += 2,
                b'u' => {
                    for digit in at + 2..at + 6 {
                        if !byte(text, digit)?.is_ascii_hexdigit() {
                            return bad(digit, "four hex digits after \\u");
                        }
                    }
                    at += 6;
                }
                _ => return bad(at + 1, ESCAPE),
            },
            0..=0x1F => return bad(at, CONTROL),
            _ => at += 1,
        }
    }
}

/// The end of one or more digits.
fn digits(text: &[u8], mut at: usize) -> Result<usize, Stop> {
    if !byte(text, at)?.is_ascii_digit() {
        return bad(at, "a digit");
    }
    while text.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    Ok(at)
}

/// The end of a number. A number that reaches the end of `text` is whole.
pub(super) fn number(text: &[u8], mut at: usize) -> Result<usize, Stop> {
    if byte(text, at)? == b'-' {
        at += 1;
    }
    at = if byte(text, at)? == b'0' {
        at + 1
    } else {
        digits(text, at)?
    };
    if text.get(at) == Some(&b'.') {
        at = digits(text, at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1;
        if let b'+' | b'-' = byte(text, at)? {
            at += 1;
        }
        at = digits(text, at)?;
    }
    Ok(at)
}

/// The end of a literal such as `true`.
fn word(text: &[u8], at: usize, word: &'static [u8]) -> Result<usize, Stop> {
    for (i, expected) in word.iter().enumerate() {
        if byte(text, at + i)? != *expected {
            return bad(at + i, VALUE);
        }
    }
    Ok(at + word.len())
}

/// The end of a number, `true`, `false` or `null`.
#[inline]
fn atom(text: &[u8], at: usize, first: u8) -> Result<usize, Stop> {
    match first {
        b'-' | b'0'..=b'9' => number(text, at),
        b't' => word(text, at, b"true"),
        b'f' => word(text, at, b"false"),
        b'n' => word(text, at, b"null"),
        _ => bad(at, VALUE),
    }
}

/// Walks over values. It does not recurse, so that no input can exhaust the stack.
#[derive(Debug)]
pub(super) struct Skipper {
    max_depth: usize,
    /// The opening bytes of the brackets that are open.
    open: Vec<u8>,
}

impl Skipper {
    /// A skipper that allows so many levels.
    pub fn new(max_depth: u32) -> Self {
        Self {
            max_depth: max_depth as usize,
            open: Vec::new(),
        }
    }

    /// The end of the value that starts at `at`, inside `depth` brackets.
    #[inline]
    pub fn value(&mut self, text: &[u8], at: usize, depth: usize) -> Result<usize, Stop> {
        match byte(text, at)? {
            b'"' => Ok(string(text, at + 1)?.0 + 1),
            b'{' | b'[' => self.brackets(text, at, depth),
            first => atom(text, at, first),
        }
    }

    /// Checks that a bracket at `at`, inside `depth` brackets, is not too deep.
    #[inline(always)]
    pub fn enter(&self, at: usize, depth: usize) -> Result<(), Stop> {
        if depth >= self.max_depth {
            Err(Stop::Deep { at })
        } else {
            Ok(())
        }
    }

    /// The end of the object or array that opens at `at`.
    fn brackets(&mut self, text: &[u8], mut at: usize, depth: usize) -> Result<usize, Stop> {
        self.open.clear();
        // Each turn reads one value, then the closing brackets and the comma behind it.
        loop {
            let first = byte(text, at)?;
            match first {
                b'"' => at = string(text, at + 1)?.0 + 1,
                b'{' => {
                    self.enter(at, depth + self.open.len())?;
                    self.open.push(first);
                    at = space(text, at + 1);
                    match byte(text, at)? {
                        b'}' => {}
                        _ => {
                            at = key(text, at)?;
                            continue;
                        }
                    }
                }
                b'[' => {
                    self.enter(at, depth + self.open.len())?;
                    self.open.push(first);
                    at = space(text, at + 1);
                    if byte(text, at)? != b']' {
                        continue;
                    }
                }
                _ => at = atom(text, at, first)?,
            }
            loop {
                let Some(open) = self.open.last() else {
                    return Ok(at);
                };
                at = space(text, at);
                match (byte(text, at)?, open) {
                    (b'}', b'{') | (b']', b'[') => {
                        self.open.pop();
                        at += 1;
                    }
                    (b',', b'{') => {
                        at = key(text, space(text, at + 1))?;
                        break;
                    }
                    (b',', _) => {
                        at = space(text, at + 1);
                        break;
                    }
                    (_, b'{') => return bad(at, "`,` or `}`"),
                    _ => return bad(at, "`,` or `]`"),
                }
            }
        }
    }
}

/// The start of a member's value. `at` is the opening quote of its name.
#[inline(always)]
fn key(text: &[u8], at: usize) -> Result<usize, Stop> {
    if byte(text, at)? != b'"' {
        return bad(at, NAME);
    }
    let (end, _) = string(text, at + 1)?;
    colon(text, end + 1)
}

/// The start of a member's value. `at` is the byte behind the closing quote of its name.
#[inline(always)]
pub(super) fn colon(text: &[u8], at: usize) -> Result<usize, Stop> {
    let at = space(text, at);
    if byte(text, at)? != b':' {
        return bad(at, "`:`");
    }
    Ok(space(text, at + 1))
}

/// The text between the quotes of a JSON string, as it is written. `None` for another JSON value.
#[inline]
pub(super) fn quoted(value: &str) -> Option<&str> {
    value.strip_prefix('"')?.strip_suffix('"')
}

/// The text with its escapes resolved. `None` where half of a surrogate pair stands alone.
#[inline]
pub(super) fn resolved(text: &str) -> Option<Cow<'_, str>> {
    if memchr::memchr(b'\\', text.as_bytes()).is_some() {
        unescape(text)
    } else {
        Some(Cow::Borrowed(text))
    }
}

/// The string between two quotes with its escapes resolved. `None` where half of a surrogate pair
/// stands alone, because no UTF-8 text can hold it.
pub(super) fn unescape(text: &str) -> Option<Cow<'_, str>> {
    let Some(first) = text.find('\\') else {
        return Some(Cow::Borrowed(text));
    };
    let mut out = String::with_capacity(text.len());
    let (plain, mut rest) = text.split_at_checked(first).unwrap_or((text, ""));
    out.push_str(plain);
    while let Some(tail) = rest.strip_prefix('\\') {
        let mut chars = tail.chars();
        let kind = chars.next().unwrap_or('\\');
        rest = chars.as_str();
        match kind {
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{C}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'u' => {
                let (unit, after) = hex4(rest);
                rest = after;
                let low = match unit {
                    0xD800..=0xDBFF => rest.strip_prefix("\\u").map(hex4),
                    _ => None,
                };
                match low {
                    Some((low @ 0xDC00..=0xDFFF, after)) => {
                        out.push(char::from_u32(
                            0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00),
                        )?);
                        rest = after;
                    }
                    _ => out.push(char::from_u32(unit)?),
                }
            }
            other => out.push(other),
        }
        let next = rest.find('\\').unwrap_or(rest.len());
        let (plain, tail) = rest.split_at_checked(next).unwrap_or((rest, ""));
        out.push_str(plain);
        rest = tail;
    }
    Some(Cow::Owned(out))
}

/// The name of a member in the form in which names are compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Name<'a> {
    /// The name as text.
    Text(Cow<'a, str>),
    /// The name in UTF-16, where it has half of a surrogate pair.
    Units(Vec<u16>),
}

/// The name of a member in the form in which names are compared. `text` is the name between its quotes.
pub(super) fn name(text: &str) -> Name<'_> {
    match unescape(text) {
        Some(text) => Name::Text(text),
        None => Name::Units(units(text)),
    }
}

/// The string between two quotes in UTF-16, which can hold half of a surrogate pair.
#[cold]
fn units(text: &str) -> Vec<u16> {
    let mut units = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(digits) = rest.strip_prefix("\\u") {
            let (unit, after) = hex4(digits);
            units.push(unit as u16);
            rest = after;
            continue;
        }
        let length = if first == '\\' { 2 } else { first.len_utf8() };
        let (one, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        units.extend(unescape(one).unwrap_or_default().encode_utf16());
        rest = after;
    }
    units
}

/// The value of the first four hex digits, and the rest of the text.
fn hex4(text: &str) -> (u32, &str) {
    let (digits, rest) = text.split_at_checked(4).unwrap_or((text, ""));
    (u32::from_str_radix(digits, 16).unwrap_or(0xFFFD), rest)
}

/// Whether `text` begins with a value that is no object and stands by itself: it is followed by
/// nothing, or by a byte that may stand between records.
pub(super) fn starts_other_value(text: &[u8]) -> bool {
    let end = match text.first() {
        Some(b'"') => string(text, 1).map(|(end, _)| end + 1),
        Some(first) => atom(text, 0, *first),
        None => Err(Stop::Short),
    };
    end.is_ok_and(|end| {
        std::str::from_utf8(text.get(..end).unwrap_or_default()).is_ok()
            && matches!(
                text.get(end),
                None | Some(b' ' | b'\t' | b'\r' | b'\n' | b',' | b'[' | b']' | 0x1E | b'\\')
            )
    })
}

/// An iterator over the members of an object, which must be valid JSON with its braces.
pub(super) struct ObjectMembers<'a, 's> {
    text: &'a str,
    at: usize,
    skipper: &'s mut Skipper,
}

/// One member of an object.
pub(super) struct Member<'a> {
    /// The name between its quotes, as it is written.
    pub name: &'a str,
    /// The text of the value.
    pub value: &'a str,
}

impl<'a, 's> ObjectMembers<'a, 's> {
    /// The members of `text`.
    pub fn of(text: &'a str, skipper: &'s mut Skipper) -> Self {
        Self {
            text,
            at: 1,
            skipper,
        }
    }
}

impl<'a> Iterator for ObjectMembers<'a, '_> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        let bytes = self.text.as_bytes();
        let mut at = space(bytes, self.at);
        if bytes.get(at) == Some(&b',') {
            at = space(bytes, at + 1);
        }
        if bytes.get(at) != Some(&b'"') {
            return None;
        }
        let (name_end, _) = string(bytes, at + 1).ok()?;
        let name = self.text.get(at + 1..name_end)?;
        let start = colon(bytes, name_end + 1).ok()?;
        self.at = self.skipper.value(bytes, start, 0).ok()?;
        Some(Member {
            name,
            value: self.text.get(start..self.at)?,
        })
    }
}

/// An iterator over the items of an array, which must be valid JSON with its brackets.
pub(super) struct Items<'a, 's> {
    text: &'a str,
    at: usize,
    skipper: &'s mut Skipper,
}

impl<'a, 's> Items<'a, 's> {
    /// The items of `text`.
    pub fn of(text: &'a str, skipper: &'s mut Skipper) -> Self {
        Self {
            text,
            at: 1,
            skipper,
        }
    }
}

impl<'a> Iterator for Items<'a, '_> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let bytes = self.text.as_bytes();
        let mut at = space(bytes, self.at);
        if bytes.get(at) == Some(&b',') {
            at = space(bytes, at + 1);
        }
        if matches!(bytes.get(at), None | Some(b']')) {
            return None;
        }
        self.at = self.skipper.value(bytes, at, 0).ok()?;
        self.text.get(at..self.at)
    }
}
