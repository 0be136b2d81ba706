//! `cow`: writes go to an overlay, and the disk below stays as it is.
//!
//! All connections to an export share one [`Overlay`]. Its blocks are 4 KiB unless told otherwise, so a small write
//! copies little and a write of whole blocks copies nothing. The states of blocks are atomic words in a lazily grown
//! tree, and the bytes in a sparse file, temporary or kept (both are of the crate `store`). No lock is taken on the way of
//! a request: a block that must be copied first is *claimed*, and only who wants to change that same block waits.

mod kept;
mod layer;
mod names;
mod overlay;

use crate::common::{on_read::OnRead, wrap::export_name};
use disk::{Backend, Client, Disk, Error, Facts, Filter, Io, Result};
use kept::{Leave, Overlays, Where};
use layer::Layer;
use names::Key;
use overlay::Overlay;
use params::{Params, Size};
use std::{path::PathBuf, sync::Arc};
use store::Store;

/// Allow writes without changing the disk below: they are kept in a file, or lost when the server ends.
#[derive(Params)]
pub(crate) struct Cow {
    /// How many bytes are copied at a time: a power of two, at least 4K. Larger blocks need less memory to keep
    /// account of, and make small writes slower. An overlay that is there already keeps its own.
    #[param(default = "4K")]
    cow_block_size: Size,
    /// Keep the overlay in this file, which is made if it is not there.
    cow_file: Option<PathBuf>,
    /// Use an overlay although the disk below is not the one that it was made for, if it has the same size: **what is
    /// not in the overlay may not fit what is**.
    #[param(default = "false")]
    cow_force: bool,
    /// What has an overlay of its own with `cow-per-client`: each `export`, or for each export each `address`
    /// (of the Internet, or the user of a Unix socket) or each name in a client's `certificate`.
    #[param(default = "export")]
    cow_key: Key,
    /// How much of a temporary overlay may be in memory, and not in its file. It is taken when it is written to.
    #[param(default = "64M")]
    cow_memory: Size,
    /// Copy what clients want cached into the overlay.
    #[param(default = "false")]
    cow_on_cache: bool,
    /// Copy what clients read into the overlay: never, always, or while the file with this absolute path exists.
    #[param(default = "false")]
    cow_on_read: OnRead,
    /// Keep one overlay for each client in this directory; `cow-key` says what a client is known by.
    #[param(placeholder = "DIRECTORY")]
    cow_per_client: Option<PathBuf>,
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
        // A server changes its directory before it serves.
        let place = match (&self.cow_file, &self.cow_per_client) {
            (None, None) => Where::Temporary(Arc::new(Store::with_memory(self.cow_memory.bytes()))),
            (Some(file), None) => Where::File(std::path::absolute(file)?),
            (None, Some(dir)) => Where::Directory(std::path::absolute(dir)?),
            (Some(_), Some(_)) => {
                return Err(Error::invalid("cow-file= and cow-per-client= cannot be used at the same time"));
            }
        };
        if self.cow_key != Key::Export && self.cow_per_client.is_none() {
            return Err(Error::invalid("cow-key= is of no use without cow-per-client="));
        }
        let overlays = Arc::new(Overlays::new(place, block, self.cow_force));
        Ok(CopyOnWrite { params: Arc::new(self), overlays, next })
    }
}

struct CopyOnWrite {
    params: Arc<Cow>,
    overlays: Arc<Overlays>,
    next: Arc<dyn Backend>,
}

impl CopyOnWrite {
    /// The disk of a client over that of the backend below.
    fn layer(&self, client: &Client<'_>, export: &str, base: Arc<dyn Disk>) -> Result<Layer> {
        let key = self.params.cow_key.of(client, export)?;
        let overlay = if client.looks {
            self.overlays.glance(&key, base.facts())?
        } else {
            self.overlays.get(&key, base.facts())?
        };
        let leave = Leave::new(&self.overlays, key);
        // What the overlay stands on, lowest first; nothing is ever written to it.
        let base = overlay.parents.iter().rev().try_fold(base, |base, parent| {
            let facts = facts(base.facts(), parent, false).without_write();
            let layer = Layer { facts, overlay: parent.clone(), base, fills: None, leave: None };
            Ok::<_, Error>(Arc::new(layer) as Arc<dyn Disk>)
        })?;
        let facts = facts(base.facts(), &overlay, self.params.cow_on_cache);
        let facts = if client.read_only { facts.without_write() } else { facts };
        Ok(Layer { facts, overlay, base, fills: Some(self.params.clone()), leave: Some(leave) })
    }
}

impl Backend for CopyOnWrite {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        Io::later(async move {
            let export = export_name(&*self.next, client).await?;
            let below = Client { read_only: true, ..client.clone() };
            let base = self.next.open(&below).await?;
            Ok(Arc::new(self.layer(client, &export, base)?) as Arc<dyn Disk>)
        })
    }
    fn get_ready(&self) -> Result<()> {
        self.next.get_ready()?;
        // Better now than at the first client.
        self.overlays.get_ready()
    }
    fn finish(&self) {
        self.overlays.finish();
        self.next.finish();
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

/// The overlay can do everything, and all connections see the same.
fn facts(below: &Facts, overlay: &Overlay, caches: bool) -> Facts {
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
        cache: below.cache || caches,
        extents: true,
        multi_conn: true,
        // They speak of the disk below, not of what has been changed since.
        contexts: Arc::new([]),
        identity: None,
        ..below.clone()
    }
}

#[cfg(test)]
mod tests;
