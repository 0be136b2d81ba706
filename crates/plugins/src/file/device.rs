//! What a block device says of itself, and discarding and zeroing parts of it.

use disk::{Blocks, Range};
use rustix::{
    fs::{major, minor},
    io,
    ioctl::{Setter, ioctl, opcode},
};
use std::{os::fd::BorrowedFd, path::PathBuf};

/// What is known of a block device since it was opened.
pub(super) struct Device {
    /// In bytes; what is discarded or zeroed by the device is a multiple of this.
    pub(super) sector: u32,
    pub(super) rotational: bool,
    /// It takes no writes, though the kernel lets it be opened for writing.
    pub(super) read_only: bool,
    /// The device zeroes by itself, without being sent zeroes.
    pub(super) zeroes_fast: bool,
    preferred: u32,
}

impl Device {
    /// Asks the kernel about an open block device with this number.
    pub(super) fn of(fd: BorrowedFd<'_>, number: u64) -> Device {
        let queue = queue_of(number);
        let ask = |what: &str| -> u64 {
            let text = std::fs::read_to_string(queue.join(what)).unwrap_or_default();
            text.trim().parse().unwrap_or(0)
        };
        let read_only = std::fs::read_to_string(described(number).join("ro")).unwrap_or_default();
        let sector = rustix::fs::ioctl_blksszget(fd).unwrap_or(512);
        let preferred = u32::try_from(ask("minimum_io_size")).unwrap_or(0);
        Device {
            sector,
            rotational: ask("rotational") == 1,
            read_only: read_only.trim() == "1",
            zeroes_fast: ask("write_zeroes_max_bytes") > 0,
            preferred: preferred.clamp(4096, 32 << 20).next_power_of_two(),
        }
    }

    /// Any request works, since the page cache is between; those of the device's own size are faster.
    pub(super) fn blocks(&self) -> Blocks {
        Blocks { preferred: self.preferred.max(self.sector), ..Blocks::default() }
    }
}

/// Where sysfs describes a device.
fn described(number: u64) -> PathBuf {
    PathBuf::from(format!("/sys/dev/block/{}:{}", major(number), minor(number)))
}

/// Where sysfs describes the queue of a device, or of the disk that a partition belongs to.
fn queue_of(number: u64) -> PathBuf {
    let device = described(number);
    let whole = device.join("queue");
    // `..` of the link would be another directory, so the partition's link is followed first.
    if whole.exists() { whole } else { device.canonicalize().unwrap_or(device).join("../queue") }
}

/// The whole sectors of a range.
pub(super) fn whole_sectors(range: Range, sector: u64) -> Option<Range> {
    let (start, end) = (range.start.checked_next_multiple_of(sector)?, range.end() / sector * sector);
    (start < end).then(|| Range::new(start, end - start))
}

/// Tells the device that the whole sectors of a range are not needed any more.
pub(super) fn discard(fd: BorrowedFd<'_>, range: Range, sector: u32) -> io::Result<()> {
    const BLKDISCARD: rustix::ioctl::Opcode = opcode::none(0x12, 119);
    let Some(whole) = whole_sectors(range, sector.into()) else { return Ok(()) };
    // SAFETY: BLKDISCARD reads two 64-bit numbers, start and length, and that is what it is given.
    unsafe { ioctl(fd, Setter::<BLKDISCARD, [u64; 2]>::new([whole.start, whole.len])) }
}

/// Has the kernel zero whole sectors, by whatever way there is.
pub(super) fn zero_out(fd: BorrowedFd<'_>, range: Range) -> io::Result<()> {
    const BLKZEROOUT: rustix::ioctl::Opcode = opcode::none(0x12, 127);
    // SAFETY: BLKZEROOUT reads two 64-bit numbers, start and length, and that is what it is given.
    unsafe { ioctl(fd, Setter::<BLKZEROOUT, [u64; 2]>::new([range.start, range.len])) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_sectors_count() {
        let whole =
            |start, len, sector| whole_sectors(Range::new(start, len), sector).map(|r| (r.start, r.len));
        assert_eq!(whole(0, 512, 512), Some((0, 512)));
        assert_eq!(whole(1, 1535, 512), Some((512, 1024)));
        assert_eq!((whole(1, 511, 512), whole(1, 1022, 512)), (None, None));
        assert_eq!(whole(7, 9, 1), Some((7, 9)));
        assert_eq!(whole(u64::MAX - 10, 10, 4096), None);
    }
}
