//! `swab`: the bytes of each word in reverse order.

use crate::common::wrap::{aligned, each};
use disk::{Backend, Blocks, Data, Disk, Extents, Facts, Filter, Io, Range, Result, WriteFlags};
use params::{Choice, Params};
use std::sync::Arc;

/// Swap the bytes of each word.
#[derive(Params)]
pub(crate) struct Swab {
    /// How long a word is, in bits. With 8 nothing is swapped.
    #[param(default = "16")]
    swab_bits: Bits,
}

#[derive(Choice, Clone, Copy, PartialEq, Eq)]
enum Bits {
    #[choice(name = "8")]
    B8,
    #[choice(name = "16")]
    B16,
    #[choice(name = "32")]
    B32,
    #[choice(name = "64")]
    B64,
}

impl Filter for Swab {
    const NAME: &'static str = "swab";
    const MANUAL: &'static str = include_str!("swab.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let width: u32 = match self.swab_bits {
            Bits::B8 => 1,
            Bits::B16 => 2,
            Bits::B32 => 4,
            Bits::B64 => 8,
        };
        Ok(each(next, move |disk, _| Ok(if width == 1 { disk } else { Arc::new(Swapped::new(disk, width)) })))
    }
}

struct Swapped {
    facts: Facts,
    /// Bytes of a word.
    width: u32,
    next: Arc<dyn Disk>,
}

impl Swapped {
    fn new(next: Arc<dyn Disk>, width: u32) -> Swapped {
        let below = next.facts();
        let minimum = below.blocks.minimum.max(width);
        let maximum = match below.blocks.maximum {
            u32::MAX => u32::MAX,
            maximum => maximum - maximum % minimum,
        };
        let mut facts = Facts {
            size: below.size - below.size % u64::from(minimum),
            blocks: Blocks { minimum, maximum, ..below.blocks },
            ..below.clone()
        };
        if minimum > below.blocks.minimum {
            // Their borders may lie within words.
            facts.contexts = Arc::new([]);
        }
        Swapped { facts, width, next }
    }

    /// The same words with their bytes in reverse order.
    fn swapped(&self, data: &Data) -> Data {
        if data.says_zeroes() {
            return data.clone();
        }
        Data::fill(data.len() as usize, |bytes| {
            data.copy_to(bytes);
            match self.width {
                2 => reverse::<2>(bytes),
                4 => reverse::<4>(bytes),
                _ => reverse::<8>(bytes),
            }
        })
    }
}

fn reverse<const WIDTH: usize>(bytes: &mut [u8]) {
    bytes.as_chunks_mut::<WIDTH>().0.iter_mut().for_each(|word| word.reverse());
}

impl Disk for Swapped {
    disk::forward!(next: next, zero, trim, flush, cache, status);
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, r: Range) -> Io<'_, Data> {
        self.next.read(r).map(|data| Ok(self.swapped(&data)))
    }
    fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        self.next.write(at, self.swapped(&data), flags)
    }
    fn extents(&self, r: Range, limit: usize) -> Io<'_, Extents> {
        self.next.extents(r, limit).map(move |found| Ok(aligned(&found, r, self.width.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, noise, opened};

    #[test]
    fn bytes_of_words_are_reversed_both_ways() {
        for (bits, expected) in [
            (8, [0, 1, 2, 3, 4, 5, 6, 7]),
            (16, [1, 0, 3, 2, 5, 4, 7, 6]),
            (32, [3, 2, 1, 0, 7, 6, 5, 4]),
            (64, [7, 6, 5, 4, 3, 2, 1, 0]),
        ] {
            let memory = Memory::new((0..8).collect());
            let disk = opened::<Swab>(&[&format!("swab-bits={bits}")], &memory);
            let read = disk.read(Range::new(0, 8)).wait().unwrap();
            assert_eq!(read.to_vec(), expected);
            disk.write(0, Data::copy_from(&(0..8).collect::<Vec<u8>>()), WriteFlags::default())
                .wait()
                .unwrap();
            assert_eq!(memory.bytes(), expected);
        }
    }

    #[test]
    fn the_disk_ends_with_its_last_whole_word() {
        let memory = Memory::new(noise(1, 1023));
        let facts = opened::<Swab>(&["swab-bits=64"], &memory).facts().clone();
        assert_eq!((facts.size, facts.blocks.minimum), (1016, 8));
    }
}
