//! Patterns of dates and times: those of MySQL (`%Y-%m-%d`), which `date_format` and `date_parse` take, and those of
//! Joda (`yyyy-MM-dd`), which `format_datetime` and `parse_datetime` take.
//!
//! ```text
//! pattern ──parse()──▶ parts ──write()──▶ text
//!                        └────read()────▶ microseconds of UTC
//! ```

use std::fmt::Write;

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike, Weekday};
use datafusion::common::{Result, exec_err};

/// The language of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Language {
    MySql,
    Joda,
}

/// A part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Literal(String),
    /// A number with at least so many digits.
    Number(Field, usize),
    /// So many digits of the fraction of a second.
    Fraction(usize),
    /// The last two digits of the year.
    ShortYear,
    /// The name of the month, or its first three letters.
    Month {
        short: bool,
    },
    /// The name of the day of the week, or its first three letters.
    Weekday {
        short: bool,
    },
    /// AM or PM.
    Half,
    /// The offset from UTC, such as `+0900` or `+09:00`.
    Offset {
        colon: bool,
    },
}

/// A field that is written as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Year,
    Month,
    Day,
    Hour,
    /// 1 to 12.
    HourOfHalf,
    Minute,
    Second,
    DayOfYear,
    /// 1 is Monday.
    DayOfWeek,
    Week,
    YearOfWeek,
}

/// A time to be written.
pub(super) struct Stamp {
    /// The wall clock.
    pub time: NaiveDateTime,
    /// Seconds east of UTC.
    pub offset: i64,
}

/// Checks a pattern that is written in the SQL.
///
/// # Errors
/// The pattern has a letter without a meaning here.
pub(in crate::engine) fn check_format(pattern: &str, language: Language) -> Result<(), String> {
    match parse(pattern, language) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.message().into_owned()),
    }
}

/// The parts of a pattern.
pub(super) fn parse(pattern: &str, language: Language) -> Result<Vec<Part>> {
    match language {
        Language::MySql => mysql(pattern),
        Language::Joda => joda(pattern),
    }
}

fn mysql(pattern: &str) -> Result<Vec<Part>> {
    use Field as F;
    let mut parts = Vec::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            literal(&mut parts, letter);
            continue;
        }
        let part = match letters.next() {
            Some('a') => Part::Weekday { short: true },
            Some('b') => Part::Month { short: true },
            Some('c') => Part::Number(F::Month, 1),
            Some('d') => Part::Number(F::Day, 2),
            Some('e') => Part::Number(F::Day, 1),
            Some('f') => Part::Fraction(6),
            Some('H') => Part::Number(F::Hour, 2),
            Some('h' | 'I') => Part::Number(F::HourOfHalf, 2),
            Some('i') => Part::Number(F::Minute, 2),
            Some('j') => Part::Number(F::DayOfYear, 3),
            Some('k') => Part::Number(F::Hour, 1),
            Some('l') => Part::Number(F::HourOfHalf, 1),
            Some('M') => Part::Month { short: false },
            Some('m') => Part::Number(F::Month, 2),
            Some('p') => Part::Half,
            Some('r') => {
                parts.extend(mysql("%I:%i:%S %p")?);
                continue;
            }
            Some('S' | 's') => Part::Number(F::Second, 2),
            Some('T') => {
                parts.extend(mysql("%H:%i:%S")?);
                continue;
            }
            Some('v') => Part::Number(F::Week, 2),
            Some('x') => Part::Number(F::YearOfWeek, 4),
            Some('W') => Part::Weekday { short: false },
            Some('Y') => Part::Number(F::Year, 4),
            Some('y') => Part::ShortYear,
            Some('%') => {
                literal(&mut parts, '%');
                continue;
            }
            other => {
                let other = other.map_or(String::new(), String::from);
                return exec_err!(
                    "the pattern '{pattern}' has `%{other}`, which Athena does not read: the minute is %i, the hour %H, the second %s"
                );
            }
        };
        parts.push(part);
    }
    Ok(parts)
}

fn joda(pattern: &str) -> Result<Vec<Part>> {
    use Field as F;
    let mut parts = Vec::new();
    let letters: Vec<char> = pattern.chars().collect();
    let mut at = 0;
    while let Some(letter) = letters.get(at).copied() {
        if letter == '\'' {
            at = quoted(&letters, at, &mut parts);
            continue;
        }
        let count = letters
            .iter()
            .skip(at)
            .take_while(|next| **next == letter)
            .count();
        at += count;
        let part = match (letter, count) {
            ('y' | 'Y', 2) => Part::ShortYear,
            ('y' | 'Y', _) => Part::Number(F::Year, count),
            ('M', 1 | 2) => Part::Number(F::Month, count),
            ('M', _) => Part::Month { short: count == 3 },
            ('d', _) => Part::Number(F::Day, count),
            ('D', _) => Part::Number(F::DayOfYear, count),
            ('H', _) => Part::Number(F::Hour, count),
            ('h', _) => Part::Number(F::HourOfHalf, count),
            ('m', _) => Part::Number(F::Minute, count),
            ('s', _) => Part::Number(F::Second, count),
            ('S', _) => Part::Fraction(count),
            ('a', _) => Part::Half,
            ('E', _) => Part::Weekday { short: count <= 3 },
            ('e', _) => Part::Number(F::DayOfWeek, count),
            ('w', _) => Part::Number(F::Week, count),
            ('x', _) => Part::Number(F::YearOfWeek, count),
            ('Z', 1 | 2) => Part::Offset { colon: count == 2 },
            (letter, _) if letter.is_ascii_alphabetic() => {
                return exec_err!(
                    "the pattern '{pattern}' has the letter `{letter}`, which has no meaning here: put a text into quotes, such as `''{letter}''`"
                );
            }
            (letter, count) => {
                (0..count).for_each(|_| literal(&mut parts, letter));
                continue;
            }
        };
        parts.push(part);
    }
    Ok(parts)
}

/// Reads a text in quotes from its first quote on, and gives the place behind it. Two quotes are one quote.
fn quoted(letters: &[char], start: usize, parts: &mut Vec<Part>) -> usize {
    let mut at = start + 1;
    if letters.get(at) == Some(&'\'') {
        literal(parts, '\'');
        return at + 1;
    }
    while let Some(letter) = letters.get(at) {
        match (letter, letters.get(at + 1)) {
            ('\'', Some('\'')) => {
                literal(parts, '\'');
                at += 2;
            }
            ('\'', _) => return at + 1,
            (letter, _) => {
                literal(parts, *letter);
                at += 1;
            }
        }
    }
    at
}

fn literal(parts: &mut Vec<Part>, letter: char) {
    match parts.last_mut() {
        Some(Part::Literal(text)) => text.push(letter),
        _ => parts.push(Part::Literal(letter.to_string())),
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const WEEKDAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];

fn name(names: &[&'static str], at: u32, short: bool) -> &'static str {
    let name = names.get(at as usize).copied().unwrap_or_default();
    match short {
        true => name.get(..3).unwrap_or(name),
        false => name,
    }
}

/// The text of a time.
pub(super) fn write(parts: &[Part], stamp: &Stamp) -> String {
    let time = &stamp.time;
    let mut text = String::new();
    for part in parts {
        let written = match part {
            Part::Literal(literal) => {
                text.push_str(literal);
                Ok(())
            }
            Part::Number(field, digits) => {
                let number = number(*field, time);
                write!(text, "{number:0digits$}")
            }
            Part::Fraction(digits) => {
                let all = format!("{:09}", time.nanosecond() % 1_000_000_000);
                let kept = all.get(..(*digits).min(9)).unwrap_or(&all);
                write!(text, "{kept:0<digits$}")
            }
            Part::ShortYear => write!(text, "{:02}", time.year().rem_euclid(100)),
            Part::Month { short } => write!(text, "{}", name(&MONTHS, time.month0(), *short)),
            Part::Weekday { short } => {
                let day = time.weekday().num_days_from_monday();
                write!(text, "{}", name(&WEEKDAYS, day, *short))
            }
            Part::Half => write!(text, "{}", if time.hour() < 12 { "AM" } else { "PM" }),
            Part::Offset { colon } => {
                let sign = if stamp.offset < 0 { '-' } else { '+' };
                let minutes = stamp.offset.abs() / 60;
                let colon = if *colon { ":" } else { "" };
                write!(text, "{sign}{:02}{colon}{:02}", minutes / 60, minutes % 60)
            }
        };
        // Writing to a text does not fail.
        debug_assert!(written.is_ok());
    }
    text
}

fn number(field: Field, time: &NaiveDateTime) -> i64 {
    match field {
        Field::Year => i64::from(time.year()),
        Field::Month => i64::from(time.month()),
        Field::Day => i64::from(time.day()),
        Field::Hour => i64::from(time.hour()),
        Field::HourOfHalf => i64::from(time.hour12().1),
        Field::Minute => i64::from(time.minute()),
        Field::Second => i64::from(time.second()),
        Field::DayOfYear => i64::from(time.ordinal()),
        Field::DayOfWeek => i64::from(time.weekday().number_from_monday()),
        Field::Week => i64::from(time.iso_week().week()),
        Field::YearOfWeek => i64::from(time.iso_week().year()),
    }
}

/// What a text says of a time.
#[derive(Default)]
struct Said {
    numbers: Vec<(Field, i64)>,
    microseconds: i64,
    afternoon: Option<bool>,
    offset: i64,
}

impl Said {
    fn number(&self, field: Field) -> Option<i64> {
        let said = self.numbers.iter().rev();
        let mut said = said.filter(|(other, _)| *other == field);
        said.next().map(|(_, number)| *number)
    }

    /// The microseconds of UTC since 1970; `None` where there is no such time.
    fn time(&self) -> Option<i64> {
        let number = |field, missing| self.number(field).unwrap_or(missing);
        let small = |number: i64| u32::try_from(number).ok();
        let year = i32::try_from(number(Field::Year, 1970)).ok()?;
        let date = match (self.number(Field::DayOfYear), self.number(Field::Week)) {
            (Some(day), _) => NaiveDate::from_yo_opt(year, small(day)?)?,
            (None, Some(week)) => {
                let year = i32::try_from(number(Field::YearOfWeek, 1970)).ok()?;
                let day = u8::try_from(number(Field::DayOfWeek, 1) - 1).ok()?;
                NaiveDate::from_isoywd_opt(year, small(week)?, Weekday::try_from(day).ok()?)?
            }
            (None, None) => {
                let month = small(number(Field::Month, 1))?;
                NaiveDate::from_ymd_opt(year, month, small(number(Field::Day, 1))?)?
            }
        };
        let hour = match (self.number(Field::Hour), self.number(Field::HourOfHalf)) {
            (Some(hour), _) => hour,
            (None, Some(hour)) if (1..=12).contains(&hour) => {
                hour % 12 + if self.afternoon == Some(true) { 12 } else { 0 }
            }
            (None, Some(_)) => return None,
            (None, None) => 0,
        };
        let minute = small(number(Field::Minute, 0))?;
        let second = small(number(Field::Second, 0))?;
        let time = NaiveTime::from_hms_opt(small(hour)?, minute, second)?;
        let seconds = date.and_time(time).and_utc().timestamp() - self.offset;
        seconds
            .checked_mul(1_000_000)?
            .checked_add(self.microseconds)
    }
}

/// The microseconds of UTC since 1970 that a text says; `None` where it does not follow the pattern. Without an offset,
/// the text is in UTC.
pub(super) fn read(parts: &[Part], text: &str) -> Option<i64> {
    let mut said = Said::default();
    let mut rest = text;
    for (at, part) in parts.iter().enumerate() {
        let is_number_next = matches!(
            parts.get(at + 1),
            Some(Part::Number(..) | Part::Fraction(_) | Part::ShortYear)
        );
        rest = match part {
            Part::Literal(literal) => rest.strip_prefix(literal.as_str())?,
            Part::Number(field, digits) => {
                let most = match field {
                    _ if is_number_next => *digits,
                    Field::Year | Field::YearOfWeek => 9,
                    Field::DayOfYear => 3,
                    _ => 2,
                };
                let (number, rest) = digits_of(rest, most)?;
                said.numbers.push((*field, number.parse().ok()?));
                rest
            }
            Part::Fraction(digits) => {
                let most = if is_number_next { *digits } else { 9 };
                let (number, rest) = digits_of(rest, most)?;
                said.microseconds = format!("{number:0<6}").get(..6)?.parse().ok()?;
                rest
            }
            Part::ShortYear => {
                let (number, rest) = digits_of(rest, 2)?;
                let number: i64 = number.parse().ok()?;
                let century = if number < 70 { 2000 } else { 1900 };
                said.numbers.push((Field::Year, century + number));
                rest
            }
            Part::Month { short } => {
                let (month, rest) = named(rest, &MONTHS, *short)?;
                said.numbers.push((Field::Month, month + 1));
                rest
            }
            Part::Weekday { short } => {
                let (day, rest) = named(rest, &WEEKDAYS, *short)?;
                said.numbers.push((Field::DayOfWeek, day + 1));
                rest
            }
            Part::Half => {
                let (half, rest) = named(rest, &["AM", "PM"], false)?;
                said.afternoon = Some(half == 1);
                rest
            }
            Part::Offset { .. } => {
                let (offset, rest) = match rest.strip_prefix('Z') {
                    Some(rest) => (0, rest),
                    None => offset(rest)?,
                };
                said.offset = offset;
                rest
            }
        };
    }
    rest.is_empty().then(|| said.time()).flatten()
}

/// One digit or more at the beginning of a text, at most so many.
fn digits_of(text: &str, most: usize) -> Option<(&str, &str)> {
    let digits = text.bytes().take(most).take_while(u8::is_ascii_digit);
    match digits.count() {
        0 => None,
        count => text.split_at_checked(count),
    }
}

/// The place of the name at the beginning of a text. Capitals make no difference.
fn named<'a>(text: &'a str, names: &[&'static str], short: bool) -> Option<(i64, &'a str)> {
    (0_u32..).zip(names).find_map(|(at, _)| {
        let name = name(names, at, short);
        let (head, rest) = text.split_at_checked(name.len())?;
        head.eq_ignore_ascii_case(name)
            .then_some((i64::from(at), rest))
    })
}

/// The seconds of an offset such as `+09:00`, `+0900` or `+09` at the beginning of a text.
pub(super) fn offset(text: &str) -> Option<(i64, &str)> {
    let sign = match text.bytes().next()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, rest) = digits_of(text.get(1..)?, 2)?;
    let behind = rest.strip_prefix(':').unwrap_or(rest);
    let (minutes, rest) = match digits_of(behind, 2) {
        Some((minutes, rest)) if minutes.len() == 2 => (minutes.parse::<i64>().ok()?, rest),
        _ => (0, rest),
    };
    let seconds = hours.parse::<i64>().ok()? * 3600 + minutes * 60;
    (minutes < 60 && seconds <= 18 * 3600).then_some((sign * seconds, rest))
}
