//! The columns of a mart: their names and types, which every reader must accept.
//!
//! ```text
//! SELECT a, dt, n     ──▶  CAST(a) AS a, CAST(n) AS n      columns in files, in the SELECT's order
//! -- partition: dt         CAST(dt AS string) AS dt        partition columns last
//! ```
//!
//! A timestamp is in microseconds where a table that the mart reads has microseconds, and otherwise in milliseconds. A
//! time that is finer is floored: a cast would cut it towards 1970.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::Column;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, lit, when};

use super::phrases::in_words;
use super::select::{Parsed, is_name, too_long};
use super::{Mart, MartError};
use crate::catalog::{self, TableDefinition};
use crate::engine::{floored, is_finer, wall_clock};
use crate::layout::NULL_VALUE;
use crate::names::nearest;
use crate::time::TimeUnit;

/// Casts the columns of a plan to the types in which they are written, and tells the table that they make. The columns
/// of files come first, then the partition columns.
///
/// # Errors
/// A column whose name or type some reader would not accept, two columns of one name, a partition column that is not
/// selected, or no other column.
pub(super) fn apply(
    mart: &Mart,
    select: &Parsed,
    plan: LogicalPlan,
) -> Result<(LogicalPlan, TableDefinition), MartError> {
    let schema = Arc::clone(plan.schema());
    let unit = unit(mart, &plan)?;
    let mut files: Vec<(FieldRef, Expr)> = Vec::new();
    let mut partitions: Vec<(String, Expr)> = Vec::new();
    for (i, (qualifier, field)) in schema.iter().enumerate() {
        let name = field.name();
        let fail = |message: String| MartError::new(&mart.file, select.column_line(i), message);
        if !is_name(name) {
            return Err(wrong_name(name, select.is_named(i), fail));
        }
        if let Some(message) = too_long(name) {
            return Err(fail(message).hint("give the column a shorter name with AS"));
        }
        if files.iter().any(|(field, _)| field.name() == name)
            || partitions.iter().any(|(other, _)| other == name)
        {
            return Err(fail(format!("there are two columns `{name}`"))
                .hint("give one of them another name with AS"));
        }
        let column = Expr::Column(Column::from((qualifier, field)));
        let kind = field.data_type();
        if mart.partition.contains(name) {
            if !partitionable(kind) {
                return Err(fail(format!(
                    "`{name}` is {kind} and cannot be a partition column"
                ))
                .hint("partition by a string, an integer, a boolean or a date"));
            }
            let text = cast(column, DataType::Utf8);
            // Readers of a Hive table cannot tell an empty value, or the spelling of NULL, from NULL.
            let is_value = text.clone().in_list(vec![lit(""), lit(NULL_VALUE)], true);
            let text = when(is_value, text)
                .end()
                .map_err(|error| MartError::planning(&mart.file, &error))?;
            partitions.push((name.clone(), text));
        } else {
            let target = written(kind, unit).map_err(|refused| {
                let error = fail(format!("the column `{name}` is {}", refused.what));
                error.hint(refused.remedy)
            })?;
            let column = wall_clock(column, kind);
            let column = match is_finer(kind, unit) {
                true => floored(column, unit),
                false => column,
            };
            let column = if target == *kind {
                column
            } else {
                cast(column, target.clone())
            };
            files.push((Arc::new(Field::new(name, target, true)), column));
        }
    }
    let missing = |name: &&String| !partitions.iter().any(|(other, _)| other == *name);
    if let Some(name) = mart.partition.iter().find(missing) {
        return Err(not_selected(mart, name, schema.as_arrow()));
    }
    if files.is_empty() {
        return Err(
            MartError::new(&mart.file, None, "all columns are partition columns")
                .hint("a file needs a column of its own: select one more"),
        );
    }
    // Partition columns are in the order of the folders, not of the SELECT.
    partitions.sort_by_key(|(name, _)| mart.partition.iter().position(|other| other == name));
    project(mart, plan, files, partitions)
}

/// The unit of the timestamps of a mart: microseconds where a table that the plan reads has some.
fn unit(mart: &Mart, plan: &LogicalPlan) -> Result<TimeUnit, MartError> {
    let mut unit = TimeUnit::Ms;
    let looked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && catalog::timestamp_unit(&scan.source.schema()) == TimeUnit::Us
        {
            unit = TimeUnit::Us;
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    looked.map_err(|error| MartError::planning(&mart.file, &error))?;
    Ok(unit)
}

/// Casts the columns of a query to the types of the lake, without a rule for their names. A type that the lake lacks
/// becomes text.
pub(super) fn apply_to_query(mart: &Mart, plan: LogicalPlan) -> Result<LogicalPlan, MartError> {
    let schema = Arc::clone(plan.schema());
    let unit = unit(mart, &plan)?;
    let columns = schema.iter().map(|(qualifier, field)| {
        let kind = field.data_type();
        let target = written(kind, unit).unwrap_or(DataType::Utf8);
        let column = wall_clock(Expr::Column(Column::from((qualifier, field))), kind);
        let column = match is_finer(kind, unit) {
            true => floored(column, unit),
            false => column,
        };
        let column = match target == *kind {
            true => column,
            false => cast(column, target),
        };
        column.alias(field.name())
    });
    LogicalPlanBuilder::from(plan)
        .project(columns)
        .and_then(LogicalPlanBuilder::build)
        .map_err(|error| MartError::planning(&mart.file, &error))
}

/// The plan of these columns, and the table that it makes.
fn project(
    mart: &Mart,
    plan: LogicalPlan,
    files: Vec<(FieldRef, Expr)>,
    partitions: Vec<(String, Expr)>,
) -> Result<(LogicalPlan, TableDefinition), MartError> {
    let expressions = files
        .iter()
        .map(|(field, column)| column.clone().alias(field.name()))
        .chain(
            partitions
                .iter()
                .map(|(name, column)| column.clone().alias(name)),
        );
    let plan = LogicalPlanBuilder::from(plan)
        .project(expressions)
        .and_then(LogicalPlanBuilder::build)
        .map_err(|error| MartError::planning(&mart.file, &error))?;
    let fields: Vec<FieldRef> = files.into_iter().map(|(field, _)| field).collect();
    let definition = TableDefinition {
        name: mart.name.clone(),
        schema: Arc::new(Schema::new(fields)),
        partition_columns: mart.partition.clone(),
    };
    Ok((plan, definition))
}

/// The error of a column whose name some reader would not accept. `named` says whether AS gives the name.
fn wrong_name(name: &str, named: bool, fail: impl Fn(String) -> MartError) -> MartError {
    let plain = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if plain || named {
        fail(format!(
            "the column `{name}` is not a name that every reader accepts"
        ))
        .hint("names are a lower-case letter, then lower-case letters, digits or `_`: use AS")
    } else {
        fail(format!("the column `{name}` has no name")).hint("write `… AS name` after it")
    }
}

/// The error of a partition column that is not among the columns of the SELECT.
fn not_selected(mart: &Mart, name: &str, schema: &Schema) -> MartError {
    let names = || schema.fields().iter().map(|field| field.name().as_str());
    let message = format!("the partition column `{name}` is not selected");
    let error = MartError::new(&mart.file, None, message);
    match nearest(name, names()) {
        Some(near) => error.hint(format!("is it `{near}`?")),
        None => error.hint(format!(
            "the columns are {}",
            names().collect::<Vec<_>>().join(", ")
        )),
    }
}

/// Whether values of a type may be the name of a folder.
fn partitionable(kind: &DataType) -> bool {
    match kind {
        DataType::Dictionary(_, value) => partitionable(value),
        DataType::Boolean | DataType::Date32 | DataType::Date64 | DataType::Null => true,
        other => other.is_integer() || other.is_string(),
    }
}

/// Why a type cannot be written: some reader would not accept it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {remedy}")]
pub(super) struct Refused {
    what: String,
    remedy: &'static str,
}

/// The type in which values of `kind` are written. Timestamps are written in `unit`s.
///
/// # Errors
/// A type that some reader does not have.
pub(super) fn written(kind: &DataType, unit: TimeUnit) -> Result<DataType, Refused> {
    let refuse = |what: &str, remedy| {
        Err(Refused {
            what: what.to_owned(),
            remedy,
        })
    };
    Ok(match kind {
        DataType::Boolean
        | DataType::Int32
        | DataType::Int64
        | DataType::Float64
        | DataType::Date32 => kind.clone(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => {
            DataType::Utf8
        }
        DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16 => DataType::Int32,
        // The cast fails above the largest signed integer, and then the mart fails.
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        // A source has no `float` either, and every float is exactly a double.
        DataType::Float16 | DataType::Float32 => DataType::Float64,
        DataType::Date64 => DataType::Date32,
        DataType::Timestamp(..) => DataType::Timestamp(unit.arrow(), Some("UTC".into())),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => {
            if *scale < 0 {
                return refuse(
                    &in_words(&kind.to_string()),
                    "cast it to a decimal with a scale of 0 or more",
                );
            }
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Decimal256(..) => {
            return refuse(
                &in_words(&kind.to_string()),
                "readers know 38 digits: cast it to decimal(38, s)",
            );
        }
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => {
            return refuse(
                "bytes, which Redshift Spectrum does not read",
                "give a string: `encode(…, 'hex')`",
            );
        }
        DataType::Dictionary(_, value) => written(value, unit)?,
        DataType::RunEndEncoded(_, values) => written(values.data_type(), unit)?,
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::FixedSizeList(..)
        | DataType::Struct(_)
        | DataType::Map(..) => nested(kind, unit)?,
        DataType::Interval(_) | DataType::Duration(_) => {
            return refuse(
                "a span of time, which Parquet readers do not know",
                "give a number: `to_unixtime(b) - to_unixtime(a)` are seconds",
            );
        }
        DataType::Time32(_) | DataType::Time64(_) => {
            return refuse(
                "a time of day, which Hive readers do not know",
                "give a string (`CAST(… AS VARCHAR)`) or a timestamp",
            );
        }
        other => {
            return refuse(
                &in_words(&other.to_string()),
                "cast it to a type that Hive knows",
            );
        }
    })
}

/// The type in which lists, structs and maps are written.
fn nested(kind: &DataType, unit: TimeUnit) -> Result<DataType, Refused> {
    let refuse = |what: &str, remedy| {
        Err(Refused {
            what: what.to_owned(),
            remedy,
        })
    };
    Ok(match kind {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => DataType::List(Arc::new(Field::new(
            "element",
            written(item.data_type(), unit)?,
            true,
        ))),
        DataType::Struct(fields) => {
            if let Some(field) = fields.iter().find(|field| !is_name(field.name())) {
                return Err(Refused {
                    what: format!("a struct with a field `{}`", field.name()),
                    remedy: "name its fields in lower case with named_struct",
                });
            }
            DataType::Struct(
                fields
                    .iter()
                    .map(|field| {
                        let kind = written(field.data_type(), unit)?;
                        Ok(Field::new(field.name(), kind, true))
                    })
                    .collect::<Result<_, Refused>>()?,
            )
        }
        DataType::Map(entries, _) => {
            let DataType::Struct(fields) = entries.data_type() else {
                return refuse("a map without entries", "leave the column out");
            };
            let [key, value] = fields.as_ref() else {
                return refuse("a map without entries", "leave the column out");
            };
            let key = written(key.data_type(), unit)?;
            if key != DataType::Utf8 {
                return refuse(
                    "a map whose keys are no strings, which Redshift Spectrum does not read",
                    "cast its keys to VARCHAR",
                );
            }
            let entries = Field::new(
                "key_value",
                DataType::Struct(
                    vec![
                        Field::new("key", key, false),
                        Field::new("value", written(value.data_type(), unit)?, true),
                    ]
                    .into(),
                ),
                false,
            );
            DataType::Map(Arc::new(entries), false)
        }
        other => return refuse(&other.to_string(), "cast it to a type that Hive knows"),
    })
}
