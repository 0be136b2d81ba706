//! The hash of a disk, block by block: `H(H(block 1) H(block 2) ... H(block n) length)`, the length in bytes as 64
//! bits, least significant byte first.
//!
//! Blocks are hashed by whoever has copied them, in any order. Their digests wait here until it is their turn.

use crate::copy::manifest::{Entry, Expected, Written};
use anyhow::{Context, Result, bail};
use disk::{Data, Piece, Range, data};
use sha2::digest::{Digest, DynDigest};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The block size if nobody says otherwise, in bytes.
const BLOCK: u64 = 64 << 10;
/// The largest block, which is also the longest request, in bytes.
const LARGEST_BLOCK: u64 = 32 << 20;
/// The digests of more blocks than this, on a disk, are not hashed.
const MOST_BLOCKS: u64 = 1 << 32;
/// So many digests of zero blocks are hashed at once.
const BATCH: u64 = 1024;

/// A function that hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    Sha512_256,
}

impl Algorithm {
    const ALL: [(&'static str, Algorithm); 7] = [
        ("md5", Algorithm::Md5),
        ("sha1", Algorithm::Sha1),
        ("sha224", Algorithm::Sha224),
        ("sha256", Algorithm::Sha256),
        ("sha384", Algorithm::Sha384),
        ("sha512", Algorithm::Sha512),
        ("sha512-256", Algorithm::Sha512_256),
    ];

    pub(crate) fn parse(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, it)| *it)
    }

    pub(crate) fn name(self) -> &'static str {
        Algorithm::ALL.iter().find(|(_, it)| *it == self).map_or("", |(name, _)| name)
    }

    /// Hashes in several steps.
    pub(crate) fn begin(self) -> Box<dyn DynDigest + Send> {
        match self {
            Algorithm::Md5 => Box::new(md5::Md5::new()),
            Algorithm::Sha1 => Box::new(sha1::Sha1::new()),
            Algorithm::Sha224 => Box::new(sha2::Sha224::new()),
            Algorithm::Sha256 => Box::new(sha2::Sha256::new()),
            Algorithm::Sha384 => Box::new(sha2::Sha384::new()),
            Algorithm::Sha512 => Box::new(sha2::Sha512::new()),
            Algorithm::Sha512_256 => Box::new(sha2::Sha512_256::new()),
        }
    }

    pub(crate) fn digest(self, bytes: &[u8]) -> Box<[u8]> {
        match self {
            Algorithm::Md5 => md5::Md5::digest(bytes)[..].into(),
            Algorithm::Sha1 => sha1::Sha1::digest(bytes)[..].into(),
            Algorithm::Sha224 => sha2::Sha224::digest(bytes)[..].into(),
            Algorithm::Sha256 => sha2::Sha256::digest(bytes)[..].into(),
            Algorithm::Sha384 => sha2::Sha384::digest(bytes)[..].into(),
            Algorithm::Sha512 => sha2::Sha512::digest(bytes)[..].into(),
            Algorithm::Sha512_256 => sha2::Sha512_256::digest(bytes)[..].into(),
        }
    }
}

/// How a disk is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) algorithm: Algorithm,
    /// In bytes: a power of 2.
    pub(crate) block: u64,
}

impl Default for Way {
    fn default() -> Way {
        Way { algorithm: Algorithm::Sha256, block: BLOCK }
    }
}

impl Way {
    /// `ALGORITHM`, `ALGORITHM/SIZE`, or nothing.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Way, String> {
        let mut way = Way::default();
        let (name, size) = text.split_once('/').map_or((text, None), |(name, size)| (name, Some(size)));
        if !name.is_empty() {
            let known = || Algorithm::ALL.map(|(name, _)| name).join(", ");
            way.algorithm = Algorithm::parse(name).ok_or_else(|| format!("{name}: none of {}", known()))?;
        }
        if let Some(size) = size {
            way.block = crate::command_line::size(&size.to_uppercase())?;
        }
        match way.is_sound() {
            true => Ok(way),
            false => Err(format!("a block of {} bytes: not a power of 2 up to 32M", way.block)),
        }
    }

    /// Whether there can be such blocks.
    pub(crate) fn is_sound(&self) -> bool {
        self.block.is_power_of_two() && self.block <= LARGEST_BLOCK
    }

    /// Refuses disks whose hash would take for ever, even where they are empty.
    ///
    /// # Errors
    /// It is one.
    pub(crate) fn must_suit(&self, size: u64) -> Result<()> {
        match self.blocks(size) <= MOST_BLOCKS {
            true => Ok(()),
            false => bail!(
                "a disk of {size} bytes has too many blocks of {} bytes to hash them all: more than {MOST_BLOCKS}",
                self.block
            ),
        }
    }

    /// How many blocks a disk has.
    pub(crate) fn blocks(&self, size: u64) -> u64 {
        size.div_ceil(self.block)
    }
}

/// The outer hash: it takes the blocks' digests in order.
pub(crate) struct Outer {
    hash: Box<dyn DynDigest + Send>,
    zero: Box<[u8]>,
}

impl Outer {
    pub(crate) fn new(way: Way) -> Outer {
        Outer { hash: way.algorithm.begin(), zero: way.algorithm.digest(&vec![0; way.block as usize]) }
    }

    pub(crate) fn take(&mut self, entry: &Entry) {
        match entry {
            Entry::Digest(digest) => self.hash.update(digest),
            Entry::Zeroes(count) => {
                let batch = self.zero.repeat((*count).min(BATCH) as usize);
                for _ in 0..count / BATCH {
                    self.hash.update(&batch);
                }
                self.hash.update(&batch[..(count % BATCH) as usize * self.zero.len()]);
            }
        }
    }

    /// The hash of a disk of so many bytes, in hexadecimal.
    pub(crate) fn finish(mut self, size: u64) -> String {
        self.hash.update(&size.to_le_bytes());
        hex(&self.hash.finalize())
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hashes what is copied.
pub(crate) struct Hashes {
    way: Way,
    state: Mutex<State>,
}

struct State {
    outer: Option<Outer>,
    /// The first block that the outer hash has not had.
    next: u64,
    /// Those behind it that are known.
    waiting: BTreeMap<u64, Entry>,
    /// The beginning of a block, where bytes come in order.
    begun: Vec<u8>,
    /// Bytes that came in order.
    at: u64,
    writes: Option<Written>,
    expected: Option<Expected>,
    /// The first thing that went wrong.
    error: Option<anyhow::Error>,
}

impl Hashes {
    /// Hashes in this way; writes digests into a manifest, and holds them against another.
    pub(crate) fn new(way: Way, writes: Option<Written>, expected: Option<Expected>) -> Hashes {
        let state = State {
            outer: Some(Outer::new(way)),
            next: 0,
            waiting: BTreeMap::new(),
            begun: Vec::new(),
            at: 0,
            writes,
            expected,
            error: None,
        };
        Hashes { way, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the disk holds at `at`, where a block begins. It ends with a block, or with the disk.
    pub(crate) fn data(&self, at: u64, data: &Data) {
        if data.says_zeroes() {
            return self.zeroes(Range::new(at, data.len()));
        }
        let data = data.contiguous();
        let bytes = data.as_bytes().unwrap_or_default();
        let block = self.way.block;
        let first = at / block;
        let entries: Vec<Entry> = bytes.chunks(block as usize).map(|bytes| self.entry(bytes)).collect();
        let mut state = self.state();
        for (number, entry) in (first..).zip(entries) {
            state.came(number, entry);
        }
        state.advance();
    }

    fn entry(&self, bytes: &[u8]) -> Entry {
        if bytes.len() as u64 == self.way.block && data::is_zero(bytes) {
            return Entry::Zeroes(1);
        }
        Entry::Digest(self.way.algorithm.digest(bytes))
    }

    /// Zeroes, as [`Hashes::data`].
    pub(crate) fn zeroes(&self, range: Range) {
        let block = self.way.block;
        let (first, whole) = (range.start / block, range.len / block);
        let rest = (range.len % block) as usize;
        let rest = (rest > 0).then(|| self.entry(&vec![0; rest]));
        let mut state = self.state();
        if whole > 0 {
            state.came(first, Entry::Zeroes(whole));
        }
        if let Some(rest) = rest {
            state.came(first + whole, rest);
        }
        state.advance();
    }

    /// The next bytes of a disk that comes in order.
    pub(crate) fn append(&self, data: &Data) {
        for piece in data.pieces() {
            match piece {
                Piece::Bytes(bytes) => self.append_bytes(bytes),
                Piece::Zeroes(mut len) => {
                    let at = self.state().at;
                    if at.is_multiple_of(self.way.block) && len >= self.way.block {
                        let whole = len / self.way.block * self.way.block;
                        self.zeroes(Range::new(at, whole));
                        self.state().at += whole;
                        len -= whole;
                    }
                    for part in Range::new(0, len).split_at_multiples(BLOCK) {
                        self.append_bytes(&vec![0; part.len as usize]);
                    }
                }
                Piece::Lent(_) => {
                    let copy = Data::fill(piece.len() as usize, |buffer| piece.copy_to(buffer));
                    self.append_bytes(copy.as_bytes().unwrap_or_default());
                }
            }
        }
    }

    fn append_bytes(&self, mut bytes: &[u8]) {
        let block = self.way.block as usize;
        let mut state = self.state();
        while !bytes.is_empty() {
            let number = state.at / self.way.block;
            let take = (block - state.begun.len()).min(bytes.len());
            let (head, rest) = bytes.split_at(take);
            bytes = rest;
            state.at += take as u64;
            if take == block {
                state.came(number, self.entry(head));
            } else {
                state.begun.extend_from_slice(head);
                if state.begun.len() == block {
                    let whole = std::mem::take(&mut state.begun);
                    state.came(number, self.entry(&whole));
                }
            }
        }
        state.advance();
    }

    /// All of a disk of this size was hashed: the hash, in hexadecimal. Where a manifest was expected, it is the same.
    ///
    /// # Errors
    /// It is not; or a manifest could not be written; or something is missing.
    pub(crate) fn finish(&self, size: u64) -> Result<String> {
        let mut state = self.state();
        if !state.begun.is_empty() {
            let (number, begun) = (state.at / self.way.block, std::mem::take(&mut state.begun));
            let last = self.entry(&begun);
            state.came(number, last);
            state.advance();
        }
        if let Some(error) = state.error.take() {
            return Err(error);
        }
        let outer = state.outer.take().context("a disk is hashed once")?;
        if state.next != self.way.blocks(size) {
            bail!("only {} blocks of {} were hashed", state.next, self.way.blocks(size));
        }
        let hash = outer.finish(size);
        if let Some(writes) = state.writes.take() {
            writes.finish(&hash)?;
        }
        Ok(hash)
    }

    /// Where the disk differs from the manifest that was expected.
    pub(crate) fn changed(&self) -> crate::copy::ranges::Ranges {
        self.state().expected.take().map(Expected::into_changed).unwrap_or_default()
    }
}

impl State {
    fn came(&mut self, number: u64, entry: Entry) {
        // What is copied again was hashed before.
        if number >= self.next {
            self.waiting.insert(number, entry);
        }
    }

    fn advance(&mut self) {
        while let Some(first) = self.waiting.first_entry()
            && *first.key() <= self.next
        {
            let (number, entry) = first.remove_entry();
            // Of what was copied again a part may be known.
            let entry = match entry {
                Entry::Zeroes(count) if number + count > self.next => {
                    Entry::Zeroes(number + count - self.next)
                }
                entry if number == self.next => entry,
                _ => continue,
            };
            if let Some(outer) = &mut self.outer {
                outer.take(&entry);
            }
            let at = self.next;
            self.next += entry.blocks();
            let writes = self.writes.as_mut().map_or(Ok(()), |writes| writes.add(&entry));
            let expected = self.expected.as_mut().map_or(Ok(()), |expected| expected.meets(at, &entry));
            if let Err(e) = writes.and(expected) {
                self.error.get_or_insert(e);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::fake::islands;

    fn plainly(way: Way, bytes: &[u8]) -> String {
        let mut outer = way.algorithm.begin();
        bytes.chunks(way.block as usize).for_each(|block| outer.update(&way.algorithm.digest(block)));
        outer.update(&(bytes.len() as u64).to_le_bytes());
        hex(&outer.finalize())
    }

    fn hashes(way: Way) -> Hashes {
        Hashes::new(way, None, None)
    }

    #[test]
    fn the_hash_is_that_of_the_definition_in_whatever_order_the_blocks_come() {
        let bytes = islands(300_001, 5);
        for text in ["md5/4k", "sha1/512", "sha224/1k", "", "sha384/32k", "SHA512/16k", "sha512-256/4k"] {
            let way = Way::parse(text).unwrap();
            let want = plainly(way, &bytes);
            let backwards = hashes(way);
            let pieces: Vec<Range> = Range::new(0, bytes.len() as u64).split_at_multiples(64 << 10).collect();
            for piece in pieces.iter().rev() {
                let part = &bytes[piece.start as usize..piece.end() as usize];
                backwards.data(piece.start, &Data::copy_from(part));
                // Once more, as after a lost connection.
                backwards.data(piece.start, &Data::copy_from(part));
            }
            assert_eq!(backwards.finish(300_001).unwrap(), want, "{text}");
            let in_order = hashes(way);
            bytes.chunks(777).for_each(|part| in_order.append(&Data::copy_from(part)));
            assert_eq!(in_order.finish(300_001).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn zeroes_need_no_bytes() {
        let way = Way::parse("sha256/4k").unwrap();
        let (size, data) = (10_000_001, vec![7; 8192]);
        let mut bytes = vec![0; size];
        bytes[4_096_000..4_104_192].copy_from_slice(&data);
        let want = plainly(way, &bytes);
        let ranges = hashes(way);
        ranges.zeroes(Range::new(4_104_192, size as u64 - 4_104_192));
        ranges.data(4_096_000, &Data::copy_from(&data));
        ranges.zeroes(Range::new(0, 4_096_000));
        assert_eq!(ranges.finish(size as u64).unwrap(), want);
        let in_order = hashes(way);
        in_order.append(&Data::zeroes(4_096_000));
        in_order.append(&Data::copy_from(&data));
        in_order.append(&Data::zeroes(1000));
        in_order.append(&Data::zeroes(size as u64 - 4_105_192));
        assert_eq!(in_order.finish(size as u64).unwrap(), want);
    }

    #[test]
    fn an_empty_disk_has_a_hash_and_a_missing_block_is_noticed() {
        let way = Way::default();
        assert_eq!(hashes(way).finish(0).unwrap(), plainly(way, b""));
        let lacking = hashes(way);
        lacking.zeroes(Range::new(65536, 65536));
        assert!(lacking.finish(131_072).is_err());
    }

    #[test]
    fn ways_to_hash_are_understood_or_refused() {
        let way = Way::parse("md5/512").unwrap();
        assert_eq!((way.algorithm, way.block), (Algorithm::Md5, 512));
        assert_eq!(Way::parse("").unwrap(), Way::default());
        for bad in ["md6", "sha256/0", "sha256/3000", "sha256/64M", "sha256/", "sha256/x"] {
            assert!(Way::parse(bad).is_err(), "{bad}");
        }
    }
}
