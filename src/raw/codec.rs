//! Stored bytes in, decompressed bytes out. The bytes decide about the codec, not the name of the object.
//!
//! ```text
//! Pieces ──▶ sha256 ──▶ blocks of 64 KiB ──▶ none | streams | zstd frames | UTF-16 ──▶ Buffer
//!                              ▲                                                        │
//!                              └─────── where the first bytes show another codec ◀──────┘
//! ```
//!
//! Codecs are fed in blocks that do not depend on how the bytes arrived. The number of bytes that a decompressor
//! yields before it finds an error depends on its input blocks, and the records of a raw object must not depend on how
//! its bytes arrived.
//!
//! Most raw objects are one gzip member of a few megabytes. Such an object is inflated at once, which is
//! about three times as fast. An object that is not certainly such a member, or that is larger than the memory
//! allows, is read in blocks from its first byte. Both ways yield the same bytes.
//!
//! The first decompressed bytes are looked at as the stored ones are: Firehose compresses once more what a subscription of
//! CloudWatch Logs has compressed. Up to four codecs may lie inside each other.
//!
//! Between gzip members, and between streams of the other codecs, white space and zeros are skipped: shippers put a line
//! feed behind each batch that they compress, and tapes and block devices pad with zeros. The stored bytes behind
//! the place where decompression breaks off are counted as lost. All bytes of a member or frame
//! whose checksum is wrong are counted as lost too, because nobody knows which of them are right. Where codecs lie inside
//! each other, the lost share of the inner bytes is a share of the stored bytes.
//!
//! A zstd frame says how large its window is. Memory for the window is taken from a share of all decoders before the
//! decoder allocates it.

mod lz4;
mod snappy;
mod streams;
mod unpack;
mod utf16;
mod zip;
mod zstd_frames;

use bytes::{Buf, Bytes};
use sha2::{Digest, Sha256};

use super::buffer::Buffer;
use super::kind;
use super::memory::DecodeMemory;
use super::{PieceError, Pieces};
use lz4::LZ4;
use snappy::SNAPPY;
use streams::{GZIP, Kind, PACKED, Streams, inflate};
use utf16::Utf16;
use zstd_frames::{Frames, ZSTD, begins_frame};

/// How many stored bytes a codec is fed with at once.
const BLOCK: usize = 64 << 10;
/// How many decompressed bytes are asked for at once.
const WINDOW: usize = 128 << 10;

/// How many stored bytes decide about the codec.
const SNIFFED: usize = 512;

/// How many codecs may lie inside each other.
const MOST_LEVELS: u8 = 4;

/// The messages of zlib and zstd about a wrong checksum.
const CHECKSUMS: [&str; 3] = [
    "incorrect data check",
    "incorrect length check",
    "Restored data doesn't match checksum",
];

/// Where decompression stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Flow {
    /// More bytes may come.
    More,
    /// The object has ended, and it was whole.
    End,
    /// The following bytes cannot be decompressed.
    Broken(String),
}

/// The codec of an object, and how far it has come.
enum Codec {
    /// The stored bytes are the decompressed bytes.
    None,
    /// Streams that follow each other.
    Streams(Streams),
    /// Zstd frames.
    Zstd(Frames),
    /// A text in UTF-16.
    Utf16(Utf16),
}

/// The bytes that a codec is fed with.
enum Below<'a> {
    /// The stored bytes, and their hash where it is wanted.
    Pieces(&'a mut dyn Pieces, Option<Sha256>),
    /// The bytes that another codec gives.
    Level(Box<Inflow<'a>>),
    /// No bytes. This is only so while a codec is put above another.
    Nothing,
}

/// The decompressed bytes of one raw object. "Stored" are here the bytes that this codec is fed with.
pub(super) struct Inflow<'a> {
    below: Below<'a>,
    memory: &'a DecodeMemory,
    /// The most decompressed bytes that are wanted.
    most: u64,
    /// How many stored bytes have arrived.
    stored: u64,
    /// How many stored bytes were lost.
    lost: u64,
    /// The rest of the last piece.
    piece: Bytes,
    /// The stored bytes that the codec is fed with.
    block: Vec<u8>,
    /// How many bytes of the block the codec has taken.
    taken: usize,
    /// The place of the block's first byte, counted in stored bytes.
    block_at: u64,
    ended: bool,
    codec: Option<Codec>,
    may_wait: bool,
    /// How many codecs lie below this one.
    level: u8,
    /// Whether the first decompressed bytes may show another codec.
    probing: bool,
    /// How the decompressed bytes have ended.
    last: Option<Flow>,
}

impl<'a> Inflow<'a> {
    /// The decompressed bytes of `pieces`. The caller stops after `most` of them, so no more are inflated at once.
    pub fn new(pieces: &'a mut dyn Pieces, memory: &'a DecodeMemory, most: u64) -> Self {
        let below = Below::Pieces(pieces, Some(Sha256::new()));
        Self::over(below, memory, most)
    }

    /// The decompressed bytes of a text inside an envelope. Their hash is not wanted. A decoder of such a text never waits
    /// for memory, because the decoder of the raw object may hold some.
    pub fn inside(pieces: &'a mut dyn Pieces, memory: &'a DecodeMemory, most: u64) -> Self {
        Self {
            may_wait: false,
            ..Self::over(Below::Pieces(pieces, None), memory, most)
        }
    }

    fn over(below: Below<'a>, memory: &'a DecodeMemory, most: u64) -> Self {
        Self {
            below,
            memory,
            most,
            stored: 0,
            lost: 0,
            piece: Bytes::new(),
            block: Vec::new(),
            taken: 0,
            block_at: 0,
            ended: false,
            codec: None,
            may_wait: true,
            level: 0,
            probing: false,
            last: None,
        }
    }

    /// Says whether a decoder may wait for memory for its window. It must not wait while memory for a long record is
    /// held, nor while a codec inside or outside of it may hold a window.
    pub fn may_wait(&mut self, may_wait: bool) {
        self.may_wait = may_wait && self.level == 0;
    }

    /// Appends some decompressed bytes to `out`. Before the first call, `out` is empty.
    ///
    /// # Errors
    /// `pieces` fails. A damaged object is [`Flow::Broken`].
    pub fn fill(&mut self, out: &mut Buffer) -> Result<Flow, PieceError> {
        Ok(match self.advance(out)? {
            Flow::Broken(why) => Flow::Broken(why + &self.words()),
            flow => flow,
        })
    }

    /// Appends some decompressed bytes to `out`.
    fn advance(&mut self, out: &mut Buffer) -> Result<Flow, PieceError> {
        let mut codec = match self.codec.take() {
            Some(codec) => codec,
            None => {
                self.join_pieces(SNIFFED)?;
                let codec = match sniff(self.piece.get(..SNIFFED).unwrap_or(&self.piece)) {
                    Ok(codec) => codec,
                    Err(error) => return self.broken(0, error.to_string()),
                };
                let compressed = matches!(codec, Codec::Streams(_) | Codec::Zstd(_));
                self.probing = compressed && self.level + 1 < MOST_LEVELS;
                match codec {
                    Codec::Streams(streams) if streams.kind == Kind::Gzip && self.level == 0 => {
                        Codec::Streams(Streams::after(Kind::Gzip, self.at_once(out)?))
                    }
                    codec => codec,
                }
            }
        };
        let mut flow = self.step(&mut codec, out)?;
        self.codec = Some(codec);
        // The end of the bytes below is an end only if they have ended as they should.
        if flow != Flow::More
            && let Below::Level(lower) = &self.below
            && let Some(Flow::Broken(why)) = &lower.last
        {
            flow = Flow::Broken(why.clone());
        }
        if self.probing && (out.len() >= SNIFFED || flow != Flow::More) {
            return self.look_inside(flow, out);
        }
        Ok(flow)
    }

    /// Puts another codec above this one, where the first decompressed bytes, which `out` holds, show one.
    #[cold]
    fn look_inside(&mut self, flow: Flow, out: &mut Buffer) -> Result<Flow, PieceError> {
        self.probing = false;
        match sniff(out.get(..SNIFFED).unwrap_or(out)) {
            Ok(Codec::None) => return Ok(flow),
            Ok(_) => {}
            Err(error) => return self.broken(0, error.to_string()),
        }
        let mut upper = Self::over(Below::Nothing, self.memory, self.most);
        upper.level = self.level + 1;
        upper.may_wait = false;
        upper.piece = Bytes::copy_from_slice(out);
        upper.stored = out.len() as u64;
        out.truncate(0);
        let mut lower = std::mem::replace(self, upper);
        lower.may_wait = false;
        lower.last = (flow != Flow::More).then_some(flow);
        self.below = Below::Level(Box::new(lower));
        Ok(Flow::More)
    }

    /// The next decompressed bytes; `None` at their end.
    fn decompressed(&mut self) -> Result<Option<Bytes>, PieceError> {
        let mut out = Buffer::default();
        while self.last.is_none() && out.is_empty() {
            let flow = self.advance(&mut out)?;
            self.last = (flow != Flow::More).then_some(flow);
        }
        Ok((!out.is_empty()).then(|| Bytes::copy_from_slice(&out)))
    }

    /// Reads the rest of the object. The result is the SHA-256 and the number of all stored bytes of the raw object, and
    /// how many of them were lost.
    pub fn finish(mut self) -> Result<([u8; 32], u64, u64), PieceError> {
        while self.next_piece()? {}
        let (own, stored) = (self.lost, self.stored);
        match self.below {
            Below::Pieces(_, sha256) => {
                let sha256 = sha256.map(|sha256| sha256.finalize().into());
                Ok((sha256.unwrap_or_default(), stored, own))
            }
            Below::Level(lower) => {
                let (sha256, bytes, lost) = lower.finish()?;
                Ok((sha256, bytes, lost + share(bytes - lost, own, stored)))
            }
            Below::Nothing => Ok(([0; 32], 0, 0)),
        }
    }

    /// How many stored bytes of the raw object are lost, and how many there are.
    fn lost_of_all(&self) -> (u64, u64) {
        match &self.below {
            Below::Pieces(..) => (self.lost, self.stored),
            Below::Level(lower) => {
                let (lost, all) = lower.lost_of_all();
                (lost + share(all - lost, self.lost, self.stored), all)
            }
            Below::Nothing => (0, 0),
        }
    }

    /// The words that say how many stored bytes of the raw object are lost.
    fn words(&self) -> String {
        match self.lost_of_all() {
            (0, _) => String::new(),
            (lost, all) => format!("; {lost} of {all} stored bytes are lost"),
        }
    }

    /// The name of the codec, and of the codecs around it. `None` where the stored bytes are not compressed.
    pub fn codec(&self) -> Option<String> {
        let own = match &self.codec {
            None | Some(Codec::None) => return None,
            Some(Codec::Streams(streams)) => streams.kind.name(),
            Some(Codec::Zstd(_)) => "zstd",
            Some(Codec::Utf16(_)) => "UTF-16",
        };
        Some(match &self.below {
            Below::Level(lower) => {
                let outer = lower.codec().unwrap_or_default();
                format!("{own} inside {outer}")
            }
            _ => own.to_owned(),
        })
    }

    /// Counts all stored bytes as lost, and returns the number of those of the raw object.
    pub fn lose_all(&mut self) -> Result<u64, PieceError> {
        self.lose(0)?;
        let (_, all) = self.lost_of_all();
        Ok(all)
    }

    /// Stops reading. The last `excess` bytes that were given are not wanted either. The result says in words how many
    /// stored bytes are lost.
    pub fn stop(&mut self, excess: u64) -> Result<String, PieceError> {
        let excess = match self.codec {
            None | Some(Codec::None) => excess,
            Some(_) => 0,
        };
        let at = self.at();
        self.lose(at - excess.min(at))?;
        Ok(self.words())
    }

    /// The place of the codec, counted in stored bytes.
    fn at(&self) -> u64 {
        self.block_at + self.taken as u64
    }

    /// Counts the stored bytes from `from` on as lost.
    fn lose(&mut self, from: u64) -> Result<(), PieceError> {
        while self.next_piece()? {}
        self.lost = self.stored.saturating_sub(from);
        Ok(())
    }

    /// Ends the object, because the stored bytes from `from` on cannot be decompressed.
    fn broken(&mut self, from: u64, why: String) -> Result<Flow, PieceError> {
        self.lose(from)?;
        Ok(Flow::Broken(why))
    }

    /// Fetches the next piece; `false` at the end.
    fn next_piece(&mut self) -> Result<bool, PieceError> {
        if self.ended {
            return Ok(false);
        }
        let piece = match &mut self.below {
            Below::Pieces(pieces, sha256) => {
                let piece = pieces.next()?;
                if let (Some(piece), Some(sha256)) = (&piece, sha256) {
                    sha256.update(piece);
                }
                piece
            }
            // A codec inside another is fed with no more bytes than an object may have.
            Below::Level(lower) if self.stored > self.most => {
                let why = format!("more than {} decompressed bytes", self.most);
                lower.last = Some(lower.broken(lower.at(), why)?);
                None
            }
            Below::Level(lower) => lower.decompressed()?,
            Below::Nothing => None,
        };
        match piece {
            Some(piece) => {
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

    /// Joins pieces to one of at least `least` bytes. At the end of the object it may be shorter.
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

    /// Replaces a block that the codec has taken by the next block.
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

    /// Appends all decompressed bytes where the object is certainly a single gzip member. Where it is not, nothing
    /// changes and the result is false.
    fn at_once(&mut self, out: &mut Buffer) -> Result<bool, PieceError> {
        let most = self.memory.at_once / PACKED;
        self.join_pieces(most + 1)?;
        // A shorter piece means that the object has ended.
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

    /// The bytes of the block that the codec has not taken.
    fn input(&self) -> &[u8] {
        self.block.get(self.taken..).unwrap_or_default()
    }

    /// Appends the next decompressed bytes.
    fn step(&mut self, codec: &mut Codec, out: &mut Buffer) -> Result<Flow, PieceError> {
        if self.taken == self.block.len() && !matches!(codec, Codec::None) {
            self.refill()?;
        }
        match codec {
            Codec::None => {
                out.extend(self.input());
                self.refill()?;
                Ok(if self.block.is_empty() {
                    Flow::End
                } else {
                    Flow::More
                })
            }
            Codec::Streams(streams) => self.unpack(streams, out),
            Codec::Utf16(text) => {
                let input = self.block.get(self.taken..).unwrap_or_default();
                let (read, ended) = text.run(input, out);
                self.taken += read;
                match ended {
                    false => Ok(Flow::More),
                    true if text.is_cut() => {
                        let why = "the UTF-16 text is cut off inside a character";
                        self.broken(self.at(), why.to_owned())
                    }
                    true => Ok(Flow::End),
                }
            }
            Codec::Zstd(frames) => self.unpack_zstd(frames, out),
        }
    }
}

/// How many white space characters and zeros `input` begins with.
fn blank(input: &[u8]) -> usize {
    let blank = |byte: &&u8| matches!(**byte, 0 | b' ' | b'\t' | b'\r' | b'\n');
    input.iter().take_while(blank).count()
}

/// Names the bytes that stand where a member or frame should begin.
fn follows(rest: &[u8]) -> String {
    match kind::of(rest) {
        Some(kind) => format!("data that is {kind}"),
        None if std::str::from_utf8(rest.get(..16).unwrap_or(rest)).is_ok() => {
            "plain text".to_owned()
        }
        None => "other bytes".to_owned(),
    }
}

/// Whether an error is about a checksum, so that all decompressed bytes may be wrong.
fn checksum(error: &str) -> bool {
    CHECKSUMS.iter().any(|known| error.ends_with(known))
}

/// The part of `bytes` that is as large as `part` of `whole`.
fn share(bytes: u64, part: u64, whole: u64) -> u64 {
    let share = (u128::from(bytes) * u128::from(part)).checked_div(u128::from(whole));
    share.and_then(|n| n.try_into().ok()).unwrap_or(0)
}

/// The codec of an object that begins with these bytes. Bytes that end within the magic number of gzip or zstd count as
/// it, because they are no JSON either. No record begins with white space or zeros and then a magic number. A codec
/// without a magic number is taken only if its bytes are no text and decompress.
fn sniff(bytes: &[u8]) -> std::io::Result<Codec> {
    let streams = |kind| Ok(Codec::Streams(Streams::new(kind)));
    let rest = bytes.get(blank(bytes)..).unwrap_or_default();
    match rest.first() {
        _ if kind::hadoop_snappy(bytes) => return streams(Kind::HadoopSnappy),
        None => return Ok(Codec::None),
        Some(b'{' | b'[') if rest.len() == bytes.len() || kind::plain(bytes) => {
            return Ok(Codec::None);
        }
        _ => {}
    }
    if let Some(text) = Utf16::of(bytes) {
        return Ok(Codec::Utf16(text));
    }
    match rest {
        _ if rest.starts_with(&GZIP) || rest == [0x1F] => streams(Kind::Gzip),
        _ if begins_frame(rest) || (rest.len() > 1 && ZSTD.starts_with(rest)) => {
            Ok(Codec::Zstd(Frames::new()?))
        }
        _ if kind::bzip2(rest) => streams(Kind::Bzip2),
        _ if rest.starts_with(b"\xFD7zXZ\0") => streams(Kind::Xz),
        _ if rest.starts_with(&LZ4) => streams(Kind::Lz4),
        _ if rest.starts_with(&SNAPPY) => streams(Kind::Snappy),
        _ if rest.starts_with(&zip::ENTRY) || rest.starts_with(&zip::END) => streams(Kind::Zip),
        _ if kind::zlib(rest) => streams(Kind::Zlib),
        _ if kind::deflate(bytes) => streams(Kind::Deflate),
        _ => Ok(Codec::None),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, GzBuilder, write::GzEncoder};
    use rand::{Rng, RngCore, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::zstd_frames::window;
    use super::*;

    const AT_ONCE: usize = 64 << 20;

    struct Cut<'a>(std::slice::Chunks<'a, u8>);

    impl Pieces for Cut<'_> {
        fn next(&mut self) -> Result<Option<Bytes>, PieceError> {
            Ok(self.0.next().map(Bytes::copy_from_slice))
        }
    }

    /// The decompressed bytes of an object and how they end, its hash, its length, and how much was lost.
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
            inflow.codec = Some(Codec::Streams(Streams::new(Kind::Gzip)));
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
        // The bytes are written in two parts, so the header does not know their length.
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
