//! How long requests take. Reading the exact clock twice costs as much as a tenth of a small request, so that is done
//! for the first ones, and for those that must wait anyway. For the others the coarse clock is read, which goes by
//! the ticks of the kernel, some milliseconds each, and costs next to nothing. A request of a microsecond then takes a
//! whole tick once in some thousand times, and no time else: the sum is right.

use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// The time since a request came.
#[derive(Clone, Copy)]
pub(super) enum Watch {
    Exact(Instant),
    Coarse(Duration),
}

impl Watch {
    #[inline]
    pub(super) fn start(exact: bool) -> Watch {
        if exact { Watch::Exact(Instant::now()) } else { Watch::Coarse(coarse()) }
    }

    #[inline]
    pub(super) fn elapsed(self) -> Duration {
        match self {
            Watch::Exact(start) => start.elapsed(),
            Watch::Coarse(start) => coarse().saturating_sub(start),
        }
    }

    /// From now on exactly.
    pub(super) fn exactly(self) -> Watch {
        let now = Instant::now();
        Watch::Exact(now.checked_sub(self.elapsed()).unwrap_or(now))
    }
}

/// Since the machine started.
#[inline]
fn coarse() -> Duration {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_short_times_add_up_to_a_long_one() {
        let begun = Instant::now();
        let mut sum = Duration::ZERO;
        // Nothing but what is measured.
        while begun.elapsed() < Duration::from_millis(300) {
            let watch = Watch::start(false);
            std::hint::black_box((0..1000).fold(0u64, |a, b| a ^ std::hint::black_box(b)));
            sum += watch.elapsed();
        }
        let all = begun.elapsed();
        assert!(sum <= all + Duration::from_millis(20), "{sum:?} of {all:?}");
        assert!(sum >= all / 4, "{sum:?} of {all:?}");
    }

    #[test]
    fn what_became_exact_keeps_the_time_before() {
        let coarse = Watch::start(false);
        std::thread::sleep(Duration::from_millis(30));
        let exact = coarse.exactly();
        assert!(matches!(exact, Watch::Exact(_)) && exact.elapsed() >= Duration::from_millis(15));
    }
}
