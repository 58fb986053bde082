//! Marts: from published tables to staged files, all of one commit. A mart by date has each of its
//! dates evaluated over the files in reach.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use chrono::NaiveDate;
use datafusion::catalog::TableProvider;
use datafusion::execution::object_store::ObjectStoreUrl;

use super::look::Looked;
use super::{Context, MartOutcome, MartSummary, RunError, Totals};
use crate::catalog::{LakeTable, SourceTables, TableDefinition, TableFile, memory_table};
use crate::config::Job;
use crate::layout;
use crate::ledger::{FileEntry, MartEntry, State};
use crate::mart::{self, Input, Mart, MartError, Reach};
use crate::plan::{self, Reads};
use crate::publish::{self, Finished, Ordered, WriteError};
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
            dates: planned.dates.as_ref().map(|dates| dates.len() as u64),
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
        match build.one(mart, planned.dates.as_ref(), state).await {
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
            Some(_) => {
                let dates = planned.dates.clone().unwrap_or_default();
                inputs.reads(mart, &dates, state).await?
            }
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
    /// Builds and stages one mart, or these dates of it: the rows that it has.
    async fn one(
        &mut self,
        mart: &Mart,
        dates: Option<&BTreeSet<NaiveDate>>,
        state: &State,
    ) -> Result<u64, RunError> {
        let definition = self.inputs.definition(&mart.name)?.clone();
        let settings = super::mart_files(self.commit.number, self.row_group);
        let mut files = match dates {
            None => self.evaluate(mart, None, state, &settings).await?,
            Some(dates) => {
                let mut files = Vec::new();
                for date in dates {
                    files.extend(self.evaluate(mart, Some(*date), state, &settings).await?);
                }
                files
            }
        };
        // Other dates stay as they are.
        let stays = |file: &FileEntry| {
            dates.is_some_and(|dates| file.date().is_some_and(|date| !dates.contains(&date)))
        };
        let old: Vec<&FileEntry> = state
            .table(&mart.name)
            .map(|file| &file.entry)
            .filter(|file| file.rows > 0)
            .collect();
        let (stay, gone): (Vec<_>, Vec<_>) = old.into_iter().partition(|file| stays(file));
        let count = files.iter().map(|file| file.rows).sum::<u64>()
            + stay.iter().map(|file| file.rows).sum::<u64>();
        files.extend(self.emptied(&definition, &files, &gone, &settings)?);
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
            by_date: dates.is_some(),
            rows: count,
        });
        Ok(count)
    }

    /// Evaluates a mart, or one date of it, into files on this disk.
    async fn evaluate(
        &self,
        mart: &Mart,
        date: Option<NaiveDate>,
        state: &State,
        settings: &publish::FileSettings,
    ) -> Result<Vec<Finished>, RunError> {
        let inputs = self.inputs.of(mart, date, state)?;
        let engine = &self.inputs.looked.engine;
        let (definition, rows) = mart::evaluate(engine, mart, &inputs, date).await?;
        let folder = match date {
            None => self.spill.to_owned(),
            Some(date) => self.spill.join(format!("{}-{date}", mart.name)),
        };
        std::fs::create_dir_all(&folder).map_err(|source| WriteError::Spill {
            folder: folder.display().to_string(),
            source,
        })?;
        let ordered = Ordered {
            table: &definition,
            settings,
            folder: &folder,
        };
        let files = ordered.write(rows).await.map_err(|error| match error {
            publish::OrderedError::Rows(error) => RunError::Mart(MartError::running(mart, &error)),
            publish::OrderedError::Write(error) => RunError::Write(error),
            long @ publish::OrderedError::LongValue(_) => {
                let error = datafusion::error::DataFusionError::Execution(long.to_string());
                RunError::Mart(MartError::running(mart, &error))
            }
        })?;
        if let Some(date) = date {
            let dt = date.to_string();
            let value = |file: &Finished| {
                let column = file.partition.iter().find(|(column, _)| column == "dt");
                column.and_then(|(_, value)| value.clone())
            };
            let other = files
                .iter()
                .map(value)
                .find(|value| value.as_ref() != Some(&dt));
            if let Some(other) = other {
                return Err(MartError::of_another_date(mart, date, other.as_deref()).into());
            }
        }
        Ok(files)
    }

    /// Zero-row files for the partitions that had rows and have none now: publishing never deletes.
    fn emptied(
        &self,
        table: &TableDefinition,
        written: &[Finished],
        old: &[&FileEntry],
        settings: &publish::FileSettings,
    ) -> Result<Vec<Finished>, RunError> {
        let written: BTreeSet<_> = written
            .iter()
            .map(|file| (&file.partition, file.name.as_str()))
            .collect();
        let gone = old
            .iter()
            .filter(|old| !written.contains(&(&old.partition, old.name.as_str())));
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

    /// All that one mart reads, for these of its dates where it is built by date.
    fn of(
        &self,
        mart: &Mart,
        dates: impl IntoIterator<Item = NaiveDate> + Clone,
        state: &State,
    ) -> Result<Vec<Input>, RunError> {
        let inputs = mart.inputs.iter().map(|input| {
            let reach = mart.reach.get(input);
            let in_reach = |file: &FileEntry| {
                let dt = file.date();
                let holds =
                    |reach: &Reach| dates.clone().into_iter().any(|date| reach.holds(date, dt));
                reach.is_none_or(holds)
            };
            Ok((input.clone(), self.table(mart, input, &in_reach, state)?))
        });
        inputs.collect()
    }

    async fn reads(
        &self,
        mart: &Mart,
        dates: &BTreeSet<NaiveDate>,
        state: &State,
    ) -> Result<Vec<Reads>, RunError> {
        let tables = self.of(mart, dates.iter().copied(), state)?;
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

    /// The files of a mart's input that are `in_reach`, as a table: of marts built by this run what is
    /// staged, and what stays.
    fn table(
        &self,
        mart: &Mart,
        name: &str,
        in_reach: &dyn Fn(&FileEntry) -> bool,
        state: &State,
    ) -> Result<Arc<dyn TableProvider>, RunError> {
        let failing = |error| RunError::Mart(MartError::running(mart, &error));
        if let Some(reference) = self.looked.references.get(name) {
            let table = memory_table(Arc::clone(&reference.schema), reference.batches.clone());
            return table.map_err(failing);
        }
        let definition = self.definition(name)?;
        let staged = self.staged.get(name).map_or(&[][..], Vec::as_slice);
        let replaced: BTreeSet<String> = staged.iter().map(FileEntry::key).collect();
        let staged = staged.iter().map(|entry| (entry, entry.staged.clone()));
        let published = state
            .table(name)
            .map(|file| (&file.entry, file.entry.key()));
        let files = staged
            .chain(published.filter(|(_, key)| !replaced.contains(key)))
            // Slices of an earlier partitioning are left as empty files in folders of other columns.
            .filter(|(entry, _)| entry.rows > 0 && in_reach(entry))
            .map(|(entry, key)| self.file(entry, &key));
        let files: Vec<TableFile> = files.collect();
        Ok(Arc::new(
            LakeTable::new(definition, files, self.store.clone()).map_err(failing)?,
        ))
    }

    fn definition(&self, name: &str) -> Result<&TableDefinition, RunError> {
        let sources = self.sources.iter().flat_map(|source| source.all());
        sources
            .chain(&self.looked.mart_tables)
            .find(|table| table.name == name)
            .ok_or_else(|| RunError::Defect(format!("table {name} is not known")))
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
