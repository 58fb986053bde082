//! Which kind of file a raw object is, where it is of a kind that is not read.
//!
//! ```text
//! first bytes ──▶ of() ──▶ "a Parquet file" | "lzo-compressed" | "UTF-32 text" | … | nothing
//! ```
//!
//! A text that holds a record is never taken for another kind: each signature has a byte that UTF-8
//! text does not have there, or is proven by the bytes behind it.

use flate2::{Decompress, FlushDecompress, Status};

/// Signatures at the first byte. Each has a control character or a byte that is no UTF-8, or is certain without one.
const SIGNATURES: &[(&[u8], &str)] = &[
    (b"\x1F\x8B\x08", "gzip-compressed"),
    (b"\x28\xB5\x2F\xFD", "zstd-compressed"),
    (b"\xFD7zXZ\0", "xz-compressed"),
    (b"\x04\x22\x4D\x18", "lz4-compressed"),
    (b"\x02\x21\x4C\x18", "lz4-compressed (the legacy frame)"),
    (b"\xFF\x06\0\0sNaPpY", "snappy-compressed"),
    (b"\x89LZO\0\r\n\x1A\n", "lzo-compressed"),
    (b"LZIP\x01", "lzip-compressed"),
    (b"\x82SNAPPY\0", "snappy-compressed (snappy-java's framing)"),
    (b"\x1F\x9D", "compressed with compress(1)"),
    (b"7z\xBC\xAF\x27\x1C", "a 7z archive"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "a zip archive"),
    (b"Rar!\x1A\x07", "a RAR archive"),
    (b"PAR1\x15", "a Parquet file"),
    (b"Obj\x01", "an Avro file"),
    (b"ARROW1\0\0", "an Arrow file"),
    (b"SEQ\x04", "a Hadoop SequenceFile"),
    (b"SEQ\x05", "a Hadoop SequenceFile"),
    (b"SEQ\x06", "a Hadoop SequenceFile"),
    (b"RCF\x01", "an RCFile"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x89PNG\r\n\x1A\n", "a PNG image"),
    (b"\xFF\xD8\xFF", "a JPEG image"),
    // A longer signature must come before a signature that it begins with.
    (b"\xFF\xFE\0\0", "UTF-32 text"),
    (b"\0\0\xFE\xFF", "UTF-32 text"),
    (b"\xFF\xFE", "UTF-16 text"),
    (b"\xFE\xFF", "UTF-16 text"),
];

/// The bytes that bzip2 puts behind its level: the digits of π before a block, the digits of its square root at the end.
const BZIP2_BLOCKS: [&[u8]; 2] = [b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90"];

/// After so many bytes that inflate without an error, the object is taken for a zlib stream.
const SURE: u64 = 512;

/// The kind of the file that begins with `head`, as the end of the sentence "the object is …". `None`
/// where the file may be text.
pub(super) fn of(head: &[u8]) -> Option<&'static str> {
    let signature = SIGNATURES.iter().find(|(magic, _)| head.starts_with(magic));
    if let Some((_, kind)) = signature {
        return Some(kind);
    }
    match head {
        _ if bzip2(head) => Some("bzip2-compressed"),
        _ if tar(head) => Some("a tar archive"),
        [b'%', b'P', b'D', b'F', b'-', b'0'..=b'9', b'.', ..] => Some("a PDF"),
        [b'O', b'R', b'C', rest @ ..] if binary(rest) => Some("an ORC file"),
        _ if wide(head, 4) => Some("UTF-32 text"),
        _ if wide(head, 2) => Some("UTF-16 text without a byte order mark"),
        _ if lzma(head) => Some("lzma-compressed"),
        _ if zlib(head) => Some("zlib-compressed"),
        _ if hadoop_snappy(head) => Some("snappy-compressed (Hadoop's framing)"),
        _ => None,
    }
}

/// Whether the bytes are a bzip2 stream: its level, and a block or the end.
pub(super) fn bzip2(head: &[u8]) -> bool {
    match head {
        [b'B', b'Z', b'h', b'1'..=b'9', rest @ ..] => {
            BZIP2_BLOCKS.iter().any(|magic| rest.starts_with(magic))
        }
        _ => false,
    }
}

/// Whether the bytes are a header of tar: a name that is filled up with zeros, and the mark.
fn tar(head: &[u8]) -> bool {
    let marked = |mark: &[u8]| head.get(257..263) == Some(mark);
    (marked(b"ustar\0") || marked(b"ustar "))
        && head.get(..100).is_some_and(|name| name.contains(&0))
}

/// Whether no text begins with these bytes.
fn binary(bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes);
    bytes.contains(&0) || text.is_err_and(|error| error.error_len().is_some())
}

/// Whether the bytes are ASCII in units of `width` bytes, without a byte order mark.
fn wide(head: &[u8], width: usize) -> bool {
    let ascii = |unit: &[u8]| -> Option<(u8, bool)> {
        let (first, last) = (*unit.first()?, *unit.last()?);
        let zeros = unit.iter().filter(|byte| **byte == 0).count() == width - 1;
        let byte = first.max(last);
        let text = matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~');
        (zeros && text).then_some((byte, first == 0))
    };
    let Some((first, big_endian)) = head.get(..width).and_then(ascii) else {
        return false;
    };
    // Two characters are enough for a text that begins as JSON.
    let enough = if matches!(first, b'{' | b'[') { 2 } else { 4 };
    let mut units = head.chunks_exact(width).take(enough);
    head.len() >= width * enough
        && units.all(|unit| ascii(unit).is_some_and(|(_, order)| order == big_endian))
}

/// Whether the bytes are the header of `.lzma`: properties, the size of the dictionary, the length or −1.
fn lzma(head: &[u8]) -> bool {
    let Some(([0x5D, 0, 0, ..], rest)) = head.split_first_chunk::<5>() else {
        return false;
    };
    rest.first_chunk::<8>()
        .is_some_and(|length| *length == [0xFF; 8] || length.ends_with(&[0, 0, 0]))
}

/// Whether the bytes are a zlib stream. The header has two bytes with a check, which is too little to be certain, so the
/// bytes must also inflate.
pub(super) fn zlib(head: &[u8]) -> bool {
    let [method, flags, ..] = *head else {
        return false;
    };
    let checked = (u16::from(method) << 8 | u16::from(flags)).is_multiple_of(31);
    if method & 0x0F != 8 || method >> 4 > 7 || flags & 0x20 != 0 || !checked {
        return false;
    }
    inflates(Decompress::new(true), head).is_some()
}

/// Whether the bytes are a deflate stream without a header. Nothing marks such a stream, so its bytes must be no text, must
/// inflate, and the text that they inflate to must begin as JSON.
pub(super) fn deflate(head: &[u8]) -> bool {
    if plain(head) {
        return false;
    }
    let Some(text) = inflates(Decompress::new(false), head) else {
        return false;
    };
    let begins = text.iter().find(|byte| !byte.is_ascii_whitespace());
    matches!(begins, Some(b'{' | b'[')) && plain(&text)
}

/// Whether the bytes are text without control characters, except for half a character at their end.
pub(super) fn plain(bytes: &[u8]) -> bool {
    let whole = match std::str::from_utf8(bytes) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    whole
        && !bytes
            .iter()
            .any(|byte| *byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r'))
}

/// The first bytes that `head` inflates to. `None` where it is no such stream.
fn inflates(mut inflate: Decompress, head: &[u8]) -> Option<Vec<u8>> {
    let mut first = Vec::new();
    let mut out = [0; 4096];
    loop {
        let (read, written) = (inflate.total_in(), inflate.total_out());
        let rest = head.get(read as usize..).unwrap_or_default();
        let ran = inflate.decompress(rest, &mut out, FlushDecompress::None);
        if written == 0 {
            let given = usize::try_from(inflate.total_out()).unwrap_or(0);
            first = out.get(..given).unwrap_or_default().to_vec();
        }
        match ran {
            Ok(Status::StreamEnd) => return Some(first),
            Ok(_) if inflate.total_in() >= SURE => return Some(first),
            Ok(_) if (inflate.total_in(), inflate.total_out()) != (read, written) => {}
            _ => return None,
        }
    }
}

/// Whether the bytes are Hadoop's framing of snappy: the length of a block, the length of its first chunk, and the
/// length that the chunk itself names. A chunk is shorter than 16 MiB, so that the fifth byte is zero, which no text has.
/// A block is shorter than 128 MiB, so that its first byte is below that of every zlib stream.
pub(super) fn hadoop_snappy(head: &[u8]) -> bool {
    let Some((block, rest)) = head.split_first_chunk::<4>() else {
        return false;
    };
    let Some((stored, rest)) = rest.split_first_chunk::<4>() else {
        return false;
    };
    let block = u64::from(u32::from_be_bytes(*block));
    let stored = u64::from(u32::from_be_bytes(*stored));
    if stored >= 1 << 24 || block >= 1 << 27 {
        return false;
    }
    let mut told = 0;
    for (i, byte) in rest.iter().enumerate().take(4) {
        told |= u64::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 == 0 {
            // The output of snappy is never longer than this, and begins with a literal.
            let most = told + told / 6 + 32;
            let literal = rest.get(i + 1).is_some_and(|tag| tag & 3 == 0);
            return literal && (1..=block).contains(&told) && (3..=most).contains(&stored);
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn a_zlib_stream_is_not_taken_for_blocks_of_hadoop() {
        // A zlib stream whose first block is stored as it is. Its fifth byte is zero.
        let zlib = [
            0x78, 0x9C, 0x01, 0x31, 0x00, 0xCE, 0xFF, 0x78, 0x9C, 0xD3, 0x8B, 0x55, 0x38,
        ];
        assert!(!hadoop_snappy(&zlib));
    }

    fn tar_header(mark: &[u8; 6]) -> Vec<u8> {
        let mut header = vec![0; 512];
        header[..6].copy_from_slice(b"a.json");
        header[257..263].copy_from_slice(mark);
        header
    }

    #[test]
    fn kinds_are_told_by_their_first_bytes() {
        let utf16 = |text: &str, order: fn(u16) -> [u8; 2]| -> Vec<u8> {
            text.encode_utf16().flat_map(order).collect()
        };
        let utf32 = |text: &str| -> Vec<u8> {
            text.chars()
                .flat_map(|c| u32::from(c).to_le_bytes())
                .collect()
        };
        let json = "{\"id\": \"한국\"}\n";
        for (head, kind) in [
            (&b"BZh91AY&SY\x12\x34"[..], "bzip2-compressed"),
            (b"BZh9\x17rE8P\x90\0\0\0\0", "bzip2-compressed"),
            (b"\xFD7zXZ\0\0\x04", "xz-compressed"),
            (b"PK\x03\x04\x14\0", "a zip archive"),
            (b"7z\xBC\xAF\x27\x1C\0", "a 7z archive"),
            (b"\x04\x22\x4D\x18\x64", "lz4-compressed"),
            (b"\xFF\x06\0\0sNaPpY\x01", "snappy-compressed"),
            (
                b"\0\0\0\x0D\0\0\0\x0F\x0D\x30{\"id\": \"a\"}\n",
                "snappy-compressed (Hadoop's framing)",
            ),
            (
                b"\x5D\0\0\x80\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0",
                "lzma-compressed",
            ),
            (b"PAR1\x15\x04\x15", "a Parquet file"),
            (b"Obj\x01\x04\x14avro.codec", "an Avro file"),
            (b"ORC\x1D\0\0\x0A", "an ORC file"),
            (&tar_header(b"ustar\0"), "a tar archive"),
            (&tar_header(b"ustar "), "a tar archive"),
            (b"%PDF-1.7\n", "a PDF"),
            (b"\x1F\x8B\x08\0", "gzip-compressed"),
            (
                &utf16(json, u16::to_le_bytes),
                "UTF-16 text without a byte order mark",
            ),
            (
                &utf16(json, u16::to_be_bytes),
                "UTF-16 text without a byte order mark",
            ),
            (
                &utf16("id,at\n", u16::to_le_bytes),
                "UTF-16 text without a byte order mark",
            ),
            (&utf16("\u{FEFF}한", u16::to_be_bytes), "UTF-16 text"),
            (&utf32(json), "UTF-32 text"),
            (&utf32("\u{FEFF}한"), "UTF-32 text"),
        ] {
            assert_eq!(of(head), Some(kind), "{head:?}");
        }
    }

    #[test]
    fn zlib_is_told_at_every_level_and_length() {
        for level in [0, 1, 6, 9] {
            for lines in [0, 1, 40, 4_000] {
                let level = flate2::Compression::new(level);
                let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), level);
                zlib.write_all("{\"id\": \"a\"}\n".repeat(lines).as_bytes())
                    .unwrap();
                let zlib = zlib.finish().unwrap();
                let head = &zlib[..zlib.len().min(64 << 10)];
                assert_eq!(of(head), Some("zlib-compressed"), "{lines} lines");
            }
        }
    }

    /// Whatever text begins a record or stands before one.
    #[test]
    fn text_is_never_another_kind() {
        for text in [
            "",
            "{",
            "{}",
            "[{\"a\":1}]",
            "\u{FEFF}{}",
            "x^{\"a\":1}\n{\"a\":2}\n",
            "x^",
            "PAR1\n{\"a\":1}\n",
            "PAR1 {}",
            "Obj {}",
            "ORC {\"a\":\"é\"}\n",
            "SEQ {}",
            "BZh9 {}",
            "BZh91AY {}",
            "PK {}",
            "7z {}",
            "Rar! {}",
            "LZIP {}",
            "%PDF {}",
            "h\u{5}{}",
            "8\u{11}{\"a\":1}\n",
            "H\r\n{\"a\":1}\n",
            "]\0\0{}",
            "\0\0\0\0{\"a\":1}\n",
            "\0{\"a\":1}",
            "{\0\"\u{1}a",
        ] {
            assert_eq!(of(text.as_bytes()), None, "{text:?}");
        }
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let first = b"{[ \n\r\tPABZOSxhHX8(^7%]";
        for _ in 0..200_000 {
            let text: Vec<u8> = (0..random.random_range(1..40))
                .map(|i| match i {
                    0 => first[random.random_range(0..first.len())],
                    _ if random.random_ratio(1, 6) => b"\t\n\r"[random.random_range(0..3)],
                    _ => random.random_range(b' '..=b'~'),
                })
                .collect();
            assert_eq!(of(&text), None, "{:?}", String::from_utf8_lossy(&text));
        }
    }
}
