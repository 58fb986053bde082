//! References in Parquet: batches with types of their own, which are cast.

use std::fs::File;
use std::sync::Arc;

use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::super::shape::written;
use super::{BATCH_BYTES, BATCH_ROWS, Reader, ReferenceError, Take};
use crate::engine::floored_array;
use crate::time::TimeUnit;

impl Reader<'_> {
    /// Hands over the batches of a Parquet file, cast to the types of the columns.
    pub(super) fn parquet<E: From<ReferenceError>>(
        &self,
        take: &mut Take<'_, E>,
    ) -> Result<SchemaRef, E> {
        let wrong = |error: &dyn std::fmt::Display| {
            self.fail(
                None,
                format!("not a Parquet file that can be read: {error}"),
            )
        };
        let file = File::open(self.file).map_err(|error| self.unreadable(&error))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| wrong(&e))?;
        let source = Arc::clone(builder.schema());
        let names = self.names(source.fields().iter().map(|field| field.name().as_str()))?;
        let mut picked: Vec<(usize, Field)> = Vec::new();
        match &self.reference.columns {
            Some(declared) => {
                let places = self.declared(declared, &names)?;
                for ((name, kind), at) in declared.iter().zip(places) {
                    picked.push((at, Field::new(name, kind.arrow(TimeUnit::Ms), true)));
                }
            }
            None => {
                for (at, (name, field)) in names.iter().zip(source.fields()).enumerate() {
                    let kind = written(field.data_type(), TimeUnit::Ms).map_err(|refused| {
                        self.fail(None, format!("the column `{name}` is {refused}"))
                    })?;
                    picked.push((at, Field::new(name, kind, true)));
                }
            }
        }
        let fields: Vec<Field> = picked.iter().map(|(_, field)| field.clone()).collect();
        let schema = Arc::new(Schema::new(fields));
        let options = CastOptions {
            safe: false,
            ..CastOptions::default()
        };
        let groups = builder.metadata().row_groups().iter();
        let bytes: i64 = groups.map(|group| group.total_byte_size()).sum();
        let rows = builder.metadata().file_metadata().num_rows().max(1);
        let width = usize::try_from(bytes / rows).unwrap_or(0).max(1);
        let builder = builder.with_batch_size((BATCH_BYTES / width).clamp(1, BATCH_ROWS));
        for batch in builder.build().map_err(|e| wrong(&e))? {
            let batch = batch.map_err(|e| wrong(&e))?;
            let mut arrays = Vec::with_capacity(picked.len());
            for (at, field) in &picked {
                let Some(column) = batch.columns().get(*at) else {
                    continue;
                };
                let array = cast_with_options(
                    &floored_array(column, TimeUnit::Ms),
                    field.data_type(),
                    &options,
                )
                .map_err(|error| self.fail(None, format!("column `{}`: {error}", field.name())))?;
                arrays.push(array);
            }
            let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), arrays, &rows);
            take(&schema, batch.map_err(|error| wrong(&error))?)?;
        }
        Ok(schema)
    }
}
