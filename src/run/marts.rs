//! Marts: from published tables to staged files, all of one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::execution::object_store::ObjectStoreUrl;

use super::look::Looked;
use super::{Context, MartOutcome, MartSummary, RunError, Totals};
use crate::catalog::{LakeTable, SourceTables, TableDefinition, TableFile, memory_table};
use crate::config::Job;
use crate::layout;
use crate::ledger::{FileEntry, MartEntry, State};
use crate::mart::{self, Input, Mart, MartError};
use crate::plan::{self, Reads};
use crate::publish::{self, Finished, Ordered};
use crate::report::Event;
use crate::store::Store;

/// Builds the planned marts in their order. A mart that fails takes those that read it along; the
/// others go on.
pub async fn build(
    job: &Job,
    looked: &Looked<'_>,
    lake: &Store,
    state: &mut State,
    context: &Context,
    spill: &Path,
    totals: &mut Totals,
) -> Result<Vec<MartSummary>, RunError> {
    let Some(graph) = &looked.graph else {
        return Ok(Vec::new());
    };
    let mut build = Build {
        lake,
        inputs: Inputs::new(job, looked, lake, state)?,
        commit: super::new_commit(state, context),
        row_group: usize::try_from(job.memory / 8).unwrap_or(usize::MAX),
        in_flight: super::in_flight(job),
        spill,
    };
    let mut summaries = Vec::new();
    let mut failed: BTreeSet<String> = BTreeSet::new();
    for (mart, planned) in graph.marts().iter().zip(&looked.plan.marts) {
        let summary = |rows, outcome| MartSummary {
            name: mart.name.clone(),
            rows,
            outcome,
        };
        if let Some(because) = mart.inputs.iter().find(|input| failed.contains(*input)) {
            failed.insert(mart.name.clone());
            summaries.push(summary(
                0,
                MartOutcome::Skipped {
                    because: because.clone(),
                },
            ));
            continue;
        }
        if planned.why.is_none() {
            let rows = state
                .marts
                .get(&mart.name)
                .map_or(0, |built| built.entry.rows);
            summaries.push(summary(rows, MartOutcome::Fresh));
            continue;
        }
        context.report.event(Event::Mart {
            name: mart.name.clone(),
        });
        match build.one(mart, state).await {
            Ok(rows) => summaries.push(summary(rows, MartOutcome::Built)),
            Err(RunError::Mart(error)) => {
                // It fails too when another run has replaced what it reads.
                super::overtaken(lake, build.commit.number).await?;
                failed.insert(mart.name.clone());
                summaries.push(summary(
                    0,
                    MartOutcome::Failed {
                        error: error.to_string(),
                    },
                ));
            }
            Err(other) => return Err(other),
        }
    }
    let mut commit = build.commit;
    let built = commit.marts.iter().map(|mart| mart.name.as_str());
    commit.found = built.flat_map(|mart| looked.found(mart)).collect();
    if !commit.marts.is_empty() {
        super::commit_files(job, lake, commit, Vec::new(), state, context, totals).await?;
    }
    Ok(summaries)
}

/// What each planned mart would read of the tables as they are, in the order of the plan.
pub async fn reads(
    job: &Job,
    looked: &Looked<'_>,
    lake: &Store,
    state: &State,
) -> Result<Vec<Vec<Reads>>, RunError> {
    let Some(graph) = &looked.graph else {
        return Ok(Vec::new());
    };
    let inputs = Inputs::new(job, looked, lake, state)?;
    let mut all = Vec::new();
    for (mart, planned) in graph.marts().iter().zip(&looked.plan.marts) {
        all.push(match planned.why {
            Some(_) => inputs.reads(mart, state).await?,
            None => Vec::new(),
        });
    }
    Ok(all)
}

struct Build<'a> {
    lake: &'a Store,
    inputs: Inputs<'a>,
    commit: crate::ledger::Commit,
    row_group: usize,
    in_flight: u64,
    spill: &'a Path,
}

impl Build<'_> {
    /// Builds and stages one mart: its rows.
    async fn one(&mut self, mart: &Mart, state: &State) -> Result<u64, RunError> {
        let inputs = self.inputs.of(mart, state)?;
        let engine = &self.inputs.looked.engine;
        let (definition, rows) = mart::evaluate(engine, mart, &inputs).await?;
        let settings = super::mart_files(self.commit.number, self.row_group);
        let ordered = Ordered {
            table: &definition,
            settings: &settings,
            folder: self.spill,
        };
        let mut files: Vec<Finished> = ordered.write(rows).await.map_err(|error| match error {
            publish::OrderedError::Rows(error) => RunError::Mart(MartError::running(mart, &error)),
            publish::OrderedError::Write(error) => RunError::Write(error),
            long @ publish::OrderedError::LongValue(_) => {
                let error = datafusion::error::DataFusionError::Execution(long.to_string());
                RunError::Mart(MartError::running(mart, &error))
            }
        })?;
        let count = files.iter().map(|file| file.rows).sum();
        files.extend(self.emptied(&definition, &files, state, &settings)?);
        let entries = publish::stage(
            self.lake,
            self.commit.number,
            &self.commit.run,
            files,
            self.in_flight,
        )
        .await?;
        let inputs = mart
            .inputs
            .iter()
            .map(|input| {
                let version = if self.inputs.staged.contains_key(input) {
                    self.commit.number.to_string()
                } else {
                    plan::version(input, state, &self.inputs.references)
                };
                (input.clone(), version)
            })
            .collect();
        self.commit.files.extend(entries.iter().cloned());
        self.inputs.staged.insert(mart.name.clone(), entries);
        self.commit.columns.insert(
            definition.name.clone(),
            crate::catalog::columns(&definition.schema),
        );
        self.commit.marts.push(MartEntry {
            name: mart.name.clone(),
            sql: mart.fingerprint.clone(),
            inputs,
            rows: count,
        });
        Ok(count)
    }

    /// Zero-row files for the partitions that had rows and have none now: publishing never deletes.
    fn emptied(
        &self,
        table: &TableDefinition,
        written: &[Finished],
        state: &State,
        settings: &publish::FileSettings,
    ) -> Result<Vec<Finished>, RunError> {
        let written: BTreeSet<_> = written
            .iter()
            .map(|file| (&file.partition, file.name.as_str()))
            .collect();
        let old = state.table(&table.name).map(|file| &file.entry);
        let gone = old
            .filter(|old| old.rows > 0 && !written.contains(&(&old.partition, old.name.as_str())));
        let empty = gone.enumerate().map(|(number, old)| {
            super::empty_file(table, old, number, settings, self.spill).map_err(RunError::Write)
        });
        empty.collect()
    }
}

/// The tables that marts read.
struct Inputs<'a> {
    looked: &'a Looked<'a>,
    store: ObjectStoreUrl,
    /// Path of the lake's root in its store.
    root: object_store::path::Path,
    sources: Vec<SourceTables>,
    references: BTreeMap<String, String>,
    /// Files of the marts built so far, by mart.
    staged: BTreeMap<String, Vec<FileEntry>>,
}

impl<'a> Inputs<'a> {
    fn new(
        job: &Job,
        looked: &'a Looked<'a>,
        lake: &Store,
        state: &State,
    ) -> Result<Self, RunError> {
        let (url, client, root) = lake.object_store();
        looked.engine.register_store(&url, client);
        let store = ObjectStoreUrl::parse(url.as_str())
            .map_err(|error| RunError::Defect(format!("{url} is no store: {error}")))?;
        Ok(Self {
            looked,
            store,
            root,
            sources: SourceTables::of(job, &state.columns),
            references: looked.fingerprints(),
            staged: BTreeMap::new(),
        })
    }

    /// All that one mart reads.
    fn of(&self, mart: &Mart, state: &State) -> Result<Vec<Input>, RunError> {
        let inputs = mart.inputs.iter();
        inputs
            .map(|input| Ok((input.clone(), self.table(mart, input, state)?)))
            .collect()
    }

    async fn reads(&self, mart: &Mart, state: &State) -> Result<Vec<Reads>, RunError> {
        let tables = self.of(mart, state)?;
        let scans = mart::scans(&self.looked.engine, mart, &tables).await?;
        let of_root = |path: &object_store::path::Path| {
            let mut below = path.prefix_match(&self.root)?;
            below.next().map(|part| part.as_ref().to_owned())
        };
        let reads = scans.into_iter().filter_map(|scan| {
            let table = of_root(scan.files.first()?)?;
            let all = state.table(&table).filter(|file| file.entry.rows > 0);
            Some(Reads {
                of_files: all.count() as u64,
                table,
                columns: scan.columns,
                files: scan.files.len() as u64,
                bytes: scan.bytes,
            })
        });
        Ok(reads.collect())
    }

    /// A mart's input as a table: of marts built by this run, what is staged.
    fn table(
        &self,
        mart: &Mart,
        name: &str,
        state: &State,
    ) -> Result<Arc<dyn TableProvider>, RunError> {
        let failing = |error| RunError::Mart(MartError::running(mart, &error));
        if let Some(reference) = self.looked.references.get(name) {
            let table = memory_table(Arc::clone(&reference.schema), reference.batches.clone());
            return table.map_err(failing);
        }
        let definition = self
            .definition(name)
            .ok_or_else(|| RunError::Defect(format!("table {name} is not known")))?;
        let files: Vec<TableFile> = match self.staged.get(name) {
            Some(entries) => entries
                .iter()
                .map(|entry| self.file(entry, &entry.staged))
                .collect(),
            // Slices of an earlier partitioning are left as empty files in folders of other columns.
            None => state
                .table(name)
                .filter(|file| file.entry.rows > 0)
                .map(|file| self.file(&file.entry, &file.entry.key()))
                .collect(),
        };
        Ok(Arc::new(
            LakeTable::new(definition, files, self.store.clone()).map_err(failing)?,
        ))
    }

    fn definition(&self, name: &str) -> Option<&TableDefinition> {
        let sources = self.sources.iter().flat_map(|source| source.all());
        sources
            .chain(&self.looked.mart_tables)
            .find(|table| table.name == name)
    }

    fn file(&self, entry: &FileEntry, key: &str) -> TableFile {
        TableFile {
            path: layout::below(&self.root, key),
            size: entry.bytes,
            partition: entry
                .partition
                .iter()
                .map(|(_, value)| value.clone())
                .collect(),
        }
    }
}
