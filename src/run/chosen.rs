//! `rawmart marts`: chosen marts are built from the tables as they are, and no raw prefix is listed.

use super::look::{Checked, Looked};
use super::marts::Marts;
use super::summary::{Totals, summary};
use super::tell::Telling;
use super::{Context, Doing, Options, RunError, RunSummary, tables};
use crate::absorb::SpillFolder;
use crate::config::Job;
use crate::lake;
use crate::mart::{Drawn, Graph};
use crate::plan::{self, AskedDates, Lost, RunPlan};
use crate::publish::Local;

/// Which marts are asked for, and which of their dates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MartsAsked {
    /// Names and folders, as [`Graph::choose`] reads them; all marts where there are none.
    pub names: Vec<String>,
    /// Which dates are built whether they have changed or not.
    pub dates: AskedDates,
}

/// Builds the chosen marts: what has changed of them, and what is asked for.
///
/// # Errors
/// An unknown name; every reason why nothing, or nothing more, was published.
pub fn build_marts<'a>(
    job: &'a Job,
    asked: &'a MartsAsked,
    context: &'a Context,
) -> Doing<'a, RunSummary> {
    Box::pin(async move {
        let options = marts_alone();
        let checked = Checked::check(job, &options)?.without_sources();
        let chosen = graph(&checked, job)?.choose(&asked.names)?;
        let spill = SpillFolder::new(job)?;
        let locked = lake::lock(&job.lake, &context.store).await?;
        let mut lake = locked.open(tables(job), context.writer(job)).await?;
        lake.probe(job.single_writer).await?;
        let rolled_forward = lake.roll_forward().await?;
        lake.sweep_dead().await?;
        if let Some(refusal) = plan::published_otherwise(job, lake.state()) {
            let name = job.sources.first().map(|source| source.name.clone());
            return Err(RunError::Refused {
                name: name.unwrap_or_default(),
                refusal,
            });
        }
        let mut telling = Telling::new(job, context);
        let proof = lake.proof();
        let looked = Looked::look(job, checked, lake.state(), spill.path(), &context.store).await?;
        let plans = looked.plan_chosen_marts(lake.state(), &chosen, asked.dates);
        let marts = Marts {
            job,
            looked: &looked,
            plans: &plans,
            lost: &Lost::default(),
            local: &Local::default(),
            context,
            spill: spill.path(),
            proof: &proof,
        };
        let mut totals = Totals::default();
        let mut built = marts.build(&mut lake, &mut totals).await?;
        built.retain(|mart| chosen.contains(&mart.name));
        telling.finish(&lake).await;
        lake.sweep().await?;
        lake.checkpoint().await?;
        let silences = looked.silences(lake.state(), &chosen, context.now);
        let plan = RunPlan::default();
        let summary = summary(&lake, &looked, &plan, rolled_forward, built, totals);
        Ok(RunSummary {
            silences,
            catalog: telling.summary(),
            ..summary
        })
    })
}

/// The graph of the chosen marts. It reads the SQL files alone.
///
/// # Errors
/// An unknown name; SQL files that cannot be read.
pub fn draw_marts(job: &Job, asked: &MartsAsked) -> Result<Drawn, RunError> {
    let options = marts_alone();
    let checked = Checked::check(job, &options)?;
    let graph = graph(&checked, job)?;
    Ok(graph.draw(&graph.choose(&asked.names)?))
}

/// The options of a command about marts alone.
pub fn marts_alone() -> Options {
    Options {
        marts: true,
        ..Options::default()
    }
}

/// The marts of a job.
pub fn graph<'a>(checked: &'a Checked<'_>, job: &Job) -> Result<&'a Graph, RunError> {
    checked.graph().ok_or_else(|| RunError::NoMarts {
        file: job.file.display().to_string(),
    })
}
