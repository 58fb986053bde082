//! The rarer everyday spellings of times. They are tried where no common spelling fits.
//!
//! ```text
//! 20190402T090500Z · 2019/04/02 09:05:00 · 2019-04-02 09:05:00 UTC     a date, a time of day, an offset
//! Tue, 02 Apr 2019 09:05:00 +0900 · 02/Apr/2019:09:05:00 +0900         month names: no two of these are confused
//! /Date(1554195900000+0900)/ · {"$date":"2019-04-02T09:05:00Z"}        of .NET and MongoDB
//! ```
//!
//! A spelling whose day and month could be confused, such as `01/02/2019`, is none of them.

use std::sync::LazyLock;

use chrono::DateTime;

use super::clock::{Clock, days_of, read_fraction, two};
use super::{Decimal, TimeFormat, TimeUnit, Zone};

/// Formats with English names of months. The web servers' logs, JavaScript's `Date`, and C's `asctime`.
const FORMATS: [&str; 6] = [
    "%d/%b/%Y:%H:%M:%S %z",
    "[%d/%b/%Y:%H:%M:%S %z]",
    "%d/%b/%Y:%H:%M:%S",
    "[%d/%b/%Y:%H:%M:%S]",
    "%a %b %d %Y %H:%M:%S GMT%z",
    "%a %b %d %H:%M:%S %Y",
];

static READY: LazyLock<Vec<TimeFormat>> = LazyLock::new(|| {
    let formats = FORMATS.iter();
    formats
        .filter_map(|text| TimeFormat::new(text).ok())
        .collect()
});

/// Reads a time from a text that has no common spelling, in `unit`s since 1970 UTC.
#[cold]
pub(super) fn read_time(text: &str, unit: TimeUnit, naive: Option<Zone>) -> Option<i64> {
    if let Some((days, rest)) = split_date(text) {
        let [b'T' | b't' | b' ', rest @ ..] = rest else {
            return None;
        };
        let (clock, offset) = Clock::read(rest).or_else(|| basic_clock(rest))?;
        return clock.on(days, offset, unit, naive);
    }
    if let Some(inside) = text.strip_prefix("/Date(") {
        return dot_net(inside.strip_suffix(")/")?, unit);
    }
    // JavaScript writes the name of the zone behind the offset.
    let plain = match text.rsplit_once(" (") {
        Some((plain, name)) if name.ends_with(')') => plain,
        _ => text,
    };
    let mut formats = READY.iter();
    formats
        .find_map(|format| format.read(plain, unit, naive))
        .or_else(|| rfc_2822(plain, unit))
}

/// The days since 1970 of the date `YYYYMMDD` or `YYYY/MM/DD` at the start of a text, and the rest of the text.
pub(super) fn split_date(text: &str) -> Option<(i64, &[u8])> {
    let (digits, rest) = match *text.as_bytes() {
        [y1, y2, y3, y4, b'/', m1, m2, b'/', d1, d2, ..] => {
            ([y1, y2, y3, y4, m1, m2, d1, d2], text.get(10..)?)
        }
        [y1, y2, y3, y4, m1, m2, d1, d2, ..] => ([y1, y2, y3, y4, m1, m2, d1, d2], text.get(8..)?),
        _ => return None,
    };
    Some((days_of(digits)?, rest.as_bytes()))
}

/// Reads the time of day `hhmm`, `hhmmss` or `hhmmss.f`, and gives the rest of the text.
fn basic_clock(text: &[u8]) -> Option<(Clock<'_>, &[u8])> {
    let [h1, h2, m1, m2, rest @ ..] = text else {
        return None;
    };
    let (second, fraction, rest) = match rest {
        [s1, s2, after @ ..] if s1.is_ascii_digit() => {
            let (fraction, rest) = read_fraction(after)?;
            (two(*s1, *s2)?, fraction, rest)
        }
        rest => (0, &[][..], rest),
    };
    let clock = Clock {
        hour: two(*h1, *h2)?,
        minute: two(*m1, *m2)?,
        second,
        fraction,
    };
    Some((clock, rest))
}

/// The instant of `1554195900000` or `1554195900000+0900` milliseconds since 1970 UTC. The offset only says how .NET
/// shows the instant.
fn dot_net(text: &str, unit: TimeUnit) -> Option<i64> {
    let sign = text.rfind(['+', '-']).filter(|at| *at > 0);
    let (number, offset) = text.split_at_checked(sign.unwrap_or(text.len()))?;
    let digits = offset.strip_prefix(['+', '-']).unwrap_or("0000");
    if digits.len() != 4 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    milliseconds(number, unit)
}

/// The instant of a whole number of milliseconds since 1970 UTC.
pub(super) fn milliseconds(text: &str, unit: TimeUnit) -> Option<i64> {
    let number = Decimal::parse(text.as_bytes())?.exact(18, 0)?;
    let units = number.checked_mul(i128::from(unit.per_second() / 1_000))?;
    i64::try_from(units).ok()
}

/// Reads RFC 2822, the dates of mail and of HTTP.
fn rfc_2822(text: &str, unit: TimeUnit) -> Option<i64> {
    let (before, zone) = text.rsplit_once(' ')?;
    // The zones of one letter say nothing: RFC 2822 asks to ignore them.
    if zone.len() == 1 && !zone.eq_ignore_ascii_case("z") {
        return None;
    }
    let time = match zone.eq_ignore_ascii_case("utc") {
        true => DateTime::parse_from_rfc2822(&format!("{before} GMT")),
        false => DateTime::parse_from_rfc2822(text),
    };
    let time = time.ok()?;
    super::format::of_parts(time.timestamp(), time.timestamp_subsec_nanos(), unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_formats_can_be_read() {
        assert_eq!(READY.len(), FORMATS.len());
    }
}
