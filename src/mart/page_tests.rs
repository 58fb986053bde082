//! Every function of `fixtures/sql/functions.toml` has the value that the file says.

use std::collections::BTreeSet;
use std::path::PathBuf;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use serde::Deserialize;

use super::{MartError, Query, answer};
use crate::engine::Engine;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Functions {
    function: Vec<Function>,
}

/// One function; see the head of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Function {
    group: String,
    name: String,
    example: String,
    gives: String,
    duckdb: Option<String>,
    athena: Option<String>,
    says: Option<String>,
}

/// The page `docs/sql.md`.
fn page(functions: &[Function]) -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    let code = |text: &str| match text {
        "" => "none".to_owned(),
        text => format!("`{}`", cell(text)),
    };
    let mut page = String::from(PAGE);
    let mut group = "";
    for function in functions {
        if function.group != group {
            group = &function.group;
            page.push_str(&format!("\n### {group}\n\n"));
            page.push_str(
                "| function | example | value | in DuckDB | in Athena |\n|---|---|---|---|---|\n",
            );
        }
        let other = |other: &Option<String>| match other {
            None => "the same".to_owned(),
            Some(other) => code(other),
        };
        let value = match function.gives.as_str() {
            "NULL" => "NULL".to_owned(),
            value => code(value),
        };
        page.push_str(&format!(
            "| {} | {} | {value} | {} | {} |\n",
            code(&function.name),
            code(&function.example),
            other(&function.duckdb),
            other(&function.athena),
        ));
    }
    page.push_str("\n### Notes on functions\n\n");
    for function in functions {
        if let Some(says) = &function.says {
            page.push_str(&format!("- `{}`: {says}\n", function.name));
        }
    }
    page.push_str(DIFFERING);
    for construct in super::differs::DIFFERENCES {
        page.push_str(&format!(
            "| {} | {} | {} | {} |\n",
            code(construct.what),
            cell(construct.athena),
            cell(construct.duckdb),
            code(construct.portable)
        ));
    }
    page
}

const PAGE: &str = "\
# The SQL of marts

This page lists the functions that a mart, the key of a rule and `rawmart query` may use, and what Athena and DuckDB
answer differently. A test makes this page from `fixtures/sql/functions.toml` and evaluates every example.
[marts.md](marts.md) has the grammar and the answers of operators and types.

## Functions

`the same` means that the other program reads the example as it is. Other functions that both Athena and DuckDB have
may work too. A function that is not possible is refused with its line and the spelling that works.
";

const DIFFERING: &str = "
## What Athena and DuckDB answer differently

A mart gives Athena's answer. `rawmart plan` lists the constructs of this table that a mart uses, each once with its line,
and `rawmart run` lists them when the mart is built for the first time or with a new SQL. In a lake whose time zone is not
UTC, both also note where a mart takes the date or the hour of a time without `AT TIME ZONE`.

| construct | in Athena and here | in DuckDB | both read |
|---|---|---|---|
";

fn functions() -> Vec<Function> {
    let text = include_str!("../../fixtures/sql/functions.toml");
    toml::from_str::<Functions>(text).unwrap().function
}

#[test]
fn the_page_of_the_sql_is_made_of_its_functions() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/sql.md");
    let page = page(&functions());
    if std::fs::read_to_string(&path).ok().as_ref() != Some(&page) {
        std::fs::write(&path, page).unwrap();
        panic!("docs/sql.md was another page: it has been made again, and must be committed");
    }
}

fn engine() -> (tempfile::TempDir, Engine) {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::new(64 << 20, 1, folder.path()).unwrap();
    (folder, engine)
}

/// The rows of a query as text: values with commas between them, rows with semicolons.
async fn rows(engine: &Engine, sql: &str) -> Result<String, MartError> {
    let query = Query::new(PathBuf::from("query"), sql.to_owned(), &BTreeSet::new())?;
    let (_, rows) = answer(engine, &query, &[]).await?;
    let batches: Vec<_> = rows
        .try_collect()
        .await
        .map_err(|error| MartError::running(query.mart(), &error))?;
    let options = FormatOptions::default().with_null("NULL");
    let mut found = Vec::new();
    for batch in &batches {
        let columns = batch.columns().iter();
        let columns: Vec<_> = columns
            .map(|column| ArrayFormatter::try_new(column, &options).unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            let values = columns.iter().map(|column| column.value(row).to_string());
            found.push(values.collect::<Vec<_>>().join(", "));
        }
    }
    Ok(found.join("; "))
}

#[tokio::test]
async fn every_function_has_the_value_of_its_example() {
    let (_folder, engine) = engine();
    let mut wrong = Vec::new();
    for function in functions() {
        let sql = format!("SELECT {} AS x", function.example);
        let found = match rows(&engine, &sql).await {
            Ok(found) => found,
            Err(error) => format!("error: {error} {:?}", error.hint),
        };
        if found != function.gives {
            wrong.push(format!("{sql}\n  gives {found}, not {}", function.gives));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const ITEMS: &str = "(VALUES (1, ARRAY['a', 'b']), (2, ARRAY['c', NULL]), (3, NULL)) AS t (id, xs)";

#[tokio::test]
async fn an_unnest_reads_the_table_beside_it() {
    let (_folder, engine) = engine();
    let pairs = "(SELECT 1 AS id, ARRAY[named_struct('k', 'a', 'v', 1), named_struct('k', 'b', 'v', 2)] AS xs) AS t";
    let maps = "(SELECT 1 AS id, MAP {'a': 1, 'b': 2} AS m) AS t";
    let two = "(SELECT 1 AS id, ARRAY[1, 2, 3] AS a, ARRAY['x'] AS b) AS t";
    let empty = "(SELECT id, array_remove(xs, 'z') AS xs FROM (VALUES (1, ARRAY['z']), (2, ARRAY['a'])) AS s (id, xs)) AS t";
    for (sql, expected) in [
        (
            format!("SELECT id, x FROM {ITEMS} CROSS JOIN UNNEST(t.xs) AS u (x) ORDER BY id, x"),
            "1, a; 1, b; 2, c; 2, NULL",
        ),
        (
            format!("SELECT t.id, u.x FROM {ITEMS}, UNNEST(xs) AS u (x) WHERE x = 'a'"),
            "1, a",
        ),
        (
            format!("SELECT id, x FROM {ITEMS} LEFT JOIN UNNEST(xs) AS u (x) ON TRUE WHERE id > 1 ORDER BY id, x"),
            "2, c; 2, NULL; 3, NULL",
        ),
        (
            format!("SELECT id, x FROM {empty} LEFT JOIN UNNEST(xs) AS u (x) ON TRUE ORDER BY id"),
            "1, NULL; 2, a",
        ),
        (
            format!("SELECT id, x FROM {empty} CROSS JOIN UNNEST(xs) AS u (x) ORDER BY id"),
            "2, a",
        ),
        (
            format!("SELECT id, x, n FROM {ITEMS} CROSS JOIN UNNEST(xs) WITH ORDINALITY AS u (x, n) ORDER BY id, n"),
            "1, a, 1; 1, b, 2; 2, c, 1; 2, NULL, 2",
        ),
        (
            format!("SELECT id, x, n FROM {ITEMS} LEFT JOIN UNNEST(xs) WITH ORDINALITY AS u (x, n) ON TRUE WHERE id = 3"),
            "3, NULL, NULL",
        ),
        // An array of rows gives their fields, as in Athena.
        (
            format!("SELECT id, key, value FROM {pairs} CROSS JOIN UNNEST(xs) AS u (key, value) ORDER BY key"),
            "1, a, 1; 1, b, 2",
        ),
        (
            format!("SELECT id, u.k, v FROM {pairs} CROSS JOIN UNNEST(xs) AS u ORDER BY 2"),
            "1, a, 1; 1, b, 2",
        ),
        // With one name it is the struct, as in DuckDB.
        (
            format!("SELECT id, p.k AS k, p['v'] AS v FROM {pairs} CROSS JOIN UNNEST(xs) AS u (p) ORDER BY 2"),
            "1, a, 1; 1, b, 2",
        ),
        (
            format!("SELECT id, k, v FROM {maps} CROSS JOIN UNNEST(m) AS u (k, v) ORDER BY k"),
            "1, a, 1; 1, b, 2",
        ),
        (
            format!("SELECT x, y FROM {two} CROSS JOIN UNNEST(a, b) AS u (x, y) ORDER BY x"),
            "1, x; 2, NULL; 3, NULL",
        ),
        (
            format!("SELECT x, y FROM {two} CROSS JOIN UNNEST(a) AS u (x) CROSS JOIN UNNEST(b) AS v (y) ORDER BY x"),
            "1, x; 2, x; 3, x",
        ),
        (
            format!("SELECT count(*) AS n, max(x) AS m FROM {two} INNER JOIN UNNEST(a) AS u (x) ON x > 1"),
            "2, 3",
        ),
        (
            format!("SELECT id, (SELECT max(x) FROM {two} CROSS JOIN UNNEST(a) AS u (x)) AS m FROM {pairs}"),
            "1, 3",
        ),
        (
            "SELECT x, n FROM UNNEST(ARRAY[5, 6]) WITH ORDINALITY AS u (x, n) ORDER BY n".to_owned(),
            "5, 1; 6, 2",
        ),
        (
            "SELECT x FROM (SELECT '[\"a\", \"b\"]' AS j) AS t CROSS JOIN UNNEST(CAST(json_parse(j) AS array(varchar))) AS u (x) ORDER BY x".to_owned(),
            "a; b",
        ),
    ] {
        let found = rows(&engine, &sql).await;
        let found = found.unwrap_or_else(|error| panic!("{sql}: {error} {:?}", error.hint));
        assert_eq!(found, expected, "{sql}");
    }
}

#[tokio::test]
async fn an_unnest_that_cannot_be_carried_out_is_refused_with_the_form_that_works() {
    let (_folder, engine) = engine();
    let mut wrong = Vec::new();
    for (sql, message, hint) in [
        (
            format!("SELECT id\nFROM {ITEMS}\nLEFT JOIN UNNEST(xs) AS u (x) ON x = 'a'"),
            "takes ON TRUE only",
            "CASE",
        ),
        (
            format!("SELECT id\nFROM {ITEMS}\nCROSS JOIN UNNEST(xs) AS u (x, y)"),
            "the alias names 2",
            "one name for each",
        ),
        (
            format!("SELECT id\nFROM {ITEMS}\nCROSS JOIN UNNEST(xs) AS u"),
            "without a name",
            "AS u (x)",
        ),
        (
            format!("SELECT id\nFROM {ITEMS}\nCROSS JOIN UNNEST(id) AS u (x)"),
            "takes a list or a map",
            "",
        ),
        (
            format!("SELECT id\nFROM {ITEMS}\nCROSS JOIN UNNEST('[1]') AS u (x)"),
            "not text",
            "json_parse",
        ),
        (
            format!("SELECT id\nFROM {ITEMS}\nCROSS JOIN LATERAL UNNEST(xs) AS u (x)"),
            "LATERAL in front of UNNEST",
            "leave LATERAL out",
        ),
        (
            format!(
                "SELECT id\nFROM {ITEMS},\nLATERAL (SELECT count(*) AS n FROM (SELECT 1) AS s WHERE t.id > 1) AS b"
            ),
            "LATERAL",
            "JOIN",
        ),
    ] {
        match rows(&engine, &sql).await {
            Ok(rows) => wrong.push(format!("{sql} gives {rows}")),
            Err(error) => {
                let told = error.to_string();
                let holds = told.contains(message) && told.contains(hint);
                if !holds || error.line != Some(3) {
                    wrong.push(format!("{sql}: {told}, line {:?}", error.line));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_function_in_a_form_that_is_not_possible_is_refused_with_its_line() {
    let (_folder, engine) = engine();
    let mut wrong = Vec::new();
    for (expression, message, hint) in [
        ("len('a')", "no function `len`", "cardinality"),
        ("iff(true, 1, 2)", "no function `iff`", "if("),
        ("strftime(d, '%Y')", "no function `strftime`", "date_format"),
        (
            "time_bucket(INTERVAL '1' HOUR, ts)",
            "no function `time_bucket`",
            "date_trunc",
        ),
        ("arg_max(s, n)", "no function `arg_max`", "max_by"),
        (
            "json_extract_string(s, '$.a')",
            "no function",
            "json_extract_scalar",
        ),
        ("regexp_match(s, 'a')", "no function", "regexp_extract"),
        ("transform(xs, x -> x + 1)", "", "UNNEST"),
        ("histogram(n)", "no function", "GROUP BY"),
        ("sequence(1, n)", "without a step", "sequence(1, 10, 1)"),
        ("try(n + 1)", "`try()` catches", "TRY_CAST"),
        ("date_diff('dy', d, d)", "has no unit 'dy'", "'day'"),
        ("date_trunc('fortnight', d)", "has no unit", "'week'"),
        ("date_trunc('hour', d)", "of a date", "CAST"),
        ("date_trunc('day', s)", "not text", "CAST(… AS date)"),
        ("day_of_week(s)", "not text", "CAST(… AS date)"),
        ("date_part('hour', s)", "not text", "CAST(… AS date)"),
        ("date_diff('day', d, s)", "not text", "CAST(… AS date)"),
        ("date_format(ts, '%U')", "`%U`", "%i"),
        ("format_datetime(ts, 'yyyy-QQ')", "`Q`", "quotes"),
        ("json_extract_scalar(s, '$..a')", "no path", "$.name"),
        ("json_extract(s, 'a')", "no path", "$.name"),
        (
            "max_by(s, n) OVER (PARTITION BY n)",
            "OVER is not possible",
            "first_value",
        ),
        ("if(true)", "takes 2 or 3 arguments", ""),
        ("listagg(s, ',')", "needs the order", "WITHIN GROUP"),
        ("split_part('a', 'b', 0)", "counts from 1", ""),
        (
            "CAST(json_parse(s) AS map(varchar, bigint))",
            "CAST of JSON",
            "json_extract_scalar",
        ),
        ("from_iso8601_timestamp('x')", "cannot read 'x'", ""),
        ("date_add('day', 1.5, d)", "an integer", ""),
        ("contains(xs, 'a')", "does not take", ""),
        ("to_hex(n)", "bytes", "to_utf8"),
        ("CASE WHEN n THEN 1 END", "WHEN is bigint", "x > 0"),
        ("if(n, 1, 2)", "WHEN is bigint", "x > 0"),
        ("count(*) FILTER (WHERE n)", "FILTER is bigint", "x > 0"),
    ] {
        let sql = format!(
            "SELECT\n  {expression} AS x\nFROM (SELECT 1 AS n, 'a' AS s, DATE '2024-05-05' AS d, \
             TIMESTAMP '2024-05-05 10:00:00' AS ts, ARRAY[1] AS xs) AS t"
        );
        match rows(&engine, &sql).await {
            Ok(rows) => wrong.push(format!("{expression} gives {rows}")),
            Err(error) => {
                let told = error.to_string();
                let holds = told.contains(message) && told.contains(hint);
                if !holds || error.line != Some(2) {
                    wrong.push(format!("{expression}: {told}, line {:?}", error.line));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn rows_are_compared_part_by_part_and_lists_of_other_lengths_have_a_line() {
    let (_folder, engine) = engine();
    for (expression, expected) in [
        ("(2, 'b') IN ((NULL, 'b'))", "NULL"),
        ("(2, 'b') IN ((NULL, 'c'))", "false"),
        ("(2, 'b') IN ((1, 'a'), (2, 'b'), (NULL, 'b'))", "true"),
        ("(2, 'b') NOT IN ((NULL, 'b'))", "NULL"),
        ("(2, 'b') NOT IN ((1, 'b'), (2, 'c'), (3, 'b'))", "true"),
    ] {
        let found = rows(&engine, &format!("SELECT {expression} AS x")).await;
        assert_eq!(found.unwrap(), expected, "{expression}");
    }
    for (sql, message) in [
        (
            "SELECT a\nFROM (VALUES (1, 2),\n(3)) AS t (a, b)",
            "a row of VALUES has 1 values",
        ),
        (
            "SELECT a\nFROM\n(VALUES (1, 2)) AS t (a)",
            "`t` has 2 columns",
        ),
        (
            "SELECT a\nFROM\n(SELECT 1 AS x) AS t (a, b)",
            "`t` has 1 columns",
        ),
    ] {
        let error = rows(&engine, sql).await.unwrap_err();
        assert!(error.to_string().contains(message), "{sql}: {error}");
        assert_eq!(error.line, Some(3), "{sql}: {error}");
    }
}
