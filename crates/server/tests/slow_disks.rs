//! What takes long: many requests of one client wait at the same time, and nobody else waits with them. Counted, not
//! timed.

mod common;

use common::{Client, wishes};
use disk::{
    Backend, Client as Who, Disk, Error, Facts, Io, Result,
    blocking::{Blocking, BlockingDisk},
};
use diskpipe_server::Server;
use net::{Address, Listener};
use proto::{Command, CommandFlags as F, ReplyStyle};
use std::{
    path::Path,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

const AT_ONCE: usize = 64;
/// Far more than any machine needs.
const LONG: Duration = Duration::from_secs(60);

/// Where reads wait until so many have come; then all go on, and so does everybody after them.
#[derive(Default)]
struct Gate {
    came: Mutex<usize>,
    all_came: Condvar,
}

impl Gate {
    fn pass(&self, wanted: usize) -> Result<()> {
        let mut came = self.came.lock().unwrap();
        *came += 1;
        self.all_came.notify_all();
        let (came, _) = self.all_came.wait_timeout_while(came, LONG, |came| *came < wanted).unwrap();
        if *came < wanted { Err(Error::io(format!("only {came} were there at once"))) } else { Ok(()) }
    }

    fn wait_for(&self, wanted: usize) {
        let came = self.came.lock().unwrap();
        let (came, _) = self.all_came.wait_timeout_while(came, LONG, |came| *came < wanted).unwrap();
        assert!(*came >= wanted, "only {came} came");
    }
}

/// Reads end when `wanted` of them are under way.
struct Slow {
    facts: Facts,
    wanted: usize,
    gate: Arc<Gate>,
}

impl BlockingDisk for Slow {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, _: u64, into: &mut [u8]) -> Result<()> {
        into.fill(7);
        self.gate.pass(self.wanted)
    }
}

/// An export whose name is how many reads it waits for.
struct Exports(Arc<Gate>);

impl Backend for Exports {
    fn open<'a>(&'a self, who: &'a Who<'a>) -> Io<'a, Arc<dyn Disk>> {
        let wanted = who.export.parse().unwrap();
        let gate = if wanted == 0 { Arc::default() } else { self.0.clone() };
        Io::ok(Arc::new(Blocking::new(Slow { facts: Facts::read_only(1 << 20), wanted, gate })))
    }
}

fn serving(test: impl FnOnce(&Path, &Gate)) {
    let gate = Arc::new(Gate::default());
    let server = Server::new(Arc::new(Exports(gate.clone())));
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = [Listener::unix(&socket, true).unwrap()];
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve(&listener));
        test(&socket, &gate);
        server.stop();
        serving.join().unwrap().unwrap();
    });
}

fn client(socket: &Path, wanted: usize) -> Client {
    let stream = net::connect(&Address::Unix(socket.to_owned()), None).unwrap();
    let mut wishes = wishes(ReplyStyle::Simple);
    wishes.export = wanted.to_string();
    Client::handshake(stream, wishes)
}

fn ask(client: &mut Client, reads: usize) {
    (0..reads as u64).for_each(|i| client.send(Command::Read, F::NONE, i, i * 512, 512, &[]));
}

fn answers(client: &mut Client, reads: usize) {
    for _ in 0..reads {
        let (header, answer) = client.reply_with(|_| 512).expect("a reply");
        assert!(header.cookie() < reads as u64);
        assert_eq!(answer, [7; 512]);
    }
}

#[test]
fn as_many_requests_wait_at_once_as_a_client_has_in_flight() {
    serving(|socket, _| {
        let mut client = client(socket, AT_ONCE);
        ask(&mut client, AT_ONCE);
        answers(&mut client, AT_ONCE);
        client.disconnect();
    });
}

#[test]
fn a_slow_export_holds_up_no_other_one() {
    serving(|socket, gate| {
        // One more than ever come, until the end.
        let mut slow = client(socket, 3 * AT_ONCE + 1);
        ask(&mut slow, 3 * AT_ONCE);
        gate.wait_for(AT_ONCE);
        let mut quick = client(socket, 0);
        for _ in 0..3 {
            ask(&mut quick, AT_ONCE);
            answers(&mut quick, AT_ONCE);
        }
        quick.disconnect();
        *gate.came.lock().unwrap() += 3 * AT_ONCE;
        gate.all_came.notify_all();
        answers(&mut slow, 3 * AT_ONCE);
        slow.disconnect();
    });
}
