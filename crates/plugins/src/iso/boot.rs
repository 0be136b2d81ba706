//! How computers boot from the CD (El Torito): a list of images, one for each kind of computer.

use super::{Made, SECTOR, layout::Layout, options::Options, volume};
use crate::common::tree::{Tree, What};
use disk::{Error, Result};
use std::{fs::File, io::Read};

/// Where the list is unless somebody wants it elsewhere.
const CATALOG: &str = "boot.catalog";
/// Bytes of the list's entries, and how many have room.
const ENTRY: usize = 32;
const MOST: usize = (SECTOR as usize / ENTRY - 2) / 2;
/// Bytes of a sector as a BIOS counts them.
const BLOCK: u64 = 512;
/// Images of floppies that a BIOS knows, and their kinds.
const FLOPPIES: [(u64, u8); 3] = [(1_228_800, 1), (1_474_560, 2), (2_949_120, 3)];
const HARD_DISK: u8 = 4;
/// Where the table of facts is in an image, and what comes after it.
const TABLE: usize = 8;
const BEHIND_TABLE: usize = 64;

/// An image to boot.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its path on the CD.
    pub(super) image: String,
    pub(super) platform: Platform,
    pub(super) emulation: Emulation,
    /// How many blocks of 512 bytes are loaded; `None`: all of them.
    pub(super) load_size: Option<u16>,
    /// Where to; 0 is the usual place.
    pub(super) load_segment: u16,
    /// The image is told where it is.
    pub(super) info_table: bool,
    pub(super) bootable: bool,
}

impl Default for Entry {
    fn default() -> Entry {
        Entry {
            image: String::new(),
            platform: Platform::Bios,
            emulation: Emulation::Floppy,
            load_size: None,
            load_segment: 0,
            info_table: false,
            bootable: true,
        }
    }
}

/// What starts the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Platform {
    Bios = 0,
    Efi = 0xef,
}

/// What the image is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Emulation {
    /// Just a program.
    None,
    Floppy,
    HardDisk,
}

/// Adds the list, empty so far, where something is to be booted, and tells its node.
pub(super) fn add_catalog(tree: &mut Tree, made: &mut Made, options: &Options) -> Result<Option<usize>> {
    if options.boot.is_empty() {
        return Ok(None);
    }
    if options.boot.len() > MOST {
        return Err(Error::invalid(format!(
            "{} images to boot: at most {MOST} are possible",
            options.boot.len()
        )));
    }
    let path = options.catalog.as_deref().unwrap_or(CATALOG);
    let path = path.trim_matches('/');
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let found =
        tree.find(directory.as_bytes()).filter(|found| matches!(tree.nodes[*found].what, What::Directory(_)));
    let directory = found
        .ok_or_else(|| Error::invalid(format!("-c {path}: there is no directory {directory} on the CD")))?;
    if name.is_empty() || tree.find_in(directory, name.as_bytes()).is_some() {
        return Err(Error::invalid(format!("-c {path}: not a name for a new file")));
    }
    let catalog = tree.add_file(directory, name.as_bytes(), SECTOR);
    made.insert(catalog, vec![0; SECTOR as usize]);
    Ok(Some(catalog))
}

/// The node of an image.
fn image(tree: &Tree, entry: &Entry) -> Result<usize> {
    let found = tree.find(entry.image.as_bytes()).filter(|found| tree.size(*found) > 0);
    found.ok_or_else(|| {
        Error::invalid(format!("-b {}: there is no such file on the CD, or it is empty", entry.image))
    })
}

/// The list.
pub(super) fn catalog(tree: &Tree, layout: &Layout, options: &Options) -> Result<Vec<u8>> {
    let mut bytes = validation(options.boot[0].platform);
    bytes.extend(initial(tree, layout, &options.boot[0])?);
    let last = options.boot.len() - 1;
    for (number, entry) in options.boot.iter().enumerate().skip(1) {
        bytes.extend([if number == last { 0x91 } else { 0x90 }, entry.platform as u8]);
        bytes.extend(1u16.to_le_bytes());
        bytes.extend([0; 28]);
        bytes.extend(initial(tree, layout, entry)?);
    }
    bytes.resize(SECTOR as usize, 0);
    Ok(bytes)
}

/// The first entry, whose words add up to zero.
fn validation(platform: Platform) -> Vec<u8> {
    let mut v = vec![1, platform as u8];
    v.resize(ENTRY - 2, 0);
    v.extend([0x55, 0xaa]);
    let sum = v.chunks(2).fold(0u16, |sum, word| sum.wrapping_add(u16::from_le_bytes([word[0], word[1]])));
    v[28..30].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    v
}

fn initial(tree: &Tree, layout: &Layout, entry: &Entry) -> Result<Vec<u8>> {
    let node = image(tree, entry)?;
    let size = tree.size(node);
    let wrong = |why: String| Error::invalid(format!("-b {}: {why}", entry.image));
    let mut system = 0;
    let kind = match entry.emulation {
        Emulation::None => 0,
        Emulation::Floppy => {
            let known = FLOPPIES.iter().find(|(known, _)| *known == size);
            known.map(|(_, kind)| *kind).ok_or_else(|| {
                wrong(format!(
                    "{size} bytes, which is no floppy of 1200, 1440 or 2880 KiB (or give -no-emul-boot)"
                ))
            })?
        }
        Emulation::HardDisk => {
            let sector = beginning(tree, node, BLOCK as usize)?;
            if sector.len() < BLOCK as usize || !sector.ends_with(&[0x55, 0xaa]) {
                return Err(wrong("not a hard disk with an MBR".into()));
            }
            // The type of its first partition.
            system = sector[446 + 4];
            HARD_DISK
        }
    };
    let all = match entry.emulation {
        Emulation::None => u16::try_from(size.div_ceil(BLOCK)).unwrap_or(u16::MAX),
        _ => 1,
    };
    let mut e = vec![if entry.bootable { 0x88 } else { 0 }, kind];
    e.extend(entry.load_segment.to_le_bytes());
    e.extend([system, 0]);
    e.extend(entry.load_size.unwrap_or(all).to_le_bytes());
    e.extend(layout.sector(node).to_le_bytes());
    e.resize(ENTRY, 0);
    Ok(e)
}

/// What images with a table of facts begin with, and where on the CD that is. The files themselves stay as they are.
pub(super) fn info_tables(tree: &Tree, layout: &Layout, options: &Options) -> Result<Vec<(u64, Vec<u8>)>> {
    let mut tables: Vec<(u64, Vec<u8>)> = Vec::new();
    for entry in options.boot.iter().filter(|entry| entry.info_table) {
        let node = image(tree, entry)?;
        let wrong = |why: &str| Error::invalid(format!("-boot-info-table: {}: {why}", entry.image));
        let size = u32::try_from(tree.size(node)).map_err(|_| wrong("too large"))?;
        let content = beginning(tree, node, size as usize)?;
        if content.len() < BEHIND_TABLE {
            return Err(wrong("it has less than 64 bytes, so there is no room in it"));
        }
        let words = content[BEHIND_TABLE..].chunks(4).map(|word| {
            let mut bytes = [0; 4];
            bytes[..word.len()].copy_from_slice(word);
            u32::from_le_bytes(bytes)
        });
        let sum = words.fold(0, u32::wrapping_add);
        let mut bytes = content[..BEHIND_TABLE].to_vec();
        bytes[TABLE..].fill(0);
        for (number, fact) in [volume::FIRST as u32, layout.sector(node), size, sum].into_iter().enumerate() {
            bytes[TABLE + number * 4..][..4].copy_from_slice(&fact.to_le_bytes());
        }
        if tables.iter().all(|(at, _)| *at != layout.start(node)) {
            tables.push((layout.start(node), bytes));
        }
    }
    Ok(tables)
}

/// Up to so many bytes of a file.
fn beginning(tree: &Tree, node: usize, most: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let path = tree.path(node);
    let read = File::open(&path).and_then(|file| file.take(most as u64).read_to_end(&mut bytes));
    read.map_err(|e| Error::from(e).context(path.display()))?;
    Ok(bytes)
}
