//! `cp`: files out of the file system on a disk, into a local directory.

mod place;

use crate::{
    command_line::{self, Invocation},
    ls::{DEEPEST, joined, quoted},
    volume::{self, Disk},
};
use anyhow::{Context, Result, bail};
use clap::{CommandFactory, Parser};
use inspect::{Entry, File, FileSystem, Kind, content, path};
use place::{Directory, Made};
use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    ops::ControlFlow,
    os::unix::ffi::OsStrExt,
    path::Path,
    process::ExitCode,
};

/// So many files are announced to the file system at once.
const EXPECTED: usize = 64;

/// Copy files out of the file system on a disk.
#[derive(Parser, Debug)]
#[command(
    name = "cp",
    infer_long_args = true,
    args_override_self = true,
    disable_version_flag = true,
    bin_name = "diskpipe cp",
    after_help = volume::DISKS
)]
struct Options {
    /// Copy directories and symbolic links as such, with permissions and times: as -r -p.
    #[arg(short, long)]
    archive: bool,

    /// Follow symbolic links everywhere. Without -r that is so anyway.
    #[arg(short = 'L', long)]
    dereference: bool,

    /// Keep permissions and times. Owners are not kept, nor the bits that let programs run as their owner.
    #[arg(short, long)]
    preserve: bool,

    /// Copy directories with all that is in them.
    #[arg(short, long, visible_short_alias = 'R')]
    recursive: bool,

    /// Say what is copied.
    #[arg(short, long)]
    verbose: bool,

    #[command(flatten)]
    volume: volume::Choice,

    /// The disk.
    #[arg(value_name = "DISK")]
    disk: OsString,

    /// The files, by their paths in the file system; and last a local file or directory.
    #[arg(value_names = ["PATH", "DESTINATION"], num_args = 2.., required = true)]
    words: Vec<OsString>,
}

/// The options, for manual pages and completions.
pub fn command() -> clap::Command {
    Options::command()
}

/// Runs the tool. The first argument is the name that it was started under.
pub fn main(args: Vec<OsString>) -> ExitCode {
    command_line::run(args, "diskpipe cp", command(), run)
}

fn run(invocation: &Invocation, mut options: Options) -> Result<ExitCode> {
    let destination = options.words.pop().unwrap_or_default();
    let paths = std::mem::take(&mut options.words);
    let into = Path::new(&destination);
    let is_directory = into.is_dir();
    if !is_directory && (paths.len() > 1 || destination.as_bytes().ends_with(b"/")) {
        bail!("{}: not a directory", destination.display());
    }
    let disk = Disk::open(invocation, options.disk.clone(), &options.volume)?;
    let file_system = disk.file_system()?;
    let mut cp = Cp {
        invocation,
        file_system: &*file_system,
        recursive: options.recursive || options.archive,
        keep_links: (options.recursive || options.archive) && !options.dereference,
        preserve: options.preserve || options.archive,
        verbose: options.verbose,
        code: ExitCode::SUCCESS,
        seen: HashSet::new(),
    };
    for path in &paths {
        let copied = match is_directory {
            true => cp.argument(path, into, None),
            false => {
                let parent = store::file::directory(into);
                let Some(name) = into.file_name() else { bail!("{}: not a name for a file", into.display()) };
                cp.argument(path, parent, Some(name))
            }
        };
        if let Err(e) = copied {
            cp.code = invocation.failed(&e);
        }
    }
    Ok(cp.code)
}

struct Cp<'a> {
    invocation: &'a Invocation,
    file_system: &'a dyn FileSystem,
    recursive: bool,
    keep_links: bool,
    preserve: bool,
    verbose: bool,
    code: ExitCode,
    /// Directories that were copied: in a sound file system each is in one place.
    seen: HashSet<u64>,
}

impl Cp<'_> {
    /// Copies what an argument names into a directory, under another name or its own.
    fn argument(&mut self, path: &OsStr, into: &Path, name: Option<&OsStr>) -> Result<()> {
        let shown = || quoted(path.as_bytes());
        let found = path::resolve(self.file_system, path.as_bytes(), !self.keep_links).with_context(shown)?;
        let directory = Directory::open(into).with_context(|| into.display().to_string())?;
        // The name that was asked for, not that of what a link leads to.
        let asked = path.as_bytes().rsplit(|b| *b == b'/').find(|name| !name.is_empty());
        let own = asked.filter(|name| !matches!(*name, b"." | b"..")).map(<[u8]>::to_vec);
        let own = own.or_else(|| found.names.last().cloned());
        match name.map(|name| name.as_bytes().to_vec()).or(own) {
            Some(name) => self.copy(&found.file, path.as_bytes(), &directory, &name, 0),
            // The root has no name: what is in it goes into the directory.
            None if self.recursive => self.inside(&found.file, path.as_bytes(), &directory, 0),
            None => bail!("{}: is a directory, which is copied with -r", shown()),
        }
    }

    /// Copies one file, or a directory with all that is in it.
    fn copy(&mut self, file: &File, path: &[u8], into: &Directory, name: &[u8], depth: usize) -> Result<()> {
        let shown = || quoted(path);
        if self.verbose {
            eprintln!("{}", shown());
        }
        match file.kind {
            Kind::Directory if !self.recursive => {
                bail!("{}: is a directory, which is copied with -r", shown())
            }
            Kind::Directory => {
                if !self.seen.insert(file.id) || depth > DEEPEST {
                    bail!(
                        "{}: the directory is in several places, or too deep: the file system is damaged",
                        shown()
                    );
                }
                let (directory, made) = into.directory(name).with_context(shown)?;
                self.inside(file, path, &directory, depth)?;
                if made == Made::New || self.preserve {
                    directory.finish(file, self.preserve).with_context(shown)?;
                }
                Ok(())
            }
            Kind::Regular => {
                let (file_system, preserve) = (self.file_system, self.preserve);
                into.file(name, file, preserve, |out| {
                    let mut cannot_write = None;
                    let read = content::read(file_system, file, &mut |_, data| {
                        out.write(&data).map_err(|e| {
                            cannot_write = Some(e);
                            disk::Error::from(disk::Errno::IO)
                        })
                    });
                    match cannot_write {
                        Some(e) => Err(anyhow::Error::new(e).context("writing")),
                        None => Ok(read?),
                    }
                })
                .with_context(shown)
            }
            Kind::Link => {
                let target = self.file_system.target(file).with_context(shown)?;
                into.link(name, &target, file, self.preserve).with_context(shown)
            }
            other => {
                eprintln!("{}: {}: skipped: this is a {}", self.invocation.name, shown(), other.word());
                Ok(())
            }
        }
    }

    /// Copies what is in a directory. A file that cannot be copied does not keep the others back.
    fn inside(&mut self, directory: &File, path: &[u8], into: &Directory, depth: usize) -> Result<()> {
        let mut entries: Vec<Entry> = Vec::new();
        let read = self.file_system.entries(directory, &mut |entry| {
            entries.push(entry);
            Ok(ControlFlow::Continue(()))
        });
        entries.sort_by_key(Entry::order);
        let mut directories: Vec<(Entry, File)> = Vec::new();
        for some in entries.chunks(EXPECTED) {
            self.file_system.expect(some);
            let files: Vec<(&Entry, Result<File>)> =
                some.iter().map(|entry| (entry, self.entry(entry, path))).collect();
            let contents: Vec<&File> = files.iter().filter_map(|(_, file)| file.as_ref().ok()).collect();
            content::expect(self.file_system, &contents);
            for (entry, file) in files {
                match file {
                    Ok(file) if file.is_directory() => directories.push((entry.clone(), file)),
                    file => self.one(file, entry, path, into, depth),
                }
            }
        }
        for some in directories.chunks(EXPECTED) {
            content::expect(self.file_system, &some.iter().map(|(_, file)| file).collect::<Vec<_>>());
            for (entry, file) in some {
                self.one(Ok(file.clone()), entry, path, into, depth);
            }
        }
        read.with_context(|| quoted(path))
    }

    /// The file that is to be copied for a name.
    fn entry(&self, entry: &Entry, directory: &[u8]) -> Result<File> {
        let path = joined(directory, &entry.name);
        let shown = || quoted(&path);
        let file = self.file_system.file(entry).with_context(shown)?;
        if file.kind == Kind::Link && !self.keep_links {
            return Ok(path::resolve(self.file_system, &path, true).with_context(shown)?.file);
        }
        Ok(file)
    }

    /// Copies one of many, or says why not.
    fn one(&mut self, file: Result<File>, entry: &Entry, directory: &[u8], into: &Directory, depth: usize) {
        let path = joined(directory, &entry.name);
        if let Err(e) = file.and_then(|file| self.copy(&file, &path, into, &entry.name, depth + 1)) {
            self.code = self.invocation.failed(&e);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_is_the_destination() {
        let parse = |args: &[&str]| Options::try_parse_from([&["cp"], args].concat()).ok();
        assert_eq!(parse(&["-R", "disk", "a", "b", "out"]).unwrap().words.len(), 3);
        assert!(parse(&["disk", "a"]).is_none() && parse(&["disk"]).is_none());
    }
}
