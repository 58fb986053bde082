//! References as tables of marts: fetched, read, and held or spilled.
//!
//! ```text
//! URL ──▶ copy in the spill folder, SHA-256 ──▶ batches ─┬─▶ held, while they are few
//!                                                        └─▶ a data file in the spill folder
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreUrl;

use super::reference::{ReferenceError, read};
use crate::catalog::{LakeTable, TableDefinition, TableFile, memory_table};
use crate::config::{Compression, Job, Reference};
use crate::publish::{FileSettings, ParquetFile, WriteError};
use crate::store::{FetchError, StoreError, StoreSettings, fetch};

/// Why a reference is not there as a table.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceTableError {
    /// Its file cannot be read as its columns say.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// Its store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The spill folder is full or cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// There is no such file.
    #[error("{url} does not exist: references.{name}.path names the file of the reference")]
    Missing {
        /// The name of the reference.
        name: String,
        /// The URL of its file.
        url: String,
    },
}

/// A reference, read.
pub struct ReferenceTable {
    /// Its columns.
    pub schema: SchemaRef,
    rows: ReferenceRows,
    /// The bytes that are held, or the bytes of the file.
    pub bytes: u64,
    /// Changes with the content.
    pub fingerprint: String,
}

/// The rows of a reference: few are held, many lie in a data file in the spill folder.
enum ReferenceRows {
    Held(Vec<RecordBatch>),
    Spilled { path: PathBuf, rows: u64 },
}

impl ReferenceTable {
    /// The reference as a table of a mart.
    ///
    /// # Errors
    /// A spill folder whose path the engine cannot spell.
    pub fn table(&self, name: &str) -> Result<Arc<dyn TableProvider>, DataFusionError> {
        match &self.rows {
            ReferenceRows::Held(batches) => memory_table(Arc::clone(&self.schema), batches.clone()),
            ReferenceRows::Spilled { path, rows } => {
                let definition = TableDefinition {
                    name: name.to_owned(),
                    schema: Arc::clone(&self.schema),
                    partition_columns: Vec::new(),
                };
                let file = TableFile {
                    path: object_store::path::Path::from_absolute_path(path)?,
                    size: self.bytes,
                    rows: *rows,
                    partition: Vec::new(),
                };
                let store = ObjectStoreUrl::local_filesystem();
                Ok(Arc::new(LakeTable::new(&definition, vec![file], store)?))
            }
        }
    }
}

/// Reads the references that some mart uses. Together they hold a sixteenth of the memory; the rest goes into
/// the `spill` folder.
///
/// # Errors
/// A file that is missing or cannot be read as its columns say; a store or a local disk that fails.
pub async fn read_references(
    job: &Job,
    used: &[&str],
    spill: &Path,
    settings: &StoreSettings,
) -> Result<BTreeMap<String, ReferenceTable>, ReferenceTableError> {
    let mut tables = BTreeMap::new();
    let mut left = usize::try_from(job.memory / 16).unwrap_or(usize::MAX);
    for reference in job
        .references
        .iter()
        .filter(|reference| used.contains(&reference.name.as_str()))
    {
        let copy = spill.join(format!("reference-{}", reference.name));
        let sha256 = fetched(reference, &copy, settings).await?;
        let mut gathered = Gathered {
            left,
            held: Vec::new(),
            bytes: 0,
            file: None,
            path: copy.with_extension("parquet"),
            settings: FileSettings {
                compression: Compression::Snappy,
                event_time: None,
                sorted_by: Vec::new(),
                bloom_filters: Vec::new(),
                commit: 0,
                memory: usize::try_from(job.memory / 16).unwrap_or(usize::MAX),
                threads: 1,
            },
        };
        let read = read_reference(reference, &copy, &mut gathered);
        // Its content is of no use from here on, and may be large.
        let _ = std::fs::remove_file(&copy);
        let schema = read?;
        let (rows, bytes) = gathered.finish()?;
        if let ReferenceRows::Held(_) = rows {
            left = left.saturating_sub(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        let table = ReferenceTable {
            schema,
            rows,
            bytes,
            fingerprint: format!("sha256:{}", hex::encode(sha256)),
        };
        tables.insert(reference.name.clone(), table);
    }
    Ok(tables)
}

fn read_reference(
    reference: &Reference,
    file: &Path,
    gathered: &mut Gathered,
) -> Result<SchemaRef, ReferenceTableError> {
    read(reference, file, &mut |schema, batch| {
        gathered
            .take(schema, batch)
            .map_err(ReferenceTableError::from)
    })
}

/// Copies the file of a reference, and gives its SHA-256.
async fn fetched(
    reference: &Reference,
    copy: &Path,
    settings: &StoreSettings,
) -> Result<[u8; 32], ReferenceTableError> {
    let (name, url) = (reference.name.clone(), reference.url.clone());
    match fetch(&url, copy, settings).await {
        Ok(Some(sha256)) => Ok(sha256),
        Ok(None) => Err(ReferenceTableError::Missing { name, url }),
        Err(FetchError::NotAFile(error)) => Err(ReferenceError {
            name,
            url,
            line: None,
            message: error.to_string(),
        }
        .into()),
        Err(FetchError::Store(error)) => Err(error.into()),
        Err(FetchError::Copy(source)) => Err(WriteError::Spill {
            folder: copy.display().to_string(),
            source,
        }
        .into()),
    }
}

/// The rows of a reference as they are read.
struct Gathered {
    /// The bytes that may still be held.
    left: usize,
    held: Vec<RecordBatch>,
    bytes: usize,
    /// The file, once there are too many rows to be held.
    file: Option<ParquetFile>,
    path: PathBuf,
    settings: FileSettings,
}

impl Gathered {
    fn take(&mut self, schema: &SchemaRef, batch: RecordBatch) -> Result<(), WriteError> {
        if let Some(file) = &mut self.file {
            return file.write(&batch);
        }
        self.bytes += batch.get_array_memory_size();
        self.held.push(batch);
        if self.bytes > self.left {
            let path = self.path.clone();
            let mut file = ParquetFile::create(path, Arc::clone(schema), &self.settings)?;
            for batch in self.held.drain(..) {
                file.write(&batch)?;
            }
            self.file = Some(file);
        }
        Ok(())
    }

    /// The rows and their bytes.
    fn finish(self) -> Result<(ReferenceRows, u64), WriteError> {
        match self.file {
            None => Ok((ReferenceRows::Held(self.held), self.bytes as u64)),
            Some(file) => {
                let (path, rows, bytes) = file.finish()?;
                Ok((ReferenceRows::Spilled { path, rows }, bytes))
            }
        }
    }
}
