//! The view of a root that an engine reads.
//!
//! ```text
//! range of a key ─┬─ on this disk as well ─▶ local file
//!                 └─ else ─────────────────▶ store ─▶ as long as was asked for? ─▶ bytes, or an error
//! ```
//!
//! The log says how long a data file is, and Parquet is read from the end of the file. If another run has put a
//! shorter file there, a store answers with fewer bytes than were asked for. The engine's reader takes them for
//! the whole range and panics.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, ListResult, MultipartUpload,
    OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, coalesce_ranges,
};

#[derive(Debug)]
pub(super) struct Reads {
    store: Arc<dyn ObjectStore>,
    disk: Arc<dyn ObjectStore>,
    /// For some keys of the store, a path on this disk with the same content.
    local: BTreeMap<Path, Path>,
    /// For some keys, the only version that may be read from the store.
    etags: BTreeMap<Path, String>,
}

impl Reads {
    /// `local` files have the content of these keys of the store. Keys with `etags` are read in that version
    /// only.
    pub(super) fn new(
        store: Arc<dyn ObjectStore>,
        local: impl IntoIterator<Item = (Path, PathBuf)>,
        etags: impl IntoIterator<Item = (Path, String)>,
    ) -> Self {
        // A file whose path the client cannot express is read from the store.
        let spelt = |(key, file)| Some((key, Path::from_absolute_path(file).ok()?));
        Self {
            store,
            disk: Arc::new(LocalFileSystem::new()),
            local: local.into_iter().filter_map(spelt).collect(),
            etags: etags.into_iter().collect(),
        }
    }

    /// Asks the disk for a key whose content it has, and the store for all other keys. If a file on disk is
    /// gone, the store is asked too.
    async fn ask<T, F: Future<Output = Result<T>>>(
        &self,
        key: &Path,
        ask: impl Fn(Arc<dyn ObjectStore>, Path, Option<String>) -> F,
    ) -> Result<T> {
        if let Some(file) = self.local.get(key) {
            match ask(Arc::clone(&self.disk), file.clone(), None).await {
                Err(Error::NotFound { .. }) => {}
                found => return found,
            }
        }
        let etag = self.etags.get(key).cloned();
        ask(Arc::clone(&self.store), key.clone(), etag).await
    }
}

impl Display for Reads {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "{key} has {found} bytes from {from} on, not {wanted}: it is not the file that the log names"
)]
struct Short {
    key: String,
    from: u64,
    wanted: u64,
    found: u64,
}

fn check(key: &Path, asked: &Range<u64>, found: u64) -> Result<()> {
    let wanted = asked.end - asked.start;
    if found == wanted {
        return Ok(());
    }
    Err(Error::Generic {
        store: "lake",
        source: Box::new(Short {
            key: key.to_string(),
            from: asked.start,
            wanted,
            found,
        }),
    })
}

#[async_trait::async_trait]
impl ObjectStore for Reads {
    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        let asked = match &options.range {
            Some(GetRange::Bounded(range)) => Some(range.clone()),
            _ => None,
        };
        let found = self.ask(key, async |store, path, etag| {
            let mut options = options.clone();
            options.if_match = etag.or(options.if_match);
            store.get_opts(&path, options).await
        });
        let found = found.await?;
        if let Some(asked) = asked {
            check(key, &asked, found.range.end - found.range.start)?;
        }
        Ok(found)
    }

    async fn get_ranges(&self, key: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        // The function of the store is not used, because it slices the answer and panics if the answer is too
        // short.
        let whole = |range| self.get_range(key, range);
        coalesce_ranges(ranges, whole, OBJECT_STORE_COALESCE_DEFAULT).await
    }

    async fn put_opts(
        &self,
        key: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.store.put_opts(key, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        key: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(key, options).await
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn a_range_that_an_object_does_not_have_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let disk = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        for store in [
            Arc::new(disk) as Arc<dyn ObjectStore>,
            Arc::new(InMemory::new()),
        ] {
            let reads = Reads::new(store, [], []);
            let key = Path::from("t/part-00000.parquet");
            reads.put(&key, "0123456789".into()).await.unwrap();
            assert_eq!(reads.get_range(&key, 8..10).await.unwrap(), "89");
            let whole = reads.get_ranges(&key, &[0..2, 8..10]).await.unwrap();
            assert_eq!(whole, ["01", "89"]);
            // The ranges are asked for together, and the answer ends before the second one begins.
            for second in [8..11, 20..22] {
                assert!(reads.get_ranges(&key, &[0..2, second]).await.is_err());
            }
            let error = reads.get_range(&key, 8..12).await.unwrap_err().to_string();
            assert!(
                error.contains("t/part-00000.parquet has 2 bytes from 8 on, not 4"),
                "{error}"
            );
            let whole = reads.get(&key).await.unwrap().bytes().await.unwrap();
            assert_eq!(whole, "0123456789");
        }
    }

    #[tokio::test]
    async fn what_is_on_this_disk_is_read_there() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("part one");
        std::fs::write(&file, "here").unwrap();
        let store = Arc::new(InMemory::new());
        let (near, far) = (Path::from("lake/t/near"), Path::from("lake/t/far"));
        for key in [&near, &far] {
            store.put(key, "there".into()).await.unwrap();
        }
        let reads = Reads::new(store, [(near.clone(), file.clone())], []);
        assert_eq!(reads.get_range(&near, 0..4).await.unwrap(), "here");
        assert_eq!(reads.get_range(&far, 0..5).await.unwrap(), "there");
        let ranges = reads.get_ranges(&near, &[0..1, 1..4]).await.unwrap();
        assert_eq!(ranges, ["h", "ere"]);
        assert!(reads.get_range(&near, 0..5).await.is_err());
        std::fs::remove_file(file).unwrap();
        assert_eq!(reads.get_range(&near, 0..5).await.unwrap(), "there");
    }

    #[tokio::test]
    async fn no_other_version_is_read_than_that_of_the_etag() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let key = Path::from("t/part-00000.parquet");
        let put = store.put(&key, "0123456789".into()).await.unwrap();
        let etags = [(key.clone(), put.e_tag.unwrap())];
        let reads = Reads::new(Arc::clone(&store), [], etags);
        assert_eq!(reads.get_range(&key, 2..4).await.unwrap(), "23");
        store.put(&key, "0123456780".into()).await.unwrap();
        let ranges = reads.get_ranges(&key, &[0..2, 8..10]).await;
        assert!(
            matches!(ranges, Err(Error::Precondition { .. })),
            "{ranges:?}"
        );
    }
}
