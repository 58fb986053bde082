//! The summary of a run as text.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Result, Write};

use chrono::NaiveDate;

use super::{Reader, SHOWN, bytes, count, line, place, shown, signed, some, what_of};
use crate::absorb::{Incomplete, NullColumn, WhySlice};
use crate::event::Reason;
use crate::mart::{Broken, Severity};
use crate::run::{
    CatalogSummary, CheckSummary, MartOutcome, MartSummary, RunOutcome, RunSummary, Sample,
    Silence, SourceSummary,
};

/// Writes the summary of a run that took so many seconds.
pub fn run(
    out: &mut impl Write,
    summary: &RunSummary,
    seconds: f64,
    reader: &Reader<'_>,
) -> Result<()> {
    if let Some(commit) = summary.rolled_forward {
        writeln!(
            out,
            "Finished publishing commit {commit} of an earlier run."
        )?;
    }
    for (name, source) in &summary.sources {
        counts(out, name, source)?;
        changes(out, name, source, reader)?;
    }
    if !summary.marts.is_empty() {
        writeln!(out, "marts:")?;
    }
    for mart in &summary.marts {
        one_mart(out, mart)?;
    }
    gone_marts(out, &summary.gone_marts)?;
    for found in &summary.silences {
        writeln!(out, "SILENT {}", silence(found))?;
    }
    if summary.removed > 0 {
        writeln!(
            out,
            "Removed {} files without rows that lay where an earlier partitioning had put them.",
            count(summary.removed)
        )?;
    }
    if let Some(catalog) = &summary.catalog {
        one_catalog(out, catalog)?;
    }
    let lake = place(&summary.lake, reader.here);
    match summary.outcome {
        RunOutcome::NothingNew => writeln!(
            out,
            "Nothing new: {lake} is as commit {} left it ({seconds:.1} s).",
            summary.commit
        ),
        RunOutcome::Done
            if summary.files == 0 && summary.removed == 0 && summary.rolled_forward.is_none() =>
        {
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
            next_steps(out, summary, &lake, reader)
        }
    }
}

/// A sentence about a source that is silent for too long.
pub fn silence(silence: &Silence) -> String {
    let Silence {
        source,
        mart,
        owner,
        fresh_within,
        last_arrival,
    } = silence;
    let last = match last_arrival {
        Some(time) => format!("the last raw object of {source} arrived at {time}"),
        None => format!("no raw object of {source} has arrived"),
    };
    let owner = owner
        .as_ref()
        .map_or_else(String::new, |owner| format!(", owner {}", shown(owner)));
    match mart {
        Some(mart) => {
            format!("mart {mart}{owner}: {last}, and it must be fresh within {fresh_within}")
        }
        None => format!("source {source}: {last}, and it must be fresh within {fresh_within}"),
    }
}

/// Marts that nothing builds any more.
pub(super) fn gone_marts(out: &mut impl Write, marts: &[String]) -> Result<()> {
    for mart in marts {
        writeln!(
            out,
            "mart {mart}: its SQL file is gone, so its table stays as it was last built; put the file back, or \
             `rawmart marts --drop {mart}`"
        )?;
    }
    Ok(())
}

/// What the catalog was told.
fn one_catalog(out: &mut impl Write, catalog: &CatalogSummary) -> Result<()> {
    let CatalogSummary {
        database,
        tables,
        partitions,
        expired,
        problems,
    } = catalog;
    match (*tables, problems.as_slice()) {
        (0, []) => writeln!(out, "catalog: {database} is up to date")?,
        (0, _) => {}
        _ => writeln!(
            out,
            "catalog: {database} was told of {} tables and {} partitions",
            count(*tables),
            count(*partitions)
        )?,
    }
    if *expired > 0 {
        writeln!(
            out,
            "Deleted {} data files of earlier versions of partitions: `retain` has passed.",
            count(*expired)
        )?;
    }
    for problem in problems {
        writeln!(out, "catalog: {database} is BEHIND: {}", problem.error)?;
    }
    Ok(())
}

/// The counts of a source: the changes by the run, and the totals.
fn counts(out: &mut impl Write, name: &str, source: &SourceSummary) -> Result<()> {
    let again = source.added.objects.saturating_sub(source.new_objects);
    let news = match (source.new_objects, again) {
        (0, 0) => "nothing new".to_owned(),
        (new, 0) => format!("{} new", count(new)),
        (0, again) => format!("{} read again", count(again)),
        (new, again) => format!("{} new, {} read again", count(new), count(again)),
    };
    let rebuilt = source.rebuild.filter(|_| source.rebuilt);
    let rebuilt = rebuilt.map_or_else(String::new, |rebuilt| {
        format!("rebuild {}; ", what_of(rebuilt))
    });
    let objects = count(source.objects);
    writeln!(out, "{name}: {rebuilt}{objects} raw objects, {news}")?;
    writeln!(out, "  {:>9} {:>9}", "added", "in all")?;
    let added = &source.added.counts;
    let rejects: i64 = source.rejects.values().sum();
    let duplicates: i64 = source.duplicates.values().sum();
    let sum = format!(
        "= {} events + {} rejects",
        count(source.events),
        count(rejects)
    );
    both(out, added.records, source.records, "records", &sum)?;
    let sum = format!(
        "= {} kept + {} duplicates",
        count(source.kept),
        count(duplicates)
    );
    both(out, added.events, source.events, "events", &sum)?;
    // A rule or a reason that no longer exists may still have counts.
    let rules = source.duplicates.keys().chain(added.duplicates.keys());
    for rule in rules.collect::<BTreeSet<_>>() {
        let of = |counts: &BTreeMap<String, i64>| counts.get(rule).copied().unwrap_or(0);
        let (new, all) = (of(&added.duplicates), of(&source.duplicates));
        both(out, new, all, "duplicates", rule)?;
    }
    let reasons = source.rejects.keys().chain(added.rejects.keys());
    for reason in reasons.collect::<BTreeSet<_>>() {
        let of = |counts: &BTreeMap<Reason, i64>| counts.get(reason).copied().unwrap_or(0);
        let (new, all) = (of(&added.rejects), of(&source.rejects));
        both(out, new, all, "rejects", reason.name())?;
    }
    Ok(())
}

/// The changes of a source by a run, and everything that the run noticed.
fn changes(
    out: &mut impl Write,
    name: &str,
    source: &SourceSummary,
    reader: &Reader<'_>,
) -> Result<()> {
    for key in &source.dropped {
        writeln!(out, "  dropped for good: {}", shown(key))?;
    }
    for (why, n) in &source.skipped {
        in_all(out, *n, "keys skipped", why)?;
    }
    let values = &source.values;
    for (what, counts) in [
        ("made null", &values.nulled),
        ("converted", &values.coerced),
        ("out of reach", &values.unreached),
    ] {
        for (column, n) in counts {
            new(out, *n, what, column)?;
        }
    }
    for column in values.unreached.keys() {
        writeln!(
            out,
            "  the path of column {column} met values that have no members and are no JSON text: it is NULL there"
        )?;
    }
    for (kind, n) in &source.empty {
        new(out, *n, "no record", kind)?;
    }
    incomplete(out, &source.incomplete)?;
    slices(out, source)?;
    let span = match source.partitions.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first, .., last] => format!("{first} … {last}"),
    };
    in_all(out, source.partitions.len() as u64, "partitions", &span)?;
    found_nothing(out, source)?;
    for (column, dates) in &source.unfilled {
        let rebuild = reader.typing.command(&format!("rebuild --source {name}"));
        writeln!(
            out,
            "  column {column} is newer than {} published dates: it is NULL there, and `extra` keeps its \
             values; `{rebuild}` fills it",
            count(*dates)
        )?;
    }
    Ok(())
}

fn slices(out: &mut impl Write, source: &SourceSummary) -> Result<()> {
    for (why, n) in &source.slices {
        let why = match why {
            WhySlice::NewEvents => "new",
            WhySlice::MoreEvents => "written anew, more events",
            WhySlice::EventsLeft => "written anew, events left",
            WhySlice::EventsReplaced => "written anew, events left and others came",
            WhySlice::ReadAgain => "written anew, read again from raw",
            WhySlice::Verdicts => "written anew, other verdicts",
            WhySlice::ColumnsFilled => "written anew with the columns that came later",
        };
        new(out, *n, "slices", why)?;
    }
    Ok(())
}

fn one_mart(out: &mut impl Write, mart: &MartSummary) -> Result<()> {
    match &mart.outcome {
        MartOutcome::Built => {
            line(
                out,
                mart.rows,
                "rows",
                &format!("{}{}", mart.name, notes(mart)),
            )?;
            if let Some(partitions) = mart.many_partitions {
                writeln!(
                    out,
                    "    {} has {} partitions, a file each, and readers list and open every one: partition it by a \
                     coarser column, such as a month, or leave `-- partition:` out",
                    mart.name,
                    count(partitions)
                )?;
            }
            let left_out: Vec<String> = mart.left_out.iter().map(NaiveDate::to_string).collect();
            if !left_out.is_empty() {
                writeln!(
                    out,
                    "    left out of {}, as nothing that it reads has the date: rows of {}",
                    mart.name,
                    some(&left_out)
                )?;
            }
            if let Some(sample) = &mart.sample {
                sampled(out, &mart.name, sample)?;
            }
            for note in &mart.notes {
                writeln!(out, "    {}: {note}", mart.name)?;
            }
        }
        MartOutcome::Fresh => line(out, mart.rows, "rows", &format!("{} (fresh)", mart.name))?,
        MartOutcome::Failed { error } => {
            writeln!(out, "     FAILED {}: {error}", mart.name)?;
            let told = [("owner", &mart.owner), ("dashboard", &mart.dashboard)];
            for (what, name) in told {
                if let Some(name) = name {
                    writeln!(out, "       {what}: {}", shown(name))?;
                }
            }
        }
        MartOutcome::Skipped { because } => {
            writeln!(
                out,
                "    skipped {}: it reads {because}, which was not built",
                mart.name
            )?;
        }
    }
    match &mart.checks {
        Some(checks) => checked(out, checks),
        None => Ok(()),
    }
}

/// How many dates of a mart were built, and how many claims were checked and hold.
fn notes(mart: &MartSummary) -> String {
    let mut notes = Vec::new();
    notes.extend(mart.dates.map(|n| format!("{} dates built", count(n))));
    let held = mart
        .checks
        .as_ref()
        .filter(|checks| checks.failed.is_empty());
    notes.extend(held.map(|checks| match checks.ran {
        1 => "1 check holds".to_owned(),
        n => format!("{} checks hold", count(n)),
    }));
    match notes.is_empty() {
        true => String::new(),
        false => format!(" ({})", notes.join(", ")),
    }
}

/// The claims of a mart that do not hold, with the rows that break them.
pub(super) fn checked(out: &mut impl Write, checks: &CheckSummary) -> Result<()> {
    for failed in &checks.failed {
        if failed.severity == Severity::Warn {
            writeln!(out, "    WARNING {}", failed.error)?;
        }
        writeln!(out, "      broken: {}", shown(&failed.check))?;
        for row in &failed.sample {
            let row = Broken::row(&failed.columns, row);
            writeln!(out, "        {row}")?;
        }
        match failed.rows.saturating_sub(failed.sample.len() as u64) {
            0 => {}
            more => writeln!(out, "        … {} more …", count(more))?,
        }
        match failed.line {
            Some(_) => writeln!(out, "        found by: {}", shown(&failed.query))?,
            None => writeln!(out, "        found by: {}", shown(&failed.file))?,
        }
    }
    Ok(())
}

/// A line with the change of a count and its total.
fn both(
    out: &mut impl Write,
    added: i64,
    all: impl TryInto<u64>,
    what: &str,
    which: &str,
) -> Result<()> {
    let (added, all) = (signed(added), count(all));
    writeln!(out, "  {added:>9} {all:>9} {what:<12} {which}")
}

/// A line with the change of a count.
fn new(out: &mut impl Write, n: u64, what: &str, which: &str) -> Result<()> {
    writeln!(out, "  {:>9} {:>9} {what:<12} {which}", count(n), "")
}

/// A line with a total.
fn in_all(out: &mut impl Write, n: u64, what: &str, which: &str) -> Result<()> {
    writeln!(out, "  {:>9} {:>9} {what:<12} {which}", "", count(n))
}

/// The columns and rules that found nothing in any event of a run.
fn found_nothing(out: &mut impl Write, source: &SourceSummary) -> Result<()> {
    let mut absent = Vec::new();
    for NullColumn {
        column,
        path,
        nearest,
    } in &source.null_columns
    {
        let rest = match nearest {
            Some(near) if near == path => {
                " that fits its type; the values are in `extra`".to_owned()
            }
            Some(near) => format!("; the events have `{near}`, is it that?"),
            None => {
                absent.push(column.as_str());
                continue;
            }
        };
        writeln!(
            out,
            "  column {column} is NULL in every event that was read: none has a value at `{path}`{rest}"
        )?;
    }
    let names = absent.join(", ");
    match absent.len() {
        0 => {}
        1 => writeln!(out, "  column {names} is NULL in every event that was read")?,
        _ => writeln!(
            out,
            "  columns {names} are NULL in every event that was read"
        )?,
    }
    for rule in &source.keyless_rules {
        writeln!(
            out,
            "  rule {rule} applied to no event: a column of its key, or of its `when`, is NULL in every event \
             that was read"
        )?;
    }
    Ok(())
}

/// The raw objects that are not whole, one on each line.
fn incomplete(out: &mut impl Write, incomplete: &Incomplete) -> Result<()> {
    if incomplete.is_empty() {
        return Ok(());
    }
    let lost = format!("incomplete, {} lost", bytes(incomplete.lost_bytes));
    new(out, incomplete.count, "raw objects", &lost)?;
    for object in incomplete.objects.iter().take(SHOWN) {
        writeln!(
            out,
            "    {}: {} events in {} records, {} of {} stored bytes lost: {}",
            shown(&object.object),
            count(object.events),
            count(object.records),
            count(object.lost_bytes),
            count(object.stored_bytes),
            shown(&object.why)
        )?;
    }
    match incomplete.count.saturating_sub(SHOWN as u64) {
        0 => Ok(()),
        more => writeln!(out, "    … {} more …", count(more)),
    }
}

/// The result of the comparison of sample dates of a mart, and the dates that were not compared.
fn sampled(out: &mut impl Write, mart: &str, sample: &Sample) -> Result<()> {
    let same = sample.same.len();
    if let Some(days) = sample.same.values().min() {
        writeln!(
            out,
            "    {} of {mart} compared with an evaluation over {days} days around: the same rows \
             (numbers that are rounded to 9 digits)",
            match same {
                1 => "1 date".to_owned(),
                n => format!("{n} dates"),
            },
        )?;
    }
    for (date, why) in &sample.not_compared {
        writeln!(
            out,
            "    {date} of {mart} not compared with the days around it: {why}"
        )?;
    }
    if sample.too_few {
        writeln!(
            out,
            "    {mart} has fewer than 3 dates near each other so far: it is compared again at its next build"
        )?;
    }
    Ok(())
}

fn next_steps(
    out: &mut impl Write,
    summary: &RunSummary,
    lake: &str,
    reader: &Reader<'_>,
) -> Result<()> {
    let there =
        |mart: &&MartSummary| matches!(mart.outcome, MartOutcome::Built | MartOutcome::Fresh);
    let mart = summary.marts.iter().find(there).map(|mart| &mart.name);
    let Some(table) = mart.or(summary.sources.keys().next()) else {
        return Ok(());
    };
    let lake = lake.trim_end_matches('/').replace('\'', "''");
    writeln!(out)?;
    writeln!(out, "Next:")?;
    writeln!(
        out,
        "  duckdb -c \"FROM read_parquet('{lake}/{table}/**/*.parquet', hive_partitioning = true, union_by_name = true)\""
    )?;
    queries(out, summary, reader)?;
    let [plan, verify] = ["plan", "verify"].map(|command| reader.typing.command(command));
    let width = plan.chars().count().max(verify.chars().count());
    writeln!(out, "  {plan:width$}    what the next run would do")?;
    writeln!(
        out,
        "  {verify:width$}    prove that what is published is what the log says"
    )
}

/// The queries that show the duplicates and the rejects of a run.
fn queries(out: &mut impl Write, summary: &RunSummary, reader: &Reader<'_>) -> Result<()> {
    for (name, source) in &summary.sources {
        let added = &source.added.counts;
        let query = |sql: String| format!("{} \"{sql}\"", reader.typing.command("query"));
        if added.duplicates.values().any(|n| *n > 0) {
            let columns = "rule, raw_object, raw_record, kept_object, kept_record";
            let sql = format!("SELECT {columns} FROM {name}_duplicates LIMIT 20");
            writeln!(out, "  {}", query(sql))?;
        }
        if added.rejects.values().any(|n| *n > 0) {
            let columns = "reason, detail, raw_object, raw_record, raw_text";
            let sql = format!("SELECT {columns} FROM {name}_rejects LIMIT 20");
            writeln!(out, "  {}", query(sql))?;
        }
    }
    Ok(())
}
