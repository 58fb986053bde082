//! Marts and rules that need more memory than there is. They give the right rows within the memory, or an error
//! in plain words.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::project::{Project, Ran};

const EVENTS: usize = 8_000;

/// 8,000 events `i0`, `i1` and so on, with `n` from 0, and one mart.
fn project(mart: &str, rule: &str) -> Project {
    let project = Project::new();
    let toml = format!(
        "lake = \"lake\"\n[sources.app]\nraw = \"raw\"\nevent_time = \"at\"\n[sources.app.columns]\nid = \"string\"\n\
         at = \"timestamp\"\nn = \"bigint\"\n{rule}\n[marts]\npath = \"sql\"\n"
    );
    project.write("rawmart.toml", toml);
    let line = |n: usize| {
        format!(
            "{{\"id\": \"i{n}\", \"at\": {}, \"n\": {n}}}\n",
            1_554_076_800 + n
        )
    };
    let lines: String = (0..EVENTS).map(line).collect();
    project.write("raw/2019/04/01/00/a.json", lines);
    project.write("sql/m.sql", mart);
    project
}

/// Runs the binary, and gives its result and its peak memory in MiB.
fn run(project: &Project, memory: &str, threads: &str) -> (Ran, u64) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rawmart"))
        .args(["--memory", memory, "--threads", threads, "run"])
        .current_dir(project.path(""))
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let high = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let high = high.and_then(|high| high.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = peak.max(high.unwrap_or(0) >> 10);
        std::thread::sleep(Duration::from_millis(5));
    }
    (Ran::of(child.wait_with_output().unwrap()), peak)
}

#[test]
fn a_join_below_a_join_is_right_in_little_memory() {
    let sql = "SELECT count(*) AS found, sum(q.x) AS x FROM \
               (SELECT a.n AS x, b.n AS y FROM app a JOIN app b ON a.n < b.n) q \
               JOIN (SELECT n FROM app WHERE n IN (2, 4, 7000)) c ON q.y < c.n";
    let project = project(sql, "");
    // For each y < c there are y pairs, whose x are 0 to y - 1.
    let pairs = |c: usize| (0..c).sum::<usize>();
    let sums = |c: usize| (0..c).map(|y| (0..y).sum::<usize>()).sum::<usize>();
    let found = [2, 4, 7000].map(pairs).iter().sum::<usize>().to_string();
    let x = [2, 4, 7000].map(sums).iter().sum::<usize>().to_string();
    for threads in ["1", "2"] {
        project.write("sql/m.sql", format!("{sql}\n-- {threads}\n"));
        let (ran, peak) = run(&project, "256MiB", threads);
        ran.expect(0, &[]);
        assert!((20..512).contains(&peak), "{peak} MiB");
        let cells = project.lake().cells("m", &["found", "x"]);
        assert_eq!(cells, [[found.as_str(), x.as_str()]], "{threads}");
    }
}

#[test]
fn a_sort_of_millions_of_rows_is_right_in_little_memory() {
    // 3.2 million rows: each event joined with the events whose number is the same by 400.
    let sql = "SELECT id, before, row_number() OVER (ORDER BY before DESC, id) AS place FROM \
               (SELECT a.id, b.n AS before, a.n % 2 = 0 AS even FROM app a JOIN app b ON a.n % 20 = b.n % 20)\n";
    let project = project(sql, "");
    for threads in ["1", "2", "8"] {
        project.write("sql/m.sql", format!("{sql}-- {threads}\n"));
        let (ran, peak) = run(&project, "256MiB", threads);
        ran.expect(0, &["3,200,000"]);
        assert!((20..512).contains(&peak), "{peak} MiB");
        project.rawmart(&["verify"]).expect(0, &[]);
    }
}

#[test]
fn a_value_that_would_be_large_is_that_marts_failure_with_its_line() {
    let project = project("", "");
    for (expression, function) in [
        ("repeat('x', 1000000000)", "repeat()"),
        ("lpad(id, 2000000000)", "lpad()"),
        ("cardinality(range(n, 1000000000))", "range()"),
        ("rpad(id, 70000000, 'x')", "rpad()"),
    ] {
        project.write("sql/good.sql", "SELECT count(*) AS c FROM app");
        project.write(
            "sql/m.sql",
            format!("SELECT\n  n,\n  {expression} AS x\nFROM app\n"),
        );
        let (ran, peak) = run(&project, "256MiB", "2");
        ran.expect(
            3,
            &[
                "m.sql:3: ",
                &format!("`{function}` would give"),
                "64.0 MB is the limit",
            ],
        );
        assert!(peak < 512, "{peak} MiB");
        assert_eq!(project.lake().cells("good", &["c"]), [["8000"]]);
    }
    let rule = "[[sources.app.dedup]]\nname = \"r\"\nkey = [\"id\"]\nwithin = \"1s\"\n\
                when = \"length(repeat(id, 100000000)) > 3\"";
    let (ran, peak) = run(&self::project("SELECT id FROM app", rule), "256MiB", "2");
    ran.expect(4, &["rule `r`", "`repeat()` would give"]);
    assert!(peak < 512, "{peak} MiB");
}

#[test]
fn joins_of_everything_with_everything_stay_within_the_memory() {
    let all = "SELECT count(*) AS c FROM app a, app b, app c, app d, app e, app f";
    let (ran, peak) = run(&project(all, ""), "256MiB", "2");
    ran.expect(3, &["m.sql", "--memory"]);
    assert!(peak < 512, "{peak} MiB");
}

/// A text of 400 kB in each of 1,500 rows is stored once, so neither the size of the file nor that of a page tells how
/// wide its rows are.
#[test]
fn wide_rows_that_are_stored_small_stay_within_the_memory() {
    let project = Project::new();
    project.write(
        "rawmart.toml",
        "lake = \"lake\"\n[sources.app]\nraw = \"raw\"\nevent_time = \"at\"\n[sources.app.columns]\nat = \"timestamp\"\n\
         n = \"bigint\"\ntext = \"string\"\n[marts]\npath = \"sql\"\n",
    );
    let text = "x".repeat(400_000);
    let file = project.path("raw/2019/04/01/00/a.json.gz");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let file = std::fs::File::create(file).unwrap();
    let mut raw = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    for n in 0..1_500 {
        let at = 1_554_076_800 + n;
        writeln!(raw, "{{\"at\":{at},\"n\":{n},\"text\":\"{text}\"}}").unwrap();
    }
    raw.finish().unwrap();
    let select = "SELECT sum(length(text)) AS l, count(*) AS c FROM app WHERE n <> 5";
    project.write("sql/m.sql", select);
    let (ran, peak) = run(&project, "256MiB", "2");
    ran.expect(0, &["1,500 events"]);
    assert!(peak < 512, "{peak} MiB");
    let answer = project.rawmart(&["query", "SELECT l, c FROM m"]);
    answer.expect(0, &["599600000  1499"]);
}

#[test]
fn a_signal_ends_a_query_that_does_not_end() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let project = project("SELECT count(*) AS c FROM app a, app b, app c", "");
        let child = project.spawn(&["--threads", "2", "run"], &[]);
        // Waits until the events are published and the mart has run for a while.
        let log = project.path("lake/_rawmart/log/00000000000000000001.published");
        while !log.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(500));
        let sent = Instant::now();
        send(signal, &child);
        let ran = Ran::of(child.wait_with_output().unwrap());
        ran.expect(code, &[]);
        assert!(
            sent.elapsed() < Duration::from_secs(5),
            "{:?}",
            sent.elapsed()
        );
        project.write("sql/m.sql", "SELECT count(*) AS c FROM app");
        project.rawmart(&["run"]).expect(0, &[]);
        assert_eq!(project.lake().cells("m", &["c"]), [["8000"]]);
    }
}

/// Sends a signal to a child process.
fn send(signal: &str, child: &Child) {
    let id = child.id().to_string();
    let sent = Command::new("kill").args([signal, &id]).status();
    assert!(sent.unwrap().success());
}

/// Seconds of CPU that a child process has used.
fn cpu_seconds(child: &Child) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    // User time is the 14th field, in hundredths of a second. The name, which ends above, is the second field.
    let user = fields.split_whitespace().nth(11).unwrap();
    user.parse::<f64>().unwrap() / 100.0
}

#[test]
fn a_query_that_never_lets_go_ends_after_two_seconds_or_at_a_second_signal() {
    // A constant is evaluated by the thread that waits for signals too. This one takes some minutes.
    let endless = "SELECT levenshtein(repeat('a', 900000), repeat('b', 900000)) AS n FROM app";
    let project = project("SELECT count(*) AS c FROM app", "");
    project.rawmart(&["run"]).expect(0, &[]);
    project.write(
        "raw/2019/04/01/01/b.json",
        "{\"id\": \"new\", \"at\": 1554080400, \"n\": 1}\n",
    );
    project.write("sql/m.sql", endless);
    let before = project.lake();
    // Whether the run ended before its two seconds were over.
    let run = |first: &str, second: Option<&str>, code: i32| {
        let child = project.spawn(&["--threads", "2", "run"], &[]);
        while cpu_seconds(&child) < 1.0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        let begun = Instant::now();
        send(first, &child);
        if let Some(second) = second {
            std::thread::sleep(Duration::from_millis(200));
            send(second, &child);
        }
        let ran = Ran::of(child.wait_with_output().unwrap());
        ran.expect(code, &["interrupted by SIG"]);
        assert_eq!(ran.out, "");
        let taken = begun.elapsed();
        assert!(taken < Duration::from_secs(20), "{taken:?}");
        taken < Duration::from_secs(2)
    };
    assert!(!run("-INT", None, 130));
    assert!(!run("-TERM", None, 143));
    // The machine may be too busy to end a process in time, but not every time.
    assert!((0..5).any(|_| run("-INT", Some("-INT"), 130)));
    assert!((0..5).any(|_| run("-TERM", Some("-INT"), 143)));
    assert!(project.lake().0 == before.0, "something has changed");
    project.write("sql/m.sql", "SELECT count(*) AS c FROM app");
    project.rawmart(&["run"]).expect(0, &[]);
    assert_eq!(project.lake().cells("m", &["c"]), [["8001"]]);
    project.rawmart(&["verify"]).expect(0, &[]);
}

#[test]
fn a_rule_and_a_mart_of_thousands_of_terms_run() {
    let terms = |count: usize| {
        let terms: Vec<String> = (0..count).map(|n| format!("n = {n}")).collect();
        terms.join(" OR ")
    };
    let rule = |when: &str| {
        format!(
            "[[sources.app.dedup]]\nname = \"r\"\nkey = [\"id\"]\nwithin = \"1s\"\nwhen = \"{when}\"\n"
        )
    };
    let sql = format!("SELECT count(*) AS c FROM app WHERE {}", terms(2_000));
    let project = self::project(&sql, &rule(&terms(2_000)));
    project.rawmart(&["run"]).expect(0, &[]);
    assert_eq!(project.lake().cells("m", &["c"]), [["2000"]]);
    let sum = format!("{} > 0", vec!["n"; 20_000].join(" + "));
    let project = self::project("SELECT id FROM app", &rule(&sum));
    project
        .rawmart(&["run"])
        .expect(2, &["rule `r`", "more than 400 levels"]);
    let project = self::project(&format!("SELECT id FROM app WHERE {sum}"), "");
    project
        .rawmart(&["run"])
        .expect(2, &["m.sql", "more than 400 levels"]);
    let all = vec!["SELECT id FROM app"; 3_000].join(" UNION ALL ");
    let project = self::project(&all, "");
    project
        .rawmart(&["run"])
        .expect(2, &["m.sql", "more than 500 tables"]);
    let few = vec!["SELECT id FROM app"; 240].join(" UNION ALL ");
    let project = self::project(&format!("SELECT count(*) AS c FROM ({few})"), "");
    project.rawmart(&["run"]).expect(0, &[]);
    assert_eq!(project.lake().cells("m", &["c"]), [["1920000"]]);
}
