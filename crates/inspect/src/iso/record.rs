//! A record of a directory.

use super::short_time;
use crate::{
    bytes::{be16, byte, le32, part},
    file_system::Time,
};

/// One record, with all its bytes.
#[derive(Clone, Debug)]
pub(super) struct Record {
    bytes: Vec<u8>,
    /// Where it is, in bytes.
    pub(super) at: u64,
}

impl Record {
    /// The record at the beginning of these bytes; `None` where there is none.
    pub(super) fn parse(bytes: &[u8], at: u64) -> Option<Record> {
        let length = usize::from(byte(bytes, 0));
        let name = usize::from(byte(bytes, 32));
        if length < 34 || length > bytes.len() || 33 + name > length {
            return None;
        }
        Some(Record { bytes: bytes[..length].to_vec(), at })
    }

    /// In bytes.
    pub(super) fn length(&self) -> usize {
        self.bytes.len()
    }

    /// Where the content begins, behind the attributes that it may have, in bytes.
    pub(super) fn start(&self, block: u64) -> u64 {
        (u64::from(le32(&self.bytes, 2)) + u64::from(byte(&self.bytes, 1))) * block
    }

    /// Of the content, in bytes.
    pub(super) fn size(&self) -> u64 {
        le32(&self.bytes, 10).into()
    }

    pub(super) fn time(&self) -> Time {
        short_time(part(&self.bytes, 18, 7))
    }

    pub(super) fn is_directory(&self) -> bool {
        byte(&self.bytes, 25) & 2 != 0
    }

    /// The file has a further extent, which the next record is about.
    pub(super) fn goes_on(&self) -> bool {
        byte(&self.bytes, 25) & 0x80 != 0
    }

    pub(super) fn is_interleaved(&self) -> bool {
        byte(&self.bytes, 26) != 0 || byte(&self.bytes, 27) != 0
    }

    fn name(&self) -> &[u8] {
        part(&self.bytes, 33, byte(&self.bytes, 32).into())
    }

    pub(super) fn is_self_or_parent(&self) -> bool {
        matches!(self.name(), [0] | [1])
    }

    /// Without the version, and the dot before an extension that is not there.
    pub(super) fn plain_name(&self) -> Vec<u8> {
        let name = self.name();
        let name = name.split(|b| *b == b';').next().unwrap_or(name);
        name.strip_suffix(b".").unwrap_or(name).to_vec()
    }

    /// In UTF-16 on the disk.
    pub(super) fn joliet_name(&self) -> Vec<u8> {
        let units: Vec<u16> = self.name().chunks_exact(2).map(|unit| be16(unit, 0)).collect();
        let name = String::from_utf16_lossy(&units);
        let version = name.rsplit_once(';').filter(|(_, v)| v.bytes().all(|b| b.is_ascii_digit()));
        version.map_or(name.as_str(), |(name, _)| name).into()
    }

    /// What is behind the name, for others than ISO 9660.
    pub(super) fn system_use(&self) -> &[u8] {
        let name = usize::from(byte(&self.bytes, 32));
        // The name is padded to an even length of all before.
        part(&self.bytes, 33 + name + usize::from(name.is_multiple_of(2)), self.bytes.len())
    }
}
