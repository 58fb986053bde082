//! The header of a mart: `-- key: value` lines above the SELECT.
//!
//! A line that is meant as a header and spelt in another way would be read as prose, and the mart would be built
//! without it. Such a line is refused with the right spelling. Ordinary prose is not refused.

use std::path::Path;

use super::MartError;
use super::claims::{Said, Severity};
use super::reach::{self, Reach};
use super::select::is_name;
use crate::config::duration;
use crate::names::{nearest, slips};

const PARTITION: &str = "partition";
const READS: &str = "reads";
const UNIQUE: &str = "unique";
const NOT_NULL: &str = "not_null";
const CHECK: &str = "check";
const ACCEPTED: &str = "accepted";
const SEVERITY: &str = "severity";
const OWNER: &str = "owner";
const DASHBOARD: &str = "dashboard";
const FRESH_WITHIN: &str = "fresh_within";

/// Every key of a header, in the order of the documentation.
pub(super) const KEYS: [&str; 10] = [
    PARTITION,
    READS,
    UNIQUE,
    NOT_NULL,
    CHECK,
    ACCEPTED,
    SEVERITY,
    OWNER,
    DASHBOARD,
    FRESH_WITHIN,
];

/// The lines of a mart's header.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// The partition columns, in the order of the folders.
    pub partition: Vec<String>,
    /// How far tables are read, each with the line that says it.
    pub reads: Vec<(String, Reach, usize)>,
    /// The claims about the rows, each with its line.
    pub claims: Vec<(Said, usize)>,
    /// What follows from a claim that does not hold.
    pub severity: Severity,
    /// The person or team that answers for the mart.
    pub owner: Option<String>,
    /// The dashboard that the mart is made for.
    pub dashboard: Option<String>,
    /// The longest silence of the sources below the mart, in milliseconds.
    pub fresh_within: Option<i64>,
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
    read(file, text).map(|(header, _)| header)
}

/// Reads the header of a file of `sql/checks`, which has a severity and nothing else.
///
/// # Errors
/// See [`header`]; another key.
pub(super) fn severity(file: &Path, text: &str) -> Result<Severity, MartError> {
    let (header, keys) = read(file, text)?;
    match keys.iter().find(|(key, _)| *key != SEVERITY) {
        None => Ok(header.severity),
        Some((key, line)) => Err(MartError::new(
            file,
            Some(*line),
            format!("the file of a check has no `{key}`"),
        )
        .hint("its only header is `-- severity: warn`; take the line out")),
    }
}

/// The keys of a header, each with its line.
type Keys = Vec<(&'static str, usize)>;

/// The header, and its keys.
fn read(file: &Path, text: &str) -> Result<(Header, Keys), MartError> {
    let mut reader = Reader {
        file,
        text,
        made: Header::default(),
        keys: Vec::new(),
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
    made: Header,
    /// The keys that were given, each with its line.
    keys: Keys,
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
        let Some((key, value)) = exact(comment) else {
            return self.prose_line(comment, number);
        };
        let value = value.trim();
        let several = [READS, UNIQUE, NOT_NULL, CHECK, ACCEPTED].contains(&key);
        if !several && self.is_given(key) {
            return Err(self
                .fail(number, format!("`{key}` is given twice"))
                .hint(match key {
                    PARTITION => "name all partition columns on one line, separated by commas",
                    _ => "take one of the lines out",
                }));
        }
        self.keys.push((key, number));
        match key {
            PARTITION => {
                let columns = columns(value, "a partition column");
                self.made.partition = self.at(number, columns)?;
            }
            READS => self.reads_line(value, number)?,
            SEVERITY => self.made.severity = self.at(number, severity_of(value))?,
            OWNER => self.made.owner = Some(self.at(number, some_text(key, value))?),
            DASHBOARD => self.made.dashboard = Some(self.at(number, some_text(key, value))?),
            FRESH_WITHIN => {
                let silence = duration(value)
                    .map_err(|message| (message, "for example `fresh_within: 2h`".to_owned()));
                self.made.fresh_within = Some(self.at(number, silence)?);
            }
            claim => {
                let said = self.at(number, said(claim, value))?;
                self.made.claims.push((said, number));
            }
        }
        Ok(())
    }

    fn is_given(&self, key: &str) -> bool {
        self.keys.iter().any(|(given, _)| *given == key)
    }

    /// The value of a line, or its error with the line.
    fn at<T>(&self, number: usize, value: Result<T, (String, String)>) -> Result<T, MartError> {
        value.map_err(|(message, hint)| self.fail(number, message).hint(hint))
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
            if self.made.reads.iter().any(|(other, ..)| *other == table) {
                return Err(self.fail(number, format!("`reads` names `{table}` twice")));
            }
            self.made.reads.push((table, reach, number));
        }
        Ok(())
    }

    /// Refuses or notes a comment that looks like a header.
    fn prose_line(&mut self, comment: &str, number: usize) -> Result<(), MartError> {
        let Some(near) = near(comment, self.text) else {
            return match unknown_key(comment) {
                None => Ok(()),
                Some(key) => Err(self
                    .fail(number, format!("the header `{key}` is not known"))
                    .hint(match nearest(key, KEYS) {
                        Some(near) => {
                            format!("is it `{near}`? if it is prose, begin the line with a capital")
                        }
                        None => format!(
                            "the keys are {}; if it is prose, begin the line with a capital",
                            KEYS.join(", ")
                        ),
                    })),
            };
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
            && is_whole(key, value)
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
            && is_whole(key, value)
        {
            let error = self
                .fail(number, format!("the header `{key}` is below the SELECT"))
                .hint("move the line above the first word of the SELECT");
            self.doubtful.push((key, error));
        }
    }

    fn finish(self) -> Result<(Header, Keys), MartError> {
        let Self {
            made,
            keys,
            doubtful,
            ..
        } = self;
        let said = |key: &str| keys.iter().any(|(given, _)| *given == key);
        // A claim that is below the SELECT would not be checked, whatever other claims there are.
        let is_lost = |key: &str| !said(key) || ![PARTITION, READS].contains(&key);
        match doubtful.into_iter().find(|(key, _)| is_lost(key)) {
            Some((_, error)) => Err(error),
            None => Ok((made, keys)),
        }
    }
}

/// The columns of a list that are separated by commas, each once. `what` is what each of them is.
fn columns(list: &str, what: &str) -> Result<Vec<String>, (String, String)> {
    let names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
    for (n, name) in names.iter().enumerate() {
        if !is_name(name) {
            return Err((
                format!("`{name}` cannot be {what}"),
                "a name is a lower-case letter, then letters, digits or `_`; names are separated by commas"
                    .to_owned(),
            ));
        }
        if names.iter().take(n).any(|other| other == name) {
            let what = what.trim_start_matches("a ");
            return Err((
                format!("{what} `{name}` is given twice"),
                "name it once".to_owned(),
            ));
        }
    }
    Ok(names)
}

/// The claim of a line with this key.
fn said(key: &str, value: &str) -> Result<Said, (String, String)> {
    match key {
        UNIQUE => columns(value, "a column").map(Said::Unique),
        NOT_NULL => columns(value, "a column").map(Said::NotNull),
        ACCEPTED => Said::accepted(value),
        _ => Said::check(value),
    }
}

fn severity_of(value: &str) -> Result<Severity, (String, String)> {
    match value {
        "warn" => Ok(Severity::Warn),
        "error" => Ok(Severity::Error),
        other => Err((
            format!("`{other}` is no severity"),
            "write `warn` or `error`".to_owned(),
        )),
    }
}

fn some_text(key: &str, value: &str) -> Result<String, (String, String)> {
    match value {
        "" => Err((
            format!("`{key}` has no value"),
            "write a name, or take the line out".to_owned(),
        )),
        value => Ok(value.to_owned()),
    }
}

/// The key and the value of a header whose key is spelt right.
fn exact(comment: &str) -> Option<(&'static str, &str)> {
    let (key, value) = comment.split_once(':')?;
    let key = key.trim();
    let mut keys = KEYS.into_iter();
    let known = keys.find(|known| known.eq_ignore_ascii_case(key))?;
    Some((known, value))
}

/// The key of a line such as `materialized: table`. Prose does not begin with a word in lower case and a colon.
fn unknown_key(comment: &str) -> Option<&str> {
    let (key, value) = comment.split_once(':')?;
    let is_word = !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let is_apart = value.is_empty() || value.starts_with(char::is_whitespace);
    (is_word && is_apart).then_some(key)
}

/// Whether a line outside of the header can only be meant as one: prose has other words behind the colon.
fn is_whole(key: &str, value: &str) -> bool {
    let value = value.trim_end_matches("*/").trim();
    match key {
        PARTITION | UNIQUE | NOT_NULL => value.split(',').all(|name| is_name(name.trim())),
        READS => value.split(',').all(|text| reach::parse(text).is_ok()),
        ACCEPTED => Said::accepted(value).is_ok(),
        CHECK => !is_name(value) && Said::check(value).is_ok(),
        SEVERITY => severity_of(value).is_ok(),
        FRESH_WITHIN => duration(value).is_ok(),
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
    let second_belongs = [
        "by", "on", "null", "key", "keys", "column", "columns", "within",
    ];
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
    ]
    .into_iter()
    .chain(KEYS)
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
            (
                "-- see http://x/y\n-- https://x/y\n-- Note: by day\nSELECT 1",
                Ok(none),
            ),
            (
                "-- hi\n-- materialized: table",
                Err(
                    "m.sql:2: the header `materialized` is not known; the keys are partition, reads",
                ),
            ),
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
                "-- hi\n-- unique: dt,",
                Err("m.sql:2: `` cannot be a column"),
            ),
            ("-- unique: dt, dt", Err("column `dt` is given twice")),
            ("-- uniqe: dt", Err("is it `unique`?")),
            ("-- notnull: dt", Err("is it `not_null`?")),
            ("-- fresh within: 2h", Err("is it `fresh_within`?")),
            ("-- fresh_within: 2 hours", Err("`fresh_within: 2h`")),
            ("-- checks: a > 1", Err("is it `check`?")),
            ("-- check: a >", Err("m.sql:1: `a >` is no condition")),
            ("-- check: a > 1, b > 1", Err("is no condition")),
            ("-- check: a > 1) OR (b > 1", Err("is no condition")),
            ("-- check:", Err("is no condition")),
            ("-- accepted: os = 'ios'", Err("`os in ('a', 'b')`")),
            ("-- accepted: os in (ios)", Err("`os in ('a', 'b')`")),
            ("-- severity: warning", Err("`warning` is no severity")),
            (
                "-- severity: warn\n-- severity: warn",
                Err("m.sql:2: `severity` is given twice"),
            ),
            ("-- owner:", Err("`owner` has no value")),
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

    #[test]
    fn claims_have_their_lines_and_a_file_of_a_check_only_a_severity() {
        let text = "-- Users.\n-- unique: dt, os\n-- not_null: dt , os\n-- check: a >= b -- why\n\
                    -- accepted: os IN ('a', 'it''s')\n-- severity: warn\n-- Owner: Growth\n\
                    -- dashboard: Daily: users\n-- fresh_within: 2h\nSELECT 1";
        let found = header(Path::new("m.sql"), text).unwrap();
        let names = vec!["dt".to_owned(), "os".to_owned()];
        let accepted = Said::Accepted("os IN ('a', 'it''s')".to_owned());
        assert_eq!(
            found,
            Header {
                claims: vec![
                    (Said::Unique(names.clone()), 2),
                    (Said::NotNull(names), 3),
                    (Said::Check("a >= b -- why".to_owned()), 4),
                    (accepted, 5),
                ],
                severity: Severity::Warn,
                owner: Some("Growth".to_owned()),
                dashboard: Some("Daily: users".to_owned()),
                fresh_within: Some(7_200_000),
                ..Header::default()
            }
        );
        let of = |text: &str| severity(Path::new("c.sql"), text).map_err(|error| error.to_string());
        assert_eq!(of("-- Why.\nSELECT 1"), Ok(Severity::Error));
        assert_eq!(of("-- severity: warn\nSELECT 1"), Ok(Severity::Warn));
        let error = of("-- Why.\n-- partition: dt\nSELECT 1").unwrap_err();
        assert!(error.starts_with("c.sql:2: the file of a check has no `partition`"));
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
            (
                "SELECT 1 AS a\n-- check: a > 0",
                "m.sql:2: the header `check` is below",
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
