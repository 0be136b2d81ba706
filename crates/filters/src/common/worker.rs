//! A thread beside a connection that brings bytes nearer: for `readahead` and `scan`.

use disk::{Disk, Io, Range, Result};
use reactor::InFlight;
use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

/// The thread, as long as its connection lasts.
pub(crate) struct Worker {
    orders: Arc<Orders>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread is told.
#[derive(Default)]
pub(crate) struct Orders {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    over: bool,
    wanted: Option<Range>,
}

impl Orders {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next range that is wanted, once there is one; `None`: the connection is over.
    pub(crate) fn next(&self) -> Option<Range> {
        let mut state = self.state();
        loop {
            if state.over {
                return None;
            }
            if let Some(range) = state.wanted.take() {
                return Some(range);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits so long, or until the connection is over, and says whether it is.
    pub(crate) fn is_over_within(&self, time: Duration) -> bool {
        let state = self.state();
        if state.over || time.is_zero() {
            return state.over;
        }
        self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0.over
    }
}

impl Worker {
    /// Starts `work` on a thread. Where there can be none, nothing is brought nearer, and all else works.
    pub(crate) fn start(name: &str, work: impl FnOnce(&Orders) + Send + 'static) -> Worker {
        let orders = Arc::<Orders>::default();
        let own = orders.clone();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || work(&own));
        if let Err(e) = &thread {
            tracing::warn!(target: "diskpipe", "{name}: no thread for it: {e}");
        }
        Worker { orders, thread: Mutex::new(thread.ok()) }
    }

    /// Wants a range next, and with it what was wanted and not begun yet, if that lies right before.
    pub(crate) fn want(&self, range: Range) {
        let mut state = self.orders.state();
        state.wanted = Some(match state.wanted {
            Some(before) if before.end() == range.start => Range::new(before.start, before.len + range.len),
            _ => range,
        });
        drop(state);
        self.orders.changed.notify_one();
    }

    fn stop(&self) {
        self.orders.state().over = true;
        self.orders.changed.notify_all();
    }

    /// Ends the thread, when it has done what it is doing.
    pub(crate) fn end(&self) -> Io<'_, ()> {
        self.stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        match thread {
            None => Io::ok(()),
            Some(thread) => Io::later(async move {
                // A panic of that thread has been told already.
                let _ = reactor::unblock(move || thread.join()).await?;
                Ok(())
            }),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// So many requests are under way at once.
const AT_ONCE: usize = 4;

/// Brings a range of `disk` nearer, in pieces, until that is done or no longer wanted.
pub(crate) fn bring(disk: &dyn Disk, range: Range, piece: u64, orders: &Orders) {
    reactor::block_on(async {
        let mut under_way = InFlight::new();
        let told = |outcome: Result<()>| {
            if let Err(e) = outcome {
                tracing::debug!(target: "diskpipe", "what was not asked for could not be brought nearer: {e}");
            }
        };
        for part in range.split_at_multiples(piece) {
            if orders.is_over_within(Duration::ZERO) {
                break;
            }
            under_way.push(disk.cache(part));
            if under_way.len() >= AT_ONCE
                && let Some(outcome) = under_way.next().await
            {
                told(outcome);
            }
        }
        while let Some(outcome) = under_way.next().await {
            told(outcome);
        }
    });
}

/// Why nothing can be brought nearer, if so.
pub(crate) fn cannot(name: &str, disk: &dyn Disk, model: disk::ThreadModel) -> bool {
    let why = if model < disk::ThreadModel::Parallel {
        "what is below takes one request at a time"
    } else if !disk.facts().cache {
        "what is below cannot cache; put the filter cache behind this one"
    } else {
        return false;
    };
    tracing::warn!(target: "diskpipe", "{name} does nothing: {why}");
    true
}
