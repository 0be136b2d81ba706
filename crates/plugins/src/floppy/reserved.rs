//! The sectors before the tables: what the file system is, twice, and how much is free.

use super::layout::{FIRST, Plan};
use crate::common::partition_table::{SECTOR, sector};

/// Where the second copies are.
const BACKUP: usize = 6;
const SECTOR_BYTES: usize = SECTOR as usize;

/// All of them, for a file system that begins at byte `start` of the disk.
pub(super) fn sectors(plan: &Plan, start: u64, label: [u8; 11], serial: u32) -> Vec<u8> {
    let first: Vec<u8> = [boot(plan, start, label, serial), free(plan), signed(Vec::new())].concat();
    let mut all = vec![0; (plan.reserved * SECTOR) as usize];
    all[..first.len()].copy_from_slice(&first);
    all[BACKUP * SECTOR_BYTES..][..first.len()].copy_from_slice(&first);
    all
}

/// What the file system is.
fn boot(plan: &Plan, start: u64, label: [u8; 11], serial: u32) -> Vec<u8> {
    let mut b = Vec::with_capacity(SECTOR_BYTES);
    b.extend([0xeb, 0x58, 0x90]);
    // Some systems look for this name.
    b.extend(b"MSWIN4.1");
    b.extend((SECTOR as u16).to_le_bytes());
    b.push(plan.per_cluster as u8);
    b.extend((plan.reserved as u16).to_le_bytes());
    b.push(2);
    // No entries of a root directory, no 16 bits of sectors, a fixed disk, no 16 bits of a table's size.
    b.extend([0, 0, 0, 0, 0xf8, 0, 0]);
    b.extend(63u16.to_le_bytes());
    b.extend(255u16.to_le_bytes());
    b.extend((sector(start) as u32).to_le_bytes());
    b.extend((sector(plan.size()) as u32).to_le_bytes());
    b.extend((plan.table as u32).to_le_bytes());
    // Both tables are in use; version 0.
    b.extend([0; 4]);
    b.extend(FIRST.to_le_bytes());
    b.extend(1u16.to_le_bytes());
    b.extend((BACKUP as u16).to_le_bytes());
    b.extend([0; 12]);
    b.extend([0x80, 0, 0x29]);
    b.extend(serial.to_le_bytes());
    b.extend(label);
    b.extend(b"FAT32   ");
    // Who boots from it waits for ever: hlt, and again.
    b.extend([0xf4, 0xeb, 0xfd]);
    signed(b)
}

/// How many clusters are free, and where.
fn free(plan: &Plan) -> Vec<u8> {
    let mut b = b"RRaA".to_vec();
    b.resize(484, 0);
    b.extend(b"rrAa");
    b.extend(((plan.clusters - plan.used()) as u32).to_le_bytes());
    b.extend((FIRST + plan.used() as u32).to_le_bytes());
    signed(b)
}

/// A sector with the mark at its end that all have here.
fn signed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(SECTOR_BYTES - 2, 0);
    bytes.extend([0x55, 0xaa]);
    bytes
}
