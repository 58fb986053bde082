//! Frames of lz4. The decoder of the library waits for its input, so it is given whole headers and whole blocks.

use std::collections::VecDeque;
use std::io::Read;

use lz4_flex::frame::FrameDecoder;

use super::super::buffer::Buffer;
use super::super::memory::HeldMemory;
use super::WINDOW;
use super::unpack::{Damage, Lender, Ran, Unpack, gather};

/// How a frame begins.
pub(super) const LZ4: [u8; 4] = [0x04, 0x22, 0x4D, 0x18];

/// The flags of a frame.
const BLOCK_CHECKSUM: u8 = 0x10;
const CONTENT_SIZE: u8 = 0x08;
const CONTENT_CHECKSUM: u8 = 0x04;
const DICTIONARY: u8 = 0x01;

/// The part of a frame that comes next.
enum Part {
    Header,
    /// A block, or the end of the frame. These are the flags of the frame, and the most bytes of a block.
    Block(u8, usize),
    /// So many bytes that are to be skipped.
    Skip(usize),
}

/// A decoder of one frame.
pub(super) struct Lz4 {
    decoder: FrameDecoder<VecDeque<u8>>,
    part: Part,
    /// The bytes of a header or block that is not whole yet.
    held: Vec<u8>,
    /// The memory for blocks.
    window: Option<HeldMemory>,
}

impl Lz4 {
    /// A decoder of a frame that has not begun.
    pub fn new() -> Self {
        Self {
            decoder: FrameDecoder::new(VecDeque::new()),
            part: Part::Header,
            held: Vec::new(),
            window: None,
        }
    }

    /// Takes the next header or block out of `rest`. The result says whether the frame has ended; `None` where more bytes
    /// are needed.
    fn next(&mut self, rest: &mut &[u8], memory: &Lender<'_>) -> Result<Option<bool>, Damage> {
        match self.part {
            Part::Skip(left) => {
                let skipped = left.min(rest.len());
                *rest = rest.get(skipped..).unwrap_or_default();
                self.part = Part::Skip(left - skipped);
                Ok((left == skipped).then_some(true))
            }
            Part::Header => {
                // The first bytes say how long the header is.
                let mut wanted = header(&self.held)?;
                while self.held.len() < wanted {
                    if !gather(&mut self.held, rest, wanted) {
                        return Ok(None);
                    }
                    wanted = header(&self.held)?;
                }
                self.part = match *self.held.as_slice() {
                    [0x04, _, _, _, flags, descriptor, ..] => {
                        let most = 1_usize << (8 + 2 * (descriptor >> 4 & 7));
                        // Two blocks as they are stored, and two decompressed ones.
                        self.window = Some(memory.take(4 * most as u64));
                        self.decoder.get_mut().extend(self.held.drain(..));
                        Part::Block(flags, most)
                    }
                    [.., a, b, c, d] => Part::Skip(u32::from_le_bytes([a, b, c, d]) as usize),
                    _ => Part::Header,
                };
                self.held.clear();
                Ok(Some(false))
            }
            Part::Block(flags, most) => {
                let mut wanted = block(&self.held, flags, most)?;
                while self.held.len() < wanted {
                    if !gather(&mut self.held, rest, wanted) {
                        return Ok(None);
                    }
                    wanted = block(&self.held, flags, most)?;
                }
                let ends = self.held.starts_with(&[0; 4]);
                self.decoder.get_mut().extend(self.held.drain(..));
                if ends {
                    // The decoder compares the checksum of the content.
                    self.decoder
                        .read(&mut [0])
                        .map_err(|error| damage(&error))?;
                }
                Ok(Some(ends))
            }
        }
    }
}

/// How many bytes the header has that begins with `held`, as far as these bytes tell.
fn header(held: &[u8]) -> Result<usize, Damage> {
    match *held {
        [] | [_] | [_, _] | [_, _, _] => Ok(4),
        [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..] => Ok(8),
        [0x04, 0x22, 0x4D, 0x18] | [0x04, 0x22, 0x4D, 0x18, _] => Ok(6),
        [0x04, 0x22, 0x4D, 0x18, flags, ..] => {
            let optional = |flag: u8, length: usize| if flags & flag != 0 { length } else { 0 };
            Ok(7 + optional(CONTENT_SIZE, 8) + optional(DICTIONARY, 4))
        }
        _ => Err("it begins as no lz4 frame".to_owned().into()),
    }
}

/// How many bytes the block has that begins with `held`, as far as these bytes tell.
fn block(held: &[u8], flags: u8, most: usize) -> Result<usize, Damage> {
    let Some(size) = held.first_chunk::<4>() else {
        return Ok(4);
    };
    let checksum = |flag: u8| if flags & flag != 0 { 4 } else { 0 };
    match (u32::from_le_bytes(*size) & 0x7FFF_FFFF) as usize {
        0 => Ok(4 + checksum(CONTENT_CHECKSUM)),
        size if size > most => Err("a block is larger than the frame allows".to_owned().into()),
        size => Ok(4 + size + checksum(BLOCK_CHECKSUM)),
    }
}

/// The fault that the decoder has found.
fn damage(error: &std::io::Error) -> Damage {
    let found = error.to_string();
    let (why, right) = match () {
        () if found.contains("ContentChecksum") => {
            ("the checksum of the content is wrong", Some(0))
        }
        () if found.contains("BlockChecksum") => ("the checksum of a block is wrong", None),
        () if found.contains("HeaderChecksum") => ("the checksum of the header is wrong", Some(0)),
        () if found.contains("Dictionary") => ("it needs a dictionary", Some(0)),
        () => ("the data is damaged", None),
    };
    Damage {
        why: why.to_owned(),
        right,
    }
}

impl Unpack for Lz4 {
    fn run(&mut self, input: &[u8], out: &mut Buffer, memory: &Lender<'_>) -> Result<Ran, Damage> {
        let mut rest = input;
        let ended = loop {
            let written = self.decoder.read(out.room(WINDOW));
            let written = written.map_err(|error| damage(&error))?;
            out.fill(written);
            if written > 0 {
                break false;
            }
            match self.next(&mut rest, memory)? {
                Some(false) => {}
                Some(true) => break true,
                None => break false,
            }
        };
        Ok(Ran {
            read: input.len() - rest.len(),
            ended,
        })
    }
}
