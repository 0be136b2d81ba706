//! Where the server's messages go: standard error, the system log, or nowhere.

use super::options::LogTo;
use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;

/// The server's voice.
pub(crate) struct Messages {
    /// What each line begins with: `nbdkit` or `diskpipe`.
    program: String,
    verbose: bool,
    to: Mutex<LogTo>,
}

/// Priorities of the system log, in facility "daemon".
const ERROR: u8 = 3 << 3 | 3;
const DEBUG: u8 = 3 << 3 | 7;

impl Messages {
    pub(crate) fn new(program: &str, verbose: bool, to: LogTo) -> Messages {
        Messages { program: program.to_owned(), verbose, to: Mutex::new(to) }
    }

    /// From now on, messages go there.
    pub(crate) fn send_to(&self, to: LogTo) {
        *self.lock() = to;
    }

    /// Something went wrong.
    pub(crate) fn error(&self, line: &str) {
        self.tell(ERROR, "error", line);
    }

    /// For those who asked with `-v`.
    pub(crate) fn debug(&self, line: &str) {
        if self.verbose {
            self.tell(DEBUG, "debug", line);
        }
    }

    /// Something is odd, but not wrong.
    pub(crate) fn warn(&self, line: &str) {
        self.tell(ERROR, "warning", line);
    }

    fn tell(&self, priority: u8, kind: &str, line: &str) {
        // One call per line, so that lines of several threads do not mix. Where messages cannot go, nobody can be
        // told about it.
        let program = &self.program;
        match *self.lock() {
            LogTo::Stderr => {
                let _ = std::io::Write::write_all(
                    &mut std::io::stderr(),
                    format!("{program}: {kind}: {line}\n").as_bytes(),
                );
            }
            LogTo::Syslog => {
                let line = format!("<{priority}>{program}[{}]: {kind}: {line}", std::process::id());
                let _ =
                    UnixDatagram::unbound().and_then(|socket| socket.send_to(line.as_bytes(), "/dev/log"));
            }
            LogTo::Null => {}
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LogTo> {
        self.to.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl server::Log for Messages {
    fn error(&self, line: &str) {
        Messages::error(self, line);
    }

    fn debug(&self, line: &str) {
        Messages::debug(self, line);
    }
}
