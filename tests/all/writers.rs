//! P6: two runs work in one bucket, and a scheduler lets their requests through one at a time. Either one run
//! is held at each of its requests while the other runs to its end, or both take turns at random.
//!
//! ```text
//! run A ─▶ request, held ─┐
//!                         ├─ scheduler: once every live run has one waiting ─▶ one passes ─▶ bucket
//! run B ─▶ request, held ─┘
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rawmart::report::{Exit, Failure, Outcome};
use tokio::sync::oneshot;

use crate::crash;
use crate::project::{Project, Row};
use crate::s3::{Asked, Control, WRITERS};
use crate::small::{self, Batch, Bucket, FIRST, SECOND, THIRD};

/// The longest time that a run computes between two requests.
const STUCK: Duration = Duration::from_secs(120);

type Content = BTreeMap<String, Vec<Row>>;

#[derive(Default)]
struct State {
    waiting: [VecDeque<(Asked, oneshot::Sender<()>)>; 2],
    /// The requests that were let through, in their order.
    passed: Vec<(usize, Asked)>,
    in_flight: bool,
    ended: [bool; 2],
}

/// Holds every request until it is the turn of its writer.
#[derive(Default)]
struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

fn writer(asked: &Asked) -> usize {
    let found = WRITERS.iter().position(|key| *key == asked.access_key);
    found.unwrap_or_else(|| panic!("{asked:?} is of nobody"))
}

#[async_trait::async_trait]
impl Control for Turns {
    async fn before(&self, asked: &Asked) -> bool {
        let (pass, passed) = oneshot::channel();
        self.state().waiting[writer(asked)].push_back((asked.clone(), pass));
        self.changed.notify_all();
        passed.await.is_ok()
    }

    async fn after(&self, _: &Asked) -> bool {
        self.state().in_flight = false;
        self.changed.notify_all();
        true
    }
}

impl Turns {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn ended(&self, writer: usize) {
        self.state().ended[writer] = true;
        self.changed.notify_all();
    }

    /// Waits until nothing is in flight and every run of `live` has a waiting request or has ended. The choice
    /// then does not depend on which run computes faster. The result is the waiting runs.
    fn settled(&self, live: &[usize]) -> Vec<usize> {
        let settled = |state: &mut State| {
            let unsettled = |w: &usize| state.waiting[*w].is_empty() && !state.ended[*w];
            state.in_flight || live.iter().any(unsettled)
        };
        let state = self.state();
        let (state, timeout) = self
            .changed
            .wait_timeout_while(state, STUCK, settled)
            .unwrap();
        assert!(
            !timeout.timed_out(),
            "stuck behind {:?}",
            state.passed.last()
        );
        let waits = |w: &usize| !state.waiting[*w].is_empty();
        live.iter().copied().filter(waits).collect()
    }

    /// The request of a writer that waits.
    fn next(&self, writer: usize) -> Asked {
        self.state().waiting[writer].front().unwrap().0.clone()
    }

    fn pass(&self, writer: usize) {
        let mut state = self.state();
        let (asked, pass) = state.waiting[writer].pop_front().unwrap();
        state.in_flight = true;
        state.passed.push((writer, asked));
        pass.send(()).unwrap();
    }
}

/// Two runs whose requests are held.
struct Two<'a> {
    bucket: &'a Bucket,
    turns: Arc<Turns>,
}

impl<'a> Two<'a> {
    fn new(bucket: &'a Bucket) -> Self {
        let turns: Arc<Turns> = Arc::default();
        bucket
            .server
            .control(Some(Arc::clone(&turns) as Arc<dyn Control>));
        Self { bucket, turns }
    }

    fn start<'s>(
        &'s self,
        scope: &'s std::thread::Scope<'s, '_>,
        writer: usize,
        repairs: bool,
    ) -> std::thread::ScopedJoinHandle<'s, (Exit, String)> {
        scope.spawn(move || {
            let _ended = Ended(&self.turns, writer);
            let store = self.bucket.store(WRITERS[writer], 1);
            let job = small::job(&self.bucket.project);
            if !repairs {
                return small::exit(small::run(&job, WRITERS[writer], store));
            }
            match small::repair(&job, WRITERS[writer], store) {
                Ok(verified) => {
                    let told = format!("{verified:?}");
                    (Outcome::Verified(verified).exit(), told)
                }
                Err(error) => {
                    let failure = Failure::from(error);
                    (failure.exit(), failure.to_string())
                }
            }
        })
    }
}

impl Two<'_> {
    /// Removes the control. The result is the last requests, for messages.
    fn end(&self) -> String {
        self.bucket.server.control(None);
        let passed = &self.turns.state().passed;
        let last = passed.iter().rev().take(4).rev();
        let last: Vec<_> = last
            .map(|(writer, asked)| format!("{writer}: {} {}", asked.method, asked.path))
            .collect();
        last.join(", ")
    }
}

/// Tells when a run has ended, even by a panic.
struct Ended<'a>(&'a Turns, usize);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.ended(self.1);
    }
}

/// The state in which two runs begin, and the content that must be there in the end.
struct Start {
    bucket: Bucket,
    /// Raw objects that arrive when the first run is held.
    more: Batch,
    expected: Content,
    /// The number of keys on one page of a listing.
    page: usize,
    /// Whether listings come in an order that differs from the order of the bytes.
    scrambled: bool,
    /// Whether the held run is a repair, and whether the other one is.
    repairs: [bool; 2],
}

impl Start {
    fn of(bucket: Bucket, more: Batch, all: &[Batch]) -> Self {
        Self {
            bucket,
            more,
            expected: small::expected(all),
            page: 1_000,
            scrambled: false,
            repairs: [false; 2],
        }
    }

    fn copy(&self) -> Bucket {
        let copy = self.bucket.copy();
        let toml = std::fs::read(self.bucket.project.path("rawmart.toml")).unwrap();
        copy.project.write("rawmart.toml", toml);
        copy.server.page(self.page);
        if self.scrambled {
            copy.server.scramble_listings();
        }
        copy
    }
}

/// A lake with the first batch. The second batch is new to both runs, and one run sees the third batch too.
fn new_objects() -> Start {
    let bucket = Bucket::new();
    bucket.add(FIRST);
    bucket.run("before", 4).unwrap();
    bucket.add(SECOND);
    Start::of(bucket, THIRD, &[FIRST, SECOND, THIRD])
}

/// A lake in which the second batch is committed and nothing of it is published.
fn unpublished() -> Start {
    let bucket = Bucket::new();
    bucket.add(FIRST);
    bucket.run("before", 4).unwrap();
    bucket.add(SECOND);
    bucket
        .server
        .control(Some(Arc::new(DiesBehindItsCommit::default())));
    bucket.run("dead", 1).unwrap_err();
    bucket.server.control(None);
    let lake = bucket.lake();
    assert_eq!(lake.commits().len(), 3, "{:?}", lake.commits());
    assert!(lake.rows("app").len() < 7, "published");
    Start::of(bucket, THIRD, &[FIRST, SECOND, THIRD])
}

/// An empty lake.
fn nothing() -> Start {
    let bucket = Bucket::new();
    bucket.add(FIRST);
    Start::of(bucket, SECOND, &[FIRST, SECOND])
}

#[derive(Default)]
struct DiesBehindItsCommit(Mutex<bool>);

#[async_trait::async_trait]
impl Control for DiesBehindItsCommit {
    async fn before(&self, _: &Asked) -> bool {
        !*self.0.lock().unwrap()
    }

    async fn after(&self, asked: &Asked) -> bool {
        let mut dead = self.0.lock().unwrap();
        *dead |= asked.method == "PUT" && asked.path.contains("/log/");
        !*dead
    }
}

/// A is held after `held` requests, B runs from its beginning to its end, and A goes on. The result is the end
/// of A, or `None` if A ended before it was held.
fn a_zombie(start: &Start, held: usize) -> Option<Exit> {
    let bucket = start.copy();
    let two = Two::new(&bucket);
    let (a, b, revived) = std::thread::scope(|scope| {
        let a = two.start(scope, 0, start.repairs[0]);
        for _ in 0..held {
            if two.turns.settled(&[0]).is_empty() {
                break;
            }
            two.turns.pass(0);
        }
        let revived = !two.turns.settled(&[0]).is_empty();
        bucket.add(start.more);
        let b = two.start(scope, 1, start.repairs[1]);
        while let Some(writer) = two.turns.settled(&[0, 1]).last() {
            two.turns.pass(*writer);
        }
        (a.join().unwrap(), b.join().unwrap(), revived)
    });
    let when = format!("A held behind {held}: {a:?}, B {b:?}, {}", two.end());
    // A repair verifies at its end, and may find files that the other run has just put.
    let meets = start.repairs[0] && a.0 == Exit::Damaged;
    assert!(matches!(a.0, Exit::Done | Exit::Busy) || meets, "{when}");
    assert_eq!(b.0, Exit::Done, "{when}");
    bucket.recovers(&start.expected, &when);
    revived.then_some(a.0)
}

/// A removes files that a rebuild has left, and is held at one of its deletions. B finishes what A has begun, and
/// rebuilds the lake back to the names that A removes. Then A goes on.
fn a_removal_is_held(start: &Bucket, held: usize) {
    let bucket = start.copy();
    let (there, back) = (
        small::project("s3://raw/app", "s3://lake/small"),
        &bucket.project,
    );
    crash::repartition(&there, "hour");
    let two = Two::new(&bucket);
    let run = |project: &Project, writer: usize| {
        let _ended = Ended(&two.turns, writer);
        let store = bucket.store(WRITERS[writer], 1);
        let options = crash::rebuild_all();
        let job = small::job(project);
        small::exit(small::run_with(&job, &options, WRITERS[writer], store))
    };
    let (a, b) = std::thread::scope(|scope| {
        let a = scope.spawn(|| run(&there, 0));
        let mut deletions = 0;
        loop {
            assert!(!two.turns.settled(&[0]).is_empty(), "A has ended");
            if two.turns.next(0).method == "DELETE" {
                if deletions == held {
                    break;
                }
                deletions += 1;
            }
            two.turns.pass(0);
        }
        let b = scope.spawn(|| run(back, 1));
        while let Some(writer) = two.turns.settled(&[0, 1]).last() {
            two.turns.pass(*writer);
        }
        (a.join().unwrap(), b.join().unwrap())
    });
    let when = format!(
        "A held at its deletion {held}: {a:?}, B {b:?}, {}",
        two.end()
    );
    assert_eq!((a.0, b.0), (Exit::Busy, Exit::Done), "{when}");
    bucket.recovers(&small::expected(&[FIRST, SECOND]), &when);
}

#[test]
fn a_removal_that_is_held_takes_no_file_of_another_run() {
    let start = Bucket::new();
    for batch in [FIRST, SECOND] {
        start.add(batch);
    }
    start.run("before", 4).unwrap();
    for held in [0, 3] {
        a_removal_is_held(&start, held);
    }
}

fn zombies(start: &Start, from: usize, step: usize) {
    let mut ends = Vec::new();
    for held in (from..).step_by(step) {
        let Some(end) = a_zombie(start, held) else {
            break;
        };
        ends.push(end);
    }
    assert!(ends.contains(&Exit::Busy), "{ends:?}");
    assert!(ends.len() * step > 40, "{ends:?}");
}

#[test]
fn a_run_held_at_some_requests_harms_no_other() {
    // After 35 requests the first run is in the middle of probing the store.
    zombies(&nothing(), 8, 9);
    zombies(&new_objects(), 0, 9);
    zombies(&unpublished(), 1, 9);
}

/// Each version of a partition has a folder of its own.
#[test]
fn a_run_with_versions_held_at_some_requests_harms_no_other() {
    let bucket = Bucket::new();
    small::with_versions(&bucket.project);
    bucket.add(FIRST);
    bucket.run("before", 4).unwrap();
    bucket.add(SECOND);
    zombies(&Start::of(bucket, THIRD, &[FIRST, SECOND, THIRD]), 3, 11);
}

/// A and B take turns at random. B starts at the beginning or a while later.
fn turns_at_random(start: &Start, seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let bucket = start.copy();
    let two = Two::new(&bucket);
    let (a, b) = std::thread::scope(|scope| {
        let a = two.start(scope, 0, start.repairs[0]);
        for _ in 0..random.random_range(0..60) {
            if two.turns.settled(&[0]).is_empty() {
                break;
            }
            two.turns.pass(0);
        }
        bucket.add(start.more);
        let b = two.start(scope, 1, start.repairs[1]);
        // Long stretches of one writer reach other states than a fair coin does.
        let stays = *[0.5, 0.8, 0.95].choose(&mut random).unwrap();
        let mut last = 0;
        loop {
            let waiting = two.turns.settled(&[0, 1]);
            let Some(any) = waiting.choose(&mut random) else {
                break;
            };
            if !(waiting.contains(&last) && random.random_bool(stays)) {
                last = *any;
            }
            two.turns.pass(last);
        }
        (a.join().unwrap(), b.join().unwrap())
    });
    let when = format!("seed {seed}: A {a:?}, B {b:?}, {}", two.end());
    for end in [a.0, b.0] {
        assert!(matches!(end, Exit::Done | Exit::Busy), "{when}");
    }
    bucket.recovers(&start.expected, &when);
}

/// A repair is held while a run goes on from the damage that it was about to repair.
fn repairs(from: usize, step: usize) {
    let mut rolls_forward = unpublished();
    rolls_forward.repairs[0] = true;
    // A published file has changed, and its staged copy was not swept yet.
    let mut puts_back = new_objects();
    // A run does not go on over a file that differs from the published one.
    puts_back.repairs = [true; 2];
    let server = &puts_back.bucket.server;
    let objects = server.objects("lake");
    let commit = &objects["small/_rawmart/log/00000000000000000001"];
    let commit: serde_json::Value = serde_json::from_slice(commit).unwrap();
    let staged = commit["files"][0]["staged"].as_str().unwrap();
    let (_, key) = staged.split_once("/app/").unwrap();
    let key = format!("small/app/{key}");
    server.put("lake", &format!("small/{staged}"), objects[&key].clone());
    server.put("lake", &key, "damaged");
    for start in [rolls_forward, puts_back] {
        for held in (from..).step_by(step) {
            if a_zombie(&start, held).is_none() {
                break;
            }
        }
    }
}

#[test]
fn a_repair_held_at_some_requests_harms_no_other() {
    repairs(1, 9);
}

#[test]
#[ignore = "minutes: every request, a step of .ci/run"]
fn a_repair_held_at_any_request_harms_no_other() {
    repairs(0, 1);
}

#[test]
fn two_runs_that_take_turns_harm_no_other() {
    let starts = [nothing(), new_objects(), unpublished()];
    for seed in 0..36 {
        turns_at_random(&starts[seed as usize % 3], seed);
    }
}

/// An object that is created during a listing of the log is seen or not. It is never seen without the objects
/// that were there before it.
#[test]
fn a_log_of_many_pages_is_listed_while_it_grows() {
    let mut start = new_objects();
    start.page = 3;
    zombies(&start, 0, 11);
}

#[test]
fn a_log_that_is_listed_in_no_order_is_listed_while_it_grows() {
    let mut start = new_objects();
    start.page = 1;
    start.scrambled = true;
    for held in 0..6 {
        a_zombie(&start, held);
    }
}

#[test]
#[ignore = "minutes: hundreds of interleavings, a step of .ci/run"]
fn two_runs_that_take_turns_in_many_ways_harm_no_other() {
    let starts = [nothing(), new_objects(), unpublished()];
    for seed in 1_000..1_600 {
        turns_at_random(&starts[seed as usize % 3], seed);
    }
}

#[test]
#[ignore = "minutes: every request, a step of .ci/run"]
fn a_run_held_at_any_request_harms_no_other() {
    zombies(&nothing(), 0, 1);
    zombies(&new_objects(), 0, 1);
    zombies(&unpublished(), 0, 1);
}
