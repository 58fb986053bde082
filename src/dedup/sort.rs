//! Sorts narrow rows in bounded memory. Full buffers are sorted and spilled as runs, and the runs are merged
//! while they are read.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The bytes of the buffer of one spilled run.
const BUFFER: usize = 128 << 10;
/// The most runs of one sorter. If there are more, they are merged into one, so that neither open files nor
/// buffers grow with the input.
const RUNS: usize = 8;

/// Rows of `N` integers, sorted by all integers in order.
pub type Rows<const N: usize> = Vec<[u64; N]>;

/// Takes rows in any order and holds at most `limit` of them in memory.
#[derive(Debug)]
pub struct Sorter<const N: usize> {
    folder: PathBuf,
    limit: usize,
    buffer: Rows<N>,
    runs: Vec<File>,
}

impl<const N: usize> Sorter<N> {
    /// `memory` is in bytes. `folder` holds the spilled runs, which have no names.
    pub fn new(folder: &Path, memory: usize) -> Self {
        Self {
            folder: folder.to_owned(),
            limit: (memory / (8 * N)).max(1024),
            buffer: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.runs.is_empty()
    }

    /// # Errors
    /// The spill folder is full or cannot be written.
    pub fn push(&mut self, row: [u64; N]) -> io::Result<()> {
        if self.buffer.len() >= self.limit {
            self.spill()?;
        }
        self.buffer.push(row);
        Ok(())
    }

    /// # Errors
    /// See [`Self::push`].
    pub fn extend(&mut self, rows: &[[u64; N]]) -> io::Result<()> {
        for part in rows.chunks(self.limit) {
            if self.buffer.len() + part.len() > self.limit {
                self.spill()?;
            }
            self.buffer.extend_from_slice(part);
        }
        Ok(())
    }

    fn spill(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.buffer.sort_unstable();
        let mut run = RunWriter::create(&self.folder)?;
        for row in &self.buffer {
            run.write(row)?;
        }
        self.runs.push(run.finish()?);
        if self.runs.len() >= RUNS {
            let runs = std::mem::take(&mut self.runs);
            let mut merged = RunWriter::create(&self.folder)?;
            let mut rows = Sorted::<N>::new(runs.into_iter().map(Run::spilled).collect())?;
            while let Some(row) = rows.pop()? {
                merged.write(&row)?;
            }
            self.runs.push(merged.finish()?);
        }
        self.buffer.clear();
        Ok(())
    }
}

/// A run being spilled into an unnamed file.
struct RunWriter {
    file: BufWriter<File>,
}

impl RunWriter {
    fn create(folder: &Path) -> io::Result<Self> {
        let file = BufWriter::with_capacity(BUFFER, tempfile::tempfile_in(folder)?);
        Ok(Self { file })
    }

    fn write<const N: usize>(&mut self, row: &[u64; N]) -> io::Result<()> {
        row.iter()
            .try_for_each(|word| self.file.write_all(&word.to_le_bytes()))
    }

    fn finish(self) -> io::Result<File> {
        let mut file = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(file)
    }
}

/// Rows in order.
#[derive(Debug)]
pub struct Sorted<const N: usize> {
    runs: Vec<Run<N>>,
    /// The next row of every run that has one.
    heads: BinaryHeap<Reverse<([u64; N], usize)>>,
}

#[derive(Debug)]
enum Run<const N: usize> {
    Memory(std::vec::IntoIter<[u64; N]>),
    Spilled(BufReader<File>),
}

impl<const N: usize> Run<N> {
    fn spilled(file: File) -> Self {
        Self::Spilled(BufReader::with_capacity(BUFFER, file))
    }

    fn next(&mut self) -> io::Result<Option<[u64; N]>> {
        match self {
            Self::Memory(rows) => Ok(rows.next()),
            Self::Spilled(file) => {
                let mut row = [0; N];
                for (i, word) in row.iter_mut().enumerate() {
                    let mut bytes = [0; 8];
                    match file.read_exact(&mut bytes) {
                        Ok(()) => *word = u64::from_le_bytes(bytes),
                        Err(e) if i == 0 && e.kind() == io::ErrorKind::UnexpectedEof => {
                            return Ok(None);
                        }
                        Err(e) => return Err(e),
                    }
                }
                Ok(Some(row))
            }
        }
    }
}

impl<const N: usize> Sorted<N> {
    /// The rows of several sorters as one sequence.
    ///
    /// # Errors
    /// The spilled runs cannot be read.
    pub fn merge(sorters: Vec<Sorter<N>>) -> io::Result<Self> {
        let mut runs = Vec::new();
        for mut sorter in sorters {
            sorter.buffer.sort_unstable();
            runs.push(Run::Memory(sorter.buffer.into_iter()));
            runs.extend(sorter.runs.into_iter().map(Run::spilled));
        }
        Self::new(runs)
    }

    fn new(mut runs: Vec<Run<N>>) -> io::Result<Self> {
        let mut heads = BinaryHeap::with_capacity(runs.len());
        for (i, run) in runs.iter_mut().enumerate() {
            if let Some(row) = run.next()? {
                heads.push(Reverse((row, i)));
            }
        }
        Ok(Self { runs, heads })
    }

    /// The next row without taking it.
    pub fn peek(&self) -> Option<&[u64; N]> {
        self.heads.peek().map(|Reverse((row, _))| row)
    }

    /// # Errors
    /// A spilled run cannot be read.
    pub fn pop(&mut self) -> io::Result<Option<[u64; N]>> {
        let Some(mut head) = self.heads.peek_mut() else {
            return Ok(None);
        };
        let Reverse((row, i)) = *head;
        let next = match self.runs.get_mut(i) {
            Some(run) => run.next()?,
            None => None,
        };
        match next {
            Some(next) => *head = Reverse((next, i)),
            None => {
                std::collections::binary_heap::PeekMut::pop(head);
            }
        }
        Ok(Some(row))
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn rows_come_back_sorted_with_and_without_spilling() {
        let folder = tempfile::tempdir().unwrap();
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        for count in [0, 1, 1024, 1025, 20_000] {
            let mut rows: Rows<3> = (0..count)
                .map(|_| [random.random_range(0..50), random.random(), 0])
                .collect();
            let mut a = Sorter::new(folder.path(), 1024 * 24);
            let mut b = Sorter::new(folder.path(), usize::MAX);
            for (i, row) in rows.iter().enumerate() {
                if i % 3 == 0 {
                    b.push(*row).unwrap()
                } else {
                    a.push(*row).unwrap()
                }
            }
            let mut sorted = Sorted::merge(vec![a, b]).unwrap();
            rows.sort_unstable();
            for row in rows {
                assert_eq!(sorted.peek(), Some(&row));
                assert_eq!(sorted.pop().unwrap(), Some(row));
            }
            assert_eq!(sorted.pop().unwrap(), None);
        }
    }
}
