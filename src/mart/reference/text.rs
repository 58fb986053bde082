//! The text of a reference's file, decoded to UTF-8.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use encoding_rs::{Decoder, Encoding};

/// The most bytes of one row. Without a limit, a quote that is not closed would make one row of the rest of the file.
const MOST_OF_ROW: u64 = 16 << 20;
/// How many bytes of a file are read at once.
pub(super) const CHUNK: usize = 64 << 10;

/// The first bytes of a gzip file.
const GZIP: [u8; 2] = [0x1F, 0x8B];

/// The text of a file in UTF-8, decoded as it is read. A byte order mark is left out.
pub(super) struct Text {
    file: Box<dyn Read>,
    decoder: Decoder,
    input: Vec<u8>,
    output: Vec<u8>,
    /// How many bytes of the output were read.
    at: usize,
    /// The number of line feeds before the output.
    lines: u64,
    /// How many bytes may be read before the next row begins.
    allowed: u64,
    ended: bool,
}

/// Why a text cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// Bytes that are not of this encoding, on this line, from 1.
    #[error("there are bytes that are not {encoding}; declare `encoding`")]
    Bytes { encoding: &'static str, line: u64 },
    /// A row of more than [`MOST_OF_ROW`] bytes.
    #[error("a row has more than 16 MiB; is a quote not closed?")]
    LongRow,
}

impl Text {
    /// Opens a file of this encoding, which may be compressed with gzip.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(super) fn open(path: &Path, encoding: &'static Encoding) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut begins = Vec::new();
        Read::by_ref(&mut file).take(2).read_to_end(&mut begins)?;
        file.rewind()?;
        Ok(Self {
            file: match begins == GZIP {
                true => Box::new(MultiGzDecoder::new(file)),
                false => Box::new(file),
            },
            decoder: encoding.new_decoder(),
            input: Vec::new(),
            output: Vec::new(),
            at: 0,
            lines: 0,
            allowed: MOST_OF_ROW,
            ended: false,
        })
    }

    /// Lets all of the file be read as if it were one row.
    pub(super) const fn without_rows(&mut self) {
        self.allowed = u64::MAX;
    }

    /// Says that a row begins: it may have [`MOST_OF_ROW`] bytes.
    pub(super) const fn begin_row(&mut self) {
        self.allowed = MOST_OF_ROW;
    }

    /// Decodes the next part of the file into the output.
    fn refill(&mut self) -> io::Result<()> {
        let feeds = memchr::memchr_iter(b'\n', &self.output).count();
        self.lines += feeds as u64;
        self.output.clear();
        self.at = 0;
        while self.output.is_empty() && !self.ended {
            self.input.clear();
            let mut chunk = Read::by_ref(&mut self.file).take(CHUNK as u64);
            self.ended = chunk.read_to_end(&mut self.input).map_err(damaged)? < CHUNK;
            let most = self.decoder.max_utf8_buffer_length(self.input.len());
            self.output.resize(most.unwrap_or(4 * CHUNK), 0);
            let (_, _, written, wrong) =
                self.decoder
                    .decode_to_utf8(&self.input, &mut self.output, self.ended);
            self.output.truncate(written);
            if wrong {
                // The decoder writes U+FFFD for bytes that it cannot decode.
                let text = String::from_utf8_lossy(&self.output);
                let before = text.split('\u{fffd}').next().unwrap_or_default();
                let feeds = memchr::memchr_iter(b'\n', before.as_bytes()).count();
                return Err(io::Error::other(Unreadable::Bytes {
                    encoding: self.decoder.encoding().name(),
                    line: self.lines + feeds as u64 + 1,
                }));
            }
        }
        let written = self.output.len() as u64;
        if written > self.allowed {
            return Err(io::Error::other(Unreadable::LongRow));
        }
        self.allowed -= written;
        Ok(())
    }
}

/// The error of a file whose compressed bytes are damaged. An error of the system has a number and stays as it is.
fn damaged(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(_) => error,
        None => io::Error::other(format!(
            "its gzip bytes are damaged or cut off ({error}): export the file again"
        )),
    }
}

impl Read for Text {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.output.len() {
            self.refill()?;
        }
        let rest = self.output.get(self.at..).unwrap_or_default();
        let count = rest.len().min(out.len());
        if let (Some(out), Some(rest)) = (out.get_mut(..count), rest.get(..count)) {
            out.copy_from_slice(rest);
        }
        self.at += count;
        Ok(count)
    }
}
