//! Column types prepared for reading: which member each field of a struct is read from, and how times and values of
//! other types are read. It is made once for each column.
//!
//! ```text
//! array<struct<product_id:string,seller:struct<id:string>>>   paths: product_id = productId, seller.id = shop.ID
//!   ──▶ Array ─ Struct ─┬─ productId ──▶ field 0
//!                       └─ seller ─────▶ field 1 ─ Struct ── shop ─ ID ──▶ field 0
//! ```

use super::json::{ObjectMembers, Skipper, quoted, resolved};
use crate::event::{Column, ColumnType, DecodeSpec};
use crate::time::{TimeFormat, TimeUnit, Zones, read_date, read_epoch, read_mongo, read_time};

/// A column's type, prepared for reading.
#[derive(Debug)]
pub(super) enum Shape {
    /// A type without values inside.
    Scalar(ColumnType),
    /// A list of values.
    Array(Box<Shape>),
    /// Values by keys that are strings.
    Map(Box<Shape>),
    /// Fields.
    Struct(Fields),
}

/// The fields of a struct, and the members that they are read from.
#[derive(Debug)]
pub(super) struct Fields {
    pub shapes: Vec<Shape>,
    steps: Vec<Step>,
}

/// A member name on the path of fields.
#[derive(Debug, Default)]
struct Step {
    name: String,
    /// The fields whose path ends here.
    fields: Vec<usize>,
    /// The names beneath.
    inside: Vec<Step>,
}

/// The values of the fields of a struct.
pub(super) struct FieldValues<'a> {
    /// The value of each field; `None` where the object has none.
    pub values: Vec<Option<&'a str>>,
    /// Whether the object has members that no field is read from.
    pub unnamed: bool,
    /// How many paths met a value that has no members, and is not null.
    pub unreached: u64,
}

impl Shape {
    /// The shape of a column's type. Without `paths`, each field is read from the member of its own name.
    pub fn of(column: &Column, paths: bool) -> Self {
        Self::at(column, &column.kind, paths, "")
    }

    /// The shape of a type inside a column. `above` is the dotted place of the struct around it, with a dot behind it,
    /// and is empty outside all structs.
    fn at(column: &Column, kind: &ColumnType, paths: bool, above: &str) -> Self {
        let inside = |kind: &ColumnType| Box::new(Self::at(column, kind, paths, above));
        match kind {
            ColumnType::Array(item) => Self::Array(inside(item)),
            ColumnType::Map(value) => Self::Map(inside(value)),
            ColumnType::Struct(fields) => {
                let mut steps = Vec::new();
                let mut shapes = Vec::with_capacity(fields.len());
                for (index, (name, kind)) in fields.iter().enumerate() {
                    let place = format!("{above}{name}");
                    let path = match paths {
                        true => column.field_path(&place, name),
                        false => std::slice::from_ref(name),
                    };
                    add(&mut steps, path, index);
                    shapes.push(Self::at(column, kind, paths, &format!("{place}.")));
                }
                Self::Struct(Fields { shapes, steps })
            }
            kind => Self::Scalar(kind.clone()),
        }
    }

    /// Whether values of this shape have values inside.
    pub const fn is_nested(&self) -> bool {
        !matches!(self, Self::Scalar(_))
    }
}

/// Adds the path of a field.
fn add(steps: &mut Vec<Step>, path: &[String], field: usize) {
    let [name, rest @ ..] = path else {
        return;
    };
    let at = match steps.iter().position(|step| step.name == *name) {
        Some(at) => at,
        None => {
            steps.push(Step {
                name: name.clone(),
                ..Step::default()
            });
            steps.len() - 1
        }
    };
    if let Some(step) = steps.get_mut(at) {
        match rest {
            [] => step.fields.push(field),
            rest => add(&mut step.inside, rest, field),
        }
    }
}

impl Fields {
    /// The value of each field in a valid JSON object. Where a name occurs several times, the last member counts.
    pub fn values<'a>(&self, object: &'a str) -> FieldValues<'a> {
        let mut found = FieldValues {
            values: vec![None; self.shapes.len()],
            unnamed: false,
            unreached: 0,
        };
        found.take(&self.steps, object);
        found
    }
}

impl<'a> FieldValues<'a> {
    /// Takes the values that the steps lead to in an object.
    fn take(&mut self, steps: &[Step], object: &'a str) {
        let mut skipper = Skipper::new(u32::MAX);
        for member in ObjectMembers::of(object, &mut skipper) {
            // A name with half of a surrogate pair is the name of no field.
            let step =
                resolved(member.name).and_then(|name| steps.iter().find(|step| step.name == *name));
            let Some(step) = step else {
                self.unnamed = true;
                continue;
            };
            for field in &step.fields {
                self.set(*field, Some(member.value));
            }
            if step.inside.is_empty() {
                continue;
            }
            self.forget(&step.inside);
            if member.value.starts_with('{') {
                self.take(&step.inside, member.value);
            } else if member.value != "null" {
                self.unreached += 1;
                self.unnamed |= step.fields.is_empty();
            }
        }
    }

    /// Forgets the values of an earlier member of the same name.
    fn forget(&mut self, steps: &[Step]) {
        for step in steps {
            for field in &step.fields {
                self.set(*field, None);
            }
            self.forget(&step.inside);
        }
    }

    fn set(&mut self, field: usize, value: Option<&'a str>) {
        if let Some(slot) = self.values.get_mut(field) {
            *slot = value;
        }
    }
}

/// How the values of one column are read.
#[derive(Debug, Clone)]
pub(super) struct ValueReader {
    /// The unit of times.
    pub unit: TimeUnit,
    /// The zones of times that do not say how far they are from UTC.
    pub zones: Zones,
    /// The formats of times that are tried first.
    formats: Vec<TimeFormat>,
    /// Whether values of other types are converted.
    pub coerce: bool,
}

impl ValueReader {
    /// The reader of a column of `spec`, whose formats have been checked.
    pub fn of(column: &Column, spec: &DecodeSpec) -> Self {
        let formats = column.time_formats.iter();
        Self {
            formats: formats
                .filter_map(|text| TimeFormat::new(text).ok())
                .collect(),
            coerce: column.coerce,
            ..Self::strict(
                spec.unit,
                Zones {
                    naive: spec.naive_timezone,
                    epoch: spec.epoch_timezone,
                },
            )
        }
    }

    /// A reader that converts nothing and knows no formats.
    pub const fn strict(unit: TimeUnit, zones: Zones) -> Self {
        Self {
            unit,
            zones,
            formats: Vec::new(),
            coerce: false,
        }
    }

    /// Reads the text of a JSON value as units since 1970 UTC. `None` where it is no time.
    #[inline]
    pub fn time(&self, value: &str) -> Option<i64> {
        if !self.formats.is_empty()
            && let Some(time) = self.by_format(value, |format, text| {
                format.read(text, self.unit, self.zones.naive)
            })
        {
            return Some(time);
        }
        match quoted(value) {
            Some(text) => read_time(&resolved(text)?, self.unit, self.zones),
            None => read_epoch(value, self.unit, self.zones.epoch)
                .or_else(|| read_mongo(value, self.unit, self.zones)),
        }
    }

    /// Reads the text of a JSON value as days since 1970. `None` where it is no date.
    #[inline]
    pub fn date(&self, value: &str) -> Option<i32> {
        if !self.formats.is_empty()
            && let Some(date) = self.by_format(value, TimeFormat::date)
        {
            return Some(date);
        }
        read_date(&resolved(quoted(value)?)?)
    }

    /// The first result of a format. A text, a number and an array can have a format.
    #[cold]
    fn by_format<T>(
        &self,
        value: &str,
        read: impl Fn(&TimeFormat, &str) -> Option<T>,
    ) -> Option<T> {
        let text = match quoted(value) {
            Some(text) => resolved(text)?,
            None => value.into(),
        };
        let is_array = value.starts_with('[');
        let mut formats = self.formats.iter();
        formats.find_map(|format| match is_array && !format.is_array() {
            true => None,
            false => read(format, &text),
        })
    }

    /// Whether the value is a time without an offset, which cannot be read because no zone is given.
    #[cold]
    pub fn lacks_offset(&self, value: &str) -> bool {
        let naive = Some(crate::time::Zone(chrono_tz::UTC));
        let zones = Zones {
            naive,
            ..self.zones
        };
        let with = Self {
            zones,
            ..self.clone()
        };
        self.zones.naive.is_none() && with.time(value).is_some()
    }
}
