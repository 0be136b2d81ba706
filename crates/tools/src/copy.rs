//! `copy`: from anywhere to anywhere that is an NBD server, a file, a device or a stream.
//!
//! `endpoint` opens both ends, `map` says what to do piece by piece, `transfer` does one piece, `engine` keeps many of
//! them in flight. `stream` stands in for the engine where an end can only be read or written in order.

pub(crate) mod endpoint;
mod engine;
#[cfg(test)]
pub(crate) mod fake;
mod file;
mod map;
mod nbd;
mod null;
mod options;
mod progress;
mod stream;
mod transfer;
mod window;

use crate::{
    command_line::{self, Invocation, Word},
    diff::compare::{Side, compare},
};
use anyhow::{Context, Result, bail};
use clap::CommandFactory;
use disk::{Disk, Range};
use endpoint::Endpoint;
use engine::{Lane, Plan};
use options::Options;
use progress::{Progress, Style};
use std::{ffi::OsString, fs::OpenOptions, num::NonZeroUsize, os::fd::OwnedFd, process::ExitCode, sync::Arc};
use transfer::Zeroes;

/// Requests in flight per connection, if nobody says otherwise.
const REQUESTS: usize = 64;
/// Reads in flight per connection at most, in bytes, and also writes, if nobody says otherwise.
const QUEUE: u64 = 16 << 20;
/// Reads in flight per connection at first, in bytes.
const WINDOW: u64 = 8 << 20;
/// The same over all connections, where what was read may have to wait until it can be sent, and takes memory.
const WINDOW_BEFORE_SERVERS: u64 = 8 << 20;
/// Blocks in which the destination is compared with the source, in bytes.
const VERIFY_BLOCK: u64 = 512;
/// Connections to each server, if nobody says otherwise.
const CONNECTIONS: usize = 4;

/// The options, for manual pages and completions.
pub fn command() -> clap::Command {
    Options::command()
}

/// Runs the tool. The first argument is the name that it was started under.
pub fn main(args: Vec<OsString>) -> ExitCode {
    command_line::run(args, "diskpipe copy", command(), |invocation, options: Options| {
        run(invocation, &options).map(|()| ExitCode::SUCCESS)
    })
}

fn run(invocation: &Invocation, options: &Options) -> Result<()> {
    let (from, to) = (invocation.word(options.source.clone()), invocation.word(options.destination.clone()));
    let style = progress_style(options)?;
    let source = Endpoint::source(&from)?;
    let destination = Endpoint::destination(&to, &source)?;
    let standard_output = matches!(&to, Word::Plain(word) if word == "-");
    if options.verify && (source.disk().is_none() || !destination.can_be_read() || standard_output) {
        bail!("--verify: both ends must be disks that can be read: servers, files or block devices");
    }
    let copy = Copy::new(options, &source, &destination)?;
    if options.verbose > 0 {
        copy.describe(invocation, &from, &to);
    }
    let progress = Progress::new(style, copy.size);
    let outcome = copy.run(&progress).and_then(|()| match options.verify {
        true => verify((&source, &from), (&destination, &to)),
        false => Ok(()),
    });
    match outcome {
        Ok(()) => progress.finished(),
        Err(_) => progress.abandoned(),
    }
    outcome
}

/// Compares what was written with the source.
fn verify((source, from): (&Endpoint, &Word), (destination, to): (&Endpoint, &Word)) -> Result<()> {
    // A file was opened for writing.
    let again = match destination {
        Endpoint::File(_) => Some(Endpoint::source(to)?),
        _ => None,
    };
    let written = again.as_ref().unwrap_or(destination).disk();
    let (Some(source), Some(written)) = (source.disk(), written) else { return Ok(()) };
    let size = source.facts().size;
    let names = [from, to].map(ToString::to_string);
    let [a, b] = [(&*source, &names[0]), (&*written, &names[1])].map(|(disk, name)| Side { disk, name });
    let mut first = None;
    compare(&a, &b, VERIFY_BLOCK, &mut |range, _| {
        // The destination may go on behind what was copied.
        first = (range.start < size).then_some(range.start);
        false
    })
    .context("reading back what was written")?;
    match first {
        None => Ok(()),
        Some(at) => bail!("{to} is not what was written to it: it differs from {from} at {at}"),
    }
}

fn progress_style(options: &Options) -> Result<Style> {
    match options.progress.as_deref() {
        None => Ok(Style::Silent),
        Some("") => Ok(Style::Bar),
        Some(text) => {
            let number: i32 = text
                .parse()
                .ok()
                .with_context(|| format!("--progress={text}: not the number of a descriptor"))?;
            // As with a closed standard error: the copy is what matters.
            Ok(inherited(number).map_or(Style::Silent, Style::lines))
        }
    }
}

/// The descriptor that this process was started with under a number, for our own use.
fn inherited(number: i32) -> Option<OwnedFd> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    // Without unsafe code a number becomes a descriptor only by way of the kernel.
    let copy = pidfd_open(getpid(), PidfdFlags::empty())
        .and_then(|own| pidfd_getfd(own, number, PidfdGetfdFlags::empty()))
        .ok();
    let again =
        || OpenOptions::new().append(true).open(format!("/proc/self/fd/{number}")).ok().map(OwnedFd::from);
    copy.or_else(again)
}

/// A copy that can begin.
struct Copy<'a> {
    options: &'a Options,
    source: &'a Endpoint,
    destination: &'a Endpoint,
    /// Of the source; `None`: not known.
    size: Option<u64>,
    plan: Plan,
    lanes: Vec<Lane>,
}

impl<'a> Copy<'a> {
    fn new(options: &'a Options, source: &'a Endpoint, destination: &'a Endpoint) -> Result<Copy<'a>> {
        let (from, to) = (source.disk(), destination.disk());
        let size = from.as_ref().map(|disk| disk.facts().size);
        if let Some(to) = &to {
            if !to.facts().write {
                bail!("the destination is read-only, cannot write to it");
            }
            if size.is_some_and(|size| size > to.facts().size) {
                bail!(
                    "the destination size is smaller than the source size: {} bytes of {}",
                    to.facts().size,
                    size.unwrap_or(0)
                );
            }
        }
        let mut lanes = Vec::new();
        let mut threads = 1;
        if let (Some(from), Some(to)) = (from, to.clone()) {
            lanes.push(Lane { from, to, server: destination.server() });
            if source.may_have_several() && destination.may_have_several() && !options.synchronous {
                threads = choose_threads(options);
                open_more(&mut lanes, options, threads, source, destination)?;
            }
            threads = threads.min(lanes.len());
        }
        let plan = plan(options, lanes.len().max(1), threads, destination, to.as_deref());
        Ok(Copy { options, source, destination, size, plan, lanes })
    }

    fn describe(&self, invocation: &Invocation, from: &Word, to: &Word) {
        let destination_size = match self.destination {
            Endpoint::File(file) if file.is_fresh() => self.size,
            other => other.disk().map(|disk| disk.facts().size),
        };
        let ends = [("src", self.source, self.size, from), ("dst", self.destination, destination_size, to)];
        for (end, endpoint, size, word) in ends {
            let (kind, facts) = endpoint.describe(size);
            eprintln!("{}: {end}: {kind} \"{word}\"", invocation.name);
            eprintln!("{}: {end}: {facts}", invocation.name);
        }
        let Plan { requests, threads, .. } = self.plan;
        let connections = self.lanes.len().max(1);
        let synchronous = self.options.synchronous || self.lanes.is_empty();
        eprintln!(
            "{}: connections={connections} requests={requests} threads={threads} synchronous={synchronous}",
            invocation.name
        );
    }

    fn run(&self, progress: &Progress) -> Result<()> {
        let total = match (self.source, self.destination) {
            (Endpoint::Stream(from), Endpoint::Stream(to)) => stream::pass_on(from, to, progress)?,
            (Endpoint::Stream(from), to) => {
                let to = to.disk().context("the destination is no disk")?;
                stream::into(&self.plan, from, &*to, progress)?
            }
            (from, Endpoint::Stream(to)) => {
                let from = from.disk().context("the source is no disk")?;
                stream::out(&self.plan, &*from, to, progress)?;
                from.facts().size
            }
            (from, _) => {
                self.disk_to_disk(progress)?;
                from.disk().map_or(0, |disk| disk.facts().size)
            }
        };
        self.finish(total)
    }

    fn disk_to_disk(&self, progress: &Progress) -> Result<()> {
        let Some(Lane { from, to, .. }) = self.lanes.first() else { return Ok(()) };
        let size = from.facts().size;
        let fresh = matches!(self.destination, Endpoint::File(file) if file.is_fresh());
        let block = u64::from(to.facts().blocks.minimum);
        let request_size = self.plan.ends(&**from, &**to).request_size;
        // Last comes what makes a new file as long as its source, and what must share a block with other data.
        let last = match size % block {
            _ if fresh => size.saturating_sub(1) / request_size * request_size,
            _ => size / block * block,
        };
        engine::copy(&self.plan, Range::new(0, last), &self.lanes, progress)?;
        let rest = Range::new(last, size - last);
        if fresh {
            engine::copy(&self.plan, rest, &self.lanes[..1], progress)?;
        } else if !rest.is_empty() {
            let flow = self.plan.flow(None);
            let ends = self.plan.ends(&**from, &**to);
            reactor::block_on(async {
                let data = from.read(rest).await?;
                if let Some(transfer) = ends.start_padded(rest, data, &flow).await? {
                    transfer.await?;
                }
                Ok::<(), disk::Error>(())
            })?;
            progress.add(rest.len);
        }
        Ok(())
    }

    /// All is written: makes the destination whole.
    fn finish(&self, total: u64) -> Result<()> {
        match self.destination {
            Endpoint::File(file) => {
                file.finish(total, self.options.flush).context("writing to the destination")?;
            }
            Endpoint::Nbd(nbd) if self.options.flush => {
                let disks: Vec<Arc<dyn Disk>> = match self.lanes.is_empty() {
                    true => vec![nbd.first().clone()],
                    false => self.lanes.iter().map(|lane| lane.to.clone()).collect(),
                };
                for disk in disks.iter().filter(|disk| disk.facts().flush) {
                    disk.flush().wait().context("flushing the destination")?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// How many threads, before it is known how many connections there will be.
fn choose_threads(options: &Options) -> usize {
    match options.threads {
        0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        n => n,
    }
}

fn open_more(
    lanes: &mut Vec<Lane>,
    options: &Options,
    threads: usize,
    source: &Endpoint,
    destination: &Endpoint,
) -> Result<()> {
    let wanted = options.connections.map_or(CONNECTIONS.min(threads), NonZeroUsize::get);
    while lanes.len() < wanted {
        let (Some(from), Some(to)) = (source.another()?, destination.another()?) else { break };
        lanes.push(Lane { from: from.disk, to: to.disk, server: to.server });
    }
    Ok(())
}

fn plan(
    options: &Options,
    lanes: usize,
    threads: usize,
    destination: &Endpoint,
    to: Option<&dyn Disk>,
) -> Plan {
    let fresh = matches!(destination, Endpoint::File(file) if file.is_fresh());
    let to_server = matches!(destination, Endpoint::Nbd(_));
    let preferred = to.map_or(4096, |disk| disk.facts().blocks.preferred.into());
    let sparse = match options.sparse {
        _ if options.allocated => None,
        Some(0) => None,
        Some(block) => Some(block),
        None => Some(4096.max(preferred)),
    };
    let zeroes = match options {
        Options { destination_is_zero: true, .. } => Zeroes::Skip,
        Options { allocated: true, .. } => Zeroes::Allocate,
        _ if fresh => Zeroes::Skip,
        _ => Zeroes::Hole,
    };
    Plan {
        request_size: options.request_size,
        requests: if options.synchronous { 1 } else { options.requests.map_or(REQUESTS, NonZeroUsize::get) },
        window: if to_server { WINDOW_BEFORE_SERVERS / lanes as u64 } else { WINDOW },
        queue: options.queue_size.unwrap_or(QUEUE),
        sparse,
        extents: !options.no_extents,
        zeroes: if to.is_none() { Zeroes::Skip } else { zeroes },
        threads,
    }
}
