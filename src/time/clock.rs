//! Days, times of day and offsets from UTC, as they are written in most spellings of a time.

use super::decimal::split_digits;
use super::{TimeUnit, Zone};

/// The number that two ASCII digits spell.
pub(super) fn two(tens: u8, ones: u8) -> Option<i64> {
    (tens.is_ascii_digit() && ones.is_ascii_digit())
        .then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

/// The days since 1970 of the eight digits `YYYYMMDD`.
pub(super) fn days_of([y1, y2, y3, y4, m1, m2, d1, d2]: [u8; 8]) -> Option<i64> {
    let year = two(y1, y2)? * 100 + two(y3, y4)?;
    let (month, day) = (two(m1, m2)?, two(d1, d2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=last).contains(&day) {
        return None;
    }
    // The days of the proleptic Gregorian calendar, counted in years that begin in March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

/// A time of day as it is written.
pub(super) struct Clock<'a> {
    pub hour: i64,
    pub minute: i64,
    pub second: i64,
    /// The digits behind the point.
    pub fraction: &'a [u8],
}

impl<'a> Clock<'a> {
    /// Reads `hh:mm`, `hh:mm:ss` or `hh:mm:ss.f`, and gives the rest of the text.
    #[inline]
    pub fn read(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let [h1, h2, b':', m1, m2, rest @ ..] = text else {
            return None;
        };
        let (hour, minute) = (two(*h1, *h2)?, two(*m1, *m2)?);
        let (mut second, mut fraction, mut rest) = (0, &[][..], rest);
        if let [b':', s1, s2, after @ ..] = rest {
            second = two(*s1, *s2)?;
            (fraction, rest) = read_fraction(after)?;
        }
        let clock = Self {
            hour,
            minute,
            second,
            fraction,
        };
        Some((clock, rest))
    }

    /// The instant of this time on a day, in `unit`s since 1970 UTC. `offset` is the rest of the text: an offset from
    /// UTC, or nothing where the `naive` zone decides.
    #[inline]
    pub fn on(&self, days: i64, offset: &[u8], unit: TimeUnit, naive: Option<Zone>) -> Option<i64> {
        // A second of 60 is a leap second, which only the last minute of a UTC day can have.
        if self.hour > 23 && !self.ends_day() || self.minute > 59 || self.second > 60 {
            return None;
        }
        let local = days * 86_400 + self.hour * 3_600 + self.minute * 60 + self.second;
        let seconds = match offset {
            [] => local - naive?.offset_of(local)?,
            [b'Z' | b'z'] => local,
            [b' ', rest @ ..] => local - read_offset(rest)?,
            rest => local - read_offset(rest)?,
        };
        if self.second == 60 && seconds.rem_euclid(86_400) != 0 {
            return None;
        }
        let mut below: i64 = 0;
        let mut place = unit.per_second();
        for digit in self.fraction {
            if place == 1 {
                break;
            }
            place /= 10;
            below += i64::from(digit - b'0') * place;
        }
        Some(seconds * unit.per_second() + below)
    }

    /// Whether this is 24:00:00, the midnight at the end of a day.
    #[cold]
    fn ends_day(&self) -> bool {
        let rest = (self.hour, self.minute, self.second);
        rest == (24, 0, 0) && self.fraction.iter().all(|digit| *digit == b'0')
    }
}

/// The digits behind a point or a comma, and the rest. There are no digits without a point or a comma.
pub(super) fn read_fraction(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let [b'.' | b',', after @ ..] = text else {
        return Some((&[], text));
    };
    let (fraction, rest) = split_digits(after);
    (!fraction.is_empty()).then_some((fraction, rest))
}

/// The seconds east of UTC that `Z`, `+09:00`, `+0900` or `+09` spells, or a longer spelling.
pub(super) fn read_offset(text: &[u8]) -> Option<i64> {
    let (sign, h1, h2, minutes) = match *text {
        [b'Z' | b'z'] => return Some(0),
        [sign, h1, h2] => (sign, h1, h2, Some(0)),
        [sign, h1, h2, m1, m2] | [sign, h1, h2, b':', m1, m2] => (sign, h1, h2, two(m1, m2)),
        _ => return named_offset(text),
    };
    let (Some(hours), Some(minutes)) = (two(h1, h2), minutes) else {
        return named_offset(text);
    };
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = hours * 3_600 + minutes * 60;
    match sign {
        b'+' => Some(seconds),
        b'-' => Some(-seconds),
        _ => None,
    }
}

/// The seconds east of UTC of an offset with the name of its zone: `+09:00[Asia/Seoul]` as Java writes it, and `+0900
/// KST` as Go writes it. The offset decides. `UTC` and `GMT` need no offset.
#[cold]
fn named_offset(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    if text.eq_ignore_ascii_case("UTC") || text.eq_ignore_ascii_case("GMT") {
        return Some(0);
    }
    let is_name = |name: &str| {
        let part = |c: char| c.is_ascii_alphanumeric() || "/_+-".contains(c);
        !name.is_empty() && name.chars().all(part)
    };
    let (offset, name) = match text.split_once('[') {
        Some((offset, name)) => (offset, name.strip_suffix(']')?),
        None => text.split_once(' ')?,
    };
    let digits = offset.strip_prefix(['+', '-']);
    let alone = offset.eq_ignore_ascii_case("z") || digits.is_some_and(|digits| digits.len() < 6);
    (alone && is_name(name))
        .then(|| read_offset(offset.as_bytes()))
        .flatten()
}
