//! The closed list of words for why an invocation did not do all that was asked. `docs/exit-codes.md` lists them.

use serde::Serialize;

use super::{Exit, Failure, Signal};
use crate::absorb::AbsorbError;
use crate::engine::EngineError;
use crate::lake::LakeError;
use crate::ledger::LedgerError;
use crate::plan::Refusal;
use crate::publish::{PublishError, StoredError, WriteError};
use crate::raw::DiscoverError;
use crate::run::RunError;
use crate::store::{StoreError, StoreErrorKind, is_full};

/// One word for a kind of failure. Each word has one exit code and one general remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The program contradicts itself.
    Defect,
    /// The disk of the lake or of the spill folder has no space left.
    DiskFull,
    /// The spill folder cannot be written or read.
    SpillFailed,
    /// The result cannot be written to stdout, or to the file that was asked for.
    Unprinted,
    /// The command line is wrong.
    Usage,
    /// The configuration is wrong.
    Configuration,
    /// The SQL of a mart or of a query is wrong.
    Sql,
    /// The file of a reference is missing or cannot be read as it is declared.
    Reference,
    /// There are no raw objects where the configuration says.
    NoRaw,
    /// The bucket does not exist.
    NoSuchBucket,
    /// The store refuses the credentials, or what was asked with them.
    AccessDenied,
    /// No credentials are configured.
    NoCredentials,
    /// No region is configured, or another one than the bucket's.
    WrongRegion,
    /// A file lies where a folder is needed.
    NotAFolder,
    /// The URL names no store that can be used.
    BadUrl,
    /// The store lacks a feature that is needed, or its listing is larger than the memory.
    UnfitStore,
    /// The spill folder does not exist, or nothing can be made in it.
    NoSpillFolder,
    /// A data file is larger than one request can write.
    FileTooLarge,
    /// The lake has no such run or commit.
    NoSuchRun,
    /// The events are published, and a mart is not.
    MartFailed,
    /// The events are published, and a source is silent for longer than it, or a mart, allows.
    Silent,
    /// More records or bytes are rejects than `max_rejects` allows.
    TooManyRejects,
    /// Raw objects have keys that cannot be requested.
    UnreadableKeys,
    /// Absorbed raw objects have other content now.
    ChangedObjects,
    /// Absorbed raw objects that are needed no longer exist.
    MissingObjects,
    /// A raw object is to be dropped that was never absorbed.
    NotAbsorbed,
    /// Rules or columns have changed over published dates.
    SettingsChanged,
    /// A rule fails on a value.
    RuleFailed,
    /// The tables are published, and the catalog refuses a table or a partition.
    CatalogRefused,
    /// Another run holds the lake.
    Locked,
    /// Another run changed the lake meanwhile.
    Overtaken,
    /// A store gave no usable answer for as long as a request is tried.
    Unreachable,
    /// The credentials have expired, or could not be renewed.
    CredentialsExpired,
    /// A raw object was deleted between its listing and its reading.
    RawObjectGone,
    /// A store failed in another way.
    StoreFailed,
    /// The lake is damaged.
    Damaged,
    /// A case of a mart failed, or a date of a mart has other rows over more dates.
    TestFailed,
    /// SIGINT.
    Interrupted,
    /// SIGTERM.
    Terminated,
}

impl Code {
    /// The exit code. One word has one exit code.
    pub const fn exit(self) -> Exit {
        match self {
            Self::Defect | Self::DiskFull | Self::SpillFailed | Self::Unprinted => Exit::Internal,
            Self::Usage
            | Self::Configuration
            | Self::Sql
            | Self::Reference
            | Self::NoRaw
            | Self::NoSuchBucket
            | Self::AccessDenied
            | Self::NoCredentials
            | Self::WrongRegion
            | Self::NotAFolder
            | Self::BadUrl
            | Self::UnfitStore
            | Self::NoSpillFolder
            | Self::FileTooLarge
            | Self::NoSuchRun => Exit::Usage,
            Self::MartFailed | Self::Silent => Exit::MartFailed,
            Self::TooManyRejects
            | Self::UnreadableKeys
            | Self::ChangedObjects
            | Self::MissingObjects
            | Self::NotAbsorbed
            | Self::SettingsChanged
            | Self::RuleFailed
            | Self::CatalogRefused => Exit::Refused,
            Self::Locked | Self::Overtaken => Exit::Busy,
            Self::Unreachable
            | Self::CredentialsExpired
            | Self::RawObjectGone
            | Self::StoreFailed => Exit::Store,
            Self::Damaged | Self::TestFailed => Exit::Damaged,
            Self::Interrupted => Exit::Interrupted,
            Self::Terminated => Exit::Terminated,
        }
    }

    /// The word itself, as JSON has it.
    pub(super) fn word(self) -> String {
        let word = serde_json::to_value(self).unwrap_or_default();
        word.as_str().unwrap_or_default().to_owned()
    }

    /// The general remedy, in one sentence. An error often knows more: see `Failure::remedy`.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Defect => "Report this as a defect, with the message.",
            Self::DiskFull => "Free space on the disk that the message names, then run again.",
            Self::SpillFailed => "Set spill_dir to a folder on a disk that works.",
            Self::Unprinted => "Let the result go to a file or a program that takes it.",
            Self::Usage => "`--help` after the command lists its flags.",
            Self::Configuration => "Correct the setting that the message names.",
            Self::Sql => "Correct the SQL at the line that the message names.",
            Self::Reference => {
                "Correct the file of the reference, or its columns in the configuration."
            }
            Self::NoRaw => "Correct `raw` or `layout` of the source.",
            Self::NoSuchBucket => "Create the bucket, or correct its name in the configuration.",
            Self::AccessDenied => "Check the credentials in use and their permissions on the URL.",
            Self::NoCredentials => "Set AWS_PROFILE, or run where a role is attached.",
            Self::WrongRegion => "Set AWS_REGION to the region of the bucket.",
            Self::NotAFolder => "Name a folder in the configuration.",
            Self::BadUrl => "Correct the URL in the configuration.",
            Self::UnfitStore => "Use a store that keeps conditional writes, or give more --memory.",
            Self::NoSpillFolder => "Set spill_dir to a folder that exists and can be written.",
            Self::FileTooLarge => "Set a smaller `slice` for the source, or partition the mart.",
            Self::NoSuchRun => "`rawmart history` names the runs and commits.",
            Self::MartFailed => "Correct the mart that the message names, then run again.",
            Self::Silent => {
                "Find out why no raw object arrives, or allow more with `fresh_within`."
            }
            Self::TooManyRejects => {
                "Correct the configuration, or accept the rejects once with --max-rejects 100%."
            }
            Self::UnreadableKeys => "Copy the raw objects to other keys, or exclude them.",
            Self::ChangedObjects => {
                "Restore the raw objects, or take their new content with `rawmart run --replace-changed`."
            }
            Self::MissingObjects => {
                "Restore the raw objects, or give their events up with the command that the message names."
            }
            Self::NotAbsorbed => "Name a raw object as `rawmart history COMMIT` prints it.",
            Self::SettingsChanged => {
                "Run the rebuild that the message names, or take the change back."
            }
            Self::RuleFailed => "Write the rule so that every event has a value.",
            Self::CatalogRefused => {
                "Correct the table of the catalog that the message names, then run again."
            }
            Self::Locked | Self::Overtaken => "Run again.",
            Self::Unreachable | Self::StoreFailed => {
                "Check the network and the endpoint, then run again."
            }
            Self::CredentialsExpired => "Renew the login, then run again.",
            Self::RawObjectGone => "Run again.",
            Self::Damaged => {
                "`rawmart verify` names the damage, `rawmart verify --repair` repairs it."
            }
            Self::TestFailed => {
                "Correct the mart that the message names, or its expected rows with `rawmart test --bless`."
            }
            Self::Interrupted | Self::Terminated => "Run again: the next run goes on.",
        }
    }
}

impl Failure {
    /// The word for this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Config(_) => Code::Configuration,
            Self::Interrupted(Signal::Interrupt) => Code::Interrupted,
            Self::Interrupted(Signal::Terminate) => Code::Terminated,
            Self::NoFolder(_) => Code::Usage,
            Self::Unprinted(_) | Self::Unwritten { .. } => Code::Unprinted,
            Self::Defect(_) => Code::Defect,
            Self::Run(error) => of_run(error),
        }
    }

    /// The failure of a store that is the reason.
    pub(super) fn of_store(&self) -> Option<&StoreError> {
        let Self::Run(error) = self else { return None };
        match error {
            RunError::Store(error)
            | RunError::Lake(
                LakeError::Store(error)
                | LakeError::Ledger(LedgerError::Store(error))
                | LakeError::Publish(PublishError::Store(error)),
            )
            | RunError::Discover(DiscoverError::Store(error))
            | RunError::Write(WriteError::Stored(StoredError::Store(error)))
            | RunError::Absorb(
                AbsorbError::Store(error)
                | AbsorbError::Publish(PublishError::Store(error))
                | AbsorbError::Write(WriteError::Stored(StoredError::Store(error))),
            ) => Some(error),
            _ => None,
        }
    }

    /// The remedy of this failure, or the general remedy of its kind.
    pub(super) fn remedy(&self) -> &str {
        let hint = self.of_store().and_then(StoreError::hint);
        hint.unwrap_or_else(|| self.code().remedy())
    }
}

fn of_run(error: &RunError) -> Code {
    match error {
        RunError::Store(error) | RunError::Discover(DiscoverError::Store(error)) => of_store(error),
        RunError::Lake(error) => of_lake(error),
        RunError::Absorb(error) => of_absorbing(error),
        RunError::Write(error) => of_writing(error),
        RunError::Refused { refusal, .. } => of_refusal(refusal),
        RunError::Discover(
            DiscoverError::Unplaced { .. }
            | DiscoverError::NoFolder { .. }
            | DiscoverError::NoObject { .. },
        ) => Code::NoRaw,
        RunError::Discover(DiscoverError::Layout { .. } | DiscoverError::Exclude { .. })
        | RunError::Config(_) => Code::Configuration,
        RunError::Mart(_) => Code::Sql,
        RunError::Reference(_) => Code::Reference,
        RunError::NoSuchRun { .. } => Code::NoSuchRun,
        RunError::NoSuchMart { .. } | RunError::StillMade { .. } => Code::Usage,
        RunError::Unreadable(_) => Code::Configuration,
        RunError::NoMarts { .. } => Code::Configuration,
        RunError::Engine(EngineError::Spill { source, .. }) => of_spilling(source),
        RunError::Engine(EngineError::Runtime { .. }) | RunError::Defect(_) => Code::Defect,
    }
}

/// The word for a refusal.
pub(super) const fn of_refusal(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::Unreadable { .. } => Code::UnreadableKeys,
        Refusal::Changed { .. } => Code::ChangedObjects,
        Refusal::Vanished { .. } => Code::MissingObjects,
        Refusal::Settings { .. } | Refusal::OnlyWhole { .. } | Refusal::Published { .. } => {
            Code::SettingsChanged
        }
        Refusal::NotAbsorbed { .. } => Code::NotAbsorbed,
    }
}

/// The word where a lake could not be opened or changed.
fn of_lake(error: &LakeError) -> Code {
    match error {
        LakeError::Store(error) => of_store(error),
        LakeError::Ledger(error) => of_ledger(error),
        LakeError::Publish(error) => of_publishing(error),
        LakeError::Locked { .. } => Code::Locked,
        LakeError::Defect(_) => Code::Defect,
    }
}

fn of_ledger(error: &LedgerError) -> Code {
    match error {
        LedgerError::Store(error) => of_store(error),
        LedgerError::Lost { .. } => Code::Overtaken,
        LedgerError::Damaged { .. }
        | LedgerError::Format { .. }
        | LedgerError::Gap { .. }
        | LedgerError::Unmarked { .. }
        | LedgerError::DamagedMarker { .. }
        | LedgerError::DamagedSpare { .. }
        | LedgerError::NoLog { .. } => Code::Damaged,
        // A store that is not fit stays unfit. Another attempt is of no use.
        LedgerError::Unconditional { .. } => Code::UnfitStore,
        LedgerError::Unwritable { .. } => Code::Defect,
    }
}

fn of_absorbing(error: &AbsorbError) -> Code {
    match error {
        AbsorbError::Store(error) => of_store(error),
        AbsorbError::Publish(error) => of_publishing(error),
        AbsorbError::Write(error) => of_writing(error),
        AbsorbError::Gone { .. } => Code::RawObjectGone,
        AbsorbError::Irreparable { .. } => Code::Damaged,
        AbsorbError::Key { .. } => Code::Configuration,
        AbsorbError::NoSpillFolder { .. } => Code::NoSpillFolder,
        AbsorbError::Rule { .. } => Code::RuleFailed,
        AbsorbError::TooManyRejects { .. } | AbsorbError::TooMuchLost { .. } => {
            Code::TooManyRejects
        }
        AbsorbError::OnlyRaw { .. } => Code::SettingsChanged,
        AbsorbError::Unbalanced(_) | AbsorbError::Defect(_) => Code::Defect,
    }
}

/// The word for a store that failed. A full disk does not become usable by itself.
fn of_store(error: &StoreError) -> Code {
    of_kind(error.kind())
}

/// The word for a kind of failure of a store or of the catalog.
pub(super) const fn of_kind(kind: StoreErrorKind) -> Code {
    match kind {
        StoreErrorKind::Unreachable => Code::Unreachable,
        StoreErrorKind::Expired => Code::CredentialsExpired,
        StoreErrorKind::Denied => Code::AccessDenied,
        StoreErrorKind::NoCredentials => Code::NoCredentials,
        StoreErrorKind::NoRegion | StoreErrorKind::WrongRegion => Code::WrongRegion,
        StoreErrorKind::MissingBucket => Code::NoSuchBucket,
        StoreErrorKind::NotAFolder => Code::NotAFolder,
        StoreErrorKind::BadUrl => Code::BadUrl,
        StoreErrorKind::Unfit => Code::UnfitStore,
        StoreErrorKind::Full => Code::DiskFull,
        StoreErrorKind::NotFound
        | StoreErrorKind::NotAFile
        | StoreErrorKind::Replaced
        | StoreErrorKind::Other => Code::StoreFailed,
    }
}

/// The word where data files could not be staged or published.
fn of_publishing(error: &PublishError) -> Code {
    match error {
        PublishError::Store(error) => of_store(error),
        PublishError::Overtaken { .. } => Code::Overtaken,
        PublishError::Foreign { .. }
        | PublishError::StagedGone { .. }
        | PublishError::DamagedStage { .. } => Code::Damaged,
        PublishError::TooLarge { .. } => Code::FileTooLarge,
        PublishError::Local { source, .. } => of_spilling(source),
    }
}

/// The word where data files could not be read or written.
fn of_writing(error: &WriteError) -> Code {
    match error {
        WriteError::Stored(StoredError::Store(error)) => of_store(error),
        WriteError::Stored(_) => Code::Damaged,
        WriteError::Spill { source, .. } => of_spilling(source),
        WriteError::Parquet { .. }
        | WriteError::Arrow(_)
        | WriteError::NotStaged
        | WriteError::Defect(_) => Code::Defect,
    }
}

fn of_spilling(error: &std::io::Error) -> Code {
    match is_full(error) {
        true => Code::DiskFull,
        false => Code::SpillFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every word in the order of the page. A new word does not compile without its line here.
    fn codes() -> Vec<Code> {
        let mut codes = vec![Code::Defect];
        while let Some(next) = next(codes[codes.len() - 1]) {
            codes.push(next);
        }
        codes
    }

    fn next(code: Code) -> Option<Code> {
        Some(match code {
            Code::Defect => Code::DiskFull,
            Code::DiskFull => Code::SpillFailed,
            Code::SpillFailed => Code::Unprinted,
            Code::Unprinted => Code::Usage,
            Code::Usage => Code::Configuration,
            Code::Configuration => Code::Sql,
            Code::Sql => Code::Reference,
            Code::Reference => Code::NoRaw,
            Code::NoRaw => Code::NoSuchBucket,
            Code::NoSuchBucket => Code::AccessDenied,
            Code::AccessDenied => Code::NoCredentials,
            Code::NoCredentials => Code::WrongRegion,
            Code::WrongRegion => Code::NotAFolder,
            Code::NotAFolder => Code::BadUrl,
            Code::BadUrl => Code::UnfitStore,
            Code::UnfitStore => Code::NoSpillFolder,
            Code::NoSpillFolder => Code::FileTooLarge,
            Code::FileTooLarge => Code::NoSuchRun,
            Code::NoSuchRun => Code::MartFailed,
            Code::MartFailed => Code::Silent,
            Code::Silent => Code::TooManyRejects,
            Code::TooManyRejects => Code::UnreadableKeys,
            Code::UnreadableKeys => Code::ChangedObjects,
            Code::ChangedObjects => Code::MissingObjects,
            Code::MissingObjects => Code::NotAbsorbed,
            Code::NotAbsorbed => Code::SettingsChanged,
            Code::SettingsChanged => Code::RuleFailed,
            Code::RuleFailed => Code::CatalogRefused,
            Code::CatalogRefused => Code::Locked,
            Code::Locked => Code::Overtaken,
            Code::Overtaken => Code::Unreachable,
            Code::Unreachable => Code::CredentialsExpired,
            Code::CredentialsExpired => Code::RawObjectGone,
            Code::RawObjectGone => Code::StoreFailed,
            Code::StoreFailed => Code::Damaged,
            Code::Damaged => Code::TestFailed,
            Code::TestFailed => Code::Interrupted,
            Code::Interrupted => Code::Terminated,
            Code::Terminated => return None,
        })
    }

    #[test]
    fn the_page_on_exit_codes_has_every_word_with_its_exit_code_and_remedy() {
        let page = include_str!("../../docs/exit-codes.md");
        let documented: Vec<[String; 3]> = crate::pages::table(page, "Words for errors")
            .iter()
            .map(|row| {
                let word = crate::pages::code(&row[0]).unwrap();
                [word.to_owned(), row[1].clone(), row[3].clone()]
            })
            .collect();
        let known: Vec<[String; 3]> = codes()
            .into_iter()
            .map(|code| {
                let exit = (code.exit() as u8).to_string();
                [code.word(), exit, code.remedy().to_owned()]
            })
            .collect();
        assert_eq!(documented, known);
    }

    #[test]
    fn the_schema_of_the_output_has_every_word() {
        let schema = include_str!("../../docs/output.schema.json");
        let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
        let words = &schema["$defs"]["error"]["properties"]["code"]["enum"];
        let known: Vec<String> = codes().into_iter().map(Code::word).collect();
        assert_eq!(*words, serde_json::json!(known));
    }
}
