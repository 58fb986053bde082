//! The names of tables, partitions and files, and their keys in a lake, translated both ways. Pure: no I/O.
//!
//! ```text
//! <lake>/<table>/<column>=<value>/part-<slice>.parquet             data file
//! <lake>/rawmart-versions/<table>/<column>=<value>/<n>/part-<slice>.parquet
//!                                                                  data file of the version that commit n published
//! <lake>/_rawmart/log/<n>                                          commit, 20 digits
//! <lake>/_rawmart/log/<n>.published                                the marker of that commit
//! <lake>/_rawmart/checkpoint/<n>                                   the fold of commits 1 to n
//! <lake>/_rawmart/told/<n>-<ms>                                     the catalog knew commit n at this time
//! <lake>/_rawmart/probe                                            which conditional writes the store respects
//! <lake>/_rawmart/aside/<key>                                      a file that a repair took away from this key
//! <lake>/_rawmart/staging/<n>-<run>/<table>/…/part-<slice>.parquet  staged data file
//! <raw root>/2019/04/01/23/…                                       arrival, read by `Layout`
//! ```

mod arrival;

pub use arrival::{Layout, LayoutError};

use chrono::NaiveDate;

/// The folder of control files, outside every table's root.
pub const CONTROL: &str = "_rawmart/";
/// The folder of commits and their markers.
pub const LOG: &str = "_rawmart/log/";
/// The folder of checkpoints of the log.
pub const CHECKPOINT: &str = "_rawmart/checkpoint/";
/// The folder of staged files.
pub const STAGING: &str = "_rawmart/staging/";
/// The folder of files that a repair took away. On disk, rawmart deletes no file that it did not write.
pub const ASIDE: &str = "_rawmart/aside/";
/// The folder of the versions of partitions, outside every table's root. No table has a name with `-`. The name does
/// not begin with `_`, because some readers ignore every file below such a folder.
pub const VERSIONS: &str = "rawmart-versions/";
/// The folder of the notes that say when the catalog was told of a commit.
pub const TOLD: &str = "_rawmart/told/";
/// The object that says which conditional writes the store respects.
pub const PROBE: &str = "_rawmart/probe";
/// The file whose lock guards the writers of a lake on disk.
pub const LOCK: &str = "_rawmart/lock";
/// The partition value that Hive writes for NULL and for the empty string. A value that is this text is NULL, too.
pub const NULL_VALUE: &str = "__HIVE_DEFAULT_PARTITION__";

/// The most bytes of a name of a table or of a column: what Redshift allows in an identifier.
pub const LONGEST_NAME: usize = 127;

/// The partition column of dates.
pub const DATE: &str = "dt";
/// The partition column of hours, 00 to 23. Tables with one partition for each day do not have it.
pub const HOUR: &str = "hour";

/// The columns and values of a partition, in the order of its folders. A value of `None` is NULL.
pub type Partition = Vec<(String, Option<String>)>;

/// The key of commit `n`.
pub fn commit_key(n: u64) -> String {
    format!("{LOG}{n:020}")
}

/// The key of the marker that says that commit `n` is published.
pub fn published_key(n: u64) -> String {
    format!("{LOG}{n:020}.published")
}

/// The key of the checkpoint of commits 1 to `n`.
pub fn checkpoint_key(n: u64) -> String {
    format!("{CHECKPOINT}{n:020}")
}

/// The number of the commit that a key in the log's folder belongs to, as the commit or as its marker. `None` for
/// any other key.
pub fn logged(key: &str) -> Option<u64> {
    let name = key.strip_prefix(LOG)?;
    commit_number(name.strip_suffix(".published").unwrap_or(name))
}

/// The key of the note that the catalog was told of commit `n` and of all commits before it, by the time `at_ms`
/// (milliseconds since 1970 UTC).
pub fn told_key(n: u64, at_ms: i64) -> String {
    format!("{TOLD}{n:020}-{at_ms}")
}

/// The commit and the time in milliseconds of a key that [`told_key`] makes. `None` for any other key.
pub fn told_of(key: &str) -> Option<(u64, i64)> {
    let (n, at_ms) = key.strip_prefix(TOLD)?.split_once('-')?;
    Some((commit_number(n)?, at_ms.parse().ok()?))
}

/// The number of the last commit of a checkpoint, from the checkpoint's key. `None` for any other key.
pub fn checkpoint_of(key: &str) -> Option<u64> {
    commit_number(key.strip_prefix(CHECKPOINT)?)
}

/// The number of a commit as keys spell it: 20 digits.
fn commit_number(digits: &str) -> Option<u64> {
    let spelt = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    spelt.then(|| digits.parse().ok())?
}

/// The folder of the files that a run stages for commit `n`. It ends with `/`.
pub fn staging_folder(n: u64, run: &str) -> String {
    format!("{STAGING}{n:020}-{run}/")
}

/// The number of the commit that a staged file was written for. `None` for a key that is no staged file.
pub fn staged_for(key: &str) -> Option<u64> {
    let name = key.strip_prefix(STAGING)?;
    commit_number(name.get(..20)?)
}

/// The name of the data file of a slice.
pub fn file_name(slice: u32) -> String {
    format!("part-{slice:05}.parquet")
}

/// Whether readers ignore a key below a table's root. Hive, Athena and Spark ignore names that begin with `_` or
/// `.`; markers of folders hold no rows.
pub fn is_hidden(key: &str) -> bool {
    let below = key.split('/').skip(1);
    key.ends_with('/')
        || key.ends_with("_$folder$")
        || below.into_iter().any(|name| name.starts_with(['_', '.']))
}

/// The number of the slice in a data file's name. `None` for a name that [`file_name`] does not make.
pub fn slice_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("part-")?.strip_suffix(".parquet")?;
    let slice = digits.parse().ok()?;
    (file_name(slice) == name).then_some(slice)
}

/// The value of a partition's column; `None` where it is NULL, or the partition has no such column.
pub fn value_of<'p>(partition: &'p [(String, Option<String>)], column: &str) -> Option<&'p str> {
    let (_, value) = partition.iter().find(|(known, _)| known == column)?;
    value.as_deref()
}

/// The date of a partition; `None` where it has none, or one that is spelt in another way than
/// `2019-04-02`.
pub fn date_of(partition: &[(String, Option<String>)]) -> Option<NaiveDate> {
    let value = value_of(partition, DATE)?;
    let date: NaiveDate = value.parse().ok()?;
    (date.to_string() == value).then_some(date)
}

/// The columns and values of the partition of a date, or of one hour of it.
pub fn dated(date: NaiveDate, hour: Option<u8>) -> Partition {
    let mut partition = vec![(DATE.to_owned(), Some(date.to_string()))];
    partition.extend(hour.map(|hour| (HOUR.to_owned(), Some(format!("{hour:02}")))));
    partition
}

/// The date and the hour of a partition that [`dated`] makes; `None` for any other. The hour is `None` where
/// partitions are days.
pub fn date_and_hour(partition: &[(String, Option<String>)]) -> Option<(NaiveDate, Option<u8>)> {
    let date = date_of(partition)?;
    let hour = match value_of(partition, HOUR) {
        Some(hour) => Some(hour.parse().ok()?),
        None => None,
    };
    (dated(date, hour) == partition).then_some((date, hour))
}

/// The folder of a partition below its table's root, without a trailing slash: `dt=2019-04-02` or
/// `dt=…/hour=09`; empty for an unpartitioned table.
pub fn partition_folder(partition: &[(String, Option<String>)]) -> String {
    let parts: Vec<String> = partition
        .iter()
        .map(|(column, value)| format!("{}={}", escape(column), partition_value(value.as_deref())))
        .collect();
    parts.join("/")
}

/// The folder of the data files of a partition, below the lake and with `/` at its end. `version` is the commit that
/// published this version of the partition; `None` is the folder below the root of the table.
pub fn data_folder(table: &str, partition_folder: &str, version: Option<u64>) -> String {
    let mut folder = data_root(table, version);
    if !partition_folder.is_empty() {
        folder.push_str(partition_folder);
        folder.push('/');
    }
    if let Some(version) = version {
        folder.push_str(&format!("{version:020}/"));
    }
    folder
}

/// The folder of all partitions of a table that are published with or without a version, below the lake and with `/`
/// at its end.
pub fn data_root(table: &str, version: Option<u64>) -> String {
    format!("{}{table}/", version.map_or("", |_| VERSIONS))
}

/// The version of the partition that a data file's key belongs to. `None` for a key below the root of a table.
pub fn version_of(key: &str) -> Option<u64> {
    let mut names = key.strip_prefix(VERSIONS)?.rsplit('/');
    names.next()?;
    commit_number(names.next()?)
}

/// The table that a data file's key belongs to.
pub fn table_of(key: &str) -> &str {
    let below = key.strip_prefix(VERSIONS).unwrap_or(key);
    below.split('/').next().unwrap_or(below)
}

/// The path of a key below a root in its store. The key is not escaped once more, as the client's own joining of paths
/// would do.
pub fn below(root: &object_store::path::Path, key: &str) -> object_store::path::Path {
    let joined = if root.as_ref().is_empty() {
        key.to_owned()
    } else {
        format!("{root}/{key}")
    };
    object_store::path::Path::parse(&joined).unwrap_or_else(|_| root.clone())
}

/// The columns and values of a partition's folder, as a reader of Hive tables finds them. `None` for a folder of another
/// form.
#[cfg(test)]
fn parse_partition(folder: &str) -> Option<Partition> {
    if folder.is_empty() {
        return Some(Vec::new());
    }
    folder
        .split('/')
        .map(|part| {
            let (column, value) = part.split_once('=')?;
            let value = if value == NULL_VALUE {
                None
            } else {
                Some(unescape(value)?)
            };
            Some((unescape(column)?, value))
        })
        .collect()
}

/// The value as the name of a folder spells it.
fn partition_value(value: Option<&str>) -> String {
    match value {
        // Hive takes a text that is the spelling of NULL for NULL.
        None | Some("" | NULL_VALUE) => NULL_VALUE.to_owned(),
        // The spelling in other capitals is NULL for some readers and a text for others.
        Some(value) if value.eq_ignore_ascii_case(NULL_VALUE) => {
            format!("%5F{}", &escape(value)[1..])
        }
        Some(value) => escape(value),
    }
}

/// Hive's escaping of partition values (`FileUtils.escapePathName`): control characters and
/// `"#%'*/:=?\{[]^` as `%XX`.
fn escape(value: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        let special = matches!(
            c,
            '"' | '#'
                | '%'
                | '\''
                | '*'
                | '/'
                | ':'
                | '='
                | '?'
                | '\\'
                | '\x7f'
                | '{'
                | '['
                | ']'
                | '^'
        );
        if c.is_ascii_control() || special {
            let _ = write!(out, "%{:02X}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// The text that [`escape`] escaped. `None` where it is not UTF-8.
#[cfg(test)]
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if let ([b'%', a, b, ..], true) = (rest, *first == b'%') {
            let hex = [*a, *b];
            let hex = std::str::from_utf8(&hex).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = rest.get(3..)?;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_keys_read_back() {
        for n in [0, 1, 42, u64::MAX] {
            assert_eq!(checkpoint_of(&checkpoint_key(n)), Some(n));
            assert_eq!(
                staged_for(&format!("{}events/x", staging_folder(n, "r"))),
                Some(n)
            );
        }
        for stray in [
            "_rawmart/checkpoint/1",
            "_rawmart/checkpoint/00000000000000000001.tmp",
            "_rawmart/log/00000000000000000001",
            "events/x",
        ] {
            assert_eq!(checkpoint_of(stray), None);
        }
    }

    #[test]
    fn the_folder_of_a_version_lies_outside_the_table_and_reads_back() {
        let folder = partition_folder(&dated("2019-04-02".parse().unwrap(), Some(9)));
        for (folder, version, expected) in [
            ("", None, "m/"),
            ("", Some(7), "rawmart-versions/m/00000000000000000007/"),
            (&folder, None, "m/dt=2019-04-02/hour=09/"),
            (
                &folder,
                Some(12),
                "rawmart-versions/m/dt=2019-04-02/hour=09/00000000000000000012/",
            ),
        ] {
            assert_eq!(data_folder("m", folder, version), expected);
            let key = format!("{expected}{}", file_name(0));
            assert_eq!(version_of(&key), version, "{key}");
            assert_eq!(table_of(&key), "m", "{key}");
            assert!(!is_hidden(&key), "{key}");
        }
        for other in [
            "rawmart-versions/m",
            "rawmart-versions/m/7/part-00000.parquet",
        ] {
            assert_eq!(version_of(other), None, "{other}");
        }
        assert_eq!(
            told_of(&told_key(7, 1_554_120_000_000)),
            Some((7, 1_554_120_000_000))
        );
        for other in [
            "_rawmart/told/7-1",
            "_rawmart/told/00000000000000000007",
            "events/x",
        ] {
            assert_eq!(told_of(other), None, "{other}");
        }
    }

    #[test]
    fn only_names_that_we_write_are_ours() {
        assert_eq!(slice_of(&file_name(123_456)), Some(123_456));
        for name in ["part-1.parquet", "part-+0001.parquet", "part-00001.orc"] {
            assert_eq!(slice_of(name), None, "{name}");
        }
        for key in ["1-r/x", "+0000000000000000001-r/x", ""] {
            assert_eq!(staged_for(&format!("{STAGING}{key}")), None, "{key}");
        }
    }

    #[test]
    fn dates_read_back_in_one_spelling() {
        let date = NaiveDate::from_ymd_opt(2019, 4, 2).unwrap();
        for hour in [None, Some(0), Some(9), Some(23)] {
            assert_eq!(date_and_hour(&dated(date, hour)), Some((date, hour)));
        }
        let partition = |values: &[(&str, Option<&str>)]| -> Partition {
            let values = values.iter();
            values
                .map(|(column, value)| ((*column).to_owned(), value.map(str::to_owned)))
                .collect()
        };
        for value in ["2019-4-2", " 2019-04-02", "20190402", "+2019-04-02", ""] {
            let other = partition(&[("dt", Some(value))]);
            assert_eq!(date_of(&other), None, "{value}");
        }
        for (column, value) in [
            ("hour", "9"),
            ("hour", "+9"),
            ("hour", "day"),
            ("os", "iOS"),
        ] {
            let other = partition(&[("dt", Some("2019-04-02")), (column, Some(value))]);
            assert_eq!(date_of(&other), Some(date));
            assert_eq!(date_and_hour(&other), None, "{column}={value}");
        }
        assert_eq!(date_of(&partition(&[("dt", None)])), None);
        assert_eq!(date_of(&partition(&[])), None);
    }

    #[test]
    fn partitions_read_back_whatever_the_value() {
        // Every ASCII character, as in Hive's own escape2.q, and values that other systems got wrong.
        let mut values: Vec<Option<String>> = (0u8..128)
            .map(|b| Some(format!("a{}b", char::from(b))))
            .collect();
        values.extend(
            ["__hive_default_partition__", "서울/강남", "%2F", "a=b", " "]
                .map(|v| Some(v.to_owned())),
        );
        values.push(None);
        for value in values {
            let partition = vec![("dt".to_owned(), value.clone()), ("x".to_owned(), None)];
            let folder = partition_folder(&partition);
            assert_eq!(parse_partition(&folder), Some(partition), "{folder}");
            assert_eq!(folder.matches('/').count(), 1, "{folder}");
        }
        for null in [None, Some(""), Some(NULL_VALUE)] {
            let null = vec![("dt".to_owned(), null.map(str::to_owned))];
            assert_eq!(partition_folder(&null), format!("dt={NULL_VALUE}"));
        }
        assert_eq!(
            partition_folder(&[("p".to_owned(), Some("a/b= c:d".to_owned()))]),
            "p=a%2Fb%3D c%3Ad"
        );
    }
}
