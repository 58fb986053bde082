//! Runs every operator that holds rows with little memory. It must give the right rows, or an error.

use arrow::array::AsArray;
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use datafusion::prelude::SessionContext;
use futures::StreamExt;

use crate::engine::Engine;

use super::*;

/// Numbers from 1.
fn numbers(count: usize) -> String {
    format!("(SELECT value AS n FROM generate_series(1, {count}))")
}

async fn batches(session: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>, DataFusionError> {
    session.sql(sql).await?.collect().await
}

/// The numbers of the only row of a result, from an engine with so many MiB and threads.
async fn row(mib: u64, threads: usize, sql: &str) -> Result<Vec<i64>, String> {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::new(mib << 20, threads, folder.path()).unwrap();
    let session = engine.parallel_session();
    let made = batches(&session, sql).await;
    assert_eq!(engine.runtime.memory_pool.reserved(), 0);
    let made = made.map_err(|error| error.strip_backtrace())?;
    let made = concat_batches(&made[0].schema(), &made).unwrap();
    assert_eq!(made.num_rows(), 1, "{sql}");
    let columns = made.columns().iter();
    Ok(columns
        .map(|column| column.as_primitive::<Int64Type>().value(0))
        .collect())
}

#[tokio::test]
async fn a_nested_loop_join_below_another_gives_its_rows_where_memory_is_short() {
    // Pairs a < b, then those of them below some c: the left side of the upper join does not fit.
    let sql = format!(
        "WITH e AS {} SELECT count(*), sum(q.x), sum(q.y) FROM \
         (SELECT a.n AS x, b.n AS y FROM e a JOIN e b ON a.n < b.n) q \
         JOIN (SELECT n FROM e WHERE n IN (3, 1000, 2000)) c ON q.y < c.n",
        numbers(2_000)
    );
    let mut expected = vec![0, 0, 0];
    for c in [3, 1000, 2000] {
        for y in 1..c {
            expected[0] += y - 1;
            expected[1] += y * (y - 1) / 2;
            expected[2] += y * (y - 1);
        }
    }
    for (mib, threads) in [(16, 1), (24, 2), (1024, 1)] {
        assert_eq!(
            row(mib, threads, &sql).await.unwrap(),
            expected,
            "{mib} {threads}"
        );
    }
}

#[tokio::test]
async fn rows_without_a_partner_are_told_once_where_memory_is_short() {
    // Two threads read the right side. The left side does not fit.
    let text = "repeat('x', 100)";
    let sql = format!(
        "SELECT count(*), count(r.n), sum(l.n) FROM (SELECT n, {text} || CAST(n AS VARCHAR) AS t FROM {}) l \
         LEFT JOIN (SELECT n, CAST(n AS VARCHAR) AS t FROM {} UNION ALL SELECT 0, '') r \
         ON l.n + r.n = 200001 AND l.t > r.t AND r.n * r.n <= 100",
        numbers(200_000),
        numbers(20),
    );
    let expected = vec![200_000, 10, 200_000 * 200_001 / 2];
    for (mib, threads) in [(16, 1), (200, 2), (1024, 2)] {
        let sql = sql.replace(
            text,
            if mib == 200 {
                "repeat('x', 1000)"
            } else {
                text
            },
        );
        assert_eq!(
            row(mib, threads, &sql).await.unwrap(),
            expected,
            "{mib} {threads}"
        );
    }
}

#[tokio::test]
async fn sorts_above_sorts_end_in_little_memory() {
    // A sort of several columns of 1.5 million rows, above a window, which sorts too.
    let sql = format!(
        "SELECT count(*), CAST(sum(r) AS BIGINT), sum(CASE WHEN before > h THEN 1 ELSE 0 END) FROM ( \
           SELECT h, r, lag(h) OVER (ORDER BY h, n) AS before FROM ( \
             SELECT md5(CAST(n AS VARCHAR)) AS h, n, row_number() OVER (PARTITION BY n % 1000 ORDER BY n) AS r \
             FROM {}))",
        numbers(1_500_000)
    );
    let expected = vec![1_500_000, 1_000 * (1_500 * 1_501 / 2), 0];
    for (mib, threads) in [(48, 1), (96, 2), (192, 8)] {
        assert_eq!(
            row(mib, threads, &sql).await.unwrap(),
            expected,
            "{mib} {threads}"
        );
    }
}

#[tokio::test]
async fn a_sort_by_many_flags_and_one_of_wide_rows_end() {
    // Merges compare rows in a format in which a flag takes sixteen times its place.
    let flags: Vec<String> = (1..=40)
        .map(|bit| format!("n % {} = 0 AS f{bit}", bit + 1))
        .collect();
    let names: Vec<String> = (1..=40).map(|bit| format!("f{bit}")).collect();
    let flags = format!(
        "SELECT {} FROM {} ORDER BY {}",
        flags.join(", "),
        numbers(600_000),
        names.join(", ")
    );
    // 4 KiB a row: a batch of the usual 8,192 rows would have half of the memory.
    let wide = format!(
        "SELECT repeat(md5(CAST(n AS VARCHAR)), 128) AS w, n FROM {} ORDER BY w",
        numbers(60_000)
    );
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::new(64 << 20, 1, folder.path()).unwrap();
    for (sql, expected) in [(flags, 600_000), (wide, 60_000)] {
        let frame = engine.session().sql(&sql).await.unwrap();
        let mut stream = frame.execute_stream().await.unwrap();
        let mut rows = 0;
        while let Some(batch) = stream.next().await {
            rows += batch.unwrap().num_rows();
        }
        assert_eq!(rows, expected);
    }
    assert_eq!(engine.runtime.memory_pool.reserved(), 0);
}

#[tokio::test]
async fn the_merge_of_sorted_partitions_holds_no_more_than_its_rows() {
    let sql = format!(
        "SELECT count(*), sum(CASE WHEN b > w THEN 1 ELSE 0 END) FROM (SELECT w, lag(w) OVER (ORDER BY w) AS b FROM \
         (SELECT repeat(md5(CAST(n AS VARCHAR)), 128) AS w FROM {}))",
        numbers(60_000)
    );
    assert_eq!(row(192, 2, &sql).await.unwrap(), vec![60_000, 0]);
}

#[tokio::test]
async fn a_merge_of_sorted_partitions_of_wide_rows_ends() {
    // 4,000 rows of 16 KiB in two partitions: the merge would hold as many of them as its batch has.
    let sql = format!(
        "SELECT repeat(md5(CAST(n AS VARCHAR)), 512) AS w, n FROM {} ORDER BY w",
        numbers(4000)
    );
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::new(192 << 20, 2, folder.path()).unwrap();
    let frame = engine.parallel_session().sql(&sql).await.unwrap();
    let mut stream = frame.execute_stream().await.unwrap();
    let (mut rows, mut last) = (0, String::new());
    while let Some(batch) = stream.next().await {
        let batch = batch.unwrap();
        assert!(batch.num_rows() << 14 <= 2 << 20, "{}", batch.num_rows());
        let words =
            arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8).unwrap();
        for row in words.as_string::<i32>().iter().flatten() {
            assert!(last.as_str() < row);
            last = row.to_owned();
        }
        rows += batch.num_rows();
    }
    assert_eq!(rows, 4000);
    drop(stream);
    assert_eq!(engine.runtime.memory_pool.reserved(), 0);
}

#[tokio::test]
async fn a_plan_that_makes_wide_values_gathers_few_rows() {
    // 3,000 rows, and one value of some megabytes that is copied beside each of them.
    let of = |value: &str| {
        let numbers = numbers(3000);
        format!(
            "WITH e AS {numbers} SELECT a.n, b.t FROM (SELECT n FROM e WHERE n <> 7) a CROSS JOIN \
             (SELECT {value} AS t FROM e WHERE n = 5) b WHERE a.n < length(b.t)"
        )
    };
    let batches = async |value: &str, rows: usize| {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::new(192 << 20, 2, folder.path()).unwrap();
        let frame = engine.parallel_session().sql(&of(value)).await.unwrap();
        let mut stream = frame.execute_stream().await.unwrap();
        let (mut all, mut most, mut count) = (0, 0, 0);
        while let Some(batch) = stream.next().await {
            let batch = batch.unwrap();
            all += batch.num_rows();
            most = most.max(batches::own_bytes(&batch));
            count += 1;
        }
        assert_eq!(all, rows, "{value}");
        (most, count)
    };
    for value in [
        "max(repeat(CAST(n AS VARCHAR), 1000000))",
        "string_agg(repeat('x', 2000000), '-')",
    ] {
        let (most, _) = batches(value, 2999).await;
        assert!(most <= 2 * CONSTANTS, "{value}: {most}");
    }
    // Padding to a few characters makes no wide value, and the plan runs with whole batches.
    let (_, count) = batches("lpad(repeat('x', 100), 4000, 'ab')", 2999).await;
    assert!(count <= 4, "{count}");
}

#[tokio::test]
async fn a_window_over_whole_partitions_takes_one_after_the_other() {
    // A million rows do not fit twice. Their partitions do, and some of them cross batches.
    let by = |key: &str| {
        format!(
            "SELECT count(*), sum(s), max(c) FROM (SELECT n, sum(n) OVER ({key}) AS s, count(*) OVER ({key}) AS c FROM {})",
            numbers(1_000_000)
        )
    };
    let mut sums = 0;
    for key in 0..80_i64 {
        let of_key: i64 = (1..=1_000_000).filter(|n| n % 80 == key).sum();
        sums += of_key * 12_500;
    }
    let found = row(24, 1, &by("PARTITION BY n % 80")).await;
    assert_eq!(found.unwrap(), vec![1_000_000, sums, 12_500]);
    // Each row is a partition. At the end comes one batch of many rows with one key.
    let found = row(
        24,
        1,
        &by("PARTITION BY CASE WHEN n < 990000 THEN n ELSE 0 END"),
    )
    .await;
    let small: i64 = (1..990_000).sum();
    let last: i64 = (990_000..=1_000_000).sum::<i64>() * 10_001;
    assert_eq!(found.unwrap(), vec![1_000_000, small + last, 10_001]);
    let error = row(16, 1, &by("")).await.unwrap_err();
    assert!(
        error.contains("a window function without PARTITION BY"),
        "{error}"
    );
    let error = row(16, 1, &by("PARTITION BY n > 5")).await.unwrap_err();
    assert!(error.contains("all rows of its partition"), "{error}");
    let found = row(512, 2, &by("")).await.unwrap();
    let all: i64 = (1..=1_000_000).sum();
    assert_eq!(found, vec![1_000_000, all * 1_000_000, 1_000_000]);
}

#[tokio::test]
async fn what_a_running_window_holds_is_counted() {
    // All rows are equal in the order, so all of them are in one frame.
    let sql = format!(
        "SELECT count(*), sum(s) FROM (SELECT sum(n) OVER (ORDER BY n / 100000000) AS s FROM {})",
        numbers(1_000_000)
    );
    let error = row(12, 1, &sql).await.unwrap_err();
    assert!(error.contains("a window function does not fit"), "{error}");
    let sum: i64 = (1..=1_000_000).sum();
    assert_eq!(
        row(512, 1, &sql).await.unwrap(),
        vec![1_000_000, sum * 1_000_000]
    );
}

#[tokio::test]
async fn lists_and_constants_do_not_multiply_a_batch() {
    // 8,000 rows of a kilobyte with 2,000 items each, and 20,000 rows with a megabyte in each.
    let lists = format!(
        "SELECT count(*), sum(i), sum(length(t)) FROM (SELECT t, unnest(range(2000)) AS i FROM \
         (SELECT repeat('x', CAST(n * 0 + 1000 AS INT)) AS t FROM {}))",
        numbers(3_000)
    );
    let expected = vec![6_000_000, 3_000 * 1_999_000, 6_000_000_000];
    assert_eq!(row(64, 1, &lists).await.unwrap(), expected);
    let constant = format!(
        "SELECT count(*), sum(CAST(length(t) AS BIGINT)), max(n) FROM (SELECT CASE WHEN n % 2 = 0 THEN h ELSE t END AS t, n \
         FROM (SELECT n, md5(CAST(n AS VARCHAR)) AS h, repeat('x', 1000000) AS t FROM {}))",
        numbers(2_000)
    );
    let expected = vec![2_000, 1_000 * 1_000_032, 2_000];
    assert_eq!(row(64, 1, &constant).await.unwrap(), expected);
}

/// Each operator that reads an input twice or holds an input, with little memory. It must give the right rows,
/// or an error.
#[tokio::test]
async fn every_operator_is_right_or_fails_where_memory_is_short() {
    let n = numbers(300_000);
    let half = numbers(150_000);
    let text = "md5(CAST(n AS VARCHAR))";
    let cases = [
        // Aggregates with one and with two threads.
        (
            format!(
                "SELECT count(*), sum(c) FROM (SELECT {text} AS h, count(*) AS c FROM {n} GROUP BY 1)"
            ),
            vec![300_000, 300_000],
        ),
        // Hash joins: inner, outer, semi and anti joins.
        (
            format!(
                "SELECT count(*), count(b.n) FROM (SELECT n, {text} AS h FROM {n}) a LEFT JOIN \
                 (SELECT n, {text} AS h FROM {half}) b ON a.h = b.h"
            ),
            vec![300_000, 150_000],
        ),
        (
            format!(
                "SELECT count(*), sum(n) FROM (SELECT n, {text} AS h FROM {n}) WHERE h NOT IN \
                 (SELECT {text} FROM {half})"
            ),
            vec![150_000, (150_001..=300_000).sum()],
        ),
        // A cross join.
        (
            format!(
                "SELECT count(*), sum(a.n) FROM {half} a CROSS JOIN {} b",
                numbers(20)
            ),
            vec![3_000_000, 20 * (1..=150_000).sum::<i64>()],
        ),
        // A recursive query that has a join without an equality.
        (
            format!(
                "WITH RECURSIVE r AS (SELECT 1 AS x UNION ALL SELECT r.x + 1 AS x FROM r JOIN {} ON r.x > n - 1 \
                 WHERE r.x < 50 AND n = 1) SELECT count(*), sum(x) FROM r",
                numbers(3)
            ),
            vec![50, 1_275],
        ),
        // Distinct and set operations.
        (
            format!("SELECT count(DISTINCT {text}), count(*) FROM {n}"),
            vec![300_000, 300_000],
        ),
        (
            format!(
                "SELECT count(*), 0 FROM (SELECT {text} AS h FROM {n} EXCEPT SELECT {text} FROM {half})"
            ),
            vec![150_000, 0],
        ),
        // The first rows of an order, few and many.
        (
            format!(
                "SELECT count(*), sum(n) FROM (SELECT n, {text} AS h FROM {n} ORDER BY n DESC LIMIT 10)"
            ),
            vec![10, (299_991..=300_000).sum()],
        ),
        (
            format!(
                "SELECT count(*), sum(n) FROM (SELECT n, {text} AS h FROM {n} ORDER BY n DESC LIMIT 100000)"
            ),
            vec![100_000, (200_001..=300_000).sum()],
        ),
        // A union of a join that holds its rows and a join that does not.
        (
            format!(
                "SELECT count(*), sum(x) FROM (SELECT a.n AS x FROM {} a JOIN {} b ON a.n < b.n UNION ALL SELECT n FROM {n})",
                numbers(1_000),
                numbers(1_000)
            ),
            vec![
                300_000 + 499_500,
                (1..=300_000).sum::<i64>() + (1..=1_000).map(|x| x * (1_000 - x)).sum::<i64>(),
            ],
        ),
    ];
    let mut right = 0;
    for (sql, expected) in &cases {
        for (mib, threads) in [(2, 1), (8, 1), (130, 2), (512, 2)] {
            match row(mib, threads, sql).await {
                Ok(found) => {
                    assert_eq!(&found, expected, "{mib} {threads} {sql}");
                    right += 1;
                }
                Err(error) => {
                    assert!(mib < 512, "{error} {sql}");
                    assert!(
                        error.contains("Resources exhausted"),
                        "{mib} {threads} {sql}: {error}"
                    );
                }
            }
        }
    }
    assert!(right > cases.len() * 2, "{right}");
}
