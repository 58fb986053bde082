//! Arrival times in the keys of raw objects: a strftime pattern, read backwards.
//!
//! ```text
//! 2019/04/01/23/app-events-1-….gz   with  %Y/%m/%d/%H/   ──▶  [23:00, 24:00)  ──▶  arrival 24:00
//! topics/app/year=2019/month=04/day=01/…  with  year=%Y/month=%m/day=%d/
//! ```

use chrono::{Duration, NaiveDate, NaiveDateTime, TimeZone};

use crate::event::Zone;

/// A compiled `layout`.
#[derive(Debug, Clone)]
pub struct Layout {
    items: Vec<Item>,
    zone: Zone,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Literal(u8),
    Year,
    Month,
    Day,
    DayOfYear,
    Hour,
    Minute,
    Second,
}

/// A pattern that cannot say when an object arrived.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct LayoutError(String);

impl Layout {
    /// Compiles a pattern of `%Y %m %d %j %H %M %S %%` and literals.
    ///
    /// # Errors
    /// A specifier that is not known, or a pattern without a full date.
    pub fn new(pattern: &str, zone: Zone) -> Result<Self, LayoutError> {
        let mut items = Vec::new();
        let mut bytes = pattern.bytes();
        while let Some(b) = bytes.next() {
            if b != b'%' {
                items.push(Item::Literal(b));
                continue;
            }
            items.push(match bytes.next() {
                Some(b'Y') => Item::Year,
                Some(b'm') => Item::Month,
                Some(b'd') => Item::Day,
                Some(b'j') => Item::DayOfYear,
                Some(b'H') => Item::Hour,
                Some(b'M') => Item::Minute,
                Some(b'S') => Item::Second,
                Some(b'%') => Item::Literal(b'%'),
                other => {
                    let other = other.map_or_else(String::new, |b| char::from(b).to_string());
                    return Err(LayoutError(format!(
                        "`%{other}` in `{pattern}` is not known: use %Y %m %d (or %j) %H %M %S"
                    )));
                }
            });
        }
        let has = |item: &Item| items.contains(item);
        if !has(&Item::Year) || !(has(&Item::DayOfYear) || (has(&Item::Month) && has(&Item::Day))) {
            return Err(LayoutError(format!(
                "`{pattern}` holds no full date: it needs %Y, and %m with %d, or %j"
            )));
        }
        Ok(Self { items, zone })
    }

    /// When the object of this key arrived: the end of the span that the key names, milliseconds
    /// UTC. The pattern may begin at any part of the key; the first place that fits counts.
    /// `None` when none fits.
    pub fn arrival_ms(&self, key: &str) -> Option<i64> {
        let starts =
            std::iter::once(0).chain(memchr::memchr_iter(b'/', key.as_bytes()).map(|i| i + 1));
        starts
            .filter_map(|start| key.as_bytes().get(start..))
            .find_map(|tail| self.span_end(tail))
            .map(|end| self.instant(end))
    }

    fn span_end(&self, mut key: &[u8]) -> Option<NaiveDateTime> {
        let (mut year, mut month, mut day, mut ordinal) = (1970, 1, 1, None);
        let (mut hour, mut minute, mut second) = (0, 0, 0);
        let mut span = Duration::days(1);
        for item in &self.items {
            let mut digits = |n: usize| -> Option<u32> {
                let (head, tail) = key.split_at_checked(n)?;
                key = tail;
                head.iter().try_fold(0, |value, b| {
                    b.is_ascii_digit().then(|| value * 10 + u32::from(b - b'0'))
                })
            };
            match item {
                Item::Literal(b) => {
                    let (first, tail) = key.split_first()?;
                    if first != b {
                        return None;
                    }
                    key = tail;
                }
                Item::Year => year = i32::try_from(digits(4)?).ok()?,
                Item::Month => month = digits(2)?,
                Item::Day => day = digits(2)?,
                Item::DayOfYear => ordinal = Some(digits(3)?),
                Item::Hour => {
                    hour = digits(2)?;
                    span = span.min(Duration::hours(1));
                }
                Item::Minute => {
                    minute = digits(2)?;
                    span = span.min(Duration::minutes(1));
                }
                Item::Second => {
                    second = digits(2)?;
                    span = Duration::seconds(1);
                }
            }
        }
        let date = match ordinal {
            Some(ordinal) => NaiveDate::from_yo_opt(year, ordinal)?,
            None => NaiveDate::from_ymd_opt(year, month, day)?,
        };
        date.and_hms_opt(hour, minute, second)?
            .checked_add_signed(span)
    }

    /// The latest instant with this local time, so that an hour that a clock change repeats ends
    /// when its second run does; a skipped local time is the instant of the change.
    fn instant(&self, local: NaiveDateTime) -> i64 {
        let mut probe = local;
        for _ in 0..=96 {
            if let Some(instant) = self.zone.0.from_local_datetime(&probe).latest() {
                return instant.timestamp_millis();
            }
            probe += Duration::minutes(15);
        }
        local.and_utc().timestamp_millis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(pattern: &str, zone: &str, key: &str) -> Option<String> {
        let layout = Layout::new(pattern, zone.parse().unwrap()).unwrap();
        let ms = layout.arrival_ms(key)?;
        Some(
            chrono::DateTime::from_timestamp_millis(ms)
                .unwrap()
                .to_rfc3339(),
        )
    }

    #[test]
    fn arrival_is_the_end_of_the_span() {
        for (pattern, zone, key, expected) in [
            (
                "%Y/%m/%d/%H/",
                "UTC",
                "2019/04/01/23/a.gz",
                Some("2019-04-02T00:00:00+00:00"),
            ),
            (
                "%Y/%m/%d/%H/",
                "Asia/Seoul",
                "2019/04/02/00/a",
                Some("2019-04-01T16:00:00+00:00"),
            ),
            (
                "year=%Y/month=%m/day=%d/",
                "UTC",
                "t/year=2019/month=02/day=28/x",
                Some("2019-03-01T00:00:00+00:00"),
            ),
            (
                "date=%Y-%m-%d/",
                "UTC",
                "date=2020-02-29/1.log",
                Some("2020-03-01T00:00:00+00:00"),
            ),
            (
                "%Y/%j/",
                "UTC",
                "2019/365/x",
                Some("2020-01-01T00:00:00+00:00"),
            ),
            (
                "%Y%m%d-%H%M",
                "UTC",
                "x/20190401-2359.gz",
                Some("2019-04-02T00:00:00+00:00"),
            ),
            ("%Y/%m/%d/%H/", "UTC", "2019/13/01/23/a.gz", None),
            ("%Y/%m/%d/%H/", "UTC", "readme.txt", None),
            ("%Y/%m/%d/%H/", "UTC", "2019/04/01/2", None),
            // The hour that New York has twice ends with its second run.
            (
                "%Y/%m/%d/%H/",
                "America/New_York",
                "2019/11/03/00/a",
                Some("2019-11-03T06:00:00+00:00"),
            ),
        ] {
            assert_eq!(
                arrival(pattern, zone, key).as_deref(),
                expected,
                "{pattern} {key}"
            );
        }
    }

    #[test]
    fn a_pattern_without_a_date_is_refused() {
        let error = |pattern| {
            Layout::new(pattern, "UTC".parse().unwrap())
                .unwrap_err()
                .to_string()
        };
        assert!(error("%H/").contains("no full date"));
        assert!(error("%Y/%q/").contains("`%q`"));
    }
}
