//! QEMU's control connection, which its storage daemon has as well.

use crate::server::PATIENCE;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A connection on which commands are understood.
pub struct Qmp {
    answers: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects to this socket as soon as somebody listens there.
    ///
    /// # Panics
    /// When nobody does, or who does speaks something else.
    #[track_caller]
    pub fn connect(socket: &Path) -> Qmp {
        let end = Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(e) => assert!(Instant::now() < end, "no monitor at {}: {e}", socket.display()),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit can be set");
        let mut qmp = Qmp { answers: BufReader::new(stream) };
        qmp.execute("qmp_capabilities", json!({}));
        qmp
    }

    /// Executes a command, and takes what it returns.
    ///
    /// # Panics
    /// When it is refused, or not answered within [`PATIENCE`].
    #[track_caller]
    pub fn execute(&mut self, command: &str, arguments: Value) -> Value {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.answers.get_mut(), "{request}").expect("it takes commands");
        loop {
            let mut line = String::new();
            let len = self.answers.read_line(&mut line).expect("it answers in time");
            assert!(len > 0, "{request}: it is gone");
            let mut answer: Value = serde_json::from_str(&line).expect("its answers are JSON");
            // Greetings and events have neither.
            assert!(answer.get("error").is_none(), "{request}: {line}");
            if let Some(value) = answer.get_mut("return") {
                return value.take();
            }
        }
    }

    /// Executes a command line of the monitor for people, and takes what it prints.
    ///
    /// # Panics
    /// As [`Qmp::execute`] does.
    #[track_caller]
    pub fn monitor(&mut self, line: &str) -> String {
        let said = self.execute("human-monitor-command", json!({ "command-line": line }));
        said.as_str().expect("it prints text").to_owned()
    }
}
