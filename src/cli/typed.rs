//! The command line as it was typed, for commands that are printed: they repeat the flags that were given.

use std::ffi::{OsStr, OsString};

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory, ValueEnum};

use super::{LogFormat, Output, Typed};

/// Flags that decide how an invocation is printed, and not what it does.
const OF_PRINTING: [&str; 4] = ["--output", "--log-format", "--quiet", "--verbose"];

/// Flags of `run`, `plan` and `rebuild` that choose a part of the configuration.
const OF_SCOPE: [&str; 2] = ["--source", "--no-marts"];

/// A command and its flags, quoted for a shell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Typing {
    /// The name of the command. `None` where none was recognised.
    pub command: Option<String>,
    /// Flags that every command takes, such as `--lake 's3://l/my lake'`.
    global: Vec<Flag>,
    /// Flags of the command itself.
    own: Vec<Flag>,
}

/// A flag with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Flag {
    /// The name, such as `--lake`.
    name: String,
    /// The flag as it is typed into a shell.
    text: String,
}

impl Typing {
    /// A command line that is wrong: its flags are not known.
    pub fn of_wrong_line(command: Option<String>) -> Self {
        Self {
            command,
            ..Self::default()
        }
    }

    /// The text, in which each command of rawmart between backticks has the flags that were given.
    pub fn with_flags(&self, text: &str) -> String {
        const BEGINNING: &str = "`rawmart ";
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(BEGINNING) {
            out.push_str(before);
            let Some((command, tail)) = after.split_once('`') else {
                out.push_str(BEGINNING);
                rest = after;
                continue;
            };
            out.push('`');
            out.push_str(&self.command(command));
            out.push('`');
            rest = tail;
        }
        out.push_str(rest);
        out
    }

    /// `rawmart` with a command such as `rebuild --source events`, and with the flags that were given: the flags of
    /// every command, and the flags of this command. If the command is another, or has no flags, it gets only those
    /// of the latter that choose a part of the configuration.
    pub fn command(&self, command: &str) -> String {
        let mut words = command.split(' ');
        let verb = words.next().unwrap_or_default();
        let given: Vec<&str> = words.filter(|word| word.starts_with("--")).collect();
        let whole = self.command.as_deref() == Some(verb) && !given.is_empty();
        let known = flags_of(verb);
        let own = self.own.iter().filter(|flag| {
            (whole || OF_SCOPE.contains(&flag.name.as_str()))
                && known.contains(&flag.name)
                && !given.contains(&flag.name.as_str())
        });
        let mut line = "rawmart".to_owned();
        for flag in &self.global {
            line.push_str(&format!(" {}", flag.text));
        }
        line.push_str(&format!(" {command}"));
        for flag in own {
            line.push_str(&format!(" {}", flag.text));
        }
        line
    }
}

/// The flags that a command has of its own.
fn flags_of(verb: &str) -> Vec<String> {
    let command = Typed::command();
    let verb = command.find_subcommand(verb);
    let flags = verb.into_iter().flat_map(Command::get_arguments);
    flags.filter_map(long).collect()
}

fn long(arg: &Arg) -> Option<String> {
    arg.get_long().map(|name| format!("--{name}"))
}

/// The command and the flags of a command line that was recognised.
pub(super) fn typed_flags(command: &Command, matches: &ArgMatches) -> Typing {
    let Some((name, of_verb)) = matches.subcommand() else {
        return Typing::default();
    };
    // A flag that every command takes is among the matches of the command, wherever it was typed.
    let global = command.get_arguments().flat_map(|arg| flags(arg, of_verb));
    let verb = command.find_subcommand(name);
    let own = verb.into_iter().flat_map(Command::get_arguments);
    let own = own.filter(|arg| !arg.is_global_set());
    Typing {
        command: Some(name.to_owned()),
        global: global.collect(),
        own: own.flat_map(|arg| flags(arg, of_verb)).collect(),
    }
}

/// A flag once for each time that it was given. An argument without a name is no flag.
fn flags(arg: &Arg, matches: &ArgMatches) -> Vec<Flag> {
    let id = arg.get_id().as_str();
    let given = matches!(matches.try_contains_id(id), Ok(true))
        && matches.value_source(id) == Some(ValueSource::CommandLine);
    let Some(name) = long(arg).filter(|name| given && !OF_PRINTING.contains(&name.as_str())) else {
        return Vec::new();
    };
    if !arg.get_action().takes_values() {
        let text = name.clone();
        return vec![Flag { name, text }];
    }
    let values = matches.get_raw(id).into_iter().flatten();
    let values = values.map(|value| Flag {
        name: name.clone(),
        text: format!("{name} {}", quoted(value)),
    });
    values.collect()
}

/// A word as a shell takes it for this word.
pub fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.into_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// The command and the forms that a command line asks for, even if the command line is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forms {
    /// The command, where its name is among the arguments.
    pub command: Option<String>,
    /// The form of the result.
    pub output: Output,
    /// The form of the logs.
    pub log_format: LogFormat,
}

/// Looks for the forms among arguments that may be wrong. The first argument is the name of the program.
pub fn forms(args: impl Iterator<Item = OsString>) -> Forms {
    let commands = Typed::command();
    let mut found = Forms::default();
    let mut args = args.skip(1).map(|arg| arg.to_string_lossy().into_owned());
    while let Some(arg) = args.next() {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (arg.as_str(), None),
        };
        match name {
            "--" => break,
            "--output" => {
                let value = value.or_else(|| args.next()).unwrap_or_default();
                found.output = Output::from_str(&value, false).unwrap_or(found.output);
            }
            "--log-format" => {
                let value = value.or_else(|| args.next()).unwrap_or_default();
                found.log_format = LogFormat::from_str(&value, false).unwrap_or(found.log_format);
            }
            name if found.command.is_none() && commands.find_subcommand(name).is_some() => {
                found.command = Some(name.to_owned());
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> impl Iterator<Item = OsString> {
        line.split('|').map(OsString::from)
    }

    fn typing(line: &str) -> Typing {
        crate::cli::parse(words(line)).unwrap().typing
    }

    #[test]
    fn a_printed_command_repeats_the_flags_that_were_given() {
        let typing = typing(
            "rawmart|--config|my jobs/it's.toml|run|--lake=s3://l/x|--source|b|--source|a c|--max-rejects|5%|-v\
             |--output|json",
        );
        let global = r"rawmart --config 'my jobs/it'\''s.toml' --lake s3://l/x";
        for (command, flags) in [
            ("plan", "plan --source b --source 'a c'"),
            ("verify --repair", "verify --repair"),
            (
                "rebuild --source z --from 2019-04-01",
                "rebuild --source z --from 2019-04-01",
            ),
            (
                "run --replace-changed",
                "run --replace-changed --source b --source 'a c' --max-rejects 5%",
            ),
            (
                "run --max-rejects 100%",
                "run --max-rejects 100% --source b --source 'a c'",
            ),
        ] {
            assert_eq!(typing.command(command), format!("{global} {flags}"));
            let text = format!("one `x`: `rawmart {command}` does; `rawmart");
            let with = format!("one `x`: `{global} {flags}` does; `rawmart");
            assert_eq!(typing.with_flags(&text), with);
        }
    }

    #[test]
    fn a_rebuild_of_some_dates_stays_one() {
        let typing = typing("rawmart|rebuild|--from|2019-04-01|--to|2019-04-02|--raw");
        assert_eq!(
            typing.command("rebuild --forget-missing"),
            "rawmart rebuild --forget-missing --from 2019-04-01 --to 2019-04-02 --raw"
        );
    }

    #[test]
    fn the_forms_are_found_in_a_wrong_command_line() {
        let json = Forms {
            command: Some("run".to_owned()),
            output: Output::Json,
            log_format: LogFormat::Json,
        };
        for (line, expected) in [
            (
                "rawmart|run|--sauce|--output=json|--log-format|json",
                json.clone(),
            ),
            (
                "rawmart|--output|json|--log-format=json|--threads|x|run",
                json,
            ),
            ("rawmart|--output|xml", Forms::default()),
            ("rawmart|--output", Forms::default()),
            ("rawmart|--|--output|json", Forms::default()),
            ("rawmart", Forms::default()),
        ] {
            assert_eq!(forms(words(line)), expected, "{line}");
        }
    }
}
