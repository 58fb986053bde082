//! Compares window functions over random rows with an oracle that looks at every row of a frame.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Float64Type, Int64Type};
use datafusion::datasource::MemTable;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Engine;

/// The partition and the value of each row, in the order of its id.
type Row = (Option<&'static str>, Option<f64>);

fn rows(chance: &mut ChaCha8Rng) -> Vec<Row> {
    let values = [1e18, 0.25, 1500.5, 2e-7, 7.0];
    (0..chance.random_range(1..60))
        .map(|_| {
            let part = [Some("a"), Some("b"), None][chance.random_range(0..3)];
            let value = values[chance.random_range(0..values.len())];
            (part, chance.random_bool(0.8).then_some(value))
        })
        .collect()
}

/// One bound, as SQL and as the distance from the current row; `None` for an unbounded frame.
fn bound(chance: &mut ChaCha8Rng, from: i64) -> (String, Option<i64>) {
    match chance.random_range(from..5) {
        -5 => ("UNBOUNDED PRECEDING".to_owned(), None),
        4 => ("UNBOUNDED FOLLOWING".to_owned(), None),
        0 => ("CURRENT ROW".to_owned(), Some(0)),
        far if far < 0 => (format!("{} PRECEDING", -far), Some(far)),
        far => (format!("{far} FOLLOWING"), Some(far)),
    }
}

/// The values of one column of doubles, by id.
async fn column(rows: &[Row], batch: usize, sql: &str) -> Vec<Option<f64>> {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::new(64 << 20, 1, folder.path()).unwrap();
    let session = engine.session();
    let set = format!("SET datafusion.execution.batch_size = {batch}");
    session.sql(&set).await.unwrap();
    let ids = i64::try_from(rows.len()).unwrap();
    let table = RecordBatch::try_from_iter([
        (
            "id",
            Arc::new(Int64Array::from_iter_values(0..ids)) as ArrayRef,
        ),
        (
            "part",
            Arc::new(StringArray::from_iter(rows.iter().map(|row| row.0))),
        ),
        (
            "x",
            Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.1))),
        ),
    ])
    .unwrap();
    let table = MemTable::try_new(table.schema(), vec![vec![table]]).unwrap();
    session.register_table("t", Arc::new(table)).unwrap();
    let found = session.sql(sql).await.unwrap().collect().await.unwrap();
    let mut values = vec![None; rows.len()];
    let mut seen = 0;
    for batch in &found {
        let ids = batch.column(0).as_primitive::<Int64Type>();
        let made = batch.column(1).as_primitive::<Float64Type>();
        for (id, value) in ids.values().iter().zip(made) {
            values[usize::try_from(*id).unwrap()] = value;
            seen += 1;
        }
    }
    assert_eq!(seen, rows.len(), "{sql}");
    values
}

fn close(left: Option<f64>, right: Option<f64>) -> bool {
    match (left, right) {
        (Some(left), Some(right)) => {
            left == right || (left - right).abs() <= 1e-9 * left.abs().max(right.abs())
        }
        (left, right) => left.is_none() && right.is_none(),
    }
}

/// The values in the frame of a row: the rows of its partition, in their order.
fn frame(rows: &[Row], row: usize, first: Option<i64>, last: Option<i64>) -> Vec<Option<f64>> {
    let own: Vec<usize> = (0..rows.len())
        .filter(|other| rows[*other].0 == rows[row].0)
        .collect();
    let here = i64::try_from(own.iter().position(|other| *other == row).unwrap()).unwrap();
    (0..)
        .zip(&own)
        .filter(|(place, _)| {
            first.is_none_or(|far| *place >= here + far)
                && last.is_none_or(|far| *place <= here + far)
        })
        .map(|(_, other)| rows[*other].1)
        .collect()
}

fn variance(values: &[f64]) -> Option<f64> {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares = values.iter().map(|value| (value - mean).powi(2));
    (!values.is_empty()).then(|| squares.sum::<f64>() / count)
}

/// A function over the frame of a row.
type Oracle = fn(&[Option<f64>]) -> Option<f64>;

fn known(frame: &[Option<f64>]) -> Vec<f64> {
    frame.iter().flatten().copied().collect()
}

const OVER_FRAMES: [(&str, Oracle); 12] = [
    ("sum(x) {}", |frame| {
        known(frame).into_iter().reduce(|a, b| a + b)
    }),
    ("avg(x) {}", |frame| {
        let known = known(frame);
        let count = known.len() as f64;
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / count)
    }),
    ("var_pop(x) {}", |frame| variance(&known(frame))),
    ("stddev_pop(x) {}", |frame| {
        variance(&known(frame)).map(f64::sqrt)
    }),
    ("CAST(count(x) {} AS double)", |frame| {
        Some(known(frame).len() as f64)
    }),
    ("max(x) {}", |frame| {
        known(frame).into_iter().reduce(f64::max)
    }),
    ("CAST(CAST(bool_and(x > 1) {} AS int) AS double)", |frame| {
        let all = known(frame).into_iter().map(|x| x > 1.0);
        all.reduce(|a, b| a && b).map(f64::from)
    }),
    ("CAST(CAST(bool_or(x > 1) {} AS int) AS double)", |frame| {
        let all = known(frame).into_iter().map(|x| x > 1.0);
        all.reduce(|a, b| a || b).map(f64::from)
    }),
    ("first_value(x) {}", |frame| *frame.first()?),
    ("last_value(x) IGNORE NULLS {}", |frame| {
        known(frame).last().copied()
    }),
    ("nth_value(x, 2) {}", |frame| *frame.get(1)?),
    ("nth_value(x, 2) IGNORE NULLS {}", |frame| {
        known(frame).get(1).copied()
    }),
];

#[tokio::test]
async fn what_has_left_a_frame_leaves_no_trace() {
    let mut chance = ChaCha8Rng::seed_from_u64(54);
    for turn in 0..45 {
        let rows = rows(&mut chance);
        let (start, first) = bound(&mut chance, -5);
        let (end, last) = bound(&mut chance, first.unwrap_or(-4));
        if start == "UNBOUNDED FOLLOWING" {
            continue;
        }
        let batch = [1, 3, 8192][turn % 3];
        let over = format!("OVER (PARTITION BY part ORDER BY id ROWS BETWEEN {start} AND {end})");
        for (call, oracle) in OVER_FRAMES {
            let sql = format!("SELECT id, {} AS w FROM t", call.replace("{}", &over));
            let found = column(&rows, batch, &sql).await;
            for (row, found) in found.into_iter().enumerate() {
                let frame = frame(&rows, row, first, last);
                let expected = oracle(&frame);
                assert!(
                    close(found, expected),
                    "{sql}, batches of {batch}, row {row}: {found:?}, not {expected:?} of {frame:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn shifts_pass_over_nulls() {
    let mut chance = ChaCha8Rng::seed_from_u64(23);
    for turn in 0..150 {
        let rows = rows(&mut chance);
        let far = chance.random_range(0..5_usize);
        let batch = [1, 3, 8192][turn % 3];
        let ignores = chance.random_bool(0.7);
        let backwards = chance.random_bool(0.5);
        let ahead = chance.random_bool(0.6);
        let sql = format!(
            "SELECT id, {}(x, {far}, -1) {} OVER (PARTITION BY part ORDER BY id{}) AS w, \
             row_number() OVER (PARTITION BY part ORDER BY id) AS r FROM t",
            if ahead { "lead" } else { "lag" },
            if ignores { "IGNORE NULLS" } else { "" },
            if backwards { " DESC" } else { "" },
        );
        let found = column(&rows, batch, &sql).await;
        for (row, found) in found.into_iter().enumerate() {
            let (behind, before) = (
                frame(&rows, row, Some(1), None),
                frame(&rows, row, None, Some(-1)),
            );
            let mut others = match ahead != backwards {
                true => behind,
                false => before.into_iter().rev().collect(),
            };
            if ignores {
                others.retain(Option::is_some);
            }
            let expected = match far.checked_sub(1) {
                None => rows[row].1,
                Some(place) => others.get(place).copied().unwrap_or(Some(-1.0)),
            };
            assert!(
                close(found, expected),
                "{sql}, batches of {batch}, row {row}: {found:?}, not {expected:?} in {rows:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_percentile_is_as_exact_as_its_numbers() {
    let rows = [
        (None, Some(1e12)),
        (None, Some(0.0)),
        (None, Some(0.0)),
        (None, None),
    ];
    for (call, expected) in [
        // A third of the way from 0 to 1e12: steps of a millionth are wrong by 333,333.
        (
            "percentile_cont(0.6666666666666666) WITHIN GROUP (ORDER BY x)",
            1e12 / 3.0,
        ),
        ("percentile_cont(x, 0.75)", 5e11),
        ("percentile_cont(0.25) WITHIN GROUP (ORDER BY x DESC)", 5e11),
        ("percentile_cont(DISTINCT x, 0.1)", 1e11),
        ("percentile_cont(1) WITHIN GROUP (ORDER BY x)", 1e12),
    ] {
        let sql = format!("SELECT id, (SELECT {call} FROM t) AS w FROM t");
        for found in column(&rows, 8192, &sql).await {
            assert!(close(found, Some(expected)), "{call}: {found:?}");
        }
    }
}
