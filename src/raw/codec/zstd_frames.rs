//! Zstd: frames that follow each other, and the memory for their windows.

use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

use super::super::PieceError;
use super::super::buffer::Buffer;
use super::super::memory::{HeldMemory, SharedMemory};
use super::{Flow, Inflow, WINDOW, blank, checksum, follows};

/// How a zstd frame begins.
pub(super) const ZSTD: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// How a zstd frame that is to be skipped begins, behind a byte from 0x50 to 0x5F. pzstd puts such a frame before each
/// frame, with its length.
const SKIPPABLE: [u8; 3] = [0x2A, 0x4D, 0x18];

/// The most bytes at the start of a frame that say how large its window is.
const LONGEST_HEAD: usize = 18;

/// Decompresses zstd frames, one after another.
pub(super) struct Frames {
    decoder: Decoder<'static>,
    /// How many frames have begun.
    pub(super) frames: u64,
    /// Where the last frame began, counted in stored bytes.
    pub(super) begun: u64,
    /// Whether the last frame has given bytes.
    pub(super) given: bool,
    /// Whether the last byte was inside a frame.
    pub(super) open: bool,
    /// The first bytes of a frame, as long as they do not say how large its window is.
    head: Vec<u8>,
    /// Whether the memory for the window of this frame is held.
    admitted: bool,
    /// The memory for the decoder's window.
    window: Option<HeldMemory>,
}

impl Frames {
    /// No frame yet.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            decoder: Decoder::new()?,
            frames: 0,
            begun: 0,
            given: false,
            open: false,
            head: Vec::new(),
            admitted: false,
            window: None,
        })
    }

    /// Takes memory for the window of the frame that `input` belongs to. With `wait`, waits until there is enough.
    pub(super) fn admit(
        &mut self,
        input: &[u8],
        windows: &SharedMemory,
        wait: bool,
    ) -> std::io::Result<()> {
        if self.admitted || input.is_empty() {
            return Ok(());
        }
        let begins = self.head.is_empty();
        let mut head = self.head.clone();
        head.extend(input.iter().take(LONGEST_HEAD));
        let wanted = window(&head);
        let held = |window: &HeldMemory| wanted.is_some_and(|wanted| window.holds(wanted));
        if begins && !self.window.as_ref().is_some_and(held) {
            // A decoder keeps its window from frame to frame. It is dropped, because a decoder that waits for memory
            // must hold none.
            self.decoder = Decoder::new()?;
            self.window = None;
        }
        if let Some(wanted) = wanted {
            self.admitted = true;
            if self.window.is_none() {
                self.window = Some(match wait {
                    true => windows.take(wanted),
                    false => windows.take_now(wanted),
                });
            }
        }
        Ok(())
    }

    /// Decompresses a part of `input` into `out`. The result is how many bytes were read, and how many were written.
    pub(super) fn run(&mut self, input: &[u8], out: &mut [u8]) -> std::io::Result<(usize, usize)> {
        let mut source = InBuffer::around(input);
        let mut target = OutBuffer::around(out);
        let hint = self.decoder.run(&mut source, &mut target)?;
        let (read, written) = (source.pos(), target.pos());
        self.given |= written > 0;
        if read > 0 || written > 0 {
            self.open = hint != 0;
        }
        if !self.open {
            self.admitted = false;
            self.head.clear();
        } else if !self.admitted {
            self.head.extend(input.iter().take(read));
        }
        Ok((read, written))
    }
}

impl Inflow<'_> {
    /// Decompresses the next part of a zstd stream.
    pub(super) fn unpack_zstd(
        &mut self,
        frames: &mut Frames,
        out: &mut Buffer,
    ) -> Result<Flow, PieceError> {
        let input = self.input();
        if !frames.open {
            let blank = blank(input);
            let ended = input.is_empty();
            let rest = input.get(blank..).unwrap_or_default();
            if rest.is_empty() {
                self.taken += blank;
                return Ok(if ended { Flow::End } else { Flow::More });
            }
            if rest.len() >= ZSTD.len() && !begins_frame(rest) {
                let (found, frames) = (follows(rest), frames.frames);
                let why = format!("{found} after zstd frame {frames}, not a zstd frame");
                self.taken += blank;
                return self.broken(self.at(), why);
            }
            self.taken += blank;
            frames.frames += 1;
            frames.begun = self.at();
            frames.given = false;
        }
        let input = self.block.get(self.taken..).unwrap_or_default();
        // Without input there may still be output inside the decoder.
        let ran = frames
            .admit(input, &self.memory.windows, self.may_wait)
            .and_then(|()| frames.run(input, out.room(WINDOW)));
        let why = match ran {
            Ok((0, 0)) => "the zstd frame is cut off".to_owned(),
            Ok((read, written)) => {
                self.taken += read;
                out.fill(written);
                return Ok(Flow::More);
            }
            Err(error) => format!("zstd: {error}"),
        };
        let whole = !frames.given || checksum(&why);
        let from = if whole { frames.begun } else { self.at() };
        self.broken(from, why)
    }
}

/// Whether a zstd frame begins here, or a frame that is to be skipped.
pub(super) fn begins_frame(rest: &[u8]) -> bool {
    rest.starts_with(&ZSTD)
        || matches!(rest, [0x50..=0x5F, rest @ ..] if rest.starts_with(&SKIPPABLE))
}

/// The bytes of the window of the zstd frame that begins with `head`. `None` where `head` is too short to tell.
pub(super) fn window(head: &[u8]) -> Option<u64> {
    let (magic, rest) = head.split_first_chunk::<4>()?;
    if *magic != ZSTD {
        // This is a frame to be skipped, or no frame at all.
        return Some(0);
    }
    let (flags, mut rest) = rest.split_first()?;
    let single = flags & 0x20 != 0;
    let mut window = u64::MAX;
    if !single {
        let (size, after) = rest.split_first()?;
        let base = 1u64 << (10 + (size >> 3));
        window = base + base / 8 * u64::from(size & 7);
        rest = after;
    }
    let dictionary = [0, 1, 2, 4].get(usize::from(flags & 3))?;
    let rest = rest.get(*dictionary..)?;
    // A frame needs no window that is larger than its content.
    let content = match flags >> 6 {
        0 if single => u64::from(*rest.first()?),
        0 => u64::MAX,
        1 => u64::from(u16::from_le_bytes(*rest.first_chunk()?)) + 256,
        2 => u64::from(u32::from_le_bytes(*rest.first_chunk()?)),
        _ => u64::from_le_bytes(*rest.first_chunk()?),
    };
    Some(window.min(content))
}
