//! SQL that makes the tables of a lake known to a reader.
//!
//! ```text
//! [TableDescription] + Options ──▶ Script: statements and notes ──▶ text
//!                                  CREATE …          types, quotes and literals as the dialect writes them
//!                                  ALTER … ADD …     at most 100 partitions a statement
//! ```
//!
//! This file does no I/O and reads no clock. Every statement may be run twice, except Spectrum's CREATE
//! EXTERNAL TABLE, which has no IF NOT EXISTS in Redshift.

use std::fmt::{self, Write};

use chrono::NaiveDate;
use serde::Serialize;
use url::Url;

use super::described::{ColumnDescription, PartitionDescription, TableDescription};
use crate::event::ColumnType;
use crate::layout::{self, DATE, HOUR, NULL_VALUE};
use crate::time::TimeUnit;

/// Glue takes no more partitions in one request.
const PARTITIONS_OF_A_STATEMENT: usize = 100;
/// The longest text that Redshift and Spectrum hold, in bytes.
const VARCHAR: &str = "varchar(65535)";

/// The SQL of one reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Athena.
    Athena,
    /// Redshift Spectrum: external tables that Redshift reads from S3.
    Spectrum,
    /// Redshift: tables of its own that COPY fills.
    Redshift,
    /// Hive 4, and Hive 3 where that is asked for.
    Hive,
    /// Spark.
    Spark,
    /// Trino.
    Trino,
    /// DuckDB.
    DuckDb,
}

impl Dialect {
    /// Every dialect with its name on the command line.
    pub const ALL: [(&str, Self); 7] = [
        ("athena", Self::Athena),
        ("spectrum", Self::Spectrum),
        ("redshift", Self::Redshift),
        ("hive", Self::Hive),
        ("spark", Self::Spark),
        ("trino", Self::Trino),
        ("duckdb", Self::DuckDb),
    ];
}

/// The options of a script, apart from the tables.
#[derive(Debug, Clone)]
pub struct Options {
    /// The reader that runs the statements.
    pub dialect: Dialect,
    /// The database or schema that holds the tables.
    pub database: String,
    /// Athena: partitions of the catalog in the place of projection.
    pub partitions: bool,
    /// Only the statements for partitions that were written since.
    pub since: Option<Since>,
    /// Hive before version 4: timestamps are declared `bigint`.
    pub hive_3: bool,
    /// The whole days after today that events may be dated: the end of Athena's projection.
    pub days_ahead: u32,
}

/// A point in the life of a lake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// After this commit.
    Commit(u64),
    /// From this date on.
    Date(NaiveDate),
}

impl Since {
    fn holds(self, table: &TableDescription, partition: &PartitionDescription) -> bool {
        match self {
            Self::Commit(n) => partition.last_commit > n,
            // A partition without a date may hold rows of any.
            Self::Date(first) => table.date(partition).is_none_or(|date| date >= first),
        }
    }
}

/// The statements and notes for one reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Script {
    /// The facts that a user of the reader must know, one or two sentences each.
    pub notes: Vec<String>,
    /// The statements in the order in which they are run, each with `;` at its end.
    pub statements: Vec<String>,
}

/// Pure SQL: notes are comments.
impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in &self.notes {
            writeln!(f, "-- {note}")?;
        }
        for (i, statement) in self.statements.iter().enumerate() {
            let apart = if i > 0 || !self.notes.is_empty() {
                "\n"
            } else {
                ""
            };
            writeln!(f, "{apart}{statement}")?;
        }
        Ok(())
    }
}

/// The statements for all tables.
pub fn script(tables: &[TableDescription], options: &Options) -> Script {
    let writer = Writer { options };
    let mut statements = Vec::new();
    if options.since.is_none() {
        statements.push(writer.database());
    }
    statements.extend(tables.iter().flat_map(|table| writer.table(table)));
    Script {
        notes: writer.notes(tables),
        statements,
    }
}

/// A type as Hive and Athena spell it, and the Glue catalog with them.
pub(super) fn hive_type(kind: &ColumnType) -> String {
    let options = Options {
        dialect: Dialect::Athena,
        database: String::new(),
        partitions: true,
        since: None,
        hive_3: false,
        days_ahead: 0,
    };
    Writer { options: &options }.spelled(kind, TimeUnit::Ms)
}

struct Writer<'a> {
    options: &'a Options,
}

impl Writer<'_> {
    fn dialect(&self) -> Dialect {
        self.options.dialect
    }

    fn is_hive_like(&self) -> bool {
        matches!(
            self.dialect(),
            Dialect::Athena | Dialect::Hive | Dialect::Spark
        )
    }

    /// The facts that a user of this dialect must know, one sentence each.
    fn notes(&self, tables: &[TableDescription]) -> Vec<String> {
        let mut notes = Vec::new();
        let versions = tables.iter().any(|table| table.versions);
        let columns = || tables.iter().flat_map(|table| &table.columns);
        let has_timestamps = columns().any(|column| holds_timestamp(&column.kind));
        match self.dialect() {
            Dialect::Hive if has_timestamps && !self.options.hive_3 => notes.push(
                "Hive 4 shows timestamps in the zone of the server unless hive.parquet.timestamp.skip.conversion \
                 or the session's zone says UTC. Hive 3 reads none of them: use --hive 3."
                    .to_owned(),
            ),
            Dialect::Hive if self.options.hive_3 => {
                if has_timestamps {
                    notes.push(
                        "Hive 3 cannot read timestamps of 64 bits: they are declared bigint, and count \
                         milliseconds since 1970-01-01 UTC (microseconds where the comment says so)."
                            .to_owned(),
                    );
                }
                if columns().any(|column| holds_small_decimal(&column.kind)) {
                    notes.push(
                        "Hive 3 cannot read decimals of up to 18 digits, which Parquet stores as integers."
                            .to_owned(),
                    );
                }
            }
            Dialect::Spark if has_timestamps => notes.push(
                "Spark shows timestamps in spark.sql.session.timeZone; set it to UTC to see what other readers see."
                    .to_owned(),
            ),
            Dialect::Trino if has_timestamps => notes.push(
                "Trino shows timestamps in hive.parquet.time-zone; set it to UTC.".to_owned(),
            ),
            Dialect::Athena if self.options.since.is_some() => notes.push(
                "Tables with partition projection need no new partitions: only the others are here."
                    .to_owned(),
            ),
            Dialect::DuckDb if self.options.since.is_some() && !versions => {
                notes.push("Views of DuckDB find new files by themselves.".to_owned());
            }
            _ => {}
        }
        if versions {
            notes.push(match self.dialect() {
                Dialect::DuckDb => "The views name the versions of today: run these statements again after each run."
                    .to_owned(),
                Dialect::Trino => "Partitions are registered where hive.allow-register-partition-procedure is true. \
                     For a new version of a partition, call unregister_partition before."
                    .to_owned(),
                _ => "Partitions are named in the versions of today: run these statements again after each run, or \
                     let `[catalog]` do it."
                    .to_owned(),
            });
        }
        for table in tables {
            for column in &table.columns {
                if self.declared(table, column).is_none() {
                    notes.push(format!(
                        "Spectrum cannot read {} of {}, which is {}: the column is left out.",
                        column.name, table.name, column.kind
                    ));
                }
            }
        }
        notes
    }

    fn database(&self) -> String {
        let database = &self.options.database;
        let name = self.name(database);
        match self.dialect() {
            Dialect::Athena | Dialect::Hive | Dialect::Spark => {
                format!("CREATE DATABASE IF NOT EXISTS {name};")
            }
            Dialect::Spectrum => format!(
                "CREATE EXTERNAL SCHEMA IF NOT EXISTS {name}\nFROM DATA CATALOG\nDATABASE {}\nIAM_ROLE default\n\
                 CREATE EXTERNAL DATABASE IF NOT EXISTS;",
                self.literal(database)
            ),
            Dialect::Redshift | Dialect::DuckDb => format!("CREATE SCHEMA IF NOT EXISTS {name};"),
            Dialect::Trino => format!("CREATE SCHEMA IF NOT EXISTS \"hive\".{name};"),
        }
    }

    fn table(&self, table: &TableDescription) -> Vec<String> {
        let mut statements = Vec::new();
        let names_versions = self.dialect() == Dialect::DuckDb && table.versions;
        if self.options.since.is_none() || names_versions {
            statements.push(match self.dialect() {
                Dialect::Athena | Dialect::Hive | Dialect::Spark => self.hive_table(table),
                Dialect::Spectrum => self.spectrum_table(table),
                Dialect::Redshift => self.redshift_table(table),
                Dialect::Trino => self.trino_table(table),
                Dialect::DuckDb => self.duckdb_view(table),
            });
        }
        statements.extend(self.content(table));
        statements
    }

    /// The statements that make the partitions of a table known, or load them.
    fn content(&self, table: &TableDescription) -> Vec<String> {
        let since = self.options.since;
        let partitions = table.partitions.iter();
        let partitions: Vec<_> = partitions
            .filter(|partition| since.is_none_or(|since| since.holds(table, partition)))
            .collect();
        if partitions.is_empty() {
            return Vec::new();
        }
        match self.dialect() {
            Dialect::Redshift => partitions
                .iter()
                .map(|partition| self.redshift_load(table, partition))
                .collect(),
            Dialect::DuckDb => Vec::new(),
            Dialect::Trino if table.versions => partitions
                .iter()
                .filter_map(|partition| self.register_partition(table, partition))
                .collect(),
            _ if table.versions => self.locations(table, &partitions),
            _ if table.partition_columns.is_empty() => Vec::new(),
            Dialect::Trino => vec![format!(
                "CALL \"hive\".system.sync_partition_metadata({}, {}, 'FULL');",
                self.literal(&self.options.database),
                self.literal(&table.name)
            )],
            Dialect::Athena if self.projected(table) => Vec::new(),
            _ => partitions
                .chunks(PARTITIONS_OF_A_STATEMENT)
                .map(|partitions| self.add_partitions(table, partitions))
                .collect(),
        }
    }

    /// The statements that add partitions, and that name the current version of each.
    fn locations(
        &self,
        table: &TableDescription,
        partitions: &[&PartitionDescription],
    ) -> Vec<String> {
        let name = self.qualified(table);
        let set = |partition: &&PartitionDescription| {
            let values = match table.partition_columns.is_empty() {
                true => String::new(),
                false => format!(" PARTITION ({})", self.values(table, partition)),
            };
            let location = self.literal(&partition.location);
            format!("ALTER TABLE {name}{values} SET LOCATION {location};")
        };
        let mut statements = Vec::new();
        if !table.partition_columns.is_empty() {
            let chunks = partitions.chunks(PARTITIONS_OF_A_STATEMENT);
            statements.extend(chunks.map(|chunk| self.add_partitions(table, chunk)));
        }
        statements.extend(partitions.iter().map(set));
        statements
    }

    /// Trino: the statement that makes one version of a partition known. `None` for a table without partitions.
    fn register_partition(
        &self,
        table: &TableDescription,
        partition: &PartitionDescription,
    ) -> Option<String> {
        if table.partition_columns.is_empty() {
            return None;
        }
        let columns = table.partition_columns.iter();
        let columns = columns.map(|column| self.literal(&column.name));
        let values = partition.values.iter();
        let values = values.map(|value| self.literal(value.as_deref().unwrap_or(NULL_VALUE)));
        Some(format!(
            "CALL \"hive\".system.register_partition({}, {}, ARRAY[{}], ARRAY[{}], {});",
            self.literal(&self.options.database),
            self.literal(&table.name),
            list(columns, ", "),
            list(values, ", "),
            self.literal(&partition.location)
        ))
    }

    /// The columns and values of a partition, as statements spell them.
    fn values(&self, table: &TableDescription, partition: &PartitionDescription) -> String {
        let values = table.partition_columns.iter().zip(&partition.values);
        let values = values.map(|(column, value)| {
            let value = value.as_deref().unwrap_or(NULL_VALUE);
            format!("{} = {}", self.name(&column.name), self.literal(value))
        });
        list(values, ", ")
    }

    fn add_partitions(
        &self,
        table: &TableDescription,
        partitions: &[&PartitionDescription],
    ) -> String {
        let mut sql = format!("ALTER TABLE {} ADD IF NOT EXISTS", self.qualified(table));
        for partition in partitions {
            let _ = write!(
                sql,
                "\n  PARTITION ({}) LOCATION {}",
                self.values(table, partition),
                self.literal(&partition.location)
            );
        }
        sql + ";"
    }

    fn hive_table(&self, table: &TableDescription) -> String {
        let mut sql = format!(
            "CREATE EXTERNAL TABLE IF NOT EXISTS {} (\n{}\n)",
            self.qualified(table),
            self.columns(table, &table.columns)
        );
        if let Some(comment) = &table.comment {
            let _ = write!(sql, "\nCOMMENT {}", self.literal(comment));
        }
        if !table.partition_columns.is_empty() {
            let columns = table.partition_columns.iter();
            let columns = columns.map(|column| self.column(column, "string"));
            let _ = write!(sql, "\nPARTITIONED BY ({})", list(columns, ", "));
        }
        let _ = write!(
            sql,
            "\nSTORED AS PARQUET\nLOCATION {}",
            self.literal(&table.location)
        );
        if self.dialect() == Dialect::Athena {
            let properties = self.athena_properties(table);
            let properties = properties
                .iter()
                .map(|(key, value)| format!("  {} = {}", self.literal(key), self.literal(value)));
            let _ = write!(sql, "\nTBLPROPERTIES (\n{}\n)", list(properties, ",\n"));
        }
        sql + ";"
    }

    /// Whether Athena computes the partitions of a table: they are dates, or dates and hours, and their folders follow
    /// from their values.
    fn projected(&self, table: &TableDescription) -> bool {
        let names = table.partition_columns.iter();
        let names: Vec<&str> = names.map(|column| column.name.as_str()).collect();
        let of_clock = matches!(names.as_slice(), [DATE] | [DATE, HOUR]);
        let hours = table.partitions.iter().all(|partition| {
            let hour = partition.values.get(1);
            hour.is_none_or(|hour| hour.as_deref().is_some_and(is_hour))
        });
        // A partition that is no date would be invisible.
        let dates = || table.partitions.iter().map(|p| table.date(p));
        let dated = !table.partitions.is_empty() && dates().all(|date| date.is_some());
        !self.options.partitions && !table.versions && of_clock && hours && dated
    }

    fn athena_properties(&self, table: &TableDescription) -> Vec<(String, String)> {
        let mut properties = vec![("classification".to_owned(), "parquet".to_owned())];
        let mut set =
            |key: &str, value: &str| properties.push((format!("projection.{key}"), value.into()));
        let dates = table.partitions.iter();
        let first = dates.filter_map(|partition| table.date(partition)).min();
        let Some(first) = first.filter(|_| self.projected(table)) else {
            return properties;
        };
        set("enabled", "true");
        set("dt.type", "date");
        set("dt.format", "yyyy-MM-dd");
        let last = match self.options.days_ahead {
            0 => "NOW".to_owned(),
            days => format!("NOW+{days}DAYS"),
        };
        set("dt.range", &format!("{first},{last}"));
        set("dt.interval", "1");
        set("dt.interval.unit", "DAYS");
        if table.partition_columns.len() > 1 {
            set("hour.type", "integer");
            set("hour.range", "0,23");
            set("hour.digits", "2");
        }
        let columns = table.partition_columns.iter();
        let template = columns.map(|column| format!("{0}=${{{0}}}/", column.name));
        let template = template.collect::<String>();
        let template = format!("{}{template}", table.location);
        properties.push(("storage.location.template".to_owned(), template));
        properties
    }

    fn spectrum_table(&self, table: &TableDescription) -> String {
        let mut sql = format!(
            "CREATE EXTERNAL TABLE {} (\n{}\n)",
            self.qualified(table),
            self.columns(table, &table.columns)
        );
        if !table.partition_columns.is_empty() {
            let columns = table.partition_columns.iter();
            let columns = columns.map(|c| self.column(c, redshift_partition(table, c)));
            let _ = write!(sql, "\nPARTITIONED BY ({})", list(columns, ", "));
        }
        let _ = write!(
            sql,
            "\nSTORED AS PARQUET\nLOCATION {}\nTABLE PROPERTIES ('numRows' = '{}');",
            self.literal(&table.location),
            table.rows
        );
        sql
    }

    fn redshift_table(&self, table: &TableDescription) -> String {
        let mut columns = self.columns(table, &table.columns);
        for column in &table.partition_columns {
            let kind = redshift_partition(table, column);
            let _ = write!(columns, ",\n  {}", self.column(column, kind));
        }
        let mut sql = format!(
            "CREATE TABLE IF NOT EXISTS {} (\n{columns}\n)",
            self.qualified(table)
        );
        if let Some(first) = table.partition_columns.first() {
            let _ = write!(sql, "\nSORTKEY ({})", self.name(&first.name));
        }
        sql + ";"
    }

    /// Loads one partition in the place of what the table has of it. COPY does not know the values of folders, so
    /// the rows pass through a table without the partition's columns.
    fn redshift_load(&self, table: &TableDescription, partition: &PartitionDescription) -> String {
        let name = self.qualified(table);
        let copy = |to: &str| {
            let nested = table.columns.iter().any(|column| is_nested(&column.kind));
            let nested = if nested { " SERIALIZETOJSON" } else { "" };
            let from = self.literal(&partition.location);
            format!("COPY {to}\nFROM {from}\nIAM_ROLE default\nFORMAT AS PARQUET{nested};\n")
        };
        if table.partition_columns.is_empty() {
            return format!("BEGIN;\nDELETE FROM {name};\n{}COMMIT;", copy(&name));
        }
        let values = table.partition_columns.iter().zip(&partition.values);
        let same = values.map(|(column, value)| {
            let column = self.name(&column.name);
            match value {
                Some(value) => format!("{column} = {}", self.literal(value)),
                None => format!("{column} IS NULL"),
            }
        });
        let same = list(same, " AND ");
        let values = partition.values.iter().map(|value| match value {
            Some(value) => self.literal(value),
            None => "NULL".to_owned(),
        });
        let values = list(values, ", ");
        format!(
            "BEGIN;\nCREATE TEMP TABLE rawmart_load (\n{}\n);\n{}DELETE FROM {name} WHERE {same};\n\
             INSERT INTO {name} SELECT *, {values} FROM rawmart_load;\nDROP TABLE rawmart_load;\nCOMMIT;",
            self.columns(table, &table.columns),
            copy("rawmart_load"),
        )
    }

    fn trino_table(&self, table: &TableDescription) -> String {
        let all = table.columns.iter().chain(&table.partition_columns);
        let all: Vec<ColumnDescription> = all.cloned().collect();
        let mut sql = format!(
            "CREATE TABLE IF NOT EXISTS {} (\n{}\n)",
            self.qualified(table),
            self.columns(table, &all)
        );
        if let Some(comment) = &table.comment {
            let _ = write!(sql, "\nCOMMENT {}", self.literal(comment));
        }
        let _ = write!(
            sql,
            "\nWITH (\n  format = 'PARQUET',\n  external_location = {}",
            self.literal(&table.location)
        );
        if !table.partition_columns.is_empty() {
            let names = table.partition_columns.iter();
            let names = names.map(|column| self.literal(&column.name));
            let _ = write!(sql, ",\n  partitioned_by = ARRAY[{}]", list(names, ", "));
        }
        sql + "\n);"
    }

    fn duckdb_view(&self, table: &TableDescription) -> String {
        let name = self.qualified(table);
        if table.files == 0 {
            // read_parquet fails where nothing matches.
            let all = table.columns.iter().chain(&table.partition_columns);
            let columns = all.map(|column| {
                let kind = self.spelled(&column.kind, table.timestamp_unit);
                format!("  CAST(NULL AS {kind}) AS {}", self.name(&column.name))
            });
            let columns = list(columns, ",\n");
            return format!("CREATE OR REPLACE VIEW {name} AS\nSELECT\n{columns}\nWHERE false;");
        }
        let files = match table.versions {
            true => {
                let versions = table.partitions.iter();
                let versions = versions.map(|found| self.duckdb_glob(&found.location, 0));
                format!("[\n  {}\n]", list(versions, ",\n  "))
            }
            false => self.duckdb_glob(&table.location, table.partition_columns.len()),
        };
        let mut options = String::new();
        if !table.partition_columns.is_empty() {
            let types = table.partition_columns.iter();
            let types = types.map(|column| format!("{}: VARCHAR", self.literal(&column.name)));
            let types = list(types, ", ");
            options = format!(", hive_partitioning = true, hive_types = {{{types}}}");
        }
        format!(
            "CREATE OR REPLACE VIEW {name} AS\nFROM read_parquet({files}{options}, union_by_name = true);"
        )
    }

    /// The files in a folder, `depth` folders deep, as DuckDB spells them.
    fn duckdb_glob(&self, location: &str, depth: usize) -> String {
        // A path is a glob to DuckDB, which knows no `file://` URL.
        let local = Url::parse(location)
            .ok()
            .filter(|url| url.scheme() == "file");
        let local = local.and_then(|url| Some(url.to_file_path().ok()?.display().to_string()));
        let root = local.unwrap_or_else(|| location.to_owned());
        self.literal(&format!(
            "{}/{}*.parquet",
            glob_escaped(root.trim_end_matches('/')),
            "*/".repeat(depth)
        ))
    }

    /// The declarations of columns, one a line. Columns that the dialect cannot hold are left out.
    fn columns(&self, table: &TableDescription, columns: &[ColumnDescription]) -> String {
        let columns = columns.iter().filter_map(|column| {
            let kind = self.declared(table, column)?;
            Some(format!("  {}", self.column(column, &kind)))
        });
        list(columns, ",\n")
    }

    fn column(&self, column: &ColumnDescription, kind: &str) -> String {
        let name = self.name(&column.name);
        let has_comments = self.is_hive_like() || self.dialect() == Dialect::Trino;
        match &column.comment {
            Some(comment) if has_comments => {
                format!("{name} {kind} COMMENT {}", self.literal(comment))
            }
            _ => format!("{name} {kind}"),
        }
    }

    /// The type of a column; `None` where the dialect has none for it.
    fn declared(&self, table: &TableDescription, column: &ColumnDescription) -> Option<String> {
        let kind = &column.kind;
        match self.dialect() {
            Dialect::Spectrum if !spectrum_reads(kind) => None,
            Dialect::Redshift if is_nested(kind) => Some("super".to_owned()),
            _ => Some(self.spelled(kind, table.timestamp_unit)),
        }
    }

    fn spelled(&self, kind: &ColumnType, unit: TimeUnit) -> String {
        let dialect = self.dialect();
        let inner = |kind: &ColumnType| self.spelled(kind, unit);
        let redshift = matches!(dialect, Dialect::Spectrum | Dialect::Redshift);
        match kind {
            ColumnType::String | ColumnType::Json => match dialect {
                Dialect::Trino => "varchar",
                Dialect::DuckDb => "VARCHAR",
                _ if redshift => VARCHAR,
                _ => "string",
            }
            .to_owned(),
            ColumnType::Int if redshift || dialect == Dialect::Trino => "integer".to_owned(),
            ColumnType::Double if redshift => "double precision".to_owned(),
            ColumnType::Timestamp => match (dialect, unit) {
                (Dialect::Trino, TimeUnit::Ms) => "timestamp(3)",
                (Dialect::Trino, TimeUnit::Us) => "timestamp(6)",
                (Dialect::DuckDb, _) => "TIMESTAMP WITH TIME ZONE",
                (Dialect::Hive, _) if self.options.hive_3 => "bigint",
                _ => "timestamp",
            }
            .to_owned(),
            ColumnType::Array(item) => match dialect {
                Dialect::Trino => format!("array({})", inner(item)),
                Dialect::DuckDb => format!("{}[]", inner(item)),
                _ => format!("array<{}>", inner(item)),
            },
            ColumnType::Map(value) => {
                let key = inner(&ColumnType::String);
                match dialect {
                    Dialect::Trino => format!("map({key}, {})", inner(value)),
                    Dialect::DuckDb => format!("MAP({key}, {})", inner(value)),
                    _ => format!("map<{key},{}>", inner(value)),
                }
            }
            ColumnType::Struct(fields) => {
                let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
                let fields = fields.iter().map(|(name, kind)| match dialect {
                    Dialect::Trino | Dialect::DuckDb => {
                        format!("{} {}", quoted(name), inner(kind))
                    }
                    _ => format!("{name}:{}", inner(kind)),
                });
                match dialect {
                    Dialect::Trino => format!("row({})", list(fields, ", ")),
                    Dialect::DuckDb => format!("STRUCT({})", list(fields, ", ")),
                    _ => format!("struct<{}>", list(fields, ",")),
                }
            }
            ColumnType::Boolean
            | ColumnType::Int
            | ColumnType::BigInt
            | ColumnType::Double
            | ColumnType::Decimal(..)
            | ColumnType::Date => kind.to_string(),
        }
    }

    fn qualified(&self, table: &TableDescription) -> String {
        let catalog = match self.dialect() {
            Dialect::Trino => "\"hive\".",
            _ => "",
        };
        let database = self.name(&self.options.database);
        format!("{catalog}{database}.{}", self.name(&table.name))
    }

    fn name(&self, name: &str) -> String {
        match self.is_hive_like() {
            true => format!("`{}`", name.replace('`', "``")),
            false => format!("\"{}\"", name.replace('"', "\"\"")),
        }
    }

    fn literal(&self, text: &str) -> String {
        match self.is_hive_like() {
            true => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
            false => format!("'{}'", text.replace('\'', "''")),
        }
    }
}

impl TableDescription {
    /// The date of a partition; `None` where it has none, or `dt` is something else.
    fn date(&self, partition: &PartitionDescription) -> Option<NaiveDate> {
        let names = self.partition_columns.iter().map(|c| c.name.clone());
        let named: Vec<_> = names.zip(partition.values.iter().cloned()).collect();
        layout::date_of(&named)
    }
}

/// A date is ten characters; the name of NULL is longer.
fn redshift_partition(table: &TableDescription, column: &ColumnDescription) -> &'static str {
    let dated = || table.partitions.iter().all(|p| table.date(p).is_some());
    match column.name.as_str() {
        DATE if dated() => "char(10)",
        _ => "varchar(255)",
    }
}

fn is_hour(text: &str) -> bool {
    text.len() == 2 && text.parse::<u8>().is_ok_and(|hour| hour < 24)
}

fn is_nested(kind: &ColumnType) -> bool {
    matches!(
        kind,
        ColumnType::Array(_) | ColumnType::Map(_) | ColumnType::Struct(_)
    )
}

/// Spectrum reads arrays of scalars and structs, and maps of scalars; no array or map in an array or a map.
/// Source: Redshift's "Nested data limitations".
fn spectrum_reads(kind: &ColumnType) -> bool {
    match kind {
        ColumnType::Array(item) => {
            !matches!(**item, ColumnType::Array(_) | ColumnType::Map(_)) && spectrum_reads(item)
        }
        ColumnType::Map(value) => !is_nested(value),
        ColumnType::Struct(fields) => fields.iter().all(|(_, kind)| spectrum_reads(kind)),
        _ => true,
    }
}

/// Whether a type is or holds one that `is` names.
fn holds(kind: &ColumnType, is: &dyn Fn(&ColumnType) -> bool) -> bool {
    is(kind)
        || match kind {
            ColumnType::Array(inner) | ColumnType::Map(inner) => holds(inner, is),
            ColumnType::Struct(fields) => fields.iter().any(|(_, kind)| holds(kind, is)),
            _ => false,
        }
}

fn holds_timestamp(kind: &ColumnType) -> bool {
    holds(kind, &|kind| *kind == ColumnType::Timestamp)
}

fn holds_small_decimal(kind: &ColumnType) -> bool {
    holds(
        kind,
        &|kind| matches!(kind, ColumnType::Decimal(precision, _) if *precision <= 18),
    )
}

fn glob_escaped(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            '*' | '?' | '[' => _ = write!(escaped, "[{c}]"),
            c => escaped.push(c),
        }
    }
    escaped
}

fn list(parts: impl IntoIterator<Item = String>, between: &str) -> String {
    parts.into_iter().collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Holds;

    fn column(name: &str, kind: &str, comment: Option<&str>) -> ColumnDescription {
        ColumnDescription {
            name: name.to_owned(),
            kind: kind.parse().unwrap(),
            comment: comment.map(str::to_owned),
        }
    }

    fn partition(
        columns: &[ColumnDescription],
        values: &[Option<&str>],
        commit: u64,
    ) -> PartitionDescription {
        let values: Vec<Option<String>> = values
            .iter()
            .map(|value| value.map(str::to_owned))
            .collect();
        let names = columns.iter().map(|column| column.name.clone());
        let named: Vec<_> = names.zip(values.clone()).collect();
        let folder = layout::partition_folder(&named);
        PartitionDescription {
            location: match folder.as_str() {
                "" => "s3://lake/m/".to_owned(),
                folder => format!("s3://lake/m/{folder}/"),
            },
            folder,
            values,
            rows: 7,
            bytes: 700,
            files: 1,
            last_commit: commit,
        }
    }

    fn table(
        name: &str,
        columns: &[(&str, &str)],
        by: &[&str],
        values: &[(&[Option<&str>], u64)],
    ) -> TableDescription {
        let partition_columns: Vec<_> =
            by.iter().map(|name| column(name, "string", None)).collect();
        let partitions = values
            .iter()
            .map(|(values, commit)| partition(&partition_columns, values, *commit));
        let partitions: Vec<_> = partitions.collect();
        TableDescription {
            name: name.to_owned(),
            holds: Holds::Mart,
            source: None,
            comment: Some("it's `all` \\ of them".to_owned()),
            timestamp_unit: TimeUnit::Ms,
            columns: columns
                .iter()
                .map(|(name, kind)| column(name, kind, None))
                .collect(),
            rows: 7,
            bytes: 700,
            files: partitions.len() as u64,
            last_commit: 3,
            location: format!("s3://lake/{name}/"),
            versions: false,
            partition_columns,
            partitions,
        }
    }

    fn sql(dialect: Dialect, table: &TableDescription, change: impl Fn(&mut Options)) -> String {
        let mut options = Options {
            dialect,
            database: "rawmart".to_owned(),
            partitions: false,
            since: None,
            hive_3: false,
            days_ahead: 2,
        };
        change(&mut options);
        script(std::slice::from_ref(table), &options).to_string()
    }

    const DAYS: [(&[Option<&str>], u64); 2] =
        [(&[Some("2019-04-01")], 1), (&[Some("2019-04-02")], 3)];

    #[test]
    fn athena_computes_dates_and_hours_and_is_told_everything_else() {
        let days = table("m", &[("n", "bigint")], &["dt"], &DAYS);
        let text = sql(Dialect::Athena, &days, |_| {});
        for part in [
            "CREATE EXTERNAL TABLE IF NOT EXISTS `rawmart`.`m` (\n  `n` bigint\n)",
            "COMMENT 'it\\'s `all` \\\\ of them'",
            "PARTITIONED BY (`dt` string)",
            "'projection.dt.range' = '2019-04-01,NOW+2DAYS'",
            "'storage.location.template' = 's3://lake/m/dt=${dt}/'",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("ADD IF NOT EXISTS"), "{text}");
        let hours: [(&[Option<&str>], u64); 1] = [(&[Some("2019-04-01"), Some("23")], 1)];
        let hours = table("m", &[("n", "bigint")], &["dt", "hour"], &hours);
        let text = sql(Dialect::Athena, &hours, |_| {});
        assert!(text.contains("'projection.hour.digits' = '2'"), "{text}");
        assert!(
            text.contains("'s3://lake/m/dt=${dt}/hour=${hour}/'"),
            "{text}"
        );
        // Rows of such partitions would be invisible.
        let unknown: &[Option<&str>] = &[None];
        for values in [unknown, &[Some("x")], &[Some("2019-4-1")]] {
            let odd = table("m", &[("n", "bigint")], &["dt"], &[DAYS[0], (values, 2)]);
            let text = sql(Dialect::Athena, &odd, |_| {});
            assert!(
                text.contains("ADD IF NOT EXISTS") && !text.contains("projection"),
                "{text}"
            );
        }
        let asked = sql(Dialect::Athena, &days, |options| options.partitions = true);
        assert!(
            asked.contains("ADD IF NOT EXISTS") && !asked.contains("projection"),
            "{asked}"
        );
    }

    #[test]
    fn partitions_are_added_by_the_hundred_since_a_commit_or_a_date() {
        let values: Vec<String> = (0..250).map(|i| format!("v{i:03}'s")).collect();
        let values: Vec<[Option<&str>; 1]> =
            values.iter().map(|value| [Some(value.as_str())]).collect();
        let values: Vec<(&[Option<&str>], u64)> = values
            .iter()
            .zip(0..)
            .map(|(value, n)| (&value[..], n))
            .collect();
        let many = table("m", &[("n", "bigint")], &["os"], &values);
        for dialect in [
            Dialect::Athena,
            Dialect::Hive,
            Dialect::Spark,
            Dialect::Spectrum,
        ] {
            let text = sql(dialect, &many, |_| {});
            assert_eq!(text.matches("ADD IF NOT EXISTS").count(), 3, "{dialect:?}");
            assert_eq!(text.matches("PARTITION (").count(), 250, "{dialect:?}");
            let text = sql(dialect, &many, |options| {
                options.since = Some(Since::Commit(240))
            });
            assert_eq!(text.matches("PARTITION (").count(), 9, "{dialect:?}");
            assert!(!text.contains("CREATE"), "{text}");
        }
        let text = sql(Dialect::Spectrum, &many, |_| {});
        assert!(
            text.contains("(\"os\" = 'v007''s') LOCATION 's3://lake/m/os=v007%27s/'"),
            "{text}"
        );
        let text = sql(Dialect::Hive, &many, |_| {});
        assert!(
            text.contains("(`os` = 'v007\\'s') LOCATION 's3://lake/m/os=v007%27s/'"),
            "{text}"
        );
        let days = table(
            "m",
            &[("n", "bigint")],
            &["dt"],
            &[DAYS[0], DAYS[1], (&[None], 1)],
        );
        let second: NaiveDate = "2019-04-02".parse().unwrap();
        let text = sql(Dialect::Hive, &days, |options| {
            options.since = Some(Since::Date(second))
        });
        assert!(
            !text.contains("2019-04-01") && text.contains("2019-04-02"),
            "{text}"
        );
        assert!(text.contains("'__HIVE_DEFAULT_PARTITION__'"), "{text}");
    }

    #[test]
    fn types_are_spelled_as_each_reader_does() {
        let kinds = [
            ("a", "array<struct<x:int,y:map<string,timestamp>>>"),
            ("d", "decimal(9,2)"),
            ("e", "double"),
            ("j", "json"),
            ("t", "timestamp"),
        ];
        let table = table("m", &kinds, &[], &[(&[], 1)]);
        for (dialect, spelled) in [
            (
                Dialect::Athena,
                [
                    "array<struct<x:int,y:map<string,timestamp>>>",
                    "decimal(9,2)",
                    "double",
                    "string",
                    "timestamp",
                ],
            ),
            (
                Dialect::Trino,
                [
                    "array(row(\"x\" integer, \"y\" map(varchar, timestamp(3))))",
                    "decimal(9,2)",
                    "double",
                    "varchar",
                    "timestamp(3)",
                ],
            ),
            (
                Dialect::Redshift,
                [
                    "super",
                    "decimal(9,2)",
                    "double precision",
                    VARCHAR,
                    "timestamp",
                ],
            ),
        ] {
            let text = sql(dialect, &table, |_| {});
            for ((name, _), spelled) in kinds.iter().zip(spelled) {
                let quote = if dialect == Dialect::Athena { '`' } else { '"' };
                let line = format!("  {quote}{name}{quote} {spelled}");
                assert!(
                    text.lines()
                        .any(|found| found.trim_end_matches(',') == line),
                    "{line}: {text}"
                );
            }
        }
        let text = sql(Dialect::Hive, &table, |options| options.hive_3 = true);
        assert!(
            text.contains("`t` bigint") && text.contains("-- Hive 3 cannot read decimals"),
            "{text}"
        );
        let text = sql(Dialect::Redshift, &table, |_| {});
        assert!(
            text.contains("FORMAT AS PARQUET SERIALIZETOJSON;"),
            "{text}"
        );
        // Spectrum reads no array in an array.
        let nested = self::table(
            "m",
            &[("a", "array<array<int>>"), ("b", "int")],
            &[],
            &[(&[], 1)],
        );
        let text = sql(Dialect::Spectrum, &nested, |_| {});
        assert!(
            text.contains("-- Spectrum cannot read a of m") && !text.contains("\"a\""),
            "{text}"
        );
    }

    #[test]
    fn a_view_of_duckdb_names_the_files_or_is_an_empty_one() {
        let days = table("m", &[("n", "bigint")], &["dt"], &DAYS);
        let text = sql(Dialect::DuckDb, &days, |_| {});
        assert!(
            text.contains("FROM read_parquet('s3://lake/m/*/*.parquet', hive_partitioning = true, hive_types = {'dt': VARCHAR}, union_by_name = true);"),
            "{text}"
        );
        let empty = table("m", &[("s", "struct<x:array<int>>")], &["dt"], &[]);
        let text = sql(Dialect::DuckDb, &empty, |_| {});
        assert!(
            text.contains("CAST(NULL AS STRUCT(\"x\" int[])) AS \"s\""),
            "{text}"
        );
        assert!(text.contains("WHERE false;"), "{text}");
    }

    #[test]
    fn redshift_loads_a_partition_in_the_place_of_what_it_has() {
        let days = table(
            "m",
            &[("n", "bigint")],
            &["dt", "os"],
            &[(&[Some("2019-04-01"), None], 1)],
        );
        let text = sql(Dialect::Redshift, &days, |_| {});
        for part in [
            "DELETE FROM \"rawmart\".\"m\" WHERE \"dt\" = '2019-04-01' AND \"os\" IS NULL;",
            "SELECT *, '2019-04-01', NULL FROM rawmart_load;",
            "FROM 's3://lake/m/dt=2019-04-01/os=__HIVE_DEFAULT_PARTITION__/'",
            "\"dt\" char(10),\n  \"os\" varchar(255)\n)\nSORTKEY (\"dt\");",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
