//! `diskpipe shell`, also as `nbdsh`: command lines as people have them for the peer's, and the shell on a terminal.

use e2e::{Run, Server, directory, needs, python_module, python_path};
use std::{fs, os::unix::fs::symlink};

/// The shell under its peer's name, with our module.
fn shell(arguments: &[&str]) -> Run {
    // What the program is called is its first word, whatever its file is called.
    let script = "exec -a nbdsh \"$0\" \"$@\"";
    let run = Run::new("bash").args(["-c", script]).arg(e2e::diskpipe()).args(arguments);
    run.env("PYTHONPATH", python_path()).env("PYTHONDONTWRITEBYTECODE", "1")
}

#[test]
fn a_line_reads_the_first_sector() {
    let server = Server::ours("ones 1M");
    let said = shell(&["-u", &server.uri(), "-c", r#"print("%r" % h.pread(512,0))"#]).text();
    assert!(said.starts_with(r"bytearray(b'\xff\xff\xff"), "{said}");
}

#[test]
fn a_disk_that_was_too_small_takes_the_write_after_a_resize() {
    let server = Server::ours("--resize memory 1K max-size=1M");
    let write = r#"h.pwrite(b"hello", 2048)"#;
    let refused = shell(&["-u", &server.uri(), "-c", write]).end().code(1);
    let line = "nbdsh: command line script failed: nbd_pwrite: ";
    assert!(refused.stderr.starts_with(line) && refused.stderr.lines().count() == 1, "{}", refused.stderr);
    let steps = ["-c", "print(h.get_size())", "-c", "print(h.resize(4096))", "-c", write];
    let end = ["-c", "print(bytes(h.pread(6, 2047)))", "-c", "h.shutdown()"];
    let said = shell(&["-u", &server.uri()]).args(steps).args(end).text();
    assert_eq!(said, "1024\n4096\nb'\\x00hello'\n");
}

#[test]
fn options_mean_what_they_mean_to_the_peers_scripts() {
    let server = Server::ours("memory 1M");
    let uri = server.uri();
    let text = |arguments: &[&str]| shell(arguments).text();
    assert_eq!(text(&["-c", "x = 1", "-c", "print(x, __name__, nbd.__name__)"]), "1 nbdsh nbd\n");
    assert_eq!(
        text(&["-c", "print(h.aio_is_created())", "--ur", &uri, "-c", "print(h.get_size())"]),
        "True\n1048576\n"
    );
    assert_eq!(text(&["-n", "-c", "print('h' in globals())"]), "False\n");
    assert_eq!(
        text(&["--base-allocation", "-u", &uri, "-c", "print(h.can_meta_context('base:allocation'))"]),
        "True\n"
    );
    assert_eq!(
        text(&[
            "--opt-mode",
            "-u",
            &uri,
            "-c",
            "print(h.aio_is_negotiating()); h.opt_go(); print(h.get_size())"
        ]),
        "True\n1048576\n"
    );
    let program = format!("h.connect_uri({uri:?})\ndef size():\n    return h.get_size()\nprint(size())\n");
    assert_eq!(shell(&["-c", "-"]).input(program.as_bytes()).text(), "1048576\n");
    assert_eq!(text(&["-c", "print(h.get_handle_name(), sys.argv)"]), "nbdsh ['nbdsh']\n");
    shell(&["-c", "exit(5)"]).end().code(5);
    let trace = shell(&["-c", "raise ValueError(1)"]).end().code(1);
    assert!(
        trace.stderr.contains("Traceback") && trace.stderr.ends_with("ValueError: 1\n"),
        "{}",
        trace.stderr
    );
    let failed = shell(&["-c", "h.pread(1, 0)"]).end().code(1);
    assert!(failed.stderr.starts_with("nbdsh: command line script failed: nbd_pread: "), "{}", failed.stderr);
    let verbose = shell(&["-v", "-c", "h.pread(1, 0)"]).end().code(1);
    assert!(
        verbose.stderr.contains("Traceback") && verbose.stderr.contains("libnbd: debug: nbdsh: nbd_pread: ")
    );
    let unreachable = shell(&["-u", "nbd+unix:///?socket=/nonexistent"]).end().code(1);
    assert!(unreachable.stderr.contains("No such file or directory"), "{}", unreachable.stderr);
    let twice = shell(&["-u", &uri, "-u", &uri, "-c", "1"]).end().code(1);
    assert!(
        twice.stderr.starts_with("nbdsh: command line script failed: nbd_connect_uri: "),
        "{}",
        twice.stderr
    );
    for nonsense in [&["--bogus"][..], &["word"], &["-c"], &["-n", "-u", &uri]] {
        shell(nonsense).end().code(2);
    }
    let version = text(&["--version"]);
    assert!(
        version.starts_with("nbdsh 1.") && version.lines().nth(1).unwrap().starts_with("libnbd 1."),
        "{version}"
    );
    let long = text(&["--long-options"]);
    for option in ["--base-allocation", "--command", "--opt-mode", "--uri", "--verbose", "--version"] {
        assert!(long.lines().any(|line| line == option), "{long}");
    }
}

#[test]
fn the_module_is_found_beside_the_program_or_in_the_system_or_its_want_is_told() {
    let directory = directory();
    let bin = directory.path().join("bin");
    fs::create_dir(&bin).unwrap();
    // A copy: a link would lead back to where the module may be. Made by a program of its own: a child that another test
    // starts meanwhile would keep a file of ours open for writing, and such a file cannot be run.
    let binary = bin.join("diskpipe");
    Run::new("cp").arg(e2e::diskpipe()).arg(&binary).end().good();
    let line = ["shell", "-c", "print(nbd.__file__); print(hasattr(h, 'resize'))"];

    let peers = Run::new(&binary).args(line).env("PYTHONPATH", "").end();
    match e2e::absent(&["/usr/bin/nbdsh"]) {
        false => assert!(peers.good().text().ends_with("False\n")),
        true => assert!(peers.code(1).stderr.contains("has no module nbd; this installs it: ")),
    }
    // A Python that looks nowhere knows no module.
    let none = Run::new(&binary).args(line).env("PYTHONHOME", "/nonexistent").end();
    assert!(!none.status.success());

    for place in ["bin/python", "lib/diskpipe/python"] {
        let place = directory.path().join(place);
        python_module(&place);
        let said = Run::new(&binary).args(line).env("PYTHONDONTWRITEBYTECODE", "1").text();
        assert!(said.ends_with("True\n"), "{said}");
        fs::remove_dir_all(place).unwrap();
    }
    let nowhere = Run::new(&binary).args(line).env("PATH", "/nonexistent").end().code(1);
    assert!(nowhere.stderr.contains("there is no Python 3 here"), "{}", nowhere.stderr);
}

/// A program on a terminal of its own, which types lines when it is asked for them.
const TERMINAL: &str = r#"
import os, pty, select, sys, time
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], ["nbdsh", "-u", sys.argv[2]])
said, end = b"", time.monotonic() + 60
def until(what):
    global said
    while what not in said:
        assert time.monotonic() < end, said
        if select.select([terminal], [], [], 1)[0]:
            try:
                said += os.read(terminal, 4096)
            except OSError:
                break
    assert what in said, said
    said = said.split(what, 1)[1]
until(b"Welcome to nbdsh")
until(b"READY")
for line, answer in [("h.get_size()", b"1048576"), ("h.pwrite(b'abc', 0)", b"'abc', 0)"), ("bytes(h.pread(3, 0))", b"b'abc'"),
                     ("h.pread(1, 1 << 30)", b"nbd.Error: nbd_pread"), ("h", b"READY")]:
    until(b"nbd> ")
    os.write(terminal, line.encode() + b"\n")
    until(answer)
until(b"nbd> ")
os.write(terminal, b"exit()\n")
print("exit code", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

#[test]
fn on_a_terminal_it_asks_and_answers() {
    needs!("python3");
    let server = Server::ours("memory 1M");
    let module = directory();
    python_module(module.path());
    let name = module.path().join("nbdsh");
    symlink(e2e::diskpipe(), &name).unwrap();
    let run = Run::new("python3").args(["-c", TERMINAL]).arg(&name).arg(server.uri());
    let said = run.env("PYTHONPATH", module.path()).env("TERM", "dumb").seconds(90).text();
    assert_eq!(said, "exit code 0\n");
}
