//! Compiles the SQL of duplicate rules to physical expressions.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::{filter_record_batch, prep_null_mask_filter};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, SchemaError};
use datafusion::execution::SessionState;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, Volatility};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::reassign_expr_columns;
use datafusion::prelude::SessionConfig;
use datafusion::sql::sqlparser::ast as sql;
use datafusion::sql::sqlparser::ast::visit_expressions;
use datafusion::sql::sqlparser::parser::ParserError;

use super::bounds::Bounds;
use super::{athena, depth, law};
use crate::names::nearest;

/// The key and the predicate of one rule, compiled for one schema.
#[derive(Debug, Clone)]
pub struct RuleExpressions {
    rule: String,
    key: Vec<Compiled>,
    when: Option<Compiled>,
}

#[derive(Debug, Clone)]
struct Compiled {
    text: String,
    /// The columns that the text names. A column that simplification drops is still needed to compile the text.
    columns: BTreeSet<String>,
    /// The indexes of these columns in the schema.
    read: Vec<usize>,
    /// The expression over these columns alone.
    expression: Arc<dyn PhysicalExpr>,
    kind: DataType,
}

/// The error of an expression that cannot be used, with its rule and its text.
#[derive(Debug, thiserror::Error)]
#[error("rule `{rule}`: {part} `{text}`: {message}")]
pub struct ExpressionError {
    pub rule: String,
    /// `key` or `when`.
    pub part: &'static str,
    /// The text as the configuration has it.
    pub text: String,
    pub message: String,
}

impl RuleExpressions {
    /// Compiles the SQL of `rule` against the columns of `schema`.
    ///
    /// # Errors
    /// A text that does not parse, an unknown column (the nearest name is given), a `when` that is not boolean,
    /// a key of a nested type, or an expression whose value does not depend on its row alone.
    pub fn compile(
        rule: &str,
        key: &[String],
        when: Option<&str>,
        schema: &SchemaRef,
    ) -> Result<Self, ExpressionError> {
        let texts = key.iter().map(String::as_str).chain(when);
        let longest = texts.max_by_key(|text| text.len()).unwrap_or_default();
        depth::on_large_stack(longest, || Self::compile_here(rule, key, when, schema))
            .unwrap_or_else(|error| {
                Err(ExpressionError {
                    rule: rule.to_owned(),
                    part: if Some(longest) == when { "when" } else { "key" },
                    text: beginning(longest),
                    message: error.to_string(),
                })
            })
    }

    fn compile_here(
        rule: &str,
        key: &[String],
        when: Option<&str>,
        schema: &SchemaRef,
    ) -> Result<Self, ExpressionError> {
        let runtime = Arc::new(RuntimeEnv::default());
        let state = law::state(SessionConfig::new(), runtime).build();
        let state = law::session(state).state();
        let compile = |part, text: &str| {
            compile(&state, text, schema).map_err(|message| ExpressionError {
                rule: rule.to_owned(),
                part,
                text: beginning(text),
                message,
            })
        };
        let key = key
            .iter()
            .map(|text| {
                let compiled = compile("key", text)?;
                if compiled.kind.is_nested() {
                    return Err(ExpressionError {
                        rule: rule.to_owned(),
                        part: "key",
                        text: text.clone(),
                        message: format!(
                            "is of the nested type {}; name the parts of it that make the key",
                            compiled.kind
                        ),
                    });
                }
                Ok(compiled)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let when = when
            .map(|text| {
                let compiled = compile("when", text)?;
                match compiled.kind {
                    DataType::Boolean | DataType::Null => Ok(compiled),
                    other => Err(ExpressionError {
                        rule: rule.to_owned(),
                        part: "when",
                        text: text.to_owned(),
                        message: format!("is {other}, not boolean; write a comparison"),
                    }),
                }
            })
            .transpose()?;
        Ok(Self {
            rule: rule.to_owned(),
            key,
            when,
        })
    }

    /// The Arrow types of the parts of the key, in order.
    pub fn key_types(&self) -> Vec<DataType> {
        self.key.iter().map(|part| part.kind.clone()).collect()
    }

    /// The columns that key and predicate read.
    pub fn columns(&self) -> impl Iterator<Item = String> {
        let parts = self.key.iter().chain(&self.when);
        parts.flat_map(|part| part.columns.clone())
    }

    /// The rows of `batch` that `when` admits; `None` if the rule has no `when`. The batch has the schema that
    /// the rule was compiled for. NULL counts as false.
    ///
    /// # Errors
    /// A value on which the expression fails, such as a cast of a text that is no number.
    pub fn admitted(&self, batch: &RecordBatch) -> Result<Option<BooleanArray>, ExpressionError> {
        let Some(when) = &self.when else {
            return Ok(None);
        };
        let value = self.run("when", when, batch, None)?;
        Ok(Some(match value.as_boolean_opt() {
            Some(mask) if mask.null_count() > 0 => prep_null_mask_filter(mask),
            Some(mask) => mask.clone(),
            // The literal NULL.
            None => BooleanArray::new(
                arrow::buffer::BooleanBuffer::new_unset(batch.num_rows()),
                None,
            ),
        }))
    }

    /// One array for each part of the key, with its nulls, for the rows that are `admitted`, or for all rows.
    /// `when` may guard a key that fails on other rows.
    ///
    /// # Errors
    /// See [`Self::admitted`].
    pub fn keys(
        &self,
        batch: &RecordBatch,
        admitted: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>, ExpressionError> {
        self.key
            .iter()
            .map(|part| self.run("key", part, batch, admitted))
            .collect()
    }

    fn run(
        &self,
        part: &'static str,
        compiled: &Compiled,
        batch: &RecordBatch,
        rows: Option<&BooleanArray>,
    ) -> Result<ArrayRef, ExpressionError> {
        // Other columns need not be filtered.
        let read = batch.project(&compiled.read);
        let read = read.and_then(|read| match rows {
            Some(mask) => filter_record_batch(&read, mask),
            None => Ok(read),
        });
        read.map_err(DataFusionError::from)
            .and_then(|read| {
                let value = compiled.expression.evaluate(&read)?;
                value.into_array(read.num_rows())
            })
            .map_err(|error| ExpressionError {
                rule: self.rule.clone(),
                part,
                text: compiled.text.clone(),
                message: match error.find_root() {
                    DataFusionError::External(own) => own.to_string(),
                    _ => error.strip_backtrace(),
                },
            })
    }
}

/// The beginning of a text, as messages show it.
fn beginning(text: &str) -> String {
    const SHOWN: usize = 500;
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

fn compile(state: &SessionState, text: &str, schema: &SchemaRef) -> Result<Compiled, String> {
    let columns = DFSchema::try_from(schema.as_ref().clone()).map_err(|e| e.strip_backtrace())?;
    let dialect = state.config_options().sql_parser.dialect;
    let mut parsed = state
        .sql_to_expr_with_alias(text, &dialect)
        .map_err(|error| explain(&error, schema))?;
    depth::level(&mut parsed.expr).map_err(|error| error.to_string())?;
    let misread = visit_expressions(&parsed.expr, |part| match reads_too_far(part) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    });
    if misread.is_break() {
        return Err(
            "AND or OR behind IS DISTINCT FROM would be read as a part of the comparison; put the \
             comparison into parentheses: `(a IS DISTINCT FROM b) AND c`"
                .to_owned(),
        );
    }
    athena::spelled(&mut parsed.expr)
        .map_err(|refused| format!("{}: {}", refused.message, refused.hint))?;
    let expression = state
        .create_logical_expr_from_sql_expr(parsed, &columns)
        .map_err(|error| explain(&error, schema))?;
    refuse_unstable(&expression)?;
    // This is done before constants are evaluated.
    let expression = Bounds::of_rules()
        .apply(expression, &columns)
        .map_err(|error| explain(&error, schema))?;
    let named = expression.column_refs();
    let named: BTreeSet<String> = named
        .into_iter()
        .map(|column| column.name.clone())
        .collect();
    // `coalesce` and some other functions exist only in the form that simplification makes of them.
    let context = SimplifyContext::builder()
        .with_schema(Arc::new(columns.clone()))
        .with_config_options(Arc::clone(state.config_options()))
        .build();
    let simplifier = ExprSimplifier::new(context);
    let expression = law::expression(expression, &simplifier, &columns)
        .and_then(|expression| simplifier.simplify(expression))
        .map_err(|error| explain(&error, schema))?;
    let expression = state
        .create_physical_expr(expression, &columns)
        .map_err(|error| explain(&error, schema))?;
    let kind = expression
        .data_type(schema)
        .map_err(|error| explain(&error, schema))?;
    let read = named.iter().filter_map(|name| schema.index_of(name).ok());
    let read: Vec<usize> = read.collect();
    let expression = schema
        .project(&read)
        .map_err(DataFusionError::from)
        .and_then(|narrow| reassign_expr_columns(expression, &narrow))
        .map_err(|error| error.strip_backtrace())?;
    Ok(Compiled {
        text: text.to_owned(),
        columns: named,
        read,
        expression,
        kind,
    })
}

/// Refuses expressions that depend on more than one row: a verdict must not depend on the clock, on chance or
/// on the rows that share a batch.
fn refuse_unstable(expression: &Expr) -> Result<(), String> {
    let mut found = None;
    let walked = expression.apply(|node| {
        found = match node {
            Expr::ScalarFunction(call)
                if call.func.signature().volatility != Volatility::Immutable =>
            {
                Some(format!(
                    "`{}()` gives another value in every run; use columns of the event only",
                    call.func.name()
                ))
            }
            Expr::HigherOrderFunction(call)
                if call.func.signature().volatility != Volatility::Immutable =>
            {
                Some(format!(
                    "`{}()` gives another value in every run",
                    call.func.name()
                ))
            }
            Expr::AggregateFunction(call) => Some(format!(
                "`{}()` is an aggregate; an expression of a rule sees one event",
                call.func.name()
            )),
            Expr::WindowFunction(_) => {
                Some("a window function sees other events; an expression of a rule sees one".into())
            }
            Expr::Exists(_)
            | Expr::InSubquery(_)
            | Expr::ScalarSubquery(_)
            | Expr::SetComparison(_)
            | Expr::OuterReferenceColumn(..) => Some(
                "a subquery is not possible here; an expression of a rule sees one event".into(),
            ),
            Expr::Placeholder(_) | Expr::ScalarVariable(..) => {
                Some("has a parameter, and nothing gives it a value".into())
            }
            Expr::Unnest(_) => Some("`unnest` makes several rows of one".into()),
            _ => None,
        };
        Ok(if found.is_some() {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    });
    match (walked, found) {
        (_, Some(message)) => Err(message),
        (Err(error), None) => Err(error.strip_backtrace()),
        (Ok(_), None) => Ok(()),
    }
}

fn explain(error: &DataFusionError, schema: &SchemaRef) -> String {
    for error in error.iter() {
        match error.find_root() {
            DataFusionError::SchemaError(inner, _) => {
                if let SchemaError::FieldNotFound { field, .. } = inner.as_ref() {
                    let names = schema.fields().iter().map(|f| f.name().as_str());
                    return match nearest(field.name(), names.clone()) {
                        Some(near) => {
                            format!("there is no column `{}`; is it `{near}`?", field.name())
                        }
                        None => format!(
                            "there is no column `{}`; the columns are {}",
                            field.name(),
                            names.collect::<Vec<_>>().join(", ")
                        ),
                    };
                }
            }
            DataFusionError::SQL(inner, _)
                if matches!(inner.as_ref(), ParserError::RecursionLimitExceeded) =>
            {
                return "nests too many levels deep; take parts of it into columns".into();
            }
            DataFusionError::SQL(inner, _) => return format!("does not parse: {inner}"),
            DataFusionError::NotImplemented(inner) if inner.to_lowercase().contains("subquer") => {
                return "a subquery is not possible here; an expression of a rule sees one event"
                    .into();
            }
            _ => {}
        }
    }
    error.strip_backtrace()
}

/// Whether the parser has read a condition behind `a IS DISTINCT FROM b` as a part of `b`.
pub(crate) fn reads_too_far(expression: &sql::Expr) -> bool {
    use sql::BinaryOperator as B;
    let (sql::Expr::IsDistinctFrom(_, right) | sql::Expr::IsNotDistinctFrom(_, right)) = expression
    else {
        return false;
    };
    matches!(
        **right,
        sql::Expr::BinaryOp {
            op: B::And | B::Or | B::Xor,
            ..
        }
    )
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("login", DataType::Utf8, true),
            Field::new("host", DataType::Utf8, true),
            Field::new("amount", DataType::Int64, true),
            Field::new("tags", DataType::new_list(DataType::Utf8, true), true),
        ]))
    }

    fn batch() -> RecordBatch {
        let tags = arrow::array::new_null_array(schema().field(3).data_type(), 3);
        RecordBatch::try_new(
            schema(),
            vec![
                Arc::new(StringArray::from(vec![Some("a"), None, None])),
                Arc::new(StringArray::from(vec![Some("h1"), Some("h2"), None])),
                Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])),
                tags,
            ],
        )
        .unwrap()
    }

    fn compile(key: &str, when: Option<&str>) -> Result<RuleExpressions, ExpressionError> {
        RuleExpressions::compile("double_click", &[key.to_owned()], when, &schema())
    }

    #[test]
    fn a_key_keeps_its_nulls_and_a_predicate_does_not() {
        let rule = compile("coalesce(login, host)", Some("amount > 0")).unwrap();
        assert_eq!(rule.key_types(), [DataType::Utf8]);
        let keys = rule.keys(&batch(), None).unwrap();
        let key: Vec<_> = keys[0].as_string::<i32>().iter().collect();
        assert_eq!(key, [Some("a"), Some("h2"), None]);
        let when = rule.admitted(&batch()).unwrap().unwrap();
        assert_eq!(when.null_count(), 0);
        assert_eq!(
            when.values().iter().collect::<Vec<_>>(),
            [true, false, true]
        );
        let never = compile("login", Some("NULL"))
            .unwrap()
            .admitted(&batch())
            .unwrap();
        assert_eq!(never.unwrap().true_count(), 0);
        assert!(
            compile("login", None)
                .unwrap()
                .admitted(&batch())
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn numbers_compare_with_numbers_and_text_with_text() {
        for (when, kept) in [
            ("amount = 3.0", vec![false, false, true]),
            ("host IN ('h1', 'h2')", vec![true, true, false]),
            ("login IS NULL AND host LIKE 'h%'", vec![false, true, false]),
            (
                "length(host) = 2 OR amount BETWEEN 3 AND 4",
                vec![true, true, true],
            ),
        ] {
            let found = compile("login", Some(when))
                .unwrap()
                .admitted(&batch())
                .unwrap();
            assert_eq!(
                found.unwrap().values().iter().collect::<Vec<_>>(),
                kept,
                "{when}"
            );
        }
    }

    #[test]
    fn what_cannot_be_used_is_named_with_the_reason() {
        for (key, when, reason) in [
            ("logn", None, "is it `login`?"),
            (
                "zzzzzzzz",
                None,
                "the columns are login, host, amount, tags",
            ),
            ("coalesce(login", None, "does not parse"),
            ("login host amount", None, "does not parse"),
            ("tags", None, "nested type"),
            ("login", Some("amount + 1"), "not boolean"),
            (
                "login",
                Some("random() < 0.5"),
                "`random()` gives another value",
            ),
            ("uuid()", None, "`uuid()` gives another value"),
            (
                "login",
                Some("now() > '2020-01-01'"),
                "`now()` gives another value",
            ),
            ("login", Some("count(*) > 1"), "is an aggregate"),
            (
                "login",
                Some("login IS DISTINCT FROM host OR amount > 1"),
                "into parentheses",
            ),
            (
                "coalesce(login IS NOT DISTINCT FROM host AND amount > 1, false)",
                None,
                "into parentheses",
            ),
            ("row_number() OVER ()", None, "window function"),
            ("login", Some("amount IN (SELECT 1)"), "subquery"),
            ("no_such(login)", None, "no_such"),
        ] {
            let error = compile(key, when).unwrap_err().to_string();
            assert!(error.starts_with("rule `double_click`: "), "{error}");
            assert!(error.contains(when.unwrap_or(key)), "{error}");
            assert!(error.contains(reason), "{key} {when:?}: {error}");
        }
    }

    #[test]
    fn a_value_that_an_expression_fails_on_is_an_error_of_its_rule() {
        let rule = compile("CAST(host AS BIGINT)", None).unwrap();
        let error = rule.keys(&batch(), None).unwrap_err().to_string();
        assert!(
            error.contains("double_click") && error.contains("h1"),
            "{error}"
        );
    }

    #[test]
    fn a_long_chain_works_and_what_nests_too_deeply_is_refused() {
        let terms: Vec<String> = (0..2_000).map(|n| format!("amount = {n}")).collect();
        for (chain, expected) in [(" OR ", [true, false, true]), (" AND ", [false; 3])] {
            let rule = compile("login", Some(&terms.join(chain))).unwrap();
            let found = rule.admitted(&batch()).unwrap().unwrap();
            assert_eq!(found.values().iter().collect::<Vec<_>>(), expected);
        }
        let nested = |open: &str, close: &str, times: usize| {
            format!("{}amount{} > 0", open.repeat(times), close.repeat(times))
        };
        let sum = format!("{} > 0", vec!["amount"; 350].join(" + "));
        assert!(
            compile("login", Some(&sum))
                .unwrap()
                .admitted(&batch())
                .is_ok()
        );
        for (when, reason) in [
            (nested("(", ")", 10_000), "nests"),
            (nested("abs(", ")", 10_000), "nests"),
            (
                nested("CASE WHEN true THEN ", " END", 10_000),
                "does not parse",
            ),
            (format!("{}true", "NOT ".repeat(10_000)), "does not parse"),
            (
                format!("{} > 0", vec!["amount"; 20_000].join(" + ")),
                "nests",
            ),
            (
                format!("login = '{}'", "x".repeat(2 << 20)),
                "2097162 bytes",
            ),
        ] {
            let error = compile("login", Some(&when)).unwrap_err().to_string();
            assert!(error.contains("`double_click`: when"), "{error}");
            assert!(error.contains(reason) && error.len() < 1_000, "{error}");
        }
    }

    #[test]
    fn a_value_that_would_be_large_is_an_error_of_its_rule() {
        for (key, when) in [
            ("repeat(host, 1000000000)", None),
            ("login", Some("length(repeat(host, 1000000000)) > 1")),
            ("login", Some("repeat('x', 1000000000) = host")),
            ("login", Some("lpad(host, 2000000000) || 'x' = host")),
        ] {
            let rule = compile(key, when).unwrap();
            let found = rule
                .admitted(&batch())
                .and_then(|_| rule.keys(&batch(), None));
            let error = found.unwrap_err().to_string();
            assert!(error.contains("double_click"), "{error}");
            assert!(error.contains("()` would give a"), "{error}");
        }
    }
}
