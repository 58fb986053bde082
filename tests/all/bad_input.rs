//! What may be wrong with what is given, one case each: the exit code, a message that says what,
//! where and what to do, and nothing half-published.

use std::io::Write;

use crate::project::{Lake, Project, Ran};

const COLUMNS: &str = r#"
[sources.app.columns]
id = "string"
at = "timestamp"
n = "bigint"
"#;

const RULE: &str = r#"
[[sources.app.dedup]]
name = "redelivery"
key = ["id"]
within = "10m"
"#;

const HOUR: &str = "raw/2019/04/01/00";

fn line(id: usize) -> String {
    let at = 1_554_076_800 + id;
    format!("{{\"id\": \"i{id}\", \"at\": {at}, \"n\": {}}}\n", id % 7)
}

fn lines(ids: std::ops::Range<usize>) -> String {
    ids.map(line).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

/// The settings of the source, and what follows its columns.
fn toml(source: &str, rest: &str) -> String {
    format!(
        "lake = \"lake\"\n[sources.app]\nraw = \"raw\"\nevent_time = \"at\"\n{source}\n\
         {COLUMNS}\n{rest}\n"
    )
}

/// A project that is right, with one object of 20 events.
fn project() -> Project {
    let project = Project::new();
    project.write("rawmart.toml", toml("", RULE));
    project.write(&format!("{HOUR}/a.json"), lines(0..20));
    project
}

/// A project that is right but for its configuration.
fn configured(source: &str, rest: &str) -> Project {
    let project = project();
    project.write("rawmart.toml", toml(source, rest));
    project
}

/// A project that is right but for one mart.
fn with_mart(sql: &str) -> Project {
    let project = configured("", "[marts]\npath = \"sql\"\n");
    project.write("sql/bad.sql", sql);
    project
}

/// The run is refused in these words, and leaves neither data nor a commit.
fn refused(project: &Project, code: i32, parts: &[&str]) {
    project.rawmart(&["run"]).expect(code, parts);
    assert_empty(&project.lake());
}

fn assert_empty(lake: &Lake) {
    assert_eq!(lake.data_files().count(), 0, "half-published");
    assert_eq!(lake.commits(), Vec::<&str>::new());
}

fn counts(ran: &Ran) -> (u64, u64, serde_json::Value) {
    let source = &ran.json()["sources"]["app"];
    let number = |name: &str| source[name].as_u64().unwrap();
    (
        number("records"),
        number("events"),
        source["rejects"].clone(),
    )
}

#[test]
fn what_is_right_runs() {
    let project = project();
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(0, &[]);
    assert_eq!(counts(&ran), (20, 20, serde_json::json!({})));
}

#[test]
fn no_configuration() {
    let project = Project::new();
    project
        .rawmart(&["run"])
        .expect(2, &["rawmart.toml", "--config"]);
    project
        .rawmart(&["--config", "jobs/x.toml", "plan"])
        .expect(2, &["jobs/x.toml"]);
}

#[test]
fn a_missing_raw_folder() {
    let project = project();
    std::fs::remove_dir_all(project.path("raw")).unwrap();
    refused(&project, 2, &["/raw/ does not exist", "sources.app.raw"]);
}

#[test]
fn an_empty_raw_folder() {
    let project = project();
    std::fs::remove_dir_all(project.path("raw")).unwrap();
    std::fs::create_dir(project.path("raw")).unwrap();
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(0, &[]);
    assert_eq!(counts(&ran), (0, 0, serde_json::json!({})));
    assert_eq!(project.lake().data_files().count(), 0);
    // The first event makes the tables.
    project.write(&format!("{HOUR}/a.json"), lines(0..20));
    project.rawmart(&["run"]).expect(0, &["20"]);
    assert_eq!(project.lake().rows("app").len(), 20);
}

#[test]
fn a_truncated_gzip() {
    let project = project();
    let whole = gzip(&lines(20..400));
    project.write(&format!("{HOUR}/b.gz"), &whole[..whole.len() * 2 / 3]);
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(0, &[]);
    let (records, events, rejects) = counts(&ran);
    assert_eq!(rejects, serde_json::json!({ "codec": 1 }));
    assert_eq!(records, events + 1);
    assert!((20..400).contains(&events), "{events}");
    let found = project
        .lake()
        .cells("app_rejects", &["raw_object", "raw_record", "reason"]);
    let last = (events - 20 + 1).to_string();
    assert_eq!(found, [["2019/04/01/00/b.gz", &last, "codec"]]);
    project.rawmart(&["verify"]).expect(0, &["balances"]);
}

#[test]
fn a_name_that_says_another_codec() {
    // The content decides.
    let project = project();
    project.write(&format!("{HOUR}/b.gz"), lines(20..30));
    project.write(&format!("{HOUR}/c.json"), gzip(&lines(30..40)));
    project.write(
        &format!("{HOUR}/d.gz"),
        zstd::encode_all(lines(40..50).as_bytes(), 1).unwrap(),
    );
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(0, &[]);
    assert_eq!(counts(&ran), (50, 50, serde_json::json!({})));
}

#[test]
fn bytes_that_are_no_events() {
    let project = project();
    let noise: Vec<u8> = (0..5_000u32).map(|i| (i * i % 251) as u8).collect();
    project.write(&format!("{HOUR}/b.bin"), noise);
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(0, &[]);
    let (records, events, rejects) = counts(&ran);
    let rejects: u64 = rejects
        .as_object()
        .unwrap()
        .values()
        .map(|n| n.as_u64().unwrap())
        .sum();
    assert_eq!(events, 20);
    assert!(rejects > 0);
    assert_eq!(records, events + rejects);
    assert_eq!(project.lake().rows("app_rejects").len() as u64, rejects);
}

#[test]
fn wrong_settings() {
    for (source, rest, parts) in [
        (
            "",
            "[sources.app.columns.x]\ntype = \"varchar\"\n",
            &["sources.app.columns.x", "varchar", "is it `string`?"][..],
        ),
        (
            "",
            "[[sources.app.dedup]]\nname = \"r\"\nkey = [\"idd\"]\nwithin = \"1s\"\n",
            &["sources.app.dedup", "`idd`", "is it `id`?"],
        ),
        (
            "",
            "[[sources.app.dedup]]\nname = \"r\"\nkey = [\"coalesce(id,\"]\nwithin = \"1s\"\n",
            &["rule `r`", "coalesce(id,"],
        ),
        (
            "",
            "[[sources.app.dedup]]\nname = \"r\"\nkey = [\"id\"]\nwhen = \"kind = 'x'\"\nwithin = \"1s\"\n",
            &["rule `r`", "kind"],
        ),
        (
            "",
            "[[sources.app.dedup]]\nname = \"r\"\nkey = [\"id\"]\nwhen = \"random() < 0.5\"\nwithin = \"1s\"\n",
            &["rule `r`", "random"],
        ),
        (
            "",
            "[[sources.app.dedup]]\nname = \"r\"\nkey = [\"id\"]\nwithin = \"soon\"\n",
            &["sources.app.dedup", "within", "soon", "10m"],
        ),
        (
            "max_reject = \"1%\"",
            "",
            &["sources.app.max_reject", "is it `max_rejects`?"],
        ),
        ("slice = \"7h\"", "", &["sources.app.slice", "7h", "1h"]),
        (
            "",
            "[[sources.app.dedup]]\nname = \"r\"\nkey = [\"id\"]\nwithin = \"1s\"\nmode = \"first\"\n",
            &["mode", "first", "`throttle`"],
        ),
        (
            "secret_key = \"hunter2\"",
            "",
            &["sources.app.secret_key", "credentials never"],
        ),
        ("layout = \"%Q\"", "", &["sources.app.layout", "%Q"]),
        ("raw_objects = 1", "lake = 3", &["rawmart.toml"]),
    ] {
        let project = configured(source, rest);
        let ran = project.rawmart(&["run"]);
        ran.expect(2, parts);
        assert!(!ran.err.contains("hunter2"), "{ran:?}");
        assert_empty(&project.lake());
    }
}

#[test]
fn toml_that_does_not_parse() {
    let project = project();
    project.write("rawmart.toml", "lake = \"lake\"\n[sources.app\n");
    refused(&project, 2, &["rawmart.toml:2"]);
}

#[test]
fn a_key_outside_the_layout() {
    let project = project();
    project.write("raw/backfill/part-1.json", lines(0..3));
    refused(
        &project,
        2,
        &["raw/backfill/part-1.json", "%Y/%m/%d/%H/", "exclude"],
    );
}

#[test]
fn a_reference_with_a_missing_file() {
    let project = configured(
        "",
        "[marts]\npath = \"sql\"\n[references.shops]\npath = \"shops.csv\"\n",
    );
    project.write("sql/m.sql", "SELECT count(*) AS shops FROM shops\n");
    refused(
        &project,
        2,
        &["shops.csv does not exist", "references.shops.path"],
    );
}

#[test]
fn marts_that_cannot_be_planned() {
    for (sql, parts) in [
        (
            "SELECT id\nFROM app\nWHERE id = = 3\n",
            &["bad.sql:3", "parse"][..],
        ),
        (
            "SELECT id FROM app;\nSELECT n FROM app\n",
            &["bad.sql", "one"],
        ),
        ("DELETE FROM app\n", &["bad.sql", "SELECT"]),
        ("COPY app TO 'x.csv'\n", &["bad.sql", "SELECT"]),
        ("SELECT id\nFROM apq\n", &["bad.sql:2", "apq", "`app`"]),
        ("SELECT\n    idd\nFROM app\n", &["bad.sql:2", "idd", "`id`"]),
        ("SELECT * FROM '/etc/passwd'\n", &["bad.sql", "/etc/passwd"]),
        (
            "-- partition: day\nSELECT id, dt FROM app\n",
            &["bad.sql", "day"],
        ),
        ("SELECT count(*) FROM bad\n", &["bad.sql", "itself"]),
        ("", &["bad.sql", "SELECT"]),
    ] {
        let project = with_mart(sql);
        refused(&project, 2, parts);
    }
}

#[test]
fn a_partition_takes_rows_of_its_own_date() {
    let near = "-- partition: dt\n-- reads: app back 1d\n";
    for (sql, parts) in [
        (
            "-- partition: dt\nSELECT 1 AS n, '2031-01-01' AS dt FROM app".to_owned(),
            ["dt = 2031-01-01", "made of this date alone"],
        ),
        (
            "-- partition: dt\nSELECT count(*) AS n, max(id) AS dt FROM app".to_owned(),
            ["which is no date", "such as 2024-03-01"],
        ),
        (
            format!("{near}SELECT 1 AS n, CAST(replace(dt, '-', '') AS int) AS dt FROM app"),
            ["is no date", "make `dt` a date"],
        ),
        (
            format!("{near}SELECT 1 AS n, nullif(dt, dt) AS dt FROM app"),
            ["rows of dt = NULL", "leave out rows that have none"],
        ),
    ] {
        with_mart(&sql).rawmart(&["run"]).expect(3, &parts);
    }

    // One that reads further may give rows of dates that nothing has; that is said.
    let project = with_mart(&format!(
        "{near}SELECT 1 AS n, CAST(CAST(dt AS date) + INTERVAL '1 day' AS date) AS dt FROM app"
    ));
    let ran = project.rawmart(&["run"]);
    ran.expect(
        0,
        &["left out of bad", "nothing that it reads has the date"],
    );
}

#[test]
fn a_mart_that_fails_takes_only_its_readers_along() {
    let project = configured("", "[marts]\npath = \"sql\"\n");
    let good = "SELECT count(*) AS events FROM app\n";
    project.write("sql/good.sql", good);
    project.write("sql/last.sql", good);
    project.write("sql/fails.sql", "SELECT id, 1 / (n - n) AS boom FROM app\n");
    project.write("sql/reads.sql", "SELECT count(*) AS rows FROM fails\n");
    project.write("sql/reads_again.sql", "SELECT rows FROM reads\n");
    let ran = project.rawmart(&["run", "--output", "json"]);
    ran.expect(3, &[]);
    let json = ran.json();
    let marts: Vec<(String, String)> = json["marts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mart| {
            let text = |name: &str| mart[name].as_str().unwrap().to_owned();
            (text("name"), text("outcome"))
        })
        .collect();
    let expected = [
        ("fails", "failed"),
        ("good", "built"),
        ("last", "built"),
        ("reads", "skipped"),
        ("reads_again", "skipped"),
    ];
    let found: Vec<(&str, &str)> = marts.iter().map(|(n, o)| (&**n, &**o)).collect();
    assert_eq!(found, expected);
    assert!(json.to_string().contains("fails.sql"), "{json}");
    let tables = ["app", "good", "last"];
    assert_eq!(project.lake().tables(), tables);
    assert_eq!(project.lake().cells("good", &["events"]), [["20"]]);
    project.rawmart(&["verify"]).expect(0, &[]);

    // Text says the same, and corrected SQL is all that it takes.
    project.rawmart(&["run"]).expect(
        3,
        &[
            "FAILED fails",
            "fails.sql",
            "skipped reads",
            "which was not built",
        ],
    );
    project.write("sql/fails.sql", "SELECT id, n AS boom FROM app\n");
    project.rawmart(&["run"]).expect(0, &["good (fresh)"]);
    assert_eq!(project.lake().cells("reads_again", &["rows"]), [["20"]]);
}

#[test]
fn a_value_that_fails_a_rule() {
    let project = configured(
        "",
        "[[sources.app.dedup]]\nname = \"r\"\nkey = [\"10 / n\"]\nwithin = \"1s\"\n",
    );
    let ran = project.rawmart(&["run"]);
    ran.expect(4, &["sources.app.dedup: rule `r`", "10 / n", "raw object"]);
    assert_empty(&project.lake());
}

#[test]
fn a_lake_that_is_a_file() {
    let project = project();
    project.write("lake", "I am a file");
    let ran = project.rawmart(&["run"]);
    ran.expect(6, &["/lake"]);
    assert_eq!(
        std::fs::read_to_string(project.path("lake")).unwrap(),
        "I am a file"
    );
}

#[test]
fn a_lake_within_the_raw_folder() {
    let project = project();
    project
        .rawmart(&["--lake", "raw/lake", "run"])
        .expect(2, &["raw/lake", "overlap"]);
}

#[cfg(unix)]
#[test]
fn a_lake_that_may_not_be_written() {
    use std::os::unix::fs::PermissionsExt;
    let project = project();
    std::fs::create_dir(project.path("lake")).unwrap();
    let mode = |mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(project.path("lake"), permissions).unwrap();
    };
    mode(0o555);
    if std::fs::write(project.path("lake/probe"), "").is_ok() {
        // Root writes where it may not: on such a machine there is nothing to see.
        mode(0o755);
        return;
    }
    let ran = project.rawmart(&["run"]);
    mode(0o755);
    ran.expect(6, &["/lake"]);
    assert_empty(&project.lake());
}

#[test]
fn a_raw_object_that_changed() {
    let project = project();
    project.rawmart(&["run"]).expect(0, &[]);
    let before = project.lake();
    let key = format!("{HOUR}/a.json");
    project.write(&key, lines(5..30));
    for verb in ["plan", "run"] {
        let ran = project.rawmart(&[verb]);
        let code = if verb == "plan" { 0 } else { 4 };
        ran.expect(code, &["2019/04/01/00/a.json"]);
    }
    assert!(project.lake().0 == before.0);
    // Other content of the same length is found too.
    project.write(&key, lines(0..20).replace("\"i7\"", "\"j7\""));
    project
        .rawmart(&["run"])
        .expect(4, &["other content", "restore", "2019/04/01/00/a.json"]);
    assert!(project.lake().0 == before.0);
    // The same bytes with a new time of change are no change.
    std::fs::remove_file(project.path(&key)).unwrap();
    project.write(&key, lines(0..20));
    let before = project.lake().content();
    project
        .rawmart(&["plan"])
        .expect(0, &["new ETags of raw objects with the same content"]);
    project
        .rawmart(&["run"])
        .expect(0, &["Nothing was published"]);
    assert_eq!(project.lake().content(), before);
    project.rawmart(&["run"]).expect(0, &["Nothing new"]);
}

#[test]
fn a_raw_object_that_is_gone() {
    let project = project();
    project.write(&format!("{HOUR}/b.json"), lines(20..40));
    project.rawmart(&["run"]).expect(0, &[]);
    let before = project.lake();
    std::fs::remove_file(project.path(&format!("{HOUR}/a.json"))).unwrap();
    project.rawmart(&["run"]).expect(0, &["Nothing new"]);
    assert!(project.lake().0 == before.0);
    // Its events are in the tables already.
    project.write(&format!("{HOUR}/c.json"), lines(40..50));
    project.rawmart(&["run"]).expect(0, &["1 new"]);
    assert_eq!(project.lake().rows("app").len(), 50);
    // What would need it says so, and gives its events up when told to.
    let before = project.lake();
    project.rawmart(&["rebuild", "--raw"]).expect(
        4,
        &[
            "gone",
            "restore",
            "2019/04/01/00/a.json",
            "--forget-missing",
        ],
    );
    assert!(project.lake().0 == before.0);
    let forget = ["rebuild", "--raw", "--forget-missing"];
    project.rawmart(&forget).expect(0, &[]);
    assert_eq!(project.lake().rows("app").len(), 30);
    project.rawmart(&["verify"]).expect(0, &[]);
    project.write(&format!("{HOUR}/a.json"), lines(0..20));
    project.rawmart(&["run"]).expect(0, &["1 new"]);
    assert_eq!(project.lake().rows("app").len(), 50);
    // A prefix that lists nothing is more likely a wrong one.
    std::fs::remove_dir_all(project.path("raw")).unwrap();
    std::fs::create_dir(project.path("raw")).unwrap();
    project.rawmart(&["run"]).expect(4, &["gone"]);
}

#[test]
fn too_many_rejects() {
    let project = project();
    let bad: String = (0..100).map(|i| format!("no event {i}\n")).collect();
    let text = lines(20..1_000) + &bad;
    project.write(&format!("{HOUR}/b.json"), text);
    refused(
        &project,
        4,
        &[
            "app",
            "100 of 1100",
            "max_rejects = 1%",
            "not_json 100",
            "--max-rejects 100%",
        ],
    );
    let ran = project.rawmart(&["run", "--max-rejects", "100%", "--output", "json"]);
    ran.expect(0, &[]);
    let rejects = serde_json::json!({ "not_json": 100 });
    assert_eq!(counts(&ran), (1_100, 1_000, rejects));
    // What was accepted once is not judged again.
    project.rawmart(&["run"]).expect(0, &["Nothing new"]);
    // Few records say nothing about a share.
    project.write(&format!("{HOUR}/c.json"), "bad\n");
    project.rawmart(&["run"]).expect(0, &["1 new"]);
}

/// What was staged of one source goes when the next is refused.
#[test]
fn too_many_rejects_behind_a_source_that_is_right() {
    let zed = "[sources.zed]\nraw = \"zed\"\nevent_time = \"at\"\n[sources.zed.columns]\n\
               id = \"string\"\nat = \"timestamp\"";
    let project = configured("", zed);
    let bad: String = (0..100).map(|i| format!("no event {i}\n")).collect();
    project.write("zed/2019/04/01/00/z.json", lines(0..1_000) + &bad);
    refused(&project, 4, &["zed", "100 of 1100"]);
    let left = project.lake();
    let staged = left.0.keys().filter(|key| key.contains("staging"));
    assert_eq!(staged.count(), 0, "still staged");
    project
        .rawmart(&["run", "--max-rejects", "100%"])
        .expect(0, &[]);
    assert_eq!(project.lake().rows("app").len(), 20);
}

#[test]
fn wrong_usage() {
    let project = project();
    for args in [
        &["run", "--source", "apq"][..],
        &["run", "--memory", "1MiB"],
        &["run", "--threads", "0"],
        &["run", "--max-rejects", "lots"],
        &["run", "--lake", "gs://bucket/lake"],
        &["rnu"],
    ] {
        let ran = project.rawmart(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
        assert!(ran.err.contains("error:"), "{args:?}: {ran:?}");
        assert_eq!(ran.out, "");
        assert_empty(&project.lake());
    }
}

/// Runs with these arguments, and tells the most memory that the process had, in MiB.
#[cfg(target_os = "linux")]
fn peak(project: &Project, args: &[&str]) -> u64 {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_rawmart"))
        .args(args)
        .current_dir(project.path(""))
        .env_clear()
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let high = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let high = high.and_then(|high| high.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = peak.max(high.unwrap_or(0) >> 10);
        if let Some(ended) = child.try_wait().unwrap() {
            assert!(ended.success(), "{ended}");
            return peak;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// Windows of 128 MiB, and members that would be inflated at once, on more threads than have room
/// for that.
#[test]
#[cfg(target_os = "linux")]
fn large_windows_and_members_stay_within_the_memory() {
    let project = project();
    let mut blank: Vec<u8> = (0..1u32 << 20)
        .map(|i| b" \t\n"[(i.wrapping_mul(2_654_435_761) >> 30).min(2) as usize])
        .collect();
    let mut zstd = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    zstd.window_log(27).unwrap();
    for id in 20..160 {
        zstd.write_all(line(id).as_bytes()).unwrap();
        zstd.write_all(&blank).unwrap();
        blank.rotate_left(id);
    }
    let zstd = zstd.finish().unwrap();
    let gzip = gzip(&(lines(200..300) + &" ".repeat(60 << 20)));
    for i in 0..6 {
        project.write(&format!("{HOUR}/{i}.zst"), &zstd);
        project.write(&format!("{HOUR}/{i}.gz"), &gzip);
    }
    let args = ["--memory", "256MiB", "--threads", "6", "run"];
    let peak = peak(&project, &args);
    assert!((20..512).contains(&peak), "{peak} MiB");
    assert_eq!(project.lake().rows("app").len(), 20 + 140 + 100);
}
