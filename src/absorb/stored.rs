//! The stored rows of a source, in the order of events.
//!
//! ```text
//! data file ──▶ rows() ──▶ batches, with time, id and verdict of each row
//!          └──▶ stream(): whole files, one after another, read ahead by a thread
//! ```

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;

use ahash::RandomState;
use arrow::array::{Array, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{
    DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType,
    TimestampMillisecondType,
};
use tokio::runtime::Handle;

use crate::dedup::{EventId, Standing, sortable};
use crate::event::{KEPT_OBJECT, KEPT_RECORD, RAW_OBJECT, RAW_RECORD, RULE};
use crate::lake::Proof;
use crate::ledger::{Dates, File};
use crate::publish::{
    Content, Displaced, Keyed, StoredError, StoredFile, StoredRows, Wanted, WriteError,
};
use crate::raw::{Refill, RefillError};
use crate::store::Store;
use crate::time::TimeUnit;

/// A stored row without its columns.
pub struct StoredRow {
    pub time: u64,
    pub id: EventId,
    /// Whether the event is kept, or the rule that has dropped it.
    pub before: Standing,
    /// Whether its raw object is taken out.
    pub leaves: bool,
    /// The event that had displaced this one, if it is a duplicate.
    pub kept: EventId,
}

/// Some rows of a data file: their columns, and the identity and verdict of each row.
pub type StoredBatch = (RecordBatch, Vec<StoredRow>);

/// Fills columns of stored events.
pub struct Fill {
    pub refill: Refill,
    /// The event dates whose events are filled.
    pub dates: Dates,
}

impl Fill {
    pub fn concerns(&self, file: &File) -> bool {
        let date = file.entry.date();
        date.is_some_and(|date| self.dates.holds(date))
    }
}

/// Reads the data files of one source. A clone reads the same files and counts the same bytes.
#[derive(Clone)]
pub struct StoredTables {
    pub lake: Store,
    pub proof: Proof,
    pub runtime: Handle,
    /// The number of bytes of a file that are read at once.
    pub ahead: u64,
    /// The column of event times; `None` for rejects.
    pub event_time: Option<String>,
    pub unit: TimeUnit,
    /// The names of all raw objects, sorted.
    pub objects: Arc<StringArray>,
    /// The names of all rules; the configured rules come first.
    pub rules: Arc<Vec<String>>,
    /// The ranks of the objects whose events are taken out.
    pub leaving: Arc<BTreeSet<u32>>,
    /// The number of bytes that were read so far.
    pub read: Arc<AtomicU64>,
}

impl StoredTables {
    /// The rank of a raw object.
    pub fn rank(&self, name: &str) -> Option<u32> {
        let objects = &self.objects;
        let (mut low, mut high) = (0, objects.len());
        while low < high {
            let middle = low.midpoint(high);
            match objects.value(middle).as_bytes().cmp(name.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return u32::try_from(middle).ok(),
            }
        }
        None
    }

    fn open(&self, file: &File) -> Result<StoredFile, StoredError> {
        self.runtime.block_on(self.proof.prove(file))?;
        let key = file.entry.key();
        let url = self.lake.url_of(&key);
        let (lake, runtime) = (self.lake.clone(), self.runtime.clone());
        let read = Arc::clone(&self.read);
        // A repair that found no marker knows no ETag.
        let etag = file.etag.clone().filter(|etag| !etag.is_empty());
        let fetch = move |range| {
            let bytes = runtime.block_on(lake.range(&key, etag.as_deref(), range))?;
            read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            Ok(bytes)
        };
        let content = Content::new(Arc::new(fetch), file.entry.bytes, self.ahead);
        StoredFile::open(url, content, file.written(), file.entry.rows)
    }

    /// Whether a file lacks some of these columns: it was written before they were declared.
    pub fn lacks(&self, file: &File, columns: &BTreeSet<String>) -> Result<bool, StoredError> {
        let file = self.open(file)?;
        Ok(columns.iter().any(|column| !file.has(column)))
    }

    /// The rows of one file with the columns of `schema`: the rows whose times lie in `span` and that are
    /// `wanted`. Events that leave are among them only with `leaving`.
    ///
    /// # Errors
    /// A file that cannot be read, or is another.
    pub fn rows(
        &self,
        file: &File,
        schema: &SchemaRef,
        span: Option<(i64, i64)>,
        wanted: Option<Wanted>,
        leaving: bool,
    ) -> Result<impl Iterator<Item = Result<StoredBatch, StoredError>> + Send + use<>, StoredError>
    {
        // If the file lies within the span, all its rows do.
        let beyond = |(first, last): &(i64, i64)| {
            let times = file.entry.times;
            times.is_none_or(|(from, to)| from < *first || *last < to)
        };
        let span = span.filter(beyond);
        let span = span.and_then(|(first, last)| {
            let event_time = self.event_time.clone()?;
            Some((event_time, self.unit, first, last))
        });
        let batches = self
            .open(file)?
            .read(self.with_own_columns(schema), span, wanted)?;
        Ok(self.named(file, schema, leaving, batches))
    }

    /// The columns of a schema, and the columns that hold the identity and the verdict of a row.
    fn with_own_columns(&self, schema: &SchemaRef) -> SchemaRef {
        let mut fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
        let mut add = |name: &str, kind: DataType| {
            if !fields.iter().any(|field| field.name() == name) {
                fields.push(Field::new(name, kind, true));
            }
        };
        if let Some(event_time) = &self.event_time {
            let unit = self.unit.arrow();
            add(event_time, DataType::Timestamp(unit, Some("UTC".into())));
        }
        add(RAW_OBJECT, DataType::Utf8);
        add(RAW_RECORD, DataType::Int64);
        // A table of kept events has none of these columns.
        add(RULE, DataType::Utf8);
        add(KEPT_OBJECT, DataType::Utf8);
        add(KEPT_RECORD, DataType::Int64);
        Arc::new(Schema::new(fields))
    }

    /// The batches of a file, with the identity and the verdict of each row.
    fn named<B>(
        &self,
        file: &File,
        schema: &SchemaRef,
        leaving: bool,
        batches: B,
    ) -> impl Iterator<Item = Result<StoredBatch, StoredError>> + Send + use<B>
    where
        B: Iterator<Item = Result<RecordBatch, StoredError>> + Send,
    {
        let mut names = Names {
            stored: self.clone(),
            url: self.lake.url_of(&file.entry.key()),
            known: HashMap::default(),
        };
        let own: Vec<usize> = (0..schema.fields().len()).collect();
        batches.map(move |batch| {
            let batch = batch?;
            let mut rows = names.rows(&batch)?;
            let mut batch = batch
                .project(&own)
                .map_err(|error| names.unfit(&error.to_string()))?;
            if !leaving && rows.iter().any(|row| row.leaves) {
                let stay: BooleanArray = rows.iter().map(|row| Some(!row.leaves)).collect();
                batch = filter_record_batch(&batch, &stay)
                    .map_err(|error| names.unfit(&error.to_string()))?;
                rows.retain(|row| !row.leaves);
            }
            Ok((batch, rows))
        })
    }

    /// The rows of a whole file in order, without events that leave. Each sorted run of its row groups is read
    /// by itself.
    fn whole(
        &self,
        place: u64,
        file: &File,
        schema: &SchemaRef,
    ) -> Result<StoredRows, StoredError> {
        let opened = self.open(file)?;
        let runs = match &self.event_time {
            Some(event_time) => opened.sorted_runs(event_time)?,
            None => vec![opened],
        };
        let timed = self.event_time.is_some();
        let runs = runs.into_iter().map(|run| {
            let batches = run.read(self.with_own_columns(schema), None, None)?;
            let batches = self.named(file, schema, false, batches);
            let keyed = move |block: Result<StoredBatch, StoredError>| {
                let block = block.map(|(batch, rows)| keyed(place, batch, &rows, timed));
                block.map_err(WriteError::Stored)
            };
            Ok(Box::new(batches.map(keyed)) as StoredRows)
        });
        let runs: Vec<StoredRows> = runs.collect::<Result<_, StoredError>>()?;
        Ok(crate::publish::in_order(runs))
    }

    /// The error of a file whose rows are not as they must be.
    pub fn unfit(&self, file: &File, error: &RefillError) -> StoredError {
        StoredError::Foreign {
            url: self.lake.url_of(&file.entry.key()),
            what: error.to_string(),
        }
    }

    /// The rows of whole files, in the order of their places. A thread reads them ahead, and `fill` fills their
    /// columns on the way.
    pub fn stream(
        &self,
        files: Vec<(u64, File)>,
        schema: &SchemaRef,
        mut fill: Option<Fill>,
    ) -> StoredRows {
        // One batch waits while the next is read: a row may be of many megabytes.
        let (sender, receiver) = sync_channel(0);
        let (stored, schema) = (self.clone(), Arc::clone(schema));
        std::thread::spawn(move || {
            for (place, file) in files {
                let rows = match stored.whole(place, &file, &schema) {
                    Ok(rows) => rows,
                    Err(error) => {
                        let _ = sender.send(Err(WriteError::Stored(error)));
                        return;
                    }
                };
                let mut fill = fill.as_mut().filter(|fill| fill.concerns(&file));
                for block in rows {
                    let block = block.and_then(|block| match &mut fill {
                        Some(fill) => stored.filled(&file, fill, block),
                        None => Ok(block),
                    });
                    // The merge has ended because it failed, and its own error says why.
                    if sender.send(block).is_err() {
                        return;
                    }
                }
            }
        });
        Box::new(receiver.into_iter())
    }

    /// Rows of a file with columns filled.
    fn filled(&self, file: &File, fill: &mut Fill, rows: Keyed) -> Result<Keyed, WriteError> {
        let filled = fill.refill.fill(&rows.batch);
        let filled = filled.map_err(|error| self.unfit(file, &error))?;
        Ok(match filled {
            Some(batch) => Keyed { batch, ..rows },
            None => rows,
        })
    }
}

fn keyed(place: u64, batch: RecordBatch, rows: &[StoredRow], timed: bool) -> Keyed {
    let keys = rows
        .iter()
        .map(|row| [place, if timed { row.time } else { 0 }, row.id.0])
        .collect();
    let displaced: Option<Vec<Displaced>> = rows
        .iter()
        .map(|row| Some((u64::from(row.before.rule()?), row.kept)))
        .collect();
    Keyed {
        displaced: displaced.filter(|displaced| !displaced.is_empty()),
        ..Keyed::new(batch, keys)
    }
}

/// Turns the names in a file into ranks.
struct Names {
    stored: StoredTables,
    url: String,
    known: HashMap<String, u32, RandomState>,
}

impl Names {
    fn unfit(&self, what: &str) -> StoredError {
        StoredError::Foreign {
            url: self.url.clone(),
            what: what.to_owned(),
        }
    }

    fn rank(&mut self, name: &str) -> Result<u32, StoredError> {
        if let Some(rank) = self.known.get(name) {
            return Ok(*rank);
        }
        let rank = self
            .stored
            .rank(name)
            .ok_or_else(|| self.unfit(&format!("the log does not know its raw object {name}")))?;
        self.known.insert(name.to_owned(), rank);
        Ok(rank)
    }

    /// The identity and the verdict of each row of a batch.
    fn rows(&mut self, batch: &RecordBatch) -> Result<Vec<StoredRow>, StoredError> {
        let lacking = |name: &str| self.unfit(&format!("it has no column {name} that fits"));
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| lacking(name));
        let text = |name: &str| {
            column(name)?
                .as_string_opt::<i32>()
                .ok_or_else(|| lacking(name))
        };
        let number = |name: &str| {
            column(name)?
                .as_primitive_opt::<Int64Type>()
                .ok_or_else(|| lacking(name))
        };
        let times = match &self.stored.event_time {
            Some(name) => {
                let times = column(name)?;
                let whole = times.null_count() == 0;
                let times = match self.stored.unit {
                    TimeUnit::Ms => times
                        .as_primitive_opt::<TimestampMillisecondType>()
                        .map(arrow::array::PrimitiveArray::values),
                    TimeUnit::Us => times
                        .as_primitive_opt::<TimestampMicrosecondType>()
                        .map(arrow::array::PrimitiveArray::values),
                };
                times
                    .filter(|_| whole)
                    .ok_or_else(|| lacking(name))?
                    .to_vec()
            }
            None => vec![0; batch.num_rows()],
        };
        let (objects, records) = (text(RAW_OBJECT)?, number(RAW_RECORD)?);
        let (rules, kept_objects) = (text(RULE)?, text(KEPT_OBJECT)?);
        let kept_records = number(KEPT_RECORD)?;
        let names = Arc::clone(&self.stored.rules);
        let mut rows = Vec::with_capacity(batch.num_rows());
        for (i, time) in times.iter().enumerate() {
            let object = self.rank(objects.value(i))?;
            let record = |numbers: &Int64Array| {
                let number = u32::try_from(numbers.value(i)).ok();
                number.filter(|_| numbers.is_valid(i))
            };
            let unnumbered = "a row has no number of a record";
            let number = record(records).ok_or_else(|| self.unfit(unnumbered))?;
            let (mut before, mut kept) = (Standing::KEPT, EventId(0));
            if rules.is_valid(i) {
                let rule = names.iter().position(|name| name == rules.value(i));
                let rule = rule.and_then(|rule| u32::try_from(rule).ok());
                let unknown = || format!("the log does not know its rule {}", rules.value(i));
                before = Standing::dropped(rule.ok_or_else(|| self.unfit(&unknown()))?);
                let by = self.rank(kept_objects.value(i))?;
                let number = record(kept_records).ok_or_else(|| self.unfit(unnumbered))?;
                kept = EventId::new(by, number);
            }
            rows.push(StoredRow {
                time: sortable(*time),
                id: EventId::new(object, number),
                before,
                leaves: self.stored.leaving.contains(&object),
                kept,
            });
        }
        Ok(rows)
    }
}
