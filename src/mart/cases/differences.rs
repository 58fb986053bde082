//! How the rows of a mart differ from the expected ones, whatever their order.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::Serialize;

use super::Rows;

/// The most rows of one kind that are told.
const TOLD: usize = 50;
/// The most rows that are compared with each other, to find the cells that have changed.
const PAIRED: usize = 500;

/// A row as text. `None` is NULL.
type Cells = Vec<Option<String>>;

/// The differences of rows from expected rows. Each list has at most fifty rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unlike {
    /// The columns that are compared.
    pub columns: Vec<String>,
    /// How many rows are expected and not there, there and not expected, and there with other values.
    pub counts: Counts,
    /// Rows that are expected and not there.
    pub missing: Vec<Cells>,
    /// Rows that are there and not expected.
    pub unexpected: Vec<Cells>,
    /// Rows that are there with other values in some columns.
    pub changed: Vec<ChangedRow>,
}

/// The number of rows of each kind of difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]

pub struct Counts {
    /// Rows that are expected and not there.
    pub missing: u64,
    /// Rows that are there and not expected.
    pub unexpected: u64,
    /// Rows that are there with other values.
    pub changed: u64,
}

/// A row that is there with other values than expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChangedRow {
    /// The row that is expected.
    pub expected: Cells,
    /// The cells that differ.
    pub cells: Vec<ChangedCell>,
}

/// A cell that has another value than expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChangedCell {
    /// The name of the column.
    pub column: String,
    /// The expected value.
    pub expected: Option<String>,
    /// The value that is there.
    pub found: Option<String>,
}

impl Unlike {
    /// The differences of `made` from `expected` in these columns, or `None`. Rows whose columns `key` are equal are the
    /// same row with other values. Without a key, rows belong together that have most values in common.
    ///
    /// # Errors
    /// A value that has no text.
    pub fn of(
        made: &Rows,
        expected: &Rows,
        columns: &BTreeSet<String>,
        key: &[String],
    ) -> Result<Option<Self>, ArrowError> {
        let names: Vec<String> = (made.schema.fields().iter())
            .map(|field| field.name().clone())
            .filter(|name| columns.contains(name))
            .collect();
        let made = cells(made, &names)?;
        let mut left: BTreeMap<Cells, (u64, Cells)> = BTreeMap::new();
        for (alike, shown) in made {
            left.entry(alike).or_insert((0, shown)).0 += 1;
        }
        let mut missing = Vec::new();
        for (alike, shown) in cells(expected, &names)? {
            match left.get_mut(&alike) {
                Some((copies, _)) if *copies > 0 => *copies -= 1,
                _ => missing.push(shown),
            }
        }
        let mut unexpected: Vec<Cells> = Vec::new();
        for (_, (copies, shown)) in left {
            unexpected.extend((0..copies).map(|_| shown.clone()));
        }
        if missing.is_empty() && unexpected.is_empty() {
            return Ok(None);
        }
        missing.sort();
        unexpected.sort();
        let key: Vec<usize> = (key.iter())
            .filter_map(|column| names.iter().position(|name| name == column))
            .collect();
        let mut changed = paired(&mut missing, &mut unexpected, &key, &names);
        let counts = Counts {
            missing: missing.len() as u64,
            unexpected: unexpected.len() as u64,
            changed: changed.len() as u64,
        };
        missing.truncate(TOLD);
        unexpected.truncate(TOLD);
        changed.truncate(TOLD);
        Ok(Some(Self {
            columns: names,
            counts,
            missing,
            unexpected,
            changed,
        }))
    }
}

/// Takes the pairs of rows out of both lists that are the same row with other values.
fn paired(
    missing: &mut Vec<Cells>,
    unexpected: &mut Vec<Cells>,
    key: &[usize],
    names: &[String],
) -> Vec<ChangedRow> {
    let mut changed = Vec::new();
    if missing.len() > PAIRED || unexpected.len() > PAIRED {
        return changed;
    }
    let mut alone = Vec::new();
    for expected in missing.drain(..) {
        let common = |found: &Cells| -> usize {
            let cells = found.iter().zip(&expected);
            cells.filter(|(a, b)| a == b).count()
        };
        let belongs = |found: &&Cells| match key {
            [] => common(found) * 2 >= names.len(),
            key => key.iter().all(|i| found.get(*i) == expected.get(*i)),
        };
        let candidates = unexpected.iter().enumerate();
        let candidates = candidates.filter(|(_, found)| belongs(found));
        // Among equals the first one counts.
        let best = candidates.max_by_key(|(i, found)| (common(found), std::cmp::Reverse(*i)));
        let Some((i, _)) = best else {
            alone.push(expected);
            continue;
        };
        let found = unexpected.remove(i);
        let cells = names.iter().zip(expected.iter().zip(&found));
        let cells = cells.filter(|(_, (a, b))| a != b);
        let cells = cells.map(|(column, (expected, found))| ChangedCell {
            column: column.clone(),
            expected: expected.clone(),
            found: found.clone(),
        });
        let cells = cells.collect();
        changed.push(ChangedRow { expected, cells });
    }
    *missing = alone;
    changed
}

/// Each row twice: as it is compared, and as it is shown. Doubles are compared to nine digits, because a sum of doubles
/// depends on the order of its terms.
fn cells(rows: &Rows, names: &[String]) -> Result<Vec<(Cells, Cells)>, ArrowError> {
    let mut all = Vec::new();
    let options = FormatOptions::default();
    for batch in &rows.batches {
        let columns = names.iter().filter_map(|name| batch.column_by_name(name));
        let columns: Vec<_> = columns.collect();
        let formatters = columns
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options));
        let formatters: Vec<ArrayFormatter<'_>> = formatters.collect::<Result<_, _>>()?;
        for row in 0..RecordBatch::num_rows(batch) {
            let mut shown = Cells::new();
            let mut alike = Cells::new();
            for (formatter, column) in formatters.iter().zip(&columns) {
                if column.is_null(row) {
                    shown.push(None);
                    alike.push(None);
                    continue;
                }
                let text = formatter.value(row).try_to_string()?;
                alike.push(Some(match column.data_type() {
                    DataType::Float64 => {
                        let value = column.as_primitive::<Float64Type>().value(row);
                        // Adding zero makes -0.0 zero.
                        format!("{:.8e}", value + 0.0)
                    }
                    _ => text.clone(),
                }));
                shown.push(Some(text));
            }
            all.push((alike, shown));
        }
    }
    Ok(all)
}
