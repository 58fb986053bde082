//! The speed of each step on input in memory.
//!
//! ```sh
//! cargo bench --bench parts [-- inflate]
//! ```
//!
//! `decode` holds `inflate`. Each step is one thread's work, but `write`: it merges on one and encodes each
//! of the two tables on another.

#[expect(dead_code, reason = "names and counts are for who writes them")]
mod data;
mod steps;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use arrow::array::StringArray;
use criterion::{BatchSize, Criterion, Throughput};
use data::Result;
use libdeflater::Decompressor;
use rawmart::catalog::{SourceTables, TableDefinition};
use rawmart::dedup::{Places, from_sortable};
use rawmart::publish::{Collected, Collector, FileSettings, Keyed, Tables, Words};
use steps::{Batch, Input, MEMORY};

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
    group.bench_function("inflate", |b| b.iter(|| inflate(black_box(&input))));
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
                let files = rawmart::publish::write(collected, Some(verdicts), &tables, folder)?;
                Result::Ok(files)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
    criterion.final_summary();
    Ok(())
}

/// As `raw` inflates an object that is one gzip member.
fn inflate(input: &Input) -> Result<usize> {
    let mut length = 0;
    for object in &input.objects {
        let mut out = vec![0; object.length];
        length += Decompressor::new().gzip_decompress(&object.gzip, &mut out)?;
        black_box(out);
    }
    Ok(length)
}

/// Decoded events in order, as one run.
fn collect(input: &Input, batches: &[Batch]) -> Result<Collected> {
    let mut places = Places::new(input.slicing, input.source.decode.unit);
    let mut collector = Collector::new(input.folder.path(), MEMORY, &Words::default());
    for batch in batches {
        let keys = batch.times.iter().zip(&batch.ids);
        let keys = keys.map(|(time, id)| [places.of(from_sortable(*time)), *time, *id]);
        collector.push(Keyed::new(batch.events.clone(), keys.collect()))?;
    }
    Ok(collector.finish()?)
}

fn tables(input: &Input) -> Tables {
    let tables = SourceTables::new(&input.source, &BTreeMap::new());
    let table = |table: TableDefinition| (table.name, table.schema);
    let objects = (0..input.objects.len()).map(|rank| Some(format!("2019/04/01/00/{rank}.gz")));
    let rules = input.source.rules.iter().map(|rule| Some(&rule.name));
    Tables {
        kept: table(tables.events),
        duplicates: Some(table(tables.duplicates)),
        objects: Arc::new(objects.collect::<StringArray>()),
        rules: Arc::new(rules.collect::<StringArray>()),
        timed: true,
        settings: FileSettings {
            compression: input.source.compression,
            bloom_filters: Vec::new(),
            commit: 1,
            memory: MEMORY,
            threads: 1,
        },
    }
}
