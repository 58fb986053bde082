//! Past runs as text.

use std::io::{Result, Write};
use std::path::Path;

use super::{bytes, count, line, place, shown, signed, what_of};
use crate::run::{Change, History, PastCommit, PastRun};

/// Writes the last commits, for somebody in the folder `here`.
pub fn history(out: &mut impl Write, history: &History, here: Option<&Path>) -> Result<()> {
    let lake = place(&history.lake, here);
    for commit in &history.commits {
        past_commit(out, commit)?;
    }
    let (listed, all) = (history.commits.len() as u64, history.last_commit);
    if all == 0 {
        writeln!(out, "{lake}: no run has committed yet.")
    } else if listed == all {
        writeln!(out, "{lake}: {} commits.", count(all))
    } else {
        let (listed, all) = (count(listed), count(all));
        writeln!(out, "{lake}: the last {listed} of {all} commits (--limit).")
    }
}

/// Writes all commits of one run, for somebody in the folder `here`.
pub fn past_run(out: &mut impl Write, run: &PastRun, here: Option<&Path>) -> Result<()> {
    for whole in &run.commits {
        past_commit(out, &whole.commit)?;
        for (source, objects) in &whole.raw_objects {
            for object in objects {
                let rejects: u64 = object.rejects.values().sum();
                let sum = format!(
                    "= {} events + {} rejects",
                    count(object.events),
                    count(rejects)
                );
                line(
                    out,
                    object.records,
                    "records",
                    &format!("{sum}  {source}: {}", object.key),
                )?;
            }
        }
        for (source, keys) in &whole.forgotten {
            for key in keys {
                line(out, 1_u64, "taken out", &format!("{source}: {key}"))?;
            }
        }
        for file in &whole.data_files {
            line(
                out,
                file.rows,
                "rows",
                &format!("{} ({})", file.key, bytes(file.bytes)),
            )?;
        }
        for key in &whole.removed_files {
            line(out, 1_u64, "removed", key)?;
        }
    }
    writeln!(
        out,
        "{}: {} commits of run {}.",
        place(&run.lake, here),
        count(run.commits.len() as u64),
        run.run
    )
}

fn past_commit(out: &mut impl Write, commit: &PastCommit) -> Result<()> {
    let state = match commit.published {
        true => "",
        false => ", NOT PUBLISHED: the next run finishes it",
    };
    let (number, at, run) = (commit.commit, &commit.at, &commit.run);
    writeln!(out, "commit {number}, {at}, run {run}{state}")?;
    for (name, change) in &commit.sources {
        past_change(out, name, change)?;
    }
    for mart in &commit.marts {
        line(out, mart.rows, "rows", &mart.name)?;
    }
    if commit.removed > 0 {
        line(
            out,
            commit.removed,
            "removed",
            "files without rows, at places of an earlier partitioning",
        )?;
    }
    line(
        out,
        commit.files,
        "files",
        &format!("({})", bytes(commit.bytes)),
    )
}

fn past_change(out: &mut impl Write, source: &str, change: &Change) -> Result<()> {
    let read = match change.rebuilt {
        Some(rebuilt) => {
            writeln!(out, "  {source}: rebuild {}", what_of(rebuilt))?;
            format!("read again for {source}")
        }
        None => format!("read for {source}"),
    };
    line(out, change.objects, "raw objects", &read)?;
    for object in &change.dropped {
        let rejects: u64 = object.rejects.values().sum();
        writeln!(
            out,
            "  {source}: dropped for good: {}, with {} events and {} rejects",
            shown(&object.key),
            count(object.events),
            count(rejects)
        )?;
    }
    let forgotten = change.forgotten.saturating_sub(change.dropped.len() as u64);
    if forgotten > 0 {
        line(
            out,
            forgotten,
            "raw objects",
            &format!("taken out of {source}"),
        )?;
    }
    let mut rows = |n: i64, what: &str, which: &str| match n {
        0 => Ok(()),
        n => writeln!(out, "  {:>9} {what:<12} {which}", signed(n)),
    };
    let rejects: i64 = change.rejects.values().sum();
    let duplicates: i64 = change.duplicates.values().sum();
    let sum = format!(
        "= {} events, {} rejects",
        signed(change.events),
        signed(rejects)
    );
    rows(change.records, "records", &sum)?;
    let sum = format!(
        "= {} kept, {} duplicates",
        signed(change.kept),
        signed(duplicates)
    );
    rows(change.events, "events", &sum)?;
    for (rule, n) in &change.duplicates {
        rows(*n, "duplicates", rule)?;
    }
    for (reason, n) in &change.rejects {
        rows(*n, "rejects", reason.name())?;
    }
    Ok(())
}
