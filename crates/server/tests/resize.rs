//! The proposed RESIZE: to whom it is offered, what it answers, and who is told of changes.

mod common;

use common::{Answer, Client, Lines, Ram, SIZE, wishes};
use disk::{
    Backend, Client as Who, Disk, Errno, Facts, Io,
    resize::{Resizing, Size},
};
use diskpipe_server::{Options, Server};
use net::Stream;
use proto::{Command, CommandFlags as F, ReplyHeader, ReplyStyle, TransmissionFlags, reply::Payload};
use std::{sync::Arc, thread::JoinHandle, time::Duration};

/// The memory of a [`Ram`], with a size that begins at 64 KiB and goes up to [`SIZE`].
struct Elastic(Arc<Ram>, Arc<Size>);

impl Elastic {
    fn new() -> Arc<Elastic> {
        Elastic::with(|_| ())
    }
    fn with(change: impl FnOnce(&mut Facts)) -> Arc<Elastic> {
        Arc::new(Elastic(Ram::new(change), Size::new(64 << 10)))
    }
}

impl Backend for Elastic {
    fn open<'a>(&'a self, _: &'a Who<'a>) -> Io<'a, Arc<dyn Disk>> {
        let change = |_, to| if to <= SIZE as u64 { Ok(()) } else { Err(Errno::NOSPC.into()) };
        Io::ok(Arc::new(self.1.open(self.0.clone(), change)))
    }
}

struct Running {
    server: Arc<Server>,
    lines: Arc<Lines>,
    thread: JoinHandle<()>,
}

fn connect<B: Backend + 'static>(
    to: &Arc<B>,
    style: ReplyStyle,
    change: impl FnOnce(&mut Options),
) -> (Running, Client) {
    let (near, far) = Stream::pair().unwrap();
    let lines = Arc::new(Lines::default());
    let mut options = Options { resize: true, log: lines.clone(), ..Options::default() };
    change(&mut options);
    let backend = disk::checked::backend(to.clone());
    let server = Arc::new(Server::with_options(backend, options).unwrap());
    let thread = std::thread::spawn({
        let server = server.clone();
        move || server.serve_stream(far)
    });
    (Running { server, lines, thread }, Client::handshake(near, wishes(style)))
}

fn is_offered(client: &Client) -> bool {
    client.negotiated.info.flags.has(TransmissionFlags::SEND_RESIZE)
}

fn resize(client: &mut Client, to: u64) -> Result<u64, u32> {
    let answer = client.ask(Command::Resize, F::NONE, to, 0, &[]);
    answer.map(|text| String::from_utf8(text).unwrap().trim().parse().unwrap()).map_err(|(errno, _)| errno)
}

/// A chunk with a size that is not the last of its reply.
fn news(client: &mut Client) -> u64 {
    let (header, payload) = client.reply(0).expect("a chunk");
    let ReplyHeader::Chunk(chunk) = header else { panic!("{header:?}") };
    assert!(!chunk.is_done() && chunk.cookie == 99, "{chunk:?}");
    match Payload::decode(chunk.kind, &payload).unwrap() {
        Payload::Size(size) => size,
        other => panic!("{other:?}"),
    }
}

fn watch(client: &mut Client) {
    client.send(Command::Resize, F::RESIZE_NOTIFY, 99, 0, 0, &[]);
}

fn errno(answer: Answer) -> u32 {
    answer.unwrap_err().0
}

const EPERM: u32 = 1;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;

#[test]
fn it_is_offered_only_where_everything_allows_it() {
    let offered = |elastic: Arc<Elastic>, style, change: fn(&mut Options)| {
        let (_running, client) = connect(&elastic, style, change);
        is_offered(&client)
    };
    assert!(offered(Elastic::new(), ReplyStyle::Structured, |_| ()));
    assert!(offered(Elastic::new(), ReplyStyle::Extended, |_| ()));
    assert!(!offered(Elastic::new(), ReplyStyle::Simple, |_| ()));
    assert!(!offered(Elastic::new(), ReplyStyle::Extended, |o| o.resize = false));
    assert!(!offered(Elastic::new(), ReplyStyle::Extended, |o| o.read_only = true));
    let read_only = Elastic::with(|facts| *facts = facts.clone().without_write());
    assert!(!offered(read_only, ReplyStyle::Extended, |_| ()));
    let (_running, mut client) = connect(&Elastic::new(), ReplyStyle::Structured, |o| o.resize = false);
    assert_eq!(resize(&mut client, 4096), Err(EINVAL));
    assert!(client.read(0, 512).is_ok(), "the connection lives on");
}

#[test]
fn requests_are_held_against_the_present_size() {
    for style in [ReplyStyle::Structured, ReplyStyle::Extended] {
        let (_running, mut client) = connect(&Elastic::new(), style, |_| ());
        assert_eq!(client.negotiated.info.size, 64 << 10);
        assert_eq!(errno(client.write(64 << 10, &[1; 512])), ENOSPC);
        assert_eq!(errno(client.read(64 << 10, 512)), EINVAL);
        assert_eq!(resize(&mut client, 128 << 10), Ok(128 << 10));
        client.write(64 << 10, &[1; 512]).unwrap();
        assert_eq!(client.read(64 << 10, 512).unwrap(), [1; 512]);
        assert_eq!(resize(&mut client, 32 << 10), Ok(32 << 10));
        assert_eq!(errno(client.write(32 << 10, &[1; 512])), ENOSPC);
        client.disconnect();
    }
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let (_running, mut client) = connect(&Elastic::new(), ReplyStyle::Extended, |_| ());
    assert_eq!(resize(&mut client, SIZE as u64 + 1), Err(ENOSPC));
    assert_eq!(resize(&mut client, u64::MAX), Err(ENOSPC));
    assert_eq!(errno(client.ask(Command::Resize, F::NONE, 4096, 1, &[])), EINVAL);
    assert_eq!(errno(client.ask(Command::Resize, F::DF, 4096, 0, &[])), EINVAL);
    assert_eq!(errno(client.ask(Command::Resize, F::PAYLOAD_LEN, 4096, 3, b"abc")), EINVAL);
    assert_eq!(errno(client.ask(Command::Resize, F::RESIZE_NOTIFY, 4096, 0, &[])), EINVAL);
    assert_eq!(resize(&mut client, 64 << 10), Ok(64 << 10));
    assert_eq!(client.read((64 << 10) - 512, 512).unwrap(), [0; 512]);
}

#[test]
fn a_disk_does_not_shrink_while_another_client_has_it_whatever_that_one_speaks() {
    let elastic = Elastic::new();
    let (_a, mut a) = connect(&elastic, ReplyStyle::Extended, |_| ());
    let (b_runs, mut b) = connect(&elastic, ReplyStyle::Simple, |_| ());
    assert_eq!(resize(&mut a, 4096), Err(EPERM));
    assert_eq!(resize(&mut a, 128 << 10), Ok(128 << 10));
    assert_eq!(b.read(127 << 10, 1024).unwrap(), [0; 1024]);
    b.disconnect();
    b_runs.thread.join().unwrap();
    assert_eq!(resize(&mut a, 4096), Ok(4096));
}

#[test]
fn a_disk_does_not_shrink_under_a_request_that_is_under_way() {
    let elastic = Elastic::new();
    let (_running, mut client) = connect(&elastic, ReplyStyle::Structured, |_| ());
    assert_eq!(resize(&mut client, SIZE as u64), Ok(SIZE as u64));
    // This read takes a while.
    client.send(Command::Read, F::NONE, 1, 0x80000, 512, &[]);
    client.send(Command::Resize, F::NONE, 7, 0x80000, 0, &[]);
    assert_eq!(errno(client.answer(7, 0x80000, 0)), EINVAL);
    assert_eq!(client.answer(1, 0x80000, 512).unwrap(), [0; 512]);
    assert_eq!(resize(&mut client, 0x80000), Ok(0x80000));
}

#[test]
fn who_asked_is_told_of_the_present_size_and_of_every_change() {
    for style in [ReplyStyle::Structured, ReplyStyle::Extended] {
        let elastic = Elastic::new();
        let (_a, mut a) = connect(&elastic, style, |_| ());
        // One request at a time: being told is not one of them.
        let (b_runs, mut b) = connect(&elastic, style, |o| o.in_flight = 1);
        watch(&mut b);
        assert_eq!(news(&mut b), 64 << 10);
        assert_eq!(resize(&mut a, 128 << 10), Ok(128 << 10));
        assert_eq!(news(&mut b), 128 << 10);
        b.write(100 << 10, &[3; 512]).unwrap();
        assert_eq!(errno(b.ask(Command::Resize, F::RESIZE_NOTIFY, 0, 0, &[])), EINVAL);
        // Its own changes, too.
        b.send(Command::Resize, F::NONE, 7, 256 << 10, 0, &[]);
        assert_eq!(b.answer(7, 256 << 10, 0).unwrap(), format!("{}\n", 256 << 10).into_bytes());
        assert_eq!(news(&mut b), 256 << 10);
        b.disconnect();
        b_runs.thread.join().unwrap();
        assert!(b_runs.lines.0.lock().unwrap().is_empty());
    }
}

#[test]
fn who_waits_to_be_told_does_not_keep_the_server_from_ending() {
    let (running, mut client) = connect(&Elastic::new(), ReplyStyle::Extended, |_| ());
    watch(&mut client);
    assert_eq!(news(&mut client), 64 << 10);
    running.server.stop();
    running.thread.join().unwrap();
    assert!(client.reply(0).is_none());
    assert!(running.lines.0.lock().unwrap().is_empty());
}

/// An [`Elastic`] whose size is known only to those who wait for changes, as that of a disk on another server.
struct Followed(Arc<Elastic>);

struct FollowedDisk {
    next: Arc<dyn Disk>,
}

impl Backend for Followed {
    fn open<'a>(&'a self, who: &'a Who<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.0.open(who).map(|disk| Ok(Arc::new(FollowedDisk { next: disk }) as Arc<dyn Disk>))
    }
}

impl Disk for FollowedDisk {
    disk::forward!(next: next, facts, read, write);
    fn resizing(&self) -> Option<&dyn Resizing> {
        Some(self)
    }
}

impl Resizing for FollowedDisk {
    fn size(&self) -> u64 {
        self.next.resizing().unwrap().size()
    }
    fn resize(&self, size: u64) -> Io<'_, u64> {
        self.next.resizing().unwrap().resize(size)
    }
    fn changed(&self, seen: u64) -> Io<'_, (u64, u64)> {
        self.next.resizing().unwrap().changed(seen)
    }
    fn is_followed(&self) -> bool {
        true
    }
}

#[test]
fn a_disk_is_followed_for_a_client_that_does_not_ask() {
    let elastic = Elastic::new();
    let (_b, mut b) = connect(&Arc::new(Followed(elastic.clone())), ReplyStyle::Structured, |_| ());
    let (_a, mut a) = connect(&elastic, ReplyStyle::Structured, |_| ());
    assert_eq!(resize(&mut a, 128 << 10), Ok(128 << 10));
    assert_eq!(b.read(127 << 10, 1024).unwrap(), [0; 1024]);
}

#[test]
fn who_does_not_wait_to_be_told_may_not_be_silent_for_ever() {
    let followed = Arc::new(Followed(Elastic::new()));
    let limit = |o: &mut Options| o.idle_limit = Some(Duration::from_millis(100));
    let (running, mut client) = connect(&followed, ReplyStyle::Structured, limit);
    assert!(client.reply(0).is_none());
    running.thread.join().unwrap();
    let lines = running.lines.0.lock().unwrap();
    assert!(lines[0].ends_with("nothing was heard of the client for 0.1 seconds"), "{lines:?}");
}
