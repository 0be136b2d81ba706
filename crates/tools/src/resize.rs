//! `resize`: changes the size of an export, or shows its changes.

use crate::command_line::Invocation;
use anyhow::{Context, Result, bail};
use clap::{CommandFactory, Parser};
use client::{Connector, RemoteDisk};
use params::{Size, Value};
use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

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
    #[arg(value_name = "SIZE", required_unless_present = "watch", conflicts_with = "watch")]
    size: Option<String>,
}

/// The options, for manual pages and completions.
pub fn command() -> clap::Command {
    Options::command()
}

/// Runs the tool. The first argument is the name that it was started under.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let invocation = match Invocation::new(args, "diskpipe resize") {
        Ok(invocation) => invocation,
        Err(code) => return code,
    };
    let options: Options = match invocation.parse(command()) {
        Ok(options) => options,
        Err(code) => return code,
    };
    let size = match options.size.as_deref().map(|text| (text, Size::from_text(text))) {
        None => None,
        Some((_, Ok(size))) => Some(size.bytes()),
        Some((text, Err(wrong))) => return invocation.usage(&format!("{text}: {}", wrong.0)),
    };
    let connector = invocation.word(options.server).connector().map_err(Into::into);
    let done = connector.and_then(|mut connector| {
        // One connection is one client: it can shrink a disk that no other client uses.
        connector.options.connections = 1;
        match size {
            Some(size) => resize(&connector, size),
            None => watch(&connector),
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => invocation.failed(&e),
    }
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
            Ok(size) => match writeln!(io::stdout(), "{size}").and_then(|()| io::stdout().flush()) {
                // A reader that had enough knows why.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                written => written.context("writing to standard output")?,
            },
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
        assert_eq!(parse(&["nbd://x", "2K"]).unwrap().size.as_deref(), Some("2K"));
        assert!(parse(&["--watch", "nbd://x"]).unwrap().watch);
        for bad in [&["nbd://x"][..], &["--watch", "nbd://x", "2K"], &["--watch"], &[], &["x", "1", "2"]] {
            assert!(parse(bad).is_none(), "{bad:?}");
        }
    }
}
