//! How large a value may grow.
//!
//! Most functions give about as many bytes as they are given. Some give as many as a number asks for (`repeat`,
//! `range`), or a multiple (`replace`, `concat` of itself): one call can ask for more memory than any machine has, and a
//! failed allocation ends the process. Each call of such a function, the operator `||` too, is wrapped: before it is
//! evaluated, its result is measured from its arguments.
//!
//! The wrapping is a rewrite of calls, not another registry: array literals and operators are calls as well, and
//! constants are evaluated while the query is planned.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, FieldRef, Int64Type, IntervalUnit};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::execution::memory_pool::human_readable_size;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Documentation, Expr, ExprSchemable, Operator, ReturnFieldArgs,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// What one value may grow to, in bytes.
const VALUE: u64 = 64 << 20;

/// A value that would be too large.
#[derive(Debug, thiserror::Error)]
#[error("`{function}` would give {what} of {}; {} is the limit", size(*.bytes), size(*.limit))]
pub struct TooLarge {
    /// As in SQL, such as `repeat()`.
    pub function: String,
    what: String,
    bytes: u64,
    limit: u64,
}

fn size(bytes: u64) -> String {
    human_readable_size(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// How the size of a result follows from the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Growth {
    /// All arguments together.
    Sum,
    /// All but the first, with the first between them.
    Joined,
    /// The first, as often as the second says.
    Times,
    /// The first, and as many characters as the second says.
    Padded,
    /// The first, with the third in the place of each second.
    Replaced,
    /// The same for what a pattern finds.
    RegexReplaced,
    /// Numbers or times from one to another.
    Listed,
    /// As many items as the second argument says.
    Resized,
    /// The items of the first, with the second between them.
    Text,
    /// The second argument, each of whose letters may become a word.
    Format,
    /// The first, with the third in the place of some of its items.
    Items,
}

/// The functions whose result is not bounded by a small multiple of one argument.
const GROWING: [(&str, Growth); 24] = [
    ("concat", Growth::Sum),
    ("concat_ws", Growth::Joined),
    ("overlay", Growth::Sum),
    ("repeat", Growth::Times),
    ("lpad", Growth::Padded),
    ("rpad", Growth::Padded),
    ("replace", Growth::Replaced),
    ("regexp_replace", Growth::RegexReplaced),
    ("to_char", Growth::Format),
    ("range", Growth::Listed),
    ("generate_series", Growth::Listed),
    ("array_repeat", Growth::Times),
    ("array_resize", Growth::Resized),
    ("array_to_string", Growth::Text),
    ("array_append", Growth::Sum),
    ("array_prepend", Growth::Sum),
    ("array_concat", Growth::Sum),
    ("array_union", Growth::Sum),
    ("arrays_zip", Growth::Sum),
    ("array_replace", Growth::Items),
    ("array_replace_n", Growth::Items),
    ("array_replace_all", Growth::Items),
    ("make_array", Growth::Sum),
    ("map", Growth::Sum),
];

/// Wraps the calls of functions whose result may be large.
#[derive(Debug)]
pub(super) struct Bounds {
    /// Bytes of the results of one call for the rows of one batch.
    batch: u64,
}

impl Bounds {
    /// For an engine with so much memory.
    pub(super) fn of(memory_bytes: u64) -> Self {
        Self {
            batch: VALUE.max(memory_bytes / 3),
        }
    }

    /// For the expressions of rules, whose batches are small.
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

/// Whether `||` joins texts: it joins lists and bytes too.
fn is_text(expr: &Expr, schema: &DFSchema) -> bool {
    let kind = expr.get_type(schema);
    kind.is_ok_and(|kind| !kind.is_nested() && !kind.is_binary())
}

/// A function that is evaluated only where its result is within the limits.
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

    // Not `simplify`: it may give calls that are not wrapped.

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
        let function = match self.name() {
            TextConcat::NAME => TextConcat::NAME.to_owned(),
            name => format!("{name}()"),
        };
        Err(DataFusionError::External(Box::new(TooLarge {
            function,
            what: what.to_owned(),
            bytes,
            limit,
        })))
    }

    /// Evaluates so many rows at a time that none of the parts can be large, and measures the results: the estimate
    /// was too large for all of them.
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
        Ok(ColumnarValue::Array(concat(&parts)?))
    }
}

/// One argument, row by row.
struct Given<'a> {
    bytes: Vec<u64>,
    value: &'a ColumnarValue,
}

impl<'a> Given<'a> {
    fn of(value: &'a ColumnarValue, rows: usize) -> Result<Self, DataFusionError> {
        let bytes = match value {
            ColumnarValue::Array(array) => bytes_of(array),
            ColumnarValue::Scalar(value) => {
                let one = bytes_of(&value.to_array()?);
                vec![one.first().copied().unwrap_or(0); rows]
            }
        };
        Ok(Self { bytes, value })
    }

    fn bytes(&self, row: usize) -> u64 {
        self.bytes.get(row).copied().unwrap_or(0)
    }

    fn scalar(&self, row: usize) -> Option<ScalarValue> {
        match self.value {
            ColumnarValue::Array(array) => ScalarValue::try_from_array(array, row).ok(),
            ColumnarValue::Scalar(value) => Some(value.clone()),
        }
    }

    /// The number in this row; 0 where it is NULL or negative.
    fn number(&self, row: usize) -> u64 {
        let number = match self.value {
            ColumnarValue::Array(array) => match array.as_primitive_opt::<Int64Type>() {
                Some(array) if array.is_valid(row) => Some(array.value(row)),
                Some(_) => None,
                None => self.scalar(row).as_ref().and_then(integer),
            },
            ColumnarValue::Scalar(value) => integer(value),
        };
        number.map_or(0, |number| u64::try_from(number).unwrap_or(0))
    }

    /// The text in this row; empty where it is NULL.
    fn text(&self, row: usize) -> String {
        let value = self.scalar(row);
        let text = value.as_ref().and_then(ScalarValue::try_as_str);
        text.flatten().unwrap_or_default().to_owned()
    }

    /// The items of the list in this row.
    fn items(&self, row: usize) -> u64 {
        match self.scalar(row) {
            Some(ScalarValue::List(list)) => list.values().len() as u64,
            // Of other lists an item has a bit at least.
            _ => self.bytes(row).saturating_mul(8),
        }
    }
}

fn integer(value: &ScalarValue) -> Option<i64> {
    match value.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(number)) => number,
        _ => None,
    }
}

/// The bytes of each row.
fn bytes_of(array: &ArrayRef) -> Vec<u64> {
    let rows = array.len();
    let all = |bytes: u64| vec![bytes; rows];
    let between = |offsets: &[i32]| {
        let ends = offsets.iter().skip(1);
        let lengths = offsets.iter().zip(ends).map(|(start, end)| end - start);
        lengths
            .map(|length| u64::try_from(length).unwrap_or(0))
            .collect()
    };
    match array.data_type() {
        DataType::Null => all(0),
        DataType::Utf8 => between(array.as_string::<i32>().value_offsets()),
        DataType::Binary => between(array.as_binary::<i32>().value_offsets()),
        DataType::Utf8View => {
            let lengths = array.as_string_view().lengths();
            lengths.map(u64::from).collect()
        }
        kind => match kind.primitive_width() {
            Some(width) => all(width as u64),
            None => (0..rows)
                .map(|row| {
                    let one = array.slice(row, 1).to_data();
                    one.get_slice_memory_size()
                        .map_or(u64::MAX, |bytes| bytes as u64)
                })
                .collect(),
        },
    }
}

impl Growth {
    /// Whether a result may be much smaller than [`Self::most`].
    fn is_estimate(self) -> bool {
        matches!(
            self,
            Self::Replaced | Self::RegexReplaced | Self::Text | Self::Format | Self::Items
        )
    }

    /// The most bytes that the result in this row has.
    fn most(self, given: &[Given<'_>], row: usize) -> u64 {
        let bytes = |n: usize| given.get(n).map_or(0, |given| given.bytes(row));
        let number = |n: usize| given.get(n).map_or(0, |given| given.number(row));
        match self {
            Self::Sum => (0..given.len()).fold(0, |all, n| all.saturating_add(bytes(n))),
            Self::Joined => {
                let texts = (1..given.len()).fold(0_u64, |all, n| all.saturating_add(bytes(n)));
                texts.saturating_add(bytes(0).saturating_mul(given.len() as u64))
            }
            // An item of a list has its place in it, too.
            Self::Times if is_list(given) => bytes(0).max(8).saturating_mul(number(1)),
            Self::Times => bytes(0).saturating_mul(number(1)),
            Self::Padded => {
                let widest = if given.len() > 2 { bytes(2).min(4) } else { 1 };
                bytes(0).saturating_add(number(1).saturating_mul(widest))
            }
            Self::Replaced => {
                let (from, to) = (bytes(1), bytes(2));
                let found = bytes(0).checked_div(from).unwrap_or(bytes(0) + 1);
                let most = |found: u64| {
                    let more = found.saturating_mul(to.saturating_sub(from));
                    bytes(0).saturating_add(more)
                };
                match given {
                    [text, from, ..] if most(found) > VALUE => {
                        let (text, from) = (text.text(row), from.text(row));
                        most(text.matches(from.as_str()).count() as u64)
                    }
                    _ => most(found),
                }
            }
            Self::RegexReplaced => {
                let replacement = given.get(2).map_or(String::new(), |given| given.text(row));
                let flags = given.get(3).map_or(String::new(), |given| given.text(row));
                let found = match flags.contains('g') {
                    true => bytes(0).saturating_add(1),
                    false => 1,
                };
                // What groups find does not overlap from one place to the next.
                let groups = replacement.matches(['\\', '$']).count() as u64;
                let text = bytes(0).saturating_mul(groups.saturating_add(1));
                text.saturating_add(found.saturating_mul(bytes(2)))
            }
            Self::Listed => listed(given, row).saturating_mul(8),
            Self::Resized => {
                let items = number(1).saturating_mul(bytes(2).max(8));
                bytes(0).saturating_add(items)
            }
            Self::Text => {
                let items = given.first().map_or(0, |given| given.items(row));
                // A number of eight bytes is written with 24 at most, a flag with five.
                let item = bytes(1).saturating_add(bytes(2)).saturating_add(24);
                bytes(0).saturating_add(items.saturating_mul(item))
            }
            Self::Format => bytes(1).saturating_mul(20).saturating_add(64),
            Self::Items => {
                let items = given.first().map_or(0, |given| given.items(row));
                bytes(0).saturating_add(items.saturating_mul(bytes(2)))
            }
        }
    }
}

/// Whether the first argument is repeated as an item: a number has no text.
fn is_list(given: &[Given<'_>]) -> bool {
    let first = given.first().map(|given| given.value.data_type());
    first.is_some_and(|kind| !kind.is_string())
}

/// The items that a range in this row has: `range(stop)`, or from `start` to `stop` by a `step`.
fn listed(given: &[Given<'_>], row: usize) -> u64 {
    let value = |n: usize| given.get(n).and_then(|given: &Given<'_>| given.scalar(row));
    let place = |value: Option<ScalarValue>| {
        let value = value?;
        let time = match value.data_type() {
            DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => {
                let kind = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
                value.cast_to(&kind).ok()?
            }
            _ => value,
        };
        integer(&time)
    };
    let (start, stop) = match given.len() {
        1 => (Some(0), place(value(0))),
        _ => (place(value(0)), place(value(1))),
    };
    let (Some(start), Some(stop)) = (start, stop) else {
        return 0;
    };
    let step = match value(2) {
        None => 1,
        Some(step) => match step.data_type() {
            DataType::Interval(_) => microseconds(&step),
            _ => integer(&step).unwrap_or(1),
        },
    };
    let span = i128::from(stop) - i128::from(start);
    let step = i128::from(step);
    // Against the direction of the step there is nothing; without a step the function says so itself.
    match step {
        0 => 0,
        step if span.signum() == -step.signum() => 0,
        step => u64::try_from((span / step).abs() + 1).unwrap_or(u64::MAX),
    }
}

/// A span of time at its shortest: a month has 28 days.
fn microseconds(step: &ScalarValue) -> i64 {
    const DAY: i64 = 86_400_000_000;
    let parts = step.cast_to(&DataType::Interval(IntervalUnit::MonthDayNano));
    match parts {
        Ok(ScalarValue::IntervalMonthDayNano(Some(parts))) => {
            let days = i64::from(parts.months) * 28 + i64::from(parts.days);
            match days
                .saturating_mul(DAY)
                .saturating_add(parts.nanoseconds / 1000)
            {
                0 if parts.nanoseconds != 0 => 1,
                span => span,
            }
        }
        _ => 1,
    }
}

/// The operator `||` of texts as a function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct TextConcat {
    signature: Signature,
}

impl TextConcat {
    const NAME: &str = "||";

    fn new() -> Self {
        Self {
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }

    fn coercer<'a>(left: &'a DataType, right: &'a DataType) -> BinaryTypeCoercer<'a> {
        BinaryTypeCoercer::new(left, &Operator::StringConcat, right)
    }
}

impl ScalarUDFImpl for TextConcat {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String, DataFusionError> {
        let parts = args.iter().map(|arg| arg.schema_name().to_string());
        Ok(parts.collect::<Vec<_>>().join(" || "))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType, DataFusionError> {
        match kinds {
            [left, right] => Self::coercer(left, right).get_result_type(),
            _ => Err(DataFusionError::Internal("|| has two sides".to_owned())),
        }
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>, DataFusionError> {
        match kinds {
            [left, right] => {
                let (left, right) = Self::coercer(left, right).get_input_types()?;
                Ok(vec![left, right])
            }
            _ => Err(DataFusionError::Plan("|| has two sides".to_owned())),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let is_constant = args
            .args
            .iter()
            .all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let kind = args.return_type().clone();
        let sides = ColumnarValue::values_to_arrays(&args.args)?;
        let [left, right] = sides.as_slice() else {
            return Err(DataFusionError::Internal("|| has two sides".to_owned()));
        };
        let (left, right) = (cast(left, &kind)?, cast(right, &kind)?);
        let made = arrow::compute::kernels::concat_elements::concat_elements_dyn(&left, &right)?;
        Ok(match is_constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?),
            false => ColumnarValue::Array(made),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::engine::Engine;

    use super::*;

    /// Functions of one row whose result is at most some bytes, or a small multiple of their arguments.
    const STEADY: &[&str] = &[
        "abs",
        "acos",
        "acosh",
        "array_add",
        "array_any_value",
        "array_avg",
        "array_compact",
        "array_dims",
        "array_distance",
        "array_distinct",
        "array_element",
        "array_except",
        "array_has",
        "array_has_all",
        "array_has_any",
        "array_intersect",
        "array_length",
        "array_max",
        "array_min",
        "array_ndims",
        "array_normalize",
        "array_pop_back",
        "array_pop_front",
        "array_position",
        "array_positions",
        "array_product",
        "array_remove",
        "array_remove_all",
        "array_remove_n",
        "array_reverse",
        "array_scale",
        "array_slice",
        "array_sort",
        "array_subtract",
        "array_sum",
        "arrow_cast",
        "arrow_field",
        "arrow_metadata",
        "arrow_try_cast",
        "arrow_typeof",
        "ascii",
        "asin",
        "asinh",
        "atan",
        "atan2",
        "atanh",
        "bit_length",
        "btrim",
        "cardinality",
        "cast_to_type",
        "cbrt",
        "ceil",
        "character_length",
        "chr",
        "coalesce",
        "contains",
        "cos",
        "cosh",
        "cosine_distance",
        "cot",
        "current_date",
        "current_time",
        "date_bin",
        "date_part",
        "date_trunc",
        "decode",
        "degrees",
        "digest",
        "empty",
        "encode",
        "ends_with",
        "exp",
        "factorial",
        "file_row_index",
        "find_in_set",
        "flatten",
        "floor",
        "from_unixtime",
        "gcd",
        "get_field",
        "greatest",
        "initcap",
        "inner_product",
        "input_file_name",
        "isnan",
        "iszero",
        "lcm",
        "least",
        "left",
        "levenshtein",
        "ln",
        "log",
        "log10",
        "log2",
        "lower",
        "ltrim",
        "make_date",
        "make_time",
        "map_entries",
        "map_extract",
        "map_keys",
        "map_values",
        "md5",
        "named_struct",
        "nanvl",
        "now",
        "nullif",
        "nvl",
        "nvl2",
        "octet_length",
        "pi",
        "power",
        "radians",
        "random",
        "regexp_count",
        "regexp_instr",
        "regexp_like",
        "regexp_match",
        "reverse",
        "right",
        "round",
        "rtrim",
        "sha224",
        "sha256",
        "sha384",
        "sha512",
        "signum",
        "sin",
        "sinh",
        "split_part",
        "sqrt",
        "starts_with",
        "string_to_array",
        "strpos",
        "struct",
        "substr",
        "substr_index",
        "tan",
        "tanh",
        "to_date",
        "to_hex",
        "to_local_time",
        "to_time",
        "to_timestamp",
        "to_timestamp_micros",
        "to_timestamp_millis",
        "to_timestamp_nanos",
        "to_timestamp_seconds",
        "to_unixtime",
        "translate",
        "trunc",
        "try_cast_to_type",
        "union_extract",
        "union_tag",
        "upper",
        "uuid",
        "version",
        "with_metadata",
    ];

    /// Whoever adds a function, or a version of DataFusion that has more, says here how large its result may be.
    #[test]
    fn the_size_of_every_functions_result_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::new(64 << 20, 1, folder.path()).unwrap();
        let state = engine.session().state();
        let functions = state.scalar_functions().values();
        let known: BTreeSet<&str> = STEADY
            .iter()
            .copied()
            .chain(GROWING.iter().map(|(name, _)| *name))
            .collect();
        let there: BTreeSet<&str> = functions.map(|function| function.name()).collect();
        let unknown: Vec<&&str> = there.difference(&known).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        let gone: Vec<&&str> = known.difference(&there).collect();
        assert!(gone.is_empty(), "{gone:?}");
    }

    async fn run(sql: &str) -> Result<usize, String> {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::new(192 << 20, 1, folder.path()).unwrap();
        let made = async {
            let made = engine.session().sql(sql).await?.collect().await?;
            Ok::<_, DataFusionError>(made.iter().map(|batch| batch.num_rows()).sum())
        };
        made.await.map_err(|error| error.strip_backtrace())
    }

    #[tokio::test]
    async fn a_value_that_would_be_large_is_refused_before_it_is_made() {
        let n = "FROM (SELECT value AS n, CAST(value AS VARCHAR) AS t FROM generate_series(1, 1))";
        for (expression, function) in [
            ("repeat('x', 1000000000)", "repeat()"),
            ("repeat(t, 1000000000)", "repeat()"),
            ("repeat(t, n * 1000000000)", "repeat()"),
            ("lpad(t, 2000000000)", "lpad()"),
            ("rpad(t, 2000000000, 'xy')", "rpad()"),
            ("length(rpad('', 2000000000))", "rpad()"),
            ("range(1000000000)", "range()"),
            ("range(0, n * 1000000000, 2)", "range()"),
            ("generate_series(n, 1000000000)", "generate_series()"),
            (
                "generate_series(DATE '1900-01-01', DATE '2100-01-01', INTERVAL '1 nanosecond')",
                "generate_series()",
            ),
            (
                "generate_series(TIMESTAMP '1900-01-01', TIMESTAMP '2100-01-01', INTERVAL '1 second')",
                "generate_series()",
            ),
            ("array_repeat(n, 1000000000)", "array_repeat()"),
            (
                "array_repeat(array_repeat(n, 100000), 100000)",
                "array_repeat()",
            ),
            ("array_resize(make_array(n), 1000000000)", "array_resize()"),
            (
                "replace(repeat(t, 60000), t, repeat('y', 15000))",
                "replace()",
            ),
            (
                "replace(repeat(t, 60000), '', repeat('y', 15000))",
                "replace()",
            ),
            (
                "regexp_replace(repeat(t, 60000), '.', repeat('y', 15000), 'g')",
                "regexp_replace()",
            ),
            (
                "concat(repeat(t, 30000000), repeat(t, 50000000))",
                "concat()",
            ),
            (
                "concat_ws(repeat(t, 30000000), t, t, t, t, t)",
                "concat_ws()",
            ),
            ("repeat(t, 30000000) || repeat(t, 50000000)", "||"),
            (
                "array_to_string(array_repeat(n, 60000), repeat('y', 15000))",
                "array_to_string()",
            ),
            (
                "to_char(DATE '2024-01-01', repeat('%c', CAST(n AS INT) * 6000000))",
                "to_char()",
            ),
            (
                "array_concat(array_repeat(n, 5000000), array_repeat(n, 5000000))",
                "array_concat()",
            ),
        ] {
            let error = run(&format!("SELECT {expression} AS x {n}"))
                .await
                .unwrap_err();
            assert!(
                error.contains(&format!("`{function}` would give a"))
                    && error.contains("is the limit"),
                "{expression}: {error}"
            );
        }
        // Doubled thirty times over.
        let mut doubled =
            "WITH d0 AS (SELECT CAST(value AS VARCHAR) AS x FROM generate_series(1, 3))".to_owned();
        for n in 1..=30 {
            doubled += &format!(", d{n} AS (SELECT x || x AS x FROM d{})", n - 1);
        }
        doubled += " SELECT x FROM d30";
        let error = run(&doubled).await.unwrap_err();
        assert!(error.contains("`||` would give"), "{error}");
    }

    #[tokio::test]
    async fn values_that_are_large_together_are_refused_too() {
        let n =
            "FROM (SELECT value AS n, CAST(value AS VARCHAR) AS t FROM generate_series(1, 8000))";
        for expression in [
            "repeat(t, 10000000)",
            "range(n * 1000)",
            "rpad(t, 60000000)",
            "array_repeat(t, 1000000)",
        ] {
            let error = run(&format!("SELECT {expression} AS x {n}"))
                .await
                .unwrap_err();
            assert!(error.contains("8000 values of"), "{expression}: {error}");
        }
        // An estimate that is too large for all rows is not held against them.
        for expression in [
            "regexp_replace(rpad(t, 2000, 'ab'), 'zzz', '1234567890', 'g')",
            "replace(rpad(t, 2000, 'ab'), 'z', '1234567890')",
            "to_char(DATE '2024-01-01' + CAST(n AS INT), rpad('%Y', 900, '.'))",
        ] {
            let found = run(&format!("SELECT length({expression}) AS x {n}")).await;
            assert_eq!(found, Ok(8_000), "{expression}");
        }
    }

    #[tokio::test]
    async fn what_is_wrapped_gives_what_it_gave() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::new(192 << 20, 1, folder.path()).unwrap();
        let plain = datafusion::prelude::SessionContext::new();
        let n = "FROM (SELECT value AS n, CASE WHEN value % 3 = 0 THEN NULL ELSE CAST(value AS VARCHAR) END AS t \
                 FROM generate_series(1, 20))";
        for expression in [
            "t || '-' || n",
            "'a' || NULL",
            "n || t",
            "concat(t, NULL, n)",
            "concat_ws(t, 'a', NULL, 'b', n)",
            "lpad(t, 5), rpad(t, n, 'xy'), lpad('abc', 2), rpad(t, -1)",
            "repeat(t, n), repeat('ab', 3), repeat(t, -2), repeat(NULL, 3)",
            "replace(t, '1', 'one'), replace(t, '', 'x'), replace(t, t, '')",
            "regexp_replace(t, '([0-9])', '<\\1>', 'g'), regexp_replace('aa', 'a', 'b')",
            "range(n), range(2, n, 3), range(5, 1, -2), generate_series(1, n), range(NULL)",
            "generate_series(DATE '2024-01-31', DATE '2024-05-31', INTERVAL '1 month')",
            "array_repeat(t, n), array_repeat(make_array(n, 2), 2), array_resize(make_array(n), 3, 7)",
            "array_to_string(make_array(n, NULL, 3), ', ', '-'), array_append(make_array(n), 2)",
            "array_concat(make_array(n), make_array(1)), make_array(n) || make_array(2), [n, 1]",
            "to_char(DATE '2024-01-01' + CAST(n AS INT), '%A %d')",
            "overlay(t PLACING 'zz' FROM 1 FOR 1), map(make_array('a'), make_array(n))",
            "array_replace_all(make_array(n, 2), 2, 5), array_union(make_array(n), make_array(1))",
        ] {
            let sql = format!("SELECT n, {expression} {n}");
            let made = engine
                .session()
                .sql(&sql)
                .await
                .unwrap()
                .collect()
                .await
                .unwrap();
            let expected = plain.sql(&sql).await.unwrap().collect().await.unwrap();
            let shown = |batches: &[arrow::record_batch::RecordBatch]| {
                let text = arrow::util::pretty::pretty_format_batches(batches)
                    .unwrap()
                    .to_string();
                text.lines().skip(3).collect::<Vec<_>>().join("\n")
            };
            assert_eq!(shown(&made), shown(&expected), "{expression}");
        }
    }
}
