//! The steps of `verify --repair`, which brings a lake back to the content that its log describes.
//!
//! ```text
//! lock ─▶ lost and damaged markers made again ─▶ open the log ─▶ roll forward ─▶ compare files
//!   a damaged file:  its bytes are what was published ─────────▶ note its ETag  ┐
//!                    its staged copy is ──▶ publish it once more ─▶ note its ETag ┴▶ COMMIT without files
//!                    neither: lost ─▶ its rows from raw, its mart from SQL ─▶ COMMIT over what was found
//! ─▶ sweep ─▶ checkpoint, where one is due ─▶ verify
//! ```
//!
//! The raw objects that may have rows in a lost file are read again as if they had been replaced by themselves.
//! P1 says that this gives the lost content, and the counts prove it. If the settings have changed since, the
//! whole source is made again.
//!
//! A folder or a link in the place of a file, and checkpoints and probes that cannot be used, are moved to
//! `_rawmart/aside` on disk and deleted in a bucket.
//!
//! Everything that a repair needs is checked before a file is changed. The commit that replaces a lost file
//! names the object in its place, so any run can finish an interrupted repair. Files that the log does not name
//! are not touched.

use std::path::Path;

use super::look::{Checked, Looked};
use super::marts::{Marts, mart_files};
use super::round::Rounds;
use super::summary::Totals;
use super::verify::{Damage, DamagedFile, Depth, Note, Repaired, Verified, files, verify};
use super::{Context, Doing, MartOutcome, MartSummary, Options, RunError, tables};
use crate::absorb::{AbsorbError, SpillFolder};
use crate::config::{Job, OnChangedObject};
use crate::lake::{self, Lake, Proof, Writing};
use crate::ledger::{Commit, FoundFile, Sha256};
use crate::plan::{Lost, Refusal, SourcePlan, Unrepairable};
use crate::publish::{self, Local, Staged};
use crate::store::{Object, StoreError};

/// Repairs damaged files, then verifies the lake.
///
/// # Errors
/// Every error that keeps a run from starting; a file that cannot be made again. No file was changed then.
pub fn repair<'a>(job: &'a Job, depth: Depth, context: &'a Context) -> Doing<'a, Verified> {
    Box::pin(async move {
        let mut job = job.clone();
        for source in &mut job.sources {
            // These rejects were accepted when they were absorbed.
            source.max_rejects = 1.0;
            // Other content does not bring back the lost rows.
            if source.on_changed_object == OnChangedObject::Ignore {
                source.on_changed_object = OnChangedObject::Fail;
            }
        }
        let options = Options {
            marts: true,
            relist: true,
            ..Options::default()
        };
        let checked = Checked::check(&job, &options)?;
        let locked = lake::lock(&job.lake, &context.store).await?;
        let mut repaired = Vec::new();
        let aside = |key| Repaired::SetAside { key };
        repaired.extend(locked.set_probe_aside().await?.map(aside));
        locked.probe(&context.run, job.single_writer).await?;
        let marked = locked.mark_again().await?.into_iter();
        repaired.extend(marked.map(|commit| Repaired::Marked { commit }));
        let checkpoints = locked.set_checkpoints_aside().await?.into_iter();
        repaired.extend(checkpoints.map(aside));
        let mut lake = locked.open(tables(&job), context.writer(&job)).await?;
        let rolled_forward = lake.roll_forward_over().await?;
        repaired.extend(rolled_forward.map(|commit| Repaired::RolledForward { commit }));
        let damaged = files(&lake, &job, depth).await?.damaged;
        let mut notes = Vec::new();
        if !damaged.is_empty() {
            let repair = Repair {
                job: &job,
                context,
                proof: lake.proof(),
            };
            let done = repair.all(checked, damaged, &mut lake).await?;
            repaired.extend(done.0);
            notes = done.1;
        }
        lake.sweep().await?;
        lake.checkpoint().await?;
        let mut verified = verify(&job, depth, &context.store).await?;
        verified.repaired = repaired;
        verified.notes.extend(notes);
        Ok(verified)
    })
}

struct Repair<'a> {
    job: &'a Job,
    context: &'a Context,
    proof: Proof,
}

/// The ways in which damaged files are repaired.
#[derive(Default)]
struct Ways {
    /// Files that hold the published content under another ETag.
    noted: Vec<FoundFile>,
    /// Files whose staged copies hold the published content.
    put_back: Vec<PutBack>,
    lost: Lost,
    /// The keys of folders and links in the place of files.
    aside: Vec<String>,
}

/// A damaged file whose staged copy is whole.
struct PutBack {
    key: String,
    staged: String,
    /// The ETag of the object in its place.
    found: Option<String>,
}

impl Repair<'_> {
    async fn all(
        &self,
        checked: Checked<'_>,
        damaged: Vec<DamagedFile>,
        lake: &mut Lake<Writing>,
    ) -> Result<(Vec<Repaired>, Vec<Note>), RunError> {
        let Ways {
            noted,
            put_back,
            lost,
            aside,
        } = self.ways(damaged, lake).await?;
        let spill = SpillFolder::new(self.job)?;
        let mut totals = Totals::default();
        let looked = match lost.is_empty() {
            true => None,
            false => {
                let settings = &self.context.store;
                let looked =
                    Looked::look(self.job, checked, lake.state(), spill.path(), settings).await?;
                let plans = looked.plan_repair(lake.state(), &lost);
                let plans = plans.map_err(|error| unrepairable(lake, error))?;
                Some((looked, plans))
            }
        };
        // From here on the lake is changed.
        let mut repaired = Vec::new();
        for key in aside {
            lake.set_aside(&key).await?;
            repaired.push(Repaired::SetAside { key });
        }
        repaired.extend(self.restore(noted, put_back, lake, &mut totals).await?);
        let mut notes = Vec::new();
        if let Some((looked, plans)) = looked {
            let again = Again {
                repair: self,
                looked: &looked,
                plans: &plans,
                spill: spill.path(),
            };
            let marts = again.make(&lost, lake, &mut totals).await?;
            notes.extend(marts.into_iter().filter_map(not_built));
            let made = lost.0.into_keys().filter(|key| {
                let file = lake.state().files.get(key);
                let table = file.map(|file| &file.entry.table);
                let failed = |note: &Note| matches!(note, Note::NotBuilt { mart, .. } if Some(mart) == table);
                !notes.iter().any(failed)
            });
            repaired.extend(made.map(|key| Repaired::MadeAgain { key }));
        }
        Ok((repaired, notes))
    }

    /// Finds out by their bytes which files and which staged copies hold the published content.
    async fn ways(
        &self,
        damaged: Vec<DamagedFile>,
        lake: &Lake<Writing>,
    ) -> Result<Ways, RunError> {
        let mut ways = Ways::default();
        for DamagedFile { key, found, what } in damaged {
            let file = lake.state().files.get(&key);
            let file = file.ok_or_else(|| RunError::Defect(format!("the log has no {key}")))?;
            let odd = matches!(what, Damage::NotAFile { .. });
            if odd {
                ways.aside.push(key.clone());
            }
            let found = found.filter(|_| !odd);
            let etag = found.as_ref().and_then(|object| object.etag.clone());
            let published = file.entry.sha256;
            if found.is_some_and(|object| object.size == file.entry.bytes)
                && let Some((object, sha256)) = hash(lake, &key).await?
                && Some(sha256) == published
            {
                let etag = object.etag.or(etag);
                ways.noted.push(FoundFile { key, etag });
                continue;
            }
            let staged = &file.entry.staged;
            if let Some((_, sha256)) = hash(lake, staged).await?
                && Some(sha256) == published
            {
                ways.put_back.push(PutBack {
                    key,
                    staged: staged.clone(),
                    found: etag,
                });
                continue;
            }
            ways.lost.0.insert(key, etag);
        }
        Ok(ways)
    }

    /// Publishes staged copies once more, and notes the ETags of all files that hold the published content. The
    /// commit has no files, because their content belongs to the commit that wrote it.
    async fn restore(
        &self,
        mut noted: Vec<FoundFile>,
        put_back: Vec<PutBack>,
        lake: &mut Lake<Writing>,
        totals: &mut Totals,
    ) -> Result<Vec<Repaired>, RunError> {
        // This is asked after the files were looked at. As long as there is no next commit, the ETags that were
        // found belong to no later commit.
        lake.overtaken(lake.state().last + 1).await?;
        let keys = noted.iter().map(|found| found.key.clone());
        let mut repaired: Vec<Repaired> = keys.map(|key| Repaired::Noted { key }).collect();
        for PutBack { key, staged, found } in put_back {
            let etag = lake.put_back(&staged, &key, found.as_deref()).await?;
            noted.push(FoundFile {
                key: key.clone(),
                etag: Some(etag),
            });
            repaired.push(Repaired::PutBack { key });
        }
        if !noted.is_empty() {
            let commit = Commit {
                found: noted,
                ..lake.new_commit()
            };
            totals.note_commit(lake.commit(commit, Staged::default()).await?);
        }
        Ok(repaired)
    }
}

/// An object and the SHA-256 of its bytes; `None` if there is none, or if another run has swept the staged file
/// meanwhile.
async fn hash(lake: &Lake<Writing>, key: &str) -> Result<Option<(Object, Sha256)>, StoreError> {
    let hashed = lake.store().sha256(key).await?;
    Ok(hashed.map(|(object, sha256)| (object, Sha256(sha256))))
}

fn unrepairable(lake: &Lake<Writing>, error: Unrepairable) -> RunError {
    match error {
        Unrepairable::File { key, why } => RunError::Absorb(AbsorbError::Irreparable {
            url: lake.store().url_of(&key),
            why,
        }),
        Unrepairable::Changed {
            source,
            count,
            first,
        } => RunError::Refused {
            name: source,
            refusal: Refusal::Changed { count, first },
        },
    }
}

fn not_built(mart: MartSummary) -> Option<Note> {
    let why = match mart.outcome {
        MartOutcome::Failed { error } => error,
        MartOutcome::Skipped { because } => format!("it reads {because}, which was not built"),
        MartOutcome::Built | MartOutcome::Fresh => return None,
    };
    let mart = mart.name;
    Some(Note::NotBuilt { mart, why })
}

/// Makes lost files again.
struct Again<'a> {
    repair: &'a Repair<'a>,
    looked: &'a Looked<'a>,
    /// The plans, in the order of the sources that were looked at.
    plans: &'a [SourcePlan],
    spill: &'a Path,
}

impl Again<'_> {
    /// Makes lost files again: first the files without rows, then the files of sources, then the files of
    /// marts.
    async fn make(
        &self,
        lost: &Lost,
        lake: &mut Lake<Writing>,
        totals: &mut Totals,
    ) -> Result<Vec<MartSummary>, RunError> {
        let Repair {
            job,
            context,
            proof,
        } = self.repair;
        let lost = &self.empty(lost.clone(), lake, totals).await?;
        let mut local = Local::default();
        if self.plans.iter().any(|source| source.why.is_some()) {
            let rounds = Rounds {
                job,
                looked: self.looked,
                plans: self.plans,
                lost,
                context,
                spill: self.spill,
                proof,
            };
            local = rounds.commit(0, lake, totals).await?;
        }
        let marts = Marts {
            job,
            looked: self.looked,
            plans: &self.looked.plan_marts(lake.state(), lost),
            lost,
            local: &local,
            context,
            spill: self.spill,
            proof,
        };
        marts.build(lake, totals).await
    }

    /// Makes lost files without rows again, and gives the other lost files. Only the log knows that there are
    /// empty files.
    async fn empty(
        &self,
        mut lost: Lost,
        lake: &mut Lake<Writing>,
        totals: &mut Totals,
    ) -> Result<Lost, RunError> {
        let mut commit = lake.new_commit();
        let tables = self.looked.tables(lake.state());
        let settings = mart_files(commit.number, 0);
        let mut files = Vec::new();
        for (key, etag) in &lost.0 {
            let file = lake.state().files.get(key);
            let Some(file) = file.filter(|file| file.entry.rows == 0) else {
                continue;
            };
            let Some(table) = tables.iter().find(|table| table.name == file.entry.table) else {
                continue;
            };
            let number = files.len();
            let empty = publish::empty_file(table, &file.entry, number, &settings, self.spill)?;
            files.push(empty);
            commit.found.push(FoundFile {
                key: key.clone(),
                etag: etag.clone(),
            });
        }
        if files.is_empty() {
            return Ok(lost);
        }
        for FoundFile { key, .. } in &commit.found {
            lost.0.remove(key);
        }
        let staged = lake.stage(&commit, files).await?;
        totals.note_commit(lake.commit(commit, staged).await?);
        Ok(lost)
    }
}
