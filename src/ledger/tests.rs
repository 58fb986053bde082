//! Logs as other runs leave them, folded from their beginning and from checkpoints.

use std::collections::BTreeMap;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::event::Reason;
use crate::layout;
use crate::store::{Store, StoreSettings};
use crate::time::TimeUnit;

const SAMPLE: &[u8] = include_bytes!("samples/2.commit.json");

struct Lake {
    store: Store,
    folder: tempfile::TempDir,
}

impl Lake {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = url::Url::from_directory_path(folder.path()).unwrap();
        let store = Store::open(url.as_str(), &StoreSettings::default()).await;
        Self {
            store: store.unwrap(),
            folder,
        }
    }

    async fn with(log: &[(Commit, Option<Published>)]) -> Self {
        let lake = Self::new().await;
        lake.write(log).await;
        lake
    }

    async fn write(&self, log: &[(Commit, Option<Published>)]) {
        let lock = self.store.lock(layout::LOCK).await.unwrap().unwrap();
        for (made, marker) in log {
            commit(&self.store, &lock, made).await.unwrap();
            if let Some(marker) = marker {
                mark_published(&self.store, &lock, marker).await.unwrap();
            }
        }
    }

    async fn put(&self, n: u64, bytes: Vec<u8>) {
        let key = layout::checkpoint_key(n);
        self.store.create(&key, bytes.into()).await.unwrap();
    }

    fn remove(&self, key: &str) {
        std::fs::remove_file(self.folder.path().join(key)).unwrap();
    }

    fn checkpoints(&self) -> Vec<String> {
        let folder = self.folder.path().join(layout::CHECKPOINT);
        let Ok(files) = std::fs::read_dir(folder) else {
            return Vec::new();
        };
        let mut names: Vec<String> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// A log of any content that commits can have; the last commit may be unpublished.
struct RandomLog {
    random: ChaCha8Rng,
    settings: Settings,
}

impl RandomLog {
    fn new(seed: u64) -> Self {
        let sample: Commit = serde_json::from_slice(SAMPLE).unwrap();
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            settings: sample.sources["events"].settings.clone().unwrap(),
        }
    }

    fn text(&mut self) -> String {
        let words = [
            "",
            "a",
            "서울",
            "a/b=c\"",
            "__HIVE_DEFAULT_PARTITION__",
            "é",
        ];
        let n = self.random.random_range(0..40);
        format!("{}{n}", words.choose(&mut self.random).unwrap())
    }

    fn number(&mut self) -> u64 {
        let bits = self.random.random_range(0..63);
        self.random.random_range(0..=1 << bits)
    }

    fn times(&mut self) -> Option<(i64, i64)> {
        let at = self.number().cast_signed();
        self.random.random_bool(0.7).then_some((-at, at))
    }

    fn reasons(&mut self) -> BTreeMap<Reason, u64> {
        let reasons = [Reason::NotJson, Reason::Type, Reason::OutOfRange];
        let n = self.random.random_range(0..=2);
        (0..n)
            .map(|_| (*reasons.choose(&mut self.random).unwrap(), self.number()))
            .collect()
    }

    fn object(&mut self) -> ObjectEntry {
        ObjectEntry {
            key: self.text(),
            etag: self.random.random_bool(0.8).then(|| self.text()),
            size: self.number(),
            sha256: Sha256(self.random.random()),
            arrival_ms: self.number().cast_signed() - (1 << 61),
            records: self.number(),
            events: self.number(),
            rejects: self.reasons(),
            times: self.times(),
        }
    }

    fn balance(&mut self) -> Balance {
        // Deltas of both signs that can be added many times.
        let mut delta = || i64::from(self.random.random::<i32>());
        Balance {
            records: delta(),
            events: delta(),
            kept: delta(),
            duplicates: BTreeMap::from([("redelivery".to_owned(), delta())]),
            rejects: BTreeMap::from([(Reason::Type, delta())]),
        }
    }

    fn delta(&mut self) -> SourceDelta {
        let settings = self.random.random_bool(0.3).then(|| {
            let mut settings = self.settings.clone();
            settings.layout = self.random.random_bool(0.5).then(|| self.text());
            settings
        });
        let anew = self.random.random_bool(0.1);
        let objects = (0..self.random.random_range(0..5)).map(|_| self.object());
        SourceDelta {
            rebuilt: None,
            settings,
            anew,
            objects: objects.collect(),
            forgotten: (0..self.random.random_range(0..3))
                .map(|_| self.text())
                .collect(),
            dropped: (0..self.random.random_range(0..2))
                .map(|_| self.object())
                .collect(),
            balance: self.balance(),
        }
    }

    fn file(&mut self) -> FileEntry {
        let values = [None, Some(String::new()), Some(self.text())];
        let value = values.choose(&mut self.random).unwrap().clone();
        let partitioned = self.random.random_bool(0.8);
        FileEntry {
            table: ["events", "events_duplicates", "a_mart"]
                .choose(&mut self.random)
                .unwrap()
                .to_string(),
            partition: match partitioned {
                true => vec![("dt".to_owned(), value)],
                false => Vec::new(),
            },
            name: layout::file_name(self.random.random_range(0..3)),
            rows: self.number(),
            bytes: self.number(),
            times: self.times(),
            staged: self.text(),
            sha256: self
                .random
                .random_bool(0.8)
                .then(|| Sha256(self.random.random())),
            version: match self.random.random_bool(0.3) {
                true => Some(self.random.random_range(1..40)),
                false => None,
            },
            written: match self.random.random_bool(0.3) {
                true => Some(self.number()),
                false => None,
            },
        }
    }

    fn log(&mut self, commits: u64) -> Vec<(Commit, Option<Published>)> {
        let mut log = Vec::new();
        for number in 1..=commits {
            let mut sources = BTreeMap::new();
            for name in ["events", "views"] {
                if self.random.random_bool(0.6) {
                    sources.insert(name.to_owned(), self.delta());
                }
            }
            let mut files: Vec<FileEntry> = (0..self.random.random_range(0..4))
                .map(|_| self.file())
                .collect();
            files.sort_by_key(FileEntry::key);
            files.dedup_by_key(|file| file.key());
            let known: Vec<String> = log
                .iter()
                .flat_map(|(commit, _): &(Commit, _)| &commit.files)
                .map(FileEntry::key)
                .filter(|key| files.iter().all(|file| file.key() != *key))
                .collect();
            let mut some = || {
                let key = known.choose(&mut self.random).cloned();
                key.filter(|_| self.random.random_bool(0.3))
            };
            let (removed, retired) = (some(), some());
            let removed = removed.map(|key| RemovedFile {
                key,
                etag: Some(self.text()),
            });
            let removed: Vec<RemovedFile> = removed.into_iter().collect();
            let retired = retired.into_iter().collect();
            let marts = (0..self.random.random_range(0..2)).map(|_| MartEntry {
                name: format!("mart{}", self.random.random_range(0..3)),
                sql: self.text(),
                inputs: BTreeMap::from([("events".to_owned(), self.text())]),
                reach: BTreeMap::from([("events".to_owned(), self.text())]),
                rows: self.number(),
                compared: self.random.random(),
                law: self.random.random_range(0..3),
                unit: TimeUnit::Us,
            });
            let marts = marts.collect();
            let columns = vec![(self.text(), "string".to_owned())];
            let commit = Commit {
                format: FORMAT,
                number,
                run: format!("run {}", self.random.random_range(0..1_000_000)),
                at: "2026-11-22T23:51:10Z".to_owned(),
                sources,
                columns: BTreeMap::from([("events".to_owned(), columns)]),
                marts,
                files,
                removed,
                retired,
                dropped: match self.random.random_bool(0.2) {
                    true => vec!["mart0".to_owned()],
                    false => Vec::new(),
                },
                found: Vec::new(),
            };
            let marker = Published {
                format: FORMAT,
                number,
                files: commit
                    .files
                    .iter()
                    .map(|file| PublishedFile {
                        key: file.key(),
                        etag: self.text(),
                    })
                    .collect(),
            };
            let published = number < commits || self.random.random_bool(0.7);
            log.push((commit, published.then_some(marker)));
        }
        log
    }
}

fn fold(mut state: State, log: &[(Commit, Option<Published>)]) -> State {
    for (commit, marker) in log {
        state.apply(commit);
        match marker {
            Some(marker) => state.mark(marker),
            None => state.unpublished = Some(commit.clone()),
        }
    }
    state
}

/// Whatever the log holds and wherever the checkpoint is.
#[tokio::test]
async fn a_checkpoint_changes_nothing() {
    for seed in 0..60 {
        let mut made = RandomLog::new(seed);
        let length = made.random.random_range(1..60);
        let log = made.log(length);
        let whole = fold(State::default(), &log);
        let lake = Lake::with(&log).await;
        assert_eq!(State::open(&lake.store).await.unwrap(), whole, "{seed}");
        let published = log.iter().filter(|(_, marker)| marker.is_some()).count();
        if published == 0 {
            continue;
        }
        let at = made.random.random_range(1..=published);
        let (before, after) = log.split_at(at);
        let state = fold(State::default(), before);
        let bytes = checkpoint::encode(&state).unwrap();
        assert_eq!(checkpoint::encode(&state).unwrap(), bytes, "{seed}");
        let decoded = checkpoint::decode(bytes.clone().into()).unwrap();
        assert_eq!(decoded, state, "{seed}");
        // The bytes must be the same too: a run that began from a checkpoint writes the same next checkpoint.
        let next = fold(decoded, after);
        assert_eq!(next, whole, "{seed}");
        assert!(
            checkpoint::encode(&next) == checkpoint::encode(&whole),
            "{seed}"
        );
        lake.put(at as u64, bytes).await;
        assert_eq!(State::open(&lake.store).await.unwrap(), whole, "{seed}");
    }
}

/// Bytes that changed on a disk never become a state.
#[tokio::test]
async fn a_damaged_checkpoint_is_left_aside() {
    let mut made = RandomLog::new(3);
    let log = made.log(20);
    let whole = fold(State::default(), &log);
    let lake = Lake::with(&log).await;
    let earlier = checkpoint::encode(&fold(State::default(), &log[..5])).unwrap();
    lake.put(5, earlier).await;
    let good = checkpoint::encode(&fold(State::default(), &log[..12])).unwrap();
    let mut damages = vec![
        Vec::new(),
        good[..good.len() / 2].to_vec(),
        b"PAR1".to_vec(),
    ];
    for _ in 0..300 {
        let mut bad = good.clone();
        let at = made.random.random_range(0..bad.len());
        bad[at] ^= 1 << made.random.random_range(0..8);
        damages.push(bad);
    }
    for (n, bad) in damages.into_iter().enumerate() {
        let found = checkpoint::decode(bad.clone().into());
        let right = fold(State::default(), &log[..12]);
        assert!(found.is_err() || found == Ok(right), "damage {n} was taken");
        if n % 20 == 0 {
            lake.put(12, bad).await;
            assert_eq!(State::open(&lake.store).await.unwrap(), whole);
            lake.remove(&layout::checkpoint_key(12));
        }
    }
}

/// The log was removed and begun anew, and its checkpoints were forgotten.
#[tokio::test]
async fn a_checkpoint_of_another_log_is_left_aside() {
    let other = RandomLog::new(1).log(30);
    let log = RandomLog::new(2).log(20);
    let lake = Lake::with(&log).await;
    for n in [10, 30] {
        let state = fold(State::default(), &other[..n - 1]);
        let (commit, _) = &other[n - 1];
        let marker = Published {
            format: FORMAT,
            number: commit.number,
            files: Vec::new(),
        };
        let state = fold(state, &[(commit.clone(), Some(marker))]);
        lake.put(n as u64, checkpoint::encode(&state).unwrap())
            .await;
    }
    let state = State::open(&lake.store).await.unwrap();
    assert_eq!(state, fold(State::default(), &log));
}

#[tokio::test]
async fn checkpoints_are_written_in_time_and_swept() {
    let log = RandomLog::new(4).log(300);
    let lake = Lake::new().await;
    let mut state = State::default();
    let mut seen: Vec<Vec<String>> = Vec::new();
    for (commit, marker) in &log {
        lake.write(&[(commit.clone(), marker.clone())]).await;
        state = fold(state, &[(commit.clone(), marker.clone())]);
        checkpoint(&lake.store, &state).await.unwrap();
        let there = lake.checkpoints();
        if seen.last() != Some(&there) {
            seen.push(there);
        }
    }
    let name = |n: u64| format!("{n:020}");
    assert_eq!(
        seen,
        [
            vec![],
            vec![name(64)],
            vec![name(64), name(128)],
            vec![name(128), name(192)],
            vec![name(192), name(256)],
        ]
    );
    assert_eq!(State::open(&lake.store).await.unwrap(), state);
    // Commits before the checkpoint are not read.
    lake.remove(&layout::commit_key(17));
    assert_eq!(State::open(&lake.store).await.unwrap(), state);
}

#[test]
fn checkpoints_of_large_lakes_are_rarer() {
    for (entries, commits) in [
        (0, 64),
        (100_000, 64),
        (1_000_000, 122),
        (10_000_000, 1_220),
    ] {
        assert_eq!(checkpoint::interval(entries), commits);
    }
}

/// Objects are lost near the end, and between commits anywhere.
#[tokio::test]
async fn a_gap_is_an_error() {
    let mut log = RandomLog::new(5).log(40);
    log.truncate(39);
    for at in [1, 7, 20, 37, 38] {
        for marker in [false, true] {
            let lake = Lake::with(&log).await;
            let missing = match marker {
                true => layout::published_key(at),
                false => layout::commit_key(at),
            };
            lake.remove(&missing);
            let error = State::open(&lake.store).await.unwrap_err();
            match &error {
                // A repair makes a marker anew; a commit is in no other place.
                LedgerError::Unmarked { url } if marker => assert!(url.ends_with(&missing)),
                LedgerError::Gap {
                    found,
                    missing: named,
                    ..
                } if !marker => assert_eq!((named, found), (&missing, &at)),
                _ => panic!("{error}"),
            }
        }
    }
    // The marker of the last commit may be missing. The commit itself may not.
    let lake = Lake::with(&log).await;
    lake.remove(&layout::published_key(39));
    let state = State::open(&lake.store).await.unwrap();
    assert_eq!(state.unpublished.map(|commit| commit.number), Some(39));
    let lake = Lake::with(&log).await;
    lake.remove(&layout::commit_key(39));
    let error = State::open(&lake.store).await.unwrap_err();
    assert!(
        error.to_string().contains(&layout::commit_key(39)),
        "{error}"
    );
}

#[tokio::test]
async fn an_entry_under_a_wrong_name_is_damage() {
    let log = RandomLog::new(6).log(3);
    let lake = Lake::with(&log[..1]).await;
    let bytes = serde_json::to_vec(&log[2].0).unwrap();
    let key = layout::commit_key(2);
    lake.store.create(&key, bytes.into()).await.unwrap();
    let error = State::open(&lake.store).await.unwrap_err().to_string();
    assert!(
        error.contains(&key) && error.contains("commit 3"),
        "{error}"
    );
}

#[tokio::test]
async fn a_format_of_the_future_is_refused() {
    for suffix in ["", ".published"] {
        let lake = Lake::with(&RandomLog::new(7).log(2)[..1]).await;
        let key = format!("{}{suffix}", layout::commit_key(2));
        let bytes = format!("{{\"format\": {}, \"number\": 2}}", FORMAT + 1);
        lake.store.create(&key, bytes.into()).await.unwrap();
        let error = State::open(&lake.store).await.unwrap_err().to_string();
        let words = format!(
            "has format {}, and this rawmart reads formats {OLDEST} to {FORMAT}: use the version \
             that wrote it",
            FORMAT + 1
        );
        assert!(error.contains(&key) && error.contains(&words), "{error}");
    }
}

/// A log as years of hourly runs leave it, ten objects a commit, and what opening it costs.
async fn years(commits: u64) {
    let lake = Lake::new().await;
    let folder = lake.folder.path().join(layout::LOG);
    std::fs::create_dir_all(&folder).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(8);
    for number in 1..=commits {
        let objects = (0..10u8).map(|part| ObjectEntry {
            key: format!(
                "{:04}/{:02}/{:02}/{:02}/app-events-1-{number:020}-{part}-{:032x}.gz",
                2000 + number / 8_640,
                number / 720 % 12 + 1,
                number / 24 % 30 + 1,
                number % 24,
                random.random::<u128>()
            ),
            etag: Some(format!("\"{:032x}\"", random.random::<u128>())),
            size: random.random_range(0..1 << 26),
            sha256: Sha256(random.random()),
            arrival_ms: number.cast_signed() * 3_600_000,
            records: 100_000,
            events: 100_000,
            rejects: BTreeMap::new(),
            times: Some((0, random.random_range(0..1 << 40))),
        });
        let delta = SourceDelta {
            rebuilt: None,
            settings: None,
            anew: false,
            objects: objects.collect(),
            forgotten: Vec::new(),
            dropped: Vec::new(),
            balance: Balance::default(),
        };
        let commit = Commit {
            format: FORMAT,
            number,
            run: number.to_string(),
            at: String::new(),
            sources: BTreeMap::from([("events".to_owned(), delta)]),
            files: Vec::new(),
            columns: BTreeMap::new(),
            marts: Vec::new(),
            removed: Vec::new(),
            retired: Vec::new(),
            dropped: Vec::new(),
            found: Vec::new(),
        };
        let marker = Published {
            format: FORMAT,
            number,
            files: Vec::new(),
        };
        let write = |name: String, json: Vec<u8>| std::fs::write(folder.join(name), json).unwrap();
        write(
            format!("{number:020}"),
            serde_json::to_vec(&commit).unwrap(),
        );
        let marker = serde_json::to_vec(&marker).unwrap();
        write(format!("{number:020}.published"), marker);
    }
    let whole = measured("open, from the beginning", State::open(&lake.store)).await;
    let objects = whole.sources["events"].objects.len() as u64;
    assert_eq!((whole.last, objects), (commits, commits * 10));
    measured("checkpoint", checkpoint(&lake.store, &whole)).await;
    drop(whole);
    let key = layout::checkpoint_key(commits);
    let size = lake.store.head(&key).await.unwrap().unwrap().size;
    // Commits after the checkpoint are read.
    assert!(size < 128 * objects, "{size} bytes for {objects} objects");
    let state = measured("open, from the checkpoint", State::open(&lake.store)).await;
    let found = state.sources["events"].objects.len() as u64;
    assert_eq!((state.last, found), (commits, objects));
}

#[expect(clippy::disallowed_macros, reason = "the numbers are the result")]
async fn measured<T>(what: &str, work: impl Future<Output = Result<T, LedgerError>>) -> T {
    let resident = |field: &str| -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with(field));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kib.unwrap_or(0) / 1024
    };
    // The peak counts from here.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let before = resident("VmRSS");
    let begun = std::time::Instant::now();
    let done = work.await.unwrap();
    println!(
        "{what}: {:.2} s, resident {before} MiB before, {} after, {} at most",
        begun.elapsed().as_secs_f64(),
        resident("VmRSS"),
        resident("VmHWM")
    );
    done
}

#[tokio::test]
async fn a_long_log_opens() {
    years(700).await;
}

/// A million raw objects in 100,000 commits:
/// `cargo test --release --lib a_million -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it writes 200,000 files: a step of .ci/run"]
async fn a_million_objects_open_within_seconds() {
    years(100_000).await;
}
