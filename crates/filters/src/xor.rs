//! `xor`: a value of a few bytes over all of the disk.

use crate::common::wrap::each;
use disk::{Backend, Data, Disk, Errno, Error, Facts, Filter, Io, Range, Result, WriteFlags, ZeroFlags};
use params::{ParamError, Params};
use std::sync::Arc;

/// Obfuscate a disk: exclusive or with a value. This is no encryption.
#[derive(Params)]
pub(crate) struct Xor {
    /// The value, with its highest byte first: `0xDEADBEEF`.
    xor: u64,
    /// How many bytes of the value are used, from 1 to 8: its lowest ones, with zeroes before them if it is shorter.
    xorlen: u8,
}

impl Filter for Xor {
    const NAME: &'static str = "xor";
    const MANUAL: &'static str = include_str!("xor.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let len = usize::from(self.xorlen);
        if !(1..=8).contains(&len) {
            return Err(ParamError::bad("xorlen", len.to_string(), "not from 1 to 8").into());
        }
        let bytes = self.xor.to_be_bytes();
        let key = Key::new(&bytes[8 - len..]);
        Ok(each(next, move |disk, _| Ok(Arc::new(Mixed::new(disk, key.clone())))))
    }
}

/// How many bytes of the repeated value are kept at hand.
const REPEATED: usize = 8 * 840;

/// The value, repeated; [`REPEATED`] is a multiple of every length, so that it can be repeated as a whole.
#[derive(Clone)]
struct Key(Arc<[u8]>);

impl Key {
    fn new(value: &[u8]) -> Key {
        Key(value.iter().copied().cycle().take(REPEATED).collect())
    }

    /// Mixes the value into bytes that lie at `at` on the disk.
    fn mix(&self, bytes: &mut [u8], at: u64) {
        let phase = (at % REPEATED as u64) as usize;
        let (first, rest) = bytes.split_at_mut(bytes.len().min(REPEATED - phase));
        let mix = |part: &mut [u8], key: &[u8]| part.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        mix(first, &self.0[phase..]);
        rest.chunks_mut(REPEATED).for_each(|part| mix(part, &self.0));
    }
}

/// Zeroes are written in pieces of this length: what has a pattern must be written byte for byte.
const PIECE: u64 = 1 << 20;

struct Mixed {
    facts: Facts,
    key: Key,
    next: Arc<dyn Disk>,
}

impl Mixed {
    fn new(next: Arc<dyn Disk>, key: Key) -> Mixed {
        let below = next.facts();
        let write = below.write;
        // What is a hole below is no zeroes here, and zeroes here are data below.
        let facts = Facts { extents: false, trim: write, zero: write, fast_zero: write, ..below.clone() };
        Mixed { facts, key, next }
    }

    fn mixed(&self, data: &Data, at: u64) -> Data {
        Data::fill(data.len() as usize, |bytes| {
            data.copy_to(bytes);
            self.key.mix(bytes, at);
        })
    }

    fn written(&self, r: Range, fua: bool) -> Io<'_, ()> {
        if !self.facts.write {
            return Error::new(Errno::PERM, "the disk below cannot be written").into();
        }
        let step = PIECE.min(self.facts.blocks.maximum.into());
        Io::later(async move {
            for part in r.split_at_multiples(step) {
                let data = self.mixed(&Data::zeroes(part.len), part.start);
                self.next.write(part.start, data, WriteFlags { fua }).await?;
            }
            Ok(())
        })
    }
}

impl Disk for Mixed {
    disk::forward!(next: next, flush, cache, status);
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, r: Range) -> Io<'_, Data> {
        self.next.read(r).map(move |data| Ok(self.mixed(&data, r.start)))
    }
    fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        self.next.write(at, self.mixed(&data, at), flags)
    }
    fn zero(&self, r: Range, flags: ZeroFlags) -> Io<'_, ()> {
        if flags.fast {
            return Error::new(Errno::NOTSUP, "zeroes must be written here").into();
        }
        self.written(r, flags.fua)
    }
    fn trim(&self, r: Range, flags: WriteFlags) -> Io<'_, ()> {
        self.written(r, flags.fua)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, layer, noise, opened};
    use proptest::prelude::*;

    #[test]
    fn the_value_repeats_over_the_disk_highest_byte_first() {
        let memory = Memory::new(vec![0xA0, 0xA1, 0xA2, 0xA3, 0xA4, 0xA5, 0xA6]);
        let disk = opened::<Xor>(&["xor=0x123456", "xorlen=3"], &memory);
        let read = |start, len| disk.read(Range::new(start, len)).wait().unwrap().to_vec();
        assert_eq!(read(0, 7), [0xB2, 0x95, 0xF4, 0xB1, 0x90, 0xF3, 0xB4]);
        assert_eq!(read(4, 2), [0x90, 0xF3]);
    }

    #[test]
    fn zeroes_are_the_value_below() {
        let memory = Memory::new(noise(1, 8));
        let disk = opened::<Xor>(&["xor=0xAABB", "xorlen=4"], &memory);
        assert!(!disk.facts().extents);
        disk.zero(Range::new(0, 8), ZeroFlags::default()).wait().unwrap();
        assert_eq!(memory.bytes(), [0, 0, 0xAA, 0xBB, 0, 0, 0xAA, 0xBB]);
        assert_eq!(disk.read(Range::new(0, 8)).wait().unwrap().to_vec(), [0; 8]);
        let fast = ZeroFlags { fast: true, ..ZeroFlags::default() };
        assert_eq!(disk.zero(Range::new(0, 8), fast).wait().unwrap_err().errno(), Errno::NOTSUP);
    }

    #[test]
    fn lengths_that_no_value_has_are_refused() {
        let why = |params: &[&str]| layer::<Xor>(params, &Memory::new(vec![])).err().unwrap().to_string();
        assert_eq!(why(&["xor=1", "xorlen=0"]), "xor: xorlen=0: not from 1 to 8");
        assert_eq!(why(&["xor=1", "xorlen=9"]), "xor: xorlen=9: not from 1 to 8");
    }

    proptest! {
        #[test]
        fn every_part_is_mixed_as_in_the_whole(at in 0u64..20_000, len in 0usize..20_000, n in 1usize..=8) {
            let value = noise(7, n);
            let key = Key::new(&value);
            let mut bytes = vec![0; len];
            key.mix(&mut bytes, at);
            for (i, byte) in bytes.iter().enumerate() {
                prop_assert_eq!(*byte, value[(at as usize + i) % n]);
            }
        }
    }
}
