//! Which bits, by chance: numbers that look random, and the same for the same seed.

/// A stream of random numbers, SplitMix64.
pub(super) struct Random(u64);

impl Random {
    /// The stream of this number under this seed.
    pub(super) fn new(seed: u64, stream: u64) -> Random {
        let mut random = Random(seed ^ stream.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// From above 0 to 1.
    fn fraction(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Happens with this probability.
    pub(super) fn chance(&mut self, chance: f64) -> bool {
        chance >= 1.0 || self.fraction() <= chance
    }
}

/// The numbers below `limit` that each come with this probability, in order. The gaps between them are drawn, so that rare
/// ones cost nothing.
pub(super) fn positions(random: &mut Random, chance: f64, limit: u64) -> impl Iterator<Item = u64> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if chance <= 0.0 || at >= limit {
            return None;
        }
        // With certainty the logarithm is minus infinity, and the gap none; of tiny chances it must not become zero.
        let gap = (random.fraction().ln() / (-chance).ln_1p()) as u64;
        let found = at.checked_add(gap).filter(|found| *found < limit)?;
        at = found + 1;
        Some(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_in_order_and_as_many_as_is_likely() {
        for (chance, low, high) in
            [(0.5, 49_000, 51_000), (0.001, 60, 140), (0.0, 0, 0), (1.0, 100_000, 100_000)]
        {
            let found: Vec<u64> = positions(&mut Random::new(1, 2), chance, 100_000).collect();
            assert!((low..=high).contains(&found.len()), "{chance}: {}", found.len());
            assert!(found.is_sorted_by(|a, b| a < b));
        }
        assert_eq!(positions(&mut Random::new(1, 2), f64::MIN_POSITIVE, u64::MAX).count(), 0);
    }
}
