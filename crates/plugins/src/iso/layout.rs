//! Where everything goes: descriptors, the tables of paths, directories, files.

use super::{
    SECTOR,
    names::{Names, Reader, View},
    options::Options,
    records::{self, Built},
    volume,
};
use crate::common::tree::{ROOT, Tree};
use disk::{Error, Range, Result};
use std::collections::HashMap;

/// Sectors of nothing at the end: some systems read ahead there, and fail where a disk ends.
const PADDING: u64 = 150;

/// The sectors of the CD.
#[derive(Debug)]
pub(super) struct Layout {
    /// Of the whole, in bytes.
    pub(super) size: u64,
    /// Where the files lie, in bytes.
    pub(super) files: Range,
    /// For plain readers and for Joliet's.
    plain: ViewLayout,
    joliet: ViewLayout,
    /// The first sector of each file by node.
    file: Vec<u32>,
}

/// What is there for one kind of reader.
#[derive(Debug, Default)]
pub(super) struct ViewLayout {
    /// The first sectors of the two tables of paths, little-endian and big-endian, and their bytes.
    pub(super) paths: [u32; 2],
    pub(super) paths_len: u32,
    /// The first sector of each directory by node, its bytes, and the bytes behind that continue its records.
    directory: HashMap<usize, (u32, u32, u32)>,
    /// The number of each directory, from 1.
    pub(super) number: HashMap<usize, u16>,
}

impl ViewLayout {
    /// The first sector and the bytes of a directory.
    pub(super) fn directory(&self, node: usize) -> (u32, u32) {
        let (sector, len, _) = self.directory.get(&node).copied().unwrap_or_default();
        (sector, len)
    }
}

/// Counts sectors.
struct Cursor(u64);

impl Cursor {
    fn take(&mut self, bytes: u64) -> Result<u32> {
        let first = u32::try_from(self.0).ok();
        self.0 += bytes.div_ceil(SECTOR);
        let end = u32::try_from(self.0).ok();
        first.filter(|_| end.is_some()).ok_or_else(|| Error::invalid("more than 8 TiB: no CD is so large"))
    }
}

impl Layout {
    pub(super) fn new(tree: &Tree, names: &Names, options: &Options) -> Result<Layout> {
        let mut layout = Layout {
            size: 0,
            files: Range::new(0, 0),
            plain: ViewLayout::default(),
            joliet: ViewLayout::default(),
            file: vec![0; tree.nodes.len()],
        };
        let mut cursor = Cursor(volume::FIRST + volume::count(options));
        for reader in [Reader::Plain, Reader::Joliet] {
            let paths_len = u64::from(paths_len(view(names, reader))?);
            let paths = [cursor.take(paths_len)?, cursor.take(paths_len)?];
            let into = layout.view_mut(reader);
            (into.paths, into.paths_len) = (paths, paths_len as u32);
        }
        for reader in [Reader::Plain, Reader::Joliet] {
            let view = view(names, reader);
            for (number, directory) in view.directories.iter().enumerate() {
                // The numbers in it are not yet right, but as long as they will be.
                let Built { records, continued } = records::build(tree, view, &layout, options, *directory);
                let (len, more) = (records.len() as u64, continued.len() as u64);
                let too_long = |_| Error::invalid(format!("{}: too many files", tree.shown(*directory)));
                let lens = (u32::try_from(len).map_err(too_long)?, u32::try_from(more).map_err(too_long)?);
                let sector = cursor.take(len + more)?;
                let into = layout.view_mut(reader);
                into.directory.insert(*directory, (sector, lens.0, lens.1));
                into.number.insert(*directory, number as u16 + 1);
            }
        }
        let first = cursor.0;
        let mut known: HashMap<(u64, u64), u32> = HashMap::new();
        for node in (0..tree.nodes.len()).filter(|n| names.plain.shows(*n) || names.joliet.shows(*n)) {
            let (size, found) = (tree.size(node), &tree.nodes[node].attributes);
            layout.file[node] = match known.get(&found.identity) {
                // Another name of a file that is there already.
                Some(sector) if found.links > 1 && size > 0 => *sector,
                _ => {
                    let sector = cursor.take(size)?;
                    if size > 0 {
                        known.insert(found.identity, sector);
                    }
                    sector
                }
            };
        }
        let last = cursor.0;
        cursor.take(if options.no_padding { 0 } else { PADDING * SECTOR })?;
        layout.files = Range::new(first * SECTOR, (last - first) * SECTOR);
        layout.size = cursor.0 * SECTOR;
        Ok(layout)
    }

    pub(super) fn view(&self, reader: Reader) -> &ViewLayout {
        match reader {
            Reader::Plain => &self.plain,
            Reader::Joliet => &self.joliet,
        }
    }

    fn view_mut(&mut self, reader: Reader) -> &mut ViewLayout {
        match reader {
            Reader::Plain => &mut self.plain,
            Reader::Joliet => &mut self.joliet,
        }
    }

    /// The first sector of a file.
    pub(super) fn sector(&self, node: usize) -> u32 {
        self.file[node]
    }

    /// The first byte of a file.
    pub(super) fn start(&self, node: usize) -> u64 {
        u64::from(self.file[node]) * SECTOR
    }

    /// The sector of what continues the records of a plain directory.
    pub(super) fn continued(&self, directory: usize) -> u32 {
        let (sector, len, _) = self.plain.directory.get(&directory).copied().unwrap_or_default();
        sector + len / SECTOR as u32
    }
}

pub(super) fn view(names: &Names, reader: Reader) -> &View {
    match reader {
        Reader::Plain => &names.plain,
        Reader::Joliet => &names.joliet,
    }
}

/// The bytes of one table of paths.
fn paths_len(view: &View) -> Result<u32> {
    let len = |node: &usize| {
        let name = if *node == ROOT { 1 } else { view.names[*node].len() as u64 };
        8 + name.next_multiple_of(2)
    };
    let all: u64 = view.directories.iter().map(len).sum();
    u32::try_from(all).map_err(|_| Error::invalid("too many directories for a CD"))
}
