//! Proof that the lake is what its log says.
//!
//! ```text
//! log ──▶ P2: per object, per source        ┐
//! log ──▶ files, ETags ──▶ listing of tables ┴──▶ Verified: damage, strays
//! ```

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::{RunError, look};
use crate::config::Job;
use crate::layout;
use crate::ledger::State;
use crate::store::{Object, Store};

/// What `verify` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    pub lake: String,
    pub commits: u64,
    pub objects: u64,
    pub files: u64,
    pub damage: Vec<Damage>,
    /// Keys below a table's root that the log does not name.
    pub strays: Vec<String>,
}

/// One thing that is not as the log says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Damage {
    Unpublished {
        commit: u64,
    },
    Missing {
        key: String,
    },
    Size {
        key: String,
        expected: u64,
        found: u64,
    },
    Content {
        key: String,
        expected: String,
        found: String,
    },
    Object {
        source: String,
        key: String,
        records: u64,
        events: u64,
        rejects: u64,
    },
    Balance {
        source: String,
        message: String,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unpublished { commit } => {
                write!(
                    f,
                    "commit {commit} is not published: the next run finishes it"
                )
            }
            Self::Missing { key } => write!(f, "{key} is missing"),
            Self::Size {
                key,
                expected,
                found,
            } => {
                write!(f, "{key} has {found} bytes, published were {expected}")
            }
            Self::Content {
                key,
                expected,
                found,
            } => {
                write!(
                    f,
                    "{key} was replaced: its ETag is {found}, published was {expected}"
                )
            }
            Self::Object {
                source,
                key,
                records,
                events,
                rejects,
            } => write!(
                f,
                "{source}: raw object {key} has {records} records, not {events} events + {rejects} rejects"
            ),
            Self::Balance { source, message } => write!(f, "{source}: {message}"),
        }
    }
}

/// Compares the lake with its log. Writes nothing.
///
/// # Errors
/// A store that does not answer, a log that cannot be read.
pub async fn verify(job: &Job) -> Result<Verified, RunError> {
    let lake = look::open_lake(job).await?;
    let state = State::open(&lake).await?;
    let mut verified = Verified {
        lake: lake.root().to_owned(),
        commits: state.last,
        objects: state
            .sources
            .values()
            .map(|source| source.objects.len() as u64)
            .sum(),
        files: state.files.len() as u64,
        damage: counts(&state),
        strays: Vec::new(),
    };
    if let Some(commit) = &state.unpublished {
        verified.damage.push(Damage::Unpublished {
            commit: commit.number,
        });
    }
    files(&lake, &state, &mut verified).await?;
    Ok(verified)
}

/// P2 of every object, and of every source against the rows of its tables.
fn counts(state: &State) -> Vec<Damage> {
    let mut damage = Vec::new();
    for (name, source) in &state.sources {
        let mut sum = crate::ledger::Balance::default();
        for object in source.objects.values() {
            let rejects: u64 = object.rejects.values().sum();
            if object.records != object.events + rejects {
                damage.push(Damage::Object {
                    source: name.clone(),
                    key: object.key.clone(),
                    records: object.records,
                    events: object.events,
                    rejects,
                });
            }
            sum.records += object.records.cast_signed();
            sum.events += object.events.cast_signed();
            for (reason, count) in &object.rejects {
                *sum.rejects.entry(*reason).or_default() += count.cast_signed();
            }
        }
        let mut say = |message: String| {
            damage.push(Damage::Balance {
                source: name.clone(),
                message,
            })
        };
        let balance = &source.balance;
        if let Some(message) = balance.imbalance() {
            say(message);
        }
        if (sum.records, sum.events, &sum.rejects)
            != (balance.records, balance.events, &balance.rejects)
        {
            say(format!(
                "the raw objects have {} records and {} events, the commits {} and {}",
                sum.records, sum.events, balance.records, balance.events
            ));
        }
        let duplicates: i64 = balance.duplicates.values().sum();
        let rejects: i64 = balance.rejects.values().sum();
        for (table, expected) in [
            (name.clone(), balance.kept),
            (format!("{name}_duplicates"), duplicates),
            (format!("{name}_rejects"), rejects),
        ] {
            let rows: u64 = state.table(&table).map(|file| file.entry.rows).sum();
            if rows.cast_signed() != expected {
                say(format!("{table} has {rows} rows, counted were {expected}"));
            }
        }
    }
    damage
}

async fn files(lake: &Store, state: &State, verified: &mut Verified) -> Result<(), RunError> {
    let mut tables: Vec<&str> = state
        .files
        .values()
        .map(|file| file.entry.table.as_str())
        .collect();
    tables.dedup();
    let mut there: BTreeMap<String, Object> = BTreeMap::new();
    for table in tables {
        for object in lake.list(&format!("{table}/")).await?.objects {
            there.insert(object.key.clone(), object);
        }
    }
    let unpublished = state
        .unpublished
        .as_ref()
        .map_or(u64::MAX, |commit| commit.number);
    for (key, file) in &state.files {
        let found = there.remove(key);
        if file.commit >= unpublished {
            continue;
        }
        let damage = match (found, &file.etag) {
            (None, _) => Damage::Missing { key: key.clone() },
            (Some(found), _) if found.size != file.entry.bytes => Damage::Size {
                key: key.clone(),
                expected: file.entry.bytes,
                found: found.size,
            },
            (
                Some(Object {
                    etag: Some(found), ..
                }),
                Some(expected),
            ) if found != *expected => Damage::Content {
                key: key.clone(),
                expected: expected.clone(),
                found,
            },
            (Some(_), _) => continue,
        };
        verified.damage.push(damage);
    }
    verified.strays = there
        .into_keys()
        .filter(|key| !key.starts_with(layout::CONTROL))
        .collect();
    Ok(())
}
