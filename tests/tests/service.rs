//! `serve` as a service: socket activation, messages to those who manage it, another user, a file of exports, and an
//! end in good order.

use e2e::command::{FLUSH, READ, WRITE};
use e2e::{PATIENCE, Process, Run, Server, Way, Wire, absent, directory, needs, reply, request};
use rustix::process::Signal;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The cookie of the next simple reply, which must be good; `None` at the end.
fn answered(stream: &mut impl Read) -> Option<u64> {
    let (cookie, error) = reply(stream).ok()?;
    assert_eq!(error, 0);
    Some(cookie)
}

/// Waits until it holds, but not for ever.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn size(uri: &str) -> String {
    Run::diskpipe().args(["info", "--size", uri]).text().trim().to_owned()
}

/// Ends the server whose process id stands in this file.
fn end(pid_file: &Path) {
    Run::sh(&format!("kill $(cat '{}')", pid_file.display())).end().good();
}

#[test]
fn systemds_own_starter_hands_its_socket_over() {
    needs!("systemd-socket-activate");
    let dir = directory();
    let socket = dir.path().join("s");
    let starter = Run::new("systemd-socket-activate").arg("-l").arg(&socket).arg("--fdname=disk");
    let _starter = starter.arg(e2e::diskpipe()).words("serve -v memory 1M").start();
    until("the starter listens", || e2e::listens(&socket));
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    assert_eq!(size(&uri), "1048576");
}

#[test]
fn a_parent_hands_several_named_sockets_over() {
    needs!("python3");
    let dir = directory();
    let parent = r#"
import fcntl, os, socket, sys
out_of_the_way = []
for path in sys.argv[2:4]:
    s = socket.socket(socket.AF_UNIX); s.bind(path); s.listen()
    out_of_the_way.append(fcntl.fcntl(s.fileno(), fcntl.F_DUPFD, 10))
for number, descriptor in enumerate(out_of_the_way):
    os.dup2(descriptor, 3 + number)
os.environ.update(LISTEN_FDS="2", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES=sys.argv[4])
os.execv(sys.argv[1], [sys.argv[1], "serve", *sys.argv[5:]])
"#;
    let start = |names: &str, options: &str| {
        let sockets = [dir.path().join(format!("{names}1")), dir.path().join(format!("{names}2"))];
        let python = Run::new("python3").args(["-c", parent]).arg(e2e::diskpipe()).args(&sockets).arg(names);
        (python.words(options), sockets)
    };
    let (run, sockets) = start("one:two", "-v memory 1M");
    let process = run.start();
    for socket in &sockets {
        until("it listens", || UnixStream::connect(socket).is_ok());
        assert_eq!(size(&format!("nbd+unix:///?socket={}", socket.display())), "1048576");
    }
    drop(process);
    for (option, words) in
        [("-U", "-U -"), ("-p", "-p 0"), ("-i", "-i ::1"), ("--run", "--run true"), ("-s", "-s")]
    {
        let (run, _) = start(&format!("a{option}:b"), &format!("{words} memory 1M"));
        let told = run.end().code(1).stderr;
        assert!(
            told.contains(&format!("{option} cannot be used by a process that was started with sockets")),
            "{told}"
        );
    }
    let told = start("only-one", "memory 1M").0.end().code(1).stderr;
    assert!(told.contains("LISTEN_FDNAMES=only-one names 1 sockets"), "{told}");
}

#[test]
fn programs_of_others_and_our_own_start_a_server_by_its_socket() {
    let command = ["[", e2e::diskpipe().to_str().unwrap(), "serve", "memory", "3M", "]"];
    assert_eq!(Run::diskpipe().args(["info", "--size", "--"]).args(command).text(), "3145728\n");
    if !absent(&["nbdinfo"]) {
        assert_eq!(Run::new("nbdinfo").args(["--size", "--"]).args(command).text(), "3145728\n");
    }
    if !absent(&["nbdcopy"]) {
        let copied = Run::new("nbdcopy").arg("--").args(command).arg("-").end().good();
        assert!(copied.stdout.len() == 3 << 20 && copied.stdout.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn the_manager_is_told_when_it_serves_reloads_and_ends() {
    let dir = directory();
    let (notify, socket, config) =
        (dir.path().join("notify"), dir.path().join("s"), dir.path().join("exports.toml"));
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut room = [0; 500];
        let n = manager.recv(&mut room).unwrap();
        String::from_utf8_lossy(&room[..n]).into_owned()
    };
    fs::write(&config, "[export.a]\nplugin = 'memory'\nparams.size = '1M'\n").unwrap();
    let serve = Run::diskpipe().words("serve -f -U").arg(&socket).arg("--config").arg(&config);
    let mut process = serve.env("NOTIFY_SOCKET", &notify).start();
    let ready = told();
    assert!(ready.contains("READY=1") && ready.contains(&format!("MAINPID={}", process.id())), "{ready}");
    assert!(UnixStream::connect(&socket).is_ok());
    process.signal(Signal::HUP);
    assert!(told().contains("RELOADING=1"));
    assert!(told().contains("READY=1"));
    process.signal(Signal::TERM);
    assert!(told().contains("STOPPING=1"));
    assert!(process.wait(PATIENCE).is_some_and(|status| status.success()));
}

/// That is worth a line in the log.
fn go_away_in_the_handshake(mut stream: UnixStream) {
    stream.read_exact(&mut [0; 18]).unwrap();
    stream.write_all(b"\0").unwrap();
}

#[test]
fn in_the_background_errors_go_to_the_system_log() {
    // A place of its own for /dev/log, seen by the server alone.
    let dir = directory();
    let dev = dir.path().join("dev");
    fs::create_dir(&dev).unwrap();
    let log = UnixDatagram::bind(dir.path().join("log")).unwrap();
    log.set_read_timeout(Some(PATIENCE)).unwrap();
    let (place, pid, socket) = (dir.path().display(), dir.path().join("pid"), dir.path().join("s"));
    let script = format!(
        "for f in null urandom; do touch {place}/dev/$f; mount --bind /dev/$f {place}/dev/$f; done; \
         ln -s {place}/log {place}/dev/log; mount --rbind {place}/dev /dev; \
         exec '{}' serve -P {} -U {} memory 1M",
        e2e::diskpipe().display(),
        pid.display(),
        socket.display()
    );
    if !Run::new("unshare").args(["--mount", "mount", "--bind", "/tmp", "/tmp"]).end().status.success() {
        println!("SKIPPED: needs the right to mount");
        return;
    }
    Run::new("unshare").args(["--mount", "sh", "-e", "-c", &script]).end().good();
    go_away_in_the_handshake(UnixStream::connect(&socket).unwrap());
    let mut room = [0; 500];
    let n = log.recv(&mut room).unwrap();
    let line = String::from_utf8_lossy(&room[..n]).into_owned();
    let id = fs::read_to_string(&pid).unwrap();
    assert!(line.starts_with(&format!("<27>diskpipe[{}]: error: connection 1: ", id.trim())), "{line}");
    Run::sh(&format!("kill {id}")).end().good();
}

#[test]
fn a_log_that_was_moved_away_is_begun_again() {
    let dir = directory();
    let (file, moved) = (dir.path().join("log"), dir.path().join("log.1"));
    let server = Server::ours(&format!("--log={} memory 1M", file.display()));
    let text = |file: &Path| fs::read_to_string(file).unwrap_or_default();
    let noise = || go_away_in_the_handshake(server.connect());
    noise();
    until("it tells", || text(&file).contains("connection 1: "));
    fs::rename(&file, &moved).unwrap();
    server.process.signal(Signal::USR1);
    until("the file is there again", || file.exists());
    noise();
    until("it tells again", || text(&file).contains("connection 2: "));
    assert!(!text(&moved).contains("connection 2: "));
    assert!(server.stop().0.is_some_and(|status| status.success()));
}

#[test]
fn the_server_becomes_another_user_and_its_command_does_not() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: needs root");
        return;
    }
    let status = r#"grep -E "^(Uid|Gid|Groups):" /proc/$PPID/status | tr -s '\t ' ' '; id -u"#;
    for (options, expected) in [
        (
            "-u nobody -g 12345",
            "Uid: 65534 65534 65534 65534\nGid: 12345 12345 12345 12345\nGroups: 12345 \n0\n",
        ),
        ("--user=65534", "Uid: 65534 65534 65534 65534\nGid: 0 0 0 0\nGroups: \n0\n"),
        ("--group=12345", "Uid: 0 0 0 0\nGid: 12345 12345 12345 12345\nGroups: 12345 \n0\n"),
    ] {
        // The server changes at about the time when the command begins.
        let command = format!("diskpipe info --size \"$uri\" >/dev/null; {status}");
        assert_eq!(Run::serve(&format!("{options} memory 1M"), &command).text(), expected, "{options}");
    }
    let told = Run::diskpipe().words("serve -u no-such-user memory 1M").end().code(1).stderr;
    assert!(told.contains("-u no-such-user: there is no such user"), "{told}");
}

/// A server of a file of exports, and how to change the file.
struct Configured {
    server: Server,
    file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Configured {
    fn start(text: &str) -> Configured {
        let dir = directory();
        let file = dir.path().join("exports.toml");
        fs::write(&file, text).unwrap();
        fs::write(dir.path().join("disk.img"), vec![1; 1 << 20]).unwrap();
        let server = Server::start(|socket| {
            Run::diskpipe()
                .words("serve -f --log-format=json -U")
                .arg(socket)
                .arg("--config")
                .arg(&file)
                .env("DISKPIPE_LOG", "info")
        });
        Configured { server, file, _dir: dir }
    }

    /// Changes the file and waits until the server has read it.
    fn change(&mut self, text: &str, said: &str) {
        fs::write(&self.file, text).unwrap();
        self.server.process.signal(Signal::HUP);
        self.server.until(said, |server| server.log().contains(said));
    }

    fn size(&self, export: &str) -> String {
        size(&self.server.uri_of(export))
    }
}

const EXPORTS: &str = r#"
default = "root"
[export.root]
plugin = "file"
params = ["disk.img"]
filters = ["cow", { filter = "offset", offset = 512 }]
description = "the root disk"
[export.kept]
plugin = "memory"
params = { size = "1M" }
[export.changed]
plugin = "memory"
params = { size = "1M" }
read-only = true
"#;

#[test]
fn a_file_of_exports_is_served_and_read_again_without_dropping_anybody() {
    let mut configured = Configured::start(EXPORTS);
    assert_eq!(configured.size(""), "1048064");
    assert_eq!(configured.size("root"), "1048064");
    let list = Run::diskpipe().args(["info", "--list", "--json"]).arg(configured.server.uri()).text();
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let of = |name: &str| {
        let exports = list["exports"].as_array().unwrap();
        exports
            .iter()
            .find(|export| export["export-name"] == name)
            .unwrap_or_else(|| panic!("{list}"))
            .clone()
    };
    assert_eq!(of("root")["description"], "the root disk");
    assert_eq!(of("changed")["is_read_only"], true);
    assert_eq!(of("kept")["is_read_only"], false);

    // Bytes in memory, and a connection that stays.
    let uri = configured.server.uri_of("kept");
    Run::sh(&format!("printf hello | diskpipe copy - '{uri}'")).end().good();
    let mut stays = configured.server.connect();
    stays.read_exact(&mut [0; 18]).unwrap();
    stays.write_all(b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x07changed").unwrap();
    stays.read_exact(&mut [0; 10]).unwrap();

    configured.change(
        &EXPORTS
            .replacen("[export.kept]", "[export.new]\nplugin = 'null'\n[export.kept]", 1)
            .replace("\"1M\" }\nread-only", "\"2M\" }\nread-only"),
        "4 exports, 2 of them as before",
    );
    assert_eq!(configured.size("changed"), "2097152");
    assert_eq!(configured.size("new"), "0");
    let kept = Run::diskpipe().args(["copy", &uri, "-"]).end().good().stdout;
    assert!(kept.starts_with(b"hello"), "what has not changed was not started again");
    stays.write_all(&request(READ, 1, (1 << 20) - 512, 512)).unwrap();
    assert_eq!(answered(&mut stays), Some(1));
    stays.read_exact(&mut [0; 512]).unwrap();
    stays.write_all(&request(READ, 2, 1 << 20, 512)).unwrap();
    let (_, refusal) = reply(&mut stays).unwrap();
    assert_ne!(refusal, 0, "the old disk has its old size");
}

#[test]
fn a_broken_file_is_refused_and_the_old_exports_stay() {
    let mut configured = Configured::start(EXPORTS);
    configured.change("[export.x\n", "the configuration stays as it was");
    configured.change("[export.x]\nplugin = 'nosuch'\n", "there is no plugin nosuch");
    configured.change("[export.x]\nplugin = 'memory'\nparams = ['9Q']\n", "size=9Q: not a size such as");
    configured.change("[export.x]\nplugin = 'memory'\nsize = 1\n", "unknown field `size`");
    assert_eq!(configured.size("root"), "1048064");
    let status = configured.server.stop().0;
    assert!(status.is_some_and(|status| status.success()));

    let dir = directory();
    let file = dir.path().join("x.toml");
    fs::write(&file, "[export.x]\nplugin = 'memory'\nparams.siez = 1\n").unwrap();
    let told = Run::diskpipe().words("serve --config").arg(&file).end().code(1).stderr;
    assert!(told.contains("export \"x\": ") && told.contains("did you mean size= of memory?"), "{told}");
    let told = Run::diskpipe().words("explain --config").arg(&file).end().code(1).text();
    assert!(told.starts_with("export \"x\"\n\nplugin memory: ") && told.contains("refused: "), "{told}");
}

#[test]
fn a_file_says_where_to_listen() {
    let dir = directory();
    let (file, one, pid) = (dir.path().join("x.toml"), dir.path().join("one"), dir.path().join("pid"));
    fs::write(&file, "listen = ['unix:one', 'unix:two']\n[export.x]\nplugin = 'memory'\nparams.size = 512\n")
        .unwrap();
    Run::diskpipe().words("serve --config").arg(&file).arg("-P").arg(&pid).end().good();
    for socket in [one, dir.path().join("two")] {
        assert_eq!(size(&format!("nbd+unix:///?socket={}", socket.display())), "512");
    }
    end(&pid);
}

/// The page that Prometheus reads.
fn metrics(socket: &Path) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// A number on it.
fn metric(text: &str, name: &str) -> u64 {
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}\n{text}"));
    line.trim().parse().unwrap()
}

#[test]
fn prometheus_reads_what_was_done() {
    let dir = directory();
    let page = dir.path().join("metrics");
    let server = Server::ours(&format!("--metrics {} memory 1M", page.display()));
    Run::sh(&format!("printf hello | diskpipe copy - '{}'", server.uri())).end().good();
    let text = metrics(&page);
    let value = |name: &str| metric(&text, name);
    assert!(value("diskpipe_connections_total ") >= 1);
    assert_eq!(value("diskpipe_bytes_total{export=\"\",operation=\"write\"}"), 5);
    assert_eq!(value("diskpipe_operations_total{export=\"\",operation=\"write\"}"), 1);
    assert_eq!(value("diskpipe_operation_seconds_count{export=\"\",operation=\"write\"}"), 1);
    assert_eq!(value("diskpipe_errors_total{export=\"\",operation=\"write\"}"), 0);
}

#[test]
fn a_signal_amid_writes_loses_nothing_that_was_acknowledged() {
    const WRITES: u64 = 64;
    const BLOCK: u64 = 4096;
    let dir = directory();
    let image = dir.path().join("disk.img");
    for way in Way::ALL {
        for round in 0..4_u64 {
            fs::write(&image, vec![0; (2 * WRITES * BLOCK) as usize]).unwrap();
            let words = format!("--filter=delay file {} wdelay=150ms", image.display());
            let mut server = way.server(&words);
            let mut wire = way.connect(&server);
            wire.choose();
            let write = |wire: &mut Wire, number: u64| {
                let mut bytes = request(WRITE, number, number * BLOCK, BLOCK as u32);
                bytes.extend(vec![number as u8 + 1; BLOCK as usize]);
                wire.write_all(&bytes).unwrap();
            };
            // 64 writes that are acknowledged and flushed, then 64 more in flight.
            (0..WRITES).for_each(|number| write(&mut wire, number));
            (0..WRITES).for_each(|_| assert!(answered(&mut wire).is_some()));
            wire.write_all(&request(FLUSH, 1000, 0, 0)).unwrap();
            assert_eq!(answered(&mut wire), Some(1000));
            (WRITES..2 * WRITES).for_each(|number| write(&mut wire, number));
            std::thread::sleep(Duration::from_millis(round * 40));
            server.process.signal(Signal::TERM);
            let acknowledged: Vec<u64> = std::iter::from_fn(|| answered(&mut wire)).collect();
            let status = server.process.wait(PATIENCE);
            assert!(status.is_some_and(|status| status.success()), "{status:?}\n{}", server.log());
            // All 64 were in the socket before the signal, and what has come is answered. (It is cut off where that takes more
            // than four seconds, and is then told.)
            let cut_off = server.log().contains("unanswered");
            assert!(acknowledged.len() as u64 == WRITES || cut_off, "{acknowledged:?}\n{}", server.log());
            let bytes = fs::read(&image).unwrap();
            for number in (0..WRITES).chain(acknowledged) {
                let block = &bytes[(number * BLOCK) as usize..][..BLOCK as usize];
                let whole = block.iter().all(|byte| *byte == number as u8 + 1);
                assert!(whole, "{way:?}: block {number} in round {round}");
            }
        }
    }
}

/// Kilobytes that the process has in memory.
fn resident(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn has_a_socket(process: u32) -> bool {
    let open = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    open.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|to| to.to_string_lossy().starts_with("socket:"))
}

/// Kills so many clients in the middle of what they do, eight at a time.
fn kill_clients(way: Way, server: &Server, times: usize) {
    let uri = way.uri(server);
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let uri = uri.as_str();
            scope.spawn(move || {
                for round in 0..times / 8 {
                    let (from, to) = match (worker + round) % 2 {
                        0 => (uri, "null:"),
                        _ => ("/dev/zero", uri),
                    };
                    let mut client: Process =
                        Run::diskpipe().words("copy -S 0 --no-extents").args([from, to]).start();
                    // Some are killed while they start, however long that takes here; most when they have begun.
                    if round % 4 != 0 {
                        until("it connects, or is done", || {
                            has_a_socket(client.id()) || client.wait(Duration::ZERO).is_some()
                        });
                    }
                    std::thread::sleep(Duration::from_millis((round * 7 % 13) as u64));
                    // Dropping it sends SIGKILL.
                    drop(client);
                }
            });
        }
    });
}

#[track_caller]
fn a_thousand_killed_clients(way: Way) {
    let dir = directory();
    let page = dir.path().join("metrics");
    let mut server = way.server(&format!("memory 64M --log=null --metrics {}", page.display()));
    let uri = way.uri(&server);
    // One that was served and has gone: all threads of the server itself run by now.
    size(&uri);
    std::thread::sleep(Duration::from_millis(200));
    let idle = (server.threads(), server.descriptors());
    let given_back = |server: &mut Server| {
        server.until("threads and descriptors are given back", |server| {
            server.threads() <= idle.0 && server.descriptors() <= idle.1
        });
    };
    // Everything has been used once: pools, and the disk's own memory to its last page.
    let fill = format!("head -c 64M /dev/zero | tr '\\0' x | diskpipe copy -S 0 - '{uri}'");
    Run::sh(&fill).end().good();
    kill_clients(way, &server, 200);
    given_back(&mut server);
    let before = resident(&server);
    kill_clients(way, &server, 1000);
    given_back(&mut server);
    let after = resident(&server);
    assert!(after < before + (24 << 10), "{before} kB before, {after} kB after");
    assert_eq!(size(&uri), (64 << 20).to_string());
    // Most had one of their four connections at least.
    assert!(metric(&metrics(&page), "diskpipe_connections_total ") > 200);
}

#[test]
fn a_thousand_killed_clients_leave_nothing_behind() {
    a_thousand_killed_clients(Way::Plain);
}

#[test]
fn a_thousand_killed_clients_leave_nothing_behind_over_tls() {
    a_thousand_killed_clients(Way::Tls);
}

#[test]
fn clients_at_rest_cost_little_memory() {
    const CLIENTS: usize = 100;
    const LITTLE: u64 = 44 << 10;
    for way in Way::ALL {
        let mut server = way.server("pattern 16M");
        let mut piece = vec![0; (1 << 20) + 16];
        let connect = |_| {
            let mut wire = way.connect(&server);
            wire.choose();
            wire
        };
        let mut wires: Vec<Wire> = (0..CLIENTS).map(connect).collect();
        for wire in &mut wires {
            for number in 0..16 {
                wire.write_all(&request(READ, number, number << 20, 1 << 20)).unwrap();
                wire.read_exact(&mut piece).unwrap();
            }
        }
        // A client rests when it has said nothing for a second. What it is and what was agreed upon stays: more over TLS.
        server.until("memory is given back", |server| resident(server) < LITTLE);
        // It goes on where it stopped.
        for wire in &mut wires {
            wire.write_all(&request(READ, 7, 0, 1 << 20)).unwrap();
            wire.read_exact(&mut piece).unwrap();
            assert_eq!(piece[4..8], [0; 4]);
        }
        server.until("memory is given back again", |server| resident(server) < LITTLE);
    }
}

#[test]
fn the_starter_waits_until_the_server_serves() {
    let dir = directory();
    let (socket, pid) = (dir.path().join("s"), dir.path().join("pid"));
    let start = |socket: &Path| {
        Run::diskpipe().words("serve -P").arg(&pid).arg("-U").arg(socket).words("memory 1M").end()
    };
    start(&socket).good();
    assert!(UnixStream::connect(&socket).is_ok());
    let id = fs::read_to_string(&pid).unwrap();
    // The same place again: told at once, by the exit code too, and the first server's file stays as it is.
    let told = start(&socket).code(1).stderr;
    assert!(told.contains("cannot listen"), "{told}");
    assert_eq!(fs::read_to_string(&pid).unwrap(), id);
    Run::sh(&format!("kill {id}")).end().good();
}
