//! Writes rows that are sorted by their partition, one file for each partition.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::Schema;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use super::WriteError;
use super::merge::Finished;
use super::parquet::{FileSettings, ParquetFile};
use crate::catalog::TableDefinition;
use crate::layout::{self, Partition};

/// Writes the rows of one table. The rows have the columns of the files first, then the partition columns.
pub struct Ordered<'a> {
    /// The table that the rows belong to.
    pub table: &'a TableDefinition,
    /// The settings of its data files.
    pub settings: &'a FileSettings,
    /// The folder in which the files are written.
    pub folder: &'a Path,
    /// The most partitions.
    pub most: usize,
}

/// The rows could not be made, or could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OrderedError {
    /// The stream of rows has failed.
    #[error(transparent)]
    Rows(DataFusionError),
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A value of a partition column is too long for the name of a folder.
    #[error("a partition column has a value too long for the name of a folder: {0}…")]
    LongValue(String),
    /// More partitions than there may be, which is the number.
    #[error("it has more than {0} partitions")]
    ManyPartitions(usize),
}

/// The columns that the rows of one partition are sorted by. Nested columns are no part of the order. Readers do not
/// agree where NaN and -0 belong, so the order is told as far as the first float.
fn sorted_by(schema: &Schema) -> Vec<String> {
    let fields = schema.fields().iter();
    let sorted = fields.filter(|field| !field.data_type().is_nested());
    let told = sorted.take_while(|field| !field.data_type().is_floating());
    told.map(|field| field.name().clone()).collect()
}

/// The most bytes of a folder's name that every file system accepts.
const FOLDER_BYTES: usize = 255;

/// The beginning of the first folder of a partition whose name is too long.
fn too_long(partition: &Partition) -> Option<String> {
    let folder = layout::partition_folder(partition);
    let long = folder.split('/').find(|part| part.len() > FOLDER_BYTES)?;
    Some(long.chars().take(60).collect())
}

impl Ordered<'_> {
    /// # Errors
    /// An error of the stream of rows; a full disk.
    pub async fn write(
        &self,
        mut rows: SendableRecordBatchStream,
    ) -> Result<Vec<Finished>, OrderedError> {
        let mut finished = Vec::new();
        let mut open: Option<(Partition, ParquetFile)> = None;
        if self.table.partition_columns.is_empty() {
            // A table without partitions has one file even without rows, because readers look for it.
            open = Some((Vec::new(), self.create(0)?));
        }
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(OrderedError::Rows)?;
            let width = self.table.schema.fields().len();
            let own: Vec<usize> = (0..width).collect();
            let columns = batch.project(&own).map_err(WriteError::from)?;
            for (partition, from, to) in self.stretches(&batch, width) {
                if open.as_ref().is_none_or(|(known, _)| *known != partition) {
                    if let Some((known, file)) = open.take() {
                        finished.push(self.close(known, file)?);
                    }
                    if finished.len() == self.most {
                        return Err(OrderedError::ManyPartitions(self.most));
                    }
                    if let Some(folder) = too_long(&partition) {
                        return Err(OrderedError::LongValue(folder));
                    }
                    open = Some((partition, self.create(finished.len())?));
                }
                if let Some((_, file)) = &mut open {
                    file.write(&columns.slice(from, to - from))?;
                }
            }
        }
        if let Some((known, file)) = open {
            finished.push(self.close(known, file)?);
        }
        Ok(finished)
    }

    fn create(&self, number: usize) -> Result<ParquetFile, WriteError> {
        let path = self
            .folder
            .join(format!("{}-{number}.parquet", self.table.name));
        let settings = FileSettings {
            sorted_by: sorted_by(&self.table.schema),
            ..self.settings.clone()
        };
        ParquetFile::create(path, Arc::clone(&self.table.schema), &settings)
    }

    fn close(&self, partition: Partition, file: ParquetFile) -> Result<Finished, WriteError> {
        let (path, rows, bytes) = file.finish()?;
        Ok(Finished {
            path,
            table: self.table.name.clone(),
            partition,
            name: layout::file_name(0),
            rows,
            bytes,
            times: None,
        })
    }

    /// The parts of a batch whose rows have the same partition.
    fn stretches(&self, batch: &RecordBatch, width: usize) -> Vec<(Partition, usize, usize)> {
        let values: Vec<(&String, &StringArray)> = self
            .table
            .partition_columns
            .iter()
            .zip(batch.columns().iter().skip(width))
            .map(|(name, column)| (name, column.as_string::<i32>()))
            .collect();
        let of = |row: usize| -> Partition {
            values
                .iter()
                .map(|(name, column)| {
                    let value = column.is_valid(row).then(|| column.value(row).to_owned());
                    ((*name).clone(), value)
                })
                .collect()
        };
        let mut stretches: Vec<(Partition, usize, usize)> = Vec::new();
        for row in 0..batch.num_rows() {
            let same = row > 0
                && values.iter().all(|(_, column)| {
                    column.is_valid(row) == column.is_valid(row - 1)
                        && (column.is_null(row) || column.value(row) == column.value(row - 1))
                });
            match stretches.last_mut() {
                Some((_, _, to)) if same => *to = row + 1,
                _ => stretches.push((of(row), row, row + 1)),
            }
        }
        stretches
    }
}
