//! Forms of expressions and of SELECT that the parser knows from other databases.
//!
//! A mart also runs when it is pasted into Athena or DuckDB. So a form passes if Athena reads it, or if DuckDB reads it
//! in one way and people are used to it, such as `a::bigint`, QUALIFY or `* EXCLUDE (a)`. `docs/marts.md` lists these.
//! Any other form is refused with its line and the spelling that both read. Expressions are told apart without `_`, so
//! that a form which a later parser adds does not compile until somebody has decided about it.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Array, BinaryOperator, CastKind, CeilFloorKind, DataType, DateTimeField, Expr, ExtractSyntax,
    Function, FunctionArg, FunctionArgumentClause, FunctionArguments, Ident, Interval, LimitClause,
    SelectItem, TypedString, UnaryOperator, Value, WildcardAdditionalOptions, visit_expressions,
};

use crate::engine::is_json_member;

use super::{Clauses, PASSED, Passed, at, folded, line_of, shown};

/// What to write in the place of a form; `None` where the form is possible.
type Instead = Option<&'static str>;

impl Clauses<'_> {
    /// Refuses a form of an expression that only other databases read.
    pub(super) fn form(&self, expression: &Expr) -> Passed {
        let line = first_line(expression);
        if let Expr::Cast { data_type, .. } | Expr::TypedString(TypedString { data_type, .. }) =
            expression
        {
            self.kind(data_type, line)?;
        }
        match instead_of(expression) {
            None => PASSED,
            Some(instead) => {
                let text = shown(expression);
                self.fail(
                    line,
                    &format!("`{text}` is not possible in a mart"),
                    instead,
                )
            }
        }
    }

    /// Refuses a type that Athena does not have.
    fn kind(&self, kind: &DataType, line: Option<usize>) -> Passed {
        const TYPES: &str = "types are boolean, int, bigint, double, decimal(p, s), varchar, date, timestamp and arrays of \
                             these";
        let written = kind.to_string().to_ascii_lowercase();
        let unsigned =
            written.contains("unsigned") || written.starts_with('u') && written.contains("int");
        if unsigned {
            return self.fail(
                line,
                &format!("the type `{written}` is not possible in a mart"),
                "integers have a sign: write bigint",
            );
        }
        match kind {
            DataType::Character(_)
            | DataType::Char(_)
            | DataType::CharacterVarying(_)
            | DataType::CharVarying(_)
            | DataType::Varchar(_)
            | DataType::Text
            | DataType::String(_)
            | DataType::Varbinary(_)
            | DataType::Blob(_)
            | DataType::Bytea
            | DataType::Numeric(_)
            | DataType::Decimal(_)
            | DataType::Dec(_)
            | DataType::Float(_)
            | DataType::Float4
            | DataType::Float8
            | DataType::Real
            | DataType::Double(_)
            | DataType::DoublePrecision
            | DataType::TinyInt(_)
            | DataType::SmallInt(_)
            | DataType::Int2(_)
            | DataType::Int(_)
            | DataType::Integer(_)
            | DataType::Int4(_)
            | DataType::Int8(_)
            | DataType::BigInt(_)
            | DataType::Bool
            | DataType::Boolean
            | DataType::Date
            | DataType::Time(..)
            | DataType::Datetime(_)
            | DataType::Timestamp(..)
            | DataType::Interval { .. }
            | DataType::Array(_)
            | DataType::Map(..)
            | DataType::Struct(..) => PASSED,
            _ => self.fail(
                line,
                &format!("there is no type `{written}` in a mart"),
                TYPES,
            ),
        }
    }

    /// Refuses clauses and names among the arguments of a function, and a count of several values.
    pub(super) fn arguments(&self, function: &Function, line: Option<usize>) -> Passed {
        let FunctionArguments::List(list) = &function.args else {
            return PASSED;
        };
        let name = function.name.to_string();
        if list.args.len() > 1 && name.eq_ignore_ascii_case("count") {
            return self.fail(
                line,
                &format!("`{function}` counts more than one value"),
                "write `count(*) FILTER (WHERE a IS NOT NULL AND b IS NOT NULL)`, or count the rows of \
                 `(SELECT DISTINCT a, b FROM …)`",
            );
        }
        let named = list
            .args
            .iter()
            .find(|argument| !matches!(argument, FunctionArg::Unnamed(_)));
        if let Some(argument) = named {
            return self.fail(
                line,
                &format!("the argument `{argument}` with a name is not possible in a mart"),
                "give the arguments in their order, without names",
            );
        }
        let clause = list.clauses.iter().find(|clause| {
            !matches!(
                clause,
                FunctionArgumentClause::IgnoreOrRespectNulls(_)
                    | FunctionArgumentClause::OrderBy(_)
            )
        });
        match clause {
            None => PASSED,
            Some(clause) => self.fail(
                line,
                &format!("`{}` among the arguments is not possible in a mart", clause.to_string().trim()),
                "the separator of string_agg is its second argument; limit or filter the rows in a sub-query",
            ),
        }
    }

    /// Checks the columns of a SELECT, and notes their names.
    pub(super) fn items(&mut self, items: &[SelectItem], line: Option<usize>) -> Passed {
        if items.is_empty() {
            return self.fail(
                line,
                "the SELECT has no column",
                "write its columns, or `*`",
            );
        }
        items.iter().try_for_each(|item| match item {
            SelectItem::UnnamedExpr(_) => PASSED,
            SelectItem::ExprWithAlias { expr, alias } => {
                self.notes.aliases.push(folded(alias));
                self.name(alias, line_of(expr).or(line))
            }
            SelectItem::ExprWithAliases { .. } => self.fail(
                line_of(item),
                &format!("`{item}` gives one column several names"),
                "write each column by itself",
            ),
            SelectItem::QualifiedWildcard(_, options) | SelectItem::Wildcard(options) => {
                self.wildcard(options, line_of(item).or(line))
            }
        })
    }

    /// Refuses a name in single quotes; `line` is that of the column or table.
    pub(super) fn name(&self, name: &Ident, line: Option<usize>) -> Passed {
        match name.quote_style {
            Some('\'') => self.fail(
                at(name).or(line),
                &format!("{name} is a text, and no name"),
                &format!(
                    "write `AS \"{}\"`, or the name without quotes; texts are joined by `||`",
                    name.value
                ),
            ),
            _ => PASSED,
        }
    }

    /// Checks what stands behind a `*`.
    fn wildcard(&self, options: &WildcardAdditionalOptions, line: Option<usize>) -> Passed {
        let WildcardAdditionalOptions {
            wildcard_token: _,
            opt_ilike,
            opt_exclude: _,
            opt_except,
            opt_replace,
            opt_rename,
            opt_alias,
        } = options;
        let clauses = [
            (opt_ilike.is_some(), "ILIKE", "name the columns"),
            (
                opt_replace.is_some(),
                "REPLACE",
                "write `* EXCLUDE (a)` and the column that takes its place",
            ),
            (
                opt_except.is_some(),
                "EXCEPT",
                "write `* EXCLUDE (a, b)`, or name the columns",
            ),
            (opt_rename.is_some(), "RENAME", "name the columns with AS"),
            (opt_alias.is_some(), "AS", "name the columns with AS"),
        ];
        match clauses.into_iter().find(|(there, ..)| *there) {
            None => PASSED,
            Some((_, clause, instead)) => self.fail(
                self.line(line, clause),
                &format!("`*` with {clause} is not possible in a mart"),
                instead,
            ),
        }
    }

    /// Refuses a LIMIT whose numbers are not written out, or stand in the order of MySQL.
    pub(super) fn limit(&self, limit: Option<&LimitClause>, line: Option<usize>) -> Passed {
        let numbers = match limit {
            Some(LimitClause::LimitOffset { limit, offset, .. }) => {
                [limit.as_ref(), offset.as_ref().map(|offset| &offset.value)]
            }
            Some(LimitClause::OffsetCommaLimit { .. }) | None => [None, None],
        };
        let odd = numbers
            .into_iter()
            .flatten()
            .find(|number| !is_count(number));
        if let Some(odd) = odd {
            return self.fail(
                line_of(odd).or(line),
                &format!("`{}` is no number of rows", shown(odd)),
                "write a whole number, 0 or more",
            );
        }
        match limit {
            Some(LimitClause::OffsetCommaLimit { offset, limit }) => self.fail(
                self.line(line, "LIMIT"),
                &format!("`LIMIT {offset}, {limit}` is not possible in a mart"),
                &format!("write `LIMIT {limit} OFFSET {offset}`"),
            ),
            Some(LimitClause::LimitOffset { .. }) | None => PASSED,
        }
    }
}

/// The line of an expression, or of the first of its parts whose place the parser keeps.
fn first_line(expression: &Expr) -> Option<usize> {
    let found = visit_expressions(expression, |part| match line_of(part) {
        Some(line) => ControlFlow::Break(line),
        None => ControlFlow::Continue(()),
    });
    found.break_value()
}

/// Whether a number of rows is written out.
fn is_count(expression: &Expr) -> bool {
    let Expr::Value(value) = expression else {
        return false;
    };
    matches!(&value.value, Value::Number(number, false) if number.parse::<u64>().is_ok())
}

/// What to write in the place of an expression.
fn instead_of(expression: &Expr) -> Instead {
    const PATTERN: &str = "write LIKE, or `regexp_like(text, pattern)`";
    const JSON: &str = "write `json_extract_scalar(json, '$.name')`";
    match expression {
        Expr::Identifier(_)
        | Expr::CompoundIdentifier(_)
        | Expr::CompoundFieldAccess { .. }
        | Expr::IsFalse(_)
        | Expr::IsNotFalse(_)
        | Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotUnknown(_)
        | Expr::IsDistinctFrom(..)
        | Expr::IsNotDistinctFrom(..)
        | Expr::InSubquery { .. }
        | Expr::Between { .. }
        | Expr::AnyOp { .. }
        | Expr::AllOp { .. }
        | Expr::Position { .. }
        | Expr::Substring { .. }
        | Expr::Trim { .. }
        | Expr::Nested(_)
        | Expr::Value(_)
        | Expr::Case { .. }
        | Expr::Exists { .. }
        | Expr::Subquery(_)
        | Expr::GroupingSets(_)
        | Expr::Cube(_)
        | Expr::Rollup(_)
        | Expr::Tuple(_)
        | Expr::Dictionary(_)
        | Expr::Map(_)
        | Expr::Array(Array { .. })
        | Expr::Wildcard(_)
        | Expr::QualifiedWildcard(..) => None,
        Expr::AtTimeZone { time_zone, .. } => zone(time_zone),
        Expr::Function(function) => odbc(function.uses_odbc_syntax),
        Expr::TypedString(typed) => odbc(typed.uses_odbc_syntax),
        Expr::BinaryOp { op, .. } => instead_of_operator(op),
        Expr::UnaryOp { op, .. } => instead_of_prefix(op),
        Expr::InList { list, .. } => {
            (list.is_empty()).then_some("write what is in the list; `x IN (NULL)` is never true")
        }
        Expr::Like { any, .. } | Expr::ILike { any, .. } => {
            any.then_some("write a LIKE for each pattern, joined by OR")
        }
        Expr::SimilarTo { .. } | Expr::RLike { .. } => Some(PATTERN),
        Expr::Cast { .. } => cast(expression),
        Expr::Convert { .. } => Some("write `CAST(x AS type)`"),
        Expr::Extract { syntax, .. } => {
            (*syntax == ExtractSyntax::Comma).then_some("write `extract(hour FROM time)`")
        }
        Expr::Ceil { field, .. } | Expr::Floor { field, .. } => rounding(field),
        Expr::Interval(interval) => span(interval),
        Expr::Overlay { .. } => Some("write `substr(text, 1, 3) || 'new' || substr(text, 6)`"),
        Expr::InUnnest { .. } | Expr::MemberOf(_) => Some("write `contains(list, x)`"),
        Expr::IsNormalized { .. } => Some("compare with `normalize(text)` where the text is made"),
        Expr::JsonAccess { .. } => Some(JSON),
        Expr::Collate { .. } => Some(
            "texts are compared by their bytes: write `lower(text)` where case does not matter",
        ),
        Expr::Struct { .. } | Expr::Named { .. } => Some("write `named_struct('a', 1)`"),
        Expr::Lambda(lambda) => (!is_json_member(lambda)).then_some(
            "a mart has no lambdas: write `FROM t CROSS JOIN UNNEST(list) AS u (x)`, and aggregate the items",
        ),
        Expr::Prefixed { .. } => Some("write `'…'`"),
        Expr::MatchAgainst { .. } => Some(PATTERN),
        Expr::OuterJoin(_) => Some("write `LEFT JOIN … ON …`"),
        Expr::Prior(_) => Some("write WITH RECURSIVE"),
    }
}

/// What to write in the place of a time zone that is not written out.
fn zone(zone: &Expr) -> Instead {
    let is_text = match zone {
        Expr::Value(zone) => matches!(zone.value, Value::SingleQuotedString(_)),
        _ => false,
    };
    (!is_text).then_some("write the name of the time zone, such as `AT TIME ZONE 'Asia/Seoul'`")
}

/// What to write in the place of a cast.
fn cast(expression: &Expr) -> Instead {
    let Expr::Cast {
        kind,
        expr: _,
        data_type: _,
        array,
        format,
    } = expression
    else {
        return None;
    };
    match (kind, array, format) {
        (CastKind::SafeCast, ..) => Some("write `TRY_CAST(x AS type)`"),
        (_, true, _) | (.., Some(_)) => Some("write `CAST(x AS type)` without more clauses"),
        (CastKind::Cast | CastKind::TryCast | CastKind::DoubleColon, false, None) => None,
    }
}

/// What to write in the place of CEIL and FLOOR with a unit.
fn rounding(field: &CeilFloorKind) -> Instead {
    match field {
        CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) => None,
        CeilFloorKind::DateTimeField(_) => Some("write `date_trunc('day', time)`"),
        CeilFloorKind::Scale(_) => Some("write `ceil(x * 100) / 100`, or `round(x, 2)`"),
    }
}

/// What to write in the place of an INTERVAL of several units.
fn span(interval: &Interval) -> Instead {
    let Interval {
        value: _,
        leading_field: _,
        leading_precision,
        last_field,
        fractional_seconds_precision,
    } = interval;
    let more = leading_precision.is_some()
        || last_field.is_some()
        || fractional_seconds_precision.is_some();
    more.then_some("write one unit at a time, such as `INTERVAL '1' DAY + INTERVAL '2' HOUR`")
}

/// What to write in the place of an operator in front of a value.
fn instead_of_prefix(operator: &UnaryOperator) -> Instead {
    match operator {
        UnaryOperator::Plus | UnaryOperator::Minus | UnaryOperator::Not => None,
        UnaryOperator::BitwiseNot => Some("write `-1 - x`"),
        _ => Some("Athena has the operators +, - and NOT in front of a value"),
    }
}

/// What to write in the place of the braces of ODBC.
fn odbc(is_odbc: bool) -> Instead {
    is_odbc.then_some("write it without the braces")
}

/// What to write in the place of an operator between two values.
fn instead_of_operator(operator: &BinaryOperator) -> Instead {
    use BinaryOperator as B;
    match operator {
        B::Plus
        | B::Minus
        | B::Multiply
        | B::Divide
        | B::Modulo
        | B::StringConcat
        | B::Gt
        | B::Lt
        | B::GtEq
        | B::LtEq
        | B::Eq
        | B::NotEq
        | B::And
        | B::Or
        | B::BitwiseAnd
        | B::BitwiseOr
        | B::PGBitwiseShiftLeft
        | B::PGBitwiseShiftRight
        | B::Arrow
        | B::LongArrow => None,
        B::Xor => Some("write `a <> b`"),
        B::BitwiseXor | B::PGBitwiseXor | B::PGExp => Some("write `power(a, b)`"),
        B::MyIntegerDivide => Some("write `/`: an integer divided by an integer is an integer"),
        B::PGRegexMatch | B::Regexp | B::Match => Some("write `regexp_like(text, pattern)`"),
        B::Overlaps => Some("write `a < d AND c < b`"),
        _ => Some("write it with a function or an operator that Athena has"),
    }
}
