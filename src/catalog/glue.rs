//! The AWS Glue Data Catalog: what its tables have to say, and the requests that say it.
//!
//! ```text
//! [TableDescription] ─┬─ wanted ──▶ TableInput ─┬─ judge ──▶ Standing: absent, same, behind, ahead, foreign
//! Table of the catalog ┘                        │
//!                                               └─ Glue: one method for each operation ──▶ store::Service
//! ```
//!
//! Which of them is called when is written in `run`. A table of the catalog that rawmart made carries three
//! parameters: the lake, the commit whose content it was told last, and how many partitions it had then. Nothing
//! else is kept anywhere about what the catalog knows.

mod shapes;
mod wanted;

pub use shapes::{PartitionInput, Table, TableInput};
pub use wanted::{Partitions, Standing, Wanted, is_of, judge, partitions_told, told};

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::config;
use crate::store::{Service, ServiceAt, ServiceError, StoreError, StoreSettings};
use shapes::{
    Answered, EntryErrors, PartitionPage, PartitionValues, SomePartitions, TableAnswer, TablePage,
};

/// Glue takes no more in one BatchCreatePartition or BatchUpdatePartition.
const WRITTEN_AT_ONCE: usize = 100;
/// Glue takes no more in one BatchDeletePartition.
const DELETED_AT_ONCE: usize = 25;
/// Partitions of one BatchGetPartition. Glue takes 1,000, and each answer has the columns of the table.
const READ_AT_ONCE: usize = 100;
/// Partitions of one page of GetPartitions, without columns. Glue gives no more.
const PARTITIONS_OF_A_PAGE: usize = 1000;
/// Tables of one page of GetTables. Glue gives 100, and a table may have thousands of columns.
const TABLES_OF_A_PAGE: usize = 25;
/// Pages of one list. A service that gives more repeats itself.
const MOST_PAGES: usize = 100_000;

/// The operations of Glue that are called. The policy in `docs/aws.md` allows these and no others.
pub const OPERATIONS: [&str; 11] = [
    GET_TABLES,
    GET_TABLE,
    CREATE_DATABASE,
    CREATE_TABLE,
    UPDATE_TABLE,
    DELETE_TABLE,
    GET_PARTITIONS,
    BATCH_GET_PARTITION,
    BATCH_CREATE_PARTITION,
    BATCH_UPDATE_PARTITION,
    BATCH_DELETE_PARTITION,
];
const GET_TABLES: &str = "GetTables";
const GET_TABLE: &str = "GetTable";
const CREATE_DATABASE: &str = "CreateDatabase";
const CREATE_TABLE: &str = "CreateTable";
const UPDATE_TABLE: &str = "UpdateTable";
const DELETE_TABLE: &str = "DeleteTable";
const GET_PARTITIONS: &str = "GetPartitions";
const BATCH_GET_PARTITION: &str = "BatchGetPartition";
const BATCH_CREATE_PARTITION: &str = "BatchCreatePartition";
const BATCH_UPDATE_PARTITION: &str = "BatchUpdatePartition";
const BATCH_DELETE_PARTITION: &str = "BatchDeletePartition";

const MISSING: &str = "EntityNotFoundException";
const EXISTS: &str = "AlreadyExistsException";
const MODIFIED: &str = "ConcurrentModificationException";

/// Why the catalog was not told.
#[derive(Debug, thiserror::Error)]
pub enum GlueError {
    /// The catalog gives no usable answer, or denies access.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The catalog refused a request.
    #[error("the catalog refused {operation} of {subject} ({code}: {message})")]
    Refused {
        /// The operation, such as `CreateTable`.
        operation: &'static str,
        /// The table or the database.
        subject: String,
        /// The error code of the catalog.
        code: String,
        /// The sentence of the catalog.
        message: String,
    },
    /// The catalog refused some partitions.
    #[error("the catalog refused {count} partitions of {table}, first {first} ({code}: {message})")]
    Partitions {
        /// The name of the table.
        table: String,
        /// The number of refused partitions.
        count: usize,
        /// The values of the first of them.
        first: String,
        /// The error code of the first of them.
        code: String,
        /// The sentence of the catalog about the first of them.
        message: String,
    },
    /// Another run has told the catalog of this table meanwhile.
    #[error("other runs change the table {table} of the catalog again and again")]
    Overtaken {
        /// The name of the table.
        table: String,
    },
    /// Athena computes the locations of the partitions of this table, so it would not find their versions.
    #[error(
        "the table {table} of the database {database} has partition projection, with which Athena does not look for the \
         current versions of partitions: take the parameters `projection.*` and `storage.location.template` out, or \
         set `publish = \"directory\"`"
    )]
    Projected {
        /// The database of the catalog.
        database: String,
        /// The name of the table.
        table: String,
    },
    /// A table of this name is there, and this lake has not made it.
    #[error(
        "the database {database} of the catalog has a table {table} that this lake has not made, so it stays as it is: \
         drop it (`aws glue delete-table --database-name {database} --name {table}`; its data files stay), or name \
         another `database` in `[catalog]`"
    )]
    Foreign {
        /// The database of the catalog.
        database: String,
        /// The name of the table.
        table: String,
    },
}

/// The values of a partition, in the order of the partition columns.
pub type Values = Vec<String>;

/// Partitions of the catalog: where each of them is.
pub type Locations = BTreeMap<Values, String>;

/// One database of the catalog.
#[derive(Debug)]
pub struct Glue {
    service: Service,
    database: String,
}

impl Glue {
    /// Reads AWS settings and credentials. Sends no request to the catalog.
    ///
    /// # Errors
    /// No credentials or region; an endpoint that is no URL.
    pub async fn open(
        catalog: &config::Catalog,
        settings: &StoreSettings,
    ) -> Result<Self, StoreError> {
        let at = ServiceAt {
            name: "glue",
            target: "AWSGlue",
            region: catalog.region.as_deref(),
            endpoint: catalog.endpoint.as_deref(),
        };
        Ok(Self {
            service: Service::open(&at, settings).await?,
            database: catalog.database.clone(),
        })
    }

    /// The tables of the database by name. `None` where there is no such database.
    ///
    /// # Errors
    /// See [`GlueError`].
    pub async fn tables(&self) -> Result<Option<BTreeMap<String, Table>>, GlueError> {
        let mut tables = BTreeMap::new();
        let mut token: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let mut input = json!({
                "DatabaseName": self.database,
                "MaxResults": TABLES_OF_A_PAGE,
            });
            if let Some(token) = token {
                input["NextToken"] = token.into();
            }
            let page: TablePage = match self.call(GET_TABLES, &self.database, &input).await {
                Err(GlueError::Refused { code, .. }) if code == MISSING => return Ok(None),
                page => page?,
            };
            let found = page.table_list.into_iter();
            tables.extend(found.map(|table| (table.input.name.clone(), table)));
            token = page.next_token.filter(|token| !token.is_empty());
            if token.is_none() {
                break;
            }
        }
        Ok(Some(tables))
    }

    /// One table. `None` where there is none.
    ///
    /// # Errors
    /// See [`GlueError`].
    pub async fn table(&self, name: &str) -> Result<Option<Table>, GlueError> {
        let input = json!({ "DatabaseName": self.database, "Name": name });
        let found: Result<TableAnswer, _> = self.call(GET_TABLE, name, &input).await;
        match found {
            Ok(answer) => Ok(Some(answer.table)),
            Err(GlueError::Refused { code, .. }) if code == MISSING => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates the database. One that exists by now is as good.
    ///
    /// # Errors
    /// See [`GlueError`].
    pub async fn create_database(&self) -> Result<(), GlueError> {
        let input = json!({ "DatabaseInput": { "Name": self.database } });
        let made = self.call(CREATE_DATABASE, &self.database, &input).await;
        unless(EXISTS, made)?;
        Ok(())
    }

    /// Creates a table.
    ///
    /// # Errors
    /// [`GlueError::Overtaken`] where it exists by now; see [`GlueError`].
    pub async fn create_table(&self, table: &TableInput) -> Result<(), GlueError> {
        let input = json!({ "DatabaseName": self.database, "TableInput": table });
        let made = self.call(CREATE_TABLE, &table.name, &input).await;
        not_overtaken(&table.name, unless(EXISTS, made)?)
    }

    /// Replaces the definition of a table that has still the version `version`. Glue keeps no copy of the old
    /// definition: the number of versions of an account is limited.
    ///
    /// # Errors
    /// [`GlueError::Overtaken`] where the table has another version; see [`GlueError`].
    pub async fn update_table(
        &self,
        table: &TableInput,
        version: Option<&str>,
    ) -> Result<(), GlueError> {
        let mut input = json!({
            "DatabaseName": self.database,
            "TableInput": table,
            "SkipArchive": true,
        });
        if let Some(version) = version {
            input["VersionId"] = version.into();
        }
        let made = self.call(UPDATE_TABLE, &table.name, &input).await;
        not_overtaken(&table.name, unless(MODIFIED, made)?)
    }

    /// Deletes the definition of a table with its partitions. The data files stay.
    ///
    /// # Errors
    /// See [`GlueError`].
    pub async fn delete_table(&self, name: &str) -> Result<(), GlueError> {
        let input = json!({ "DatabaseName": self.database, "Name": name });
        let gone = self.call(DELETE_TABLE, name, &input).await;
        unless(MISSING, gone)?;
        Ok(())
    }

    /// All partitions of a table.
    ///
    /// # Errors
    /// See [`GlueError`].
    pub async fn partitions(&self, table: &str) -> Result<Locations, GlueError> {
        let mut found = Locations::new();
        let mut token: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let mut input = json!({
                "DatabaseName": self.database,
                "TableName": table,
                "ExcludeColumnSchema": true,
                "MaxResults": PARTITIONS_OF_A_PAGE,
            });
            if let Some(token) = token {
                input["NextToken"] = token.into();
            }
            let page: PartitionPage = self.call(GET_PARTITIONS, table, &input).await?;
            let partitions = page.partitions.into_iter();
            found.extend(partitions.map(shapes::Partition::located));
            token = page.next_token.filter(|token| !token.is_empty());
            if token.is_none() {
                break;
            }
        }
        Ok(found)
    }

    /// Those of some partitions that the catalog has.
    ///
    /// # Errors
    /// See [`GlueError`].
    pub async fn partitions_of(
        &self,
        table: &str,
        wanted: &[&PartitionInput],
    ) -> Result<Locations, GlueError> {
        let mut found = Locations::new();
        for chunk in wanted.chunks(READ_AT_ONCE) {
            let mut left: Vec<_> = chunk
                .iter()
                .map(|partition| PartitionValues::of(&partition.values))
                .collect();
            while !left.is_empty() {
                let input = json!({
                    "DatabaseName": self.database,
                    "TableName": table,
                    "PartitionsToGet": left,
                });
                let answer = self.call(BATCH_GET_PARTITION, table, &input).await;
                let answer: SomePartitions = answer?;
                let partitions = answer.partitions.into_iter();
                found.extend(partitions.map(shapes::Partition::located));
                // A service that leaves all of them would be asked for ever.
                let fewer = answer.unprocessed_keys.len() < left.len();
                left = match fewer {
                    true => answer.unprocessed_keys,
                    false => Vec::new(),
                };
            }
        }
        Ok(found)
    }

    /// Creates partitions. Those that exist by now are as good.
    ///
    /// # Errors
    /// See [`GlueError`]; some partitions may have been created.
    pub async fn create_partitions(
        &self,
        table: &str,
        partitions: &[&PartitionInput],
    ) -> Result<(), GlueError> {
        let batches = partitions.chunks(WRITTEN_AT_ONCE);
        let batches = batches.map(|batch| ("PartitionInputList", json!(batch)));
        let name = BATCH_CREATE_PARTITION;
        self.batches(name, table, batches, EXISTS).await
    }

    /// Replaces the definitions of partitions.
    ///
    /// # Errors
    /// See [`GlueError`]; some partitions may have been replaced.
    pub async fn update_partitions(
        &self,
        table: &str,
        partitions: &[&PartitionInput],
    ) -> Result<(), GlueError> {
        let entry = |partition: &&PartitionInput| json!({ "PartitionValueList": partition.values, "PartitionInput": partition });
        let batches = partitions.chunks(WRITTEN_AT_ONCE).map(|batch| {
            let entries: Vec<_> = batch.iter().map(entry).collect();
            ("Entries", json!(entries))
        });
        self.batches(BATCH_UPDATE_PARTITION, table, batches, "")
            .await
    }

    /// Deletes partitions. Those that are gone by now are as good. The data files stay.
    ///
    /// # Errors
    /// See [`GlueError`]; some partitions may have been deleted.
    pub async fn delete_partitions(
        &self,
        table: &str,
        partitions: &[Values],
    ) -> Result<(), GlueError> {
        let batches = partitions.chunks(DELETED_AT_ONCE).map(|batch| {
            let values: Vec<_> = batch.iter().map(PartitionValues::of).collect();
            ("PartitionsToDelete", json!(values))
        });
        self.batches(BATCH_DELETE_PARTITION, table, batches, MISSING)
            .await
    }

    /// Sends batches of one table, each as the member of its name. Entries that fail with the code `fine` count as
    /// done; the others are told together, after all batches were sent.
    async fn batches(
        &self,
        operation: &'static str,
        table: &str,
        batches: impl Iterator<Item = (&'static str, serde_json::Value)>,
        fine: &str,
    ) -> Result<(), GlueError> {
        let mut failed = Vec::new();
        for (member, batch) in batches {
            let mut input = json!({ "DatabaseName": self.database, "TableName": table });
            input[member] = batch;
            let answer: EntryErrors = self.call(operation, table, &input).await?;
            let errors = answer.errors.into_iter();
            failed.extend(errors.filter(|error| error.code() != fine));
        }
        match failed.first() {
            None => Ok(()),
            Some(first) => Err(GlueError::Partitions {
                table: table.to_owned(),
                count: failed.len(),
                first: first.values().join("/"),
                code: first.code().to_owned(),
                message: first.message().to_owned(),
            }),
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        subject: &str,
        input: &impl Serialize,
    ) -> Result<T, GlueError> {
        let answer = self.service.call(operation, input).await;
        answer.map_err(|error| match error {
            ServiceError::Failed(error) => GlueError::Store(error),
            ServiceError::Answered {
                operation,
                code,
                message,
            } => GlueError::Refused {
                operation,
                subject: subject.to_owned(),
                code,
                message,
            },
        })
    }
}

/// The answer, or `None` where the service answered with this error code.
fn unless(code: &str, answer: Result<Answered, GlueError>) -> Result<Option<Answered>, GlueError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(GlueError::Refused { code: found, .. }) if found == code => Ok(None),
        Err(error) => Err(error),
    }
}

/// The error of a table where another run was faster.
fn not_overtaken(table: &str, made: Option<Answered>) -> Result<(), GlueError> {
    match made {
        Some(Answered {}) => Ok(()),
        None => Err(GlueError::Overtaken {
            table: table.to_owned(),
        }),
    }
}
