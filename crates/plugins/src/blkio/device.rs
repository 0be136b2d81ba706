//! A device whose queues are set up: what it can do, its memory, and whether it is still there.

use super::{
    Driver,
    queue::{CHUNK, Chunks, Handle, Queue},
};
use ::disk::{Blocks, Errno, Error, Facts, Result, shared::SharedMemory};
use blkio::{Blkio, Blkioq, MemoryRegion};
use rustix::fs::{MemfdFlags, memfd_create};
use std::{
    fs::File,
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex, PoisonError, TryLockError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// Chunks of the region for all queues together, but for each so many at least and at most.
const CHUNKS: usize = 1024;
const LEAST: usize = 16;
const MOST: usize = 128;
/// One virtio request takes a 32-bit number of sectors, and kernels take no more than this well.
const LARGEST_STEP: u64 = 1 << 30;

/// libblkio's error as ours.
pub(super) fn error(e: &blkio::Error) -> Error {
    let errno = Errno::from_raw(e.errno().raw_os_error());
    let mut message = e.message().to_owned();
    if let Some(cut) = message.find(" (os error") {
        message.truncate(cut);
    }
    Error::new(errno, message)
}

/// A device that clients have open.
pub(super) struct Device {
    pub(super) facts: Facts,
    pub(super) limits: Limits,
    driver: Driver,
    queues: Vec<Handle>,
    next: AtomicUsize,
    /// Asked only whether the other end is still there; its end closes the device.
    blkio: Mutex<Option<Blkio>>,
    /// What the device reaches, mapped by it until it is closed.
    _region: Option<(Arc<SharedMemory>, File)>,
}

/// How requests must be cut.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Requests go through chunks of at most this many bytes; `None`: in buffers of any size.
    pub(super) chunk: Option<u64>,
    /// The addresses of buffers are multiples of this.
    pub(super) buffer_alignment: usize,
    /// The most that is zeroed at once ...
    pub(super) zero: u64,
    /// ... and discarded; and what is discarded lies at multiples of this, and is a multiple of it ...
    pub(super) discard: u64,
    pub(super) discard_alignment: u64,
    /// ... but for this offset.
    pub(super) discard_offset: u64,
}

impl Device {
    /// Sets the queues up. In the final process only.
    pub(super) fn start(driver: Driver, mut blkio: Blkio, read_only: bool) -> Result<Device> {
        let number = |blkio: &Blkio, name: &str| -> Result<u64> {
            let text = blkio.get_str(name).map_err(|e| error(&e).context(name))?;
            text.parse().map_err(|_| Error::io(format!("the device says {name} is {text}")))
        };
        // What has no such property is as if it said nothing.
        let optional = |blkio: &Blkio, name: &str| number(blkio, name).unwrap_or(0);
        let alignment = u32::try_from(number(&blkio, "request-alignment")?.max(1)).unwrap_or(u32::MAX);
        if !alignment.is_power_of_two() || alignment > 64 << 10 {
            return Err(Error::io(format!("the device wants requests in multiples of {alignment} bytes")));
        }
        let capacity = number(&blkio, "capacity")?;
        if !capacity.is_multiple_of(alignment.into()) {
            let why =
                format!("its size of {capacity} is not a multiple of {alignment} bytes, as requests must be");
            return Err(Error::invalid(why));
        }
        let queues = blkio.start().map_err(|e| error(&e))?.queues;
        let needs_region = blkio.get_bool("needs-mem-regions").map_err(|e| error(&e))?;
        let preferred = optional(&blkio, "optimal-io-alignment").max(optional(&blkio, "optimal-io-size"));
        let preferred = u32::try_from(preferred.next_power_of_two().clamp(4096, 32 << 20)).unwrap_or(4096);
        let fast_zero = driver == Driver::IoUring;
        let facts = Facts {
            blocks: Blocks { minimum: alignment, preferred: preferred.max(alignment), maximum: u32::MAX },
            write: !read_only,
            flush: !read_only,
            fua: !read_only,
            trim: !read_only,
            zero: !read_only,
            fast_zero: !read_only && fast_zero,
            ..Facts::read_only(capacity)
        };
        let limit = |name: &str, unlimited: u64| match optional(&blkio, name) {
            0 => unlimited,
            limit => (limit / u64::from(alignment) * u64::from(alignment)).max(alignment.into()),
        };
        let unlimited = if needs_region { LARGEST_STEP } else { u64::MAX };
        let step = limit("max-transfer", u64::MAX).min(limit("max-segment-len", u64::MAX));
        let limits = Limits {
            chunk: (needs_region || step < u64::MAX).then_some(step.min(CHUNK as u64)),
            buffer_alignment: optional(&blkio, "buf-alignment").max(1) as usize,
            zero: limit("max-write-zeroes-len", unlimited).min(unlimited),
            discard: limit("max-discard-len", unlimited).min(unlimited),
            discard_alignment: optional(&blkio, "discard-alignment").max(alignment.into()),
            discard_offset: optional(&blkio, "discard-alignment-offset"),
        };
        let region = match limits.chunk {
            Some(_) => Some(region(&mut blkio, queues.len())?),
            None => None,
        };
        let memory = region.as_ref().map(|(memory, _)| memory);
        // A virtio request takes three descriptors: for what it is, where its data is, and what came of it.
        let depth = optional(&blkio, "num-entries").max(optional(&blkio, "queue-size") / 3) as usize;
        let queues = handles(queues, depth, memory)?;
        let blkio = Mutex::new(Some(blkio));
        Ok(Device { facts, limits, driver, queues, next: AtomicUsize::new(0), blkio, _region: region })
    }

    /// The queue for a client that comes now.
    pub(super) fn queue(&self) -> &Handle {
        &self.queues[self.next.fetch_add(1, Relaxed) % self.queues.len()]
    }

    /// Whether it works, as far as is known.
    pub(super) fn is_alive(&self) -> bool {
        self.queues.iter().all(|handle| handle.queue.is_alive())
    }

    /// A request has waited for long: sees to it that the device knows of it, and whether there still is a device.
    pub(super) async fn look_after(self: &Arc<Self>) {
        self.queues.iter().for_each(|handle| handle.queue.turn());
        self.look_whether_it_is_there().await;
    }

    /// A vhost-user back end that has gone leaves its rings as they were. Only its socket tells.
    pub(super) async fn look_whether_it_is_there(self: &Arc<Self>) {
        if self.driver != Driver::VhostUser {
            return;
        }
        let device = self.clone();
        let gone = reactor::unblock(move || match device.blkio.try_lock() {
            Ok(blkio) => blkio.as_ref().is_some_and(|blkio| blkio.get_u64("capacity").is_err()),
            Err(TryLockError::WouldBlock) => false, // somebody else is asking
            Err(TryLockError::Poisoned(_)) => true,
        });
        if gone.await.unwrap_or(true) && self.is_alive() {
            tracing::error!(target: "diskpipe", "blkio: the vhost-user back end has gone away");
            self.queues.iter().for_each(|handle| {
                handle.queue.fail(Error::io("the vhost-user back end has gone away"));
            });
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Loops may still know the queues, so they are closed rather than dropped; and all before the device.
        self.queues.iter().for_each(|handle| handle.queue.close());
        self.blkio.get_mut().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Memory that the device reaches, for all queues.
fn region(blkio: &mut Blkio, queues: usize) -> Result<(Arc<SharedMemory>, File)> {
    let len = per_queue(queues) * queues * CHUNK;
    let file = File::from(memfd_create("diskpipe-blkio", MemfdFlags::CLOEXEC)?);
    file.set_len(len as u64)?;
    let memory = SharedMemory::map_file(&file, 0, len)?;
    let (start, _) = memory.lend(0, len).as_raw();
    let region =
        MemoryRegion { addr: start as usize, iova: 0, len, fd: file.as_raw_fd(), fd_offset: 0, flags: 0 };
    blkio.map_mem_region(&region).map_err(|e| error(&e).context("sharing memory with the device"))?;
    Ok((memory, file))
}

fn per_queue(queues: usize) -> usize {
    (CHUNKS / queues.max(1)).clamp(LEAST, MOST)
}

fn handles(queues: Vec<Blkioq>, depth: usize, memory: Option<&Arc<SharedMemory>>) -> Result<Vec<Handle>> {
    let each = per_queue(queues.len());
    let of = |(i, queue): (usize, Blkioq)| {
        // Taken from the end: those at the front are used, and so in the processor's cache, most often.
        let free = || (i * each..(i + 1) * each).rev().map(|chunk| chunk * CHUNK).collect();
        let chunks = memory.map(|memory| Chunks { memory: memory.clone(), free: free() });
        Queue::new(queue, depth, chunks).map(Handle::new)
    };
    queues.into_iter().enumerate().map(of).collect()
}
