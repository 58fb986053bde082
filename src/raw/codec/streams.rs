//! Streams of one codec that follow each other: members of gzip, frames of lz4, archives of zip and so on.
//!
//! ```text
//! stored   ⎵\n  stream 1   \n\0  stream 2   \n     white space and zeros between streams are skipped
//! ```

use flate2::{Decompress, FlushDecompress, Status};
use libdeflater::Decompressor;
use lzma_rust2::{Action, XzStream};
use memchr::memmem;

use super::super::PieceError;
use super::super::buffer::Buffer;
use super::super::memory::HeldMemory;
use super::lz4::Lz4;
use super::snappy::{HadoopSnappy, SnappyFrames};
use super::unpack::{Damage, Lender, Ran, Unpack};
use super::zip::Zip;
use super::{Flow, Inflow, WINDOW, blank, checksum, follows};

/// How many times larger than its stored bytes a gzip member may be that is inflated at once: both are held. JSON is
/// packed to about a tenth.
pub(super) const PACKED: usize = 8;

/// The most bytes that deflate makes of one stored byte.
const EXPANSION: usize = 1_032;

/// How a gzip member begins.
pub(super) const GZIP: [u8; 2] = [0x1F, 0x8B];

/// The memory of a decoder of bzip2: one block of 900 kB, in four bytes each.
const BZIP2_MEMORY: u64 = 4 << 20;

/// The most memory of a decoder of xz, in KiB: as much as the window of a zstd frame may have, and the decoder itself.
const XZ_MOST: u32 = (128 << 10) + 1_024;

/// A codec of streams that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gzip,
    Zlib,
    Deflate,
    Bzip2,
    Xz,
    Lz4,
    Snappy,
    HadoopSnappy,
    Zip,
}

impl Kind {
    /// The name of the codec.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zlib => "zlib",
            Self::Deflate => "deflate",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Lz4 => "lz4",
            Self::Snappy => "snappy",
            Self::HadoopSnappy => "Hadoop's snappy",
            Self::Zip => "zip",
        }
    }

    /// The name of one stream.
    fn stream(self) -> &'static str {
        match self {
            Self::Gzip => "gzip member",
            Self::Zlib => "zlib stream",
            Self::Deflate => "deflate stream",
            Self::Bzip2 => "bzip2 stream",
            Self::Xz => "xz stream",
            Self::Lz4 => "lz4 frame",
            Self::Snappy => "snappy stream",
            Self::HadoopSnappy => "snappy stream of Hadoop",
            Self::Zip => "zip archive",
        }
    }

    /// How many bytes of `rest` may stand between two streams.
    fn blank(self, rest: &[u8]) -> usize {
        match self {
            // A stream may begin with any other byte.
            Self::Deflate => rest.iter().take_while(|byte| **byte == b'\n').count(),
            // A block begins with zeros. Its decoder passes over what lies between blocks.
            Self::HadoopSnappy => 0,
            _ => blank(rest),
        }
    }

    /// Whether a stream may begin with the first byte of `rest`. Its decoder looks at the bytes behind it.
    fn begins(self, rest: &[u8]) -> bool {
        let Some(first) = rest.first() else {
            return true;
        };
        match self {
            Self::Gzip => *first == GZIP[0],
            Self::Zlib => first & 0x0F == 8,
            Self::Bzip2 => *first == b'B',
            Self::Xz => *first == 0xFD,
            Self::Lz4 => matches!(first, 0x04 | 0x50..=0x5F),
            Self::Zip => *first == b'P',
            Self::Snappy => *first == 0xFF,
            Self::Deflate | Self::HadoopSnappy => true,
        }
    }

    /// A decoder of one stream.
    fn unpacker(self) -> Box<dyn Unpack> {
        match self {
            Self::Gzip => Box::new(Decompress::new_gzip(15)),
            Self::Zlib => Box::new(Decompress::new(true)),
            Self::Deflate => Box::new(Decompress::new(false)),
            Self::Bzip2 => Box::new(Bzip2::default()),
            Self::Xz => Box::new(Xz {
                stream: XzStream::new_mem_limit(false, 0),
                window: None,
            }),
            Self::Lz4 => Box::new(Lz4::new()),
            Self::Snappy => Box::new(SnappyFrames::new()),
            Self::HadoopSnappy => Box::new(HadoopSnappy::default()),
            Self::Zip => Box::new(Zip::default()),
        }
    }
}

/// Streams that follow each other.
pub(super) struct Streams {
    pub kind: Kind,
    /// How many streams have begun.
    number: u64,
    open: Option<Stream>,
}

/// A stream that is being decompressed.
struct Stream {
    unpacker: Box<dyn Unpack>,
    /// Where it began, counted in the bytes that the codec is fed with.
    begun: u64,
    /// Whether it has given bytes.
    given: bool,
}

impl Streams {
    /// No stream yet.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            number: 0,
            open: None,
        }
    }

    /// The streams of an object whose only stream was inflated at once, if it was.
    pub fn after(kind: Kind, at_once: bool) -> Self {
        Self {
            number: at_once.into(),
            ..Self::new(kind)
        }
    }
}

impl Inflow<'_> {
    /// Decompresses the next part of streams.
    pub(super) fn unpack(
        &mut self,
        streams: &mut Streams,
        out: &mut Buffer,
    ) -> Result<Flow, PieceError> {
        let Streams { kind, number, open } = streams;
        let Some(stream) = open else {
            return match self.next_stream(*kind, *number)? {
                Ok(stream) => {
                    *number += 1;
                    *open = Some(stream);
                    Ok(Flow::More)
                }
                Err(flow) => Ok(flow),
            };
        };
        let input = self.block.get(self.taken..).unwrap_or_default();
        // Without input there may still be output inside the decoder.
        let last = input.is_empty();
        let before = out.len();
        let lender = Lender {
            windows: &self.memory.windows,
            wait: self.may_wait,
        };
        let ran = stream.unpacker.run(input, out, &lender);
        let written = out.len() - before;
        stream.given |= written > 0;
        let (name, number) = (kind.stream(), *number);
        let damage = match ran {
            Ok(ran) => {
                self.taken += ran.read;
                if ran.ended || (last && written == 0 && stream.unpacker.may_end()) {
                    *open = None;
                    return Ok(Flow::More);
                }
                match (ran.read, written, last) {
                    (0, 0, true) => Damage::from(format!("{name} {number} is cut off")),
                    (0, 0, false) => Damage::from(format!("{name} {number} is damaged")),
                    _ => return Ok(Flow::More),
                }
            }
            Err(Damage { why, right }) => Damage {
                why: format!("{name} {number}: {why}"),
                right,
            },
        };
        let from = match damage.right {
            _ if !stream.given => stream.begun,
            Some(right) => stream.begun + right,
            None => self.at(),
        };
        self.broken(from, damage.why)
    }

    /// Passes over white space and zeros up to the next stream, and begins it: `Ok` is the stream, `Err` says what comes
    /// in its place. `before` streams have gone before.
    fn next_stream(&mut self, kind: Kind, before: u64) -> Result<Result<Stream, Flow>, PieceError> {
        let input = self.input();
        let (blank, ended) = (kind.blank(input), input.is_empty());
        let rest = input.get(blank..).unwrap_or_default();
        let flow = match rest {
            [] if ended => Some(Flow::End),
            [] => Some(Flow::More),
            _ => None,
        };
        let stream = kind.stream();
        let why = (flow.is_none() && !kind.begins(rest)).then(|| {
            let found = follows(rest);
            format!("{found} after {stream} {before}, not a {stream}")
        });
        self.taken += blank;
        match (flow, why) {
            (Some(flow), _) => Ok(Err(flow)),
            (None, Some(why)) => self.broken(self.at(), why).map(Err),
            (None, None) => Ok(Ok(Stream {
                unpacker: kind.unpacker(),
                begun: self.at(),
                given: false,
            })),
        }
    }
}

impl Unpack for Decompress {
    fn run(&mut self, input: &[u8], out: &mut Buffer, _: &Lender<'_>) -> Result<Ran, Damage> {
        let (read, written) = (self.total_in(), self.total_out());
        let result = self.decompress(input, out.room(WINDOW), FlushDecompress::None);
        out.fill((self.total_out() - written) as usize);
        match result {
            Ok(status) => Ok(Ran {
                read: (self.total_in() - read) as usize,
                ended: status == Status::StreamEnd,
            }),
            Err(error) => {
                let why = error.to_string();
                let right = match checksum(&why) {
                    true => 0,
                    false => self.total_in(),
                };
                Err(Damage {
                    why,
                    right: Some(right),
                })
            }
        }
    }
}

/// A decoder of one bzip2 stream.
#[derive(Default)]
struct Bzip2 {
    decoder: Option<(bzip2::Decompress, HeldMemory)>,
}

impl Unpack for Bzip2 {
    fn run(&mut self, input: &[u8], out: &mut Buffer, memory: &Lender<'_>) -> Result<Ran, Damage> {
        let (decoder, _) = self
            .decoder
            .get_or_insert_with(|| (bzip2::Decompress::new(false), memory.take(BZIP2_MEMORY)));
        let (read, written) = (decoder.total_in(), decoder.total_out());
        let result = decoder.decompress(input, out.room(WINDOW));
        out.fill((decoder.total_out() - written) as usize);
        match result {
            Ok(status) => Ok(Ran {
                read: (decoder.total_in() - read) as usize,
                ended: status == bzip2::Status::StreamEnd,
            }),
            // Damaged data and a wrong checksum are one error.
            Err(_) => Err(Damage {
                why: "the data is damaged, or its checksum is wrong".to_owned(),
                right: Some(0),
            }),
        }
    }
}

/// A decoder of one xz stream.
struct Xz {
    stream: XzStream,
    /// The memory for its dictionary.
    window: Option<HeldMemory>,
}

impl Unpack for Xz {
    fn run(&mut self, input: &[u8], out: &mut Buffer, memory: &Lender<'_>) -> Result<Ran, Damage> {
        let action = match input.is_empty() {
            true => Action::Finish,
            false => Action::Run,
        };
        let mut taken = 0;
        loop {
            let before = self.stream.total_in();
            let rest = input.get(taken..).unwrap_or_default();
            match self.stream.process(rest, out.room(WINDOW), action) {
                Ok(result) => {
                    out.fill(result.bytes_produced);
                    return Ok(Ran {
                        read: taken + result.bytes_consumed,
                        ended: matches!(result.status, lzma_rust2::Status::StreamEnd),
                    });
                }
                Err(error) if error.kind() == std::io::ErrorKind::OutOfMemory => {
                    taken += (self.stream.total_in() - before) as usize;
                    let wanted = self.stream.memory_usage().unwrap_or(u32::MAX);
                    if wanted > XZ_MOST || wanted <= self.stream.mem_limit() {
                        return Err(format!("it needs {wanted} KiB of memory").into());
                    }
                    self.window = None;
                    self.window = Some(memory.take(u64::from(wanted) << 10));
                    self.stream.set_mem_limit(wanted);
                }
                // The end of the input is no fault of the bytes before it.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Ok(Ran::default());
                }
                Err(error) => {
                    let why = error.to_string();
                    let right = why.contains("mismatch").then_some(0);
                    return Err(Damage { why, right });
                }
            }
        }
    }
}

/// Appends the bytes that `stored` inflates to. Appends nothing and returns false where `stored` is not certainly one
/// gzip member of at most `at_once` bytes, and nothing else.
///
/// The inflater does not say where the member ended, but it checks that the length of its output
/// stands there, behind the CRC. Where this length is the last four bytes of `stored`, and these four
/// bytes stand nowhere else in it, the member ended at the end of `stored`.
pub(super) fn inflate(stored: &[u8], at_once: usize, out: &mut Buffer) -> bool {
    let (Some(flags), Some((_, trailer))) = (stored.get(3), stored.split_last_chunk::<4>()) else {
        return false;
    };
    let most = stored.len() - 1;
    let length = u32::from_le_bytes(*trailer) as usize;
    // The second flag stands for a CRC of the header, which this inflater does not check. The last three flags have no
    // meaning.
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
