//! Tells people and programs about a run: events → progress bars, summaries → text or JSON, errors → exit
//! codes. Nothing in this room changes what a run does.
//!
//! ```text
//! run ──Happened──▶ Progress ──▶ Report ──▶ bar on a terminal │ log lines
//! RunSummary, RunPlan, Verified ──▶ Teller ──▶ stdout: text │ one line of JSON
//! RunError ──▶ Code ──▶ Teller ──▶ stderr: what, where, what to do ──▶ exit code
//! ```

mod answer;
mod code;
mod document;
mod junit;
mod plain;
mod teller;
mod text;

pub use answer::{Answer, Answering};
pub use code::Code;
pub use junit::junit;
pub use teller::Teller;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::absorb::{AbsorbError, RejectsOf};
use crate::catalog::ddl::Script;
use crate::config::{ConfigError, Job, environment};
use crate::mart::Drawn;
use crate::plan::{PlanOutcome, RunPlan};
use crate::progress::{Happened, Progress};
use crate::run::{
    CatalogProblem, Check, Diagnosis, Dropped, History, Initiated, Linted, MartOutcome,
    MartSummary, PastRun, Reached, RunError, RunSummary, Silence, Tables, Tested, TryOutcome,
    Verified, Why,
};
use plain::{Plain, plain};
use text::Reader;

/// Shows on the terminal and in the log what happens. All clones show it in the same place.
#[derive(Clone)]
pub struct Report {
    bar: ProgressBar,
    teller: Teller,
}

impl Report {
    /// Shows a bar on a terminal that can move its cursor. There is none in a pipe, for a quiet invocation, or among
    /// logs in JSON. The teller is told of commits.
    pub fn new(teller: &Teller) -> Self {
        let is_dumb = environment("TERM").is_some_and(|term| term == "dumb");
        let shown = teller.shows_progress() && !is_dumb && std::io::stderr().is_terminal();
        let target = match shown {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.enable_steady_tick(Duration::from_millis(120));
        Self {
            bar,
            teller: teller.clone(),
        }
    }

    /// The progress whose events this report shows.
    pub fn listen(&self) -> Progress {
        let report = self.clone();
        Progress::new(move |happened| report.show(happened))
    }

    fn show(&self, happened: Happened) {
        match happened {
            Happened::RolledForward { commit } => {
                tracing::info!(
                    commit,
                    "finished publishing what an earlier run had committed"
                );
            }
            Happened::Reading {
                source,
                objects,
                bytes,
            } => {
                tracing::info!(source, objects, bytes, "reading raw objects");
                self.bar.set_length(bytes);
                self.bar.set_position(0);
                self.bar
                    .set_style(style("{msg} {wide_bar} {bytes}/{total_bytes} {eta}"));
                self.bar.set_message(format!("reading {source}"));
            }
            Happened::ObjectRead { bytes, records } => {
                tracing::debug!(bytes, records, "read a raw object");
                self.bar.inc(bytes);
            }
            Happened::Deciding { source } => self.step(format!("deciding duplicates of {source}")),
            Happened::Writing { source } => self.step(format!("writing {source}")),
            Happened::Staging { source } => self.step(format!("staging {source}")),
            Happened::Committed { commit } => {
                tracing::info!(commit, "committed");
                self.teller.note_commit(commit);
                self.step(format!("publishing commit {commit}"));
            }
            Happened::Published { commit, files } => tracing::info!(commit, files, "published"),
            Happened::Mart { name } => {
                tracing::info!(mart = name, "building");
                self.step(format!("building {name}"));
            }
            Happened::Telling { database } => {
                tracing::info!(database, "telling the catalog");
                self.step(format!("telling the catalog {database}"));
            }
        }
    }

    fn step(&self, message: String) {
        self.bar.set_style(style("{spinner} {msg}"));
        self.bar.set_message(plain(&message));
    }

    /// Removes the bar from the terminal.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Standard error, for the log and for the last messages of a process. Everything is written as plain text. An
/// error of writing is ignored, because work must not stop when nobody reads the messages.
pub fn stderr() -> impl Write {
    struct Patient<W>(W);
    impl<W: Write> Write for Patient<W> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.write_all(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            let _ = self.0.flush();
            Ok(())
        }
    }
    Patient(Plain::new(std::io::stderr()))
}

/// The result of an invocation.
#[derive(Debug)]
pub enum Outcome {
    /// The summary of a run or a rebuild.
    Run(RunSummary),
    /// The plan of a run or a rebuild.
    Plan {
        /// The plan.
        plan: RunPlan,
        /// Whether the exit code says what is planned.
        exit_code: bool,
    },
    /// A graph of marts.
    Drawn {
        /// The graph.
        drawn: Drawn,
        /// Whether it is printed for Mermaid.
        mermaid: bool,
    },
    /// The result of `verify`.
    Verified(Verified),
    /// The list of past commits.
    History(History),
    /// One past run.
    PastRun(PastRun),
    /// The project that was made.
    Initiated(Initiated),
    /// What was checked.
    Diagnosed(Diagnosis),
    /// The description of the tables.
    Tables(Tables),
    /// The SQL for a reader.
    Ddl(Script),
    /// The mart that was dropped.
    Dropped(Dropped),
    /// What was found of the tables.
    Linted(Linted),
    /// What became of events or of a record.
    Why(Why),
    /// The answer to a query.
    Answer(Answer),
    /// The results of the cases of marts.
    Tested(Tested),
    /// The dates of marts that have other rows over everything.
    Reached(Reached),
    /// The resolved configuration.
    Config(Box<Job>),
}

/// The reason why an invocation failed.
#[derive(Debug, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "the text of each error says what its fields are"
)]
pub enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(
        "interrupted by {0}; the next run finishes what was committed, and nothing else was changed"
    )]
    Interrupted(Signal),
    #[error("the current folder cannot be found ({0}): change to a folder that exists")]
    NoFolder(std::io::Error),
    #[error("the result cannot be written to stdout ({0}); the work itself is done")]
    Unprinted(std::io::Error),
    #[error("cannot write {}: {source}", file.display())]
    Unwritten {
        file: PathBuf,
        source: std::io::Error,
    },
    #[error("{0}; this is a defect of rawmart")]
    Defect(String),
}

/// A signal that ends a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl std::fmt::Display for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// The exit codes. A scheduler can act on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The work is done, or there is nothing to do.
    Done = 0,
    /// A defect of rawmart, or a full or failing local disk.
    Internal = 1,
    /// Wrong usage, configuration or SQL; a missing bucket or an unfit store.
    Usage = 2,
    /// The events are published, and a mart failed.
    MartFailed = 3,
    /// The run was refused: too many rejects, a changed raw object, or changed rules or columns.
    Refused = 4,
    /// Another run holds the lake or has changed it.
    Busy = 5,
    /// The store could not be reached or denied access.
    Store = 6,
    /// The lake is damaged, or a test of a mart failed.
    Damaged = 7,
    /// `plan --exit-code` found work to do.
    Work = 10,
    /// A SIGINT ended the process, as shells count it.
    Interrupted = 130,
    /// A SIGTERM ended the process, as shells count it.
    Terminated = 143,
}

impl Outcome {
    /// The exit code.
    pub fn exit(&self) -> Exit {
        let works = |plan: &RunPlan| plan.outcome() == PlanOutcome::Work;
        match (self.fault(), self) {
            (Some((code, _)), _) => code.exit(),
            (
                None,
                Self::Plan {
                    plan,
                    exit_code: true,
                },
            ) if works(plan) => Exit::Work,
            (None, _) => Exit::Done,
        }
    }

    /// What is wrong with the result, as a word and in a sentence. `None` where all is well.
    fn fault(&self) -> Option<(Code, String)> {
        match self {
            Self::Run(summary) => {
                let marts = self.marts_fault(summary.marts.len());
                let marts = with_silences(marts, &summary.silences);
                let catalog = summary.catalog.iter();
                let problems: Vec<_> = catalog.flat_map(|catalog| &catalog.problems).collect();
                match problems.first() {
                    Some(first) => Some(catalog_fault(first, &problems, marts)),
                    None => marts,
                }
            }
            Self::Verified(verified) => {
                let (damage, strays) = (verified.damage.len(), verified.strays.len());
                (damage + strays > 0).then(|| {
                    let message = format!(
                        "{} has {damage} faults and {strays} files that the log does not name",
                        verified.lake
                    );
                    (Code::Damaged, message)
                })
            }
            Self::Tested(tested) => (tested.failed() > 0).then(|| {
                let (failed, all) = (tested.failed(), tested.cases.len());
                let failing = tested.cases.iter();
                let failing = failing.filter(|tried| tried.outcome == TryOutcome::Failed);
                let names = failing.map(|tried| format!("{}/{}", tried.mart, tried.case));
                let names: Vec<String> = names.collect();
                let message = format!("{failed} of {all} cases failed: {}", names.join(", "));
                (Code::TestFailed, message)
            }),
            Self::Reached(reached) => (reached.differ() > 0).then(|| {
                let marts = reached.reached.iter();
                let marts = marts.filter(|mart| !mart.differ.is_empty());
                let dates = marts.flat_map(|mart| {
                    let dates = mart.differ.iter();
                    dates.map(|other| format!("{} {}", mart.mart, other.date))
                });
                let dates: Vec<String> = dates.collect();
                let message = format!(
                    "{} dates of marts have other rows over everything than over their reach: {}",
                    dates.len(),
                    dates.join(", ")
                );
                (Code::TestFailed, message)
            }),
            Self::Diagnosed(found) => diagnosed_fault(&found.checks),
            Self::Plan {
                plan,
                exit_code: true,
            } => plan.refusal().map(|(name, refusal)| {
                let code = code::of_refusal(refusal);
                (code, refusal.of(name))
            }),
            Self::Plan { .. }
            | Self::Drawn { .. }
            | Self::History(_)
            | Self::PastRun(_)
            | Self::Initiated(_)
            | Self::Tables(_)
            | Self::Ddl(_)
            | Self::Dropped(_)
            | Self::Linted(_)
            | Self::Why(_)
            | Self::Answer(_)
            | Self::Config(_) => None,
        }
    }

    /// What is wrong with the marts, of which there are `all`.
    fn marts_fault(&self, all: usize) -> Option<(Code, String)> {
        let failed = self.failed_marts();
        let reasons: Vec<String> = failed.iter().map(MartFailure::to_string).collect();
        let few = failed.len();
        (few > 0).then(|| {
            let message = format!("{few} of {all} marts failed: {}", reasons.join("; "));
            (Code::MartFailed, message)
        })
    }

    /// The marts that were not built.
    fn failed_marts(&self) -> Vec<MartFailure> {
        let Self::Run(summary) = self else {
            return Vec::new();
        };
        summary.marts.iter().filter_map(MartFailure::of).collect()
    }

    /// Whether the result only tells that the work was done.
    fn is_summary(&self) -> bool {
        match self {
            Self::Run(_) => true,
            Self::Verified(_) => self.exit() == Exit::Done,
            _ => false,
        }
    }

    fn write_text(
        &self,
        out: &mut impl Write,
        seconds: f64,
        reader: &Reader<'_>,
    ) -> std::io::Result<()> {
        match self {
            Self::Run(summary) => text::run(out, summary, seconds, reader),
            Self::Plan { plan, .. } => text::plan(out, plan, reader),
            Self::Drawn {
                drawn,
                mermaid: true,
            } => (drawn.mermaid().lines()).try_for_each(|line| writeln!(out, "{line}")),
            Self::Drawn { drawn, .. } => write!(out, "{drawn}"),
            Self::Verified(verified) => text::verified(out, verified, reader),
            Self::History(history) => text::history(out, history, reader.here),
            Self::PastRun(run) => text::past_run(out, run, reader.here),
            Self::Initiated(initiated) => text::initiated(out, initiated),
            Self::Diagnosed(found) => text::diagnosed(out, found),
            Self::Tables(tables) => text::tables(out, tables, reader.here),
            Self::Ddl(script) => write!(out, "{script}"),
            Self::Dropped(dropped) => text::dropped(out, dropped, reader.here),
            Self::Linted(linted) => text::linted(out, linted, reader.here),
            Self::Why(why) => text::why(out, why, reader.here),
            Self::Answer(answer) => answer.write(out),
            Self::Tested(tested) => text::tested(out, tested),
            Self::Reached(reached) => text::reached(out, reached),
            Self::Config(job) => text::config(out, job),
        }
    }
}

/// What is wrong with the marts of a run, and which sources are silent.
fn with_silences(marts: Option<(Code, String)>, silences: &[Silence]) -> Option<(Code, String)> {
    if silences.is_empty() {
        return marts;
    }
    let told: Vec<String> = silences.iter().map(text::silence).collect();
    let told = told.join("; ");
    Some(match marts {
        None => (Code::Silent, told),
        Some((code, message)) => (code, format!("{message}. {told}")),
    })
}

/// What is wrong with what a run needs. A store that cannot be reached may be reached later, so it counts last.
fn diagnosed_fault(checks: &[Check]) -> Option<(Code, String)> {
    let wrong: Vec<&Check> = checks.iter().filter(|check| !check.ok).collect();
    let code = |check: &Check| check.kind.map_or(Code::Configuration, code::of_kind);
    let codes = wrong.iter().map(|check| code(check));
    let first = codes.min_by_key(|code| match code.exit() {
        Exit::Usage => 0,
        _ => 1,
    })?;
    let first = match first.exit() {
        Exit::Usage | Exit::Store => first,
        _ => Code::Configuration,
    };
    let names: Vec<&str> = wrong.iter().map(|check| check.check.as_str()).collect();
    let message = format!(
        "{} of {} checks failed: {}",
        wrong.len(),
        checks.len(),
        names.join(", ")
    );
    Some((first, message))
}

/// What is wrong with the catalog of a run, and with its marts.
fn catalog_fault(
    first: &CatalogProblem,
    problems: &[&CatalogProblem],
    marts: Option<(Code, String)>,
) -> (Code, String) {
    let code = first.failure.map_or(Code::CatalogRefused, code::of_kind);
    let reasons: Vec<&str> = problems
        .iter()
        .map(|problem| problem.error.as_str())
        .collect();
    let marts = marts.map(|(_, message)| format!(". {message}"));
    let message = format!(
        "the tables are published, and the catalog is behind: {}{}",
        reasons.join("; "),
        marts.unwrap_or_default()
    );
    (code, message)
}

/// A mart that was not built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct MartFailure {
    name: String,
    reason: String,
}

impl MartFailure {
    fn of(mart: &MartSummary) -> Option<Self> {
        let reason = match &mart.outcome {
            MartOutcome::Failed { error } => error.clone(),
            MartOutcome::Skipped { because } => format!("it reads {because}, which was not built"),
            MartOutcome::Built | MartOutcome::Fresh => return None,
        };
        let name = mart.name.clone();
        Some(Self { name, reason })
    }
}

impl std::fmt::Display for MartFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

impl Failure {
    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.code().exit()
    }

    /// The message of the error, followed by its causes where they add something.
    fn message(&self) -> String {
        let mut message = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let text = error.to_string();
            // Transparent wrappers, and errors that quote their cause, would give the same text twice.
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = error.source();
        }
        message
    }

    /// The rejects that a run was refused for.
    fn rejects(&self) -> &[RejectsOf] {
        match self {
            Self::Run(
                RunError::Absorb(AbsorbError::TooManyRejects { found, .. })
                | RunError::Absorb(AbsorbError::TooMuchLost { found, .. }),
            ) => found,
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All exit codes. A new code does not compile without its line here.
    fn exits() -> Vec<Exit> {
        let mut exits = vec![Exit::Done];
        loop {
            exits.push(match exits[exits.len() - 1] {
                Exit::Done => Exit::Internal,
                Exit::Internal => Exit::Usage,
                Exit::Usage => Exit::MartFailed,
                Exit::MartFailed => Exit::Refused,
                Exit::Refused => Exit::Busy,
                Exit::Busy => Exit::Store,
                Exit::Store => Exit::Damaged,
                Exit::Damaged => Exit::Work,
                Exit::Work => Exit::Interrupted,
                Exit::Interrupted => Exit::Terminated,
                Exit::Terminated => return exits,
            });
        }
    }

    #[test]
    fn the_page_on_exit_codes_has_every_code_and_no_other() {
        let page = include_str!("../docs/exit-codes.md");
        let documented: Vec<u8> = crate::pages::table(page, "Exit codes")
            .iter()
            .map(|row| row[0].parse().unwrap())
            .collect();
        let known: Vec<u8> = exits().into_iter().map(|exit| exit as u8).collect();
        assert_eq!(documented, known);
    }
}
