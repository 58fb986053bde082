//! The tables of one state of a lake, for everything that reads them with SQL.
//!
//! ```text
//! files of the log that have rows ─┬─▶ files of a table ──▶ table of the engine
//! staged for the commit to come ───┘    a staged file takes the place of the published one of its name
//! ```
//!
//! A snapshot has the files that the log names. A stray file below the root of a table is not read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreUrl;
use object_store::path::Path;

use super::{Lake, LakeError};
use crate::catalog::{LakeTable, TableDefinition, TableFile};
use crate::engine::Engine;
use crate::layout;
use crate::ledger::{FileEntry, State};
use crate::publish::Local;

/// The tables of one state of a lake.
pub struct Snapshot<'a> {
    state: &'a State,
    /// The URL under which the engine reads the files of the lake.
    url: ObjectStoreUrl,
    /// Path of the lake's root in its store.
    root: Path,
    definitions: BTreeMap<String, TableDefinition>,
    /// The files that are staged for the next commit, by table.
    staged: BTreeMap<String, Vec<FileEntry>>,
}

impl<Permission> Lake<Permission> {
    /// The tables of the current state, readable by `engine`. `definitions` are the tables that may be read.
    /// `local` files are read in the place of published files with the same content.
    ///
    /// # Errors
    /// A store whose URL the engine cannot read.
    pub fn snapshot(
        &self,
        engine: &Engine,
        definitions: impl IntoIterator<Item = TableDefinition>,
        local: &Local,
    ) -> Result<Snapshot<'_>, LakeError> {
        let etags = self.state.files.iter().filter_map(|(key, file)| {
            let etag = file.etag.as_ref().filter(|etag| !etag.is_empty())?;
            Some((key.clone(), etag.clone()))
        });
        let (url, client, root) = self.store.object_store(&local.files, &etags.collect());
        engine.register_store(&url, client);
        let url = ObjectStoreUrl::parse(url.as_str())
            .map_err(|error| LakeError::Defect(format!("{url} is no store: {error}")))?;
        let definitions = definitions.into_iter();
        // A commit that is not published yet has its files in the staging folder.
        let unpublished = self.state.unpublished.iter();
        let mut staged: BTreeMap<String, Vec<FileEntry>> = BTreeMap::new();
        for entry in unpublished.flat_map(|commit| &commit.files) {
            let of_table = staged.entry(entry.table.clone()).or_default();
            of_table.push(entry.clone());
        }
        Ok(Snapshot {
            state: &self.state,
            url,
            root,
            definitions: definitions
                .map(|table| (table.name.clone(), table))
                .collect(),
            staged,
        })
    }
}

impl Snapshot<'_> {
    /// The state of the lake that the tables have.
    pub fn state(&self) -> &State {
        self.state
    }

    /// Adds the files that are staged for a table.
    pub fn stage(&mut self, table: &str, files: Vec<FileEntry>) {
        self.staged.insert(table.to_owned(), files);
    }

    /// Whether files of a table are staged.
    pub fn is_staged(&self, table: &str) -> bool {
        self.staged.contains_key(table)
    }

    /// The definition of a table.
    ///
    /// # Errors
    /// A table that is not among the definitions. This is a defect.
    pub fn definition(&self, table: &str) -> Result<&TableDefinition, LakeError> {
        let definition = self.definitions.get(table);
        definition.ok_or_else(|| LakeError::Defect(format!("table {table} is not known")))
    }

    /// The files of a table that have rows, each with its key: the staged files, and the published files that
    /// are not replaced by them.
    pub fn files<'f>(&'f self, table: &'f str) -> impl Iterator<Item = (&'f FileEntry, String)> {
        let staged = self.staged.get(table).map_or(&[][..], Vec::as_slice);
        self.files_under(table, staged)
    }

    /// The files of a table as [`Self::files`], with these `staged` files.
    fn files_under<'f>(
        &'f self,
        table: &'f str,
        staged: &'f [FileEntry],
    ) -> impl Iterator<Item = (&'f FileEntry, String)> {
        let replaced: BTreeSet<String> = staged.iter().map(FileEntry::place).collect();
        let staged = staged.iter().map(|entry| (entry, entry.staged.clone()));
        let published = self.state.table(table);
        let published = published.map(|file| &file.entry);
        let stays = published.filter(move |entry| !replaced.contains(&entry.place()));
        let stays = stays.map(|entry| (entry, entry.key()));
        // Slices of an earlier partitioning stay as empty files in folders of other columns.
        staged.chain(stays).filter(|(entry, _)| entry.rows > 0)
    }

    /// The `wanted` files of a table, as a table of the engine.
    ///
    /// # Errors
    /// A partition value that does not fit the type of its column.
    pub fn table(
        &self,
        table: &TableDefinition,
        wanted: &dyn Fn(&FileEntry) -> bool,
    ) -> Result<Arc<dyn TableProvider>, DataFusionError> {
        let files = self.files(&table.name).filter(|(entry, _)| wanted(entry));
        self.table_of_files(table, files)
    }

    /// A table as it will be once these files are published, as a table of the engine. With `whole` it has the files
    /// that stay too.
    ///
    /// # Errors
    /// See [`Self::table`].
    pub fn table_to_come(
        &self,
        table: &TableDefinition,
        staged: &[FileEntry],
        whole: bool,
    ) -> Result<Arc<dyn TableProvider>, DataFusionError> {
        let files = self.files_under(&table.name, staged);
        let files = files.filter(|(entry, key)| whole || *key == entry.staged);
        self.table_of_files(table, files)
    }

    /// These files, each with its key, as a table of the engine.
    fn table_of_files<'f>(
        &self,
        table: &TableDefinition,
        files: impl Iterator<Item = (&'f FileEntry, String)>,
    ) -> Result<Arc<dyn TableProvider>, DataFusionError> {
        let files = files.map(|(entry, key)| TableFile {
            path: layout::below(&self.root, &key),
            size: entry.bytes,
            rows: entry.rows,
            partition: entry
                .partition
                .iter()
                .map(|(_, value)| value.clone())
                .collect(),
        });
        let table = LakeTable::new(table, files.collect(), self.url.clone())?;
        Ok(Arc::new(table))
    }

    /// The table that a file belongs to, if it is a file of the lake.
    pub fn table_of(&self, file: &Path) -> Option<String> {
        let below: Vec<String> = file
            .prefix_match(&self.root)?
            .map(|part| part.as_ref().to_owned())
            .collect();
        Some(layout::table_of(&below.join("/")).to_owned())
    }
}
