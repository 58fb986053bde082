//! Events of an invented app as Firehose leaves them on S3: a pure function of a seed.
//!
//! ```text
//! base event i ──▶ Plan   time, delay, late, sent again, clicked twice    cheap: in which hours it arrives
//!              └─▶ line   id, user, page, device, props …                 made where an hour is written
//!
//! hour of arrival = plans of the half hour before and of the hour itself + late deliveries that fall into it
//! ```
//!
//! So hours can be made in any order and on any thread, and no more than an hour is held.
//!
//! No two clicks of one user, target and page have the same time: of such a pair, engines keep one or
//! the other, and their results could not be compared.

use std::io::Write;

use chrono::{DateTime, SecondsFormat};
use libdeflater::{CompressionLvl, Compressor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Beside `raw/`, so that rawmart runs on what is generated.
pub const CONFIG: &str = r#"# Made by benches/generate.rs.

lake = "lake"
timezone = "Asia/Seoul"

[sources.events]
raw = "raw"
event_time = "event_time"
compression = "zstd"

[sources.events.columns]
event_id = "string"
event_type = "string"
event_time = "timestamp"
user_id = "string"
session_id = "string"
page = "string"
target = "string"
os = { type = "string", path = "device.os" }
os_version = { type = "string", path = "device.os_version" }
app_version = { type = "string", path = "device.app_version" }
country = { type = "string", path = "geo.country" }
city = { type = "string", path = "geo.city" }
props = "json"
schema = "int"

# The same event always has the same time: this is the first of each id.
[[sources.events.dedup]]
name = "redelivery"
key = ["event_id"]
within = "2d"

# `gap` is what lag() over (PARTITION BY user_id, target, page ORDER BY event_time) can say.
[[sources.events.dedup]]
name = "double_click"
when = "event_type = 'click'"
key = ["user_id", "target", "page"]
within = "1s"
mode = "gap"

[marts]
path = "sql/marts"
"#;

/// 2019-04-01T00:00:00Z. All times below are milliseconds from here.
pub const START: u64 = 1_554_076_800_000;
pub const HOUR: u64 = 3_600_000;

/// JSON bytes after which Firehose closes an object: ten million events a day are six an hour.
const OBJECT: usize = 28_000_000;

/// Shares of all records, and one torn line in so many.
const SENT_AGAIN: f64 = 0.0197;
const CLICKED_TWICE: f64 = 0.03;
const TORN: u64 = 20_000;
/// The shares of base events in percent: views, clicks, searches, scrolls, contacts. All others are opens.
const KINDS: [(u32, &str); 5] = [
    (38, "view"),
    (35, "click"),
    (12, "search"),
    (8, "scroll"),
    (4, "contact"),
];
const CLICKS: f64 = 0.35;

/// An event arrives so long after its time, unless it is late.
const DELAY: std::ops::Range<u64> = 200..60_000;
const LATE: std::ops::Range<u64> = 60_000..30 * HOUR;
/// A delivery is repeated so long after it.
const AGAIN: (u64, u64) = (500, 1_800_000);
/// A second click follows so long after the first.
const TWICE: (u64, u64) = (40, 1_900);
/// Hours after the last event in which one may still arrive.
const TAIL: u64 = 31;

/// The settings of the generator.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub seed: u64,
    /// Lines in all; those that are made differ by what chance adds.
    pub records: u64,
    /// Span of the event times.
    pub hours: u64,
    /// Share of events that arrive up to 30 hours late.
    pub late: f64,
}

pub struct Events {
    shape: Shape,
    /// Events that are neither deliveries of others nor second clicks.
    base: u64,
    users: u64,
    random: ChaCha8Rng,
    /// The late deliveries, in the order of their arrival.
    late: Vec<Delivery>,
}

/// A raw object before it is compressed.
pub struct Object<'a> {
    /// The key below the root of the raw objects.
    pub key: String,
    pub json: &'a [u8],
    pub records: u64,
}

/// The numbers that decide when a base event and its copies arrive.
struct Plan {
    kind: &'static str,
    time: u64,
    arrival: u64,
    is_late: bool,
    again: Option<u64>,
    twice: Option<u64>,
}

/// One line, by arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Delivery {
    arrival: u64,
    index: u64,
    copy: Copied,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Copied {
    First,
    Again,
    Twice,
}

impl Events {
    pub fn new(shape: Shape) -> Result<Self> {
        let base = (shape.records as f64 * (1.0 - SENT_AGAIN - CLICKED_TWICE)) as u64;
        // Each base event has an even millisecond of its own, and each second click an odd one.
        if shape.hours == 0 || base > shape.hours * HOUR / 2 {
            return Err("one hour has room for 1,800,000 events at most".into());
        }
        let mut events = Self {
            shape,
            base,
            users: (shape.records * 24 / shape.hours / 50).max(1_000),
            random: ChaCha8Rng::seed_from_u64(shape.seed),
            late: Vec::new(),
        };
        let mut late = Vec::new();
        for index in 0..base {
            let (plan, _) = events.plan(index);
            if plan.is_late {
                late.extend(plan.deliveries(index));
            }
        }
        late.sort_unstable();
        events.late = late;
        Ok(events)
    }

    /// Hours of arrival, of which the last may be empty.
    pub const fn hours(&self) -> u64 {
        self.shape.hours + TAIL
    }

    /// Hands out the objects that arrive in one hour.
    pub fn hour(&self, hour: u64, take: &mut dyn FnMut(Object<'_>) -> Result<()>) -> Result<()> {
        let (from, until) = (hour * HOUR, (hour + 1) * HOUR);
        let mut deliveries = Vec::new();
        let reach = DELAY.end + AGAIN.1 + TWICE.1;
        // One more on either side, for a base event is somewhere in its slot.
        let first = self.index_at(from.saturating_sub(reach)).saturating_sub(1);
        for index in first..(self.index_at(until) + 1).min(self.base) {
            let (plan, _) = self.plan(index);
            if !plan.is_late {
                deliveries.extend(plan.deliveries(index));
            }
        }
        deliveries.retain(|delivery| (from..until).contains(&delivery.arrival));
        let late = |time| {
            self.late
                .partition_point(|delivery| delivery.arrival < time)
        };
        let late = self.late.get(late(from)..late(until));
        deliveries.extend_from_slice(late.unwrap_or_default());
        deliveries.sort_unstable();

        let mut names = self.random_of(u64::MAX - hour);
        let mut json = Vec::new();
        let mut rest = deliveries.into_iter().peekable();
        while let Some(first) = rest.peek().copied() {
            json.clear();
            let mut records = 0;
            while json.len() < OBJECT {
                let Some(delivery) = rest.next() else { break };
                self.line(delivery, &mut json)?;
                records += 1;
            }
            let key = key(first.arrival, names.random());
            take(Object {
                key,
                json: &json,
                records,
            })?;
        }
        Ok(())
    }

    /// The base event whose slot holds a time.
    const fn index_at(&self, time: u64) -> u64 {
        time * self.base / (self.shape.hours * HOUR)
    }

    fn random_of(&self, index: u64) -> ChaCha8Rng {
        let mut random = self.random.clone();
        random.set_stream(index);
        random
    }

    /// The plan of a base event, and the chance that its line is made of.
    fn plan(&self, index: u64) -> (Plan, ChaCha8Rng) {
        let mut random = self.random_of(index);
        let slot = |index| index * (self.shape.hours * HOUR / 2) / self.base;
        let time = 2 * random.random_range(slot(index)..slot(index + 1));
        let mut percent = random.random_range(0..100);
        let kind = KINDS.iter().find(|(share, _)| {
            let hit = percent < *share;
            percent = percent.saturating_sub(*share);
            hit
        });
        let kind = kind.map_or("open", |(_, kind)| kind);
        let is_late = random.random_bool(self.shape.late);
        let delay = random.random_range(if is_late { LATE } else { DELAY });
        let of_base = 1.0 - SENT_AGAIN - CLICKED_TWICE;
        let again = random
            .random_bool(SENT_AGAIN / of_base)
            .then(|| skewed(&mut random, AGAIN.0, AGAIN.1));
        let twice = (kind == "click" && random.random_bool(CLICKED_TWICE / of_base / CLICKS))
            .then(|| skewed(&mut random, TWICE.0, TWICE.1) | 1);
        let plan = Plan {
            kind,
            time,
            arrival: time + delay,
            is_late,
            again,
            twice,
        };
        (plan, random)
    }

    fn line(&self, delivery: Delivery, out: &mut Vec<u8>) -> Result<()> {
        let (plan, mut random) = self.plan(delivery.index);
        let user = skewed(&mut random, 1, self.users);
        // Values that are the same in all events of a user.
        let person = mix(user ^ self.shape.seed);
        let session = mix(person ^ (plan.time / (HOUR / 2)));
        let first: u128 = random.random();
        let second: u128 = random.random();
        let (id, time) = match delivery.copy {
            Copied::First | Copied::Again => (first, plan.time),
            Copied::Twice => (second, plan.time + plan.twice.unwrap_or_default()),
        };
        let target = match plan.kind {
            "click" => one_of(&TARGETS, &mut random),
            "search" => "\"search_box\"",
            _ => "null",
        };
        let (os, version) = match person % 20 {
            0..11 => ("android", 7 + person / 32 % 4),
            11..17 => ("ios", 10 + person / 32 % 3),
            _ => ("web", 70 + person / 32 % 5),
        };
        let time = i64::try_from(START + time)?;
        let time = DateTime::from_timestamp_millis(time).ok_or("no such time")?;
        let start = out.len();
        write!(
            out,
            "{{\"event_id\":\"{id:032x}\",\"event_type\":\"{kind}\",\"event_time\":\"{time}\",\
             \"user_id\":\"u-{user:09}\",\"session_id\":\"s-{session:016x}\",\"page\":{page},\
             \"target\":{target},\"device\":{{\"os\":\"{os}\",\"os_version\":\"{version}\",\
             \"app_version\":\"4.{minor}.{patch}\"}},\"geo\":{{\"country\":\"{country}\",\
             \"city\":\"{city}\"}},\"props\":",
            kind = plan.kind,
            time = time.to_rfc3339_opts(SecondsFormat::Millis, true),
            page = one_of(&PAGES, &mut random),
            minor = person / 1024 % 13,
            patch = person / 65_536 % 4,
            country = if person.is_multiple_of(50) {
                "US"
            } else {
                "KR"
            },
            city = CITIES
                .get(((person >> 40) % CITIES.len() as u64) as usize)
                .unwrap_or(&"Seoul"),
        )?;
        props(plan.kind, &mut random, out)?;
        out.extend_from_slice(b",\"schema\":3}");
        let chance = mix(mix(delivery.index) ^ self.shape.seed ^ delivery.copy as u64);
        if chance.is_multiple_of(TORN) {
            let length = (out.len() - start) as u64;
            out.truncate(start + 1 + (chance / TORN % (length - 1)) as usize);
        }
        out.push(b'\n');
        Ok(())
    }
}

impl Plan {
    fn deliveries(&self, index: u64) -> impl Iterator<Item = Delivery> {
        let after = |copy, delay: Option<u64>| {
            Some(Delivery {
                arrival: self.arrival + delay?,
                index,
                copy,
            })
        };
        [
            after(Copied::First, Some(0)),
            after(Copied::Again, self.again),
            after(Copied::Twice, self.twice),
        ]
        .into_iter()
        .flatten()
    }
}

/// The name that Firehose gives to an object.
fn key(arrival: u64, uuid: u128) -> String {
    let second = i64::try_from((START + arrival) / 1_000).unwrap_or_default();
    let time = DateTime::from_timestamp(second, 0).unwrap_or_default();
    let hex = format!("{uuid:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| hex.get(part).unwrap_or_default());
    time.format("%Y/%m/%d/%H/app-events-1-%Y-%m-%d-%H-%M-%S-")
        .to_string()
        + &parts.join("-")
        + ".gz"
}

const PAGES: [&str; 12] = [
    "\"/complex/detail\"",
    "\"/map\"",
    "\"/search/result\"",
    "\"/\"",
    "\"/complex/photos\"",
    "\"/complex/price-history\"",
    "\"/agent/detail\"",
    "\"/favorites\"",
    "\"/loan/calculator\"",
    "\"/news\"",
    "\"/settings\"",
    "\"/login\"",
];

const TARGETS: [&str; 20] = [
    "\"complex_card\"",
    "\"photo\"",
    "\"map_pin\"",
    "\"price_chart\"",
    "\"call_agent\"",
    "\"favorite\"",
    "\"filter\"",
    "\"sort\"",
    "\"share\"",
    "\"tab_school\"",
    "\"tab_commute\"",
    "\"tab_review\"",
    "\"banner\"",
    "\"back\"",
    "\"more\"",
    "\"apply\"",
    "\"close\"",
    "\"zoom\"",
    "\"chat\"",
    "\"push_settings\"",
];

const CITIES: [&str; 10] = [
    "Seoul", "Seoul", "Seoul", "Busan", "Incheon", "Daegu", "Suwon", "Seongnam", "Goyang",
    "Daejeon",
];

const QUERIES: [&str; 6] = [
    "마포 20평대",
    "분당 \\\"역세권\\\"",
    "해운대 바다",
    "전세 3억",
    "학군",
    "new & cheap",
];

/// The member whose shape depends on the event.
fn props(kind: &str, random: &mut ChaCha8Rng, out: &mut Vec<u8>) -> Result<()> {
    let mut upto = |most: u32| random.random_range(0..most);
    match (kind, upto(4)) {
        ("view", shape) => {
            let (complex, price, area) = (upto(30_000), upto(200_000), upto(150));
            write!(
                out,
                "{{\"danji_id\":\"D{complex:05}\",\"price\":{price},\"area\":{area}.5"
            )?;
            let more: &[u8] = match shape {
                0 => b",\"tags\":[\"new\",\"pick\"]}",
                1 => b",\"tags\":[],\"agent\":null}",
                _ => b",\"from\":\"list\"}",
            };
            out.extend_from_slice(more);
        }
        ("click", 0) => write!(
            out,
            "{{\"x\":{},\"y\":{},\"experiment\":{{\"price_first\":\"{}\"}}}}",
            upto(1080),
            upto(2400),
            if upto(2) == 0 { "A" } else { "B" }
        )?,
        ("click", _) => write!(out, "{{\"x\":{},\"y\":{}}}", upto(1080), upto(2400))?,
        ("search", _) => {
            let query = QUERIES.get(upto(6) as usize).unwrap_or(&"");
            let (low, high, results) = (upto(5) + 1, upto(40) + 6, upto(400));
            write!(
                out,
                "{{\"query\":\"{query}\",\"filters\":{{\"trade\":[\"jeonse\",\"sale\"],\
                 \"price\":{{\"from\":{low}0000,\"to\":{high}0000}}}},\"results\":{results}}}"
            )?;
        }
        ("scroll", _) => write!(out, "{{\"depth\":0.{}5,\"ms\":{}}}", upto(10), upto(60_000))?,
        ("contact", _) => write!(
            out,
            "{{\"danji_id\":\"D{:05}\",\"agent\":{{\"id\":{},\"by\":\"phone\",\"again\":{}}}}}",
            upto(30_000),
            upto(4_000),
            upto(2) == 0
        )?,
        (_, 0) => write!(out, "{{\"push\":\"campaign-{}\"}}", upto(40))?,
        _ => out.extend_from_slice(b"{}"),
    }
    Ok(())
}

/// Early ones are more frequent.
fn one_of(values: &[&'static str], random: &mut ChaCha8Rng) -> &'static str {
    let place = random.random_range(0..values.len());
    let place = random.random_range(0..=place);
    values.get(place).unwrap_or(&"null")
}

/// Zipf's law in integers: every doubling is as probable as the next, so x has a probability of
/// about 1/x. `from` to `to`.
fn skewed(random: &mut ChaCha8Rng, from: u64, to: u64) -> u64 {
    let doublings = (to / from).ilog2() + 1;
    loop {
        let least = from << random.random_range(0..doublings);
        let value = least + random.random_range(0..least);
        if value <= to {
            return value;
        }
    }
}

/// Spreads the bits of an integer (the finalizer of splitmix64).
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// One gzip member of level 6.
pub fn gzip(json: &[u8]) -> Result<Vec<u8>> {
    let level = CompressionLvl::new(6).map_err(|error| format!("{error:?}"))?;
    let mut compressor = Compressor::new(level);
    let mut out = vec![0; compressor.gzip_compress_bound(json.len())];
    let length = compressor.gzip_compress(json, &mut out)?;
    out.truncate(length);
    Ok(out)
}
