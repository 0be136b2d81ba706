//! Time for those who look at a clock twice in every request: the count of the processor, where the kernel trusts it too.
//! The kernel's own clock takes twice as long, and first waits until all that was begun before has ended, which behind
//! the payload of a write is longer than all else. Ticks become time by two [`Moment`]s.

use rustix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// What [`now`] counts; it stays what it was first.
static SOURCE: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const PROCESSOR: u8 = 1;
const CLOCK: u8 = 2;

/// A number that grows evenly, for all threads alike. Between two that follow each other closely it may step back by a
/// few ticks.
#[inline]
pub fn now() -> u64 {
    #[cfg(target_arch = "x86_64")]
    if SOURCE.load(Relaxed) == PROCESSOR {
        // SAFETY: every such processor has the instruction, and it touches no memory. Where the process was denied it
        // (`PR_SET_TSC`), the kernel's clock could not be read either.
        return unsafe { core::arch::x86_64::_rdtsc() };
    }
    by_clock()
}

#[cold]
fn by_clock() -> u64 {
    if SOURCE.load(Relaxed) != UNKNOWN {
        return nanos(ClockId::Monotonic);
    }
    // The kernel keeps to the processor's count only while that runs evenly and is the same on all cores.
    let clock = std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let trusted = cfg!(target_arch = "x86_64") && clock.is_ok_and(|name| name.trim() == "tsc");
    SOURCE.store(if trusted { PROCESSOR } else { CLOCK }, Relaxed);
    now()
}

fn nanos(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// One moment, by all clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// As [`now`] counts. All that this thread did before was before, too.
    pub ticks: u64,
    /// Nanoseconds since the machine started.
    pub nanos: u64,
    /// Nanoseconds since 1970.
    pub since_1970: u64,
}

impl Moment {
    /// This one.
    pub fn now() -> Moment {
        /// As many ticks lie between two looks in a row at most, unless the thread was interrupted.
        const CLOSE: u64 = 5000;
        let mut best: Option<(u64, Moment)> = None;
        for _ in 0..4 {
            let before = now();
            let (nanos, since_1970) = (nanos(ClockId::Monotonic), nanos(ClockId::Realtime));
            let ticks = now();
            let apart = ticks.saturating_sub(before);
            if best.is_none_or(|(least, _)| apart < least) {
                best = Some((apart, Moment { ticks, nanos, since_1970 }));
            }
            if apart <= CLOSE {
                break;
            }
        }
        best.expect("there were looks").1
    }

    /// How many nanoseconds a tick took from this moment to a later one.
    pub fn nanos_per_tick(self, later: Moment) -> f64 {
        let ticks = later.ticks.saturating_sub(self.ticks);
        if ticks == 0 { 1.0 } else { later.nanos.saturating_sub(self.nanos) as f64 / ticks as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ticks_grow_as_the_clock_does() {
        let pause = || std::thread::sleep(Duration::from_millis(200));
        let from = Moment::now();
        pause();
        let middle = Moment::now();
        pause();
        let to = Moment::now();
        assert!(from.ticks < middle.ticks && middle.ticks < to.ticks);
        let since = (middle.ticks - from.ticks) as f64 * from.nanos_per_tick(to);
        let told = (middle.nanos - from.nanos) as f64;
        assert!((since - told).abs() < told / 4.0, "{since} of {told}");
    }

    #[test]
    fn without_ticks_between_there_is_a_rate() {
        let now = Moment::now();
        assert!(now.nanos_per_tick(now).is_finite());
    }
}
