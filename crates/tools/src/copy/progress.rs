//! How far the copy is, for people (a bar on standard error) or programs (lines on a descriptor).

use crate::size;
use anyhow::{Context, Result};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::fd::OwnedFd,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

const BAR: usize = 40;
const SPINNER: [&str; 4] = ["▝", "▗", "▖", "▘"];
/// What tells rates says nothing more often than this, except at the end.
const PAUSE: Duration = Duration::from_millis(200);

/// Where progress goes.
pub(crate) enum Style {
    /// Nowhere.
    Silent,
    /// A bar on standard error.
    Bar,
    /// Lines for a program: `N/100`.
    Lines(File),
    /// With the rate and the time left.
    Detailed(Form, Option<File>),
}

/// What it looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Bar,
    Percent,
    Json,
}

impl Style {
    /// What was asked for on the command line; empty: a bar.
    ///
    /// # Errors
    /// Nobody knows what is meant.
    pub(crate) fn parse(text: &str) -> Result<Style> {
        let number = |text: &str| text.parse::<i32>().ok().filter(|n| *n >= 0);
        let (word, at) = text.split_once(':').map_or((text, None), |(word, at)| (word, Some(at)));
        // As with a closed standard error, a descriptor that is not open hears nothing: the copy is what matters.
        let form = match (word, at) {
            ("", None) => return Ok(Style::Bar),
            (n, None) | ("fd", Some(n)) if number(n).is_some() => {
                let open = number(n).and_then(inherited);
                return Ok(open.map_or(Style::Silent, |fd| Style::Lines(fd.into())));
            }
            ("bar", None) => return Ok(Style::Detailed(Form::Bar, None)),
            ("percent", _) => Form::Percent,
            ("json", _) => Form::Json,
            _ => Err(unknown(text))?,
        };
        match at {
            None => Ok(Style::Detailed(form, None)),
            Some(n) => {
                let n = number(n).with_context(|| unknown(text))?;
                Ok(inherited(n).map_or(Style::Silent, |fd| Style::Detailed(form, Some(fd.into()))))
            }
        }
    }
}

fn unknown(text: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "--progress={text}: none of bar, percent, json, percent:FD, json:FD, fd:FD and FD, where FD is the \
         number of a descriptor"
    )
}

/// The descriptor that this process was started with under a number, for our own use.
fn inherited(number: i32) -> Option<OwnedFd> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    // Without unsafe code a number becomes a descriptor only by way of the kernel.
    let copy = pidfd_open(getpid(), PidfdFlags::empty())
        .and_then(|own| pidfd_getfd(own, number, PidfdGetfdFlags::empty()))
        .ok();
    let again =
        || OpenOptions::new().append(true).open(format!("/proc/self/fd/{number}")).ok().map(OwnedFd::from);
    copy.or_else(again)
}

/// Counts copied bytes. It says 100 only when told that all is well.
pub(crate) struct Progress {
    done: AtomicU64,
    /// When to say something again, in bytes done.
    next: AtomicU64,
    /// Of the source; `None`: not known.
    total: Option<u64>,
    /// Done before this began.
    before: u64,
    began: Instant,
    speaker: Mutex<Speaker>,
}

struct Speaker {
    style: Style,
    /// When it said something last, and how much was done then.
    last: Option<(Instant, u64)>,
    /// Bytes per second, of late.
    rate: f64,
}

impl Progress {
    /// Shows nothing done yet.
    pub(crate) fn new(style: Style, total: Option<u64>) -> Progress {
        Progress::from(style, total, 0)
    }

    /// Goes on where so much is done already.
    pub(crate) fn from(style: Style, total: Option<u64>, before: u64) -> Progress {
        let next = if matches!(style, Style::Silent) { u64::MAX } else { 0 };
        let progress = Progress {
            done: AtomicU64::new(before),
            next: AtomicU64::new(next),
            total: total.filter(|total| *total > 0),
            before,
            began: Instant::now(),
            speaker: Mutex::new(Speaker { style, last: None, rate: 0.0 }),
        };
        progress.add(0);
        progress
    }

    /// So many bytes are done.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Relaxed)
    }

    /// Of so many; 0 if nobody knows.
    pub(crate) fn total(&self) -> u64 {
        self.total.unwrap_or(0)
    }

    /// So many were done here, and not by somebody before; and how long that has taken until now.
    pub(crate) fn here(&self) -> (u64, Duration) {
        (self.done().saturating_sub(self.before), self.began.elapsed())
    }

    /// So many bytes must be copied again.
    pub(crate) fn take_back(&self, bytes: u64) {
        let _ = self.done.fetch_update(Relaxed, Relaxed, |done| Some(done.saturating_sub(bytes)));
    }

    /// So many more bytes are copied.
    pub(crate) fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Relaxed).saturating_add(bytes);
        if done < self.next.load(Relaxed) {
            return;
        }
        let mut speaker = self.speaker.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have said it while this one waited.
        let done = self.done.load(Relaxed);
        if done < self.next.load(Relaxed) {
            return;
        }
        if let Style::Detailed(..) = speaker.style {
            return speaker.tell(self.total, done, Instant::now(), false);
        }
        let Some(total) = self.total else {
            // Without a total there is nothing to compare with; still alive, every 16 MiB.
            self.next.store(done.saturating_add(16 << 20), Relaxed);
            return say(&speaker.style, 0, done >> 24);
        };
        let hundredths = u128::from(done.min(total)) * 100 / u128::from(total);
        self.next.store((u128::from(total) * (hundredths + 1)).div_ceil(100) as u64, Relaxed);
        // 100 is only said by `finished`.
        say(&speaker.style, hundredths.min(99) as u64, hundredths as u64);
    }

    /// All is copied, and safe as far as that was asked for.
    pub(crate) fn finished(&self) {
        let mut speaker = self.speaker.lock().unwrap_or_else(PoisonError::into_inner);
        match speaker.style {
            Style::Detailed(..) => speaker.tell(self.total, self.done(), Instant::now(), true),
            _ => say(&speaker.style, 100, 0),
        }
    }

    /// Leaves the line of the bar, so that an error begins on a new one.
    pub(crate) fn abandoned(&self) {
        let speaker = self.speaker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Style::Bar | Style::Detailed(Form::Bar, _) = &speaker.style {
            eprintln!();
        }
    }
}

impl Speaker {
    /// Says all of it, unless it was said a moment ago.
    fn tell(&mut self, total: Option<u64>, done: u64, now: Instant, finished: bool) {
        let since = self.last.map(|(then, before)| (now.saturating_duration_since(then), before));
        if let Some((since, before)) = since {
            if since < PAUSE && !finished {
                return;
            }
            let lately = done.saturating_sub(before) as f64 / since.as_secs_f64().max(1e-3);
            self.rate = if self.rate == 0.0 { lately } else { 0.7 * self.rate + 0.3 * lately };
        }
        self.last = Some((now, done));
        let Style::Detailed(form, file) = &self.style else { return };
        let line = line(*form, total, done, self.rate, finished);
        // Nobody may be there to hear it: a copy does not fail for that.
        let _ = match file {
            Some(file) => (&*file).write_all(line.as_bytes()),
            None => io::stderr().write_all(line.as_bytes()),
        };
    }
}

/// One line of a detailed form.
fn line(form: Form, total: Option<u64>, done: u64, rate: f64, finished: bool) -> String {
    let left = total.filter(|_| rate >= 1.0).map(|total| (total.saturating_sub(done) as f64 / rate) as u64);
    let percent = match total {
        _ if finished => 100.0,
        // 100 is only said when all is well.
        Some(total) => (done as f64 / total as f64 * 100.0).min(99.9),
        None => 0.0,
    };
    match form {
        Form::Percent => format!("{percent:.1}%\n"),
        Form::Json => {
            let number = |n: Option<u64>| n.map_or("null".to_string(), |n| n.to_string());
            format!(
                "{{\"done\": {done}, \"total\": {}, \"percent\": {percent:.1}, \"rate\": {}, \
                 \"seconds_left\": {}, \"finished\": {finished}}}\n",
                number(total),
                rate as u64,
                number(if finished { Some(0) } else { left }),
            )
        }
        Form::Bar => {
            let stars = BAR * percent as usize / 100;
            let bar = format!("{}{}", "*".repeat(stars), "-".repeat(BAR - stars));
            let time = left.map_or("--:--".to_string(), |s| match s {
                0..3600 => format!("{:02}:{:02}", s / 60, s % 60),
                _ => format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60),
            });
            let end = if finished { '\n' } else { '\r' };
            let (done, rate) = (size::short(done), size::short(rate as u64));
            // What an earlier, longer line left over is wiped out.
            format!("{percent:5.1}% [{bar}] {done} {rate}/s {time} left   {end}")
        }
    }
}

/// Says it. Nobody may be there to hear it: a copy does not fail for that.
fn say(style: &Style, hundredths: u64, turn: u64) {
    match style {
        Style::Silent | Style::Detailed(..) => {}
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

    fn lines(style: fn(File) -> Style, total: Option<u64>, work: impl FnOnce(&Progress)) -> Vec<String> {
        let mut file = tempfile::tempfile().unwrap();
        work(&Progress::new(style(file.try_clone().unwrap()), total));
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text.lines().map(str::to_string).collect()
    }

    #[test]
    fn each_hundredth_is_said_once_and_the_last_only_at_the_end() {
        let said = lines(Style::Lines, Some(1000), |p| {
            (0..250).for_each(|_| p.add(4));
        });
        assert_eq!(said.first().unwrap(), "0/100");
        assert_eq!(said.len(), 101);
        assert_eq!(said.last().unwrap(), "99/100", "finished() was not called");
        let said = lines(Style::Lines, Some(7), |p| {
            p.add(7);
            p.finished();
        });
        assert_eq!(said.last().unwrap(), "100/100");
    }

    #[test]
    fn an_empty_and_an_unknown_size_end_at_100_too() {
        for total in [Some(0), None] {
            let said = lines(Style::Lines, total, Progress::finished);
            assert_eq!(said, ["0/100", "100/100"]);
        }
    }

    #[test]
    fn a_program_that_reads_json_is_told_everything() {
        let said = lines(
            |file| Style::Detailed(Form::Json, Some(file)),
            Some(1000),
            |p| {
                p.add(1000);
                p.finished();
            },
        );
        assert_eq!(
            said[0],
            r#"{"done": 0, "total": 1000, "percent": 0.0, "rate": 0, "seconds_left": null, "finished": false}"#
        );
        let last = said.last().unwrap();
        assert!(last.starts_with(r#"{"done": 1000, "total": 1000, "percent": 100.0, "rate": "#), "{last}");
        assert!(last.ends_with(r#""seconds_left": 0, "finished": true}"#), "{last}");
    }

    #[test]
    fn a_bar_has_the_rate_and_the_time_left() {
        assert_eq!(
            line(Form::Bar, Some(100 << 20), 25 << 20, 1_048_576.0, false),
            format!(" 25.0% [{}{}] 25M 1M/s 01:15 left   \r", "*".repeat(10), "-".repeat(30))
        );
        assert!(line(Form::Bar, Some(9 << 30), 0, 1_048_576.0, false).contains(" 2:33:36 left"));
        assert!(line(Form::Bar, None, 5, 0.0, false).contains("--:-- left"));
        assert_eq!(line(Form::Percent, Some(3), 3, 1.0, false), "99.9%\n", "not before all is well");
        assert_eq!(line(Form::Percent, Some(3), 3, 1.0, true), "100.0%\n");
    }

    #[test]
    fn forms_of_progress_are_understood_or_refused() {
        let form = |text| match Style::parse(text).unwrap() {
            Style::Detailed(form, file) => Some((form, file.is_some())),
            _ => None,
        };
        assert!(matches!(Style::parse("").unwrap(), Style::Bar));
        assert!(matches!(Style::parse("2").unwrap(), Style::Lines(_)));
        assert!(matches!(Style::parse("fd:2").unwrap(), Style::Lines(_)));
        assert!(matches!(Style::parse("99999").unwrap(), Style::Silent));
        assert_eq!(form("bar"), Some((Form::Bar, false)));
        assert_eq!(form("percent"), Some((Form::Percent, false)));
        assert_eq!(form("json:2"), Some((Form::Json, true)));
        for bad in ["x", "-1", "bar:1", "json:", "json:x", "fd", "fd:x", "percent:-1"] {
            assert!(Style::parse(bad).is_err(), "{bad}");
        }
    }
}
