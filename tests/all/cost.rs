//! P9: the bytes and requests of a run follow the change and not the size of the lake. The S3 server of the
//! tests counts every request.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{NaiveDate, TimeDelta};

use crate::project::{Project, clicks, rawmart};
use crate::s3::S3Server;

fn config() -> String {
    let double_click = "within = \"1s\"\nmode = \"gap-last\"";
    let source = clicks("s3://raw/app", "at", "", double_click);
    format!("lake = \"s3://lake/app\"\n{source}")
}

/// The number of events of one day, one every ten minutes.
const A_DAY: usize = 144;

struct Lake {
    server: S3Server,
    project: Project,
}

/// Requests by their kind and key, without the parts of a key that differ from run to run.
type Requests = BTreeMap<(String, String), usize>;

struct Cost {
    requests: Requests,
    /// The dates of the partitions that were read or written.
    dates: BTreeSet<String>,
    read: u64,
    written: u64,
}

fn date(day: i64) -> NaiveDate {
    NaiveDate::from_ymd_opt(2019, 1, 1).unwrap() + TimeDelta::days(day)
}

fn event(day: i64, minute: usize, id: &str) -> String {
    let at = date(day).and_hms_opt(0, 0, 0).unwrap().and_utc() + TimeDelta::minutes(minute as i64);
    let at = at.timestamp();
    format!(
        "{{\"id\": \"{id}\", \"at\": {at}, \"who\": \"u{}\"}}\n",
        minute % 7
    )
}

impl Lake {
    fn new() -> Self {
        let project = Project::new();
        project.write("rawmart.toml", config());
        Self {
            server: S3Server::start(&["raw", "lake"]),
            project,
        }
    }

    /// One raw object for each of these days.
    fn add_days(&self, days: std::ops::Range<i64>) {
        for day in days {
            let events = (0..A_DAY).map(|i| event(day, 10 * i, &format!("{day}-{i}")));
            let key = format!("app/{}/23/day", date(day).format("%Y/%m/%d"));
            self.server.put("raw", &key, events.collect::<String>());
        }
    }

    fn run(&self) -> Cost {
        self.server.clear_log();
        let args = ["run", "--output", "json"];
        let ran = rawmart(&self.project.path(""), &args, &self.server.env());
        ran.expect(0, &[]);
        let summary = ran.json();
        let mut requests = Requests::new();
        let mut dates = BTreeSet::new();
        for (operation, key) in self.server.log() {
            let parts: Vec<&str> = key.split('/').collect();
            let dt = parts.iter().find_map(|part| part.strip_prefix("dt="));
            dates.extend(dt.map(str::to_owned));
            *requests.entry((operation, alike(&parts))).or_default() += 1;
        }
        Cost {
            requests,
            dates,
            read: summary["bytes_read"].as_u64().unwrap(),
            written: summary["bytes_written"].as_u64().unwrap(),
        }
    }

    /// The bytes of the data files of these dates.
    fn stored(&self, days: std::ops::RangeInclusive<i64>) -> u64 {
        let folders: Vec<String> = days.map(|day| format!("/dt={}/", date(day))).collect();
        let objects = self.server.objects("lake");
        let of_days = objects.iter().filter(|(key, _)| {
            !key.contains("/_rawmart/") && folders.iter().any(|folder| key.contains(folder))
        });
        of_days.map(|(_, bytes)| bytes.len() as u64).sum()
    }
}

/// A key without dates, numbers of commits and names of runs.
fn alike(parts: &[&str]) -> String {
    let alike = parts.iter().map(|part| match *part {
        part if part.starts_with("dt=") => "dt",
        part if part.ends_with(".published") => "n.published",
        part if part.starts_with("0000") => "n",
        part if part.bytes().all(|byte| byte.is_ascii_digit()) => "",
        part => part,
    });
    alike.collect::<Vec<_>>().join("/")
}

#[test]
fn one_late_event_among_a_year_of_days() {
    let lake = Lake::new();
    lake.add_days(0..365);
    let year = lake.run();
    assert_eq!(year.dates.len(), 365);
    let before = lake.server.objects("lake");

    let late = event(200, 725, "late");
    let raw = late.len() as u64;
    lake.server.put("raw", "app/2019/12/31/23/late", late);
    let cost = lake.run();
    assert_eq!(cost.dates, BTreeSet::from([date(200).to_string()]));
    // The day is read once for each rule that has an open chain, and once to be written again. Each reading
    // needs its footer.
    assert!(
        cost.read <= raw + 5 * lake.stored(200..=200),
        "{}",
        cost.read
    );
    assert!(cost.read < year.read / 50, "{} {}", cost.read, year.read);
    assert!(cost.written < year.written / 200, "{}", cost.written);
    let after = lake.server.objects("lake");
    let changed = after
        .iter()
        .filter(|(key, bytes)| before.get(*key) != Some(*bytes));
    let changed: Vec<&str> = changed.map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        changed,
        [
            "app/_rawmart/log/00000000000000000002",
            "app/_rawmart/log/00000000000000000002.published",
            &format!("app/app/dt={}/part-00000.parquet", date(200)),
        ]
    );
    let puts = cost
        .requests
        .iter()
        .filter(|((op, _), _)| op == "PutObject");
    // The files are staged, committed, published and marked.
    assert_eq!(puts.map(|(_, count)| count).sum::<usize>(), 4);
    // Published files are not read back.
    let of_staged = |(op, key): &&(String, String)| op == "GetObject" && key.contains("/staging/");
    assert_eq!(cost.requests.keys().find(of_staged), None);
    assert!(
        cost.requests.values().sum::<usize>() < 60,
        "{:?}",
        cost.requests
    );
}

/// The event of the hour falls into a published day, and both days have neighbours of it.
#[test]
fn an_hourly_run_costs_the_same_on_day_300_as_on_day_3() {
    let lake = Lake::new();
    let hourly = |day: i64| {
        let key = format!("app/{}/12/hour", date(day).format("%Y/%m/%d"));
        let events: String = (0..6)
            .map(|i| event(day, 721 + i, &format!("h{day}-{i}")))
            .collect();
        lake.server.put("raw", &key, events);
        lake.run()
    };
    lake.add_days(0..4);
    lake.run();
    let early = hourly(3);
    lake.add_days(4..301);
    lake.run();
    let late = hourly(300);
    assert_eq!(late.dates, BTreeSet::from([date(300).to_string()]));
    let commits = |requests: &Requests| {
        let mut requests = requests.clone();
        // A run reads the commits since the last checkpoint, and there are two more of them by now.
        requests.retain(|(_, key), _| !key.starts_with("app/_rawmart/log/"));
        requests
    };
    assert_eq!(commits(&late.requests), commits(&early.requests));
    let near = |a: u64, b: u64| a.abs_diff(b) * 20 <= b;
    assert!(near(late.read, early.read), "{} {}", late.read, early.read);
    assert!(
        near(late.written, early.written),
        "{} {}",
        late.written,
        early.written
    );
}

/// A date of a mart is built again only if a date in its reach has changed.
#[test]
fn one_late_event_among_two_months_of_marts() {
    let lake = Lake::new();
    let toml = config() + "[marts]\npath = \"sql\"\n";
    lake.project.write("rawmart.toml", toml);
    lake.project.write(
        "sql/daily.sql",
        "-- partition: dt\nSELECT count(*) AS events, dt FROM app GROUP BY dt",
    );
    lake.project.write(
        "sql/week.sql",
        "-- partition: dt\n-- reads: daily back 6d\n\
         SELECT CAST(sum(week.events) AS bigint) AS events, daily.dt\n\
         FROM daily JOIN daily AS week ON week.dt <= daily.dt GROUP BY daily.dt",
    );
    lake.add_days(0..60);
    let built = lake.run();
    // The files that this run has published also lie on its own disk.
    let of_events =
        |(op, key): &&(String, String)| op == "GetObject" && key.starts_with("app/app/");
    assert_eq!(built.requests.keys().find(of_events), None);
    let before = lake.server.objects("lake");
    let late = event(40, 725, "late");
    lake.server.put("raw", "app/2019/12/31/23/late", late);
    let cost = lake.run();

    let after = lake.server.objects("lake");
    let changed = after
        .iter()
        .filter(|(key, bytes)| before.get(*key) != Some(*bytes))
        .filter_map(|(key, _)| key.strip_prefix("app/"))
        .filter(|key| !key.starts_with("_rawmart/"));
    let part = |table: &str, day| format!("{table}/dt={}/part-00000.parquet", date(day));
    let mut expected = vec![part("app", 40), part("daily", 40)];
    expected.extend((40..=46).map(|day| part("week", day)));
    assert_eq!(changed.collect::<Vec<_>>(), expected);
    // The mart of events has the one day. The mart of weeks has the days of all weeks that hold it.
    let dates: BTreeSet<String> = (34..=46).map(|day| date(day).to_string()).collect();
    assert_eq!(cost.dates, dates);
}
