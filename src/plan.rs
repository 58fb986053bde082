//! What will be done: a pure value that `plan` prints and `run` executes.
//!
//! ```text
//! Job ─────────┐
//! Discovered ──┤
//! State ───────┼──▶ RunPlan ──▶ printed │ executed
//! mart graph ──┘
//! ```

mod marts;
mod settings;

pub use marts::{Marts, Moved, plan_marts, version};

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use serde::Serialize;

use crate::config::{Job, OnChangedObject, Source};
use crate::event::EXTRA;
use crate::layout;
use crate::ledger::{Dates, ObjectEntry, Settings, SourceState, State};
use crate::raw::{Discovered, Found};
use crate::time::TimeUnit;
use settings::{Needs, is_in_extra, ranges};

/// What one commit may hold at most. A long catch-up is published bit by bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitLimits {
    /// Raw objects: the record in the log stays small enough to be read at once.
    pub objects: usize,
    /// Stored bytes read, of raw objects or of data files: what is spilled fits a disk of moderate
    /// size.
    pub bytes: u64,
}

impl CommitLimits {
    /// For a job of so many bytes of memory.
    pub const fn new(memory: u64) -> Self {
        Self {
            objects: 10_000,
            bytes: memory.saturating_mul(8),
        }
    }
}

/// What a run will do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunPlan {
    /// A commit that an earlier run made and did not publish.
    pub roll_forward: Option<u64>,
    pub sources: Vec<SourcePlan>,
    pub marts: Vec<MartPlan>,
}

/// What will be done for one source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourcePlan {
    pub source: String,
    /// Why its tables change; `None` when nothing is to be done.
    pub why: Option<Why>,
    /// Raw objects listed, and their bytes.
    pub objects: u64,
    pub bytes: u64,
    /// Of these, not yet absorbed.
    pub new_objects: u64,
    pub new_bytes: u64,
    /// Keys that hold no events, by why.
    pub skipped: BTreeMap<&'static str, Vec<String>>,
    /// Absorbed raw objects whose content is another now.
    pub changed: Vec<String>,
    /// Absorbed raw objects that are not listed any more.
    pub vanished: Vec<String>,
    /// Columns that came after published dates, with the number of dates on which they are null: `extra`
    /// keeps their values until a rebuild.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unfilled: BTreeMap<String, u64>,
    /// Why it cannot be done.
    pub refused: Option<Refusal>,
    /// One a commit, in order.
    pub steps: Vec<Step>,
    /// The partitions that will change, as far as this is known before raw objects are read: where
    /// events are late, or rules reach, only their times tell.
    pub partitions: Vec<PartitionPlan>,
    /// What the steps will cost; `None` when there are none.
    pub estimate: Option<Estimate>,
    /// What the log holds of the source's settings after the last step, where that changes.
    #[serde(skip)]
    pub settings: Option<Settings>,
    /// What it holds until then: a rebuild is done when all of it is.
    #[serde(skip)]
    pub meanwhile: Option<Settings>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    First,
    NewObjects,
    /// Absorbed raw objects have other content now, and it is to take the place of the earlier.
    ChangedObjects,
    /// Absorbed raw objects were written again with the same content.
    NewEtags,
    Rebuild,
}

/// One commit's worth of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Raw objects to read and their bytes.
    pub objects: u64,
    pub bytes: u64,
    /// Their indexes in the listing.
    #[serde(skip)]
    pub read: Vec<usize>,
    /// Absorbed raw objects whose events are taken out.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub leaving: BTreeSet<String>,
    /// Event dates that are decided again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub again: Option<Dates>,
    /// Columns that came after events of these dates, and are taken out of their `extra`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub fill: BTreeSet<String>,
    /// The tables are made of these objects alone, whatever is stored.
    pub anew: bool,
}

/// What steps will cost, by what the log knows of what was absorbed so far. Late events and chains that
/// reach other partitions add to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// Of the data files that are made anew.
    pub rows_read: u64,
    /// Of these, and of raw objects.
    pub bytes_read: u64,
    /// Not known before anything was absorbed.
    pub rows_written: Option<u64>,
    pub bytes_written: Option<u64>,
    pub requests: Requests,
}

/// Requests to a bucket; on disk as many operations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Requests {
    pub list: u64,
    pub get: u64,
    pub put: u64,
}

/// A partition of a source that will change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionPlan {
    /// Its folder, and the date in it.
    pub partition: String,
    #[serde(skip)]
    pub date: NaiveDate,
    pub why: WhyPartition,
    /// Raw objects that arrived in its time, and their bytes.
    pub objects: u64,
    pub bytes: u64,
    /// Its data files, which are read and written anew; their rows and bytes.
    pub stored_files: u64,
    pub stored_rows: u64,
    pub stored_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyPartition {
    /// It is not there yet.
    NewEvents,
    /// It is published, and raw objects arrived in its time.
    MoreEvents,
    /// It holds events of raw objects that are taken out or replaced.
    ReplacedObjects,
    /// Its events are decided again.
    Rebuild,
}

/// What keeps a source from being changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "refused")]
pub enum Refusal {
    /// There are objects whose keys cannot be asked for; the first few of their URLs.
    Unreadable { count: usize, first: Vec<String> },
    /// Absorbed raw objects have other content now.
    Changed { count: usize, first: String },
    /// Absorbed raw objects that are needed are gone.
    Vanished { count: usize, first: String },
    /// The settings are not those of the tables.
    Settings {
        reasons: String,
        /// The flags of `rebuild` that put it right.
        rebuild: String,
        partitions: usize,
        /// Bytes that it would read, and of what.
        bytes: u64,
        from_raw: bool,
    },
    /// A rebuild of some dates is asked for, and only one of all will do.
    OnlyWhole { reasons: String },
}

/// What a rebuild is asked to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rebuild {
    /// Event dates; all of them without.
    pub dates: Option<Dates>,
    /// Read them from raw, even where only rules changed.
    pub raw: bool,
    /// Give up events whose raw objects are gone.
    pub forget_missing: bool,
}

/// Whether and why a mart will be built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MartPlan {
    pub mart: String,
    /// `None` when it is fresh.
    pub why: Option<WhyMart>,
    /// The dates to build, of a mart by date that is not fresh: all that are known before what it reads
    /// is there, of which some may come to have no rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dates: Option<BTreeSet<NaiveDate>>,
    /// Every date that it has is to be built, known or not.
    #[serde(skip)]
    pub every_date: bool,
    /// What it would read of the tables as they are; known where it was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<Reads>,
}

/// What a mart reads of one table, each time that its SELECT names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reads {
    pub table: String,
    pub columns: Vec<String>,
    /// Data files, of all that the table has with rows.
    pub files: u64,
    pub of_files: u64,
    /// Of these files, whole.
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyMart {
    First,
    SqlChanged,
    /// It was built by a version with another law of the SQL.
    LawChanged,
    /// What it reads has other columns, or has dates now or no longer, and that shows in it.
    FormChanged,
    /// The tables that changed or will.
    InputsChanged(Vec<String>),
    /// Files of it are to be made again.
    Lost,
}

impl RunPlan {
    /// Nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.roll_forward.is_none()
            && self.sources.iter().all(|source| source.why.is_none())
            && self.marts.iter().all(|mart| mart.why.is_none())
    }
}

impl SourcePlan {
    /// What of its tables will have changed, as far as it is known.
    fn moved(&self) -> Option<Moved> {
        self.why?;
        let dates = self.partitions.iter().map(|partition| partition.date);
        Some(Moved {
            all: self.steps.iter().any(|step| step.anew),
            dates: dates.collect(),
        })
    }
}

/// What a source is found to hold.
pub struct Listed<'a> {
    pub source: &'a Source,
    /// The columns that each of its rules reads.
    pub reads: &'a [BTreeSet<String>],
    pub found: &'a Discovered,
    /// Absorbed objects whose content is another now.
    pub changed: Vec<String>,
    pub on_changed: OnChangedObject,
    /// Absorbed objects that have a new ETag and the same content.
    pub renewed: usize,
    /// A part of the prefixes was not listed: what is not there may be there.
    pub partial: bool,
}

/// Plans a run, or a rebuild.
pub fn plan(
    job: &Job,
    limits: CommitLimits,
    listed: &[Listed<'_>],
    state: &State,
    marts: Marts<'_>,
    rebuild: Option<&Rebuild>,
) -> RunPlan {
    let mut moved: BTreeMap<String, Moved> = BTreeMap::new();
    let sources: Vec<SourcePlan> = listed
        .iter()
        .map(|listed| {
            let plan = plan_source(job, limits, listed, state, rebuild);
            if let Some(of_source) = plan.moved() {
                let tables = listed.source.tables().into_iter();
                moved.extend(tables.map(|table| (table, of_source.clone())));
            }
            plan
        })
        .collect();
    RunPlan {
        roll_forward: state.unpublished.as_ref().map(|commit| commit.number),
        sources,
        marts: plan_marts(marts, state, moved),
    }
}

fn plan_source(
    job: &Job,
    limits: CommitLimits,
    listed: &Listed<'_>,
    state: &State,
    rebuild: Option<&Rebuild>,
) -> SourcePlan {
    let found = listed.found;
    let known = state.sources.get(&listed.source.name);
    let is_known = |found: &Found| known.is_some_and(|k| k.objects.contains_key(&found.identity));
    let new: Vec<usize> = (0..found.objects.len())
        .filter(|i| found.objects.get(*i).is_some_and(|found| !is_known(found)))
        .collect();
    let size = |indexes: &[usize]| -> u64 {
        let found = indexes.iter().filter_map(|i| found.objects.get(*i));
        found.map(|found| found.size).sum()
    };
    let skipped = [
        ("hidden", &found.hidden),
        ("excluded", &found.excluded),
        ("folder_marker", &found.folder_markers),
        ("no_file", &found.no_files),
        ("link", &found.links),
    ];
    let mut plan = SourcePlan {
        source: listed.source.name.clone(),
        why: None,
        objects: found.objects.len() as u64,
        bytes: found.objects.iter().map(|found| found.size).sum(),
        new_objects: new.len() as u64,
        new_bytes: size(&new),
        skipped: skipped
            .into_iter()
            .filter(|(_, keys)| !keys.is_empty())
            .map(|(why, keys)| (why, keys.clone()))
            .collect(),
        changed: listed.changed.clone(),
        vanished: vanished(listed, known),
        unfilled: BTreeMap::new(),
        refused: None,
        steps: Vec::new(),
        partitions: Vec::new(),
        estimate: None,
        settings: None,
        meanwhile: None,
    };
    let now = settings(job, listed.source);
    let source = Planned {
        limits,
        listed,
        state,
        now: &now,
        new,
    };
    match (known, rebuild) {
        // They may hold events: without them the counts would balance and be wrong.
        (_, None) if !found.unreadable.is_empty() => {
            let first = found.unreadable.iter().take(UNREADABLE_NAMED);
            plan.refused = Some(Refusal::Unreadable {
                count: found.unreadable.len(),
                first: first.cloned().collect(),
            });
        }
        (None, None) => source.first(&mut plan),
        // Nothing of it is published yet: the next run makes it as it is configured.
        (None, Some(_)) => {}
        (Some(known), None) => source.run(known, &mut plan),
        (Some(known), Some(rebuild)) => source.rebuild(known, rebuild, &mut plan),
    }
    if plan.refused.is_some() {
        plan.steps.clear();
    }
    plan.partitions = source.partitions(known, &plan.steps);
    if !plan.steps.is_empty() {
        plan.estimate = Some(source.estimate(known, &plan));
    }
    plan
}

/// So many objects that cannot be read are named.
const UNREADABLE_NAMED: usize = 5;

fn vanished(listed: &Listed<'_>, known: Option<&SourceState>) -> Vec<String> {
    let (Some(known), false) = (known, listed.partial) else {
        return Vec::new();
    };
    // Both are in the order of their bytes.
    let mut listed = listed.found.objects.iter().map(|f| &*f.identity).peekable();
    known
        .objects
        .keys()
        .filter(|key| {
            while listed.next_if(|name| name < key).is_some() {}
            listed.peek() != Some(key)
        })
        .map(str::to_owned)
        .collect()
}

/// A source being planned.
struct Planned<'a> {
    limits: CommitLimits,
    listed: &'a Listed<'a>,
    state: &'a State,
    now: &'a Settings,
    /// Indexes of the objects that are not absorbed.
    new: Vec<usize>,
}

impl Planned<'_> {
    fn first(&self, plan: &mut SourcePlan) {
        if self.new.is_empty() {
            return;
        }
        plan.why = Some(Why::First);
        plan.settings = Some(self.now.clone());
        plan.steps = self.steps(&self.new, &BTreeSet::new());
    }

    fn run(&self, known: &SourceState, plan: &mut SourcePlan) {
        let replaces = self.listed.on_changed == OnChangedObject::Replace;
        let changed: BTreeSet<String> = match replaces {
            true => self.listed.changed.iter().cloned().collect(),
            false => BTreeSet::new(),
        };
        if let (OnChangedObject::Fail, Some(first)) =
            (self.listed.on_changed, self.listed.changed.first())
        {
            plan.refused = Some(Refusal::Changed {
                count: self.listed.changed.len(),
                first: first.clone(),
            });
            return;
        }
        // A prefix that lists nothing any more is more likely a wrong one.
        if let (0, Some(first)) = (plan.objects, plan.vanished.first()) {
            plan.refused = Some(Refusal::Vanished {
                count: plan.vanished.len(),
                first: first.clone(),
            });
            return;
        }
        let needs = self.needs(known);
        if !needs.is_empty() {
            plan.refused = Some(self.refusal(&needs));
            return;
        }
        plan.unfilled = null_dates(needs.unfilled.as_ref(), &self.published());
        let mut read = self.new.clone();
        read.extend(self.indexes(|found| changed.contains(&*found.identity)));
        read.sort_unstable();
        // Noted, so that the next run need not read them to compare.
        let renewing = self.listed.renewed.div_ceil(self.limits.objects);
        plan.why = match (read.is_empty(), changed.is_empty(), renewing) {
            (true, _, 0) => return,
            (true, _, _) => Some(Why::NewEtags),
            (false, true, _) => Some(Why::NewObjects),
            (false, false, _) => Some(Why::ChangedObjects),
        };
        plan.steps = self.steps(&read, &changed);
        let steps = plan.steps.len().max(renewing);
        plan.steps.resize(steps, Step::default());
        if !read.is_empty() {
            plan.settings = self.settings(known, &needs, None);
            plan.meanwhile.clone_from(&plan.settings);
        }
    }

    fn rebuild(&self, known: &SourceState, rebuild: &Rebuild, plan: &mut SourcePlan) {
        let needs = self.needs(known);
        let dates = rebuild.dates;
        if let (Some(_), false) = (dates, needs.whole.is_empty()) {
            plan.refused = Some(Refusal::OnlyWhole {
                reasons: needs.whole.join("; "),
            });
            return;
        }
        let concerned = |stale: &[Dates]| match dates {
            None => !stale.is_empty(),
            Some(dates) => stale
                .iter()
                .any(|s| s.from <= dates.to && dates.from <= s.to),
        };
        let unfilled = needs.unfilled.iter().flatten();
        let unfilled = unfilled.filter(|(_, null)| concerned(null));
        let unfilled: BTreeSet<&str> = unfilled.map(|(name, _)| name.as_str()).collect();
        let in_extra: BTreeSet<&str> = self.in_extra().collect();
        let from_raw = rebuild.raw
            || rebuild.forget_missing
            || !needs.whole.is_empty()
            || concerned(&needs.columns.0)
            || !unfilled.is_subset(&in_extra);
        plan.why = Some(Why::Rebuild);
        plan.settings = self.settings(known, &needs, Some((dates, from_raw)));
        plan.meanwhile = self.settings(known, &needs, None);
        if !from_raw {
            let fill = match needs.unfilled {
                Some(_) => unfilled,
                // Each of them may have come later.
                None => in_extra,
            };
            plan.steps = self.steps_again(dates, fill);
            return;
        }
        let held: BTreeSet<String> = known
            .objects
            .values()
            .filter(|object| self.may_hold(object, dates))
            .map(|object| object.key.clone())
            .collect();
        let lost: BTreeSet<&String> = plan
            .vanished
            .iter()
            .filter(|key| held.contains(*key))
            .collect();
        let elsewhere = |stale: &Dates| {
            dates.is_some_and(|dates| stale.from < dates.from || dates.to < stale.to)
        };
        if rebuild.forget_missing {
            // An event that stays as other rules decided it could name one that is given up.
            if !lost.is_empty() && needs.rules.0.iter().any(elsewhere) {
                plan.refused = Some(Refusal::OnlyWhole {
                    reasons: format!("{}, and raw objects are given up", needs.rules.1.join("; ")),
                });
                return;
            }
        } else {
            let first =
                |keys: Vec<&String>| keys.first().map(|first| (keys.len(), (*first).clone()));
            if let Some((count, first)) = first(lost.iter().copied().collect()) {
                plan.refused = Some(Refusal::Vanished { count, first });
                return;
            }
            let changed = self.listed.changed.iter().filter(|key| held.contains(*key));
            if let Some((count, first)) = first(changed.collect())
                && self.listed.on_changed != OnChangedObject::Replace
            {
                plan.refused = Some(Refusal::Changed { count, first });
                return;
            }
        }
        let anew = !needs.whole.is_empty();
        let read = self.indexes(|found| held.contains(&*found.identity));
        if anew {
            plan.steps = self.steps_anew(&read);
            return;
        }
        plan.steps = self.steps(&read, &held);
        if plan.steps.is_empty() {
            plan.steps.push(Step::default());
        }
        if let Some(step) = plan.steps.first_mut() {
            step.leaving.extend(lost.into_iter().cloned());
        }
        if dates.is_none() {
            // Every event is read anew, and so decided.
            return;
        }
        // Events next to these dates are of other objects.
        let mut again = self.steps_again(dates, BTreeSet::new());
        match (plan.steps.as_mut_slice(), again.as_slice()) {
            ([step], [only]) => step.again = only.again,
            _ => plan.steps.append(&mut again),
        }
    }

    /// What has to be rebuilt before anything is added.
    fn needs(&self, known: &SourceState) -> Needs {
        match &known.settings {
            Some(settings) => Needs::new(settings, self.now, &self.published(), self.listed.reads),
            None => Needs {
                whole: vec!["the log does not say how its tables were made".to_owned()],
                ..Needs::default()
            },
        }
    }

    /// The columns that a rebuild can take out of the `extra` of stored events.
    fn in_extra(&self) -> impl Iterator<Item = &str> {
        // Such a rule has other keys after that.
        let is_key = self.listed.reads.iter().any(|reads| reads.contains(EXTRA));
        let decode = &self.now.decode;
        let columns = decode.columns.iter().filter(move |_| !is_key);
        let columns = columns.filter(|column| is_in_extra(column, decode));
        columns.map(|column| column.name.as_str())
    }

    fn refusal(&self, needs: &Needs) -> Refusal {
        let name = &self.listed.source.name;
        let from_raw = !needs.whole.is_empty() || !needs.columns.0.is_empty();
        let stale: Vec<Dates> = match needs.whole.is_empty() {
            false => Vec::new(),
            true => needs
                .columns
                .0
                .iter()
                .chain(&needs.rules.0)
                .copied()
                .collect(),
        };
        let from = stale.iter().map(|dates| dates.from).min();
        let to = stale.iter().map(|dates| dates.to).max();
        let of_dates = |date: NaiveDate| stale.is_empty() || stale.iter().any(|d| d.holds(date));
        let partitions = self
            .published()
            .into_iter()
            .filter(|date| of_dates(*date))
            .count();
        let [kept, duplicates, _] = self.listed.source.tables();
        let files = self.state.table(&kept).chain(self.state.table(&duplicates));
        let dates = from.zip(to).map(|(from, to)| Dates { from, to });
        let known = self.state.sources.get(name);
        let held = |found: &&Found| {
            let object = known.and_then(|known| known.objects.get(&found.identity));
            object.is_some_and(|object| self.may_hold(&object, dates))
        };
        let found = self.listed.found.objects.iter();
        let bytes = match from_raw {
            true => found.filter(held).map(|found| found.size).sum(),
            false => files
                .filter(|file| file.entry.date().is_some_and(of_dates))
                .map(|file| file.entry.bytes)
                .sum(),
        };
        Refusal::Settings {
            reasons: needs.reasons(),
            rebuild: match (from, to) {
                (Some(from), Some(to)) => format!("--source {name} --from {from} --to {to}"),
                _ => format!("--source {name}"),
            },
            partitions,
            bytes,
            from_raw,
        }
    }

    /// The settings that the log is to hold, where they are not those it has. `rebuilt` says which
    /// dates (all without) were rebuilt, and whether from raw.
    fn settings(
        &self,
        known: &SourceState,
        needs: &Needs,
        rebuilt: Option<(Option<Dates>, bool)>,
    ) -> Option<Settings> {
        let published = self.published();
        let left = |stale: &[Dates], done: bool| match rebuilt {
            Some((None, _)) if done => Vec::new(),
            Some((Some(dates), _)) if done => {
                let dates = published
                    .iter()
                    .filter(|date| stale.iter().any(|s| s.holds(**date)) && !dates.holds(**date));
                ranges(dates.copied(), &published)
            }
            _ => stale.to_vec(),
        };
        let from_raw = rebuilt.is_some_and(|(_, from_raw)| from_raw);
        let unfilled = match (&needs.unfilled, rebuilt) {
            (_, Some((None, _))) => Some(BTreeMap::new()),
            (None, _) => None,
            (Some(unfilled), _) => {
                let left = unfilled
                    .iter()
                    .map(|(name, null)| (name.clone(), left(null, true)));
                Some(left.filter(|(_, null)| !null.is_empty()).collect())
            }
        };
        let settings = Settings {
            stale_rules: left(&needs.rules.0, true),
            stale_columns: left(&needs.columns.0, from_raw),
            unfilled,
            ..self.now.clone()
        };
        (known.settings.as_ref() != Some(&settings)).then_some(settings)
    }

    fn published(&self) -> Vec<NaiveDate> {
        published(self.listed.source, self.state)
    }

    /// Whether a raw object may hold events of these dates: a reject may be of any date.
    fn may_hold(&self, object: &ObjectEntry, dates: Option<Dates>) -> bool {
        let Some(dates) = dates else { return true };
        let (first, last) = self
            .now
            .slicing
            .times(dates.from, dates.to, self.now.decode.unit);
        let unknown = object.times.is_none() && object.events > 0;
        let meets = object
            .times
            .is_some_and(|(from, to)| from <= last && first <= to);
        unknown || meets || !object.rejects.is_empty()
    }

    /// The partitions that the steps will change, as far as the log and the names of objects tell.
    fn partitions(&self, known: Option<&SourceState>, steps: &[Step]) -> Vec<PartitionPlan> {
        struct Stored {
            files: u64,
            rows: u64,
            bytes: u64,
            date: NaiveDate,
            span: (i64, i64),
        }
        let mut stored: BTreeMap<String, Stored> = BTreeMap::new();
        let [kept, duplicates, _] = self.listed.source.tables();
        for file in self.state.table(&kept).chain(self.state.table(&duplicates)) {
            let (Some(times), Some(date)) = (file.entry.times, file.entry.date()) else {
                continue;
            };
            let partition = layout::partition_folder(&file.entry.partition);
            let stored = stored.entry(partition).or_insert(Stored {
                files: 0,
                rows: 0,
                bytes: 0,
                date,
                span: times,
            });
            stored.files += 1;
            stored.rows += file.entry.rows;
            stored.bytes += file.entry.bytes;
            stored.span = (stored.span.0.min(times.0), stored.span.1.max(times.1));
        }
        let mut plans: BTreeMap<String, PartitionPlan> = BTreeMap::new();
        let mut plan = |partition: &str, date, why: WhyPartition, raw_bytes: Option<u64>| {
            let of_stored = |of: fn(&Stored) -> u64| stored.get(partition).map_or(0, of);
            let plan = plans.entry(partition.to_owned()).or_insert(PartitionPlan {
                partition: partition.to_owned(),
                date,
                why,
                objects: 0,
                bytes: 0,
                stored_files: of_stored(|stored| stored.files),
                stored_rows: of_stored(|stored| stored.rows),
                stored_bytes: of_stored(|stored| stored.bytes),
            });
            plan.objects += u64::from(raw_bytes.is_some());
            plan.bytes += raw_bytes.unwrap_or(0);
        };
        for step in steps {
            let leaving = step
                .leaving
                .iter()
                .filter_map(|key| known?.objects.get(key));
            for (first, last) in leaving.filter_map(|object| object.times) {
                for (partition, Stored { span, date, .. }) in &stored {
                    if span.0 <= last && first <= span.1 {
                        plan(partition, *date, WhyPartition::ReplacedObjects, None);
                    }
                }
            }
            for (partition, Stored { date, .. }) in &stored {
                if step.anew || step.again.is_some_and(|dates| dates.holds(*date)) {
                    plan(partition, *date, WhyPartition::Rebuild, None);
                }
            }
            let read = step
                .read
                .iter()
                .filter_map(|i| self.listed.found.objects.get(*i));
            for found in read.filter(|found| !step.leaving.contains(&*found.identity)) {
                // The arrival is the end of the span that a key names.
                let (place, ..) = self.now.slicing.place(found.arrival_ms - 1, TimeUnit::Ms);
                let partition = layout::partition_folder(&place.partition());
                let why = match stored.contains_key(&partition) {
                    true => WhyPartition::MoreEvents,
                    false => WhyPartition::NewEvents,
                };
                plan(&partition, place.date, why, Some(found.size));
            }
        }
        plans.into_values().collect()
    }

    fn estimate(&self, known: Option<&SourceState>, plan: &SourcePlan) -> Estimate {
        /// A page of a listing.
        const PAGE: u64 = 1_000;
        /// A data file is looked into for its footer and for narrow columns, and then read whole.
        const READS_OF_STORED: u64 = 3;
        let all = |of: fn(&PartitionPlan) -> u64| plan.partitions.iter().map(of).sum::<u64>();
        let raw_objects: u64 = plan.steps.iter().map(|step| step.objects).sum();
        let raw_bytes: u64 = plan.steps.iter().map(|step| step.bytes).sum();
        let (stored_rows, stored_bytes) = (all(|p| p.stored_rows), all(|p| p.stored_bytes));
        let [kept, duplicates, _] = self.listed.source.tables();
        let files = self.state.table(&kept).chain(self.state.table(&duplicates));
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
        // Of a partition that is new, one file.
        let files = all(|p| p.stored_files.max(1));
        let steps = plan.steps.len() as u64;
        Estimate {
            rows_read: stored_rows,
            bytes_read: raw_bytes + stored_bytes,
            rows_written: rows_new.map(|new| stored_rows + new),
            bytes_written: bytes_new.map(|new| stored_bytes + new),
            requests: Requests {
                list: plan.objects.div_ceil(PAGE).max(1),
                // What is staged is read once more to be published.
                get: raw_objects + READS_OF_STORED * all(|p| p.stored_files) + files,
                put: 2 * files + 2 * steps,
            },
        }
    }

    fn indexes(&self, which: impl Fn(&Found) -> bool) -> Vec<usize> {
        let objects = self.listed.found.objects.iter().enumerate();
        objects
            .filter(|(_, found)| which(found))
            .map(|(i, _)| i)
            .collect()
    }

    fn step(&self, read: &[usize]) -> Step {
        let found = read
            .iter()
            .filter_map(|i| self.listed.found.objects.get(*i));
        Step {
            objects: read.len() as u64,
            bytes: found.map(|found| found.size).sum(),
            read: read.to_vec(),
            ..Step::default()
        }
    }

    /// Makes all tables of these objects alone, whatever is stored: where rows move to other files, or
    /// types differ. More than one commit may hold are added by further ones.
    fn steps_anew(&self, read: &[usize]) -> Vec<Step> {
        let mut steps = self.steps(read, &BTreeSet::new());
        if steps.is_empty() {
            steps.push(Step::default());
        }
        if let Some(step) = steps.first_mut() {
            step.anew = true;
        }
        steps
    }

    /// Cuts event dates that are decided again into commits; there, the columns of `fill` are taken out of
    /// `extra`.
    fn steps_again(&self, dates: Option<Dates>, fill: BTreeSet<&str>) -> Vec<Step> {
        let fill: BTreeSet<String> = fill.into_iter().map(str::to_owned).collect();
        let [kept, duplicates, _] = self.listed.source.tables();
        let files = self.state.table(&kept).chain(self.state.table(&duplicates));
        let mut stored: BTreeMap<NaiveDate, u64> = BTreeMap::new();
        for entry in files.map(|file| &file.entry).filter(|entry| entry.rows > 0) {
            if let Some(date) = entry.date()
                && dates.is_none_or(|dates| dates.holds(date))
            {
                *stored.entry(date).or_default() += entry.bytes;
            }
        }
        let mut steps: Vec<Step> = Vec::new();
        let mut left = 0;
        for (date, bytes) in stored {
            match steps.last_mut().and_then(|step| step.again.as_mut()) {
                Some(again) if bytes <= left => {
                    again.to = date;
                    left -= bytes;
                }
                _ => {
                    left = self.limits.bytes.saturating_sub(bytes);
                    steps.push(Step {
                        again: Some(Dates {
                            from: date,
                            to: date,
                        }),
                        fill: fill.clone(),
                        ..Step::default()
                    });
                }
            }
        }
        if steps.is_empty() {
            steps.push(Step::default());
        }
        steps
    }

    /// Cuts what is to be read into commits. Of objects that are `leaving` the events of the earlier
    /// content are taken out by the commit that reads them.
    fn steps(&self, read: &[usize], leaving: &BTreeSet<String>) -> Vec<Step> {
        let mut steps = Vec::new();
        let (mut from, mut bytes) = (0, 0);
        let objects = &self.listed.found.objects;
        let size = |i: &usize| objects.get(*i).map_or(0, |found| found.size);
        for (i, index) in read.iter().enumerate() {
            let full = i - from >= self.limits.objects || bytes + size(index) > self.limits.bytes;
            if full && i > from {
                steps.push(self.step(read.get(from..i).unwrap_or_default()));
                (from, bytes) = (i, 0);
            }
            bytes += size(index);
        }
        if from < read.len() {
            steps.push(self.step(read.get(from..).unwrap_or_default()));
        }
        for step in &mut steps {
            let names = step.read.iter().filter_map(|i| objects.get(*i));
            let names = names.map(|found| found.identity.to_string());
            step.leaving = names.filter(|name| leaving.contains(name)).collect();
        }
        steps
    }
}

/// What the tables of a source follow from, as configured.
pub fn settings(job: &Job, source: &Source) -> Settings {
    Settings {
        decode: source.decode.clone(),
        rules: source.rules.clone(),
        slicing: job.slicing(source),
        layout: source.layout.clone(),
        layout_timezone: source.layout_timezone,
        stale_rules: Vec::new(),
        stale_columns: Vec::new(),
        unfilled: Some(BTreeMap::new()),
    }
}

/// Event dates with events of a source, in order.
pub fn published(source: &Source, state: &State) -> Vec<NaiveDate> {
    let [kept, duplicates, _] = source.tables();
    let files = state.table(&kept).chain(state.table(&duplicates));
    let dates: BTreeSet<NaiveDate> = files
        .filter(|file| file.entry.rows > 0)
        .filter_map(|file| file.entry.date())
        .collect();
    dates.into_iter().collect()
}

/// On how many of the published dates each column is null.
pub fn null_dates(
    unfilled: Option<&BTreeMap<String, Vec<Dates>>>,
    published: &[NaiveDate],
) -> BTreeMap<String, u64> {
    let null = |dates: &[Dates]| {
        let dates = published
            .iter()
            .filter(|date| dates.iter().any(|d| d.holds(**date)));
        dates.count() as u64
    };
    let columns = unfilled.into_iter().flatten();
    let columns = columns.map(|(name, dates)| (name.clone(), null(dates)));
    columns.filter(|(_, null)| *null > 0).collect()
}
