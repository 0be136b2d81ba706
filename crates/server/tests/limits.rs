//! Clients that keep the server waiting, in the handshake and afterwards.

mod common;

use common::{Client, Ram, Running, Stop, wishes};
use disk::{Backend, Client as Who, Disk, Io, ThreadModel};
use diskpipe_server::{Options, Server};
use net::{Stream, Wait};
use proto::{Command, CommandFlags as F, ReplyStyle};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Soon over for who does nothing, and long enough, on a busy machine, for who does.
const SHORT: Duration = Duration::from_secs(1);

fn sees_the_end(stream: &Stream) {
    let start = Instant::now();
    stream.set_recv_timeout(Some(Duration::from_secs(10))).unwrap();
    while stream.recv(&mut [0; 4096], Wait::Block).is_ok_and(|n| n > 0) {}
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_handshake_that_never_ends_is_cut_off() {
    let (running, stream) = Running::start(Ram::new(|_| ()), |o| o.handshake_limit = SHORT);
    sees_the_end(&stream);
    let lines = running.end();
    assert!(lines[0].contains("cut off, because its handshake took more than 1 seconds"), "{lines:?}");
}

#[test]
fn a_client_that_says_nothing_is_cut_off() {
    let (running, stream) = Running::start(Ram::new(|_| ()), |o| o.idle_limit = Some(SHORT));
    let mut client = Client::handshake(stream, wishes(ReplyStyle::Simple));
    client.write(0, &[1; 512]).unwrap();
    sees_the_end(&client.stream);
    let lines = running.end();
    assert!(lines[0].ends_with("nothing was heard of the client for 1 seconds"), "{lines:?}");
}

#[test]
fn a_client_that_stops_in_the_middle_of_a_payload_is_cut_off() {
    let (running, stream) = Running::start(Ram::new(|_| ()), |o| o.idle_limit = Some(SHORT));
    let mut client = Client::handshake(stream, wishes(ReplyStyle::Simple));
    client.send(Command::Write, F::NONE, 1, 0, 512 << 10, &[1; 100]);
    sees_the_end(&client.stream);
    assert_eq!(running.end().len(), 1);
}

#[test]
fn a_client_that_waits_for_its_answer_is_not_idle() {
    let mut ram = Ram::new(|_| ());
    Arc::get_mut(&mut ram).expect("nobody has it yet").slowness = 3 * SHORT;
    let (running, stream) = Running::start(ram, |o| o.idle_limit = Some(SHORT));
    let mut client = Client::handshake(stream, wishes(ReplyStyle::Simple));
    // This read takes longer than the limit.
    client.read(0x80000, 512).unwrap();
    client.disconnect();
    assert_eq!(running.end(), [""; 0]);
}

#[test]
fn a_client_that_takes_no_replies_is_cut_off() {
    let (running, stream) = Running::start(Ram::new(|_| ()), |o| o.idle_limit = Some(SHORT));
    let mut client = Client::handshake(stream, wishes(ReplyStyle::Simple));
    client.write(0, &[1; 512 << 10]).unwrap();
    (0..64).for_each(|i| client.send(Command::Read, F::NONE, i, 0, 512 << 10, &[]));
    assert_eq!(running.end().len(), 1);
}

struct OneClient(Arc<Ram>);
impl Backend for OneClient {
    fn open<'a>(&'a self, _: &'a Who<'a>) -> Io<'a, Arc<dyn Disk>> {
        Io::ok(self.0.clone())
    }
    fn thread_model(&self) -> ThreadModel {
        ThreadModel::SerializeConnections
    }
}

#[test]
fn a_client_that_waits_for_its_turn_is_not_late() {
    let options = Options { handshake_limit: SHORT, ..Options::default() };
    let backend = Arc::new(OneClient(Ram::new(|_| ())));
    let server = Server::with_options(backend, options).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = [net::Listener::unix(&socket, true).unwrap()];
    let connect = || net::connect(&net::Address::Unix(socket.clone()), None).unwrap();
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve(&listener));
        let stop = Stop(&server);
        let first = Client::handshake(connect(), wishes(ReplyStyle::Simple));
        let second = scope.spawn(|| Client::handshake(connect(), wishes(ReplyStyle::Simple)).disconnect());
        std::thread::sleep(3 * SHORT);
        assert!(!second.is_finished());
        first.disconnect();
        second.join().unwrap();
        drop(stop);
        serving.join().unwrap().unwrap();
    });
}

#[test]
fn a_client_that_rested_is_served_as_before() {
    let (running, stream) = Running::start(Ram::new(|_| ()), |_| ());
    let mut client = Client::handshake(stream, wishes(ReplyStyle::Structured));
    let bytes = vec![7; 300_000];
    client.write(5, &bytes).unwrap();
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(1200)); // longer than until a rest begins
        assert_eq!(client.read(5, bytes.len() as u64).unwrap(), bytes);
        client.write(5, &bytes).unwrap();
    }
    client.disconnect();
    assert_eq!(running.end(), [""; 0]);
}
