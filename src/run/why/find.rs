//! Finds rows by the values of columns. The engine reads no more than it needs: the log says which files can hold the
//! object or the time, statistics and bloom filters say which row groups and pages can hold the value, and only the
//! rows that match are decoded whole.

use std::cmp::Ordering;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as AtomicOrdering};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{Column, DataFusionError, ScalarValue};
use datafusion::logical_expr::{Expr, lit};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::TryStreamExt;

use super::super::RunError;
use super::super::marts::failed_below;
use crate::catalog::{SourceTables, TableDefinition};
use crate::config::{ConfigError, Job, Source};
use crate::engine::{Engine, RuleExpressions};
use crate::event::{KEPT_OBJECT, KEPT_RECORD, RAW_OBJECT, RAW_RECORD, RULE};
use crate::lake::{Lake, Reading, Snapshot};
use crate::ledger::{FileEntry, RuleSettings};
use crate::publish::{Local, StoredError};
use crate::time::{TimeUnit, Zone, Zones, read_date, read_time};

/// The most bytes of the data files of one table of rejects that are searched for a text.
const SEARCHED_REJECTS: u64 = 256 << 20;

/// A column and the value that it must have.
#[derive(Debug, Clone)]
pub struct Condition {
    column: String,
    value: String,
}

impl Condition {
    /// `value` is text as typed.
    pub fn new(column: &str, value: &str) -> Self {
        Self {
            column: column.to_owned(),
            value: value.to_owned(),
        }
    }

    /// One record of a raw object.
    pub fn record(object: &str, record: i64) -> Vec<Self> {
        vec![
            Self::new(RAW_RECORD, &record.to_string()),
            Self::new(RAW_OBJECT, object),
        ]
    }
}

/// Which of the three tables of a source a row is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The kept events.
    Kept,
    /// The duplicates.
    Duplicate,
    /// The rejects.
    Reject,
}

/// A row that was found.
#[derive(Debug, Clone)]
pub struct Row<'a> {
    pub source: &'a Source,
    pub kind: Kind,
    pub table: &'a TableDefinition,
    /// The event time in the unit of the source; `None` for a reject.
    pub time: Option<i64>,
    pub object: String,
    pub record: i64,
    /// The row with the columns that are told.
    pub batch: RecordBatch,
}

impl Row<'_> {
    /// The text of a column; `None` if it is null or was not read.
    pub fn text(&self, column: &str) -> Option<String> {
        let column = self.batch.column_by_name(column)?;
        if column.is_null(0) {
            return None;
        }
        let options = FormatOptions::default();
        let cells = ArrayFormatter::try_new(column, &options).ok()?;
        cells.value(0).try_to_string().ok()
    }

    /// The integer of a column.
    pub fn integer(&self, column: &str) -> Option<i64> {
        integer(&self.batch, column, 0)
    }

    /// Events come in their order, then rejects.
    fn order(&self, other: &Self) -> Ordering {
        let key = |row: &Self| (row.kind == Kind::Reject, row.time);
        let by_time = key(self).cmp(&key(other));
        let by_object = by_time.then_with(|| self.object.cmp(&other.object));
        by_object.then_with(|| self.record.cmp(&other.record))
    }
}

fn integer(batch: &RecordBatch, column: &str, row: usize) -> Option<i64> {
    let column = batch.column_by_name(column)?;
    let integers = cast(column, &DataType::Int64).ok()?;
    let integers = integers.as_primitive::<Int64Type>();
    integers.is_valid(row).then(|| integers.value(row))
}

/// Rows that match.
#[derive(Default)]
pub struct Found<'a> {
    /// The number of rows.
    pub count: u64,
    /// The first of them, in their order.
    pub first: Vec<Row<'a>>,
}

impl<'a> Found<'a> {
    /// Keeps a row if it is one of the first `told`.
    fn keep(&mut self, row: Row<'a>, told: usize) {
        let at = self
            .first
            .partition_point(|other| other.order(&row).is_le());
        if at < told {
            self.first.insert(at, row);
            self.first.truncate(told);
        }
    }
}

/// Finds rows in one state of a lake.
pub struct Finder<'a> {
    job: &'a Job,
    lake: &'a Lake<Reading>,
    known: &'a [SourceTables],
    snapshot: Snapshot<'a>,
    engine: Engine,
    folder: &'a Path,
    bytes_read: AtomicU64,
}

impl<'a> Finder<'a> {
    /// `known` are the tables of the sources of the job, in its order. `folder` is for spilled data.
    ///
    /// # Errors
    /// The engine cannot start, or cannot read the store of the lake.
    pub fn new(
        job: &'a Job,
        lake: &'a Lake<Reading>,
        known: &'a [SourceTables],
        folder: &'a Path,
        local: &Local,
    ) -> Result<Self, RunError> {
        let engine = Engine::new(job.memory / 4 * 3, job.threads, &folder.join("engine"))?;
        let definitions = known.iter().flat_map(SourceTables::all).cloned();
        let snapshot = lake.snapshot(&engine, definitions, local)?;
        Ok(Self {
            job,
            lake,
            known,
            snapshot,
            engine,
            folder,
            bytes_read: AtomicU64::new(0),
        })
    }

    /// The tables of every source.
    fn tables(&self) -> impl Iterator<Item = (&'a Source, Kind, &'a TableDefinition)> {
        let pairs = self.job.sources.iter().zip(self.known);
        pairs.flat_map(|(source, tables)| {
            [
                (source, Kind::Kept, &tables.events),
                (source, Kind::Duplicate, &tables.duplicates),
                (source, Kind::Reject, &tables.rejects),
            ]
        })
    }

    /// The rows that match all conditions, in every table that has the columns, and their number. The first `told` of
    /// them come whole.
    ///
    /// # Errors
    /// A value that is none of its column's type; a data file that cannot be read.
    pub async fn find(&self, conditions: &[Condition], told: usize) -> Result<Found<'a>, RunError> {
        let is_record = |found: &Found<'_>| found.count > 0 && is_one_record(conditions);
        let mut found = Found::default();
        for (source, kind, table) in self.tables() {
            let schema = table.full_schema();
            let has = |condition: &Condition| schema.field_with_name(&condition.column).is_ok();
            if is_record(&found) || !conditions.iter().all(has) {
                continue;
            }
            let filter = self.filter(source, &schema, conditions)?;
            let span = self.span_of_object(source, kind, conditions);
            let one = is_one_record(conditions);
            self.read((source, kind, table), filter, span, |row| {
                found.count += 1;
                let at = found
                    .first
                    .partition_point(|other| other.order(&row).is_le());
                if at < told {
                    found.first.insert(at, row);
                    found.first.truncate(told);
                }
                // No record is twice in the tables of a source.
                !one
            })
            .await?;
        }
        Ok(found)
    }

    /// An event by its raw object and record. Its event time lies in `near`, if it lies where it should.
    ///
    /// # Errors
    /// A data file that cannot be read.
    pub async fn event(
        &self,
        source: &'a Source,
        (object, record): (&str, i64),
        near: Option<(i64, i64)>,
    ) -> Result<Option<Row<'a>>, RunError> {
        let conditions = Condition::record(object, record);
        let whole = self.span_of_object(source, Kind::Kept, &conditions);
        for span in [near, whole] {
            for (of, kind, table) in self.tables() {
                if of.name != source.name || kind == Kind::Reject {
                    continue;
                }
                let filter = self.filter(source, &table.full_schema(), &conditions)?;
                let mut found = None;
                self.read((of, kind, table), filter, span, |row| {
                    found = Some(row);
                    false
                })
                .await?;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    /// The rejects whose text holds this value, and the first `told` of them. Nothing is searched where the rejects are
    /// many.
    ///
    /// # Errors
    /// A data file that cannot be read.
    pub async fn rejects_with(&self, value: &str, told: usize) -> Result<Found<'a>, RunError> {
        let mut found = Found::default();
        for (source, kind, table) in self.tables() {
            let bytes: u64 = (self.snapshot.files(&table.name))
                .map(|(entry, _)| entry.bytes)
                .sum();
            if kind != Kind::Reject || bytes > SEARCHED_REJECTS {
                continue;
            }
            let column = Expr::Column(Column::new_unqualified("raw_text"));
            let holds = datafusion::functions::string::expr_fn::contains(column, lit(value));
            self.read((source, kind, table), holds, None, |row| {
                found.count += 1;
                found.keep(row, told);
                true
            })
            .await?;
        }
        Ok(found)
    }

    /// The files that are compared, and their rows.
    pub fn compared(&self, conditions: &[Condition]) -> (u64, u64) {
        let (mut files, mut rows) = (0, 0);
        for (_, _, table) in self.tables() {
            let schema = table.full_schema();
            let has = |condition: &Condition| schema.field_with_name(&condition.column).is_ok();
            if conditions.iter().all(has) {
                for (entry, _) in self.snapshot.files(&table.name) {
                    files += 1;
                    rows += entry.rows;
                }
            }
        }
        (files, rows)
    }

    /// The key of the data file that holds a row.
    pub fn file_of(&self, row: &Row<'_>) -> Option<String> {
        let values = row.table.partition_columns.iter();
        let values: Vec<Option<String>> = values.map(|column| row.text(column)).collect();
        let mut files = self.snapshot.files(&row.table.name);
        let found = files.find(|(entry, _)| {
            let own = entry.partition.iter().map(|(_, value)| value.clone());
            let holds = |time| {
                entry
                    .times
                    .is_none_or(|(from, to)| (from..=to).contains(&time))
            };
            own.eq(values.iter().cloned()) && row.time.is_none_or(holds)
        });
        found.map(|(entry, _)| entry.key())
    }

    /// The span of event times of the raw object that the conditions name, as the log has it.
    fn span_of_object(
        &self,
        source: &Source,
        kind: Kind,
        conditions: &[Condition],
    ) -> Option<(i64, i64)> {
        let mut conditions = conditions.iter();
        let object = conditions.find(|condition| condition.column == RAW_OBJECT)?;
        let known = self.lake.state().sources.get(&source.name)?;
        let entry = known.objects.get(&object.value)?;
        entry.times.filter(|_| kind != Kind::Reject)
    }

    /// Gives each row of a table that matches to `each`, until `each` says that it wants no more.
    async fn read(
        &self,
        (source, kind, table): (&'a Source, Kind, &'a TableDefinition),
        filter: Expr,
        span: Option<(i64, i64)>,
        mut each: impl FnMut(Row<'a>) -> bool,
    ) -> Result<(), RunError> {
        let overlaps = |entry: &FileEntry| match (span, entry.times) {
            (Some((from, to)), Some((first, last))) => first <= to && from <= last,
            _ => true,
        };
        let filter = match span {
            Some(span) => filter.and(within(source, span)),
            None => filter,
        };
        let session = self.engine.finding_session();
        let columns = told_columns(self.lake, source, table, kind);
        let planned = async {
            let provider = self.snapshot.table(table, &overlaps)?;
            let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
            let frame = session.read_table(provider)?.filter(filter)?;
            let plan = frame
                .select_columns(&columns)?
                .create_physical_plan()
                .await?;
            let rows = execute_stream(Arc::clone(&plan), session.task_ctx())?;
            Ok((plan, rows))
        };
        let failed = |error: DataFusionError| self.failed(table, &error);
        let (plan, mut rows) = planned.await.map_err(failed)?;
        let mut wants_more = true;
        while wants_more && let Some(batch) = rows.try_next().await.map_err(failed)? {
            wants_more =
                (0..batch.num_rows()).all(|at| each(row((source, kind, table), &batch, at)));
        }
        let read = bytes_scanned(&plan);
        self.bytes_read.fetch_add(read, AtomicOrdering::Relaxed);
        Ok(())
    }

    /// The number of bytes of data files that were read so far, without their footers.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(AtomicOrdering::Relaxed)
    }

    /// The conditions as a predicate of the engine.
    fn filter(
        &self,
        source: &Source,
        schema: &Schema,
        conditions: &[Condition],
    ) -> Result<Expr, RunError> {
        let mut all: Option<Expr> = None;
        for condition in conditions {
            let kind = schema.field_with_name(&condition.column);
            let kind = kind.map_or(DataType::Utf8, |field| field.data_type().clone());
            let value = literal(&condition.value, &kind, self.job.timezone).map_err(|what| {
                ConfigError::Given {
                    name: "why".to_owned(),
                    message: format!(
                        "{}={}: column {} of {}: {what}",
                        condition.column, condition.value, condition.column, source.name
                    ),
                }
            })?;
            let column = Expr::Column(Column::new_unqualified(&condition.column));
            let equals = column.eq(Expr::Literal(value, None));
            all = Some(match all {
                Some(all) => all.and(equals),
                None => equals,
            });
        }
        Ok(all.unwrap_or_else(|| lit(true)))
    }

    fn failed(&self, table: &TableDefinition, error: &DataFusionError) -> RunError {
        let failed = failed_below(self.lake.store(), self.folder, error);
        failed.unwrap_or_else(|| {
            RunError::from(StoredError::Foreign {
                url: self.lake.store().url_of(&table.name),
                what: error.strip_backtrace(),
            })
        })
    }
}

/// The bytes that the scans of a plan have read.
fn bytes_scanned(plan: &Arc<dyn ExecutionPlan>) -> u64 {
    let below: u64 = plan.children().into_iter().map(bytes_scanned).sum();
    let own = plan
        .metrics()
        .and_then(|all| all.sum_by_name("bytes_scanned"));
    below + own.map_or(0, |own| own.as_usize() as u64)
}

/// Whether the conditions name one record of one raw object, of which there is one row at most.
fn is_one_record(conditions: &[Condition]) -> bool {
    let names = |column| conditions.iter().any(|c| c.column == column);
    names(RAW_OBJECT) && names(RAW_RECORD)
}

/// The rules of a source by which its tables were decided: those of the log, or of the configuration where the log
/// does not know them.
pub fn rules(lake: &Lake<Reading>, source: &Source) -> Vec<RuleSettings> {
    let known = lake.state().sources.get(&source.name);
    let known = known.and_then(|known| known.settings.as_ref());
    known.map_or_else(Vec::new, |settings| settings.rules.clone())
}

/// The columns of a table that are told: the identity, the verdict, and the keys of the rules.
fn told_columns(
    lake: &Lake<Reading>,
    source: &Source,
    table: &TableDefinition,
    kind: Kind,
) -> Vec<String> {
    let schema = table.full_schema();
    let mut columns: Vec<String> = match kind {
        Kind::Reject => vec!["raw_offset", "raw_bytes", "reason", "detail", "raw_text"],
        Kind::Kept => vec![source.decode.event_time.as_str()],
        Kind::Duplicate => vec![
            source.decode.event_time.as_str(),
            RULE,
            KEPT_OBJECT,
            KEPT_RECORD,
        ],
    }
    .into_iter()
    .map(str::to_owned)
    .collect();
    columns.extend([RAW_OBJECT.to_owned(), RAW_RECORD.to_owned()]);
    columns.extend(table.partition_columns.iter().cloned());
    if kind == Kind::Duplicate {
        for rule in rules(lake, source) {
            let key = RuleExpressions::compile(&rule.name, &rule.key, None, &table.schema);
            columns.extend(key.iter().flat_map(RuleExpressions::columns));
        }
    }
    let mut told: Vec<String> = Vec::new();
    for column in columns {
        if schema.field_with_name(&column).is_ok() && !told.contains(&column) {
            told.push(column);
        }
    }
    told
}

fn row<'a>(
    (source, kind, table): (&'a Source, Kind, &'a TableDefinition),
    batch: &RecordBatch,
    at: usize,
) -> Row<'a> {
    let batch = batch.slice(at, 1);
    let object = batch.column_by_name(RAW_OBJECT);
    let object = object.and_then(|column| column.as_string_opt::<i32>());
    let object = object.map_or("", |column| column.value(0)).to_owned();
    let time = match kind {
        Kind::Reject => None,
        _ => integer(&batch, &source.decode.event_time, 0),
    };
    Row {
        source,
        kind,
        table,
        time,
        object,
        record: integer(&batch, RAW_RECORD, 0).unwrap_or(0),
        batch,
    }
}

/// The predicate that the event time lies in a span.
fn within(source: &Source, (from, to): (i64, i64)) -> Expr {
    let column = || Expr::Column(Column::new_unqualified(&source.decode.event_time));
    let time = |time| Expr::Literal(instant(time, source.decode.unit), None);
    column().gt_eq(time(from)).and(column().lt_eq(time(to)))
}

fn instant(time: i64, unit: TimeUnit) -> ScalarValue {
    let utc = Some("UTC".into());
    match unit {
        TimeUnit::Ms => ScalarValue::TimestampMillisecond(Some(time), utc),
        TimeUnit::Us => ScalarValue::TimestampMicrosecond(Some(time), utc),
    }
}

/// The value that a text stands for in a column of this type, or why it stands for none. A time without an offset is
/// in the zone of the lake.
fn literal(text: &str, kind: &DataType, zone: Zone) -> Result<ScalarValue, String> {
    let unfit = || format!("`{text}` is no value of its type");
    match kind {
        DataType::Utf8 => Ok(ScalarValue::Utf8(Some(text.to_owned()))),
        DataType::Timestamp(unit, _) => {
            let unit = match unit {
                arrow::datatypes::TimeUnit::Microsecond => TimeUnit::Us,
                _ => TimeUnit::Ms,
            };
            let zones = Zones {
                naive: Some(zone),
                epoch: None,
            };
            let time = read_time(text, unit, zones);
            time.map(|time| instant(time, unit)).ok_or_else(|| {
                format!("`{text}` is no time; write it as 2019-04-02T09:00:00Z or as an epoch")
            })
        }
        DataType::Date32 => {
            let days = read_date(text);
            days.map(|days| ScalarValue::Date32(Some(days)))
                .ok_or_else(|| format!("`{text}` is no date; write it as 2019-04-02"))
        }
        kind if kind.is_nested() => {
            Err("a nested column cannot be compared; use `rawmart query`".to_owned())
        }
        kind => ScalarValue::try_from_string(text.to_owned(), kind)
            .ok()
            .filter(|value| !value.is_null())
            .ok_or_else(unfit),
    }
}
