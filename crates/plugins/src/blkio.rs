//! Disks that libblkio's drivers reach: files through io_uring, NVMe, vhost-user, vDPA and VFIO.
//!
//! libblkio's drivers are the crate `blkio`. Here are the parameters, which are its properties, and when a device is
//! opened and closed is in `backend.rs`; requests go through `disk.rs` to `queue.rs`.

#[cfg(feature = "blkio")]
mod backend;
#[cfg(feature = "blkio")]
mod device;
#[cfg(feature = "blkio")]
mod disk;
#[cfg(feature = "blkio")]
#[allow(unsafe_code, reason = "completions are filled in by the drivers")]
pub(crate) mod queue;

use ::disk::{Backend, Error, Plugin, Result};
use params::{Choice, Params};
use std::path::PathBuf;

/// Serve a disk through a driver of libblkio: io_uring, NVMe, vhost-user, vDPA or VFIO.
#[derive(Params)]
pub(crate) struct Blkio {
    /// The driver.
    #[param(magic, placeholder = "DRIVER")]
    driver: Driver,
    /// What the driver opens: a file or block device (io_uring), a character device such as `/dev/ng0n1` (nvme-io_uring) or
    /// `/dev/vhost-vdpa-0` (virtio-blk-vhost-vdpa), the directory of a PCI device in sysfs (virtio-blk-vfio-pci) or the
    /// Unix socket of a back end (virtio-blk-vhost-user).
    path: Option<PathBuf>,
    /// In place of `path`, what is open as this file descriptor (not for virtio-blk-vfio-pci and
    /// virtio-blk-vhost-user).
    fd: Option<u16>,
    /// Go past the page cache (io_uring).
    direct: Option<bool>,
    /// Only read. By default a device that cannot be written is served read-only.
    #[param(alias = "readonly")]
    read_only: Option<bool>,
    /// How many queues there are; clients share them.
    num_queues: Option<u32>,
    /// How many further queues are set up for polling. They are not used.
    num_poll_queues: Option<u32>,
    /// How many requests fit into a queue of io_uring (io_uring, nvme-io_uring).
    num_entries: Option<u32>,
    /// How many descriptors a queue of virtio has: a power of two, at least 4 (all virtio drivers).
    queue_size: Option<u32>,
    /// Print this property once the device is open, among the messages that `--verbose` shows; once for each.
    #[param(placeholder = "PROPERTY")]
    get: Vec<String>,
}

/// libblkio's drivers.
#[derive(Clone, Copy, Choice, PartialEq, Eq, Debug)]
enum Driver {
    #[choice(name = "io_uring")]
    IoUring,
    #[choice(name = "nvme-io_uring")]
    NvmeIoUring,
    #[choice(name = "virtio-blk-vfio-pci")]
    VfioPci,
    #[choice(name = "virtio-blk-vhost-user")]
    VhostUser,
    #[choice(name = "virtio-blk-vhost-vdpa")]
    VhostVdpa,
}

impl Driver {
    /// Whether a property that can be set is one of this driver's.
    fn has(self, property: &str) -> bool {
        let uring = matches!(self, Driver::IoUring | Driver::NvmeIoUring);
        match property {
            "fd" => uring || self == Driver::VhostVdpa,
            "direct" => self == Driver::IoUring,
            "num-entries" => uring,
            "queue-size" => !uring,
            _ => true,
        }
    }
}

/// What the parameters say, in libblkio's words.
#[derive(Debug)]
#[cfg_attr(not(feature = "blkio"), expect(dead_code, reason = "only the drivers read it"))]
struct Settings {
    driver: Driver,
    path: PathBuf,
    /// As the user named it: `path=...` or `fd=...`.
    shown: String,
    /// `None`: as the device will have it.
    read_only: Option<bool>,
    /// To be set before the device is connected ...
    before: Vec<(&'static str, String)>,
    /// ... and afterwards.
    after: Vec<(&'static str, String)>,
    get: Vec<String>,
}

impl Settings {
    /// Checks the parameters against each other.
    fn of(given: Blkio) -> Result<Settings> {
        let text = |value: &dyn ToString| Some(value.to_string());
        let before = [("direct", given.direct.as_ref().and_then(|v| text(v)))];
        let after = [
            ("num-queues", given.num_queues.as_ref().and_then(|v| text(v))),
            ("num-poll-queues", given.num_poll_queues.as_ref().and_then(|v| text(v))),
            ("num-entries", given.num_entries.as_ref().and_then(|v| text(v))),
            ("queue-size", given.queue_size.as_ref().and_then(|v| text(v))),
        ];
        let fd = ("fd", given.fd.as_ref().and_then(|v| text(v)));
        let driver = given.driver;
        let all = before.iter().chain(&after).chain([&fd]);
        let mut foreign = all.filter_map(|(name, value)| Some((*name, value.as_deref()?)));
        if let Some((name, value)) = foreign.find(|(name, _)| !driver.has(name)) {
            return Err(Error::invalid(format!("{name}={value}: the driver {driver} has no such property")));
        }
        if given.num_queues == Some(0) {
            return Err(Error::invalid("num-queues=0: at least one queue is needed"));
        }
        if let Some(size) = given.queue_size
            && !(4..=32768).contains(&size)
        {
            return Err(Error::invalid(format!("queue-size={size}: not a power of two from 4 to 32768")));
        }
        let mut read_only = given.read_only;
        let (path, shown) = match (given.path, given.fd) {
            (Some(path), None) => {
                let shown = format!("path={}", path.display());
                (path, shown)
            }
            (None, Some(fd)) => {
                // Opened anew under its name in /proc, so that a device can be opened more than once. What was
                // opened for reading stays so.
                if read_only.is_none() && crate::file::is_read_only(fd) {
                    read_only = Some(true);
                }
                (PathBuf::from(format!("/proc/self/fd/{fd}")), format!("fd={fd}"))
            }
            (None, None) => return Err(Error::invalid(format!("you must supply the path= of {driver}"))),
            (Some(_), Some(_)) => {
                return Err(Error::invalid("path= and fd= cannot be used at the same time"));
            }
        };
        let set = |list: &[(&'static str, Option<String>)]| {
            list.iter().filter_map(|(name, value)| Some((*name, value.clone()?))).collect()
        };
        Ok(Settings {
            driver,
            path,
            shown,
            read_only,
            before: set(&before),
            after: set(&after),
            get: given.get,
        })
    }
}

impl Plugin for Blkio {
    const NAME: &'static str = "blkio";
    const MANUAL: &'static str = include_str!("blkio.md");

    fn start(self) -> Result<impl Backend + 'static> {
        let settings = Settings::of(self)?;
        #[cfg(feature = "blkio")]
        return Ok(backend::BlkioBackend::new(settings));
        #[cfg(not(feature = "blkio"))]
        return Err::<crate::common::one_disk::OneDisk, _>(Error::new(
            ::disk::Errno::NOTSUP,
            format!("{}: this program was built without the cargo feature blkio", settings.driver),
        ));
    }
}

#[cfg(test)]
mod tests;
