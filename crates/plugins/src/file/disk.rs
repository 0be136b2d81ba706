//! An open file as a disk: which requests are answered at once, and which are left to the pool.

use super::{Cache, Fadvise, Manner, device::Device, input::Unfinished, uring::Ring};
use crate::common::parts::aligned;
use ::disk::{
    Blocks, Data, Disk, Error, Extents, Facts, Io, Kind, Range, Result, WriteFlags, Writes, ZeroFlags,
};
use rustix::{
    fs::{Advice, AtFlags, FileType, SeekFrom, StatxFlags, fadvise, fstat, ftruncate, seek, statx},
    io::Errno,
};
use std::{
    num::NonZeroU64,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
    },
};

/// Zeroing or trimming up to this is quick enough to be done at once.
const SHORT: u64 = 64 << 10;

/// What all requests share, on this thread and on the pool's.
pub(super) struct Open {
    pub(super) facts: Facts,
    pub(super) fd: OwnedFd,
    pub(super) device: Option<Device>,
    /// How to read; see `input.rs`.
    pub(super) reading: AtomicU8,
    /// What the file system has not refused so far.
    pub(super) can_punch: AtomicBool,
    pub(super) can_zero_range: AtomicBool,
    pub(super) can_dsync: AtomicBool,
    /// Nothing shall stay in the page cache.
    pub(super) evict: bool,
    /// Past the page cache: the addresses of buffers are multiples of this.
    pub(super) direct: Option<usize>,
    /// For what must wait; made when it is needed first, `None` where there is none to be had.
    ring: OnceLock<Option<Arc<Ring>>>,
    /// Lies within one run of data. File systems that keep no list of runs look at every page to find the end of
    /// one, so it is remembered. (Holes are not: another process may fill them.)
    data_run: Mutex<Range>,
    /// Those on the pool.
    writes: Arc<Writes>,
}

/// A file somebody opened.
pub(crate) struct FileDisk(Arc<Open>);

impl FileDisk {
    pub(super) fn new(fd: OwnedFd, writable: bool, manner: Manner) -> Result<FileDisk> {
        let stat = fstat(&fd)?;
        let device = match FileType::from_raw_mode(stat.st_mode) {
            FileType::BlockDevice => Some(Device::of(fd.as_fd(), stat.st_rdev)),
            _ => None,
        };
        let size = match device {
            Some(_) => seek(&fd, SeekFrom::End(0))?,
            None => u64::try_from(stat.st_size).unwrap_or(0),
        };
        let mut blocks = device.as_ref().map(Device::blocks).unwrap_or_default();
        let mut direct = None;
        if manner.cache == Cache::Direct {
            let (memory, minimum) = direct_alignments(&fd, device.as_ref())?;
            if !size.is_multiple_of(minimum.into()) {
                let why = format!("cache=direct: its size of {size} is not a multiple of {minimum} bytes");
                return Err(Error::invalid(why));
            }
            blocks = Blocks { minimum, preferred: blocks.preferred.max(minimum), ..blocks };
            direct = Some(memory);
        }
        let modified = format!("modified at {}.{:09}", stat.st_mtime, stat.st_mtime_nsec);
        let facts = Facts {
            blocks,
            identity: device.is_none().then(|| modified.into()),
            rotational: device.as_ref().is_some_and(|d| d.rotational),
            cache: direct.is_none(),
            // Looking for data is cheap, looking for the first hole may mean to walk the whole file.
            extents: device.is_none() && matches!(seek(&fd, SeekFrom::Data(0)), Ok(_) | Err(Errno::NXIO)),
            ..Facts::read_only(size)
        };
        let facts = match writable && !device.as_ref().is_some_and(|d| d.read_only) {
            true => Facts {
                write: true,
                flush: true,
                fua: true,
                trim: true,
                zero: true,
                fast_zero: true,
                ..facts
            },
            false => facts,
        };
        let advice = match manner.fadvise {
            Fadvise::Normal => Advice::Normal,
            Fadvise::Random => Advice::Random,
            Fadvise::Sequential => Advice::Sequential,
        };
        if advice != Advice::Normal {
            // Only a hint, and not for every file system.
            let _ = fadvise(&fd, 0, None, advice);
        }
        Ok(FileDisk(Arc::new(Open {
            facts,
            device,
            reading: AtomicU8::default(),
            can_punch: AtomicBool::new(true),
            can_zero_range: AtomicBool::new(true),
            can_dsync: AtomicBool::new(true),
            evict: manner.cache == Cache::None,
            direct,
            ring: OnceLock::new(),
            data_run: Mutex::new(Range::new(0, 0)),
            writes: Arc::default(),
            fd,
        })))
    }

    /// A file or device that another plugin has opened.
    pub(crate) fn open(fd: OwnedFd, writable: bool) -> Result<FileDisk> {
        FileDisk::new(fd, writable, Manner { cache: Cache::Default, fadvise: Fadvise::Normal })
    }

    /// Reads; the answer may come when the disk is no longer there.
    pub(crate) fn read_detached(&self, range: Range) -> Io<'static, Data> {
        let unfinished = match self.0.direct {
            Some(_) => Unfinished::none_of(range),
            None => match self.0.read_now(range) {
                Ok(Ok(data)) => return Io::ok(data),
                Ok(Err(unfinished)) => unfinished,
                Err(e) => return e.into(),
            },
        };
        match self.0.ring() {
            Some(ring) => {
                let (ring, open) = (ring.clone(), self.0.clone());
                Io::later(async move { unfinished.finish_by(&ring, &open).await })
            }
            None => self.unblock(move |open| unfinished.finish(open)),
        }
    }

    /// As where rings are forbidden.
    #[cfg(test)]
    pub(super) fn without_ring(self) -> FileDisk {
        let _ = self.0.ring.set(None);
        self
    }

    /// A regular file's device and inode: the same for all who have it open.
    pub(super) fn identity(&self) -> Result<Option<(u64, u64)>> {
        let stat = fstat(&self.0.fd)?;
        Ok(self.0.device.is_none().then_some((stat.st_dev, stat.st_ino)))
    }

    /// Gives the file another size: for [`::disk::resize::Size::open`].
    pub(super) fn resizer(&self) -> impl Fn(u64, u64) -> Result<()> + Send + Sync + 'static {
        let open = self.0.clone();
        move |_, to| {
            ftruncate(&open.fd, to).map_err(|e| match e {
                Errno::FBIG => {
                    ::disk::Error::new(::disk::Errno::NOSPC, "the file system has no files so large")
                }
                e => e.into(),
            })?;
            open.forget_data_run();
            Ok(())
        }
    }

    /// Has the pool do it. The work begins at once, so dropping the `Io` does not undo it.
    pub(super) fn unblock<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Open) -> Result<T> + Send + 'static,
    ) -> Io<'static, T> {
        let open = self.0.clone();
        let work = reactor::unblock(move || work(&open));
        Io::later(async move { work.await? })
    }

    /// As [`FileDisk::unblock`]; a flush waits for it.
    fn unblock_write(&self, work: impl FnOnce(&Open) -> Result<()> + Send + 'static) -> Io<'static, ()> {
        let write = self.0.writes.begin();
        self.unblock(move |open| {
            let outcome = work(open);
            drop(write);
            outcome
        })
    }

    /// Here when it is quick, on the pool when it may take a while.
    fn change(
        &self,
        quick: bool,
        fua: bool,
        change: impl FnOnce(&Open) -> Result<()> + Send + 'static,
    ) -> Io<'_, ()> {
        if quick && !fua {
            return change(&self.0).into();
        }
        self.unblock_write(move |open| {
            change(open)?;
            if fua { open.flush() } else { Ok(()) }
        })
    }
}

impl Disk for FileDisk {
    fn facts(&self) -> &Facts {
        &self.0.facts
    }

    fn read(&self, range: Range) -> Io<'_, Data> {
        self.read_detached(range)
    }

    fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        if let Some(alignment) = self.0.direct
            && let Some(ring) = self.0.ring()
        {
            return Io::later(ring.write(at, aligned(data, alignment), flags.fua));
        }
        if flags.fua || self.0.direct.is_some() {
            return self.unblock_write(move |open| {
                if flags.fua { open.write_stable(at, &data) } else { open.write(at, &data) }
            });
        }
        // The page cache takes it, which is as quick as any hand-over.
        self.0.write(at, &data).into()
    }

    fn zero(&self, range: Range, flags: ZeroFlags) -> Io<'_, ()> {
        let quick = range.len <= SHORT && self.0.device.is_none();
        self.change(quick, flags.fua, move |open| open.zero(range, flags))
    }

    fn trim(&self, range: Range, flags: WriteFlags) -> Io<'_, ()> {
        let quick = range.len <= SHORT && self.0.device.is_none();
        self.change(quick, flags.fua, move |open| open.trim(range))
    }

    fn flush(&self) -> Io<'_, ()> {
        let flushed = || self.0.writes.flush(|| self.unblock(|open| open.flush()));
        // Only writes past the cache go through the ring.
        match self.0.ring.get().and_then(Option::as_ref).filter(|_| self.0.direct.is_some()) {
            Some(ring) => Io::later(async move {
                ring.settled().await;
                flushed().await
            }),
            None => flushed(),
        }
    }

    fn close(&self) -> Io<'_, ()> {
        let settled = || self.0.writes.flush(|| Io::ok(()));
        match self.0.ring.get().and_then(Option::as_ref).filter(|_| self.0.direct.is_some()) {
            Some(ring) => Io::later(async move {
                ring.settled().await;
                settled().await
            }),
            None => settled(),
        }
    }

    fn cache(&self, range: Range) -> Io<'_, ()> {
        if self.0.direct.is_some() {
            return ::disk::Errno::NOTSUP.into();
        }
        let hint = fadvise(&self.0.fd, range.start, NonZeroU64::new(range.len), Advice::WillNeed);
        Io::Ready(hint.map_err(Into::into))
    }

    fn extents(&self, range: Range, limit: usize) -> Io<'_, Extents> {
        self.0.extents(range, limit).into()
    }
}

/// What direct I/O wants to be multiples: addresses of buffers, and offsets and lengths of requests.
fn direct_alignments(fd: &OwnedFd, device: Option<&Device>) -> Result<(usize, u32)> {
    const PAGE: u32 = 4096;
    let told = statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
    let told = told.ok().filter(|told| told.stx_mask & StatxFlags::DIOALIGN.bits() != 0);
    let (memory, offset) = match (told, device) {
        (Some(told), _) if told.stx_dio_offset_align == 0 => {
            return Err(Error::new(::disk::Errno::NOTSUP, "cache=direct: not on this file system"));
        }
        (Some(told), _) => (told.stx_dio_mem_align, told.stx_dio_offset_align),
        (None, Some(device)) => (device.sector, device.sector),
        // Enough for every file system on every disk.
        (None, None) => (PAGE, PAGE),
    };
    if memory > PAGE || offset > 64 << 10 || !offset.is_power_of_two() {
        let why = format!("cache=direct: requests would have to be multiples of {offset} bytes");
        return Err(Error::new(::disk::Errno::NOTSUP, why));
    }
    Ok((memory.max(1) as usize, offset))
}

impl Open {
    /// The ring, where there can be one.
    fn ring(&self) -> Option<&Arc<Ring>> {
        self.ring.get_or_init(|| Ring::over(self.fd.as_fd()).ok().map(Arc::new)).as_ref()
    }

    /// The runs of data and holes, as the file system tells them. Space that is reserved but was never written
    /// counts as a hole there.
    fn extents(&self, range: Range, limit: usize) -> Result<Extents> {
        let (mut extents, mut at, end) = (Extents::new(), range.start, range.end());
        while at < end && extents.len() <= limit {
            let known = *self.data_run();
            if known.start <= at && at < known.end() {
                extents.push(known.end().min(end) - at, Kind::DATA);
                at = known.end();
                continue;
            }
            let data = match seek(&self.fd, SeekFrom::Data(at)) {
                Ok(data) => data.clamp(at, end),
                Err(Errno::NXIO) => end, // no data from here on
                Err(e) => return Err(e.into()),
            };
            extents.push(data - at, Kind::HOLE);
            at = data;
            if at < end {
                let hole = match seek(&self.fd, SeekFrom::Hole(at)) {
                    // A hole here already: somebody is punching at this moment.
                    Ok(hole) if hole == at => (at + 1).next_multiple_of(512),
                    Ok(hole) => hole,
                    Err(Errno::NXIO) => end,
                    Err(e) => return Err(e.into()),
                };
                *self.data_run() = Range::new(at, hole.saturating_sub(at));
            }
        }
        Ok(extents)
    }

    fn data_run(&self) -> std::sync::MutexGuard<'_, Range> {
        self.data_run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A part of the file was given up: what was known of its data may be wrong.
    pub(super) fn forget_data_run(&self) {
        *self.data_run() = Range::new(0, 0);
    }

    /// Remembers that the file system cannot do something.
    pub(super) fn refused(flag: &AtomicBool, e: Errno) -> bool {
        let refused = matches!(e, Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV);
        if refused {
            flag.store(false, Relaxed);
        }
        refused
    }
}
