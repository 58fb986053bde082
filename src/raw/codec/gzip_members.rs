//! Gzip: a single member that is inflated at once, or members that follow each other.

use flate2::{Decompress, FlushDecompress, Status};
use libdeflater::Decompressor;
use memchr::memmem;

use super::super::PieceError;
use super::super::buffer::Buffer;
use super::{Flow, Inflow, WINDOW, blank, checksum, follows};

/// How many times larger than its stored bytes a gzip member may be that is inflated at once: both are held. JSON is
/// packed to about a tenth.
pub(super) const PACKED: usize = 8;

/// The most bytes that deflate makes of one stored byte.
const EXPANSION: usize = 1_032;

/// How a gzip member begins.
pub(super) const GZIP: [u8; 2] = [0x1F, 0x8B];

/// A gzip member that is being decompressed.
pub(super) struct Member {
    inflate: Decompress,
    /// Its number in the object, from 1.
    pub(super) number: u64,
    /// Where it began, counted in stored bytes.
    begun: u64,
}

impl Inflow<'_> {
    /// Passes over white space and zeros up to the next gzip member, and begins it: `Ok` is the member, `Err` says
    /// what comes in its place. `members` have gone before.
    pub(super) fn next_member(&mut self, members: u64) -> Result<Result<Member, Flow>, PieceError> {
        let input = self.input();
        let (blank, ended) = (blank(input), input.is_empty());
        let rest = input.get(blank..).unwrap_or_default();
        let why = match rest.first() {
            None if ended => return Ok(Err(Flow::End)),
            None => {
                self.taken += blank;
                return Ok(Err(Flow::More));
            }
            Some(first) if *first == GZIP[0] => None,
            Some(_) => {
                let found = follows(rest);
                Some(format!(
                    "{found} after gzip member {members}, not a gzip member"
                ))
            }
        };
        self.taken += blank;
        match why {
            Some(why) => self.broken(self.at(), why).map(Err),
            None => Ok(Ok(Member {
                inflate: Decompress::new_gzip(15),
                number: members + 1,
                begun: self.at(),
            })),
        }
    }

    /// Decompresses the next part of a gzip member; `None` where the member has ended.
    pub(super) fn unpack_gzip(
        &mut self,
        member: &mut Member,
        out: &mut Buffer,
    ) -> Result<Option<Flow>, PieceError> {
        let Member {
            inflate,
            number,
            begun,
        } = member;
        let input = self.block.get(self.taken..).unwrap_or_default();
        // Without input there may still be output inside the decoder.
        let (read, written) = (inflate.total_in(), inflate.total_out());
        let last = input.is_empty();
        let result = inflate.decompress(input, out.room(WINDOW), FlushDecompress::None);
        self.taken += (inflate.total_in() - read) as usize;
        let written = (inflate.total_out() - written) as usize;
        out.fill(written);
        let why = match result {
            Ok(Status::StreamEnd) => return Ok(None),
            Ok(_) if last && written == 0 => format!("gzip member {number} is cut off"),
            Ok(_) => return Ok(Some(Flow::More)),
            Err(error) => format!("gzip member {number}: {error}"),
        };
        let whole = inflate.total_out() == 0 || checksum(&why);
        let from = if whole { *begun } else { self.at() };
        self.broken(from, why).map(Some)
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
