//! The events that are waited for.

use super::ExitWhen;
use disk::{Error, Result};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
    time::Timespec,
};
use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::Command,
};

/// Something that happens outside.
pub(super) enum Event {
    Created(PathBuf),
    Deleted(PathBuf),
    /// The other end goes.
    Closed(File),
    /// A process, by a descriptor: its number may soon be another's. `None`: it is gone.
    Exits(Option<OwnedFd>),
    Script(String),
}

/// All events of these parameters.
pub(super) fn all(params: &ExitWhen) -> Result<Vec<Event>> {
    let mut events: Vec<Event> = params.exit_when_file_created.iter().cloned().map(Event::Created).collect();
    events.extend(params.exit_when_file_deleted.iter().cloned().map(Event::Deleted));
    for fd in &params.exit_when_pipe_closed {
        let file = params::take_inherited(*fd).ok_or_else(|| {
            Error::invalid(format!("exit-when-pipe-closed={fd}: no such descriptor was inherited"))
        })?;
        events.push(Event::Closed(file));
    }
    for pid in &params.exit_when_process_exits {
        let process = match Pid::from_raw(*pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
            Some(Ok(process)) => Some(process),
            None | Some(Err(Errno::SRCH)) => None,
            Some(Err(e)) => return Err(Error::from(e).context(format!("exit-when-process-exits={pid}"))),
        };
        events.push(Event::Exits(process));
    }
    events.extend(params.exit_when_script.iter().cloned().map(Event::Script));
    Ok(events)
}

impl Event {
    /// Whether it has. A script may take its time.
    pub(super) fn has_happened(&mut self) -> bool {
        match self {
            Event::Created(path) => path.exists(),
            Event::Deleted(path) => !path.exists(),
            Event::Closed(file) => {
                is(file, PollFlags::empty(), PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
            }
            Event::Exits(None) => true,
            Event::Exits(Some(process)) => is(process, PollFlags::IN, PollFlags::IN),
            Event::Script(script) => says_so(script),
        }
    }
}

/// Whether one of these is true of a descriptor now.
fn is(fd: &impl AsFd, ask: PollFlags, wanted: PollFlags) -> bool {
    let mut fds = [PollFd::new(fd, ask)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut fds, Some(&now)), Ok(1..)) && fds[0].revents().intersects(wanted)
}

/// Whether the script ends with 88.
fn says_so(script: &str) -> bool {
    let told = |what: String| tracing::error!(target: "diskpipe", "exit-when-script: {what}");
    match Command::new("/bin/sh").args(["-c", script]).status() {
        Ok(status) => match status.code() {
            Some(0) => false,
            Some(88) => true,
            _ => {
                told(format!("the script ended with {status}"));
                false
            }
        },
        Err(e) => {
            told(format!("/bin/sh cannot be run: {e}"));
            false
        }
    }
}
