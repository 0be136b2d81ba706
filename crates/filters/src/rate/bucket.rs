//! One limit: when may the next bytes pass?

use params::{Size, Value};
use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::{Duration, Instant},
};

/// How often a file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What would never pass passes in a year.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// A limit of bits per second, with some seconds of it in reserve. Connections share it without a lock.
pub(super) struct Bucket {
    file: Option<PathBuf>,
    burst: Duration,
    made: Instant,
    /// Bits per second; 0: no limit.
    rate: AtomicU64,
    /// All that was let through takes until then, at this rate: in nanoseconds, from one burst before it was made.
    busy_until: AtomicU64,
    /// When the file is to be looked at again, in nanoseconds since it was made.
    next_look: AtomicU64,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Bucket {
    /// `file`, where it exists and holds a rate, goes before `rate`.
    pub(super) fn new(rate: Option<u64>, file: Option<PathBuf>, burst: Duration) -> Bucket {
        // A new bucket is full.
        let (busy_until, next_look) = (AtomicU64::new(0), AtomicU64::new(0));
        let rate = AtomicU64::new(rate.unwrap_or(0));
        Bucket { file, burst, made: Instant::now(), rate, busy_until, next_look }
    }

    /// Takes room for so many bytes. They may pass at the returned time (which may be past); `None`: there is no limit.
    pub(super) fn take(&self, bytes: u64, now: Instant) -> Option<Instant> {
        // In the count of `busy_until`, this is one burst ago.
        let since = now.saturating_duration_since(self.made);
        self.look(nanos(since));
        let rate = self.rate.load(SeqCst);
        if rate == 0 {
            return None;
        }
        let takes = Duration::try_from_secs_f64(bytes as f64 * 8.0 / rate as f64).unwrap_or(Duration::MAX);
        let takes = nanos(takes.min(LONGEST));
        // What was not used in time is lost, but for the burst.
        let after = |busy_until: u64| busy_until.max(nanos(since)).saturating_add(takes);
        let before = self.busy_until.fetch_update(SeqCst, SeqCst, |busy_until| Some(after(busy_until)));
        let until = Duration::from_nanos(after(before.unwrap_or_else(|same| same)));
        let passes = match until.checked_sub(self.burst) {
            Some(until) => self.made.checked_add(until),
            None => Some(now),
        };
        Some(passes.unwrap_or(now + LONGEST))
    }

    /// Reads the rate from the file, from time to time. What cannot be read leaves the rate as it is.
    fn look(&self, now: u64) {
        let Some(file) = &self.file else { return };
        let due = self.next_look.load(SeqCst);
        let next = now.saturating_add(nanos(LOOK_EVERY));
        if now < due || self.next_look.compare_exchange(due, next, SeqCst, SeqCst).is_err() {
            return;
        }
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if let Ok(rate) = Size::from_text(text.trim())
            && rate.bytes() > 0
        {
            self.rate.store(rate.bytes(), SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: Duration = Duration::from_secs(2);

    #[test]
    fn bytes_pass_at_the_rate_after_the_burst() {
        let bucket = Bucket::new(Some(8000), None, BURST);
        let now = Instant::now();
        // 2000 bytes are 2 seconds: the burst.
        assert!(bucket.take(2000, now).unwrap() <= now);
        let next = bucket.take(1000, now).unwrap() - now;
        assert!((0.99..=1.0).contains(&next.as_secs_f64()), "{next:?}");
        // 10 seconds later, 2 seconds and no more have been saved up.
        let later = now + Duration::from_secs(10);
        assert_eq!(bucket.take(2000, later).unwrap(), later);
        assert_eq!(bucket.take(500, later).unwrap(), later + Duration::from_millis(500));
    }

    #[test]
    fn a_file_changes_the_rate_and_its_absence_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rate");
        let bucket = Bucket::new(None, Some(file.clone()), Duration::ZERO);
        let now = Instant::now();
        let second = |n: u64| now + Duration::from_secs(10 * n);
        assert_eq!(bucket.take(1000, now), None);
        std::fs::write(&file, "8K\n").unwrap();
        assert_eq!(bucket.take(1024, now), None, "not looked at so soon");
        assert_eq!(bucket.take(1024, second(1)), Some(second(1) + Duration::from_secs(1)));
        std::fs::write(&file, "nonsense").unwrap();
        assert_eq!(bucket.take(1024, second(2)), Some(second(2) + Duration::from_secs(1)));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(bucket.take(1024, second(3)), Some(second(3) + Duration::from_secs(1)));
    }
}
