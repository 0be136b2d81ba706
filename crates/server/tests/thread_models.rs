//! Thread models hold under load: blocking disks see no more at once than they allow, whatever clients send.

mod common;

use common::{Client, Lines, Stop, wishes};
use disk::{
    Backend, Client as Who, Disk, Facts, Io, Range, Result, ThreadModel, WriteFlags,
    blocking::{Blocking, BlockingDisk},
};
use diskpipe_server::{Options, Server};
use net::{Address, Listener};
use proto::{Command, CommandFlags as F, ReplyStyle};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

const CLIENTS: usize = 6;
const REQUESTS: u64 = 24;

/// How many are at work, and how many ever were at once.
#[derive(Default)]
struct Gauge(AtomicUsize, AtomicUsize);

impl Gauge {
    fn enter(&self) {
        self.1.fetch_max(self.0.fetch_add(1, SeqCst) + 1, SeqCst);
    }
    fn leave(&self) {
        self.0.fetch_sub(1, SeqCst);
    }
    fn most(&self) -> usize {
        assert_eq!(self.0.load(SeqCst), 0, "all have left");
        self.1.load(SeqCst)
    }
}

#[derive(Default)]
struct Gauges {
    opened: Gauge,
    requests: Gauge,
    /// The most requests at once on any one connection.
    per_disk: AtomicUsize,
}

struct Slow {
    facts: Facts,
    here: Gauge,
    all: Arc<Gauges>,
}

impl Slow {
    fn work(&self) {
        self.here.enter();
        self.all.requests.enter();
        std::thread::sleep(Duration::from_millis(2));
        self.all.requests.leave();
        self.here.leave();
    }
}

impl BlockingDisk for Slow {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, _: u64, into: &mut [u8]) -> Result<()> {
        self.work();
        into.fill(7);
        Ok(())
    }
    fn write(&self, _: u64, _: &[u8], _: WriteFlags) -> Result<()> {
        self.work();
        Ok(())
    }
    fn trim(&self, _: Range, _: WriteFlags) -> Result<()> {
        self.work();
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        self.work();
        Ok(())
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.all.per_disk.fetch_max(self.here.most(), SeqCst);
        self.all.opened.leave();
    }
}

struct Model(ThreadModel, Arc<Gauges>);

impl Backend for Model {
    fn open<'a>(&'a self, _: &'a Who<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.1.opened.enter();
        let facts = Facts { trim: true, ..Facts::writable(1 << 20) };
        Io::ok(Arc::new(Blocking::new(Slow { facts, here: Gauge::default(), all: self.1.clone() })))
    }
    fn thread_model(&self) -> ThreadModel {
        self.0
    }
}

/// Many clients at once, each with many requests of all kinds in flight, and all of them answered.
fn load(model: ThreadModel, in_flight: usize) -> Arc<Gauges> {
    let gauges = Arc::new(Gauges::default());
    let lines = Arc::new(Lines::default());
    let options = Options { log: lines.clone(), in_flight, ..Options::default() };
    let server = Server::with_options(Arc::new(Model(model, gauges.clone())), options).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = [Listener::unix(&socket, true).unwrap()];
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve(&listener));
        let stop = Stop(&server);
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| client(&socket))).collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        drop(stop);
        serving.join().unwrap().unwrap();
    });
    assert_eq!(*lines.0.lock().unwrap(), [""; 0]);
    drop(server);
    gauges
}

fn client(socket: &std::path::Path) {
    let stream = net::connect(&Address::Unix(socket.to_owned()), None).unwrap();
    let mut client = Client::handshake(stream, wishes(ReplyStyle::Simple));
    for i in 0..REQUESTS {
        let (command, len) =
            [(Command::Read, 512), (Command::Write, 512), (Command::Trim, 512)][i as usize % 3];
        let payload = if command == Command::Write { &[1; 512][..] } else { &[] };
        client.send(command, F::NONE, i * 3, i * 4096, len, payload);
    }
    client.send(Command::Flush, F::NONE, REQUESTS * 3 + 1, 0, 0, &[]);
    let mut answered = 0;
    while answered <= REQUESTS {
        // Answers come in any order; only those of reads, which the cookie tells, have a payload.
        let (header, _) = client.reply_with(|cookie| if cookie % 9 == 0 { 512 } else { 0 }).expect("a reply");
        assert!(header.cookie() <= REQUESTS * 3 + 1);
        answered += 1;
    }
    client.disconnect();
}

#[test]
fn one_connection_at_a_time() {
    let gauges = load(ThreadModel::SerializeConnections, 1024);
    assert_eq!(gauges.opened.most(), 1);
    assert_eq!(gauges.requests.most(), 1);
}

#[test]
fn one_request_at_a_time_over_all_connections() {
    let gauges = load(ThreadModel::SerializeAllRequests, 1024);
    assert!(gauges.opened.most() > 1, "all clients are connected");
    assert_eq!(gauges.requests.most(), 1);
}

#[test]
fn one_request_at_a_time_per_connection() {
    let gauges = load(ThreadModel::SerializeRequests, 1024);
    assert_eq!(gauges.per_disk.load(SeqCst), 1);
    let most = gauges.requests.most();
    assert!((2..=CLIENTS).contains(&most), "{most}");
}

#[test]
fn any_number_of_requests() {
    let gauges = load(ThreadModel::Parallel, 1024);
    assert!(gauges.per_disk.load(SeqCst) > 1, "requests of one connection run side by side");
    assert!(gauges.requests.most() > CLIENTS);
}

#[test]
fn the_servers_own_bound_holds_as_well() {
    assert_eq!(load(ThreadModel::Parallel, 1).per_disk.load(SeqCst), 1);
    let some = load(ThreadModel::Parallel, 3).per_disk.load(SeqCst);
    assert!((2..=3).contains(&some), "{some}");
}
