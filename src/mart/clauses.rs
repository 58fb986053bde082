//! The clauses of a mart's SQL: each is carried out, or refused with its line before the SELECT is planned.
//!
//! ```text
//! text ─▶ spellings of other databases
//! query ─▶ CTEs ─▶ SELECT ─▶ tables, joins, aliases ─▶ expressions ─▶ windows
//!   └── taken apart field by field                                    └─▶ Notes, for errors of planning
//! ```
//!
//! The parser accepts the clauses of many databases, and the planner ignores most of the clauses that
//! it does not know: the mart would have other rows than its text says. A syntax node that has a field for each
//! clause is taken apart without `..`, so that a clause which a later parser adds does not compile
//! until somebody has decided what becomes of it.

mod forms;
mod notes;
pub(super) mod spelling;
mod tables;
mod windows;

#[cfg(test)]
mod tests;

pub(super) use notes::{Beside, Call, DateUse, Differing, Notes, Recursion};

use std::ops::ControlFlow;
use std::path::Path;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DateTimeField, Distinct, DuplicateTreatment, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentList, FunctionArguments, GroupByExpr, Ident, LimitClause,
    ObjectName, OrderBy, OrderByKind, Query, Select, SelectFlavor, SetExpr, SetOperator,
    SetQuantifier, Spanned, TableFactor, Visit, Visitor, WindowType,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer};

use super::{MartError, differs};
use crate::engine::reads_too_far;
use crate::layout::DATE;

/// Checks that a query is one plain SELECT over named tables; `text` is the whole file.
///
/// # Errors
/// A clause that is not carried out, with its line.
pub(super) fn check(file: &Path, text: &str, query: &Query) -> Result<Notes, MartError> {
    // The text has been parsed, so it can be cut into tokens.
    let tokens = Tokenizer::new(&GenericDialect {}, text)
        .tokenize_with_location()
        .unwrap_or_default();
    let words = tokens
        .into_iter()
        .filter_map(|token| match token.token {
            Token::Word(word) if word.quote_style.is_none() => {
                Some((token.span.start, word.value.to_ascii_uppercase()))
            }
            _ => None,
        })
        .collect();
    let mut clauses = Clauses {
        file,
        text,
        words,
        notes: Notes::default(),
    };
    match query.visit(&mut clauses) {
        ControlFlow::Break(error) => Err(*error),
        ControlFlow::Continue(()) => Ok(clauses.notes),
    }
}

/// The check of one file, while it walks over the query.
struct Clauses<'a> {
    file: &'a Path,
    text: &'a str,
    /// Words of the text in capitals, each with its place.
    words: Vec<(Location, String)>,
    notes: Notes,
}

/// Characters of an expression that are told.
const SHOWN: usize = 80;

/// Whether the walk goes on.
type Passed = ControlFlow<Box<MartError>>;

const PASSED: Passed = ControlFlow::Continue(());

impl Clauses<'_> {
    fn fail(&self, line: Option<usize>, message: &str, hint: &str) -> Passed {
        ControlFlow::Break(Box::new(
            MartError::new(self.file, line, message).hint(hint),
        ))
    }

    /// The line of the first word of `clause`, looked for from the line `from` on. The parser keeps the place of
    /// few clauses.
    fn line(&self, from: Option<usize>, clause: &str) -> Option<usize> {
        let first = clause.split(' ').next().unwrap_or_default();
        let lines = self.words.iter().filter(|(_, word)| word == first);
        let mut lines = lines.filter_map(|(place, _)| usize::try_from(place.line).ok());
        lines.find(|line| Some(*line) >= from).or(from)
    }

    /// Whether AS stands between the name of a WITH query and the query.
    fn has_as(&self, name: &Ident) -> bool {
        const QUERY: [&str; 5] = ["AS", "SELECT", "WITH", "FROM", "VALUES"];
        let end = name.span.end;
        let behind = self.words.iter().filter(|(place, _)| *place >= end);
        let mut words = behind.map(|(_, word)| word.as_str());
        // The parser keeps the place of every name of a WITH query.
        end.line == 0 || words.find(|word| QUERY.contains(word)) == Some("AS")
    }

    /// Refuses the first of the clauses whose flag is set.
    fn without(&self, from: Option<usize>, clauses: &[(bool, &str)]) -> Passed {
        match clauses.iter().find(|(there, _)| *there) {
            None => PASSED,
            Some((_, clause)) => self.fail(
                self.line(from, clause),
                &format!("{clause} is not possible in a mart"),
                "it would be ignored: take it out, or write it in plain SQL",
            ),
        }
    }

    /// Checks how SELECTs are combined.
    fn body(&self, body: &SetExpr) -> Passed {
        match body {
            SetExpr::Select(_) | SetExpr::Query(_) => PASSED,
            SetExpr::Values(values) => {
                let first = values.rows.first().map_or(0, |row| row.len());
                match values.rows.iter().find(|row| row.len() != first) {
                    None => PASSED,
                    Some(row) => self.fail(
                        row.iter().find_map(|value| line_of(value)),
                        &format!(
                            "a row of VALUES has {} values, and the first row has {first}",
                            row.len()
                        ),
                        "give each the same number; a value that is missing is NULL",
                    ),
                }
            }
            SetExpr::SetOperation {
                op,
                set_quantifier,
                left,
                right,
            } => {
                if *op == SetOperator::Minus {
                    return self.fail(
                        line_of(&**right),
                        "MINUS is not possible in a mart",
                        "write EXCEPT",
                    );
                }
                let counted = !matches!(
                    set_quantifier,
                    SetQuantifier::None | SetQuantifier::Distinct
                );
                if *op != SetOperator::Union && counted {
                    // The planner makes a semi join, which does not count equal rows.
                    return self.fail(
                        line_of(&**right),
                        &format!("{op} {set_quantifier} is not possible in a mart"),
                        "without ALL, equal rows become one row; to count equal rows, number them on both sides \
                         with row_number() OVER (PARTITION BY all columns), and leave out ALL",
                    );
                }
                self.body(left)?;
                self.body(right)
            }
            other => ControlFlow::Break(Box::new(only_select(
                self.file,
                line_of(other),
                &other.to_string(),
            ))),
        }
    }

    /// Notes a function that Athena and DuckDB answer differently.
    fn differing(&mut self, function: &Function) {
        let given = match &function.args {
            FunctionArguments::List(list) => list.args.len(),
            _ => 0,
        };
        let name = function.name.to_string().to_lowercase();
        if let Some(what) = differs::of_call(&name, given) {
            let line = line_of(&function.name);
            self.notes.differing.push(Differing { what, line });
        }
    }

    /// Notes a function that is given the column `dt`.
    fn dates_of(&mut self, function: &Function) {
        let FunctionArguments::List(list) = &function.args else {
            return;
        };
        let given = list.args.iter().any(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) => is_date(argument),
            _ => false,
        });
        if given {
            self.notes.dates.push(DateUse {
                function: Some(function.name.to_string().to_lowercase()),
                text: function.to_string(),
                line: line_of(&function.name),
            });
        }
    }

    /// Checks a function call, and notes a clause that only aggregates and windows have.
    fn call(&mut self, function: &Function) -> Passed {
        let Function {
            name,
            uses_odbc_syntax: _,
            parameters,
            args,
            filter,
            null_treatment,
            over,
            within_group,
        } = function;
        let line = line_of(name);
        if *parameters != FunctionArguments::None {
            return self.fail(
                line,
                &format!("`{name}(…)(…)` is not possible in a mart"),
                "a function has one list of arguments",
            );
        }
        self.arguments(function, line)?;
        if let Some(WindowType::WindowSpec(window)) = over {
            self.window(window, line)?;
        }
        if over.is_some()
            && let [part] = name.0.as_slice()
            && let Some(ident) = part.as_ident()
        {
            self.over_window(function, &ident.value.to_lowercase(), line)?;
        }
        let (distinct, clauses) = match args {
            FunctionArguments::None => (false, false),
            FunctionArguments::Subquery(_) => {
                return self.fail(
                    line,
                    &format!("`{name}` of a SELECT is not possible in a mart"),
                    "put the SELECT into parentheses of its own",
                );
            }
            FunctionArguments::List(FunctionArgumentList {
                duplicate_treatment,
                args: _,
                clauses,
            }) => (
                *duplicate_treatment == Some(DuplicateTreatment::Distinct),
                !clauses.is_empty(),
            ),
        };
        let clause = [
            (over.is_some(), "OVER"),
            (filter.is_some(), "FILTER"),
            (!within_group.is_empty(), "WITHIN GROUP"),
            (null_treatment.is_some(), "IGNORE or RESPECT NULLS"),
            (distinct, "DISTINCT"),
            (clauses, "ORDER BY or IGNORE NULLS"),
        ]
        .into_iter()
        .find(|(there, _)| *there);
        if let (Some((_, clause)), [part]) = (clause, name.0.as_slice())
            && let Some(ident) = part.as_ident()
        {
            let function = match ident.quote_style {
                Some(_) => ident.value.clone(),
                None => ident.value.to_lowercase(),
            };
            self.notes.calls.push(Call {
                function,
                clause,
                line,
            });
        }
        PASSED
    }
}

impl Visitor for Clauses<'_> {
    type Break = Box<MartError>;

    fn pre_visit_query(&mut self, query: &Query) -> Passed {
        let Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        if let Some(with) = with {
            self.with(with)?;
        }
        self.body(body)?;
        let line = usize::try_from(body.span().end.line)
            .ok()
            .filter(|line| *line > 0);
        let limit_by = matches!(
            limit_clause,
            Some(LimitClause::LimitOffset { limit_by, .. }) if !limit_by.is_empty()
        );
        let lock = locks.first().map(|lock| format!("FOR {}", lock.lock_type));
        self.without(
            line,
            &[
                (fetch.is_some(), "FETCH"),
                (lock.is_some(), lock.as_deref().unwrap_or_default()),
                (for_clause.is_some(), "FOR"),
                (settings.is_some(), "SETTINGS"),
                (format_clause.is_some(), "FORMAT"),
                (limit_by, "LIMIT BY"),
            ],
        )?;
        self.limit(limit_clause.as_ref(), line)?;
        if !pipe_operators.is_empty() {
            return self.fail(
                line,
                "`|>` is not possible in a mart",
                "a mart is one plain SELECT",
            );
        }
        if let Some(order_by) = order_by {
            let OrderBy { kind, interpolate } = order_by;
            let all = matches!(kind, OrderByKind::All(_));
            let one = matches!(**body, SetExpr::Select(_));
            self.without(
                line,
                &[
                    (interpolate.is_some(), "INTERPOLATE"),
                    (all && !one, "ORDER BY ALL behind more than one SELECT"),
                ],
            )?;
            self.no_named_window(order_by)?;
        }
        PASSED
    }

    fn pre_visit_select(&mut self, select: &Select) -> Passed {
        let Select {
            select_token: _,
            optimizer_hints,
            distinct,
            select_modifiers,
            top,
            top_before_distinct: _,
            projection,
            exclude,
            into,
            from,
            lateral_views,
            prewhere,
            selection: _,
            connect_by,
            group_by,
            cluster_by,
            distribute_by,
            sort_by,
            having: _,
            named_window,
            qualify,
            window_before_qualify: _,
            value_table_mode,
            flavor,
        } = select;
        let line = line_of(select);
        if into.is_some() {
            return self.fail(
                self.line(line, "INTO"),
                "SELECT INTO is not possible in a mart",
                "the file's name is the table that is made",
            );
        }
        let (GroupByExpr::All(grouping) | GroupByExpr::Expressions(_, grouping)) = group_by;
        let grouping = grouping.first().map(ToString::to_string);
        let value = value_table_mode.as_ref().map(ToString::to_string);
        self.without(
            line,
            &[
                (!optimizer_hints.is_empty(), "an optimizer hint"),
                (select_modifiers.is_some(), "a modifier of MySQL"),
                (top.is_some(), "TOP"),
                (exclude.is_some(), "EXCLUDE without a `*`"),
                (!lateral_views.is_empty(), "LATERAL VIEW"),
                (prewhere.is_some(), "PREWHERE"),
                (!connect_by.is_empty(), "CONNECT BY"),
                (grouping.is_some(), grouping.as_deref().unwrap_or_default()),
                (!cluster_by.is_empty(), "CLUSTER BY"),
                (!distribute_by.is_empty(), "DISTRIBUTE BY"),
                (!sort_by.is_empty(), "SORT BY"),
                (value.is_some(), value.as_deref().unwrap_or_default()),
                // `FROM t SELECT a` is carried out.
                (
                    *flavor == SelectFlavor::FromFirstNoSelect,
                    "FROM without a SELECT",
                ),
            ],
        )?;
        self.items(projection, line)?;
        self.twice(from)?;
        for from in from {
            self.joins(from)?;
        }
        self.named_windows(named_window)?;
        if let Some(Distinct::On(keys)) = distinct {
            self.no_named_window(keys)?;
        }
        if let Some(qualify) = qualify {
            self.no_named_window(qualify)?;
        }
        PASSED
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> Passed {
        self.relation(relation)
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> Passed {
        self.table(factor)
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> Passed {
        self.form(expression)?;
        match expression {
            Expr::Extract {
                field: DateTimeField::Dow | DateTimeField::DayOfWeek,
                ..
            } => {
                self.notes.differing.push(Differing {
                    what: "extract(dow FROM t)",
                    line: line_of(expression),
                });
                PASSED
            }
            Expr::Function(function) => {
                self.dates_of(function);
                self.differing(function);
                self.call(function)
            }
            _ if reads_too_far(expression) => self.fail(
                line_of(expression),
                "AND or OR behind IS DISTINCT FROM would be read as a part of the comparison",
                "put the comparison into parentheses: `(a IS DISTINCT FROM b) AND c`",
            ),
            Expr::BinaryOp {
                left,
                op: BinaryOperator::Plus | BinaryOperator::Minus,
                right,
            } => {
                if is_date(left) || is_date(right) {
                    self.notes.dates.push(DateUse {
                        function: None,
                        text: expression.to_string(),
                        line: line_of(expression),
                    });
                }
                PASSED
            }
            _ => PASSED,
        }
    }
}

/// The last part of a column's name.
fn column(expression: &Expr) -> Option<&Ident> {
    match expression {
        Expr::Identifier(name) => Some(name),
        Expr::CompoundIdentifier(parts) => parts.last(),
        _ => None,
    }
}

/// Whether an expression is the column `dt`.
fn is_date(expression: &Expr) -> bool {
    match expression {
        Expr::Nested(inner) => is_date(inner),
        other => column(other).is_some_and(|name| name.value.eq_ignore_ascii_case(DATE)),
    }
}

/// The name as the planner folds it.
fn folded(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_lowercase(),
    }
}

/// The line of a name.
fn at(name: &Ident) -> Option<usize> {
    usize::try_from(name.span.start.line)
        .ok()
        .filter(|line| *line > 0)
}

/// A refusal of a statement that is no SELECT; `text` is the statement.
pub(super) fn only_select(file: &Path, line: Option<usize>, text: &str) -> MartError {
    let verb = text
        .split_whitespace()
        .next()
        .unwrap_or("this")
        .to_uppercase();
    MartError::new(file, line, format!("{verb} is not possible in a mart"))
        .hint("a mart is one plain SELECT")
}

/// An expression as messages show it.
pub(super) fn shown(expression: &Expr) -> String {
    let text = expression.to_string();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(SHOWN) {
        None => text,
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

/// The line on which a part of the SQL begins, from 1.
pub(super) fn line_of(node: &dyn Spanned) -> Option<usize> {
    usize::try_from(node.span().start.line)
        .ok()
        .filter(|line| *line > 0)
}

/// The SELECT that names the output columns: the first of a UNION.
pub(super) fn leftmost(body: &SetExpr) -> Option<&Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::Query(query) => leftmost(&query.body),
        SetExpr::SetOperation { left, .. } => leftmost(left),
        _ => None,
    }
}
