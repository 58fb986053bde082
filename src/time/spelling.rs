//! How times and dates are written, and how they are read.

use super::decimal::{Decimal, split_digits};
use super::{TimeUnit, Zone};

/// Reads a time from the text of a JSON string: RFC 3339 with its everyday spellings, or an epoch
/// number. The result is in `unit`s since 1970 UTC, floored. `None` where the text is unreadable, or where
/// it has no offset and there is no `naive` zone.
///
/// The everyday spellings are: a space for `T`, lower-case `t` and `z`, offsets such as `+0900` and `+09` (also
/// after one space), no seconds, a comma before the fraction, and any number of digits in the fraction.
pub fn read_time(text: &str, unit: TimeUnit, naive: Option<Zone>) -> Option<i64> {
    if text.as_bytes().get(4) == Some(&b'-') {
        read_rfc3339(text.as_bytes(), unit, naive)
    } else {
        read_epoch(text, unit)
    }
}

/// Reads an epoch number in JSON's grammar. Its magnitude tells its own unit: seconds below 1e11, milliseconds below
/// 1e14, microseconds below 1e17, else nanoseconds. The result is in `unit`s since 1970 UTC, floored. No digit is
/// lost, because no float is involved. `None` where the text is no number, or the number is too large.
pub fn read_epoch(text: &str, unit: TimeUnit) -> Option<i64> {
    let number = Decimal::parse(text.as_bytes())?;
    let per_second = match unit {
        TimeUnit::Ms => 3,
        TimeUnit::Us => 6,
    };
    let digits_below_second = match number.integer_digits() {
        ..=11 => 0,
        12..=14 => 3,
        15..=17 => 6,
        _ => 9,
    };
    let scaled = number.floor(per_second - digits_below_second)?;
    i64::try_from(scaled).ok()
}

/// Reads `YYYY-MM-DD` as days since 1970. `None` for any other text, and for dates of the year 0, which readers
/// understand in different ways.
pub fn read_date(text: &str) -> Option<i32> {
    if text.starts_with("0000") {
        return None;
    }
    i32::try_from(read_days(text.as_bytes())?).ok()
}

/// The number that two ASCII digits spell.
fn two(tens: u8, ones: u8) -> Option<i64> {
    (tens.is_ascii_digit() && ones.is_ascii_digit())
        .then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

/// The days since 1970 of the ten bytes `YYYY-MM-DD`.
fn read_days(date: &[u8]) -> Option<i64> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *date else {
        return None;
    };
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

/// Reads RFC 3339 and its everyday spellings, as [`read_time`] says.
fn read_rfc3339(text: &[u8], unit: TimeUnit, naive: Option<Zone>) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let days = read_days(date)?;
    let [b'T' | b't' | b' ', h1, h2, b':', m1, m2, rest @ ..] = rest else {
        return None;
    };
    let (hour, minute) = (two(*h1, *h2)?, two(*m1, *m2)?);
    if hour > 23 || minute > 59 {
        return None;
    }
    let (mut second, mut fraction, mut rest) = (0, &[][..], rest);
    if let [b':', s1, s2, after @ ..] = rest {
        second = two(*s1, *s2)?;
        rest = after;
        if let [b'.' | b',', after @ ..] = rest {
            (fraction, rest) = split_digits(after);
            if fraction.is_empty() {
                return None;
            }
        }
    }
    // A second of 60 is a leap second, which only the last minute of a UTC day can have.
    if second > 60 {
        return None;
    }
    let local = days * 86_400 + hour * 3_600 + minute * 60 + second;
    let seconds = match rest {
        [] => local - naive?.offset_of(local)?,
        [b'Z' | b'z'] => local,
        [b' ', rest @ ..] => local - read_offset(rest)?,
        rest => local - read_offset(rest)?,
    };
    if second == 60 && seconds.rem_euclid(86_400) != 0 {
        return None;
    }
    let mut below: i64 = 0;
    let mut place = unit.per_second();
    for digit in fraction {
        if place == 1 {
            break;
        }
        place /= 10;
        below += i64::from(digit - b'0') * place;
    }
    Some(seconds * unit.per_second() + below)
}

/// The seconds east of UTC that `Z`, `+09:00`, `+0900` or `+09` spells.
fn read_offset(text: &[u8]) -> Option<i64> {
    let (sign, h1, h2, minutes) = match *text {
        [b'Z' | b'z'] => return Some(0),
        [sign, h1, h2] => (sign, h1, h2, 0),
        [sign, h1, h2, m1, m2] | [sign, h1, h2, b':', m1, m2] => (sign, h1, h2, two(m1, m2)?),
        _ => return None,
    };
    let hours = two(h1, h2)?;
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

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Duration};

    use super::*;

    fn ms(text: &str) -> Option<i64> {
        read_time(text, TimeUnit::Ms, None)
    }
    #[test]
    fn everyday_spellings_of_one_instant() {
        let expected = DateTime::parse_from_rfc3339("2019-04-02T09:05:00Z")
            .unwrap()
            .timestamp_millis();
        for text in [
            "2019-04-02T09:05:00Z",
            "2019-04-02t09:05:00z",
            "2019-04-02 09:05:00Z",
            "2019-04-02 09:05Z",
            "2019-04-02T18:05:00+09:00",
            "2019-04-02T18:05:00+0900",
            "2019-04-02T18:05:00+09",
            "2019-04-02 18:05:00 +0900",
            "2019-04-02T18:05+09",
            "2019-04-02T09:05:00-00:00",
            "2019-04-02T00:05:00,000-09:00",
            "2019-04-02T09:05:00.0009999999999999999999999999999999Z",
            "1554195900",
            "1554195900.0009999",
            "1.5541959e9",
            "1554195900000",
            "1554195900000000",
            "1554195900000000000",
            "1554195900000999999",
            "15541959000009999e2",
        ] {
            assert_eq!(ms(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn floors_also_before_1970() {
        for (text, ms, us) in [
            ("1969-12-31T23:59:59.9999999Z", -1, -1),
            ("1969-12-31T23:59:59.0001Z", -1_000, -999_900),
            ("-0.0001", -1, -100),
            ("-1", -1_000, -1_000_000),
            ("-1.0005", -1_001, -1_000_500),
            ("-100000000000.5", -100_000_000_001, -100_000_000_000_500),
            (
                "-1554195900000000001",
                -1_554_195_900_001,
                -1_554_195_900_000_001,
            ),
            ("0", 0, 0),
            ("-0", 0, 0),
            ("0e99999999999999999999", 0, 0),
            ("0.000", 0, 0),
            ("1e-99999999999999999999", 0, 0),
            ("-1e-99999999999999999999", -1, -1),
            ("99999999999", 99_999_999_999_000, 99_999_999_999_000_000),
            (
                "99999999999.9999",
                99_999_999_999_999,
                99_999_999_999_999_900,
            ),
            ("100000000000", 100_000_000_000, 100_000_000_000_000),
            ("99999999999999", 99_999_999_999_999, 99_999_999_999_999_000),
            ("100000000000000", 100_000_000_000, 100_000_000_000_000),
            (
                "99999999999999999",
                99_999_999_999_999,
                99_999_999_999_999_999,
            ),
            ("100000000000000000", 100_000_000_000, 100_000_000_000_000),
            ("0.00000001e19", 100_000_000_000, 100_000_000_000_000),
            (
                "0000-01-01T00:00:00Z",
                -62_167_219_200_000,
                -62_167_219_200_000_000,
            ),
            (
                "9999-12-31T23:59:59.999999Z",
                253_402_300_799_999,
                253_402_300_799_999_999,
            ),
        ] {
            assert_eq!(read_time(text, TimeUnit::Ms, None), Some(ms), "{text} ms");
            assert_eq!(read_time(text, TimeUnit::Us, None), Some(us), "{text} us");
        }
    }

    #[test]
    fn other_texts_are_unreadable() {
        for text in [
            "",
            "now",
            "-",
            "+5",
            "01",
            "1.",
            ".5",
            "1e",
            "1e+",
            "0x10",
            "NaN",
            "1 ",
            " 1",
            "1e30",
            "1e99999999999999999999",
            "-1e40",
            "2019-04-02",
            "2019-04-02T",
            "2019-04-02T09",
            "2019-04-02T09:05",
            "2019-04-02T09:05:00",
            "2019-04-02T09:05:00.Z",
            "2019-04-02T09:05.5Z",
            "2019-02-29T00:00:00Z",
            "2019-13-01T00:00:00Z",
            "2019-00-01T00:00:00Z",
            "2019-04-31T00:00:00Z",
            "2019-04-02T24:00:00Z",
            "2019-04-02T09:60:00Z",
            "2019-04-02T09:05:60Z",
            "2019-04-02T23:59:61Z",
            "2019-04-02T09:05:00+24:00",
            "2019-04-02T09:05:00+09:0",
            "2019-04-02T09:05:00+9",
            "2019-04-02T09:05:00 ",
            "2019-04-02T09:05:00ZZ",
            "2019-04-02_09:05:00Z",
            "2019-4-02T09:05:00Z",
            "2019-04-02T09:05:00 UTC",
            "2019-04-02  09:05:00Z",
            "2019-04-02T09:05:00+09:00Z",
        ] {
            assert_eq!(ms(text), None, "{text}");
        }
    }

    #[test]
    fn leap_seconds_end_a_utc_day() {
        assert_eq!(ms("2016-12-31T23:59:60Z"), ms("2017-01-01T00:00:00Z"));
        assert_eq!(ms("2017-01-01T08:59:60+09:00"), ms("2017-01-01T00:00:00Z"));
    }

    #[test]
    fn a_naive_time_takes_the_zone_and_an_offset_never_does() {
        let zone = |name: &str| Some(name.parse::<Zone>().unwrap());
        let read = |text, name| read_time(text, TimeUnit::Ms, zone(name));
        assert_eq!(
            read("2019-04-02 09:05:00", "Asia/Seoul"),
            ms("2019-04-02T00:05:00Z")
        );
        assert_eq!(
            read("2019-04-02 09:05:00Z", "Asia/Seoul"),
            ms("2019-04-02T09:05:00Z")
        );
        // A time that the clock repeats is the first of the two. A time that it skips is read as if the clock had
        // not been changed yet.
        assert_eq!(
            read("2019-11-03 01:30:00", "America/New_York"),
            ms("2019-11-03T05:30:00Z")
        );
        assert_eq!(
            read("2019-03-10 02:30:00", "America/New_York"),
            ms("2019-03-10T07:30:00Z")
        );
        assert_eq!(
            read("2011-12-30 12:00", "Pacific/Apia"),
            ms("2011-12-30T22:00:00Z")
        );
    }

    #[test]
    fn days_agree_with_chrono() {
        let mut date = chrono::NaiveDate::from_ymd_opt(1, 1, 1).unwrap();
        let epoch = chrono::NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        while date.format("%Y").to_string().len() == 4 {
            let text = date.format("%Y-%m-%d").to_string();
            let days = i32::try_from((date - epoch).num_days()).unwrap();
            assert_eq!(read_date(&text), Some(days), "{text}");
            date += Duration::days(13);
        }
        for text in [
            "2019-4-2",
            "2019-04-02T00:00:00Z",
            "20190402",
            "2019-02-29",
            "",
            // Readers disagree about a year before the first.
            "0000-01-01",
            "0000-12-31",
        ] {
            assert_eq!(read_date(text), None, "{text}");
        }
    }

    #[test]
    fn years_are_1_to_9999() {
        for (text, held) in [
            ("0000-12-31T23:59:59.999Z", false),
            ("0001-01-01T00:00:00Z", true),
            ("0001-01-01T00:00:00+00:01", false),
            ("9999-12-31T23:59:59.999999Z", true),
            ("9999-12-31T23:59:59-00:01", false),
            // Seconds before the year 1, nanoseconds of the year 10000.
            ("-62135596801", false),
            ("253402300800000000000", false),
            ("253402300799999999999", true),
        ] {
            for unit in [TimeUnit::Ms, TimeUnit::Us] {
                let time = read_time(text, unit, None).unwrap();
                assert_eq!(unit.holds(time), held, "{text}");
            }
        }
    }
}
