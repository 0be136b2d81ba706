//! `cow`: writes go to a temporary overlay, and the disk below stays as it is.
//!
//! All connections to an export share one [`Overlay`]. Its blocks are 4 KiB unless told otherwise, so a small write
//! copies little and a write of whole blocks copies nothing. The states of blocks are atomic words in a lazily grown
//! tree, and the bytes in a sparse file (both are of the crate `store`). No lock is taken on the way of a
//! request: a block that must be copied first is *claimed*, and only who wants to change that same block waits.

mod layer;

use crate::on_read::OnRead;
use disk::{Backend, Client, Disk, Error, Facts, Filter, Io, Range, Result};
use layer::Layer;
use params::{Params, Size};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use store::{Blocks, Leaf, Map, Medium, Store};

/// Allow writes without changing the disk below; they are lost when the server ends.
#[derive(Params)]
pub(crate) struct Cow {
    /// How many bytes are copied at a time: a power of two, at least 4K. Larger blocks need less memory to keep
    /// account of, and make small writes slower.
    #[param(default = "4K")]
    cow_block_size: Size,
    /// Copy what clients want cached into the overlay.
    #[param(default = "false")]
    cow_on_cache: bool,
    /// Copy what clients read into the overlay: never, always, or while the file with this absolute path exists.
    #[param(default = "false")]
    cow_on_read: OnRead,
}

impl Filter for Cow {
    const NAME: &'static str = "cow";
    const MANUAL: &'static str = include_str!("cow.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let block = self.cow_block_size.bytes();
        if !block.is_power_of_two() || !(4096..=1 << 31).contains(&block) {
            let given = self.cow_block_size;
            return Err(Error::invalid(format!("cow-block-size={given}: not a power of two from 4K to 2G")));
        }
        let store = Arc::new(Store::new());
        Ok(CopyOnWrite { params: Arc::new(self), store, overlays: Mutex::default(), next })
    }
}

struct CopyOnWrite {
    params: Arc<Cow>,
    store: Arc<Store>,
    /// By export; they live as long as the server.
    overlays: Mutex<HashMap<String, Arc<Overlay>>>,
    next: Arc<dyn Backend>,
}

impl CopyOnWrite {
    fn overlay(&self, export: String, below: &Facts) -> Result<Arc<Overlay>> {
        let mut overlays = self.overlays.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(overlay) = overlays.get(&export) {
            let before = overlay.size;
            if before != below.size {
                let now = below.size;
                return Err(Error::io(format!(
                    "the disk below had {before} bytes and has {now} now, but changes were kept for the former"
                )));
            }
            return Ok(overlay.clone());
        }
        self.store.open()?;
        let overlay = Arc::new(Overlay::new(self.params.cow_block_size.bytes(), below, self.store.clone())?);
        overlays.insert(export, overlay.clone());
        Ok(overlay)
    }
}

impl Backend for CopyOnWrite {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        Io::later(async move {
            let mut export = client.export.to_owned();
            if export.is_empty()
                && let Some(default) = self.next.default_export(client).await?
            {
                export = default;
            }
            let below = Client { read_only: true, ..client.clone() };
            let base = self.next.open(&below).await?;
            let overlay = self.overlay(export, base.facts())?;
            let facts = facts(base.facts(), &overlay, &self.params);
            let facts = if client.read_only { facts.without_write() } else { facts };
            Ok(Arc::new(Layer { facts, overlay, base, params: self.params.clone() }) as Arc<dyn Disk>)
        })
    }
    fn get_ready(&self) -> Result<()> {
        self.next.get_ready()?;
        // Better now than at the first client.
        self.store.open().map(drop)
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

/// The overlay can do everything, and all connections see the same.
fn facts(below: &Facts, overlay: &Overlay, params: &Cow) -> Facts {
    let mut blocks = below.blocks;
    blocks.preferred = blocks.preferred.max(overlay.block.min(1 << 16) as u32);
    Facts {
        blocks,
        write: true,
        flush: true,
        fua: true,
        trim: true,
        zero: true,
        fast_zero: true,
        cache: below.cache || params.cow_on_cache,
        extents: true,
        multi_conn: true,
        // They speak of the disk below, not of what has been changed since.
        contexts: Arc::new([]),
        ..below.clone()
    }
}

/// The changes to one export.
struct Overlay {
    /// Of the disk.
    size: u64,
    /// What lies beyond the last whole minimum block of the disk below cannot be asked for; up to here it can.
    end: u64,
    /// Bytes of a block: a power of two.
    block: u64,
    blocks: Blocks,
}

impl Overlay {
    fn new(block: u64, below: &Facts, store: Arc<Store>) -> Result<Overlay> {
        let block = block.max(below.blocks.minimum.into());
        if block > below.blocks.maximum.into() {
            let maximum = below.blocks.maximum;
            return Err(Error::invalid(format!(
                "cow-block-size={block}: the disk below reads no more than {maximum} bytes at once"
            )));
        }
        let end = below.size - below.size % u64::from(below.blocks.minimum);
        let blocks = Blocks::temporary(&store, block, end.div_ceil(block));
        Ok(Overlay { size: below.size, end, block, blocks })
    }

    /// The bytes of the block that holds byte `at`.
    fn block_around(&self, at: u64) -> Range {
        let start = at & !(self.block - 1);
        Range::new(start, self.block.min(self.end - start))
    }

    /// The blocks that a range touches, as bytes.
    fn blocks_around(&self, r: Range) -> Range {
        let (first, last) = (self.block_around(r.start), self.block_around(r.end() - 1));
        Range::new(first.start, last.end() - first.start)
    }

    /// The whole blocks within a range, as bytes; the disk's last block may be short and whole.
    fn blocks_within(&self, r: Range) -> Option<Range> {
        let start = r.start.checked_next_multiple_of(self.block)?;
        let end = if r.end() >= self.end { self.end } else { r.end() & !(self.block - 1) };
        (start < end).then(|| Range::new(start, end - start))
    }

    /// The leaf of the block that holds byte `at`.
    fn leaf(&self, at: u64) -> (&Leaf, usize) {
        self.blocks.leaf(at / self.block)
    }

    /// The states of the blocks.
    fn map(&self) -> &Map {
        self.blocks.map()
    }

    /// The bytes of the blocks that are here.
    fn store(&self) -> &dyn Medium {
        self.blocks.bytes()
    }

    /// Where byte `at` of the disk has its place in the store.
    fn place(&self, leaf: &Leaf, at: u64) -> u64 {
        self.blocks.place(leaf, at / self.block) + at % self.block
    }

    /// So many blocks from the one that holds byte `at`, as the rest of `r` from `at` on that lies in them.
    fn part(&self, at: u64, blocks: u64, r: Range) -> Range {
        let end = (at / self.block).saturating_add(blocks).saturating_mul(self.block);
        Range::new(at, end.min(r.end()) - at)
    }
}

#[cfg(test)]
mod tests;
