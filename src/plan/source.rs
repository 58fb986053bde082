//! Plans one source: no change, its first objects, new and changed objects, a rebuild, or a refusal.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;

use super::settings::{Needs, configured, is_in_extra, ranges, rules_from, settings};
use super::{
    CommitLimits, Listed, Rebuild, Refusal, SourcePlan, Step, Why, event_files, new_objects,
    null_dates, published,
};
use crate::config::{Job, OnChangedObject};
use crate::event::EXTRA;
use crate::ledger::{Dates, ObjectEntry, Rebuilt, Settings, SourceState, State};
use crate::raw::RawObject;

pub(super) fn plan_source(
    job: &Job,
    limits: CommitLimits,
    listed: &Listed<'_>,
    state: &State,
    rebuild: Option<&Rebuild>,
) -> SourcePlan {
    let found = listed.found;
    let known = state.sources.get(&listed.source.name);
    let new = new_objects(listed, known);
    let mut plan = SourcePlan::nothing(listed, known, &new);
    let now = settings(job, listed.source);
    let source = Planned {
        limits,
        listed,
        state,
        now: &now,
        new,
    };
    match (known, rebuild) {
        // These objects may hold events. Without them the counts would balance and still be wrong.
        (_, None) if !found.unreadable.is_empty() => {
            let first = found.unreadable.iter().take(UNREADABLE_NAMED);
            plan.refused = Some(Refusal::Unreadable {
                count: found.unreadable.len(),
                first: first.cloned().collect(),
            });
        }
        (None, None) => source.first(&mut plan),
        // Nothing of the source is published yet. The next run makes it as it is configured.
        (None, Some(rebuild)) => plan.refused = not_absorbed(None, rebuild),
        (Some(known), Some(rebuild)) if !rebuild.drop.is_empty() => {
            source.drop_objects(known, rebuild, &mut plan);
        }
        (Some(known), None) => source.run(known, &mut plan),
        (Some(known), Some(rebuild)) => source.rebuild(known, rebuild, &mut plan),
    }
    if plan.refused.is_some() {
        plan.steps.clear();
    }
    plan.partitions = source.partitions(known, &plan);
    if !plan.steps.is_empty() {
        plan.estimate = Some(source.estimate(known, &plan));
    }
    plan
}

/// The refusal to drop a raw object that was never absorbed.
fn not_absorbed(known: Option<&SourceState>, rebuild: &Rebuild) -> Option<Refusal> {
    let is_known = |key: &&String| {
        known.is_some_and(|known| {
            known.objects.contains_key(key) || known.dropped.contains_key(*key)
        })
    };
    let key = rebuild.drop.iter().find(|key| !is_known(key))?.clone();
    Some(Refusal::NotAbsorbed { key })
}

/// The number of unreadable objects that are named.
const UNREADABLE_NAMED: usize = 5;

/// A source that is being planned.
pub(super) struct Planned<'a> {
    pub(super) limits: CommitLimits,
    pub(super) listed: &'a Listed<'a>,
    pub(super) state: &'a State,
    /// The configured settings.
    pub(super) now: &'a Settings,
    /// The indexes of the objects that are not absorbed.
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
        // A prefix that lists nothing any more is more likely a wrong prefix.
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
        // The entries are noted, so that the next run need not read these objects to compare them.
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

    /// Plans to take raw objects out for good. The events that they displaced are decided again.
    fn drop_objects(&self, known: &SourceState, rebuild: &Rebuild, plan: &mut SourcePlan) {
        plan.refused = not_absorbed(Some(known), rebuild);
        let needs = self.needs(known);
        if plan.refused.is_none() && !needs.is_empty() {
            plan.refused = Some(self.refusal(&needs));
        }
        let leaving = rebuild
            .drop
            .iter()
            .filter(|key| known.objects.contains_key(key));
        let leaving: BTreeSet<String> = leaving.cloned().collect();
        if leaving.is_empty() || plan.refused.is_some() {
            return;
        }
        plan.why = Some(Why::Drop);
        plan.settings = self.settings(known, &needs, None);
        plan.steps = vec![Step {
            leaving,
            ..Step::default()
        }];
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
        plan.rebuilt = Some(Rebuilt { dates, from_raw });
        plan.settings = self.settings(known, &needs, Some((dates, from_raw)));
        plan.meanwhile = self.settings(known, &needs, None);
        if from_raw {
            self.rebuild_from_raw(known, rebuild, &needs, plan);
            return;
        }
        let fill = match needs.unfilled {
            Some(_) => unfilled,
            // Each of these columns may have been added later.
            None => in_extra,
        };
        plan.steps = self.steps_again(dates, fill);
    }

    /// Plans to read the raw objects again that may have events of the dates of a rebuild.
    fn rebuild_from_raw(
        &self,
        known: &SourceState,
        rebuild: &Rebuild,
        needs: &Needs,
        plan: &mut SourcePlan,
    ) {
        let dates = rebuild.dates;
        let rejects_may_change = self.rejects_may_change(known);
        let held: BTreeSet<String> = known
            .objects
            .values()
            .filter(|object| self.may_hold(object, dates, rejects_may_change))
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
            // An event that keeps its verdict from other rules could be displaced by an event that is given up.
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
            // Every event is read again, and therefore decided again.
            return;
        }
        for step in &mut plan.steps {
            step.only = dates;
        }
        // Events next to these dates come from other objects.
        let mut again = self.steps_again(dates, BTreeSet::new());
        match (plan.steps.as_mut_slice(), again.as_slice()) {
            ([step], [only]) => step.again = only.again,
            _ => plan.steps.append(&mut again),
        }
    }

    /// The parts that must be rebuilt before new events are added.
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
        // A rule that reads such a column has other keys afterwards.
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
        let files = event_files(self.listed.source, self.state);
        let dates = from.zip(to).map(|(from, to)| Dates { from, to });
        let known = self.state.sources.get(name);
        let held = |found: &&RawObject| {
            let object = known.and_then(|known| known.objects.get(&found.identity));
            object.is_some_and(|object| self.may_hold(&object, dates, true))
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
            rules: self.rules_that_keep(needs),
        }
    }

    /// The rules that leave the published dates as they are, where such rules are all that is needed.
    fn rules_that_keep(&self, needs: &Needs) -> Option<String> {
        let known = self.state.sources.get(&self.listed.source.name)?;
        let known = known.settings.as_ref()?;
        let other = !needs.whole.is_empty() || !needs.columns.0.is_empty();
        if other || !known.stale_rules.is_empty() {
            return None;
        }
        let last = self.published().pop()?;
        let rules = rules_from(&known.rules, &self.now.rules, last);
        let name = &self.listed.source.name;
        let rules = rules.iter().map(|rule| configured(rule).toml(name));
        Some(rules.collect::<Vec<_>>().join("\n"))
    }

    /// The settings that the log is to hold, if they differ from the settings that it holds. `rebuilt` names
    /// the dates that were rebuilt (`None` for all), and says whether they were read from raw.
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

    /// Whether a record that was a reject may be an event now. A reject is decided by the record and by how
    /// records are decoded, and no reject is noted as stale.
    fn rejects_may_change(&self, known: &SourceState) -> bool {
        let unchanged =
            |was: &Settings| was.decode == self.now.decode && was.stale_columns.is_empty();
        !known.settings.as_ref().is_some_and(unchanged)
    }

    /// Whether a raw object may hold events of these dates. A reject that becomes an event may be of any date.
    fn may_hold(
        &self,
        object: &ObjectEntry,
        dates: Option<Dates>,
        rejects_may_change: bool,
    ) -> bool {
        let Some(dates) = dates else { return true };
        let (first, last) = self
            .now
            .slicing
            .times(dates.from, dates.to, self.now.decode.unit);
        let unknown = object.times.is_none() && object.events > 0;
        let meets = object
            .times
            .is_some_and(|(from, to)| from <= last && first <= to);
        unknown || meets || rejects_may_change && !object.rejects.is_empty()
    }

    fn indexes(&self, which: impl Fn(&RawObject) -> bool) -> Vec<usize> {
        let objects = self.listed.found.objects.iter().enumerate();
        objects
            .filter(|(_, found)| which(found))
            .map(|(i, _)| i)
            .collect()
    }
}
