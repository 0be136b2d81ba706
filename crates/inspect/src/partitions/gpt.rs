//! The GUID partition table of UEFI: a header and entries at the beginning of the disk, and again at its end.

use super::{Partition, Scheme, Table, Type};
use crate::{
    Guid, Source,
    bytes::{byte, id, le32, le64, part, uuid},
};
use disk::{Error, Range, Result};

/// More entries, and more bytes of them, than any program writes.
const MOST_ENTRIES: u32 = 4096;
const MOST_BYTES: u64 = 2 << 20;

/// Reads the GPT, `None` where there is no trace of one. `announced`: an MBR says that there is one.
pub(super) fn read(disk: &Source, sector: Option<u32>, announced: bool) -> Result<Option<Table>> {
    let sectors = sector.map_or(vec![512, 4096], |sector| vec![sector]);
    let mut why = None;
    for first in [true, false] {
        for sector in sectors.iter().copied() {
            let size = u64::from(sector);
            let Some(last) = (disk.size() / size).checked_sub(1).filter(|last| *last > 1) else { continue };
            match copy(disk, size, if first { 1 } else { last }) {
                Ok(Some(partitions)) => {
                    let mut notes = Vec::new();
                    if !first {
                        notes.push("the first copy of the GPT is damaged; this is the second, from the end of the disk".into());
                    }
                    return Ok(Some(Table { scheme: Scheme::Gpt, sector, partitions, notes }));
                }
                Ok(None) => {}
                Err(e) => why = why.or(Some(e)),
            }
        }
        if !announced && why.is_none() {
            return Ok(None);
        }
    }
    match why {
        Some(e) if announced => Err(e.context("both copies of the GPT are damaged")),
        _ => Ok(None),
    }
}

/// The partitions by one of the copies, whose header is in the sector with this number.
fn copy(disk: &Source, sector: u64, at: u64) -> Result<Option<Vec<Partition>>> {
    let mut header = disk.beginning(at * sector, sector as usize)?;
    if part(&header, 0, 8) != b"EFI PART" {
        return Ok(None);
    }
    let damaged = |what: &str| Err(Error::io(format!("the GPT header in sector {at} {what}")));
    let length = le32(&header, 12) as usize;
    if !(92..=header.len()).contains(&length) {
        return damaged("has an impossible size");
    }
    let expected = le32(&header, 16);
    header[16..20].fill(0);
    if crc32fast::hash(&header[..length]) != expected {
        return damaged("has a wrong checksum");
    }
    if le64(&header, 24) != at {
        return damaged("was made for another place");
    }
    let (table, count, size) = (le64(&header, 72), le32(&header, 80), le32(&header, 84));
    let all = u64::from(count) * u64::from(size);
    if size < 128 || !size.is_multiple_of(8) || count > MOST_ENTRIES || all > MOST_BYTES {
        return damaged("tells of impossible entries");
    }
    let Some(start) = table.checked_mul(sector) else { return damaged("tells of entries beyond the disk") };
    let entries = disk.bytes(start, all as usize)?;
    if crc32fast::hash(&entries) != le32(&header, 88) {
        return damaged("has entries with a wrong checksum");
    }
    let entries = entries.chunks_exact(size as usize).zip(1..);
    Ok(Some(entries.filter_map(|(entry, number)| partition(entry, number, sector)).collect()))
}

/// The partition of an entry; `None` where it is empty or makes no sense.
fn partition(entry: &[u8], number: u32, sector: u64) -> Option<Partition> {
    let r#type = id(entry, 0);
    let (first, last) = (le64(entry, 32), le64(entry, 40));
    if r#type == [0; 16] || last < first {
        return None;
    }
    let (start, len) = (first.checked_mul(sector)?, (last - first).checked_add(1)?.checked_mul(sector)?);
    start.checked_add(len)?;
    let name = part(entry, 56, 72).chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    let name: Vec<u16> = name.take_while(|unit| *unit != 0).collect();
    // Lies as Linux writes it, in the order of the text.
    let own = Guid(id(entry, 16));
    let own = if own.0 == [0; 16] { uuid(own.0) } else { own.to_string().to_lowercase() };
    Some(Partition {
        number,
        range: Range::new(start, len),
        r#type: Type::Gpt(Guid(r#type)),
        name: String::from_utf16_lossy(&name),
        id: own,
        bootable: byte(entry, 48) & 4 != 0,
    })
}
