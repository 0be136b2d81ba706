//! The header of a file of `cbt`: what it follows, and which checkpoints there are.
//!
//! There are two places for it, which are written one after the other: what a power cut leaves half written is not the newest whole one.

use disk::{Error, Result};

/// Bytes of each of the two places for a header.
pub(super) const SLOT: usize = 64 << 10;
const MAGIC: &[u8; 8] = b"dpcbt\x001\n";
/// The magic, the length and the sum.
const FRAME: usize = 8 + 4 + 4;
/// The longest name, in bytes, as of qemu's bitmaps.
pub(super) const LONGEST_NAME: usize = 1023;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The newer of two headers has the higher one.
    pub(super) turn: u64,
    /// Bytes of a granule: a power of two.
    pub(super) granule: u64,
    /// Of the disk, in bytes.
    pub(super) size: u64,
    /// The size that the disk is being given, and may have already.
    pub(super) becoming: Option<u64>,
    /// What is written now is marked with this number. Each checkpoint begins with a new one, from 1 on.
    pub(super) epoch: u32,
    /// Somebody uses the file, or has stopped without an orderly end.
    pub(super) in_use: Option<Witness>,
    /// The export whose disk it is.
    pub(super) export: String,
    pub(super) checkpoints: Vec<Checkpoint>,
}

/// A point in time since which changes are known: they are marked with its epoch or a later one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) name: String,
    pub(super) epoch: u32,
    /// Seconds since 1970.
    pub(super) started: u64,
}

/// Under which kernel, and on which of its mounts, the file was used. As long as both are there, so is all that was
/// written to it, synced or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Witness {
    pub(super) boot: u128,
    /// Unique among all mounts since that boot; 0: not known.
    pub(super) mount: u64,
    pub(super) inode: u64,
}

impl Header {
    /// As it is written.
    ///
    /// # Errors
    /// When there is no room for so many checkpoints.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(4096);
        for number in [self.turn, self.granule, self.size, self.becoming.unwrap_or(u64::MAX)] {
            out.extend(number.to_le_bytes());
        }
        out.extend(self.epoch.to_le_bytes());
        out.push(self.in_use.is_some().into());
        let witness = self.in_use.unwrap_or_default();
        out.extend(witness.boot.to_le_bytes());
        out.extend(witness.mount.to_le_bytes());
        out.extend(witness.inode.to_le_bytes());
        put_text(&mut out, &self.export);
        out.extend((self.checkpoints.len() as u32).to_le_bytes());
        for checkpoint in &self.checkpoints {
            out.extend(checkpoint.epoch.to_le_bytes());
            out.extend(checkpoint.started.to_le_bytes());
            put_text(&mut out, &checkpoint.name);
        }
        if out.len() + FRAME > SLOT {
            let count = self.checkpoints.len();
            return Err(Error::new(disk::Errno::NOSPC, format!("there is no room for {count} checkpoints")));
        }
        Ok(framed(&out))
    }

    /// What was written into a slot. The error says what is wrong with it.
    pub(super) fn decode(slot: &[u8]) -> std::result::Result<Header, &'static str> {
        if slot.get(..8) != Some(MAGIC) {
            return Err("it is no file of the filter cbt");
        }
        let cut = "its header is damaged";
        let len =
            slot.get(8..12).map_or(0, |b| u32::from_le_bytes(b.try_into().unwrap_or_default())) as usize;
        if !(FRAME - 4..=SLOT - 4).contains(&len) {
            return Err(cut);
        }
        let (body, sum) = slot.get(..len).zip(slot.get(len..len + 4)).ok_or(cut)?;
        if crc32fast::hash(body).to_le_bytes() != sum {
            return Err(cut);
        }
        let mut rest = Rest(&body[12..]);
        let header = rest.header().ok_or(cut)?;
        header.is_sound().then_some(header).ok_or(cut)
    }

    /// Whether the numbers can be true.
    fn is_sound(&self) -> bool {
        let ordered = self.checkpoints.windows(2).all(|pair| pair[0].epoch < pair[1].epoch);
        (512..=1 << 31).contains(&self.granule)
            && self.granule.is_power_of_two()
            && i64::try_from(self.size).is_ok()
            && self.becoming.is_none_or(|size| i64::try_from(size).is_ok())
            && ordered
            // So often nobody writes: it can be counted on.
            && self.turn < 1 << 62
            && self.epoch > 0
            && self
                .checkpoints
                .iter()
                .all(|c| c.epoch <= self.epoch && c.epoch > 0 && name_fault(&c.name).is_none())
    }

    pub(super) fn find(&self, name: &str) -> Option<&Checkpoint> {
        self.checkpoints.iter().find(|checkpoint| checkpoint.name == name)
    }
}

/// What is wrong with the name of a checkpoint.
pub(super) fn name_fault(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("it is empty"),
        name if name.len() > LONGEST_NAME => Some("longer than 1023 bytes"),
        name if name.chars().any(|c| c.is_whitespace() || c.is_control()) => {
            Some("white space or a control character is in it")
        }
        _ => None,
    }
}

/// A body with its magic, its length and its sum.
pub(super) fn framed(body: &[u8]) -> Vec<u8> {
    let len = (MAGIC.len() + 4 + body.len()) as u32;
    let mut out = [MAGIC, &len.to_le_bytes()[..], body].concat();
    let sum = crc32fast::hash(&out);
    out.extend(sum.to_le_bytes());
    out
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.as_bytes());
}

/// What has not been read yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }
    fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }
    fn text(&mut self) -> Option<String> {
        let len = self.bytes().map(u16::from_le_bytes)?;
        let (text, rest) = self.0.split_at_checked(len.into())?;
        self.0 = rest;
        Some(str::from_utf8(text).ok()?.to_owned())
    }
    fn header(&mut self) -> Option<Header> {
        let (turn, granule, size) = (self.u64()?, self.u64()?, self.u64()?);
        let becoming = Some(self.u64()?).filter(|size| *size != u64::MAX);
        let epoch = self.u32()?;
        let [used] = self.bytes()?;
        let witness =
            Witness { boot: self.bytes().map(u128::from_le_bytes)?, mount: self.u64()?, inode: self.u64()? };
        let in_use = (used != 0).then_some(witness);
        let export = self.text()?;
        let mut checkpoints = Vec::new();
        for _ in 0..self.u32()? {
            let (epoch, started) = (self.u32()?, self.u64()?);
            checkpoints.push(Checkpoint { epoch, started, name: self.text()? });
        }
        self.0.is_empty().then_some(Header {
            turn,
            granule,
            size,
            becoming,
            epoch,
            in_use,
            export,
            checkpoints,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(names: Vec<String>, numbers: (u64, u64, u32), used: bool) -> Header {
        let (turn, size, epoch) = numbers;
        let size = size >> 1;
        let mut checkpoints = Vec::new();
        for (i, name) in names.into_iter().enumerate() {
            checkpoints.push(Checkpoint { name, epoch: i as u32 + 1, started: turn });
        }
        let epoch = epoch.max(checkpoints.len() as u32 + 1);
        let in_use = used.then_some(Witness { boot: 1 << 100, mount: 7, inode: 8 });
        Header {
            turn: turn >> 2,
            granule: 65536,
            size,
            becoming: used.then_some(5),
            epoch,
            in_use,
            export: "a b".into(),
            checkpoints,
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            names in prop::collection::vec("[a-z0-9ä-]{1,40}", 0..20),
            numbers: (u64, u64, u32),
            used: bool,
        ) {
            let header = header(names, numbers, used);
            let mut slot = header.encode().unwrap();
            prop_assert_eq!(Header::decode(&slot), Ok(header.clone()));
            slot.resize(SLOT, 0xA5);
            prop_assert_eq!(Header::decode(&slot), Ok(header));
        }

        #[test]
        fn one_wrong_byte_is_noticed(at in 0usize..150, with in 1u8..) {
            let mut slot = header(vec!["one".into(), "two".into()], (3, 4, 5), true).encode().unwrap();
            let at = at % slot.len();
            slot[at] ^= with;
            prop_assert!(Header::decode(&slot).is_err());
        }

        #[test]
        fn nonsense_is_refused(bytes: Vec<u8>) {
            prop_assert!(Header::decode(&bytes).is_err());
            let _ = Header::decode(&framed(&bytes));
        }
    }

    #[test]
    fn a_turn_that_could_not_be_followed_by_another_is_refused() {
        let slot = header(vec![], (3, 4, 5), false);
        let slot = Header { turn: u64::MAX, ..slot }.encode().unwrap();
        assert!(Header::decode(&slot).is_err());
    }

    #[test]
    fn there_is_room_for_many_checkpoints_and_then_no_more() {
        let many = |count| {
            header((0..count).map(|n| format!("checkpoint-{n:04}")).collect(), (1, 2, 3), true).encode()
        };
        assert!(many(2000).is_ok());
        assert_eq!(many(3000).unwrap_err().to_string(), "there is no room for 3000 checkpoints");
    }
}
