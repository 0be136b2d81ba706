//! The partition table of DOS: four entries in the first sector, and a chain of further sectors for logical partitions.

use super::{Partition, Scheme, Table, Type};
use crate::{
    Source,
    bytes::{byte, le32, part},
    fat, sniff,
};
use disk::{Range, Result};

/// Behind this many logical partitions the chain is not followed.
const MOST_LOGICAL: usize = 1024;

/// One of four entries, not an empty one.
struct Entry {
    /// From 0.
    index: u32,
    bootable: bool,
    kind: u8,
    /// Both in sectors.
    start: u64,
    len: u64,
}

impl Entry {
    fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85 | 0xc5)
    }
}

fn entries(sector: &[u8]) -> impl Iterator<Item = Entry> + '_ {
    (0..4).filter_map(|index| {
        let entry = part(sector, 0x1be + index as usize * 16, 16);
        let (start, len) = (u64::from(le32(entry, 8)), u64::from(le32(entry, 12)));
        let (bootable, kind) = (byte(entry, 0) & 0x80 != 0, byte(entry, 4));
        (kind != 0 && len != 0).then_some(Entry { index, bootable, kind, start, len })
    })
}

/// Whether the sector ends as boot sectors do.
pub(super) fn is_signed(sector: &[u8]) -> bool {
    part(sector, 0x1fe, 2) == [0x55, 0xaa]
}

/// Whether it says that there is a GPT.
pub(super) fn announces_gpt(sector: &[u8]) -> bool {
    is_signed(sector) && entries(sector).any(|entry| entry.kind == 0xee)
}

/// Whether the entries make sense: boot code and boot sectors of file systems seldom do.
fn is_plausible(first: &[u8]) -> bool {
    let flags = (0..4).all(|index| byte(first, 0x1be + index * 16) & 0x7f == 0);
    let mut all: Vec<Entry> = entries(first).collect();
    all.sort_by_key(|entry| entry.start);
    let apart = all
        .windows(2)
        .all(|pair| pair[0].start + pair[0].len <= pair[1].start || pair.iter().any(|e| e.kind == 0xee));
    is_signed(first) && flags && !all.is_empty() && apart
}

/// Reads the MBR, of which the first sector is here already.
pub(super) fn read(disk: &Source, first: &[u8], sector: Option<u32>) -> Result<Option<Table>> {
    if !is_plausible(first)
        || fat::is_boot_sector(first)
        || part(first, 3, 8) == b"NTFS    "
        || part(first, 3, 8) == b"EXFAT   "
    {
        return Ok(None);
    }
    let with = |sector| table(disk, first, sector);
    Ok(Some(match sector {
        Some(sector) => with(sector)?,
        // The table does not tell. Nearly always it is 512; it is 4096 if only then something known is found.
        None => {
            let small = with(512)?;
            let is_known = |table: &Table| {
                table
                    .partitions
                    .iter()
                    .take(8)
                    .any(|p| sniff(&disk.part(p.range)).is_ok_and(|found| found.is_known()))
            };
            match is_known(&small) {
                true => small,
                false => Some(with(4096)?).filter(is_known).unwrap_or(small),
            }
        }
    }))
}

fn table(disk: &Source, first: &[u8], sector: u32) -> Result<Table> {
    let signature = le32(first, 0x1b8);
    let size = u64::from(sector);
    let mut found = Table { scheme: Scheme::Mbr, sector, partitions: Vec::new(), notes: Vec::new() };
    let partition = |number: u32, entry: &Entry, start: u64| Partition {
        number,
        range: Range::new(start * size, entry.len * size),
        r#type: Type::Mbr(entry.kind),
        name: String::new(),
        id: if signature == 0 { String::new() } else { format!("{signature:08x}-{number:02x}") },
        bootable: entry.bootable,
    };
    let mut extended = None;
    for entry in entries(first) {
        if entry.is_extended() {
            extended = extended.or(Some(entry.start));
        } else if entry.kind != 0xee {
            found.partitions.push(partition(entry.index + 1, &entry, entry.start));
        }
    }
    let Some(extended) = extended else { return Ok(found) };
    let mut link = extended;
    let mut links = Vec::new();
    loop {
        // Each link lies farther on than all before only in well-kept chains; in a damaged one they may go round.
        if links.contains(&link) || links.len() == MOST_LOGICAL {
            found.notes.push("the chain of logical partitions goes round in a circle".into());
            break;
        }
        links.push(link);
        let bytes = disk.beginning(link * size, 512)?;
        if !is_signed(&bytes) {
            found.notes.push(format!("the chain of logical partitions is broken in sector {link}"));
            break;
        }
        let mut next = None;
        for entry in entries(&bytes) {
            if entry.is_extended() {
                next = next.or(Some(extended + entry.start));
            } else {
                let number = 5 + links.len() as u32 - 1;
                // A link has one partition. More would have no number.
                if found.partitions.last().is_none_or(|last| last.number != number) {
                    found.partitions.push(partition(number, &entry, link + entry.start));
                }
            }
        }
        match next {
            Some(next) => link = next,
            None => break,
        }
    }
    Ok(found)
}
