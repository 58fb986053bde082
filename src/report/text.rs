//! Results as people read them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Result, Write};
use std::path::{Path, PathBuf};

use chrono::NaiveDate;
use url::Url;

use crate::absorb::{Incomplete, NullColumn, RejectsOf, WhySlice};
use crate::config::Job;
use crate::event::Reason;
use crate::plan::{
    Bytes, Estimate, MartPlan, PartitionPlan, Requests, RunPlan, Why, WhyMart, WhyPartition,
};
use crate::run::{
    Change, History, MartOutcome, Note, PastCommit, PastRun, Repaired, RunOutcome, RunSummary,
    Sample, SourceSummary, Verified,
};

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
        let again = source.added.objects.saturating_sub(source.new_objects);
        let news = match (source.new_objects, again) {
            (0, 0) => "nothing new".to_owned(),
            (new, 0) => format!("{} new", count(new)),
            (0, again) => format!("{} read again", count(again)),
            (new, again) => format!("{} new, {} read again", count(new), count(again)),
        };
        writeln!(out, "{name}: {} raw objects, {news}", count(source.objects))?;
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
        // A rule or a reason that is gone has left something.
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
        for (why, n) in &source.skipped {
            in_all(out, *n, "keys skipped", why)?;
        }
        for (column, n) in &source.nulled {
            new(out, *n, "made null", column)?;
        }
        incomplete(out, &source.incomplete)?;
        for (why, n) in &source.slices {
            let why = match why {
                WhySlice::NewEvents => "new",
                WhySlice::MoreEvents => "written anew, more events",
                WhySlice::EventsLeft => "written anew, events left",
                WhySlice::EventsReplaced => "written anew, events left and others came",
                WhySlice::Verdicts => "written anew, other verdicts",
                WhySlice::ColumnsFilled => "written anew, columns filled from extra",
            };
            new(out, *n, "slices", why)?;
        }
        let span = match source.partitions.as_slice() {
            [] => String::new(),
            [only] => only.clone(),
            [first, .., last] => format!("{first} … {last}"),
        };
        in_all(out, source.partitions.len() as u64, "partitions", &span)?;
        found_nothing(out, source)?;
        for (column, dates) in &source.unfilled {
            writeln!(
                out,
                "  column {column} is newer than {} published dates: it is NULL there, and `extra` keeps its \
                 values; `rawmart rebuild --source {name}` fills it",
                count(*dates)
            )?;
        }
    }
    if !summary.marts.is_empty() {
        writeln!(out, "marts:")?;
    }
    for mart in &summary.marts {
        match &mart.outcome {
            MartOutcome::Built => {
                let dates = mart
                    .dates
                    .map_or_else(String::new, |n| format!(" ({} dates built)", count(n)));
                line(out, mart.rows, "rows", &format!("{}{dates}", mart.name))?;
                let left_out: Vec<String> =
                    mart.left_out.iter().map(NaiveDate::to_string).collect();
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
            }
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

/// A line of a count that a run adds to.
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

/// A line of what a run did, …
fn new(out: &mut impl Write, n: u64, what: &str, which: &str) -> Result<()> {
    writeln!(out, "  {:>9} {:>9} {what:<12} {which}", count(n), "")
}

/// … and of what there is after it.
fn in_all(out: &mut impl Write, n: u64, what: &str, which: &str) -> Result<()> {
    writeln!(out, "  {:>9} {:>9} {what:<12} {which}", "", count(n))
}

/// Columns and rules that found nothing in any event of a run.
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

/// Raw objects of which something is missing, a line each.
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

/// What came of sample dates of a mart, and what was not compared.
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
            "    {mart} has fewer than 3 dates near each other so far: it is compared again when it is \
             built next"
        )?;
    }
    Ok(())
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
    writeln!(out)?;
    writeln!(out, "Next:")?;
    writeln!(
        out,
        "  duckdb -c \"FROM read_parquet('{lake}/{table}/**/*.parquet', hive_partitioning = true, union_by_name = true)\""
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
            Some(Why::First) => "absorb, first run",
            Some(Why::NewObjects) => "absorb new raw objects",
            Some(Why::ChangedObjects) => "absorb, changed raw objects too",
            Some(Why::NewEtags) => "note the new ETags of raw objects with the same content",
            Some(Why::Rebuild) => "rebuild",
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
            let keys = some(&source.changed);
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
        for (column, dates) in &source.unfilled {
            writeln!(
                out,
                "    column {column} is NULL on {} published dates, and `extra` keeps its values: \
                 `rawmart rebuild --source {}` fills it",
                count(*dates),
                source.source
            )?;
        }
        let fill = source.steps.iter().flat_map(|step| &step.fill);
        for column in fill.collect::<BTreeSet<_>>() {
            writeln!(out, "    column {column} is filled from `extra`")?;
        }
        if let Some(refusal) = &source.refused {
            let refused = refusal.of(&source.source);
            writeln!(out, "  the run will refuse: {refused}")?;
        }
        if source.steps.len() > 1 {
            line(out, source.steps.len() as u64, "commits", "")?;
        }
        plan_partitions(out, &source.partitions)?;
        if let Some(estimate) = &source.estimate {
            plan_estimate(out, estimate)?;
        }
    }
    for mart in &plan.marts {
        let why = match &mart.why {
            None => "fresh".to_owned(),
            Some(WhyMart::First) => "build, first time".to_owned(),
            Some(WhyMart::SqlChanged) => "build, its SQL changed".to_owned(),
            Some(WhyMart::LawChanged) => {
                "build, this version evaluates SQL in another way".to_owned()
            }
            Some(WhyMart::FormChanged) => "build, the form of what it reads changed".to_owned(),
            Some(WhyMart::InputsChanged(tables)) => {
                format!("build, changed: {}", tables.join(", "))
            }
            Some(WhyMart::Lost) => "build, files of it are lost".to_owned(),
        };
        writeln!(out, "mart {}: {why}{}", mart.mart, dates_of(mart))?;
        for alike in mart.reads.chunk_by(|a, b| a == b) {
            let Some(reads) = alike.first() else { continue };
            let times = match alike.len() {
                1 => String::new(),
                n => format!(", {n} times"),
            };
            writeln!(
                out,
                "    reads {} of {} files of {} ({}): {}{times}",
                count(reads.files),
                count(reads.of_files),
                reads.table,
                bytes(reads.bytes),
                reads.columns.join(", ")
            )?;
        }
    }
    if plan.is_empty() {
        writeln!(out, "Nothing to do.")?;
    }
    Ok(())
}

/// The dates of a mart that are to be built.
fn dates_of(mart: &MartPlan) -> String {
    let dates = mart.dates.iter().flatten();
    match (dates.clone().next(), dates.clone().next_back()) {
        (Some(first), Some(last)) if first == last => format!("; {first}"),
        (Some(first), Some(last)) => {
            format!(
                "; about {} dates, {first} … {last}",
                count(dates.count() as u64)
            )
        }
        _ => String::new(),
    }
}

fn plan_estimate(out: &mut impl Write, estimate: &Estimate) -> Result<()> {
    let read = format!("({} with raw)", bytes(estimate.bytes_read));
    line(out, estimate.rows_read, "rows read", &read)?;
    if let (Some(rows), Some(size)) = (estimate.rows_written, estimate.bytes_written) {
        line(
            out,
            rows,
            "rows written",
            &format!("({}), about", bytes(size)),
        )?;
    }
    let Requests { list, get, put } = estimate.requests;
    let kinds = [(list, "LIST"), (get, "GET"), (put, "PUT")];
    let kinds = kinds
        .map(|(n, kind)| format!("{} {kind}", count(n)))
        .join(", ");
    line(
        out,
        list + get + put,
        "requests",
        &format!("{kinds}, about"),
    )
}

/// The first rejects of each reason, and what may be done.
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

/// Text of raw objects, on one line.
fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => shown.extend(character.escape_debug()),
            false => shown.push(character),
        }
    }
    shown
}

/// Partitions and raw objects shown one by one; of more partitions, the first and the last.
const SHOWN: usize = 12;

fn plan_partitions(out: &mut impl Write, partitions: &[PartitionPlan]) -> Result<()> {
    for (i, plan) in partitions.iter().enumerate() {
        if partitions.len() > SHOWN && i >= SHOWN / 2 && i < partitions.len() - SHOWN / 2 {
            if i == SHOWN / 2 {
                writeln!(out, "    … {} more …", partitions.len() - SHOWN)?;
            }
            continue;
        }
        let why = match plan.why {
            WhyPartition::NewEvents => "new events",
            WhyPartition::MoreEvents => "more events",
            WhyPartition::ReplacedObjects => "replaced raw objects",
            WhyPartition::Rebuild => "decided again",
        };
        write!(out, "    {}: {why}", plan.partition)?;
        if plan.objects > 0 {
            let (objects, size) = (count(plan.objects), bytes(plan.bytes));
            write!(out, ", {objects} raw objects ({size})")?;
        }
        if plan.stored_rows > 0 {
            let (rows, size) = (count(plan.stored_rows), bytes(plan.stored_bytes));
            write!(out, ", {rows} rows ({size}) there")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

pub fn verified(out: &mut impl Write, verified: &Verified) -> Result<()> {
    for repaired in &verified.repaired {
        match repaired {
            Repaired::Marked { commit } => {
                writeln!(out, "repaired commit {commit}: its marker was made anew")?;
            }
            Repaired::RolledForward { commit } => {
                writeln!(out, "repaired commit {commit}: it is published")?;
            }
            Repaired::Noted { key } => {
                writeln!(
                    out,
                    "repaired {key}: it is what was published, its ETag is noted"
                )?;
            }
            Repaired::PutBack { key } => {
                writeln!(out, "repaired {key}: published from its staged copy")?;
            }
            Repaired::MadeAgain { key } => writeln!(out, "repaired {key}: made again")?,
            Repaired::SetAside { key } => writeln!(
                out,
                "repaired {key}: what lay there was taken away, on disk to _rawmart/aside"
            )?,
        }
    }
    for damage in &verified.damage {
        writeln!(out, "DAMAGE {damage}")?;
    }
    for stray in &verified.strays {
        writeln!(
            out,
            "STRAY {stray}: it is not in the log, and readers count its rows; move it out of the table's folder"
        )?;
    }
    for note in &verified.notes {
        match note {
            Note::Gone { source, keys } => writeln!(
                out,
                "note {source}: {} absorbed raw objects are gone: {}; their events stay",
                count(keys.len() as u64),
                some(keys)
            )?,
            Note::Changed { source, keys } => writeln!(
                out,
                "note {source}: {} absorbed raw objects have other content now: {}",
                count(keys.len() as u64),
                some(keys)
            )?,
            Note::Unlisted { source, why } => {
                writeln!(out, "note {source}: raw was not looked at: {why}")?;
            }
            Note::NotBuilt { mart, why } => writeln!(out, "note {mart}: not built: {why}")?,
            Note::NoSha256 { files } => writeln!(
                out,
                "note: the log has no SHA-256 of {} files, so their names, sizes and times alone were \
                 compared; the next commit that writes them notes it",
                count(*files)
            )?,
            Note::Hidden { keys } => writeln!(
                out,
                "note: {} keys below tables are not in the log, and readers pass over them: {}",
                count(keys.len() as u64),
                some(keys)
            )?,
        }
    }
    let verdict = match (verified.damage.len(), verified.repaired.is_empty()) {
        (0, _) if !verified.strays.is_empty() => {
            let strays = count(verified.strays.len() as u64);
            format!("every file of the log is as it says, and {strays} strays are there")
        }
        (0, _) => "every file is as the log says, every count balances".to_owned(),
        (n, true) => format!(
            "{} faults; `rawmart verify --repair` repairs",
            count(n as u64)
        ),
        (n, false) => format!("{} faults are left", count(n as u64)),
    };
    writeln!(
        out,
        "{}: {} files ({} of them read), {} raw objects, {} commits; {verdict}.",
        place_from_here(&verified.lake),
        count(verified.files),
        count(verified.files_read),
        count(verified.objects),
        count(verified.commits),
    )
}

pub fn history(out: &mut impl Write, history: &History) -> Result<()> {
    let lake = place_from_here(&history.lake);
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

pub fn past_run(out: &mut impl Write, run: &PastRun) -> Result<()> {
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
    }
    writeln!(
        out,
        "{}: {} commits of run {}.",
        place_from_here(&run.lake),
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
    line(
        out,
        commit.files,
        "files",
        &format!("({})", bytes(commit.bytes)),
    )
}

fn past_change(out: &mut impl Write, source: &str, change: &Change) -> Result<()> {
    line(
        out,
        change.objects,
        "raw objects",
        &format!("read for {source}"),
    )?;
    if change.forgotten > 0 {
        line(
            out,
            change.forgotten,
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

/// A change of a count: `+1,234`.
fn signed(n: i64) -> String {
    let sign = if n < 0 { '-' } else { '+' };
    format!("{sign}{}", count(n.unsigned_abs()))
}

pub fn config(out: &mut impl Write, job: &Job) -> Result<()> {
    // The lines are ours: a setting has no line of its own.
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
