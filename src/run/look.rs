//! Everything a plan is made of: the configuration checked against itself, the listing, the log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreUrl;
use futures::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::{Options, RunError};
use crate::absorb::AbsorbError;
use crate::catalog::{LakeTable, SourceTables, TableDefinition, TableFile, memory_table};
use crate::config::{
    Compression, ConfigError, Job, OnChangedObject, Reference, ReferenceFormat, Source,
};
use crate::dedup::{Hashing, Keys};
use crate::engine::Engine;
use crate::ledger::{self, FoundFile, ObjectEntry, SourceState, State};
use crate::mart::{self, Graph, Mart, ReferenceError};
use crate::plan::{self, Listed, Moved, RunPlan};
use crate::publish::{FileSettings, ParquetFile, WriteError};
use crate::raw::{self, DecodeMemory, Decoder, DiscoverError, Discovered, Found, Roots};
use crate::store::{Store, StoreErrorKind, StoreSettings};

/// Raw objects with a new ETag that are read at once to compare their content.
const HASHED_AT_ONCE: usize = 16;

/// A source with its raw prefixes opened and listed.
pub struct ListedSource<'a> {
    pub source: &'a Source,
    /// The columns that each of its rules reads.
    pub reads: Vec<BTreeSet<String>>,
    pub roots: Roots,
    pub found: Discovered,
    /// Absorbed objects whose content is another now.
    pub changed: Vec<String>,
    /// Entries of absorbed objects that have a new ETag and the same content.
    pub renewed: Vec<ObjectEntry>,
    partial: bool,
}

/// A reference, read.
pub struct ReferenceTable {
    schema: SchemaRef,
    rows: ReferenceRows,
    /// Bytes held, or of the file.
    pub bytes: u64,
    /// Changes with the content.
    fingerprint: String,
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

/// What was found before anything is done.
pub struct Looked<'a> {
    pub plan: RunPlan,
    pub sources: Vec<ListedSource<'a>>,
    pub graph: Option<Graph>,
    /// Of the marts, in the order of the graph.
    pub mart_tables: Vec<TableDefinition>,
    pub references: BTreeMap<String, ReferenceTable>,
    pub engine: Engine,
    /// Published files that a repair makes again, with the ETag of what lies in their place.
    pub lost: BTreeMap<String, Option<String>>,
}

impl Looked<'_> {
    /// Plans the marts anew: now that the sources are absorbed it is known what has changed.
    pub fn plan_marts(&mut self, state: &State) {
        let mut moved: BTreeMap<String, Moved> = BTreeMap::new();
        for key in self.lost.keys() {
            let Some(file) = state.files.get(key) else {
                continue;
            };
            let lost = moved.entry(file.entry.table.clone()).or_default();
            match file.entry.date() {
                Some(date) => _ = lost.dates.insert(date),
                None => lost.all = true,
            }
        }
        let marts = plan::Marts {
            marts: self.graph.as_ref().map_or(&[], Graph::marts),
            tables: &self.mart_tables,
            references: &self.fingerprints(),
        };
        self.plan.marts = plan::plan_marts(marts, state, moved);
    }

    /// What lies in the place of lost files of a table.
    pub fn found(&self, table: &str) -> impl Iterator<Item = FoundFile> {
        let root = format!("{table}/");
        let lost = self
            .lost
            .iter()
            .filter(move |(key, _)| key.starts_with(&root));
        lost.map(|(key, etag)| FoundFile {
            key: key.clone(),
            etag: etag.clone(),
        })
    }

    /// What may be done where a value cannot be cast and the mart reads references whose types were
    /// inferred from their rows: a code that is all digits there is none any more in some event.
    pub fn of_inferred_types(&self, job: &Job, mart: &Mart, error: &str) -> String {
        if !error.to_lowercase().contains("cast") {
            return String::new();
        }
        let inferred = job.references.iter().filter_map(|reference| {
            let read = reference.columns.is_none() && mart.inputs.contains(&reference.name);
            let table = self.references.get(&reference.name).filter(|_| read)?;
            let columns = crate::catalog::columns(&table.schema).into_iter();
            let other: Vec<String> = columns
                .filter(|(_, kind)| kind != "string")
                .map(|(name, kind)| format!("{name} = \"{kind}\""))
                .collect();
            let name = &reference.name;
            let types = other.join(", ");
            (!other.is_empty() && reference.format != ReferenceFormat::Parquet).then(|| {
                format!(
                    "; the types of references.{name} were inferred from its rows ({types}): where one of \
                     these columns is text, declare it in [references.{name}.columns]"
                )
            })
        });
        inferred.collect()
    }

    /// The fingerprint of each reference's content.
    pub fn fingerprints(&self) -> BTreeMap<String, String> {
        fingerprints(&self.references)
    }
}

fn fingerprints(references: &BTreeMap<String, ReferenceTable>) -> BTreeMap<String, String> {
    references
        .iter()
        .map(|(name, table)| (name.clone(), table.fingerprint.clone()))
        .collect()
}

/// A configuration that agrees with itself.
pub struct Checked<'a> {
    options: &'a Options,
    sources: Vec<&'a Source>,
    graph: Option<Graph>,
}

impl<'a> Checked<'a> {
    /// Checks rules and marts as far as that goes without a store.
    pub fn check(job: &'a Job, options: &'a Options) -> Result<Self, RunError> {
        let sources = job.select(&options.sources)?;
        check_sources(job)?;
        let graph = match (&job.marts, options.marts) {
            (Some(folder), true) => {
                let tables = job.sources.iter().flat_map(Source::tables);
                let references = job
                    .references
                    .iter()
                    .map(|reference| reference.name.clone());
                Some(mart::load(
                    folder,
                    &tables.collect::<Vec<_>>(),
                    &references.collect::<Vec<_>>(),
                )?)
            }
            _ => None,
        };
        Ok(Self {
            options,
            sources,
            graph,
        })
    }
}

impl<'a> Looked<'a> {
    /// Plans the marts' SQL, then lists every source that is asked for.
    pub async fn look(
        job: &'a Job,
        checked: Checked<'a>,
        state: &State,
        spill: &Path,
        settings: &StoreSettings,
    ) -> Result<Looked<'a>, RunError> {
        let engine = Engine::new(job.memory / 4 * 3, job.threads, &spill.join("engine"))?;
        let graph = checked.graph;
        let (mut references, mut mart_tables) = (BTreeMap::new(), Vec::new());
        if let Some(graph) = &graph {
            references = read_references(job, graph, spill, settings).await?;
            let tables = SourceTables::of(job, &state.columns);
            let mut schemas: Vec<(String, SchemaRef)> = tables
                .iter()
                .flat_map(|tables| {
                    tables
                        .all()
                        .map(|table| (table.name.clone(), table.full_schema()))
                })
                .collect();
            schemas.extend(
                references
                    .iter()
                    .map(|(name, table)| (name.clone(), Arc::clone(&table.schema))),
            );
            mart_tables = graph.check(&engine, &schemas).await?;
        }
        let mut sources = Vec::new();
        for source in checked.sources {
            let reads = compiled(job, source)?.columns_by_rule();
            sources.push(list(source, reads, state, checked.options, settings).await?);
        }
        let listed: Vec<Listed<'_>> = sources
            .iter()
            .map(|listed| Listed {
                source: listed.source,
                reads: &listed.reads,
                found: &listed.found,
                changed: listed.changed.clone(),
                on_changed: match checked.options.replace_changed {
                    true => OnChangedObject::Replace,
                    false => listed.source.on_changed_object,
                },
                renewed: listed.renewed.len(),
                partial: listed.partial,
            })
            .collect();
        let marts = plan::Marts {
            marts: graph.as_ref().map_or(&[], Graph::marts),
            tables: &mart_tables,
            references: &fingerprints(&references),
        };
        let plan = plan::plan(
            job,
            checked.options.limits(job),
            &listed,
            state,
            marts,
            checked.options.rebuild.as_ref(),
        );
        Ok(Looked {
            plan,
            sources,
            graph,
            mart_tables,
            references,
            engine,
            lost: BTreeMap::new(),
        })
    }
}

/// Reads every default and compiles the expressions of every rule, so that a wrong one is said
/// before anything is read.
fn check_sources(job: &Job) -> Result<(), RunError> {
    for source in &job.sources {
        for column in &source.decode.columns {
            let (unit, naive) = (source.decode.unit, source.decode.naive_timezone);
            raw::check_default(column, unit, naive).map_err(|message| ConfigError::Key {
                file: job.file.clone(),
                key: format!("sources.{}.columns.{}.default", source.name, column.name),
                message,
            })?;
        }
        compiled(job, source)?;
    }
    Ok(())
}

/// The expressions of a source's rules.
fn compiled(job: &Job, source: &Source) -> Result<Keys, RunError> {
    let schema = Decoder::new(&source.decode, &DecodeMemory::new(0, 1)).schema();
    let slicing = job.slicing(source);
    // Nothing is hashed here.
    let hashing = Hashing::new([0; 2]);
    let unit = source.decode.unit;
    Keys::compile(&source.rules, &schema, slicing, unit, &hashing).map_err(|error| {
        AbsorbError::Key {
            name: source.name.clone(),
            error: Box::new(error),
        }
        .into()
    })
}

/// Lists a source's raw prefixes, and compares with the log. `reads` are the columns that each of its rules
/// reads.
pub async fn list<'a>(
    source: &'a Source,
    reads: Vec<BTreeSet<String>>,
    state: &State,
    options: &Options,
    settings: &StoreSettings,
) -> Result<ListedSource<'a>, RunError> {
    let mut stores = Vec::with_capacity(source.raw.len());
    for root in &source.raw {
        stores.push(Store::open(&root.url, settings).await?);
    }
    let roots = Roots::new(source, stores)?;
    let from = match (source.settled_ms, state.sources.get(&source.name)) {
        (Some(settled), Some(known)) if !options.relist => {
            settled_before(source, &roots, known, settled)
        }
        _ => vec![String::new(); source.raw.len()],
    };
    let partial = from.iter().any(|from| !from.is_empty());
    let mut found = roots.discover(source, &from).await?;
    refuse_empty_roots(source, state, &found)?;
    if found.objects.is_empty() && !partial {
        let urls: Vec<_> = source.raw.iter().map(|root| root.url.as_str()).collect();
        tracing::warn!(
            "source {} has no raw objects under {}: is the prefix right?",
            source.name,
            urls.join(", ")
        );
    }
    if let Some(first) = found.links.first() {
        tracing::warn!(
            "source {}: {} symbolic links below {} are not followed, first {first}: they lead out of the root, in \
             a circle or nowhere. Events behind them are not read: name what they lead to as a root in `raw`, or \
             copy it",
            source.name,
            found.links.len(),
            source
                .raw
                .iter()
                .map(|root| root.url.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        );
    }
    let ignored = source.on_changed_object == OnChangedObject::Ignore
        && !options.replace_changed
        && options.rebuild.is_none();
    let (changed, renewed) = match state.sources.get(&source.name) {
        Some(known) if !ignored => compare(&source.name, &roots, &found, known).await?,
        _ => (Vec::new(), Vec::new()),
    };
    if let (None, Some(known)) = (&source.layout, state.sources.get(&source.name)) {
        // LastModified counts as noted when absorbed, as long as the content is the same: a copy of
        // the bucket has a new one.
        for object in &mut found.objects {
            if let Some(absorbed) = known.objects.get(&object.identity)
                && changed
                    .binary_search_by(|key| key.as_str().cmp(&object.identity))
                    .is_err()
            {
                object.arrival_ms = absorbed.arrival_ms;
            }
        }
    }
    Ok(ListedSource {
        source,
        reads,
        roots,
        found,
        changed,
        renewed,
        partial,
    })
}

/// A prefix of a bucket that holds nothing, and of which nothing was absorbed, is most likely misspelt: a
/// bucket cannot tell, as a missing folder does.
fn refuse_empty_roots(
    source: &Source,
    state: &State,
    found: &Discovered,
) -> Result<(), DiscoverError> {
    let known = state.sources.get(&source.name);
    for root in found.empty_roots.iter().filter_map(|i| source.raw.get(*i)) {
        let folder = root.name.as_deref().map(|name| format!("{name}/"));
        let below = |key: &str| folder.as_ref().is_none_or(|folder| key.starts_with(folder));
        if !known.is_some_and(|known| known.objects.keys().any(below)) {
            return Err(DiscoverError::NoObject {
                url: root.url.clone(),
                name: source.name.clone(),
            });
        }
    }
    Ok(())
}

/// From which key on each root is listed: what arrived so much before the newest object is settled.
fn settled_before(
    source: &Source,
    roots: &Roots,
    known: &SourceState,
    settled: i64,
) -> Vec<String> {
    let objects = known.objects.values();
    let Some(newest) = objects.map(|object| object.arrival_ms).max() else {
        return vec![String::new(); source.raw.len()];
    };
    let below = |name: Option<&str>| {
        let keys = known.objects.keys();
        let name = name.map(|name| format!("{name}/")).unwrap_or_default();
        keys.filter_map(move |key| {
            key.strip_prefix(name.as_str())
                .map(str::len)
                .and_then(|len| key.get(key.len() - len..))
        })
    };
    source
        .raw
        .iter()
        .map(|root| roots.settled_before(newest - settled, below(root.name.as_deref())))
        .collect()
}

/// Absorbed objects whose content is another now, and the entries of those that have only a new
/// ETag. A new ETag alone says nothing: a copy, a re-upload or a fresh checkout of the same bytes has
/// one too.
async fn compare(
    source: &str,
    roots: &Roots,
    found: &Discovered,
    known: &SourceState,
) -> Result<(Vec<String>, Vec<ObjectEntry>), RunError> {
    let touched = found.objects.iter().filter_map(|found| {
        let absorbed = known.objects.get(&found.identity)?;
        let same = absorbed.etag == found.etag && absorbed.size == found.size;
        (!same).then_some((found, absorbed))
    });
    let compared: Vec<(&Found, Option<ObjectEntry>)> = futures::stream::iter(touched)
        .map(|(found, absorbed)| async move {
            let store = roots.stores.get(found.root as usize);
            let Some(store) = store.filter(|_| absorbed.size == found.size) else {
                return Ok((found, None));
            };
            let hashed = store.sha256(found.key()).await?;
            let (object, sha256) = hashed.ok_or_else(|| AbsorbError::Gone {
                name: source.to_owned(),
                object: found.identity.to_string(),
            })?;
            let same = ledger::Sha256(sha256) == absorbed.sha256;
            let renewed = same.then_some(ObjectEntry {
                etag: object.etag,
                ..absorbed
            });
            Ok::<_, RunError>((found, renewed))
        })
        .buffered(HASHED_AT_ONCE)
        .try_collect()
        .await?;
    let mut changed = Vec::new();
    let mut renewed = Vec::new();
    for (found, same) in compared {
        match same {
            Some(entry) => renewed.push(entry),
            None => changed.push(found.identity.to_string()),
        }
    }
    Ok((changed, renewed))
}

/// Reads the references that some mart uses. Together they hold a sixteenth of the memory; what is more goes into
/// the spill folder.
async fn read_references(
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
