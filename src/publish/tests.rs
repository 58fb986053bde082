//! Collecting, spilling and merging keep every row once, in its table, its file and its order.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use arrow::array::{
    Array, AsArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMillisecondType};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::config::Compression;
use crate::dedup::{EventId, Sorted, Sorter, from_sortable, sortable};
use crate::event::{KEPT_OBJECT, KEPT_RECORD, Place, RULE};
use crate::time::TimeUnit;

const OBJECTS: [&str; 3] = ["a/0", "a/1", "b/2"];
const RULES: [&str; 2] = ["redelivery", "double_click"];

/// `[place, sortable time, id]`
type Key = [u64; 3];
/// The id of the event that displaced a row, and the index of the rule.
type Displaced = (u64, u64);

fn own_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, true),
        Field::new("kind", DataType::Utf8, true),
    ]))
}

fn table(extra: &[(&str, DataType)]) -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Ms.arrow(), Some("UTC".into()));
    let mut fields = vec![
        Field::new("raw_object", DataType::Utf8, false),
        Field::new("raw_record", DataType::Int64, false),
        Field::new("at", time, false),
    ];
    fields.extend(own_schema().fields().iter().map(|f| f.as_ref().clone()));
    for (name, kind) in extra {
        fields.push(Field::new(*name, kind.clone(), false));
    }
    Arc::new(Schema::new(fields))
}

fn tables() -> Tables {
    let displaced = [
        (RULE, DataType::Utf8),
        (KEPT_OBJECT, DataType::Utf8),
        (KEPT_RECORD, DataType::Int64),
    ];
    Tables {
        left: Arc::default(),
        kept: ("events".to_owned(), table(&[])),
        duplicates: Some(("events_duplicates".to_owned(), table(&displaced))),
        objects: Arc::new(
            OBJECTS
                .iter()
                .map(|name| Some(*name))
                .collect::<StringArray>(),
        ),
        rules: Arc::new(
            RULES
                .iter()
                .map(|name| Some(*name))
                .collect::<StringArray>(),
        ),
        settings: FileSettings {
            compression: Compression::Snappy,
            event_time: Some("at".to_owned()),
            sorted_by: Vec::new(),
            bloom_filters: Vec::new(),
            commit: 7,
            memory: 1 << 20,
            threads: 3,
        },
    }
}

fn name(key: &Key) -> Option<String> {
    (!key[2].is_multiple_of(11)).then(|| format!("row {} {}", key[1] % 1_000, key[2]))
}

fn kind(key: &Key) -> Option<String> {
    (!key[2].is_multiple_of(5)).then(|| format!("kind {}", key[2] % 7))
}

fn batch(keys: &[Key]) -> Keyed {
    let names: StringArray = keys.iter().map(name).collect();
    let kinds: StringArray = keys.iter().map(kind).collect();
    let columns: Vec<Arc<dyn Array>> = vec![Arc::new(names), Arc::new(kinds)];
    Keyed::new(
        RecordBatch::try_new(own_schema(), columns).unwrap(),
        keys.to_vec(),
    )
}

/// The rows of a file as text, in order: object, record, time, name, kind, and the displacing event.
fn read(file: &Finished) -> Vec<Vec<String>> {
    let opened = std::fs::File::open(&file.path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(opened).unwrap();
    let mut rows = Vec::new();
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        for i in 0..batch.num_rows() {
            let cell = |column: &Arc<dyn Array>| match column.data_type() {
                DataType::Int64 => column.as_primitive::<Int64Type>().value(i).to_string(),
                DataType::Timestamp(..) => {
                    let times = column.as_primitive::<TimestampMillisecondType>();
                    times.value(i).to_string()
                }
                _ if column.is_null(i) => "NULL".to_owned(),
                _ => column.as_string::<i32>().value(i).to_owned(),
            };
            rows.push(batch.columns().iter().map(cell).collect());
        }
    }
    rows
}

fn row(key: &Key, displaced: Option<&Displaced>) -> Vec<String> {
    let named = |id: EventId| {
        let object = OBJECTS[id.object() as usize].to_owned();
        (object, id.record().to_string())
    };
    let (object, record) = named(EventId(key[2]));
    let texts = [name(key), kind(key)].map(|text| text.unwrap_or("NULL".to_owned()));
    let mut row = vec![object, record, from_sortable(key[1]).to_string()];
    row.extend(texts);
    if let Some((by, rule)) = displaced {
        let (object, record) = named(EventId(*by));
        row.extend([RULES[*rule as usize].to_owned(), object, record]);
    }
    row
}

#[test]
fn every_row_once_and_in_order() {
    for seed in 0..12 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let count = [0, 1, 300, 9_000, 30_000][random.random_range(0..5)];
        let places: Vec<u64> = (1..=random.random_range(1..6))
            .map(|day| {
                Place {
                    date: chrono::NaiveDate::from_ymd_opt(2019, 4, day).unwrap(),
                    hour: None,
                    slice: day % 2,
                }
                .sortable()
            })
            .collect();
        let mut keys: Vec<Key> = (0..count)
            .map(|i| {
                let place = places[random.random_range(0..places.len())];
                let time = random.random_range(-500..500);
                [place, sortable(time), EventId::new(i % 3, i + 1).0]
            })
            .collect();
        let spill = tempfile::tempdir().unwrap();
        let mut verdicts = Sorter::<5>::new(spill.path(), 0);
        let mut displaced: BTreeMap<Key, Displaced> = BTreeMap::new();
        for key in &keys {
            if random.random_bool(0.2) {
                let by = keys[random.random_range(0..keys.len())][2];
                let rule = random.random_range(0..2);
                displaced.insert(*key, (by, rule));
                verdicts.push([key[0], key[1], key[2], by, rule]).unwrap();
            }
        }

        // All rows in memory, all rows spilled, and a mixture.
        let mut collected = Collected::default();
        let limits = [usize::MAX, 0, 200_000];
        let words = Words::new(1 << 20, 3);
        let mut collectors = limits.map(|limit| Collector::new(spill.path(), limit, &words));
        let mut rest = keys.as_slice();
        while !rest.is_empty() {
            let (part, after) = rest.split_at(random.random_range(1..=rest.len().min(2_000)));
            let to = random.random_range(0..collectors.len());
            collectors[to].push(batch(part)).unwrap();
            rest = after;
        }
        collectors.shuffle(&mut random);
        for collector in collectors {
            collected.append(collector.finish().unwrap());
        }
        let folder = tempfile::tempdir().unwrap();
        let dropped = Sorted::merge(vec![verdicts]).unwrap();
        let outputs = write(collected, Some(dropped), &tables(), folder.path(), &|_| {
            true
        })
        .unwrap();

        keys.sort_unstable();
        let mut expected: BTreeMap<(&str, u64), Vec<Key>> = BTreeMap::new();
        for key in &keys {
            let table = match displaced.contains_key(key) {
                true => "events_duplicates",
                false => "events",
            };
            expected.entry((table, key[0])).or_default().push(*key);
        }
        assert_eq!(outputs.len(), expected.len(), "seed {seed}");
        for ((table, place), keys) in expected {
            let place = Place::from_sortable(place).unwrap();
            let file = outputs.iter().find(|file| {
                file.table == table
                    && file.partition == place.partition()
                    && file.name == crate::layout::file_name(place.slice)
            });
            let file = file.unwrap_or_else(|| panic!("seed {seed}: no file of {table} {place:?}"));
            let rows: Vec<_> = keys
                .iter()
                .map(|key| row(key, displaced.get(key)))
                .collect();
            assert!(read(file) == rows, "seed {seed}: rows of {table} {place:?}");
            assert_eq!(file.rows, rows.len() as u64, "seed {seed}");
            let time = |key: Option<&Key>| from_sortable(key.unwrap()[1]);
            assert_eq!(file.times, Some((time(keys.first()), time(keys.last()))));
            assert_eq!(file.bytes, std::fs::metadata(&file.path).unwrap().len());
        }
    }
}

#[test]
fn a_verdict_without_its_row_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place {
        date: chrono::NaiveDate::from_ymd_opt(2019, 4, 1).unwrap(),
        hour: None,
        slice: 0,
    }
    .sortable();
    let mut collector = Collector::new(folder.path(), usize::MAX, &Words::new(1 << 20, 3));
    collector
        .push(batch(&[[place, sortable(5), EventId::new(0, 1).0]]))
        .unwrap();
    let mut verdicts = Sorter::<5>::new(folder.path(), 0);
    // The same place and id, and another time.
    let row = [place, sortable(6), EventId::new(0, 1).0, 2, 0];
    verdicts.push(row).unwrap();
    let dropped = Sorted::merge(vec![verdicts]).unwrap();
    let collected = collector.finish().unwrap();
    assert!(
        write(collected, Some(dropped), &tables(), folder.path(), &|_| {
            true
        })
        .is_err()
    );
}

#[test]
fn a_file_is_the_same_whatever_the_number_of_threads() {
    let rows = |from: u32| {
        let keys: Vec<Key> = (from..from + 700)
            .map(|i| [0, sortable(i.into()), EventId::new(0, i).0])
            .collect();
        batch(&keys).batch
    };
    for memory in [0, 40_000, 1 << 30] {
        let written = [1, 2, 7].map(|threads| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            let settings = FileSettings {
                memory,
                threads,
                ..tables().settings
            };
            let mut file = ParquetFile::create(path.clone(), own_schema(), &settings).unwrap();
            for from in (0..14_000).step_by(700) {
                file.write(&rows(from)).unwrap();
            }
            let (_, count, bytes) = file.finish().unwrap();
            let content = std::fs::read(&path).unwrap();
            assert_eq!((count, bytes), (14_000, content.len() as u64));
            let reader =
                ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(content.clone()));
            let read: Vec<_> = reader
                .unwrap()
                .build()
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap();
            let read = arrow::compute::concat_batches(&own_schema(), &read).unwrap();
            let whole: Vec<_> = (0..14_000).step_by(700).map(rows).collect();
            assert_eq!(
                read,
                arrow::compute::concat_batches(&own_schema(), &whole).unwrap()
            );
            content
        });
        assert!(written.iter().all(|file| *file == written[0]), "{memory}");
    }
}

/// Row groups of 2,000 rows. The times begin at 0, and each row has a name.
fn stored(folder: &std::path::Path) -> StoredFile {
    let time = DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, Some("UTC".into()));
    let schema = Arc::new(Schema::new(vec![
        Field::new("time", time, false),
        Field::new("name", DataType::Utf8, true),
    ]));
    let settings = FileSettings {
        memory: 0,
        ..tables().settings
    };
    let path = folder.join("part-00000.parquet");
    let mut file = ParquetFile::create(path.clone(), Arc::clone(&schema), &settings).unwrap();
    for from in (0..5_000).step_by(1_000) {
        let times = from..from + 1_000;
        let names: StringArray = times.clone().map(|n| Some(format!("row {n}"))).collect();
        let times = TimestampMillisecondArray::from_iter_values(times).with_timezone("UTC");
        let columns: Vec<Arc<dyn Array>> = vec![Arc::new(times), Arc::new(names)];
        file.write(&RecordBatch::try_new(Arc::clone(&schema), columns).unwrap())
            .unwrap();
    }
    let (_, rows, bytes) = file.finish().unwrap();
    let content = bytes::Bytes::from(std::fs::read(&path).unwrap());
    let fetch = move |range: std::ops::Range<u64>| {
        Ok(content.slice(range.start as usize..range.end as usize))
    };
    let content = Content::new(Arc::new(fetch), bytes, 0);
    StoredFile::open("here".to_owned(), content, settings.commit, rows).unwrap()
}

/// Rows in order, in groups that a reader can pass over, and dictionaries only where values repeat.
#[test]
fn row_groups_say_their_order_and_have_dictionaries_where_values_repeat() {
    let folder = tempfile::tempdir().unwrap();
    let settings = FileSettings {
        memory: 1 << 30,
        sorted_by: ["name", "kind", "no column"].map(str::to_owned).to_vec(),
        event_time: None,
        ..tables().settings
    };
    let path = folder.path().join("file");
    let mut file = ParquetFile::create(path.clone(), own_schema(), &settings).unwrap();
    for from in (0..140_000).step_by(7_000) {
        let names: StringArray = (from..from + 7_000)
            .map(|n| (n % 3 == 0).then(|| format!("{n:032}")))
            .collect();
        let kinds: StringArray = (from..from + 7_000)
            .map(|n| Some(["a", "b"][n % 2]))
            .collect();
        let columns: Vec<Arc<dyn Array>> = vec![Arc::new(names), Arc::new(kinds)];
        file.write(&RecordBatch::try_new(own_schema(), columns).unwrap())
            .unwrap();
    }
    file.finish().unwrap();
    let reader = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
    let groups = reader.metadata().row_groups();
    let rows: Vec<i64> = groups.iter().map(|group| group.num_rows()).collect();
    assert_eq!(rows, [131_072, 8_928]);
    for group in groups {
        let sorted = group.sorting_columns().unwrap().iter();
        let sorted = sorted.map(|by| (by.column_idx, by.descending, by.nulls_first));
        assert_eq!(
            sorted.collect::<Vec<_>>(),
            [(0, false, false), (1, false, false)]
        );
        let dictionaries = group.columns().iter();
        let dictionaries = dictionaries.map(|column| column.dictionary_page_offset().is_some());
        assert_eq!(dictionaries.collect::<Vec<_>>(), [false, true]);
    }
}

#[test]
fn event_times_have_no_dictionary() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let batch = batch(&[[0, 5, 1], [0, 6, 2]]).batch;
    let mut settings = tables().settings;
    let mut dictionaries = || -> Vec<bool> {
        let mut file = ParquetFile::create(path.clone(), batch.schema(), &settings).unwrap();
        file.write(&batch).unwrap();
        file.finish().unwrap();
        settings.event_time = Some(batch.schema().field(0).name().clone());
        let reader = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
        let columns = reader.metadata().row_group(0).columns().iter();
        columns
            .map(|column| column.dictionary_page_offset().is_some())
            .collect()
    };
    let (before, after) = (dictionaries(), dictionaries());
    assert!(before.iter().all(|has| *has), "{before:?}");
    assert!(!after[0] && after[1..].iter().all(|has| *has), "{after:?}");
}

#[test]
fn stored_rows_are_those_of_the_times_that_are_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let name = Arc::new(Schema::new(vec![Field::new("name", DataType::Utf8, true)]));
    // A column that the file lacks is null.
    let columns = ["name", "other"].map(|name| Field::new(name, DataType::Utf8, true));
    let columns = Arc::new(Schema::new(columns.to_vec()));
    let none: SchemaRef = Arc::new(Schema::empty());
    let number = |name: &str| name["row ".len()..].parse::<i64>().unwrap();
    type Test = fn(i64) -> bool;
    let tests: [Option<Test>; 4] = [
        None,
        Some(|n| n % 50 == 7),
        Some(|n| n % 2 == 0),
        Some(|_| false),
    ];
    for times in [None, Some((1_500, 3_200)), Some((9_000, 9_999))] {
        for test in tests {
            let wanted = test.map(|test| Wanted {
                schema: Arc::clone(&name),
                test: Arc::new(move |batch: &RecordBatch| {
                    let names = batch.column(0).as_string::<i32>().iter();
                    names
                        .map(|name| Some(test(number(name.unwrap()))))
                        .collect()
                }),
            });
            let times = times.map(|(from, to)| ("time".to_owned(), TimeUnit::Ms, from, to));
            let (from, to) = times
                .as_ref()
                .map_or((0, 4_999), |times| (times.2, times.3));
            let batches = stored(folder.path()).read(Arc::clone(&columns), times, wanted);
            let mut found = Vec::new();
            for batch in batches.unwrap() {
                let batch = batch.unwrap();
                assert_eq!(batch.column(1).null_count(), batch.num_rows());
                found.extend(
                    batch
                        .column(0)
                        .as_string::<i32>()
                        .iter()
                        .map(|n| number(n.unwrap())),
                );
            }
            let expected: Vec<i64> = (from..=to.min(4_999))
                .filter(|n| test.is_none_or(|test| test(*n)))
                .collect();
            assert_eq!(found, expected);
        }
    }
    // The test of a row may read no column, and so may the rows that are asked for.
    let all = Wanted {
        schema: Arc::clone(&none),
        test: Arc::new(|batch: &RecordBatch| vec![true; batch.num_rows()].into()),
    };
    let batches = stored(folder.path()).read(none, None, Some(all)).unwrap();
    let rows: usize = batches.map(|batch| batch.unwrap().num_rows()).sum();
    assert_eq!(rows, 5_000);
}

/// Wide rows among narrow rows. In a file they may be few bytes, and in memory they are many.
#[test]
fn batches_of_wide_rows_are_small() {
    let schema = Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("text", DataType::Utf8, true),
        Field::new(
            "list",
            DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true))),
            true,
        ),
    ]));
    let text = |n: usize| match n {
        1_000..1_064 => "x".repeat((1 << 20) + n),
        2_000..2_300 => ["a", "b"][n % 2].repeat(200 << 10),
        _ => format!("row {n}"),
    };
    let list = |n: usize| match n {
        2_500..2_510 => (0..500_000).map(|i| Some(i * n as i64)).collect(),
        _ => vec![Some(1)],
    };
    let rows = |from: usize, to: usize| {
        let lists = (from..to).map(|n| Some(list(n)));
        let lists = arrow::array::ListArray::from_iter_primitive::<Int64Type, _, _>(lists);
        let columns: Vec<Arc<dyn Array>> = vec![
            Arc::new(Int64Array::from_iter_values((from..to).map(|n| n as i64))),
            Arc::new((from..to).map(|n| Some(text(n))).collect::<StringArray>()),
            Arc::new(lists),
        ];
        RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let settings = FileSettings {
        memory: usize::MAX,
        event_time: None,
        ..tables().settings
    };
    let mut file = ParquetFile::create(path, Arc::clone(&schema), &settings).unwrap();
    for from in (0..4_000).step_by(100) {
        file.write(&rows(from, from + 100)).unwrap();
    }
    let (path, count, bytes) = file.finish().unwrap();
    let content = bytes::Bytes::from(std::fs::read(path).unwrap());
    let fetch = move |range: std::ops::Range<u64>| {
        Ok(content.slice(range.start as usize..range.end as usize))
    };
    let content = Content::new(Arc::new(fetch), bytes, 0);
    for wanted in [1, 3] {
        let of = Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8, true)]));
        let test = move |batch: &RecordBatch| {
            // The test sees no larger batches than the caller does.
            assert!(batch.get_array_memory_size() < 16 << 20);
            let texts = batch.column(0).as_string::<i32>().iter();
            texts
                .map(|text| Some(text.unwrap().len() % wanted == 0))
                .collect()
        };
        let wants = Wanted {
            schema: of,
            test: Arc::new(test),
        };
        let file = StoredFile::open("here".into(), content.clone(), settings.commit, count);
        let mut next = 0;
        for batch in file
            .unwrap()
            .read(Arc::clone(&schema), None, Some(wants))
            .unwrap()
        {
            let batch = batch.unwrap();
            assert!(batch.get_array_memory_size() < 24 << 20, "{next}");
            let numbers = batch.column(0).as_primitive::<Int64Type>().values();
            for (row, number) in numbers.iter().enumerate() {
                while text(next).len() % wanted != 0 {
                    next += 1;
                }
                assert_eq!(*number, next as i64);
                assert!(batch.column(1).as_string::<i32>().value(row) == text(next));
                assert_eq!(
                    batch.column(2).as_list::<i32>().value(row).len(),
                    list(next).len()
                );
                next += 1;
            }
        }
        assert!(next == if wanted == 1 { 4_000 } else { 1_062 }, "{next}");
    }
}

/// Days of April 2019 as places.
fn days(count: u32) -> Vec<u64> {
    let place = |day| Place {
        date: chrono::NaiveDate::from_ymd_opt(2019, 4, day).unwrap(),
        hour: None,
        slice: 0,
    };
    (1..=count).map(|day| place(day).sortable()).collect()
}

/// The number of rows of each written file, by table and name of its folder.
fn content(files: &[Finished]) -> BTreeMap<(String, crate::layout::Partition), Vec<Vec<String>>> {
    let rows = |file: &Finished| ((file.table.clone(), file.partition.clone()), read(file));
    files.iter().map(rows).collect()
}

/// Runs in memory and in files that are merged by sets of places, in any order, give the same as one merge of
/// all places.
#[test]
fn sets_of_places_are_merged_apart() {
    for seed in 0..6 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let places = days(9);
        let keys: Vec<Key> = (0..12_000)
            .map(|i| {
                let place = places[random.random_range(0..places.len())];
                let time = sortable(random.random_range(-500..500));
                [place, time, EventId::new(i % 3, i + 1).0]
            })
            .collect();
        let dropped: Vec<[u64; 5]> = keys
            .iter()
            .filter(|_| random.random_bool(0.1))
            .map(|key| [key[0], key[1], key[2], keys[0][2], 1])
            .collect();
        let spill = tempfile::tempdir().unwrap();
        let words = Words::new(1 << 20, 3);
        let collect = || {
            let mut collected = Collected::default();
            for (limit, part) in [usize::MAX, 0, 100_000].into_iter().zip(keys.chunks(4_000)) {
                let mut collector = Collector::new(spill.path(), limit, &words);
                for part in part.chunks(700) {
                    collector.push(batch(part)).unwrap();
                }
                collected.append(collector.finish().unwrap());
            }
            collected
        };
        let verdicts = |places: &std::ops::RangeInclusive<u64>| {
            let mut sorter = Sorter::<5>::new(spill.path(), 0);
            let of_places = dropped.iter().filter(|row| places.contains(&row[0]));
            of_places.for_each(|row| sorter.push(*row).unwrap());
            Sorted::merge(vec![sorter]).unwrap()
        };
        let write_in = |collected, verdicts| {
            let folder = tempfile::tempdir().unwrap();
            let done = |_: &Finished| true;
            let files = write(collected, Some(verdicts), &tables(), folder.path(), &done);
            content(&files.unwrap())
        };
        let whole = write_in(collect(), verdicts(&(0..=u64::MAX)));
        let cuts: Vec<u64> = {
            let mut cuts = places.clone();
            cuts.shuffle(&mut random);
            cuts.truncate(3);
            cuts.sort_unstable();
            cuts
        };
        let mut sets: Vec<std::ops::RangeInclusive<u64>> = Vec::new();
        let mut from = 0;
        for cut in cuts {
            sets.push(from..=cut);
            from = cut + 1;
        }
        sets.push(from..=u64::MAX);
        sets.shuffle(&mut random);
        let mut collected = collect();
        let mut apart = BTreeMap::new();
        for set in &sets {
            let runs = collected.take(set).unwrap();
            apart.extend(write_in(runs, verdicts(set)));
        }
        assert!(apart == whole, "seed {seed}: {sets:?}");
        let rows: usize = whole.values().map(Vec::len).sum();
        assert_eq!(rows, keys.len());
    }
}

#[test]
fn runs_of_other_words_are_merged() {
    let keys: Vec<Key> = (0..3_000)
        .map(|i| [days(1)[0], sortable(i.into()), EventId::new(0, i + 1).0])
        .collect();
    for limit in [0, usize::MAX] {
        let spill = tempfile::tempdir().unwrap();
        let mut collected = Collected::default();
        for part in 0..3 {
            // Each worker meets the words in another order, and gives them other codes.
            let words = Words::new(1 << 20, 1);
            let mut collector = Collector::new(spill.path(), limit, &words);
            let keys: Vec<Key> = keys.iter().skip(part).step_by(3).copied().collect();
            collector.push(batch(&keys)).unwrap();
            collected.append(collector.finish().unwrap());
        }
        let folder = tempfile::tempdir().unwrap();
        let files = write(collected, None, &tables(), folder.path(), &|_| true).unwrap();
        let expected: Vec<_> = keys.iter().map(|key| row(key, None)).collect();
        assert!(read(&files[0]) == expected, "{limit}");
    }
}

/// Row groups that were written one after another are one run. A group that begins before the end of the group
/// in front of it begins another run.
#[test]
fn a_file_has_a_sorted_run_for_each_sequence_of_row_groups() {
    let time = DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, Some("UTC".into()));
    let schema = Arc::new(Schema::new(vec![Field::new("at", time, false)]));
    let written = |starts: &[i64]| -> Vec<Vec<i64>> {
        let folder = tempfile::tempdir().unwrap();
        let settings = FileSettings {
            memory: 0,
            ..tables().settings
        };
        let path = folder.path().join("file");
        let mut file = ParquetFile::create(path, Arc::clone(&schema), &settings).unwrap();
        for start in starts {
            let times = TimestampMillisecondArray::from_iter_values(*start..start + 10);
            let columns: Vec<Arc<dyn Array>> = vec![Arc::new(times.with_timezone("UTC"))];
            let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
            file.write(&batch).unwrap();
        }
        let (path, rows, bytes) = file.finish().unwrap();
        let content = bytes::Bytes::from(std::fs::read(path).unwrap());
        let fetch = move |range: std::ops::Range<u64>| {
            Ok(content.slice(range.start as usize..range.end as usize))
        };
        let content = Content::new(Arc::new(fetch), bytes, 0);
        let file = StoredFile::open("here".into(), content, settings.commit, rows).unwrap();
        let runs = file.sorted_runs("at").unwrap().into_iter();
        let times = |run: StoredFile| -> Vec<i64> {
            let batches = run.read(Arc::clone(&schema), None, None).unwrap();
            let times = batches.map(|batch| {
                let batch = batch.unwrap();
                let times = batch.column(0).as_primitive::<TimestampMillisecondType>();
                times.values().to_vec()
            });
            times.flatten().collect()
        };
        runs.map(times).collect()
    };
    let of = |starts: &[i64]| -> Vec<i64> { starts.iter().flat_map(|s| *s..s + 10).collect() };
    assert_eq!(written(&[0, 10, 20]), [of(&[0, 10, 20])]);
    // The times at a border may be equal.
    assert_eq!(written(&[0, 9, 18]), [of(&[0, 9, 18])]);
    assert_eq!(
        written(&[0, 10, 5, 15, 3]),
        [of(&[0, 10]), of(&[5, 15]), of(&[3])]
    );
    assert_eq!(written(&[]), [Vec::<i64>::new()]);
}

#[test]
fn sorted_stored_rows_come_in_one_order() {
    let keys = |from: u32, step: usize| -> Vec<Key> {
        let ids = (from..600).step_by(step);
        ids.map(|i| [1, sortable(i.into()), EventId::new(0, i).0])
            .collect()
    };
    let run = |from: u32, step: usize| -> StoredRows {
        let blocks: Vec<_> = keys(from, step).chunks(70).map(|k| Ok(batch(k))).collect();
        Box::new(blocks.into_iter())
    };
    for runs in [
        vec![],
        vec![run(0, 1)],
        vec![run(1, 3), run(0, 3), run(2, 3)],
    ] {
        let expected = if runs.is_empty() { vec![] } else { keys(0, 1) };
        let mut found = Vec::new();
        for block in in_order(runs) {
            let block = block.unwrap();
            assert_eq!(block.batch, batch(&block.keys).batch);
            found.extend(block.keys);
        }
        assert_eq!(found, expected);
    }
}
