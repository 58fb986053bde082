//! Tells the end of one invocation: the result on stdout, an error on stderr, the exit code.
//!
//! ```text
//! Outcome, Failure, a wrong command line ──▶ Teller ─┬─▶ stdout: text │ one line of JSON
//!                                                    ├─▶ stderr: text │ lines of JSON
//!                                                    └─▶ exit code
//! ```

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::document::{self, Told};
use super::plain::Plain;
use super::text::Reader;
use super::{Exit, Failure, Outcome, stderr, text};
use crate::cli::{Forms, LogFormat, Output, Request, Typing};

/// How one invocation is told. A clone tells the same invocation.
#[derive(Clone)]
pub struct Teller {
    typing: Typing,
    output: Output,
    log_format: LogFormat,
    /// Whether only errors are printed.
    quiet: bool,
    /// The folder in which the result is read.
    here: Option<PathBuf>,
    begun: Instant,
    /// Commits that this invocation made.
    commits: Arc<Mutex<Vec<u64>>>,
    /// Whether the end was told.
    told: Arc<AtomicBool>,
}

impl Teller {
    /// The teller of a request that began at `begun`, for a reader in the folder `here`.
    pub fn new(request: &Request, begun: Instant, here: Option<PathBuf>) -> Self {
        Self {
            typing: request.typing.clone(),
            output: request.output,
            log_format: request.log_format,
            quiet: request.verbosity < 0,
            here,
            begun,
            commits: Arc::default(),
            told: Arc::default(),
        }
    }

    /// The teller of a command line that is no request.
    pub fn of_forms(forms: Forms, begun: Instant) -> Self {
        Self {
            typing: Typing::of_wrong_line(forms.command),
            output: forms.output,
            log_format: forms.log_format,
            quiet: false,
            here: None,
            begun,
            commits: Arc::default(),
            told: Arc::default(),
        }
    }

    /// Notes a commit that this invocation made.
    pub(super) fn note_commit(&self, commit: u64) {
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        commits.push(commit);
    }

    /// Whether progress is shown on a terminal.
    pub(super) fn shows_progress(&self) -> bool {
        !self.quiet && self.log_format == LogFormat::Text
    }

    /// Whether the end is still to be told. Two threads may come here: one that has a result, and one that had a
    /// signal.
    fn is_first(&self) -> bool {
        !self.told.swap(true, Ordering::SeqCst)
    }

    /// Tells a result, and gives the exit code.
    pub fn outcome(&self, outcome: &Outcome) -> Exit {
        if !self.is_first() {
            return outcome.exit();
        }
        if let Some(told) = Told::of_outcome(outcome, &self.typing) {
            self.to_stderr(&told, outcome.exit());
        }
        match self.result(outcome) {
            Ok(()) => outcome.exit(),
            // The reader that closed the pipe has read enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => outcome.exit(),
            Err(error) => {
                let failure = Failure::Unprinted(error);
                self.error(&failure);
                match outcome.exit() {
                    Exit::Done => failure.exit(),
                    worse => worse,
                }
            }
        }
    }

    /// Tells a failure, and gives the exit code.
    pub fn failure(&self, failure: &Failure) -> Exit {
        if self.is_first() {
            let told = self.error(failure);
            let exit = failure.exit() as u8;
            self.to_stdout(|teller| {
                let commits = teller.commits.lock();
                let commits = commits.unwrap_or_else(PoisonError::into_inner);
                document::of_error(exit, told, &commits, &teller.typing, teller.seconds())
            });
        }
        failure.exit()
    }

    /// Tells a panic, whose message the panic hook has told, and gives the exit code.
    pub fn panicked(&self, message: &str) -> Exit {
        let failure = Failure::Defect(message.to_owned());
        let told = Told::of_failure(&failure, &self.typing);
        let exit = failure.exit();
        if self.is_first() {
            self.to_stdout(|teller| {
                document::of_error(exit as u8, told, &[], &teller.typing, teller.seconds())
            });
        }
        exit
    }

    /// Tells a panic as it happens.
    pub fn panic(&self, message: &str) {
        self.error(&Failure::Defect(message.to_owned()));
    }

    /// Tells what the command line was answered, and gives the exit code: help and the version are results, anything
    /// else is an error.
    pub fn usage(&self, answer: &clap::Error) -> Exit {
        if !answer.use_stderr() {
            match self.output {
                // If the stream is closed, nobody reads the message.
                Output::Text => drop(answer.print()),
                Output::Json => {
                    let text = answer.render().to_string();
                    self.to_stdout(|teller| document::of_text(&text, &teller.typing));
                }
            }
            return Exit::Done;
        }
        let text = answer.render().to_string();
        let told = usage(&text);
        match self.log_format {
            LogFormat::Text => {
                let mut err = stderr();
                let _ = (text.lines()).try_for_each(|line| writeln!(err, "{line}"));
            }
            LogFormat::Json => self.to_stderr(&told, Exit::Usage),
        }
        let exit = Exit::Usage as u8;
        self.to_stdout(|teller| {
            document::of_error(exit, told, &[], &teller.typing, teller.seconds())
        });
        Exit::Usage
    }

    fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Prints an error to stderr.
    fn error(&self, failure: &Failure) -> Told {
        let told = Told::of_failure(failure, &self.typing);
        self.to_stderr(&told, failure.exit());
        if self.log_format == LogFormat::Text {
            let _ = text::rejects(&mut stderr(), failure.rejects());
        }
        told
    }

    /// Prints an error to stderr as one line.
    fn to_stderr(&self, told: &Told, exit: Exit) {
        match self.log_format {
            LogFormat::Text => {
                let remedy = match told.is_silent {
                    true => format!("; {}", told.remedy),
                    false => String::new(),
                };
                // One piece: lines within a message are indented.
                let line = format!("error: {}{remedy}\n", told.message);
                let _ = stderr().write_all(line.as_bytes());
            }
            LogFormat::Json => {
                let (code, exit) = (told.code.word(), exit as u8);
                tracing::error!(code, exit, remedy = told.remedy, "{}", told.message);
            }
        }
    }

    /// Prints a line of JSON to stdout, where the result is asked for as JSON.
    fn to_stdout(&self, line: impl FnOnce(&Self) -> String) {
        if self.output == Output::Json {
            let mut out = Plain::new(std::io::stdout().lock());
            // The reader that closed the pipe wants nothing more.
            let _ = writeln!(out, "{}", line(self)).and_then(|()| out.flush());
        }
    }

    /// Prints a result to stdout.
    ///
    /// # Errors
    /// stdout is closed or full.
    fn result(&self, outcome: &Outcome) -> std::io::Result<()> {
        let stdout = std::io::stdout().lock();
        if self.output == Output::Json {
            let line = document::of_outcome(outcome, &self.typing, self.seconds());
            let mut out = Plain::new(stdout);
            match (outcome, line.strip_suffix('}')) {
                // The rows may be more than the memory holds.
                (Outcome::Answer(answer), Some(line)) => {
                    write!(out, "{line},\"rows\":")?;
                    answer.write(&mut out)?;
                    writeln!(out, "}}")?;
                }
                _ => writeln!(out, "{line}")?,
            }
            return out.flush();
        }
        if self.quiet && outcome.is_summary() {
            return Ok(());
        }
        // A value in a statement or in a row must come to its reader as it is.
        let is_verbatim = matches!(outcome, Outcome::Ddl(_) | Outcome::Answer(_));
        if is_verbatim && !stdout.is_terminal() {
            return self.write(std::io::BufWriter::new(stdout), outcome);
        }
        self.write(Plain::new(stdout), outcome)
    }

    fn write(&self, mut out: impl Write, outcome: &Outcome) -> std::io::Result<()> {
        let reader = Reader {
            here: self.here.as_deref(),
            typing: &self.typing,
        };
        outcome.write_text(&mut out, self.seconds(), &reader)?;
        out.flush()
    }
}

/// An error of the command line, from its text: a paragraph that says what is wrong, perhaps one with a tip, then the
/// usage.
fn usage(text: &str) -> Told {
    let paragraphs = text.split("\n\n").map(|paragraph| {
        let words = paragraph.split_whitespace();
        words.collect::<Vec<_>>().join(" ")
    });
    let (mut message, mut remedy) = (String::new(), None);
    for paragraph in paragraphs {
        if let Some(wrong) = paragraph.strip_prefix("error: ") {
            message = wrong.to_owned();
        } else if let Some(tip) = paragraph.strip_prefix("tip: ") {
            remedy = Some(tip.to_owned());
        }
    }
    if message.is_empty() {
        // A command line without a command is answered with the help.
        message = "no command was given".to_owned();
    }
    Told::of_usage(message, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Code;

    #[test]
    fn an_error_of_the_command_line_is_a_sentence_and_a_tip() {
        let of = |line: &str| {
            let args = line.split(' ').map(std::ffi::OsString::from);
            usage(&crate::cli::parse(args).unwrap_err().render().to_string())
        };
        let told = of("rawmart run --sauce x");
        assert_eq!(told.code, Code::Usage);
        assert_eq!(told.message, "unexpected argument '--sauce' found");
        assert_eq!(told.remedy, "a similar argument exists: '--source'");
        let told = of("rawmart rebuild --from 2019-04-02");
        assert_eq!(
            told.message,
            "the following required arguments were not provided: --to <DATE>"
        );
        assert_eq!(told.remedy, Code::Usage.remedy());
        assert_eq!(of("rawmart").message, "no command was given");
    }

    #[test]
    fn the_end_is_told_once() {
        let teller = Teller::of_forms(Forms::default(), Instant::now());
        let other = teller.clone();
        assert!(teller.is_first());
        assert!(!other.is_first());
    }
}
