//! A project of a test: a folder with a configuration and raw objects, the binary run in it as a
//! child process, and its lake read with the Parquet and Arrow crates alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMillisecondType,
};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// A folder that is gone when the test ends.
pub struct Project {
    folder: tempfile::TempDir,
}

/// The exit code and the output of a child process that has ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The one line of JSON on stdout, which is as its schema says.
    pub fn json(&self) -> serde_json::Value {
        let line = self.out.strip_suffix('\n');
        let line = line.filter(|line| !line.contains('\n'));
        let line = line.unwrap_or_else(|| panic!("not one line: {self:?}"));
        let document: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        crate::schema::assert_described(&document);
        let exit = document["exit"].as_i64();
        assert_eq!(exit, self.code.map(i64::from), "{self:?}");
        document
    }

    /// Asserts that the exit code is `code`, and that the output has all of `parts`.
    pub fn expect(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for part in parts {
            assert!(
                self.err.contains(part) || self.out.contains(part),
                "`{part}` is not in {self:?}"
            );
        }
        assert!(!self.err.contains("defect of rawmart"), "{self:?}");
        assert!(!self.err.contains("panicked"), "{self:?}");
    }
}

impl Project {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A project with this configuration, and with these marts by name below `sql/`.
    pub fn with(config: impl AsRef<[u8]>, marts: &[(&str, &str)]) -> Self {
        let project = Self::new();
        project.write("rawmart.toml", config);
        for (name, sql) in marts {
            project.write(&format!("sql/{name}.sql"), sql);
        }
        project
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file and the folders above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Runs the binary in the folder.
    pub fn rawmart(&self, args: &[&str]) -> Ran {
        rawmart(self.folder.path(), args, &[])
    }

    /// Starts the binary in the folder with these variables and no others.
    pub fn spawn(&self, args: &[&str], env: &[(String, String)]) -> Child {
        let mut command = command(self.folder.path(), args, env);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// The lake at `<folder>/lake`.
    pub fn lake(&self) -> Lake {
        Lake::on_disk(&self.path("lake"))
    }
}

/// A source `app` with two rules: an event may be delivered again, and a button may be clicked twice. `time` is the
/// column of the event time, `more` are further settings of the source, and `double_click` are the settings of its
/// second rule.
pub fn clicks(raw: &str, time: &str, more: &str, double_click: &str) -> String {
    format!(
        r#"
[sources.app]
raw = "{raw}"
event_time = "{time}"
{more}

[sources.app.columns]
id = "string"
{time} = "timestamp"
who = "string"

[[sources.app.dedup]]
name = "redelivery"
key = ["id"]
within = "10m"

[[sources.app.dedup]]
name = "double_click"
key = ["who"]
{double_click}
"#
    )
}

/// Waits until nobody holds the lock of a lake on disk. Another test may be starting a child
/// process, which has a copy of every open file of this process until it becomes the other program.
pub fn settle(lake: &str) {
    let path = Path::new(lake.trim_start_matches("file://")).join("_rawmart/lock");
    while let Ok(lock) = std::fs::File::open(&path)
        && lock.try_lock().is_err()
    {
        std::thread::yield_now();
    }
}

/// Runs the binary in `folder` with these variables and no others.
pub fn rawmart(folder: &Path, args: &[&str], env: &[(String, String)]) -> Ran {
    Ran::of(command(folder, args, env).output().unwrap())
}

fn command(folder: &Path, args: &[&str], env: &[(String, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rawmart"));
    command
        .args(args)
        .current_dir(folder)
        .env_clear()
        .env("HOME", "/nonexistent")
        .envs(env.iter().cloned());
    command
}

/// All files below a lake's root, by key.
pub struct Lake(pub BTreeMap<String, Vec<u8>>);

/// One row of a table; a cell is its text, timestamps in milliseconds.
pub type Row = BTreeMap<String, Option<String>>;

impl Lake {
    pub fn on_disk(root: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut folders = vec![root.to_path_buf()];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else {
                continue;
            };
            for entry in entries {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let key = path.strip_prefix(root).unwrap().to_str().unwrap();
                    files.insert(key.to_owned(), std::fs::read(&path).unwrap());
                }
            }
        }
        Self(files)
    }

    /// The part of a bucket below `prefix`.
    pub fn in_bucket(objects: BTreeMap<String, Vec<u8>>, prefix: &str) -> Self {
        let below =
            |(key, bytes): (String, Vec<u8>)| Some((key.strip_prefix(prefix)?.to_owned(), bytes));
        Self(objects.into_iter().filter_map(below).collect())
    }

    /// The tables that have data files.
    pub fn tables(&self) -> Vec<String> {
        let mut tables: Vec<String> = self
            .data_files()
            .map(|(key, _)| key.split('/').next().unwrap().to_owned())
            .collect();
        tables.dedup();
        tables
    }

    /// The same lake with the newest version of each partition in the place below the root of its table, and without
    /// earlier versions.
    pub fn current(&self) -> Self {
        let version = |key: &str| {
            let below = key.strip_prefix("rawmart-versions/")?;
            let (folder, name) = below.rsplit_once('/')?;
            let (partition, version) = folder.rsplit_once('/')?;
            Some((format!("{partition}/"), version.to_owned(), name.to_owned()))
        };
        let mut newest: BTreeMap<String, String> = BTreeMap::new();
        for (partition, found, _) in self.0.keys().filter_map(|key| version(key)) {
            let newest = newest.entry(partition).or_default();
            *newest = found.max(std::mem::take(newest));
        }
        let all = self.0.iter();
        let files = all.filter_map(|(key, bytes)| match version(key) {
            Some((partition, found, name)) => {
                let is_newest = newest[&partition] == found;
                is_newest.then(|| (format!("{partition}{name}"), bytes.clone()))
            }
            None => Some((key.clone(), bytes.clone())),
        });
        Self(files.collect())
    }

    /// All files that readers see.
    pub fn data_files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0
            .iter()
            .filter(|(key, _)| !key.starts_with("_rawmart/"))
            .map(|(key, bytes)| (key.as_str(), bytes.as_slice()))
    }

    /// The numbers of the commits.
    pub fn commits(&self) -> Vec<&str> {
        self.0
            .keys()
            .filter_map(|key| key.strip_prefix("_rawmart/log/"))
            .filter(|name| !name.ends_with(".published"))
            .collect()
    }

    /// The data files of one table with their rows in the order of the file. A row has the
    /// partition's columns too.
    pub fn files(&self, table: &str) -> Vec<(String, Vec<Row>)> {
        let root = format!("{table}/");
        self.data_files()
            .filter(|(key, _)| key.starts_with(&root))
            .map(|(key, bytes)| {
                let mut rows = read(bytes);
                for (column, value) in partition(key) {
                    for row in &mut rows {
                        let twice = row.insert(column.clone(), Some(value.clone()));
                        assert_eq!(twice, None, "{column} is in {key} as well");
                    }
                }
                (key.to_owned(), rows)
            })
            .collect()
    }

    /// The rows of one table.
    pub fn rows(&self, table: &str) -> Vec<Row> {
        self.files(table)
            .into_iter()
            .flat_map(|(_, rows)| rows)
            .collect()
    }

    /// The rows of one table cut to these columns, sorted; NULL is the empty text.
    pub fn cells(&self, table: &str, columns: &[&str]) -> Vec<Vec<String>> {
        let mut rows: Vec<Vec<String>> = self
            .rows(table)
            .iter()
            .map(|row| columns.iter().map(|name| cell(row, name)).collect())
            .collect();
        rows.sort();
        rows
    }

    /// All rows of all tables.
    pub fn content(&self) -> BTreeMap<String, Vec<Row>> {
        self.tables()
            .into_iter()
            .map(|table| {
                let mut rows = self.rows(&table);
                rows.sort();
                (table, rows)
            })
            .collect()
    }
}

pub fn cell(row: &Row, name: &str) -> String {
    match row.get(name) {
        Some(value) => value.clone().unwrap_or_default(),
        None => panic!("no column {name} in {row:?}"),
    }
}

/// The columns and values of a key's partition folders.
fn partition(key: &str) -> Vec<(String, String)> {
    key.split('/')
        .filter_map(|part| part.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn read(bytes: &[u8]) -> Vec<Row> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::copy_from_slice(bytes))
        .unwrap()
        .build()
        .unwrap();
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        let from = rows.len();
        rows.resize(from + batch.num_rows(), Row::new());
        for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            for (i, row) in rows[from..].iter_mut().enumerate() {
                row.insert(field.name().clone(), text(column, i));
            }
        }
    }
    rows
}

fn text(column: &dyn Array, row: usize) -> Option<String> {
    if column.is_null(row) {
        return None;
    }
    Some(match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float64 => format!("{:?}", column.as_primitive::<Float64Type>().value(row)),
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::Timestamp(TimeUnit::Millisecond, _) => column
            .as_primitive::<TimestampMillisecondType>()
            .value(row)
            .to_string(),
        _ => arrow::util::display::array_value_to_string(column, row).unwrap(),
    })
}

/// Rows of a CSV file, with its header.
pub fn csv(path: &Path) -> (Vec<String>, Vec<Vec<String>>) {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let header = reader.headers().unwrap();
    let header = header.iter().map(str::to_owned).collect();
    let rows = reader
        .records()
        .map(|row| row.unwrap().iter().map(str::to_owned).collect())
        .collect();
    (header, rows)
}
