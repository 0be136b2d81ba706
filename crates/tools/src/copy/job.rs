//! A copy that can begin: both ends are open, and it is decided how to go from one to the other.

use crate::{
    command_line::{Invocation, Word},
    copy::{
        endpoint::Endpoint,
        engine::{self, Beside, Lane, Plan},
        options::Options,
        ranges::Ranges,
        stream,
        transfer::Zeroes,
        watch::Watch,
    },
};
use anyhow::{Context, Result, bail};
use disk::{Disk, Errno, Range};
use std::{
    num::NonZeroUsize,
    sync::{Arc, atomic::Ordering::Relaxed},
};

/// Requests in flight per connection, if nobody says otherwise.
const REQUESTS: usize = 64;
/// Reads in flight per connection at most, in bytes, and also writes, if nobody says otherwise.
const QUEUE: u64 = 16 << 20;
/// Reads in flight per connection at first, in bytes.
const WINDOW: u64 = 8 << 20;
/// The same over all connections, where what was read may have to wait until it can be sent, and takes memory.
const WINDOW_BEFORE_SERVERS: u64 = 8 << 20;
/// Connections to each server, if nobody says otherwise.
const CONNECTIONS: usize = 4;

/// Both ends, and how to go from one to the other.
pub(crate) struct Job<'a> {
    options: &'a Options,
    source: &'a Endpoint,
    destination: &'a Endpoint,
    /// Of the source; `None`: not known.
    pub(crate) size: Option<u64>,
    plan: Plan,
    pub(crate) lanes: Vec<Lane>,
}

impl<'a> Job<'a> {
    /// Opens as many connections as it takes. Pieces begin and end at multiples of `unit` (a power of 2).
    ///
    /// # Errors
    /// The destination cannot take the source.
    pub(crate) fn new(
        options: &'a Options,
        source: &'a Endpoint,
        destination: &'a Endpoint,
        unit: u64,
    ) -> Result<Job<'a>> {
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
        for disk in [&from, &to].into_iter().flatten() {
            let longest = disk.facts().blocks.maximum;
            if unit > longest.into() {
                bail!("blocks of {unit} bytes cannot be hashed: a request takes no more than {longest}");
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
        let plan = plan(options, lanes.len().max(1), threads, destination, to.as_deref(), unit);
        Ok(Job { options, source, destination, size, plan, lanes })
    }

    pub(crate) fn describe(&self, invocation: &Invocation, from: &Word, to: &Word) {
        let destination_size = match self.destination {
            Endpoint::File(file) if file.grows() => self.size,
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

    /// Copies what is wanted; `None`: all. Returns how large the copy is.
    ///
    /// # Errors
    /// An end failed.
    pub(crate) fn run<'b>(
        &self,
        wanted: Option<Ranges>,
        watch: &Watch,
        beside: impl Fn() -> Option<Beside<'b>>,
    ) -> Result<u64> {
        Ok(match (self.source, self.destination) {
            (Endpoint::Stream(from), Endpoint::Stream(to)) => stream::pass_on(from, to, watch)?,
            (Endpoint::Stream(from), to) => {
                let disk = to.disk().context("the destination is no disk")?;
                let total = stream::into(&self.plan, from, &*disk, watch)?;
                if let Some(link) = to.server().filter(|_| self.options.retry.is_some()) {
                    flush([&*disk])?;
                    if let Some(first) = link.take_lost().iter().next() {
                        bail!(
                            "the server of the destination went away before {first} were safe, and a stream cannot \
                             be read again"
                        );
                    }
                }
                total
            }
            (from, Endpoint::Stream(to)) => {
                let from = from.disk().context("the source is no disk")?;
                stream::out(&self.plan, &*from, to, watch)?;
                from.facts().size
            }
            (from, _) => {
                let mut wanted = wanted;
                loop {
                    self.pass(wanted.as_ref(), watch, beside())?;
                    if watch.stop.asked() {
                        break;
                    }
                    let Some(lost) = self.flush_and_find_lost()? else { break };
                    let lost = self.whole_blocks(&lost);
                    watch.lost(&lost);
                    wanted = Some(lost);
                }
                from.disk().map_or(0, |disk| disk.facts().size)
            }
        })
    }

    /// The same, in whole blocks of both ends.
    pub(crate) fn whole_blocks(&self, ranges: &Ranges) -> Ranges {
        match self.lanes.first() {
            None => ranges.clone(),
            Some(Lane { from, to, .. }) => ranges.aligned(self.plan.align(&**from, &**to), from.facts().size),
        }
    }

    /// What was written, and lost with its server; `None`: nothing. Then the rest is stable.
    fn flush_and_find_lost(&self) -> Result<Option<Ranges>> {
        if self.options.retry.is_none() {
            return Ok(None);
        }
        flush(self.lanes.iter().map(|lane| &*lane.to))?;
        let mut lost = Ranges::new();
        for link in self.lanes.iter().filter_map(|lane| lane.server.as_ref()) {
            lost.add_all(&link.take_lost());
        }
        Ok((!lost.is_empty()).then_some(lost))
    }

    /// Copies what is wanted once, from the beginning to the end.
    fn pass(&self, wanted: Option<&Ranges>, watch: &Watch, beside: Option<Beside<'_>>) -> Result<()> {
        let Some(Lane { from, to, .. }) = self.lanes.first() else { return Ok(()) };
        let size = from.facts().size;
        let block = u64::from(to.facts().blocks.minimum);
        let grows = matches!(self.destination, Endpoint::File(file) if file.grows());
        let request_size = self.plan.ends(&**from, &**to, watch).request_size;
        // Last comes what makes a new file as long as its source, and what must share a block with other data.
        let last = match size % block {
            _ if grows => size.saturating_sub(1) / request_size * request_size,
            0 => size,
            _ => size - size % self.plan.align(&**from, &**to),
        };
        engine::copy(&self.plan, wanted, Range::new(0, last), &self.lanes, watch, beside)?;
        let rest = Range::new(last, size - last);
        let is_wanted = wanted.is_none_or(|wanted| wanted.within(rest).next().is_some());
        if watch.stop.asked() || rest.is_empty() || !is_wanted {
            return Ok(());
        }
        if grows {
            // Also after a loss of power it is the length that tells. (Where all is in one piece there is nothing before it.)
            if last > 0 && !self.options.no_flush {
                flush([&**to])?;
            }
            engine::copy(&self.plan, wanted, rest, &self.lanes[..1], watch, None)?;
            return Ok(());
        }
        let flow = self.plan.flow(None);
        let ends = self.plan.ends(&**from, &**to, watch);
        reactor::block_on(async {
            let data = from.read(rest).await?;
            watch.tally.read.fetch_add(rest.len, Relaxed);
            watch.has_data(rest.start, &data);
            if let Some(transfer) = ends.start_padded(rest, data, &flow).await? {
                transfer.await?;
            }
            Ok::<(), disk::Error>(())
        })?;
        watch.copied(rest);
        Ok(())
    }

    /// All is written: makes the destination whole, and stable if that is wanted.
    ///
    /// # Errors
    /// The destination failed.
    pub(crate) fn finish(&self, total: u64, stable: bool) -> Result<()> {
        match self.destination {
            Endpoint::File(file) => {
                file.finish(total, stable).context("writing to the destination")?;
            }
            Endpoint::Nbd(nbd) if stable => {
                let first = nbd.first().disk();
                let disks: Vec<&dyn Disk> = match &self.lanes[..] {
                    [] => vec![&*first],
                    lanes => lanes.iter().map(|lane| &*lane.to).collect(),
                };
                // Some servers offer what they do not know. Nobody who asked for it is left in the belief that they did it.
                let must =
                    self.options.flush || self.options.checkpoint.is_some() || self.options.retry.is_some();
                match flush(disks) {
                    Err(e) if !must && matches!(e.errno(), Errno::INVAL | Errno::NOTSUP) => {}
                    outcome => outcome?,
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Makes stable what was written to these.
fn flush<'a>(disks: impl IntoIterator<Item = &'a dyn Disk>) -> disk::Result<()> {
    for disk in disks.into_iter().filter(|disk| disk.facts().flush) {
        disk.flush().wait().map_err(|e| e.context("flushing the destination"))?;
    }
    Ok(())
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
    unit: u64,
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
        request_size: options.request_size.max(unit),
        requests: if options.synchronous { 1 } else { options.requests.map_or(REQUESTS, NonZeroUsize::get) },
        window: if to_server { WINDOW_BEFORE_SERVERS / lanes as u64 } else { WINDOW },
        queue: options.queue_size.unwrap_or(QUEUE),
        sparse,
        extents: !options.no_extents,
        zeroes: if to.is_none() { Zeroes::Skip } else { zeroes },
        threads,
        unit,
    }
}

/// A further look at the disk, for nobody: what it holds is hashed, and goes nowhere.
pub(crate) fn only_read(options: &Options, source: &Endpoint, unit: u64, watch: &Watch) -> Result<()> {
    let nowhere = Endpoint::Null(Arc::new(super::null::Null::new()));
    Job::new(options, source, &nowhere, unit)?.run(None, watch, || None).map(drop)
}
