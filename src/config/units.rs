//! Durations, sizes, shares and dates as people write them: read and written.
//!
//! ```text
//! "1h30m"  ◀─▶  5_400_000 ms        "16MiB"  ◀─▶  16_777_216 bytes        "0.5%"  ◀─▶  0.005
//! ```

use chrono::NaiveDate;

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// The units of a duration and their milliseconds, in the order in which they are written.
const DURATIONS: [(&str, i64); 5] = [
    ("d", DAY),
    ("h", HOUR),
    ("m", MINUTE),
    ("s", SECOND),
    ("ms", 1),
];

/// The longest duration, a century. With this bound, the sum of an accepted time and a window fits 64 bits, also in
/// microseconds.
const LONGEST: i64 = 36_525 * DAY;

/// The milliseconds of a duration such as `1s`, `500ms`, `1h30m` or `35d`.
pub fn duration(text: &str) -> Result<i64, String> {
    let wrong = |what: &str| {
        Err(format!(
            "`{text}` is no duration: {what} (write `500ms`, `1s`, `10m`, `24h`, `35d` or `1h30m`)"
        ))
    };
    let mut rest = text.trim();
    if rest.is_empty() {
        return wrong("it is empty");
    }
    let mut total = 0_i64;
    let mut finest = i64::MAX;
    while !rest.is_empty() {
        let (digits, after) = split_at_first(rest, |c| !c.is_ascii_digit());
        let (unit, after) = split_at_first(after, |c| c.is_ascii_digit());
        if digits.is_empty() {
            return wrong("write whole numbers with units");
        }
        if unit.is_empty() {
            return wrong("a number has no unit");
        }
        let Some((_, scale)) = DURATIONS.iter().find(|(name, _)| *name == unit) else {
            return wrong(&format!("`{unit}` is no unit"));
        };
        if *scale >= finest {
            return wrong("larger units come first, each once");
        }
        finest = *scale;
        let part = digits
            .parse::<i64>()
            .ok()
            .and_then(|n| n.checked_mul(*scale))
            .and_then(|part| total.checked_add(part));
        match part {
            Some(sum) if sum <= LONGEST => total = sum,
            _ => return wrong("it is longer than a hundred years"),
        }
        rest = after;
    }
    Ok(total)
}

/// The shortest spelling of a duration of `ms` milliseconds. [`duration`] reads it back.
pub fn show_duration(ms: i64) -> String {
    let mut text = String::new();
    let mut rest = ms;
    for (unit, scale) in DURATIONS {
        if rest >= scale {
            text.push_str(&format!("{}{unit}", rest / scale));
            rest %= scale;
        }
    }
    if text.is_empty() {
        text.push_str("0s");
    }
    text
}

/// The bytes of a size such as `16MiB`, `512m`, `2GB` or `1048576`. A single letter is a binary unit, as for
/// `docker` and `java -Xmx`; `MB` and `GB` are decimal units.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong = |what: &str| {
        Err(format!(
            "`{text}` is no size: {what} (write `16MiB`, `1GiB`, `512m`, `2GB` or bytes)"
        ))
    };
    let (digits, unit) = split_at_first(text.trim(), |c| !c.is_ascii_digit());
    if digits.is_empty() {
        return wrong("it does not begin with a whole number");
    }
    let scale: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        unit => return wrong(&format!("`{unit}` is no unit")),
    };
    match digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(scale))
    {
        Some(bytes) => Ok(bytes),
        None => wrong("it is too large"),
    }
}

/// The shortest exact spelling of a size in bytes. [`size`] reads it back.
pub(super) fn show_size(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in units {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// The date that a text such as `2019-04-02` spells.
pub(super) fn date(text: &str) -> Result<NaiveDate, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is no date: write such as `2019-04-02`"))
}

/// The share, 0 to 1, that a text such as `1%`, `0.5%` or `0.005` spells.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let wrong = |what: &str| {
        Err(format!(
            "`{text}` is no share: {what} (write `1%`, `0.5%`, or a share from 0 to 1 such as `0.01`)"
        ))
    };
    let trimmed = text.trim();
    let (number, percent) = match trimmed.strip_suffix('%') {
        Some(number) => (number.trim_end(), true),
        None => (trimmed, false),
    };
    let digits = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit() || c == '.');
    let Some(value) = number.parse::<f64>().ok().filter(|_| digits) else {
        return wrong("it is not a number");
    };
    // `1` may mean one percent or everything, and the two differ by a lost day of data.
    if !percent && number == "1" {
        return wrong("say `1%` or `100%`");
    }
    let value = if percent { value / 100.0 } else { value };
    if (0.0..=1.0).contains(&value) {
        Ok(value)
    } else {
        wrong("it is more than 100%")
    }
}

/// A spelling of a share that [`share`] reads back to the same number.
pub(super) fn show_share(share_of_one: f64) -> String {
    let percent = format!("{}%", share_of_one * 100.0);
    if share(&percent) == Ok(share_of_one) {
        percent
    } else {
        format!("{share_of_one:?}")
    }
}

fn split_at_first(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("0s", 0),
            ("1s", 1_000),
            ("500ms", 500),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("24h", DAY),
            ("35d", 35 * DAY),
            (" 1d2h3m4s5ms ", DAY + 2 * HOUR + 3 * MINUTE + 4_005),
        ] {
            assert_eq!(duration(text), Ok(ms), "{text}");
            assert_eq!(duration(&show_duration(ms)), Ok(ms), "{text}");
        }
        assert_eq!(show_duration(5_400_000), "1h30m");
        for (text, why) in [
            ("", "it is empty"),
            ("10", "a number has no unit"),
            ("1h30", "a number has no unit"),
            ("s", "whole numbers with units"),
            ("1.5s", "`.` is no unit"),
            ("-1s", "whole numbers with units"),
            ("1M", "`M` is no unit"),
            ("1초", "`초` is no unit"),
            ("1m1h", "larger units come first"),
            ("1s1s", "larger units come first"),
            ("99999999d", "longer than a hundred years"),
            ("99999999999999999999ms", "longer than a hundred years"),
        ] {
            let error = duration(text).unwrap_err();
            assert!(
                error.contains(why) && error.contains("1h30m"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("512m", 512 << 20),
            ("16MiB", 16 << 20),
            ("1 GiB", 1 << 30),
            ("2GB", 2_000_000_000),
            ("1023B", 1023),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
            assert_eq!(size(&show_size(bytes)), Ok(bytes), "{text}");
        }
        assert_eq!(show_size(16 << 20), "16MiB");
        assert_eq!(show_size(1_025), "1025B");
        for text in [
            "",
            "MiB",
            "1.5GiB",
            "-1",
            "1 parsec",
            "99999999999T",
            "99999999999999999999",
        ] {
            assert!(size(text).unwrap_err().contains("16MiB"), "{text}");
        }
    }

    #[test]
    fn shares() {
        for (text, value) in [
            ("0%", 0.0),
            ("1%", 0.01),
            ("0.5%", 0.005),
            ("7 %", 0.07),
            ("100%", 1.0),
            ("0.25", 0.25),
            ("1.0", 1.0),
            ("0", 0.0),
        ] {
            assert_eq!(share(text), Ok(value), "{text}");
            assert_eq!(share(&show_share(value)), Ok(value), "{text}");
        }
        assert_eq!(show_share(0.01), "1%");
        for (text, why) in [
            ("1", "say `1%` or `100%`"),
            ("5", "more than 100%"),
            ("101%", "more than 100%"),
            ("-1%", "a number"),
            ("nan", "a number"),
            ("%", "a number"),
            ("1e-3", "a number"),
        ] {
            let error = share(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
