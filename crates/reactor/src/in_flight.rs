//! The pending futures of one loop.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

/// A set of futures that are awaited together; only those that were woken are polled.
///
/// Slots and their wakers are used again, so that a steady load allocates nothing here.
pub struct InFlight<F> {
    slots: Vec<Slot<F>>,
    free: Vec<usize>,
    woken: Arc<Woken>,
    /// Taken from `woken`, still to be polled.
    turn: Vec<usize>,
    len: usize,
}

struct Slot<F> {
    future: Option<F>,
    flag: Arc<SlotWaker>,
    waker: Waker,
}

#[derive(Default)]
struct Woken {
    state: Mutex<WokenState>,
}

#[derive(Default)]
struct WokenState {
    slots: Vec<usize>,
    parent: Option<Waker>,
}

struct SlotWaker {
    index: usize,
    queued: AtomicBool,
    woken: Arc<Woken>,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, SeqCst) {
            return;
        }
        let mut state = self.woken.lock();
        state.slots.push(self.index);
        // With others in the list, the parent was woken and has not looked yet.
        if state.slots.len() == 1
            && let Some(parent) = &state.parent
        {
            parent.wake_by_ref();
        }
    }
}

impl Woken {
    fn lock(&self) -> std::sync::MutexGuard<'_, WokenState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> Default for InFlight<F> {
    fn default() -> Self {
        InFlight { slots: Vec::new(), free: Vec::new(), woken: Arc::default(), turn: Vec::new(), len: 0 }
    }
}

impl<F: Future + Unpin> InFlight<F> {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many futures are pending.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is pending.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The futures that are pending, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &F> {
        self.slots.iter().filter_map(|slot| slot.future.as_ref())
    }

    /// Adds a future; it is polled for the first time by the next [`InFlight::poll_next`].
    pub fn push(&mut self, future: F) {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = self.slots.len();
            let flag =
                Arc::new(SlotWaker { index, queued: AtomicBool::new(false), woken: self.woken.clone() });
            self.slots.push(Slot { future: None, waker: Waker::from(flag.clone()), flag });
            index
        });
        let slot = &mut self.slots[index];
        slot.future = Some(future);
        self.len += 1;
        // A late wake-up for the slot's last future may have queued it already.
        if !slot.flag.queued.swap(true, SeqCst) {
            self.turn.push(index);
        }
    }

    /// The outcome of a future that has finished, `None` when no future is pending.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        if self.len == 0 {
            return Poll::Ready(None);
        }
        loop {
            while let Some(index) = self.turn.pop() {
                let slot = &mut self.slots[index];
                slot.flag.queued.store(false, SeqCst);
                let Some(future) = &mut slot.future else { continue };
                if let Poll::Ready(out) = Pin::new(future).poll(&mut Context::from_waker(&slot.waker)) {
                    slot.future = None;
                    self.free.push(index);
                    self.len -= 1;
                    return Poll::Ready(Some(out));
                }
            }
            let mut state = self.woken.lock();
            if !state.parent.as_ref().is_some_and(|p| p.will_wake(cx.waker())) {
                state.parent = Some(cx.waker().clone());
            }
            if state.slots.is_empty() {
                return Poll::Pending;
            }
            std::mem::swap(&mut state.slots, &mut self.turn);
            // Popped from the end: oldest first.
            self.turn.reverse();
        }
    }

    /// The outcome of the next future that finishes, `None` when no future is pending.
    pub async fn next(&mut self) -> Option<F::Output> {
        poll_fn(|cx| self.poll_next(cx)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{block_on, unblock, yield_now};
    use std::time::Duration;

    #[test]
    fn an_empty_set_has_no_next() {
        let mut set: InFlight<std::future::Ready<()>> = InFlight::new();
        assert_eq!(block_on(set.next()), None);
    }

    #[test]
    fn every_future_finishes_once_though_slots_are_used_again() {
        let mut set = InFlight::new();
        let mut seen = vec![];
        block_on(async {
            for n in 0..1000u32 {
                set.push(Box::pin(async move {
                    for _ in 0..n % 3 {
                        yield_now().await;
                    }
                    n
                }));
                if set.len() == 16 {
                    seen.extend(set.next().await);
                }
            }
            while let Some(n) = set.next().await {
                seen.push(n);
            }
        });
        seen.sort_unstable();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
        assert!(set.slots.len() <= 17);
    }

    #[test]
    fn wake_ups_from_other_threads_arrive() {
        let mut set = InFlight::new();
        for n in 0..20u64 {
            set.push(Box::pin(async move {
                unblock(move || std::thread::sleep(Duration::from_micros(n * 100))).await.unwrap();
                n
            }));
        }
        let mut seen = block_on(async {
            let mut seen = vec![];
            while let Some(n) = set.next().await {
                seen.push(n);
            }
            seen
        });
        seen.sort_unstable();
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
    }
}
