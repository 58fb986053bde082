//! Compares sample dates of a mart that is built by date: would they have other rows if the SELECT saw other
//! dates too? Such a mart needs more dates than it says, and would publish wrong numbers.
//!
//! ```text
//! plan shows that each date has rows of this date alone ─▶ nothing to compare
//! first, middle and last date with others around them   ─▶ evaluated alone, and among these
//!   the same rows ─▶ built      other rows ─▶ the mart fails, with the `reads` that it needs
//! ```
//!
//! The comparison is done when a mart is first built and when its SQL has changed. As long as the mart has
//! fewer than three such dates, it is done at each build. Tables that `reads` names are read as `reads` says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use chrono::{Days, NaiveDate};

use super::super::{RunError, Sample};
use super::failure::failed_below;
use super::inputs::{Inputs, MartDates};
use super::slots::Slots;
use crate::mart::{self, Compared, DateTraits, Difference, Mart, MartError, Reach};
use crate::plan::MartPlan;
use crate::store::Store;

/// The number of dates that are evaluated twice.
const DATES: usize = 3;
/// The most days on either side of such a date.
const DAYS: u32 = 35;
/// The most bytes of data files that all these dates may read.
const BYTES: u64 = 2 << 30;

/// The reach of the tables that no `reads` names.
type Reaches = BTreeMap<String, Reach>;

/// Everything that sample dates are evaluated with.
#[derive(Clone, Copy)]
pub struct Sampler<'a> {
    pub lake: &'a Store,
    pub inputs: &'a Inputs<'a>,
    pub slots: &'a Slots,
    /// The memory of an unfinished row group, in bytes.
    pub row_group: usize,
    pub spill: &'a Path,
}

impl Sampler<'_> {
    /// Evaluates sample dates where the plan says that they are due. `None` says that nothing needs to be compared.
    ///
    /// # Errors
    /// The error of the mart if a date has other rows among other dates than alone.
    pub async fn sample(
        &self,
        mart: &Mart,
        planned: &MartPlan,
        dates: &MartDates,
    ) -> Result<Option<Sample>, RunError> {
        let Some(any) = dates.all.first().filter(|_| planned.sample_due) else {
            return Ok(None);
        };
        let engine = &self.inputs.looked.engine;
        let inputs = self.inputs.of(mart, Some(*any))?;
        let traits = mart::date_traits(engine, mart, &inputs, &mart.unsaid).await?;
        if traits.of_one_date {
            return Ok(None);
        }
        let _all = self.slots.take(self.slots.all).await?;
        let around = Around::new(self.inputs, mart);
        let candidates: Vec<NaiveDate> = dates
            .all
            .iter()
            .copied()
            .filter(|date| around.has_others(*date))
            .collect();
        let mut sample = Sample {
            too_few: candidates.len() < DATES,
            ..Sample::default()
        };
        let mut different = Vec::new();
        for date in spread(&candidates) {
            let Some(days) = around.days(date) else {
                let why = "it and the days around it are more than 682 MiB of data files";
                sample.not_compared.insert(date, why.to_owned());
                continue;
            };
            let sides = Sides {
                with: self,
                mart,
                date,
                traits,
            };
            let wide = around.all(days);
            match sides.compare(&around.all(0), &wide).await? {
                Ok(Compared::Same) => _ = sample.same.insert(date, days),
                Ok(Compared::Differs(difference)) => match sides.depends_on_order().await? {
                    true => {
                        let why = "its rows depend on the order in which rows are read";
                        sample.not_compared.insert(date, why.to_owned());
                    }
                    false => different.push((sides, wide, difference)),
                },
                Ok(Compared::TooManyAlike) => {
                    let why = "too many rows differ in rounded numbers alone";
                    sample.not_compared.insert(date, why.to_owned());
                }
                Err(why) => _ = sample.not_compared.insert(date, why),
            }
        }
        let Some((sides, _, difference)) = different.get(different.len() / 2) else {
            return Ok(Some(sample));
        };
        let needed = self.needed(&around, &different).await?;
        let Difference { alone, among, row } = difference;
        Err(MartError::too_short(mart, sides.date, (*alone, *among), row, &needed).into())
    }

    /// The least reach with which these dates have the rows that they have among other dates. Tables that need
    /// only the same date are left out.
    async fn needed(
        &self,
        around: &Around,
        different: &[(Sides<'_>, Reaches, Difference)],
    ) -> Result<Reaches, RunError> {
        let mut needed = around.all(0);
        // The middle date comes first, because it has dates on both sides.
        let (before, behind) = different.split_at(different.len() / 2);
        for (sides, wide, _) in behind.iter().chain(before) {
            if sides.is_same(&needed, wide).await? {
                continue;
            }
            let mut reach = wide.clone();
            for input in wide.keys() {
                for side in [Side::Back, Side::Ahead] {
                    let Some(most) = wide.get(input).and_then(|wide| side.of(wide)) else {
                        continue;
                    };
                    let (mut least, mut enough) =
                        (0, most.min(around.far(input, sides.date, side)));
                    while least < enough {
                        let middle = least + (enough - least) / 2;
                        side.set(&mut reach, input, middle);
                        match sides.is_same(&reach, wide).await? {
                            true => enough = middle,
                            false => least = middle + 1,
                        }
                    }
                    side.set(&mut reach, input, enough);
                }
            }
            for (input, reach) in reach {
                let known = needed.entry(input).or_insert(Reach::SAME);
                known.back = known.back.max(reach.back);
                known.ahead = known.ahead.max(reach.ahead);
            }
        }
        for reach in needed.values_mut() {
            let open = |days: Option<u32>| days.filter(|days| *days < DAYS);
            (reach.back, reach.ahead) = (open(reach.back), open(reach.ahead));
        }
        needed.retain(|_, reach| *reach != Reach::SAME);
        Ok(needed)
    }
}

/// The first, the middle and the last date, each once.
fn spread(dates: &[NaiveDate]) -> BTreeSet<NaiveDate> {
    let middle = dates.get(dates.len() / 2);
    let ends = [dates.first(), middle, dates.last()];
    ends.into_iter().flatten().copied().collect()
}

#[derive(Clone, Copy)]
enum Side {
    Back,
    Ahead,
}

impl Side {
    fn of(self, reach: &Reach) -> Option<u32> {
        match self {
            Self::Back => reach.back,
            Self::Ahead => reach.ahead,
        }
    }

    fn set(self, reaches: &mut Reaches, input: &str, days: u32) {
        if let Some(reach) = reaches.get_mut(input) {
            match self {
                Self::Back => reach.back = Some(days),
                Self::Ahead => reach.ahead = Some(days),
            }
        }
    }
}

/// Bytes of data files by date. Some files have no date.
type ByDate = BTreeMap<Option<NaiveDate>, u64>;

/// The data files that a mart could read around a date.
struct Around {
    /// For tables that no `reads` names, the bytes by date.
    unsaid: BTreeMap<String, BTreeMap<NaiveDate, u64>>,
    /// For all other tables, the reach and the bytes by date. A table without a reach is read whole.
    said: Vec<(Option<Reach>, ByDate)>,
}

impl Around {
    fn new(inputs: &Inputs<'_>, mart: &Mart) -> Self {
        let mut made = Self {
            unsaid: BTreeMap::new(),
            said: Vec::new(),
        };
        for input in &mart.inputs {
            let files = inputs.snapshot.files(input);
            if mart.unsaid.contains(input) {
                let dates = made.unsaid.entry(input.clone()).or_default();
                for (file, _) in files {
                    if let Some(date) = file.date() {
                        *dates.entry(date).or_default() += file.bytes;
                    }
                }
            } else {
                let mut bytes = ByDate::new();
                for (file, _) in files {
                    *bytes.entry(file.date()).or_default() += file.bytes;
                }
                made.said.push((mart.reach.get(input).copied(), bytes));
            }
        }
        made
    }

    /// The reach of so many days on either side, for all tables that no `reads` names.
    fn all(&self, days: u32) -> Reaches {
        let reach = Reach {
            back: Some(days),
            ahead: Some(days),
        };
        let inputs = self.unsaid.keys();
        inputs.map(|input| (input.clone(), reach)).collect()
    }

    /// Whether some table has another date near this one.
    fn has_others(&self, date: NaiveDate) -> bool {
        let mut tables = self.unsaid.values();
        tables.any(|dates| {
            let mut near = dates.range(span(date, DAYS));
            near.any(|(other, _)| *other != date)
        })
    }

    /// The number of days on either side that may be read within the share of bytes of one date. `None` if this
    /// includes no other date.
    fn days(&self, date: NaiveDate) -> Option<u32> {
        let share = BYTES / DATES as u64;
        let fixed = self.said.iter().flat_map(|(reach, bytes)| {
            let holds =
                move |dt: Option<NaiveDate>| reach.is_none_or(|reach| reach.holds(date, dt));
            bytes.iter().filter(move |(dt, _)| holds(**dt))
        });
        let fixed: u64 = fixed.map(|(_, bytes)| bytes).sum();
        let bytes = |days: u32| -> u64 {
            let tables = self.unsaid.values();
            let near = tables.flat_map(|dates| dates.range(span(date, days)));
            fixed + near.map(|(_, bytes)| bytes).sum::<u64>()
        };
        let days = (1..=DAYS).rev().find(|days| bytes(*days) <= share)?;
        let mut tables = self.unsaid.values();
        let others = tables.any(|dates| dates.range(span(date, days)).any(|(dt, _)| *dt != date));
        others.then_some(days)
    }

    /// The distance to the farthest date that a table has on one side.
    fn far(&self, input: &str, date: NaiveDate, side: Side) -> u32 {
        let Some(dates) = self.unsaid.get(input) else {
            return 0;
        };
        let span = span(date, DAYS);
        let mut near = dates.range(span).map(|(dt, _)| *dt);
        let far = match side {
            Side::Back => near.next(),
            Side::Ahead => near.next_back(),
        };
        let distance = match (far, side) {
            (None, _) => 0,
            (Some(far), Side::Back) => (date - far).num_days(),
            (Some(far), Side::Ahead) => (far - date).num_days(),
        };
        u32::try_from(distance).unwrap_or(0)
    }
}

fn span(date: NaiveDate, days: u32) -> std::ops::RangeInclusive<NaiveDate> {
    let days = Days::new(u64::from(days));
    let from = date.checked_sub_days(days).unwrap_or(NaiveDate::MIN);
    let to = date.checked_add_days(days).unwrap_or(NaiveDate::MAX);
    from..=to
}

/// One date of a mart, which is evaluated over more or fewer dates.
struct Sides<'a> {
    with: &'a Sampler<'a>,
    mart: &'a Mart,
    date: NaiveDate,
    traits: DateTraits,
}

impl Sides<'_> {
    /// Compares two evaluations of the date. If one of them fails, this is no failure of the mart, because the
    /// value that fails may lie on a date that the mart does not read. The inner `Err` says why they were not
    /// compared.
    async fn compare(
        &self,
        narrow: &Reaches,
        wide: &Reaches,
    ) -> Result<Result<Compared, String>, RunError> {
        let inputs = self.with.inputs;
        let narrow = inputs.within(self.mart, self.date, narrow)?;
        let wide = inputs.within(self.mart, self.date, wide)?;
        self.compare_over(&narrow, &wide).await
    }

    async fn compare_over(
        &self,
        narrow: &[mart::Input],
        wide: &[mart::Input],
    ) -> Result<Result<Compared, String>, RunError> {
        let engine = &self.with.inputs.looked.engine;
        let compared = async {
            let alone = mart::of_date(engine, self.mart, narrow, self.date).await?;
            let among = mart::of_date(engine, self.mart, wide, self.date).await?;
            let compared = mart::compare(alone, among).await;
            compared.map_err(|error| {
                let of_run = failed_below(self.with.lake, self.with.spill, &error);
                of_run.unwrap_or_else(|| match mart::lacks_memory(&error) {
                    true => RunError::Mart(MartError::sample_lacks_memory(self.mart)),
                    false => RunError::Mart(MartError::running(self.mart, &error)),
                })
            })
        };
        match mart::guarded(self.mart, compared).await {
            Ok(compared) => Ok(Ok(compared)),
            Err(RunError::Mart(error)) => Ok(Err(error.message)),
            Err(error) => Err(error),
        }
    }

    async fn is_same(&self, narrow: &Reaches, wide: &Reaches) -> Result<bool, RunError> {
        let compared = self.compare(narrow, wide).await?;
        Ok(matches!(compared, Ok(Compared::Same)))
    }

    /// Whether the rows of the date also change when the same input is read backwards. A difference says
    /// nothing about dates then.
    async fn depends_on_order(&self) -> Result<bool, RunError> {
        if self.traits.free_of_order {
            return Ok(false);
        }
        let inputs = self.with.inputs;
        let bytes = inputs.bytes(self.mart)(self.date);
        if bytes > self.with.row_group as u64 / 8 {
            return Ok(false);
        }
        let narrow = inputs.of(self.mart, Some(self.date))?;
        let engine = &inputs.looked.engine;
        let backwards = mart::guarded(self.mart, mart::backwards(engine, self.mart, &narrow));
        let Ok(backwards) = backwards.await else {
            return Ok(false);
        };
        let compared = self.compare_over(&narrow, &backwards).await?;
        Ok(!matches!(compared, Ok(Compared::Same)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(day: u32) -> NaiveDate {
        NaiveDate::from_ymd_opt(2024, 3, day).unwrap()
    }

    #[test]
    fn sample_dates_are_spread() {
        let of = |days: &[u32]| -> Vec<u32> {
            let dates: Vec<_> = days.iter().map(|day| date(*day)).collect();
            use chrono::Datelike;
            spread(&dates).iter().map(NaiveDate::day).collect()
        };
        assert_eq!(of(&[]), [0_u32; 0]);
        assert_eq!(of(&[4]), [4]);
        assert_eq!(of(&[4, 5]), [4, 5]);
        assert_eq!(of(&[4, 5, 9, 20, 21]), [4, 9, 21]);
    }

    #[test]
    fn as_many_days_are_read_as_there_is_room_for() {
        let mib = |days: &[(u32, u64)]| -> BTreeMap<NaiveDate, u64> {
            days.iter()
                .map(|(day, mib)| (date(*day), mib << 20))
                .collect()
        };
        let around = |days: &[(u32, u64)]| Around {
            unsaid: [("events".to_owned(), mib(days))].into(),
            said: vec![(None, [(None, 82 << 20)].into())],
        };
        // A third of 2 GiB is 682 MiB, 600 beside the table that is read whole.
        let small = around(&[(1, 100), (10, 100), (31, 100)]);
        assert_eq!(small.days(date(10)), Some(35));
        let large = around(&[(1, 300), (9, 200), (10, 200), (12, 200), (31, 300)]);
        assert_eq!(large.days(date(10)), Some(8));
        assert_eq!(large.days(date(31)), Some(20));
        let huge = around(&[(9, 400), (10, 400)]);
        assert!(huge.has_others(date(9)));
        assert_eq!(huge.days(date(10)), None);
        assert!(!around(&[(9, 1)]).has_others(date(9)));
        assert_eq!(large.far("events", date(10), Side::Back), 9);
        assert_eq!(large.far("events", date(10), Side::Ahead), 21);
        assert_eq!(large.far("events", date(31), Side::Ahead), 0);
    }
}
