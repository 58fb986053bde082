//! The layout of keys: the pattern of the arrival time that fits all of them.

use crate::layout::Layout;
use crate::time::Zone;

/// Patterns that producers write, the finest first.
const KNOWN: [&str; 16] = [
    "%Y/%m/%d/%H/",
    "year=%Y/month=%m/day=%d/hour=%H/",
    "year=%Y/month=%m/day=%d/",
    "dt=%F/hour=%H/",
    "dt=%F-%H/",
    "dt=%F/",
    "date=%F/hour=%H/",
    "date=%F/",
    "%Y-%m-%d/%H/",
    "%Y-%m-%d-%H",
    "%Y-%m-%d-%-H",
    "%Y/%m/%d/",
    "%Y-%m-%d",
    "%Y%m%d/%H/",
    "%Y%m%d%H",
    "%Y%m%d",
];

/// The layout that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayoutFound {
    /// A pattern that fits all keys.
    Fits(String),
    /// A pattern that fits most keys, but not this one.
    Unfit {
        /// The pattern.
        pattern: String,
        /// The first key that it does not fit.
        example: String,
    },
    /// No known pattern fits.
    None,
}

impl LayoutFound {
    /// The pattern of all keys.
    pub fn pattern(&self) -> Option<&str> {
        match self {
            Self::Fits(pattern) => Some(pattern),
            Self::Unfit { .. } | Self::None => None,
        }
    }
}

/// The layout of keys below a root.
pub fn layout<'a>(keys: impl Iterator<Item = &'a str> + Clone) -> LayoutFound {
    let Some(first) = keys.clone().next() else {
        return LayoutFound::None;
    };
    let derived = derived(first);
    let known = KNOWN.map(str::to_owned);
    let mut nearly = LayoutFound::None;
    for pattern in known.into_iter().chain(derived) {
        let Ok(layout) = Layout::new(&pattern, Zone(chrono_tz::UTC)) else {
            continue;
        };
        let (mut fit, mut unfit, mut example) = (0_u64, 0_u64, None);
        for key in keys.clone() {
            match layout.arrival_ms(key) {
                Some(_) => fit += 1,
                None => {
                    unfit += 1;
                    example = example.or_else(|| Some(key.to_owned()));
                }
            }
        }
        match example {
            None => return LayoutFound::Fits(pattern),
            Some(example) if fit > unfit && nearly == LayoutFound::None => {
                nearly = LayoutFound::Unfit { pattern, example };
            }
            Some(_) => {}
        }
    }
    nearly
}

/// A pattern from the folders of one key whose names are of the form `name=value`.
fn derived(key: &str) -> Option<String> {
    let mut pattern = String::new();
    for folder in key.split('/') {
        let Some((name, value)) = folder.split_once('=') else {
            match pattern.is_empty() {
                true => continue,
                false => break,
            }
        };
        let digits = |text: &str| text.bytes().filter(u8::is_ascii_digit).count();
        let is_number = digits(value) == value.len();
        let field = match (name.to_ascii_lowercase().as_str(), value.len()) {
            (_, 10) if digits(value) == 8 && value.matches('-').count() == 2 => "%F",
            (_, 8) if is_number => "%Y%m%d",
            (_, 4) if is_number && pattern.is_empty() => "%Y",
            ("month" | "m" | "mm", 2) if is_number => "%m",
            ("day" | "d" | "dd", 2) if is_number => "%d",
            ("hour" | "h" | "hh" | "hr", 2) if is_number => "%H",
            _ if pattern.is_empty() => continue,
            _ => break,
        };
        pattern.push_str(&name.replace('%', "%%"));
        pattern.push('=');
        pattern.push_str(field);
        pattern.push('/');
    }
    (!pattern.is_empty()).then_some(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_that_fits_all_keys_is_found() {
        for (keys, found) in [
            (
                &["2019/04/01/23/a.gz", "2019/04/02/00/b"][..],
                Some("%Y/%m/%d/%H/"),
            ),
            (
                &["AWSLogs/1/CloudTrail/eu/2019/04/01/a.gz"],
                Some("%Y/%m/%d/"),
            ),
            (
                &["2015-01-01-9.json.gz", "2015-01-01-15.json.gz"],
                Some("%Y-%m-%d-%-H"),
            ),
            (&["dt=2019-04-01/hour=05/a"], Some("dt=%F/hour=%H/")),
            (&["t/p_date=20190401/hh=05/a"], Some("p_date=%Y%m%d/hh=%H/")),
            (&["tenant=acme/y=2019/m=04/d=01/a"], Some("y=%Y/m=%m/d=%d/")),
            (
                &["topics/app/year=2019/month=04/day=01/hour=05/a"],
                Some("year=%Y/month=%m/day=%d/hour=%H/"),
            ),
            (&["readme.txt"], None),
            (&[], None),
        ] {
            assert_eq!(layout(keys.iter().copied()).pattern(), found, "{keys:?}");
        }
        let most = ["2019/04/01/23/a", "2019/04/01/23/b", "readme"];
        assert_eq!(
            layout(most.into_iter()),
            LayoutFound::Unfit {
                pattern: "%Y/%m/%d/%H/".to_owned(),
                example: "readme".to_owned()
            }
        );
    }
}
