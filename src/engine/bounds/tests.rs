//! Values that would be large are refused. All other values are the same as without the bounds.

use std::collections::BTreeSet;

use crate::engine::Engine;

use super::*;

/// Functions of one row whose result has at most a few bytes, or is at most a small multiple of their
/// arguments.
const STEADY: &[&str] = &[
    "abs",
    "acos",
    "acosh",
    "array_add",
    "array_any_value",
    "array_avg",
    "array_compact",
    "array_dims",
    "array_distance",
    "array_distinct",
    "array_element",
    "array_except",
    "array_has",
    "array_has_all",
    "array_has_any",
    "array_intersect",
    "array_length",
    "array_max",
    "array_min",
    "array_ndims",
    "array_normalize",
    "array_pop_back",
    "array_pop_front",
    "array_position",
    "array_positions",
    "array_product",
    "array_remove",
    "array_remove_all",
    "array_remove_n",
    "array_reverse",
    "array_scale",
    "array_slice",
    "array_sort",
    "array_subtract",
    "array_sum",
    "arrow_cast",
    "arrow_field",
    "arrow_metadata",
    "arrow_try_cast",
    "arrow_typeof",
    "ascii",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "bit_length",
    "btrim",
    "cardinality",
    "cast_to_type",
    "cbrt",
    "ceil",
    "character_length",
    "chr",
    "coalesce",
    "contains",
    "cos",
    "cosh",
    "cosine_distance",
    "cot",
    "current_date",
    "current_time",
    "date_bin",
    "date_part",
    "date_trunc",
    "decode",
    "degrees",
    "digest",
    "empty",
    "encode",
    "ends_with",
    "exp",
    "factorial",
    "file_row_index",
    "find_in_set",
    "flatten",
    "floor",
    "from_unixtime",
    "gcd",
    "get_field",
    "greatest",
    "initcap",
    "inner_product",
    "input_file_name",
    "isnan",
    "iszero",
    "lcm",
    "least",
    "left",
    "levenshtein",
    "ln",
    "log",
    "log10",
    "log2",
    "lower",
    "ltrim",
    "make_date",
    "make_time",
    "map_entries",
    "map_extract",
    "map_keys",
    "map_values",
    "md5",
    "named_struct",
    "nanvl",
    "now",
    "nullif",
    "nvl",
    "nvl2",
    "octet_length",
    "pi",
    "power",
    "radians",
    "random",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "regexp_match",
    "reverse",
    "right",
    "round",
    "rtrim",
    "sha224",
    "sha256",
    "sha384",
    "sha512",
    "signum",
    "sin",
    "sinh",
    "split_part",
    "sqrt",
    "starts_with",
    "string_to_array",
    "strpos",
    "struct",
    "substr",
    "substr_index",
    "tan",
    "tanh",
    "to_date",
    "to_hex",
    "to_local_time",
    "to_time",
    "to_timestamp",
    "to_timestamp_micros",
    "to_timestamp_millis",
    "to_timestamp_nanos",
    "to_timestamp_seconds",
    "to_unixtime",
    "translate",
    "trunc",
    "try_cast_to_type",
    "union_extract",
    "union_tag",
    "upper",
    "uuid",
    "version",
    "with_metadata",
    "abs",
    "acos",
    "acosh",
    "array_add",
    "array_any_value",
    "array_avg",
    "array_compact",
    "array_dims",
    "array_distance",
    "array_distinct",
    "array_element",
    "array_except",
    "array_has",
    "array_has_all",
    "array_has_any",
    "array_intersect",
    "array_length",
    "array_max",
    "array_min",
    "array_ndims",
    "array_normalize",
    "array_pop_back",
    "array_pop_front",
    "array_position",
    "array_positions",
    "array_product",
    "array_remove",
    "array_remove_all",
    "array_remove_n",
    "array_reverse",
    "array_scale",
    "array_slice",
    "array_sort",
    "array_subtract",
    "array_sum",
    "arrow_cast",
    "arrow_field",
    "arrow_metadata",
    "arrow_try_cast",
    "arrow_typeof",
    "ascii",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "bit_length",
    "btrim",
    "cardinality",
    "cast_to_type",
    "cbrt",
    "ceil",
    "character_length",
    "chr",
    "coalesce",
    "contains",
    "cos",
    "cosh",
    "cosine_distance",
    "cot",
    "current_date",
    "current_time",
    "date_add",
    "date_bin",
    "date_diff",
    "date_parse",
    "date_part",
    "date_trunc",
    "day",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "decode",
    "degrees",
    "digest",
    "dow",
    "doy",
    "element_at",
    "empty",
    "encode",
    "ends_with",
    "exp",
    "factorial",
    "file_row_index",
    "find_in_set",
    "flatten",
    "floor",
    "from_hex",
    "from_iso8601_date",
    "from_iso8601_timestamp",
    "from_unixtime",
    "from_utf8",
    "gcd",
    "get_field",
    "greatest",
    "hour",
    "initcap",
    "inner_product",
    "input_file_name",
    "is_json_scalar",
    "isnan",
    "iszero",
    "json_array_get",
    "json_array_length",
    "json_extract",
    "json_extract_scalar",
    "json_format",
    "json_items",
    "json_member",
    "json_member_text",
    "json_parse",
    "json_scalar",
    "json_size",
    "last_day_of_month",
    "lcm",
    "least",
    "left",
    "levenshtein",
    "ln",
    "log",
    "log10",
    "log2",
    "lower",
    "ltrim",
    "make_date",
    "make_time",
    "map_entries",
    "map_extract",
    "map_keys",
    "map_values",
    "md5",
    "millisecond",
    "minute",
    "month",
    "named_struct",
    "nanvl",
    "now",
    "nullif",
    "nvl",
    "nvl2",
    "octet_length",
    "parse_datetime",
    "pi",
    "power",
    "quarter",
    "radians",
    "random",
    "regexp_count",
    "regexp_extract",
    "regexp_extract_all",
    "regexp_instr",
    "regexp_like",
    "regexp_match",
    "reverse",
    "right",
    "round",
    "rtrim",
    "second",
    "sha224",
    "sha256",
    "sha384",
    "sha512",
    "sign",
    "signum",
    "sin",
    "sinh",
    "split",
    "split_part",
    "sqrt",
    "starts_with",
    "string_to_array",
    "strpos",
    "struct",
    "substr",
    "substr_index",
    "tan",
    "tanh",
    "to_date",
    "to_hex",
    "to_iso8601",
    "to_local_time",
    "to_time",
    "to_timestamp",
    "to_timestamp_micros",
    "to_timestamp_millis",
    "to_timestamp_nanos",
    "to_timestamp_seconds",
    "to_unixtime",
    "to_utf8",
    "translate",
    "trunc",
    "try_cast_to_type",
    "try_date_parse",
    "try_from_iso8601_date",
    "try_from_iso8601_timestamp",
    "try_parse_datetime",
    "union_extract",
    "union_tag",
    "upper",
    "url_decode",
    "url_encode",
    "url_extract_fragment",
    "url_extract_host",
    "url_extract_parameter",
    "url_extract_path",
    "url_extract_port",
    "url_extract_protocol",
    "url_extract_query",
    "uuid",
    "version",
    "week",
    "week_of_year",
    "with_metadata",
    "year",
    "year_of_week",
    "yow",
];

/// If a function is added, here or by a new version of DataFusion, its growth must be declared.
#[test]
fn the_size_of_every_functions_result_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::new(64 << 20, 1, folder.path()).unwrap();
    let state = engine.session().state();
    let functions = state.scalar_functions().values();
    let known: BTreeSet<&str> = STEADY
        .iter()
        .copied()
        .chain(GROWING.iter().map(|(name, _)| *name))
        .collect();
    let there: BTreeSet<&str> = functions.map(|function| function.name()).collect();
    let unknown: Vec<&&str> = there.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let gone: Vec<&&str> = known.difference(&there).collect();
    assert!(gone.is_empty(), "{gone:?}");
}

async fn run(sql: &str) -> Result<usize, String> {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::new(192 << 20, 1, folder.path()).unwrap();
    let made = async {
        let made = engine.session().sql(sql).await?.collect().await?;
        Ok::<_, DataFusionError>(made.iter().map(|batch| batch.num_rows()).sum())
    };
    made.await.map_err(|error| error.strip_backtrace())
}

#[tokio::test]
async fn a_value_that_would_be_large_is_refused_before_it_is_made() {
    let n = "FROM (SELECT value AS n, CAST(value AS VARCHAR) AS t FROM generate_series(1, 1))";
    for (expression, function) in [
        ("repeat('x', 1000000000)", "repeat()"),
        ("repeat(t, 1000000000)", "repeat()"),
        ("repeat(t, n * 1000000000)", "repeat()"),
        ("lpad(t, 2000000000)", "lpad()"),
        ("rpad(t, 2000000000, 'xy')", "rpad()"),
        ("length(rpad('', 2000000000))", "rpad()"),
        ("range(1000000000)", "range()"),
        ("range(0, n * 1000000000, 2)", "range()"),
        ("generate_series(n, 1000000000)", "generate_series()"),
        (
            "generate_series(DATE '1900-01-01', DATE '2100-01-01', INTERVAL '1 nanosecond')",
            "generate_series()",
        ),
        (
            "generate_series(TIMESTAMP '1900-01-01', TIMESTAMP '2100-01-01', INTERVAL '1 second')",
            "generate_series()",
        ),
        ("array_repeat(n, 1000000000)", "array_repeat()"),
        (
            "array_repeat(array_repeat(n, 100000), 100000)",
            "array_repeat()",
        ),
        ("array_resize(make_array(n), 1000000000)", "array_resize()"),
        (
            "replace(repeat(t, 60000), t, repeat('y', 15000))",
            "replace()",
        ),
        (
            "replace(repeat(t, 60000), '', repeat('y', 15000))",
            "replace()",
        ),
        (
            "regexp_replace(repeat(t, 60000), '.', repeat('y', 15000), 'g')",
            "regexp_replace()",
        ),
        (
            "concat(repeat(t, 30000000), repeat(t, 50000000))",
            "concat()",
        ),
        (
            "concat_ws(repeat(t, 30000000), t, t, t, t, t)",
            "concat_ws()",
        ),
        ("repeat(t, 30000000) || repeat(t, 50000000)", "||"),
        (
            "array_to_string(array_repeat(n, 60000), repeat('y', 15000))",
            "array_to_string()",
        ),
        (
            "to_char(DATE '2024-01-01', repeat('%c', CAST(n AS INT) * 6000000))",
            "to_char()",
        ),
        (
            "array_concat(array_repeat(n, 5000000), array_repeat(n, 5000000))",
            "array_concat()",
        ),
    ] {
        let error = run(&format!("SELECT {expression} AS x {n}"))
            .await
            .unwrap_err();
        assert!(
            error.contains(&format!("`{function}` would give a")) && error.contains("is the limit"),
            "{expression}: {error}"
        );
    }
    // The text is doubled thirty times.
    let mut doubled =
        "WITH d0 AS (SELECT CAST(value AS VARCHAR) AS x FROM generate_series(1, 3))".to_owned();
    for n in 1..=30 {
        doubled += &format!(", d{n} AS (SELECT x || x AS x FROM d{})", n - 1);
    }
    doubled += " SELECT x FROM d30";
    let error = run(&doubled).await.unwrap_err();
    assert!(error.contains("`||` would give"), "{error}");
}

#[tokio::test]
async fn values_that_are_large_together_are_refused_too() {
    let n = "FROM (SELECT value AS n, CAST(value AS VARCHAR) AS t FROM generate_series(1, 8000))";
    for expression in [
        "repeat(t, 10000000)",
        "range(n * 1000)",
        "rpad(t, 60000000)",
        "array_repeat(t, 1000000)",
    ] {
        let error = run(&format!("SELECT {expression} AS x {n}"))
            .await
            .unwrap_err();
        assert!(error.contains("8000 values of"), "{expression}: {error}");
    }
    // An estimate that is too large for all rows together is not an error.
    for expression in [
        "regexp_replace(rpad(t, 2000, 'ab'), 'zzz', '1234567890', 'g')",
        "replace(rpad(t, 2000, 'ab'), 'z', '1234567890')",
        "to_char(DATE '2024-01-01' + CAST(n AS INT), rpad('%Y', 900, '.'))",
    ] {
        let found = run(&format!("SELECT length({expression}) AS x {n}")).await;
        assert_eq!(found, Ok(8_000), "{expression}");
    }
}

#[tokio::test]
async fn what_is_wrapped_gives_what_it_gave() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::new(192 << 20, 1, folder.path()).unwrap();
    let plain = datafusion::prelude::SessionContext::new();
    let n = "FROM (SELECT value AS n, CASE WHEN value % 3 = 0 THEN NULL ELSE CAST(value AS VARCHAR) END AS t \
             FROM generate_series(1, 20))";
    for expression in [
        "t || '-' || n",
        "'a' || NULL",
        "n || t",
        "concat(t, NULL, n)",
        "concat_ws(t, 'a', NULL, 'b', n)",
        "lpad(t, 5), rpad(t, n, 'xy'), lpad('abc', 2), rpad(t, -1)",
        "repeat(t, n), repeat('ab', 3), repeat(t, -2), repeat(NULL, 3)",
        "replace(t, '1', 'one'), replace(t, '', 'x'), replace(t, t, '')",
        "regexp_replace(t, '([0-9])', '<\\1>', 'g'), regexp_replace('aa', 'a', 'b')",
        "range(n), range(2, n, 3), range(5, 1, -2), generate_series(1, n), range(NULL)",
        "generate_series(DATE '2024-01-31', DATE '2024-05-31', INTERVAL '1 month')",
        "array_repeat(t, n), array_repeat(make_array(n, 2), 2), array_resize(make_array(n), 3, 7)",
        "array_to_string(make_array(n, NULL, 3), ', ', '-'), array_append(make_array(n), 2)",
        "array_concat(make_array(n), make_array(1)), make_array(n) || make_array(2), [n, 1]",
        "to_char(DATE '2024-01-01' + CAST(n AS INT), '%A %d')",
        "overlay(t PLACING 'zz' FROM 1 FOR 1), map(make_array('a'), make_array(n))",
        "array_replace_all(make_array(n, 2), 2, 5), array_union(make_array(n), make_array(1))",
    ] {
        let sql = format!("SELECT n, {expression} {n}");
        let made = engine
            .session()
            .sql(&sql)
            .await
            .unwrap()
            .collect()
            .await
            .unwrap();
        let expected = plain.sql(&sql).await.unwrap().collect().await.unwrap();
        let shown = |batches: &[arrow::record_batch::RecordBatch]| {
            let text = arrow::util::pretty::pretty_format_batches(batches)
                .unwrap()
                .to_string();
            text.lines().skip(3).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(shown(&made), shown(&expected), "{expression}");
    }
}

#[tokio::test]
async fn an_aggregate_that_would_be_large_is_refused_while_rows_come() {
    // 800 texts of 100,000 bytes are 80 MB; half of them are within the limit.
    let texts = |rows: u32| {
        format!(
            "(SELECT value AS n, value % 2 AS g, repeat('x', 99999 + CAST(value % 2 AS INT)) AS t \
             FROM generate_series(1, {rows}) WHERE repeat('y', 5) IS NOT NULL)"
        )
    };
    for (select, function) in [
        ("SELECT string_agg(t, ',') AS x FROM", "string_agg()"),
        (
            "SELECT string_agg(t, ',' ORDER BY n) AS x FROM",
            "string_agg()",
        ),
        (
            "SELECT string_agg('', repeat('-', 100000)) AS x FROM",
            "string_agg()",
        ),
        ("SELECT array_agg(t) AS x FROM", "array_agg()"),
        (
            "SELECT array_agg(t ORDER BY n DESC) AS x FROM",
            "array_agg()",
        ),
        ("SELECT array_agg(DISTINCT t || n) AS x FROM", "array_agg()"),
        (
            "SELECT n % 1 AS g, string_agg(t, ',') AS x FROM",
            "string_agg()",
        ),
        ("SELECT n % 1 AS g, array_agg(t) AS x FROM", "array_agg()"),
        (
            "SELECT sum(length(x)) AS x FROM (SELECT string_agg(t, '') OVER (ORDER BY n) AS x FROM",
            "string_agg()",
        ),
    ] {
        let behind = match select {
            _ if select.contains("AS g") => " GROUP BY n % 1",
            _ if select.contains("OVER") => ")",
            _ => "",
        };
        let sql = |rows| format!("{select} {} q{behind}", texts(rows));
        let error = run_in_parts(&sql(800)).await.unwrap_err();
        assert!(
            error.contains(&format!("`{function}` would give "))
                && error.contains(" MB is the limit"),
            "{select}: {error}"
        );
        if !select.contains("OVER") {
            assert_eq!(run_in_parts(&sql(400)).await, Ok(1), "{select}");
        }
    }
    // Equal values of DISTINCT are one, and many small groups are no large value.
    let sql = format!("SELECT array_agg(DISTINCT t) AS x FROM {}", texts(800));
    assert_eq!(run_in_parts(&sql).await, Ok(1));
    let sql = format!(
        "SELECT n, string_agg(t, ',') AS x FROM {} GROUP BY n",
        texts(800)
    );
    assert_eq!(run_in_parts(&sql).await, Ok(800));
}

/// The number of rows of a query, in batches of a hundred, or its error.
async fn run_in_parts(sql: &str) -> Result<usize, String> {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::new(768 << 20, 1, folder.path()).unwrap();
    let session = engine.session();
    let small = "SET datafusion.execution.batch_size = 100";
    session.sql(small).await.unwrap().collect().await.unwrap();
    let rows = async { session.sql(sql).await?.collect().await };
    let rows = rows.await.map_err(|error| error.to_string())?;
    Ok(rows.iter().map(|batch| batch.num_rows()).sum())
}
