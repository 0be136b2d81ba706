//! `--run`: a shell command that lives beside the server and sees it in variables.

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// What the command is told about the server.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    /// `$uri` and `$nbd`.
    pub(crate) uri: String,
    /// `$exportname`; may be empty.
    pub(crate) export: String,
    /// `$port`: of TCP and vsock, else empty.
    pub(crate) port: Option<u32>,
    /// `$unixsocket`: absolute, else empty.
    pub(crate) unix_socket: Option<PathBuf>,
    /// `$tls`: unset without encryption, 1 when clients may, 2 when they must.
    pub(crate) tls: Option<u8>,
}

/// The shell's command line: assignments, then the command as the user wrote it. The variables are not exported,
/// so that they do not leak into programs that have variables of the same name (`tls`, `port`).
pub(crate) fn script(variables: &Variables, command: &str) -> OsString {
    let mut text = Vec::new();
    let mut assign = |name: &str, value: &OsStr| {
        text.extend_from_slice(name.as_bytes());
        text.push(b'=');
        text.extend_from_slice(quoted(value).as_bytes());
        text.push(b'\n');
    };
    assign("uri", variables.uri.as_ref());
    assign("nbd", variables.uri.as_ref());
    assign("exportname", variables.export.as_ref());
    assign("port", variables.port.map(|port| port.to_string()).unwrap_or_default().as_ref());
    assign("unixsocket", variables.unix_socket.as_deref().unwrap_or(Path::new("")).as_os_str());
    if let Some(tls) = variables.tls {
        assign("tls", tls.to_string().as_ref());
    }
    text.extend_from_slice(command.as_bytes());
    OsString::from_vec(text)
}

/// A word that the shell takes literally.
fn quoted(value: &OsStr) -> OsString {
    let mut word = vec![b'\''];
    for &byte in value.as_bytes() {
        match byte {
            b'\'' => word.extend_from_slice(b"'\\''"),
            byte => word.push(byte),
        }
    }
    word.push(b'\'');
    OsString::from_vec(word)
}

/// The command, ready to be started. `diskpipe` can be called inside even when it is not installed.
pub(crate) fn shell(variables: &Variables, command: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(script(variables, command));
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(path) = std::env::current_exe().ok().and_then(|exe| path_with(&path, &exe)) {
        shell.env("PATH", path);
    }
    shell
}

/// `path` with the directory of `exe` in front; `None` when its programs are found by it already.
fn path_with(path: &OsStr, exe: &Path) -> Option<OsString> {
    let name = exe.file_name()?;
    let found = std::env::split_paths(path).map(|dir| dir.join(name)).find(|candidate| candidate.exists());
    if found.and_then(|found| found.canonicalize().ok()).as_deref() == Some(exe) {
        return None;
    }
    let dirs = std::iter::once(exe.parent()?.to_owned()).chain(std::env::split_paths(path));
    std::env::join_paths(dirs).ok()
}

/// The command while it runs, so that another thread can ask it to end.
#[derive(Clone, Default)]
pub(crate) struct Running {
    state: Arc<Mutex<State>>,
    ended: Arc<AtomicBool>,
}

#[derive(Default)]
enum State {
    #[default]
    NotYet,
    Runs(Pid),
    /// It has ended, or must not begin.
    Over,
}

impl Running {
    /// Starts the command.
    pub(crate) fn start(&self, mut shell: Command) -> io::Result<Child> {
        let mut state = self.lock();
        if matches!(*state, State::Over) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the server was told to end"));
        }
        let child = shell.spawn()?;
        *state = State::Runs(Pid::from_child(&child));
        Ok(child)
    }

    /// Waits for the end of the command that was started.
    pub(crate) fn wait(&self, mut child: Child) -> io::Result<ExitStatus> {
        // Its number must not be used after it was reaped: first wait, then forget the number, then reap.
        let ended = rustix::process::waitid(
            WaitId::Pid(Pid::from_child(&child)),
            WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
        );
        *self.lock() = State::Over;
        ended?;
        child.wait()
    }

    /// Whether [`Running::end`] was called while it ran.
    pub(crate) fn was_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    /// Asks the command to end, or keeps it from beginning.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        self.ended.fetch_or(!matches!(*state, State::Over), Relaxed);
        match *state {
            // It may have ended by itself.
            State::Runs(pid) => drop(rustix::process::kill_process(pid, Signal::TERM)),
            State::NotYet => *state = State::Over,
            State::Over => {}
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The exit code that stands for how the command ended: its own, or 128 and the signal's number, as in shells.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(variables: &Variables, command: &str) -> String {
        let output = shell(variables, command).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn the_command_sees_every_variable_as_it_is() {
        let variables = Variables {
            uri: "nbd+unix:///a%20b%27?socket=/tmp/a%20b".into(),
            export: "it's \"a\" $HOME `b` \\ *\nc".into(),
            unix_socket: Some(PathBuf::from(OsStr::from_bytes(b"/tmp/a b"))),
            ..Variables::default()
        };
        let command = r#"printf '%s|' "$uri" "$nbd" "$exportname" "$port" "$unixsocket" "${tls-unset}""#;
        let expected = format!("{0}|{0}|{1}||/tmp/a b|unset|", variables.uri, variables.export);
        assert_eq!(said(&variables, command), expected);
        let tcp = Variables { port: Some(10809), tls: Some(2), ..Variables::default() };
        assert_eq!(said(&tcp, r#"printf '%s|' "$port" "$unixsocket" "$tls""#), "10809||2|");
    }

    #[test]
    fn the_variables_are_not_exported() {
        let variables = Variables { uri: "nbd://x".into(), tls: Some(1), ..Variables::default() };
        assert_eq!(
            said(&variables, "env | grep -E '^(uri|nbd|tls|port|exportname|unixsocket)=' || echo none"),
            "none\n"
        );
    }

    #[test]
    fn our_own_program_is_found_first() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let exe = dir.join("diskpipe");
        std::fs::write(&exe, "").unwrap();
        let path = path_with(OsStr::new("/nowhere:/usr/bin"), &exe).unwrap();
        assert_eq!(path, OsString::from(format!("{}:/nowhere:/usr/bin", dir.display())));
        assert_eq!(path_with(&path, &exe), None);
    }

    #[test]
    fn a_running_command_can_be_ended_and_a_later_one_does_not_begin() {
        let running = Running::default();
        let status = std::thread::scope(|scope| {
            let child = running.start(shell(&Variables::default(), "exec sleep 60")).unwrap();
            let run = scope.spawn(|| running.wait(child));
            running.end();
            run.join().unwrap().unwrap()
        });
        assert_eq!(exit_code(status), 128 + 15);
        running.end();
        assert!(running.start(shell(&Variables::default(), "true")).is_err());
    }

    #[test]
    fn exit_codes_are_the_commands_or_128_and_the_signal() {
        let status = |command| exit_code(shell(&Variables::default(), command).status().unwrap());
        assert_eq!(status(""), 0);
        assert_eq!(status("exit 7"), 7);
        assert_eq!(status("kill -9 $$"), 137);
        assert_eq!(status("/no/such/command 2>/dev/null"), 127);
    }
}
