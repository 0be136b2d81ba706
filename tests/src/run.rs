//! Programs that run for a bounded time.

use crate::binary::path;
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    io::Read,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// How long a program may take unless told otherwise: far more than any of ours needs.
const LONG_ENOUGH: Duration = Duration::from_secs(90);

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// As it was started.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it said; bytes that are no text are replaced.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
    /// It took too long and was killed.
    pub timed_out: bool,
}

impl Finished {
    /// Goes on only when it ended well.
    ///
    /// # Panics
    /// With everything that it said, if not.
    #[track_caller]
    pub fn succeeds(self) -> Finished {
        assert!(self.status.success() && !self.timed_out, "{self}");
        self
    }

    /// Goes on only when it failed by itself: not by a signal, and in time.
    ///
    /// # Panics
    /// With everything that it said, if not.
    #[track_caller]
    pub fn fails(self) -> Finished {
        let by_itself = self.status.code().is_some_and(|code| code != 0 && code != 101);
        assert!(by_itself && !self.timed_out, "it should have failed: {self}");
        self
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Finished { command, status, stdout, stderr, timed_out } = self;
        let end = match (timed_out, status.signal()) {
            (true, _) => "was killed after taking too long".to_owned(),
            (_, Some(signal)) => format!("was killed by signal {signal}"),
            _ => format!("ended with {status}"),
        };
        write!(f, "{command}\n{end}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// Runs a shell script (it stops at the first error) in a directory of its own, with the binary in `PATH`.
pub fn sh(script: &str) -> Finished {
    sh_in(crate::scratch().path(), script)
}

/// As [`sh`], in this directory.
pub fn sh_in(dir: &Path, script: &str) -> Finished {
    let mut shell = program("sh", &["-eu", "-c", script]);
    shell.current_dir(dir);
    within(shell, LONG_ENOUGH)
}

/// A command, with the binary in `PATH` and nothing to read.
pub fn program(name: &str, args: &[&str]) -> Command {
    // Found by our PATH, not by that of the tests.
    let found = std::env::split_paths(&path()).map(|dir| dir.join(name)).find(|file| file.is_file());
    let mut command = Command::new(found.unwrap_or_else(|| name.into()));
    command.args(args).env("PATH", path()).stdin(Stdio::null());
    command
}

/// Runs a command to its end, or ends it and all that it started after so long.
pub fn within(mut command: Command, limit: Duration) -> Finished {
    let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
    let spelled = std::iter::once(command.get_program().to_string_lossy().into_owned())
        .chain(args)
        .collect::<Vec<_>>()
        .join(" ");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|e| panic!("{spelled} does not start: {e}"));
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let (status, timed_out) = wait(&mut child, limit);
    // Children that it left behind would hold the pipes open, and live on.
    kill_group(&child);
    Finished { command: spelled, status, stdout: join(stdout), stderr: join(stderr), timed_out }
}

type Reader = std::thread::JoinHandle<Vec<u8>>;

fn collect(stream: Option<impl Read + Send + 'static>) -> Option<Reader> {
    stream.map(|mut stream| {
        std::thread::spawn(move || {
            let mut bytes = vec![];
            let _ = stream.read_to_end(&mut bytes);
            bytes
        })
    })
}

fn join(reader: Option<Reader>) -> String {
    let bytes = reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn wait(child: &mut Child, limit: Duration) -> (ExitStatus, bool) {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return (status, false);
        }
        if start.elapsed() > limit {
            kill_group(child);
            return (child.wait().expect("a killed child ends"), true);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Ends the process group that a child leads.
pub(crate) fn kill_group(child: &Child) {
    if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
        // It may all have ended by itself.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Whether the program is to be found.
pub fn is_installed(name: &str) -> bool {
    std::env::split_paths(&path()).any(|dir| dir.join(name).is_file())
}
