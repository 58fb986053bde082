//! Stored bytes in, decompressed bytes out, by what the bytes are and not by what the object is
//! called.
//!
//! ```text
//! Pieces ──▶ sha256 ──▶ blocks of 64 KiB ──▶ none | gzip members | zstd frames ──▶ Buffer
//! ```
//!
//! Codecs are fed in blocks that do not depend on how the bytes arrived: how much a decompressor
//! yields before it finds an error depends on how it is fed, and the records of a raw object must
//! not.
//!
//! Most raw objects are one gzip member of a few megabytes. Those are inflated at once, which is
//! about three times as fast; whatever is not certainly such a member, or larger than the memory
//! allows, goes the way above, from its first byte. Both ways yield the same.
//!
//! Between gzip members, and between zstd frames, white space and zeros are skipped: shippers put a line
//! feed behind each batch that they compressed, tapes and block devices pad. The stored bytes behind
//! the place where decompression breaks off are counted as lost, and so are all of a member or frame
//! whose checksum is wrong: nobody knows which of its bytes are right.
//!
//! A zstd frame says how large its window is. Before the decoder makes one of that size, it is taken
//! from what all decoders may hold.

use bytes::{Buf, Bytes};
use flate2::{Decompress, FlushDecompress, Status};
use libdeflater::Decompressor;
use memchr::memmem;
use sha2::{Digest, Sha256};
use zstd::stream::raw::{Decoder as Zstd, InBuffer, Operation, OutBuffer};

use super::buffer::Buffer;
use super::kind;
use super::memory::{DecodeMemory, Window, Windows};
use super::{PieceError, Pieces};

/// Stored bytes that a codec is fed with at once.
const BLOCK: usize = 64 << 10;
/// Decompressed bytes that are asked for at once.
const WINDOW: usize = 128 << 10;

/// A gzip member that is inflated at once is held with its stored bytes, which are to be so many
/// times fewer: JSON is packed to about a tenth.
const PACKED: usize = 8;
/// Deflate makes no more bytes of one.
const EXPANSION: usize = 1_032;

/// Stored bytes that are looked at to tell the codec.
const SNIFFED: usize = 512;

const GZIP: [u8; 2] = [0x1F, 0x8B];
const ZSTD: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
/// How a zstd frame that is to be skipped begins, behind a byte from 0x50 to 0x5F: pzstd writes the
/// length of each frame into one before it.
const SKIPPABLE: [u8; 3] = [0x2A, 0x4D, 0x18];

/// What zlib and zstd say of a checksum that is wrong.
const CHECKSUMS: [&str; 3] = [
    "incorrect data check",
    "incorrect length check",
    "Restored data doesn't match checksum",
];

/// Where decompression stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Flow {
    /// More may come.
    More,
    /// That was all, and it was whole.
    End,
    /// What follows cannot be decompressed.
    Broken(String),
}

enum Codec {
    None,
    /// Between members, where white space and zeros may be.
    GzipHead {
        members: u64,
    },
    Gzip {
        inflate: Decompress,
        members: u64,
        /// Of this member, among the stored bytes.
        begun: u64,
    },
    Zstd(Frames),
}

/// Decompresses zstd frames, one after another.
struct Frames {
    decoder: Zstd<'static>,
    /// Frames that have begun, and where the last one did among the stored bytes.
    frames: u64,
    begun: u64,
    /// Whether the last one has given bytes.
    given: bool,
    /// Whether the last byte was inside a frame.
    open: bool,
    /// The first bytes of a frame while they do not say how large its window is.
    head: Vec<u8>,
    /// Whether the window of this frame is held.
    admitted: bool,
    /// What the decoder's window was taken from.
    window: Option<Window>,
}

impl Frames {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            decoder: Zstd::new()?,
            frames: 0,
            begun: 0,
            given: false,
            open: false,
            head: Vec::new(),
            admitted: false,
            window: None,
        })
    }

    /// Waits until there is memory for the frame that `input` begins or goes on with.
    fn admit(&mut self, input: &[u8], windows: &Windows, wait: bool) -> std::io::Result<()> {
        if self.admitted || input.is_empty() {
            return Ok(());
        }
        let begins = self.head.is_empty();
        let mut head = self.head.clone();
        head.extend(input.iter().take(LONGEST_HEAD));
        let wanted = window(&head);
        let held = |window: &Window| wanted.is_some_and(|wanted| window.holds(wanted));
        if begins && !self.window.as_ref().is_some_and(held) {
            // The decoder keeps its window from frame to frame, and nobody waits with one in hand.
            self.decoder = Zstd::new()?;
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

    /// Takes some of `input` and gives some bytes into `out`: how many of each.
    fn run(&mut self, input: &[u8], out: &mut [u8]) -> std::io::Result<(usize, usize)> {
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

/// The decompressed bytes of one raw object.
pub(super) struct Inflow<'a> {
    pieces: &'a mut dyn Pieces,
    memory: &'a DecodeMemory,
    /// Decompressed bytes that are wanted at most.
    most: u64,
    sha256: Sha256,
    stored: u64,
    /// Stored bytes that nothing was made of.
    lost: u64,
    /// What is left of the last piece.
    piece: Bytes,
    /// The stored bytes that the codec is fed with, and how many of them it took.
    block: Vec<u8>,
    taken: usize,
    /// Where the block's first byte lies among the stored bytes.
    block_at: u64,
    ended: bool,
    codec: Option<Codec>,
    may_wait: bool,
}

impl<'a> Inflow<'a> {
    /// `most` bounds what is inflated at once: whoever wants no more stops there.
    pub fn new(pieces: &'a mut dyn Pieces, memory: &'a DecodeMemory, most: u64) -> Self {
        Self {
            pieces,
            memory,
            most,
            sha256: Sha256::new(),
            stored: 0,
            lost: 0,
            piece: Bytes::new(),
            block: Vec::new(),
            taken: 0,
            block_at: 0,
            ended: false,
            codec: None,
            may_wait: true,
        }
    }

    /// Whether a decoder may wait for its window: not while memory for a long record is held.
    pub fn may_wait(&mut self, may_wait: bool) {
        self.may_wait = may_wait;
    }

    /// Appends some decompressed bytes to `out`.
    pub fn fill(&mut self, out: &mut Buffer) -> Result<Flow, PieceError> {
        let mut codec = match self.codec.take() {
            Some(codec) => codec,
            None => {
                self.join_pieces(SNIFFED)?;
                match sniff(self.piece.get(..SNIFFED).unwrap_or(&self.piece)) {
                    Ok(Codec::GzipHead { .. }) => Codec::GzipHead {
                        members: self.at_once(out)?.into(),
                    },
                    Ok(codec) => codec,
                    Err(error) => return self.broken(0, error.to_string()),
                }
            }
        };
        let flow = self.step(&mut codec, out)?;
        self.codec = Some(codec);
        Ok(flow)
    }

    /// Reads what is left, so that the hash is that of the whole object: SHA-256, bytes, and how many
    /// of them were lost.
    pub fn finish(mut self) -> Result<([u8; 32], u64, u64), PieceError> {
        while self.next_piece()? {}
        Ok((self.sha256.finalize().into(), self.stored, self.lost))
    }

    /// What the decompressed bytes come out of; `None` where they are the stored ones.
    pub fn codec(&self) -> Option<&'static str> {
        match self.codec {
            None | Some(Codec::None) => None,
            Some(Codec::GzipHead { .. } | Codec::Gzip { .. }) => Some("gzip"),
            Some(Codec::Zstd(_)) => Some("zstd"),
        }
    }

    /// All of the object is lost: its stored bytes.
    pub fn lose_all(&mut self) -> Result<u64, PieceError> {
        self.lose(0)?;
        Ok(self.stored)
    }

    /// No more is wanted, and not the last `excess` bytes that were given either. In words what is lost.
    pub fn stop(&mut self, excess: u64) -> Result<String, PieceError> {
        let excess = match self.codec() {
            None => excess,
            Some(_) => 0,
        };
        let at = self.at();
        self.lose(at - excess.min(at))
    }

    /// Where the codec stands among the stored bytes.
    fn at(&self) -> u64 {
        self.block_at + self.taken as u64
    }

    /// Nothing can be made of what is stored from `from` on. In words what is lost.
    fn lose(&mut self, from: u64) -> Result<String, PieceError> {
        while self.next_piece()? {}
        self.lost = self.stored.saturating_sub(from);
        Ok(match self.lost {
            0 => String::new(),
            lost => format!("; {lost} of {} stored bytes are lost", self.stored),
        })
    }

    /// What is stored from `from` on cannot be decompressed.
    fn broken(&mut self, from: u64, why: String) -> Result<Flow, PieceError> {
        let lost = self.lose(from)?;
        Ok(Flow::Broken(why + &lost))
    }

    fn next_piece(&mut self) -> Result<bool, PieceError> {
        if self.ended {
            return Ok(false);
        }
        match self.pieces.next()? {
            Some(piece) => {
                self.sha256.update(&piece);
                self.stored += piece.len() as u64;
                self.piece = piece;
                Ok(true)
            }
            None => {
                self.ended = true;
                Ok(false)
            }
        }
    }

    /// Makes one piece, so long or longer, of what is left; it is shorter only at the end.
    fn join_pieces(&mut self, least: usize) -> Result<(), PieceError> {
        let mut joined = std::mem::take(&mut self.piece);
        while joined.len() < least && self.next_piece()? {
            let piece = std::mem::take(&mut self.piece);
            joined = match joined.is_empty() {
                true => piece,
                false => {
                    let mut longer = Vec::from(joined);
                    longer.extend_from_slice(&piece);
                    longer.into()
                }
            };
        }
        self.piece = joined;
        Ok(())
    }

    /// Replaces a block that was taken by the next one.
    fn refill(&mut self) -> Result<(), PieceError> {
        self.block_at += self.block.len() as u64;
        self.block.clear();
        self.taken = 0;
        while self.block.len() < BLOCK {
            if self.piece.is_empty() {
                if !self.next_piece()? {
                    break;
                }
                continue;
            }
            let count = self.piece.len().min(BLOCK - self.block.len());
            self.block
                .extend_from_slice(self.piece.get(..count).unwrap_or_default());
            self.piece.advance(count);
        }
        Ok(())
    }

    /// Appends all decompressed bytes if the object is a single gzip member; if not, or if that is
    /// not certain, all is as before and the answer is false.
    fn at_once(&mut self, out: &mut Buffer) -> Result<bool, PieceError> {
        let most = self.memory.at_once / PACKED;
        self.join_pieces(most + 1)?;
        // The end is known when it was asked for.
        let ended = self.piece.len() <= most;
        let wanted = usize::try_from(self.most).unwrap_or(usize::MAX);
        let at_once = self.memory.at_once.min(wanted);
        let done = ended && inflate(&self.piece, at_once, out);
        if done {
            self.block_at = self.piece.len() as u64;
            self.piece.clear();
        }
        Ok(done)
    }

    fn step(&mut self, codec: &mut Codec, out: &mut Buffer) -> Result<Flow, PieceError> {
        if self.taken == self.block.len() && !matches!(codec, Codec::None) {
            self.refill()?;
        }
        let input = self.block.get(self.taken..).unwrap_or_default();
        match codec {
            Codec::None => {
                out.extend(input);
                self.refill()?;
                Ok(if self.block.is_empty() {
                    Flow::End
                } else {
                    Flow::More
                })
            }
            Codec::GzipHead { members } => {
                let members = *members;
                let blank = blank(input);
                self.taken += blank;
                let rest = input.get(blank..).unwrap_or_default();
                match rest.first() {
                    None if input.is_empty() => return Ok(Flow::End),
                    None => return Ok(Flow::More),
                    Some(first) if *first == GZIP[0] => {}
                    Some(_) => {
                        let found = follows(rest);
                        let why = format!("{found} after gzip member {members}, not a gzip member");
                        return self.broken(self.at(), why);
                    }
                }
                *codec = Codec::Gzip {
                    inflate: Decompress::new_gzip(15),
                    members: members + 1,
                    begun: self.at(),
                };
                Ok(Flow::More)
            }
            Codec::Gzip {
                inflate,
                members,
                begun,
            } => {
                // Without input there may still be output inside the decoder.
                let (read, written) = (inflate.total_in(), inflate.total_out());
                let last = input.is_empty();
                let result = inflate.decompress(input, out.room(WINDOW), FlushDecompress::None);
                self.taken += (inflate.total_in() - read) as usize;
                let written = (inflate.total_out() - written) as usize;
                out.fill(written);
                let why = match result {
                    Ok(Status::StreamEnd) => {
                        *codec = Codec::GzipHead { members: *members };
                        return Ok(Flow::More);
                    }
                    Ok(_) if last && written == 0 => format!("gzip member {members} is cut off"),
                    Ok(_) => return Ok(Flow::More),
                    Err(error) => format!("gzip member {members}: {error}"),
                };
                let whole = inflate.total_out() == 0 || checksum(&why);
                let from = if whole { *begun } else { self.at() };
                self.broken(from, why)
            }
            Codec::Zstd(frames) => {
                if !frames.open {
                    let blank = blank(input);
                    self.taken += blank;
                    let rest = input.get(blank..).unwrap_or_default();
                    if rest.is_empty() {
                        return Ok(if input.is_empty() {
                            Flow::End
                        } else {
                            Flow::More
                        });
                    }
                    if rest.len() >= ZSTD.len() && !begins_frame(rest) {
                        let (found, frames) = (follows(rest), frames.frames);
                        let why = format!("{found} after zstd frame {frames}, not a zstd frame");
                        return self.broken(self.at(), why);
                    }
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
    }
}

/// How many white space characters and zeros `input` begins with.
fn blank(input: &[u8]) -> usize {
    let blank = |byte: &&u8| matches!(**byte, 0 | b' ' | b'\t' | b'\r' | b'\n');
    input.iter().take_while(blank).count()
}

/// What stands where a member or frame should begin.
fn follows(rest: &[u8]) -> String {
    match kind::of(rest) {
        Some(kind) => format!("data that is {kind}"),
        None if std::str::from_utf8(rest.get(..16).unwrap_or(rest)).is_ok() => {
            "plain text".to_owned()
        }
        None => "other bytes".to_owned(),
    }
}

fn begins_frame(rest: &[u8]) -> bool {
    rest.starts_with(&ZSTD)
        || matches!(rest, [0x50..=0x5F, rest @ ..] if rest.starts_with(&SKIPPABLE))
}

/// Whether all that was decompressed may be wrong.
fn checksum(error: &str) -> bool {
    CHECKSUMS.iter().any(|known| error.ends_with(known))
}

/// What begins so; an object that was cut off within a magic number is no JSON either. No record begins
/// with white space or zeros and then one of these numbers.
fn sniff(bytes: &[u8]) -> std::io::Result<Codec> {
    let bytes = bytes.get(blank(bytes)..).unwrap_or_default();
    if bytes.starts_with(&GZIP) || bytes == [0x1F] {
        Ok(Codec::GzipHead { members: 0 })
    } else if begins_frame(bytes) || (bytes.len() > 1 && ZSTD.starts_with(bytes)) {
        Ok(Codec::Zstd(Frames::new()?))
    } else {
        Ok(Codec::None)
    }
}

/// The most bytes that say how large a frame's window is.
const LONGEST_HEAD: usize = 18;

/// The window of the zstd frame that begins with `head`; `None` while that is too short to tell.
fn window(head: &[u8]) -> Option<u64> {
    let (magic, rest) = head.split_first_chunk::<4>()?;
    if *magic != ZSTD {
        // To be skipped, or no frame at all.
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
    // A frame that is shorter than its window needs no larger one.
    let content = match flags >> 6 {
        0 if single => u64::from(*rest.first()?),
        0 => u64::MAX,
        1 => u64::from(u16::from_le_bytes(*rest.first_chunk()?)) + 256,
        2 => u64::from(u32::from_le_bytes(*rest.first_chunk()?)),
        _ => u64::from_le_bytes(*rest.first_chunk()?),
    };
    Some(window.min(content))
}

/// Appends what `stored` inflates to; false, and nothing, unless it is certainly one gzip member and
/// nothing else, of no more than `at_once` bytes.
///
/// The inflater does not say where the member ended, but it checks that the length of what it made
/// stands there, after the CRC. If that length is the last four bytes of `stored`, and those four
/// stand nowhere else in it, the member ended at its end.
fn inflate(stored: &[u8], at_once: usize, out: &mut Buffer) -> bool {
    let (Some(flags), Some((_, trailer))) = (stored.get(3), stored.split_last_chunk::<4>()) else {
        return false;
    };
    let most = stored.len() - 1;
    let length = u32::from_le_bytes(*trailer) as usize;
    // The second flag is a CRC of the header, which this inflater does not check; the last three
    // have no meaning.
    if flags & 0xE2 != 0
        || length > at_once.min(most.saturating_mul(EXPANSION))
        || memmem::find(stored.get(..most).unwrap_or_default(), trailer).is_some()
    {
        return false;
    }
    let whole = Decompressor::new().gzip_decompress(stored, out.room(length)) == Ok(length);
    if whole {
        out.fill(length);
    }
    whole
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, GzBuilder, write::GzEncoder};
    use rand::{Rng, RngCore, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const AT_ONCE: usize = 64 << 20;

    struct Cut<'a>(std::slice::Chunks<'a, u8>);

    impl Pieces for Cut<'_> {
        fn next(&mut self) -> Result<Option<Bytes>, PieceError> {
            Ok(self.0.next().map(Bytes::copy_from_slice))
        }
    }

    /// What an object decompresses to and how that ends, its hash, its length, and how much was lost.
    type Outcome = (Vec<u8>, Flow, [u8; 32], u64, u64);

    fn outcome(stored: &[u8], piece: usize, streaming: bool) -> Outcome {
        outcome_within(&DecodeMemory::new(2 * AT_ONCE, 1), stored, piece, streaming)
    }

    fn outcome_within(
        memory: &DecodeMemory,
        stored: &[u8],
        piece: usize,
        streaming: bool,
    ) -> Outcome {
        let mut pieces = Cut(stored.chunks(piece));
        let mut inflow = Inflow::new(&mut pieces, memory, u64::MAX);
        if streaming {
            inflow.codec = Some(Codec::GzipHead { members: 0 });
        }
        let mut out = Buffer::default();
        let flow = loop {
            match inflow.fill(&mut out).unwrap() {
                Flow::More => {}
                flow => break flow,
            }
        };
        let (sha256, bytes, lost) = inflow.finish().unwrap();
        (out.to_vec(), flow, sha256, bytes, lost)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn at_once_or_not_is_the_same() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let lines = |count: u64| -> Vec<u8> {
            (0..count)
                .flat_map(|i| {
                    format!("{{\"id\":\"{:016x}\"}}\n", i.wrapping_mul(i << 40 | 77)).into_bytes()
                })
                .collect()
        };
        let (a, b) = (gzip(&lines(3_000)), gzip(&lines(5)));
        let trailer = a.last_chunk::<8>().unwrap().as_slice();
        let named = GzBuilder::new()
            .filename("events.json")
            .comment("c")
            .extra(vec![1, 2, 3])
            .write(Vec::new(), Compression::fast());
        let named = {
            let mut named = named;
            named.write_all(&lines(3_000)).unwrap();
            named.finish().unwrap()
        };
        // A CRC of the header that is wrong.
        let mut checked = a.clone();
        checked[3] = 2;
        checked.splice(10..10, [9, 9]);
        let mut noise = vec![0; AT_ONCE / PACKED + 1];
        rng.fill_bytes(&mut noise);
        let noise = gzip(&noise);
        let bomb = gzip(&vec![b' '; AT_ONCE + 1]);
        let cut = &a[..a.len() - 9];
        let mut lies = a.clone();
        let end = lies.len();
        lies[end - 2] = 0;
        for (name, stored, at_once) in [
            ("one", a.clone(), true),
            ("named", named, true),
            ("the same twice", [&a[..], &a].concat(), false),
            ("two", [&a[..], &b].concat(), false),
            ("zeros after it", [&a[..], &[0; 20]].concat(), false),
            ("garbage after it", [&a[..], b"garbage"].concat(), false),
            ("its trailer twice", [&a[..], trailer].concat(), false),
            ("a wrong CRC of the header", checked, false),
            ("cut off", cut.to_vec(), false),
            ("another length", lies, false),
            ("the magic number", GZIP.to_vec(), false),
            ("larger than is held", noise, false),
            ("more than is held", bomb, false),
        ] {
            assert_eq!(
                inflate(&stored, AT_ONCE, &mut Buffer::default())
                    && stored.len() <= AT_ONCE / PACKED,
                at_once,
                "{name}"
            );
            let expected = outcome(&stored, usize::MAX, true);
            for piece in [usize::MAX, 1 << 20, 65_537] {
                assert!(outcome(&stored, piece, false) == expected, "{name}");
            }
            for memory in [0, 1_000, 100_000] {
                let memory = DecodeMemory::new(memory, 2);
                let found = outcome_within(&memory, &stored, 1 << 20, false);
                assert!(found == expected, "{name} within {memory:?}");
            }
        }
        for _ in 0..300 {
            let mut broken = if rng.random() { a.clone() } else { b.clone() };
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(2..broken.len());
                match rng.random_range(0..4) {
                    0 => broken.truncate(at.max(3)),
                    1 => broken[at] = rng.random(),
                    2 => broken.insert(at, rng.random()),
                    _ => broken[at] ^= 1 << rng.random_range(0..8),
                }
            }
            let piece = rng.random_range(1..5_000);
            assert!(outcome(&broken, piece, false) == outcome(&broken, usize::MAX, true));
        }
    }

    /// A frame whose header asks for a window of `2^log` bytes.
    fn frame(bytes: &[u8], log: u32) -> Vec<u8> {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        // In two writes, so that its length is not known to the header.
        encoder.write_all(&bytes[..1]).unwrap();
        encoder.flush().unwrap();
        encoder.write_all(&bytes[1..]).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn windows_are_read_from_heads() {
        let bytes = vec![b'x'; 300_000];
        for log in [10, 19, 27] {
            let frame = frame(&bytes, log);
            assert_eq!(window(&frame), Some(1 << log));
            assert_eq!(window(&frame[..5]), None);
            assert_eq!(window(&frame[..6]), Some(1 << log));
        }
        for length in [0, 1, 255, 256, 300, 65_791, 65_792, 300_000] {
            let mut frame = zstd::bulk::compress(&bytes[..length], 1).unwrap();
            assert_eq!(window(&frame), Some(length as u64), "{length}");
            for short in 0..5 {
                assert_eq!(window(&frame[..short]), None);
            }
            frame[0] ^= 1;
            assert_eq!(window(&frame), Some(0));
        }
        // 1.75 * 2^20, then a dictionary, then a length of four and of eight bytes.
        let head = |flags: u8, rest: &[u8]| [&ZSTD[..], &[flags], rest].concat();
        assert_eq!(window(&head(0x00, &[0x56])), Some(7 << 18));
        assert_eq!(
            window(&head(0x83, &[0x56, 1, 2, 3, 4, 9, 0, 0, 0])),
            Some(9)
        );
        assert_eq!(window(&head(0x83, &[0x56, 1, 2, 3, 4, 9, 0, 0])), None);
        let long = [0xFF; 8];
        assert_eq!(
            window(&head(0xC0, &[&[0x50][..], &long].concat())),
            Some(1 << 20)
        );
        assert_eq!(window(&head(0xE0, &long)), Some(u64::MAX));
    }

    #[test]
    fn frames_are_the_same_however_many_wait() {
        let text = |seed: u64, length: usize| -> Vec<u8> {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            (0..length).map(|_| b'a' + rng.random_range(0..6)).collect()
        };
        let skipped = [&[0x50, 0x2A, 0x4D, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let objects: Vec<(Vec<u8>, Vec<u8>)> = (0..12)
            .map(|i| {
                let (a, b, c) = (text(i, 90_000), text(i + 50, 9), text(i + 99, 200_000));
                let mut stored = frame(&a, 17 + i as u32 % 5);
                stored.extend(frame(&b, 20));
                stored.extend(&skipped);
                // The next head lies across two blocks.
                let pad = 2 * BLOCK - 8 - (stored.len() + 3 + i as usize) % BLOCK;
                stored.extend([0x51, 0x2A, 0x4D, 0x18]);
                stored.extend((pad as u32).to_le_bytes());
                stored.extend(vec![7; pad]);
                assert_eq!((stored.len() + 3 + i as usize) % BLOCK, 0);
                stored.extend(frame(&c, 21 - i as u32 % 5));
                (stored, [a, b, c].concat())
            })
            .collect();
        for share in [0, 1 << 18, 1 << 21, 1 << 24] {
            let memory = DecodeMemory::new(2 * share, 4);
            std::thread::scope(|scope| {
                for (i, (stored, plain)) in objects.iter().enumerate() {
                    let memory = &memory;
                    scope.spawn(move || {
                        let (out, flow, ..) = outcome_within(memory, stored, 7_777 + i, false);
                        assert_eq!(flow, Flow::End, "{i} within {share}");
                        assert!(out == *plain, "{i} within {share}");
                        let cut = &stored[..stored.len() - 40];
                        let (out, flow, ..) = outcome_within(memory, cut, 100_000, false);
                        assert_eq!(flow, Flow::Broken("the zstd frame is cut off".into()));
                        assert!(plain.starts_with(&out));
                    });
                }
            });
        }
    }
}
