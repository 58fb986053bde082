//! Any file of a lake is damaged in any way, at random. Either `verify` reports the damage or the content is
//! unchanged, no run writes a damaged value into another file, and a repair brings the content back.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::project::{Lake, Row};
use crate::verify::{Case, key, object};

/// The ways to damage a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    /// One bit changes in place, and neither size nor time nor ETag shows it.
    Rot,
    Flip,
    CutOff,
    Empty,
    Garbage,
    /// The content of another file is put there.
    Swap,
    Delete,
    Folder,
    Link,
}

impl Harm {
    const ALL: [Self; 9] = [
        Self::Rot,
        Self::Flip,
        Self::CutOff,
        Self::Empty,
        Self::Garbage,
        Self::Swap,
        Self::Delete,
        Self::Folder,
        Self::Link,
    ];

    fn is_of_disks(self) -> bool {
        matches!(self, Self::Folder | Self::Link)
    }
}

/// The life of a lake that is damaged, and its random numbers.
struct Life {
    case: Case,
    random: ChaCha8Rng,
    /// The damage so far, for messages.
    story: String,
    /// The number of raw objects that were added so far, and of files that were moved away.
    added: i64,
    moved: u32,
}

impl Life {
    fn fail(&self, what: &str) -> ! {
        panic!("{what}\n{}", self.story)
    }

    fn harm(&mut self, harm: Harm, key: &str) {
        let lake = self.case.lake().0;
        let mut bytes = lake[key].clone();
        let at = self.random.random_range(0..bytes.len().max(1));
        match harm {
            Harm::Rot | Harm::Flip if bytes.is_empty() => {}
            Harm::Rot => self.case.rot(key, |bytes| bytes[at] ^= 4),
            Harm::Flip => {
                bytes[at] ^= 4;
                self.case.put(key, bytes);
            }
            Harm::CutOff => self.case.put(key, &bytes[..at]),
            Harm::Empty => self.case.put(key, ""),
            Harm::Garbage => self.case.put(key, vec![b'x'; bytes.len()]),
            Harm::Swap => {
                let keys: Vec<&String> = lake.keys().collect();
                let other = *keys.choose(&mut self.random).unwrap();
                self.case.put(key, lake[other].clone());
            }
            Harm::Delete => self.case.remove(key),
            Harm::Folder | Harm::Link => {
                let path = self.path(key);
                self.moved += 1;
                let away = self.case.project.path(&format!("away-{}", self.moved));
                std::fs::rename(&path, &away).unwrap();
                match harm {
                    Harm::Folder => std::fs::create_dir(&path).unwrap(),
                    _ => std::os::unix::fs::symlink(&away, &path).unwrap(),
                }
            }
        }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.case.project.path("lake").join(key)
    }

    /// Puts the content of a damaged commit back, because it is stored nowhere else.
    fn heal(&self, key: &str, bytes: &[u8]) {
        if self.case.server.is_none() {
            let path = self.path(key);
            if std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
                std::fs::remove_dir_all(&path).unwrap();
            }
        }
        self.case.put(key, bytes);
    }

    fn verify(&self, how: &[&str]) -> i32 {
        let args: Vec<&str> = ["verify", "--deep"].iter().chain(how).copied().collect();
        let ran = self.case.rawmart(&args);
        let code = ran.code.unwrap_or(-1);
        if ran.err.contains("panicked") || ran.err.contains("defect of rawmart") {
            self.fail(&format!("{ran:?}"));
        }
        code
    }

    /// The content that one run over all raw objects gives.
    fn expected(&self) -> BTreeMap<String, Vec<Row>> {
        let ran = self.case.rawmart(&["--lake", "fresh", "run"]);
        ran.expect(0, &[]);
        let fresh = self.case.project.path("fresh");
        let content = Lake::on_disk(&fresh).content();
        std::fs::remove_dir_all(fresh).unwrap();
        content
    }

    fn trial(&mut self) {
        let whole = self.case.lake();
        let keys: Vec<String> = whole.0.keys().cloned().collect();
        let key_of = keys.choose(&mut self.random).unwrap().clone();
        let harm = loop {
            let harm = *Harm::ALL.choose(&mut self.random).unwrap();
            if self.case.server.is_none() || !harm.is_of_disks() {
                break harm;
            }
        };
        self.story += &format!("{harm:?} of {key_of}\n");
        let bytes = whole.0[key_of.as_str()].clone();
        self.harm(harm, &key_of);
        let known = self.verify(&[]);
        if known == 0 {
            // Readers see the same rows as before, whatever was damaged.
            let now = self.case.lake();
            if whole.data_files().ne(now.data_files()) {
                self.fail("not found");
            }
        } else if known != 7 {
            self.fail(&format!("exit {known}"));
        }
        let expected = match self.random.random_bool(0.5) {
            true => {
                self.added += 1;
                let day = self.random.random_range(1..=3);
                // A late event near the stored ones.
                let hour = 10 + self.added % 4;
                let raw = object(day, hour).replace("\"id\": \"", "\"id\": \"n");
                let name = format!("late-{}.json", self.added);
                self.case
                    .put_raw(&key(day, hour).replace("a.json", &name), raw);
                // The events are committed before a damaged mart is found.
                let healthy =
                    usize::from(key_of.starts_with("by_day/") || key_of.starts_with("total/"));
                let allowed = self.case.lake().commits().len() + healthy;
                let rot_of_s3 = harm == Harm::Rot && self.case.server.is_some();
                let ran = self.case.rawmart(&["run"]);
                match ran.code {
                    Some(0) => {}
                    Some(7) if self.case.lake().commits().len() <= allowed => {}
                    _ if rot_of_s3 => {}
                    _ => self.fail(&format!("{ran:?}")),
                }
                Some(self.expected())
            }
            false => None,
        };
        let mut repaired = self.verify(&["--repair"]);
        if repaired == 7 && key_of.starts_with("_rawmart/log/") {
            // The message says that a backup is needed.
            self.heal(&key_of, &bytes);
            repaired = self.verify(&["--repair"]);
        }
        if repaired != 0 {
            self.fail(&format!("repair: exit {repaired}"));
        }
        let ran = self.case.rawmart(&["run"]);
        if ran.code != Some(0) {
            self.fail(&format!("{ran:?}"));
        }
        let content = expected.unwrap_or_else(|| whole.content());
        let now = self.case.lake().content();
        for (table, rows) in &content {
            if now.get(table) != Some(rows) {
                self.fail(&format!("another content of {table}"));
            }
        }
        if self.verify(&[]) != 0 {
            self.fail("not whole in the end");
        }
    }
}

fn lives(seed: u64, case: Case, trials: usize) {
    let mut life = Life {
        case,
        random: ChaCha8Rng::seed_from_u64(seed),
        story: String::new(),
        added: 0,
        moved: 0,
    };
    for _ in 0..trials {
        life.trial();
    }
}

#[test]
fn no_damage_goes_unnoticed_on_disk() {
    let [case, _] = Case::both();
    lives(1, case, 25);
}

#[test]
fn no_damage_goes_unnoticed_on_s3() {
    let [_, case] = Case::both();
    lives(2, case, 15);
}

#[test]
#[ignore = "minutes: hundreds of damages, a step of .ci/run"]
fn no_damage_goes_unnoticed_in_many_ways() {
    for seed in 10..12 {
        for case in Case::both() {
            lives(seed, case, 60);
        }
    }
}
