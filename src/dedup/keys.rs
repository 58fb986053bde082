//! Makes the narrow rows of each rule from events.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows as KeyRows, SortField};
use chrono::NaiveDate;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::Places;
use crate::config::Rule;
use crate::engine::{ExpressionError, RuleExpressions};
use crate::event::Slicing;
use crate::time::TimeUnit;

/// A rule cannot be applied to the events.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// An expression of a rule that cannot be compiled or evaluated.
    #[error(transparent)]
    Expression(#[from] ExpressionError),
    /// A key whose values cannot be hashed.
    #[error("rule {rule}: {source}")]
    Key {
        /// The name of the rule.
        rule: String,
        /// The error of Arrow.
        source: arrow::error::ArrowError,
    },
}

/// The compiled keys of a source's rules, for one worker.
#[derive(Debug)]
pub struct Keys {
    rules: Vec<RuleKey>,
    hashing: Hashing,
    places: Places,
}

/// How many of the events that its `when` admits have a key under a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyCounts {
    /// The events with a key, on a date that the rule concerns.
    pub keyed: u64,
    /// The events with a null in the key.
    pub null: u64,
}

#[derive(Debug)]
struct RuleKey {
    name: String,
    counts: KeyCounts,
    expressions: RuleExpressions,
    converter: RowConverter,
    rows: KeyRows,
    since: NaiveDate,
    until: NaiveDate,
}

impl Keys {
    /// `schema` is the schema of the batches of events. It may lack columns that no rule reads. Fingerprints
    /// can be compared only if their `hashing` is the same.
    ///
    /// # Errors
    /// An expression that does not fit the columns.
    pub fn compile(
        rules: &[Rule],
        schema: &Arc<Schema>,
        slicing: Slicing,
        unit: TimeUnit,
        hashing: &Hashing,
    ) -> Result<Self, KeyError> {
        let rules = rules
            .iter()
            .map(|rule| {
                let expressions =
                    RuleExpressions::compile(&rule.name, &rule.key, rule.when.as_deref(), schema)?;
                let at = |source| KeyError::Key {
                    rule: rule.name.clone(),
                    source,
                };
                let fields = expressions
                    .key_types()
                    .into_iter()
                    .map(SortField::new)
                    .collect();
                let converter = RowConverter::new(fields).map_err(at)?;
                let rows = converter.empty_rows(0, 0);
                Ok(RuleKey {
                    name: rule.name.clone(),
                    counts: KeyCounts::default(),
                    expressions,
                    converter,
                    rows,
                    since: rule.since.unwrap_or(NaiveDate::MIN),
                    until: rule.until.unwrap_or(NaiveDate::MAX),
                })
            })
            .collect::<Result<_, KeyError>>()?;
        Ok(Self {
            rules,
            hashing: *hashing,
            places: Places::new(slicing, unit),
        })
    }

    /// The columns that the rules read.
    pub fn columns(&self) -> BTreeSet<String> {
        self.rules
            .iter()
            .flat_map(|rule| rule.expressions.columns())
            .collect()
    }

    /// The columns that each rule reads, in the order of the rules.
    pub fn columns_by_rule(&self) -> Vec<BTreeSet<String>> {
        let columns = |rule: &RuleKey| rule.expressions.columns().collect();
        self.rules.iter().map(columns).collect()
    }

    /// The counts of each rule so far, in the order of the rules.
    pub fn counts(&self) -> Vec<KeyCounts> {
        self.rules.iter().map(|rule| rule.counts).collect()
    }

    /// Hands out the fingerprint of every event that a rule concerns: the index of the rule, the row and the
    /// key. `times` are sortable. Without `times`, rules concern events of every date.
    ///
    /// # Errors
    /// An expression that fails on a value, such as a division by zero.
    pub fn each(
        &mut self,
        batch: &RecordBatch,
        times: Option<&[u64]>,
        mut out: impl FnMut(usize, usize, Fingerprint),
    ) -> Result<(), KeyError> {
        let hashing = self.hashing;
        for (index, rule) in self.rules.iter_mut().enumerate() {
            let at = |source| KeyError::Key {
                rule: rule.name.clone(),
                source,
            };
            if let Some(times) = times.filter(|times| times.len() != batch.num_rows()) {
                let (times, rows) = (times.len(), batch.num_rows());
                let message =
                    format!("{rows} events have {times} times; this is a defect of rawmart");
                return Err(at(ArrowError::ComputeError(message)));
            }
            let admitted = rule.expressions.admitted(batch)?;
            let keys = rule.expressions.keys(batch, admitted.as_ref())?;
            // A single string is its own text and need not be copied.
            let text = match keys.as_slice() {
                [key] => key.as_string_opt::<i32>(),
                _ => None,
            };
            rule.rows.clear();
            if text.is_none() {
                rule.converter.append(&mut rule.rows, &keys).map_err(at)?;
            }
            let bounded = rule.since != NaiveDate::MIN || rule.until != NaiveDate::MAX;
            // An event with a null in any part has no such key.
            let nulls = keys.iter().fold(None, |nulls, part| {
                NullBuffer::union(nulls.as_ref(), part.nulls())
            });
            let rows = (0..batch.num_rows())
                .filter(|row| admitted.as_ref().is_none_or(|mask| mask.value(*row)));
            let mut beyond = 0;
            for (i, row) in rows.enumerate() {
                if nulls.as_ref().is_some_and(|nulls| nulls.is_null(i)) {
                    continue;
                }
                if bounded && let Some(time) = times.and_then(|times| times.get(row)) {
                    let date = self.places.place(super::from_sortable(*time)).date;
                    if date < rule.since || date > rule.until {
                        beyond += 1;
                        continue;
                    }
                }
                let key = match text {
                    Some(text) => hashing.fingerprint(text.value(i).as_bytes()),
                    None => hashing.fingerprint(rule.rows.row(i).as_ref()),
                };
                out(index, row, key);
            }
            // The events are counted for the whole batch: a count for each row would cost more than the test of
            // its key.
            let events = match &admitted {
                Some(mask) => mask.true_count(),
                None => batch.num_rows(),
            };
            let null = nulls.map_or(0, |nulls| nulls.null_count());
            rule.counts.null += null as u64;
            rule.counts.keyed += (events - null - beyond) as u64;
        }
        Ok(())
    }
}

/// 128 bits that stand for a key.
pub type Fingerprint = [u64; 2];

/// The part that a key belongs to. The low half chooses the part and the high half sorts, so parts have about
/// the same size.
pub fn part_of([_, low]: Fingerprint, parts: usize) -> usize {
    usize::try_from(low % parts.max(1) as u64).unwrap_or(0)
}

/// The hash that makes fingerprints of keys.
///
/// Keys come from outside, so the hash must be one that nobody can make collide: a forged collision would
/// drop another user's events. A run therefore has a secret of its own. All fingerprints of one run are
/// made with the same secret; fingerprints are never stored.
#[derive(Clone, Copy)]
pub struct Hashing(SipHasher13);

impl Hashing {
    /// The hash of a known secret.
    pub fn new([a, b]: [u64; 2]) -> Self {
        Self(SipHasher13::new_with_keys(a, b))
    }

    /// The hash of a secret that nobody knows.
    pub fn random() -> Self {
        let secret = || RandomState::new().build_hasher().finish();
        Self::new([secret(), secret()])
    }

    fn fingerprint(self, key: &[u8]) -> Fingerprint {
        let mut hasher = self.0;
        hasher.write(key);
        let hash = hasher.finish128();
        [hash.h1, hash.h2]
    }
}

impl fmt::Debug for Hashing {
    /// The secret is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hashing")
    }
}
