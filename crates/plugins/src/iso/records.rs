//! The directories and the tables of paths, as bytes.

use super::{
    SECTOR, both_16, both_32,
    layout::{self, Layout},
    names::{Names, Reader, View},
    options::Options,
    rock_ridge,
};
use crate::common::tree::{ROOT, Tree, What};
use inspect::calendar::Moment;

const SECTOR_BYTES: usize = SECTOR as usize;
/// The longest record with an even length.
const LONGEST: usize = 254;
/// Bytes of a record before the name.
const HEAD: usize = 33;
/// A file of more bytes is described by several records; it is a multiple of the sector.
const PIECE: u64 = (4 << 30) - SECTOR;
const IS_DIRECTORY: u8 = 0x02;
/// Another record goes on with the same file.
const GOES_ON: u8 = 0x80;

/// A directory and what did not find room in its records, both in whole sectors.
pub(super) struct Built {
    pub(super) records: Vec<u8>,
    pub(super) continued: Vec<u8>,
}

/// Both tables of paths of both kinds, then all directories, in the order of their sectors.
pub(super) fn all(tree: &Tree, names: &Names, layout: &Layout, options: &Options) -> Vec<u8> {
    let views = [Reader::Plain, Reader::Joliet].map(|reader| layout::view(names, reader));
    let mut bytes = Vec::new();
    for view in views {
        for big_endian in [false, true] {
            bytes.extend(paths(tree, view, layout, big_endian));
            fill_up(&mut bytes);
        }
    }
    for view in views {
        for directory in &view.directories {
            let Built { records, continued } = build(tree, view, layout, options, *directory);
            bytes.extend(records);
            bytes.extend(continued);
        }
    }
    bytes
}

fn fill_up(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(SECTOR_BYTES), 0);
}

/// One table of paths: where each directory is, and in which other.
fn paths(tree: &Tree, view: &View, layout: &Layout, big_endian: bool) -> Vec<u8> {
    let place = layout.view(view.reader);
    let mut bytes = Vec::with_capacity(place.paths_len as usize);
    for directory in &view.directories {
        let name = if *directory == ROOT { &[0][..] } else { &view.names[*directory] };
        let sector = place.directory(*directory).0;
        let parent = place.number.get(&tree.nodes[*directory].parent).copied().unwrap_or(1);
        bytes.extend([name.len() as u8, 0]);
        if big_endian {
            bytes.extend(sector.to_be_bytes());
            bytes.extend(parent.to_be_bytes());
        } else {
            bytes.extend(sector.to_le_bytes());
            bytes.extend(parent.to_le_bytes());
        }
        bytes.extend(name);
        bytes.resize(bytes.len().next_multiple_of(2), 0);
    }
    bytes
}

/// One directory. Its length does not depend on where anything lies.
pub(super) fn build(tree: &Tree, view: &View, layout: &Layout, options: &Options, directory: usize) -> Built {
    let mut built = Built { records: Vec::new(), continued: Vec::new() };
    let place = layout.view(view.reader);
    let mut put = |name: &[u8], node: usize, role: rock_ridge::Role| {
        let head = (HEAD + name.len()).next_multiple_of(2);
        let fields = match view.reader {
            Reader::Plain => {
                let fields = rock_ridge::fields(tree, options, node, role);
                rock_ridge::pack(fields, LONGEST - head, layout.continued(directory), &mut built.continued)
            }
            Reader::Joliet => Vec::new(),
        };
        let is_directory = matches!(tree.nodes[node].what, What::Directory(_));
        let (sector, size) = match is_directory {
            true => {
                let (sector, len) = place.directory(node);
                (sector, u64::from(len))
            }
            false => (layout.sector(node), tree.size(node)),
        };
        let moment = Moment::from_unix(tree.nodes[node].attributes.modified);
        let mut done = 0;
        loop {
            let len = (size - done).min(PIECE);
            let goes_on = size - done > len;
            let flags = if is_directory { IS_DIRECTORY } else { 0 } | if goes_on { GOES_ON } else { 0 };
            let at = sector.wrapping_add((done / SECTOR) as u32);
            let record = record(name, at, len as u32, flags, moment, &fields);
            debug_assert!(record.len() <= LONGEST);
            // None lies on the border of two sectors.
            let used = built.records.len() % SECTOR_BYTES;
            if used + record.len() > SECTOR_BYTES {
                fill_up(&mut built.records);
            }
            built.records.extend(record);
            done += len;
            if !goes_on {
                break;
            }
        }
    };
    put(&[0], directory, if directory == ROOT { rock_ridge::Role::Root } else { rock_ridge::Role::Itself });
    put(&[1], tree.nodes[directory].parent, rock_ridge::Role::Itself);
    for child in &view.children[directory] {
        let mut name = view.names[*child].clone();
        let is_file = !matches!(tree.nodes[*child].what, What::Directory(_));
        if is_file && view.reader == Reader::Plain {
            name.extend(b";1");
        }
        put(&name, *child, rock_ridge::Role::Named);
    }
    fill_up(&mut built.records);
    fill_up(&mut built.continued);
    built
}

/// A record of a directory; also the descriptors have one, of the root.
pub(super) fn record(name: &[u8], sector: u32, len: u32, flags: u8, time: Moment, fields: &[u8]) -> Vec<u8> {
    let mut r = vec![0, 0];
    r.extend(both_32(sector));
    r.extend(both_32(len));
    r.extend(short_time(time));
    r.extend([flags, 0, 0]);
    r.extend(both_16(1));
    r.push(name.len() as u8);
    r.extend(name);
    r.resize(r.len().next_multiple_of(2), 0);
    r.extend(fields);
    r.resize(r.len().next_multiple_of(2), 0);
    r[0] = r.len() as u8;
    r
}

/// The record of a directory's root, for its descriptor.
pub(super) fn root(tree: &Tree, layout: &Layout, reader: Reader) -> Vec<u8> {
    let (sector, len) = layout.view(reader).directory(ROOT);
    record(&[0], sector, len, IS_DIRECTORY, Moment::from_unix(tree.nodes[ROOT].attributes.modified), &[])
}

/// A time in seven bytes, from 1900 to 2155.
pub(super) fn short_time(time: Moment) -> [u8; 7] {
    let time = time.clamp(Moment::beginning_of(1900), Moment::end_of(2155));
    [(time.year - 1900) as u8, time.month, time.day, time.hour, time.minute, time.second, 0]
}
