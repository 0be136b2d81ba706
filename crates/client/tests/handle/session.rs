//! One session of a handle with a server that has said all its words beforehand.
//!
//! The input: a byte of [`way`], how many requests there are, two bytes for each (what, and where), and then what the
//! server says, after a handshake as it should be unless the way is to have none.

use client::handle::{AioFlags, Handle, State, When};
use proto::{
    Context, ReplyStyle, TransmissionFlags,
    handshake::oldstyle,
    option::{Info, OptionReply, OptionType},
};
use std::{
    io::Write,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// The size of the export in bytes.
pub const SIZE: u64 = 1 << 20;

/// The way of a session.
pub mod way {
    /// The server's words begin with its greeting; else they follow a handshake with simple replies,
    pub const RAW: u8 = 0;
    /// with simple,
    pub const SIMPLE: u8 = 1;
    /// with structured
    pub const STRUCTURED: u8 = 2;
    /// or with extended ones.
    pub const EXTENDED: u8 = 3;
    /// With RAW: stop between options.
    pub const OPT_MODE: u8 = 4;
    /// Nothing is refused here.
    pub const LENIENT: u8 = 8;
}

/// What requests there are, by their number modulo 8.
pub const READ: u8 = 0;
/// As READ, and its parts are heard.
pub const READ_CHUNKS: u8 = 1;
/// Extents.
pub const STATUS: u8 = 3;

/// What a server says in a handshake that ends in these replies.
fn agreed(style: ReplyStyle) -> Vec<u8> {
    if style == ReplyStyle::Simple {
        return oldstyle::greeting(SIZE, flags()).to_vec();
    }
    let mut said = b"NBDMAGICIHAVEOPT\0\x03".to_vec();
    let mut say = |option, reply: OptionReply| reply.encode_into(option, &mut said);
    let extended = style == ReplyStyle::Extended;
    if extended {
        say(OptionType::EXTENDED_HEADERS, OptionReply::Ack);
    } else {
        say(OptionType::STRUCTURED_REPLY, OptionReply::Ack);
    }
    let context = Context { id: 7, name: "base:allocation".into() };
    say(OptionType::SET_META_CONTEXT, OptionReply::MetaContext(context));
    say(OptionType::SET_META_CONTEXT, OptionReply::Ack);
    say(OptionType::GO, OptionReply::Info(Info::Export { size: SIZE, flags: flags() }));
    say(OptionType::GO, OptionReply::Ack);
    said
}

fn flags() -> TransmissionFlags {
    TransmissionFlags::ALL.without(TransmissionFlags::READ_ONLY)
}

/// What came of a session.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How many requests succeeded.
    pub succeeded: usize,
    /// How many failed.
    pub failed: usize,
    /// How often a callback heard of a part of an answer.
    pub heard: usize,
}

/// Runs it to its end, whatever that is.
pub fn run(input: &[u8]) -> Outcome {
    let [how, count, rest @ ..] = input else { return Outcome::default() };
    let count = usize::from(count & 7).min(rest.len() / 2);
    let (requests, said) = rest.split_at(2 * count);
    let (near, mut far) = UnixStream::pair().expect("a pair of sockets");
    let mut h = Handle::new();
    h.add_context("base:allocation").expect("a context");
    let settings = h.change(When::Created).expect("a new handle");
    settings.opt_mode = how & way::OPT_MODE != 0 && how & 3 == way::RAW;
    settings.request_extended = how & 3 != way::STRUCTURED;
    if how & way::LENIENT != 0 {
        settings.strict = 0;
    }
    let mut words = match how & 3 {
        way::RAW => Vec::new(),
        way::SIMPLE => agreed(ReplyStyle::Simple),
        way::STRUCTURED => agreed(ReplyStyle::Structured),
        _ => agreed(ReplyStyle::Extended),
    };
    // The handshake comes first: with more, the end of it could not be told from the replies.
    let handshake = words.len();
    words.extend_from_slice(&said[..said.len().min(64 << 10)]);
    let (first, second) = words.split_at(handshake);
    far.write_all(first).expect("there is room");
    let connected = h.aio_connect_socket(near.into());
    if how & 3 != way::RAW {
        connected.and_then(|()| h.connected()).expect("the handshake is as it should be");
    }
    let outcomes: Arc<[AtomicUsize; 3]> = Arc::default();
    let mut issued = 0;
    for pair in requests.chunks_exact(2) {
        issued += usize::from(request(&mut h, pair[0], u64::from(pair[1]) * 512, &outcomes));
    }
    far.write_all(second).expect("there is room");
    far.shutdown(Shutdown::Write).expect("a socket can be shut down");
    let mut steps = 0u32;
    loop {
        steps += 1;
        assert!(steps < 100_000, "the session does not end");
        match h.state() {
            State::Created | State::Closed | State::Dead => break,
            State::Negotiating => match steps % 4 {
                0 => drop(h.aio_opt_go(None)),
                1 => drop(h.aio_opt_info(None)),
                2 => drop(h.aio_opt_list(Box::new(|_, _| 0), None)),
                _ => drop(h.aio_opt_list_contexts(None, Box::new(|_| 0), None)),
            },
            _ => assert!(h.poll(20_000) != Ok(false), "the session hangs"),
        }
    }
    assert_eq!(h.in_flight().unwrap_or(0), 0);
    let count = |at: usize| outcomes[at].load(Relaxed);
    let outcome = Outcome { succeeded: count(0), failed: count(1), heard: count(2) };
    assert_eq!(outcome.succeeded + outcome.failed, issued, "every request ends once");
    outcome
}

/// Makes a request, if the handle takes it.
fn request(h: &mut Handle, kind: u8, offset: u64, outcomes: &Arc<[AtomicUsize; 3]>) -> bool {
    let ended = outcomes.clone();
    let completion = move |errno: &mut i32| {
        ended[usize::from(*errno != 0)].fetch_add(1, Relaxed);
        1
    };
    let how = AioFlags { flags: 0, completion: Some(Box::new(completion)) };
    let memory = Box::new(vec![0x55; 512]);
    let heard = outcomes.clone();
    let asked = match kind % 8 {
        READ => h.aio_pread(memory, offset, how),
        READ_CHUNKS => {
            let chunk = move |_: &[u8], _, _, _: &mut i32| {
                heard[2].fetch_add(1, Relaxed);
                0
            };
            h.aio_pread_structured(memory, offset, Box::new(chunk), how)
        }
        2 => h.aio_pwrite(memory, offset, how),
        STATUS => {
            let extent = move |_: &str, _, _: &[proto::Extent], _: &mut i32| {
                heard[2].fetch_add(1, Relaxed);
                0
            };
            h.aio_block_status(4096, offset, None, Box::new(extent), how)
        }
        4 => h.aio_zero(4096, offset, how),
        5 => h.aio_trim(4096, offset, how),
        6 => h.aio_resize(offset, how),
        _ => h.aio_flush(how),
    };
    asked.is_ok()
}
