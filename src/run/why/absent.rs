//! Why no row matches: what the log and the raw prefix say of a raw object, and what was compared.

use serde::Serialize;

use super::super::{RunError, stores};
use super::fates::{Fate, Teller};
use super::find::Finder;
use super::{WhyAsked, conditions, object_of};
use crate::config::{Job, RawRoot, Source};
use crate::lake::{Lake, Reading};
use crate::names::nearest;
use crate::raw::Roots;
use crate::store::Store;

/// The shortest value that the texts of rejects are searched for. A shorter one is in too many of them.
const SHORTEST: usize = 4;

/// The most rejects that are told.
const TOLD: usize = 3;

/// Why no row matches.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Absent {
    /// The number of data files that were compared.
    pub files: u64,
    /// The number of rows of these files.
    pub rows: u64,
    /// The number of rejects whose text holds the longest of the values.
    pub rejects: u64,
    /// The first of these rejects.
    pub rejected: Vec<Fate>,
    /// What is known of the raw object that was named, in each source that may know it.
    pub records: Vec<AbsentRecord>,
}

/// What is known of a raw object that has no such row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "because", rename_all = "snake_case")]
pub enum AbsentRecord {
    /// The raw object was absorbed and has fewer records.
    FewRecords {
        /// The source.
        source: String,
        /// The raw object.
        object: String,
        /// The number of its records.
        records: u64,
    },
    /// The raw object was absorbed, and its records have no row with these values.
    OtherValues {
        /// The source.
        source: String,
        /// The raw object.
        object: String,
        /// The number of its events.
        events: u64,
        /// The number of its rejects.
        rejects: u64,
    },
    /// The raw object was absorbed and has this record, but no table has the row. This is damage.
    Lost {
        /// The source.
        source: String,
        /// The raw object.
        object: String,
    },
    /// The raw object was dropped for good.
    Dropped {
        /// The source.
        source: String,
        /// The raw object.
        object: String,
        /// The commit that dropped it.
        commit: u64,
    },
    /// The raw object exists and was not absorbed yet.
    NotAbsorbed {
        /// The source.
        source: String,
        /// The URL of the raw object.
        url: String,
    },
    /// The raw object exists, and `exclude` or its hidden name keeps it from being read.
    Excluded {
        /// The source.
        source: String,
        /// The URL of the raw object.
        url: String,
    },
    /// There is no such raw object, and the log has never seen it.
    NeverSeen {
        /// The source.
        source: String,
        /// The URL where it would lie.
        url: String,
        /// The folder that was listed, with the objects in it; absent for a key without a folder.
        #[serde(skip_serializing_if = "Option::is_none")]
        beside: Option<Beside>,
    },
}

/// The raw objects of one folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Beside {
    /// The URL of the folder. With the usual layouts it is an hour.
    pub folder: String,
    /// The number of objects.
    pub objects: u64,
    /// How many of them were absorbed.
    pub absorbed: u64,
    /// How many of them are excluded or hidden.
    pub excluded: u64,
    /// The object whose key is most like the one asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
}

/// The identity of a raw object that is named by its URL. Other text is taken for the identity itself.
pub fn identity(job: &Job, object: &str) -> String {
    let roots = job.sources.iter().flat_map(|source| &source.raw);
    let mut below = roots.filter_map(|root| {
        let key = object.strip_prefix(&root.url)?;
        Some(match &root.name {
            Some(name) => format!("{name}/{key}"),
            None => key.to_owned(),
        })
    });
    below.next().unwrap_or_else(|| object.to_owned())
}

/// Explains why no row matches.
///
/// # Errors
/// A store that does not answer, a data file that cannot be read.
pub async fn explain(
    job: &Job,
    lake: &Lake<Reading>,
    finder: &Finder<'_>,
    teller: &Teller<'_>,
    asked: &WhyAsked,
) -> Result<Absent, RunError> {
    let (files, rows) = finder.compared(&conditions(asked));
    let (mut rejects, mut rejected) = (0, Vec::new());
    if let WhyAsked::Columns(columns) = asked {
        // A reject has no columns. An id that is nowhere else may be in its text.
        let values = columns.iter().map(|(_, value)| value);
        let longest = values.max_by_key(|value| value.len());
        if let Some(value) = longest.filter(|value| value.len() >= SHORTEST) {
            let found = finder.rejects_with(value, TOLD).await?;
            rejects = found.count;
            rejected = found.first.iter().map(|row| teller.fate(row)).collect();
        }
    }
    let mut records = Vec::new();
    if let Some(object) = object_of(asked) {
        for source in &job.sources {
            records.push(of_source(job, lake, source, object, asked).await?);
        }
        // A source that knows the object says more than one that does not.
        let knows = |record: &AbsentRecord| !matches!(record, AbsentRecord::NeverSeen { .. });
        if records.iter().any(knows) {
            records.retain(knows);
        }
    }
    Ok(Absent {
        files,
        rows,
        rejects,
        rejected,
        records,
    })
}

/// What the log of a source says of a raw object, and otherwise what its prefix says.
async fn of_source(
    job: &Job,
    lake: &Lake<Reading>,
    source: &Source,
    object: &str,
    asked: &WhyAsked,
) -> Result<AbsentRecord, RunError> {
    let known = lake.state().sources.get(&source.name);
    let name = source.name.clone();
    let object_name = object.to_owned();
    if let Some(entry) = known.and_then(|known| known.objects.get(object)) {
        let rejects = entry.rejects.values().sum();
        return Ok(match asked {
            WhyAsked::Record { record, .. } => {
                let has = u64::try_from(*record).is_ok_and(|n| (1..=entry.records).contains(&n));
                match has {
                    true => AbsentRecord::Lost {
                        source: name,
                        object: object_name,
                    },
                    false => AbsentRecord::FewRecords {
                        source: name,
                        object: object_name,
                        records: entry.records,
                    },
                }
            }
            WhyAsked::Columns(_) => AbsentRecord::OtherValues {
                source: name,
                object: object_name,
                events: entry.events,
                rejects,
            },
        });
    }
    if let Some(commit) = known.and_then(|known| known.dropped.get(object)) {
        return Ok(AbsentRecord::Dropped {
            source: name,
            object: object_name,
            commit: *commit,
        });
    }
    of_prefix(job, lake, source, object).await
}

/// What lies under a raw prefix where the object would lie.
async fn of_prefix(
    job: &Job,
    lake: &Lake<Reading>,
    source: &Source,
    object: &str,
) -> Result<AbsentRecord, RunError> {
    let name = source.name.clone();
    let Some((root, key)) = root_of(source, object) else {
        return Ok(AbsentRecord::NeverSeen {
            source: name,
            url: object.to_owned(),
            beside: None,
        });
    };
    let store = Store::open(&root.url, &stores(job)).await?;
    let roots = Roots::new(source, Vec::new())?;
    let url = store.url_of(key);
    if store.head(key).await?.is_some() {
        return Ok(match roots.reads(key) {
            true => AbsentRecord::NotAbsorbed { source: name, url },
            false => AbsentRecord::Excluded { source: name, url },
        });
    }
    let beside = match key.rfind('/') {
        None => None,
        Some(at) => {
            let folder = key.get(..=at).unwrap_or_default();
            let listing = store.list(folder).await?;
            let keys = || listing.objects.iter().map(|object| object.key.as_str());
            let known = lake.state().sources.get(&source.name);
            let is_absorbed = |key: &&str| {
                let identity = match &root.name {
                    Some(name) => format!("{name}/{key}"),
                    None => (*key).to_owned(),
                };
                known.is_some_and(|known| known.objects.contains_key(&identity))
            };
            Some(Beside {
                folder: store.url_of(folder),
                objects: keys().count() as u64,
                absorbed: keys().filter(is_absorbed).count() as u64,
                excluded: keys().filter(|key| !roots.reads(key)).count() as u64,
                nearest: nearest(key, keys()).map(str::to_owned),
            })
        }
    };
    Ok(AbsentRecord::NeverSeen {
        source: name,
        url,
        beside,
    })
}

/// The root of a raw object and the key below it. `None` where no root has the name that the identity begins with.
fn root_of<'a>(source: &'a Source, identity: &'a str) -> Option<(&'a RawRoot, &'a str)> {
    source.raw.iter().find_map(|root| match &root.name {
        None => Some((root, identity)),
        Some(name) => {
            let key = identity.strip_prefix(name.as_str())?.strip_prefix('/')?;
            Some((root, key))
        }
    })
}
