//! How far a mart that is built date by date reads each of its tables.
//!
//! ```text
//! -- reads: events back 6d           dt-6 … dt
//! -- reads: events ahead 1d          dt … dt+1
//! -- reads: events back all          … dt
//! -- reads: events all, users        all of events; of users the same date, as where no header names it
//! ```

use std::fmt;

use chrono::{NaiveDate, TimeDelta};

/// The dates of a table that one date of a mart reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// How many days before the mart's date. `None` is all earlier days.
    pub back: Option<u32>,
    /// How many days after the mart's date. `None` is all later days.
    pub ahead: Option<u32>,
}

impl Reach {
    /// The same date alone.
    pub const SAME: Self = Self {
        back: Some(0),
        ahead: Some(0),
    };
    /// The whole table, also its rows without a date.
    pub const ALL: Self = Self {
        back: None,
        ahead: None,
    };

    /// Whether the mart's partition for `date` reads the table's partition of `dt`. `None` is a partition without a
    /// date.
    pub fn holds(self, date: NaiveDate, dt: Option<NaiveDate>) -> bool {
        let Some(dt) = dt else {
            return self == Self::ALL;
        };
        let within = |days: Option<u32>, distance: TimeDelta| {
            days.is_none_or(|days| distance.num_days() <= i64::from(days))
        };
        within(self.back, date - dt) && within(self.ahead, dt - date)
    }
}

impl Reach {
    /// The shortest words that `-- reads:` may have behind the name of a table.
    pub fn words(self) -> String {
        let side = |way: &str, days: Option<u32>| match days {
            Some(0) => None,
            Some(days) => Some(format!("{way} {days}d")),
            None => Some(format!("{way} all")),
        };
        match (side("back", self.back), side("ahead", self.ahead)) {
            _ if self == Self::ALL => "all".to_owned(),
            (Some(back), Some(ahead)) => format!("{back} {ahead}"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => "back 0d".to_owned(),
        }
    }
}

impl fmt::Display for Reach {
    /// The words of a header, with both directions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let far =
            |days: Option<u32>| days.map_or_else(|| "all".to_owned(), |days| format!("{days}d"));
        write!(f, "back {} ahead {}", far(self.back), far(self.ahead))
    }
}

/// Reads one entry of `-- reads:`: the name of a table and how far it is read.
pub(super) fn parse(text: &str) -> Result<(String, Reach), String> {
    let mut words = text.split_whitespace();
    let table = words.next().unwrap_or_default().to_owned();
    if table.is_empty() {
        return Err("`reads` names no table".to_owned());
    }
    let mut reach = Reach::SAME;
    let (mut back, mut ahead) = (false, false);
    while let Some(word) = words.next() {
        let (days, given) = match word {
            "back" => (&mut reach.back, &mut back),
            "ahead" => (&mut reach.ahead, &mut ahead),
            "all" if !back && !ahead && words.next().is_none() => return Ok((table, Reach::ALL)),
            other => return Err(format!("`{other}` says nothing about what is read")),
        };
        if std::mem::replace(given, true) {
            return Err(format!("`{word}` is given twice for `{table}`"));
        }
        let far = words.next().unwrap_or_default();
        *days = match far.strip_suffix('d').map(str::parse) {
            _ if far == "all" => None,
            Some(Ok(days)) => Some(days),
            _ => return Err(format!("`{word} {far}` is not a number of days")),
        };
    }
    Ok((table, reach))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reach_is_told_by_back_and_ahead() {
        let reach = |back, ahead| Reach { back, ahead };
        for (text, expected) in [
            ("events", Ok(Reach::SAME)),
            ("events back 6d", Ok(reach(Some(6), Some(0)))),
            ("events ahead 1d", Ok(reach(Some(0), Some(1)))),
            ("events  ahead 1d back all", Ok(reach(None, Some(1)))),
            ("events back all", Ok(reach(None, Some(0)))),
            ("events all", Ok(Reach::ALL)),
            ("", Err("no table")),
            ("events all back 6d", Err("`all` says nothing")),
            ("events back 6d all", Err("`all` says nothing")),
            ("events back", Err("`back ` is not a number of days")),
            ("events back 6", Err("`back 6` is not a number of days")),
            ("events back -6d", Err("`back -6d` is not")),
            ("events back 6h", Err("`back 6h` is not")),
            ("events back 6d back 7d", Err("`back` is given twice")),
            ("events since 6d", Err("`since` says nothing")),
        ] {
            match (parse(text), expected) {
                (Ok(found), Ok(reach)) => assert_eq!(found, ("events".to_owned(), reach)),
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_reach_is_said_as_it_is_read() {
        for text in [
            "back 0d",
            "back 6d",
            "ahead 1d",
            "back all ahead 1d",
            "back all",
            "all",
        ] {
            let (_, reach) = parse(&format!("events {text}")).unwrap();
            assert_eq!(reach.words(), text);
        }
    }

    #[test]
    fn a_reach_holds_its_ends() {
        let date = |day| NaiveDate::from_ymd_opt(2024, 3, day).unwrap();
        let target = date(10);
        let held = |text: &str| -> Vec<u32> {
            let (_, reach) = parse(text).unwrap();
            let holds = |day: &u32| reach.holds(target, Some(date(*day)));
            (7..=13).filter(holds).collect()
        };
        assert_eq!(held("t"), [10]);
        assert_eq!(held("t back 2d"), [8, 9, 10]);
        assert_eq!(held("t ahead 2d"), [10, 11, 12]);
        assert_eq!(held("t back all"), [7, 8, 9, 10]);
        assert_eq!(held("t back 1d ahead all"), [9, 10, 11, 12, 13]);
        assert_eq!(held("t all"), [7, 8, 9, 10, 11, 12, 13]);
        assert!(Reach::ALL.holds(target, None));
        assert!(!parse("t back all").unwrap().1.holds(target, None));
    }
}
