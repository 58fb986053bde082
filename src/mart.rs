//! Marts: one SQL file, one table, one dashboard.
//!
//! ```text
//! sql/marts/**/<name>.sql ──▶ header + one SELECT ──▶ Graph, inputs before what reads them
//!                                                      │ check(): every SELECT planned, none run
//!                                                      ▼
//!             inputs as tables ──evaluate()──▶ cast to types of the lake ──▶ sorted ──▶ rows
//! ```
//!
//! The rows go to `publish`; this room writes nothing. `reference` reads the small tables that
//! marts join. Of what a SELECT yields, the partition columns become strings at the end of the row.

mod error;
mod graph;
mod reference;
mod select;
mod shape;

pub use error::MartError;
pub use graph::{Graph, Mart, load};
pub use reference::{ReferenceError, read};

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::Column;
use datafusion::datasource::empty::EmptyTable;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::prelude::SessionContext;

use crate::catalog::TableDefinition;
use crate::engine::Engine;

impl Graph {
    /// Plans every mart against the columns of its inputs, without reading a row, and gives the
    /// tables that the marts are, in the order of [`Graph::marts`].
    ///
    /// `tables` holds the full schema (partition columns included) of every name in
    /// [`Graph::tables`].
    ///
    /// # Errors
    /// The first mart that cannot be planned, or whose columns no reader would accept.
    pub async fn check(
        &self,
        engine: &Engine,
        tables: &[(String, SchemaRef)],
    ) -> Result<Vec<TableDefinition>, MartError> {
        let mut schemas = tables.to_vec();
        let mut definitions = Vec::with_capacity(self.marts().len());
        for mart in self.marts() {
            let session = engine.session();
            for input in &mart.inputs {
                let Some((_, schema)) = schemas.iter().find(|(name, _)| name == input) else {
                    return Err(MartError::new(
                        &mart.file,
                        None,
                        format!("the columns of `{input}` are not known"),
                    ));
                };
                register(
                    &session,
                    mart,
                    input,
                    Arc::new(EmptyTable::new(Arc::clone(schema))),
                )?;
            }
            let (_, definition) = planned(&session, mart).await?;
            schemas.push((mart.name.clone(), definition.full_schema()));
            definitions.push(definition);
        }
        Ok(definitions)
    }
}

/// Evaluates one mart over `inputs`, which names every one of [`Mart::inputs`].
///
/// The rows have the columns of the definition's files, then its partition columns as nullable
/// Utf8 (never empty: an empty value is NULL, as readers of a Hive table see it). They are sorted
/// by the partition columns, then by the other columns in order, NULL last; nested columns are not
/// part of the order.
///
/// # Errors
/// The mart cannot be planned over these inputs. What fails while rows flow, such as a value that
/// does not fit its type, is an error of the stream; [`MartError::running`] gives it the mart.
pub async fn evaluate(
    engine: &Engine,
    mart: &Mart,
    inputs: &[(String, Arc<dyn TableProvider>)],
) -> Result<(TableDefinition, SendableRecordBatchStream), MartError> {
    let session = engine.session();
    for input in &mart.inputs {
        let Some((_, table)) = inputs.iter().find(|(name, _)| name == input) else {
            return Err(MartError::new(
                &mart.file,
                None,
                format!("its input `{input}` is not there"),
            ));
        };
        register(&session, mart, input, Arc::clone(table))?;
    }
    let (plan, definition) = planned(&session, mart).await?;
    let order = definition
        .partition_columns
        .iter()
        .cloned()
        .chain(
            definition
                .schema
                .fields()
                .iter()
                .filter(|field| !field.data_type().is_nested())
                .map(|field| field.name().clone()),
        )
        .map(|name| Expr::Column(Column::new_unqualified(name)).sort(true, false))
        .collect();
    let run = async {
        let frame = session.execute_logical_plan(plan).await?;
        frame.sort(order)?.execute_stream().await
    };
    let stream = run
        .await
        .map_err(|error| MartError::running(mart, &error))?;
    Ok((definition, stream))
}

fn register(
    session: &SessionContext,
    mart: &Mart,
    name: &str,
    table: Arc<dyn TableProvider>,
) -> Result<(), MartError> {
    session
        .register_table(datafusion::common::TableReference::bare(name), table)
        .map(drop)
        .map_err(|error| MartError::running(mart, &error))
}

/// The plan of a mart, its columns cast and in the order of files, and the table it makes.
async fn planned(
    session: &SessionContext,
    mart: &Mart,
) -> Result<(LogicalPlan, TableDefinition), MartError> {
    let select = select::parse(&mart.file, &mart.sql)?;
    let plan = session
        .state()
        .statement_to_plan(select.statement.clone())
        .await
        .map_err(|error| MartError::planning(&mart.file, &error))?;
    select::refuse_unstable(&mart.file, &plan)?;
    shape::apply(mart, &select, plan)
}

/// The path as messages show it.
fn shown(file: &Path) -> String {
    file.display().to_string()
}
