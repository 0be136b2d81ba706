//! One whole session of a client with a server that may say anything.
//!
//! The first bytes of an input choose how the client begins, the next ones what it asks; the rest is what the server
//! sends. The same code runs under a fuzzer (`fuzz/targets/client_replies.rs`) and in the tests here.

mod asks;
mod feeder;

pub use asks::LENGTHS;

use asks::Ask;
use client::{ConnectOptions, Connection, Connector, Failure, Negotiation, RemoteDisk};
use disk::{Disk, checked::Checked};
use feeder::Feeder;
use net::{How, Stream, Wait};
use proto::{
    Context, Infos, ReplyStyle, TransmissionFlags,
    handshake::{ExportInfo, Negotiated, Protocol, client::Wishes},
    meta_context::BASE_ALLOCATION,
};
use reactor::InFlight;
use rustix::fs::{MemfdFlags, Mode, OFlags};
use std::{
    future::{Future, poll_fn},
    os::fd::OwnedFd,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

/// How a session begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With a handshake, asking for all there is.
    Handshake,
    /// With a handshake, asking for nothing but the export.
    PlainHandshake,
    /// With a handshake that stops where the options are.
    Steps,
    /// After the handshake.
    Agreed(ReplyStyle),
}

pub const BEGINS: [Begin; 6] = [
    Begin::Handshake,
    Begin::PlainHandshake,
    Begin::Steps,
    Begin::Agreed(ReplyStyle::Simple),
    Begin::Agreed(ReplyStyle::Structured),
    Begin::Agreed(ReplyStyle::Extended),
];

/// The size of the disk of [`Begin::Agreed`].
pub const SIZE: u64 = 1 << 40;

/// In the second byte of an input: how the client waits, and how the server's bytes come. Bits 2 to 4 choose a size of
/// pieces.
pub mod way {
    /// Every request is answered before the next one is made.
    pub const ONE_BY_ONE: u8 = 1;
    /// By the blocking face of a connection.
    pub const BLOCKING: u8 = 2;
    /// Piece by piece, the next one when the client has used up the last one and still waits.
    pub const FED: u8 = 0x20;
    /// With all three: over a socket, in pieces, from a thread.
    pub const LIVE: u8 = 0xe0;
}

const PIECES: [usize; 8] = [1, 7, 16, 20, 33, 100, 1000, 65536];

/// A client that waits longer for bytes that have all come hangs.
const SOON: Duration = Duration::from_secs(10);

/// Runs one session. Returns how many requests succeeded; a handshake counts as one.
///
/// # Panics
/// When the client panics, hangs, or offers what is no sound disk.
pub fn run(input: &[u8]) -> usize {
    let Some(([begin, way, count], rest)) = input.split_first_chunk() else { return 0 };
    let begin = BEGINS[usize::from(*begin) % BEGINS.len()];
    let Some((asks, said)) = rest.split_at_checked(usize::from(count % 16) * Ask::LEN) else { return 0 };
    if said.windows(2).any(|window| window == &asks::POISON[..2]) {
        return 0;
    }
    let asks: Vec<Ask> = asks.chunks_exact(Ask::LEN).map(Ask::decode).collect();
    let piece = PIECES[usize::from(way >> 2) % 8];
    if *way & way::LIVE == way::LIVE {
        let (near, far) = Stream::pair().expect("descriptors enough");
        return std::thread::scope(|scope| {
            let server = scope.spawn(move || server(&far, said, piece));
            let succeeded = session(near, begin, *way, &asks, None);
            // The scope alone does not wait for the very end of the thread, which leak checkers want to see.
            server.join().expect("the server's thread");
            succeeded
        });
    }
    if *way & way::FED != 0 && *way & way::BLOCKING == 0 && matches!(begin, Begin::Agreed(_)) {
        let pieces = feeder::pieces(said, &asks, piece);
        let (input, feeder) = feeder::Feeder::new(pieces);
        return session(stream_of(input), begin, *way, &asks, Some(feeder));
    }
    session(stream_of(file(said)), begin, *way, &asks, None)
}

fn file(bytes: &[u8]) -> OwnedFd {
    let file = rustix::fs::memfd_create("server", MemfdFlags::CLOEXEC).expect("a file in memory");
    let mut at = 0;
    while at < bytes.len() {
        at += rustix::io::pwrite(&file, &bytes[at..], at as u64).expect("room");
    }
    file
}

/// What is sent to it is thrown away.
fn stream_of(input: OwnedFd) -> Stream {
    let null = rustix::fs::open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    Stream::from_pair(input, null.expect("/dev/null")).expect("two files")
}

/// Says its bytes in pieces, and listens to nothing.
fn server(stream: &Stream, said: &[u8], piece: usize) {
    // Too many tiny ones would only take time.
    let (tiny, rest) = said.split_at((piece * 300).min(said.len()));
    for piece in tiny.chunks(piece).chain([rest]) {
        if stream.send_all(piece).is_err() {
            return;
        }
        std::thread::yield_now();
    }
    let _ = stream.shutdown(How::Write);
    let mut room = [0; 65536];
    while stream.recv(&mut room, Wait::Block).is_ok_and(|n| n > 0) {}
}

fn session(stream: Stream, begin: Begin, way: u8, asks: &[Ask], feeder: Option<Feeder<'_>>) -> usize {
    let style = match begin {
        Begin::Handshake | Begin::PlainHandshake => {
            let mut connector = Connector::stream(stream);
            connector.options = options(begin);
            return connector.open().map_or(0, |disk| 1 + requests(disk, way, asks, None));
        }
        Begin::Steps => {
            let wishes = Wishes { infos: Infos::ALL, opt_mode: true, ..Wishes::default() };
            let negotiation = Negotiation::start(stream, wishes, Some(SOON));
            return negotiation.map_or(0, |negotiation| steps(negotiation, way, asks));
        }
        Begin::Agreed(style) => style,
    };
    let negotiated = agreed(style);
    let connection = Connection::new(stream, style, &negotiated.contexts);
    if way & way::BLOCKING != 0 {
        return asks.iter().filter(|ask| ask.by_ticket(&connection, style)).count();
    }
    requests(RemoteDisk::from_connection(connection, negotiated), way, asks, feeder)
}

/// What is asked for in [`Begin::Handshake`] and [`Begin::PlainHandshake`].
fn options(begin: Begin) -> ConnectOptions {
    let all = ConnectOptions { timeout: Some(SOON), ..ConnectOptions::default() };
    match begin {
        Begin::PlainHandshake => {
            ConnectOptions { structured_replies: false, extended_headers: false, contexts: Vec::new(), ..all }
        }
        _ => all,
    }
}

/// What [`Begin::Agreed`] begins with.
fn agreed(style: ReplyStyle) -> Negotiated {
    let context = |id, name: &str| Context { id, name: name.into() };
    let flags = TransmissionFlags::ALL.without(TransmissionFlags::READ_ONLY);
    Negotiated {
        protocol: Protocol::FixedNewstyle,
        tls: false,
        export: String::new(),
        info: ExportInfo { size: SIZE, flags, ..ExportInfo::default() },
        replies: style,
        contexts: match style {
            ReplyStyle::Simple => vec![],
            _ => vec![context(7, BASE_ALLOCATION), context(3, "x-test:depth")],
        },
    }
}

/// Takes steps in option mode, one for each of the first asks, and goes on with the rest where that leads further.
fn steps(mut negotiation: Negotiation, way: u8, mut asks: &[Ask]) -> usize {
    while !negotiation.is_over()
        && let Some(ask) = asks.split_off_first()
    {
        let queries = ["base:".to_owned(), "x-test:one".to_owned()];
        let step = match ask.kind() % 8 {
            0 => negotiation.list().map(drop),
            1 => negotiation.info("a").map(drop),
            2 => negotiation.list_meta_context("a", &queries).map(drop),
            3 => negotiation.list_meta_context("", &[]).map(drop),
            4 => negotiation.set_meta_context("a", &queries).map(drop),
            5 => {
                negotiation.abort();
                return 0;
            }
            _ => negotiation.go("a").map(drop),
        };
        if let Err(Failure::Broken(why)) = step {
            assert!(!why.to_string().is_empty());
            return 0;
        }
    }
    let Ok((connection, negotiated)) = negotiation.into_connection() else { return 0 };
    1 + requests(RemoteDisk::from_connection(connection, negotiated), way, asks, None)
}

/// Makes the requests that the disk offers, awaits those that somebody cares for, and says goodbye.
///
/// All on one loop: what is dropped outside of one is driven by a thread of its own.
fn requests(disk: RemoteDisk, way: u8, asks: &[Ask], mut feeder: Option<Feeder<'_>>) -> usize {
    let disk = Arc::new(disk);
    let checked = Checked::new(disk.clone());
    reactor::block_on(async {
        let (mut succeeded, mut flying) = (0, InFlight::new());
        for ask in asks {
            let Some(mut io) = ask.of(&checked) else { continue };
            match ask.care() {
                _ if way & way::ONE_BY_ONE != 0 => {
                    succeeded += usize::from(soon(io, &mut feeder).await.is_ok());
                }
                // Dropped at once.
                0 => {}
                // Dropped after a look.
                1 => {
                    poll_fn(|cx| {
                        let _ = Pin::new(&mut io).poll(cx);
                        Poll::Ready(())
                    })
                    .await;
                }
                _ => flying.push(io),
            }
        }
        while let Some(outcome) = soon(flying.next(), &mut feeder).await {
            succeeded += usize::from(outcome.is_ok());
        }
        let left = soon(disk.disconnect(), &mut feeder).await;
        assert!(left.is_ok() || disk.error().is_some());
        assert!(disk.flush().await.is_err(), "after the goodbye nothing is answered");
        succeeded
    })
}

/// Waits, as long as there is hope.
async fn soon<F: Future>(future: F, feeder: &mut Option<Feeder<'_>>) -> F::Output {
    let (mut future, mut all_has_come) = (pin!(future), pin!(reactor::sleep(SOON)));
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = future.as_mut().poll(cx) {
            return Poll::Ready(outcome);
        }
        if let Some(feeder) = feeder {
            feeder.feed(cx);
        }
        assert!(all_has_come.as_mut().poll(cx).is_pending(), "all has come, and yet it waits");
        Poll::Pending
    })
    .await
}
