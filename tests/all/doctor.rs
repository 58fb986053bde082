//! `rawmart doctor`: each thing that a run needs is ok, or it says what to do; nothing is left behind.

use serde_json::Value;

use crate::project::{Project, clicks, rawmart};
use crate::s3::{FaultKind, S3Server};

fn config(raw: &str, lake: &str, more: &str) -> String {
    let source = clicks(raw, "at", "", "within = \"1s\"");
    format!("lake = \"{lake}\"\n{more}{source}")
}

/// The checks that are not ok, each with what was found and the remedy.
fn wrong(document: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let checks = document["checks"].as_array().unwrap().iter();
    checks
        .filter(|check| check["ok"] == false)
        .map(|check| {
            let said = format!("{} → {}", text(&check["found"]), text(&check["remedy"]));
            (text(&check["check"]), said)
        })
        .collect()
}

fn names(document: &Value) -> Vec<&str> {
    let checks = document["checks"].as_array().unwrap().iter();
    checks
        .map(|check| check["check"].as_str().unwrap())
        .collect()
}

#[test]
fn a_good_project_on_disk_is_ok_and_nothing_is_left() {
    let project = Project::with(config("raw", "lake", ""), &[]);
    project.write("raw/2019/04/01/00/a", "{\"id\": \"a\", \"at\": 1554076800}");
    project.rawmart(&["run"]).expect(0, &[]);
    let before = project.lake().0;
    let ran = project.rawmart(&["doctor", "--output", "json"]);
    ran.expect(0, &[]);
    let document = ran.json();
    assert_eq!(wrong(&document), []);
    assert_eq!(
        names(&document),
        [
            "configuration",
            "rules and SQL",
            "spill folder",
            "memory",
            "raw of app",
            "lake",
            "writing",
            "conditional writes"
        ]
    );
    assert!(project.lake().0 == before, "doctor left something behind");
    project
        .rawmart(&["doctor"])
        .expect(0, &["ok     memory ", "ok     conditional writes "]);
}

#[test]
fn each_thing_that_is_wrong_is_named_with_a_remedy() {
    let good = config("raw", "lake", "");
    for (config, check, said) in [
        (String::new(), "configuration", "is missing"),
        (
            good.replace("within = \"10m\"", "within = \"soon\""),
            "configuration",
            "is no duration",
        ),
        (
            good.replace("[\"id\"]", "[\"lower(idd)\"]"),
            "rules and SQL",
            "is it `id`?",
        ),
        (
            config("none", "lake", ""),
            "raw of app",
            "is no folder → correct `raw`",
        ),
        (
            config("raw", "lake", "spill_dir = \"none\"\n"),
            "spill folder",
            "set spill_dir to a folder",
        ),
        (
            config("raw", "lake", "memory = \"9000GiB\"\n"),
            "memory",
            "give less with --memory",
        ),
    ] {
        let project = Project::with(config, &[]);
        project.write("raw/2019/04/01/00/a", "{}");
        let ran = project.rawmart(&["doctor", "--output", "json"]);
        let document = ran.json();
        assert_eq!(document["exit"], 2);
        let wrong = wrong(&document);
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert_eq!(wrong[0].0, check);
        assert!(wrong[0].1.contains(said), "{wrong:?}");
    }
    let project = Project::new();
    project.rawmart(&["doctor"]).expect(
        2,
        &[
            "WRONG  configuration",
            "→ `rawmart init RAW_URL` makes a configuration",
        ],
    );
}

#[test]
fn a_bucket_is_asked_who_where_and_whether_it_keeps_conditions() {
    let server = S3Server::start(&["raw", "lake"]);
    let project = Project::with(config("s3://raw/app", "s3://lake/app", ""), &[]);
    let doctor = || {
        let ran = rawmart(
            &project.path(""),
            &["doctor", "--output", "json"],
            &server.env(),
        );
        (ran.json(), ran.code.unwrap())
    };
    // The server of the tests notes the times of writes by a clock of 2024.
    let (document, code) = doctor();
    assert_eq!(code, 2);
    let only = wrong(&document);
    assert_eq!(only.len(), 1, "{only:?}");
    assert_eq!(only[0].0, "clock");
    assert!(
        only[0]
            .1
            .contains(" s ahead of the server's → set the clock"),
        "{only:?}"
    );
    let names = names(&document);
    assert!(
        names.contains(&"credentials for raw of app") && names.contains(&"credentials for lake")
    );
    let who = document["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|check| check["check"] == "credentials for lake");
    let who = who.unwrap()["found"].as_str().unwrap();
    assert!(who.starts_with("access key test, region "), "{who}");
    assert!(
        !document.to_string().contains("testtest"),
        "the secret was printed"
    );
    assert_eq!(server.keys("lake").len(), 0, "doctor left something behind");

    server.ignore_if_none_match();
    let (document, code) = doctor();
    assert_eq!(code, 2);
    let found = wrong(&document);
    assert!(
        found
            .iter()
            .any(|(check, said)| check == "conditional writes"
                && said.contains("single_writer = true")),
        "{found:?}"
    );

    server.fail_next("*", "", 1_000, FaultKind::AccessDenied403);
    let (document, code) = doctor();
    assert_eq!(code, 2);
    assert_eq!(document["error"]["code"], "access_denied");
    server.heal();
    let mut env = server.env();
    for (name, value) in &mut env {
        if name == "AWS_ENDPOINT_URL" {
            *value = "http://127.0.0.1:1".to_owned();
        }
    }
    let ran = rawmart(&project.path(""), &["doctor", "--output", "json"], &env);
    assert_eq!(ran.code, Some(6), "{ran:?}");
    assert_eq!(ran.json()["error"]["code"], "unreachable");
}
