//! Windows of a mart's SELECT: their frames, and the functions over them.

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use datafusion::sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArguments, NamedWindowDefinition, NamedWindowExpr, NullTreatment, Value, ValueWithSpan,
    Visit, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowSpec, WindowType,
    visit_expressions,
};

use super::{Clauses, PASSED, Passed, at, line_of};

impl Clauses<'_> {
    /// Refuses a named window in `node`. The planner puts named windows into the columns of a SELECT only, and
    /// takes `sum(x) OVER w` elsewhere for the aggregate `sum(x)`.
    pub(super) fn no_named_window(&self, node: &impl Visit) -> Passed {
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

    /// Checks the windows that WINDOW names.
    pub(super) fn named_windows(&self, named: &[NamedWindowDefinition]) -> Passed {
        for NamedWindowDefinition(name, window) in named {
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
        PASSED
    }

    /// Checks one window.
    pub(super) fn window(&self, window: &WindowSpec, line: Option<usize>) -> Passed {
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
                "write the whole window: the window that it continues would be ignored",
            );
        }
        match window_frame {
            None => PASSED,
            Some(frame) => self.frame(frame, order_by.len(), line),
        }
    }

    /// Refuses a frame that ends before it starts: the planner would make a plan that cannot be evaluated.
    pub(super) fn frame(
        &self,
        frame: &WindowFrame,
        order_by: usize,
        line: Option<usize>,
    ) -> Passed {
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
        let (start, first) = distance(start_bound);
        let (end, last) = distance(end_bound);
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

    /// Refuses clauses and arguments of a function over a window that the planner ignores, or finds wrong only
    /// when the mart is built.
    pub(super) fn over_window(
        &self,
        function: &Function,
        name: &str,
        line: Option<usize>,
    ) -> Passed {
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
                        "it is for lag, lead, first_value, last_value and nth_value; aggregates ignore NULLs \
                         anyway"
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

/// A whole number that is written out and has no sign.
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

/// On which side of the current row a bound lies (-1 before it, 0 at it, 1 behind it), and how far away, where the
/// distance is written out. A month counts as 30 days.
fn distance(bound: &WindowFrameBound) -> (i8, Option<f64>) {
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
