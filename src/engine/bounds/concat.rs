//! Makes the operator `||` a function, so that its result is bounded too.

use arrow::compute::cast;
use arrow::compute::kernels::concat_elements::concat_elements_dyn;
use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

/// The operator `||` for texts, as a function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct TextConcat {
    signature: Signature,
}

impl TextConcat {
    pub(super) const NAME: &str = "||";

    pub(super) fn new() -> Self {
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
        let made = concat_elements_dyn(&left, &right)?;
        Ok(match is_constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?),
            false => ColumnarValue::Array(made),
        })
    }
}
