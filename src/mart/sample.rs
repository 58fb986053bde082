//! Whether a date of a mart has the same rows when its SELECT sees other dates too.
//!
//! ```text
//! rows of the date, from this date alone    ─┐ both sorted by their exact columns
//! rows of the date, from the dates around it ┴──▶ the same, as multisets?
//! ```
//!
//! Numbers that are rounded are compared to nine digits, because a sum of doubles depends on the order of its
//! terms. Lists and maps are compared by their number of items, because the order of the items may differ as well.
//! Structs are compared by whether they are NULL.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, UInt32Array};
use arrow::compute::{SortOptions, cast, take_record_batch};
use arrow::datatypes::{DataType, Float64Type};
use arrow::error::ArrowError;
use arrow::row::{OwnedRow, RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::NaiveDate;
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{LogicalPlanBuilder, col, lit};
use futures::StreamExt;

use super::{Input, Mart, MartError, guarded, local, order, planned, register_all, sorted};
use crate::catalog::memory_table;
use crate::engine::{self, Engine};
use crate::layout::DATE;

/// The most rows that are held where all their exact columns are the same.
const ALIKE: usize = 100_000;
/// The most characters of a row that a message shows.
const SHOWN: usize = 160;

/// How the plan of a mart treats dates and the order of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateTraits {
    /// The rows of each date come from rows of this date alone, so nothing needs to be compared.
    pub of_one_date: bool,
    /// No row depends on the order in which rows are read.
    pub free_of_order: bool,
}

/// How the plan of a mart treats dates and the order of rows. Only the dates of the tables `of` count.
///
/// # Errors
/// The mart cannot be planned over these inputs.
pub async fn date_traits(
    engine: &Engine,
    mart: &Mart,
    inputs: &[Input],
    of: &BTreeSet<String>,
) -> Result<DateTraits, MartError> {
    guarded(mart, async {
        let session = engine.session();
        register_all(&session, mart, inputs)?;
        let (plan, _) = planned(&session, mart, None).await?;
        let failing = |error| MartError::running(mart, &error);
        let free_of_order = order::is_of_no_account(&plan).map_err(failing)?;
        let plan = engine::optimized(&session.state(), plan).map_err(failing)?;
        Ok(DateTraits {
            of_one_date: local::is_of_one_date(&plan, of).map_err(failing)?,
            free_of_order,
        })
    })
    .await
}

/// The rows that a mart has for one date over `inputs`, for [`compare`].
///
/// # Errors
/// The mart cannot be planned over these inputs.
pub async fn of_date(
    engine: &Engine,
    mart: &Mart,
    inputs: &[Input],
    date: NaiveDate,
) -> Result<SendableRecordBatchStream, MartError> {
    let session = engine.session();
    register_all(&session, mart, inputs)?;
    let (plan, definition) = planned(&session, mart, None).await?;
    let plan = LogicalPlanBuilder::from(plan)
        .filter(col(DATE).eq(lit(date.to_string())))
        .and_then(LogicalPlanBuilder::build)
        .map_err(|error| MartError::planning(&mart.file, &error))?;
    let schema = definition.full_schema();
    let exact = schema
        .fields()
        .iter()
        .filter(|field| is_exact(field.data_type()));
    let exact: Vec<&String> = exact.map(|field| field.name()).collect();
    let rows = sorted(&session, plan, exact.into_iter()).await;
    rows.map_err(|error| MartError::running(mart, &error))
}

/// The same inputs in memory, with their rows in the opposite order.
///
/// # Errors
/// An input cannot be read.
pub async fn backwards(
    engine: &Engine,
    mart: &Mart,
    inputs: &[Input],
) -> Result<Vec<Input>, MartError> {
    let failing = |error: DataFusionError| MartError::running(mart, &error);
    let session = engine.session();
    let mut made = Vec::new();
    for (name, table) in inputs {
        let schema = table.schema();
        let rows = session.read_table(Arc::clone(table)).map_err(failing)?;
        let rows = rows.collect().await.map_err(failing)?;
        let turned = rows.iter().rev().map(|batch| {
            let rows = u32::try_from(batch.num_rows()).unwrap_or(u32::MAX);
            let order = UInt32Array::from_iter_values((0..rows).rev());
            take_record_batch(batch, &order)
        });
        let turned = turned.collect::<Result<Vec<_>, ArrowError>>();
        let turned = turned.map_err(|error| failing(error.into()))?;
        made.push((name.clone(), memory_table(schema, turned).map_err(failing)?));
    }
    Ok(made)
}

/// Whether values of a type are compared exactly.
fn is_exact(kind: &DataType) -> bool {
    !kind.is_floating() && !kind.is_nested()
}

/// How two evaluations of a date differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compared {
    /// The rows are the same.
    Same,
    /// The rows differ.
    Differs(Difference),
    /// It is not known: too many rows have the same exact columns.
    TooManyAlike,
}

/// A difference between two evaluations of a date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The number of rows of the date that come from this date alone.
    pub alone: u64,
    /// The number of rows of the date that come from this date and the dates around it.
    pub among: u64,
    /// A row that only one of the evaluations has.
    pub row: String,
}

/// Compares two streams of rows from [`of_date`], as multisets.
///
/// # Errors
/// A stream fails.
pub async fn compare(
    alone: SendableRecordBatchStream,
    among: SendableRecordBatchStream,
) -> Result<Compared, DataFusionError> {
    let mut alone = Groups::new(alone)?;
    let mut among = Groups::new(among)?;
    let row = loop {
        let (mut a, b) = match (alone.next().await?, among.next().await?) {
            (None, None) => return Ok(Compared::Same),
            (Some(a), Some(b)) => (a, b),
            (Some(only), None) | (None, Some(only)) => break only.shown,
        };
        match a.key.cmp(&b.key) {
            Ordering::Less => break a.shown,
            Ordering::Greater => break b.shown,
            Ordering::Equal if a.rows > ALIKE || b.rows > ALIKE => {
                return Ok(Compared::TooManyAlike);
            }
            Ordering::Equal if a.is_like(&b) => {}
            Ordering::Equal => break b.shown,
        }
    };
    alone.drain().await?;
    among.drain().await?;
    Ok(Compared::Differs(Difference {
        alone: alone.rows,
        among: among.rows,
        row,
    }))
}

/// Rows with the same exact columns.
struct Group {
    key: OwnedRow,
    rows: usize,
    /// For each other column, the values of these rows. NULL is NaN.
    others: Vec<Vec<f64>>,
    /// The first of the rows, for a message.
    shown: String,
}

impl Group {
    /// Whether each of the other columns has the same values, in any order.
    fn is_like(&mut self, other: &Self) -> bool {
        let mut others = other.others.clone();
        self.rows == other.rows
            && self.others.iter_mut().zip(&mut others).all(|(a, b)| {
                a.sort_unstable_by(f64::total_cmp);
                b.sort_unstable_by(f64::total_cmp);
                a.iter().zip(b.iter()).all(|(a, b)| is_near(*a, *b))
            })
    }
}

/// Whether two numbers are the same, apart from rounding.
fn is_near(a: f64, b: f64) -> bool {
    const DIGITS: f64 = 1e-9;
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= DIGITS * a.abs().max(b.abs()).max(1.0)
}

/// The groups of a stream of rows that is sorted by its exact columns.
struct Groups {
    rows_of: SendableRecordBatchStream,
    exact: Vec<usize>,
    converter: RowConverter,
    /// The batch that is being read, its keys, its other columns, and the next row.
    open: Option<(RecordBatch, Vec<OwnedRow>, Vec<ArrayRef>, usize)>,
    /// The number of rows so far.
    rows: u64,
}

impl Groups {
    fn new(rows_of: SendableRecordBatchStream) -> Result<Self, DataFusionError> {
        let schema = rows_of.schema();
        let fields = schema.fields().iter().enumerate();
        let exact: Vec<usize> = fields
            .filter(|(_, field)| is_exact(field.data_type()))
            .map(|(column, _)| column)
            .collect();
        let options = SortOptions {
            descending: false,
            nulls_first: false,
        };
        let sorted_by = exact.iter().map(|column| {
            SortField::new_with_options(schema.field(*column).data_type().clone(), options)
        });
        Ok(Self {
            converter: RowConverter::new(sorted_by.collect())?,
            rows_of,
            exact,
            open: None,
            rows: 0,
        })
    }

    /// The next group; `None` at the end.
    async fn next(&mut self) -> Result<Option<Group>, DataFusionError> {
        let mut group: Option<Group> = None;
        loop {
            let done = self
                .open
                .as_ref()
                .is_none_or(|(batch, .., row)| *row >= batch.num_rows());
            if done && !self.fetch().await? {
                return Ok(group);
            }
            let Some((batch, keys, others, row)) = &mut self.open else {
                return Ok(group);
            };
            let Some(key) = keys.get(*row) else { continue };
            match &mut group {
                Some(group) if group.key != *key => return Ok(Some(group_of(group))),
                Some(group) => group.rows += 1,
                None => {
                    group = Some(Group {
                        key: key.clone(),
                        rows: 1,
                        others: vec![Vec::new(); others.len()],
                        shown: shown(batch, *row)?,
                    });
                }
            }
            if let Some(group) = &mut group
                && group.rows <= ALIKE
            {
                for (held, values) in group.others.iter_mut().zip(others.iter()) {
                    let values = values.as_primitive::<Float64Type>();
                    held.push(match values.is_valid(*row) {
                        true => values.value(*row),
                        false => f64::NAN,
                    });
                }
            }
            *row += 1;
        }
    }

    /// Fetches the next batch; `false` at the end.
    async fn fetch(&mut self) -> Result<bool, DataFusionError> {
        let Some(batch) = self.rows_of.next().await else {
            self.open = None;
            return Ok(false);
        };
        let batch = batch?;
        self.rows += batch.num_rows() as u64;
        let exact: Vec<ArrayRef> = self
            .exact
            .iter()
            .map(|column| batch.column(*column).clone())
            .collect();
        let keys = self.converter.convert_columns(&exact)?;
        let keys = keys.iter().map(|row| row.owned()).collect();
        let columns = batch.columns().iter().enumerate();
        let others = columns.filter(|(column, _)| !self.exact.contains(column));
        let others = others.map(|(_, values)| number_of(values));
        let others = others.collect::<Result<_, ArrowError>>()?;
        self.open = Some((batch, keys, others, 0));
        Ok(true)
    }

    /// Counts the rows up to the end.
    async fn drain(&mut self) -> Result<(), DataFusionError> {
        while let Some(batch) = self.rows_of.next().await {
            self.rows += batch?.num_rows() as u64;
        }
        Ok(())
    }
}

/// Takes a group out of its place.
fn group_of(group: &mut Group) -> Group {
    Group {
        key: group.key.clone(),
        rows: group.rows,
        others: std::mem::take(&mut group.others),
        shown: std::mem::take(&mut group.shown),
    }
}

/// Values as doubles: a rounded number itself, a list or map as its number of items, a struct as 1.
fn number_of(values: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let lengths = match values.data_type() {
        DataType::List(_) => arrow::compute::kernels::length::length(values)?,
        DataType::Map(..) => {
            let map = values.as_map();
            let lengths = (0..map.len())
                .map(|row| map.is_valid(row).then(|| f64::from(map.value_length(row))));
            return Ok(Arc::new(lengths.collect::<Float64Array>()));
        }
        DataType::Struct(_) => {
            let there = (0..values.len()).map(|row| values.is_valid(row).then_some(1.0));
            return Ok(Arc::new(there.collect::<Float64Array>()));
        }
        _ => values.clone(),
    };
    cast(&lengths, &DataType::Float64)
}

/// A row as a message shows it.
fn shown(batch: &RecordBatch, row: usize) -> Result<String, ArrowError> {
    let options = FormatOptions::default().with_null("NULL");
    let mut text = String::new();
    for (field, values) in batch.schema().fields().iter().zip(batch.columns()) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        let value = ArrayFormatter::try_new(values, &options)?;
        text.push_str(&format!("{} = {}", field.name(), value.value(row)));
        if let Some((end, _)) = text.char_indices().nth(SHOWN) {
            text.truncate(end);
            text.push('…');
            break;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, ListArray, StringArray};
    use arrow::datatypes::Int32Type;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

    use super::*;

    /// Rows of one date: a number, a double and a list of so many items, in batches of two.
    fn rows(rows: &[(Option<i64>, Option<f64>, usize)]) -> SendableRecordBatchStream {
        let batch = |rows: &[(Option<i64>, Option<f64>, usize)]| {
            let lists = rows.iter().map(|(.., items)| Some(vec![Some(7); *items]));
            RecordBatch::try_from_iter_with_nullable(vec![
                (
                    "n",
                    Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.0))) as ArrayRef,
                    true,
                ),
                (
                    "x",
                    Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.1))) as ArrayRef,
                    true,
                ),
                (
                    "l",
                    Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)) as ArrayRef,
                    true,
                ),
                (
                    "dt",
                    Arc::new(StringArray::from(vec!["2024-03-01"; rows.len()])) as ArrayRef,
                    true,
                ),
            ])
            .unwrap()
        };
        let schema = batch(&[]).schema();
        let batches: Vec<_> = rows.chunks(2).map(|rows| Ok(batch(rows))).collect();
        Box::pin(RecordBatchStreamAdapter::new(
            schema,
            futures::stream::iter(batches),
        ))
    }

    #[tokio::test]
    async fn rows_are_compared_as_multisets_and_rounded_numbers_to_nine_digits() {
        let one = (Some(1), Some(0.5), 2);
        let two = (Some(2), Some(1.5), 0);
        let none = (None, None, 1);
        let third = 1.0 / 3.0;
        for (a, b) in [
            (vec![], vec![]),
            (vec![one, one, two, none], vec![one, one, two, none]),
            // Rows that are alike but for a double come in any order.
            (
                vec![
                    (Some(1), Some(0.1), 1),
                    (Some(1), Some(9.0), 3),
                    (Some(1), None, 2),
                ],
                vec![
                    (Some(1), None, 3),
                    (Some(1), Some(9.0), 1),
                    (Some(1), Some(0.1), 2),
                ],
            ),
            (
                vec![(Some(1), Some(third), 1), (Some(2), Some(1e15 * third), 1)],
                vec![
                    (Some(1), Some(third + 1e-15), 1),
                    (Some(2), Some(1e15 * third + 0.125), 1),
                ],
            ),
        ] {
            let found = compare(rows(&a), rows(&b)).await.unwrap();
            assert_eq!(found, Compared::Same, "{a:?} {b:?}");
        }
        for (a, b, shown) in [
            (
                vec![one],
                vec![],
                "n = 1, x = 0.5, l = [7, 7], dt = 2024-03-01",
            ),
            (vec![], vec![one], "n = 1"),
            (vec![one], vec![one, one], "n = 1"),
            (vec![one, none], vec![one, two, none], "n = 2"),
            (vec![one, two], vec![one, two, none], "n = NULL"),
            (vec![one, two], vec![two], "n = 1"),
            (vec![one], vec![(Some(1), Some(0.500_001), 2)], "n = 1"),
            (vec![one], vec![(Some(1), None, 2)], "n = 1"),
            (vec![one], vec![(Some(1), Some(0.5), 3)], "n = 1"),
        ] {
            let found = compare(rows(&a), rows(&b)).await.unwrap();
            let Compared::Differs(Difference { alone, among, row }) = found else {
                panic!("{a:?} {b:?}: {found:?}");
            };
            assert_eq!((alone, among), (a.len() as u64, b.len() as u64));
            assert!(row.contains(shown), "{row}");
        }
    }

    #[tokio::test]
    async fn what_is_held_is_bounded() {
        let alike = |first: f64| {
            let many: Vec<_> = (0..=ALIKE)
                .map(|n| (Some(1), Some(first + n as f64), 0))
                .collect();
            rows(&many)
        };
        let found = compare(alike(0.0), alike(0.5)).await.unwrap();
        assert_eq!(found, Compared::TooManyAlike);
    }
}
