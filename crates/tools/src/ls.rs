//! `ls`: what is in the directories of the file system on a disk; or which partitions it has.

mod listing;
mod partitions;

use crate::{
    command_line::{self, Invocation},
    info::json::quote,
    volume::{self, Disk},
};
use anyhow::{Context, Result};
use clap::{ArgAction, CommandFactory, Parser};
use inspect::{Entry, File, FileSystem, Kind, path};
pub(crate) use listing::human;
use listing::{Listing, Row};
use std::{
    collections::HashSet,
    ffi::OsString,
    io::{self, BufWriter, IsTerminal, Write},
    ops::ControlFlow,
    os::unix::ffi::OsStrExt,
    process::ExitCode,
};

/// Directories that lie deeper are not gone into: what has so many is damaged.
pub(crate) const DEEPEST: usize = 500;
/// So many files are announced at once.
const EXPECTED: usize = 1024;

/// List directories of the file system on a disk, or its partitions.
#[derive(Parser, Debug)]
#[command(
    name = "ls",
    infer_long_args = true,
    args_override_self = true,
    disable_version_flag = true,
    disable_help_flag = true,
    bin_name = "diskpipe ls",
    after_help = volume::DISKS
)]
struct Options {
    /// Show names that begin with a dot, too.
    #[arg(short, long, visible_short_alias = 'A')]
    all: bool,

    /// Show directories themselves instead of what is in them.
    #[arg(short, long)]
    directory: bool,

    /// Print help.
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,

    /// Show sizes with a suffix such as K, M or G.
    #[arg(short, long)]
    human_readable: bool,

    /// Write JSON, with all that is known.
    #[arg(long)]
    json: bool,

    /// Show mode, links, owner, group, size and time as well, and where links lead.
    #[arg(short, long)]
    long: bool,

    /// One name per line, which it is anyway.
    #[arg(short = '1')]
    one: bool,

    /// Go into directories, and those in them.
    #[arg(short = 'R', long)]
    recursive: bool,

    #[command(flatten)]
    volume: volume::Choice,

    /// The disk.
    #[arg(value_name = "DISK")]
    disk: OsString,

    /// The directories or files, by their paths in the file system.
    #[arg(value_name = "PATH")]
    paths: Vec<OsString>,
}

/// The options, for manual pages and completions.
pub fn command() -> clap::Command {
    Options::command()
}

/// Runs the tool. The first argument is the name that it was started under.
pub fn main(args: Vec<OsString>) -> ExitCode {
    command_line::run(args, "diskpipe ls", command(), run)
}

fn run(invocation: &Invocation, options: Options) -> Result<ExitCode> {
    let disk = Disk::open(invocation, options.disk.clone(), &options.volume)?;
    if let Some(table) = &disk.table
        && options.paths.is_empty()
        && !disk.is_chosen()
        && table.partitions.len() != 1
    {
        return command_line::print(&partitions::show(&disk, table, options.json, options.human_readable));
    }
    let file_system = disk.file_system()?;
    let out = BufWriter::new(io::stdout().lock());
    let mut listing = Listing {
        out,
        json: options.json,
        long: options.long,
        human: options.human_readable,
        // What a hostile name could tell a terminal is not said.
        plain: io::stdout().is_terminal(),
        begun: false,
    };
    let mut it = Ls {
        invocation,
        options: &options,
        file_system: &*file_system,
        code: ExitCode::SUCCESS,
        seen: HashSet::new(),
    };
    let listed = it.list(&mut listing).and_then(|()| Ok(listing.end()?));
    listed.context("writing to standard output")?;
    Ok(it.code)
}

struct Ls<'a> {
    invocation: &'a Invocation,
    options: &'a Options,
    file_system: &'a dyn FileSystem,
    code: ExitCode,
    /// Directories that were listed on the way: in a sound file system each is in one place.
    seen: HashSet<u64>,
}

impl Ls<'_> {
    fn list<W: Write>(&mut self, listing: &mut Listing<W>) -> Result<()> {
        let paths: Vec<&[u8]> = match &self.options.paths[..] {
            [] => vec![b"/"],
            paths => paths.iter().map(|path| path.as_bytes()).collect(),
        };
        let (mut files, mut directories) = (Vec::new(), Vec::new());
        for path in &paths {
            // With -l a link is shown and not followed, as ls does; and what is behind it, without.
            let follow = !self.options.long && !self.options.directory || path.ends_with(b"/");
            match path::resolve(self.file_system, path, follow) {
                Ok(found) if found.file.is_directory() && !self.options.directory => {
                    directories.push((path.to_vec(), found.file));
                }
                Ok(found) => files.push(self.row(path.to_vec(), found.file)),
                Err(e) => self.failed(path, e),
            }
        }
        let heading = paths.len() > 1 || self.options.recursive;
        if !files.is_empty() {
            listing.section(None, files)?;
        }
        for (path, directory) in directories {
            self.directory(listing, path, &directory, heading, 0)?;
        }
        Ok(())
    }

    fn directory<W: Write>(
        &mut self,
        listing: &mut Listing<W>,
        path: Vec<u8>,
        directory: &File,
        heading: bool,
        depth: usize,
    ) -> Result<()> {
        if self.options.recursive && (!self.seen.insert(directory.id) || depth > DEEPEST) {
            self.failed(
                &path,
                disk::Error::io(
                    "the directory is in several places, or too deep: the file system is damaged",
                ),
            );
            return Ok(());
        }
        let wants_all = self.options.long || self.options.recursive || self.options.json;
        let mut rows = Vec::new();
        let read = self.file_system.entries(directory, &mut |entry| {
            if self.options.all || !entry.name.starts_with(b".") {
                rows.push(entry);
            }
            Ok(ControlFlow::Continue(()))
        });
        if let Err(e) = read {
            self.failed(&path, e);
        }
        rows.sort_by_key(Entry::order);
        let mut shown = Vec::new();
        for (number, entry) in rows.iter().enumerate() {
            if !wants_all {
                shown.push(Row { name: entry.name.clone(), file: None, target: None });
                continue;
            }
            if number % EXPECTED == 0 {
                self.file_system.expect(&rows[number..rows.len().min(number + EXPECTED)]);
            }
            match self.file_system.file(entry) {
                Ok(file) => shown.push(self.row(entry.name.clone(), file)),
                Err(e) => self.failed(&joined(&path, &entry.name), e),
            }
        }
        shown.sort_by(|a, b| a.name.cmp(&b.name));
        let inner: Vec<(Vec<u8>, File)> = match self.options.recursive {
            true => shown
                .iter()
                .filter_map(|row| Some((joined(&path, &row.name), row.file.clone()?)))
                .filter(|(_, file)| file.is_directory())
                .collect(),
            false => Vec::new(),
        };
        listing.section(heading.then_some(&path[..]).or(self.options.json.then_some(&path[..])), shown)?;
        for (path, directory) in inner {
            self.directory(listing, path, &directory, heading, depth + 1)?;
        }
        Ok(())
    }

    /// A line, with where a link leads.
    fn row(&mut self, name: Vec<u8>, file: File) -> Row {
        let wanted = file.kind == Kind::Link && (self.options.long || self.options.json);
        let target = match wanted.then(|| self.file_system.target(&file)).transpose() {
            Ok(target) => target,
            Err(e) => {
                self.failed(&name, e);
                None
            }
        };
        Row { name, file: Some(file), target }
    }

    fn failed(&mut self, path: &[u8], why: disk::Error) {
        let path = quoted(path);
        self.code = self.invocation.failed(&anyhow::Error::new(why).context(path));
    }
}

/// A path in a message.
pub(crate) fn quoted(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    if text.chars().any(char::is_control) { quote(&text) } else { text.into_owned() }
}

/// A path with one more name.
pub(crate) fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if path.ends_with(b"/") { b"" } else { b"/" };
    [path, slash, name].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h_is_for_sizes_and_help_has_its_long_name() {
        let parse = |args: &[&str]| Options::try_parse_from([&["ls"], args].concat());
        assert!(parse(&["-lah", "disk", "/"]).unwrap().human_readable);
        assert!(parse(&["-A", "disk"]).unwrap().all);
        assert_eq!(parse(&["--help"]).unwrap_err().kind(), clap::error::ErrorKind::DisplayHelp);
        assert!(parse(&[]).is_err());
    }

    #[test]
    fn names_that_could_drive_a_terminal_are_quoted() {
        assert_eq!(quoted(b"/plain name"), "/plain name");
        assert_eq!(quoted(b"/\x1b[2J"), "\"/\\u001b[2J\"");
        assert_eq!(joined(b"/", b"etc"), b"/etc");
        assert_eq!(joined(b"/etc", b"fstab"), b"/etc/fstab");
    }
}
