//! The command line of `mount`.

use crate::command_line::{Invocation, Word};
use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};
use client::Connector;
use net::{Address, Stream};
use std::{
    ffi::OsString,
    num::NonZeroUsize,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Show a disk over NBD as a file.
#[derive(Parser, Debug)]
#[command(
    name = "mount",
    infer_long_args = true,
    args_override_self = true,
    disable_version_flag = true,
    bin_name = "diskpipe mount",
    after_help = "SERVER is one of
  NBD-URI
  [ COMMAND ARGUMENT... ]       a server that takes a listening socket
  --command COMMAND ARGUMENT... a server that speaks on standard input and output
  --fd NUMBER                   a connected socket that this program was started with
  --tcp HOST PORT
  --unix SOCKET
  --vsock CID PORT

To unmount: fusermount3 -u MOUNTPOINT"
)]
pub(crate) struct Options {
    /// Open so many connections, if the server says that they see each other's writes.
    #[arg(short = 'C', long, value_name = "N", default_value = "4")]
    pub(crate) connections: NonZeroUsize,

    /// Show the options that -o takes.
    #[arg(long)]
    pub(crate) fuse_help: bool,

    /// Options of the file system, separated by commas; --fuse-help lists them.
    #[arg(short, value_name = "OPTION")]
    options: Vec<String>,

    /// When the file is there, write the process id into this file.
    #[arg(short = 'P', long, alias = "pid-file", value_name = "FILE")]
    pub(crate) pidfile: Option<PathBuf>,

    /// The file cannot be written to. So it is in any case if the server says so.
    #[arg(short, long, alias = "read-only")]
    pub(crate) readonly: bool,

    /// Use one thread.
    #[arg(short)]
    pub(crate) single: bool,

    /// Say what is being done.
    #[arg(short, long, short_alias = 'd')]
    pub(crate) verbose: bool,

    /// A directory, which then holds the disk as the file “nbd”; a name that is not in use in a directory; or a
    /// regular file, whose place the disk takes.
    #[arg(value_name = "MOUNTPOINT", required_unless_present = "fuse_help")]
    mount_point: Option<PathBuf>,

    /// The server.
    #[arg(value_name = "SERVER", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// The options, for manual pages and completions.
pub fn command() -> clap::Command {
    Options::command()
}

/// Where the server is.
pub(crate) enum Server {
    Word(Word),
    Address(Address),
    Descriptor(i32),
    /// A program that speaks on standard input and output.
    Command(Vec<OsString>),
}

impl Server {
    /// A way to the server by at most so many connections, and the server if it was started here.
    ///
    /// # Errors
    /// It is no server, or cannot be started.
    pub(crate) fn connector(self, connections: NonZeroUsize) -> Result<(Connector, Option<Started>)> {
        // An open socket serves for one.
        let one = matches!(self, Server::Descriptor(_) | Server::Command(_));
        let (mut connector, started) = match self {
            Server::Word(word) => (word.connector()?, None),
            Server::Address(address) => (Connector::to(address), None),
            Server::Descriptor(number) => (Connector::inherited(number)?, None),
            Server::Command(command) => {
                let (ours, theirs) = UnixStream::pair().context("cannot make a socket")?;
                let input = OwnedFd::from(theirs.try_clone().context("cannot make a socket")?);
                let started = Command::new(&command[0])
                    .args(&command[1..])
                    .stdin(Stdio::from(input))
                    .stdout(Stdio::from(OwnedFd::from(theirs)))
                    .spawn()
                    .with_context(|| format!("{}: cannot start the server", command[0].display()))?;
                (Connector::stream(Stream::from_socket(ours.into())?), Some(Started(started)))
            }
        };
        connector.options.connections = if one { 1 } else { connections.get() };
        Ok((connector, started))
    }
}

/// A server that ends by itself when its only connection is closed, and is waited for then.
pub(crate) struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.wait(); // its status has no reader
    }
}

/// What `-o` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fuse {
    pub(crate) allow_other: bool,
    pub(crate) allow_root: bool,
    pub(crate) default_permissions: bool,
    pub(crate) direct: bool,
    pub(crate) keep_cache: bool,
    pub(crate) read_only: bool,
    pub(crate) source: Option<String>,
    pub(crate) user: Option<u32>,
    pub(crate) group: Option<u32>,
}

/// The text of `--fuse-help`.
pub(crate) const FUSE_HELP: &str = "\
Options of the file system:
    -o allow_other          other users see the file, too
    -o allow_root           root sees the file, too
    -o default_permissions  the kernel checks permissions
    -o direct_io            the kernel keeps nothing in its cache: as it is without kernel_cache
    -o fsname=NAME          what the table of mounts shows as the source
    -o gid=N                the group of the file
    -o kernel_cache         the kernel caches what is read, and keeps it between one open and the next
    -o ro                   as --readonly
    -o uid=N                the user of the file
";

impl Options {
    /// Where to mount.
    pub(crate) fn mount_point(&self) -> &Path {
        self.mount_point.as_deref().unwrap_or(Path::new(""))
    }

    /// The server in the words after the mount point.
    ///
    /// # Errors
    /// A sentence.
    pub(crate) fn server(&self, invocation: &Invocation) -> Result<Server, String> {
        let text = |word: &OsString| word.to_string_lossy().into_owned();
        let number = |word: &OsString| {
            text(word).parse::<u32>().map_err(|_| format!("“{}” is not a number", word.display()))
        };
        match self.words.as_slice() {
            [mode, command @ ..] if mode == "--command" && !command.is_empty() => {
                Ok(Server::Command(command.to_vec()))
            }
            [mode, fd] if mode == "--fd" => match i32::try_from(number(fd)?) {
                Ok(fd) => Ok(Server::Descriptor(fd)),
                Err(_) => Err(format!("{} is not a file descriptor", fd.display())),
            },
            [mode, host, port] if mode == "--tcp" => match text(port).parse() {
                Ok(port) => Ok(Server::Address(Address::Tcp { host: text(host), port })),
                Err(_) => Err(format!("“{}” is not a port", port.display())),
            },
            [mode, path] if mode == "--unix" => Ok(Server::Address(Address::Unix(path.into()))),
            [mode, cid, port] if mode == "--vsock" => {
                Ok(Server::Address(Address::Vsock { cid: number(cid)?, port: number(port)? }))
            }
            [word] if !word.to_string_lossy().starts_with("--") => {
                Ok(Server::Word(invocation.word(word.clone())))
            }
            [] => Err("which server? Give an NBD URI, or [ COMMAND ]".into()),
            [mode, ..] if mode.to_string_lossy().starts_with("--") => {
                let after = match mode.to_str() {
                    Some("--command") => "COMMAND ARGUMENT...",
                    Some("--fd") => "NUMBER",
                    Some("--tcp") => "HOST PORT",
                    Some("--unix") => "PATH",
                    Some("--vsock") => "CID PORT",
                    _ => return Err(format!("{} does not say where a server is", mode.display())),
                };
                Err(format!("{} is followed by {after}", mode.display()))
            }
            [_, ..] => Err("one server only; its options, if any, go before the mount point".into()),
        }
    }

    /// What the `-o` options say.
    ///
    /// # Errors
    /// A sentence.
    pub(crate) fn fuse(&self) -> Result<Fuse, String> {
        let mut fuse = Fuse::default();
        for option in self.options.iter().flat_map(|list| list.split(',')).filter(|word| !word.is_empty()) {
            let number = |text: &str| {
                text.parse().map(Some).map_err(|_| format!("-o {option}: “{text}” is not a number"))
            };
            match option.split_once('=') {
                None => match option {
                    "allow_other" => fuse.allow_other = true,
                    "allow_root" => fuse.allow_root = true,
                    "default_permissions" => fuse.default_permissions = true,
                    "direct_io" => fuse.direct = true,
                    "kernel_cache" => fuse.keep_cache = true,
                    "ro" => fuse.read_only = true,
                    "rw" => fuse.read_only = false,
                    _ => return Err(format!("-o {option}: there is no such option; see --fuse-help")),
                },
                Some(("fsname", name)) => fuse.source = Some(name.to_owned()),
                Some(("gid", id)) => fuse.group = number(id)?,
                Some(("uid", id)) => fuse.user = number(id)?,
                Some(_) => return Err(format!("-o {option}: there is no such option; see --fuse-help")),
            }
        }
        if fuse.allow_other && fuse.allow_root {
            return Err("-o allow_other and allow_root exclude each other".into());
        }
        Ok(fuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Option<(Options, Result<Server, String>)> {
        let args = [&["mount"], args].concat().iter().map(Into::into).collect();
        let invocation = Invocation::new(args, "mount", 1.into()).ok()?;
        let options: Options = invocation.parse(command()).ok()?;
        let server = options.server(&invocation);
        Some((options, server))
    }

    #[test]
    fn servers_are_named_in_many_ways() {
        let server = |args: &[&str]| parse(args).unwrap().1.unwrap();
        assert!(matches!(server(&["m", "nbd://x"]), Server::Word(Word::Plain(uri)) if uri == "nbd://x"));
        assert!(
            matches!(server(&["m", "[", "qemu-nbd", "-r", "]"]), Server::Word(Word::Command(c)) if c.len() == 2)
        );
        assert!(
            matches!(server(&["-r", "m", "--command", "nbdkit", "-s", "memory", "7E"]), Server::Command(c) if c.len() == 4)
        );
        assert!(matches!(server(&["m", "--fd", "5"]), Server::Descriptor(5)));
        assert!(
            matches!(server(&["m", "--tcp", "h", "10809"]), Server::Address(Address::Tcp { port, .. }) if port == 10809)
        );
        assert!(matches!(server(&["m", "--unix", "s"]), Server::Address(Address::Unix(_))));
        assert!(matches!(
            server(&["m", "--vsock", "2", "10809"]),
            Server::Address(Address::Vsock { cid: 2, port: 10809 })
        ));
        for bad in [
            &["m"][..],
            &["m", "--tcp", "h"],
            &["m", "--fd", "x"],
            &["m", "--command"],
            &["m", "--nosuch", "x"],
            &["m", "a", "b"],
        ] {
            assert!(parse(bad).is_none_or(|(_, server)| server.is_err()), "{bad:?}");
        }
    }

    #[test]
    fn options_of_the_file_system_are_a_list() {
        let fuse = |args: &[&str]| parse(args).unwrap().0.fuse();
        let found = fuse(&["-o", "ro,uid=7", "-okernel_cache", "-o", "fsname=x", "m", "u"]).unwrap();
        assert_eq!((found.read_only, found.user, found.keep_cache), (true, Some(7), true));
        assert_eq!(found.source.as_deref(), Some("x"));
        for bad in ["nosuch", "uid=x", "ro=1", "allow_other,allow_root"] {
            assert!(fuse(&["-o", bad, "m", "u"]).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_have_bounds() {
        assert_eq!(parse(&["-C", "1", "-d", "m", "u"]).unwrap().0.connections.get(), 1);
        assert!(parse(&["-C", "0", "m", "u"]).is_none());
        assert!(parse(&["--fuse-help"]).unwrap().0.fuse_help);
        assert!(parse(&[]).is_none());
    }
}
