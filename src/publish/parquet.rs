//! Writes one data file as Parquet that every reader can read.
//!
//! A dictionary is useful only where values repeat. Where they do not, it is filled in vain: the file is
//! larger, and encoding it takes 5 to 16 % more time. In addition, fastparquet reads NULL behind the place
//! where a dictionary is given up, without an error. Each row group therefore decides for each column, by the
//! first rows of the group.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves,
};
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{
    EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterPropertiesPtr,
};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, SchemaDescriptor};
use serde::{Deserialize, Serialize};

use super::WriteError;
use super::repeats::hardly_repeats;
use crate::config::Compression;
use crate::store::is_full;

/// Readers split files by row group. Spectrum wants no row group above 128 MB.
const ROW_GROUP_BYTES: usize = 128 << 20;
/// The most rows of a row group. A filter for an hour of a day then reads a third of the bytes that it reads of a group
/// of a million rows, and the file is 6 % larger at most.
const ROW_GROUP_ROWS: usize = 131_072;

/// The most bytes of rows that are encoded at once. With more, the encoders would hold pages that are not
/// compressed yet.
const BATCH_BYTES: usize = 4 << 20;

/// The name of the commit in the footer.
pub(super) const COMMIT: &str = "rawmart.commit";

/// The settings of the data files of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSettings {
    /// The codec of the pages.
    pub compression: Compression,
    /// The column of event times; `None` if the rows have none.
    pub event_time: Option<String>,
    /// The columns by which the rows of every row group are sorted, ascending, NULL last.
    pub sorted_by: Vec<String>,
    /// The columns with a bloom filter.
    pub bloom_filters: Vec<String>,
    /// The commit that the footer names. Because of it no two versions of a file have the same bytes.
    pub commit: u64,
    /// The bytes that an unfinished row group may hold.
    pub memory: usize,
    /// The number of columns that are encoded at once.
    pub threads: usize,
}

/// A data file that is being written on local disk: a list of row groups. Each is encoded and then appended.
///
/// ```text
/// batch ──▶ a queue a column ──▶ encoders of the open row group, each run by one thread at a time ──▶ file
///           two batches deep     the writing thread and `threads` − 1 others
/// ```
///
/// Threads do not wait for each other at the end of a batch. While the largest column is still being encoded,
/// the next batch is begun. The bytes of the file do not depend on the number of threads.
pub struct ParquetFile {
    path: PathBuf,
    schema: SchemaRef,
    file: SerializedFileWriter<File>,
    /// The settings of encoding, apart from the dictionaries of a row group.
    properties: WriterPropertiesBuilder,
    /// For each Parquet column, whether its values hardly repeated in the last row group that showed it.
    plain: Vec<bool>,
    encoding: Encoding,
    /// The numbers of rows and batches that were handed to the open row group. Without batches there is no open
    /// row group.
    open: (usize, usize),
    rows: u64,
    memory: usize,
}

impl ParquetFile {
    /// # Errors
    /// The file cannot be created, or a column cannot be written as Parquet.
    pub fn create(
        path: PathBuf,
        schema: SchemaRef,
        settings: &FileSettings,
    ) -> Result<Self, WriteError> {
        let named = |source| WriteError::Parquet {
            file: path.display().to_string(),
            source,
        };
        let file = File::create(&path).map_err(|e| WriteError::Spill {
            folder: path.display().to_string(),
            source: e,
        })?;
        let codec = match settings.compression {
            Compression::Snappy => Codec::SNAPPY,
            // Level 3 costs a sixth more time, and files of events were not smaller.
            Compression::Zstd => Codec::ZSTD(ZstdLevel::try_new(1).map_err(named)?),
        };
        let mut properties = WriterProperties::builder()
            .set_compression(codec)
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_created_by(concat!("rawmart ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_key_value_metadata(Some(vec![KeyValue::new(
                COMMIT.to_owned(),
                settings.commit.to_string(),
            )]));
        if let Some(column) = &settings.event_time {
            // Hardly any value repeats, so a dictionary would be filled in vain and make the file larger.
            let column = ColumnPath::from(column.as_str());
            properties = properties.set_column_dictionary_enabled(column, false);
        }
        for column in &settings.bloom_filters {
            properties =
                properties.set_column_bloom_filter_enabled(ColumnPath::from(column.as_str()), true);
        }
        // The Arrow schema is left out of the footer. Only Arrow uses it, and it would bring types of its own.
        let columns = ArrowSchemaConverter::new()
            .convert(&schema)
            .map_err(named)?;
        let properties = properties.set_sorting_columns(sorting(&columns, &settings.sorted_by));
        let built = Arc::new(properties.clone().build());
        let file =
            SerializedFileWriter::new(file, columns.root_schema_ptr(), built).map_err(named)?;
        Ok(Self {
            plain: vec![false; columns.num_columns()],
            properties,
            encoding: Encoding::new(settings.threads),
            file,
            schema,
            open: (0, 0),
            rows: 0,
            memory: settings.memory,
            path,
        })
    }

    /// # Errors
    /// The disk is full.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), WriteError> {
        let bytes: usize = batch.columns().iter().map(size).sum();
        let at_once = match bytes > 2 * BATCH_BYTES {
            true => (batch.num_rows() * BATCH_BYTES / bytes).max(1),
            false => batch.num_rows(),
        };
        let mut from = 0;
        while from < batch.num_rows() {
            let rows = (ROW_GROUP_ROWS - self.open.0).min(batch.num_rows() - from);
            let rows = rows.min(at_once);
            let written = self.encode(&batch.slice(from, rows));
            written.map_err(|source| self.failing(source))?;
            from += rows;
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    fn encode(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        if self.open.1 == 0 {
            self.begin(batch)?;
        }
        let columns = batch.columns().iter().cloned();
        self.encoding.give(columns.map(Task::Encode));
        self.open.0 += batch.num_rows();
        self.open.1 += 1;
        // The size of the row group is known from the batch before, however far each thread is. A row that is
        // larger than a batch is encoded before the next batch comes.
        let is_wide = batch.columns().iter().map(size).sum::<usize>() > BATCH_BYTES;
        let known = self.open.1 - usize::from(!is_wide);
        let (held, bytes) = self.encoding.wait_for(known)?;
        let full = self.open.0 >= ROW_GROUP_ROWS || bytes >= ROW_GROUP_BYTES || held > self.memory;
        match full {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Begins a row group with these first rows.
    fn begin(&mut self, first: &RecordBatch) -> Result<(), ParquetError> {
        let group = self.file.flushed_row_groups().len();
        let properties = self.group_properties(first);
        let schema = self.file.schema_descr().root_schema_ptr();
        // A factory takes its settings from a file. The settings of one row group come from a file that is not
        // kept.
        let nowhere = SerializedFileWriter::new(io::sink(), schema, properties)?;
        let encoders = ArrowRowGroupWriterFactory::new(&nowhere, Arc::clone(&self.schema));
        let mut encoders = encoders.create_column_writers(group)?.into_iter();
        let columns = self.schema.fields().iter().map(|field| OpenColumn {
            field: Arc::clone(field),
            encoders: Some(encoders.by_ref().take(leaves(field.data_type())).collect()),
            waiting: VecDeque::new(),
            sizes: vec![(0, 0)],
            chunks: Vec::new(),
        });
        self.encoding.begin(columns.collect());
        Ok(())
    }

    /// The settings of encoding for a row group with these first rows.
    fn group_properties(&mut self, first: &RecordBatch) -> WriterPropertiesPtr {
        let told = first.columns().iter().flat_map(hardly_repeats);
        for (plain, told) in self.plain.iter_mut().zip(told) {
            *plain = told.unwrap_or(*plain);
        }
        let columns = self.file.schema_descr().columns().iter();
        let plain = columns.zip(&self.plain).filter(|(_, plain)| **plain);
        let properties = plain.fold(self.properties.clone(), |properties, (column, _)| {
            properties.set_column_dictionary_enabled(column.path().clone(), false)
        });
        Arc::new(properties.build())
    }

    /// Ends the open row group.
    fn flush(&mut self) -> Result<(), ParquetError> {
        let (_, batches) = std::mem::take(&mut self.open);
        if batches == 0 {
            return Ok(());
        }
        self.encoding.give(std::iter::repeat_with(|| Task::Close));
        self.encoding.wait_for(batches + 1)?;
        let chunks = self.encoding.take_chunks();
        self.append(chunks)
    }

    /// Appends a row group whose columns are encoded.
    fn append(&mut self, chunks: Vec<ArrowColumnChunk>) -> Result<(), ParquetError> {
        let mut to = self.file.next_row_group()?;
        for chunk in chunks {
            chunk.append_to_row_group(&mut to)?;
        }
        to.close()?;
        Ok(())
    }

    fn failing(&self, source: ParquetError) -> WriteError {
        failing(&self.path, source)
    }

    /// Closes the file. The result is its path, the number of rows and the number of bytes.
    ///
    /// # Errors
    /// The disk is full.
    pub fn finish(mut self) -> Result<(PathBuf, u64, u64), WriteError> {
        self.flush().map_err(|source| self.failing(source))?;
        let (path, rows) = (self.path, self.rows);
        // The buffered bytes are written. An error of the disk is reported as an error of the disk.
        let finished = self.file.finish();
        finished.map_err(|source| failing(&path, source))?;
        let bytes = self
            .file
            .inner()
            .metadata()
            .map_err(|e| WriteError::Spill {
                folder: path.display().to_string(),
                source: e,
            })?
            .len();
        Ok((path, rows, bytes))
    }
}

/// The order of the rows, in the form of the footer.
fn sorting(columns: &SchemaDescriptor, sorted_by: &[String]) -> Option<Vec<SortingColumn>> {
    let sorted = sorted_by.iter().map_while(|name| {
        let mut columns = columns.columns().iter();
        let at = columns.position(|column| column.path().parts() == std::slice::from_ref(name))?;
        Some(SortingColumn {
            column_idx: i32::try_from(at).ok()?,
            descending: false,
            nulls_first: false,
        })
    });
    let sorted: Vec<SortingColumn> = sorted.collect();
    (!sorted.is_empty()).then_some(sorted)
}

/// The error of writing the file with this path.
fn failing(path: &Path, source: ParquetError) -> WriteError {
    let full = match &source {
        ParquetError::External(error) => error.downcast_ref::<io::Error>().filter(|e| is_full(e)),
        _ => None,
    };
    match full {
        Some(full) => WriteError::Spill {
            folder: path.display().to_string(),
            source: io::Error::new(full.kind(), full.to_string()),
        },
        None => WriteError::Parquet {
            file: path.display().to_string(),
            source,
        },
    }
}

/// The bytes of the values of a column, or of the keys of a dictionary.
fn size(column: &ArrayRef) -> usize {
    match column.as_any_dictionary_opt() {
        Some(dictionary) => dictionary.keys().len() * size_of::<u32>(),
        None => column.to_data().get_slice_memory_size().unwrap_or(0),
    }
}

/// The number of Parquet columns that a type becomes.
fn leaves(kind: &DataType) -> usize {
    match kind {
        DataType::List(item) | DataType::Map(item, _) => leaves(item.data_type()),
        DataType::Struct(fields) => fields.iter().map(|f| leaves(f.data_type())).sum(),
        _ => 1,
    }
}

/// The work on a column, in order.
enum Task {
    Encode(ArrayRef),
    /// Ends the column's part of the row group.
    Close,
}

impl Task {
    /// The bytes to be encoded.
    fn size(&self) -> usize {
        match self {
            Self::Encode(column) => size(column),
            Self::Close => 0,
        }
    }
}

/// A column of the open row group.
struct OpenColumn {
    field: FieldRef,
    /// One encoder for each leaf. A thread takes them away while it works.
    encoders: Option<Vec<ArrowColumnWriter>>,
    waiting: VecDeque<(usize, Task)>,
    /// The bytes that are held and the bytes that the file will have, after each piece of work. At the
    /// beginning there is none.
    sizes: Vec<(usize, usize)>,
    chunks: Vec<ArrowColumnChunk>,
}

impl OpenColumn {
    fn run(
        field: &FieldRef,
        mut encoders: Vec<ArrowColumnWriter>,
        task: Task,
    ) -> Result<(Vec<ArrowColumnWriter>, Vec<ArrowColumnChunk>), ParquetError> {
        match task {
            Task::Encode(column) => {
                for (leaf, encoder) in compute_leaves(field, &column)?.iter().zip(&mut encoders) {
                    encoder.write(leaf)?;
                }
                Ok((encoders, Vec::new()))
            }
            Task::Close => {
                let chunks = encoders.into_iter().map(ArrowColumnWriter::close);
                Ok((Vec::new(), chunks.collect::<Result<_, _>>()?))
            }
        }
    }
}

/// The columns of the open row group, and the threads that encode them.
struct Encoding {
    shared: Arc<Shared>,
    /// The number of threads that there may be, and the threads that were started. A file without rows starts
    /// none.
    others: usize,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    columns: Mutex<Columns>,
    /// There is new work, or some work was done.
    changed: Condvar,
}

#[derive(Default)]
struct Columns {
    all: Vec<OpenColumn>,
    /// Whether a task has failed, and the error until it is reported.
    failed: bool,
    why: Option<ParquetError>,
    /// Whether no more work will come.
    ended: bool,
}

impl Encoding {
    /// Encodes with so many threads. The thread that waits for the work is one of them.
    fn new(threads: usize) -> Self {
        Self {
            shared: Arc::default(),
            others: threads.saturating_sub(1),
            threads: Vec::new(),
        }
    }

    fn begin(&mut self, columns: Vec<OpenColumn>) {
        self.shared.lock().all = columns;
        while self.threads.len() < self.others {
            let shared = Arc::clone(&self.shared);
            let work = move || shared.work_until(|columns| columns.ended);
            self.threads.push(std::thread::spawn(work));
        }
    }

    /// Adds a piece of work for each column.
    fn give(&self, work: impl Iterator<Item = Task>) {
        for (column, work) in self.shared.lock().all.iter_mut().zip(work) {
            column.waiting.push_back((work.size(), work));
        }
        self.shared.changed.notify_all();
    }

    /// Works until so many pieces of each column are done. The result is the bytes that are held then, and the
    /// bytes that will be written.
    fn wait_for(&self, pieces: usize) -> Result<(usize, usize), ParquetError> {
        let done = |column: &OpenColumn| column.sizes.get(pieces).copied();
        let all_done = |columns: &Columns| {
            columns.failed || columns.all.iter().all(|column| done(column).is_some())
        };
        self.shared.work_until(all_done);
        let mut columns = self.shared.lock();
        if columns.failed {
            let told = || ParquetError::General("an encoder has failed before".to_owned());
            return Err(columns.why.take().unwrap_or_else(told));
        }
        let sizes = columns.all.iter().filter_map(done);
        Ok(sizes.fold((0, 0), |(a, b), (c, d)| (a + c, b + d)))
    }

    fn take_chunks(&self) -> Vec<ArrowColumnChunk> {
        let columns = std::mem::take(&mut self.shared.lock().all);
        columns
            .into_iter()
            .flat_map(|column| column.chunks)
            .collect()
    }
}

impl Drop for Encoding {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // The error of the thread was reported.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Columns> {
        self.columns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work_until(&self, done: impl Fn(&Columns) -> bool) {
        let mut columns = self.lock();
        while !done(&columns) {
            let Some((i, encoders, work)) = columns.next() else {
                let waited = self.changed.wait(columns);
                columns = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let Some(field) = columns.all.get(i).map(|column| Arc::clone(&column.field)) else {
                continue;
            };
            drop(columns);
            // A thread that waits for this column must learn that it has ended, in whatever way.
            let ran = catch_unwind(AssertUnwindSafe(|| OpenColumn::run(&field, encoders, work)));
            columns = self.lock();
            columns.put_back(i, ran);
            self.changed.notify_all();
        }
    }
}

type Ran =
    std::thread::Result<Result<(Vec<ArrowColumnWriter>, Vec<ArrowColumnChunk>), ParquetError>>;

impl Columns {
    /// Takes the most urgent work: first the column that is the furthest behind, then the largest piece.
    fn next(&mut self) -> Option<(usize, Vec<ArrowColumnWriter>, Task)> {
        let free = self
            .all
            .iter_mut()
            .enumerate()
            .filter(|(_, column)| column.encoders.is_some());
        let urgency = |(_, column): &(usize, &mut OpenColumn)| {
            let next = column.waiting.front().map(|(size, _)| *size);
            (column.waiting.len(), next)
        };
        let (i, column) = free.max_by_key(urgency)?;
        let (_, work) = column.waiting.pop_front()?;
        Some((i, column.encoders.take()?, work))
    }

    fn put_back(&mut self, i: usize, ran: Ran) {
        let died = |_| Err(ParquetError::General("an encoder died".to_owned()));
        match (ran.unwrap_or_else(died), self.all.get_mut(i)) {
            (Ok((encoders, chunks)), Some(column)) => {
                let sizes = encoders
                    .iter()
                    .map(|encoder| (encoder.memory_size(), encoder.get_estimated_total_bytes()));
                let size = sizes.fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
                column.sizes.push(size);
                column.chunks = chunks;
                column.encoders = Some(encoders);
            }
            (Err(error), _) => {
                self.failed = true;
                self.why = Some(error);
            }
            (Ok(_), None) => {}
        }
    }
}
