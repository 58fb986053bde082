//! Values as producers write them: of other types, by other names, in strings, and times in other spellings.

use serde_json::{Value, json};

use crate::project::Project;

const KEY: &str = "raw/2024/05/01/03/1.json";

/// A project of one source `events` with these settings and columns beside `id` and `ts`, and with these records.
fn project(settings: &str, columns: &str, records: &[Value]) -> Project {
    let project = Project::with(config(settings, columns), &[]);
    write(&project, KEY, records);
    project
}

fn config(settings: &str, columns: &str) -> String {
    format!(
        "lake = \"lake\"\n[sources.events]\nraw = \"raw/\"\nevent_time = \"ts\"\n{settings}\n\
         [sources.events.columns]\nid = \"string\"\nts = \"timestamp\"\n{columns}\n"
    )
}

fn write(project: &Project, key: &str, records: &[Value]) {
    let lines: Vec<String> = records.iter().map(ToString::to_string).collect();
    project.write(key, lines.join("\n"));
}

fn run(project: &Project, exit: i32) -> Value {
    let ran = project.rawmart(&["run", "--output", "json"]);
    assert_eq!(ran.code, Some(exit), "{ran:?}");
    ran.json()
}

/// One client sends an id as a number, another as text: they are one user, and one double click.
#[test]
fn an_id_of_two_types_is_one_user() {
    let click = |id: &str, time: &str, user: Value| json!({"id": id, "ts": time, "user": user});
    let records = [
        click("e1", "2024-05-01T02:00:00Z", json!(1001)),
        click("e2", "2024-05-01T02:00:00.400Z", json!("1001")),
        click("e3", "2024-05-01T02:10:00Z", json!(1002)),
        click("e4", "2024-05-01T02:20:00Z", json!(true)),
        click("e5", "2024-05-01T02:30:00Z", json!(null)),
    ];
    let columns = "user_id = { type = \"string\", path = \"user\", coerce = true }\n\
                   [[sources.events.dedup]]\nname = \"double_click\"\nkey = [\"user_id\"]\nwithin = \"1s\"";
    let project = project("", columns, &records);
    let events = &run(&project, 0)["sources"]["events"];
    assert_eq!(events["events"], 5);
    assert_eq!(events["duplicates"]["double_click"], 1);
    assert_eq!(events["coerced"], json!({"user_id": 3}));
    assert_eq!(events["nulled"], json!({}));
    let mut users = project.lake().cells("events", &["id", "user_id"]);
    users.sort();
    let expected = [["e1", "1001"], ["e3", "1002"], ["e4", "true"]];
    assert_eq!(
        users[..3],
        expected.map(|row| row.map(str::to_owned).to_vec())
    );
    let text = project.rawmart(&["rebuild", "--raw"]);
    text.expect(0, &["converted", "user_id"]);
}

/// A changed `coerce` concerns events that were read, as a changed column does.
#[test]
fn a_changed_coerce_asks_for_a_rebuild_from_raw() {
    let at = "2024-05-01T02:00:00Z";
    let records = [
        json!({"id": "e1", "ts": at, "n": 7}),
        json!({"id": "e2", "ts": at, "n": "7"}),
    ];
    let strict = "max_rejects = \"100%\"";
    let project = project(strict, "n = \"bigint\"", &records);
    let events = &run(&project, 0)["sources"]["events"];
    assert_eq!(events["rejects"]["type"], 1);
    assert!(events.get("coerced").is_none());
    project.write(
        "rawmart.toml",
        config(&format!("{strict}\ncoerce = true"), "n = \"bigint\""),
    );
    let told = ["column n is read in another way", "rebuild"];
    project.rawmart(&["run"]).expect(4, &told);
    project.rawmart(&["rebuild"]).expect(0, &["converted"]);
    let mut numbers = project.lake().cells("events", &["id", "n"]);
    numbers.sort();
    assert_eq!(numbers, [["e1", "7"], ["e2", "7"]]);
}

#[test]
fn members_of_lists_are_read_by_other_names() {
    let at = "2024-05-01T02:00:00Z";
    let items = json!([{"productId": "p1", "unitPrice": 1.5}, {"productId": "p2"}]);
    let records = [json!({"id": "e1", "ts": at, "items": items})];
    let columns = "items = { type = \"array<struct<product_id:string,unit_price:double>>\", \
                   paths = { product_id = \"productId\", unit_price = \"unitPrice\" } }";
    let project = project("", columns, &records);
    run(&project, 0);
    let sql = "SELECT items[1]['product_id'] AS a, items[1]['unit_price'] AS b, items[2]['product_id'] AS c, extra FROM events";
    let answer = project.rawmart(&["query", "--format", "csv", sql]);
    assert_eq!(answer.out, "a,b,c,extra\np1,1.5,p2,\n", "{answer:?}");
    // The error of the name that Athena does not have names the way that works.
    let wrong = "items = \"array<struct<productId:string>>\"";
    project.write("rawmart.toml", config("", wrong));
    let parts = [
        "`productId` is no name",
        "`paths = { product_id = \"productId\" }`",
    ];
    project.rawmart(&["run"]).expect(2, &parts);
}

#[test]
fn a_member_that_was_serialised_twice_is_found() {
    let of =
        |id: &str, props: Value| json!({"id": id, "ts": "2024-05-01T02:00:00Z", "props": props});
    let records = [
        of("e1", json!({"plan": "pro"})),
        of("e2", json!("{\"plan\": \"pro\"}")),
        of("e3", json!("")),
        of("e4", json!(null)),
        of("e5", json!("null")),
        of("e6", json!(12)),
    ];
    let columns = "props = \"json\"\nplan = { type = \"string\", path = \"props.plan\" }";
    let project = project("", columns, &records);
    let events = &run(&project, 0)["sources"]["events"];
    assert_eq!(events["unreached"], json!({"plan": 2}));
    let sql = "SELECT count(*) AS n, count(extra) AS extra FROM events WHERE plan = 'pro'";
    let answer = project.rawmart(&["query", "--format", "csv", sql]);
    assert_eq!(answer.out, "n,extra\n2,0\n", "{answer:?}");
    let told = project.rawmart(&["rebuild", "--raw"]);
    told.expect(0, &["out of reach", "the path of column plan met values"]);
}

/// The event time, another timestamp and a date, in the formats of the source and of a column.
#[test]
fn times_in_declared_formats_are_read_in_every_column() {
    let of = |id: &str, ts: Value, day: &str| json!({"id": id, "ts": ts, "day": day, "seen": ts});
    let records = [
        of("e1", json!("2024. 5. 1. 오전 11:00:00"), "01/05/2024"),
        of("e2", json!("2024-05-01T02:00:00Z"), "2024-05-01"),
        of("e3", json!(1_714_528_800_000_u64), "20240501"),
        of("e4", json!("01/May/2024:11:00:00 +0900"), "2024/05/01"),
        of("e5", json!({"$date": "2024-05-01T02:00:00Z"}), "01/05/2024"),
    ];
    let settings = "naive_timezone = \"Asia/Seoul\"\ntime_formats = [\"%Y. %m. %d. %p %I:%M:%S\"]";
    let columns = "seen = \"timestamp\"\nday = { type = \"date\", time_formats = [\"%d/%m/%Y\"] }";
    let project = project(settings, columns, &records);
    let events = &run(&project, 0)["sources"]["events"];
    assert_eq!(
        (&events["kept"], &events["rejects"]),
        (&json!(5), &json!({}))
    );
    let sql = "SELECT DISTINCT ts, seen, day FROM events";
    let answer = project.rawmart(&["query", "--format", "csv", sql]);
    let expected = "ts,seen,day\n2024-05-01T02:00:00Z,2024-05-01T02:00:00Z,2024-05-01\n";
    assert_eq!(answer.out, expected, "{answer:?}");
}
