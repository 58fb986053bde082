//! The tables that marts read: the files of a snapshot of the lake, and references.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::NaiveDate;
use datafusion::catalog::TableProvider;

use super::super::RunError;
use super::super::look::Looked;
use crate::lake::{Lake, Snapshot};
use crate::ledger::{File, FileEntry};
use crate::mart::{self, Claim, Input, Mart, MartError, Reach};
use crate::plan::{self, Foreseen, MartPlan, Reads};
use crate::publish::Local;

/// The tables that marts read.
pub struct Inputs<'a> {
    pub looked: &'a Looked<'a>,
    /// The lake, with the files that were staged for the marts that were built so far.
    pub snapshot: Snapshot<'a>,
    references: BTreeMap<String, String>,
}

/// The dates of a mart that is built date by date.
pub struct MartDates {
    pub all: BTreeSet<NaiveDate>,
    /// The dates to build. The other dates stay as they are.
    pub build: BTreeSet<NaiveDate>,
}

impl<'a> Inputs<'a> {
    pub fn new<P>(
        looked: &'a Looked<'a>,
        lake: &'a Lake<P>,
        local: &Local,
    ) -> Result<Self, RunError> {
        let tables = looked.tables(lake.state());
        Ok(Self {
            looked,
            snapshot: lake.snapshot(&looked.engine, tables, local)?,
            references: looked.fingerprints(),
        })
    }

    /// The version that the content of a mart's input follows from. `number` is the number of the next commit.
    pub fn version(&self, input: &str, number: u64) -> String {
        match self.snapshot.is_staged(input) {
            true => number.to_string(),
            false => plan::version(input, self.snapshot.state(), &self.references),
        }
    }

    /// All tables that one mart reads. If it is built by date, they have the files that these dates reach.
    pub fn of(
        &self,
        mart: &Mart,
        dates: impl IntoIterator<Item = NaiveDate> + Clone,
    ) -> Result<Vec<Input>, RunError> {
        let inputs = mart.inputs.iter().map(|input| {
            let reach = mart.reach.get(input);
            let in_reach = |file: &FileEntry| {
                let dt = file.date();
                let holds =
                    |reach: &Reach| dates.clone().into_iter().any(|date| reach.holds(date, dt));
                reach.is_none_or(holds)
            };
            Ok((input.clone(), self.table(mart, input, &in_reach)?))
        });
        inputs.collect()
    }

    /// The published files that a mart reads, for one of its dates if it is built by date.
    pub fn published<'f>(
        &'f self,
        mart: &'f Mart,
        date: Option<NaiveDate>,
    ) -> impl Iterator<Item = &'f File> {
        mart.inputs.iter().flat_map(move |input| {
            let reach = mart.reach.get(input);
            let in_reach = move |file: &FileEntry| match (reach, date) {
                (Some(reach), Some(date)) => reach.holds(date, file.date()),
                _ => true,
            };
            let files = self.snapshot.files(input);
            let files = files.filter(move |(entry, _)| in_reach(entry));
            // A staged file has another key than the file that it replaces.
            files.filter_map(|(_, key)| self.snapshot.state().files.get(&key))
        })
    }

    /// The published files that the claim of a mart reads, where the mart itself has these `staged` files.
    pub fn read_by_claim<'f>(
        &'f self,
        mart: &'f Mart,
        claim: &'f Claim,
        staged: &'f [FileEntry],
    ) -> impl Iterator<Item = &'f File> {
        let made: BTreeSet<String> = staged.iter().map(FileEntry::place).collect();
        let inputs = claim.inputs.iter();
        let inputs = inputs.filter(|input| **input != mart.name || claim.reads_whole);
        let files = inputs.flat_map(|input| self.snapshot.files(input));
        let files = files.filter(move |(entry, _)| !made.contains(&entry.place()));
        files.filter_map(|(_, key)| self.snapshot.state().files.get(&key))
    }

    /// The tables that the claim of a mart reads: the mart with these `staged` files, and all other tables whole.
    pub fn of_claim(
        &self,
        mart: &Mart,
        claim: &Claim,
        staged: &[FileEntry],
    ) -> Result<Vec<Input>, RunError> {
        let inputs = claim.inputs.iter().map(|input| {
            let table = match *input == mart.name {
                true => {
                    let table = self.snapshot.definition(input)?;
                    let made = self
                        .snapshot
                        .table_to_come(table, staged, claim.reads_whole);
                    made.map_err(|error| claim.failing(&error))?
                }
                false => self.table(mart, input, &|_| true)?,
            };
            Ok((input.clone(), table))
        });
        inputs.collect()
    }

    /// All tables that one mart reads for a date, with another reach for some of them.
    pub fn within(
        &self,
        mart: &Mart,
        date: NaiveDate,
        reaches: &BTreeMap<String, Reach>,
    ) -> Result<Vec<Input>, RunError> {
        let inputs = mart.inputs.iter().map(|input| {
            let reach = reaches.get(input).or_else(|| mart.reach.get(input));
            let in_reach =
                |file: &FileEntry| reach.is_none_or(|reach| reach.holds(date, file.date()));
            Ok((input.clone(), self.table(mart, input, &in_reach)?))
        });
        inputs.collect()
    }

    /// The facts that the engine's plan shows about a mart that is to be built.
    pub async fn foresee(&self, mart: &Mart, planned: &MartPlan) -> Result<Foreseen, RunError> {
        let engine = &self.looked.engine;
        let dates = planned.dates.clone().unwrap_or_default();
        let tables = self.of(mart, dates)?;
        let sample_due = planned.sample_due
            && !mart::date_traits(engine, mart, &tables, &mart.unsaid)
                .await?
                .of_one_date;
        let scans = mart::scans(engine, mart, &tables).await?;
        let reads = scans.into_iter().filter_map(|scan| {
            let table = self.snapshot.table_of(scan.files.first()?)?;
            let all = self.snapshot.state().table(&table);
            Some(Reads {
                of_files: all.filter(|file| file.entry.rows > 0).count() as u64,
                table,
                columns: scan.columns,
                files: scan.files.len() as u64,
                bytes: scan.bytes,
            })
        });
        Ok(Foreseen {
            reads: reads.collect(),
            sample_due,
        })
    }

    /// The dates of a mart: all dates with rows in some input. The dates to build are the `known` ones among
    /// them, or `every` date.
    pub fn dates(&self, mart: &Mart, known: &BTreeSet<NaiveDate>, every: bool) -> MartDates {
        let files = mart.reach.keys();
        let files = files.flat_map(|input| self.snapshot.files(input));
        let all: BTreeSet<_> = files.filter_map(|(file, _)| file.date()).collect();
        let build = match every {
            true => all.clone(),
            false => all.intersection(known).copied().collect(),
        };
        MartDates { all, build }
    }

    /// The bytes of the data files and references that a date of a mart reads.
    pub fn bytes(&self, mart: &Mart) -> impl Fn(NaiveDate) -> u64 + use<> {
        let mut inputs = Vec::new();
        for input in &mart.inputs {
            let mut bytes: BTreeMap<Option<NaiveDate>, u64> = BTreeMap::new();
            for (file, _) in self.snapshot.files(input) {
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
    ) -> Result<Arc<dyn TableProvider>, RunError> {
        let table = match self.looked.references.get(name) {
            Some(reference) => reference.table(name),
            None => self
                .snapshot
                .table(self.snapshot.definition(name)?, in_reach),
        };
        table.map_err(|error| RunError::Mart(MartError::running(mart, &error)))
    }
}
