//! What was checked, as text.

use std::io::{Result, Write};

use super::shown;
use crate::run::Diagnosis;

/// Writes a line for each check: ok, or what is wrong and what to do.
pub fn diagnosed(out: &mut impl Write, found: &Diagnosis) -> Result<()> {
    let width = found
        .checks
        .iter()
        .map(|check| check.check.chars().count())
        .max();
    let width = width.unwrap_or(0);
    for check in &found.checks {
        let word = if check.ok { "ok   " } else { "WRONG" };
        writeln!(
            out,
            "{word}  {:width$}  {}",
            check.check,
            shown(&check.found)
        )?;
        if let Some(remedy) = &check.remedy {
            writeln!(out, "{:7}{:width$}  → {}", "", "", shown(remedy))?;
        }
    }
    Ok(())
}
