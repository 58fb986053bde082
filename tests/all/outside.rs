//! The surroundings of a run: its terminal and pipes, its folder, links and special files, and text from other
//! sources.

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use crate::project::{Project, Ran};

/// Sets the terminal's title, moves the cursor, clears the screen with one C1 character, and turns text around.
const HOSTILE: &str = "\u{1b}]0;x\u{7}\u{1b}[2J\u{9b}2J\u{202e}gpj\r\u{7f}";

const TOML: &str = r#"
lake = "lake"

[sources.app]
raw = "raw"
layout = false
event_time = "at"

[sources.app.columns]
id = "string"
at = "timestamp"
"#;

fn project(rest: &str) -> Project {
    let project = Project::new();
    project.write("rawmart.toml", format!("{TOML}{rest}"));
    project.write("raw/a.json", event("a"));
    project
}

fn event(id: &str) -> String {
    format!("{{\"id\": \"{id}\", \"at\": 1554076800}}\n")
}

fn obeyed(text: &str) -> bool {
    let turns = |c| ('\u{202a}'..='\u{202e}').contains(&c);
    text.chars()
        .any(|c| (c.is_control() && c != '\n') || turns(c))
}

#[test]
fn nothing_that_others_wrote_commands_a_terminal() {
    let project = project("[references.r]\npath = \"r.csv\"\n[marts]\npath = \"sql\"\n");
    let name = HOSTILE.replace('\r', "");
    project.write(&format!("raw/{name}.json"), "x");
    project.write("r.csv", format!("{HOSTILE}\n\"{HOSTILE}\n1,2\n"));
    project.write("sql/m.sql", format!("SELECT \"{HOSTILE}\" FROM r"));
    let mut failed = 0;
    for args in [
        vec!["run"],
        vec!["run", "-v", "--no-marts"],
        vec!["plan"],
        vec!["plan", "--output", "json"],
        vec!["run", "--output", "json"],
        vec!["--log-format", "json", "-v", "run", "--no-marts"],
        vec!["verify"],
        vec!["history", HOSTILE],
        vec!["--lake", HOSTILE, "verify"],
        vec!["--memory", HOSTILE, "run"],
        vec!["--config", HOSTILE, "run"],
        vec!["run", "--source", HOSTILE],
        vec![HOSTILE],
        vec!["run", HOSTILE],
    ] {
        let ran = project.rawmart(&args);
        assert!(!obeyed(&ran.out), "{args:?}: {ran:?}");
        assert!(!obeyed(&ran.err), "{args:?}: {ran:?}");
        failed += usize::from(ran.code != Some(0));
    }
    assert!(failed > 5);
    let project = Project::new();
    project.write("rawmart.toml", format!("{TOML}\"{HOSTILE}\" = 1\n"));
    let ran = project.rawmart(&["config"]);
    assert!(ran.code == Some(2) && !obeyed(&ran.err), "{ran:?}");
}

/// Runs the binary in the project's folder with other outputs.
fn run_into(project: &Project, args: &[&str], out: Stdio, err: Stdio) -> Ran {
    let child = Command::new(env!("CARGO_BIN_EXE_rawmart"))
        .args(args)
        .current_dir(project.path(""))
        .env_clear()
        .stdout(out)
        .stderr(err)
        .spawn()
        .unwrap();
    Ran::of(child.wait_with_output().unwrap())
}

#[test]
fn a_result_that_cannot_be_printed_is_told_and_the_work_is_done() {
    let full = || {
        Stdio::from(
            std::fs::File::options()
                .write(true)
                .open("/dev/full")
                .unwrap(),
        )
    };
    for output in ["text", "json"] {
        let project = project("");
        let args = ["run", "--output", output];
        let ran = run_into(&project, &args, full(), Stdio::piped());
        ran.expect(
            1,
            &[
                "the result cannot be written to stdout",
                "the work itself is done",
            ],
        );
        assert_eq!(project.lake().commits().len(), 1);
        project.rawmart(&["verify"]).expect(0, &[]);
    }
    // Nobody reads the output. This is no failure, and the work is done.
    let quiet = project("");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ran = run_into(&quiet, &["run"], Stdio::from(writer), Stdio::piped());
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert_eq!(quiet.lake().commits().len(), 1);
    // Logs that nobody reads stop nothing.
    for verbose in ["-q", "-vvv"] {
        for gone in [true, false] {
            let project = project("");
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let err = match gone {
                true => Stdio::from(writer),
                false => full(),
            };
            let ran = run_into(&project, &["run", verbose], Stdio::piped(), err);
            assert_eq!(ran.code, Some(0), "{ran:?}");
            let told = ran.out.contains("Published commit 1");
            assert_eq!(told, verbose != "-q", "{ran:?}");
            assert_eq!(project.lake().commits().len(), 1);
            // Only the exit code tells the error.
            let args = ["run", "--source", "none", verbose];
            let (_, writer) = std::io::pipe().unwrap();
            let ran = run_into(&project, &args, Stdio::piped(), Stdio::from(writer));
            assert_eq!(ran.code, Some(2), "{ran:?}");
        }
    }
}

#[test]
fn a_folder_that_is_gone_is_named() {
    let project = project("");
    let inner = project.path("inner");
    std::fs::create_dir(&inner).unwrap();
    let config = project.path("rawmart.toml");
    let script = "rmdir \"$PWD\"; exec \"$0\" --config \"$1\" run";
    let ran = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_rawmart")])
        .arg(config)
        .current_dir(inner)
        .output();
    Ran::of(ran.unwrap()).expect(
        2,
        &["the current folder cannot be found", "change to a folder"],
    );
}

#[test]
fn links_are_followed_within_the_raw_root_alone() {
    let project = project("");
    project.write("elsewhere/b.json", event("b"));
    project.write("raw/deep/c.json", event("c"));
    let raw = project.path("raw");
    symlink("x", raw.join("x")).unwrap();
    symlink("..", raw.join("deep/up")).unwrap();
    symlink("nowhere", raw.join("nothing")).unwrap();
    symlink("../elsewhere", raw.join("out")).unwrap();
    symlink("../../elsewhere/b.json", raw.join("deep/b.json")).unwrap();
    symlink("deep", raw.join("same")).unwrap();
    let plan = project.rawmart(&["plan", "--output", "json"]).json();
    assert_eq!(
        plan["sources"][0]["skipped"]["link"],
        serde_json::json!([
            "deep/b.json",
            "deep/up",
            "out",
            "same/b.json",
            "same/up",
            "x"
        ])
    );
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(0, &["deep/b.json"]);
    // A link within the root gives the same object another name.
    let app = &ran.json()["sources"]["app"];
    assert_eq!((&app["objects"], &app["records"]), (&3.into(), &3.into()));
    assert_eq!(app["skipped"]["link"], 6);
    // Behind this link there is nothing to read.
    assert_eq!(app["skipped"]["no_file"], 1);
    assert!(ran.err.contains("links"), "{ran:?}");
    // The root itself may be a link.
    std::fs::rename(&raw, project.path("moved")).unwrap();
    symlink("moved", &raw).unwrap();
    project.rawmart(&["run"]).expect(0, &["Nothing new"]);
}

#[test]
fn pipes_and_devices_are_no_files() {
    let pipe = |project: &Project, name: &str| {
        let made = Command::new("mkfifo").arg(project.path(name)).status();
        assert!(made.unwrap().success());
    };
    let rest = "[references.r]\npath = \"r.csv\"\n[marts]\npath = \"sql\"\n";
    for device in [false, true] {
        let project = project(rest);
        project.write("sql/m.sql", "SELECT count(*) AS n FROM r");
        match device {
            true => symlink("/dev/zero", project.path("r.csv")).unwrap(),
            false => pipe(&project, "r.csv"),
        }
        project
            .rawmart(&["run"])
            .expect(2, &["r.csv", "a pipe, a socket or a device"]);
    }
    let project = project("");
    pipe(&project, "raw/b.json");
    let ran = project.rawmart(&["run"]);
    assert!(
        ran.out.contains("keys skipped") || ran.code == Some(4),
        "{ran:?}"
    );
}

/// The reference is larger than the memory for references at 256 MiB.
#[test]
fn a_large_reference_is_read_from_the_spill_folder() {
    let rest = "[references.r]\npath = \"r.csv\"\n[marts]\npath = \"sql\"\n";
    let project = project(rest);
    let text: String = (0..600_000)
        .map(|i| format!("{i},user number {i},{}\n", i % 100))
        .collect();
    project.write("r.csv", format!("id,name,city\n{text}"));
    project.write(
        "sql/m.sql",
        "SELECT count(*) AS n, sum(id) AS ids, max(name) AS name, count(DISTINCT city) AS cities FROM r",
    );
    project
        .rawmart(&["--memory", "256MiB", "run"])
        .expect(0, &[]);
    assert_eq!(
        project.lake().cells("m", &["n", "ids", "name", "cities"]),
        [["600000", "179999700000", "user number 99999", "100"]]
    );
}
