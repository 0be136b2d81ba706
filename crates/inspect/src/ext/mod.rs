//! ext2, ext3 and ext4.
//!
//! Blocks of 1K to 64K, block maps and extents, inline data, meta block groups, 64-bit block numbers, bigalloc, and a
//! journal that was not replayed: it is replayed in memory. Checksums of metadata are not verified: a file system with
//! a wrong one can be looked at all the same.

mod directory;
mod inode;
mod journal;
mod map;
mod superblock;

use crate::{
    About, Entry, File, FileSystem, Kind, Place, Run, Source,
    bytes::{self, le32},
    file_system::{Node, Time, Whereabouts, no_directory},
    path::LONGEST_TARGET,
};
use disk::{Data, Error, Range, Result};
pub(crate) use inode::Inode;
use journal::Journal;
use std::ops::ControlFlow;
use superblock::Superblock;

const ROOT: u32 = 2;

pub(crate) struct Ext {
    source: Source,
    superblock: Superblock,
    journal: Journal,
    about: About,
}

impl Ext {
    /// # Errors
    /// It is none, it is damaged, or it has a feature that is not known.
    pub(crate) fn open(source: Source) -> Result<Ext> {
        let superblock = Superblock::read(&source)?;
        let mut about = superblock.about();
        if superblock.blocks.saturating_mul(superblock.block) > source.size() {
            about.notes.push(format!(
                "the file system is larger than the place that it is in; {} bytes of it are missing",
                superblock.blocks.saturating_mul(superblock.block) - source.size()
            ));
        }
        let mut ext = Ext { source, superblock, journal: Journal::default(), about };
        if ext.superblock.needs_recovery {
            match Journal::read(&ext) {
                Ok((journal, note)) => {
                    ext.journal = journal;
                    ext.about.notes.extend(note);
                }
                Err(e) => ext.about.notes.push(format!(
                    "the journal could not be replayed, and changes that it has are not seen: {e}"
                )),
            }
        }
        Ok(ext)
    }

    /// Bytes of a block, as the journal has it where it has it.
    fn read_block(&self, block: u64, offset: u64, into: &mut [u8]) -> Result<()> {
        let outside = || Error::io(format!("block {block} lies outside the file system"));
        if block >= self.superblock.blocks || offset + into.len() as u64 > self.superblock.block {
            return Err(outside());
        }
        let (block, escaped) = self.journal.place(block);
        let at = block.checked_mul(self.superblock.block).ok_or_else(outside)? + offset;
        self.source.read(at, into)?;
        if escaped && offset < 4 {
            for (byte, magic) in into.iter_mut().zip(&journal::MAGIC[offset as usize..]) {
                *byte = *magic;
            }
        }
        Ok(())
    }

    /// A whole block.
    fn block(&self, block: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.superblock.block as usize];
        self.read_block(block, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Where the table of inodes of a group begins, as a block.
    fn inode_table(&self, group: u64) -> Result<u64> {
        let (block, offset) = self.superblock.descriptor(group);
        let size = self.superblock.descriptor_size;
        let mut bytes = vec![0; size as usize];
        self.read_block(block, offset, &mut bytes)?;
        let high = if size >= 64 { u64::from(le32(&bytes, 0x28)) << 32 } else { 0 };
        Ok(u64::from(le32(&bytes, 8)) | high)
    }

    /// Where an inode is: its block, and its place there.
    fn place_of(&self, number: u32) -> Result<(u64, u64)> {
        let s = &self.superblock;
        if number == 0 || number > s.inodes {
            return Err(Error::io(format!("there is no inode {number}")));
        }
        let (group, index) = ((number - 1) / s.inodes_per_group, (number - 1) % s.inodes_per_group);
        let at = u64::from(index) * s.inode_size;
        Ok((self.inode_table(group.into())?.saturating_add(at / s.block), at % s.block))
    }

    fn inode(&self, number: u32) -> Result<Inode> {
        let (block, offset) = self.place_of(number)?;
        let mut bytes = vec![0; self.superblock.inode_size as usize];
        self.read_block(block, offset, &mut bytes)?;
        Inode::parse(number, &bytes, &self.superblock)
    }

    fn file_of(&self, number: u32) -> Result<File> {
        let inode = self.inode(number)?;
        let kind = match Kind::from_mode(inode.mode) {
            Kind::Character(..) => Kind::Character(inode.device().0, inode.device().1),
            Kind::Block(..) => Kind::Block(inode.device().0, inode.device().1),
            other => other,
        };
        Ok(File {
            id: number.into(),
            kind,
            permissions: inode.mode & 0o7777,
            links: inode.links.into(),
            uid: inode.uid,
            gid: inode.gid,
            size: inode.size,
            modified: inode.modified,
            whereabouts: Whereabouts::Ext(Box::new(inode)),
        })
    }

    fn inode_of(file: &File) -> Result<&Inode> {
        match &file.whereabouts {
            Whereabouts::Ext(inode) => Ok(inode),
            _ => Err(Error::invalid("a file of another file system")),
        }
    }

    /// The stretch of an inode's content at byte `at`.
    fn run_of(&self, inode: &Inode, at: u64) -> Result<Run> {
        if inode.is_inline() {
            let all = inode.inline_data();
            let rest = bytes::part(&all, usize::try_from(at).unwrap_or(usize::MAX), all.len());
            return Ok(match rest.is_empty() {
                true => Run { len: u64::MAX - at, place: Place::Zeroes },
                false => Run { len: rest.len() as u64, place: Place::Here(Data::copy_from(rest)) },
            });
        }
        let size = self.superblock.block;
        let (first, within) = (at / size, at % size);
        let stretch = match inode.has_extents() {
            true => map::extent(self, inode, first)?,
            false => map::block_map(self, inode, first)?,
        };
        let len = stretch.blocks.saturating_mul(size) - within;
        let Some(block) = stretch.on_disk else { return Ok(Run { len, place: Place::Zeroes }) };
        if block.checked_add(stretch.blocks).is_none_or(|end| end > self.superblock.blocks) {
            return Err(Error::io(format!(
                "block {block} of inode {} lies outside the file system",
                inode.number
            )));
        }
        // Content may be in the journal, too.
        match self.journal.next(block, stretch.blocks) {
            None => Ok(Run { len, place: Place::At(block * size + within) }),
            Some(there) if there > block => {
                Ok(Run { len: (there - block) * size - within, place: Place::At(block * size + within) })
            }
            Some(_) => {
                let bytes = self.block(block)?;
                let rest = &bytes[within as usize..];
                Ok(Run { len: rest.len() as u64, place: Place::Here(Data::copy_from(rest)) })
            }
        }
    }

    /// Content into memory, for directories and links.
    fn read_inode(&self, inode: &Inode, at: u64, into: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < into.len() {
            let run = self.run_of(inode, at + done as u64)?;
            let len = run.len.min((into.len() - done) as u64) as usize;
            let here = &mut into[done..done + len];
            match run.place {
                Place::At(at) => self.source.read(at, here)?,
                Place::Zeroes => here.fill(0),
                Place::Here(data) => data.slice(0, len as u64).copy_to(here),
            }
            done += len;
        }
        Ok(())
    }
}

impl FileSystem for Ext {
    fn about(&self) -> &About {
        &self.about
    }

    fn source(&self) -> &Source {
        &self.source
    }

    fn root(&self) -> Result<File> {
        let root = self.file_of(ROOT)?;
        if root.is_directory() { Ok(root) } else { Err(Error::io("the root directory is damaged")) }
    }

    fn entries(
        &self,
        directory: &File,
        each: &mut dyn FnMut(Entry) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        if !directory.is_directory() {
            return Err(no_directory());
        }
        let inode = Ext::inode_of(directory)?;
        directory::entries(self, inode, &mut |number, name| {
            each(Entry { name: name.to_vec(), node: Node::Inode(number) })
        })
    }

    fn file(&self, entry: &Entry) -> Result<File> {
        match &entry.node {
            Node::Inode(number) => self.file_of(*number),
            Node::Known(file) => Ok(file.clone()),
        }
    }

    fn expect(&self, names: &[Entry]) {
        let numbers = names.iter().filter_map(|entry| match entry.node {
            Node::Inode(number) => Some(number),
            Node::Known(_) => None,
        });
        let size = self.superblock.block;
        self.source.expect(numbers.filter_map(|number| {
            let (block, offset) = self.place_of(number).ok()?;
            let (block, _) = self.journal.place(block);
            Some(Range::new(block.checked_mul(size)?.checked_add(offset)?, self.superblock.inode_size))
        }));
    }

    fn target(&self, link: &File) -> Result<Vec<u8>> {
        let inode = Ext::inode_of(link)?;
        if link.kind != Kind::Link {
            return Err(Error::invalid("not a symbolic link"));
        }
        inode.check_readable()?;
        if inode.size > LONGEST_TARGET {
            return Err(Error::io("the target of the symbolic link is damaged"));
        }
        if inode.size < 60 && !inode.has_extents() && !inode.is_inline() {
            return Ok(inode.block[..inode.size as usize].to_vec());
        }
        let mut target = vec![0; inode.size as usize];
        self.read_inode(inode, 0, &mut target)?;
        Ok(target)
    }

    fn run(&self, file: &File, at: u64) -> Result<Run> {
        let inode = Ext::inode_of(file)?;
        inode.check_readable()?;
        self.run_of(inode, at)
    }
}

impl Superblock {
    fn read(source: &Source) -> Result<Superblock> {
        let bytes = source.bytes(1024, 1024)?;
        Superblock::parse(&bytes)
    }
}

/// A time with its extra field, which has two more bits of seconds, and nanoseconds.
fn time(seconds: u32, extra: u32) -> Time {
    let seconds = i64::from(seconds as i32) + (i64::from(extra & 3) << 32);
    Time { seconds, nanoseconds: (extra >> 2).min(999_999_999) }
}
