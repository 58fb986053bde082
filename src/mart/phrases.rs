//! Errors of the engine that say too little, or say it in its own words: what is wrong, and what to write.

/// The part of the engine's text that is told.
enum Part {
    None,
    /// Between two words.
    Between(&'static str, &'static str),
    /// Behind the last such word.
    Behind(&'static str),
}

use Part::{Behind, Between, None as Nothing};

/// An error of the engine by some of its words: the part that is told, the message with `{}` in the place of that
/// part, and what to write.
type Phrase = (&'static str, Part, &'static str, &'static str);

const GROUPED: &str = "add it to GROUP BY, or aggregate it, such as `max(x)`";
const ONE_ROW: &str = "aggregate it, such as `(SELECT max(x) FROM …)`, or write a JOIN";
const WHOLE: &str = "write a whole number, 0 or more";
const POSITIONS: &str = "columns of the SELECT are numbered from 1; better write the name";
const CONSTANT: &str = "write it into the SQL as a number or a text";

/// Errors of planning.
const PLANNING: &[Phrase] = &[
    // Groups and windows.
    (
        "must appear in the GROUP BY clause or must be part of an aggregate",
        Between("column \"", "\""),
        "`{}` is neither in GROUP BY nor in an aggregate",
        GROUPED,
    ),
    (
        "HAVING clause references: ",
        Nothing,
        "HAVING reads a column that is neither in GROUP BY nor in an aggregate",
        GROUPED,
    ),
    (
        "Aggregate functions are not allowed in the WHERE clause",
        Nothing,
        "an aggregate is not possible in WHERE",
        "write the condition after HAVING, or aggregate in a sub-query",
    ),
    (
        "Aggregate function calls cannot be nested",
        Nothing,
        "an aggregate within an aggregate is not possible",
        "aggregate in a sub-query first",
    ),
    (
        "Aggregate function calls cannot contain window function calls",
        Nothing,
        "a window function within an aggregate is not possible",
        "put the window function into a sub-query",
    ),
    (
        "Window function calls cannot be nested",
        Nothing,
        "a window function within a window function is not possible",
        "put the inner one into a sub-query",
    ),
    (
        "Schema contains duplicate unqualified field name",
        Nothing,
        "an aggregate is not possible in GROUP BY",
        "write columns after GROUP BY, or aggregate in a sub-query",
    ),
    (
        " is not defined!",
        Between("The window ", " is not defined!"),
        "there is no window `{}`",
        "name it after WINDOW, or write it out in parentheses",
    ),
    (
        "QUALIFY clause requires window functions",
        Nothing,
        "QUALIFY without a window function is not possible",
        "write the condition after WHERE",
    ),
    (
        "to grouping function is not in grouping columns",
        Between("Argument ", " to grouping"),
        "grouping() takes a column of GROUP BY, and `{}` is none",
        "write it after GROUP BY",
    ),
    // Sub-queries.
    (
        "Too many columns! The subquery should only return one column",
        Nothing,
        "a sub-query in the place of a value or after IN gives more than one column",
        "select one column; compare several with `EXISTS (SELECT 1 FROM u WHERE u.a = t.a AND u.b = t.b)`",
    ),
    (
        "Correlated scalar subquery must be aggregated",
        Nothing,
        "a sub-query in the place of a value may give more than one row",
        ONE_ROW,
    ),
    (
        "table 'datafusion.public.",
        Between("datafusion.public.", "'"),
        "the query `{}` reads itself, and is no UNION",
        "write `WITH RECURSIVE w AS (SELECT … UNION ALL SELECT … FROM w)`",
    ),
    // Columns and tables.
    (
        "Ambiguous reference to unqualified field ",
        Behind("unqualified field "),
        "`{}` is a column of more than one table here",
        "write its table in front of it, such as `t.id`",
    ),
    (
        "Projections require unique expression names",
        Between("the expression \"", "\""),
        "two columns have the name of `{}`",
        "give one of them another name with AS",
    ),
    (
        "names given as column alias",
        Between("Source table contains ", " columns"),
        "the names in parentheses behind AS are more or fewer than the columns, which are {}",
        "write one name for each column",
    ),
    (
        "Invalid qualifier ",
        Behind("Invalid qualifier "),
        "there is no table `{}` in this SELECT",
        "write the name behind AS where the table has one",
    ),
    (
        "EXCLUDE or EXCEPT contains duplicate column names",
        Nothing,
        "EXCLUDE names a column twice",
        "name it once",
    ),
    // Rows.
    (
        "Order by column out of bounds",
        Between("specified: ", ", max"),
        "ORDER BY {}: the SELECT has fewer columns",
        POSITIONS,
    ),
    (
        "Order by index starts at 1",
        Nothing,
        "ORDER BY 0: the first column is 1",
        POSITIONS,
    ),
    (
        "Cannot find column with position ",
        Between("with position ", " in SELECT"),
        "GROUP BY {}: the SELECT has no such column",
        POSITIONS,
    ),
    (
        "queries have different number of columns",
        Between("planning: ", " queries have different"),
        "the SELECTs of {} have different numbers of columns",
        "give each the same columns",
    ),
    (
        "Inconsistent data length across values list",
        Nothing,
        "the rows of VALUES have different numbers of values",
        "give each the same number; a value that is missing is NULL",
    ),
    (
        "SELECT DISTINCT ON expressions must match initial ORDER BY expressions",
        Nothing,
        "DISTINCT ON: the ORDER BY does not begin with the same columns",
        "write `DISTINCT ON (a) … ORDER BY a, b`",
    ),
    (
        "For SELECT DISTINCT, ORDER BY expressions ",
        Between("ORDER BY expressions ", " must appear"),
        "ORDER BY behind DISTINCT names `{}`, which is no column of the SELECT",
        "add it to the SELECT, or order by another",
    ),
    (
        "Expected LIMIT to be an integer",
        Nothing,
        "LIMIT is no whole number",
        WHOLE,
    ),
    (
        "Unsupported LIMIT expression",
        Nothing,
        "LIMIT is no whole number",
        WHOLE,
    ),
    ("LIMIT must be >= 0", Nothing, "LIMIT is less than 0", WHOLE),
    (
        "Expected OFFSET to be an integer",
        Nothing,
        "OFFSET is no whole number",
        WHOLE,
    ),
    (
        "Unsupported OFFSET expression",
        Nothing,
        "OFFSET is no whole number",
        WHOLE,
    ),
    (
        "OFFSET must be >=0",
        Nothing,
        "OFFSET is less than 0",
        WHOLE,
    ),
    // Values.
    (
        "unnest() can only be applied to",
        Nothing,
        "unnest() takes a list, and this is none",
        "give it a column whose type is array",
    ),
    (
        "Unnest should be rewritten",
        Nothing,
        "unnest() is possible among the columns of a SELECT only",
        "put it into a sub-query, and write the condition around that",
    ),
    (
        "should satisfy `0 < precision",
        Nothing,
        "there is no such decimal",
        "write decimal(p, s) with 1 to 38 digits, s of them behind the point",
    ),
    (
        "Invalid input syntax for type interval: ",
        Between("interval: \"", "\""),
        "'{}' is no span of time",
        "write `INTERVAL '1' DAY`; units are year, month, day, hour, minute, second",
    ),
    (
        "Unsupported interval argument",
        Nothing,
        "the number of an INTERVAL is not written out",
        "write `INTERVAL '1' DAY`; `date_bin` and `date_trunc` find the day or hour of a time",
    ),
    (
        "is not Struct, Map, or Null",
        Between(": type ", " is not Struct"),
        "only a struct or a map has members, and this is {}",
        "an item of a list is `xs[1]`",
    ),
    (
        "Unary operator '-' only supports",
        Nothing,
        "`-` needs a number or a span of time behind it",
        "text becomes a number with `CAST(… AS bigint)`",
    ),
    (
        "Unary operator 'NOT' requires a boolean",
        Behind("got "),
        "NOT needs boolean behind it, not {}",
        "write a comparison, such as `x > 0` or `x IS NOT NULL`",
    ),
    (
        "not supported for Null",
        Nothing,
        "the aggregate does not take `*` or NULL",
        "give it a column, or write `count(*)`",
    ),
    (
        "Expected a single character wrapped with single quotes",
        Nothing,
        "ESCAPE takes one character",
        "write one, such as `ESCAPE '!'`",
    ),
    (
        "field name as non-empty constant string",
        Nothing,
        "a name in named_struct() is not written out",
        "write names and values in turn: `named_struct('a', 1, 'b', x)`",
    ),
    (
        "supported arrow type name",
        Between("Unsupported type '", "'"),
        "there is no type '{}'",
        "write `CAST(x AS bigint)`",
    ),
    (
        "Unsupported ast node",
        Nothing,
        "this form is not possible in a mart",
        "write it with functions and operators that Athena has",
    ),
];

/// Errors of values, which the engine may also find while it plans.
const VALUES: &[Phrase] = &[
    (
        "nvalid timezone",
        Between("imezone \"", "\""),
        "there is no time zone '{}'",
        "time zones are names such as 'UTC' and 'Asia/Seoul', and offsets such as '+09:00'",
    ),
    (
        "Unsupported date_trunc granularity",
        Between("granularity: '", "'"),
        "date_trunc() has no unit '{}'",
        "units are second, minute, hour, day, week, month, quarter and year",
    ),
    (
        "Date part '",
        Between("Date part '", "'"),
        "a time has no part '{}'",
        "parts are year, quarter, month, week, day, dow, doy, hour, minute, second and epoch",
    ),
    (
        "egular expression did not compile",
        Behind("error: "),
        "the regular expression is wrong: {}",
        "put `\\` in front of a letter that stands for itself, such as `\\(`",
    ),
    (
        "regex parse error",
        Behind("error: "),
        "the regular expression is wrong: {}",
        "put `\\` in front of a letter that stands for itself, such as `\\(`",
    ),
    (
        "ffset overflow",
        Nothing,
        "the texts of a few thousand rows take more than 2 GiB",
        "make the texts shorter, or put them beside fewer rows",
    ),
    (
        "Unable to cast to date",
        Nothing,
        "a text is no date",
        "write `TRY_CAST(text AS date)`, which gives NULL there",
    ),
    (
        "Percentile value must be between",
        Between("inclusive, ", " is invalid"),
        "a percentile is between 0 and 1, not {}",
        "write 0.9 for 90 %",
    ),
    (
        "input schema only has ",
        Nothing,
        "an argument of an aggregate is a column, and must be a constant",
        CONSTANT,
    ),
    (
        "string_agg delimiter must be a string literal",
        Nothing,
        "the separator of string_agg() is not a text that is written out",
        CONSTANT,
    ),
    (
        "COUNT DISTINCT with multiple arguments",
        Nothing,
        "count(DISTINCT …) takes one column",
        "count the rows of a sub-query: `SELECT count(*) FROM (SELECT DISTINCT a, b FROM t)`",
    ),
];

/// What is wrong, and what to write.
pub(super) struct Said {
    pub message: String,
    pub hint: &'static str,
}

/// An error of planning in our words; `None` where the engine's are good enough.
pub(super) fn of_planning(text: &str) -> Option<Said> {
    said(PLANNING, text).or_else(|| of_value(text))
}

/// An error of a value in our words; `None` where the engine's are good enough.
pub(super) fn of_value(text: &str) -> Option<Said> {
    said(VALUES, text)
}

fn said(phrases: &[Phrase], text: &str) -> Option<Said> {
    let known = phrases.iter().find(|(words, ..)| text.contains(words));
    let (_, part, message, hint) = known?;
    let part = match part {
        Nothing => "",
        Between(from, to) => {
            let (_, rest) = text.split_once(from).unwrap_or(("", text));
            rest.split_once(to).map_or(rest, |(part, _)| part)
        }
        Behind(from) => text.rsplit_once(from).map_or("", |(_, rest)| rest),
    };
    // The engine underlines a part of a pattern.
    let part = part.trim_end_matches([' ', '~', ')', '.']);
    Some(Said {
        message: message.replace("{}", &in_words(part)),
        hint,
    })
}

/// A text of the engine with its types as people write them in SQL.
pub(super) fn in_words(text: &str) -> String {
    let mut made = String::new();
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let inside = made.ends_with(|before: char| before.is_alphanumeric() || before == '_');
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        match type_word(name).filter(|_| !inside) {
            Some(word) => {
                made += word;
                rest = match of_type(name) {
                    true => behind.get(in_parentheses(behind)..).unwrap_or_default(),
                    false => behind,
                };
            }
            None => {
                made.push(letter);
                rest = rest.get(letter.len_utf8()..).unwrap_or_default();
            }
        }
    }
    made
}

/// Bytes of the parentheses that a text begins with, and of all in them.
fn in_parentheses(text: &str) -> usize {
    let mut depth = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return match letter {
                ')' => at + 1,
                _ => at,
            };
        }
    }
    text.len()
}

/// Whether the engine writes parentheses behind a type.
fn of_type(name: &str) -> bool {
    matches!(
        name,
        "Timestamp"
            | "Interval"
            | "List"
            | "LargeList"
            | "FixedSizeList"
            | "Map"
            | "Struct"
            | "Time64"
            | "Time32"
            | "Duration"
    )
}

/// A type as people write it in SQL.
fn type_word(name: &str) -> Option<&'static str> {
    Some(match name {
        "Utf8" | "Utf8View" | "LargeUtf8" => "text",
        "Int64" | "UInt64" => "bigint",
        "Int32" | "Int16" | "Int8" | "UInt32" | "UInt16" | "UInt8" => "int",
        "Float64" => "double",
        "Float32" => "float",
        "Boolean" => "boolean",
        "Date32" | "Date64" => "date",
        "Timestamp" => "timestamp",
        "Interval" => "interval",
        "Duration" => "span of time",
        "Time64" | "Time32" => "time of day",
        "List" | "LargeList" | "FixedSizeList" => "array",
        "Map" => "map",
        "Struct" => "struct",
        // Its digits stay.
        "Decimal32" | "Decimal64" | "Decimal128" | "Decimal256" => "decimal",
        _ => return None,
    })
}
