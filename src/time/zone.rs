//! Time zones, and the only place that knows what to do where a clock is changed.
//!
//! ```text
//! local time    01:59 │ 03:00        the clock skips 02:00 to 03:00: no instant shows such a time
//! ──────────────────▶ T ─────▶       T is the instant of the change
//!
//! local time    01:59 │ 01:00        the clock repeats 01:00 to 02:00: two instants show such a time
//! ```

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

/// More seconds than any clock was ever ahead of UTC or behind it.
const FARTHEST_OFFSET: i64 = 16 * 3_600;

/// A time zone by its IANA name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zone(pub Tz);

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl FromStr for Zone {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        name.parse().map(Zone).map_err(|_| {
            format!("`{name}` is no time zone: give an IANA name such as `Asia/Seoul` or `UTC`")
        })
    }
}

impl Serialize for Zone {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Zone {
    /// Seconds east of UTC at an instant, which is given in seconds since 1970 UTC.
    pub fn offset_at(self, seconds: i64) -> i64 {
        let utc = DateTime::from_timestamp(seconds, 0)
            .unwrap_or_default()
            .naive_utc();
        let offset = self.0.offset_from_utc_datetime(&utc).fix();
        i64::from(offset.local_minus_utc())
    }

    /// Seconds east of UTC that a local time was written with. The local time is given in seconds since
    /// 1970. A time that the clock repeats is taken for the first of the two instants. A time that the
    /// clock skips has the offset from before the change. `None` outside chrono's range.
    pub fn offset_of(self, local: i64) -> Option<i64> {
        let naive = DateTime::from_timestamp(local, 0)?.naive_utc();
        match self.0.from_local_datetime(&naive).earliest() {
            Some(instant) => Some(i64::from(instant.offset().fix().local_minus_utc())),
            None => Some(self.offset_at(self.change_over(local) - 1)),
        }
    }

    /// The first instant, in milliseconds since 1970 UTC, whose local time is not before `local`. Where the clock
    /// skips `local`, this is the instant of the change.
    pub fn first_instant(self, local: NaiveDateTime) -> i64 {
        self.instants(local).0
    }

    /// The last instant, in milliseconds since 1970 UTC, that has this local time, so that an hour that
    /// the clock repeats ends when its second run does. Where the clock skips `local`, this is the instant of
    /// the change.
    pub fn last_instant(self, local: NaiveDateTime) -> i64 {
        self.instants(local).1
    }

    fn instants(self, local: NaiveDateTime) -> (i64, i64) {
        match self.0.from_local_datetime(&local) {
            MappedLocalTime::Single(instant) => {
                (instant.timestamp_millis(), instant.timestamp_millis())
            }
            MappedLocalTime::Ambiguous(first, last) => {
                (first.timestamp_millis(), last.timestamp_millis())
            }
            MappedLocalTime::None => {
                let change = self.change_over(local.and_utc().timestamp()) * 1_000;
                (change, change)
            }
        }
    }

    /// The instant, in seconds since 1970 UTC, of the change by which the clock skips `local`.
    fn change_over(self, local: i64) -> i64 {
        let mut before = local - FARTHEST_OFFSET;
        let mut after = local + FARTHEST_OFFSET;
        while after - before > 1 {
            let middle = before + (after - before) / 2;
            if middle + self.offset_at(middle) < local {
                before = middle;
            } else {
                after = middle;
            }
        }
        after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text)
            .unwrap()
            .timestamp_millis()
    }

    #[test]
    fn skipped_and_repeated_times() {
        for (zone, local, first, last, written) in [
            (
                "Asia/Seoul",
                "2019-04-02T00:00:00",
                "2019-04-01T15:00:00Z",
                "2019-04-01T15:00:00Z",
                "2019-04-01T15:00:00Z",
            ),
            // Repeated by an hour.
            (
                "America/New_York",
                "2019-11-03T01:30:00",
                "2019-11-03T05:30:00Z",
                "2019-11-03T06:30:00Z",
                "2019-11-03T05:30:00Z",
            ),
            // Skipped, in a gap that begins at a full hour.
            (
                "America/New_York",
                "2019-03-10T02:30:00",
                "2019-03-10T07:00:00Z",
                "2019-03-10T07:00:00Z",
                "2019-03-10T07:30:00Z",
            ),
            // Skipped, in a gap that begins at one minute past midnight.
            (
                "America/St_Johns",
                "2010-03-14T01:00:00",
                "2010-03-14T03:31:00Z",
                "2010-03-14T03:31:00Z",
                "2010-03-14T04:30:00Z",
            ),
            // Skipped, in a gap of 128 seconds.
            (
                "Asia/Seoul",
                "1908-04-01T00:00:00",
                "1908-03-31T15:32:08Z",
                "1908-03-31T15:32:08Z",
                "1908-03-31T15:32:08Z",
            ),
            // Skipped, in a gap of a whole day.
            (
                "Pacific/Apia",
                "2011-12-30T12:00:00",
                "2011-12-30T10:00:00Z",
                "2011-12-30T10:00:00Z",
                "2011-12-30T22:00:00Z",
            ),
        ] {
            let zone: Zone = zone.parse().unwrap();
            let naive: NaiveDateTime = local.parse().unwrap();
            assert_eq!(zone.first_instant(naive), at(first), "{zone} {local}");
            assert_eq!(zone.last_instant(naive), at(last), "{zone} {local}");
            let seconds = naive.and_utc().timestamp();
            let offset = zone.offset_of(seconds).unwrap();
            assert_eq!((seconds - offset) * 1_000, at(written), "{zone} {local}");
        }
    }

    #[test]
    fn a_skipped_time_is_the_change_in_every_zone() {
        // Every quarter of an hour of two years, moved by a second so that no change falls on it.
        let from = at("2010-01-01T00:00:01Z") / 1_000;
        for name in [
            "America/St_Johns",
            "America/Sao_Paulo",
            "Australia/Lord_Howe",
            "Pacific/Apia",
            "Asia/Gaza",
            "Africa/Casablanca",
        ] {
            let zone: Zone = name.parse().unwrap();
            let mut skipped = 0;
            for local in (0..2 * 366 * 96).map(|quarter| from + quarter * 900) {
                let naive = DateTime::from_timestamp(local, 0).unwrap().naive_utc();
                let first = zone.first_instant(naive) / 1_000;
                assert!(first + zone.offset_at(first) >= local, "{name} {naive}");
                assert!(
                    first - 1 + zone.offset_at(first - 1) < local,
                    "{name} {naive}"
                );
                skipped += i64::from(first + zone.offset_at(first) > local);
            }
            assert!(skipped > 0, "{name}");
        }
    }
}
