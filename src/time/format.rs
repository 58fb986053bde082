//! Formats of times that a configuration names: the words of `strptime`.
//!
//! ```text
//! "%d.%m.%Y %H:%M" ──new()──▶ TimeFormat ──read("02.04.2019 18:05")──▶ local time ──zone──▶ instant
//!                                        ──date("02.04.2019")────────▶ days, for formats without a time of day
//! ```
//!
//! chrono reads the words. This file adds what producers need beyond: AM and PM in Korean, Japanese and Chinese, a comma
//! before the fraction, arrays as Java writes them, and the rule that an offset is never passed over.

use std::borrow::Cow;

use chrono::format::{Fixed, Item, Parsed, StrftimeItems, parse};
use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, NaiveTime, Timelike};

use super::{TimeUnit, Zone};

/// The words for the halves of a day, and the words that the formats know.
const HALVES: [(&str, &str); 6] = [
    ("오전", "AM"),
    ("오후", "PM"),
    ("午前", "AM"),
    ("午後", "PM"),
    ("上午", "AM"),
    ("下午", "PM"),
];

/// A time of which every part differs from the others. A format must read it back as it writes it.
const SAMPLE: &str = "2019-04-02T18:05:09.123456789+09:00";

/// A format of times or of dates.
#[derive(Debug, Clone)]
pub struct TimeFormat {
    items: Vec<Item<'static>>,
    /// Whether the fraction stands behind a comma.
    comma: bool,
    /// Whether the format has a word for the half of the day.
    halves: bool,
    /// Whether the format ends in a `Z`, `UTC` or `GMT` of its own.
    utc: bool,
    /// Whether the format has a time of day.
    clock: bool,
    /// Whether the format stands for an array.
    array: bool,
}

impl TimeFormat {
    /// Reads a format.
    ///
    /// # Errors
    /// A word that is not known, a format that does not say which time a text is, or a format that would pass over an
    /// offset from UTC. The message says what to write.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.contains("%Z") {
            return Err(format!(
                "`{text}`: `%Z` passes over the name of a zone, and the time would be read as if it had none: write \
                 `%z` for an offset"
            ));
        }
        let array = text.starts_with('[') && text.ends_with(']') && text.contains(',');
        let comma = text.contains(",%f") && !array;
        let fraction = text.replace(".%f", "%.f");
        let fraction = match comma {
            true => fraction.replace(",%f", "%.f"),
            false => fraction,
        };
        if fraction.contains("%f") && !array {
            return Err(format!(
                "`{text}`: `%f` stands behind a point or a comma; write `%3f`, `%6f` or `%9f` for so many digits"
            ));
        }
        let items: Vec<Item<'static>> = StrftimeItems::new(&fraction).map(Item::to_owned).collect();
        if items.contains(&Item::Error) {
            return Err(format!(
                "`{text}` has a word that is not known: write such as `%Y-%m-%d %H:%M:%S`"
            ));
        }
        let utc = ends_in_utc(&items, text)?;
        let mut format = Self {
            comma,
            halves: text.contains("%p") || text.contains("%P"),
            utc,
            clock: false,
            array,
            items,
        };
        format.prove(text, &fraction)?;
        Ok(format)
    }

    /// Whether the format has a time of day.
    pub const fn has_clock(&self) -> bool {
        self.clock
    }

    /// Whether the format reads arrays.
    pub const fn is_array(&self) -> bool {
        self.array
    }

    /// Proves that the format reads what it writes, and learns which parts it has.
    fn prove(&mut self, text: &str, pattern: &str) -> Result<(), String> {
        let unclear =
            |what: &str| format!("`{text}` does not say {what}: write such as `%Y-%m-%d %H:%M:%S`");
        let Ok(sample) = DateTime::parse_from_rfc3339(SAMPLE) else {
            return Err(unclear("a time"));
        };
        let permissive = pattern.replace("%z", "%#z").replace("%:z", "%#z");
        let written = write(&sample, &self.items).ok_or_else(|| unclear("a time"))?;
        self.items = StrftimeItems::new(&permissive)
            .map(Item::to_owned)
            .collect();
        let parsed = self.parsed(&written).ok_or_else(|| unclear("a time"))?;
        if parsed.timestamp().is_some() {
            self.clock = true;
            return Ok(());
        }
        let date = parsed.to_naive_date();
        let date = date.map_err(|_| unclear("which day a text is"))?;
        if date != sample.date_naive() {
            return Err(unclear("which day a text is"));
        }
        self.clock = parsed.hour_mod_12().is_some() || parsed.hour_div_12().is_some();
        if self.clock {
            let time =
                time_of(&parsed).ok_or_else(|| unclear("which time of the day a text is"))?;
            if time.hour() != 18 {
                return Err(unclear("which half of the day a text is in"));
            }
        } else if parsed.minute().is_some() || parsed.offset().is_some() || self.utc {
            return Err(unclear("the hour"));
        }
        Ok(())
    }

    /// The parts of a text.
    fn parsed(&self, text: &str) -> Option<Parsed> {
        let with = |text: &str| {
            let mut parsed = Parsed::new();
            parse(&mut parsed, text, self.items.iter()).ok()?;
            if parsed.hour_mod_12().is_some() && parsed.minute().is_none() {
                parsed.set_minute(0).ok()?;
            }
            Some(parsed)
        };
        let mut text = Cow::Borrowed(text);
        if self.array {
            text = Cow::Owned(text.split_ascii_whitespace().collect());
        }
        if self.halves {
            for (word, known) in HALVES {
                if text.contains(word) {
                    text = Cow::Owned(text.replace(word, known));
                }
            }
        }
        if self.comma
            && let Some((before, after)) = text.rsplit_once(',')
            && let Some(parsed) = with(&format!("{before}.{after}"))
        {
            return Some(parsed);
        }
        with(&text)
    }

    /// Reads a text as `unit`s since 1970 UTC, floored. A format without a time of day gives midnight. `None` where the
    /// text has another form, or where it has no offset and there is no `naive` zone.
    pub fn read(&self, text: &str, unit: TimeUnit, naive: Option<Zone>) -> Option<i64> {
        let parsed = self.parsed(text)?;
        if let Some(seconds) = parsed.timestamp() {
            return of_parts(seconds, parsed.nanosecond().unwrap_or(0), unit);
        }
        let date = parsed.to_naive_date().ok()?;
        let time = match self.clock {
            true => time_of(&parsed)?,
            false => NaiveTime::MIN,
        };
        let local = date.and_time(time);
        let local = local.and_utc();
        let seconds = local.timestamp();
        let offset = match (parsed.offset(), self.utc) {
            (Some(offset), _) => i64::from(offset),
            (None, true) => 0,
            (None, false) => naive?.offset_of(seconds)?,
        };
        of_parts(seconds - offset, local.timestamp_subsec_nanos(), unit)
    }

    /// Reads a text as days since 1970. `None` where the text has another form, where the format has a time of day, or
    /// where the year is not 1 to 9999.
    pub fn date(&self, text: &str) -> Option<i32> {
        if self.clock {
            return None;
        }
        let date = self.parsed(text)?.to_naive_date().ok()?;
        if !(1..=9999).contains(&date.year()) {
            return None;
        }
        let days = date.signed_duration_since(NaiveDate::default()).num_days();
        i32::try_from(days).ok()
    }
}

/// The instant of seconds since 1970 UTC and of nanoseconds behind them, in `unit`s, floored. `None` for a leap second
/// inside a day. chrono writes a leap second as the 59th second with more than a second of nanoseconds.
pub(super) fn of_parts(seconds: i64, nanoseconds: u32, unit: TimeUnit) -> Option<i64> {
    let (mut seconds, mut nanoseconds) = (seconds, i64::from(nanoseconds));
    if nanoseconds >= 1_000_000_000 {
        (seconds, nanoseconds) = (seconds + 1, nanoseconds - 1_000_000_000);
        if seconds.rem_euclid(86_400) != 0 {
            return None;
        }
    }
    let below = nanoseconds / (1_000_000_000 / unit.per_second());
    seconds.checked_mul(unit.per_second())?.checked_add(below)
}

/// The time of day of the parts. A fraction without seconds is none.
fn time_of(parsed: &Parsed) -> Option<NaiveTime> {
    parsed.to_naive_time().ok()
}

/// The sample as the items write it.
fn write(sample: &DateTime<FixedOffset>, items: &[Item<'static>]) -> Option<String> {
    use std::fmt::Write;
    let mut text = String::new();
    write!(text, "{}", sample.format_with_items(items.iter())).ok()?;
    Some(text)
}

/// Whether a format without a word for the offset ends in a literal that means UTC.
///
/// # Errors
/// A literal that is another offset: a time with another offset would be read as if it had this one.
fn ends_in_utc(items: &[Item<'static>], text: &str) -> Result<bool, String> {
    let literals = items.iter().filter_map(|item| match item {
        Item::Literal(literal) => Some(*literal),
        Item::OwnedLiteral(literal) => Some(literal.as_ref()),
        _ => None,
    });
    let is_offset = |literal: &str| {
        let signs = literal.match_indices(['+', '-']);
        signs.into_iter().any(|(at, _)| {
            let digits = literal.get(at + 1..at + 3).unwrap_or_default();
            digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit())
        })
    };
    let has_word = items.iter().any(|item| {
        matches!(
            item,
            Item::Fixed(
                Fixed::TimezoneOffset
                    | Fixed::TimezoneOffsetColon
                    | Fixed::TimezoneOffsetDoubleColon
                    | Fixed::TimezoneOffsetTripleColon
                    | Fixed::TimezoneOffsetColonZ
                    | Fixed::TimezoneOffsetZ
                    | Fixed::RFC2822
                    | Fixed::RFC3339
            )
        )
    });
    let mut last = "";
    for literal in literals {
        if is_offset(literal) {
            return Err(format!(
                "`{text}` has the offset `{}` as fixed text: write `%z`, which reads every offset",
                literal.trim()
            ));
        }
        last = literal;
    }
    let last = last.trim().to_ascii_uppercase();
    Ok(!has_word && (last == "Z" || last.ends_with("UTC") || last.ends_with("GMT")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: &str, text: &str) -> Option<String> {
        let format = TimeFormat::new(format).unwrap();
        let seoul = Some(Zone(chrono_tz::Asia::Seoul));
        let time = format.read(text, TimeUnit::Us, seoul)?;
        let time = DateTime::from_timestamp_micros(time).unwrap();
        Some(time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true))
    }

    #[test]
    fn formats_read_what_producers_write() {
        for (format, text, expected) in [
            ("%d/%m/%Y", "01/02/2019", "2019-01-31T15:00:00Z"),
            ("%m/%d/%Y %H:%M", "01/02/2019 9:05", "2019-01-02T00:05:00Z"),
            ("%Y%m%d%H%M%S", "20190402180500", "2019-04-02T09:05:00Z"),
            ("%Y%m%d%H", "2019040218", "2019-04-02T09:00:00Z"),
            (
                "%Y-%m-%d %H:%M:%S,%f",
                "2019-04-02 18:05:00,5",
                "2019-04-02T09:05:00.500Z",
            ),
            (
                "%b %d, %Y %H:%M:%S,%f",
                "Apr 2, 2019 18:05:00",
                "2019-04-02T09:05:00Z",
            ),
            (
                "%d.%m.%Y %H:%M:%S.%f",
                "02.04.2019 18:05:00.123456789012",
                "2019-04-02T09:05:00.123456Z",
            ),
            (
                "%Y%m%d%H%M%S%3f",
                "20190402180500250",
                "2019-04-02T09:05:00.250Z",
            ),
            (
                "%d.%m.%Y %H:%M %z",
                "02.04.2019 09:05 Z",
                "2019-04-02T09:05:00Z",
            ),
            (
                "%d.%m.%Y %H:%M %z",
                "02.04.2019 09:05 -05:30",
                "2019-04-02T14:35:00Z",
            ),
            (
                "%d.%m.%Y %H:%M %:z",
                "02.04.2019 09:05 +00",
                "2019-04-02T09:05:00Z",
            ),
            (
                "%d.%m.%Y %H:%MZ",
                "02.04.2019 09:05Z",
                "2019-04-02T09:05:00Z",
            ),
            (
                "%d.%m.%Y %H:%M UTC",
                "02.04.2019 09:05 UTC",
                "2019-04-02T09:05:00Z",
            ),
            (
                "%Y년 %m월 %d일 %p %I:%M:%S",
                "2019년 4월 2일 오후 6:05:09",
                "2019-04-02T09:05:09Z",
            ),
            (
                "%Y. %m. %d. %p %I:%M:%S",
                "2019. 4. 2. 오전 12:05:09",
                "2019-04-01T15:05:09Z",
            ),
            (
                "%Y/%m/%d %p%I:%M",
                "2019/04/02 午後6:05",
                "2019-04-02T09:05:00Z",
            ),
            (
                "%m/%d/%Y, %I:%M:%S %p",
                "4/2/2019, 6:05:09\u{202f}PM",
                "2019-04-02T09:05:09Z",
            ),
            ("%G-W%V-%u", "2019-W14-2", "2019-04-01T15:00:00Z"),
            (
                "%G-W%V-%uT%H:%M%z",
                "2020-W53-7T12:00Z",
                "2021-01-03T12:00:00Z",
            ),
            ("%Y-%j", "2019-092", "2019-04-01T15:00:00Z"),
            (
                "%Y-%jT%H:%M:%S",
                "2020-366T18:05:00",
                "2020-12-31T09:05:00Z",
            ),
            ("%s", "1554195900", "2019-04-02T09:05:00Z"),
            (
                "[%Y,%m,%d,%H,%M]",
                "[2019, 4, 2, 18, 5]",
                "2019-04-02T09:05:00Z",
            ),
            (
                "[%Y,%m,%d,%H,%M,%S,%f]",
                "[2019,4,2,18,5,0,5000000]",
                "2019-04-02T09:05:00.005Z",
            ),
            (
                "%Y-%m-%d %H:%M:%S",
                "2017-01-01 08:59:60",
                "2017-01-01T00:00:00Z",
            ),
        ] {
            assert_eq!(
                read(format, text).as_deref(),
                Some(expected),
                "{format} {text}"
            );
        }
    }

    #[test]
    fn another_text_is_not_read() {
        for (format, text) in [
            ("%d/%m/%Y", "13/13/2019"),
            ("%d/%m/%Y", "01/02/2019 09:05"),
            ("%d/%m/%Y %H:%M", "01/02/2019 09:05+0900"),
            ("%d/%m/%Y %H:%M", "01/02/2019 09:05Z"),
            ("%d/%m/%Y %H:%MZ", "01/02/2019 09:05"),
            ("%Y-%j", "2019-366"),
            ("%G-W%V-%u", "2019-W54-1"),
            ("%p %I:%M %d.%m.%Y", "오후 13:00 02.04.2019"),
            ("%Y-%m-%d %H:%M:%S", "2019-04-02 09:05:60"),
        ] {
            assert_eq!(read(format, text), None, "{format} {text}");
        }
        // Without an offset and without a zone there is no instant.
        let format = TimeFormat::new("%d/%m/%Y %H:%M").unwrap();
        assert_eq!(format.read("01/02/2019 09:05", TimeUnit::Ms, None), None);
    }

    #[test]
    fn dates_are_read_by_formats_of_days_alone() {
        let date = |format: &str, text: &str| TimeFormat::new(format).unwrap().date(text);
        assert_eq!(date("%d/%m/%Y", "02/04/2019"), Some(17_988));
        assert_eq!(date("%Y년 %m월 %d일", "2019년 4월 2일"), Some(17_988));
        assert_eq!(date("[%Y,%m,%d]", "[2019,4,2]"), Some(17_988));
        assert_eq!(date("%d/%m/%Y", "02/04/0000"), None);
        assert_eq!(date("%d/%m/%Y %H:%M", "02/04/2019 10:00"), None);
    }

    #[test]
    fn a_format_that_is_not_clear_is_refused() {
        for (format, words) in [
            ("%Y-%m", "does not say which day"),
            ("%H:%M", "does not say which day"),
            ("%G-W%V", "does not say which day"),
            ("noon", "does not say which day"),
            ("%d.%m.%Y %I:%M", "does not say which"),
            ("%d.%m.%Y %M", "does not say the hour"),
            ("%d.%m.%Y %Z", "passes over"),
            ("%d.%m.%Y %H:%M %Z", "passes over"),
            ("%d.%m.%Y %H:%M +0900", "write `%z`"),
            ("%d.%m.%Y %H:%M GMT+09:00", "write `%z`"),
            ("%d.%m.%Y %z", "does not say the hour"),
            ("%d.%m.%Y %H:%M:%S%f", "behind a point"),
            ("%d.%m.%Y %H:%M:%Q", "not known"),
            ("yyyy-MM-dd", "does not say which day"),
        ] {
            let error = TimeFormat::new(format).unwrap_err();
            assert!(error.contains(words) && error.contains(format), "{error}");
        }
    }
}
