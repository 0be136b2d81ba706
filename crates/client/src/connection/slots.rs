//! The requests in flight: a slab whose indices, with a generation, are the cookies on the wire.

use super::answer::{Answer, Assembly, Checked};
use disk::{Error, Result};
use proto::{Command, Request};
use std::{
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
}

impl Counts {
    /// How many replies are outstanding.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
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
}

struct Slot {
    /// Counts the uses, so that a cookie of an earlier request is not taken for this one.
    generation: u32,
    state: State,
}

enum State {
    Free,
    Waiting(Pending),
    Done(Result<Answer>),
}

/// A request that was not answered in full yet.
pub(super) struct Pending {
    /// As it was sent; a BLOCK_STATUS with a payload has its effect length here.
    pub(super) request: Request,
    /// What came of the reply so far.
    pub(super) reply: Assembly,
    waker: Option<Waker>,
    /// Nobody wants the answer any more, but the reply must still be read.
    abandoned: bool,
}

impl Slots {
    /// Register a request, and give it its cookie.
    pub(super) fn add(&mut self, mut request: Request, counts: &Counts) -> Result<Request> {
        if let Some(dead) = &self.dead {
            return Err(dead.duplicate());
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, state: State::Free });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        request.cookie = (u64::from(slot.generation) << 32) | u64::from(index);
        let reply = Assembly::default();
        slot.state = State::Waiting(Pending { request, reply, waker: None, abandoned: false });
        counts.add(&request, 1);
        Ok(request)
    }

    fn slot(&mut self, cookie: u64) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(cookie as u32 as usize)?;
        (u64::from(slot.generation) == cookie >> 32).then_some(slot)
    }

    /// The request with this cookie, if it still waits.
    pub(super) fn pending(&mut self, cookie: u64) -> Checked<&mut Pending> {
        match self.slot(cookie).map(|slot| &mut slot.state) {
            Some(State::Waiting(pending)) => Ok(pending),
            _ => Err(format!("the server answered a request that was not made (cookie {cookie:#x})")),
        }
    }

    /// The reply to this request is complete. Returns whom to wake.
    pub(super) fn finish(
        &mut self,
        cookie: u64,
        counts: &Counts,
        answer: impl FnOnce(&mut Pending) -> Checked<Result<Answer>>,
    ) -> Checked<Option<Waker>> {
        let pending = self.pending(cookie)?;
        let answer = answer(pending)?;
        let (request, waker, abandoned) = (pending.request, pending.waker.take(), pending.abandoned);
        counts.add(&request, -1);
        if abandoned {
            self.release(cookie);
        } else if let Some(slot) = self.slot(cookie) {
            slot.state = State::Done(answer);
        }
        Ok(waker)
    }

    fn release(&mut self, cookie: u64) {
        if let Some(slot) = self.slot(cookie) {
            slot.state = State::Free;
            self.free.push(cookie as u32);
        }
    }

    /// The answer, if it is there; it can be taken once.
    pub(super) fn take(&mut self, cookie: u64) -> Option<Result<Answer>> {
        let slot = self.slot(cookie)?;
        if !matches!(slot.state, State::Done(_)) {
            return None;
        }
        let State::Done(answer) = std::mem::replace(&mut slot.state, State::Free) else { return None };
        self.free.push(cookie as u32);
        Some(answer)
    }

    /// Whom to wake when the answer comes.
    pub(super) fn set_waker(&mut self, cookie: u64, waker: &Waker) {
        if let Ok(pending) = self.pending(cookie)
            && !pending.waker.as_ref().is_some_and(|w| w.will_wake(waker))
        {
            pending.waker = Some(waker.clone());
        }
    }

    /// Nobody wants this answer any more. Returns whether the reply is still to come.
    pub(super) fn abandon(&mut self, cookie: u64) -> bool {
        if self.take(cookie).is_some() {
            return false;
        }
        let Ok(pending) = self.pending(cookie) else { return false };
        pending.abandoned = true;
        pending.waker = None;
        true
    }

    /// The connection broke: everybody who waits gets this error. Only the first one counts.
    pub(super) fn fail(&mut self, error: Error, counts: &Counts) -> Vec<Waker> {
        let mut wakers = Vec::new();
        if self.dead.is_some() {
            return wakers;
        }
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            let State::Waiting(pending) = &mut slot.state else { continue };
            counts.add(&pending.request, -1);
            wakers.extend(pending.waker.take());
            if pending.abandoned {
                slot.state = State::Free;
                self.free.push(index as u32);
            } else {
                slot.state = State::Done(Err(error.duplicate()));
            }
        }
        self.dead = Some(error);
        wakers
    }

    /// Why the connection ended, if it did.
    pub(super) fn dead(&self) -> Option<&Error> {
        self.dead.as_ref()
    }
}
