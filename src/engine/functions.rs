//! Athena's functions that the engine does not have, or answers in another way.
//!
//! ```text
//! name, types of arguments, type of the result, a kernel over arrays  ──▶ one ScalarUDF for each entry of FUNCTIONS
//! ```
//!
//! Each function is thin: it works on the arrays of one batch and keeps no state. Where the engine has a function of
//! nearly the same meaning, that function is called, and only the difference is mended. `athena` rewrites the SQL of
//! the functions that are only another spelling.

mod formats;
pub(super) mod json;
mod lists;
mod numbers;
mod texts;
mod times;
mod urls;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, TimeUnit};
use datafusion::common::{Result, ScalarValue, internal_err, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

pub(super) use formats::{Language, check_format};
pub(super) use times::check_unit;

/// Makes the functions known to a session. They replace functions of the engine with the same names.
pub(super) fn register(session: &SessionContext) {
    let rooms = [
        times::FUNCTIONS,
        texts::FUNCTIONS,
        urls::FUNCTIONS,
        numbers::FUNCTIONS,
        lists::FUNCTIONS,
        json::FUNCTIONS,
    ];
    for definition in rooms.into_iter().flatten() {
        session.register_udf(ScalarUDF::new_from_impl(Function::new(definition)));
    }
}

/// The function that numbers the items of lists, for WITH ORDINALITY.
pub(super) fn numbers_of_items() -> ScalarUDF {
    ScalarUDF::new_from_impl(Function::new(&lists::NUMBERS))
}

/// What a function is.
struct Definition {
    name: &'static str,
    takes: Coercion,
    /// The type of the result for the types of the arguments after coercion.
    gives: fn(&[DataType]) -> Result<DataType>,
    make: fn(&Given<'_>) -> Result<ArrayRef>,
}

/// The types to which the arguments are coerced.
enum Coercion {
    /// The kinds of the arguments in order; the first so many are required.
    Kinds(usize, &'static [Kind]),
    /// Another rule; the name of the function is for messages.
    By(fn(&str, &[DataType]) -> Result<Vec<DataType>>),
}

/// A kind of argument.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Bytes,
    TextOrBytes,
    /// Any integer, as bigint.
    Integer,
    /// Any number, as double.
    Double,
    /// Any number, as it is.
    Number,
    /// A date or a timestamp, as it is.
    Time,
    /// A list, as it is.
    List,
    /// A list or a map, as it is.
    Collection,
}

impl Kind {
    /// The words of messages.
    fn words(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Bytes => "bytes, such as `to_utf8(text)`",
            Self::TextOrBytes => "text or bytes",
            Self::Integer => "an integer",
            Self::Double | Self::Number => "a number",
            Self::Time => "a date or a timestamp",
            Self::List => "a list",
            Self::Collection => "a list or a map",
        }
    }

    /// The type to which an argument of another type is cast; `None` if it does not fit.
    fn of(self, given: &DataType) -> Option<DataType> {
        use DataType as D;
        let is_text = matches!(given, D::Utf8 | D::LargeUtf8 | D::Utf8View);
        let is_bytes = matches!(
            given,
            D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_)
        );
        let is_null = given.is_null();
        match self {
            Self::Text if is_text || is_null => Some(D::Utf8),
            Self::TextOrBytes if is_text || is_null => Some(D::Utf8),
            Self::Bytes | Self::TextOrBytes if is_bytes => Some(D::Binary),
            Self::Bytes if is_null => Some(D::Binary),
            Self::Integer if given.is_integer() || is_null => Some(D::Int64),
            Self::Double if given.is_numeric() || is_null => Some(D::Float64),
            Self::Number if is_null => Some(D::Int64),
            Self::Number if given.is_numeric() => Some(given.clone()),
            Self::Time if is_null => Some(D::Timestamp(TimeUnit::Millisecond, None)),
            Self::Time => match given {
                D::Date32 | D::Timestamp(..) => Some(given.clone()),
                D::Date64 => Some(D::Date32),
                _ => None,
            },
            Self::List | Self::Collection => match given {
                D::List(_) => Some(given.clone()),
                D::LargeList(item) | D::FixedSizeList(item, _) | D::ListView(item) => {
                    Some(D::List(Arc::clone(item)))
                }
                D::Map(..) if self == Self::Collection => Some(given.clone()),
                D::Null => Some(D::List(Arc::new(Field::new_list_field(D::Null, true)))),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The arguments of a call, as arrays of one length.
struct Given<'a> {
    name: &'static str,
    arrays: Vec<ArrayRef>,
    rows: usize,
    /// The type of the result.
    kind: &'a DataType,
    options: &'a Arc<ConfigOptions>,
}

impl Given<'_> {
    fn len(&self) -> usize {
        self.arrays.len()
    }

    fn array(&self, n: usize) -> Result<&ArrayRef> {
        match self.arrays.get(n) {
            Some(array) => Ok(array),
            None => internal_err!("`{}()` has no argument {n}", self.name),
        }
    }

    fn text(&self, n: usize) -> Result<&StringArray> {
        Ok(self.array(n)?.as_string::<i32>())
    }

    fn integers(&self, n: usize) -> Result<&Int64Array> {
        Ok(self.array(n)?.as_primitive::<Int64Type>())
    }

    fn doubles(&self, n: usize) -> Result<&Float64Array> {
        Ok(self.array(n)?.as_primitive::<Float64Type>())
    }

    /// What a function of the engine gives for these arrays, in the type that the function gives.
    fn engine(&self, function: &ScalarUDF, arrays: Vec<ArrayRef>) -> Result<ArrayRef> {
        let fields: Vec<_> = arrays
            .iter()
            .map(|array| Arc::new(Field::new("a", array.data_type().clone(), true)))
            .collect();
        let kinds: Vec<_> = fields
            .iter()
            .map(|field| field.data_type().clone())
            .collect();
        let kind = function.inner().return_type(&kinds).or_else(|_| {
            let made = function.inner().return_field_from_args(
                datafusion::logical_expr::ReturnFieldArgs {
                    arg_fields: &fields,
                    scalar_arguments: &vec![None; fields.len()],
                },
            );
            made.map(|field| field.data_type().clone())
        })?;
        let made = function.inner().invoke_with_args(ScalarFunctionArgs {
            args: arrays.into_iter().map(ColumnarValue::Array).collect(),
            arg_fields: fields,
            number_rows: self.rows,
            return_field: Arc::new(Field::new("r", kind, true)),
            config_options: Arc::clone(self.options),
        })?;
        made.into_array(self.rows)
    }
}

/// A definition as a function of the engine.
struct Function {
    definition: &'static Definition,
    signature: Signature,
}

impl Function {
    fn new(definition: &'static Definition) -> Self {
        Self {
            definition,
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Function")
            .field(&self.definition.name)
            .finish()
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.definition.name == other.definition.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.definition.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.definition.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let name = self.definition.name;
        match self.definition.takes {
            Coercion::By(rule) => rule(name, given),
            Coercion::Kinds(required, kinds) => {
                if given.len() < required || given.len() > kinds.len() {
                    let most = kinds.len();
                    let number = match required == most {
                        true => most.to_string(),
                        false => format!("{required} to {most}"),
                    };
                    return plan_err!("`{name}()` takes {number} arguments, not {}", given.len());
                }
                let pairs = kinds.iter().zip(given).enumerate();
                pairs
                    .map(|(n, (kind, given))| match kind.of(given) {
                        Some(kind) => Ok(kind),
                        None => refused(name, n, *kind, given),
                    })
                    .collect()
            }
        }
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        (self.definition.gives)(kinds)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = (args.args.iter()).all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let kind = args.return_field.data_type();
        let arrays = args.args.into_iter().map(|arg| arg.into_array(rows));
        let given = Given {
            name: self.definition.name,
            arrays: arrays.collect::<Result<Vec<_>>>()?,
            rows,
            kind,
            options: &args.config_options,
        };
        let made = (self.definition.make)(&given)?;
        let made = match made.data_type() == kind {
            true => made,
            false => cast(&made, kind)?,
        };
        Ok(match is_constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?),
            false => ColumnarValue::Array(made),
        })
    }
}

/// The error of an argument of another type.
fn refused<T>(name: &str, n: usize, kind: Kind, given: &DataType) -> Result<T> {
    let is_text = matches!(
        given,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    );
    let words = kind.words();
    let place = n + 1;
    match kind {
        Kind::Time if is_text => plan_err!(
            "`{name}()` takes {words} as argument {place}, not text: write `CAST(… AS date)` or `CAST(… AS timestamp)`"
        ),
        _ => plan_err!("`{name}()` takes {words} as argument {place}, not {given}"),
    }
}

/// The error of arguments that do not go together.
fn wrong_arguments<T>(name: &str, given: &[DataType]) -> Result<T> {
    let given: Vec<String> = given.iter().map(ToString::to_string).collect();
    plan_err!("`{name}` does not take these types: ({})", given.join(", "))
}

/// The types that a function of the engine makes of the types of its arguments.
fn as_engine(function: &ScalarUDF, given: &[DataType]) -> Result<Vec<DataType>> {
    let fields: Vec<_> = given
        .iter()
        .map(|kind| Arc::new(Field::new("a", kind.clone(), true)))
        .collect();
    let fields = fields_with_udf(&fields, function)?;
    Ok(fields
        .iter()
        .map(|field| field.data_type().clone())
        .collect())
}

fn gives_text(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::Utf8)
}

fn gives_bigint(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::Int64)
}

fn gives_double(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::Float64)
}

fn gives_boolean(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::Boolean)
}

/// The last value that was made of a text, for texts that are mostly the same in all rows, such as patterns.
struct Last<T> {
    made: Option<(String, T)>,
}

impl<T> Last<T> {
    const fn new() -> Self {
        Self { made: None }
    }

    fn of(&mut self, text: &str, make: impl FnOnce(&str) -> Result<T>) -> Result<&T> {
        if self.made.as_ref().is_none_or(|(last, _)| last != text) {
            self.made = Some((text.to_owned(), make(text)?));
        }
        match &self.made {
            Some((_, made)) => Ok(made),
            None => internal_err!("nothing was made of `{text}`"),
        }
    }
}
