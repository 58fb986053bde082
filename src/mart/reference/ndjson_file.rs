//! References of JSON objects, one on each line.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};

use arrow::datatypes::SchemaRef;
use serde_json::value::RawValue;

use super::cells::{At, Rows};
use super::infer::OfMembers;
use super::text::CHUNK;
use super::{Reader, ReferenceError, Take};
use crate::event::ColumnType;

/// The members of a line, by their names in lower case, as they are written.
type Members = BTreeMap<String, Box<RawValue>>;

/// Takes a line, from 1, and its members.
type Each<'a, E> = dyn FnMut(u64, &Members) -> Result<(), E> + 'a;

impl Reader<'_> {
    /// Hands over the lines of a file of JSON objects.
    pub(super) fn ndjson<E: From<ReferenceError>>(
        &self,
        take: &mut Take<'_, E>,
    ) -> Result<SchemaRef, E> {
        let columns: Vec<(String, ColumnType)> = match &self.reference.columns {
            // A declared column that no line has is NULL everywhere: JSON leaves out members without a value.
            Some(declared) => declared.clone(),
            None => self.inferred()?,
        };
        let places: HashMap<String, usize> = columns
            .iter()
            .map(|(name, _)| name.clone())
            .zip(0..)
            .collect();
        let mut batch = Rows::new(columns);
        self.lines(&mut |line, members| {
            let bytes: usize = members.values().map(|value| value.get().len()).sum();
            batch.push(At::Line(line), bytes);
            for (name, value) in members {
                let Some(place) = places.get(name) else {
                    continue;
                };
                let text = value.get();
                match text.as_bytes() {
                    [b'n', ..] => {}
                    [b'"', ..] => {
                        let text = serde_json::from_str(text).map_err(|error| {
                            self.fail(Some(line), format!("the member `{name}`: {error}"))
                        });
                        batch.set(*place, text?);
                    }
                    _ => batch.set(*place, text.to_owned()),
                }
            }
            self.give(&mut batch, false, take).map(|_| ())
        })?;
        self.give(&mut batch, true, take)
    }

    /// The columns of all members, in the order in which the file names them first.
    fn inferred(&self) -> Result<Vec<(String, ColumnType)>, ReferenceError> {
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut seen: Vec<(String, OfMembers)> = Vec::new();
        self.lines(&mut |_, members| {
            for (name, value) in members {
                if !places.contains_key(name) {
                    if places.len() == self.most_columns() {
                        return Err(self.many_columns());
                    }
                    places.insert(name.clone(), seen.len());
                    seen.push((name.clone(), OfMembers::default()));
                }
                let place = places.get(name).and_then(|place| seen.get_mut(*place));
                if let Some((_, seen)) = place {
                    seen.note(value.get());
                }
            }
            Ok::<_, ReferenceError>(())
        })?;
        let kinds = seen.into_iter();
        Ok(kinds.map(|(name, seen)| (name, seen.kind())).collect())
    }

    /// Gives `each` the members of each line that is not blank, by their names in lower case.
    fn lines<E: From<ReferenceError>>(&self, each: &mut Each<'_, E>) -> Result<(), E> {
        let mut text = BufReader::with_capacity(CHUNK, self.text()?);
        let mut row = Vec::new();
        for line in 1.. {
            row.clear();
            text.get_mut().begin_row();
            let read = text.read_until(b'\n', &mut row);
            if read.map_err(|error| self.unreadable(&error))? == 0 {
                break;
            }
            if row.trim_ascii().is_empty() {
                continue;
            }
            // Values are kept as they are written, because a number of serde_json has lost digits.
            let read: Members = serde_json::from_slice(&row)
                .map_err(|error| self.fail(Some(line), format!("not one JSON object: {error}")))?;
            let mut members = Members::new();
            for (name, value) in read {
                let name = name.trim().to_lowercase();
                if members.contains_key(&name) {
                    let message = format!(
                        "there are two members `{name}`; names must differ in more than capitals"
                    );
                    return Err(self.fail(Some(line), message).into());
                }
                members.insert(name, value);
            }
            each(line, &members)?;
        }
        Ok(())
    }
}
