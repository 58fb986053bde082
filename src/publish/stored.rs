//! Reads data files of the lake back: the columns that are asked for, and the rows of one span of time.
//!
//! ```text
//! data file ──Content──▶ footer: is it the version that the log names?
//!   ranges, read ahead         │ sorted runs of row groups; groups and pages that the span can lie in
//!                              └──▶ batches of the columns asked for, in the order of the file
//! ```

use std::io::{Cursor, Read};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, Scalar,
    TimestampMicrosecondArray, TimestampMillisecondArray, new_null_array,
};
use arrow::compute::kernels::cmp::{gt_eq, lt_eq};
use arrow::compute::{and, cast};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use arrow::error::ArrowError;
use bytes::{Buf, Bytes};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{
    ArrowPredicate, ArrowPredicateFn, ArrowReaderMetadata, ArrowReaderOptions,
    ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowFilter, RowSelection,
    RowSelectionPolicy, RowSelector,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use parquet::file::reader::{ChunkReader, Length};

use crate::catalog::width_changes;
use crate::store::{StoreError, StoreErrorKind};
use crate::time::TimeUnit;

/// The most rows of a batch, and the bytes that it should have at most.
const BATCH_ROWS: usize = 8192;
const BATCH_BYTES: usize = 512 << 10;
/// A batch with so many times the bytes that it should have is too large.
const WIDE: usize = 8;

/// The error of a data file that cannot be read back.
#[derive(Debug, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "the text of each error says what its fields are"
)]
pub enum StoredError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("reading {url}: {source}; `rawmart verify --repair` makes a damaged file again")]
    Parquet { url: String, source: ParquetError },
    #[error(
        "{url} is not what the log says was published there: {what}; `rawmart verify` names all such files, \
         `rawmart verify --repair` brings back what was published"
    )]
    Foreign { url: String, what: String },
    #[error(
        "{url} is damaged: it has the published size, but other bytes. Its rows were not used; `rawmart verify \
         --repair` brings back what was published"
    )]
    Damaged { url: String },
}

impl StoredError {
    /// The error of reading a content: the error of the store, if it gave one.
    fn reading(url: &str, content: &Content, source: ParquetError) -> Self {
        let failed = &content.failed;
        let failed = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        match failed {
            Some(error) => Self::of_store(url, error),
            None => Self::Parquet {
                url: url.to_owned(),
                source,
            },
        }
    }

    /// The error of a store, for a file that the log names and that must therefore exist.
    fn of_store(url: &str, error: StoreError) -> Self {
        let what = match error.kind() {
            StoreErrorKind::NotFound => "it is gone",
            StoreErrorKind::NotAFile => "it is no file",
            StoreErrorKind::Replaced => "its ETag is another",
            _ => return Self::Store(error),
        };
        Self::Foreign {
            url: url.to_owned(),
            what: what.to_owned(),
        }
    }
}

/// Reads a range of an object. The call blocks.
pub type Fetch = Arc<dyn Fn(Range<u64>) -> Result<Bytes, StoreError> + Send + Sync>;

/// The bytes of a data file. They are fetched as they are needed.
#[derive(Clone)]
pub struct Content {
    fetch: Fetch,
    size: u64,
    /// The number of bytes that are fetched at once.
    ahead: u64,
    /// The ranges that were fetched last, the newest at the end.
    cache: Arc<Mutex<Vec<(u64, Bytes)>>>,
    /// The error with which the store refused a range. The reader of Parquet passes on only its text.
    failed: Arc<Mutex<Option<StoreError>>>,
}

/// The number of bytes at the end of a file that are read at once. Most small files lie in them as a whole.
const TAIL: u64 = 64 << 10;
/// The number of ranges that are kept, because the columns of a file are read side by side.
const CACHED: usize = 8;

impl Content {
    /// A content of `size` bytes that `fetch` reads. At least `ahead` bytes are fetched at once, where the file
    /// has them.
    pub fn new(fetch: Fetch, size: u64, ahead: u64) -> Self {
        Self {
            fetch,
            size,
            ahead,
            cache: Arc::default(),
            failed: Arc::default(),
        }
    }
}

impl Length for Content {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for Content {
    type T = Ahead;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(Ahead {
            content: self.clone(),
            at: start,
            buffer: Cursor::new(Bytes::new()),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let end = start + length as u64;
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let held = cache
            .iter()
            .find(|(from, bytes)| *from <= start && end <= *from + bytes.len() as u64);
        if let Some((from, bytes)) = held {
            let from = usize::try_from(start - from)?;
            return Ok(bytes.slice(from..from + length));
        }
        let from = match end == self.size {
            // A footer is read from its end. The indexes of pages lie in front of it.
            true => start.min(self.size.saturating_sub(TAIL)),
            false => start,
        };
        let ahead = start + self.ahead;
        let fetched = (self.fetch)(from..end.max(ahead).min(self.size));
        let bytes = fetched.map_err(|error| {
            let message = error.to_string();
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert(error);
            ParquetError::General(message)
        })?;
        let before = usize::try_from(start - from)?;
        if bytes.len() < before + length {
            return Err(ParquetError::EOF(format!(
                "{} bytes at {from} instead of {}",
                bytes.len(),
                before + length
            )));
        }
        if end > ahead.max(from + TAIL) {
            // A page of wide rows is requested once, and takes its memory once.
            return Ok(bytes.slice(before..before + length));
        }
        if cache.len() >= CACHED {
            cache.remove(0);
        }
        cache.push((from, bytes.clone()));
        Ok(bytes.slice(before..before + length))
    }
}

/// Reads a data file from some position on.
pub struct Ahead {
    content: Content,
    at: u64,
    buffer: Cursor<Bytes>,
}

impl Read for Ahead {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if !self.buffer.has_remaining() {
            let rest = self.content.len().saturating_sub(self.at);
            // The header of a page has a few hundred bytes. Its body is requested by itself.
            let length = usize::try_from(rest.min(4096)).unwrap_or(0);
            if length == 0 {
                return Ok(0);
            }
            let bytes = self
                .content
                .get_bytes(self.at, length)
                .map_err(std::io::Error::other)?;
            self.at += bytes.len() as u64;
            self.buffer = Cursor::new(bytes);
        }
        self.buffer.read(out)
    }
}

/// A test that decides from some columns which rows are wanted.
#[derive(Clone)]
pub struct Wanted {
    /// The columns that the test reads.
    pub schema: SchemaRef,
    /// The test. It gives one boolean for each row.
    pub test: Arc<dyn Fn(&RecordBatch) -> BooleanArray + Send + Sync>,
}

/// A span of times: the column of the times, their unit, the first and the last time.
pub type Times = (String, TimeUnit, i64, i64);

/// A data file whose footer was read, or some row groups of it.
#[derive(Clone)]
pub struct StoredFile {
    url: String,
    content: Content,
    metadata: ArrowReaderMetadata,
    groups: Range<usize>,
}

impl StoredFile {
    /// Opens the version of a file that `commit` wrote, with so many `rows`.
    ///
    /// # Errors
    /// A file that cannot be read, or that is another version.
    pub fn open(
        url: String,
        content: Content,
        commit: u64,
        rows: u64,
    ) -> Result<Self, StoredError> {
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let metadata = ArrowReaderMetadata::load(&content, options)
            .map_err(|source| StoredError::reading(&url, &content, source))?;
        let footer = metadata.metadata().file_metadata();
        let written = footer.key_value_metadata().and_then(|pairs| {
            let pair = pairs
                .iter()
                .find(|pair| pair.key == super::parquet::COMMIT)?;
            pair.value.clone()
        });
        let what = if written.as_deref() != Some(commit.to_string().as_str()) {
            let written = written.unwrap_or_else(|| "none".to_owned());
            Some(format!("its commit is {written}, not {commit}"))
        } else if footer.num_rows().unsigned_abs() != rows {
            Some(format!("it has {} rows, not {rows}", footer.num_rows()))
        } else {
            None
        };
        match what {
            Some(what) => Err(StoredError::Foreign { url, what }),
            None => Ok(Self {
                groups: 0..metadata.metadata().num_row_groups(),
                url,
                content,
                metadata,
            }),
        }
    }

    /// The row groups of the file, divided into sorted runs. A run ends where the event times of the next group
    /// begin before the times of this group end. A file that was written as one sequence is one run.
    ///
    /// # Errors
    /// A column of event times that cannot be read.
    pub fn sorted_runs(self, event_time: &str) -> Result<Vec<Self>, StoredError> {
        let reading = |source| StoredError::reading(&self.url, &self.content, source);
        let times = group_times(&self.metadata, event_time).map_err(reading)?;
        let (mut runs, mut from) = (Vec::new(), self.groups.start);
        for (group, pair) in (1..).zip(times.windows(2)) {
            let [(_, Some(last)), (Some(first), _)] = pair else {
                continue;
            };
            if first < last && self.groups.contains(&group) {
                runs.push(from..group);
                from = group;
            }
        }
        runs.push(from..self.groups.end);
        let part = |groups| Self {
            groups,
            ..self.clone()
        };
        Ok(runs.into_iter().map(part).collect())
    }

    /// Whether the file has a column of this name.
    pub fn has(&self, column: &str) -> bool {
        self.metadata.schema().field_with_name(column).is_ok()
    }

    /// The rows within `times` that are `wanted`, in the order of the file, with the columns of `schema`. A
    /// column that the file lacks is null. For all other rows only the columns that exclude them are decoded.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(
        self,
        schema: SchemaRef,
        times: Option<Times>,
        wanted: Option<Wanted>,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, StoredError>> + Send + use<>, StoredError>
    {
        let groups = match &times {
            Some(times) => groups(&self.metadata, times, &self.groups)
                .map_err(|source| StoredError::reading(&self.url, &self.content, source))?,
            None => self.groups.clone().collect(),
        };
        let (url, content) = (self.url.clone(), self.content.clone());
        let columns = self.columns(&schema, times.as_ref(), wanted.as_ref());
        let mut stretches = groups.into_iter().flat_map({
            let metadata = self.metadata.clone();
            move |group| {
                let stretches = stretches(metadata.metadata(), group, &columns);
                stretches.into_iter().map(move |stretch| (group, stretch))
            }
        });
        let mut open: Option<ParquetRecordBatchReader> = None;
        let mut next = move || -> Result<Option<RecordBatch>, ParquetError> {
            loop {
                if let Some(batch) = open.as_mut().and_then(Iterator::next) {
                    return Ok(Some(fit(&batch?, &schema)?));
                }
                let Some((group, stretch)) = stretches.next() else {
                    return Ok(None);
                };
                // The reader of the last stretch frees its pages first.
                open = None;
                let reader =
                    self.stretch(group, &stretch, &schema, times.as_ref(), wanted.as_ref())?;
                open = Some(reader);
            }
        };
        Ok(std::iter::from_fn(move || {
            next()
                .map_err(|source| StoredError::reading(&url, &content, source))
                .transpose()
        }))
    }

    /// The columns of the file that are read.
    fn columns(
        &self,
        schema: &SchemaRef,
        times: Option<&Times>,
        wanted: Option<&Wanted>,
    ) -> ProjectionMask {
        let wanted = wanted.map(|wanted| Arc::clone(&wanted.schema));
        let schemas = [Some(Arc::clone(schema)), wanted];
        let fields = schemas.iter().flatten().flat_map(|s| s.fields().iter());
        let names = fields.map(|field| field.name().as_str());
        let names = names.chain(times.map(|(column, ..)| column.as_str()));
        let file = self.metadata.metadata().file_metadata();
        ProjectionMask::columns(file.schema_descr(), names)
    }

    /// Opens a stretch of one row group. All its wanted rows are determined before the first row is read, and
    /// this takes memory.
    fn stretch(
        &self,
        group: usize,
        stretch: &Stretch,
        schema: &SchemaRef,
        times: Option<&Times>,
        wanted: Option<&Wanted>,
    ) -> Result<ParquetRecordBatchReader, ParquetError> {
        let file = self.metadata.metadata();
        let columns = file.file_metadata().schema_descr();
        let named = |schema: &SchemaRef| {
            let names = schema.fields().iter().map(|field| field.name().as_str());
            ProjectionMask::columns(columns, names)
        };
        let mut predicates: Vec<Box<dyn ArrowPredicate>> = Vec::new();
        if let Some((column, unit, from, to)) = times.cloned() {
            let mask = ProjectionMask::columns(columns, [column.as_str()]);
            let test = move |batch: RecordBatch| within(batch.column(0), unit, from, to);
            predicates.push(Box::new(ArrowPredicateFn::new(mask, test)));
        }
        if let Some(Wanted { schema, test }) = wanted.cloned() {
            let mask = named(&schema);
            let test = move |batch: RecordBatch| Ok(test(&fit(&batch, &schema)?));
            predicates.push(Box::new(ArrowPredicateFn::new(mask, test)));
        }
        let content = self.content.clone();
        let reader =
            ParquetRecordBatchReaderBuilder::new_with_metadata(content, self.metadata.clone())
                .with_batch_size(stretch.batch)
                .with_projection(named(schema))
                .with_row_groups(vec![group])
                .with_row_filter(RowFilter::new(predicates))
                // A mask would decode all rows of a batch from the first wanted row to the last.
                .with_row_selection_policy(RowSelectionPolicy::Selectors);
        match stretch.whole {
            true => reader.build(),
            false => reader
                .with_row_selection(RowSelection::from(vec![
                    RowSelector::skip(stretch.from),
                    RowSelector::select(stretch.to - stretch.from),
                ]))
                .build(),
        }
    }
}

/// Rows of a row group that are read in batches of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stretch {
    from: usize,
    to: usize,
    /// Whether the stretch is the whole row group.
    whole: bool,
    /// The number of rows of a batch.
    batch: usize,
}

/// Divides a row group where its rows become much wider or narrower than the mean of the file, so that no batch
/// has many more bytes than others. The width of rows is known for each page.
fn stretches(file: &ParquetMetaData, group: usize, columns: &ProjectionMask) -> Vec<Stretch> {
    let bytes: i64 = file.row_groups().iter().map(|g| g.total_byte_size()).sum();
    let mean = usize::try_from(bytes / file.file_metadata().num_rows().max(1)).unwrap_or(0);
    let usual = (BATCH_BYTES / mean.max(1)).clamp(64, BATCH_ROWS);
    let rows = file.row_group(group).num_rows();
    let rows = usize::try_from(rows).unwrap_or(0);
    let changes = width_changes(file, group, columns);
    let whole = |batch| Stretch {
        from: 0,
        to: rows,
        whole: true,
        batch,
    };
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut width = 0i64;
    let mut changes = changes.into_iter().peekable();
    while let Some((from, change)) = changes.next() {
        width += change;
        let to = changes.peek().map_or(rows, |(to, _)| *to).min(rows);
        if from >= to {
            continue;
        }
        let bytes = usize::try_from(width / 16).unwrap_or(0).max(1);
        let batch = match bytes.saturating_mul(usual) > WIDE * BATCH_BYTES {
            // Sizes are powers of two, so that stretches are long.
            true => (BATCH_BYTES / bytes).next_power_of_two().clamp(1, usual),
            false => usual,
        };
        match stretches.last_mut() {
            Some(last) if last.batch == batch => last.to = to,
            _ => stretches.push(Stretch {
                from,
                to,
                whole: false,
                batch,
            }),
        }
    }
    match stretches.as_slice() {
        [] => vec![whole(usual)],
        [only] => vec![whole(only.batch)],
        _ => stretches,
    }
}

/// The row groups that may hold times of the span.
fn groups(
    metadata: &ArrowReaderMetadata,
    (column, unit, from, to): &Times,
    among: &Range<usize>,
) -> Result<Vec<usize>, ParquetError> {
    let file = metadata.metadata();
    let converter = StatisticsConverter::try_new(
        column,
        metadata.schema(),
        file.file_metadata().schema_descr(),
    )?;
    let least = converter.row_group_mins(file.row_groups())?;
    let most = converter.row_group_maxes(file.row_groups())?;
    let [from, to] = scalars(*unit, *from, *to);
    let possible = and(&lt_eq(&least, &to)?, &gt_eq(&most, &from)?)?;
    // A group without statistics is read.
    Ok(among
        .clone()
        .filter(|group| possible.is_null(*group) || possible.value(*group))
        .collect())
}

/// The first and the last event time of a row group, if its statistics have them.
type GroupTimes = (Option<i64>, Option<i64>);

/// The times of each row group.
fn group_times(
    metadata: &ArrowReaderMetadata,
    column: &str,
) -> Result<Vec<GroupTimes>, ParquetError> {
    let file = metadata.metadata();
    let schema = file.file_metadata().schema_descr();
    let converter = StatisticsConverter::try_new(column, metadata.schema(), schema)?;
    let integers = |times: ArrayRef| -> Result<Int64Array, ParquetError> {
        let times = cast(&times, &DataType::Int64)?;
        Ok(times.as_primitive::<Int64Type>().clone())
    };
    let least = integers(converter.row_group_mins(file.row_groups())?)?;
    let most = integers(converter.row_group_maxes(file.row_groups())?)?;
    Ok(least.iter().zip(&most).collect())
}

/// For each time of a column, whether it lies in `from..=to`.
fn within(
    column: &ArrayRef,
    unit: TimeUnit,
    from: i64,
    to: i64,
) -> Result<BooleanArray, ArrowError> {
    let [from, to] = scalars(unit, from, to);
    and(&gt_eq(column, &from)?, &lt_eq(column, &to)?)
}

fn scalars(unit: TimeUnit, from: i64, to: i64) -> [Scalar<ArrayRef>; 2] {
    [from, to].map(|time| {
        let array: ArrayRef = match unit {
            TimeUnit::Ms => {
                Arc::new(TimestampMillisecondArray::from(vec![time]).with_timezone("UTC"))
            }
            TimeUnit::Us => {
                Arc::new(TimestampMicrosecondArray::from(vec![time]).with_timezone("UTC"))
            }
        };
        Scalar::new(array)
    })
}

/// The columns of `schema`, made from the columns of the file.
fn fit(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = schema
        .fields()
        .iter()
        .map(|field| match batch.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
            Some(column) => cast(column, field.data_type()),
            None => Ok(new_null_array(field.data_type(), batch.num_rows())),
        })
        .collect::<Result<_, _>>()?;
    // The schema may have no column at all.
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &rows)
}
