//! Commands that end, one way or the other, with all that they said.

use crate::server::Process;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

/// A command to run to its end.
#[must_use]
pub struct Run {
    pub(crate) command: Command,
    pub(crate) words: String,
    limit: Duration,
    input: Stdio,
}

/// A command that ended.
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it complained about.
    pub stderr: String,
    words: String,
}

impl Run {
    /// A peer's program or any other, found where [`crate::path`] says.
    pub fn new(program: impl AsRef<OsStr>) -> Run {
        let words = program.as_ref().to_string_lossy().into_owned();
        // A bare name would be looked for in this process's PATH, not in the child's.
        let found = if words.contains('/') { None } else { crate::peers::find(&words) };
        let mut command = Command::new(found.as_deref().map_or(program.as_ref(), Path::as_os_str));
        command.env("PATH", crate::path()).env("LC_ALL", "C.UTF-8");
        Run { command, words, limit: Duration::from_secs(120), input: Stdio::null() }
    }

    /// Our own program.
    pub fn diskpipe() -> Run {
        Run::new(crate::diskpipe())
    }

    /// Our own `serve` with these arguments, separated by spaces, and a shell command to run meanwhile.
    pub fn serve(arguments: &str, command: &str) -> Run {
        Run::diskpipe().arg("serve").words(arguments).args(["--run", command])
    }

    /// A script for the shell.
    pub fn sh(script: &str) -> Run {
        Run::new("sh").args(["-c", script])
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Run {
        self.words.push(' ');
        self.words.push_str(&arg.as_ref().to_string_lossy());
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Run {
        args.into_iter().fold(self, Run::arg)
    }

    /// Adds arguments that have no spaces in them.
    pub fn words(self, words: &str) -> Run {
        self.args(words.split_whitespace())
    }

    /// Runs it there.
    pub fn in_directory(mut self, directory: impl AsRef<Path>) -> Run {
        self.command.current_dir(directory);
        self
    }

    /// With a variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Run {
        self.command.env(name, value);
        self
    }

    /// With this on standard input.
    pub fn input(mut self, bytes: &[u8]) -> Run {
        let mut file = tempfile::tempfile().expect("a temporary file can be made");
        std::io::Write::write_all(&mut file, bytes).and_then(|()| file.rewind()).expect("it can be written");
        self.input = file.into();
        self
    }

    /// It must end within this time; two minutes if nothing is said.
    pub fn seconds(mut self, seconds: u64) -> Run {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// Starts it, and leaves it to its own until the process is dropped. What it says is lost.
    #[must_use]
    pub fn start(mut self) -> Process {
        self.command.stdin(self.input).stdout(Stdio::null()).stderr(Stdio::null());
        Process::start(&mut self.command, &self.words)
    }

    /// Runs it to its end.
    pub fn end(mut self) -> Ended {
        // Files, not pipes: what a forgotten grandchild holds open cannot keep us waiting.
        let mut stdout = tempfile::tempfile().expect("a temporary file can be made");
        let mut stderr = tempfile::tempfile().expect("a temporary file can be made");
        let handle = |file: &File| Stdio::from(file.try_clone().expect("a descriptor is to be had"));
        self.command.stdin(self.input).stdout(handle(&stdout)).stderr(handle(&stderr));
        let mut process = Process::start(&mut self.command, &self.words);
        let status = process.wait(self.limit);
        drop(process);
        let text = |file: &mut File| {
            let mut bytes = Vec::new();
            file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("what it said can be read");
            bytes
        };
        let (stdout, stderr) = (text(&mut stdout), String::from_utf8_lossy(&text(&mut stderr)).into_owned());
        let Some(status) = status else {
            panic!("`{}` did not end within {:?}; it said\n{stderr}", self.words, self.limit)
        };
        Ended { status, stdout, stderr, words: self.words }
    }

    /// Runs it to an end that must be good, and takes what it printed.
    #[track_caller]
    pub fn text(self) -> String {
        self.end().good().text()
    }
}

impl Ended {
    /// Must have succeeded.
    #[track_caller]
    pub fn good(self) -> Ended {
        assert!(
            self.status.success(),
            "`{}`: {}\n{}{}",
            self.words,
            self.status,
            self.stderr,
            String::from_utf8_lossy(&self.stdout)
        );
        self
    }

    /// Must have ended with this exit code.
    #[track_caller]
    pub fn code(self, code: i32) -> Ended {
        assert_eq!(self.status.code(), Some(code), "`{}`: {}\n{}", self.words, self.status, self.stderr);
        self
    }

    /// What it printed.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}
