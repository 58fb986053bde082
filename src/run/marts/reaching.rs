//! Compares every date of a mart over its reach with the same date over everything that the lake has.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::NaiveDate;
use serde::Serialize;

use super::super::RunError;
use super::super::look::Looked;
use super::failure::failed_below;
use super::inputs::Inputs;
use crate::lake::Lake;
use crate::mart::{self, Compared, Input, Mart, MartError, PanicsCaught, Reach};
use crate::publish::Local;
use crate::store::Store;

/// The comparison of the dates of one mart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ReachedMart {
    /// The name of the mart.
    pub mart: String,
    /// The number of dates with the same rows.
    pub same: u64,
    /// The dates with other rows.
    pub differ: Vec<OtherRows>,
    /// The dates that were not compared, and the reason.
    pub not_compared: BTreeMap<NaiveDate, String>,
}

/// A date that has other rows over everything than over its reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OtherRows {
    /// The date.
    pub date: NaiveDate,
    /// The number of its rows over its reach.
    pub over_reach: u64,
    /// The number of its rows over everything.
    pub over_everything: u64,
    /// A row that only one of them has.
    pub row: String,
}

/// Everything that dates are compared with.
pub struct Reaching<'a> {
    lake: &'a Store,
    inputs: Inputs<'a>,
    spill: &'a Path,
}

impl<'a> Reaching<'a> {
    /// Compares over the tables of an open lake.
    ///
    /// # Errors
    /// A store whose URL the engine cannot read.
    pub fn new<P>(
        looked: &'a Looked<'a>,
        lake: &'a Lake<P>,
        spill: &'a Path,
    ) -> Result<Self, RunError> {
        Ok(Self {
            lake: lake.store(),
            inputs: Inputs::new(looked, lake, &Local::default())?,
            spill,
        })
    }

    /// Compares the dates of one mart, one after the other.
    ///
    /// # Errors
    /// A failure of the lake's store or of the local disk.
    pub async fn compare(&self, mart: &Mart) -> Result<ReachedMart, RunError> {
        let _caught = PanicsCaught::begin();
        let mut reached = ReachedMart {
            mart: mart.name.clone(),
            ..ReachedMart::default()
        };
        let everything = mart.reach.keys().map(|input| (input.clone(), Reach::ALL));
        let everything = everything.collect();
        for date in self.inputs.dates(mart, &Default::default(), true).all {
            let narrow = self.inputs.of(mart, Some(date))?;
            let wide = self.inputs.within(mart, date, &everything)?;
            let compared = self.rows(mart, &narrow, &wide, date);
            match mart::guarded(mart, compared).await {
                Ok(Compared::Same) => reached.same += 1,
                Ok(Compared::Differs(difference)) => reached.differ.push(OtherRows {
                    date,
                    over_reach: difference.alone,
                    over_everything: difference.among,
                    row: difference.row,
                }),
                Ok(Compared::TooManyAlike) => {
                    let why = "too many rows differ in rounded numbers alone";
                    reached.not_compared.insert(date, why.to_owned());
                }
                Err(RunError::Mart(error)) => {
                    reached.not_compared.insert(date, error.message);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(reached)
    }

    async fn rows(
        &self,
        mart: &Mart,
        narrow: &[Input],
        wide: &[Input],
        date: NaiveDate,
    ) -> Result<Compared, RunError> {
        let engine = &self.inputs.looked.engine;
        let alone = mart::of_date(engine, mart, narrow, date).await?;
        let among = mart::of_date(engine, mart, wide, date).await?;
        let compared = mart::compare(alone, among).await;
        compared.map_err(|error| {
            let of_run = failed_below(self.lake, self.spill, &error);
            of_run.unwrap_or_else(|| RunError::Mart(MartError::running(mart, &error)))
        })
    }
}
