//! The partition table of DOS: four entries in the first sector, and a chain of further sectors for logical partitions.

use super::{Cursor, Layout, SECTOR, Wanted, sector};
use disk::{Error, Range, Result};

/// More partitions than this make the fourth entry an extended partition, with all from the fourth on inside.
pub(crate) const MAX_PRIMARY: usize = 4;

/// The largest disk in bytes: an entry counts sectors in 32 bits.
pub(crate) const MAX_SIZE: u64 = SECTOR << 32;

/// An extended partition that is addressed by sectors.
const EXTENDED: u8 = 0x0f;

/// "Cylinder 1023, head 254, sector 63": see the sector numbers instead.
const NO_CHS: [u8; 3] = [0xfe, 0xff, 0xff];

/// Lays partitions out behind an MBR.
///
/// # Errors
/// When the disk would be larger than an MBR can describe, 2 TiB.
pub(crate) fn mbr(wanted: &[Wanted]) -> Result<Layout> {
    let mut cursor = Cursor(SECTOR);
    let primary = if wanted.len() > MAX_PRIMARY { MAX_PRIMARY - 1 } else { wanted.len() };
    let (primary, logical) = wanted.split_at(primary);
    let mut layout = Layout { size: 0, partitions: Vec::new(), tables: Vec::new() };
    let mut first = boot_sector();
    for (entry, wanted) in primary.iter().enumerate() {
        let range = cursor.take(wanted.size, wanted.alignment)?;
        put(&mut first, entry, wanted.bootable, wanted.mbr_type, 0, range)?;
        layout.partitions.push(range);
    }
    let mut links = Vec::new();
    for wanted in logical {
        let link = cursor.take(SECTOR, SECTOR)?;
        let range = cursor.take(wanted.size, wanted.alignment)?;
        links.push((link, range, wanted));
        layout.partitions.push(range);
    }
    layout.size = cursor.0;
    if let Some((link, ..)) = links.first() {
        let extended = Range::new(link.start, layout.size - link.start);
        put(&mut first, MAX_PRIMARY - 1, false, EXTENDED, 0, extended)?;
        layout.tables.push((0, first));
        layout.tables.extend(chain(&links, extended)?);
    } else {
        layout.tables.push((0, first));
    }
    Ok(layout)
}

/// The sectors before each logical partition: in the first entry that partition, counted from this sector; in the
/// second the next link with its partition, counted from the beginning of the extended partition.
fn chain(links: &[(Range, Range, &Wanted)], extended: Range) -> Result<Vec<(u64, Vec<u8>)>> {
    let mut sectors = Vec::new();
    for (number, (link, range, wanted)) in links.iter().enumerate() {
        let mut bytes = boot_sector();
        put(&mut bytes, 0, wanted.bootable, wanted.mbr_type, link.start, *range)?;
        if let Some((next, its, _)) = links.get(number + 1) {
            let both = Range::new(next.start, its.end() - next.start);
            put(&mut bytes, 1, false, EXTENDED, extended.start, both)?;
        }
        sectors.push((link.start, bytes));
    }
    Ok(sectors)
}

/// A sector without code or entries.
pub(super) fn boot_sector() -> Vec<u8> {
    let mut sector = vec![0; SECTOR as usize];
    sector[0x1fe..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// Fills an entry; the place of its partition is counted from byte `base`.
fn put(table: &mut [u8], entry: usize, boot: bool, kind: u8, base: u64, range: Range) -> Result<()> {
    if range.end() > MAX_SIZE {
        let why = "an MBR describes disks up to 2 TiB, and these partitions need more; use a GPT";
        return Err(Error::invalid(why));
    }
    let number = |bytes: u64| (sector(bytes) as u32).to_le_bytes();
    let entry = &mut table[0x1be + entry * 16..][..16];
    entry[0] = if boot { 0x80 } else { 0 };
    entry[1..4].copy_from_slice(&NO_CHS);
    entry[4] = kind;
    entry[5..8].copy_from_slice(&NO_CHS);
    entry[8..12].copy_from_slice(&number(range.start - base));
    entry[12..].copy_from_slice(&number(range.len));
    Ok(())
}
