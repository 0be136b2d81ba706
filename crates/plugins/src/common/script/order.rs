//! Which requests of a script wait for which, also when whoever asked has stopped waiting.

use disk::{ThreadModel, Writes};
use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// Calls that must not run at the same time: they stand in line. At most one thread of the pool works for a line, so
/// that those who wait never keep the one from running for whom they wait.
#[derive(Default)]
pub(crate) struct Line(Mutex<Standing>);

#[derive(Default)]
struct Standing {
    /// Somebody is at the head, and will call the next one.
    is_busy: bool,
    waiting: VecDeque<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Line {
    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the head of the line, where nobody stands; then [`Line::leave`] or [`Line::go_on`] must follow.
    pub(super) fn enter(&self) -> bool {
        !std::mem::replace(&mut self.lock().is_busy, true)
    }

    /// Lets the others go on, on a thread of the pool.
    pub(super) fn leave(self: &Arc<Self>) {
        let mut standing = self.lock();
        standing.is_busy = !standing.waiting.is_empty();
        if standing.is_busy {
            let line = self.clone();
            drop(reactor::unblock(move || line.go_on()));
        }
    }

    /// Works for all who wait, until there is nobody.
    pub(super) fn go_on(&self) {
        loop {
            let next = {
                let mut standing = self.lock();
                let next = standing.waiting.pop_front();
                standing.is_busy = next.is_some();
                next
            };
            let Some(job) = next else { return };
            // Whoever waits for it hears of a panic; the others are not concerned.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    }

    /// Has this done in its turn.
    pub(super) fn stand(self: &Arc<Self>, job: impl FnOnce() + Send + 'static) {
        let mut standing = self.lock();
        standing.waiting.push_back(Box::new(job));
        if !std::mem::replace(&mut standing.is_busy, true) {
            let line = self.clone();
            drop(reactor::unblock(move || line.go_on()));
        }
    }
}

/// Something that one thread will have for another.
pub(super) fn promise<T>() -> (Giver<T>, Promise<T>) {
    let shared = Arc::new(Mutex::new(Shared { value: None, is_over: false, waker: None }));
    (Giver(shared.clone()), Promise(shared))
}

struct Shared<T> {
    value: Option<T>,
    is_over: bool,
    waker: Option<Waker>,
}

pub(super) struct Giver<T>(Arc<Mutex<Shared<T>>>);

pub(crate) struct Promise<T>(Arc<Mutex<Shared<T>>>);

impl<T> Giver<T> {
    pub(super) fn give(self, value: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).value = Some(value);
    }
}

impl<T> Drop for Giver<T> {
    fn drop(&mut self) {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shared.is_over = true;
        if let Some(waker) = shared.waker.take() {
            drop(shared);
            waker.wake();
        }
    }
}

impl<T> Future for Promise<T> {
    /// `None`: whoever should have given it has panicked.
    type Output = Option<T>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.is_over {
            return Poll::Ready(shared.value.take());
        }
        shared.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// How the calls of disks wait for each other.
#[derive(Clone)]
pub(crate) enum Order {
    /// Not at all, but for flushes and closes: they wait for the writes of all clients that began before.
    Free(Arc<Writes>),
    Line(Arc<Line>),
}

impl Order {
    /// For all disks of a script whose calls may be under way at once as `model` says, or never.
    pub(super) fn of_script(model: ThreadModel, one_at_a_time: bool) -> Order {
        match model {
            ThreadModel::Parallel | ThreadModel::SerializeRequests if !one_at_a_time => {
                Order::Free(Arc::default())
            }
            _ => Order::in_line(),
        }
    }

    /// One after another.
    pub(crate) fn in_line() -> Order {
        Order::Line(Arc::default())
    }

    /// For one more disk.
    pub(super) fn of_disk(&self, model: ThreadModel) -> Order {
        match (self, model) {
            (Order::Free(_), ThreadModel::SerializeRequests) => Order::Line(Arc::default()),
            _ => self.clone(),
        }
    }

    /// Does `work` where it may wait, in its turn, whether somebody waits for it or not.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Promise<T> {
        let (giver, promise) = promise();
        let job = move || giver.give(work());
        match self {
            Order::Free(_) => drop(reactor::unblock(job)),
            Order::Line(line) => line.stand(job),
        }
        promise
    }

    /// Does `work` on this thread, in its turn.
    pub(super) fn run_here<T: Send>(&self, work: impl FnOnce() -> T) -> T {
        let Order::Line(line) = self else { return work() };
        if !line.enter() {
            let (giver, promise) = promise();
            // Until this is dropped the line stands still: its head waits for us.
            let (done, wait) = std::sync::mpsc::channel::<()>();
            line.stand(move || {
                giver.give(());
                let _ = wait.recv();
            });
            reactor::block_on(promise);
            let result = work();
            drop(done);
            return result;
        }
        let result = work();
        line.leave();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    #[test]
    fn hundreds_in_line_run_one_after_another_and_in_order() {
        let order = Order::of_script(ThreadModel::SerializeAllRequests, false);
        let (now, next) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let jobs: Vec<_> = (0..500)
            .map(|nth| {
                let (now, next) = (now.clone(), next.clone());
                order.run(move || {
                    let alone = now.fetch_add(1, SeqCst) == 0;
                    let in_order = next.fetch_add(1, SeqCst) == nth;
                    now.fetch_sub(1, SeqCst);
                    alone && in_order
                })
            })
            .collect();
        for job in jobs {
            assert_eq!(reactor::block_on(job), Some(true));
        }
        order.run_here(|| assert_eq!(next.load(SeqCst), 500));
    }

    #[test]
    fn a_panic_is_told_to_whoever_waits_for_it() {
        let order = Order::of_script(ThreadModel::Parallel, true);
        let job = order.run(|| panic!("on purpose"));
        assert_eq!(reactor::block_on(job), None::<()>);
        assert_eq!(reactor::block_on(order.run(|| 7)), Some(7));
    }
}
