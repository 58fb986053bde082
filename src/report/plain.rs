//! Keeps text from other sources from commanding a terminal.
//!
//! ```text
//! keys, raw values, names of files, settings, answers of servers ──▶ Plain ──▶ stdout │ stderr │ log
//! ```
//!
//! Everything that is printed goes through this file. Characters that a terminal obeys, or that change the
//! direction of text, are written as JSON and TOML escape them, `\u001b`. JSON and TOML therefore stay valid. A
//! line that begins inside a value is indented, so that it cannot be mistaken for a line of rawmart.

use std::io::{Result, Write};

/// The indent of a line that begins inside a value.
const INDENT: &str = "    ";

/// Whether a character is written as an escape: a control character (C0 except tabs and line feeds, DEL, C1),
/// or a character that changes the direction of text or ends a line.
const fn is_spelt(c: char) -> bool {
    matches!(c,
        '\0'..='\x08' | '\x0b'..='\x1f' | '\x7f'..='\u{9f}'
        | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text in the form in which it may be printed.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        if is_spelt(c) {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
            continue;
        }
        out.push(c);
        if c == '\n' && characters.peek().is_some_and(|next| *next != '\n') {
            out.push_str(INDENT);
        }
    }
    out
}

/// Writes plain text. Each piece is a piece that formatting gives: a part of rawmart's own text, or one whole
/// value.
pub(super) struct Plain<W> {
    out: W,
    /// The bytes of a character in which the last piece ended.
    begun: Vec<u8>,
}

impl<W: Write> Plain<W> {
    pub(super) const fn new(out: W) -> Self {
        Self {
            out,
            begun: Vec::new(),
        }
    }
}

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let is_plain = |byte: &u8| matches!(byte, b' '..=b'~');
        let (last, others) = match bytes.split_last() {
            Some((last, others)) => (Some(last), others),
            None => (None, bytes),
        };
        let is_end = last.is_none_or(|last| is_plain(last) || *last == b'\n');
        if self.begun.is_empty() && is_end && others.iter().all(is_plain) {
            self.out.write_all(bytes)?;
            return Ok(bytes.len());
        }
        let mut piece = std::mem::take(&mut self.begun);
        piece.extend_from_slice(bytes);
        // A character is complete, or is cut off, or has a wrong byte.
        let whole = match std::str::from_utf8(&piece) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => piece.len(),
        };
        self.begun = piece.split_off(whole);
        self.out
            .write_all(plain(&String::from_utf8_lossy(&piece)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(pieces: &[&[u8]]) -> String {
        let mut out = Vec::new();
        let mut plain = Plain::new(&mut out);
        for piece in pieces {
            plain.write_all(piece).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        for code in (0..0x3000).filter_map(char::from_u32) {
            let text = printed(&[format!("a{code}b").as_bytes()]);
            let obeyed = text.chars().any(|c| {
                let turns = "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}";
                let isolates = "\u{2066}\u{2067}\u{2068}\u{2069}\u{2028}\u{2029}";
                (c.is_control() && !"\n\t".contains(c)) || turns.contains(c) || isolates.contains(c)
            });
            assert!(!obeyed, "{code:?}: {text:?}");
        }
        let text = "\u{1b}[31mred\u{9b}2J \u{202e}txt.exe\r\u{7f}";
        let spelt = "\\u001b[31mred\\u009b2J \\u202etxt.exe\\u000d\\u007f";
        assert_eq!(printed(&[text.as_bytes()]), spelt);
        assert_eq!(printed(&["단지 é\t✓\n".as_bytes()]), "단지 é\t✓\n");
    }

    #[test]
    fn a_line_within_a_value_is_not_ours() {
        let value = "x\nPublished commit 9\n";
        assert_eq!(
            printed(&[b"key ", value.as_bytes(), b"\n", b"next\n"]),
            "key x\n    Published commit 9\n\nnext\n"
        );
    }

    #[test]
    fn json_stays_what_it_is() {
        let value = serde_json::json!({"key": "\u{1b}[2J\u{9b}\u{202e}\n\u{7f}단지", "n": [1, 2]});
        for text in [
            serde_json::to_string(&value).unwrap(),
            serde_json::to_string_pretty(&value).unwrap(),
        ] {
            // The result does not depend on how the bytes are cut into pieces.
            for length in [1, 2, 3, 7, 1000] {
                let pieces: Vec<&[u8]> = text.as_bytes().chunks(length).collect();
                let printed = printed(&pieces);
                assert!(!printed.contains(['\u{9b}', '\u{202e}', '\u{7f}']));
                let read: serde_json::Value = serde_json::from_str(&printed).unwrap();
                assert_eq!(read, value);
            }
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_told() {
        assert_eq!(printed(&[b"a\xff\x9bb"]), "a\u{fffd}\u{fffd}b");
        assert_eq!(printed(&[b"a\xc2", b"\x9bb"]), "a\\u009bb");
    }
}
