//! What all file systems have in common.

use crate::{Source, ext::Inode};
use disk::{Data, Error, Result};
use std::ops::ControlFlow;

/// What a file system says of itself.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// `ext4`, `FAT16`, `ISO 9660`.
    pub kind: &'static str,
    /// Empty where there is none.
    pub label: String,
    /// Its UUID, or what it has instead; empty where there is none.
    pub uuid: String,
    /// What people should know of it: sentences without a stop.
    pub notes: Vec<String>,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file with bytes.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A character device, with its major and minor number.
    Character(u32, u32),
    /// A block device, with its major and minor number.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// Nothing that is known.
    Unknown,
}

impl Kind {
    /// By the upper bits of a mode.
    pub(crate) fn from_mode(mode: u16) -> Kind {
        match mode >> 12 {
            0x1 => Kind::Fifo,
            0x2 => Kind::Character(0, 0),
            0x4 => Kind::Directory,
            0x6 => Kind::Block(0, 0),
            0x8 => Kind::Regular,
            0xa => Kind::Link,
            0xc => Kind::Socket,
            _ => Kind::Unknown,
        }
    }

    /// As the first letter of a line of `ls -l`.
    pub fn letter(self) -> char {
        match self {
            Kind::Regular => '-',
            Kind::Directory => 'd',
            Kind::Link => 'l',
            Kind::Character(..) => 'c',
            Kind::Block(..) => 'b',
            Kind::Fifo => 'p',
            Kind::Socket => 's',
            Kind::Unknown => '?',
        }
    }

    /// In words.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Regular => "file",
            Kind::Directory => "directory",
            Kind::Link => "symbolic link",
            Kind::Character(..) => "character device",
            Kind::Block(..) => "block device",
            Kind::Fifo => "fifo",
            Kind::Socket => "socket",
            Kind::Unknown => "unknown",
        }
    }
}

/// A time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Since the beginning of 1970, in UTC.
    pub seconds: i64,
    /// Less than a second.
    pub nanoseconds: u32,
}

/// A file of any kind.
#[derive(Clone, Debug)]
pub struct File {
    /// The same for all names of one file, and for no other directory.
    pub id: u64,
    /// What it is.
    pub kind: Kind,
    /// Who may do what: the lower 12 bits of a mode.
    pub permissions: u16,
    /// How many names it has.
    pub links: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// In bytes.
    pub size: u64,
    /// When its content was last changed.
    pub modified: Time,
    pub(crate) whereabouts: Whereabouts,
}

impl File {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }
}

/// Where the content is.
#[derive(Clone, Debug)]
pub(crate) enum Whereabouts {
    Ext(Box<Inode>),
    /// The first cluster, 0 where there is none.
    Fat(u32),
    Iso(Box<crate::iso::Extents>),
}

/// A name in a directory.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Any bytes: neither slashes nor `..` are impossible.
    pub name: Vec<u8>,
    pub(crate) node: Node,
}

impl Entry {
    /// Many files are best asked for in this order: what is said of them lies in it on the disk. Equal numbers leave them as
    /// they came.
    pub fn order(&self) -> u32 {
        match self.node {
            Node::Inode(number) => number,
            Node::Known(_) => 0,
        }
    }
}

/// What a name stands for.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    /// Of ext, to be read yet.
    Inode(u32),
    Known(File),
}

/// Where a stretch of a file's content is.
#[derive(Clone, Debug)]
pub enum Place {
    /// From this byte of the file system's source on.
    At(u64),
    /// Nowhere: it reads as zeroes.
    Zeroes,
    /// Here.
    Here(Data),
}

/// A stretch of a file's content.
#[derive(Clone, Debug)]
pub struct Run {
    /// In bytes, never 0.
    pub len: u64,
    /// Where it is.
    pub place: Place,
}

/// A file system.
pub trait FileSystem {
    /// What it says of itself.
    fn about(&self) -> &About;

    /// What it is read from.
    fn source(&self) -> &Source;

    /// The root directory.
    ///
    /// # Errors
    /// It is damaged, or the disk failed; so below.
    fn root(&self) -> Result<File>;

    /// Hands out the names in a directory, in no order, without `.` and `..`, until it is told to stop.
    ///
    /// # Errors
    /// `directory` is none, or those of `each`.
    fn entries(&self, directory: &File, each: &mut dyn FnMut(Entry) -> Result<ControlFlow<()>>)
    -> Result<()>;

    /// The file that a name stands for.
    ///
    /// # Errors
    /// It cannot be read.
    fn file(&self, entry: &Entry) -> Result<File>;

    /// The files of these names will soon be asked for. Some dozens or hundreds at once are right.
    fn expect(&self, _names: &[Entry]) {}

    /// Whether two names are the same. FAT does not care for their case.
    fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        one == other
    }

    /// The file with this name in a directory.
    ///
    /// # Errors
    /// As [`FileSystem::entries`].
    fn find(&self, directory: &File, name: &[u8]) -> Result<Option<File>> {
        let mut found = None;
        self.entries(directory, &mut |entry| {
            if !self.is_same(&entry.name, name) {
                return Ok(ControlFlow::Continue(()));
            }
            found = Some(entry);
            Ok(ControlFlow::Break(()))
        })?;
        found.map(|entry| self.file(&entry)).transpose()
    }

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// It is none.
    fn target(&self, link: &File) -> Result<Vec<u8>>;

    /// The stretch of a file's content that begins at byte `at`, which lies before its end. It may reach beyond the end.
    ///
    /// # Errors
    /// The content is damaged, encrypted or compressed.
    fn run(&self, file: &File, at: u64) -> Result<Run>;
}

/// The path leads through what is no directory.
pub(crate) fn no_directory() -> Error {
    Error::new(disk::Errno::from_raw(20), "not a directory")
}
