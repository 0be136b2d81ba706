//! What a disk says of its ranges: holes, zeroes, data.

use crate::Range;

/// What a range holds, as block status in NBD's `base:allocation` context says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Kind {
    /// Takes no space in the store; a write may fail for lack of space.
    pub hole: bool,
    /// Reads as zeroes.
    pub zero: bool,
}

impl Kind {
    /// Allocated, content unknown.
    pub const DATA: Kind = Kind { hole: false, zero: false };
    /// Not allocated, reads as zeroes.
    pub const HOLE: Kind = Kind { hole: true, zero: true };
    /// Allocated, reads as zeroes.
    pub const ZERO: Kind = Kind { hole: false, zero: true };
}

/// The next `len` bytes are of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// In bytes, never 0.
    pub len: u64,
    /// What they hold.
    pub kind: Kind,
}

/// The next `len` bytes have one value in a metadata context other than `base:allocation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// In bytes, never 0.
    pub len: u64,
    /// As the context defines it.
    pub value: u64,
}

/// The extents from the start of a requested range on, in order and without gaps; neighbours differ in kind.
///
/// They cover at least the first byte of the range and never go beyond its end. They may stop short of it: the
/// asker asks again from there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extents {
    list: Vec<Extent>,
    covered: u64,
}

impl Extents {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One extent of `len` bytes.
    pub fn one(len: u64, kind: Kind) -> Self {
        let mut extents = Extents::new();
        extents.push(len, kind);
        extents
    }

    /// Appends `len` bytes (0: nothing), joining them with a neighbour of the same kind.
    pub fn push(&mut self, len: u64, kind: Kind) {
        if len == 0 {
            return;
        }
        self.covered += len;
        match self.list.last_mut() {
            Some(last) if last.kind == kind => last.len += len,
            _ => self.list.push(Extent { len, kind }),
        }
    }

    /// Appends all of `more`.
    pub fn append(&mut self, more: &Extents) {
        for e in &more.list {
            self.push(e.len, e.kind);
        }
    }

    /// Cuts off what lies beyond `len` bytes.
    pub fn truncate(&mut self, len: u64) {
        while self.covered > len
            && let Some(last) = self.list.last_mut()
        {
            let cut = last.len.min(self.covered - len);
            self.covered -= cut;
            last.len -= cut;
            if last.len == 0 {
                self.list.pop();
            }
        }
    }

    /// How many bytes are covered.
    pub fn covered(&self) -> u64 {
        self.covered
    }

    /// How many extents there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether nothing is covered.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The extents in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Extent> {
        self.list.iter()
    }

    /// The extents with where each lies, when the first begins at `start`.
    pub fn ranges(&self, start: u64) -> impl Iterator<Item = (Range, Kind)> + '_ {
        let mut at = start;
        self.list.iter().map(move |e| {
            let range = Range::new(at, e.len);
            at += e.len;
            (range, e.kind)
        })
    }
}

impl<'a> IntoIterator for &'a Extents {
    type Item = &'a Extent;
    type IntoIter = std::slice::Iter<'a, Extent>;
    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_one_kind_are_joined() {
        let mut e = Extents::one(10, Kind::DATA);
        e.push(0, Kind::HOLE);
        e.push(5, Kind::DATA);
        e.push(7, Kind::HOLE);
        assert_eq!((e.len(), e.covered()), (2, 22));
        e.truncate(15);
        assert_eq!(e, Extents::one(15, Kind::DATA));
        e.truncate(0);
        assert!(e.is_empty());
    }
}
