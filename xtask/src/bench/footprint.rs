//! What a server costs that does nothing, or too much at once: memory and time to start.

use super::{
    Options,
    load::{self, Ask, Shape},
    servers::{Kind, Server, Store, diskpipe},
    table::{Column, Row, head, line, ms, short},
};
use crate::packages;
use anyhow::{Context, Result};
use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const CONNECTIONS: usize = 1000;

/// A line of what the kernel says of a process, in KiB.
pub(super) fn kibibytes(process: u32, what: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(what)).context("the kernel does not say")?;
    Ok(line.trim_matches(|c: char| !c.is_ascii_digit()).parse()?)
}

pub(super) fn memory() -> Result<()> {
    head(
        "Memory: the peak of 4 connections with 64 reads of 256 KiB each in flight, and 1000 idle connections",
        ["", "peak over idle, MiB", "an idle connection, KiB", "of a file, KiB"],
    );
    for kind in [Kind::echo, Kind::nbdkit, Kind::diskpipe] {
        let each = [peak(&kind(Store::File)), idle(&kind(Store::Memory)), idle(&kind(Store::File))];
        line([kind(Store::File).name].into_iter().chain(each.map(|each| short(each.unwrap_or(f64::NAN)))));
    }
    Ok(())
}

fn peak(kind: &Kind) -> Result<f64> {
    let server = Server::start(kind)?;
    let idle = kibibytes(server.id(), "VmRSS:")?;
    // From here on the kernel counts the peak anew.
    fs::write(format!("/proc/{}/clear_refs", server.id()), "5")?;
    let shape = Shape { name: "", ask: Ask::Read, block: 256 << 10, depth: 64, connections: 4 };
    load::measure(&shape, &server.target, Duration::from_secs(1))?;
    Ok((kibibytes(server.id(), "VmHWM:")? - idle) / 1024.0)
}

fn idle(kind: &Kind) -> Result<f64> {
    let server = Server::start(kind)?;
    let before = kibibytes(server.id(), "VmRSS:")?;
    let open = |_| server.target.open(Ask::Read);
    let _connections = (0..CONNECTIONS).map(open).collect::<Result<Vec<_>>>()?;
    // A server may give memory back when a client has been silent for a moment.
    std::thread::sleep(Duration::from_secs(2));
    Ok((kibibytes(server.id(), "VmRSS:")? - before) / CONNECTIONS as f64)
}

/// From the start of a server that serves nothing to its end, around a command that does nothing.
pub(super) fn startup(options: &Options) -> Result<()> {
    const TIMES: usize = 40;
    let diskpipe = diskpipe();
    let commands: [&[&str]; 3] =
        [&["true"], &[&diskpipe, "serve", "null", "--run", "true"], &["nbdkit", "null", "--run", "true"]];
    let column = |command: &[&str]| {
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        let measure = move |_| {
            let mut took = Vec::with_capacity(TIMES);
            for _ in 0..TIMES {
                let start = Instant::now();
                let mut run = Command::new(&command[0]);
                let status = run.args(&command[1..]).stdin(Stdio::null()).status()?;
                took.push(start.elapsed());
                anyhow::ensure!(status.success(), "it ended with {status}");
            }
            // The median: one start that waits for somebody else's file system outweighs all others in a mean.
            took.sort_unstable();
            Ok(1.0 / took[TIMES / 2].as_secs_f64())
        };
        Column { name: "startup".into(), measure: Box::new(measure) }
    };
    let installed =
        commands.iter().filter(|command| command[0] != "nbdkit" || packages::is_installed("nbdkit"));
    let columns: Vec<Column<'_>> = installed.map(|command| column(command)).collect();
    head("Start and end: `serve null --run true`", ["", "ms", "times `true`"]);
    let row = Row::measure(&columns, 0, options.rounds);
    for (n, command) in commands.iter().take(columns.len()).enumerate() {
        let name = if n == 1 { "diskpipe serve null --run true".into() } else { command.join(" ") };
        let each = Duration::from_secs_f64(1.0 / row.figure(n));
        line([name, short(ms(each)), short(row.ratio(0, n))]);
    }
    Ok(())
}
