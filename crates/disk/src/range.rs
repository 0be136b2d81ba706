//! A range of bytes on a disk.

use std::fmt;

/// `len` bytes from byte `start` on. Never ends beyond 2^63-1 on a real disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    /// The first byte.
    pub start: u64,
    /// How many bytes.
    pub len: u64,
}

impl Range {
    /// `len` bytes from `start` on.
    #[inline]
    pub const fn new(start: u64, len: u64) -> Self {
        Range { start, len }
    }

    /// The byte behind the last one. Saturates, so that a hostile range stays outside every disk.
    #[inline]
    pub const fn end(self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// Whether the range holds no byte.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Whether the range lies on a disk of `size` bytes.
    #[inline]
    pub const fn lies_within(self, size: u64) -> bool {
        match self.start.checked_add(self.len) {
            Some(end) => end <= size,
            None => false,
        }
    }

    /// The part of both, `None` when they share no byte.
    pub fn intersect(self, other: Range) -> Option<Range> {
        let start = self.start.max(other.start);
        let end = self.end().min(other.end());
        (start < end).then(|| Range::new(start, end - start))
    }

    /// The blocks of `block` bytes (not 0) that it touches, on a disk of `size` bytes, whose end may cut the last one short:
    /// `10..25` in blocks of 8 is `8..32`.
    pub fn whole_blocks(self, block: u64, size: u64) -> Range {
        let start = self.start - self.start % block;
        let end = self.end().checked_next_multiple_of(block).map_or(size, |end| end.min(size));
        Range::new(start, end.saturating_sub(start))
    }

    /// The pieces between multiples of `step` (not 0): `10..25` in steps of 8 is `10..16, 16..24, 24..25`.
    pub fn split_at_multiples(self, step: u64) -> impl Iterator<Item = Range> {
        let mut rest = self;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let len = (step - rest.start % step).min(rest.len);
            let piece = Range::new(rest.start, len);
            rest = Range::new(rest.start + len, rest.len - len);
            Some(piece)
        })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {}", self.len, self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_at_multiples() {
        let pieces: Vec<_> = Range::new(10, 15).split_at_multiples(8).collect();
        assert_eq!(pieces, [Range::new(10, 6), Range::new(16, 8), Range::new(24, 1)]);
        assert_eq!(Range::new(5, 0).split_at_multiples(8).count(), 0);
    }

    #[test]
    fn whole_blocks_end_with_the_disk() {
        let range = Range::new(10, 15);
        assert_eq!(range.whole_blocks(8, 100), Range::new(8, 24));
        assert_eq!(range.whole_blocks(8, 30), Range::new(8, 22));
        assert_eq!(range.whole_blocks(1, 100), range);
        assert_eq!(Range::new(16, 8).whole_blocks(8, 100), Range::new(16, 8));
        assert_eq!(Range::new(u64::MAX - 1, 1).whole_blocks(512, u64::MAX).end(), u64::MAX);
    }

    #[test]
    fn a_hostile_range_lies_nowhere() {
        assert!(!Range::new(u64::MAX, 2).lies_within(u64::MAX));
        assert!(Range::new(0, 0).lies_within(0));
        assert_eq!(Range::new(0, 4).intersect(Range::new(4, 4)), None);
    }
}
