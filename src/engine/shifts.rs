//! Evaluates `lag` and `lead` that ignore NULLs.
//!
//! DataFusion evaluates them row by row where it can, and then finds too few rows ahead that are not NULL: for
//! 1, 2, 3, NULL, 5 it gives NULL as the second value behind 2. With an offset of 0 it gives the default for
//! NULL. Evaluated over a whole partition, they are right. This costs nothing more, because the row-by-row form
//! also needs the whole partition to look ahead over NULLs.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_window::lead_lag::{WindowShift, WindowShiftKind};
use datafusion::logical_expr::function::{
    ExpressionArgs, PartitionEvaluatorArgs, WindowUDFFieldArgs,
};
use datafusion::logical_expr::{
    Documentation, LimitEffect, PartitionEvaluator, ReversedUDWF, Signature, WindowUDF,
    WindowUDFImpl,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;

/// The functions `lag` and `lead`. They replace those of DataFusion.
pub(super) fn functions() -> [WindowUDF; 2] {
    [WindowShift::lag(), WindowShift::lead()].map(|inner| WindowUDF::from(Shift { inner }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Shift {
    inner: WindowShift,
}

impl WindowUDFImpl for Shift {
    fn partition_evaluator(
        &self,
        args: PartitionEvaluatorArgs,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        let ahead = (*self.inner.kind() == WindowShiftKind::Lead) != args.is_reversed();
        let whole = args.ignore_nulls() && (ahead || is_of_no_rows(&args));
        let inner = self.inner.partition_evaluator(args)?;
        Ok(match whole {
            true => Box::new(Whole { inner }),
            false => inner,
        })
    }

    fn reverse_expr(&self) -> ReversedUDWF {
        let inner = match self.inner.kind() {
            WindowShiftKind::Lag => WindowShift::lag(),
            WindowShiftKind::Lead => WindowShift::lead(),
        };
        ReversedUDWF::Reversed(Arc::new(WindowUDF::from(Self { inner })))
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn expressions(&self, args: ExpressionArgs) -> Vec<Arc<dyn PhysicalExpr>> {
        self.inner.expressions(args)
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        self.inner.field(args)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arguments)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn limit_effect(&self, _: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        // It is not known here whether NULLs are ignored.
        LimitEffect::Unknown
    }
}

/// Whether the value is the value of the row itself, even if it is NULL.
fn is_of_no_rows(args: &PartitionEvaluatorArgs) -> bool {
    let offset = args.input_exprs().get(1);
    offset
        .and_then(|offset| offset.downcast_ref::<Literal>())
        .and_then(|offset| offset.value().cast_to(&DataType::Int64).ok())
        .is_some_and(|offset| offset == ScalarValue::Int64(Some(0)))
}

/// An evaluator that works on whole partitions only.
#[derive(Debug)]
struct Whole {
    inner: Box<dyn PartitionEvaluator>,
}

impl PartitionEvaluator for Whole {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        self.inner.evaluate_all(values, rows)
    }

    fn evaluate(&mut self, values: &[ArrayRef], range: &Range<usize>) -> Result<ScalarValue> {
        self.inner.evaluate(values, range)
    }

    fn supports_bounded_execution(&self) -> bool {
        false
    }
}
