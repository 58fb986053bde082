//! Plans which marts are built, and which dates of a mart by date.
//!
//! ```text
//! files of what it reads: written after the commit that it was built from?  ──▶ dates that changed
//! dates that changed, through the reach of each input                       ──▶ dates to build
//! dates to build                                        ──▶ have changed for the marts that read it
//! ```
//!
//! A mart has partitions for the dates with rows in its inputs. These dates are known when its inputs are
//! built. Until then the plan names all dates that may be among them.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;

use super::{MartPlan, WhyMart};
use crate::catalog::{self, TableDefinition};
use crate::engine::LAW;
use crate::ledger::{Dates, State};
use crate::mart::Mart;

/// The part of a table that will have changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moved {
    /// The whole table has changed, known dates or not.
    pub all: bool,
    /// The known dates that have changed.
    pub dates: BTreeSet<NaiveDate>,
}

/// The marts of a job as they are now.
#[derive(Clone, Copy)]
pub struct Marts<'a> {
    /// The marts. Each comes after the marts that it reads.
    pub marts: &'a [Mart],
    /// The tables that the marts make, in the same order.
    pub tables: &'a [TableDefinition],
    /// The fingerprint of the content of each reference.
    pub references: &'a BTreeMap<String, String>,
}

/// Plans which marts are built. `moved` names the tables that will have changed, and the marts whose files are
/// lost.
pub fn plan_marts(
    Marts {
        marts,
        tables,
        references,
    }: Marts<'_>,
    state: &State,
    moved: BTreeMap<String, Moved>,
) -> Vec<MartPlan> {
    let mut known = Known {
        state,
        references,
        moved,
    };
    let plan = |(mart, table): (&Mart, &TableDefinition)| {
        let all = known.why_all(mart, table);
        let every_date = all.is_some();
        let (why, dates) = match mart.reach.is_empty() {
            true => (all.or_else(|| known.why_lost(mart)), None),
            false => known.why_dates(mart, all),
        };
        if why.is_some() {
            let moved = Moved {
                all: every_date || dates.is_none(),
                dates: dates.clone().unwrap_or_default(),
            };
            known.moved.insert(mart.name.clone(), moved);
        }
        MartPlan {
            mart: mart.name.clone(),
            sample_due: sample_due(mart, why.as_ref(), state),
            why,
            dates,
            every_date,
            reads: Vec::new(),
            notes: Vec::new(),
        }
    };
    marts.iter().zip(tables).map(plan).collect()
}

/// Which dates of chosen marts are to be built in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedDates {
    /// None: only those that have changed.
    Stale,
    /// Those within these dates, and all of a mart without dates.
    Within(Dates),
    /// All of them.
    Every,
}

/// Which dates of some marts are to be built: those that have changed, and those that are `asked` for.
pub fn plan_asked_marts(marts: Marts<'_>, state: &State, asked: AskedDates) -> Vec<MartPlan> {
    let mut plans = plan_marts(marts, state, BTreeMap::new());
    let of_asked = match asked {
        AskedDates::Stale => return plans,
        AskedDates::Every => Moved {
            all: true,
            dates: BTreeSet::new(),
        },
        AskedDates::Within(within) => {
            let dates = state.files.values().filter_map(|file| file.entry.date());
            Moved {
                all: false,
                dates: dates.filter(|date| within.holds(*date)).collect(),
            }
        }
    };
    // A mart that is built whole anyway has a better reason.
    let in_part = |plan: &&MartPlan| plan.why.is_none() || plan.dates.is_some() && !plan.every_date;
    let moved = plans.iter().filter(in_part);
    let moved = moved.map(|plan| (plan.mart.clone(), of_asked.clone()));
    plans = plan_marts(marts, state, moved.collect());
    for (plan, mart) in plans.iter_mut().zip(marts.marts) {
        if plan.why == Some(WhyMart::Lost) {
            plan.why = Some(WhyMart::Asked);
            plan.sample_due = sample_due(mart, plan.why.as_ref(), state);
        }
    }
    plans
}

/// Whether sample dates of a mart are to be compared. A mart by date that leaves some `reads` unsaid is
/// compared when it is first built and when its SQL has changed, and again as long as it has too few dates.
fn sample_due(mart: &Mart, why: Option<&WhyMart>, state: &State) -> bool {
    let compared = state.marts.get(&mart.name);
    let compared = compared.is_some_and(|built| built.entry.compared);
    match why {
        None | Some(WhyMart::Lost) => false,
        _ if mart.unsaid.is_empty() => false,
        Some(WhyMart::First | WhyMart::SqlChanged) => true,
        Some(_) => !compared,
    }
}

/// The version that the content of a mart's input follows from.
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
    /// The reason why the whole mart is built, whatever its dates.
    fn why_all(&self, mart: &Mart, table: &TableDefinition) -> Option<WhyMart> {
        let Some(built) = self.state.marts.get(&mart.name) else {
            return Some(WhyMart::First);
        };
        let all_of = |table: &str| self.moved.get(table).is_some_and(|moved| moved.all);
        if all_of(&mart.name) {
            return Some(WhyMart::Lost);
        }
        if built.entry.sql != mart.fingerprint {
            return Some(WhyMart::SqlChanged);
        }
        if built.entry.law != LAW {
            return Some(WhyMart::LawChanged);
        }
        let columns = catalog::columns(&table.schema);
        if built.entry.reach != mart.reach_by_name()
            || built.entry.unit != catalog::timestamp_unit(&table.schema)
            || self.state.columns.get(&mart.name) != Some(&columns)
        {
            return Some(WhyMart::FormChanged);
        }
        let whole = mart
            .inputs
            .iter()
            .filter(|&input| match mart.reach.contains_key(input) {
                true => all_of(input),
                false => {
                    let version = version(input, self.state, self.references);
                    self.moved.contains_key(input)
                        || built.entry.inputs.get(input) != Some(&version)
                }
            });
        let changed: Vec<String> = whole.cloned().collect();
        (!changed.is_empty()).then_some(WhyMart::InputsChanged(changed))
    }

    fn why_lost(&self, mart: &Mart) -> Option<WhyMart> {
        self.moved.contains_key(&mart.name).then_some(WhyMart::Lost)
    }

    /// The reason, and the dates that are built for it. Without a reason there are no dates.
    fn why_dates(
        &self,
        mart: &Mart,
        all: Option<WhyMart>,
    ) -> (Option<WhyMart>, Option<BTreeSet<NaiveDate>>) {
        let dates = self.dates(mart);
        if all.is_some() {
            return (all, Some(dates));
        }
        let mut chosen = BTreeSet::new();
        if let Some(lost) = self.moved.get(&mart.name) {
            chosen.extend(&lost.dates);
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

    /// The dates that the mart may get partitions of, or had partitions of.
    fn dates(&self, mart: &Mart) -> BTreeSet<NaiveDate> {
        let tables = mart.reach.keys().chain([&mart.name]);
        let mut dates = BTreeSet::new();
        for table in tables {
            let files = self.state.table(table).filter(|file| file.entry.rows > 0);
            dates.extend(files.filter_map(|file| file.entry.date()));
            if let Some(moved) = self.moved.get(table) {
                dates.extend(&moved.dates);
            }
        }
        dates
    }

    /// The changes of an input since the mart was built. `None` stands for files without a date.
    fn changed(&self, mart: &Mart, input: &str) -> BTreeSet<Option<NaiveDate>> {
        let built = self.state.marts.get(&mart.name);
        let from = built.and_then(|built| built.entry.inputs.get(input));
        let from: u64 = from.and_then(|from| from.parse().ok()).unwrap_or(0);
        let files = self.state.table(input).filter(|file| file.commit > from);
        let mut changed: BTreeSet<_> = files.map(|file| file.entry.date()).collect();
        if let Some(moved) = self.moved.get(input) {
            changed.extend(moved.dates.iter().copied().map(Some));
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{MartEntry, MartState};
    use crate::mart;
    use crate::time::TimeUnit;

    /// The only mart of a folder, with this SQL over the tables `events` and `codes`.
    fn one(sql: &str) -> Mart {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("m.sql"), sql).unwrap();
        let graph = mart::load(folder.path(), &["events".to_owned()], &[]).unwrap();
        graph.marts()[0].clone()
    }

    fn built(compared: bool) -> State {
        let entry = MartEntry {
            name: "m".to_owned(),
            sql: String::new(),
            inputs: BTreeMap::new(),
            reach: BTreeMap::new(),
            rows: 0,
            compared,
            law: LAW,
            unit: TimeUnit::Ms,
        };
        let marts = BTreeMap::from([("m".to_owned(), MartState { commit: 1, entry })]);
        State {
            marts,
            ..State::default()
        }
    }

    #[test]
    fn a_sample_is_due_where_reads_are_unsaid_and_nothing_was_compared() {
        let mut unsaid = one("SELECT dt, count(*) AS n FROM events GROUP BY dt");
        unsaid.unsaid = BTreeSet::from(["events".to_owned()]);
        let said = Mart {
            unsaid: BTreeSet::new(),
            ..unsaid.clone()
        };
        let inputs = WhyMart::InputsChanged(vec!["events".to_owned()]);
        let (never, too_few, compared) = (State::default(), built(false), built(true));
        for (mart, why, state, due) in [
            (&unsaid, Some(&WhyMart::First), &never, true),
            (&unsaid, Some(&WhyMart::SqlChanged), &compared, true),
            (&unsaid, Some(&inputs), &compared, false),
            (&unsaid, Some(&inputs), &too_few, true),
            (&unsaid, Some(&WhyMart::Lost), &too_few, false),
            (&unsaid, None, &too_few, false),
            (&said, Some(&WhyMart::First), &never, false),
        ] {
            assert_eq!(sample_due(mart, why, state), due, "{why:?}");
        }
    }
}
