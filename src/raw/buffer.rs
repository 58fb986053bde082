//! A buffer of bytes. Its room is used again without being cleared.

use std::ops::Deref;

/// Bytes, which it derefs to, and room behind them.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    room: Vec<u8>,
    filled: usize,
}

impl Buffer {
    /// Drops all bytes, and keeps room for at most `keep`.
    pub fn clear(&mut self, keep: usize) {
        self.filled = 0;
        self.room.truncate(keep);
        self.room.shrink_to(keep);
    }

    /// Keeps room for at most `keep` bytes, or for the bytes that are there.
    pub fn shrink(&mut self, keep: usize) {
        self.room.truncate(self.filled.max(keep));
        self.room.shrink_to(keep);
    }

    /// Drops the first `count` bytes.
    pub fn let_go(&mut self, count: usize) {
        let count = count.min(self.filled);
        self.room.copy_within(count..self.filled, 0);
        self.filled -= count;
    }

    /// Drops all bytes behind the first `length`.
    pub fn truncate(&mut self, length: usize) {
        self.filled = self.filled.min(length);
    }

    /// Appends bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.fill(bytes.len());
    }

    /// Room for so many bytes behind the last byte. Its content has no meaning.
    pub fn room(&mut self, bytes: usize) -> &mut [u8] {
        let end = self.filled + bytes;
        if self.room.len() < end {
            self.room.resize(end, 0);
        }
        self.room.get_mut(self.filled..end).unwrap_or_default()
    }

    /// Appends the first `bytes` of the room, as they are.
    pub fn fill(&mut self, bytes: usize) {
        self.filled = (self.filled + bytes).min(self.room.len());
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.room.get(..self.filled).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_does_not_show() {
        let mut buffer = Buffer::default();
        buffer.extend(b"abcdef");
        buffer.let_go(4);
        assert_eq!(*buffer, *b"ef");
        buffer.room(2).copy_from_slice(b"gh");
        assert_eq!(*buffer, *b"ef");
        buffer.fill(1);
        assert_eq!(*buffer, *b"efg");
        buffer.truncate(1);
        buffer.extend(b"z");
        assert_eq!(*buffer, *b"ez");
        buffer.let_go(9);
        assert!(buffer.is_empty());
        buffer.extend(&[7; 100]);
        buffer.clear(10);
        assert!(buffer.is_empty());
        assert!(buffer.room.capacity() < 100);
        assert_eq!(buffer.room(12), [[7; 10].as_slice(), &[0; 2]].concat());
    }
}
