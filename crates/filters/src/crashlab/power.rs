//! For tests of what others keep in files: disks that lose power together, after each of their writes and flushes.

use super::CrashLab;
use crate::common::testing::{Memory, layer, open};
use disk::{Backend, Client, Data, Disk, Errno, Error, Io, Range, Result, WriteFlags, ZeroFlags};
use std::sync::{Arc, Mutex};
use store::Medium;

/// Of each disk: how many flushes there were, and how many writes since.
type Moments = Arc<Mutex<Vec<Vec<(u64, u64)>>>>;

/// The disks, and the moments that they have in common.
pub(crate) struct Power {
    labs: Vec<Arc<dyn Backend>>,
    moments: Moments,
}

impl Power {
    /// What these hold is stable.
    pub(crate) fn over(memories: &[Arc<Memory>]) -> Power {
        let labs: Vec<_> = memories.iter().map(|memory| layer::<CrashLab>(&[], memory).unwrap()).collect();
        let moments = vec![vec![(0, 0); labs.len()]];
        Power { labs, moments: Arc::new(Mutex::new(moments)) }
    }

    /// Disk number `of`, to be used.
    pub(crate) fn disk(&self, of: usize) -> Arc<dyn Disk> {
        Arc::new(Watched { next: open(&self.labs[of]), of, moments: self.moments.clone() })
    }

    /// The present moment, from 0 on: so many writes and flushes there were.
    pub(crate) fn now(&self) -> usize {
        self.moments.lock().unwrap().len() - 1
    }

    /// How many writes a disk had not flushed at a moment.
    pub(crate) fn unflushed(&self, moment: usize, of: usize) -> u64 {
        self.moments.lock().unwrap()[moment][of].1
    }

    /// One of the states in which a disk may be if the power goes at a moment: 0, none of what was not flushed is there;
    /// 1, all of it; others, something in between.
    pub(crate) fn state(&self, moment: usize, of: usize, state: u64) -> Arc<dyn Disk> {
        let (epoch, writes) = self.moments.lock().unwrap()[moment][of];
        let name = format!("crash/{epoch}.{writes}/{state}");
        self.labs[of].open(&Client::local(&name)).wait().unwrap()
    }
}

struct Watched {
    next: Arc<dyn Disk>,
    of: usize,
    moments: Moments,
}

impl Watched {
    fn then<'a>(&'a self, io: Io<'a, ()>, flushed: bool) -> Io<'a, ()> {
        Io::later(async move {
            io.await?;
            let mut moments = self.moments.lock().unwrap();
            let mut now = moments[moments.len() - 1].clone();
            now[self.of] = match (flushed, now[self.of]) {
                (false, (epoch, writes)) => (epoch, writes + 1),
                // What has nothing to flush begins nothing new.
                (true, (_, 0)) => return Ok(()),
                (true, (epoch, _)) => (epoch + 1, 0),
            };
            moments.push(now);
            Ok(())
        })
    }
}

impl Disk for Watched {
    disk::forward!(next: facts, read, extents);
    fn write(&self, at: u64, data: Data, f: WriteFlags) -> Io<'_, ()> {
        self.then(self.next.write(at, data, f), false)
    }
    fn zero(&self, r: Range, f: ZeroFlags) -> Io<'_, ()> {
        self.then(self.next.zero(r, f), false)
    }
    fn trim(&self, r: Range, f: WriteFlags) -> Io<'_, ()> {
        self.then(self.next.trim(r, f), false)
    }
    fn flush(&self) -> Io<'_, ()> {
        self.then(self.next.flush(), true)
    }
}

/// A disk as the file of a store.
pub(crate) struct OnDisk(pub(crate) Arc<dyn Disk>);

impl Medium for OnDisk {
    fn read(&self, at: u64, len: u64) -> Result<Data> {
        let r = Range::new(at, len);
        if !r.lies_within(self.0.facts().size) {
            return Err(Error::io("the file ends before that"));
        }
        self.0.read(r).wait()
    }
    fn write(&self, at: u64, data: &Data) -> Result<()> {
        if !Range::new(at, data.len()).lies_within(self.0.facts().size) {
            return Err(Errno::NOSPC.into());
        }
        self.0.write(at, data.clone(), WriteFlags::default()).wait()
    }
    fn discard(&self, at: u64, len: u64) {
        let r = Range::new(at, len).intersect(self.0.facts().whole());
        let _ = r.map(|r| self.0.trim(r, WriteFlags::default()).wait());
    }
    fn sync(&self) -> Result<()> {
        self.0.flush().wait()
    }
    fn end(&self) -> Result<u64> {
        Ok(self.0.facts().size)
    }
}
