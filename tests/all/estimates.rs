//! What `plan` estimates, against what the run then does: data files and requests, on the S3 server of the tests.

use serde_json::Value;

use crate::project::{Project, clicks, rawmart};
use crate::s3::S3Server;

struct Lake {
    server: S3Server,
    project: Project,
}

/// Settings of the rule `double_click`.
const BEFORE: &str = "within = \"1s\"";
const AFTER: &str = "within = \"30s\"";

fn toml(double_click: &str) -> String {
    let source = clicks("s3://raw/app", "at", "max_rejects = \"100%\"", double_click);
    format!("lake = \"s3://lake/app\"\n{source}\n[marts]\npath = \"sql\"\n")
}

/// The objects of some hours of a day of April 2019. An event is delivered twice, and some are clicks within
/// seconds.
fn add(server: &S3Server, day: u32, hours: std::ops::Range<u32>, reject: bool) {
    for hour in hours {
        let event = |id: u32, second: u32| {
            format!(
                "{{\"id\":\"{day}-{hour}-{id}\",\"at\":\"2019-04-{day:02}T{hour:02}:10:{second:02}Z\",\
                 \"who\":\"u{}\"}}\n",
                id % 3
            )
        };
        let mut lines: String = (0..20).map(|id| event(id, id * 2)).collect();
        lines += &event(0, 0);
        if reject {
            lines += "no JSON\n";
        }
        let key = format!("app/2019/04/{day:02}/{hour:02}/events.json");
        server.put("raw", &key, lines);
    }
}

#[derive(Debug)]
struct Cost {
    files: u64,
    list: u64,
    get: u64,
    put: u64,
}

impl Cost {
    fn requests(&self) -> u64 {
        self.list + self.get + self.put
    }
}

impl Lake {
    fn new(marts: &[(&str, &str)]) -> Self {
        let project = Project::with(toml(BEFORE), marts);
        std::fs::create_dir_all(project.path("sql")).unwrap();
        Self {
            server: S3Server::start(&["raw", "lake"]),
            project,
        }
    }

    fn rawmart(&self, args: &[&str]) -> Value {
        let args = [args, &["--output", "json"]].concat();
        let ran = rawmart(&self.project.path(""), &args, &self.server.env());
        ran.expect(0, &[]);
        ran.json()
    }

    fn planned(&self, flags: &[&str]) -> Cost {
        let plan = self.rawmart(&[&["plan"], flags].concat());
        let estimate = &plan["estimate"];
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{plan}"));
        Cost {
            files: number(&estimate["files_written"]),
            list: number(&estimate["requests"]["list"]),
            get: number(&estimate["requests"]["get"]),
            put: number(&estimate["requests"]["put"]),
        }
    }

    fn done(&self, args: &[&str]) -> Cost {
        self.server.clear_log();
        let summary = self.rawmart(args);
        let log = self.server.log();
        let count = |names: &[&str]| {
            let of_kind = log
                .iter()
                .filter(|(operation, _)| names.iter().any(|name| operation == name));
            of_kind.count() as u64
        };
        Cost {
            files: summary["files"].as_u64().unwrap(),
            list: count(&["ListObjectsV2"]),
            get: count(&["GetObject", "HeadObject"]),
            put: log.len() as u64
                - count(&[
                    "ListObjectsV2",
                    "GetObject",
                    "HeadObject",
                    "DeleteObjects",
                    "DeleteObject",
                ]),
        }
    }

    /// Plans, acts, and compares.
    fn compare(&self, shape: &str, plan: &[&str], act: &[&str]) {
        let planned = self.planned(plan);
        let done = self.done(act);
        let near = |a: u64, b: u64| a <= 2 * b && b <= 2 * a;
        assert!(
            near(planned.files, done.files),
            "{shape}: {planned:?} {done:?}"
        );
        assert!(
            near(planned.requests(), done.requests()),
            "{shape}: {planned:?} {done:?}"
        );
        for (a, b) in [(planned.get, done.get), (planned.put, done.put)] {
            assert!(near(a, b), "{shape}: {planned:?} {done:?}");
        }
    }
}

const DAILY: &str = "-- partition: dt\nSELECT dt, who, count(*) AS n FROM app GROUP BY dt, who\n";
const TOTAL: &str = "SELECT count(*) AS n FROM app\n";
const WEEK: &str = "-- partition: dt\n-- reads: daily back 6d\n\
    SELECT CAST(sum(w.n) AS bigint) AS n, daily.dt FROM daily JOIN daily AS w ON w.dt <= daily.dt GROUP BY daily.dt\n";

fn shapes(marts: &[(&str, &str)], reject: bool) {
    let lake = Lake::new(marts);
    for day in 1..=5 {
        add(&lake.server, day, 0..24, reject);
    }
    lake.compare("first run", &[], &["run"]);
    add(&lake.server, 6, 0..1, reject);
    lake.compare("next day", &[], &["run"]);
    add(&lake.server, 6, 1..2, reject);
    lake.compare("next hour", &[], &["run"]);
    lake.server.put(
        "raw",
        "app/2019/04/06/02/late.json",
        "{\"id\":\"late\",\"at\":\"2019-04-03T10:30:00Z\",\"who\":\"u9\"}\n",
    );
    lake.compare("late events", &[], &["run"]);
    lake.compare("nothing to do", &[], &["run"]);
    let day = ["--from", "2019-04-03", "--to", "2019-04-03"];
    lake.compare(
        "raw rebuild of a day",
        &[&["--rebuild", "--raw"], &day[..]].concat(),
        &[&["rebuild", "--raw"], &day[..]].concat(),
    );
    lake.compare(
        "raw rebuild",
        &["--rebuild", "--raw"],
        &["rebuild", "--raw"],
    );
    lake.project.write("rawmart.toml", toml(AFTER));
    lake.compare("rule rebuild", &["--rebuild"], &["rebuild"]);
    let hours = toml(AFTER).replace(
        "[sources.app]\n",
        "[sources.app]\npartition_by = \"hour\"\n",
    );
    lake.project.write("rawmart.toml", hours);
    lake.compare(
        "rebuild into other partitions",
        &["--rebuild"],
        &["rebuild"],
    );
}

#[test]
fn a_plan_of_a_source_is_near_what_the_run_does() {
    shapes(&[], false);
}

#[test]
fn a_plan_of_a_source_with_rejects_is_near_what_the_run_does() {
    shapes(&[], true);
}

#[test]
fn a_plan_with_marts_is_near_what_the_run_does() {
    shapes(&[("daily", DAILY), ("total", TOTAL), ("week", WEEK)], false);
}
