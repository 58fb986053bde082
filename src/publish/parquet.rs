//! One data file: what is written into Parquet so that every reader can read it.

use std::fs::File;
use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};

use super::WriteError;
use crate::config::Compression;

/// Readers split files by row group, and Spectrum wants none above 128 MB.
const ROW_GROUP_BYTES: usize = 128 << 20;
/// Beyond this many rows a larger row group saves no reader anything.
const ROW_GROUP_ROWS: usize = 1 << 20;

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
}

/// A data file being written on local disk.
pub struct ParquetFile {
    path: PathBuf,
    writer: ArrowWriter<File>,
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
            // Level 3 costs a sixth more and came out no smaller on events.
            Compression::Zstd => Codec::ZSTD(ZstdLevel::try_new(1).map_err(named)?),
        };
        let mut properties = WriterProperties::builder()
            .set_compression(codec)
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .set_created_by(concat!("rawmart ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_key_value_metadata(Some(vec![KeyValue::new(
                "rawmart.commit".to_owned(),
                settings.commit.to_string(),
            )]));
        for column in &settings.bloom_filters {
            properties =
                properties.set_column_bloom_filter_enabled(ColumnPath::from(column.as_str()), true);
        }
        // The Arrow schema in the footer is of use to Arrow alone, and would carry its own types.
        let options = ArrowWriterOptions::new()
            .with_properties(properties.build())
            .with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(file, schema, options).map_err(named)?;
        Ok(Self {
            writer,
            rows: 0,
            memory: settings.memory,
            path,
        })
    }

    /// # Errors
    /// The disk is full.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), WriteError> {
        let result = self.writer.write(batch).and_then(|()| {
            if self.writer.memory_size() > self.memory {
                self.writer.flush()
            } else {
                Ok(())
            }
        });
        self.rows += batch.num_rows() as u64;
        result.map_err(|source| WriteError::Parquet {
            file: self.path.display().to_string(),
            source,
        })
    }

    /// Closes the file: path, rows and bytes.
    ///
    /// # Errors
    /// The disk is full.
    pub fn finish(self) -> Result<(PathBuf, u64, u64), WriteError> {
        let named = |source| WriteError::Parquet {
            file: self.path.display().to_string(),
            source,
        };
        let file = self.writer.into_inner().map_err(named)?;
        let bytes = file
            .metadata()
            .map_err(|e| WriteError::Spill {
                folder: self.path.display().to_string(),
                source: e,
            })?
            .len();
        Ok((self.path, self.rows, bytes))
    }
}
