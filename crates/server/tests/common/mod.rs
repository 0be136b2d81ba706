//! A server over a socket pair, a disk that shows what it is asked, and a client of a few lines.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test file uses its part")]

use disk::{
    Backend, Client as Who, Data, Disk, Errno, Error, Extents, Facts, Io, Kind, Range, Status, WriteFlags,
    ZeroFlags,
};
use diskpipe_server::{Log, Options, Server};
use net::Stream;
use proto::{
    Command, CommandFlags, ReplyHeader, ReplyStyle, Request,
    handshake::{
        Negotiated,
        client::{ClientHandshake, Event, Wishes},
    },
    reply::Payload,
};
use std::{
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

pub const SIZE: usize = 1 << 20;

/// One mebibyte: zeroes are holes, in blocks of 4 KiB. Reads at 512 KiB take a while; reads at 768 KiB fail.
pub struct Ram {
    facts: Facts,
    /// How long "a while" is.
    pub slowness: Duration,
    pub bytes: Mutex<Vec<u8>>,
    pub asked: Mutex<Vec<String>>,
}

impl Ram {
    pub fn new(change: impl FnOnce(&mut Facts)) -> Arc<Ram> {
        let contexts: Arc<[Box<str>]> = Arc::new(["qemu:dirty-bitmap:b0".into()]);
        let mut facts = Facts {
            trim: true,
            zero: true,
            fast_zero: true,
            fua: true,
            cache: true,
            extents: true,
            contexts,
            description: Some("for tests".into()),
            ..Facts::writable(SIZE as u64)
        };
        change(&mut facts);
        let slowness = Duration::from_millis(200);
        Arc::new(Ram { facts, slowness, bytes: Mutex::new(vec![0; SIZE]), asked: Mutex::default() })
    }

    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }

    fn get(&self, r: Range) -> Data {
        let bytes = &self.bytes.lock().unwrap()[r.start as usize..r.end() as usize];
        Data::join(
            bytes
                .chunks(4096)
                .map(
                    |c| {
                        if disk::data::is_zero(c) { Data::zeroes(c.len() as u64) } else { Data::copy_from(c) }
                    },
                )
                .collect(),
        )
    }
}

impl Disk for Ram {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, r: Range) -> Io<'_, Data> {
        match r.start {
            0x80000 => Io::later(async move {
                reactor::sleep(self.slowness).await;
                Ok(self.get(r))
            }),
            0xc0000 => Error::new(Errno::IO, "a bad block").into(),
            _ => Io::ok(self.get(r)),
        }
    }
    fn write(&self, at: u64, data: Data, f: WriteFlags) -> Io<'_, ()> {
        self.note(format!("write {} at {at} fua={}", data.len(), f.fua));
        data.copy_to(&mut self.bytes.lock().unwrap()[at as usize..(at + data.len()) as usize]);
        Io::ok(())
    }
    fn zero(&self, r: Range, f: ZeroFlags) -> Io<'_, ()> {
        self.note(format!("zero {r} fua={} may_trim={} fast={}", f.fua, f.may_trim, f.fast));
        if f.fast {
            return Errno::NOTSUP.into();
        }
        self.bytes.lock().unwrap()[r.start as usize..r.end() as usize].fill(0);
        Io::ok(())
    }
    fn trim(&self, r: Range, f: WriteFlags) -> Io<'_, ()> {
        self.note(format!("trim {r} fua={}", f.fua));
        Io::ok(())
    }
    fn flush(&self) -> Io<'_, ()> {
        self.note("flush".into());
        Io::ok(())
    }
    fn cache(&self, r: Range) -> Io<'_, ()> {
        self.note(format!("cache {r}"));
        Io::ok(())
    }
    fn extents(&self, r: Range, limit: usize) -> Io<'_, Extents> {
        let mut extents = Extents::new();
        for part in r.split_at_multiples(4096) {
            let kind = if self.get(part).says_zeroes() { Kind::HOLE } else { Kind::DATA };
            extents.push(part.len, kind);
            if extents.len() > limit {
                break;
            }
        }
        Io::ok(extents)
    }
    fn status(&self, _: usize, r: Range, _: usize) -> Io<'_, Vec<Status>> {
        Io::ok(vec![Status { len: r.len, value: 1 }])
    }
}

struct Exports(Arc<Ram>);
impl Backend for Exports {
    fn open<'a>(&'a self, who: &'a Who<'a>) -> Io<'a, Arc<dyn Disk>> {
        match who.export {
            "" | "main" => Io::ok(self.0.clone()),
            name => Error::new(Errno::NOENT, format!("there is no export {name:?}")).into(),
        }
    }
    fn exports<'a>(&'a self, _: &'a Who<'a>) -> Io<'a, Vec<disk::Export>> {
        Io::ok(vec![disk::Export { name: "main".into(), description: Some("the only one".into()) }])
    }
    fn default_export<'a>(&'a self, _: &'a Who<'a>) -> Io<'a, Option<String>> {
        Io::ok(Some("main".into()))
    }
}

#[derive(Default)]
pub struct Lines(pub Mutex<Vec<String>>);
impl Log for Lines {
    fn error(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
}

/// Stops a server also when its test fails, which would wait for it for ever.
pub struct Stop<'a>(pub &'a Server);
impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

pub struct Running {
    pub ram: Arc<Ram>,
    pub lines: Arc<Lines>,
    pub server: Arc<Server>,
    thread: JoinHandle<()>,
}

impl Running {
    /// Serves one connection; the client's end.
    pub fn start(ram: Arc<Ram>, change: impl FnOnce(&mut Options)) -> (Running, Stream) {
        let (near, far) = Stream::pair().unwrap();
        let lines = Arc::new(Lines::default());
        let mut options = Options { log: lines.clone(), ..Options::default() };
        change(&mut options);
        let server = Arc::new(Server::with_options(Arc::new(Exports(ram.clone())), options).unwrap());
        let thread = std::thread::spawn({
            let server = server.clone();
            move || server.serve_stream(far)
        });
        (Running { ram, lines, server, thread }, near)
    }

    /// Waits for its end; the lines it logged.
    pub fn end(self) -> Vec<String> {
        self.thread.join().unwrap();
        std::mem::take(&mut self.lines.0.lock().unwrap())
    }
}

pub fn wishes(style: ReplyStyle) -> Wishes {
    Wishes {
        export: "main".into(),
        structured_replies: style != ReplyStyle::Simple,
        extended_headers: style == ReplyStyle::Extended,
        contexts: match style {
            ReplyStyle::Simple => vec![],
            _ => vec!["base:allocation".into(), "qemu:dirty-bitmap:b0".into()],
        },
        ..Wishes::default()
    }
}

pub struct Client {
    pub stream: Stream,
    pub negotiated: Negotiated,
    buffer: Vec<u8>,
}

/// What a reply said: an errno and message, or bytes.
pub type Answer = Result<Vec<u8>, (u32, String)>;

impl Client {
    pub fn handshake(stream: Stream, wishes: Wishes) -> Client {
        let mut machine = ClientHandshake::new(wishes);
        loop {
            let event = machine.next().unwrap();
            stream.send_all(&machine.take_output()).unwrap();
            match event {
                Event::NeedInput => {
                    let mut room = [0; 1000];
                    let n = stream.recv(&mut room, net::Wait::Block).unwrap();
                    assert_ne!(n, 0, "the server closed");
                    machine.feed(&room[..n]);
                }
                Event::Ready(negotiated) => {
                    return Client { stream, negotiated, buffer: machine.take_input() };
                }
                other => panic!("{other:?}"),
            }
        }
    }

    pub fn start(style: ReplyStyle) -> (Running, Client) {
        let (running, stream) = Running::start(Ram::new(|_| ()), |_| ());
        let client = Client::handshake(stream, wishes(style));
        assert_eq!(client.negotiated.replies, style);
        (running, client)
    }

    pub fn send(
        &mut self,
        command: Command,
        flags: CommandFlags,
        cookie: u64,
        at: u64,
        len: u64,
        payload: &[u8],
    ) {
        let request = Request { flags, command, cookie, offset: at, length: len };
        let mut out = Vec::new();
        request.encode_into(self.negotiated.replies.header_style(), &mut out);
        out.extend_from_slice(payload);
        self.stream.send_all(&out).unwrap();
    }

    fn fill(&mut self, len: usize) -> bool {
        while self.buffer.len() < len {
            let mut room = [0; 4096];
            match self.stream.recv(&mut room, net::Wait::Block) {
                Ok(0) | Err(_) => return false,
                Ok(n) => self.buffer.extend_from_slice(&room[..n]),
            }
        }
        true
    }

    /// The next header and its payload; `None` at the end of the stream. `simple`: the payload of a simple reply.
    pub fn reply(&mut self, simple: usize) -> Option<(ReplyHeader, Vec<u8>)> {
        self.reply_with(|_| simple)
    }

    /// As `reply`, where the payload of a simple reply depends on its cookie.
    pub fn reply_with(&mut self, simple: impl Fn(u64) -> usize) -> Option<(ReplyHeader, Vec<u8>)> {
        let (header, taken) = loop {
            match ReplyHeader::decode(self.negotiated.replies, &self.buffer).unwrap() {
                Some(found) => break found,
                None => {
                    let want = self.buffer.len() + 1;
                    if !self.fill(want) {
                        return None;
                    }
                }
            }
        };
        self.buffer.drain(..taken);
        let payload = match &header {
            ReplyHeader::Simple(reply) if reply.error.is_none() => simple(reply.cookie),
            ReplyHeader::Simple(_) => 0,
            ReplyHeader::Chunk(chunk) => {
                chunk.check().unwrap();
                chunk.length as usize
            }
        };
        assert!(self.fill(payload));
        Some((header, self.buffer.drain(..payload).collect()))
    }

    /// The whole reply to request `cookie`: bytes read, or (for block status) one line per context.
    pub fn answer(&mut self, cookie: u64, at: u64, len: usize) -> Answer {
        let (mut bytes, mut text, mut failed) = (vec![0xEE; len], Vec::new(), None);
        loop {
            let (header, payload) = self.reply(len).expect("a reply");
            assert_eq!(header.cookie(), cookie);
            match header {
                ReplyHeader::Simple(reply) => match reply.error {
                    Some(e) => return Err((e.to_wire(), String::new())),
                    None => return Ok(payload),
                },
                ReplyHeader::Chunk(chunk) => {
                    match Payload::decode(chunk.kind, &payload).unwrap() {
                        Payload::None => {}
                        Payload::Data { offset, data } => {
                            bytes[(offset - at) as usize..][..data.len()].copy_from_slice(data);
                        }
                        Payload::Hole { offset, length } => {
                            bytes[(offset - at) as usize..][..length as usize].fill(0);
                        }
                        Payload::BlockStatus { context, extents } => {
                            let list: Vec<_> = extents.iter().map(|e| (e.length, e.status)).collect();
                            text.extend(format!("{context}: {list:?}\n").into_bytes());
                        }
                        Payload::Size(size) => text.extend(format!("{size}\n").into_bytes()),
                        Payload::Error(e) => failed = Some((e.errno.to_wire(), e.message.to_string())),
                    }
                    if chunk.is_done() {
                        return match failed {
                            Some(e) => Err(e),
                            None if text.is_empty() => Ok(bytes),
                            None => Ok(text),
                        };
                    }
                }
            }
        }
    }

    pub fn ask(
        &mut self,
        command: Command,
        flags: CommandFlags,
        at: u64,
        len: u64,
        payload: &[u8],
    ) -> Answer {
        self.send(command, flags, 7, at, len, payload);
        let expected = if command == Command::Read { len as usize } else { 0 };
        self.answer(7, at, expected)
    }

    pub fn read(&mut self, at: u64, len: u64) -> Answer {
        self.ask(Command::Read, CommandFlags::NONE, at, len, &[])
    }

    pub fn write(&mut self, at: u64, bytes: &[u8]) -> Answer {
        let flags = match self.negotiated.replies {
            ReplyStyle::Extended => CommandFlags::PAYLOAD_LEN,
            _ => CommandFlags::NONE,
        };
        self.ask(Command::Write, flags, at, bytes.len() as u64, bytes)
    }

    pub fn disconnect(mut self) {
        self.send(Command::Disc, CommandFlags::NONE, 0, 0, 0, &[]);
        assert!(self.reply(0).is_none(), "nothing comes after the goodbye");
    }
}
