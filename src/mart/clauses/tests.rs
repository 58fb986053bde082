use std::path::Path;

use crate::mart::select::parse;

#[test]
fn what_the_planner_would_pass_over_is_refused_with_its_line() {
    for (text, line, part) in [
        ("SELECT a FROM t\nTABLESAMPLE (10)", 2, "TABLESAMPLE is"),
        (
            "SELECT a FROM (SELECT a FROM t)\nTABLESAMPLE BERNOULLI (1)",
            2,
            "TABLESAMPLE is",
        ),
        ("SELECT a FROM t\nWITH (NOLOCK)", 2, "WITH and hints"),
        ("SELECT a FROM t\nPARTITION (p)", 2, "PARTITION is"),
        ("SELECT a\nFROM t WITH ORDINALITY", 2, "WITH ORDINALITY"),
        ("SELECT a FROM t\nAS u (a INT)", 2, "a type for `a`"),
        ("SELECT a FROM t\nPREWHERE a > 1", 2, "PREWHERE is"),
        (
            "SELECT a FROM t\nSTART WITH a = 1 CONNECT BY a = b",
            2,
            "CONNECT BY is",
        ),
        (
            "SELECT a FROM t\nLATERAL VIEW explode(x) y AS z",
            2,
            "LATERAL VIEW is",
        ),
        ("SELECT a FROM t\nCLUSTER BY a", 2, "CLUSTER BY is"),
        ("SELECT a FROM t\nDISTRIBUTE BY a", 2, "DISTRIBUTE BY is"),
        ("SELECT a FROM t\nSORT BY a", 2, "SORT BY is"),
        ("SELECT\nTOP 3 a FROM t", 2, "TOP is"),
        ("\nSELECT /*+ FAST */ a FROM t", 2, "an optimizer hint"),
        ("\nFROM t", 2, "FROM without a SELECT"),
        (
            "SELECT a, count(*) AS n FROM t GROUP BY a\nWITH ROLLUP",
            2,
            "WITH ROLLUP is",
        ),
        ("SELECT a FROM t\nSETTINGS x = 1", 2, "SETTINGS is"),
        ("SELECT a FROM t\nFORMAT Null", 2, "FORMAT is"),
        ("SELECT a FROM t\nFOR UPDATE", 2, "FOR UPDATE is"),
        ("SELECT a FROM t\nFETCH FIRST 3 ROWS ONLY", 2, "FETCH is"),
        ("SELECT a FROM t\nLIMIT 1 BY a", 2, "LIMIT BY is"),
        ("SELECT a FROM t\n|> WHERE a = 1", 1, "`|>` is"),
        (
            "WITH RECURSIVE\nw AS (SELECT 1 AS a UNION ALL SELECT a FROM t LIMIT 1) SELECT a FROM w",
            2,
            "in the recursive query `w`",
        ),
        (
            "SELECT a FROM t\nASOF JOIN u MATCH_CONDITION (t.a >= u.a)",
            2,
            "ASOF JOIN u",
        ),
        ("SELECT a FROM t\nGLOBAL JOIN u ON true", 2, "GLOBAL is"),
        (
            "SELECT a,\nsum(a) OVER (w ORDER BY a) AS s FROM t WINDOW w AS (PARTITION BY b)",
            2,
            "continues the window `w`",
        ),
        (
            "SELECT a FROM t WINDOW w AS (PARTITION BY b)\nQUALIFY sum(a) OVER w > 1",
            2,
            "the window `w`",
        ),
        (
            "SELECT\nquantile(0.5)(a) AS q FROM t",
            2,
            "`quantile(…)(…)`",
        ),
        (
            "SELECT a,\nsum(a) OVER (ORDER BY a ROWS BETWEEN 1 PRECEDING AND 2 PRECEDING) AS s FROM t",
            2,
            "ends before that, at 2 PRECEDING",
        ),
        (
            "SELECT a,\nsum(a) OVER (ORDER BY a RANGE BETWEEN INTERVAL '1 day' PRECEDING AND INTERVAL '36 hours' PRECEDING) AS s FROM t",
            2,
            "ends before that",
        ),
        (
            "SELECT a,\nsum(a) OVER (ORDER BY a RANGE BETWEEN 2.5 FOLLOWING AND 2 FOLLOWING) AS s FROM t",
            2,
            "ends before that",
        ),
        (
            "SELECT a FROM t\nWINDOW w AS (ORDER BY a ROWS BETWEEN CURRENT ROW AND 1 PRECEDING)",
            2,
            "ends before that",
        ),
        (
            "SELECT sum(a)\nOVER (ORDER BY a GROUPS BETWEEN 1 FOLLOWING AND CURRENT ROW) AS s FROM t",
            1,
            "ends before that, at CURRENT ROW",
        ),
        (
            "SELECT\nsum(a) OVER (ORDER BY a ROWS BETWEEN UNBOUNDED FOLLOWING AND UNBOUNDED FOLLOWING) AS s FROM t",
            2,
            "starts at UNBOUNDED FOLLOWING",
        ),
        (
            "SELECT\nsum(a) OVER (ORDER BY a ROWS b PRECEDING) AS s FROM t",
            2,
            "`b` is not possible as a bound of a frame of ROWS",
        ),
        (
            "SELECT\nsum(a) OVER (ORDER BY a ROWS -1 PRECEDING) AS s FROM t",
            2,
            "`-1` is not possible",
        ),
        (
            "SELECT\nsum(a) OVER (ORDER BY a, b RANGE 1 PRECEDING) AS s FROM t",
            2,
            "exactly one column",
        ),
        (
            "SELECT\nsum(a) OVER (GROUPS 1 PRECEDING) AS s FROM t",
            2,
            "GROUPS needs ORDER BY",
        ),
        (
            "SELECT\nsum(a) OVER (ORDER BY a ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE CURRENT ROW) AS s FROM t",
            2,
            "EXCLUDE in a frame",
        ),
        (
            "SELECT\nrank() IGNORE NULLS OVER (ORDER BY a) AS s FROM t",
            2,
            "IGNORE NULLS is not possible with `rank() OVER`",
        ),
        (
            "SELECT\nsum(a) IGNORE NULLS OVER (ORDER BY a) AS s FROM t",
            2,
            "aggregates ignore NULLs anyway",
        ),
        (
            "SELECT\nlag(a) FILTER (WHERE b) OVER (ORDER BY a) AS s FROM t",
            2,
            "FILTER is not possible with `lag() OVER`",
        ),
        (
            "SELECT\nfirst_value(DISTINCT a) OVER (ORDER BY a) AS s FROM t",
            2,
            "DISTINCT is not possible",
        ),
        (
            "SELECT\nlag(a, b) OVER (ORDER BY a) AS s FROM t",
            2,
            "the number of rows of `lag()` is `b`",
        ),
        (
            "SELECT\nlag(a, -1) OVER (ORDER BY a) AS s FROM t",
            2,
            "`lead` looks forward",
        ),
        (
            "SELECT\nlead(a, NULL) OVER (ORDER BY a) AS s FROM t",
            2,
            "is `NULL`",
        ),
        (
            "SELECT\nlead(a, 1, b) OVER (ORDER BY a) AS s FROM t",
            2,
            "coalesce(lead(…) OVER (…), b)",
        ),
        (
            "SELECT\nnth_value(a, 0) OVER (ORDER BY a) AS s FROM t",
            2,
            "1 or more",
        ),
        (
            "SELECT\nntile(a) OVER (ORDER BY a) AS s FROM t",
            2,
            "is `a`",
        ),
        (
            "SELECT 1 AS x, (SELECT a FROM t\nTABLESAMPLE (10)) AS y",
            2,
            "TABLESAMPLE is",
        ),
    ] {
        match parse(Path::new("m.sql"), text) {
            Ok(_) => panic!("{text}: passed"),
            Err(error) => {
                assert!(error.to_string().contains(part), "{text}: {error}");
                assert_eq!(error.line, Some(line), "{text}: {error}");
            }
        }
    }
}

#[test]
fn what_is_carried_out_passes() {
    for text in [
        "FROM t SELECT a",
        "SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, b",
        "SELECT a FROM t GROUP BY ROLLUP (a)",
        "SELECT a FROM t ORDER BY a DESC NULLS LAST LIMIT 3 OFFSET 1",
        "SELECT a, sum(a) OVER w AS s FROM t WINDOW w AS (PARTITION BY b ORDER BY a) QUALIFY row_number() OVER (ORDER BY a) = 1",
        "WITH RECURSIVE w AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM w WHERE a < 9) SELECT a FROM w",
        "WITH w (x) AS (SELECT a FROM t ORDER BY a LIMIT 3) SELECT x FROM w",
        "SELECT * EXCLUDE (a) FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE t.a = u.a)",
        "SELECT count(DISTINCT a) FILTER (WHERE b > 0) AS n, array_agg(a ORDER BY b) AS l FROM t",
        "SELECT x FROM t CROSS JOIN UNNEST(t.xs) AS u(x)",
        "SELECT a FROM t UNION ALL SELECT a FROM u EXCEPT SELECT a FROM v",
        "SELECT a FROM t WHERE c AND (a IS DISTINCT FROM b + 1) AND (a IS NOT DISTINCT FROM c) OR b IS DISTINCT FROM (b AND c)",
        "SELECT lag(a, 2, -1) IGNORE NULLS OVER w AS l, nth_value(a, 3) OVER w AS n, ntile(4) OVER w AS t FROM t WINDOW w AS (PARTITION BY b ORDER BY a DESC)",
        "SELECT lead(a, 0, DATE '2024-01-01') OVER (ORDER BY a) AS l, count(DISTINCT a) OVER (PARTITION BY b) AS c FROM t",
        "SELECT sum(a) FILTER (WHERE b) OVER (ORDER BY a ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING) AS s FROM t",
        "SELECT sum(a) OVER (ORDER BY a RANGE BETWEEN INTERVAL '7' DAY PRECEDING AND INTERVAL '1 day' PRECEDING) AS s FROM t",
        "SELECT sum(a) OVER (ORDER BY a RANGE BETWEEN 2.5 PRECEDING AND 2.5 FOLLOWING) AS s, max(a) OVER (ORDER BY a, b GROUPS 2 PRECEDING) AS m FROM t",
        "SELECT sum(a) OVER (ORDER BY a, b RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS s FROM t",
    ] {
        if let Err(error) = parse(Path::new("m.sql"), text) {
            panic!("{text}: {error}");
        }
    }
}

/// Other databases read these, and Athena does not.
#[test]
fn what_athena_does_not_read_is_refused_with_its_line() {
    let mut wrong = Vec::new();
    for (text, line, part, instead) in [
        // Commas.
        (
            "SELECT count(*) AS n,\nFROM t",
            1,
            "between the comma and FROM",
            "take the comma out",
        ),
        (
            "SELECT a,\n  b, -- more\n  /* later */\nFROM t",
            2,
            "between the comma and FROM",
            "take",
        ),
        (
            "SELECT a FROM t,\nWHERE a > 1",
            1,
            "between the comma and WHERE",
            "take",
        ),
        (
            "SELECT a FROM t\nWHERE a IN (1, 2,)",
            2,
            "between the comma and )",
            "take",
        ),
        (
            "SELECT coalesce(a,) AS b FROM t",
            1,
            "between the comma and )",
            "take",
        ),
        ("SELECT a,, b FROM t", 1, "between the comma and ,", "take"),
        (
            "SELECT a, b FROM t GROUP BY a,",
            1,
            "between the comma and the end",
            "take",
        ),
        (
            "WITH w AS (SELECT 1 AS a),\nSELECT a FROM w",
            1,
            "between the comma and SELECT",
            "take",
        ),
        (
            "SELECT a FROM (SELECT a,\nFROM t) q",
            1,
            "between the comma and FROM",
            "take",
        ),
        // Names and texts.
        (
            "SELECT\n`a` FROM t",
            2,
            "`a`` is not a name",
            "write `\"a\"`",
        ),
        (
            "SELECT a\nFROM `t`",
            2,
            "`t`` is not a name",
            "write `\"t\"`",
        ),
        (
            "SELECT a AS 'b' FROM t",
            1,
            "'b' is a text",
            "write `AS \"b\"`",
        ),
        (
            "SELECT 'x'\n  'y' FROM t",
            1,
            "'y' is a text",
            "joined by `||`",
        ),
        ("SELECT a FROM t AS 'u'", 1, "'u' is a text", "AS"),
        ("SELECT E'a\\n' AS b FROM t", 1, "`E'…'` is", "chr(10)"),
        ("SELECT N'a' AS b FROM t", 1, "`N'…'` is", "write `'…'`"),
        (
            "SELECT $$a$$ AS b FROM t",
            1,
            "in dollar signs is",
            "write `'…'`",
        ),
        (
            "SELECT 1_000 AS n FROM t",
            1,
            "read as `1 AS _000`",
            "all digits",
        ),
        (
            "SELECT 0b11 AS n FROM t",
            1,
            "read as `0 AS b11`",
            "all digits",
        ),
        (
            "SELECT 0x1F AS n FROM t",
            1,
            "hexadecimal digits is",
            "decimal digits",
        ),
        (
            "SELECT a FROM t WHERE a = $1",
            1,
            "`$1` is",
            "write the value",
        ),
        (
            "SELECT a FROM t WHERE a = ?",
            1,
            "`?` is",
            "write the value",
        ),
        ("SELECT @a AS b FROM t", 1, "`@a` is", "no variables"),
        // Comments.
        (
            "SELECT a /* one /* two */ */ FROM t",
            1,
            "a comment within a comment",
            "`--`",
        ),
        (
            "SELECT a\n/*! , b */ FROM t",
            2,
            "SQL in MySQL",
            "take it out",
        ),
        (
            "SELECT a FROM t\n# the end",
            2,
            "`#` is",
            "begins with `--`",
        ),
        // Operators.
        ("SELECT a FROM t\nWHERE a == 1", 2, "`==` is", "write `=`"),
        ("SELECT a // 2 AS b FROM t", 1, "`//` is", "write `/`"),
        (
            "SELECT a DIV 2 AS b FROM t",
            1,
            "`DIV` is not expected",
            "does not parse",
        ),
        ("SELECT a ^ 2 AS b FROM t", 1, "`^` is", "power(a, b)"),
        ("SELECT a XOR b AS c FROM t", 1, "`a XOR b` is", "a <> b"),
        (
            "SELECT a <=> b AS c FROM t",
            1,
            "`<=>` is",
            "IS NOT DISTINCT FROM",
        ),
        ("SELECT a && b AS c FROM t", 1, "`&&` is", "write `AND`"),
        ("SELECT !a AS c FROM t", 1, "`!` is", "write `NOT`"),
        ("SELECT ~a AS c FROM t", 1, "`~a` is", "-1 - x"),
        (
            "SELECT a ~ 'x' AS c FROM t",
            1,
            "`a ~ 'x'` is",
            "regexp_like",
        ),
        ("SELECT a !~* 'x' AS c FROM t", 1, "`!~*` is", "regexp_like"),
        ("SELECT a ~~ 'x' AS c FROM t", 1, "`~~` is", "LIKE"),
        (
            "SELECT a SIMILAR TO 'x' AS c FROM t",
            1,
            "SIMILAR TO 'x'` is",
            "regexp_like",
        ),
        (
            "SELECT a RLIKE 'x' AS c FROM t",
            1,
            "RLIKE 'x'` is",
            "regexp_like",
        ),
        (
            "SELECT a #> 'x' AS c FROM t",
            1,
            "`#>` is",
            "json_extract_scalar",
        ),
        (
            "SELECT a #>> 'x' AS c FROM t",
            1,
            "`#>>` is",
            "json_extract_scalar",
        ),
        ("SELECT a @> b AS c FROM t", 1, "`@>` is", "array_has_all"),
        ("SELECT a ^@ b AS c FROM t", 1, "`^@` is", "starts_with"),
        // Expressions.
        (
            "SELECT safe_cast(a AS int) AS b FROM t",
            1,
            "SAFE_CAST(a AS INT)` is",
            "TRY_CAST",
        ),
        (
            "SELECT convert(a, char) AS b FROM t",
            1,
            "CONVERT(a, CHAR)` is",
            "CAST(x AS type)",
        ),
        (
            "SELECT extract(hour, a) AS b FROM t",
            1,
            "EXTRACT(HOUR, a)` is",
            "extract(hour FROM time)",
        ),
        (
            "SELECT ceil(a TO DAY) AS b FROM t",
            1,
            "CEIL(a TO DAY)` is",
            "date_trunc",
        ),
        (
            "SELECT INTERVAL '1-2' YEAR TO MONTH AS b FROM t",
            1,
            "is not possible",
            "one unit at a time",
        ),
        (
            "SELECT overlay(a PLACING 'x' FROM 1) AS b FROM t",
            1,
            "OVERLAY(a PLACING",
            "substr",
        ),
        (
            "SELECT a COLLATE nocase AS b FROM t",
            1,
            "a COLLATE nocase` is",
            "lower(text)",
        ),
        (
            "SELECT a LIKE ANY ('x') AS b FROM t",
            1,
            "LIKE ANY",
            "joined by OR",
        ),
        (
            "SELECT struct(1 AS a) AS b FROM t",
            1,
            "is not possible",
            "named_struct",
        ),
        (
            "SELECT f(a => 1) AS b FROM t",
            1,
            "`=>` is",
            "in their order",
        ),
        ("SELECT f(a := 1) AS b FROM t", 1, "`:=` is", "AS"),
        (
            "SELECT {d '2024-01-01'} AS b FROM t",
            1,
            "is not possible",
            "without the braces",
        ),
        (
            "SELECT CAST(a AS bigint unsigned) AS b FROM t",
            1,
            "the type `bigint unsigned`",
            "write bigint",
        ),
        (
            "SELECT CAST(a AS uint64) AS b FROM t",
            1,
            "the type `uint64`",
            "write bigint",
        ),
        (
            "SELECT CAST(a AS signed) AS b FROM t",
            1,
            "no type `signed`",
            "types are boolean, int",
        ),
        (
            "SELECT\nCAST(a AS nothing) AS b FROM t",
            2,
            "no type `nothing`",
            "types are boolean, int",
        ),
        (
            "SELECT string_agg(a SEPARATOR ';') AS b FROM t",
            1,
            "SEPARATOR",
            "second argument",
        ),
        // Columns, rows and tables.
        ("\nSELECT FROM t", 2, "the SELECT has no column", "`*`"),
        (
            "SELECT * EXCEPT (a) FROM t",
            1,
            "`*` with EXCEPT is",
            "EXCLUDE",
        ),
        (
            "SELECT * REPLACE (a + 1 AS a) FROM t",
            1,
            "`*` with REPLACE is",
            "EXCLUDE",
        ),
        (
            "SELECT a FROM t LIMIT a",
            1,
            "`a` is no number of rows",
            "whole number",
        ),
        (
            "SELECT a FROM t OFFSET -1",
            1,
            "`-1` is no number of rows",
            "whole number",
        ),
        (
            "SELECT count(a, b) AS n FROM t",
            1,
            "counts more than one value",
            "FILTER",
        ),
        (
            "SELECT a AT TIME ZONE b AS n FROM t",
            1,
            "a AT TIME ZONE b` is",
            "Asia/Seoul",
        ),
        (
            "SELECT a FROM t,\nu AS t",
            2,
            "two tables of this FROM have the name `t`",
            "AS",
        ),
        (
            "WITH w AS (SELECT 1 AS a),\nw AS (SELECT 2 AS a) SELECT a FROM w",
            2,
            "two queries of WITH",
            "another name",
        ),
        (
            "SELECT * RENAME (a AS b) FROM t",
            1,
            "`*` with RENAME is",
            "AS",
        ),
        (
            "SELECT * ILIKE 'a%' FROM t",
            1,
            "`*` with ILIKE is",
            "name the columns",
        ),
        (
            "SELECT a FROM t\nLIMIT 5, 10",
            2,
            "`LIMIT 5, 10` is",
            "write `LIMIT 10 OFFSET 5`",
        ),
        (
            "SELECT a FROM t MINUS SELECT a FROM u",
            1,
            "MINUS is",
            "EXCEPT",
        ),
        (
            "SELECT a FROM t\nJOIN u",
            2,
            "`JOIN u` is",
            "after ON, or CROSS JOIN",
        ),
        (
            "SELECT a FROM t\nLEFT JOIN u",
            2,
            "`LEFT JOIN u` is",
            "after ON",
        ),
        (
            "SELECT a FROM t\nSEMI JOIN u ON t.a = u.a",
            2,
            "SEMI JOIN u",
            "WHERE EXISTS",
        ),
        (
            "SELECT a FROM t\nLEFT SEMI JOIN u ON t.a = u.a",
            2,
            "LEFT SEMI JOIN u",
            "WHERE EXISTS",
        ),
        (
            "SELECT a FROM t\nLEFT ANTI JOIN u ON t.a = u.a",
            2,
            "LEFT ANTI JOIN u",
            "WHERE NOT EXISTS",
        ),
        (
            "SELECT a FROM t\nANTI JOIN u ON t.a = u.a",
            2,
            "ANTI JOIN u",
            "WHERE NOT EXISTS",
        ),
        (
            "SELECT a FROM t\nCROSS APPLY u",
            2,
            "CROSS APPLY u",
            "joins are",
        ),
        (
            "SELECT * FROM t PIVOT (sum(a) FOR b IN (1, 2))",
            1,
            "PIVOT",
            "plain SELECT",
        ),
        (
            "SELECT * FROM t UNPIVOT (a FOR b IN (c, d))",
            1,
            "UNPIVOT",
            "plain SELECT",
        ),
        (
            "SELECT a FROM VALUES (1), (2) AS t (a)",
            1,
            "VALUES without parentheses",
            "(VALUES",
        ),
        (
            "WITH w\n(SELECT 1 AS a) SELECT a FROM w",
            1,
            "`w` has no AS",
            "WITH w AS (…)",
        ),
    ] {
        match parse(Path::new("m.sql"), text) {
            Ok(_) => wrong.push(format!("{text}: passed")),
            Err(error) => {
                let said = error.to_string();
                let holds = said.contains(part) && said.contains(instead);
                if !holds || error.line != Some(line) {
                    wrong.push(format!("{text}: line {:?}: {said}", error.line));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Athena reads these, or DuckDB does, and people are used to them.
#[test]
fn what_people_are_used_to_passes() {
    let mut wrong = Vec::new();
    for text in [
        "SELECT a::bigint AS b, TRY_CAST(c AS double) AS d FROM t",
        "SELECT \"a\", b AS \"B and c\" FROM \"t\"",
        "SELECT kind, count(*) AS n FROM t GROUP BY ALL ORDER BY ALL",
        "SELECT t.* EXCLUDE (a) FROM t",
        "SELECT a FROM t WHERE b ILIKE 'x%' AND c IS NOT TRUE AND d IS UNKNOWN",
        "SELECT a & 3 AS b, a | 1 AS c, a << 2 AS d, a >> 1 AS e FROM t",
        "SELECT xs[1] AS a, xs[1:2] AS b, [1, 2] AS c, ARRAY[1, 2] AS d, s.x AS e FROM t",
        "SELECT a <> 1 AS b, a != 1 AS c, -a AS d, NOT e AS f FROM t",
        "SELECT a FROM t UNION BY NAME SELECT a FROM u",
        "SELECT INTERVAL '1' DAY AS a, INTERVAL '2 hours' AS b, INTERVAL 3 MINUTE AS c FROM t",
        "SELECT extract(hour FROM a) AS h, trim(BOTH 'x' FROM b) AS c, trim(b, 'x') AS d FROM t",
        "SELECT ceil(a) AS b, floor(a) AS c, substring(d FROM 2 FOR 3) AS e, position('x' IN d) AS f FROM t",
        "SELECT (a, b) IN ((1, 2), (3, 4)) AS c, a = ANY (SELECT b FROM u) AS d FROM t",
        "SELECT a FROM t NATURAL JOIN u CROSS JOIN v JOIN w USING (a)",
        "SELECT a FROM (VALUES (1), (2)) AS t (a)",
        "WITH w (a, b) AS (SELECT 1, 2), v AS (SELECT 3 AS c) SELECT a, b, c FROM w, v",
        "SELECT CAST(a AS decimal(10, 2)) AS b, CAST(a AS string) AS c, CAST(a AS varchar(3)) AS d, CAST(a AS float8) AS e FROM t",
        "SELECT a, /* why */ b -- FROM, the first\nFROM t -- the end,",
        "SELECT string_agg(a, ',' ORDER BY b) AS s, ', FROM' AS \", FROM\" FROM t",
        "SELECT 1e3 AS a, .5 AS b, 2. AS c, 1 AS d1, 1 AS _e FROM t;",
        "SELECT first_value(a IGNORE NULLS) OVER (ORDER BY b) AS c FROM t",
    ] {
        if let Err(error) = parse(Path::new("m.sql"), text) {
            wrong.push(format!("{text}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
