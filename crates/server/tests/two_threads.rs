//! Connections whose large requests two threads look after, and that nothing shows of it but the speed.

use disk::{Backend, Client as Who, Data, Disk, Facts, Io, Range, Result, WriteFlags};
use diskpipe_server::{Log, Options, Server};
use net::{Stream, Wait};
use proto::{Command, CommandFlags, HeaderStyle, Request, handshake::oldstyle};
use std::{
    collections::BTreeSet,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    thread::{self, JoinHandle, available_parallelism},
    time::{Duration, Instant},
};

const BLOCK: u64 = 256 << 10;
const BLOCKS: u64 = 64;
/// Far more than any machine needs.
const LONG: Duration = Duration::from_secs(60);

/// There are only so many helpers in a process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_helper() -> bool {
    thread::current().name() == Some("nbd-helper")
}

/// Blocks, each of one byte, and what a test wants to happen.
struct Store {
    facts: Facts,
    blocks: Mutex<Vec<u8>>,
    manner: Mutex<Manner>,
}

#[derive(Default)]
struct Manner {
    helped: u32,
    /// The helper is to panic.
    panics: bool,
    /// So many reads must wait for each other, ...
    gate: usize,
    /// ... and those do.
    waiting: Vec<Waker>,
    came: usize,
}

impl Store {
    fn new() -> Arc<Store> {
        let facts = Facts { fua: true, ..Facts::writable(BLOCK * BLOCKS) };
        Arc::new(Store { facts, blocks: Mutex::new((0..BLOCKS as u8).collect()), manner: Mutex::default() })
    }

    fn note(&self) {
        let mut manner = self.manner.lock().unwrap_or_else(PoisonError::into_inner);
        manner.helped += u32::from(is_helper());
        assert!(!(manner.panics && is_helper()), "on purpose");
    }

    fn helped(&self) -> u32 {
        self.manner.lock().unwrap_or_else(PoisonError::into_inner).helped
    }

    /// Waits until the gate has seen enough; then it stays open.
    async fn pass(&self) -> Result<()> {
        self.manner.lock().unwrap().came += 1;
        poll_fn(|cx| {
            let mut manner = self.manner.lock().unwrap();
            if manner.came >= manner.gate {
                manner.waiting.drain(..).for_each(Waker::wake);
                return Poll::Ready(Ok(()));
            }
            manner.waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Disk for Store {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, range: Range) -> Io<'_, Data> {
        self.note();
        let byte = self.blocks.lock().unwrap()[(range.start / BLOCK) as usize];
        let data = Data::fill(range.len as usize, |b| b.fill(byte));
        match self.manner.lock().unwrap().gate {
            0 => Io::ok(data),
            _ => Io::later(async move { self.pass().await.map(|()| data) }),
        }
    }
    fn write(&self, at: u64, data: Data, _: WriteFlags) -> Io<'_, ()> {
        self.note();
        let bytes = data.to_vec();
        assert!(bytes.iter().all(|b| *b == bytes[0]), "a payload of mixed bytes");
        self.blocks.lock().unwrap()[(at / BLOCK) as usize] = bytes[0];
        Io::ok(())
    }
}

struct One(Arc<Store>);
impl Backend for One {
    fn open<'a>(&'a self, _: &'a Who<'a>) -> Io<'a, Arc<dyn Disk>> {
        Io::ok(self.0.clone())
    }
}

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);
impl Log for Lines {
    fn error(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
}

/// A client that asks for whole blocks.
struct Client {
    stream: Stream,
    server: JoinHandle<()>,
    log: Arc<Lines>,
}

impl Client {
    fn of(store: &Arc<Store>) -> Client {
        let (stream, far) = Stream::pair().unwrap();
        let log = Arc::new(Lines::default());
        let options = Options { oldstyle: true, log: log.clone(), ..Options::default() };
        let server = Server::with_options(Arc::new(One(store.clone())), options).unwrap();
        let server = thread::spawn(move || server.serve_stream(far));
        let client = Client { stream, server, log };
        client.receive(oldstyle::GREETING_LEN);
        client
    }

    fn receive(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut have = 0;
        while have < len {
            let n = self.stream.recv(&mut bytes[have..], Wait::Block).unwrap();
            assert_ne!(n, 0, "the server closed");
            have += n;
        }
        bytes
    }

    fn send(&self, requests: &[u8]) {
        self.stream.send_all(requests).unwrap();
    }

    /// The cookie of the next reply, which must be a success.
    fn reply(&self) -> u64 {
        let header = self.receive(16);
        assert_eq!(header[4..8], [0; 4], "an error");
        u64::from_be_bytes(header[8..].try_into().unwrap())
    }

    /// Takes the replies to reads of these blocks, in whatever order.
    fn take_reads(&self, blocks: impl Iterator<Item = u64>, byte_of: impl Fn(u64) -> u8) {
        let mut missing: BTreeSet<u64> = blocks.collect();
        while !missing.is_empty() {
            let block = self.reply();
            assert!(missing.remove(&block), "a reply to nothing");
            let payload = self.receive(BLOCK as usize);
            assert!(payload.iter().all(|b| *b == byte_of(block)), "bytes of another block than {block}");
        }
    }

    /// Reads everything again and again until the helper has done some of it; `false` where there is none to be had.
    fn get_help(&self, store: &Store) -> bool {
        let end = Instant::now() + LONG;
        while store.helped() == 0 {
            if available_parallelism().unwrap().get() == 1 {
                return false;
            }
            assert!(Instant::now() < end, "nobody helps");
            self.send(&all(Command::Read, 0));
            self.take_reads(0..BLOCKS, |block| block as u8);
        }
        true
    }

    fn leave(self) -> Vec<String> {
        let Client { stream, server, log } = self;
        drop(stream);
        server.join().unwrap();
        std::mem::take(&mut log.0.lock().unwrap())
    }
}

/// A request for each block, with its number as the cookie; writes make its byte `byte_more` greater.
fn all(command: Command, byte_more: u8) -> Vec<u8> {
    let mut out = Vec::new();
    for block in 0..BLOCKS {
        let (offset, length) = (block * BLOCK, BLOCK);
        Request { flags: CommandFlags::NONE, command, cookie: block, offset, length }
            .encode_into(HeaderStyle::Compact, &mut out);
        if command == Command::Write {
            out.resize(out.len() + BLOCK as usize, block as u8 + byte_more);
        }
    }
    out
}

#[test]
fn every_reply_is_whole_and_right() {
    let (_alone, store) = (alone(), Store::new());
    let client = Client::of(&store);
    client.get_help(&store);
    for round in 1..8 {
        thread::scope(|scope| {
            // Sent while replies are taken: no socket holds all of it.
            scope.spawn(|| client.send(&all(Command::Write, round)));
            let written: BTreeSet<u64> = (0..BLOCKS).map(|_| client.reply()).collect();
            assert_eq!(written.len() as u64, BLOCKS);
        });
        client.send(&all(Command::Read, 0));
        client.take_reads(0..BLOCKS, |block| block as u8 + round);
    }
    assert!(client.leave().is_empty());
}

#[test]
fn what_was_asked_before_the_goodbye_is_answered() {
    let (_alone, store) = (alone(), Store::new());
    let client = Client::of(&store);
    client.get_help(&store);
    let mut requests = all(Command::Read, 0);
    Request { flags: CommandFlags::NONE, command: Command::Disc, cookie: 0, offset: 0, length: 0 }
        .encode_into(HeaderStyle::Compact, &mut requests);
    client.send(&requests);
    client.take_reads(0..BLOCKS, |block| block as u8);
    assert_eq!(client.stream.recv(&mut [0], Wait::Block).unwrap(), 0);
    assert!(client.leave().is_empty());
}

#[test]
fn requests_wait_together_when_the_disk_begins_to_take_its_time() {
    let (_alone, store) = (alone(), Store::new());
    let client = Client::of(&store);
    client.get_help(&store);
    // Every one of them waits for all the others.
    store.manner.lock().unwrap().gate = BLOCKS as usize;
    client.send(&all(Command::Read, 0));
    client.take_reads(0..BLOCKS, |block| block as u8);
    assert!(client.leave().is_empty());
}

#[test]
fn a_client_that_takes_no_replies_and_goes_ends_its_connection_only() {
    let (_alone, store) = (alone(), Store::new());
    for _ in 0..20 {
        let client = Client::of(&store);
        client.get_help(&store);
        client.send(&all(Command::Read, 0));
        client.leave();
    }
    let client = Client::of(&store);
    client.send(&all(Command::Read, 0));
    client.take_reads(0..BLOCKS, |block| block as u8);
}

#[test]
fn a_client_that_goes_in_the_middle_of_a_payload_leaves_whole_blocks() {
    let (_alone, store) = (alone(), Store::new());
    let client = Client::of(&store);
    client.get_help(&store);
    let writes = all(Command::Write, 1);
    client.send(&writes[..writes.len() * 3 / 8]);
    let told = client.leave();
    assert_eq!(told.len(), 1, "{told:?}");
    for (block, byte) in store.blocks.lock().unwrap().iter().enumerate() {
        assert!([block as u8, block as u8 + 1].contains(byte), "{byte} in block {block}");
    }
}

#[test]
fn a_helper_that_panics_ends_its_connection() {
    let (_alone, store) = (alone(), Store::new());
    let client = Client::of(&store);
    if !client.get_help(&store) {
        return;
    }
    store.manner.lock().unwrap().panics = true;
    let end = Instant::now() + LONG;
    let mut room = vec![0; 1 << 20];
    // Until the helper happens to be given something.
    while client.stream.send_all(&all(Command::Read, 0)).is_ok() {
        assert!(Instant::now() < end, "the connection lives on");
        let mut left = BLOCKS as usize * (16 + BLOCK as usize);
        while left > 0 {
            match client.stream.recv(&mut room, Wait::Block) {
                Ok(0) | Err(_) => break,
                Ok(n) => left -= n,
            }
        }
    }
    let told = client.leave();
    assert!(told.iter().any(|line| line.contains("panicked")), "{told:?}");
}
