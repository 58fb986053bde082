//! The results of `rawmart test` as text.

use std::io::{Result, Write};

use super::run::checked;
use super::{count, shown};
use crate::mart::{Broken, ChangedRow, Unlike};
use crate::run::{Reached, Tested, Tried, TryOutcome};

/// Writes the result of each case, and what is wrong with those that failed.
pub fn tested(out: &mut impl Write, tested: &Tested) -> Result<()> {
    for tried in &tested.cases {
        let word = match tried.outcome {
            TryOutcome::Passed => "ok",
            TryOutcome::Failed => "FAILED",
            TryOutcome::Blessed => "blessed",
        };
        let rows = match tried.rows {
            1 => "1 row".to_owned(),
            rows => format!("{} rows", count(rows)),
        };
        writeln!(
            out,
            "{word:>7} {}/{} ({rows})",
            tried.mart,
            shown(&tried.case)
        )?;
        for line in tried_lines(tried) {
            writeln!(out, "        {line}")?;
        }
        if let Some(checks) = tried
            .checks
            .as_ref()
            .filter(|checks| !checks.failed.is_empty())
        {
            checked(out, checks)?;
        }
    }
    for mart in &tested.untested {
        writeln!(
            out,
            "        {mart} has no case in {}/{mart}",
            tested.folder
        )?;
    }
    let cases = tested.cases.len();
    writeln!(out, "{} of {cases} cases passed", cases - tested.failed())
}

/// What is wrong with a case, a line each. Nothing where it passed.
pub fn tried_lines(tried: &Tried) -> Vec<String> {
    let mut lines: Vec<String> = tried.error.iter().map(|error| shown(error)).collect();
    if let Some(unlike) = &tried.differences {
        lines.extend(differences(unlike));
    }
    let checks = tried.checks.iter().flat_map(|checks| &checks.failed);
    lines.extend(checks.map(|failed| shown(&failed.error)));
    lines
}

fn differences(unlike: &Unlike) -> Vec<String> {
    let columns = &unlike.columns;
    let mut lines = Vec::new();
    let mut told = |kind: &str, rows: Vec<String>, all: u64| {
        let more = all.saturating_sub(rows.len() as u64);
        lines.extend(rows.into_iter().map(|row| format!("{kind:<10} {row}")));
        if more > 0 {
            lines.push(format!("{kind:<10} … {} more …", count(more)));
        }
    };
    let changed = unlike.changed.iter().map(|row| changed(columns, row));
    told("changed", changed.collect(), unlike.counts.changed);
    let rows = |rows: &[Vec<Option<String>>]| -> Vec<String> {
        rows.iter().map(|row| Broken::row(columns, row)).collect()
    };
    told("missing", rows(&unlike.missing), unlike.counts.missing);
    told(
        "unexpected",
        rows(&unlike.unexpected),
        unlike.counts.unexpected,
    );
    lines
}

/// A row with its changed cells, such as `(dt=2019-04-01, n=4): n is 3`.
fn changed(columns: &[String], row: &ChangedRow) -> String {
    let text = |cell: &Option<String>| shown(cell.as_deref().unwrap_or("NULL"));
    let cells = row
        .cells
        .iter()
        .map(|cell| format!("{} is {}", cell.column, text(&cell.found)));
    let cells: Vec<String> = cells.collect();
    format!(
        "{}: {}",
        Broken::row(columns, &row.expected),
        cells.join(", ")
    )
}

/// Writes which dates have other rows over everything than over their reach.
pub fn reached(out: &mut impl Write, reached: &Reached) -> Result<()> {
    for mart in &reached.reached {
        let name = &mart.mart;
        let same = count(mart.same);
        writeln!(
            out,
            "{name}: {same} dates have the same rows over everything"
        )?;
        for other in &mart.differ {
            writeln!(
                out,
                "  {} DIFFERS: {} rows over its reach, {} over everything, for example ({})",
                other.date,
                count(other.over_reach),
                count(other.over_everything),
                shown(&other.row)
            )?;
        }
        for (date, why) in &mart.not_compared {
            writeln!(out, "  {date} not compared: {}", shown(why))?;
        }
    }
    match reached.reached.is_empty() {
        true => writeln!(out, "no chosen mart is built by date"),
        false => Ok(()),
    }
}
