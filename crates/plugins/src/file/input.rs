//! Reading: from the page cache at once, from the medium through a ring, or on the pool where there is none.

use super::{disk::Open, uring::Ring};
use crate::common::parts::{each_part, is_one_part};
use disk::{BufMut, Data, Error, Range, Result};
use rustix::{
    fs::{Advice, fadvise, fstat, fstatfs},
    io::{Errno as E, ReadWriteFlags, pread, preadv2},
};
use std::{io::IoSliceMut, num::NonZeroU64, sync::atomic::Ordering::Relaxed};

/// Buffers of this size are pooled, and stay in the processor's cache while they are sent.
pub(super) const PIECE: usize = 256 << 10;

/// Values of `Open::reading`: the kernel is asked for what it has cached ...
const CACHED_FIRST: u8 = 0;
/// ... or the file lives in memory, so that reading never waits ...
const AT_ONCE: u8 = 1;
/// ... or the file system cannot say, so that every read might wait.
const POOL: u8 = 2;

const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;

fn shorter() -> Error {
    Error::io("the file is shorter than it was when it was opened")
}

/// A read that must go on where it may wait.
pub(super) struct Unfinished {
    done: Vec<Data>,
    buf: BufMut,
    filled: usize,
    /// What comes behind `buf`.
    rest: Range,
    at: u64,
}

impl Open {
    /// Reads what can be had without waiting: all of it, or the part that `Unfinished` carries on.
    pub(super) fn read_now(&self, range: Range) -> Result<std::result::Result<Data, Unfinished>> {
        let mut done = Vec::new();
        let mut rest = range;
        loop {
            let at = rest.start;
            let len = rest.len.min(PIECE as u64);
            rest = Range::new(at + len, rest.len - len);
            let mut buf = BufMut::new(len as usize);
            let filled = self.read_cached(at, &mut buf)?;
            if filled < buf.len() {
                return Ok(Err(Unfinished { done, buf, filled, rest, at }));
            }
            self.evict_read(at, len);
            if rest.is_empty() && done.is_empty() {
                return Ok(Ok(buf.into()));
            }
            done.push(buf.into());
            if rest.is_empty() {
                return Ok(Ok(Data::join(done)));
            }
        }
    }

    /// Fills the buffer as far as that is possible without waiting.
    fn read_cached(&self, at: u64, into: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            let mode = self.reading.load(Relaxed);
            let (at, slice) = (at + filled as u64, &mut into[filled..]);
            let read = match mode {
                CACHED_FIRST => preadv2(&self.fd, &mut [IoSliceMut::new(slice)], at, ReadWriteFlags::NOWAIT),
                AT_ONCE => pread(&self.fd, slice, at),
                _ => return Ok(filled),
            };
            match read {
                // The end of the file, before its end; `finish` makes sure.
                Ok(0) | Err(E::AGAIN) => return Ok(filled),
                Ok(n) => filled += n,
                Err(E::INTR) => {}
                Err(E::OPNOTSUPP | E::NOSYS | E::INVAL) if mode == CACHED_FIRST => {
                    self.reading.store(self.reading_without_nowait(), Relaxed);
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(filled)
    }

    fn reading_without_nowait(&self) -> u8 {
        match fstatfs(&self.fd) {
            Ok(fs) if matches!(fs.f_type as u64 & 0xffff_ffff, TMPFS | RAMFS) => AT_ONCE,
            _ => POOL,
        }
    }

    /// Fills the buffer, however long it takes.
    fn read_waiting(&self, at: u64, into: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < into.len() {
            match pread(&self.fd, &mut into[filled..], at + filled as u64) {
                Ok(0) => return Err(shorter()),
                Ok(n) => filled += n,
                Err(E::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    async fn read_by(&self, ring: &Ring, range: Range) -> Result<Data> {
        let read = async |part: Range| {
            let buf = ring.read(part.start, part.len as usize).await?;
            self.evict_read(part.start, part.len);
            Ok(Data::from(buf))
        };
        let step = PIECE as u64;
        let data = match is_one_part(range, step) {
            true => read(range).await?,
            false => Data::join(each_part(range, step, |part| Box::pin(read(part))).await?),
        };
        // Rings give zeroes behind the end.
        if self.device.is_none() && u64::try_from(fstat(&self.fd)?.st_size).unwrap_or(0) < range.end() {
            return Err(shorter());
        }
        Ok(data)
    }

    /// What was read need not stay in the page cache, if that was asked for.
    fn evict_read(&self, at: u64, len: u64) {
        if self.evict {
            let _ = fadvise(&self.fd, at, NonZeroU64::new(len), Advice::DontNeed);
        }
    }
}

impl Unfinished {
    /// Nothing of this range is there yet.
    pub(super) fn none_of(range: Range) -> Unfinished {
        let len = range.len.min(PIECE as u64);
        Unfinished {
            done: Vec::new(),
            buf: BufMut::new(len as usize),
            filled: 0,
            rest: Range::new(range.start + len, range.len - len),
            at: range.start,
        }
    }

    /// Reads the rest through a ring.
    pub(super) async fn finish_by(self, ring: &Ring, open: &Open) -> Result<Data> {
        let Unfinished { mut done, mut buf, filled, rest, at } = self;
        let missing = Range::new(at + filled as u64, rest.end() - (at + filled as u64));
        buf.truncate(filled);
        if filled > 0 {
            done.push(buf.into());
        }
        done.push(open.read_by(ring, missing).await?);
        Ok(Data::join(done))
    }

    /// Reads the rest, waiting where need be.
    pub(super) fn finish(self, open: &Open) -> Result<Data> {
        let Unfinished { mut done, mut buf, filled, mut rest, mut at } = self;
        open.read_waiting(at + filled as u64, &mut buf[filled..])?;
        open.evict_read(at, buf.len() as u64);
        done.push(buf.into());
        while !rest.is_empty() {
            at = rest.start;
            let len = rest.len.min(PIECE as u64);
            rest = Range::new(at + len, rest.len - len);
            let mut buf = BufMut::new(len as usize);
            open.read_waiting(at, &mut buf)?;
            open.evict_read(at, len);
            done.push(buf.into());
        }
        Ok(Data::join(done))
    }
}
