//! The SQL of duplicate rules as physical expressions.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::prep_null_mask_filter;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, SchemaError};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, Volatility};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::{SessionConfig, SessionContext};

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
    expression: Arc<dyn PhysicalExpr>,
    kind: DataType,
}

/// What the expressions of a rule yield over one batch; every array has the batch's rows.
#[derive(Debug, Clone)]
pub struct Evaluated {
    /// One array per part of the key, nulls kept.
    pub keys: Vec<ArrayRef>,
    /// The rows that `when` admits, without nulls; `None` when the rule has no `when`.
    pub when: Option<BooleanArray>,
}

/// An expression that cannot be used, by rule and text.
#[derive(Debug, thiserror::Error)]
#[error("rule `{rule}`: {part} `{text}`: {message}")]
pub struct ExpressionError {
    pub rule: String,
    /// `key` or `when`.
    pub part: &'static str,
    /// As written in the configuration.
    pub text: String,
    pub message: String,
}

impl RuleExpressions {
    /// Compiles the SQL of `rule` against the columns of `schema`.
    ///
    /// # Errors
    /// A text that does not parse, an unknown column (the nearest is named), a `when` that is not
    /// boolean, a key of a nested type, or anything whose value is not a function of its row alone.
    pub fn compile(
        rule: &str,
        key: &[String],
        when: Option<&str>,
        schema: &SchemaRef,
    ) -> Result<Self, ExpressionError> {
        let mut config = SessionConfig::new();
        config.options_mut().sql_parser.map_string_types_to_utf8view = false;
        config.options_mut().execution.time_zone = Some("UTC".to_owned());
        let state = SessionContext::new_with_config(config).state();
        let compile = |part, text: &str| {
            compile(&state, text, schema).map_err(|message| ExpressionError {
                rule: rule.to_owned(),
                part,
                text: text.to_owned(),
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

    /// Evaluates key and predicate over `batch`, which has the schema compiled against.
    ///
    /// # Errors
    /// A value that the expression fails on, such as a cast of text that is no number.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<Evaluated, ExpressionError> {
        let rows = batch.num_rows();
        let run = |part, compiled: &Compiled| {
            compiled
                .expression
                .evaluate(batch)
                .and_then(|value| value.into_array(rows))
                .map_err(|error| ExpressionError {
                    rule: self.rule.clone(),
                    part,
                    text: compiled.text.clone(),
                    message: error.strip_backtrace(),
                })
        };
        let keys = self
            .key
            .iter()
            .map(|part| run("key", part))
            .collect::<Result<Vec<_>, _>>()?;
        let when = match &self.when {
            None => None,
            Some(part) => {
                let value = run("when", part)?;
                Some(match value.as_boolean_opt() {
                    // NULL counts as false.
                    Some(mask) if mask.null_count() > 0 => prep_null_mask_filter(mask),
                    Some(mask) => mask.clone(),
                    // The literal NULL.
                    None => BooleanArray::new(arrow::buffer::BooleanBuffer::new_unset(rows), None),
                })
            }
        };
        Ok(Evaluated { keys, when })
    }
}

fn compile(state: &SessionState, text: &str, schema: &SchemaRef) -> Result<Compiled, String> {
    let columns = DFSchema::try_from(schema.as_ref().clone()).map_err(|e| e.strip_backtrace())?;
    let expression = state
        .create_logical_expr(text, &columns)
        .map_err(|error| explain(&error, schema))?;
    refuse_unstable(&expression)?;
    let expression = state
        .create_physical_expr(expression, &columns)
        .map_err(|error| explain(&error, schema))?;
    let kind = expression
        .data_type(schema)
        .map_err(|error| explain(&error, schema))?;
    Ok(Compiled {
        text: text.to_owned(),
        expression,
        kind,
    })
}

/// Refuses what is not a function of one row: verdicts must not depend on the clock, on chance or
/// on which rows share a batch.
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

/// The known name that is most like `name`, when one is like it at all.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (name.len().max(candidate.len()) / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}
