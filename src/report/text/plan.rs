//! A plan as text.

use std::collections::BTreeSet;
use std::io::{Result, Write};

use super::run::gone_marts;
use super::{Reader, SHOWN, bytes, count, line, some, what_of};
use crate::plan::{
    CatalogPlan, CatalogTable, Estimate, MartPlan, PartitionPlan, PlanOutcome, Requests, RunPlan,
    SourcePlan, WholeEstimate, Why, WhyMart, WhyPartition,
};

/// Writes the plan of a run.
pub fn plan(out: &mut impl Write, plan: &RunPlan, reader: &Reader<'_>) -> Result<()> {
    if let Some(commit) = plan.roll_forward {
        writeln!(
            out,
            "commit {commit}: committed and not published; it is finished first"
        )?;
    }
    for source in &plan.sources {
        one_source(out, source, reader)?;
    }
    for mart in &plan.marts {
        one_mart(out, mart)?;
    }
    gone_marts(out, &plan.gone_marts)?;
    if !plan.leftovers.is_empty() {
        writeln!(
            out,
            "remove {} files without rows that lie where an earlier partitioning had put them: {}",
            count(plan.leftovers.len() as u64),
            some(&plan.leftovers)
        )?;
    }
    if let Some(catalog) = &plan.catalog {
        one_catalog(out, catalog)?;
    }
    match plan.outcome() {
        PlanOutcome::Nothing => writeln!(out, "Nothing to do."),
        PlanOutcome::Work => plan
            .estimate
            .iter()
            .try_for_each(|estimate| whole(out, estimate)),
        PlanOutcome::Refused => writeln!(out, "The run will refuse, so it will publish nothing."),
    }
}

fn one_source(out: &mut impl Write, source: &SourcePlan, reader: &Reader<'_>) -> Result<()> {
    let why = match source.why {
        _ if source.refused.is_some() => "refused",
        None => "nothing to do",
        Some(Why::First) => "absorb, first run",
        Some(Why::NewObjects) => "absorb new raw objects",
        Some(Why::ChangedObjects) => "absorb, changed raw objects too",
        Some(Why::NewEtags) => "note the new ETags of raw objects with the same content",
        Some(Why::Rebuild) => "rebuild",
        Some(Why::Drop) => "drop raw objects for good",
    };
    let rebuilt = source.rebuilt.filter(|_| source.refused.is_none());
    let of = rebuilt.map_or_else(String::new, |rebuilt| format!(" {}", what_of(rebuilt)));
    writeln!(out, "{}: {why}{of}", source.source)?;
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
        let rebuild = (reader.typing).command(&format!("rebuild --source {}", source.source));
        writeln!(
            out,
            "    column {column} is NULL on {} published dates, and `extra` keeps its values: \
             `{rebuild}` fills it",
            count(*dates)
        )?;
    }
    let fill = source.steps.iter().flat_map(|step| &step.fill);
    for column in fill.collect::<BTreeSet<_>>() {
        writeln!(out, "    column {column} is filled from `extra`")?;
    }
    if source.why == Some(Why::Drop) {
        let leaving = source.steps.iter().flat_map(|step| &step.leaving);
        let leaving: Vec<String> = leaving.cloned().collect();
        line(out, leaving.len() as u64, "to drop", &some(&leaving))?;
    }
    if let Some(refusal) = &source.refused {
        let refused = reader.typing.with_flags(&refusal.of(&source.source));
        writeln!(out, "  the run will refuse: {refused}")?;
    }
    if source.steps.len() > 1 {
        line(out, source.steps.len() as u64, "commits", "")?;
    }
    plan_partitions(out, &source.partitions)?;
    if let Some(estimate) = &source.estimate {
        plan_estimate(out, estimate)?;
    }
    Ok(())
}

fn one_mart(out: &mut impl Write, mart: &MartPlan) -> Result<()> {
    let why = match &mart.why {
        None => "fresh".to_owned(),
        Some(WhyMart::First) => "build, first time".to_owned(),
        Some(WhyMart::SqlChanged) => "build, its SQL changed".to_owned(),
        Some(WhyMart::LawChanged) => "build, this version evaluates SQL in another way".to_owned(),
        Some(WhyMart::FormChanged) => "build, the form of what it reads changed".to_owned(),
        Some(WhyMart::InputsChanged(tables)) => {
            format!("build, changed: {}", tables.join(", "))
        }
        Some(WhyMart::Asked) => "build, as asked".to_owned(),
        Some(WhyMart::Lost) => "build, files of it are lost".to_owned(),
    };
    let (dates, sample) = (dates_of(mart), sample_of(mart));
    writeln!(out, "mart {}: {why}{dates}{sample}", mart.mart)?;
    for note in &mart.notes {
        writeln!(out, "    {note}")?;
    }
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
    Ok(())
}

/// What the catalog has not been told of what is published.
fn one_catalog(out: &mut impl Write, catalog: &CatalogPlan) -> Result<()> {
    let database = &catalog.database;
    match &catalog.problem {
        Some(problem) => writeln!(out, "catalog {database}: it cannot be asked: {problem}")?,
        None if catalog.behind.is_empty() => writeln!(out, "catalog {database}: up to date")?,
        None => writeln!(out, "catalog {database}: behind")?,
    }
    for table in &catalog.behind {
        let CatalogTable {
            table,
            foreign,
            told,
            commit,
        } = table;
        match (foreign, told, commit) {
            (true, ..) => writeln!(
                out,
                "    {table}: the catalog has a table of this name that this lake has not made; the run will refuse \
                 to change it"
            )?,
            (false, _, None) => writeln!(out, "    {table}: delete, the lake has no such table")?,
            (false, None, Some(commit)) => {
                writeln!(out, "    {table}: create, of commit {commit}")?
            }
            (false, Some(told), Some(commit)) if told == commit => {
                writeln!(out, "    {table}: the catalog has another definition")?;
            }
            (false, Some(told), Some(commit)) => writeln!(
                out,
                "    {table}: the catalog knows commit {told}, the lake has commit {commit}"
            )?,
        }
    }
    Ok(())
}

/// The words for the comparison of sample dates of a mart.
fn sample_of(mart: &MartPlan) -> &'static str {
    match mart.sample_due {
        true => "; sample dates are compared",
        false => "",
    }
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
    Ok(())
}

/// What the whole run will cost.
fn whole(out: &mut impl Write, estimate: &WholeEstimate) -> Result<()> {
    let Requests { list, get, put } = estimate.requests;
    let kinds = [(list, "LIST"), (get, "GET"), (put, "PUT")];
    let kinds = kinds
        .map(|(n, kind)| format!("{} {kind}", count(n)))
        .join(", ");
    writeln!(
        out,
        "In all about {} files are written, with {} requests: {kinds}.",
        count(estimate.files_written),
        count(list + get + put)
    )
}

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
            WhyPartition::Dropped => "events of dropped raw objects leave",
            WhyPartition::ReplacedObjects => "replaced raw objects",
            WhyPartition::Rebuild => "decided again",
            WhyPartition::ReadAgain => "read again from raw",
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
