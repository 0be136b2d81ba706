//! How far the copy is, for people (a bar on standard error) or programs (`N/100` lines on a descriptor).

use std::{
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

const BAR: usize = 40;
const SPINNER: [&str; 4] = ["▝", "▗", "▖", "▘"];

/// Where progress goes.
pub(crate) enum Style {
    /// Nowhere.
    Silent,
    /// A bar on standard error.
    Bar,
    /// Lines for a program.
    Lines(File),
}

/// Counts copied bytes. It says 100 only when told that all is well.
pub(crate) struct Progress {
    done: AtomicU64,
    /// When to say something again, in bytes done.
    next: AtomicU64,
    /// Of the source; `None`: not known.
    total: Option<u64>,
    style: Mutex<Style>,
}

impl Style {
    /// Lines on a descriptor that this process was started with.
    pub(crate) fn lines(fd: OwnedFd) -> Style {
        Style::Lines(fd.into())
    }
}

impl Progress {
    /// Shows nothing done yet.
    pub(crate) fn new(style: Style, total: Option<u64>) -> Progress {
        let next = if matches!(style, Style::Silent) { u64::MAX } else { 0 };
        let progress = Progress {
            done: AtomicU64::new(0),
            next: AtomicU64::new(next),
            total: total.filter(|total| *total > 0),
            style: Mutex::new(style),
        };
        progress.add(0);
        progress
    }

    /// So many more bytes are copied.
    pub(crate) fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Relaxed).saturating_add(bytes);
        if done < self.next.load(Relaxed) {
            return;
        }
        let style = self.style.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have said it while this one waited.
        let done = self.done.load(Relaxed);
        if done < self.next.load(Relaxed) {
            return;
        }
        let Some(total) = self.total else {
            // Without a total there is nothing to compare with; still alive, every 16 MiB.
            self.next.store(done.saturating_add(16 << 20), Relaxed);
            return say(&style, 0, done >> 24);
        };
        let hundredths = u128::from(done.min(total)) * 100 / u128::from(total);
        self.next.store((u128::from(total) * (hundredths + 1)).div_ceil(100) as u64, Relaxed);
        // 100 is only said by `finished`.
        say(&style, hundredths.min(99) as u64, hundredths as u64);
    }

    /// All is copied, and safe as far as that was asked for.
    pub(crate) fn finished(&self) {
        say(&self.style.lock().unwrap_or_else(PoisonError::into_inner), 100, 0);
    }

    /// Leaves the line of the bar, so that an error begins on a new one.
    pub(crate) fn abandoned(&self) {
        if let Style::Bar = &*self.style.lock().unwrap_or_else(PoisonError::into_inner) {
            eprintln!();
        }
    }
}

/// Says it. Nobody may be there to hear it: a copy does not fail for that.
fn say(style: &Style, hundredths: u64, turn: u64) {
    match style {
        Style::Silent => {}
        Style::Bar => {
            let spinner = if hundredths == 100 { "█" } else { SPINNER[turn as usize % SPINNER.len()] };
            let stars = BAR * hundredths as usize / 100;
            let end = if hundredths == 100 { '\n' } else { '\r' };
            let bar =
                format!("{spinner} {hundredths:3}% [{}{}]{end}", "*".repeat(stars), "-".repeat(BAR - stars));
            let _ = io::stderr().write_all(bar.as_bytes());
        }
        Style::Lines(file) => {
            let _ = (&*file).write_all(format!("{hundredths}/100\n").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    fn lines(total: Option<u64>, work: impl FnOnce(&Progress)) -> Vec<String> {
        let mut file = tempfile::tempfile().unwrap();
        work(&Progress::new(Style::Lines(file.try_clone().unwrap()), total));
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text.lines().map(str::to_string).collect()
    }

    #[test]
    fn each_hundredth_is_said_once_and_the_last_only_at_the_end() {
        let said = lines(Some(1000), |p| {
            (0..250).for_each(|_| p.add(4));
        });
        assert_eq!(said.first().unwrap(), "0/100");
        assert_eq!(said.len(), 101);
        assert_eq!(said.last().unwrap(), "99/100", "finished() was not called");
        let said = lines(Some(7), |p| {
            p.add(7);
            p.finished();
        });
        assert_eq!(said.last().unwrap(), "100/100");
    }

    #[test]
    fn an_empty_and_an_unknown_size_end_at_100_too() {
        for total in [Some(0), None] {
            let said = lines(total, Progress::finished);
            assert_eq!(said, ["0/100", "100/100"]);
        }
    }
}
