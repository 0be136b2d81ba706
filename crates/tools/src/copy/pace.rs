//! No more bytes per second than somebody allows.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What may be begun at once after a pause, in seconds of the rate.
const BURST: f64 = 0.1;
/// Nobody sleeps longer at a stretch, so that an interruption is heard.
pub(super) const NAP: Duration = Duration::from_millis(100);

/// Hands out bytes at a rate, to all workers together.
pub(crate) struct Pace {
    /// Bytes per second.
    rate: f64,
    /// When all that was handed out will have passed at this rate.
    due: Mutex<Instant>,
}

impl Pace {
    /// So many bytes per second, at least one.
    pub(crate) fn new(rate: u64) -> Pace {
        Pace { rate: rate.max(1) as f64, due: Mutex::new(Instant::now()) }
    }

    /// How long to wait before more may be begun. `None`: not at all.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        let due = *self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let early = due.saturating_duration_since(now).saturating_sub(Duration::from_secs_f64(BURST));
        (!early.is_zero()).then(|| early.min(NAP))
    }

    /// So many bytes are begun.
    pub(crate) fn begun(&self, bytes: u64, now: Instant) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        // What was not used is lost.
        let from = (*due).max(now);
        // Whoever asks for a byte per second waits for years in vain, but not for ever.
        let long = Duration::from_secs_f64((bytes as f64 / self.rate).min(1e9));
        *due = from.checked_add(long).unwrap_or(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_bytes_take_so_long() {
        let start = Instant::now();
        let pace = Pace::new(1000);
        let mut now = start;
        for _ in 0..50 {
            while let Some(wait) = pace.wait(now) {
                now += wait;
            }
            pace.begun(100, now);
        }
        let took = (now - start).as_secs_f64();
        assert!((4.5..5.1).contains(&took), "{took}");
        // After a pause there is no rush.
        now += Duration::from_secs(60);
        assert_eq!(pace.wait(now), None);
        pace.begun(1000, now);
        assert!(pace.wait(now).is_some());
    }
}
