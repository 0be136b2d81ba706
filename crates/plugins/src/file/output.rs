//! Changing the file: writing, zeroing, trimming, and making that stable.

use super::{device, disk::Open, input::PIECE};
use crate::common::parts::aligned;
use disk::{Data, Errno, Error, Piece, Range, Result, ZeroFlags};
use rustix::{
    fs::{Advice, FallocateFlags, fadvise, fallocate, fdatasync},
    io::{Errno as E, ReadWriteFlags, pwrite, pwritev2},
};
use std::{io::IoSlice, num::NonZeroU64, os::fd::AsFd, sync::atomic::Ordering::Relaxed};

static ZEROES: [u8; PIECE] = [0; PIECE];

/// With `cache=none`, written pages are evicted in steps of this ...
const EVICT_STEP: u64 = 8 << 20;
/// ... and so far behind, since the kernel first has to write them out.
const EVICT_BEHIND: u64 = 2 * EVICT_STEP;

impl Open {
    /// Into the page cache.
    pub(super) fn write(&self, at: u64, data: &Data) -> Result<()> {
        self.write_pieces(at, data, ReadWriteFlags::empty())?;
        if self.evict && at / EVICT_STEP != (at + data.len()) / EVICT_STEP {
            let from = at.saturating_sub(EVICT_BEHIND);
            // Starts writing out what is dirty, evicts what is not.
            let _ = fadvise(&self.fd, from, NonZeroU64::new(at + data.len() - from), Advice::DontNeed);
        }
        Ok(())
    }

    /// Onto the medium.
    pub(super) fn write_stable(&self, at: u64, data: &Data) -> Result<()> {
        if self.can_dsync.load(Relaxed) {
            match self.write_pieces(at, data, ReadWriteFlags::DSYNC) {
                Err(e) if e.errno() == Errno::NOTSUP => self.can_dsync.store(false, Relaxed),
                done => return done,
            }
        }
        self.write_pieces(at, data, ReadWriteFlags::empty())?;
        self.flush()
    }

    fn write_pieces(&self, at: u64, data: &Data, flags: ReadWriteFlags) -> Result<()> {
        if let Some(alignment) = self.direct {
            for part in Range::new(0, data.len()).split_at_multiples(PIECE as u64) {
                let piece = aligned(data.slice(part.start, part.len), alignment);
                self.write_bytes(at + part.start, piece.as_bytes().unwrap_or_default(), flags)?;
            }
            return Ok(());
        }
        if let Some(bytes) = data.as_bytes() {
            return self.write_bytes(at, bytes, flags);
        }
        let mut done = 0;
        for piece in data.pieces() {
            for part in Range::new(done, piece.len()).split_at_multiples(PIECE as u64) {
                let to = at + part.start;
                let offset = (part.start - done) as usize;
                match piece {
                    Piece::Zeroes(_) => self.write_bytes(to, &ZEROES[..part.len as usize], flags)?,
                    Piece::Bytes(b) => self.write_bytes(to, &b[offset..offset + part.len as usize], flags)?,
                    Piece::Lent(_) => {
                        let copy = data.slice(part.start, part.len).contiguous();
                        self.write_bytes(to, copy.as_bytes().unwrap_or_default(), flags)?;
                    }
                }
            }
            done += piece.len();
        }
        Ok(())
    }

    fn write_bytes(&self, mut at: u64, mut bytes: &[u8], flags: ReadWriteFlags) -> Result<()> {
        while !bytes.is_empty() {
            let written = match flags.is_empty() {
                true => pwrite(&self.fd, bytes, at),
                false => pwritev2(&self.fd, &[IoSlice::new(bytes)], at, flags),
            };
            match written {
                Ok(0) => return Err(Error::io("the file takes no more bytes")),
                Ok(n) => (at, bytes) = (at + n as u64, &bytes[n..]),
                Err(E::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Makes everything stable that was written.
    pub(super) fn flush(&self) -> Result<()> {
        fdatasync(&self.fd)?;
        if self.evict {
            let _ = fadvise(&self.fd, 0, None, Advice::DontNeed);
        }
        Ok(())
    }

    /// Zeroes, by writing zeroes where the file system knows no better way (unless it must be fast).
    pub(super) fn zero(&self, range: Range, flags: ZeroFlags) -> Result<()> {
        // Devices zero whole sectors; what lies beside them is written, which is as fast.
        let sector = self.device.as_ref().map_or(1, |device| u64::from(device.sector));
        let whole = device::whole_sectors(range, sector);
        if let Some(whole) = whole {
            self.zero_whole(whole, flags)?;
        }
        let whole = whole.unwrap_or(Range::new(range.end(), 0));
        for beside in [(range.start, whole.start), (whole.end(), range.end())] {
            if beside.0 < beside.1 {
                self.write(beside.0, &Data::zeroes(beside.1 - beside.0))?;
            }
        }
        Ok(())
    }

    fn zero_whole(&self, range: Range, flags: ZeroFlags) -> Result<()> {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let zero = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        if flags.may_trim && self.can_punch.load(Relaxed) && self.allocate(punch, range)? {
            return Ok(());
        }
        // On a device that cannot zero by itself, the kernel sends the zeroes: right, but slow.
        let fast = self.device.as_ref().is_none_or(|device| device.zeroes_fast);
        if (fast || !flags.fast) && self.can_zero_range.load(Relaxed) && self.allocate(zero, range)? {
            return Ok(());
        }
        if !flags.fast && self.device.is_some() && device::zero_out(self.fd.as_fd(), range).is_ok() {
            // A kernel older than that call for devices.
            return Ok(());
        }
        if flags.fast {
            return Err(Error::new(Errno::NOTSUP, "this file cannot be zeroed without writing zeroes"));
        }
        self.write(range.start, &Data::zeroes(range.len))
    }

    /// Gives the range up, where that is possible: it is no more than a hint.
    pub(super) fn trim(&self, range: Range) -> Result<()> {
        if let Some(device) = &self.device {
            return match device::discard(self.fd.as_fd(), range, device.sector) {
                Ok(()) | Err(E::OPNOTSUPP) => Ok(()),
                Err(e) => Err(e.into()),
            };
        }
        if self.can_punch.load(Relaxed) {
            self.allocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, range)?;
        }
        Ok(())
    }

    /// `false` when the file system or the device cannot do it.
    fn allocate(&self, how: FallocateFlags, range: Range) -> Result<bool> {
        let flag =
            if how.contains(FallocateFlags::PUNCH_HOLE) { &self.can_punch } else { &self.can_zero_range };
        loop {
            let outcome = fallocate(&self.fd, how, range.start, range.len);
            self.forget_data_run();
            return match outcome {
                Ok(()) => Ok(true),
                Err(E::INTR) => continue,
                Err(e) if Open::refused(flag, e) => Ok(false),
                Err(E::INVAL) if self.device.is_some() => Ok(false),
                Err(e) => Err(e.into()),
            };
        }
    }
}
