//! Columns from the shape of records: name, path, type, and what was seen.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::shape::Node;
use super::spelling::{column_name, percent};
use super::times::TimeMember;
use crate::event::ColumnType;

/// The most columns that are declared. Other members stay in `extra`.
const COLUMNS: usize = 200;
/// The share of values of another type that are taken for mistakes: their records become rejects.
const MISTAKES: f64 = 0.005;
/// A member that is seen less than once in so many records has no column.
const RARE: u64 = 1_000;
/// The most members of a struct.
const FIELDS: usize = 24;
/// The least share of its objects that a member of a struct is in, on average.
const STEADY: f64 = 0.5;
/// The most levels of a type.
const LEVELS: usize = 6;

/// A column of a draft.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DraftColumn {
    /// The name.
    pub name: String,
    /// The type.
    #[serde(rename = "type")]
    pub kind: ColumnType,
    /// The names of members that lead to the value.
    pub path: Vec<String>,
    /// The names of members that lead to fields of structs, by the dotted places of the fields.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub paths: Paths,
    /// Whether values of other types are converted.
    pub coerce: bool,
    /// What was seen, in words.
    pub note: String,
    /// The number of records with a value.
    pub seen: u64,
    /// The different texts with their numbers, where there are few.
    #[serde(skip)]
    pub values: Vec<(String, u64)>,
}

/// The member that each field of a struct is read from, by the dotted place of the field.
pub type Paths = BTreeMap<String, String>;

/// The names that are taken.
#[derive(Debug, Default)]
pub struct Names(BTreeSet<String>);

impl Names {
    /// A name for a member that no other column has.
    pub fn of(&mut self, member: &str) -> String {
        let name = column_name(member);
        let mut numbers = 2..;
        let mut free = name.clone();
        while !self.0.insert(free.clone()) {
            free = format!("{name}_{}", numbers.next().unwrap_or(0));
        }
        free
    }
}

/// The columns for the members of records. `time` is the path of the event time, which has a column of its own.
pub fn columns(
    records: &Node,
    names: &mut Names,
    unsure: &mut Vec<String>,
    time: &[String],
) -> Vec<DraftColumn> {
    let mut columns = Vec::new();
    for (member, node) in &records.members {
        if time == std::slice::from_ref(member) || member.is_empty() {
            continue;
        }
        if columns.len() >= COLUMNS {
            unsure.push(format!(
                "the records have more than {COLUMNS} members: the others stay in `extra`"
            ));
            break;
        }
        if node.seen * RARE < records.objects {
            unsure.push(format!(
                "{member} was seen in {}: it is no column, and its values will be in `extra`",
                percent(node.seen, records.objects)
            ));
            continue;
        }
        let mut paths = Paths::new();
        match kind(node, &mut Inside::top(&mut paths)) {
            Typed::Nothing => unsure.push(format!(
                "{member} is always null: it is no column, and its values will be in `extra`"
            )),
            Typed::As { kind, note, coerce } => {
                let seen = node.values();
                let mut all = format!("seen in {}", percent(seen, records.objects));
                if !note.is_empty() {
                    all = format!("{all}; {note}");
                    unsure.push(format!("{member}: {note}"));
                }
                columns.push(DraftColumn {
                    name: names.of(member),
                    kind,
                    path: vec![member.clone()],
                    paths,
                    coerce,
                    note: all,
                    seen,
                    values: match node.texts.many {
                        true => Vec::new(),
                        false => node.texts.values.clone().into_iter().collect(),
                    },
                });
            }
        }
    }
    if records.more_members > 0 {
        unsure.push(
            "the records have very many different members: those that came late stay in `extra`"
                .to_owned(),
        );
    }
    columns
}

/// Puts the column of the event time first.
pub fn put_time(columns: &mut Vec<DraftColumn>, name: &str, time: &TimeMember, records: u64) {
    columns.insert(
        0,
        DraftColumn {
            name: name.to_owned(),
            kind: ColumnType::Timestamp,
            path: time.path.clone(),
            paths: Paths::new(),
            coerce: false,
            note: format!("seen in {}; {}", percent(time.seen, records), time.note),
            seen: time.seen,
            values: Vec::new(),
        },
    );
}

/// The type of the values at one place.
enum Typed {
    /// There is no value but null.
    Nothing,
    As {
        kind: ColumnType,
        /// What is odd about the values; empty where nothing is.
        note: String,
        coerce: bool,
    },
}

impl Typed {
    const fn plain(kind: ColumnType) -> Self {
        Self::As {
            kind,
            note: String::new(),
            coerce: false,
        }
    }
}

/// A place inside of a column.
struct Inside<'p> {
    /// How many levels it lies below the column.
    level: usize,
    /// The dotted place of the struct, with a dot at its end; empty for the column itself.
    place: String,
    paths: &'p mut Paths,
}

impl<'p> Inside<'p> {
    const fn top(paths: &'p mut Paths) -> Self {
        Self {
            level: 0,
            place: String::new(),
            paths,
        }
    }
}

/// The type of the values at one place.
fn kind(node: &Node, inside: &mut Inside<'_>) -> Typed {
    let values = node.values();
    if values == 0 {
        return Typed::Nothing;
    }
    let numbers = node.integers + node.floats;
    let classes = [
        (node.bools, "boolean"),
        (numbers, "number"),
        (node.texts.count, "text"),
        (node.arrays, "array"),
        (node.objects, "object"),
    ];
    let (most, class) = classes
        .into_iter()
        .max_by_key(|(count, _)| *count)
        .unwrap_or((0, ""));
    let odd = values - most;
    if odd as f64 > MISTAKES * values as f64 {
        return mixed(node, inside, &classes);
    }
    let mut typed = match class {
        "boolean" => Typed::plain(ColumnType::Boolean),
        "number" if node.floats == 0 => Typed::plain(ColumnType::BigInt),
        "number" => Typed::plain(ColumnType::Double),
        "text" => Typed::plain(of_texts(node)),
        "array" => Typed::plain(of_arrays(node, inside)),
        _ => Typed::plain(of_objects(node, inside)),
    };
    if let (Typed::As { note, kind, .. }, true) = (&mut typed, odd > 0)
        && *kind != ColumnType::Json
    {
        *note = format!(
            "{} of the values are no {kind}: their records become rejects",
            percent(odd, values)
        );
    }
    typed
}

/// The type of values of several classes: text for single values, the type of the objects where an empty list stands
/// for an empty object, or else JSON.
fn mixed(node: &Node, inside: &mut Inside<'_>, classes: &[(u64, &str)]) -> Typed {
    let values = node.values();
    let seen = classes.iter().filter(|(count, _)| *count > 0);
    let kinds: Vec<String> = seen
        .map(|(count, class)| format!("{class} in {}", percent(*count, values)))
        .collect();
    let kinds = kinds.join(", ");
    let nested = node.arrays + node.objects;
    let no_items = node.items.as_ref().is_none_or(|items| items.seen == 0);
    let kind = match nested {
        0 => ColumnType::String,
        nested if nested == values && no_items => of_objects(node, inside),
        _ => ColumnType::Json,
    };
    let coerce = kind != ColumnType::Json;
    let note = match coerce {
        true => format!("values of several types are converted: {kinds}"),
        false => format!("values of several types: {kinds}"),
    };
    Typed::As { kind, note, coerce }
}

fn of_texts(node: &Node) -> ColumnType {
    let texts = &node.texts;
    let nearly_all = |count: u64| (texts.count - count) as f64 <= MISTAKES * texts.count as f64;
    // A time without an offset needs a zone that the other columns may not have.
    if nearly_all(texts.times) && texts.naive == 0 {
        ColumnType::Timestamp
    } else if nearly_all(texts.dates) {
        ColumnType::Date
    } else {
        ColumnType::String
    }
}

fn of_arrays(node: &Node, inside: &mut Inside<'_>) -> ColumnType {
    let Some(items) = node.items.as_deref().filter(|_| inside.level < LEVELS) else {
        return ColumnType::Json;
    };
    let mut paths = Paths::new();
    let mut deeper = Inside {
        level: inside.level + 1,
        place: inside.place.clone(),
        paths: &mut paths,
    };
    match kind(items, &mut deeper) {
        Typed::As { kind, note, .. } if note.is_empty() && kind != ColumnType::Json => {
            inside.paths.extend(paths);
            ColumnType::Array(Box::new(kind))
        }
        _ => ColumnType::Json,
    }
}

/// A struct where objects have the same members, a map where they have many members of one type, or else JSON.
fn of_objects(node: &Node, inside: &mut Inside<'_>) -> ColumnType {
    if inside.level >= LEVELS || node.members.is_empty() {
        return ColumnType::Json;
    }
    let mut names = Names::default();
    let mut paths = Paths::new();
    let mut fields: Vec<(String, ColumnType)> = Vec::new();
    for (member, values) in &node.members {
        let field = names.of(member);
        let place = format!("{}{field}", inside.place);
        let mut own = Paths::new();
        let mut deeper = Inside {
            level: inside.level + 1,
            place: format!("{place}."),
            paths: &mut own,
        };
        match kind(values, &mut deeper) {
            Typed::Nothing => {}
            Typed::As { note, .. } if !note.is_empty() || member.is_empty() => {
                return ColumnType::Json;
            }
            Typed::As { kind, .. } => {
                paths.extend(own);
                if field != *member {
                    paths.insert(place, member.clone());
                }
                fields.push((field, kind));
            }
        }
    }
    let of_members: u64 = node.members.iter().map(|(_, member)| member.seen).sum();
    let steady = of_members as f64 >= STEADY * (node.objects as f64 * node.members.len() as f64);
    let few = node.members.len() <= FIELDS && node.more_members == 0;
    match fields.first().map(|(_, kind)| kind.clone()) {
        Some(_) if few && steady => {
            inside.paths.extend(paths);
            ColumnType::Struct(fields)
        }
        Some(first)
            if !steady && is_scalar(&first) && fields.iter().all(|(_, kind)| *kind == first) =>
        {
            ColumnType::Map(Box::new(first))
        }
        _ => ColumnType::Json,
    }
}

const fn is_scalar(kind: &ColumnType) -> bool {
    matches!(
        kind,
        ColumnType::String | ColumnType::Boolean | ColumnType::BigInt | ColumnType::Double
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(records: &[&str]) -> Vec<String> {
        let mut node = Node::default();
        records.iter().for_each(|record| assert!(node.add(record)));
        let found = columns(&node, &mut Names::default(), &mut Vec::new(), &[]);
        let text = |column: DraftColumn| format!("{} {}", column.name, column.kind);
        found.into_iter().map(text).collect()
    }

    #[test]
    fn a_type_follows_from_how_values_vary() {
        for (records, expected) in [
            (
                &[r#"{"a":1,"b":1.5,"c":true,"d":"x"}"#][..],
                &["a bigint", "b double", "c boolean", "d string"][..],
            ),
            (&[r#"{"a":1}"#, r#"{"a":0.5}"#], &["a double"]),
            (&[r#"{"a":1}"#, r#"{"a":"1"}"#], &["a string"]),
            (&[r#"{"a":1}"#, r#"{"a":[1]}"#], &["a json"]),
            (
                &[r#"{"a":[]}"#, r#"{"a":{"x":1}}"#],
                &["a struct<x:bigint>"],
            ),
            (&[r#"{"a":null}"#], &[]),
            (
                &[r#"{"a":"2019-04-01T00:00:00Z","b":"2019-04-01"}"#],
                &["a timestamp", "b date"],
            ),
            (&[r#"{"a":"2019-04-01 00:00:00"}"#], &["a string"]),
            (&[r#"{"a":["x"],"b":[]}"#], &["a array<string>", "b json"]),
            (
                &[r#"{"a":{"x":1,"y":{"z":"t"}}}"#],
                &["a struct<x:bigint,y:struct<z:string>>"],
            ),
            (&[r#"{"a":{"xY":1}}"#], &["a struct<x_y:bigint>"]),
            (&[r#"{"a":[{"x":1}]}"#], &["a array<struct<x:bigint>>"]),
            (
                &[
                    r#"{"a":{"k1":1}}"#,
                    r#"{"a":{"k2":1}}"#,
                    r#"{"a":{"k3":2}}"#,
                ],
                &["a map<string,bigint>"],
            ),
            (
                &[
                    r#"{"a":{"k1":1}}"#,
                    r#"{"a":{"k2":"x"}}"#,
                    r#"{"a":{"k3":2}}"#,
                ],
                &["a json"],
            ),
            (
                &[r#"{"dt":1,"Dt":2,"":3}"#],
                &["field_dt bigint", "field_dt_2 bigint"],
            ),
        ] {
            assert_eq!(types(records), expected, "{records:?}");
        }
    }

    #[test]
    fn a_field_of_a_struct_has_the_path_of_its_member() {
        let mut node = Node::default();
        assert!(node.add(r#"{"a":[{"sellerId":1,"shop":{"ID":2,"x":3}}]}"#));
        let found = columns(&node, &mut Names::default(), &mut Vec::new(), &[]);
        let kind = "array<struct<seller_id:bigint,shop:struct<id:bigint,x:bigint>>>";
        assert_eq!(found[0].kind.to_string(), kind);
        let paths = [("seller_id", "sellerId"), ("shop.id", "ID")];
        let paths = paths.map(|(place, member)| (place.to_owned(), member.to_owned()));
        assert_eq!(found[0].paths, Paths::from(paths));
    }

    #[test]
    fn a_rare_value_of_another_type_is_a_mistake() {
        let mut records: Vec<String> = (0..1_000).map(|n| format!("{{\"a\":{n}}}")).collect();
        records.push("{\"a\":\"x\"}".to_owned());
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        assert_eq!(types(&records), ["a bigint"]);
    }
}
