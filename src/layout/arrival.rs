//! Arrival times in the keys of raw objects: a strftime pattern, read backwards.
//!
//! ```text
//! 2019/04/01/23/app-events-1-….gz   with  %Y/%m/%d/%H/   ──▶  [23:00, 24:00)  ──▶  arrival 24:00
//! topics/app/year=2019/month=04/day=01/…  with  year=%Y/month=%m/day=%d/
//! ```

use chrono::{DateTime, Datelike, Duration, NaiveDate, NaiveDateTime};

use crate::time::Zone;

/// A compiled `layout`.
#[derive(Debug, Clone)]
pub struct Layout {
    items: Vec<Item>,
    zone: Zone,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Literal(u8),
    /// A number: how many digits it has, or at most has.
    Field(Field, usize, Digits),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Year,
    Month,
    Day,
    DayOfYear,
    Hour,
    Minute,
    Second,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Digits {
    /// The number has all its digits, with leading zeros.
    All,
    /// The number has no leading zeros: `%-H`.
    Some,
}

/// Why a pattern cannot say when an object arrived.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct LayoutError(String);

impl Layout {
    /// Compiles a pattern of `%Y %m %d %j %H %M %S %F %%` and literals. `%-H` and the like read
    /// numbers without leading zeros. `%F` is `%Y-%m-%d`. The times are in `zone`.
    ///
    /// # Errors
    /// The pattern has a specifier that is not known, which is named with its place, or it has no full date.
    pub fn new(pattern: &str, zone: Zone) -> Result<Self, LayoutError> {
        let mut items = Vec::new();
        let mut rest = pattern.char_indices();
        while let Some((at, character)) = rest.next() {
            if character != '%' {
                let mut bytes = [0; 4];
                let bytes = character.encode_utf8(&mut bytes).bytes();
                items.extend(bytes.map(Item::Literal));
                continue;
            }
            let mut specifier = rest.next().map(|(_, character)| character);
            let mut digits = Digits::All;
            if specifier == Some('-') {
                digits = Digits::Some;
                specifier = rest.next().map(|(_, character)| character);
            }
            let number = |field, width| Item::Field(field, width, digits);
            match specifier {
                Some('Y') => items.push(number(Field::Year, 4)),
                Some('m') => items.push(number(Field::Month, 2)),
                Some('d') => items.push(number(Field::Day, 2)),
                Some('j') => items.push(number(Field::DayOfYear, 3)),
                Some('H') => items.push(number(Field::Hour, 2)),
                Some('M') => items.push(number(Field::Minute, 2)),
                Some('S') => items.push(number(Field::Second, 2)),
                Some('F') if digits == Digits::All => items.extend([
                    number(Field::Year, 4),
                    Item::Literal(b'-'),
                    number(Field::Month, 2),
                    Item::Literal(b'-'),
                    number(Field::Day, 2),
                ]),
                Some('%') if digits == Digits::All => items.push(Item::Literal(b'%')),
                _ => return Err(unknown(pattern, at, specifier, digits)),
            }
        }
        let has = |wanted: Field| {
            items
                .iter()
                .any(|item| matches!(item, Item::Field(field, ..) if *field == wanted))
        };
        let of_year = has(Field::DayOfYear);
        let lacks = match () {
            () if !has(Field::Year) => "year",
            () if !of_year && !has(Field::Month) => "month",
            () if !of_year && !has(Field::Day) => "day",
            () => return Ok(Self { items, zone }),
        };
        Err(LayoutError(format!(
            "`{pattern}` holds no {lacks}: an arrival needs a full date, %Y with %m and %d, or %Y \
             with %j; write such as `%Y/%m/%d/%H/`, or `layout = false` where keys hold no time"
        )))
    }

    /// When the object of this key arrived: the end of the span of time that the key names, in milliseconds since
    /// 1970 UTC. The pattern may begin at the start of the key or behind any `/`; the first place that fits counts.
    /// `None` where no place fits.
    pub fn arrival_ms(&self, key: &str) -> Option<i64> {
        let (_, end) = self.first_fit(key)?;
        Some(self.zone.last_instant(end))
    }

    /// The byte at which the pattern begins in a key. `None` where no place fits.
    pub fn begins_at(&self, key: &str) -> Option<usize> {
        let (start, _) = self.first_fit(key)?;
        Some(start)
    }

    /// The first byte at which the pattern fits, and the end of the span that it reads there, as a local time.
    fn first_fit(&self, key: &str) -> Option<(usize, NaiveDateTime)> {
        let slashes = memchr::memchr_iter(b'/', key.as_bytes()).map(|i| i + 1);
        std::iter::once(0).chain(slashes).find_map(|start| {
            let end = self.span_end(key.as_bytes().get(start..)?)?;
            Some((start, end))
        })
    }

    /// A prefix that sorts before the keys of all spans that end at `ms` or later, in milliseconds since 1970 UTC.
    /// It is as near to those keys as the pattern allows. `None` where keys do not sort in order of time.
    pub fn sorts_before(&self, ms: i64) -> Option<String> {
        let local = DateTime::from_timestamp_millis(ms)?.with_timezone(&self.zone.0);
        // A key names the start of a span, which may be a day earlier; clocks are set back by an hour, rarely more.
        let local = local.naive_local().checked_sub_signed(Duration::days(2))?;
        let mut bytes = Vec::new();
        let mut year = false;
        for item in &self.items {
            match item {
                Item::Literal(b) => bytes.push(*b),
                Item::Field(Field::Year, ..) => {
                    year = true;
                    bytes.extend(format!("{:04}", local.year()).bytes());
                }
                // The prefix ends with the month: the day makes little difference, and may not come next.
                Item::Field(Field::Month, _, Digits::All) if year => {
                    bytes.extend(format!("{:02}", local.month()).bytes());
                    return String::from_utf8(bytes).ok();
                }
                Item::Field(Field::DayOfYear, _, Digits::All) if year => {
                    bytes.extend(format!("{:03}", local.ordinal()).bytes());
                    return String::from_utf8(bytes).ok();
                }
                Item::Field(..) if year => return String::from_utf8(bytes).ok(),
                Item::Field(..) => return None,
            }
        }
        None
    }

    /// The end of the span, as a local time, that the pattern reads at the start of `key`.
    fn span_end(&self, mut key: &[u8]) -> Option<NaiveDateTime> {
        let (mut year, mut month, mut day, mut ordinal) = (1970, 1, 1, None);
        let (mut hour, mut minute, mut second) = (0, 0, 0);
        let mut span = Duration::days(1);
        for item in &self.items {
            let (field, value) = match item {
                Item::Literal(b) => {
                    let (first, tail) = key.split_first()?;
                    if first != b {
                        return None;
                    }
                    key = tail;
                    continue;
                }
                Item::Field(field, width, digits) => {
                    let found = key
                        .iter()
                        .take(*width)
                        .take_while(|b| b.is_ascii_digit())
                        .count();
                    if found == 0 || (found < *width && *digits == Digits::All) {
                        return None;
                    }
                    let (number, tail) = key.split_at_checked(found)?;
                    key = tail;
                    let value = number
                        .iter()
                        .fold(0, |value, b| value * 10 + u32::from(b - b'0'));
                    (field, value)
                }
            };
            match field {
                Field::Year => year = i32::try_from(value).ok()?,
                Field::Month => month = value,
                Field::Day => day = value,
                Field::DayOfYear => ordinal = Some(value),
                Field::Hour => {
                    hour = value;
                    span = span.min(Duration::hours(1));
                }
                Field::Minute => {
                    minute = value;
                    span = span.min(Duration::minutes(1));
                }
                Field::Second => {
                    second = value;
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
}

/// The error of a specifier that begins at byte `at` of the pattern and is not known.
fn unknown(pattern: &str, at: usize, specifier: Option<char>, digits: Digits) -> LayoutError {
    let column = 1 + pattern.get(..at).unwrap_or_default().chars().count();
    let flag = match digits {
        Digits::All => "",
        Digits::Some => "-",
    };
    let Some(specifier) = specifier else {
        return LayoutError(format!(
            "`{pattern}` is no strftime pattern: it ends in a `%` at character {column}; write `%%` \
             for the character itself"
        ));
    };
    let instead = match specifier {
        'D' | 'x' => "write the date as it stands in the keys, such as %m/%d/%Y",
        'T' | 'X' => "write %H:%M:%S",
        'R' => "write %H:%M",
        'e' => "write %-d",
        'k' => "write %-H",
        's' => "a key with an epoch holds no date to read: `layout = false` uses LastModified",
        _ => {
            "use %Y %m %d (or %j) %H %M %S %F, with `-` for numbers without leading zeros, such as %-H"
        }
    };
    LayoutError(format!(
        "`{pattern}` is no strftime pattern that can be read: `%{flag}{}` at character {column} is not \
         known; {instead}",
        specifier.escape_debug()
    ))
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
            (
                "%Y-%m-%d-%-H",
                "UTC",
                "2015-01-01-9.json.gz",
                Some("2015-01-01T10:00:00+00:00"),
            ),
            (
                "%Y-%m-%d-%-H",
                "UTC",
                "2015-01-01-15.json.gz",
                Some("2015-01-01T16:00:00+00:00"),
            ),
            ("%Y/%m/%d/%H/", "UTC", "2019/13/01/23/a.gz", None),
            ("%Y/%m/%d/%H/", "UTC", "readme.txt", None),
            ("%Y/%m/%d/%H/", "UTC", "2019/04/01/2", None),
            // An hour that the clock of New York repeats ends when its second run ends.
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

    /// The keys that producers write: Firehose by default, in a zone, in Hive's form and with dynamic partitions; the
    /// partitioners of Kafka Connect; Secor, Vector and CloudTrail; a tenant before the date.
    #[test]
    fn keys_of_producers() {
        let stream = "app-1-2019-04-01-23-58-59-124d4beb-1ba0-2f3b-8318-73fcbb919fc4.gz";
        for (pattern, zone, folder, expected) in [
            (
                "%Y/%m/%d/%H/",
                "UTC",
                "2019/04/01/23/",
                "2019-04-02T00:00:00",
            ),
            (
                "%Y/%m/%d/%H/",
                "UTC",
                "app-events/2019/04/01/23/",
                "2019-04-02T00:00:00",
            ),
            (
                "%Y/%m/%d/%H/",
                "Asia/Seoul",
                "2019/04/02/08/",
                "2019-04-02T00:00:00",
            ),
            (
                "%Y/%m/%d/%H/",
                "Asia/Kolkata",
                "2019/04/01/23/",
                "2019-04-01T18:30:00",
            ),
            // The hour that the clock of Berlin leaves out, and the hour that it repeats.
            (
                "%Y/%m/%d/%H/",
                "Europe/Berlin",
                "2019/03/31/01/",
                "2019-03-31T01:00:00",
            ),
            (
                "%Y/%m/%d/%H/",
                "Europe/Berlin",
                "2019/10/27/02/",
                "2019-10-27T02:00:00",
            ),
            (
                "year=%Y/month=%m/day=%d/hour=%H/",
                "UTC",
                "year=2019/month=04/day=01/hour=23/",
                "2019-04-02T00:00:00",
            ),
            (
                "year=%Y/month=%m/day=%d/",
                "UTC",
                "year=2019/month=04/day=01/",
                "2019-04-02T00:00:00",
            ),
            (
                "dt=%F/hr=%H/",
                "UTC",
                "dt=2019-04-01/hr=23/",
                "2019-04-02T00:00:00",
            ),
            (
                "%Y/%m/%d/%H/",
                "UTC",
                "customer_id=17/device=ios/2019/04/01/23/",
                "2019-04-02T00:00:00",
            ),
            (
                "year=%Y/month=%m/day=%d/hour=%H/",
                "UTC",
                "customer_id=2019/year=2019/month=04/day=01/hour=23/",
                "2019-04-02T00:00:00",
            ),
            // Firehose appends nothing to a prefix without a slash.
            (
                "raw-%Y/%m/%d/%H/",
                "UTC",
                "raw-2019/04/01/23/",
                "2019-04-02T00:00:00",
            ),
            // An error prefix of the documentation has the day of the year.
            (
                "%Y/%m/%j/%H/",
                "UTC",
                "processing-failed/2019/04/091/23/",
                "2019-04-02T00:00:00",
            ),
            (
                "year=%Y/month=%m/day=%d/hour=%H/",
                "UTC",
                "topics/app/year=2019/month=04/day=01/hour=23/",
                "2019-04-02T00:00:00",
            ),
            (
                "'year'=%Y/'month'=%m/'day'=%d/",
                "UTC",
                "topics/app/'year'=2019/'month'=04/'day'=01/",
                "2019-04-02T00:00:00",
            ),
            (
                "%Y-%m-%d/",
                "UTC",
                "secor/app/2019-04-01/",
                "2019-04-02T00:00:00",
            ),
            ("date=%F/", "UTC", "date=2019-04-01/", "2019-04-02T00:00:00"),
            (
                "%Y/%m/%d/",
                "UTC",
                "AWSLogs/123456789012/CloudTrail/us-east-1/2019/04/01/",
                "2019-04-02T00:00:00",
            ),
            (
                "%Y/%-m/%-d/%-H/",
                "UTC",
                "tenant-7/2019/4/1/23/",
                "2019-04-02T00:00:00",
            ),
            // A tenant that looks like the beginning of a date.
            (
                "%Y/%m/%d/%H/",
                "UTC",
                "1999/12/2019/04/01/23/",
                "2019-04-02T00:00:00",
            ),
            (
                "%Y/%m/%d/%H/",
                "UTC",
                "20190401/2019/04/01/23/",
                "2019-04-02T00:00:00",
            ),
        ] {
            let key = format!("{folder}{stream}");
            let found = arrival(pattern, zone, &key);
            assert_eq!(
                found,
                Some(format!("{expected}+00:00")),
                "{pattern} {zone} {key}"
            );
        }
        // The default partitioner of Kafka Connect has no time in its keys: `layout = false`.
        let key = "topics/app/partition=0/app+0+0000000000.json.gz";
        assert_eq!(arrival("%Y/%m/%d/%H/", "UTC", key), None);
    }

    #[test]
    fn what_sorts_before_a_time() {
        let ms = DateTime::parse_from_rfc3339("2019-04-15T05:00:00Z")
            .unwrap()
            .timestamp_millis();
        for (pattern, expected) in [
            ("%Y/%m/%d/%H/", Some("2019/04")),
            ("year=%Y/month=%m/day=%d/", Some("year=2019/month=04")),
            ("%Y/%j/", Some("2019/103")),
            ("%Y-%-m-%d", Some("2019-")),
            ("%d.%m.%Y", None),
            ("dt=%F/", Some("dt=2019-04")),
            ("°%Y/%m/%d/", Some("°2019/04")),
        ] {
            let layout = Layout::new(pattern, "UTC".parse().unwrap()).unwrap();
            assert_eq!(layout.sorts_before(ms).as_deref(), expected, "{pattern}");
        }
        let layout = Layout::new("%Y/%m/%d/", "UTC".parse().unwrap()).unwrap();
        assert_eq!(layout.begins_at("topics/app/2019/04/01/x"), Some(11));
        assert_eq!(layout.begins_at("2019/04/01/x"), Some(0));
        assert_eq!(layout.begins_at("x"), None);
    }

    #[test]
    fn a_pattern_without_a_date_is_refused() {
        let error = |pattern| {
            Layout::new(pattern, "UTC".parse().unwrap())
                .unwrap_err()
                .to_string()
        };
        assert!(error("%H/").contains("holds no year"));
        assert!(error("%Y/%H/").contains("holds no month"));
        assert!(error("%Y/%m/%H/").contains("holds no day"));
        for (pattern, parts) in [
            ("%Y/%q/", ["`%q` at character 4", "use %Y"]),
            ("%s", ["`%s` at character 1", "layout = false"]),
            ("집/%Y%m%d/%T", ["`%T` at character 10", "%H:%M:%S"]),
            ("%-F", ["`%-F` at character 1", "use %Y"]),
            ("%F/%", ["`%` at character 4", "write `%%`"]),
            ("%F/%\n", ["`%\\n` at character 4", "use %Y"]),
        ] {
            for part in parts {
                assert!(
                    error(pattern).contains(part),
                    "{pattern}: {}",
                    error(pattern)
                );
            }
        }
    }

    #[test]
    fn a_date_in_one_specifier() {
        assert_eq!(
            arrival("dt=%F/%-H.json", "UTC", "app/dt=2019-04-01/5.json").as_deref(),
            Some("2019-04-01T06:00:00+00:00")
        );
        assert_eq!(arrival("dt=%F/", "UTC", "dt=2019-4-1/5.json"), None);
        assert_eq!(
            arrival("100%%/%F", "UTC", "100%/2019-04-01").as_deref(),
            Some("2019-04-02T00:00:00+00:00")
        );
    }
}
