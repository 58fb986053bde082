//! Marts: one SQL file, one table, one dashboard.
//!
//! ```text
//! sql/marts/**/<name>.sql ──▶ header + one SELECT ──▶ Graph, inputs before the marts that read them
//!                                                      │ check(): every SELECT planned, none run
//!                                                      ▼
//!     inputs as tables, in reach ──evaluate()──▶ cast to types of the lake ──▶ sorted ──▶ rows
//! ```
//!
//! The rows go to `publish`; this room writes nothing. `reference` reads the small tables that
//! marts join. The partition columns of a SELECT become strings at the end of the row.

mod blame;
mod broken;
mod cases;
mod check_files;
mod choice;
mod claims;
mod clauses;
mod comments;
mod differs;
mod error;
mod explain;
mod failure;
mod graph;
mod guard;
mod header;
mod local;
mod noted;
mod order;
#[cfg(test)]
mod page_tests;
mod phrases;
mod query;
mod reach;
mod reference;
mod reference_table;
mod sample;
mod select;
mod shape;
mod strict;
#[cfg(test)]
mod values;

pub use broken::Broken;
pub use cases::{
    Case, ChangedCell, ChangedRow, Rows, Tables, Unlike, broken, cases, made, refuse_unknown_cases,
};
pub use check_files::checks_beside;
pub use choice::{Drawn, DrawnInput, DrawnMart};
pub use claims::{Claim, Severity};
pub use comments::comments;
pub use error::{MartError, lacks_memory};
pub use graph::{Graph, Mart, load, names};
pub use guard::{PanicsCaught, guarded, panics_are_caught};
pub use query::{Query, answer};
pub use reach::Reach;
pub use reference::{ReferenceError, of_inferred_types};
pub use reference_table::{ReferenceTable, ReferenceTableError, read_references};
pub use sample::{Compared, DateTraits, Difference, backwards, compare, date_traits, of_date};

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use chrono::NaiveDate;
use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use datafusion::datasource::empty::EmptyTable;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, col, lit};
use datafusion::physical_expr::expressions::col as column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::common::spawn_buffered;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionContext;

use crate::catalog::{self, Scan, TableDefinition};
use crate::engine::{self, Engine};
use crate::layout::DATE;

/// A table that a mart reads: its name and its rows.
pub type Input = (String, Arc<dyn TableProvider>);

/// One date of a mart that is built date by date.
#[derive(Clone, Copy)]
pub struct MartDate<'a> {
    /// The date.
    pub date: NaiveDate,
    /// All dates that the mart has, with this date among them.
    pub dates: &'a BTreeSet<NaiveDate>,
}

impl Graph {
    /// Plans every mart against the columns of its inputs, without reading a row. The result is the tables that the
    /// marts make, in the order of [`Graph::marts`].
    ///
    /// `tables` holds the schema of every name in [`Graph::tables`], with its partition columns.
    ///
    /// # Errors
    /// The first mart that cannot be planned, logically or physically, or that has a column which some reader would not
    /// accept.
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
            let definition = guarded(mart, executable(&session, mart)).await?;
            schemas.push((mart.name.clone(), definition.full_schema()));
            check_claims(engine, mart, &schemas).await?;
            definitions.push(definition);
        }
        Ok(definitions)
    }
}

/// Plans the claims of a mart against the columns of the tables that they read.
async fn check_claims(
    engine: &Engine,
    mart: &Mart,
    schemas: &[(String, SchemaRef)],
) -> Result<(), MartError> {
    for claim in &mart.claims {
        let read = schemas
            .iter()
            .filter(|(name, _)| claim.inputs.contains(name));
        let empty = read.map(|(name, schema)| {
            let table: Arc<dyn TableProvider> = Arc::new(EmptyTable::new(Arc::clone(schema)));
            (name.clone(), table)
        });
        let empty: Vec<Input> = empty.collect();
        claim.breaking(engine, &empty).await?;
    }
    Ok(())
}

impl Graph {
    /// The notes on each mart, in the order of [`Graph::marts`]: constructs that Athena and DuckDB answer differently,
    /// and fields of times in UTC if the days of the lake are not those of UTC. `tables` holds the schema of every
    /// name in [`Graph::tables`], and `made` the tables that the marts make.
    ///
    /// # Errors
    /// The first mart that cannot be planned.
    pub async fn notes(
        &self,
        engine: &Engine,
        tables: &[(String, SchemaRef)],
        made: &[TableDefinition],
        is_utc: bool,
    ) -> Result<Vec<Vec<String>>, MartError> {
        let made = made
            .iter()
            .map(|table| (table.name.clone(), table.full_schema()));
        let schemas: Vec<_> = tables.iter().cloned().chain(made).collect();
        let mut notes = Vec::new();
        for mart in self.marts() {
            let session = engine.session();
            let read = schemas
                .iter()
                .filter(|(name, _)| mart.inputs.contains(name));
            for (name, schema) in read {
                let table = Arc::new(EmptyTable::new(Arc::clone(schema)));
                register(&session, mart, name, table)?;
            }
            let made = guarded(mart, async {
                let select = select::parse(&mart.file, &mart.sql)?;
                let plan = session
                    .state()
                    .statement_to_plan(select.statement.clone())
                    .await;
                let plan = plan.map_err(|error| MartError::planning(&mart.file, &error))?;
                let (statement, seen) = (&select.statement, &select.differing);
                Ok(noted::notes(statement, seen, &plan, is_utc))
            });
            notes.push(made.await?);
        }
        Ok(notes)
    }
}

/// Evaluates one mart over `inputs`, which holds all of [`Mart::inputs`]. A mart that is built date by date is
/// evaluated for the date `partition`, and its inputs hold the dates in its reach. All threads are used where the
/// mart is evaluated `alone` and does not depend on the order of rows.
///
/// The rows have the columns of the definition's files, then its partition columns as nullable
/// Utf8. A partition column is never empty: an empty value is NULL, as readers of a Hive table see it. The rows are
/// sorted by the partition columns, then by the other columns in order, NULL last; nested columns are not
/// part of the order. Where the mart reads more than one date, rows of its other dates are left out. All other rows
/// that are not of this date are there, and the caller decides about them.
///
/// # Errors
/// The mart cannot be planned over these inputs. A failure while rows flow, such as a value that
/// does not fit its type, is an error of the stream; [`MartError::running`] makes it an error of the mart.
pub async fn evaluate(
    engine: &Engine,
    mart: &Mart,
    inputs: &[Input],
    partition: Option<MartDate<'_>>,
    alone: bool,
) -> Result<(TableDefinition, SendableRecordBatchStream), MartError> {
    let mut session = engine.session();
    register_all(&session, mart, inputs)?;
    let (mut plan, mut definition) = planned(&session, mart, partition).await?;
    let free = order::is_of_no_account(&plan).map_err(|error| MartError::running(mart, &error))?;
    if free && alone {
        session = engine.parallel_session();
        register_all(&session, mart, inputs)?;
        (plan, definition) = planned(&session, mart, partition).await?;
    }
    let names = definition.partition_columns.iter().chain(
        definition
            .schema
            .fields()
            .iter()
            .filter(|field| !field.data_type().is_nested())
            .map(|field| field.name()),
    );
    let stream = sorted(&session, plan, names)
        .await
        .map_err(|error| MartError::running(mart, &error))?;
    Ok((definition, stream))
}

/// Runs a plan. Its rows come sorted by the columns of these names, NULL last.
async fn sorted<'a>(
    session: &SessionContext,
    plan: LogicalPlan,
    names: impl Iterator<Item = &'a String>,
) -> Result<SendableRecordBatchStream, DataFusionError> {
    let plan = engine::physical(&session.state(), plan).await?;
    // The sort is put on top of the finished plan, because the logical optimizer fails on sorts by constant columns.
    let options = SortOptions {
        descending: false,
        nulls_first: false,
    };
    let order = names
        .map(|name| {
            Ok(PhysicalSortExpr::new(
                column(name, &plan.schema())?,
                options,
            ))
        })
        .collect::<Result<Vec<_>, DataFusionError>>()?;
    let plan: Arc<dyn ExecutionPlan> = match LexOrdering::new(order) {
        None => plan,
        Some(order) => engine::in_order(plan, order)?,
    };
    // The rows are made by a task of their own, because several marts are evaluated at once, and while rows are written.
    execute_stream(plan, session.task_ctx()).map(|rows| spawn_buffered(rows, 1))
}

/// The scans of data files that one mart would read of `inputs`. No file is read.
///
/// # Errors
/// The mart cannot be planned over these inputs.
pub async fn scans(engine: &Engine, mart: &Mart, inputs: &[Input]) -> Result<Vec<Scan>, MartError> {
    guarded(mart, async {
        let session = engine.session();
        register_all(&session, mart, inputs)?;
        let (plan, _) = planned(&session, mart, None).await?;
        let plan = engine::physical(&session.state(), plan).await;
        let plan = plan.map_err(|error| MartError::running(mart, &error))?;
        Ok(catalog::scans(&plan))
    })
    .await
}

/// The table that a mart makes. Its SELECT must have a physical plan.
async fn executable(session: &SessionContext, mart: &Mart) -> Result<TableDefinition, MartError> {
    let error = match planned(session, mart, None).await {
        Ok((plan, definition)) => match engine::physical(&session.state(), plan).await {
            Ok(_) => return Ok(definition),
            Err(error) => {
                let select = select::parse(&mart.file, &mart.sql)?;
                failure::physical(mart, &select, &error)
            }
        },
        Err(error) => error,
    };
    Err(with_line(session, mart, error).await)
}

/// The error of planning a mart, with the line of the expression that it comes from.
async fn with_line(session: &SessionContext, mart: &Mart, error: MartError) -> MartError {
    if error.line.is_some() {
        return error;
    }
    let select = match select::parse(&mart.file, &mart.sql) {
        Ok(select) => select,
        Err(error) => return error,
    };
    let state = session.state();
    let blamed = blame::of_planning(&select.statement, async |statement| {
        let made = async {
            let plan = state.statement_to_plan(statement).await?;
            engine::physical(&state, engine::lawful(&state, plan)?).await
        };
        // The engine's text also lists the columns that there are, and these change with every expression.
        made.await
            .map(drop)
            .map_err(|error| MartError::planning(&mart.file, &error).message)
    });
    let line = explain::line_of_named(&mart.sql, &error.message);
    let mut error = error.blame(blamed.await);
    error.line = error.line.or(line);
    error
}

/// Makes all inputs of a mart known to a session.
fn register_all(session: &SessionContext, mart: &Mart, inputs: &[Input]) -> Result<(), MartError> {
    for input in &mart.inputs {
        let Some((_, table)) = inputs.iter().find(|(name, _)| name == input) else {
            return Err(MartError::new(
                &mart.file,
                None,
                format!("its input `{input}` is not there"),
            ));
        };
        register(session, mart, input, Arc::clone(table))?;
    }
    Ok(())
}

/// Makes one table known to a session.
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

/// The plan of a mart, with its columns cast and in the order of files, and the table that it makes.
async fn planned(
    session: &SessionContext,
    mart: &Mart,
    partition: Option<MartDate<'_>>,
) -> Result<(LogicalPlan, TableDefinition), MartError> {
    let select = select::parse(&mart.file, &mart.sql)?;
    let made = planned_as(session, mart, &select, partition).await;
    made.map_err(|error| select.explain(error))
}

/// The plan of a parsed mart, with errors as the engine says them.
async fn planned_as(
    session: &SessionContext,
    mart: &Mart,
    select: &select::Parsed,
    partition: Option<MartDate<'_>>,
) -> Result<(LogicalPlan, TableDefinition), MartError> {
    let plan = lawful(session, mart, select).await?;
    let (plan, definition) = shape::apply(mart, select, plan)?;
    let wide = mart.reach.values().any(|reach| *reach != Reach::SAME);
    let Some(MartDate { date, dates }) = partition.filter(|_| wide) else {
        return Ok((plan, definition));
    };
    let same_date = col(DATE).eq(lit(date.to_string()));
    let all_dates = dates.iter().map(|date| lit(date.to_string())).collect();
    let no_date = col(DATE).in_list(all_dates, true).or(col(DATE).is_null());
    let plan = LogicalPlanBuilder::from(plan)
        .filter(same_date.or(no_date))
        .and_then(LogicalPlanBuilder::build)
        .map_err(|error| MartError::planning(&mart.file, &error))?;
    Ok((plan, definition))
}

/// The plan of a parsed SELECT under the law of the SQL, with the columns as the SELECT gives them.
async fn lawful(
    session: &SessionContext,
    mart: &Mart,
    select: &select::Parsed,
) -> Result<LogicalPlan, MartError> {
    let state = session.state();
    select.refuse_idle(&mart.file, |function| {
        state.scalar_functions().contains_key(function)
            || state.higher_order_functions().contains_key(function)
            || function == "unnest"
    })?;
    let plan = state
        .statement_to_plan(select.statement.clone())
        .await
        .map_err(|error| MartError::planning(&mart.file, &error))?;
    select::refuse_unstable(&mart.file, &select.statement, &plan)?;
    strict::check(&mart.file, &select.statement, &plan)?;
    select.refuse_cut_off(&mart.file, &plan)?;
    // The types of the columns are the types that the rows have.
    engine::lawful(&state, plan).map_err(|error| MartError::planning(&mart.file, &error))
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt64Array,
    };
    use arrow::datatypes::{DataType, TimeUnit};
    use datafusion::common::assert_batches_eq;
    use futures::TryStreamExt;

    use super::*;
    use crate::catalog::memory_table;

    const DAY: i64 = 86_400_000;

    fn events() -> RecordBatch {
        let times = vec![
            Some(17_987 * DAY),
            Some(17_987 * DAY + 1),
            Some(17_988 * DAY),
            None,
        ];
        RecordBatch::try_from_iter(vec![
            (
                "user_id",
                Arc::new(StringArray::from(vec![
                    Some("b"),
                    Some("a"),
                    Some("a"),
                    None,
                ])) as ArrayRef,
            ),
            (
                "danji",
                Arc::new(Int64Array::from(vec![1, 2, 1, 9])) as ArrayRef,
            ),
            (
                "at",
                Arc::new(TimestampMillisecondArray::from(times).with_timezone("UTC")) as ArrayRef,
            ),
            (
                "big",
                Arc::new(UInt64Array::from(vec![1, 2, 3, u64::MAX])) as ArrayRef,
            ),
            (
                "dt",
                Arc::new(StringArray::from(vec![
                    Some("2019-04-01"),
                    Some("2019-04-01"),
                    Some(""),
                    None,
                ])) as ArrayRef,
            ),
        ])
        .unwrap()
    }

    fn danji() -> RecordBatch {
        RecordBatch::try_from_iter(vec![
            ("id", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef),
            (
                "name",
                Arc::new(StringArray::from(vec!["래미안", "자이"])) as ArrayRef,
            ),
        ])
        .unwrap()
    }

    fn engine(threads: usize) -> (tempfile::TempDir, Engine) {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::new(64 << 20, threads, folder.path()).unwrap();
        (folder, engine)
    }

    fn graph(files: &[(&str, &str)]) -> Graph {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        load(folder.path(), &["events".to_owned()], &["danji".to_owned()]).unwrap()
    }

    async fn check(sql: &str) -> Result<TableDefinition, MartError> {
        let (_spill, engine) = engine(1);
        let tables = [
            ("events".to_owned(), events().schema()),
            ("danji".to_owned(), danji().schema()),
        ];
        let mut made = graph(&[("m.sql", sql)]).check(&engine, &tables).await?;
        Ok(made.remove(0))
    }

    async fn run(threads: usize, sql: &str) -> Result<(TableDefinition, Vec<RecordBatch>), String> {
        let (_spill, engine) = engine(threads);
        let graph = graph(&[("m.sql", sql)]);
        let table = |batch: RecordBatch| memory_table(batch.schema(), vec![batch]).unwrap();
        let inputs = [
            ("events".to_owned(), table(events())),
            ("danji".to_owned(), table(danji())),
        ];
        let mart = &graph.marts()[0];
        let (definition, stream) = evaluate(&engine, mart, &inputs, None, true)
            .await
            .map_err(|error| error.to_string())?;
        let batches: Vec<RecordBatch> = stream
            .try_collect()
            .await
            .map_err(|error| MartError::running(mart, &error).to_string())?;
        for batch in &batches {
            assert_eq!(
                batch.schema().fields().len(),
                definition.full_schema().fields().len()
            );
            for (made, told) in batch
                .schema()
                .fields()
                .iter()
                .zip(definition.full_schema().fields())
            {
                assert_eq!(
                    (made.name(), made.data_type()),
                    (told.name(), told.data_type())
                );
            }
        }
        Ok((definition, batches))
    }

    #[tokio::test]
    async fn a_join_of_two_tables_comes_partitioned_and_sorted_whatever_the_threads() {
        let sql = "-- partition: day, dt\n\
                   SELECT CAST(e.at AS DATE) AS day, e.user_id, e.dt, d.name, count(*) AS n\n\
                   FROM events e LEFT JOIN danji d ON d.id = e.danji\n\
                   GROUP BY 1, 2, 3, 4 ORDER BY n DESC, user_id DESC;";
        for threads in [1, 2, 5] {
            let (definition, batches) = run(threads, sql).await.unwrap();
            assert_eq!(definition.partition_columns, ["day", "dt"]);
            assert_batches_eq!(
                [
                    "+---------+--------+---+------------+------------+",
                    "| user_id | name   | n | day        | dt         |",
                    "+---------+--------+---+------------+------------+",
                    "| a       | 자이   | 1 | 2019-04-01 | 2019-04-01 |",
                    "| b       | 래미안 | 1 | 2019-04-01 | 2019-04-01 |",
                    "| a       | 래미안 | 1 | 2019-04-02 |            |",
                    "|         |        | 1 |            |            |",
                    "+---------+--------+---+------------+------------+",
                ],
                &batches
            );
        }
    }

    #[tokio::test]
    async fn a_mart_reads_another_marts_columns() {
        let (_spill, engine) = engine(1);
        let graph = graph(&[
            (
                "b.sql",
                "-- partition: dt\nSELECT dt, count(*) AS n FROM events GROUP BY dt",
            ),
            ("a.sql", "SELECT sum(n) AS n, max(dt) AS last FROM b"),
        ]);
        let made = graph
            .check(&engine, &[("events".to_owned(), events().schema())])
            .await
            .unwrap();
        assert_eq!(
            made.iter()
                .map(|made| made.name.as_str())
                .collect::<Vec<_>>(),
            ["b", "a"]
        );
        assert_eq!(made[1].schema.field(1).data_type(), &DataType::Utf8);
    }

    #[tokio::test]
    async fn types_are_those_that_readers_know() {
        let ms = || DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        for (expression, expected) in [
            ("'x'", DataType::Utf8),
            ("arrow_cast('x', 'Utf8View')", DataType::Utf8),
            ("arrow_cast('x', 'Dictionary(Int32, Utf8)')", DataType::Utf8),
            ("NULL", DataType::Utf8),
            ("count(*) OVER ()", DataType::Int64),
            ("row_number() OVER (ORDER BY danji)", DataType::Int64),
            ("arrow_cast(1, 'Int8')", DataType::Int32),
            ("arrow_cast(1, 'UInt32')", DataType::Int64),
            ("arrow_cast(1, 'Float16')", DataType::Float64),
            ("at", ms()),
            ("to_timestamp('2019-04-02T00:00:00')", ms()),
            ("date_trunc('day', at)", ms()),
            ("CAST(at AS DATE)", DataType::Date32),
            ("CAST(1 AS DECIMAL(20, 4))", DataType::Decimal128(20, 4)),
            ("arrow_cast(0.5, 'Float32')", DataType::Float64),
        ] {
            let made = check(&format!("SELECT {expression} AS c FROM events")).await;
            let made = made.unwrap_or_else(|error| panic!("{expression}: {error}"));
            assert_eq!(made.schema.field(0).data_type(), &expected, "{expression}");
            run(1, &format!("SELECT {expression} AS c FROM events"))
                .await
                .unwrap();
        }
        let (definition, batches) =
            run(1, "SELECT make_array(arrow_cast(1, 'UInt8')) AS l, named_struct('k', arrow_cast('v', 'Utf8View')) AS s")
                .await
                .unwrap();
        assert_eq!(
            definition.schema.field(0).data_type().to_string(),
            "List(Int32, field: 'element')"
        );
        assert_eq!(batches[0].num_rows(), 1);
        let (_, batches) = run(1, "SELECT to_timestamp('2019-04-02T00:00:00.5') AS t")
            .await
            .unwrap();
        assert_batches_eq!(
            [
                "+--------------------------+",
                "| t                        |",
                "+--------------------------+",
                "| 2019-04-02T00:00:00.500Z |",
                "+--------------------------+"
            ],
            &batches
        );
    }

    #[tokio::test]
    async fn an_unsigned_number_that_does_not_fit_fails_the_mart() {
        assert!(
            run(1, "SELECT big FROM events WHERE big < 10")
                .await
                .is_ok()
        );
        let error = run(1, "SELECT big FROM events").await.unwrap_err();
        assert!(
            error.contains("m.sql: ") && error.contains("18446744073709551615"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn what_readers_would_not_accept_is_refused_before_anything_runs() {
        for (sql, line, part) in [
            (
                "SELECT\n  user_id,\n  count(*)\nFROM events GROUP BY 1",
                Some(3),
                "`count(*)` has no name",
            ),
            (
                "SELECT user_id AS \"User\" FROM events",
                Some(1),
                "`User` is not a name",
            ),
            (
                "SELECT danji,\nuser_id AS \"User Id\" FROM events",
                Some(2),
                "`User Id` is not a name that every reader accepts",
            ),
            (
                "SELECT a.danji,\nb.danji FROM events a, events b",
                Some(2),
                "two columns `danji`",
            ),
            ("SELECT\n usr_id FROM events", Some(2), "is it `user_id`?"),
            (
                "SELECT danji\nFROM events e\nWHERE e.nme = 1",
                Some(3),
                "there is no column `e.nme`",
            ),
            (
                "-- partition: dtt\nSELECT dt, danji FROM events",
                None,
                "`dtt` is not selected; is it `dt`?",
            ),
            (
                "-- partition: dt\nSELECT dt FROM events",
                None,
                "all columns are partition columns",
            ),
            (
                "-- partition: at\nSELECT at, danji FROM events",
                Some(2),
                "cannot be a partition column",
            ),
            ("SELECT at - at AS d FROM events", Some(1), "span of time"),
            (
                "SELECT CAST('01:00:00' AS TIME) AS t FROM events",
                Some(1),
                "time of day",
            ),
            (
                "SELECT CAST(1 AS DECIMAL(50, 2)) AS t FROM events",
                Some(1),
                "38 digits",
            ),
            (
                "SELECT danji,\nto_utf8(user_id) AS h FROM events",
                Some(2),
                "bytes, which Redshift Spectrum does not read",
            ),
            (
                "SELECT map([1], ['a']) AS m FROM events",
                Some(1),
                "a map whose keys are no strings",
            ),
            (
                "SELECT random() AS r FROM events",
                Some(1),
                "`random()` gives another value",
            ),
            (
                "SELECT danji FROM events WHERE at < now()",
                Some(1),
                "`now()` gives another value",
            ),
            (
                "SELECT danji FROM events WHERE danji IN (SELECT id FROM danji WHERE now() > '2020-01-01')",
                Some(1),
                "`now()`",
            ),
            (
                "SELECT danji,\nupper(DISTINCT user_id) AS u FROM events",
                Some(2),
                "DISTINCT is not possible with `upper()`",
            ),
            (
                "SELECT abs(danji) FILTER (WHERE danji > 1) AS a FROM events",
                Some(1),
                "FILTER is not possible with `abs()`",
            ),
            (
                "SELECT \"coalesce\"(danji, 1) OVER () AS a FROM events",
                Some(1),
                "OVER is not possible with `coalesce()`",
            ),
            (
                "SELECT upper(user_id ORDER BY danji) AS a FROM events",
                Some(1),
                "with `upper()`",
            ),
            ("SELECT sum(user_id, 1) AS s FROM events", Some(1), "sum"),
            ("SELECT no_such(danji) AS s FROM events", Some(1), "no_such"),
        ] {
            let error = check(sql).await.map(|_| ()).unwrap_err();
            assert!(error.to_string().contains(part), "{sql}: {error}");
            assert_eq!(error.line, line, "{sql}: {error}");
        }
    }
}
