//! Our client library, by its blocking face and by futures, beside the leanest client; both ask the limit.

use super::{
    Options,
    load::{self, Ask, Pace, Shape},
    servers::{Kind, Server, Store},
    table::{Column, Row, head, line, short},
};
use anyhow::Result;
use client::{Connector, blocking::Client};
use disk::{Data, Disk, Io, Range, WriteFlags};
use reactor::InFlight;
use std::time::Duration;

const K: u64 = 1 << 10;
const fn shape(name: &'static str, ask: Ask, depth: usize) -> Shape {
    Shape { name, ask, block: 4 * K, depth, connections: 1 }
}
const SHAPES: [Shape; 4] = [
    shape("read-4k-q1", Ask::Read, 1),
    shape("write-4k-q1", Ask::Write, 1),
    shape("read-4k-q64", Ask::Read, 64),
    shape("write-4k-q64", Ask::Write, 64),
];

pub(super) fn compare(options: &Options) -> Result<()> {
    let server = Server::start(&Kind::echo(Store::Memory))?;
    let columns = [
        Column {
            name: "leanest".into(),
            measure: Box::new(|n| load::measure(&SHAPES[n], &server.target, options.time())),
        },
        Column {
            name: "blocking".into(),
            measure: Box::new(|n| blocking(&server, &SHAPES[n], options.time())),
        },
        Column {
            name: "futures".into(),
            measure: Box::new(|n| futures(&server, &SHAPES[n], options.time())),
        },
    ];
    head(
        "Our client library, as shares of the leanest client, at the limit's server",
        ["", "leanest/s", "blocking", "futures"],
    );
    for (n, shape) in SHAPES.iter().enumerate() {
        if shape.name.contains(&options.shape) {
            let row = Row::measure(&columns, n, options.rounds);
            line([shape.name.into(), short(row.figure(0)), short(row.ratio(1, 0)), short(row.ratio(2, 0))]);
        }
    }
    Ok(())
}

/// One request at a time: what it is worth that server and client look for a moment before they sleep.
pub(super) fn polling(options: &Options) -> Result<()> {
    let ours = Server::start(&Kind::diskpipe(Store::Memory))?;
    let nbdkit = Server::start(&Kind::nbdkit(Store::Memory))?;
    let sleeping = |server: &Server| {
        let target = server.target.clone();
        move |n: usize| load::measure(&SHAPES[n], &target, options.time())
    };
    let columns = [
        Column { name: "nbdkit".into(), measure: Box::new(sleeping(&nbdkit)) },
        Column { name: "diskpipe".into(), measure: Box::new(sleeping(&ours)) },
        Column {
            name: "our client".into(),
            measure: Box::new(|n| blocking(&ours, &SHAPES[n], options.time())),
        },
    ];
    head(
        "One request at a time: diskpipe's server / nbdkit's, asked by a client that sleeps and by our own",
        ["", "nbdkit/s", "a client that sleeps", "our client"],
    );
    for (n, shape) in SHAPES.iter().enumerate().filter(|(_, shape)| shape.depth == 1) {
        let row = Row::measure(&columns, n, options.rounds);
        line([shape.name.into(), short(row.figure(0)), short(row.ratio(1, 0)), short(row.ratio(2, 0))]);
    }
    Ok(())
}

fn open(server: &Server) -> Result<Client> {
    let mut connector = Connector::to(server.target.address.clone());
    connector.options.export.clone_from(&server.target.export);
    connector.options.timeout = Some(Duration::from_secs(10));
    Ok(Client::open(&connector)?)
}

/// One after the other, whatever the shape's depth: that is what this face offers.
fn blocking(server: &Server, shape: &Shape, time: Duration) -> Result<f64> {
    if shape.depth > 1 {
        return Ok(f64::NAN);
    }
    let client = open(server)?;
    let (mut places, mut buffer) = (places(client.size()), vec![0x5A; 4 << 10]);
    let mut pace = Pace::new(time);
    while pace.goes_on() {
        match shape.ask {
            Ask::Read => client.read(&mut buffer, places())?,
            _ => client.write(&buffer, places())?,
        }
        pace.done(1);
    }
    client.close()?;
    Ok(pace.rate())
}

fn futures(server: &Server, shape: &Shape, time: Duration) -> Result<f64> {
    let client = open(server)?;
    let (mut places, payload) = (places(client.size()), Data::fill(4 << 10, |bytes| bytes.fill(0x5A)));
    let disk = client.disk();
    let mut ask = || -> Io<'_, ()> {
        match shape.ask {
            Ask::Read => disk.read(Range::new(places(), shape.block)).map(|_| Ok(())),
            _ => disk.write(places(), payload.clone(), WriteFlags::default()),
        }
    };
    let mut pace = Pace::new(time);
    reactor::block_on(async {
        let mut flying = InFlight::new();
        (0..shape.depth).for_each(|_| flying.push(ask()));
        while let Some(answer) = flying.next().await {
            answer?;
            pace.done(1);
            if pace.goes_on() {
                flying.push(ask());
            }
        }
        disk::Result::Ok(())
    })?;
    client.close()?;
    Ok(pace.rate())
}

/// Blocks that look random, and are the same in every run.
fn places(size: u64) -> impl FnMut() -> u64 {
    let (blocks, mut state) = (size / (4 * K), 0x9E37_79B9_7F4A_7C15u64);
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % blocks * (4 * K)
    }
}
