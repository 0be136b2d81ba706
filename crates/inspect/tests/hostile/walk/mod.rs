//! A disk made of a few bytes, and a walk over all that is on it. Nothing may panic, and nothing may take long.

use disk::{Blocks, Data, Disk, Facts, Io, Range};
use diskpipe_inspect as inspect;
use inspect::{File, FileSystem, Kind, Source, content, partitions, path};
use std::{collections::HashSet, ops::ControlFlow, sync::Arc};

const SECTOR: usize = 512;
/// The largest disk.
const LARGEST: usize = 8 << 20;

/// A disk in memory.
struct Memory {
    facts: Facts,
    bytes: Vec<u8>,
}

impl Disk for Memory {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, range: Range) -> Io<'_, Data> {
        assert!(range.lies_within(self.facts.size) && !range.is_empty(), "{range}");
        Io::ok(Data::copy_from(&self.bytes[range.start as usize..range.end() as usize]))
    }
}

/// A disk from its sparse form: the number of sectors in two bytes, then for each that is not zero its number in two
/// bytes and its 512 bytes. The last one may be cut off.
pub fn unpack(input: &[u8]) -> Vec<u8> {
    let Some((count, mut rest)) = input.split_first_chunk::<2>() else { return Vec::new() };
    let mut bytes = vec![0; (usize::from(u16::from_le_bytes(*count)) * SECTOR).min(LARGEST)];
    while let Some((number, behind)) = rest.split_first_chunk::<2>() {
        let (sector, behind) = behind.split_at(behind.len().min(SECTOR));
        let at = usize::from(u16::from_le_bytes(*number)) * SECTOR;
        if let Some(place) = bytes.get_mut(at..at + sector.len()) {
            place.copy_from_slice(sector);
        }
        rest = behind;
    }
    bytes
}

/// The sparse form of a disk.
#[allow(dead_code, reason = "only seeds are packed")]
pub fn pack(bytes: &[u8]) -> Vec<u8> {
    let sectors = bytes.chunks(SECTOR);
    let mut out = (sectors.len() as u16).to_le_bytes().to_vec();
    for (number, sector) in sectors.enumerate().filter(|(_, sector)| sector.iter().any(|b| *b != 0)) {
        out.extend((number as u16).to_le_bytes());
        out.extend(sector);
    }
    out
}

/// Sets what a fuzzer would not find: checksums and magic numbers.
pub fn mend(bytes: &mut [u8], kind: &str) {
    let mut put = |at: usize, value: &[u8]| {
        if let Some(place) = bytes.get_mut(at..at + value.len()) {
            place.copy_from_slice(value);
        }
    };
    match kind {
        "ext" => put(1080, &[0x53, 0xef]),
        "fat" => put(0, &[0xeb]),
        "iso" => put(32769, b"CD001"),
        _ => put(510, &[0x55, 0xaa]),
    }
    if kind == "partitions" && bytes.len() >= 4 * SECTOR {
        for at in [SECTOR, bytes.len() - SECTOR] {
            mend_gpt(bytes, at);
        }
    }
}

fn mend_gpt(bytes: &mut [u8], at: usize) {
    let field = |bytes: &[u8], at: usize| {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
    };
    if &bytes[at..at + 8] != b"EFI PART" {
        return;
    }
    bytes[at + 24..at + 32].copy_from_slice(&((at / SECTOR) as u64).to_le_bytes());
    let start = field(bytes, at + 72).saturating_mul(SECTOR);
    let len = field(bytes, at + 80).saturating_mul(field(bytes, at + 84));
    if let Some(entries) = start.checked_add(len).and_then(|end| bytes.get(start..end)) {
        let sum = crc32fast::hash(entries);
        bytes[at + 88..at + 92].copy_from_slice(&sum.to_le_bytes());
    }
    let length = field(bytes, at + 12).clamp(92, SECTOR);
    bytes[at + 12..at + 16].copy_from_slice(&(length as u32).to_le_bytes());
    bytes[at + 16..at + 20].fill(0);
    let sum = crc32fast::hash(&bytes[at..at + length]);
    bytes[at + 16..at + 20].copy_from_slice(&sum.to_le_bytes());
}

/// Everything that is on the disk: partitions, and what is in the file systems. Returns how many files were seen.
pub fn everything(bytes: Vec<u8>) -> usize {
    let size = bytes.len() as u64;
    // Half of the disks have sectors that must be kept to.
    let minimum = if size.is_multiple_of(1024) { 512 } else { 1 };
    let blocks = Blocks { minimum, preferred: 4096, maximum: 64 << 10 };
    let disk = Memory { facts: Facts { blocks, ..Facts::read_only(size) }, bytes };
    let source = Source::new(Arc::new(disk));
    let mut seen = walk(&source);
    for sector in [None, Some(512), Some(4096)] {
        let Ok(Some(table)) = partitions::read(&source, sector) else { continue };
        for partition in table.partitions.iter().take(4) {
            let _ = partition.r#type.describe();
            seen += walk(&source.part(partition.range));
        }
    }
    seen
}

fn walk(source: &Source) -> usize {
    let Ok(file_system) = inspect::open(source) else { return 0 };
    let file_system = &*file_system;
    assert!(!file_system.about().kind.is_empty());
    let mut walk = Walk { file_system, seen: HashSet::new(), files: 0, left: 4 << 20 };
    if let Ok(root) = file_system.root() {
        walk.directory(&root, 0);
    }
    for at in ["/etc/os-release", "/../a/./b/", "LINK", ""] {
        if let Ok(found) = path::resolve(file_system, at.as_bytes(), true) {
            assert_ne!(found.file.kind, Kind::Link);
        }
    }
    walk.files
}

struct Walk<'a> {
    file_system: &'a dyn FileSystem,
    seen: HashSet<u64>,
    files: usize,
    /// Bytes of content that are read yet.
    left: u64,
}

impl Walk<'_> {
    fn directory(&mut self, directory: &File, depth: usize) {
        if !self.seen.insert(directory.id) || depth > 50 {
            return;
        }
        let mut entries = Vec::new();
        let _ = self.file_system.entries(directory, &mut |entry| {
            entries.push(entry);
            Ok(if entries.len() < 1000 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        });
        let some = &entries[..entries.len().min(64)];
        self.file_system.expect(some);
        let files: Vec<File> = some.iter().filter_map(|entry| self.file_system.file(entry).ok()).collect();
        content::expect(self.file_system, &files.iter().collect::<Vec<_>>());
        for entry in entries {
            self.files += 1;
            if self.files > 500 {
                return;
            }
            let Ok(file) = self.file_system.file(&entry) else { continue };
            match file.kind {
                Kind::Directory => self.directory(&file, depth + 1),
                Kind::Link => {
                    if let Ok(target) = self.file_system.target(&file) {
                        assert!(target.len() as u64 <= path::LONGEST_TARGET + 255);
                    }
                }
                _ => self.content(&file),
            }
        }
    }

    fn content(&mut self, file: &File) {
        let (mut next, left) = (0, &mut self.left);
        let read = content::read(self.file_system, file, &mut |at, data| {
            assert_eq!(at, next);
            next += data.len();
            // A hole costs nothing.
            let cost = if data.says_zeroes() { 1024 } else { data.len() };
            *left = left.checked_sub(cost).ok_or_else(|| disk::Error::io("enough"))?;
            Ok(())
        });
        assert!(read.is_err() || next == file.size);
    }
}
