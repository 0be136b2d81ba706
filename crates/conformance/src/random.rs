//! A small generator of random numbers: what fails must fail again with the same seed, on every machine.

use disk::{Blocks, Data, Range};

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit` (not 0).
    pub fn below(&mut self, limit: u64) -> u64 {
        self.any() % limit
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Bytes that are no zeroes and not the poison of debug builds.
    pub fn bytes(&mut self, len: u64) -> Data {
        let mut state = self.any();
        Data::fill(len as usize, |into| {
            for byte in into {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                *byte = ((state >> 33) % 200) as u8 + 1;
            }
        })
    }

    /// A range within `area`, as the blocks demand it and no longer than `longest`; mostly short, sometimes at
    /// the very edges.
    pub fn range(&mut self, area: Range, blocks: Blocks, longest: u64) -> Range {
        let unit = u64::from(blocks.minimum);
        let longest = longest.min(u64::from(blocks.maximum)).min(area.len);
        let most = (longest / unit).max(1);
        let len = match self.below(8) {
            0 => 1,
            1 => most,
            2 | 3 => 1 + self.below(most),
            _ => 1 + self.below(most.min((8192 / unit).max(1))),
        } * unit;
        let places = (area.len - len) / unit + 1;
        let start = match self.below(8) {
            0 => 0,
            1 => places - 1,
            // Page edges are where layers with blocks of their own go wrong.
            2 => (self.below(places) * unit / 4096 * 4096 / unit).min(places - 1),
            _ => self.below(places),
        };
        Range::new(area.start + start * unit, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_obey_the_blocks_and_reach_both_edges() {
        let blocks = Blocks { minimum: 512, preferred: 4096, maximum: 65536 };
        let area = Range::new(4096, 1 << 20);
        let mut random = Random::new(1);
        let (mut first, mut last) = (false, false);
        for _ in 0..1000 {
            let r = random.range(area, blocks, 1 << 30);
            assert!(r.start >= area.start && r.end() <= area.end() && !r.is_empty());
            assert!(r.start.is_multiple_of(512) && r.len.is_multiple_of(512) && r.len <= 65536, "{r}");
            first |= r.start == area.start;
            last |= r.end() == area.end();
        }
        assert!(first && last);
    }
}
