//! Tables as readers know them: a definition, and the exact list of files that the log names.
//!
//! ```text
//! TableDefinition + [TableFile]  ──▶ LakeTable ──scan(filters)──▶ files whose partition can match
//!   columns in files, partition columns (strings) at the end
//! ```
//!
//! Directories are never listed: a file that is not in the log is not in the table. This room reads nothing of a
//! file but its footer.

pub mod ddl;
mod described;
pub mod glue;
pub mod lint;
mod tables;
mod widths;

pub use described::{
    ColumnDescription, Comments, Holds, PartitionDescription, TableDescription, UnknownType,
    describe,
};
pub use tables::{Columns, SourceTables, columns, reject_fields, timestamp_unit};
pub use widths::width_changes;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchema, DataFusionError, ScalarValue, Statistics, plan_err};
use datafusion::datasource::MemTable;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;

/// How many bytes at the end of a file are read first. Most footers fit into them, which saves a request.
const FOOTER: usize = 64 << 10;

/// The most rows of one batch.
const BATCH_ROWS: usize = 8192;

/// A table of the lake, without its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableDefinition {
    /// The name, which is also the folder below the lake.
    pub name: String,
    /// The columns in the files, without the partition columns.
    pub schema: SchemaRef,
    /// The names of the partition columns, in the order of the folders. Their type is string.
    pub partition_columns: Vec<String>,
}

impl TableDefinition {
    /// The columns as a query sees them: first the columns of the files, then the partition columns as Utf8. All are
    /// nullable, because an older file may lack a column.
    pub fn full_schema(&self) -> SchemaRef {
        let mut fields: Vec<FieldRef> = self.file_fields();
        fields.extend(self.partition_fields());
        Arc::new(Schema::new(fields))
    }

    fn file_fields(&self) -> Vec<FieldRef> {
        self.schema
            .fields()
            .iter()
            .map(|field| Arc::new(field.as_ref().clone().with_nullable(true)))
            .collect()
    }

    fn partition_fields(&self) -> Vec<FieldRef> {
        self.partition_columns
            .iter()
            .map(|name| Arc::new(Field::new(name, DataType::Utf8, true)))
            .collect()
    }
}

/// One data file of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFile {
    /// The full path in the store.
    pub path: object_store::path::Path,
    /// The size in bytes.
    pub size: u64,
    /// The number of rows.
    pub rows: u64,
    /// One value for each partition column. `None` is NULL.
    pub partition: Vec<Option<String>>,
}

/// A table over exactly the given files.
#[derive(Debug)]
pub struct LakeTable {
    store: ObjectStoreUrl,
    table: TableSchema,
    files: Vec<TableFile>,
}

impl LakeTable {
    /// A table over these files. `store` is the URL (scheme and host) under which the engine knows the store of the
    /// files.
    ///
    /// # Errors
    /// A file that has more or fewer partition values than the table has partition columns.
    pub fn new(
        definition: &TableDefinition,
        files: Vec<TableFile>,
        store: ObjectStoreUrl,
    ) -> Result<Self, DataFusionError> {
        let width = definition.partition_columns.len();
        if let Some(file) = files.iter().find(|file| file.partition.len() != width) {
            return plan_err!(
                "file {} of table {} has {} partition values, the table has {width} partition columns",
                file.path,
                definition.name,
                file.partition.len()
            );
        }
        let file_schema = Arc::new(Schema::new(definition.file_fields()));
        let table = TableSchema::builder(file_schema)
            .with_table_partition_cols(definition.partition_fields())
            .build();
        Ok(Self {
            store,
            table,
            files,
        })
    }

    /// The files whose partition values can satisfy the filters. Only filters over nothing but partition columns are
    /// looked at.
    fn prune(
        &self,
        state: &dyn Session,
        filters: &[Expr],
    ) -> Result<Vec<&TableFile>, DataFusionError> {
        let mut keep = vec![true; self.files.len()];
        let partition_filters: Vec<_> = filters
            .iter()
            .filter(|filter| self.is_about_partitions(filter))
            .collect();
        if !partition_filters.is_empty() {
            let fields = self.table.table_partition_cols().clone();
            let schema = Arc::new(Schema::new(fields));
            let columns = (0..schema.fields().len())
                .map(|i| {
                    let values = self
                        .files
                        .iter()
                        .map(|file| file.partition.get(i).and_then(|value| value.as_deref()));
                    Arc::new(values.collect::<StringArray>()) as ArrayRef
                })
                .collect();
            let options = RecordBatchOptions::new().with_row_count(Some(self.files.len()));
            let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)?;
            let named = DFSchema::try_from(schema.as_ref().clone())?;
            for filter in partition_filters {
                // The columns of the filter may carry the name of the table.
                let filter = unqualified(filter.clone())?;
                let mask = state
                    .create_physical_expr(filter, &named)?
                    .evaluate(&batch)?
                    .into_array(self.files.len())?;
                let Some(mask) = mask.as_boolean_opt() else {
                    continue;
                };
                for (i, keep) in keep.iter_mut().enumerate() {
                    *keep &= mask.is_valid(i) && mask.value(i);
                }
            }
        }
        Ok(self
            .files
            .iter()
            .zip(keep)
            .filter(|(_, keep)| *keep)
            .map(|(file, _)| file)
            .collect())
    }

    /// Whether a filter reads partition columns and nothing else.
    fn is_about_partitions(&self, filter: &Expr) -> bool {
        let names = filter.column_refs();
        !names.is_empty()
            && !filter.is_volatile()
            && !filter.contains_outer()
            && !has_subquery(filter)
            && names.iter().all(|column| {
                self.table
                    .table_partition_cols()
                    .iter()
                    .any(|field| *field.name() == column.name)
            })
    }
}

fn has_subquery(filter: &Expr) -> bool {
    use datafusion::common::tree_node::TreeNode;
    filter
        .exists(|node| {
            Ok(matches!(
                node,
                Expr::Exists(_)
                    | Expr::InSubquery(_)
                    | Expr::ScalarSubquery(_)
                    | Expr::SetComparison(_)
            ))
        })
        .unwrap_or(true)
}

/// The filter with the names of tables taken from its columns.
fn unqualified(filter: Expr) -> Result<Expr, DataFusionError> {
    use datafusion::common::Column;
    use datafusion::common::tree_node::{Transformed, TreeNode};
    let filter = filter.transform(|node| {
        Ok(match node {
            Expr::Column(column) => {
                Transformed::yes(Expr::Column(Column::new_unqualified(column.name)))
            }
            other => Transformed::no(other),
        })
    })?;
    Ok(filter.data)
}

#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.table.table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        // With `Inexact`, the filter also stays above the scan, from where the optimizer hands it to the Parquet
        // reader for row groups and pages.
        Ok(filters
            .iter()
            .map(|filter| {
                if self.is_about_partitions(filter) {
                    TableProviderFilterPushDown::Inexact
                } else {
                    TableProviderFilterPushDown::Unsupported
                }
            })
            .collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let files = self.prune(state, filters)?;
        if files.is_empty() {
            let schema = match projection {
                Some(indices) => Arc::new(self.schema().project(indices)?),
                None => self.schema(),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let bytes = files.iter().map(|file| file.size).sum::<u64>();
        let mut statistics = Statistics::new_unknown(self.table.table_schema());
        // With the bytes, a join knows its smaller side.
        statistics.total_byte_size =
            Precision::Inexact(usize::try_from(bytes).unwrap_or(usize::MAX));
        let files: Vec<PartitionedFile> = files.into_iter().map(partitioned).collect();
        // The engine limits the rows of a batch and not their bytes.
        let columns = match projection {
            Some(indices) => self.schema().project(indices)?,
            None => self.schema().as_ref().clone(),
        };
        let store = state.runtime_env().object_store(&self.store)?;
        let rows = widths::rows_of_a_batch(store.as_ref(), &files, &columns).await?;
        let rows = (rows < BATCH_ROWS).then_some(rows);
        let groups = FileGroup::new(files).split_files(state.config().target_partitions());
        let source = ParquetSource::new(self.table.clone()).with_metadata_size_hint(FOOTER);
        let scan = FileScanConfigBuilder::new(self.store.clone(), Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .with_batch_size(rows)
            .build();
        Ok(DataSourceExec::from_data_source(scan))
    }
}

/// The data files of one table that a plan reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The columns that are read, in the order of the table.
    pub columns: Vec<String>,
    /// The full paths in the store, sorted.
    pub files: Vec<object_store::path::Path>,
    /// The size of the whole files, in bytes.
    pub bytes: u64,
}

/// All scans of data files in a plan.
pub fn scans(plan: &Arc<dyn ExecutionPlan>) -> Vec<Scan> {
    let mut found: Vec<Scan> = plan.children().into_iter().flat_map(scans).collect();
    let own = plan.downcast_ref::<DataSourceExec>();
    if let Some((scan, _)) = own.and_then(DataSourceExec::downcast_to_file_source::<ParquetSource>)
    {
        // A file occurs several times where several threads read ranges of it.
        let mut files: Vec<_> = scan
            .file_groups
            .iter()
            .flat_map(FileGroup::files)
            .map(|file| (file.object_meta.location.clone(), file.object_meta.size))
            .collect();
        files.sort_unstable();
        files.dedup();
        // The scan may yield expressions over columns. The indexes tell which columns it reads.
        let source = scan.file_source();
        let schema = source.table_schema().table_schema();
        let columns = match source.projection() {
            Some(projection) => projection.column_indices(),
            None => (0..schema.fields().len()).collect(),
        };
        let columns = columns.into_iter().filter_map(|i| schema.fields().get(i));
        found.push(Scan {
            columns: columns.map(|field| field.name().clone()).collect(),
            bytes: files.iter().map(|(_, size)| size).sum(),
            files: files.into_iter().map(|(location, _)| location).collect(),
        });
    }
    found
}

/// The file as DataFusion names it, with its partition values.
fn partitioned(file: &TableFile) -> PartitionedFile {
    let mut entry = PartitionedFile::new(String::new(), file.size);
    // The path is set here because `new` would encode it once more.
    entry.object_meta.location = file.path.clone();
    entry.partition_values = file
        .partition
        .iter()
        .map(|value| ScalarValue::Utf8(value.clone()))
        .collect();
    entry
}

/// A table over rows in memory.
///
/// # Errors
/// A batch that has another schema.
pub fn memory_table(
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
) -> Result<Arc<dyn TableProvider>, DataFusionError> {
    Ok(Arc::new(MemTable::try_new(schema, vec![batches])?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use arrow::array::Int64Array;
    use datafusion::common::assert_batches_eq;
    use datafusion::parquet::arrow::ArrowWriter;
    use datafusion::physical_plan::displayable;
    use datafusion::prelude::SessionContext;
    use object_store::local::LocalFileSystem;

    use super::*;
    use crate::engine::Engine;

    fn definition() -> TableDefinition {
        TableDefinition {
            name: "events".into(),
            schema: Arc::new(Schema::new(vec![
                Field::new("n", DataType::Int64, false),
                Field::new("late", DataType::Utf8, true),
            ])),
            partition_columns: vec!["dt".into(), "os".into()],
        }
    }

    fn file(
        folder: &Path,
        name: &str,
        n: &[i64],
        late: Option<&str>,
        partition: [Option<&str>; 2],
    ) -> TableFile {
        let mut columns: Vec<(&str, ArrayRef)> =
            vec![("n", Arc::new(Int64Array::from(n.to_vec())))];
        if let Some(late) = late {
            columns.push(("late", Arc::new(StringArray::from(vec![late; n.len()]))));
        }
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let path = folder.join(name);
        let mut writer =
            ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), batch.schema(), None)
                .unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        TableFile {
            path: object_store::path::Path::parse(name).unwrap(),
            size: path.metadata().unwrap().len(),
            rows: n.len() as u64,
            partition: partition.map(|value| value.map(str::to_owned)).to_vec(),
        }
    }

    fn table(folder: &Path, files: Vec<TableFile>) -> SessionContext {
        let engine = Engine::new(64 << 20, 2, &folder.join("spill")).unwrap();
        let url = ObjectStoreUrl::parse("lake://one").unwrap();
        let store = LocalFileSystem::new_with_prefix(folder).unwrap();
        engine.register_store(url.as_ref(), Arc::new(store));
        let session = engine.session();
        let table = LakeTable::new(&definition(), files, url).unwrap();
        session.register_table("events", Arc::new(table)).unwrap();
        session
    }

    fn lake(folder: &Path) -> SessionContext {
        let files = vec![
            // The name of a file may hold what a URL would escape.
            file(
                folder,
                "a b%20a.parquet",
                &[1, 2],
                None,
                [Some("2019-04-01"), Some("iOS/한글")],
            ),
            file(
                folder,
                "b.parquet",
                &[3],
                Some("x"),
                [Some("2019-04-02"), None],
            ),
            file(folder, "c.parquet", &[4], Some("y"), [None, Some("web")]),
        ];
        std::fs::write(folder.join("stray.parquet"), b"not in the log").unwrap();
        table(folder, files)
    }

    async fn rows(session: &SessionContext, sql: &str) -> Vec<RecordBatch> {
        session.sql(sql).await.unwrap().collect().await.unwrap()
    }

    #[tokio::test]
    async fn null_partitions_and_missing_columns_are_null() {
        let folder = tempfile::tempdir().unwrap();
        let session = lake(folder.path());
        let found = rows(&session, "SELECT * FROM events ORDER BY n").await;
        assert_batches_eq!(
            [
                "+---+------+------------+----------+",
                "| n | late | dt         | os       |",
                "+---+------+------------+----------+",
                "| 1 |      | 2019-04-01 | iOS/한글 |",
                "| 2 |      | 2019-04-01 | iOS/한글 |",
                "| 3 | x    | 2019-04-02 |          |",
                "| 4 | y    |            | web      |",
                "+---+------+------------+----------+",
            ],
            &found
        );
        assert_eq!(
            found[0].schema().as_ref(),
            definition().full_schema().as_ref()
        );
    }

    #[tokio::test]
    async fn partitions_that_cannot_match_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let session = lake(folder.path());
        for (condition, files, count) in [
            ("dt >= '2019-04-02'", vec!["b.parquet"], 1),
            ("e.dt IS NULL AND n > 0", vec!["c.parquet"], 1),
            (
                "os IS NULL OR os = 'web'",
                vec!["b.parquet", "c.parquet"],
                2,
            ),
            ("CAST(dt AS DATE) < DATE '2019-04-02'", vec!["a b"], 2),
            ("dt = '2030-01-01'", vec![], 0),
            ("n > 100", vec!["a b", "b.parquet", "c.parquet"], 0),
        ] {
            let sql = format!("SELECT n FROM events e WHERE {condition}");
            let frame = session.sql(&sql).await.unwrap();
            let plan = frame.clone().create_physical_plan().await.unwrap();
            let plan = displayable(plan.as_ref()).indent(false).to_string();
            for name in ["a b", "b.parquet", "c.parquet"] {
                assert_eq!(
                    plan.contains(name),
                    files.contains(&name),
                    "{condition}: {plan}"
                );
            }
            let found = frame.collect().await.unwrap();
            assert_eq!(
                found.iter().map(RecordBatch::num_rows).sum::<usize>(),
                count,
                "{condition}"
            );
        }
    }

    #[tokio::test]
    async fn a_table_without_files_is_empty_and_counts_need_no_column() {
        let folder = tempfile::tempdir().unwrap();
        let empty = table(folder.path(), vec![]);
        let found = rows(&empty, "SELECT count(*) AS n, max(dt) AS dt FROM events").await;
        assert_batches_eq!(
            [
                "+---+----+",
                "| n | dt |",
                "+---+----+",
                "| 0 |    |",
                "+---+----+"
            ],
            &found
        );
        let found = rows(&lake(folder.path()), "SELECT count(*) AS n FROM events").await;
        assert_batches_eq!(["+---+", "| n |", "+---+", "| 4 |", "+---+"], &found);
    }

    #[test]
    fn a_file_with_too_few_partition_values_is_refused() {
        let file = TableFile {
            path: object_store::path::Path::from("x"),
            size: 1,
            rows: 1,
            partition: vec![None],
        };
        let url = ObjectStoreUrl::parse("lake://one").unwrap();
        let error = LakeTable::new(&definition(), vec![file], url)
            .unwrap_err()
            .to_string();
        assert!(error.contains("1 partition values"), "{error}");
    }
}
