//! UNNEST after FROM, over the columns of the tables beside it.
//!
//! ```text
//! FROM t CROSS JOIN UNNEST(t.xs) AS u (x)
//!
//! planned   Join ┬ t                            rewritten   Projection  columns of t, columns of u
//!                └ u ─ Subquery ─ Beside(t.xs)                └ Unnest
//!                                                              └ Projection  columns of t, the list
//!                                                                 └ t
//! ```
//!
//! The engine cannot carry out the first plan. As in Athena, a map gives two columns, a list of structs one column for
//! each field, several lists go side by side with NULL behind the shorter ones, and WITH ORDINALITY counts from 1. If
//! the alias names one column for a list of structs, that column is the struct, as in DuckDB.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};

use datafusion::common::{
    Column, DFSchema, DFSchemaRef, JoinType, NullHandling, Result, ScalarValue, UnnestOptions,
    plan_err,
};
use datafusion::functions::core::expr_fn::get_field;
use datafusion::functions_nested::map_keys::map_keys;
use datafusion::functions_nested::map_values::map_values;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, Join, LogicalPlan, LogicalPlanBuilder,
    UserDefinedLogicalNodeCore, ident,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::sql::sqlparser::ast::{TableAlias, TableFactor};

use super::functions;

/// The lists of one UNNEST and the columns that it makes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Beside {
    /// Lists and maps. They may read columns of the tables beside them.
    lists: Vec<Expr>,
    /// For each list, the names of the fields of its structs that become columns. None where the item is the column.
    fields: Vec<Vec<String>>,
    ordinality: bool,
    schema: DFSchemaRef,
}

impl PartialOrd for Beside {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.lists.partial_cmp(&other.lists)
    }
}

impl UserDefinedLogicalNodeCore for Beside {
    fn name(&self) -> &str {
        "Beside"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.lists.clone()
    }

    fn fmt_for_explain(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UNNEST beside a table")
    }

    fn with_exprs_and_inputs(&self, lists: Vec<Expr>, _: Vec<LogicalPlan>) -> Result<Self> {
        Ok(Self {
            lists,
            ..self.clone()
        })
    }
}

/// Plans UNNEST after FROM.
#[derive(Debug)]
pub(super) struct Planner;

impl RelationPlanner for Planner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let TableFactor::UNNEST {
            mut alias,
            array_exprs,
            with_offset: false,
            with_offset_alias: None,
            with_ordinality,
        } = relation
        else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let none = DFSchema::empty();
        let lists = array_exprs
            .into_iter()
            .map(|list| context.sql_to_expr(list, &none))
            .collect::<Result<Vec<_>>>()?;
        let names = names_of(alias.as_mut(), context);
        let beside = Beside::new(lists, &names, with_ordinality)?;
        let reads = beside.lists.iter().any(Expr::contains_outer);
        let plan = match reads {
            true => LogicalPlan::Extension(Extension {
                node: Arc::new(beside),
            }),
            false => {
                let one_row = LogicalPlanBuilder::empty(true).build()?;
                let schema = Arc::clone(&beside.schema);
                beside.over(one_row, &schema, NullHandling::Drop)?
            }
        };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(
            plan, alias,
        ))))
    }
}

/// Takes the names of the columns out of an alias.
fn names_of(alias: Option<&mut TableAlias>, context: &dyn RelationPlannerContext) -> Vec<String> {
    let columns = alias.map(|alias| std::mem::take(&mut alias.columns));
    let columns = columns.unwrap_or_default().into_iter();
    columns
        .map(|column| context.normalize_ident(column.name))
        .collect()
}

/// The columns of the items of a list or a map: their names and types. The name is empty where there is none.
fn columns_of(list: &DataType) -> Result<Vec<(String, DataType)>> {
    let unnamed = |kind: &DataType| (String::new(), kind.clone());
    match list {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            Ok(match item.data_type() {
                DataType::Struct(fields) => fields
                    .iter()
                    .map(|field| (field.name().clone(), field.data_type().clone()))
                    .collect(),
                other => vec![unnamed(other)],
            })
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => Ok(fields
                .iter()
                .map(|field| unnamed(field.data_type()))
                .collect()),
            other => plan_err!("a map has entries of the type {other}"),
        },
        DataType::Null => Ok(vec![unnamed(&DataType::Null)]),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => plan_err!(
            "UNNEST takes a list or a map, not text: write `CAST(json_parse(text) AS array(varchar))` for a JSON array"
        ),
        other => plan_err!("UNNEST takes a list or a map, not {other}"),
    }
}

fn item_of(list: &DataType) -> Option<&DataType> {
    match list {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            Some(item.data_type())
        }
        _ => None,
    }
}

impl Beside {
    /// The UNNEST of these lists; `names` are those of the alias, if it has any.
    fn new(lists: Vec<Expr>, names: &[String], ordinality: bool) -> Result<Self> {
        let none = DFSchema::empty();
        let kinds = lists.iter().map(|list| list.get_type(&none));
        let kinds = kinds.collect::<Result<Vec<_>>>()?;
        let all = kinds.iter().map(columns_of).collect::<Result<Vec<_>>>()?;
        let more = usize::from(ordinality);
        let wide = all.iter().map(Vec::len).sum::<usize>() + more;
        let narrow = kinds.iter().map(|kind| match kind {
            DataType::Map(..) => 2,
            _ => 1,
        });
        let narrow = narrow.sum::<usize>() + more;
        let whole = names.len() == narrow && narrow != wide;
        if !names.is_empty() && names.len() != wide && !whole {
            return plan_err!(
                "UNNEST makes {wide} columns here, and the alias names {}: write one name for each",
                names.len()
            );
        }
        let mut columns = Vec::new();
        let mut fields = Vec::new();
        for (kind, all) in kinds.iter().zip(all) {
            let item = item_of(kind).filter(|item| matches!(item, DataType::Struct(_)));
            fields.push(match (item, whole) {
                (Some(_), false) => all.iter().map(|(name, _)| name.clone()).collect(),
                _ => Vec::new(),
            });
            match (item, whole) {
                (Some(item), true) => columns.push((String::new(), item.clone())),
                _ => columns.extend(all),
            }
        }
        if ordinality {
            columns.push((String::new(), DataType::Int64));
        }
        let columns = columns.into_iter().enumerate();
        let columns = columns.map(|(n, (own, kind))| match names.get(n) {
            Some(name) => Ok(Field::new(name, kind, true)),
            None if !own.is_empty() => Ok(Field::new(own, kind, true)),
            None => plan_err!("UNNEST makes a column without a name: write `UNNEST(…) AS u (x)`"),
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let schema = DFSchema::from_unqualified_fields(columns.into(), Default::default())?;
        Ok(Self {
            lists,
            fields,
            ordinality,
            schema: Arc::new(schema),
        })
    }

    /// The rows of `input`, each with the items of its lists behind its columns. `named` has the names of the columns
    /// of the items.
    fn over(
        &self,
        input: LogicalPlan,
        named: &DFSchema,
        null_handling: NullHandling,
    ) -> Result<LogicalPlan> {
        let own: Vec<Expr> = input
            .schema()
            .columns()
            .into_iter()
            .map(Expr::Column)
            .collect();
        let schema = Arc::clone(input.schema());
        let mut lists = Vec::new();
        let mut made = Vec::new();
        let mut counted = Vec::new();
        let mut list = |list: Expr| {
            let name = format!("__item_{}", lists.len());
            lists.push(list.alias(&name));
            ident(name)
        };
        for (written, fields) in self.lists.iter().zip(&self.fields) {
            let written = with_columns(written.clone())?;
            counted.push(written.clone());
            if let DataType::Map(..) = written.get_type(&schema)? {
                made.push(list(map_keys(written.clone())));
                made.push(list(map_values(written)));
                continue;
            }
            let item = list(written);
            match fields.is_empty() {
                true => made.push(item),
                false => made.extend(
                    fields
                        .iter()
                        .map(|field| get_field(item.clone(), field.as_str())),
                ),
            }
        }
        if self.ordinality {
            made.push(list(functions::numbers_of_items().call(counted)));
        }
        let unnested = (0..lists.len()).map(|n| Column::from_name(format!("__item_{n}")));
        let unnested: Vec<Column> = unnested.collect();
        let named = made
            .into_iter()
            .zip(named.iter())
            .map(|(made, (relation, field))| made.alias_qualified(relation.cloned(), field.name()));
        let all: Vec<Expr> = own.iter().cloned().chain(named).collect();
        let options = UnnestOptions {
            null_handling,
            recursions: Vec::new(),
        };
        LogicalPlanBuilder::from(input)
            .project(own.into_iter().chain(lists))?
            .unnest_columns_with_options(unnested, options)?
            .project(all)?
            .build()
    }
}

/// The expression with the columns of the table beside it in place of references from within a sub-query.
fn with_columns(expression: Expr) -> Result<Expr> {
    expression
        .transform_up(|part| {
            Ok(match part {
                Expr::OuterReferenceColumn(_, column) => Transformed::yes(Expr::Column(column)),
                other => Transformed::no(other),
            })
        })
        .data()
}

/// Rewrites joins with an UNNEST beside a table.
#[derive(Debug)]
pub(super) struct Rewrite;

impl AnalyzerRule for Rewrite {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Join(join) => joined(join),
            other => Ok(Transformed::no(other)),
        })
        .data()
    }

    fn name(&self) -> &str {
        "unnest_beside_a_table"
    }
}

/// The UNNEST that a plan is, below its alias.
fn beside(plan: &LogicalPlan) -> Option<&Beside> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => beside(&alias.input),
        LogicalPlan::Subquery(query) => beside(&query.subquery),
        LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref::<Beside>(),
        _ => None,
    }
}

fn joined(join: Join) -> Result<Transformed<LogicalPlan>> {
    let Some(unnest) = beside(&join.right).cloned() else {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    };
    let left = join.left.schema();
    let outer = unnest.lists.iter().flat_map(|list| {
        let mut columns = Vec::new();
        let _ = list.apply(|part| {
            if let Expr::OuterReferenceColumn(_, column) = part {
                columns.push(column.clone());
            }
            Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
        });
        columns
    });
    if let Some(column) = outer.into_iter().find(|column| !left.has_column(column)) {
        return plan_err!(
            "UNNEST reads `{column}`, which is no column of the tables before it in the same FROM"
        );
    }
    if !join.on.is_empty() {
        return plan_err!("UNNEST cannot be joined with USING: write `CROSS JOIN UNNEST(…)`");
    }
    let is_true =
        |filter: &Expr| matches!(filter, Expr::Literal(ScalarValue::Boolean(Some(true)), _));
    let filter = join.filter.filter(|filter| !is_true(filter));
    let null_handling = match (join.join_type, &filter) {
        (JoinType::Inner, _) => NullHandling::Drop,
        (JoinType::Left, None) => NullHandling::PreserveAndExpandEmpty,
        (JoinType::Left, Some(_)) => {
            return plan_err!(
                "UNNEST behind LEFT JOIN takes ON TRUE only: write the condition as a CASE, or put it into a sub-query"
            );
        }
        _ => return plan_err!("UNNEST stands behind CROSS JOIN or LEFT JOIN"),
    };
    let plan = unnest.over(
        Arc::unwrap_or_clone(join.left),
        join.right.schema(),
        null_handling,
    )?;
    let plan = match filter {
        None => plan,
        Some(filter) => LogicalPlanBuilder::from(plan).filter(filter)?.build()?,
    };
    Ok(Transformed::yes(plan))
}
