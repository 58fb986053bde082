//! RFC 8259, byte by byte: where a value ends, or the first byte at which it can no longer be one.
//!
//! Everything here works on positions in one slice and never looks past it: a value that the slice
//! cuts off is [`Stop::Short`], so whoever holds more bytes asks again. UTF-8 is not looked at; the
//! framer checks it over the whole record at once, which is an order of magnitude faster.

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

/// What the grammar wants where producers often have something else.
pub(super) const CONTROL: &str = "no control character in a string";
pub(super) const ESCAPE: &str = "an escape that JSON knows";
pub(super) const NAME: &str = "a name in quotes";
pub(super) const VALUE: &str = "a value";

fn bad<T>(at: usize, wanted: &'static str) -> Result<T, Stop> {
    Err(Stop::Bad { at, wanted })
}

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

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// High bits of the bytes of `word` that end the plain part of a string: quotes, backslashes and
/// control characters. The lowest bit is exact; those above it may be carries.
#[inline(always)]
fn specials(word: u64) -> u64 {
    let quote = word ^ (ONES * 0x22);
    let slash = word ^ (ONES * 0x5C);
    (quote.wrapping_sub(ONES) & !quote
        | slash.wrapping_sub(ONES) & !slash
        | word.wrapping_sub(ONES * 0x20) & !word)
        & HIGHS
}

/// From the byte after an opening quote to the closing quote; and whether there is a backslash.
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

/// The rest of a string from its first backslash on.
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

fn digits(text: &[u8], mut at: usize) -> Result<usize, Stop> {
    if !byte(text, at)?.is_ascii_digit() {
        return bad(at, "a digit");
    }
    while text.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    Ok(at)
}

/// The end of a number; one that reaches the end of `text` is whole.
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

fn word(text: &[u8], at: usize, word: &'static [u8]) -> Result<usize, Stop> {
    for (i, expected) in word.iter().enumerate() {
        if byte(text, at + i)? != *expected {
            return bad(at + i, VALUE);
        }
    }
    Ok(at + word.len())
}

/// The end of a value that is neither a string nor opens a bracket.
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

/// Walks over values without recursion, so that no input can exhaust the stack.
#[derive(Debug)]
pub(super) struct Skipper {
    max_depth: usize,
    /// The brackets that are open, as their opening byte.
    open: Vec<u8>,
}

impl Skipper {
    pub fn new(max_depth: u32) -> Self {
        Self {
            max_depth: max_depth as usize,
            open: Vec::new(),
        }
    }

    /// The end of the value that starts at `at`, `depth` brackets deep.
    #[inline]
    pub fn value(&mut self, text: &[u8], at: usize, depth: usize) -> Result<usize, Stop> {
        match byte(text, at)? {
            b'"' => Ok(string(text, at + 1)?.0 + 1),
            b'{' | b'[' => self.brackets(text, at, depth),
            first => atom(text, at, first),
        }
    }

    /// Fails when a bracket at `at` would be the level after `depth` and that is too deep.
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
        // Each turn reads one value, then the brackets that it closes and the comma after it.
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

/// From a member's opening quote to its value.
#[inline(always)]
fn key(text: &[u8], at: usize) -> Result<usize, Stop> {
    if byte(text, at)? != b'"' {
        return bad(at, NAME);
    }
    let (end, _) = string(text, at + 1)?;
    colon(text, end + 1)
}

/// From the end of a member's name to its value.
#[inline(always)]
pub(super) fn colon(text: &[u8], at: usize) -> Result<usize, Stop> {
    let at = space(text, at);
    if byte(text, at)? != b':' {
        return bad(at, "`:`");
    }
    Ok(space(text, at + 1))
}

/// The string between two quotes with its escapes resolved; `None` where half of a surrogate pair
/// stands alone, which is no character: no UTF-8 text can hold it.
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

/// A name as it is compared with others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Name<'a> {
    Text(Cow<'a, str>),
    /// UTF-16 of a name with half of a surrogate pair.
    Units(Vec<u16>),
}

/// A member's name between its quotes, with its escapes resolved.
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

fn hex4(text: &str) -> (u32, &str) {
    let (digits, rest) = text.split_at_checked(4).unwrap_or((text, ""));
    (u32::from_str_radix(digits, 16).unwrap_or(0xFFFD), rest)
}

/// Whether `text` begins with a value that is no object and stands by itself: what follows is
/// nothing, or a byte that may stand between records.
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

/// The members of an object that is known to be valid JSON, with its braces.
pub(super) struct Members<'a> {
    text: &'a str,
    at: usize,
    skipper: &'a mut Skipper,
}

/// One member: the name between its quotes, as written, and the text of its value.
pub(super) struct Member<'a> {
    pub name: &'a str,
    pub value: &'a str,
}

impl<'a> Members<'a> {
    pub fn of(text: &'a str, skipper: &'a mut Skipper) -> Self {
        Self {
            text,
            at: 1,
            skipper,
        }
    }
}

impl<'a> Iterator for Members<'a> {
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

/// The items of an array that is known to be valid JSON, with its brackets.
pub(super) struct Items<'a> {
    text: &'a str,
    at: usize,
    skipper: &'a mut Skipper,
}

impl<'a> Items<'a> {
    pub fn of(text: &'a str, skipper: &'a mut Skipper) -> Self {
        Self {
            text,
            at: 1,
            skipper,
        }
    }
}

impl<'a> Iterator for Items<'a> {
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
