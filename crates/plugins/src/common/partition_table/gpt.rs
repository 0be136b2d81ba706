//! The GUID partition table of UEFI: a header and entries at the beginning of the disk, and again at its end.

use super::{Cursor, Guid, Layout, SECTOR, Wanted, mbr::boot_sector, sector};
use disk::{Range, Result};

/// In bytes.
const ENTRY: u64 = 128;
/// There is always room for so many, since some programs expect exactly this.
const ENTRIES: u64 = 128;
/// UTF-16 units.
const NAME: usize = 36;
/// Attribute bit 2: a BIOS may boot from it.
const LEGACY_BOOT: u64 = 1 << 2;

/// Lays partitions out between the two tables of a disk with this id.
///
/// # Errors
/// When the disk would be larger than a disk can be.
pub(crate) fn gpt(wanted: &[Wanted], disk: Guid) -> Result<Layout> {
    let entries = ENTRIES.max((wanted.len() as u64).next_multiple_of(SECTOR / ENTRY));
    let table = entries * ENTRY;
    let mut cursor = Cursor(2 * SECTOR + table);
    let first_usable = cursor.0;
    let partitions =
        wanted.iter().map(|w| cursor.take(w.size, w.alignment)).collect::<Result<Vec<Range>>>()?;
    let usable = Range::new(first_usable, cursor.0 - first_usable);
    let second = cursor.take(table + SECTOR, SECTOR)?;
    let size = second.end();

    let mut bytes = Vec::with_capacity(table as usize);
    for (wanted, range) in wanted.iter().zip(&partitions) {
        put(&mut bytes, wanted, *range);
    }
    bytes.resize(table as usize, 0);
    let header = Header { disk, usable, size, entries, crc: crc32fast::hash(&bytes) };
    let mut beginning = protective_mbr(size);
    beginning.extend(header.bytes(SECTOR, size - SECTOR, 2 * SECTOR));
    beginning.extend(&bytes);
    let mut end = bytes;
    end.extend(header.bytes(size - SECTOR, SECTOR, second.start));
    Ok(Layout { size, partitions, tables: vec![(0, beginning), (second.start, end)] })
}

/// What both headers say.
struct Header {
    disk: Guid,
    /// Where partitions may lie.
    usable: Range,
    size: u64,
    entries: u64,
    crc: u32,
}

impl Header {
    /// The header that lies at byte `at`, knows of the `other`, and has its entries at `table`.
    fn bytes(&self, at: u64, other: u64, table: u64) -> Vec<u8> {
        debug_assert!(at < self.size && other < self.size);
        let mut h = Vec::with_capacity(SECTOR as usize);
        h.extend(b"EFI PART");
        h.extend(0x0001_0000u32.to_le_bytes());
        h.extend(92u32.to_le_bytes());
        // Its own checksum, for which it counts as zero, and a reserved field.
        h.extend([0; 8]);
        let last_usable = self.usable.end() - SECTOR;
        for byte in [at, other, self.usable.start, last_usable] {
            h.extend(sector(byte).to_le_bytes());
        }
        h.extend(self.disk.0);
        h.extend(sector(table).to_le_bytes());
        h.extend((self.entries as u32).to_le_bytes());
        h.extend((ENTRY as u32).to_le_bytes());
        h.extend(self.crc.to_le_bytes());
        let crc = crc32fast::hash(&h);
        h[16..20].copy_from_slice(&crc.to_le_bytes());
        h.resize(SECTOR as usize, 0);
        h
    }
}

/// Appends an entry.
fn put(table: &mut Vec<u8>, wanted: &Wanted, range: Range) {
    table.extend(wanted.gpt_type.0);
    table.extend(wanted.id.0);
    table.extend(sector(range.start).to_le_bytes());
    table.extend((sector(range.end()) - 1).to_le_bytes());
    table.extend((if wanted.bootable { LEGACY_BOOT } else { 0 }).to_le_bytes());
    let mut units = 0;
    for c in wanted.name.chars().filter(|c| !c.is_control()) {
        // Whole characters only, and a zero behind the last.
        units += c.len_utf16();
        if units >= NAME {
            break;
        }
        let mut pair = [0; 2];
        table.extend(c.encode_utf16(&mut pair).iter().flat_map(|unit| unit.to_le_bytes()));
    }
    table.resize(table.len().next_multiple_of(ENTRY as usize), 0);
}

/// For programs that know only MBRs: one partition of an unknown kind, all over the disk.
fn protective_mbr(size: u64) -> Vec<u8> {
    let mut first = boot_sector();
    let sectors = u32::try_from(sector(size) - 1).unwrap_or(u32::MAX);
    let entry = &mut first[0x1be..0x1ce];
    entry[1..8].copy_from_slice(&[0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff]);
    entry[8..12].copy_from_slice(&1u32.to_le_bytes());
    entry[12..].copy_from_slice(&sectors.to_le_bytes());
    first
}
