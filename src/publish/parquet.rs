//! One data file: what is written into Parquet so that every reader can read it.

use std::cmp::Reverse;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves,
};
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};

use super::WriteError;
use crate::config::Compression;

/// Readers split files by row group, and Spectrum wants none above 128 MB.
const ROW_GROUP_BYTES: usize = 128 << 20;
/// Beyond this many rows a larger row group saves no reader anything.
const ROW_GROUP_ROWS: usize = 1 << 20;

/// The name in the footer under which the commit is noted.
pub(super) const COMMIT: &str = "rawmart.commit";

/// How the data files of a table are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSettings {
    pub compression: Compression,
    /// Columns with a bloom filter.
    pub bloom_filters: Vec<String>,
    /// The commit that the footer names, so that no two versions of a file are equal in bytes.
    pub commit: u64,
    /// Bytes that an unfinished row group may hold.
    pub memory: usize,
    /// Columns that are encoded at once.
    pub threads: usize,
}

/// A data file being written on local disk.
///
/// ```text
/// batch ──▶ columns ──▶ encoders of the open row group, each column by one thread at a time ──▶ file
/// ```
///
/// What the file holds does not depend on the number of threads.
pub struct ParquetFile {
    path: PathBuf,
    schema: SchemaRef,
    file: SerializedFileWriter<File>,
    groups: ArrowRowGroupWriterFactory,
    open: Option<RowGroup>,
    rows: u64,
    memory: usize,
    threads: usize,
}

/// A row group whose columns are being encoded.
struct RowGroup {
    /// One for each leaf of the schema.
    encoders: Vec<ArrowColumnWriter>,
    rows: usize,
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
            // Level 3 costs a sixth more and came out no smaller on events.
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
        for column in &settings.bloom_filters {
            properties =
                properties.set_column_bloom_filter_enabled(ColumnPath::from(column.as_str()), true);
        }
        // Without the Arrow schema in the footer: that is of use to Arrow alone, and would carry its
        // own types.
        let columns = ArrowSchemaConverter::new()
            .convert(&schema)
            .map_err(named)?;
        let properties = Arc::new(properties.build());
        let file = SerializedFileWriter::new(file, columns.root_schema_ptr(), properties)
            .map_err(named)?;
        Ok(Self {
            groups: ArrowRowGroupWriterFactory::new(&file, Arc::clone(&schema)),
            file,
            schema,
            open: None,
            rows: 0,
            memory: settings.memory,
            threads: settings.threads,
            path,
        })
    }

    /// # Errors
    /// The disk is full.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), WriteError> {
        let mut from = 0;
        while from < batch.num_rows() {
            let held = self.open.as_ref().map_or(0, |group| group.rows);
            let rows = (ROW_GROUP_ROWS - held).min(batch.num_rows() - from);
            let written = self.encode(&batch.slice(from, rows));
            written.map_err(|source| self.failing(source))?;
            from += rows;
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    fn encode(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        let mut group = match self.open.take() {
            Some(group) => group,
            None => RowGroup {
                encoders: self
                    .groups
                    .create_column_writers(self.file.flushed_row_groups().len())?,
                rows: 0,
            },
        };
        let mut encoders = group.encoders.as_mut_slice();
        let mut columns = Vec::with_capacity(batch.num_columns());
        for (field, column) in self.schema.fields().iter().zip(batch.columns()) {
            let leaves = leaves(field.data_type()).min(encoders.len());
            let (own, rest) = encoders.split_at_mut(leaves);
            columns.push((field, column, own));
            encoders = rest;
        }
        // The largest first, so that the threads end at about the same time.
        columns.sort_by_cached_key(|(_, column, _)| {
            Reverse(column.to_data().get_slice_memory_size().unwrap_or(0))
        });
        in_parallel(self.threads, columns, |(field, column, encoders)| {
            for (leaf, encoder) in compute_leaves(field, column)?.iter().zip(encoders) {
                encoder.write(leaf)?;
            }
            Ok(())
        })?;
        group.rows += batch.num_rows();
        let encoders = group.encoders.iter();
        let (held, bytes) = encoders.fold((0, 0), |(held, bytes), encoder| {
            let size = encoder.get_estimated_total_bytes();
            (held + encoder.memory_size(), bytes + size)
        });
        let full = group.rows >= ROW_GROUP_ROWS || bytes >= ROW_GROUP_BYTES || held > self.memory;
        self.open = Some(group);
        match full {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Ends the open row group.
    fn flush(&mut self) -> Result<(), ParquetError> {
        let Some(group) = self.open.take() else {
            return Ok(());
        };
        let mut chunks: Vec<Option<ArrowColumnChunk>> = Vec::new();
        chunks.resize_with(group.encoders.len(), || None);
        let ends = group.encoders.into_iter().zip(&mut chunks).collect();
        in_parallel(self.threads, ends, |(encoder, chunk)| {
            *chunk = Some(encoder.close()?);
            Ok(())
        })?;
        let mut to = self.file.next_row_group()?;
        for chunk in chunks.into_iter().flatten() {
            chunk.append_to_row_group(&mut to)?;
        }
        to.close()?;
        Ok(())
    }

    fn failing(&self, source: ParquetError) -> WriteError {
        WriteError::Parquet {
            file: self.path.display().to_string(),
            source,
        }
    }

    /// Closes the file: path, rows and bytes.
    ///
    /// # Errors
    /// The disk is full.
    pub fn finish(mut self) -> Result<(PathBuf, u64, u64), WriteError> {
        self.flush().map_err(|source| self.failing(source))?;
        let (path, rows) = (self.path, self.rows);
        let file = self
            .file
            .into_inner()
            .map_err(|source| WriteError::Parquet {
                file: path.display().to_string(),
                source,
            })?;
        let bytes = file
            .metadata()
            .map_err(|e| WriteError::Spill {
                folder: path.display().to_string(),
                source: e,
            })?
            .len();
        Ok((path, rows, bytes))
    }
}

/// Columns of Parquet that a type becomes.
fn leaves(kind: &DataType) -> usize {
    match kind {
        DataType::List(item) | DataType::Map(item, _) => leaves(item.data_type()),
        DataType::Struct(fields) => fields.iter().map(|f| leaves(f.data_type())).sum(),
        _ => 1,
    }
}

/// Does a piece of work on each item; a thread that is done with one takes the next.
fn in_parallel<T: Send>(
    threads: usize,
    items: Vec<T>,
    work: impl Fn(T) -> Result<(), ParquetError> + Sync,
) -> Result<(), ParquetError> {
    let threads = threads.min(items.len());
    let items = Mutex::new(items.into_iter());
    let take = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let go_on = || -> Result<(), ParquetError> {
        while let Some(item) = take() {
            work(item)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(go_on)).collect();
        let own = go_on();
        let died = |_| ParquetError::General("an encoder died".to_owned());
        let others = others.into_iter().map(|other| other.join().map_err(died)?);
        // All of them, so that none is left behind.
        others.fold(own, Result::and)
    })
}
