//! Signals that ask the server to end, or to open its log file again. The handler only writes a byte into a pipe; a thread does the rest.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::IntoRawFd;
use std::sync::atomic::{AtomicI32, Ordering};

/// The pipe's writing end; never closed, since a signal may come at any time.
static PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn note(signal: libc::c_int) {
    let byte = signal as u8;
    // SAFETY: `write` may be called in a signal handler, the buffer is one live byte, and `errno`, the only state
    // it changes, is put back.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(PIPE.load(Ordering::Relaxed), (&raw const byte).cast(), 1);
        *libc::__errno_location() = errno;
    }
}

/// For a signal whose cause is told by an error as well. Unlike SIG_IGN, programs that are run do not inherit it.
extern "C" fn pass_over(_: libc::c_int) {}

/// Signals that have come and not been acted upon.
pub(crate) struct Signals {
    reader: File,
}

/// From now on signals that ask to end (SIGHUP, SIGINT, SIGQUIT, SIGTERM) or for a new log file (SIGUSR1) are kept until
/// [`Signals::watch`]. Call it once, before clients can see the server: whoever sees it may also want it to end. A process
/// that is forked off shares what comes. A write beyond a limit of file sizes is an error from now on, and not the end.
pub(crate) fn keep() -> io::Result<Signals> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // A handler must never sleep: with a full pipe the thread knows anyway.
    rustix::io::ioctl_fionbio(&writer, true)?;
    PIPE.store(writer.into_raw_fd(), Ordering::Relaxed);
    let kept = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1];
    for signal in kept.into_iter().chain([libc::SIGXFSZ]) {
        let handler: extern "C" fn(libc::c_int) = if signal == libc::SIGXFSZ { pass_over } else { note };
        // SAFETY: the zeroed structure with a handler, an empty mask and SA_RESTART is a valid action; the handlers
        // do only what handlers may do.
        let set = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(signal, &raw const action, std::ptr::null_mut())
        };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(Signals { reader: File::from(reader) })
}

impl Signals {
    /// Calls `on_signal` with the number of every signal, on a thread of its own, in the process that serves.
    pub(crate) fn watch(mut self, on_signal: impl Fn(i32) + Send + 'static) -> io::Result<()> {
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            let mut byte = [0];
            while self.reader.read_exact(&mut byte).is_ok() {
                on_signal(byte[0].into());
            }
        })?;
        Ok(())
    }
}
