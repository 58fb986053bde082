//! Codes the strings of columns with few different strings, so that they are held, spilled and merged as codes.
//!
//! ```text
//! Utf8 ──Packer::pack──▶ UInt16 ──▶ runs ──▶ merge ──Common::dictionary──▶ Dictionary(UInt16, Utf8)
//!   └─ too many words: as it is from then on;         └─ Common::spell: what not all runs have as codes
//! ```
//!
//! Fewer bytes are copied, written and read: the type or country of an event shrinks to a fifth. All workers
//! share the words, so that their runs can be merged as codes. Runs with other words are spelled out. No column
//! of events or rejects has an unsigned type, so an unsigned column is a column of codes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ahash::RandomState;
use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, RecordBatch, StringArray, UInt16Array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, UInt16Type};
use arrow::error::ArrowError;

/// The most words of a column, …
const WORDS: usize = 1024;
/// … and the most bytes of one word.
const LONG: usize = 64;
/// The bytes that a word takes besides its text: its entry in a table that is not full, and the overhead of the
/// allocator.
const BESIDE: usize = 80;

type Codes = HashMap<Box<str>, u16, RandomState>;

/// The words of each column, in the order of their codes. All clones share them.
#[derive(Debug, Clone, Default)]
pub struct Words(Arc<Mutex<Known>>);

/// The words that all workers share.
#[derive(Debug, Default)]
struct Known {
    columns: Vec<Codes>,
    /// The bytes that are left for new words.
    left: usize,
    /// The number of copies of each word that are held.
    copies: usize,
}

impl Words {
    /// Words that take at most `memory` bytes in the shared table and in the tables of `workers` workers. A
    /// column whose words have no room is not coded.
    pub fn new(memory: usize, workers: usize) -> Self {
        Self(Arc::new(Mutex::new(Known {
            columns: Vec::new(),
            left: memory,
            copies: workers + 1,
        })))
    }

    /// Whether two values share the same words, so that their codes mean the same.
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The code of a word. The word may be new. `None` if there are too many words.
    fn learn(&self, column: usize, word: &str) -> Option<u16> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = &mut *known;
        if known.columns.len() <= column {
            known.columns.resize_with(column + 1, Codes::default);
        }
        let codes = known.columns.get_mut(column)?;
        if let Some(code) = codes.get(word) {
            return Some(*code);
        }
        let bytes = known.copies * (word.len() + BESIDE);
        if codes.len() >= WORDS || word.len() > LONG || bytes > known.left {
            return None;
        }
        let code = u16::try_from(codes.len()).ok()?;
        codes.insert(word.into(), code);
        known.left -= bytes;
        Some(code)
    }

    /// The bytes of the longest word of every column, with its entry.
    pub(super) fn longest(&self) -> Vec<usize> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = known.columns.iter().map(|codes| {
            let words = codes.keys().map(|word| word.len());
            words.max().unwrap_or(0) + size_of::<i32>()
        });
        longest.collect()
    }

    /// The words of every column by their codes.
    fn spelled(&self) -> Vec<ArrayRef> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let spelled = known.columns.iter().map(|codes| {
            let mut words = vec![""; codes.len()];
            for (word, code) in codes {
                if let Some(slot) = words.get_mut(usize::from(*code)) {
                    *slot = word;
                }
            }
            Arc::new(StringArray::from_iter_values(words)) as ArrayRef
        });
        spelled.collect()
    }
}

/// Codes the batches of one worker.
#[derive(Debug)]
pub(super) struct Packer {
    words: Words,
    columns: Vec<Met>,
}

/// The words of a column that one worker has met so far.
#[derive(Debug, Default)]
struct Met {
    codes: Codes,
    /// Whether the column has too many words to be coded.
    plain: bool,
}

impl Packer {
    pub fn new(words: &Words) -> Self {
        Self {
            words: words.clone(),
            columns: Vec::new(),
        }
    }

    pub fn words(&self) -> &Words {
        &self.words
    }

    /// # Errors
    /// None, apart from defects.
    pub fn pack(&mut self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        if self.columns.is_empty() {
            let strings = |field: &FieldRef| *field.data_type() == DataType::Utf8;
            let known = |field| Met {
                codes: Codes::default(),
                plain: !strings(field),
            };
            self.columns = batch.schema().fields().iter().map(known).collect();
        }
        let columns = batch.columns().iter().zip(&mut self.columns).enumerate();
        let columns = columns.map(|(index, (column, known))| {
            let codes = known.codes(column, |word| self.words.learn(index, word));
            codes.map_or_else(|| Arc::clone(column), |codes| Arc::new(codes) as ArrayRef)
        });
        with_columns(batch, columns.collect())
    }
}

impl Met {
    /// The codes of all values, if the column has few words.
    fn codes(
        &mut self,
        column: &ArrayRef,
        learn: impl Fn(&str) -> Option<u16>,
    ) -> Option<UInt16Array> {
        if self.plain {
            return None;
        }
        let strings = column.as_string_opt::<i32>()?;
        let mut codes = Vec::with_capacity(strings.len());
        for word in strings {
            let Some(word) = word else {
                codes.push(0);
                continue;
            };
            let known = self.codes.get(word).copied();
            let Some(code) = known.or_else(|| {
                let code = learn(word)?;
                self.codes.insert(word.into(), code);
                Some(code)
            }) else {
                self.plain = true;
                self.codes = Codes::default();
                return None;
            };
            codes.push(code);
        }
        Some(UInt16Array::new(codes.into(), strings.nulls().cloned()))
    }
}

/// The columns that are coded in all of several batches or runs.
pub(super) struct Common {
    /// The different words of the runs, each with the texts of every column by code.
    tables: Vec<(Words, Vec<ArrayRef>)>,
    coded: Vec<bool>,
}

impl Common {
    /// The columns of batches or runs with the same words. Stored runs have no codes, and give `None`.
    pub fn new(words: &Words, schemas: impl IntoIterator<Item = Option<Arc<Schema>>>) -> Self {
        Self::over(schemas.into_iter().map(|schema| (Some(words), schema)))
    }

    /// The columns of runs with these words and schemas. If the runs have different words, no column is coded
    /// in all of them.
    pub fn over<'a>(
        runs: impl IntoIterator<Item = (Option<&'a Words>, Option<Arc<Schema>>)>,
    ) -> Self {
        let mut tables: Vec<(Words, Vec<ArrayRef>)> = Vec::new();
        let coded = runs.into_iter().map(|(words, schema)| -> Vec<bool> {
            if let Some(words) = words
                && tables.iter().all(|(known, _)| !known.is(words))
            {
                tables.push((words.clone(), words.spelled()));
            }
            let fields = schema.iter().flat_map(|schema| schema.fields().iter());
            fields.map(|field| is_code(field.data_type())).collect()
        });
        let both = |a: Vec<bool>, b: Vec<bool>| a.iter().zip(b).map(|(a, b)| *a && b).collect();
        let mut coded = coded.reduce(both).unwrap_or_default();
        if tables.len() > 1 {
            coded.fill(false);
        }
        Self { tables, coded }
    }

    /// Spells out the columns that are not coded in all batches, if all batches have the same words.
    ///
    /// # Errors
    /// None, apart from defects.
    pub fn spell(&self, batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let words = self.tables.first().map(|(words, _)| words);
        self.spell_from(words, batch)
    }

    /// Spells out the columns that are not coded in all runs, for a run with these words.
    ///
    /// # Errors
    /// None, apart from defects.
    pub fn spell_from(
        &self,
        words: Option<&Words>,
        batch: RecordBatch,
    ) -> Result<RecordBatch, ArrowError> {
        let spelled = |(index, column): (usize, &ArrayRef)| {
            let is_common = self.coded.get(index).copied().unwrap_or(false);
            is_code(column.data_type()) && !is_common
        };
        if !batch.columns().iter().enumerate().any(spelled) {
            return Ok(batch);
        }
        let same = |(known, _): &&(Words, _)| words.is_some_and(|words| known.is(words));
        let table = self.tables.iter().find(same);
        let columns = batch.columns().iter().enumerate().map(|(index, column)| {
            match spelled((index, column)) {
                true => take(&words_of(table, index), column, None),
                false => Ok(Arc::clone(column)),
            }
        });
        let columns = columns.collect::<Result<_, _>>()?;
        with_columns(&batch, columns)
    }

    /// A column as it is written for readers.
    ///
    /// # Errors
    /// None, apart from defects.
    pub fn dictionary(&self, index: usize, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        let Some(codes) = column.as_primitive_opt::<UInt16Type>() else {
            return Ok(Arc::clone(column));
        };
        let words = words_of(self.tables.first(), index);
        Ok(Arc::new(DictionaryArray::try_new(codes.clone(), words)?))
    }
}

/// The words of a column. A column in which all values are NULL has none.
fn words_of(table: Option<&(Words, Vec<ArrayRef>)>, index: usize) -> ArrayRef {
    let words = table.and_then(|(_, columns)| columns.get(index));
    let none = || Arc::new(StringArray::new_null(0)) as ArrayRef;
    words.cloned().unwrap_or_else(none)
}

pub(super) fn is_code(data_type: &DataType) -> bool {
    *data_type == DataType::UInt16
}

/// A batch with the same names and other columns.
fn with_columns(batch: &RecordBatch, columns: Vec<ArrayRef>) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    let fields = schema.fields().iter().zip(&columns).map(|(field, column)| {
        match field.data_type() == column.data_type() {
            true => Arc::clone(field),
            false => Arc::new(Field::new(
                field.name(),
                column.data_type().clone(),
                field.is_nullable(),
            )),
        }
    });
    RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(words: &[Option<String>]) -> RecordBatch {
        let column: StringArray = words.iter().collect();
        RecordBatch::try_from_iter([("word", Arc::new(column) as ArrayRef)]).unwrap()
    }

    fn some(words: impl IntoIterator<Item = usize>) -> Vec<Option<String>> {
        words
            .into_iter()
            .map(|n| Some(format!("word {n}")))
            .collect()
    }

    #[test]
    fn few_words_are_codes_and_come_back() {
        let words = Words::new(1 << 20, 2);
        let mut packers = [Packer::new(&words), Packer::new(&words)];
        let mut texts = some((0..300).map(|n| n % 40));
        texts.extend([None, Some(String::new())]);
        // Each worker meets the words in its own order.
        let backwards: Vec<_> = texts.iter().rev().cloned().collect();
        let packed = [
            packers[0].pack(&batch(&texts)).unwrap(),
            packers[1].pack(&batch(&backwards)).unwrap(),
        ];
        let common = Common::new(&words, packed.iter().map(|batch| Some(batch.schema())));
        for (packed, texts) in packed.into_iter().zip([texts, backwards]) {
            assert_eq!(packed.column(0).data_type(), &DataType::UInt16);
            let kept = common.spell(packed.clone()).unwrap();
            assert_eq!(kept, packed);
            let column = common.dictionary(0, packed.column(0)).unwrap();
            let spelled = arrow::compute::cast(&column, &DataType::Utf8).unwrap();
            assert_eq!(&spelled, batch(&texts).column(0));
        }
    }

    #[test]
    fn what_is_not_coded_in_all_is_spelled_out() {
        let words = Words::new(1 << 20, 2);
        let mut packer = Packer::new(&words);
        let few = some(0..WORDS);
        let packed = packer.pack(&batch(&few)).unwrap();
        assert_eq!(packed.column(0).data_type(), &DataType::UInt16);
        for wide in [
            batch(&some(WORDS..=WORDS)),
            batch(&[Some("x".repeat(LONG + 1))]),
            // The column stays uncoded.
            batch(&few),
        ] {
            assert_eq!(packer.pack(&wide).unwrap(), wide);
            let schemas = [packed.schema(), wide.schema()].map(Some);
            let common = Common::new(&words, schemas);
            assert_eq!(common.spell(packed.clone()).unwrap(), batch(&few));
        }
        let stored = Common::new(&words, [Some(packed.schema()), None]);
        assert_eq!(stored.spell(packed).unwrap(), batch(&few));
    }

    #[test]
    fn nothing_but_nulls_has_no_words() {
        let words = Words::new(1 << 20, 2);
        let nulls = batch(&[None, None]);
        let packed = Packer::new(&words).pack(&nulls).unwrap();
        let common = Common::new(&words, [Some(packed.schema())]);
        let column = common.dictionary(0, packed.column(0)).unwrap();
        assert_eq!(column.logical_null_count(), 2);
        let common = Common::new(&words, [None]);
        assert_eq!(common.spell(packed).unwrap(), nulls);
    }

    #[test]
    fn words_take_no_more_memory_than_they_may() {
        let words = Words::new(3 * 100 * 100, 2);
        let mut packer = Packer::new(&words);
        let texts = some(0..50);
        let column: ArrayRef = Arc::new(texts.iter().collect::<StringArray>());
        let columns = (0..10).map(|i| (format!("c{i}"), Arc::clone(&column)));
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let packed = packer.pack(&batch).unwrap();
        let coded: Vec<bool> = packed
            .columns()
            .iter()
            .map(|c| is_code(c.data_type()))
            .collect();
        assert!(coded[0] && coded[1] && !coded[4] && !coded[9], "{coded:?}");
        assert!(
            words
                .longest()
                .iter()
                .all(|longest| *longest <= 4 + "word 49".len())
        );
    }
}
