//! Whether the store of a lake can keep two writers apart: tried once, remembered in the lake.
//!
//! ```text
//! _rawmart/probe ─┬─ there ─▶ what was found then ─┐
//!                 └─ none  ─▶ try, write it ───────┴─▶ conditions hold, or single_writer? ─ no ─▶ refuse
//! ```
//!
//! Some stores accept `If-None-Match` and ignore it, and there a commit has no one creator. What is
//! tried lies in the staging folder of the run, so two runs do not meet, and what a dying one leaves
//! is swept. What is remembered names no run: two that probe at once write the same bytes, and where they do
//! not, what the first has found counts.

use serde::{Deserialize, Serialize};

use super::log::to_bytes;
use super::{DamagedEntry, FORMAT, LedgerError, State, seal};
use crate::layout;
use crate::store::{Conditions, Store, StoreErrorKind};

/// What was tried, and what came of it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Probe {
    format: u32,
    /// A second object under a taken key was refused (`If-None-Match: *`).
    refuses_second_create: bool,
    /// A replacement of an object that has another ETag was refused (`If-Match`).
    refuses_wrong_etag: bool,
}

/// What is remembered, or what keeps it from being read.
async fn found(store: &Store) -> Result<Option<Result<Probe, String>>, LedgerError> {
    let bytes = match store.read(layout::PROBE).await {
        Err(error) if error.kind() == StoreErrorKind::NotAFile => {
            return Ok(Some(Err("it is no file".to_owned())));
        }
        bytes => bytes?,
    };
    Ok(bytes.map(|bytes| {
        seal::check(&bytes)?;
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    }))
}

/// What nobody can read is no reason to stop: trying costs a few requests.
async fn remembered(store: &Store) -> Result<Option<Probe>, LedgerError> {
    Ok(found(store).await?.and_then(Result::ok))
}

/// Whether what is remembered cannot be read.
///
/// # Errors
/// A store that does not answer.
pub async fn damaged_probe(store: &Store) -> Result<Option<DamagedEntry>, LedgerError> {
    let Some(Err(message)) = found(store).await? else {
        return Ok(None);
    };
    let url = store.url_of(layout::PROBE);
    Ok(Some(DamagedEntry {
        key: layout::PROBE.to_owned(),
        why: LedgerError::DamagedSpare { url, message },
    }))
}

/// Makes sure that the conditions of writes hold in the store of a lake, or that one writer vouches
/// for being the only one.
///
/// # Errors
/// [`LedgerError::Unconditional`] when the store ignores them; a store that does not answer.
pub async fn probe(
    store: &Store,
    state: &State,
    run: &str,
    single_writer: bool,
) -> Result<(), LedgerError> {
    let found: Probe = match remembered(store).await? {
        Some(found) => found,
        None => {
            let key = format!("{}probe", layout::staging_folder(state.last + 1, run));
            let Conditions { create, replace } = store.try_conditions(&key).await?;
            let found = Probe {
                format: FORMAT,
                refuses_second_create: create,
                refuses_wrong_etag: replace,
            };
            let bytes = to_bytes(&found, store, layout::PROBE)?;
            let created = store.create(layout::PROBE, bytes).await?;
            match created {
                Some(_) => found,
                // Another run has found something else. It may have committed meanwhile, and swept
                // what was tried here: then a second creation is no sign of anything.
                None => remembered(store).await?.unwrap_or(found),
            }
        }
    };
    let ignored = match (found.refuses_second_create, found.refuses_wrong_etag) {
        (true, true) => return Ok(()),
        (false, true) => "If-None-Match",
        (true, false) => "If-Match",
        (false, false) => "If-None-Match and If-Match",
    };
    if single_writer {
        return Ok(());
    }
    Err(LedgerError::Unconditional {
        lake: store.root().to_owned(),
        ignored,
        probe: store.url_of(layout::PROBE),
    })
}
