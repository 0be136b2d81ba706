//! How many bytes of data are on their way at once.
//!
//! Between neighbours few are best: what is in flight then stays in the CPU's cache, and memory small. Where answers
//! take long, more in flight means faster. So the window begins small and is doubled while that helps.

use crate::copy::nbd::Link;
use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

/// While so many bytes wait to be sent, nothing more is read. Little enough to stay in the CPU's cache.
const UNSENT: usize = 768 << 10;

/// Ends that take longer than this to answer are far away, or slow.
const FAR: Duration = Duration::from_millis(5);
/// A larger window must be so much faster to be kept.
const GAIN: f64 = 1.2;
/// After a trial without gain, so many rounds pass before the next.
const REST: u32 = 32;

/// The bytes that are asked for, and no more; sizes in bytes.
struct Window {
    least: u64,
    most: u64,
    size: u64,
    used: u64,
    round: Round,
    /// The rate before the window was doubled for a trial.
    trial: Option<f64>,
    rest: u32,
}

/// What happened since the window was last looked at.
struct Round {
    since: Instant,
    bytes: u64,
    /// How long the quickest answer took. On a busy machine others wait for their turn, wherever they come from.
    quickest: Duration,
}

impl Round {
    fn new(since: Instant) -> Round {
        Round { since, bytes: 0, quickest: Duration::MAX }
    }
}

impl Window {
    /// Begins with `least`, ends with `most`.
    fn new(least: u64, most: u64, now: Instant) -> Window {
        let least = least.min(most);
        Window { least, most, size: least, used: 0, round: Round::new(now), trial: None, rest: 0 }
    }

    /// Whether no more data should be asked for. Something is always allowed.
    fn is_full(&self) -> bool {
        self.used > 0 && self.used >= self.size
    }

    /// So many bytes are asked for.
    fn begun(&mut self, bytes: u64) {
        self.used += bytes;
    }

    /// So many bytes came.
    fn finished(&mut self, bytes: u64, began: Instant, now: Instant) {
        self.used -= bytes;
        self.round.bytes += bytes;
        self.round.quickest = self.round.quickest.min(now.saturating_duration_since(began));
        if self.round.bytes >= 2 * self.size {
            let round = std::mem::replace(&mut self.round, Round::new(now));
            self.look_at(&round, now);
        }
    }

    fn look_at(&mut self, round: &Round, now: Instant) {
        let seconds = now.saturating_duration_since(round.since).as_secs_f64();
        let rate = round.bytes as f64 / seconds.max(1e-9);
        if let Some(before) = self.trial.take()
            && rate < before * GAIN
        {
            self.size = (self.size / 2).max(self.least);
            self.rest = REST;
        } else if round.quickest < FAR / 4 {
            self.size = (self.size / 2).max(self.least);
        } else if self.rest > 0 {
            self.rest -= 1;
        } else if round.quickest > FAR && self.size < self.most {
            self.trial = Some(rate);
            self.size = (self.size * 2).min(self.most);
        }
    }
}

/// The data that are on their way over one lane.
///
/// Reads in flight are bounded by a [`Window`]. Writes in flight may be many: what was sent takes no memory here. So
/// that what was read and not sent stays little, nothing more is read while the destination does not keep up.
pub(crate) struct Flow {
    reads: RefCell<Window>,
    writing: Cell<u64>,
    most: u64,
    /// The destination, where it has a queue.
    to: Option<Link>,
}

impl Flow {
    /// Reads in flight begin with `window` bytes; neither reads nor writes exceed `most`.
    pub(crate) fn new(window: u64, most: u64, to: Option<Link>) -> Flow {
        let reads = RefCell::new(Window::new(window, most, Instant::now()));
        Flow { reads, writing: Cell::new(0), most, to }
    }

    /// Whether no more data should be read now.
    pub(crate) fn is_full(&self) -> bool {
        let writing = self.writing.get();
        self.reads.borrow().is_full()
            || (writing > 0 && writing >= self.most)
            || self.to.as_ref().is_some_and(|to| to.unsent() >= UNSENT)
    }

    /// So many bytes are asked for.
    pub(crate) fn read_began(&self, bytes: u64) {
        self.reads.borrow_mut().begun(bytes);
    }

    /// So many bytes came.
    pub(crate) fn read_ended(&self, bytes: u64, began: Instant) {
        self.reads.borrow_mut().finished(bytes, began, Instant::now());
    }

    /// So many bytes are being written.
    pub(crate) fn write_began(&self, bytes: u64) {
        self.writing.set(self.writing.get() + bytes);
    }

    /// So many bytes have arrived where they belong.
    pub(crate) fn write_ended(&self, bytes: u64) {
        self.writing.set(self.writing.get() - bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: u64 = 256 << 10;
    const M: u64 = 1 << 20;

    /// Copies `bytes` where each piece takes `latency`, and all together no less than `per_piece` each.
    fn run(bytes: u64, latency: Duration, per_piece: Duration) -> Window {
        let mut now = Instant::now();
        let mut window = Window::new(M, 16 * M, now);
        let mut flight = std::collections::VecDeque::new();
        let mut free_at = now;
        for _ in 0..bytes / PIECE {
            while !window.is_full() {
                window.begun(PIECE);
                free_at = free_at.max(now) + per_piece;
                flight.push_back((now, (now + latency).max(free_at)));
            }
            let (began, at) = flight.pop_front().unwrap();
            now = now.max(at);
            window.finished(PIECE, began, now);
        }
        window
    }

    #[test]
    fn far_ends_get_all_they_can_use() {
        assert_eq!(run(1 << 30, Duration::from_millis(20), Duration::ZERO).size, 16 * M);
    }

    #[test]
    fn near_ends_get_little() {
        assert_eq!(run(1 << 30, Duration::from_micros(50), Duration::from_micros(100)).size, M);
    }

    #[test]
    fn slow_ends_do_not_get_more_than_helps() {
        assert!(run(1 << 28, Duration::from_millis(6), Duration::from_millis(6)).size <= 2 * M);
    }

    #[test]
    fn one_piece_is_always_allowed() {
        let now = Instant::now();
        let mut window = Window::new(0, 0, now);
        assert!(!window.is_full());
        window.begun(1);
        assert!(window.is_full());
        window.finished(1, now, now);
        assert!(!window.is_full());
    }
}
