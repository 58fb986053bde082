//! From events to the narrow rows of each rule.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Schema;
use arrow::row::{RowConverter, Rows as KeyRows, SortField};
use chrono::NaiveDate;
use sha2::{Digest, Sha256};

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
    /// How many parts the rows of a rule are dealt to.
    parts: u64,
}

#[derive(Debug)]
struct RuleKey {
    name: String,
    expressions: RuleExpressions,
    converter: RowConverter,
    rows: KeyRows,
    since: NaiveDate,
    until: NaiveDate,
}

impl Keys {
    /// `schema` is that of the decoded events; `parts` is how many threads decide at once.
    ///
    /// # Errors
    /// An expression that does not fit the columns.
    pub fn compile(
        rules: &[Rule],
        schema: &Arc<Schema>,
        slicing: Slicing,
        unit: TimeUnit,
        parts: usize,
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
            parts: parts.max(1) as u64,
        })
    }

    /// Adds the rows of a batch to `out[rule][part]`. `times` are sortable, `ids` those of events.
    ///
    /// # Errors
    /// An expression that fails on a value, such as a division by zero.
    pub fn rows(
        &mut self,
        batch: &RecordBatch,
        times: &[u64],
        ids: &[u64],
        out: &mut [Vec<Vec<[u64; 4]>>],
    ) -> Result<(), KeyError> {
        for (rule, out) in self.rules.iter_mut().zip(out) {
            let at = |source| KeyError::Key {
                rule: rule.name.clone(),
                source,
            };
            let admitted = rule.expressions.admitted(batch)?;
            let picked = match &admitted {
                Some(mask) => Some(filter_record_batch(batch, mask).map_err(at)?),
                None => None,
            };
            let keys = rule.expressions.keys(picked.as_ref().unwrap_or(batch))?;
            rule.rows.clear();
            rule.converter.append(&mut rule.rows, &keys).map_err(at)?;
            let bounded = rule.since != NaiveDate::MIN || rule.until != NaiveDate::MAX;
            let rows = (0..batch.num_rows())
                .filter(|row| admitted.as_ref().is_none_or(|mask| mask.value(*row)));
            for (i, (key, row)) in rule.rows.iter().zip(rows).enumerate() {
                // A null in any part says that the event has no such key.
                if keys.iter().any(|part| part.is_null(i)) {
                    continue;
                }
                let (Some(time), Some(id)) = (times.get(row), ids.get(row)) else {
                    continue;
                };
                if bounded {
                    let date = self.places.place(super::from_sortable(*time)).date;
                    if date < rule.since || date > rule.until {
                        continue;
                    }
                }
                let [high, low] = fingerprint(key.as_ref());
                // The low half deals, the high half sorts: parts stay even.
                let part = usize::try_from(low % self.parts).unwrap_or(0);
                if let Some(rows) = out.get_mut(part) {
                    rows.push([high, low, *time, *id]);
                }
            }
        }
        Ok(())
    }
}

/// 128 bits that stand for a key. Keys come from outside, so the hash must be one that nobody can
/// make collide: a forged collision would drop another user's events.
fn fingerprint(key: &[u8]) -> [u64; 2] {
    let digest = Sha256::digest(key);
    let word = |from: usize| {
        let mut word = [0; 8];
        for (to, byte) in word.iter_mut().zip(digest.iter().skip(from)) {
            *to = *byte;
        }
        u64::from_be_bytes(word)
    };
    [word(0), word(8)]
}
