//! Filters that end the server or a connection, pause it, or try again.

use e2e::{Run, Server, directory, needs};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// The server ends by itself, and well.
#[track_caller]
fn ends(mut server: Server) {
    let status = server.process.wait(LONG).unwrap_or_else(|| panic!("it goes on:\n{}", server.log()));
    assert!(status.success(), "{status}\n{}", server.log());
}

#[test]
fn the_server_ends_with_its_last_client() {
    needs!("nbdinfo", "nbdsh");
    let server = Server::ours("--filter=exitlast memory 1M");
    let two = "import os
a = nbd.NBD(); a.connect_uri(os.environ[\"u\"]); b = nbd.NBD(); b.connect_uri(os.environ[\"u\"])
a.shutdown(); b.pread(512, 0); print(\"still there\"); b.shutdown()";
    let said = Run::new("nbdsh").env("u", server.uri()).args(["-c", two]).text();
    assert_eq!(said.trim(), "still there");
    ends(server);
}

#[test]
fn with_a_command_the_servers_end_is_not_the_commands() {
    needs!("nbdinfo");
    // The server may be slower to notice than another client is to come; but the end comes, and nobody waits in vain.
    let command = "nbdinfo --size \"$uri\"; while nbdinfo \"$uri\" >/dev/null 2>&1; do :; done; echo gone";
    assert_eq!(Run::serve("--filter=exitlast memory 1M", command).text(), "1048576\ngone\n");
}

#[test]
fn a_file_ends_the_server() {
    needs!("nbdinfo");
    let dir = directory();
    let (stop, keep) = (dir.path().join("stop"), dir.path().join("keep"));
    fs::write(&keep, "").unwrap();
    let events: [(String, Box<dyn Fn()>); 2] = [
        (format!("exit-when-file-created={}", stop.display()), Box::new(|| fs::write(&stop, "").unwrap())),
        (format!("exit-when-file-deleted={}", keep.display()), Box::new(|| fs::remove_file(&keep).unwrap())),
    ];
    for (event, happens) in events {
        let server = Server::ours(&format!("--filter=exitwhen memory 1M exit-when-poll=20ms {event}"));
        Run::new("nbdinfo").arg("--size").arg(server.uri()).end().good();
        happens();
        ends(server);
    }
}

#[test]
fn a_process_a_pipe_or_a_script_ends_the_server() {
    let dir = directory();
    // The shell waits for its child, so that it is gone and not merely dead.
    let process = "sleep 0.3 & diskpipe serve -f -U s1 --filter=exitwhen memory 1M exit-when-poll=20ms exit-when-process-exits=$!";
    let pipe = "sleep 0.3 | diskpipe serve -f -U s2 --filter=exitwhen memory 1M exit-when-poll=20ms exit-when-pipe-closed=3 3<&0";
    let script = "diskpipe serve -f -U s3 --filter=exitwhen memory 1M exit-when-poll=20ms 'exit-when-script=echo >> n; test $(wc -l < n) -lt 4 || exit 88'";
    for command in [process, pipe, script] {
        Run::sh(command).in_directory(dir.path()).end().good();
    }
    assert_eq!(fs::read(dir.path().join("n")).unwrap().len(), 4);
}

#[test]
fn after_the_event_clients_finish_and_nobody_else_comes_in() {
    needs!("nbdsh");
    let dir = directory();
    let stop = dir.path().join("stop");
    let server =
        Server::ours(&format!("--filter=exitwhen memory 1M exit-when-file-created={}", stop.display()));
    let script = "import os
u = os.environ[\"u\"]; a = nbd.NBD(); a.connect_uri(u)
open(os.environ[\"stop\"], \"w\").close()
try:
  nbd.NBD().connect_uri(u); print(\"came in\")
except nbd.Error: print(\"refused\")
print(len(a.pread(512, 0))); a.shutdown()";
    let said = Run::new("nbdsh").env("u", server.uri()).env("stop", &stop).args(["-c", script]).text();
    assert_eq!(said, "refused\n512\n");
    ends(server);
}

#[test]
fn a_connection_ends_with_its_time() {
    needs!("nbdsh");
    let script = "import os, time
def connect():
  h = nbd.NBD(); h.connect_uri(os.environ[\"uri\"]); return h
h = connect(); time.sleep(0.4)
try:
  h.pread(512, 0); print(\"went on\")
except nbd.Error: print(\"cut\")
try:
  h.pread(512, 0); print(\"went on\")
except nbd.Error: print(\"gone\")
print(len(connect().pread(512, 0)))";
    let command = format!("export uri; nbdsh -c '{script}'");
    assert_eq!(
        Run::serve("--filter=time-limit memory 1M time-limit=300ms", &command).text(),
        "cut\ngone\n512\n"
    );
}

#[test]
fn requests_pause_and_go_on() {
    needs!("nbdsh");
    let dir = directory();
    let path = dir.path().join("control");
    let server = Server::ours(&format!("--filter=pause memory 1M pause-control={}", path.display()));
    let mut control = UnixStream::connect(&path).unwrap();
    control.set_read_timeout(Some(LONG)).unwrap();
    let mut say = |letter: &[u8]| {
        control.write_all(letter).unwrap();
        let mut answer = [0];
        control.read_exact(&mut answer).unwrap();
        answer[0] as char
    };
    assert_eq!([say(b"p"), say(b"?")], ['P', 'X']);
    let answered = dir.path().join("answered");
    let script = "import os
h.pread(512, 0); open(os.environ[\"answered\"], \"w\").close()";
    let client =
        Run::new("nbdsh").env("answered", &answered).arg("-u").arg(server.uri()).args(["-c", script]);
    let mut client = client.start();
    assert!(client.wait(Duration::from_millis(500)).is_none(), "it waits");
    assert!(!answered.exists());
    assert_eq!(say(b"r"), 'R');
    assert!(client.wait(LONG).is_some_and(|status| status.success()));
    assert!(answered.exists());
    server.stop();
    assert!(!path.exists());
}

#[test]
fn what_fails_now_and_then_is_copied_all_the_same() {
    needs!("nbdcopy", "cmp");
    let dir = directory();
    for retry in [
        "--filter=retry-request --filter=error pattern 4M error-rate=20% retry-request-retries=50 retry-request-delay=0",
        "--filter=retry --filter=error pattern 4M error-rate=20% retries=50 retry-delay=1ms retry-exponential=no",
    ] {
        let command = "nbdcopy \"$uri\" tried && diskpipe serve pattern 4M --run 'nbdcopy \"$uri\" right' && cmp tried right";
        Run::serve(retry, command).in_directory(dir.path()).end().good();
    }
}

#[test]
fn a_server_that_went_away_and_came_back_is_connected_to_again() {
    needs!("nbdsh");
    let dir = directory();
    let socket = dir.path().join("back");
    let back = || {
        let mut run = Run::diskpipe().words("serve -f -U").arg(&socket).words("pattern 1M").start();
        while !e2e::listens(&socket) {
            assert!(run.wait(Duration::from_millis(5)).is_none());
        }
        run
    };
    let first = back();
    let front = Server::ours(&format!(
        "--filter=retry nbd socket={} retries=200 retry-delay=50ms retry-exponential=no",
        socket.display()
    ));
    let script = "import os, time
a = h.pread(512, 4096)
open(os.environ[\"go\"], \"w\").close()
while os.path.exists(os.environ[\"go\"]): time.sleep(0.01)
assert h.pread(512, 4096) == a";
    let go = dir.path().join("go");
    let client = Run::new("nbdsh").env("go", &go).arg("-u").arg(front.uri()).args(["-c", script]);
    let mut client = client.start();
    while !go.exists() {
        assert!(client.wait(Duration::from_millis(5)).is_none());
    }
    drop(first);
    fs::remove_file(&socket).unwrap();
    fs::remove_file(&go).unwrap();
    let second = back();
    assert!(client.wait(LONG).is_some_and(|status| status.success()), "{}", front.log());
    drop(second);
}

#[test]
fn what_was_not_rescued_fails_as_with_the_peer() {
    needs!("nbdkit", "nbdsh");
    let dir = directory();
    let map = dir.path().join("map");
    fs::write(&map, "# Mapfile\n0x0 ? 1\n0x0 0x200 +\n0x200 0x200 -\n0x400 0x200 ?\n0x600 0x200 *\n0x800 0x200 /\n0xA00 0x600 +\n")
        .unwrap();
    let script = "for i in range(16):
  try:
    h.pread(512, i * 512); print(i, \"ok\")
  except nbd.Error as e: print(i, e.errno)
print(h.is_read_only())";
    let arguments = format!("--filter=ddrescue pattern 8192 ddrescue-mapfile={}", map.display());
    let command = format!("nbdsh -u \"$uri\" -c '{script}'");
    let ours = Run::serve(&arguments, &command).text();
    let theirs = Run::new("nbdkit").words("-U -").words(&arguments).args(["--run", &command]).text();
    assert_eq!(ours, theirs);
}

#[test]
fn stuck_bits_stay_where_they_are_with_one_seed() {
    needs!("nbdcopy", "sha256sum");
    let sum = |seed: u32| {
        let arguments = format!("--filter=evil pattern 8M evil-probability=1e-5 evil-seed={seed}");
        Run::serve(&arguments, "nbdcopy \"$uri\" - | sha256sum").text()
    };
    assert_eq!(sum(1), sum(1));
    assert_ne!(sum(1), sum(2));
}
