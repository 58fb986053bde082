//! The shape of records: for each member, how often it was seen and with which kinds of values.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::time::{TimeUnit, Zone, Zones, read_date, read_epoch, read_time};

/// The most members of one object that are told apart. An object with more of them is a map.
const MEMBERS: usize = 256;
/// The most different texts of a member that are counted.
const TEXTS: usize = 64;
/// The longest text that is counted by itself.
const LONGEST_TEXT: usize = 80;
/// The first and the last time, in milliseconds since 1970, that a number may stand for: 2010 and 2100.
const TIMES: std::ops::Range<i64> = 1_262_304_000_000..4_102_444_800_000;

/// Times without an offset are read as UTC.
pub const UTC: Zones = Zones {
    naive: Some(Zone(chrono_tz::UTC)),
    epoch: None,
};

/// All values that were seen at one place.
#[derive(Debug, Default)]
pub struct Node {
    /// The number of values, null included.
    pub seen: u64,
    pub bools: u64,
    /// Integers of 64 bits.
    pub integers: u64,
    /// Other numbers.
    pub floats: u64,
    pub texts: Texts,
    pub arrays: u64,
    pub objects: u64,
    /// Numbers that can be the time of an event.
    pub epochs: u64,
    /// The members of objects, in the order in which they were seen first.
    pub members: Vec<(String, Node)>,
    /// The place of each member.
    places: HashMap<String, usize>,
    /// Members beyond the most that are told apart.
    pub more_members: u64,
    /// The values of arrays.
    pub items: Option<Box<Node>>,
}

/// The texts that were seen at one place.
#[derive(Debug, Default)]
pub struct Texts {
    /// The number of texts.
    pub count: u64,
    /// Times of day with a date, in a spelling that is no epoch.
    pub times: u64,
    /// Those of them without an offset.
    pub naive: u64,
    /// Dates.
    pub dates: u64,
    /// Texts that are a JSON object.
    pub json: u64,
    /// The texts with their numbers; empty where there are many.
    pub values: BTreeMap<String, u64>,
    /// Whether there are more different texts than are counted.
    pub many: bool,
}

impl Node {
    /// Adds a record. The result is false if it is no JSON object.
    pub fn add(&mut self, record: &str) -> bool {
        let mut reader = serde_json::Deserializer::from_str(record);
        Seed(self).deserialize(&mut reader).is_ok()
    }

    /// The values that are not null.
    pub const fn values(&self) -> u64 {
        self.bools + self.integers + self.floats + self.texts.count + self.arrays + self.objects
    }

    /// The member of an object.
    pub fn member(&self, name: &str) -> Option<&Self> {
        let place = self.places.get(name)?;
        self.members.get(*place).map(|(_, node)| node)
    }

    fn number(&mut self, text: &str) {
        let epoch = read_epoch(text, TimeUnit::Ms, None);
        self.epochs += u64::from(epoch.is_some_and(|ms| TIMES.contains(&ms)));
    }

    fn text(&mut self, text: &str) {
        let texts = &mut self.texts;
        texts.count += 1;
        if read_date(text).is_some() {
            texts.dates += 1;
        } else if read_epoch(text, TimeUnit::Ms, None).is_none()
            && read_time(text, TimeUnit::Ms, UTC).is_some()
        {
            texts.times += 1;
            let offset = Zones { naive: None, ..UTC };
            texts.naive += u64::from(read_time(text, TimeUnit::Ms, offset).is_none());
        }
        texts.json += u64::from(is_json_object(text));
        if texts.many {
            return;
        }
        if text.len() > LONGEST_TEXT
            || (texts.values.len() >= TEXTS && !texts.values.contains_key(text))
        {
            texts.many = true;
            texts.values.clear();
            return;
        }
        *texts.values.entry(text.to_owned()).or_default() += 1;
    }
}

fn is_json_object(text: &str) -> bool {
    text.trim_start().starts_with('{')
        && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// Adds the value that comes next to a node.
struct Seed<'a>(&'a mut Node);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        self.0.seen += 1;
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.0.bools += 1;
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.integers += 1;
        self.0.number(&value.to_string());
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(_) => self.0.integers += 1,
            Err(_) => self.0.floats += 1,
        }
        self.0.number(&value.to_string());
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.floats += 1;
        self.0.number(&value.to_string());
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.text(text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        self.0.arrays += 1;
        let items = self.0.items.get_or_insert_default();
        while values.next_element_seed(Seed(items))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let node = self.0;
        node.objects += 1;
        while let Some(name) = members.next_key::<String>()? {
            let place = node.places.get(&name).copied();
            let place = match place {
                None if node.members.len() >= MEMBERS => {
                    node.more_members += 1;
                    members.next_value::<serde::de::IgnoredAny>()?;
                    continue;
                }
                None => {
                    node.places.insert(name.clone(), node.members.len());
                    node.members.push((name, Node::default()));
                    node.members.len() - 1
                }
                Some(place) => place,
            };
            match node.members.get_mut(place) {
                Some((_, member)) => members.next_value_seed(Seed(member))?,
                None => drop(members.next_value::<serde::de::IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_value_is_counted_at_its_place() {
        let mut node = Node::default();
        for record in [
            r#"{"b":1554076800,"a":{"x":[1,"2019-04-01T00:00:00Z",null]},"t":"2019-04-01 00:00:00"}"#,
            r#"{"b":true,"a":{"x":[]},"d":"2019-04-01","j":"{\"k\":1}"}"#,
        ] {
            assert!(node.add(record));
        }
        assert!(!node.add("[1"));
        let names: Vec<&str> = node.members.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["b", "a", "t", "d", "j"]);
        let b = node.member("b").unwrap();
        assert_eq!((b.seen, b.bools, b.integers, b.epochs), (2, 1, 1, 1));
        let items = node
            .member("a")
            .unwrap()
            .member("x")
            .unwrap()
            .items
            .as_ref()
            .unwrap();
        assert_eq!((items.seen, items.values(), items.texts.times), (3, 2, 1));
        assert_eq!(node.member("t").unwrap().texts.naive, 1);
        assert_eq!(node.member("d").unwrap().texts.dates, 1);
        assert_eq!(node.member("j").unwrap().texts.json, 1);
    }

    #[test]
    fn an_object_with_many_members_stays_small() {
        let mut node = Node::default();
        for n in 0..1_000 {
            node.add(&format!("{{\"key{n}\": 1}}"));
        }
        assert_eq!((node.members.len(), node.more_members), (256, 744));
    }
}
