//! Runs the binary against an S3 server over HTTP. The demo gives the same lake as on disk, and a refusal of S3
//! ends in exit code 2 or 6 with nothing half-published.

use std::path::Path;

use crate::demo::assert_recounted;
use crate::project::{Lake, Project, Ran, rawmart};
use crate::s3::{FaultKind, S3Server};

/// The demo, with raw objects and lake in buckets.
struct Demo {
    server: S3Server,
    project: Project,
    /// The lake's prefix.
    prefix: String,
}

impl Demo {
    fn new() -> Self {
        Self::below("app/events", "demo")
    }

    /// The demo with raw objects and lake below these prefixes of their buckets.
    fn below(raw_prefix: &str, lake_prefix: &str) -> Self {
        let server = S3Server::start(&["raw", "lake"]);
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let raw = Lake::on_disk(&repository.join("fixtures/raw/app-events"));
        for (key, bytes) in raw.0 {
            server.put("raw", &format!("{raw_prefix}/{key}"), bytes);
        }
        let toml = std::fs::read_to_string(repository.join("rawmart.toml")).unwrap();
        let toml = toml
            .replace("\"lake\"", &format!("\"s3://lake/{lake_prefix}\""))
            .replace(
                "\"fixtures/raw/app-events/\"",
                &format!("\"s3://raw/{raw_prefix}\""),
            )
            .replace(
                "\"fixtures/",
                &format!("\"{}/fixtures/", repository.display()),
            )
            .replace("\"sql/", &format!("\"{}/sql/", repository.display()));
        let project = Project::new();
        project.write("rawmart.toml", toml);
        Self {
            server,
            project,
            prefix: format!("{lake_prefix}/"),
        }
    }

    fn rawmart(&self, args: &[&str]) -> Ran {
        rawmart(&self.project.path(""), args, &self.server.env())
    }

    fn lake(&self) -> Lake {
        Lake::in_bucket(self.server.objects("lake"), &self.prefix)
    }

    /// The run is refused by S3 (exit code 2) in these words.
    fn fails(&self, parts: &[&str]) -> Ran {
        let ran = self.rawmart(&["run"]);
        ran.expect(2, parts);
        assert!(!ran.err.contains(crate::s3::SECRET_KEY), "{ran:?}");
        assert_eq!(ran.out, "");
        ran
    }

    fn assert_nothing_published(&self) {
        let lake = self.lake();
        assert_eq!(lake.data_files().count(), 0, "half-published");
        assert_eq!(lake.commits(), Vec::<&str>::new());
    }
}

#[test]
fn the_demo_on_s3_is_the_demo_on_disk() {
    let demo = Demo::new();
    demo.server.page(7);
    demo.server.scramble_listings();
    let plan = demo.rawmart(&["plan"]);
    plan.expect(0, &["absorb, first run"]);
    assert!(demo.server.objects("lake").is_empty(), "plan wrote");
    demo.rawmart(&["run"]).expect(0, &["7,135 kept"]);
    let lake = demo.lake();
    assert_recounted(&lake);

    // Every column of every row is the same, in the same files.
    let disk = tempfile::tempdir().unwrap();
    let root = disk.path().join("lake");
    let on_disk = ["--lake", root.to_str().unwrap(), "run"];
    rawmart(Path::new(env!("CARGO_MANIFEST_DIR")), &on_disk, &[]).expect(0, &[]);
    let on_disk = Lake::on_disk(&root);
    assert!(lake.content() == on_disk.content());
    let names =
        |lake: &Lake| -> Vec<String> { lake.data_files().map(|(key, _)| key.to_owned()).collect() };
    assert_eq!(names(&lake), names(&on_disk));

    // A second run, with another order of listings, finds nothing new and writes nothing.
    demo.server.page(1_000);
    demo.server.clear_log();
    demo.rawmart(&["run"]).expect(0, &["Nothing new"]);
    assert!(demo.lake().0 == lake.0);
    for (operation, key) in demo.server.log() {
        let reads = ["ListObjectsV2", "GetObject", "HeadObject", "HeadBucket"];
        assert!(reads.contains(&operation.as_str()), "{operation} {key}");
        assert!(!key.starts_with("app/events/2"), "read again: {key}");
        let listed = operation == "ListObjectsV2" && key.contains("_rawmart/log");
        assert!(!listed, "the log grows for ever, and its listing with it");
    }
    demo.rawmart(&["verify"]).expect(0, &["balances"]);
}

#[test]
fn places_may_have_any_letters() {
    let raw = "앱 로그/events 1+%20&";
    let demo = Demo::below(raw, "분석 lake/단지");
    let file = "fixtures/reference/danji_master.csv";
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let reference = std::fs::read(repository.join(file)).unwrap();
    let toml = std::fs::read_to_string(demo.project.path("rawmart.toml")).unwrap();
    let there = format!("{}/{file}", repository.display());
    assert!(toml.contains(&there), "{toml}");

    let local = "참조 표/단지 1%20.csv";
    demo.project.write(local, &reference);
    demo.project
        .write("rawmart.toml", toml.replace(&there, local));
    demo.rawmart(&["run"]).expect(0, &["7,135 kept"]);
    assert_recounted(&demo.lake());
    let prefixes = [("raw", raw), ("lake", &demo.prefix)];
    for (bucket, prefix) in prefixes {
        for key in demo.server.keys(bucket) {
            assert!(key.starts_with(prefix), "{bucket}: {key}");
        }
    }

    // The same file in a bucket changes nothing.
    demo.server.put("raw", "참조 표/단지 1.csv", reference);
    let in_bucket = toml.replace(&there, "s3://raw/참조 표/단지 1.csv");
    demo.project.write("rawmart.toml", &in_bucket);
    demo.rawmart(&["run"]).expect(0, &["Nothing new"]);
    demo.rawmart(&["verify"]).expect(0, &["balances"]);

    // Other resolved places of the same content change nothing either.
    for file in [toml.replace(&there, local), in_bucket] {
        demo.project.write("rawmart.toml", file);
        let shown = demo.rawmart(&["config"]);
        shown.expect(0, &[&format!("\"s3://raw/{raw}/\"")]);
        demo.project.write("shown.toml", &shown.out);
        let again = demo.rawmart(&["--config", "shown.toml", "config"]);
        let settings = |text: &str| text.split_once('\n').unwrap().1.to_owned();
        assert_eq!(settings(&again.out), settings(&shown.out));
        demo.rawmart(&["--config", "shown.toml", "run"])
            .expect(0, &["Nothing new"]);
    }
}

#[test]
fn verify_names_what_is_not_as_published() {
    let demo = Demo::new();
    demo.rawmart(&["run", "--no-marts"]).expect(0, &[]);
    let key = "events/dt=2019-04-01/part-00000.parquet";
    let mut bytes = demo.lake().0[key].clone();
    bytes[50] ^= 1;
    demo.server.put("lake", &format!("demo/{key}"), bytes);
    demo.rawmart(&["verify"])
        .expect(7, &[&format!("{key} was replaced")]);
    demo.server.remove("lake", &format!("demo/{key}"));
    demo.rawmart(&["verify"])
        .expect(7, &[&format!("{key} is missing")]);
}

#[test]
fn wrong_credentials() {
    let demo = Demo::new();
    let env: Vec<(String, String)> = demo
        .server
        .env()
        .into_iter()
        .map(|(name, value)| match name.as_str() {
            "AWS_SECRET_ACCESS_KEY" => (name, "hunter2hunter2".to_owned()),
            _ => (name, value),
        })
        .collect();
    for verb in ["run", "plan", "verify"] {
        let ran = rawmart(&demo.project.path(""), &[verb], &env);
        ran.expect(2, &["s3://lake/demo", "correct AWS_SECRET_ACCESS_KEY"]);
        assert!(!format!("{ran:?}").contains("hunter2"), "{ran:?}");
    }
    demo.assert_nothing_published();
}

#[test]
fn no_credentials() {
    let demo = Demo::new();
    let env: Vec<(String, String)> = demo
        .server
        .env()
        .into_iter()
        .filter(|(name, _)| !name.contains("ACCESS_KEY"))
        .collect();
    for verb in VERBS {
        let ran = rawmart(&demo.project.path(""), verb, &env);
        let said = "error: opening s3://lake/demo/: no AWS credentials found; set AWS_PROFILE, or ";
        ran.expect(2, &[said]);
        assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
    }
    demo.assert_nothing_published();
}

#[test]
fn no_region() {
    let demo = Demo::new();
    let mut env = demo.server.env();
    env.retain(|(name, _)| !["AWS_REGION", "AWS_ENDPOINT_URL"].contains(&name.as_str()));
    let ran = rawmart(&demo.project.path(""), &["run"], &env);
    ran.expect(2, &["no AWS region is known; set AWS_REGION"]);
    assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
}

/// Every command that reads a lake.
const VERBS: [&[&str]; 8] = [
    &["run"],
    &["plan"],
    &["rebuild"],
    &["history"],
    &["verify"],
    &["tables"],
    &["ddl", "--dialect", "athena"],
    &["query", "SELECT count(*) FROM events"],
];

/// An error of S3, the word for it, and the exit code.
const REFUSALS: [(&str, &str, i32); 10] = [
    ("NoSuchBucket", "no_such_bucket", 2),
    ("AccessDenied", "access_denied", 2),
    ("InvalidAccessKeyId", "access_denied", 2),
    ("SignatureDoesNotMatch", "access_denied", 2),
    ("InvalidToken", "access_denied", 2),
    ("RequestTimeTooSkewed", "access_denied", 2),
    ("AuthorizationHeaderMalformed", "wrong_region", 2),
    ("PermanentRedirect", "wrong_region", 2),
    ("ExpiredToken", "credentials_expired", 6),
    ("TokenRefreshRequired", "credentials_expired", 6),
];

#[test]
fn a_refusal_has_one_exit_code_for_every_place_and_command() {
    let demo = Demo::new();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = "fixtures/reference/danji_master.csv";
    let reference = std::fs::read(repository.join(file)).unwrap();
    demo.server.put("raw", "tables/danji.csv", reference);
    let toml = std::fs::read_to_string(demo.project.path("rawmart.toml")).unwrap();
    let there = format!("{}/{file}", repository.display());
    let toml = toml.replace(&there, "s3://raw/tables/danji.csv");
    demo.project.write("rawmart.toml", toml);
    demo.rawmart(&["run"]).expect(0, &[]);
    let lake = demo.lake().0;
    for (refused, word, exit) in REFUSALS {
        for (url, keys, verbs) in [
            ("s3://lake/demo/", "demo/", &VERBS[..]),
            ("s3://raw/app/events/", "app/events", &VERBS[..3]),
            ("s3://raw/tables/", "tables/", &VERBS[..2]),
        ] {
            let kind = FaultKind::Refused(refused);
            demo.server.fail_next("*", keys, usize::MAX, kind);
            for verb in verbs {
                let ran = demo.rawmart(&[verb, &["--output", "json"][..]].concat());
                ran.expect(exit, &[]);
                let error = &ran.json()["error"];
                assert_eq!(error["code"], word, "{refused}, {keys}, {verb:?}: {ran:?}");
                assert!(error["url"].as_str().unwrap().starts_with(url), "{ran:?}");
                assert!(!error["remedy"].as_str().unwrap().is_empty(), "{ran:?}");
            }
            demo.server.heal();
        }
    }
    assert!(demo.lake().0 == lake, "something was written");
}

#[test]
fn retries_are_told_on_stderr() {
    let demo = Demo::new();
    demo.server
        .fail_next("ListObjectsV2", "app/events", 3, FaultKind::SlowDown503);
    let ran = demo.rawmart(&["run", "--no-marts"]);
    ran.expect(0, &["7,135 kept"]);
    let line = ran.err.lines().next().unwrap();
    let host = &demo.server.env();
    let host = host.iter().find(|(name, _)| name == "AWS_ENDPOINT_URL");
    let host = host.unwrap().1.trim_start_matches("http://").to_owned();
    for part in [
        " WARN ",
        &format!("no usable answer from {host} (503 Service Unavailable), trying for "),
        " s more",
    ] {
        assert!(line.contains(part), "{part}: {ran:?}");
    }
    assert!(!ran.err.contains(crate::s3::SECRET_KEY), "{ran:?}");
}

#[test]
fn a_bucket_that_is_not_there() {
    let demo = Demo::new();
    let toml = std::fs::read_to_string(demo.project.path("rawmart.toml")).unwrap();
    for (there, wrong) in [
        ("s3://lake/demo", "s3://lakes/demo"),
        ("s3://raw/", "s3://rwa/"),
    ] {
        demo.project
            .write("rawmart.toml", toml.replace(there, wrong));
        demo.fails(&[wrong]);
        demo.assert_nothing_published();
    }
}

#[test]
fn slow_down_for_a_while() {
    let demo = Demo::new();
    demo.server
        .fail_next("GetObject", "app/events/", 6, FaultKind::SlowDown503);
    demo.server
        .fail_next("ListObjectsV2", "", 2, FaultKind::SlowDown503);
    demo.server
        .fail_next("PutObject", "demo/", 4, FaultKind::SlowDown503);
    demo.server
        .fail_next("PutObject", "log/", 1, FaultKind::AppliedThen500);
    demo.server
        .fail_next("GetObject", "app/events/", 2, FaultKind::CloseConnection);
    demo.server
        .fail_next("GetObject", "app/events/", 5, FaultKind::BreakBody);
    demo.server
        .fail_next("GetObject", "demo/", 2, FaultKind::BreakBody);
    demo.rawmart(&["run"]).expect(0, &["7,135 kept"]);
    assert_recounted(&demo.lake());
    demo.rawmart(&["verify"]).expect(0, &["balances"]);
}

#[test]
fn a_raw_object_that_cannot_be_read() {
    let demo = Demo::new();
    let key = "app/events/2019/04/02/10/";
    demo.server
        .fail_next("GetObject", key, usize::MAX, FaultKind::AccessDenied403);
    demo.fails(&["s3://raw/app/events/2019/04/02/10/"]);
    demo.assert_nothing_published();
    demo.server.heal();
    demo.rawmart(&["run"]).expect(0, &["7,135 kept"]);
    assert_recounted(&demo.lake());
}

#[test]
fn a_lake_that_may_not_be_written() {
    let demo = Demo::new();
    demo.server.fail_next(
        "*",
        "demo/_rawmart/staging/",
        usize::MAX,
        FaultKind::AccessDenied403,
    );
    demo.fails(&["s3://lake/demo/_rawmart/staging/"]);
    demo.assert_nothing_published();
}

#[test]
fn a_run_cut_off_while_it_publishes_is_finished_by_the_next() {
    let demo = Demo::new();
    demo.server.fail_next(
        "PutObject",
        ".published",
        usize::MAX,
        FaultKind::AccessDenied403,
    );
    demo.fails(&["s3://lake/demo/_rawmart/log/"]);
    assert_eq!(demo.lake().commits().len(), 1);
    demo.server.heal();
    demo.rawmart(&["verify"])
        .expect(7, &["commit 1 is not published"]);
    let ran = demo.rawmart(&["run", "--output", "json"]);
    ran.expect(0, &[]);
    assert_eq!(ran.json()["rolled_forward"], 1);
    assert_recounted(&demo.lake());
    demo.rawmart(&["verify"]).expect(0, &["balances"]);
}

#[test]
fn a_store_that_ignores_conditions() {
    let demo = Demo::new();
    demo.server.ignore_if_none_match();
    for _ in 0..2 {
        let ran = demo.rawmart(&["run"]);
        let parts = [
            "the store of s3://lake/demo/ accepts If-None-Match and ignores it",
            "delete this object",
            "single_writer = true",
        ];
        ran.expect(2, &parts);
        let keys: Vec<String> = demo.lake().0.into_keys().collect();
        assert_eq!(keys, ["_rawmart/probe"], "nothing beyond the probe");
    }
    let toml = std::fs::read_to_string(demo.project.path("rawmart.toml")).unwrap();
    let vouched = format!("single_writer = true\n{toml}");
    demo.project.write("rawmart.toml", &vouched);
    demo.rawmart(&["config"])
        .expect(0, &["\nsingle_writer = true\n"]);
    demo.rawmart(&["run"]).expect(0, &["7,135 kept"]);
    assert_recounted(&demo.lake());
    demo.rawmart(&["verify"]).expect(0, &["balances"]);
    demo.project.write("rawmart.toml", toml);
    demo.rawmart(&["run"]).expect(2, &["single_writer"]);
}

#[test]
fn a_store_that_ignores_if_match() {
    let demo = Demo::new();
    demo.server.ignore_if_match();
    let ran = demo.rawmart(&["run"]);
    ran.expect(2, &["accepts If-Match and ignores it"]);
    demo.assert_nothing_published();
}

/// A probe that was cut off is tried again, and the remains are swept.
#[test]
fn a_probe_that_was_cut_off() {
    let demo = Demo::new();
    demo.server.fail_next(
        "DeleteObjects",
        "/probe",
        usize::MAX,
        FaultKind::AccessDenied403,
    );
    demo.fails(&["deleting s3://lake/demo/"]);
    demo.assert_nothing_published();
    demo.server.heal();
    demo.rawmart(&["run"]).expect(0, &["7,135 kept"]);
    let lake = demo.lake();
    assert!(lake.0.contains_key("_rawmart/probe"));
    let staged: Vec<_> = lake
        .0
        .keys()
        .filter(|key| key.contains("staging"))
        .collect();
    assert_eq!(staged, Vec::<&String>::new());
}
