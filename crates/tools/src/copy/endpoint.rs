//! What stands at either end of the copy, by its name on the command line.

use crate::{
    command_line::{Word, is_uri},
    copy::{
        file::{LocalFile, Opened},
        nbd::{Link, Nbd},
        null::Null,
        reconnect::Patience,
        stream::Stream,
    },
    size,
};
use anyhow::{Context, Result, bail};
use disk::Disk;
use std::{fs::File, io, os::fd::AsFd, path::Path, sync::Arc};

/// An end that was opened once more.
pub(crate) struct Another {
    pub(crate) disk: Arc<dyn Disk>,
    /// The same, if it is a server.
    pub(crate) server: Option<Link>,
}

/// One end of a copy.
pub(crate) enum Endpoint {
    /// An NBD server.
    Nbd(Nbd),
    /// A local file or block device.
    File(Arc<LocalFile>),
    /// Bytes in order.
    Stream(Stream),
    /// The destination that forgets.
    Null(Arc<Null>),
}

/// How ends are opened.
#[derive(Default)]
pub(crate) struct Opening {
    /// Servers are connected to again when they go away.
    pub(crate) patience: Option<Patience>,
    /// Metadata contexts to ask the source for.
    pub(crate) contexts: Vec<String>,
    /// The destination is there, and keeps what it holds.
    pub(crate) keep: bool,
}

impl Endpoint {
    /// Opens the source.
    ///
    /// # Errors
    /// It does not exist, or cannot be read.
    pub(crate) fn source(word: &Word) -> Result<Endpoint> {
        Endpoint::source_as(word, &Opening::default())
    }

    /// As [`Endpoint::source`], in a certain way.
    ///
    /// # Errors
    /// The same.
    pub(crate) fn source_as(word: &Word, how: &Opening) -> Result<Endpoint> {
        let (contexts, patience) = (&how.contexts, how.patience.as_ref());
        Ok(match word {
            Word::Command(command) => {
                Endpoint::Nbd(Nbd::command(command, contexts).map_err(|e| of_command(word, e))?)
            }
            Word::Plain(text) if text == "-" => {
                let stdin = File::from(io::stdin().as_fd().try_clone_to_owned().context("standard input")?);
                LocalFile::source_from(stdin).context("standard input")?.into()
            }
            Word::Plain(text) if is_uri(text) => {
                Endpoint::Nbd(Nbd::uri(&text.to_string_lossy(), contexts, patience)?)
            }
            Word::Plain(text) => LocalFile::source(Path::new(text)).context(word.to_string())?.into(),
        })
    }

    /// Opens the destination. A regular file is emptied, and a disk that is too small made larger where its server offers
    /// that, unless it is to be kept.
    ///
    /// # Errors
    /// It cannot be opened for writing, or is the source itself.
    pub(crate) fn destination(word: &Word, source: &Endpoint, how: &Opening) -> Result<Endpoint> {
        // What is kept is a copy already, of a source that was as large.
        let room = source.disk().filter(|_| !how.keep).map_or(0, |disk| disk.facts().size);
        Ok(match word {
            Word::Command(command) => {
                Endpoint::Nbd(Nbd::command_with_room(command, room).map_err(|e| of_command(word, e))?)
            }
            Word::Plain(text) if text == "null:" => Endpoint::Null(Arc::new(Null::new())),
            Word::Plain(text) if text == "-" => {
                let stdout =
                    File::from(io::stdout().as_fd().try_clone_to_owned().context("standard output")?);
                LocalFile::destination_from(stdout).context("standard output")?.into()
            }
            Word::Plain(text) if is_uri(text) => {
                Endpoint::Nbd(Nbd::uri_with_room(&text.to_string_lossy(), how.patience.as_ref(), room)?)
            }
            Word::Plain(text) => {
                let path = Path::new(text);
                if let Endpoint::File(file) = source
                    && file.is_same(path)
                {
                    bail!("{word}: this is the source, too; copying it onto itself would destroy it");
                }
                let opened = if how.keep { LocalFile::kept(path) } else { LocalFile::destination(path) };
                opened.context(word.to_string())?.into()
            }
        })
    }

    /// Requests go here, unless it is a stream.
    pub(crate) fn disk(&self) -> Option<Arc<dyn Disk>> {
        match self {
            Endpoint::Nbd(nbd) => Some(nbd.first().disk()),
            Endpoint::File(file) => Some(file.clone()),
            Endpoint::Null(null) => Some(null.clone()),
            Endpoint::Stream(_) => None,
        }
    }

    /// Whether what was written to it can be read back.
    pub(crate) fn can_be_read(&self) -> bool {
        matches!(self, Endpoint::Nbd(_) | Endpoint::File(_))
    }

    /// Whether it can be opened more than once.
    pub(crate) fn may_have_several(&self) -> bool {
        match self {
            Endpoint::Nbd(nbd) => nbd.may_have_several(),
            Endpoint::File(_) | Endpoint::Null(_) => true,
            Endpoint::Stream(_) => false,
        }
    }

    /// Opens it once more.
    ///
    /// # Errors
    /// The server refuses a further connection.
    pub(crate) fn another(&self) -> Result<Option<Another>> {
        Ok(match self {
            Endpoint::Nbd(nbd) => Some(nbd.another()?),
            other => other.disk().map(|disk| Another { disk, server: None }),
        })
    }

    /// The first connection to it, if it is a server.
    pub(crate) fn server(&self) -> Option<Link> {
        match self {
            Endpoint::Nbd(nbd) => Some(nbd.first().clone()),
            _ => None,
        }
    }

    /// One line for `--verbose`.
    pub(crate) fn describe(&self, size: Option<u64>) -> (&'static str, String) {
        let kind = match self {
            Endpoint::Nbd(_) => "nbd_ops",
            Endpoint::File(_) => "file_ops",
            Endpoint::Stream(_) => "pipe_ops",
            Endpoint::Null(_) => "null_ops",
        };
        let preferred = self.disk().map_or(4096, |disk| disk.facts().blocks.preferred);
        let size = match size {
            Some(size) => format!("{size} ({})", size::human(size)),
            None => format!("-1 ({})", u64::MAX),
        };
        (kind, format!("size={size}, preferred block size={preferred}"))
    }
}

/// Names the command, unless the error does.
fn of_command(word: &Word, e: disk::Error) -> anyhow::Error {
    let named = e.to_string().starts_with(&format!("{word}: "));
    let e = anyhow::Error::from(e);
    if named { e } else { e.context(word.to_string()) }
}

impl From<Opened> for Endpoint {
    fn from(opened: Opened) -> Endpoint {
        match opened {
            Opened::File(file) => Endpoint::File(Arc::new(file)),
            Opened::Stream(file) => Endpoint::Stream(Stream::new(file)),
        }
    }
}
