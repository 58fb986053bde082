//! Builds one mart: evaluates it over the files in reach, writes the rows and stages the files.

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::pin;

use chrono::NaiveDate;
use futures::{StreamExt, TryStreamExt, stream};

use super::super::{CheckSummary, RunError, Sample};
use super::failure::failed;
use super::inputs::{Inputs, MartDates};
use super::sample::Sampler;
use super::slots::Slots;
use super::{DATES_AT_ONCE, PROVEN_AT_ONCE, mart_files};
use crate::catalog::TableDefinition;
use crate::engine::LAW;
use crate::lake::{Lake, Proof, Writing};
use crate::layout;
use crate::ledger::{FileEntry, MartEntry};
use crate::mart::{self, Mart, MartDate, MartError};
use crate::plan::MartPlan;
use crate::publish::{self, FileSettings, Finished, Ordered, StoredError, WriteError};

/// Everything that all marts of one commit are built with.
pub struct Build<'a> {
    pub lake: &'a Lake<Writing>,
    pub proof: &'a Proof,
    pub inputs: Inputs<'a>,
    /// The number of the next commit.
    pub number: u64,
    pub row_group: usize,
    pub slots: Slots,
    /// The most bytes of files of one mart that are staged at once.
    pub in_flight: u64,
    pub spill: &'a Path,
    /// How many partitions a mart may have.
    pub most_partitions: u64,
}

/// A mart, or some of its dates, evaluated and staged.
pub struct Built {
    pub staged: Vec<FileEntry>,
    pub columns: Vec<(String, String)>,
    pub entry: MartEntry,
    /// How many of its partitions have rows.
    pub partitions: u64,
    pub dates: Option<u64>,
    pub left_out: BTreeSet<NaiveDate>,
    pub sample: Option<Sample>,
    pub checks: Option<CheckSummary>,
}

impl Build<'_> {
    /// Builds and stages one mart, or its planned dates, and checks its claims. `only` says that no other mart is built at the same
    /// time.
    pub async fn one(
        &self,
        mart: &Mart,
        planned: &MartPlan,
        only: bool,
    ) -> Result<Built, RunError> {
        // The size of a row group does not depend on the number of dates that are evaluated at once, so a file
        // does not depend on it.
        let row_group = match planned.dates {
            Some(_) => self.row_group / DATES_AT_ONCE,
            None => self.row_group,
        };
        let settings = mart_files(self.number, row_group);
        let dates = planned
            .dates
            .as_ref()
            .map(|known| self.inputs.dates(mart, known, planned.every_date));
        let sample = match &dates {
            Some(dates) => self.sampler().sample(mart, planned, dates).await?,
            None => None,
        };
        let mut left_out = BTreeSet::new();
        let files = match &dates {
            None => {
                let _all = self.slots.take(self.slots.all).await?;
                self.evaluate(mart, None, true, &settings).await?
            }
            Some(dates) => {
                let alone = only && dates.build.len() == 1;
                self.dates(mart, dates, alone, &settings, &mut left_out)
                    .await?
            }
        };
        let (staged, rows, partitions) = self.stage(mart, dates.as_ref(), files, &settings).await?;
        let checks = self.check(mart, &staged).await?;
        let inputs = mart.inputs.iter();
        let inputs = inputs.map(|input| (input.clone(), self.inputs.version(input, self.number)));
        let definition = self.inputs.snapshot.definition(&mart.name)?;
        Ok(Built {
            staged,
            partitions,
            columns: crate::catalog::columns(&definition.schema),
            entry: MartEntry {
                name: mart.name.clone(),
                sql: mart.fingerprint.clone(),
                inputs: inputs.collect(),
                reach: mart.reach_by_name(),
                rows,
                compared: sample.as_ref().is_none_or(|sample| !sample.too_few),
                law: LAW,
                unit: crate::catalog::timestamp_unit(&definition.schema),
            },
            dates: dates.map(|dates| dates.build.len() as u64),
            left_out,
            sample,
            checks,
        })
    }

    fn sampler(&self) -> Sampler<'_> {
        Sampler {
            lake: self.lake.store(),
            inputs: &self.inputs,
            slots: &self.slots,
            row_group: self.row_group,
            spill: self.spill,
        }
    }

    /// Evaluates dates of a mart, some of them at once. A single date may be evaluated `alone`. Rows of other
    /// dates are added to `left_out`.
    async fn dates(
        &self,
        mart: &Mart,
        MartDates { all, build }: &MartDates,
        alone: bool,
        settings: &FileSettings,
        left_out: &mut BTreeSet<NaiveDate>,
    ) -> Result<Vec<Finished>, RunError> {
        let bytes = self.inputs.bytes(mart);
        let made = stream::iter(build).map(|date| {
            let partition = MartDate {
                date: *date,
                dates: all,
            };
            let slots = match alone {
                true => self.slots.all,
                false => self.slots.of(bytes(*date)),
            };
            self.date(mart, partition, slots, settings)
        });
        // The results are taken in order, so the first failing date is always the same.
        let mut made = pin!(made.buffered(DATES_AT_ONCE));
        let mut files = Vec::new();
        for date in build {
            let Some(made) = made.next().await else { break };
            files.extend(of_date(mart, *date, made?, left_out)?);
            self.refuse_many(mart, files.len() as u64)?;
        }
        Ok(files)
    }

    /// Refuses a mart with more partitions than one may have.
    fn refuse_many(&self, mart: &Mart, partitions: u64) -> Result<(), MartError> {
        match partitions > self.most_partitions {
            true => Err(MartError::of_many_partitions(mart, self.most_partitions)),
            false => Ok(()),
        }
    }

    /// Stages the files of a mart, and empty files for the files that have no rows any more. Gives the staged
    /// files, and the numbers of rows and of partitions with rows that the mart has with the files that stay.
    async fn stage(
        &self,
        mart: &Mart,
        dates: Option<&MartDates>,
        mut files: Vec<Finished>,
        settings: &FileSettings,
    ) -> Result<(Vec<FileEntry>, u64, u64), RunError> {
        let stays = |file: &FileEntry| match (dates, file.date()) {
            (Some(MartDates { all, build }), Some(date)) => {
                all.contains(&date) && !build.contains(&date)
            }
            _ => false,
        };
        let snapshot = &self.inputs.snapshot;
        let old = snapshot.state().table(&mart.name);
        let old = old.map(|file| &file.entry).filter(|file| file.rows > 0);
        let (stay, gone): (Vec<_>, Vec<_>) = old.partition(|file| stays(file));
        let rows = files.iter().map(|file| file.rows).sum::<u64>()
            + stay.iter().map(|file| file.rows).sum::<u64>();
        let with_rows = files.iter().filter(|file| file.rows > 0);
        let partitions = (with_rows.count() + stay.len()) as u64;
        self.refuse_many(mart, partitions)?;
        let definition = snapshot.definition(&mart.name)?;
        files.extend(self.emptied(mart, definition, &files, &gone, settings)?);
        let store = self.lake.store();
        let files = stream::iter(files);
        let staged = publish::stage(store, self.number, self.lake.run(), files, self.in_flight);
        // The local disk may be too small for the files of all marts together.
        Ok((staged.await?.only_staged(), rows, partitions))
    }

    /// Evaluates a date that takes so many slots.
    async fn date(
        &self,
        mart: &Mart,
        partition: MartDate<'_>,
        slots: u32,
        settings: &FileSettings,
    ) -> Result<Vec<Finished>, RunError> {
        let evaluate = async |slots: u32| {
            let alone = slots == self.slots.all;
            let _taken = self.slots.take(slots).await?;
            let partition = Some(partition);
            let made = self.evaluate(mart, partition, alone, settings);
            mart::guarded(mart, made).await
        };
        match evaluate(slots).await {
            // A date may lack memory beside others and have enough of it alone.
            Err(RunError::Mart(_)) if slots < self.slots.all => evaluate(self.slots.all).await,
            made => made,
        }
    }

    /// Checks that the published files that a mart may read are the ones that the log names. In a bucket, a
    /// file that differs cannot be read.
    pub async fn look_at_inputs(&self, mart: &Mart) -> Result<(), RunError> {
        if self.lake.store().is_local() {
            return Ok(());
        }
        for file in self.inputs.published(mart, None) {
            let Some(expected) = file.etag.as_ref().filter(|etag| !etag.is_empty()) else {
                continue;
            };
            let key = file.entry.key();
            let found = self.lake.store().head(&key).await?;
            let what = match found {
                None => "it is gone",
                Some(found) if found.etag.as_ref().is_some_and(|etag| etag != expected) => {
                    "its ETag is another"
                }
                Some(_) => continue,
            };
            return Err(RunError::from(StoredError::Foreign {
                url: self.lake.store().url_of(&key),
                what: what.to_owned(),
            }));
        }
        Ok(())
    }

    /// Evaluates a mart, or one partition of it, into files on the local disk. An error of the evaluation is an
    /// error of the mart.
    async fn evaluate(
        &self,
        mart: &Mart,
        partition: Option<MartDate<'_>>,
        alone: bool,
        settings: &FileSettings,
    ) -> Result<Vec<Finished>, RunError> {
        let date = partition.map(|partition| partition.date);
        let published = self.inputs.published(mart, date);
        stream::iter(published.map(Ok::<_, RunError>))
            .try_for_each_concurrent(PROVEN_AT_ONCE, |file| async {
                Ok(self.proof.prove(file).await?)
            })
            .await?;
        let inputs = self.inputs.of(mart, date)?;
        let engine = &self.inputs.looked.engine;
        let (definition, rows) = mart::evaluate(engine, mart, &inputs, partition, alone).await?;
        if definition != *self.inputs.snapshot.definition(&mart.name)? {
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
            most: usize::try_from(self.most_partitions).unwrap_or(usize::MAX),
        };
        let written = ordered.write(rows).await;
        written.map_err(|error| failed(self.lake.store(), mart, &folder, error))
    }

    /// Zero-row files for the partitions that had rows and have none now. They are written because publishing
    /// never deletes.
    fn emptied(
        &self,
        mart: &Mart,
        table: &TableDefinition,
        written: &[Finished],
        old: &[&FileEntry],
        settings: &FileSettings,
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
            made.map_err(|error| failed(self.lake.store(), mart, self.spill, error.into()))
        });
        empty.collect()
    }
}

/// The files of one date among the files that were made for it. Dates of other rows are added to `left_out`.
fn of_date(
    mart: &Mart,
    date: NaiveDate,
    made: Vec<Finished>,
    left_out: &mut BTreeSet<NaiveDate>,
) -> Result<Vec<Finished>, MartError> {
    let mut files = Vec::new();
    for file in made {
        let found = layout::date_of(&file.partition);
        let dt = layout::value_of(&file.partition, layout::DATE);
        match mart.belongs(date, found, dt)? {
            true => files.push(file),
            false => left_out.extend(found),
        }
    }
    Ok(files)
}
