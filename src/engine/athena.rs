//! Athena's functions as the engine spells them.
//!
//! ```text
//! syntax tree ──spelled()──▶ the same tree with `if(c, a, b)` as CASE, `max_by(x, y)` as `first_value(x ORDER BY y DESC)` …
//! ```
//!
//! A function that is only another spelling is a line of [`TEMPLATES`]. What the engine does not have at all is in
//! `functions`. Arguments that are written out, such as units, patterns and paths, are checked here, before anything
//! runs.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, DateTimeField, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, LambdaFunction, ObjectName,
    ObjectNamePart, OneOrManyWithParens, OrderByExpr, Spanned, Value, ValueWithSpan, VisitMut,
    VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Span;

use super::functions::{self, Language};

/// A function in a form that is not possible.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The line, from 1.
    pub line: Option<usize>,
    pub message: String,
    /// What to write.
    pub hint: String,
}

/// A function, the numbers of its arguments, and the expression that stands for it.
type Template = (&'static str, &'static [(usize, &'static str)]);

const TEMPLATES: &[Template] = &[
    (
        "if",
        &[
            (2, "CASE WHEN $0 THEN $1 END"),
            (3, "CASE WHEN $0 THEN $1 ELSE $2 END"),
        ],
    ),
    ("date", &[(1, "CAST($0 AS date)")]),
    ("mod", &[(2, "$0 % $1")]),
    ("ceiling", &[(1, "ceil($0)")]),
    ("truncate", &[(1, "trunc($0)"), (2, "trunc($0, $1)")]),
    ("is_nan", &[(1, "isnan($0)")]),
    (
        "power",
        &[(2, "power(CAST($0 AS double), CAST($1 AS double))")],
    ),
    (
        "pow",
        &[(2, "power(CAST($0 AS double), CAST($1 AS double))")],
    ),
    ("bitwise_and", &[(2, "$0 & $1")]),
    ("bitwise_or", &[(2, "$0 | $1")]),
    ("bitwise_left_shift", &[(2, "$0 << $1")]),
    ("bitwise_right_shift_arithmetic", &[(2, "$0 >> $1")]),
    ("levenshtein_distance", &[(2, "levenshtein($0, $1)")]),
    ("codepoint", &[(1, "ascii($0)")]),
    ("replace", &[(2, "replace($0, $1, '')")]),
    (
        "regexp_replace",
        &[
            (2, "regexp_replace($0, $1, '', 'g')"),
            (3, "regexp_replace($0, $1, $2, 'g')"),
        ],
    ),
    (
        "array_join",
        &[
            (2, "array_to_string($0, $1)"),
            (3, "array_to_string($0, $1, $2)"),
        ],
    ),
    ("array_remove", &[(2, "array_remove_all($0, $1)")]),
    ("arrays_overlap", &[(2, "array_has_any($0, $1)")]),
    ("sequence", &[(3, "generate_series($0, $1, $2)")]),
    ("count_if", &[(1, "count(CASE WHEN $0 THEN 1 END)")]),
    ("arbitrary", &[(1, "min($0)")]),
    ("any_value", &[(1, "min($0)")]),
    ("approx_distinct", &[(1, "count(DISTINCT $0)")]),
    ("every", &[(1, "bool_and($0)")]),
    ("variance", &[(1, "var_samp($0)")]),
    (
        "max_by",
        &[(
            2,
            "first_value($0 ORDER BY $1 DESC NULLS LAST, $0 NULLS LAST) FILTER (WHERE $1 IS NOT NULL)",
        )],
    ),
    (
        "min_by",
        &[(
            2,
            "first_value($0 ORDER BY $1 NULLS LAST, $0 NULLS LAST) FILTER (WHERE $1 IS NOT NULL)",
        )],
    ),
];

/// Functions of other databases, and how Athena writes them.
const FOREIGN: &[(&[&str], &str)] = &[
    (
        &["len"],
        "`length(text)` counts characters, `cardinality(list)` the items of a list",
    ),
    (&["size"], "write `cardinality(list)`"),
    (&["iif", "iff"], "write `if(condition, a, b)`"),
    (&["signum"], "write `sign(x)`"),
    (&["arg_max", "argmax"], "write `max_by(x, y)`"),
    (&["arg_min", "argmin"], "write `min_by(x, y)`"),
    (&["countif"], "write `count_if(condition)`"),
    (
        &["sum_if", "sumif"],
        "write `sum(x) FILTER (WHERE condition)`",
    ),
    (&["approx_count_distinct"], "write `approx_distinct(x)`"),
    (
        &[
            "approx_percentile_cont",
            "approx_percentile_cont_with_weight",
            "approx_median",
            "approx_quantile",
            "percentile",
        ],
        "write `approx_percentile(x, 0.5)`",
    ),
    (
        &["group_concat"],
        "write `listagg(x, ',') WITHIN GROUP (ORDER BY y)`",
    ),
    (
        &["strftime", "to_char", "dayname", "monthname"],
        "write `date_format(time, '%Y-%m-%d')`; `%W` is the day's name, `%M` the month's",
    ),
    (
        &["strptime", "str_to_date", "to_date"],
        "write `date_parse(text, '%Y-%m-%d')`, or `CAST(text AS date)`",
    ),
    (
        &["time_bucket", "date_bin"],
        "write `date_trunc('hour', time)`; for 15 minutes `from_unixtime(floor(to_unixtime(time) / 900) * 900)`",
    ),
    (
        &["datediff", "datesub", "date_sub", "timestampdiff"],
        "write `date_diff('day', from, to)`",
    ),
    (
        &["dateadd", "timestampadd"],
        "write `date_add('day', 1, time)`",
    ),
    (&["last_day"], "write `last_day_of_month(day)`"),
    (
        &["dayofweek", "isodow"],
        "write `day_of_week(time)`, where 1 is Monday",
    ),
    (&["dayofmonth"], "write `day_of_month(time)`"),
    (&["dayofyear"], "write `day_of_year(time)`"),
    (&["weekofyear"], "write `week(time)`"),
    (&["epoch", "unix_timestamp"], "write `to_unixtime(time)`"),
    (
        &[
            "epoch_ms",
            "to_timestamp_seconds",
            "to_timestamp_millis",
            "to_timestamp_micros",
            "to_timestamp_nanos",
        ],
        "write `from_unixtime(seconds)`; milliseconds are divided by 1000e0",
    ),
    (&["instr", "charindex"], "write `strpos(text, part)`"),
    (&["ucase"], "write `upper(text)`"),
    (&["lcase"], "write `lower(text)`"),
    (&["btrim"], "write `trim(text)`"),
    (&["safe_cast"], "write `TRY_CAST(x AS type)`"),
    (&["isnull"], "write `x IS NULL`"),
    (
        &["regexp_match", "regexp_substr"],
        "write `regexp_extract(text, pattern)`, or `regexp_extract(text, pattern, 1)` for the first group",
    ),
    (&["regexp_matches"], "write `regexp_like(text, pattern)`"),
    (
        &["string_split", "str_split", "string_to_array"],
        "write `split(text, ',')`",
    ),
    (
        &[
            "json_extract_string",
            "json_extract_path_text",
            "get_json_object",
            "json_value",
        ],
        "write `json_extract_scalar(json, '$.name')`",
    ),
    (
        &["json_extract_path", "json_query"],
        "write `json_extract(json, '$.name')`",
    ),
    (&["json_valid"], "write `json_parse(text) IS NOT NULL`"),
    (&["array_element"], "write `element_at(list, 1)`"),
    (&["array_remove_all"], "write `array_remove(list, x)`"),
    (
        &[
            "transform",
            "filter",
            "reduce",
            "any_match",
            "all_match",
            "none_match",
            "array_transform",
            "array_filter",
            "array_any_match",
            "list_transform",
            "list_filter",
            "list_any_match",
            "zip_with",
            "map_filter",
            "transform_keys",
            "transform_values",
        ],
        "a mart has no lambdas: take the items apart with `FROM t CROSS JOIN UNNEST(list) AS u (x)`, and aggregate them",
    ),
    (
        &["histogram"],
        "count the rows of each value in a sub-query: `SELECT x, count(*) AS n FROM t GROUP BY x`",
    ),
    (
        &["numeric_histogram", "width_bucket"],
        "write `floor(x / 10) * 10` and GROUP BY it",
    ),
    (
        &[
            "map_agg",
            "multimap_agg",
            "map_union",
            "approx_most_frequent",
        ],
        "write a row for each key, with GROUP BY",
    ),
    (&["set_agg"], "write `array_agg(DISTINCT x ORDER BY x)`"),
];

/// What to write in the place of a function of another database; `None` where the name is not known.
fn instead_of(name: &str) -> Option<&'static str> {
    let known = FOREIGN.iter().find(|(names, _)| names.contains(&name));
    known.map(|(_, instead)| *instead)
}

/// The templates that aggregate.
const AGGREGATES: &[&str] = &[
    "count_if",
    "arbitrary",
    "any_value",
    "approx_distinct",
    "every",
    "variance",
    "max_by",
    "min_by",
];

/// Functions that read a text, and whose error `try()` turns into NULL.
const READERS: &[&str] = &[
    "date_parse",
    "parse_datetime",
    "from_iso8601_timestamp",
    "from_iso8601_date",
];

/// Functions that make JSON, which a CAST takes apart.
const JSON: &[&str] = &[
    "json_parse",
    "json_extract",
    "json_member",
    "json_array_get",
];

/// Spells the functions of a statement or an expression as the engine does.
///
/// # Errors
/// A function in a form that is not possible, with the form that is.
pub(crate) fn spelled(sql: &mut impl VisitMut) -> Result<(), Refused> {
    match sql.visit(&mut Spelling) {
        ControlFlow::Break(refused) => Err(*refused),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Spelling;

type Passed = ControlFlow<Box<Refused>>;

impl VisitorMut for Spelling {
    type Break = Box<Refused>;

    fn post_visit_expr(&mut self, expression: &mut Expr) -> Passed {
        let line = line_of(expression);
        let made = match expression {
            Expr::Function(function) => of_function(function),
            Expr::Extract { field, expr, .. } => Ok(of_field(field, expr)),
            Expr::Substring {
                expr,
                substring_from,
                substring_for,
                ..
            } => {
                let from = substring_from
                    .take()
                    .map_or_else(|| number(1), |from| *from);
                let parts = [
                    Some((**expr).clone()),
                    Some(from),
                    substring_for.take().map(|length| *length),
                ];
                Ok(Some(call("substr", parts.into_iter().flatten().collect())))
            }
            Expr::BinaryOp { left, op, right } => {
                let name = match op {
                    BinaryOperator::Arrow => Some("json_member"),
                    BinaryOperator::LongArrow => Some("json_member_text"),
                    _ => None,
                };
                Ok(name.map(|name| call(name, vec![(**left).clone(), (**right).clone()])))
            }
            Expr::Lambda(lambda) => Ok(of_arrow(lambda)),
            Expr::InList {
                expr,
                list,
                negated,
            } => Ok(of_rows(expr, list, *negated)),
            Expr::Cast {
                kind,
                expr,
                data_type,
                ..
            } => of_cast(kind, expr, data_type),
            _ => Ok(None),
        };
        match made {
            Ok(None) => ControlFlow::Continue(()),
            Ok(Some(made)) => {
                *expression = made;
                ControlFlow::Continue(())
            }
            Err((message, hint)) => ControlFlow::Break(Box::new(Refused {
                line,
                message,
                hint,
            })),
        }
    }
}

/// What is wrong, and what to write.
type Wrong = (String, String);

/// The expression that stands for another; `None` where the other stays.
type Made = Result<Option<Expr>, Wrong>;

fn wrong(message: impl Into<String>, hint: impl Into<String>) -> Made {
    Err((message.into(), hint.into()))
}

fn line_of(node: &dyn Spanned) -> Option<usize> {
    usize::try_from(node.span().start.line)
        .ok()
        .filter(|line| *line > 0)
}

/// The name of a function, if it is one word without quotes.
fn name_of(function: &Function) -> Option<(String, Span)> {
    let [ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else {
        return None;
    };
    let name = name.quote_style.is_none().then_some(name)?;
    Some((name.value.to_ascii_lowercase(), name.span))
}

/// The arguments of a function that are plain expressions.
fn arguments(function: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let arguments = list.args.iter().map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) => Some(argument.clone()),
        _ => None,
    });
    arguments.collect()
}

/// The text of a literal.
fn literal(expression: &Expr) -> Option<&str> {
    match expression {
        Expr::Value(ValueWithSpan {
            value: Value::SingleQuotedString(text),
            ..
        }) => Some(text),
        Expr::Nested(inner) => literal(inner),
        _ => None,
    }
}

fn number(number: i64) -> Expr {
    Expr::Value(Value::Number(number.to_string(), false).into())
}

/// A call of a function of the engine.
fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let arguments = arguments
        .into_iter()
        .map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)));
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: arguments.collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

fn of_function(function: &mut Function) -> Made {
    let Some((name, span)) = name_of(function) else {
        return Ok(None);
    };
    if let Some(instead) = instead_of(&name) {
        return wrong(format!("there is no function `{name}`"), instead);
    }
    let Some(arguments) = arguments(function) else {
        return Ok(None);
    };
    check_literals(&name, &arguments)?;
    match (name.as_str(), arguments.as_slice()) {
        ("try", [tried]) => return of_try(tried),
        ("concat", [first, rest @ ..]) if !rest.is_empty() => {
            let joined = rest
                .iter()
                .fold(first.clone(), |left, right| Expr::BinaryOp {
                    left: Box::new(left),
                    op: BinaryOperator::StringConcat,
                    right: Box::new(right.clone()),
                });
            return Ok(Some(Expr::Nested(Box::new(joined))));
        }
        ("at_timezone", [time, zone]) => {
            return match literal(zone) {
                Some(_) => Ok(Some(Expr::AtTimeZone {
                    timestamp: Box::new(time.clone()),
                    time_zone: Box::new(zone.clone()),
                })),
                None => wrong(
                    "the time zone of `at_timezone()` is not written out",
                    "write its name, such as `at_timezone(time, 'Asia/Seoul')`",
                ),
            };
        }
        ("slice", [list, start, length]) => return of_slice(list, start, length),
        ("sequence", [_, _]) => {
            return wrong(
                "`sequence()` without a step is not possible in a mart",
                "name the step: `sequence(1, 10, 1)`, or `sequence(day1, day2, INTERVAL '1' DAY)`",
            );
        }
        ("from_unixtime", [seconds, zone]) if literal(zone).is_some() => {
            return Ok(Some(Expr::AtTimeZone {
                timestamp: Box::new(call("from_unixtime", vec![seconds.clone()])),
                time_zone: Box::new(zone.clone()),
            }));
        }
        ("listagg", [_] | [_, _]) => return of_listagg(function, &arguments),
        ("approx_percentile", [values, share]) => {
            return of_percentile(function, values, share, span);
        }
        ("date_part", [part, time]) if literal(part).is_some() => {
            return Ok(of_part(literal(part).unwrap_or_default(), time));
        }
        _ => {}
    }
    if name == "regexp_replace" && arguments.len() == 3 {
        group_names(function);
    }
    let Some((_, forms)) = TEMPLATES.iter().find(|(other, _)| *other == name) else {
        return Ok(None);
    };
    let given = arguments.len();
    let Some((_, template)) = forms.iter().find(|(number, _)| *number == given) else {
        // The engine has the function with other arguments.
        if ["replace", "regexp_replace"].contains(&name.as_str()) {
            return Ok(None);
        }
        let numbers: Vec<String> = forms.iter().map(|(number, _)| number.to_string()).collect();
        return wrong(
            format!(
                "`{name}()` takes {} arguments, not {given}",
                numbers.join(" or ")
            ),
            "give it these arguments",
        );
    };
    let arguments = self::arguments(function).unwrap_or(arguments);
    filled(template, &name, &arguments, function, span)
}

/// Writes the groups `$1` of a replacement as `${1}`: behind a number, letters belong to the text.
fn group_names(function: &mut Function) {
    let FunctionArguments::List(list) = &mut function.args else {
        return;
    };
    let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(ValueWithSpan {
        value: Value::SingleQuotedString(text),
        ..
    })))) = list.args.get_mut(2)
    else {
        return;
    };
    let mut made = String::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            // A letter behind `\` stands for itself; a digit is a group, as DuckDB writes it.
            '\\' if letters.peek().is_some_and(|next| !next.is_ascii_digit()) => {
                match letters.next() {
                    Some('$') => made.push_str("$$"),
                    Some(other) => made.push(other),
                    None => {}
                }
            }
            '$' | '\\' if letters.peek().is_some_and(char::is_ascii_digit) => {
                made.push_str("${");
                while let Some(digit) = letters.next_if(char::is_ascii_digit) {
                    made.push(digit);
                }
                made.push('}');
            }
            other => made.push(other),
        }
    }
    *text = made;
}

/// Fills a template with the arguments and the clauses of a call.
fn filled(template: &str, name: &str, arguments: &[Expr], function: &Function, span: Span) -> Made {
    let (distinct, ordered) = match &function.args {
        FunctionArguments::List(list) => {
            (list.duplicate_treatment.is_some(), !list.clauses.is_empty())
        }
        _ => (false, false),
    };
    let aggregates = AGGREGATES.contains(&name);
    let clause = [
        (function.over.is_some() && !aggregates, "OVER"),
        (function.filter.is_some() && !aggregates, "FILTER"),
        (function.null_treatment.is_some(), "IGNORE or RESPECT NULLS"),
        (!function.within_group.is_empty(), "WITHIN GROUP"),
        (distinct, "DISTINCT"),
        (ordered, "ORDER BY"),
    ];
    if let Some((_, clause)) = clause.into_iter().find(|(there, _)| *there) {
        return wrong(
            format!("{clause} is not possible with `{name}()`"),
            "take it out",
        );
    }
    if function.over.is_some() && ["max_by", "min_by"].contains(&name) {
        return wrong(
            format!("OVER is not possible with `{name}()`"),
            "write `first_value(x) OVER (PARTITION BY … ORDER BY y DESC)`, or aggregate in a sub-query and join it",
        );
    }
    let parsed = Parser::new(&GenericDialect {})
        .try_with_sql(template)
        .and_then(|mut parser| parser.parse_expr());
    let Ok(mut made) = parsed else {
        return wrong(
            format!("`{name}()` cannot be spelled"),
            "report this message",
        );
    };
    let _ = VisitMut::visit(&mut made, &mut Filling { arguments, span });
    if let Expr::Function(made) = &mut made {
        made.over.clone_from(&function.over);
        if let Some(condition) = &function.filter {
            made.filter = Some(match made.filter.take() {
                None => condition.clone(),
                Some(own) => Box::new(Expr::BinaryOp {
                    left: Box::new(Expr::Nested(condition.clone())),
                    op: BinaryOperator::And,
                    right: own,
                }),
            });
        }
    }
    let is_operator = matches!(made, Expr::BinaryOp { .. });
    Ok(Some(match is_operator {
        true => Expr::Nested(Box::new(made)),
        false => made,
    }))
}

/// Puts the arguments into a template, and gives its functions a place.
struct Filling<'a> {
    arguments: &'a [Expr],
    span: Span,
}

impl VisitorMut for Filling<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
        match expression {
            Expr::Value(ValueWithSpan {
                value: Value::Placeholder(place),
                ..
            }) => {
                let place = place.trim_start_matches('$').parse::<usize>().ok();
                let argument = place.and_then(|place| self.arguments.get(place));
                if let Some(argument) = argument {
                    *expression = match argument {
                        Expr::BinaryOp { .. } => Expr::Nested(Box::new(argument.clone())),
                        other => other.clone(),
                    };
                }
            }
            // Parts of the template have their place in the template.
            Expr::Value(value) => value.span = self.span,
            Expr::Case {
                case_token,
                end_token,
                ..
            } => {
                case_token.0.span = self.span;
                end_token.0.span = self.span;
            }
            Expr::Function(function) => {
                for part in &mut function.name.0 {
                    if let ObjectNamePart::Identifier(name) = part {
                        name.span = self.span;
                    }
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Checks units, patterns and paths that are written out.
fn check_literals(name: &str, arguments: &[Expr]) -> Result<(), Wrong> {
    let written = |n: usize| arguments.get(n).and_then(literal);
    let checked = match name {
        "date_trunc" | "date_diff" | "date_add" => written(0).map(|unit| {
            functions::check_unit(unit, name).map_err(|message| {
                (
                    message,
                    "units are 'millisecond', 'second', 'minute', 'hour', 'day', 'week', 'month', 'quarter' and 'year'",
                )
            })
        }),
        "date_format" | "date_parse" => written(1).map(|pattern| {
            functions::check_format(pattern, Language::MySql)
                .map_err(|message| (message, "write for example '%Y-%m-%d %H:%i:%s'"))
        }),
        "format_datetime" | "parse_datetime" => written(1).map(|pattern| {
            functions::check_format(pattern, Language::Joda)
                .map_err(|message| (message, "write for example 'yyyy-MM-dd HH:mm:ss'"))
        }),
        "json_extract" | "json_extract_scalar" | "json_size" => written(1).map(|path| {
            functions::json::check_path(path)
                .map_err(|message| (message, "a member is `$.name`, an item of an array `$[0]`"))
        }),
        _ => None,
    };
    match checked {
        Some(Err((message, hint))) => {
            let (message, own) = match message.split_once(": ") {
                Some((message, own)) => (message.to_owned(), own.to_owned()),
                None => (message, hint.to_owned()),
            };
            Err((message, own))
        }
        _ => Ok(()),
    }
}

/// `try()`, which gives NULL in place of an error.
fn of_try(tried: &Expr) -> Made {
    match tried {
        Expr::Nested(inner) => of_try(inner),
        Expr::Cast {
            expr,
            data_type,
            array,
            format,
            ..
        } => Ok(Some(Expr::Cast {
            kind: CastKind::TryCast,
            expr: expr.clone(),
            data_type: data_type.clone(),
            array: *array,
            format: format.clone(),
        })),
        Expr::BinaryOp {
            left,
            op: op @ (BinaryOperator::Divide | BinaryOperator::Modulo),
            right,
        } => Ok(Some(Expr::Nested(Box::new(Expr::BinaryOp {
            left: left.clone(),
            op: op.clone(),
            right: Box::new(call("nullif", vec![(**right).clone(), number(0)])),
        })))),
        Expr::Function(function) => {
            let name = name_of(function).map(|(name, _)| name).unwrap_or_default();
            match READERS.contains(&name.as_str()) {
                true => {
                    let arguments = arguments(function).unwrap_or_default();
                    Ok(Some(call(&format!("try_{name}"), arguments)))
                }
                false => no_try(),
            }
        }
        _ => no_try(),
    }
}

fn no_try() -> Made {
    wrong(
        "`try()` catches the errors of a CAST, of a division and of functions that read a time from text",
        "write `TRY_CAST(x AS type)`, `x / nullif(y, 0)`, or a CASE that leaves the value out",
    )
}

/// A part of a list: from an item on, so many items.
fn of_slice(list: &Expr, start: &Expr, length: &Expr) -> Made {
    let is_positive = match start {
        Expr::Value(start) => {
            matches!(&start.value, Value::Number(number, _) if number.parse::<u64>().is_ok_and(|n| n > 0))
        }
        _ => false,
    };
    if !is_positive {
        return wrong(
            "the first item of `slice()` is not written out as a number from 1 on",
            "write `slice(xs, 1, 3)`",
        );
    }
    let sum = Expr::BinaryOp {
        left: Box::new(start.clone()),
        op: BinaryOperator::Plus,
        right: Box::new(Expr::Nested(Box::new(length.clone()))),
    };
    let end = Expr::BinaryOp {
        left: Box::new(sum),
        op: BinaryOperator::Minus,
        right: Box::new(number(1)),
    };
    Ok(Some(call(
        "array_slice",
        vec![list.clone(), start.clone(), end],
    )))
}

/// The least value that has the share of all values at or before it. It is exact, whatever the order of the rows.
fn of_percentile(function: &Function, values: &Expr, share: &Expr, span: Span) -> Made {
    const TEMPLATE: &str = "array_element(array_agg($0 ORDER BY $0) FILTER (WHERE $0 IS NOT NULL), \
                            greatest(CAST(ceil($1 * count($0)) AS bigint), 1))";
    if !matches!(share, Expr::Value(_)) {
        return wrong(
            "the share of `approx_percentile()` is not one number",
            "write `approx_percentile(x, 0.5)`, and a column for each share",
        );
    }
    let values = match &function.filter {
        None => values.clone(),
        Some(condition) => Expr::Case {
            case_token:
                datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken::empty(),
            end_token:
                datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken::empty(),
            operand: None,
            conditions: vec![datafusion::sql::sqlparser::ast::CaseWhen {
                condition: (**condition).clone(),
                result: values.clone(),
            }],
            else_result: None,
        },
    };
    let unfiltered = Function {
        filter: None,
        ..function.clone()
    };
    filled(
        TEMPLATE,
        "approx_percentile",
        &[values, share.clone()],
        &unfiltered,
        span,
    )
}

/// `date_part('year', t)`, as DuckDB has it; a Sunday is the day 0 of its week.
fn of_part(part: &str, time: &Expr) -> Option<Expr> {
    let part = part.to_ascii_lowercase();
    let name = match part.as_str() {
        "year" | "quarter" | "month" | "week" | "day" | "hour" | "minute" | "second" | "doy" => {
            &part
        }
        "isodow" => "day_of_week",
        "dow" => {
            return Some(Expr::Nested(Box::new(Expr::BinaryOp {
                left: Box::new(call("day_of_week", vec![time.clone()])),
                op: BinaryOperator::Modulo,
                right: Box::new(number(7)),
            })));
        }
        _ => return None,
    };
    Some(call(name, vec![time.clone()]))
}

/// `listagg(x, ',') WITHIN GROUP (ORDER BY y)` is `string_agg(x, ',' ORDER BY y)`.
fn of_listagg(function: &Function, arguments: &[Expr]) -> Made {
    if function.within_group.is_empty() {
        return wrong(
            "`listagg()` needs the order of its texts",
            "write `listagg(x, ',') WITHIN GROUP (ORDER BY y)`",
        );
    }
    let mut arguments = arguments.to_vec();
    if arguments.len() == 1 {
        arguments.push(Expr::Value(Value::SingleQuotedString(String::new()).into()));
    }
    let mut made = call("string_agg", arguments);
    if let Expr::Function(made) = &mut made
        && let FunctionArguments::List(list) = &mut made.args
    {
        let order: Vec<OrderByExpr> = function.within_group.clone();
        list.clauses
            .push(datafusion::sql::sqlparser::ast::FunctionArgumentClause::OrderBy(order));
        made.filter.clone_from(&function.filter);
        made.over.clone_from(&function.over);
    }
    Ok(Some(made))
}

/// `extract(dow FROM t)`, whose Sunday is 7 in Athena, and fields that only Athena names.
fn of_field(field: &DateTimeField, time: &Expr) -> Option<Expr> {
    let name = match field {
        DateTimeField::DayOfWeek | DateTimeField::Dow => "day_of_week",
        DateTimeField::DayOfYear | DateTimeField::Doy => "day_of_year",
        DateTimeField::Year => "year",
        DateTimeField::Quarter => "quarter",
        DateTimeField::Month => "month",
        DateTimeField::Week(None) => "week",
        DateTimeField::Day => "day",
        DateTimeField::Hour => "hour",
        DateTimeField::Minute => "minute",
        DateTimeField::Second => "second",
        DateTimeField::Custom(name) => {
            let known = [
                "yow",
                "year_of_week",
                "day_of_week",
                "day_of_year",
                "day_of_month",
            ];
            let found = known
                .into_iter()
                .find(|known| name.value.eq_ignore_ascii_case(known));
            return found.map(|name| call(name, vec![time.clone()]));
        }
        _ => return None,
    };
    Some(call(name, vec![time.clone()]))
}

/// `(a, b) IN ((1, 2), (3, NULL))` as comparisons of the parts, so that a NULL among them is not false.
fn of_rows(row: &Expr, list: &[Expr], negated: bool) -> Option<Expr> {
    let Expr::Tuple(parts) = row else {
        return None;
    };
    let joined = |left: Expr, op: BinaryOperator, right: Expr| Expr::BinaryOp {
        left: Box::new(left),
        op,
        right: Box::new(right),
    };
    let is_row = |other: &Expr| {
        let Expr::Tuple(others) = other else {
            return None;
        };
        if others.len() != parts.len() {
            return None;
        }
        let pairs = parts.iter().zip(others);
        let equal = pairs.map(|(a, b)| joined(a.clone(), BinaryOperator::Eq, b.clone()));
        let all = equal.reduce(|left, right| joined(left, BinaryOperator::And, right))?;
        Some(Expr::Nested(Box::new(all)))
    };
    let mut rows = list.iter().map(is_row).collect::<Option<Vec<_>>>()?;
    // Pairs are joined first, so that a long list does not nest deep.
    while rows.len() > 1 {
        let mut halves = Vec::with_capacity(rows.len() / 2 + 1);
        let mut rest = rows.into_iter();
        while let Some(left) = rest.next() {
            halves.push(match rest.next() {
                Some(right) => joined(left, BinaryOperator::Or, right),
                None => left,
            });
        }
        rows = halves;
    }
    let any = Expr::Nested(Box::new(rows.pop()?));
    Some(match negated {
        true => Expr::UnaryOp {
            op: datafusion::sql::sqlparser::ast::UnaryOperator::Not,
            expr: Box::new(any),
        },
        false => any,
    })
}

/// `j -> 'a'`, which the parser takes for a lambda where `j` is one word.
fn of_arrow(lambda: &LambdaFunction) -> Option<Expr> {
    let OneOrManyWithParens::One(parameter) = &lambda.params else {
        return None;
    };
    let mut made = (*lambda.body).clone();
    let key = leftmost(&mut made);
    if !is_key(key) {
        return None;
    }
    let json = Expr::Identifier(parameter.name.clone());
    *key = call("json_member", vec![json, key.clone()]);
    Some(made)
}

/// Whether what the parser takes for a lambda is an operator of JSON.
pub(crate) fn is_json_member(lambda: &LambdaFunction) -> bool {
    of_arrow(lambda).is_some()
}

/// Whether this is the right side of `->`.
fn is_key(expression: &Expr) -> bool {
    match expression {
        Expr::Value(value) => {
            matches!(
                value.value,
                Value::SingleQuotedString(_) | Value::Number(..)
            )
        }
        _ => false,
    }
}

/// The part of an expression that begins it.
fn leftmost(expression: &mut Expr) -> &mut Expr {
    match expression {
        Expr::BinaryOp { left: part, .. }
        | Expr::IsNull(part)
        | Expr::IsNotNull(part)
        | Expr::IsTrue(part)
        | Expr::IsFalse(part)
        | Expr::IsDistinctFrom(part, _)
        | Expr::IsNotDistinctFrom(part, _)
        | Expr::InList { expr: part, .. }
        | Expr::InSubquery { expr: part, .. }
        | Expr::Between { expr: part, .. }
        | Expr::Like { expr: part, .. }
        | Expr::ILike { expr: part, .. }
        | Expr::Cast {
            kind: CastKind::DoubleColon,
            expr: part,
            ..
        } => leftmost(part),
        other => other,
    }
}

/// A CAST of JSON: a scalar is its text, and an array the list of its items.
fn of_cast(kind: &CastKind, json: &Expr, to: &DataType) -> Made {
    let mut inner = json;
    while let Expr::Nested(nested) = inner {
        inner = nested;
    }
    let Expr::Function(function) = inner else {
        return Ok(None);
    };
    let is_json = name_of(function).is_some_and(|(name, _)| JSON.contains(&name.as_str()));
    if !is_json {
        return Ok(None);
    }
    let part = match to {
        DataType::Array(_) => "json_items",
        DataType::Map(..) | DataType::Struct(..) => {
            return wrong(
                format!("a CAST of JSON to {to} is not possible in a mart"),
                "take out each member with `json_extract_scalar(j, '$.name')`",
            );
        }
        _ => "json_scalar",
    };
    Ok(Some(Expr::Cast {
        kind: kind.clone(),
        expr: Box::new(call(part, vec![inner.clone()])),
        data_type: to.clone(),
        array: false,
        format: None,
    }))
}
