//! Adaptive polling: to sleep and be woken across cores takes longer than many servers need to answer.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// How long to look for an answer before sleeping.
pub(super) const LIMIT: Duration = Duration::from_micros(50);
/// After a quick answer, so many slow ones are needed to stop looking.
const PATIENCE: u32 = 8;

/// Whether to look for the next answer before sleeping: only where the last ones came quickly, and only with
/// a second CPU for the server to run on.
pub(super) struct Spin {
    quick: AtomicU32,
    allowed: bool,
}

impl Spin {
    pub(super) fn new() -> Spin {
        static SEVERAL: OnceLock<bool> = OnceLock::new();
        let several =
            *SEVERAL.get_or_init(|| std::thread::available_parallelism().is_ok_and(|n| n.get() > 1));
        Spin { quick: AtomicU32::new(0), allowed: several }
    }

    /// The time now, if waits are to be measured at all.
    pub(super) fn now(&self) -> Option<Instant> {
        self.allowed.then(Instant::now)
    }

    /// Is looking worth while?
    pub(super) fn worth_while(&self) -> bool {
        self.allowed && self.quick.load(Relaxed) > 0
    }

    /// An answer came after this wait.
    pub(super) fn note(&self, since: Option<Instant>) {
        let Some(since) = since else { return };
        if since.elapsed() < LIMIT {
            self.quick.store(PATIENCE, Relaxed);
        } else {
            // Lost updates of several threads do no harm.
            self.quick.store(self.quick.load(Relaxed).saturating_sub(1), Relaxed);
        }
    }
}
