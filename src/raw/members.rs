//! The members of a record that columns name, which are found while the record is validated; and `extra`, which is all
//! other members.
//!
//! ```text
//! {"id":"a","device":{"os":"ios","ram":4},"ab":1}       columns: id, os at device.os
//!      └ slot        │       └ slot      │     │
//!                    └ open      entry ──┘     └ entry  ──▶ extra {"device":{"ram":4},"ab":1}
//! ```
//!
//! Where a path meets a string that holds a JSON object, the object is put behind the record, and the path goes on there:
//!
//! ```text
//! {"device":"{\"os\":\"ios\",\"ram\":4}"}{"os":"ios","ram":4}
//!           └ obstacle                  └ opened: slot of os, entry of ram ──▶ extra {"device":{"ram":4}}
//! ```

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;

use super::json::{NAME, Name, Skipper, Stop, byte, colon, name, space, string, unescape};
use crate::event::{Column, ColumnType};

/// The node of a member that no column names.
const UNNAMED: u32 = u32::MAX;

/// A member name that is on the path of some column.
#[derive(Debug, Default)]
struct Node {
    names: Names,
    /// Whether a column or a field of a struct has this path. Its value is named, whatever its type.
    named: bool,
    /// Whether a column that is no struct has this path. All members beneath are named.
    whole: bool,
    /// Whether a node above is whole.
    covered: bool,
    /// The columns whose path goes on beneath.
    through: Vec<usize>,
    /// All nodes beneath this one.
    beneath: Vec<u32>,
}

/// The number of bytes that an [`Opening`] is compared with.
const AHEAD: usize = 24;

/// Up to so many names, all pairs are compared. For more names, a table is made.
const FEW: usize = 16;

/// How a member begins that is written without escapes and spaces: `"name":`. Most members are. One comparison
/// finds such a name and its end.
#[derive(Debug, Clone, Copy)]
struct Opening {
    words: [u64; AHEAD / 8],
    masks: [u64; AHEAD / 8],
    length: usize,
}

impl Opening {
    /// The opening of a name. It equals no bytes where the name is too long or needs escapes.
    fn of(name: &[u8]) -> Self {
        let mut opening = Self {
            words: [1; AHEAD / 8],
            masks: [0; AHEAD / 8],
            length: name.len() + 3,
        };
        let plain = |byte: &u8| *byte >= 0x20 && !matches!(byte, b'"' | b'\\');
        if opening.length > AHEAD || !name.iter().all(plain) {
            return opening;
        }
        let (mut bytes, mut ones) = ([0; AHEAD], [0; AHEAD]);
        let written = [&b"\""[..], name, b"\":"].concat();
        for ((byte, one), given) in bytes.iter_mut().zip(&mut ones).zip(written) {
            (*byte, *one) = (given, 0xFF);
        }
        opening.words = words(&bytes);
        opening.masks = words(&ones);
        opening
    }

    /// Whether the next bytes are this opening.
    #[inline(always)]
    fn begins(&self, ahead: &[u64; AHEAD / 8]) -> bool {
        let [a, b, c] = *ahead;
        let ([x, y, z], [k, l, m]) = (self.words, self.masks);
        ((a & k) ^ x) | ((b & l) ^ y) | ((c & m) ^ z) == 0
    }
}

#[inline(always)]
fn words(bytes: &[u8; AHEAD]) -> [u64; AHEAD / 8] {
    let mut words = [0; AHEAD / 8];
    for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*chunk);
    }
    words
}

/// A name that columns have, prepared for comparison.
#[derive(Debug)]
struct Known {
    opening: Opening,
    node: u32,
    /// Whether no column names anything beneath.
    leaf: bool,
    /// The name that followed this name in the last record. Most records have the same order.
    next: Cell<u32>,
}

/// A member up to its value; and, where a column has its name, the index of the name and what is known of it.
type Met<'a> = (Entry, Option<(usize, &'a Known)>);

/// The names of the members beneath one node, and the node of each.
#[derive(Debug, Default)]
struct Names {
    names: Vec<(Box<[u8]>, u32)>,
    /// The same names in the same order, prepared for comparison.
    known: Vec<Known>,
    /// A hash table over `names` with open addressing. A slot holds the index plus one; 0 is a free slot. The length is a
    /// power of 2.
    table: Vec<u32>,
    /// The name that came first in the last record.
    first: Cell<u32>,
}

impl Names {
    fn hash(name: &[u8]) -> usize {
        let at = |i: usize| name.get(i).map_or(0, |byte| u32::from(*byte));
        let mixed = at(0) | at(name.len() / 2) << 8 | at(name.len().saturating_sub(1)) << 16;
        let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
        ((mixed ^ length << 24).wrapping_mul(0x9E37_79B1) >> 12) as usize
    }

    /// Prepares the names. `leaves` says for each node whether no column names anything beneath.
    fn build(&mut self, leaves: &[bool]) {
        self.known = self
            .names
            .iter()
            .zip(1..)
            .map(|((name, node), next)| Known {
                opening: Opening::of(name),
                node: *node,
                leaf: leaves.get(*node as usize) == Some(&true),
                next: Cell::new(next),
            })
            .collect();
        let size = (self.names.len() * 4).next_power_of_two();
        self.table = vec![0; size];
        for (i, (name, _)) in self.names.iter().enumerate() {
            let mut probe = Self::hash(name);
            while let Some(slot) = self.table.get_mut(probe & (size - 1)) {
                if *slot == 0 {
                    *slot = u32::try_from(i + 1).unwrap_or(0);
                    break;
                }
                probe += 1;
            }
        }
    }

    /// The member at `at`, where its name is the name with the index `guess`.
    #[inline(always)]
    fn foreseen(&self, text: &[u8], at: usize, guess: usize) -> Option<(&Known, Entry)> {
        let ahead = words(text.get(at..)?.first_chunk::<AHEAD>()?);
        let known = self.known.get(guess)?;
        known.opening.begins(&ahead).then(|| {
            let after = at + known.opening.length;
            let entry = Entry {
                name: at as u32,
                name_end: after as u32 - 1,
                start: space(text, after) as u32,
                end: 0,
                node: known.node,
                open: false,
                escaped: false,
            };
            (known, entry)
        })
    }

    /// The member at `at`, with any name.
    fn member(&self, text: &[u8], at: usize, guess: usize) -> Result<Met<'_>, Stop> {
        if byte(text, at)? != b'"' {
            return Err(Stop::Bad { at, wanted: NAME });
        }
        let (quote, escaped) = string(text, at + 1)?;
        let name = text.get(at + 1..quote).unwrap_or_default();
        let start = colon(text, quote + 1)?;
        let index = if escaped {
            std::str::from_utf8(name)
                .ok()
                .and_then(unescape)
                .and_then(|name| self.find(name.as_bytes(), guess))
        } else {
            self.find(name, guess)
        };
        let known = index.and_then(|index| Some((index, self.known.get(index)?)));
        let entry = Entry {
            name: at as u32,
            name_end: quote as u32 + 1,
            start: start as u32,
            end: 0,
            node: known.map_or(UNNAMED, |(_, known)| known.node),
            open: false,
            escaped,
        };
        Ok((entry, known))
    }

    /// The index of `name`. The index `guess` is tried first.
    #[inline]
    fn find(&self, name: &[u8], guess: usize) -> Option<usize> {
        if self
            .names
            .get(guess)
            .is_some_and(|(known, _)| **known == *name)
        {
            return Some(guess);
        }
        let mut probe = Self::hash(name);
        while let Some(slot) = self.table.get(probe & self.table.len().wrapping_sub(1)) {
            let index = (*slot as usize).checked_sub(1)?;
            if self
                .names
                .get(index)
                .is_some_and(|(known, _)| **known == *name)
            {
                return Some(index);
            }
            probe += 1;
        }
        None
    }
}

/// The place of the value of a node in the record, in bytes. `end` is 0 where the value is missing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Slot {
    /// The first byte of the name, which is a quote.
    pub name: u32,
    /// The first byte of the value.
    pub start: u32,
    /// The byte behind the value.
    pub end: u32,
    /// The byte behind the name with its quotes.
    pub name_end: u32,
    /// Whether the value is a string without escapes.
    pub plain: bool,
}

impl Slot {
    /// The text of the value. `None` where it is missing.
    #[inline]
    pub fn text<'a>(&self, record: &'a str) -> Option<&'a str> {
        if self.end == 0 {
            return None;
        }
        record.get(self.start as usize..self.end as usize)
    }
}

/// A member that may belong to `extra`: no column names it, or it is an object on the path of columns.
#[derive(Debug, Clone, Copy)]
struct Entry {
    name: u32,
    name_end: u32,
    start: u32,
    end: u32,
    /// The node of the member, or [`UNNAMED`].
    node: u32,
    /// Whether the value is an object whose members are looked at one by one.
    open: bool,
    /// Whether the name has escapes.
    escaped: bool,
}

/// The members of one record, by node. It is made once for each source, and each record fills it anew.
#[derive(Debug)]
pub(super) struct Members {
    nodes: Vec<Node>,
    found: RecordParts,
    /// The nodes whose whole value goes to `extra`.
    forced: Vec<usize>,
    /// The record, and the objects in strings that were opened. Empty where there are none.
    opened: Vec<Opened>,
    /// The columns whose path met a value that has no members.
    unreached: Vec<usize>,
}

/// A value on the path of columns that is neither an object nor null.
#[derive(Debug, Clone, Copy)]
struct Obstacle {
    node: usize,
    start: u32,
    end: u32,
    /// Whether members inside it that no column names belong to `extra`.
    keep: bool,
}

/// A text whose members were looked at one by one: the record, or an object in a string.
#[derive(Debug, Clone, Copy)]
struct Opened {
    /// The node of the string. The record has the root.
    node: usize,
    /// The place of the text.
    start: u32,
    end: u32,
    /// Its entries.
    from: usize,
    until: usize,
}

/// The places of the parts of one record.
#[derive(Debug)]
struct RecordParts {
    slots: Vec<Slot>,
    /// The entries are in the order of their names in the record. An object is followed by its members.
    entries: Vec<Entry>,
    /// The number of entries that are not only open objects.
    unnamed: usize,
    obstacles: Vec<Obstacle>,
    skipper: Skipper,
}

impl Members {
    /// The members that these columns name, and the node of each column.
    pub fn new(columns: &[Column], max_depth: u32) -> (Self, Vec<usize>) {
        let mut nodes = vec![Node::default()];
        let mut places = Vec::with_capacity(columns.len());
        for (index, column) in columns.iter().enumerate() {
            if column.is_of_envelope() {
                // No member of the record leads to this node. `place` gives it a value.
                places.push(nodes.len());
                nodes.push(Node {
                    named: true,
                    whole: true,
                    ..Node::default()
                });
                continue;
            }
            let mut node = 0;
            for name in &column.path {
                if let Some(node) = nodes.get_mut(node) {
                    node.through.push(index);
                }
                node = child(&mut nodes, node, name);
            }
            name_value(&mut nodes, node, column, &column.kind, "");
            places.push(node);
        }
        close(&mut nodes, 0, false);
        let leaves: Vec<bool> = nodes
            .iter()
            .map(|node| node.names.names.is_empty())
            .collect();
        for node in &mut nodes {
            node.names.build(&leaves);
        }
        let members = Self {
            found: RecordParts {
                slots: vec![Slot::default(); nodes.len()],
                entries: Vec::new(),
                unnamed: 0,
                obstacles: Vec::new(),
                skipper: Skipper::new(max_depth),
            },
            forced: Vec::new(),
            opened: Vec::new(),
            unreached: Vec::new(),
            nodes,
        };
        (members, places)
    }

    /// The place of the value of a node.
    #[inline]
    pub fn slot(&self, node: usize) -> Slot {
        self.found.slots.get(node).copied().unwrap_or_default()
    }

    /// Gives a value to a node that no member of the record leads to. The value lies behind the record.
    pub fn place(&mut self, node: usize, slot: Slot) {
        if let Some(place) = self.found.slots.get_mut(node) {
            *place = slot;
        }
    }

    /// Validates the object that opens at the start of `text`, and notes the places of its members. The result is its
    /// length in bytes.
    pub fn read(&mut self, text: &[u8]) -> Result<usize, Stop> {
        let Self {
            nodes,
            found,
            forced,
            opened,
            unreached,
        } = self;
        found.slots.fill(Slot::default());
        found.entries.clear();
        found.unnamed = 0;
        found.obstacles.clear();
        forced.clear();
        opened.clear();
        unreached.clear();
        found.skipper.enter(0, 0)?;
        match nodes.first() {
            Some(root) => found.object(text, nodes, root, 1, 1, true),
            None => found.skipper.value(text, 0, 0),
        }
    }

    /// Looks into the strings on the paths of columns, of the record that was read last. Where one of them holds a JSON
    /// object, the paths go on inside it: the result is true, and `whole` is the record with these objects behind it.
    /// All places are then places in `whole`.
    #[inline]
    pub fn open(&mut self, record: &str, whole: &mut String) -> bool {
        !self.found.obstacles.is_empty() && self.open_strings(record, whole)
    }

    #[cold]
    fn open_strings(&mut self, record: &str, whole: &mut String) -> bool {
        whole.clear();
        let mut obstacles = std::mem::take(&mut self.found.obstacles);
        let mut next = 0;
        // Strings inside strings are added while the list is worked off.
        while let Some(obstacle) = obstacles.get(next).copied() {
            next += 1;
            let Some(node) = self.nodes.get(obstacle.node) else {
                continue;
            };
            // A later member of the same name takes the place of this value.
            let slot = self.slot(obstacle.node);
            if slot.end != obstacle.end || slot.start != obstacle.start {
                continue;
            }
            let text = if whole.is_empty() { record } else { &*whole };
            let value = slice(text, obstacle.start, obstacle.end);
            let inside = value
                .strip_prefix('"')
                .and_then(|rest| unescape(rest.strip_suffix('"')?));
            let inside = inside.map(Cow::into_owned).unwrap_or_default();
            let inside = inside.trim_matches([' ', '\t', '\r', '\n']);
            if inside == "null" {
                continue;
            }
            let is_object = inside.starts_with('{') && {
                if whole.is_empty() {
                    whole.push_str(record);
                    self.opened.push(Opened {
                        node: 0,
                        start: 0,
                        end: record.len() as u32,
                        from: 0,
                        until: self.found.entries.len(),
                    });
                }
                let opened = self.found.open(&self.nodes, node, obstacle, inside, whole);
                self.opened.extend(opened);
                opened.is_some()
            };
            match is_object {
                true => obstacles.append(&mut self.found.obstacles),
                false => self.unreached.extend_from_slice(&node.through),
            }
        }
        obstacles.clear();
        self.found.obstacles = obstacles;
        !whole.is_empty()
    }

    /// The columns of the last record whose path met a value that has no members.
    pub fn unreached(&self) -> &[usize] {
        &self.unreached
    }

    /// Makes the whole value of `node` go to `extra`, under its path.
    #[cold]
    pub fn force(&mut self, node: usize) {
        let slot = self.slot(node);
        // A column above that is named as a whole keeps the value.
        if slot.end == 0 || self.nodes.get(node).is_none_or(|node| node.covered) {
            return;
        }
        let at = self
            .found
            .entries
            .partition_point(|entry| entry.name < slot.name);
        if self
            .found
            .entries
            .get(at)
            .is_none_or(|entry| entry.name != slot.name)
        {
            let entry = Entry {
                name: slot.name,
                name_end: slot.name_end,
                start: slot.start,
                end: slot.end,
                node: node as u32,
                open: false,
                escaped: false,
            };
            self.found.entries.insert(at, entry);
            for opened in &mut self.opened {
                if slot.name < opened.start {
                    opened.from += 1;
                }
                if slot.name < opened.end {
                    opened.until += 1;
                }
            }
        }
        self.forced.push(node);
        self.found.unnamed += 1;
    }

    /// Writes the `extra` of the record that was read last. False where there is none.
    #[inline]
    pub fn extra(&self, record: &str, out: &mut String) -> bool {
        if self.found.unnamed == 0 {
            return false;
        }
        let all = self.found.entries.len();
        let until = self.opened.first().map_or(all, |record| record.until);
        self.write(record, 0, until, out)
    }

    /// The object in the string of a node, where the string was opened.
    fn opened(&self, node: usize) -> Option<&Opened> {
        let mut strings = self.opened.iter().skip(1);
        strings.find(|opened| opened.node == node)
    }

    /// Writes the object of the entries `from..until`. Writes nothing and returns false where columns name all of it.
    fn write(&self, record: &str, from: usize, until: usize, out: &mut String) -> bool {
        let mut siblings: Vec<(usize, usize)> = Vec::new();
        let mut at = from;
        while at < until
            && let Some(entry) = self.found.entries.get(at)
        {
            let inside = self.found.entries.get(at + 1..until).unwrap_or_default();
            let next = at + 1 + inside.partition_point(|inner| inner.name < entry.end);
            siblings.push((at, next));
            at = next;
        }
        let last = self.last_of_each_name(record, &siblings);
        let opening = out.len();
        for (i, (at, next)) in siblings.iter().enumerate() {
            let Some(entry) = self.found.entries.get(*at) else {
                continue;
            };
            let node = entry.node as usize;
            let stays = match self.found.slots.get(node) {
                Some(slot) => slot.end != 0 && slot.name == entry.name,
                None => last.as_ref().is_none_or(|last| last.get(i) == Some(&true)),
            };
            if !stays {
                continue;
            }
            let before = out.len();
            out.push(if before == opening { '{' } else { ',' });
            out.push_str(slice(record, entry.name, entry.name_end));
            out.push(':');
            if entry.open && !self.forced.contains(&node) {
                if !self.write(record, at + 1, *next, out) {
                    out.truncate(before);
                }
            } else if let Some(opened) = self.opened(node)
                && !self.forced.contains(&node)
            {
                if !self.write(record, opened.from, opened.until, out) {
                    out.truncate(before);
                }
            } else {
                out.push_str(slice(record, entry.start, entry.end));
            }
        }
        if out.len() == opening {
            return false;
        }
        out.push('}');
        true
    }

    /// For each sibling that no column names, whether it is the last one of its name. `None` where all are.
    fn last_of_each_name(&self, record: &str, siblings: &[(usize, usize)]) -> Option<Vec<bool>> {
        let unnamed = |(at, _): &(usize, usize)| {
            let entry = self.found.entries.get(*at)?;
            (entry.node == UNNAMED).then_some(entry)
        };
        let written = |entry: &Entry| slice(record, entry.name + 1, entry.name_end - 1);
        // For a few names, it is faster to compare all pairs.
        let distinct = siblings.len() <= FEW
            && siblings.iter().enumerate().all(|(i, sibling)| {
                let rest = siblings.get(i + 1..).unwrap_or_default();
                unnamed(sibling).is_none_or(|entry| {
                    !entry.escaped
                        && rest
                            .iter()
                            .filter_map(unnamed)
                            .all(|other| written(other) != written(entry))
                })
            });
        if distinct {
            return None;
        }
        let mut last = vec![true; siblings.len()];
        let mut seen: HashMap<Name<'_>, usize> = HashMap::with_capacity(siblings.len());
        for (i, sibling) in siblings.iter().enumerate() {
            let Some(entry) = unnamed(sibling) else {
                continue;
            };
            let name = if entry.escaped {
                name(written(entry))
            } else {
                Name::Text(Cow::Borrowed(written(entry)))
            };
            if let Some(earlier) = seen.insert(name, i)
                && let Some(last) = last.get_mut(earlier)
            {
                *last = false;
            }
        }
        Some(last)
    }
}

impl RecordParts {
    /// Reads the object `inside` of the string of an obstacle, and puts it behind `whole`. `None` where it is no valid
    /// JSON object: nothing is noted then.
    fn open(
        &mut self,
        nodes: &[Node],
        node: &Node,
        obstacle: Obstacle,
        inside: &str,
        whole: &mut String,
    ) -> Option<Opened> {
        let start = whole.len();
        let (from, unnamed) = (self.entries.len(), self.unnamed);
        whole.push_str(inside);
        let text = whole.as_bytes();
        let end = self.object(text, nodes, node, start + 1, 1, obstacle.keep);
        if end != Ok(text.len()) {
            whole.truncate(start);
            self.entries.truncate(from);
            self.unnamed = unnamed;
            self.obstacles.clear();
            self.forget(node);
            return None;
        }
        Some(Opened {
            node: obstacle.node,
            start: start as u32,
            end: whole.len() as u32,
            from,
            until: self.entries.len(),
        })
    }

    /// Forgets the values of all nodes beneath a node.
    fn forget(&mut self, node: &Node) {
        for beneath in &node.beneath {
            if let Some(slot) = self.slots.get_mut(*beneath as usize) {
                *slot = Slot::default();
            }
        }
    }

    /// Reads the members of an object, from the byte behind its opening brace. The result is the byte behind its closing
    /// brace. With `keep`, members that no column names are noted for `extra`.
    #[expect(
        clippy::too_many_arguments,
        reason = "the innermost loop of decoding: its arguments stay in registers"
    )]
    fn object(
        &mut self,
        text: &[u8],
        nodes: &[Node],
        node: &Node,
        at: usize,
        depth: usize,
        keep: bool,
    ) -> Result<usize, Stop> {
        let mut at = space(text, at);
        if byte(text, at)? == b'}' {
            return Ok(at + 1);
        }
        let names = &node.names;
        // The name that is likely next.
        let mut likely = &names.first;
        loop {
            at = match names.foreseen(text, at, likely.get() as usize) {
                Some((known, entry)) => {
                    likely = &known.next;
                    let start = entry.start as usize;
                    if known.leaf && text.get(start) == Some(&b'"') {
                        let (quote, escaped) = string(text, start + 1)?;
                        if let Some(slot) = self.slots.get_mut(known.node as usize) {
                            *slot = Slot {
                                name: entry.name,
                                start: entry.start,
                                end: quote as u32 + 1,
                                name_end: entry.name_end,
                                plain: !escaped,
                            };
                        }
                        quote + 1
                    } else {
                        self.named(text, nodes, entry, depth, keep)?
                    }
                }
                None => {
                    let (entry, known) = names.member(text, at, likely.get() as usize)?;
                    match known {
                        Some((index, known)) => {
                            likely.set(index as u32);
                            likely = &known.next;
                            self.named(text, nodes, entry, depth, keep)?
                        }
                        None => {
                            let end = self.skipper.value(text, entry.start as usize, depth)?;
                            if keep {
                                self.entries.push(Entry {
                                    end: end as u32,
                                    ..entry
                                });
                                self.unnamed += 1;
                            }
                            end
                        }
                    }
                }
            };
            // Most members follow each other without spaces.
            if let Some([b',', b'"']) = text.get(at..).and_then(<[u8]>::first_chunk::<2>) {
                at += 1;
                continue;
            }
            at = space(text, at);
            match byte(text, at)? {
                b',' => at = space(text, at + 1),
                b'}' => return Ok(at + 1),
                _ => {
                    return Err(Stop::Bad {
                        at,
                        wanted: "`,` or `}`",
                    });
                }
            }
        }
    }

    /// Reads the value of a node, and returns its end. Values of an earlier member of the same name are forgotten.
    #[inline]
    fn named(
        &mut self,
        text: &[u8],
        nodes: &[Node],
        mut entry: Entry,
        depth: usize,
        keep: bool,
    ) -> Result<usize, Stop> {
        let (start, id) = (entry.start as usize, entry.node as usize);
        let Some(node) = nodes.get(id) else {
            return self.skipper.value(text, start, depth);
        };
        let mut plain = false;
        let end = if node.names.names.is_empty() {
            if byte(text, start)? == b'"' {
                let (quote, escaped) = string(text, start + 1)?;
                plain = !escaped;
                quote + 1
            } else {
                self.skipper.value(text, start, depth)?
            }
        } else {
            if self.slots.get(id).is_some_and(|slot| slot.end != 0) {
                self.forget(node);
            }
            let (named, keep) = (node.named, keep && !node.whole);
            if byte(text, start)? == b'{' {
                self.skipper.enter(start, depth)?;
                let index = self.entries.len();
                entry.open = true;
                if keep {
                    self.entries.push(entry);
                }
                let end = self.object(text, nodes, node, start + 1, depth + 1, keep)?;
                if keep && let Some(entry) = self.entries.get_mut(index) {
                    entry.end = end as u32;
                }
                end
            } else {
                let end = self.skipper.value(text, start, depth)?;
                if keep && !named {
                    entry.end = end as u32;
                    self.entries.push(entry);
                    self.unnamed += 1;
                }
                if !node.through.is_empty() && byte(text, start)? != b'n' {
                    self.obstacles.push(Obstacle {
                        node: id,
                        start: entry.start,
                        end: end as u32,
                        keep: keep && !named,
                    });
                }
                end
            }
        };
        if let Some(slot) = self.slots.get_mut(id) {
            *slot = Slot {
                name: entry.name,
                start: entry.start,
                end: end as u32,
                name_end: entry.name_end,
                plain,
            };
        }
        Ok(end)
    }
}

/// A part of the record.
fn slice(record: &str, start: u32, end: u32) -> &str {
    record.get(start as usize..end as usize).unwrap_or_default()
}

/// The node of `name` beneath `parent`.
fn child(nodes: &mut Vec<Node>, parent: usize, name: &str) -> usize {
    let id = nodes.len();
    if let Some(node) = nodes.get_mut(parent) {
        if let Some((_, known)) = node
            .names
            .names
            .iter()
            .find(|(known, _)| **known == *name.as_bytes())
        {
            return *known as usize;
        }
        node.names.names.push((name.as_bytes().into(), id as u32));
    }
    nodes.push(Node::default());
    id
}

/// Notes that a value of type `kind` of a column is at `node`. The fields of a struct have nodes beneath. `above` is the
/// dotted place of the struct, with a dot behind it, and is empty for the column's own value.
fn name_value(nodes: &mut Vec<Node>, node: usize, column: &Column, kind: &ColumnType, above: &str) {
    if let Some(node) = nodes.get_mut(node) {
        node.named = true;
        node.whole |= !matches!(kind, ColumnType::Struct(_));
    }
    if let ColumnType::Struct(fields) = kind {
        for (name, kind) in fields {
            let place = format!("{above}{name}");
            let mut field = node;
            for name in column.field_path(&place, name) {
                field = child(nodes, field, name);
            }
            name_value(nodes, field, column, kind, &format!("{place}."));
        }
    }
}

/// Notes for `id`, and for each node beneath, which nodes lie beneath and whether a node above is whole. Gives all
/// nodes beneath `id`.
fn close(nodes: &mut [Node], id: usize, covered: bool) -> Vec<u32> {
    let Some(node) = nodes.get_mut(id) else {
        return Vec::new();
    };
    node.covered = covered;
    let covered = covered || node.whole;
    let children: Vec<u32> = node.names.names.iter().map(|(_, child)| *child).collect();
    let mut beneath = children.clone();
    for child in children {
        beneath.extend(close(nodes, child as usize, covered));
    }
    if let Some(node) = nodes.get_mut(id) {
        node.beneath.clone_from(&beneath);
    }
    beneath
}
