//! Which raw objects there are. Every run lists every prefix as a whole.
//!
//! Only the servers of AWS promise the order of a listing, and objects arrive late under old prefixes. For this reason
//! there is no high-water mark: the listing says which objects exist, and the log says which of them are new.

use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::config::Source;
use crate::layout::{Layout, LayoutError};
use crate::store::{Store, StoreError};

/// Why the raw objects of a source cannot be found.
#[derive(Debug, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "the text of each error says what its fields are"
)]
pub enum DiscoverError {
    /// A store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The layout cannot be read.
    #[error("sources.{name}.layout: {error}")]
    Layout { name: String, error: LayoutError },
    /// A glob cannot be read.
    #[error("sources.{name}.exclude: {error}")]
    Exclude { name: String, error: globset::Error },
    /// Keys do not match the layout. `url` is the first of `count`.
    #[error(
        "{url} does not match the layout `{layout}` of source {name} ({count} such objects): set `layout` to \
         the pattern of the keys, set `layout = false` to use LastModified as the arrival, or `exclude` objects \
         that hold no events"
    )]
    Unplaced {
        url: String,
        layout: String,
        name: String,
        count: usize,
    },
    /// A root on disk is no folder.
    #[error("{url} does not exist: sources.{name}.raw names a folder of raw objects")]
    NoFolder { url: String, name: String },
    /// A root in a bucket holds nothing.
    #[error(
        "{url} holds no object: sources.{name}.raw names a prefix of raw objects, is it spelt correctly? A \
         first run needs a raw object there"
    )]
    NoObject { url: String, name: String },
}

/// A raw object that was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawObject {
    /// The identity within the source: the name of a named root and `/`, then the key below the root. A million of them
    /// may be in memory.
    pub identity: Box<str>,
    /// The index of the root among the roots of the source.
    pub root: u32,
    /// The byte of the identity at which the key below the root begins.
    pub key_at: u32,
    /// The size in bytes.
    pub size: u64,
    /// The ETag, where the store has one.
    pub etag: Option<String>,
    /// The time of arrival, in milliseconds since 1970 UTC.
    pub arrival_ms: i64,
}

impl RawObject {
    /// The key below the root.
    pub fn key(&self) -> &str {
        self.identity
            .get(self.key_at as usize..)
            .unwrap_or_default()
    }
}

/// All that the roots of one source hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Discovered {
    /// The raw objects, in the order of their identities as bytes.
    pub objects: Vec<RawObject>,
    /// The identities of keys that every reader hides.
    pub hidden: Vec<String>,
    /// The identities of keys that the configuration excludes.
    pub excluded: Vec<String>,
    /// The identities of objects that only mark a folder.
    pub folder_markers: Vec<String>,
    /// The identities of entries that are no files, such as sockets.
    pub no_files: Vec<String>,
    /// The URLs of objects that may hold events, and whose keys the client cannot ask for.
    pub unreadable: Vec<String>,
    /// The indexes of roots in buckets that hold nothing at all.
    pub empty_roots: Vec<usize>,
    /// The identities of symbolic links, which are not followed.
    pub links: Vec<String>,
}

/// The roots of one source, opened.
pub struct Roots {
    /// The stores of the roots, in the order of the configuration.
    pub stores: Vec<Store>,
    layout: Option<Layout>,
    exclude: GlobSet,
}

impl Roots {
    /// The roots of a source. `stores` are the stores of `source.raw`, in its order.
    ///
    /// # Errors
    /// A layout or a glob that cannot be read.
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

    /// The key from which the listing of one root may begin, so that it has all objects that arrived at `since` or
    /// later, in milliseconds since 1970 UTC. Empty where the root must be listed as a whole. `keys` are the keys below
    /// the root that have been absorbed.
    pub fn settled_before<'a>(&self, since: i64, keys: impl Iterator<Item = &'a str>) -> String {
        let Some(layout) = &self.layout else {
            return String::new();
        };
        // Keys sort by time only if all have the same text before the date.
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
    /// A store that does not answer, a root that is no folder, or a key that does not match the layout.
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
            let identity = |key: String| match name {
                Some(name) => format!("{name}/{key}"),
                None => key,
            };
            let named = |keys: Vec<String>| keys.into_iter().map(identity);
            found.folder_markers.extend(named(listing.markers));
            found.no_files.extend(named(listing.no_files));
            for key in listing.links {
                match self.why_not_read(&key) {
                    Some(why) => found.not_read(why, identity(key)),
                    None => found.links.push(identity(key)),
                }
            }
            for key in listing.unrepresentable {
                match self.why_not_read(&key) {
                    Some(why) => found.not_read(why, identity(key)),
                    None => found.unreadable.push(format!("{}{key}", store.root())),
                }
            }
            let key_at = name.map_or(0, |name| name.len() + 1);
            found.objects.reserve_exact(listing.objects.len());
            for object in listing.objects {
                if let Some(why) = self.why_not_read(&object.key) {
                    found.not_read(why, identity(object.key));
                    continue;
                }
                let arrival_ms = self.arrival_ms(&object.key, object.last_modified_ms);
                let Some(arrival_ms) = arrival_ms else {
                    let url = store.url_of(&object.key);
                    let (_, count) = unplaced.get_or_insert((url, 0));
                    *count += 1;
                    continue;
                };
                found.objects.push(RawObject {
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
            return Err(DiscoverError::Unplaced {
                url,
                layout: source.layout.clone().unwrap_or_default(),
                name: source.name.clone(),
                count,
            });
        }
        found
            .objects
            .sort_unstable_by(|a, b| a.identity.as_bytes().cmp(b.identity.as_bytes()));
        Ok(found)
    }

    /// When an object arrived, in milliseconds since 1970 UTC. `None` where its key does not match the layout.
    fn arrival_ms(&self, key: &str, last_modified_ms: i64) -> Option<i64> {
        match &self.layout {
            None => Some(last_modified_ms),
            Some(layout) => layout.arrival_ms(key),
        }
    }

    /// Whether an object of this key, below its root, is read: its name is not hidden, and no glob excludes it.
    pub fn reads(&self, key: &str) -> bool {
        self.why_not_read(key).is_none()
    }

    /// Why a key is not read, where its name says that it holds no events.
    fn why_not_read(&self, key: &str) -> Option<NotRead> {
        if hidden(key) {
            Some(NotRead::Hidden)
        } else if self.exclude.is_match(key) {
            Some(NotRead::Excluded)
        } else {
            None
        }
    }
}

/// Why a key is not read.
enum NotRead {
    /// Every reader hides such a name.
    Hidden,
    /// A glob of the configuration excludes it.
    Excluded,
}

impl Discovered {
    /// Notes a key that is not read.
    fn not_read(&mut self, why: NotRead, identity: String) {
        match why {
            NotRead::Hidden => self.hidden.push(identity),
            NotRead::Excluded => self.excluded.push(identity),
        }
    }
}

/// Whether a key is a folder marker of old Hadoop tools, or has a name that every reader hides.
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
