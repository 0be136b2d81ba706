//! What is still to be copied, piece by piece: the source's extents, joined, aligned and cut to requests.
//!
//! Regions of the disk are handed out to workers by [`Regions`]. A worker's [`Map`] asks for the extents of a region
//! ahead of its copying, so that the answer is there when it is needed. Neither does any I/O.

use crate::copy::ranges::Ranges;
use disk::{Extents, Range};
use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Zeroes are asked for up to multiples of this, so that one request never keeps a server busy for long.
pub(crate) const ZERO_STEP: u64 = 128 << 20;
/// A region is at most this large: the answer about a region of alternating blocks of 4 KiB then fits a few MiB.
const LARGEST_REGION: u64 = 1 << 30;
/// Ask for more when fewer segments than this, and fewer bytes than [`ZERO_STEP`], are known.
const FEW: usize = 128;

/// A part of the disk, divided among workers.
pub(crate) struct Regions<'a> {
    whole: Range,
    /// Of that only these are copied; `None`: all.
    wanted: Option<&'a Ranges>,
    step: u64,
    next: AtomicU64,
}

impl<'a> Regions<'a> {
    /// What is wanted of `whole`, for so many workers.
    pub(crate) fn of(wanted: Option<&'a Ranges>, whole: Range, workers: usize) -> Regions<'a> {
        Regions { wanted, ..Regions::new(whole, workers) }
    }

    /// `whole` for so many workers.
    pub(crate) fn new(whole: Range, workers: usize) -> Regions<'a> {
        // Several regions for each worker, so that none idles for long at the end.
        let fair = whole.len / (workers as u64 * 4).max(1);
        let step = if workers == 1 { LARGEST_REGION } else { fair.clamp(ZERO_STEP, LARGEST_REGION) };
        Regions { whole, wanted: None, step: step / ZERO_STEP * ZERO_STEP, next: AtomicU64::new(whole.start) }
    }

    /// The next region in which something is wanted, `None` when all are handed out.
    fn take(&self) -> Option<Range> {
        loop {
            let region = self.take_any()?;
            let Some(wanted) = self.wanted else { return Some(region) };
            let mut inside = wanted.within(region);
            if let Some(first) = inside.next() {
                // Nothing need be known of what lies before and behind.
                let end = inside.last().unwrap_or(first).end();
                return Some(Range::new(first.start, end - first.start));
            }
        }
    }

    /// The next region. Regions end at multiples of [`ZERO_STEP`].
    fn take_any(&self) -> Option<Range> {
        let ends = |start: u64| (start / self.step + 1).saturating_mul(self.step).min(self.whole.end());
        let more = |start: u64| (start < self.whole.end()).then(|| ends(start));
        let start = self.next.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Range::new(start, ends(start) - start))
    }
}

/// How pieces are cut; sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// The longest piece of data.
    pub(crate) data: u64,
    /// Zeroes end at multiples of this; with `None` they are written like data and cut like them.
    pub(crate) zero: Option<u64>,
    /// Pieces start and end at multiples of this (a power of 2), except at the end of the disk.
    pub(crate) align: u64,
}

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Copy these bytes.
    Data(Range),
    /// Make these zero.
    Zero(Range),
}

/// What [`Map::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A piece.
    Piece(Piece),
    /// Not before the outstanding question is answered.
    Wait,
    /// There is nothing left.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    range: Range,
    zero: bool,
}

/// What one worker knows of the disk.
pub(crate) struct Map<'a> {
    regions: &'a Regions<'a>,
    cut: Cut,
    /// Without extents everything is data.
    extents: bool,
    known: VecDeque<Segment>,
    /// The part of the current region that was not asked about.
    unknown: Range,
    /// A question is out.
    asked: bool,
}

impl<'a> Map<'a> {
    pub(crate) fn new(regions: &'a Regions<'a>, cut: Cut, extents: bool) -> Self {
        let unknown = Range::new(0, 0);
        Map { regions, cut, extents, known: VecDeque::new(), unknown, asked: false }
    }

    /// The range whose extents should be asked for now, if any; answer with [`Map::learn`].
    pub(crate) fn ask(&mut self) -> Option<Range> {
        while !self.asked && self.known.len() < FEW && self.ahead() < ZERO_STEP && self.refill() {
            if self.extents {
                self.asked = true;
                return Some(self.unknown);
            }
            let all = self.unknown;
            self.unknown = Range::new(all.end(), 0);
            self.add(all, false);
        }
        None
    }

    /// How far beyond the next piece the map is known, in bytes.
    fn ahead(&self) -> u64 {
        match (self.known.front(), self.known.back()) {
            (Some(first), Some(last)) => last.range.end() - first.range.start,
            _ => 0,
        }
    }

    /// Sees to it that `unknown` holds something; false when nothing is left.
    fn refill(&mut self) -> bool {
        if self.unknown.is_empty() {
            match self.regions.take() {
                Some(region) => self.unknown = region,
                None => return false,
            }
        }
        true
    }

    /// The answer to [`Map::ask`]; `None` when it failed: what was asked about then counts as data.
    pub(crate) fn learn(&mut self, answer: Option<&Extents>) {
        self.asked = false;
        let asked = self.unknown;
        // Whatever is answered, only what was asked for is used; and the next question starts at a whole block.
        let mut known = answer.map_or(0, Extents::covered).min(asked.len);
        if known < asked.len {
            known -= known % self.cut.align;
        }
        match answer {
            Some(extents) if known > 0 => {
                let known = Range::new(asked.start, known);
                for (range, kind) in extents.ranges(asked.start) {
                    let Some(range) = range.intersect(known) else { break };
                    self.add(range, kind.zero);
                }
            }
            Some(extents) if !extents.is_empty() => {
                known = self.cut.align.min(asked.len);
                self.add(Range::new(asked.start, known), false);
            }
            _ => {
                known = asked.len;
                self.add(asked, false);
            }
        }
        self.unknown = Range::new(asked.start + known, asked.len - known);
    }

    /// Appends what is wanted of a segment.
    fn add(&mut self, range: Range, zero: bool) {
        match self.regions.wanted {
            None => self.add_wanted(range, zero),
            Some(wanted) => wanted.within(range).for_each(|range| self.add_wanted(range, zero)),
        }
    }

    /// Appends a segment: joined with its neighbour, its inner border moved so that all data lie in aligned blocks.
    fn add_wanted(&mut self, range: Range, zero: bool) {
        let (mut start, end) = (range.start, range.end());
        if let Some(last) = self.known.back_mut()
            && last.range.end() == start
        {
            let block = start % self.cut.align;
            if last.zero == zero {
                last.range.len += range.len;
                return;
            }
            if block != 0 {
                // A block that is partly data is copied as data.
                if zero {
                    let grown = (self.cut.align - block).min(range.len);
                    last.range.len += grown;
                    start += grown;
                } else if last.range.len > block {
                    last.range.len -= block;
                    start -= block;
                } else {
                    last.zero = false;
                    let (first, len) = (last.range.start, last.range.len);
                    self.known.pop_back();
                    return self.add_wanted(Range::new(first, len + range.len), false);
                }
            }
        }
        if end > start {
            self.known.push_back(Segment { range: Range::new(start, end - start), zero });
        }
    }

    /// Whether more may come that belongs to a segment which ends at `end`.
    fn may_grow(&self, end: u64) -> bool {
        (self.asked || !self.unknown.is_empty()) && self.unknown.start == end
    }

    /// The next thing to do.
    pub(crate) fn next(&mut self) -> Next {
        let Some(first) = self.known.front().copied() else {
            return if self.asked { Next::Wait } else { Next::End };
        };
        let Range { start, len } = first.range;
        let step = match self.cut.zero {
            Some(step) if first.zero => step - start % step,
            _ => self.cut.data,
        };
        // A piece that is short only because the rest is not known yet may still grow, by what an unaligned answer
        // adds to it too.
        let last = self.known.len() == 1;
        if last
            && len < step.saturating_add(self.cut.align - 1)
            && self.asked
            && self.may_grow(first.range.end())
        {
            return Next::Wait;
        }
        let take = step.min(len);
        let piece = Range::new(start, take);
        if take == len {
            self.known.pop_front();
        } else if let Some(segment) = self.known.front_mut() {
            segment.range = Range::new(start + take, len - take);
        }
        Next::Piece(if first.zero { Piece::Zero(piece) } else { Piece::Data(piece) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk::Kind;

    const CUT: Cut = Cut { data: 100, zero: Some(1 << 20), align: 1 };

    fn extents(parts: &[(u64, Kind)]) -> Extents {
        let mut e = Extents::new();
        parts.iter().for_each(|(len, kind)| e.push(*len, *kind));
        e
    }

    fn rest(map: &mut Map<'_>) -> Vec<Piece> {
        let mut out = vec![];
        while let Next::Piece(p) = map.next() {
            out.push(p);
        }
        out
    }

    fn data(start: u64, len: u64) -> Piece {
        Piece::Data(Range::new(start, len))
    }
    fn zero(start: u64, len: u64) -> Piece {
        Piece::Zero(Range::new(start, len))
    }

    #[test]
    fn regions_cover_the_whole_once() {
        for (size, workers) in [(1u64, 1), (3 << 30, 1), ((3 << 30) + 5, 4), (1 << 20, 16)] {
            let regions = Regions::new(Range::new(0, size), workers);
            let mut at = 0;
            while let Some(r) = regions.take() {
                assert_eq!(r.start, at);
                at = r.end();
                assert!(at == size || at % ZERO_STEP == 0);
            }
            assert_eq!(at, size);
        }
    }

    #[test]
    fn without_extents_all_is_data_in_requests_with_a_short_tail() {
        let regions = Regions::new(Range::new(0, 250), 1);
        let mut map = Map::new(&regions, CUT, false);
        assert_eq!(map.ask(), None);
        assert_eq!(rest(&mut map), [data(0, 100), data(100, 100), data(200, 50)]);
        assert_eq!(map.next(), Next::End);
    }

    #[test]
    fn an_answer_in_two_parts_gives_whole_pieces() {
        let regions = Regions::new(Range::new(0, 1000), 1);
        let mut map = Map::new(&regions, CUT, true);
        assert_eq!(map.ask(), Some(Range::new(0, 1000)));
        assert_eq!(map.next(), Next::Wait);
        map.learn(Some(&extents(&[(130, Kind::DATA), (50, Kind::HOLE)])));
        assert_eq!(map.ask(), Some(Range::new(180, 820)));
        assert_eq!(map.next(), Next::Piece(data(0, 100)));
        assert_eq!(map.next(), Next::Piece(data(100, 30)));
        assert_eq!(map.next(), Next::Wait, "the hole may go on");
        map.learn(Some(&extents(&[(20, Kind::ZERO), (800, Kind::DATA)])));
        assert_eq!(map.next(), Next::Piece(zero(130, 70)));
        assert_eq!(rest(&mut map).len(), 8);
        assert_eq!(map.ask(), None);
        assert_eq!(map.next(), Next::End);
    }

    #[test]
    fn a_failed_answer_means_data() {
        let regions = Regions::new(Range::new(0, 150), 1);
        let mut map = Map::new(&regions, CUT, true);
        map.ask();
        map.learn(None);
        assert_eq!(rest(&mut map), [data(0, 100), data(100, 50)]);
    }

    #[test]
    fn zeroes_end_at_multiples_of_their_step() {
        let regions = Regions::new(Range::new(0, (5 << 20) / 2), 1);
        let mut map = Map::new(&regions, CUT, true);
        map.ask();
        map.learn(Some(&extents(&[(10, Kind::DATA), ((5 << 20) / 2 - 10, Kind::HOLE)])));
        let m = 1 << 20;
        assert_eq!(rest(&mut map), [data(0, 10), zero(10, m - 10), zero(m, m), zero(2 * m, m / 2)]);
    }

    #[test]
    fn blocks_that_are_partly_data_are_data() {
        let cut = Cut { align: 16, ..CUT };
        let regions = Regions::new(Range::new(0, 117), 1);
        for (parts, want) in [
            (
                &[(20, Kind::HOLE), (5, Kind::DATA), (92, Kind::HOLE)][..],
                vec![zero(0, 16), data(16, 16), zero(32, 85)],
            ),
            (&[(3, Kind::HOLE), (4, Kind::DATA), (110, Kind::HOLE)][..], vec![data(0, 16), zero(16, 101)]),
            (
                &[(16, Kind::DATA), (3, Kind::HOLE), (2, Kind::DATA), (3, Kind::HOLE), (93, Kind::DATA)][..],
                vec![data(0, 100), data(100, 17)],
            ),
            (&[(17, Kind::DATA), (100, Kind::HOLE)][..], vec![data(0, 32), zero(32, 85)]),
        ] {
            regions.next.store(0, Relaxed);
            let mut map = Map::new(&regions, cut, true);
            map.ask();
            map.learn(Some(&extents(parts)));
            assert_eq!(rest(&mut map), want, "{parts:?}");
        }
    }

    #[test]
    fn questions_start_at_whole_blocks() {
        let cut = Cut { align: 16, ..CUT };
        let regions = Regions::new(Range::new(0, 64), 1);
        let mut map = Map::new(&regions, cut, true);
        map.ask();
        map.learn(Some(&extents(&[(20, Kind::HOLE), (1, Kind::DATA)])));
        assert_eq!(map.ask(), Some(Range::new(16, 48)));
        map.learn(Some(&Extents::one(5, Kind::HOLE)));
        assert_eq!(map.ask(), Some(Range::new(32, 32)));
        map.learn(None);
        assert_eq!(rest(&mut map), [zero(0, 16), data(16, 48)]);
    }

    #[test]
    fn what_is_not_wanted_is_neither_copied_nor_asked_about() {
        let wanted: Ranges = [Range::new(300, 20), Range::new(400, 200)].into_iter().collect();
        let regions = Regions::of(Some(&wanted), Range::new(0, 1000), 1);
        let mut map = Map::new(&regions, CUT, true);
        assert_eq!(map.ask(), Some(Range::new(300, 300)));
        map.learn(Some(&extents(&[(10, Kind::DATA), (110, Kind::HOLE), (180, Kind::DATA)])));
        assert_eq!(
            rest(&mut map),
            [data(300, 10), zero(310, 10), zero(400, 20), data(420, 100), data(520, 80)]
        );
        assert_eq!(map.ask(), None);
        assert_eq!(map.next(), Next::End);
        let nothing = Ranges::new();
        let regions = Regions::of(Some(&nothing), Range::new(0, 1 << 40), 1);
        assert_eq!(Map::new(&regions, CUT, true).ask(), None);
    }

    #[test]
    fn a_liar_cannot_lead_outside_of_what_was_asked() {
        let regions = Regions::new(Range::new(0, 64), 1);
        let mut map = Map::new(&regions, CUT, true);
        map.ask();
        map.learn(Some(&Extents::one(u64::MAX, Kind::HOLE)));
        assert_eq!(rest(&mut map), [zero(0, 64)]);
        assert_eq!(map.ask(), None);
    }
}
