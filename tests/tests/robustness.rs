//! Clients that vanish, babble, ask for too much, or never go on, in the clear and over TLS: the server says so in one line
//! and serves the others.

use e2e::command::{DISCONNECT, READ, WRITE};
use e2e::{PATIENCE, Run, Server, Way, Wire, directory, needs, reply, request};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A client as it should be is served, now.
#[track_caller]
fn serves(way: Way, server: &Server) {
    let start = Instant::now();
    let mut stream = way.connect(server);
    let size = stream.choose();
    assert!(size >= 1 << 20);
    let mut data = vec![1; 4096];
    stream.write_all(&request(READ, 7, size - 4096, 4096)).unwrap();
    assert_eq!(reply(&mut stream).unwrap().1, 0);
    stream.read_exact(&mut data).unwrap();
    stream.write_all(&request(DISCONNECT, 8, 0, 0)).unwrap();
    assert!(start.elapsed() < Duration::from_secs(30), "it took {:?}", start.elapsed());
}

/// The threads and descriptors of a server that has nothing to do, but has had.
fn settled(way: Way, server: &Server) -> (usize, usize) {
    serves(way, server);
    let now = || (server.threads(), server.descriptors());
    let (mut last, mut same) = (now(), 0);
    while same < 20 {
        std::thread::sleep(Duration::from_millis(5));
        same = if now() == last { same + 1 } else { 0 };
        last = now();
    }
    last
}

/// Waits until the server has no more threads and descriptors than it had.
#[track_caller]
fn back_to(server: &mut Server, before: (usize, usize)) {
    server.until("threads and descriptors are given back", |server| {
        server.threads() <= before.0 && server.descriptors() <= before.1
    });
}

#[track_caller]
fn one_line_each(log: &str, events: usize) {
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines.len() <= events, "{} lines for {events} events:\n{log}", lines.len());
    for line in lines {
        assert!(line.contains("connection ") && !line.contains("panicked"), "{line}");
    }
}

#[test]
fn clients_killed_in_mid_transfer_leave_nothing_behind() {
    const TIMES: usize = 24;
    for way in Way::ALL {
        for plugin in ["memory 256M", "--filter=delay memory 256M delay-read=20ms delay-write=20ms"] {
            let mut server = way.server(plugin);
            let before = settled(way, &server);
            for round in 0..TIMES {
                let (from, to) = match round % 2 {
                    0 => (way.uri(&server), "null:".to_owned()),
                    _ => ("/dev/zero".to_owned(), way.uri(&server)),
                };
                let copy = Run::diskpipe().words("copy -S 0 --no-extents").arg(from).arg(to).start();
                // It may have been killed while it connected, too.
                std::thread::sleep(Duration::from_millis(5 + 3 * round as u64));
                drop(copy);
            }
            serves(way, &server);
            back_to(&mut server, before);
            // Four connections each, at most.
            one_line_each(&server.log(), 4 * TIMES);
        }
    }
}

#[test]
fn a_killed_peer_does_not_disturb_the_others() {
    needs!("nbdcopy", "fio");
    for way in Way::ALL {
        // Clients may use TLS here: fio, which cannot have keys, does not.
        let options = way.options().replace("--tls=require", "--tls=on");
        let mut server = Server::ours(&format!("{options} memory 128M"));
        let before = settled(way, &server);
        let fio = Run::new("fio")
            .words("--name=others --ioengine=nbd --rw=randrw --bs=16k --size=64M --iodepth=16");
        let dir = directory();
        let fio = fio.words("--verify=crc32c --verify_fatal=1").arg(format!("--uri={}", server.uri()));
        let others = std::thread::spawn(move || fio.in_directory(dir.path()).end());
        for round in 0..20 {
            let copy = Run::new("nbdcopy")
                .words("--no-extents --request-size=1048576")
                .arg(way.uri(&server))
                .arg("null:");
            let copy = copy.start();
            std::thread::sleep(Duration::from_millis(5 * round));
            drop(copy);
        }
        others.join().unwrap().good();
        back_to(&mut server, before);
    }
}

#[test]
fn garbage_in_place_of_a_handshake_ends_that_connection_only() {
    for way in Way::ALL {
        let long: Vec<u8> = (0..100_000_u32).map(|at| (at * 131 / 7) as u8).collect();
        let option = |number: u32, length: u32, data: &[u8]| {
            let mut bytes = b"\0\0\0\x03IHAVEOPT".to_vec();
            bytes.extend(number.to_be_bytes());
            bytes.extend(length.to_be_bytes());
            bytes.extend(data);
            bytes
        };
        let cases: &[(&str, Vec<u8>)] = &[
            ("a browser", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
            ("noise", long),
            ("zeroes", vec![0; 4096]),
            ("flags that do not exist", b"\xff\xff\xff\xffIHAVEOPT\0\0\0\x01\0\0\0\0".to_vec()),
            ("an option of four gigabytes", option(6, u32::MAX, b"")),
            ("a name of four gigabytes", option(7, 6, b"\xff\xff\xff\xff\0\0")),
            ("an export that is not there", option(1, u32::MAX, &[b'x'; 10_000])),
            ("an option and then noise", [option(3, 0, b""), vec![0xa5; 64]].concat()),
        ];
        let mut server = way.server("memory 1M");
        let before = settled(way, &server);
        for (number, (what, bytes)) in cases.iter().enumerate() {
            let lines = server.log().lines().count();
            let mut stream = match way {
                Way::Plain => Wire::raw(&server),
                Way::Tls => way.connect(&server),
            };
            // Over TLS the flags have been sent. The server may hang up before it has all.
            let said = if way == Way::Tls { bytes.strip_prefix(b"\0\0\0\x03") } else { None };
            let _ = stream.write_all(said.unwrap_or(bytes));
            stream.end_writing();
            stream.hung_up();
            serves(way, &server);
            server.until("a line says so", |server| server.log().lines().count() > lines);
            assert_eq!(
                server.log().lines().count(),
                lines + 1,
                "{what} (connection {number}):\n{}",
                server.log()
            );
        }
        back_to(&mut server, before);
        one_line_each(&server.log(), cases.len());
    }
}

/// As load balancers and port scanners do, and tools that list exports.
#[test]
fn who_only_looks_whether_somebody_listens_is_no_error() {
    let mut server = Server::ours("memory 1M");
    let before = settled(Way::Plain, &server);
    let abort = b"\0\0\0\x03IHAVEOPT\0\0\0\x02\0\0\0\0";
    for said in [b"".as_slice(), abort] {
        let mut stream = server.connect();
        std::io::Write::write_all(&mut stream, said).unwrap();
    }
    serves(Way::Plain, &server);
    back_to(&mut server, before);
    assert_eq!(server.log(), "");
}

#[test]
fn a_request_that_is_no_request_ends_that_connection_only() {
    for way in Way::ALL {
        let mut server = way.server("memory 1M");
        let before = settled(way, &server);
        let mut stream = way.connect(&server);
        stream.choose();
        stream.write_all(&[0x42; 28]).unwrap();
        stream.hung_up();
        serves(way, &server);
        back_to(&mut server, before);
        let log = server.log();
        assert_eq!(log.lines().count(), 1, "{log}");
        one_line_each(&log, 1);
    }
}

#[test]
fn a_request_that_is_too_large_is_refused() {
    for way in Way::ALL {
        let mut server = way.server("memory 1G");
        let before = settled(way, &server);
        let mut stream = way.connect(&server);
        stream.choose();
        for cookie in 0..3 {
            stream.write_all(&request(READ, cookie, 0, 512 << 20)).unwrap();
            assert_ne!(reply(&mut stream).unwrap().1, 0, "a read of 512M is refused");
        }
        let log = server.log();
        assert!(log.contains(": refused Read of 536870912 bytes at offset 0: "), "{log}");
        assert_eq!(log.lines().count(), 1, "one line for a connection, however often it asks\n{log}");
        stream.write_all(&request(READ, 9, u64::MAX - 100, 4096)).unwrap();
        assert_ne!(reply(&mut stream).unwrap().1, 0, "far past the end");
        // A write is another matter: what follows would have to be read. Refused and hung up, or refused and skipped.
        stream.write_all(&request(WRITE, 10, 0, u32::MAX)).unwrap();
        let piece = vec![0; 1 << 20];
        for _ in 0..16 {
            if stream.write_all(&piece).is_err() {
                break;
            }
        }
        drop(stream);
        serves(way, &server);
        back_to(&mut server, before);
        one_line_each(&server.log(), 2);
    }
}

#[test]
fn a_thousand_idle_connections_stand_in_nobodys_way() {
    const MANY: usize = 1000;
    for way in Way::ALL {
        let limit = getrlimit(Resource::Nofile);
        let wanted = MANY as u64 * 2 + 200;
        if limit.maximum.is_some_and(|most| most < wanted) {
            return e2e::skip("needs a limit of 2200 descriptors");
        }
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).unwrap();
        let mut server = way.server("memory 16M");
        let before = settled(way, &server);
        // Half have chosen an export, the other half have not said a word.
        let connect = |number| match number % 2 {
            0 => {
                let mut stream = way.connect(&server);
                stream.choose();
                stream
            }
            _ => Wire::raw(&server),
        };
        let idle: Vec<Wire> = (0..MANY).map(connect).collect();
        serves(way, &server);
        server.until("they are all connected", |server| server.descriptors() >= before.1 + MANY);
        let size = Run::diskpipe().words("info --size").arg(way.uri(&server)).text();
        assert_eq!(size, "16777216\n");
        drop(idle);
        back_to(&mut server, before);
        serves(way, &server);
        one_line_each(&server.log(), MANY / 2);
    }
}

#[test]
fn a_server_out_of_descriptors_recovers() {
    for way in Way::ALL {
        let mut server = Server::start(|socket| {
            let serve = r#"ulimit -n 64; exec diskpipe serve -f -U "$@" memory 1M"#;
            Run::sh(serve).arg("sh").arg(socket).words(&way.options())
        });
        let before = settled(way, &server);
        let idle: Vec<Wire> = (0..100).map(|_| Wire::raw(&server)).collect();
        server.until("the server runs out", |server| server.log().contains("accepting a connection"));
        std::thread::sleep(Duration::from_millis(300));
        drop(idle);
        serves(way, &server);
        back_to(&mut server, before);
        let log = server.log();
        let full = log.lines().filter(|line| line.contains("accepting a connection")).count();
        assert!((1..=3).contains(&full), "{full} lines about one shortage\n{log}");
    }
}

#[test]
fn a_client_that_never_reads_does_not_hold_up_the_others() {
    for way in Way::ALL {
        let server = way.server("memory 64M");
        let mut stuck: Vec<Wire> = Vec::new();
        for _ in 0..8 {
            let mut stream = way.connect(&server);
            stream.choose();
            stream.write_limit(Duration::from_millis(100));
            for cookie in 0..200 {
                if stream.write_all(&request(READ, cookie, 0, 16 << 20)).is_err() {
                    break;
                }
            }
            stuck.push(stream);
        }
        serves(way, &server);
        let resident = resident(&server);
        assert!(resident < 400 << 20, "{resident} bytes for eight clients that do not read");
        let start = Instant::now();
        let (status, log) = server.stop();
        assert!(status.is_some_and(|status| status.success()), "{status:?}\n{log}");
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    }
}

/// Memory of a server, in bytes.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn a_signal_ends_the_server_in_spite_of_a_long_request() {
    for way in Way::ALL {
        for signal in [Signal::TERM, Signal::INT] {
            let mut server = way.server("--filter=delay memory 1M rdelay=60");
            let mut stream = way.connect(&server);
            stream.choose();
            stream.write_all(&request(READ, 1, 0, 512)).unwrap();
            std::thread::sleep(Duration::from_millis(100));
            let start = Instant::now();
            server.process.signal(signal);
            let status = server.process.wait(PATIENCE);
            // Far less than the request takes: five seconds, on a machine that is not too busy.
            assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
            assert!(status.is_some_and(|status| status.success()), "{status:?}\n{}", server.log());
        }
    }
}

#[test]
fn a_signal_lets_short_requests_be_answered() {
    for way in Way::ALL {
        let mut server = way.server("--filter=delay memory 1M rdelay=1");
        let mut stream = way.connect(&server);
        stream.choose();
        stream.write_all(&request(READ, 1, 0, 512)).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        server.process.signal(Signal::TERM);
        assert_eq!(reply(&mut stream).unwrap().1, 0);
        assert!(server.process.wait(PATIENCE).is_some_and(|status| status.success()));
    }
}

/// A server in this process, so that its limits can be short.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl server::Log for Lines {
    fn error(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
}

struct Empty(disk::Facts);
impl disk::Disk for Empty {
    fn facts(&self) -> &disk::Facts {
        &self.0
    }
    fn read(&self, range: disk::Range) -> disk::Io<'_, disk::Data> {
        disk::Io::ok(disk::Data::zeroes(range.len))
    }
}
impl disk::Backend for Empty {
    fn open<'a>(&'a self, _: &'a disk::Client<'a>) -> disk::Io<'a, Arc<dyn disk::Disk>> {
        disk::Io::ok(Arc::new(Empty(self.0.clone())))
    }
}

/// Stops a server also when its test fails, which would wait for it for ever.
struct Stop<'a>(&'a server::Server);
impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

#[test]
fn a_handshake_that_trickles_in_is_cut_off() {
    let dir = directory();
    let socket = dir.path().join("socket");
    let lines = Lines::default();
    let options = server::Options {
        handshake_limit: Duration::from_secs(1),
        log: Arc::new(lines.clone()),
        ..server::Options::default()
    };
    let backend = Arc::new(Empty(disk::Facts::read_only(1 << 20)));
    let server = server::Server::with_options(backend, options).unwrap();
    let listeners = [net::Listener::unix(&socket, true).unwrap()];
    let connect = || {
        let stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    std::thread::scope(|scope| {
        scope.spawn(|| server.serve(&listeners).unwrap());
        let _stop = Stop(&server);
        let mut fine = connect();
        fine.read_exact(&mut [0; 18]).unwrap();
        fine.write_all(b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\0").unwrap();
        fine.read_exact(&mut [0; 10]).unwrap();
        // Ten clients who send a byte now and then, and ten who send nothing.
        let start = Instant::now();
        let mut slow: Vec<UnixStream> = (0..20).map(|_| connect()).collect();
        let mut hello = b"\0\0\0\x03IHAVEOPT\0\0\0\x07\0\0\x10\0".iter().chain([0; 5000].iter());
        while start.elapsed() < Duration::from_secs(2) {
            let byte = *hello.next().unwrap();
            for stream in &mut slow[..10] {
                let _ = stream.write_all(&[byte]);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        for stream in &mut slow {
            // A reset is an end, too.
            let _ = stream.read_to_end(&mut Vec::new());
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
        // Who has shaken hands may be as slow as he likes.
        fine.write_all(&request(READ, 1, 0, 512)).unwrap();
        let mut answer = [0; 16 + 512];
        fine.read_exact(&mut answer).unwrap();
        assert_eq!(answer[..8], [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0]);
    });
    let lines = lines.0.lock().unwrap();
    assert_eq!(lines.len(), 20, "{lines:#?}");
    assert!(lines.iter().all(|line| line.contains("handshake")), "{lines:#?}");
}
