//! Measures the speed of each step on input in memory.
//!
//! ```sh
//! cargo bench --bench parts [-- inflate]
//! ```
//!
//! `decode` includes `inflate`. Each step is the work of one thread, except `write`: it merges on one thread
//! and encodes each of the two tables on another.
//!
//! `alone` measures libraries that do less than the job, on one thread: `parse` makes a tape of each record
//! with simd-json, `encode` writes the kept events, in order and in memory, with the `parquet` crate.

#[expect(dead_code, reason = "names and counts are for who writes them")]
mod data;
mod steps;

use std::collections::BTreeMap;
use std::fs::File;
use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Schema};
use criterion::{BatchSize, Criterion, Throughput};
use data::Result;
use libdeflater::Decompressor;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use rawmart::catalog::{SourceTables, TableDefinition};
use rawmart::dedup::{Places, from_sortable};
use rawmart::event::RAW_RECORD;
use rawmart::publish::{Collected, Collector, FileSettings, Keyed, Tables, Words};
use steps::{Batch, Input, MEMORY, Raw};

const RECORDS: u64 = 100_000;

fn main() -> Result<()> {
    let mut criterion = Criterion::default().sample_size(20).configure_from_args();
    let input = Input::new(RECORDS)?;
    let (batches, records) = input.batches()?;
    let narrow = input.narrow(&batches, &records)?;
    let rows: usize = narrow.rows.iter().map(Vec::len).sum();
    let events: usize = batches.iter().map(|batch| batch.times.len()).sum();
    let bytes: usize = input.objects.iter().map(|object| object.length).sum();
    let of_json = |elements: usize| Throughput::ElementsAndBytes {
        elements: elements as u64,
        bytes: bytes as u64,
    };

    let mut group = criterion.benchmark_group("parts");
    group.throughput(of_json(events));
    group.bench_function("inflate", |b| {
        b.iter(|| {
            let all = black_box(&input).objects.iter();
            all.map(inflate)
                .try_for_each(|out| out.map(|out| drop(black_box(out))))
        });
    });
    group.bench_function("decode", |b| b.iter(|| black_box(&input).decode()));
    group.throughput(Throughput::Elements(rows as u64));
    group.bench_function("keys", |b| {
        b.iter(|| input.narrow(black_box(&batches), &records));
    });
    group.bench_function("verdicts", |b| {
        b.iter(|| input.verdicts(black_box(&narrow)))
    });
    group.throughput(of_json(events));
    let tables = tables(&input);
    group.bench_function("write", |b| {
        b.iter_batched(
            || Ok((collect(&input, &batches)?, input.verdicts(&narrow)?)),
            |sorted: Result<_>| {
                let (collected, verdicts) = sorted?;
                let folder = input.folder.path();
                let files =
                    rawmart::publish::write(collected, Some(verdicts), &tables, folder, &|_| true)?;
                Result::Ok(files)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();

    let mut group = criterion.benchmark_group("alone");
    group.throughput(of_json(events));
    let text = input.objects.iter().map(inflate);
    let text = text.collect::<Result<Vec<_>>>()?.concat();
    if parse(text.clone()) < events {
        return Err("an event is no JSON".into());
    }
    group.bench_function("parse", |b| {
        b.iter_batched(|| text.clone(), parse, BatchSize::PerIteration);
    });
    let kept = kept(&input, &batches, &narrow, &tables)?;
    group.bench_function("encode", |b| b.iter(|| encode(black_box(&kept))));
    group.finish();
    criterion.final_summary();
    Ok(())
}

/// Inflates an object as `raw` does it for a single gzip member.
fn inflate(object: &Raw) -> Result<Vec<u8>> {
    let mut out = vec![0; object.length];
    Decompressor::new().gzip_decompress(&object.gzip, &mut out)?;
    Ok(out)
}

/// Makes a tape of each line. The result is the number of lines that are JSON.
fn parse(mut text: Vec<u8>) -> usize {
    let mut buffers = simd_json::Buffers::default();
    let lines = text.split_mut(|byte| *byte == b'\n');
    let tapes =
        lines.map(|line| simd_json::to_tape_with_buffers(line, &mut buffers).map(black_box));
    tapes.filter(std::result::Result::is_ok).count()
}

/// The kept events in the form in which the encoder gets them: columns with few different strings are
/// dictionaries.
fn kept(
    input: &Input,
    batches: &[Batch],
    narrow: &steps::Narrow,
    tables: &Tables,
) -> Result<Vec<RecordBatch>> {
    const FEW: &str =
        "event_type page target os os_version app_version country city extra raw_object";
    let folder = input.folder.path();
    let verdicts = Some(input.verdicts(narrow)?);
    let files =
        rawmart::publish::write(collect(input, batches)?, verdicts, tables, folder, &|_| {
            true
        })?;
    let mut kept = Vec::new();
    for file in files.iter().filter(|file| file.table == tables.kept.0) {
        let fields = tables.kept.1.fields().iter().map(|field| {
            let few = FEW.split(' ').any(|name| name == field.name());
            let codes = DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into());
            let own = field.data_type().clone();
            field
                .as_ref()
                .clone()
                .with_data_type(if few { codes } else { own })
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let options = ArrowReaderOptions::new().with_schema(schema);
        let rows = ParquetRecordBatchReaderBuilder::try_new_with_options(
            File::open(&file.path)?,
            options,
        )?;
        for batch in rows.with_batch_size(32_768).build()? {
            kept.push(batch?);
        }
    }
    Ok(kept)
}

/// The settings are those of rawmart: zstd at level 1, and statistics of pages, which are on by default.
fn encode(kept: &[RecordBatch]) -> Result<Vec<u8>> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .build();
    let schema = kept.first().ok_or("nothing is kept")?.schema();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties))?;
    for batch in kept {
        writer.write(batch)?;
    }
    Ok(writer.into_inner()?)
}

/// Decoded events in order, as one run.
fn collect(input: &Input, batches: &[Batch]) -> Result<Collected> {
    let mut places = Places::new(input.slicing, input.source.decode.unit);
    let mut collector = Collector::new(input.folder.path(), MEMORY, &Words::default());
    for batch in batches {
        let keys = batch.times.iter().zip(&batch.ids);
        let keys = keys.map(|(time, id)| [places.of(from_sortable(*time)), *time, *id]);
        let mut events = batch.events.clone();
        for in_key in [RAW_RECORD, &input.source.decode.event_time] {
            events.remove_column(events.schema().index_of(in_key)?);
        }
        collector.push(Keyed::new(events, keys.collect()))?;
    }
    Ok(collector.finish()?)
}

fn tables(input: &Input) -> Tables {
    let tables = SourceTables::new(&input.source, &BTreeMap::new());
    let table = |table: TableDefinition| (table.name, table.schema);
    let objects = (0..input.objects.len()).map(|rank| Some(format!("2019/04/01/00/{rank}.gz")));
    let rules = input.source.rules.iter().map(|rule| Some(&rule.name));
    Tables {
        left: Arc::default(),
        kept: table(tables.events),
        duplicates: Some(table(tables.duplicates)),
        objects: Arc::new(objects.collect::<StringArray>()),
        rules: Arc::new(rules.collect::<StringArray>()),
        settings: FileSettings {
            compression: input.source.compression,
            event_time: Some(input.source.decode.event_time.clone()),
            sorted_by: Vec::new(),
            bloom_filters: Vec::new(),
            commit: 1,
            memory: MEMORY,
            threads: 1,
        },
    }
}
