//! The bytes of batches, and the cutting of batches into smaller ones.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::DataType;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::DataFusionError;

/// The most bytes of the rows that the lists of one batch become.
const UNNESTED: usize = 16 << 20;

/// The bytes of a batch with its own structures, because a million batches without a column take memory too.
pub(super) fn weight(batch: &RecordBatch) -> usize {
    own_bytes(batch) + 256 + 128 * batch.num_columns()
}

/// The bytes of the rows of a batch alone. The batch may be a part of buffers that hold many more rows.
pub(super) fn own_bytes(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter();
    let bytes = columns.map(|column| {
        let views = match column.data_type() {
            DataType::Utf8View => Some(
                column
                    .as_string_view()
                    .lengths()
                    .map(u64::from)
                    .sum::<u64>(),
            ),
            DataType::BinaryView => Some(
                column
                    .as_binary_view()
                    .lengths()
                    .map(u64::from)
                    .sum::<u64>(),
            ),
            _ => None,
        };
        match views {
            Some(bytes) => 16 * column.len() + usize::try_from(bytes).unwrap_or(usize::MAX),
            None => column
                .to_data()
                .get_slice_memory_size()
                .unwrap_or_else(|_| column.get_array_memory_size()),
        }
    });
    bytes.sum()
}

/// The rows in batches of at most `rows`. The buffers are copied if the batch is a small part of them.
pub(super) fn cut(
    batch: RecordBatch,
    rows: usize,
) -> impl Iterator<Item = Result<RecordBatch, DataFusionError>> {
    const SLACK: usize = 256 << 10;
    let all = batch.num_rows();
    let rows = rows.max(1);
    let is_part = batch.get_array_memory_size() > 2 * own_bytes(&batch) + SLACK;
    let starts = (0..all).step_by(rows);
    starts.map(move |start| {
        if all <= rows && !is_part {
            return Ok(batch.clone());
        }
        let end = all.min(start.saturating_add(rows));
        let of = |row: usize| u32::try_from(row).unwrap_or(u32::MAX);
        let wanted = UInt32Array::from_iter_values(of(start)..of(end));
        let part = take_record_batch(&batch, &wanted)?;
        // A view keeps the whole buffer that it points into.
        let columns = part.columns().iter().map(|column| -> ArrayRef {
            match column.data_type() {
                DataType::Utf8View => Arc::new(column.as_string_view().gc()),
                DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
                _ => Arc::clone(column),
            }
        });
        let options = RecordBatchOptions::new().with_row_count(Some(end - start));
        let schema = part.schema();
        Ok(RecordBatch::try_new_with_options(
            schema,
            columns.collect(),
            &options,
        )?)
    })
}

/// Cuts a batch into parts whose `lists` (column and depth) become few rows together. A part has at least one
/// row.
pub(super) fn with_few_items(
    batch: &RecordBatch,
    lists: &[(usize, usize)],
) -> Vec<Result<RecordBatch, DataFusionError>> {
    let columns = batch.columns().iter().enumerate();
    let repeated = columns.filter(|(n, _)| lists.iter().all(|(list, _)| list != n));
    let repeated: usize = repeated
        .map(|(_, column)| column.get_array_memory_size())
        .sum();
    let width = repeated / batch.num_rows().max(1) + 16;
    let most = (UNNESTED / width).max(1);
    let mut parts = Vec::new();
    let (mut start, mut items) = (0, 0);
    for row in 0..batch.num_rows() {
        let of_row = lists.iter().filter_map(|(column, depth)| {
            let list = batch.columns().get(*column)?;
            Some(items_of(list, row, row + 1, *depth))
        });
        let of_row = of_row.max().unwrap_or(1);
        if row > start && items + of_row > most {
            parts.push(Ok(batch.slice(start, row - start)));
            (start, items) = (row, 0);
        }
        items += of_row;
    }
    if start < batch.num_rows() {
        parts.push(Ok(batch.slice(start, batch.num_rows() - start)));
    }
    parts
}

/// The number of items of the lists in these rows, `depth` levels down.
fn items_of(list: &ArrayRef, start: usize, end: usize, depth: usize) -> usize {
    let Some(list) = list.as_list_opt::<i32>() else {
        return end - start;
    };
    let offset = |row: usize| {
        let offset = list.value_offsets().get(row).copied().unwrap_or(0);
        usize::try_from(offset).unwrap_or(0)
    };
    match depth {
        ..=1 => offset(end) - offset(start),
        _ => items_of(list.values(), offset(start), offset(end), depth - 1),
    }
}
