//! Checks the claims of a mart on its staged files, before they are published.
//!
//! ```text
//! staged files of the mart ─┬─▶ each claim: the rows that break it ──▶ none: the mart is committed
//! files that stay ──────────┘                                      └─▶ some: it is not, or told (`severity: warn`)
//! ```

use futures::{TryStreamExt, stream};

use super::super::{CheckSummary, RunError};
use super::PROVEN_AT_ONCE;
use super::build::Build;
use super::failure::failed_below;
use crate::ledger::FileEntry;
use crate::mart::{self, Broken, Claim, Mart};

impl Build<'_> {
    /// Checks every claim of a mart on its staged files. `None` where the mart claims nothing.
    ///
    /// # Errors
    /// The error of the mart if a claim cannot be evaluated; a failure of the store or of the local disk.
    pub async fn check(
        &self,
        mart: &Mart,
        staged: &[FileEntry],
    ) -> Result<Option<CheckSummary>, RunError> {
        if mart.claims.is_empty() {
            return Ok(None);
        }
        let _all = self.slots.take(self.slots.all).await?;
        let mut checks = CheckSummary::default();
        for claim in &mart.claims {
            checks.note(claim, self.broken(mart, claim, staged).await?);
        }
        Ok(Some(checks))
    }

    /// The rows that break a claim, if there are any.
    async fn broken(
        &self,
        mart: &Mart,
        claim: &Claim,
        staged: &[FileEntry],
    ) -> Result<Option<Broken>, RunError> {
        let read = self.inputs.read_by_claim(mart, claim, staged);
        stream::iter(read.map(Ok::<_, RunError>))
            .try_for_each_concurrent(PROVEN_AT_ONCE, |file| async {
                Ok(self.proof.prove(file).await?)
            })
            .await?;
        let inputs = self.inputs.of_claim(mart, claim, staged)?;
        let engine = &self.inputs.looked.engine;
        mart::guarded(mart, async {
            let (schema, rows) = claim.breaking(engine, &inputs).await?;
            Broken::of(&schema, rows).await.map_err(|error| {
                let of_run = failed_below(self.lake.store(), self.spill, &error);
                of_run.unwrap_or_else(|| claim.failing(&error).into())
            })
        })
        .await
    }
}
