//! A disk in memory for tests: with holes, late answers, and failures on demand.

use disk::{
    Blocks, Data, Disk, Errno, Error, Extents, Facts, Io, Kind, Range, WriteFlags, ZeroFlags,
    checked::Checked,
};
use std::sync::{Arc, Mutex};

/// What happened to a fake disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Read(Range),
    Write(Range),
    /// With whether a hole was allowed.
    Zero(Range, bool),
    Extents(Range),
}

/// Blocks of this many bytes are a hole where they are zero.
pub(crate) const BLOCK: usize = 512;

pub(crate) struct Fake {
    facts: Facts,
    bytes: Mutex<Vec<u8>>,
    seen: Mutex<Vec<Seen>>,
    pub(crate) fails: fn(Seen) -> Option<Errno>,
    /// Answers come later, out of order.
    late: bool,
    /// At most so many extents in one answer.
    extents: usize,
}

impl Fake {
    pub(crate) fn new(bytes: Vec<u8>) -> Fake {
        let facts = Facts { zero: true, extents: true, ..Facts::writable(bytes.len() as u64) };
        let (bytes, seen) = (Mutex::new(bytes), Mutex::default());
        Fake { facts, bytes, seen, fails: |_| None, late: true, extents: 3 }
    }

    pub(crate) fn with_facts(mut self, change: impl FnOnce(&mut Facts)) -> Fake {
        change(&mut self.facts);
        self
    }

    pub(crate) fn with_block(self, minimum: u32) -> Fake {
        let preferred = minimum.max(4096);
        self.with_facts(|f| f.blocks = Blocks { minimum, preferred, maximum: u32::MAX })
    }

    pub(crate) fn failing(mut self, fails: fn(Seen) -> Option<Errno>) -> Fake {
        self.fails = fails;
        self
    }

    pub(crate) fn at_once(mut self) -> Fake {
        self.late = false;
        self
    }

    /// As the tools see it, with its contract checked; and as the test does.
    pub(crate) fn open(self) -> (Arc<dyn Disk>, Arc<Fake>) {
        let fake = Arc::new(self);
        (Arc::new(Checked::new(fake.clone())), fake)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn see<'a, T: Send + 'a>(&'a self, seen: Seen, answer: impl FnOnce() -> T + Send + 'a) -> Io<'a, T> {
        let turn = {
            let mut list = self.seen.lock().unwrap();
            list.push(seen);
            list.len()
        };
        if let Some(errno) = (self.fails)(seen) {
            return Error::new(errno, "as the test wants it").into();
        }
        if !self.late {
            return Io::ok(answer());
        }
        Io::later(async move {
            for _ in 0..turn % 4 {
                reactor::yield_now().await;
            }
            Ok(answer())
        })
    }
}

fn part(range: Range) -> std::ops::Range<usize> {
    range.start as usize..range.end() as usize
}

impl Disk for Fake {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, range: Range) -> Io<'_, Data> {
        self.see(Seen::Read(range), move || Data::copy_from(&self.bytes.lock().unwrap()[part(range)]))
    }
    fn write(&self, at: u64, data: Data, _: WriteFlags) -> Io<'_, ()> {
        let range = Range::new(at, data.len());
        self.see(Seen::Write(range), move || data.copy_to(&mut self.bytes.lock().unwrap()[part(range)]))
    }
    fn zero(&self, range: Range, flags: ZeroFlags) -> Io<'_, ()> {
        self.see(Seen::Zero(range, flags.may_trim), move || self.bytes.lock().unwrap()[part(range)].fill(0))
    }
    fn flush(&self) -> Io<'_, ()> {
        Io::ok(())
    }
    fn extents(&self, range: Range, _: usize) -> Io<'_, Extents> {
        self.see(Seen::Extents(range), move || {
            let bytes = self.bytes.lock().unwrap();
            let mut extents = Extents::new();
            for piece in range.split_at_multiples(BLOCK as u64) {
                let zero = bytes[part(piece)].iter().all(|b| *b == 0);
                extents.push(piece.len, if zero { Kind::HOLE } else { Kind::DATA });
                if extents.len() > self.extents {
                    extents.truncate(extents.covered() - piece.len);
                    break;
                }
            }
            extents
        })
    }
}

/// Islands of data in holes, the same for the same seed.
pub(crate) fn islands(size: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let mut state = seed | 1;
    let mut random = move |below: usize| {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut at = 0;
    while at < size {
        at += random(20_000);
        let end = (at + 1 + random(20_000)).min(size);
        let fill = 1 + random(255) as u8;
        bytes.get_mut(at..end).into_iter().flatten().for_each(|b| *b = fill);
        at = end.max(at);
    }
    bytes
}
