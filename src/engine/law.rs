//! The law of the SQL: where the engine's answer differs from Trino's, Trino's answer is given.
//!
//! ```text
//! SQL ─▶ plan ─▶ before: zones, signs, decimals beside doubles ─▶ types are coerced
//!                after: operators that fail on overflow, casts that round        ─▶ types are coerced ─▶ lawful plan
//! ```
//!
//! A plan is made lawful only once. A second time, the casts that the first time has added would be taken for
//! casts of the author. Marts and the expressions of duplicate rules both go through this file.

mod decimals;
mod operators;
mod sums;
#[cfg(test)]
mod tests;
mod times;

use std::sync::Arc;

use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, DecimalType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::execution::context::SessionContext;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::functions::datetime::to_local_time;
use datafusion::logical_expr::expr::{BinaryExpr, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    AggregateUDF, Case, Cast, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, RecursiveQuery,
    ScalarUDF, TryCast, Union, cast, lit, try_cast,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::resolve_grouping_function::ResolveGroupingFunction;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;

pub use super::instants::{floored_array, is_finer};
pub use times::floored;

use super::instants::is_utc;
use super::{functions, unnests};
use operators::{Arithmetic, Negative, Whole};
use sums::Exact;

/// The version of the law. It counts up when the law gives other rows than before, so that marts are built
/// again.
pub const LAW: u32 = 2;

/// The beginning of a state whose plans are lawful. [`session`] completes it.
pub(super) fn state(mut config: SessionConfig, runtime: Arc<RuntimeEnv>) -> SessionStateBuilder {
    let options = config.options_mut();
    options.execution.time_zone = Some("UTC".to_owned());
    // String literals and casts have the same type as stored strings.
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.default_null_ordering = "nulls_last".to_owned();
    // The digits of a number are known as they are written; see `meet`.
    options.sql_parser.parse_float_as_decimal = true;
    SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_relation_planners(vec![Arc::new(unnests::Planner)])
        .with_analyzer_rules(vec![
            Arc::new(unnests::Rewrite),
            Arc::new(ResolveGroupingFunction::new()),
            Arc::new(Before),
            Arc::new(TypeCoercion::new()),
            Arc::new(After),
            Arc::new(TypeCoercion::new()),
        ])
}

/// A session whose plans are lawful.
pub(super) fn session(state: SessionState) -> SessionContext {
    let session = SessionContext::new_with_state(state);
    session.register_udaf(AggregateUDF::new_from_impl(Exact::sum()));
    session.register_udaf(AggregateUDF::new_from_impl(Exact::average()));
    functions::register(&session);
    session
}

/// The lawful plan of a plan that was made in a session of the engine. The types of its schema are the types of
/// its rows.
///
/// # Errors
/// Types that do not go together.
pub fn lawful(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    let options = state.config_options();
    state.analyzer().execute_and_check(plan, options, |_, _| {})
}

/// The optimized form of a lawful plan.
///
/// # Errors
/// The plan cannot be carried out.
pub fn optimized(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    state.optimizer().optimize(plan, state, |_, _| {})
}

/// The physical plan of a lawful plan.
///
/// # Errors
/// The plan cannot be carried out.
pub async fn physical(state: &SessionState, plan: LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = optimized(state, plan)?;
    state
        .query_planner()
        .create_physical_plan(&plan, state)
        .await
}

/// The lawful form of an expression over `schema`.
pub(super) fn expression(
    expression: Expr,
    simplifier: &ExprSimplifier,
    schema: &DFSchema,
) -> Result<Expr> {
    let expression = all_before(expression, schema)?.data;
    let expression = simplifier.coerce(expression, schema)?;
    let expression = expression.transform_up(|part| after(part, schema))?.data;
    simplifier.coerce(expression, schema)
}

/// The wall clock of a time that has a zone. Any other expression stays as it is.
pub fn wall_clock(expression: Expr, kind: &DataType) -> Expr {
    match kind {
        DataType::Timestamp(_, Some(zone)) if !is_utc(zone) => {
            to_local_time().call(vec![expression])
        }
        _ => expression,
    }
}

/// The rewrites before types are coerced.
#[derive(Debug)]
struct Before;

impl AnalyzerRule for Before {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        rewritten(plan, all_before, |node| {
            let node = signed(node)?;
            match node {
                LogicalPlan::Union(union) => union_of_doubles(union),
                other => Ok(other),
            }
        })
    }

    fn name(&self) -> &str {
        "law_before_coercion"
    }
}

/// The rewrites when types are coerced.
#[derive(Debug)]
struct After;

impl AnalyzerRule for After {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        rewritten(plan, all_after, |node| {
            if let LogicalPlan::RecursiveQuery(query) = &node {
                same_types(query)?;
            }
            Ok(node)
        })
    }

    fn name(&self) -> &str {
        "law_after_coercion"
    }
}

/// Rewrites every expression of a plan, then the node that holds it.
fn rewritten(
    plan: LogicalPlan,
    each: impl Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
    whole: impl Fn(LogicalPlan) -> Result<LogicalPlan>,
) -> Result<LogicalPlan> {
    let made = plan.transform_up_with_subqueries(|node| {
        // The types of its columns are the common types. They are settled when the node is planned.
        if matches!(node, LogicalPlan::Values(_)) {
            return Ok(Transformed::no(node));
        }
        let schema = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        let named = |expression: Expr| {
            let name = names.save(&expression);
            let made = each(expression, &schema)?;
            Ok(made.update_data(|expression| name.restore(expression)))
        };
        let node = node.map_expressions(|expression| match expression {
            // A grouping set has no name, but its columns have names.
            sets @ Expr::GroupingSet(_) => sets.map_children(named),
            other => named(other),
        })?;
        let node = node.data.recompute_schema()?;
        whole(node).map(Transformed::yes)
    })?;
    Ok(made.data)
}

fn all_before(expression: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let made = expression.transform_up(|part| before(part, schema))?;
    match is_written(&made.data) {
        true => Ok(Transformed::yes(as_double(made.data)?)),
        false => Ok(made),
    }
}

fn all_after(expression: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expression.transform_up(|part| after(part, schema))
}

fn before(expression: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expression {
        // `AT TIME ZONE`: a time without a zone is in UTC.
        Expr::Cast(Cast { expr, field }) if matches!(field.data_type(), DataType::Timestamp(_, Some(zone)) if !is_utc(zone)) =>
        {
            let DataType::Timestamp(unit, zone) = field.data_type() else {
                return Ok(Transformed::no(Expr::Cast(Cast { expr, field })));
            };
            // The time keeps its own unit, so that every year is possible.
            let (unit, expr) = match expr.get_type(schema) {
                Ok(DataType::Timestamp(unit, Some(_))) => (unit, *expr),
                Ok(DataType::Timestamp(unit, None)) => (unit, in_utc(*expr, unit)),
                _ => (*unit, in_utc(*expr, *unit)),
            };
            Transformed::yes(cast(expr, DataType::Timestamp(unit, zone.clone())))
        }
        Expr::ScalarFunction(call) if !call.func.name().starts_with("arrow_") => {
            if MEETING.contains(&call.func.name()) {
                let mut call = call;
                let changed = meet(call.args.iter_mut().collect(), schema)?;
                return Ok(as_changed(Expr::ScalarFunction(call), changed));
            }
            let mut call = call;
            let mut changed = false;
            // Large integers lose their last digits in a double.
            if let ("ceil" | "floor" | "trunc", [value]) = (call.func.name(), call.args.as_slice())
                && value.get_type(schema).is_ok_and(|kind| kind.is_integer())
            {
                return Ok(Transformed::yes(value.clone()));
            }
            if call.func.name() == "array_sort" && call.args.len() < 3 {
                if call.args.len() == 1 {
                    call.args.push(lit("ASC"));
                }
                call.args.push(lit("NULLS LAST"));
                changed = true;
            }
            let call = written_to_double(Expr::ScalarFunction(call))?;
            let (call, changed) = (call.data, changed || call.transformed);
            match call.get_type(schema) {
                Ok(kind) if kind.is_unsigned_integer() && is_count(&call, schema) => {
                    Transformed::yes(cast(call, DataType::Int64))
                }
                _ if changed => Transformed::yes(call),
                _ => Transformed::no(call),
            }
        }
        Expr::BinaryExpr(mut binary)
            if binary.op.is_numerical_operators() || binary.op.supports_propagation() =>
        {
            let changed = meet(vec![&mut binary.left, &mut binary.right], schema)?;
            as_changed(Expr::BinaryExpr(binary), changed)
        }
        Expr::Between(mut between) => {
            let parts = vec![&mut *between.expr, &mut *between.low, &mut *between.high];
            let changed = meet(parts, schema)?;
            as_changed(Expr::Between(between), changed)
        }
        Expr::InList(mut list) => {
            let mut parts = vec![&mut *list.expr];
            parts.extend(list.list.iter_mut());
            let changed = meet(parts, schema)?;
            as_changed(Expr::InList(list), changed)
        }
        Expr::Case(mut case) => {
            let changed = meet_in_case(&mut case, schema)?;
            as_changed(Expr::Case(case), changed)
        }
        // A cast to a decimal loses nothing.
        Expr::Cast(Cast { expr, field }) if field.data_type().is_decimal() => {
            Transformed::no(Expr::Cast(Cast { expr, field }))
        }
        Expr::TryCast(TryCast { expr, field }) if field.data_type().is_decimal() => {
            Transformed::no(Expr::TryCast(TryCast { expr, field }))
        }
        other => written_to_double(other)?,
    })
}

fn written_to_double(expression: Expr) -> Result<Transformed<Expr>> {
    expression.map_children(|child| match is_written(&child) {
        true => Ok(Transformed::yes(as_double(child)?)),
        false => Ok(Transformed::no(child)),
    })
}

fn as_changed(expression: Expr, changed: bool) -> Transformed<Expr> {
    match changed {
        true => Transformed::yes(expression),
        false => Transformed::no(expression),
    }
}

fn in_utc(expression: Expr, unit: TimeUnit) -> Expr {
    cast(expression, DataType::Timestamp(unit, Some("UTC".into())))
}

/// The functions whose arguments get one common type.
const MEETING: [&str; 6] = ["coalesce", "greatest", "least", "nullif", "nvl", "nvl2"];

fn meet_in_case(case: &mut Case, schema: &DFSchema) -> Result<bool> {
    let mut compared = Vec::new();
    let mut given = Vec::new();
    let with_operand = case.expr.is_some();
    compared.extend(case.expr.as_deref_mut());
    for (when, then) in &mut case.when_then_expr {
        if with_operand {
            compared.push(&mut **when);
        }
        given.push(&mut **then);
    }
    given.extend(case.else_expr.as_deref_mut());
    let compared = meet(compared, schema)?;
    let given = meet(given, schema)?;
    Ok(compared || given)
}

/// If decimals and doubles meet, the common type is double, as in Trino, and not a decimal with 15 digits
/// behind the point. A number that is written in the SQL, such as `1.5`, is a decimal beside decimals, and a
/// double beside any other type.
fn meet(mut parts: Vec<&mut Expr>, schema: &DFSchema) -> Result<bool> {
    let kinds: Vec<Option<DataType>> = parts
        .iter()
        .map(|part| match is_written(part) {
            true => None,
            false => part.get_type(schema).ok(),
        })
        .collect();
    let any = |is: fn(&DataType) -> bool| kinds.iter().flatten().any(is);
    let (decimals, doubles) = (any(DataType::is_decimal), any(DataType::is_floating));
    if decimals && !doubles {
        return Ok(false);
    }
    let mut changed = false;
    for (part, kind) in parts.iter_mut().zip(&kinds) {
        let is_decimal = kind.as_ref().is_some_and(DataType::is_decimal);
        if is_written(part) || is_decimal {
            let decimal = std::mem::replace(*part, Expr::Literal(ScalarValue::Null, None));
            **part = match is_decimal {
                true => cast(decimal, DataType::Float64),
                false => as_double(decimal)?,
            };
            changed = true;
        }
    }
    Ok(changed)
}

/// Whether this is a number with a point that is written in the SQL.
fn is_written(expression: &Expr) -> bool {
    matches!(
        expression,
        Expr::Literal(
            ScalarValue::Decimal128(Some(_), ..) | ScalarValue::Decimal256(Some(_), ..),
            _
        )
    )
}

/// The double that is nearest to a number that is written in the SQL.
fn as_double(expression: Expr) -> Result<Expr> {
    let text = match &expression {
        Expr::Literal(ScalarValue::Decimal128(Some(value), precision, scale), _) => {
            Decimal128Type::format_decimal(*value, *precision, *scale)
        }
        Expr::Literal(ScalarValue::Decimal256(Some(value), precision, scale), _) => {
            Decimal256Type::format_decimal(*value, *precision, *scale)
        }
        _ => return Ok(expression),
    };
    match text.parse::<f64>() {
        Ok(value) => Ok(lit(value)),
        Err(error) => plan_err!("{text} is no number: {error}"),
    }
}

fn after(expression: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expression {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let kinds = (left.get_type(schema), right.get_type(schema));
            match kinds {
                (Ok(l), Ok(r)) if Arithmetic::applies(op, &l, &r) => {
                    let call = ScalarUDF::new_from_impl(Arithmetic::new(op));
                    Transformed::yes(call.call(vec![*left, *right]))
                }
                _ => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
            }
        }
        Expr::Negative(inner) => match inner.get_type(schema) {
            Ok(kind) if kind.is_signed_integer() => {
                Transformed::yes(ScalarUDF::new_from_impl(Negative::new()).call(vec![*inner]))
            }
            _ => Transformed::no(Expr::Negative(inner)),
        },
        Expr::Cast(Cast { expr, field }) => {
            let (expr, changed) = before_cast(*expr, field.data_type(), schema);
            match every_year(field.data_type()) {
                Some(kind) => Transformed::yes(cast(expr, kind)),
                None => as_changed(
                    Expr::Cast(Cast {
                        expr: Box::new(expr),
                        field,
                    }),
                    changed,
                ),
            }
        }
        Expr::TryCast(TryCast { expr, field }) => {
            let (expr, changed) = before_cast(*expr, field.data_type(), schema);
            match every_year(field.data_type()) {
                Some(kind) => Transformed::yes(try_cast(expr, kind)),
                None => as_changed(
                    Expr::TryCast(TryCast {
                        expr: Box::new(expr),
                        field,
                    }),
                    changed,
                ),
            }
        }
        other => Transformed::no(other),
    })
}

/// The type that replaces a cast to nanoseconds, which end in the year 2262.
fn every_year(to: &DataType) -> Option<DataType> {
    match to {
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            Some(DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))
        }
        _ => None,
    }
}

/// The expression to be cast, and whether it was changed.
fn before_cast(expression: Expr, to: &DataType, schema: &DFSchema) -> (Expr, bool) {
    let Ok(from) = expression.get_type(schema) else {
        return (expression, false);
    };
    let is_done = matches!(
        &expression,
        Expr::ScalarFunction(ScalarFunction { func, .. }) if func.inner().is::<Whole>()
    );
    if to.is_integer() && Whole::applies(&from) && !is_done {
        let whole = ScalarUDF::new_from_impl(Whole::new());
        return (whole.call(vec![expression]), true);
    }
    match (&from, to) {
        (DataType::Timestamp(_, Some(zone)), DataType::Timestamp(_, None)) if !is_utc(zone) => {
            (wall_clock(expression, &from), true)
        }
        _ => (expression, false),
    }
}

/// Makes counts and ranks bigint, so that they can be subtracted from each other. An aggregate that takes its
/// type from its argument has a type that is not known before coercion.
fn signed(plan: LogicalPlan) -> Result<LogicalPlan> {
    let made = match &plan {
        LogicalPlan::Aggregate(aggregate) => &aggregate.aggr_expr,
        LogicalPlan::Window(window) => &window.window_expr,
        _ => return Ok(plan),
    };
    let inputs = merge_schema(&plan.inputs());
    let schema = Arc::clone(plan.schema());
    let others = schema.fields().len().saturating_sub(made.len());
    let counts: Vec<bool> = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(i, field)| {
            let call = i.checked_sub(others).and_then(|i| made.get(i));
            field.data_type().is_unsigned_integer()
                && call.is_some_and(|call| is_count(call, &inputs))
        })
        .collect();
    if !counts.contains(&true) {
        return Ok(plan);
    }
    let columns = schema
        .iter()
        .zip(&counts)
        .map(|((relation, field), counts)| {
            let column = Expr::Column((relation, field).into());
            match counts {
                true => {
                    cast(column, DataType::Int64).alias_qualified(relation.cloned(), field.name())
                }
                false => column,
            }
        });
    let columns: Vec<Expr> = columns.collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

/// Whether no argument of a call is unsigned, so that the function itself counts.
fn is_count(call: &Expr, schema: &DFSchema) -> bool {
    let args = match call {
        Expr::Alias(alias) => return is_count(&alias.expr, schema),
        Expr::AggregateFunction(call) => &call.params.args,
        Expr::WindowFunction(call) => &call.params.args,
        Expr::ScalarFunction(call) => &call.args,
        _ => return false,
    };
    let kinds = args.iter().map(|argument| argument.get_type(schema));
    kinds
        .into_iter()
        .all(|kind| kind.is_ok_and(|kind| !holds_unsigned(&kind)))
}

fn holds_unsigned(kind: &DataType) -> bool {
    match kind {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => holds_unsigned(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| holds_unsigned(field.data_type())),
        DataType::Dictionary(_, value) => holds_unsigned(value),
        other => other.is_unsigned_integer(),
    }
}

/// Gives the rows that a recursive query reads of itself the types of its first SELECT, as it was planned.
fn same_types(query: &RecursiveQuery) -> Result<()> {
    let given = query.static_term.schema().fields();
    let found = query.recursive_term.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && scan.table_name.table() == query.name
        {
            let read = scan.source.schema();
            let mut pairs = given.iter().zip(read.fields());
            if let Some((given, read)) = pairs.find(|(a, b)| a.data_type() != b.data_type()) {
                return plan_err!(
                    "in the recursive query `{}` the column `{}` is {} in the first row and {} in others: \
                     write a CAST around it in the first SELECT",
                    query.name,
                    read.name(),
                    read.data_type(),
                    given.data_type()
                );
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found.map(drop)
}

/// Casts decimals to double if another SELECT of the union has doubles.
fn union_of_doubles(union: Union) -> Result<LogicalPlan> {
    let columns = union.schema.fields().len();
    let any = |i: usize, is: fn(&DataType) -> bool| {
        let kinds = union
            .inputs
            .iter()
            .filter_map(|input| input.schema().fields().get(i));
        kinds.map(|field| field.data_type()).any(is)
    };
    let mixed: Vec<bool> = (0..columns)
        .map(|i| any(i, DataType::is_decimal) && any(i, DataType::is_floating))
        .collect();
    if !mixed.contains(&true) {
        return Ok(LogicalPlan::Union(union));
    }
    let inputs = union.inputs.into_iter().map(|input| {
        let schema = Arc::clone(input.schema());
        let each = schema.iter().zip(&mixed).map(|((relation, field), mixed)| {
            let column = Expr::Column((relation, field).into());
            match *mixed && field.data_type().is_decimal() {
                true => {
                    cast(column, DataType::Float64).alias_qualified(relation.cloned(), field.name())
                }
                false => column,
            }
        });
        let plan = LogicalPlanBuilder::from(Arc::unwrap_or_clone(input));
        Ok(Arc::new(plan.project(each.collect::<Vec<_>>())?.build()?))
    });
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    Union::try_new_with_loose_types(inputs).map(LogicalPlan::Union)
}
