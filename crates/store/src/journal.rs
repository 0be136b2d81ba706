//! The log of states: how it is read, appended to and renewed, so that a crash at any moment leaves a file that opens
//! with all that was synced.
//!
//! The order of things is all there is to it. Bytes are stable before a batch is written that says where they are; a
//! batch is stable before the next one is written; a new log is stable before a header names it; and the two headers
//! are written one after the other, so that one of them is whole and names a log that is whole.

use crate::{
    changes::Taken,
    format::{
        Area, BatchHead, Entry, FIRST, GRAIN, HEADER, Header, MOST, NoHeader, Stamp, damaged, encode_batch,
    },
    leaf::{LEAF_BLOCKS, Leaf},
    map::{Map, Spot},
    medium::Medium,
};
use disk::{Data, Error, Result};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The smallest log, in bytes.
const LOG: u64 = 256 << 10;
/// Behind a batch that is not whole, so many bytes are searched for one that is.
const SEARCHED: u64 = 4 * MOST as u64;

/// The log of a store that may be written.
pub(crate) struct Journal {
    pub(crate) header: Header,
    /// Where the next batch goes.
    at: u64,
    /// How many batches there are.
    number: u64,
    /// Once something could not be made stable, nothing more is promised.
    broken: Option<Error>,
}

/// The header of a new store, whose log lies right behind it.
pub(crate) fn begin(header: &mut Header) {
    header.generation = 1;
    header.epoch = 1;
    header.log = Area { start: FIRST, len: LOG };
    header.spare = Area::default();
    header.batches = 0;
}

/// Reads the headers: the one that counts, and whether the other is the same.
pub(crate) fn read_header(medium: &dyn Medium) -> Result<(Header, bool)> {
    let foreign = || Error::invalid("not a file of diskpipe's overlays and caches");
    if medium.end()? < FIRST {
        return Err(foreign());
    }
    let slot = |at| medium.read(at, HEADER).map(|bytes| Header::decode(&bytes.to_vec()));
    match (slot(0)?, slot(HEADER)?) {
        (Err(NoHeader::Refused(e)), _) | (_, Err(NoHeader::Refused(e))) => Err(e),
        (Ok(a), Ok(b)) if a.id != b.id => Err(damaged("its two headers are of two files")),
        (Ok(a), Ok(b)) => {
            let same = a == b;
            Ok((if a.generation >= b.generation { a } else { b }, same))
        }
        (Ok(a), Err(_)) => Ok((a, false)),
        (Err(_), Ok(b)) => Ok((b, false)),
        (Err(NoHeader::Foreign), Err(NoHeader::Foreign)) => Err(foreign()),
        (Err(_), Err(_)) => Err(damaged("neither of its headers is whole")),
    }
}

/// Reads the log into the map. Returns the journal that goes on with it, and where the file has no use any more.
pub(crate) fn replay(medium: &dyn Medium, header: Header, map: &Map) -> Result<(Journal, u64)> {
    let end = medium.end()?;
    let log = header.log;
    let (mut at, mut number) = (log.start, 0);
    while let Some((head, batch)) = read_batch(medium, &header, at, end)? {
        let Some(payload) = head.payload(&batch).filter(|_| head.number == number) else { break };
        Entry::decode_all(payload)?.iter().try_for_each(|entry| apply(entry, &header, map))?;
        at += head.whole();
        number += 1;
    }
    if number < header.batches {
        let must = header.batches;
        return Err(damaged(format_args!("of {must} parts of its log, only {number} are whole")));
    }
    // No crash leaves a whole batch behind one that is not.
    let searched = log.end().min(at.saturating_add(SEARCHED));
    for later in (at + GRAIN..searched).step_by(GRAIN as usize) {
        if let Some((head, batch)) = read_batch(medium, &header, later, end)?
            && head.number >= number
            && head.payload(&batch).is_some()
        {
            return Err(damaged(format_args!("part {number} of its log is not whole, but a later one is")));
        }
    }
    let next = places(&header, map, end)?;
    Ok((Journal { header, at, number, broken: None }, next))
}

/// A batch of this log that begins here, as far as its head tells.
fn read_batch(
    medium: &dyn Medium,
    header: &Header,
    at: u64,
    end: u64,
) -> Result<Option<(BatchHead, Vec<u8>)>> {
    let end = end.min(header.log.end());
    if at.saturating_add(BatchHead::LEN) > end {
        return Ok(None);
    }
    let head = medium.read(at, BatchHead::LEN)?.to_vec();
    let Some(head) = BatchHead::decode(&head, header.id, header.epoch) else { return Ok(None) };
    let len = BatchHead::LEN + head.len as u64;
    if at.saturating_add(len) > end {
        return Ok(None);
    }
    let batch = medium.read(at, len)?.to_vec();
    Ok(Some((head, batch)))
}

/// What one entry says.
fn apply(entry: &Entry, header: &Header, map: &Map) -> Result<()> {
    let all = header.blocks();
    match *entry {
        Entry::Leaf { index, place, ref states } => {
            if index >= all.div_ceil(LEAF_BLOCKS as u64) {
                return Err(damaged("its log speaks of blocks behind the end of the disk"));
            }
            let (leaf, _) = map.leaf(index * LEAF_BLOCKS as u64, || place);
            if leaf.place != place {
                return Err(damaged("its log has two places for the same blocks"));
            }
            leaf.restore(states);
        }
        Entry::Zero { block, blocks } => {
            let end = block.checked_add(blocks).filter(|end| *end <= all);
            let end = end.ok_or_else(|| damaged("its log speaks of blocks behind the end of the disk"))?;
            let mut at = block;
            while at < end {
                at += match map.find(at) {
                    // What is known of single blocks is later than this.
                    Spot::Leaf(_, first) => (LEAF_BLOCKS - first) as u64,
                    Spot::Absent { zero: true, blocks } => blocks,
                    Spot::Absent { zero: false, .. } => match map.zero_absent(at, end - at) {
                        0 => return Err(damaged("its log makes a part of some blocks zero")),
                        marked => marked,
                    },
                };
            }
        }
    }
    Ok(())
}

/// Checks that everything has a place of its own within the file, and says where the next one begins.
fn places(header: &Header, map: &Map, end: u64) -> Result<u64> {
    let mut areas = vec![header.log, header.spare];
    let mut too_short = false;
    map.walk(|block, spot| {
        if let Spot::Leaf(leaf, _) = spot {
            areas.push(Area { start: leaf.place, len: header.leaf_bytes() });
            if let Some(last) = leaf.last_here(map.blocks() - block) {
                // The disk's last block may be a short one.
                let is_last = block + last as u64 + 1 == map.blocks();
                let bytes = last as u64 * header.block + if is_last { 1 } else { header.block };
                too_short |= leaf.place.saturating_add(bytes) > end;
            }
        }
    });
    if too_short {
        return Err(damaged("it ends before the last of its blocks"));
    }
    areas.retain(|area| area.len > 0);
    areas.sort_by_key(|area| area.start);
    let mut next = FIRST;
    for area in areas {
        if area.start < next || !area.start.is_multiple_of(GRAIN) {
            return Err(damaged("two of its parts have the same place"));
        }
        let end = area.start.checked_add(area.len).filter(|end| *end <= i64::MAX as u64);
        next = end.ok_or_else(|| damaged("a part of it lies where no file reaches"))?;
    }
    Ok(next)
}

/// Entries as payloads of batches.
#[derive(Default)]
struct Payloads(Vec<Vec<u8>>);

impl Payloads {
    fn add(&mut self, entry: &Entry) {
        match self.0.last_mut() {
            Some(last) if last.len() + Entry::LONGEST <= MOST => entry.append_to(last),
            _ => {
                let mut new = Vec::new();
                entry.append_to(&mut new);
                self.0.push(new);
            }
        }
    }

    fn add_leaf(&mut self, leaf: &Leaf) {
        self.add(&Entry::Leaf { index: leaf.index, place: leaf.place, states: Box::new(leaf.take()) });
    }

    /// What was changed.
    fn changed(map: &Map, taken: &Taken) -> Payloads {
        let mut payloads = Payloads::default();
        for &(block, blocks) in &taken.zeroed {
            payloads.add(&Entry::Zero { block, blocks });
        }
        for &index in &taken.leaves {
            if let Spot::Leaf(leaf, _) = map.find(index * LEAF_BLOCKS as u64) {
                payloads.add_leaf(leaf);
            }
        }
        payloads
    }

    /// Everything.
    fn whole(map: &Map) -> Payloads {
        let mut payloads = Payloads::default();
        let mut zeroed: Option<(u64, u64)> = None;
        map.walk(|at, spot| match (spot, &mut zeroed) {
            (Spot::Absent { zero: true, blocks }, Some((_, count))) => *count += blocks,
            (Spot::Absent { zero: true, blocks }, none) => *none = Some((at, blocks)),
            (spot, some) => {
                if let Some((block, blocks)) = some.take() {
                    payloads.add(&Entry::Zero { block, blocks });
                }
                if let Spot::Leaf(leaf, _) = spot {
                    payloads.add_leaf(leaf);
                }
            }
        });
        if let Some((block, blocks)) = zeroed {
            payloads.add(&Entry::Zero { block, blocks: blocks.min(map.blocks() - block) });
        }
        payloads
    }

    /// In the file, in bytes.
    fn size(&self) -> u64 {
        let whole = |payload: &Vec<u8>| (BatchHead::LEN + payload.len() as u64).next_multiple_of(GRAIN);
        self.0.iter().map(whole).sum()
    }
}

impl Journal {
    fn stamp(&self, epoch: u64, number: u64) -> Stamp {
        Stamp { id: self.header.id, epoch, number }
    }

    /// Makes stable; if that fails, nothing is promised any more.
    fn stable(&mut self, medium: &dyn Medium) -> Result<()> {
        medium.sync().inspect_err(|e| {
            let why = format!("since something could not be made stable ({e}), nothing is: start again");
            self.broken = Some(Error::new(e.errno(), why));
        })
    }

    /// Makes bytes and states stable. `next` is where the file has no use yet.
    ///
    /// # Errors
    /// `ENOSPC`: the states are as they were, and later it may succeed. All others are for good.
    pub(crate) fn commit(
        &mut self,
        medium: &dyn Medium,
        map: &Map,
        taken: &Taken,
        next: &AtomicU64,
    ) -> Result<()> {
        if let Some(broken) = &self.broken {
            return Err(broken.duplicate());
        }
        // The states first: what they say of bytes is then true of those that are made stable.
        let changed = Payloads::changed(map, taken);
        if self.at + changed.size() > self.header.log.end() {
            let whole = Payloads::whole(map);
            self.stable(medium)?;
            return self.renew(medium, &whole, next, |_| {});
        }
        self.stable(medium)?;
        for payload in changed.0 {
            let batch = encode_batch(self.stamp(self.header.epoch, self.number), &payload);
            medium.write(self.at, &Data::copy_from(&batch))?;
            // Each before the next: a whole one behind a torn one is a damage.
            self.stable(medium)?;
            self.at += batch.len() as u64;
            self.number += 1;
        }
        Ok(())
    }

    /// Begins a new log that says everything.
    fn renew(
        &mut self,
        medium: &dyn Medium,
        whole: &Payloads,
        next: &AtomicU64,
        change: impl FnOnce(&mut Header),
    ) -> Result<()> {
        let size = whole.size();
        let spare = self.header.spare;
        let log = if spare.len >= LOG && spare.len >= 2 * size {
            spare
        } else {
            let len = LOG.max(4 * size);
            Area { start: next.fetch_add(len, Relaxed), len }
        };
        medium.reserve(log.start, log.len);
        let epoch = self.header.epoch + 1;
        let mut at = log.start;
        for (number, payload) in (0..).zip(&whole.0) {
            let batch = encode_batch(self.stamp(epoch, number), payload);
            medium.write(at, &Data::copy_from(&batch))?;
            at += batch.len() as u64;
        }
        self.stable(medium)?;
        let batches = whole.0.len() as u64;
        self.write_header(medium, |header| {
            header.spare = header.log;
            (header.log, header.epoch, header.batches) = (log, epoch, batches);
            change(header);
        })?;
        (self.at, self.number) = (at, batches);
        Ok(())
    }

    /// Begins an empty log: no block is here any more, nor in a parent.
    pub(crate) fn empty(&mut self, medium: &dyn Medium, next: &AtomicU64, identity: &str) -> Result<()> {
        self.renew(medium, &Payloads::default(), next, |header| {
            header.parent = None;
            header.identity = identity.to_owned();
        })
    }

    /// What is in the log now must be there later.
    pub(crate) fn seal(&mut self, medium: &dyn Medium) -> Result<()> {
        let number = self.number;
        if self.broken.is_some() || self.header.batches == number {
            return Ok(());
        }
        self.write_header(medium, |header| header.batches = number)
    }

    /// Writes another header, one place after the other.
    pub(crate) fn write_header(
        &mut self,
        medium: &dyn Medium,
        change: impl FnOnce(&mut Header),
    ) -> Result<()> {
        let mut header = self.header.clone();
        header.generation += 1;
        change(&mut header);
        let outcome = write_headers(medium, &header, [0, HEADER]);
        match &outcome {
            Ok(()) => self.header = header,
            Err(e) => {
                let why = format!("since its header could not be written ({e}), nothing is: start again");
                self.broken = Some(Error::new(e.errno(), why));
            }
        }
        outcome
    }
}

/// Writes a header to these places, each stable before the next.
pub(crate) fn write_headers(
    medium: &dyn Medium,
    header: &Header,
    places: impl IntoIterator<Item = u64>,
) -> Result<()> {
    let bytes = Data::copy_from(&header.encode());
    for at in places {
        medium.write(at, &bytes)?;
        medium.sync()?;
    }
    Ok(())
}

/// Makes both headers the same again, after a crash between them.
pub(crate) fn repair(medium: &dyn Medium, header: &Header) -> Result<()> {
    // The one that counts must stay until the other is whole.
    let slot = |at| Header::decode(&medium.read(at, HEADER)?.to_vec()).map_err(|_| damaged("no header"));
    let first_counts = slot(0).is_ok_and(|first| first == *header);
    write_headers(medium, header, [if first_counts { HEADER } else { 0 }])
}
