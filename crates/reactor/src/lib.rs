//! A small event loop per thread.
//!
//! [`block_on`] runs a future on the current thread. While the future waits, the thread drives what it waits
//! for: timers ([`sleep`]) and [`Driver`]s (a connection with replies outstanding). No thread is handed
//! anything unless work really blocks ([`unblock`]), so a request that waits for a socket costs no wake-up of
//! another thread: *whoever waits, drives*.
//!
//! Futures made here also work under any other executor: timers and drivers then run on one background thread.
#![forbid(unsafe_code)]

mod background;
mod in_flight;
mod local;
mod pool;
mod readiness;
mod spin;
mod timer;

pub use in_flight::InFlight;
pub use local::{Driver, Interest, block_on, forget, watch};
pub use pool::{Panicked, Unblock, holding, unblock};
pub use readiness::Readiness;
pub use spin::Spin;
pub use timer::{Elapsed, Sleep, sleep, sleep_until, timeout};

/// Gives other tasks of this thread one turn.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await
}
