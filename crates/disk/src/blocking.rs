//! The simplest way to write a disk: plain blocking calls, run on threads where they may block.

use crate::{
    Data, Disk, Extents, Facts, Io, Range, WriteFlags, Writes, ZeroFlags,
    error::{Errno, Error, Result},
};
use std::sync::Arc;

/// A disk whose requests block. As [`Disk`] otherwise: only what `facts` offers is called, on ranges that lie on it.
#[allow(unused_variables, reason = "the defaults refuse, whatever they are given")]
pub trait BlockingDisk: Send + Sync + 'static {
    /// What the disk is and can do.
    fn facts(&self) -> &Facts;

    /// Fills `into` from byte `at` on.
    ///
    /// # Errors
    /// What the client is told.
    fn read(&self, at: u64, into: &mut [u8]) -> Result<()>;

    /// Writes `from` from byte `at` on.
    ///
    /// # Errors
    /// What the client is told.
    fn write(&self, at: u64, from: &[u8], flags: WriteFlags) -> Result<()> {
        Err(unsupported("writing"))
    }

    /// Makes a range read as zeroes.
    ///
    /// # Errors
    /// What the client is told.
    fn zero(&self, range: Range, flags: ZeroFlags) -> Result<()> {
        Err(unsupported("zeroing"))
    }

    /// Gives a range up.
    ///
    /// # Errors
    /// What the client is told.
    fn trim(&self, range: Range, flags: WriteFlags) -> Result<()> {
        Err(unsupported("trimming"))
    }

    /// Makes stable what was written.
    ///
    /// # Errors
    /// What the client is told.
    fn flush(&self) -> Result<()> {
        Err(unsupported("flushing"))
    }

    /// Brings a range nearer.
    ///
    /// # Errors
    /// What the client is told.
    fn cache(&self, range: Range) -> Result<()> {
        Err(unsupported("caching"))
    }

    /// What a range holds; see [`Disk::extents`].
    ///
    /// # Errors
    /// What the client is told.
    fn extents(&self, range: Range, limit: usize) -> Result<Extents> {
        Err(unsupported("extents"))
    }

    /// The client is leaving.
    ///
    /// # Errors
    /// For the log.
    fn close(&self) -> Result<()> {
        Ok(())
    }
}

fn unsupported(what: &str) -> Error {
    Error::new(Errno::NOTSUP, format!("{what} is not supported by this disk"))
}

/// Makes a [`Disk`] of a [`BlockingDisk`].
pub struct Blocking<D> {
    disk: Arc<D>,
    writes: Arc<Writes>,
}

impl<D: BlockingDisk> Blocking<D> {
    /// Runs the requests of `disk` on the pool for blocking work.
    pub fn new(disk: D) -> Self {
        Blocking { disk: Arc::new(disk), writes: Arc::default() }
    }

    fn run<T: Send + 'static>(&self, call: impl FnOnce(&D) -> Result<T> + Send + 'static) -> Io<'_, T> {
        let disk = self.disk.clone();
        let work = reactor::unblock(move || call(&disk));
        Io::later(async move { work.await? })
    }

    fn change(&self, call: impl FnOnce(&D) -> Result<()> + Send + 'static) -> Io<'_, ()> {
        let write = self.writes.begin();
        self.run(move |disk| {
            let outcome = call(disk);
            drop(write);
            outcome
        })
    }
}

impl<D: BlockingDisk> Disk for Blocking<D> {
    fn facts(&self) -> &Facts {
        self.disk.facts()
    }
    fn read(&self, r: Range) -> Io<'_, Data> {
        self.run(move |d| Data::try_fill(r.len as usize, |b| d.read(r.start, b)))
    }
    fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        self.change(move |d| {
            let data = data.contiguous();
            d.write(at, data.as_bytes().expect("contiguous data has bytes"), flags)
        })
    }
    fn zero(&self, r: Range, flags: ZeroFlags) -> Io<'_, ()> {
        self.change(move |d| d.zero(r, flags))
    }
    fn trim(&self, r: Range, flags: WriteFlags) -> Io<'_, ()> {
        self.change(move |d| d.trim(r, flags))
    }
    fn flush(&self) -> Io<'_, ()> {
        self.writes.flush(|| self.run(|d| d.flush()))
    }
    fn cache(&self, r: Range) -> Io<'_, ()> {
        self.run(move |d| d.cache(r))
    }
    fn extents(&self, r: Range, limit: usize) -> Io<'_, Extents> {
        self.run(move |d| d.extents(r, limit))
    }
    fn close(&self) -> Io<'_, ()> {
        self.writes.flush(|| self.run(|d| d.close()))
    }
}
