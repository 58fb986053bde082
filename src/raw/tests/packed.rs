//! Every codec: streams that follow each other, in each other, cut, damaged, and larger than the memory.

use std::io::Write;

use super::*;

/// A way to compress bytes.
pub(super) type Pack = fn(&[u8]) -> Vec<u8>;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 3).unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(1));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::with_preset(1);
    let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn lz4(bytes: &[u8]) -> Vec<u8> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let info = FrameInfo::new()
        .block_size(BlockSize::Max64KB)
        .block_mode(BlockMode::Linked)
        .block_checksums(true)
        .content_checksum(true);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn plain_lz4(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn snappy(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = snap::write::FrameEncoder::new(Vec::new());
    encoder.write_all(bytes).unwrap();
    let stored = encoder.into_inner().unwrap();
    // The encoder writes no header before the first byte.
    match bytes.is_empty() {
        true => b"\xFF\x06\0\0sNaPpY".to_vec(),
        false => stored,
    }
}

/// Blocks of three parts, as Hadoop writes them.
fn hadoop(bytes: &[u8]) -> Vec<u8> {
    let mut stored = Vec::new();
    for block in bytes.chunks(3 * 20_000) {
        stored.extend(u32::try_from(block.len()).unwrap().to_be_bytes());
        for part in block.chunks(20_000) {
            let part = snap::raw::Encoder::new().compress_vec(part).unwrap();
            stored.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
            stored.extend(part);
        }
    }
    stored
}

/// How an entry of an archive is written.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Written {
    pub stored: bool,
    /// The lengths follow the data; with 64 bits; without a signature.
    pub described: bool,
    pub wide: bool,
    pub unsigned: bool,
    pub encrypted: bool,
    pub method: Option<u16>,
    pub wrong_crc: bool,
}

/// An archive of these entries.
pub(super) fn archive(entries: &[(&str, &[u8], Written)]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes, written) in entries {
        let data = match written.stored {
            true => bytes.to_vec(),
            false => deflate(bytes),
        };
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        let crc = crc.sum() ^ u32::from(written.wrong_crc);
        let method = written.method.unwrap_or(if written.stored { 0 } else { 8 });
        let flags = u16::from(written.encrypted) | u16::from(written.described) << 3;
        let (stored, given) = (data.len() as u64, bytes.len() as u64);
        let extra: Vec<u8> = match written.wide && !written.described {
            true => [
                &[1, 0, 16, 0][..],
                &given.to_le_bytes(),
                &stored.to_le_bytes(),
            ]
            .concat(),
            false => Vec::new(),
        };
        let at = out.len() as u32;
        out.extend(b"PK\x03\x04\x2D\0");
        out.extend(flags.to_le_bytes());
        out.extend(method.to_le_bytes());
        out.extend([0; 4]);
        match (written.described, written.wide) {
            (true, _) => out.extend([0; 12]),
            (false, wide) => {
                out.extend(crc.to_le_bytes());
                let length = |length: u64| if wide { u32::MAX } else { length as u32 };
                out.extend(length(stored).to_le_bytes());
                out.extend(length(given).to_le_bytes());
            }
        }
        out.extend((name.len() as u16).to_le_bytes());
        out.extend((extra.len() as u16).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend(&extra);
        out.extend(&data);
        if written.described {
            if !written.unsigned {
                out.extend(b"PK\x07\x08");
            }
            out.extend(crc.to_le_bytes());
            for length in [stored, given] {
                let bytes = length.to_le_bytes();
                out.extend(if written.wide {
                    &bytes[..]
                } else {
                    &bytes[..4]
                });
            }
        }
        // Nobody trusts the directory for lengths, so these are wrong.
        directory.extend(b"PK\x01\x02\x2D\0\x2D\0");
        directory.extend([0; 20]);
        directory.extend((name.len() as u16).to_le_bytes());
        directory.extend([0; 12]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (start, length) = (out.len() as u32, directory.len() as u32);
    out.extend(&directory);
    out.extend(b"PK\x06\x06");
    out.extend(44_u64.to_le_bytes());
    out.extend([0; 44]);
    out.extend(b"PK\x06\x07");
    out.extend([0; 16]);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend((entries.len() as u16).to_le_bytes());
    out.extend((entries.len() as u16).to_le_bytes());
    out.extend(length.to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend(b"\x02\0hi");
    out
}

fn zip(bytes: &[u8]) -> Vec<u8> {
    archive(&[("events.json", bytes, Written::default())])
}

/// Every codec with its name, and whether its streams have an end.
pub(super) const PACKERS: [(&str, Pack); 11] = [
    ("gzip", gzip),
    ("zlib", zlib),
    ("deflate", deflate),
    ("zstd", zstd),
    ("bzip2", bzip2),
    ("xz", xz),
    ("lz4", lz4),
    ("lz4 of independent blocks", plain_lz4),
    ("snappy", snappy),
    ("Hadoop's snappy", hadoop),
    ("zip", zip),
];

fn lines(from: u64, to: u64) -> Vec<u8> {
    (from..to)
        .flat_map(|i| format!("{{\"t\":{i},\"n\":{}}}\n", i * 7919 % 1000).into_bytes())
        .collect()
}

/// Decodes with little memory, in which no object is inflated at once.
fn streamed(spec: &DecodeSpec, bytes: &[u8], piece: usize) -> Found {
    let mut decoder = Decoder::new(spec, &DecodeMemory::new(1_000, 2));
    decode_with(&mut decoder, bytes, || piece)
}

#[test]
fn streams_of_every_codec_follow_each_other() {
    let spec = spec(&["n int"]);
    let text = lines(1, 9_000);
    let plain = decode(&spec, &text);
    let (head, rest) = text.split_at(70_001);
    let (middle, tail) = rest.split_at(9);
    for (name, pack) in PACKERS {
        let padding: &[u8] = if name == "deflate" {
            b"\n\n"
        } else {
            b" \r\n\0\0\0\0"
        };
        for (how, stored) in [
            ("one stream", pack(&text)),
            ("streams", [pack(head), pack(middle), pack(tail)].concat()),
            (
                "streams with a line feed between, as of one record each",
                [pack(head), pack(middle), pack(tail)].join(&b'\n'),
            ),
            ("padding", [&pack(&text)[..], padding].concat()),
        ] {
            let found = decode(&spec, &stored);
            assert_eq!(found.rejects, [], "{name}: {how}");
            assert!(found.events == plain.events, "{name}: {how}");
            assert_eq!(
                (found.counts.lost, &found.counts.torn),
                (0, &None),
                "{name}: {how}"
            );
            for piece in [1, 65_537] {
                assert!(
                    decode_cut(&spec, &stored, || piece) == found,
                    "{name}: {how}"
                );
                assert!(streamed(&spec, &stored, piece) == found, "{name}: {how}");
            }
        }
        // Short texts are recognised too.
        let short = decode(&spec, &pack(b"{\"t\":1,\"n\":2}"));
        assert_eq!(
            (short.counts.events, short.counts.records),
            (1, 1),
            "{name}"
        );
    }
}

#[test]
fn codecs_lie_inside_each_other() {
    let spec = spec(&["n int"]);
    let text = lines(1, 1_200);
    let plain = decode(&spec, &text);
    let (head, tail) = text.split_at(10_000);
    for (outer, pack) in PACKERS {
        for (inner, under) in PACKERS {
            for (how, stored) in [
                ("", pack(&under(&text))),
                ("members", pack(&[under(head), under(tail)].concat())),
                (
                    "members of a member",
                    [pack(&under(head)), pack(&under(tail))].concat(),
                ),
            ] {
                // Nothing says that bytes which are no text are a deflate stream.
                if outer == "deflate" {
                    continue;
                }
                let found = decode(&spec, &stored);
                assert_eq!(found.rejects, [], "{inner} in {outer} {how}");
                assert!(found.events == plain.events, "{inner} in {outer} {how}");
                assert_eq!(found.counts.lost, 0, "{inner} in {outer} {how}");
                assert!(
                    streamed(&spec, &stored, 999) == found,
                    "{inner} in {outer} {how}"
                );
            }
        }
    }
    // Four codecs are opened, and a fifth is named.
    let four = gzip(&zstd(&gzip(&bzip2(&text))));
    assert_eq!(decode(&spec, &four).counts.events, 1_199);
    let found = decode(&spec, &gzip(&four));
    let detail = "the object is bzip2-compressed inside gzip inside zstd inside gzip inside gzip, which is not read";
    assert!(
        found.rejects[0].detail.starts_with(detail),
        "{:?}",
        found.rejects
    );
    assert_eq!(found.counts.lost, found.counts.bytes);
}

#[test]
fn utf_16_with_a_byte_order_mark_is_read() {
    let spec = spec(&["s string"]);
    let text = "{\"t\":1,\"s\":\"한국 😀\"}\r\n{\"t\":2,\"s\":\"b\"}\n";
    for order in [u16::to_le_bytes, u16::to_be_bytes] {
        let encode = |text: &str| -> Vec<u8> {
            let marked = format!("\u{FEFF}{text}");
            marked.encode_utf16().flat_map(order).collect()
        };
        let long = encode(&text.repeat(9_000));
        for stored in [encode(text), gzip(&encode(text)), zip(&encode(text))] {
            let found = decode(&spec, &stored);
            let texts: Vec<_> = found.events.iter().map(|(_, v)| v[0].as_str()).collect();
            assert_eq!((texts, &found.rejects), (vec!["한국 😀", "b"], &vec![]));
            assert_eq!(decode_cut(&spec, &stored, || 1), found);
        }
        let found = decode(&spec, &long);
        assert_eq!((found.counts.events, found.counts.lost), (18_000, 0));
        assert!(decode_cut(&spec, &long, || 777) == found);
        // Half a surrogate pair costs its own record, and half a unit at the end is told.
        let mut broken = encode("{\"t\":1,\"s\":\"");
        broken.extend(order(0xD83D));
        broken.extend(encode("\"}\n{\"t\":2}\n"));
        let found = decode(&spec, &broken);
        assert_eq!((found.counts.events, found.rejects.len()), (1, 1));
        assert!(
            found.rejects[0].detail.starts_with("invalid UTF-8"),
            "{:?}",
            found.rejects
        );
        let cut = [&encode(text)[..], &[0x0A]].concat();
        let found = decode(&spec, &cut);
        assert_eq!(found.counts.events, 2);
        assert_eq!(
            found.counts.torn.as_deref(),
            Some("the UTF-16 text is cut off inside a character")
        );
    }
    let only = decode(&spec, b"\xFF\xFE");
    assert_eq!((only.counts.records, only.counts.lost), (0, 0));
}

#[test]
fn entries_of_an_archive_continue_the_numbering() {
    let spec = spec(&["n int"]);
    let (a, b) = (lines(1, 3_000), lines(3_000, 5_000));
    let default = Written::default();
    let stored = Written {
        stored: true,
        ..default
    };
    let described = Written {
        described: true,
        ..default
    };
    for written in [
        default,
        stored,
        described,
        Written {
            wide: true,
            ..default
        },
        Written {
            wide: true,
            ..stored
        },
        Written {
            wide: true,
            ..described
        },
        Written {
            unsigned: true,
            ..described
        },
        Written {
            unsigned: true,
            wide: true,
            ..described
        },
    ] {
        let folder = Written {
            stored: true,
            ..written
        };
        let object = archive(&[
            ("events/", b"", folder),
            ("events/a.json", &a, written),
            ("events/empty.json", b"", default),
            ("events/b.json", &b, written),
        ]);
        let found = decode(&spec, &object);
        assert_eq!(found.rejects, [], "{written:?}");
        assert_eq!(
            (found.counts.events, found.counts.lost),
            (4_999, 0),
            "{written:?}"
        );
        assert_eq!(found.events.last().unwrap().0, 4_999);
        for piece in [1, 1_000] {
            assert!(decode_cut(&spec, &object, || piece) == found, "{written:?}");
        }
    }
    let wrong = |written: Written| {
        archive(&[
            ("a.json", &a, default),
            ("집\n.json", &b, written),
            ("c", &b, default),
        ])
    };
    for (object, detail) in [
        (
            wrong(Written {
                encrypted: true,
                ..default
            }),
            "entry 2: `집 .json` is encrypted",
        ),
        (
            wrong(Written {
                method: Some(14),
                ..default
            }),
            "entry 2: `집 .json` is compressed by method 14",
        ),
        (
            wrong(Written {
                described: true,
                ..stored
            }),
            "entry 2: `집 .json` is stored without its length",
        ),
        (
            wrong(Written {
                wrong_crc: true,
                ..default
            }),
            "entry 2: its checksum is wrong",
        ),
        (
            wrong(Written {
                wrong_crc: true,
                ..described
            }),
            "entry 2: its checksum is wrong",
        ),
    ] {
        let found = decode(&spec, &object);
        let torn = found.counts.torn.as_deref().unwrap();
        assert!(
            torn.starts_with(&format!("zip archive 1: {detail}")),
            "{torn}"
        );
        let last = found.rejects.last().unwrap();
        assert_eq!((last.reason, last.detail.as_str()), (Reason::Codec, torn));
        // The first entry is whole, and all bytes behind it are lost.
        assert!(found.counts.events >= 2_999);
        let first = archive(&[("a.json", &a, default)]).len() as u64;
        let kept = found.counts.bytes - found.counts.lost;
        assert!(kept > 1_000 && kept < first, "{torn}: {kept} {first}");
        assert!(decode_cut(&spec, &object, || 7) == found);
    }
    // A directory that names another number of entries.
    let mut object = archive(&[("a.json", &a, default)]);
    let end = object.len();
    object[end - 14] = 9;
    let found = decode(&spec, &object);
    let torn = found.counts.torn.as_deref().unwrap();
    assert!(
        torn.contains("its directory names 9 entries, and 1 were read"),
        "{torn}"
    );
    // An archive without a file is its end alone.
    let nothing = archive(&[]);
    let end = &nothing[nothing.len() - 24..];
    assert_eq!(decode(&spec, end).counts.records, 0);
}

#[test]
fn a_stream_of_any_codec_cut_anywhere_keeps_what_came_before() {
    let spec = spec(&["n int"]);
    let text = lines(1, 400);
    for (name, pack) in PACKERS {
        let stored = pack(&text);
        let step = (stored.len() / 90).max(1);
        for end in (24..stored.len()).step_by(step) {
            let cut = &stored[..end];
            let found = decode(&spec, cut);
            let events = found.counts.events;
            let numbers: Vec<i64> = found.events.iter().map(|(number, _)| *number).collect();
            assert_eq!(
                numbers,
                (1..=events as i64).collect::<Vec<_>>(),
                "{name} {end}"
            );
            // A short deflate stream is only recognised as a whole.
            let known = !matches!(name, "zlib" | "deflate") || end > 512;
            if known && events < 399 {
                let torn = found.counts.torn.as_deref().unwrap_or_default();
                assert!(torn.contains("cut off"), "{name} {end}: {found:?}");
                assert_eq!(found.counts.rejects[&Reason::Codec], 1, "{name} {end}");
            }
            assert_eq!(decode_cut(&spec, cut, || 5), found, "{name} {end}");
            assert_eq!(streamed(&spec, cut, 64), found, "{name} {end}");
        }
    }
}

#[test]
fn damage_of_any_codec_ends_the_object_and_changes_no_record() {
    let spec = spec(&["n int"]);
    let text = lines(1, 900);
    let plain = decode(&spec, &text);
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for (name, pack) in PACKERS {
        let stored = pack(&text);
        // A zlib or deflate stream is recognised by its first 512 bytes.
        let first = if matches!(name, "zlib" | "deflate") {
            600
        } else {
            20
        };
        for _ in 0..100 {
            let mut broken = stored.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(first..broken.len());
                broken[at] ^= 1 << rng.random_range(0..8);
            }
            let found = decode(&spec, &broken);
            let piece = rng.random_range(1..500);
            assert_eq!(decode_cut(&spec, &broken, || piece), found, "{name}");
            assert_eq!(streamed(&spec, &broken, piece), found, "{name}");
            assert!(
                found
                    .rejects
                    .iter()
                    .filter(|r| r.reason == Reason::Codec)
                    .count()
                    <= 1
            );
            // Without a checksum, damage may pass for other bytes.
            let checked = !matches!(
                name,
                "deflate" | "Hadoop's snappy" | "lz4 of independent blocks" | "zstd"
            );
            if checked && found.counts.torn.is_none() {
                assert!(found.events == plain.events, "{name}: {:?}", found.rejects);
            }
        }
    }
}

#[test]
fn bombs_of_any_codec_are_bounded() {
    let spec = DecodeSpec {
        limits: Limits {
            max_object_bytes: 3 << 20,
            max_record_bytes: 1 << 20,
            ..Limits::default()
        },
        ..spec(&["n int"])
    };
    let long = [&b"{\"t\":1}\n"[..], &vec![b' '; 20 << 20], b"{\"t\":2}"].concat();
    let record = format!("{{\"t\":1}}\n{{\"x\":\"{}\"}}", "x".repeat(20 << 20)).into_bytes();
    for (name, pack) in PACKERS {
        for text in [&long, &record] {
            let found = decode(&spec, &pack(text));
            assert_eq!(found.counts.events, 1, "{name}");
            let last = found.rejects.last().unwrap();
            assert_eq!(last.reason, Reason::ObjectTooLarge, "{name}: {last:?}");
            assert!(found.counts.lost > 0, "{name}");
        }
        let inside = decode(&spec, &gzip(&pack(&long)));
        assert_eq!(inside.counts.events, 1, "{name}");
        assert!(
            inside.counts.torn.is_some() && inside.counts.lost > 0,
            "{name}"
        );
    }
}

/// What text begins with, and what is torn from other files, is never taken for a codec without a magic number.
#[test]
fn text_is_never_taken_for_a_codec() {
    let mut rng = ChaCha8Rng::seed_from_u64(17);
    let spec = spec(&["n int"]);
    let first = b"{[ \n\r\t\"x^PB4dlmt|}]\\,";
    for _ in 0..20_000 {
        let length = rng.random_range(1..60);
        let text: Vec<u8> = (0..length)
            .map(|i| match i {
                0 => first[rng.random_range(0..first.len())],
                _ if rng.random_ratio(1, 6) => b"\t\n\r"[rng.random_range(0..3)],
                _ => rng.random_range(b' '..=b'~'),
            })
            .collect();
        let found = decode(&spec, &text);
        assert_eq!(
            found.counts.torn,
            None,
            "{:?}",
            String::from_utf8_lossy(&text)
        );
        assert!(!found.counts.rejects.contains_key(&Reason::Codec));
    }
}
