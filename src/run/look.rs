//! Gathers everything that a plan is made from: the checked configuration, the listing and the log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};

use super::fresh::{Silence, silences};
use super::{Options, RunError, lint};
use crate::absorb::AbsorbError;
use crate::catalog::{SourceTables, TableDefinition};
use crate::config::{ConfigError, Job, OnChangedObject, Source};
use crate::dedup::{Hashing, Keys};
use crate::engine::Engine;
use crate::ledger::{self, ObjectEntry, RemovedFile, SourceState, State};
use crate::mart::{self, Graph, Mart, ReferenceTable, read_references};
use crate::plan::{self, AskedDates, Listed, Lost, MartPlan, RunPlan, SourcePlan, Unrepairable};
use crate::raw::{self, DecodeMemory, Decoder, DiscoverError, Discovered, RawObject, Roots};
use crate::store::{Store, StoreSettings};

/// The number of raw objects with a new ETag that are read at once to compare their content.
const HASHED_AT_ONCE: usize = 16;

/// A source whose raw prefixes were opened and listed.
pub struct ListedSource<'a> {
    pub source: &'a Source,
    /// The columns that each of its rules reads.
    pub reads: Vec<BTreeSet<String>>,
    pub roots: Roots,
    pub found: Discovered,
    /// The absorbed objects that have other content now.
    pub changed: Vec<String>,
    /// The log entries of absorbed objects that have a new ETag and the same content.
    pub renewed: Vec<ObjectEntry>,
    partial: bool,
}

/// Everything that was found before a run plans or does anything.
pub struct Looked<'a> {
    job: &'a Job,
    pub options: &'a Options,
    pub sources: Vec<ListedSource<'a>>,
    pub graph: Option<Graph>,
    /// The tables of the marts, in the order of the graph.
    pub mart_tables: Vec<TableDefinition>,
    /// The notes on the SQL of each mart, in the order of the graph.
    mart_notes: Vec<Vec<String>>,
    pub references: BTreeMap<String, ReferenceTable>,
    pub engine: Engine,
}

impl Looked<'_> {
    /// Plans a run or a rebuild.
    pub fn plan(&self, state: &State) -> RunPlan {
        let references = self.fingerprints();
        let plan = plan::plan(
            self.job,
            self.options.limits(self.job),
            &self.listed(),
            state,
            self.marts(&references),
            self.options.rebuild.as_ref(),
        );
        RunPlan {
            gone_marts: self.gone_marts(state),
            marts: self.noted(plan.marts),
            ..plan
        }
    }

    /// Plans the marts. The changes are known once the sources are absorbed.
    pub fn plan_marts(&self, state: &State, lost: &Lost) -> Vec<MartPlan> {
        let references = self.fingerprints();
        self.noted(plan::plan_marts(
            self.marts(&references),
            state,
            lost.moved(state),
        ))
    }

    /// Adds the notes on the SQL of each mart to the plans, which are in the order of the graph.
    fn noted(&self, plans: Vec<MartPlan>) -> Vec<MartPlan> {
        let plans = plans.into_iter().zip(&self.mart_notes);
        let plans = plans.map(|(plan, notes)| MartPlan {
            notes: notes.clone(),
            ..plan
        });
        plans.collect()
    }

    /// The files without rows at places of an earlier partitioning: they are removed.
    pub fn leftovers(&self, state: &State) -> Vec<RemovedFile> {
        let references = self.fingerprints();
        plan::leftovers(self.job, self.marts(&references), state)
    }

    /// The marts of the log whose SQL files are gone; none where marts are not asked for.
    pub fn gone_marts(&self, state: &State) -> Vec<String> {
        match self.options.marts {
            true => plan::gone_marts(self.graph.as_ref().map_or(&[], Graph::marts), state),
            false => Vec::new(),
        }
    }

    /// The silences of the sources that are asked for and of the marts `chosen`, at the time `now`.
    pub fn silences(
        &self,
        state: &State,
        chosen: &BTreeSet<String>,
        now: DateTime<Utc>,
    ) -> Vec<Silence> {
        let sources = self.sources.iter().map(|listed| listed.source);
        let sources: Vec<&Source> = sources.collect();
        let marts = self.graph.as_ref().map(|graph| (graph, chosen));
        silences(self.job, &sources, marts, state, now)
    }

    /// Plans the chosen marts: those that have changed, and what is asked for. The others are not built.
    pub fn plan_chosen_marts(
        &self,
        state: &State,
        chosen: &BTreeSet<String>,
        asked: AskedDates,
    ) -> Vec<MartPlan> {
        let references = self.fingerprints();
        let all = self.marts(&references);
        let pairs = all.marts.iter().zip(all.tables);
        let (marts, tables): (Vec<Mart>, Vec<TableDefinition>) = pairs
            .filter(|(mart, _)| chosen.contains(&mart.name))
            .map(|(mart, table)| (mart.clone(), table.clone()))
            .unzip();
        let of_chosen = plan::Marts {
            marts: &marts,
            tables: &tables,
            references: &references,
        };
        let plans = plan::plan_asked_marts(of_chosen, state, asked);
        let mut plans = plans.into_iter().peekable();
        let plan = |mart: &Mart| {
            let planned = plans.next_if(|plan| plan.mart == mart.name);
            planned.unwrap_or_else(|| MartPlan::nothing(&mart.name))
        };
        self.noted(all.marts.iter().map(plan).collect())
    }

    /// Plans the steps that make lost files of the sources again.
    pub fn plan_repair(&self, state: &State, lost: &Lost) -> Result<Vec<SourcePlan>, Unrepairable> {
        let marts = self.mart_tables.iter().map(|mart| mart.name.as_str());
        let marts: Vec<&str> = marts.collect();
        plan::plan_repair(self.job, &self.listed(), &marts, state, lost)
    }

    fn listed(&self) -> Vec<Listed<'_>> {
        let listed = self.sources.iter().map(|listed| Listed {
            source: listed.source,
            reads: &listed.reads,
            found: &listed.found,
            changed: listed.changed.clone(),
            on_changed: match self.options.replace_changed {
                true => OnChangedObject::Replace,
                false => listed.source.on_changed_object,
            },
            renewed: listed.renewed.len(),
            partial: listed.partial,
        });
        listed.collect()
    }

    fn marts<'b>(&'b self, references: &'b BTreeMap<String, String>) -> plan::Marts<'b> {
        plan::Marts {
            marts: self.graph.as_ref().map_or(&[], Graph::marts),
            tables: &self.mart_tables,
            references,
        }
    }

    /// The tables of sources and marts.
    pub fn tables(&self, state: &State) -> Vec<TableDefinition> {
        let sources = SourceTables::of(self.job, &state.columns);
        let sources = sources.iter().flat_map(SourceTables::all).cloned();
        sources.chain(self.mart_tables.iter().cloned()).collect()
    }

    /// The advice for an error of a mart, if it may come from inferred types of a reference that the mart reads.
    pub fn of_inferred_types(&self, mart: &Mart, error: &str) -> String {
        let read = self.job.references.iter();
        let read = read.filter(|reference| mart.inputs.contains(&reference.name));
        let read = read.filter_map(|reference| {
            let table = self.references.get(&reference.name)?;
            Some((reference, table.schema.as_ref()))
        });
        mart::of_inferred_types(read, &mart.sql, error)
    }

    /// The fingerprint of each reference's content.
    pub fn fingerprints(&self) -> BTreeMap<String, String> {
        let references = self.references.iter();
        references
            .map(|(name, table)| (name.clone(), table.fingerprint.clone()))
            .collect()
    }
}

/// A configuration that was checked against itself.
pub struct Checked<'a> {
    options: &'a Options,
    sources: Vec<&'a Source>,
    graph: Option<Graph>,
}

impl<'a> Checked<'a> {
    /// Checks rules and marts as far as this is possible without a store.
    pub fn check(job: &'a Job, options: &'a Options) -> Result<Self, RunError> {
        let sources = job.select(&options.sources)?;
        check_sources(job)?;
        let graph = match (&job.marts, options.marts) {
            (Some(folder), true) => {
                let tables = job.sources.iter().flat_map(Source::tables);
                let tables: Vec<String> = tables.collect();
                let references = job.references.iter();
                let references = references.map(|reference| reference.name.clone());
                let references: Vec<String> = references.collect();
                let graph = mart::load(folder, &tables, &references)?;
                let checks = mart::checks_beside(folder);
                Some(graph.with_checks(&checks, &[&tables, &references])?)
            }
            _ => None,
        };
        Ok(Self {
            options,
            sources,
            graph,
        })
    }

    /// The same without the sources: no raw prefix is listed.
    pub fn without_sources(self) -> Self {
        Self {
            sources: Vec::new(),
            ..self
        }
    }

    /// The marts, where they are asked for.
    pub const fn graph(&self) -> Option<&Graph> {
        self.graph.as_ref()
    }
}

impl<'a> Looked<'a> {
    /// Lets the engine plan the SQL of the marts, then lists every source that is asked for.
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
        let mut mart_notes = Vec::new();
        if let Some(graph) = &graph {
            references = read_references(job, &graph.tables(), spill, settings).await?;
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
            let is_utc = job.timezone.0 == chrono_tz::UTC;
            mart_notes = graph.notes(&engine, &schemas, &mart_tables, is_utc).await?;
        }
        let of_sources = SourceTables::of(job, &state.columns);
        let of_sources = of_sources.iter().flat_map(SourceTables::all);
        lint::refuse(job, of_sources.chain(&mart_tables))?;
        let mut sources = Vec::new();
        let raw_settings = StoreSettings {
            listing_bytes: job.memory,
            ..settings.clone()
        };
        for source in checked.sources {
            let reads = compiled(job, source)?.columns_by_rule();
            sources.push(list(source, reads, state, checked.options, &raw_settings).await?);
        }
        Ok(Looked {
            job,
            options: checked.options,
            sources,
            graph,
            mart_tables,
            mart_notes,
            references,
            engine,
        })
    }
}

/// Reads every default and compiles the expressions of every rule, so that an error is reported before anything
/// is read.
pub fn check_sources(job: &Job) -> Result<(), RunError> {
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

/// The compiled expressions of a source's rules.
fn compiled(job: &Job, source: &Source) -> Result<Keys, RunError> {
    let schema = Decoder::new(&source.decode, &DecodeMemory::new(0, 1)).schema();
    let slicing = job.slicing(source);
    // No key is hashed here.
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

/// Lists the raw prefixes of a source and compares the objects with the log. `reads` are the columns that each
/// of its rules reads.
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
            "source {}: {} symbolic links below {} are not followed, first {first}: they lead out of the root, \
             in a circle or nowhere. Events behind them are not read: add their targets to `raw` as roots, or \
             copy the objects",
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
        // The LastModified that was noted when the object was absorbed counts as long as the content is the
        // same. A copy of the bucket has a new one.
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

/// Refuses a prefix of a bucket that holds nothing and of which nothing was absorbed. It is most likely
/// misspelt. A bucket does not report a wrong prefix, as a disk reports a missing folder.
fn refuse_empty_roots(
    source: &Source,
    state: &State,
    found: &Discovered,
) -> Result<(), DiscoverError> {
    let known = state.sources.get(&source.name);
    for root in found.empty_roots.iter().filter_map(|i| source.raw.get(*i)) {
        let folder = root.name.as_deref().map(|name| format!("{name}/"));
        let below = |key: &str| folder.as_ref().is_none_or(|folder| key.starts_with(folder));
        // All raw objects may have been given up.
        let had = |known: &SourceState| known.objects.is_empty() || known.objects.keys().any(below);
        if !known.is_some_and(had) {
            return Err(DiscoverError::NoObject {
                url: root.url.clone(),
                name: source.name.clone(),
            });
        }
    }
    Ok(())
}

/// The key from which each root is listed. Objects that arrived long enough before the newest one are settled.
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

/// The absorbed objects that have other content now, and the entries of the objects that only have a new ETag.
/// A new ETag alone proves nothing: a copy, a second upload or a fresh checkout of the same bytes has one too.
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
    let compared: Vec<(&RawObject, Option<ObjectEntry>)> = futures::stream::iter(touched)
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
