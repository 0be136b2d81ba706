//! A local file or block device, or the files of a directory.

#[allow(unsafe_code, reason = "two ioctls: discarding and zeroing a part of a block device")]
mod device;
mod disk;
mod input;
mod output;
#[cfg(feature = "blkio")]
mod uring;
#[cfg(not(feature = "blkio"))]
#[path = "file/no_uring.rs"]
mod uring;

pub(crate) use self::disk::FileDisk;
use ::disk::{Backend, Client, Disk, Errno, Error, Export, Io, Plugin, Result, resize::Size};
use params::{Choice, Params};
use rustix::fs::{FileType, Mode, OFlags};
use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// Serve a local file or block device.
#[derive(Params)]
pub(crate) struct File {
    /// The file or block device to serve.
    #[param(magic)]
    file: Option<PathBuf>,
    /// Serve the files and block devices in this directory; the client's export name chooses one.
    #[param(placeholder = "DIRECTORY", alias = "directory")]
    dir: Option<PathBuf>,
    /// Serve the file that is open as this file descriptor.
    fd: Option<u16>,
    /// As `dir`, the directory being open as this file descriptor.
    dirfd: Option<u16>,
    /// Whether what is read and written may stay in the page cache (`none`: it is evicted soon), or goes past it
    /// (`direct`).
    #[param(default = "default")]
    cache: Cache,
    /// The same as `cache=none`.
    #[param(default = "false")]
    reduce_memory_pressure: bool,
    /// How the file will be read, as a hint to the kernel's read-ahead.
    #[param(default = "normal")]
    fadvise: Fadvise,
    /// Clients may change the size of the file (with the server's option `--resize`).
    #[param(default = "false")]
    resizable: bool,
    #[param(hidden)]
    rdelay: Option<String>,
    #[param(hidden)]
    wdelay: Option<String>,
}

/// What happens to the page cache.
#[derive(Clone, Copy, Choice, PartialEq, Eq)]
enum Cache {
    Default,
    None,
    Direct,
}

/// The order of reads.
#[derive(Clone, Copy, Choice, PartialEq, Eq)]
enum Fadvise {
    Normal,
    Random,
    Sequential,
}

/// How every file is opened.
#[derive(Clone, Copy)]
struct Manner {
    cache: Cache,
    fadvise: Fadvise,
}

impl Plugin for File {
    const NAME: &'static str = "file";
    const MANUAL: &'static str = include_str!("file.md");
    const DUMP: &'static [(&'static str, &'static str)] = &[
        ("file_blksszget", "yes"),
        ("file_blkzeroout", "yes"),
        ("file_falloc_fl_punch_hole", "yes"),
        ("file_falloc_fl_zero_range", "yes"),
    ];

    fn start(self) -> Result<impl Backend + 'static> {
        if self.rdelay.is_some() || self.wdelay.is_some() {
            return Err(Error::invalid("rdelay and wdelay are of the filter delay: add --filter=delay"));
        }
        let cache = match (self.cache, self.reduce_memory_pressure) {
            (cache, false) => cache,
            (Cache::Direct, true) => {
                return Err(Error::invalid("reduce-memory-pressure=true: not together with cache=direct"));
            }
            (_, true) => Cache::None,
        };
        if cache == Cache::Direct && self.resizable {
            return Err(Error::invalid("resizable=true: not together with cache=direct"));
        }
        // A descriptor is opened anew under its name in /proc, so that nobody's offset is shared.
        let proc = |fd: u16| PathBuf::from(format!("/proc/self/fd/{fd}"));
        let one = [("file", self.file), ("fd", self.fd.map(proc))];
        let many = [("dir", self.dir), ("dirfd", self.dirfd.map(proc))];
        let mut given: Vec<_> = one.into_iter().map(|(key, path)| (key, path, false)).collect();
        given.extend(many.into_iter().map(|(key, path)| (key, path, true)));
        given.retain(|(_, path, _)| path.is_some());
        let (key, path, is_dir) = match &mut given[..] {
            [] => {
                return Err(Error::invalid("you must supply the file= or dir= parameter (or fd= or dirfd=)"));
            }
            [(key, path, is_dir)] => (*key, path.take().unwrap_or_default(), *is_dir),
            [(a, ..), (b, ..), ..] => {
                return Err(Error::invalid(format!("{a}= and {b}= cannot be used at the same time")));
            }
        };
        let shown = format!("{key}={}", path.display());
        let found = std::fs::metadata(&path).map_err(|e| Error::from(e).context(&shown))?;
        match (is_dir, found.is_dir()) {
            (true, false) => return Err(Error::invalid(format!("{shown}: not a directory"))),
            (false, true) => {
                return Err(Error::invalid(format!(
                    "{shown}: a directory; use dir= to serve the files in it"
                )));
            }
            _ => {}
        }
        let read_only = self.fd.is_some_and(is_read_only);
        Ok(FileBackend {
            path,
            is_dir,
            read_only,
            manner: Manner { cache, fadvise: self.fadvise },
            sizes: self.resizable.then(Mutex::default),
        })
    }
}

struct FileBackend {
    path: PathBuf,
    is_dir: bool,
    read_only: bool,
    manner: Manner,
    /// The sizes of the files that are open, by device and inode; `None`: sizes do not change.
    sizes: Option<Mutex<Sizes>>,
}

type Sizes = HashMap<(u64, u64), Weak<Size>>;

impl FileBackend {
    /// `disk` with the size that all who have the same file open share, where sizes change.
    fn resizable(&self, disk: FileDisk) -> Result<Arc<dyn Disk>> {
        let (Some(sizes), Some(file)) = (&self.sizes, disk.identity()?) else { return Ok(Arc::new(disk)) };
        let mut sizes = sizes.lock().unwrap_or_else(PoisonError::into_inner);
        sizes.retain(|_, size| size.strong_count() > 0);
        let known = sizes.get(&file).and_then(Weak::upgrade);
        let size = known.unwrap_or_else(|| Size::new(disk.facts().size));
        sizes.insert(file, Arc::downgrade(&size));
        let change = disk.resizer();
        Ok(Arc::new(size.open(Arc::new(disk), change)))
    }

    fn open_now(&self, client: &Client<'_>) -> Result<Arc<dyn Disk>> {
        let mut path = self.path.clone();
        if self.is_dir {
            // A name with a slash would lead out of the directory.
            if matches!(client.export, "" | "." | "..") || client.export.contains(['/', '\0']) {
                let why = format!("{:?} is not the name of a file in {}", client.export, path.display());
                return Err(Error::new(Errno::NOENT, why));
            }
            path.push(client.export);
        }
        let read_only = client.read_only || self.read_only;
        let opened = open_file(&path, read_only, self.manner.cache == Cache::Direct);
        let (fd, writable) = opened.map_err(|e| e.context(path.display()))?;
        let disk = FileDisk::new(fd, writable, self.manner);
        disk.and_then(|disk| self.resizable(disk)).map_err(|e| e.context(path.display()))
    }
}

/// Whether a descriptor we were given is for reading only: then the file shall not be written, even if it could be.
pub(crate) fn is_read_only(fd: u16) -> bool {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok());
    flags.is_some_and(|flags| OFlags::from_bits_retain(flags) & OFlags::RWMODE == OFlags::RDONLY)
}

/// Opens a regular file or block device, for writing where that is possible.
fn open_file(path: &Path, read_only: bool, direct: bool) -> Result<(OwnedFd, bool)> {
    use rustix::io::Errno as E;
    // Without NONBLOCK, opening a pipe would wait for somebody at its other end.
    let mut flags = OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    flags.set(OFlags::DIRECT, direct);
    let open = |access| rustix::fs::open(path, flags | access, Mode::empty());
    let (fd, writable) = match if read_only { Err(E::ROFS) } else { open(OFlags::RDWR) } {
        Ok(fd) => (fd, true),
        Err(E::ACCESS | E::PERM | E::ROFS | E::TXTBSY) => (open(OFlags::RDONLY)?, false),
        Err(E::INVAL) if direct => {
            return Err(Error::new(Errno::NOTSUP, "cache=direct: not on this file system"));
        }
        Err(e) => return Err(e.into()),
    };
    match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
        FileType::RegularFile | FileType::BlockDevice => {
            // Requests to a file like that could be told to try again.
            rustix::fs::fcntl_setfl(&fd, rustix::fs::fcntl_getfl(&fd)?.difference(OFlags::NONBLOCK))?;
            Ok((fd, writable))
        }
        _ => Err(Error::invalid("neither a regular file nor a block device")),
    }
}

/// The file or block device of this name as a disk, for plugins that put several together.
///
/// # Errors
/// Those of the system, with the path.
pub(crate) fn open_path(path: &Path, read_only: bool) -> Result<Arc<dyn Disk>> {
    let disk = open_file(path, read_only, false).and_then(|(fd, writable)| FileDisk::open(fd, writable));
    disk.map(|disk| Arc::new(disk) as Arc<dyn Disk>).map_err(|e| e.context(path.display()))
}

/// Refuses a file that has another size than it had.
pub(crate) fn same_size(path: &Path, size: u64, before: u64) -> Result<()> {
    if size == before {
        return Ok(());
    }
    let why = format!("{}: {size} bytes now, but {before} when the server was started", path.display());
    Err(Error::io(why))
}

impl Backend for FileBackend {
    /// One file that cannot be opened is reported at the start.
    fn get_ready(&self) -> Result<()> {
        if self.is_dir {
            Ok(())
        } else {
            self.open_now(&Client { read_only: true, ..Client::default() }).map(drop)
        }
    }

    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.open_now(client).into()
    }

    fn exports<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Vec<Export>> {
        if !self.is_dir {
            return Io::ok(vec![Export::default()]);
        }
        list(&self.path).map_err(|e| Error::from(e).context(self.path.display())).into()
    }
}

/// The names of all regular files and block devices in a directory, links to such included.
fn list(dir: &Path) -> std::io::Result<Vec<Export>> {
    use std::os::unix::fs::FileTypeExt;
    let mut exports = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        // Names that are not UTF-8 cannot be asked for; links that lead nowhere cannot be opened.
        if let Ok(name) = entry.file_name().into_string()
            && let Ok(found) = std::fs::metadata(entry.path())
            && (found.is_file() || found.file_type().is_block_device())
        {
            exports.push(Export { name, description: None });
        }
    }
    exports.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(exports)
}

#[cfg(test)]
mod tests;
