//! The requests in flight: a slab whose indices, with a generation, are the cookies on the wire.

use super::{
    answer::{Answer, Assembly, Checked},
    watch::is_watch,
};
use disk::{Error, Result};
use proto::{Command, Request};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    task::Waker,
};

/// Replies to reads from this size on are received in place; the receiver then reads headers by themselves.
pub(super) const LARGE: u64 = 64 << 10;

/// How much is in flight. Written under the slots' lock, read without it.
#[derive(Default)]
pub(super) struct Counts {
    waiting: AtomicUsize,
    large: AtomicUsize,
    /// Those that have no end.
    watches: AtomicUsize,
}

impl Counts {
    /// How many replies are outstanding.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// How many replies with an end are outstanding.
    pub(super) fn finite(&self) -> usize {
        self.waiting.load(Relaxed).saturating_sub(self.watches.load(Relaxed))
    }

    /// Whether every outstanding reply has a large payload.
    pub(super) fn only_large(&self) -> bool {
        let large = self.large.load(Relaxed);
        large > 0 && large == self.waiting.load(Relaxed)
    }

    fn add(&self, request: &Request, by: isize) {
        // No read-modify-write: the lock orders the writers.
        let change = |n: &AtomicUsize| n.store(n.load(Relaxed).wrapping_add_signed(by), Relaxed);
        change(&self.waiting);
        if is_large(request) {
            change(&self.large);
        }
        if is_watch(request) {
            change(&self.watches);
        }
    }
}

fn is_large(request: &Request) -> bool {
    request.command == Command::Read && request.length >= LARGE
}

/// All slots, and how the connection ended.
#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    dead: Option<Error>,
    /// The cookies of writes that nobody awaits any more, although the server still works on them.
    unsettled: BTreeSet<u64>,
    /// Who waits for the end of some of those.
    settling: Vec<Waker>,
    /// Of `settling`: to be woken when the slots are no longer locked.
    settled: Vec<Waker>,
}

/// A place for one request at a time. Its parts are written where they are, not moved about: requests are many.
struct Slot {
    /// Counts the uses, so that a cookie of an earlier request is not taken for this one.
    generation: u32,
    phase: Phase,
    pending: Pending,
    waker: Option<Waker>,
    /// Nobody wants the answer any more, but the reply must still be read.
    abandoned: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Free,
    Waiting,
    /// The reply is complete and checked, the answer not yet taken.
    Done,
}

/// A request that was not answered in full yet.
pub(super) struct Pending {
    /// As it was sent; a BLOCK_STATUS with a payload has its effect length here.
    pub(super) request: Request,
    /// What came of the reply so far.
    pub(super) reply: Assembly,
}

impl Slots {
    /// Register a request, and give it its cookie.
    pub(super) fn add(&mut self, mut request: Request, counts: &Counts) -> Result<Request> {
        if let Some(dead) = &self.dead {
            return Err(dead.duplicate());
        }
        let index = self.free.pop().unwrap_or_else(|| {
            let pending = Pending { request, reply: Assembly::default() };
            self.slots.push(Slot {
                generation: 0,
                phase: Phase::Free,
                pending,
                waker: None,
                abandoned: false,
            });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        request.cookie = (u64::from(slot.generation) << 32) | u64::from(index);
        slot.phase = Phase::Waiting;
        slot.abandoned = false;
        slot.pending.request = request;
        counts.add(&request, 1);
        Ok(request)
    }

    fn slot(&mut self, cookie: u64, phase: Phase) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(cookie as u32 as usize)?;
        (u64::from(slot.generation) == cookie >> 32 && slot.phase == phase).then_some(slot)
    }

    fn waiting(&mut self, cookie: u64) -> Checked<&mut Slot> {
        self.slot(cookie, Phase::Waiting)
            .ok_or_else(|| format!("the server answered a request that was not made (cookie {cookie:#x})"))
    }

    /// The request with this cookie, if it still waits.
    #[inline]
    pub(super) fn pending(&mut self, cookie: u64) -> Checked<&mut Pending> {
        self.waiting(cookie).map(|slot| &mut slot.pending)
    }

    /// The reply to this request is complete. Returns whom to wake.
    ///
    /// # Errors
    /// A sentence: the reply is not whole, or nobody asked.
    pub(super) fn finish(&mut self, cookie: u64, counts: &Counts) -> Checked<Option<Waker>> {
        let slot = self.waiting(cookie)?;
        slot.pending.reply.check(&slot.pending.request)?;
        counts.add(&slot.pending.request, -1);
        slot.phase = Phase::Done;
        if slot.abandoned {
            let _ = self.take(cookie); // as its owner would have
            if self.unsettled.remove(&cookie) {
                self.settled.append(&mut self.settling);
            }
            return Ok(None);
        }
        Ok(slot.waker.take())
    }

    /// Adds whom to wake since the last write came to its end that nobody awaited.
    #[inline]
    pub(super) fn take_settled(&mut self, wakers: &mut Vec<Waker>) {
        wakers.append(&mut self.settled);
    }

    /// The writes that nobody awaits any more, although the server still works on them.
    pub(super) fn unsettled(&self) -> BTreeSet<u64> {
        self.unsettled.clone()
    }

    /// Takes out of `before` what has come to its end. Says whether that was all, or else wakes the waker when more has.
    pub(super) fn has_settled(&mut self, before: &mut BTreeSet<u64>, waker: &Waker) -> bool {
        before.retain(|cookie| self.unsettled.contains(cookie));
        if !before.is_empty() && !self.settling.iter().any(|known| known.will_wake(waker)) {
            self.settling.push(waker.clone());
        }
        before.is_empty()
    }

    /// The answer, if it is there; it can be taken once.
    pub(super) fn take(&mut self, cookie: u64) -> Option<Result<Answer>> {
        let slot = self.slot(cookie, Phase::Done)?;
        slot.phase = Phase::Free;
        let answer = slot.pending.reply.take(&slot.pending.request);
        self.free.push(cookie as u32);
        Some(answer)
    }

    /// A part of a reply that has no end has come. Returns whom to wake.
    pub(super) fn news(&mut self, cookie: u64) -> Option<Waker> {
        self.slot(cookie, Phase::Waiting)?.waker.take()
    }

    /// What has come of a reply that has no end, once.
    pub(super) fn take_news(&mut self, cookie: u64) -> Option<u64> {
        self.slot(cookie, Phase::Waiting)?.pending.reply.take_size()
    }

    /// Whom to wake when the answer comes.
    pub(super) fn set_waker(&mut self, cookie: u64, waker: &Waker) {
        if let Some(slot) = self.slot(cookie, Phase::Waiting) {
            match &mut slot.waker {
                Some(old) => old.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
    }

    /// Nobody wants this answer any more. Returns whether the reply is still to come.
    pub(super) fn abandon(&mut self, cookie: u64) -> bool {
        if self.take(cookie).is_some() {
            return false;
        }
        let Some(slot) = self.slot(cookie, Phase::Waiting) else { return false };
        slot.abandoned = true;
        slot.waker = None;
        if matches!(slot.pending.request.command, Command::Write | Command::WriteZeroes | Command::Trim) {
            self.unsettled.insert(cookie);
        }
        true
    }

    /// The connection broke: everybody who waits gets this error. Only the first one counts.
    pub(super) fn fail(&mut self, error: Error, counts: &Counts) -> Vec<Waker> {
        let mut wakers = Vec::new();
        if self.dead.is_some() {
            return wakers;
        }
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if slot.phase != Phase::Waiting {
                continue;
            }
            counts.add(&slot.pending.request, -1);
            wakers.extend(slot.waker.take());
            slot.pending.reply = Assembly::failed(error.duplicate());
            slot.phase = Phase::Done;
            if slot.abandoned {
                slot.phase = Phase::Free;
                self.free.push(index as u32);
            }
        }
        self.dead = Some(error);
        self.unsettled.clear();
        wakers.append(&mut self.settling);
        wakers
    }

    /// Why the connection ended, if it did.
    pub(super) fn dead(&self) -> Option<&Error> {
        self.dead.as_ref()
    }
}
