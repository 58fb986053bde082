//! The files of checks: `sql/checks/<mart>__<claim>.sql` must return no rows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::claims::Claim;
use super::graph::{Graph, collect, fingerprint, read_text, refuse_unknown};
use super::{MartError, header, select};
use crate::names::nearest;

/// The folder of the checks of a folder of marts: `checks` beside it.
pub fn checks_beside(marts: &Path) -> PathBuf {
    marts.with_file_name("checks")
}

impl Graph {
    /// Adds the checks of a folder: each `<mart>__<claim>.sql` must return no rows. `tables` are the names of the
    /// tables and references. Nothing is added where the folder does not exist.
    ///
    /// # Errors
    /// A file that cannot be read or is named after no mart; SQL that is not one plain SELECT, or that reads a table
    /// that is not there when the mart is checked.
    pub fn with_checks(mut self, folder: &Path, tables: &[&[String]]) -> Result<Self, MartError> {
        let tables = tables.iter().flat_map(|tables| tables.iter());
        let tables: BTreeSet<&str> = tables.map(String::as_str).collect();
        for (name, claim) in of_folder(folder, &self.below(), &tables)? {
            let mut marts = self.marts_mut().iter_mut();
            if let Some(mart) = marts.find(|mart| mart.name == name) {
                // A mart with another check is built again, and so is checked.
                let all = format!("{} {} {}", mart.fingerprint, claim.name, claim.sql);
                mart.fingerprint = fingerprint(&all);
                mart.claims.push(claim);
            }
        }
        Ok(self)
    }
}

/// Reads the files of a folder of checks, and gives each claim with the name of its mart. `marts` are the names of the
/// marts with the marts that each of them reads, directly or not; `tables` are the tables and references. There are no
/// claims where the folder does not exist.
///
/// # Errors
/// A file that cannot be read or is named after no mart; SQL that is not one plain SELECT, or that reads another table.
fn of_folder(
    folder: &Path,
    marts: &BTreeMap<String, BTreeSet<String>>,
    tables: &BTreeSet<&str>,
) -> Result<Vec<(String, Claim)>, MartError> {
    let mut files = Vec::new();
    if folder.is_dir() {
        collect(folder, &mut files)?;
    }
    files.sort();
    let mut claims = Vec::new();
    for file in files {
        let stem = file.file_stem().map(|stem| stem.to_string_lossy());
        let stem = stem.unwrap_or_default().into_owned();
        let (mart, name) = mart_of(&file, &stem, marts)?;
        let text = read_text(&file)?;
        let severity = header::severity(&file, &text)?;
        let parsed = select::parse(&file, &text)?;
        let above = marts.get(&mart).into_iter().flatten().map(String::as_str);
        let known: BTreeSet<&str> = above.chain([mart.as_str()]).collect();
        let of_others = parsed
            .tables
            .iter()
            .find(|(table, _)| marts.contains_key(table) && !known.contains(table.as_str()));
        if let Some((table, line)) = of_others {
            let message =
                format!("the check reads the mart `{table}`, which `{mart}` does not read");
            return Err(MartError::new(&file, *line, message).hint(
                "a check is made before the marts that come later: name the file after a mart that reads both",
            ));
        }
        let known = tables.iter().copied().chain(known).collect();
        refuse_unknown(&file, &parsed.tables, &known)?;
        let inputs = parsed.tables.into_iter().map(|(table, _)| table);
        let claim = Claim {
            name,
            file,
            line: None,
            severity,
            sql: text,
            inputs: inputs.collect(),
            key: Vec::new(),
            reads_whole: true,
        };
        claims.push((mart, claim));
    }
    Ok(claims)
}

/// The mart and the claim that the name of a file of a check, without `.sql`, names.
fn mart_of(
    file: &Path,
    stem: &str,
    marts: &BTreeMap<String, BTreeSet<String>>,
) -> Result<(String, String), MartError> {
    // The name of a mart may have `__` in it too, so the longest name counts.
    let named = marts.keys().filter(|mart| {
        let rest = stem.strip_prefix(mart.as_str());
        rest.and_then(|rest| rest.strip_prefix("__"))
            .is_some_and(|claim| !claim.is_empty())
    });
    if let Some(mart) = named.max_by_key(|mart| mart.len()) {
        return Ok((mart.clone(), stem.to_owned()));
    }
    let Some((written, _)) = stem.split_once("__") else {
        let message = format!("`{stem}` is not the name of a check");
        return Err(MartError::new(file, None, message)
            .hint("name it `<mart>__<claim>.sql`, such as `daily__no_gaps.sql`"));
    };
    let error = MartError::new(file, None, format!("there is no mart `{written}`"));
    Err(match nearest(written, marts.keys().map(String::as_str)) {
        Some(near) => error.hint(format!("is it `{near}`?")),
        None => error.hint(format!(
            "the file is named after a mart; the marts are {}",
            marts.keys().cloned().collect::<Vec<_>>().join(", ")
        )),
    })
}
