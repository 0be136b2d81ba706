//! Where two disks differ.

use crate::walk::Walk;
use anyhow::{Context, Result};
use disk::{Data, Disk, Io, Range};
use std::collections::VecDeque;

/// Bytes compared at once.
const STEP: u64 = 256 << 10;
/// So many of those are read ahead, on either side.
const AHEAD: usize = 16;

/// In what way a range of the second disk differs from the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Other data.
    Changed,
    /// Data where the first has zeroes, or has ended.
    Added,
    /// Zeroes where the first has data; or the second has ended.
    Removed,
}

impl Change {
    /// In one word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Change::Changed => "changed",
            Change::Added => "added",
            Change::Removed => "removed",
        }
    }
}

/// One disk, and what errors call it.
pub(crate) struct Side<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) name: &'a str,
}

impl<'a> Side<'a> {
    fn read(&self, range: Range, zero: bool) -> Io<'a, Data> {
        if zero { Io::ok(Data::zeroes(range.len)) } else { self.disk.read(range) }
    }
}

/// What is being read of either side; zeroes are not.
struct Pair<'a> {
    range: Range,
    a: Io<'a, Data>,
    b: Io<'a, Data>,
}

/// Calls `found` with each range that differs, in order and neighbours joined, in units of `block` bytes; it says whether to go
/// on. Where both disks say that there are zeroes, nothing is read.
///
/// # Errors
/// A disk cannot be read.
pub(crate) fn compare(
    a: &Side<'_>,
    b: &Side<'_>,
    block: u64,
    found: &mut dyn FnMut(Range, Change) -> bool,
) -> Result<()> {
    let (size_a, size_b) = (a.disk.facts().size, b.disk.facts().size);
    let common = size_a.min(size_b);
    let (mut walk_a, mut walk_b) = (Walk::new(a.disk, a.name), Walk::new(b.disk, b.name));
    let mut joined = Joined { last: None, found };
    let mut reading = VecDeque::new();
    let mut at = 0;
    while at < common {
        let (range_a, kind_a) = walk_a.at(at)?;
        let (range_b, kind_b) = walk_b.at(at)?;
        // Blocks are not cut, wherever the disks cut themselves.
        let end = range_a.end().min(range_b.end()).min(common);
        let whole = if end == common { end } else { end - end % block };
        if kind_a.zero && kind_b.zero && whole > at {
            at = whole;
            continue;
        }
        let both = Range::new(at, end.next_multiple_of(block).min(common) - at);
        at = both.end();
        let zero_a = kind_a.zero && range_a.end() >= at;
        let zero_b = kind_b.zero && range_b.end() >= at;
        for range in both.split_at_multiples(STEP) {
            let (from_a, from_b) = (a.read(range, zero_a), b.read(range, zero_b));
            reading.push_back(Pair { range, a: from_a, b: from_b });
            if reading.len() == AHEAD && !settle(&mut reading, (a, b), block, &mut joined)? {
                return Ok(());
            }
        }
    }
    while !reading.is_empty() {
        if !settle(&mut reading, (a, b), block, &mut joined)? {
            return Ok(());
        }
    }
    let rest = size_a.max(size_b) - common;
    if rest > 0 {
        let change = if size_b > size_a { Change::Added } else { Change::Removed };
        joined.push(Range::new(common, rest), change);
    }
    joined.end();
    Ok(())
}

/// Takes the oldest pair and compares it; `false`: enough.
fn settle(
    reading: &mut VecDeque<Pair<'_>>,
    (a, b): (&Side<'_>, &Side<'_>),
    block: u64,
    joined: &mut Joined<'_>,
) -> Result<bool> {
    let Some(pair) = reading.pop_front() else { return Ok(true) };
    let at = pair.range.start;
    let left = pair.a.wait().with_context(|| format!("{}: reading at {at}", a.name))?;
    let right = pair.b.wait().with_context(|| format!("{}: reading at {at}", b.name))?;
    if left.says_zeroes() && right.says_zeroes() {
        return Ok(true);
    }
    let (left, right) = (left.to_vec(), right.to_vec());
    if left == right {
        return Ok(true);
    }
    // Blocks count from the start of the disk.
    for part in pair.range.split_at_multiples(block) {
        let here = (part.start - at) as usize..(part.end() - at) as usize;
        let (left, right) = (&left[here.clone()], &right[here]);
        if left == right {
            continue;
        }
        let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        let change = match (zero(left), zero(right)) {
            (true, _) => Change::Added,
            (_, true) => Change::Removed,
            _ => Change::Changed,
        };
        if !joined.push(part, change) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Joins neighbours of one kind.
struct Joined<'f> {
    last: Option<(Range, Change)>,
    found: &'f mut dyn FnMut(Range, Change) -> bool,
}

impl Joined<'_> {
    fn push(&mut self, range: Range, change: Change) -> bool {
        match &mut self.last {
            Some((last, same)) if *same == change && last.end() == range.start => {
                last.len += range.len;
                true
            }
            last => match last.replace((range, change)) {
                Some((range, change)) => (self.found)(range, change),
                None => true,
            },
        }
    }

    fn end(mut self) {
        if let Some((range, change)) = self.last.take() {
            (self.found)(range, change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::fake::Fake;
    use Change::{Added, Changed, Removed};

    fn differences(a: Vec<u8>, b: Vec<u8>) -> Vec<(u64, u64, Change)> {
        let (a, b) = (Fake::new(a), Fake::new(b));
        let mut list = vec![];
        let mut found = |range: Range, change| {
            list.push((range.start, range.len, change));
            true
        };
        let (a, b) = (Side { disk: &a, name: "a" }, Side { disk: &b, name: "b" });
        compare(&a, &b, 4096, &mut found).unwrap();
        list
    }

    #[test]
    fn equal_disks_have_no_differences() {
        let disk: Vec<u8> = (0..1_000_000_u32).map(|i| (i / 4096 % 3) as u8).collect();
        assert_eq!(differences(disk.clone(), disk), []);
        assert_eq!(differences(vec![], vec![]), []);
    }

    #[test]
    fn blocks_are_changed_added_and_removed() {
        let mut a = vec![0; 1 << 20];
        a[5000] = 1;
        a[100_000..200_000].fill(2);
        let mut b = a.clone();
        b[5000] = 0;
        b[150_000] = 3;
        b[153_600..161_792].fill(4);
        b[1_000_000] = 1;
        assert_eq!(
            differences(a, b),
            [(4096, 4096, Removed), (147_456, 16_384, Changed), (999_424, 4096, Added),]
        );
    }

    #[test]
    fn what_only_one_has_is_added_or_removed() {
        assert_eq!(differences(vec![1; 10_000], vec![1; 12_000]), [(10_000, 2000, Added)]);
        assert_eq!(differences(vec![0; 10_000], vec![0; 9000]), [(9000, 1000, Removed)]);
    }

    #[test]
    fn nobody_needs_more_than_the_first_difference() {
        let (a, b) =
            (Fake::new(vec![1; 1 << 20]), Fake::new((0..1 << 20).map(|i| (i / 8192 % 2) as u8).collect()));
        let mut count = 0;
        let mut found = |_, _| {
            count += 1;
            false
        };
        compare(&Side { disk: &a, name: "a" }, &Side { disk: &b, name: "b" }, 4096, &mut found).unwrap();
        assert_eq!(count, 1);
    }

    #[test]
    fn a_disk_that_fails_is_named() {
        let a = Fake::new(vec![1; 1 << 20]);
        let b = Fake::new(vec![1; 1 << 20]).failing(|seen| match seen {
            crate::copy::fake::Seen::Read(range) if range.start >= 512 << 10 => Some(disk::Errno::IO),
            _ => None,
        });
        let error =
            compare(&Side { disk: &a, name: "a" }, &Side { disk: &b, name: "b" }, 4096, &mut |_, _| true)
                .unwrap_err();
        assert!(error.to_string().starts_with("b: reading at 524288"), "{error}");
    }
}
