//! The closed list of constructs that Athena and DuckDB answer differently. A mart gives Athena's answer, and `plan` and
//! `run` note the construct, so that nobody is surprised who has tried the SQL in DuckDB.

/// A construct that Athena and DuckDB answer differently.
pub(super) struct Differs {
    /// The construct.
    pub what: &'static str,
    /// Athena's answer, which is the answer here.
    pub athena: &'static str,
    /// DuckDB's answer.
    pub duckdb: &'static str,
    /// The spelling that both answer alike.
    pub portable: &'static str,
}

const fn differs(
    what: &'static str,
    athena: &'static str,
    duckdb: &'static str,
    portable: &'static str,
) -> Differs {
    Differs {
        what,
        athena,
        duckdb,
        portable,
    }
}

pub(super) const DIVISION: &str = "integer / integer";
pub(super) const ROUNDED: &str = "CAST(double AS bigint)";
pub(super) const MEAN: &str = "avg(decimal)";
pub(super) const CONTAINS: &str = "contains(list, x)";

/// The closed list.
pub(super) const DIFFERENCES: &[Differs] = &[
    differs(
        DIVISION,
        "an integer: 7 / 2 is 3",
        "a double: 3.5",
        "CAST(a AS double) / b",
    ),
    differs(
        ROUNDED,
        "a half goes away from zero: 2.5 gives 3",
        "a half goes to the even number: 2.5 gives 2",
        "CAST(round(x) AS bigint)",
    ),
    differs(
        MEAN,
        "a decimal with the digits of its values",
        "a double",
        "avg(CAST(x AS double))",
    ),
    differs(
        CONTAINS,
        "NULL where x is not found and the list has a NULL",
        "false",
        "coalesce(contains(list, x), false)",
    ),
    differs(
        "greatest(a, b)",
        "NULL if one value is NULL",
        "the greatest of the other values",
        "greatest(coalesce(a, b), coalesce(b, a))",
    ),
    differs(
        "least(a, b)",
        "NULL if one value is NULL",
        "the least of the other values",
        "least(coalesce(a, b), coalesce(b, a))",
    ),
    differs(
        "concat(a, b)",
        "NULL if one text is NULL",
        "the other texts",
        "a || b",
    ),
    differs(
        "date_diff(unit, a, b)",
        "the whole units between the times",
        "the borders of units between the times",
        "date_diff('day', CAST(a AS date), CAST(b AS date))",
    ),
    differs(
        "extract(dow FROM t)",
        "7 for a Sunday",
        "0 for a Sunday",
        "extract(dow FROM t) % 7",
    ),
    differs(
        "millisecond(t)",
        "the milliseconds within the second",
        "the milliseconds within the minute",
        "millisecond(t) % 1000",
    ),
    differs(
        "regexp_replace(x, pattern, to)",
        "every match is replaced",
        "the first match is replaced",
        "replace(x, from, to), for a plain text",
    ),
    differs(
        "regexp_extract(x, pattern)",
        "NULL where nothing is found",
        "an empty text where nothing is found",
        "nullif(regexp_extract(x, pattern), '')",
    ),
    differs(
        "split_part(x, sep, n)",
        "NULL where there is no such part",
        "an empty text where there is no such part",
        "nullif(split_part(x, sep, n), '')",
    ),
    differs(
        "array_max(xs)",
        "NULL if one item is NULL",
        "the greatest of the other items",
        "max(x) over the items of UNNEST",
    ),
    differs(
        "array_min(xs)",
        "NULL if one item is NULL",
        "the least of the other items",
        "min(x) over the items of UNNEST",
    ),
    differs(
        "repeat(x, n)",
        "a list in Athena; here a text, as in DuckDB",
        "a text",
        "rpad('', n * length(x), x)",
    ),
];

/// The construct that a call of this function is, by its name in the SQL.
pub(super) fn of_call(name: &str, arguments: usize) -> Option<&'static str> {
    if name == "regexp_replace" && arguments != 3 || name == "regexp_extract" && arguments > 3 {
        return None;
    }
    let named = |construct: &&Differs| {
        let (before, _) = construct
            .what
            .split_once('(')
            .unwrap_or((construct.what, ""));
        before == name
    };
    // These depend on the types of their arguments, or are no functions.
    if ["avg", "contains", "CAST", "extract"].contains(&name) {
        return None;
    }
    DIFFERENCES
        .iter()
        .find(named)
        .map(|construct| construct.what)
}
