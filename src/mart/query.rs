//! A query: one SELECT in the SQL of the marts, which is answered once and makes no table.
//!
//! ```text
//! SELECT ──▶ Query ──answer(), over all of its tables──▶ columns of the lake's types, rows in the SELECT's order
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::common::spawn_buffered;
use datafusion::physical_plan::execute_stream;

use super::graph::{fingerprint, read_text, refuse_unknown};
use super::{
    Input, Mart, MartError, failure, guarded, lawful, register_all, select, shape, with_line,
};
use crate::engine::{self, Engine};

/// A query that can be answered.
pub struct Query {
    /// The query as a mart without partitions, which is never built.
    mart: Mart,
}

impl Query {
    /// Reads the SELECT of a file.
    ///
    /// # Errors
    /// A file that cannot be read; see [`Self::new`].
    pub fn of_file(file: &Path, known: &BTreeSet<&str>) -> Result<Self, MartError> {
        Self::new(file.to_owned(), read_text(file)?, known)
    }

    /// A query with the text `sql`. Errors name the `file`.
    ///
    /// # Errors
    /// SQL that is not one plain SELECT, or that reads a table which is not `known`.
    pub fn new(file: PathBuf, sql: String, known: &BTreeSet<&str>) -> Result<Self, MartError> {
        let parsed = select::parse(&file, &sql)?;
        refuse_unknown(&file, &parsed.tables, known)?;
        let inputs: BTreeSet<String> = parsed.tables.into_iter().map(|(name, _)| name).collect();
        Ok(Self {
            mart: Mart {
                name: "query".to_owned(),
                fingerprint: fingerprint(&sql),
                file,
                sql,
                partition: Vec::new(),
                inputs: inputs.into_iter().collect(),
                reach: BTreeMap::new(),
                unsaid: BTreeSet::new(),
                claims: Vec::new(),
                owner: None,
                dashboard: None,
                fresh_within: None,
            },
        })
    }

    /// The names of the tables and references that the query reads, sorted.
    pub fn inputs(&self) -> &[String] {
        &self.mart.inputs
    }

    /// The query as a mart, for its errors.
    pub const fn mart(&self) -> &Mart {
        &self.mart
    }
}

/// Answers a query over `inputs`, which holds all of [`Query::inputs`]. The rows come in the order of the SELECT.
///
/// # Errors
/// The query cannot be planned. A failure while rows flow is an error of the stream; [`MartError::running`] makes it an
/// error of the query.
pub async fn answer(
    engine: &Engine,
    query: &Query,
    inputs: &[Input],
) -> Result<(SchemaRef, SendableRecordBatchStream), MartError> {
    let mart = &query.mart;
    guarded(mart, async {
        let session = engine.session();
        register_all(&session, mart, inputs)?;
        let select = select::parse(&mart.file, &mart.sql)?;
        let planned = async {
            let plan = lawful(&session, mart, &select).await;
            let plan = plan.map_err(|error| select.explain(error))?;
            let plan = shape::apply_to_query(mart, plan)?;
            let plan = engine::physical(&session.state(), plan).await;
            plan.map_err(|error| failure::physical(mart, &select, &error))
        };
        let plan = match planned.await {
            Ok(plan) => plan,
            Err(error) => return Err(with_line(&session, mart, error).await),
        };
        let schema = plan.schema();
        let rows = execute_stream(Arc::clone(&plan), session.task_ctx());
        let rows = rows.map_err(|error| MartError::running(mart, &error))?;
        Ok((schema, spawn_buffered(rows, 1)))
    })
    .await
}
