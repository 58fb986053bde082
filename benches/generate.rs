//! Generates a project of any size for measurements: raw objects, `rawmart.toml` and three marts.
//!
//! ```sh
//! cargo bench --bench generate -- --events 10000000 --out FOLDER
//! ```

mod data;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use data::{Events, Result, Shape};

/// Writes raw objects in Firehose's layout, a configuration and marts.
///
/// Ten million events in a day are what one Kinesis shard takes. The same arguments always write the
/// same.
#[derive(Debug, Parser)]
#[command(name = "generate")]
struct Asked {
    /// A new folder
    #[arg(long)]
    out: PathBuf,
    /// Records in all, nearly
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// Span of the event times
    #[arg(long, default_value_t = 24)]
    hours: u64,
    /// Share of events that arrive up to 30 hours late
    #[arg(long, default_value_t = 0.005)]
    late: f64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The totals of what was written.
#[derive(Debug, Default)]
struct Written {
    objects: AtomicU64,
    records: AtomicU64,
    json: AtomicU64,
    gzip: AtomicU64,
}

const MARTS: [(&str, &str); 3] = [
    (
        "daily_active_users_by_os",
        "\
-- Daily active users by operating system.
-- partition: dt
SELECT
    os,
    count(DISTINCT user_id) AS active_users,
    count(*) AS events,
    dt
FROM events
GROUP BY os, dt
",
    ),
    (
        "page_views",
        "\
-- Views of each page per day.
-- partition: dt
SELECT
    page,
    count(*) AS views,
    count(DISTINCT session_id) AS sessions,
    dt
FROM events
WHERE event_type = 'view'
GROUP BY page, dt
",
    ),
    (
        "click_funnel",
        "\
-- Sessions that viewed, then clicked, then contacted, per day.
-- partition: dt
WITH steps AS (
    SELECT
        dt,
        session_id,
        min(CASE WHEN event_type = 'view' THEN event_time END) AS viewed_at,
        max(CASE WHEN event_type = 'click' THEN event_time END) AS clicked_at,
        max(CASE WHEN event_type = 'contact' THEN event_time END) AS contacted_at
    FROM events
    GROUP BY dt, session_id
)
SELECT
    count(*) AS sessions,
    count(viewed_at) AS viewed,
    count(CASE WHEN clicked_at > viewed_at THEN 1 END) AS clicked,
    count(CASE WHEN clicked_at > viewed_at AND contacted_at > clicked_at THEN 1 END) AS contacted,
    dt
FROM steps
GROUP BY dt
",
    ),
];

#[expect(
    clippy::disallowed_macros,
    reason = "no part of rawmart's talk: this says what was made"
)]
fn main() -> Result<()> {
    // `cargo bench` adds an argument of its own.
    let asked = Asked::parse_from(std::env::args_os().filter(|argument| argument != "--bench"));
    if asked.out.join("raw").exists() {
        return Err(format!("{} has raw objects already", asked.out.display()).into());
    }
    let events = Events::new(Shape {
        seed: asked.seed,
        records: asked.events,
        hours: asked.hours,
        late: asked.late,
    })?;
    let written = Written::default();
    write_raw(&events, &asked.out.join("raw"), &written)?;
    let marts = asked.out.join("sql/marts");
    std::fs::create_dir_all(&marts)?;
    for (name, sql) in MARTS {
        std::fs::write(marts.join(format!("{name}.sql")), sql)?;
    }
    // The configuration is written last, so a folder with a configuration is complete.
    std::fs::write(asked.out.join("rawmart.toml"), data::CONFIG)?;
    println!(
        "{} records in {} objects: {} bytes of JSON, {} of gzip",
        written.records.into_inner(),
        written.objects.into_inner(),
        written.json.into_inner(),
        written.gzip.into_inner()
    );
    Ok(())
}

/// Writes all hours, one at a time on each core.
fn write_raw(events: &Events, raw: &Path, written: &Written) -> Result<()> {
    let next = AtomicU64::new(0);
    let work = || {
        loop {
            let hour = next.fetch_add(1, Ordering::Relaxed);
            if hour >= events.hours() {
                return Ok(());
            }
            events.hour(hour, &mut |object| {
                let path = raw.join(&object.key);
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder)?;
                }
                let gzip = data::gzip(object.json)?;
                std::fs::write(path, &gzip)?;
                let add = |to: &AtomicU64, count| to.fetch_add(count, Ordering::Relaxed);
                add(&written.objects, 1);
                add(&written.records, object.records);
                add(&written.json, object.json.len() as u64);
                add(&written.gzip, gzip.len() as u64);
                Ok(())
            })?;
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|_| Err("a thread died".into()))
            })
            .fold(Ok(()), Result::and)
    })
}
