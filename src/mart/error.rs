//! The error of a mart, and what the engine's errors say of themselves.

use std::fmt;
use std::path::{Path, PathBuf};

use datafusion::common::DataFusionError;

/// An error of a mart, with its remedy.
#[derive(Debug, thiserror::Error)]
pub struct MartError {
    /// The SQL file.
    pub file: PathBuf,
    /// The line in the file, from 1.
    pub line: Option<usize>,
    /// The problem.
    pub message: String,
    /// The remedy.
    pub hint: Option<String>,
}

impl fmt::Display for MartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.file))?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl MartError {
    /// An error without a hint.
    pub(super) fn new(file: &Path, line: Option<usize>, message: impl Into<String>) -> Self {
        Self {
            file: file.to_path_buf(),
            line,
            message: message.into(),
            hint: None,
        }
    }

    /// The error with a hint.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The path of a file as messages show it.
pub(super) fn shown(file: &Path) -> String {
    file.display().to_string()
}

/// The error at the root of a chain of errors. Where several errors were collected, the first one.
pub(super) fn root(error: &DataFusionError) -> &DataFusionError {
    error.iter().next().unwrap_or(error).find_root()
}

/// Whether an error says that the memory of the engine was too small.
pub fn lacks_memory(error: &DataFusionError) -> bool {
    matches!(root(error), DataFusionError::ResourcesExhausted(_))
}

/// The line of the SQL that DataFusion points at, from 1.
pub(super) fn line_of(error: &DataFusionError) -> Option<usize> {
    let span = error.diagnostic()?.span?;
    usize::try_from(span.start.line)
        .ok()
        .filter(|line| *line > 0)
}

/// A text with all white space as single spaces.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The most characters of a message of the engine that are shown.
const SHORT: usize = 400;

/// The beginning of the engine's text, on one line: the debug form of a plan would fill a screen.
pub(super) fn short(text: &str) -> String {
    let text = one_line(text);
    // DataFusion asks its users to report faults. The reader of this message is no user of DataFusion.
    let text = match text.split_once(" This issue was likely caused by a bug in DataFusion") {
        Some((said, _)) => said.to_owned(),
        None => text,
    };
    match text.char_indices().nth(SHORT) {
        None => text,
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}
