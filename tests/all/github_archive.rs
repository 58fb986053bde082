//! A configuration and raw objects that differ from the demo: events in the shape that GitHub Archive
//! publishes, written by hand. They have other names, nesting, times, keys and another codec, and no code knows
//! them.

use std::io::Write;

use serde_json::{Value, json};

use crate::project::Project;

const CONFIG: &str = r#"
lake = "warehouse"
timezone = "America/Los_Angeles"

[sources.github]
raw = "archive"
layout = "%Y-%m-%d-%H"
event_time = "created_at"
partition_by = "hour"

[sources.github.columns]
id = { type = "string", required = true }
type = "string"
created_at = "timestamp"
actor_id = { type = "bigint", path = "actor.id" }
login = { type = "string", path = "actor.login" }
repo = { type = "struct<id:bigint,name:string>" }
org = { type = "string", path = "org.login" }
commits = { type = "int", path = "payload.size", default = 0 }
payload = "json"
public = { type = "boolean", default = true }

# The archive has events twice where its crawler overlapped.
[[sources.github.dedup]]
name = "crawled_again"
key = ["id"]
within = "2h"

[[sources.github.dedup]]
name = "starred_again"
when = "type = 'WatchEvent'"
key = ["login", "repo['name']"]
within = "1d"
mode = "gap"

[marts]
path = "dashboards"
"#;

const PUSHES: &str = "\
-- Pushes and commits of each repository.
SELECT
    repo['name'] AS repository,
    count(*) AS pushes,
    sum(commits) AS commits,
    count(DISTINCT login) AS people
FROM github
WHERE type = 'PushEvent'
GROUP BY repo['name']
";

const ACTIVITY: &str = "\
-- Events of each type per local day.
-- partition: dt
SELECT type, count(*) AS events, sum(CASE WHEN org IS NULL THEN 0 ELSE 1 END) AS of_orgs, dt
FROM github
GROUP BY type, dt
";

pub fn event(id: &str, kind: &str, who: (i64, &str), repo: (i64, &str), payload: Value) -> Value {
    json!({
        "id": id,
        "type": kind,
        "actor": {
            "id": who.0,
            "login": who.1,
            "gravatar_id": "",
            "url": format!("https://api.github.example/users/{}", who.1),
        },
        "repo": { "id": repo.0, "name": repo.1 },
        "payload": payload,
        "public": true,
    })
}

pub fn at(mut event: Value, time: &str) -> Value {
    event["created_at"] = time.into();
    event
}

pub fn of(mut event: Value, org: &str) -> Value {
    event["org"] = json!({ "id": 7, "login": org });
    event
}

pub fn gzip(events: &[Value]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    for event in events {
        writeln!(gzip, "{event}").unwrap();
    }
    gzip.finish().unwrap()
}

#[test]
fn another_shape_needs_no_code() {
    let project = Project::new();
    project.write("jobs/github.toml", CONFIG);
    project.write("jobs/dashboards/pushes.sql", PUSHES);
    project.write("jobs/dashboards/team/activity.sql", ACTIVITY);
    let (ada, bo) = ((1, "ada"), (2, "bo"));
    let (river, hill) = ((10, "acme/river"), (11, "bo/hill"));
    let push = |id, who, repo, size: i64| {
        let payload =
            json!({ "push_id": 1, "size": size, "commits": [{ "sha": "f00", "distinct": true }] });
        event(id, "PushEvent", who, repo, payload)
    };
    let star = |id, who, repo| event(id, "WatchEvent", who, repo, json!({ "action": "started" }));
    let twice = at(
        of(push("101", ada, river, 3), "acme"),
        "2015-01-01T15:59:58Z",
    );
    project.write(
        "jobs/archive/2015-01-01-15.json.gz",
        gzip(&[
            at(
                of(push("100", ada, river, 2), "acme"),
                "2015-01-01T15:00:00Z",
            ),
            at(star("102", bo, river), "2015-01-01T15:10:00Z"),
            twice.clone(),
        ]),
    );
    project.write(
        "jobs/archive/2015-01-01-16.json.gz",
        gzip(&[
            twice,
            // Unstarred and starred again. The second event lies in the same chain, in another hour.
            at(star("103", bo, river), "2015-01-01T16:10:00Z"),
            at(push("104", bo, hill, 1), "2015-01-01T16:30:00-08:00"),
            at(
                event("105", "CreateEvent", ada, hill, json!({ "ref": null })),
                "2015-01-01T16:59:59Z",
            ),
        ]),
    );
    // An hour before midnight in Los Angeles, and a record without its id.
    let mut nameless = star("", ada, hill);
    nameless.as_object_mut().unwrap().remove("id");
    project.write(
        "jobs/archive/2015-01-02-07.json.gz",
        gzip(&[
            at(star("106", ada, hill), "2015-01-02T07:59:59Z"),
            at(nameless, "2015-01-02T07:30:00Z"),
        ]),
    );

    let config = ["--config", "jobs/github.toml"];
    let run = |args: &[&str]| project.rawmart(&[&config[..], args].concat());
    let ran = run(&["run", "--output", "json"]);
    ran.expect(0, &[]);
    let source = &ran.json()["sources"]["github"];
    assert_eq!(source["records"], 9);
    assert_eq!(source["events"], 8);
    assert_eq!(source["kept"], 6);
    assert_eq!(
        source["duplicates"],
        json!({ "crawled_again": 1, "starred_again": 1 })
    );
    assert_eq!(source["rejects"], json!({ "missing": 1 }));

    let lake = crate::project::Lake::on_disk(&project.path("jobs/warehouse"));
    let columns = ["dt", "hour", "id", "login", "org", "commits", "public"];
    assert_eq!(
        lake.cells("github", &columns),
        [
            ["2015-01-01", "07", "100", "ada", "acme", "2", "true"],
            ["2015-01-01", "07", "101", "ada", "acme", "3", "true"],
            ["2015-01-01", "07", "102", "bo", "", "0", "true"],
            ["2015-01-01", "08", "105", "ada", "", "0", "true"],
            ["2015-01-01", "16", "104", "bo", "", "1", "true"],
            ["2015-01-01", "23", "106", "ada", "", "0", "true"],
        ]
    );
    let displaced = ["id", "rule", "kept_object", "kept_record"];
    assert_eq!(
        lake.cells("github_duplicates", &displaced),
        [
            ["101", "crawled_again", "2015-01-01-15.json.gz", "3"],
            ["103", "starred_again", "2015-01-01-15.json.gz", "2"],
        ]
    );
    // Members without a column are in `extra` under their path.
    let extra = &lake.rows("github")[0]["extra"];
    let extra: Value = serde_json::from_str(extra.as_deref().unwrap()).unwrap();
    assert_eq!(
        extra,
        json!({
            "actor": { "gravatar_id": "", "url": "https://api.github.example/users/ada" },
            "org": { "id": 7 },
        })
    );

    let pushes = ["repository", "pushes", "commits", "people"];
    assert_eq!(
        lake.cells("pushes", &pushes),
        [["acme/river", "2", "5", "1"], ["bo/hill", "1", "1", "1"]]
    );
    let activity = ["dt", "type", "events", "of_orgs"];
    assert_eq!(
        lake.cells("activity", &activity),
        [
            ["2015-01-01", "CreateEvent", "1", "0"],
            ["2015-01-01", "PushEvent", "3", "2"],
            ["2015-01-01", "WatchEvent", "2", "0"],
        ]
    );
    run(&["run"]).expect(0, &["Nothing new"]);
    run(&["verify"]).expect(0, &["balances"]);
}
