//! One reference of the configuration: a file that marts join.

use std::path::Path;

use super::table::{Table, choice};
use super::{ConfigError, Reference, ReferenceFormat, columns, place};

/// The keys of a reference.
pub(super) const REFERENCE_KEYS: [&str; 6] =
    ["path", "columns", "null", "encoding", "format", "delimiter"];

/// One reference of the configuration. A relative path resolves from `base`.
pub(super) fn reference(
    name: &str,
    table: &Table<'_>,
    base: &Path,
) -> Result<Reference, ConfigError> {
    table.only(&REFERENCE_KEYS)?;
    let path = table.need(
        "path",
        "name the file, such as `path = \"reference/stores.csv\"`",
    )?;
    let url = path.read(|text| place::file_url(text, base))?;
    let format = match table.get("format") {
        Some(entry) => entry.read(|text| {
            choice(
                text,
                &[
                    ("csv", ReferenceFormat::Csv),
                    ("ndjson", ReferenceFormat::Ndjson),
                    ("parquet", ReferenceFormat::Parquet),
                ],
            )
        })?,
        None => match ending(&url).as_deref() {
            Some("csv") => ReferenceFormat::Csv,
            Some("ndjson" | "jsonl" | "json") => ReferenceFormat::Ndjson,
            Some("parquet") => ReferenceFormat::Parquet,
            _ => {
                return Err(path.error(format!(
                    "the ending of {url} does not tell its format: add `format = \"csv\"`, \
                     `\"ndjson\"` or `\"parquet\"`"
                )));
            }
        },
    };
    let columns = match table.get("columns") {
        Some(entry) if format == ReferenceFormat::Parquet => {
            return Err(entry.error("a Parquet file has its own: take them out".to_owned()));
        }
        Some(entry) => Some(columns::plain(&entry.table()?)?),
        None => None,
    };
    let null = match table.get("null") {
        Some(entry) if format != ReferenceFormat::Csv => {
            return Err(entry
                .error("is for CSV, other formats spell null themselves: take it out".to_owned()));
        }
        Some(entry) => entry.one_or_more()?,
        None if format == ReferenceFormat::Csv => vec![String::new()],
        None => Vec::new(),
    };
    let delimiter = match table.get("delimiter") {
        Some(entry) if format != ReferenceFormat::Csv => {
            return Err(
                entry.error("is for CSV, other formats have their own: take it out".to_owned())
            );
        }
        Some(entry) => entry.read(delimiter)?,
        None => b',',
    };
    let encoding = match table.get("encoding") {
        Some(entry) if format == ReferenceFormat::Parquet => {
            return Err(entry.error("a Parquet file is not text: take it out".to_owned()));
        }
        Some(entry) => entry.read(encoding)?,
        None => encoding_rs::UTF_8,
    };
    Ok(Reference {
        name: name.to_owned(),
        url,
        format,
        columns,
        null,
        delimiter,
        encoding,
    })
}

/// The ending of a file's name in lower case, without `.gz`.
fn ending(url: &str) -> Option<String> {
    let url = url.to_ascii_lowercase();
    let url = url.strip_suffix(".gz").unwrap_or(&url);
    url.rsplit_once('.').map(|(_, end)| end.to_owned())
}

/// The byte between two fields of a CSV file.
fn delimiter(text: &str) -> Result<u8, String> {
    match *text.as_bytes() {
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n') => Ok(byte),
        _ => Err(format!(
            "{text:?} is no delimiter: write one character, such as \";\", \"|\" or \"\\t\""
        )),
    }
}

/// The encoding of a name, in any capitals.
fn encoding(text: &str) -> Result<&'static encoding_rs::Encoding, String> {
    let lower = text.trim().to_ascii_lowercase();
    // Exports of databases name the code pages of Windows in ways that the WHATWG's list of encodings lacks. Its
    // `euc-kr`, `gbk` and `big5` are these code pages, with all their characters.
    let label = match lower.as_str() {
        "cp949" | "ms949" | "uhc" => "euc-kr",
        "cp932" => "shift_jis",
        "cp936" => "gbk",
        "cp950" => "big5",
        other => other,
    };
    encoding_rs::Encoding::for_label(label.as_bytes()).ok_or_else(|| {
        format!(
            "`{text}` is no known encoding: write such as `utf-8`, `cp949`, `shift_jis` or \
             `windows-1252`"
        )
    })
}
