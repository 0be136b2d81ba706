//! The plain way of asking: a process for every call.

use super::{
    Ask,
    answer::{Answer, End},
    call::Call,
    pipes::{self, From, To},
};
use ::disk::{Error, Result};
use std::{
    collections::HashMap,
    io,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

/// What a complaint may be long.
const MOST_COMPLAINT: usize = 64 << 10;

/// A program that is run for every call, with the method as its first argument.
pub(crate) struct Spawn {
    program: PathBuf,
    directory: PathBuf,
    /// The kernel does not know how to run it, so the shell does.
    by_shell: AtomicBool,
}

impl Spawn {
    /// `directory` is what the script finds in `$tmpdir`.
    pub(crate) fn new(program: PathBuf, directory: &Path) -> Spawn {
        Spawn { program, directory: directory.to_owned(), by_shell: AtomicBool::new(false) }
    }

    /// Starts it with these arguments and the streams that `set_up` chooses.
    pub(super) fn start(&self, words: &[&str], set_up: impl Fn(&mut Command)) -> Result<Child> {
        loop {
            let by_shell = self.by_shell.load(Relaxed);
            let mut command = Command::new(if by_shell { Path::new("/bin/sh") } else { &self.program });
            if by_shell {
                command.arg(&self.program);
            }
            command.args(words).env("tmpdir", &self.directory);
            set_up(&mut command);
            match command.spawn() {
                // A script without `#!`.
                Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) && !by_shell => {
                    self.by_shell.store(true, Relaxed);
                }
                started => return started.map_err(|e| Error::from(e).context(self.program.display())),
            }
        }
    }
}

impl Ask for Spawn {
    fn ask(&self, call: &Call) -> Result<Answer> {
        let words: Vec<&str> =
            std::iter::once(call.method).chain(call.words.iter().map(String::as_str)).collect();
        let child = self.start(&words, |command| redirect(command, call))?;
        Ok(converse(child, call)?)
    }

    fn name(&self) -> String {
        self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy().into_owned()
    }
}

/// Fragments of shell script, one for each method.
pub(crate) struct Snippets {
    scripts: HashMap<String, String>,
    /// In the place of those that are not there.
    missing: Option<String>,
    directory: PathBuf,
}

impl Snippets {
    /// `directory` is what the scripts find in `$tmpdir`.
    pub(crate) fn new(
        scripts: HashMap<String, String>,
        missing: Option<String>,
        directory: &Path,
    ) -> Snippets {
        Snippets { scripts, missing, directory: directory.to_owned() }
    }
}

impl Ask for Snippets {
    fn ask(&self, call: &Call) -> Result<Answer> {
        let Some(script) = self.scripts.get(call.method).or(self.missing.as_ref()) else {
            return Ok(Answer::missing());
        };
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", script, call.method, call.method])
            .args(&call.words)
            .env("tmpdir", &self.directory);
        redirect(&mut command, call);
        let child = command.spawn().map_err(|e| Error::from(e).context("/bin/sh"))?;
        Ok(converse(child, call)?)
    }

    fn has(&self, method: &str) -> Option<bool> {
        Some(self.scripts.contains_key(method))
    }

    fn name(&self) -> String {
        "eval".to_owned()
    }
}

fn redirect(command: &mut Command, call: &Call) {
    let input = if call.input.is_some() { Stdio::piped() } else { Stdio::null() };
    command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
}

/// Feeds the process and listens to it until it has ended.
fn converse(mut child: Child, call: &Call) -> io::Result<Answer> {
    let exchanged = exchange(&mut child, call);
    if exchanged.is_err() {
        let _ = child.kill();
    }
    let status = child.wait()?;
    let (output, complaint) = exchanged?;
    if output.len() > call.most {
        return Err(call.too_much());
    }
    Ok(Answer { end: end(status), output, complaint })
}

fn exchange(child: &mut Child, call: &Call) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut input = child.stdin.take().map(To::new).transpose()?;
    if let (Some(to), Some(data)) = (&mut input, &call.input) {
        to.begin(data.clone());
    }
    let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
    let mut output = From::new(child.stdout.take().ok_or_else(broken)?, call.most + 1)?;
    let mut complaint = From::new(child.stderr.take().ok_or_else(broken)?, MOST_COMPLAINT)?;
    while output.fd.is_some() || complaint.fd.is_some() {
        if let Some(to) = &mut input {
            to.give()?;
            if to.is_done() {
                // Closed, so that the script sees the end of its input.
                input = None;
            }
        }
        pipes::wait(input.as_ref(), &[&output, &complaint], None)?;
        output.take()?;
        complaint.take()?;
        if output.bytes.len() > call.most {
            // Whether it would ever end by itself is anybody's guess.
            let _ = child.kill();
            break;
        }
    }
    Ok((output.bytes, complaint.bytes))
}

/// How a process ended.
pub(super) fn end(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Code(code),
        (None, signal) => End::Signal(signal.unwrap_or(0)),
    }
}
