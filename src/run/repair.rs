//! What `verify --repair` does: the lake is brought back to what its log says.
//!
//! ```text
//! lock ─▶ lost and damaged markers made anew ─▶ open the log ─▶ roll forward ─▶ compare files
//!   a damaged file:  its bytes are what was published ─────────▶ note its ETag  ┐
//!                    its staged copy is ──▶ publish it once more ─▶ note its ETag ┴▶ COMMIT without files
//!                    neither: lost ─▶ its rows from raw, its mart from SQL ─▶ COMMIT over what was found
//! ─▶ sweep ─▶ checkpoint, where one is due ─▶ verify
//! ```
//!
//! The raw objects that may have rows in a lost file are read again as if they had been replaced by
//! themselves: P1 says that this gives the content that was lost, and the counts prove it. Where the
//! settings are others now, the source is made anew as a whole.
//!
//! A folder or a link in the place of a file, and checkpoints and probes that cannot be used, are moved to
//! `_rawmart/aside` on disk and deleted in a bucket.
//!
//! Everything that this takes is looked at before a file is changed. What lies in the place of a lost file is in
//! the commit that replaces it, so that any run can finish a repair that was interrupted. Files that
//! the log does not name are left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use futures::stream;

use super::look::{Checked, ListedSource, Looked};
use super::marts::Folders;
use super::proof::Proof;
use super::verify::{Damage, DamagedFile, Depth, Note, Repaired, Verified, files, verify};
use super::{
    Context, Doing, MartOutcome, MartSummary, Options, Round, RunError, Totals, commit_files, marts,
};
use crate::absorb::{AbsorbError, SpillFolder};
use crate::catalog::SourceTables;
use crate::config::{Job, OnChangedObject, Source};
use crate::event::{Place, Slicing};
use crate::layout;
use crate::ledger::{
    self, Commit, File, FoundFile, ObjectEntry, PublishedFile, Settings, Sha256, SourceState, State,
};
use crate::plan::{self, SourcePlan, Step, Why};
use crate::progress::Happened;
use crate::publish::{self, Local, PublishError, Staged};
use crate::store::{Lies, Object, Publish, Store, StoreError};
use crate::time::TimeUnit;

/// Brings damaged files back, then verifies.
///
/// # Errors
/// What keeps a run from starting; a file that cannot be made again: then no file was changed.
pub fn repair<'a>(job: &'a Job, depth: Depth, context: &'a Context) -> Doing<'a, Verified> {
    Box::pin(async move {
        let mut job = job.clone();
        for source in &mut job.sources {
            // They were let through when they were absorbed.
            source.max_rejects = 1.0;
            // Other content does not bring back what was lost.
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
        let lake = Store::open(&job.lake, &context.store).await?;
        let Some(_lock) = lake.lock(layout::LOCK).await? else {
            return Err(RunError::Locked {
                lake: lake.root().to_owned(),
            });
        };
        let mut repaired = Vec::new();
        if let Some(probe) = ledger::damaged_probe(&lake).await? {
            ledger::set_aside(&lake, &probe.key).await?;
            repaired.push(Repaired::SetAside { key: probe.key });
        }
        ledger::probe(&lake, &State::default(), &context.run, job.single_writer).await?;
        let marked = ledger::mark_again(&lake).await?.into_iter();
        repaired.extend(marked.map(|commit| Repaired::Marked { commit }));
        for checkpoint in ledger::damaged_checkpoints(&lake).await? {
            ledger::set_aside(&lake, &checkpoint.key).await?;
            let key = checkpoint.key;
            repaired.push(Repaired::SetAside { key });
        }
        let mut state = super::open(&job, &lake).await?;
        if let Some(commit) = state.unpublished.clone() {
            roll_forward(&lake, &commit, &state).await?;
            state = State::open(&lake).await?;
            let commit = commit.number;
            context.progress.tell(Happened::RolledForward { commit });
            repaired.push(Repaired::RolledForward { commit });
        }
        let damaged = files(&lake, &job, &state, depth).await?.damaged;
        let mut notes = Vec::new();
        if !damaged.is_empty() {
            let repair = Repair {
                job: &job,
                lake: &lake,
                context,
                proof: Proof::new(&lake, state.last),
            };
            let done = repair.all(checked, damaged, &mut state).await?;
            repaired.extend(done.0);
            notes = done.1;
        }
        publish::sweep(&lake, &state).await?;
        ledger::checkpoint(&lake, &state).await?;
        let mut verified = verify(&job, depth, &context.store).await?;
        verified.repaired = repaired;
        verified.notes.extend(notes);
        Ok(verified)
    })
}

/// Publishes what is staged for a commit over whatever is there, and marks it. Of files whose staged
/// copies are gone nothing is known. Nothing is done once another run has marked the commit.
async fn roll_forward(lake: &Store, commit: &Commit, state: &State) -> Result<(), RunError> {
    let mut files = Vec::new();
    for entry in &commit.files {
        let key = entry.key();
        let known = state.files.get(&key).and_then(|file| file.etag.clone());
        let found = lake.head(&key).await?;
        // Only now: while there is no marker, what was found is of no later commit.
        if marked(lake, commit.number).await? {
            return Ok(());
        }
        // A server that tells no ETag may still compare one.
        let expected = found.and_then(|found| found.etag.or(known));
        let whole = publish::is_staged_whole(lake, entry).await?;
        let odd = matches!(
            lake.lies(&key).await?,
            Lies::Folder | Lies::Link | Lies::Other
        );
        let put = match (whole, odd) {
            (Some(true), false) => {
                let put = lake.publish(&entry.staged, &key, expected.as_deref());
                put.await?
            }
            // It is damage of the file then.
            _ => Publish::StagedGone,
        };
        let etag = match put {
            Publish::Done(put) => put.etag,
            Publish::StagedGone => String::new(),
            Publish::Conflict if marked(lake, commit.number).await? => return Ok(()),
            Publish::Conflict => {
                return Err(PublishError::Foreign {
                    url: lake.url_of(&key),
                }
                .into());
            }
        };
        files.push(PublishedFile { key, etag });
    }
    let marker = ledger::Published {
        format: ledger::FORMAT,
        number: commit.number,
        files,
    };
    Ok(ledger::mark_published(lake, &marker).await?)
}

async fn marked(lake: &Store, n: u64) -> Result<bool, RunError> {
    Ok(lake.head(&layout::published_key(n)).await?.is_some())
}

struct Repair<'a> {
    job: &'a Job,
    lake: &'a Store,
    context: &'a Context,
    proof: Proof,
}

/// What is to be done about damaged files.
#[derive(Default)]
struct Ways {
    /// They hold what was published.
    noted: Vec<FoundFile>,
    /// Their staged copies do: key, staged key and the ETag of what is there.
    put_back: Vec<(String, String, Option<String>)>,
    /// The ETag of what is there.
    lost: BTreeMap<String, Option<String>>,
    /// Folders and links in the place of files: their keys.
    aside: Vec<String>,
}

impl Repair<'_> {
    async fn all(
        &self,
        checked: Checked<'_>,
        damaged: Vec<DamagedFile>,
        state: &mut State,
    ) -> Result<(Vec<Repaired>, Vec<Note>), RunError> {
        let Ways {
            noted,
            put_back,
            lost,
            aside,
        } = self.ways(damaged, state).await?;
        let spill = SpillFolder::new(self.job)?;
        let mut totals = Totals::default();
        let looked = match lost.is_empty() {
            true => None,
            false => {
                let mut looked =
                    Looked::look(self.job, checked, state, spill.path(), &self.context.store)
                        .await?;
                looked.lost = lost;
                self.plan(&mut looked, state)?;
                Some(looked)
            }
        };
        // From here on things change.
        let mut repaired = Vec::new();
        for key in aside {
            ledger::set_aside(self.lake, &key).await?;
            repaired.push(Repaired::SetAside { key });
        }
        self.restore(noted, put_back, state, &mut totals, &mut repaired)
            .await?;
        let mut notes = Vec::new();
        if let Some(mut looked) = looked {
            let lost: Vec<String> = looked.lost.keys().cloned().collect();
            let marts = self
                .make_again(&mut looked, state, spill.path(), &mut totals)
                .await?;
            for MartSummary { name, outcome, .. } in marts {
                let why = match outcome {
                    MartOutcome::Failed { error } => error,
                    MartOutcome::Skipped { because } => {
                        format!("it reads {because}, which was not built")
                    }
                    MartOutcome::Built | MartOutcome::Fresh => continue,
                };
                notes.push(Note::NotBuilt { mart: name, why });
            }
            let made = lost.into_iter().filter(|key| {
                let table = state.files.get(key).map(|file| &file.entry.table);
                let failed = |note: &Note| matches!(note, Note::NotBuilt { mart, .. } if Some(mart) == table);
                !notes.iter().any(failed)
            });
            repaired.extend(made.map(|key| Repaired::MadeAgain { key }));
        }
        Ok((repaired, notes))
    }

    /// Tells by their bytes which files and staged copies are what was published.
    async fn ways(&self, damaged: Vec<DamagedFile>, state: &State) -> Result<Ways, RunError> {
        let mut ways = Ways::default();
        for DamagedFile { key, found, what } in damaged {
            let file = state.files.get(&key);
            let file = file.ok_or_else(|| RunError::Defect(format!("the log has no {key}")))?;
            let odd = matches!(what, Damage::NotAFile { .. });
            if odd {
                ways.aside.push(key.clone());
            }
            let found = found.filter(|_| !odd);
            let etag = found.as_ref().and_then(|object| object.etag.clone());
            let published = file.entry.sha256;
            if found.is_some_and(|object| object.size == file.entry.bytes)
                && let Some((object, sha256)) = self.hash(&key).await?
                && Some(sha256) == published
            {
                let etag = object.etag.or(etag);
                ways.noted.push(FoundFile { key, etag });
                continue;
            }
            let staged = &file.entry.staged;
            if let Some((_, sha256)) = self.hash(staged).await?
                && Some(sha256) == published
            {
                ways.put_back.push((key, staged.clone(), etag));
                continue;
            }
            ways.lost.insert(key, etag);
        }
        Ok(ways)
    }

    /// An object and the SHA-256 of its bytes; `None` where there is none, or none any more: another
    /// run sweeps what was staged.
    async fn hash(&self, key: &str) -> Result<Option<(Object, Sha256)>, StoreError> {
        let hashed = self.lake.sha256(key).await?;
        Ok(hashed.map(|(object, sha256)| (object, Sha256(sha256))))
    }

    /// Publishes staged copies once more, and notes the ETags of all files that hold what was
    /// published. A commit of no files: their content is of the commit that wrote it.
    async fn restore(
        &self,
        mut noted: Vec<FoundFile>,
        put_back: Vec<(String, String, Option<String>)>,
        state: &mut State,
        totals: &mut Totals,
        repaired: &mut Vec<Repaired>,
    ) -> Result<(), RunError> {
        // Only now: while there is no next commit, the ETags found are of no later one.
        super::overtaken(self.lake, state.last + 1).await?;
        for FoundFile { key, .. } in &noted {
            repaired.push(Repaired::Noted { key: key.clone() });
        }
        for (key, staged, expected) in put_back {
            match self
                .lake
                .publish(&staged, &key, expected.as_deref())
                .await?
            {
                Publish::Done(put) => noted.push(FoundFile {
                    key: key.clone(),
                    etag: Some(put.etag),
                }),
                Publish::Conflict | Publish::StagedGone => {
                    let url = self.lake.url_of(&key);
                    return Err(PublishError::Overtaken { url }.into());
                }
            }
            repaired.push(Repaired::PutBack { key });
        }
        if noted.is_empty() {
            return Ok(());
        }
        let commit = Commit {
            found: noted,
            ..super::new_commit(state, self.context)
        };
        self.commit(commit, Staged::default(), state, totals).await
    }

    async fn commit(
        &self,
        commit: Commit,
        staged: Staged,
        state: &mut State,
        totals: &mut Totals,
    ) -> Result<(), RunError> {
        commit_files(
            self.job,
            self.lake,
            commit,
            staged,
            state,
            self.context,
            totals,
        )
        .await
        .map(drop)
    }

    /// Plans what makes the lost files again, in the place of what a run would do.
    fn plan(&self, looked: &mut Looked<'_>, state: &State) -> Result<(), RunError> {
        let mut sources: BTreeMap<&str, Vec<&File>> = BTreeMap::new();
        for key in looked.lost.keys() {
            let Some(file) = state.files.get(key) else {
                continue;
            };
            let table = &file.entry.table;
            let makes = |source: &&ListedSource<'_>| source.source.tables().contains(table);
            match looked.sources.iter().find(makes) {
                Some(listed) => sources.entry(&listed.source.name).or_default().push(file),
                None if looked.mart_tables.iter().any(|mart| mart.name == *table) => {}
                None => {
                    return Err(self.irreparable(
                        key,
                        format!("the configuration has no source and no mart that makes {table}"),
                    ));
                }
            }
        }
        for (planned, listed) in looked.plan.sources.iter_mut().zip(&looked.sources) {
            planned.why = None;
            planned.refused = None;
            planned.settings = None;
            planned.meanwhile = None;
            planned.steps.clear();
            let lost = sources.remove(planned.source.as_str()).unwrap_or_default();
            let lost: Vec<&File> = lost
                .into_iter()
                .filter(|file| file.entry.rows > 0)
                .collect();
            if let (Some(first), Some(known)) = (lost.first(), state.sources.get(&planned.source)) {
                self.plan_source(planned, listed, known, first, &lost)?;
            }
        }
        Ok(())
    }

    /// Plans to read again every raw object that may have rows in the lost files; all of them where
    /// the tables would not be made in the same way.
    fn plan_source(
        &self,
        planned: &mut SourcePlan,
        listed: &ListedSource<'_>,
        known: &SourceState,
        first: &File,
        lost: &[&File],
    ) -> Result<(), RunError> {
        let source = listed.source;
        let now = plan::settings(self.job, source);
        // A column that is null on some dates may come to be filled there.
        let same = |known: &Settings| {
            Settings {
                unfilled: now.unfilled.clone(),
                ..known.clone()
            } == now
        };
        let other = !known.settings.as_ref().is_some_and(same);
        let replace = source.on_changed_object == OnChangedObject::Replace;
        let anew = other || replace && !listed.changed.is_empty();
        let held = known.objects.values().filter(|object| {
            let holds = |file: &&File| may_hold(object, file, source, now.slicing);
            anew || lost.iter().any(holds)
        });
        let held: BTreeSet<String> = held.map(|object| object.key.clone()).collect();
        let gone = planned.vanished.iter().filter(|key| held.contains(*key));
        if let Some(name) = gone.clone().next() {
            let count = gone.count();
            return Err(self.irreparable(
                &first.entry.key(),
                format!(
                    "{count} raw objects of {} that it takes are gone, first {name}; restore them, \
                     then repair again",
                    source.name
                ),
            ));
        }
        let changed = listed.changed.iter().filter(|key| held.contains(*key));
        if let (Some(first), false) = (changed.clone().next(), replace) {
            return Err(RunError::Changed {
                name: source.name.clone(),
                count: changed.count(),
                first: first.clone(),
            });
        }
        let objects = &listed.found.objects;
        let read = (0..objects.len()).filter(|i| {
            let found = objects.get(*i);
            found.is_some_and(|found| held.contains(&*found.identity))
        });
        let read: Vec<usize> = read.collect();
        let found = read.iter().filter_map(|i| objects.get(*i));
        planned.why = Some(Why::Rebuild);
        planned.settings = other.then_some(now);
        planned.steps = vec![Step {
            objects: read.len() as u64,
            bytes: found.map(|found| found.size).sum(),
            leaving: if anew { BTreeSet::new() } else { held },
            again: None,
            fill: BTreeSet::new(),
            anew,
            read,
        }];
        Ok(())
    }

    fn irreparable(&self, key: &str, why: String) -> RunError {
        AbsorbError::Irreparable {
            url: self.lake.url_of(key),
            why,
        }
        .into()
    }

    /// Makes lost files again: those without rows, those of sources, those of marts.
    async fn make_again(
        &self,
        looked: &mut Looked<'_>,
        state: &mut State,
        spill: &Path,
        totals: &mut Totals,
    ) -> Result<Vec<MartSummary>, RunError> {
        self.empty_again(looked, state, spill, totals).await?;
        let mut local = Local::default();
        if looked
            .plan
            .sources
            .iter()
            .any(|source| source.why.is_some())
        {
            local = Round {
                job: self.job,
                limits: plan::CommitLimits::new(self.job.memory),
                looked,
                lake: self.lake,
                context: self.context,
                spill,
                proof: &self.proof,
            }
            .commit(0, state, totals)
            .await?;
        }
        looked.plan_marts(state);
        let folders = Folders {
            lake: self.lake,
            local: &local,
            spill,
            proof: &self.proof,
        };
        marts::build(self.job, looked, folders, state, self.context, totals).await
    }

    /// Nothing but the log says that there are files without rows.
    async fn empty_again(
        &self,
        looked: &mut Looked<'_>,
        state: &mut State,
        spill: &Path,
        totals: &mut Totals,
    ) -> Result<(), RunError> {
        let mut commit = super::new_commit(state, self.context);
        let sources = SourceTables::of(self.job, &state.columns);
        let settings = super::mart_files(commit.number, 0);
        let mut files = Vec::new();
        for (key, etag) in &looked.lost {
            let Some(file) = state.files.get(key).filter(|file| file.entry.rows == 0) else {
                continue;
            };
            let tables = sources.iter().flat_map(SourceTables::all);
            let mut tables = tables.chain(&looked.mart_tables);
            let Some(table) = tables.find(|table| table.name == file.entry.table) else {
                continue;
            };
            let number = files.len();
            files.push(publish::empty_file(
                table,
                &file.entry,
                number,
                &settings,
                spill,
            )?);
            commit.found.push(FoundFile {
                key: key.clone(),
                etag: etag.clone(),
            });
        }
        if files.is_empty() {
            return Ok(());
        }
        for FoundFile { key, .. } in &commit.found {
            looked.lost.remove(key);
        }
        let staged = publish::stage(
            self.lake,
            commit.number,
            &commit.run,
            stream::iter(files),
            super::in_flight(self.job),
        )
        .await?;
        self.commit(commit, staged, state, totals).await
    }
}

/// Whether rows of a data file may be of a raw object.
fn may_hold(object: &ObjectEntry, file: &File, source: &Source, slicing: Slicing) -> bool {
    let [_, _, rejects] = source.tables();
    if file.entry.table == rejects {
        let place = Place::of(&file.entry.partition, &file.entry.name);
        let (arrival, ..) = slicing.place(object.arrival_ms, TimeUnit::Ms);
        return !object.rejects.is_empty() && place.is_none_or(|place| place.date == arrival.date);
    }
    // Format 1 of the log did not say when.
    let (first, last) = object.times.unwrap_or((i64::MIN, i64::MAX));
    let meets = |(from, to)| from <= last && first <= to;
    object.events > 0 && file.entry.times.is_none_or(meets)
}
