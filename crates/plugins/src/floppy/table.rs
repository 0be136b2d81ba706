//! The table that says which cluster comes after which, made when it is read: with everything in one piece it follows
//! from where the pieces end, and for a large disk it would fill much memory.

use super::layout::{FIRST, Plan};
use crate::common::partition_table::SECTOR;
use disk::{Data, Disk, Extents, Facts, Io, Kind, Range};

/// No cluster comes after this one.
const END: u32 = 0x0fff_ffff;
/// What stands before the first cluster: the kind of medium, and that all is well.
const HEAD: [u32; 2] = [0x0fff_fff8, END];
/// Buffers up to this size are pooled.
const PIECE: u64 = 256 << 10;

/// One of the two tables, which are alike.
pub(super) struct Table {
    facts: Facts,
    /// The last cluster of each piece, in order.
    lasts: Vec<u32>,
    /// Bytes from here on are zero: no cluster there is in use.
    end: u64,
}

impl Table {
    pub(super) fn new(plan: &Plan) -> Table {
        let facts = Facts { extents: true, cache: true, ..Facts::read_only(plan.table * SECTOR) };
        let end = (u64::from(FIRST) + plan.used()) * 4;
        Table { facts, lasts: plan.lasts.clone(), end }
    }

    /// The table from byte `at` on.
    fn fill(&self, at: u64, into: &mut [u8]) {
        let first = (at / 4) as u32;
        let mut ends = self.lasts[self.lasts.partition_point(|last| *last < first)..].iter().peekable();
        let skip = (at % 4) as usize;
        let (mut filled, mut number) = (0, first);
        while filled < into.len() {
            let next = match (HEAD.get(number as usize), ends.peek()) {
                (Some(head), _) => *head,
                (None, Some(last)) if **last == number => {
                    ends.next();
                    END
                }
                (None, Some(_)) => number + 1,
                (None, None) => 0,
            };
            let bytes = &next.to_le_bytes()[if filled == 0 { skip } else { 0 }..];
            let len = bytes.len().min(into.len() - filled);
            into[filled..filled + len].copy_from_slice(&bytes[..len]);
            filled += len;
            number += 1;
        }
    }
}

impl Disk for Table {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn read(&self, range: Range) -> Io<'_, Data> {
        let used = Range::new(range.start, self.end.saturating_sub(range.start).min(range.len));
        let mut parts: Vec<Data> = used
            .split_at_multiples(PIECE)
            .map(|part| Data::fill(part.len as usize, |into| self.fill(part.start, into)))
            .collect();
        parts.push(Data::zeroes(range.len - used.len));
        Io::ok(Data::join(parts))
    }

    fn cache(&self, _: Range) -> Io<'_, ()> {
        Io::ok(())
    }

    fn extents(&self, range: Range, _: usize) -> Io<'_, Extents> {
        let used = self.end.saturating_sub(range.start).min(range.len);
        let mut extents = Extents::one(used, Kind::DATA);
        extents.push(range.len - used, Kind::HOLE);
        Io::ok(extents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::model;

    #[test]
    fn each_piece_is_a_chain_and_what_is_behind_is_free() {
        let facts = Facts::read_only(512);
        let table = Table { facts, lasts: vec![2, 5, 6], end: 7 * 4 };
        let expected: Vec<u8> = [HEAD[0], HEAD[1], END, 4, 5, END, END, 0, 0]
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .chain([0; 512 - 36])
            .collect();
        for start in 0..40 {
            for len in [1, 3, 4, 7, 30, 400] {
                let found = model::bytes(&table, start, len);
                assert_eq!(found, expected[start as usize..(start + len) as usize], "{len} at {start}");
            }
        }
    }
}
