//! The file itself: where the number of a granule lies in it, how it is made, and how it is found after a stop of any kind.
//!
//! Behind the headers come groups of 4096 regions: a page with a byte for each, which says whether it is *open*, and the
//! numbers of its 256 granules. The number says in which epoch the granule was last changed. Those of an open region may
//! not have reached the medium.

use super::header::{Header, SLOT, Witness};
use disk::{Errno, Error, Result};
use rustix::fs::{AtFlags, FallocateFlags, SeekFrom, StatxFlags, fallocate, fstat, seek, statx};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};
use store::lock::Lock;

/// Granules of a region.
pub(super) const GRANULES: usize = 256;
const REGION_BYTES: u64 = GRANULES as u64 * 4;
const GROUP_REGIONS: u64 = 4096;
const GROUP_BYTES: u64 = GROUP_REGIONS + GROUP_REGIONS * REGION_BYTES;
const GROUPS: u64 = 2 * SLOT as u64;

/// Where the byte lies that says whether a region is open.
fn flag_at(region: u64) -> u64 {
    GROUPS + region / GROUP_REGIONS * GROUP_BYTES + region % GROUP_REGIONS
}

/// Where a region's numbers lie.
fn numbers_at(region: u64) -> u64 {
    let group = GROUPS + region / GROUP_REGIONS * GROUP_BYTES;
    group + GROUP_REGIONS + region % GROUP_REGIONS * REGION_BYTES
}

/// An open and locked file.
pub(super) struct Store {
    file: File,
    path: PathBuf,
    _lock: Lock,
    /// A disk to which everything is written as well, and synced: that one loses power.
    #[cfg(test)]
    pub(super) copy: std::sync::OnceLock<std::sync::Arc<dyn disk::Disk>>,
}

/// What a file holds.
pub(super) struct Found {
    pub(super) header: Header,
    /// The regions in which something is marked, and the numbers of their granules.
    pub(super) regions: Vec<(u64, Box<[u32; GRANULES]>)>,
    /// So many regions were open when the power went, and count as changed all over.
    pub(super) widened: u64,
}

impl Store {
    /// Opens a file that is there.
    ///
    /// # Errors
    /// When another server uses it; else as the system reports them. `Ok(None)`: there is none.
    pub(super) fn open(path: &Path) -> Result<Option<Store>> {
        let named = |e: io::Error| Error::from(e).context(format!("cbt-file={}", path.display()));
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(named)?,
        };
        Store::of(file, path).map(Some)
    }

    fn of(file: File, path: &Path) -> Result<Store> {
        let lock = Lock::take(&file, true, "the filter cbt");
        Ok(Store {
            file,
            path: path.to_owned(),
            _lock: lock.map_err(|e| e.context(format!("cbt-file={}", path.display())))?,
            #[cfg(test)]
            copy: Default::default(),
        })
    }

    /// Makes a new file with this header.
    ///
    /// # Errors
    /// `ENOSPC` when there is no room for it; then nothing is left behind.
    pub(super) fn create(path: &Path, header: &Header) -> Result<Store> {
        let named = |e: io::Error| Error::from(e).context(format!("cbt-file={}", path.display()));
        let dir = store::file::directory(path);
        // Under its own name only when it is whole.
        let unnamed = tempfile::Builder::new().prefix(".cbt-").tempfile_in(dir).map_err(named)?;
        let store = Store::of(unnamed.as_file().try_clone().map_err(named)?, path)?;
        store.make_room(header.size, header.granule)?;
        store.write_header(header)?;
        unnamed.persist_noclobber(path).map_err(|e| named(e.error))?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(named)?;
        Ok(store)
    }

    pub(super) fn name(&self) -> String {
        format!("cbt-file={}", self.path.display())
    }

    #[cold]
    fn error(&self, e: io::Error, doing: &str) -> Error {
        let error = Error::from(e).context(format!("{}: {doing}", self.name()));
        match error.errno() {
            // A limit of this server's environment: for clients, the disk is full.
            Errno::FBIG => Error::new(Errno::NOSPC, error.to_string()),
            _ => error,
        }
    }

    #[cold]
    fn damaged(&self, why: &str) -> Error {
        Error::io(format!(
            "{}: {why}; what changed is not known any more: remove the file, and make a full backup",
            self.name()
        ))
    }

    /// Takes the room for a disk of `size` bytes, so that marking needs none later. On file systems that cannot do that,
    /// a mark may fail for want of room, and the write that it was for with it.
    pub(super) fn make_room(&self, size: u64, granule: u64) -> Result<()> {
        let regions = regions(size, granule);
        let end = if regions == 0 { GROUPS } else { numbers_at(regions - 1) + REGION_BYTES };
        let fail = |e: rustix::io::Errno| Err(self.error(e.into(), &format!("making room for {end} bytes")));
        match fallocate(&self.file, FallocateFlags::empty(), 0, end) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => match fstat(&self.file) {
                Ok(stat) if stat.st_size as u64 >= end => Ok(()),
                _ => self.file.set_len(end).map_err(|e| self.error(e, "making room")),
            },
            Err(e) => fail(e),
            Ok(()) => Ok(()),
        }
    }

    /// Writes a header, for good, and then into the other place, too: there is another when one decays.
    pub(super) fn write_header(&self, header: &Header) -> Result<()> {
        let bytes = header.encode().map_err(|e| e.context(self.name()))?;
        let write = |slot| self.write(&bytes, slot * SLOT as u64);
        write(header.turn % 2)?;
        self.sync()?;
        write(1 - header.turn % 2)
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        #[cfg(test)]
        if let Some(copy) = self.copy.get() {
            copy.write(at, disk::Data::copy_from(bytes), disk::WriteFlags::default()).wait()?;
        }
        self.file.write_all_at(bytes, at).map_err(|e| self.error(e, "writing"))
    }

    /// Makes stable what was written.
    pub(super) fn sync(&self) -> Result<()> {
        #[cfg(test)]
        if let Some(copy) = self.copy.get() {
            copy.flush().wait()?;
        }
        self.file.sync_data().map_err(|e| self.error(e, "syncing"))
    }

    /// Says of regions, which lie in order, that they are open, or that they are not.
    pub(super) fn flag(&self, list: &[u64], open: bool) -> Result<()> {
        for run in list.chunk_by(|a, b| flag_at(*a) + 1 == flag_at(*b)) {
            self.write(&vec![u8::from(open); run.len()], flag_at(run[0]))?;
        }
        Ok(())
    }

    /// Gives granules of a region a number.
    pub(super) fn mark(&self, region: u64, granules: std::ops::Range<usize>, number: u32) -> Result<()> {
        let bytes = number.to_le_bytes().repeat(granules.len());
        let at = numbers_at(region) + granules.start as u64 * 4;
        self.write(&bytes, at)
    }

    /// Where this file is now.
    pub(super) fn witness(&self) -> Witness {
        const UNIQUE: u32 = 0x4000;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = u128::from_str_radix(&boot.trim().replace('-', ""), 16).unwrap_or(0);
        let wanted = StatxFlags::INO | StatxFlags::from_bits_retain(UNIQUE);
        let Ok(found) = statx(&self.file, "", AtFlags::EMPTY_PATH, wanted) else {
            return Witness::default();
        };
        // Kernels before 6.8 number mounts so that a number comes again.
        let mount = if found.stx_mask & UNIQUE != 0 { found.stx_mnt_id } else { 0 };
        Witness { boot, mount, inode: found.stx_ino }
    }

    /// Reads the newest whole header.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn header(&self) -> Result<Header> {
        let mut slots = vec![0; 2 * SLOT];
        let len = read_at_most(&self.file, &mut slots, 0).map_err(|e| self.error(e, "reading"))?;
        let (first, second) = slots[..len].split_at(SLOT.min(len));
        match (Header::decode(first), Header::decode(second)) {
            (Ok(a), Ok(b)) if a.turn > b.turn => Ok(a),
            (_, Ok(b)) => Ok(b),
            (Ok(a), _) => Ok(a),
            (Err(why), Err(_)) => Err(self.damaged(why)),
        }
    }

    /// Reads all there is, and mends what an end without order has left. All of it is stable afterwards.
    ///
    /// # Errors
    /// When the file is damaged or cut short.
    pub(super) fn load(&self, header: Header) -> Result<Found> {
        let here = self.witness();
        // What the last server wrote may be in the kernel's memory alone.
        let synced = self.sync();
        let (all_is_there, flags_count) = match header.in_use {
            None => (true, false),
            Some(then) => (synced.is_ok() && then == here && here.boot != 0 && here.mount != 0, true),
        };
        let count = regions(header.size.max(header.becoming.unwrap_or(0)), header.granule);
        let len = self.file.metadata().map_err(|e| self.error(e, "looking at it"))?.len();
        let needed = regions(header.size, header.granule);
        if needed > 0 && len < numbers_at(needed - 1) + REGION_BYTES {
            return Err(self.damaged("its end is missing"));
        }
        let mut found = Found { header, regions: Vec::new(), widened: 0 };
        let mut open = Vec::new();
        for group in 0..count.div_ceil(GROUP_REGIONS) {
            let first = group * GROUP_REGIONS;
            let mut flags = vec![0; GROUP_REGIONS.min(count - first) as usize];
            read_at_most(&self.file, &mut flags, flag_at(first)).map_err(|e| self.error(e, "reading"))?;
            open.extend((first..).zip(&flags).filter(|(_, flag)| **flag != 0).map(|(region, _)| region));
            self.load_group(first, flags.len() as u64, &mut found)?;
        }
        if flags_count && !all_is_there {
            self.widen(&open, &mut found)?;
        }
        if !open.is_empty() {
            self.sync()?;
            self.flag(&open, false)?;
            self.sync()?;
        }
        Ok(found)
    }

    /// Reads the numbers of so many regions from `first` on, all of one group.
    fn load_group(&self, first: u64, count: u64, found: &mut Found) -> Result<()> {
        let end = numbers_at(first) + count * REGION_BYTES;
        let mut at = numbers_at(first);
        let mut bytes = vec![0; 1 << 20];
        // Most of a file is empty, and need not be read.
        while let Some(data) = next_data(&self.file, at).filter(|data| *data < end) {
            at = at.max(data - (data - at) % REGION_BYTES);
            let part = (end - at).min(bytes.len() as u64) as usize;
            let len =
                read_at_most(&self.file, &mut bytes[..part], at).map_err(|e| self.error(e, "reading"))?;
            bytes[len..part].fill(0);
            for numbers in bytes[..part].chunks_exact(REGION_BYTES as usize) {
                if !disk::data::is_zero(numbers) {
                    let mut own = Box::new([0; GRANULES]);
                    for (own, number) in own.iter_mut().zip(numbers.as_chunks().0) {
                        *own = u32::from_le_bytes(*number);
                    }
                    let last = own.iter().copied().max().unwrap_or(0);
                    // A few more than the header knows are of checkpoints that could not be written.
                    if last > found.header.epoch.saturating_add(1000) {
                        return Err(self.damaged("a granule was changed in an epoch that is yet to come"));
                    }
                    found.header.epoch = found.header.epoch.max(last);
                    found.regions.push((first + (at - numbers_at(first)) / REGION_BYTES, own));
                }
                at += REGION_BYTES;
            }
        }
        Ok(())
    }

    /// Marks all of the open regions: not all marks in them may have reached the medium.
    fn widen(&self, open: &[u64], found: &mut Found) -> Result<()> {
        let now = found.header.epoch;
        for region in open {
            self.mark(*region, 0..GRANULES, now)?;
            match found.regions.binary_search_by_key(region, |(known, _)| *known) {
                Ok(at) => *found.regions[at].1 = [now; GRANULES],
                Err(at) => found.regions.insert(at, (*region, Box::new([now; GRANULES]))),
            }
        }
        found.widened = open.len() as u64;
        Ok(())
    }
}

/// The regions of a disk.
pub(super) fn regions(size: u64, granule: u64) -> u64 {
    size.div_ceil(granule).div_ceil(GRANULES as u64)
}

fn read_at_most(file: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(&mut into[done..], at + done as u64)? {
            0 => break,
            some => done += some,
        }
    }
    Ok(done)
}

/// Where the next bytes are that are not a hole, from `at` on.
fn next_data(file: &File, at: u64) -> Option<u64> {
    match seek(file, SeekFrom::Data(at)) {
        Ok(data) => Some(data),
        Err(rustix::io::Errno::NXIO) => None,
        Err(_) => Some(at),
    }
}
