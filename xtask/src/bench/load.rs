//! The load: the leanest client there can be. Requests are made in advance, answers are only counted, and what goes out
//! together is sent in one call, so that a figure tells of the server.

use anyhow::{Context, Result, bail};
use net::{Address, Stream, Wait};
use proto::{
    Command, CommandFlags, ReplyHeader, ReplyStyle, Request,
    handshake::{
        Tls,
        client::{ClientHandshake, Event, Wishes},
    },
};
use std::{
    io::IoSlice,
    time::{Duration, Instant},
};

/// What is asked of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Read,
    Write,
    /// Reads and writes in turn.
    Mixed,
    /// What is data and what is a hole.
    Extents,
    /// Connect, agree on everything, disconnect.
    Connect,
}

/// One row of a table.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) ask: Ask,
    /// Bytes per request.
    pub(super) block: u64,
    /// Requests in flight per connection.
    pub(super) depth: usize,
    pub(super) connections: usize,
}

const fn shape(name: &'static str, ask: Ask, block: u64, depth: usize, connections: usize) -> Shape {
    Shape { name, ask, block, depth, connections }
}

const K: u64 = 1 << 10;

/// What a server's life consists of.
pub(super) const SHAPES: &[Shape] = &[
    shape("read-4k-q1", Ask::Read, 4 * K, 1, 1),
    shape("read-4k-q64", Ask::Read, 4 * K, 64, 1),
    shape("read-4k-q64-c4", Ask::Read, 4 * K, 64, 4),
    shape("write-4k-q64", Ask::Write, 4 * K, 64, 1),
    shape("write-4k-q64-c4", Ask::Write, 4 * K, 64, 4),
    shape("mixed-4k-q64", Ask::Mixed, 4 * K, 64, 1),
    shape("mixed-4k-q64-c4", Ask::Mixed, 4 * K, 64, 4),
    shape("read-64k-q16", Ask::Read, 64 * K, 16, 1),
    shape("read-256k-q16", Ask::Read, 256 * K, 16, 1),
    shape("read-1m-q8", Ask::Read, 1024 * K, 8, 1),
    shape("write-64k-q16", Ask::Write, 64 * K, 16, 1),
    shape("write-256k-q16", Ask::Write, 256 * K, 16, 1),
    shape("write-1m-q8", Ask::Write, 1024 * K, 8, 1),
    shape("extents-1m-q16", Ask::Extents, 1024 * K, 16, 1),
    shape("connect", Ask::Connect, 0, 1, 1),
];

/// How to reach an export.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) address: Address,
    pub(super) export: String,
    /// Ask for structured replies also where they are not needed.
    pub(super) structured: bool,
    /// Ask for TLS, and believe whom this believes.
    pub(super) tls: Option<net::tls::Client>,
}

impl Target {
    /// Connects and agrees on everything; also the size of the export.
    pub(super) fn open(&self, ask: Ask) -> Result<(Stream, ReplyStyle, u64)> {
        let stream = net::connect(&self.address, Some(Duration::from_secs(10)))?;
        let extents = ask == Ask::Extents;
        let mut machine = ClientHandshake::new(Wishes {
            export: self.export.clone(),
            structured_replies: self.structured || extents,
            extended_headers: false,
            tls: if self.tls.is_some() { Tls::Require } else { Tls::Off },
            contexts: if extents { vec![proto::meta_context::BASE_ALLOCATION.into()] } else { vec![] },
            ..Wishes::default()
        });
        let mut room = [0; 1024];
        loop {
            let event = machine.next()?;
            stream.send_all(&machine.take_output())?;
            match event {
                Event::NeedInput => match stream.recv(&mut room, Wait::Block)? {
                    0 => bail!("the server closed the connection"),
                    n => machine.feed(&room[..n]),
                },
                Event::StartTls => {
                    let client = self.tls.as_ref().context("TLS was not asked for")?;
                    stream.begin_tls(client, Some("localhost"))?;
                    machine.tls_started()?;
                }
                Event::Ready(negotiated) => return Ok((stream, negotiated.replies, negotiated.info.size)),
                other => bail!("the handshake led to {other:?}"),
            }
        }
    }
}

/// Requests (or connections) per second.
pub(super) fn measure(shape: &Shape, target: &Target, time: Duration) -> Result<f64> {
    let rates = std::thread::scope(|scope| {
        let start = |n| scope.spawn(move || one_connection(shape, target, time, n));
        let threads: Vec<_> = (1..=shape.connections as u64).map(start).collect();
        let joined =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|e| std::panic::resume_unwind(e)));
        joined.collect::<Result<Vec<f64>>>()
    })?;
    Ok(rates.iter().sum())
}

fn one_connection(shape: &Shape, target: &Target, time: Duration, seed: u64) -> Result<f64> {
    let mut pace = Pace::new(time);
    if shape.ask == Ask::Connect {
        while pace.goes_on() {
            goodbye(&target.open(shape.ask)?.0)?;
            pace.done(1);
        }
        return Ok(pace.rate());
    }
    let mut load = Load::new(shape, target, seed)?;
    load.ask(shape.depth)?;
    while pace.goes_on() {
        let done = load.answers()?;
        load.ask(done)?;
        pace.done(done);
    }
    let mut left = shape.depth;
    while left > 0 {
        left -= load.answers()?;
    }
    goodbye(&load.stream)?;
    Ok(pace.rate())
}

fn goodbye(stream: &Stream) -> Result<()> {
    let mut out = Vec::new();
    let request =
        Request { flags: CommandFlags::NONE, command: Command::Disc, cookie: 0, offset: 0, length: 0 };
    request.encode_into(proto::HeaderStyle::Compact, &mut out);
    Ok(stream.send_all(&out)?)
}

/// The rate of the median of short spans: what disturbs some of them, such as the kernel taking the core from those who
/// run in real time for 50 ms of every second, does not count.
pub(super) struct Pace {
    end: Instant,
    span: Instant,
    in_span: usize,
    rates: Vec<f64>,
}

const SPAN: Duration = Duration::from_millis(25);

impl Pace {
    pub(super) fn new(time: Duration) -> Pace {
        let now = Instant::now();
        Pace { end: now + time, span: now, in_span: 0, rates: vec![] }
    }

    pub(super) fn goes_on(&mut self) -> bool {
        let now = Instant::now();
        let span = now - self.span;
        if span >= SPAN {
            self.rates.push(self.in_span as f64 / span.as_secs_f64());
            (self.span, self.in_span) = (now, 0);
        }
        now < self.end || self.rates.is_empty()
    }

    pub(super) fn done(&mut self, requests: usize) {
        self.in_span += requests;
    }

    pub(super) fn rate(self) -> f64 {
        super::table::median(self.rates)
    }
}

/// One connection with requests in flight.
struct Load {
    stream: Stream,
    style: ReplyStyle,
    ask: Ask,
    places: Places,
    payload: Vec<u8>,
    headers: Vec<u8>,
    room: Vec<u8>,
    /// Bytes in `room`.
    have: usize,
    /// Bytes of a payload still to come.
    payload_left: u64,
    /// With them, the answer is complete.
    completes: bool,
}

impl Load {
    fn new(shape: &Shape, target: &Target, seed: u64) -> Result<Load> {
        let (stream, style, size) = target.open(shape.ask)?;
        let state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Ok(Load {
            stream,
            style,
            ask: shape.ask,
            places: Places { state, turn: 0, blocks: size / shape.block, block: shape.block },
            payload: vec![0x5A; shape.block as usize],
            headers: Vec::new(),
            room: vec![0; 512 << 10],
            have: 0,
            payload_left: 0,
            completes: false,
        })
    }

    /// Sends so many requests.
    fn ask(&mut self, requests: usize) -> Result<()> {
        self.headers.clear();
        let style = self.style.header_style();
        let mut writes = Vec::with_capacity(requests);
        for _ in 0..requests {
            let (offset, turn) = self.places.next();
            let command = match self.ask {
                Ask::Write => Command::Write,
                Ask::Mixed if turn.is_multiple_of(2) => Command::Write,
                Ask::Extents => Command::BlockStatus,
                _ => Command::Read,
            };
            // The lowest bit of the cookie tells how much comes back.
            let cookie = turn << 1 | u64::from(command == Command::Read);
            Request { flags: CommandFlags::NONE, command, cookie, offset, length: self.places.block }
                .encode_into(style, &mut self.headers);
            writes.push(command == Command::Write);
        }
        if !writes.contains(&true) {
            return Ok(self.stream.send_all(&self.headers)?);
        }
        let mut pieces = Vec::with_capacity(requests * 2);
        for (header, write) in self.headers.chunks(style.request_len()).zip(writes) {
            pieces.push(IoSlice::new(header));
            if write {
                pieces.push(IoSlice::new(&self.payload));
            }
        }
        send_all(&self.stream, &mut pieces)
    }

    /// Waits for answers; how many came.
    fn answers(&mut self) -> Result<usize> {
        let mut done = 0;
        while done == 0 {
            match self.stream.recv(&mut self.room[self.have..], Wait::Block)? {
                0 => bail!("the server closed the connection"),
                n => self.have += n,
            }
            let mut at = 0;
            loop {
                let here = self.payload_left.min((self.have - at) as u64);
                at += here as usize;
                self.payload_left -= here;
                if self.payload_left > 0 {
                    break;
                }
                done += usize::from(std::mem::take(&mut self.completes));
                let Some((header, taken)) = ReplyHeader::decode(self.style, &self.room[at..self.have])?
                else {
                    break;
                };
                at += taken;
                (self.payload_left, self.completes) = match header {
                    ReplyHeader::Simple(reply) if reply.error.is_some() => {
                        bail!("the server answers {reply:?}")
                    }
                    ReplyHeader::Simple(reply) => ((reply.cookie & 1) * self.places.block, true),
                    ReplyHeader::Chunk(chunk) if chunk.kind.is_error() => {
                        bail!("the server answers {chunk:?}")
                    }
                    ReplyHeader::Chunk(chunk) => (chunk.length, chunk.is_done()),
                };
            }
            self.room.copy_within(at..self.have, 0);
            self.have -= at;
        }
        Ok(done)
    }
}

pub(super) fn send_all(stream: &Stream, mut pieces: &mut [IoSlice<'_>]) -> Result<()> {
    while !pieces.is_empty() {
        let sent = stream.send_vectored(pieces, Wait::Block)?;
        IoSlice::advance_slices(&mut pieces, sent);
    }
    Ok(())
}

/// Writes to all of the disk, so that no server has it easy with holes.
pub(super) fn fill(target: &Target) -> Result<()> {
    let (stream, ..) = target.open(Ask::Write).context("filling the disk")?;
    drop(stream);
    let everything = Shape { name: "fill", ask: Ask::Write, block: 1 << 20, depth: 1, connections: 1 };
    let mut load = Load::new(&everything, target, 0)?;
    for _ in 0..load.places.blocks {
        load.ask(1)?;
        load.answers()?;
    }
    goodbye(&load.stream)
}

/// Places that look random and are the same in every run; with a state of 0, one after the other.
struct Places {
    state: u64,
    turn: u64,
    blocks: u64,
    block: u64,
}

impl Places {
    fn next(&mut self) -> (u64, u64) {
        self.turn += 1;
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let number = if self.state == 0 { self.turn } else { self.state >> 11 };
        (number % self.blocks * self.block, self.turn)
    }
}
