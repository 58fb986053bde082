//! Columns that were declared later: their values are taken out of the `extra` of stored events.
//!
//! ```text
//! stored event: os NULL, extra {"device":{"os":"ios","ram":4}}
//!   ──▶ Refill ──▶ os "ios", extra {"device":{"ram":4}}            as if the raw object were read again
//! ```
//!
//! `extra` is the record without the members that columns named at that time. The reader that finds columns in records
//! also finds later columns in `extra`, and leaves the members that it would have left of the record.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use super::builder::Builder;
use super::members::Members;
use super::rows::{excerpt, is_null};
use super::shape::{Shape, ValueReader};
use super::values::{Fit, Tally, coerced, fits, scalar};
use crate::event::{Column, DecodeSpec, EXTRA, OnTypeError};

/// Why the columns of stored events cannot be filled.
#[derive(Debug, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "the text of each error says what its fields are"
)]
pub enum RefillError {
    /// A value does not fit. If the raw object were read again, the record would be a reject.
    #[error("`{column}` is no {kind}: {value}")]
    Misfit {
        /// The row of the batch.
        row: usize,
        /// The name of the column.
        column: String,
        /// The type of the column.
        kind: String,
        /// The beginning of the value.
        value: String,
    },
    /// An `extra` is no JSON object.
    #[error("`extra` of row {row} is no JSON object")]
    NoObject { row: usize },
    /// The values do not make a batch.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// Fills columns of stored events.
#[derive(Debug)]
pub struct Refill {
    columns: Vec<(Column, Shape, ValueReader)>,
    /// The nodes of the columns.
    places: Vec<usize>,
    members: Members,
    /// The `extra` of a row with the objects in its strings behind it.
    whole: String,
    on_type_error: OnTypeError,
}

impl Refill {
    /// `columns` are the names of the columns of `spec` that are filled. They are nullable and have no default, and no
    /// other column holds their members or parts of them.
    pub fn new(spec: &DecodeSpec, columns: &BTreeSet<String>) -> Self {
        let named = spec.columns.iter();
        let named = named.filter(|column| columns.contains(&column.name));
        let columns: Vec<Column> = named.cloned().collect();
        let (members, places) = Members::new(&columns, spec.limits.max_depth);
        let prepared = columns.into_iter().map(|column| {
            let shape = Shape::of(&column, true);
            let reader = ValueReader::of(&column, spec);
            (column, shape, reader)
        });
        Self {
            columns: prepared.collect(),
            places,
            members,
            whole: String::new(),
            on_type_error: spec.on_type_error,
        }
    }

    /// The batch with these columns filled where they are null, and with `extra` without their members. `None`
    /// where no row changes. The batch must have these columns and `extra`.
    ///
    /// # Errors
    /// A value does not fit its column, where the source rejects such records; or an `extra` is no JSON object.
    pub fn fill(&mut self, batch: &RecordBatch) -> Result<Option<RecordBatch>, RefillError> {
        let schema = batch.schema();
        let extra_index = schema.index_of(EXTRA)?;
        let extra = batch.column(extra_index).as_string::<i32>();
        if extra.null_count() == extra.len() {
            return Ok(None);
        }
        let mut stored = Vec::with_capacity(self.columns.len());
        for (column, _, _) in &self.columns {
            let index = schema.index_of(&column.name)?;
            stored.push(Filled {
                index,
                builder: Builder::new(batch.column(index).data_type()),
                filled: vec![false; batch.num_rows()],
            });
        }
        let mut left = Builder::new(&DataType::Utf8);
        let (mut text, mut changed) = (String::new(), false);
        for row in 0..extra.len() {
            if extra.is_null(row) {
                stored.iter_mut().for_each(|column| column.builder.null());
                left.null();
                continue;
            }
            let record = extra.value(row);
            let length = self.members.read(record.as_bytes());
            if length.ok() != Some(record.len()) {
                return Err(RefillError::NoObject { row });
            }
            let mut whole = std::mem::take(&mut self.whole);
            let members = match self.members.open(record, &mut whole) {
                true => &whole,
                false => record,
            };
            changed |= self.fill_row(batch, row, members, &mut stored)?;
            text.clear();
            match self.members.extra(members, &mut text) {
                true => left.text(&text),
                false => left.null(),
            }
            self.whole = whole;
            // Values that are filled in are left out of `extra`, and so are objects that have become empty.
            changed |= text != record;
        }
        if !changed {
            return Ok(None);
        }
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        for mut column in stored {
            let values = column.builder.finish()?;
            if let Some(old) = columns.get_mut(column.index) {
                *old = zip(&BooleanArray::from(column.filled), &values, old)?;
            }
        }
        if let Some(column) = columns.get_mut(extra_index) {
            *column = left.finish()?;
        }
        Ok(Some(RecordBatch::try_new(Arc::clone(&schema), columns)?))
    }

    /// Appends the values of one row, whose members lie in `record`. The result says whether a column is filled with a value.
    /// It may be a struct without fields, which leaves `extra` as it is.
    fn fill_row(
        &mut self,
        batch: &RecordBatch,
        row: usize,
        record: &str,
        stored: &mut [Filled],
    ) -> Result<bool, RefillError> {
        let mut changed = false;
        let columns = self.columns.iter().zip(&self.places);
        for (((column, shape, reader), place), stored) in columns.zip(stored) {
            let Some(value) = self.members.slot(*place).text(record) else {
                stored.builder.null();
                continue;
            };
            if batch.column(stored.index).is_valid(row) {
                // A part of the value did not fit, and for this reason `extra` keeps all of it.
                self.members.force(*place);
                stored.builder.null();
                continue;
            }
            let fit = append(&mut stored.builder, shape, value, reader);
            if fit == Fit::No && self.on_type_error == OnTypeError::Reject {
                return Err(RefillError::Misfit {
                    row,
                    column: column.name.clone(),
                    kind: column.kind.to_string(),
                    value: excerpt(value),
                });
            }
            if fit != Fit::Whole {
                self.members.force(*place);
            }
            if let Some(filled) = stored.filled.get_mut(row) {
                *filled = fit != Fit::No;
            }
            changed |= fit != Fit::No && !is_null(value);
        }
        Ok(changed)
    }
}

/// A column of stored events that is filled.
struct Filled {
    /// Its index in the batch.
    index: usize,
    /// The values from `extra`.
    builder: Builder,
    /// For each row, whether the value from `extra` takes the place of the stored value.
    filled: Vec<bool>,
}

/// Appends a value, or NULL where it does not fit.
fn append(builder: &mut Builder, shape: &Shape, value: &str, reader: &ValueReader) -> Fit {
    if is_null(value) {
        builder.null();
        return Fit::Whole;
    }
    let Shape::Scalar(kind) = shape else {
        let fit = fits(shape, value, reader, false, &mut Tally::default());
        match fit {
            Fit::No => builder.null(),
            Fit::Whole | Fit::Partly => builder.json(shape, value, reader),
        }
        return fit;
    };
    let read = scalar(kind, value, reader);
    match read.or_else(|| reader.coerce.then(|| coerced(kind, value)).flatten()) {
        Some(scalar) => {
            builder.scalar(&scalar);
            Fit::Whole
        }
        None => {
            builder.null();
            Fit::No
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write;

    use arrow::array::new_null_array;
    use bytes::Bytes;
    use rand::seq::IndexedRandom;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::event::{Accept, Limits};
    use crate::raw::{DecodeMemory, Decoded, Decoder, PieceError, Pieces};
    use crate::time::TimeUnit;

    struct Whole(Option<Bytes>);

    impl Pieces for Whole {
        fn next(&mut self) -> Result<Option<Bytes>, PieceError> {
            Ok(self.0.take())
        }
    }

    fn decoded(spec: &DecodeSpec, text: &str) -> Option<RecordBatch> {
        let mut decoder = Decoder::new(spec, &DecodeMemory::new(1 << 20, 1));
        let mut events = None;
        let mut pieces = Whole(Some(Bytes::from(text.to_owned())));
        let out = &mut |decoded| {
            if let Decoded::Events(batch) = decoded {
                assert!(events.replace(batch).is_none(), "one batch");
            }
            Ok(())
        };
        decoder.read(1_900_000_000_000, &mut pieces, out).unwrap();
        events
    }

    const NAMES: [&str; 3] = ["a", "b", "c"];
    const KINDS: [&str; 11] = [
        "string",
        "bigint",
        "double",
        "boolean",
        "json",
        "timestamp",
        "decimal(5,1)",
        "array<bigint>",
        "map<string,double>",
        "array<struct<a:bigint>>",
        "struct<a:string,b:bigint>",
    ];

    fn value(random: &mut ChaCha8Rng, depth: usize, out: &mut String) {
        let space =
            |random: &mut ChaCha8Rng| [" ", "", ""].choose(random).copied().unwrap_or_default();
        match random.random_range(0..if depth < 4 { 14 } else { 7 }) {
            0 => out.push_str("null"),
            1 => write!(out, "{}", random.random_range(-3..30)).unwrap(),
            2 => write!(out, "{}.5e1", random.random_range(0..30)).unwrap(),
            3 => out.push_str("true"),
            4 => out.push_str(r#""text""#),
            5 => out.push_str(r#""es\"c\u0061ped""#),
            6 => out.push_str(r#""2024-05-01T00:00:00Z""#),
            12 | 13 => {
                let mut inside = String::new();
                value(random, depth + 1, &mut inside);
                out.push_str(&serde_json::to_string(&inside).unwrap());
            }
            7 => {
                out.push('[');
                for i in 0..random.random_range(0..3) {
                    out.push_str(if i == 0 { "" } else { "," });
                    value(random, depth + 1, out);
                }
                out.push(']');
            }
            _ => {
                out.push('{');
                for i in 0..random.random_range(0..4) {
                    out.push_str(if i == 0 { "" } else { "," });
                    out.push_str(space(random));
                    let name = NAMES.choose(random).unwrap();
                    match random.random_range(0..8) {
                        0 => write!(out, "\"\\u00{:x}\"", name.as_bytes()[0]).unwrap(),
                        _ => write!(out, "\"{name}\"").unwrap(),
                    }
                    write!(out, "{}:{}", space(random), space(random)).unwrap();
                    value(random, depth + 1, out);
                }
                out.push_str(space(random));
                out.push('}');
            }
        }
    }

    fn record(random: &mut ChaCha8Rng) -> String {
        let mut text = String::from("{\"t\":\"2024-05-01T00:00:00Z\"");
        for name in NAMES {
            if random.random_bool(0.8) {
                write!(text, ",\"{name}\":").unwrap();
                value(random, 0, &mut text);
            }
        }
        text + "}\n"
    }

    fn column(random: &mut ChaCha8Rng, name: String) -> Column {
        let length = random.random_range(1..4);
        let names = (0..length).map(|_| (*NAMES.choose(random).unwrap()).to_owned());
        let path = names.collect();
        Column {
            name,
            kind: KINDS.choose(random).unwrap().parse().unwrap(),
            path,
            default: None,
            required: false,
            paths: std::collections::BTreeMap::new(),
            coerce: random.random_bool(0.3),
            time_formats: Vec::new(),
        }
    }

    /// Filling from `extra` gives the same values as decoding with all columns, for any records.
    #[test]
    fn as_if_read_from_raw() {
        let mut random = ChaCha8Rng::seed_from_u64(42);
        let (mut filled, mut refused) = (0, 0);
        for _ in 0..1_500 {
            let mut columns: Vec<Column> = vec![Column {
                path: vec!["t".to_owned()],
                kind: "timestamp".parse().unwrap(),
                ..column(&mut random, "t".to_owned())
            }];
            for i in 0..random.random_range(0..3) {
                columns.push(column(&mut random, format!("old{i}")));
            }
            let old = columns.len();
            for i in 0..random.random_range(1..4) {
                let new = column(&mut random, format!("new{i}"));
                let within = |a: &Column, b: &Column| a.path.starts_with(&b.path);
                if columns
                    .iter()
                    .all(|other| !within(other, &new) && !within(&new, other))
                {
                    columns.push(new);
                }
            }
            let names = columns.iter().skip(old).map(|column| column.name.clone());
            let names: BTreeSet<String> = names.collect();
            let null = random.random_bool(0.6);
            let now = DecodeSpec {
                columns,
                event_time: "t".to_owned(),
                unit: TimeUnit::Ms,
                naive_timezone: None,
                epoch_timezone: None,
                accept: Accept {
                    from_ms: 0,
                    ahead_ms: 0,
                },
                on_type_error: match null {
                    true => OnTypeError::Null,
                    false => OnTypeError::Reject,
                },
                record_sha256: false,
                limits: Limits::default(),
                unwrap: Vec::new(),
            };
            let mut then = now.clone();
            then.columns.truncate(old);
            let records: String = (0..8).map(|_| record(&mut random)).collect();
            let (Some(stored), raw) = (decoded(&then, &records), decoded(&now, &records)) else {
                continue;
            };
            let schema = Decoder::new(&now, &DecodeMemory::new(1 << 20, 1)).schema();
            let columns = schema.fields().iter().map(|field| {
                let stored_column = stored.column_by_name(field.name()).cloned();
                stored_column
                    .unwrap_or_else(|| new_null_array(field.data_type(), stored.num_rows()))
            });
            let stored = RecordBatch::try_new(schema.clone(), columns.collect()).unwrap();
            let mut refill = Refill::new(&now, &names);
            match refill.fill(&stored) {
                Ok(result) => {
                    let given = result.unwrap_or(stored);
                    assert_eq!(Some(&given), raw.as_ref(), "{now:?}\n{records}");
                    // There is nothing more to fill.
                    assert_eq!(refill.fill(&given).unwrap(), None, "{now:?}\n{records}");
                    filled += 1;
                }
                Err(RefillError::Misfit { .. }) => {
                    let events = raw.map_or(0, |raw| raw.num_rows());
                    assert!(!null && events < stored.num_rows(), "{now:?}\n{records}");
                    refused += 1;
                }
                Err(error) => panic!("{error}: {now:?}\n{records}"),
            }
        }
        assert!(filled > 300 && refused > 100, "{filled} {refused}");
    }
}
