//! Tests once whether the store of a lake keeps two writers apart, and remembers the answer in the lake.
//!
//! ```text
//! _rawmart/probe ─┬─ there ─▶ what was found then ─┐
//!                 └─ none  ─▶ try, write it ───────┴─▶ conditions hold, or single_writer? ─ no ─▶ refuse
//! ```
//!
//! Some stores accept `If-None-Match` and ignore it. In such a store two runs could both create the same
//! commit. The test objects lie in the staging folder of the run, so two runs do not meet, and a later run
//! sweeps the objects of a dead run. The remembered answer names no run, so two runs that test at once write
//! the same bytes. If their answers differ, the first one counts.

use serde::{Deserialize, Serialize};

use super::log::to_bytes;
use super::{DamagedEntry, FORMAT, LedgerError, State, seal};
use crate::layout;
use crate::store::{Conditions, Store, StoreErrorKind};

/// The two conditions that were tried, and whether the store kept them.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Probe {
    format: u32,
    /// A second object under a taken key was refused (`If-None-Match: *`).
    refuses_second_create: bool,
    /// A replacement of an object that has another ETag was refused (`If-Match`).
    refuses_wrong_etag: bool,
}

/// The remembered answer, or the error that keeps it from being read.
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

/// An answer that cannot be read is not a reason to stop, because trying again costs a few requests.
async fn remembered(store: &Store) -> Result<Option<Probe>, LedgerError> {
    Ok(found(store).await?.and_then(Result::ok))
}

/// The probe if it cannot be read.
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

/// Makes sure that the store of a lake keeps conditional writes, or that `single_writer` promises that there is
/// only one writer.
///
/// # Errors
/// [`LedgerError::Unconditional`] if the store ignores conditions; a store that does not answer.
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
                // Another run has found something else. It may have committed meanwhile and swept the test
                // objects of this run. A second creation that succeeds proves nothing then.
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
