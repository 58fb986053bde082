//! What Glue's JSON holds, as far as it is read or written here. Members that others set are kept as they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::Values;

/// The definition of a table, as it is written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TableInput {
    /// The name of the table.
    pub name: String,
    /// The comment of the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Kept as it is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Kept as it is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<u64>,
    /// `EXTERNAL_TABLE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_type: Option<String>,
    /// The columns of the data files, and where the files are.
    #[serde(default, deserialize_with = "or_default")]
    pub storage_descriptor: Storage,
    /// The partition columns.
    #[serde(default, deserialize_with = "or_default")]
    pub partition_keys: Vec<Column>,
    /// The parameters of rawmart, of the readers and of others.
    #[serde(default, deserialize_with = "or_default")]
    pub parameters: BTreeMap<String, String>,
}

/// A table, as it is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Table {
    /// The definition.
    #[serde(flatten)]
    pub input: TableInput,
    /// Changes with every update.
    #[serde(default, rename = "VersionId")]
    pub version: Option<String>,
}

/// Where the data of a table or a partition are, and how they are read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Storage {
    /// The columns of the data files.
    #[serde(default, deserialize_with = "or_default")]
    pub columns: Vec<Column>,
    /// The URL of the folder, with `/` at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// The class that reads files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_format: Option<String>,
    /// The class that would write files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_format: Option<String>,
    /// The class that turns files into rows.
    #[serde(default, deserialize_with = "or_default")]
    pub serde_info: SerDe,
    /// Members that others have set.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// What turns files into rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SerDe {
    /// The name of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serialization_library: Option<String>,
    /// The parameters of the class.
    #[serde(default, deserialize_with = "or_default")]
    pub parameters: BTreeMap<String, String>,
    /// Members that others have set.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A column of a table or of its partitions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Column {
    /// The name.
    pub name: String,
    /// The type, as Hive spells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// The comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Members that others have set.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// The definition of a partition, as it is written.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PartitionInput {
    /// The values of the partition columns.
    pub values: Values,
    /// The columns of the data files, and where the files are.
    pub storage_descriptor: Storage,
}

/// A partition, as it is read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Partition {
    #[serde(default, deserialize_with = "or_default")]
    values: Values,
    #[serde(default, deserialize_with = "or_default")]
    storage_descriptor: Storage,
}

impl Partition {
    /// Its values, and where it is.
    pub fn located(self) -> (Values, String) {
        let location = self.storage_descriptor.location;
        (self.values, location.unwrap_or_default())
    }
}

/// The values that name a partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PartitionValues {
    values: Values,
}

impl PartitionValues {
    pub fn of(values: &Values) -> Self {
        Self {
            values: values.clone(),
        }
    }
}

/// An answer of which nothing is read.
#[derive(Debug, Deserialize)]
pub struct Answered {}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TableAnswer {
    pub table: Table,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TablePage {
    #[serde(default, deserialize_with = "or_default")]
    pub table_list: Vec<Table>,
    #[serde(default)]
    pub next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PartitionPage {
    #[serde(default, deserialize_with = "or_default")]
    pub partitions: Vec<Partition>,
    #[serde(default)]
    pub next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SomePartitions {
    #[serde(default, deserialize_with = "or_default")]
    pub partitions: Vec<Partition>,
    #[serde(default, deserialize_with = "or_default")]
    pub unprocessed_keys: Vec<PartitionValues>,
}

/// What became of the entries of a batch that failed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EntryErrors {
    #[serde(default, deserialize_with = "or_default")]
    pub errors: Vec<EntryError>,
}

/// An entry of a batch that failed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EntryError {
    /// BatchUpdatePartition calls them `PartitionValueList`.
    #[serde(default, alias = "PartitionValueList", deserialize_with = "or_default")]
    partition_values: Values,
    #[serde(default, deserialize_with = "or_default")]
    error_detail: ErrorDetail,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ErrorDetail {
    #[serde(default, deserialize_with = "or_default")]
    error_code: String,
    #[serde(default, deserialize_with = "or_default")]
    error_message: String,
}

impl EntryError {
    pub fn values(&self) -> &[String] {
        &self.partition_values
    }

    pub fn code(&self) -> &str {
        &self.error_detail.error_code
    }

    pub fn message(&self) -> &str {
        &self.error_detail.error_message
    }
}

/// The value, or the default where there is `null`.
fn or_default<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}
