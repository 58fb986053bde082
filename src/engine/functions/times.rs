//! Functions of dates and times. A time with a zone counts by the wall clock of that zone.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Float64Array, Int64Array, StringArray};
use arrow::array::{TimestampMicrosecondArray, TimestampMillisecondArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime};
use datafusion::common::{Result, exec_err, plan_err};

use crate::engine::instants::{floored_array, is_utc};

use super::formats::{self, Language, Stamp};
use super::{Coercion, Definition, Given, Kind, Last, gives_bigint, gives_double, gives_text};
use crate::time::{Zone, Zones};

/// Microseconds of a second and of a day.
const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

const fn field(name: &'static str) -> Definition {
    Definition {
        name,
        takes: Coercion::Kinds(1, &[Kind::Time]),
        gives: gives_bigint,
        make: fields,
    }
}

const fn text(name: &'static str, make: fn(&Given<'_>) -> Result<ArrayRef>) -> Definition {
    Definition {
        name,
        takes: Coercion::Kinds(2, &[Kind::Time, Kind::Text]),
        gives: gives_text,
        make,
    }
}

const fn read(
    name: &'static str,
    kinds: &'static [Kind],
    gives: fn(&[DataType]) -> Result<DataType>,
) -> Definition {
    Definition {
        name,
        takes: Coercion::Kinds(kinds.len(), kinds),
        gives,
        make: read_times,
    }
}

const TEXTS: &[Kind] = &[Kind::Text, Kind::Text];

pub(super) const FUNCTIONS: &[Definition] = &[
    field("year"),
    field("quarter"),
    field("month"),
    field("week"),
    field("week_of_year"),
    field("year_of_week"),
    field("yow"),
    field("day"),
    field("day_of_month"),
    field("day_of_week"),
    field("dow"),
    field("day_of_year"),
    field("doy"),
    field("hour"),
    field("minute"),
    field("second"),
    field("millisecond"),
    Definition {
        name: "date_trunc",
        takes: Coercion::Kinds(2, &[Kind::Text, Kind::Time]),
        gives: gives_second,
        make: truncated,
    },
    Definition {
        name: "date_diff",
        takes: Coercion::Kinds(3, &[Kind::Text, Kind::Time, Kind::Time]),
        gives: gives_bigint,
        make: differences,
    },
    Definition {
        name: "date_add",
        takes: Coercion::Kinds(3, &[Kind::Text, Kind::Integer, Kind::Time]),
        gives: gives_third,
        make: sums,
    },
    Definition {
        name: "last_day_of_month",
        takes: Coercion::Kinds(1, &[Kind::Time]),
        gives: gives_date,
        make: last_days,
    },
    text("date_format", written),
    text("format_datetime", written),
    Definition {
        name: "to_iso8601",
        takes: Coercion::Kinds(1, &[Kind::Time]),
        gives: gives_text,
        make: iso_texts,
    },
    read("date_parse", TEXTS, gives_naive),
    read("try_date_parse", TEXTS, gives_naive),
    read("parse_datetime", TEXTS, gives_instant),
    read("try_parse_datetime", TEXTS, gives_instant),
    read("from_iso8601_timestamp", &[Kind::Text], gives_instant),
    read("try_from_iso8601_timestamp", &[Kind::Text], gives_instant),
    read("from_iso8601_date", &[Kind::Text], gives_date),
    read("try_from_iso8601_date", &[Kind::Text], gives_date),
    Definition {
        name: "from_unixtime",
        takes: Coercion::Kinds(1, &[Kind::Double]),
        gives: gives_instant,
        make: from_seconds,
    },
    Definition {
        name: "to_unixtime",
        takes: Coercion::Kinds(1, &[Kind::Time]),
        gives: gives_double,
        make: to_seconds,
    },
];

fn nth(kinds: &[DataType], n: usize) -> Result<DataType> {
    match kinds.get(n) {
        Some(kind) => Ok(kind.clone()),
        None => plan_err!("an argument is missing"),
    }
}

fn gives_second(kinds: &[DataType]) -> Result<DataType> {
    nth(kinds, 1)
}

fn gives_third(kinds: &[DataType]) -> Result<DataType> {
    nth(kinds, 2)
}

fn gives_date(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::Date32)
}

fn gives_naive(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::Timestamp(TimeUnit::Millisecond, None))
}

fn gives_instant(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::Timestamp(
        TimeUnit::Millisecond,
        Some("UTC".into()),
    ))
}

/// The clock of a time zone.
#[derive(Clone, Copy)]
enum Clock {
    Zone(Zone),
    /// So many seconds east of UTC.
    Fixed(i64),
}

impl Clock {
    /// Seconds east of UTC at an instant, in seconds since 1970 UTC.
    fn offset_at(self, seconds: i64) -> i64 {
        match self {
            Self::Zone(zone) => zone.offset_at(seconds),
            Self::Fixed(offset) => offset,
        }
    }

    /// Seconds east of UTC of a wall clock, in seconds since 1970-01-01 00:00.
    fn offset_of(self, wall: i64) -> i64 {
        match self {
            Self::Zone(zone) => zone.offset_of(wall).unwrap_or_else(|| zone.offset_at(wall)),
            Self::Fixed(offset) => offset,
        }
    }
}

/// The clock of the time zone of a type; `None` where its times are in UTC or have no zone.
fn clock_of(kind: &DataType) -> Result<Option<Clock>> {
    let DataType::Timestamp(_, Some(name)) = kind else {
        return Ok(None);
    };
    if is_utc(name) {
        return Ok(None);
    }
    match (name.parse::<Zone>(), formats::offset(name)) {
        (Ok(zone), _) => Ok(Some(Clock::Zone(zone))),
        (Err(_), Some((offset, ""))) => Ok(Some(Clock::Fixed(offset))),
        (Err(_), _) => exec_err!("Invalid timezone \"{name}\""),
    }
}

/// Times as microseconds of UTC since 1970.
fn instants(times: &ArrayRef) -> Result<TimestampMicrosecondArray> {
    let kind = DataType::Timestamp(TimeUnit::Microsecond, None);
    let times = match times.data_type() {
        // A cast cuts towards 1970.
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            floored_array(times, crate::time::TimeUnit::Us)
        }
        _ => Arc::clone(times),
    };
    Ok(cast(&times, &kind)?
        .as_primitive::<TimestampMicrosecondType>()
        .clone())
}

/// The wall clocks of times, in microseconds since 1970-01-01 00:00.
fn walls(times: &ArrayRef) -> Result<TimestampMicrosecondArray> {
    let clock = clock_of(times.data_type())?;
    let instants = instants(times)?;
    Ok(match clock {
        None => instants,
        Some(clock) => instants
            .unary(|time| time.saturating_add(clock.offset_at(time.div_euclid(SECOND)) * SECOND)),
    })
}

/// The array of a type whose wall clocks are given, in microseconds.
fn of_walls(walls: Vec<Option<i64>>, kind: &DataType) -> Result<ArrayRef> {
    let clock = clock_of(kind)?;
    let instants = walls.into_iter().map(|wall| match (wall, clock) {
        (Some(wall), Some(clock)) => Some(wall - clock.offset_of(wall.div_euclid(SECOND)) * SECOND),
        (wall, _) => wall,
    });
    of_instants(instants.collect(), kind)
}

/// The array of a type whose microseconds of UTC are given.
fn of_instants(instants: Vec<Option<i64>>, kind: &DataType) -> Result<ArrayRef> {
    if *kind == DataType::Date32 {
        let days = instants.into_iter().map(|time| {
            let days = time.map(|time| time.div_euclid(DAY));
            days.map(i32::try_from).transpose()
        });
        let days = days.collect::<std::result::Result<Date32Array, _>>();
        return match days {
            Ok(days) => Ok(Arc::new(days)),
            Err(_) => exec_err!("Date arithmetic overflow"),
        };
    }
    let times = TimestampMicrosecondArray::from(instants);
    let DataType::Timestamp(_, zone) = kind else {
        return plan_err!("{kind} is no time");
    };
    let times: ArrayRef = Arc::new(times.with_timezone_opt(zone.clone()));
    Ok(match kind {
        DataType::Timestamp(TimeUnit::Microsecond, _) => times,
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            let times = times.as_primitive::<TimestampMicrosecondType>();
            let made: TimestampMillisecondArray =
                times.unary::<_, TimestampMillisecondType>(|time| time.div_euclid(1000));
            Arc::new(made.with_timezone_opt(zone.clone()))
        }
        _ => cast(&times, kind)?,
    })
}

/// A wall clock as a date and a time of day.
fn naive(wall: i64) -> Result<NaiveDateTime> {
    match DateTime::from_timestamp_micros(wall) {
        Some(time) => Ok(time.naive_utc()),
        None => exec_err!("Timestamp out of range"),
    }
}

fn midnight(date: Option<NaiveDate>) -> Result<i64> {
    match date.and_then(|date| date.and_hms_opt(0, 0, 0)) {
        Some(time) => Ok(time.and_utc().timestamp_micros()),
        None => exec_err!("Date arithmetic overflow"),
    }
}

/// A unit of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// So many microseconds, at most an hour.
    Clock(i64),
    /// So many days.
    Days(i64),
    /// So many months.
    Months(i32),
}

impl Unit {
    fn of(name: &str, function: &str) -> Result<Self> {
        Ok(match name.to_ascii_lowercase().as_str() {
            "millisecond" => Self::Clock(1000),
            "second" => Self::Clock(SECOND),
            "minute" => Self::Clock(60 * SECOND),
            "hour" => Self::Clock(3600 * SECOND),
            "day" => Self::Days(1),
            "week" => Self::Days(7),
            "month" => Self::Months(1),
            "quarter" => Self::Months(3),
            "year" => Self::Months(12),
            _ => return exec_err!("`{function}()` has no unit '{name}'"),
        })
    }

    /// Refuses parts of a day for dates.
    fn of_kind(self, kind: &DataType, function: &str) -> Result<Self> {
        match (self, kind) {
            (Self::Clock(_), DataType::Date32) => exec_err!(
                "`{function}()` of a date takes a day or a longer unit: CAST the date to timestamp"
            ),
            _ => Ok(self),
        }
    }
}

/// Checks a unit that is written in the SQL.
///
/// # Errors
/// There is no such unit.
pub(in crate::engine) fn check_unit(name: &str, function: &str) -> Result<(), String> {
    match Unit::of(name, function) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.message().into_owned()),
    }
}

fn truncated(given: &Given<'_>) -> Result<ArrayRef> {
    let (units, times) = (given.text(0)?, given.array(1)?);
    let mut last = Last::new();
    let walls = walls(times)?;
    let made = units.iter().zip(&walls).map(|(unit, wall)| {
        let (Some(unit), Some(wall)) = (unit, wall) else {
            return Ok(None);
        };
        let unit = *last.of(unit, |unit| {
            Unit::of(unit, given.name)?.of_kind(times.data_type(), given.name)
        })?;
        floor(unit, wall).map(Some)
    });
    of_walls(made.collect::<Result<_>>()?, times.data_type())
}

fn floor(unit: Unit, wall: i64) -> Result<i64> {
    match unit {
        Unit::Clock(length) => Ok(wall - wall.rem_euclid(length)),
        Unit::Days(1) => Ok(wall - wall.rem_euclid(DAY)),
        Unit::Days(_) => {
            // 1970-01-01 was a Thursday.
            let day = wall.div_euclid(DAY);
            Ok((day - (day + 3).rem_euclid(7)) * DAY)
        }
        Unit::Months(months) => {
            let date = naive(wall)?.date();
            let months = u32::try_from(months).unwrap_or(1);
            let month = date.month0() / months * months + 1;
            midnight(NaiveDate::from_ymd_opt(date.year(), month, 1))
        }
    }
}

fn differences(given: &Given<'_>) -> Result<ArrayRef> {
    let units = given.text(0)?;
    let (first, second) = (given.array(1)?, given.array(2)?);
    let both_dates = [first, second].map(|times| *times.data_type() == DataType::Date32);
    let kind = match both_dates {
        [true, true] => DataType::Date32,
        _ => DataType::Timestamp(TimeUnit::Microsecond, None),
    };
    let mut last = Last::new();
    let (first_walls, second_walls) = (walls(first)?, walls(second)?);
    let (first, second) = (instants(first)?, instants(second)?);
    let made = (0..given.rows).map(|row| {
        if units.is_null(row) || first.is_null(row) || second.is_null(row) {
            return Ok(None);
        }
        let unit = *last.of(units.value(row), |unit| {
            Unit::of(unit, given.name)?.of_kind(&kind, given.name)
        })?;
        Ok(Some(match unit {
            Unit::Clock(length) => second.value(row).saturating_sub(first.value(row)) / length,
            Unit::Days(days) => {
                let between = second_walls
                    .value(row)
                    .saturating_sub(first_walls.value(row));
                between / (days * DAY)
            }
            Unit::Months(months) => {
                let (from, to) = (
                    naive(first_walls.value(row))?,
                    naive(second_walls.value(row))?,
                );
                match from <= to {
                    true => months_between(from, to) / i64::from(months),
                    false => -(months_between(to, from) / i64::from(months)),
                }
            }
        }))
    });
    Ok(Arc::new(made.collect::<Result<Int64Array>>()?))
}

/// The whole months from a time to a later time. The last day of a month is as late as any later day.
fn months_between(from: NaiveDateTime, to: NaiveDateTime) -> i64 {
    let months = |time: &NaiveDateTime| i64::from(time.year()) * 12 + i64::from(time.month0());
    let last = days_of_month(to.date());
    let day = match to.day() == last {
        true => from.day().min(last),
        false => from.day(),
    };
    let whole = months(&to) - months(&from);
    match (day, from.time()) > (to.day(), to.time()) {
        true => whole - 1,
        false => whole,
    }
}

fn days_of_month(date: NaiveDate) -> u32 {
    u32::from(date.num_days_in_month())
}

fn sums(given: &Given<'_>) -> Result<ArrayRef> {
    let (units, numbers, times) = (given.text(0)?, given.integers(1)?, given.array(2)?);
    let kind = times.data_type();
    let mut last = Last::new();
    let (clocks, walls) = (instants(times)?, walls(times)?);
    let mut by_clock = Vec::with_capacity(given.rows);
    let mut by_wall = Vec::with_capacity(given.rows);
    for row in 0..given.rows {
        let (mut clock, mut wall) = (None, None);
        if units.is_valid(row) && numbers.is_valid(row) && walls.is_valid(row) {
            let unit = *last.of(units.value(row), |unit| {
                Unit::of(unit, given.name)?.of_kind(kind, given.name)
            })?;
            let number = numbers.value(row);
            match unit {
                Unit::Clock(length) => clock = Some(moved(clocks.value(row), number, length)?),
                Unit::Days(days) => wall = Some(moved(walls.value(row), number, days * DAY)?),
                Unit::Months(months) => {
                    wall = Some(months_later(walls.value(row), number, months)?);
                }
            }
        }
        by_clock.push(clock);
        by_wall.push(wall);
    }
    let (clocks, walls) = (of_instants(by_clock, kind)?, of_walls(by_wall, kind)?);
    let is_clock = clocks.nulls().map(|nulls| nulls.inner().clone());
    match is_clock {
        None => Ok(clocks),
        Some(valid) => {
            let mask = arrow::array::BooleanArray::new(valid, None);
            Ok(arrow::compute::kernels::zip::zip(&mask, &clocks, &walls)?)
        }
    }
}

fn moved(time: i64, number: i64, length: i64) -> Result<i64> {
    let moved = number
        .checked_mul(length)
        .and_then(|distance| time.checked_add(distance));
    match moved {
        Some(moved) => Ok(moved),
        None => exec_err!("Timestamp out of range"),
    }
}

fn months_later(wall: i64, number: i64, months: i32) -> Result<i64> {
    let time = naive(wall)?;
    let moved = number
        .checked_mul(i64::from(months))
        .and_then(|months| i32::try_from(months).ok())
        .and_then(|months| match u32::try_from(months) {
            Ok(months) => time.checked_add_months(chrono::Months::new(months)),
            Err(_) => time.checked_sub_months(chrono::Months::new(months.unsigned_abs())),
        });
    match moved {
        Some(moved) => Ok(moved.and_utc().timestamp_micros()),
        None => exec_err!("Timestamp out of range"),
    }
}

fn last_days(given: &Given<'_>) -> Result<ArrayRef> {
    let walls = walls(given.array(0)?)?;
    let made = walls.iter().map(|wall| {
        let Some(wall) = wall else { return Ok(None) };
        let date = naive(wall)?.date();
        midnight(date.with_day(days_of_month(date))).map(Some)
    });
    of_instants(made.collect::<Result<_>>()?, &DataType::Date32)
}

fn fields(given: &Given<'_>) -> Result<ArrayRef> {
    let walls = walls(given.array(0)?)?;
    let made = walls.iter().map(|wall| {
        let Some(wall) = wall else { return Ok(None) };
        let of_day = wall.rem_euclid(DAY);
        let clock = |length: i64, most: i64| of_day / length % most;
        let date = || naive(wall).map(|time| time.date());
        Ok(Some(match given.name {
            "hour" => clock(3600 * SECOND, 24),
            "minute" => clock(60 * SECOND, 60),
            "second" => clock(SECOND, 60),
            "millisecond" => clock(1000, 1000),
            "year" => i64::from(date()?.year()),
            "quarter" => i64::from(date()?.month0() / 3 + 1),
            "month" => i64::from(date()?.month()),
            "week" | "week_of_year" => i64::from(date()?.iso_week().week()),
            "year_of_week" | "yow" => i64::from(date()?.iso_week().year()),
            "day_of_week" | "dow" => i64::from(date()?.weekday().number_from_monday()),
            "day_of_year" | "doy" => i64::from(date()?.ordinal()),
            _ => i64::from(date()?.day()),
        }))
    });
    Ok(Arc::new(made.collect::<Result<Int64Array>>()?))
}

/// The language of the patterns of a function.
fn language(function: &str) -> Language {
    match function.contains("datetime") {
        true => Language::Joda,
        false => Language::MySql,
    }
}

fn written(given: &Given<'_>) -> Result<ArrayRef> {
    let (times, patterns) = (given.array(0)?, given.text(1)?);
    let (clocks, walls) = (instants(times)?, walls(times)?);
    let mut last = Last::new();
    let made = (0..given.rows).map(|row| {
        if walls.is_null(row) || patterns.is_null(row) {
            return Ok(None);
        }
        let pattern = last.of(patterns.value(row), |pattern| {
            formats::parse(pattern, language(given.name))
        })?;
        let wall = walls.value(row);
        let stamp = Stamp {
            time: naive(wall)?,
            offset: (wall - clocks.value(row)) / SECOND,
        };
        Ok(Some(formats::write(pattern, &stamp)))
    });
    Ok(Arc::new(made.collect::<Result<StringArray>>()?))
}

fn iso_texts(given: &Given<'_>) -> Result<ArrayRef> {
    let times = given.array(0)?;
    let is_date = *times.data_type() == DataType::Date32;
    let has_zone = clock_of(times.data_type())?.is_some();
    let (clocks, walls) = (instants(times)?, walls(times)?);
    let made = (0..given.rows).map(|row| {
        if walls.is_null(row) {
            return Ok(None);
        }
        let wall = walls.value(row);
        let time = naive(wall)?;
        let offset = (wall - clocks.value(row)) / 60 / SECOND;
        Ok(Some(match (is_date, has_zone) {
            (true, _) => time.format("%Y-%m-%d").to_string(),
            (false, false) => time.format("%Y-%m-%dT%H:%M:%S%.3f").to_string(),
            (false, true) => {
                let sign = if offset < 0 { '-' } else { '+' };
                let (hours, minutes) = (offset.abs() / 60, offset.abs() % 60);
                let time = time.format("%Y-%m-%dT%H:%M:%S%.3f");
                format!("{time}{sign}{hours:02}:{minutes:02}")
            }
        }))
    });
    Ok(Arc::new(made.collect::<Result<StringArray>>()?))
}

/// Reads texts as times. A text that cannot be read is an error, or NULL where the name begins with `try_`.
fn read_times(given: &Given<'_>) -> Result<ArrayRef> {
    let texts = given.text(0)?;
    let patterns = match given.len() {
        2 => Some(given.text(1)?),
        _ => None,
    };
    let function = given.name.strip_prefix("try_").unwrap_or(given.name);
    let lenient = function != given.name;
    let mut last = Last::new();
    let made = (0..given.rows).map(|row| {
        let missing = patterns.is_some_and(|patterns| patterns.is_null(row));
        if texts.is_null(row) || missing {
            return Ok(None);
        }
        let text = texts.value(row);
        let found = match patterns {
            None => iso_time(text, function),
            Some(patterns) => {
                let pattern = last.of(patterns.value(row), |pattern| {
                    formats::parse(pattern, language(function))
                })?;
                formats::read(pattern, text)
            }
        };
        match found {
            None if !lenient => exec_err!("`{function}()` cannot read '{text}'"),
            found => Ok(found),
        }
    });
    of_instants(made.collect::<Result<_>>()?, given.kind)
}

/// The microseconds of UTC of a text in ISO 8601.
fn iso_time(text: &str, function: &str) -> Option<i64> {
    if function == "from_iso8601_date" {
        let is_date = text.len() >= 10 && !text.contains([' ', 'T', ':']);
        let days = is_date.then(|| crate::time::read_date(text)).flatten()?;
        return Some(i64::from(days) * DAY);
    }
    if text.contains(' ') {
        return None;
    }
    match text.contains('T') {
        true => {
            let zones = Zones {
                naive: Some(Zone(chrono_tz::UTC)),
                epoch: None,
            };
            crate::time::read_time(text, crate::time::TimeUnit::Us, zones)
        }
        false => crate::time::read_date(text).map(|days| i64::from(days) * DAY),
    }
}

fn from_seconds(given: &Given<'_>) -> Result<ArrayRef> {
    let made = given.doubles(0)?.iter().map(|seconds| {
        let Some(seconds) = seconds else {
            return Ok(None);
        };
        let milliseconds = (seconds * 1000.0).round();
        match milliseconds.abs() < 9e15 {
            true => Ok(Some(milliseconds as i64 * 1000)),
            false => exec_err!("Timestamp out of range"),
        }
    });
    of_instants(made.collect::<Result<_>>()?, given.kind)
}

fn to_seconds(given: &Given<'_>) -> Result<ArrayRef> {
    let times = given.array(0)?;
    // A date has the seconds of its midnight.
    let times = match times.data_type() {
        DataType::Date32 => {
            let days = times.as_primitive::<Date32Type>();
            Arc::new(days.unary::<_, TimestampMicrosecondType>(|day| i64::from(day) * DAY))
        }
        _ => Arc::clone(times),
    };
    let made = instants(&times)?
        .unary::<_, arrow::datatypes::Float64Type>(|time| time as f64 / SECOND as f64);
    let made: Float64Array = made;
    Ok(Arc::new(made))
}
