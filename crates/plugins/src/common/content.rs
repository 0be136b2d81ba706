//! Bytes that follow from a seed and their place on a disk, so that any part can be made, or checked, on its own.

use disk::{BufMut, Data, Errno, Error, Piece, Range, Result};
use std::hash::{BuildHasher, Hasher, RandomState};

/// The odd number nearest to 2^64 divided by the golden ratio: steps of it visit all numbers, evenly spread.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// Buffers up to this size are pooled; larger reads are made of several.
const PIECE: u64 = 256 << 10;

/// A number that nobody can tell from a random one (SplitMix64's output function).
#[inline]
pub(crate) fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}

/// The seed itself, or one that no other run has.
pub(crate) fn seed(given: Option<u64>) -> u64 {
    given.unwrap_or_else(|| RandomState::new().build_hasher().finish())
}

/// A stream of random bytes with random access.
#[derive(Clone, Copy)]
pub(crate) struct Stream(u64);

impl Stream {
    /// Two seeds, or two purposes of one seed, have nothing in common.
    pub(crate) fn new(seed: u64, purpose: u64) -> Stream {
        Stream(mix(mix(seed.wrapping_add(STEP)).wrapping_add(mix(purpose))))
    }

    /// The number at this place.
    #[inline]
    pub(crate) fn number(self, at: u64) -> u64 {
        mix(self.0.wrapping_add(at.wrapping_mul(STEP)))
    }

    /// The bytes from byte `at` on.
    #[inline]
    pub(crate) fn fill(self, at: u64, into: &mut [u8]) {
        words(at, into, |word| self.number(word).to_le_bytes());
    }
}

/// Fills bytes from byte `at` on with what `word` says of each 8 bytes, which are counted from byte 0.
#[inline]
pub(crate) fn words(at: u64, into: &mut [u8], word: impl Fn(u64) -> [u8; 8]) {
    let (mut number, skip) = (at / 8, (at % 8) as usize);
    let head = (8 - skip) % 8;
    let (head, body) = into.split_at_mut(head.min(into.len()));
    if !head.is_empty() {
        head.copy_from_slice(&word(number)[skip..][..head.len()]);
        number += 1;
    }
    let mut body = body.chunks_exact_mut(8);
    for eight in &mut body {
        eight.copy_from_slice(&word(number));
        number += 1;
    }
    let tail = body.into_remainder();
    tail.copy_from_slice(&word(number)[..tail.len()]);
}

/// A read, made in pooled buffers; `fill` gets each with the place of its first byte.
#[inline]
pub(crate) fn read(range: Range, fill: impl Fn(u64, &mut [u8])) -> Data {
    if range.len <= PIECE {
        return Data::fill(range.len as usize, |into| fill(range.start, into));
    }
    let pieces = range.split_at_multiples(PIECE);
    Data::join(pieces.map(|part| Data::fill(part.len as usize, |into| fill(part.start, into))).collect())
}

/// Whether these bytes are what `fill` makes from byte `at` on.
pub(crate) fn is_same(at: u64, bytes: &[u8], fill: impl Fn(u64, &mut [u8])) -> bool {
    let mut expected = [0; 4096];
    Range::new(at, bytes.len() as u64).split_at_multiples(4096).all(|part| {
        let expected = &mut expected[..part.len as usize];
        fill(part.start, expected);
        bytes[(part.start - at) as usize..][..part.len as usize] == *expected
    })
}

/// Checks that written data is what `fill` makes.
pub(crate) fn verify(at: u64, data: &Data, fill: impl Fn(u64, &mut [u8])) -> Result<()> {
    let mut at = at;
    for piece in data.pieces() {
        let same = match piece {
            Piece::Bytes(bytes) => is_same(at, bytes, &fill),
            Piece::Zeroes(len) => {
                let mut parts = Range::new(at, len).split_at_multiples(4096);
                parts.all(|part| is_same(part.start, &[0; 4096][..part.len as usize], &fill))
            }
            Piece::Lent(_) => {
                let mut copy = BufMut::new(piece.len() as usize);
                piece.copy_to(&mut copy);
                is_same(at, &copy, &fill)
            }
        };
        if !same {
            return Err(mismatch(Range::new(at, piece.len())));
        }
        at += piece.len();
    }
    Ok(())
}

/// What a writer is told who writes something else than the disk holds.
#[cold]
pub(crate) fn mismatch(range: Range) -> Error {
    Error::new(Errno::IO, format!("data written does not match expected ({range})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_stream_is_the_same_part() {
        let stream = Stream::new(7, 0);
        let mut whole = [0; 100];
        stream.fill(0, &mut whole);
        for start in 0..40 {
            for len in 0..60 {
                let mut part = vec![0; len];
                stream.fill(start as u64, &mut part);
                assert_eq!(part, whole[start..start + len]);
            }
        }
    }

    #[test]
    fn a_stream_looks_random() {
        let mut bytes = vec![0; 1 << 20];
        Stream::new(1, 2).fill(0, &mut bytes);
        let mut counts = [0u32; 256];
        bytes.iter().for_each(|b| counts[usize::from(*b)] += 1);
        // 4096 expected of each; six standard deviations are 384.
        assert!(counts.iter().all(|n| (3712..4480).contains(n)), "{counts:?}");
        let again = bytes.chunks_exact(8).collect::<std::collections::HashSet<_>>();
        assert_eq!(again.len(), bytes.len() / 8);
    }

    #[test]
    fn a_single_wrong_byte_is_found_in_any_kind_of_data() {
        let stream = Stream::new(3, 3);
        let fill = |at, into: &mut [u8]| stream.fill(at, into);
        let right = read(Range::new(5, 600_000), fill);
        assert!(verify(5, &right, fill).is_ok());
        assert_eq!(verify(6, &right, fill).unwrap_err().errno(), Errno::IO);
        let mut wrong = right.to_vec();
        wrong[599_999] ^= 1;
        assert!(verify(5, &Data::copy_from(&wrong), fill).is_err());
        assert!(verify(5, &Data::zeroes(10), fill).is_err());
        assert!(verify(5, &Data::zeroes(10), |_, into| into.fill(0)).is_ok());
    }
}
