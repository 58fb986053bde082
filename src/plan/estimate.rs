//! What a plan will cost: data files and requests.
//!
//! ```text
//! steps of each source ──▶ raw objects, data files read and written ─┐
//! dates of each mart ────▶ data files read and written ──────────────┼──▶ Estimate
//! the log ───────────────▶ what every run asks for ──────────────────┘
//! ```
//!
//! The log and the listing tell most of it. Late events, chains that reach other partitions, and dates of a mart
//! that come to have no rows are known only when the run is done.

use std::collections::BTreeSet;

use chrono::NaiveDate;

use super::source::Planned;
use super::{Estimate, MartPlan, PartitionPlan, Requests, RunPlan, SourcePlan, WholeEstimate};
use crate::ledger::{self, SourceState, State};
use crate::mart::Mart;

/// Objects of one page of a listing.
const PAGE: u64 = 1_000;
/// A data file up to this size is read by one request.
const ONE_READ: u64 = 64 << 10;
/// Requests that read a larger data file: its footer and some of its columns.
const LARGE_READS: u64 = 3;
/// Listings of every run: checkpoints when the lake is opened and when it is done, and what is staged.
const LISTINGS: u64 = 3;
/// Requests of the probe of a new lake.
const PROBE: Requests = Requests {
    list: 0,
    get: 1,
    put: 5,
};

/// Requests that read so many data files of so many bytes.
const fn reads(files: u64, bytes: u64) -> u64 {
    match bytes > files * ONE_READ {
        true => files * LARGE_READS,
        false => files,
    }
}

impl Requests {
    fn add(&mut self, other: &Self) {
        self.list += other.list;
        self.get += other.get;
        self.put += other.put;
    }

    /// Each file is looked for, staged and published; each commit is a record and a marker.
    const fn of_commits(files: u64, commits: u64) -> Self {
        Self {
            list: 0,
            get: files,
            put: 2 * files + 2 * commits,
        }
    }
}

impl Planned<'_> {
    /// What the steps of a source will cost.
    pub(super) fn estimate(&self, known: Option<&SourceState>, plan: &SourcePlan) -> Estimate {
        let all = |of: fn(&PartitionPlan) -> u64| plan.partitions.iter().map(of).sum::<u64>();
        let raw_objects: u64 = plan.steps.iter().map(|step| step.objects).sum();
        let raw_bytes: u64 = plan.steps.iter().map(|step| step.bytes).sum();
        let (stored_rows, stored_bytes) = (all(|p| p.stored_rows), all(|p| p.stored_bytes));
        let files = super::event_files(self.listed.source, self.state);
        let (rows, bytes) = files.fold((0, 0), |(rows, bytes), file| {
            (rows + file.entry.rows, bytes + file.entry.bytes)
        });
        let share = |of: u64, part: u64, whole: u64| {
            let part = u128::from(of) * u128::from(part);
            u64::try_from(part.checked_div(u128::from(whole))?).ok()
        };
        let absorbed = plan.bytes - plan.new_bytes;
        let events = known.map_or(0, |known| known.balance.events.unsigned_abs());
        let rows_new = share(raw_bytes, events, absorbed);
        let bytes_new = rows_new.and_then(|new| share(new, bytes, rows));
        let rules = self.now.rules.len() as u64;
        // A new partition has a file of kept events and, where there are rules, one of duplicates.
        let new_files = 1 + u64::from(rules > 0);
        let partitions = plan.partitions.iter();
        let stored_files = all(|p| p.stored_files);
        let files: u64 = partitions
            .map(|p| {
                p.stored_files
                    .max(u64::from(p.stored_files == 0) * new_files)
            })
            .sum();
        let anew = plan.steps.iter().any(|step| step.anew);
        let decides_stored = plan
            .steps
            .iter()
            .any(|step| step.again.is_some() || !step.leaving.is_empty());
        // A stored file is looked into for each rule, and for events that leave or are decided again; then it is
        // read to be written anew.
        let times = match anew {
            true => 0,
            false => rules + u64::from(decides_stored) + 1,
        };
        let commits = plan.steps.len() as u64;
        let mut requests = Requests::of_commits(files, commits);
        requests.list += plan.objects.div_ceil(PAGE).max(1);
        requests.get += raw_objects + times * reads(stored_files, stored_bytes);
        Estimate {
            rows_read: stored_rows,
            bytes_read: raw_bytes + stored_bytes,
            rows_written: rows_new.map(|new| stored_rows + new),
            bytes_written: bytes_new.map(|new| stored_bytes + new),
            files_written: files,
            requests,
        }
    }
}

/// What a whole run will cost. `marts` are in the order of their plans.
pub(super) fn whole(plan: &RunPlan, state: &State, marts: &[Mart]) -> WholeEstimate {
    let mut files_written = 0;
    let mut requests = Requests {
        list: LISTINGS,
        get: 1 + ledger::requests_to_open(state),
        put: 0,
    };
    if state.last == 0 {
        requests.add(&PROBE);
    }
    for source in &plan.sources {
        match &source.estimate {
            Some(estimate) => {
                files_written += estimate.files_written;
                requests.add(&estimate.requests);
            }
            None => requests.list += source.objects.div_ceil(PAGE).max(1),
        }
    }
    let mut built = 0;
    for (mart, planned) in marts.iter().zip(&plan.marts) {
        if planned.why.is_none() {
            continue;
        }
        let (files, reads) = mart_files(mart, planned, plan, state);
        built += files;
        requests.get += reads;
    }
    if built > 0 {
        files_written += built;
        requests.add(&Requests::of_commits(built, 1));
        // The staged files of marts are read back to be published.
        requests.get += built;
    }
    WholeEstimate {
        files_written,
        requests,
    }
}

/// The data files that a mart will write, and the requests that read its input.
fn mart_files(mart: &Mart, planned: &MartPlan, plan: &RunPlan, state: &State) -> (u64, u64) {
    let Some(dates) = &planned.dates else {
        let stored = state.table(&mart.name).filter(|file| file.entry.rows > 0);
        let reads = mart.inputs.iter().map(|input| {
            let read = in_lake(input, plan, state);
            read.len() as u64
        });
        return ((stored.count() as u64).max(1), reads.sum());
    };
    let mut reads = 0;
    for input in &mart.inputs {
        let there = in_lake(input, plan, state);
        reads += match mart.reach.get(input) {
            None => there.len() * dates.len(),
            Some(reach) => {
                let held =
                    |date: &NaiveDate| there.iter().filter(|dt| reach.holds(*date, **dt)).count();
                dates.iter().map(held).sum()
            }
        } as u64;
    }
    // Each date has as many files as the dates that the mart has.
    let stored = state.table(&mart.name).filter(|file| file.entry.rows > 0);
    let stored: Vec<Option<NaiveDate>> = stored.map(|file| file.entry.date()).collect();
    let of_dates: BTreeSet<&Option<NaiveDate>> = stored.iter().collect();
    let each = match of_dates.len() {
        0 => 1,
        with_rows => (stored.len() / with_rows).max(1),
    };
    ((dates.len() * each) as u64, reads)
}

/// The dates of the files of a table that a mart reads from the lake. Files that the run itself publishes for a
/// source are read from local disk; those that it stages for a mart are read from the lake.
fn in_lake(table: &str, plan: &RunPlan, state: &State) -> Vec<Option<NaiveDate>> {
    let of_source = |source: &&SourcePlan| {
        let name = source.source.as_str();
        table
            .strip_prefix(name)
            .is_some_and(|rest| ["", "_duplicates", "_rejects"].contains(&rest))
    };
    let here: BTreeSet<NaiveDate> = match plan.sources.iter().find(of_source) {
        Some(source) => source
            .partitions
            .iter()
            .map(|partition| partition.date)
            .collect(),
        None => BTreeSet::new(),
    };
    let files = state.table(table).filter(|file| file.entry.rows > 0);
    let dates: BTreeSet<Option<NaiveDate>> = files.map(|file| file.entry.date()).collect();
    let of_mart = plan.marts.iter().find(|planned| planned.mart == table);
    let to_come = of_mart
        .and_then(|planned| planned.dates.as_ref())
        .into_iter()
        .flatten();
    let mut there: BTreeSet<Option<NaiveDate>> = dates;
    there.extend(to_come.map(|date| Some(*date)));
    there.retain(|date| date.is_none_or(|date| !here.contains(&date)));
    there.into_iter().collect()
}
