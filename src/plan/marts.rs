//! Which marts are to be built, and of a mart by date which dates.
//!
//! ```text
//! files of what it reads: written after the commit that it was built from?  ──▶ dates that changed
//! dates that changed, through the reach of each input                       ──▶ dates to build
//! dates to build                                        ──▶ have changed for the marts that read it
//! ```
//!
//! A mart has partitions for the dates of what it reads: a date that none of its inputs has rows of has
//! none.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;

use super::{MartPlan, WhyMart};
use crate::ledger::State;
use crate::mart::Mart;

/// What of a table will have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    All,
    Dates(BTreeSet<NaiveDate>),
}

/// Which marts are to be built. `moved` names what will have changed or, of a mart, is lost;
/// `references` holds the fingerprint of each reference's content.
pub fn plan_marts(
    marts: &[Mart],
    state: &State,
    references: &BTreeMap<String, String>,
    moved: BTreeMap<String, Moved>,
) -> Vec<MartPlan> {
    let mut known = Known {
        state,
        references,
        moved,
    };
    let plan = |mart: &Mart| {
        let (why, dates) = match mart.reach.is_empty() {
            true => (known.why_whole(mart), None),
            false => known.why_dates(mart),
        };
        if why.is_some() {
            let moved = dates.clone().map_or(Moved::All, Moved::Dates);
            known.moved.insert(mart.name.clone(), moved);
        }
        MartPlan {
            mart: mart.name.clone(),
            why,
            dates,
            reads: Vec::new(),
        }
    };
    marts.iter().map(plan).collect()
}

/// What the content of a mart's input follows from.
pub fn version(input: &str, state: &State, references: &BTreeMap<String, String>) -> String {
    match references.get(input) {
        Some(fingerprint) => fingerprint.clone(),
        None => state.version(input).to_string(),
    }
}

struct Known<'a> {
    state: &'a State,
    references: &'a BTreeMap<String, String>,
    moved: BTreeMap<String, Moved>,
}

impl Known<'_> {
    /// Why all of a mart is to be built, whatever the dates.
    fn why_all(&self, mart: &Mart) -> Option<WhyMart> {
        let Some(built) = self.state.marts.get(&mart.name) else {
            return Some(WhyMart::First);
        };
        if self.moved.get(&mart.name) == Some(&Moved::All) {
            return Some(WhyMart::Lost);
        }
        let by_date = !mart.reach.is_empty();
        if built.entry.sql != mart.fingerprint || built.entry.by_date != by_date {
            return Some(WhyMart::SqlChanged);
        }
        let whole = mart.inputs.iter().filter(|&input| {
            let moved = self.moved.get(input);
            match mart.reach.contains_key(input) {
                true => moved == Some(&Moved::All),
                false => {
                    let version = version(input, self.state, self.references);
                    moved.is_some() || built.entry.inputs.get(input) != Some(&version)
                }
            }
        });
        let changed: Vec<String> = whole.cloned().collect();
        (!changed.is_empty()).then_some(WhyMart::InputsChanged(changed))
    }

    fn why_whole(&self, mart: &Mart) -> Option<WhyMart> {
        let lost = || self.moved.contains_key(&mart.name).then_some(WhyMart::Lost);
        self.why_all(mart).or_else(lost)
    }

    /// Why, and which dates of it; no dates where there is no reason.
    fn why_dates(&self, mart: &Mart) -> (Option<WhyMart>, Option<BTreeSet<NaiveDate>>) {
        let dates = self.dates(mart);
        if let Some(why) = self.why_all(mart) {
            return (Some(why), Some(dates));
        }
        let mut chosen = BTreeSet::new();
        if let Some(Moved::Dates(lost)) = self.moved.get(&mart.name) {
            chosen.extend(lost.iter().copied());
        }
        let why_lost = !chosen.is_empty();
        let mut inputs = Vec::new();
        for (input, reach) in &mart.reach {
            let changed = self.changed(mart, input);
            let meets = |date: &&NaiveDate| changed.iter().any(|dt| reach.holds(**date, *dt));
            let reached: Vec<NaiveDate> = dates.iter().filter(meets).copied().collect();
            if !reached.is_empty() {
                inputs.push(input.clone());
            }
            chosen.extend(reached);
        }
        match (inputs.is_empty(), why_lost) {
            (false, _) => (Some(WhyMart::InputsChanged(inputs)), Some(chosen)),
            (true, true) => (Some(WhyMart::Lost), Some(chosen)),
            (true, false) => (None, None),
        }
    }

    /// The dates that a mart has partitions of, or may have, or had.
    fn dates(&self, mart: &Mart) -> BTreeSet<NaiveDate> {
        let tables = mart.reach.keys().chain([&mart.name]);
        let mut dates = BTreeSet::new();
        for table in tables {
            let files = self.state.table(table).filter(|file| file.entry.rows > 0);
            dates.extend(files.filter_map(|file| file.entry.date()));
            if let Some(Moved::Dates(moved)) = self.moved.get(table) {
                dates.extend(moved);
            }
        }
        dates
    }

    /// What of an input changed after the mart was built; `None` is what of it has no date.
    fn changed(&self, mart: &Mart, input: &str) -> BTreeSet<Option<NaiveDate>> {
        let built = self.state.marts.get(&mart.name);
        let from = built.and_then(|built| built.entry.inputs.get(input));
        let from: u64 = from.and_then(|from| from.parse().ok()).unwrap_or(0);
        let files = self.state.table(input).filter(|file| file.commit > from);
        let mut changed: BTreeSet<_> = files.map(|file| file.entry.date()).collect();
        if let Some(Moved::Dates(moved)) = self.moved.get(input) {
            changed.extend(moved.iter().copied().map(Some));
        }
        changed
    }
}
