//! The command line of `mount`.

use super::file_system_options::Fuse;
use crate::command_line::{self, Invocation, Word};
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
    #[arg(short = 'C', long, value_name = "N", default_value = "4", value_parser = command_line::count)]
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
        Fuse::read(&self.options)
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
    fn options_of_the_file_system_come_one_by_one_or_as_a_list() {
        let fuse = parse(&["-o", "ro,uid=7", "-okernel_cache", "m", "u"]).unwrap().0.fuse().unwrap();
        assert_eq!((fuse.read_only, fuse.user, fuse.keep_cache), (true, Some(7), true));
    }

    #[test]
    fn numbers_have_bounds() {
        assert_eq!(parse(&["-C", "1", "-d", "m", "u"]).unwrap().0.connections.get(), 1);
        assert!(parse(&["-C", "0", "m", "u"]).is_none());
        assert!(parse(&["--fuse-help"]).unwrap().0.fuse_help);
        assert!(parse(&[]).is_none());
    }
}
