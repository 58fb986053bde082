//! Opens the log: the state of the newest checkpoint, and every commit after it.

use super::state::State;
use super::{LedgerError, checkpoint, log};
use crate::layout;
use crate::store::Store;

impl State {
    /// Reads the log of a lake, from its newest checkpoint on.
    ///
    /// # Errors
    /// A store that does not answer; a log that is damaged or of another format.
    pub async fn open(store: &Store) -> Result<Self, LedgerError> {
        let mut state = checkpoint::newest(store).await?;
        log::fold(&mut state, store).await?;
        Ok(state)
    }

    /// Does the same for a lake whose tables are known by name. A lake without a commit has no data files under
    /// these names. If there are some, the lake has lost its log.
    ///
    /// # Errors
    /// See [`Self::open`]; [`LedgerError::NoLog`].
    pub async fn open_with(
        store: &Store,
        tables: impl IntoIterator<Item = String>,
    ) -> Result<Self, LedgerError> {
        let state = Self::open(store).await?;
        if state.last > 0 {
            return Ok(state);
        }
        let roots = tables.into_iter().map(|table| format!("{table}/"));
        for root in roots.chain([layout::VERSIONS.to_owned()]) {
            let listing = store.list(&root).await?;
            let mut keys = listing.objects.into_iter().map(|object| object.key);
            if let Some(key) = keys.find(|key| !layout::is_hidden(key)) {
                // Another run may have made the first commit since.
                let now = Self::open(store).await?;
                return match now.last > 0 {
                    true => Ok(now),
                    false => Err(LedgerError::NoLog {
                        lake: store.root().to_owned(),
                        url: store.url_of(&key),
                    }),
                };
            }
        }
        Ok(state)
    }
}
