//! What a copy did, in numbers.

use crate::size;
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Bytes, counted by all workers.
#[derive(Default)]
pub(crate) struct Tally {
    /// Read from the source.
    pub(crate) read: AtomicU64,
    /// Written to the destination as data.
    pub(crate) written: AtomicU64,
    /// Made zeroes at the destination.
    pub(crate) zeroed: AtomicU64,
    /// Zeroes that needed nothing done.
    pub(crate) skipped: AtomicU64,
}

impl Tally {
    /// One line for people.
    pub(crate) fn summary(&self, copied: u64, took: Duration) -> String {
        let [read, written, zeroed, skipped] =
            [&self.read, &self.written, &self.zeroed, &self.skipped].map(|n| size::short(n.load(Relaxed)));
        let seconds = took.as_secs_f64();
        let rate = size::short((copied as f64 / seconds.max(1e-6)) as u64);
        format!(
            "copied {} in {seconds:.2} s, {rate}/s: {read} read, {written} written, {zeroed} zeroed, \
             {skipped} of zeroes skipped",
            size::short(copied)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_what_was_done() {
        let tally = Tally::default();
        tally.read.store(3 << 20, Relaxed);
        tally.written.store(2_621_440, Relaxed);
        tally.zeroed.store(512 << 10, Relaxed);
        assert_eq!(
            tally.summary(10 << 20, Duration::from_millis(2500)),
            "copied 10M in 2.50 s, 4M/s: 3M read, 2.5M written, 512K zeroed, 0 of zeroes skipped"
        );
    }
}
