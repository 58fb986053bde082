//! Units, zones and the reading of event times.

use std::fmt;
use std::str::FromStr;

use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

/// The unit of every timestamp in a table: milliseconds unless `timestamp_unit = "us"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    #[default]
    Ms,
    Us,
}

impl TimeUnit {
    pub const fn arrow(self) -> arrow::datatypes::TimeUnit {
        match self {
            Self::Ms => arrow::datatypes::TimeUnit::Millisecond,
            Self::Us => arrow::datatypes::TimeUnit::Microsecond,
        }
    }

    /// Units in a second.
    pub const fn per_second(self) -> i64 {
        match self {
            Self::Ms => 1_000,
            Self::Us => 1_000_000,
        }
    }
}

/// A time zone by its IANA name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zone(pub Tz);

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl FromStr for Zone {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        name.parse().map(Zone).map_err(|_| {
            format!("`{name}` is no time zone: give an IANA name such as `Asia/Seoul` or `UTC`")
        })
    }
}

impl Serialize for Zone {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The span of event times that is believed; outside it a record is a reject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// First accepted instant, milliseconds since 1970 UTC.
    pub from_ms: i64,
    /// Milliseconds an event may lie after its raw object's arrival.
    pub ahead_ms: i64,
}
