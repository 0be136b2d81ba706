//! Running the tools of the trade: what they print is shown as it comes, and looked at.

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

/// For so long no step is silent, not even the last one of an optimised build on a small machine.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// How a line begins that says what was killed.
pub(crate) const KILLED: &str = "KILLED: ";

/// The workspace's directory.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

/// Where cargo builds.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Cargo, in the workspace.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(args).current_dir(root());
    // What `cargo xtask` itself was given is not meant for what it starts.
    for key in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
        cargo.env_remove(key);
    }
    cargo
}

/// Says what is done, does it, and shows every line while `look` sees it too. What hangs is killed, and the command goes on.
pub(crate) fn watched(command: Command, look: impl FnMut(&str)) -> Result<ExitStatus> {
    watched_for(PATIENCE, command, look)
}

fn watched_for(patience: Duration, mut command: Command, mut look: impl FnMut(&str)) -> Result<ExitStatus> {
    let name = spelled(&command);
    println!("\n==> {name}");
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{name} cannot be run"))?;
    let (lines, incoming) = mpsc::channel();
    let streams: [Box<dyn std::io::Read + Send>; 2] = [
        Box::new(child.stdout.take().context("standard output was piped")?),
        Box::new(child.stderr.take().context("standard error was piped")?),
    ];
    for stream in streams {
        let lines = lines.clone();
        std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
                line.clear();
            }
        });
    }
    drop(lines);
    loop {
        let line = match incoming.recv_timeout(patience) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                format!("{KILLED}{} after {} s of silence\n", kill_children(child.id()), patience.as_secs())
            }
        };
        look(line.trim_end());
        print!("{line}");
        let _ = std::io::stdout().flush();
    }
    let status = child.wait()?;
    println!("<== {:.0} s, {status}", start.elapsed().as_secs_f32());
    Ok(status)
}

/// Kills what a process has started itself: of cargo, a test program. Their names.
fn kill_children(of: u32) -> String {
    let children = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    let mut names = Vec::new();
    for child in children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
        let name = std::fs::read_link(format!("/proc/{}/exe", child.as_raw_pid())).unwrap_or_default();
        names.push(name.file_name().unwrap_or_default().to_string_lossy().into_owned());
        let _ = kill_process(child, Signal::KILL);
    }
    names.join(", ")
}

/// The command as a person would type it.
fn spelled(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
    let args = command.get_args().map(|arg| arg.to_string_lossy());
    std::iter::once(program).chain(args).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_killed_and_the_rest_goes_on() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000; echo after"]);
        let mut lines = Vec::new();
        let end = watched_for(Duration::from_secs(1), command, |line| lines.push(line.to_owned())).unwrap();
        assert!(end.success());
        assert!(lines.iter().any(|line| line == "after"), "{lines:?}");
        assert!(lines[0].starts_with(KILLED), "{lines:?}");
    }
}
