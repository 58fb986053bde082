//! The header of a mart: `-- key: value` lines above the SELECT.
//!
//! A line that is meant as a header and spelt otherwise would be passed over as prose, and the mart
//! built without it. Such a line is refused with the right spelling; ordinary prose is not.

use std::path::Path;

use super::MartError;
use super::reach::{self, Reach};
use super::select::is_name;
use crate::names::slips;

/// Header keys of the design that this version cannot keep; to ignore them would break a promise.
const LATER: [&str; 3] = ["unique", "not_null", "check"];

const PARTITION: &str = "partition";
const READS: &str = "reads";

/// The lines of a mart's header.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// Partition columns, in the order of the folders.
    pub partition: Vec<String>,
    /// What is read of tables, and the line that says it.
    pub reads: Vec<(String, Reach, usize)>,
}

/// Where in the file a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Among the lines of comments above the SELECT.
    Header,
    /// In a comment between `/*` and `*/` there.
    Block,
    /// In the SELECT, or below it.
    Select,
}

/// Reads the header.
pub(super) fn header(file: &Path, text: &str) -> Result<Header, MartError> {
    let mut partition: Option<Vec<String>> = None;
    let mut reads: Vec<(String, Reach, usize)> = Vec::new();
    // Lines that mean something only where no header says it.
    let mut unsaid: Vec<(&'static str, MartError)> = Vec::new();
    let mut place = Place::Header;
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        let fail = |message: String| MartError::new(file, Some(i + 1), message);
        if place == Place::Header {
            match line {
                "" => continue,
                line if line.starts_with("/*") => place = Place::Block,
                line if !line.starts_with("--") => place = Place::Select,
                _ => {}
            }
        }
        let comment = line.trim_start_matches('-').trim();
        match (place, exact(comment)) {
            (Place::Block, _) => {
                let inner = comment.trim_start_matches(['/', '*', '-', ' ']);
                if let Some((key, value)) = exact(inner)
                    && is_whole(&key, value)
                {
                    let value = value.trim_end_matches("*/").trim();
                    return Err(
                        fail(format!("the header `{key}` is in a block comment")).hint(format!(
                            "write it as a line of its own: `-- {key}: {value}`"
                        )),
                    );
                }
                if let Some((_, behind)) = line.split_once("*/") {
                    place = match behind.trim() {
                        "" => Place::Header,
                        behind if behind.starts_with("--") => Place::Header,
                        _ => Place::Select,
                    };
                }
            }
            (Place::Select, Some((key, value)))
                if line.starts_with("--") && is_whole(&key, value) =>
            {
                let error = fail(format!("the header `{key}` is below the SELECT"))
                    .hint("move the line above the first word of the SELECT");
                unsaid.push((if key == READS { READS } else { PARTITION }, error));
            }
            (Place::Select, _) => {}
            (Place::Header, Some((key, value))) if key == PARTITION => {
                if partition.is_some() {
                    return Err(fail("`partition` is given twice".into())
                        .hint("name all partition columns on one line, separated by commas"));
                }
                partition = Some(partition_columns(value, fail)?);
            }
            (Place::Header, Some((key, value))) if key == READS => {
                for text in value.split(',') {
                    let (table, reach) = reach::parse(text).map_err(|message| {
                        fail(message).hint(
                            "write `<table> back 6d`, `ahead 1d`, `back all` or `all`; tables are \
                             separated by commas",
                        )
                    })?;
                    if reads.iter().any(|(other, ..)| *other == table) {
                        return Err(fail(format!("`reads` names `{table}` twice")));
                    }
                    reads.push((table, reach, i + 1));
                }
            }
            (Place::Header, Some((key, _))) => {
                return Err(fail(format!(
                    "the header `{key}` is not supported by this version"
                ))
                .hint("take the line out"));
            }
            (Place::Header, None) => {
                let Some(near) = near(comment, text) else {
                    continue;
                };
                let error =
                    fail(format!("the header `{}` is not known", near.written)).hint(format!(
                        "is it `{}`? write `-- {}`; if it is prose, reword the line",
                        near.key, near.right
                    ));
                match near.separated {
                    true => return Err(error),
                    false => unsaid.push((near.key, error)),
                }
            }
        }
    }
    let said = |key: &str| match key {
        PARTITION => partition.is_some(),
        _ => !reads.is_empty(),
    };
    match unsaid.into_iter().find(|(key, _)| !said(key)) {
        Some((_, error)) => Err(error),
        None => Ok(Header {
            partition: partition.unwrap_or_default(),
            reads,
        }),
    }
}

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

/// Key and value of a header that is spelt as it should be.
fn exact(comment: &str) -> Option<(String, &str)> {
    let (key, value) = comment.split_once(':')?;
    let key = key.trim().to_ascii_lowercase();
    let known = [PARTITION, READS].contains(&key.as_str()) || LATER.contains(&key.as_str());
    known.then_some((key, value))
}

/// Whether a line elsewhere can only be a header: prose has other words behind the colon.
fn is_whole(key: &str, value: &str) -> bool {
    let value = value.trim_end_matches("*/").trim();
    match key {
        PARTITION => value.split(',').all(|name| is_name(name.trim())),
        READS => value.split(',').all(|text| reach::parse(text).is_ok()),
        _ => false,
    }
}

/// A line that looks like a header and is none.
struct Near {
    key: &'static str,
    /// The key as the line has it.
    written: String,
    /// The header as it should be.
    right: String,
    /// It has a sign between key and value. Without one it may also be a sentence, which is right as long
    /// as a header says the same.
    separated: bool,
}

/// Signs that people write between key and value, `：` and `＝` among them.
const SIGNS: [char; 5] = [':', '=', '\u{ff1a}', '\u{ff1d}', '\u{2192}'];

fn near(comment: &str, sql: &str) -> Option<Near> {
    // Bullets, asterisks and other ornament.
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
        // `-- Unique users` and `-- * check: …` are prose.
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

/// The first word in lower case, `-` as `_`, and what follows.
fn word(text: &str) -> (String, &str) {
    let is_part = |c: char| c.is_alphabetic() || c == '_' || c == '-';
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let word = word.trim_end_matches('-');
    let rest = text.get(word.len()..).unwrap_or(rest);
    (word.to_lowercase().replace('-', "_"), rest)
}

/// Whether a word is in the SQL outside of whole lines of comment.
fn mentions(sql: &str, name: &str) -> bool {
    sql.lines()
        .filter(|line| !line.trim_start().starts_with("--"))
        .flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'))
        .any(|word| word.eq_ignore_ascii_case(name))
}

/// The key that a word is near to: only a slip of the fingers.
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
        // What a header says too may be said in prose.
        for text in [
            "-- partition: dt\n-- Partitioned by dt\nSELECT dt FROM events",
            "-- Partition dt\n-- partition: dt\nSELECT dt FROM events\n-- partition: dt",
        ] {
            let header = header(Path::new("m.sql"), text).unwrap();
            assert_eq!(header.partition, ["dt"], "{text}");
        }
    }
}
