//! Random SELECTs: a mart holds all values that the engine gives for the bare SELECT, and loses no part of them.

use arrow::array::{
    Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt8Array,
    UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use arrow::util::display::array_value_to_string;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::catalog::memory_table;

/// All types of lakes and references, and the unsigned types of the engine. Numbers are multiples of a quarter, so that
/// sums of doubles are exact.
fn rows() -> RecordBatch {
    let column = |array: ArrayRef| array;
    let money = |values: Vec<Option<i128>>, precision, scale| {
        let made = Decimal128Array::from(values);
        column(Arc::new(
            made.with_precision_and_scale(precision, scale).unwrap(),
        ))
    };
    let at = TimestampMillisecondArray::from(vec![
        Some(1_714_923_000_125),
        None,
        Some(86_400_000),
        Some(-1),
    ]);
    RecordBatch::try_from_iter(vec![
        ("k", column(Arc::new(Int64Array::from(vec![1, 2, 3, 4])))),
        (
            "i",
            column(Arc::new(Int32Array::from(vec![
                Some(-3),
                Some(7),
                None,
                Some(0),
            ]))),
        ),
        (
            "n",
            column(Arc::new(Int64Array::from(vec![
                Some(70_000),
                None,
                Some(-5),
                Some(3),
            ]))),
        ),
        (
            "u",
            column(Arc::new(UInt64Array::from(vec![
                Some(9),
                Some(3_000_000_000),
                None,
                Some(0),
            ]))),
        ),
        (
            "b",
            column(Arc::new(UInt8Array::from(vec![
                Some(200),
                None,
                Some(1),
                Some(255),
            ]))),
        ),
        (
            "f",
            column(Arc::new(Float32Array::from(vec![
                Some(0.25),
                Some(-2.5),
                None,
                Some(8.0),
            ]))),
        ),
        (
            "d",
            column(Arc::new(Float64Array::from(vec![
                None,
                Some(1.75),
                Some(-0.5),
                Some(4096.25),
            ]))),
        ),
        (
            "m",
            money(vec![Some(1250), Some(-75), None, Some(0)], 12, 2),
        ),
        (
            "w",
            money(
                vec![Some(5_000_000_000), None, Some(-2_500_000_000), Some(0)],
                30,
                10,
            ),
        ),
        (
            "s",
            column(Arc::new(StringArray::from(vec![
                Some("12"),
                Some("x"),
                None,
                Some(""),
            ]))),
        ),
        (
            "t",
            column(Arc::new(BooleanArray::from(vec![
                Some(true),
                Some(false),
                None,
                Some(true),
            ]))),
        ),
        (
            "y",
            column(Arc::new(Date32Array::from(vec![
                Some(19_000),
                None,
                Some(0),
                Some(-400),
            ]))),
        ),
        ("z", column(Arc::new(at.with_timezone("UTC")))),
    ])
    .unwrap()
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Number,
    Text,
    Time,
}

/// Which numbers with digits behind the point a SELECT has. The engine alone makes decimals of 15 digits of
/// doubles beside decimals; the law makes doubles of both.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Family {
    Decimals,
    Doubles,
    Both,
}

struct Random(ChaCha8Rng, Family);

impl Random {
    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of.choose(&mut self.0).copied().unwrap_or_default()
    }

    fn kind(&mut self) -> Kind {
        *[
            Kind::Number,
            Kind::Number,
            Kind::Number,
            Kind::Text,
            Kind::Time,
        ]
        .choose(&mut self.0)
        .unwrap()
    }

    fn condition(&mut self, depth: u32) -> String {
        let number = |random: &mut Self| random.expression(Kind::Number, depth);
        match self.0.random_range(0..7) {
            0 => format!("{} < {}", number(self), number(self)),
            1 => format!(
                "{} IN ({}, {}, 7)",
                number(self),
                number(self),
                number(self)
            ),
            2 => format!(
                "{} BETWEEN {} AND {}",
                number(self),
                number(self),
                number(self)
            ),
            3 => format!("{} IS NULL", number(self)),
            4 => format!("s = {}", self.expression(Kind::Text, depth)),
            5 => format!("z > {}", self.expression(Kind::Time, depth)),
            _ => "t".to_owned(),
        }
    }

    fn expression(&mut self, kind: Kind, depth: u32) -> String {
        if depth == 0 || self.0.random_bool(0.2) {
            let numbers = [
                &["i", "n", "b", "k", "NULL", "0", "1", "-3", "CAST(2 AS INT)"][..],
                &["u", "m", "w", "CAST(4 AS DECIMAL(5, 1))"],
                &["f", "d", "2.5", "0.0", "CAST(NULL AS DOUBLE)"],
            ];
            let numbers = match self.1 {
                Family::Decimals => numbers[..2].concat(),
                Family::Doubles => [numbers[0], numbers[2]].concat(),
                Family::Both => numbers.concat(),
            };
            let some = match kind {
                Kind::Number => &numbers[..],
                Kind::Text => &["s", "'a'", "NULL", "'12'"],
                Kind::Time => &[
                    "z",
                    "y",
                    "NULL",
                    "TIMESTAMP '2024-05-06 00:30:00.5'",
                    "DATE '1999-12-31'",
                ],
            };
            return self.one(some).to_owned();
        }
        let depth = depth - 1;
        let some = |random: &mut Self| random.expression(kind, depth);
        match self.0.random_range(0..8) {
            0 | 1 => format!(
                "CASE WHEN {} THEN {} ELSE {} END",
                self.condition(depth),
                some(self),
                some(self)
            ),
            2 => format!(
                "CASE k WHEN {} THEN NULL WHEN 2 THEN {} ELSE {} END",
                self.one(&["1", "3"]),
                some(self),
                some(self)
            ),
            3 => format!("coalesce({}, {}, {})", some(self), some(self), some(self)),
            4 => format!("nullif({}, {})", some(self), some(self)),
            5 if kind == Kind::Number => format!(
                "({} {} {})",
                some(self),
                self.one(&["+", "-", "*"]),
                some(self)
            ),
            6 if kind == Kind::Number => format!("-({})", some(self)),
            7 if kind == Kind::Number && self.1 != Family::Decimals => {
                format!("CAST({} AS DOUBLE)", some(self))
            }
            _ => format!(
                "CASE WHEN {} THEN {} END",
                self.condition(depth),
                some(self)
            ),
        }
    }

    fn select(&mut self) -> String {
        let kind = self.kind();
        let depth = 3;
        let some = |random: &mut Self| random.expression(kind, depth);
        match self.0.random_range(0..8) {
            0 | 1 => format!("SELECT {} AS c FROM t", some(self)),
            2 => format!(
                "SELECT {} AS c FROM t UNION ALL SELECT {} FROM t UNION ALL SELECT {} FROM t",
                some(self),
                some(self),
                some(self)
            ),
            3 => {
                let literal = ["NULL", "1", "-2", "2.5", "CAST(3 AS INT)"];
                format!(
                    "SELECT x AS c FROM (VALUES ({}), ({}), ({})) AS v (x)",
                    self.one(&literal),
                    self.one(&literal),
                    self.one(&literal)
                )
            }
            4 if kind == Kind::Number => format!(
                "SELECT CASE WHEN count(*) = 0 THEN {} ELSE {}({}) END AS c FROM t GROUP BY {}",
                self.one(&["0", "NULL", "1"]),
                self.one(&["sum", "min", "max", "count", "sum"]),
                some(self),
                self.one(&["t", "k % 2", "s"])
            ),
            5 if kind == Kind::Number => format!(
                "SELECT CASE WHEN t THEN {} ELSE sum({}) OVER (PARTITION BY t ORDER BY k) END AS c FROM t",
                self.one(&["0", "NULL", "row_number() OVER (ORDER BY k)", "-7"]),
                some(self)
            ),
            6 => format!(
                "SELECT coalesce({}({}) OVER (ORDER BY k), {}) AS c FROM t",
                self.one(&["lag", "lead", "first_value", "max"]),
                some(self),
                some(self)
            ),
            _ => format!(
                "SELECT max({}) AS c FROM (SELECT k, {} AS x FROM t) q GROUP BY k",
                self.one(&["x", "x", "coalesce(x, NULL)"]),
                some(self)
            ),
        }
    }
}

/// A value as a number or text that does not show its type.
fn plain(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) || *column.data_type() == DataType::Null {
        return "NULL".to_owned();
    }
    let ms = DataType::Timestamp(TimeUnit::Millisecond, None);
    match column.data_type() {
        DataType::Timestamp(..) | DataType::Date32 => {
            let at = cast(&cast(column, &ms).unwrap(), &DataType::Int64).unwrap();
            array_value_to_string(&at, row).unwrap()
        }
        kind => {
            let text = array_value_to_string(column, row).unwrap();
            if kind.is_numeric() && text.contains('.') {
                let text = text.trim_end_matches('0').trim_end_matches('.');
                return if text == "-0" {
                    "0".to_owned()
                } else {
                    text.to_owned()
                };
            }
            text
        }
    }
}

fn sorted(batches: &[RecordBatch]) -> Vec<String> {
    let values = batches.iter().flat_map(|batch| {
        let column = batch.column(0);
        (0..batch.num_rows()).map(|row| plain(column, row))
    });
    let mut values: Vec<String> = values.collect();
    let number = |text: &String| text.parse::<f64>().unwrap_or(f64::INFINITY);
    values.sort_by(|a, b| number(a).total_cmp(&number(b)).then_with(|| a.cmp(b)));
    values
}

/// Whether two texts are the same. Numbers that one side has rounded to the digits of a `real` may differ a little.
fn alike(found: &str, expected: &str) -> bool {
    let close = || {
        let (a, b) = (found.parse::<f64>().ok()?, expected.parse::<f64>().ok()?);
        Some((a - b).abs() <= 1e-6 * a.abs().max(b.abs()))
    };
    found == expected || close().unwrap_or(false)
}

async fn bare(session: SessionContext, sql: &str) -> Result<Vec<String>, DataFusionError> {
    session.register_table("t", memory_table(rows().schema(), vec![rows()])?)?;
    Ok(sorted(&session.sql(sql).await?.collect().await?))
}

async fn written(engine: &Engine, sql: &str) -> Result<Vec<String>, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("m.sql"), sql).unwrap();
    let graph = load(folder.path(), &["t".to_owned()], &[]).map_err(|error| error.to_string())?;
    let inputs = [(
        "t".to_owned(),
        memory_table(rows().schema(), vec![rows()]).unwrap(),
    )];
    let mart = &graph.marts()[0];
    let (definition, stream) = evaluate(engine, mart, &inputs, None, true)
        .await
        .map_err(|error| error.to_string())?;
    let batches: Vec<RecordBatch> = stream
        .try_collect()
        .await
        .map_err(|error| MartError::running(mart, &error).to_string())?;
    for batch in &batches {
        let (said, made) = (definition.schema.field(0), batch.schema());
        assert_eq!(said.data_type(), made.field(0).data_type(), "{sql}");
    }
    Ok(sorted(&batches))
}

#[tokio::test]
async fn a_mart_holds_every_value_of_its_select() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::new(64 << 20, 2, folder.path()).unwrap();
    let (mut compared, mut refused) = (0, Vec::new());
    for seed in 0..1500 {
        let family = [Family::Decimals, Family::Doubles, Family::Both][seed as usize % 3];
        let sql = Random(ChaCha8Rng::seed_from_u64(seed), family).select();
        let session = match family {
            Family::Both => engine.session(),
            _ => {
                let config = SessionConfig::new().with_target_partitions(1);
                SessionContext::new_with_config(config)
            }
        };
        // A SELECT that the engine itself cannot answer tests nothing.
        let Ok(expected) = bare(session, &sql).await else {
            continue;
        };
        match written(&engine, &sql).await {
            Ok(found) => {
                let same = found.len() == expected.len()
                    && found.iter().zip(&expected).all(|(a, b)| alike(a, b));
                assert!(same, "{seed}: {sql}: {found:?}, not {expected:?}");
                compared += 1;
            }
            Err(error) => refused.push((seed, sql, error)),
        }
    }
    // These values are beyond the largest bigint, or have more digits than a decimal.
    for (seed, sql, error) in &refused {
        let why = [
            "does not fit",
            "overflow",
            "behind the point",
            "Can't cast",
            "too large to store",
            "38 digits",
        ];
        assert!(
            why.iter().any(|why| error.contains(why)),
            "{seed}: {sql}: {error}"
        );
    }
    assert!(
        compared > 1000 && refused.len() * 10 < compared,
        "{compared} {}",
        refused.len()
    );
}
