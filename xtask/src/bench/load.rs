//! The load: what a shape asks of a server, and how fast it is answered.

use client::{Connector, blocking::Client};
use disk::{Data, Disk, Io, Range, WriteFlags};
use net::Address;
use reactor::InFlight;
use std::time::{Duration, Instant};

/// Where the load goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Read,
    Write,
    /// Reads and writes in turn.
    Mixed,
    /// Connect, agree on everything, disconnect.
    Connect,
}

/// One row of the table.
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) ask: Ask,
    /// Bytes per request.
    pub(super) block: u64,
    /// Requests in flight per connection.
    pub(super) depth: usize,
    pub(super) connections: usize,
    pub(super) tcp: bool,
}

const fn shape(name: &'static str, ask: Ask, block: u64, depth: usize, connections: usize) -> Shape {
    Shape { name, ask, block, depth, connections, tcp: false }
}

const K: u64 = 1 << 10;

/// What a server's life consists of.
pub(super) const SHAPES: &[Shape] = &[
    shape("read-4k-q1", Ask::Read, 4 * K, 1, 1),
    shape("read-4k-q64", Ask::Read, 4 * K, 64, 1),
    shape("read-4k-q64-c4", Ask::Read, 4 * K, 64, 4),
    shape("write-4k-q1", Ask::Write, 4 * K, 1, 1),
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
    shape("connect", Ask::Connect, 0, 1, 1),
    Shape { tcp: true, ..shape("tcp-read-4k-q64", Ask::Read, 4 * K, 64, 1) },
    Shape { tcp: true, ..shape("tcp-read-1m-q8", Ask::Read, 1024 * K, 8, 1) },
    Shape { tcp: true, ..shape("tcp-write-1m-q8", Ask::Write, 1024 * K, 8, 1) },
];

/// How to reach an export.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) address: Address,
    pub(super) export: String,
}

impl Target {
    pub(super) fn open(&self) -> disk::Result<Client> {
        let mut connector = Connector::to(self.address.clone());
        connector.options.export.clone_from(&self.export);
        connector.options.timeout = Some(Duration::from_secs(10));
        Client::open(&connector)
    }
}

/// Requests (or connections) per second.
pub(super) fn measure(shape: &Shape, target: &Target, time: Duration) -> disk::Result<f64> {
    if shape.ask == Ask::Connect {
        let (start, mut done) = (Instant::now(), 0u64);
        while start.elapsed() < time {
            target.open()?.close()?;
            done += 1;
        }
        return Ok(done as f64 / start.elapsed().as_secs_f64());
    }
    let rates = std::thread::scope(|scope| {
        let start = |n| scope.spawn(move || one_connection(shape, target, time, n));
        let threads: Vec<_> = (1..=shape.connections as u64).map(start).collect();
        let joined =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|e| std::panic::resume_unwind(e)));
        joined.collect::<disk::Result<Vec<f64>>>()
    })?;
    Ok(rates.iter().sum())
}

fn one_connection(shape: &Shape, target: &Target, time: Duration, seed: u64) -> disk::Result<f64> {
    let client = target.open()?;
    let blocks = client.size() / shape.block;
    let mut places = Places { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15), blocks, block: shape.block };
    let start = Instant::now();
    let done = if shape.depth == 1 {
        one_by_one(&client, shape, &mut places, time)?
    } else {
        let payload = Data::fill(shape.block as usize, |bytes| bytes.fill(0x5A));
        let disk = client.disk();
        let mut turn = 0u64;
        let ask = || {
            turn += 1;
            let at = places.next();
            match shape.ask {
                Ask::Read => read(disk, at, shape.block),
                Ask::Mixed if turn.is_multiple_of(2) => read(disk, at, shape.block),
                _ => disk.write(at, payload.clone(), WriteFlags::default()),
            }
        };
        reactor::block_on(in_flight(ask, shape.depth, time))?
    };
    let rate = done as f64 / start.elapsed().as_secs_f64();
    client.close()?;
    Ok(rate)
}

fn read(disk: &dyn Disk, at: u64, len: u64) -> Io<'_, ()> {
    disk.read(Range::new(at, len)).map(|_| Ok(()))
}

fn one_by_one(client: &Client, shape: &Shape, places: &mut Places, time: Duration) -> disk::Result<u64> {
    let (start, mut done, mut buffer) = (Instant::now(), 0u64, vec![0x5A; shape.block as usize]);
    // The clock is looked at now and then only.
    while !done.is_multiple_of(32) || start.elapsed() < time {
        match shape.ask {
            Ask::Read => client.read(&mut buffer, places.next())?,
            _ => client.write(&buffer, places.next())?,
        }
        done += 1;
    }
    Ok(done)
}

async fn in_flight<'a>(
    mut ask: impl FnMut() -> Io<'a, ()>,
    depth: usize,
    time: Duration,
) -> disk::Result<u64> {
    let (start, mut done, mut over, mut flying) = (Instant::now(), 0u64, false, InFlight::new());
    (0..depth).for_each(|_| flying.push(ask()));
    while let Some(answer) = flying.next().await {
        answer?;
        done += 1;
        over = over || (done.is_multiple_of(32) && start.elapsed() > time);
        if !over {
            flying.push(ask());
        }
    }
    Ok(done)
}

/// Writes to all of the disk, so that no server has it easy with holes.
pub(super) fn fill(target: &Target) -> disk::Result<()> {
    let client = target.open()?;
    let bytes = vec![0x5A; 1 << 20];
    for at in (0..client.size()).step_by(bytes.len()) {
        let len = (client.size() - at).min(bytes.len() as u64);
        client.write(&bytes[..len as usize], at)?;
    }
    client.close()
}

/// Places that look random and are the same in every run.
struct Places {
    state: u64,
    blocks: u64,
    block: u64,
}

impl Places {
    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) % self.blocks * self.block
    }
}
