//! Which raw objects there are: every prefix is listed whole, every time.
//!
//! No server but AWS's promises byte order of a listing, and objects arrive late under old
//! prefixes, so there is no high-water mark: LIST is the truth and the log says what is new.

use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::config::Source;
use crate::layout::{Layout, LayoutError};
use crate::store::{Store, StoreError};

/// The raw objects of a source cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("sources.{name}.layout: {error}")]
    Layout { name: String, error: LayoutError },
    #[error("sources.{name}.exclude: {error}")]
    Exclude { name: String, error: globset::Error },
    #[error(
        "{url} does not match the layout `{layout}` of source {name} ({count} such objects): set \
         `layout` to the pattern of the keys, set `layout = false` to take LastModified as the \
         arrival, or `exclude` what is no event"
    )]
    Unplaced {
        url: String,
        layout: String,
        name: String,
        count: usize,
    },
    #[error("{url} does not exist: sources.{name}.raw names a folder of raw objects")]
    NoFolder { url: String, name: String },
    #[error(
        "{url} holds no object: sources.{name}.raw names a prefix of raw objects, is it spelt right? A first \
         run needs one there"
    )]
    NoObject { url: String, name: String },
}

/// A raw object that was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its identity within the source. There may be a million in memory.
    pub identity: Box<str>,
    /// Index of its root among the source's.
    pub root: u32,
    /// Where the key below that root begins in the identity.
    pub key_at: u32,
    pub size: u64,
    pub etag: Option<String>,
    /// Milliseconds since 1970 UTC.
    pub arrival_ms: i64,
}

impl Found {
    /// Its key below its root.
    pub fn key(&self) -> &str {
        self.identity
            .get(self.key_at as usize..)
            .unwrap_or_default()
    }
}

/// What the roots of one source hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Discovered {
    /// In order of their identities as bytes.
    pub objects: Vec<Found>,
    /// Keys that hold no events, by why.
    pub hidden: Vec<String>,
    pub excluded: Vec<String>,
    pub folder_markers: Vec<String>,
    pub no_files: Vec<String>,
    /// URLs of objects that may hold events, and whose keys the client cannot ask for.
    pub unreadable: Vec<String>,
    /// Roots in buckets below which there is nothing at all.
    pub empty_roots: Vec<usize>,
    /// Symbolic links that were not followed.
    pub links: Vec<String>,
}

/// The roots of one source, opened.
pub struct Roots {
    pub stores: Vec<Store>,
    layout: Option<Layout>,
    exclude: GlobSet,
}

impl Roots {
    /// `stores` are those of `source.raw`, in its order.
    ///
    /// # Errors
    /// A layout or a glob that is none.
    pub fn new(source: &Source, stores: Vec<Store>) -> Result<Self, DiscoverError> {
        let name = || source.name.clone();
        let layout = match &source.layout {
            Some(pattern) => Some(Layout::new(pattern, source.layout_timezone).map_err(
                |error| DiscoverError::Layout {
                    name: name(),
                    error,
                },
            )?),
            None => None,
        };
        let bad_glob = |error| DiscoverError::Exclude {
            name: name(),
            error,
        };
        let mut globs = GlobSetBuilder::new();
        for glob in &source.exclude {
            globs.add(Glob::new(glob).map_err(bad_glob)?);
        }
        Ok(Self {
            stores,
            layout,
            exclude: globs.build().map_err(bad_glob)?,
        })
    }

    /// Where the listing of one root may begin so that nothing that arrived at `since` or later is
    /// left out; empty where all of it must be listed. `keys` are absorbed ones, below the root.
    pub fn settled_before<'a>(&self, since: i64, keys: impl Iterator<Item = &'a str>) -> String {
        let Some(layout) = &self.layout else {
            return String::new();
        };
        // What stands before the date must be the same in all keys, or they do not sort by time.
        let mut head: Option<&str> = None;
        for key in keys {
            let own = layout.begins_at(key).and_then(|at| key.get(..at));
            match (head, own) {
                (_, None) => return String::new(),
                (None, Some(own)) => head = Some(own),
                (Some(head), Some(own)) if head != own => return String::new(),
                _ => {}
            }
        }
        match (head, layout.sorts_before(since)) {
            (Some(head), Some(date)) => format!("{head}{date}"),
            _ => String::new(),
        }
    }

    /// Lists all roots, each from the key in `from` on.
    ///
    /// # Errors
    /// A store that does not answer; a key that the layout does not place in time.
    pub async fn discover(
        &self,
        source: &Source,
        from: &[String],
    ) -> Result<Discovered, DiscoverError> {
        let roots = self.stores.iter().zip(from);
        let listings = roots.map(|(store, from)| store.list_after(from));
        let listings = futures::future::try_join_all(listings).await?;
        let mut found = Discovered::default();
        let mut unplaced: Option<(String, usize)> = None;
        for (root, (listing, store)) in listings.into_iter().zip(&self.stores).enumerate() {
            let folder = store.local_path("");
            if listing.objects.is_empty() && folder.is_some_and(|folder| !folder.exists()) {
                return Err(DiscoverError::NoFolder {
                    url: store.root().to_owned(),
                    name: source.name.clone(),
                });
            }
            if listing.is_empty() && !store.is_local() {
                found.empty_roots.push(root);
            }
            let name = source.raw.get(root).and_then(|root| root.name.as_deref());
            let identity = |key: &str| match name {
                Some(name) => format!("{name}/{key}"),
                None => key.to_owned(),
            };
            let named = |keys: Vec<String>| keys.into_iter().map(|key| identity(&key));
            found.folder_markers.extend(named(listing.markers));
            found.no_files.extend(named(listing.no_files));
            for key in listing.links {
                if hidden(&key) {
                    found.hidden.push(identity(&key));
                } else if self.exclude.is_match(&key) {
                    found.excluded.push(identity(&key));
                } else {
                    found.links.push(identity(&key));
                }
            }
            for key in listing.unrepresentable {
                if hidden(&key) {
                    found.hidden.push(identity(&key));
                } else if self.exclude.is_match(&key) {
                    found.excluded.push(identity(&key));
                } else {
                    found.unreadable.push(format!("{}{key}", store.root()));
                }
            }
            let key_at = name.map_or(0, |name| name.len() + 1);
            found.objects.reserve_exact(listing.objects.len());
            for object in listing.objects {
                let (is_hidden, is_excluded) =
                    (hidden(&object.key), self.exclude.is_match(&object.key));
                let identity = |key: String| match name {
                    Some(name) => format!("{name}/{key}"),
                    None => key,
                };
                if is_hidden {
                    found.hidden.push(identity(object.key));
                    continue;
                }
                if is_excluded {
                    found.excluded.push(identity(object.key));
                    continue;
                }
                let arrival_ms = match &self.layout {
                    None => Some(object.last_modified_ms),
                    Some(layout) => layout.arrival_ms(&object.key),
                };
                let Some(arrival_ms) = arrival_ms else {
                    let url = store.url_of(&object.key);
                    let (_, count) = unplaced.get_or_insert((url, 0));
                    *count += 1;
                    continue;
                };
                found.objects.push(Found {
                    identity: identity(object.key).into_boxed_str(),
                    root: root as u32,
                    key_at: key_at as u32,
                    size: object.size,
                    etag: object.etag,
                    arrival_ms,
                });
            }
        }
        if let Some((url, count)) = unplaced {
            let layout = source.layout.clone().unwrap_or_default();
            return Err(DiscoverError::Unplaced {
                url,
                layout,
                name: source.name.clone(),
                count,
            });
        }
        found
            .objects
            .sort_unstable_by(|a, b| a.identity.as_bytes().cmp(b.identity.as_bytes()));
        Ok(found)
    }
}

/// Folder markers of old Hadoop tools, and names that every reader hides.
fn hidden(key: &str) -> bool {
    let hides = |part: &str| part.starts_with(['_', '.']) && !matches!(part, "." | "..");
    key.ends_with("_$folder$") || key.split('/').any(hides)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_and_hidden_names_are_skipped() {
        for key in [
            "a/_SUCCESS",
            ".tmp/x",
            "2019_$folder$",
            "a/.x.gz",
            "_tmp/../x",
        ] {
            assert!(hidden(key), "{key}");
        }
        for key in ["2019/a_b.gz", "a.b/c$folder$", "a/./b", "a/../b", "a/"] {
            assert!(!hidden(key), "{key}");
        }
    }
}
