//! Results as people read them.

use std::io::{Result, Write};
use std::path::{Path, PathBuf};

use url::Url;

use crate::config::Job;
use crate::plan::{RunPlan, Why, WhyMart};
use crate::run::{MartOutcome, RunOutcome, RunSummary, Verified};

/// `1234567` as `1,234,567`.
fn count(n: impl TryInto<u64>) -> String {
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

fn bytes(n: u64) -> String {
    indicatif::HumanBytes(n).to_string()
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

/// A lake as the reader of `here` types it: a path from there when it lies below, else the whole
/// path, or the URL of a bucket. Query engines take each of these, and none a `file://` URL.
fn place(lake: &str, here: Option<&Path>) -> String {
    let url = Url::parse(lake).ok().filter(|url| url.scheme() == "file");
    let Some(path) = url.and_then(|url| url.to_file_path().ok()) else {
        return lake.trim_end_matches('/').to_owned();
    };
    // Without the `/` at the end.
    let path: PathBuf = path.components().collect();
    let near = here
        .and_then(|here| path.strip_prefix(here).ok())
        .filter(|near| !near.as_os_str().is_empty());
    near.unwrap_or(&path).display().to_string()
}

fn place_from_here(lake: &str) -> String {
    place(lake, std::env::current_dir().ok().as_deref())
}

/// One line of a count and what it counts.
fn line(out: &mut impl Write, n: impl TryInto<u64>, what: &str, which: &str) -> Result<()> {
    writeln!(out, "  {:>9} {what:<12} {which}", count(n))
}

pub fn run(out: &mut impl Write, summary: &RunSummary, seconds: f64) -> Result<()> {
    if let Some(commit) = summary.rolled_forward {
        writeln!(
            out,
            "Finished publishing commit {commit} of an earlier run."
        )?;
    }
    for (name, source) in &summary.sources {
        let news = if source.rebuilt {
            format!("{} new", count(source.new_objects))
        } else {
            "nothing new".to_owned()
        };
        writeln!(out, "{name}: {} raw objects, {news}", count(source.objects))?;
        let rejects: i64 = source.rejects.values().sum();
        let duplicates: i64 = source.duplicates.values().sum();
        let sum = format!(
            "= {} events + {} rejects",
            count(source.events),
            count(rejects)
        );
        line(out, source.records, "records", &sum)?;
        let sum = format!(
            "= {} kept + {} duplicates",
            count(source.kept),
            count(duplicates)
        );
        line(out, source.events, "events", &sum)?;
        for (rule, n) in &source.duplicates {
            line(out, *n, "duplicates", rule)?;
        }
        for (reason, n) in &source.rejects {
            line(out, *n, "rejects", reason.name())?;
        }
        for (why, n) in &source.skipped {
            line(out, *n, "keys skipped", why)?;
        }
        for (column, n) in &source.nulled {
            line(out, *n, "made null", column)?;
        }
        let span = match source.partitions.as_slice() {
            [] => String::new(),
            [only] => only.clone(),
            [first, .., last] => format!("{first} … {last}"),
        };
        line(out, source.partitions.len() as u64, "partitions", &span)?;
    }
    if !summary.marts.is_empty() {
        writeln!(out, "marts:")?;
    }
    for mart in &summary.marts {
        match &mart.outcome {
            MartOutcome::Built => line(out, mart.rows, "rows", &mart.name)?,
            MartOutcome::Fresh => line(out, mart.rows, "rows", &format!("{} (fresh)", mart.name))?,
            MartOutcome::Failed { error } => writeln!(out, "     FAILED {}: {error}", mart.name)?,
            MartOutcome::Skipped { because } => {
                writeln!(
                    out,
                    "    skipped {}: it reads {because}, which was not built",
                    mart.name
                )?;
            }
        }
    }
    let lake = place_from_here(&summary.lake);
    match summary.outcome {
        RunOutcome::NothingNew => writeln!(
            out,
            "Nothing new: {lake} is as commit {} left it ({seconds:.1} s).",
            summary.commit
        ),
        RunOutcome::Done if summary.files == 0 && summary.rolled_forward.is_none() => {
            writeln!(
                out,
                "Nothing was published: {lake} is as commit {} left it.",
                summary.commit
            )
        }
        RunOutcome::Done => {
            writeln!(
                out,
                "Published commit {} to {lake}: {} files, {} read, {} written, {seconds:.1} s.",
                summary.commit,
                count(summary.files),
                bytes(summary.bytes_read),
                bytes(summary.bytes_written),
            )?;
            next_steps(out, summary, &lake)
        }
    }
}

fn next_steps(out: &mut impl Write, summary: &RunSummary, lake: &str) -> Result<()> {
    let there = |mart: &&crate::run::MartSummary| {
        matches!(mart.outcome, MartOutcome::Built | MartOutcome::Fresh)
    };
    let mart = summary.marts.iter().find(there).map(|mart| &mart.name);
    let Some(table) = mart.or(summary.sources.keys().next()) else {
        return Ok(());
    };
    let lake = lake.trim_end_matches('/').replace('\'', "''");
    writeln!(out, "\nNext:")?;
    writeln!(
        out,
        "  duckdb -c \"FROM read_parquet('{lake}/{table}/**/*.parquet', hive_partitioning = true)\""
    )?;
    writeln!(out, "  rawmart plan      what the next run would do")?;
    writeln!(
        out,
        "  rawmart verify    prove that what is published is what the log says"
    )
}

pub fn plan(out: &mut impl Write, plan: &RunPlan) -> Result<()> {
    if let Some(commit) = plan.roll_forward {
        writeln!(
            out,
            "commit {commit}: committed and not published; it is finished first"
        )?;
    }
    for source in &plan.sources {
        let why = match source.why {
            None => "nothing to do",
            Some(Why::First) => "build, first run",
            Some(Why::NewObjects) => "build, new raw objects",
            Some(Why::SettingsChanged) => "build, its settings changed",
        };
        writeln!(out, "{}: {why}", source.source)?;
        let (all, new) = (bytes(source.bytes), bytes(source.new_bytes));
        line(out, source.objects, "raw objects", &format!("({all})"))?;
        line(out, source.new_objects, "new", &format!("({new})"))?;
        for (why, keys) in &source.skipped {
            line(
                out,
                keys.len() as u64,
                "skipped",
                &format!("{why}: {}", some(keys)),
            )?;
        }
        if !source.changed.is_empty() {
            let keys = format!("the run will refuse: {}", some(&source.changed));
            line(out, source.changed.len() as u64, "changed", &keys)?;
        }
        if !source.vanished.is_empty() {
            line(
                out,
                source.vanished.len() as u64,
                "gone",
                &some(&source.vanished),
            )?;
        }
    }
    for mart in &plan.marts {
        let why = match &mart.why {
            None => "fresh".to_owned(),
            Some(WhyMart::First) => "build, first time".to_owned(),
            Some(WhyMart::SqlChanged) => "build, its SQL changed".to_owned(),
            Some(WhyMart::InputsChanged(tables)) => {
                format!("build, changed: {}", tables.join(", "))
            }
        };
        writeln!(out, "mart {}: {why}", mart.mart)?;
    }
    if plan.is_empty() {
        writeln!(out, "Nothing to do.")?;
    }
    Ok(())
}

pub fn verified(out: &mut impl Write, verified: &Verified) -> Result<()> {
    for damage in &verified.damage {
        writeln!(out, "DAMAGE {damage}")?;
    }
    for stray in &verified.strays {
        writeln!(
            out,
            "stray {stray}: not in the log, and readers may read it"
        )?;
    }
    let verdict = match verified.damage.len() {
        0 => "every file is as the log says, every count balances".to_owned(),
        n => format!("{} faults", count(n as u64)),
    };
    writeln!(
        out,
        "{}: {} files, {} raw objects, {} commits; {verdict}.",
        place_from_here(&verified.lake),
        count(verified.files),
        count(verified.objects),
        count(verified.commits),
    )
}

pub fn config(out: &mut impl Write, job: &Job) -> Result<()> {
    write!(out, "{}", job.to_toml())
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
