//! The command line as typed. It prints nothing and reads no environment: what it yields is a
//! [`Request`], which `config` merges with file and environment.

mod typed;

use std::ffi::OsString;
use std::path::PathBuf;

use chrono::NaiveDate;
use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::catalog::ddl::{Dialect, Since};
use crate::config::Overrides;
use crate::ledger::Dates;
use crate::plan::{AskedDates, Rebuild};
use crate::run::{DdlAsked, MartsAsked, Sql, TestAsked, WhyAsked};
use typed::typed_flags;
pub use typed::{Forms, Typing, forms};

/// The request of one invocation.
#[derive(Debug, Clone)]
pub struct Request {
    /// The settings that override the environment and the file.
    pub overrides: Overrides,
    /// The command.
    pub verb: Verb,
    /// The form of the result.
    pub output: Output,
    /// The form of the logs.
    pub log_format: LogFormat,
    /// Each `-v` adds one, each `-q` takes one away.
    pub verbosity: i8,
    /// The command and its flags, for commands that are printed.
    pub typing: Typing,
}

/// The command, with its own flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Absorb new raw objects and build marts.
    Run(Asked),
    /// Say what a run, or a rebuild, would do.
    Plan {
        /// What the run or the rebuild covers.
        asked: Asked,
        /// The rebuild that is planned; a run where it is absent.
        rebuild: Option<Rebuild>,
        /// Whether the exit code says if there is work to do.
        exit_code: bool,
    },
    /// Rebuild published dates.
    Rebuild {
        /// The scope of the rebuild.
        asked: Asked,
        /// What it is asked to do.
        rebuild: Rebuild,
    },
    /// Build chosen marts, or draw their graph.
    Marts {
        /// Which marts, and which of their dates.
        asked: MartsAsked,
        /// The form of the graph, where it is drawn in the place of building.
        graph: Option<GraphForm>,
    },
    /// List past commits, or print one run.
    History {
        /// A run's name or a commit's number; one run whole.
        which: Option<String>,
        /// Commits listed at most.
        limit: usize,
    },
    /// Prove counts and published files.
    Verify {
        /// Repair damaged files.
        repair: bool,
        /// The depth to which data files are read.
        depth: Depth,
    },
    /// Make a new project from a sample of this raw prefix.
    Init(String),
    /// Check what a run needs.
    Doctor,
    /// Describe each table.
    Tables,
    /// Print SQL that makes the tables known to a reader.
    Ddl(DdlAsked),
    /// Say what some reader could not read.
    Lint,
    /// Take a mart out of the lake whose SQL file is gone.
    DropMart(String),
    /// Say what became of events or of a record.
    Why(WhyAsked),
    /// Test marts on the cases of their fixtures.
    Test {
        /// Which marts, and whether the expected rows are written.
        asked: TestAsked,
        /// The file that gets the results as JUnit XML.
        junit: Option<PathBuf>,
    },
    /// Compare each date of these marts over its reach with the same date over everything.
    TestReach(Vec<String>),
    /// Answer a query over the tables.
    Query {
        /// The SELECT.
        sql: Sql,
        /// The form of the answer.
        format: Format,
    },
    /// Print the resolved configuration.
    Config,
}

/// The form of the rows of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// A table for people.
    #[default]
    Table,
    /// Comma-separated values with a header.
    Csv,
    /// One array of JSON objects.
    Json,
    /// A JSON object on each line.
    Ndjson,
}

/// The parts of a job that are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The names as typed; empty means every source.
    pub sources: Vec<String>,
    /// False after `--no-marts`.
    pub marts: bool,
    /// Whether changed raw objects replace their events.
    pub replace_changed: bool,
    /// Whether settled prefixes are listed too.
    pub relist: bool,
}

/// The form of the graph of marts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphForm {
    /// A line for each mart.
    Text,
    /// Mermaid, for documentation.
    Mermaid,
}

/// The depth to which `verify` compares files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Names, sizes, times and ETags.
    Quick,
    /// Names, sizes, times and ETags, and the bytes of files on disk.
    Usual,
    /// All bytes, even of files in a bucket.
    Deep,
}

/// The form of the result on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// Text for people.
    #[default]
    Text,
    /// JSON for programs.
    Json,
}

/// The form of the logs on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// JSON for programs.
    Json,
}

/// Reads the arguments, the program's name first. The error of a wrong usage has exit code 2; help
/// and version come as errors with exit code 0. The caller prints either.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Request, clap::Error> {
    let mut command = Typed::command();
    let matches = command.try_get_matches_from_mut(args)?;
    let typing = typed_flags(&command, &matches);
    let typed = Typed::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    let global = typed.global;
    let mut overrides = Overrides {
        config: global.config,
        lake: global.lake,
        memory: global.memory,
        threads: global.threads,
        spill_dir: global.spill_dir,
        max_rejects: None,
    };
    let verb = match typed.verb {
        TypedVerb::Run(run) => {
            overrides.max_rejects = run.max_rejects;
            Verb::Run(run.asked.into())
        }
        TypedVerb::Plan(plan) => plan.verb()?,
        TypedVerb::Rebuild(typed) => {
            overrides.max_rejects = typed.max_rejects;
            let rebuild = typed.rebuild.rebuild(typed.source.len())?;
            Verb::Rebuild {
                rebuild,
                asked: Asked {
                    sources: typed.source,
                    marts: !typed.no_marts,
                    replace_changed: false,
                    relist: true,
                },
            }
        }
        TypedVerb::Marts(marts) => marts.verb()?,
        TypedVerb::Test(test) => test.verb(),
        TypedVerb::History(history) => Verb::History {
            which: history.which,
            limit: history.limit,
        },
        TypedVerb::Verify(TypedVerify {
            repair,
            quick,
            deep,
        }) => Verb::Verify {
            repair,
            depth: match (quick, deep) {
                (true, _) => Depth::Quick,
                (_, true) => Depth::Deep,
                (false, false) => Depth::Usual,
            },
        },
        TypedVerb::Init(init) => Verb::Init(init.raw),
        TypedVerb::Doctor => Verb::Doctor,
        TypedVerb::Tables => Verb::Tables,
        TypedVerb::Ddl(ddl) => Verb::Ddl(ddl.into()),
        TypedVerb::Lint => Verb::Lint,
        TypedVerb::Why(why) => Verb::Why(why.asked()?),
        TypedVerb::Query(query) => Verb::Query {
            format: query.format,
            sql: match (query.file, query.sql) {
                (Some(file), _) => Sql::File(file),
                (None, sql) => Sql::Text(sql.unwrap_or_default()),
            },
        },
        TypedVerb::Config => Verb::Config,
    };
    let times = |count: u8| i8::try_from(count).unwrap_or(i8::MAX);
    Ok(Request {
        overrides,
        verb,
        output: global.output,
        log_format: global.log_format,
        verbosity: times(global.verbose).saturating_sub(times(global.quiet)),
        typing,
    })
}

const EXITS: &str = "\
Exit codes:
    0  done, or nothing to do
    1  internal error
    2  wrong usage, configuration or SQL; no such bucket, access denied or no region
    3  the events are published; a mart failed
    4  refused: too many rejects, a changed raw object, rules or columns changed without a rebuild
    5  another run holds or changed the lake; try again
    6  the store gave no usable answer, or the credentials have expired; try again
    7  the lake is damaged, or a test of a mart failed
   10  plan --exit-code: there is work to do
  130, 143  interrupted; nothing that was committed is lost; try again";

const EXAMPLES: &str = "\
Examples:
  rawmart init s3://bucket/prefix/     a new project from a sample of raw objects
  rawmart run                          absorb new raw objects, then build the marts
  rawmart plan                         print what a run would do; nothing is written
  rawmart history                      list what past runs changed
  rawmart why event_id=e1              what became of an event
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
                  stdout, logs and errors to stderr.",
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
    /// Another lake than the one of the configuration: a path or s3:// URL [also RAWMART_LAKE]
    #[arg(long, global = true, value_name = "URL")]
    lake: Option<String>,
    /// Memory to work in, such as 512m or 4GiB; work that does not fit is spilled to disk [also RAWMART_MEMORY; default: 1GiB]
    #[arg(long, global = true, value_name = "SIZE")]
    memory: Option<String>,
    /// Threads to work with [also RAWMART_THREADS; default: all cores]
    #[arg(long, global = true, value_name = "N")]
    threads: Option<usize>,
    /// Folder for work that does not fit into the memory [also RAWMART_SPILL_DIR; default: the system's temporary folder]
    #[arg(long, global = true, value_name = "FOLDER")]
    spill_dir: Option<PathBuf>,
    /// Form of the result on stdout
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORM")]
    output: Output,
    /// Form of the logs on stderr
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORM")]
    log_format: LogFormat,
    /// Print errors only; a command that is asked for an answer prints it
    #[arg(short, long, global = true, action = ArgAction::Count)]
    quiet: u8,
    /// Print more; given twice: everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum TypedVerb {
    /// Make a new project from a sample of raw objects
    ///
    /// Reads some raw objects, infers the layout of their keys, columns, event time and duplicate rules, and writes
    /// rawmart.toml and a first mart. A comment behind each line says what was seen. No file is ever replaced. It
    /// prints what it is not sure of.
    #[command(after_long_help = EXITS)]
    Init(TypedInit),
    /// Absorb new raw objects, then build the marts that they change
    ///
    /// Finds new raw objects, decides which events are duplicates, commits and publishes the tables,
    /// and builds the marts. A run whose counts do not balance publishes nothing. A second run
    /// without new raw objects changes nothing.
    #[command(after_long_help = EXITS)]
    Run(TypedRun),
    /// Print what a run would do: raw objects, bytes, partitions, marts, and the reasons
    ///
    /// It reads and never writes. The flags are those of run. With --rebuild it prints what a rebuild
    /// with the same flags would do.
    #[command(after_long_help = EXITS)]
    Plan(TypedPlan),
    /// Rebuild published dates after rules or columns have changed
    ///
    /// Decides the events of these dates again: from the stored tables where only rules changed, and
    /// from raw objects where columns changed. Then builds the marts that this changes. Rows are
    /// replaced and never doubled. No new raw object is absorbed.
    #[command(after_long_help = EXITS)]
    Rebuild(TypedRebuild),
    /// Build chosen marts from the tables as they are
    ///
    /// It lists no raw prefix and absorbs nothing. A mart is chosen by its name or by its folder; `+name`
    /// also chooses what it reads, and `name+` what reads it. Without a name all marts are chosen. The dates
    /// that have changed are built. --from and --to build these dates too, and --full builds every date.
    /// --drop takes a mart out of the lake whose SQL file is gone: it deletes the data files, and the log
    /// forgets the mart. The next run finishes a drop that was interrupted.
    #[command(after_long_help = EXITS)]
    Marts(TypedMarts),
    /// Test marts on small inputs with expected rows
    ///
    /// Each folder fixtures/marts/MART/CASE beside the configuration is a case: <table>.csv or <table>.ndjson with the
    /// columns that matter, and expected.csv. The rows are compared whatever their order, and the checks of the mart are
    /// made too. It needs no lake. --reach compares marts of the lake instead: every date over its reach with the same
    /// date over everything. A difference is exit code 7.
    #[command(after_long_help = EXITS)]
    Test(TypedTest),
    /// List past commits, newest first, or print one run
    ///
    /// It reads and never writes. Without a name it lists the last commits: the change that each made
    /// to every source, its marts and files, and whether it is published. With the name of a run or
    /// the number of a commit it prints everything about that run: each raw object and each file.
    #[command(after_long_help = EXITS)]
    History(TypedHistory),
    /// Prove that the counts balance and that every published file is what the log says
    ///
    /// Checks records = events + rejects for each raw object, events = kept + duplicates for each
    /// partition, and every published file against the log. A difference, and a file in a table that
    /// the log does not name, is exit code 7. Absorbed raw objects that have changed or no longer
    /// exist are reported and are no damage.
    #[command(after_long_help = EXITS)]
    Verify(TypedVerify),
    /// List the tables with their columns, types, partitions and sizes
    ///
    /// It reads the log and no data file, and never writes.
    #[command(after_long_help = EXITS)]
    Tables,
    /// Print the SQL that makes the tables known to a reader
    ///
    /// It prints pure SQL for every table of the lake, the marts included. It reads the log and never
    /// writes. The statements may run again, except CREATE EXTERNAL TABLE of Spectrum. When a table has
    /// a new column, drop the table in the reader and run the SQL again: the data files stay.
    #[command(after_long_help = EXITS)]
    Ddl(TypedDdl),
    /// Say what some reader of the tables could not read, or reads slowly
    ///
    /// Each finding has the reader, the table, the column, the reason and the remedy. It reads the log and no data
    /// file, and never writes. Findings are exit code 0: a run refuses what a reader cannot read that `readers` names.
    #[command(after_long_help = EXITS)]
    Lint,
    /// Check the configuration, the stores and this machine, and say what to do about what is wrong
    ///
    /// Checks the configuration with its rules and SQL, the spill folder, the memory, each raw prefix, and the lake:
    /// credentials, region, log, conditional writes and the clock. It writes one small object below the staging folder
    /// of the lake and deletes it. The exit code is 0, or 2 where something is wrong, or 6 where a store cannot be
    /// reached.
    #[command(after_long_help = EXITS)]
    Doctor,
    /// Say what became of an event, or of a record of a raw object
    ///
    /// For each event: whether it is kept or a duplicate, the rule and the event that displaced it, the raw object and
    /// record, the partition and data file, and the commits. A record that is no event has its reason. Where nothing
    /// matches, it says what is known. It reads one state of the lake, takes no lock and never writes.
    #[command(after_long_help = EXITS)]
    Why(TypedWhy),
    /// Answer a query over the tables and references
    ///
    /// The SQL is that of the marts: one SELECT. The answer is of one state of the lake. The command never
    /// writes into the lake. A query that fails prints no row.
    #[command(after_long_help = EXITS)]
    Query(TypedQuery),
    /// Print the configuration with all defaults filled in
    ///
    /// File, environment and flags are merged, and every default is filled in. The output is itself a
    /// configuration file. It contains no secrets.
    #[command(after_long_help = EXITS)]
    Config,
}

#[derive(Debug, Args)]
struct TypedRun {
    #[command(flatten)]
    asked: TypedAsked,
    /// Largest share of rejects that this run accepts, such as 5%; 100% accepts all
    #[arg(long, value_name = "SHARE")]
    max_rejects: Option<String>,
}

#[derive(Debug, Args)]
struct TypedAsked {
    /// Only this source; the flag may be given several times [default: all]
    #[arg(long, value_name = "NAME")]
    source: Vec<String>,
    /// Build no marts
    #[arg(long)]
    no_marts: bool,
    /// Replace the events of changed raw objects by the events of their new content
    #[arg(long)]
    replace_changed: bool,
    /// List settled prefixes too
    #[arg(long)]
    relist: bool,
}

impl From<TypedAsked> for Asked {
    fn from(typed: TypedAsked) -> Self {
        Self {
            sources: typed.source,
            marts: !typed.no_marts,
            replace_changed: typed.replace_changed,
            relist: typed.relist,
        }
    }
}

#[derive(Debug, Args)]
struct TypedPlan {
    #[command(flatten)]
    asked: TypedAsked,
    /// Print what `rawmart rebuild` would do with the same flags
    #[arg(long = "rebuild", conflicts_with_all = ["replace_changed", "relist"])]
    plans_rebuild: bool,
    #[command(flatten)]
    rebuild: TypedRange,
    /// Exit with 0 when there is nothing to do, with 10 when there is work to do, and with 4 when it would be refused
    #[arg(long)]
    exit_code: bool,
}

impl TypedPlan {
    fn verb(self) -> Result<Verb, clap::Error> {
        let rebuild = self.rebuild.rebuild(self.asked.source.len())?;
        if !self.plans_rebuild && rebuild != Rebuild::default() {
            let message = "--from, --to, --raw, --forget-missing and --drop-object are flags of a rebuild: \
                           give --rebuild too\n";
            return Err(Typed::command().error(ErrorKind::MissingRequiredArgument, message));
        }
        let relist = self.asked.relist || self.plans_rebuild;
        Ok(Verb::Plan {
            asked: Asked {
                relist,
                ..self.asked.into()
            },
            rebuild: self.plans_rebuild.then_some(rebuild),
            exit_code: self.exit_code,
        })
    }
}

/// What a rebuild is asked to do.
#[derive(Debug, Args)]
struct TypedRange {
    /// First event date, in the lake's zone [default: all dates]
    #[arg(long, value_name = "DATE", requires = "to")]
    from: Option<NaiveDate>,
    /// Last event date, inclusive
    #[arg(long, value_name = "DATE", requires = "from")]
    to: Option<NaiveDate>,
    /// Read raw objects even where only rules changed
    #[arg(long)]
    raw: bool,
    /// Give up the events of raw objects that no longer exist, and read changed raw objects as they are now
    #[arg(long)]
    forget_missing: bool,
    /// Take the events and rejects of this raw object of the source out for good; may be given several times
    #[arg(
        long,
        value_name = "KEY",
        requires = "source",
        conflicts_with_all = ["from", "to", "raw", "forget_missing"]
    )]
    drop_object: Vec<String>,
}

impl TypedRange {
    /// What a rebuild of so many named sources is asked to do.
    fn rebuild(self, sources: usize) -> Result<Rebuild, clap::Error> {
        if !self.drop_object.is_empty() && sources != 1 {
            let message = "--drop-object names a raw object of one source: give --source once\n";
            return Err(Typed::command().error(ErrorKind::ArgumentConflict, message));
        }
        if self.from > self.to {
            let message = "--from is later than --to\n";
            return Err(Typed::command().error(ErrorKind::ValueValidation, message));
        }
        let dates = self.from.zip(self.to);
        Ok(Rebuild {
            dates: dates.map(|(from, to)| Dates { from, to }),
            raw: self.raw,
            forget_missing: self.forget_missing,
            drop: self.drop_object.into_iter().collect(),
        })
    }
}

#[derive(Debug, Args)]
struct TypedRebuild {
    /// Only this source; the flag may be given several times [default: all]
    #[arg(long, value_name = "NAME")]
    source: Vec<String>,
    #[command(flatten)]
    rebuild: TypedRange,
    /// Build no marts
    #[arg(long)]
    no_marts: bool,
    /// Largest share of rejects that is accepted, such as 5%; 100% accepts all
    #[arg(long, value_name = "SHARE")]
    max_rejects: Option<String>,
}

#[derive(Debug, Args)]
struct TypedMarts {
    /// Names of marts, folders of marts, `+name` with what it reads, `name+` with what reads it [default: all]
    #[arg(value_name = "MART")]
    names: Vec<String>,
    /// Build the dates from this date on, changed or not
    #[arg(long, value_name = "DATE", requires = "to")]
    from: Option<NaiveDate>,
    /// Last date, inclusive
    #[arg(long, value_name = "DATE", requires = "from")]
    to: Option<NaiveDate>,
    /// Build every date, changed or not
    #[arg(long, conflicts_with_all = ["from", "to"])]
    full: bool,
    /// Build nothing, and print what each mart reads; `--graph=mermaid` prints it for Mermaid
    #[arg(
        long,
        value_enum,
        value_name = "FORM",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "text",
        conflicts_with_all = ["from", "to", "full"]
    )]
    graph: Option<GraphForm>,
    /// Take this mart out of the lake; its SQL file must be gone
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with_all = ["names", "from", "to", "full", "graph"]
    )]
    drop: Option<String>,
}

impl TypedMarts {
    fn verb(self) -> Result<Verb, clap::Error> {
        if let Some(mart) = self.drop {
            return Ok(Verb::DropMart(mart));
        }
        let dates = match (self.from.zip(self.to), self.full) {
            (Some((from, to)), _) if from > to => {
                let message = "--from is later than --to\n";
                return Err(Typed::command().error(ErrorKind::ValueValidation, message));
            }
            (Some((from, to)), _) => AskedDates::Within(Dates { from, to }),
            (None, true) => AskedDates::Every,
            (None, false) => AskedDates::Stale,
        };
        Ok(Verb::Marts {
            asked: MartsAsked {
                names: self.names,
                dates,
            },
            graph: self.graph,
        })
    }
}

#[derive(Debug, Args)]
struct TypedTest {
    /// Names of marts, folders of marts, `+name` with what it reads, `name+` with what reads it [default: all]
    #[arg(value_name = "MART")]
    names: Vec<String>,
    /// Write the rows that the marts make now as the expected rows
    #[arg(long)]
    bless: bool,
    /// Write the results as JUnit XML into this file, too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Compare every date of the lake's marts over its reach with the same date over everything
    #[arg(long, conflicts_with_all = ["bless", "junit"])]
    reach: bool,
}

impl TypedTest {
    fn verb(self) -> Verb {
        match self.reach {
            true => Verb::TestReach(self.names),
            false => Verb::Test {
                asked: TestAsked {
                    names: self.names,
                    bless: self.bless,
                },
                junit: self.junit,
            },
        }
    }
}

#[derive(Debug, Args)]
struct TypedHistory {
    /// A run or a commit, as `rawmart history` names them
    #[arg(value_name = "RUN|COMMIT")]
    which: Option<String>,
    /// Largest number of commits to list
    #[arg(long, value_name = "N", default_value_t = 20, conflicts_with = "which")]
    limit: usize,
}

#[derive(Debug, Args)]
struct TypedVerify {
    /// Bring damaged files back: from staged copies, from raw objects, and marts from their SQL
    #[arg(long)]
    repair: bool,
    /// Compare names, sizes, times and ETags only; no data file is read
    #[arg(long, conflicts_with = "deep")]
    quick: bool,
    /// Read every data file on S3 too and compare its SHA-256; on disk this is always done
    #[arg(long)]
    deep: bool,
}

#[derive(Debug, Args)]
struct TypedDdl {
    /// The reader that runs the SQL
    #[arg(long, value_name = "READER", value_parser = dialect())]
    dialect: Dialect,
    /// Only this table; may be given several times [default: all]
    #[arg(long, value_name = "NAME")]
    table: Vec<String>,
    /// The database or schema of the tables
    #[arg(long, value_name = "NAME", default_value = "rawmart")]
    database: String,
    /// Athena: name every partition, in the place of partition projection
    #[arg(long)]
    partitions: bool,
    /// Only partitions that were written after a commit, or are of a date and later
    #[arg(long, value_name = "COMMIT|DATE", value_parser = since)]
    since: Option<Since>,
    /// The version of Hive; 3 declares timestamps as bigint
    #[arg(long, value_name = "VERSION", value_parser = ["3", "4"], default_value = "4")]
    hive: String,
}

#[derive(Debug, Args)]
struct TypedInit {
    /// The prefix of the raw objects: an s3:// URL or a folder
    #[arg(value_name = "RAW_URL")]
    raw: String,
}

#[derive(Debug, Args)]
struct TypedWhy {
    /// Values of columns, such as event_id=e1, that all must match; or a raw object, by its key or URL, and the number
    /// of a record
    #[arg(value_name = "COLUMN=VALUE|OBJECT RECORD", required = true)]
    which: Vec<String>,
}

impl TypedWhy {
    fn asked(self) -> Result<WhyAsked, clap::Error> {
        if let [object, record] = self.which.as_slice()
            && let Ok(record) = record.parse()
        {
            return Ok(WhyAsked::Record {
                object: object.clone(),
                record,
            });
        }
        let columns = self.which.iter().map(|given| {
            let (column, value) = given.split_once('=')?;
            Some((column.to_ascii_lowercase(), value.to_owned()))
        });
        let columns: Option<Vec<_>> = columns.collect();
        columns.map(WhyAsked::Columns).ok_or_else(|| {
            let message = "write COLUMN=VALUE, such as `why event_id=e1`, or a raw object and the number of a \
                           record, such as `why 2019/04/01/23/a.gz 12`\n";
            Typed::command().error(ErrorKind::ValueValidation, message)
        })
    }
}

#[derive(Debug, Args)]
struct TypedQuery {
    /// The SELECT
    #[arg(value_name = "SQL", required_unless_present = "file")]
    sql: Option<String>,
    /// Read the SELECT from this file
    #[arg(long, value_name = "FILE", conflicts_with = "sql")]
    file: Option<PathBuf>,
    /// Form of the rows
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    format: Format,
}

fn dialect() -> impl clap::builder::TypedValueParser<Value = Dialect> {
    use clap::builder::{PossibleValuesParser, TypedValueParser};
    let names = Dialect::ALL.map(|(name, _)| name);
    PossibleValuesParser::new(names).try_map(|name| {
        let mut all = Dialect::ALL.into_iter();
        let found = all.find(|(known, _)| *known == name);
        found.map(|(_, dialect)| dialect).ok_or("no such reader")
    })
}

fn since(text: &str) -> Result<Since, &'static str> {
    let commit = text.parse().map(Since::Commit);
    let date = || text.parse().map(Since::Date);
    (commit.ok().or_else(|| date().ok()))
        .ok_or("write the number of a commit, or a date such as 2019-04-02")
}

impl From<TypedDdl> for DdlAsked {
    fn from(typed: TypedDdl) -> Self {
        Self {
            dialect: typed.dialect,
            database: typed.database,
            tables: typed.table,
            partitions: typed.partitions,
            since: typed.since,
            hive_3: typed.hive == "3",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

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
            Verb::Run(Asked {
                sources: vec!["b".into(), "a".into()],
                marts: false,
                replace_changed: false,
                relist: false,
            })
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
        let asked = Asked {
            sources: Vec::new(),
            marts: true,
            replace_changed: false,
            relist: false,
        };
        assert_eq!(request.verb, Verb::Run(asked.clone()));
        assert_eq!(request.output, Output::Text);
        assert_eq!(request.verbosity, 0);
        assert!(request.overrides.lake.is_none() && request.overrides.max_rejects.is_none());
        let plan = Verb::Plan {
            asked: asked.clone(),
            rebuild: None,
            exit_code: false,
        };
        assert_eq!(typed("rawmart plan").unwrap().verb, plan);
        let day = |day| NaiveDate::from_ymd_opt(2019, 4, day).unwrap();
        let rebuild = Rebuild {
            dates: Some(Dates {
                from: day(1),
                to: day(2),
            }),
            raw: true,
            ..Rebuild::default()
        };
        let asked = Asked {
            relist: true,
            ..asked
        };
        let flags = "--from 2019-04-01 --to 2019-04-02 --raw";
        let verb = Verb::Rebuild {
            asked: asked.clone(),
            rebuild: rebuild.clone(),
        };
        assert_eq!(
            typed(&format!("rawmart rebuild {flags}")).unwrap().verb,
            verb
        );
        let plan = Verb::Plan {
            asked,
            rebuild: Some(rebuild),
            exit_code: true,
        };
        let line = format!("rawmart plan --exit-code --rebuild {flags}");
        assert_eq!(typed(&line).unwrap().verb, plan);
        for (line, repair, depth) in [
            ("rawmart verify", false, Depth::Usual),
            ("rawmart verify --repair", true, Depth::Usual),
            ("rawmart verify --quick", false, Depth::Quick),
            ("rawmart verify --repair --deep", true, Depth::Deep),
        ] {
            let verb = Verb::Verify { repair, depth };
            assert_eq!(typed(line).unwrap().verb, verb);
        }
        assert!(typed("rawmart verify --quick --deep").is_err());
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
            "rawmart rebuild --from 2019-04-01",
            "rawmart rebuild --from april --to may",
            "rawmart rebuild --from 2019-04-02 --to 2019-04-01",
            "rawmart plan --from 2019-04-01 --to 2019-04-02",
            "rawmart plan --raw",
            "rawmart rebuild --drop-object a",
            "rawmart rebuild --source a --source b --drop-object c",
            "rawmart rebuild --source a --drop-object c --raw",
            "rawmart plan --rebuild --replace-changed",
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

    /// The flags that a section of the page names, without their values.
    fn documented(heading: &str) -> BTreeSet<String> {
        let page = include_str!("../docs/commands.md");
        let rows = crate::pages::table(page, heading);
        let flags = rows.iter().flat_map(|row| row[0].split(", "));
        flags
            .map(|flag| {
                let flag = crate::pages::code(flag).unwrap();
                flag.split(' ').next().unwrap().to_owned()
            })
            .collect()
    }

    /// The flags of a command, but for help and version.
    fn flags<'a>(args: impl Iterator<Item = &'a clap::Arg>, global: bool) -> BTreeSet<String> {
        args.filter(|arg| arg.is_global_set() == global && !arg.is_positional())
            .filter(|arg| !["help", "version"].contains(&arg.get_id().as_str()))
            .flat_map(|arg| {
                let long = arg.get_long().map(|name| format!("--{name}"));
                let short = arg.get_short().map(|letter| format!("-{letter}"));
                long.into_iter().chain(short)
            })
            .collect()
    }

    #[test]
    fn the_page_on_the_commands_has_every_command_and_flag_and_no_other() {
        let mut command = Typed::command();
        command.build();
        assert_eq!(
            documented("Global flags"),
            flags(command.get_arguments(), true)
        );
        let mut verbs = Vec::new();
        for verb in command.get_subcommands() {
            let heading = format!("`rawmart {}`", verb.get_name());
            let own = flags(verb.get_arguments(), false);
            if own.is_empty() {
                let page = include_str!("../docs/commands.md");
                assert!(page.contains(&format!("\n## {heading}\n")), "{heading}");
            } else {
                assert_eq!(documented(&heading), own, "{heading}");
            }
            verbs.push(heading);
        }
        let page = include_str!("../docs/commands.md").lines();
        let headings: Vec<_> = page.filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(headings[0], "Global flags");
        assert_eq!(headings[1..], verbs);
    }
}
