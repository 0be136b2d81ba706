//! A set of ranges.

use disk::Range;
use std::collections::BTreeMap;

/// Ranges that do not touch: the end of each by its start.
#[derive(Default)]
pub(super) struct Granules(BTreeMap<u64, u64>);

impl Granules {
    /// Adds a range.
    pub(super) fn insert(&mut self, range: Range) {
        let (mut start, mut end) = (range.start, range.end());
        if let Some((before, its)) = self.0.range(..=start).next_back()
            && *its >= start
        {
            (start, end) = (*before, end.max(*its));
        }
        while let Some((next, its)) = self.0.range(start..=end).next() {
            (end, _) = (end.max(*its), ());
            let next = *next;
            self.0.remove(&next);
        }
        self.0.insert(start, end);
    }

    /// Cuts a range into parts that lie in the set and parts that do not.
    pub(super) fn parts(&self, range: Range) -> Vec<(Range, bool)> {
        let (mut at, end) = (range.start, range.end());
        let mut parts = Vec::new();
        let mut push = |at: &mut u64, to: u64, inside: bool| {
            if to > *at {
                parts.push((Range::new(*at, to - *at), inside));
                *at = to;
            }
        };
        if let Some((_, its)) = self.0.range(..=at).next_back() {
            push(&mut at, end.min(*its), true);
        }
        for (next, its) in self.0.range(at..end) {
            push(&mut at, *next, false);
            push(&mut at, end.min(*its), true);
        }
        push(&mut at, end, false);
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_are_those_that_were_put_in(ranges in prop::collection::vec((0u64..60, 1u64..20), 0..12), all in (0u64..40, 1u64..40)) {
            let (mut set, mut model) = (Granules::default(), [false; 100]);
            for (start, len) in ranges {
                set.insert(Range::new(start, len));
                model[start as usize..(start + len) as usize].fill(true);
            }
            prop_assert!(set.0.iter().zip(set.0.iter().skip(1)).all(|(a, b)| a.1 < b.0));
            let (mut at, mut before) = (all.0, None);
            for (part, inside) in set.parts(Range::new(all.0, all.1)) {
                prop_assert_eq!(part.start, at);
                prop_assert!(before != Some(inside) && model[at as usize..part.end() as usize].iter().all(|m| *m == inside));
                (at, before) = (part.end(), Some(inside));
            }
            prop_assert_eq!(at, all.0 + all.1);
        }
    }
}
