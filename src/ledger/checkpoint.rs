//! Checkpoints: the state of the log at one commit, as one Parquet file that can be read quickly.
//!
//! ```text
//! rows     raw objects by source and key, then data files by key
//! footer   rawmart: JSON of settings, balances, columns, marts · rawmart.sha256: of rows and JSON
//! ```
//!
//! A checkpoint is a pure function of the commits up to its own, so any run writes the same bytes. It decides
//! nothing. A checkpoint that is damaged or belongs to another log is ignored with a warning: the log has
//! everything, and a lake that opens slowly is better than a lake that does not open. People can read it too:
//! `duckdb -c "FROM read_parquet('lake/_rawmart/checkpoint/*')"`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeBinaryBuilder, Int64Array,
    Int64Builder, RecordBatch, StringArray, StringBuilder,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, KeyValue, RowGroupMetaData};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};
use sha2::Digest;

use super::log::{READ_AHEAD, read};
use super::objects::Packer;
use super::{
    Balance, Commit, DamagedEntry, FORMAT, File, FileEntry, LedgerError, MartState, OLDEST,
    ObjectEntry, Retired, Settings, Sha256, SourceState, State,
};
use crate::layout;
use crate::store::Store;

/// The least number of commits between two checkpoints. So many commits are read in a few round trips.
const LEAST_INTERVAL: u64 = 64;
/// A checkpoint waits one more commit for each time the lake has so many entries. A checkpoint costs as much as
/// the whole lake has entries, so the share of one commit is never more than this many entries, about half a
/// megabyte. A lake of ten million raw objects opens with a thousand commits to read.
const ENTRIES_A_COMMIT: u64 = 8_192;
/// The number of checkpoints that stay. A reader that has found a checkpoint can still read it while the next
/// one is written.
const KEPT: usize = 2;

const ROWS_A_BATCH: usize = 8_192;
const ROWS_A_GROUP: usize = 1 << 17;

/// The keys of the footer.
const REST: &str = "rawmart";
const DIGEST: &str = "rawmart.sha256";

/// The part of a state that is not in rows.
#[derive(Serialize, Deserialize)]
struct Rest {
    format: u32,
    /// The last commit of the checkpoint, and the run that made this commit.
    number: u64,
    run: String,
    sources: BTreeMap<String, RestOfSource>,
    columns: BTreeMap<String, Vec<(String, String)>>,
    marts: BTreeMap<String, MartState>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    retired: BTreeMap<String, Retired>,
    /// For copies of published files: the commit that wrote the content, by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    written: BTreeMap<String, u64>,
    files: u64,
    /// The number of bytes of the file before the footer. The digest covers these bytes.
    bytes: usize,
}

#[derive(Serialize, Deserialize)]
struct RestOfSource {
    settings: Option<Settings>,
    balance: Balance,
    objects: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    dropped: BTreeMap<String, u64>,
}

/// Writes a checkpoint if the last one is far enough behind, and removes the older ones.
///
/// # Errors
/// A store that does not answer.
pub async fn checkpoint(store: &Store, state: &State) -> Result<(), LedgerError> {
    let there = numbers(store).await?;
    let newest = there.last().map_or(0, |(n, _)| *n);
    let objects: usize = state.sources.values().map(|s| s.objects.len()).sum();
    let interval = interval((objects + state.files.len()) as u64);
    if state.unpublished.is_some() || state.last.saturating_sub(newest) < interval {
        return Ok(());
    }
    let key = layout::checkpoint_key(state.last);
    let bytes = encode(state).map_err(|message| LedgerError::Unwritable {
        url: store.url_of(&key),
        message,
    })?;
    // The name may be taken by a checkpoint of another build. It has the same content in other bytes.
    store.create(&key, bytes.into()).await?;
    let stay = there.len().saturating_sub(KEPT - 1);
    let old = there
        .into_iter()
        .take(stay)
        .map(|(n, _)| layout::checkpoint_key(n));
    Ok(store.delete(old.collect()).await?)
}

/// About how many requests read the log of a lake, when it is opened from its newest checkpoint.
pub fn requests_to_open(state: &State) -> u64 {
    let objects: usize = state.sources.values().map(|s| s.objects.len()).sum();
    let commits = state.last % interval((objects + state.files.len()) as u64);
    // A commit and its marker, up to the first that is not there and as far as is read ahead.
    2 * (commits + READ_AHEAD as u64)
}

pub(super) fn interval(entries: u64) -> u64 {
    LEAST_INTERVAL.max(entries / ENTRIES_A_COMMIT)
}

/// The commits that have a checkpoint, ascending, and the size of each checkpoint in bytes.
async fn numbers(store: &Store) -> Result<Vec<(u64, u64)>, LedgerError> {
    let listing = store.list(layout::CHECKPOINT).await?;
    let numbers = listing.objects.iter();
    let numbers =
        numbers.filter_map(|found| Some((layout::checkpoint_of(&found.key)?, found.size)));
    Ok(numbers.collect())
}

/// The state at the newest usable checkpoint, or the state before the first commit.
pub(super) async fn newest(store: &Store) -> Result<State, LedgerError> {
    for (n, size) in numbers(store).await?.into_iter().rev() {
        match of(store, n, size).await? {
            Some(Ok(state)) => return Ok(state),
            Some(Err(message)) => tracing::warn!(
                "{} is ignored: {message}. Delete it: the log has everything. Opening the lake is slower until \
                 the next checkpoint",
                store.url_of(&layout::checkpoint_key(n))
            ),
            None => {}
        }
    }
    Ok(State::default())
}

/// The state at a checkpoint of so many bytes, or the reason why it cannot be used. `None` if it is gone:
/// another run has written two checkpoints since the listing and has deleted this one.
async fn of(
    store: &Store,
    n: u64,
    size: u64,
) -> Result<Option<Result<State, String>>, LedgerError> {
    let Some(bytes) = store.read_whole(&layout::checkpoint_key(n), size).await? else {
        return Ok(None);
    };
    let commit: Option<Commit> = read(store, &layout::commit_key(n)).await?;
    Ok(Some(decode(bytes).and_then(|state| match commit {
        Some(commit) if (state.last, &state.run) == (n, &commit.run) => Ok(state),
        Some(_) => Err("it belongs to another log".to_owned()),
        None => Err(format!("the log has no commit {n}")),
    })))
}

/// The checkpoints that cannot be used.
///
/// # Errors
/// A store that does not answer, a commit that cannot be read.
pub async fn damaged_checkpoints(store: &Store) -> Result<Vec<DamagedEntry>, LedgerError> {
    let mut damaged = Vec::new();
    for (n, size) in numbers(store).await? {
        if let Some(Err(message)) = of(store, n, size).await? {
            let key = layout::checkpoint_key(n);
            let url = store.url_of(&key);
            let why = LedgerError::DamagedSpare { url, message };
            damaged.push(DamagedEntry { key, why });
        }
    }
    Ok(damaged)
}

fn schema() -> SchemaRef {
    let text = |name| Field::new(name, DataType::Utf8, true);
    let number = |name| Field::new(name, DataType::Int64, true);
    Arc::new(Schema::new(vec![
        // The source of a raw object, or the table of a data file.
        text("source"),
        text("table"),
        Field::new("key", DataType::Utf8, false),
        text("etag"),
        Field::new("bytes", DataType::Int64, false),
        number("min_time"),
        number("max_time"),
        // Columns of raw objects.
        Field::new("sha256", DataType::FixedSizeBinary(32), true),
        number("arrival_ms"),
        number("records"),
        number("events"),
        text("rejects"),
        // Columns of data files.
        number("rows"),
        number("commit"),
        text("partition"),
        text("name"),
        text("staged"),
    ]))
}

struct Writer {
    schema: SchemaRef,
    file: ArrowWriter<Vec<u8>>,
    rows: usize,
    source: StringBuilder,
    table: StringBuilder,
    key: StringBuilder,
    etag: StringBuilder,
    bytes: Int64Builder,
    min_time: Int64Builder,
    max_time: Int64Builder,
    sha256: FixedSizeBinaryBuilder,
    arrival_ms: Int64Builder,
    records: Int64Builder,
    events: Int64Builder,
    rejects: StringBuilder,
    row_count: Int64Builder,
    commit: Int64Builder,
    partition: StringBuilder,
    name: StringBuilder,
    staged: StringBuilder,
}

impl Writer {
    fn new() -> Result<Self, ParquetError> {
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_max_row_group_row_count(Some(ROWS_A_GROUP))
            .set_created_by(concat!("rawmart ", env!("CARGO_PKG_VERSION")).to_owned())
            // Sorted keys share their beginnings. No column of a raw object repeats its values enough for a
            // dictionary.
            .set_column_encoding(ColumnPath::from("key"), Encoding::DELTA_BYTE_ARRAY);
        for column in [
            "key", "etag", "sha256", "bytes", "min_time", "max_time", "staged",
        ] {
            properties = properties.set_column_dictionary_enabled(ColumnPath::from(column), false);
        }
        let options = ArrowWriterOptions::new()
            .with_properties(properties.build())
            .with_skip_arrow_metadata(true);
        let schema = schema();
        Ok(Self {
            file: ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(&schema), options)?,
            schema,
            rows: 0,
            source: StringBuilder::new(),
            table: StringBuilder::new(),
            key: StringBuilder::new(),
            etag: StringBuilder::new(),
            bytes: Int64Builder::new(),
            min_time: Int64Builder::new(),
            max_time: Int64Builder::new(),
            sha256: FixedSizeBinaryBuilder::new(32),
            arrival_ms: Int64Builder::new(),
            records: Int64Builder::new(),
            events: Int64Builder::new(),
            rejects: StringBuilder::new(),
            row_count: Int64Builder::new(),
            commit: Int64Builder::new(),
            partition: StringBuilder::new(),
            name: StringBuilder::new(),
            staged: StringBuilder::new(),
        })
    }

    fn object(&mut self, source: &str, object: &ObjectEntry) -> Result<(), String> {
        self.source.append_value(source);
        self.table.append_null();
        self.common(
            &object.key,
            object.etag.as_deref(),
            object.size,
            object.times,
        );
        self.sha256.append_value(object.sha256.0).map_err(words)?;
        self.arrival_ms.append_value(object.arrival_ms);
        self.records.append_value(object.records.cast_signed());
        self.events.append_value(object.events.cast_signed());
        match object.rejects.is_empty() {
            true => self.rejects.append_null(),
            false => self
                .rejects
                .append_value(serde_json::to_string(&object.rejects).map_err(words)?),
        }
        self.row_count.append_null();
        self.commit.append_null();
        self.partition.append_null();
        self.name.append_null();
        self.staged.append_null();
        self.row()
    }

    fn file(&mut self, key: &str, file: &File) -> Result<(), String> {
        let entry = &file.entry;
        self.source.append_null();
        self.table.append_value(&entry.table);
        self.common(key, file.etag.as_deref(), entry.bytes, entry.times);
        match entry.sha256 {
            Some(sha256) => self.sha256.append_value(sha256.0).map_err(words)?,
            None => self.sha256.append_null(),
        }
        self.arrival_ms.append_null();
        self.records.append_null();
        self.events.append_null();
        self.rejects.append_null();
        self.row_count.append_value(entry.rows.cast_signed());
        self.commit.append_value(file.commit.cast_signed());
        self.partition
            .append_value(serde_json::to_string(&entry.partition).map_err(words)?);
        self.name.append_value(&entry.name);
        self.staged.append_value(&entry.staged);
        self.row()
    }

    fn common(&mut self, key: &str, etag: Option<&str>, bytes: u64, times: Option<(i64, i64)>) {
        self.key.append_value(key);
        self.etag.append_option(etag);
        self.bytes.append_value(bytes.cast_signed());
        self.min_time.append_option(times.map(|(min, _)| min));
        self.max_time.append_option(times.map(|(_, max)| max));
    }

    fn row(&mut self) -> Result<(), String> {
        self.rows += 1;
        match self.rows {
            ROWS_A_BATCH => self.batch(),
            _ => Ok(()),
        }
    }

    fn batch(&mut self) -> Result<(), String> {
        self.rows = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.source.finish()),
            Arc::new(self.table.finish()),
            Arc::new(self.key.finish()),
            Arc::new(self.etag.finish()),
            Arc::new(self.bytes.finish()),
            Arc::new(self.min_time.finish()),
            Arc::new(self.max_time.finish()),
            Arc::new(self.sha256.finish()),
            Arc::new(self.arrival_ms.finish()),
            Arc::new(self.records.finish()),
            Arc::new(self.events.finish()),
            Arc::new(self.rejects.finish()),
            Arc::new(self.row_count.finish()),
            Arc::new(self.commit.finish()),
            Arc::new(self.partition.finish()),
            Arc::new(self.name.finish()),
            Arc::new(self.staged.finish()),
        ];
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(words)?;
        self.file.write(&batch).map_err(words)
    }
}

pub(super) fn encode(state: &State) -> Result<Vec<u8>, String> {
    let mut writer = Writer::new().map_err(words)?;
    let mut sources = BTreeMap::new();
    for (name, source) in &state.sources {
        for object in source.objects.values() {
            writer.object(name, &object)?;
        }
        let rest = RestOfSource {
            settings: source.settings.clone(),
            balance: source.balance.clone(),
            objects: source.objects.len() as u64,
            dropped: source.dropped.clone(),
        };
        sources.insert(name.clone(), rest);
    }
    for (key, file) in &state.files {
        writer.file(key, file)?;
    }
    writer.batch()?;
    let mut file = writer.file;
    file.flush().map_err(words)?;
    file.sync().map_err(words)?;
    let rest = Rest {
        format: FORMAT,
        number: state.last,
        run: state.run.clone(),
        sources,
        columns: state.columns.clone(),
        marts: state.marts.clone(),
        retired: state.retired.clone(),
        written: state
            .files
            .iter()
            .filter_map(|(key, file)| Some((key.clone(), file.entry.written?)))
            .collect(),
        files: state.files.len() as u64,
        bytes: file.inner().len(),
    };
    let rest = serde_json::to_string(&rest).map_err(words)?;
    let digest = digest(file.inner(), &rest);
    file.append_key_value_metadata(KeyValue::new(REST.to_owned(), rest));
    file.append_key_value_metadata(KeyValue::new(DIGEST.to_owned(), digest));
    file.into_inner().map_err(words)
}

fn digest(rows: &[u8], rest: &str) -> String {
    let hash = sha2::Sha256::new().chain_update(rows).chain_update(rest);
    hex::encode(hash.finalize())
}

pub(super) fn decode(bytes: Bytes) -> Result<State, String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).map_err(words)?;
    let footer = reader.metadata().file_metadata().key_value_metadata();
    let value = |key: &str| {
        let entry = footer.and_then(|entries| entries.iter().find(|entry| entry.key == key));
        let value = entry.and_then(|entry| entry.value.as_deref());
        value.ok_or_else(|| format!("its footer has no `{key}`"))
    };
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let json = value(REST)?;
    let Head { format } = serde_json::from_str(json).map_err(words)?;
    if !(OLDEST..=FORMAT).contains(&format) {
        return Err(format!(
            "it has format {format}, which this rawmart cannot read"
        ));
    }
    let rest: Rest = serde_json::from_str(json).map_err(words)?;
    let rows = bytes.get(..rest.bytes).unwrap_or(&bytes);
    if digest(rows, json) != value(DIGEST)? || *reader.schema().fields() != *schema().fields() {
        return Err("it is damaged".to_owned());
    }
    if reader.metadata().row_groups().iter().any(is_odd) {
        return Err("it is damaged".to_owned());
    }
    let mut objects: BTreeMap<String, Packer> = BTreeMap::new();
    let mut files = BTreeMap::new();
    for batch in reader
        .with_batch_size(ROWS_A_BATCH)
        .build()
        .map_err(words)?
    {
        let batch = batch.map_err(words)?;
        let columns = Columns::of(&batch).ok_or("its columns have other types")?;
        for row in 0..batch.num_rows() {
            match text(columns.source, row) {
                Some(source) => take_object(&mut objects, source, &columns.object(row)?)?,
                None => {
                    let (key, mut file) = columns.file(row)?;
                    file.entry.written = rest.written.get(&key).copied();
                    files.insert(key, file);
                }
            }
        }
    }
    if files.len() as u64 != rest.files {
        return Err("it is cut off".to_owned());
    }
    let mut sources = BTreeMap::new();
    for (name, of) in rest.sources {
        let objects = objects.remove(&name).unwrap_or_default().finish();
        if objects.len() as u64 != of.objects {
            return Err("it is cut off".to_owned());
        }
        let source = SourceState {
            settings: of.settings,
            objects,
            dropped: of.dropped,
            balance: of.balance,
        };
        sources.insert(name, source);
    }
    Ok(State {
        last: rest.number,
        run: rest.run,
        unpublished: None,
        sources,
        files,
        retired: rest.retired,
        columns: rest.columns,
        marts: rest.marts,
    })
}

/// Whether a column of a row group begins before the file. The reader panics at such a place.
fn is_odd(group: &RowGroupMetaData) -> bool {
    group.columns().iter().any(|column: &ColumnChunkMetaData| {
        let dictionary = column.dictionary_page_offset().unwrap_or(0);
        column
            .data_page_offset()
            .min(dictionary)
            .min(column.compressed_size())
            < 0
    })
}

/// Adds the next raw object of a source. Objects come in order.
fn take_object(
    objects: &mut BTreeMap<String, Packer>,
    source: &str,
    object: &ObjectEntry,
) -> Result<(), String> {
    // The name of a source is copied only for its first object.
    let sorted = match objects.get_mut(source) {
        Some(packer) => packer.push_after(object),
        None => objects
            .entry(source.to_owned())
            .or_default()
            .push_after(object),
    };
    match sorted {
        true => Ok(()),
        false => Err(format!("{} is out of order", object.key)),
    }
}

/// The columns of one batch.
struct Columns<'a> {
    source: &'a StringArray,
    table: &'a StringArray,
    key: &'a StringArray,
    etag: &'a StringArray,
    bytes: &'a Int64Array,
    min_time: &'a Int64Array,
    max_time: &'a Int64Array,
    sha256: &'a FixedSizeBinaryArray,
    arrival_ms: &'a Int64Array,
    records: &'a Int64Array,
    events: &'a Int64Array,
    rejects: &'a StringArray,
    rows: &'a Int64Array,
    commit: &'a Int64Array,
    partition: &'a StringArray,
    name: &'a StringArray,
    staged: &'a StringArray,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Option<Self> {
        let text = |name| batch.column_by_name(name)?.as_string_opt();
        let number = |name| batch.column_by_name(name)?.as_primitive_opt::<Int64Type>();
        Some(Self {
            source: text("source")?,
            table: text("table")?,
            key: text("key")?,
            etag: text("etag")?,
            bytes: number("bytes")?,
            min_time: number("min_time")?,
            max_time: number("max_time")?,
            sha256: batch.column_by_name("sha256")?.as_fixed_size_binary_opt()?,
            arrival_ms: number("arrival_ms")?,
            records: number("records")?,
            events: number("events")?,
            rejects: text("rejects")?,
            rows: number("rows")?,
            commit: number("commit")?,
            partition: text("partition")?,
            name: text("name")?,
            staged: text("staged")?,
        })
    }

    fn object(&self, row: usize) -> Result<ObjectEntry, String> {
        Ok(ObjectEntry {
            key: self.key.value(row).to_owned(),
            etag: text(self.etag, row).map(str::to_owned),
            size: self.bytes.value(row).cast_unsigned(),
            sha256: self.sha256(row)?.ok_or("a raw object has no sha256")?,
            arrival_ms: self.arrival_ms.value(row),
            records: self.records.value(row).cast_unsigned(),
            events: self.events.value(row).cast_unsigned(),
            rejects: match text(self.rejects, row) {
                Some(rejects) => serde_json::from_str(rejects).map_err(words)?,
                None => BTreeMap::new(),
            },
            times: self.times(row),
        })
    }

    fn file(&self, row: usize) -> Result<(String, File), String> {
        let file = File {
            commit: self.commit.value(row).cast_unsigned(),
            entry: FileEntry {
                table: self.table.value(row).to_owned(),
                partition: serde_json::from_str(self.partition.value(row)).map_err(words)?,
                name: self.name.value(row).to_owned(),
                rows: self.rows.value(row).cast_unsigned(),
                bytes: self.bytes.value(row).cast_unsigned(),
                times: self.times(row),
                staged: self.staged.value(row).to_owned(),
                sha256: self.sha256(row)?,
                version: layout::version_of(self.key.value(row)),
                written: None,
            },
            etag: text(self.etag, row).map(str::to_owned),
        };
        Ok((self.key.value(row).to_owned(), file))
    }

    fn sha256(&self, row: usize) -> Result<Option<Sha256>, String> {
        match self.sha256.is_valid(row) {
            true => Ok(Some(Sha256(
                self.sha256.value(row).try_into().map_err(words)?,
            ))),
            false => Ok(None),
        }
    }

    fn times(&self, row: usize) -> Option<(i64, i64)> {
        let there = self.min_time.is_valid(row);
        there.then(|| (self.min_time.value(row), self.max_time.value(row)))
    }
}

fn text(column: &StringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}
