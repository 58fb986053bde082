//! The door to DataFusion: one runtime with a memory limit and a spill folder, sessions over it, and the SQL
//! expressions of duplicate rules compiled to physical expressions.
//!
//! ```text
//! memory, threads, spill ──▶ Engine ──session()──▶ SessionContext, one per mart
//! key and `when` text, schema ──▶ RuleExpressions ──▶ admitted rows, keys
//! ```
//!
//! The text of an expression is the setting that is stored and sent. It is compiled where it is evaluated. This
//! room does not know what tables mean.

mod athena;
mod bounds;
mod depth;
mod expressions;
mod frames;
mod functions;
mod instants;
mod law;
mod percentiles;
mod plans;
mod pool;
mod shifts;
mod unnests;
#[cfg(test)]
mod window_tests;

pub(crate) use athena::{is_json_member, spelled};
pub use bounds::TooLarge;
pub(crate) use depth::{level, on_large_stack};
pub(crate) use expressions::reads_too_far;
pub use expressions::{ExpressionError, RuleExpressions};
pub use law::{LAW, floored, floored_array, is_finer, lawful, optimized, physical, wall_clock};
pub(crate) use plans::in_order;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::TrackConsumersPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::optimizer::analyzer::function_rewrite::ApplyFunctionRewrites;
use datafusion::prelude::{SessionConfig, SessionContext};
use object_store::ObjectStore;
use url::Url;

/// The number of consumers that an out-of-memory message names.
const NAMED_CONSUMERS: NonZeroUsize = match NonZeroUsize::new(3) {
    Some(n) => n,
    None => NonZeroUsize::MIN,
};

/// The least bytes of memory for each partition of a plan that several threads run.
const PARTITION: usize = 64 << 20;

/// A DataFusion runtime with a memory limit. It is cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    runtime: Arc<RuntimeEnv>,
    memory_bytes: u64,
    threads: usize,
}

/// The engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("cannot use {} as the folder for spilling: {source}", folder.display())]
    Spill {
        folder: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot start the query engine: {source}")]
    Runtime { source: Box<DataFusionError> },
}

impl Engine {
    /// A runtime whose operators together hold at most `memory_bytes`. They spill to files below `spill`, which
    /// is created if it is missing. `threads` is the number of partitions of a plan whose rows may come in any
    /// order.
    ///
    /// # Errors
    /// `spill` cannot be created or written.
    pub fn new(memory_bytes: u64, threads: usize, spill: &Path) -> Result<Self, EngineError> {
        std::fs::create_dir_all(spill).map_err(|source| EngineError::Spill {
            folder: spill.to_path_buf(),
            source,
        })?;
        let bytes = usize::try_from(memory_bytes).unwrap_or(usize::MAX);
        // The pool gives shares, so that a greedy aggregation cannot starve the sort behind it.
        let pool = TrackConsumersPool::new(pool::Shares::new(bytes), NAMED_CONSUMERS);
        let disk = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![spill.to_path_buf()]))
            .with_max_temp_directory_size(u64::MAX);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(pool))
            .with_disk_manager_builder(disk)
            // The pool does not count caches. A data file also keeps its name when it is rewritten, so a cached
            // footer could belong to an earlier version.
            .with_metadata_cache_limit(0)
            .with_file_statistics_cache_limit(0)
            .with_object_list_cache_limit(0)
            .build_arc()
            .map_err(|source| EngineError::Runtime {
                source: Box::new(source),
            })?;
        Ok(Self {
            runtime,
            memory_bytes,
            threads: threads.min(bytes / PARTITION).max(1),
        })
    }

    /// Makes the objects below `url` (scheme and host) readable by every session.
    pub fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) {
        self.runtime.register_object_store(url, store);
    }

    /// A session without tables, whose plans are run by one thread. Rows come in the same order every time.
    pub fn session(&self) -> SessionContext {
        self.session_of(1)
    }

    /// A session without tables, whose plans are run by all threads. Rows come in any order.
    pub fn parallel_session(&self) -> SessionContext {
        self.session_of(self.threads)
    }

    /// A session whose plans are run by all threads, for predicates that few rows satisfy: the columns of the
    /// predicate are decoded first, and the other columns only for rows that satisfy it.
    pub fn finding_session(&self) -> SessionContext {
        let session = self.parallel_session();
        let state = session.state_ref();
        let mut state = state.write();
        let parquet = &mut state.config_mut().options_mut().execution.parquet;
        parquet.pushdown_filters = true;
        parquet.reorder_filters = true;
        drop(state);
        session
    }

    fn session_of(&self, partitions: usize) -> SessionContext {
        let bounds = Arc::new(bounds::Bounds::of(self.memory_bytes));
        let aggregates = bounds.aggregates();
        let config = Self::config(partitions);
        let state = law::state(config, Arc::clone(&self.runtime))
            .with_physical_optimizer_rule(Arc::new(plans::WithinMemory))
            .build();
        let session = law::session(state);
        session.add_analyzer_rule(Arc::new(ApplyFunctionRewrites::new(vec![bounds])));
        session.add_analyzer_rule(Arc::new(frames::MovingFrames));
        session.register_udaf(percentiles::function());
        for function in aggregates {
            session.register_udaf(function);
        }
        for function in shifts::functions() {
            session.register_udwf(function);
        }
        session
    }

    fn config(threads: usize) -> SessionConfig {
        let mut config = SessionConfig::new()
            .with_target_partitions(threads)
            .with_information_schema(false)
            .with_collect_statistics(false);
        let options = config.options_mut();
        // Errors of planning carry the line of the SQL file.
        options.sql_parser.collect_spans = true;
        // A LIMIT that is put below a window counts too few rows ahead if several windows look ahead.
        options.optimizer.enable_window_limits = false;
        // The pool keeps room for merges. A fixed amount for each sort would be too much for many small sorts.
        options.execution.sort_spill_reservation_bytes = 0;
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sort_larger_than_the_memory_spills_and_a_session_is_fresh() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::new(64 << 20, 1, &folder.path().join("spill/deep")).unwrap();
        let session = engine.session();
        session.sql("CREATE TABLE t AS VALUES (1)").await.unwrap();
        assert!(engine.session().table("t").await.is_err());
        // 2 million rows of 56 bytes are more than 64 MiB.
        let sql = "SELECT md5(CAST(value AS VARCHAR)) AS h, value FROM generate_series(1, 2000000) \
                   ORDER BY h";
        let frame = engine.session().sql(sql).await.unwrap();
        let mut stream = frame.execute_stream().await.unwrap();
        let mut rows = 0;
        while let Some(batch) = futures::StreamExt::next(&mut stream).await {
            rows += batch.unwrap().num_rows();
        }
        assert_eq!(rows, 2_000_000);
        assert_eq!(engine.runtime.memory_pool.reserved(), 0);
    }

    #[test]
    fn a_spill_folder_that_is_a_file_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Engine::new(1 << 20, 1, file.path())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&file.path().display().to_string()),
            "{error}"
        );
    }
}
