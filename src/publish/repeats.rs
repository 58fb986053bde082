//! Whether the values of a column repeat, by a sample of its rows.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;

/// Rows that are looked at. Of 4,096 values out of a hundred thousand, 98 % differ. A dictionary of as many words is
/// given up before a row group has ended.
const SAMPLE: usize = 4_096;
/// Fewer values tell nothing.
const LEAST: usize = 64;
/// At least so many of a hundred values differ where values hardly repeat.
const DIFFERENT: usize = 98;

/// Whether the values hardly repeat, for each Parquet column that an array becomes; `None` where its rows do not tell.
/// A column of codes repeats, because only words that repeat are coded.
pub(super) fn hardly_repeats(column: &ArrayRef) -> Vec<Option<bool>> {
    match column.data_type() {
        DataType::Struct(_) => {
            let members = column.as_struct().columns().iter();
            members.flat_map(hardly_repeats).collect()
        }
        DataType::List(_) => hardly_repeats(column.as_list::<i32>().values()),
        DataType::Map(..) => {
            let map = column.as_map();
            let keys = hardly_repeats(map.keys());
            keys.into_iter()
                .chain(hardly_repeats(map.values()))
                .collect()
        }
        _ => vec![leaf(&column.slice(0, column.len().min(SAMPLE)))],
    }
}

fn leaf(values: &dyn Array) -> Option<bool> {
    let rows = (0..values.len()).filter(|row| values.is_valid(*row));
    let (mut all, mut different) = (0, HashSet::new());
    match values.data_type() {
        DataType::Utf8 => {
            let texts = values.as_string::<i32>();
            for row in rows {
                all += 1;
                different.insert(texts.value(row).as_bytes());
            }
            tell(all, different.len())
        }
        DataType::Binary => {
            let bytes = values.as_binary::<i32>();
            for row in rows {
                all += 1;
                different.insert(bytes.value(row));
            }
            tell(all, different.len())
        }
        kind => {
            let width = kind.primitive_width()?;
            let data = values.to_data();
            let bytes = data.buffers().first()?.as_slice();
            for row in rows {
                let from = (data.offset() + row) * width;
                all += 1;
                different.insert(bytes.get(from..from + width)?);
            }
            tell(all, different.len())
        }
    }
}

fn tell(all: usize, different: usize) -> Option<bool> {
    (all >= LEAST).then_some(different * 100 >= all * DIFFERENT)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, DictionaryArray, Int64Array, StringArray, StructArray};
    use arrow::datatypes::{Field, UInt32Type};

    use super::*;

    fn texts(count: usize, different: usize) -> ArrayRef {
        let text = |n: usize| (n % 7 != 6).then(|| format!("text {}", n % different));
        Arc::new((0..count).map(text).collect::<StringArray>())
    }

    #[test]
    fn ids_hardly_repeat_and_words_do() {
        for (count, different, expected) in [
            (8_192, 8_192, Some(true)),
            (8_192, 50, Some(false)),
            (8_192, 3_000, Some(false)),
            (60, 60, None),
            (0, 1, None),
        ] {
            let column = texts(count, different);
            assert_eq!(hardly_repeats(&column), [expected], "{count} {different}");
        }
        let numbers = |different: i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(
                (0..5_000).map(|n| n % different),
            ))
        };
        assert_eq!(hardly_repeats(&numbers(5_000)), [Some(true)]);
        assert_eq!(hardly_repeats(&numbers(100)), [Some(false)]);
        // A slice is told by its own rows.
        let sliced = numbers(5_000).slice(100, 200);
        assert_eq!(hardly_repeats(&sliced), [Some(true)]);
    }

    #[test]
    fn each_member_tells_for_itself() {
        let field = |name: &str, column: &ArrayRef| {
            Arc::new(Field::new(name, column.data_type().clone(), true))
        };
        let (ids, words) = (texts(1_000, 1_000), texts(1_000, 3));
        let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true; 1_000]));
        let codes: DictionaryArray<UInt32Type> =
            (0..1_000).map(|n| Some(["a", "b"][n % 2])).collect();
        assert_eq!(hardly_repeats(&(Arc::new(codes) as ArrayRef)), [None]);
        let members = StructArray::from(vec![
            (field("id", &ids), Arc::clone(&ids)),
            (field("word", &words), words),
            (field("flag", &flags), flags),
        ]);
        let told = hardly_repeats(&(Arc::new(members) as ArrayRef));
        assert_eq!(told, [Some(true), Some(false), None]);
    }
}
