//! Marts: from published tables to staged files, all of one commit. A mart by date has each of its
//! dates evaluated over the files in reach, several at once where they are small.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use chrono::NaiveDate;
use datafusion::catalog::TableProvider;
use datafusion::execution::object_store::ObjectStoreUrl;
use futures::future::join_all;
use futures::stream;

use super::look::Looked;
use super::{Context, MartOutcome, MartSummary, RunError, Totals};
use crate::catalog::{LakeTable, SourceTables, TableDefinition, TableFile, memory_table};
use crate::config::Job;
use crate::layout;
use crate::ledger::{self, FileEntry, MartEntry, State};
use crate::mart::{self, Input, Mart, MartError, Partition, Reach};
use crate::plan::{self, MartPlan, Reads};
use crate::publish::{self, Finished, Local, Ordered, Staged, WriteError};
use crate::report::Event;
use crate::store::Store;

/// Each has a file open, outside of DataFusion's memory.
const DATES_AT_ONCE: usize = 4;

/// How many dates of a mart are evaluated at once.
struct AtOnce {
    dates: usize,
    /// Bytes of data files that they read together.
    bytes: u64,
}

/// Where marts read from, and write to.
pub struct Folders<'a> {
    pub lake: &'a Store,
    /// What is published there and lies on local disk, too.
    pub local: &'a Local,
    pub spill: &'a Path,
}

/// Builds the planned marts in their order, from `local` files where these are what was published. A mart
/// that fails takes those that read it along; the others go on.
pub async fn build(
    job: &Job,
    looked: &Looked<'_>,
    Folders { lake, local, spill }: Folders<'_>,
    state: &mut State,
    context: &Context,
    totals: &mut Totals,
) -> Result<Vec<MartSummary>, RunError> {
    let Some(graph) = &looked.graph else {
        return Ok(Vec::new());
    };
    let mut build = Build {
        lake,
        inputs: Inputs::new(job, looked, lake, local, state)?,
        commit: super::new_commit(state, context),
        row_group: usize::try_from(job.memory / 8).unwrap_or(usize::MAX),
        at_once: AtOnce {
            dates: usize::try_from(job.memory >> 28)
                .unwrap_or(usize::MAX)
                .min(DATES_AT_ONCE)
                .min(job.threads),
            bytes: job.memory / 8,
        },
        in_flight: super::in_flight(job),
        spill,
    };
    let mut summaries = Vec::new();
    let mut failed: BTreeSet<String> = BTreeSet::new();
    for (mart, planned) in graph.marts().iter().zip(&looked.plan.marts) {
        let summary = |rows, outcome| MartSummary {
            name: mart.name.clone(),
            rows,
            dates: None,
            left_out: BTreeSet::new(),
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
        match build.one(mart, planned, state).await {
            Ok(built) => summaries.push(built),
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
        super::commit_files(job, lake, commit, Staged::default(), state, context, totals).await?;
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
    let inputs = Inputs::new(job, looked, lake, &Local::default(), state)?;
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
    commit: ledger::Commit,
    row_group: usize,
    at_once: AtOnce,
    in_flight: u64,
    spill: &'a Path,
}

impl Build<'_> {
    /// Builds and stages one mart, or the dates of it that are planned.
    async fn one(
        &mut self,
        mart: &Mart,
        planned: &MartPlan,
        state: &State,
    ) -> Result<MartSummary, RunError> {
        let definition = self.inputs.definition(&mart.name)?.clone();
        // However many dates are evaluated at once, so that a file does not depend on it.
        let row_group = match planned.dates {
            Some(_) => self.row_group / DATES_AT_ONCE,
            None => self.row_group,
        };
        let settings = super::mart_files(self.commit.number, row_group);
        let mut left_out = BTreeSet::new();
        let dates = planned
            .dates
            .as_ref()
            .map(|known| self.inputs.dates(mart, known, planned.every_date, state));
        let mut files = Vec::new();
        match &dates {
            None => files = self.evaluate(mart, None, true, state, &settings).await?,
            Some(Dates { all, build }) => {
                for dates in self.inputs.at_once(mart, build, &self.at_once, state) {
                    let partition = |date| Partition { date, dates: all };
                    let alone = dates.len() == 1;
                    let made = dates.iter().map(|date| {
                        let partition = Some(partition(*date));
                        self.evaluate(mart, partition, alone, state, &settings)
                    });
                    // All of them, so that the first that fails is the same every time.
                    for (date, made) in dates.iter().zip(join_all(made).await) {
                        let made = match made {
                            // Beside others it may lack memory that it has alone.
                            Err(RunError::Mart(_)) if !alone => {
                                let partition = Some(partition(*date));
                                self.evaluate(mart, partition, true, state, &settings).await
                            }
                            made => made,
                        };
                        files.extend(of_date(mart, partition(*date), made?, &mut left_out)?);
                    }
                }
            }
        }
        let stays = |file: &FileEntry| match (&dates, file.date()) {
            (Some(Dates { all, build }), Some(date)) => {
                all.contains(&date) && !build.contains(&date)
            }
            _ => false,
        };
        let old: Vec<&FileEntry> = state
            .table(&mart.name)
            .map(|file| &file.entry)
            .filter(|file| file.rows > 0)
            .collect();
        let (stay, gone): (Vec<_>, Vec<_>) = old.into_iter().partition(|file| stays(file));
        let rows = files.iter().map(|file| file.rows).sum::<u64>()
            + stay.iter().map(|file| file.rows).sum::<u64>();
        files.extend(self.emptied(&definition, &files, &gone, &settings)?);
        let staged = publish::stage(
            self.lake,
            self.commit.number,
            &self.commit.run,
            stream::iter(files),
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
        // Of all marts together there may be more than the local disk takes.
        let entries = staged.only_staged();
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
            reach: mart.reach_by_name(),
            rows,
        });
        Ok(MartSummary {
            name: mart.name.clone(),
            rows,
            dates: dates.map(|dates| dates.build.len() as u64),
            left_out,
            outcome: MartOutcome::Built,
        })
    }

    /// Evaluates a mart, or one partition of it, into files on this disk.
    async fn evaluate(
        &self,
        mart: &Mart,
        partition: Option<Partition<'_>>,
        alone: bool,
        state: &State,
        settings: &publish::FileSettings,
    ) -> Result<Vec<Finished>, RunError> {
        let date = partition.map(|partition| partition.date);
        let inputs = self.inputs.of(mart, date, state)?;
        let engine = &self.inputs.looked.engine;
        let (definition, rows) = mart::evaluate(engine, mart, &inputs, partition, alone).await?;
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
        ordered.write(rows).await.map_err(|error| match error {
            publish::OrderedError::Rows(error) => RunError::Mart(MartError::running(mart, &error)),
            publish::OrderedError::Write(error) => RunError::Write(error),
            long @ publish::OrderedError::LongValue(_) => {
                let error = datafusion::error::DataFusionError::Execution(long.to_string());
                RunError::Mart(MartError::running(mart, &error))
            }
        })
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

/// The files of one partition among those that were made for it. Rows of dates that the mart has no
/// partition of are `left_out`.
fn of_date(
    mart: &Mart,
    Partition { date, .. }: Partition<'_>,
    made: Vec<Finished>,
    left_out: &mut BTreeSet<NaiveDate>,
) -> Result<Vec<Finished>, MartError> {
    let same_only = mart.reach.values().all(|reach| *reach == Reach::SAME);
    let mut files = Vec::new();
    for file in made {
        match ledger::date(&file.partition) {
            Some(of) if of == date => files.push(file),
            Some(other) if same_only => {
                return Err(MartError::of_another_date(mart, date, other));
            }
            Some(other) => _ = left_out.insert(other),
            None => {
                let dt = file.partition.iter().find(|(column, _)| column == "dt");
                let dt = dt.and_then(|(_, value)| value.as_deref());
                return Err(MartError::of_no_date(mart, date, dt));
            }
        }
    }
    Ok(files)
}

/// The dates of a mart that is built date by date.
struct Dates {
    all: BTreeSet<NaiveDate>,
    /// Those to build; the others stay as they are.
    build: BTreeSet<NaiveDate>,
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
        local: &Local,
        state: &State,
    ) -> Result<Self, RunError> {
        let (url, client, root) = lake.object_store(&local.files);
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

    /// The files of a table that have rows, and where they lie: of marts built by this run what is staged,
    /// and what stays.
    fn files<'f>(
        &'f self,
        name: &'f str,
        state: &'f State,
    ) -> impl Iterator<Item = (&'f FileEntry, String)> {
        let staged = self.staged.get(name).map_or(&[][..], Vec::as_slice);
        let replaced: BTreeSet<String> = staged.iter().map(FileEntry::key).collect();
        let staged = staged.iter().map(|entry| (entry, entry.staged.clone()));
        let published = state
            .table(name)
            .map(|file| (&file.entry, file.entry.key()));
        let stays = published.filter(move |(_, key)| !replaced.contains(key));
        // Slices of an earlier partitioning are left as empty files in folders of other columns.
        staged.chain(stays).filter(|(entry, _)| entry.rows > 0)
    }

    /// The dates of a mart: those that some input has rows of, and of them those `known` to be to build, or
    /// `every` one.
    fn dates(&self, mart: &Mart, known: &BTreeSet<NaiveDate>, every: bool, state: &State) -> Dates {
        let files = mart.reach.keys().flat_map(|input| self.files(input, state));
        let all: BTreeSet<_> = files.filter_map(|(file, _)| file.date()).collect();
        let build = match every {
            true => all.clone(),
            false => all.intersection(known).copied().collect(),
        };
        Dates { all, build }
    }

    /// The dates in groups that are evaluated at once.
    fn at_once(
        &self,
        mart: &Mart,
        dates: &BTreeSet<NaiveDate>,
        most: &AtOnce,
        state: &State,
    ) -> Vec<Vec<NaiveDate>> {
        let mut inputs = Vec::new();
        for input in &mart.inputs {
            let mut bytes: BTreeMap<Option<NaiveDate>, u64> = BTreeMap::new();
            for (file, _) in self.files(input, state) {
                *bytes.entry(file.date()).or_default() += file.bytes;
            }
            if let Some(reference) = self.looked.references.get(input) {
                let batches = reference.batches.iter();
                let held: usize = batches.map(RecordBatch::get_array_memory_size).sum();
                bytes.insert(None, held as u64);
            }
            inputs.push((mart.reach.get(input), bytes));
        }
        let bytes_of = |date: NaiveDate| -> u64 {
            let in_reach = inputs.iter().flat_map(|(reach, bytes)| {
                let holds = move |dt| reach.is_none_or(|reach| reach.holds(date, dt));
                bytes.iter().filter(move |(dt, _)| holds(**dt))
            });
            in_reach.map(|(_, bytes)| bytes).sum()
        };
        let mut groups: Vec<Vec<NaiveDate>> = Vec::new();
        let mut held = 0;
        for &date in dates {
            let bytes = bytes_of(date);
            held += bytes;
            match groups.last_mut() {
                Some(group) if held <= most.bytes && group.len() < most.dates => group.push(date),
                _ => {
                    held = bytes;
                    groups.push(vec![date]);
                }
            }
        }
        groups
    }

    /// The files of a mart's input that are `in_reach`, as a table.
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
        let files = self.files(name, state);
        let in_reach = files.filter(|(entry, _)| in_reach(entry));
        let files: Vec<TableFile> = in_reach
            .map(|(entry, key)| self.file(entry, &key))
            .collect();
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
