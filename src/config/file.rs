//! Finds and reads the file, and puts together one [`Job`] from the flags, the environment and the file.
//!
//! ```text
//! --config │ RAWMART_CONFIG │ ./rawmart.toml      which file
//!        └──────┬───────┘
//!            text ──▶ tables with places ──▶ sources, references, marts ──▶ Job
//!                                         ▲ lake, memory, threads, max_rejects: flag, then RAWMART_*
//! ```
//!
//! Paths in the file resolve from the folder of the file. Paths in a flag or a variable resolve from the folder that
//! the command runs in.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::table::{Entry, Table, choice};
use super::{
    ConfigError, Encryption, Job, Overrides, Publish, Reader, Reference, Source, catalog, columns,
    place, reference, source, units,
};
use crate::layout::LONGEST_NAME;
use crate::time::Zone;

/// The name of the file that is looked for in the folder that the command runs in.
const FILE: &str = "rawmart.toml";
/// The memory of a run where nothing else is said, in bytes.
const MEMORY: u64 = 1 << 30;
/// The least memory of a run, in bytes. With less, not even one row group of a wide table fits beside its sort.
const LEAST_MEMORY: u64 = 256 << 20;

/// The keys of the file itself.
pub(super) const TOP_KEYS: [&str; 17] = [
    "lake",
    "timezone",
    "memory",
    "spill_dir",
    "threads",
    "single_writer",
    "sse",
    "sse_key",
    "sse_bucket_key",
    "requester_pays",
    "readers",
    "sources",
    "references",
    "marts",
    "catalog",
    "publish",
    "retain",
];
/// How long a retired version stays where nothing is said, in milliseconds.
const RETAIN_MS: i64 = 24 * 3_600_000;
/// The algorithms of server-side encryption. The first has no key that can be chosen.
const ALGORITHMS: [(&str, &str); 3] = [
    ("AES256", "AES256"),
    ("aws:kms", "aws:kms"),
    ("aws:kms:dsse", "aws:kms:dsse"),
];
/// The keys of the marts.
pub(super) const MARTS_KEYS: [&str; 1] = ["path"];

/// Finds, reads and validates the configuration.
///
/// `environment` gives the values of `RAWMART_*`. `folder` is the folder that the command runs in, as an absolute
/// path.
///
/// # Errors
/// There is no such file, it cannot be read, it is no TOML, or a value cannot be used: the message says where and
/// what to write.
pub fn load(
    overrides: &Overrides,
    environment: &dyn Fn(&str) -> Option<OsString>,
    folder: &Path,
) -> Result<Job, ConfigError> {
    // Shells and schedulers spell a variable that is not set as an empty one.
    let environment = |name: &str| environment(name).filter(|value| !value.is_empty());
    let shown = overrides
        .config
        .clone()
        .or_else(|| environment("RAWMART_CONFIG").map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from(FILE));
    let file = folder.join(&shown);
    let text = read(&file, &shown)?;
    let given = Given {
        overrides,
        environment: &environment,
        folder,
    };
    resolve(&text, file, &shown, &given)
}

/// The file that a new configuration is written to, as an absolute path.
pub fn file_to_write(overrides: &Overrides, folder: &Path) -> PathBuf {
    let named = overrides.config.as_deref();
    folder.join(named.unwrap_or_else(|| Path::new(FILE)))
}

/// Validates the text of a configuration as if it were in `file`. No flag and no variable has a say.
///
/// # Errors
/// See [`load`].
pub fn of_text(text: &str, file: &Path, folder: &Path) -> Result<Job, ConfigError> {
    let given = Given {
        overrides: &Overrides::default(),
        environment: &|_| None,
        folder,
    };
    resolve(text, file.to_owned(), file, &given)
}

/// What the flags and the environment say, and the folder that the command runs in.
struct Given<'a> {
    overrides: &'a Overrides,
    environment: &'a dyn Fn(&str) -> Option<OsString>,
    folder: &'a Path,
}

/// Puts the job together. `shown` is the file as messages name it.
fn resolve(text: &str, file: PathBuf, shown: &Path, given: &Given<'_>) -> Result<Job, ConfigError> {
    let document = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        file: shown.to_owned(),
        line: error.span().map_or(1, |span| line_of(text, span.start)),
        message: error.message().to_owned(),
    })?;
    let top = Table::top(shown, document.get_ref());
    top.only(&TOP_KEYS)?;
    let settings = Settings {
        overrides: given.overrides,
        environment: given.environment,
        folder: given.folder,
        top: &top,
        base: file.parent().unwrap_or(given.folder),
    };
    let lake = settings.lake()?;
    let memory = settings.memory()?;
    let threads = affordable(settings.threads()?, memory);
    let spill_dir = settings.spill_dir()?;
    let single_writer = match top.get("single_writer") {
        Some(entry) => entry.flag()?,
        None => false,
    };
    let encryption = encryption(&top)?;
    let requester_pays = match top.get("requester_pays") {
        Some(entry) => entry.flag()?,
        None => false,
    };
    let readers = match top.get("readers") {
        Some(entry) => Some(
            entry
                .elements("names of readers")?
                .iter()
                .map(|entry| entry.read(|text| choice(text, &Reader::ALL)))
                .collect::<Result<_, _>>()?,
        ),
        None => None,
    };
    let timezone = top.text_or("timezone", Zone(chrono_tz::UTC), str::parse)?;
    let sources = settings.sources(timezone, memory)?;
    let references = settings.references()?;
    let marts = settings.marts()?;
    distinct_tables(&top, &sources, &references)?;
    lake_apart(&top, &lake, &sources)?;
    let catalog = match top.get("catalog") {
        Some(entry) => Some(catalog::catalog(&entry.table()?, &lake)?),
        None => None,
    };
    let publish = publish(&top, catalog.is_some())?;
    Ok(Job {
        file,
        lake,
        timezone,
        memory,
        threads,
        spill_dir,
        single_writer,
        encryption,
        requester_pays,
        readers,
        sources,
        references,
        marts,
        catalog,
        publish,
        retain_ms: top.text_or("retain", RETAIN_MS, units::duration)?,
    })
}

/// Where data files are published.
fn publish(top: &Table<'_>, has_catalog: bool) -> Result<Publish, ConfigError> {
    let modes = [
        ("directory", Publish::Directory),
        ("catalog", Publish::Catalog),
    ];
    let publish = top.text_or("publish", Publish::default(), |text| choice(text, &modes))?;
    match publish == Publish::Catalog && !has_catalog {
        false => Ok(publish),
        true => Err(top.error_at(
            "publish",
            "readers find the current version of a partition in the catalog, and there is none: write a table \
             `[catalog]` with `type = \"glue\"`"
                .to_owned(),
        )),
    }
}

/// How S3 encrypts what is written.
fn encryption(top: &Table<'_>) -> Result<Option<Encryption>, ConfigError> {
    let algorithm = match top.get("sse") {
        Some(entry) => Some(entry.read(|text| choice(text, &ALGORITHMS))?),
        None => None,
    };
    let with_key = algorithm.is_some_and(|algorithm| algorithm != ALGORITHMS[0].0);
    for key in ["sse_key", "sse_bucket_key"] {
        if let (Some(entry), false) = (top.get(key), with_key) {
            let message = "it is a setting of `sse = \"aws:kms\"`, which is not set";
            return Err(entry.error(message.to_owned()));
        }
    }
    let Some(algorithm) = algorithm else {
        return Ok(None);
    };
    Ok(Some(Encryption {
        algorithm,
        key: match top.get("sse_key") {
            Some(entry) => Some(entry.text()?.to_owned()),
            None => None,
        },
        bucket_key: match top.get("sse_bucket_key") {
            Some(entry) => Some(entry.flag()?),
            None => None,
        },
    }))
}

/// All the places that a setting can come from: a flag, a variable, the file.
struct Settings<'a> {
    overrides: &'a Overrides,
    environment: &'a dyn Fn(&str) -> Option<OsString>,
    /// The folder that the command runs in: paths of flags and variables resolve from it.
    folder: &'a Path,
    /// The file.
    top: &'a Table<'a>,
    /// The folder of the file: its paths resolve from it.
    base: &'a Path,
}

impl Settings<'_> {
    fn variable(&self, name: &str) -> Result<Option<String>, ConfigError> {
        let value = (self.environment)(name);
        value.map(|value| unicode(name, &value)).transpose()
    }

    /// The text of a flag or, without the flag, of a variable; and the name of the one that gave it.
    fn stronger(
        &self,
        flag: &str,
        typed: Option<&str>,
        name: &str,
    ) -> Result<Option<(String, String)>, ConfigError> {
        match typed {
            Some(value) => Ok(Some((flag.to_owned(), value.to_owned()))),
            None => Ok(self.variable(name)?.map(|value| (name.to_owned(), value))),
        }
    }

    fn lake(&self) -> Result<String, ConfigError> {
        let typed = self.overrides.lake.as_deref();
        match self.stronger("--lake", typed, "RAWMART_LAKE")? {
            Some((name, text)) => {
                place::folder_url(&text, self.folder).map_err(|message| given(&name, message))
            }
            None => self
                .top
                .need(
                    "lake",
                    "write `lake = \"s3://bucket/prefix\"` or a local path, or give --lake",
                )?
                .read(|text| place::folder_url(text, self.base)),
        }
    }

    /// Bytes.
    fn memory(&self) -> Result<u64, ConfigError> {
        let typed = self.overrides.memory.as_deref();
        match self.stronger("--memory", typed, "RAWMART_MEMORY")? {
            Some((name, text)) => memory(&text).map_err(|message| given(&name, message)),
            None => self.top.text_or("memory", MEMORY, memory),
        }
    }

    fn threads(&self) -> Result<usize, ConfigError> {
        if let Some(threads) = self.overrides.threads {
            return some_threads(threads).map_err(|message| given("--threads", message));
        }
        if let Some(text) = self.variable("RAWMART_THREADS")? {
            return text
                .trim()
                .parse()
                .map_err(|_| format!("`{text}` is no number of threads: give 1 or more"))
                .and_then(some_threads)
                .map_err(|message| given("RAWMART_THREADS", message));
        }
        match self.top.get("threads") {
            Some(entry) => some_threads(usize::try_from(entry.integer()?).unwrap_or(0))
                .map_err(|message| entry.error(message)),
            None => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
        }
    }

    fn spill_dir(&self) -> Result<Option<PathBuf>, ConfigError> {
        let typed = self.overrides.spill_dir.as_ref();
        let typed = typed.map(|path| unicode("--spill-dir", path.as_os_str()));
        let typed = typed.transpose()?;
        match self.stronger("--spill-dir", typed.as_deref(), "RAWMART_SPILL_DIR")? {
            Some((name, text)) => place::local_path(&text, self.folder)
                .map(Some)
                .map_err(|message| given(&name, message)),
            None => match self.top.get("spill_dir") {
                Some(entry) => entry
                    .read(|text| place::local_path(text, self.base))
                    .map(Some),
                None => Ok(None),
            },
        }
    }

    /// The sources in the order of their names.
    fn sources(&self, lake_zone: Zone, memory: u64) -> Result<Vec<Source>, ConfigError> {
        let max_rejects = match &self.overrides.max_rejects {
            Some(text) => {
                Some(units::share(text).map_err(|message| given("--max-rejects", message))?)
            }
            None => None,
        };
        let mut sources = Vec::new();
        for (name, entry) in named(self.top, "sources")? {
            let table = entry.table()?;
            let mut source = source::source(name, &table, self.base, lake_zone)?;
            records_fit(&table, &source, memory)?;
            if let Some(share) = max_rejects {
                source.max_rejects = share;
            }
            sources.push(source);
        }
        if sources.is_empty() {
            return Err(self.top.error_at(
                "sources",
                "there is no source: write a table `[sources.events]` with raw, event_time and columns"
                    .to_owned(),
            ));
        }
        sources.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(sources)
    }

    /// The references in the order of their names.
    fn references(&self) -> Result<Vec<Reference>, ConfigError> {
        let mut references = Vec::new();
        for (name, entry) in named(self.top, "references")? {
            references.push(reference::reference(name, &entry.table()?, self.base)?);
        }
        references.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(references)
    }

    /// The folder of mart SQL files.
    fn marts(&self) -> Result<Option<PathBuf>, ConfigError> {
        let Some(entry) = self.top.get("marts") else {
            return Ok(None);
        };
        let table = entry.table()?;
        table.only(&MARTS_KEYS)?;
        let path = table.need("path", "write `path = \"sql/marts\"`")?;
        path.read(|text| place::local_path(text, self.base))
            .map(Some)
    }
}

/// The error of a flag or a variable.
fn given(name: &str, message: String) -> ConfigError {
    ConfigError::Given {
        name: name.to_owned(),
        message,
    }
}

fn unicode(name: &str, value: &OsStr) -> Result<String, ConfigError> {
    match value.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(given(
            name,
            format!("{value:?} is not UTF-8: give a value in that encoding"),
        )),
    }
}

/// The text of the file, which messages call `shown`.
fn read(file: &Path, shown: &Path) -> Result<String, ConfigError> {
    let bytes = std::fs::read(file).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => ConfigError::Missing {
            file: shown.to_owned(),
        },
        _ => ConfigError::Unreadable {
            file: shown.to_owned(),
            source,
        },
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(good).filter(|b| **b == b'\n');
        ConfigError::Syntax {
            file: shown.to_owned(),
            line: 1 + line.count(),
            message: "is not UTF-8: save the file in that encoding".to_owned(),
        }
    })
}

/// The line of the byte `at`, from 1.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|b| *b == b'\n').count()
}

/// The bytes of a size that is enough for a run.
fn memory(text: &str) -> Result<u64, String> {
    match units::size(text)? {
        bytes if bytes < LEAST_MEMORY => {
            Err(format!("`{text}` is too little: give 256MiB or more"))
        }
        bytes => Ok(bytes),
    }
}

/// The most threads of a run. Each thread has a share of the memory, and with more threads the shares are too small
/// to work in.
const MOST_THREADS: usize = 1_024;

/// Refuses numbers of threads that cannot work.
fn some_threads(threads: usize) -> Result<usize, String> {
    match threads {
        0 => Err("there is no work without a thread: give 1 or more".to_owned()),
        threads if threads > MOST_THREADS => Err(format!(
            "{threads} threads are more than any machine has cores: give {MOST_THREADS} or less"
        )),
        threads => Ok(threads),
    }
}

/// The bytes of memory that each thread needs for itself: buffers, batches, and the blocks of its spilled runs.
const THREAD_BYTES: u64 = 32 << 20;

/// How many of these threads the memory is enough for.
fn affordable(threads: usize, memory: u64) -> usize {
    let most = usize::try_from(memory / THREAD_BYTES).unwrap_or(usize::MAX);
    if threads <= most {
        return threads;
    }
    tracing::warn!(
        "{most} of {threads} threads are used, because each needs {} of memory; give --memory {} for all of them",
        units::show_size(THREAD_BYTES),
        units::show_size(threads as u64 * THREAD_BYTES),
    );
    most
}

/// How many copies of a record are held at once while it is decoded, sorted and written.
const RECORD_COPIES: u64 = 16;

/// Refuses a source that allows records too long for the memory.
fn records_fit(table: &Table<'_>, source: &Source, memory: u64) -> Result<(), ConfigError> {
    let longest = source.decode.limits.max_record_bytes;
    if longest <= memory / RECORD_COPIES {
        return Ok(());
    }
    Err(table.error_at(
        "max_record_bytes",
        format!(
            "{} needs {} of memory, and a run has {}: give more with --memory, or {}MiB or less here",
            units::show_size(longest),
            units::show_size(longest.saturating_mul(RECORD_COPIES)),
            units::show_size(memory),
            (memory / RECORD_COPIES) >> 20,
        ),
    ))
}

/// The tables under `key` and their names, which are checked.
fn named<'a>(top: &Table<'a>, key: &str) -> Result<Vec<(&'a str, Entry<'a>)>, ConfigError> {
    let Some(entry) = top.get(key) else {
        return Ok(Vec::new());
    };
    let entries = entry.table()?.in_order();
    for (name, entry) in &entries {
        columns::name(name).map_err(|message| entry.error(message))?;
    }
    Ok(entries)
}

/// Refuses two tables of one name, and a name that some reader does not take. Each source makes three tables, and each reference is a table.
fn distinct_tables(
    top: &Table<'_>,
    sources: &[Source],
    references: &[Reference],
) -> Result<(), ConfigError> {
    let mut tables: Vec<(String, String)> = Vec::new();
    for source in sources {
        for table in source.tables() {
            tables.push((table, format!("sources.{}", source.name)));
        }
    }
    for reference in references {
        tables.push((
            reference.name.clone(),
            format!("references.{}", reference.name),
        ));
    }
    for (i, (table, owner)) in tables.iter().enumerate() {
        let earlier = tables.iter().take(i).find(|(other, _)| other == table);
        let message = match earlier {
            Some((_, first)) => {
                format!("the table `{table}` is made by {first} already: rename one")
            }
            None if table.len() > LONGEST_NAME => format!(
                "its table `{table}` has a name of {} bytes, more than the {LONGEST_NAME} that Redshift reads: \
                 shorten the name of the source",
                table.len()
            ),
            None => continue,
        };
        let (section, name) = owner.split_once('.').unwrap_or(("sources", owner));
        return Err(match top.get(section) {
            Some(entry) => entry.table()?.error_at(name, message),
            None => top.error_at(owner, message),
        });
    }
    Ok(())
}

/// Refuses a lake that overlaps a raw root.
fn lake_apart(top: &Table<'_>, lake: &str, sources: &[Source]) -> Result<(), ConfigError> {
    for source in sources {
        for root in &source.raw {
            let (real_lake, real_root) = (place::resolved(lake), place::resolved(&root.url));
            let links = match place::overlap(lake, &root.url) {
                true => String::new(),
                false if place::overlap(&real_lake, &real_root) => {
                    format!(" (through symbolic links: they are {real_lake} and {real_root})")
                }
                false => continue,
            };
            return Err(top.error_at(
                "lake",
                format!(
                    "the lake {lake} and the raw root {} of the source `{}` overlap{links}, so the \
                     lake's files would be read as raw objects or written among them: move the lake",
                    root.url, source.name
                ),
            ));
        }
    }
    Ok(())
}
