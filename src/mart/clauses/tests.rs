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
        "SELECT * EXCLUDE (a) FROM t LEFT ANTI JOIN u ON t.a = u.a",
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
