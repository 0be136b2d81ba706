//! `scan`: all of the disk is brought nearer, from its beginning to its end, while clients are there.

use crate::common::worker::{Orders, Worker, bring, cannot};
use disk::{Backend, Client, Data, Disk, Filter, Io, Range, Result};
use params::{ParamError, Params, Size};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

/// Bring all of a disk nearer while clients use it.
#[derive(Params)]
pub(crate) struct Scan {
    /// Whether to go on behind what clients read, when they are farther ahead.
    #[param(default = "true")]
    scan_ahead: bool,
    /// Whether to go on where it was, when clients come back after all were gone. Otherwise it begins anew.
    #[param(default = "true")]
    scan_clock: bool,
    /// Whether to begin anew at the end of the disk.
    #[param(default = "false")]
    scan_forever: bool,
    /// How much to ask for at a time: a power of two from 512 on.
    #[param(default = "2M")]
    scan_size: Size,
}

impl Filter for Scan {
    const NAME: &'static str = "scan";
    const MANUAL: &'static str = include_str!("scan.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let size = self.scan_size;
        if !size.bytes().is_power_of_two() || !(512..=1 << 30).contains(&size.bytes()) {
            return Err(
                ParamError::bad("scan-size", size.to_string(), "not a power of two from 512 to 1G").into()
            );
        }
        let clock = Arc::new(Clock { params: self, at: AtomicU64::new(0), clients: AtomicUsize::new(0) });
        Ok(Scanning { clock, next })
    }
}

struct Scanning {
    clock: Arc<Clock>,
    next: Arc<dyn Backend>,
}

/// How far the disk has been scanned, by all connections together.
struct Clock {
    params: Scan,
    at: AtomicU64,
    clients: AtomicUsize,
}

/// After the end of the disk, this long passes before it is scanned anew.
const REST: Duration = Duration::from_millis(100);

impl Clock {
    /// Scans until the end, or until the connection is over.
    fn run(&self, disk: &dyn Disk, orders: &Orders) {
        let facts = disk.facts();
        let minimum = u64::from(facts.blocks.minimum);
        let end = facts.size - facts.size % minimum;
        let size = self.params.scan_size.bytes().max(minimum);
        while !orders.is_over_within(Duration::ZERO) {
            // Each connection takes the next piece.
            let start = self.at.fetch_add(size, SeqCst);
            if start < end {
                bring(disk, Range::new(start, size.min(end - start)), size, orders);
                continue;
            }
            // As far as it was, not farther with every connection that looks.
            self.at.fetch_min(end.next_multiple_of(size), SeqCst);
            if !self.params.scan_forever || end == 0 || orders.is_over_within(REST) {
                return;
            }
            self.at.store(0, SeqCst);
        }
    }
}

impl Scanning {
    async fn open(&self, client: &Client<'_>) -> Result<Arc<dyn Disk>> {
        let default = client.export.is_empty()
            || self.next.default_export(client).await?.is_some_and(|name| name == client.export);
        let disk = self.next.open(client).await?;
        if !default || cannot("scan", &*disk, self.next.thread_model()) {
            return Ok(disk);
        }
        if self.clock.clients.fetch_add(1, SeqCst) == 0 && !self.clock.params.scan_clock {
            self.clock.at.store(0, SeqCst);
        }
        let (clock, below) = (self.clock.clone(), disk.clone());
        let worker = Worker::start("scan", move |orders| clock.run(&*below, orders));
        Ok(Arc::new(Scanned { clock: self.clock.clone(), worker, next: disk }))
    }
}

impl Backend for Scanning {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        Io::later(self.open(client))
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

struct Scanned {
    clock: Arc<Clock>,
    worker: Worker,
    next: Arc<dyn Disk>,
}

impl Drop for Scanned {
    fn drop(&mut self) {
        self.clock.clients.fetch_sub(1, SeqCst);
    }
}

impl Disk for Scanned {
    disk::forward!(next: next, facts, write, zero, trim, flush, cache, extents, status);
    fn read(&self, r: Range) -> Io<'_, Data> {
        if self.clock.params.scan_ahead && r.end() > self.clock.at.load(SeqCst) {
            // What is read comes now anyway.
            let size = self.clock.params.scan_size.bytes().max(self.facts().blocks.minimum.into());
            self.clock.at.fetch_max(r.end() / size * size, SeqCst);
        }
        self.next.read(r)
    }
    fn close(&self) -> Io<'_, ()> {
        self.worker.end().and_then(|()| self.next.close())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, layer, noise, open};
    use std::time::Instant;

    /// What was asked for to be cached, as soon as it is so much.
    fn cached(memory: &Memory, seen: &mut Vec<String>, count: usize) {
        let start = Instant::now();
        while seen.len() < count {
            seen.extend(memory.asked().into_iter().filter(|ask| ask.starts_with("cache")));
            assert!(start.elapsed() < Duration::from_secs(30), "{seen:?}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn all_of_the_disk_is_brought_nearer_once() {
        let memory = Memory::new(noise(1, 5000));
        let layer = layer::<Scan>(&["scan-size=2K"], &memory).unwrap();
        let disk = open(&layer);
        let mut seen = Vec::new();
        cached(&memory, &mut seen, 3);
        assert_eq!(seen, ["cache 0 2048", "cache 2048 2048", "cache 4096 904"]);
        disk.close().wait().unwrap();
        drop(disk);
        assert_eq!(memory.asked(), ["close"]);
        let again = open(&layer);
        again.close().wait().unwrap();
        assert_eq!(memory.asked(), ["close"], "it goes on where it was, which is the end");
    }

    #[test]
    fn without_a_clock_it_begins_anew_with_new_clients() {
        let memory = Memory::new(noise(1, 4096));
        let layer = layer::<Scan>(&["scan-size=4K", "scan-clock=false"], &memory).unwrap();
        for _ in 0..2 {
            let disk = open(&layer);
            cached(&memory, &mut Vec::new(), 1);
            disk.close().wait().unwrap();
        }
    }

    #[test]
    fn forever_has_no_end() {
        let memory = Memory::new(noise(1, 4096));
        let layer = layer::<Scan>(&["scan-size=4K", "scan-forever=true"], &memory).unwrap();
        let disk = open(&layer);
        cached(&memory, &mut Vec::new(), 3);
        disk.close().wait().unwrap();
    }

    #[test]
    fn other_exports_are_not_scanned_and_bad_sizes_refused() {
        let memory = Memory::new(noise(1, 4096));
        let scanning = layer::<Scan>(&[], &memory).unwrap();
        let disk = scanning.open(&Client::local("other")).wait().unwrap();
        disk.close().wait().unwrap();
        assert_eq!(memory.asked(), ["close"]);
        let why = layer::<Scan>(&["scan-size=3M"], &memory).err().unwrap().to_string();
        assert_eq!(why, "scan: scan-size=3M: not a power of two from 512 to 1G");
    }
}
