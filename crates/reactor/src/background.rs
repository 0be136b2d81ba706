//! The one background thread: drives what is awaited under another executor than ours.

use crate::local::{Driver, add_driver, add_timer, block_on};
use std::{
    future::poll_fn,
    sync::{Arc, Mutex, Once, PoisonError},
    task::{Poll, Waker},
    time::Instant,
};

#[derive(Default)]
struct Orders {
    drivers: Vec<Arc<dyn Driver>>,
    timers: Vec<(Instant, Waker)>,
    loop_waker: Option<Waker>,
}

static ORDERS: Mutex<Orders> =
    Mutex::new(Orders { drivers: Vec::new(), timers: Vec::new(), loop_waker: None });
static START: Once = Once::new();

pub(crate) fn watch(driver: Arc<dyn Driver>) {
    order(|o| o.drivers.push(driver));
}

pub(crate) fn timer(at: Instant, waker: Waker) {
    order(|o| o.timers.push((at, waker)));
}

fn order(put: impl FnOnce(&mut Orders)) {
    START.call_once(|| {
        // Without threads nothing here can work; the caller's future then never completes, as under any
        // executor that cannot start.
        let _ = std::thread::Builder::new().name("reactor".into()).spawn(run);
    });
    let waker = {
        let mut orders = ORDERS.lock().unwrap_or_else(PoisonError::into_inner);
        put(&mut orders);
        orders.loop_waker.clone()
    };
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn run() {
    block_on(poll_fn(|cx| {
        let (drivers, timers) = {
            let mut orders = ORDERS.lock().unwrap_or_else(PoisonError::into_inner);
            orders.loop_waker = Some(cx.waker().clone());
            (std::mem::take(&mut orders.drivers), std::mem::take(&mut orders.timers))
        };
        drivers.iter().for_each(add_driver);
        for (at, waker) in timers {
            add_timer(at, &waker);
        }
        Poll::<()>::Pending
    }))
}
