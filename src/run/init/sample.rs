//! The sample: which raw objects, their first bytes, and their records.
//!
//! The records come from the reader of a run, so codecs, framing and envelopes are the same. A *probe* is a source whose
//! only column is a member that no record has: each record becomes a reject, with its text.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::super::RunError;
use super::{SampledRejects, given};
use crate::config::{self, ConfigError, Job, Source};
use crate::event::Reason;
use crate::infer::{LayoutFound, SampledObject};
use crate::layout::Layout;
use crate::raw::{
    self, DecodeMemory, Decoder, ObjectCounts, PieceError, Pieces, RawObject, Reject, Roots,
};
use crate::store::Store;
use crate::time::Zone;

/// The most raw objects of a sample.
const OBJECTS: usize = 64;
/// Raw objects that follow each other and are sampled together: a repeated delivery is often in the next object.
const TOGETHER: usize = 3;
/// The largest and the smallest raw objects that are sampled.
const EXTREMES: usize = 6;
/// The most stored bytes of one raw object that are read.
const OBJECT_BYTES: u64 = 8 << 20;
/// The most stored bytes of a sample.
const ALL_BYTES: u64 = 96 << 20;
/// The most records of one raw object, and of a sample.
const OBJECT_RECORDS: u64 = 10_000;
const ALL_RECORDS: u64 = 60_000;
/// The most bytes of records of a sample.
const ALL_TEXT: usize = 64 << 20;
/// The raw objects that are read at once.
const READ_AT_ONCE: usize = 8;
/// The longest example of a reject.
const EXAMPLE: usize = 160;

/// A raw object of the sample.
pub struct Chosen {
    object: RawObject,
    bytes: Bytes,
    /// Whether the object has more bytes.
    is_cut: bool,
}

/// Chooses raw objects over all keys, which are usually in the order of time, and by size.
pub fn choose(listed: &[RawObject]) -> Vec<&RawObject> {
    if listed.len() <= OBJECTS {
        return listed.iter().collect();
    }
    let mut places: Vec<usize> = Vec::new();
    let groups = (OBJECTS - 2 * EXTREMES) / TOGETHER;
    for group in 0..groups {
        let from = group * (listed.len() - TOGETHER) / (groups - 1);
        places.extend(from..from + TOGETHER);
    }
    let mut by_size: Vec<usize> = (0..listed.len())
        .filter(|at| listed[*at].size > 0)
        .collect();
    by_size.sort_by_key(|at| listed[*at].size);
    places.extend(by_size.iter().take(EXTREMES));
    places.extend(by_size.iter().rev().take(EXTREMES));
    places.sort_unstable();
    places.dedup();
    places.into_iter().map(|at| &listed[at]).collect()
}

/// Reads the first bytes of raw objects.
///
/// # Errors
/// The store does not answer.
pub async fn read(store: &Store, chosen: &[&RawObject]) -> Result<Vec<Chosen>, RunError> {
    // Smaller shares for many objects, so that all of them fit.
    let share = (ALL_BYTES / chosen.len().max(1) as u64).clamp(1 << 20, OBJECT_BYTES);
    let reads = chosen.iter().map(|object| async move {
        let length = object.size.min(share);
        let bytes = match length {
            0 => Bytes::new(),
            length => store.range(object.key(), None, 0..length).await?,
        };
        Ok::<_, RunError>(Chosen {
            object: (*object).clone(),
            is_cut: (bytes.len() as u64) < object.size,
            bytes,
        })
    });
    futures::stream::iter(reads)
        .buffered(READ_AT_ONCE)
        .try_collect()
        .await
}

/// A source that only reads records.
pub struct Probe<'a> {
    url: String,
    here: &'a Path,
    /// The envelope, as the configuration spells it.
    pub unwrap: Option<String>,
    /// Whether prefixes are read that the default excludes.
    pub reads_all: bool,
    source: Source,
    /// The first bad records.
    bad: Vec<String>,
}

impl<'a> Probe<'a> {
    /// A probe of the raw objects below `url`.
    pub fn new(url: &str, here: &'a Path) -> Result<Self, ConfigError> {
        Self::of(url, here, None, false)
    }

    fn of(
        url: &str,
        here: &'a Path,
        unwrap: Option<String>,
        reads_all: bool,
    ) -> Result<Self, ConfigError> {
        let exclude = if reads_all { "exclude = []\n" } else { "" };
        let steps = unwrap.as_ref().map(|unwrap| format!("unwrap = {unwrap}\n"));
        let text = format!(
            "lake = \"file:///nowhere/lake\"\n[sources.sample]\nraw = {url:?}\nlayout = false\n{exclude}{}event_time = \
             \"event_time\"\n[sources.sample.columns]\nevent_time = {{ type = \"timestamp\", path = \
             [\"\\u0001rawmart\"] }}\n",
            steps.unwrap_or_default()
        );
        let job = config::of_text(&text, &here.join("sample.toml"), here)?;
        let source = job.sources.into_iter().next();
        Ok(Self {
            url: url.to_owned(),
            here,
            unwrap,
            reads_all,
            source: source.ok_or_else(|| given("the sample has no source"))?,
            bad: Vec::new(),
        })
    }

    /// A probe of the records inside an envelope.
    pub fn inside(&self, envelope: &str) -> Result<Self, ConfigError> {
        let unwrap = Some(envelope.to_owned());
        Self::of(&self.url, self.here, unwrap, self.reads_all)
    }

    /// Lists the raw objects that a run would read. Where there are none but those that are excluded by default, they
    /// are listed.
    ///
    /// # Errors
    /// There is no raw object; the store does not answer.
    pub async fn list(&mut self, store: &Store) -> Result<Vec<RawObject>, RunError> {
        if store.local_path("").is_some_and(|folder| !folder.exists()) {
            let message = format!(
                "{} does not exist: name the folder of the raw objects",
                self.url
            );
            return Err(given(&message).into());
        }
        let found = loop {
            let roots = Roots::new(&self.source, vec![store.clone()])?;
            let found = roots.discover(&self.source, &[String::new()]).await?;
            if found.objects.is_empty() && !found.excluded.is_empty() && !self.reads_all {
                *self = Self::of(&self.url, self.here, None, true)?;
                continue;
            }
            break found;
        };
        if found.objects.iter().all(|object| object.size == 0) {
            return Err(given(&format!(
                "{} holds no raw object with content ({} empty, {} hidden, {} folder markers, {} keys that cannot be \
                 requested): is the prefix right?",
                self.url,
                found.objects.len(),
                found.hidden.len(),
                found.folder_markers.len(),
                found.unreadable.len()
            ))
            .into());
        }
        Ok(found.objects)
    }

    /// The records of the sample.
    ///
    /// # Errors
    /// No raw object has a record.
    pub fn records(
        &mut self,
        read: &[Chosen],
        layout: &LayoutFound,
    ) -> Result<Vec<SampledObject>, RunError> {
        let layout = layout.pattern();
        let layout = layout.and_then(|pattern| Layout::new(pattern, Zone(chrono_tz::UTC)).ok());
        let mut objects = Vec::with_capacity(read.len());
        let (mut left, mut text) = (ALL_RECORDS, ALL_TEXT);
        for chosen in read {
            let mut object = SampledObject {
                key_ms: layout
                    .as_ref()
                    .and_then(|layout| layout.arrival_ms(chosen.object.key())),
                records: Vec::new(),
            };
            each(
                &self.source,
                chosen,
                0,
                left.min(OBJECT_RECORDS),
                |record| {
                    match record {
                        Record::Reject(reject) if reject.reason == Reason::EventTime => {
                            text = text.saturating_sub(reject.raw_text.len());
                            object.records.push(reject.raw_text.clone());
                        }
                        Record::Reject(reject) => {
                            if self.bad.len() < 3 {
                                self.bad.push(example(&chosen.object, reject));
                            }
                        }
                        Record::Events(_) => {}
                    }
                    text > 0
                },
            )?;
            left = left.saturating_sub(object.records.len() as u64);
            objects.push(object);
            if left == 0 || text == 0 {
                break;
            }
        }
        if objects.iter().all(|object| object.records.is_empty()) {
            return Err(given(&format!(
                "no JSON object was found in {} raw objects below {}{}",
                read.len(),
                self.url,
                match self.bad.is_empty() {
                    true => ": they are blank".to_owned(),
                    false => format!(": {}", self.bad.join("; ")),
                }
            ))
            .into());
        }
        Ok(objects)
    }
}

/// A record of the sample.
enum Record<'r> {
    /// So many events.
    Events(u64),
    /// A record that is no event.
    Reject(&'r Reject),
}

/// The sample has enough.
#[derive(Debug, thiserror::Error)]
#[error("the sample has enough records")]
struct Enough;

/// The stored bytes of a chosen object.
struct Once(Option<Bytes>);

impl Pieces for Once {
    fn next(&mut self) -> Result<Option<Bytes>, PieceError> {
        Ok(self.0.take())
    }
}

/// Gives the records of an object to `take`, at most `most` of them, until `take` says that it wants no more. The
/// record in which the first bytes of a larger object end is left out. The result has the counts of an object that was
/// read to its end.
fn each(
    source: &Source,
    chosen: &Chosen,
    arrival_ms: i64,
    most: u64,
    mut take: impl FnMut(Record<'_>) -> bool,
) -> Result<Option<ObjectCounts>, RunError> {
    let mut decoder = Decoder::new(&source.decode, &DecodeMemory::new(0, 1));
    let mut left = most;
    let is_end = |reject: &Reject| {
        let until = reject.raw_offset.saturating_add(reject.raw_bytes);
        chosen.is_cut && (reject.reason == Reason::Codec || until >= chosen.bytes.len() as u64)
    };
    let mut pieces = Once(Some(chosen.bytes.clone()));
    let done = decoder.read(arrival_ms, &mut pieces, &mut |decoded| {
        match decoded {
            raw::Decoded::Events(batch) => {
                let events = (batch.num_rows() as u64).min(left);
                left -= events;
                if !take(Record::Events(events)) {
                    return Err(Box::new(Enough));
                }
            }
            raw::Decoded::Rejects(rejects) => {
                for reject in rejects
                    .iter()
                    .filter(|reject| !(is_end(reject) && reject.reason.unread()))
                {
                    if left == 0 || !take(Record::Reject(reject)) {
                        return Err(Box::new(Enough));
                    }
                    left -= 1;
                }
            }
        }
        match left {
            0 => Err(Box::new(Enough)),
            _ => Ok(()),
        }
    });
    match done {
        Ok(counts) => Ok(Some(counts)),
        Err(error) if error.is::<Enough>() => Ok(None),
        Err(error) => Err(RunError::Defect(error.to_string())),
    }
}

/// What became of the sample under the configuration.
#[derive(Default)]
pub struct Decoded {
    records: u64,
    rejects: BTreeMap<Reason, (u64, String)>,
    /// The stored bytes of whole objects, and how many of them no event and no reject has.
    bytes: u64,
    lost: u64,
}

impl Decoded {
    /// The larger of the shares of records that are rejects and of bytes that are lost.
    pub fn share(&self) -> f64 {
        let rejects: u64 = self.rejects.values().map(|(count, _)| count).sum();
        let of_records = rejects as f64 / self.records.max(1) as f64;
        of_records.max(self.lost as f64 / self.bytes.max(1) as f64)
    }

    /// The rejects by reason.
    pub fn rejects(&self) -> Vec<SampledRejects> {
        let rejects = self.rejects.iter();
        rejects
            .map(|(reason, (count, example))| SampledRejects {
                reason: reason.name().to_owned(),
                count: *count,
                example: example.clone(),
            })
            .collect()
    }
}

/// Decodes the sample as a run would.
///
/// # Errors
/// The reader fails.
pub fn decode(job: &Job, read: &[Chosen]) -> Result<Decoded, RunError> {
    let mut decoded = Decoded::default();
    let Some(source) = job.sources.first() else {
        return Ok(decoded);
    };
    let layout = source.layout.as_deref();
    let layout = layout.and_then(|pattern| Layout::new(pattern, source.layout_timezone).ok());
    for chosen in read {
        let arrival = layout
            .as_ref()
            .and_then(|layout| layout.arrival_ms(chosen.object.key()));
        let arrival = arrival.unwrap_or(chosen.object.arrival_ms);
        let counts = each(source, chosen, arrival, OBJECT_RECORDS, |record| {
            match record {
                Record::Events(events) => decoded.records += events,
                Record::Reject(reject) => {
                    decoded.records += 1;
                    let found = decoded.rejects.entry(reject.reason);
                    let (count, _) = found.or_insert_with(|| (0, example(&chosen.object, reject)));
                    *count += 1;
                }
            }
            true
        })?;
        if let Some(counts) = counts.filter(|_| !chosen.is_cut) {
            decoded.bytes += counts.bytes;
            decoded.lost += counts.lost;
        }
    }
    Ok(decoded)
}

/// Where a reject is, and why.
fn example(object: &RawObject, reject: &Reject) -> String {
    let text = format!(
        "{}, record {}: {}: {}",
        object.identity,
        reject.raw_record,
        reject.reason.name(),
        reject.detail
    );
    text.chars().take(EXAMPLE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_spread_over_keys_and_sizes() {
        let object = |at: usize| RawObject {
            identity: format!("{at:05}").into_boxed_str(),
            root: 0,
            key_at: 0,
            size: ((at * 7_919) % 10_007) as u64,
            etag: None,
            arrival_ms: 0,
        };
        let listed: Vec<RawObject> = (0..5_000).map(object).collect();
        let chosen = choose(&listed);
        assert!(chosen.len() <= OBJECTS, "{}", chosen.len());
        assert_eq!(chosen[0].key(), "00000");
        assert_eq!(chosen[chosen.len() - 1].key(), "04999");
        let largest = listed.iter().max_by_key(|object| object.size).unwrap();
        assert!(chosen.contains(&largest));
        // Neighbours are read together, and each tenth of the keys is in the sample.
        let at: Vec<usize> = chosen
            .iter()
            .map(|object| object.key().parse().unwrap())
            .collect();
        assert!(at.windows(2).filter(|pair| pair[1] == pair[0] + 1).count() >= 30);
        for tenth in 0..10 {
            assert!(at.iter().any(|at| at / 500 == tenth), "{tenth}");
        }
        assert_eq!(choose(&listed[..5]).len(), 5);
    }
}
