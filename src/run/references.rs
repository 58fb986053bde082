//! The references that marts read: fetched, hashed, and held or spilled.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreUrl;
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::RunError;
use crate::catalog::{LakeTable, TableDefinition, TableFile, memory_table};
use crate::config::{Compression, Job, Reference};
use crate::ledger;
use crate::mart::{self, Graph, ReferenceError};
use crate::publish::{FileSettings, ParquetFile, WriteError};
use crate::store::{Store, StoreErrorKind, StoreSettings};

/// A reference, read.
pub struct ReferenceTable {
    pub schema: SchemaRef,
    rows: ReferenceRows,
    /// Bytes held, or of the file.
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

/// Reads the references that some mart uses. Together they hold a sixteenth of the memory; what is more goes into
/// the spill folder.
pub async fn read_references(
    job: &Job,
    graph: &Graph,
    spill: &Path,
    settings: &StoreSettings,
) -> Result<BTreeMap<String, ReferenceTable>, RunError> {
    let mut tables = BTreeMap::new();
    let mut left = usize::try_from(job.memory / 16).unwrap_or(usize::MAX);
    let used = graph.tables();
    for reference in job
        .references
        .iter()
        .filter(|reference| used.contains(&reference.name.as_str()))
    {
        let copy = spill.join(format!("reference-{}", reference.name));
        let Some(sha256) = fetch(reference, &copy, settings).await? else {
            return Err(RunError::NoReference {
                name: reference.name.clone(),
                url: reference.url.clone(),
            });
        };
        let mut gathered = Gathered {
            left,
            held: Vec::new(),
            bytes: 0,
            file: None,
            path: copy.with_extension("parquet"),
            settings: FileSettings {
                compression: Compression::Snappy,
                event_time: None,
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
            fingerprint: format!("sha256:{}", hex::encode(sha256.0)),
        };
        tables.insert(reference.name.clone(), table);
    }
    Ok(tables)
}

fn read_reference(
    reference: &Reference,
    file: &Path,
    gathered: &mut Gathered,
) -> Result<SchemaRef, RunError> {
    mart::read(reference, file, &mut |schema, batch| {
        gathered.take(schema, batch).map_err(RunError::from)
    })
}

/// The rows of a reference as they are read.
struct Gathered {
    /// Bytes that may be held.
    left: usize,
    held: Vec<RecordBatch>,
    bytes: usize,
    /// Once they are too many to be held.
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

/// Copies the file of a reference, and gives its SHA-256; `None` when there is none.
async fn fetch(
    reference: &Reference,
    copy: &Path,
    settings: &StoreSettings,
) -> Result<Option<ledger::Sha256>, RunError> {
    let url = &reference.url;
    let (folder, name) = url.rsplit_once('/').unwrap_or(("", url));
    let store = Store::open(&format!("{folder}/"), settings).await?;
    // A file URL is percent-encoded and a key is not; what follows s3:// is a key already.
    let path = url::Url::parse(url).ok().filter(|_| store.is_local());
    let path = path.and_then(|url| url.to_file_path().ok());
    let file = path.as_ref().and_then(|path| path.file_name()?.to_str());
    let mut content = match store.get(file.unwrap_or(name)).await {
        Ok((_, content)) => content,
        Err(error) if error.kind() == StoreErrorKind::NotFound => return Ok(None),
        // A folder, or a pipe: to try again is of no use.
        Err(error) if store.is_local() && error.kind() == StoreErrorKind::Other => {
            return Err(RunError::Reference(ReferenceError {
                name: reference.name.clone(),
                url: url.clone(),
                line: None,
                message: error.to_string(),
            }));
        }
        Err(error) => return Err(error.into()),
    };
    let spilling = |source| {
        RunError::Write(WriteError::Spill {
            folder: copy.display().to_string(),
            source,
        })
    };
    let mut hash = Sha256::new();
    let mut out = tokio::fs::File::create(copy).await.map_err(spilling)?;
    while let Some(piece) = content.next().await {
        let piece = piece?;
        hash.update(&piece);
        out.write_all(&piece).await.map_err(spilling)?;
    }
    out.flush().await.map_err(spilling)?;
    Ok(Some(ledger::Sha256(hash.finalize().into())))
}
