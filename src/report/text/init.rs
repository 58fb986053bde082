//! A new project as text.

use std::io::{Result, Write};

use super::{count, shown};
use crate::run::Initiated;

/// Writes what was inferred, what is not sure, and the commands to give next.
pub fn initiated(out: &mut impl Write, made: &Initiated) -> Result<()> {
    writeln!(
        out,
        "{}: {} records in {} of {} raw objects",
        made.raw,
        count(made.records),
        count(made.sampled),
        count(made.objects)
    )?;
    let mut line = |what: &str, which: &str| writeln!(out, "  {what:<10} {}", shown(which));
    line("source", &made.source)?;
    line(
        "layout",
        made.layout
            .as_deref()
            .unwrap_or("none: LastModified is the arrival"),
    )?;
    if let Some(unwrap) = &made.unwrap {
        line("envelope", unwrap)?;
    }
    line("event time", &made.event_time)?;
    line("columns", &made.columns.len().to_string())?;
    for rule in &made.rules {
        line("rule", &format!("{}: {}", rule.name, rule.note))?;
    }
    for rejects in &made.rejects {
        let text = format!(
            "{} {}, such as {}",
            count(rejects.count),
            rejects.reason,
            rejects.example
        );
        line("rejects", &text)?;
    }
    if !made.unsure.is_empty() {
        writeln!(out, "Not sure:")?;
        for text in &made.unsure {
            writeln!(out, "  {}", shown(text))?;
        }
    }
    let files: Vec<String> = made
        .files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    writeln!(out, "Written: {}", files.join(", "))?;
    writeln!(out, "Next:")?;
    made.next
        .iter()
        .try_for_each(|command| writeln!(out, "  {command}"))
}
