//! Results as text for people.

mod doctor;
mod history;
mod init;
mod plan;
mod run;
mod tables;
mod tested;
mod verified;
mod why;

pub use doctor::diagnosed;
pub use history::{history, past_run};
pub use init::initiated;
pub use plan::plan;
pub use run::{run, silence};
pub use tables::tables;
pub use tested::{reached, tested, tried_lines};
pub use verified::verified;
pub use why::why;

use std::io::{Result, Write};
use std::path::{Path, PathBuf};

use url::Url;

use crate::absorb::RejectsOf;
use crate::cli::Typing;
use crate::config::Job;
use crate::ledger::Rebuilt;
use crate::plan::Bytes;
use crate::run::{Dropped, Linted};

/// Somebody who reads a text: the folder that they are in, and the flags that they gave.
pub struct Reader<'a> {
    pub here: Option<&'a Path>,
    pub typing: &'a Typing,
}

/// `1234567` as `1,234,567`.
pub(super) fn count(n: impl TryInto<u64>) -> String {
    let digits = n.try_into().unwrap_or(0).to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn bytes(n: u64) -> Bytes {
    Bytes(n)
}

/// The first few of many names.
fn some(names: &[String]) -> String {
    let shown = names
        .iter()
        .take(3)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > 3 {
        format!("{shown}, …")
    } else {
        shown
    }
}

/// The place of a lake as somebody in the folder `here` would type it: a relative path if the lake lies below
/// the folder, otherwise the whole path, or the URL of a bucket. Query engines accept all of these, and none of
/// them accepts a `file://` URL.
fn place(lake: &str, here: Option<&Path>) -> String {
    let url = Url::parse(lake).ok().filter(|url| url.scheme() == "file");
    let Some(path) = url.and_then(|url| url.to_file_path().ok()) else {
        return lake.trim_end_matches('/').to_owned();
    };
    // This removes the `/` at the end.
    let path: PathBuf = path.components().collect();
    let near = here
        .and_then(|here| path.strip_prefix(here).ok())
        .filter(|near| !near.as_os_str().is_empty());
    near.unwrap_or(&path).display().to_string()
}

/// A line with a count and its name.
fn line(out: &mut impl Write, n: impl TryInto<u64>, what: &str, which: &str) -> Result<()> {
    writeln!(out, "  {:>9} {what:<12} {which}", count(n))
}

/// The first rejects of each reason, and what can be done about them.
pub fn rejects(out: &mut impl Write, found: &[RejectsOf]) -> Result<()> {
    for RejectsOf {
        reason,
        count: n,
        remedy,
        samples,
    } in found
    {
        writeln!(out, "  {} {}", count(*n), reason.name())?;
        for sample in samples {
            writeln!(
                out,
                "    {}, record {}: {}",
                shown(&sample.object),
                sample.record,
                shown(&sample.detail)
            )?;
            writeln!(out, "      {}", shown(&sample.text))?;
        }
        writeln!(out, "    → {remedy}")?;
    }
    Ok(())
}

/// Text from raw objects, on one line.
pub(super) fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => shown.extend(character.escape_debug()),
            false => shown.push(character),
        }
    }
    shown
}

/// The most partitions and raw objects that are shown one by one. If there are more partitions, the first and
/// the last are shown.
const SHOWN: usize = 12;

/// The dates that a rebuild covers, and where their events come from.
fn what_of(rebuilt: Rebuilt) -> String {
    let dates = match rebuilt.dates {
        Some(dates) => dates.to_string(),
        None => "all dates".to_owned(),
    };
    match rebuilt.from_raw {
        true => format!("of {dates} from raw"),
        false => format!("of {dates} from the stored tables"),
    }
}

/// The change of a count: `+1,234`.
fn signed(n: i64) -> String {
    let sign = if n < 0 { '-' } else { '+' };
    format!("{sign}{}", count(n.unsigned_abs()))
}

/// Writes what was found of the tables, for somebody in the folder `here`.
pub fn linted(out: &mut impl Write, linted: &Linted, here: Option<&Path>) -> Result<()> {
    for finding in &linted.findings {
        let reader = finding
            .reader
            .map_or("every reader", |reader| reader.name());
        let column = finding.column.as_ref();
        let column = column.map_or_else(String::new, |column| format!(".{column}"));
        let grade = match finding.unreadable {
            true => "cannot read",
            false => "note on",
        };
        writeln!(
            out,
            "{reader}: {grade} {}{column}: {}; {}",
            finding.table, finding.reason, finding.remedy
        )?;
    }
    let readers: Vec<&str> = linted.readers.iter().map(|reader| reader.name()).collect();
    writeln!(
        out,
        "{}: {} findings after {} commits, for {}.",
        place(&linted.lake, here),
        count(linted.findings.len() as u64),
        count(linted.last_commit),
        readers.join(", ")
    )
}

/// Writes what was dropped, for somebody in the folder `here`.
pub fn dropped(out: &mut impl Write, dropped: &Dropped, here: Option<&Path>) -> Result<()> {
    writeln!(
        out,
        "Dropped mart {} from {} in commit {}: {} files with {} rows, {}.",
        dropped.mart,
        place(&dropped.lake, here),
        dropped.commit,
        count(dropped.files),
        count(dropped.rows),
        bytes(dropped.bytes)
    )
}

pub fn config(out: &mut impl Write, job: &Job) -> Result<()> {
    // Each line is a line of rawmart, because a setting never begins a line inside a value.
    (job.to_toml().lines()).try_for_each(|line| writeln!(out, "{line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lake_is_named_as_it_is_typed() {
        let here = Some(Path::new("/home/me/app"));
        for (lake, shown) in [
            ("file:///home/me/app/lake/", "lake"),
            ("file:///home/me/app/data/my%20lake/", "data/my lake"),
            ("file:///home/me/app/", "/home/me/app"),
            ("file:///home/me/application/", "/home/me/application"),
            ("file:///", "/"),
            ("s3://acme-lake/app/", "s3://acme-lake/app"),
        ] {
            assert_eq!(place(lake, here), shown, "{lake}");
        }
        assert_eq!(
            place("file:///home/me/app/lake/", None),
            "/home/me/app/lake"
        );
    }
}
