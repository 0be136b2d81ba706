//! `readahead`: whoever reads on is expected to read on.

use crate::common::worker::{Worker, bring, cannot};
use disk::{Backend, Client, Data, Disk, Facts, Filter, Io, Range, Result};
use params::Params;
use std::sync::{Arc, Mutex, PoisonError};

/// Bring bytes nearer before they are read.
#[derive(Params)]
pub(crate) struct ReadAhead;

impl Filter for ReadAhead {
    const NAME: &'static str = "readahead";
    const MANUAL: &'static str = include_str!("readahead.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let model = next.thread_model();
        Ok(crate::common::wrap::each(next, move |disk, _: &Client<'_>| {
            if cannot("readahead", &*disk, model) {
                return Ok(disk);
            }
            let below = disk.clone();
            let worker = Worker::start("readahead", move |orders| {
                while let Some(range) = orders.next() {
                    bring(&*below, range, PIECE, orders);
                }
            });
            Ok(Arc::new(Ahead { guess: Mutex::default(), worker, next: disk }) as Arc<dyn Disk>)
        }))
    }
}

/// Bytes are asked for in pieces of this length.
const PIECE: u64 = 1 << 20;
/// So far ahead at first, and at most.
const FIRST: u64 = 128 << 10;
const FARTHEST: u64 = 32 << 20;

struct Ahead {
    guess: Mutex<Guess>,
    worker: Worker,
    next: Arc<dyn Disk>,
}

/// What a client will read next.
#[derive(Debug, Default)]
struct Guess {
    /// Where it stopped.
    stopped: u64,
    /// How far ahead it pays to look; 0: it jumps about.
    window: u64,
    /// Up to here it is asked for.
    asked: u64,
}

impl Guess {
    /// What should be brought nearer when `r` is read on a disk of `size` bytes.
    fn after(&mut self, r: Range, size: u64) -> Option<Range> {
        // Several requests may be under way at once, and come in any order.
        let goes_on = r.start <= self.stopped && self.stopped - r.start <= self.window.max(r.len);
        let first = self.stopped == 0 && r.start == 0;
        let a_gap = r.start > self.stopped && r.start - self.stopped <= self.window;
        if !(goes_on || a_gap) {
            *self = Guess { stopped: r.end(), window: 0, asked: r.end() };
            return None;
        }
        self.stopped = self.stopped.max(r.end());
        if first {
            self.asked = r.end();
        }
        self.window = (self.window * 2).clamp(FIRST, FARTHEST);
        let from = self.asked.max(r.end());
        let to = self.stopped.saturating_add(self.window).min(size);
        // Not for every few bytes.
        if to <= from || (to - from < self.window / 2 && to < size) {
            return None;
        }
        self.asked = to;
        Some(Range::new(from, to - from))
    }
}

impl Disk for Ahead {
    disk::forward!(next: next, facts, write, zero, trim, flush, cache, extents, status);
    fn read(&self, r: Range) -> Io<'_, Data> {
        let Facts { size, blocks, .. } = self.next.facts();
        let whole = size - size % u64::from(blocks.minimum);
        let wanted = self.guess.lock().unwrap_or_else(PoisonError::into_inner).after(r, whole);
        if let Some(mut wanted) = wanted {
            wanted.len -= wanted.len % u64::from(blocks.minimum);
            if !wanted.is_empty() {
                self.worker.want(wanted);
            }
        }
        self.next.read(r)
    }
    fn close(&self) -> Io<'_, ()> {
        self.worker.end().and_then(|()| self.next.close())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, noise, opened};
    use std::time::{Duration, Instant};

    #[test]
    fn who_reads_on_is_led_farther_and_farther() {
        let mut guess = Guess::default();
        let size = 1 << 40;
        let mut asked = 0;
        let mut at = 0;
        while asked < 100 << 20 {
            if let Some(range) = guess.after(Range::new(at, 65536), size) {
                assert!(range.start >= at + 65536 && range.end() <= at + 65536 + FARTHEST);
                asked = range.end();
            }
            at += 65536;
        }
        assert_eq!(guess.window, FARTHEST);
        assert!(asked > at, "it is ahead of the reader");
    }

    #[test]
    fn who_jumps_about_is_left_alone() {
        let mut guess = Guess::default();
        let size = 1 << 40;
        for n in 1..100u64 {
            let at = (n * 7_919) % 1000 * (1 << 30);
            assert_eq!(guess.after(Range::new(at, 4096), size), None, "{at}");
        }
    }

    #[test]
    fn the_end_of_the_disk_is_the_end() {
        let mut guess = Guess::default();
        let mut last = 0;
        for at in (0..10u64).map(|n| n * 100_000) {
            if let Some(range) = guess.after(Range::new(at, 100_000), 1_000_000) {
                last = range.end();
            }
        }
        assert_eq!(last, 1_000_000);
    }

    #[test]
    fn the_disk_below_is_asked_to_cache_what_comes_next() {
        let memory = Memory::new(noise(1, 1 << 20));
        let disk = opened::<ReadAhead>(&[], &memory);
        let start = Instant::now();
        let mut asked = Vec::new();
        disk.read(Range::new(0, 4096)).wait().unwrap();
        while !asked.iter().any(|ask: &String| ask.starts_with("cache 4096 ")) {
            asked.extend(memory.asked());
            assert!(start.elapsed() < Duration::from_secs(30), "{asked:?}");
            std::thread::yield_now();
        }
        disk.close().wait().unwrap();
        assert_eq!(memory.asked().last().unwrap(), "close");
    }

    #[test]
    fn over_what_cannot_cache_it_is_not_there() {
        let memory = Memory::with(noise(1, 8192), Facts::writable(8192));
        let disk = opened::<ReadAhead>(&[], &memory);
        disk.read(Range::new(0, 4096)).wait().unwrap();
        disk.read(Range::new(4096, 4096)).wait().unwrap();
        assert_eq!(memory.asked(), ["read 0 4096", "read 4096 4096"]);
    }
}
