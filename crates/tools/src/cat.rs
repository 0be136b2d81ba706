//! `cat`: files in the file system on a disk, to standard output.

pub(crate) mod out;

use crate::{
    command_line::{self, Invocation},
    volume::{self, Disk},
};
use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};
use inspect::{content, path};
use out::Out;
use std::{ffi::OsString, os::unix::ffi::OsStrExt, process::ExitCode};

/// Write files in the file system on a disk to standard output.
#[derive(Parser, Debug)]
#[command(
    name = "cat",
    infer_long_args = true,
    args_override_self = true,
    disable_version_flag = true,
    bin_name = "diskpipe cat",
    after_help = volume::DISKS
)]
struct Options {
    #[command(flatten)]
    volume: volume::Choice,

    /// The disk.
    #[arg(value_name = "DISK")]
    disk: OsString,

    /// The files, by their paths in the file system.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<OsString>,
}

/// The options, for manual pages and completions.
pub fn command() -> clap::Command {
    Options::command()
}

/// Runs the tool. The first argument is the name that it was started under.
pub fn main(args: Vec<OsString>) -> ExitCode {
    command_line::run(args, "diskpipe cat", command(), run)
}

fn run(invocation: &Invocation, options: Options) -> Result<ExitCode> {
    let disk = Disk::open(invocation, options.disk, &options.volume)?;
    let file_system = disk.file_system()?;
    let mut out = Out::standard().context("standard output")?;
    let mut code = ExitCode::SUCCESS;
    for path in &options.paths {
        // A file that cannot be read does not keep the others back.
        let shown = path.display();
        match path::resolve(&*file_system, path.as_bytes(), true) {
            Ok(found) => {
                let mut cannot_write = None;
                let read = content::read(&*file_system, &found.file, &mut |_, data| {
                    out.write(&data).map_err(|e| {
                        let for_reader = disk::Error::from(disk::Errno::IO);
                        cannot_write = Some(e);
                        for_reader
                    })
                });
                if let Some(e) = cannot_write {
                    return Err(e).context("writing to standard output");
                }
                if let Err(e) = read {
                    code = invocation.failed(&anyhow::Error::new(e).context(shown.to_string()));
                }
            }
            Err(e) => code = invocation.failed(&anyhow::Error::new(e).context(shown.to_string())),
        }
    }
    out.end().context("writing to standard output")?;
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_and_files_are_needed() {
        let parse = |args: &[&str]| Options::try_parse_from([&["cat"], args].concat()).ok();
        assert_eq!(parse(&["disk", "a", "b"]).unwrap().paths.len(), 2);
        assert!(parse(&["disk"]).is_none() && parse(&["--partition=two", "disk", "a"]).is_none());
        assert!(parse(&["--sector-size=4096", "--partition", "p2", "disk", "a"]).is_some());
    }
}
