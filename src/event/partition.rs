//! The partition of an event, by its event time, and the slice within the partition.
//!
//! ```text
//! event time ──▶ local date (and hour) in the lake's zone ──▶ partition
//!            └─▶ (t − partition's first instant) / slice   ──▶ slice number
//! ```
//!
//! Slices are counted from the first instant of their partition. A slice of `1d` also holds a day of 25 hours
//! as a whole, so there is no second file with one hour.

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, Timelike};
use serde::{Deserialize, Serialize};

use crate::layout;
use crate::time::{TimeUnit, Zone};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const DAYS_BEFORE_CE: i64 = 1 << 27;

/// How fine the partitions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartitionBy {
    /// One partition for each date: `dt=2019-04-02`.
    #[default]
    Day,
    /// One partition for each hour: `dt=2019-04-02/hour=09`.
    Hour,
}

/// The rule that gives every event time its partition and slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slicing {
    /// The zone whose dates and hours the partitions are.
    pub timezone: Zone,
    /// How fine the partitions are.
    pub by: PartitionBy,
    /// The span of event time of one data file, in milliseconds.
    pub slice_ms: i64,
}

/// One slice of one partition. Each table has one data file for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The date in the lake's zone.
    pub date: NaiveDate,
    /// The hour in the lake's zone, 0 to 23. `None` where partitions are days.
    pub hour: Option<u8>,
    /// The number of the slice within its partition, from 0.
    pub slice: u32,
}

impl Place {
    /// The place as an integer that sorts as places do: days, then 5 bits of hour, then 24 bits of slice.
    pub fn sortable(self) -> u64 {
        // The dates of chrono span fewer than 2^28 days. The offset makes the first of them positive.
        let days = i64::from(self.date.num_days_from_ce()) + DAYS_BEFORE_CE;
        let hour = self.hour.map_or(0, |hour| u64::from(hour) + 1);
        (days.unsigned_abs() << 29) | (hour << 24) | u64::from(self.slice)
    }

    /// The place that gave this integer in [`Self::sortable`]; `None` for an integer that stands for no place.
    pub fn from_sortable(bits: u64) -> Option<Self> {
        let days = i64::try_from(bits >> 29).ok()? - DAYS_BEFORE_CE;
        let hour = u8::try_from((bits >> 24) & 31).ok()?;
        Some(Self {
            date: NaiveDate::from_num_days_from_ce_opt(i32::try_from(days).ok()?)?,
            hour: hour.checked_sub(1),
            slice: u32::try_from(bits & 0xff_ffff).ok()?,
        })
    }

    /// The place of a data file of events or rejects; `None` for a file of another kind of table.
    pub fn of(partition: &[(String, Option<String>)], name: &str) -> Option<Self> {
        let (date, hour) = layout::date_and_hour(partition)?;
        Some(Self {
            date,
            hour,
            slice: layout::slice_of(name)?,
        })
    }

    /// The columns and values of the partition.
    pub fn partition(self) -> layout::Partition {
        layout::dated(self.date, self.hour)
    }
}

impl Slicing {
    /// The place of an event time, and a span `[from, until)` of times around it that share the place. All times
    /// are in `unit`s since 1970 UTC.
    ///
    /// The span ends at the next slice or quarter of an hour, so that a caller who walks events in order of
    /// time asks once for each quarter of an hour of event time rather than once for each event.
    pub fn place(&self, time: i64, unit: TimeUnit) -> (Place, i64, i64) {
        let scale = unit.per_second() / 1_000;
        let ms = time.div_euclid(scale);
        let Some(utc) = DateTime::from_timestamp_millis(ms) else {
            // `accept` refuses such event times long before.
            let date = if ms < 0 {
                NaiveDate::MIN
            } else {
                NaiveDate::MAX
            };
            return (
                Place {
                    date,
                    hour: None,
                    slice: 0,
                },
                time,
                time + 1,
            );
        };
        let local = utc.with_timezone(&self.timezone.0);
        let date = local.date_naive();
        let (hour, start, span) = match self.by {
            PartitionBy::Day => (None, date.and_time(NaiveTime::MIN), DAY_MS),
            PartitionBy::Hour => {
                let hour = local.hour();
                let start = date.and_hms_opt(hour, 0, 0).unwrap_or_default();
                (u8::try_from(hour).ok(), start, HOUR_MS)
            }
        };
        let start_ms = self.timezone.first_instant(start);
        // A partition that a clock change made longer stays one file where a slice spans a whole partition.
        let slice = if self.slice_ms >= span {
            0
        } else {
            (ms - start_ms).max(0).div_euclid(self.slice_ms)
        };
        // Nearly everywhere, clocks change at a quarter of an hour. Where they did not (at one minute past
        // midnight in St. John's until 2011), the times of that quarter are placed one by one.
        let quarter = HOUR_MS / 4;
        let from = ms.div_euclid(quarter) * quarter;
        let offset = |ms: i64| self.timezone.offset_at(ms.div_euclid(1_000));
        let steady = offset(from) == offset(from + quarter - 1);
        let (mut low, mut high) = if steady {
            (from.max(start_ms), from + quarter)
        } else {
            (ms, ms + 1)
        };
        if self.slice_ms < span {
            low = low.max(start_ms + slice * self.slice_ms);
            high = high.min(start_ms + (slice + 1) * self.slice_ms);
        }
        let slice = u32::try_from(slice).unwrap_or(u32::MAX);
        (Place { date, hour, slice }, low * scale, high * scale)
    }
}

impl Slicing {
    /// Whether some event time has this place. A place of another slicing may say `false`: it has an hour where
    /// partitions are days, or a slice that no partition is long enough for.
    pub fn makes(&self, place: Place) -> bool {
        let (hour, span) = match self.by {
            PartitionBy::Day => (false, DAY_MS),
            PartitionBy::Hour => (true, HOUR_MS),
        };
        // A clock change makes a partition longer by an hour or less.
        let most = match self.slice_ms >= span {
            true => 1,
            false => (span + HOUR_MS - 1) / self.slice_ms + 1,
        };
        place.hour.is_some() == hour && i64::from(place.slice) < most
    }

    /// The first and the last event time, in `unit`s since 1970 UTC, that can have a date of `from..=to`. The span is
    /// an hour wider on both sides: where a clock is turned back across midnight, dates are not in order of time.
    pub fn times(&self, from: NaiveDate, to: NaiveDate, unit: TimeUnit) -> (i64, i64) {
        let scale = unit.per_second() / 1_000;
        let start = |date: NaiveDate| self.timezone.first_instant(date.and_time(NaiveTime::MIN));
        let first = start(from) - HOUR_MS;
        let last = start(to.succ_opt().unwrap_or(to)) + HOUR_MS;
        (first.saturating_mul(scale), last.saturating_mul(scale))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slicing(zone: &str, by: PartitionBy, slice_ms: i64) -> Slicing {
        Slicing {
            timezone: zone.parse().unwrap(),
            by,
            slice_ms,
        }
    }

    fn at(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text)
            .unwrap()
            .timestamp_millis()
    }

    fn date(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    #[test]
    fn midnight_is_the_lakes() {
        let seoul = slicing("Asia/Seoul", PartitionBy::Day, DAY_MS);
        let (before, ..) = seoul.place(at("2019-04-01T14:59:59.999Z"), TimeUnit::Ms);
        let (after, ..) = seoul.place(at("2019-04-01T15:00:00Z"), TimeUnit::Ms);
        assert_eq!(before.date, date("2019-04-01"));
        assert_eq!(
            after,
            Place {
                date: date("2019-04-02"),
                hour: None,
                slice: 0
            }
        );
    }

    #[test]
    fn a_day_of_25_hours_is_one_day_slice_and_five_of_six_hours() {
        let long = at("2019-11-04T04:30:00Z"); // 23:30 in New York, 24.5 hours after midnight
        let day = slicing("America/New_York", PartitionBy::Day, DAY_MS);
        assert_eq!(day.place(long, TimeUnit::Ms).0.slice, 0);
        let six = slicing("America/New_York", PartitionBy::Day, 6 * HOUR_MS);
        assert_eq!(
            six.place(long, TimeUnit::Ms).0,
            Place {
                date: date("2019-11-03"),
                hour: None,
                slice: 4
            }
        );
    }

    #[test]
    fn a_slicing_knows_the_places_that_it_makes() {
        let of = |hour, slice| Place {
            date: date("2019-11-03"),
            hour,
            slice,
        };
        let day = slicing("America/New_York", PartitionBy::Day, DAY_MS);
        let six = slicing("America/New_York", PartitionBy::Day, 6 * HOUR_MS);
        let ten_minutes = slicing("America/New_York", PartitionBy::Hour, 600_000);
        for (slicing, place, made) in [
            (day, of(None, 0), true),
            (day, of(None, 1), false),
            (day, of(Some(1), 0), false),
            // The day of 25 hours.
            (six, of(None, 4), true),
            (six, of(None, 5), false),
            // The hour that comes twice.
            (ten_minutes, of(Some(1), 11), true),
            (ten_minutes, of(Some(1), 12), false),
            (ten_minutes, of(None, 0), false),
        ] {
            assert_eq!(slicing.makes(place), made, "{place:?}");
        }
    }

    #[test]
    fn a_clock_change_at_one_minute_past_midnight_places_each_time_by_its_date() {
        let place = |text| {
            slicing("America/St_Johns", PartitionBy::Day, DAY_MS)
                .place(at(text), TimeUnit::Ms)
                .0
        };
        // 00:00:30 on the 7th, then back to 23:10 on the 6th.
        assert_eq!(place("2010-11-07T02:30:30Z").date, date("2010-11-07"));
        assert_eq!(place("2010-11-07T02:40:00Z").date, date("2010-11-06"));
    }

    #[test]
    fn every_time_of_the_span_shares_the_place() {
        for zone in [
            "UTC",
            "Asia/Seoul",
            "Asia/Kathmandu",
            "America/New_York",
            "Australia/Lord_Howe",
            "America/St_Johns",
        ] {
            for (by, slice_ms) in [
                (PartitionBy::Day, DAY_MS),
                (PartitionBy::Day, HOUR_MS),
                (PartitionBy::Hour, 600_000),
            ] {
                let slicing = slicing(zone, by, slice_ms);
                let nights = [
                    ("2019-10-05T00:00:00Z", "2019-10-07T00:00:00Z"),
                    ("2010-11-06T12:00:00Z", "2010-11-07T12:00:00Z"),
                    ("2010-03-13T12:00:00Z", "2010-03-14T12:00:00Z"),
                ];
                for (from, to) in nights {
                    let mut t = at(from);
                    while t < at(to) {
                        let (place, low, high) = slicing.place(t, TimeUnit::Ms);
                        assert!(low <= t && t < high, "{zone}");
                        assert_eq!(Place::from_sortable(place.sortable()), Some(place));
                        let name = layout::file_name(place.slice);
                        assert_eq!(Place::of(&place.partition(), &name), Some(place));
                        for other in [low, high - 1, (low + high) / 2] {
                            assert_eq!(
                                slicing.place(other, TimeUnit::Ms).0,
                                place,
                                "{zone} {other}"
                            );
                        }
                        t += 421_337;
                    }
                }
                let us = slicing.place(at("2019-10-05T00:00:00Z") * 1_000 + 7, TimeUnit::Us);
                assert_eq!(
                    us.0,
                    slicing.place(at("2019-10-05T00:00:00Z"), TimeUnit::Ms).0
                );
            }
        }
    }
}
