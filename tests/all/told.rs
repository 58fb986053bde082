//! Mistakes that leave every count in balance. The tests check that a run names or refuses them.

use serde_json::json;

use crate::project::{Project, rawmart};
use crate::s3::S3Server;

const H: &str = "2024/05/01/03/";

fn event(id: &str) -> String {
    format!("{{\"id\": \"{id}\", \"at\": \"2024-05-01T02:00:00Z\"}}\n")
}

/// A configuration with these settings, columns, and `rest` behind them.
fn toml(lake: &str, raw: &str, settings: &str, rest: &str) -> String {
    format!(
        "lake = \"{lake}\"\n[sources.app]\nraw = \"{raw}\"\nevent_time = \"at\"\n{settings}\n\
         [sources.app.columns]\nid = \"string\"\nat = \"timestamp\"\n{rest}\n"
    )
}

fn on_disk(settings: &str, rest: &str) -> Project {
    let project = Project::new();
    configure(&project, settings, rest);
    project
}

fn configure(project: &Project, settings: &str, rest: &str) {
    project.write("rawmart.toml", toml("lake", "raw", settings, rest));
}

fn summary(ran: &crate::project::Ran) -> serde_json::Value {
    ran.expect(0, &[]);
    ran.json()["sources"]["app"].clone()
}

#[test]
fn keys_that_cannot_be_asked_for_are_refused_by_name() {
    let server = S3Server::start(&["raw", "lake"]);
    let project = Project::new();
    let configure = |settings: &str| {
        let text = toml("s3://lake/app", "s3://raw/app", settings, "");
        project.write("rawmart.toml", text);
    };
    configure("");
    let run = |args: &[&str]| rawmart(&project.path(""), args, &server.env());
    // These keys look odd and are correct.
    for (i, name) in [
        "plain",
        "with space",
        "plus+",
        "pct%2F",
        "hash#?",
        "집é",
        "a=b&c;d",
    ]
    .iter()
    .enumerate()
    {
        server.put(
            "raw",
            &format!("app/{H}{name}.json"),
            event(&format!("e{i}")),
        );
    }
    // Objects that a console makes for folders.
    server.put("raw", "app/2024/05/", "");
    server.put("raw", &format!("app/{H}"), "");
    for odd in [
        format!("app//{H}front.json"),
        format!("app/{H}/middle.json"),
        format!("app/{H}dot/./x.json"),
        format!("app/{H}dot/../y.json"),
        format!("app/{H}end/"),
        format!("app/{H}tab\tx.json"),
        format!("app/{H}new\nline.json"),
    ] {
        server.put("raw", &odd, event("odd"));
        let shown = format!("{odd:?}");
        let name = shown.trim_matches('"').trim_start_matches("app/");
        let parts = ["1 objects", name, "sources.app.exclude"];
        run(&["run"]).expect(4, &parts);
        run(&["plan"]).expect(0, &["the run will refuse", name]);
        server.remove("raw", &odd);
    }
    assert_eq!(
        server
            .keys("lake")
            .iter()
            .filter(|key| key.contains("log/"))
            .count(),
        0
    );
    server.put("raw", &format!("app/{H}end/"), event("odd"));
    server.put("raw", &format!("app/{H}/middle.json"), event("odd"));
    run(&["run"]).expect(4, &["2 objects", "end/\"", "//middle.json"]);
    configure("exclude = [\"**/end/\", \"**/middle.json\"]");
    let app = summary(&run(&["run", "--output", "json"]));
    assert_eq!(app["events"], 7);
    assert_eq!(app["skipped"], json!({ "excluded": 2, "folder_marker": 2 }));
}

#[test]
fn a_bucket_whose_keys_all_begin_with_a_slash() {
    let server = S3Server::start(&["raw", "lake"]);
    let project = Project::new();
    project.write("rawmart.toml", toml("s3://lake/app", "s3://raw/", "", ""));
    for i in 0..3 {
        server.put("raw", &format!("/2024/05/01/0{i}/a.json"), event("a"));
    }
    let ran = rawmart(&project.path(""), &["run"], &server.env());
    let parts = [
        "3 objects",
        "s3://raw//2024/05/01/00/a.json",
        "begin or end with `/`",
    ];
    ran.expect(4, &parts);
}

#[cfg(target_os = "linux")]
#[test]
fn file_names_that_cannot_be_read_are_refused_by_name() {
    use std::os::unix::ffi::OsStrExt;
    for name in [&b"caf\xe9.json"[..], b"tab\tx.json"] {
        let project = on_disk("", "");
        project.write(&format!("raw/{H}a.json"), event("a"));
        let path = project.path(&format!("raw/{H}"));
        let path = path.join(std::ffi::OsStr::from_bytes(name));
        std::fs::write(path, event("b")).unwrap();
        project
            .rawmart(&["run"])
            .expect(4, &["1 objects", H, "not UTF-8"]);
        assert!(project.lake().commits().is_empty());
        configure(&project, "exclude = [\"**/caf*\", \"**/tab*\"]", "");
        let app = summary(&project.rawmart(&["run", "--output", "json"]));
        assert_eq!(app["skipped"], json!({ "excluded": 1 }));
    }
    // Behind a link that leads nowhere there is no event.
    let project = on_disk("", "");
    project.write(&format!("raw/{H}a.json"), event("a"));
    let link = project.path(&format!("raw/{H}gone.json"));
    std::os::unix::fs::symlink("nowhere", link).unwrap();
    let app = summary(&project.rawmart(&["run", "--output", "json"]));
    assert_eq!(app["skipped"], json!({ "no_file": 1 }));
}

#[test]
fn a_prefix_of_a_new_lake_that_holds_nothing() {
    let server = S3Server::start(&["raw", "lake"]);
    let project = Project::new();
    project.write(
        "rawmart.toml",
        toml("s3://lake/app", "s3://raw/apq", "", ""),
    );
    server.put("raw", &format!("app/{H}a.json"), event("a"));
    let run = |args: &[&str]| rawmart(&project.path(""), args, &server.env());
    run(&["run"]).expect(2, &["s3://raw/apq/ holds no object", "sources.app.raw"]);
    run(&["plan"]).expect(2, &["s3://raw/apq/ holds no object"]);
    project.write(
        "rawmart.toml",
        toml("s3://lake/app", "s3://raw/app", "", ""),
    );
    run(&["run"]).expect(0, &["1 new"]);
    // A root that is added later, beside the known root.
    let text = toml("s3://lake/two", "s3://raw/app", "", "");
    let named = |us: &str| {
        text.replace(
            "\"s3://raw/app\"",
            &format!("{{ eu = \"s3://raw/app\", us = \"s3://raw/{us}\" }}"),
        )
    };
    project.write("rawmart.toml", named("us"));
    server.put("raw", &format!("us/{H}a.json"), event("b"));
    run(&["run"]).expect(0, &["2 new"]);
    project.write("rawmart.toml", named("uss"));
    // The new objects are known by the name of the root. The old ones are gone, and all others are still there.
    run(&["run"]).expect(0, &["nothing new"]);
}

#[test]
fn a_layout_is_checked_before_anything_is_touched() {
    for (layout, parts) in [
        ("%Y/%m/%d/%s/", ["`%s` at character 10", "layout = false"]),
        ("%Y/%B/%d/", ["`%B` at character 4", "use %Y"]),
        ("%Y/%m/", ["holds no day", "full date"]),
    ] {
        let project = on_disk(&format!("layout = \"{layout}\""), "");
        project.write(&format!("raw/{H}a.json"), event("a"));
        for args in [["run"], ["plan"], ["config"]] {
            project.rawmart(&args).expect(2, &parts);
        }
        assert!(!project.path("lake").exists());
    }
    let project = on_disk("layout = \"dt=%F/\"", "");
    project.write("raw/dt=2024-05-01/a.json", event("a"));
    project.rawmart(&["run"]).expect(0, &["1 new"]);
}

const PLAN: &str = "plan = \"string\"";

/// Old events whose `plan` had no column, and one event from after the column was added.
fn with_a_new_column(settings: &str, rest: &str) -> Project {
    let project = on_disk(settings, "");
    project.write(
        &format!("raw/{H}1.json"),
        "{\"id\":\"e1\",\"at\":\"2024-05-01T02:00:00Z\",\"plan\":\"free\"}\n\
         {\"id\":\"e2\",\"at\":\"2024-05-01T02:00:00Z\"}\n\
         {\"id\":\"e3\",\"at\":\"2024-05-01T03:00:00Z\",\"plan\":\"pro\",\"x\":1}\n",
    );
    project.rawmart(&["run"]).expect(0, &[]);
    configure(&project, settings, rest);
    project.write(
        "raw/2024/05/02/03/1.json",
        "{\"id\":\"e4\",\"at\":\"2024-05-02T02:00:00Z\",\"plan\":\"pro\"}\n\
         {\"id\":\"e5\",\"at\":\"2024-05-02T02:00:00Z\"}\n",
    );
    project
}

#[test]
fn a_rebuild_fills_a_new_column_from_extra() {
    let project = with_a_new_column("", PLAN);
    let parts = [
        "column plan is NULL on 1 published dates",
        "rawmart rebuild",
    ];
    project.rawmart(&["plan"]).expect(0, &parts);
    let parts = [
        "column plan is newer than 1 published dates",
        "rawmart rebuild --source app",
        "union_by_name = true",
    ];
    project.rawmart(&["run"]).expect(0, &parts);
    let app = summary(&project.rawmart(&["run", "--output", "json"]));
    assert_eq!(app["unfilled"], json!({ "plan": 1 }));
    let old = [
        ["e1", "", "{\"plan\":\"free\"}"],
        ["e2", "", ""],
        ["e3", "", "{\"plan\":\"pro\",\"x\":1}"],
        ["e4", "pro", ""],
        ["e5", "", ""],
    ];
    let cells = |project: &Project| {
        // The file of the first date has no such column yet.
        let mut rows: Vec<[String; 3]> = project
            .lake()
            .rows("app")
            .iter()
            .map(|row| {
                ["id", "plan", "extra"]
                    .map(|name| row.get(name).cloned().flatten().unwrap_or_default())
            })
            .collect();
        rows.sort();
        rows
    };
    assert_eq!(cells(&project), old);

    // Raw objects are not read, so they may be gone.
    std::fs::rename(project.path("raw"), project.path("away")).unwrap();
    std::fs::create_dir_all(project.path("raw")).unwrap();
    project
        .rawmart(&["rebuild", "--from", "2024-05-02", "--to", "2024-05-02"])
        .expect(0, &[]);
    assert_eq!(cells(&project), old);
    let commits = project.lake().commits().len();
    let ran = project.rawmart(&["rebuild", "--output", "json"]);
    let app = summary(&ran);
    assert_eq!(app["slices"], json!({ "columns_filled": 1 }));
    assert_eq!(
        (&app["unfilled"], &app["rebuilt"]),
        (&json!(null), &json!(true))
    );
    assert!(ran.json()["bytes_read"].as_u64().unwrap() > 0);
    let new = [
        ["e1", "free", ""],
        ["e2", "", ""],
        ["e3", "pro", "{\"x\":1}"],
        ["e4", "pro", ""],
        ["e5", "", ""],
    ];
    assert_eq!(cells(&project), new);
    assert_eq!(project.lake().commits().len(), commits + 1);

    // There is nothing left to do, so nothing is committed.
    for args in [
        &["rebuild"][..],
        &["rebuild", "--from", "2024-05-01", "--to", "2024-05-01"],
    ] {
        project.rawmart(args).expect(0, &["Nothing was published"]);
        assert_eq!(project.lake().commits().len(), commits + 1);
    }
    project.rawmart(&["verify"]).expect(0, &[]);
    std::fs::remove_dir(project.path("raw")).unwrap();
    std::fs::rename(project.path("away"), project.path("raw")).unwrap();
    let filled = project.lake().content();
    project.rawmart(&["rebuild", "--raw"]).expect(0, &[]);
    assert_eq!(project.lake().content(), filled);
}

/// The columns of each data file of a source.
fn columns_of_files(project: &Project) -> std::collections::BTreeMap<String, Vec<String>> {
    let files = project.lake().0.into_iter();
    let files = files.filter(|(key, _)| key.starts_with("app") && key.ends_with(".parquet"));
    let columns = files.map(|(key, bytes)| {
        let bytes = bytes::Bytes::from(bytes);
        let file = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes);
        let file = file.unwrap();
        let names = file.schema().fields().iter();
        (key, names.map(|field| field.name().clone()).collect())
    });
    columns.collect()
}

#[test]
fn after_a_rebuild_every_file_has_all_columns() {
    let rule = "[[sources.app.dedup]]\nname = \"r\"\nkey = [\"id\"]\nwithin = \"1h\"\n";
    let with = |column: &str| format!("{column}\n{rule}");
    let project = on_disk("", &with(""));
    // Neither date has a value of the column that comes later; on both there is a duplicate.
    for day in ["01", "02"] {
        let event = format!("{{\"id\":\"e{day}\",\"at\":\"2024-05-{day}T02:00:00Z\"}}\n");
        project.write(&format!("raw/2024/05/{day}/03/1.json"), event.repeat(2));
    }
    project.rawmart(&["run"]).expect(0, &[]);
    configure(&project, "", &with(PLAN));
    let lacking = |project: &Project| -> Vec<String> {
        let files = columns_of_files(project).into_iter();
        let files = files.filter(|(_, columns)| !columns.iter().any(|name| name == "plan"));
        files.map(|(key, _)| key).collect()
    };
    assert_eq!(lacking(&project).len(), 4);
    // One date alone, then all.
    project
        .rawmart(&["rebuild", "--from", "2024-05-01", "--to", "2024-05-01"])
        .expect(0, &[]);
    let left = lacking(&project);
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(
        left.iter().all(|key| key.contains("dt=2024-05-02/")),
        "{left:?}"
    );
    project.rawmart(&["rebuild"]).expect(0, &["Published"]);
    assert_eq!(lacking(&project), [""; 0]);
    let commits = project.lake().commits().len();
    project
        .rawmart(&["rebuild"])
        .expect(0, &["Nothing was published"]);
    assert_eq!(project.lake().commits().len(), commits);
    project.rawmart(&["verify"]).expect(0, &[]);
    let of_table = |table: &str| {
        let files = columns_of_files(&project).into_iter();
        let files = files.filter(|(key, _)| key.starts_with(&format!("{table}/")));
        files.map(|(_, columns)| columns).collect::<Vec<_>>()
    };
    for table in ["app", "app_duplicates"] {
        let columns = of_table(table);
        assert_eq!(columns.len(), 2, "{table}");
        assert_eq!(columns[0], columns[1], "{table}");
    }
}

/// All rows without their NULLs. A file that was not written again lacks a column that is NULL in all its rows.
fn values(project: &Project) -> Vec<(String, Vec<crate::project::Row>)> {
    let mut tables: Vec<_> = project.lake().content().into_iter().collect();
    for row in tables.iter_mut().flat_map(|(_, rows)| rows) {
        row.retain(|_, value| value.is_some());
    }
    tables
}

#[test]
fn a_value_that_does_not_fit_a_new_column_is_read_from_raw() {
    let project = with_a_new_column("", "plan = \"bigint\"");
    // The new event is a reject. Old events become rejects once they are read with the column.
    project.rawmart(&["run"]).expect(0, &[]);
    let parts = ["`plan` is no bigint: \"free\"", "reads the raw objects"];
    let rebuilt = project.rawmart(&["rebuild"]);
    rebuilt.expect(0, &parts);
    // The run does it by itself, so it names no command, which would lack the flags of this one.
    assert!(!rebuilt.err.contains("run `rawmart"), "{rebuilt:?}");
    assert_eq!(project.lake().cells("app", &["id"]), [["e2"], ["e5"]]);
    assert_eq!(project.lake().rows("app_rejects").len(), 3);
    project.rawmart(&["verify"]).expect(0, &[]);
    // With `on_type_error = "null"` such values stay in `extra`.
    let project = with_a_new_column("on_type_error = \"null\"", "plan = \"bigint\"");
    project.rawmart(&["run"]).expect(0, &[]);
    project.rawmart(&["rebuild"]).expect(0, &[]);
    let filled = values(&project);
    project.rawmart(&["rebuild", "--raw"]).expect(0, &[]);
    assert_eq!(values(&project), filled);
}

#[test]
fn a_new_column_below_another_is_read_from_raw() {
    let project = on_disk("", "device = \"json\"");
    project.write(
        &format!("raw/{H}1.json"),
        "{\"id\":\"e1\",\"at\":\"2024-05-01T02:00:00Z\",\"device\":{\"os\":\"ios\"}}\n",
    );
    project.rawmart(&["run"]).expect(0, &[]);
    let both = "device = \"json\"\nos = { type = \"string\", path = \"device.os\" }";
    configure(&project, "", both);
    project.write(&format!("raw/{H}2.json"), event("e2"));
    project.rawmart(&["run"]).expect(0, &["column os is newer"]);
    project.rawmart(&["rebuild"]).expect(0, &["2 read again"]);
    let cells = project.lake().cells("app", &["id", "device", "os"]);
    assert_eq!(cells, [["e1", "{\"os\":\"ios\"}", "ios"], ["e2", "", ""]]);
}

/// A key reads the columns that its SQL names, and not the columns whose names are a part of it.
#[test]
fn a_new_column_whose_name_is_part_of_a_key() {
    let rule = "[[sources.app.dedup]]\nname = \"twice\"\nkey = [\"user_id\"]\nwithin = \"1m\"";
    let project = on_disk("", &format!("user_id = \"string\"\n{rule}"));
    project.write(
        &format!("raw/{H}1.json"),
        "{\"id\":\"e1\",\"at\":\"2024-05-01T02:00:00Z\",\"user_id\":\"u\",\"user\":\"U\"}\n\
         {\"id\":\"e2\",\"at\":\"2024-05-01T02:00:01Z\",\"user_id\":\"u\",\"user\":\"V\"}\n",
    );
    project.rawmart(&["run"]).expect(0, &[]);
    configure(
        &project,
        "",
        &format!("user_id = \"string\"\nuser = \"string\"\n{rule}"),
    );
    project.write(&format!("raw/{H}2.json"), event("e3"));
    project.rawmart(&["run"]).expect(0, &["1 new"]);
    // A rule that reads the column later finds its values, although they were in `extra`.
    let by_user = rule.replace("user_id\"", "user\"");
    configure(
        &project,
        "",
        &format!("user_id = \"string\"\nuser = \"string\"\n{by_user}"),
    );
    project
        .rawmart(&["run"])
        .expect(4, &["column user is new, and the rule twice reads it"]);
    project.rawmart(&["rebuild"]).expect(0, &[]);
    assert_eq!(
        project.lake().cells("app", &["id", "user"]),
        [["e1", "U"], ["e2", "V"], ["e3", ""]]
    );
    assert!(project.lake().rows("app_duplicates").is_empty());
}

#[test]
fn refused_rejects_are_shown_with_what_may_be_done() {
    let project = on_disk("max_rejects = \"1%\"", "n = \"bigint\"");
    let mut lines: String = (0..1_000)
        .map(|i| {
            format!(
                "{{\"id\":\"i{i}\",\"at\":\"2024-05-01 02:00:{:02}\"}}\n",
                i % 60
            )
        })
        .collect();
    lines += "{\"id\":\"a\",\"at\":\"2024-05-01T02:00:00Z\",\"n\":\"x\"}\n";
    lines += "no \u{1b}[31mJSON\n";
    lines += &event("good");
    project.write(&format!("raw/{H}a.json"), lines);
    let ran = project.rawmart(&["run"]);
    ran.expect(
        4,
        &[
            "1002 of 1003",
            "1,000 event_time",
            &format!("{H}a.json, record 1: `at` has no offset from UTC: \"2024-05-01 02:00:00\""),
            "{\"id\":\"i0\",\"at\":\"2024-05-01 02:00:00\"}",
            "record 3: ",
            "sources.app.naive_timezone = \"Area/City\"",
            "record 1001: `n` is no bigint",
            "on_type_error = \"null\"",
            "1 not_json",
        ],
    );
    assert!(!ran.err.contains('\u{1b}'), "{ran:?}");
    assert!(!ran.err.contains("record 4: "), "{ran:?}");
    let ran = project.rawmart(&["run", "--output", "json"]);
    assert_eq!(ran.code, Some(4));
    let failed = ran.json();
    assert_eq!(failed["exit"], 4);
    let times = &failed["error"]["rejects"][0];
    assert_eq!(
        (&times["reason"], &times["count"]),
        (&json!("event_time"), &json!(1_000))
    );
    assert_eq!(times["samples"].as_array().unwrap().len(), 3);
    assert_eq!(times["samples"][1]["record"], 2);
    // The remedy of the message works.
    configure(
        &project,
        "max_rejects = \"1%\"\nnaive_timezone = \"UTC\"",
        "n = \"bigint\"",
    );
    project.rawmart(&["run"]).expect(0, &[]);
}

#[test]
fn columns_and_rules_that_find_nothing_are_told() {
    let rules = "[[sources.app.dedup]]\nname = \"clicks\"\nkey = [\"user_id\"]\nwhen = \"kind = 'click'\"\n\
                 within = \"1m\"\n\
                 [[sources.app.dedup]]\nname = \"ids\"\nkey = [\"id\"]\nwithin = \"1m\"";
    let columns = |user: &str| {
        format!(
            "kind = \"string\"\nuser_id = {{ type = \"string\", path = \"{user}\" }}\n\
             amount = \"bigint\"\nzip = \"string\"\n{rules}"
        )
    };
    let project = on_disk("on_type_error = \"null\"", &columns("user.ID"));
    let lines: String = (0..3)
        .map(|i| format!("{{\"id\":\"e{i}\",\"at\":\"2024-05-01T02:00:00Z\",\"kind\":\"click\",\"user\":{{\"id\":\"u\"}},\"amount\":\"12,50\"}}\n"))
        .collect();
    project.write(&format!("raw/{H}a.json"), lines);
    let ran = project.rawmart(&["run", "--threads", "2", "--output", "json"]);
    let app = summary(&ran);
    assert_eq!(
        app["null_columns"],
        json!([
            { "column": "user_id", "path": "user.ID", "nearest": "user.id" },
            { "column": "amount", "path": "amount", "nearest": "amount" },
            { "column": "zip", "path": "zip" },
        ])
    );
    assert_eq!(app["keyless_rules"], json!(["clicks"]));
    assert_eq!(app["kept"], 3);
    // Only the run that read the events names the columns.
    let again = summary(&project.rawmart(&["run", "--output", "json"]));
    assert_eq!(
        (&again["null_columns"], &again["keyless_rules"]),
        (&json!(null), &json!(null))
    );

    let project = on_disk("on_type_error = \"null\"", &columns("user.ID"));
    let line = "{\"id\":\"e\",\"at\":\"2024-05-01T02:00:00Z\",\"kind\":\"click\",\"user\":{\"id\":\"u\"},\"amount\":\"x\"}";
    project.write(&format!("raw/{H}a.json"), line);
    project.rawmart(&["run"]).expect(
        0,
        &[
            "column user_id is NULL in every event that was read: none has a value at `user.ID`; the events have \
             `user.id`, is it that?",
            "column amount is NULL",
            "that fits its type; the values are in `extra`",
            "rule clicks applied to no event",
        ],
    );
    let project = on_disk("", &columns("user.id"));
    project.write(&format!("raw/{H}a.json"), line.replace("\"x\"", "1"));
    let app = summary(&project.rawmart(&["run", "--output", "json"]));
    assert_eq!(app["keyless_rules"], json!(null));
}

#[test]
fn a_run_says_what_it_added_beside_what_there_is() {
    let project = on_disk("on_changed_object = \"replace\"", "");
    project.write(
        &format!("raw/{H}a.json"),
        event("a") + &event("b") + "bad\n",
    );
    let app = summary(&project.rawmart(&["run", "--output", "json"]));
    assert_eq!(app["rebuilt"], false);
    let added = json!({ "objects": 1, "records": 3, "events": 2, "kept": 2, "duplicates": {}, "rejects": { "not_json": 1 } });
    assert_eq!(app["added"], added);
    project.write(&format!("raw/{H}b.json"), event("c"));
    let ran = project.rawmart(&["run"]);
    ran.expect(
        0,
        &[
            "2 raw objects, 1 new",
            "      added    in all\n",
            "         +1         4 records      = 3 events + 1 rejects\n",
            "         +0         1 rejects      not_json\n",
        ],
    );
    // The events of the earlier content leave, and others come.
    project.write(&format!("raw/{H}a.json"), event("z"));
    let app = summary(&project.rawmart(&["run", "--output", "json"]));
    assert_eq!(app["slices"], json!({ "events_replaced": 1 }));
    assert_eq!(
        (&app["added"]["events"], &app["events"]),
        (&json!(-1), &json!(2))
    );
    assert_eq!(app["rebuilt"], false);
    let app = summary(&project.rawmart(&["rebuild", "--raw", "--output", "json"]));
    assert_eq!(
        (&app["added"]["events"], &app["rebuilt"]),
        (&json!(0), &json!(true))
    );
    let app = summary(&project.rawmart(&["run", "--output", "json"]));
    assert_eq!(app["added"]["records"], 0);
}

/// The codes of a reference are all digits until an event has another code.
#[test]
fn a_join_with_an_inferred_type_says_what_to_declare() {
    let rest =
        "code = \"string\"\n[references.codes]\npath = \"codes.csv\"\n[marts]\npath = \"sql\"\n";
    let project = on_disk("", rest);
    project.write("codes.csv", "code,label\n870,x\n871,y\n");
    project.write(
        "sql/by_code.sql",
        "SELECT c.label, count(*) AS n FROM app AS e JOIN codes AS c ON c.code = e.code GROUP BY c.label\n",
    );
    project.write(
        &format!("raw/{H}a.json"),
        "{\"id\":\"a\",\"at\":\"2024-05-01T02:00:00Z\",\"code\":\"870\"}\n\
         {\"id\":\"b\",\"at\":\"2024-05-01T02:00:00Z\",\"code\":\"A-1\"}\n",
    );
    let parts = [
        "was read with `code` as bigint, inferred from its values",
        "write `columns = { code = \"string\", label = \"string\" }` in [references.codes]",
    ];
    project.rawmart(&["run"]).expect(3, &parts);
    let query = "SELECT c.label FROM app AS e JOIN codes AS c ON c.code = e.code";
    project.rawmart(&["query", query]).expect(2, &parts);
    let declared = "[references.codes.columns]\ncode = \"string\"\nlabel = \"string\"\n";
    configure(&project, "", &(rest.to_owned() + declared));
    project.rawmart(&["run"]).expect(0, &[]);
    assert_eq!(
        project.lake().cells("by_code", &["label", "n"]),
        [["x", "1"]]
    );
}
