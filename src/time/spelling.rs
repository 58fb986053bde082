//! How times and dates are written, and how they are read.

use super::clock::{Clock, days_of};
use super::decimal::Decimal;
use super::{TimeUnit, Zone, Zones, everyday};

/// Reads a time from the text of a JSON string: RFC 3339 with its everyday spellings, or an epoch
/// number. The result is in `unit`s since 1970 UTC, floored. `None` where the text is unreadable, or where
/// it has no offset and there is no zone for such times.
///
/// RFC 3339 may have a space for `T`, lower-case `t` and `z`, offsets such as `+0900` and `+09` (also after one
/// space), no seconds, a comma before the fraction, and any number of digits in the fraction. All other spellings are
/// rarer; [`everyday`] reads them.
pub fn read_time(text: &str, unit: TimeUnit, zones: Zones) -> Option<i64> {
    if text.as_bytes().get(4) == Some(&b'-') {
        read_rfc3339(text.as_bytes(), unit, zones.naive)
    } else {
        read_epoch(text, unit, zones.epoch).or_else(|| everyday::read_time(text, unit, zones.naive))
    }
}

/// Reads the object by which MongoDB writes a time: `{"$date": …}` around a text, around milliseconds, or around
/// `{"$numberLong": "…"}`. `object` is one valid JSON value, `unit` and `zones` are as for other times.
#[cold]
pub fn read_mongo(object: &str, unit: TimeUnit, zones: Zones) -> Option<i64> {
    let outer: serde_json::Map<String, serde_json::Value> = serde_json::from_str(object).ok()?;
    if outer.len() != 1 {
        return None;
    }
    match outer.get("$date")? {
        serde_json::Value::String(text) if text.as_bytes().get(4) == Some(&b'-') => {
            read_time(text, unit, zones)
        }
        serde_json::Value::Number(number) => everyday::milliseconds(&number.to_string(), unit),
        serde_json::Value::Object(inner) if inner.len() == 1 => {
            everyday::milliseconds(inner.get("$numberLong")?.as_str()?, unit)
        }
        _ => None,
    }
}

/// Reads an epoch number in JSON's grammar. Its magnitude tells its own unit: seconds below 1e11, milliseconds below
/// 1e14, microseconds below 1e17, else nanoseconds. The result is in `unit`s since 1970 UTC, floored. No digit is
/// lost, because no float is involved. With a `zone`, the number counts the zone's local time. `None` where the text
/// is no number, or the number is too large.
pub fn read_epoch(text: &str, unit: TimeUnit, zone: Option<Zone>) -> Option<i64> {
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
    let time = i64::try_from(scaled).ok()?;
    match zone {
        None => Some(time),
        Some(zone) => {
            let offset = zone.offset_of(time.div_euclid(unit.per_second()))?;
            time.checked_sub(offset * unit.per_second())
        }
    }
}

/// Reads a date as days since 1970: `YYYY-MM-DD`, `YYYYMMDD` or `YYYY/MM/DD`. `None` for any other text, and for dates
/// of the year 0, which readers understand in different ways.
pub fn read_date(text: &str) -> Option<i32> {
    if text.starts_with("0000") {
        return None;
    }
    let days = read_days(text.as_bytes()).or_else(|| match everyday::split_date(text)? {
        (days, []) => Some(days),
        _ => None,
    });
    i32::try_from(days?).ok()
}

/// The days since 1970 of the ten bytes `YYYY-MM-DD`.
fn read_days(date: &[u8]) -> Option<i64> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *date else {
        return None;
    };
    days_of([y1, y2, y3, y4, m1, m2, d1, d2])
}

/// Reads RFC 3339 and its everyday spellings, as [`read_time`] says.
fn read_rfc3339(text: &[u8], unit: TimeUnit, naive: Option<Zone>) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let days = read_days(date)?;
    let [b'T' | b't' | b' ', rest @ ..] = rest else {
        return None;
    };
    let (clock, rest) = Clock::read(rest)?;
    clock.on(days, rest, unit, naive)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Duration};

    use super::*;

    fn ms(text: &str) -> Option<i64> {
        read_time(text, TimeUnit::Ms, Zones::default())
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
    fn rarer_spellings_of_one_instant() {
        let expected = ms("2019-04-02T09:05:00Z");
        for text in [
            "20190402T090500Z",
            "20190402T0905Z",
            "20190402t180500.000+0900",
            "20190402 09:05:00Z",
            "2019/04/02 09:05:00Z",
            "2019/04/02T18:05+09:00",
            "2019-04-02 09:05:00 UTC",
            "2019-04-02 09:05:00 gmt",
            "2019-04-02T18:05:00+09:00[Asia/Seoul]",
            "2019-04-02T09:05:00Z[UTC]",
            "2019-04-02 18:05:00.000000001 +0900 KST",
            "2019-04-02 09:05:00 +0000 UTC",
            "02/Apr/2019:18:05:00 +0900",
            "[02/Apr/2019:18:05:00 +0900]",
            "Tue, 02 Apr 2019 18:05:00 +0900",
            "Tue, 2 Apr 2019 09:05:00 GMT",
            "2 Apr 2019 09:05 UT",
            "Tue, 02 Apr 2019 09:05:00 UTC",
            "Tue, 02 Apr 2019 05:05:00 EDT",
            "Tue, 02 Apr 2019 09:05:00 Z",
            "Tue Apr 02 2019 18:05:00 GMT+0900 (Korean Standard Time)",
            "Tue Apr 02 2019 09:05:00 GMT+0000",
            "/Date(1554195900000)/",
            "/Date(1554195900000+0900)/",
            "/Date(1554195900000-0500)/",
        ] {
            assert_eq!(ms(text), expected, "{text}");
        }
        let zones = Zones {
            naive: Some(Zone(chrono_tz::Asia::Seoul)),
            epoch: None,
        };
        for text in [
            "20190402T180500",
            "2019/04/02 18:05",
            "02/Apr/2019:18:05:00",
            "Tue Apr  2 18:05:00 2019",
        ] {
            assert_eq!(ms(text), None, "{text}");
            assert_eq!(read_time(text, TimeUnit::Ms, zones), expected, "{text}");
        }
    }

    #[test]
    fn a_spelling_that_could_mean_two_times_is_none() {
        let zones = Zones {
            naive: Some(Zone(chrono_tz::UTC)),
            epoch: None,
        };
        for text in [
            "01/02/2019",
            "01/02/2019 09:05:00",
            "01.02.2019 09:05",
            "02-04-2019T09:05:00Z",
            "2019-04-02",
            "2019/4/2 09:05",
            "Apr 2, 2019 09:05",
            // The day of the week is another.
            "Mon, 02 Apr 2019 18:05:00 +0900",
            // Military zones say nothing by RFC 2822, and other abbreviations mean several zones.
            "Tue, 02 Apr 2019 09:05:00 A",
            "Tue, 02 Apr 2019 09:05:00 KST",
            "Tue, 02 Apr 2019 09:05:00",
            "2019-04-02T09:05:00 KST",
            "2019-04-02T09:05:00[Asia/Seoul]",
            "2019-04-02T09:05:00+09:00[",
            "2019-04-02T09:05:00+09:00 ",
            "2019-04-02T09:05:00+0900 K T",
            "31/Apr/2019:18:05:00 +0900",
            "02/Apr/2019:18:05:60 +0900",
            "20190431T090500Z",
            "20190402T250500Z",
            "20190402T09050Z",
            "/Date(1554195900000+09:00)/",
            "/Date(1e12)/x",
            "/Date()/",
            "noon",
            "어제 저녁",
        ] {
            assert_eq!(read_time(text, TimeUnit::Ms, zones), None, "{text}");
        }
    }

    #[test]
    fn the_hour_24_is_the_end_of_a_day() {
        assert_eq!(ms("2019-04-02T24:00:00Z"), ms("2019-04-03T00:00:00Z"));
        assert_eq!(ms("2019-12-31T24:00Z"), ms("2020-01-01T00:00:00Z"));
        assert_eq!(
            ms("20191231T240000.000+0900"),
            ms("2020-01-01T00:00:00+09:00")
        );
    }

    #[test]
    fn numbers_may_count_local_time() {
        let zones = |name: &str| Zones {
            naive: None,
            epoch: Some(name.parse().unwrap()),
        };
        for (zone, number, expected) in [
            ("Asia/Seoul", "1554195900", "2019-04-02T00:05:00Z"),
            ("Asia/Seoul", "1554195900123.9", "2019-04-02T00:05:00.123Z"),
            ("America/New_York", "-0.001", "1970-01-01T04:59:59.999Z"),
            // The first of the two runs of an hour that the clock repeats.
            ("America/New_York", "1572744600", "2019-11-03T05:30:00Z"),
        ] {
            let read = read_time(number, TimeUnit::Ms, zones(zone));
            assert_eq!(read, ms(expected), "{zone} {number}");
        }
        // Other spellings do not count.
        let text = "/Date(1554195900000)/";
        assert_eq!(read_time(text, TimeUnit::Ms, zones("Asia/Seoul")), ms(text));
    }

    /// Times of all years, written by chrono in every spelling, are read as chrono's instants.
    #[test]
    fn spellings_agree_with_chrono() {
        use rand::{Rng, SeedableRng};
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(19);
        let formats = [
            "%Y-%m-%dT%H:%M:%S%.f%:z",
            "%Y-%m-%d %H:%M:%S%.f %z",
            "%Y%m%dT%H%M%S%.3f%z",
            "%Y/%m/%d %H:%M:%S%.9f%:z",
            "%d/%b/%Y:%H:%M:%S %z",
            "%a, %d %b %Y %H:%M:%S %z",
            "%a %b %d %Y %H:%M:%S GMT%z (X)",
        ];
        for _ in 0..2_000 {
            // The years 1000 to 9998. Mail has no shorter years.
            let seconds = random.random_range(-30_610_224_000..253_370_764_800);
            let offset = random.random_range(-23 * 60..24 * 60) * 60;
            let time = DateTime::from_timestamp(seconds, random.random_range(0..1_000_000_000));
            let zone = chrono::FixedOffset::east_opt(offset).unwrap();
            let time = time.unwrap().with_timezone(&zone);
            for format in formats {
                let text = time.format(format).to_string();
                let read = read_time(&text, TimeUnit::Ms, Zones::default());
                let expected = match format.contains('f') {
                    true => time.timestamp_millis(),
                    false => time.timestamp() * 1_000,
                };
                assert_eq!(read, Some(expected), "{text}");
            }
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
            assert_eq!(
                read_time(text, TimeUnit::Ms, Zones::default()),
                Some(ms),
                "{text} ms"
            );
            assert_eq!(
                read_time(text, TimeUnit::Us, Zones::default()),
                Some(us),
                "{text} us"
            );
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
            "2019-04-02T24:00:01Z",
            "2019-04-02T24:00:00.1Z",
            "2019-04-02T25:00:00Z",
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
            "2019-04-02T09:05:00 KST",
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
        let zones = |name: &str| Zones {
            naive: Some(name.parse::<Zone>().unwrap()),
            epoch: None,
        };
        let read = |text, name| read_time(text, TimeUnit::Ms, zones(name));
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
            "20190431",
            "2019/04-02",
            "02/04/2019",
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
                let time = read_time(text, unit, Zones::default()).unwrap();
                assert_eq!(unit.holds(time), held, "{text}");
            }
        }
    }
}
