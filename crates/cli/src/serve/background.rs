//! Going to the background: a second process serves, the first one ends once clients can connect.

use std::fs::File;
use std::io::{self, Read, Write};

/// The serving process's tie to the one that the user started.
pub(crate) struct Background {
    starter: File,
}

/// Forks. Returns in the new process; the old one waits there until [`Background::ready`] and exits with 0, or
/// with 1 when the new process ends before that. Must be called while the process has one thread.
pub(crate) fn fork() -> io::Result<Background> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: this is the only thread, so that the child's copy of memory is whole: no lock is held by a thread that
    // does not exist there.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(reader);
            // A session of its own: the terminal's signals are for others now.
            rustix::process::setsid()?;
            Ok(Background { starter: File::from(writer) })
        }
        _ => {
            drop(writer);
            let mut byte = [0];
            let served = File::from(reader).read_exact(&mut byte).is_ok();
            // Not `exit`: what was buffered or registered belongs to the other process.
            // SAFETY: `_exit` only ends the process.
            unsafe { libc::_exit(if served { 0 } else { 1 }) }
        }
    }
}

impl Background {
    /// Lets go of the terminal and (unless files are named relative to it) the current directory, and the starter end:
    /// clients can connect.
    pub(crate) fn ready(mut self, keep_directory: bool) -> io::Result<()> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        if !keep_directory {
            std::env::set_current_dir("/")?;
        }
        self.starter.write_all(&[0])
    }
}
