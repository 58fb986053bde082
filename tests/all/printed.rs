//! The output of every command: one line of JSON where it is asked for, logs on stderr, and the flags in printed
//! commands.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::project::{Project, Ran, clicks};

/// A source with one event, and a mart.
fn project(mart: &str) -> Project {
    let config = format!(
        "lake = \"lake\"\n[marts]\npath = \"sql\"\n{}",
        clicks("raw", "at", "layout = false", "within = \"1s\"")
    );
    let project = Project::with(config, &[("m", mart)]);
    project.write(
        "raw/a.json",
        "{\"id\": \"a\", \"at\": 1554076800, \"who\": \"x\"}\n",
    );
    project
}

const RIGHT: &str = "SELECT count(*) AS n FROM app";
const WRONG: &str = "SELECT CAST(id AS int) AS n FROM app";

/// Runs a command whose result is JSON.
fn json(project: &Project, args: &[&str]) -> (Ran, Value) {
    let ran = project.rawmart(&[args, &["--output", "json"]].concat());
    let document = ran.json();
    (ran, document)
}

#[test]
fn every_command_prints_one_line_of_json() {
    let project = project(RIGHT);
    for (args, command, outcome) in [
        (&["plan"][..], "plan", "work"),
        (&["run"], "run", "done"),
        (&["run"], "run", "nothing_new"),
        (&["plan"], "plan", "nothing_new"),
        (&["rebuild"], "rebuild", "done"),
        (&["rebuild", "--raw"], "rebuild", "done"),
        (&["history"], "history", "done"),
        (&["history", "1"], "history", "done"),
        (&["verify"], "verify", "done"),
        (&["verify", "--repair"], "verify", "done"),
        (&["tables"], "tables", "done"),
        (&["ddl", "--dialect", "spark"], "ddl", "done"),
        (&["query", "SELECT * FROM app"], "query", "done"),
        (&["config"], "config", "done"),
        (&["run", "-q"], "run", "nothing_new"),
        (&["run", "--help"], "run", "done"),
    ] {
        let (ran, document) = json(&project, args);
        ran.expect(0, &[]);
        assert_eq!(document["command"], command, "{document}");
        assert_eq!(document["outcome"], outcome, "{document}");
        assert_eq!(document["error"], Value::Null, "{document}");
    }
    let (_, version) = json(&project, &["--version"]);
    assert!(version["text"].as_str().unwrap().starts_with("rawmart "));
    assert_eq!(version["command"], Value::Null);
}

#[test]
fn every_failure_prints_one_line_of_json() {
    let project = project(RIGHT);
    project.write("file", "");
    let other = |from: &str, to: &str| {
        let toml = std::fs::read_to_string(project.path("rawmart.toml")).unwrap();
        assert!(toml.contains(from));
        project.write("other.toml", toml.replace(from, to));
    };
    other("\"raw\"", "\"file\"");
    for (args, exit, code, command) in [
        (&[][..], 2, "usage", Value::Null),
        (&["rnu"], 2, "usage", Value::Null),
        (&["run", "--sauce", "x"], 2, "usage", "run".into()),
        (&["plan", "--threads", "many"], 2, "usage", "plan".into()),
        (
            &["rebuild", "--from", "2019-04-01"],
            2,
            "usage",
            "rebuild".into(),
        ),
        (
            &["run", "--source", "none"],
            2,
            "configuration",
            "run".into(),
        ),
        (
            &["--config", "none.toml", "verify"],
            2,
            "configuration",
            "verify".into(),
        ),
        (
            &["--memory", "1", "config"],
            2,
            "configuration",
            "config".into(),
        ),
        (&["history", "7"], 2, "no_such_run", "history".into()),
        (&["query", "SELECT"], 2, "sql", "query".into()),
        (
            &["query", "SELECT 1 AS n FROM app"],
            2,
            "sql",
            "query".into(),
        ),
        (
            &["run", "--spill-dir", "none"],
            2,
            "no_spill_folder",
            "run".into(),
        ),
        (
            &["plan", "--spill-dir", "none"],
            2,
            "no_spill_folder",
            "plan".into(),
        ),
        (
            &["rebuild", "--spill-dir", "none"],
            2,
            "no_spill_folder",
            "rebuild".into(),
        ),
        (
            &["verify", "--lake", "file"],
            2,
            "not_a_folder",
            "verify".into(),
        ),
        (&["run", "--lake", "file"], 2, "not_a_folder", "run".into()),
        (
            &["history", "--lake", "file/x"],
            2,
            "not_a_folder",
            "history".into(),
        ),
        (
            &["run", "--config", "other.toml"],
            2,
            "not_a_folder",
            "run".into(),
        ),
        (
            &["plan", "--config", "other.toml"],
            2,
            "not_a_folder",
            "plan".into(),
        ),
    ] {
        let (ran, document) = json(&project, args);
        ran.expect(exit, &[]);
        assert_eq!(document["error"]["code"], code, "{document}");
        assert_eq!(document["command"], command, "{document}");
        assert_eq!(document["outcome"], "failed", "{document}");
        assert_eq!(document["commits"], serde_json::json!([]), "{document}");
        for member in ["message", "remedy"] {
            let text = document["error"][member].as_str().unwrap();
            assert!(!text.is_empty(), "{document}");
        }
        assert!(ran.err.starts_with("error: "), "{ran:?}");
    }
    assert_eq!(project.lake().commits(), Vec::<&str>::new());
}

#[test]
fn a_failed_mart_is_told_on_stderr_and_in_the_document() {
    let project = project(WRONG);
    project.write("sql/after.sql", "SELECT sum(n) AS n FROM m");
    project.write("sql/well.sql", RIGHT);
    for args in [&["run"][..], &["run", "-q"], &["rebuild", "-q"]] {
        let ran = project.rawmart(args);
        ran.expect(3, &[]);
        for part in [
            "error: 2 of 3 marts failed: m: ",
            "m.sql:1: ",
            "; after: it reads m",
        ] {
            assert!(ran.err.contains(part), "{part}: {ran:?}");
        }
        assert_eq!(ran.out.is_empty(), args.contains(&"-q"), "{ran:?}");
    }
    let (ran, document) = json(&project, &["run"]);
    ran.expect(3, &[]);
    assert_eq!(document["outcome"], "marts_failed");
    let error = &document["error"];
    assert_eq!(error["code"], "mart_failed");
    let failed: Vec<&Value> = error["marts"].as_array().unwrap().iter().collect();
    let names: Vec<&Value> = failed.iter().map(|mart| &mart["name"]).collect();
    assert_eq!(names, ["m", "after"]);
    let reason = failed[0]["reason"].as_str().unwrap();
    assert!(reason.contains("m.sql:1: "), "{reason}");
}

#[test]
fn the_document_has_what_this_run_added_beside_the_totals() {
    let project = project(RIGHT);
    project.rawmart(&["run"]).expect(0, &[]);
    project.write(
        "raw/b.json",
        "{\"id\": \"b\", \"at\": 1554076900, \"who\": \"x\"}\nx\n",
    );
    let (_, document) = json(&project, &["run", "--max-rejects", "100%"]);
    let app = &document["sources"]["app"];
    assert_eq!((&app["records"], &app["events"]), (&3.into(), &2.into()));
    let added = &app["added"];
    assert_eq!(
        (&added["records"], &added["events"]),
        (&2.into(), &1.into())
    );
    assert_eq!(added["rejects"], serde_json::json!({ "not_json": 1 }));
}

#[test]
fn a_quiet_command_prints_nothing_but_errors() {
    let project = project(RIGHT);
    for args in [
        &["run", "-q"][..],
        &["rebuild", "-q"],
        &["verify", "-q"],
        &["run", "-qq"],
    ] {
        let ran = project.rawmart(args);
        ran.expect(0, &[]);
        assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""), "{args:?}");
    }
    // The result is asked for.
    project.rawmart(&["tables", "-q"]).expect(0, &["app"]);
    project.write("lake/app/dt=2019-04-01/stray.parquet", "x");
    let ran = project.rawmart(&["verify", "-q"]);
    ran.expect(7, &["STRAY app/dt=2019-04-01/stray.parquet"]);
    assert!(ran.err.starts_with("error: file:///"), "{ran:?}");
    let ran = project.rawmart(&["run", "-qq", "--source", "none"]);
    ran.expect(2, &["error: --source: `none` is no source"]);
}

/// Every line of stderr, which is JSON.
fn lines(ran: &Ran) -> Vec<Value> {
    let lines = ran.err.lines();
    let lines = lines.map(|line| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}: {ran:?}"))
    });
    lines.collect()
}

#[test]
fn logs_in_json_hold_errors_too() {
    let project = project(WRONG);
    project.write("raw/b.json", "x\n".repeat(2000));
    std::os::unix::fs::symlink("/nonexistent/x", project.path("raw/link")).unwrap();
    for (args, code) in [
        (&["run"][..], "too_many_rejects"),
        (&["run", "--sauce"], "usage"),
        (&[], "usage"),
        (&["--config", "none.toml", "run"], "configuration"),
        (&["run", "--lake", "rawmart.toml"], "not_a_folder"),
        (&["run", "--max-rejects", "100%"], "mart_failed"),
        (&["run", "-q"], "mart_failed"),
    ] {
        let ran = project.rawmart(&[args, &["--log-format", "json"]].concat());
        let lines = lines(&ran);
        let errors: Vec<&Value> = lines
            .iter()
            .filter(|line| line["level"] == "ERROR")
            .collect();
        assert_eq!(errors.len(), 1, "{ran:?}");
        let fields = &errors[0]["fields"];
        assert_eq!(fields["code"], code, "{ran:?}");
        assert_eq!(fields["exit"].as_i64(), ran.code.map(i64::from), "{ran:?}");
        assert!(!fields["message"].as_str().unwrap().is_empty(), "{ran:?}");
        assert!(!fields["remedy"].as_str().unwrap().is_empty(), "{ran:?}");
        assert!(errors[0]["timestamp"].is_string(), "{ran:?}");
    }
}

#[test]
fn log_lines_have_a_time() {
    let project = project(RIGHT);
    let ran = project.rawmart(&["run", "-v"]);
    ran.expect(0, &[]);
    let is_time =
        |word: &str| chrono::DateTime::parse_from_rfc3339(word).is_ok() && word.ends_with('Z');
    assert!(ran.err.lines().count() > 2, "{ran:?}");
    for line in ran.err.lines() {
        assert!(is_time(line.split(' ').next().unwrap()), "{line}");
    }
}

/// Runs the binary on a terminal of its own, with this variable, and gives all that the terminal gets.
fn on_a_terminal(project: &Project, args: &str, name: &str, value: &str) -> String {
    let line = format!("{} {args}", env!("CARGO_BIN_EXE_rawmart"));
    let ran = Command::new("script")
        .args(["-q", "-e", "-c", &line, "/dev/null"])
        .current_dir(project.path(""))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env(name, value)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

#[test]
fn a_simple_terminal_gets_no_codes() {
    let project = project(WRONG);
    let coloured = on_a_terminal(&project, "run", "TERM", "xterm");
    assert!(
        coloured.contains("marts failed") && coloured.contains('\u{1b}'),
        "{coloured:?}"
    );
    for args in ["run", "run --help", "run --sauce", "rebuild -v"] {
        let dumb = on_a_terminal(&project, args, "TERM", "dumb");
        assert!(!dumb.is_empty() && !dumb.contains('\u{1b}'), "{dumb:?}");
        let plain = on_a_terminal(&project, args, "NO_COLOR", "1");
        assert!(!plain.contains("\u{1b}[3"), "{plain:?}");
        let ran = project.rawmart(&args.split(' ').collect::<Vec<_>>());
        assert!(
            !format!("{}{}", ran.out, ran.err).contains('\u{1b}'),
            "{ran:?}"
        );
    }
}

#[test]
fn printed_commands_repeat_the_flags_that_were_given() {
    let project = project(RIGHT);
    project.write("raw/b.json", "x\n".repeat(2000));
    std::fs::rename(project.path("rawmart.toml"), project.path("my job.toml")).unwrap();
    let given = ["--config", "my job.toml", "--lake", "other lake"];
    let rawmart = |args: &[&str]| project.rawmart(&[&given, args].concat());
    let prefix = "rawmart --config 'my job.toml' --lake 'other lake'";
    rawmart(&["run"]).expect(4, &["repeat the command with `--max-rejects 100%`"]);
    rawmart(&["run", "--max-rejects", "100%"]).expect(
        0,
        &[
            &format!("\n  {prefix} plan "),
            &format!("\n  {prefix} verify "),
        ],
    );
    project.write(
        "raw/a.json",
        "{\"id\": \"z\", \"at\": 1554076800, \"who\": \"x\"}\n",
    );
    for verb in ["run", "plan"] {
        let ran = rawmart(&[verb, "--no-marts"]);
        let command = format!("`{prefix} run --replace-changed --no-marts`");
        assert!(
            format!("{}{}", ran.out, ran.err).contains(&command),
            "{ran:?}"
        );
    }
    let ran = rawmart(&["run", "--output", "json"]);
    let message = ran.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains(&format!("`{prefix} run --replace-changed`")),
        "{message}"
    );
    std::fs::remove_file(project.path("other lake/m/part-00000.parquet")).unwrap();
    rawmart(&["verify"]).expect(7, &[&format!("`{prefix} verify --repair` repairs")]);
}
