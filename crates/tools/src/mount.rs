//! `mount`: a disk over NBD as a file.
//!
//! `options` is the command line, `place` where the file appears. The crate `fuser` mounts; from then on `workers` take the
//! kernel's requests, which `protocol` reads, and `file_system` answers them.

mod ahead;
mod file_system;
mod file_system_options;
mod options;
mod place;
mod protocol;
mod workers;

use crate::command_line::{self};
use anyhow::{Context, Result};
use client::blocking::Client;
use file_system::{FileSystem, LONGEST, Settings};
use file_system_options::Fuse;
use fuser::{Config, InitFlags, KernelConfig, MountOption, Session, SessionACL};
use options::{Options, Server};
use place::Place;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use std::{
    ffi::OsString,
    fs, io,
    os::fd::AsFd,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};
use workers::Workers;

pub use options::command;

/// So long the kernel may believe what it was told of the file.
const BELIEVE: Duration = Duration::from_secs(1);
/// So many of the kernel's own requests (read-ahead, for one) are under way at a time.
const BACKGROUND: u16 = 64;

/// Runs the tool. The first argument is the name that it was started under.
pub fn main(args: Vec<OsString>) -> ExitCode {
    command_line::run(args, "diskpipe mount", command(), |invocation, options: Options| {
        if options.fuse_help {
            return command_line::print(file_system_options::HELP);
        }
        match (options.server(invocation), options.fuse()) {
            (Ok(server), Ok(fuse)) => run(&options, server, fuse).map(|()| ExitCode::SUCCESS),
            (Err(why), _) | (_, Err(why)) => Ok(invocation.usage(&why)),
        }
    })
}

fn run(options: &Options, server: Server, fuse: Fuse) -> Result<()> {
    let tell = |what: std::fmt::Arguments<'_>| {
        if options.verbose || fuse.debug {
            eprintln!("mount: {what}");
        }
    };
    let place = Place::find(options.mount_point())?;
    // A server that was started for this ends after the disk is closed.
    let (connector, child) = server.connector(options.connections)?;
    let disk = Client::open(&connector)?;
    let read_only = options.readonly || fuse.read_only || !disk.facts().write;
    tell(format_args!("{} bytes, {} connections", disk.size(), disk.disk().connections()));

    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(fuse.source.unwrap_or_else(|| "nbd".into())),
        // (As `Subtype` it is dropped where no `fusermount3` is needed.)
        MountOption::CUSTOM(format!("subtype={}", fuse.subtype.as_deref().unwrap_or("diskpipe"))),
        if read_only { MountOption::RO } else { MountOption::RW },
    ];
    config.mount_options.extend(fuse.kernel);
    if fuse.auto_unmount {
        config.mount_options.push(MountOption::AutoUnmount);
    }
    // For the kernel, the process that unmounts after us is somebody else.
    let owner_and_root = fuse.allow_root || (fuse.auto_unmount && !fuse.allow_other);
    config.acl = match (fuse.allow_other, owner_and_root) {
        (true, _) => SessionACL::All,
        (_, true) => SessionACL::RootAndOwner,
        _ => SessionACL::Owner,
    };
    let can_map = Arc::new(AtomicBool::new(false));
    let mut session = Session::new(Handshake { can_map: can_map.clone() }, &place.mount_point, &config)
        .with_context(|| format!("cannot mount over {}", place.mount_point.display()))?;
    tell(format_args!("mounted over {}", place.mount_point.display()));
    let settings = Settings {
        name: place.name.clone(),
        read_only,
        keep_cache: fuse.keep_cache,
        // A file that cannot be mapped would be none to some programs.
        direct: fuse.direct || (!fuse.keep_cache && can_map.load(Relaxed)),
        user: fuse.user.unwrap_or_else(|| rustix::process::getuid().as_raw()),
        umask: fuse.umask,
        believe: fuse.believe.unwrap_or(BELIEVE),
        group: fuse.group.unwrap_or_else(|| rustix::process::getgid().as_raw()),
    };
    let file_system = FileSystem::new(disk, settings);

    let mut unmounter = session.unmount_callable();
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).context("cannot wait for signals")?;
    let stop = signals.handle();
    let waiting = thread::spawn(move || {
        for _ in &mut signals {
            // While it is in use it stays; the next signal tries again.
            let _ = unmounter.unmount();
        }
    });
    if let Some(file) = &options.pidfile {
        fs::write(file, format!("{}\n", std::process::id())).with_context(|| file.display().to_string())?;
    }
    let only = owner_and_root.then(|| rustix::process::geteuid().as_raw());
    let ended = Workers::new(session.as_fd(), &file_system, only, options.single).run();
    stop.close();
    let _ = waiting.join(); // it cannot panic
    if let Some(file) = &options.pidfile {
        let _ = fs::remove_file(file); // somebody may have done so
    }
    drop(session); // it unmounts what is still mounted
    let closed = close(file_system.into_disk(), read_only);
    drop((connector, child));
    ended.context("the kernel’s side of the mount broke")?;
    closed
}

/// Nothing that was written is lost with the connection.
fn close(disk: Client, read_only: bool) -> Result<()> {
    if !read_only && disk.facts().flush {
        disk.flush().context("flushing the disk")?;
    }
    Ok(disk.close()?)
}

/// What is agreed on with the kernel when it mounts; requests go another way.
struct Handshake {
    /// Whether files that pass the kernel's cache by can be mapped all the same.
    can_map: Arc<AtomicBool>,
}

impl fuser::Filesystem for Handshake {
    fn init(&mut self, _: &fuser::Request, config: &mut KernelConfig) -> io::Result<()> {
        let _ = config.set_max_write(LONGEST); // within what it takes
        let _ = config.set_max_background(BACKGROUND);
        // What this kernel does not know is not asked for.
        // `O_TRUNC` comes to nothing, as on a block device, so that `cp` and the shell's `>` can fill the disk: unless it is
        // left to us, the kernel asks for the size zero before it opens the file.
        let wishes =
            [InitFlags::FUSE_ASYNC_DIO, InitFlags::FUSE_PARALLEL_DIROPS, InitFlags::FUSE_ATOMIC_O_TRUNC];
        for wish in wishes {
            let _ = config.add_capabilities(wish);
        }
        let can_map = config.add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP).is_ok();
        self.can_map.store(can_map, Relaxed);
        Ok(())
    }
}
