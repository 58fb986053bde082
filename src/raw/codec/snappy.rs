//! Snappy in its two framings: the framing format of snappy itself, and the blocks of Hadoop.
//!
//! ```text
//! framing format   FF 06 00 00 sNaPpY │ type, length (3 bytes) │ checksum │ bytes │ …
//! Hadoop           length of a block (4 bytes) │ length (4 bytes), bytes │ length, bytes │ … │ length of a block │ …
//! ```

use std::collections::VecDeque;
use std::io::Read;

use snap::read::FrameDecoder;

use super::super::buffer::Buffer;
use super::super::memory::HeldMemory;
use super::WINDOW;
use super::unpack::{Damage, Lender, Ran, Unpack, gather};

/// How a stream in the framing format begins.
pub(super) const SNAPPY: [u8; 10] = *b"\xFF\x06\0\0sNaPpY";

/// The most bytes of a chunk with data: 64 KiB that are not compressible, and a checksum.
const LONGEST_CHUNK: usize = 76_490 + 4;

/// The most bytes of one part of a block of Hadoop, stored and decompressed. Its default is 256 KiB.
const LONGEST_PART: usize = 16 << 20;

/// A decoder of streams in the framing format. A stream has no end mark, and others may follow.
pub(super) struct SnappyFrames {
    decoder: FrameDecoder<VecDeque<u8>>,
    /// The bytes of a chunk that is not whole yet.
    held: Vec<u8>,
    /// How many bytes of a chunk that is to be skipped are left.
    skip: usize,
}

impl SnappyFrames {
    /// A decoder of a stream that has not begun.
    pub fn new() -> Self {
        Self {
            decoder: FrameDecoder::new(VecDeque::new()),
            held: Vec::new(),
            skip: 0,
        }
    }

    /// Takes the next chunk out of `rest`. False where more bytes are needed.
    fn next(&mut self, rest: &mut &[u8]) -> Result<bool, Damage> {
        let skipped = self.skip.min(rest.len());
        *rest = rest.get(skipped..).unwrap_or_default();
        self.skip -= skipped;
        if self.skip > 0 {
            return Ok(false);
        }
        if self.held.is_empty() {
            let blank = |byte: &&u8| matches!(**byte, b' ' | b'\t' | b'\r' | b'\n');
            let blank = rest.iter().take_while(blank).count();
            *rest = rest.get(blank..).unwrap_or_default();
        }
        if !gather(&mut self.held, rest, 4) {
            return Ok(false);
        }
        let [kind, a, b, c, ..] = *self.held.as_slice() else {
            return Ok(false);
        };
        let length = u32::from_le_bytes([a, b, c, 0]) as usize;
        match kind {
            // Zeros pad the end.
            0 if length == 0 => {
                self.held.clear();
                return Ok(true);
            }
            0x80..=0xFE => {
                self.skip = length;
                self.held.clear();
                return Ok(true);
            }
            0x02..=0x7F => {
                return Err(
                    format!("a chunk is of the type 0x{kind:02X}, which is not known").into(),
                );
            }
            _ if length > LONGEST_CHUNK => {
                return Err("a chunk is longer than 64 KiB".to_owned().into());
            }
            _ => {}
        }
        if !gather(&mut self.held, rest, 4 + length) {
            return Ok(false);
        }
        self.decoder.get_mut().extend(self.held.drain(..));
        Ok(true)
    }
}

impl Unpack for SnappyFrames {
    fn run(&mut self, input: &[u8], out: &mut Buffer, _: &Lender<'_>) -> Result<Ran, Damage> {
        let mut rest = input;
        loop {
            let written = self.decoder.read(out.room(WINDOW)).map_err(|error| {
                let why = match error.to_string().contains("checksum") {
                    true => "the checksum of a chunk is wrong",
                    false => "a chunk is damaged",
                };
                Damage {
                    why: why.to_owned(),
                    right: None,
                }
            })?;
            out.fill(written);
            if written > 0 || !self.next(&mut rest)? {
                return Ok(Ran {
                    read: input.len() - rest.len(),
                    ended: false,
                });
            }
        }
    }

    fn may_end(&self) -> bool {
        self.skip == 0 && self.held.iter().all(|byte| *byte == 0)
    }
}

/// A decoder of the blocks of Hadoop.
#[derive(Default)]
pub(super) struct HadoopSnappy {
    /// The bytes of a length or part that is not whole yet.
    held: Vec<u8>,
    /// How many decompressed bytes of the block are left.
    left: usize,
    /// A decompressed part, and how many of its bytes were given.
    part: Vec<u8>,
    given: usize,
    window: Option<HeldMemory>,
}

impl HadoopSnappy {
    /// Takes the next length of a block, or the next part, out of `rest`. False where more bytes are needed.
    fn next(&mut self, rest: &mut &[u8], memory: &Lender<'_>) -> Result<bool, Damage> {
        if self.left == 0 && self.held.is_empty() {
            // A block that begins with such a byte would have more than 150 MB.
            let blank = |byte: &&u8| matches!(**byte, b' ' | b'\t' | b'\r' | b'\n');
            let blank = rest.iter().take_while(blank).count();
            *rest = rest.get(blank..).unwrap_or_default();
        }
        if !gather(&mut self.held, rest, 4) {
            return Ok(false);
        }
        let length = self.held.first_chunk::<4>().copied().unwrap_or_default();
        let length = u32::from_be_bytes(length) as usize;
        if self.left == 0 {
            // A block without bytes is padding.
            self.left = length;
            self.held.clear();
            return Ok(true);
        }
        if length > LONGEST_PART {
            return Err("a part of a block is longer than 16 MiB".to_owned().into());
        }
        if !gather(&mut self.held, rest, 4 + length) {
            return Ok(false);
        }
        let stored = self.held.get(4..).unwrap_or_default();
        let damaged = || Damage::from("a part of a block is damaged".to_owned());
        let told = snap::raw::decompress_len(stored).map_err(|_| damaged())?;
        if told == 0 || told > self.left || told > LONGEST_PART {
            return Err("a part of a block has another length than the block allows"
                .to_owned()
                .into());
        }
        if self.part.capacity() < told {
            self.part = Vec::new();
            self.window = None;
            self.window = Some(memory.take((told + stored.len()) as u64));
        }
        self.part.resize(told, 0);
        let mut decoder = snap::raw::Decoder::new();
        let written = decoder.decompress(stored, &mut self.part);
        self.part.truncate(written.map_err(|_| damaged())?);
        self.given = 0;
        self.left -= told;
        self.held.clear();
        Ok(true)
    }
}

impl Unpack for HadoopSnappy {
    fn run(&mut self, input: &[u8], out: &mut Buffer, memory: &Lender<'_>) -> Result<Ran, Damage> {
        let mut rest = input;
        loop {
            let part = self.part.get(self.given..).unwrap_or_default();
            let part = part.get(..WINDOW).unwrap_or(part);
            out.extend(part);
            self.given += part.len();
            if !part.is_empty() || !self.next(&mut rest, memory)? {
                return Ok(Ran {
                    read: input.len() - rest.len(),
                    ended: false,
                });
            }
        }
    }

    fn may_end(&self) -> bool {
        self.left == 0 && self.held.iter().all(|byte| *byte == 0)
    }
}
