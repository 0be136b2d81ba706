//! A fake disk for filters to stand on: it can be slow, hold requests back, fail them, lose power, and counts.

use crate::random::Random;
use disk::{
    Backend, Client, Data, Disk, Errno, Error, Extents, Facts, Io, Kind, Range, Result, WriteFlags,
    ZeroFlags,
    checked::Checked,
    shapes::OpKind,
    shared::{Place, SharedMemory},
};
use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

/// Holes begin and end at multiples of this.
const GRANULE: u64 = 512;

/// What a write, zero or trim does to a range, which is all of its own or the beginning of that.
type Change = Box<dyn FnOnce(&Shared, Range) -> Result<()> + Send>;

/// A fake disk; clones are the same disk.
#[derive(Clone)]
pub struct Fake(Arc<Shared>);

struct Shared {
    facts: Facts,
    medium: Arc<SharedMemory>,
    state: Mutex<State>,
}

struct State {
    /// Per granule.
    allocated: Vec<bool>,
    /// What would be left after a loss of power.
    stable: Vec<u8>,
    /// Answered, not yet flushed.
    dirty: Vec<Range>,
    /// How often a request waits before, and again after, it takes effect.
    waits: u32,
    held: bool,
    waiting: Vec<Waker>,
    failing: Option<(u64, Random)>,
    /// Whether changes that are dropped come about with the next flush.
    late: bool,
    /// Changes that were dropped.
    dropped: Vec<(Range, Change)>,
    counts: BTreeMap<OpKind, u64>,
    opened: u64,
    closed: u64,
}

impl Fake {
    /// A disk of these facts, with content and holes that follow from `seed`.
    pub fn new(facts: Facts, seed: u64) -> Fake {
        let size = facts.size as usize;
        let medium = SharedMemory::new(size.max(1)).expect("room for a small disk");
        let mut allocated = vec![false; facts.size.div_ceil(GRANULE) as usize];
        let mut random = Random::new(seed);
        let mut at = 0;
        while at < facts.size {
            let len = ((1 + random.below(40)) * GRANULE).min(facts.size - at);
            let granules = &mut allocated[(at / GRANULE) as usize..(at + len).div_ceil(GRANULE) as usize];
            match random.below(3) {
                0 => {}
                1 => granules.fill(true),
                _ => {
                    granules.fill(true);
                    medium.write(at as usize, random.bytes(len).as_bytes().unwrap_or_default());
                }
            }
            at += len;
        }
        let mut stable = vec![0; size];
        medium.read(0, &mut stable);
        Fake::from_parts(facts, medium, allocated, stable)
    }

    fn from_parts(facts: Facts, medium: Arc<SharedMemory>, allocated: Vec<bool>, stable: Vec<u8>) -> Fake {
        let state = State {
            allocated,
            stable,
            dirty: vec![],
            waits: 0,
            held: false,
            waiting: vec![],
            failing: None,
            late: false,
            dropped: vec![],
            counts: BTreeMap::new(),
            opened: 0,
            closed: 0,
        };
        Fake(Arc::new(Shared { facts, medium, state: Mutex::new(state) }))
    }

    /// The disk as it is found after a loss of power now.
    pub fn after_power_loss(&self) -> Fake {
        let state = self.0.lock();
        let medium = SharedMemory::new(state.stable.len().max(1)).expect("room for a small disk");
        medium.write(0, &state.stable);
        // What was lost may have been allocated or not; saying so of everything is never wrong.
        let allocated = vec![true; state.allocated.len()];
        Fake::from_parts(self.0.facts.clone(), medium, allocated, state.stable.clone())
    }

    /// Puts bytes there, as if they had been written and flushed long ago.
    pub fn put(&self, at: u64, bytes: &[u8]) {
        let range = Range::new(at, bytes.len() as u64);
        self.0.medium.write(at as usize, bytes);
        self.0.allocate(range, true);
        self.0.keep(&mut self.0.lock().stable, range);
    }

    /// What it offers.
    pub fn facts(&self) -> &Facts {
        &self.0.facts
    }

    /// Something that opens this disk. It checks what it is asked, as the contract of [`Disk`] says.
    pub fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(FakeBackend(self.0.clone()))
    }

    /// Every request waits `times` before and after it takes effect.
    pub fn wait_each_time(&self, times: u32) {
        self.0.lock().waits = times;
    }

    /// Requests are held back until [`Fake::release`].
    pub fn hold(&self) {
        self.0.lock().held = true;
    }

    /// Lets held requests go on.
    pub fn release(&self) {
        let waiting = {
            let mut state = self.0.lock();
            state.held = false;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Writes, zeroes and trims that are dropped come about as late as they may: with the next flush or close.
    pub fn change_late(&self) {
        self.0.lock().late = true;
    }

    /// One in `n` requests fails with `EIO`, chosen by `seed`; 0: none. What a write, zero or trim that failed was to
    /// change is as it was, or is changed, or its beginning is.
    pub fn fail_one_in(&self, n: u64, seed: u64) {
        self.0.lock().failing = (n > 0).then(|| (n, Random::new(seed)));
    }

    /// How many requests of this kind came.
    pub fn count(&self, is: impl Fn(OpKind) -> bool) -> u64 {
        self.0.lock().counts.iter().filter(|(kind, _)| is(**kind)).map(|(_, n)| n).sum()
    }

    /// How many disks were opened, and how many of those were closed in an orderly way.
    pub fn opened_and_closed(&self) -> (u64, u64) {
        let state = self.0.lock();
        (state.opened, state.closed)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out what was dropped. Nobody is there to hear of a failure.
    fn settle(&self) {
        let dropped = std::mem::take(&mut self.lock().dropped);
        dropped.into_iter().for_each(|(range, change)| drop(change(self, range)));
    }

    fn changed(&self, state: &mut State, range: Range, fua: bool) {
        if fua {
            self.keep(&mut state.stable, range);
        } else {
            state.dirty.push(range);
        }
    }

    fn keep(&self, stable: &mut [u8], range: Range) {
        self.medium.read(range.start as usize, &mut stable[range.start as usize..range.end() as usize]);
    }

    fn read(&self, range: Range) -> Data {
        let (at, len) = (range.start as usize, range.len as usize);
        let turn = self.lock().counts.get(&OpKind::Read).copied().unwrap_or(0);
        match turn % 3 {
            0 => self.medium.lend(at, len).into(),
            1 => Data::fill(len, |into| self.medium.read(at, into)),
            _ => {
                let extents = self.extents(range);
                let parts = extents.ranges(range.start).map(|(r, kind)| match kind {
                    Kind { zero: true, .. } => Data::zeroes(r.len),
                    _ => Data::fill(r.len as usize, |into| self.medium.read(r.start as usize, into)),
                });
                Data::join(parts.collect())
            }
        }
    }

    fn write(&self, at: u64, data: &Data) {
        let copy = data.contiguous();
        self.medium.write(at as usize, copy.as_bytes().unwrap_or_default());
        self.allocate(Range::new(at, data.len()), true);
    }

    fn allocate(&self, range: Range, yes: bool) {
        let mut state = self.lock();
        // A hole needs whole granules, data needs any part of one.
        let (first, last) = if yes {
            (range.start / GRANULE, range.end().div_ceil(GRANULE))
        } else {
            (range.start.div_ceil(GRANULE), range.end() / GRANULE)
        };
        for granule in first..last {
            state.allocated[granule as usize] = yes;
        }
    }

    fn clear(&self, range: Range) {
        self.medium.clear(range.start as usize, range.len as usize);
    }

    fn extents(&self, range: Range) -> Extents {
        let state = self.lock();
        let mut extents = Extents::new();
        for part in range.split_at_multiples(GRANULE) {
            let hole = !state.allocated[(part.start / GRANULE) as usize];
            let zero = hole || self.medium.is_zero(part.start as usize, part.len as usize);
            extents.push(part.len, Kind { hole, zero });
        }
        extents
    }
}

struct FakeBackend(Arc<Shared>);

impl Backend for FakeBackend {
    fn open<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.0.lock().opened += 1;
        Io::ok(Arc::new(Checked::new(Arc::new(FakeDisk(self.0.clone())))))
    }
}

struct FakeDisk(Arc<Shared>);

impl FakeDisk {
    /// Counts, waits, fails or takes effect, and waits again.
    fn run<'a, T: Send + 'a>(
        &'a self,
        kind: OpKind,
        effect: impl FnOnce() -> Result<T> + Send + 'a,
    ) -> Io<'a, T> {
        self.run_or_fail(kind, move |fails| match fails {
            Some(_) => Err(Error::io("the fake disk was told to fail")),
            None => effect(),
        })
    }

    /// As [`FakeDisk::run`], of an effect that is told when it is to fail, with a number that says how.
    fn run_or_fail<'a, T: Send + 'a>(
        &'a self,
        kind: OpKind,
        effect: impl FnOnce(Option<u64>) -> Result<T> + Send + 'a,
    ) -> Io<'a, T> {
        let (waits, held, fails) = {
            let mut state = self.0.lock();
            *state.counts.entry(kind).or_default() += 1;
            let failing = state.failing.as_mut();
            let fails = failing.and_then(|(n, random)| random.once_in(*n).then(|| random.any()));
            (state.waits, state.held, fails)
        };
        let outcome = move || effect(fails);
        if waits == 0 && !held {
            return outcome().into();
        }
        Io::later(async move {
            self.pause(waits).await;
            let outcome = outcome();
            self.pause(waits).await;
            outcome
        })
    }

    async fn pause(&self, times: u32) {
        for _ in 0..times {
            reactor::yield_now().await;
        }
        poll_fn(|cx| {
            let mut state = self.0.lock();
            if state.held {
                state.waiting.push(cx.waker().clone());
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await
    }

    fn change(
        &self,
        kind: OpKind,
        range: Range,
        fua: bool,
        change: impl FnOnce(&Shared, Range) -> Result<()> + Send + 'static,
    ) -> Io<'_, ()> {
        let change: Change = Box::new(move |disk, part| {
            change(disk, part)?;
            disk.changed(&mut disk.lock(), part, fua && part == range);
            Ok(())
        });
        let mut change = Late { of: &self.0, range, change: Some(change) };
        self.run_or_fail(kind, move |fails| {
            let Some(change) = change.change.take() else { return Ok(()) };
            let Some(how) = fails else { return change(&self.0, range) };
            let unit = u64::from(self.0.facts.blocks.minimum);
            let done = match how % 3 {
                0 => 0,
                1 => range.len,
                _ => (how >> 2) % (range.len / unit) * unit,
            };
            if done > 0 {
                change(&self.0, Range::new(range.start, done))?;
            }
            Err(Error::io("the fake disk was told to fail"))
        })
    }
}

/// A change that has not come about yet.
struct Late<'a> {
    of: &'a Shared,
    range: Range,
    change: Option<Change>,
}

impl Drop for Late<'_> {
    fn drop(&mut self) {
        let mut state = self.of.lock();
        if state.late {
            state.dropped.extend(self.change.take().map(|change| (self.range, change)));
        }
    }
}

impl Disk for FakeDisk {
    fn facts(&self) -> &Facts {
        &self.0.facts
    }
    fn read(&self, range: Range) -> Io<'_, Data> {
        self.run(OpKind::Read, move || Ok(self.0.read(range)))
    }
    fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        self.change(OpKind::Write, Range::new(at, data.len()), flags.fua, move |disk, part| {
            disk.write(at, &data.slice(0, part.len));
            Ok(())
        })
    }
    fn zero(&self, range: Range, flags: ZeroFlags) -> Io<'_, ()> {
        let kind = OpKind::Zero { may_trim: flags.may_trim, fast: flags.fast };
        self.change(kind, range, flags.fua, move |disk, range| {
            if flags.fast && !range.start.is_multiple_of(GRANULE) {
                return Err(Error::new(Errno::NOTSUP, "not fast here"));
            }
            disk.clear(range);
            disk.allocate(range, !flags.may_trim);
            Ok(())
        })
    }
    fn trim(&self, range: Range, flags: WriteFlags) -> Io<'_, ()> {
        self.change(OpKind::Trim, range, flags.fua, move |disk, range| {
            let first = range.start.next_multiple_of(GRANULE);
            let whole = Range::new(first, (range.end() / GRANULE * GRANULE).saturating_sub(first));
            if !whole.is_empty() {
                disk.clear(whole);
                disk.allocate(whole, false);
            }
            Ok(())
        })
    }
    fn flush(&self) -> Io<'_, ()> {
        // Only what was answered before it was asked counts.
        let asked: Vec<Range> = self.0.lock().dirty.clone();
        self.run(OpKind::Flush, move || {
            self.0.settle();
            let mut state = self.0.lock();
            let state = &mut *state;
            for range in &asked {
                self.0.keep(&mut state.stable, *range);
            }
            state.dirty.retain(|range| !asked.contains(range));
            Ok(())
        })
    }
    fn cache(&self, _: Range) -> Io<'_, ()> {
        self.run(OpKind::Cache, || Ok(()))
    }
    fn extents(&self, range: Range, limit: usize) -> Io<'_, Extents> {
        self.run(OpKind::Extents, move || {
            let all = self.0.extents(range);
            let mut some = Extents::new();
            all.iter().take(limit).for_each(|e| some.push(e.len, e.kind));
            Ok(some)
        })
    }
    fn place(&self, range: Range) -> Option<Place<'_>> {
        // Bytes may come into it and its completion never: no hole any more, whatever happens.
        self.0.allocate(range, true);
        Some(self.0.medium.place(range.start as usize, range.len as usize))
    }
    fn placed(&self, range: Range, flags: WriteFlags) -> Io<'_, ()> {
        self.change(OpKind::Write, range, flags.fua, |_, _| Ok(()))
    }
    fn close(&self) -> Io<'_, ()> {
        self.0.lock().closed += 1;
        self.0.settle();
        Io::ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake() -> (Fake, Arc<dyn Disk>) {
        let facts = Facts { fua: true, trim: true, zero: true, extents: true, ..Facts::writable(65536) };
        let fake = Fake::new(facts, 1);
        let disk = fake.backend().open(&Client::default()).wait().unwrap();
        (fake, disk)
    }

    #[test]
    fn power_loss_takes_what_was_not_flushed() {
        let (fake, disk) = fake();
        disk.write(0, Data::copy_from(b"one"), WriteFlags::default()).wait().unwrap();
        disk.flush().wait().unwrap();
        disk.write(0, Data::copy_from(b"two"), WriteFlags::default()).wait().unwrap();
        disk.write(100, Data::copy_from(b"three"), WriteFlags { fua: true }).wait().unwrap();
        let after = fake.after_power_loss().backend().open(&Client::default()).wait().unwrap();
        assert_eq!(after.read(Range::new(0, 3)).wait().unwrap().to_vec(), b"one");
        assert_eq!(after.read(Range::new(100, 5)).wait().unwrap().to_vec(), b"three");
    }

    #[test]
    fn held_requests_wait_for_their_release() {
        let (fake, disk) = fake();
        fake.hold();
        let read = disk.read(Range::new(0, 512));
        let later = fake.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            later.release();
        });
        assert_eq!(read.wait().unwrap().len(), 512);
        thread.join().unwrap();
        assert_eq!(fake.count(|kind| kind == OpKind::Read), 1);
    }

    #[test]
    fn failures_come_as_often_as_told() {
        let (fake, disk) = fake();
        fake.fail_one_in(4, 7);
        let failed = (0..400).filter(|_| disk.read(Range::new(0, 1)).wait().is_err()).count();
        assert!((50..150).contains(&failed), "{failed}");
        fake.fail_one_in(0, 0);
        assert!(disk.read(Range::new(0, 1)).wait().is_ok());
    }
}
