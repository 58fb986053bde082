//! Tells people and programs about a run: events → progress bars, summaries → text or JSON, errors → exit
//! codes. Nothing in this room changes what a run does.
//!
//! ```text
//! run ──Happened──▶ Progress ──▶ Report ──▶ bar on a terminal │ log lines
//! RunSummary, RunPlan, Verified ──▶ stdout: text │ one JSON document
//! RunError ──▶ stderr: what, where, what to do ──▶ exit code
//! ```

mod plain;
mod text;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::absorb::{AbsorbError, RejectsOf};
use crate::catalog::ddl::Script;
use crate::cli::Output;
use crate::config::{ConfigError, Job};
use crate::lake::LakeError;
use crate::ledger::LedgerError;
use crate::plan::RunPlan;
use crate::progress::{Happened, Progress};
use crate::publish::{PublishError, StoredError, WriteError};
use crate::raw::DiscoverError;
use crate::run::{History, MartOutcome, PastRun, RunError, RunSummary, Tables, Verified};
use crate::store::{StoreError, StoreErrorKind};
use plain::{Plain, plain};

/// Shows on the terminal and in the log what happens. All clones show it in the same place.
#[derive(Clone)]
pub struct Report {
    bar: ProgressBar,
}

impl Report {
    /// With `quiet`, or if stderr is a pipe, no bar is shown.
    pub fn new(quiet: bool) -> Self {
        let target = if quiet || !std::io::stderr().is_terminal() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar }
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
                self.step(format!("publishing commit {commit}"));
            }
            Happened::Published { commit, files } => tracing::info!(commit, files, "published"),
            Happened::Mart { name } => {
                tracing::info!(mart = name, "building");
                self.step(format!("building {name}"));
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

/// Prints the answer to a command line: help and the version to stdout, errors of the arguments to stderr.
pub fn usage(answer: &clap::Error) {
    // If the stream is closed, nobody reads the answer.
    let _ = match answer.use_stderr() {
        true => {
            (answer.render().to_string().lines()).try_for_each(|line| writeln!(stderr(), "{line}"))
        }
        false => answer.print(),
    };
}

/// The result of an invocation.
#[derive(Debug)]
pub enum Outcome {
    Run(RunSummary),
    Plan(RunPlan),
    Verified(Verified),
    History(History),
    PastRun(PastRun),
    Tables(Tables),
    Ddl(Script),
    Config(Box<Job>),
}

/// The reason why an invocation failed.
#[derive(Debug, thiserror::Error)]
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
    #[error("{0}; this is a defect of rawmart")]
    Defect(String),
}

/// A signal that ends a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Interrupt,
    Terminate,
}

impl Signal {
    const fn exit(self) -> Exit {
        match self {
            Self::Interrupt => Exit::Interrupted,
            Self::Terminate => Exit::Terminated,
        }
    }
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
    Done = 0,
    Internal = 1,
    Usage = 2,
    MartFailed = 3,
    Refused = 4,
    Busy = 5,
    Store = 6,
    Damaged = 7,
    /// The codes that shells give for SIGINT and SIGTERM.
    Interrupted = 130,
    Terminated = 143,
}

impl Outcome {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Run(summary) => {
                let failed = |mart: &crate::run::MartSummary| {
                    matches!(
                        mart.outcome,
                        MartOutcome::Failed { .. } | MartOutcome::Skipped { .. }
                    )
                };
                if summary.marts.iter().any(failed) {
                    Exit::MartFailed
                } else {
                    Exit::Done
                }
            }
            Self::Verified(verified)
                if !verified.damage.is_empty() || !verified.strays.is_empty() =>
            {
                Exit::Damaged
            }
            Self::Plan(_)
            | Self::Verified(_)
            | Self::History(_)
            | Self::PastRun(_)
            | Self::Tables(_)
            | Self::Ddl(_)
            | Self::Config(_) => Exit::Done,
        }
    }

    /// Prints the result to stdout, with the duration in seconds. `here` is the current folder of the reader.
    ///
    /// # Errors
    /// stdout is closed or full.
    pub fn print(&self, output: Output, seconds: f64, here: Option<&Path>) -> std::io::Result<()> {
        let stdout = std::io::stdout().lock();
        // The values in a statement must reach its reader unchanged.
        if matches!(self, Self::Ddl(_)) && !stdout.is_terminal() {
            return self.write(std::io::BufWriter::new(stdout), output, seconds, here);
        }
        self.write(Plain::new(stdout), output, seconds, here)
    }

    fn write(
        &self,
        mut out: impl Write,
        output: Output,
        seconds: f64,
        here: Option<&Path>,
    ) -> std::io::Result<()> {
        match output {
            Output::Json => self.write_json(&mut out, seconds)?,
            Output::Text => self.write_text(&mut out, seconds, here)?,
        }
        out.flush()
    }

    fn write_json(&self, out: &mut impl Write, seconds: f64) -> std::io::Result<()> {
        match self {
            Self::Run(summary) => {
                #[derive(Serialize)]
                struct Timed<'a> {
                    #[serde(flatten)]
                    summary: &'a RunSummary,
                    seconds: f64,
                }
                json(out, &Timed { summary, seconds })
            }
            Self::Plan(plan) => json(out, plan),
            Self::Verified(verified) => json(out, verified),
            Self::History(history) => json(out, history),
            Self::PastRun(run) => json(out, run),
            Self::Tables(tables) => json(out, tables),
            Self::Ddl(script) => json(out, script),
            Self::Config(job) => json(out, job.as_ref()),
        }
    }

    fn write_text(
        &self,
        out: &mut impl Write,
        seconds: f64,
        here: Option<&Path>,
    ) -> std::io::Result<()> {
        match self {
            Self::Run(summary) => text::run(out, summary, seconds, here),
            Self::Plan(plan) => text::plan(out, plan),
            Self::Verified(verified) => text::verified(out, verified, here),
            Self::History(history) => text::history(out, history, here),
            Self::PastRun(run) => text::past_run(out, run, here),
            Self::Tables(tables) => text::tables(out, tables, here),
            Self::Ddl(script) => write!(out, "{script}"),
            Self::Config(job) => text::config(out, job),
        }
    }
}

fn json<T: Serialize>(out: &mut impl Write, value: &T) -> std::io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// The exit code of a store that failed. A full disk does not become usable by itself.
fn of_store(error: &StoreError) -> Exit {
    match error.kind() {
        StoreErrorKind::Full => Exit::Internal,
        _ => Exit::Store,
    }
}

/// The exit code where a lake could not be opened or changed.
fn of_lake(error: &LakeError) -> Exit {
    match error {
        LakeError::Store(error) | LakeError::Ledger(LedgerError::Store(error)) => of_store(error),
        LakeError::Publish(error) => of_publishing(error),
        LakeError::Locked { .. } | LakeError::Ledger(LedgerError::Lost { .. }) => Exit::Busy,
        LakeError::Ledger(
            LedgerError::Damaged { .. }
            | LedgerError::Format { .. }
            | LedgerError::Gap { .. }
            | LedgerError::Unmarked { .. }
            | LedgerError::DamagedMarker { .. }
            | LedgerError::DamagedSpare { .. }
            | LedgerError::NoLog { .. },
        ) => Exit::Damaged,
        // Another attempt does not make a store fit.
        LakeError::Ledger(LedgerError::Unconditional { .. }) => Exit::Usage,
        LakeError::Ledger(LedgerError::Unwritable { .. }) | LakeError::Defect(_) => Exit::Internal,
    }
}

/// The exit code where data files could not be staged or published.
fn of_publishing(error: &PublishError) -> Exit {
    match error {
        PublishError::Store(error) => of_store(error),
        PublishError::Overtaken { .. } => Exit::Busy,
        PublishError::Foreign { .. }
        | PublishError::StagedGone { .. }
        | PublishError::DamagedStage { .. } => Exit::Damaged,
        PublishError::TooLarge { .. } => Exit::Usage,
        PublishError::Local { .. } => Exit::Internal,
    }
}

/// The exit code where data files could not be read or written.
fn of_writing(error: &WriteError) -> Exit {
    match error {
        WriteError::Stored(StoredError::Store(error)) => of_store(error),
        WriteError::Stored(_) => Exit::Damaged,
        WriteError::Spill { .. }
        | WriteError::Parquet { .. }
        | WriteError::Arrow(_)
        | WriteError::NotStaged
        | WriteError::Defect(_) => Exit::Internal,
    }
}

impl Failure {
    pub fn exit(&self) -> Exit {
        let error = match self {
            Self::Config(_) => return Exit::Usage,
            Self::Interrupted(signal) => return signal.exit(),
            Self::NoFolder(_) => return Exit::Usage,
            Self::Unprinted(_) | Self::Defect(_) => return Exit::Internal,
            Self::Run(error) => error,
        };
        match error {
            RunError::Lake(error) => of_lake(error),
            RunError::Store(error)
            | RunError::Discover(DiscoverError::Store(error))
            | RunError::Absorb(AbsorbError::Store(error)) => of_store(error),
            RunError::Absorb(AbsorbError::Publish(error)) => of_publishing(error),
            RunError::Write(error) | RunError::Absorb(AbsorbError::Write(error)) => {
                of_writing(error)
            }
            RunError::Absorb(AbsorbError::Gone { .. }) => Exit::Store,
            RunError::Absorb(AbsorbError::Irreparable { .. }) => Exit::Damaged,
            RunError::Discover(_)
            | RunError::Absorb(AbsorbError::Key { .. })
            | RunError::Mart(_)
            | RunError::Config(_)
            | RunError::Reference(_)
            | RunError::NoSuchRun { .. }
            | RunError::Absorb(AbsorbError::NoSpillFolder { .. }) => Exit::Usage,
            RunError::Absorb(AbsorbError::Rule { .. })
            | RunError::Absorb(AbsorbError::TooManyRejects { .. })
            | RunError::Absorb(AbsorbError::TooMuchLost { .. })
            | RunError::Refused { .. }
            | RunError::Absorb(AbsorbError::OnlyRaw { .. }) => Exit::Refused,
            RunError::Absorb(AbsorbError::Unbalanced(_))
            | RunError::Absorb(AbsorbError::Defect(_))
            | RunError::Defect(_)
            | RunError::Engine(_) => Exit::Internal,
        }
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

    /// Prints the error to stderr.
    pub fn print(&self) {
        let message = self.message();
        let mut err = stderr();
        let _ = err.write_all(format!("error: {message}\n").as_bytes());
        let _ = text::rejects(&mut err, self.rejects());
    }

    /// Prints the failure to stdout as JSON.
    pub fn print_json(&self) {
        #[derive(Serialize)]
        struct Failed<'a> {
            exit: u8,
            error: String,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            rejects: &'a [RejectsOf],
        }
        let failed = Failed {
            exit: self.exit() as u8,
            error: self.message(),
            rejects: self.rejects(),
        };
        // If the pipe is closed, nobody reads the failure.
        let _ = json(&mut Plain::new(std::io::stdout().lock()), &failed);
    }

    /// The rejects that were the reason for refusing a run.
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
                Exit::Damaged => Exit::Interrupted,
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
