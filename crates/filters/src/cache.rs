//! `cache`: blocks of a slow disk in a file, temporary or kept.
//!
//! All connections to an export share one [`Cache`] and one disk below it. The states of blocks are atomic words, and
//! their bytes lie in a sparse file (both are of the crate `store`): what is here is read and changed without a lock.

mod blocks;
mod kept;
mod layer;
mod recent;

use crate::common::{
    on_read::OnRead,
    wrap::{export_name, stated_with_its_size},
};
use async_lock::Mutex;
use blocks::{Cache, Shared};
use disk::{Backend, Client, Disk, Error, Facts, Filter, Io, Result};
use layer::Layer;
use params::{Choice, ParamError, Params, Size};
use recent::Recent;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};
use store::{Blocks, Header, Store};

/// Keep blocks of a slow disk in a file.
#[derive(Params)]
pub(crate) struct CacheFilter {
    /// What becomes of writes: `writeback`, they stay in the cache until a client flushes; `writethrough`, they go to the
    /// disk below at once; `unsafe`, they stay in the cache, **flushing does nothing, and they are lost when the server
    /// ends**.
    #[param(default = "writeback")]
    cache: Mode,
    /// Keep the cache in this file, which is made if it is not there and outlives the server.
    cache_file: Option<PathBuf>,
    /// How many bytes are kept at a time: a power of two from 4K on. A file that is there keeps its own.
    #[param(default = "64K")]
    cache_min_block_size: Size,
    /// How large the cache may become. Without it, as large as the disk.
    cache_max_size: Option<Size>,
    /// When so many percent of that are used, blocks are given up, those first that were not used for the longest time.
    #[param(default = "95")]
    cache_high_threshold: u32,
    /// Until no more than so many percent are used.
    #[param(default = "80")]
    cache_low_threshold: u32,
    /// Whether what clients read is kept, too: never, always, or while the file with this absolute path exists.
    #[param(default = "false")]
    cache_on_read: OnRead,
}

#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    #[choice(name = "writeback")]
    WriteBack,
    #[choice(name = "writethrough")]
    WriteThrough,
    Unsafe,
}

impl Filter for CacheFilter {
    const NAME: &'static str = "cache";
    const MANUAL: &'static str = include_str!("cache.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let block = self.cache_min_block_size;
        if !block.bytes().is_power_of_two() || !(4096..=1 << 30).contains(&block.bytes()) {
            return Err(ParamError::bad(
                "cache-min-block-size",
                block.to_string(),
                "not a power of two from 4K to 1G",
            )
            .into());
        }
        let (high, low) = (self.cache_high_threshold, self.cache_low_threshold);
        if low == 0 || low >= high || high > 100 {
            return Err(Error::invalid(format!(
                "cache-low-threshold={low} cache-high-threshold={high}: the lower must be above 0 and below the higher, and that at most 100"
            )));
        }
        if let Some(size) = self.cache_max_size
            && size.bytes() < 2 * block.bytes()
        {
            let why = format!("less than two blocks of cache-min-block-size={block}");
            return Err(ParamError::bad("cache-max-size", size.to_string(), why).into());
        }
        if self.cache_file.is_some() && self.cache == Mode::Unsafe {
            return Err(Error::invalid(
                "cache=unsafe loses what cache-file= would keep: they cannot be used together",
            ));
        }
        // A server changes its directory before it serves.
        let place = match &self.cache_file {
            Some(file) => Place::File(std::path::absolute(file)?, Box::default()),
            None => Place::Temporary(Arc::new(Store::new())),
        };
        Ok(Caching { params: Arc::new(self), place: Arc::new(place), caches: Mutex::default(), next })
    }
}

impl CacheFilter {
    /// The size of the blocks over a disk, which that of a file is if there is one.
    fn block(&self, below: &Facts, header: Option<&Header>) -> u64 {
        let block = self.cache_min_block_size.bytes().max(below.blocks.minimum.into());
        header.map_or(block, |header| header.block)
    }

    /// What a cache of such blocks is over a disk, and what becomes of writes.
    fn over(&self, below: &Facts, block: u64, kept: bool) -> (Facts, Mode) {
        let mode = match self.cache {
            // Nobody would ever say when to write back.
            Mode::WriteBack if !below.flush && !kept => Mode::WriteThrough,
            mode => mode,
        };
        let flush = below.flush || (below.write && (mode == Mode::Unsafe || kept));
        let mut blocks = below.blocks;
        blocks.preferred = blocks.preferred.max(block.min(1 << 16) as u32);
        let facts = Facts {
            blocks,
            flush,
            fua: below.write && flush,
            cache: true,
            // All share the cache, and the disk below it.
            multi_conn: true,
            // They speak of the disk below, not of what has been written since.
            contexts: Arc::new([]),
            identity: below.identity.clone().filter(|_| !below.write),
            ..below.clone()
        };
        (facts, mode)
    }
}

/// Where blocks are.
enum Place {
    Temporary(Arc<Store>),
    /// Of one export, whose disk is not known before somebody opens it.
    File(PathBuf, Box<std::sync::Mutex<Option<Blocks>>>),
}

impl Place {
    /// Better when the server starts than at the first client.
    fn get_ready(&self) -> Result<()> {
        match self {
            Place::Temporary(store) => store.open().map(drop),
            Place::File(path, opened) => {
                let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
                if opened.is_none() {
                    *opened = kept::open(path)?;
                }
                Ok(())
            }
        }
    }

    fn file(&self) -> Option<&Path> {
        match self {
            Place::Temporary(_) => None,
            Place::File(path, _) => Some(path),
        }
    }

    /// The blocks of a disk. May wait for the medium.
    fn blocks(&self, block: u64, below: &Facts) -> Result<Blocks> {
        self.get_ready()?;
        match self {
            Place::Temporary(store) => {
                let end = below.size - below.size % u64::from(below.blocks.minimum);
                Ok(Blocks::temporary(store, block, end.div_ceil(block)))
            }
            Place::File(path, opened) => {
                let opened = opened.lock().unwrap_or_else(PoisonError::into_inner).take();
                kept::blocks(opened, path, block, below)
            }
        }
    }
}

struct Caching {
    params: Arc<CacheFilter>,
    place: Arc<Place>,
    /// By export; they live as long as the server.
    caches: Mutex<HashMap<String, Arc<Cache>>>,
    next: Arc<dyn Backend>,
}

impl Caching {
    /// What a cache of this disk would be. A file is looked at, and stays as it is.
    fn glance(&self, disk: Arc<dyn Disk>) -> Result<Arc<dyn Disk>> {
        let below = disk.facts();
        let file = self.place.file();
        let header = file.map(|file| kept::glance(file, below)).transpose()?.flatten();
        let block = self.params.block(below, header.as_ref());
        let (facts, _) = self.params.over(below, block, file.is_some());
        Ok(stated_with_its_size(facts, disk))
    }

    /// The cache of an export, over a disk below that this client may use.
    async fn cache(&self, client: &Client<'_>) -> Result<Arc<Cache>> {
        let export = export_name(&*self.next, client).await?;
        // Held while the disk is opened: the next client waits for that.
        let mut caches = self.caches.lock().await;
        if let Some(cache) = caches.get(&export)
            && (cache.may_write || client.read_only)
        {
            return Ok(cache.clone());
        }
        if let (Some(file), Some(other)) = (self.place.file(), caches.keys().find(|other| **other != export))
        {
            let file = file.display();
            return Err(Error::invalid(format!(
                "cache-file={file}: it is of export {other:?}, and cannot be of {export:?} as well"
            )));
        }
        let base = self.next.open(client).await?;
        let may_write = !client.read_only;
        let cache = match caches.get(&export) {
            // Those before could only read; what they have brought is of use to all.
            Some(reading) => {
                let cache = Cache::new(&self.params, base, may_write, reading.shared.clone())?;
                reading.base.close().await?;
                cache
            }
            None => {
                let (params, place, below) = (self.params.clone(), self.place.clone(), base.facts().clone());
                let shared = reactor::unblock(move || Shared::open(&params, &place, &below)).await??;
                let cache = Cache::new(&self.params, base, may_write, Arc::new(shared))?;
                if cache.mode == Mode::WriteThrough && cache.is_kept() {
                    // Another server may have left something.
                    cache.write_all_back().await?;
                }
                cache
            }
        };
        let cache = Arc::new(cache);
        caches.insert(export, cache.clone());
        Ok(cache)
    }

    /// The server ends: all is written back, and a file is closed in good order.
    async fn end(&self, export: &str, cache: &Cache) -> Result<()> {
        let back = if cache.mode == Mode::WriteBack { cache.write_all_back().await } else { Ok(()) };
        let flushed =
            if cache.mode == Mode::Unsafe || !cache.may_write { Ok(()) } else { cache.flush().await };
        let closed = cache.base.close().await;
        if cache.is_kept() {
            let mut below = None;
            if cache.is_disowned() && back.is_ok() && flushed.is_ok() {
                // Who it is now, after all that was written.
                let reader = Client { read_only: true, ..Client::local(export) };
                let disk = self.next.open(&reader).await?;
                below = Some(disk.facts().clone());
                disk.close().await?;
            }
            kept::close(&cache.blocks, below.as_ref())?;
        }
        back.and(flushed).and(closed)
    }
}

impl Backend for Caching {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        Io::later(async move {
            if client.looks {
                return self.glance(self.next.open(client).await?);
            }
            let cache = self.cache(client).await?;
            let facts = cache.facts.clone();
            let facts = if client.read_only { facts.without_write() } else { facts };
            Ok(Arc::new(Layer { facts, cache }) as Arc<dyn Disk>)
        })
    }
    fn get_ready(&self) -> Result<()> {
        self.next.get_ready()?;
        self.place.get_ready()
    }
    fn finish(&self) {
        for (export, cache) in std::mem::take(&mut *self.caches.lock_blocking()) {
            let end = reactor::block_on(self.end(&export, &cache));
            if let Err(e) = end {
                tracing::error!(target: "diskpipe", "cache: writing export {export:?} back at the end: {e}");
            }
        }
        self.next.finish();
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

impl Shared {
    fn open(params: &CacheFilter, place: &Place, below: &Facts) -> Result<Shared> {
        let blocks = place.blocks(params.block(below, None), below)?;
        let block = params.block(below, blocks.header());
        let recent = params.cache_max_size.map(|size| {
            let most = (size.bytes() / block).max(2);
            Recent::new(most, params.cache_high_threshold, params.cache_low_threshold)
        });
        Ok(Shared::new(blocks, recent))
    }
}

impl Cache {
    fn new(params: &CacheFilter, base: Arc<dyn Disk>, may_write: bool, shared: Arc<Shared>) -> Result<Cache> {
        let below = base.facts();
        let block = params.block(below, shared.blocks.header());
        let may_write = may_write && below.write;
        let (facts, mode) = params.over(below, block, shared.is_kept());
        let end = below.size - below.size % u64::from(below.blocks.minimum);
        let on_read = params.cache_on_read.clone();
        Ok(Cache { facts, mode, on_read, block, end, may_write, base, shared })
    }
}

#[cfg(test)]
mod tests;
