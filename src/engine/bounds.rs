//! Bounds the size of values.
//!
//! Most functions give about as many bytes as they are given. Some give as many as a number asks for (`repeat`,
//! `range`), or a multiple (`replace`, or `concat` of a value with itself). One such call can ask for more
//! memory than any machine has, and a failed allocation ends the process. Every call of such a function, and of
//! the operator `||`, is therefore wrapped: its result is measured from its arguments before it is evaluated.
//!
//! The wrapping rewrites calls and is not another registry of functions. Array literals and operators are calls
//! too, and constants are evaluated while the query is planned. Aggregates that collect their input are in
//! [`aggregates`].

pub(super) mod aggregates;
mod concat;
mod growth;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::execution::memory_pool::human_readable_size;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::{
    AggregateUDF, BinaryExpr, ColumnarValue, Documentation, Expr, ExprSchemable, Operator,
    ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use concat::TextConcat;
use growth::{GROWING, Given, Growth};

/// The most bytes of one value.
const VALUE: u64 = 64 << 20;

/// The error of a value that would be too large.
#[derive(Debug, thiserror::Error)]
#[error("`{function}` would give {what} of {}; {} is the limit", size(*.bytes), size(*.limit))]
pub struct TooLarge {
    /// The function as SQL writes it, such as `repeat()`.
    pub function: String,
    what: String,
    bytes: u64,
    limit: u64,
}

/// The error of a function whose result would have so many bytes.
fn too_large(function: &str, what: &str, bytes: u64, limit: u64) -> DataFusionError {
    let function = match function {
        TextConcat::NAME => TextConcat::NAME.to_owned(),
        name => format!("{name}()"),
    };
    DataFusionError::External(Box::new(TooLarge {
        function,
        what: what.to_owned(),
        bytes,
        limit,
    }))
}

fn size(bytes: u64) -> String {
    human_readable_size(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// The bytes that the values of a call may have, if the call makes large values out of small ones. `number` is its
/// second argument, if that is a constant. A call without such a number makes values of at most `usual` bytes, but
/// for rare ones.
pub(super) fn multiplied(
    function: &ScalarUDF,
    number: Option<&ScalarValue>,
    usual: usize,
) -> Option<usize> {
    /// Bytes of a text that is repeated, as a guess.
    const REPEATED: u64 = 8;
    /// The most bytes of a character.
    const CHARACTER: u64 = 4;

    let bounded = function.inner().downcast_ref::<Bounded>()?;
    let times = match bounded.growth {
        Growth::Sum | Growth::Joined => return None,
        Growth::Times => REPEATED,
        Growth::Padded => CHARACTER,
        _ => return Some(usual),
    };
    Some(match number.and_then(growth::integer) {
        Some(number) => {
            let bytes = u64::try_from(number).unwrap_or(0).saturating_mul(times);
            usize::try_from(bytes.min(VALUE)).unwrap_or(usize::MAX)
        }
        None => usual,
    })
}

/// Wraps the calls of functions whose result may be large.
#[derive(Debug)]
pub(super) struct Bounds {
    /// The most bytes of the results of one call for the rows of one batch.
    batch: u64,
}

impl Bounds {
    /// The bounds for an engine with so much memory.
    pub(super) fn of(memory_bytes: u64) -> Self {
        Self {
            batch: VALUE.max(memory_bytes / 3),
        }
    }

    /// The aggregates whose values have a limit.
    pub(super) fn aggregates(&self) -> [AggregateUDF; 2] {
        aggregates::functions(self.batch)
    }

    /// The bounds for the expressions of rules, whose batches are small.
    pub(super) fn of_rules() -> Self {
        Self { batch: VALUE }
    }

    /// The expression with all its calls wrapped.
    pub(super) fn apply(&self, expr: Expr, schema: &DFSchema) -> Result<Expr, DataFusionError> {
        expr.transform_up(|expr| self.wrap(expr, schema)).data()
    }

    fn wrap(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>, DataFusionError> {
        let (function, args, growth) = match expr {
            Expr::ScalarFunction(ScalarFunction { func, args }) => {
                let name = func.name();
                let growing = GROWING.iter().find(|(growing, _)| *growing == name);
                match growing {
                    Some((_, growth)) if !func.inner().is::<Bounded>() => (func, args, *growth),
                    _ => {
                        let call = ScalarFunction { func, args };
                        return Ok(Transformed::no(Expr::ScalarFunction(call)));
                    }
                }
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right })
                if op == Operator::StringConcat
                    && is_text(&left, schema)
                    && is_text(&right, schema) =>
            {
                let function = Arc::new(ScalarUDF::new_from_impl(TextConcat::new()));
                (function, vec![*left, *right], Growth::Sum)
            }
            other => return Ok(Transformed::no(other)),
        };
        let bounded = Bounded {
            function,
            growth,
            batch: self.batch,
        };
        let func = Arc::new(ScalarUDF::new_from_impl(bounded));
        let call = Expr::ScalarFunction(ScalarFunction { func, args });
        Ok(Transformed::yes(call))
    }
}

impl FunctionRewrite for Bounds {
    fn name(&self) -> &'static str {
        "bounds"
    }

    fn rewrite(
        &self,
        expr: Expr,
        schema: &DFSchema,
        _config: &ConfigOptions,
    ) -> Result<Transformed<Expr>, DataFusionError> {
        self.wrap(expr, schema)
    }
}

/// Whether `||` joins texts here. It can also join lists and bytes.
fn is_text(expr: &Expr, schema: &DFSchema) -> bool {
    let kind = expr.get_type(schema);
    kind.is_ok_and(|kind| !kind.is_nested() && !kind.is_binary())
}

/// A function that is evaluated only if its result is within the limits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Bounded {
    function: Arc<ScalarUDF>,
    growth: Growth,
    batch: u64,
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.function.inner().name()
    }

    fn aliases(&self) -> &[String] {
        self.function.inner().aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String, DataFusionError> {
        self.function.inner().schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.function.inner().signature()
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType, DataFusionError> {
        self.function.inner().return_type(kinds)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef, DataFusionError> {
        self.function.inner().return_field_from_args(args)
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let function = self.function.inner().with_updated_config(config)?;
        Some(ScalarUDF::new_from_impl(Self {
            function: Arc::new(function),
            ..self.clone()
        }))
    }

    fn is_strict(&self) -> bool {
        self.function.inner().is_strict()
    }

    // `simplify` is not forwarded, because it may give calls that are not wrapped.

    fn short_circuits(&self) -> bool {
        self.function.inner().short_circuits()
    }

    fn conditional_arguments<'a>(
        &self,
        args: &'a [Expr],
    ) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.function.inner().conditional_arguments(args)
    }

    fn evaluate_bounds(&self, input: &[&Interval]) -> Result<Interval, DataFusionError> {
        self.function.inner().evaluate_bounds(input)
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>, DataFusionError> {
        self.function.inner().coerce_types(kinds)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.function.inner().documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let is_constant = args
            .args
            .iter()
            .all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = match is_constant {
            true => 1,
            false => args.number_rows,
        };
        let given = args
            .args
            .iter()
            .map(|arg| Given::of(arg, rows))
            .collect::<Result<Vec<_>, _>>()?;
        let sizes: Vec<u64> = (0..rows).map(|row| self.growth.most(&given, row)).collect();
        if is_constant {
            let most = sizes.first().copied().unwrap_or(0);
            self.check("a value", most, VALUE)?;
            return self.function.inner().invoke_with_args(args);
        }
        let most = sizes.iter().copied().max().unwrap_or(0);
        self.check("a value", most, VALUE)?;
        let all = sizes
            .iter()
            .fold(0_u64, |all, size| all.saturating_add(*size));
        if all <= self.batch {
            return self.function.inner().invoke_with_args(args);
        }
        let what = format!("{rows} values");
        if !self.growth.is_estimate() {
            self.check(&what, all, self.batch)?;
        }
        self.in_parts(&args, &sizes, &what)
    }
}

impl Bounded {
    fn check(&self, what: &str, bytes: u64, limit: u64) -> Result<(), DataFusionError> {
        if bytes <= limit {
            return Ok(());
        }
        Err(too_large(self.name(), what, bytes, limit))
    }

    /// Evaluates so few rows at a time that no part can be large, and measures the results. This is done if the
    /// estimate for all rows was too large.
    fn in_parts(
        &self,
        args: &ScalarFunctionArgs,
        sizes: &[u64],
        what: &str,
    ) -> Result<ColumnarValue, DataFusionError> {
        let mut parts: Vec<ArrayRef> = Vec::new();
        let mut bytes = 0_u64;
        let mut start = 0;
        while start < sizes.len() {
            let mut end = start;
            let mut most = 0_u64;
            while let Some(size) = sizes.get(end)
                && (end == start || most.saturating_add(*size) <= VALUE)
            {
                most = most.saturating_add(*size);
                end += 1;
            }
            let part = args.args.iter().map(|arg| match arg {
                ColumnarValue::Array(array) => {
                    ColumnarValue::Array(array.slice(start, end - start))
                }
                ColumnarValue::Scalar(value) => ColumnarValue::Scalar(value.clone()),
            });
            let made = self.function.inner().invoke_with_args(ScalarFunctionArgs {
                args: part.collect(),
                arg_fields: args.arg_fields.clone(),
                number_rows: end - start,
                return_field: Arc::clone(&args.return_field),
                config_options: Arc::clone(&args.config_options),
            })?;
            let made = made.into_array(end - start)?;
            bytes += made.get_array_memory_size() as u64;
            self.check(what, bytes, self.batch)?;
            parts.push(made);
            start = end;
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(arrow::compute::concat(&parts)?))
    }
}
