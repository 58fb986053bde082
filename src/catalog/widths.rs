//! How many rows of a data file are decoded at once.
//!
//! ```text
//! page index: rows and decoded bytes of each page ──▶ width along the file ──▶ rows of a batch of at most 16 MiB
//! ```
//!
//! The size of a file does not tell how wide its rows are: a text of a megabyte in each of a thousand rows is stored
//! once, and decoded a thousand times.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Schema};
use datafusion::common::DataFusionError;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::basic::Type;
use datafusion::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;

use super::{BATCH_ROWS, FOOTER};

/// The most bytes of the decoded rows of one batch.
const DECODED: i64 = 16 << 20;

/// How many footers are read at once.
const FOOTERS: usize = 16;

/// The rows of a batch of these columns of the files, at most [`BATCH_ROWS`].
pub(super) async fn rows_of_a_batch(
    store: &dyn ObjectStore,
    files: &[PartitionedFile],
    columns: &Schema,
) -> Result<usize, DataFusionError> {
    let kinds = columns.fields().iter().map(|field| field.data_type());
    if kinds.into_iter().all(DataType::is_primitive) {
        return Ok(BATCH_ROWS);
    }
    let mut of_files = Vec::new();
    for file in files {
        of_files.push(rows_of_file(store, file, columns));
    }
    let of_files = stream::iter(of_files).buffer_unordered(FOOTERS);
    let least = of_files.try_fold(BATCH_ROWS, async |least, rows| Ok(least.min(rows)));
    least.await
}

async fn rows_of_file(
    store: &dyn ObjectStore,
    file: &PartitionedFile,
    columns: &Schema,
) -> Result<usize, DataFusionError> {
    let footer = DFParquetMetadata::new(store, &file.object_meta)
        .with_metadata_size_hint(Some(FOOTER))
        .with_page_index_policy(Some(PageIndexPolicy::Optional));
    let footer = footer.fetch_metadata().await?;
    let names = columns.fields().iter().map(|field| field.name().as_str());
    let leaves = ProjectionMask::columns(footer.file_metadata().schema_descr(), names);
    Ok(rows_within(&footer, &leaves))
}

/// The largest power of two of rows of which any stretch of the file has few bytes.
fn rows_within(file: &ParquetMetaData, columns: &ProjectionMask) -> usize {
    let bytes = Bytes::of(file, columns);
    let sizes = std::iter::successors(Some(BATCH_ROWS), |rows| Some(rows / 2));
    let mut sizes = sizes.take_while(|rows| *rows > 1);
    sizes.find(|rows| bytes.most(*rows) <= DECODED).unwrap_or(1)
}

/// The bytes of all rows before a row, at the rows where their width changes.
struct Bytes {
    /// Rows from the beginning of the file, their bytes, and the width of the next rows in sixteenths of a byte.
    at: Vec<(usize, i64, i64)>,
    rows: usize,
}

impl Bytes {
    fn of(file: &ParquetMetaData, columns: &ProjectionMask) -> Self {
        let mut at = vec![(0, 0, 0)];
        let (mut first, mut bytes) = (0, 0_i64);
        for group in 0..file.num_row_groups() {
            let rows = usize::try_from(file.row_group(group).num_rows()).unwrap_or(0);
            let (mut from, mut width) = (0, 0);
            let changes = width_changes(file, group, columns);
            for (row, change) in changes.into_iter().chain([(rows, 0)]) {
                bytes = bytes.saturating_add(of_rows(row.saturating_sub(from), width));
                width += change;
                at.push((first + row, bytes, width));
                from = row;
            }
            first += rows;
        }
        Self { at, rows: first }
    }

    fn before(&self, row: usize) -> i64 {
        let next = self.at.partition_point(|(from, _, _)| *from <= row);
        let last = next.checked_sub(1).and_then(|last| self.at.get(last));
        last.map_or(0, |(from, bytes, width)| {
            bytes.saturating_add(of_rows(row - from, *width))
        })
    }

    /// The most bytes of so many rows that follow each other.
    fn most(&self, rows: usize) -> i64 {
        // The bytes of a stretch grow and shrink evenly between the rows where the width changes.
        let starts = self
            .at
            .iter()
            .flat_map(|(row, _, _)| [*row, row.saturating_sub(rows)]);
        let bytes = starts.map(|start| {
            let end = start.saturating_add(rows).min(self.rows);
            self.before(end) - self.before(start.min(end))
        });
        bytes.max().unwrap_or(0)
    }
}

fn of_rows(rows: usize, width: i64) -> i64 {
    i64::try_from(rows)
        .unwrap_or(i64::MAX)
        .saturating_mul(width)
        / 16
}

/// The rows of a row group at which rows become wider or narrower, and by how many sixteenths of a byte. The width is
/// that of the decoded values of these leaf columns, and is known for each page.
pub fn width_changes(
    file: &ParquetMetaData,
    group: usize,
    columns: &ProjectionMask,
) -> BTreeMap<usize, i64> {
    let rows = file.row_group(group).num_rows();
    let mut changes: BTreeMap<usize, i64> = BTreeMap::new();
    let offsets = file.offset_index().and_then(|groups| groups.get(group));
    let indexes = file.column_index().and_then(|groups| groups.get(group));
    for leaf in 0..file.row_group(group).num_columns() {
        let Some(offsets) = offsets.and_then(|columns| columns.get(leaf)) else {
            continue;
        };
        if !columns.leaf_included(leaf) {
            continue;
        }
        let chunk = file.row_group(group).column(leaf);
        let pages = offsets.page_locations();
        let ends = pages.iter().skip(1).map(|page| page.first_row_index);
        let ends = ends.chain([rows]);
        for (number, (page, end)) in pages.iter().zip(ends).enumerate() {
            let unencoded = offsets.unencoded_byte_array_data_bytes();
            let unencoded = unencoded.and_then(|pages| pages.get(number)).copied();
            // The number of values of a repeated column. Other columns have one value in each row.
            let repeated =
                indexes.and_then(|columns| columns.get(leaf)?.repetition_level_histogram(number));
            let values: i64 = repeated.map_or(0, |levels| levels.iter().sum());
            let fixed = match chunk.column_type() {
                Type::BYTE_ARRAY => 4,
                Type::FIXED_LEN_BYTE_ARRAY => 16,
                _ => 8,
            };
            let bytes = i64::from(page.compressed_page_size).max(unencoded.unwrap_or(0));
            let bytes = bytes.max(values.saturating_mul(fixed));
            let (from, to) = (page.first_row_index, end);
            if from >= to {
                continue;
            }
            let width = bytes.saturating_mul(16) / (to - from);
            for (row, change) in [(from, width), (to, -width)] {
                *changes
                    .entry(usize::try_from(row).unwrap_or(0))
                    .or_default() += change;
            }
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
    use datafusion::parquet::arrow::ArrowWriter;
    use datafusion::parquet::file::metadata::ParquetMetaDataReader;
    use datafusion::parquet::file::properties::WriterProperties;

    use super::*;

    /// The footer of a file with a text of so many bytes in each row, all of them equal.
    fn footer(widths: impl Iterator<Item = usize>) -> ParquetMetaData {
        let texts: StringArray = widths.map(|width| Some("x".repeat(width))).collect();
        let numbers: Int64Array = (0..texts.len() as i64).map(Some).collect();
        let columns = [
            ("n", Arc::new(numbers) as ArrayRef),
            ("text", Arc::new(texts)),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let properties = WriterProperties::builder()
            .set_data_page_row_count_limit(1000)
            .set_write_batch_size(100)
            .set_max_row_group_row_count(Some(10_000))
            .build();
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        ParquetMetaDataReader::new()
            .with_page_index_policy(PageIndexPolicy::Required)
            .parse_and_finish(&bytes::Bytes::from(file))
            .unwrap()
    }

    #[test]
    fn a_batch_has_few_rows_where_any_stretch_of_the_file_is_wide() {
        let rows = |footer: &ParquetMetaData, column: &str| {
            let leaves = ProjectionMask::columns(footer.file_metadata().schema_descr(), [column]);
            rows_within(footer, &leaves)
        };
        let narrow = footer((0..30_000).map(|_| 10));
        assert_eq!(rows(&narrow, "text"), BATCH_ROWS);
        // 400 MB decoded, and some kilobytes stored.
        let wide = footer((0..1000).map(|_| 400_000));
        assert_eq!(rows(&wide, "text"), 32);
        assert_eq!(rows(&wide, "n"), BATCH_ROWS);
        // One wide row does no harm. Two thousand that follow each other over two row groups do.
        let one = footer((0..30_000).map(|n| if n == 17_000 { 8 << 20 } else { 10 }));
        assert_eq!(rows(&one, "text"), BATCH_ROWS);
        let some = footer((0..30_000).map(|n| {
            if (9_000..11_000).contains(&n) {
                50_000
            } else {
                10
            }
        }));
        assert_eq!(rows(&some, "text"), 256);
    }
}
