//! What the catalog has to say of a table, and how that stands to what it says. Pure: no I/O.

use super::shapes::{Column, PartitionInput, SerDe, Storage, Table, TableInput};
use crate::catalog::ddl;
use crate::catalog::described::{ColumnDescription, PartitionDescription, TableDescription};
use crate::layout::NULL_VALUE;

/// The parameter that names the lake of a table. A table without it is of others.
const LAKE: &str = "rawmart.lake";
/// The parameter that says which commit of the lake the table and its partitions were told of last.
const COMMIT: &str = "rawmart.commit";
/// The parameter that says how many partitions were told.
const PARTITIONS: &str = "rawmart.partitions";

/// Longest comment of a column that Glue takes, in bytes.
const LONGEST_COMMENT: usize = 255;
/// Longest description of a table that Glue takes, in bytes.
const LONGEST_DESCRIPTION: usize = 2048;

const SERDE: &str = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe";
const INPUT_FORMAT: &str = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat";
const OUTPUT_FORMAT: &str = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat";

/// What the catalog has to say of one table.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The table, told of all its partitions.
    pub table: TableInput,
    /// The commit that the content is of.
    pub commit: u64,
    /// The last commit of the lake.
    pub last: u64,
    /// Each partition with the last commit that wrote it, in the order of their folders.
    pub partitions: Vec<(u64, PartitionInput)>,
}

/// How a table of the catalog stands to what it has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// There is no such table.
    Absent,
    /// It says what it has to say.
    Same,
    /// It was told of a commit that this lake has not had yet, as far as is known: another run knows more, or the lake
    /// was begun anew at the same place.
    Ahead,
    /// It is to be told, with these of its partitions.
    Behind(Partitions),
    /// Its partition columns are others, and Glue cannot change them.
    Repartitioned,
    /// rawmart has not made it for this lake.
    Foreign,
}

/// Which partitions of a table are to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partitions {
    /// Those that were written since the table was told last.
    Since,
    /// All of them, where they are missing or are elsewhere.
    All,
    /// All of them, once more: the columns of the table are others.
    Anew,
}

impl Wanted {
    /// What the catalog has to say of a table of `lake`: the URL of its root, and its last commit. What others have
    /// added to a `known` table stays: parameters, an owner, and comments where the description has none.
    pub fn new(
        described: &TableDescription,
        (lake, last): (&str, u64),
        known: Option<&TableInput>,
    ) -> Self {
        let mut table = known.cloned().unwrap_or_default();
        table.name.clone_from(&described.name);
        if let Some(comment) = &described.comment {
            table.description = Some(one_line(comment, LONGEST_DESCRIPTION));
        }
        table.table_type = Some("EXTERNAL_TABLE".to_owned());
        table.partition_keys = columns(&described.partition_columns, &table.partition_keys);
        let partitions = described.partitions.iter();
        let partitions = partitions.filter(|_| !described.partition_columns.is_empty());
        let partitions = partitions.map(|found| (found.last_commit, partition(described, found)));
        let partitions: Vec<_> = partitions.collect();
        let storage = &mut table.storage_descriptor;
        storage.columns = columns(&described.columns, &storage.columns);
        stored_at(storage, &described.location);
        for (name, value) in [
            ("EXTERNAL", "TRUE".to_owned()),
            ("classification", "parquet".to_owned()),
            // Redshift Spectrum plans with it.
            ("numRows", described.rows.to_string()),
            (LAKE, lake.to_owned()),
            (COMMIT, described.last_commit.to_string()),
            (PARTITIONS, partitions.len().to_string()),
        ] {
            table.parameters.insert(name.to_owned(), value);
        }
        Self {
            partitions,
            commit: described.last_commit,
            last,
            table,
        }
    }

    /// Whether Athena computes the partitions of the table, because somebody has set the parameter in the catalog.
    pub fn is_projected(&self) -> bool {
        let enabled = self.table.parameters.get("projection.enabled");
        enabled.is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
    }

    /// The table before its partitions are told. Whoever finds it so goes on.
    pub fn begun(&self) -> TableInput {
        let mut table = self.table.clone();
        table.parameters.insert(COMMIT.to_owned(), "0".to_owned());
        let none = "0".to_owned();
        table.parameters.insert(PARTITIONS.to_owned(), none);
        table
    }
}

/// How a table of the catalog stands to what it has to say.
pub fn judge(wanted: &Wanted, known: Option<&Table>) -> Standing {
    let Some(Table { input: known, .. }) = known else {
        return Standing::Absent;
    };
    let table = &wanted.table;
    if table
        .parameters
        .get(LAKE)
        .is_none_or(|lake| !is_of(known, lake))
    {
        return Standing::Foreign;
    }
    let told = told(known);
    if told > wanted.last {
        return Standing::Ahead;
    }
    let form = |columns: &[Column]| -> Vec<(String, Option<String>)> {
        let forms = columns.iter();
        forms.map(|c| (c.name.clone(), c.r#type.clone())).collect()
    };
    if form(&known.partition_keys) != form(&table.partition_keys) {
        return Standing::Repartitioned;
    }
    if known == table {
        return Standing::Same;
    }
    let (was, is) = (&known.storage_descriptor, &table.storage_descriptor);
    Standing::Behind(if form(&was.columns) != form(&is.columns) {
        Partitions::Anew
    } else if told == 0 || told > wanted.commit || was.location != is.location {
        Partitions::All
    } else {
        Partitions::Since
    })
}

/// The commit that a table of the catalog was told of last; 0 where it was not told to the end.
pub fn told(table: &TableInput) -> u64 {
    number(table, COMMIT)
}

/// Whether a table of the catalog is one that a run made for the lake whose root has the URL `lake`.
pub fn is_of(table: &TableInput, lake: &str) -> bool {
    table
        .parameters
        .get(LAKE)
        .is_some_and(|found| found == lake)
}

/// How many partitions a table of the catalog was told of.
pub fn partitions_told(table: &TableInput) -> u64 {
    number(table, PARTITIONS)
}

fn number(table: &TableInput, parameter: &str) -> u64 {
    let value = table.parameters.get(parameter);
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn partition(table: &TableDescription, found: &PartitionDescription) -> PartitionInput {
    let values = found.values.iter();
    let values = values.map(|value| value.clone().unwrap_or_else(|| NULL_VALUE.to_owned()));
    let mut storage = Storage {
        columns: columns(&table.columns, &[]),
        ..Storage::default()
    };
    for column in &mut storage.columns {
        // Readers show the comments of the table.
        column.comment = None;
    }
    stored_at(&mut storage, &found.location);
    PartitionInput {
        values: values.collect(),
        storage_descriptor: storage,
    }
}

/// Parquet files at a location.
fn stored_at(storage: &mut Storage, location: &str) {
    storage.location = Some(location.to_owned());
    storage.input_format = Some(INPUT_FORMAT.to_owned());
    storage.output_format = Some(OUTPUT_FORMAT.to_owned());
    let SerDe {
        serialization_library,
        parameters,
        ..
    } = &mut storage.serde_info;
    *serialization_library = Some(SERDE.to_owned());
    parameters.insert("serialization.format".to_owned(), "1".to_owned());
}

/// The columns as the catalog spells them. A `known` column keeps what others have added to it.
fn columns(described: &[ColumnDescription], known: &[Column]) -> Vec<Column> {
    let spelled = described.iter().map(|column| {
        let found = known.iter().find(|known| known.name == column.name);
        let mut spelled = found.cloned().unwrap_or_default();
        spelled.name.clone_from(&column.name);
        spelled.r#type = Some(ddl::hive_type(&column.kind));
        if let Some(comment) = &column.comment {
            spelled.comment = Some(one_line(comment, LONGEST_COMMENT));
        }
        spelled
    });
    spelled.collect()
}

/// The text as Glue takes it: on one line, of `most` bytes or fewer.
fn one_line(text: &str, most: usize) -> String {
    let text = text.replace(|c: char| c.is_control() && c != '\t', " ");
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Holds;
    use crate::layout;
    use crate::time::TimeUnit;

    const LAKE_URL: &str = "s3://lake/";

    fn column(name: &str, kind: &str, comment: Option<&str>) -> ColumnDescription {
        ColumnDescription {
            name: name.to_owned(),
            kind: kind.parse().unwrap(),
            comment: comment.map(str::to_owned),
        }
    }

    fn described(columns: &[(&str, &str)], days: &[(Option<&str>, u64)]) -> TableDescription {
        let partitions = days.iter().map(|(day, commit)| {
            let value = day.map(str::to_owned);
            PartitionDescription {
                folder: layout::partition_folder(&[("dt".to_owned(), value.clone())]),
                location: format!("{LAKE_URL}m/dt={}/", value.as_deref().unwrap_or(NULL_VALUE)),
                values: vec![value],
                rows: 1,
                bytes: 1,
                files: 1,
                last_commit: *commit,
            }
        });
        let columns = columns.iter();
        TableDescription {
            name: "m".to_owned(),
            holds: Holds::Mart,
            source: None,
            comment: Some("a\nb".to_owned()),
            timestamp_unit: TimeUnit::Ms,
            columns: columns
                .map(|(name, kind)| column(name, kind, None))
                .collect(),
            partition_columns: vec![column("dt", "string", Some("day"))],
            rows: days.len() as u64,
            bytes: 1,
            files: days.len() as u64,
            last_commit: days.iter().map(|(_, commit)| *commit).max().unwrap_or(1),
            location: format!("{LAKE_URL}m/"),
            versions: false,
            partitions: partitions.collect(),
        }
    }

    fn wanted(described: &TableDescription, known: Option<&TableInput>) -> Wanted {
        Wanted::new(described, (LAKE_URL, described.last_commit), known)
    }

    /// What the catalog holds after it was told.
    fn table(input: TableInput) -> Table {
        Table {
            input,
            version: Some("3".to_owned()),
        }
    }

    fn standing(described: &TableDescription, known: &Table) -> Standing {
        judge(&wanted(described, Some(&known.input)), Some(known))
    }

    #[test]
    fn a_table_says_how_its_files_are_read_and_which_commit_it_was_told() {
        let kinds = [
            ("j", "json"),
            ("t", "timestamp"),
            ("a", "array<struct<x:int>>"),
        ];
        let wanted = wanted(
            &described(&kinds, &[(Some("2019-04-01"), 4), (None, 7)]),
            None,
        );
        let json = serde_json::to_value(&wanted.table).unwrap();
        assert_eq!(json["TableType"], "EXTERNAL_TABLE");
        assert_eq!(json["Description"], "a b");
        assert_eq!(json["Parameters"]["rawmart.commit"], "7");
        assert_eq!(json["Parameters"]["classification"], "parquet");
        assert_eq!(json["PartitionKeys"][0]["Comment"], "day");
        let storage = &json["StorageDescriptor"];
        assert_eq!(storage["Location"], "s3://lake/m/");
        assert_eq!(storage["SerdeInfo"]["SerializationLibrary"], SERDE);
        let types: Vec<_> = (0..3)
            .map(|i| storage["Columns"][i]["Type"].clone())
            .collect();
        assert_eq!(types, ["string", "timestamp", "array<struct<x:int>>"]);
        let json = serde_json::to_value(&wanted.partitions[1].1).unwrap();
        assert_eq!(json["Values"][0], NULL_VALUE);
        let location = format!("s3://lake/m/dt={NULL_VALUE}/");
        assert_eq!(json["StorageDescriptor"]["Location"], location);
        assert_eq!(told(&wanted.begun()), 0);
    }

    #[test]
    fn what_others_added_to_a_table_stays() {
        let days = [(Some("2019-04-01"), 4)];
        let mut known = wanted(&described(&[("n", "int")], &days), None).table;
        known
            .parameters
            .insert("team".to_owned(), "growth".to_owned());
        known.owner = Some("hadoop".to_owned());
        known.storage_descriptor.columns[0].comment = Some("how many".to_owned());
        let more = &mut known.storage_descriptor.more;
        more.insert("NumberOfBuckets".to_owned(), (-1).into());
        let told = table(known);
        assert_eq!(
            standing(&described(&[("n", "int")], &days), &told),
            Standing::Same
        );

        let later = described(&[("n", "int"), ("late", "string")], &days);
        let Wanted { table, .. } = wanted(&later, Some(&told.input));
        assert_eq!(table.parameters["team"], "growth");
        assert_eq!(table.owner.as_deref(), Some("hadoop"));
        let columns = &table.storage_descriptor.columns;
        assert_eq!(columns[0].comment.as_deref(), Some("how many"));
        assert_eq!(columns[1].name, "late");
        assert_eq!(table.storage_descriptor.more["NumberOfBuckets"], -1);
    }

    #[test]
    fn a_table_is_judged_by_its_parameters_and_its_form() {
        let kinds = [("n", "int")];
        let now = described(&kinds, &[(Some("2019-04-01"), 4)]);
        assert_eq!(judge(&wanted(&now, None), None), Standing::Absent);
        let told = table(wanted(&now, None).table);
        assert_eq!(standing(&now, &told), Standing::Same);

        let later = described(&kinds, &[(Some("2019-04-01"), 4), (Some("2019-04-02"), 6)]);
        assert_eq!(standing(&later, &told), Standing::Behind(Partitions::Since));
        assert_eq!(
            standing(&now, &table(wanted(&later, None).table)),
            Standing::Ahead
        );

        let begun = table(wanted(&now, None).begun());
        assert_eq!(standing(&now, &begun), Standing::Behind(Partitions::All));
        // The files of the last commit have left the lake.
        let newer = table(wanted(&later, None).table);
        let left = Wanted::new(&now, (LAKE_URL, 7), Some(&newer.input));
        assert_eq!(
            judge(&left, Some(&newer)),
            Standing::Behind(Partitions::All)
        );
        let wider = described(
            &[("n", "int"), ("late", "string")],
            &[(Some("2019-04-01"), 6)],
        );
        assert_eq!(standing(&wider, &told), Standing::Behind(Partitions::Anew));

        let mut by_os = now.clone();
        by_os.partition_columns.push(column("os", "string", None));
        assert_eq!(standing(&by_os, &told), Standing::Repartitioned);

        let mut foreign = told.clone();
        foreign
            .input
            .parameters
            .insert(LAKE.to_owned(), "s3://other/".to_owned());
        assert_eq!(standing(&now, &foreign), Standing::Foreign);
        foreign.input.parameters.remove(LAKE);
        assert_eq!(standing(&now, &foreign), Standing::Foreign);
    }

    #[test]
    fn texts_are_cut_to_what_glue_takes() {
        assert_eq!(one_line("a\r\nb\u{7f}\tc", 255), "a  b \tc");
        let long = "단".repeat(100);
        assert_eq!(one_line(&long, 255).len(), 255);
        assert_eq!(one_line(&long, 254).len(), 252);
    }
}
