//! Zip archives, from their first byte to their last: the entries follow each other as one text.
//!
//! ```text
//! │ header │ data │ [descriptor] │ header │ data │ … │ directory │ end │
//! ```
//!
//! The directory at the end names the entries and their lengths. It is not used to find them, because its lengths
//! could be wrong and the object would have to be held. An entry ends where its deflate stream ends, or where its own
//! header says. The directory must name as many entries as were read.

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::super::buffer::Buffer;
use super::WINDOW;
use super::unpack::{Damage, Lender, Ran, Unpack, gather};

/// The signatures of the parts of an archive.
pub(super) const ENTRY: [u8; 4] = *b"PK\x03\x04";
const DIRECTORY: [u8; 4] = *b"PK\x01\x02";
const END_64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR_64: [u8; 4] = *b"PK\x06\x07";
pub(super) const END: [u8; 4] = *b"PK\x05\x06";
const DESCRIPTOR: [u8; 4] = *b"PK\x07\x08";

/// The bits of the flags of an entry.
const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
const DESCRIBED: u16 = 1 << 3;

/// A length of 32 bits that says: the length of 64 bits is in the extra field.
const IN_EXTRA: u64 = 0xFFFF_FFFF;

/// The most bytes that follow an entry with a descriptor: the descriptor with lengths of 64 bits. Any archive has at least
/// an end of 22 bytes behind it, so that the bytes are there.
const LONGEST_DESCRIPTOR: usize = 24;

/// The data of one entry.
struct Entry {
    /// Decompresses the data; `None` where it is stored as it is.
    inflate: Option<Decompress>,
    /// How many stored bytes are left, where the data is stored as it is.
    left: u64,
    /// Whether a descriptor follows the data.
    described: bool,
    /// The checksum and the stored length in the header.
    crc: u32,
    stored: u64,
    /// The checksum of the bytes that were given, and how many stored bytes were read.
    sum: Crc,
    read: u64,
}

/// The part of the archive that comes next.
#[derive(Default)]
enum Part {
    /// A signature and what it begins.
    #[default]
    Signature,
    Data(Box<Entry>),
    /// The bytes behind the data of an entry.
    Descriptor(Box<Entry>),
    /// So many bytes that are not needed.
    Skip(u64),
}

/// A decoder of one archive.
#[derive(Default)]
pub(super) struct Zip {
    part: Part,
    held: Vec<u8>,
    /// How many bytes of the archive were read, those that are held included.
    read: u64,
    /// How many entries have begun, and where the last one begins.
    entries: u64,
    begun: u64,
    /// How many entries the directory has named.
    named: u64,
    /// Whether the end was found. What is skipped then is its comment.
    ends: bool,
}

/// The two bytes, or the four bytes, at a position.
fn short(bytes: &[u8], at: usize) -> u16 {
    let two = bytes.get(at..).and_then(<[u8]>::first_chunk::<2>);
    two.map_or(0, |two| u16::from_le_bytes(*two))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let four = bytes.get(at..).and_then(<[u8]>::first_chunk::<4>);
    four.map_or(0, |four| u32::from_le_bytes(*four).into())
}

fn longest(bytes: &[u8], at: usize) -> u64 {
    let eight = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>);
    eight.map_or(0, |eight| u64::from_le_bytes(*eight))
}

/// The stored length in an extra field. There it follows the length of the content.
fn length_in_extra(mut extra: &[u8]) -> Option<u64> {
    while extra.len() >= 4 {
        let (kind, length) = (short(extra, 0), usize::from(short(extra, 2)));
        if kind == 1 && length >= 16 {
            return extra.get(12..20).map(|bytes| longest(bytes, 0));
        }
        extra = extra.get(4 + length..)?;
    }
    None
}

/// The name of an entry, short and as plain text.
fn shown(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    name.chars().take(64).map(plain).collect()
}

impl Zip {
    /// A fault of the entry that is being read, whose bytes are all lost.
    fn entry_fault(&self, why: &str) -> Damage {
        Damage {
            why: format!("entry {}: {why}", self.entries),
            right: Some(self.begun),
        }
    }

    /// How many bytes the part has that begins with the held bytes, as far as they tell. `None` for an unknown signature.
    fn wanted(&self) -> Option<usize> {
        let held = self.held.as_slice();
        let Some(signature) = held.first_chunk::<4>() else {
            return Some(4);
        };
        let parts = |fixed: usize, lengths: &[usize]| match held.len() < fixed {
            true => fixed,
            false => lengths
                .iter()
                .fold(fixed, |sum, at| sum + usize::from(short(held, *at))),
        };
        match *signature {
            ENTRY => Some(parts(30, &[26, 28])),
            DIRECTORY => Some(parts(46, &[28, 30, 32])),
            END_64 => Some(12),
            LOCATOR_64 => Some(20),
            END => Some(22),
            _ => None,
        }
    }

    /// Reads the part that the held bytes are, which is whole.
    fn read_part(&mut self) -> Result<Part, Damage> {
        let held = std::mem::take(&mut self.held);
        match held.first_chunk::<4>().copied().unwrap_or_default() {
            ENTRY => {
                self.entries += 1;
                self.begun = self.read - held.len() as u64;
                self.header(&held)
            }
            DIRECTORY => {
                self.named += 1;
                Ok(Part::Signature)
            }
            END_64 => Ok(Part::Skip(longest(&held, 4))),
            END => {
                self.ends = true;
                let (named, told) = (self.named, u64::from(short(&held, 10)));
                if named != self.entries || (told != named && told != 0xFFFF) {
                    let read = self.entries;
                    let named = if told == 0xFFFF { named } else { told };
                    return Err(format!(
                        "its directory names {named} entries, and {read} were read"
                    )
                    .into());
                }
                Ok(Part::Skip(short(&held, 20).into()))
            }
            _ => Ok(Part::Signature),
        }
    }

    /// Reads the header of an entry.
    fn header(&self, held: &[u8]) -> Result<Part, Damage> {
        let (flags, method) = (short(held, 6), short(held, 8));
        let name_end = 30 + usize::from(short(held, 26));
        let name = held.get(30..name_end).unwrap_or_default();
        let about = |what: &str| {
            let name = shown(name);
            Err(self.entry_fault(&format!("`{name}` {what}")))
        };
        if flags & ENCRYPTED != 0 {
            return about("is encrypted");
        }
        let described = flags & DESCRIBED != 0;
        let stored = match long(held, 18) {
            IN_EXTRA => length_in_extra(held.get(name_end..).unwrap_or_default()),
            stored => Some(stored),
        };
        let folder = name.ends_with(b"/");
        let inflate = match method {
            0 if described && !folder => {
                return about("is stored without its length");
            }
            0 => None,
            8 => Some(Decompress::new(false)),
            method => {
                return about(&format!(
                    "is compressed by method {method}, which is not read"
                ));
            }
        };
        let Some(stored) = stored else {
            return about("has no length");
        };
        Ok(Part::Data(Box::new(Entry {
            inflate,
            left: if described { 0 } else { stored },
            described,
            crc: long(held, 14) as u32,
            stored,
            sum: Crc::new(),
            read: 0,
        })))
    }

    /// Compares an entry with its header, or with its descriptor, which the held bytes begin with.
    fn check(&mut self, entry: &Entry) -> Result<(), Damage> {
        let sum = entry.sum.sum();
        let (mut crc, mut same) = (entry.crc, entry.stored == entry.read);
        if entry.described {
            let held = self.held.as_slice();
            let signed = if held.starts_with(&DESCRIPTOR) { 4 } else { 0 };
            crc = long(held, signed) as u32;
            let given = u64::from(entry.sum.amount());
            let of_64 = longest(held, signed + 4) == entry.read
                && longest(held, signed + 12) & IN_EXTRA == given;
            let of_32 =
                long(held, signed + 4) == entry.read & IN_EXTRA && long(held, signed + 8) == given;
            same = of_64 || of_32;
            let length = signed + if of_64 { 20 } else { 12 };
            self.held.drain(..length.min(self.held.len()));
        }
        if crc != sum {
            return Err(self.entry_fault("its checksum is wrong"));
        }
        if !same {
            return Err(self.entry_fault("it has another length than was written"));
        }
        Ok(())
    }
}

impl Entry {
    /// Decompresses a part of `rest`. The result says whether the data has ended.
    fn run(&mut self, rest: &mut &[u8], out: &mut Buffer) -> Result<bool, String> {
        let before = out.len();
        let (read, ended) = match &mut self.inflate {
            None => {
                let most = usize::try_from(self.left).unwrap_or(usize::MAX);
                let taken = rest.get(..most.min(WINDOW)).unwrap_or(rest);
                out.extend(taken);
                self.left -= taken.len() as u64;
                (taken.len(), self.left == 0)
            }
            Some(inflate) => {
                let (read, written) = (inflate.total_in(), inflate.total_out());
                let result = inflate.decompress(rest, out.room(WINDOW), FlushDecompress::None);
                out.fill((inflate.total_out() - written) as usize);
                let status = result.map_err(|error| error.to_string())?;
                (
                    (inflate.total_in() - read) as usize,
                    status == Status::StreamEnd,
                )
            }
        };
        self.sum.update(out.get(before..).unwrap_or_default());
        self.read += read as u64;
        *rest = rest.get(read..).unwrap_or_default();
        Ok(ended)
    }
}

impl Unpack for Zip {
    fn run(&mut self, input: &[u8], out: &mut Buffer, _: &Lender<'_>) -> Result<Ran, Damage> {
        let (mut rest, before, begun) = (input, out.len(), self.read);
        let read = |rest: &[u8]| input.len() - rest.len();
        let mut ended = false;
        while out.len() == before && !ended {
            let was = rest.len();
            self.part = match std::mem::take(&mut self.part) {
                Part::Skip(0) if self.ends => {
                    ended = true;
                    Part::Signature
                }
                Part::Skip(0) => Part::Signature,
                Part::Skip(left) => {
                    let skipped = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    rest = rest.get(skipped..).unwrap_or_default();
                    Part::Skip(left - skipped as u64)
                }
                Part::Signature => {
                    let Some(wanted) = self.wanted() else {
                        return Err(Damage {
                            why: "other bytes stand where an entry should begin".to_owned(),
                            right: Some(self.read - self.held.len() as u64),
                        });
                    };
                    let whole = gather(&mut self.held, &mut rest, wanted);
                    self.read = begun + read(rest) as u64;
                    match self.wanted() {
                        Some(wanted) if whole && self.held.len() >= wanted => self.read_part()?,
                        _ => Part::Signature,
                    }
                }
                Part::Data(mut entry) => {
                    let ran = entry.run(&mut rest, out);
                    match ran
                        .map_err(|why| Damage::from(format!("entry {}: {why}", self.entries)))?
                    {
                        false => Part::Data(entry),
                        true if entry.described => Part::Descriptor(entry),
                        true => {
                            self.check(&entry)?;
                            Part::Signature
                        }
                    }
                }
                Part::Descriptor(entry) => {
                    match gather(&mut self.held, &mut rest, LONGEST_DESCRIPTOR) {
                        false => Part::Descriptor(entry),
                        true => {
                            self.check(&entry)?;
                            Part::Signature
                        }
                    }
                }
            };
            self.read = begun + read(rest) as u64;
            if rest.is_empty() && was == 0 && !ended {
                break;
            }
        }
        Ok(Ran {
            read: read(rest),
            ended,
        })
    }
}
