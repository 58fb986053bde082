//! The raw objects of a source in memory. Each takes some 200 bytes, because a lake may have millions of them.
//!
//! ```text
//! packed   sorted chunks of rows and their texts; shared by clones  ─┐
//! recent   what changed since, by key                               ─┴─▶ one sorted sequence
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use super::format::{ObjectEntry, Sha256};
use crate::event::Reason;

/// The number of rows of a packed chunk. A change makes one chunk again.
const CHUNK: usize = 4096;
/// Changes are packed when there are so many, or when they are this share of the packed objects. Packing later
/// costs less for each change, and a change that is not packed takes twice the memory.
const RECENT: usize = 1 << 14;
const RECENT_SHARE: usize = 8;

/// Raw objects by identity.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    packed: Vec<Arc<Chunk>>,
    /// Changes that are not packed yet. `None` hides a packed object.
    recent: BTreeMap<String, Option<ObjectEntry>>,
    len: usize,
}

/// Objects that follow each other in the order of keys. A chunk is never empty.
#[derive(Debug, Default)]
struct Chunk {
    /// The key and the ETag of each row, one after the other.
    texts: String,
    rows: Vec<Row>,
    /// The rejects by row. Most objects have none.
    rejects: BTreeMap<usize, BTreeMap<Reason, u64>>,
}

#[derive(Debug)]
struct Row {
    key_at: u32,
    etag_at: u32,
    has_etag: bool,
    has_times: bool,
    size: u64,
    sha256: Sha256,
    arrival_ms: i64,
    records: u64,
    events: u64,
    times: (i64, i64),
}

impl Objects {
    /// The number of objects.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no objects.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether there is an object with this key.
    pub fn contains_key(&self, key: &str) -> bool {
        match self.recent.get(key) {
            Some(changed) => changed.is_some(),
            None => self.find(key).is_some(),
        }
    }

    /// The entry of a key.
    pub fn get(&self, key: &str) -> Option<ObjectEntry> {
        match self.recent.get(key) {
            Some(changed) => changed.clone(),
            None => self.find(key).map(|(chunk, row)| chunk.entry(row)),
        }
    }

    /// The keys, in the order of their bytes.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|found| found.key())
    }

    /// The objects, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = ObjectEntry> {
        self.iter().map(|found| found.entry())
    }

    /// Adds an entry. It replaces an older entry with the same key.
    pub fn insert(&mut self, entry: ObjectEntry) {
        self.len += usize::from(!self.contains_key(&entry.key));
        self.recent.insert(entry.key.clone(), Some(entry));
        self.pack_when_many();
    }

    /// Removes the entry of a key, if there is one.
    pub fn remove(&mut self, key: &str) {
        if self.contains_key(key) {
            self.len -= 1;
            self.recent.insert(key.to_owned(), None);
            self.pack_when_many();
        }
    }

    fn find(&self, key: &str) -> Option<(&Chunk, usize)> {
        let at = self.packed.partition_point(|chunk| chunk.last() < key);
        let chunk = self.packed.get(at)?;
        let row = chunk.position(key)?;
        Some((chunk, row))
    }

    fn iter(&self) -> impl Iterator<Item = Found<'_>> {
        let mut packed = self
            .packed
            .iter()
            .flat_map(|chunk| (0..chunk.rows.len()).map(move |row| (&**chunk, row)))
            .peekable();
        let mut recent = self.recent.iter().peekable();
        std::iter::from_fn(move || {
            while let (Some((chunk, row)), Some((key, _))) = (packed.peek(), recent.peek()) {
                match chunk.key(*row).cmp(key.as_str()) {
                    std::cmp::Ordering::Less => break,
                    std::cmp::Ordering::Equal => drop(packed.next()),
                    std::cmp::Ordering::Greater => {}
                }
                if let Some((_, Some(entry))) = recent.next() {
                    return Some(Found::Recent(entry));
                }
            }
            match packed.next() {
                Some((chunk, row)) => Some(Found::Packed(chunk, row)),
                None => recent
                    .find_map(|(_, changed)| changed.as_ref())
                    .map(Found::Recent),
            }
        })
    }

    fn pack_when_many(&mut self) {
        if self.recent.len() >= RECENT.max(self.len / RECENT_SHARE) {
            self.pack();
        }
    }

    /// Moves the recent changes into the chunks. Chunks without a change stay as they are.
    fn pack(&mut self) {
        let mut recent = std::mem::take(&mut self.recent).into_iter().peekable();
        let mut packer = Packer::default();
        for chunk in std::mem::take(&mut self.packed) {
            if recent
                .peek()
                .is_none_or(|(key, _)| key.as_str() > chunk.last())
            {
                packer.keep(chunk);
                continue;
            }
            for row in 0..chunk.rows.len() {
                let key = chunk.key(row);
                while let Some((_, changed)) = recent.next_if(|(recent, _)| recent.as_str() < key) {
                    packer.push_some(changed);
                }
                match recent.next_if(|(recent, _)| recent == key) {
                    Some((_, changed)) => packer.push_some(changed),
                    None => packer.push(&chunk.entry(row)),
                }
            }
        }
        for (_, changed) in recent {
            packer.push_some(changed);
        }
        *self = packer.finish();
    }
}

/// Equal objects are equal however many of them are packed.
impl PartialEq for Objects {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.values().eq(other.values())
    }
}

impl FromIterator<ObjectEntry> for Objects {
    fn from_iter<I: IntoIterator<Item = ObjectEntry>>(entries: I) -> Self {
        let mut objects = Self::default();
        for entry in entries {
            objects.insert(entry);
        }
        objects
    }
}

enum Found<'a> {
    Packed(&'a Chunk, usize),
    Recent(&'a ObjectEntry),
}

impl<'a> Found<'a> {
    fn key(&self) -> &'a str {
        match self {
            Self::Packed(chunk, row) => chunk.key(*row),
            Self::Recent(entry) => &entry.key,
        }
    }

    fn entry(&self) -> ObjectEntry {
        match self {
            Self::Packed(chunk, row) => chunk.entry(*row),
            Self::Recent(entry) => (*entry).clone(),
        }
    }
}

impl Chunk {
    fn text(&self, from: u32, to: u32) -> &str {
        self.texts.get(from as usize..to as usize).unwrap_or("")
    }

    fn key(&self, row: usize) -> &str {
        self.rows
            .get(row)
            .map_or("", |row| self.text(row.key_at, row.etag_at))
    }

    fn last(&self) -> &str {
        self.key(self.rows.len().saturating_sub(1))
    }

    fn position(&self, key: &str) -> Option<usize> {
        self.rows
            .binary_search_by(|row| self.text(row.key_at, row.etag_at).cmp(key))
            .ok()
    }

    fn entry(&self, at: usize) -> ObjectEntry {
        let row = &self.rows[at];
        let end = self
            .rows
            .get(at + 1)
            .map_or_else(|| offset(&self.texts), |next| next.key_at);
        ObjectEntry {
            key: self.key(at).to_owned(),
            etag: row.has_etag.then(|| self.text(row.etag_at, end).to_owned()),
            size: row.size,
            sha256: row.sha256,
            arrival_ms: row.arrival_ms,
            records: row.records,
            events: row.events,
            rejects: self.rejects.get(&at).cloned().unwrap_or_default(),
            times: row.has_times.then_some(row.times),
        }
    }

    fn push(&mut self, entry: &ObjectEntry) {
        if !entry.rejects.is_empty() {
            self.rejects.insert(self.rows.len(), entry.rejects.clone());
        }
        let key_at = offset(&self.texts);
        self.texts.push_str(&entry.key);
        let etag_at = offset(&self.texts);
        self.texts.push_str(entry.etag.as_deref().unwrap_or(""));
        self.rows.push(Row {
            key_at,
            etag_at,
            has_etag: entry.etag.is_some(),
            has_times: entry.times.is_some(),
            size: entry.size,
            sha256: entry.sha256,
            arrival_ms: entry.arrival_ms,
            records: entry.records,
            events: entry.events,
            times: entry.times.unwrap_or_default(),
        });
    }
}

/// The end of the texts of a chunk. 4,096 keys together are always shorter than 4 GiB.
fn offset(texts: &str) -> u32 {
    u32::try_from(texts.len()).unwrap_or(u32::MAX)
}

/// Makes chunks from entries that come in the order of their keys.
#[derive(Default)]
pub(super) struct Packer {
    done: Vec<Arc<Chunk>>,
    open: Chunk,
    len: usize,
}

impl Packer {
    /// Adds an entry. The result is false if the entry is not after the last one.
    pub(super) fn push_after(&mut self, entry: &ObjectEntry) -> bool {
        let last = match self.open.rows.is_empty() {
            true => self.done.last().map(|chunk| chunk.last()),
            false => Some(self.open.last()),
        };
        let after = last.is_none_or(|last| last < entry.key.as_str());
        self.push(entry);
        after
    }

    fn push(&mut self, entry: &ObjectEntry) {
        self.len += 1;
        self.open.push(entry);
        if self.open.rows.len() == CHUNK {
            self.close();
        }
    }

    fn push_some(&mut self, changed: Option<ObjectEntry>) {
        if let Some(entry) = changed {
            self.push(&entry);
        }
    }

    fn keep(&mut self, chunk: Arc<Chunk>) {
        self.close();
        self.len += chunk.rows.len();
        self.done.push(chunk);
    }

    fn close(&mut self) {
        let mut chunk = std::mem::take(&mut self.open);
        if !chunk.rows.is_empty() {
            chunk.texts.shrink_to_fit();
            chunk.rows.shrink_to_fit();
            self.done.push(Arc::new(chunk));
        }
    }

    pub(super) fn finish(mut self) -> Objects {
        self.close();
        Objects {
            packed: self.done,
            recent: BTreeMap::new(),
            len: self.len,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    fn entry(key: &str, n: u64) -> ObjectEntry {
        ObjectEntry {
            key: key.to_owned(),
            etag: (!n.is_multiple_of(3)).then(|| format!("etag {n}")),
            size: n,
            sha256: Sha256([(n % 251) as u8; 32]),
            arrival_ms: -(n as i64),
            records: n,
            events: n / 2,
            rejects: match n.is_multiple_of(5) {
                true => BTreeMap::from([(Reason::Type, n)]),
                false => BTreeMap::new(),
            },
            times: n.is_multiple_of(2).then_some((n as i64, n as i64 + 1)),
        }
    }

    /// Compared with a map, with packing at random moments.
    #[test]
    fn it_is_a_map() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        let mut objects = Objects::default();
        let mut map: BTreeMap<String, ObjectEntry> = BTreeMap::new();
        for n in 0..60_000u64 {
            // Names of different lengths, some of them the beginning of others, in no order.
            let key = format!("{:x}", random.random_range(0..20_000));
            match random.random_range(0..4) {
                0 => {
                    objects.remove(&key);
                    map.remove(&key);
                }
                _ => {
                    objects.insert(entry(&key, n));
                    map.insert(key.clone(), entry(&key, n));
                }
            }
            if random.random_bool(0.001) {
                objects.pack();
            }
            assert_eq!(objects.len(), map.len());
            assert_eq!(objects.contains_key(&key), map.contains_key(&key));
            if n % 4_000 == 0 || n == 59_999 {
                assert!(objects.keys().eq(map.keys().map(String::as_str)));
                assert!(objects.values().eq(map.values().cloned()));
                for (key, expected) in &map {
                    assert_eq!(objects.get(key).as_ref(), Some(expected));
                }
                let others: Objects = map.values().cloned().collect();
                assert_eq!(objects, others);
            }
        }
        assert!(objects.packed.len() > 1, "nothing was packed");
        assert_eq!(objects.get("no such key"), None);
        let before = objects.clone();
        let first = objects.keys().next().unwrap().to_owned();
        objects.remove(&first);
        assert_ne!(objects, before);
    }
}
