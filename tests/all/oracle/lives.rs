//! Lives of a lake: everything that can happen to it, in a random order.

use chrono::NaiveDate;
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use rawmart::ledger::Dates;
use rawmart::plan::{CommitLimits, Rebuild, Refusal};
use rawmart::run::{MartOutcome, MartSummary, Options, RunError, RunOutcome, RunSummary};
use rawmart::store::StoreSettings;

use super::case::{Case, RARE};
use super::invent::{KEYS, MODES, encode, rule};
use super::verdicts::{Object, Record, Rule};
use super::{absorb, invoke, same_rows};
use crate::crash::{Death, Turnstile};
use crate::project::Project;

/// The life of one lake.
struct Life {
    seed: u64,
    random: ChaCha8Rng,
    case: Case,
    project: Project,
    runs: usize,
    /// The rules that the lake begins with.
    earlier: Vec<Rule>,
    /// Whether the rules are the rules of the case by now.
    changed_rules: bool,
    /// The indexes of objects that have not come yet.
    absent: Vec<usize>,
    /// The indexes of objects that came with wrong records.
    wrong: Vec<usize>,
    /// The indexes of objects that came with their own records.
    right: Vec<usize>,
}

impl Life {
    /// A run to its end. Before it, there may be a run that dies at some operation.
    fn act(&mut self, options: &Options) -> Result<RunSummary, RunError> {
        let failed = |mart: &MartSummary| matches!(mart.outcome, MartOutcome::Failed { .. });
        if self.random.random_bool(0.3)
            && let Ok(summary) = self.dies(options)
            // A failing operation may fail one mart alone.
            && !summary.marts.iter().any(failed)
        {
            return Ok(summary);
        }
        self.lives(options)
    }

    fn lives(&mut self, options: &Options) -> Result<RunSummary, RunError> {
        self.run(options, StoreSettings::default())
    }

    fn dies(&mut self, options: &Options) -> Result<RunSummary, RunError> {
        let death = Death {
            at: self.random.random_range(0..200),
            after: self.random.random(),
            once: self.random.random_bool(0.2),
        };
        self.run(options, Turnstile::new(Some(death), None).settings())
    }

    fn run(&mut self, options: &Options, store: StoreSettings) -> Result<RunSummary, RunError> {
        self.runs += 1;
        let threads = self.random.random_range(1..=3);
        // Most runs make many commits.
        let limits = self.random.random_bool(0.6).then(|| CommitLimits {
            objects: self.random.random_range(1..=4),
            bytes: 1 << self.random.random_range(8..=14),
        });
        let options = Options {
            limits,
            ..options.clone()
        };
        invoke(&self.project, threads, self.runs, &options, store)
    }

    fn rebuilds(&mut self, rebuild: Rebuild) -> Result<RunSummary, RunError> {
        self.act(&Options {
            rebuild: Some(rebuild),
            ..Options::default()
        })
    }

    /// Writes the object with this index.
    fn put(&mut self, index: usize, records: &[Record]) {
        let bytes = encode(&mut self.random, records);
        let key = &self.case.objects[index].key;
        self.project.write(&format!("raw/{key}"), bytes);
    }

    /// Some published dates.
    fn dates(&mut self) -> Dates {
        let lake = self.project.lake();
        let mut published: Vec<NaiveDate> = lake
            .data_files()
            .filter_map(|(key, _)| key.strip_prefix("app/dt=")?.get(..10)?.parse().ok())
            .collect();
        published.dedup();
        let any = || NaiveDate::from_ymd_opt(2019, 4, 1).unwrap();
        let mut pick = || {
            let date = published.choose(&mut self.random).copied();
            date.unwrap_or_else(any)
        };
        let (a, b) = (pick(), pick());
        Dates {
            from: a.min(b),
            to: a.max(b),
        }
    }

    /// Rebuilds dates after a change of rules, until no run asks for a rebuild any more.
    fn rebuilds_in_parts(&mut self) {
        for round in 0.. {
            match self.act(&Options::default()) {
                Ok(_) => return,
                Err(RunError::Refused {
                    refusal: Refusal::Settings { .. },
                    ..
                }) => {}
                Err(other) => panic!("seed {}: {other}", self.seed),
            }
            let rebuild = Rebuild {
                dates: (round < 6).then(|| self.dates()),
                ..Rebuild::default()
            };
            match self.rebuilds(rebuild) {
                // Every file has a column of hashes that no rule names any more.
                Ok(_)
                | Err(RunError::Refused {
                    refusal: Refusal::OnlyWhole { .. },
                    ..
                }) => {}
                Err(other) => panic!("seed {}: {other}", self.seed),
            }
        }
    }

    /// Somebody changes the rules, begins a rebuild, and takes the change back.
    fn hesitates(&mut self) {
        let now = self.case.toml_with(&self.earlier);
        let change = self.case.toml();
        self.project.write("rawmart.toml", change);
        for _ in 0..self.random.random_range(1..=2) {
            let options = Options {
                rebuild: Some(Rebuild {
                    raw: self.random.random_bool(0.3),
                    ..Rebuild::default()
                }),
                ..Options::default()
            };
            let _ = self.dies(&options);
        }
        self.project.write("rawmart.toml", now);
        self.rebuilds_in_parts();
    }

    /// One date is read again from raw. No file of another date changes.
    fn reads_a_date_again(&mut self) {
        let Dates { from: date, .. } = self.dates();
        let before = self.project.lake();
        let dates = Some(Dates {
            from: date,
            to: date,
        });
        let rebuild = Rebuild {
            dates,
            raw: true,
            ..Rebuild::default()
        };
        self.rebuilds(rebuild).unwrap();
        let after = self.project.lake();
        let of_date = format!("/dt={date}/");
        for (key, bytes) in after.data_files() {
            let of_source = ["app/", "app_duplicates/", "app_rejects/"];
            if of_source.iter().any(|table| key.starts_with(table)) && !key.contains(&of_date) {
                let same = before.0.get(key).map(Vec::as_slice) == Some(bytes);
                assert!(same, "seed {}: {date} wrote {key}", self.seed);
            }
        }
        assert!(before.content() == after.content(), "seed {}", self.seed);
    }

    /// Some files are lost, and a repair brings them back from raw.
    fn loses_and_repairs(&mut self) {
        let (seed, project) = (self.seed, &self.project);
        let lake = project.lake();
        let keys: Vec<&str> = lake.data_files().map(|(key, _)| key).collect();
        for key in keys.choose_multiple(&mut self.random, 3) {
            let path = project.path("lake").join(key);
            std::fs::remove_file(&path).unwrap();
            if self.random.random_bool(0.5) {
                std::fs::write(&path, "no Parquet").unwrap();
            }
        }
        let ran = project.rawmart(&["verify", "--repair"]);
        assert_eq!(ran.code, Some(0), "seed {seed}: {ran:?}");
        assert!(
            project.lake().content() == lake.content(),
            "seed {seed}: other rows"
        );
    }

    /// Some objects come, a few of them with wrong records.
    fn brings(&mut self) {
        for _ in 0..self.random.random_range(1..=self.absent.len().min(4)) {
            let index = self.absent.pop().unwrap();
            let is_wrong = self.random.random_bool(0.3);
            let records = match is_wrong {
                true => mistaken(&mut self.random, &self.case, &self.case.objects[index]),
                false => self.case.objects[index].records.clone(),
            };
            match is_wrong {
                true => self.wrong.push(index),
                false => self.right.push(index),
            }
            self.put(index, &records);
        }
        self.act(&Options::default()).unwrap();
    }

    /// An object with wrong records is replaced.
    fn corrects(&mut self) {
        let index = self
            .wrong
            .swap_remove(self.random.random_range(0..self.wrong.len()));
        let records = self.case.objects[index].records.clone();
        self.put(index, &records);
        self.right.push(index);
        match self.act(&Options::default()) {
            Err(RunError::Refused {
                refusal: Refusal::Changed { count: 1, .. },
                ..
            }) => {}
            // The records were not wrong.
            Ok(_) => return,
            other => panic!("seed {}: {other:?}", self.seed),
        }
        let replace = Options {
            replace_changed: true,
            ..Options::default()
        };
        self.act(&replace).unwrap();
    }

    /// The rules become the rules of the case, or somebody takes the change back.
    fn changes_rules(&mut self) {
        if self.random.random_bool(0.4) {
            self.hesitates();
            if self.absent.is_empty() && self.wrong.is_empty() {
                self.project.write("sql/rare.sql", RARE[0]);
                let summary = self.act(&Options::default()).unwrap();
                let lake = self.project.lake();
                self.case.check_under(&self.earlier, &lake, &summary);
            }
            return;
        }
        self.changed_rules = true;
        self.project.write("rawmart.toml", self.case.toml());
        self.rebuilds_in_parts();
    }

    /// A run finds nothing new, and writes nothing.
    fn runs_again(&mut self) {
        let seed = self.seed;
        let before = self.project.lake();
        let summary = self.lives(&Options::default()).unwrap();
        assert_eq!(summary.outcome, RunOutcome::NothingNew, "seed {seed}");
        let after = self.project.lake();
        assert!(after.0 == before.0, "seed {seed}: run again wrote");
    }

    /// A raw object is deleted and its events are given up, or it is dropped for good and stays where it is.
    fn gives_up(&mut self) {
        let index = self
            .right
            .swap_remove(self.random.random_range(0..self.right.len()));
        let drops = self.random.random_bool(0.5);
        let object = &mut self.case.objects[index];
        object.records.clear();
        let mut rebuild = Rebuild::default();
        if drops {
            rebuild.drop.insert(object.key.clone());
        } else {
            rebuild.forget_missing = true;
            let raw = self.project.path(&format!("raw/{}", object.key));
            std::fs::remove_file(raw).unwrap();
        }
        self.rebuilds(rebuild).unwrap();
    }

    /// Asserts that the lake is what one run over all objects makes.
    fn ends(mut self) {
        let seed = self.seed;
        self.project.write("sql/rare.sql", RARE[0]);
        let summary = self.act(&Options::default()).unwrap();
        let lake = self.project.lake();
        self.case.check(&lake, &summary);
        let ran = self.project.rawmart(&["verify"]);
        assert_eq!(ran.code, Some(0), "seed {seed}: {ran:?}");

        let once = self.case.project(&self.case.rules);
        for object in self.case.objects.iter().filter(|o| !o.records.is_empty()) {
            let bytes = encode(&mut self.random, &object.records);
            once.write(&format!("raw/{}", object.key), bytes);
        }
        absorb(&once, 2, 0);
        same_rows(&lake, &once.lake(), seed);
    }
}

/// A life of a lake. Objects come in any order, some of them wrong at first; some are given up,
/// rules change, dates are rebuilt, files are lost, and many runs die on the way. In the end the lake is
/// what one run over all objects makes.
pub(super) fn live(seed: u64, count: usize) {
    let (case, mut random) = Case::new(seed, count, &KEYS);
    let earlier: Vec<Rule> = (0..random.random_range(0..=3))
        .map(|i| {
            let mode = random.random_range(0..MODES.len());
            rule(&mut random, i, mode, &KEYS, case.middle)
        })
        .collect();
    let project = case.project(&earlier);
    let mut absent: Vec<usize> = (0..case.objects.len()).collect();
    absent.shuffle(&mut random);
    let mut life = Life {
        seed,
        random,
        case,
        project,
        runs: 0,
        earlier,
        changed_rules: false,
        absent,
        wrong: Vec::new(),
        right: Vec::new(),
    };
    // This run finds nothing but the lock.
    life.act(&Options::default()).unwrap();
    while !(life.absent.is_empty() && life.wrong.is_empty() && life.changed_rules) {
        match life.random.random_range(0..11) {
            0..=2 if !life.absent.is_empty() => life.brings(),
            3 if !life.wrong.is_empty() => life.corrects(),
            4 => {
                let rebuild = Rebuild {
                    dates: life.random.random_bool(0.7).then(|| life.dates()),
                    raw: life.random.random_bool(0.4),
                    ..Rebuild::default()
                };
                life.rebuilds(rebuild).unwrap();
            }
            5 if !life.changed_rules => life.changes_rules(),
            6 => life.runs_again(),
            7 => life.loses_and_repairs(),
            8 if life.right.len() > 2 && life.random.random_bool(0.3) => life.gives_up(),
            9 => {
                // Somebody tries another SQL.
                let sql = RARE.choose(&mut life.random).unwrap();
                life.project.write("sql/rare.sql", sql);
                life.act(&Options::default()).unwrap();
            }
            10 if !life.right.is_empty() => life.reads_a_date_again(),
            _ => {}
        }
    }
    life.ends();
}

/// The wrong records of an object: some of its own are missing, and some belong to another object.
fn mistaken(random: &mut ChaCha8Rng, case: &Case, object: &Object) -> Vec<Record> {
    let mut records = object.records.clone();
    records.retain(|_| random.random_bool(0.7));
    let other = case.objects.choose(random).unwrap();
    let strange = other.records.iter().filter(|_| random.random_bool(0.3));
    records.extend(strange.cloned());
    records.shuffle(random);
    records
}
