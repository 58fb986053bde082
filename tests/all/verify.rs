//! `verify` and `verify --repair` on lakes that were damaged in every way we know, on disk and on S3.
//! The tests check the messages, and that a repaired lake has its earlier content.

use std::collections::BTreeMap;
use std::path::Path;

use crate::project::{Lake, Project, Ran, clicks, rawmart};
use crate::s3::{FaultKind, S3Server};

const BY_DAY: &str = "-- partition: dt\nSELECT count(*) AS n, dt FROM app GROUP BY dt";
const TOTAL: &str = "SELECT CAST(sum(n) AS bigint) AS n FROM by_day";

const KEPT: &str = "app/dt=2019-04-02/part-00000.parquet";
const DUPLICATES: &str = "app_duplicates/dt=2019-04-02/part-00000.parquet";
const REJECTS: &str = "app_rejects/dt=2019-04-02/part-00000.parquet";
const MART: &str = "by_day/dt=2019-04-02/part-00000.parquet";
const DEPENDANT: &str = "total/part-00000.parquet";

/// The configuration for this raw prefix and this lake.
fn config(raw: &str, lake: &str) -> String {
    let source = clicks(raw, "at", "", "within = \"2s\"");
    format!("lake = \"{lake}\"\n{source}\n[marts]\npath = \"sql\"\n")
}

/// Two commits of events on three days, with two commits of marts.
pub struct Case {
    pub project: Project,
    /// The server of the buckets of raw and lake. `None` is a lake on disk.
    pub server: Option<S3Server>,
    /// The lake after the first run.
    earlier: Lake,
}

/// A raw object of a day: ten events, one each second from `hour` on, a reject, and half of the events once
/// more.
pub fn object(day: u32, hour: i64) -> String {
    let midnight = 1_554_076_800 + (i64::from(day) - 1) * 86_400;
    let event = |i: i64| {
        let at = midnight + hour * 3_600 + i;
        format!(
            "{{\"id\": \"{day}-{hour}-{i}\", \"who\": \"u{}\", \"at\": {at}}}\n",
            i % 3
        )
    };
    let mut lines: String = (0..10).map(event).collect();
    lines.push_str("no json\n");
    lines.extend((0..5).map(event));
    lines
}

pub fn key(day: u32, hour: i64) -> String {
    format!("2019/04/{day:02}/{hour:02}/a.json")
}

impl Case {
    fn on_disk() -> Self {
        Self::filled(None)
    }

    pub fn both() -> [Self; 2] {
        [
            Self::on_disk(),
            Self::filled(Some(S3Server::start(&["raw", "lake"]))),
        ]
    }

    fn filled(server: Option<S3Server>) -> Self {
        let config = match server {
            None => config("raw", "lake"),
            Some(_) => config("s3://raw", "s3://lake/below"),
        };
        let project = Project::with(config, &[("by_day", BY_DAY), ("total", TOTAL)]);
        project.write("raw/.keep", "");
        let mut case = Self {
            project,
            server,
            earlier: Lake(BTreeMap::new()),
        };
        for (day, hour) in [(1, 3), (1, 12), (2, 5)] {
            case.put_raw(&key(day, hour), object(day, hour));
        }
        case.rawmart(&["run"]).expect(0, &["Published"]);
        case.earlier = case.lake();
        for (day, hour) in [(2, 6), (3, 1)] {
            case.put_raw(&key(day, hour), object(day, hour));
        }
        case.rawmart(&["run"]).expect(0, &["Published"]);
        case.rawmart(&["verify"])
            .expect(0, &["every file is as the log says"]);
        case
    }

    pub fn rawmart(&self, args: &[&str]) -> Ran {
        let env = self.server.as_ref().map(S3Server::env).unwrap_or_default();
        rawmart(&self.project.path(""), args, &env)
    }

    pub fn lake(&self) -> Lake {
        match &self.server {
            None => self.project.lake(),
            Some(server) => Lake::in_bucket(server.objects("lake"), "below/"),
        }
    }

    pub fn put(&self, key: &str, bytes: impl Into<Vec<u8>>) {
        match &self.server {
            None => {
                // Writes another file instead of other bytes into the same file.
                let _ = std::fs::remove_file(self.project.path("lake").join(key));
                self.project.write(&format!("lake/{key}"), bytes.into());
            }
            Some(server) => server.put("lake", &format!("below/{key}"), bytes),
        }
    }

    pub fn remove(&self, key: &str) {
        match &self.server {
            None => std::fs::remove_file(self.project.path("lake").join(key)).unwrap(),
            Some(server) => server.remove("lake", &format!("below/{key}")),
        }
    }

    /// Changes bytes of a file so that neither its size nor its time nor its ETag shows it.
    pub fn rot(&self, key: &str, change: impl FnOnce(&mut [u8])) {
        let mut bytes = self.lake().0[key].clone();
        change(&mut bytes);
        match &self.server {
            None => {
                let path = self.project.path("lake").join(key);
                let time = std::fs::metadata(&path).unwrap().modified().unwrap();
                let mut file = std::fs::File::options().write(true).open(path).unwrap();
                std::io::Write::write_all(&mut file, &bytes).unwrap();
                file.set_modified(time).unwrap();
            }
            Some(server) => server.rot("lake", &format!("below/{key}"), bytes),
        }
    }

    pub fn put_raw(&self, key: &str, text: String) {
        match &self.server {
            None => self.project.write(&format!("raw/{key}"), text),
            Some(server) => server.put("raw", key, text),
        }
    }

    fn remove_raw(&self, key: &str) {
        match &self.server {
            None => std::fs::remove_file(self.project.path("raw").join(key)).unwrap(),
            Some(server) => server.remove("raw", key),
        }
    }

    /// Rewrites a JSON object of the log.
    fn rewrite(&self, key: &str, change: impl Fn(&mut serde_json::Value)) {
        let mut json = serde_json::from_slice(&self.lake().0[key]).unwrap();
        change(&mut json);
        json.as_object_mut().unwrap().remove("seal");
        self.put(key, serde_json::to_vec(&json).unwrap());
    }

    /// Asserts that the lake is whole, has this content, and has nothing left to do.
    fn assert_whole(&self, content: &BTreeMap<String, Vec<crate::project::Row>>) {
        let lake = self.lake();
        assert!(lake.content() == *content, "another content");
        assert!(!lake.0.keys().any(|key| key.contains("/staging/")));
        self.rawmart(&["verify"])
            .expect(0, &["every file is as the log says"]);
        self.rawmart(&["run"]).expect(0, &["Nothing new"]);
    }

    /// Asserts that `verify` reports the damage and that a repair brings the content back.
    fn repaired(self, damage: impl Fn(&Self), said: &[&str], how: &[&str]) -> Self {
        let content = self.lake().content();
        damage(&self);
        self.rawmart(&["verify"]).expect(7, said);
        self.rawmart(&["verify", "--repair"]).expect(0, how);
        self.assert_whole(&content);
        self
    }
}

fn log(n: u64) -> String {
    format!("_rawmart/log/{n:020}")
}

fn marker(n: u64) -> String {
    format!("{}.published", log(n))
}

fn repaired(damage: impl Fn(&Case), said: &[&str], how: &[&str]) {
    for case in Case::both() {
        case.repaired(&damage, said, how);
    }
}

fn half(case: &Case, key: &str) -> Vec<u8> {
    let bytes = &case.lake().0[key];
    bytes[..bytes.len() / 2].to_vec()
}

#[test]
fn files_of_a_source() {
    repaired(
        |case| case.remove(KEPT),
        &[&format!("DAMAGE {KEPT} is missing"), "--repair"],
        &[&format!("repaired {KEPT}: made again")],
    );
    repaired(
        |case| case.put(DUPLICATES, half(case, DUPLICATES)),
        &[DUPLICATES, "bytes"],
        &[&format!("repaired {DUPLICATES}: made again")],
    );
    repaired(
        |case| case.put(KEPT, case.earlier.0[KEPT].clone()),
        &[KEPT],
        &[&format!("repaired {KEPT}: made again")],
    );
    repaired(|case| case.remove(REJECTS), &[REJECTS], &[REJECTS]);
    repaired(
        |case| {
            case.remove(KEPT);
            case.put(DUPLICATES, "gone");
            case.remove(REJECTS);
            case.remove("app/dt=2019-04-01/part-00000.parquet");
        },
        &["4 faults"],
        &["every file is as the log says"],
    );
}

#[test]
fn one_flipped_bit_is_another_file() {
    repaired(
        |case| {
            let mut bytes = case.lake().0[KEPT].clone();
            bytes[100] ^= 1;
            case.put(KEPT, bytes);
        },
        &[&format!("{KEPT} was replaced")],
        &[&format!("repaired {KEPT}: made again")],
    );
}

#[test]
fn only_what_may_hold_lost_rows_is_read_and_written() {
    for case in Case::both() {
        let before = case.lake();
        let case = case.repaired(|case| case.remove(KEPT), &[], &[]);
        let after = case.lake();
        for key in [
            "app/dt=2019-04-01/part-00000.parquet",
            "app/dt=2019-04-03/part-00000.parquet",
            "app_duplicates/dt=2019-04-01/part-00000.parquet",
        ] {
            assert!(before.0[key] == after.0[key], "{key} was written");
        }
        let commit: serde_json::Value = serde_json::from_slice(&after.0[log(5).as_str()]).unwrap();
        let read = commit["sources"]["app"]["objects"].as_array().unwrap();
        let read: Vec<_> = read.iter().map(|object| &object["key"]).collect();
        assert_eq!(read, [&key(2, 5), &key(2, 6)]);
    }
}

#[test]
fn files_of_marts() {
    repaired(|case| case.remove(MART), &[MART], &[MART]);
    repaired(|case| case.put(DEPENDANT, "x"), &[DEPENDANT], &[DEPENDANT]);
    repaired(
        |case| {
            case.remove(MART);
            case.remove(KEPT);
            case.remove(DEPENDANT);
        },
        &["3 faults"],
        &[MART, KEPT, DEPENDANT],
    );
}

#[test]
fn a_mart_that_cannot_be_built_is_said() {
    let case = Case::on_disk();
    case.remove(MART);
    case.project.write(
        "sql/by_day.sql",
        BY_DAY.replace("count(*)", "sum(CAST(id AS bigint))"),
    );
    case.rawmart(&["verify", "--repair"]).expect(
        7,
        &[
            "note by_day: not built",
            "note total: not built",
            &format!("{MART} is missing"),
        ],
    );
    case.project.write("sql/by_day.sql", BY_DAY);
    case.rawmart(&["verify", "--repair"]).expect(0, &[MART]);
}

#[test]
fn a_file_without_rows() {
    for case in Case::both() {
        // Day 3 loses all of its events.
        case.put_raw(&key(3, 1), "no json\n".to_owned());
        case.rawmart(&["verify"]).expect(
            0,
            &["note app: 1 absorbed raw objects have other content now"],
        );
        // The commit has one record, a reject.
        case.rawmart(&["run", "--replace-changed", "--max-rejects", "100%"])
            .expect(0, &[]);
        let empty = [
            "app/dt=2019-04-03/part-00000.parquet",
            "by_day/dt=2019-04-03/part-00000.parquet",
        ];
        case.repaired(
            |case| empty.iter().for_each(|key| case.remove(key)),
            &empty,
            &empty,
        );
    }
}

/// On disk every copy has another ETag.
#[test]
fn a_copied_lake() {
    let case = Case::on_disk();
    let content = case.lake().content();
    let from = case.project.path("lake");
    let to = case.project.path("copy");
    copy(&from, &to);
    std::fs::remove_dir_all(&from).unwrap();
    std::fs::rename(&to, &from).unwrap();
    case.put_raw(&key(2, 7), object(2, 7));
    case.rawmart(&["verify"])
        .expect(7, &[KEPT, MART, "was replaced"]);
    case.rawmart(&["run"])
        .expect(7, &["rawmart verify --repair"]);
    case.remove_raw(&key(2, 7));
    case.rawmart(&["verify", "--repair"])
        .expect(0, &[&format!("{KEPT}: it has the published content")]);
    case.assert_whole(&content);
    // The content still belongs to the commits that wrote it.
    case.put_raw(&key(2, 7), object(2, 7));
    case.rawmart(&["run"]).expect(0, &["Published"]);
    case.rawmart(&["verify"]).expect(0, &[]);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// Copies a bucket with other parts or another key, which gives other ETags.
fn other_etags(case: &Case) {
    for n in 1..=4 {
        case.rewrite(&marker(n), |marker| {
            for file in marker["files"].as_array_mut().unwrap() {
                file["etag"] = "of-another-bucket".into();
            }
        });
    }
}

#[test]
fn other_etags_of_the_same_bytes() {
    for case in Case::both() {
        let before = case.lake();
        let case = case.repaired(other_etags, &[KEPT, MART], &["its ETag was noted"]);
        for (key, bytes) in case.lake().data_files() {
            assert!(before.0[key] == bytes, "{key} was written");
        }
    }
}

/// Earlier builds did not note the SHA-256.
#[test]
fn other_etags_of_bytes_that_nobody_knows() {
    let case = Case::on_disk();
    for n in 1..=4 {
        case.rewrite(&log(n), |commit| {
            for file in commit["files"].as_array_mut().unwrap() {
                file.as_object_mut().unwrap().remove("sha256").unwrap();
            }
        });
    }
    case.rawmart(&["verify"]).expect(0, &[]);
    case.repaired(other_etags, &[KEPT, MART], &["made again"]);
}

#[test]
fn markers_that_are_gone() {
    repaired(
        |case| case.remove(&marker(4)),
        &["commit 4 is not published, and its staged files are gone"],
        &["repaired commit 4: it was published", "its ETag was noted"],
    );
    repaired(
        |case| case.remove(&marker(1)),
        &[&marker(1), "rawmart verify --repair"],
        &[
            "repaired commit 1: its marker was made again",
            "its ETag was noted",
        ],
    );
    repaired(
        |case| {
            case.remove(&marker(3));
            case.remove(&marker(4));
            case.remove(KEPT);
        },
        &[&marker(3)],
        &[&format!("{KEPT}: made again")],
    );
}

#[test]
fn a_commit_that_was_not_published() {
    for case in Case::both() {
        let content = case.lake().content();
        let staged = stage_again(&case, 4);
        case.remove(&marker(4));
        // One file is as the last commit left it, one is missing, and one belongs to nobody.
        let [first, .., last] = staged.as_slice() else {
            panic!("{staged:?}");
        };
        case.put(first, "somebody's");
        case.remove(last);
        case.rawmart(&["verify"])
            .expect(7, &["commit 4 is not published: the next run finishes it"]);
        case.rawmart(&["verify", "--repair"])
            .expect(0, &["repaired commit 4: it was published"]);
        case.assert_whole(&content);
    }
}

/// Stages the files of a commit again, and gives their final keys.
fn stage_again(case: &Case, n: u64) -> Vec<String> {
    let lake = case.lake();
    let commit: serde_json::Value = serde_json::from_slice(&lake.0[log(n).as_str()]).unwrap();
    let mut keys = Vec::new();
    for file in commit["files"].as_array().unwrap() {
        let staged = file["staged"].as_str().unwrap();
        let key = staged.splitn(4, '/').last().unwrap();
        case.put(staged, lake.0[key].clone());
        keys.push(key.to_owned());
    }
    keys
}

#[test]
fn a_staged_copy_is_published_again() {
    for case in Case::both() {
        let before = case.lake();
        let case = case.repaired(
            |case| {
                assert!(stage_again(case, 3).contains(&KEPT.to_owned()));
                case.put(KEPT, half(case, KEPT));
                case.remove(DUPLICATES);
            },
            &[KEPT, DUPLICATES],
            &[
                &format!("repaired {KEPT}: published from its staged copy"),
                &format!("repaired {DUPLICATES}: published from its staged copy"),
            ],
        );
        assert!(case.lake().0[KEPT] == before.0[KEPT]);
    }
}

#[test]
fn strays_are_named_and_left_alone() {
    for case in Case::both() {
        let stray = "app/dt=2019-04-02/part-00001.parquet";
        let bytes = case.lake().0[KEPT].clone();
        case.put(stray, bytes.clone());
        for args in [&["verify"][..], &["verify", "--repair"]] {
            case.rawmart(args).expect(7, &[&format!("STRAY {stray}")]);
        }
        case.remove(KEPT);
        case.rawmart(&["verify", "--repair"])
            .expect(7, &[&format!("STRAY {stray}"), "made again"]);
        assert!(case.lake().0[stray] == bytes);
        case.remove(stray);

        // Readers of tables see none of these files.
        let hidden = [
            "app/_SUCCESS",
            "app/dt=2019-04-02/.part-00000.parquet.crc",
            "app/_temporary/0/part-00001.parquet",
            "app/dt=2019-04-02_$folder$",
        ];
        for key in hidden {
            case.put(key, "x");
        }
        case.rawmart(&["verify"]).expect(
            0,
            &["every file is as the log says", "note: 4 keys below tables"],
        );
    }
}

/// Changes the first byte of the page of a value. Any reader would believe it.
fn flip(case: &Case, key: &str) {
    case.rot(key, |bytes| bytes[bytes.len() / 3] ^= 1);
}

#[test]
fn bytes_that_changed_where_they_lie() {
    for case in Case::both() {
        let on_disk = case.server.is_none();
        let content = case.lake().content();
        let files = [KEPT, DUPLICATES, REJECTS, MART, DEPENDANT];
        for key in files {
            flip(&case, key);
        }
        case.rawmart(&["verify", "--quick"])
            .expect(0, &["(0 of them read)"]);
        let said = |key: &str| format!("DAMAGE {key} has other bytes than were published");
        let said = files.map(said);
        let said: Vec<&str> = said.iter().map(String::as_str).collect();
        if on_disk {
            case.rawmart(&["verify"]).expect(7, &said);
        } else {
            // A store has its own checksums. `--deep` is for those who do not trust them.
            case.rawmart(&["verify"]).expect(0, &["(0 of them read)"]);
        }
        case.rawmart(&["verify", "--deep"]).expect(7, &said);
        let json = case
            .rawmart(&["verify", "--deep", "--output", "json"])
            .json();
        assert_eq!(json["damage"][0]["what"], "bytes");
        assert_eq!(json["damage"].as_array().unwrap().len(), files.len());
        let files_read = json["files_read"].as_u64().unwrap();
        assert_eq!(files_read + 5, json["files"].as_u64().unwrap());
        case.rawmart(&["verify", "--repair", "--deep"])
            .expect(0, &[&format!("repaired {KEPT}: made again")]);
        case.rawmart(&["verify", "--deep"]).expect(0, &[]);
        case.assert_whole(&content);
    }
}

#[test]
fn damaged_bytes_are_not_written_on() {
    let case = Case::on_disk();
    for damaged in [KEPT, DUPLICATES, REJECTS] {
        flip(&case, damaged);
        case.put_raw(&key(2, 7), object(2, 7));
        let before = case.lake().0;
        case.rawmart(&["run"])
            .expect(7, &[damaged, "is damaged", "rawmart verify --repair"]);
        assert!(case.lake().0 == before, "{damaged}: it wrote");
        case.remove_raw(&key(2, 7));
        case.rawmart(&["verify", "--repair"]).expect(0, &[damaged]);
    }
    // The inputs of a mart are checked too.
    let content = case.lake().content();
    flip(&case, KEPT);
    case.project
        .write("sql/by_day.sql", BY_DAY.replace("count(*)", "count(id)"));
    let before = case.lake().0;
    case.rawmart(&["run"]).expect(7, &[KEPT, "is damaged"]);
    assert!(case.lake().0 == before, "it wrote");
    case.rawmart(&["verify", "--repair"]).expect(0, &[KEPT]);
    assert!(case.lake().content() == content);
}

/// Another object has another ETag, and no part of it is read.
#[test]
fn an_object_that_was_replaced_is_not_written_on() {
    let [_, case] = Case::both();
    let mut bytes = case.lake().0[KEPT].clone();
    let at = bytes.len() / 3;
    bytes[at] ^= 1;
    case.put(KEPT, bytes);
    let before = case.lake().0;
    case.put_raw(&key(2, 7), object(2, 7));
    case.rawmart(&["run"])
        .expect(7, &[KEPT, "its ETag is another"]);
    case.remove_raw(&key(2, 7));
    case.project
        .write("sql/by_day.sql", BY_DAY.replace("count(*)", "count(id)"));
    case.rawmart(&["run"])
        .expect(7, &[KEPT, "its ETag is another"]);
    assert!(case.lake().0 == before, "it wrote");
}

#[test]
fn files_whose_bytes_nobody_noted() {
    let case = Case::on_disk();
    for n in 1..=4 {
        case.rewrite(&log(n), |commit| {
            for file in commit["files"].as_array_mut().unwrap() {
                file.as_object_mut().unwrap().remove("sha256").unwrap();
            }
        });
    }
    let files = case.lake().data_files().count();
    let said = format!("note: the log has no SHA-256 of {files} files");
    case.rawmart(&["verify"])
        .expect(0, &[&said, "(0 of them read)"]);
    case.put_raw(&key(2, 7), object(2, 7));
    case.rawmart(&["run"]).expect(0, &["Published"]);
    // The files are the kept events, duplicates and rejects of the day, the mart's file, and the file of the
    // mart that reads it.
    let said = format!("note: the log has no SHA-256 of {} files", files - 5);
    case.rawmart(&["verify"])
        .expect(0, &[&said, "(5 of them read)"]);
}

#[test]
fn a_lake_whose_log_is_gone() {
    for case in Case::both() {
        let control = case.lake().0.into_iter();
        let control = control.filter(|(key, _)| key.starts_with("_rawmart/"));
        let control: BTreeMap<String, Vec<u8>> = control.collect();
        for key in control.keys() {
            case.remove(key);
        }
        let before = case.lake().0;
        for args in [
            &["verify"][..],
            &["verify", "--repair"],
            &["run"],
            &["rebuild"],
            &["plan"],
            &["history"],
        ] {
            case.rawmart(args)
                .expect(7, &["has no log", "is gone", "Restore it from a backup"]);
        }
        let now = case.lake().0.into_iter();
        let now: BTreeMap<String, Vec<u8>> = now
            .filter(|(key, _)| !["_rawmart/lock", "_rawmart/probe"].contains(&key.as_str()))
            .collect();
        assert!(now == before, "it wrote");
        if case.server.is_some() {
            for (key, bytes) in control {
                case.put(&key, bytes);
            }
            case.rawmart(&["verify"]).expect(0, &[]);
        }
    }
}

#[test]
fn markers_that_are_damaged() {
    for (n, bytes) in [
        (4, &b""[..]),
        (4, b"garbage"),
        (2, b"{\"format\": 2}"),
        (1, b"{\"format\": 2, \"number\": 3, \"files\": []}"),
    ] {
        repaired(
            |case| case.put(&marker(n), bytes),
            &[&marker(n), "damaged", "rawmart verify --repair"],
            &["its ETag was noted"],
        );
    }
    // One digit is changed, and the text is still JSON.
    repaired(
        |case| {
            let text = String::from_utf8(case.lake().0[marker(3).as_str()].clone()).unwrap();
            let at = text.find("\"etag\":\"").unwrap() + 9;
            let other = if text[at..].starts_with('0') {
                "1"
            } else {
                "0"
            };
            case.put(&marker(3), [&text[..at], other, &text[at + 1..]].concat());
        },
        &[&marker(3), "its seal does not match its content"],
        &["repaired commit 3: its marker was made again"],
    );
}

/// Nobody knows which raw objects were absorbed. The repair says so and changes nothing.
#[test]
fn commits_that_are_damaged() {
    for case in Case::both() {
        for n in [1, 4] {
            let whole = case.lake().0[log(n).as_str()].clone();
            let text = String::from_utf8(whole.clone()).unwrap();
            let other = text.replacen("\"rows\":", "\"rows\":1", 1);
            assert_ne!(text, other);
            for bytes in [other.into_bytes(), whole[..whole.len() / 2].to_vec()] {
                case.put(&log(n), bytes);
                let before = case.lake().0;
                for args in [&["verify"][..], &["verify", "--repair"], &["run"]] {
                    case.rawmart(args)
                        .expect(7, &[&log(n), "is damaged", "restore the object"]);
                }
                assert!(case.lake().0 == before, "it wrote");
            }
            case.put(&log(n), whole);
        }
        case.rawmart(&["verify"]).expect(0, &[]);
    }
}

#[test]
fn a_probe_that_is_damaged() {
    repaired(
        |case| case.put("_rawmart/probe", "{\"format\":2"),
        &["_rawmart/probe is damaged"],
        &["repaired _rawmart/probe: the object there was moved away"],
    );
}

#[test]
fn what_is_no_file_in_the_place_of_one() {
    let in_place = |what: &str, change: &dyn Fn(&Path, &Path), said: &str| {
        let case = Case::on_disk();
        let content = case.lake().content();
        let away = case.project.path("away.parquet");
        for key in [KEPT, REJECTS, MART, DEPENDANT] {
            let path = case.project.path("lake").join(key);
            std::fs::rename(&path, &away).unwrap();
            change(&path, &away);
            let damage = format!("DAMAGE {key} is {said}");
            case.rawmart(&["verify"]).expect(7, &[&damage]);
            case.rawmart(&["verify", "--quick"]).expect(7, &[&damage]);
            let how = format!("repaired {key}: the object there was moved away");
            case.rawmart(&["verify", "--repair"]).expect(0, &[&how]);
            let found = std::fs::symlink_metadata(&path).unwrap();
            assert!(found.is_file(), "{what}: {key} is {found:?}");
            let aside = case.project.path("lake/_rawmart/aside").join(key);
            assert!(std::fs::symlink_metadata(aside).is_ok(), "{what}: {key}");
            let _ = std::fs::remove_file(&away);
            std::fs::remove_dir_all(case.project.path("lake/_rawmart/aside")).unwrap();
            assert!(case.lake().content() == content, "{what}: {key}");
        }
        case.assert_whole(&content);
    };
    in_place(
        "a link",
        &|path, away| std::os::unix::fs::symlink(away, path).unwrap(),
        "a symbolic link",
    );
    in_place(
        "a link to nothing",
        &|path, _| std::os::unix::fs::symlink("/nonexistent", path).unwrap(),
        "a symbolic link",
    );
    in_place(
        "a folder",
        &|path, _| std::fs::create_dir(path).unwrap(),
        "a folder",
    );
    in_place(
        "a folder with the file",
        &|path, away| {
            std::fs::create_dir(path).unwrap();
            std::fs::copy(away, path.join("part-00000.parquet")).unwrap();
        },
        "a folder",
    );
}

/// Files that a dying run has staged are proven before they are published.
#[test]
fn a_staged_copy_that_is_damaged() {
    for case in Case::both() {
        let content = case.lake().content();
        stage_again(&case, 4);
        case.remove(&marker(4));
        let commit: serde_json::Value =
            serde_json::from_slice(&case.lake().0[log(4).as_str()]).unwrap();
        let staged = commit["files"][0]["staged"].as_str().unwrap().to_owned();
        flip(&case, &staged);
        let before = case.lake().0;
        case.rawmart(&["run"])
            .expect(7, &[&staged, "its bytes have changed since"]);
        assert!(case.lake().0 == before, "it wrote");
        case.rawmart(&["verify", "--repair"])
            .expect(0, &["repaired commit 4: it was published"]);
        case.assert_whole(&content);
    }
}

#[test]
fn raw_objects_may_go() {
    for case in Case::both() {
        let content = case.lake().content();
        case.remove_raw(&key(1, 3));
        let said = format!("note app: 1 absorbed raw objects are gone: {}", key(1, 3));
        case.rawmart(&["verify"]).expect(0, &[&said]);
        let json = case.rawmart(&["verify", "--output", "json"]).json();
        assert_eq!(json["notes"][0]["what"], "gone");
        assert_eq!(json["notes"][0]["keys"], serde_json::json!([key(1, 3)]));
        assert_eq!(json["damage"], serde_json::json!([]));

        // Another day does not need the object.
        case.remove(KEPT);
        case.rawmart(&["verify", "--repair"]).expect(0, &[&said]);
        assert!(case.lake().content() == content);

        // This day needs it, so nothing is changed.
        case.remove("app/dt=2019-04-01/part-00000.parquet");
        case.remove(MART);
        let damaged = case.lake().0;
        case.rawmart(&["verify", "--repair"]).expect(
            7,
            &[
                "app/dt=2019-04-01/part-00000.parquet",
                "cannot be made again",
                &key(1, 3),
            ],
        );
        assert!(case.lake().0 == damaged);
        case.put_raw(&key(1, 3), object(1, 3));
        case.rawmart(&["verify", "--repair"]).expect(0, &[MART]);
        case.assert_whole(&content);
    }
}

#[test]
fn raw_objects_that_changed_do_not_repair() {
    let case = Case::on_disk();
    case.remove(KEPT);
    case.put_raw(&key(2, 6), object(2, 7));
    let damaged = case.lake().0;
    case.rawmart(&["verify", "--repair"])
        .expect(4, &["other content", &key(2, 6)]);
    assert!(case.lake().0 == damaged);
}

#[test]
fn raw_that_is_out_of_reach_is_a_note() {
    for case in Case::both() {
        let toml = std::fs::read_to_string(case.project.path("rawmart.toml")).unwrap();
        let away = toml
            .replace("s3://raw", "s3://away")
            .replace("\"raw\"", "\"away\"");
        assert_ne!(away, toml);
        case.project.write("rawmart.toml", away);
        case.rawmart(&["verify"]).expect(
            0,
            &[
                "note app: the raw objects were not listed",
                "every count balances",
            ],
        );
    }
}

#[test]
fn a_repair_after_other_settings_makes_the_source_anew() {
    let case = Case::on_disk();
    case.remove(KEPT);
    let toml = std::fs::read_to_string(case.project.path("rawmart.toml")).unwrap();
    let toml = toml.replace("within = \"2s\"", "within = \"5s\"");
    case.project.write("rawmart.toml", toml);
    case.rawmart(&["run"]).expect(4, &["rebuild"]);
    case.rawmart(&["verify", "--repair"]).expect(0, &[KEPT]);
    case.rawmart(&["run"]).expect(0, &["Nothing new"]);
    let repaired = case.lake().content();
    let fresh = ["--lake", "fresh", "run"];
    case.rawmart(&fresh).expect(0, &[]);
    assert!(Lake::on_disk(&case.project.path("fresh")).content() == repaired);
}

#[test]
fn an_interrupted_repair_is_finished_by_the_next_run() {
    let parts = [
        format!("below/{KEPT}"),
        format!("below/{DUPLICATES}"),
        marker(5),
        format!("below/{MART}"),
    ];
    for part in &parts {
        let [_, case] = Case::both();
        let content = case.lake().content();
        let server = case.server.as_ref().unwrap();
        case.remove(KEPT);
        case.put(DUPLICATES, half(&case, DUPLICATES));
        server.fail_next("PutObject", part, usize::MAX, FaultKind::AccessDenied403);
        let ran = case.rawmart(&["verify", "--repair"]);
        ran.expect(2, &[part]);
        server.heal();
        case.rawmart(&["run"]).expect(0, &["Published"]);
        case.assert_whole(&content);
    }
    // Before the commit there is nothing to finish.
    let [_, case] = Case::both();
    let content = case.lake().content();
    let server = case.server.as_ref().unwrap();
    case.remove(KEPT);
    server.fail_next(
        "PutObject",
        "/staging/",
        usize::MAX,
        FaultKind::AccessDenied403,
    );
    case.rawmart(&["verify", "--repair"])
        .expect(2, &["/staging/"]);
    server.heal();
    case.rawmart(&["verify"]).expect(7, &[KEPT]);
    case.rawmart(&["verify", "--repair"]).expect(0, &[KEPT]);
    case.assert_whole(&content);
}

#[test]
fn counts_that_do_not_add_up() {
    let fault = |change: &dyn Fn(&mut serde_json::Value), said: &[&str]| {
        let case = Case::on_disk();
        case.rewrite(&log(1), change);
        for args in [&["verify"][..], &["verify", "--repair"]] {
            case.rawmart(args).expect(7, said);
        }
    };
    fault(
        &|commit| commit["sources"]["app"]["objects"][0]["records"] = 17.into(),
        &[&key(1, 3), "17 records"],
    );
    fault(
        &|commit| commit["sources"]["app"]["balance"]["kept"] = 1.into(),
        &["kept"],
    );
    // The sums are right and the dates are not.
    fault(
        &|commit| {
            let objects = commit["sources"]["app"]["objects"].as_array_mut().unwrap();
            objects[0]["times"] = objects[2]["times"].clone();
        },
        &["2019-04-01 has 30 kept + duplicates"],
    );
    fault(
        &|commit| {
            let objects = commit["sources"]["app"]["objects"].as_array_mut().unwrap();
            objects[0]["arrival_ms"] = objects[2]["arrival_ms"].clone();
        },
        &["2019-04-01 has 2 rejects, and the log counts 1"],
    );
}

#[test]
fn a_repair_has_nothing_to_do() {
    for case in Case::both() {
        let before = case.lake().0;
        case.rawmart(&["verify", "--repair"])
            .expect(0, &["every file is as the log says"]);
        assert!(case.lake().0 == before, "it wrote");
        let marts = [("by_day", BY_DAY), ("total", TOTAL)];
        let empty = Project::with(config("raw", "lake"), &marts);
        empty.write("raw/.keep", "");
        empty
            .rawmart(&["verify", "--repair"])
            .expect(0, &["0 files"]);
    }
}
