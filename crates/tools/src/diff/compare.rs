//! Where two disks differ.

use crate::walk::Walk;
use anyhow::{Context, Result};
use disk::{Data, Disk, Errno, Io, Range};
use std::collections::VecDeque;

/// Bytes compared at once.
const STEP: u64 = 256 << 10;
/// So many of those are read ahead, on either side.
const AHEAD: usize = 16;
/// So many bytes in a row that cannot be read are enough: the disk is broken altogether.
const BARREN: u64 = 16 << 20;

/// In what way a range of the second disk differs from the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Other data.
    Changed,
    /// Data where the first has zeroes, or has ended.
    Added,
    /// Zeroes where the first has data; or the second has ended.
    Removed,
    /// One of them cannot be read.
    Unreadable,
}

impl Change {
    pub(crate) const ALL: [Change; 4] = [Change::Changed, Change::Added, Change::Removed, Change::Unreadable];

    /// In one word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Change::Changed => "changed",
            Change::Added => "added",
            Change::Removed => "removed",
            Change::Unreadable => "unreadable",
        }
    }
}

/// One disk, and what errors call it.
pub(crate) struct Side<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) name: &'a str,
}

/// What is being read of one side; zeroes are not.
struct Reading<'a> {
    io: Io<'a, Data>,
    /// What counts begins here: a disk is read in whole blocks of its own.
    skip: u64,
}

impl<'a> Side<'a> {
    fn block(&self) -> u64 {
        u64::from(self.disk.facts().blocks.minimum).max(1)
    }

    fn read(&self, range: Range, zero: bool) -> Reading<'a> {
        if zero {
            return Reading { io: Io::ok(Data::zeroes(range.len)), skip: 0 };
        }
        let whole = range.whole_blocks(self.block(), self.disk.facts().size);
        Reading { io: self.disk.read(whole), skip: range.start - whole.start }
    }

    /// The data, or what went wrong; `Err` if nothing more can be expected of this side.
    fn settle(&self, reading: Reading<'a>, range: Range) -> Result<Result<Data>> {
        let read = reading.io.wait();
        let gone = read.as_ref().is_err_and(|e| e.errno() == Errno::SHUTDOWN);
        let data = read.with_context(|| format!("{}: reading at {}", self.name, range.start));
        let data = data.map(|data| data.slice(reading.skip, range.len));
        if gone { data.map(Ok) } else { Ok(data) }
    }
}

/// A range of both disks that is being read.
struct Pair<'a> {
    range: Range,
    /// What both say of it.
    zero: (bool, bool),
    a: Reading<'a>,
    b: Reading<'a>,
}

/// Calls `found` with each range that differs, in order, in units of `block` bytes; it says whether to go on. Where both disks
/// say that there are zeroes, nothing is read. What cannot be read is found, too, and the first reason is returned.
///
/// # Errors
/// A disk is gone, cannot be read at all, or failed to say what it holds.
pub(crate) fn compare(
    a: &Side<'_>,
    b: &Side<'_>,
    block: u64,
    found: &mut dyn FnMut(Range, Change) -> bool,
) -> Result<Option<anyhow::Error>> {
    let (size_a, size_b) = (a.disk.facts().size, b.disk.facts().size);
    let common = size_a.min(size_b);
    let (mut walk_a, mut walk_b) = (Walk::new(a.disk, a.name), Walk::new(b.disk, b.name));
    let mut comparison = Comparison { a, b, block, found, failure: None, barren: 0 };
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
        let zero = (kind_a.zero && range_a.end() >= at, kind_b.zero && range_b.end() >= at);
        for range in both.split_at_multiples(STEP) {
            reading.push_back(Pair { range, zero, a: a.read(range, zero.0), b: b.read(range, zero.1) });
            if reading.len() == AHEAD && !comparison.settle_first(&mut reading)? {
                return Ok(comparison.failure);
            }
        }
    }
    while !reading.is_empty() {
        if !comparison.settle_first(&mut reading)? {
            return Ok(comparison.failure);
        }
    }
    let rest = size_a.max(size_b) - common;
    if rest > 0 {
        let change = if size_b > size_a { Change::Added } else { Change::Removed };
        (comparison.found)(Range::new(common, rest), change);
    }
    Ok(comparison.failure)
}

struct Comparison<'a, 'f> {
    a: &'a Side<'a>,
    b: &'a Side<'a>,
    block: u64,
    found: &'f mut dyn FnMut(Range, Change) -> bool,
    /// Why something could not be read.
    failure: Option<anyhow::Error>,
    /// Bytes that could not be read, since the last ones that could.
    barren: u64,
}

impl<'a> Comparison<'a, '_> {
    /// Takes the oldest pair and compares it; `false`: enough.
    fn settle_first(&mut self, reading: &mut VecDeque<Pair<'a>>) -> Result<bool> {
        match reading.pop_front() {
            Some(pair) => self.settle(pair),
            None => Ok(true),
        }
    }

    fn settle(&mut self, pair: Pair<'a>) -> Result<bool> {
        let (range, zero) = (pair.range, pair.zero);
        let (left, right) = (self.a.settle(pair.a, range)?, self.b.settle(pair.b, range)?);
        let (why, a_block, b_block) = match (left, right) {
            (Ok(left), Ok(right)) => {
                self.barren = 0;
                return Ok(self.differ(range, &left, &right));
            }
            (Err(why), _) | (_, Err(why)) => (why, self.a.block(), self.b.block()),
        };
        let block = self.block.max(a_block).max(b_block);
        if range.len <= block && range.start % block + range.len <= block {
            self.barren += range.len;
            if self.barren > BARREN {
                return Err(why);
            }
            self.failure.get_or_insert(why);
            return Ok((self.found)(range, Change::Unreadable));
        }
        // The rest of what was read at once may be well.
        for range in range.split_at_multiples(block) {
            let (a, b) = (self.a.read(range, zero.0), self.b.read(range, zero.1));
            if !self.settle(Pair { range, zero, a, b })? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Compares bytes; `false`: enough.
    fn differ(&mut self, range: Range, left: &Data, right: &Data) -> bool {
        if left.says_zeroes() && right.says_zeroes() {
            return true;
        }
        let (left, right) = (left.to_vec(), right.to_vec());
        if left == right {
            return true;
        }
        // Blocks count from the start of the disk.
        for part in range.split_at_multiples(self.block) {
            let here = (part.start - range.start) as usize..(part.end() - range.start) as usize;
            let (left, right) = (&left[here.clone()], &right[here]);
            if left == right {
                continue;
            }
            let change = match (disk::data::is_zero(left), disk::data::is_zero(right)) {
                (true, _) => Change::Added,
                (_, true) => Change::Removed,
                _ => Change::Changed,
            };
            if !(self.found)(part, change) {
                return false;
            }
        }
        true
    }
}

/// Joins neighbours of one kind.
#[derive(Default)]
pub(crate) struct Joined {
    last: Option<(Range, Change)>,
}

impl Joined {
    /// One more; what came before it is returned when it is whole.
    pub(crate) fn push(&mut self, range: Range, change: Change) -> Option<(Range, Change)> {
        match &mut self.last {
            Some((last, same)) if *same == change && last.end() == range.start => {
                last.len += range.len;
                None
            }
            last => last.replace((range, change)),
        }
    }

    /// The last one.
    pub(crate) fn end(self) -> Option<(Range, Change)> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::fake::{Fake, Seen};
    use Change::{Added, Changed, Removed, Unreadable};

    type Differences = Vec<(u64, u64, Change)>;

    fn differences(a: Vec<u8>, b: Vec<u8>) -> Differences {
        let (a, b) = (Fake::new(a), Fake::new(b));
        let (list, failure) = found(&a, &b).unwrap();
        assert!(failure.is_none());
        list
    }

    /// What is found, joined, and why something could not be read.
    fn found(a: &Fake, b: &Fake) -> Result<(Differences, Option<String>)> {
        let (mut list, mut joined) = (vec![], Joined::default());
        let mut found = |range: Range, change| {
            list.extend(joined.push(range, change));
            true
        };
        let (a, b) = (Side { disk: a, name: "a" }, Side { disk: b, name: "b" });
        let failure = compare(&a, &b, 4096, &mut found)?;
        list.extend(joined.end());
        let list = list.into_iter().map(|(range, change)| (range.start, range.len, change)).collect();
        Ok((list, failure.map(|why| format!("{why:#}"))))
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
    fn what_cannot_be_read_is_told_to_the_block_and_the_rest_is_compared() {
        let mut bytes = vec![1; 1 << 20];
        let a = Fake::new(bytes.clone()).failing(|seen| match seen {
            Seen::Read(range) if range.intersect(Range::new(600_000, 1)).is_some() => Some(Errno::IO),
            _ => None,
        });
        bytes[0] = 2;
        bytes[1_000_000] = 2;
        let (list, failure) = found(&a, &Fake::new(bytes)).unwrap();
        assert_eq!(list, [(0, 4096, Changed), (598_016, 4096, Unreadable), (999_424, 4096, Changed)]);
        assert!(failure.unwrap().starts_with("a: reading at 598016: "));
    }

    #[test]
    fn a_disk_that_is_gone_or_cannot_be_read_at_all_is_an_error() {
        let full = || Fake::new(vec![1; 32 << 20]);
        let error = |b| found(&full(), &b).unwrap_err().to_string();
        let gone = full().failing(|seen| matches!(seen, Seen::Read(_)).then_some(Errno::SHUTDOWN));
        assert_eq!(error(gone), "b: reading at 0");
        let broken = full().failing(|seen| matches!(seen, Seen::Read(_)).then_some(Errno::IO));
        assert_eq!(error(broken), "b: reading at 16777216");
    }

    #[test]
    fn each_disk_is_read_in_its_own_blocks() {
        let mut bytes = vec![1; 200_000];
        let a = Fake::new(bytes.clone()).with_block(65536);
        bytes[70_000] = 0;
        assert_eq!(
            found(&a, &Fake::new(bytes[..150_000].to_vec())).unwrap().0,
            [(69_632, 4096, Changed), (150_000, 50_000, Removed)]
        );
        for seen in a.seen() {
            if let Seen::Read(range) = seen {
                assert!(range.start % 65536 == 0 && (range.end() % 65536 == 0 || range.end() == 200_000));
            }
        }
    }
}
