//! `resize`: changes the size of an export, or shows its changes.

use crate::command_line;
use anyhow::{Result, bail};
use clap::{CommandFactory, Parser};
use client::{Connector, RemoteDisk};
use std::{ffi::OsString, process::ExitCode};

/// Change the size of what an NBD server serves.
#[derive(Parser, Debug)]
#[command(
    name = "resize",
    infer_long_args = true,
    args_override_self = true,
    disable_version_flag = true,
    bin_name = "diskpipe resize",
    after_help = "SERVER is NBD-URI | [ COMMAND ARGUMENT... ]"
)]
struct Options {
    /// Change nothing: write the size in bytes, and again whenever it changes, until the server ends.
    #[arg(long)]
    watch: bool,

    /// The server.
    #[arg(value_name = "SERVER")]
    server: OsString,

    /// The new size, such as 512, 64K or 1M.
    #[arg(value_name = "SIZE", value_parser = command_line::size, required_unless_present = "watch", conflicts_with = "watch")]
    size: Option<u64>,
}

/// The options, for manual pages and completions.
pub fn command() -> clap::Command {
    Options::command()
}

/// Runs the tool. The first argument is the name that it was started under.
pub fn main(args: Vec<OsString>) -> ExitCode {
    command_line::run(args, "diskpipe resize", command(), |invocation, options: Options| {
        let mut connector = invocation.word(options.server).connector()?;
        // One connection is one client: it can shrink a disk that no other client uses.
        connector.options.connections = 1;
        match options.size {
            Some(size) => resize(&connector, size)?,
            None => watch(&connector)?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn resize(connector: &Connector, size: u64) -> Result<()> {
    let disk = connector.open()?;
    let is = reactor::block_on(disk.resize(size))?;
    reactor::block_on(disk.disconnect())?;
    if is != size {
        bail!("the server made it {is} bytes");
    }
    Ok(())
}

fn watch(connector: &Connector) -> Result<()> {
    let disk: RemoteDisk = connector.open()?;
    let mut sizes = disk.watch_size()?;
    loop {
        match sizes.wait() {
            Ok(size) => drop(command_line::print(&format!("{size}\n"))?),
            Err(e) if e.errno() == disk::Errno::SHUTDOWN => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_given_or_changes_are_watched() {
        let parse = |args: &[&str]| Options::try_parse_from([&["resize"], args].concat()).ok();
        assert_eq!(parse(&["nbd://x", "2K"]).unwrap().size, Some(2048));
        assert!(parse(&["--watch", "nbd://x"]).unwrap().watch);
        for bad in [&["nbd://x"][..], &["--watch", "nbd://x", "2K"], &["--watch"], &[], &["x", "1", "2"]] {
            assert!(parse(bad).is_none(), "{bad:?}");
        }
    }
}
