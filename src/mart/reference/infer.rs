//! Which types the columns of a reference have where none are declared. No value loses anything: an id such as `007`
//! and a number that a double does not hold stay text.

use crate::event::ColumnType;
use crate::time::read_date;

/// The types that all cells of a CSV column so far can have.
#[derive(Debug, Clone)]
pub(super) struct OfCells {
    /// All cells are NULL.
    none: bool,
    integer: bool,
    number: bool,
    boolean: bool,
    date: bool,
}

impl Default for OfCells {
    fn default() -> Self {
        Self {
            none: true,
            integer: true,
            number: true,
            boolean: true,
            date: true,
        }
    }
}

impl OfCells {
    /// Notes a cell that is not NULL.
    pub(super) fn note(&mut self, value: &str) {
        self.none = false;
        self.integer = self.integer && is_integer(value) && value.parse::<i64>().is_ok();
        self.number = self.number && is_number(value);
        let is_boolean =
            || value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false");
        self.boolean = self.boolean && is_boolean();
        self.date =
            self.date && value.as_bytes().get(4) == Some(&b'-') && read_date(value).is_some();
    }

    /// The type of the column.
    pub(super) const fn kind(&self) -> ColumnType {
        match self {
            Self { none: true, .. } => ColumnType::String,
            Self { integer: true, .. } => ColumnType::BigInt,
            Self { number: true, .. } => ColumnType::Double,
            Self { boolean: true, .. } => ColumnType::Boolean,
            Self { date: true, .. } => ColumnType::Date,
            _ => ColumnType::String,
        }
    }
}

/// Whether a text is digits without a leading zero: `007` is an id.
fn is_integer(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    digits == "0"
        || (digits.starts_with(|c: char| ('1'..='9').contains(&c))
            && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether a text is a number that a double keeps: an integer that it holds exactly, or digits with a point or an
/// exponent.
fn is_number(value: &str) -> bool {
    if is_integer(value) {
        return value
            .parse::<i64>()
            .is_ok_and(|n| n.unsigned_abs() <= 1 << 53);
    }
    let whole = value.split(['.', 'e', 'E']).next().unwrap_or_default();
    is_integer(whole)
        && value.ends_with(|c: char| c.is_ascii_digit())
        && value
            .parse::<f64>()
            .is_ok_and(|double| double.is_finite() && keeps_digits(double, value))
}

/// Whether `double` has the same digits as `value` when it is written with as many digits.
fn keeps_digits(double: f64, value: &str) -> bool {
    let digits = |number: &str| -> String {
        let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        digits.trim_start_matches('0').to_owned()
    };
    let wanted = digits(value);
    digits(&format!("{double:.*e}", wanted.len().saturating_sub(1))) == wanted
}

/// The kinds of JSON value that a member had in the lines so far.
#[derive(Default)]
pub(super) struct OfMembers {
    string: bool,
    integer: bool,
    double: bool,
    boolean: bool,
    nested: bool,
    /// There was an integer that a double does not hold.
    wide: bool,
}

impl OfMembers {
    /// Notes one JSON value, as it is written.
    pub(super) fn note(&mut self, value: &str) {
        match value.as_bytes() {
            [b'n', ..] => {}
            [b't' | b'f', ..] => self.boolean = true,
            [b'"', ..] => self.string = true,
            [b'{' | b'[', ..] => self.nested = true,
            _ if is_integer(value) => match value.parse::<i64>() {
                Ok(_) => {
                    self.integer = true;
                    self.wide |= !is_number(value);
                }
                Err(_) => self.string = true,
            },
            _ if is_number(value) => self.double = true,
            _ => self.string = true,
        }
    }

    /// The type of the column. Values of mixed kinds, and nested values, are kept as text.
    pub(super) fn kind(&self) -> ColumnType {
        match (
            self.string || self.nested,
            self.boolean,
            self.double,
            self.integer,
        ) {
            (false, false, false, true) => ColumnType::BigInt,
            (false, false, true, _) if !self.wide => ColumnType::Double,
            (false, true, false, false) => ColumnType::Boolean,
            _ => ColumnType::String,
        }
    }
}
