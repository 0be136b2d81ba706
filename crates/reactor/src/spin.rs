//! Adaptive polling: to sleep and be woken across CPUs takes longer than many peers need to answer.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// How long to look for an event before sleeping: about what a wake-up across CPUs costs.
const LIMIT: Duration = Duration::from_micros(60);
/// An event that came so soon would have come within the limit, had neither side slept: two wake-ups.
const QUICK: Duration = Duration::from_micros(150);
/// After a quick event, so many slow ones are needed to stop looking.
const PATIENCE: u32 = 8;

/// Whether to look for the next event for a while before sleeping: only where the last ones came quickly, and
/// only with a second CPU for the peer to run on. So an idle or slow connection costs no CPU time.
#[derive(Debug)]
pub struct Spin {
    quick: AtomicU32,
    allowed: bool,
}

impl Spin {
    /// Not looking yet.
    pub fn new() -> Spin {
        static SEVERAL: OnceLock<bool> = OnceLock::new();
        let several =
            *SEVERAL.get_or_init(|| std::thread::available_parallelism().is_ok_and(|n| n.get() > 1));
        Spin { quick: AtomicU32::new(0), allowed: several }
    }

    /// Whether it ever looks: on one CPU the peer could not run meanwhile.
    pub fn is_allowed(&self) -> bool {
        self.allowed
    }

    /// Calls `look` again and again, giving way to other threads in between, until it finds something or it was
    /// long enough, if that is worth while at all. Else, or when it found nothing, calls `sleep`.
    #[inline]
    pub fn wait<T>(&self, mut look: impl FnMut() -> Option<T>, sleep: impl FnOnce() -> T) -> T {
        let mut sleep = Some(sleep);
        let mut attempt = |may_sleep: bool| match may_sleep {
            true => sleep.take().map(|sleep| sleep()),
            false => look(),
        };
        loop {
            // The one attempt that may sleep finds something.
            if let Some(found) = self.attempt(&mut attempt) {
                return found;
            }
        }
    }

    /// As [`Spin::wait`], with one closure for both: it is told whether it may sleep.
    #[inline]
    pub fn attempt<T>(&self, mut attempt: impl FnMut(bool) -> Option<T>) -> Option<T> {
        if !self.allowed {
            return attempt(true);
        }
        let start = Instant::now();
        if self.quick.load(Relaxed) > 0 {
            while start.elapsed() < LIMIT {
                if let Some(found) = attempt(false) {
                    self.quick.store(PATIENCE, Relaxed);
                    return Some(found);
                }
                std::thread::yield_now();
            }
        }
        let found = attempt(true);
        let quick = match start.elapsed() < QUICK {
            true => PATIENCE,
            // Lost updates of several threads do no harm.
            false => self.quick.load(Relaxed).saturating_sub(1),
        };
        self.quick.store(quick, Relaxed);
        found
    }
}

impl Default for Spin {
    fn default() -> Self {
        Spin::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_events_are_slept_for_and_quick_ones_looked_for() {
        let spin = Spin { quick: AtomicU32::new(0), allowed: true };
        let looks = AtomicU32::new(0);
        let wait = |pause| {
            let look = || {
                looks.fetch_add(1, Relaxed);
                None
            };
            spin.wait(look, || std::thread::sleep(pause));
            looks.swap(0, Relaxed)
        };
        let slow = Duration::from_millis(1);
        assert_eq!(wait(slow), 0);
        spin.wait(|| None, || ());
        assert!((0..PATIENCE).all(|_| wait(slow) > 0));
        assert_eq!(wait(slow), 0);
    }

    #[test]
    fn with_one_cpu_nobody_looks() {
        let spin = Spin { quick: AtomicU32::new(PATIENCE), allowed: false };
        assert_eq!(spin.wait(|| Some(1), || 2), 2);
    }
}
