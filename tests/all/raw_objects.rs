//! Raw objects that change, are deleted, or are not listed, and the answer of a run to each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::project::{Project, rawmart};
use crate::s3::{Asked, Control, Peek};
use crate::small::{self, Batch, Bucket, FIRST, SECOND};

/// The key and content of an object that is uploaded over another.
const CORRECTED: Batch = &[(FIRST[0].0, SECOND[0].1)];

fn with(project: &Project, setting: &str) {
    let toml = std::fs::read_to_string(project.path("rawmart.toml")).unwrap();
    let set = format!("[sources.app]\n{setting}\n");
    project.write("rawmart.toml", toml.replace("[sources.app]\n", &set));
}

fn after(batches: &[Batch], setting: &str) -> Project {
    let project = small::on_disk(&[FIRST]);
    with(&project, setting);
    project.rawmart(&["run"]).expect(0, &[]);
    for batch in batches {
        small::add(&project, batch);
    }
    project
}

#[test]
fn changed_objects_replace_their_events_where_the_configuration_says_so() {
    let project = after(&[CORRECTED], "on_changed_object = \"replace\"");
    let planned = ["changed", FIRST[0].0, "files of app (", "): who, dt"];
    project.rawmart(&["plan"]).expect(0, &planned);
    project.rawmart(&["run"]).expect(0, &["Published commit"]);
    let fresh = small::on_disk(&[FIRST, CORRECTED]);
    fresh.rawmart(&["run"]).expect(0, &[]);
    small::assert_whole(&project.lake(), &small::content(&fresh.lake()), "replaced");
    project.rawmart(&["verify"]).expect(0, &[]);
    project.rawmart(&["run"]).expect(0, &["Nothing new"]);
}

#[test]
fn changed_objects_are_left_alone_where_the_configuration_says_so() {
    let project = after(&[CORRECTED], "on_changed_object = \"ignore\"");
    let before = project.lake();
    project.rawmart(&["run"]).expect(0, &["Nothing new"]);
    assert!(project.lake().0 == before.0);
    // Reading the object again would give the other content.
    project.rawmart(&["rebuild", "--raw"]).expect(
        4,
        &[
            "1 raw objects that were absorbed have other content now",
            FIRST[0].0,
        ],
    );
    small::add(&project, SECOND);
    project.rawmart(&["run"]).expect(0, &["Published commit"]);
    small::assert_whole(
        &project.lake(),
        &small::expected(&[FIRST, SECOND]),
        "ignored",
    );
    // The earlier content stays until somebody asks for the new one.
    project
        .rawmart(&["run", "--replace-changed"])
        .expect(0, &["Published commit"]);
    let expected = small::expected(&[FIRST, SECOND, CORRECTED]);
    small::assert_whole(&project.lake(), &expected, "replaced");
}

/// An object of a month long before the others.
const LATE: Batch = &[(
    "2024/01/20/14/late",
    r#"{"id":"j1","time":"2024-01-20T14:10:00Z","who":"jan"}"#,
)];

#[test]
fn settled_prefixes_are_listed_on_request() {
    let bucket = Bucket::new();
    with(&bucket.project, "settled = \"1d\"");
    bucket.add(FIRST);
    let env = bucket.server.env();
    let run = |args: &[&str]| rawmart(&bucket.project.path(""), args, &env);
    run(&["run"]).expect(0, &[]);
    bucket.add(LATE);
    run(&["run"]).expect(0, &["Nothing new"]);
    bucket.add(SECOND);
    run(&["run"]).expect(0, &["3 new", "Published commit"]);
    run(&["plan"]).expect(0, &["nothing to do"]);
    run(&["run", "--relist"]).expect(0, &["1 new", "Published commit"]);
    let expected = small::expected(&[FIRST, SECOND, LATE]);
    small::assert_whole(&bucket.lake(), &expected, "relisted");
    run(&["verify"]).expect(0, &[]);
}

/// Deletes an object when it is first asked for.
struct Deletes {
    key: &'static str,
    done: AtomicBool,
    bucket: Peek,
}

#[async_trait::async_trait]
impl Control for Deletes {
    async fn before(&self, asked: &Asked) -> bool {
        let asked_for = asked.method == "GET" && asked.path.contains(self.key);
        if asked_for && !self.done.swap(true, Ordering::Relaxed) {
            self.bucket.remove("raw", &format!("app/{}", self.key));
        }
        true
    }

    async fn after(&self, _: &Asked) -> bool {
        true
    }
}

#[test]
fn an_object_that_goes_between_listing_and_reading() {
    let bucket = Bucket::new();
    bucket.add(FIRST);
    let key = FIRST[1].0;
    bucket.server.control(Some(Arc::new(Deletes {
        key,
        done: AtomicBool::new(false),
        bucket: bucket.server.peek(),
    })));
    let run = || rawmart(&bucket.project.path(""), &["run"], &bucket.server.env());
    run().expect(6, &[key, "was listed and is gone by now", "run again"]);
    assert!(bucket.lake().commits().is_empty());
    run().expect(0, &["Published commit"]);
    let rest = small::on_disk(&[&FIRST[..1], &FIRST[2..]]);
    rest.rawmart(&["run"]).expect(0, &[]);
    small::assert_whole(&bucket.lake(), &small::content(&rest.lake()), "without it");
}
