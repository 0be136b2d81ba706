//! One limit: when may the next bytes pass?

use params::{Size, Value};
use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How often a file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A limit of bits per second, with some seconds of it in reserve.
pub(super) struct Bucket {
    file: Option<PathBuf>,
    burst: Duration,
    state: Option<Mutex<State>>,
}

struct State {
    /// Bits per second; `None`: no limit.
    rate: Option<u64>,
    /// All that was let through takes until then, at this rate.
    busy_until: Instant,
    looked: Option<Instant>,
}

impl Bucket {
    /// `file`, where it exists and holds a rate, goes before `rate`.
    pub(super) fn new(rate: Option<u64>, file: Option<PathBuf>, burst: Duration) -> Bucket {
        let now = Instant::now();
        // A new bucket is full.
        let state = State { rate, busy_until: now.checked_sub(burst).unwrap_or(now), looked: None };
        Bucket { state: (rate.is_some() || file.is_some()).then(|| Mutex::new(state)), file, burst }
    }

    /// Takes room for so many bytes. They may pass at the returned time (which may be past); `None`: there is no limit.
    pub(super) fn take(&self, bytes: u64, now: Instant) -> Option<Instant> {
        let mut state = self.state.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        self.look(&mut state, now);
        let rate = state.rate?;
        // What was not used in time is lost, but for the burst.
        let start = state.busy_until.max(now.checked_sub(self.burst).unwrap_or(now));
        let takes = Duration::try_from_secs_f64(bytes as f64 * 8.0 / rate as f64).unwrap_or(Duration::MAX);
        // What would never pass passes in a year.
        let takes = takes.min(Duration::from_secs(365 * 24 * 3600));
        state.busy_until = start + takes;
        Some(state.busy_until)
    }

    /// Reads the rate from the file, from time to time. What cannot be read leaves the rate as it is.
    fn look(&self, state: &mut State, now: Instant) {
        let Some(file) = &self.file else { return };
        if state.looked.is_some_and(|looked| now < looked + LOOK_EVERY) {
            return;
        }
        state.looked = Some(now);
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if let Ok(rate) = Size::from_text(text.trim())
            && rate.bytes() > 0
        {
            state.rate = Some(rate.bytes());
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
