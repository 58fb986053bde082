//! Random rules, events and raw objects.

use std::io::Write;

use chrono::{DateTime, NaiveDate, TimeDelta, TimeZone, Timelike};
use chrono_tz::Tz;
use rand::Rng;
use rand::seq::{IndexedMutRandom, IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::verdicts::{Event, Key, Mode, Object, Record, Rule};

/// A way to write a key, and its meaning.
pub(super) type KeyChoice = (&'static str, fn(&Event) -> Option<Key>);

pub(super) const KEYS: [KeyChoice; 9] = [
    (r#"["id"]"#, |e| Some(vec![e.id.clone()?])),
    (r#"["user"]"#, |e| Some(vec![e.user.clone()?])),
    (r#"["user", "page"]"#, |e| {
        Some(vec![e.user.clone()?, e.page.clone()?])
    }),
    (r#"["coalesce(id, user)"]"#, |e| {
        Some(vec![e.id.clone().or(e.user.clone())?])
    }),
    (r#"["n % 5", "kind"]"#, |e| {
        Some(vec![(e.n? % 5).to_string(), e.kind.clone()?])
    }),
    (r#"["upper(page)", "n"]"#, |e| {
        Some(vec![e.page.clone()?.to_uppercase(), e.n?.to_string()])
    }),
    (r#"["CASE WHEN kind = 'click' THEN user END"]"#, |e| {
        (e.kind.as_deref() == Some("click")).then_some(())?;
        Some(vec![e.user.clone()?])
    }),
    // This key reads no column.
    (r#"["'all'"]"#, |_| Some(vec!["all".to_owned()])),
    (r#"["record_sha256"]"#, |e| Some(vec![e.text.clone()])),
];

/// A way to write a condition, and its meaning.
pub(super) type Condition = (Option<&'static str>, fn(&Event) -> bool);

pub(super) const CONDITIONS: [Condition; 5] = [
    (None, |_| true),
    (Some("kind = 'click'"), |e| {
        e.kind.as_deref() == Some("click")
    }),
    // NULL counts as false.
    (Some("n > 6 OR page = '/a'"), |e| {
        e.n.is_some_and(|n| n > 6) || e.page.as_deref() == Some("/a")
    }),
    (Some("NOT (kind = 'view' AND n < 3)"), |e| {
        let view = e.kind.as_deref().map(|kind| kind == "view");
        let few = e.n.map(|n| n < 3);
        view == Some(false) || few == Some(false)
    }),
    // Simplified, this condition names no column.
    (Some("true OR page = '/a'"), |_| true),
];

pub(super) const WINDOWS: [(&str, i64); 7] = [
    ("0s", 0),
    ("250ms", 250),
    ("1s", 1_000),
    ("30s", 30_000),
    ("10m", 600_000),
    ("7h", 25_200_000),
    ("2d", 172_800_000),
];

pub(super) const MODES: [(&str, Mode); 4] = [
    ("throttle", Mode::Throttle),
    ("gap", Mode::Gap),
    ("gap-last", Mode::GapLast),
    ("tumbling", Mode::Tumbling),
];

/// A random rule. `middle` is a date with events.
pub(super) fn rule(
    random: &mut ChaCha8Rng,
    number: usize,
    mode: usize,
    keys: &[KeyChoice],
    middle: NaiveDate,
) -> Rule {
    let (mode_name, mode) = MODES[mode % MODES.len()];
    let (key_text, key) = *keys.choose(random).unwrap();
    let (when_text, when) = *CONDITIONS.choose(random).unwrap();
    let windows = &WINDOWS[usize::from(mode == Mode::Tumbling)..];
    let (within_text, within) = *windows.choose(random).unwrap();
    let mut toml = format!(
        "[[sources.app.dedup]]\nname = \"rule_{number}\"\nkey = {key_text}\n\
         within = \"{within_text}\"\nmode = \"{mode_name}\"\n"
    );
    if let Some(when) = when_text {
        toml += &format!("when = \"{when}\"\n");
    }
    let (mut since, mut until) = (NaiveDate::MIN, NaiveDate::MAX);
    for (name, bound) in [("since", &mut since), ("until", &mut until)] {
        if random.random_bool(0.2) {
            *bound = middle + TimeDelta::days(random.random_range(-2..=2));
            toml += &format!("{name} = \"{bound}\"\n");
        }
    }
    if since > until {
        // The configuration refuses a rule that concerns no date.
        toml = toml.replace(&format!("until = \"{until}\"\n"), "");
        until = NaiveDate::MAX;
    }
    Rule {
        toml,
        key,
        when,
        mode,
        within,
        since,
        until,
    }
}

/// The settings of a lake that decide where a row lies.
pub(super) struct Layout {
    pub(super) zone: Tz,
    pub(super) hours: bool,
    pub(super) slice: &'static str,
    pub(super) slice_ms: i64,
}

impl Layout {
    pub(super) fn random(random: &mut ChaCha8Rng) -> Self {
        let zones = [
            Tz::UTC,
            Tz::Asia__Seoul,
            Tz::Asia__Kathmandu,
            Tz::America__New_York,
        ];
        let hours = random.random_bool(0.4);
        let slices = [("15m", 900_000), ("1h", 3_600_000), ("6h", 21_600_000)];
        let slices = if hours { &slices[..2] } else { &slices[1..] };
        let (slice, slice_ms) = match random.random_bool(0.4) {
            true if hours => ("1h", 3_600_000),
            true => ("1d", 86_400_000),
            false => *slices.choose(random).unwrap(),
        };
        Self {
            zone: *zones.choose(random).unwrap(),
            hours,
            slice,
            slice_ms,
        }
    }

    /// The file that an event of this time lies in.
    pub(super) fn file(&self, time: i64) -> String {
        let local = DateTime::from_timestamp_millis(time)
            .unwrap()
            .with_timezone(&self.zone);
        let hour = if self.hours { local.hour() } else { 0 };
        let start = local.date_naive().and_hms_opt(hour, 0, 0).unwrap();
        let start = self.zone.from_local_datetime(&start).earliest().unwrap();
        let slice = match self.slice {
            "1d" => 0,
            "1h" if self.hours => 0,
            _ => (time - start.timestamp_millis()) / self.slice_ms,
        };
        let folder = match self.hours {
            true => format!("dt={}/hour={hour:02}", local.date_naive()),
            false => format!("dt={}", local.date_naive()),
        };
        format!("{folder}/part-{slice:05}.parquet")
    }
}

/// Moments around which days and hours differ from others.
pub(super) const MOMENTS: [&str; 5] = [
    "2019-04-01T15:00:00Z", // midnight in Seoul
    "2019-03-10T07:00:00Z", // New York's clock springs forward
    "2019-11-03T06:00:00Z", // and falls back
    "2019-11-04T05:00:00Z", // the midnight after
    "2019-06-30T18:15:00Z", // midnight in Kathmandu
];

/// One of `of` names, or none.
pub(super) fn choice(random: &mut ChaCha8Rng, prefix: &str, of: u32, null: f64) -> Option<String> {
    let name = format!("{prefix}{}", random.random_range(0..of));
    (!random.random_bool(null)).then_some(name)
}

/// Events around one moment, dense enough for windows of every length to matter.
pub(super) fn events(
    random: &mut ChaCha8Rng,
    count: usize,
    spread: i64,
    middle: i64,
) -> Vec<Event> {
    let users = 1 + count as u32 / 20;
    let mut events: Vec<Event> = Vec::with_capacity(count);
    while events.len() < count {
        // A redelivery: the same bytes again.
        if random.random_bool(0.08)
            && let Some(earlier) = events.choose(random)
        {
            events.push(earlier.clone());
            continue;
        }
        let mut time = middle + random.random_range(-spread..spread);
        if random.random_bool(0.3) {
            time = time.div_euclid(1_000) * 1_000;
        }
        if random.random_bool(0.2)
            && let Some(earlier) = events.choose(random)
        {
            // Such times make ties, and lie at the edges of windows and beside them.
            let step = WINDOWS.choose(random).unwrap().1;
            time = earlier.time + step + random.random_range(-1..=1);
        }
        let mut event = Event {
            time,
            id: choice(random, "i", 2 + count as u32 / 3, 0.05),
            kind: choice(random, "", 2, 0.1)
                .map(|kind| if kind == "0" { "click" } else { "view" }.to_owned()),
            user: choice(random, "u", users, 0.1),
            page: choice(random, "/", 4, 0.1).map(|page| page.replace('0', "a")),
            n: (!random.random_bool(0.1)).then(|| random.random_range(0..12)),
            text: String::new(),
        };
        event.text = spell(random, &event);
        events.push(event);
    }
    events
}

/// One of the many texts of an event.
pub(super) fn spell(random: &mut ChaCha8Rng, event: &Event) -> String {
    let mut members = serde_json::Map::new();
    let utc = DateTime::from_timestamp_millis(event.time).unwrap();
    let at: serde_json::Value = match random.random_range(0..4) {
        0 if event.time % 1_000 == 0 => (event.time / 1_000).into(),
        1 => event.time.to_string().into(),
        2 => utc
            .to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
            .into(),
        3 => utc.with_timezone(&Tz::Asia__Tokyo).to_rfc3339().into(),
        _ => event.time.into(),
    };
    members.insert("at".to_owned(), at);
    let mut add = |name: &str, value: Option<serde_json::Value>| {
        // A null is written or left out.
        if value.is_some() || random.random_bool(0.5) {
            members.insert(name.to_owned(), value.unwrap_or_default());
        }
    };
    add("id", event.id.clone().map(Into::into));
    add("kind", event.kind.clone().map(Into::into));
    add("user", event.user.clone().map(Into::into));
    add("n", event.n.map(Into::into));
    if let Some(page) = &event.page {
        add("ctx", Some(serde_json::json!({ "page": page })));
    }
    if random.random_bool(0.1) {
        members.insert("new".to_owned(), random.random_range(0..9).into());
        serde_json::to_string_pretty(&members).unwrap()
    } else {
        serde_json::to_string(&members).unwrap()
    }
}

/// Deals events to raw objects whose names and order do not follow time.
pub(super) fn objects(random: &mut ChaCha8Rng, events: &[Event], count: usize) -> Vec<Object> {
    let mut objects: Vec<Object> = (0..count)
        .map(|i| Object {
            key: format!(
                "2019/12/31/{:02}/{:08x}-{i}{}",
                random.random_range(0..24),
                random.random::<u32>(),
                [".gz", "", ".json"].choose(random).unwrap(),
            ),
            records: Vec::new(),
        })
        .collect();
    for event in events {
        let object = objects.choose_mut(random).unwrap();
        object.records.push(Record::Event(event.clone()));
        if random.random_bool(0.01) {
            let (text, reason) = *[
                (r#"{"at": 1554130800, "n": "many"}"#, "type"),
                (r#"{"id": "no time"}"#, "event_time"),
                (r#"{"at": 1200000000}"#, "out_of_range"),
                (r#""just text""#, "not_object"),
                (r#"{"at": 1554130800, "#, "not_json"),
            ]
            .choose(random)
            .unwrap();
            let reject = Record::Reject(text.to_owned(), reason);
            object.records.push(reject);
        }
    }
    for object in &mut objects {
        object.records.shuffle(random);
    }
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    objects
}

/// The bytes of an object: its records framed, then compressed, each in a random way.
pub(super) fn encode(random: &mut ChaCha8Rng, records: &[Record]) -> Vec<u8> {
    let bad = records.iter().any(|r| matches!(r, Record::Reject(..)));
    // A record that is no object needs a line feed behind it, or the next record would belong to it.
    let style = if bad { 0 } else { random.random_range(0..7) };
    let mut plain = Vec::new();
    let (open, between, close) = match style {
        0 => ("", if random.random() { "\n" } else { "\r\n" }, "\n"),
        1 => ("\u{feff}", "\n\n  \n", ""),
        2 => ("", "", ""),
        3 => ("[\n  ", ",\n  ", "\n]\n"),
        4 => ("", r"\n", r"\n"),
        5 => ("\u{1e}", "\n\u{1e}", "\n"),
        _ => ("[", "][", "]"),
    };
    plain.extend(open.as_bytes());
    for (i, record) in records.iter().enumerate() {
        if i > 0 {
            plain.extend(between.as_bytes());
        }
        match record {
            Record::Event(event) => plain.extend(event.text.as_bytes()),
            Record::Reject(text, _) => plain.extend(text.as_bytes()),
        }
    }
    plain.extend(close.as_bytes());
    compress(random, &plain)
}

/// The bytes in one of the codecs.
pub(super) fn compress(random: &mut ChaCha8Rng, plain: &[u8]) -> Vec<u8> {
    let gzip = |bytes: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    };
    let middle = random.random_range(0..=plain.len());
    let (head, tail) = plain.split_at(middle);
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    // Shippers put such bytes behind members and frames, and pzstd puts a frame of its own before frames.
    let blank = *[&b""[..], b"\n", b"\r\n", b"\0\0 \t"]
        .choose(random)
        .unwrap();
    let skipped: &[u8] = &[0x50, 0x2A, 0x4D, 0x18, 4, 0, 0, 0, 9, 9, 9, 9];
    match random.random_range(0..5) {
        0 => plain.to_vec(),
        1 => gzip(plain),
        2 => [&gzip(head)[..], blank, &gzip(b""), &gzip(tail), blank].concat(),
        3 => zstd(plain),
        _ => [skipped, &zstd(head), blank, skipped, &zstd(tail), blank].concat(),
    }
}
