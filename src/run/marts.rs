//! Marts: from published tables to staged files, all of one commit. A mart by date has each of its
//! dates evaluated over the files in reach.
//!
//! ```text
//! marts in their order ──▶ wave: up to the first that reads one of them
//!                            │ two at a time, their small dates beside each other
//!                            ▼
//!                          files on this disk ──▶ staged ──▶ the next wave reads them
//! ```

mod sample;

pub use sample::Sample;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use chrono::NaiveDate;
use datafusion::catalog::TableProvider;
use datafusion::execution::object_store::ObjectStoreUrl;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::look::Looked;
use super::proof::Proof;
use super::{Context, MartOutcome, MartSummary, RunError, Totals};
use crate::catalog::{LakeTable, SourceTables, TableDefinition, TableFile};
use crate::config::Job;
use crate::engine::LAW;
use crate::layout;
use crate::ledger::{File, FileEntry, MartEntry, State};
use crate::mart::{self, Input, Mart, MartDate, MartError, PanicsCaught, Reach};
use crate::plan::{self, MartPlan, Reads};
use crate::progress::Happened;
use crate::publish::{
    self, Finished, Local, Ordered, OrderedError, Staged, StoredError, WriteError,
};
use crate::store::Store;

/// Dates that are evaluated at once: each has a file open, outside of DataFusion's memory.
const DATES_AT_ONCE: usize = 4;
/// Marts whose files may lie on this disk at one time.
const MARTS_AT_ONCE: usize = 2;

/// Data files that one mart has proven at once.
const PROVEN_AT_ONCE: usize = 4;

/// What is evaluated at once takes slots, a small date one of them; what takes all of them is alone.
struct Slots {
    free: Semaphore,
    all: u32,
    /// Bytes of data files that may be read by what has all slots.
    bytes: u64,
}

impl Slots {
    /// As many as there are threads, or 256 MiB of `memory`, whichever are fewer.
    fn new(memory: u64, threads: usize) -> Self {
        let all = (memory >> 28).min(DATES_AT_ONCE as u64).min(threads as u64);
        let all = u32::try_from(all).unwrap_or(1).max(1);
        Self {
            free: Semaphore::new(all as usize),
            all,
            bytes: memory / 8,
        }
    }

    /// How many slots it takes to read so many bytes. No two that take more than half of them would fit, so
    /// each gets all.
    fn of(&self, bytes: u64) -> u32 {
        let share = (self.bytes / u64::from(self.all)).max(1);
        let slots = u32::try_from(bytes.div_ceil(share))
            .unwrap_or(u32::MAX)
            .max(1);
        match slots > self.all / 2 {
            true => self.all,
            false => slots,
        }
    }

    /// Waits for them, in the order in which they were asked for.
    async fn take(&self, slots: u32) -> Result<SemaphorePermit<'_>, RunError> {
        let taken = self.free.acquire_many(slots).await;
        taken.map_err(|error| RunError::Defect(error.to_string()))
    }
}

/// Where marts read from, and write to.
pub struct Folders<'a> {
    pub lake: &'a Store,
    /// What is published there and lies on local disk, too.
    pub local: &'a Local,
    pub spill: &'a Path,
    pub proof: &'a Proof,
}

/// Builds the planned marts in their order, from `local` files where these are what was published. A mart
/// that fails takes those that read it along; the others go on.
pub async fn build(
    job: &Job,
    looked: &Looked<'_>,
    folders: Folders<'_>,
    state: &mut State,
    context: &Context,
    totals: &mut Totals,
) -> Result<Vec<MartSummary>, RunError> {
    let Some(graph) = &looked.graph else {
        return Ok(Vec::new());
    };
    let Folders { lake, local, .. } = folders;
    let mut commit = super::new_commit(state, context);
    let mut build = Build {
        lake,
        proof: folders.proof,
        inputs: Inputs::new(job, looked, lake, local, state)?,
        number: commit.number,
        run: &context.run,
        row_group: usize::try_from(job.memory / 8).unwrap_or(usize::MAX),
        slots: Slots::new(job.memory, job.threads),
        in_flight: job.memory / 8 / MARTS_AT_ONCE as u64,
        spill: folders.spill,
    };
    // Tasks of a mart that has failed may end a little later.
    let _caught = PanicsCaught::begin();
    let mut summaries = Vec::new();
    let mut failed: BTreeSet<String> = BTreeSet::new();
    let mut planned: VecDeque<_> = graph.marts().iter().zip(&looked.plan.marts).collect();
    while !planned.is_empty() {
        let wave = wave(&mut planned);
        let only = wave.iter().filter(|(_, planned)| planned.why.is_some());
        let only = only.count() == 1;
        let attempts = stream::iter(wave).map(async |(mart, planned)| {
            let mut summary = MartSummary {
                name: mart.name.clone(),
                rows: 0,
                dates: None,
                left_out: BTreeSet::new(),
                sample: None,
                outcome: MartOutcome::Built,
            };
            if let Some(because) = mart.inputs.iter().find(|input| failed.contains(*input)) {
                let because = because.clone();
                summary.outcome = MartOutcome::Skipped { because };
                return Ok((summary, None));
            }
            if planned.why.is_none() {
                let built = state.marts.get(&mart.name);
                summary.rows = built.map_or(0, |built| built.entry.rows);
                summary.outcome = MartOutcome::Fresh;
                return Ok((summary, None));
            }
            context.progress.tell(Happened::Mart {
                name: mart.name.clone(),
            });
            let built = mart::guarded(mart, build.one(mart, planned, only, state));
            match built.await {
                Ok(built) => Ok((summary, Some(built))),
                Err(RunError::Mart(error)) => {
                    // It fails too when another run, or somebody else, has replaced what it reads.
                    super::overtaken(lake, build.number).await?;
                    build.look_at_inputs(mart, state).await?;
                    let mut error = error.to_string();
                    error += &looked.of_inferred_types(job, mart, &error);
                    summary.outcome = MartOutcome::Failed { error };
                    Ok((summary, None))
                }
                Err(other) => Err(other),
            }
        });
        let attempts = attempts.buffered(MARTS_AT_ONCE).try_collect().await;
        let attempts: Vec<_> = match attempts {
            Ok(attempts) => attempts,
            Err(error) => {
                super::unstage(lake, &commit, &error).await;
                return Err(error);
            }
        };
        for (mut summary, built) in attempts {
            if let Some(built) = built {
                summary.rows = built.entry.rows;
                summary.dates = built.dates;
                summary.left_out = built.left_out;
                summary.sample = built.sample;
                commit.files.extend(built.staged.iter().cloned());
                commit.columns.insert(summary.name.clone(), built.columns);
                commit.marts.push(built.entry);
                let staged = &mut build.inputs.staged;
                staged.insert(summary.name.clone(), built.staged);
            }
            if let MartOutcome::Failed { .. } | MartOutcome::Skipped { .. } = summary.outcome {
                failed.insert(summary.name.clone());
            }
            summaries.push(summary);
        }
    }
    let built = commit.marts.iter().map(|mart| mart.name.as_str());
    commit.found = built.flat_map(|mart| looked.found(mart)).collect();
    if !commit.marts.is_empty() {
        super::commit_files(job, lake, commit, Staged::default(), state, context, totals).await?;
    }
    Ok(summaries)
}

/// Takes the marts up to the first that reads one of them.
fn wave<'a>(planned: &mut VecDeque<(&'a Mart, &'a MartPlan)>) -> Vec<(&'a Mart, &'a MartPlan)> {
    let mut wave: Vec<(&Mart, &MartPlan)> = Vec::new();
    while let Some(next) = planned.pop_front_if(|(mart, _)| {
        let read = |(earlier, _): &(&Mart, &MartPlan)| mart.inputs.contains(&earlier.name);
        !wave.iter().any(read)
    }) {
        wave.push(next);
    }
    wave
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
    proof: &'a Proof,
    inputs: Inputs<'a>,
    /// Of the commit to come.
    number: u64,
    run: &'a str,
    row_group: usize,
    slots: Slots,
    /// Bytes of files of one mart that are staged at once.
    in_flight: u64,
    spill: &'a Path,
}

/// A mart, or dates of it, evaluated and staged.
struct Built {
    staged: Vec<FileEntry>,
    columns: Vec<(String, String)>,
    entry: MartEntry,
    dates: Option<u64>,
    left_out: BTreeSet<NaiveDate>,
    sample: Option<Sample>,
}

impl Build<'_> {
    /// Builds and stages one mart, or the dates of it that are planned; it may be the `only` one for now.
    async fn one(
        &self,
        mart: &Mart,
        planned: &MartPlan,
        only: bool,
        state: &State,
    ) -> Result<Built, RunError> {
        let definition = self.inputs.definition(&mart.name)?;
        // However many dates are evaluated at once, so that a file does not depend on it.
        let row_group = match planned.dates {
            Some(_) => self.row_group / DATES_AT_ONCE,
            None => self.row_group,
        };
        let settings = super::mart_files(self.number, row_group);
        let mut left_out = BTreeSet::new();
        let dates = planned
            .dates
            .as_ref()
            .map(|known| self.inputs.dates(mart, known, planned.every_date, state));
        let sample = match &dates {
            Some(dates) => self.sample(mart, planned, dates, state).await?,
            None => None,
        };
        let mut files = Vec::new();
        match &dates {
            None => {
                let _all = self.slots.take(self.slots.all).await?;
                files = self.evaluate(mart, None, true, state, &settings).await?;
            }
            Some(Dates { all, build }) => {
                let bytes = self.inputs.bytes(mart, state);
                let made = stream::iter(build).map(|date| {
                    let partition = MartDate {
                        date: *date,
                        dates: all,
                    };
                    let slots = match only && build.len() == 1 {
                        true => self.slots.all,
                        false => self.slots.of(bytes(*date)),
                    };
                    self.date(mart, partition, slots, state, &settings)
                });
                // In order, so that the first that fails is the same every time.
                let mut made = pin!(made.buffered(DATES_AT_ONCE));
                for date in build {
                    let Some(made) = made.next().await else { break };
                    files.extend(of_date(mart, *date, made?, &mut left_out)?);
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
        files.extend(self.emptied(mart, definition, &files, &gone, &settings)?);
        let files = stream::iter(files);
        let staged = publish::stage(self.lake, self.number, self.run, files, self.in_flight);
        let staged = staged.await?;
        let inputs = mart
            .inputs
            .iter()
            .map(|input| {
                let version = if self.inputs.staged.contains_key(input) {
                    self.number.to_string()
                } else {
                    plan::version(input, state, &self.inputs.references)
                };
                (input.clone(), version)
            })
            .collect();
        Ok(Built {
            // Of all marts together there may be more than the local disk takes.
            staged: staged.only_staged(),
            columns: crate::catalog::columns(&definition.schema),
            entry: MartEntry {
                name: mart.name.clone(),
                sql: mart.fingerprint.clone(),
                inputs,
                reach: mart.reach_by_name(),
                rows,
                compared: sample.as_ref().is_none_or(|sample| !sample.too_few),
                law: LAW,
            },
            dates: dates.map(|dates| dates.build.len() as u64),
            left_out,
            sample,
        })
    }

    /// Evaluates a date that takes so many slots, beside others or alone.
    async fn date(
        &self,
        mart: &Mart,
        partition: MartDate<'_>,
        slots: u32,
        state: &State,
        settings: &publish::FileSettings,
    ) -> Result<Vec<Finished>, RunError> {
        let evaluate = async |slots: u32| {
            let alone = slots == self.slots.all;
            let _taken = self.slots.take(slots).await?;
            let partition = Some(partition);
            let made = self.evaluate(mart, partition, alone, state, settings);
            mart::guarded(mart, made).await
        };
        match evaluate(slots).await {
            // Beside others it may lack memory that it has alone.
            Err(RunError::Mart(_)) if slots < self.slots.all => evaluate(self.slots.all).await,
            made => made,
        }
    }

    /// Looks whether the published files that a mart may read are those that the log names: in a bucket, where
    /// one that is not cannot be read.
    async fn look_at_inputs(&self, mart: &Mart, state: &State) -> Result<(), RunError> {
        if self.lake.is_local() {
            return Ok(());
        }
        for file in self.inputs.published(mart, None, state) {
            let Some(expected) = file.etag.as_ref().filter(|etag| !etag.is_empty()) else {
                continue;
            };
            let key = file.entry.key();
            let found = self.lake.head(&key).await?;
            let what = match found {
                None => "it is gone",
                Some(found) if found.etag.as_ref().is_some_and(|etag| etag != expected) => {
                    "its ETag is another"
                }
                Some(_) => continue,
            };
            return Err(RunError::from(StoredError::Foreign {
                url: self.lake.url_of(&key),
                what: what.to_owned(),
            }));
        }
        Ok(())
    }

    /// Evaluates a mart, or one partition of it, into files on this disk. Where it breaks down, this is an
    /// error of the mart.
    async fn evaluate(
        &self,
        mart: &Mart,
        partition: Option<MartDate<'_>>,
        alone: bool,
        state: &State,
        settings: &publish::FileSettings,
    ) -> Result<Vec<Finished>, RunError> {
        let date = partition.map(|partition| partition.date);
        let published = self.inputs.published(mart, date, state);
        stream::iter(published.map(Ok::<_, RunError>))
            .try_for_each_concurrent(PROVEN_AT_ONCE, |file| async {
                Ok(self.proof.prove(file).await?)
            })
            .await?;
        let inputs = self.inputs.of(mart, date, state)?;
        let engine = &self.inputs.looked.engine;
        let (definition, rows) = mart::evaluate(engine, mart, &inputs, partition, alone).await?;
        if definition != *self.inputs.definition(&mart.name)? {
            return Err(MartError::of_another_type(mart).into());
        }
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
        let written = ordered.write(rows).await;
        written.map_err(|error| failed(self.lake, mart, &folder, error))
    }

    /// Zero-row files for the partitions that had rows and have none now: publishing never deletes.
    fn emptied(
        &self,
        mart: &Mart,
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
            let made = publish::empty_file(table, old, number, settings, self.spill);
            made.map_err(|error| failed(self.lake, mart, self.spill, error.into()))
        });
        empty.collect()
    }
}

/// What of the rows of a mart, or of their writing, has failed: the store or this disk, and then all of
/// the run, or this mart alone.
fn failed(lake: &Store, mart: &Mart, folder: &Path, error: OrderedError) -> RunError {
    let of_run = match &error {
        OrderedError::Rows(error) => failed_below(lake, folder, error),
        OrderedError::Write(error) => failed_below(lake, folder, error),
        OrderedError::LongValue(_) => None,
    };
    if let Some(of_run) = of_run {
        return of_run;
    }
    RunError::Mart(match error {
        OrderedError::Rows(error) => MartError::running(mart, &error),
        OrderedError::Write(WriteError::Parquet { source, .. }) => {
            MartError::writing(mart, &source)
        }
        OrderedError::Write(error) => MartError::writing(mart, &error),
        long @ OrderedError::LongValue(_) => MartError::writing(mart, &long),
    })
}

/// The failure of the lake's store or of this disk that an error comes from.
fn failed_below(lake: &Store, folder: &Path, error: &(dyn Error + 'static)) -> Option<RunError> {
    if let Some(error) = lake.failure(error) {
        return Some(RunError::Store(error));
    }
    let mut cause = Some(error);
    let mut disk = None;
    while let (Some(error), None) = (cause, disk) {
        disk = error.downcast_ref::<std::io::Error>();
        cause = error.source();
    }
    // Decoders too speak of I/O where the bytes are wrong; the system's own errors have a number.
    let disk = disk.filter(|error| error.raw_os_error().is_some())?;
    Some(RunError::Write(WriteError::Spill {
        folder: folder.display().to_string(),
        source: std::io::Error::new(disk.kind(), disk.to_string()),
    }))
}

/// The files of one partition among those that were made for it. Rows of dates that the mart has no
/// partition of are `left_out`.
fn of_date(
    mart: &Mart,
    date: NaiveDate,
    made: Vec<Finished>,
    left_out: &mut BTreeSet<NaiveDate>,
) -> Result<Vec<Finished>, MartError> {
    let same_only = mart.reach.values().all(|reach| *reach == Reach::SAME);
    let mut files = Vec::new();
    for file in made {
        match layout::date_of(&file.partition) {
            Some(of) if of == date => files.push(file),
            Some(other) if same_only => {
                return Err(MartError::of_another_date(mart, date, other));
            }
            Some(other) => _ = left_out.insert(other),
            None => {
                let dt = layout::value_of(&file.partition, layout::DATE);
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
        let etags = state.files.iter().filter_map(|(key, file)| {
            let etag = file.etag.as_ref().filter(|etag| !etag.is_empty())?;
            Some((key.clone(), etag.clone()))
        });
        let (url, client, root) = lake.object_store(&local.files, &etags.collect());
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

    /// The published files that a mart reads, for one of its dates where it is built by date.
    fn published<'f>(
        &'f self,
        mart: &'f Mart,
        date: Option<NaiveDate>,
        state: &'f State,
    ) -> impl Iterator<Item = &'f File> {
        mart.inputs.iter().flat_map(move |input| {
            let reach = mart.reach.get(input);
            let in_reach = move |file: &FileEntry| match (reach, date) {
                (Some(reach), Some(date)) => reach.holds(date, file.date()),
                _ => true,
            };
            let files = self.files(input, state);
            let files = files.filter(move |(entry, _)| in_reach(entry));
            // What is staged has another key than that of its file.
            files.filter_map(|(_, key)| state.files.get(&key))
        })
    }

    /// All that one mart reads for a date, with another reach of some tables.
    fn within(
        &self,
        mart: &Mart,
        date: NaiveDate,
        reaches: &BTreeMap<String, Reach>,
        state: &State,
    ) -> Result<Vec<Input>, RunError> {
        let inputs = mart.inputs.iter().map(|input| {
            let reach = reaches.get(input).or_else(|| mart.reach.get(input));
            let in_reach =
                |file: &FileEntry| reach.is_none_or(|reach| reach.holds(date, file.date()));
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

    /// Bytes of data files and references that a date of a mart reads.
    fn bytes(&self, mart: &Mart, state: &State) -> impl Fn(NaiveDate) -> u64 + use<> {
        let mut inputs = Vec::new();
        for input in &mart.inputs {
            let mut bytes: BTreeMap<Option<NaiveDate>, u64> = BTreeMap::new();
            for (file, _) in self.files(input, state) {
                *bytes.entry(file.date()).or_default() += file.bytes;
            }
            if let Some(reference) = self.looked.references.get(input) {
                bytes.insert(None, reference.bytes);
            }
            inputs.push((mart.reach.get(input).copied(), bytes));
        }
        move |date| {
            let in_reach = inputs.iter().flat_map(|(reach, bytes)| {
                let holds = move |dt| reach.is_none_or(|reach| reach.holds(date, dt));
                bytes.iter().filter(move |(dt, _)| holds(**dt))
            });
            in_reach.map(|(_, bytes)| bytes).sum()
        }
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
            return reference.table(name).map_err(failing);
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
            rows: entry.rows,
            partition: entry
                .partition
                .iter()
                .map(|(_, value)| value.clone())
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_fails_is_the_marts_but_for_the_store_and_this_disk() {
        use arrow::error::ArrowError;
        use datafusion::error::DataFusionError;
        use parquet::errors::ParquetError;

        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("m.sql"), "SELECT 1 AS a").unwrap();
        let graph = mart::load(folder.path(), &[], &[]).unwrap();
        let mart = &graph.marts()[0];
        let memory = crate::store::StoreSettings {
            memory: Some(Arc::default()),
            ..crate::store::StoreSettings::default()
        };
        let lake = Store::open("memory://lake/", &memory).await.unwrap();
        let of = |error: OrderedError| failed(&lake, mart, folder.path(), error);
        let parquet = |source| {
            let file = "/spill/m-0.parquet".to_owned();
            OrderedError::Write(WriteError::Parquet { file, source })
        };
        let full = || std::io::Error::from_raw_os_error(28);
        let of_mart = [
            parquet(ParquetError::General("incompatible type".to_owned())),
            OrderedError::Write(WriteError::Arrow(ArrowError::CastError("x".to_owned()))),
            OrderedError::LongValue("k=aaa".to_owned()),
            OrderedError::Rows(DataFusionError::ResourcesExhausted("x".to_owned())),
            OrderedError::Rows(DataFusionError::Internal("x".to_owned())),
            // A damaged file is no failure of the disk.
            OrderedError::Rows(
                ParquetError::External(Box::new(std::io::Error::other("corrupt"))).into(),
            ),
            OrderedError::Rows(
                object_store::Error::NotFound {
                    path: "a".to_owned(),
                    source: "gone".into(),
                }
                .into(),
            ),
        ];
        for error in of_mart {
            let text = error.to_string();
            match of(error) {
                RunError::Mart(error) => {
                    assert!(error.to_string().contains("m.sql: "), "{error}");
                    assert!(!error.to_string().contains("/spill"), "{error}");
                }
                other => panic!("{text}: {other}"),
            }
        }
        let of_disk = [
            parquet(ParquetError::External(Box::new(full()))),
            OrderedError::Write(WriteError::Spill {
                folder: "x".to_owned(),
                source: full(),
            }),
            OrderedError::Rows(DataFusionError::IoError(full())),
            OrderedError::Rows(ArrowError::IoError("x".to_owned(), full()).into()),
        ];
        for error in of_disk {
            let text = error.to_string();
            let found = of(error);
            assert!(matches!(found, RunError::Write(_)), "{text}: {found}");
        }
        let denied = object_store::Error::PermissionDenied {
            path: "a".to_owned(),
            source: "403".into(),
        };
        let denied =
            DataFusionError::ParquetError(Box::new(ParquetError::External(Box::new(denied))));
        let found = of(OrderedError::Rows(denied));
        assert!(matches!(found, RunError::Store(_)), "{found}");
    }

    #[test]
    fn a_wave_ends_before_what_reads_one_of_it() {
        let folder = tempfile::tempdir().unwrap();
        for (name, reads) in [("a", "t"), ("b", "a"), ("c", "t"), ("d", "c"), ("e", "d")] {
            let sql = format!("SELECT count(*) AS n FROM {reads}");
            std::fs::write(folder.path().join(format!("{name}.sql")), sql).unwrap();
        }
        let graph = mart::load(folder.path(), &["t".to_owned()], &[]).unwrap();
        let plan = MartPlan {
            mart: String::new(),
            why: None,
            dates: None,
            every_date: false,
            reads: Vec::new(),
        };
        let mut planned = graph.marts().iter().map(|mart| (mart, &plan)).collect();
        let waves = std::iter::from_fn(|| {
            let wave = wave(&mut planned).into_iter();
            let names: String = wave.map(|(mart, _)| mart.name.as_str()).collect();
            (!names.is_empty()).then_some(names)
        });
        assert_eq!(waves.collect::<Vec<_>>(), ["a", "bc", "d", "e"]);
    }

    #[test]
    fn a_date_takes_as_many_slots_as_it_has_bytes_for() {
        let of = |memory: u64, threads: usize, mib: &[u64]| -> Vec<u32> {
            let slots = Slots::new(memory, threads);
            mib.iter().map(|mib| slots.of(mib << 20)).collect()
        };
        assert_eq!(of(1 << 30, 2, &[0, 64, 65, 128, 1 << 20]), [1, 1, 2, 2, 2]);
        assert_eq!(
            of(1 << 30, 16, &[0, 32, 33, 64, 65, 97]),
            [1, 1, 2, 2, 4, 4]
        );
        assert_eq!(of(1 << 40, 3, &[0, 1 << 15, 1 << 17]), [1, 1, 3]);
        // There is one.
        assert_eq!(of(1 << 28, 8, &[0, 1 << 20]), [1, 1]);
        assert_eq!(of(1 << 40, 1, &[0, 1 << 20]), [1, 1]);
    }
}
