//! The answers that are Trino's and not the engine's own, construct by construct.

use arrow::array::{
    ArrayRef, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::util::display::array_value_to_string;
use datafusion::datasource::MemTable;
use datafusion::physical_plan::collect;

use super::*;

/// Four rows. `k` is 1 to 4, and the last value of every other column is NULL.
fn rows() -> RecordBatch {
    let at = TimestampMillisecondArray::from(vec![
        // 00:30 on 6 May 2024 in Seoul, the day before in UTC.
        Some(1_714_923_000_000),
        Some(1_714_953_600_000),
        Some(0),
        None,
    ]);
    RecordBatch::try_from_iter(vec![
        (
            "k",
            Arc::new(Int64Array::from(vec![1, 2, 3, 4])) as ArrayRef,
        ),
        (
            "g",
            Arc::new(StringArray::from(vec!["a", "a", "b", "c"])) as ArrayRef,
        ),
        (
            "n",
            Arc::new(Int64Array::from(vec![
                Some(i64::MAX),
                Some(1),
                Some(-7),
                None,
            ])) as ArrayRef,
        ),
        (
            "i",
            Arc::new(Int32Array::from(vec![
                Some(i32::MIN),
                Some(2),
                Some(5),
                None,
            ])) as ArrayRef,
        ),
        (
            "d",
            Arc::new(Float64Array::from(vec![
                Some(2.5),
                Some(-2.5),
                Some(0.0),
                None,
            ])) as ArrayRef,
        ),
        (
            "f",
            Arc::new(Float32Array::from(vec![
                Some(2.5),
                Some(-3.5),
                Some(0.0),
                None,
            ])) as ArrayRef,
        ),
        (
            "m",
            Arc::new(
                Decimal128Array::from(vec![Some(250), Some(-150), Some(200), None])
                    .with_precision_and_scale(12, 2)
                    .unwrap(),
            ) as ArrayRef,
        ),
        (
            "w",
            Arc::new(
                Decimal128Array::from(vec![
                    Some(10_i128.pow(38) - 1),
                    Some(10_i128.pow(38) - 1),
                    Some(3),
                    None,
                ])
                .with_precision_and_scale(38, 0)
                .unwrap(),
            ) as ArrayRef,
        ),
        (
            "s",
            Arc::new(StringArray::from(vec![
                Some("10"),
                Some("9"),
                Some("x"),
                None,
            ])) as ArrayRef,
        ),
        ("at", Arc::new(at.with_timezone("UTC")) as ArrayRef),
        (
            "day",
            Arc::new(Date32Array::from(vec![
                Some(0),
                Some(1),
                Some(19_000),
                None,
            ])) as ArrayRef,
        ),
    ])
    .unwrap()
}

/// The only column of a SELECT over `t`, with its values as text and `NULL` for NULL.
async fn values(sql: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for threads in [1, 3] {
        let config = SessionConfig::new().with_target_partitions(threads);
        let session = session(state(config, Arc::new(RuntimeEnv::default())).build());
        let table = MemTable::try_new(rows().schema(), vec![vec![rows()]])?;
        session.register_table("t", Arc::new(table))?;
        let state = session.state();
        let plan = lawful(&state, state.create_logical_plan(sql).await?)?;
        let named: Vec<_> = plan.schema().fields().iter().cloned().collect();
        let plan = physical(&state, plan).await?;
        // The schema of the plan is the schema of the rows.
        let made: Vec<_> = plan.schema().fields().iter().cloned().collect();
        for (named, made) in named.iter().zip(&made) {
            assert_eq!(named.data_type(), made.data_type(), "{sql}");
        }
        let mut values = Vec::new();
        for batch in collect(plan, session.task_ctx()).await? {
            for row in 0..batch.num_rows() {
                let column = batch.column(0);
                values.push(match column.is_null(row) {
                    true => "NULL".to_owned(),
                    false => array_value_to_string(column, row)?,
                });
            }
        }
        found.push(values);
    }
    assert_eq!(found[0], found[1], "{sql}: the threads show");
    Ok(found.remove(0))
}

async fn gives(sql: &str, expected: &[&str]) {
    match values(sql).await {
        Ok(values) => assert_eq!(values, expected, "{sql}"),
        Err(error) => panic!("{sql}: {}", error.strip_backtrace()),
    }
}

async fn fails(sql: &str, part: &str) {
    match values(sql).await {
        Ok(values) => panic!("{sql} gives {values:?}"),
        Err(error) => assert!(
            error
                .strip_backtrace()
                .to_lowercase()
                .contains(&part.to_lowercase()),
            "{sql}: {}",
            error.strip_backtrace()
        ),
    }
}

#[tokio::test]
async fn integers_that_overflow_are_errors() {
    for sql in [
        "SELECT n + 1 FROM t",
        "SELECT 1 + n FROM t",
        "SELECT n * 2 FROM t",
        "SELECT -n - 2 FROM t",
        "SELECT i - CAST(1 AS INT) FROM t",
        "SELECT -i FROM t",
        "SELECT CAST(-i AS DOUBLE) FROM t",
        "SELECT abs(i) FROM t",
        "SELECT 9223372036854775807 + 1 FROM t",
        "SELECT 4611686018427387904 * 2 FROM t",
        "SELECT k FROM t WHERE n + 1 > 0",
        "SELECT a.k FROM t a JOIN t b ON a.n + 1 = b.n",
        "SELECT max(n + 1) FROM t",
        "SELECT CASE WHEN k < 3 THEN n + 1 ELSE 0 END FROM t",
        "SELECT (-9223372036854775807 - 1) / -1 FROM t",
        "SELECT CAST(n AS INT) FROM t",
        "SELECT CAST(4000000000 AS INT) FROM t",
    ] {
        let error = values(sql).await.map_err(|error| error.strip_backtrace());
        assert!(
            error
                .as_ref()
                .is_err_and(|error| error.to_lowercase().contains("overflow")
                    || error.contains("Can't cast")),
            "{sql}: {error:?}"
        );
    }
    for sql in [
        "SELECT sum(n) FROM t WHERE k < 3",
        "SELECT sum(n) FROM t GROUP BY g",
        "SELECT sum(DISTINCT n) FROM t WHERE n > 0",
        "SELECT sum(n) OVER (ORDER BY k) FROM t",
        "SELECT sum(n) OVER (ORDER BY k ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t",
        "SELECT sum(n) FILTER (WHERE k < 3) FROM t",
    ] {
        fails(sql, "does not fit bigint").await;
    }
    // A sum on the way is never too large if the whole sum is not.
    gives(
        "SELECT sum(x) FROM (VALUES (9223372036854775807), (1), (-8)) AS v (x)",
        &["9223372036854775800"],
    )
    .await;
    gives(
        "SELECT n - 1 FROM t ORDER BY k",
        &["9223372036854775806", "0", "-8", "NULL"],
    )
    .await;
    gives("SELECT sum(i) FROM t", &["-2147483641"]).await;
    gives(
        "SELECT sum(n) FROM t WHERE k > 1 GROUP BY g ORDER BY g",
        &["1", "-7", "NULL"],
    )
    .await;
    gives("SELECT sum(n) FROM t WHERE false", &["NULL"]).await;
    gives(
        "SELECT sum(k) OVER (ORDER BY k ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t",
        &["1", "3", "5", "7"],
    )
    .await;
    gives("SELECT sum(DISTINCT k % 2) FROM t", &["1"]).await;
}

#[tokio::test]
async fn decimals_have_trinos_types_and_are_rounded_or_errors() {
    for (sql, expected) in [
        (
            "SELECT m / 3 FROM t ORDER BY k",
            ["0.83", "-0.50", "0.67", "NULL"],
        ),
        (
            "SELECT m / CAST(0.4 AS DECIMAL(3, 1)) FROM t ORDER BY k",
            ["6.25", "-3.75", "5.00", "NULL"],
        ),
        (
            "SELECT m * m FROM t ORDER BY k",
            ["6.2500", "2.2500", "4.0000", "NULL"],
        ),
        (
            "SELECT m + 1 FROM t ORDER BY k",
            ["3.50", "-0.50", "3.00", "NULL"],
        ),
        (
            "SELECT m * 1.50 FROM t ORDER BY k",
            ["3.7500", "-2.2500", "3.0000", "NULL"],
        ),
        (
            "SELECT CASE WHEN k = 2 THEN 0.0 ELSE m END FROM t ORDER BY k",
            ["2.50", "0.00", "2.00", "NULL"],
        ),
        (
            "SELECT CASE WHEN k = 2 THEN d ELSE m END FROM t ORDER BY k",
            ["2.5", "-2.5", "2.0", "NULL"],
        ),
        (
            "SELECT coalesce(m, 0.125) FROM t ORDER BY k",
            ["2.500", "-1.500", "2.000", "0.125"],
        ),
        (
            "SELECT -m FROM t ORDER BY k",
            ["-2.50", "1.50", "-2.00", "NULL"],
        ),
    ] {
        gives(sql, &expected).await;
    }
    gives(
        "SELECT arrow_typeof(m / 3) FROM t LIMIT 1",
        &["Decimal128(12, 2)"],
    )
    .await;
    gives(
        "SELECT arrow_typeof(m * m) FROM t LIMIT 1",
        &["Decimal128(24, 4)"],
    )
    .await;
    gives("SELECT arrow_typeof(sum(m)) FROM t", &["Decimal128(38, 2)"]).await;
    gives("SELECT arrow_typeof(avg(m)) FROM t", &["Decimal128(12, 2)"]).await;
    gives("SELECT sum(m) FROM t", &["3.00"]).await;
    gives("SELECT avg(m) FROM t", &["1.00"]).await;
    gives("SELECT avg(m) FROM t WHERE k <> 1", &["0.25"]).await;
    gives(
        "SELECT avg(DISTINCT m) FROM (SELECT m FROM t UNION ALL SELECT m FROM t) u",
        &["1.00"],
    )
    .await;
    gives(
        "SELECT avg(m) FROM t GROUP BY g ORDER BY g",
        &["0.50", "2.00", "NULL"],
    )
    .await;
    gives(
        "SELECT avg(m) OVER (ORDER BY k ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t",
        &["2.50", "0.50", "0.25", "2.00"],
    )
    .await;
    gives("SELECT m FROM t WHERE m = 2.5", &["2.50"]).await;
    gives("SELECT k FROM t WHERE m > d ORDER BY k", &["2", "3"]).await;
    fails("SELECT w + 1 FROM t", "does not fit decimal(38, 0)").await;
    fails("SELECT w * 2 FROM t", "overflow").await;
    fails("SELECT sum(w) FROM t", "does not fit decimal(38, 0)").await;
    fails(
        "SELECT w / CAST(0.5 AS DECIMAL(2, 1)) FROM t",
        "more than 38 digits",
    )
    .await;
    fails("SELECT m / 0 FROM t", "divide by zero").await;
    let nines = "9".repeat(38);
    gives("SELECT avg(w) FROM t WHERE k < 3", &[&nines]).await;
}

#[tokio::test]
async fn casts_to_integers_round_half_away_from_zero() {
    for (sql, expected) in [
        (
            "SELECT CAST(d AS BIGINT) FROM t ORDER BY k",
            ["3", "-3", "0", "NULL"],
        ),
        (
            "SELECT CAST(f AS INT) FROM t ORDER BY k",
            ["3", "-4", "0", "NULL"],
        ),
        (
            "SELECT CAST(m AS BIGINT) FROM t ORDER BY k",
            ["3", "-2", "2", "NULL"],
        ),
        (
            "SELECT TRY_CAST(d AS SMALLINT) FROM t ORDER BY k",
            ["3", "-3", "0", "NULL"],
        ),
        (
            "SELECT CAST(d / 0.7 AS BIGINT) FROM t ORDER BY k",
            ["4", "-4", "0", "NULL"],
        ),
        ("SELECT d::INT FROM t ORDER BY k", ["3", "-3", "0", "NULL"]),
    ] {
        gives(sql, &expected).await;
    }
    gives("SELECT CAST(0.5 AS INT)", &["1"]).await;
    gives(
        "SELECT CAST(m AS DECIMAL(12, 0)) FROM t ORDER BY k",
        &["3", "-2", "2", "NULL"],
    )
    .await;
    gives("SELECT CAST(0.125 AS DECIMAL(3, 2))", &["0.13"]).await;
    gives("SELECT CAST('-0.125' AS DECIMAL(3, 2))", &["-0.13"]).await;
    gives(
        "SELECT floor(n) FROM t WHERE k = 1",
        &["9223372036854775807"],
    )
    .await;
    gives(
        "SELECT ceil(n) FROM t WHERE k = 1",
        &["9223372036854775807"],
    )
    .await;
    gives(
        "SELECT round(n) FROM t WHERE k = 1",
        &["9223372036854775807"],
    )
    .await;
    gives(
        "SELECT round(d) FROM t ORDER BY k",
        &["3.0", "-3.0", "0.0", "NULL"],
    )
    .await;
    gives("SELECT CAST(0.49999999999999994 AS INT)", &["0"]).await;
    gives("SELECT CAST(CAST(9.99 AS DECIMAL(3, 2)) AS INT)", &["10"]).await;
    for sql in [
        "SELECT CAST(CAST('NaN' AS DOUBLE) AS BIGINT)",
        "SELECT CAST(1e19 AS BIGINT)",
        "SELECT CAST(9223372036854775807.0 AS BIGINT)",
        "SELECT CAST(2147483647.5 AS INT)",
        "SELECT CAST(w AS BIGINT) FROM t",
        "SELECT CAST(s AS BIGINT) FROM t",
        "SELECT CAST('7.0' AS BIGINT)",
        "SELECT CAST(CAST(12345 AS DECIMAL(10, 0)) AS DECIMAL(3, 0))",
        "SELECT CAST(m AS DECIMAL(2, 2)) FROM t",
        "SELECT CAST(1234 AS DECIMAL(3, 0))",
        "SELECT CAST(1234.5 AS DECIMAL(4, 1))",
        "SELECT CAST(CAST('NaN' AS DOUBLE) AS DECIMAL(10, 2))",
    ] {
        assert!(values(sql).await.is_err(), "{sql}");
    }
}

#[tokio::test]
async fn division() {
    gives("SELECT 2 / 7", &["0"]).await;
    gives("SELECT -7 / 2", &["-3"]).await;
    gives("SELECT -7 % 2", &["-1"]).await;
    gives("SELECT 1.0 / 0", &["inf"]).await;
    gives(
        "SELECT d / 0 FROM t ORDER BY k",
        &["inf", "-inf", "NaN", "NULL"],
    )
    .await;
    gives("SELECT arrow_typeof(k / 2) FROM t LIMIT 1", &["Int64"]).await;
    fails("SELECT k / 0 FROM t", "divide by zero").await;
    fails("SELECT 1 / 0 FROM t", "divide by zero").await;
    fails("SELECT k % 0 FROM t", "divide by zero").await;
    gives(
        "SELECT CASE WHEN k = 1 THEN 0 ELSE 6 / (k - 1) END FROM t ORDER BY k",
        &["0", "6", "3", "2"],
    )
    .await;
}

#[tokio::test]
async fn nulls_are_last_in_either_direction() {
    for (sql, expected) in [
        (
            "SELECT n FROM t ORDER BY n",
            vec!["-7", "1", "9223372036854775807", "NULL"],
        ),
        (
            "SELECT n FROM t ORDER BY n DESC",
            vec!["9223372036854775807", "1", "-7", "NULL"],
        ),
        (
            "SELECT n FROM t ORDER BY n DESC NULLS FIRST LIMIT 1",
            vec!["NULL"],
        ),
        ("SELECT k FROM t ORDER BY n DESC LIMIT 1", vec!["1"]),
        (
            "SELECT first_value(n ORDER BY d DESC) FROM t",
            vec!["9223372036854775807"],
        ),
        ("SELECT last_value(k ORDER BY d DESC) FROM t", vec!["4"]),
        (
            "SELECT array_agg(k ORDER BY d DESC) FROM t",
            vec!["[1, 3, 2, 4]"],
        ),
        (
            "SELECT string_agg(g, ',' ORDER BY d DESC) FROM t",
            vec!["a,b,a,c"],
        ),
        (
            "SELECT row_number() OVER (ORDER BY d DESC) FROM t ORDER BY k",
            vec!["1", "3", "2", "4"],
        ),
        (
            "SELECT rank() OVER (ORDER BY d DESC, k) FROM t ORDER BY k",
            vec!["1", "3", "2", "4"],
        ),
        (
            "SELECT ntile(2) OVER (ORDER BY d DESC) FROM t ORDER BY k",
            vec!["1", "2", "1", "2"],
        ),
        (
            "SELECT first_value(k) OVER (ORDER BY d DESC) FROM t",
            vec!["1", "1", "1", "1"],
        ),
        (
            "SELECT lead(k) OVER (ORDER BY d DESC) FROM t ORDER BY k",
            vec!["3", "4", "2", "NULL"],
        ),
        (
            "SELECT max(d) FROM t GROUP BY g ORDER BY max(d) DESC LIMIT 3",
            vec!["2.5", "0.0", "NULL"],
        ),
        (
            "SELECT DISTINCT ON (g) k FROM t ORDER BY g, n DESC",
            vec!["1", "3", "4"],
        ),
        (
            "SELECT k FROM t QUALIFY row_number() OVER (ORDER BY n DESC) = 1",
            vec!["1"],
        ),
        (
            "SELECT array_sort(make_array(2, NULL, 1))",
            vec!["[1, 2, ]"],
        ),
    ] {
        gives(sql, &expected).await;
    }
}

#[tokio::test]
async fn a_time_in_a_zone_is_its_wall_clock() {
    for (sql, expected) in [
        (
            "SELECT CAST(at AT TIME ZONE 'Asia/Seoul' AS TIMESTAMP) FROM t WHERE k = 1",
            "2024-05-06T00:30:00",
        ),
        (
            "SELECT CAST(at AT TIME ZONE 'Asia/Seoul' AS DATE) FROM t WHERE k = 1",
            "2024-05-06",
        ),
        (
            "SELECT date_part('hour', at AT TIME ZONE 'Asia/Seoul') FROM t WHERE k = 1",
            "0",
        ),
        (
            "SELECT CAST(date_trunc('day', at AT TIME ZONE 'Asia/Seoul') AS TIMESTAMP) FROM t WHERE k = 1",
            "2024-05-06T00:00:00",
        ),
        (
            "SELECT CAST(at AT TIME ZONE 'America/New_York' AS TIMESTAMP) FROM t WHERE k = 1",
            "2024-05-05T11:30:00",
        ),
        (
            "SELECT CAST(at AT TIME ZONE 'UTC' AS TIMESTAMP) FROM t WHERE k = 1",
            "2024-05-05T15:30:00",
        ),
        (
            "SELECT CAST(at AS TIMESTAMP) FROM t WHERE k = 1",
            "2024-05-05T15:30:00",
        ),
        ("SELECT date_part('hour', at) FROM t WHERE k = 1", "15"),
        (
            "SELECT CAST(DATE '9999-12-31' AS TIMESTAMP)",
            "9999-12-31T00:00:00",
        ),
        ("SELECT count(*) FROM t WHERE DATE '9999-12-31' > at", "3"),
        (
            "SELECT count(*) FROM t WHERE at < TIMESTAMP '9999-12-31 00:00:00'",
            "3",
        ),
        (
            "SELECT CAST(max(CASE WHEN k = 1 THEN at ELSE DATE '9999-12-31' END) AS DATE) FROM t",
            "9999-12-31",
        ),
        // A time without a zone is in UTC.
        (
            "SELECT CAST(CAST(at AS TIMESTAMP) AT TIME ZONE 'Asia/Seoul' AS TIMESTAMP) FROM t WHERE k = 1",
            "2024-05-06T00:30:00",
        ),
        (
            "SELECT CAST(TIMESTAMP '2024-05-05 15:30:00' AT TIME ZONE 'Asia/Seoul' AS TIMESTAMP)",
            "2024-05-06T00:30:00",
        ),
        (
            "SELECT count(*) FROM t WHERE at AT TIME ZONE 'Asia/Seoul' >= '2024-05-06 00:00:00'",
            "2",
        ),
        (
            "SELECT count(*) FROM t WHERE at AT TIME ZONE 'Asia/Seoul' >= TIMESTAMP '2024-05-06 00:00:00'",
            "2",
        ),
        (
            "SELECT count(*) FROM t WHERE CAST(at AT TIME ZONE 'Asia/Seoul' AS TIMESTAMP) >= TIMESTAMP '2024-05-06 00:00:00'",
            "2",
        ),
    ] {
        gives(sql, &[expected]).await;
    }
}

#[tokio::test]
async fn counts_and_ranks_are_signed() {
    gives("SELECT row_number() OVER (ORDER BY k DESC) - row_number() OVER (ORDER BY k) FROM t ORDER BY k", &["3", "1", "-1", "-3"]).await;
    gives(
        "SELECT arrow_typeof(rank() OVER (ORDER BY k)) FROM t LIMIT 1",
        &["Int64"],
    )
    .await;
    gives(
        "SELECT arrow_typeof(rank() OVER (ORDER BY k) - 1) FROM t LIMIT 1",
        &["Int64"],
    )
    .await;
    gives(
        "SELECT arrow_typeof(cardinality(make_array(1, 2)) - 3)",
        &["Int64"],
    )
    .await;
    gives(
        "SELECT arrow_typeof(approx_distinct(k) - 9) FROM t",
        &["Int64"],
    )
    .await;
}
