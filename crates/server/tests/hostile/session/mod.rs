//! One whole session: a server, a disk, and a client that may send anything.
//!
//! The first bytes of an input choose what the server allows, how the bytes reach it and what disk it serves; the rest
//! is what the client sends. The same code runs under a fuzzer (`fuzz/targets/session.rs`) and in the tests here.

mod answers;
mod disks;

use diskpipe_server::{Log, Options, Policy, Server};
use disks::Exports;
use net::{How, Stream, Wait};
use proto::HandshakeFlags;
use rustix::{
    fs::{MemfdFlags, SeekFrom},
    pipe::PipeFlags,
};
use std::{
    io::IoSlice,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::Duration,
};

pub use disks::{BEHAVIOURS, Behaviour};

/// What the first bytes of an input say.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub handshake: Handshake,
    pub delivery: Delivery,
    pub behaviour: Behaviour,
    /// The server lets nobody write.
    pub read_only: bool,
    /// How input is cut, which requests fail.
    pub seed: u8,
}

/// What the server allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// All there is.
    All,
    Oldstyle,
    /// No structured replies, no extended headers.
    Simple,
    /// No extended headers.
    NoExtended,
    /// No metadata contexts.
    NoContexts,
    /// Only EXPORT_NAME.
    NotFixed,
    /// All, but few options.
    FewOptions,
    /// Extended headers, but no structured replies by themselves.
    NoStructured,
}

pub const HANDSHAKES: [Handshake; 8] = [
    Handshake::All,
    Handshake::Oldstyle,
    Handshake::Simple,
    Handshake::NoExtended,
    Handshake::NoContexts,
    Handshake::NotFixed,
    Handshake::FewOptions,
    Handshake::NoStructured,
];

/// How the client's bytes come, and the answers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// All there from the start; answers are gathered. No thread, no waiting, so that a run is always the same.
    AtOnce,
    /// As `AtOnce`, but each receive gets a piece.
    InPieces,
    /// Over a socket, by a client that reads what it is told meanwhile.
    Live,
    /// Over a socket, by a client that reads nothing and goes away.
    Leaving,
}

pub const DELIVERIES: [Delivery; 4] =
    [Delivery::AtOnce, Delivery::InPieces, Delivery::Live, Delivery::Leaving];

impl Setting {
    /// How many bytes of an input it takes.
    pub const LEN: usize = 3;
    /// From this seed on, a thread is the client.
    pub const LIVE: u8 = 0xe0;

    pub fn decode([first, second, seed]: [u8; Setting::LEN]) -> Setting {
        // Threads are slow: most inputs, whatever a fuzzer changes, do without.
        let first_delivery = if seed >= Setting::LIVE { 2 } else { 0 };
        Setting {
            handshake: HANDSHAKES[usize::from(first % 8)],
            delivery: DELIVERIES[first_delivery + usize::from(second % 2)],
            behaviour: BEHAVIOURS[usize::from(second >> 2) % 8],
            read_only: second & 0x80 != 0,
            seed,
        }
    }

    fn options(&self, log: Arc<Lines>) -> Options {
        let all = Policy::default();
        let policy = match self.handshake {
            Handshake::All | Handshake::Oldstyle => all,
            Handshake::Simple => Policy { structured_replies: false, extended_headers: false, ..all },
            Handshake::NoExtended => Policy { extended_headers: false, ..all },
            Handshake::NoContexts => Policy { meta_contexts: false, ..all },
            Handshake::NotFixed => Policy { handshake_flags: HandshakeFlags::NO_ZEROES, ..all },
            Handshake::FewOptions => Policy { options_max: 4, ..all },
            Handshake::NoStructured => Policy { structured_replies: false, ..all },
        };
        let oldstyle = self.handshake == Handshake::Oldstyle;
        Options { policy, oldstyle, read_only: self.read_only, log, ..Options::default() }
    }
}

/// What the server says of itself.
#[derive(Default)]
struct Lines {
    errors: Mutex<Vec<String>>,
    debug: Mutex<Vec<String>>,
}

impl Log for Lines {
    fn error(&self, line: &str) {
        self.errors.lock().unwrap().push(line.to_owned());
    }
    fn debug(&self, line: &str) {
        self.debug.lock().unwrap().push(line.to_owned());
    }
}

/// Runs one session and checks what came of it. Returns how many answers could be checked.
///
/// # Panics
/// When the server panics, answers what it should not, or leaves out an answer.
pub fn run(input: &[u8]) -> usize {
    let Some((setting, sent)) = input.split_first_chunk() else { return 0 };
    let setting = Setting::decode(*setting);
    let exports = Exports::new(setting.behaviour, setting.seed.into());
    let before = (setting.behaviour.is_orderly()).then(|| exports.content());
    let lines = Arc::new(Lines::default());
    let backend = disk::checked::backend(Arc::new(exports));
    let server = Server::with_options(backend, setting.options(lines.clone())).expect("descriptors enough");
    let answered = match setting.delivery {
        Delivery::AtOnce => gathered(&server, file(sent)),
        Delivery::InPieces => gathered(&server, pieces(sent, setting.seed)),
        Delivery::Live => live(&server, sent, setting.seed, true),
        Delivery::Leaving => live(&server, sent, setting.seed, false),
    };
    let errors = lines.errors.lock().unwrap();
    assert!(!errors.iter().any(|line| line.contains("panicked")), "{errors:?}");
    let debug = lines.debug.lock().unwrap();
    let ended_well = debug.iter().any(|line| line.ends_with(": closed"));
    assert!(ended_well != errors.iter().any(|line| is_last_word(line)), "{debug:?} {errors:?}");
    let Some(answers) = answered else { return 0 };
    answers::check(sent, &answers, setting.handshake == Handshake::Oldstyle, ended_well, before)
}

/// Whether a line tells why a connection ended, not of an export that could not be opened or a request refused.
fn is_last_word(line: &str) -> bool {
    let after = line.split_once(": ").map_or("", |(_, after)| after);
    !after.starts_with("opening export ") && !after.starts_with("refused ")
}

/// Serves what lies ready; no thread is needed, because nothing can be full.
fn gathered(server: &Server, input: OwnedFd) -> Option<Vec<u8>> {
    let output = memory_file();
    let stream = Stream::from_pair(input, output.try_clone().expect("a descriptor")).expect("two files");
    server.serve_to_the_end(stream);
    let len = rustix::fs::seek(&output, SeekFrom::Current(0)).expect("a file") as usize;
    let mut answers = vec![0; len];
    let mut at = 0;
    while at < len {
        at += rustix::io::pread(&output, &mut answers[at..], at as u64).expect("a file");
    }
    Some(answers)
}

fn memory_file() -> OwnedFd {
    rustix::fs::memfd_create("session", MemfdFlags::CLOEXEC).expect("a file in memory")
}

fn file(bytes: &[u8]) -> OwnedFd {
    let file = memory_file();
    let mut at = 0;
    while at < bytes.len() {
        at += rustix::io::pwrite(&file, &bytes[at..], at as u64).expect("room");
    }
    file
}

/// A pipe that keeps its pieces apart: each read gets one. (A file, where there is too much for a pipe.)
fn pieces(bytes: &[u8], seed: u8) -> OwnedFd {
    /// No longer than the shortest buffer that the server receives into: the rest of a piece would be lost.
    const LARGEST: usize = 512;
    /// A pipe has so many places.
    const MOST: usize = 256;
    let mut rest = bytes;
    let mut list = Vec::new();
    for piece in cut(bytes, seed) {
        let (piece, behind) = rest.split_at(piece.len().min(LARGEST));
        // What is behind must find its place, too.
        if piece.len() < LARGEST && list.len() + 1 + behind.len().div_ceil(LARGEST) > MOST {
            break;
        }
        list.push(piece);
        rest = behind;
    }
    list.extend(rest.chunks(LARGEST));
    if list.len() > MOST {
        return file(bytes);
    }
    let (input, output) =
        rustix::pipe::pipe_with(PipeFlags::DIRECT | PipeFlags::CLOEXEC).expect("descriptors enough");
    if list.len() > 16 {
        rustix::pipe::fcntl_setpipe_size(&output, MOST * 4096).expect("a large pipe");
    }
    for piece in list {
        assert_eq!(rustix::io::write(&output, piece).expect("room"), piece.len());
    }
    input
}

/// Cuts of all sizes, that follow from `seed`.
fn cut(bytes: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    let mut state = u32::from(seed) | 0x100;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let len = match seed % 8 {
            0 => 1,
            1 => 28,
            2 => 32,
            3 => 1 + (state >> 24) as usize,
            4 => 1 + (state >> 20) as usize,
            5 => 7,
            6 => 4096,
            _ => 1 + (state >> 28) as usize,
        };
        let (piece, behind) = rest.split_at(len.min(rest.len()));
        rest = behind;
        Some(piece)
    })
}

/// Serves a socket whose other end a thread holds.
fn live(server: &Server, sent: &[u8], seed: u8, reads: bool) -> Option<Vec<u8>> {
    let (near, far) = Stream::pair().expect("descriptors enough");
    std::thread::scope(|scope| {
        let client = scope.spawn(move || {
            let mut answers = Vec::new();
            // Too many tiny pieces would only take time.
            let (first, rest) = sent.split_at(sent.len().min(300));
            for piece in cut(first, seed).chain([rest]) {
                if !send(&far, piece, &mut answers) {
                    break;
                }
                std::thread::yield_now();
            }
            if !reads {
                return None;
            }
            let _ = far.shutdown(How::Write);
            // A server that hangs is found by this, and by nothing else.
            far.set_recv_timeout(Some(Duration::from_secs(20))).expect("a socket");
            let mut room = vec![0; 64 << 10];
            loop {
                match far.recv(&mut room, Wait::Block) {
                    Ok(0) => return Some(answers),
                    Ok(n) => answers.extend_from_slice(&room[..n]),
                    // It hung up with bytes unread.
                    Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Some(answers),
                    Err(e) => panic!("the server did not answer and did not close: {e}"),
                }
            }
        });
        server.serve_to_the_end(near);
        client.join().expect("the client's thread")
    })
}

/// Sends a piece, reading whenever there is no room. False: the server has closed.
fn send(stream: &Stream, mut piece: &[u8], answers: &mut Vec<u8>) -> bool {
    while !piece.is_empty() {
        match stream.send_vectored(&[IoSlice::new(piece)], Wait::DontWait) {
            Ok(n) => piece = &piece[n..],
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                let mut room = [0; 4096];
                match stream.recv(&mut room, Wait::DontWait) {
                    Ok(0) => return false,
                    Ok(n) => answers.extend_from_slice(&room[..n]),
                    Err(_) => std::thread::yield_now(),
                }
            }
            Err(_) => return false,
        }
    }
    true
}
