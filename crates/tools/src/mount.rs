//! `mount`: a disk over NBD as a file.
//!
//! `options` is the command line, `place` where the file appears, `file_system` answers the kernel.

mod file_system;
mod options;
mod place;

use crate::command_line::{self};
use anyhow::{Context, Result};
use client::RemoteDisk;
use disk::Disk;
use file_system::{FileSystem, Settings};
use fuser::{Config, MountOption, Session, SessionACL};
use options::{Options, Server};
use place::Place;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use std::{ffi::OsString, fs, process::ExitCode, sync::Arc, thread};

pub use options::command;

/// So many threads wait for the kernel. Each carries one request to the server at a time.
const THREADS: usize = 8;

/// Runs the tool. The first argument is the name that it was started under.
pub fn main(args: Vec<OsString>) -> ExitCode {
    command_line::run(args, "diskpipe mount", command(), |invocation, options: Options| {
        if options.fuse_help {
            return command_line::print(options::FUSE_HELP);
        }
        match (options.server(invocation), options.fuse()) {
            (Ok(server), Ok(fuse)) => run(&options, server, fuse).map(|()| ExitCode::SUCCESS),
            (Err(why), _) | (_, Err(why)) => Ok(invocation.usage(&why)),
        }
    })
}

fn run(options: &Options, server: Server, fuse: options::Fuse) -> Result<()> {
    let tell = |what: std::fmt::Arguments<'_>| {
        if options.verbose {
            eprintln!("mount: {what}");
        }
    };
    let place = Place::find(options.mount_point())?;
    // A server that was started for this ends after the disk is closed.
    let (connector, child) = server.connector(options.connections)?;
    let disk: Arc<RemoteDisk> = Arc::new(connector.open()?);
    let read_only = options.readonly || fuse.read_only || !disk.facts().write;
    tell(format_args!("{} bytes, {} connections", disk.size(), disk.connections()));

    let settings = Settings {
        name: place.name.clone(),
        read_only,
        keep_cache: fuse.keep_cache,
        direct: fuse.direct,
        user: fuse.user.unwrap_or_else(|| rustix::process::getuid().as_raw()),
        group: fuse.group.unwrap_or_else(|| rustix::process::getgid().as_raw()),
    };
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(fuse.source.unwrap_or_else(|| "nbd".into())),
        MountOption::Subtype("diskpipe".into()),
        if read_only { MountOption::RO } else { MountOption::RW },
    ];
    if fuse.default_permissions {
        config.mount_options.push(MountOption::DefaultPermissions);
    }
    config.acl = match (fuse.allow_other, fuse.allow_root) {
        (true, _) => SessionACL::All,
        (_, true) => SessionACL::RootAndOwner,
        _ => SessionACL::Owner,
    };
    config.n_threads = Some(if options.single { 1 } else { THREADS });
    config.clone_fd = !options.single;
    let mut session = Session::new(FileSystem::new(disk.clone(), settings), &place.mount_point, &config)
        .with_context(|| format!("cannot mount over {}", place.mount_point.display()))?;
    tell(format_args!("mounted over {}", place.mount_point.display()));

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
    let ended = session.run();
    stop.close();
    let _ = waiting.join(); // it cannot panic
    if let Some(file) = &options.pidfile {
        let _ = fs::remove_file(file); // somebody may have done so
    }
    let closed = close(&disk, read_only);
    drop((disk, connector, child));
    ended.context("the kernel’s side of the mount broke")?;
    closed
}

/// Nothing that was written is lost with the connection.
fn close(disk: &RemoteDisk, read_only: bool) -> Result<()> {
    if !read_only && disk.facts().flush {
        disk.flush().wait().context("flushing the disk")?;
    }
    Ok(reactor::block_on(disk.disconnect())?)
}
