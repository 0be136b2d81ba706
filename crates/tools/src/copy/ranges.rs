//! A set of bytes of a disk, kept as ranges.

use disk::Range;
use std::collections::BTreeMap;

/// Ranges that neither overlap nor touch, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    /// Start and end.
    list: BTreeMap<u64, u64>,
}

impl Ranges {
    pub(crate) fn new() -> Ranges {
        Ranges::default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many separate ranges there are.
    pub(crate) fn count(&self) -> usize {
        self.list.len()
    }

    /// How many bytes are in it.
    pub(crate) fn bytes(&self) -> u64 {
        self.iter().map(|range| range.len).sum()
    }

    /// In order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range> + '_ {
        self.list.iter().map(|(start, end)| Range::new(*start, end - start))
    }

    /// Puts a range in.
    pub(crate) fn add(&mut self, range: Range) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end());
        // The common case: it goes on where one ends.
        if let Some((first, last)) = self.list.range_mut(..=start).next_back()
            && *last >= start
        {
            if *last >= end {
                return;
            }
            start = *first;
        }
        while let Some((next, last)) = self.list.range(start..=end).next().map(|(a, b)| (*a, *b)) {
            end = end.max(last);
            self.list.remove(&next);
        }
        self.list.insert(start, end);
    }

    /// Takes a range out.
    pub(crate) fn remove(&mut self, range: Range) {
        if range.is_empty() {
            return;
        }
        let (start, end) = (range.start, range.end());
        if let Some((_, last)) = self.list.range_mut(..start).next_back()
            && *last > start
        {
            let old = std::mem::replace(last, start);
            if old > end {
                self.list.insert(end, old);
            }
        }
        while let Some((next, last)) = self.list.range(start..end).next().map(|(a, b)| (*a, *b)) {
            self.list.remove(&next);
            if last > end {
                self.list.insert(end, last);
            }
        }
    }

    pub(crate) fn add_all(&mut self, other: &Ranges) {
        other.iter().for_each(|range| self.add(range));
    }

    pub(crate) fn remove_all(&mut self, other: &Ranges) {
        other.iter().for_each(|range| self.remove(range));
    }

    /// What of `range` is in it, in order.
    pub(crate) fn within(&self, range: Range) -> impl Iterator<Item = Range> + '_ {
        let before = self.list.range(..range.start).next_back();
        let before = before.filter(|(_, end)| **end > range.start);
        let rest = self.list.range(range.start..range.end());
        before
            .into_iter()
            .chain(rest)
            .filter_map(move |(start, end)| Range::new(*start, end - start).intersect(range))
    }

    /// The same, grown to whole blocks of `block` bytes, but not beyond `size`.
    pub(crate) fn aligned(&self, block: u64, size: u64) -> Ranges {
        let mut aligned = Ranges::new();
        for range in self.iter() {
            let start = range.start / block * block;
            let end = range.end().div_ceil(block).saturating_mul(block).min(size);
            aligned.add(Range::new(start, end.saturating_sub(start)));
        }
        aligned
    }

    /// Leaves the shortest ranges out until there are no more than `most`.
    pub(crate) fn thinned(&self, most: usize) -> Ranges {
        let mut longest: Vec<Range> = self.iter().collect();
        longest.sort_by_key(|range| std::cmp::Reverse(range.len));
        longest.truncate(most);
        longest.into_iter().collect()
    }
}

impl FromIterator<Range> for Ranges {
    fn from_iter<I: IntoIterator<Item = Range>>(ranges: I) -> Ranges {
        let mut all = Ranges::new();
        ranges.into_iter().for_each(|range| all.add(range));
        all
    }
}

impl From<Range> for Ranges {
    fn from(range: Range) -> Ranges {
        [range].into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bits(ranges: &Ranges) -> u64 {
        ranges.iter().flat_map(|r| r.start..r.end()).fold(0, |all, bit| all | 1 << bit)
    }

    fn mask(range: Range) -> u64 {
        (range.start..range.end()).fold(0, |all, bit| all | 1 << bit)
    }

    proptest! {
        #[test]
        fn a_set_of_ranges_is_a_set_of_bytes(steps in prop::collection::vec((any::<bool>(), 0u64..60, 0u64..5), 0..40),
                                             from in 0u64..60, len in 0u64..5) {
            let (mut ranges, mut model) = (Ranges::new(), 0u64);
            for (add, start, len) in steps {
                let range = Range::new(start, len);
                if add {
                    ranges.add(range);
                    model |= mask(range);
                } else {
                    ranges.remove(range);
                    model &= !mask(range);
                }
                prop_assert_eq!(bits(&ranges), model);
                let list: Vec<Range> = ranges.iter().collect();
                prop_assert!(list.windows(2).all(|two| two[0].end() < two[1].start), "{:?}", list);
            }
            let within: Ranges = ranges.within(Range::new(from, len)).collect();
            prop_assert_eq!(bits(&within), model & mask(Range::new(from, len)));
            prop_assert_eq!(ranges.bytes(), u64::from(model.count_ones()));
            let aligned = bits(&ranges.aligned(4, 64));
            prop_assert_eq!(aligned & model, model);
        }
    }

    #[test]
    fn whole_blocks_end_with_the_disk_and_the_longest_stay() {
        let ranges: Ranges = [Range::new(5, 2), Range::new(20, 9)].into_iter().collect();
        let aligned: Vec<Range> = ranges.aligned(8, 27).iter().collect();
        assert_eq!(aligned, [Range::new(0, 8), Range::new(16, 11)]);
        assert_eq!(ranges.thinned(1), Range::new(20, 9).into());
    }
}
