//! The files of a case: inputs by the names of their tables, and the expected rows.
//!
//! A file names the columns that matter. All other columns are NULL, and a table without a file has no rows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::json::writer::{LineDelimited, WriterBuilder};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::{Rows, Tables};
use crate::config::{Reference, ReferenceFormat};
use crate::event::ColumnType;
use crate::layout::DATE;
use crate::mart::reference::{ReferenceError, read};
use crate::mart::{Graph, Mart, MartError};
use crate::names::nearest;

/// The name of the file of expected rows, without its ending.
const EXPECTED: &str = "expected";

/// One case of a mart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The name of the folder.
    pub name: String,
    /// The folder of the files.
    pub folder: PathBuf,
    /// The file of each table.
    inputs: BTreeMap<String, PathBuf>,
    /// The file of the expected rows; `None` where there is none yet.
    pub expected: Option<PathBuf>,
}

/// The cases of a mart, in the order of their names. `below` is the folder with a folder for each mart.
///
/// # Errors
/// A folder that cannot be read; a file that is neither CSV nor NDJSON, or that no table of the mart is named like.
pub fn cases(below: &Path, mart: &Mart) -> Result<Vec<Case>, MartError> {
    let folder = below.join(&mart.name);
    let mut cases = Vec::new();
    for folder in entries(&folder)?.into_iter().filter(|path| path.is_dir()) {
        cases.push(Case::of(folder, mart)?);
    }
    Ok(cases)
}

/// Refuses a folder of cases that no mart is named like.
///
/// # Errors
/// Such a folder, or one that cannot be read.
pub fn refuse_unknown_cases(below: &Path, graph: &Graph) -> Result<(), MartError> {
    let names = || graph.marts().iter().map(|mart| mart.name.as_str());
    for folder in entries(below)?.into_iter().filter(|path| path.is_dir()) {
        let name = text_of(folder.file_name());
        if !names().any(|mart| mart == name) {
            let error = MartError::new(&folder, None, format!("there is no mart `{name}`"));
            return Err(match nearest(&name, names()) {
                Some(near) => error.hint(format!("is it `{near}`?")),
                None => error.hint("a folder of cases has the name of a mart"),
            });
        }
    }
    Ok(())
}

/// The entries of a folder in the order of their names, without hidden ones. A folder that does not exist has none.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, MartError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let failing = |error: std::io::Error| {
        MartError::new(folder, None, format!("cannot read the folder: {error}"))
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failing)? {
        let entry = entry.map_err(failing)?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// The format of a file, by the ending of its name.
fn format_of(file: &Path) -> Option<ReferenceFormat> {
    match file.extension()?.to_str()? {
        "csv" => Some(ReferenceFormat::Csv),
        "ndjson" => Some(ReferenceFormat::Ndjson),
        _ => None,
    }
}

fn text_of(name: Option<&std::ffi::OsStr>) -> String {
    let name = name.unwrap_or_default();
    name.to_string_lossy().into_owned()
}

impl Case {
    fn of(folder: PathBuf, mart: &Mart) -> Result<Self, MartError> {
        let mut case = Self {
            name: text_of(folder.file_name()),
            inputs: BTreeMap::new(),
            expected: None,
            folder,
        };
        let of_claims = mart.claims.iter().flat_map(|claim| &claim.inputs);
        let known: BTreeSet<&str> = (mart.inputs.iter().chain(of_claims))
            .map(String::as_str)
            .filter(|name| *name != mart.name)
            .collect();
        for file in entries(&case.folder)? {
            if file.extension().is_some_and(|end| end == "md") {
                continue;
            }
            if format_of(&file).is_none() {
                return Err(MartError::new(&file, None, "the file is neither CSV nor NDJSON")
                    .hint("name it `<table>.csv` or `<table>.ndjson`; a text for people ends in `.md`"));
            }
            let table = text_of(file.file_stem());
            let twice = match table.as_str() {
                EXPECTED => case.expected.replace(file.clone()),
                name if known.contains(name) => case.inputs.insert(table.clone(), file.clone()),
                name => return Err(unknown_table(&file, name, mart, &known)),
            };
            if twice.is_some() {
                return Err(
                    MartError::new(&file, None, format!("`{table}` has two files"))
                        .hint("keep the CSV or the NDJSON"),
                );
            }
        }
        Ok(case)
    }

    /// The rows of every table in `schemas`. A table without a file has no rows.
    ///
    /// # Errors
    /// A file with another column than its table, or with a value that does not fit; a table that the mart reads by
    /// date, and whose file has no date.
    pub fn tables(
        &self,
        mart: &Mart,
        schemas: &BTreeMap<String, SchemaRef>,
    ) -> Result<Tables, MartError> {
        let mut tables = Tables::new();
        for (name, schema) in schemas {
            let rows = match self.inputs.get(name) {
                None => Rows {
                    schema: Arc::clone(schema),
                    batches: Vec::new(),
                },
                Some(file) => {
                    let columns = names(file)?;
                    if mart.reach.contains_key(name) && !columns.contains(DATE) {
                        let message = format!(
                            "`{}` reads `{name}` by date, and the file has no `{DATE}`",
                            mart.name
                        );
                        return Err(MartError::new(file, None, message)
                            .hint(format!("give each row its `{DATE}`, such as 2019-04-01")));
                    }
                    typed(file, schema, &columns)?
                }
            };
            tables.insert(name.clone(), rows);
        }
        Ok(tables)
    }

    /// The expected rows, with the names of the columns that the file has. `None` where there is no file.
    ///
    /// # Errors
    /// A file with another column than the mart, or with a value that does not fit.
    pub fn expected(
        &self,
        schema: &SchemaRef,
    ) -> Result<Option<(Rows, BTreeSet<String>)>, MartError> {
        let Some(file) = &self.expected else {
            return Ok(None);
        };
        let columns = names(file)?;
        Ok(Some((typed(file, schema, &columns)?, columns)))
    }

    /// Writes the rows as the expectation, with the columns of the file that is there. CSV cannot tell an empty text
    /// from NULL and has no nested values, so such rows become NDJSON.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn bless(&mut self, rows: &Rows) -> Result<(), MartError> {
        let columns = match &self.expected {
            Some(file) => names(file)?,
            None => rows
                .schema
                .fields()
                .iter()
                .map(|f| f.name().clone())
                .collect(),
        };
        let fields = rows.schema.fields().iter().enumerate();
        let kept: Vec<usize> = fields
            .filter(|(_, field)| columns.contains(field.name()))
            .map(|(i, _)| i)
            .collect();
        let batches: Result<Vec<RecordBatch>, _> = rows
            .batches
            .iter()
            .map(|batch| batch.project(&kept))
            .collect();
        let old = self.expected.take();
        let failing = |file: &Path, error: &dyn std::fmt::Display| {
            MartError::new(file, None, format!("cannot write the file: {error}"))
        };
        let batches = batches.map_err(|error| failing(&self.folder, &error))?;
        let lines = old.as_deref().and_then(format_of) == Some(ReferenceFormat::Ndjson)
            || batches.iter().any(needs_ndjson);
        let ending = if lines { "ndjson" } else { "csv" };
        let file = self.folder.join(format!("{EXPECTED}.{ending}"));
        let names: Vec<String> = (rows.schema.fields().iter())
            .map(|field| field.name().clone())
            .filter(|name| columns.contains(name))
            .collect();
        let text = match lines {
            true => ndjson(&batches),
            false => csv_of(&names, &batches),
        };
        let text = text.map_err(|error| failing(&file, &error))?;
        std::fs::write(&file, text).map_err(|error| failing(&file, &error))?;
        if let Some(old) = old.filter(|old| *old != file) {
            std::fs::remove_file(&old).map_err(|error| failing(&old, &error))?;
        }
        self.expected = Some(file);
        Ok(())
    }
}

fn unknown_table(file: &Path, name: &str, mart: &Mart, known: &BTreeSet<&str>) -> MartError {
    let message = format!("the mart `{}` does not read `{name}`", mart.name);
    let error = MartError::new(file, None, message);
    match nearest(name, known.iter().copied().chain([EXPECTED])) {
        Some(near) => error.hint(format!("is it `{near}`?")),
        None => {
            let known: Vec<&str> = known.iter().copied().collect();
            error.hint(format!("it reads {}", known.join(", ")))
        }
    }
}

/// The names of the columns of a file, in lower case.
fn names(file: &Path) -> Result<BTreeSet<String>, MartError> {
    let failing = |line: Option<usize>, message: String| MartError::new(file, line, message);
    let text = super::super::graph::read_text(file)?;
    let mut names = BTreeSet::new();
    if format_of(file) == Some(ReferenceFormat::Csv) {
        let mut rows = csv::Reader::from_reader(text.as_bytes());
        let header = rows
            .headers()
            .map_err(|error| failing(Some(1), error.to_string()))?;
        names.extend(header.iter().map(|name| name.trim().to_lowercase()));
        return Ok(names);
    }
    for (i, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let members: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line)
            .map_err(|error| failing(Some(i + 1), format!("not one JSON object: {error}")))?;
        names.extend(members.keys().map(|name| name.trim().to_lowercase()));
    }
    Ok(names)
}

/// The rows of a file with the columns of a table. Columns that the file lacks are NULL.
fn typed(file: &Path, schema: &SchemaRef, columns: &BTreeSet<String>) -> Result<Rows, MartError> {
    let known = || schema.fields().iter().map(|field| field.name().as_str());
    if let Some(name) = columns
        .iter()
        .find(|name| !known().any(|known| known == *name))
    {
        let error = MartError::new(file, Some(1), format!("the table has no column `{name}`"));
        return Err(match nearest(name, known()) {
            Some(near) => error.hint(format!("is it `{near}`?")),
            None => error.hint(format!(
                "its columns are {}",
                known().collect::<Vec<_>>().join(", ")
            )),
        });
    }
    let fields = schema.fields().iter();
    let declared = fields
        .filter(|field| columns.contains(field.name()))
        .map(|field| {
            let kind = ColumnType::from_arrow(field.data_type()).unwrap_or(ColumnType::String);
            (field.name().clone(), kind)
        });
    let reference = Reference {
        name: text_of(file.file_stem()),
        url: file.display().to_string(),
        format: format_of(file).unwrap_or(ReferenceFormat::Csv),
        columns: Some(declared.collect()),
        null: vec![String::new()],
        delimiter: b',',
        encoding: encoding_rs::UTF_8,
    };
    let mut batches = Vec::new();
    read(&reference, file, &mut |_, batch| {
        batches.push(batch);
        Ok::<_, ReferenceError>(())
    })
    .map_err(|error| {
        let line = error.line.and_then(|line| usize::try_from(line).ok());
        MartError::new(file, line, error.message)
    })?;
    let whole = batches.iter().map(|batch| widened(batch, schema));
    let whole = whole.collect::<Result<_, _>>();
    Ok(Rows {
        schema: Arc::clone(schema),
        batches: whole.map_err(|error| MartError::new(file, None, error.to_string()))?,
    })
}

/// The batch with all columns of a schema.
fn widened(
    batch: &RecordBatch,
    schema: &SchemaRef,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let rows = batch.num_rows();
    let columns = schema
        .fields()
        .iter()
        .map(|field| match batch.column_by_name(field.name()) {
            Some(column) => cast(column, field.data_type()),
            None => Ok(new_null_array(field.data_type(), rows)),
        });
    let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

/// Whether a batch has values that CSV does not tell from others.
fn needs_ndjson(batch: &RecordBatch) -> bool {
    batch
        .columns()
        .iter()
        .any(|column| match column.data_type() {
            DataType::Utf8 => column
                .as_string::<i32>()
                .iter()
                .any(|value| value == Some("")),
            kind => kind.is_nested(),
        })
}

fn ndjson(batches: &[RecordBatch]) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let builder = WriterBuilder::new().with_explicit_nulls(true);
    let mut writer = builder.build::<_, LineDelimited>(&mut text);
    for batch in batches {
        writer.write(batch).map_err(std::io::Error::other)?;
    }
    writer.finish().map_err(std::io::Error::other)?;
    drop(writer);
    Ok(text)
}

fn csv_of(names: &[String], batches: &[RecordBatch]) -> std::io::Result<Vec<u8>> {
    let mut rows = csv::Writer::from_writer(Vec::new());
    rows.write_record(names)?;
    let options = FormatOptions::default();
    for batch in batches {
        let columns = batch.columns().iter();
        let columns = columns.map(|column| ArrayFormatter::try_new(column, &options));
        let columns: Vec<ArrayFormatter<'_>> = columns
            .collect::<Result<_, _>>()
            .map_err(std::io::Error::other)?;
        for row in 0..batch.num_rows() {
            let cells = columns
                .iter()
                .map(|column| column.value(row).try_to_string());
            let cells: Vec<String> = cells
                .collect::<Result<_, _>>()
                .map_err(std::io::Error::other)?;
            rows.write_record(cells)?;
        }
    }
    rows.into_inner().map_err(std::io::Error::other)
}
