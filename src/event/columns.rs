//! Columns and their types, declared in the names that Athena and Hive use.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields};
use serde::{Deserialize, Serialize};

use super::ENVELOPE;
use crate::layout::{DATE, HOUR};
use crate::time::TimeUnit;

/// The column of the raw object that an event was read from: its key below the raw root.
pub const RAW_OBJECT: &str = "raw_object";
/// The column of the number of a record within its raw object, from 1.
pub const RAW_RECORD: &str = "raw_record";
/// The column of all members that no declared column names, as one JSON object. It is null when there is no such
/// member.
pub const EXTRA: &str = "extra";
/// The column of the SHA-256 of a record's bytes, in hex. Tables have it only where a rule names it.
pub const RECORD_SHA256: &str = "record_sha256";

/// The column of the rule that took a duplicate out.
pub const RULE: &str = "rule";
/// The column of the raw object of the event that displaced a duplicate.
pub const KEPT_OBJECT: &str = "kept_object";
/// The column of the record number of the event that displaced a duplicate.
pub const KEPT_RECORD: &str = "kept_record";

/// Whether a declared column may not have this name, because rawmart itself uses it.
pub fn reserved(name: &str) -> bool {
    matches!(name, DATE | HOUR | EXTRA | RULE | RECORD_SHA256)
        || name.starts_with("raw_")
        || name.starts_with("kept_")
}

/// One declared column of a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// The name in the tables.
    pub name: String,
    /// The type of its values.
    #[serde(rename = "type")]
    pub kind: ColumnType,
    /// The names of the members that lead to the value, from the top of the record. There is at least one. A path that
    /// begins with [`ENVELOPE`](super::ENVELOPE) begins at the top of the envelope instead.
    pub path: Vec<String>,
    /// The value of the column where the member is missing or null.
    pub default: Option<serde_json::Value>,
    /// Whether a record without the member, or with null for it, is a reject. A default takes precedence.
    pub required: bool,
    /// The member names that lead to a field of a struct inside the type, from the object that stands for the struct.
    /// The keys are the dotted places of the fields, such as `seller.id`. A field that is not here is read from the
    /// member of its own name.
    #[serde(default)]
    pub paths: BTreeMap<String, Vec<String>>,
    /// Whether a value of another type is converted where it spells a value of this type.
    #[serde(default)]
    pub coerce: bool,
    /// The formats of times and dates that are tried before the everyday spellings.
    #[serde(default)]
    pub time_formats: Vec<String>,
}

impl Column {
    /// The member names that lead to the field at the dotted `place`, whose name is `field`.
    pub fn field_path<'a>(&'a self, place: &str, field: &'a String) -> &'a [String] {
        match self.paths.get(place) {
            Some(path) => path,
            None => std::slice::from_ref(field),
        }
    }

    /// Whether the value is a member of the envelope of the record.
    pub fn is_of_envelope(&self) -> bool {
        self.path.first().is_some_and(|name| name == ENVELOPE)
    }
}

/// A column's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnType {
    /// Text in UTF-8.
    String,
    /// True or false.
    Boolean,
    /// An integer of 32 bits.
    Int,
    /// An integer of 64 bits.
    BigInt,
    /// A floating-point number of 64 bits.
    Double,
    /// A decimal of this precision (1 to 38) and scale (0 to the precision).
    Decimal(u8, u8),
    /// Days since 1970.
    Date,
    /// An instant, in the unit of the table.
    Timestamp,
    /// A list of values of one type.
    Array(Box<ColumnType>),
    /// Values of one type by keys that are strings.
    Map(Box<ColumnType>),
    /// Fields by name.
    Struct(Vec<(String, ColumnType)>),
    /// The raw JSON text of a value.
    Json,
}

/// Why a text is no column type, and what to write.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct TypeError(String);

const KNOWN: &str = "string, boolean, int, bigint, double, decimal(p,s), date, timestamp, \
                     array<…>, map<string,…>, struct<name:type,…>, json";

impl ColumnType {
    /// The Arrow type of the column. `unit` is the unit of the table's timestamps, which are in UTC.
    pub fn arrow(&self, unit: TimeUnit) -> DataType {
        match self {
            Self::String | Self::Json => DataType::Utf8,
            Self::Boolean => DataType::Boolean,
            Self::Int => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Decimal(precision, scale) => {
                DataType::Decimal128(*precision, i8::try_from(*scale).unwrap_or(0))
            }
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(unit.arrow(), Some("UTC".into())),
            Self::Array(item) => {
                DataType::List(Arc::new(Field::new("element", item.arrow(unit), true)))
            }
            Self::Map(value) => {
                let entries = Fields::from(vec![
                    Field::new("key", DataType::Utf8, false),
                    Field::new("value", value.arrow(unit), true),
                ]);
                let entries = Field::new("key_value", DataType::Struct(entries), false);
                DataType::Map(Arc::new(entries), false)
            }
            Self::Struct(fields) => DataType::Struct(
                fields
                    .iter()
                    .map(|(name, kind)| Field::new(name, kind.arrow(unit), true))
                    .collect(),
            ),
        }
    }
}

impl ColumnType {
    /// The dotted places of all fields of structs inside this type, from the outside to the inside. Arrays and maps
    /// add nothing to a place, because each has one type of values.
    pub fn places(&self) -> Vec<String> {
        match self {
            Self::Array(item) | Self::Map(item) => item.places(),
            Self::Struct(fields) => {
                let places = fields.iter().flat_map(|(name, kind)| {
                    let inside = kind.places().into_iter();
                    let inside = inside.map(move |place| format!("{name}.{place}"));
                    std::iter::once(name.clone()).chain(inside)
                });
                places.collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether this type, or a type inside it, satisfies `test`.
    pub fn holds(&self, test: fn(&Self) -> bool) -> bool {
        test(self)
            || match self {
                Self::Array(item) | Self::Map(item) => item.holds(test),
                Self::Struct(fields) => fields.iter().any(|(_, kind)| kind.holds(test)),
                _ => false,
            }
    }

    /// Whether values of other types can be converted to this type, or to a type inside it.
    pub fn is_coercible(&self) -> bool {
        self.holds(|kind| {
            !matches!(
                kind,
                Self::Date | Self::Timestamp | Self::Json | Self::Array(_)
            )
        })
    }

    /// Whether this type is `date` or `timestamp`, or has such a type inside.
    pub fn has_times(&self) -> bool {
        self.holds(|kind| matches!(kind, Self::Date | Self::Timestamp))
    }

    /// The column type that has this Arrow type; text is `string`. `None` for a type that some readers do not
    /// have.
    pub fn from_arrow(kind: &DataType) -> Option<Self> {
        Some(match kind {
            DataType::Utf8 => Self::String,
            DataType::Boolean => Self::Boolean,
            DataType::Int32 => Self::Int,
            DataType::Int64 => Self::BigInt,
            DataType::Float64 => Self::Double,
            DataType::Decimal128(precision, scale) => {
                Self::Decimal(*precision, u8::try_from(*scale).ok()?)
            }
            DataType::Date32 => Self::Date,
            DataType::Timestamp(_, Some(_)) => Self::Timestamp,
            DataType::List(item) => Self::Array(Box::new(Self::from_arrow(item.data_type())?)),
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(fields) => match fields.as_ref() {
                    [key, value] if *key.data_type() == DataType::Utf8 => {
                        Self::Map(Box::new(Self::from_arrow(value.data_type())?))
                    }
                    _ => return None,
                },
                _ => return None,
            },
            DataType::Struct(fields) => {
                let fields = fields.iter().map(|field| {
                    Some((field.name().clone(), Self::from_arrow(field.data_type())?))
                });
                Self::Struct(fields.collect::<Option<_>>()?)
            }
            _ => return None,
        })
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String => f.write_str("string"),
            Self::Boolean => f.write_str("boolean"),
            Self::Int => f.write_str("int"),
            Self::BigInt => f.write_str("bigint"),
            Self::Double => f.write_str("double"),
            Self::Decimal(precision, scale) => write!(f, "decimal({precision},{scale})"),
            Self::Date => f.write_str("date"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Json => f.write_str("json"),
            Self::Array(item) => write!(f, "array<{item}>"),
            Self::Map(value) => write!(f, "map<string,{value}>"),
            Self::Struct(fields) => {
                f.write_str("struct<")?;
                for (i, (name, kind)) in fields.iter().enumerate() {
                    let comma = if i == 0 { "" } else { "," };
                    write!(f, "{comma}{name}:{kind}")?;
                }
                f.write_str(">")
            }
        }
    }
}

impl FromStr for ColumnType {
    type Err = TypeError;

    fn from_str(text: &str) -> Result<Self, TypeError> {
        let mut parser = TypeParser {
            text,
            at: 0,
            depth: 0,
        };
        let kind = parser.kind()?;
        parser.space();
        if parser.at == text.len() {
            Ok(kind)
        } else {
            Err(parser.error("there is more after the type"))
        }
    }
}

/// A recursive-descent parser of the text of one type.
struct TypeParser<'a> {
    text: &'a str,
    at: usize,
    depth: u8,
}

impl TypeParser<'_> {
    /// The error that says `why` the text is no type.
    fn error(&self, why: &str) -> TypeError {
        TypeError(format!(
            "`{}` is no column type: {why} (types: {KNOWN})",
            self.text
        ))
    }

    /// Passes over spaces.
    fn space(&mut self) {
        while self.text[self.at..].starts_with(' ') {
            self.at += 1;
        }
    }

    /// Passes over a token that must come next.
    fn take(&mut self, token: char) -> Result<(), TypeError> {
        self.space();
        if self.text[self.at..].starts_with(token) {
            self.at += token.len_utf8();
            Ok(())
        } else {
            Err(self.error(&format!("expected `{token}`")))
        }
    }

    /// Whether a token comes next.
    fn peek(&mut self, token: char) -> bool {
        self.space();
        self.text[self.at..].starts_with(token)
    }

    /// The next word in lower case; empty where none comes next.
    fn word(&mut self) -> String {
        self.space();
        let rest = &self.text[self.at..];
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        self.at += end;
        rest[..end].to_ascii_lowercase()
    }

    /// The next word as a number of a decimal.
    fn number(&mut self) -> Result<u8, TypeError> {
        let word = self.word();
        word.parse()
            .map_err(|_| self.error("decimal takes a precision and a scale"))
    }

    /// The next type.
    fn kind(&mut self) -> Result<ColumnType, TypeError> {
        // Spectrum reads nested data of up to 100 levels. Nobody declares a tenth of them.
        self.depth += 1;
        if self.depth > 16 {
            return Err(self.error("more than 16 levels"));
        }
        let word = self.word();
        let kind = match word.as_str() {
            "string" => ColumnType::String,
            "boolean" => ColumnType::Boolean,
            "int" => ColumnType::Int,
            "bigint" => ColumnType::BigInt,
            "double" => ColumnType::Double,
            "date" => ColumnType::Date,
            "timestamp" => ColumnType::Timestamp,
            "json" => ColumnType::Json,
            "decimal" => {
                self.take('(')?;
                let precision = self.number()?;
                self.take(',')?;
                let scale = self.number()?;
                self.take(')')?;
                if !(1..=38).contains(&precision) || scale > precision {
                    return Err(self.error("precision is 1 to 38, scale 0 to precision"));
                }
                ColumnType::Decimal(precision, scale)
            }
            "array" => {
                self.take('<')?;
                let item = self.kind()?;
                self.take('>')?;
                ColumnType::Array(Box::new(item))
            }
            "map" => {
                self.take('<')?;
                if self.word() != "string" {
                    return Err(self.error("the keys of a map are strings"));
                }
                self.take(',')?;
                let value = self.kind()?;
                self.take('>')?;
                ColumnType::Map(Box::new(value))
            }
            "struct" => {
                self.take('<')?;
                let mut fields: Vec<(String, ColumnType)> = Vec::new();
                loop {
                    let name = self.word();
                    if name.is_empty() || fields.iter().any(|(known, _)| *known == name) {
                        return Err(self.error("the fields of a struct have distinct names"));
                    }
                    self.take(':')?;
                    fields.push((name, self.kind()?));
                    if !self.peek(',') {
                        break;
                    }
                    self.take(',')?;
                }
                self.take('>')?;
                ColumnType::Struct(fields)
            }
            other => {
                let near = nearest_type(other);
                return Err(self.error(&match near {
                    Some(near) => format!("`{other}` is not known, is it `{near}`?"),
                    None => format!("`{other}` is not known"),
                }));
            }
        };
        self.depth -= 1;
        Ok(kind)
    }
}

/// The type that other systems call by this name.
fn nearest_type(word: &str) -> Option<&'static str> {
    match word {
        "str" | "text" | "varchar" | "char" | "utf8" | "uuid" => Some("string"),
        "bool" => Some("boolean"),
        "integer" | "int32" | "i32" | "smallint" | "tinyint" => Some("int"),
        "long" | "int64" | "i64" | "int8" => Some("bigint"),
        "float" | "float64" | "f64" | "real" | "number" => Some("double"),
        "numeric" => Some("decimal(p,s)"),
        "datetime" | "timestamptz" | "time" => Some("timestamp"),
        "list" => Some("array<…>"),
        "object" | "row" | "jsonb" => Some("json"),
        _ => None,
    }
}

impl Serialize for ColumnType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ColumnType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_read_back_as_written() {
        for text in [
            "string",
            "decimal(38,10)",
            "array<map<string,bigint>>",
            "struct<a:int,b:array<struct<c:json,d:timestamp>>>",
        ] {
            let kind: ColumnType = text.parse().unwrap();
            assert_eq!(kind.to_string(), text);
        }
        assert_eq!(
            "Struct< A : INT , b:decimal( 4 , 2 ) >"
                .parse::<ColumnType>()
                .unwrap()
                .to_string(),
            "struct<a:int,b:decimal(4,2)>"
        );
    }

    #[test]
    fn a_wrong_type_names_the_one_that_is_meant() {
        for (text, hint) in [
            ("varchar", "is it `string`?"),
            ("long", "is it `bigint`?"),
            ("decimal(39,2)", "precision is 1 to 38"),
            ("map<int,string>", "keys of a map are strings"),
            ("struct<a:int,a:int>", "distinct names"),
            ("array<int", "expected `>`"),
            ("int int", "more after the type"),
            ("", "is not known"),
        ] {
            let error = text.parse::<ColumnType>().unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
