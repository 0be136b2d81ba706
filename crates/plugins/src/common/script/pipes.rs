//! Feeding a process and listening to it at the same time, without ever waiting for the wrong one.

use rustix::{
    buffer::spare_capacity,
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, read, write},
};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

/// The end of a pipe that we read, and what came.
pub(super) struct From {
    /// `None` after its end.
    pub(super) fd: Option<OwnedFd>,
    pub(super) bytes: Vec<u8>,
    /// What goes beyond this is thrown away.
    most: usize,
}

/// The end of a pipe that we write, and what is to be written.
pub(super) struct To {
    /// `None` when nobody listens any more.
    pub(super) fd: Option<OwnedFd>,
    pub(super) bytes: disk::Data,
    done: u64,
}

/// How much is read or written at once at most.
const STEP: usize = 256 << 10;

impl From {
    pub(super) fn new(fd: impl Into<OwnedFd>, most: usize) -> io::Result<From> {
        let fd = fd.into();
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(From { fd: Some(fd), bytes: Vec::new(), most })
    }

    /// Starts afresh with a new limit.
    pub(super) fn begin(&mut self, most: usize) {
        self.bytes.clear();
        self.most = most;
    }

    /// Takes what there is; whether that was anything.
    pub(super) fn take(&mut self) -> io::Result<bool> {
        let Some(fd) = &self.fd else { return Ok(false) };
        let mut any = false;
        loop {
            let wanted = self.most.saturating_sub(self.bytes.len());
            let mut over = Vec::new();
            let into = if wanted > 0 { &mut self.bytes } else { &mut over };
            into.reserve(wanted.clamp(4096, STEP));
            match read(fd, spare_capacity(into)) {
                Ok(0) => {
                    self.fd = None;
                    return Ok(true);
                }
                Ok(n) => {
                    any = true;
                    self.bytes.truncate(self.most);
                    // A pipe that gave less than there was room for is empty, more likely than not.
                    if n < 4096 {
                        return Ok(true);
                    }
                }
                Err(Errno::AGAIN) => return Ok(any),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl To {
    pub(super) fn new(fd: impl Into<OwnedFd>) -> io::Result<To> {
        let fd = fd.into();
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(To { fd: Some(fd), bytes: disk::Data::zeroes(0), done: 0 })
    }

    /// Has these bytes written.
    pub(super) fn begin(&mut self, bytes: disk::Data) {
        (self.bytes, self.done) = (bytes.contiguous(), 0);
    }

    /// Whether all is written, or nobody wants it.
    pub(super) fn is_done(&self) -> bool {
        self.fd.is_none() || self.done == self.bytes.len()
    }

    /// Writes what fits.
    pub(super) fn give(&mut self) -> io::Result<()> {
        while let (Some(fd), false) = (&self.fd, self.is_done()) {
            let bytes = self.bytes.as_bytes().unwrap_or_default();
            let rest = &bytes[self.done as usize..];
            match write(fd, &rest[..rest.len().min(STEP)]) {
                Ok(n) => self.done += n as u64,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                // It has ended, or has closed its standard input: it does not care.
                Err(Errno::PIPE) => self.fd = None,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

/// Waits until one of the pipes that are still of interest can be read or written; `false` when `limit` was shorter.
pub(super) fn wait(to: Option<&To>, from: &[&From], limit: Option<Duration>) -> io::Result<bool> {
    let writers = to.iter().filter(|to| !to.is_done()).filter_map(|to| to.fd.as_ref());
    let mut fds: Vec<PollFd<'_>> =
        writers.map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::OUT)).collect();
    let readers = from.iter().filter_map(|from| from.fd.as_ref());
    fds.extend(readers.map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)));
    let limit =
        limit.map(|limit| Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() });
    loop {
        match poll(&mut fds, limit.as_ref()) {
            Ok(n) => return Ok(n > 0),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}
