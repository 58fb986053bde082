//! Copies one file at a URL to the local disk, and hashes it on the way.

use std::path::Path;

use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::{Store, StoreError, StoreErrorKind, StoreSettings};

/// The reason why a file could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The store does not answer.
    #[error(transparent)]
    Store(StoreError),
    /// A folder, a pipe or something else that is no file. Another attempt does not help.
    #[error(transparent)]
    NotAFile(StoreError),
    /// The copy cannot be written.
    #[error(transparent)]
    Copy(std::io::Error),
}

/// Copies the file at `url` to `copy`, and gives the SHA-256 of its bytes; `None` where there is no
/// file.
///
/// # Errors
/// A store that does not answer; a local disk that is full.
pub async fn fetch(
    url: &str,
    copy: &Path,
    settings: &StoreSettings,
) -> Result<Option<[u8; 32]>, FetchError> {
    let (folder, name) = url.rsplit_once('/').unwrap_or(("", url));
    let store = Store::open(&format!("{folder}/"), settings).await;
    let store = store.map_err(FetchError::Store)?;
    // A file URL is percent-encoded and a key is not. The text behind `s3://` is a key already.
    let path = url::Url::parse(url).ok().filter(|_| store.is_local());
    let path = path.and_then(|url| url.to_file_path().ok());
    let file = path.as_ref().and_then(|path| path.file_name()?.to_str());
    let mut content = match store.get(file.unwrap_or(name)).await {
        Ok((_, content)) => content,
        Err(error) if error.kind() == StoreErrorKind::NotFound => return Ok(None),
        Err(error)
            if store.is_local()
                && matches!(
                    error.kind(),
                    StoreErrorKind::Other | StoreErrorKind::NotAFile | StoreErrorKind::NotAFolder
                ) =>
        {
            return Err(FetchError::NotAFile(error));
        }
        Err(error) => return Err(FetchError::Store(error)),
    };
    let mut hash = Sha256::new();
    let out = tokio::fs::File::create(copy).await;
    let mut out = out.map_err(FetchError::Copy)?;
    while let Some(piece) = content.next().await {
        let piece = piece.map_err(FetchError::Store)?;
        hash.update(&piece);
        out.write_all(&piece).await.map_err(FetchError::Copy)?;
    }
    out.flush().await.map_err(FetchError::Copy)?;
    Ok(Some(hash.finalize().into()))
}
