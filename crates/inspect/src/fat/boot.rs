//! The boot sector: where everything is.

use crate::{
    About, Source,
    bytes::{byte, le16, le32, part},
};
use disk::{Error, Range, Result};

pub(super) struct Boot {
    /// 12, 16 or 32: of an entry of the table.
    pub(super) bits: u32,
    /// Bytes of a cluster.
    pub(super) cluster: u64,
    /// How many.
    pub(super) clusters: u32,
    /// The root directory of FAT12 and FAT16.
    pub(super) root: Range,
    /// That of FAT32; else 0.
    pub(super) root_cluster: u32,
    /// Where the table begins, in bytes.
    table: Range,
    /// Where the clusters begin, in bytes.
    data: u64,
    label: String,
    serial: u32,
}

/// Whether a sector is the boot sector of a FAT file system.
pub(crate) fn is_boot_sector(bytes: &[u8]) -> bool {
    let jump = byte(bytes, 0) == 0xeb || byte(bytes, 0) == 0xe9;
    let sector = le16(bytes, 11);
    let (per_cluster, tables, media) = (byte(bytes, 13), byte(bytes, 16), byte(bytes, 21));
    let has_sectors = le16(bytes, 19) != 0 || le32(bytes, 32) != 0;
    let has_table = le16(bytes, 22) != 0 || le32(bytes, 36) != 0;
    jump && sector.is_power_of_two()
        && (512..=4096).contains(&sector)
        && per_cluster.is_power_of_two()
        && le16(bytes, 14) != 0
        && (1..=2).contains(&tables)
        && (media == 0xf0 || media >= 0xf8)
        && has_sectors
        && has_table
}

impl Boot {
    pub(super) fn read(source: &Source) -> Result<Boot> {
        let bytes = source.bytes(0, 512)?;
        if !is_boot_sector(&bytes) {
            return Err(Error::io("the boot sector is damaged"));
        }
        let sector = u64::from(le16(&bytes, 11));
        let either = |short: u16, long: u32| if short != 0 { u64::from(short) } else { u64::from(long) };
        let sectors = either(le16(&bytes, 19), le32(&bytes, 32));
        let per_table = either(le16(&bytes, 22), le32(&bytes, 36));
        let reserved = u64::from(le16(&bytes, 14));
        let root_size = (u64::from(le16(&bytes, 17)) * 32).next_multiple_of(sector);
        let cluster = u64::from(byte(&bytes, 13)) * sector;
        let root_start = (reserved + u64::from(byte(&bytes, 16)) * per_table) * sector;
        let data = root_start + root_size;
        let Some(room) = (sectors * sector).checked_sub(data) else {
            return Err(Error::io("the boot sector is damaged: no room for files is left"));
        };
        let clusters = room / cluster;
        // The number of clusters decides, and nothing else. But FAT32 is also made small.
        let bits = match clusters {
            _ if le16(&bytes, 22) == 0 => 32,
            0..4085 => 12,
            4085..65525 => 16,
            _ => 32,
        };
        let table_size = per_table * sector;
        // No more than the table has entries for.
        let clusters = clusters.min((table_size * 8 / bits).saturating_sub(2)).min(0x0fff_fff5) as u32;
        // On FAT32 one of the tables may be the valid one.
        let flags = le16(&bytes, 40);
        let active = if bits == 32 && flags & 0x80 != 0 { u64::from(flags & 15) } else { 0 };
        let more = if bits == 32 { 64 } else { 36 };
        let root_cluster = if bits == 32 { le32(&bytes, 44) & 0x0fff_ffff } else { 0 };
        if bits == 32 && !(2..clusters.saturating_add(2)).contains(&root_cluster) {
            return Err(Error::io("the boot sector is damaged: there is no root directory"));
        }
        let is_extended = byte(&bytes, more + 2) == 0x29;
        Ok(Boot {
            bits: bits as u32,
            cluster,
            clusters,
            root: Range::new(root_start, root_size),
            root_cluster,
            table: Range::new((reserved + active * per_table) * sector, table_size),
            data,
            label: if is_extended { super::names::label(part(&bytes, more + 7, 11)) } else { String::new() },
            serial: if is_extended { le32(&bytes, more + 3) } else { 0 },
        })
    }

    pub(super) fn about(&self) -> About {
        let kind = match self.bits {
            12 => "FAT12",
            16 => "FAT16",
            _ => "FAT32",
        };
        let label = if self.label == "NO NAME" { String::new() } else { self.label.clone() };
        let uuid = match self.serial {
            0 => String::new(),
            serial => format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff),
        };
        About { kind, label, uuid, notes: Vec::new() }
    }

    /// Whether there is a cluster with this number.
    pub(super) fn is_cluster(&self, number: u32) -> bool {
        number >= 2 && number - 2 < self.clusters
    }

    /// Numbers from this on end a chain.
    pub(super) fn end_mark(&self) -> u32 {
        match self.bits {
            12 => 0xff8,
            16 => 0xfff8,
            _ => 0x0fff_fff8,
        }
    }

    /// Where a cluster begins, in bytes.
    pub(super) fn place(&self, cluster: u32) -> u64 {
        self.data + u64::from(cluster.saturating_sub(2)) * self.cluster
    }

    /// What the table says of a cluster.
    pub(super) fn next(&self, source: &Source, cluster: u32) -> Result<u32> {
        let at = u64::from(cluster) * u64::from(self.bits) / 8;
        let len = if self.bits == 32 { 4 } else { 2 };
        if !Range::new(at, len).lies_within(self.table.len) {
            return Err(Error::io(format!("cluster {cluster} lies outside the table")));
        }
        let mut bytes = [0; 4];
        source.read(self.table.start + at, &mut bytes[..len as usize])?;
        let entry = u32::from_le_bytes(bytes);
        Ok(match self.bits {
            12 if cluster % 2 == 1 => entry >> 4,
            12 => entry & 0xfff,
            16 => entry,
            _ => entry & 0x0fff_ffff,
        })
    }
}
