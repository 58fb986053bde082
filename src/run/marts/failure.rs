//! Decides whose failure an error is when a mart cannot be evaluated or written. An error of the store or of
//! the local disk fails the run. Every other error fails the mart.

use std::error::Error;
use std::path::Path;

use super::super::RunError;
use crate::mart::{Mart, MartError};
use crate::publish::{OrderedError, WriteError};
use crate::store::Store;

/// The failure that `error` of a mart's rows, or of writing them, leads to. If the store or the local disk
/// failed, the whole run fails. Otherwise only this mart fails.
pub fn failed(lake: &Store, mart: &Mart, folder: &Path, error: OrderedError) -> RunError {
    let of_run = match &error {
        OrderedError::Rows(error) => failed_below(lake, folder, error),
        OrderedError::Write(error) => failed_below(lake, folder, error),
        OrderedError::LongValue(_) | OrderedError::ManyPartitions(_) => None,
    };
    if let Some(of_run) = of_run {
        return of_run;
    }
    RunError::Mart(match error {
        OrderedError::Rows(error) => MartError::running(mart, &error),
        OrderedError::Write(WriteError::Parquet { source, .. }) => {
            MartError::writing(mart, &source)
        }
        OrderedError::Write(error) => MartError::writing(mart, &error),
        long @ OrderedError::LongValue(_) => MartError::writing(mart, &long),
        OrderedError::ManyPartitions(most) => MartError::of_many_partitions(mart, most as u64),
    })
}

/// The failure of the lake's store or of the local disk that caused `error`; `None` if neither failed.
pub fn failed_below(
    lake: &Store,
    folder: &Path,
    error: &(dyn Error + 'static),
) -> Option<RunError> {
    if let Some(error) = lake.failure(error) {
        return Some(RunError::Store(error));
    }
    let disk = of_system(error)?;
    Some(RunError::Write(WriteError::Spill {
        folder: folder.display().to_string(),
        source: std::io::Error::new(disk.kind(), disk.to_string()),
    }))
}

/// The error of the operating system that caused `error`. Decoders give an `io::Error` for wrong bytes too, but
/// only an error of the system has a number.
fn of_system<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e std::io::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        cause = error.source();
        let Some(error) = error.downcast_ref::<std::io::Error>() else {
            continue;
        };
        if error.raw_os_error().is_some() {
            return Some(error);
        }
        // An `io::Error` passes over the error that it holds: its source is that error's source. DataFusion's
        // spill files hold the system's error in this way.
        cause = error.get_ref().map(|inner| inner as &(dyn Error + 'static));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mart;

    #[tokio::test]
    async fn what_fails_is_the_marts_but_for_the_store_and_this_disk() {
        use arrow::error::ArrowError;
        use datafusion::error::DataFusionError;
        use parquet::errors::ParquetError;

        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("m.sql"), "SELECT 1 AS a").unwrap();
        let graph = mart::load(folder.path(), &[], &[]).unwrap();
        let mart = &graph.marts()[0];
        let memory = crate::store::StoreSettings {
            memory: Some(Arc::default()),
            ..crate::store::StoreSettings::default()
        };
        let lake = Store::open("memory://lake/", &memory).await.unwrap();
        let of = |error: OrderedError| failed(&lake, mart, folder.path(), error);
        let parquet = |source| {
            let file = "/spill/m-0.parquet".to_owned();
            OrderedError::Write(WriteError::Parquet { file, source })
        };
        let full = || std::io::Error::from_raw_os_error(28);
        let of_mart = [
            parquet(ParquetError::General("incompatible type".to_owned())),
            OrderedError::Write(WriteError::Arrow(ArrowError::CastError("x".to_owned()))),
            OrderedError::LongValue("k=aaa".to_owned()),
            OrderedError::ManyPartitions(3),
            OrderedError::Rows(DataFusionError::ResourcesExhausted("x".to_owned())),
            OrderedError::Rows(DataFusionError::Internal("x".to_owned())),
            // A damaged file is no failure of the disk.
            OrderedError::Rows(
                ParquetError::External(Box::new(std::io::Error::other("corrupt"))).into(),
            ),
            OrderedError::Rows(
                object_store::Error::NotFound {
                    path: "a".to_owned(),
                    source: "gone".into(),
                }
                .into(),
            ),
        ];
        for error in of_mart {
            let text = error.to_string();
            match of(error) {
                RunError::Mart(error) => {
                    assert!(error.to_string().contains("m.sql: "), "{error}");
                    assert!(!error.to_string().contains("/spill"), "{error}");
                }
                other => panic!("{text}: {other}"),
            }
        }
        let of_disk = [
            parquet(ParquetError::External(Box::new(full()))),
            OrderedError::Write(WriteError::Spill {
                folder: "x".to_owned(),
                source: full(),
            }),
            OrderedError::Rows(DataFusionError::IoError(full())),
            OrderedError::Rows(ArrowError::IoError("x".to_owned(), full()).into()),
            // A spill file of the engine, as its IPC writer gives it.
            OrderedError::Rows(
                ArrowError::from(std::io::Error::from(DataFusionError::IoError(full()))).into(),
            ),
            OrderedError::Rows(ArrowError::from(std::io::Error::other(full())).into()),
        ];
        for error in of_disk {
            let text = error.to_string();
            let found = of(error);
            assert!(matches!(found, RunError::Write(_)), "{text}: {found}");
        }
        let denied = object_store::Error::PermissionDenied {
            path: "a".to_owned(),
            source: "403".into(),
        };
        let denied =
            DataFusionError::ParquetError(Box::new(ParquetError::External(Box::new(denied))));
        let found = of(OrderedError::Rows(denied));
        assert!(matches!(found, RunError::Store(_)), "{found}");
    }
}
