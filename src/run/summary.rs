//! The summary of a run.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use serde::Serialize;

use super::fresh::Silence;
use super::look::{ListedSource, Looked};
use super::tell::CatalogSummary;
use crate::absorb::{Absorbed, Incomplete, Noticed, NullColumn, ValueCounts, WhySlice};
use crate::event::Reason;
use crate::lake::{Committed, Lake, Writing};
use crate::layout;
use crate::ledger::{Balance, ObjectEntry, Rebuilt, State};
use crate::mart::{Broken, Claim, MartError, Severity};
use crate::plan::{self, RunPlan, SourcePlan, Why};
use crate::publish::Local;

/// The summary of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunSummary {
    /// Whether anything was done. The document says so in the light of the marts.
    #[serde(skip)]
    pub outcome: RunOutcome,
    /// The last commit of the lake; 0 before the first.
    pub commit: u64,
    /// The commit of an earlier run that this run has published.
    pub rolled_forward: Option<u64>,
    /// The root of the lake.
    pub lake: String,
    /// The sources by name.
    pub sources: BTreeMap<String, SourceSummary>,
    /// The marts, in the order in which they are built.
    pub marts: Vec<MartSummary>,
    /// What the catalog was told; `None` without a catalog.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalog: Option<CatalogSummary>,
    /// The number of published data files.
    pub files: u64,
    /// Marts that the log has, and whose SQL files are gone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gone_marts: Vec<String>,
    /// The sources of which no raw object has arrived for longer than they, or marts above them, allow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub silences: Vec<Silence>,
    /// Data files without rows that were removed, because they lay at places of an earlier partitioning.
    #[serde(skip_serializing_if = "is_zero")]
    pub removed: u64,
    /// The bytes of raw objects and data files that were read.
    pub bytes_read: u64,
    /// The bytes of data files that were written.
    pub bytes_written: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Whether a run did anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunOutcome {
    /// Sources or marts have changed, or an earlier commit was published.
    Done,
    /// There was nothing to do.
    NothingNew,
}

/// The state of a source after the run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SourceSummary {
    /// Whether a rebuild was asked for and had something to do.
    pub rebuilt: bool,
    /// What the rebuild covers that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebuild: Option<Rebuilt>,
    /// Raw objects that this run dropped for good.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
    /// The changes of the counts by this run. They are negative where raw objects were replaced or given up.
    pub added: Added,
    /// The number of raw objects that are absorbed.
    pub objects: u64,
    /// The number of raw objects that were new to this run.
    pub new_objects: u64,
    /// The number of records in all absorbed raw objects, from this run and earlier runs.
    pub records: u64,
    /// The number of events.
    pub events: u64,
    /// The number of kept events.
    pub kept: u64,
    /// The number of duplicates by rule.
    pub duplicates: BTreeMap<String, i64>,
    /// The number of rejects by reason.
    pub rejects: BTreeMap<Reason, i64>,
    /// The number of keys that were not read, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// The number of values that this run made null, converted or did not reach, by column.
    #[serde(flatten)]
    pub values: ValueCounts,
    /// The number of envelopes without a record that this run read, by kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub empty: BTreeMap<&'static str, u64>,
    /// The columns that are null in every event that this run read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub null_columns: Vec<NullColumn>,
    /// The rules that found no key in any event that this run read, because columns are null.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keyless_rules: Vec<String>,
    /// The columns that were added after published dates, with the number of dates on which they are null.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unfilled: BTreeMap<String, u64>,
    /// The raw objects of this run that lost bytes, ended before their end, or have no event.
    #[serde(skip_serializing_if = "Incomplete::is_empty")]
    pub incomplete: Incomplete,
    /// The number of slices that this run has changed, by the reason of the change.
    pub slices: BTreeMap<WhySlice, u64>,
    /// The partitions of kept events.
    pub partitions: Vec<String>,
}

/// The changes of a source by a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Added {
    /// The number of raw objects that were read.
    pub objects: u64,
    /// The changes of the counts.
    #[serde(flatten)]
    pub counts: Balance,
}

/// The state of a mart after the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MartSummary {
    /// The name of the mart.
    pub name: String,
    /// The number of its rows.
    pub rows: u64,
    /// The number of dates that were built, for a mart by date.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dates: Option<u64>,
    /// Its partitions with rows, where it was built and has so many that readers are slow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub many_partitions: Option<u64>,
    /// The dates of rows that the SELECT gave and that were left out, because no input of the mart has this
    /// date.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub left_out: BTreeSet<NaiveDate>,
    /// The result of the comparison of sample dates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<Sample>,
    /// What is worth knowing about its SQL, where it was built of a new SQL.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What became of the claims about its rows, where it was built and claims something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checks: Option<CheckSummary>,
    /// The person or team that answers for the mart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The dashboard that the mart is made for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dashboard: Option<String>,
    /// The result of the run for the mart.
    #[serde(flatten)]
    pub outcome: MartOutcome,
}

/// What became of the claims about the rows of a mart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CheckSummary {
    /// How many claims were checked.
    pub ran: u64,
    /// The claims that do not hold, in the order of the file.
    pub failed: Vec<FailedCheck>,
}

/// A claim that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedCheck {
    /// The claim as the header says it, or the name of its file.
    pub check: String,
    /// The file that makes the claim.
    pub file: String,
    /// The line of the claim, where it is a line of a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Whether the mart was published all the same.
    pub severity: Severity,
    /// The number of rows that break the claim.
    pub rows: u64,
    /// The columns of these rows.
    pub columns: Vec<String>,
    /// The first of the rows, as text; null is NULL.
    pub sample: Vec<Vec<Option<String>>>,
    /// The SELECT that finds the rows.
    pub query: String,
    /// The sentence that tells of it.
    #[serde(skip)]
    pub error: String,
}

impl CheckSummary {
    /// Notes the result of a claim: the rows that break it.
    pub fn note(&mut self, claim: &Claim, broken: Option<Broken>) {
        self.ran += 1;
        let Some(broken) = broken else { return };
        self.failed.push(FailedCheck {
            error: MartError::broken(claim, &broken).to_string(),
            check: claim.name.clone(),
            file: claim.file(),
            line: claim.line,
            severity: claim.severity,
            rows: broken.rows,
            columns: broken.columns,
            sample: broken.sample,
            query: claim.sql.trim().to_owned(),
        });
    }

    /// Why the mart is not published, if a claim keeps it from that.
    pub fn error(&self) -> Option<String> {
        let failed = self.failed.iter();
        let failed = failed.filter(|check| check.severity == Severity::Error);
        let errors: Vec<&str> = failed.map(|check| check.error.as_str()).collect();
        (!errors.is_empty()).then(|| errors.join("; "))
    }
}

/// The result of the comparison of sample dates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// The dates that have the same rows among others, with the number of days on either side.
    pub same: BTreeMap<NaiveDate, u32>,
    /// The dates that were not compared, and the reason.
    pub not_compared: BTreeMap<NaiveDate, String>,
    /// Fewer than three dates have other dates around them so far. The next build compares again.
    pub too_few: bool,
}

/// The result of a run for a mart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
#[expect(
    missing_docs,
    reason = "the words of each value say what its fields are"
)]
pub enum MartOutcome {
    /// The mart was built.
    Built,
    /// The mart is up to date, and was not built.
    Fresh,
    Failed {
        error: String,
    },
    Skipped {
        because: String,
    },
}

/// Makes the summary of a run. `rolled_forward` is the commit of an earlier run that this run has published.
pub fn summary(
    lake: &Lake<Writing>,
    looked: &Looked<'_>,
    plan: &RunPlan,
    rolled_forward: Option<u64>,
    marts: Vec<MartSummary>,
    totals: Totals,
) -> RunSummary {
    let state = lake.state();
    let built = marts.iter().any(|mart| mart.outcome != MartOutcome::Fresh);
    let rebuilt = plan.sources.iter().any(|source| source.why.is_some());
    let nothing = !built && !rebuilt && rolled_forward.is_none() && totals.removed == 0;
    RunSummary {
        outcome: if nothing {
            RunOutcome::NothingNew
        } else {
            RunOutcome::Done
        },
        commit: state.last,
        rolled_forward,
        lake: lake.root().to_owned(),
        sources: plan
            .sources
            .iter()
            .zip(&looked.sources)
            .map(|(source, listed)| {
                (
                    source.source.clone(),
                    source_summary(source, listed, state, &totals),
                )
            })
            .collect(),
        marts,
        catalog: None,
        files: totals.files,
        gone_marts: looked.gone_marts(state),
        silences: Vec::new(),
        removed: totals.removed,
        bytes_read: totals.bytes_read,
        bytes_written: totals.bytes_written,
    }
}

fn source_summary(
    plan: &SourcePlan,
    listed: &ListedSource<'_>,
    state: &State,
    totals: &Totals,
) -> SourceSummary {
    let source = listed.source;
    let known = state.sources.get(&plan.source).cloned().unwrap_or_default();
    let partitions: BTreeSet<String> = state
        .table(&plan.source)
        .filter(|file| file.entry.rows > 0)
        .map(|file| layout::partition_folder(&file.entry.partition))
        .collect();
    let settings = known.settings.as_ref();
    let unfilled = settings.and_then(|settings| settings.unfilled.as_ref());
    let total = totals.sources.get(&plan.source);
    let total = total.cloned().unwrap_or_default();
    SourceSummary {
        rebuilt: plan.why == Some(Why::Rebuild) && total.committed,
        rebuild: plan.rebuilt,
        dropped: match plan.why {
            Some(Why::Drop) => {
                let leaving = plan.steps.iter().flat_map(|step| &step.leaving);
                leaving.cloned().collect()
            }
            _ => Vec::new(),
        },
        added: total.added,
        null_columns: total.noticed.null_columns(source),
        keyless_rules: total.noticed.keyless_rules(source, &listed.reads),
        unfilled: plan::null_dates(unfilled, &plan::published(source, state)),
        objects: known.objects.len() as u64,
        new_objects: plan.new_objects,
        records: known.balance.records.unsigned_abs(),
        events: known.balance.events.unsigned_abs(),
        kept: known.balance.kept.unsigned_abs(),
        duplicates: known.balance.duplicates,
        rejects: known.balance.rejects,
        skipped: plan
            .skipped
            .iter()
            .map(|(why, keys)| (*why, keys.len() as u64))
            .collect(),
        values: total.values,
        empty: total.empty,
        incomplete: total.incomplete,
        slices: total.slices,
        partitions: partitions.into_iter().collect(),
    }
}

/// The totals of a run so far.
#[derive(Debug, Default)]
pub struct Totals {
    files: u64,
    removed: u64,
    bytes_read: u64,
    bytes_written: u64,
    sources: BTreeMap<String, SourceTotals>,
}

/// The totals of one source in a run so far.
#[derive(Debug, Clone, Default)]
struct SourceTotals {
    committed: bool,
    added: Added,
    values: ValueCounts,
    empty: BTreeMap<&'static str, u64>,
    incomplete: Incomplete,
    slices: BTreeMap<WhySlice, u64>,
    noticed: Noticed,
}

impl Totals {
    /// Adds the result of absorbing a source, and gives back the parts that its commit holds.
    pub fn note(&mut self, source: &str, absorbed: Absorbed) -> (Vec<ObjectEntry>, Balance) {
        let Absorbed {
            objects,
            balance,
            values,
            empty,
            incomplete,
            stored_bytes,
            slices,
            noticed,
        } = absorbed;
        self.bytes_read += stored_bytes;
        self.bytes_read += objects.iter().map(|object| object.size).sum::<u64>();
        let total = self.sources.entry(source.to_owned()).or_default();
        total.added.objects += objects.len() as u64;
        total.added.counts.add(&balance);
        total.values.add(values);
        for (kind, count) in empty {
            *total.empty.entry(kind).or_default() += count;
        }
        total.incomplete.append(incomplete);
        for (why, count) in slices {
            *total.slices.entry(why).or_default() += count;
        }
        total.noticed.add(noticed);
        (objects, balance)
    }

    /// So many data files are removed.
    pub fn note_removed(&mut self, files: usize) {
        self.removed += files as u64;
    }

    /// Notes that these sources are in a commit.
    pub fn note_committed<'a>(&mut self, sources: impl Iterator<Item = &'a String>) {
        for name in sources {
            self.sources.entry(name.clone()).or_default().committed = true;
        }
    }

    /// Adds the files of a commit, and gives back the files that still lie on local disk.
    pub fn note_commit(&mut self, committed: Committed) -> Local {
        self.files += committed.files;
        self.bytes_written += committed.bytes;
        committed.local
    }
}
