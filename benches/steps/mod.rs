//! The steps of absorbing raw objects. Each can be called alone on input in memory.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMillisecondType};
use bytes::Bytes;
use rawmart::config::{self, Overrides, Source};
use rawmart::dedup::{Dropped, EventId, Hashing, Keys, Places, Sorted, Sorter, decide, sortable};
use rawmart::event::{RAW_RECORD, Slicing};
use rawmart::raw::{DecodeMemory, Decoded, Decoder, PieceError, Pieces};

use crate::data::{self, Events, Result, Shape};

/// The memory of each step in bytes. It is enough to spill nothing.
pub const MEMORY: usize = 1 << 30;

/// One hour of raw objects and the source that they belong to.
pub struct Input {
    /// The folder of the configuration, and of spilled and written files.
    pub folder: tempfile::TempDir,
    pub source: Source,
    pub slicing: Slicing,
    pub objects: Vec<Raw>,
}

pub struct Raw {
    pub gzip: Bytes,
    /// The number of bytes of JSON.
    pub length: usize,
}

/// The results of decoding that the verdicts need.
pub struct Narrow {
    /// The narrow rows by rule.
    pub rows: Vec<Vec<[u64; 4]>>,
    /// The number of records of each object.
    records: Vec<u64>,
}

/// Decoded events: the rank of their object, their sortable times and their ids.
pub struct Batch {
    pub events: RecordBatch,
    pub times: Vec<u64>,
    pub ids: Vec<u64>,
}

/// Stored bytes that are all there at once.
struct Whole(Option<Bytes>);

impl Pieces for Whole {
    fn next(&mut self) -> std::result::Result<Option<Bytes>, PieceError> {
        Ok(self.0.take())
    }
}

impl Input {
    pub fn new(records: u64) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("rawmart.toml"), data::CONFIG)?;
        // The configuration names this folder, and no mart is built.
        std::fs::create_dir_all(folder.path().join("sql/marts"))?;
        let job = config::load(&Overrides::default(), &|_| None, folder.path())?;
        let source = job.sources.first().ok_or("no source")?.clone();
        let events = Events::new(Shape {
            seed: 1,
            records,
            hours: 1,
            late: 0.005,
        })?;
        let mut objects = Vec::new();
        events.hour(0, &mut |object| {
            objects.push(Raw {
                gzip: data::gzip(object.json)?.into(),
                length: object.json.len(),
            });
            Ok(())
        })?;
        Ok(Self {
            folder,
            slicing: job.slicing(&source),
            source,
            objects,
        })
    }

    fn decoder(&self) -> Decoder {
        Decoder::new(&self.source.decode, &DecodeMemory::new(MEMORY, 1))
    }

    /// Inflates and decodes all objects. The result is the number of events.
    pub fn decode(&self) -> Result<u64> {
        let mut decoder = self.decoder();
        let mut events = 0;
        for object in &self.objects {
            let mut pieces = Whole(Some(object.gzip.clone()));
            let read = decoder.read(arrival(), &mut pieces, &mut |decoded| {
                std::hint::black_box(decoded);
                Ok(())
            })?;
            events += read.events;
        }
        Ok(events)
    }

    /// All decoded events, and the number of records of each object.
    pub fn batches(&self) -> Result<(Vec<Batch>, Vec<u64>)> {
        let mut decoder = self.decoder();
        let schema = decoder.schema();
        let time = schema.index_of(&self.source.decode.event_time)?;
        let record = schema.index_of(RAW_RECORD)?;
        let (mut batches, mut records) = (Vec::new(), Vec::new());
        for (rank, object) in (0..).zip(&self.objects) {
            let mut pieces = Whole(Some(object.gzip.clone()));
            let read = decoder.read(arrival(), &mut pieces, &mut |decoded| {
                let Decoded::Events(events) = decoded else {
                    return Ok(());
                };
                let times = events
                    .column(time)
                    .as_primitive::<TimestampMillisecondType>();
                let numbers = events.column(record).as_primitive::<Int64Type>();
                let id = |number: &i64| Ok(EventId::new(rank, u32::try_from(*number)?).0);
                batches.push(Batch {
                    times: times.values().iter().copied().map(sortable).collect(),
                    ids: numbers.values().iter().map(id).collect::<Result<_>>()?,
                    events,
                });
                Ok(())
            })?;
            records.push(read.records);
        }
        Ok((batches, records))
    }

    /// Evaluates the rules' keys.
    pub fn narrow(&self, batches: &[Batch], records: &[u64]) -> Result<Narrow> {
        let schema = self.decoder().schema();
        let rules = &self.source.rules;
        let unit = self.source.decode.unit;
        let mut keys = Keys::compile(rules, &schema, self.slicing, unit, &Hashing::new([1, 2]))?;
        let mut rows = vec![Vec::new(); rules.len()];
        for batch in batches {
            keys.each(
                &batch.events,
                Some(&batch.times),
                |rule, row, [high, low]| {
                    let (time, id) = (batch.times.get(row), batch.ids.get(row));
                    if let (Some(rows), Some(time), Some(id)) = (rows.get_mut(rule), time, id) {
                        rows.push([high, low, *time, *id]);
                    }
                },
            )?;
        }
        Ok(Narrow {
            rows,
            records: records.to_vec(),
        })
    }

    /// Sorts narrow rows and decides. The result is the dropped events.
    pub fn verdicts(&self, narrow: &Narrow) -> Result<Sorted<5>> {
        let folder = self.folder.path();
        let sorters = narrow.rows.iter().map(|rows| {
            let mut sorter = Sorter::new(folder, MEMORY);
            sorter.extend(rows)?;
            Ok(vec![vec![sorter]])
        });
        let sorters = sorters.collect::<Result<_>>()?;
        let earlier = Dropped::new(narrow.records.iter().copied().map(Some));
        let unit = self.source.decode.unit;
        Ok(decide(
            &self.source.rules,
            sorters,
            &earlier,
            &Places::new(self.slicing, unit),
            folder,
            MEMORY,
        )?)
    }
}

/// The end of the hour of the objects.
const fn arrival() -> i64 {
    (data::START + data::HOUR) as i64
}
