//! How long requests take. Reading the exact clock twice costs as much as a tenth of a small request, so that is done
//! for the first ones, and for those that must wait anyway. For the others the coarse clock is read, which goes by
//! the ticks of the kernel, some milliseconds each, and costs next to nothing. A request of a microsecond then takes a
//! whole tick once in some thousand times, and no time else: the sum is right.

use rustix::time::{ClockId, clock_gettime};

/// The time since a request came. Two plain numbers, which stay in registers: what is put down in pieces and taken up as a
/// whole behind a write waits until the bytes written have left the processor's store buffer, a fifth of a small write.
#[derive(Clone, Copy)]
pub(super) struct Watch {
    /// By this clock, in nanoseconds since the machine started.
    start: u64,
    exact: bool,
}

impl Watch {
    #[inline]
    pub(super) fn start(exact: bool) -> Watch {
        Watch { start: now(exact), exact }
    }

    /// In nanoseconds.
    #[inline]
    pub(super) fn elapsed(self) -> u64 {
        now(self.exact).saturating_sub(self.start)
    }

    /// From now on exactly.
    pub(super) fn exactly(self) -> Watch {
        let before = self.elapsed();
        Watch { start: now(true).saturating_sub(before), exact: true }
    }
}

#[inline]
fn now(exact: bool) -> u64 {
    let clock = if exact { ClockId::Monotonic } else { ClockId::MonotonicCoarse };
    let now = clock_gettime(clock);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn many_short_times_add_up_to_a_long_one() {
        let begun = Instant::now();
        let mut sum = Duration::ZERO;
        // Nothing but what is measured.
        while begun.elapsed() < Duration::from_millis(300) {
            let watch = Watch::start(false);
            std::hint::black_box((0..1000).fold(0u64, |a, b| a ^ std::hint::black_box(b)));
            sum += Duration::from_nanos(watch.elapsed());
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
        assert!(exact.exact && exact.elapsed() >= 15_000_000);
    }
}
