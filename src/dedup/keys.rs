//! From events to the narrow rows of each rule.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows as KeyRows, SortField};
use chrono::NaiveDate;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::Places;
use crate::config::Rule;
use crate::engine::{ExpressionError, RuleExpressions};
use crate::event::{Slicing, TimeUnit};

/// A rule cannot be applied to the events.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(transparent)]
    Expression(#[from] ExpressionError),
    #[error("rule {rule}: {source}")]
    Key {
        rule: String,
        source: arrow::error::ArrowError,
    },
}

/// The compiled keys of a source's rules, for one worker.
#[derive(Debug)]
pub struct Keys {
    rules: Vec<RuleKey>,
    places: Places,
}

/// How many events a rule found a key in, of those that its `when` admits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyCounts {
    /// With a key, on a date that the rule concerns.
    pub keyed: u64,
    /// With a null in the key.
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
    /// `schema` is that of the events' batches; it may lack columns that no rule reads.
    ///
    /// # Errors
    /// An expression that does not fit the columns.
    pub fn compile(
        rules: &[Rule],
        schema: &Arc<Schema>,
        slicing: Slicing,
        unit: TimeUnit,
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

    /// What each rule has found so far, in the order of the rules.
    pub fn counts(&self) -> Vec<KeyCounts> {
        self.rules.iter().map(|rule| rule.counts).collect()
    }

    /// Hands out the fingerprint of every event that a rule concerns: index of the rule, row, key.
    /// `times` are sortable; without them, rules count on every date.
    ///
    /// # Errors
    /// An expression that fails on a value, such as a division by zero.
    pub fn each(
        &mut self,
        batch: &RecordBatch,
        times: Option<&[u64]>,
        mut out: impl FnMut(usize, usize, Fingerprint),
    ) -> Result<(), KeyError> {
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
            // One string stands for itself, and need not be copied.
            let text = match keys.as_slice() {
                [key] => key.as_string_opt::<i32>(),
                _ => None,
            };
            rule.rows.clear();
            if text.is_none() {
                rule.converter.append(&mut rule.rows, &keys).map_err(at)?;
            }
            let bounded = rule.since != NaiveDate::MIN || rule.until != NaiveDate::MAX;
            let rows = (0..batch.num_rows())
                .filter(|row| admitted.as_ref().is_none_or(|mask| mask.value(*row)));
            let mut counts = rule.counts;
            for (i, row) in rows.enumerate() {
                // A null in any part says that the event has no such key.
                if keys.iter().any(|part| part.is_null(i)) {
                    counts.null += 1;
                    continue;
                }
                if bounded && let Some(time) = times.and_then(|times| times.get(row)) {
                    let date = self.places.place(super::from_sortable(*time)).date;
                    if date < rule.since || date > rule.until {
                        continue;
                    }
                }
                let key = match text {
                    Some(text) => fingerprint(text.value(i).as_bytes()),
                    None => fingerprint(rule.rows.row(i).as_ref()),
                };
                counts.keyed += 1;
                out(index, row, key);
            }
            rule.counts = counts;
        }
        Ok(())
    }
}

/// 128 bits that stand for a key.
pub type Fingerprint = [u64; 2];

/// Which of `parts` a key belongs to. The low half deals, the high half sorts: parts stay even.
pub fn part_of([_, low]: Fingerprint, parts: usize) -> usize {
    usize::try_from(low % parts.max(1) as u64).unwrap_or(0)
}

/// Keys come from outside, so the hash must be one that nobody can make collide: a forged collision would
/// drop another user's events. Its secret is that of this process; fingerprints are never stored.
static HASHER: LazyLock<SipHasher13> = LazyLock::new(|| {
    let secret = || RandomState::new().build_hasher().finish();
    SipHasher13::new_with_keys(secret(), secret())
});

fn fingerprint(key: &[u8]) -> Fingerprint {
    let mut hasher = *HASHER;
    hasher.write(key);
    let hash = hasher.finish128();
    [hash.h1, hash.h2]
}
