//! Whole files: the job that a file resolves to, and the message about a wrong file.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::event::{Accept, Column, ColumnType, Limits, OnTypeError, UnwrapStep};
use crate::time::TimeUnit;

const DESIGN: &str = r#"
lake = "s3://acme-lake/app"            # or a local path
timezone = "Asia/Seoul"

[sources.events]
raw = "s3://acme-raw/app-events/"
layout = "%Y/%m/%d/%H/"
event_time = "event_time"
partition_by = "day"                   # or "hour": dt=…/hour=…
max_rejects = "1%"                     # more than that: publish nothing, exit 4

[sources.events.columns]
event_id = "string"
event_type = "string"
event_time = "timestamp"
user_id = "string"
page = "string"
target = "string"
os = { type = "string", path = "device.os" }
props = "json"

[[sources.events.dedup]]
name = "redelivery"
key = ["event_id"]
within = "10m"

[[sources.events.dedup]]
name = "double_click"
when = "event_type = 'click'"
key = ["user_id", "target", "page"]
within = "1s"

[references.danji_master]              # small tables that marts join
path = "fixtures/reference/danji_master.csv"
encoding = "cp949"

[marts]
path = "sql/marts"
"#;

/// The shape of the events that GitHub Archive publishes.
const GITHUB: &str = r#"
lake = "lake"
[sources.github]
raw = { y2015 = "raw/2015", y2016 = "raw/2016" }
layout = false
event_time = "created_at"
partition_by = "hour"
timestamp_unit = "us"
[sources.github.columns]
id = { type = "string", required = true }
type = "string"
actor_id = { type = "bigint", path = "actor.id" }
repo_name = { type = "string", path = ["repo", "name"] }
public = { type = "boolean", default = true }
payload = "json"
created_at = "timestamp"
[[sources.github.dedup]]
name = "again"
key = ["id"]
within = "24h"
mode = "gap-last"
since = 2015-01-01
until = "2016-12-31"
[[sources.github.dedup]]
name = "same_bytes"
key = ["coalesce(record_sha256, 'none')"]
within = "0s"
"#;

/// The smallest valid file around the lines under test.
fn minimal(top: &str, source: &str, columns: &str, rest: &str) -> String {
    format!(
        "{top}\n[sources.a]\n{source}\n[sources.a.columns]\nt = \"timestamp\"\nuser_id = \
         \"string\"\n{columns}\n{rest}"
    )
}

const TOP: &str = "lake = '/lake'";
const SOURCE: &str = "raw = '/raw'\nevent_time = 't'";

fn loaded(text: &str, overrides: &Overrides, variables: &[(&str, &str)]) -> Result<Job, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rawmart.toml"), text).unwrap();
    let environment = |name: &str| {
        let found = variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).into())
    };
    let overrides = Overrides {
        threads: overrides.threads.or_else(|| {
            let given = variables.iter().any(|(name, _)| *name == "RAWMART_THREADS");
            (!given && !text.contains("threads")).then_some(2)
        }),
        ..overrides.clone()
    };
    let mut job = load(&overrides, &environment, folder.path()).map_err(|e| e.to_string())?;
    // Tests call the folder `/etc`, wherever it lies.
    let (here, etc) = (folder.path().to_str().unwrap(), "/etc");
    let moved = |url: &mut String| *url = url.replace(here, etc);
    job.file = Path::new(etc).join("rawmart.toml");
    moved(&mut job.lake);
    job.sources
        .iter_mut()
        .flat_map(|s| &mut s.raw)
        .for_each(|root| moved(&mut root.url));
    job.references
        .iter_mut()
        .for_each(|reference| moved(&mut reference.url));
    job.marts = job
        .marts
        .map(|path| path.to_str().unwrap().replace(here, etc).into());
    Ok(job)
}

fn job(text: &str) -> Job {
    loaded(text, &Overrides::default(), &[]).unwrap()
}

fn column(name: &str, kind: ColumnType, path: &[&str]) -> Column {
    Column {
        name: name.to_owned(),
        kind,
        path: path.iter().map(|part| (*part).to_owned()).collect(),
        default: None,
        required: false,
        paths: BTreeMap::new(),
        coerce: false,
        time_formats: Vec::new(),
    }
}

#[test]
fn the_example_of_the_design() {
    let text = |name: &str| column(name, ColumnType::String, &[name]);
    let rule = |name: &str, key: &[&str], when: Option<&str>, within_ms| Rule {
        name: name.to_owned(),
        key: key.iter().map(|part| (*part).to_owned()).collect(),
        when: when.map(str::to_owned),
        within_ms,
        mode: Mode::Throttle,
        since: None,
        until: None,
    };
    let expected = Job {
        file: "/etc/rawmart.toml".into(),
        lake: "s3://acme-lake/app/".into(),
        timezone: "Asia/Seoul".parse().unwrap(),
        memory: 1 << 30,
        spill_dir: None,
        threads: 2,
        single_writer: false,
        encryption: None,
        requester_pays: false,
        readers: None,
        sources: vec![Source {
            name: "events".into(),
            raw: vec![RawRoot {
                name: None,
                url: "s3://acme-raw/app-events/".into(),
            }],
            layout: Some("%Y/%m/%d/%H/".into()),
            layout_timezone: "UTC".parse().unwrap(),
            exclude: [
                "**/processing-failed/**",
                "**/format-conversion-failed/**",
                "**/http-endpoint-failed/**",
                "**/splunk-failed/**",
                "**/elasticsearch-failed/**",
                "**/opensearch-failed/**",
                "**/errors/**",
            ]
            .map(str::to_owned)
            .to_vec(),
            decode: DecodeSpec {
                columns: vec![
                    text("event_id"),
                    text("event_type"),
                    column("event_time", ColumnType::Timestamp, &["event_time"]),
                    text("user_id"),
                    text("page"),
                    text("target"),
                    column("os", ColumnType::String, &["device", "os"]),
                    column("props", ColumnType::Json, &["props"]),
                ],
                event_time: "event_time".into(),
                unit: TimeUnit::Ms,
                naive_timezone: None,
                epoch_timezone: None,
                accept: Accept {
                    // 2010-01-01 in Seoul.
                    from_ms: 1_262_271_600_000,
                    ahead_ms: 86_400_000,
                },
                on_type_error: OnTypeError::Reject,
                record_sha256: false,
                limits: Limits::default(),
                unwrap: Vec::new(),
            },
            rules: vec![
                rule("redelivery", &["event_id"], None, 600_000),
                rule(
                    "double_click",
                    &["user_id", "target", "page"],
                    Some("event_type = 'click'"),
                    1_000,
                ),
            ],
            partition_by: PartitionBy::Day,
            slice_ms: 86_400_000,
            max_rejects: 0.01,
            on_changed_object: OnChangedObject::Fail,
            settled_ms: None,
            fresh_within_ms: None,
            compression: Compression::Snappy,
            bloom_filters: Vec::new(),
        }],
        references: vec![Reference {
            name: "danji_master".into(),
            url: "file:///etc/fixtures/reference/danji_master.csv".into(),
            format: ReferenceFormat::Csv,
            columns: None,
            null: vec![String::new()],
            delimiter: b',',
            encoding: encoding_rs::EUC_KR,
        }],
        marts: Some("/etc/sql/marts".into()),
        catalog: None,
        publish: Publish::Directory,
        retain_ms: 86_400_000,
    };
    assert_eq!(job(DESIGN), expected);
}

#[test]
fn the_shape_of_github_archive() {
    let job = job(GITHUB);
    assert_eq!(job.lake, "file:///etc/lake/");
    assert_eq!(job.timezone.to_string(), "UTC");
    let source = &job.sources[0];
    assert_eq!(
        source.raw,
        ["2015", "2016"].map(|year| RawRoot {
            name: Some(format!("y{year}")),
            url: format!("file:///etc/raw/{year}/"),
        })
    );
    assert_eq!(source.layout, None);
    assert_eq!(
        (source.partition_by, source.slice_ms),
        (PartitionBy::Hour, 3_600_000)
    );
    let decode = &source.decode;
    assert_eq!((decode.unit, decode.record_sha256), (TimeUnit::Us, true));
    let names: Vec<_> = decode.columns.iter().map(|c| c.name.as_str()).collect();
    let order = [
        "id",
        "type",
        "actor_id",
        "repo_name",
        "public",
        "payload",
        "created_at",
    ];
    assert_eq!(names, order);
    assert!(decode.columns[0].required);
    assert_eq!(decode.columns[2].path, ["actor", "id"]);
    assert_eq!(decode.columns[3].path, ["repo", "name"]);
    assert_eq!(decode.columns[4].default, Some(json!(true)));
    let rule = &source.rules[0];
    assert_eq!((rule.mode, rule.within_ms), (Mode::GapLast, 86_400_000));
    assert_eq!(rule.since, "2015-01-01".parse().ok());
    assert_eq!(rule.until, "2016-12-31".parse().ok());
    assert_eq!(source.rules[1].within_ms, 0);
}

#[test]
fn odd_but_right() {
    let text = "\u{feff}lake = 's3://acme/단지'\r\nthreads = 0x3\r\nsingle_writer = true\r\nmemory = '300MB'\r\n\
        [sources]\r\n\"b\" = { raw = '/로그', event_time = 't', exclude = [], layout = 'dt=%F/', \
        accept = { from = 2019-04-02T00:00:00+09:00, ahead = '1h30m' }, max_rejects = 0.005, \
        max_record_bytes = 1024, bloom_filters = ['k'], slice = '6h', columns.t = 'timestamp', \
        columns.k = { type = 'decimal(10,2)', path = ['사용자.번호', 'k'], default = '1.50' }, \
        columns.s = { type = 'struct<a:int,b:array<string>>', default = { a = 1, b = ['\"x\"'] } } }\r\n\
        [sources.a]\r\nraw = '/로그'\r\nevent_time = 't'\r\ncolumns = { t = 'timestamp' }\r\n\
        [references.r]\r\npath = 's3://acme/x.JSONL'\r\ncolumns = { z = 'int', a = 'string' }";
    let job = job(text);
    assert_eq!(job.lake, "s3://acme/단지/");
    assert_eq!((job.threads, job.memory), (3, 300_000_000));
    assert!(job.single_writer);
    assert_eq!(job.sources[0].name, "a");
    let source = &job.sources[1];
    assert!(source.exclude.is_empty());
    assert_eq!(source.slice_ms, 6 * 3_600_000);
    assert_eq!(source.max_rejects, 0.005);
    assert_eq!(source.decode.limits.max_record_bytes, 1024);
    assert_eq!(source.decode.accept.from_ms, 1_554_130_800_000);
    assert_eq!(source.decode.columns[1].path, ["사용자.번호", "k"]);
    let reference = &job.references[0];
    assert_eq!(reference.format, ReferenceFormat::Ndjson);
    let columns = vec![
        ("z".into(), ColumnType::Int),
        ("a".into(), ColumnType::String),
    ];
    assert_eq!(reference.columns, Some(columns));
    assert_eq!(loaded(&job.to_toml(), &Overrides::default(), &[]), Ok(job));
}

#[test]
fn a_record_is_no_larger_than_its_object() {
    let limits = |lines: &str| {
        let text = minimal(TOP, &format!("{SOURCE}\n{lines}"), "", "");
        let limits = job(&text).sources[0].decode.limits;
        (limits.max_record_bytes >> 10, limits.max_object_bytes >> 10)
    };
    assert_eq!(limits("max_object_bytes = '1MiB'"), (1_024, 1_024));
    assert_eq!(
        limits("max_object_bytes = '1MiB'\nmax_record_bytes = '1KiB'"),
        (1, 1_024)
    );
    assert_eq!(limits("max_object_bytes = '1GiB'").0, 16 << 10);
}

#[test]
fn what_is_shown_loads_to_the_same_job() {
    let odd = minimal(
        "lake = 's3://b/단지 1/%20+'",
        "event_time = 't'\nraw = { kr = '/로 그', us = 's3://b/a b \"c\"/' }\nmax_object_bytes = '1MiB'",
        "",
        "[references.r]\npath = '표 1/단지 1.csv'\n[references.s]\npath = 's3://b/표 1/단지 1.csv'",
    );
    for text in [DESIGN, GITHUB, &minimal(TOP, SOURCE, "", ""), &odd] {
        let job = job(text);
        let shown = job.to_toml();
        assert_eq!(
            loaded(&shown, &Overrides::default(), &[]),
            Ok(job),
            "{shown}"
        );
    }
}

#[test]
fn the_memory_bounds_threads_and_records() {
    let job = |top: &str, source: &str| {
        let text = minimal(
            &format!("{TOP}\n{top}"),
            &format!("{SOURCE}\n{source}"),
            "",
            "",
        );
        loaded(&text, &Overrides::default(), &[])
    };
    for (top, threads) in [
        ("memory = '256MiB'\nthreads = 8", 8),
        ("memory = '256MiB'\nthreads = 9", 8),
        ("memory = '256MiB'\nthreads = 1024", 8),
        ("threads = 1024", 32),
        ("memory = '64GiB'\nthreads = 1024", 1024),
    ] {
        assert_eq!(job(top, "").unwrap().threads, threads, "{top}");
    }
    // The default memory is enough for the default record.
    assert!(job("memory = '256MiB'", "").is_ok());
    let long = "max_record_bytes = '100MiB'";
    assert!(job("memory = '1600MiB'", long).is_ok());
    let error = job("memory = '1GiB'", long).unwrap_err();
    for part in [
        "sources.a.max_record_bytes: ",
        "100MiB needs 1600MiB of memory, and a run has 1GiB",
        "give more with --memory, or 64MiB or less here",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn flags_win_over_variables_over_the_file_over_defaults() {
    let file = minimal(
        "lake = '/file'\nmemory = '300MiB'\nthreads = 4\nspill_dir = '/spilled'",
        &format!("{SOURCE}\nmax_rejects = '2%'"),
        "",
        "",
    );
    let plain = minimal(TOP, SOURCE, "", "");
    let variables = [
        ("RAWMART_LAKE", "s3://variable"),
        ("RAWMART_MEMORY", "400MiB"),
        ("RAWMART_THREADS", "5"),
        ("RAWMART_SPILL_DIR", "/variable"),
    ];
    let flags = Overrides {
        config: None,
        lake: Some("flag".into()),
        memory: Some("500m".into()),
        threads: Some(6),
        spill_dir: Some("/flag".into()),
        max_rejects: Some("100%".into()),
    };
    let seen = |text: &str, flags: &Overrides, variables: &[(&str, &str)]| {
        let job = loaded(text, flags, variables).unwrap();
        (
            job.lake,
            job.memory >> 20,
            job.threads,
            job.spill_dir.map(|folder| folder.display().to_string()),
            job.sources[0].max_rejects,
        )
    };
    let none = Overrides::default();
    assert_eq!(
        seen(&plain, &none, &[]),
        ("file:///lake/".into(), 1024, 2, None, 0.01)
    );
    assert_eq!(
        seen(&file, &none, &[]),
        (
            "file:///file/".into(),
            300,
            4,
            Some("/spilled".into()),
            0.02
        )
    );
    assert_eq!(
        seen(&file, &none, &variables),
        (
            "s3://variable/".into(),
            400,
            5,
            Some("/variable".into()),
            0.02
        )
    );
    assert_eq!(
        seen(&file, &flags, &variables),
        (
            "file:///etc/flag/".into(),
            500,
            6,
            Some("/flag".into()),
            1.0
        )
    );
    let empty = [("RAWMART_LAKE", ""), ("RAWMART_MEMORY", "")];
    assert_eq!(
        seen(&plain, &none, &empty),
        ("file:///lake/".into(), 1024, 2, None, 0.01)
    );
    // A lake on the command line makes a lake in the file unnecessary.
    let lakeless = minimal("", SOURCE, "", "");
    assert_eq!(
        loaded(&lakeless, &flags, &[]).unwrap().lake,
        "file:///etc/flag/"
    );
}

#[cfg(unix)]
#[test]
fn a_lake_in_another_encoding_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("rawmart.toml"),
        minimal(TOP, SOURCE, "", ""),
    )
    .unwrap();
    let odd = || std::ffi::OsString::from_vec(b"/lak\xe9".to_vec());
    let refused = |overrides: &Overrides, set: &str| {
        let environment = |name: &str| (name == set).then(odd);
        load(overrides, &environment, folder.path())
            .unwrap_err()
            .to_string()
    };
    let none = Overrides::default();
    for name in ["RAWMART_LAKE", "RAWMART_MEMORY", "RAWMART_SPILL_DIR"] {
        let error = refused(&none, name);
        assert!(error.starts_with(&format!("{name}: ")), "{error}");
        assert!(error.contains("is not UTF-8"), "{error}");
    }
    let spill = Overrides {
        spill_dir: Some(odd().into()),
        ..none
    };
    assert!(refused(&spill, "").starts_with("--spill-dir: "));
}

#[cfg(unix)]
#[test]
fn overlaps_through_symbolic_links_are_found() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    for name in ["raw/app", "lake", "other"] {
        std::fs::create_dir_all(here.join(name)).unwrap();
    }
    symlink(here.join("raw"), here.join("link")).unwrap();
    symlink(here.join("lake"), here.join("into")).unwrap();
    let error = |lake: &str, raw: &str| {
        let text = minimal(
            &format!("lake = '{lake}'"),
            &format!("raw = {raw}\nevent_time = 't'"),
            "",
            "",
        );
        std::fs::write(here.join("rawmart.toml"), text).unwrap();
        let loaded = load(&Overrides::default(), &|_| None, here);
        loaded.err().map(|error| error.to_string())
    };
    for (lake, raw, part) in [
        ("link/lake", "'raw'", "symbolic links"),
        ("link", "'raw/app'", "symbolic links"),
        ("lake", "'into/raw'", "symbolic links"),
        (
            "other",
            "{ a = 'raw', b = 'link/app' }",
            "overlaps the root `a`",
        ),
    ] {
        let error = error(lake, raw).unwrap_or_default();
        assert!(error.contains(part), "{lake} {raw}: {error}");
    }
    assert_eq!(error("other/lake", "'link'"), None);
}

#[test]
fn what_is_given_wrongly_is_named() {
    let text = minimal(TOP, SOURCE, "", "");
    let none = Overrides::default();
    for (overrides, variables, parts) in [
        (
            none.clone(),
            vec![("RAWMART_MEMORY", "1MiB")],
            ["RAWMART_MEMORY: ", "256MiB or more"],
        ),
        (
            none.clone(),
            vec![("RAWMART_THREADS", "x")],
            ["RAWMART_THREADS: ", "give 1 or more"],
        ),
        (
            none.clone(),
            vec![("RAWMART_THREADS", "99999999")],
            ["RAWMART_THREADS: ", "1024 or less"],
        ),
        (
            Overrides {
                threads: Some(usize::MAX),
                ..none.clone()
            },
            vec![],
            ["--threads: ", "1024 or less"],
        ),
        (
            none.clone(),
            vec![("RAWMART_LAKE", "gs://x")],
            ["RAWMART_LAKE: ", "not supported"],
        ),
        (
            none.clone(),
            vec![("RAWMART_CONFIG", "no.toml")],
            ["no.toml", "--config"],
        ),
        (
            Overrides {
                threads: Some(0),
                ..none.clone()
            },
            vec![],
            ["--threads: ", "1 or more"],
        ),
        (
            Overrides {
                max_rejects: Some("5".into()),
                ..none.clone()
            },
            vec![],
            ["--max-rejects: ", "write `1%`"],
        ),
        (
            Overrides {
                memory: Some("lots".into()),
                ..none
            },
            vec![],
            ["--memory: ", "16MiB"],
        ),
    ] {
        let error = loaded(&text, &overrides, &variables).unwrap_err();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn the_file_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let nothing = |_: &str| None;
    let error = load(&Overrides::default(), &nothing, folder.path()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no configuration rawmart.toml: write one, or name it with --config or \
         RAWMART_CONFIG"
    );
    let jobs = folder.path().join("jobs");
    std::fs::create_dir(&jobs).unwrap();
    let text = minimal("lake = 'lake'", SOURCE, "", "[marts]\npath = '../marts'");
    std::fs::write(jobs.join("app.toml"), text).unwrap();
    let variable = |name: &str| (name == "RAWMART_CONFIG").then(|| "jobs/app.toml".into());
    let job = load(&Overrides::default(), &variable, folder.path()).unwrap();
    assert!(job.lake.ends_with("/jobs/lake/"), "{}", job.lake);
    assert_eq!(job.marts, Some(folder.path().join("marts")));
    assert!(job.threads >= 1);
    let at_folder = Overrides {
        config: Some(jobs.clone()),
        ..Overrides::default()
    };
    let error = load(&at_folder, &nothing, folder.path())
        .unwrap_err()
        .to_string();
    assert!(error.contains("cannot read the configuration"), "{error}");
    std::fs::write(jobs.join("app.toml"), b"a = 1\nb = '\xff'").unwrap();
    let error = load(&Overrides::default(), &variable, folder.path())
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("jobs/app.toml:2: is not UTF-8"),
        "{error}"
    );
}

#[test]
fn sources_are_selected_by_name() {
    let job = job(DESIGN);
    assert_eq!(job.select(&[]).unwrap().len(), 1);
    assert_eq!(job.select(&["events".into()]).unwrap()[0].name, "events");
    let error = job.select(&["event".into()]).unwrap_err().to_string();
    assert_eq!(error, "--source: `event` is no source, is it `events`?");
}

#[test]
fn envelopes_are_one_step_or_a_list() {
    let with = |lines: &str| minimal(TOP, &format!("{SOURCE}\n{lines}"), "", "");
    let steps = |lines: &str| job(&with(lines)).sources.remove(0).decode.unwrap;
    let path = |text: &str| text.split('.').map(str::to_owned).collect();
    assert_eq!(steps(""), []);
    assert_eq!(
        steps("unwrap = 'cloudwatch-logs'"),
        [UnwrapStep::CloudwatchLogs]
    );
    assert_eq!(
        steps("unwrap = ['firehose-error', 'kafka-connect', 'kinesis-agent', 'dynamodb-json']"),
        [
            UnwrapStep::FirehoseError,
            UnwrapStep::KafkaConnect,
            UnwrapStep::KinesisAgent,
            UnwrapStep::DynamodbJson
        ]
    );
    let general = "unwrap = [{ array = 'Records' }, { member = 'a.b' }, { text = ['m.n'] }]";
    assert_eq!(
        steps(general),
        [
            UnwrapStep::Array(path("Records")),
            UnwrapStep::Member(path("a.b")),
            UnwrapStep::Text(vec!["m.n".to_owned()])
        ]
    );
    // The resolved configuration loads to the same steps.
    let columns = "o = { type = 'string', path = '@envelope.owner' }";
    let source = format!("{SOURCE}\n{general}");
    let first = job(&minimal(TOP, &source, columns, ""));
    let again = job(&first.to_toml());
    assert_eq!(again.sources, first.sources);
    assert!(first.sources[0].decode.columns[2].is_of_envelope());
    // Records that Firehose could not deliver lie under the prefixes that other sources leave out.
    let exclude = |lines: &str| job(&with(lines)).sources.remove(0).exclude;
    assert!(!exclude("unwrap = { text = 'm' }").is_empty());
    assert!(exclude("unwrap = 'firehose-error'").is_empty());
    let own = exclude("unwrap = 'firehose-error'\nexclude = ['x/**']");
    assert_eq!(own, ["x/**"]);
}

/// Wrong files, and parts of the message about each: first the key, then cause and remedy.
#[test]
fn every_error_says_file_key_and_remedy() {
    let dedup = |lines: &str| format!("[[sources.a.dedup]]\n{lines}");
    let ok_rule = "name = 'r'\nkey = ['user_id']\nwithin = '1s'";
    let with_top = |top: &str| minimal(&format!("{TOP}\n{top}"), SOURCE, "", "");
    let with_source = |line: &str| minimal(TOP, &format!("{SOURCE}\n{line}"), "", "");
    let with_column = |line: &str| minimal(TOP, SOURCE, line, "");
    let with_rule = |lines: &str| minimal(TOP, SOURCE, "", &dedup(lines));
    let with_rest = |lines: &str| minimal(TOP, SOURCE, "", lines);
    let long = "x".repeat(128);
    for (text, parts) in [
        (String::new(), vec!["lake: is missing", "--lake"]),
        (
            TOP.into(),
            vec!["sources: there is no source", "[sources.events]"],
        ),
        (
            with_source("unwrap = 'cloudwatch_logs'"),
            vec![
                "sources.a.unwrap: `cloudwatch_logs` is no known envelope, is it `cloudwatch-logs`?",
            ],
        ),
        (
            with_source("unwrap = 'sqs'"),
            vec!["sources.a.unwrap: ", "{ array = \"Records\" }"],
        ),
        (
            with_source("unwrap = []"),
            vec!["sources.a.unwrap: has no step"],
        ),
        (
            with_source("unwrap = [{ array = 'a', text = 'b' }]"),
            vec!["sources.a.unwrap[1]: is one step", "as a list"],
        ),
        (
            with_source("unwrap = { aray = 'a' }"),
            vec!["sources.a.unwrap.aray: unknown key, is it `array`?"],
        ),
        (
            with_source("unwrap = { array = 'a..b' }"),
            vec!["sources.a.unwrap.array: has an empty member name"],
        ),
        (
            with_source("unwrap = 1"),
            vec!["sources.a.unwrap: must be an envelope"],
        ),
        (
            with_column("o = { type = 'string', path = '@envelope.owner' }"),
            vec!["sources.a.columns.o: ", "lie in no envelope", "`unwrap`"],
        ),
        (
            minimal(
                TOP,
                &format!("{SOURCE}\nunwrap = 'kafka-connect'"),
                "o = { type = 'string', path = '@envelope' }",
                "",
            ),
            vec!["sources.a.columns.o: ", "names no member"],
        ),
        (
            with_top("timezon = 'UTC'"),
            vec!["timezon: unknown key, is it `timezone`?"],
        ),
        (
            with_top("zzz = 1"),
            vec!["zzz: unknown key; known here: lake, timezone"],
        ),
        (
            with_top("aws_secret_access_key = 'x'"),
            vec!["credentials never come from this file"],
        ),
        (
            with_top("timezone = 'Seoul'"),
            vec!["timezone: ", "`Asia/Seoul`"],
        ),
        (
            with_top("timezone = 9"),
            vec!["timezone: must be text in quotes, not a whole number"],
        ),
        (
            with_top("memory = '1MiB'"),
            vec!["memory: ", "give 256MiB or more"],
        ),
        (
            with_top("single_writer = 'yes'"),
            vec!["single_writer: must be `true` or `false`"],
        ),
        (with_top("threads = 0"), vec!["threads: ", "give 1 or more"]),
        (
            with_top("threads = 1025"),
            vec!["threads: ", "give 1024 or less"],
        ),
        (
            minimal("lake = 's3://k:secret@b'", SOURCE, "", ""),
            vec!["lake: ", "take that part out"],
        ),
        (
            minimal("lake = '/raw/lake'", SOURCE, "", ""),
            vec!["lake: ", "overlap", "move the lake"],
        ),
        (
            minimal("lake = '/'", SOURCE, "", ""),
            vec!["lake: ", "overlap", "`a`"],
        ),
        (
            minimal(
                "lake = 's3://b/단지 1'",
                "event_time = 't'\nraw = 's3://b/단지 1/앱 로그/'",
                "",
                "",
            ),
            vec!["lake: ", "overlap", "`a`"],
        ),
        (
            minimal(
                TOP,
                "event_time = 't'\nraw = { eu = '/로 그', us = 'file:///%EB%A1%9C%20%EA%B7%B8/us' }",
                "",
                "",
            ),
            vec!["sources.a.raw.us: ", "overlaps the root `eu`"],
        ),
        (
            minimal(TOP, "event_time = 't'", "", ""),
            vec!["sources.a.raw: is missing: write"],
        ),
        (
            minimal(TOP, "raw = '/raw'", "", ""),
            vec!["sources.a.event_time: is missing: name"],
        ),
        (
            minimal(
                TOP,
                "event_time = 't'\nraw = { eu = '/raw', us = './../../../../raw/us' }",
                "",
                "",
            ),
            vec!["sources.a.raw.us: ", "overlaps the root `eu`", "lie apart"],
        ),
        (
            minimal(TOP, "event_time = 't'\nraw = 3", "", ""),
            vec!["sources.a.raw: ", "named roots"],
        ),
        (
            minimal(TOP, "event_time = 't'\nraw = {}", "", ""),
            vec!["sources.a.raw: has no roots"],
        ),
        (
            minimal(TOP, "event_time = 'user_id'\nraw = '/raw'", "", ""),
            vec!["sources.a.event_time: ", "declare it as timestamp"],
        ),
        (
            minimal(TOP, "event_time = 'tt'\nraw = '/raw'", "", ""),
            vec!["sources.a.event_time: `tt` is no declared column, is it `t`?"],
        ),
        (
            with_source("partition = 'day'"),
            vec!["sources.a.partition: ", "is it `partition_by`?"],
        ),
        (
            with_source("partition_by = 'week'"),
            vec!["partition_by: `week`", "`day` or `hour`"],
        ),
        (
            with_source("slice = '5h'"),
            vec!["sources.a.slice: ", "does not divide"],
        ),
        (
            with_source("slice = '2d'"),
            vec!["sources.a.slice: ", "give 1d or less"],
        ),
        (
            with_source("slice = '1d'\npartition_by = 'hour'"),
            vec!["sources.a.slice: ", "give 1h or less"],
        ),
        (
            with_source("timestamp_unit = 'ns'"),
            vec!["timestamp_unit: ", "`ms` or `us`"],
        ),
        (
            with_source("layout = true"),
            vec!["sources.a.layout: ", "`false` where"],
        ),
        (
            with_source("layout = '/%Y/'"),
            vec!["sources.a.layout: ", "take it out"],
        ),
        (
            with_source("layout = '%Y/%!'"),
            vec!["sources.a.layout: ", "no strftime pattern"],
        ),
        (
            with_source("layout = 'logs/'"),
            vec!["sources.a.layout: ", "holds no year"],
        ),
        (
            with_source("exclude = ['a{b']"),
            vec!["sources.a.exclude: ", "is no glob"],
        ),
        (
            with_source("accept = { form = '2010-01-01' }"),
            vec!["sources.a.accept.form: ", "`from`"],
        ),
        (
            with_source("accept.from = '01/02/2010'"),
            vec!["sources.a.accept.from: ", "`2019-04-02`"],
        ),
        (
            with_source("accept.ahead = '1'"),
            vec!["sources.a.accept.ahead: ", "no unit"],
        ),
        (
            with_source("max_rejects = 1"),
            vec!["sources.a.max_rejects: ", "say `1%` or `100%`"],
        ),
        (
            with_source("max_object_bytes = '5GiB'"),
            vec!["max_object_bytes: ", "4GiB or less"],
        ),
        (
            with_source("max_record_bytes = -1"),
            vec!["max_record_bytes: ", "`16MiB`"],
        ),
        (
            with_source("max_record_bytes = '2MiB'\nmax_object_bytes = '1MiB'"),
            vec!["max_record_bytes: ", "more than max_object_bytes"],
        ),
        (
            with_source("compression = 'gzip'"),
            vec!["compression: ", "`snappy` or `zstd`"],
        ),
        (
            with_source("bloom_filters = ['usr_id']"),
            vec!["bloom_filters: ", "is it `user_id`?"],
        ),
        (
            minimal(
                TOP,
                &format!("{SOURCE}\nbloom_filters = ['p']"),
                "p = 'json'",
                "",
            ),
            vec!["sources.a.bloom_filters: ", "single values"],
        ),
        (
            with_column("os = { type = 'varchar' }"),
            vec![
                "sources.a.columns.os.type: `varchar` is no column type",
                "is it `string`?",
            ],
        ),
        (
            with_column("os = 3"),
            vec!["sources.a.columns.os: must be a type such as"],
        ),
        (
            with_column("os = { path = 'x' }"),
            vec!["sources.a.columns.os.type: is missing"],
        ),
        (
            with_column("os = { type = 'string', path = 'a..b' }"),
            vec!["os.path: ", "\"device.os\""],
        ),
        (
            with_column("userId = 'string'"),
            vec![
                "columns.userId: ",
                "Athena and Hive lower-case",
                "write `user_id`",
            ],
        ),
        (
            with_column("\"사용자\" = 'string'"),
            vec!["sources.a.columns.\"사용자\": ", "is no name"],
        ),
        (
            with_column(&format!("{long} = 'string'")),
            vec!["128 bytes", "shorten it"],
        ),
        (
            with_column("dt = 'date'"),
            vec!["sources.a.columns.dt: ", "take another name"],
        ),
        (
            with_column("kept_x = 'int'"),
            vec!["sources.a.columns.kept_x: ", "reserved: dt"],
        ),
        (
            with_column("s = 'struct<userId:int>'"),
            vec![
                "columns.s: ",
                "`userId` is no name",
                "write `user_id`",
                "`paths = { user_id = \"userId\" }`",
            ],
        ),
        (
            with_column(
                "s = { type = 'array<struct<user_id:int>>', paths = { userid = 'userId' } }",
            ),
            vec!["columns.s.paths.userid: ", "is it `user_id`?"],
        ),
        (
            with_column("s = { type = 'map<string,int>', paths = { a = 'A' } }"),
            vec!["`a` is no field", "has no structs inside"],
        ),
        (
            with_column("s = { type = 'struct<a:int>', paths = { a = 'A..b' } }"),
            vec!["s.paths.a: has an empty member name"],
        ),
        (
            with_column("s = { type = 'timestamp', coerce = true }"),
            vec!["s.coerce: nothing is converted to timestamp"],
        ),
        (
            with_column("s = { type = 'bigint', time_formats = ['%Y'] }"),
            vec!["s.time_formats: ", "bigint is no time"],
        ),
        (
            with_column("s = { type = 'date', time_formats = ['%Y-%m-%d %H:%M'] }"),
            vec!["s.time_formats: ", "has a time of day"],
        ),
        (
            with_column("s = { type = 'timestamp', time_formats = ['%d.%m.%Y', '%d.%m %H:%M'] }"),
            vec!["s.time_formats[2]: ", "does not say which day"],
        ),
        (
            with_column("n = { type = 'int', default = 3000000000 }"),
            vec!["n.default: 3000000000 is no"],
        ),
        (
            // Decoding reads a date in this spelling alone.
            with_column("n = { type = 'date', default = '2019-4-2' }"),
            vec!["columns.n.default: ", "is no value of type date"],
        ),
        (
            with_column("n = { type = 'int', default = 'x' }"),
            vec!["columns.n.default: ", "type int"],
        ),
        (
            with_column("n = { type = 'double', default = nan }"),
            vec!["n.default: ", "finite"],
        ),
        (
            with_column("n = { type = 'int', required = 1 }"),
            vec!["n.required: ", "`true` or `false`"],
        ),
        (
            with_rule("key = ['user_id']\nwithin = '1s'"),
            vec!["sources.a.dedup[1].name: is missing"],
        ),
        (
            with_rule("name = 'r'\nwithin = '1s'"),
            vec!["sources.a.dedup[1].key: is missing"],
        ),
        (
            with_rule("name = 'r'\nkey = ['t']"),
            vec!["sources.a.dedup[1].within: is missing"],
        ),
        (
            with_rule("name = 'r'\nkey = []\nwithin = '1s'"),
            vec!["dedup[1].key: is empty"],
        ),
        (
            with_rule("name = 'r'\nkey = ['user']\nwithin = '1s'"),
            vec!["sources.a.dedup[1].key: `user` is no declared column, is it `user_id`?"],
        ),
        (
            with_rule("name = 'r'\nkey = ['raw_object', 'raw_record']\nwithin = '1s'"),
            vec!["sources.a.dedup[1].key: `raw_object` is no declared column"],
        ),
        (
            with_rule(&format!("{ok_rule}\n{}", dedup(ok_rule))),
            vec!["sources.a.dedup[2].name: ", "give another"],
        ),
        (
            with_rule(&format!("{ok_rule}\nmode = 'gaplast'")),
            vec!["dedup[1].mode: ", "`gap-last`"],
        ),
        (
            with_rule("name = 'r'\nkey = 't'\nwithin = '0s'\nmode = 'tumbling'"),
            vec!["dedup[1].within: ", "more than 0"],
        ),
        (
            with_rule(&format!(
                "{ok_rule}\nsince = 2020-01-02\nuntil = 2020-01-01"
            )),
            vec!["dedup[1].until: ", "is before since"],
        ),
        (
            with_rest("[sources.a.dedup]\nname = 'r'"),
            vec!["sources.a.dedup: ", "double brackets"],
        ),
        (
            with_rest("[sources.a_rejects]\nraw = '/b'\nevent_time = 't'\ncolumns.t = 'timestamp'"),
            vec![
                "sources.a_rejects: the table `a_rejects` is made by sources.a already: rename one",
            ],
        ),
        (
            with_rest("[references.a]\npath = 'a.csv'"),
            vec!["references.a: the table `a` is made by sources.a already"],
        ),
        (
            with_rest("[references.r]\npath = 'r.xls'"),
            vec!["references.r.path: ", "add `format"],
        ),
        (
            with_rest("[references.r]\npath = 'r/'"),
            vec!["references.r.path: ", "name one file"],
        ),
        (
            with_rest("[references.r]\npath = 'r.csv'\nencoding = 'klingon'"),
            vec!["references.r.encoding: ", "`cp949`"],
        ),
        (
            with_rest("[references.r]\npath = 'r.parquet'\nnull = ''"),
            vec!["references.r.null: ", "take it out"],
        ),
        (
            with_rest("[marts]\nfolder = 'x'"),
            vec!["marts.folder: unknown key"],
        ),
        (
            with_rest("[marts]\npath = 's3://b/x'"),
            vec!["marts.path: ", "beside the configuration"],
        ),
    ] {
        let error = loaded(&text, &Overrides::default(), &[]).expect_err(&text);
        assert!(error.starts_with("rawmart.toml: "), "{error}");
        assert!(!error.contains("secret@"), "{error}");
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
    }
}

#[test]
fn every_name_of_a_code_page_is_one_encoding() {
    for (names, bytes, text) in [
        (
            &[
                "cp949",
                "CP949",
                "ms949",
                " uhc ",
                "windows-949",
                "euc-kr",
                "ks_c_5601-1987",
            ][..],
            // The first is of KS X 1001, the second only of the code page of Windows.
            &[0xb0, 0xa1, 0x8c, 0x63][..],
            "가똠",
        ),
        (&["cp932", "shift_jis", "windows-31j"], &[0x87, 0x40], "①"),
        (&["cp936", "gbk"], &[0x81, 0x40], "丂"),
        (&["cp950", "big5"], &[0xa4, 0x40], "一"),
        (&["utf-8", "UTF8"], "가".as_bytes(), "가"),
    ] {
        for name in names {
            let job = job(&minimal(
                TOP,
                SOURCE,
                "",
                &format!("[references.r]\npath = 'r.csv'\nencoding = '{name}'"),
            ));
            let reference = job.references.first().unwrap();
            let (read, _, wrong) = reference.encoding.decode(bytes);
            assert!(!wrong, "{name}");
            assert_eq!(read, text, "{name}");
        }
    }
}

#[test]
fn conversions_of_a_source_hold_for_its_columns() {
    let source = format!(
        "{SOURCE}\ncoerce = true\ntime_formats = ['%d.%m.%Y %H:%M', '%d.%m.%Y']\nepoch_timezone = 'Asia/Seoul'"
    );
    let columns = "c = 'bigint'\nday = 'date'\nj = 'json'\ns = { type = 'string', coerce = false }\n\
                   at = { type = 'timestamp', time_formats = [] }\n\
                   list = { type = 'array<struct<a:string,b:struct<c:int>>>', paths = { a = 'A', b.c = 'x.C' } }";
    let job = job(&minimal(TOP, &source, columns, ""));
    let decode = &job.sources[0].decode;
    let of = |name: &str| decode.columns.iter().find(|c| c.name == name).unwrap();
    let coerced = decode.columns.iter().filter(|c| c.coerce);
    let coerced: Vec<&str> = coerced.map(|c| c.name.as_str()).collect();
    assert_eq!(coerced, ["user_id", "c", "list"]);
    assert_eq!(of("at").time_formats, [] as [&str; 0]);
    assert_eq!(of("day").time_formats, ["%d.%m.%Y"]);
    assert_eq!(of("t").time_formats.len(), 2);
    let paths = [
        ("a".to_owned(), vec!["A".to_owned()]),
        ("b.c".to_owned(), vec!["x".to_owned(), "C".to_owned()]),
    ];
    assert_eq!(of("list").paths, paths.into());
    // The printed configuration gives the same job.
    let again = loaded(&job.to_toml(), &Overrides::default(), &[]).unwrap();
    assert_eq!(again.sources, job.sources);
}

#[test]
fn wrong_syntax_is_said_with_its_line() {
    for (text, line) in [
        ("lake = '/lake'\ntimezone = ", "rawmart.toml:2: "),
        ("lake = '/lake'\n\n\nlake = '/lake'", "rawmart.toml:4: "),
        ("[sources.a\n", "rawmart.toml:1: "),
    ] {
        let error = loaded(text, &Overrides::default(), &[]).unwrap_err();
        assert!(error.starts_with(line), "{error}");
    }
}

/// Every key that the page on the configuration has under a heading, and its default.
fn documented(heading: &str) -> Vec<(String, Option<String>)> {
    let page = include_str!("../../docs/configuration.md");
    crate::pages::table(page, heading)
        .into_iter()
        .map(|row| {
            let default = crate::pages::code(&row[1]).map(str::to_owned);
            (crate::pages::code(&row[0]).unwrap().to_owned(), default)
        })
        .collect()
}

#[test]
fn the_page_on_the_configuration_has_every_key_and_no_other() {
    for (heading, keys) in [
        ("Top level", &file::TOP_KEYS[..]),
        ("A source", &source::SOURCE_KEYS),
        ("The accepted times", &source::ACCEPT_KEYS),
        ("A column", &columns::COLUMN_KEYS),
        ("A duplicate rule", &rules::RULE_KEYS),
        ("A reference", &reference::REFERENCE_KEYS),
        ("The marts", &file::MARTS_KEYS),
        ("The catalog", &catalog::CATALOG_KEYS),
    ] {
        let mut documented: Vec<_> = documented(heading)
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        documented.sort();
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        assert_eq!(documented, keys, "{heading}");
    }
}

#[test]
fn the_page_on_the_configuration_has_the_defaults_of_the_code() {
    let rule = "[[sources.a.dedup]]\nname = 'r'\nkey = ['user_id']\nwithin = '1s'\n";
    let reference = "[references.list]\npath = 'list.csv'\ncolumns = { a = 'string' }\n";
    let text = |top: &str, source: &str, column: &str, in_rule: &str, in_reference: &str| {
        let rest = format!("{rule}{in_rule}\n{reference}{in_reference}\n");
        let column = format!("c = {{ type = 'string'{column} }}");
        let (top, source) = (format!("{TOP}\n{top}"), format!("{SOURCE}\n{source}"));
        minimal(&top, &source, &column, &rest)
    };
    let bare = job(&text("", "", "", "", ""));
    let mut checked = 0;
    for (heading, place) in [
        ("Top level", 0),
        ("A source", 1),
        ("A column", 2),
        ("A duplicate rule", 3),
        ("A reference", 4),
    ] {
        for (key, default) in documented(heading) {
            let Some(default) = default else { continue };
            let mut lines = [""; 5];
            let line = match place {
                2 => format!(", {key} = {default}"),
                _ => format!("{key} = {default}"),
            };
            lines[place] = &line;
            let [top, source, column, in_rule, in_reference] = lines;
            let given = job(&text(top, source, column, in_rule, in_reference));
            assert_eq!(given, bare, "{line}");
            checked += 1;
        }
    }
    assert!(checked > 15, "{checked} defaults were read from the page");
    for (key, default) in documented("The accepted times") {
        let line = format!("accept = {{ {key} = {} }}", default.unwrap());
        assert_eq!(job(&text("", &line, "", "", "")), bare, "{line}");
    }
}
