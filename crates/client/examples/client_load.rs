//! How many requests per second this client makes of a server, one at a time and 64 at a time.
//!
//!     cargo run --release -p diskpipe-client --example client_load -- /path/to/socket [SECONDS] [SHAPE...]
//!
//! Shapes: `r1` `w1` (blocking, 4 KiB, one request at a time), `r1a` (the same over a future), `r64` `w64`
//! (4 KiB, 64 in flight), `r256k` `w256k` (256 KiB, 16 in flight). The last word printed is the rate per second.

use client::{Connector, blocking::Client};
use disk::{Data, Disk, Io, Range, WriteFlags};
use reactor::InFlight;
use std::time::{Duration, Instant};

/// Offsets that look random, the same in every run.
struct Offsets {
    state: u64,
    blocks: u64,
    block: u64,
}

impl Offsets {
    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) % self.blocks * self.block
    }
}

fn main() -> disk::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, rest @ ..] = &arguments[..] else {
        return Err(disk::Error::invalid("usage: client_load SOCKET [SECONDS] [SHAPE...]"));
    };
    let (seconds, shapes) = match rest.split_first().map(|(s, shapes)| (s.parse(), shapes)) {
        Some((Ok(seconds), shapes)) => (seconds, shapes),
        _ => (1.0, rest),
    };
    let time = Duration::from_secs_f64(seconds);
    let mut shapes: Vec<&str> = shapes.iter().map(String::as_str).collect();
    if shapes.is_empty() {
        shapes = vec!["r1", "w1", "r1a", "r64", "w64", "r256k", "w256k"];
    }
    let client = Client::open(&Connector::to(net::Address::Unix(socket.into())))?;
    let disk = client.disk();
    for shape in shapes {
        let (write, block, depth) = match shape {
            "r1" | "r1a" => (false, 4096, 1),
            "w1" => (true, 4096, 1),
            "r64" => (false, 4096, 64),
            "w64" => (true, 4096, 64),
            "r256k" => (false, 256 << 10, 16),
            "w256k" => (true, 256 << 10, 16),
            _ => return Err(disk::Error::invalid(format!("{shape}: no such shape"))),
        };
        let mut offsets = Offsets { state: 0x9e37_79b9_7f4a_7c15, blocks: client.size() / block, block };
        let start = Instant::now();
        let done = match (depth, shape) {
            (1, "r1" | "w1") => one_by_one(&client, write, offsets, time)?,
            _ if write => {
                let payload = Data::fill(block as usize, |b| b.fill(7));
                let ask = || disk.write(offsets.next(), payload.clone(), WriteFlags::default());
                reactor::block_on(at_depth(ask, time, depth))?
            }
            _ => {
                let ask = || disk.read(Range::new(offsets.next(), block));
                reactor::block_on(at_depth(ask, time, depth))?
            }
        };
        println!("{shape} {:.0}", done as f64 / start.elapsed().as_secs_f64());
    }
    client.close()
}

fn one_by_one(client: &Client, write: bool, mut offsets: Offsets, time: Duration) -> disk::Result<u64> {
    let (start, mut done, mut buffer) = (Instant::now(), 0, vec![7; offsets.block as usize]);
    while done % 64 != 0 || start.elapsed() < time {
        match write {
            true => client.write(&buffer, offsets.next())?,
            false => client.read(&mut buffer, offsets.next())?,
        }
        done += 1;
    }
    Ok(done)
}

async fn at_depth<'a, T>(
    mut ask: impl FnMut() -> Io<'a, T>,
    time: Duration,
    depth: usize,
) -> disk::Result<u64> {
    let (start, mut done, mut over, mut flying) = (Instant::now(), 0u64, false, InFlight::new());
    for _ in 0..depth {
        flying.push(ask());
    }
    while let Some(outcome) = flying.next().await {
        outcome?;
        done += 1;
        // The clock is looked at now and then only.
        over = over || (done % 64 == 0 && start.elapsed() > time);
        if !over {
            flying.push(ask());
        }
    }
    Ok(done)
}
