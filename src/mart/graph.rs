//! The marts of a folder in the order in which they can be built.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::claims::{self, Claim};
use super::error::{MartError, shown};
use super::header::{self, Header};
use super::reach::Reach;
use super::select::{self, is_name, too_long};
use crate::layout::DATE;
use crate::names::nearest;

/// One mart: one SQL file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mart {
    /// The name of the table, which is the name of the file without `.sql`.
    pub name: String,
    /// The path of the file.
    pub file: PathBuf,
    /// The whole text of the file.
    pub sql: String,
    /// The partition columns, in the order of the folders. Empty for a mart without partitions.
    pub partition: Vec<String>,
    /// The names of the tables, references and marts that the mart reads, sorted.
    pub inputs: Vec<String>,
    /// How far a mart that is built date by date reads each input that has dates. Empty for a mart that is built
    /// whole: it is not partitioned by `dt`, or reads no dates, or reads all dates.
    pub reach: BTreeMap<String, Reach>,
    /// The inputs of `reach` that no `reads` names. Each date of the mart reads the same date of these inputs.
    pub unsaid: BTreeSet<String>,
    /// What must hold of the rows before they are published: the claims of the header, then the files of checks.
    pub claims: Vec<Claim>,
    /// The person or team that answers for the mart.
    pub owner: Option<String>,
    /// The dashboard that the mart is made for.
    pub dashboard: Option<String>,
    /// The longest silence of the sources below the mart, in milliseconds.
    pub fresh_within: Option<i64>,
    /// SHA-256 of the file's text, and of its files of checks, in hex.
    pub fingerprint: String,
}

impl Mart {
    /// The reach as the log stores it, by the name of the input.
    pub fn reach_by_name(&self) -> BTreeMap<String, String> {
        let reach = self.reach.iter();
        reach
            .map(|(input, reach)| (input.clone(), reach.to_string()))
            .collect()
    }
}

/// Marts in an order in which they can be built: each comes after the marts that it reads. Among marts that can be
/// built next, the first by name comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    folder: PathBuf,
    marts: Vec<Mart>,
}

impl Graph {
    /// The marts, in the order in which they can be built.
    pub fn marts(&self) -> &[Mart] {
        &self.marts
    }

    /// The folder of the SQL files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The names of the tables and references that some mart or a check of it reads, sorted. Marts are not among them.
    pub fn tables(&self) -> Vec<&str> {
        let made: BTreeSet<_> = self.marts.iter().map(|mart| mart.name.as_str()).collect();
        let of_marts = self.marts.iter().flat_map(|mart| &mart.inputs);
        let of_checks = self.marts.iter().flat_map(|mart| &mart.claims);
        let read = of_marts.chain(of_checks.flat_map(|claim| &claim.inputs));
        let read = read.map(String::as_str);
        let read: BTreeSet<_> = read.filter(|name| !made.contains(name)).collect();
        read.into_iter().collect()
    }

    /// For each mart, the marts that it reads, directly or not.
    pub fn below(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut below: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for mart in &self.marts {
            let mut all = BTreeSet::new();
            for input in &mart.inputs {
                if let Some(more) = below.get(input) {
                    all.extend(more.iter().cloned());
                    all.insert(input.clone());
                }
            }
            below.insert(mart.name.clone(), all);
        }
        below
    }

    /// Refuses a mart that has `fresh_within` and reads none of the `tables` of sources, directly or not.
    fn refuse_idle_freshness(&self, tables: &[String]) -> Result<(), MartError> {
        let mut fed: BTreeSet<&str> = tables.iter().map(String::as_str).collect();
        for mart in &self.marts {
            if mart.inputs.iter().any(|input| fed.contains(input.as_str())) {
                fed.insert(&mart.name);
            } else if mart.fresh_within.is_some() {
                let message = "`fresh_within` says how long a source may be silent, and the mart reads no source";
                return Err(MartError::new(&mart.file, None, message).hint("take the line out"));
            }
        }
        Ok(())
    }

    pub(super) fn marts_mut(&mut self) -> &mut [Mart] {
        &mut self.marts
    }
}

/// The names of the marts whose `.sql` files are below `folder`, whatever the files hold.
///
/// # Errors
/// A folder that cannot be read.
pub fn names(folder: &Path) -> Result<BTreeSet<String>, MartError> {
    let mut files = Vec::new();
    collect(folder, &mut files)?;
    let names = files.iter().filter_map(|file| file.file_stem());
    Ok(names
        .map(|name| name.to_string_lossy().into_owned())
        .collect())
}

/// Reads every `.sql` file below `folder`. `tables` are the names of the tables that sources make.
///
/// # Errors
/// A folder or file that cannot be read, a wrong name or header, SQL that is not one plain SELECT, an unknown table,
/// or marts that read each other.
pub fn load(folder: &Path, tables: &[String], references: &[String]) -> Result<Graph, MartError> {
    let mut files = Vec::new();
    collect(folder, &mut files)?;
    files.sort();
    let mut read: BTreeMap<String, Read> = BTreeMap::new();
    for file in files {
        let found = read_file(file)?;
        let mart = &found.mart;
        if tables.contains(&mart.name) || references.contains(&mart.name) {
            return Err(MartError::new(
                &mart.file,
                None,
                format!("`{}` is already a table or a reference", mart.name),
            )
            .hint("give the file another name"));
        }
        if let Some(other) = read.get(&mart.name) {
            return Err(MartError::new(
                &mart.file,
                None,
                format!(
                    "the mart `{}` is also in {}",
                    mart.name,
                    shown(&other.mart.file)
                ),
            )
            .hint("names are unique across folders: rename one"));
        }
        read.insert(mart.name.clone(), found);
    }
    let known: BTreeSet<&str> = tables
        .iter()
        .chain(references)
        .chain(read.keys())
        .map(String::as_str)
        .collect();
    for Read { mart, mentions, .. } in read.values() {
        refuse_unknown(&mart.file, mentions, &known)?;
    }
    let marts = read
        .values()
        .map(|read| &read.mart)
        .filter(|mart| is_dated(mart));
    let dated: BTreeSet<String> = tables
        .iter()
        .chain(marts.map(|mart| &mart.name))
        .cloned()
        .collect();
    let mut marts = BTreeMap::new();
    for (
        name,
        Read {
            mut mart, header, ..
        },
    ) in read
    {
        mart.reach = reach(&mart, &header, &dated)?;
        let said = |input: &String| header.reads.iter().any(|(table, ..)| table == input);
        let inputs = mart.reach.keys().cloned();
        mart.unsaid = inputs.filter(|input| !said(input)).collect();
        mart.claims = claims::of_header(&mart.name, &mart.file, header.claims, header.severity);
        marts.insert(name, mart);
    }
    let graph = Graph {
        folder: folder.to_owned(),
        marts: order(marts)?,
    };
    graph.refuse_idle_freshness(tables)?;
    Ok(graph)
}

/// Refuses the first of the tables that a file mentions and that is not `known`.
pub(super) fn refuse_unknown(
    file: &Path,
    mentions: &[(String, Option<usize>)],
    known: &BTreeSet<&str>,
) -> Result<(), MartError> {
    let mut mentions = mentions.iter();
    let Some((name, line)) = mentions.find(|(name, _)| !known.contains(name.as_str())) else {
        return Ok(());
    };
    let error = MartError::new(file, *line, format!("there is no table `{name}`"));
    let all: Vec<&str> = known.iter().copied().collect();
    Err(match nearest(name, known.iter().copied()) {
        Some(near) => error.hint(format!("is it `{near}`?")),
        None if all.is_empty() => error.hint("the lake has no tables yet: run first"),
        None => error.hint(format!("the tables are {}", all.join(", "))),
    })
}

/// Whether a mart is partitioned by date.
fn is_dated(mart: &Mart) -> bool {
    mart.partition.iter().any(|column| column == DATE)
}

/// How far a mart reads each of its inputs. `dated` are the tables that have dates.
fn reach(
    mart: &Mart,
    header: &Header,
    dated: &BTreeSet<String>,
) -> Result<BTreeMap<String, Reach>, MartError> {
    let inputs = || mart.inputs.iter().filter(|input| dated.contains(*input));
    for (table, _, line) in &header.reads {
        let fail = |message: String| MartError::new(&mart.file, Some(*line), message);
        if !mart.inputs.contains(table) {
            let error = fail(format!("the SELECT does not read `{table}`"));
            let names = mart.inputs.iter().map(String::as_str);
            return Err(match nearest(table, names) {
                Some(near) => error.hint(format!("is it `{near}`?")),
                None => error.hint("take it out"),
            });
        }
        if !dated.contains(table) {
            return Err(fail(format!("`{table}` is not partitioned by `{DATE}`"))
                .hint("it is always read whole: take it out"));
        }
        if !is_dated(mart) {
            return Err(fail(format!(
                "the mart is not partitioned by `{DATE}`, so it always reads all of `{table}`"
            ))
            .hint("take it out"));
        }
    }
    let said = |input: &String| {
        let said = header.reads.iter().find(|(table, ..)| table == input);
        said.map_or(Reach::SAME, |(_, reach, _)| *reach)
    };
    let reach: BTreeMap<String, Reach> =
        inputs().map(|input| (input.clone(), said(input))).collect();
    let whole = !is_dated(mart) || reach.values().all(|reach| *reach == Reach::ALL);
    Ok(if whole { BTreeMap::new() } else { reach })
}

/// Adds the SQL files of a folder and of the folders in it.
pub(super) fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), MartError> {
    let unreadable = |error: std::io::Error| {
        MartError::new(
            folder,
            None,
            format!("cannot read the folder of marts: {error}"),
        )
    };
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path
            .extension()
            .is_some_and(|end| end.eq_ignore_ascii_case("sql"))
        {
            files.push(path);
        }
    }
    Ok(())
}

/// One SQL file, before the names of the other files are known.
struct Read {
    mart: Mart,
    header: Header,
    /// The tables that the text mentions, and where.
    mentions: Vec<(String, Option<usize>)>,
}

/// Reads one SQL file.
fn read_file(file: PathBuf) -> Result<Read, MartError> {
    let name = file
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    if !is_name(&name) {
        return Err(MartError::new(
            &file,
            None,
            format!("`{name}` cannot be the name of a table"),
        )
        .hint("a name is a lower-case letter, then letters, digits or `_`"));
    }
    if let Some(message) = too_long(&name) {
        return Err(MartError::new(&file, None, message).hint("rename the file"));
    }
    let folder = file.parent().and_then(Path::file_name);
    if name.contains("__") && folder.is_some_and(|folder| folder == "checks") {
        let message = "the file has the name of a check, and lies in the folder of marts";
        return Err(MartError::new(&file, None, message)
            .hint("checks lie in the folder `checks` beside the folder of marts: move it there"));
    }
    let sql = read_text(&file)?;
    let header = header::header(&file, &sql)?;
    let parsed = select::parse(&file, &sql)?;
    let inputs: BTreeSet<String> = parsed.tables.iter().map(|(name, _)| name.clone()).collect();
    let fingerprint = fingerprint(&sql);
    let mart = Mart {
        name,
        file,
        sql,
        partition: header.partition.clone(),
        inputs: inputs.into_iter().collect(),
        reach: BTreeMap::new(),
        unsaid: BTreeSet::new(),
        claims: Vec::new(),
        owner: header.owner.clone(),
        dashboard: header.dashboard.clone(),
        fresh_within: header.fresh_within,
        fingerprint,
    };
    Ok(Read {
        mart,
        header,
        mentions: parsed.tables,
    })
}

/// The SHA-256 of a text, in hex.
pub(super) fn fingerprint(sql: &str) -> String {
    hex::encode(Sha256::digest(sql.as_bytes()))
}

/// The text of a SQL file, without a byte order mark.
///
/// # Errors
/// A file that cannot be read, or that is not UTF-8.
pub(super) fn read_text(file: &Path) -> Result<String, MartError> {
    let bytes = std::fs::read(file)
        .map_err(|error| MartError::new(file, None, format!("cannot read the file: {error}")))?;
    let sql = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error
            .as_bytes()
            .iter()
            .take(good)
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        MartError::new(file, Some(line), "the text is not UTF-8").hint("save the file as UTF-8")
    })?;
    Ok(match sql.strip_prefix('\u{feff}') {
        Some(text) => text.to_owned(),
        None => sql,
    })
}

/// Brings marts into an order in which they can be built.
fn order(mut waiting: BTreeMap<String, Mart>) -> Result<Vec<Mart>, MartError> {
    let mut marts = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let ready = waiting
            .values()
            .find(|mart| !mart.inputs.iter().any(|input| waiting.contains_key(input)))
            .map(|mart| mart.name.clone());
        match ready.and_then(|name| waiting.remove(&name)) {
            Some(mart) => marts.push(mart),
            None => return Err(cycle(&waiting)),
        }
    }
    Ok(marts)
}

/// The error that names one cycle. Each of the marts reads another of them.
fn cycle(waiting: &BTreeMap<String, Mart>) -> MartError {
    let mut path: Vec<&Mart> = Vec::new();
    let mut at = waiting.values().next();
    while let Some(mart) = at {
        if let Some(start) = path.iter().position(|seen| seen.name == mart.name) {
            path.drain(..start);
            break;
        }
        path.push(mart);
        at = mart.inputs.iter().find_map(|input| waiting.get(input));
    }
    // The message begins with the first name, so that it does not depend on where the walk began.
    let first = path
        .iter()
        .enumerate()
        .min_by_key(|(_, mart)| &mart.name)
        .map_or(0, |(i, _)| i);
    path.rotate_left(first);
    let names: Vec<&str> = path
        .iter()
        .chain(path.first())
        .map(|mart| mart.name.as_str())
        .collect();
    let file = path
        .first()
        .map(|mart| mart.file.as_path())
        .unwrap_or(Path::new(""));
    MartError::new(
        file,
        None,
        format!("the marts read each other: {}", names.join(" -> ")),
    )
    .hint("a mart cannot depend on itself")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_files(files: &[(&str, &str)]) -> Result<Graph, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let tables = ["events", "events_duplicates"].map(str::to_owned);
        let prefix = format!("{}/", folder.path().display());
        load(folder.path(), &tables, &["danji_master".to_owned()])
            .map_err(|error| error.to_string().replace(&prefix, ""))
    }

    #[test]
    fn inputs_come_before_what_reads_them_and_ties_by_name() {
        let graph = load_files(&[
            ("growth/c.sql", "SELECT * FROM z JOIN danji_master ON true"),
            (
                "z.sql",
                "\u{feff}-- partition: dt\nSELECT * FROM events, EVENTS_DUPLICATES",
            ),
            ("a.sql", "SELECT * FROM c"),
            ("b.sql", "SELECT * FROM events"),
            (".hidden.sql", "nonsense"),
            ("notes.md", "nonsense"),
        ])
        .unwrap();
        let names: Vec<_> = graph
            .marts()
            .iter()
            .map(|mart| mart.name.as_str())
            .collect();
        assert_eq!(names, ["b", "z", "c", "a"]);
        assert_eq!(graph.marts()[2].inputs, ["danji_master", "z"]);
        assert_eq!(graph.marts()[1].partition, ["dt"]);
        assert_eq!(graph.marts()[1].fingerprint.len(), 64);
        assert_eq!(
            graph.tables(),
            ["danji_master", "events", "events_duplicates"]
        );
        assert!(load_files(&[]).unwrap().marts().is_empty());
    }

    #[test]
    fn what_cannot_be_ordered_is_named() {
        for (files, expected) in [
            (
                vec![
                    ("a.sql", "SELECT * FROM b"),
                    ("b.sql", "SELECT * FROM c"),
                    ("c.sql", "SELECT * FROM a"),
                    ("aa.sql", "SELECT * FROM b"),
                ],
                "a.sql: the marts read each other: a -> b -> c -> a",
            ),
            (
                vec![("a.sql", "SELECT * FROM a")],
                "a.sql: the marts read each other: a -> a",
            ),
            (
                vec![("x/a.sql", "SELECT *\nFROM event")],
                "x/a.sql:2: there is no table `event`; is it `events`?",
            ),
            (
                vec![("a.sql", "SELECT * FROM qqqqq")],
                "the tables are a, danji_master, events",
            ),
            (
                vec![("events.sql", "SELECT 1 AS a")],
                "already a table or a reference",
            ),
            (
                vec![("x/a.sql", "SELECT 1 AS a"), ("y/a.sql", "SELECT 1 AS a")],
                "y/a.sql: the mart `a` is also in x/a.sql",
            ),
            (
                vec![("Daily.sql", "SELECT 1 AS a")],
                "`Daily` cannot be the name of a table",
            ),
            (vec![("a-b.sql", "SELECT 1 AS a")], "`a-b` cannot be"),
            (
                vec![(
                    "a.sql",
                    "-- partition: dt\n-- reads: event all\nSELECT * FROM events",
                )],
                "a.sql:2: the SELECT does not read `event`; is it `events`?",
            ),
            (
                vec![(
                    "a.sql",
                    "-- partition: dt\n-- reads: danji_master all\nSELECT * FROM events, danji_master",
                )],
                "a.sql:2: `danji_master` is not partitioned by `dt`",
            ),
            (
                vec![("a.sql", "-- reads: events back 1d\nSELECT * FROM events")],
                "a.sql:1: the mart is not partitioned by `dt`, so it always reads all of `events`",
            ),
        ] {
            let error = load_files(&files).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let error = load(Path::new("/no/such/folder"), &[], &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/no/such/folder: cannot read the folder of marts"),
            "{error}"
        );
    }

    #[test]
    fn a_mart_of_dates_is_built_date_by_date_and_others_whole() {
        let graph = load_files(&[
            (
                "by_date.sql",
                "-- partition: os, dt\nSELECT * FROM events, danji_master",
            ),
            (
                "by_day.sql",
                "-- partition: day\nSELECT dt AS day, 1 AS a FROM events",
            ),
            (
                "mixed.sql",
                "-- partition: dt\n-- reads: by_date back 6d, events_duplicates all\n\
                 SELECT * FROM by_date, by_day, events_duplicates, events",
            ),
            (
                "of_all.sql",
                "-- partition: dt\n-- reads: by_date all\nSELECT * FROM by_date, danji_master",
            ),
            ("of_none.sql", "-- partition: dt\nSELECT * FROM by_day"),
        ])
        .unwrap();
        let reach = |mart: &str| -> Vec<(String, Reach)> {
            let mart = graph.marts().iter().find(|other| other.name == mart);
            mart.unwrap().reach.clone().into_iter().collect()
        };
        let back = Reach {
            back: Some(6),
            ..Reach::SAME
        };
        let named = |name: &str, reach| (name.to_owned(), reach);
        assert_eq!(reach("by_date"), [named("events", Reach::SAME)]);
        assert_eq!(
            reach("mixed"),
            [
                named("by_date", back),
                named("events", Reach::SAME),
                named("events_duplicates", Reach::ALL)
            ]
        );
        for whole in ["by_day", "of_all", "of_none"] {
            assert_eq!(reach(whole), []);
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_told_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.sql"), b"SELECT 1\n -- \xb0\xa1\nAS a").unwrap();
        let error = load(folder.path(), &[], &[]).unwrap_err();
        assert_eq!(error.line, Some(2));
    }
}
