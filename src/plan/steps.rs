//! Divides the work on a source into commits.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;

use super::source::Planned;
use super::{Step, event_files};
use crate::ledger::Dates;

impl Planned<'_> {
    pub(super) fn step(&self, read: &[usize]) -> Step {
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

    /// Makes all tables of these objects alone, whatever is stored. This is needed if rows move to other files
    /// or if types differ. If there are more objects than one commit may have, further commits add the rest.
    pub(super) fn steps_anew(&self, read: &[usize]) -> Vec<Step> {
        let mut steps = self.steps(read, &BTreeSet::new());
        if steps.is_empty() {
            steps.push(Step::default());
        }
        if let Some(step) = steps.first_mut() {
            step.anew = true;
        }
        steps
    }

    /// Divides event dates that are decided again into commits. On these dates the columns of `fill` are taken
    /// out of `extra`.
    pub(super) fn steps_again(&self, dates: Option<Dates>, fill: BTreeSet<&str>) -> Vec<Step> {
        let fill: BTreeSet<String> = fill.into_iter().map(str::to_owned).collect();
        let files = event_files(self.listed.source, self.state);
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

    /// Divides objects that are read into commits. If an object is `leaving`, the commit that reads it also
    /// takes out the events of its earlier content.
    pub(super) fn steps(&self, read: &[usize], leaving: &BTreeSet<String>) -> Vec<Step> {
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
