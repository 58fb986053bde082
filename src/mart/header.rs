//! The header of a mart: `-- key: value` lines above the SELECT.
//!
//! A line that is meant as a header and spelt in another way would be read as prose, and the mart would be built
//! without it. Such a line is refused with the right spelling. Ordinary prose is not refused.

use std::path::Path;

use super::MartError;
use super::reach::{self, Reach};
use super::select::is_name;
use crate::names::slips;

/// Keys of the design that this version does not carry out. A mart that has one expects it to be kept.
const LATER: [&str; 3] = ["unique", "not_null", "check"];

const PARTITION: &str = "partition";
const READS: &str = "reads";

/// The lines of a mart's header.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// The partition columns, in the order of the folders.
    pub partition: Vec<String>,
    /// How far tables are read, each with the line that says it.
    pub reads: Vec<(String, Reach, usize)>,
}

/// The part of the file that a line is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    /// The lines of comments above the SELECT.
    Header,
    /// A comment between `/*` and `*/` above the SELECT.
    Block,
    /// The SELECT, and all lines below it.
    Select,
}

/// Reads the header.
///
/// # Errors
/// A line that is meant as a header and cannot be read as one, with its line and the right spelling.
pub(super) fn header(file: &Path, text: &str) -> Result<Header, MartError> {
    let mut reader = Reader {
        file,
        text,
        partition: None,
        reads: Vec::new(),
        doubtful: Vec::new(),
    };
    let mut section = Section::Header;
    for (i, line) in text.lines().enumerate() {
        let (line, number) = (line.trim(), i + 1);
        if section == Section::Header {
            match line {
                "" => continue,
                line if line.starts_with("/*") => section = Section::Block,
                line if !line.starts_with("--") => section = Section::Select,
                _ => {}
            }
        }
        match section {
            Section::Header => reader.header_line(line, number)?,
            Section::Block => section = reader.block_line(line, number)?,
            Section::Select => reader.select_line(line, number),
        }
    }
    reader.finish()
}

/// The header as far as it has been read.
struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
    partition: Option<Vec<String>>,
    reads: Vec<(String, Reach, usize)>,
    /// Lines that may be meant as a header of this key. They are errors only where no header has the key.
    doubtful: Vec<(&'static str, MartError)>,
}

impl Reader<'_> {
    fn fail(&self, number: usize, message: impl Into<String>) -> MartError {
        MartError::new(self.file, Some(number), message)
    }

    /// Reads a line of comment above the SELECT.
    fn header_line(&mut self, line: &str, number: usize) -> Result<(), MartError> {
        let comment = line.trim_start_matches('-').trim();
        match exact(comment) {
            Some((key, value)) if key == PARTITION => {
                if self.partition.is_some() {
                    return Err(self
                        .fail(number, "`partition` is given twice")
                        .hint("name all partition columns on one line, separated by commas"));
                }
                let columns = partition_columns(value, |message| self.fail(number, message))?;
                self.partition = Some(columns);
                Ok(())
            }
            Some((key, value)) if key == READS => self.reads_line(value, number),
            Some((key, _)) => Err(self
                .fail(
                    number,
                    format!("the header `{key}` is not supported by this version"),
                )
                .hint("take the line out")),
            None => self.prose_line(comment, number),
        }
    }

    /// Reads how far tables are read.
    fn reads_line(&mut self, value: &str, number: usize) -> Result<(), MartError> {
        for text in value.split(',') {
            let (table, reach) = reach::parse(text).map_err(|message| {
                self.fail(number, message).hint(
                    "write `<table> back 6d`, `ahead 1d`, `back all` or `all`; tables are \
                     separated by commas",
                )
            })?;
            if self.reads.iter().any(|(other, ..)| *other == table) {
                return Err(self.fail(number, format!("`reads` names `{table}` twice")));
            }
            self.reads.push((table, reach, number));
        }
        Ok(())
    }

    /// Refuses or notes a comment that looks like a header.
    fn prose_line(&mut self, comment: &str, number: usize) -> Result<(), MartError> {
        let Some(near) = near(comment, self.text) else {
            return Ok(());
        };
        let error = self
            .fail(
                number,
                format!("the header `{}` is not known", near.written),
            )
            .hint(format!(
                "is it `{}`? write `-- {}`; if it is prose, reword the line",
                near.key, near.right
            ));
        match near.separated {
            true => Err(error),
            false => {
                self.doubtful.push((near.key, error));
                Ok(())
            }
        }
    }

    /// Reads a line of a block comment, and tells the section of the next line.
    fn block_line(&self, line: &str, number: usize) -> Result<Section, MartError> {
        let inner = line.trim_start_matches(['/', '*', '-', ' ']);
        if let Some((key, value)) = exact(inner)
            && is_whole(&key, value)
        {
            let value = value.trim_end_matches("*/").trim();
            return Err(self
                .fail(number, format!("the header `{key}` is in a block comment"))
                .hint(format!(
                    "write it as a line of its own: `-- {key}: {value}`"
                )));
        }
        Ok(match line.split_once("*/") {
            None => Section::Block,
            Some((_, behind)) => match behind.trim() {
                "" => Section::Header,
                behind if behind.starts_with("--") => Section::Header,
                _ => Section::Select,
            },
        })
    }

    /// Notes a line of comment below the first word of the SELECT that can only be a header.
    fn select_line(&mut self, line: &str, number: usize) {
        let comment = line.trim_start_matches('-').trim();
        if let Some((key, value)) = exact(comment)
            && line.starts_with("--")
            && is_whole(&key, value)
        {
            let error = self
                .fail(number, format!("the header `{key}` is below the SELECT"))
                .hint("move the line above the first word of the SELECT");
            let key = if key == READS { READS } else { PARTITION };
            self.doubtful.push((key, error));
        }
    }

    fn finish(self) -> Result<Header, MartError> {
        let said = |key: &str| match key {
            PARTITION => self.partition.is_some(),
            _ => !self.reads.is_empty(),
        };
        match self.doubtful.into_iter().find(|(key, _)| !said(key)) {
            Some((_, error)) => Err(error),
            None => Ok(Header {
                partition: self.partition.unwrap_or_default(),
                reads: self.reads,
            }),
        }
    }
}

/// The columns of a list that are separated by commas.
fn partition_columns(
    list: &str,
    fail: impl Fn(String) -> MartError,
) -> Result<Vec<String>, MartError> {
    let names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
    for (n, name) in names.iter().enumerate() {
        if !is_name(name) {
            return Err(fail(format!("`{name}` cannot be a partition column"))
                .hint("a name is a lower-case letter, then letters, digits or `_`"));
        }
        if names.iter().take(n).any(|other| other == name) {
            return Err(fail(format!("partition column `{name}` is given twice")));
        }
    }
    Ok(names)
}

/// The key and the value of a header whose key is spelt right.
fn exact(comment: &str) -> Option<(String, &str)> {
    let (key, value) = comment.split_once(':')?;
    let key = key.trim().to_ascii_lowercase();
    let known = [PARTITION, READS].contains(&key.as_str()) || LATER.contains(&key.as_str());
    known.then_some((key, value))
}

/// Whether a line outside of the header can only be meant as one: prose has other words behind the colon.
fn is_whole(key: &str, value: &str) -> bool {
    let value = value.trim_end_matches("*/").trim();
    match key {
        PARTITION => value.split(',').all(|name| is_name(name.trim())),
        READS => value.split(',').all(|text| reach::parse(text).is_ok()),
        _ => false,
    }
}

/// A line that looks like a header and is not spelt like one.
struct Near {
    /// The key that is probably meant.
    key: &'static str,
    /// The key as the line spells it.
    written: String,
    /// The header as it should be.
    right: String,
    /// Whether there is a sign between key and value. Without a sign, the line may be a sentence of prose.
    separated: bool,
}

/// The signs that people write between key and value. The full-width `：` and `＝` are among them.
const SIGNS: [char; 5] = [':', '=', '\u{ff1a}', '\u{ff1d}', '\u{2192}'];

/// The header that a comment is probably meant as.
fn near(comment: &str, sql: &str) -> Option<Near> {
    // Bullets and asterisks are ornament.
    let bare = comment.trim_start_matches(|c: char| !c.is_alphanumeric());
    let ornament = bare.len() < comment.len();
    let (first, mut rest) = word(bare);
    let (second, behind) = word(rest.trim_start());
    let second_belongs = ["by", "on", "null", "key", "keys", "column", "columns"];
    let joined = format!("{first}_{second}");
    let mut key = near_key(&first);
    let mut written = first.clone();
    if second_belongs.contains(&second.as_str()) {
        key = near_key(&joined).or(key);
        written = format!("{first} {second}");
        rest = behind;
    }
    let key = key?;
    let rest = rest.trim_start_matches(['*', '`', '\'', '"', ']']).trim();
    let value = rest.strip_prefix("->").unwrap_or(rest);
    let value = value.trim_start_matches(SIGNS).trim();
    let separated = value.len() < rest.len();
    let is_sql = |name: &str| is_name(name) && mentions(sql, name);
    let names = |list: &str| -> Option<Vec<String>> {
        let names = list.split(',').map(|name| {
            let name = name.trim_matches(|c: char| c.is_whitespace() || "()[]`'\".;".contains(c));
            is_sql(name).then(|| name.to_owned())
        });
        names.collect()
    };
    let right = match key {
        PARTITION => match names(value) {
            Some(names) => format!("partition: {}", names.join(", ")),
            None if separated => "partition: dt".to_owned(),
            None => return None,
        },
        READS => {
            let mut words = value.split_whitespace();
            let (table, how, far) = (words.next(), words.next(), words.next());
            let is_far = |far: Option<&str>| {
                far.is_some_and(|far| {
                    far.starts_with(|c: char| c.is_ascii_digit())
                        || far.trim_end_matches([',', '.']) == "all"
                })
            };
            let is_way = |way: &str| ["back", "ahead"].contains(&way);
            let said = match (table, how) {
                (Some(way), far) if is_way(way) => is_far(far),
                (Some(table), Some(way)) if is_way(way) => is_sql(table) && is_far(far),
                (Some(table), Some(all)) => {
                    is_sql(table) && far.is_none() && all.trim_end_matches('.') == "all"
                }
                _ => false,
            };
            match said || separated {
                true if is_way(table.unwrap_or_default()) => "reads: <table> back 6d".to_owned(),
                true => format!("reads: {value}"),
                false => return None,
            }
        }
        // Lines such as `-- Unique users` and `-- * check: …` are prose.
        _ if separated && !ornament => format!("{key}: …"),
        _ => return None,
    };
    Some(Near {
        key,
        written,
        right,
        separated,
    })
}

/// The first word, in lower case and with `_` for `-`, and the rest of the text.
fn word(text: &str) -> (String, &str) {
    let is_part = |c: char| c.is_alphabetic() || c == '_' || c == '-';
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let word = word.trim_end_matches('-');
    let rest = text.get(word.len()..).unwrap_or(rest);
    (word.to_lowercase().replace('-', "_"), rest)
}

/// Whether the SQL has a word outside of lines of comment.
fn mentions(sql: &str, name: &str) -> bool {
    sql.lines()
        .filter(|line| !line.trim_start().starts_with("--"))
        .flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'))
        .any(|word| word.eq_ignore_ascii_case(name))
}

/// The key that a word is within a slip of the fingers of.
fn near_key(key: &str) -> Option<&'static str> {
    [
        PARTITION,
        "partition_by",
        "partitioned_by",
        "partitions",
        "partitioned",
        "partitioning",
        READS,
    ]
    .into_iter()
    .chain(LATER)
    .find(|known| {
        let most = if known.len() > 6 { 2 } else { 1 };
        slips(key, known) <= most
    })
    .map(|known| match known.starts_with(PARTITION) {
        true => PARTITION,
        false => known,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let none: &[&str] = &[];
        for (text, expected) in [
            ("SELECT 1", Ok(none)),
            (
                "-- Daily users: all of them.\n\n-- partition: dt , os\nSELECT 1",
                Ok(&["dt", "os"][..]),
            ),
            ("--partition:dt\r\nSELECT 1", Ok(&["dt"])),
            ("-- see http://x/y\n-- note: by day\nSELECT 1", Ok(none)),
            (
                "-- partition:",
                Err("m.sql:1: `` cannot be a partition column"),
            ),
            ("-- partition: Dt", Err("`Dt` cannot be")),
            ("-- partition: dt, dt", Err("given twice")),
            (
                "-- partition: dt\n-- partition: os",
                Err("m.sql:2: `partition` is given twice"),
            ),
            (
                "-- hi\n-- unique: dt",
                Err("m.sql:2: the header `unique` is not supported"),
            ),
            ("-- check: a > 1", Err("not supported by this version")),
            ("-- partiton: dt", Err("is it `partition`?")),
            ("-- partition_by: dt", Err("is it `partition`?")),
            ("-- read: events all", Err("is it `reads`?")),
            (
                "-- a\n-- reads: events since 1d",
                Err("m.sql:2: `since` says"),
            ),
            ("-- reads: events, events all", Err("names `events` twice")),
        ] {
            let found = header(Path::new("m.sql"), text).map(|header| header.partition);
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
        let text = "-- reads: events back 6d, users\n--\n-- reads: rejects all\nSELECT 1";
        let header = header(Path::new("m.sql"), text).unwrap();
        let back = Reach {
            back: Some(6),
            ..Reach::SAME
        };
        let named = |table: &str, reach, line| (table.to_owned(), reach, line);
        assert_eq!(
            header.reads,
            [
                named("events", back, 1),
                named("users", Reach::SAME, 1),
                named("rejects", Reach::ALL, 3)
            ]
        );
    }

    /// The header in a comment above a SELECT that has the columns `dt`, `os` and the table `events`.
    fn above(comment: &str) -> Result<Header, MartError> {
        let text = format!("{comment}\nSELECT dt, os FROM events");
        header(Path::new("m.sql"), &text)
    }

    #[test]
    fn what_is_meant_as_a_header_is_refused_with_the_right_spelling() {
        for (line, right) in [
            ("-- partition by: dt", "`-- partition: dt`"),
            ("-- partitions = dt", "`-- partition: dt`"),
            ("-- Partition dt", "`-- partition: dt`"),
            ("--partitioned by (dt)", "`-- partition: dt`"),
            ("-- PARTITIONED BY (dt, os)", "`-- partition: dt, os`"),
            ("-- partitioned by dt.", "`-- partition: dt`"),
            ("-- partition-by: dt", "`-- partition: dt`"),
            ("-- partition columns: dt", "`-- partition: dt`"),
            ("-- partition = dt", "`-- partition: dt`"),
            ("-- partition -> dt", "`-- partition: dt`"),
            ("-- partition\u{ff1a}dt", "`-- partition: dt`"),
            ("-- partiton dt", "`-- partition: dt`"),
            ("-- - partition: dt", "`-- partition: dt`"),
            ("-- * **partition**: dt", "`-- partition: dt`"),
            ("-- @partition: dt", "`-- partition: dt`"),
            ("-- partition: `dt`", "cannot be a partition column"),
            ("-- reads events back 6d", "`-- reads: events back 6d`"),
            ("-- read events back 6 days", "is it `reads`?"),
            ("-- reads = events back 6d", "`-- reads: events back 6d`"),
            ("-- Reads events all", "`-- reads: events all`"),
            ("-- reads back 6d of events", "`-- reads: <table> back 6d`"),
            (
                "-- reads\u{ff1a}events ahead 1d",
                "`-- reads: events ahead 1d`",
            ),
            ("-- not null: dt", "is it `not_null`?"),
            ("-- unique key: dt", "is it `unique`?"),
            ("-- check = os > 1", "is it `check`?"),
            ("/* partition: dt */", "`-- partition: dt`"),
            ("/*\n * reads: events all\n */", "block comment"),
        ] {
            let error = above(line).unwrap_err().to_string();
            assert!(error.contains(right), "{line}: {error}");
            assert!(error.starts_with("m.sql:"), "{line}: {error}");
        }
        for (text, part) in [
            (
                "SELECT 1 AS a\n-- partition: dt",
                "m.sql:2: the header `partition` is below",
            ),
            (
                "WITH a AS (SELECT 1)\n  -- reads: a back 6d, b\nSELECT * FROM a",
                "m.sql:2: the header `reads` is below",
            ),
            (
                "/* what */ SELECT 1\n-- partition: dt",
                "m.sql:2: the header `partition`",
            ),
        ] {
            let error = header(Path::new("m.sql"), text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn prose_stays_prose() {
        for prose in [
            "-- Partition keys are chosen by the growth team.",
            "-- Partitions explained",
            "-- Partitioned by day, since the dashboard filters on it.",
            "-- Partition by day: one file each",
            "-- Partitions (one a day) are small.",
            "-- Reads like a novel",
            "-- reads all events of a day",
            "-- Reads events back to 2019 and joins users",
            "-- Reads events.",
            "-- Unique users per day",
            "-- Unique users",
            "-- * check: is it right?",
            "-- Not counted: robots",
            "-- Notes: none",
            "-- Check the numbers of os.",
            "-- ---------- ",
            "-- Growth team, dashboard \"Daily users\".",
            "/* Daily users: by day */",
            "/*\n Partition: one a day\n*/",
            "-- 일별 사용자: 전체",
        ] {
            let header = above(prose).unwrap_or_else(|error| panic!("{prose}: {error}"));
            assert_eq!(header, Header::default(), "{prose}");
        }
        // Prose may repeat the words of a header.
        for text in [
            "-- partition: dt\n-- Partitioned by dt\nSELECT dt FROM events",
            "-- Partition dt\n-- partition: dt\nSELECT dt FROM events\n-- partition: dt",
        ] {
            let header = header(Path::new("m.sql"), text).unwrap();
            assert_eq!(header.partition, ["dt"], "{text}");
        }
    }
}
