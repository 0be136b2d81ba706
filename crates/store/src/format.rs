//! The file's format, as bytes: the header, and the batches of the log. `docs/decisions/0004-store.md` draws it.
//!
//! All numbers are little-endian. What is read was perhaps written by nobody of ours: every field is checked.

use crate::leaf::{LEAF_BLOCKS, WORDS};
use disk::{Error, Result};

/// A header takes so many bytes; there are two, one after the other, at the beginning of the file.
pub(crate) const HEADER: u64 = 4096;
/// Logs and leaves lie behind the headers.
pub(crate) const FIRST: u64 = 2 * HEADER;
/// Batches and leaves begin at multiples of this.
pub(crate) const GRAIN: u64 = 4096;
/// A batch carries no more than this.
pub(crate) const MOST: usize = 1 << 20;
/// The longest identity and the longest path of a parent, in bytes.
pub const LONGEST: usize = 1900;

const MAGIC: [u8; 8] = *b"DPSTORE\n";
const VERSION: u32 = 1;
const BATCH: u32 = 0x4C50_4442;
const BATCH_HEAD: usize = 32;
const LEAF: u64 = 1;
const ZERO: u64 = 2;
/// Sizes of blocks, in bytes.
const BLOCKS: std::ops::RangeInclusive<u64> = 512..=1 << 31;

/// Headers and logs that were ever written: no disk lives to see the last.
const COUNTS: std::ops::RangeInclusive<u64> = 1..=1 << 62;

/// What a store is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Changes to a disk.
    Overlay,
    /// What is known of a slower disk.
    Cache,
}

/// Tells one store from all others.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Id(pub [u8; 16]);

impl std::fmt::Display for Id {
    /// As UUIDs are written.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            let dash = if [4, 6, 8, 10].contains(&i) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl Id {
    /// A new one, by chance.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn new() -> Result<Id> {
        let mut id = [0; 16];
        let got = rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
        if got != id.len() {
            return Err(Error::io("the system gave too few random bytes"));
        }
        // Version 4, variant 1.
        id[6] = id[6] & 0x0F | 0x40;
        id[8] = id[8] & 0x3F | 0x80;
        Ok(Id(id))
    }
}

/// The store that this one stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Which one it must be.
    pub id: Id,
    /// Where it is: beside this file, if the path is relative.
    pub path: String,
}

/// A part of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) start: u64,
    pub(crate) len: u64,
}

impl Area {
    pub(crate) fn end(self) -> u64 {
        self.start + self.len
    }
    fn is_sound(self) -> bool {
        self.start >= FIRST
            && self.start.is_multiple_of(GRAIN)
            && self.len.is_multiple_of(GRAIN)
            && self.start.checked_add(self.len).is_some_and(|end| end <= i64::MAX as u64)
    }
}

/// What a store says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is for.
    pub kind: Kind,
    /// Its own identity.
    pub id: Id,
    /// Bytes of a block: a power of two.
    pub block: u64,
    /// Bytes of the disk.
    pub size: u64,
    /// What the disk below said of its content, empty if nothing.
    pub identity: String,
    /// What it stands on, if not directly on the disk below.
    pub parent: Option<Parent>,
    /// Others stand on it: it must not change.
    pub frozen: bool,
    /// Counts the headers written.
    pub generation: u64,
    /// Counts the logs; binds batches to theirs.
    pub(crate) epoch: u64,
    pub(crate) log: Area,
    /// Was the log before, and will be the next one.
    pub(crate) spare: Area,
    /// So many batches of the log must be there; more may.
    pub(crate) batches: u64,
}

/// Bytes that are read one after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or_else(|| damaged("a field ends too early"))?;
        self.0 = rest;
        Ok(bytes)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }
    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }
    fn area(&mut self) -> Result<Area> {
        Ok(Area { start: self.u64()?, len: self.u64()? })
    }
    fn text(&mut self, len: u32) -> Result<String> {
        let bytes = self.bytes(len as usize)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| damaged("a text in the header is not UTF-8"))
    }
}

/// The error of a file that no crash leaves behind.
pub(crate) fn damaged(why: impl std::fmt::Display) -> Error {
    Error::io(format!("the file is damaged: {why}"))
}

/// The checksum of bytes in which its own four, from `at` on, count as zero.
fn checksum(bytes: &[u8], at: usize) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..at]);
    hasher.update(&[0; 4]);
    hasher.update(&bytes[at + 4..]);
    hasher.finalize()
}

/// Why there is no header in these bytes.
#[derive(Debug)]
pub(crate) enum NoHeader {
    /// This was never one.
    Foreign,
    /// It was one, or half of one.
    Torn,
    /// It is one that must not be used.
    Refused(Error),
}

impl Header {
    /// Of a new store: for a disk of `size` bytes, in blocks of `block` bytes (a power of two). The rest is to be
    /// filled in.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn new(kind: Kind, block: u64, size: u64) -> Result<Header> {
        Ok(Header {
            kind,
            id: Id::new()?,
            block,
            size,
            identity: String::new(),
            parent: None,
            frozen: false,
            generation: 0,
            epoch: 0,
            log: Area::default(),
            spare: Area::default(),
            batches: 0,
        })
    }

    /// How many blocks the disk has.
    pub fn blocks(&self) -> u64 {
        self.size.div_ceil(self.block).max(1)
    }

    /// How many bytes of the disk a leaf stands for; its place in the file is as large.
    pub(crate) fn leaf_bytes(&self) -> u64 {
        self.block * LEAF_BLOCKS as u64
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER as usize);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend([0; 4]);
        out.extend((self.kind as u32 + 1).to_le_bytes());
        out.extend(u32::from(self.frozen).to_le_bytes());
        let areas = [self.log.start, self.log.len, self.spare.start, self.spare.len];
        for number in [self.block, self.size, self.generation, self.epoch].into_iter().chain(areas) {
            out.extend(number.to_le_bytes());
        }
        out.extend(self.batches.to_le_bytes());
        out.extend(self.id.0);
        let parent = self.parent.as_ref();
        out.extend(parent.map(|parent| parent.id.0).unwrap_or_default());
        let path = parent.map_or("", |parent| &parent.path);
        for text in [&*self.identity, path] {
            out.extend((text.len() as u32).to_le_bytes());
        }
        out.extend(self.identity.as_bytes());
        out.extend(path.as_bytes());
        debug_assert!(out.len() <= HEADER as usize);
        out.resize(HEADER as usize, 0);
        let sum = checksum(&out, 12);
        out[12..16].copy_from_slice(&sum.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> std::result::Result<Header, NoHeader> {
        if bytes.get(..8) != Some(&MAGIC[..]) || bytes.len() != HEADER as usize {
            return Err(NoHeader::Foreign);
        }
        let version = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        let sum = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        if checksum(bytes, 12) != sum {
            return Err(NoHeader::Torn);
        }
        if version != VERSION {
            let why = format!("the file has version {version} of the format, and {VERSION} is known");
            return Err(NoHeader::Refused(Error::invalid(why)));
        }
        Header::fields(&mut Reader(&bytes[16..])).map_err(NoHeader::Refused)
    }

    fn fields(r: &mut Reader<'_>) -> Result<Header> {
        let kind = match r.u32()? {
            1 => Kind::Overlay,
            2 => Kind::Cache,
            _ => return Err(damaged("it is of no known kind")),
        };
        let frozen = match r.u32()? {
            0 => false,
            1 => true,
            _ => return Err(damaged("its flags are not known")),
        };
        let (block, size, generation, epoch) = (r.u64()?, r.u64()?, r.u64()?, r.u64()?);
        let (log, spare, batches) = (r.area()?, r.area()?, r.u64()?);
        let (id, parent) = (Id(r.array()?), Id(r.array()?));
        let (identity, path) = (r.u32()?, r.u32()?);
        let (identity, path) = (r.text(identity)?, r.text(path)?);
        if !block.is_power_of_two() || !BLOCKS.contains(&block) {
            return Err(damaged(format_args!("its blocks have {block} bytes")));
        }
        if size > i64::MAX as u64 {
            return Err(damaged(format_args!("its disk has {size} bytes")));
        }
        if [generation, epoch].iter().any(|count| !COUNTS.contains(count)) {
            return Err(damaged("it was written more often than any file can be"));
        }
        let spare_is_sound = spare == Area::default() || spare.is_sound();
        if !log.is_sound() || log.len == 0 || !spare_is_sound || batches > log.len / GRAIN {
            return Err(damaged("its log has no sound place"));
        }
        let parent = (parent != Id::default()).then_some(Parent { id: parent, path });
        Ok(Header { kind, id, block, size, identity, parent, frozen, generation, epoch, log, spare, batches })
    }
}

/// One entry of a batch. Entries say how things are, not what was done, so that the last one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A leaf has its place there, and its blocks these states, two bits each.
    Leaf { index: u64, place: u64, states: Box<[u64; WORDS / 2]> },
    /// Blocks that have no leaf are zero.
    Zero { block: u64, blocks: u64 },
}

impl Entry {
    pub(crate) const LONGEST: usize = 24 + 4 * WORDS;

    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        let numbers = match self {
            Entry::Leaf { index, place, .. } => [LEAF, *index, *place],
            Entry::Zero { block, blocks } => [ZERO, *block, *blocks],
        };
        let states = match self {
            Entry::Leaf { states, .. } => &states[..],
            Entry::Zero { .. } => &[],
        };
        for number in numbers.iter().chain(states) {
            out.extend(number.to_le_bytes());
        }
    }

    /// All entries of a batch.
    pub(crate) fn decode_all(payload: &[u8]) -> Result<Vec<Entry>> {
        let mut r = Reader(payload);
        let mut entries = Vec::new();
        while !r.0.is_empty() {
            let (tag, a, b) = (r.u64()?, r.u64()?, r.u64()?);
            entries.push(match tag {
                LEAF => {
                    let mut states = Box::new([0; WORDS / 2]);
                    for word in states.iter_mut() {
                        *word = r.u64()?;
                    }
                    Entry::Leaf { index: a, place: b, states }
                }
                ZERO => Entry::Zero { block: a, blocks: b },
                _ => return Err(damaged("its log says something unknown")),
            });
        }
        Ok(entries)
    }
}

/// Where a batch stands: in which log of which store, and the how manieth it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) id: Id,
    pub(crate) epoch: u64,
    pub(crate) number: u64,
}

/// A batch as it is written, in whole grains.
pub(crate) fn encode_batch(stamp: Stamp, payload: &[u8]) -> Vec<u8> {
    debug_assert!(payload.len() <= MOST);
    let mut out = Vec::with_capacity(BATCH_HEAD + payload.len() + GRAIN as usize);
    out.extend(BATCH.to_le_bytes());
    out.extend([0; 4]);
    out.extend(stamp.epoch.to_le_bytes());
    out.extend(stamp.number.to_le_bytes());
    out.extend((payload.len() as u32).to_le_bytes());
    out.extend(&stamp.id.0[..4]);
    out.extend(payload);
    let sum = checksum(&out, 4);
    out[4..8].copy_from_slice(&sum.to_le_bytes());
    out.resize(out.len().next_multiple_of(GRAIN as usize), 0);
    out
}

/// The head of a batch: its checksum, number and length.
pub(crate) struct BatchHead {
    sum: u32,
    pub(crate) number: u64,
    /// Of the payload, in bytes.
    pub(crate) len: usize,
}

impl BatchHead {
    /// The bytes of a head.
    pub(crate) const LEN: u64 = BATCH_HEAD as u64;

    /// The head of a batch of this log, if it looks like one.
    pub(crate) fn decode(bytes: &[u8], id: Id, epoch: u64) -> Option<BatchHead> {
        let mut r = Reader(bytes);
        let (magic, sum) = (r.u32().ok()?, r.u32().ok()?);
        let (of, number, len) = (r.u64().ok()?, r.u64().ok()?, r.u32().ok()? as usize);
        let same = magic == BATCH && of == epoch && r.bytes(4).ok()? == &id.0[..4] && len <= MOST;
        same.then_some(BatchHead { sum, number, len })
    }

    /// In whole grains.
    pub(crate) fn whole(&self) -> u64 {
        (BATCH_HEAD + self.len).next_multiple_of(GRAIN as usize) as u64
    }

    /// The payload, of a batch that is all there.
    pub(crate) fn payload<'a>(&self, batch: &'a [u8]) -> Option<&'a [u8]> {
        let batch = batch.get(..BATCH_HEAD + self.len)?;
        (checksum(batch, 4) == self.sum).then(|| &batch[BATCH_HEAD..])
    }
}

/// Makes the checksums of headers and batches right again, whatever was done to them: for tests of damage.
pub(crate) fn mend(bytes: &mut [u8]) {
    for start in (0..bytes.len().min(1 << 20)).step_by(GRAIN as usize) {
        let part = &mut bytes[start..];
        let (at, len) = if part.starts_with(&MAGIC) {
            (12, HEADER as usize)
        } else if part.starts_with(&BATCH.to_le_bytes()) && part.len() >= BATCH_HEAD {
            (4, BATCH_HEAD + u32::from_le_bytes([part[24], part[25], part[26], part[27]]) as usize)
        } else {
            continue;
        };
        if let Some(all) = part.get_mut(..len) {
            let sum = checksum(all, at);
            all[at..at + 4].copy_from_slice(&sum.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(identity: String, parent: Option<Parent>, size: u64) -> Header {
        Header {
            kind: Kind::Cache,
            id: Id([7; 16]),
            block: 65536,
            size,
            identity,
            parent,
            frozen: true,
            generation: 3,
            epoch: 2,
            log: Area { start: 8192, len: 65536 },
            spare: Area::default(),
            batches: 1,
        }
    }

    proptest! {
        #[test]
        fn headers_come_back_as_they_were(
            identity in "[ -~é]{0,600}", path in "[^\\x00]{1,400}", has in any::<bool>(), size in 0u64..1 << 62
        ) {
            let parent = has.then_some(Parent { id: Id([9; 16]), path });
            let header = header(identity, parent, size);
            prop_assert_eq!(Header::decode(&header.encode()).ok(), Some(header));
        }

        #[test]
        fn a_header_with_a_flipped_bit_is_none(bit in 0usize..4096 * 8) {
            let mut bytes = header("x".into(), None, 1 << 30).encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Header::decode(&bytes).is_err());
        }

        #[test]
        fn entries_come_back_as_they_were(numbers in proptest::collection::vec((0u64..9, any::<u64>()), 0..20)) {
            let mut bytes = Vec::new();
            let entries: Vec<Entry> = numbers.into_iter().map(|(index, n)| match index % 2 {
                0 => Entry::Zero { block: index, blocks: n },
                _ => Entry::Leaf { index, place: n, states: Box::new([n; WORDS / 2]) },
            }).collect();
            entries.iter().for_each(|entry| entry.append_to(&mut bytes));
            prop_assert_eq!(Entry::decode_all(&bytes).unwrap(), entries);
        }

        #[test]
        fn nonsense_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let _ = Header::decode(&bytes);
            let _ = Entry::decode_all(&bytes);
            let _ = BatchHead::decode(&bytes, Id([7; 16]), 1);
        }
    }

    #[test]
    fn counts_that_would_overflow_are_refused() {
        for (generation, epoch) in [(u64::MAX, 2), (3, u64::MAX), (0, 2), (3, 0)] {
            let header = Header { generation, epoch, ..header(String::new(), None, 1 << 30) };
            assert!(matches!(Header::decode(&header.encode()), Err(NoHeader::Refused(_))));
        }
    }

    #[test]
    fn a_batch_counts_only_where_it_belongs_and_whole() {
        let stamp = Stamp { id: Id([7; 16]), epoch: 2, number: 5 };
        let batch = encode_batch(stamp, b"payload");
        assert_eq!(batch.len() as u64, GRAIN);
        let head = BatchHead::decode(&batch, stamp.id, 2).unwrap();
        assert_eq!((head.number, head.payload(&batch)), (5, Some(&b"payload"[..])));
        assert!(BatchHead::decode(&batch, stamp.id, 3).is_none());
        assert!(BatchHead::decode(&batch, Id([8; 16]), 2).is_none());
        let mut torn = batch;
        torn[35] ^= 1;
        assert!(head.payload(&torn).is_none());
    }
}
