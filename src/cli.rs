//! The command line as typed. It prints nothing and reads no environment: what it yields is a
//! [`Request`], which `config` merges with file and environment.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::config::Overrides;

/// What one invocation asks for.
#[derive(Debug, Clone)]
pub struct Request {
    pub overrides: Overrides,
    pub verb: Verb,
    pub output: Output,
    pub log_format: LogFormat,
    /// Each `-v` adds one, each `-q` takes one away.
    pub verbosity: i8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    Run {
        /// Names as typed; empty means every source.
        sources: Vec<String>,
        /// False after `--no-marts`.
        marts: bool,
    },
    Plan,
    Verify,
    Config,
}

/// The form of the result on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    #[default]
    Text,
    Json,
}

/// The form of the talk on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Reads the arguments, the program's name first. The error of a wrong usage has exit code 2; help
/// and version come as errors with exit code 0. The caller prints either.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Request, clap::Error> {
    let typed = Typed::try_parse_from(args)?;
    let global = typed.global;
    let mut overrides = Overrides {
        config: global.config,
        lake: global.lake,
        memory: global.memory,
        threads: global.threads,
        max_rejects: None,
    };
    let verb = match typed.verb {
        TypedVerb::Run(run) => {
            overrides.max_rejects = run.max_rejects;
            Verb::Run {
                sources: run.source,
                marts: !run.no_marts,
            }
        }
        TypedVerb::Plan => Verb::Plan,
        TypedVerb::Verify => Verb::Verify,
        TypedVerb::Config => Verb::Config,
    };
    let times = |count: u8| i8::try_from(count).unwrap_or(i8::MAX);
    Ok(Request {
        overrides,
        verb,
        output: global.output,
        log_format: global.log_format,
        verbosity: times(global.verbose).saturating_sub(times(global.quiet)),
    })
}

const EXITS: &str = "\
Exit codes:
    0  done, or nothing to do
    1  internal error
    2  bad usage, configuration or SQL: nothing was read
    3  events published; a mart failed
    4  refused: too many rejects, or a changed raw object
    5  another run holds or changed the lake: try again
    6  store unreachable or denied after retries: try again
    7  verify found damage
  130, 143  interrupted between steps, nothing lost: try again";

const EXAMPLES: &str = "\
Examples:
  rawmart run                          absorb what is new, then build the marts
  rawmart plan                         what run would do; writes nothing
  rawmart --config jobs/app.toml run   another configuration
  rawmart run --output json | jq .     the result as one JSON document";

#[derive(Debug, Parser)]
#[command(
    name = "rawmart",
    version,
    about = "From raw JSON events to deduplicated Hive-partitioned Parquet and marts",
    long_about = "Reads raw JSON events from S3 or disk, takes duplicates out by the rules of \
                  rawmart.toml, writes Hive-partitioned Parquet, and builds one mart table for \
                  each SQL file.\n\nRaw objects are never changed or deleted. The result goes to \
                  stdout, the talk to stderr.",
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{EXITS}"),
    disable_help_subcommand = true,
    max_term_width = 100
)]
struct Typed {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: TypedVerb,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// The configuration [default: RAWMART_CONFIG, else ./rawmart.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Another lake than the configuration's: a path or s3:// URL [also RAWMART_LAKE]
    #[arg(long, global = true, value_name = "URL")]
    lake: Option<String>,
    /// Memory to work in, such as 512m or 4GiB; beyond it, work spills to disk [also RAWMART_MEMORY; default: 1GiB]
    #[arg(long, global = true, value_name = "SIZE")]
    memory: Option<String>,
    /// Threads to work with [also RAWMART_THREADS; default: all cores]
    #[arg(long, global = true, value_name = "N")]
    threads: Option<usize>,
    /// Form of the result on stdout
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORM")]
    output: Output,
    /// Form of the talk on stderr
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORM")]
    log_format: LogFormat,
    /// Say less; twice: errors only
    #[arg(short, long, global = true, action = ArgAction::Count)]
    quiet: u8,
    /// Say more; twice: everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum TypedVerb {
    /// Absorb what is new, then build the marts that it changes
    ///
    /// Finds new raw objects, decides which events are duplicates, stages and commits the tables,
    /// publishes them, and builds the marts. A run whose counts do not balance publishes nothing.
    /// Running again without new raw objects changes nothing.
    #[command(after_long_help = EXITS)]
    Run(Run),
    /// What run would do: objects, bytes, partitions, marts, reasons
    ///
    /// Reads, never writes.
    #[command(after_long_help = EXITS)]
    Plan,
    /// Prove that the counts balance, and that what is published is what the log says
    ///
    /// Checks records = events + rejects for each raw object and events = kept + duplicates for
    /// each partition, and every published file against the log. Exit 7 where one does not hold.
    #[command(after_long_help = EXITS)]
    Verify,
    /// The resolved configuration
    ///
    /// Prints every setting with its default filled in, after file, environment and flags. The
    /// output is itself a configuration, and holds no secrets.
    #[command(after_long_help = EXITS)]
    Config,
}

#[derive(Debug, Args)]
struct Run {
    /// Only this source; may be given several times [default: all]
    #[arg(long, value_name = "NAME")]
    source: Vec<String>,
    /// Publish events only, build no marts
    #[arg(long)]
    no_marts: bool,
    /// Largest share of rejects for this run, such as 5%; 100% lets all pass
    #[arg(long, value_name = "SHARE")]
    max_rejects: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn typed(line: &str) -> Result<Request, clap::Error> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_definition_is_sound() {
        Typed::command().debug_assert();
    }

    #[test]
    fn a_full_line() {
        let request = typed(
            "rawmart --config a.toml -v run --source b --source a --no-marts --max-rejects 100% \
             --lake s3://l/x --memory 2g --threads 3 --output json --log-format json -v",
        )
        .unwrap();
        assert_eq!(
            request.verb,
            Verb::Run {
                sources: vec!["b".into(), "a".into()],
                marts: false
            }
        );
        let overrides = request.overrides;
        assert_eq!(overrides.config, Some("a.toml".into()));
        assert_eq!(overrides.lake.as_deref(), Some("s3://l/x"));
        assert_eq!(overrides.memory.as_deref(), Some("2g"));
        assert_eq!(overrides.threads, Some(3));
        assert_eq!(overrides.max_rejects.as_deref(), Some("100%"));
        assert_eq!(request.output, Output::Json);
        assert_eq!(request.log_format, LogFormat::Json);
        assert!(request.verbosity > 0);
    }

    #[test]
    fn a_bare_verb() {
        let request = typed("rawmart run").unwrap();
        assert_eq!(
            request.verb,
            Verb::Run {
                sources: Vec::new(),
                marts: true
            }
        );
        assert_eq!(request.output, Output::Text);
        assert_eq!(request.verbosity, 0);
        assert!(request.overrides.lake.is_none() && request.overrides.max_rejects.is_none());
        assert_eq!(typed("rawmart plan").unwrap().verb, Verb::Plan);
        assert_eq!(typed("rawmart verify").unwrap().verb, Verb::Verify);
        assert_eq!(typed("rawmart -qq config").unwrap().verbosity, -2);
    }

    #[test]
    fn wrong_usage_is_exit_2_and_help_is_exit_0() {
        for line in [
            "rawmart",
            "rawmart rnu",
            "rawmart run --sauce x",
            "rawmart plan --max-rejects 1%",
            "rawmart run --threads many",
            "rawmart --output xml run",
            "rawmart run extra",
        ] {
            assert_eq!(typed(line).unwrap_err().exit_code(), 2, "{line}");
        }
        for line in ["rawmart --help", "rawmart -V", "rawmart run --help"] {
            assert_eq!(typed(line).unwrap_err().exit_code(), 0, "{line}");
        }
        let help = typed("rawmart --help").unwrap_err().to_string();
        assert!(
            help.contains("Exit codes:") && help.contains("rawmart plan"),
            "{help}"
        );
        assert!(
            !typed("rawmart -h")
                .unwrap_err()
                .to_string()
                .contains("Exit codes:")
        );
    }
}
