//! The one line of JSON on stdout. `docs/output.schema.json` describes it.
//!
//! ```text
//! {"command": …, "exit": …, "outcome": …, "error": null | {…}, "seconds": …,   a result of the command }
//! ```

use serde::Serialize;
use serde_json::json;

use super::{Code, Failure, MartFailure, Outcome};
use crate::absorb::RejectsOf;
use crate::cli::Typing;
use crate::plan::PlanOutcome;
use crate::run::RunOutcome;

/// The members that every document begins with, and then the members of a result.
#[derive(Serialize)]
struct Document<'a, T> {
    /// `None` where no command was recognised.
    command: Option<&'a str>,
    exit: u8,
    outcome: Word,
    error: Option<Told>,
    seconds: f64,
    #[serde(flatten)]
    result: T,
}

/// How an invocation ended, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    Done,
    NothingNew,
    MartsFailed,
    CatalogBehind,
    Silent,
    Damaged,
    TestsFailed,
    /// A plan: there is work to do.
    Work,
    /// A plan: the run would refuse.
    Refused,
    Failed,
}

/// An error as programs read it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Told {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) remedy: String,
    /// Whether the message lacks the remedy.
    #[serde(skip)]
    pub(super) is_silent: bool,
    /// The URL of the store that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// The first rejects of each reason, where the run was refused for its rejects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rejects: Vec<RejectsOf>,
    /// The marts that were not built, in the order in which they are built.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    marts: Vec<MartFailure>,
}

impl Told {
    pub(super) fn of_failure(failure: &Failure, typing: &Typing) -> Self {
        Self {
            code: failure.code(),
            message: typing.with_flags(&failure.message()),
            remedy: typing.with_flags(failure.remedy()),
            is_silent: failure
                .of_store()
                .is_some_and(|error| error.hint().is_some()),
            url: failure.of_store().map(|error| error.url().to_owned()),
            rejects: failure.rejects().to_vec(),
            marts: Vec::new(),
        }
    }

    /// What is wrong with a command line.
    pub(super) fn of_usage(message: String, remedy: Option<String>) -> Self {
        Self {
            code: Code::Usage,
            message,
            remedy: remedy.unwrap_or_else(|| Code::Usage.remedy().to_owned()),
            is_silent: false,
            url: None,
            rejects: Vec::new(),
            marts: Vec::new(),
        }
    }

    /// What is wrong with a result: marts that were not built, a lake that is damaged.
    pub(super) fn of_outcome(outcome: &Outcome, typing: &Typing) -> Option<Self> {
        let (code, message) = outcome.fault()?;
        Some(Self {
            code,
            message: typing.with_flags(&message),
            remedy: typing.with_flags(code.remedy()),
            is_silent: false,
            url: None,
            rejects: Vec::new(),
            marts: outcome.failed_marts(),
        })
    }
}

/// Whole milliseconds.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1e3).round() / 1e3
}

/// The line for a result.
pub(super) fn of_outcome(outcome: &Outcome, typing: &Typing, seconds: f64) -> String {
    let error = Told::of_outcome(outcome, typing);
    let word = match (outcome, &error) {
        (Outcome::Plan { plan, .. }, _) => match plan.outcome() {
            PlanOutcome::Nothing => Word::NothingNew,
            PlanOutcome::Work => Word::Work,
            PlanOutcome::Refused => Word::Refused,
        },
        (_, Some(error)) if error.code == Code::MartFailed => Word::MartsFailed,
        (_, Some(error)) if error.code == Code::Silent => Word::Silent,
        (Outcome::Tested(_) | Outcome::Reached(_), Some(_)) => Word::TestsFailed,
        (Outcome::Run(_), Some(_)) => Word::CatalogBehind,
        (Outcome::Diagnosed(_), Some(_)) => Word::Failed,
        (_, Some(_)) => Word::Damaged,
        (Outcome::Run(summary), None) if summary.outcome == RunOutcome::NothingNew => {
            Word::NothingNew
        }
        (_, None) => Word::Done,
    };
    let head = (outcome.exit() as u8, word, error, seconds);
    match outcome {
        Outcome::Run(result) => line(typing, head, result),
        Outcome::Plan { plan: result, .. } => line(typing, head, result),
        Outcome::Drawn { drawn: result, .. } => line(typing, head, result),
        Outcome::Verified(result) => line(typing, head, result),
        Outcome::History(result) => line(typing, head, result),
        Outcome::PastRun(result) => line(typing, head, result),
        Outcome::Initiated(result) => line(typing, head, result),
        Outcome::Diagnosed(result) => line(typing, head, result),
        Outcome::Tables(result) => line(typing, head, result),
        Outcome::Ddl(result) => line(typing, head, result),
        Outcome::Dropped(result) => line(typing, head, result),
        Outcome::Linted(result) => line(typing, head, result),
        Outcome::Why(result) => line(typing, head, result),
        Outcome::Answer(answer) => {
            let result = json!({ "columns": answer.columns, "count": answer.rows });
            line(typing, head, result)
        }
        Outcome::Tested(result) => line(typing, head, result),
        Outcome::Reached(result) => line(typing, head, result),
        Outcome::Config(result) => line(typing, head, result.as_ref()),
    }
}

/// The line for an invocation that has no result. `commits` are those that it made before it failed.
pub(super) fn of_error(
    exit: u8,
    error: Told,
    commits: &[u64],
    typing: &Typing,
    seconds: f64,
) -> String {
    let head = (exit, Word::Failed, Some(error), seconds);
    line(typing, head, json!({ "commits": commits }))
}

/// The line for help and for the version.
pub(super) fn of_text(text: &str, typing: &Typing) -> String {
    line(typing, (0, Word::Done, None, 0.0), json!({ "text": text }))
}

fn line<T: Serialize>(
    typing: &Typing,
    (exit, outcome, error, seconds): (u8, Word, Option<Told>, f64),
    result: T,
) -> String {
    let document = Document {
        command: typing.command.as_deref(),
        exit,
        outcome,
        error,
        seconds: rounded(seconds),
        result,
    };
    // No value of a result is a map with keys that are no text, the only reason why this could fail.
    serde_json::to_string(&document).unwrap_or_else(|error| {
        let failure = Failure::Defect(format!("the result has no JSON: {error}"));
        let told = Told::of_failure(&failure, typing);
        json!({"command": typing.command, "exit": told.code.exit() as u8, "outcome": Word::Failed, "error": told,
               "seconds": seconds, "commits": []})
        .to_string()
    })
}
