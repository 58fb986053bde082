//! Values of other types, and members by the paths of fields.

use super::*;

/// A source with these columns that converts values.
fn lenient(columns: &[&str]) -> DecodeSpec {
    let mut spec = spec(columns);
    for column in &mut spec.columns {
        column.coerce = true;
    }
    spec
}

/// The value of the only column, `extra`, and how many values were converted.
fn one(spec: &DecodeSpec, value: &str) -> Option<(String, String, u64)> {
    let record = format!("{{\"t\":{ARRIVAL},\"c\":{value}}}");
    let found = decode(spec, record.as_bytes());
    let (_, values) = found.events.into_iter().next()?;
    let coerced = found.counts.coerced.get("c").copied().unwrap_or(0);
    Some((values[0].clone(), values[1].clone(), coerced))
}

/// Each line: a type, a value as JSON, and the value of the column with `coerce = true`; `!` where it does not fit.
const CONVERSIONS: &str = r#"
string        1001                  1001
string        1001.0                1001.0
string        -0                    -0
string        1e400                 1e400
string        true                  true
string        "x"                   =x
string        {"a":1}               !
string        [1]                   !
string        "\ud800"              !
boolean       true                  =true
boolean       1                     true
boolean       0                     false
boolean       "true"                true
boolean       "False"               false
boolean       "1"                   true
boolean       1.0                   !
boolean       2                     !
boolean       "yes"                 !
boolean       ""                    !
int           7.0                   7
int           "7"                   7
int           7e0                   7
int           2147483648            !
int           "2147483648"          !
bigint        "12"                  12
bigint        "-12.00"              -12
bigint        1e3                   1000
bigint        9007199254740993.0    9007199254740993
bigint        "9223372036854775807" 9223372036854775807
bigint        9223372036854775808   !
bigint        "007"                 !
bigint        " 7"                  !
bigint        "+7"                  !
bigint        ""                    !
bigint        7.5                   !
bigint        true                  !
double        "1.5"                 1.5
double        "-3"                  -3.0
double        "1e400"               !
double        "NaN"                 !
double        "inf"                 !
decimal(10,2) 19.99                 =19.99
decimal(10,2) 19.999                20.00
decimal(10,2) "19.999"              20.00
decimal(10,2) 0.30000000000000004   0.30
decimal(10,2) 0.005                 0.01
decimal(10,2) -0.005                -0.01
decimal(10,2) 0.00499999999999      0.00
decimal(10,2) 1e-3                  0.00
decimal(10,2) 99999999.995          !
decimal(10,2) "1,234.50"            !
date          20190402              !
timestamp     true                  !
map<string,string> []               {}
map<string,string> [ ]              {}
map<string,string> [1]              !
map<string,string> ""               !
struct<a:string> []                 {a: -}
array<string> {}                    !
"#;

#[test]
fn values_of_other_types_are_converted_and_counted() {
    let mut tried = 0;
    for line in CONVERSIONS.lines().filter(|line| !line.is_empty()) {
        let (kind, rest) = line.split_once(' ').unwrap();
        let (value, expected) = rest.trim().rsplit_once("  ").unwrap_or_else(|| {
            let (value, expected) = rest.trim().rsplit_once(' ').unwrap();
            (value, expected)
        });
        let (value, expected) = (value.trim(), expected.trim());
        let spec = lenient(&[&format!("c {kind}")]);
        let mut strict = spec.clone();
        strict.columns.iter_mut().for_each(|c| c.coerce = false);
        let (fits, expected) = match expected.strip_prefix('=') {
            Some(expected) => (true, expected),
            None => (false, expected),
        };
        let wanted = match expected {
            "!" => None,
            expected => Some((expected.to_owned(), "-".to_owned(), u64::from(!fits))),
        };
        assert_eq!(one(&spec, value), wanted, "{line}");
        // Without `coerce`, the value is a reject.
        let plain = one(&strict, value);
        assert_eq!(plain.is_some(), fits, "{line}");
        assert_eq!(plain, wanted.filter(|_| fits), "{line}");
        tried += 1;
    }
    assert!(tried > 50, "{tried}");
}

#[test]
fn values_inside_are_converted_too() {
    for (kind, value, expected, coerced) in [
        ("array<string>", "[1,\"1\",true]", "[1, 1, true]", 2),
        ("array<bigint>", "[1,\"2\",3.0]", "[1, 2, 3]", 2),
        (
            "map<string,boolean>",
            "{\"a\":1,\"b\":true}",
            "{a: true, b: true}",
            1,
        ),
        (
            "struct<a:bigint,m:map<string,int>>",
            "{\"a\":\"5\",\"m\":[]}",
            "{a: 5, m: {}}",
            2,
        ),
        (
            "array<struct<p:decimal(4,1)>>",
            "[{\"p\":\"1.25\"},{\"p\":1.5},[]]",
            "[{p: 1.3}, {p: 1.5}, {p: -}]",
            2,
        ),
    ] {
        let found = one(&lenient(&[&format!("c {kind}")]), value);
        let wanted = (expected.to_owned(), "-".to_owned(), coerced);
        assert_eq!(found, Some(wanted), "{kind} {value}");
        assert_eq!(one(&spec(&[&format!("c {kind}")]), value), None, "{kind}");
    }
}

#[test]
fn what_a_reject_converted_is_not_counted() {
    let spec = lenient(&["a string", "c bigint"]);
    let record = format!("{{\"t\":{ARRIVAL},\"a\":1,\"c\":\"x\"}}");
    let found = decode(&spec, record.as_bytes());
    assert_eq!(found.counts.rejects[&Reason::Type], 1);
    assert!(found.counts.coerced.is_empty());
    let mut null = spec;
    null.on_type_error = OnTypeError::Null;
    let found = decode(&null, record.as_bytes());
    assert_eq!(found.events[0].1, ["1", "-", "{\"c\":\"x\"}"]);
    assert_eq!(
        (found.counts.coerced["a"], found.counts.nulled["c"]),
        (1, 1)
    );
}

/// A source with one column `c` whose fields have paths.
fn with_paths(kind: &str, paths: &[(&str, &[&str])]) -> DecodeSpec {
    let mut spec = spec(&[&format!("c {kind}")]);
    let paths = paths.iter().map(|(place, path)| {
        let path = path.iter().map(|name| (*name).to_owned()).collect();
        ((*place).to_owned(), path)
    });
    spec.columns[1].paths = paths.collect();
    spec
}

#[test]
fn fields_are_read_from_the_members_that_paths_name() {
    let items = with_paths(
        "array<struct<product_id:string,unit_price:double,shop:struct<id:string>>>",
        &[
            ("product_id", &["productId"]),
            ("unit_price", &["price", "unit"]),
            ("shop.id", &["ID"]),
        ],
    );
    let full = r#"[{"productId":"p1","price":{"unit":1.5},"shop":{"ID":"s"}}]"#;
    let expected = "[{product_id: p1, unit_price: 1.5, shop: {id: s}}]";
    let read = |value| one(&items, value).map(|(value, extra, _)| (value, extra));
    assert_eq!(read(full), Some((expected.to_owned(), "-".to_owned())));
    for (value, expected, is_extra) in [
        // The field's own name is another member now.
        (
            r#"[{"product_id":"p1"}]"#,
            "[{product_id: -, unit_price: -, shop: -}]",
            true,
        ),
        (
            r#"[{"price":{"unit":2,"tax":1}}]"#,
            "[{product_id: -, unit_price: 2.0, shop: -}]",
            true,
        ),
        // The last member of a name counts, and what an earlier one held is forgotten.
        (
            r#"[{"price":{"unit":2},"price":{}}]"#,
            "[{product_id: -, unit_price: -, shop: -}]",
            false,
        ),
        (
            r#"[{"price":{"unit":2},"price":null}]"#,
            "[{product_id: -, unit_price: -, shop: -}]",
            false,
        ),
        (
            r#"[{"price":7}]"#,
            "[{product_id: -, unit_price: -, shop: -}]",
            true,
        ),
        (
            r#"[{"product\u0049d":"p1"}]"#,
            "[{product_id: p1, unit_price: -, shop: -}]",
            false,
        ),
    ] {
        let extra = match is_extra {
            true => format!("{{\"c\":{value}}}"),
            false => "-".to_owned(),
        };
        assert_eq!(read(value), Some((expected.to_owned(), extra)), "{value}");
    }
    let record = format!("{{\"t\":{ARRIVAL},\"c\":[{{\"price\":7}},{{\"price\":\"x\"}}]}}");
    let found = decode(&items, record.as_bytes());
    assert_eq!(found.counts.unreached["c"], 2);
    let map = with_paths("map<string,struct<a:int>>", &[("a", &["A"])]);
    let (value, extra, _) = one(&map, r#"{"k":{"A":1}}"#).unwrap();
    assert_eq!((value.as_str(), extra.as_str()), ("{k: {a: 1}}", "-"));
}

#[test]
fn fields_of_a_struct_column_leave_the_rest_to_extra() {
    let spec = with_paths(
        "struct<os:string,ram:int>",
        &[("os", &["osName"]), ("ram", &["hw", "RAM"])],
    );
    for (value, expected, extra) in [
        (
            r#"{"osName":"ios","hw":{"RAM":4}}"#,
            "{os: ios, ram: 4}",
            "-",
        ),
        (
            r#"{"osName":"ios","os":1,"hw":{"RAM":4,"cpu":2}}"#,
            "{os: ios, ram: 4}",
            r#"{"c":{"os":1,"hw":{"cpu":2}}}"#,
        ),
        (r#"{"hw":5}"#, "{os: -, ram: -}", r#"{"c":{"hw":5}}"#),
    ] {
        let found = one(&spec, value).unwrap();
        assert_eq!((found.0.as_str(), found.1.as_str()), (expected, extra));
    }
}

#[test]
fn a_default_has_the_names_of_the_type() {
    let mut spec = with_paths("array<struct<a:int>>", &[("a", &["A"])]);
    spec.columns[1].default = Some(serde_json::json!([{"a": 7}]));
    assert_eq!(one(&spec, "null").unwrap().0, "[{a: 7}]");
    assert_eq!(one(&spec, "[{\"A\":1}]").unwrap().0, "[{a: 1}]");
}

#[test]
fn a_path_goes_on_in_a_string_that_holds_json() {
    let plan = &["props.plan string", "props.n bigint"];
    let named = &["props json", "props.plan string", "props.n bigint"];
    for (columns, props, expected, unreached) in [
        (&plan[..], r#"{"plan":"pro"}"#, &["pro", "-", "-"][..], 0),
        (plan, r#""{\"plan\":\"pro\"}""#, &["pro", "-", "-"], 0),
        (
            plan,
            r#"" {\"plan\" : \"p\\\"\\u0041\"}\n ""#,
            &["p\"A", "-", "-"],
            0,
        ),
        (
            plan,
            r#""{\"plan\":\"pro\",\"x\":[1],\"n\":7}""#,
            &["pro", "7", r#"{"props":{"x":[1]}}"#],
            0,
        ),
        // Of two members with one name the last counts, inside and outside.
        (
            plan,
            r#""{\"plan\":\"a\",\"x\":1,\"x\":2}","props":"{\"n\":1}""#,
            &["-", "1", "-"],
            0,
        ),
        (
            plan,
            r#""{\"n\":1}","props":{"plan":"b"}"#,
            &["b", "-", "-"],
            0,
        ),
        (
            plan,
            r#"{"plan":"b"},"props":"{\"n\":1}""#,
            &["-", "1", "-"],
            0,
        ),
        (
            plan,
            r#""{\"n\":1}","props":null"#,
            &["-", "-", r#"{"props":null}"#],
            0,
        ),
        (plan, "null", &["-", "-", r#"{"props":null}"#], 0),
        (plan, r#""null""#, &["-", "-", r#"{"props":"null"}"#], 0),
        (plan, r#""""#, &["-", "-", r#"{"props":""}"#], 1),
        (plan, "5", &["-", "-", r#"{"props":5}"#], 1),
        (plan, "[{}]", &["-", "-", r#"{"props":[{}]}"#], 1),
        (plan, r#""[1]""#, &["-", "-", r#"{"props":"[1]"}"#], 1),
        (
            plan,
            r#""{\"plan\":\"a\",\"x\":1,}""#,
            &["-", "-", r#"{"props":"{\"plan\":\"a\",\"x\":1,}"}"#],
            1,
        ),
        (
            plan,
            r#""{\"plan\":1} {}""#,
            &["-", "-", r#"{"props":"{\"plan\":1} {}"}"#],
            1,
        ),
        (plan, r#""\ud800""#, &["-", "-", r#"{"props":"\ud800"}"#], 1),
        (
            named,
            r#""{\"plan\":\"pro\",\"x\":1}""#,
            &[r#""{\"plan\":\"pro\",\"x\":1}""#, "pro", "-", "-"],
            0,
        ),
        (named, "5", &["5", "-", "-", "-"], 1),
    ] {
        let record = format!("{{\"t\":{ARRIVAL},\"props\":{props}}}");
        let found = decode(&spec(columns), record.as_bytes());
        assert_eq!(found.rejects, [], "{props}");
        assert_eq!(found.events[0].1, expected, "{props}");
        for column in ["props_plan", "props_n"] {
            let counted = found.counts.unreached.get(column).copied().unwrap_or(0);
            assert_eq!(counted, unreached, "{props}");
        }
    }
}

#[test]
fn strings_in_strings_are_opened_too() {
    let spec = spec(&["a.b.c string", "a.b.d string", "a.e string"]);
    let inner = serde_json::json!({"c": "x", "y": 1}).to_string();
    let outer = serde_json::json!({"b": inner, "e": "\u{e9}", "z": [2]}).to_string();
    let record = serde_json::json!({"t": ARRIVAL, "a": outer, "w": 3}).to_string();
    let found = decode(&spec, record.as_bytes());
    let extra = r#"{"a":{"b":{"y":1},"z":[2]},"w":3}"#;
    assert_eq!(found.events[0].1, ["x", "-", "\u{e9}", extra]);
    assert!(found.counts.unreached.is_empty());
    // A string inside that is no JSON stops the paths that go through it, and no other.
    let outer = serde_json::json!({"b": "none", "e": "f"}).to_string();
    let record = serde_json::json!({"t": ARRIVAL, "a": outer}).to_string();
    let found = decode(&spec, record.as_bytes());
    assert_eq!(found.events[0].1, ["-", "-", "f", r#"{"a":{"b":"none"}}"#]);
    let counted: Vec<_> = found.counts.unreached.iter().collect();
    assert_eq!(
        counted,
        [(&"a_b_c".to_owned(), &1), (&"a_b_d".to_owned(), &1)]
    );
}

#[test]
fn a_value_in_a_string_that_does_not_fit_stays_in_extra() {
    let mut spec = spec(&["props.n bigint", "q.s struct<a:int>", "p2.m bigint"]);
    spec.on_type_error = OnTypeError::Null;
    let record = serde_json::json!({
        "t": ARRIVAL,
        "a": 1,
        "props": "{\"b\":1,\"n\":\"x\",\"c\":2}",
        "q": "{\"s\":{\"a\":\"y\",\"k\":1}}",
        "p2": "{\"m\":3}",
    });
    let found = decode(&spec, record.to_string().as_bytes());
    let extra = r#"{"a":1,"props":{"b":1,"n":"x","c":2},"q":{"s":{"a":"y","k":1}}}"#;
    let mut values = found.events[0].1.clone();
    // serde_json sorts the members.
    let last: serde_json::Value = serde_json::from_str(&values.pop().unwrap()).unwrap();
    assert_eq!(
        last,
        serde_json::from_str::<serde_json::Value>(extra).unwrap()
    );
    assert_eq!(values, ["-", "-", "3"]);
    assert_eq!(found.counts.nulled.len(), 2);
}

#[test]
fn the_time_may_be_in_a_string() {
    let mut spec = spec(&["body.t timestamp"]);
    spec.event_time = "body_t".to_owned();
    let found = decode(
        &spec,
        format!("{{\"body\":\"{{\\\"t\\\":{ARRIVAL}}}\"}}").as_bytes(),
    );
    assert_eq!(found.events.len(), 1);
    let (reason, detail) = refused(&spec, "{\"body\":\"x\"}");
    assert_eq!(reason, Reason::EventTime);
    assert!(
        detail.contains("its path meets a value that has no members"),
        "{detail}"
    );
}

/// A table of the page on input. The page must have it as it is made here.
fn assert_on_page(head: [&str; 3], rows: &[[String; 3]]) {
    let line = |cells: [&str; 3]| format!("| {} |\n", cells.join(" | "));
    let rows = rows.iter().map(|[a, b, c]| line([a, b, c]));
    let table = format!("{}|---|---|---|\n{}", line(head), rows.collect::<String>());
    let page = include_str!("../../../docs/input.md");
    assert!(page.contains(&table), "docs/input.md must have:\n\n{table}");
}

#[test]
fn the_page_on_input_has_the_conversions() {
    let rows = [
        ("string", "1001"),
        ("string", "1001.0"),
        ("string", "true"),
        ("boolean", "1"),
        ("boolean", "0"),
        ("boolean", "\"true\""),
        ("boolean", "\"False\""),
        ("boolean", "\"1\""),
        ("int", "\"7\""),
        ("int", "7.0"),
        ("bigint", "\"12.00\""),
        ("bigint", "1e3"),
        ("double", "\"1.5\""),
        ("decimal(10,2)", "19.999"),
        ("decimal(10,2)", "0.30000000000000004"),
        ("decimal(10,2)", "-0.005"),
        ("map<string,string>", "[]"),
        ("struct<a:string>", "[]"),
    ];
    let rows = rows.map(|(kind, value)| {
        let column = format!("c {kind}");
        assert_eq!(one(&spec(&[&column]), value), None, "{kind} {value}");
        let (read, _, coerced) = one(&lenient(&[&column]), value).unwrap();
        assert_eq!(coerced, 1, "{kind} {value}");
        let read = match read.as_str() {
            "{}" => "an empty map".to_owned(),
            "{a: -}" => "a struct of NULLs".to_owned(),
            read => format!("`{read}`"),
        };
        [format!("`{kind}`"), format!("`{value}`"), read]
    });
    assert_on_page(["type", "written", "read as"], &rows);
}

#[test]
fn the_page_on_input_has_the_spellings_of_times() {
    let mut spec = spec(&["c timestamp"]);
    spec.naive_timezone = Some("Asia/Seoul".parse().unwrap());
    let rows = [
        ("RFC 3339", "\"2019-04-02T09:05:00Z\""),
        ("", "\"2019-04-02T18:05:00.123456789+09:00\""),
        ("a space, lower case", "\"2019-04-02 09:05:00z\""),
        (
            "an offset without a colon or minutes",
            "\"2019-04-02T18:05:00 +0900\"",
        ),
        ("", "\"2019-04-02T18:05:00+09\""),
        (
            "a comma before the fraction",
            "\"2019-04-02T09:05:00,250Z\"",
        ),
        ("no seconds", "\"2019-04-02T09:05Z\""),
        ("no offset", "\"2019-04-02 18:05:00\""),
        ("the name of UTC", "\"2019-04-02 09:05:00 UTC\""),
        (
            "an offset and the name of its zone",
            "\"2019-04-02T18:05:00+09:00[Asia/Seoul]\"",
        ),
        ("", "\"2019-04-02 18:05:00 +0900 KST\""),
        ("basic format of ISO 8601", "\"20190402T090500Z\""),
        ("slashes, with the year first", "\"2019/04/02 18:05:00\""),
        ("a leap second", "\"2016-12-31T23:59:60Z\""),
        ("the hour 24", "\"2019-04-02T24:00:00Z\""),
        ("Apache's log", "\"02/Apr/2019:18:05:00 +0900\""),
        ("RFC 2822, HTTP", "\"Tue, 02 Apr 2019 18:05:00 +0900\""),
        ("", "\"Tue, 02 Apr 2019 09:05:00 GMT\""),
        (
            "JavaScript's `Date`",
            "\"Tue Apr 02 2019 18:05:00 GMT+0900 (KST)\"",
        ),
        ("C's `asctime`", "\"Tue Apr  2 18:05:00 2019\""),
        (".NET", "\"/Date(1554195900000+0900)/\""),
        ("MongoDB", "{\"$date\":\"2019-04-02T09:05:00Z\"}"),
        ("", "{\"$date\":1554195900000}"),
        ("", "{\"$date\":{\"$numberLong\":\"1554195900000\"}}"),
        ("seconds", "1554195900"),
        ("milliseconds", "1554195900000"),
        ("a number as text", "\"1554195900.25\""),
    ];
    let rows = rows.map(|(what, value)| {
        let (read, extra, _) = one(&spec, value).unwrap_or_else(|| panic!("{value}"));
        assert_eq!(extra, "-", "{value}");
        [what.to_owned(), format!("`{value}`"), format!("`{read}`")]
    });
    assert_on_page(["spelling", "written", "read as"], &rows);
    // MongoDB's numbers are milliseconds, however small.
    for (value, read) in [
        ("{\"$date\":1000}", Some("1970-01-01T00:00:01Z")),
        (
            "{\"$date\":{\"$numberLong\":\"-1\"}}",
            Some("1969-12-31T23:59:59.999Z"),
        ),
        (
            "{ \"$date\" : { \"$numberLong\" : \"0\" } }",
            Some("1970-01-01T00:00:00Z"),
        ),
        ("{\"$date\":\"1554195900\"}", None),
        ("{\"$date\":null}", None),
        ("{\"$date\":0,\"x\":1}", None),
        ("{\"$oid\":\"a\"}", None),
        ("[2019,4,2,12,0]", None),
        ("true", None),
    ] {
        let found = one(&spec, value).map(|(read, _, _)| read);
        assert_eq!(found.as_deref(), read, "{value}");
    }
}

#[test]
fn formats_come_before_the_everyday_spellings() {
    let mut spec = spec(&["c timestamp", "d date"]);
    spec.naive_timezone = Some("Asia/Seoul".parse().unwrap());
    let formats = ["%d/%m/%Y %H:%M", "%Y%m%d%H%M%S", "[%Y,%m,%d,%H,%M]"];
    spec.columns[1].time_formats = formats.map(str::to_owned).to_vec();
    spec.columns[2].time_formats = vec!["%Y%m%d".to_owned(), "[%Y,%m,%d]".to_owned()];
    for (time, date, expected) in [
        (
            "\"01/02/2019 09:05\"",
            "\"2019-02-01\"",
            ["2019-02-01T00:05:00Z", "2019-02-01"],
        ),
        (
            "20190201090500",
            "20190201",
            ["2019-02-01T00:05:00Z", "2019-02-01"],
        ),
        (
            "[2019, 2, 1, 9, 5]",
            "[2019,2,1]",
            ["2019-02-01T00:05:00Z", "2019-02-01"],
        ),
        (
            "1548979500",
            "\"2019/02/01\"",
            ["2019-02-01T00:05:00Z", "2019-02-01"],
        ),
        (
            "\"01\\/02\\/2019 09:05\"",
            "null",
            ["2019-02-01T00:05:00Z", "-"],
        ),
    ] {
        let values = row(&spec, &format!("\"c\":{time},\"d\":{date}"));
        assert_eq!(values[..2], expected, "{time} {date}");
    }
    let strict = super::spec(&["c timestamp", "d date"]);
    let record = format!("{{\"t\":{ARRIVAL},\"d\":20190201}}");
    assert_eq!(refused(&strict, &record).0, Reason::Type);
}

#[test]
fn numbers_that_count_local_time_have_a_zone() {
    let mut spec = spec(&["c timestamp", "d timestamp"]);
    spec.epoch_timezone = Some("Asia/Seoul".parse().unwrap());
    spec.accept.from_ms = -86_400_000;
    let values = row(&spec, "\"c\":1554195900,\"d\":\"2019-04-02T09:05:00Z\"");
    assert_eq!(
        values[..2],
        ["2019-04-02T00:05:00Z", "2019-04-02T09:05:00Z"]
    );
}

/// A random value. Some strings hold JSON.
fn random_value(random: &mut ChaCha8Rng, depth: u32) -> serde_json::Value {
    use serde_json::{Value, json};
    match random.random_range(0..if depth < 4 { 12 } else { 6 }) {
        0 => Value::Null,
        1 => json!(random.random_range(0..9)),
        2 => json!("null"),
        3 => json!("x \"\\y"),
        4 => json!([{"a": 1}]),
        5 => json!("{\"a\":1,}"),
        6 | 7 => json!(random_value(random, depth + 1).to_string()),
        _ => {
            let mut members = serde_json::Map::new();
            for name in ["a", "b", "c"] {
                if random.random_bool(0.6) {
                    members.insert(name.to_owned(), random_value(random, depth + 1));
                }
            }
            Value::Object(members)
        }
    }
}

/// Takes the values at these paths out of an object, which is left as `extra`. `values` and `unreached` have an entry for
/// each path, which `paths` gives with its index.
fn take_out(
    object: &mut serde_json::Map<String, serde_json::Value>,
    paths: &[(usize, &[String])],
    values: &mut [Option<serde_json::Value>],
    unreached: &mut u64,
) {
    for name in ["a", "b", "c"] {
        let here = paths.iter().filter(|(_, path)| path[0] == name);
        let rest: Vec<(usize, &[String])> = here.map(|(i, path)| (*i, &path[1..])).collect();
        let Some((first, _)) = rest.first() else {
            continue;
        };
        if rest.iter().any(|(_, path)| path.is_empty()) {
            values[*first] = object.remove(name).filter(|value| !value.is_null());
            continue;
        }
        let Some(value) = object.get_mut(name) else {
            continue;
        };
        let text = value.as_str().unwrap_or_default().to_owned();
        if let Ok(inside @ serde_json::Value::Object(_)) = serde_json::from_str(&text) {
            *value = inside;
        }
        match value {
            serde_json::Value::Object(inside) => {
                take_out(inside, &rest, values, unreached);
                if inside.is_empty() {
                    object.remove(name);
                }
            }
            serde_json::Value::Null => {}
            _ if text == "null" => {}
            _ => *unreached += rest.len() as u64,
        }
    }
}

/// The columns and `extra` together hold each value once, whichever parts of a record are strings that hold JSON.
#[test]
fn nothing_of_a_string_is_lost_or_told_twice() {
    let mut random = ChaCha8Rng::seed_from_u64(17);
    let (mut opened, mut met) = (0, 0);
    for _ in 0..3_000 {
        let mut paths: Vec<Vec<String>> = Vec::new();
        for _ in 0..random.random_range(1..4) {
            let length = random.random_range(1..4);
            let name =
                |random: &mut ChaCha8Rng| ["a", "b", "c"][random.random_range(0..3)].to_owned();
            let path: Vec<String> = (0..length).map(|_| name(&mut random)).collect();
            if !paths
                .iter()
                .any(|p| p.starts_with(&path) || path.starts_with(p))
            {
                paths.push(path);
            }
        }
        let columns: Vec<String> = paths
            .iter()
            .map(|path| format!("{} json", path.join(".")))
            .collect();
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let spec = spec(&columns);
        let mut extra = serde_json::Map::new();
        for name in ["a", "b", "c"] {
            extra.insert(name.to_owned(), random_value(&mut random, 0));
        }
        let mut record = extra.clone();
        record.insert("t".to_owned(), ARRIVAL.into());
        let record = serde_json::Value::Object(record).to_string();
        let found = decode(&spec, record.as_bytes());
        let numbered: Vec<_> = paths.iter().map(Vec::as_slice).enumerate().collect();
        let mut values = vec![None; paths.len()];
        let mut unreached = 0;
        let before = serde_json::Value::Object(extra.clone()).to_string().len();
        take_out(&mut extra, &numbered, &mut values, &mut unreached);
        let given = &found.events[0].1;
        let read = |text: &String| (text != "-").then(|| serde_json::from_str(text).unwrap());
        for (value, given) in values.iter().zip(given) {
            let given: Option<serde_json::Value> = read(given);
            assert_eq!(&given, value, "{columns:?} {record}");
        }
        let left: Option<serde_json::Value> = read(given.last().unwrap());
        let expected = (!extra.is_empty()).then(|| serde_json::Value::Object(extra.clone()));
        assert_eq!(left, expected, "{columns:?} {record}");
        let counted: u64 = found.counts.unreached.values().sum();
        assert_eq!(counted, unreached, "{columns:?} {record}");
        opened += u64::from(before > 60 && record.contains("{\\\""));
        met += unreached;
    }
    assert!(opened > 300 && met > 300, "{opened} {met}");
}
