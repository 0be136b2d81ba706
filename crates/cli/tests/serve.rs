//! `diskpipe serve` as its users meet it: variables, exit codes, background, signals, help. No peers are needed here.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// `diskpipe serve` with these arguments.
fn serve(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_diskpipe"));
    command.arg("serve").args(args).stdin(Stdio::null());
    command
}

fn output(args: &[&str]) -> Output {
    serve(args).output().unwrap()
}

fn stdout(args: &[&str]) -> String {
    let output = output(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What the first line on standard error says; the program must have failed.
fn complaint(args: &[&str]) -> String {
    let output = output(args);
    assert_eq!(output.status.code(), Some(1), "{args:?}");
    assert!(output.stdout.is_empty(), "{args:?}");
    String::from_utf8(output.stderr).unwrap().lines().next().unwrap_or_default().to_owned()
}

/// Waits until `done`, but not for ever.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn greeting(mut from: impl Read) -> [u8; 16] {
    let mut bytes = [0; 16];
    from.read_exact(&mut bytes).unwrap();
    bytes
}

const GREETING: [u8; 16] = *b"NBDMAGICIHAVEOPT";

#[test]
fn the_command_sees_a_private_socket_that_is_gone_afterwards() {
    let command = r#"test -S "$unixsocket" && test "$uri" = "$nbd" && printf '%s\n' "$uri" "$unixsocket" "$exportname" "$port""#;
    let said = stdout(&["-U", "-", "-e", "a b", "memory", "1M", "--run", command]);
    let lines: Vec<&str> = said.lines().collect();
    let [uri, socket, export, port] = lines[..] else { panic!("{said}") };
    assert_eq!(uri, format!("nbd+unix:///a%20b?socket={socket}"));
    assert_eq!((export, port), ("a b", ""));
    assert!(!Path::new(socket).parent().unwrap().exists());
}

#[test]
fn the_command_sees_a_port() {
    let said =
        stdout(&["-p", "0", "-i", "127.0.0.1", "memory", "1M", "--run", "echo $uri $port [$unixsocket]"]);
    let port = said.split(' ').nth(1).unwrap();
    assert_eq!(said, format!("nbd://localhost:{port} {port} []\n"));
    assert!(port.parse::<u16>().unwrap() > 0);
}

#[test]
fn the_exit_code_is_the_commands() {
    let code = |command| output(&["-U", "-", "memory", "1M", "--run", command]).status.code();
    assert_eq!(code(""), Some(0));
    assert_eq!(code("exit 7"), Some(7));
    assert_eq!(code("kill -9 $$"), Some(137));
}

#[test]
fn our_own_program_can_be_called_inside() {
    assert_eq!(
        stdout(&["-U", "-", "memory", "1M", "--run", "diskpipe --version"]),
        format!("diskpipe {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_signal_ends_the_command_and_the_server() {
    let mut child = serve(&["-U", "-", "memory", "1M", "--run", "echo ready; exec sleep 60"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    kill(child.id(), "TERM");
    // It did what it was told.
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn in_the_background_clients_can_connect_as_soon_as_the_starter_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, pid_file) = (dir.path().join("s"), dir.path().join("pid"));
    let status = serve(&["-U", "s", "-P", "pid", "memory", "1M"]).current_dir(dir.path()).status().unwrap();
    assert!(status.success());
    assert_eq!(greeting(UnixStream::connect(&socket).unwrap()), GREETING);
    let pid: u32 = fs::read_to_string(&pid_file).unwrap().trim_end().parse().unwrap();
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    kill(pid, "TERM");
    until("the server ends", || UnixStream::connect(&socket).is_err());
    assert!(socket.exists() && pid_file.exists(), "both are the caller's to remove");
}

#[test]
fn the_starter_fails_when_the_server_cannot_begin() {
    assert!(complaint(&["-U", "/no/such/dir/s", "memory", "1M"]).contains("/no/such/dir/s"));
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let line = complaint(&["-U", socket.to_str().unwrap(), "-P", "/no/such/dir/p", "memory", "1M"]);
    assert!(line.contains("/no/such/dir/p"), "{line}");
    assert!(UnixStream::connect(&socket).is_err(), "nobody serves");
}

#[test]
fn one_client_is_served_on_standard_input_and_output() {
    let mut child =
        serve(&["-s", "memory", "1M"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(greeting(child.stdout.as_mut().unwrap()), GREETING);
    // Client flags, then NBD_OPT_ABORT.
    let mut client = child.stdin.take().unwrap();
    client.write_all(b"\0\0\0\x03IHAVEOPT\0\0\0\x02\0\0\0\0").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_server_ends_with_its_parent() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let script = format!(
        "'{}' serve --exit-with-parent -U '{}' memory 1M & while ! test -S '{1}'; do sleep 0.01; done",
        env!("CARGO_BIN_EXE_diskpipe"),
        socket.display(),
    );
    assert!(Command::new("/bin/sh").args(["-c", &script]).stdin(Stdio::null()).status().unwrap().success());
    until("the server ends", || UnixStream::connect(&socket).is_err());
}

#[test]
fn under_the_name_nbdkit_it_is_serve() {
    let nbdkit = |args: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_diskpipe")).arg0("/x/nbdkit").args(args).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, said, _) = nbdkit(&["--version", "--filter=offset", "memory"]);
    assert_eq!(code, Some(0));
    let lines: Vec<&str> = said.lines().collect();
    let version = lines[0].strip_prefix("nbdkit 1.").unwrap();
    assert_eq!(lines[1..], [format!("offset 1.{version}"), format!("memory 1.{version}")]);
    let (code, _, complaint) = nbdkit(&["-U", "-", "memory", "1M", "x=1"]);
    assert_eq!((code, complaint.as_str()), (Some(1), "nbdkit: error: unknown parameter 'x'\n"));
}

#[test]
fn wrong_command_lines_are_told_on_standard_error() {
    assert!(
        complaint(&["nosuch"]).starts_with("diskpipe serve: error: there is no plugin nosuch; there are ")
    );
    assert!(complaint(&[]).ends_with("no plugin is given: try --help"));
    assert!(complaint(&["memory", "9Q"]).ends_with("size=9Q: not a size such as 512, 64K or 1M"));
    assert!(
        complaint(&["--tls=require", "--tls-certificates=/nonexistent", "memory", "1M"])
            .ends_with("--tls=require: /nonexistent/server-cert.pem: No such file or directory")
    );
    assert!(complaint(&["-s", "--dump-plugin", "memory"]).contains("-s and --dump-plugin"));
}

#[test]
fn help_names_the_options_and_the_parameters() {
    let help = stdout(&["--filter=offset", "memory", "--help"]);
    for part in ["--exit-with-parent", "filter: offset: ", "range=SIZE", "plugin: memory: ", "[size=]SIZE"] {
        assert!(help.contains(part), "{part}\n{help}");
    }
    assert!(stdout(&["--help"]).contains("\nPlugins: "));
}

#[test]
fn scripts_can_probe() {
    let config = stdout(&["--dump-config"]);
    for key in [
        "binary=/",
        "bindir=/",
        "host_os=linux-gnu",
        "version_major=1",
        "version_minor=",
        "exit_with_parent=yes",
    ] {
        assert!(config.lines().any(|line| line.starts_with(key)), "{key}\n{config}");
    }
    let plugin = stdout(&["memory", "--dump-plugin"]);
    for line in ["name=memory", "max_thread_model=parallel", "thread_model=parallel", "magic_config_key=size"]
    {
        assert!(plugin.lines().any(|l| l == line), "{line}\n{plugin}");
    }
    let short = stdout(&["--short-options"]);
    assert!(short.lines().any(|line| line == "-U") && short.lines().all(|line| line.len() == 2));
    let long = stdout(&["--long-options"]);
    assert!(long.lines().any(|line| line == "--export-name") && !long.contains("--long-options"));
}

#[test]
fn debug_flags_that_nobody_has_are_only_warned_about() {
    let output = output(&["-U", "-", "-D", "foo.bar=1", "-D", "memory.x=1", "memory", "1M", "--run", "true"]);
    assert!(output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("debug flag -D foo.bar was not used"), "{told}");
    assert!(told.contains("memory does not contain a global variable called memory_debug_x"), "{told}");
    let told =
        serve(&["-U", "-", "-D", "nbdkit.x=1", "-D", "nbdkit.tls.log=1", "memory", "1M", "--run", "true"])
            .output()
            .unwrap();
    let told = String::from_utf8(told.stderr).unwrap();
    assert!(told.contains("nbdkit does not contain a global variable called nbdkit_debug_x"), "{told}");
    assert!(!told.contains("tls"), "{told}");
}

fn kill(pid: u32, signal: &str) {
    let status = Command::new("kill").args(["-s", signal, &pid.to_string()]).status().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(0), None));
}
