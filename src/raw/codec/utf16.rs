//! UTF-16 as UTF-8. A unit that is no character becomes the byte 0xFF, so that its record is a reject.

use encoding_rs::{Decoder, DecoderResult, UTF_16BE, UTF_16LE};

use super::super::buffer::Buffer;
use super::WINDOW;

/// Decodes a text in UTF-16.
pub(super) struct Utf16 {
    decoder: Decoder,
    /// Whether the bytes so far end inside a unit.
    odd: bool,
    /// Whether the decoder has given its last character.
    finished: bool,
}

impl Utf16 {
    /// A decoder of a text that begins with a byte order mark; `None` for other bytes.
    pub fn of(head: &[u8]) -> Option<Self> {
        let encoding = match head {
            // This may also be UTF-32.
            [0xFF, 0xFE, 0, 0, ..] => return None,
            [0xFF, 0xFE, ..] => UTF_16LE,
            [0xFE, 0xFF, ..] => UTF_16BE,
            _ => return None,
        };
        Some(Self {
            decoder: encoding.new_decoder_without_bom_handling(),
            odd: false,
            finished: false,
        })
    }

    /// Decodes a part of `input`. The result is how many bytes were read, and whether the text has ended; it ends where
    /// there is no input.
    pub fn run(&mut self, input: &[u8], out: &mut Buffer) -> (usize, bool) {
        let last = input.is_empty();
        if self.finished {
            return (0, true);
        }
        let room = out.room(WINDOW);
        let (result, read, written) = self
            .decoder
            .decode_to_utf8_without_replacement(input, room, last);
        out.fill(written);
        self.odd ^= read % 2 == 1;
        match result {
            // At the end this is half a unit.
            DecoderResult::Malformed(..) if !(last && self.odd) => out.extend(&[0xFF]),
            DecoderResult::InputEmpty => self.finished = last,
            _ => {}
        }
        (read, false)
    }

    /// Whether the bytes so far end inside a unit of two bytes.
    pub fn is_cut(&self) -> bool {
        self.odd
    }
}
