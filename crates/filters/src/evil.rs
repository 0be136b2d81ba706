//! `evil`: bits that are read wrong, at random, as from bad memory, bad media and bad wires.

mod bits;

use crate::common::wrap::each;
use bits::{Random, positions};
use disk::{Backend, BufMut, Data, Disk, Facts, Filter, Io, Range, Result};
use params::{Choice, Params, Probability};
use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Corrupt what is read, at random, to test checksums.
#[derive(Params)]
pub(crate) struct Evil {
    /// How: `cosmic-rays`, any bit may be turned at any time; `stuck-bits`, some bits of the disk are always high or low;
    /// `stuck-wires`, some bits at the same place of each read are.
    #[param(default = "stuck-bits")]
    evil: Mode,
    /// How likely a bit is turned or stuck. Without it, 1 in 100 million, and with `stuck-wires` 1 in a million.
    evil_probability: Option<Probability>,
    /// How likely a stuck bit reads as it is stuck.
    #[param(default = "100%")]
    evil_stuck_probability: Probability,
    /// The same number gives the same stuck bits again. Without it, they are others each time.
    evil_seed: Option<u64>,
}

#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    CosmicRays,
    StuckBits,
    StuckWires,
}

impl Filter for Evil {
    const NAME: &'static str = "evil";
    const MANUAL: &'static str = include_str!("evil.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let usual = if self.evil == Mode::StuckWires { 1e-6 } else { 1e-8 };
        // The standard library's hash maps are seeded by the system; here that is random enough.
        let seed = self.evil_seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        let devil = Arc::new(Devil {
            mode: self.evil,
            chance: self.evil_probability.map_or(usual, Probability::chance),
            sticks: self.evil_stuck_probability.chance(),
            seed,
            reads: AtomicU64::new(0),
        });
        Ok(each(next, move |disk, _| Ok(Arc::new(Corrupted { devil: devil.clone(), next: disk }))))
    }
}

/// Stuck bits are found block by block of this length, in bytes: each block's follow from its number alone.
const BLOCK: u64 = 1 << 20;

struct Devil {
    mode: Mode,
    chance: f64,
    sticks: f64,
    seed: u64,
    /// Counts, so that chance is another one at each read.
    reads: AtomicU64,
}

/// What happens to a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Turned,
    Stuck(bool),
}

impl Devil {
    /// The bits of a read that are not what they were: their numbers within it, and what becomes of them.
    fn victims(&self, r: Range) -> Vec<(u64, Fate)> {
        let read = self.reads.fetch_add(1, Relaxed);
        let mut now = Random::new(self.seed, !read);
        match self.mode {
            Mode::CosmicRays => {
                positions(&mut now, self.chance, r.len * 8).map(|bit| (bit, Fate::Turned)).collect()
            }
            Mode::StuckBits => {
                let (first, last) = (r.start / BLOCK, (r.end() - 1) / BLOCK);
                let stuck = (first..=last).flat_map(|block| self.stuck(block));
                let bits = r.start * 8..r.end() * 8;
                let inside =
                    stuck.filter(|(bit, _)| bits.contains(bit)).map(|(bit, fate)| (bit - bits.start, fate));
                inside.filter(|_| now.chance(self.sticks)).collect()
            }
            Mode::StuckWires => {
                let blocks = r.len.div_ceil(BLOCK);
                let stuck = (0..blocks).flat_map(|block| self.stuck(block));
                stuck.take_while(|(bit, _)| *bit < r.len * 8).filter(|_| now.chance(self.sticks)).collect()
            }
        }
    }

    /// The stuck bits of a block, counted from the first one.
    fn stuck(&self, block: u64) -> Vec<(u64, Fate)> {
        let mut random = Random::new(self.seed, block);
        let bits: Vec<u64> = positions(&mut random, self.chance, BLOCK * 8).collect();
        bits.into_iter().map(|bit| (block * BLOCK * 8 + bit, Fate::Stuck(random.chance(0.5)))).collect()
    }
}

struct Corrupted {
    devil: Arc<Devil>,
    next: Arc<dyn Disk>,
}

impl Corrupted {
    fn corrupt(&self, r: Range, data: Data) -> Data {
        let victims = self.devil.victims(r);
        if victims.is_empty() {
            return data;
        }
        let mut bytes = BufMut::new(data.len() as usize);
        data.copy_to(&mut bytes);
        for (bit, fate) in victims {
            let (byte, mask) = (&mut bytes[(bit / 8) as usize], 0x80 >> (bit % 8));
            match fate {
                Fate::Turned => *byte ^= mask,
                Fate::Stuck(true) => *byte |= mask,
                Fate::Stuck(false) => *byte &= !mask,
            }
        }
        bytes.into()
    }
}

impl Disk for Corrupted {
    disk::forward!(next: next, write, zero, trim, flush, cache, extents, status, resizing);
    fn facts(&self) -> &Facts {
        self.next.facts()
    }
    fn read(&self, r: Range) -> Io<'_, Data> {
        self.next.read(r).map(move |data| Ok(self.corrupt(r, data)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, opened};

    const SIZE: u64 = 3 << 20;

    fn wrong(disk: &Arc<dyn Disk>, r: Range) -> Vec<u64> {
        let bytes = disk.read(r).wait().unwrap().to_vec();
        let bits = bytes.iter().enumerate().filter(|(_, byte)| **byte != 0x55);
        bits.map(|(at, _)| at as u64).collect()
    }

    fn disk(params: &[&str]) -> Arc<dyn Disk> {
        opened::<Evil>(params, &Memory::new(vec![0x55; SIZE as usize]))
    }

    #[test]
    fn stuck_bits_are_the_same_however_they_are_read() {
        let disk = disk(&["evil-probability=1e-5", "evil-seed=7"]);
        let all = wrong(&disk, Range::new(0, SIZE));
        assert!((60..200).contains(&all.len()), "{}", all.len());
        assert_eq!(wrong(&disk, Range::new(0, SIZE)), all);
        let mut parts = Vec::new();
        for part in Range::new(0, SIZE).split_at_multiples(77_777) {
            parts.extend(wrong(&disk, part).iter().map(|at| at + part.start));
        }
        assert_eq!(parts, all);
        let again = super::tests::disk(&["evil-probability=1e-5", "evil-seed=7"]);
        assert_eq!(wrong(&again, Range::new(0, SIZE)), all);
    }

    #[test]
    fn stuck_wires_are_at_the_same_place_of_each_read() {
        let disk = disk(&["evil=stuck-wires", "evil-probability=1e-3", "evil-seed=1"]);
        let first = wrong(&disk, Range::new(0, 65536));
        assert!(!first.is_empty());
        assert_eq!(wrong(&disk, Range::new(1_000_000, 65536)), first);
    }

    #[test]
    fn cosmic_rays_hit_anywhere_and_about_as_often_as_they_should() {
        let disk = disk(&["evil=cosmic-rays", "evil-probability=1e-4", "evil-seed=3"]);
        let (one, two) = (wrong(&disk, Range::new(0, SIZE)), wrong(&disk, Range::new(0, SIZE)));
        assert!((2000..3000).contains(&one.len()), "{}", one.len());
        assert_ne!(one, two);
    }

    #[test]
    fn nothing_is_wrong_that_is_not_likely() {
        for mode in ["cosmic-rays", "stuck-bits", "stuck-wires"] {
            let disk = disk(&[&format!("evil={mode}"), "evil-probability=0"]);
            assert_eq!(wrong(&disk, Range::new(0, SIZE)), [0; 0]);
        }
        let disk = disk(&["evil-probability=1e-4", "evil-stuck-probability=0"]);
        assert_eq!(wrong(&disk, Range::new(0, SIZE)), [0; 0]);
        let certain = super::tests::disk(&["evil=cosmic-rays", "evil-probability=1"]);
        assert_eq!(wrong(&certain, Range::new(0, 512)).len(), 512);
    }
}
