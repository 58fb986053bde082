//! The gate that the text of a mart passes before it is planned.
//!
//! ```text
//! query ─▶ CTEs ─▶ SELECT ─▶ tables, joins, aliases ─▶ expressions
//!   └── taken apart field by field: a clause is carried out, or refused with its line
//! ```
//!
//! The parser takes the clauses of many databases, and the planner passes over most of those that
//! it does not know: the mart would have other rows than its text says. What has a field for each
//! clause is taken apart without `..`, so that a clause which a later parser adds does not compile
//! until somebody has looked at what becomes of it.

use std::ops::ControlFlow;
use std::path::Path;

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Cte, Distinct, DuplicateTreatment, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList, FunctionArguments, GroupByExpr,
    Ident, Join, JoinOperator, LimitClause, NamedWindowDefinition, NamedWindowExpr, NullTreatment,
    ObjectName, OrderBy, OrderByKind, Query, Select, SelectFlavor, SelectItem, SetExpr,
    SetOperator, SetQuantifier, Spanned, TableAlias, TableAliasColumnDef, TableFactor,
    TableSampleKind, TableSampleModifier, TableVersion, TableWithJoins, Value, ValueWithSpan,
    Visit, Visitor, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowSpec, WindowType, With,
    visit_expressions,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::MartError;
use super::reach::DATE;
use super::select::{leftmost, line_of, only_select};
use crate::engine::reads_too_far;

/// What the gate has seen of a SELECT that passed.
pub(super) struct Seen {
    /// Names after FROM and JOIN as the planner folds them, with their lines.
    pub relations: Vec<(String, Option<usize>)>,
    pub calls: Vec<Call>,
    /// Lists and sub-queries after FROM that may read the tables beside them.
    pub beside: Vec<Beside>,
    /// Where the column `dt` is calculated with or given to a function.
    pub dates: Vec<DateUse>,
    pub recursions: Vec<Recursion>,
}

/// An item of FROM that reads columns of a table beside it.
pub(super) struct Beside {
    /// `UNNEST(e.params)`, or LATERAL.
    pub text: String,
    pub line: Option<usize>,
    /// A form of the same that can be carried out.
    pub instead: String,
}

/// The column `dt` as an operand.
pub(super) struct DateUse {
    /// The function; `None` stands for an operator.
    pub function: Option<String>,
    pub text: String,
    pub line: Option<usize>,
}

/// The SELECT of a recursive query that may read the query itself.
pub(super) struct Recursion {
    pub name: String,
    pub line: Option<usize>,
    /// Which of its columns are written as a CAST.
    pub casts: Vec<bool>,
}

/// A function call with a clause that means something for aggregates and windows only.
pub(super) struct Call {
    pub function: String,
    pub clause: &'static str,
    pub line: Option<usize>,
}

/// Refuses what a plain SELECT over named tables does not hold; `text` is the whole file.
pub(super) fn pass(file: &Path, text: &str, query: &Query) -> Result<Seen, MartError> {
    // It has been parsed, so it can be cut into tokens.
    let tokens = Tokenizer::new(&GenericDialect {}, text)
        .tokenize_with_location()
        .unwrap_or_default();
    let words = tokens
        .into_iter()
        .filter_map(|token| match token.token {
            Token::Word(word) if word.quote_style.is_none() => {
                let line = usize::try_from(token.span.start.line).ok()?;
                Some((line, word.value.to_ascii_uppercase()))
            }
            _ => None,
        })
        .collect();
    let mut gate = Gate {
        file,
        text,
        words,
        seen: Seen {
            relations: Vec::new(),
            calls: Vec::new(),
            beside: Vec::new(),
            dates: Vec::new(),
            recursions: Vec::new(),
        },
    };
    match query.visit(&mut gate) {
        ControlFlow::Break(error) => Err(*error),
        ControlFlow::Continue(()) => Ok(gate.seen),
    }
}

struct Gate<'a> {
    file: &'a Path,
    text: &'a str,
    /// Words of the text in capitals, each with its line.
    words: Vec<(usize, String)>,
    seen: Seen,
}

type Passed = ControlFlow<Box<MartError>>;

const PASSED: Passed = ControlFlow::Continue(());

impl Gate<'_> {
    fn fail(&self, line: Option<usize>, message: &str, hint: &str) -> Passed {
        ControlFlow::Break(Box::new(
            MartError::new(self.file, line, message).hint(hint),
        ))
    }

    /// The line of the first word of `clause`, looked for from `from` on; few clauses have a place
    /// of their own in the parser.
    fn line(&self, from: Option<usize>, clause: &str) -> Option<usize> {
        let first = clause.split(' ').next().unwrap_or_default();
        self.words
            .iter()
            .find(|(line, word)| Some(*line) >= from && word == first)
            .map(|(line, _)| *line)
            .or(from)
    }

    /// Refuses the first of `clauses` that is there.
    fn without(&self, from: Option<usize>, clauses: &[(bool, &str)]) -> Passed {
        match clauses.iter().find(|(there, _)| *there) {
            None => PASSED,
            Some((_, clause)) => self.fail(
                self.line(from, clause),
                &format!("{clause} is not possible in a mart"),
                "it would be passed over: take it out, or say it in plain SQL",
            ),
        }
    }

    fn body(&self, body: &SetExpr) -> Passed {
        match body {
            SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => PASSED,
            SetExpr::SetOperation {
                op,
                set_quantifier,
                left,
                right,
            } => {
                let counted = !matches!(
                    set_quantifier,
                    SetQuantifier::None | SetQuantifier::Distinct
                );
                if *op != SetOperator::Union && counted {
                    // The planner makes a semi join of it, which does not count equal rows.
                    return self.fail(
                        line_of(&**right),
                        &format!("{op} {set_quantifier} is not possible in a mart"),
                        "without ALL equal rows are one; to count them, number them on both sides with row_number() OVER (PARTITION BY all columns) and use it without ALL",
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

    fn with(&mut self, with: &With) -> Passed {
        let With {
            with_token: _,
            recursive,
            cte_tables,
        } = with;
        for cte in cte_tables {
            let Cte {
                alias,
                query,
                from,
                materialized,
                closing_paren_token: _,
            } = cte;
            let line = at(&alias.name);
            self.without(
                line,
                &[
                    (from.is_some(), "FROM behind a WITH query"),
                    (materialized.is_some(), "MATERIALIZED"),
                ],
            )?;
            self.alias(Some(alias))?;
            // Of a UNION that may read itself the planner takes the two sides alone.
            let union = matches!(
                &*query.body,
                SetExpr::SetOperation {
                    op: SetOperator::Union,
                    ..
                }
            );
            if *recursive
                && union
                && (query.with.is_some()
                    || query.order_by.is_some()
                    || query.limit_clause.is_some())
            {
                return self.fail(
                    line,
                    &format!(
                        "WITH, ORDER BY and LIMIT are not possible in the recursive query `{}`",
                        alias.name
                    ),
                    "put them into the SELECT that reads it",
                );
            }
            if *recursive && let SetExpr::SetOperation { right, .. } = &*query.body {
                let select = leftmost(right);
                let items = select.map_or(&[][..], |select| select.projection.as_slice());
                self.seen.recursions.push(Recursion {
                    name: folded(&alias.name),
                    line: select.and_then(|select| line_of(select)).or(line),
                    casts: items.iter().map(is_cast).collect(),
                });
            }
        }
        PASSED
    }

    fn alias(&self, alias: Option<&TableAlias>) -> Passed {
        let Some(alias) = alias else {
            return PASSED;
        };
        let TableAlias {
            explicit: _,
            name,
            columns,
            at: index,
        } = alias;
        let line = at(name);
        self.without(line, &[(index.is_some(), "AT")])?;
        for column in columns {
            let TableAliasColumnDef { name, data_type } = column;
            if data_type.is_some() {
                return self.fail(
                    at(name),
                    &format!("a type for `{name}` is not possible in an alias"),
                    "write a CAST in the SELECT",
                );
            }
        }
        PASSED
    }

    fn joins(&self, from: &TableWithJoins) -> Passed {
        use JoinOperator as J;
        let TableWithJoins { relation: _, joins } = from;
        for join in joins {
            let Join {
                relation,
                global,
                join_operator,
            } = join;
            let line = line_of(relation);
            self.without(line, &[(*global, "GLOBAL")])?;
            match join_operator {
                J::Join(_)
                | J::Inner(_)
                | J::Left(_)
                | J::LeftOuter(_)
                | J::Right(_)
                | J::RightOuter(_)
                | J::FullOuter(_)
                | J::CrossJoin(_)
                | J::LeftSemi(_)
                | J::RightSemi(_)
                | J::LeftAnti(_)
                | J::RightAnti(_) => {}
                _ => {
                    return self.fail(
                        line,
                        &format!("`{}` is not possible in a mart", join.to_string().trim()),
                        "joins are INNER, LEFT, RIGHT, FULL, CROSS, LEFT SEMI, LEFT ANTI, RIGHT SEMI and RIGHT ANTI",
                    );
                }
            }
        }
        PASSED
    }

    /// The planner puts named windows into the columns of a SELECT only, and takes
    /// `sum(x) OVER w` elsewhere for the aggregate.
    fn no_named_window(&self, node: &impl Visit) -> Passed {
        visit_expressions(node, |expression| match expression {
            Expr::Function(Function {
                name,
                over: Some(WindowType::NamedWindow(window)),
                ..
            }) => self.fail(
                at(window).or_else(|| line_of(name)),
                &format!("the window `{window}` can be named among the columns of a SELECT only"),
                "write it out in parentheses",
            ),
            _ => PASSED,
        })
    }

    fn window(&self, window: &WindowSpec, line: Option<usize>) -> Passed {
        let WindowSpec {
            window_name,
            partition_by: _,
            order_by,
            window_frame,
        } = window;
        if let Some(name) = window_name {
            return self.fail(
                at(name).or(line),
                &format!("a window that continues the window `{name}` is not possible in a mart"),
                "write it out: what it continues would be passed over",
            );
        }
        match window_frame {
            None => PASSED,
            Some(frame) => self.frame(frame, order_by.len(), line),
        }
    }

    /// The planner makes a frame that cannot be evaluated where the frame ends before it starts.
    fn frame(&self, frame: &WindowFrame, order_by: usize, line: Option<usize>) -> Passed {
        let WindowFrame {
            units,
            start_bound,
            end_bound,
        } = frame;
        let end_bound = end_bound.as_ref().unwrap_or(&WindowFrameBound::CurrentRow);
        for bound in [start_bound, end_bound] {
            let (WindowFrameBound::Preceding(Some(offset))
            | WindowFrameBound::Following(Some(offset))) = bound
            else {
                continue;
            };
            let is_written = match &**offset {
                Expr::Interval(_) => *units == WindowFrameUnits::Range,
                offset => {
                    whole(offset).is_some()
                        || *units == WindowFrameUnits::Range && is_number(offset)
                }
            };
            if !is_written {
                return self.fail(
                    line,
                    &format!("`{offset}` is not possible as a bound of a frame of {units}"),
                    match units {
                        WindowFrameUnits::Range => {
                            "write a number, or an interval such as INTERVAL '1 day'"
                        }
                        _ => "write a whole number",
                    },
                );
            }
            if *units == WindowFrameUnits::Range && order_by != 1 {
                return self.fail(
                    line,
                    "RANGE with a distance needs ORDER BY of exactly one column",
                    "order by the column that the distance is of",
                );
            }
        }
        if *units == WindowFrameUnits::Groups && order_by == 0 {
            return self.fail(
                line,
                "GROUPS needs ORDER BY",
                "rows with equal values of ORDER BY are one group",
            );
        }
        let (start, first) = place(start_bound);
        let (end, last) = place(end_bound);
        let crossed = start > end
            || start == end && first.zip(last).is_some_and(|(first, last)| first > last);
        let unbounded = matches!(start_bound, WindowFrameBound::Following(None))
            || matches!(end_bound, WindowFrameBound::Preceding(None));
        if crossed || unbounded {
            return self.fail(
                line,
                &format!("the frame starts at {start_bound} and ends before that, at {end_bound}"),
                "write the earlier bound first: `3 PRECEDING AND 1 PRECEDING`, `1 FOLLOWING AND 3 FOLLOWING`",
            );
        }
        PASSED
    }

    /// Clauses and arguments of a function over a window, which the planner passes over or finds wrong only
    /// when the mart is built.
    fn over_window(&self, function: &Function, name: &str, line: Option<usize>) -> Passed {
        let list = match &function.args {
            FunctionArguments::List(list) => Some(list),
            FunctionArguments::None | FunctionArguments::Subquery(_) => None,
        };
        let ignores = function.null_treatment == Some(NullTreatment::IgnoreNulls)
            || list.is_some_and(|list| {
                list.clauses
                    .contains(&FunctionArgumentClause::IgnoreOrRespectNulls(
                        NullTreatment::IgnoreNulls,
                    ))
            });
        let distinct =
            list.is_some_and(|list| list.duplicate_treatment == Some(DuplicateTreatment::Distinct));
        let of_rows = OF_ROWS.contains(&name);
        let ranking = RANKING.contains(&name);
        let idle = [
            (ignores && !of_rows, "IGNORE NULLS"),
            (function.filter.is_some() && (of_rows || ranking), "FILTER"),
            (distinct && (of_rows || ranking), "DISTINCT"),
        ];
        if let Some((_, clause)) = idle.into_iter().find(|(there, _)| *there) {
            return self.fail(
                line,
                &format!("{clause} is not possible with `{name}() OVER`"),
                match clause {
                    "IGNORE NULLS" => {
                        "it is for lag, lead, first_value, last_value and nth_value; aggregates pass over NULLs anyway"
                    }
                    _ => "choose the rows in a sub-query",
                },
            );
        }
        let argument = |index: usize| -> Option<&Expr> {
            match list?.args.get(index)? {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression),
                _ => None,
            }
        };
        let (index, least, what) = match name {
            "lag" | "lead" => (1, 0, "number of rows"),
            "nth_value" => (1, 1, "number of the row"),
            "ntile" => (0, 1, "number of pieces"),
            _ => return PASSED,
        };
        if let Some(number) = argument(index)
            && whole(number).is_none_or(|number| number < least)
        {
            return self.fail(
                line,
                &format!("the {what} of `{name}()` is `{number}`"),
                match (name, least) {
                    ("lag", _) => "write a whole number, 0 or more; `lead` looks forward",
                    ("lead", _) => "write a whole number, 0 or more; `lag` looks back",
                    _ => "write a whole number, 1 or more",
                },
            );
        }
        if matches!(name, "lag" | "lead")
            && let Some(default) = argument(2)
            && !is_literal(default)
        {
            return self.fail(
                line,
                &format!("the default of `{name}()` is `{default}`, which is not a constant"),
                &format!("write coalesce({name}(…) OVER (…), {default}), or CASE on row_number() where NULLs are to stay"),
            );
        }
        PASSED
    }

    /// Notes an UNNEST after FROM that reads columns.
    fn unnest(&mut self, factor: &TableFactor, arrays: &[Expr], alias: Option<&TableAlias>) {
        let first = arrays.iter().find(|array| {
            let read = visit_expressions(*array, |part| match column(part) {
                Some(_) => ControlFlow::Break(()),
                None => ControlFlow::Continue(()),
            });
            read.is_break()
        });
        let Some(array) = first else { return };
        let name = alias.map_or("item", |alias| {
            let first = alias.columns.first().map(|column| &column.name);
            first.unwrap_or(&alias.name).value.as_str()
        });
        let list = column(array).map_or_else(|| array.to_string(), |name| name.to_string());
        self.seen.beside.push(Beside {
            text: format!("UNNEST({array})"),
            line: line_of(factor).or_else(|| line_of(array)),
            instead: format!(
                "put unnest() into the SELECT of a sub-query: `FROM (SELECT *, unnest({list}) AS {name} FROM …)`"
            ),
        });
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
            self.seen.dates.push(DateUse {
                function: Some(function.name.to_string().to_lowercase()),
                text: function.to_string(),
                line: line_of(&function.name),
            });
        }
    }

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
            self.seen.calls.push(Call {
                function,
                clause,
                line,
            });
        }
        PASSED
    }
}

impl Visitor for Gate<'_> {
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
            projection: _,
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
        for from in from {
            self.joins(from)?;
        }
        for NamedWindowDefinition(name, window) in named_window {
            match window {
                NamedWindowExpr::NamedWindow(_) => {
                    return self.fail(
                        at(name),
                        &format!("the window `{name}` is not written out"),
                        "write it in parentheses",
                    );
                }
                NamedWindowExpr::WindowSpec(window) => self.window(window, at(name))?,
            }
        }
        if let Some(Distinct::On(keys)) = distinct {
            self.no_named_window(keys)?;
        }
        if let Some(qualify) = qualify {
            self.no_named_window(qualify)?;
        }
        PASSED
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> Passed {
        // A quoted name has no place of its own in the parser.
        let written = relation.to_string();
        let line = line_of(relation).or_else(|| {
            self.text
                .lines()
                .position(|line| line.contains(&written))
                .map(|i| i + 1)
        });
        let [part] = relation.0.as_slice() else {
            return self.fail(
                line,
                &format!("`{relation}` is not the name of a table"),
                "tables of the lake, references and marts have plain names, without a schema and without a path",
            );
        };
        let Some(name) = part.as_ident() else {
            return self.fail(
                line,
                &format!("`{relation}` is a function, not a table"),
                "a mart reads tables of the lake, references and other marts only",
            );
        };
        if name.quote_style == Some('\'') {
            return self.fail(
                line,
                &format!("{name} is a file, not a table"),
                "declare it in the configuration under `[references]` and use its name",
            );
        }
        self.seen.relations.push((folded(name), line));
        PASSED
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> Passed {
        let hint = "a mart reads tables of the lake, references and other marts only";
        match factor {
            TableFactor::Table {
                name,
                alias,
                args,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
            } => {
                let line = line_of(name);
                if args.is_some() {
                    let message = format!("`{name}(…)` is a table function");
                    return self.fail(line, &message, hint);
                }
                self.without(
                    line,
                    &[
                        (!with_hints.is_empty(), "WITH and hints"),
                        (version.is_some(), version.as_ref().map_or("", spelt)),
                        (*with_ordinality, "WITH ORDINALITY"),
                        (!partitions.is_empty(), "PARTITION"),
                        (json_path.is_some(), "a path behind a table"),
                        (sample.is_some(), sampling(sample.as_ref())),
                        (!index_hints.is_empty(), "an index hint"),
                    ],
                )?;
                self.alias(alias.as_ref())
            }
            TableFactor::Derived {
                lateral,
                subquery: _,
                alias,
                sample,
            } => {
                let line = line_of(factor);
                if *lateral {
                    self.seen.beside.push(Beside {
                        text: "LATERAL".to_owned(),
                        line: self.line(line, "LATERAL"),
                        instead: "write it as a JOIN with a sub-query that has a GROUP BY"
                            .to_owned(),
                    });
                }
                self.without(line, &[(sample.is_some(), sampling(sample.as_ref()))])?;
                self.alias(alias.as_ref())
            }
            TableFactor::UNNEST {
                alias,
                array_exprs,
                with_offset,
                with_offset_alias: _,
                with_ordinality,
            } => {
                self.unnest(factor, array_exprs, alias.as_ref());
                self.without(
                    line_of(factor),
                    &[
                        (*with_offset, "WITH OFFSET"),
                        (*with_ordinality, "WITH ORDINALITY"),
                    ],
                )?;
                self.alias(alias.as_ref())
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias,
            } => {
                self.joins(table_with_joins)?;
                self.alias(alias.as_ref())
            }
            TableFactor::Function { name, .. } => self.fail(
                line_of(name),
                &format!("`{name}(…)` is a table function"),
                hint,
            ),
            TableFactor::TableFunction { .. } => self.fail(
                line_of(factor),
                "a table function is not possible in a mart",
                hint,
            ),
            other => self.fail(
                line_of(other),
                &format!("`{other}` is not possible in a mart"),
                "write it as a plain SELECT",
            ),
        }
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> Passed {
        match expression {
            Expr::Function(function) => {
                self.dates_of(function);
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
                    self.seen.dates.push(DateUse {
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

/// Functions over a window that give a value of one of its rows.
const OF_ROWS: [&str; 5] = ["lag", "lead", "first_value", "last_value", "nth_value"];

/// Functions over a window that have no argument to pass over.
const RANKING: [&str; 6] = [
    "row_number",
    "rank",
    "dense_rank",
    "percent_rank",
    "cume_dist",
    "ntile",
];

/// A whole number of no sign that is written out.
fn whole(expression: &Expr) -> Option<u64> {
    match expression {
        Expr::Value(ValueWithSpan {
            value: Value::Number(number, false),
            ..
        }) => number.parse().ok(),
        _ => None,
    }
}

fn is_number(expression: &Expr) -> bool {
    matches!(
        expression,
        Expr::Value(ValueWithSpan {
            value: Value::Number(_, false),
            ..
        })
    )
}

/// A value that is written out, with or without a sign or a type.
fn is_literal(expression: &Expr) -> bool {
    match expression {
        Expr::Value(_) | Expr::TypedString(_) | Expr::Interval(_) => true,
        Expr::UnaryOp { expr, .. } | Expr::Nested(expr) | Expr::Cast { expr, .. } => {
            is_literal(expr)
        }
        _ => false,
    }
}

/// Where a bound lies: before, at or behind the current row, and how far, where that is written out. Months count as
/// 30 days.
fn place(bound: &WindowFrameBound) -> (i8, Option<f64>) {
    let far = |offset: &Option<Box<Expr>>| match offset.as_deref()? {
        Expr::Value(ValueWithSpan {
            value: Value::Number(number, false),
            ..
        }) => number.parse::<f64>().ok(),
        Expr::Interval(interval) => {
            let Expr::Value(value) = &*interval.value else {
                return None;
            };
            let text = value.value.clone().into_string()?;
            let text = match &interval.leading_field {
                Some(unit) => format!("{text} {unit}"),
                None => text,
            };
            let span = parse_interval_month_day_nano(&text).ok()?;
            let days = f64::from(span.months) * 30.0 + f64::from(span.days);
            Some(days * 86_400e9 + span.nanoseconds as f64)
        }
        _ => None,
    };
    match bound {
        WindowFrameBound::Preceding(offset) => (-1, far(offset).map(|far| -far)),
        WindowFrameBound::CurrentRow => (0, None),
        WindowFrameBound::Following(offset) => (1, far(offset)),
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

/// Whether it is the column `dt`.
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

fn is_cast(item: &SelectItem) -> bool {
    let (SelectItem::UnnamedExpr(expression)
    | SelectItem::ExprWithAlias {
        expr: expression, ..
    }) = item
    else {
        return false;
    };
    let mut expression = expression;
    while let Expr::Nested(inner) = expression {
        expression = inner;
    }
    matches!(expression, Expr::Cast { .. })
}

/// The line of a name.
fn at(name: &Ident) -> Option<usize> {
    usize::try_from(name.span.start.line)
        .ok()
        .filter(|line| *line > 0)
}

fn spelt(version: &TableVersion) -> &'static str {
    match version {
        TableVersion::ForSystemTimeAsOf(_) => "FOR SYSTEM_TIME AS OF",
        TableVersion::TimestampAsOf(_) => "TIMESTAMP AS OF",
        TableVersion::VersionAsOf(_) => "VERSION AS OF",
        TableVersion::Function(_) => "a version of a table",
        TableVersion::Changes { .. } => "CHANGES",
    }
}

fn sampling(sample: Option<&TableSampleKind>) -> &'static str {
    match sample {
        Some(
            TableSampleKind::BeforeTableAlias(sample) | TableSampleKind::AfterTableAlias(sample),
        ) => match sample.modifier {
            TableSampleModifier::Sample => "SAMPLE",
            TableSampleModifier::TableSample => "TABLESAMPLE",
        },
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::super::select::parse;
    use super::*;

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
                "aggregates pass over NULLs anyway",
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
}
