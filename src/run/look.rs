//! Everything a plan is made of: the configuration checked against itself, the listing, the log.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::StreamExt;
use sha2::{Digest, Sha256};

use super::{Options, RunError};
use crate::catalog::{SourceTables, TableDefinition};
use crate::config::{ConfigError, Job, Source};
use crate::dedup::Keys;
use crate::engine::Engine;
use crate::event::Slicing;
use crate::ledger::{SourceState, State};
use crate::mart::{self, Graph};
use crate::plan::{self, Listed, RunPlan};
use crate::raw::{self, Decoder, Discovered, Roots};
use crate::store::{Store, StoreSettings};

/// A source with its raw prefixes opened and listed.
pub struct ListedSource<'a> {
    pub source: &'a Source,
    pub roots: Roots,
    pub found: Discovered,
    changed: Vec<String>,
}

/// A reference, read.
pub struct ReferenceTable {
    pub schema: SchemaRef,
    pub batches: Vec<arrow::array::RecordBatch>,
    /// Changes with the content.
    fingerprint: String,
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
}

impl Looked<'_> {
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

/// Opens the root of the lake.
pub async fn open_lake(job: &Job) -> Result<Store, RunError> {
    Ok(Store::open(&job.lake, &StoreSettings::default()).await?)
}

/// A configuration that agrees with itself.
pub struct Checked<'a> {
    sources: Vec<&'a Source>,
    graph: Option<Graph>,
}

impl<'a> Checked<'a> {
    /// Checks rules and marts as far as that goes without a store.
    pub fn check(job: &'a Job, options: &Options) -> Result<Self, RunError> {
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
                    &tables.chain(references).collect::<Vec<_>>(),
                )?)
            }
            _ => None,
        };
        Ok(Self { sources, graph })
    }
}

impl<'a> Looked<'a> {
    /// Plans the marts' SQL, then lists every source that is asked for.
    pub async fn look(
        job: &'a Job,
        checked: Checked<'a>,
        state: &State,
        spill: &Path,
    ) -> Result<Looked<'a>, RunError> {
        // One thread: a sum of doubles depends on the order of its terms, and the content of a mart
        // must not depend on the number of cores.
        let engine = Engine::new(job.memory / 4 * 3, 1, &spill.join("engine"))?;
        let graph = checked.graph;
        let (mut references, mut mart_tables) = (BTreeMap::new(), Vec::new());
        if let Some(graph) = &graph {
            references = read_references(job, graph).await?;
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
            sources.push(list(source, state).await?);
        }
        let listed: Vec<Listed<'_>> = sources
            .iter()
            .map(|listed| Listed {
                source: listed.source,
                found: &listed.found,
                changed: listed.changed.clone(),
            })
            .collect();
        let marts = graph.as_ref().map_or(&[][..], Graph::marts);
        let plan = plan::plan(job, &listed, state, marts, &fingerprints(&references));
        Ok(Looked {
            plan,
            sources,
            graph,
            mart_tables,
            references,
            engine,
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
        let schema = Decoder::new(&source.decode).schema();
        let slicing = Slicing {
            timezone: job.timezone,
            by: source.partition_by,
            slice_ms: source.slice_ms,
        };
        Keys::compile(&source.rules, &schema, slicing, source.decode.unit, 1).map_err(|error| {
            RunError::Key {
                name: source.name.clone(),
                error: Box::new(error),
            }
        })?;
    }
    Ok(())
}

async fn list<'a>(source: &'a Source, state: &State) -> Result<ListedSource<'a>, RunError> {
    let mut stores = Vec::with_capacity(source.raw.len());
    for root in &source.raw {
        stores.push(Store::open(&root.url, &StoreSettings::default()).await?);
    }
    let roots = Roots::new(source, stores)?;
    let mut found = roots.discover(source).await?;
    if let (None, Some(known)) = (&source.layout, state.sources.get(&source.name)) {
        // LastModified counts as noted when absorbed: a copy of the bucket has a new one.
        for object in &mut found.objects {
            if let Some(absorbed) = known.objects.get(&object.identity) {
                object.arrival_ms = absorbed.arrival_ms;
            }
        }
    }
    if found.objects.is_empty() {
        let urls: Vec<_> = source.raw.iter().map(|root| root.url.as_str()).collect();
        tracing::warn!(
            "source {} has no raw objects under {}: is the prefix right?",
            source.name,
            urls.join(", ")
        );
    }
    let changed = match state.sources.get(&source.name) {
        Some(known) => changed(&roots, &found, known).await?,
        None => Vec::new(),
    };
    Ok(ListedSource {
        source,
        roots,
        found,
        changed,
    })
}

/// Absorbed objects whose content is another now. A new ETag alone says nothing: a copy, a
/// re-upload or a fresh checkout of the same bytes has one too.
async fn changed(
    roots: &Roots,
    found: &Discovered,
    known: &SourceState,
) -> Result<Vec<String>, RunError> {
    let mut changed = Vec::new();
    for found in &found.objects {
        let Some(absorbed) = known.objects.get(&found.identity) else {
            continue;
        };
        if absorbed.etag == found.etag && absorbed.size == found.size {
            continue;
        }
        if absorbed.size == found.size
            && let Some(store) = roots.stores.get(found.root)
        {
            let (_, mut content) = store.get(&found.key).await?;
            let mut hash = Sha256::new();
            while let Some(piece) = content.next().await {
                hash.update(&piece?);
            }
            if hex::encode(hash.finalize()) == absorbed.sha256 {
                continue;
            }
        }
        changed.push(found.identity.clone());
    }
    Ok(changed)
}

/// Reads the references that some mart uses.
async fn read_references(
    job: &Job,
    graph: &Graph,
) -> Result<BTreeMap<String, ReferenceTable>, RunError> {
    let mut tables = BTreeMap::new();
    let used = graph.tables();
    for reference in job
        .references
        .iter()
        .filter(|reference| used.contains(&reference.name.as_str()))
    {
        let bytes = fetch(&reference.url).await?;
        let Some(bytes) = bytes else {
            return Err(RunError::NoReference {
                name: reference.name.clone(),
                url: reference.url.clone(),
            });
        };
        let (schema, batches) = mart::read(reference, &bytes)?;
        let fingerprint = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        tables.insert(
            reference.name.clone(),
            ReferenceTable {
                schema,
                batches,
                fingerprint,
            },
        );
    }
    Ok(tables)
}

/// The content of one file named by a URL; `None` when there is none.
async fn fetch(url: &str) -> Result<Option<Bytes>, RunError> {
    let (folder, name) = url.rsplit_once('/').unwrap_or(("", url));
    let store = Store::open(&format!("{folder}/"), &StoreSettings::default()).await?;
    Ok(store.read(name).await?)
}
