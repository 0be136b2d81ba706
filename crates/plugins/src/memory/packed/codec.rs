//! One page, compressed and decompressed. Each thread keeps what that needs.

use super::shard::PAGE_LEN;
use disk::{Error, Result};
use std::cell::RefCell;
use zstd::bulk::{Compressor, Decompressor};

/// Speed counts more than the last percent.
const LEVEL: i32 = 1;

thread_local! {
    static PACKING: RefCell<Option<(Compressor<'static>, Vec<u8>)>> = const { RefCell::new(None) };
    static UNPACKING: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// A page that rests: compressed, or as it is where that would not help.
pub(super) type Packed = Box<[u8]>;

fn failed(e: std::io::Error) -> Error {
    Error::from(e).context("compressed memory")
}

/// Compresses a page (or what the disk has of its last one); `None`: it holds zeroes only.
pub(super) fn pack(page: &[u8]) -> Result<Option<Packed>> {
    if disk::data::is_zero(page) { Ok(None) } else { pack_any(page).map(Some) }
}

/// As [`pack`], whatever it holds.
pub(super) fn pack_any(page: &[u8]) -> Result<Packed> {
    PACKING.with_borrow_mut(|kept| {
        let (compressor, buffer) = match kept {
            Some(kept) => kept,
            None => kept.insert((Compressor::new(LEVEL).map_err(failed)?, vec![0; PAGE_LEN])),
        };
        // What does not fit is not worth it.
        let room = &mut buffer[..PAGE_LEN - PAGE_LEN / 16];
        let packed = compressor.compress_to_buffer(page, room).map(|len| Packed::from(&buffer[..len]));
        Ok(packed.unwrap_or_else(|_| {
            let mut whole = vec![0; PAGE_LEN];
            whole[..page.len()].copy_from_slice(page);
            whole.into()
        }))
    })
}

/// The first bytes of a page, as many as fit into `into`.
pub(super) fn unpack(packed: &[u8], into: &mut [u8]) -> Result<()> {
    if packed.len() == PAGE_LEN {
        into.copy_from_slice(&packed[..into.len()]);
        return Ok(());
    }
    UNPACKING.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(kept) => kept,
            None => kept.insert(Decompressor::new().map_err(failed)?),
        };
        let len = decompressor.decompress_to_buffer(packed, into).map_err(failed)?;
        // The disk's last page is as long as the disk.
        into[len..].fill(0);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_page_comes_back(seed: Vec<u8>, len in 1..=PAGE_LEN, noise: bool) {
            let mut dice = crate::common::model::Dice(seed.len() as u64);
            let byte = |i: usize| seed.get(i % seed.len().max(1)).copied().unwrap_or(0);
            let page: Vec<u8> =
                (0..len).map(|i| if noise { dice.below(256) as u8 } else { byte(i) }).collect();
            let mut back = vec![9; PAGE_LEN];
            match pack(&page).unwrap() {
                None => prop_assert!(page.iter().all(|b| *b == 0)),
                Some(packed) => {
                    unpack(&packed, &mut back).unwrap();
                    prop_assert!(back[..len] == page[..] && back[len..].iter().all(|b| *b == 0));
                }
            }
        }
    }
}
