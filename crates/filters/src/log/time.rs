//! The time of a line. Threads note ticks, and whoever makes lines looks at the clocks twice: what was noted between has its
//! time in proportion.

use disk::ticks::Moment;

/// How ticks become the time of a line.
pub(super) struct Time {
    /// Everything noted before is a line.
    before: Moment,
    /// The last look at the clocks.
    now: Moment,
    /// In 2^32nds of a nanosecond.
    tick: u64,
    /// Of the last line.
    last: u64,
}

impl Time {
    pub(super) fn new() -> Time {
        let now = Moment::now();
        Time { before: now, now, tick: 0, last: 0 }
    }

    /// Looks at the clocks, and returns the ticks: all that this thread did before was before.
    pub(super) fn look(&mut self) -> u64 {
        self.now = Moment::now();
        self.tick = (self.before.nanos_per_tick(self.now) * 4_294_967_296.0) as u64;
        self.now.ticks
    }

    /// What was noted before the last look has become lines: from then on ticks are counted for what comes next.
    pub(super) fn all_is_told(&mut self) {
        self.before = self.now;
    }

    /// The time of the last look.
    pub(super) fn now(&mut self) -> u64 {
        self.of(self.now.ticks)
    }

    /// In nanoseconds since 1970. Lines never run backwards, unless somebody sets the clock.
    #[inline]
    pub(super) fn of(&mut self, ticks: u64) -> u64 {
        /// Two looks at the clocks are never so far apart from each other.
        const MUCH: u64 = 100_000_000;
        let ago = (u128::from(self.now.ticks.saturating_sub(ticks)) * u128::from(self.tick)) >> 32;
        let time = self.now.since_1970.saturating_sub(ago as u64);
        if time >= self.last || self.last - time > MUCH {
            self.last = time;
        }
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk::ticks;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    fn since_1970() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
    }

    #[test]
    fn ticks_between_two_looks_have_the_time_of_the_clock() {
        let mut time = Time::new();
        std::thread::sleep(Duration::from_millis(200));
        // The thread may be interrupted between the two; then the clock goes on.
        let (before, noted, after) = (since_1970(), ticks::now(), since_1970());
        std::thread::sleep(Duration::from_millis(200));
        time.look();
        let told = time.of(noted);
        let near = 100_000_000;
        assert!(told + near >= before && told <= after + near, "{before} <= {told} <= {after}");
        assert!(time.now() >= told && time.now() <= since_1970() + near);
    }

    #[test]
    fn lines_do_not_run_backwards_by_the_error_of_a_look() {
        let mut time = Time::new();
        let look = time.look();
        let told = time.of(look);
        time.now.since_1970 -= 1000;
        assert_eq!(time.of(look), told);
        time.now.since_1970 -= 3_600_000_000_000;
        assert!(time.of(look) < told, "somebody set the clock");
    }
}
