//! A panic while a mart is planned, evaluated or written becomes an error of this mart.
//!
//! DataFusion raises the panic of one of its tasks once more where the rows are awaited, so it is enough to catch the
//! panic there.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;

use super::{Mart, MartError};

/// How many values of [`PanicsCaught`] exist in this process.
static CAUGHT: AtomicUsize = AtomicUsize::new(0);

/// While a value of this type exists, panics become errors of marts. The panic hook of the process asks
/// [`panics_are_caught`], and then prints nothing.
pub struct PanicsCaught(());

impl PanicsCaught {
    /// Catches panics until the value is dropped.
    pub fn begin() -> Self {
        CAUGHT.fetch_add(1, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for PanicsCaught {
    fn drop(&mut self) {
        CAUGHT.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whether a panic now becomes an error of a mart.
pub fn panics_are_caught() -> bool {
    CAUGHT.load(Ordering::SeqCst) > 0
}

/// Does work for a mart. A panic becomes an error of the mart.
///
/// # Errors
/// The work fails or panics.
pub async fn guarded<T, E: From<MartError>>(
    mart: &Mart,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let _caught = PanicsCaught::begin();
    // The work owns all that it has changed, and gives back memory and files when it unwinds.
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => Err(MartError::panicked(mart, text(panic.as_ref())).into()),
    }
}

/// The message of a panic.
fn text(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a message")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
    use datafusion::catalog::TableProvider;
    use datafusion::catalog::streaming::StreamingTable;
    use datafusion::execution::{SendableRecordBatchStream, TaskContext};
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use datafusion::physical_plan::streaming::PartitionStream;
    use futures::{StreamExt, TryStreamExt};

    use super::super::{Graph, Input, evaluate, load};
    use super::*;
    use crate::engine::Engine;

    /// Yields nothing but a panic.
    #[derive(Debug)]
    struct Breaks(SchemaRef);

    impl PartitionStream for Breaks {
        fn schema(&self) -> &SchemaRef {
            &self.0
        }

        fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
            let rows = futures::stream::once(async { panic!("index 7\nis out of bounds") });
            let rows = rows.boxed();
            Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.0), rows))
        }
    }

    fn graph(sql: &str) -> Graph {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("m.sql"), sql).unwrap();
        load(folder.path(), &["events".to_owned()], &[]).unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_panic_in_a_task_of_the_engine_is_an_error_of_the_mart() {
        let spill = tempfile::tempdir().unwrap();
        // Where both sides of a join break down, the error may be of either side.
        let join =
            "SELECT a.n, count(*) AS c FROM events a JOIN events b ON a.n = b.n GROUP BY a.n";
        for (sql, said) in [
            ("SELECT n FROM events", "index 7 is out of bounds"),
            (join, ""),
        ] {
            let graph = graph(sql);
            let mart = &graph.marts()[0];
            for threads in [1, 4] {
                let engine = Engine::new(64 << 20, threads, spill.path()).unwrap();
                let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
                let breaks: Vec<Arc<dyn PartitionStream>> = vec![
                    Arc::new(Breaks(Arc::clone(&schema))),
                    Arc::new(Breaks(Arc::clone(&schema))),
                ];
                let table = StreamingTable::try_new(schema, breaks).unwrap();
                let inputs: Vec<Input> = vec![(
                    "events".to_owned(),
                    Arc::new(table) as Arc<dyn TableProvider>,
                )];
                let done = guarded(mart, async {
                    let (_, rows) = evaluate(&engine, mart, &inputs, None, true).await?;
                    let rows = rows.try_collect::<Vec<_>>().await;
                    rows.map_err(|error| MartError::running(mart, &error))
                });
                let error = done.await.unwrap_err().to_string();
                assert!(
                    error.contains("m.sql: the query engine broke down: "),
                    "{error}"
                );
                assert!(error.contains(said), "{error}");
            }
            assert_eq!(
                guarded(mart, async { Ok::<_, MartError>(3) })
                    .await
                    .unwrap(),
                3
            );
        }
    }
}
