//! The disk: what the program made, and over it what was written since.
//!
//! The program's bytes never change. A granule that somebody writes to is copied into memory first, and lives there from
//! then on.

use super::{
    granules::Granules,
    node::{GRANULE, Node},
};
use crate::common::content;
use disk::{Data, Disk, Extents, Facts, Io, Kind, Range, Result, WriteFlags, ZeroFlags};
use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};

/// Shorter runs of zeroes are sent as bytes.
const WORTH_A_HOLE: u64 = 4096;
/// How many runs are looked at for one request.
const MOST_RUNS: usize = 1 << 16;

pub(super) struct DataDisk {
    facts: Facts,
    content: Arc<Node>,
    /// Of the same size; holds the granules that were taken.
    memory: Arc<dyn Disk>,
    taken: RwLock<Granules>,
    any_taken: AtomicBool,
}

impl DataDisk {
    /// `content`, which can be written over in `memory` (of the same size, all zeroes).
    pub(super) fn new(content: Arc<Node>, memory: Arc<dyn Disk>) -> DataDisk {
        let facts = memory.facts().clone();
        debug_assert_eq!(facts.size, content.len);
        DataDisk { facts, content, memory, taken: RwLock::default(), any_taken: AtomicBool::new(false) }
    }

    /// Copies everything into memory.
    pub(super) fn take_all(&self) -> Result<()> {
        if self.facts.size > 0 { self.take(self.facts.whole(), None) } else { Ok(()) }
    }

    /// The parts of a range, and whether each lives in memory.
    fn parts(&self, range: Range) -> Vec<(Range, bool)> {
        if !self.any_taken.load(Ordering::Acquire) {
            return vec![(range, false)];
        }
        self.taken.read().unwrap_or_else(PoisonError::into_inner).parts(range)
    }

    /// Makes memory the place of a range, with all granules that it touches. What lies in `unneeded` will be
    /// overwritten, so it need not be copied.
    fn take(&self, range: Range, unneeded: Option<Range>) -> Result<()> {
        let start = range.start / GRANULE * GRANULE;
        let end = range.end().div_ceil(GRANULE).saturating_mul(GRANULE).min(self.facts.size);
        let outer = Range::new(start, end - start);
        if self.parts(outer).iter().all(|(_, taken)| *taken) {
            return Ok(());
        }
        let mut taken = self.taken.write().unwrap_or_else(PoisonError::into_inner);
        for (part, _) in taken.parts(outer).into_iter().filter(|(_, taken)| !taken) {
            // Granules that zeroes or a trim cover as a whole are simply not copied: memory holds zeroes there.
            let whole = unneeded
                .map_or(Range::new(part.end(), 0), |unneeded| granules_within(unneeded, self.facts.size));
            let before = Range::new(part.start, whole.start.clamp(part.start, part.end()) - part.start);
            let behind = whole.end().clamp(part.start, part.end()).max(before.end());
            for kept in [before, Range::new(behind, part.end() - behind)] {
                self.copy_to_memory(kept)?;
            }
        }
        taken.insert(outer);
        self.any_taken.store(true, Ordering::Release);
        Ok(())
    }

    fn copy_to_memory(&self, range: Range) -> Result<()> {
        for part in range.split_at_multiples(16 << 20) {
            let data = self.read_content(part);
            let mut at = part.start;
            for piece in data.pieces() {
                let len = piece.len();
                if !matches!(piece, disk::Piece::Zeroes(_)) {
                    let data = data.slice(at - part.start, len);
                    // Memory answers at once, or on its own threads: nothing that waits for this lock.
                    self.memory.write(at, data, WriteFlags::default()).wait()?;
                }
                at += len;
            }
        }
        Ok(())
    }

    /// What the program made.
    fn read_content(&self, range: Range) -> Data {
        let bytes = |range| content::read(range, |at, into| self.content.copy(at, into));
        let (zero, len) = self.content.run(range.start, range.len);
        if len == range.len {
            return if zero { Data::zeroes(len) } else { bytes(range) };
        }
        let (mut parts, mut from, mut at) = (Vec::new(), range.start, range.start);
        while at < range.end() {
            let (zero, len) = self.zeroes(at, range.end() - at);
            if zero && (len >= WORTH_A_HOLE || from == at && at + len == range.end()) {
                if from < at {
                    parts.push(bytes(Range::new(from, at - from)));
                }
                parts.push(Data::zeroes(len));
                from = at + len;
            }
            at += len;
        }
        if from < at {
            parts.push(bytes(Range::new(from, at - from)));
        }
        Data::join(parts)
    }

    /// As [`Node::run`], with runs of zeroes in one.
    fn zeroes(&self, at: u64, most: u64) -> (bool, u64) {
        let (zero, mut len) = self.content.run(at, most);
        while zero && len < most {
            match self.content.run(at + len, most - len) {
                (true, more) => len += more,
                _ => break,
            }
        }
        (zero, len)
    }

    /// Holes are whole granules that are known to be zero, as they would be if all of it lay in memory.
    fn content_extents(&self, range: Range, limit: usize, extents: &mut Extents) {
        let (mut at, end, size) = (range.start, range.end(), self.facts.size);
        for _ in 0..MOST_RUNS {
            if at >= end || extents.len() > limit {
                break;
            }
            let granule = at / GRANULE * GRANULE;
            let up = |at: u64| at.div_ceil(GRANULE).saturating_mul(GRANULE).min(size);
            let zeroes = match self.zeroes(granule, size - granule) {
                (true, len) => granule + len,
                _ => granule,
            };
            let hole = if zeroes == size { size } else { zeroes / GRANULE * GRANULE };
            let (stop, kind) = match hole > at {
                true => (hole, Kind::HOLE),
                false => {
                    let data = if zeroes < size { self.content.run(zeroes, size - zeroes).1 } else { 0 };
                    (up((zeroes + data).max(at + 1)), Kind::DATA)
                }
            };
            extents.push(stop.min(end) - at, kind);
            at = stop;
        }
    }
}

/// The granules that lie in a range as a whole; the last one of a disk may be short.
fn granules_within(range: Range, size: u64) -> Range {
    let start = range.start.next_multiple_of(GRANULE);
    let end = if range.end() == size { size } else { range.end() / GRANULE * GRANULE };
    Range::new(start, end.saturating_sub(start))
}

impl Disk for DataDisk {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn read(&self, range: Range) -> Io<'_, Data> {
        match &self.parts(range)[..] {
            [(_, false)] => Io::ok(self.read_content(range)),
            [(_, true)] => self.memory.read(range),
            parts => {
                let read = |(part, taken): &(Range, bool)| match taken {
                    true => self.memory.read(*part),
                    false => Io::ok(self.read_content(*part)),
                };
                let all: Vec<_> = parts.iter().map(read).collect();
                let joined = async move {
                    let mut parts = Vec::with_capacity(all.len());
                    for part in all {
                        parts.push(part.await?);
                    }
                    Ok(Data::join(parts))
                };
                Io::later(joined)
            }
        }
    }

    fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        match self.take(Range::new(at, data.len()), None) {
            Ok(()) => self.memory.write(at, data, flags),
            Err(e) => e.into(),
        }
    }

    fn zero(&self, range: Range, flags: ZeroFlags) -> Io<'_, ()> {
        match self.take(range, Some(range)) {
            Ok(()) => self.memory.zero(range, flags),
            Err(e) => e.into(),
        }
    }

    fn trim(&self, range: Range, flags: WriteFlags) -> Io<'_, ()> {
        match self.take(range, Some(range)) {
            Ok(()) => self.memory.trim(range, flags),
            Err(e) => e.into(),
        }
    }

    fn flush(&self) -> Io<'_, ()> {
        self.memory.flush()
    }

    fn cache(&self, _: Range) -> Io<'_, ()> {
        Io::ok(())
    }

    fn extents(&self, range: Range, limit: usize) -> Io<'_, Extents> {
        let mut extents = Extents::new();
        for (part, taken) in self.parts(range) {
            let before = extents.covered();
            if !taken {
                self.content_extents(part, limit, &mut extents);
            } else {
                match self.memory.extents(part, limit) {
                    Io::Ready(Ok(more)) => extents.append(&more),
                    // What is known already is answer enough.
                    _ if before > 0 => break,
                    other => return other,
                }
            }
            if extents.covered() - before < part.len || extents.len() > limit {
                break;
            }
        }
        Io::ok(extents)
    }
}
