//! What is said on the control socket: lines, each answered by lines of which the last is `ok` or says what is wrong.

use super::{
    Follow,
    header::{Header, name_fault},
    tracker::Tracker,
};
use disk::{Errno, Error, Range, Result};
use std::{
    fmt::Write as _,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// No line is longer.
const LONGEST: u64 = 4096;

/// Until the other end hangs up.
pub(super) fn converse(stream: &UnixStream, follow: &Follow) -> io::Result<()> {
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if lines.by_ref().take(LONGEST).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match words[..] {
            [] => continue,
            _ => match obey(&words, follow) {
                Ok(text) => format!("{text}ok\n"),
                Err(e) => format!("error: {e}\n"),
            },
        };
        let mut stream = stream;
        stream.write_all(answer.as_bytes())?;
    }
}

fn obey(words: &[&str], follow: &Follow) -> Result<String> {
    let tracker = || {
        follow.tracker_if_any().ok_or_else(|| {
            Error::new(Errno::AGAIN, "no client has used the disk yet, so that its size is not known")
        })
    };
    match *words {
        ["list"] => tracker().map(|tracker| list(&tracker)),
        ["changed", name] => {
            let tracker = tracker()?;
            let since = epoch(&tracker.books().header, name)?;
            Ok(changed(&tracker, since))
        }
        ["start", name] => tracker().and_then(|tracker| start(follow, &tracker, name, None)),
        ["start", name, "since", old] => {
            tracker().and_then(|tracker| start(follow, &tracker, name, Some(old)))
        }
        ["reset", name] => {
            let tracker = tracker()?;
            change(follow, &tracker, |header| begin(header, name, true))?;
            Ok(String::new())
        }
        ["drop", name] => {
            let tracker = tracker()?;
            change(follow, &tracker, |header| {
                epoch(header, name)?;
                header.checkpoints.retain(|checkpoint| checkpoint.name != name);
                Ok(())
            })?;
            Ok(String::new())
        }
        _ => Err(Error::invalid(
            "not list, changed NAME, start NAME, start NAME since OLD, reset NAME or drop NAME",
        )),
    }
}

/// Starts a checkpoint, and says what changed since an older one until then.
fn start(follow: &Follow, tracker: &Arc<Tracker>, name: &str, old: Option<&str>) -> Result<String> {
    let since = change(follow, tracker, |header| {
        let since = old.map(|old| epoch(header, old)).transpose()?;
        begin(header, name, false)?;
        Ok(since)
    })?;
    Ok(since.map(|since| changed(tracker, since)).unwrap_or_default())
}

/// Changes the checkpoints at a moment when no change of the disk is under way.
pub(super) fn change<T>(
    follow: &Follow,
    tracker: &Arc<Tracker>,
    change: impl FnOnce(&mut Header) -> Result<T>,
) -> Result<T> {
    let closed = follow.gate.close();
    let outcome = tracker.change_checkpoints(change)?;
    drop(closed);
    reactor::block_on(tracker.mark_abandoned())?;
    Ok(outcome)
}

/// Begins a checkpoint now; `anew`: also if it is there.
pub(super) fn begin(header: &mut Header, name: &str, anew: bool) -> Result<()> {
    if let Some(why) = name_fault(name) {
        return Err(Error::invalid(format!("{name}: not the name of a checkpoint: {why}")));
    }
    if !anew && header.find(name).is_some() {
        return Err(Error::invalid(format!("the checkpoint {name} is there already")));
    }
    header.checkpoints.retain(|checkpoint| checkpoint.name != name);
    header.epoch = header.epoch.checked_add(1).ok_or_else(|| Error::io("there were too many checkpoints"))?;
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    header.checkpoints.push(super::header::Checkpoint {
        name: name.to_owned(),
        epoch: header.epoch,
        started,
    });
    Ok(())
}

fn epoch(header: &Header, name: &str) -> Result<u32> {
    let found = header.find(name).map(|checkpoint| checkpoint.epoch);
    found.ok_or_else(|| Error::new(Errno::NOENT, format!("there is no checkpoint {name}")))
}

/// The changed ranges, one a line.
fn changed(tracker: &Tracker, since: u32) -> String {
    let mut text = String::new();
    for range in changed_ranges(tracker, since) {
        let _ = writeln!(text, "{} {}", range.start, range.len);
    }
    text
}

fn changed_ranges(tracker: &Tracker, since: u32) -> Vec<Range> {
    let size = tracker.size();
    if size == 0 {
        return Vec::new();
    }
    let mut at = 0;
    let all = tracker.status(since, Range::new(0, size), usize::MAX);
    let ranges = all.into_iter().map(|status| {
        at += status.len;
        (status.value, Range::new(at - status.len, status.len))
    });
    ranges.filter(|(value, _)| *value != 0).map(|(_, range)| range).collect()
}

/// `NAME SECONDS BYTES` of each checkpoint.
fn list(tracker: &Tracker) -> String {
    let mut text = String::new();
    let checkpoints = tracker.books().header.checkpoints.clone();
    for checkpoint in checkpoints {
        let bytes: u64 = changed_ranges(tracker, checkpoint.epoch).iter().map(|range| range.len).sum();
        let _ = writeln!(text, "{} {} {bytes}", checkpoint.name, checkpoint.started);
    }
    text
}
